//! Requests of operators while a supervisor runs, and while none does.

use super::rig::sim::until;
use super::rig::visor::{Rig, is_alive};
use serde_json::{Value, json};
use std::fs;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_cancelled_upgrade_never_happens() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.script(&json!({"freeze": 10}));
    assert!(rig.fails(4, &["upgrade", "cancel", "v2"]).contains("no upgrade v2 is planned"));
    rig.schedule("v2", 11);
    rig.ok(&["upgrade", "cancel", "v2"]);
    rig.schedule("v2", 11);

    let mut visor = rig.run();
    visor.wait(&["event=upgrade_ready", "name=v2"]);
    assert!(rig.fails(4, &["upgrade", "cancel", "v3"]).contains("no upgrade v3 is planned"));
    assert_eq!(rig.ok(&["upgrade", "cancel", "v2"]), "upgrade v2 is cancelled\n");
    visor.wait_status("nothing planned", |s| (s["planned"] == json!([])).then_some(()));
    // Nor does it when another source plans the very same.
    rig.trigger("{\"name\":\"v2\",\"height\":11}");
    rig.script(&json!({}));
    visor.wait_head(20);
    assert_eq!(visor.status()["planned"], json!([]));
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (1, 0));
    assert_eq!(visor.stop(), 0);
    let mut visor = rig.run();
    visor.wait_node();
    visor.wait_head(30);
    assert_eq!(rig.traces().starts().len(), 2);
    // A change of mind is one.
    rig.schedule("v2", 11);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn what_the_trigger_file_plans_can_be_cancelled() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.script(&json!({"freeze": 10}));
    rig.trigger("{\"name\":\"v2\",\"height\":11}");
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_ready", "name=v2"]);
    rig.ok(&["upgrade", "cancel", "v2"]);
    rig.script(&json!({}));
    visor.wait_head(20);
    assert_eq!(rig.traces().signals().len(), 0);
    // An upgrade that is ordered for now can be cancelled as well, as long as it has not begun.
    fs::rename(rig.of("upgrades/v2/bin"), rig.of("upgrades/v2/gone")).unwrap();
    rig.trigger("{\"name\":\"v2\",\"height\":1000000}");
    visor.wait(&["event=upgrade_not_ready", "name=v2"]);
    rig.ok(&["upgrade", "now", "v2"]);
    rig.ok(&["upgrade", "cancel", "v2"]);
    fs::rename(rig.of("upgrades/v2/gone"), rig.of("upgrades/v2/bin")).unwrap();
    visor.wait_head(30);
    assert_eq!((visor.status()["planned"].clone(), rig.traces().signals().len()), (json!([]), 0));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn plans_that_disagree_are_refused_and_named() {
    let rig = Rig::new();
    rig.schedule("v2", 1000);
    rig.schedule("v2", 1000);
    let moved = rig.fails(1, &["upgrade", "schedule", "v2", "1001"]);
    assert!(moved.ends_with("at 1000; cancel it first: wemixvisor upgrade cancel v2\n"), "{moved}");
    assert_eq!(moved.lines().count(), 1);
    let same_height = rig.fails(1, &["upgrade", "schedule", "v3", "1000"]);
    assert!(same_height.contains("v2 at 1000 (schedule)"), "{same_height}");
    rig.fails(2, &["upgrade", "schedule", "v4", "5", "--fork-height", "5"]);
    let mut visor = rig.run();
    visor.wait_node();
    rig.trigger("{\"name\":\"v2\",\"height\":1002}");
    visor.wait(&["event=plans_disagree", "v2 at 1000 (schedule), v2 at 1002 (upgrade-info.json)"]);
    let listed = rig.output(&["upgrade", "list", "--json"]);
    let (stdout, stderr) =
        (String::from_utf8(listed.stdout).unwrap(), String::from_utf8(listed.stderr).unwrap());
    assert_eq!(json_of(&stdout)["planned"], json!([]));
    assert!(stderr.contains("they disagree on the height"), "{stderr}");
    assert!(rig.ok(&["status"]).contains("problem     v2 at 1000"), "{}", rig.ok(&["status"]));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_running_supervisor_answers() {
    let rig = Rig::with(&[("stop", "100")]);
    rig.schedule("v2", 1_000_000);
    let mut visor = rig.run();
    visor.wait_node();
    visor.wait_head(5);
    let status = json_of(&rig.ok(&["status", "--json"]));
    assert_eq!((&status["running"], &status["pid"]), (&json!(true), &json!(visor.pid())));
    assert_eq!((&status["state"], &status["version"]["target"]), (&json!("running"), &json!("genesis")));
    assert_eq!(status["planned"][0]["name"], "v2");
    let shown = rig.ok(&["status"]);
    for part in
        ["supervisor  running, pid ", "node        running, pid ", "head        ", "UPGRADE", "v2", "1000000"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let node = visor.node();
    assert_eq!(rig.ok(&["restart"]), "restarting the node\n");
    visor.wait_count(2, &["event=rpc_connected"]);
    assert_ne!(visor.node(), node);
    let starts = rig.traces().starts();
    assert_eq!((starts.len(), &starts[0]["args"]), (2, &starts[1]["args"]));
    assert_eq!((rig.traces().signals().len(), visor.status()["failures"].clone()), (1, json!(0)));

    let node = visor.node();
    let stopped = rig.output(&["stop"]);
    assert!(!is_alive(node) && stopped.status.success());
    assert_eq!(String::from_utf8(stopped.stdout).unwrap(), "stopped\n");
    assert_eq!(visor.end(), 0);
}

#[test]
fn without_a_supervisor_the_disk_answers() {
    let rig = Rig::new();
    rig.schedule("v2", 7);
    rig.trigger("{\"name\":");
    for command in ["stop", "restart"] {
        let said = rig.fails(3, &[command]);
        assert!(said.contains("no supervisor is running") && said.contains("wemixvisor run"), "{said}");
    }
    let out = rig.output(&["status", "--json"]);
    assert_eq!(out.status.code(), Some(3));
    let status = json_of(&String::from_utf8(out.stdout).unwrap());
    assert_eq!((&status["running"], &status["version"]["target"]), (&json!(false), &json!("genesis")));
    assert_eq!(status["planned"][0]["height"], 7);
    assert!(status["problems"][0].as_str().unwrap().contains("upgrade-info.json"), "{status}");
    let out = rig.output(&["status"]);
    let shown = String::from_utf8(out.stdout).unwrap();
    assert!(shown.starts_with("health      no supervisor runs: read upgrade-info.json"), "{shown}");
    assert!(shown.contains("\nsupervisor  not running, home "), "{shown}");
    assert!(rig.ok(&["upgrade", "list"]).contains("v2"));
    assert_eq!(json_of(&rig.ok(&["upgrade", "list", "--json"]))["planned"][0]["name"], "v2");
}

#[test]
fn a_height_that_has_passed_is_scheduled_only_on_a_word_of_its_own() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_head(5);
    let said = rig.fails(5, &["upgrade", "schedule", "v2", "5"]);
    assert!(said.contains("height 5 has passed, the head is ") && said.contains("--now"), "{said}");
    assert_eq!(visor.status()["planned"], json!([]));
    rig.ok(&["upgrade", "schedule", "v2", "5", "--now"]);
    assert_eq!(visor.status()["planned"][0]["name"], "v2");
    // It is planned, so that nothing changes.
    rig.ok(&["upgrade", "schedule", "v2", "5"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_second_supervisor_touches_nothing() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    until("a head record", || rig.of("state/head").exists().then_some(()));
    let before = snapshot(&rig);
    let mut second = rig.run();
    assert_eq!(second.end_beside(), 75);
    let log = second.log();
    assert!(log.contains(&format!("another supervisor (process {})", visor.pid())), "{log}");
    for decision in ["retry", "rollback", "chain"] {
        let said = rig.fails(75, &["resolve", decision]);
        assert!(
            said.contains("another supervisor") && said.contains("run `wemixvisor stop` first"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(snapshot(&rig), before);
    assert_eq!((rig.traces().starts().len(), rig.traces().overlaps().len()), (1, 0));
    assert!(rig.ok(&["status", "--exit-code"]).starts_with("health      healthy, nothing needs you\n"));
    assert_eq!(visor.stop(), 0);
}

/// Everything below the home but the node's data: path, inode, time of the last change, and content.
fn snapshot(rig: &Rig) -> Vec<(String, u64, i64, i64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    let mut open = vec![rig.home()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if path == rig.data() || path == rig.of("state/head") {
                continue;
            }
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            found.push((path.display().to_string(), meta.ino(), meta.ctime(), meta.ctime_nsec(), content));
            open.extend(meta.is_dir().then_some(path));
        }
    }
    found.sort();
    found
}
