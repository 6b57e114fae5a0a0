//! Stops and kills in the middle of an upgrade: the next run goes on from what is on disk.

use super::rig::sim::until;
use super::rig::visor::{Rig, send};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::Write as _;

/// A home whose upgrade to v2 at height 10 takes its time at every step.
fn slow() -> Rig {
    // Blocks come after the binary is ready as well: on a chain that stands still the height is noticed half a minute later.
    let rig = Rig::with(&[("freeze", "40"), ("period", "100"), ("stop", "100")]);
    rig.stage("v2", &[("rpc-delay", "200")]);
    rig.hook("v2", "pre-upgrade", "sleep 0.1");
    rig.schedule("v2", 10);
    rig
}

/// Kills the supervisor when its log has these words, and runs it again to the end of the upgrade.
fn is_killed_at(words: &[&str]) {
    let rig = slow();
    let mut visor = rig.run();
    visor.wait(words);
    visor.kill();
    // Once more while it recovers.
    let mut visor = rig.run();
    visor.wait(&["version="]);
    visor.kill();
    let mut visor = rig.run();
    let ended = visor.wait_status("the end of the upgrade", |status| {
        (status["state"] == "running").then(|| status["ended"].clone()).filter(|e| *e != json!([]))
    });
    assert_eq!(ended[0]["outcome"], "applied", "killed at {words:?}: {ended}");
    assert_eq!(rig.current(), "upgrades/v2", "killed at {words:?}");
    assert_eq!(visor.stop(), 0, "killed at {words:?}");
    // Wherever that was, the new binary has never run before the old one had ended.
    let starts: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert!(starts.is_sorted_by_key(|v| v.to_string()), "killed at {words:?}: {starts:?}");
}

fn are_survived(points: &[&[&str]]) {
    std::thread::scope(|scope| {
        for words in points {
            scope.spawn(move || is_killed_at(words));
        }
    });
}

#[test]
fn kills_before_the_node_is_down_are_survived() {
    are_survived(&[
        &["event=started"],
        &["event=node_started"],
        &["event=upgrade_known"],
        &["event=upgrade_due"],
        &["event=signal_sent"],
    ]);
}

#[test]
fn kills_while_the_node_is_down_are_survived() {
    are_survived(&[
        &["event=node_stopped"],
        &["event=job_begun", "job=backup"],
        &["event=backed_up"],
        &["event=job_begun", "job=hook"],
    ]);
}

#[test]
fn kills_after_the_switch_are_survived() {
    are_survived(&[
        &["event=switched"],
        &["event=node_started", "upgrades/v2"],
        &["event=rpc_connected", "event=rpc_connected"],
        &["event=upgrade_ended"],
    ]);
}

#[test]
fn kills_on_the_way_back_are_survived() {
    let back = |words: &[&str]| {
        let rig = Rig::with(&[("freeze", "10")]);
        rig.stage("v2", &[("db", "9"), ("end", "1")]);
        rig.trigger("{\"name\":\"v2\",\"height\":10,\"data_compat\":false}");
        let mut visor = rig.run();
        visor.wait(words);
        visor.kill();
        let mut visor = rig.run();
        let ended = visor.wait_status("the end of the upgrade", |status| {
            (status["state"] == "running").then(|| status["ended"].clone()).filter(|e| *e != json!([]))
        });
        assert_eq!(ended[0]["outcome"], "rolled-back", "killed at {words:?}: {ended}");
        visor.wait_head(10);
        assert_eq!(visor.stop(), 0);
        assert_eq!(rig.current(), "genesis");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| back(&["event=job_begun", "job=restore"]));
        scope.spawn(|| back(&["event=data_replaced"]));
        scope.spawn(|| back(&["event=upgrade_ended", "outcome=rolled-back"]));
    });
}

#[test]
fn a_stop_ends_a_long_hook_and_the_next_run_goes_on() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "echo $$ > hook.pid; exec sleep 1000");
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    let pid = until("the hook", || {
        fs::read_to_string(rig.home().join("hook.pid")).ok()?.trim().parse::<u32>().ok()
    });
    assert_eq!(visor.status()["upgrade"]["phase"], "backed-up");
    for refused in [vec!["upgrade", "cancel", "v2"], vec!["restart"], vec!["upgrade", "now", "v2"]] {
        let said = rig.fails(1, &refused);
        assert!(said.contains("upgrade v2 "), "{said}");
    }
    assert_eq!(visor.stop(), 0);
    assert!(!super::rig::visor::is_alive(pid));
    let listed = rig.ok(&["upgrade", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["under_way"]["phase"], "backed-up");
    let list = rig.ok(&["upgrade", "list"]);
    assert!(list.contains("under way: backed-up") && !list.contains("attempt"), "{list}");
    assert!(rig.fails(1, &["upgrade", "cancel", "v2"]).contains("has begun"));

    rig.hook("v2", "pre-upgrade", "exit 0");
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!((versions.as_slice(), rig.backups().len()), (&[json!("v1"), json!("v2")][..], 1));
}

#[test]
fn a_stop_ends_a_long_backup_and_the_next_run_makes_it() {
    // Each byte is read and written: holes would take no time, and neither would clones.
    let rig = Rig::new().set("DAEMON_BACKUP_METHOD", "copy");
    rig.stage("v2", &[]);
    rig.script(&json!({}));
    let large = rig.data().join("large");
    let mut file = fs::File::create(&large).unwrap();
    (0..400).for_each(|_| file.write_all(&[0; 1 << 20]).unwrap());
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait(&["event=job_begun", "job=backup"]);
    assert_eq!(visor.stop(), 0);
    assert_eq!(visor.count(&["event=backed_up"]), 0, "it did end before its time");
    let left: Vec<_> = fs::read_dir(rig.home().join("backups")).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
    assert_eq!(rig.journal()["upgrade"]["phase"], "stopped");

    fs::remove_file(large).unwrap();
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    assert_eq!(rig.backups().len(), 1);
}

