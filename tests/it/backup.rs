//! Backups around an upgrade, and the ways back.

use super::rig::sim::{until, wait_head};
use super::rig::visor::Rig;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use wemixvisor::inside::NodeMark;
use wemixvisor::inside::backup::{self, Content, Method};
use wemixvisor::inside::journal::{Journal, Opened};

/// Every file below a directory, by its path.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    found
}

#[test]
fn a_backup_is_made_before_the_switch_and_has_no_keys() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "ls backups > seen");
    rig.schedule("v2", 10);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let backups = rig.backups();
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert!(backups[0].starts_with("v2-"), "{backups:?}");
    assert_eq!(fs::read_to_string(rig.home().join("seen")).unwrap().trim(), backups[0]);
    let copied = files(&rig.home().join("backups").join(&backups[0]));
    assert!(copied.iter().any(|f| f == "data/simnode/chaindata/blocks.jsonl"), "{copied:?}");
    let key = |f: &&String| ["nodekey", "keystore", "jwtsecret"].iter().any(|k| f.contains(k));
    assert_eq!(copied.iter().filter(key).count(), 0, "{copied:?}");
}

#[test]
fn an_operator_can_do_without() {
    let rig = Rig::new().set("UNSAFE_SKIP_BACKUP", "true");
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    assert!(!rig.home().join("backups").exists());
}

#[test]
fn a_backup_that_is_not_possible_is_known_before_the_node_is_stopped() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    fs::write(rig.home().join("backups"), "a file").unwrap();
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2", "backups"]);
    visor.wait_head(15);
    assert_eq!(rig.traces().signals().len(), 0);
    fs::remove_file(rig.home().join("backups")).unwrap();
    rig.ok(&["upgrade", "add", "v2", rig.path().join("v2").to_str().unwrap()]);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_backup_is_begun_before_the_stop_and_gets_its_digests_after_the_switch() {
    let rig = Rig::new();
    let table = rig.data().join("simnode/chaindata");
    fs::create_dir_all(&table).unwrap();
    for (name, text) in [("MANIFEST-000001", "tables"), ("000001.sst", "table")] {
        fs::write(table.join(name), text).unwrap();
    }
    rig.stage("v2", &[]);
    rig.schedule("v2", 10);
    let mut visor = rig.run();
    let made = visor.wait(&["event=backed_up"]);
    assert!(made.contains("method="), "{made}");
    visor.wait_outcome("v2", "applied");
    visor.wait(&["event=backup_verified"]);
    let status = String::from_utf8(rig.output(&["status"]).stdout).unwrap();
    assert!(status.contains("\nbackup      backup=v2-"), "{status}");
    assert_eq!(visor.stop(), 0);
    let listed: serde_json::Value = serde_json::from_str(&rig.ok(&["backup", "list", "--json"])).unwrap();
    let backup = &listed["backups"][0];
    assert_eq!((&backup["state"], &backup["made_by"]), (&json!("verified"), &json!("upgrade")));
    assert_eq!((&backup["node"], &backup["upgrade"]), (&json!("genesis"), &json!("v2")));
    // Cloned or linked, by what the file system of the test can.
    assert_eq!(
        backup["methods"]["copy"]["files"].as_u64().map(|n| n < backup["entries"].as_u64().unwrap()),
        Some(true)
    );
}

