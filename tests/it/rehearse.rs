//! Rehearsals: the staged binary on a clone of the data, beside the node that goes on.

use super::rig::sim::{PATIENCE, until};
use super::rig::visor::{Rig, is_alive, send, working_on};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use wemixvisor::inside::Report;

fn shadow_dir(rig: &Rig) -> PathBuf {
    rig.home().join("backups/.wemixvisor-rehearsal")
}

fn report(rig: &Rig) -> Report {
    Report::load(&rig.as_home(), &"v2".parse().unwrap()).unwrap().unwrap()
}

/// The processes that work on the clone.
fn shadows(rig: &Rig) -> Vec<u32> {
    working_on(&shadow_dir(rig)).into_iter().filter(|pid| is_alive(*pid)).collect()
}

fn begin(rig: &Rig, args: &[&str]) -> Child {
    let mut command = rig.command(&[&["rehearse", "v2"], args].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_binary_that_does_well_is_reported_with_its_times_and_leaves_nothing_behind() {
    let rig = Rig::with(&[("period", "150"), ("rewind", "20")]);
    rig.stage("v2", &[("db", "9"), ("migrate", "300"), ("stop", "150"), ("fork", "100000")]);
    rig.ok(&["upgrade", "schedule", "v2", "99999", "--fork-height", "100000"]);
    let mut visor = rig.run_with(&[], &["--mine", "--http", "--http.port", "0"]);
    visor.wait_head(30);
    // A table of Pebble is shared with the clone, and survives it.
    let tables = rig.data().join("simnode/tables");
    fs::create_dir(&tables).unwrap();
    fs::write(tables.join("OPTIONS-000001"), "pebble_version=0.1").unwrap();
    fs::write(tables.join("000002.sst"), "table").unwrap();
    let before = rig.traces().starts().len();

    let shown: Value =
        serde_json::from_str(&rig.ok(&["rehearse", "v2", "--blocks", "25", "--json"])).unwrap();
    let report = report(&rig);
    assert_eq!(serde_json::to_value(&report).unwrap(), shown);
    assert!(report.passed && report.fed, "{report:?}");
    assert!(report.reasons.is_empty() && report.notes.is_empty(), "{report:?}");
    assert!(
        report.blocks >= 25 && report.ended_at.unwrap() == report.began_at.unwrap() + report.blocks,
        "{report:?}"
    );
    assert!(report.times.start_ms.unwrap() >= 300 && report.times.stop_ms.unwrap() >= 150, "{report:?}");
    assert!(report.times.catch_up_ms.is_some() && report.growth > 0, "{report:?}");
    assert!(report.from == "live" && report.forks.unwrap().contains(&100_000));
    assert!(report.client_version.unwrap().contains("v2"));

    assert!(!shadow_dir(&rig).exists());
    assert_eq!(fs::metadata(tables.join("000002.sst")).unwrap().nlink(), 1);
    // The node has noticed nothing: one start, no signal, the old format.
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (before, 0));
    assert_eq!(fs::read_to_string(rig.data().join("simnode/chaindata/VERSION")).unwrap().trim(), "8");
    assert_eq!(visor.status()["state"], "running");
    assert!(rig.ok(&["rehearse", "v2", "--blocks", "1"]).starts_with("v2 has passed: "));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_shadow_is_isolated_and_kept_when_the_operator_wants_it() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let http = ["--mine", "--http", "--http.port", "0", "--maxpeers", "7"];
    let mut visor = rig.run_with(&[], &http);
    visor.wait_head(5);
    rig.ok(&["rehearse", "v2", "--blocks", "1", "--keep"]);
    let kept = rig.home().join("backups/rehearsal-v2");
    let starts = fs::read_to_string(kept.join("data/sim.starts")).unwrap();
    let start: Value = serde_json::from_str(starts.lines().last().unwrap()).unwrap();
    let args: Vec<&str> = start["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!((start["version"].as_str(), &start["mine"]), (Some("v2"), &json!(false)));
    let value = |flag: &str| args.iter().position(|arg| *arg == flag).map(|at| args[at + 1]);
    assert_eq!(
        (value("--maxpeers"), value("--port"), value("--authrpc.port")),
        (Some("0"), Some("0"), Some("0"))
    );
    assert!(
        args.contains(&"--nodiscover") && !args.contains(&"--mine") && !args.contains(&"--http"),
        "{args:?}"
    );
    assert!(args.iter().all(|arg| !arg.contains(rig.data().to_str().unwrap())), "{args:?}");
    let key = fs::read_to_string(kept.join("nodekey")).unwrap();
    assert_ne!(key, fs::read_to_string(rig.data().join("simnode/nodekey")).unwrap());
    assert!(report(&rig).notes.iter().any(|note| note.contains("the clone is kept in")));
    // Another one would overwrite it.
    assert!(rig.fails(1, &["rehearse", "v2", "--keep"]).contains("remove it first"));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_binary_that_does_badly_is_reported_with_the_reason() {
    let rig = Rig::with(&[("fork", "8")]);
    let mut visor = rig.run();
    visor.wait_head(12);
    for (options, reason) in [
        (vec![("end", "3")], "it ended with exit code 3"),
        (vec![("fork", "9")], "one is refused: batch 0: failed to insert"),
        (vec![("fork", "8"), ("stop", "never")], "it did not stop within 1 s"),
        (vec![("fork", "8"), ("stop-code", "4")], "it stopped with exit code 4"),
        (vec![("fork", "8"), ("chain-id", "7")], "block 0 is "),
        (vec![("fork", "8"), ("end", "SIGSEGV@14")], "it ended with signal 11"),
    ] {
        let binary = rig.binary("v2", &options);
        rig.ok(&["upgrade", "add", "v2", binary.to_str().unwrap(), "--force"]);
        let out = rig.output(&["rehearse", "v2", "--blocks", "20", "--daemon-shutdown-grace", "1s"]);
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!((out.status.code(), text.contains(reason)), (Some(5), true), "{reason}: {text}");
        assert!(!report(&rig).passed && !shadow_dir(&rig).exists(), "{reason}");
    }
    // A fork that is planned and that it does not know.
    rig.ok(&["upgrade", "schedule", "v2", "99999", "--fork-height", "100000"]);
    let binary = rig.binary("v2", &[("fork", "8")]);
    rig.ok(&["upgrade", "add", "v2", binary.to_str().unwrap(), "--force"]);
    let out = rig.output(&["rehearse", "v2", "--blocks", "1"]);
    assert_eq!(out.status.code(), Some(5));
    assert!(String::from_utf8(out.stdout).unwrap().contains("it does not know the fork at 100000"));
    assert_eq!(rig.traces().signals().len(), 0);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_node_that_gives_no_blocks_is_rehearsed_as_far_as_that_goes() {
    let rig = Rig::with(&[("lacks", "debug")]);
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_head(5);
    let said = rig.ok(&["rehearse", "v2"]);
    assert!(
        said.contains("it could not be fed: the running node does not serve debug_getRawBlock over ipc"),
        "{said}"
    );
    let first = report(&rig);
    assert!(first.passed && !first.fed && first.began_at == first.ended_at, "{first:?}");
    assert_eq!(visor.stop(), 0);

    let rig = Rig::new();
    rig.stage("v2", &[("lacks", "admin")]);
    let mut visor = rig.run();
    visor.wait_head(5);
    let said = rig.ok(&["rehearse", "v2"]);
    assert!(
        said.contains("it could not be fed: the new binary does not serve admin_importChain over ipc"),
        "{said}"
    );
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_rehearsal_that_cannot_be_held_leaves_no_report() {
    let rig = Rig::new();
    assert!(rig.fails(4, &["rehearse", "v2"]).contains("v2"));
    rig.stage("v2", &[]);
    assert!(rig.fails(5, &["rehearse", "v2"]).contains("no node runs here"));
    let mut visor = rig.run();
    visor.wait_head(5);
    std::os::unix::fs::symlink("/etc", rig.data().join("elsewhere")).unwrap();
    assert!(rig.fails(5, &["rehearse", "v2"]).contains("leads out of it"));
    fs::remove_file(rig.data().join("elsewhere")).unwrap();
    assert_eq!(Report::load(&rig.as_home(), &"v2".parse().unwrap()).unwrap(), None);
    assert!(!shadow_dir(&rig).exists());
    assert_eq!(visor.stop(), 0);
}

#[test]
fn there_is_one_rehearsal_at_a_time_and_a_killed_one_is_swept() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_head(5);
    let mut first = begin(&rig, &["--blocks", "1000000"]);
    let shadow = until("the shadow", || shadows(&rig).first().copied());
    until("its answers", || shadow_dir(&rig).join("blocks.rlp").exists().then_some(()));
    assert!(rig.fails(75, &["rehearse", "v2"]).contains("another rehearsal of this home is going on"));
    first.kill().unwrap();
    first.wait().unwrap();
    // It dies with whoever has started it, and a supervisor sweeps what is left.
    until("the end of the shadow", || (!is_alive(shadow)).then_some(()));
    assert!(shadow_dir(&rig).exists());
    assert_eq!(visor.stop(), 0);
    let mut visor = rig.run();
    visor.wait(&["event=rehearsal_swept"]);
    assert!(!shadow_dir(&rig).exists());
    visor.wait(&["event=rpc_connected"]);
    rig.ok(&["rehearse", "v2", "--blocks", "2"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_rehearsal_ends_at_once_when_it_is_interrupted() {
    let rig = Rig::new();
    rig.stage("v2", &[("stop", "never")]);
    let mut visor = rig.run();
    visor.wait_head(5);
    let mut child = begin(&rig, &["--blocks", "1000000"]);
    let shadow = until("the shadow", || shadows(&rig).first().copied());
    until("its answers", || shadow_dir(&rig).join("blocks.rlp").exists().then_some(()));
    let begun = std::time::Instant::now();
    send(child.id(), Signal::TERM);
    assert_eq!(until("its end", || child.try_wait().unwrap()).code(), Some(5));
    assert!(begun.elapsed() < PATIENCE / 3 && !is_alive(shadow) && !shadow_dir(&rig).exists());
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_recent_backup_is_what_is_cloned() {
    let rig = Rig::with(&[("freeze", "10")]);
    // Its failure brings the old binary back, so that its backup is of data that no other version has changed.
    rig.stage("v1b", &[("end", "7")]);
    rig.schedule("v1b", 10);
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_outcome("v1b", "rolled-back");
    visor.wait_count(2, &["event=node_started", "version=genesis"]);
    rig.script(&json!({"freeze": "never"}));
    visor.wait_head(15);
    rig.ok(&["rehearse", "v2", "--blocks", "2"]);
    assert_eq!(report(&rig).from, rig.backups()[0]);
    assert!(report(&rig).began_at.unwrap() <= 10);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_supervisor_rehearses_by_itself_and_a_binary_that_has_passed_is_switched_to() {
    let rig = Rig::new().set("DAEMON_REHEARSE", "before-upgrade");
    rig.stage("v2", &[]);
    rig.schedule("v2", 100_000);
    let mut visor = rig.run();
    visor.wait(&["event=rehearsal_passed", "name=v2"]);
    let passed = |status: &Value| (status["planned"][0]["rehearsal"] == "passed").then_some(());
    visor.wait_status("the verdict", passed);
    assert!(rig.ok(&["upgrade", "list"]).contains("ready 2-stable, rehearsed"));
    assert!(report(&rig).blocks >= 100);
    // The next supervisor knows it from the report.
    assert_eq!(visor.stop(), 0);
    let mut visor = rig.run();
    visor.wait_status("the verdict", passed);
    assert_eq!(visor.count(&["job=rehearse"]), 0);
    rig.ok(&["upgrade", "now", "v2"]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_failed_rehearsal_holds_the_upgrade_until_the_operator_lets_it_happen() {
    let rig = Rig::new().set("DAEMON_REHEARSE", "before-upgrade");
    assert!(rig.fails(4, &["rehearse", "v2", "--force"]).contains("v2"));
    rig.stage("v2", &[("stop-code", "4")]);
    assert!(rig.fails(4, &["rehearse", "v2", "--force"]).contains("was not rehearsed"));
    rig.schedule("v2", 100_000);
    let mut visor = rig.run();
    visor.wait(&["event=rehearsal_failed", "name=v2", "exit code 4"]);
    rig.ok(&["upgrade", "cancel", "v2"]);
    let head = visor.wait_head(1);
    rig.schedule("v2", head + 20);
    visor.wait(&["event=upgrade_overdue", "its rehearsal has failed: it stopped with exit code 4"]);
    visor.wait_head(head + 40);
    assert!(rig.ok(&["upgrade", "list"]).contains("ready 2-stable, rehearsal failed"));
    assert_eq!((rig.current().as_str(), rig.traces().signals().len()), ("genesis", 0));
    assert!(rig.ok(&["rehearse", "v2", "--force"]).contains("may happen although its rehearsal has failed"));
    visor.wait_outcome("v2", "applied");
    visor.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_rehearsal() {
    let rig = Rig::new().set("DAEMON_REHEARSE", "before-upgrade");
    rig.stage("v2", &[("rpc", "off"), ("stop", "never")]);
    rig.schedule("v2", 100_000);
    let mut visor = rig.run();
    let shadow = until("the shadow", || shadows(&rig).first().copied());
    assert_eq!(visor.stop(), 0);
    until("the end of the shadow", || (!is_alive(shadow)).then_some(()));
    assert_eq!(rig.backups().len(), 0);
    // The clone goes with the rehearsal, or with the next start.
    let mut visor = rig.run();
    visor.wait_node();
    assert!(Report::load(&rig.as_home(), &"v2".parse().unwrap()).unwrap().is_none());
    assert_eq!(visor.stop(), 0);
}
