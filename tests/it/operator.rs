//! The scripts of an operator, as they are: one home, one supervisor and the whole life of an upgrade between them.
//!
//! They are in `tests/it/operator`, and use nothing but a shell, jq and the program.

use crate::rig::server::{Content, Server};
use crate::rig::visor::Rig;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use wemixvisor::Digest;

fn path_of(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/operator").join(script)
}

/// Runs a script to its end.
fn run(rig: &Rig, script: &str, args: &[&str]) -> Output {
    let ours = Path::new(env!("CARGO_BIN_EXE_wemixvisor")).parent().unwrap();
    // One that waits for more must not wait for ever.
    let mut command =
        rig.command_of(Path::new("timeout"), &[&["120", path_of(script).to_str().unwrap()], args].concat());
    command.env("PATH", format!("{}:/usr/bin:/bin", ours.display())).output().unwrap()
}

/// Runs a script that has to succeed, and returns its stdout.
#[track_caller]
fn ok(rig: &Rig, script: &str, args: &[&str]) -> String {
    let out = run(rig, script, args);
    assert!(out.status.success(), "{script} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The scripts read JSON with jq.
fn has_jq() -> bool {
    let has = ["/usr/bin/jq", "/bin/jq"].iter().any(|jq| Path::new(jq).exists());
    if !has {
        println!(
            "skipped: there is no jq here, so the scripts of an operator were not tried (apt install jq)"
        );
    }
    has
}

#[test]
fn the_scripts_of_an_operator_do_what_they_say() {
    if !has_jq() {
        return;
    }
    let rig = Rig::with(&[("period", "100")]);
    let content = Content::new(fs::read(rig.binary("v3", &[("period", "100")])).unwrap());
    let digest = Digest::sha256(&content.body).hex();
    let server = Server::start(move |asked, conn| content.serve(asked, conn));
    let rig = rig.set("DAEMON_DOWNLOAD_URLS", &server.url("/{name}"));
    let at = |name: &str| rig.path().join(name);
    let touch = |name: &str| ["touch".to_owned(), at(name).to_str().unwrap().to_owned()];
    let act = |script: &str, first: &[&str], name: &str| {
        let touch = touch(name);
        let words: Vec<&str> = first.iter().copied().chain(touch.iter().map(String::as_str)).collect();
        let out = run(&rig, script, &words);
        (out.status.code(), at(name).exists())
    };

    let mut visor = rig.run();
    visor.wait_head(5);
    let line = ok(&rig, "status-line", &[]);
    let cells: Vec<&str> = line.trim_end().split('\t').collect();
    assert_eq!((cells[0], &cells[2..]), ("running", &["-", "-"][..]), "{line}");
    assert_eq!(act("gate-deploy", &[], "deployed"), (Some(0), true));
    assert_eq!(act("alert-when-halted", &[], "halted"), (Some(0), false));

    // A plan that is distributed as a file, again and again, and a binary that a cron job fetches.
    let upgrade = json!({"name": "v3", "height": 1_000_000, "sha256": digest});
    let plan = json!({"version": "1.0", "name": "p", "upgrades": [upgrade]});
    fs::write(at("plan.json"), plan.to_string()).unwrap();
    let file = at("plan.json").to_str().unwrap().to_owned();
    run(&rig, "apply-plan", &[&file]);
    assert_eq!(ok(&rig, "apply-plan", &[&file]), "plan p is in force already\n");
    ok(&rig, "cron-fetch", &[]);
    assert!(rig.of("upgrades/v3/manifest.json").exists());
    ok(&rig, "cron-fetch", &[]);
    assert_eq!(server.count("/v3"), 1);

    // Rehearsed, planned, waited for, and quiet meanwhile.
    rig.stage("v2", &[("period", "100")]);
    let silence = path_of("silence-alerts");
    let hook = format!("{} touch {}", silence.display(), at("alert-in-upgrade").display());
    rig.hook("v2", "pre-upgrade", &hook);
    let height = visor.status()["head"]["height"].as_u64().unwrap() + 25;
    ok(&rig, "rehearse-and-schedule", &["v2", &height.to_string(), "5"]);
    assert_eq!(act("wait-and-act", &["v2"], "acted"), (Some(0), true));
    assert_eq!(act("silence-alerts", &[], "alert"), (Some(0), true));
    if include_str!("../../src/home/layout.rs").contains("\"upgrading\"") {
        assert!(!at("alert-in-upgrade").exists(), "an alert in the middle of an upgrade");
    } else {
        println!("skipped: there is no state/upgrading yet");
    }
    assert_eq!(act("wait-and-act", &["nothing"], "not-acted"), (Some(1), false));

    // Back, and off the host.
    assert_eq!(ok(&rig, "roll-back", &[]), "genesis runs\n");
    ok(&rig, "drain-host", &[]);
    assert_eq!(visor.end(), 0);
    assert_eq!(ok(&rig, "alert-when-halted", &["echo", "ALERT"]), "ALERT no supervisor runs\n");
}

#[test]
fn the_scripts_of_an_operator_report_a_halt() {
    if !has_jq() {
        return;
    }
    let rig = Rig::with(&[("freeze", "10")]).set("DAEMON_MAX_RESTARTS", "1");
    rig.stage("v2", &[("end", "1")]);
    rig.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", "11"]);
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    let said = ok(&rig, "alert-when-halted", &["echo", "ALERT"]);
    assert!(said.starts_with("ALERT ") && !said.contains("no supervisor"), "{said}");
    assert_eq!(run(&rig, "wait-and-act", &["v2", "true"]).status.code(), Some(79));

    // A node that fails again and again is given up, and started again with the next supervisor.
    let rig = Rig::with(&[("end", "1")]).set("DAEMON_MAX_RESTARTS", "1");
    let mut visor = rig.run();
    assert_eq!(visor.end(), 79);
    rig.fails(79, &["status", "--exit-code"]);
    let said = ok(&rig, "alert-when-halted", &["echo", "ALERT"]);
    assert!(
        said.starts_with("ALERT the node failed 2 times in a row") && said.contains("wemixvisor run"),
        "{said}"
    );
    let mut again = rig.run();
    assert_eq!(again.end(), 79);
    assert_eq!(rig.traces().starts().len(), 4);
}
