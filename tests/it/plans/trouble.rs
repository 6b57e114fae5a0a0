//! Plans that changed, were tampered with, or disagree with others: none of it touches the node that runs.

use super::{phases, upgrade, wait_applied};
use crate::rig::sim::{head, wait_head};
use crate::rig::visor::Rig;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

/// Lets some blocks pass, in which what must not happen would have happened.
fn let_blocks_pass(rig: &Rig) {
    let now = head(&rig.ipc());
    wait_head(&rig.ipc(), now + 10);
}

#[test]
fn a_plan_and_the_trigger_file_name_the_same_upgrade() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.follow("p", &["v2:30"]);
    rig.trigger(r#"{"name":"v2","height":30,"info":""}"#);
    let mut visor = rig.run();
    wait_applied(&mut visor, "v2");
    let_blocks_pass(&rig);
    assert_eq!(rig.versions(), ["v1", "v2"]);
    assert_eq!(visor.count(&["event=upgrade_known"]), 1);
    assert_eq!(phases(&rig.plan_status("p")), ["applied"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_node_that_stops_by_itself_names_an_upgrade_of_the_plan() {
    let rig = Rig::with(&[("end", "upgrade:v2@10")]).set("DAEMON_HEIGHT_SOURCE", "none");
    rig.stage("v2", &[]);
    rig.follow("p", &["early:5", "v2:10"]);
    let mut visor = rig.run();
    wait_applied(&mut visor, "v2");
    assert_eq!(phases(&rig.plan_status("p")), ["refused", "applied"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_plan_and_the_trigger_file_disagree() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.follow("p", &["v2:30", "v3:5000"]);
    rig.trigger(r#"{"name":"v2","height":35,"info":""}"#);
    let mut visor = rig.run();
    let said = visor.wait(&["event=plans_disagree"]);
    assert!(
        said.contains("v2 at 30 (plan p), v2 at 35 (upgrade-info.json): they disagree on the height"),
        "{said}"
    );
    let node = visor.node();
    wait_head(&rig.ipc(), 45);
    assert_eq!((rig.versions(), visor.node()), (vec!["v1".to_owned()], node));
    let status = rig.plan_status("p");
    assert_eq!(phases(&status), ["refused", "waiting"]);
    assert!(
        upgrade(&status, "v2")["detail"].as_str().unwrap().contains("disagree on the height"),
        "{status}"
    );
    // The plan cannot be executed like that, nor is it told otherwise by waiting.
    let refusal = rig.fails(65, &["plan", "execute", "p"]);
    assert!(refusal.contains("/upgrades/0: v2 at 30 (plan p), v2 at 35"), "{refusal}");
    rig.fails(5, &["plan", "wait", "p", "--timeout", "1ms"]);

    fs::remove_file(rig.data().join("upgrade-info.json")).unwrap();
    wait_applied(&mut visor, "v2");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_plan_that_has_changed_is_not_followed_until_it_is_executed_again() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.follow("p", &["v2:5000"]);
    let mut visor = rig.run();
    let node = visor.node();
    let out = rig.output(&["plan", "add-upgrade", "p", "v3:25"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("wemixvisor plan execute p"), "{said}");
    visor.wait(&["event=plan_unreadable", "has changed since it was activated"]);
    wait_head(&rig.ipc(), 35);
    assert_eq!((rig.versions(), visor.node()), (vec!["v1".to_owned()], node));

    let said = rig.fails(66, &["plan", "status", "p"]);
    assert!(said.contains("plan p has changed since it was executed, and is not followed"), "{said}");
    rig.fails(66, &["plan", "status"]);
    rig.fails(66, &["plan", "wait", "p"]);
    rig.fails(66, &["plan", "resume", "p"]);
    let status = rig.plan_status("p");
    assert_eq!((&status["activation"], phases(&status)), (&"changed".into(), vec!["planned"; 2]));
    let problems = visor.status()["problems"].to_string();
    assert!(problems.contains("has changed since it was activated"), "{problems}");

    rig.ok(&["plan", "execute", "p"]);
    wait_applied(&mut visor, "v3");
    assert_eq!(rig.plan_status("p")["activation"], "active");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_plan_that_others_may_write_or_that_is_gone_stops_no_other() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.follow("open", &["v2:5000"]);
    rig.follow("gone", &["v4:5001"]);
    rig.follow("torn", &["v5:5002"]);
    rig.follow("good", &["v3:30"]);
    let file = |plan: &str| rig.of(&format!("plans/{plan}.json"));
    let mut visor = rig.run();
    let node = visor.node();
    fs::set_permissions(file("open"), Permissions::from_mode(0o664)).unwrap();
    fs::remove_file(file("gone")).unwrap();
    fs::write(file("torn"), "{\"version\": \"1.0\"").unwrap();
    visor.wait(&["event=plan_unreadable", "open.json", "others than its owner may write it (mode 664)"]);
    visor.wait(&["event=plan_unreadable", "there is no plan gone"]);
    visor.wait(&["event=plan_unreadable", "has changed since it was activated", "torn.json"]);
    assert_eq!(visor.node(), node);
    wait_applied(&mut visor, "v3");
    assert_eq!(rig.versions(), ["v1", "v3"]);

    rig.fails(77, &["plan", "status", "open"]);
    rig.fails(77, &["plan", "execute", "open"]);
    rig.fails(77, &["plan", "validate", "open"]);
    rig.fails(4, &["plan", "status", "gone"]);
    rig.fails(65, &["plan", "status", "torn"]);
    // All together: what can be read is shown, and the first problem decides the exit code.
    let out = rig.output(&["plan", "status", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["name"]), (1, &"good".into()));
    assert_eq!(out.status.code(), Some(77));
    let list = rig.ok(&["plan", "list"]);
    assert_eq!(list.matches("unreadable").count(), 3, "{list}");
    for plan in ["open", "gone", "torn"] {
        rig.ok(&["plan", "remove", plan]);
    }
    rig.ok(&["plan", "status"]);
    assert_eq!(visor.stop(), 0);
}
