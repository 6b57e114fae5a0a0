//! The commands by themselves, without a supervisor: what they do on disk, what they say, how they end.

use super::{phases, upgrade};
use crate::rig::sim::{Sim, until};
use crate::rig::visor::Rig;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

fn plan_file(rig: &Rig, plan: &str) -> Value {
    serde_json::from_slice(&fs::read(rig.of(&format!("plans/{plan}.json"))).unwrap()).unwrap()
}

#[test]
fn a_plan_is_made_changed_shown_and_removed() {
    let rig = Rig::new();
    assert!(rig.ok(&["plan", "list"]).contains("there are no plans"));
    rig.ok(&["plan", "create", "p", "v3:300", "v2:200", "--description", "two forks", "--chain-id", "1112"]);
    rig.fails(1, &["plan", "create", "p"]);
    let hex = "ab".repeat(32);
    rig.ok(&[
        "plan",
        "add-upgrade",
        "p",
        "v4:250",
        "--fork-height",
        "260",
        "--sha256",
        &hex,
        "--url",
        "https://x/v4",
    ]);
    rig.fails(1, &["plan", "add-upgrade", "p", "v4:999"]);
    let refusal = rig.fails(65, &["plan", "add-upgrade", "p", "v5:250"]);
    assert!(refusal.contains("250 is not above 250, the height of /upgrades/1"), "{refusal}");
    rig.fails(2, &["plan", "add-upgrade", "p", "v5:400", "--fork-height", "400"]);
    rig.fails(4, &["plan", "add-upgrade", "q", "v5:400"]);
    rig.ok(&["plan", "remove-upgrade", "p", "v3"]);
    rig.fails(4, &["plan", "remove-upgrade", "p", "v3"]);

    let file = plan_file(&rig, "p");
    assert_eq!((&file["description"], &file["chain_id"]), (&json!("two forks"), &json!(1112)));
    let expected = json!([
        {"name": "v2", "height": 200},
        {"name": "v4", "height": 250, "fork_height": 260, "sha256": hex, "binaries": {"any": "https://x/v4"}},
    ]);
    assert_eq!(file["upgrades"], expected);
    assert_eq!(serde_json::from_str::<Value>(&rig.ok(&["plan", "show", "p", "--json"])).unwrap(), file);
    let shown = rig.ok(&["plan", "show", "p"]);
    assert!(shown.contains("two forks") && shown.contains("sha256:abababababab…"), "{shown}");
    let list: Value = serde_json::from_str(&rig.ok(&["plan", "list", "--json"])).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["activation"], &list[0]["total_upgrades"]),
        (&json!("p"), &json!("inactive"), &json!(2))
    );

    rig.ok(&["plan", "remove", "p"]);
    rig.fails(4, &["plan", "remove", "p"]);
    rig.fails(4, &["plan", "show", "p"]);
    // A link that leads nowhere is in the way of a new plan, and can be taken out of it.
    std::os::unix::fs::symlink("nowhere", rig.of("plans/p.json")).unwrap();
    rig.fails(1, &["plan", "create", "p"]);
    rig.ok(&["plan", "remove", "p"]);
    rig.ok(&["plan", "create", "p"]);
}

