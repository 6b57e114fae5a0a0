//! Latencies of a supervisor, on the disk as it is and with one whose every sync takes 10 ms more; beside runit and a shell script.

use super::rig::{Home, Outcome, Setup, Visor, ended, now, sh, signal, tied, until};
use super::table::{Budget, Row};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

/// Delays every sync by 10 ms; nothing else is traced.
const SLOW: &[&str] = &[
    "strace",
    "-f",
    "--seccomp-bpf",
    "-o",
    "/dev/null",
    "-e",
    "trace=fsync,fdatasync,syncfs",
    "-e",
    "inject=fsync,fdatasync,syncfs:delay_exit=10000",
];
/// Options of the simulated node: a block every 250 ms, and a stop that takes longer than the syncs of its beginning.
const NODE: &[&str] = &["period=250", "stop=200"];
const PERIOD: f64 = 250.0;

/// A supervisor as a shell script, as many operators have one: `current` in the first argument's directory leads to the node.
const SHELL: &str = r#"#!/bin/sh
stopping=
trap 'stopping=yes; kill -TERM "$node"' TERM
while [ -z "$stopping" ]; do
    ./current "$@" &
    node=$!
    wait "$node"
    while kill -0 "$node" 2>/dev/null; do wait "$node"; done
    [ ! -e next ] || mv -T next current
done
"#;

pub(crate) fn all(setup: &Setup) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let (runit, shell) = (runit(setup)?, shell(setup)?);
    for (before, on) in [(&[][..], ""), (SLOW, ", syncs 10 ms slower")] {
        let home = Home::new(setup, &setup.dir, NODE, &[("UNSAFE_SKIP_BACKUP", "true")])?;
        let mut visor = home.supervise(before)?;
        let mut add = |row: Row, limit: f64| rows.push(row.budget(Budget::AtMost(limit)));
        let row = |what: &str, times: Vec<f64>| Row::new(format!("{what}{on}"), "ms", times);
        add(row("upgrade file written to event", noticed(setup, &home, &mut visor)?), 5.0);
        let answers = answers(setup, &home)?;
        let (due, switched) = upgrades(setup, &home, &mut visor)?;
        visor.stop()?;
        add(row("block H to SIGTERM", due), 20.0);
        // Two syncs stand between the end and the start, the record's and the link's, and tracing takes its share.
        let slower = if before.is_empty() { 0.0 } else { 25.0 };
        add(row("old node ended to new one started", switched).beside("shell", shell.clone()), 5.0 + slower);
        let stops = stops(setup, before)?;
        add(row("SIGTERM to us, to the node", stops).beside("runit", runit.clone()), 5.0);
        rows.push(row("block to the answer of `status` after it", answers));
    }
    Ok(rows)
}

/// Times from the rename of a trigger file to the event in the log.
fn noticed(setup: &Setup, home: &Home, visor: &mut Visor) -> Outcome<Vec<f64>> {
    let trigger = home.data.join("upgrade-info.json");
    let mut times = Vec::new();
    for round in 0..setup.rounds {
        let partial = home.dir.path().join("partial");
        fs::write(&partial, format!(r#"{{"name":"t{round}","height":1000000}}"#))?;
        let begun = now();
        fs::rename(&partial, &trigger)?;
        times.push(visor.wait(&format!("first=t{round}@"))? - begun);
    }
    fs::remove_file(trigger)?;
    Ok(times)
}

/// Times until the loop has answered `status`, which is asked at each head.
fn answers(setup: &Setup, home: &Home) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for (_, at) in home.heads()?.take(setup.rounds * 4) {
        let mut socket = UnixStream::connect(home.dir.path().join("home/wemixvisor/control.sock"))?;
        socket.write_all(b"\"status\"\n")?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        if !answer.contains("\"running\"") {
            return Err(format!("no status: {answer:?}").into());
        }
        times.push(now() - at);
    }
    Ok(times)
}

/// Times from the block at the height of an upgrade to the node's SIGTERM, and from its end to the start of the new one.
fn upgrades(setup: &Setup, home: &Home, visor: &mut Visor) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let (mut due, mut switched) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        let name = format!("n{round}");
        home.visor(&["upgrade", "add", &name, &home.node(&name, NODE)?])?;
        let (old, _) = home.newest("sim.starts", round)?;
        let mut heads = home.heads()?;
        let height = heads.next().ok_or("the node announces no head")?.0 + 8;
        home.visor(&["upgrade", "schedule", &name, &height.to_string()])?;
        visor.wait("event=upgrade_ready")?;
        let (_, at) = heads.find(|(head, _)| *head >= height).ok_or("the node ended before the height")?;
        let end = ended(old)?;
        due.push(home.newest("sim.signals", round)?.1 - at);
        switched.push(home.newest("sim.starts", round + 1)?.1 - end);
        visor.wait("event=upgrade_ended")?;
    }
    Ok((due, switched))
}