/// Runs an upgrade from a node that ignores SIGTERM.
fn with_a_stubborn_node(action: &str, then: impl FnOnce(&Rig, &mut super::rig::visor::Visor<'_>, u32)) {
    let rig = Rig::with(&[("stop", "never"), ("freeze", "4")])
        .set("DAEMON_SHUTDOWN_GRACE", "1s")
        .set("DAEMON_STOP_TIMEOUT_ACTION", action);
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    let node = visor.node();
    rig.script(&json!({"freeze": "never"}));
    visor.wait(&["event=signal_sent", "SIGTERM"]);
    then(&rig, &mut visor, node);
    assert_eq!(rig.traces().signals().len(), 1);
    // v1 would not stop now either.
    if rig.current() == "upgrades/v2" {
        assert_eq!(visor.stop(), 0);
    }
    assert_eq!(rig.backups().len(), 0, "data of a node that was killed is no backup");
}

#[test]
fn a_node_that_does_not_stop_is_waited_for() {
    with_a_stubborn_node("wait", |_, visor, node| {
        visor.wait(&["event=still_stopping"]);
        assert_eq!(visor.status()["state"], "stopping-for-upgrade");
        send(node, Signal::KILL);
        visor.wait_outcome("v2", "applied");
    });
}

#[test]
fn a_node_that_does_not_stop_can_be_killed() {
    with_a_stubborn_node("kill", |_, visor, _| {
        visor.wait(&["event=killing"]);
        visor.wait(&["event=unclean_stop", "signal 9"]);
        visor.wait_outcome("v2", "applied");
    });
}

#[test]
fn a_node_that_does_not_stop_can_end_the_upgrade() {
    with_a_stubborn_node("abort", |rig, visor, node| {
        visor.wait(&["event=upgrade_given_up"]);
        send(node, Signal::KILL);
        assert!(visor.wait_outcome("v2", "failed").contains("daemon_shutdown_grace"));
        visor.wait_count(2, &["event=node_started", "version=genesis"]);
        assert_eq!(rig.current(), "genesis");
    });
}

#[test]
fn a_chain_that_stops_by_itself_is_upgraded() {
    let rig = Rig::with(&[("end", "upgrade:v2@10")]).set("DAEMON_HEIGHT_SOURCE", "none");
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let starts = rig.traces().starts();
    let seen: Vec<_> =
        starts.iter().map(|s| (s["version"].as_str().unwrap(), s["head"].as_u64().unwrap())).collect();
    assert_eq!((seen.len(), seen[0].0, seen[1].0), (2, "v1", "v2"), "{seen:?}");
    assert!(seen[1].1 >= 10, "{seen:?}");
    assert_eq!(rig.backups().len(), 1);
}

#[test]
fn an_old_binary_is_not_started_at_the_fork_that_was_planned_meanwhile() {
    let rig = Rig::with(&[("freeze", "9")]);
    let mut visor = rig.run();
    visor.wait_status("block 9 to count", |status| (status["head_record"]["height"] == 9).then_some(()));
    assert_eq!(visor.stop(), 0);
    rig.stage("v2", &[]);
    rig.ok(&["upgrade", "schedule", "v2", "5", "--fork-height", "10", "--now"]);
    let mut visor = rig.run();
    visor.wait(&["event=start_held", "fork at 10"]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, [json!("v1"), json!("v2")]);
}

#[test]
fn a_damaged_head_record_halts_and_can_be_forgotten() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_node();
    assert_eq!(visor.stop(), 0);
    fs::write(rig.of("state/head"), "damaged").unwrap();
    let mut visor = rig.run();
    assert_eq!(visor.end_beside(), 79);
    visor.wait(&["the head record is damaged", "wemixvisor resolve head"]);
    assert!(rig.ok(&["resolve", "head"]).contains("forgotten"));
    let mut visor = rig.run();
    visor.wait_node();
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_chain_that_stopped_by_itself_is_not_started_again_with_the_old_binary() {
    let rig = Rig::with(&[("freeze", "9")]).set("DAEMON_HEIGHT_SOURCE", "none");
    let mut visor = rig.run();
    until("the node", || (rig.traces().starts().len() == 1).then_some(()));
    assert_eq!(visor.stop(), 0);
    rig.stage("v2", &[]);
    rig.trigger("{\"name\":\"v2\",\"height\":10}");
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, [json!("v1"), json!("v2")]);
}

#[test]
fn what_a_killed_supervisor_was_writing_is_swept_away() {
    let rig = Rig::new();
    // Beyond the highest process id that Linux can give.
    let left =
        ["state/.schedule.json.2147483647-7.tmp", ".current.2147483647-8.tmp"].map(|name| rig.of(name));
    left.iter().for_each(|path| fs::write(path, "").unwrap());
    let mut visor = rig.run();
    visor.wait(&["event=started"]);
    assert_eq!(visor.stop(), 0);
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn a_chain_that_stops_by_itself_waits_for_its_binary() {
    let rig = Rig::with(&[("end", "upgrade:v2@10")]).set("DAEMON_HEIGHT_SOURCE", "none");
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2"]);
    visor.wait(&["event=restarting"]);
    rig.stage("v2", &[]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}
