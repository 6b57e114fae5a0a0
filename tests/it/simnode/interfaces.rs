//! The interface of v1.1, the sync flags as the environment gives them, and answers that lie.

use super::network::start;
use crate::rig::sim::{Sim, number, output, program, until};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::tempdir;

#[test]
fn v1_1_answers_otherwise_in_a_few_places() {
    let dir = tempdir().unwrap();
    let transitions = r#"[{"block":100,"epochLength":5}]"#;
    let node = Sim::new(dir.path().join("data"))
        .option("version", "v1.1.0")
        .option("transitions", transitions)
        .option("freeze", 20)
        .start();
    node.wait_head(20);
    let info = node.call("admin_nodeInfo", json!([]));
    let config = &info["protocols"]["istanbul"]["config"];
    assert_eq!(config["transitions"], serde_json::from_str::<Value>(transitions).unwrap());
    assert_eq!(config["anzeon"]["wbft"]["epochLength"], 10);
    let status = node.call("istanbul_status", json!(["0x5", "latest"]));
    assert_eq!(status["blockRange"], json!({"startBlock": 5, "endBlock": 20, "totalBlocks": 16}));
    assert_eq!(status["roundStats"].get("totalRounds"), None);
    for tag in ["finalized", "safe"] {
        assert_eq!(node.call("eth_getBlockByNumber", json!([tag, false]))["number"], "0x12");
    }
    let refused = crate::rig::sim::try_call(&node.ipc, "istanbul_status", &json!(["0x1", "0x401"]));
    assert_eq!(refused, None);
}

#[test]
fn v1_0_answers_as_recorded() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).option("freeze", 20).start();
    node.wait_head(20);
    let info = node.call("admin_nodeInfo", json!([]));
    assert_eq!(info["protocols"]["istanbul"]["config"].get("transitions"), None);
    assert_eq!(node.call("eth_getBlockByNumber", json!(["finalized", false]))["number"], "0x14");
    assert_eq!(crate::rig::sim::try_call(&node.ipc, "istanbul_status", &json!(["0x5", "latest"])), None);
}

#[test]
fn peers_are_named_by_their_addresses() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 2);
    let peer = until("the peer", || nodes[0].call("admin_peers", json!([])).get(0).cloned());
    let address = nodes[1].call("istanbul_nodeAddress", json!([]));
    assert_eq!(Some(&peer["id"].as_str().unwrap()[24..]), address.as_str().unwrap().strip_prefix("0x"));
    assert_eq!(peer["enode"], nodes[1].call("admin_nodeInfo", json!([]))["enode"]);
    assert_eq!(crate::rig::sim::try_call(&nodes[0].ipc, "admin_removePeer", &json!(["enode://1"])), None);
}

#[test]
fn the_sync_durations_come_from_the_environment_too() {
    let with = |name: &str, value: &str| {
        Command::new(program()).arg("version").env(name, value).output().unwrap().status.code()
    };
    assert_eq!(with("GETH_SYNC_FORCECYCLE", "1ms"), Some(0));
    assert_eq!(with("GWEMIX_SYNC_TDINTERVAL", "soon"), Some(1));
    assert_eq!(output(program(), &["--sync.forcecycle", "soon"]).status.code(), Some(1));
}

#[test]
fn a_height_is_made_up_as_often_as_asked() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).option("rpc-lie", "lie@2").option("freeze", 20).spawn();
    let head = || {
        let reply = crate::rig::sim::try_call(&node.ipc, "eth_blockNumber", &json!([]));
        number(&until("an answer", || reply.clone()))
    };
    until("the socket", || node.ipc.exists().then_some(()));
    assert_eq!([head(), head()], [1_000_000_000; 2]);
    assert!(head() <= 20);
    // A new lie is counted anew.
    node.traces.script(&json!({"rpc-lie": "lie@1"}));
    let latest = || node.call("eth_getBlockByNumber", json!(["latest", false]))["number"].clone();
    until("the lie", || (latest() == "0x3b9aca00").then_some(()));
    assert!(number(&latest()) <= 20);
}

#[test]
fn another_chain_is_made_up() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).start();
    let genesis = || node.call("eth_getBlockByNumber", json!(["0x0", false]))["hash"].clone();
    let (chain, first) = (node.call("eth_chainId", json!([])), genesis());
    node.traces.script(&json!({"rpc-lie": "chain"}));
    until("the lie", || (node.call("eth_chainId", json!([])) != chain).then_some(()));
    assert_ne!(genesis(), first);
    let info = node.call("admin_nodeInfo", json!([]));
    assert_eq!(info["protocols"]["eth"]["genesis"], genesis());
    assert_eq!(info["protocols"]["eth"]["network"], 8384);
    node.traces.script(&json!({"rpc-lie": "none"}));
    until("the truth", || (node.call("eth_chainId", json!([])) == chain).then_some(()));
    assert_eq!(genesis(), first);
}
