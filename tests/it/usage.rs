//! The command line as a user meets it: every mistake has its exit code and one line that helps.

use super::rig::visor::Rig;
use std::fs::{self, File};
use std::process::Stdio;

/// Runs a command that has to fail with one line on stderr and nothing on stdout.
#[track_caller]
fn fails(rig: &Rig, code: i32, args: &[&str], parts: &[&str]) {
    let out = rig.output(args);
    let (stdout, stderr) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{args:?}: {stderr}");
    assert!(stderr.starts_with("wemixvisor: "), "{args:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: {part}: {stderr}");
    }
}

#[test]
fn every_mistake_has_its_code_and_one_line() {
    let rig = Rig::new();
    let text = rig.path().join("text");
    fs::write(&text, "no program").unwrap();
    let text = text.to_str().unwrap();
    fs::create_dir_all(rig.path().join("new/wemixvisor")).unwrap();
    fs::write(rig.path().join("new/wemixvisor/config.yaml"), "").unwrap();
    for (code, args, parts) in [
        (2, &["frobnicate"][..], &["frobnicate", "wemixvisor help"][..]),
        (2, &["statsu"], &["did you mean `wemixvisor status`?"]),
        (2, &["upgrade", "schedule", "../../x", "5"], &["../../x", "is not a name"]),
        (2, &["upgrade", "schedule", "v2", "0"], &["is not a height"]),
        (2, &["upgrade", "schedule", "v2", "0x10"], &["is not a height"]),
        (2, &["upgrade", "schedule", "v2", "18446744073709551616"], &["is not a height"]),
        (
            2,
            &["upgrade", "schedule", "v2", "9", "--fork-height", "9"],
            &["--fork-height: 9 is not above 9, the height of the upgrade"],
        ),
        (2, &["upgrade", "schedule", "v2", "9", "--sha256", "12"], &["--sha256"]),
        (2, &["upgrade", "add", "../x", text], &["../x", "is not a name"]),
        (2, &["upgrade", "cancel", "a/b"], &["a/b", "is not a name"]),
        (2, &["upgrade", "now", ".."], &["is not a name"]),
        (2, &["upgrade", "list", "--jsno"], &["--jsno"]),
        (2, &["run", "--daemon-name"], &["needs a value"]),
        (2, &["init", "--import", text], &["--import takes no BINARY"]),
        (3, &["stop"], &["no supervisor is running"]),
        (4, &["upgrade", "cancel", "v9"], &["no upgrade v9 is planned", "upgrade list"]),
        (5, &["resolve", "retry"], &["nothing to resolve"]),
        (5, &["resolve", "rollback"], &["nothing to resolve"]),
        (65, &["upgrade", "add", "v2", text], &[text]),
        (74, &["upgrade", "add", "v2", "missing"], &["missing"]),
        (78, &["status", "--daemon-shutdown-grace", "soon"], &["--daemon-shutdown-grace", "soon"]),
        (78, &["status", "--home", "nowhere"], &["no home is laid out here", "nowhere"]),
        (78, &["run", "--home", "new"], &["no home is laid out here", "new", "wemixvisor init"]),
        (78, &["status", "--config", "none.yaml"], &["none.yaml"]),
        (78, &["run", "--daemon-data-backup-dir", "home/data/backups"], &["lies in the data directory"]),
        (78, &["run", "--validator-mode", "--unsafe-skip-checksum"], &["--unsafe-skip-checksum"]),
    ] {
        fails(&rig, code, args, parts);
    }
    assert_eq!(rig.traces().starts().len(), 0);
    assert!(!rig.path().join("x").exists() && !rig.home().join("x").exists());
}

#[test]
fn every_problem_of_a_configuration_is_named_with_its_line() {
    let rig = Rig::new();
    let config = rig.of("config.yaml");
    fs::write(&config, "daemon_name: simnode\ndaemon_shutdwon_grace: 5m\nlog_level: loud\n").unwrap();
    let said = rig.fails(78, &["config", "check"]);
    for part in ["config.yaml:2: ", "did you mean daemon_shutdown_grace?", "config.yaml:3: ", "loud"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // No command works on half a configuration, and nothing is started.
    rig.fails(78, &["run"]);
    rig.fails(78, &["status"]);
    fs::write(&config, "daemon_name: simnode\ndaemon_shutdown_grace: 5m\n").unwrap();
    rig.ok(&["config", "check"]);
    let shown: serde_json::Value = serde_json::from_str(&rig.ok(&["config", "show", "--json"])).unwrap();
    assert!(shown.to_string().contains("config.yaml:2"), "{shown}");
}

#[test]
fn output_that_cannot_be_written_changes_no_exit_code() {
    let rig = Rig::new();
    for (code, args) in
        [(3, &["stop"][..]), (2, &["frobnicate"]), (5, &["resolve", "retry"]), (0, &["version"])]
    {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let to_full = rig.command(args).stdout(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(to_full.code(), Some(code), "{args:?} > /dev/full");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = rig.command(args);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(command.status().unwrap().code(), Some(code), "{args:?} | true");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(rig.command(&["version"]).stdout(full).output().unwrap().status.code(), Some(74));
    // Not even the end of the supervisor depends on who listens.
    let mut visor = rig.run();
    visor.wait_node();
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(rig.command(&["stop"]).stderr(full).output().unwrap().stdout, b"stopped\n");
    assert_eq!(visor.end(), 0);
}

#[test]
fn what_others_have_written_does_not_steer_the_terminal() {
    let rig = Rig::new();
    let said = rig.fails(74, &["upgrade", "add", "v2", "\x1b[2Jnone\r"]);
    assert!(said.contains("[2Jnone") && !said.contains(['\x1b', '\r']), "{said:?}");
    let said = rig.moved_to("\x1b[2J").output(&["status"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("[2J") && !said.contains('\x1b'), "{said:?}");
}

#[test]
fn help_and_version_need_no_home() {
    let rig = Rig::empty();
    for args in [&["help"][..], &["--help"], &[], &["upgrade", "schedule", "--help"], &["help", "upgrade"]] {
        assert!(rig.ok(args).contains("upgrade schedule NAME HEIGHT"), "{args:?}");
    }
    assert!(rig.ok(&["help"]).contains("--daemon-shutdown-grace"));
    assert_eq!(rig.ok(&["stop", "--help"]).matches("wemixvisor stop ").count(), 1);
    assert!(!rig.ok(&["stop", "--help"]).contains("upgrade"));
    assert_eq!(rig.ok(&["version"]), format!("wemixvisor {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(rig.ok(&["--version"]), rig.ok(&["version"]));
}
