//! The ways back of the operator, upgrades on hold, arguments of a version, and what is refused before it does harm.

use crate::rig::visor::Rig;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use wemixvisor::inside::Back;
use wemixvisor::inside::journal::{Journal, Opened};

/// Version 2 is applied.
fn upgraded() -> Rig {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.schedule("v2", 10);
    rig
}

/// A file of a backup.
fn backup_file(rig: &Rig, name: &str) -> PathBuf {
    rig.home().join("backups").join(name).join("data/simnode/chaindata/blocks.jsonl")
}

/// The arguments with which the node was executed.
fn arguments(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    String::from_utf8(line).unwrap().replace('\0', " ")
}

#[test]
fn back_from_an_applied_upgrade_with_a_supervisor_and_without() {
    let rig = upgraded();
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    let asked = rig.fails(5, &["rollback"]);
    for part in
        ["upgrades/v2 -> genesis, which undoes v2", "the data stays as it is", "is not known", "--yes"]
    {
        assert!(asked.contains(part), "{asked}");
    }
    assert_eq!(rig.current(), "upgrades/v2", "nothing was done");
    assert_eq!(rig.ok(&["rollback", "--yes", "--wait"]), "genesis runs\n");
    visor.wait_count(1, &["event=upgrade_ended", "outcome=rolled-back"]);
    assert_eq!(visor.status()["version"]["target"], "genesis");
    assert!(rig.fails(5, &["rollback", "--yes"]).contains("no earlier version is on record"));
    // It does not happen again by itself, and on the operator's word it does.
    visor.wait_status("nothing planned", |s| (s["planned"] == json!([])).then_some(()));
    rig.ok(&["upgrade", "now", "v2"]);
    visor.wait_count(2, &["event=upgrade_ended", "outcome=applied"]);
    assert_eq!(visor.stop(), 0);
    let said = rig.ok(&["rollback", "--yes"]);
    assert!(said.contains("the next `wemixvisor run` goes back to genesis"), "{said}");
    assert_eq!(
        (rig.current().as_str(), rig.journal()["upgrade"]["phase"].as_str()),
        ("upgrades/v2", Some("reverting"))
    );
    assert!(rig.fails(5, &["rollback", "--yes"]).contains("on its way back already"));
    let mut visor = rig.run();
    visor.wait_outcome("v2", "rolled-back");
    visor.wait_node();
    assert_eq!(rig.versions(), ["v1", "v2", "v1", "v2", "v1"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_data_of_the_backup_is_put_back_when_that_is_wanted() {
    let rig = upgraded();
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    rig.ok(&["rollback", "--restore", "--yes", "--wait"]);
    visor.wait(&["event=restored"]);
    assert_eq!(rig.current(), "genesis");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_backup_that_is_damaged_is_found_before_the_node_is_stopped() {
    let rig = upgraded();
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    visor.wait(&["event=backup_verified"]);
    let (name, node) = (rig.backups()[0].clone(), visor.node());
    let file = backup_file(&rig, &name);
    let mut damaged = fs::read(&file).unwrap();
    damaged[0] ^= 1;
    fs::write(&file, damaged).unwrap();
    rig.is_broken_on_purpose();
    rig.fails(66, &["rollback", "--restore", "--yes"]);
    // From then on it is known, and no way back leads over it.
    assert!(rig.ok(&["backup", "list"]).contains("damaged"));
    assert!(rig.fails(5, &["rollback", "--restore", "--yes"]).contains("there is no backup"));
    assert_eq!((visor.node(), rig.current().as_str()), (node, "upgrades/v2"), "it was left alone");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_way_back_that_is_shut_leaves_the_new_binary_or_the_old_one_on_the_data_as_it_is() {
    for on in [["resolve", "retry", "--with", "v2"], ["resolve", "rollback", "--force", ""]] {
        let rig = upgraded();
        let mut visor = rig.run();
        visor.wait_outcome("v2", "applied");
        visor.wait(&["event=backup_verified"]);
        assert_eq!(visor.stop(), 0);
        rig.ok(&["rollback", "--restore", "--yes"]);
        let name = rig.backups()[0].clone();
        fs::remove_file(backup_file(&rig, &name)).unwrap();
        rig.is_broken_on_purpose();
        assert_eq!(rig.run().end(), 79);
        let words: Vec<&str> = on.into_iter().filter(|word| !word.is_empty()).collect();
        rig.ok(&words);
        let mut visor = rig.run();
        visor.wait_outcome("v2", if on[1] == "retry" { "applied" } else { "rolled-back" });
        visor.wait_node();
        assert_eq!(visor.stop(), 0);
    }
}

/// An order to go back over a backup, as a supervisor leaves it that ends before it has begun. Returns the backup.
fn ordered(rig: &Rig) -> String {
    let mut visor = rig.run();
    visor.wait_head(5);
    assert_eq!(visor.stop(), 0);
    rig.ok(&["backup", "create", "before"]);
    let backup = rig.backups()[0].clone();
    let Opened { mut journal, mut record, .. } = Journal::open(&rig.as_home()).unwrap();
    let to = record.current.clone();
    record.back = Some(Back { to, backup: Some(backup.clone()), force: false });
    journal.write_settled(&record).unwrap();
    backup
}

#[test]
fn an_order_to_go_back_is_cancelled_without_a_supervisor() {
    let rig = Rig::new();
    ordered(&rig);
    rig.ok(&["rollback", "--cancel"]);
    assert_eq!(rig.journal().get("back"), None);
    assert!(rig.fails(5, &["rollback", "--cancel"]).contains("no rollback is ordered"));
}

#[test]
fn a_backup_that_an_order_to_go_back_needs_is_not_removed() {
    let rig = Rig::new();
    let backup = ordered(&rig);
    assert!(rig.fails(5, &["backup", "prune", &backup]).contains("is needed by"));
    assert!(rig.fails(5, &["backup", "prune", &format!("{backup}/")]).contains("is needed by"));
    assert_eq!(rig.backups(), [&*backup]);
    rig.ok(&["rollback", "--cancel"]);
    rig.ok(&["backup", "prune", &backup]);
    assert!(rig.backups().is_empty());
}

#[test]
fn the_same_file_is_the_same_binary_under_whatever_name() {
    let rig = upgraded();
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    let v2 = rig.binary("v2", &[]);
    let again = ["upgrade", "add", "v3", v2.to_str().unwrap()];
    assert!(rig.fails(5, &again).contains("the binary of upgrades/v2, which runs"));
    // Another build that tells the same version.
    let like_v2 = rig.binary("other", &[("version", "v2"), ("freeze", "100000")]);
    let other = ["upgrade", "add", "v3", like_v2.to_str().unwrap()];
    assert!(rig.fails(5, &other).contains("it reports the version 2-stable"));
    let staged = rig.ok(&[&again[..], &["--force"]].concat());
    assert!(staged.contains("v3 is staged, version 2-stable"), "{staged}");
    assert!(rig.fails(5, &["rollback", "--to", "v3", "--yes"]).contains("the same binary as upgrades/v2"));
    let shown = rig.ok(&["upgrade", "show", "v3"]);
    assert!(shown.contains("2-stable") && shown.contains("sha256"), "{shown}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn an_upgrade_on_hold_does_not_happen_before_it_is_released() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    assert!(rig.fails(4, &["upgrade", "hold", "v2"]).contains("no upgrade v2 is planned"));
    rig.schedule("v2", 10);
    assert!(rig.ok(&["upgrade", "hold", "v2"]).contains("upgrade release v2"));
    let mut visor = rig.run();
    visor.wait_head(15);
    assert_eq!(visor.status()["planned"][0]["on_hold"], true);
    let listed = rig.ok(&["upgrade", "list"]);
    assert!(listed.contains("it is on hold: wemixvisor upgrade release v2"), "{listed}");
    assert!(listed.contains("ready 2-stable"), "{listed}");
    assert!(rig.fails(1, &["upgrade", "now", "v2"]).contains("on hold"));
    assert_eq!(visor.count(&["event=upgrade_due"]), 0);
    rig.ok(&["upgrade", "release", "v2"]);
    visor.wait_outcome("v2", "applied");
    rig.fails(4, &["upgrade", "release", "v2"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_height_that_is_not_above_the_head_wants_a_word_of_its_own() {
    let rig = Rig::with(&[("freeze", "9")]);
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_head(9);
    let at = |height: &'static str| ["upgrade", "schedule", "v2", height];
    assert!(rig.fails(5, &at("5")).contains("--now"));
    assert!(rig.fails(5, &[&at("9")[..], &["--force"]].concat()).contains("the head is 9"));
    assert_eq!(visor.stop(), 0);
    // Without a node the head record tells.
    assert!(rig.fails(5, &at("5")).contains("--now"));
    rig.ok(&at("10"));
}

#[test]
fn a_version_has_its_own_arguments_and_only_that() {
    let rig = Rig::with(&[("freeze", "9")]);
    let v2 = rig.binary("v2", &[]);
    let added = rig.ok(&[
        "upgrade",
        "add",
        "v2",
        v2.to_str().unwrap(),
        "--add-arg",
        "--cache=7",
        "--drop-arg",
        "--identity old",
    ]);
    assert!(added.contains("without --identity old, with --cache=7"), "{added}");
    rig.fails(65, &["upgrade", "add", "v2", v2.to_str().unwrap(), "--add-arg", "--datadir=x"]);
    rig.schedule("v2", 10);
    let mut visor = rig.run_with(&[], &["--mine", "--identity", "old"]);
    visor.wait_node();
    assert!(arguments(visor.node()).ends_with("--mine --identity old "));
    rig.script(&json!({"freeze": "never"}));
    visor.wait_outcome("v2", "applied");
    assert!(arguments(visor.node()).ends_with("--mine --cache=7 "), "{}", arguments(visor.node()));
    let status = rig.ok(&["status"]);
    assert!(
        status.contains("without --identity old, with --cache=7") && status.contains("(2-stable)"),
        "{status}"
    );
    rig.ok(&["rollback", "--yes", "--wait"]);
    assert!(arguments(visor.node()).ends_with("--mine --identity old "));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_flag_that_the_new_binary_of_no_validator_does_not_know_is_named_too() {
    let rig = Rig::new();
    let v2 = rig.binary("v2", &[]);
    rig.ok(&["upgrade", "add", "v2", v2.to_str().unwrap(), "--add-arg", "--nope"]);
    rig.schedule("v2", 10);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "rolled-back");
    let ended = visor.status()["ended"][0]["detail"].as_str().unwrap().to_owned();
    assert!(ended.contains("flag provided but not defined: -nope, after 3 attempts"), "{ended}");
    let history = rig.history().join("\n");
    assert!(history.contains("attempt=2 of=3 the new binary ended: exit code 1: flag provided"), "{history}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_flag_that_the_new_binary_does_not_know_is_named_in_history() {
    let fleet = crate::rig::fleet::Fleet::with(1, &[], |_, rig| {
        let v2 = rig.binary("v2", &[]);
        rig.ok(&["upgrade", "add", "v2", v2.to_str().unwrap(), "--add-arg", "--nope"]);
        rig.schedule("v2", 10);
    });
    let rig = &fleet.homes[0];
    let mut visor = fleet.run(0);
    visor.wait_outcome("v2", "rolled-back");
    let ended = visor.status()["ended"][0]["detail"].as_str().unwrap().to_owned();
    assert!(ended.contains("flag provided but not defined: -nope"), "{ended}");
    let history = rig.history().join("\n");
    assert!(history.contains("flag provided but not defined: -nope"), "{history}");
    visor.wait(&["flag provided but not defined"]);
    assert_eq!(visor.stop(), 0);
}