#[test]
fn a_pebble_database_that_is_written_meanwhile_is_backed_up_and_opens_at_the_same_head_again() {
    let pebble = ("layout", "pebble");
    // Clones would hide that a table is the same file as the node's.
    let rig = Rig::with(&[pebble, ("freeze", "60")]).set("DAEMON_BACKUP_METHOD", "hardlink");
    rig.stage("v2", &[pebble]);
    // The last blocks before it come when the copy is under way.
    rig.script(&json!({"freeze": 40}));
    let mut visor = rig.run();
    visor.wait_head(20);
    rig.schedule("v2", 60);
    let chaindata = "simnode/chaindata";
    let begun = until("a backup is begun", || {
        let partial = fs::read_dir(rig.home().join("backups")).into_iter().flatten().flatten().next()?;
        let index = partial.path().join("data").join(chaindata).join("ancient/chain/bodies.cidx");
        fs::metadata(index).ok().map(|meta| meta.len())
    });
    assert_eq!(rig.traces().signals().len(), 0, "the node runs");
    rig.script(&json!({}));
    visor.wait_outcome("v2", "applied");
    visor.wait(&["event=backup_verified"]);
    // By then the node has removed every table that was linked.
    visor.wait_head(90);
    assert_eq!(visor.stop(), 0);

    let backup = backup::load(&rig.as_home(), &rig.backups()[0]).unwrap();
    let (head, data) = (backup.manifest.head.clone().unwrap(), backup.data(&rig.as_home()));
    assert_eq!(head.height, 60);
    let mut listed = Vec::new();
    for entry in &backup.manifest.entries {
        let Content::File { size, method, .. } = &entry.content else { continue };
        assert_eq!(fs::metadata(data.join(&entry.path)).unwrap().len(), *size, "{}", entry.path);
        let is_table = entry.path.ends_with(".sst");
        assert!(!is_table || *method == Method::Hardlink, "{entry:?}");
        let is_written = [".log", "idx", "CURRENT"].iter().any(|end| entry.path.ends_with(end));
        assert!(!is_written || *method == Method::Copy, "{entry:?}");
        listed.push(entry.path.clone());
    }
    let mut there = files(&data);
    there.sort();
    listed.sort();
    assert_eq!(there, listed);
    let count = |end: &str| listed.iter().filter(|path| path.ends_with(end)).count();
    assert_eq!((count(".sst"), count(".log"), count("MANIFEST-000001")), (3, 1, 1), "{listed:?}");
    let index = data.join(chaindata).join("ancient/chain/bodies.cidx");
    assert!(fs::metadata(index).unwrap().len() > begun, "nothing was appended after the backup was begun");
    assert!(rig.ok(&["backup", "verify", &backup.name]).contains("as it was made"));

    rig.ok(&["backup", "restore", &backup.name]);
    rig.script(&json!({"freeze": 60}));
    let mut visor = rig.run();
    // The traces were restored as well.
    let opened = until("it opens", || rig.traces().starts().get(1).map(|start| start["head"].clone()));
    assert_eq!(opened, 60);
    let block = visor.wait_status("the head", |status| {
        let head = &status["head"];
        (head["height"] == 60).then(|| head["hash"].as_str().map(str::to_owned))
    });
    assert_eq!(block, head.hash);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_backup_that_was_begun_does_not_outlive_its_supervisor() {
    let rig = Rig::with(&[("freeze", "10")]);
    rig.stage("v2", &[]);
    rig.schedule("v2", 100);
    let mut visor = rig.run();
    let listed = || fs::read_dir(rig.home().join("backups")).into_iter().flatten().flatten();
    until("a backup is begun", || listed().next());
    assert_eq!(visor.stop(), 0);
    assert_eq!(listed().count(), 0);
}

#[test]
fn the_operator_makes_checks_restores_and_removes_backups() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_head(5);
    for refused in [&["backup", "create"][..], &["backup", "restore", "x"]] {
        assert!(rig.fails(75, refused).contains("wemixvisor stop"));
    }
    assert_eq!(visor.stop(), 0);
    let blocks = || fs::read_to_string(rig.data().join("simnode/chaindata/blocks.jsonl")).unwrap();
    let then = blocks();
    assert!(rig.ok(&["backup", "create", "before"]).contains("backup before-"));
    let name = rig.backups()[0].clone();
    let show = rig.ok(&["backup", "show", &name]);
    assert!(show.contains("by the operator") && show.contains("unverified"), "{show}");
    assert!(rig.ok(&["backup", "verify", &name]).contains("digests are recorded"));
    assert!(rig.ok(&["backup", "verify", &name]).contains("as it was made"));
    rig.fails(4, &["backup", "verify", "other"]);

    let mut visor = rig.run();
    visor.wait_head(then.lines().count() as u64 + 10);
    assert_eq!(visor.stop(), 0);
    let later = blocks();
    assert!(later.lines().count() > then.lines().count());
    let key = fs::read(rig.data().join("simnode/nodekey")).unwrap();
    let said = rig.ok(&["backup", "restore", &name]);
    assert!(said.contains("data.replaced-"), "{said}");
    assert_eq!((blocks(), fs::read(rig.data().join("simnode/nodekey")).unwrap()), (then.clone(), key));
    let list = rig.ok(&["backup", "list"]);
    let kept =
        list.lines().find_map(|line| line.strip_prefix("replaced data is kept in ")).unwrap().to_owned();
    assert_eq!(fs::read_to_string(Path::new(&kept).join("simnode/chaindata/blocks.jsonl")).unwrap(), later);
    // The node goes on from there.
    let mut visor = rig.run();
    visor.wait_head(then.lines().count() as u64 + 2);
    assert_eq!(visor.stop(), 0);

    // A backup of the operator is never outdated.
    assert!(rig.ok(&["backup", "prune", "--keep", "1", "--max-age", "1ns"]).contains("nothing to remove"));
    assert!(rig.ok(&["backup", "prune", &name, "--replaced", "--dry-run"]).contains("would be removed"));
    assert!(Path::new(&kept).exists());
    rig.ok(&["backup", "prune", &name, "--replaced"]);
    assert!(!Path::new(&kept).exists() && rig.backups().is_empty());
    rig.fails(4, &["backup", "prune", &name]);
}