/// Times from a SIGTERM for the supervisor to that for the node.
fn stops(setup: &Setup, before: &[&str]) -> Outcome<Vec<f64>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    (0..setup.rounds)
        .map(|round| {
            let mut visor = home.supervise(before)?;
            home.heads()?.nth(1).ok_or("the node announces no head")?;
            let begun = now();
            visor.stop()?;
            Ok(home.newest("sim.signals", round)?.1 - begun)
        })
        .collect()
}

/// Another supervisor, which is ended with this value.
pub(crate) struct Other(pub(crate) Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node under runit's supervisor.
pub(crate) fn under_runit(home: &Home) -> Outcome<Other> {
    let service = home.dir.path().join("service");
    fs::create_dir_all(&service)?;
    let line = format!(
        "#!/bin/sh\nexec {} {} --mine\n",
        home.dir.path().join("v1").display(),
        home.node_args().join(" ")
    );
    executable(&service.join("run"), &line)?;
    Ok(Other(tied("runsv").arg(&service).stderr(Stdio::null()).spawn()?))
}

/// The time of SIGTERM through runit.
fn runit(setup: &Setup) -> Outcome<Vec<f64>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    (0..setup.rounds)
        .map(|round| {
            let mut other = under_runit(&home)?;
            home.newest("sim.starts", round)?;
            until("the node's socket", || home.heads().ok())?;
            let begun = now();
            signal(other.0.id(), Signal::TERM)?;
            other.0.wait()?;
            Ok(home.newest("sim.signals", round)?.1 - begun)
        })
        .collect()
}

/// The times from the end of a node under the shell script to the start of the next version.
fn shell(setup: &Setup) -> Outcome<Vec<f64>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let dir = home.dir.path();
    executable(&dir.join("supervise"), SHELL)?;
    home.node("v2", NODE)?;
    let switch = |round: usize| {
        sh("ln", &["-sfn", "v1", &dir.join("current").display().to_string()])?;
        sh("ln", &["-sfn", "v2", &dir.join("next").display().to_string()])?;
        let mut command = tied("./supervise");
        command.args(home.node_args()).arg("--mine").current_dir(dir).stderr(Stdio::null());
        let mut other = Other(command.spawn()?);
        let (old, _) = home.newest("sim.starts", 2 * round)?;
        until("the node's socket", || home.heads().ok())?.next();
        signal(old, Signal::TERM)?;
        let end = ended(old)?;
        let begun = home.newest("sim.starts", 2 * round + 1)?.1;
        until("the next node's socket", || home.heads().ok())?.next();
        signal(other.0.id(), Signal::TERM)?;
        other.0.wait()?;
        Ok(begun - end)
    };
    (0..setup.rounds).map(switch).collect()
}

fn executable(path: &std::path::Path, text: &str) -> Outcome<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Restarts and signals of the node that the death of its supervisor and the start of the next one cost, and the longest time
/// between two blocks meanwhile, less a period.
pub(crate) fn death(setup: &Setup) -> Outcome<Vec<Row>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let mut visor = home.supervise(&[])?;
    let mut heads = home.heads()?;
    let mut gaps = Vec::new();
    for _ in 0..setup.rounds {
        let mut times: Vec<f64> = heads.by_ref().take(4).map(|(_, at)| at).collect();
        visor.child.kill()?;
        visor.child.wait()?;
        times.extend(heads.by_ref().take(4).map(|(_, at)| at));
        visor = home.supervise(&[])?;
        times.extend(heads.by_ref().take(4).map(|(_, at)| at));
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        gaps.push((longest - PERIOD).max(0.0));
    }
    let stops = home.traces("sim.starts").len() - 1 + home.traces("sim.signals").len();
    visor.stop()?;
    let row = Row::new("stops of the node by the death of a supervisor", "", vec![stops as f64]);
    Ok(vec![
        row.budget(Budget::AtMost(0.0)),
        Row::new("delay of a block by that death and the next start", "ms", gaps),
    ])
}
