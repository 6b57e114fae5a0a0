//! The other things that a supervisor does, killed as it does them: the way back from an upgrade, the change of
//! supervisors over a living node, the stop of a node that has none, and rehearsals.

use super::flows::{Flow, Run, Scene, kill};
use crate::rig::visor::{Rig, is_alive, working_on};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;

/// Supervisors of each flow that `cargo test` kills.
const REDUCED: usize = 2;

#[test]
fn a_killed_supervisor_goes_back_from_a_bad_binary_all_the_same() {
    kill(
        &Flow {
            name: "rollback",
            scene: || {
                let rig = Rig::with(&[("freeze", "10")]);
                rig.stage("v2", &[("end", "7")]);
                rig.schedule("v2", 10);
                Scene::new(rig)
            },
            words: None,
            drive: goes_back,
            is_done: is_back,
            check: has_gone_back,
            node_stays: false,
            nested: false,
        },
        REDUCED,
    );
}

#[test]
fn a_killed_supervisor_puts_the_data_back_all_the_same() {
    kill(
        &Flow {
            name: "restore",
            scene: || {
                let rig = Rig::with(&[("freeze", "10")]);
                rig.stage("v2", &[("db", "9"), ("end", "1")]);
                rig.trigger("{\"name\":\"v2\",\"height\":10,\"data_compat\":false}");
                Scene::new(rig)
            },
            words: None,
            drive: goes_back,
            is_done: is_back,
            check: |rig, what| {
                has_gone_back(rig, what);
                let version = fs::read_to_string(rig.data().join("simnode/chaindata/VERSION")).unwrap();
                assert_eq!(version.trim(), "8", "{what}");
            },
            node_stays: false,
            nested: false,
        },
        REDUCED,
    );
}

#[test]
fn a_killed_supervisor_goes_back_by_order_all_the_same() {
    kill(&Flow { name: "ordered", check: has_obeyed, ..ORDERED }, REDUCED);
}

#[test]
fn a_killed_supervisor_puts_the_data_back_by_order_all_the_same() {
    kill(&Flow { name: "ordered-restore", drive: |run| order(run, &["--restore"]), ..ORDERED }, REDUCED);
}

/// The operator goes back from an upgrade that was applied.
const ORDERED: Flow = Flow {
    name: "",
    scene: || {
        let rig = Rig::with(&[("freeze", "10")]);
        rig.stage("v2", &[]);
        rig.schedule("v2", 10);
        let mut visor = rig.run();
        visor.wait_outcome("v2", "applied");
        assert_eq!(visor.stop(), 0);
        drop(visor);
        Scene::later(rig)
    },
    words: None,
    drive: |run| order(run, &[]),
    is_done: |status| status["back"].is_null() && status["upgrade"].is_null(),
    check: has_obeyed,
    node_stays: false,
    nested: false,
};

fn order(run: &Run<'_>, options: &[&str]) {
    if run.has_logged(&[&["event=rpc_connected"]]) {
        run.traced.arm();
        run.scene.rig.output(&[&["rollback", "--yes"], options].concat());
        run.has_logged(&[&["outcome=rolled-back"]]);
        run.end_by("stop");
    }
}

/// An order is carried out once it is on record; before that it may be lost, and then nothing has changed.
fn has_obeyed(rig: &Rig, what: &str) {
    let listed: Value = serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap();
    let outcome = listed["ended"][0]["outcome"].as_str().map(ToOwned::to_owned);
    let log = rig.history().join("\n");
    let expected = match rig.current().as_str() {
        "genesis" => "rolled-back",
        _ if log.contains("going_back") => "it was on record",
        _ => "applied",
    };
    assert_eq!(outcome.as_deref(), Some(expected), "{what}: {listed}");
    assert_eq!((&listed["planned"], &listed["under_way"]), (&json!([]), &json!(null)), "{what}: {listed}");
}

fn goes_back(run: &Run<'_>) {
    run.has_upgraded();
    run.end_by("stop");
}

fn is_back(status: &Value) -> bool {
    status["ended"][0]["outcome"] == "rolled-back"
}

fn has_gone_back(rig: &Rig, what: &str) {
    assert_eq!((rig.current().as_str(), rig.backups().len()), ("genesis", 1), "{what}");
    let listed: Value = serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap();
    assert_eq!((&listed["planned"], &listed["under_way"]), (&json!([]), &json!(null)), "{what}: {listed}");
    assert_eq!(listed["ended"].as_array().map(Vec::len), Some(1), "{what}: {listed}");
}