#[test]
fn a_backup_that_is_verified_beside_a_node_is_read_at_the_rate_for_that() {
    let rig = Rig::new().set("DAEMON_BACKUP_RATE", "1MiB");
    let mut visor = rig.run();
    visor.wait_head(5);
    assert_eq!(visor.stop(), 0);
    fs::write(rig.data().join("much"), vec![7; 3 << 20]).unwrap();
    rig.ok(&["backup", "create"]);
    let (name, begun) = (rig.backups()[0].clone(), Instant::now());
    rig.ok(&["backup", "verify", &name]);
    let alone = begun.elapsed();
    let mut visor = rig.run();
    visor.wait_head(10);
    let begun = Instant::now();
    rig.ok(&["backup", "verify", &name]);
    let beside = begun.elapsed();
    assert!(beside >= Duration::from_secs(2), "3 MiB at 1 MiB/s in {beside:?}, alone in {alone:?}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn after_a_crash_only_the_operators_word_makes_or_restores_a_backup() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_head(5);
    assert_eq!(visor.stop(), 0);
    rig.ok(&["backup", "create", "good"]);
    let name = rig.backups()[0].clone();
    let Opened { mut journal, mut record, .. } = Journal::open(&rig.as_home()).unwrap();
    record.node = NodeMark::StoppedUnclean;
    journal.write_settled(&record).unwrap();
    drop(journal);
    for refused in [&["backup", "create"][..], &["backup", "restore", &name]] {
        assert!(rig.fails(5, refused).contains("--force"));
    }
    rig.ok(&["backup", "restore", &name, "--force"]);
}

#[test]
fn a_damaged_backup_is_neither_verified_nor_restored() {
    let rig = Rig::new();
    let mut visor = rig.run();
    visor.wait_head(5);
    assert_eq!(visor.stop(), 0);
    rig.ok(&["backup", "create"]);
    let name = rig.backups()[0].clone();
    rig.ok(&["backup", "verify", &name]);
    let file = rig.home().join("backups").join(&name).join("data/simnode/chaindata/blocks.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.to_ascii_uppercase()).unwrap();
    assert!(rig.fails(66, &["backup", "verify", &name]).contains("content has changed"));
    assert!(rig.fails(66, &["backup", "restore", &name]).contains("content has changed"));
    // So that the rig finds nothing wrong at its end.
    rig.ok(&["backup", "prune", &name]);
}

#[test]
fn a_backup_that_fails_keeps_the_old_binary() {
    // Otherwise it is known before the stop.
    let rig = Rig::new().set("DAEMON_BACKUP_AHEAD", "false");
    rig.stage("v2", &[]);
    rig.script(&json!({"freeze": 10}));
    rig.schedule("v2", 11);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_ready"]);
    // The order that was possible then is not any more.
    std::os::unix::fs::symlink("/etc/passwd", rig.data().join("elsewhere")).unwrap();
    rig.script(&json!({}));
    assert!(visor.wait_outcome("v2", "failed").contains("leads out of it"));
    visor.wait_count(2, &["event=node_started", "version=genesis"]);
    wait_head(&rig.ipc(), 15);
    assert_eq!(visor.stop(), 0);
    assert_eq!((rig.backups().len(), rig.current().as_str()), (0, "genesis"));
}

#[test]
fn a_new_binary_that_dies_three_times_gives_way_to_the_old_one() {
    let rig = Rig::with(&[("freeze", "10")]);
    rig.stage("v2", &[("end", "7")]);
    rig.schedule("v2", 10);
    let mut visor = rig.run_with(&[], &["--mine", "--sim.name", "a b"]);
    assert!(visor.wait_outcome("v2", "rolled-back").contains("exit code 7"));
    visor.wait_count(2, &["event=node_started", "version=genesis"]);
    let starts = rig.traces().starts();
    let versions: Vec<_> = starts.iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions[..4], ["v1", "v2", "v2", "v2"]);
    until("v1 to be back", || (rig.traces().starts().len() == 5).then_some(()));
    let starts = rig.traces().starts();
    assert!(starts.iter().all(|s| s["args"] == starts[0]["args"]), "{starts:?}");
    let status = visor.wait_status("the old one", |s| (s["state"] == "running").then(|| s.clone()));
    assert_eq!((&status["version"]["target"], &status["upgrade"]), (&json!("genesis"), &json!(null)));
    assert_eq!(status["ended"][0]["outcome"], "rolled-back");
    assert_eq!(visor.stop(), 0);

    assert_eq!(
        (rig.current().as_str(), rig.journal()["current"]["target"].as_str()),
        ("genesis", Some("genesis"))
    );
    let history = rig.history();
    let events: Vec<&str> = history.iter().filter_map(|line| line.split(' ').next()).collect();
    let attempts = ["attempt_failed"; 3];
    assert_eq!(events[..3], ["upgrade_due", "backed_up", "switched"]);
    assert_eq!(events[3..6], attempts, "{history:?}");
    assert_eq!(events.last(), Some(&"upgrade_ended"), "{history:?}");
    // It has ended, so the next start does not try it again.
    let mut visor = rig.run();
    visor.wait_node();
    assert_eq!(visor.count(&["event=upgrade_due"]), 0);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn data_that_the_old_binary_cannot_read_is_put_back() {
    let rig = Rig::with(&[("freeze", "10")]);
    rig.stage("v2", &[("db", "9"), ("end", "1+100"), ("freeze", "10")]);
    rig.trigger("{\"name\":\"v2\",\"height\":10,\"data_compat\":false}");
    let mut visor = rig.run();
    visor.wait(&["event=backed_up"]);
    let key = fs::read(rig.data().join("simnode/nodekey")).unwrap();
    let blocks = |data: &Path| fs::read_to_string(data.join("simnode/chaindata/blocks.jsonl")).unwrap();
    let saved = blocks(&rig.home().join("backups").join(&rig.backups()[0]).join("data"));
    visor.wait_outcome("v2", "rolled-back");
    visor.wait(&["event=restored"]);
    let aside = visor.wait(&["event=data_replaced"]);
    visor
        .wait_status("the old one", |s| (s["head"]["height"] == 10 && s["state"] == "running").then_some(()));
    assert_eq!((saved.lines().count(), blocks(&rig.data())), (10, saved));
    assert_eq!(fs::read(rig.data().join("simnode/nodekey")).unwrap(), key);
    assert_eq!(fs::read_to_string(rig.data().join("simnode/chaindata/VERSION")).unwrap().trim(), "8");
    // Nothing is thrown away.
    let aside = Path::new(aside.rsplit(' ').next().unwrap());
    assert_eq!(fs::read_to_string(aside.join("simnode/chaindata/VERSION")).unwrap().trim(), "9");
    // The trigger file came back with the data, and is no reason to try again.
    visor.wait_status("the trigger", |s| (s["planned"] == json!([])).then_some(()));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn past_the_fork_there_is_no_way_back() {
    let rig = Rig::with(&[("freeze", "10")]);
    rig.stage("v2", &[("end", "1")]);
    rig.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", "11"]);
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    assert_eq!((rig.current().as_str(), rig.traces().starts().len()), ("upgrades/v2", 4));
    let status = String::from_utf8(rig.output(&["status"]).stdout).unwrap();
    assert!(status.contains("halted") && status.contains("wemixvisor resolve"), "{status}");
    // Nothing is started until the operator decides.
    let said = {
        let mut visor = rig.run();
        assert_eq!(visor.end(), 79);
        visor.log()
    };
    assert!(said.contains("wemixvisor resolve"), "{said}");
    assert_eq!(rig.traces().starts().len(), 4);

    // Going back is refused unless it is the operator's own will.
    assert!(rig.fails(5, &["resolve", "rollback"]).contains("--force"));
    rig.ok(&["resolve", "retry"]);
    rig.fails(5, &["resolve", "retry"]);
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    assert_eq!(rig.traces().starts().len(), 7, "three more attempts");
    rig.ok(&["resolve", "rollback", "--force"]);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "rolled-back");
    visor.wait_node();
    assert_eq!((rig.current().as_str(), visor.status()["state"].as_str()), ("genesis", Some("running")));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn past_the_fork_the_way_on_is_another_binary() {
    let rig = Rig::with(&[("freeze", "10")]);
    rig.stage("v2", &[("end", "1")]);
    rig.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", "11"]);
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    assert_eq!(rig.versions(), ["v1", "v2", "v2", "v2"]);

    assert!(rig.fails(4, &["resolve", "retry", "--with", "v3"]).contains("upgrade add v3"));
    let bad = rig.binary("bad", &[("smoke", "3")]);
    rig.ok(&["upgrade", "add", "bad", bad.to_str().unwrap()]);
    rig.fails(1, &["resolve", "retry", "--with", "bad"]);
    assert_eq!(rig.current(), "upgrades/v2");
    rig.stage("v3", &[]);
    assert!(rig.ok(&["resolve", "retry", "--with", "v3"]).contains("upgrade v2 with the binary of v3"));
    assert_eq!(
        (rig.current().as_str(), rig.journal()["upgrade"]["name"].as_str()),
        ("upgrades/v3", Some("v2"))
    );
    rig.fails(5, &["resolve", "retry", "--with", "v3"]);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    // The old binary never ran at the fork.
    assert_eq!(rig.versions(), ["v1", "v2", "v2", "v2", "v3"]);
    assert_eq!(visor.stop(), 0);
    let mut visor = rig.run();
    visor.wait_node();
    assert_eq!(rig.versions().last().map(String::as_str), Some("v3"));
    assert_eq!(visor.stop(), 0);
}
