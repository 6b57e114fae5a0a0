//! Homes: laid out, broken, missing; and what is said about them.

use super::rig::visor::Rig;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use wemixvisor::inside::journal::{Journal, Opened};

/// Runs on a home that must not be run on: nothing is started, and the message has these parts.
#[track_caller]
fn is_refused(rig: &Rig, code: i32, parts: &[&str]) {
    let before = fs::read_link(rig.of("current")).ok();
    let mut visor = rig.run();
    let ended = visor.end_beside();
    let log = visor.log();
    assert_eq!(ended, code, "{log}");
    for part in parts {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(rig.traces().starts().len(), 0);
    assert_eq!(fs::read_link(rig.of("current")).ok(), before, "it is left alone");
}

#[test]
fn a_current_that_proves_nothing_starts_nothing() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.is_broken_on_purpose();
    let current = rig.of("current");
    let relink = |target: &str| {
        fs::remove_file(&current).unwrap();
        symlink(target, &current).unwrap();
    };
    relink("upgrades/v2");
    is_refused(&rig, 79, &["current points at upgrades/v2 but the journal says genesis", "point it back"]);
    relink("upgrades/v9");
    is_refused(&rig, 79, &["does not resolve", "upgrades/v9/bin/simnode"]);
    relink("/bin");
    is_refused(&rig, 79, &["points neither to"]);
    fs::remove_file(&current).unwrap();
    is_refused(&rig, 79, &["is missing", "ln -s"]);
    let status = String::from_utf8(rig.output(&["status"]).stdout).unwrap();
    assert!(status.contains("trouble     `current` is missing") && status.contains("ln -s"), "{status}");
    rig.ok(&["init"]);
    assert_eq!(rig.current(), "genesis", "the node has never run, so init may finish its work");

    // Not the bytes that were installed.
    let binary = rig.of("genesis/bin/simnode");
    fs::rename(rig.binary("other", &[]), &binary).unwrap();
    is_refused(&rig, 79, &["is not the one that was installed", "put it back"]);
    fs::remove_file(&binary).unwrap();
    is_refused(&rig, 79, &["does not resolve", "put the binary back"]);
    symlink("/bin/true", &binary).unwrap();
    is_refused(&rig, 79, &["outside the home"]);
}

#[test]
fn a_journal_that_proves_nothing_starts_nothing() {
    let rig = Rig::new();
    rig.is_broken_on_purpose();
    let journal = rig.of("state/journal");
    let good = fs::read(&journal).unwrap();
    let halves = [0, good.len() / 2];
    let spoil = |slots: &[usize]| {
        let mut bytes = fs::read(&journal).unwrap();
        slots.iter().for_each(|at| bytes[at + 40] ^= 1);
        fs::write(&journal, bytes).unwrap();
    };
    spoil(&halves);
    is_refused(&rig, 79, &["no journal can be read", "state/journal", "init --import"]);
    fs::remove_file(&journal).unwrap();
    is_refused(&rig, 79, &["no journal can be read", "it is missing"]);
    // During an upgrade one whole slot of two proves nothing.
    fs::write(&journal, &good).unwrap();
    let Opened { journal: mut writer, mut record, .. } = Journal::open(&rig.as_home()).unwrap();
    let attempt = json!({
        "name": "v2", "height": 9, "data_compat": true, "phase": "backed-up", "attempt": 0,
        "from": record.current, "to": record.current, "stopped_at": null, "unclean": false,
    });
    record.upgrade = Some(serde_json::from_value(attempt).unwrap());
    writer.write(&record).unwrap();
    spoil(&halves[..1]);
    is_refused(&rig, 79, &["damaged during an upgrade", "slot 1 is damaged", "v2", "phase backed-up"]);
    // At rest it is enough, and the other one is repaired.
    fs::write(&journal, &good).unwrap();
    spoil(&halves[1..]);
    let status: Value = serde_json::from_slice(&rig.output(&["status", "--json"]).stdout).unwrap();
    assert!(status["problems"][0].as_str().unwrap().contains("slot 2 is damaged"), "{status}");
    let mut visor = rig.run();
    visor.wait(&["event=journal_slot_bad", "slot 2 is damaged", "it is repaired"]);
    visor.wait_node();
    assert_eq!(visor.stop(), 0);
    let bytes = fs::read(&journal).unwrap();
    assert!(bytes[..halves[1]].trim_ascii_end() == bytes[halves[1]..].trim_ascii_end());
}

