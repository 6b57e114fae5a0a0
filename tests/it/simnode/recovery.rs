//! Heads that a kill has taken back, and how the old maximum returns.

use super::network::wait_live;
use crate::rig::sim::{Sim, SimNode, contradictions};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;

fn hash_at(node: &SimNode, height: u64) -> Value {
    node.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))["hash"].clone()
}

/// Four validators that stood at height 25 and were all killed; returns the hash of that block.
fn killed(root: &Path) -> Value {
    let frozen = |index| Sim::validator(root, index, 4).option("rewind", 10).option("freeze", 25);
    let mut nodes: Vec<SimNode> = (0..4).map(|index| frozen(index).start()).collect();
    for node in &nodes {
        node.wait_head(25);
    }
    let hash = hash_at(&nodes[0], 25);
    for node in &mut nodes {
        node.kill();
    }
    hash
}

fn silent(root: &Path, index: usize, catchup: u64) -> Sim {
    Sim::validator(root, index, 4).without("--mine").option("catchup", catchup)
}

#[test]
fn silent_ones_are_equal_and_still_before_the_first_sync_and_back_at_the_maximum_after_it() {
    let dir = tempdir().unwrap();
    let hash = killed(dir.path());
    let mut nodes: Vec<SimNode> = (0..4).map(|index| silent(dir.path(), index, 60_000).start()).collect();
    assert_eq!(nodes.iter().map(SimNode::head).collect::<Vec<_>>(), [15; 4]);
    for node in &mut nodes {
        node.kill();
    }
    let nodes: Vec<SimNode> = (0..4).map(|index| silent(dir.path(), index, 20).start()).collect();
    for node in &nodes {
        node.wait_head(25);
        assert_eq!((node.head(), hash_at(node, 25)), (25, hash.clone()));
    }
    for node in &nodes {
        node.call("miner_start", json!([]));
    }
    nodes[0].wait_head(30);
    assert_eq!(hash_at(&nodes[0], 25), hash);
    let dirs: Vec<_> = (0..4).map(|index| dir.path().join(format!("n{index}"))).collect();
    let dirs: Vec<&Path> = dirs.iter().map(std::path::PathBuf::as_path).collect();
    let mut found = contradictions(&dir.path().join("net"), &dirs);
    // As with the first block of a new network: they do not begin at one moment.
    found.retain(|line| !line.starts_with("stale: PRE-PREPARE height=26 "));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_node_that_signs_too_early_gets_back_what_its_peers_still_have() {
    let dir = tempdir().unwrap();
    let hash = killed(dir.path());
    let early = Sim::validator(dir.path(), 0, 4).option("catchup", 300).start();
    assert_eq!(early.head(), 15);
    let _silent = silent(dir.path(), 1, 60_000).option("drop", 60_000).start();
    early.wait_head(25);
    assert_eq!(hash_at(&early, 25), hash);
}

#[test]
fn an_archive_node_loses_nothing_when_it_is_killed() {
    let dir = tempdir().unwrap();
    let frozen = Sim::new(dir.path().join("data")).option("rewind", 10).option("freeze", 20);
    for archive in [["--gcmode", "archive"], ["--cache.gc", "0"]] {
        let sim = archive.iter().fold(frozen.clone(), |sim, word| sim.arg(word));
        let mut node = sim.start();
        node.wait_head(20);
        node.kill();
        assert_eq!(sim.start().head(), 20);
    }
}

#[test]
fn a_clean_stop_can_lose_the_last_block() {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data")).option("stop-rewind", 1).option("freeze", 20);
    let mut node = sim.start();
    node.wait_head(20);
    node.stop();
    assert_eq!(sim.start().traces.starts()[1]["head"], 19);
}

#[test]
fn one_finalized_block_ends_the_imports_of_a_node_for_ever() {
    let dir = tempdir().unwrap();
    let nodes = super::network::start(dir.path(), 4);
    nodes[3].wait_head(5);
    let block = nodes[3].call("eth_getBlockByNumber", json!(["latest", false]));
    let hash = &block["hash"];
    let state = json!({"headBlockHash": hash, "safeBlockHash": hash, "finalizedBlockHash": hash});
    let reply = nodes[3].call("engine_forkchoiceUpdatedV1", json!([state, null]));
    assert_eq!(reply["payloadStatus"]["status"], "VALID");
    let frozen = nodes[3].head();
    nodes[0].wait_head(frozen + 10);
    assert_eq!(nodes[3].head(), frozen);
    assert_eq!(nodes[3].call("eth_syncing", json!([])), false);
    let mut nodes = nodes;
    nodes[3].stop();
    nodes[3] = Sim::validator(dir.path(), 3, 4).option("catchup", 0).start();
    nodes[0].wait_head(frozen + 20);
    assert_eq!(nodes[3].head(), frozen);
    wait_live(&nodes[0], frozen + 20);
}