#[test]
fn a_plan_is_made_of_a_file_with_all_that_is_in_it() {
    let rig = Rig::new();
    let file = rig.path().join("theirs.json");
    let theirs = json!({
        "version": "1.0", "name": "theirs", "description": "d", "created_at": "2026-01-01T00:00:00Z",
        "upgrades": [{"name": "v2", "height": 200, "ticket": 7}], "owner": "ops",
    });
    fs::write(&file, theirs.to_string()).unwrap();
    let path = file.to_str().unwrap();
    rig.ok(&["plan", "validate", path]);
    rig.ok(&["plan", "create", "ours", "v3:300", "--from", path]);
    let ours = plan_file(&rig, "ours");
    assert_eq!(
        (&ours["name"], &ours["owner"], &ours["upgrades"][0]["ticket"]),
        (&json!("ours"), &json!("ops"), &json!(7))
    );
    assert_eq!(ours["upgrades"].as_array().unwrap().len(), 2);

    fs::write(&file, r#"{"version": "2.0", "name": "", "upgrades": [{"name": "v2", "height": 0}]}"#).unwrap();
    let refusal = rig.fails(65, &["plan", "create", "other", "--from", path]);
    for pointer in ["/version", "/name", "/upgrades/0/height"] {
        assert!(refusal.contains(pointer), "{refusal}");
    }
    let out = rig.output(&["plan", "validate", path, "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &report["valid"]), (Some(65), &json!(false)));
    assert_eq!(report["findings"].as_array().unwrap().len(), 3);
    rig.fails(4, &["plan", "validate", "neither"]);
    rig.fails(74, &["plan", "validate", "./neither.json"]);
}

#[test]
fn what_a_plan_could_not_be_judged_by_is_told() {
    let rig = Rig::new();
    rig.ok(&["plan", "create", "p", "v2:200", "--chain-id", "5"]);
    fs::write(rig.of("state/schedule.json"), "{").unwrap();
    let out = rig.output(&["plan", "validate", "p", "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let unchecked = report["unchecked"].as_str().unwrap();
    for what in ["chain 5", "the heights against its head", "what else is planned: read schedule"] {
        assert!(unchecked.contains(what), "{unchecked}");
    }
    rig.fails(65, &["plan", "execute", "p"]);
}

#[test]
fn a_plan_is_executed_paused_and_resumed_without_a_supervisor() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let broken = rig.binary("broken", &[("smoke", "3")]);
    let said = rig.follow("p", &["v2:200", "v3:300"]);
    assert!(said.starts_with("plan p is followed: 2 upgrades, next v2 at 200\n"), "{said}");
    assert!(said.contains("  v3: the binary is missing") && said.contains("  1 ready"), "{said}");
    let status = rig.plan_status("p");
    assert_eq!((&status["activation"], phases(&status)), (&json!("active"), vec!["waiting"; 2]));
    assert_eq!(upgrade(&status, "v2")["binary"]["state"], "staged");
    assert_eq!(upgrade(&status, "v3")["binary"]["state"], "missing");
    assert_eq!(
        (&status["active"], &status["current_height"], &status["progress"]),
        (&json!("v2"), &Value::Null, &json!(0.0))
    );

    let refusal = rig.fails(1, &["plan", "remove", "p"]);
    assert!(refusal.contains("wemixvisor plan pause p"), "{refusal}");
    rig.ok(&["plan", "pause", "p"]);
    assert_eq!(phases(&rig.plan_status("p")), ["paused"; 2]);
    rig.ok(&["upgrade", "cancel", "v2"]);
    rig.ok(&["plan", "resume", "p"]);
    assert_eq!(phases(&rig.plan_status("p")), ["cancelled", "waiting"]);
    rig.ok(&["plan", "pause", "p"]);
    // Executed again it is no longer paused; and what cannot be used is an error, though it is followed.
    rig.ok(&["upgrade", "add", "v3", broken.to_str().unwrap()]);
    let refusal = rig.fails(1, &["plan", "execute", "p"]);
    assert!(refusal.contains("plan p is followed, but a binary cannot be used"), "{refusal}");
    assert_eq!(rig.plan_status("p")["activation"], "active");
    rig.ok(&["plan", "pause", "p"]);
    rig.ok(&["plan", "remove", "p"]);
    assert!(rig.ok(&["plan", "status"]).contains("no plan was executed"));
    rig.fails(4, &["plan", "pause", "p"]);
    rig.fails(4, &["plan", "resume", "p"]);
}

#[test]
fn a_binary_that_another_process_fetches_is_no_failure() {
    let rig = Rig::new().set("DAEMON_ALLOW_DOWNLOAD_BINARIES", "true");
    rig.ok(&["plan", "create", "p"]);
    rig.ok(&[
        "plan",
        "add-upgrade",
        "p",
        "v2:200",
        "--sha256",
        &"ab".repeat(32),
        "--url",
        "http://localhost:1/v2",
    ]);
    let lock = fs::File::create(rig.of("downloads/v2.lock")).unwrap();
    lock.lock().unwrap();
    let said = rig.ok(&["plan", "execute", "p"]);
    assert!(said.contains("v2: another download of v2 is under way"), "{said}");
}

#[test]
fn a_binary_that_is_not_the_one_of_the_plan_is_told_at_once() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.ok(&["plan", "create", "p"]);
    rig.fails(65, &["plan", "execute", "p"]);
    rig.ok(&["plan", "add-upgrade", "p", "v2:200", "--sha256", &"ab".repeat(32)]);
    let refusal = rig.fails(66, &["plan", "execute", "p"]);
    assert!(refusal.contains("not the one that the upgrade pins"), "{refusal}");
    let mut visor = rig.run();
    visor.wait(&["event=rpc_connected"]);
    rig.fails(66, &["plan", "execute", "p"]);
    let binary = &rig.plan_status("p")["upgrades"][0]["binary"];
    assert_eq!(binary["state"], "failed");
    assert!(binary["detail"].as_str().unwrap().contains("pins"), "{binary}");
    drop(visor);
}

#[test]
fn a_running_node_is_asked_for_height_and_chain() {
    let rig = Rig::new();
    let visor = rig.run();
    rig.ok(&["wait-height", "10"]);
    rig.ok(&["plan", "create", "p", "v2:5", "--chain-id", "1"]);
    let out = rig.output(&["plan", "validate", "p"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(65), "{said}");
    assert!(said.contains("/chain_id: the plan is for chain 1, but the node follows 8383"), "{said}");
    assert!(said.contains("/upgrades/0/height: warning: the chain is past it"), "{said}");
    rig.fails(65, &["plan", "execute", "p"]);
    drop(visor);
}

#[test]
fn without_a_supervisor_the_node_is_asked_how_far_a_plan_is() {
    let rig = Rig::new();
    rig.follow("p", &["v2:1000000"]);
    let node = Sim::validator(&rig.path().join("elsewhere"), 0, 1).start();
    node.wait_head(3);
    let address = ["--daemon-rpc-address", node.ipc.to_str().unwrap()];
    let status = rig.ok(&[&["plan", "status", "p", "--json"][..], &address].concat());
    let status: Value = serde_json::from_str(&status).unwrap();
    let height = status["current_height"].as_u64().unwrap();
    assert!(height >= 3, "{status}");
    assert_eq!(status["upgrades"][0]["blocks_left"], 1_000_000 - height);
}

#[test]
fn a_watch_without_a_terminal_tells_every_change_and_ends_with_the_plan() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.follow("p", &["v2:30"]);
    let visor = rig.run();
    let watched = rig.ok(&["plan", "status", "p", "--watch"]);
    assert!(!watched.contains('\x1b'), "{watched}");
    let first = watched.lines().next().unwrap();
    assert!(first.contains(" plan=p active") && first.contains(" done=0 of=1 progress=0.00"), "{watched}");
    let changes: Vec<&str> = watched.lines().skip(1).map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(changes.iter().any(|c| c.starts_with("plan=p upgrade=v2 applied head=")), "{watched}");
    assert_eq!(changes.last(), Some(&"plan=p progress=100.00"));
    // With --json each line is a whole status.
    let watched = rig.ok(&["plan", "status", "p", "--watch", "--json"]);
    let last: Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!(last["completed"], 1);
    drop(visor);
}

#[test]
fn a_watch_ends_with_its_reader() {
    let rig = Rig::new();
    rig.follow("p", &["v2:200"]);
    let mut command = rig.command(&["plan", "status", "p", "--watch"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(" plan=p active"), "{line}");
    let ended = until("its end", || watch.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    // A warning that no log would show is printed once.
    let remarks = std::io::read_to_string(watch.stderr.take().unwrap()).unwrap();
    assert_eq!(remarks, "wemixvisor: no supervisor is running, so nothing will happen\n");
}

#[test]
fn nothing_in_a_plan_acts_on_the_terminal() {
    let rig = Rig::new();
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\r\n";
    let sound = json!({
        "version": "1.0", "name": "p", "description": hostile, "created_at": hostile, hostile: hostile,
        "upgrades": [{"name": "v2", "height": 5, "info": hostile}],
    });
    let mut bad = sound.clone();
    bad["version"] = json!(hostile);
    bad["upgrades"] = json!([{"name": hostile, "height": hostile, "binaries": {hostile: hostile}}]);
    let file = rig.path().join(format!("{}.json", hostile.trim_end()));
    let path = file.to_str().unwrap();
    let harmless = |args: &[&str]| {
        let out = rig.output(args);
        for text in [&out.stdout, &out.stderr] {
            let text = std::str::from_utf8(text).unwrap();
            let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!text.contains(acts), "{args:?}: {text:?}");
        }
        out
    };
    fs::write(&file, bad.to_string()).unwrap();
    let out = harmless(&["plan", "validate", path, "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["findings"][3]["pointer"], format!("/upgrades/0/binaries/{hostile}"));
    for args in [["plan", "validate", path].as_slice(), &["plan", "create", "p", "--from", path]] {
        assert_eq!(harmless(args).status.code(), Some(65), "{args:?}");
    }
    fs::write(&file, sound.to_string()).unwrap();
    for command in
        ["create p --from", "show p", "show p --json", "list", "list --json", "execute p", "status p"]
    {
        let mut args: Vec<&str> = ["plan"].into_iter().chain(command.split(' ')).collect();
        args.extend(command.ends_with("--from").then_some(path));
        assert!(harmless(&args).status.success(), "{args:?}");
    }
    fs::write(rig.of("plans/p.json"), bad.to_string()).unwrap();
    for command in ["list", "list --json", "status p", "validate p"] {
        harmless(&["plan"].into_iter().chain(command.split(' ')).collect::<Vec<_>>());
    }
}
