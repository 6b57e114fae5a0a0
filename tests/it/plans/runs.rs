//! Whole runs that go well: one upgrade upon the other, held back and let go, over every interruption.

use super::{number_in, phases, upgrade, wait_applied};
use crate::rig::sim::{head, until, wait_head};
use crate::rig::visor::{Rig, Visor, send};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Has the chain stand still at a height, from the start on.
fn frozen_at(rig: &Rig, height: u64) {
    std::fs::create_dir_all(rig.data()).unwrap();
    rig.traces().script(&json!({"freeze": height}));
}

fn thaw(rig: &Rig) {
    rig.traces().script(&json!({}));
}

#[test]
fn the_second_is_due_while_the_first_is_in_probation() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.follow("p", &["v2:30", "v3:32"]);
    let mut visor = rig.run();
    let first = wait_applied(&mut visor, "v2");
    assert!(number_in(&first, "head") >= 32, "the second was due already: {first}");
    wait_applied(&mut visor, "v3");
    let log = visor.log();
    let order = ["event=upgrade_due name=v2", "event=upgrade_ended name=v2", "event=upgrade_due name=v3"];
    let places: Vec<usize> = order.iter().map(|event| log.find(event).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(rig.versions(), ["v1", "v2", "v3"]);
    assert_eq!((rig.traces().signals().len(), rig.traces().overlaps().len()), (2, 0));

    let status = rig.plan_status("p");
    assert_eq!(phases(&status), ["applied", "applied"]);
    let facts = ["completed", "pending", "active", "progress"].map(|key| status[key].clone());
    assert_eq!(facts, [json!(2), json!(0), Value::Null, json!(100.0)]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_plan_is_paused_in_every_phase_before_the_stop() {
    let rig = Rig::new();
    frozen_at(&rig, 20);
    let mut visor = rig.run();
    let pause = || assert_eq!(rig.ok(&["plan", "pause", "p"]), "plan p is paused\n");
    let resume = || assert_eq!(rig.ok(&["plan", "resume", "p"]), "plan p goes on\n");
    let binary = |name: &str| upgrade(&rig.plan_status("p"), name)["binary"]["state"].clone();
    visor.wait(&["event=rpc_connected"]);

    // While its binary is missing. What is paused can be cancelled before it goes on.
    let said = rig.follow("p", &["v2:30", "v3:60", "v4:61"]);
    assert!(
        said.contains("v2: the binary is missing; stage it with `wemixvisor upgrade add v2 BINARY`"),
        "{said}"
    );
    assert_eq!(binary("v2"), "missing");
    pause();
    rig.ok(&["upgrade", "cancel", "v4"]);
    assert_eq!(phases(&rig.plan_status("p")), ["paused", "paused", "cancelled"]);

    // While it is being prepared.
    let hangs = rig.binary("hangs", &[("smoke", "hang")]);
    rig.ok(&["upgrade", "add", "v2", hangs.to_str().unwrap()]);
    resume();
    visor.wait_status("the smoke test", |s| (s["planned"][0]["binary"] == "preparing").then_some(()));
    pause();

    // While it is ready.
    let good = rig.binary("v2", &[]);
    rig.ok(&["upgrade", "add", "v2", good.to_str().unwrap(), "--force"]);
    resume();
    visor.wait(&["event=upgrade_ready", "name=v2"]);
    assert_eq!(binary("v2"), "verified");
    pause();
    assert_eq!(binary("v2"), "staged");
    thaw(&rig);
    wait_head(&rig.ipc(), 40);
    assert_eq!(rig.versions(), ["v1"]);
    // And let go when its height has passed.
    resume();
    wait_applied(&mut visor, "v2");

    // While it is due and its binary is missing.
    wait_head(&rig.ipc(), 62);
    until("v3 to be due", || {
        (phases(&rig.plan_status("p")) == ["applied", "due", "cancelled"]).then_some(())
    });
    pause();
    rig.stage("v3", &[]);
    rig.stage("v4", &[]);
    let now = head(&rig.ipc());
    wait_head(&rig.ipc(), now + 10);
    assert_eq!(rig.versions(), ["v1", "v2"]);
    resume();
    wait_applied(&mut visor, "v3");
    assert_eq!(rig.versions(), ["v1", "v2", "v3"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn an_upgrade_is_cancelled_in_every_phase_before_the_stop() {
    let rig = Rig::new();
    frozen_at(&rig, 20);
    let mut visor = rig.run();
    visor.wait(&["event=rpc_connected"]);
    rig.stage("ready", &[]);
    let hangs = rig.binary("hangs", &[("smoke", "hang")]);
    rig.ok(&["plan", "create", "p", "missing:25", "ready:30", "late:35", "hangs:60", "v2:70"]);
    let cancel = |name: &str| rig.ok(&["upgrade", "cancel", name]);
    // The test does not wait for the binary that hangs.
    rig.ok(&["plan", "execute", "p"]);
    visor.wait(&["event=upgrade_ready", "name=ready"]);
    rig.ok(&["upgrade", "add", "hangs", hangs.to_str().unwrap()]);
    let binary_of = |status: &Value, name: &str| {
        let planned = status["planned"].as_array().unwrap();
        planned.iter().find(|p| p["name"] == name).map(|p| p["binary"].clone())
    };
    visor.wait_status("the smoke test", |s| (binary_of(s, "hangs")? == "preparing").then_some(()));
    cancel("missing");
    cancel("hangs");
    cancel("ready");
    frozen_at(&rig, 40);
    wait_head(&rig.ipc(), 40);
    until("a supervisor that knows it", || (visor.status()["head"]["height"] == 40).then_some(()));
    let status = rig.plan_status("p");
    assert_eq!(phases(&status), ["cancelled", "cancelled", "due", "cancelled", "waiting"]);
    cancel("late");
    rig.stage("late", &[]);
    rig.stage("v2", &[]);
    thaw(&rig);
    wait_applied(&mut visor, "v2");
    assert_eq!(rig.versions(), ["v1", "v2"]);
    let status = rig.plan_status("p");
    assert_eq!(
        (&status["cancelled"], &status["completed"], &status["progress"]),
        (&json!(4), &json!(1), &json!(100.0))
    );
    assert_eq!(visor.stop(), 0);
}

#[test]
fn what_a_gate_holds_back_is_paused_and_cancelled() {
    let rig = Rig::new().set("DAEMON_VALIDATOR_MODE", "true");
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    frozen_at(&rig, 30);
    let mut visor = rig.run();
    // A chain that stands still is not calm.
    visor.wait_head(30);
    visor.wait(&["event=chain_stands_still"]);
    until("no calm", || {
        let out = rig.output(&["check"]);
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code() == Some(5) && why.contains("calm")).then_some(())
    });
    let wait_held = |name: &str| {
        until(&format!("{name} to be held"), || {
            let status = rig.plan_status("p");
            let upgrade = upgrade(&status, name);
            let held = upgrade["phase"] == "due" && upgrade["detail"].as_str()?.contains("calm");
            held.then_some(())
        });
    };
    rig.follow("p", &["v2:20", "v3:25"]);
    wait_held("v2");
    rig.ok(&["upgrade", "cancel", "v2"]);
    wait_held("v3");
    rig.ok(&["plan", "pause", "p"]);
    thaw(&rig);
    visor.wait_head(60);
    assert_eq!(rig.versions(), ["v1"]);
    rig.ok(&["plan", "resume", "p"]);
    wait_applied(&mut visor, "v3");
    assert_eq!(rig.versions(), ["v1", "v3", "v3"], "the new one is tried without peers first");
    assert_eq!(phases(&rig.plan_status("p")), ["cancelled", "applied"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn what_has_begun_is_neither_paused_nor_cancelled() {
    // Long enough for two commands on a loaded machine.
    let rig = Rig::with(&[("stop", "2000")]);
    rig.stage("v2", &[]);
    rig.follow("p", &["v2:20", "v3:1000"]);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_due", "name=v2"]);
    assert_eq!(rig.ok(&["plan", "pause", "p"]), "plan p is paused; v2 had begun already, and goes on\n");
    let refusal = rig.fails(1, &["upgrade", "cancel", "v2"]);
    assert!(refusal.contains("v2 has begun and cannot be cancelled"), "{refusal}");
    wait_applied(&mut visor, "v2");
    assert_eq!(phases(&rig.plan_status("p")), ["applied", "paused"]);
    assert_eq!(visor.stop(), 0);
}

/// Waits until the first head of the new binary was heard, from which its blocks are counted.
fn proves_itself(visor: &Visor<'_>) {
    until("the new binary to answer", || (visor.count(&["event=rpc_connected"]) == 2).then_some(()));
}

#[test]
fn we_and_the_machine_may_end_between_any_two() {
    let rig = Rig::new();
    for name in ["v2", "v3", "v4"] {
        rig.stage(name, &[]);
    }
    let applied = |name: &'static str| ["event=upgrade_ended", name, "outcome=applied"];
    // The chain stands still when an upgrade is due, when it proves itself, and before the next: so no state is missed
    // because a process was slow. While data are copied the script stays as it is.
    frozen_at(&rig, 21);
    rig.follow("p", &["v2:20", "v3:60", "v4:100"]);
    let mut visor = rig.run();
    proves_itself(&visor);
    frozen_at(&rig, 50);
    visor.wait(&applied("name=v2 "));
    assert_eq!(visor.stop(), 0);

    let mut visor = rig.run();
    visor.wait(&["event=rpc_connected"]);
    assert_eq!(phases(&rig.plan_status("p")), ["applied", "waiting", "waiting"]);
    let node = visor.node();
    visor.kill();
    // As when the whole machine loses its power.
    send(node, Signal::KILL);

    frozen_at(&rig, 61);
    let mut visor = rig.run();
    visor.wait(&["event=switched", "current=upgrades/v3"]);
    visor.kill();
    let mut visor = rig.run();
    visor.wait(&["event=rpc_connected"]);
    frozen_at(&rig, 90);
    visor.wait(&applied("name=v3 "));
    assert_eq!(visor.stop(), 0);
    frozen_at(&rig, 101);
    let mut visor = rig.run();
    proves_itself(&visor);
    thaw(&rig);
    visor.wait(&applied("name=v4 "));

    let mut versions = rig.versions();
    assert!(versions.is_sorted(), "none goes back: {versions:?}");
    versions.dedup();
    assert_eq!(versions, ["v1", "v2", "v3", "v4"]);
    assert_eq!(rig.traces().overlaps().len(), 0);
    let log = std::fs::read_to_string(rig.path().join("visor.log")).unwrap();
    for name in ["v2", "v3", "v4"] {
        let ended = log.matches(&format!("event=upgrade_ended name={name} outcome=applied")).count();
        assert_eq!(ended, 1, "{name} is applied once");
    }
    assert_eq!(rig.plan_status("p")["progress"], 100.0);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn ten_thousand_upgrades() {
    let rig = Rig::new();
    rig.stage("w0", &[]);
    rig.stage("w9999", &[]);
    let many: Vec<Value> =
        (0..10_000).map(|n| json!({"name": format!("w{n}"), "height": 50 + 1000 * n})).collect();
    let file = rig.path().join("many.json");
    std::fs::write(&file, json!({"version": "1.0", "name": "many", "upgrades": many}).to_string()).unwrap();
    rig.ok(&["plan", "create", "long", "--from", file.to_str().unwrap()]);
    assert_eq!(rig.ok(&["plan", "validate", "long"]), "plan long is valid: 10000 upgrades\n");
    let said = rig.ok(&["plan", "execute", "long"]);
    assert!(said.contains("and 9978 more that are not ready\n  2 ready"), "{said}");
    let mut visor = rig.run();
    wait_applied(&mut visor, "w0");
    let status = rig.plan_status("long");
    assert_eq!((&status["total_upgrades"], &status["completed"]), (&json!(10_000), &json!(1)));
    assert_eq!((&status["active"], &status["progress"]), (&json!("w1"), &json!(0.01)));
    assert_ne!(upgrade(&status, "w9999")["binary"]["state"], "missing");
    assert_eq!(rig.ok(&["plan", "show", "long"]).lines().count(), 10_005);
    assert_eq!(visor.status()["planned"].as_array().unwrap().len(), 9999);
    rig.ok(&["plan", "pause", "long"]);
    assert_eq!(visor.status()["planned"].as_array().unwrap().len(), 0);
    assert_eq!(visor.stop(), 0);
}
