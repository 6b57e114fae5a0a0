//! Commands for scripts: those that wait, and those that may be repeated.

use crate::rig::visor::Rig;
use serde_json::{Value, json};
use std::fs;

#[test]
fn an_upgrade_is_waited_for_to_its_end() {
    let rig = Rig::new().set("DAEMON_SMOKE_ARGS", "version");
    rig.fails(4, &["upgrade", "wait", "v2"]);
    rig.stage("v2", &[]);
    rig.schedule("v2", 20);
    // Nothing happens without a supervisor.
    rig.fails(69, &["upgrade", "wait", "v2"]);
    rig.stage("v3", &[]);
    rig.hook("v3", "pre-upgrade", "exit 30");
    let mut visor = rig.run();
    assert_eq!(rig.ok(&["upgrade", "wait", "v2", "--timeout", "30s"]), "upgrade v2 is applied\n");
    rig.schedule("v4", 1_000_000);
    let said = rig.fails(5, &["upgrade", "wait", "v4", "--timeout", "30ms"]);
    assert!(said.contains("upgrade v4 has not ended: "), "{said}");
    rig.ok(&["upgrade", "now", "v3"]);
    let said = rig.fails(1, &["upgrade", "wait", "v3"]);
    assert!(said.contains("aborted"), "{said}");
    assert_eq!(visor.stop(), 0);
    // The outcome is known also where no supervisor runs.
    rig.ok(&["upgrade", "wait", "v2"]);
}

#[test]
fn a_node_is_stopped_and_restarted_when_the_gates_let_it_go() {
    let rig = Rig::new().set("DAEMON_VALIDATOR_MODE", "true");
    rig.script(&json!({"freeze": 12}));
    let mut visor = rig.run();
    rig.ok(&["wait-height", "12"]);
    // A head that stands still gets old, and then the calm gate holds.
    let held = |args: &[&str]| {
        let said = rig.fails(5, args);
        assert!(said.contains("should not be stopped now"), "{said}");
    };
    crate::rig::sim::until("an old head", || (!rig.output(&["check"]).status.success()).then_some(()));
    held(&["check", "--wait", "--timeout", "30ms"]);
    held(&["stop", "--when-safe", "--timeout", "30ms"]);
    held(&["restart", "--when-safe", "--timeout", "30ms"]);
    assert_eq!(rig.versions().len(), 1, "it was not stopped");
    rig.script(&json!({}));
    let value: Value = serde_json::from_str(&rig.ok(&["check", "--wait", "--json"])).unwrap();
    assert!(value["head"].as_u64().unwrap() >= 12, "{value}");
    let said = rig.ok(&["restart", "--when-safe", "--wait", "--timeout", "60s"]);
    assert!(said.starts_with("the node is back, pid "), "{said}");
    assert_eq!(rig.versions().len(), 2);
    rig.ok(&["stop", "--when-safe"]);
    assert_eq!(visor.end(), 0);
    rig.fails(3, &["restart", "--wait"]);
    rig.fails(3, &["stop", "--when-safe"]);
}

#[test]
fn a_plan_is_applied_as_often_as_one_likes() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let file = rig.path().join("plan.json");
    let write = |height: u64| {
        let upgrades = json!([{"name": "v2", "height": height}]);
        let plan =
            json!({"version": "1.0", "name": "p", "description": "", "created_at": "", "upgrades": upgrades});
        fs::write(&file, plan.to_string()).unwrap();
    };
    let apply = ["plan", "apply", file.to_str().unwrap()];
    write(1000);
    let said = rig.ok(&apply);
    assert!(said.starts_with("plan p is followed"), "{said}");
    let schedule = || fs::read(rig.of("state/schedule.json")).unwrap();
    let (before, path) = (schedule(), rig.of("plans/p.json"));
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(rig.ok(&apply), "plan p is in force already\n");
    assert_eq!((schedule(), fs::metadata(&path).unwrap().modified().unwrap()), (before, written));
    // A plan without sense changes nothing, and the one before is followed on.
    fs::write(&file, r#"{"version": "1.0", "name": "p", "upgrades": [{"name": "v2", "height": 0}]}"#)
        .unwrap();
    rig.fails(65, &apply);
    let planned = || -> Value { serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap() };
    assert_eq!(planned()["planned"][0]["height"], 1000);
    write(2000);
    rig.ok(&apply);
    assert_eq!(planned()["planned"][0]["height"], 2000);
    rig.ok(&["plan", "pause", "p"]);
    let said = rig.fails(1, &apply);
    assert!(said.contains("plan resume p"), "{said}");
    rig.ok(&["plan", "resume", "p"]);
    // A digit too few is refused, as no person looks.
    let mut visor = rig.run();
    visor.wait_head(3);
    write(3);
    let said = rig.fails(5, &apply);
    assert!(
        said.contains("v2 would begin at once: its height 3 has come") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(planned()["planned"][0]["height"], 2000);
    rig.ok(&["plan", "apply", file.to_str().unwrap(), "--force"]);
    rig.ok(&["upgrade", "wait", "v2"]);
    // It has ended, so it does not begin again.
    assert_eq!(rig.ok(&apply), "plan p is in force already\n");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_staged_binary_can_be_removed_unless_it_may_be_needed() {
    let rig = Rig::new();
    for name in ["v2", "v3", "v4"] {
        rig.stage(name, &[]);
    }
    rig.schedule("v2", 20);
    let unplanned = || -> Value { serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap() };
    assert_eq!(unplanned()["unplanned"], json!(["v3", "v4"]));
    let said = rig.ok(&["upgrade", "list"]);
    assert!(said.lines().last().unwrap().starts_with("staged, not planned: v3"), "{said}");
    let said = rig.fails(1, &["upgrade", "remove", "v2"]);
    assert!(said.contains("is planned"), "{said}");
    rig.ok(&["upgrade", "remove", "v4"]);
    assert!(!rig.of("upgrades/v4").exists());
    rig.fails(4, &["upgrade", "remove", "v4"]);
    let mut visor = rig.run();
    rig.ok(&["upgrade", "wait", "v2"]);
    let said = rig.fails(1, &["upgrade", "remove", "v2"]);
    assert!(said.contains("in use"), "{said}");
    rig.ok(&["upgrade", "now", "v3"]);
    rig.ok(&["upgrade", "wait", "v3"]);
    let said = rig.fails(1, &["upgrade", "remove", "v2"]);
    assert!(said.contains("rollback"), "{said}");
    rig.ok(&["upgrade", "remove", "v2", "--force"]);
    assert_eq!(fs::read_dir(rig.of("upgrades")).unwrap().count(), 1);
    assert_eq!(visor.stop(), 0);
}