#[test]
fn a_damaged_schedule_is_an_error_of_every_command_and_never_an_empty_one() {
    let rig = Rig::new();
    rig.ok(&["upgrade", "schedule", "v2", "20000"]);
    let schedule = rig.of("state/schedule.json");
    let good = fs::read_to_string(&schedule).unwrap();
    let flipped = good.replace("upgrades", "upgradez");
    fs::write(&schedule, &flipped).unwrap();
    let parts = ["schedule.json", "checksum is wrong", "upgradez", "move it away"];
    let named = |text: &str| parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
    for args in
        [&["upgrade", "list"][..], &["upgrade", "schedule", "v3", "30000"], &["upgrade", "cancel", "v2"]]
    {
        named(&rig.fails(65, args));
    }
    let status = rig.output(&["status"]);
    assert_eq!(status.status.code(), Some(3), "no supervisor is running");
    named(&String::from_utf8(status.stdout).unwrap());
    is_refused(&rig, 65, &parts);

    // A supervisor that runs keeps to what it read before.
    fs::write(&schedule, &good).unwrap();
    let mut visor = rig.run();
    visor.wait_node();
    fs::write(&schedule, &flipped).unwrap();
    visor.wait(&["event=plan_unreadable", "checksum is wrong"]);
    named(&rig.fails(65, &["status"]));
    let list = rig.output(&["upgrade", "list", "--json"]);
    let planned: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((list.status.code(), &planned["planned"][0]["name"]), (Some(65), &json!("v2")));
    assert!(!rig.output(&["upgrade", "cancel", "v2"]).status.success());
    assert_eq!(fs::read_to_string(&schedule).unwrap(), flipped);
    fs::rename(&schedule, rig.of("state/damaged")).unwrap();
    rig.ok(&["upgrade", "schedule", "v2", "20000"]);
    rig.ok(&["status"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_home_that_is_not_there_asks_for_init() {
    let rig = Rig::empty();
    for args in [
        &["run"][..],
        &["status"],
        &["status", "--json"],
        &["upgrade", "list"],
        &["upgrade", "schedule", "v2", "5"],
        &["upgrade", "now", "v2"],
        &["upgrade", "cancel", "v2"],
        &["stop"],
        &["resolve", "retry"],
    ] {
        let out = rig.output(args);
        let (stdout, stderr) =
            (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
        assert_eq!(out.status.code(), Some(78), "{args:?}");
        assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{args:?}: {stderr}");
        assert!(stderr.contains("wemixvisor init BINARY"), "{args:?}: {stderr}");
        assert!(!rig.home().exists(), "{args:?} has made something");
    }
}

#[test]
fn init_lays_out_once_and_checks_afterwards() {
    let rig = Rig::empty();
    let v1 = rig.binary("v1", &[]);
    let made = rig.ok(&["init", v1.to_str().unwrap()]);
    assert!(made.lines().all(|line| line.starts_with("made ")), "{made}");
    let mode = |path: &str| fs::metadata(rig.of(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("state"), mode("config.yaml")), (0o700, 0o700, 0o600));
    assert_eq!(mode("genesis/bin/simnode"), 0o555);
    let again = rig.ok(&["init", v1.to_str().unwrap()]);
    assert!(again.lines().all(|line| line.starts_with("kept ")), "{again}");
    rig.ok(&["init"]);
    // Another binary is not what was installed.
    let other = rig.binary("other", &[]);
    assert!(
        rig.fails(1, &["init", other.to_str().unwrap()]).contains("another binary is staged there already")
    );
    // A link that an upgrade has moved is not reset.
    rig.stage("v2", &[]);
    rig.schedule("v2", 3);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    rig.ok(&["init", v1.to_str().unwrap()]);
    assert_eq!(rig.current(), "upgrades/v2");
    fs::remove_file(rig.of("current")).unwrap();
    assert!(rig.fails(79, &["init"]).contains("ln -s upgrades/v2 current"));
    rig.is_broken_on_purpose();
}

#[test]
fn no_umask_opens_or_locks_the_home_and_the_node_keeps_its_own() {
    let rig = Rig::empty();
    let under = |umask: &str, args: &[&str]| {
        let own = rig.command(args);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "umask $0; exec \"$@\"", umask]).arg(own.get_program()).args(args);
        shell.env_clear().envs(own.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(rig.path());
        shell
    };
    let v1 = rig.binary("v1", &[]);
    for umask in ["0", "0777"] {
        assert!(under(umask, &["init", v1.to_str().unwrap()]).output().unwrap().status.success());
        let mode = |path: &str| fs::metadata(rig.of(path)).unwrap().permissions().mode() & 0o7777;
        let modes = ["..", ".", "state", "genesis/bin", "config.yaml", "state/journal", "lock"].map(mode);
        assert_eq!(modes, [0o700, 0o700, 0o700, 0o700, 0o600, 0o600, 0o600], "{umask}");
        if umask == "0" {
            fs::remove_dir_all(rig.home()).unwrap();
        }
    }
    let mut command = under("0027", &["run", "--", "--datadir", rig.data().to_str().unwrap()]);
    command.stderr(File::create(rig.path().join("visor.log")).unwrap());
    let mut visor = rig.spawn(command, 0);
    let pid = visor.wait_status("a node", |status| status["node"]["pid"].as_u64());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Umask:\t0027\n"), "{status}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn init_takes_only_programs_for_this_machine() {
    let rig = Rig::empty();
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = rig.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut foreign = fs::read(super::rig::sim::program()).unwrap()[..4096].to_vec();
    foreign[18] = 0xf3; // RISC-V
    let directory = rig.path().to_str().unwrap().to_owned();
    for (path, code) in [
        (file("empty", b"", 0o755), 65),
        (file("script", b"#!/bin/sh\n", 0o755), 65),
        (file("plain", &fs::read(super::rig::sim::program()).unwrap(), 0o644), 65),
        (file("foreign", &foreign, 0o755), 65),
        (directory, 65),
        (rig.path().join("missing").to_str().unwrap().to_owned(), 74),
    ] {
        let said = rig.fails(code, &["init", &path]);
        assert!(said.lines().count() == 1 && said.contains(&path), "{said}");
        assert!(!rig.of("current").exists() && !rig.of("genesis/bin").exists(), "{path}");
    }
    // A binary that starts finishes the import that was begun.
    let v1 = rig.binary("v1", &[]);
    rig.ok(&["init", v1.to_str().unwrap()]);
    let mut visor = rig.run();
    visor.wait_node();
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_home_may_have_a_long_and_strange_path() {
    // Longer than the address of a socket can be.
    let rig = Rig::new().moved_to(&format!("{}/a home, \"of mine\"/ü%s", "deep/".repeat(25)));
    rig.stage("v2", &[]);
    rig.schedule("v2", 5);
    let socket = rig.path().join("ipc");
    let rig = rig.set("DAEMON_RPC_ADDRESS", socket.to_str().unwrap());
    let mut visor = rig.run_with(&[], &["--mine", "--ipcpath", socket.to_str().unwrap()]);
    visor.wait_outcome("v2", "applied");
    assert!(rig.ok(&["status"]).contains("ü%s"));
    rig.ok(&["stop"]);
    assert_eq!(visor.end(), 0);
}

#[test]
fn no_command_waits_for_a_pipe_where_a_file_belongs() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let _ = fs::remove_file(rig.of("config.yaml"));
    fs::create_dir_all(rig.data()).unwrap();
    fs::create_dir_all(rig.of("plans")).unwrap();
    for (path, command, code) in [
        ("config.yaml", &["config", "check"][..], 78),
        ("config.yaml", &["run"], 78),
        ("state/schedule.lock", &["upgrade", "schedule", "v2", "100"], 74),
        ("state/schedule.json", &["upgrade", "schedule", "v2", "100"], 65),
        ("plans/.lock", &["plan", "remove", "p"], 74),
        ("plans/p.json", &["plan", "show", "p"], 65),
        ("lock", &["run"], 74),
        ("state/node.lock", &["run"], 0),
        ("../data/upgrade-info.json", &["run"], 0),
    ] {
        let path = rig.of(path);
        let aside = path.with_extension("aside");
        let was_there = fs::rename(&path, &aside).is_ok();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        if code == 0 {
            // It begins, and says what is in the way.
            let mut visor = rig.run();
            visor.wait(&["not a regular file"]);
            assert_eq!(visor.stop(), 0, "{}", path.display());
        } else {
            let said = rig.fails(code, command);
            assert!(said.contains("not a regular file"), "{command:?}: {said}");
        }
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&aside, &path).unwrap();
        }
    }
}

#[test]
fn the_man_page_has_every_field_of_the_status() {
    let rig = Rig::new();
    let output = rig.output(&["status", "--json", "--exit-code"]);
    assert_eq!(output.status.code(), Some(3));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["schema"], 1);
    let page = include_str!("../../man/wemixvisor.1");
    let section = page.split(".Sh STATUS AS JSON").nth(1).unwrap().split(".Sh ").next().unwrap();
    let items = section.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let mut named: Vec<&str> = items.flat_map(|names| names.split(" , ")).collect();
    // It is there only while it waits.
    named.retain(|name| *name != "back");
    named.sort_unstable();
    let mut fields: Vec<&String> = status.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, named);
}

