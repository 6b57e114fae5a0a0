//! Memory, processor time and wakeups of a supervisor: at rest, with a plan of 10,000 upgrades, and under hostile input.

use super::latency::{Other, under_runit};
use super::rig::{Home, Outcome, Setup, run, tied, until};
use super::table::{Budget, Row};
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

/// Time until a supervisor is at rest, until one with 10,000 upgrades is, and for which it is watched then.
const SETTLES: Duration = Duration::from_secs(10);
const SETTLES_LATE: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(60);
/// Options of the simulated node: a block a second.
const NODE: &[&str] = &["period=1000"];
/// Answers of a node that nothing can be made of.
const HOSTILE: &[&str] = &["huge", "garbage", "wrong-id", "wrong-shape", "close", "lie", "hang"];

/// Counters of all threads of a process, or of one.
#[derive(Clone, Copy)]
struct Spent {
    wakeups: f64,
    /// Milliseconds of the processor.
    ms: f64,
}

pub(crate) fn all(setup: &Setup) -> Outcome<Vec<Row>> {
    let (mut rows, rest) = at_rest(setup)?;
    rows.extend(many_upgrades(setup, rest)?);
    rows.push(hostile(setup)?);
    rows.push(many_validators(setup)?);
    Ok(rows)
}

/// A figure of `/proc/PID/status` in MB.
fn megabytes(pid: u32, name: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 = line.ok_or("not in the status")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The counters of the threads whose name begins so.
fn spent(pid: u32, name: &str) -> Outcome<Spent> {
    let mut sum = Spent { wakeups: 0.0, ms: 0.0 };
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let read = |file: &str| task.as_ref().ok().and_then(|t| fs::read_to_string(t.path().join(file)).ok());
        // A thread may end meanwhile.
        let (Some(comm), Some(status), Some(stat)) = (read("comm"), read("status"), read("schedstat")) else {
            continue;
        };
        if comm.starts_with(name) {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum.wakeups += line.unwrap_or_default().trim().parse::<f64>()?;
            sum.ms += stat.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e6;
        }
    }
    Ok(sum)
}

/// The counters of a minute of all threads, and of the watcher.
fn a_minute(pid: u32, settles: Duration) -> Outcome<(Spent, Spent)> {
    sleep(settles);
    let before = (spent(pid, "")?, spent(pid, "watcher")?);
    sleep(WATCHED);
    let after = (spent(pid, "")?, spent(pid, "watcher")?);
    let minus = |a: Spent, b: Spent| Spent { wakeups: a.wakeups - b.wakeups, ms: a.ms - b.ms };
    Ok((minus(after.0, before.0), minus(after.1, before.1)))
}

/// The figures at rest, with the processor time for later comparison.
fn at_rest(setup: &Setup) -> Outcome<(Vec<Row>, f64)> {
    let beside = Home::new(setup, &setup.dir, NODE, &[])?;
    let other = under_runit(&beside)?;
    until("the node's socket", || beside.heads().ok())?;
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let mut visor = home.supervise(&[])?;
    let (all, watcher) = a_minute(visor.pid(), SETTLES)?;
    let resident = megabytes(visor.pid(), "VmRSS")?;
    let runit = megabytes(other.0.id(), "VmRSS")?;
    visor.stop()?;
    let rows = vec![
        Row::new("resident at rest", "MB", vec![resident])
            .beside("runit", vec![runit])
            .budget(Budget::AtMost(4.0)),
        Row::new("wakeups in a minute at rest, a block a second", "", vec![all.wakeups]),
        Row::new("of those, of the watcher", "", vec![watcher.wakeups]).budget(Budget::AtMost(1.0)),
        Row::new("processor in a minute at rest", "ms", vec![all.ms]),
    ];
    Ok((rows, all.ms))
}

/// The same with 10,000 upgrades that have digests and addresses.
fn many_upgrades(setup: &Setup, rest: f64) -> Outcome<Vec<Row>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let upgrade = |n: u32| {
        serde_json::json!({
            "name": format!("v{n}"), "height": 1_000_000 + n, "sha256": format!("{n:064x}"),
            "binaries": {"any": format!("https://releases.example.org/v{n}/gwemix-linux-amd64.tar.gz")},
        })
    };
    let upgrades: Vec<_> = (0..10_000).map(upgrade).collect();
    let file = home.dir.path().join("many.json");
    let plan = serde_json::json!({
        "version": "1.0", "name": "many", "description": "", "created_at": "2025-01-01T00:00:00Z", "upgrades": upgrades,
    });
    fs::write(&file, plan.to_string())?;
    home.visor(&["plan", "create", "many", "--from", &file.display().to_string()])?;
    home.visor(&["plan", "execute", "many", "--force"])?;
    let mut visor = home.supervise(&[])?;
    let (all, watcher) = a_minute(visor.pid(), SETTLES_LATE)?;
    let (resident, peak) = (megabytes(visor.pid(), "VmRSS")?, megabytes(visor.pid(), "VmHWM")?);
    visor.stop()?;
    Ok(vec![
        Row::new("resident with 10,000 upgrades", "MB", vec![resident]),
        Row::new("the same at its peak", "MB", vec![peak]).budget(Budget::AtMost(16.0)),
        Row::new("wakeups of the watcher in a minute then", "", vec![watcher.wakeups])
            .budget(Budget::AtMost(1.0)),
        Row::new("processor in a minute then", "ms", vec![all.ms])
            .beside("without upgrades", vec![rest])
            .budget(Budget::Times(1.5)),
    ])
}

/// The peak under answers of the node, a trigger file and a caller that are as bad as can be.
fn hostile(setup: &Setup) -> Outcome<Row> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let mut visor = home.supervise(&[])?;
    for rpc in HOSTILE.iter().chain(&["normal"]) {
        let partial = home.dir.path().join("partial");
        fs::write(&partial, format!(r#"{{"rpc":"{rpc}"}}"#))?;
        fs::rename(&partial, home.data.join("sim.json"))?;
        sleep(Duration::from_secs(4));
    }
    fs::write(home.data.join("upgrade-info.json"), vec![b'['; 64 << 20])?;
    let mut caller = UnixStream::connect(home.dir.path().join("home/wemixvisor/control.sock"))?;
    // It hangs up in the middle.
    let _ = caller.write_all(&vec![b'['; 64 << 20]);
    sleep(Duration::from_secs(2));
    let peak = megabytes(visor.pid(), "VmHWM")?;
    visor.stop()?;
    Ok(Row::new("peak under hostile input", "MB", vec![peak]).budget(Budget::AtMost(8.0)))
}

/// The peak of `consensus` beside a node with 1,000 validators.
fn many_validators(setup: &Setup) -> Outcome<Row> {
    let node = ["period=1000", "validators=1000", "crowd=true"];
    let home = Home::new(setup, &setup.dir, &node, &[])?;
    let mut command = tied(home.dir.path().join("v1"));
    // Without a supervisor, which would have a validator without peers be silent.
    let _node = Other(command.args(home.node_args()).arg("--mine").stderr(Stdio::null()).spawn()?);
    until("the node's socket", || home.heads().ok())?.nth(11).ok_or("the node announces no head")?;
    let out = home.dir.path().join("peak").display().to_string();
    run(&mut home.command(&["/usr/bin/time", "-f", "%M", "-o", &out], &["consensus"]))?;
    let kib: f64 = fs::read_to_string(&out)?.trim().parse()?;
    let row = Row::new("peak of `consensus` with 1,000 validators", "MB", vec![kib * 1024.0 / 1e6]);
    Ok(row.budget(Budget::AtMost(16.0)))
}
