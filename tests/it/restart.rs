//! Nodes that end by themselves.

use super::rig::visor::{Rig, send};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn an_exit_with_code_0_is_a_failure_and_no_hot_loop() {
    let rig = Rig::with(&[("end", "0")]).set("DAEMON_MAX_RESTARTS", "1");
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    let starts = rig.traces().starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    let wait = starts[1]["ms"].as_u64().unwrap() - starts[0]["ms"].as_u64().unwrap();
    assert!(wait >= 800, "the first wait is a second less a fifth, at least: {wait} ms");
    let log = visor.log();
    assert!(log.contains("event=restarting failures=1 in=") && log.contains("last=\"exit code 0\""), "{log}");
    assert!(log.contains("event=halted the node failed 2 times in a row, last: exit code 0"), "{log}");
    assert_eq!(rig.history().len(), 1);
}

#[test]
fn without_restarts_we_end_as_the_node_does() {
    for (how, code) in [("3", 3), ("0", 1), ("SIGSEGV", 139), ("SIGKILL", 137)] {
        let rig = Rig::with(&[("end", how)]);
        let mut visor = rig.run_with(&["--daemon-restart-on-failure=false"], &["--mine"]);
        assert_eq!(visor.end(), code, "{how}");
        assert_eq!(rig.traces().starts().len(), 1);
    }
}

#[test]
fn a_node_that_was_killed_is_started_again_with_the_same_arguments() {
    let rig = Rig::new();
    let mut visor = rig.run_with(&[], &["--mine", "--sim.name", " a  b "]);
    visor.wait_node();
    let node = visor.node();
    send(node, Signal::KILL);
    visor.wait(&["event=unclean_stop", "signal 9"]);
    assert_eq!(
        visor.wait_status("the backoff", |s| (s["state"] == "backing-off").then(|| s["failures"].clone())),
        1
    );
    // The operator need not wait for the end of it.
    assert_eq!(rig.ok(&["restart"]), "restarting the node\n");
    visor.wait_count(2, &["event=rpc_connected"]);
    assert_ne!(visor.node(), node);
    let starts = rig.traces().starts();
    assert_eq!(starts[0]["args"], starts[1]["args"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_stop_ends_a_backoff() {
    let rig = Rig::with(&[("end", "1")]);
    let mut visor = rig.run();
    visor.wait(&["event=restarting"]);
    assert_eq!(visor.stop(), 0);
    assert_eq!(rig.traces().starts().len(), 1);
}

#[test]
fn a_binary_that_has_gone_or_changed_is_not_started_again() {
    let rig = Rig::new().set("DAEMON_MAX_RESTARTS", "1");
    let mut visor = rig.run();
    visor.wait_node();
    let binary = rig.of("genesis/bin/simnode");
    std::fs::rename(rig.binary("evil", &[]), &binary).unwrap();
    send(visor.node(), Signal::KILL);
    visor.wait(&["event=node_not_started", "instead of"]);
    assert_eq!(visor.end(), 79);
    assert_eq!(rig.traces().starts().len(), 1);
    rig.is_broken_on_purpose();
}

#[test]
fn a_flood_of_output_is_not_our_business() {
    let rig = Rig::with(&[("flood", &(8 << 20).to_string())]);
    let mut visor = rig.run();
    visor.wait_node();
    super::rig::sim::until("the flood", || {
        let length = |name| std::fs::metadata(rig.path().join(name)).unwrap().len();
        (length("node.out") >= 8 << 20 && length("visor.log") >= 8 << 20).then_some(())
    });
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_log_that_is_not_read_does_not_hold_us_up() {
    use std::io::Read as _;
    let rig = Rig::with(&[("flood", &(1 << 20).to_string())]);
    rig.stage("v2", &[]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command =
        rig.command(&["run", "--", "--datadir", rig.data().to_str().unwrap(), "--mine", "--verbosity", "1"]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut visor = rig.spawn(command, 0);
    // The pipe is full, and stays so: what has to be done is done all the same.
    visor.wait_head(5);
    for _ in 0..200 {
        visor.signal(Signal::USR2);
        visor.signal(Signal::USR1);
    }
    rig.schedule("v2", 10);
    visor.wait_status("the upgrade", |s| (s["ended"][0]["outcome"] == "applied").then_some(()));
    visor.signal(Signal::TERM);
    let rest = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    assert_eq!(visor.end(), 0);
    drop(visor);
    let log = rest.join().unwrap().unwrap();
    assert!(log.contains("event=ended code=0"), "{}", &log[log.len().saturating_sub(2000)..]);
    assert_eq!(rig.journal()["current"]["target"], json!("upgrades/v2"));
}