#[test]
fn a_link_out_of_the_home_is_not_followed() {
    let rig = Rig::new();
    let elsewhere = rig.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    rig.stage("v2", &[]);
    fs::rename(rig.of("upgrades/v2"), elsewhere.join("v2")).unwrap();
    symlink(elsewhere.join("v2"), rig.of("upgrades/v2")).unwrap();
    symlink(&elsewhere, rig.of("upgrades/v3")).unwrap();
    let binary = rig.binary("v3", &[]);
    let said = rig.fails(65, &["upgrade", "add", "v3", binary.to_str().unwrap()]);
    assert!(said.contains("a link leads out of the home"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1, "nothing was written there");
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2", "a link leads out of the home"]);
    visor.wait_head(8);
    assert_eq!(visor.stop(), 0);
    fs::remove_dir(rig.of("downloads")).unwrap();
    symlink(&elsewhere, rig.of("downloads")).unwrap();
    let said = rig.fails(65, &["upgrade", "fetch", "v4", "--url", "http://127.0.0.1:9/node"]);
    assert!(said.contains("a link leads out of the home"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[test]
fn what_another_user_may_write_is_not_relied_on() {
    let rig = Rig::new();
    let chmod = |path: &str, mode| {
        fs::set_permissions(rig.of(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (path, usual, open, code) in
        [("config.yaml", 0o600, 0o660, 78), ("upgrades", 0o700, 0o777, 78), (".", 0o700, 0o770, 78)]
    {
        chmod(path, open);
        let said = rig.fails(code, &["run"]);
        assert!(said.contains("others than its owner may write it") && said.contains("chmod go-w"), "{said}");
        chmod(path, usual);
    }
    let mut visor = rig.run();
    visor.wait_head(1);
    // A node that runs can be looked at and stopped all the same, and its supervisor keeps what it has read.
    chmod("config.yaml", 0o664);
    visor.signal(Signal::HUP);
    visor.wait(&["event=config_problem", "others than its owner may write it"]);
    visor.wait(&["event=config_not_reloaded"]);
    rig.fails(78, &["config", "check"]);
    rig.ok(&["status"]);
    rig.ok(&["upgrade", "list"]);
    rig.ok(&["stop"]);
    assert_eq!(visor.end(), 0);
}

#[test]
fn a_false_supervisor_does_not_reach_the_terminal() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let rig = Rig::new();
    let listener = std::os::unix::net::UnixListener::bind(rig.of("control.sock")).unwrap();
    let answers = std::thread::spawn(move || {
        for answer in ["done", "refused"] {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{{\"{answer}\":\"\\u001b[2J\\u009b\"}}").unwrap();
        }
    });
    for out in [rig.output(&["resolve", "head"]), rig.output(&["resolve", "head"])] {
        let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert!(text.contains("\\u{1b}[2J\\u{9b}") && !text.contains('\u{1b}'), "{text:?}");
    }
    answers.join().unwrap();
}
