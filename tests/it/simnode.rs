//! The simulated node against what was recorded of a real one, and its misbehaviours against their promise.

use crate::rig::sim::{Sim, output, program, stamp, until};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use tempfile::tempdir;

/// The unit tests of the simulated node run here: cargo builds examples without running their tests.
#[path = "../sim/main.rs"]
#[allow(dead_code)]
mod parts;

mod answers;
mod dials;
mod interfaces;
mod network;
mod recovery;
mod shadow;
mod silence;
mod votes;

/// Puts the head of a node that is down back to `height`, as a kill does; the blocks above it stay in the database.
fn rewind_to(data: &Path, height: u64) {
    std::fs::write(data.join("simnode/chaindata/HEAD"), format!("{height}\n")).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn version_is_printed_as_recorded() {
    let done = output(program(), &["version"]);
    assert_eq!(done.status.code(), Some(0));
    let recorded = "Gstable\nVersion: 1.0.1-stable\nArchitecture: amd64\nGo Version: go1.26.6\nOperating System: linux\nGOPATH=\n";
    let expected = recorded.replace("Gstable", "Simnode").replace("1.0.1", "1.0.0");
    assert!(text(&done.stdout).starts_with(&expected), "{}", text(&done.stdout));
}

#[test]
fn wrong_command_lines_are_refused_as_recorded() {
    let done = output(program(), &["--no-such-flag"]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(text(&done.stderr), "flag provided but not defined: -no-such-flag\n");
    let done = output(program(), &["--config", "n5/none.toml"]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(text(&done.stderr), "Fatal: open n5/none.toml: no such file or directory\n");
}

#[test]
fn a_stamped_copy_is_another_program() {
    let dir = tempdir().unwrap();
    let v2 = stamp(&dir.path().join("v2"), &[("version", "v2.0.0"), ("name", "Gwemix")]);
    assert!(text(&output(&v2, &["version"]).stdout).starts_with("Gwemix\nVersion: 2.0.0-stable\n"));
    // A stamp replaces the stamp of the program that writes it.
    let v3 = dir.path().join("v3");
    let done = output(&v2, &["--sim.stamp", v3.to_str().unwrap(), "version=v3.0.0"]);
    assert!(done.status.success());
    assert!(text(&output(&v3, &["version"]).stdout).starts_with("Simnode\nVersion: 3.0.0-stable\n"));
    let node = Sim::new(dir.path().join("data")).program(&v2).start();
    let client = node.call("web3_clientVersion", json!([]));
    assert_eq!(client, "Gwemix/v2.0.0-stable/linux-amd64/go1.26.6");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_as_recorded() {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data"));
    let first = sim.start();
    let mut second = sim.spawn();
    assert_eq!(second.wait().code(), Some(1));
    let message = "Fatal: Failed to create the protocol stack: datadir already used by another process\n";
    assert!(second.log().contains(message), "{}", second.log());
    assert_eq!(first.traces.overlaps().len(), 1);
    assert_eq!(first.traces.starts().len(), 1);
}

#[test]
fn a_stop_keeps_the_chain_and_a_start_goes_on_with_it() {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data"));
    let mut node = sim.start();
    node.wait_head(5);
    let before = node.call("eth_getBlockByNumber", json!(["0x5", false]));
    assert_eq!(node.stop().code(), Some(0));
    assert!(!node.ipc.exists());
    let node = sim.start();
    node.wait_head(7);
    assert_eq!(node.call("eth_getBlockByNumber", json!(["0x5", false])), before);
    let (starts, signals) = (node.traces.starts(), node.traces.signals());
    assert_eq!((starts.len(), signals.len()), (2, 1));
    assert_eq!(signals[0]["signal"], "SIGTERM");
    assert!(starts[1]["head"].as_u64() >= Some(5));
    assert_eq!((&starts[1]["pid"], &starts[1]["args"][2]), (&json!(node.pid()), &json!("--mine")));
}

#[test]
fn rpc_closes_first_and_the_lock_is_held_until_the_end() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Sim::new(&data).option("stop", 200).start();
    let lock = std::fs::File::open(data.join("simnode/LOCK")).unwrap();
    node.signal(Signal::TERM);
    until("the socket to be gone", || (!node.ipc.exists()).then_some(()));
    assert!(lock.try_lock().is_err());
    assert_eq!(node.wait().code(), Some(0));
    lock.try_lock().unwrap();
}

#[test]
fn too_many_sigterms_are_a_panic() {
    let dir = tempdir().unwrap();
    let mut node = Sim::new(dir.path().join("data")).option("stop", 20_000).option("term-limit", 1).start();
    node.signal(Signal::TERM);
    until("the first signal to be seen", || (node.traces.signals().len() == 1).then_some(()));
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(2));
    assert_eq!(node.traces.signals().len(), 2);
}

#[test]
fn a_node_can_ignore_sigterm_and_dies_of_sighup() {
    let dir = tempdir().unwrap();
    let mut node = Sim::new(dir.path().join("data")).option("stop", "never").start();
    node.signal(Signal::TERM);
    until("the signal to be seen", || (node.traces.signals().len() == 1).then_some(()));
    node.wait_head(node.head() + 2);
    node.signal(Signal::HUP);
    assert_eq!(node.wait().signal(), Some(1));
}

#[test]
fn a_killed_node_leaves_its_socket_and_loses_the_blocks_it_lags_behind() {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data")).option("rewind", 6);
    // Frozen, since it would go on between the answer and its death.
    let mut node = sim.clone().option("freeze", 20).start();
    let head = node.wait_head(20);
    let old = node.call("eth_getBlockByNumber", json!(["0x14", false]));
    node.kill();
    assert!(node.ipc.exists());
    let node = sim.clone().option("period", 60_000).start();
    let back = node.head();
    assert!(back <= head - 5 && back >= 10, "{back} after {head}");
    drop(node);
    // Alone it decides again what was final before, and differently.
    let node = sim.start();
    node.wait_head(20);
    assert_ne!(node.call("eth_getBlockByNumber", json!(["0x14", false]))["hash"], old["hash"]);
}

#[test]
fn newer_data_are_refused() {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data"));
    assert_eq!(sim.clone().option("db", 9).start().stop().code(), Some(0));
    let mut old = sim.spawn();
    assert_eq!(old.wait().code(), Some(1));
    assert!(old.log().contains("database version is v9, Simnode v1.0.0 only supports v8"), "{}", old.log());
}

#[test]
fn a_node_ends_as_it_was_told() {
    let dir = tempdir().unwrap();
    let run = |name: &str, how: &str| Sim::new(dir.path().join(name)).option("end", how).spawn();
    assert_eq!(run("code", "3").wait().code(), Some(3));
    assert_eq!(run("height", "0@4").wait().code(), Some(0));
    assert_eq!(run("time", "7+30").wait().code(), Some(7));
    assert_eq!(run("crash", "SIGSEGV@3").wait().signal(), Some(11));
    assert_eq!(run("upgrade", "upgrade:v2@6").wait().code(), Some(0));
    let info = std::fs::read_to_string(dir.path().join("upgrade/upgrade-info.json")).unwrap();
    assert_eq!(info, "{\"name\":\"v2\",\"height\":6,\"info\":\"\"}\n");
    // The cause of a halted chain is still there at the next start.
    assert_eq!(run("height", "5@4").wait().code(), Some(5));
}

#[test]
fn a_node_does_not_outlive_its_time_nor_its_test() {
    let dir = tempdir().unwrap();
    let mut node = Sim::new(dir.path().join("time")).option("lifetime", 50).spawn();
    assert_eq!(node.wait().signal(), Some(9));
    let mut node = Sim::new(dir.path().join("tether")).start();
    node.untie();
    assert_eq!(node.wait().signal(), Some(9));
}

#[test]
fn a_smoke_test_can_fail() {
    let dir = tempdir().unwrap();
    let broken = stamp(&dir.path().join("broken"), &[("smoke", "3")]);
    assert_eq!(output(&broken, &["version"]).status.code(), Some(3));
}

#[test]
fn a_script_changes_a_running_node() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).start();
    node.traces.script(&json!({"freeze": 1}));
    let frozen = until("the head to stand still", || {
        let head = node.head();
        std::thread::sleep(std::time::Duration::from_millis(100));
        (node.head() == head).then_some(head)
    });
    node.traces.script(&json!({}));
    node.wait_head(frozen + 2);
}

