//! Validators with their engine off: when they lose their peers, and which blocks reach them.

use super::network::{peers, start};
use crate::rig::sim::{Sim, SimNode, until};
use serde_json::json;
use std::path::Path;
use tempfile::tempdir;

/// A silent validator that loses its peers 40 ms after a message and does not dial again.
fn silent(root: &Path, index: usize) -> Sim {
    Sim::validator(root, index, 4).without("--mine").option("drop", 40).option("redial", 60_000)
}

fn fast(sim: Sim) -> Sim {
    sim.arg("--sync.forcecycle").arg("1ms").arg("--sync.tdinterval").arg("100ms")
}

#[test]
fn a_silent_start_behind_catches_up_once_if_its_first_sync_is_fast() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    let left = nodes[3].wait_head(5);
    nodes[3].stop();
    let reached = nodes[0].wait_head(left + 10);
    let back = fast(silent(dir.path(), 3)).start();
    back.wait_head(reached);
    until("its peers to go", || (peers(&back) == 0).then_some(()));
    let frozen = back.head();
    nodes[0].wait_head(frozen + 10);
    assert_eq!((back.head(), peers(&back)), (frozen, 0));
    // The others have lost it as well.
    assert_eq!(peers(&nodes[0]), 2);
}

#[test]
fn a_silent_start_behind_loses_its_peers_before_a_default_sync() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    nodes[3].wait_head(5);
    nodes[3].stop();
    let back = silent(dir.path(), 3).start();
    let frozen = back.head();
    until("its peers to go", || (peers(&back) == 0).then_some(()));
    nodes[0].wait_head(frozen + 20);
    assert_eq!(back.head(), frozen);
    // The engine alone brings no peers back.
    back.call("miner_start", json!([]));
    nodes[0].wait_head(frozen + 30);
    assert_eq!((back.head(), peers(&back)), (frozen, 0));
}

#[test]
fn miner_stop_may_return_before_the_engine_has_stopped() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).option("engine-stop", 2000).start();
    node.call("miner_stop", json!([]));
    let mining = || node.call("eth_mining", json!([]));
    assert_eq!(mining(), true);
    until("the engine's end", || (mining() == false).then_some(()));
    // A start in between takes the stop back.
    node.call("miner_start", json!([]));
    node.call("miner_stop", json!([]));
    node.call("miner_start", json!([]));
    node.wait_head(node.head() + 2);
    assert_eq!(mining(), true);
}

#[test]
fn among_silent_ones_the_peers_stay_until_one_begins_to_sign() {
    let dir = tempdir().unwrap();
    let nodes: Vec<SimNode> = (0..3).map(|index| silent(dir.path(), index).start()).collect();
    until("all peers", || nodes.iter().all(|node| peers(node) == 2).then_some(()));
    assert!((0..20).all(|_| nodes.iter().all(|node| peers(node) == 2)));
    // One of four decides nothing, but sends a round change again and again.
    nodes[0].call("miner_start", json!([]));
    // The silent ones drop it, and keep each other.
    let left = || nodes.iter().map(peers).collect::<Vec<_>>();
    until("the silent ones to drop it", || (left() == [0, 1, 1]).then_some(()));
    assert_eq!(nodes[0].head(), 0);
}

/// Takes the last block out of the database of a node that is down.
fn lose_last_block(data: &Path) {
    let path = data.join("simnode/chaindata/blocks.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: String = text.split_inclusive('\n').take(text.lines().count() - 1).collect();
    std::fs::write(path, kept).unwrap();
}

#[test]
fn a_node_one_block_below_a_silent_chain_hangs_until_it_is_restarted_or_the_chain_moves() {
    let dir = tempdir().unwrap();
    let frozen = |index| Sim::validator(dir.path(), index, 4).option("freeze", 20);
    let mut nodes: Vec<SimNode> = (0..4).map(|index| frozen(index).start()).collect();
    for node in &mut nodes {
        node.wait_head(20);
        node.stop();
    }
    drop(nodes);
    // At once, so that the first sync of a process is over when its peers show.
    let sim = |index| silent(dir.path(), index).option("catchup", 0);
    for index in [1, 2] {
        lose_last_block(&dir.path().join(format!("n{index}")));
    }
    let mut low: Vec<SimNode> = [1, 2].map(|index| sim(index).start()).into();
    until("them to be peers", || low.iter().all(|node| peers(node) == 1).then_some(()));
    let mut high = vec![sim(0).start()];
    until("the third", || low.iter().all(|node| peers(node) == 2).then_some(()));
    assert_eq!(low.iter().map(SimNode::head).collect::<Vec<_>>(), [19, 19]);
    low[0].stop();
    low[0] = sim(1).start();
    low[0].wait_head(20);
    assert_eq!(low[1].head(), 19);
    // Three of four sign: the chain moves, and the gap becomes two.
    high.push(sim(3).start());
    for node in [&low[0], &high[0], &high[1]] {
        node.call("miner_start", json!([]));
    }
    high[0].wait_head(25);
    assert!(low[1].head() == 19 || low[1].head() >= 21);
}
