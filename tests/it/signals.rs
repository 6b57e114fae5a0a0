//! Signals, and the deaths of the supervisor: the node gets one SIGTERM, outlives a killed supervisor, and never runs twice.

use super::rig::sim::{until, wait_head};
use super::rig::visor::{Rig, is_alive, send};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wemixvisor::inside::journal::Journal;

/// The SIGTERMs and SIGINTs that all nodes have got, in order.
fn signals(rig: &Rig) -> Vec<String> {
    rig.traces().signals().iter().map(|s| s["signal"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stop_reaches_the_node_once_and_we_leave_after_it() {
    for (first, later) in
        [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM), (Signal::QUIT, Signal::TERM)]
    {
        let rig = Rig::with(&[("stop", "300")]);
        let mut visor = rig.run();
        visor.wait_node();
        let node = visor.node();
        visor.signal(first);
        until("the node's SIGTERM", || (signals(&rig).len() == 1).then_some(()));
        visor.signal(later);
        visor.signal(first);
        assert!(is_alive(visor.pid()), "it waits for its node");
        assert_eq!(visor.end(), 0);
        assert!(!is_alive(node));
        assert_eq!(signals(&rig), ["SIGTERM"]);
        let log = visor.log();
        let order = ["event=signal_sent signal=SIGTERM", "event=node_stopped", "event=ended code=0"];
        assert!(order.map(|line| log.find(line).expect(line)).is_sorted(), "{log}");
        assert_eq!(rig.journal()["node"], "stopped-clean");
    }
}

#[test]
fn nothing_but_a_stop_ends_us() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    let (realtime, harmless) =
        (35..=64, [1, 10, 13, 14, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
    for number in harmless.into_iter().chain(realtime) {
        let kill = [format!("-{number}"), visor.pid().to_string()];
        assert!(std::process::Command::new("/bin/kill").args(&kill).status().unwrap().success(), "{kill:?}");
    }
    visor.wait(&["event=signal_ignored", "signal=SIGALRM"]);
    visor.wait(&["event=signal_ignored", "signal=64"]);
    visor.wait(&["event=config_reloaded"]);
    let state = visor.wait(&["event=state"]);
    assert!(state.contains("state=running") && state.contains(&format!("node_pid={node}")), "{state}");
    assert_eq!((visor.node(), rig.traces().starts().len(), signals(&rig).len()), (node, 1, 0));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_configuration_is_read_again() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    let config = rig.of("config.yaml");
    let template = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{template}\ndaemon_max_restarts: 7\nlog_level: debug\n")).unwrap();
    visor.signal(Signal::HUP);
    visor.wait(&["event=config_changed", "key=daemon_max_restarts"]);
    visor.wait(&["event=config_needs_restart", "key=log_level"]);
    visor.wait(&["event=config_reloaded"]);

    fs::write(&config, format!("{template}\ndaemon_max_restart: 8\ndaemon_shutdown_grace: soon\n")).unwrap();
    visor.signal(Signal::HUP);
    let first = template.lines().count() + 2;
    visor.wait(&["event=config_problem", &format!("config.yaml:{first}: "), "daemon_max_restarts"]);
    visor.wait(&["event=config_problem", &format!("config.yaml:{}: ", first + 1), "soon"]);
    visor.wait(&["event=config_not_reloaded"]);

    // A value that is in force again needs no restart.
    fs::write(&config, format!("{template}\ndaemon_max_restarts: 8\n")).unwrap();
    visor.signal(Signal::HUP);
    visor.wait_count(2, &["event=config_reloaded"]);
    visor.wait_head(visor.status()["head"]["height"].as_u64().unwrap() + 2);
    let log = visor.log();
    assert_eq!(log.matches("event=config_needs_restart").count(), 1, "{log}");
    assert_eq!(log.matches("event=rpc_connected").count(), 1, "{log}");
    assert_eq!((visor.node(), rig.traces().starts().len()), (node, 1));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_configuration_that_does_not_fit_the_arguments_of_the_node_is_not_reloaded() {
    let rig = Rig::new().set("DAEMON_RPC_ADDRESS", "http://127.0.0.1:1");
    let mut visor = rig.run_with(&[], &["--mine", "--ipcdisable"]);
    visor.wait(&["event=node_started"]);
    let config = rig.of("config.yaml");
    let template = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{template}\nvalidator_mode: true\ndaemon_max_restarts: 7\n")).unwrap();
    visor.signal(Signal::HUP);
    visor.wait(&["event=config_problem", "sign_after_unclean", "leave --ipcdisable out"]);
    visor.wait(&["event=config_not_reloaded"]);
    assert_eq!(visor.count(&["event=config_changed"]), 0);
    fs::write(&config, format!("{template}\nvalidator_mode: true\nsign_after_unclean: now\n")).unwrap();
    visor.signal(Signal::HUP);
    visor.wait(&["event=config_changed", "key=validator_mode"]);
    visor.wait(&["event=config_reloaded"]);
    until("the node's own trace", || (!rig.traces().starts().is_empty()).then_some(()));
    assert_eq!((rig.traces().starts().len(), signals(&rig).len()), (1, 0));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_signal_that_comes_while_the_binary_is_still_verified_does_not_end_us() {
    let rig = Rig::new();
    rig.is_broken_on_purpose();
    // Sparse, and wrong: it takes a while until that is known.
    let other = rig.binary("other", &[]);
    fs::File::options().write(true).open(&other).unwrap().set_len(256 << 20).unwrap();
    fs::rename(other, rig.of("genesis/bin/simnode")).unwrap();
    let mut visor = rig.run();
    let pid = format!("{}\n", visor.pid());
    until("the lock", || (fs::read_to_string(rig.of("lock")).ok()? == pid).then_some(()));
    visor.signal(Signal::HUP);
    assert_eq!(visor.end_beside(), 79);
}

#[test]
fn a_node_outlives_its_supervisor_and_the_next_one_adopts_it() {
    let rig = Rig::new();
    let mut visor = rig.run();
    let head = visor.wait_node();
    visor.wait(&["event=chain_bound"]);
    until("the record of its chain", || rig.journal()["chain"].is_object().then_some(()));
    let (before, node) = (rig.journal(), visor.node());
    visor.kill();
    // A node that makes blocks is not stopping.
    wait_head(&rig.ipc(), head + 20);
    for _ in 0..3 {
        let mut next = rig.run();
        next.wait(&["event=adopted", &format!("pid={node} version=genesis")]);
        let head = next.wait_node();
        next.wait_head(head + 5);
        let status = next.status();
        assert_eq!((&status["state"], &status["failures"]), (&"running".into(), &0.into()), "{status}");
        assert_eq!((next.node(), rig.journal()), (node, before.clone()));
        next.kill();
    }
    assert!(is_alive(node));
    let mut next = rig.run();
    next.wait_node();
    assert_eq!((rig.traces().starts().len(), signals(&rig).len()), (1, 0));
    let adopted = rig.history().iter().filter(|line| line.starts_with("adopted ")).count();
    assert_eq!(adopted, 4, "{:?}", rig.history());
    assert_eq!(next.stop(), 0);
    assert!(!is_alive(node));
    assert_eq!(signals(&rig), ["SIGTERM"]);
    assert_eq!(rig.journal()["node"], "stopped-clean");
}

#[test]
fn an_adopted_node_is_started_again_when_it_ends() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    visor.kill();
    let mut next = rig.run();
    next.wait(&["event=adopted"]);
    // Its end makes no SIGCHLD at its new supervisor.
    send(node, Signal::KILL);
    next.wait(&["event=node_exited"]);
    next.wait(&["event=node_started"]);
    next.wait_node();
    assert_ne!(next.node(), node);
    assert_eq!(rig.traces().starts()[0]["args"], rig.traces().starts()[1]["args"]);
    assert_eq!(next.stop(), 0);
}

#[test]
fn no_second_node_is_started_while_one_stops_whose_supervisor_was_killed() {
    let rig = Rig::with(&[("stop", "400")]);
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    visor.signal(Signal::TERM);
    until("the node's SIGTERM", || (signals(&rig).len() == 1).then_some(()));
    visor.kill();
    let mut next = rig.run();
    next.wait(&["event=node_started"]);
    next.wait_node();
    assert!(!is_alive(node));
    let (signals, starts) = (rig.traces().signals(), rig.traces().starts());
    assert_eq!((signals.len(), starts.len()), (1, 2), "{signals:?} {starts:?}");
    assert!(starts[1]["ms"].as_u64() >= signals[0]["ms"].as_u64().map(|ms| ms + 400));
    assert_eq!(starts[0]["args"], starts[1]["args"]);
    assert_eq!(next.stop(), 0);
}

#[test]
fn a_node_that_ends_without_a_supervisor_is_started_again() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    visor.kill();
    kill_and_wait(node);
    let mut next = rig.run();
    next.wait(&["event=node_started"]);
    next.wait_node();
    assert_eq!((next.count(&["event=adopted"]), rig.traces().starts().len()), (0, 2));
    assert_eq!(next.stop(), 0);
}

/// Kills a node that has no supervisor, and waits for its end.
fn kill_and_wait(node: u32) {
    send(node, Signal::KILL);
    until("the end of the node", || (!is_alive(node)).then_some(()));
}

#[test]
fn what_a_node_leaves_behind_keeps_the_next_one_waiting() {
    let rig = Rig::with(&[("grandchild", "1000")]);
    let mut visor = rig.run();
    visor.wait_node();
    let orphan: u32 = fs::read_to_string(rig.data().join("sim.grandchild")).unwrap().trim().parse().unwrap();
    let node = visor.node();
    visor.kill();
    kill_and_wait(node);
    let mut next = rig.run();
    next.wait(&["event=waiting_for_locks", &format!("process {orphan} (")]);
    next.wait(&["event=node_started"]);
    assert!(!is_alive(orphan));
    // The grandchild of the second node becomes ours when that node ends, and is no zombie afterwards.
    next.wait_node();
    rig.ok(&["restart"]);
    next.wait_count(2, &["event=waiting_for_locks"]);
    next.wait_count(2, &["event=node_started"]);
    let node = next.node();
    let children = next.children();
    assert!(children.iter().all(|(pid, state)| *pid == node && *state != 'Z'), "{children:?}");
    send(node, Signal::TERM);
    next.wait(&["event=node_exited"]);
    assert_eq!(next.stop(), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_node_that_is_only_waited_for() {
    let rig = Rig::with(&[("grandchild", "600000")]);
    let mut visor = rig.run();
    visor.wait_node();
    let orphan: u32 = fs::read_to_string(rig.data().join("sim.grandchild")).unwrap().trim().parse().unwrap();
    let node = visor.node();
    visor.kill();
    kill_and_wait(node);
    let mut next = rig.run();
    next.wait(&["event=waiting_for_locks"]);
    assert_eq!(next.status()["state"], "waiting-for-locks");
    assert_eq!(next.stop(), 0);
    send(orphan, Signal::KILL);
    assert_eq!(rig.traces().starts().len(), 1);
}

/// A rig whose supervisor is executed by a path of its own, so that another program can take its place.
fn with_program() -> (Rig, PathBuf) {
    let rig = Rig::new();
    let program = rig.path().join("wemixvisor");
    symlink(env!("CARGO_BIN_EXE_wemixvisor"), &program).unwrap();
    (rig, program)
}

fn put_program(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
fn the_program_of_a_supervisor_is_replaced_under_a_living_node() {
    let (rig, program) = with_program();
    let mut visor = rig.run_program(&program);
    visor.wait_node();
    visor.wait(&["event=chain_bound"]);
    let (pid, node) = (visor.pid(), visor.node());
    // The first node of a home has its process of the old program for a parent.
    for (number, by_signal) in [(1, false), (2, true), (3, false)] {
        if by_signal {
            visor.signal(Signal::USR2);
        } else {
            let said = rig.ok(&["reexec"]);
            assert!(said.contains(&format!("the node goes on as process {node}")), "{said}");
        }
        visor.wait_count(number, &["event=adopted", &format!("pid={node} version=genesis")]);
        let head = visor.wait_node();
        visor.wait_head(head + 3);
    }
    assert_eq!((visor.pid(), visor.node(), rig.traces().starts().len()), (pid, node, 1));
    // It is still ours: its end is seen, with its status.
    send(node, Signal::KILL);
    visor.wait(&["event=node_exited", "signal 9"]);
    visor.wait_count(2, &["event=node_started"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn signals_that_come_while_another_program_takes_over_end_nothing() {
    let (rig, program) = with_program();
    let mut visor = rig.run_program(&program);
    visor.wait_node();
    visor.wait(&["event=chain_bound"]);
    let node = visor.node();
    for number in 1..=3 {
        visor.signal(Signal::USR2);
        until("the change", || {
            visor.signal(Signal::HUP);
            assert_eq!(visor.has_ended(), None);
            (visor.count(&["event=adopted"]) >= number).then_some(())
        });
    }
    visor.wait_node();
    assert_eq!((visor.node(), rig.traces().starts().len()), (node, 1));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_program_that_could_not_go_on_is_not_executed() {
    let (rig, program) = with_program();
    let mut visor = rig.run_program(&program);
    visor.wait_node();
    let node = visor.node();
    put_program(&program, b"#!/bin/sh\necho \"asked: $1\"; exit 3\n");
    let said = rig.fails(1, &["reexec"]);
    assert!(said.contains("nothing has changed") && said.contains("asked: --can-resume"), "{said}");
    fs::remove_file(&program).unwrap();
    assert!(rig.fails(1, &["reexec"]).contains("nothing has changed"));
    // One that is no program at all, and one that hangs no longer than its time, are the same.
    put_program(&program, b"no program");
    rig.fails(1, &["reexec"]);
    let head = visor.wait_node();
    visor.wait_head(head + 3);
    assert_eq!((visor.node(), rig.traces().starts().len(), signals(&rig).len()), (node, 1, 0));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_program_refuses_to_go_on_from_what_it_cannot_read() {
    let rig = Rig::new();
    rig.ok(&["--can-resume", "1", "run"]);
    assert!(rig.fails(5, &["--can-resume", "2", "run"]).contains("journals of version 1, not 2"));
    rig.fails(2, &["--can-resume", "1", "status"]);
    rig.schedule("v2", 1_000);
    rig.ok(&["--can-resume", "1", "run"]);
    let schedule = fs::read(rig.of("state/schedule.json")).unwrap();
    fs::write(rig.of("state/schedule.json"), "{}").unwrap();
    rig.fails(65, &["--can-resume", "1", "run"]);
    fs::write(rig.of("state/schedule.json"), schedule).unwrap();
    fs::write(rig.of("state/head"), "damaged").unwrap();
    rig.fails(79, &["--can-resume", "1", "run"]);
    rig.ok(&["resolve", "head"]);
    fs::write(rig.of("config.yaml"), "daemon_max_restarts: many\n").unwrap();
    rig.fails(78, &["--can-resume", "1", "run"]);
}

#[test]
fn a_supervisor_that_is_detached_leaves_its_node_and_a_stop_finds_it() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    let said = rig.ok(&["detach"]);
    assert!(said.contains(&format!("process {node}")), "{said}");
    assert_eq!(visor.end_beside(), 0);
    let status = rig.output(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(3));
    assert!(text.contains(&format!("running without a supervisor, pid {node}")), "{text}");
    rig.fails(3, &["detach"]);
    let examined = String::from_utf8(rig.output(&["doctor"]).stdout).unwrap();
    assert!(examined.contains("the node runs without a supervisor"), "{examined}");
    assert!(is_alive(node) && signals(&rig).is_empty());
    assert_eq!(rig.ok(&["stop"]), "stopped\n");
    assert!(!is_alive(node));
    assert_eq!(signals(&rig), ["SIGTERM"]);
    assert_eq!(rig.journal()["node"], "stopped-clean");
    rig.fails(3, &["stop"]);
}

#[test]
fn a_process_that_is_not_the_node_of_the_journal_is_left_alone() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    let node = visor.node();
    rig.ok(&["detach"]);
    assert_eq!(visor.end_beside(), 0);
    // The journal was put back to before its launch.
    rig.is_broken_on_purpose();
    let journal = rig.of("state/journal");
    let bytes = fs::read(&journal).unwrap();
    let mut opened = Journal::open(&rig.as_home()).unwrap();
    opened.record.launch += 1;
    opened.journal.write_settled(&opened.record).unwrap();
    drop(opened);
    let said = rig.fails(1, &["stop"]);
    assert!(said.contains(&format!("process {node} was left alone")), "{said}");
    assert!(is_alive(node) && signals(&rig).is_empty());
    fs::write(&journal, bytes).unwrap();
    assert_eq!(rig.ok(&["stop"]), "stopped\n");
}

#[test]
fn a_service_manager_is_told_and_neither_node_nor_hook_gets_its_variables() {
    let rig = Rig::new();
    let socket = rig.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let private = [
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "1000000"),
        ("LISTEN_FDS", "1"),
        ("DAEMON_DOWNLOAD_PROXY", "http://me:secret@127.0.0.1:1"),
    ];
    let rig = private.iter().fold(rig, |rig, (name, value)| rig.set(name, value));
    rig.hook("v2", "pre-upgrade", "env >hook");
    let mut visor = rig.run();
    // Everything up to the first message that begins so.
    let hear = |wanted: &str| {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        let begun = Instant::now();
        while !heard.last().is_some_and(|last: &String| last.starts_with(wanted)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no {wanted}: {heard:?}");
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("no {wanted}: {e}: {heard:?}"));
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        heard
    };
    let until_ready = hear("READY=1");
    assert!(until_ready.iter().any(|message| message.starts_with("STATUS=")), "{until_ready:?}");
    hear("STATUS=running, genesis, head ");
    hear("WATCHDOG=1");
    let of_node = fs::read(format!("/proc/{}/environ", visor.node())).unwrap();
    rig.stage("v2", &[]);
    rig.ok(&["upgrade", "schedule", "v2", "1", "--now"]);
    visor.wait_outcome("v2", "applied");
    let of_hook = fs::read(rig.home().join("hook")).unwrap();
    for environment in [of_node, of_hook] {
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.contains("PATH="), "{environment}");
        for (name, _) in private {
            assert!(!environment.contains(name), "{environment}");
        }
    }
    // The socket holds few messages, and what finds it full is lost.
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 4096]).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    visor.signal(Signal::HUP);
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    visor.signal(Signal::TERM);
    hear("STOPPING=1");
    assert_eq!(visor.end(), 0);
}
