//! A supervisor with an upgrade before it (download, backup, hook, switch, probation) is killed before a call that
//! changes something, alone or with its node; the next one ends the upgrade as if nothing had happened.
//!
//! Whether a node outlives its supervisor is not asked here: there must be one node in the end, and the upgrade must
//! have been applied once.

use super::settings::Settings;
use super::trace::{self, Fault, Outcome, is_permitted};
use crate::rig::server::{Content, Server};
use crate::rig::sim::until;
use crate::rig::visor::{Rig, is_alive, working_on};
use serde_json::json;
use std::fs::{self, File};
use wemixvisor::digest::Digest;

/// Supervisors that `cargo test` kills.
const REDUCED: usize = 4;
/// Those that are killed at the same time.
const AT_ONCE: usize = 4;

#[test]
fn a_killed_supervisor_loses_nothing_of_an_upgrade() {
    let settings = Settings::new();
    if !is_permitted() || !settings.wants("upgrade") {
        return;
    }
    let count = whole();
    let points = settings.points(count, REDUCED);
    println!("upgrade: {count} calls, killed at {}", points.len());
    for some in points.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for at in some {
                let settings = &settings;
                scope.spawn(move || {
                    // Every second one takes its node along.
                    kill_at(*at, at % 2 == 0, &settings.replay("upgrade", *at));
                });
            }
        });
    }
}

/// The number of calls of an uninterrupted run.
fn whole() -> usize {
    let (rig, _server) = planned();
    let outcome = supervise(&rig, Fault::None);
    assert_eq!(outcome.code, 0);
    has_upgraded(&rig, "without a kill");
    outcome.calls.len()
}

fn kill_at(at: usize, with_node: bool, replay: &str) {
    let (rig, _server) = planned();
    let dir = rig.data();
    let fault = if with_node { Fault::KillAll { at, dir } } else { Fault::Kill { at } };
    let outcome = supervise(&rig, fault);
    // A run is never as long as another, so this one may have been over before.
    let Some(hit) = outcome.hits.first() else { return };
    let what = format!("killed at call {at}, {hit}, node too: {with_node}; {replay}");
    rig.one_was_killed();
    println!("{what}");
    let mut visor = rig.run();
    let ended = visor.wait_status("the end of the upgrade", |status| {
        (status["state"] == "running").then(|| status["ended"].clone()).filter(|ended| *ended != json!([]))
    });
    assert_eq!(ended[0]["outcome"], "applied", "{what}: {ended}");
    let nodes: Vec<_> = working_on(&rig.data()).into_iter().filter(|pid| *pid != visor.pid()).collect();
    let alive = nodes.iter().filter(|pid| is_alive(**pid)).count();
    assert_eq!(alive, 1, "{what}: {nodes:?}");
    assert_eq!(visor.stop(), 0, "{what}");
    has_upgraded(&rig, &what);
}

/// A home that downloads version 2 of its node and upgrades to it at height 10, with a hook.
fn planned() -> (Rig, Server) {
    let rig = Rig::with(&[("freeze", "10")]).set("DAEMON_ALLOW_DOWNLOAD_BINARIES", "true");
    let content = Content::new(fs::read(rig.binary("v2", &[])).unwrap());
    let digest = Digest::sha256(&content.body).hex();
    let server = Server::start(move |asked, conn| content.serve(asked, conn));
    rig.hook("v2", "pre-upgrade", "echo hook >> hook.ran");
    let url = server.url("/v2");
    rig.ok(&["upgrade", "schedule", "v2", "10", "--url", &url, "--sha256", &digest, "--force"]);
    (rig, server)
}

/// Runs a supervisor under the tracer until it is killed, or has upgraded and was stopped.
fn supervise(rig: &Rig, fault: Fault) -> Outcome {
    let data = rig.data();
    let args = ["run", "--", "--datadir", data.to_str().unwrap(), "--verbosity", "2", "--mine"];
    let log = rig.path().join("traced.log");
    let (stdout, stderr) = (File::create(rig.path().join("traced.out")), File::create(&log));
    let traced = trace::start(&rig.command(&args), stdout.unwrap(), stderr.unwrap(), fault);
    let has_upgraded = || {
        fs::read_to_string(&log).unwrap_or_default().contains("event=upgrade_ended name=v2 outcome=applied")
    };
    until("the end of the upgrade", || (traced.has_ended() || has_upgraded()).then_some(()));
    if !traced.has_ended() {
        // A kill may come on the way.
        rig.output(&["stop"]);
    }
    traced.end()
}

/// Checks that the upgrade has been applied once and has left nothing to do.
fn has_upgraded(rig: &Rig, what: &str) {
    assert_eq!(rig.current(), "upgrades/v2", "{what}");
    let listed: serde_json::Value = serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap();
    assert_eq!((&listed["planned"], &listed["under_way"]), (&json!([]), &json!(null)), "{what}: {listed}");
    assert_eq!(listed["ended"].as_array().map(Vec::len), Some(1), "{what}: {listed}");
    let versions = rig.versions();
    assert!(versions.is_sorted(), "{what}: the old binary ran after the new one: {versions:?}");
    assert!(!rig.backups().is_empty(), "{what}: no backup");
    let hooks = fs::read_to_string(rig.home().join("hook.ran")).unwrap_or_default().lines().count();
    assert!((1..=2).contains(&hooks), "{what}: the hook ran {hooks} times");
}
