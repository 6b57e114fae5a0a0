//! `doctor` on homes that are well and on homes that are not.

use crate::rig::visor::Rig;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// The result of one check, the worst first.
fn result(report: &Value, check: &str) -> String {
    let checks = report["checks"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    let mut results: Vec<&str> = checks.map(|line| line["result"].as_str().unwrap()).collect();
    results.sort_by_key(|result| ["fail", "warn", "ok"].iter().position(|known| known == result));
    results.first().copied().unwrap_or("none").to_owned()
}

fn examine(rig: &Rig) -> (Option<i32>, Value) {
    let out = rig.output(&["doctor", "--json"]);
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap())
}

#[test]
fn a_home_is_well_until_others_may_write_to_it() {
    let rig = Rig::new();
    let text = rig.ok(&["doctor"]);
    assert!(text.lines().all(|line| ["ok ", "WAR", "   "].contains(&&line[..3])), "{text}");
    rig.hook("v2", "pre-upgrade", "exit 0");
    fs::set_permissions(rig.of("upgrades/v2/pre-upgrade"), Permissions::from_mode(0o777)).unwrap();
    let (code, report) = examine(&rig);
    assert_eq!((code, result(&report, "modes").as_str()), (Some(5), "fail"), "{report:#}");
    let text = String::from_utf8(rig.output(&["doctor"]).stdout).unwrap();
    assert!(text.contains("FAIL  modes") && text.contains("go-w"), "{text}");
    // A start says so as well.
    let mut visor = rig.run();
    visor.wait(&["event=doctor check=modes"]);
    visor.wait(&["event=rpc_connected"]);
    assert_eq!(visor.stop(), 0);
    let empty = Rig::empty();
    let (code, report) = examine(&empty);
    assert_eq!((code, result(&report, "home").as_str()), (Some(5), "fail"), "{report:#}");
}

#[test]
fn a_node_that_runs_is_examined_and_what_else_works_on_its_home() {
    let rig = Rig::new().set("DAEMON_VALIDATOR_MODE", "true");
    let mut visor = rig.run_with(&[], &["--mine", "--syncmode", "snap"]);
    visor.wait(&["event=rpc_connected"]);
    let (_, report) = examine(&rig);
    for (check, is) in [
        ("rpc", "ok"),
        ("address", "ok"),
        ("binaries", "ok"),
        ("keys", "ok"),
        ("interfaces", "ok"),
        ("arguments", "warn"),
        ("quorum", "warn"),
        ("supervisor", "ok"),
    ] {
        assert_eq!(result(&report, check), is, "{check}: {report:#}");
    }
    let mut command = Command::new("/bin/sh");
    command.arg0("cosmovisor").args(["-c", "read line", "sh", "run"]).env("DAEMON_HOME", rig.home());
    let mut rival = command.stdin(Stdio::piped()).spawn().unwrap();
    let (code, report) = examine(&rig);
    assert_eq!((code, result(&report, "supervisor").as_str()), (Some(5), "fail"), "{report:#}");
    drop(rival.stdin.take());
    rival.wait().unwrap();
    assert_eq!(visor.stop(), 0);
}
