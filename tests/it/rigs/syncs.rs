//! The disk in the way of an upgrade: what is synced while the node is down, and what waits for a sync while it runs.

use super::calls::Call;
use super::flows::{Flow, Scene, start, start_with};
use super::settings::Settings;
use super::trace::{Fault, SIGNALS, is_permitted};
use super::upgrade::UPGRADE;
use crate::rig::sim::until;
use crate::rig::visor::Rig;
use serde_json::Value;
use std::sync::Mutex;

/// An upgrade without anything that takes long.
const BARE: Flow = Flow {
    name: "syncs",
    scene: || {
        let rig = Rig::with(&[("freeze", "10"), ("stop", "300")]).set("UNSAFE_SKIP_BACKUP", "true");
        rig.stage("v2", &[]);
        rig.schedule("v2", 10);
        Scene::new(rig)
    },
    ..UPGRADE
};

/// The same with a backup.
const BACKED_UP: Flow = Flow {
    name: "syncs-backup",
    scene: || {
        let rig = Rig::with(&[("freeze", "10"), ("stop", "300")]);
        rig.stage("v2", &[]);
        rig.schedule("v2", 10);
        Scene::new(rig)
    },
    ..UPGRADE
};

fn is_wanted(name: &str) -> bool {
    is_permitted() && Settings::new().wants(name)
}

#[test]
fn between_the_end_of_the_old_node_and_the_new_one_two_things_are_synced() {
    if !is_wanted(BARE.name) {
        return;
    }
    let calls = while_down(&BARE);
    // The head record is written by a thread of its own, for which nothing waits.
    let all = || calls.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let synced: Vec<_> = calls
        .iter()
        .filter(|call| call.name.contains("sync") && !call.is(call.name, "/state/head"))
        .collect();
    assert_eq!(synced.len(), 2, "{}", all());
    assert!(synced[0].is("fdatasync", "/state/journal"), "{}", all());
    assert!(synced[1].is("fsync", "/wemixvisor"), "{}", all());
    assert_eq!(calls.iter().filter(|call| call.is("pwrite64", "/state/journal")).count(), 1, "{}", all());
}

/// The record of the stop is written beside the backup, and the other one with the switch.
#[test]
fn a_backup_costs_one_more_record_which_is_written_beside_it() {
    if !is_wanted(BACKED_UP.name) {
        return;
    }
    let calls = while_down(&BACKED_UP);
    let all = || calls.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(calls.iter().filter(|call| call.is("pwrite64", "/state/journal")).count(), 2, "{}", all());
}

/// The calls of a supervisor between the end of the old node and the start of the new one.
fn while_down(flow: &Flow) -> Vec<Call> {
    let scene = (flow.scene)();
    let outcome = start(flow, &scene, Fault::None);
    assert_eq!((outcome.code, scene.rig.current().as_str()), (0, "upgrades/v2"));
    // The node is asked to stop, its lock is looked at when it is reaped, and the next process is the new one.
    let asked = outcome.calls.iter().position(|call| SIGNALS.contains(&call.name)).unwrap();
    let calls = outcome.calls.into_iter().skip(asked).skip_while(|call| !call.is("flock", "/node.lock"));
    let makes_process = |name: &str| ["clone", "clone3", "fork", "vfork"].contains(&name);
    calls.take_while(|call| !makes_process(call.name)).collect()
}

#[test]
fn questions_heads_and_a_stop_do_not_wait_for_a_disk_that_hangs() {
    if !is_wanted("hang") {
        return;
    }
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let scene = Scene::later(rig);
    let ended = Mutex::new(None);
    let hold = Fault::Hold { call: "fdatasync", on: "/state/journal" };
    let outcome = start_with(&BARE, &scene, hold, &|run| {
        assert!(run.is_at_rest());
        run.traced.arm();
        let rig = &run.scene.rig;
        let status = || -> Value { serde_json::from_str(&rig.ok(&["status", "--json"])).unwrap() };
        let height = |status: &Value| status["head"]["height"].as_u64();
        // Its binary has been tried by then, for the end of that is a signal as well.
        rig.schedule("v2", height(&status()).unwrap() + 100);
        until("a sync to hang", || run.traced.is_holding().then_some(()));
        let seen = height(&status());
        until("a higher head", || (height(&status()) > seen).then_some(()));
        assert_eq!(status()["state"], "running");
        *ended.lock().unwrap() = rig.output(&["stop"]).status.code();
    });
    assert_eq!((outcome.code, ended.into_inner().unwrap()), (0, Some(0)));
    assert_eq!(outcome.hits.len(), 1);
    assert_eq!(scene.rig.journal()["node"], "stopped-clean");
    assert_eq!(scene.rig.versions(), ["v1"]);
    // An upgrade that was about to begin comes due again.
    let mut visor = scene.rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}
