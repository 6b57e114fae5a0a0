//! The record of votes, and the proposals of an engine that starts at an old head.

use super::network::{address, start, wait_live};
use super::rewind_to;
use crate::rig::sim::{Sim, SimNode, contradictions, until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// The findings of the audit for the four nodes under `root`.
fn audit(root: &Path) -> Vec<String> {
    let nodes: Vec<PathBuf> = (0..4).map(|index| root.join(format!("n{index}"))).collect();
    contradictions(&root.join("net"), &nodes.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

#[test]
fn every_vote_is_recorded_and_none_contradicts_a_final_block() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    let head = nodes[0].wait_head(30);
    for node in &nodes {
        node.wait_head(head);
    }
    nodes[3].stop();
    nodes[0].wait_head(head + 10);
    let back = Sim::validator(dir.path(), 3, 4).start();
    wait_live(&back, head + 10);
    assert_eq!(audit(dir.path()).iter().find(|line| !line.starts_with("stale")), None);
    let votes = nodes[0].traces.votes();
    let of = |kind: &str| votes.iter().filter(|vote| vote["kind"] == kind).count();
    assert!(of("COMMIT") >= 30 && of("PREPARE") >= 30 && of("PRE-PREPARE") >= 5, "{votes:?}");
    let block = nodes[0].call("eth_getBlockByNumber", json!(["0x14", false]));
    let vote = votes.iter().find(|vote| vote["kind"] == "COMMIT" && vote["height"] == 20).unwrap();
    assert_eq!((&vote["hash"], &vote["pid"]), (&block["hash"], &json!(nodes[0].pid())));
}

#[test]
fn heights_decided_again_are_contradictions() {
    let dir = tempdir().unwrap();
    let sims: Vec<Sim> =
        (0..4).map(|index| Sim::validator(dir.path(), index, 4).option("rewind", 10)).collect();
    let mut nodes: Vec<SimNode> = sims.iter().map(Sim::start).collect();
    let head = nodes[0].wait_head(25);
    for node in &mut nodes {
        node.kill();
    }
    let nodes: Vec<SimNode> = sims.iter().map(Sim::start).collect();
    nodes[0].wait_head(head + 1);
    let found = audit(dir.path());
    assert!(found.iter().any(|line| line.starts_with("decided twice: height ")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("contradiction: COMMIT ")), "{found:?}");
}

/// Four validators of which the last is down, and a height at which it is the next proposer.
fn before_its_turn(root: &Path) -> (Vec<SimNode>, u64) {
    let mut nodes = start(root, 4);
    let own = address(&nodes[3]);
    let miner = |height: u64| {
        let block = nodes[0].call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]));
        (block["miner"].clone(), block["hash"].clone())
    };
    let round = |height: u64| {
        nodes[0].call("istanbul_getWbftExtraInfo", json!([format!("{height:#x}")]))["round"].clone()
    };
    let head = nodes[0].wait_head(30);
    let turn = (12..head).find(|height| miner(*height).0 == own.as_str() && round(*height) == "0x0").unwrap();
    nodes[3].wait_head(turn + 1);
    nodes[3].stop();
    (nodes, turn - 1)
}

fn stale(node: &SimNode) -> Vec<Value> {
    let pid = node.pid();
    let mut votes = node.traces.votes();
    votes.retain(|vote| vote["pid"] == pid && vote["kind"] == "PRE-PREPARE");
    votes
}

#[test]
fn an_engine_that_starts_before_its_turn_proposes_what_is_final() {
    let dir = tempdir().unwrap();
    let (_nodes, head) = before_its_turn(dir.path());
    rewind_to(&dir.path().join("n3"), head);
    let back = Sim::validator(dir.path(), 3, 4).option("catchup", 60_000).start();
    let vote = until("the stale proposal", || stale(&back).pop());
    assert_eq!((&vote["height"], &vote["round"]), (&json!(head + 1), &json!(0)));
    let found = audit(dir.path());
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with(&format!("stale: PRE-PREPARE height={} round=0", head + 1)), "{found:?}");
}

#[test]
fn an_engine_that_starts_two_turns_before_its_own_proposes_nothing() {
    let dir = tempdir().unwrap();
    let (_nodes, head) = before_its_turn(dir.path());
    rewind_to(&dir.path().join("n3"), head - 1);
    let back = Sim::validator(dir.path(), 3, 4).start();
    wait_live(&back, head);
    assert_eq!(audit(dir.path()), Vec::<String>::new());
}

#[test]
fn miner_start_before_its_turn_proposes_as_well() {
    let dir = tempdir().unwrap();
    let (_nodes, head) = before_its_turn(dir.path());
    rewind_to(&dir.path().join("n3"), head);
    let back = Sim::validator(dir.path(), 3, 4).without("--mine").option("catchup", 60_000).start();
    assert_eq!((back.head(), stale(&back).len()), (head, 0));
    back.call("miner_start", json!([]));
    let vote = until("the stale proposal", || stale(&back).pop());
    assert_eq!(vote["height"], head + 1);
}

#[test]
fn a_first_sync_that_ends_before_the_nodes_turn_proposes_what_is_final() {
    let dir = tempdir().unwrap();
    let (mut nodes, head) = before_its_turn(dir.path());
    nodes[1].kill();
    nodes[2].kill();
    let (mut halted, mut looks) = (0, 0);
    until("the halt", || {
        let head = nodes[0].head();
        looks = if head == halted { looks + 1 } else { 0 };
        halted = head;
        (looks > 40).then_some(())
    });
    // Two turns before its own at the start, so that only the end of the sync can bring the proposal.
    rewind_to(&dir.path().join("n3"), head - 1);
    let short = Sim::validator(dir.path(), 3, 4).option("short-sync", halted - head).option("catchup", 20);
    let back = short.start();
    let vote = until("the stale proposal", || stale(&back).pop());
    assert_eq!(vote["height"], head + 1);
    back.wait_head(halted);
}
