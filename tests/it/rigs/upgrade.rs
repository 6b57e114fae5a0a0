//! A supervisor with an upgrade before it (download, backup, hook, switch, probation), killed: the upgrade is applied
//! once, with one backup, and a hook that runs again is told so.

use super::flows::{Flow, Run, Scene, kill};
use crate::rig::server::{Content, Server};
use crate::rig::visor::Rig;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use wemixvisor::Digest;

/// Supervisors that `cargo test` kills.
const REDUCED: usize = 4;
/// Those whose next one it kills as well.
const REDUCED_TWICE: usize = 2;

/// The upgrade.
pub(super) const UPGRADE: Flow = Flow {
    name: "upgrade",
    scene: || planned(Rig::empty()),
    words: None,
    drive: upgrades,
    is_done: is_applied,
    check: has_upgraded,
    node_stays: false,
    nested: false,
};

#[test]
fn a_killed_supervisor_loses_nothing_of_an_upgrade() {
    kill(&UPGRADE, REDUCED);
}

#[test]
fn nor_does_one_that_is_killed_again_while_it_recovers() {
    kill(&Flow { name: "upgrade-twice", nested: true, ..UPGRADE }, REDUCED_TWICE);
}

/// A home that downloads version 2 of its node and upgrades to it at height 10, with a hook.
pub(super) fn planned(rig: Rig) -> Scene {
    let rig = rig.laid_out(&[("freeze", "10")]).set("DAEMON_ALLOW_DOWNLOAD_BINARIES", "true");
    let content = Content::new(fs::read(rig.binary("v2", &[])).unwrap());
    let digest = Digest::sha256(&content.body).hex();
    let server = Server::start(move |asked, conn| content.serve(asked, conn));
    rig.hook("v2", "pre-upgrade", &format!("echo $UPGRADE_RETRY >> {}", hook_ran(&rig).display()));
    let url = server.url("/v2");
    rig.ok(&["upgrade", "schedule", "v2", "10", "--url", &url, "--sha256", &digest, "--now"]);
    Scene::with(rig, server)
}

/// The file that the hook writes. It is not in the home, because a shell syncs nothing.
fn hook_ran(rig: &Rig) -> PathBuf {
    rig.path().join("hook.ran")
}

fn upgrades(run: &Run<'_>) {
    run.has_upgraded();
    run.end_by("stop");
}

fn is_applied(status: &Value) -> bool {
    status["ended"][0]["outcome"] == "applied"
}

/// Checks that the upgrade has been applied once and has left nothing to do.
fn has_upgraded(rig: &Rig, what: &str) {
    assert_eq!(rig.current(), "upgrades/v2", "{what}");
    let listed: Value = serde_json::from_str(&rig.ok(&["upgrade", "list", "--json"])).unwrap();
    assert_eq!((&listed["planned"], &listed["under_way"]), (&json!([]), &json!(null)), "{what}: {listed}");
    assert_eq!(listed["ended"].as_array().map(Vec::len), Some(1), "{what}: {listed}");
    let versions = rig.versions();
    assert!(versions.is_sorted(), "{what}: the old binary ran after the new one: {versions:?}");
    assert_eq!(rig.backups().len(), 1, "{what}: {:?}", rig.backups());
    let hooks = fs::read_to_string(hook_ran(rig)).unwrap_or_default();
    // It may have been killed before it had written anything.
    assert!(
        ["0\n", "0\n1\n", "1\n", "0\n1\n1\n"].contains(&hooks.as_str()),
        "{what}: the hook ran as {hooks:?}"
    );
    let applied = rig.history().iter().filter(|line| line.starts_with("upgrade_ended ")).count();
    assert_eq!(applied, 1, "{what}: {:?}", rig.history());
}