#[test]
fn rpc_can_be_late_or_missing() {
    let dir = tempdir().unwrap();
    let mut late = Sim::new(dir.path().join("late")).option("rpc-delay", 150).spawn();
    until("the start", || late.traces.starts().pop());
    assert!(!late.ipc.exists());
    late.wait_rpc();
    let mut off = Sim::new(dir.path().join("off")).option("rpc", "off").option("end", "0@9").spawn();
    assert_eq!(off.wait().code(), Some(0));
    assert!(!off.ipc.exists() && off.traces.starts().len() == 1);
}

#[test]
fn a_grandchild_outlives_the_node_and_may_keep_its_lock() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Sim::new(&data).option("grandchild", 60_000).option("grandchild-lock", true).start();
    let pid: i32 = std::fs::read_to_string(data.join("sim.grandchild")).unwrap().trim().parse().unwrap();
    node.stop();
    let lock = std::fs::File::open(data.join("simnode/LOCK")).unwrap();
    let alive = Path::new("/proc").join(pid.to_string()).exists();
    let held = lock.try_lock().is_err();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert!(alive && held);
    until("the lock to be free", || lock.try_lock().ok());
}

#[test]
fn a_flood_does_not_stop_the_node() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).option("flood", 1 << 20).start();
    node.wait_head(3);
    until("both floods", || (node.log().len() >= 2 << 20).then_some(()));
}

#[test]
fn a_head_can_go_backwards() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).option("backwards", "6@10").start();
    let blocks = crate::rig::sim::Heads::subscribe(&node.ipc);
    let heights: Vec<u64> = blocks.take(14).collect();
    assert!(heights.windows(2).any(|pair| pair[1] < pair[0]), "{heights:?}");
}

#[test]
fn a_busy_port_ends_the_node_or_hangs_it() {
    let dir = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let sim = Sim::new(dir.path().join("data")).arg("--http").arg("--http.port").arg(&port.to_string());
    let mut node = sim.spawn();
    assert_eq!(node.wait().code(), Some(1));
    let message = format!(
        "Fatal: Error starting protocol stack: listen tcp 127.0.0.1:{port}: bind: address already in use\n"
    );
    assert!(node.log().contains(&message), "{}", node.log());
    let mut node = sim.option("port-hang", true).arg("--verbosity").arg("3").spawn();
    until("the socket to be closed", || node.log().contains("IPC endpoint closed").then_some(()));
    assert!(!node.ipc.exists());
    assert_eq!(node.stop().signal(), Some(15));
}
