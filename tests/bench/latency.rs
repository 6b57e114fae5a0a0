//! Latencies of a supervisor, on the disk as it is and with one whose every sync takes 10 ms more; beside runit and a shell script.

use super::rig::{Home, Outcome, Setup, ended, now, sh, signal, tied, until};
use super::table::{Budget, Row};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

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
    let mut rows = vec![noticed(setup, &[])?];
    let (runit, shell) = (runit(setup)?, shell(setup)?);
    for (before, on) in [(&[][..], ""), (SLOW, ", syncs 10 ms slower")] {
        if !before.is_empty() {
            rows.push(noticed(setup, before)?);
        }
        let (due, switched) = upgrades(setup, before)?;
        // Two syncs stand between the end and the start, the record's and the link's, and tracing takes its share.
        let slower = if before.is_empty() { 0.0 } else { 25.0 };
        rows.push(Row::new(format!("block H to SIGTERM{on}"), "ms", due).budget(Budget::AtMost(20.0)));
        let row = Row::new(format!("old node ended to new one started{on}"), "ms", switched);
        rows.push(row.beside("shell", shell.1.clone()).budget(Budget::AtMost(5.0 + slower)));
        let row = Row::new(format!("SIGTERM to us, to the node{on}"), "ms", stops(setup, before)?);
        rows.push(row.beside("runit", runit.clone()).budget(Budget::AtMost(5.0)));
        let row =
            Row::new(format!("block to the answer of `status` after it{on}"), "ms", answers(setup, before)?);
        rows.push(row);
    }
    rows.push(Row::new("SIGTERM to the node, by the shell script", "ms", shell.0));
    Ok(rows)
}

/// Time from the rename of a trigger file to the event in the log.
fn noticed(setup: &Setup, before: &[&str]) -> Outcome<Row> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let mut visor = home.supervise(before)?;
    let mut times = Vec::new();
    for round in 0..setup.rounds {
        let partial = home.dir.path().join("partial");
        fs::write(&partial, format!(r#"{{"name":"n{round}","height":1000000}}"#))?;
        let begun = now();
        fs::rename(&partial, home.data.join("upgrade-info.json"))?;
        times.push(visor.wait(&format!("first=n{round}@"))? - begun);
    }
    visor.stop()?;
    let on = if before.is_empty() { "" } else { ", syncs 10 ms slower" };
    Ok(Row::new(format!("upgrade file written to event{on}"), "ms", times).budget(Budget::AtMost(5.0)))
}

/// Times from the block at the height of an upgrade to the node's SIGTERM, and from its end to the start of the new one.
fn upgrades(setup: &Setup, before: &[&str]) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let home = Home::new(setup, &setup.dir, NODE, &[("UNSAFE_SKIP_BACKUP", "true")])?;
    let mut visor = home.supervise(before)?;
    let (mut due, mut switched) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        let name = format!("n{round}");
        home.visor(&["upgrade", "add", &name, &home.node(&name, NODE)?])?;
        let (old, _) = home.newest("sim.starts", round)?;
        let mut heads = home.heads()?;
        let (head, _) = heads.next().ok_or("the node announces no head")?;
        let height = head + 8;
        home.visor(&["upgrade", "schedule", &name, &height.to_string()])?;
        visor.wait("event=upgrade_ready")?;
        let (_, at) = heads.find(|(head, _)| *head >= height).ok_or("the node ended before the height")?;
        let end = ended(old)?;
        due.push(home.newest("sim.signals", round)?.1 - at);
        switched.push(home.newest("sim.starts", round + 1)?.1 - end);
        visor.wait("event=upgrade_ended")?;
    }
    visor.stop()?;
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

/// Times that the loop takes to answer `status` while heads come.
fn answers(setup: &Setup, before: &[&str]) -> Outcome<Vec<f64>> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let mut visor = home.supervise(before)?;
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
    visor.stop()?;
    Ok(times)
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

/// The times of SIGTERM through the shell script, and from the end of its node to the start of the next version.
fn shell(setup: &Setup) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let home = Home::new(setup, &setup.dir, NODE, &[])?;
    let dir = home.dir.path();
    executable(&dir.join("supervise"), SHELL)?;
    home.node("v2", NODE)?;
    let (mut stops, mut switched) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        sh("ln", &["-sfn", "v1", &dir.join("current").display().to_string()])?;
        sh("ln", &["-sfn", "v2", &dir.join("next").display().to_string()])?;
        let mut command = tied("./supervise");
        command.args(home.node_args()).arg("--mine").current_dir(dir).stderr(Stdio::null());
        let mut other = Other(command.spawn()?);
        let (old, _) = home.newest("sim.starts", 2 * round)?;
        until("the node's socket", || home.heads().ok())?.next();
        signal(old, Signal::TERM)?;
        let end = ended(old)?;
        switched.push(home.newest("sim.starts", 2 * round + 1)?.1 - end);
        std::thread::sleep(Duration::from_secs(1));
        let begun = now();
        signal(other.0.id(), Signal::TERM)?;
        stops.push(home.newest("sim.signals", 2 * round + 1)?.1 - begun);
        other.0.wait()?;
    }
    Ok((stops, switched))
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