#[test]
fn a_supervisor_that_is_killed_as_it_adopts_a_node_leaves_it_as_it_is() {
    kill(
        &Flow {
            name: "adoption",
            scene: alone,
            words: None,
            drive: |run| {
                run.has_logged(&[&["event=adopted"], &["event=rpc_connected"]]);
                run.end_by("detach");
            },
            ..CHANGE
        },
        REDUCED,
    );
}

#[test]
fn a_supervisor_that_is_killed_as_it_executes_another_program_leaves_its_node_as_it_is() {
    kill(
        &Flow {
            name: "reexec",
            drive: |run| {
                if run.is_at_rest() {
                    run.traced.arm();
                    run.traced.signal(Signal::USR2);
                    run.has_logged(&[&["event=adopted"]]);
                    run.end_by("detach");
                }
            },
            ..CHANGE
        },
        REDUCED,
    );
}

#[test]
fn a_supervisor_that_is_killed_as_it_detaches_leaves_its_node_as_it_is() {
    kill(
        &Flow {
            name: "detach",
            drive: |run| {
                if run.is_at_rest() {
                    run.traced.arm();
                    run.end_by("detach");
                }
            },
            ..CHANGE
        },
        REDUCED,
    );
}

#[test]
fn a_stop_without_a_supervisor_that_is_killed_can_be_done_again() {
    kill(
        &Flow {
            name: "stop",
            scene: alone,
            words: Some(&["stop"]),
            drive: |_| {},
            check: |rig, what| {
                // The one that is killed after its SIGTERM leaves no node behind.
                let out = rig.output(&["stop"]);
                assert_eq!(out.status.code(), Some(3), "{what}");
                // An end that was not seen stays unclean until the next node has followed its chain.
                let node = rig.journal()["node"].clone();
                assert!(node == "stopped-clean" || node == "stopped-unclean", "{what}: {node}");
            },
            node_stays: false,
            ..CHANGE
        },
        REDUCED,
    );
}

#[test]
fn a_rehearsal_that_is_killed_leaves_no_shadow_and_no_clone() {
    kill(
        &Flow {
            name: "rehearse",
            scene: || {
                let rig = Rig::new();
                rig.stage("v2", &[]);
                without_supervisor(rig)
            },
            words: Some(&["rehearse", "v2", "--blocks", "2"]),
            check: has_no_shadow,
            ..CHANGE
        },
        REDUCED,
    );
}

#[test]
fn a_supervisor_that_is_killed_as_it_rehearses_is_followed_by_one_that_does_it_again() {
    kill(
        &Flow {
            name: "rehearsal",
            scene: || {
                let rig = Rig::new().set("DAEMON_REHEARSE", "before-upgrade");
                rig.stage("v2", &[]);
                // So far away that no backup is begun: the stop would leave that to the next sweep.
                rig.schedule("v2", 10_000_000);
                Scene::new(rig)
            },
            drive: |run| {
                run.has_logged(&[&["event=rehearsal_passed"]]);
                run.end_by("stop");
            },
            is_done: |status| status["planned"][0]["rehearsal"] == "passed",
            check: has_no_shadow,
            node_stays: false,
            ..CHANGE
        },
        REDUCED,
    );
}

fn has_no_shadow(rig: &Rig, what: &str) {
    let place = rig.home().join("backups/.wemixvisor-rehearsal");
    let shadows: Vec<_> = working_on(&place).into_iter().filter(|pid| is_alive(*pid)).collect();
    assert_eq!((shadows, place.exists()), (Vec::new(), false), "{what}");
    assert_eq!(rig.current(), "genesis", "{what}");
}

/// Supervisors change, and the node goes on.
const CHANGE: Flow = Flow {
    name: "",
    scene: || Scene::later(frozen()),
    words: None,
    drive: |_| {},
    is_done: |_| true,
    check: |rig, what| {
        assert_eq!(
            (rig.current().as_str(), rig.versions().last().unwrap().as_str()),
            ("genesis", "v1"),
            "{what}"
        );
    },
    node_stays: true,
    nested: false,
};

/// A home whose node makes ten blocks.
fn frozen() -> Rig {
    Rig::with(&[("freeze", "10")])
}

/// A home whose node runs without a supervisor.
fn alone() -> Scene {
    without_supervisor(frozen())
}

fn without_supervisor(rig: Rig) -> Scene {
    let mut visor = rig.run();
    visor.wait_node();
    visor.wait(&["event=chain_bound"]);
    rig.ok(&["detach"]);
    assert_eq!(visor.end_beside(), 0);
    drop(visor);
    Scene::new(rig)
}
