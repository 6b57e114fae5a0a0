//! Whole runs: a node is upgraded at a height, and what must not go wrong does not.

use super::rig::sim::{head, wait_head};
use super::rig::visor::{Rig, is_alive};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_node_is_upgraded_at_its_height() {
    // The head waits there, so that a slow machine is not a late upgrade.
    let rig = Rig::with(&[("freeze", "30")]);
    rig.stage("v2", &[]);
    let mut visor =
        rig.run_with(&[], &["--mine", "--sim.epoch", "7", "--sim.name", "two  words, \"quoted\""]);
    visor.wait(&["event=rpc_connected"]);
    rig.schedule("v2", 30);
    visor.wait_outcome("v2", "applied");

    assert_eq!(rig.current(), "upgrades/v2");
    let starts = rig.traces().starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert_eq!((&starts[0]["version"], &starts[1]["version"]), (&"v1".into(), &"v2".into()));
    assert_eq!(starts[0]["args"], starts[1]["args"], "the node's arguments survive");
    assert_eq!(starts[1]["head"], 30, "{starts:?}");
    assert_eq!(rig.traces().signals().len(), 1, "one SIGTERM");
    wait_head(&rig.ipc(), head(&rig.ipc()) + 3);
    assert_eq!(visor.stop(), 0);

    let history = rig.history();
    let events: Vec<&str> = history.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(events, ["upgrade_due", "backed_up", "switched", "upgrade_ended"], "{history:?}");
    let record = rig.journal();
    assert_eq!(record["current"]["target"], "upgrades/v2");
    assert_eq!((&record["upgrade"], &record["node"]), (&json!(null), &json!("stopped-clean")));
}

#[test]
fn upgrades_follow_upon_each_other_and_current_is_never_missing() {
    let rig = Rig::new();
    for name in ["v2", "v3", "v4"] {
        rig.stage(name, &[]);
    }
    for (name, height) in [("v4", 70), ("v2", 20), ("v3", 21)] {
        rig.schedule(name, height);
    }
    let (link, ended) = (rig.of("current"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let target = fs::read_link(&link).expect("current is there").display().to_string();
                fs::metadata(link.join("bin/simnode")).expect("current has a binary");
                if seen.last() != Some(&target) {
                    seen.push(target);
                }
            }
            seen
        });
        let mut visor = rig.run();
        visor.wait_outcome("v4", "applied");
        let status = visor.status();
        assert_eq!(visor.stop(), 0);
        ended.store(true, Ordering::Relaxed);
        assert_eq!(watch.join().unwrap(), ["genesis", "upgrades/v2", "upgrades/v3", "upgrades/v4"]);
        let ended: Vec<_> = status["ended"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
        assert_eq!(ended, ["v2", "v3", "v4"]);
        assert_eq!(status["planned"], json!([]));
    });
    assert_eq!(rig.versions(), ["v1", "v2", "v3", "v4"]);
}

#[test]
fn a_missing_binary_leaves_the_old_one_running_until_it_is_there() {
    let rig = Rig::new();
    let said = rig.schedule("v2", 10);
    assert!(said.contains("wemixvisor upgrade add v2"), "{said}");
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2", "no binary is staged"]);
    visor.wait(&["ERROR", "event=upgrade_overdue", "name=v2 height=10", "wemixvisor upgrade add v2"]);
    visor.wait_head(20);
    let status = visor.status();
    let plan = &status["planned"][0];
    assert_eq!(
        (&plan["name"], &plan["binary"], &plan["blocks_left"]),
        (&json!("v2"), &json!("failed"), &json!(0))
    );
    assert!(plan["hold"].as_str().unwrap().contains("no binary is staged"), "{plan}");
    assert!(rig.ok(&["status"]).contains("no binary is staged"), "{}", rig.ok(&["status"]));
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (1, 0));

    rig.stage("v2", &[]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_binary_that_fails_its_smoke_test_never_stops_the_old_one() {
    let rig = Rig::new();
    rig.stage("v2", &[("smoke", "3")]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2", "smoke test", "exit code 3"]);
    visor.wait_head(15);
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (1, 0));
    // Another one in its place, with force.
    let good = rig.binary("v2", &[]);
    let refused = rig.fails(1, &["upgrade", "add", "v2", good.to_str().unwrap()]);
    assert!(refused.contains("--force"), "{refused}");
    rig.ok(&["upgrade", "add", "v2", good.to_str().unwrap(), "--force"]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_binary_that_was_changed_after_it_was_verified_is_not_executed() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.script(&json!({"freeze": 10}));
    rig.schedule("v2", 11);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_ready", "name=v2"]);
    let evil = rig.binary("evil", &[]);
    fs::rename(&evil, rig.of("upgrades/v2/bin/simnode")).unwrap();
    rig.script(&json!({}));
    visor.wait(&["event=upgrade_changed_on_disk", "name=v2"]);
    visor.wait_status("the reason", |status| {
        let plan = &status["planned"][0];
        let because = plan["hold"].as_str()?.contains("instead of");
        (plan["binary"] == "failed" && because).then_some(())
    });
    visor.wait_head(20);
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (1, 0));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn an_upgrade_can_be_had_at_once() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.fails(3, &["upgrade", "now", "v2"]);
    let mut visor = rig.run();
    visor.wait_node();
    rig.fails(4, &["upgrade", "now", "v9"]);
    assert!(rig.ok(&["upgrade", "now", "v2"]).contains("v2"));
    visor.wait_outcome("v2", "applied");
    let again = rig.fails(1, &["upgrade", "now", "v2"]);
    assert!(again.contains("v2 is what runs"), "{again}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_switch_can_be_all_that_is_wanted() {
    let rig = Rig::with(&[("freeze", "4")]).set("DAEMON_RESTART_AFTER_UPGRADE", "false");
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    let node = visor.node();
    rig.script(&json!({"freeze": "never"}));
    assert_eq!(visor.end(), 0);
    assert_eq!((rig.current().as_str(), rig.traces().starts().len()), ("upgrades/v2", 1));
    assert!(!is_alive(node));
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_new_binary_waits_for_the_restart_delay() {
    let rig = Rig::new().set("DAEMON_RESTART_DELAY", "400ms");
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    let (stop, start) = (&rig.traces().signals()[0]["ms"], &rig.traces().starts()[1]["ms"]);
    assert!(start.as_u64().unwrap() >= stop.as_u64().unwrap() + 400, "{stop} {start}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_port_that_another_process_has_is_not_the_fault_of_the_new_binary() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "until [ -e go ]; do sleep 0.01; done");
    // An address that no other test uses, so that its port is free for this one.
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = format!("127.77.{high}.{low}");
    let port = TcpListener::bind((ip.as_str(), 0)).unwrap().local_addr().unwrap().port();
    let mut visor =
        rig.run_with(&[], &["--mine", "--http", "--http.addr", &ip, "--http.port", &port.to_string()]);
    // Where a node listens is known when its chain goes on.
    let told = visor.wait_node();
    visor.wait_head(told + 1);
    rig.schedule("v2", 1);
    visor.wait(&["event=job_begun", "job=hook"]);
    let other = TcpListener::bind((ip.as_str(), port)).unwrap();
    fs::write(rig.home().join("go"), "").unwrap();
    visor.wait(&["event=environment_fault", &format!("another process listens at {ip}:{port}")]);
    drop(other);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.count(&["event=attempt_failed"]), 0);
    assert_eq!(visor.stop(), 0);
}
