//! Learning the height, from nodes that answer and from those that do not, or not the truth.

use super::rig::door::{Door, header};
use super::rig::sim::until;
use super::rig::visor::Rig;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The options by which a node answers over HTTP only, on a port of its own choice.
const HTTP: [&str; 5] = ["--mine", "--ipcdisable", "--http", "--http.port", "0"];

#[test]
fn over_http_the_height_is_polled() {
    let rig = Rig::with(&[("freeze", "10")]);
    let door = Door::to_port_in(rig.data().join("http.port"));
    // Whoever comes first in the list and does not answer is passed over.
    let addresses = format!("{}/none.ipc,127.0.0.1:1,http://{}", rig.path().display(), door.address());
    let rig = rig.set("DAEMON_RPC_ADDRESS", &addresses);
    rig.stage("v2", &[]);
    rig.schedule("v2", 10);
    let mut visor = rig.run_with(&[], &HTTP);
    let line = visor.wait(&["event=rpc_connected"]);
    assert!(line.contains(&format!("endpoint=http://{}", door.address())), "{line}");
    visor.wait_outcome("v2", "applied");
    let starts = rig.traces().starts();
    assert_eq!((starts.len(), &starts[1]["head"]), (2, &json!(10)), "{starts:?}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_validator_that_cannot_be_ordered_to_seal_is_refused() {
    let rig = Rig::new().set("DAEMON_RPC_ADDRESS", "http://127.0.0.1:1").set("VALIDATOR_MODE", "true");
    let mut check = vec!["config", "check", "--"];
    check.extend(HTTP);
    let mut run = vec!["run", "--"];
    run.extend(HTTP);
    for args in [&check, &run] {
        let said = rig.fails(78, args);
        let refusal = said.lines().find(|line| line.contains("sign_after_unclean")).expect(&said);
        assert!(refusal.contains("leave --ipcdisable out") && refusal.contains("set it to now"), "{said}");
    }
    assert_eq!(rig.traces().starts().len(), 0);
    rig.ok(&["config", "check", "--", "--mine"]);
    let rig = rig.set("DAEMON_SIGN_AFTER_UNCLEAN", "now");
    rig.ok(&check);
    let mut visor = rig.run_with(&[], &HTTP);
    until("the node", || (rig.traces().starts().len() == 1).then_some(()));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_socket_is_used_where_only_http_is_configured() {
    let rig = Rig::with(&[("freeze", "10")]);
    let door = Door::to_port_in(rig.data().join("http.port"));
    let rig = rig.set("DAEMON_RPC_ADDRESS", &door.address());
    let mut visor = rig.run_with(&[], &["--mine", "--http", "--http.port", "0"]);
    let line = visor.wait(&["event=rpc_connected"]);
    assert!(line.contains(&format!("endpoint={}", rig.ipc().display())), "{line}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn answers_that_are_none_are_never_a_height() {
    std::thread::scope(|scope| {
        for how in ["hang", "garbage", "huge", "wrong-id", "wrong-shape", "close"] {
            scope.spawn(move || {
                let rig = Rig::new();
                let door = Door::to_port_in(rig.data().join("http.port"));
                let rig = rig.set("DAEMON_RPC_ADDRESS", &door.address());
                rig.stage("v2", &[]);
                rig.schedule("v2", 1);
                rig.script(&json!({"rpc": how}));
                let mut visor = rig.run_with(&[], &HTTP);
                visor.wait(&["event=upgrade_ready"]);
                let status =
                    visor.wait_status("its silence", |s| s["rpc_trouble"].is_string().then(|| s.clone()));
                assert_eq!((&status["state"], &status["head"]), (&json!("running"), &json!(null)), "{how}");
                assert_eq!(rig.traces().signals().len(), 0, "{how}");
                rig.script(&json!({}));
                visor.wait_outcome("v2", "applied");
                assert_eq!(visor.stop(), 0);
            });
        }
    });
}

#[test]
fn a_node_without_rpc_is_no_error() {
    let rig = Rig::with(&[("rpc", "off")]);
    let mut visor = rig.run();
    visor.wait_status("its silence", |s| s["rpc_trouble"].as_str()?.contains("*.ipc").then_some(()));
    assert!(rig.ok(&["status"]).contains("rpc         the node reports no head: there is no socket"));
    assert_eq!((visor.status()["state"].clone(), rig.traces().starts().len()), (json!("running"), 1));
    assert_eq!(visor.count(&["ERROR"]), 0);
    assert_eq!(visor.stop(), 0);
}

/// Runs a supervisor that hears these heights, the last one for ever, with an upgrade planned at 1000.
fn hears(heights: &'static [u64]) -> (Rig, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let door = Door::answering(move |n| {
        count.fetch_add(1, Ordering::SeqCst);
        header(heights[n.min(heights.len() - 1)])
    });
    let rig = Rig::new().set("DAEMON_RPC_ADDRESS", &door.address()).set("DAEMON_POLL_INTERVAL", "100ms");
    rig.stage("v2", &[]);
    rig.schedule("v2", 1000);
    let mut visor = rig.run_with(&[], &["--mine", "--ipcdisable"]);
    visor.wait(&["event=upgrade_ready"]);
    let seen = asked.load(Ordering::SeqCst);
    until("it to be asked again and again", || {
        (asked.load(Ordering::SeqCst) > seen + heights.len() + 3).then_some(())
    });
    let backwards = visor.count(&["event=head_went_back"]);
    visor.signal(rustix::process::Signal::TERM);
    assert_eq!(visor.end(), 0);
    drop(visor);
    (rig, backwards)
}

#[test]
fn a_height_that_is_told_once_is_not_believed() {
    let (rig, backwards) = hears(&[5, 1_000_000, 6]);
    assert_eq!((rig.traces().starts().len(), backwards), (1, 1));
    let (rig, backwards) = hears(&[1_000_000, 5, 1_000_000, 6, u64::MAX, 7]);
    assert_eq!((rig.traces().starts().len(), backwards), (1, 3));
}

#[test]
fn a_latest_block_that_is_false_at_the_first_contact_begins_no_upgrade() {
    let rig = Rig::with(&[("rpc-lie", "lie@6")]);
    rig.stage("v2", &[]);
    rig.schedule("v2", 100_000);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_ready"]);
    let counts = |status: &Value| status["head_record"]["height"].as_u64().filter(|height| *height >= 20);
    let record = visor.wait_status("a head that counts", counts);
    assert!(record < 100_000, "{record}");
    assert_eq!(visor.stop(), 0);
    assert_eq!(rig.versions(), ["v1"]);
}

#[test]
fn a_head_that_goes_back_counts_where_it_is() {
    let rig = Rig::with(&[("backwards", "8@20")]);
    rig.stage("v2", &[]);
    rig.schedule("v2", 30);
    let mut visor = rig.run();
    visor.wait(&["event=head_went_back"]);
    visor.wait_outcome("v2", "applied");
    let starts = rig.traces().starts();
    assert!(starts.len() == 2 && starts[1]["head"].as_u64() >= Some(30), "{starts:?}");
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_node_that_lies_about_its_number_is_asked_for_its_block() {
    let rig = Rig::with(&[("rpc", "lie")]);
    let door = Door::to_port_in(rig.data().join("http.port"));
    let rig = rig.set("DAEMON_RPC_ADDRESS", &door.address()).set("DAEMON_POLL_INTERVAL", "100ms");
    rig.stage("v2", &[]);
    rig.schedule("v2", 1_000_000);
    let mut visor = rig.run_with(&[], &HTTP);
    visor.wait(&["event=upgrade_ready"]);
    visor.wait_head(20);
    let head: Value = visor.status()["head"]["height"].clone();
    assert!(head.as_u64() < Some(100_000), "{head}");
    assert_eq!(rig.traces().signals().len(), 0);
    assert_eq!(visor.stop(), 0);
}
