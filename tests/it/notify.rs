//! The operator's program for events, and the sign that an upgrade is under way.

use super::rig::server::Server;
use super::rig::sim::until;
use super::rig::visor::{Rig, is_alive, write_script};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A home with a program for events, which is this script.
fn rig(script: &str) -> Rig {
    told_by(script, &[])
}

/// The same, with options built into version 1 of the node.
fn told_by(script: &str, options: &[(&str, &str)]) -> Rig {
    let rig = Rig::with(options);
    write_script(&rig.home().join("notify"), script);
    let program = rig.home().join("notify");
    rig.set("DAEMON_NOTIFY_COMMAND", &format!("{}, one two", program.display()))
}

/// The events that the program has written into the file `events`.
fn events(rig: &Rig) -> Vec<Value> {
    let text = fs::read_to_string(rig.home().join("events")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_event(rig: &Rig, name: &str) -> Value {
    until(name, || events(rig).into_iter().find(|event| event["event"] == name))
}

fn metric(rig: &Rig, name: &str) -> String {
    let page = String::from_utf8(rig.output(&["status", "--metrics"]).stdout).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

#[test]
fn an_upgrade_is_told_of_from_its_plan_to_its_end() {
    let rig = rig("[ \"$1\" = 'one two' ] || exit 1; env > env; cat >> events");
    let rig = rig.set("DAEMON_DOWNLOAD_PROXY", "http://me:secret@127.0.0.1:1");
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "ls wemixvisor/state > during; exit 0");
    let mut visor = rig.run();
    visor.wait_head(3);
    rig.schedule("v2", 50);
    visor.wait_outcome("v2", "applied");
    wait_event(&rig, "applied");
    let of_v2 = events(&rig);
    let names: Vec<_> = of_v2.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let wanted = ["upgrade_known", "upgrade_ready", "upgrade_due", "stopping", "switched", "applied"];
    assert_eq!(names, wanted);
    for event in &of_v2 {
        let told = (&event["schema"], &event["level"], &event["upgrade"], &event["home"]);
        let home = json!(rig.home());
        assert_eq!(told, (&json!(1), &json!("info"), &json!("v2"), &home), "{event}");
        assert!(event["height"].as_u64().is_some() && event["time"].is_string(), "{event}");
    }
    assert_eq!((&of_v2[0]["version"], &of_v2[5]["version"]), (&json!("genesis"), &json!("upgrades/v2")));
    let env = fs::read_to_string(rig.home().join("env")).unwrap();
    assert!(env.contains(&format!("DAEMON_HOME={}\n", rig.home().display())), "{env}");
    assert!(!env.contains("secret") && !env.contains("DAEMON_NOTIFY_COMMAND"), "{env}");

    let during = fs::read_to_string(rig.home().join("during")).unwrap();
    assert!(during.lines().any(|name| name == "upgrading"), "{during}");
    assert!(!rig.of("state/upgrading").exists());
    assert_eq!(metric(&rig, "wemixvisor_upgrading"), "0");
    assert_eq!(metric(&rig, "wemixvisor_notify_failures_total"), "0");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn alarms_are_silent_across_a_crash_in_the_middle_of_an_upgrade() {
    let rig = rig("cat >> events");
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "[ -e again ] || { touch again; exec sleep 1000; }");
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    until("the hook", || rig.home().join("again").exists().then_some(()));
    assert_eq!(metric(&rig, "wemixvisor_upgrading"), "1");
    visor.kill();
    assert!(rig.of("state/upgrading").exists());
    assert_eq!(metric(&rig, "wemixvisor_upgrading"), "1");
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert!(!rig.of("state/upgrading").exists());
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_last_event_of_a_supervisor_that_halts_is_told() {
    let rig = told_by("cat >> events", &[("freeze", "10")]);
    rig.stage("v2", &[("end", "1")]);
    rig.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", "11"]);
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    let events = events(&rig);
    let halted = events.last().unwrap();
    assert_eq!((&halted["event"], &halted["level"]), (&json!("halted"), &json!("error")), "{events:?}");
    assert!(events.iter().any(|event| event["event"] == "node_restarted"), "{events:?}");
    assert!(!rig.of("state/upgrading").exists(), "the operator must come");
}

#[test]
fn a_program_that_hangs_holds_up_neither_an_upgrade_nor_the_end() {
    let rig = rig("echo $$ > self; trap '' TERM; while :; do sleep 1000; done");
    let rig = rig.set("DAEMON_NOTIFY_TIMEOUT", "1s");
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    visor.wait(&["event=notify_failed of=upgrade_known", "took longer than 1 s"]);
    visor.wait_status("the count", |status| {
        (status["counters"]["notify_failures"].as_u64()? > 0).then_some(())
    });
    let begun = Instant::now();
    assert_eq!(visor.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let pid = fs::read_to_string(rig.home().join("self")).unwrap().trim().parse().unwrap();
    until("the end of the program", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_program_that_is_lost_keeps_no_node_down_and_one_that_hangs_no_longer_than_two_seconds() {
    let rig = Rig::new().set("DAEMON_NOTIFY_COMMAND", "/nowhere/notify");
    let mut visor = rig.run();
    visor.wait(&["event=config_warning", "notify_command", "it is not run until that is mended"]);
    visor.wait_head(1);
    assert_eq!(visor.stop(), 0);
    // The time of the program is 30 s.
    let rig = self::rig("echo $$ > self; exec sleep 1000");
    let mut visor = rig.run();
    rig.stage("v2", &[]);
    rig.schedule("v2", 1_000_000);
    until("the program", || rig.home().join("self").exists().then_some(()));
    let begun = Instant::now();
    assert_eq!(visor.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_reload_changes_the_program_and_one_that_all_may_change_is_refused() {
    let rig = Rig::new();
    let program = rig.home().join("notify");
    write_script(&program, "cat >> events");
    let mut visor = rig.run();
    visor.wait_head(1);
    assert!(events(&rig).is_empty());
    let config = rig.of("config.yaml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "notify_command: [notify]\n").unwrap();
    visor.signal(Signal::HUP);
    visor.wait(&["event=config_changed", "notify_command"]);
    rig.stage("v2", &[]);
    rig.schedule("v2", 1_000_000);
    wait_event(&rig, "upgrade_ready");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    rig.ok(&["upgrade", "now", "v2"]);
    visor.wait(&["event=notify_failed of=upgrade_due", "others than its owner may write it"]);
    assert_eq!(visor.stop(), 0);
}

/// Runs one of the example programs with an event on its standard input.
fn example(name: &str, args: &[&str], env: &[(&str, &Path)], event: &Value) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/hooks").join(name);
    let mut command = Command::new(program);
    let mut child = command.args(args).envs(env.iter().copied()).stdin(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), event).unwrap();
    assert!(child.wait().unwrap().success());
}

fn an_event() -> Value {
    json!({
        "schema": 1, "event": "halted", "level": "error", "time": "2026-01-01T00:00:00Z", "home": "/h",
        "version": "genesis", "height": 7, "upgrade": "v2", "text": "a \"quote\" and\na line é",
    })
}

#[test]
fn the_example_for_webhooks_speaks_to_each_service_in_its_form() {
    let server = Server::start(|_, conn| conn.answer("200 OK", &[], b"ok"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    fs::write(&file, server.url("/hook?token=secret") + "\n").unwrap();
    let env = [("WEBHOOK_FILE", file.as_path())];
    for (args, key) in [
        (&["slack"][..], "text"),
        (&["discord"], "content"),
        (&["telegram", "-100"], "text"),
        (&["json"], "text"),
    ] {
        example("notify-webhook", args, &env, &an_event());
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/hook?token=secret"));
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let text = body[key].as_str().unwrap();
        assert!(text.ends_with("a \"quote\" and\na line é"), "{args:?}: {body}");
        if args[0] == "json" {
            assert_eq!(body, an_event());
        } else {
            assert!(text.starts_with("ERROR halted v2 on ") && text.contains(" /h at 7\n"), "{body}");
        }
        assert_eq!(args[0] == "telegram", body["chat_id"] == "-100", "{body}");
    }
}

#[test]
fn the_example_for_mail_hands_a_message_to_sendmail() {
    let dir = tempfile::tempdir().unwrap();
    let (sendmail, mail) = (dir.path().join("sendmail"), dir.path().join("mail"));
    write_script(&sendmail, &format!("{{ echo \"$@\"; cat; }} > {}", mail.display()));
    let event = json!({"event": "halted", "level": "error", "upgrade": "v2\nBcc: x@y", "text": "a\u{1b}\nb"});
    example("notify-mail", &["ops@example.org"], &[("SENDMAIL", &sendmail)], &event);
    let mail = fs::read_to_string(mail).unwrap();
    let (head, body) = mail.split_once("\n\n").unwrap();
    assert!(
        head.starts_with("-i -- ops@example.org\nTo: ops@example.org\nSubject: wemixvisor on "),
        "{mail}"
    );
    assert!(head.contains(": [error] halted v2") && !head.contains("\nBcc"), "{mail}");
    assert!(body.contains("event: halted\n") && body.contains("text: a  b\n"), "{mail}");
}
