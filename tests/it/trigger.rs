//! The trigger file: what it causes, once, and what it must not cause.

use super::rig::sim::{head, try_call, until, wait_head};
use super::rig::visor::Rig;
use serde_json::json;
use std::fs;
use std::io::Write as _;

fn info(name: &str, height: u64) -> String {
    format!("{{\"name\":\"{name}\",\"height\":{height}}}")
}

#[test]
fn a_healthy_node_below_the_height_is_left_alone_and_upgraded_once() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.script(&json!({"freeze": 20}));
    let mut visor = rig.run();
    visor.wait_node();
    rig.trigger(&info("v2", 25));
    visor.wait(&["event=upgrade_ready", "name=v2"]);
    visor.wait_head(20);
    assert_eq!((rig.traces().starts().len(), rig.traces().signals().len()), (1, 0), "nothing happens before");

    rig.script(&json!({}));
    visor.wait_outcome("v2", "applied");
    let starts = rig.traces().starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[1]["head"].as_u64() >= Some(25), "{starts:?}");

    // The file is still there, is written anew, and is found again at the next start.
    rig.trigger(&format!(" {} ", info("v2", 25)));
    wait_head(&rig.ipc(), head(&rig.ipc()) + 10);
    assert_eq!(visor.stop(), 0);
    let mut visor = rig.run();
    visor.wait_node();
    rig.trigger(&info("v2", 25));
    // The same name for another height is a contradiction, and no upgrade.
    rig.trigger(&info("v2", 26));
    visor.wait(&["event=plans_disagree", "it was applied already"]);
    wait_head(&rig.ipc(), head(&rig.ipc()) + 10);
    assert_eq!(visor.count(&["event=upgrade_known"]) + visor.count(&["event=upgrade_due"]), 0);
    assert_eq!(rig.traces().starts().len(), 3);
    assert_eq!(rig.current(), "upgrades/v2");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_height_that_is_long_past_upgrades_once_and_at_once() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_node();
    visor.wait_head(20);
    assert_eq!(visor.stop(), 0);
    rig.trigger(&info("v2", 3));
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, ["v1", "v1", "v2"]);
    assert_eq!(rig.history().iter().filter(|line| line.starts_with("upgrade_due")).count(), 1);
}

#[test]
fn files_that_make_no_sense_are_reported_once_and_harmless() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    let node = visor.node();
    // The node has been started, but may not have come to make it.
    fs::create_dir_all(rig.data()).unwrap();
    let path = rig.data().join("upgrade-info.json");
    let huge = format!("{{\"name\":\"v2\",\"height\":1,\"info\":\"{}\"}}", "x".repeat(1 << 20));
    for (text, why) in [
        ("{\"name\":\"v2\",\"hei", "EOF"),
        ("\n", "it is empty"),
        ("{\"name\":\"../../x\",\"height\":1}", "../../x"),
        ("{\"name\":\"/etc/passwd\",\"height\":1}", "/etc/passwd"),
        ("{\"name\":\"v2\"}", "/height: it is missing"),
        ("{\"name\":\"v2\",\"height\":-1}", "/height: -1 is not a height"),
        ("{\"name\":\"v2\",\"height\":1e400}", "/height: 1e400 is not a height"),
        ("{\"name\":\"v2\",\"height\":0}", "/height: 0 is not a height"),
        ("[1]", "expected an object"),
        ("\u{0}\u{1}\u{2}", "expected value"),
        (&huge, "larger than 1 MiB"),
    ] {
        for _ in 0..3 {
            // In one step, so that it is never seen half-written.
            let whole = rig.data().join("upgrade-info.json.whole");
            fs::write(&whole, text).unwrap();
            fs::rename(&whole, &path).unwrap();
            let line = visor.wait(&["event=plan_unreadable", "upgrade-info.json", why]);
            assert!(line.len() < 500, "{line}");
        }
    }
    // A path that is no file at all.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    visor.wait(&["event=plan_unreadable", "not a regular file"]);
    fs::remove_dir(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    visor.wait_status("the problem", |status| {
        status["problems"][0].as_str()?.contains("upgrade-info.json").then_some(())
    });
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    visor.wait(&["event=plan_unreadable", "symbolic link"]);
    fs::remove_file(&path).unwrap();
    visor.wait_status("no problem", |status| status["problems"].as_array()?.is_empty().then_some(()));
    for why in ["it is empty", "larger than 1 MiB", "/height: 0 is not a height", "an object", "/etc/passwd"]
    {
        assert_eq!(visor.count(&["event=plan_unreadable", why]), 1, "{why}");
    }
    assert_eq!((visor.node(), rig.traces().starts().len()), (node, 1));

    // Half of it, then the rest, by a writer that takes its time.
    let text = info("v2", 1);
    let (half, rest) = text.split_at(10);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    wait_head(&rig.ipc(), visor.wait_head(0) + 5);
    assert_eq!(rig.traces().starts().len(), 1);
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_file_is_judged_by_its_content_wherever_it_comes_from() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "echo \"$UPGRADE_INFO\" > \"$DAEMON_HOME/info\"");
    let mut visor = rig.run();
    visor.wait_node();
    // Older than everything else, and moved into place.
    let elsewhere = rig.path().join("elsewhere");
    let text = "{\"height\":\"5\",\"name\":\"v2\",\"plan\":[1],\"info\":\"{\\\"note\\\": \\\"hi\\\"}\"}";
    fs::write(&elsewhere, text).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options().append(true).open(&elsewhere).unwrap().set_modified(old).unwrap();
    fs::rename(&elsewhere, rig.data().join("upgrade-info.json")).unwrap();
    visor.wait_outcome("v2", "applied");
    assert_eq!(fs::read_to_string(rig.home().join("info")).unwrap(), "{\"note\": \"hi\"}\n");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn where_nothing_tells_of_a_change_it_is_noticed_all_the_same() {
    let rig = Rig::new().set("DAEMON_POLL_INTERVAL", "100ms");
    rig.stage("v2", &[]);
    let mut visor = rig.run();
    visor.wait_node();
    let mut file = fs::File::create(rig.data().join("upgrade-info.json")).unwrap();
    visor.wait(&["event=plan_unreadable", "it is empty"]);
    // Written to and never closed: inotify is not asked to tell that.
    file.write_all(info("v2", 3).as_bytes()).unwrap();
    visor.wait_outcome("v2", "applied");
    drop(file);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_trigger_lies_in_the_data_directory_that_the_node_is_told() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let data = rig.path().join("elsewhere");
    let mut visor = rig.run_with(&[], &["--mine", "--datadir", data.to_str().unwrap()]);
    visor.wait_node();
    fs::write(data.join("upgrade-info.json"), info("v2", 3)).unwrap();
    visor.wait_outcome("v2", "applied");
    until("v2 to run", || try_call(&data.join("simnode.ipc"), "eth_blockNumber", &json!([])));
    assert_eq!(visor.stop(), 0);
}
