//! Several simulated nodes on one chain: what a quorum does, and what it is without.

use crate::rig::sim::{Sim, SimNode, number, stamp, until};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;

pub(super) fn start(root: &Path, count: usize) -> Vec<SimNode> {
    let mut nodes: Vec<SimNode> =
        (0..count).map(|index| Sim::validator(root, index, count).spawn()).collect();
    nodes.iter_mut().for_each(SimNode::wait_rpc);
    nodes
}

pub(super) fn address(node: &SimNode) -> String {
    node.call("istanbul_nodeAddress", json!([])).as_str().unwrap().into()
}

/// The validators in `prevCommittedSeal` of a block, in lower case.
pub(super) fn live_at(node: &SimNode, height: u64) -> Vec<String> {
    let info = node.call("istanbul_getWbftExtraInfo", json!([format!("{height:#x}")]));
    let sealers = info["prevCommittedSeal"]["sealers"].as_array().unwrap();
    sealers.iter().map(|sealer| sealer.as_str().unwrap().to_lowercase()).collect()
}

pub(super) fn peers(node: &SimNode) -> u64 {
    number(&node.call("net_peerCount", json!([])))
}

/// Waits until `node` sees its own vote in a block above `height`.
pub(super) fn wait_live(node: &SimNode, height: u64) {
    let own = address(node);
    until("the node's own vote", || {
        let head = node.head();
        (head > height && live_at(node, head).contains(&own)).then_some(())
    });
}

#[test]
fn four_validators_agree() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 4);
    let head = nodes[0].wait_head(30);
    let block = |node: &SimNode| node.call("eth_getBlockByNumber", json!(["0x14", false]));
    for node in &nodes {
        node.wait_head(head);
        assert_eq!(block(node)["hash"], block(&nodes[0])["hash"]);
        assert_eq!(peers(node), 3);
    }
    assert_eq!(live_at(&nodes[0], head).len(), 4);
    let status = nodes[0].call("istanbul_status", json!(["0x14", format!("{head:#x}")]));
    assert_eq!(status["roundStats"]["totalRounds"], 0);
    // Everyone proposes in turn.
    let authors = status["author"].as_object().unwrap();
    assert!(authors.len() == 4 && authors.values().all(|count| count.as_u64() >= Some(2)), "{status}");
}

#[test]
fn one_of_four_may_go_and_two_may_not() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    nodes[0].wait_head(5);
    let gone = address(&nodes[3]);
    nodes[3].kill();
    let after = nodes[0].head();
    // A round was changed whenever the dead one would have proposed.
    let head = nodes[0].wait_head(after + 12);
    assert!(!live_at(&nodes[0], head).contains(&gone));
    let status = nodes[0].call("istanbul_status", json!([format!("{:#x}", after + 2), format!("{head:#x}")]));
    assert!(status["roundStats"]["totalRounds"].as_u64() > Some(0), "{status}");
    nodes[2].stop();
    let halted = until("the halt", || {
        let head = nodes[0].head();
        std::thread::sleep(std::time::Duration::from_millis(300));
        (nodes[0].head() == head).then_some(head)
    });
    // Nothing shows it but the head: the real node is as silent about it.
    assert_eq!(nodes[0].call("eth_syncing", json!([])), false);
    assert_eq!(nodes[0].call("eth_mining", json!([])), true);
    assert_eq!(peers(&nodes[0]), 1);
    let returned = Sim::validator(dir.path(), 2, 4).start();
    nodes[0].wait_head(halted + 2);
    let resumed = nodes[0].call("eth_getBlockByNumber", json!([format!("{:#x}", halted + 1), false]));
    let info = nodes[0].call("istanbul_getWbftExtraInfo", json!([resumed["number"]]));
    assert!(number(&info["round"]) >= 2, "{info}");
    wait_live(&returned, halted + 1);
}

#[test]
fn a_validator_that_was_away_catches_up_and_votes_again() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    nodes[0].wait_head(5);
    nodes[3].stop();
    let left = nodes[0].head();
    nodes[0].wait_head(left + 20);
    let back = Sim::validator(dir.path(), 3, 4).start();
    wait_live(&back, left + 20);
    let hash = |node: &SimNode| node.call("eth_getBlockByNumber", json!(["0x5", false]))["hash"].clone();
    assert_eq!(hash(&back), hash(&nodes[0]));
}

#[test]
fn a_silent_validator_loses_its_peers_and_follows_in_bursts() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 4);
    nodes[0].wait_head(5);
    let silent = &nodes[1];
    assert_eq!(silent.call("miner_stop", json!([])), Value::Null);
    until("the peers to go", || (peers(silent) == 0).then_some(()));
    let frozen = silent.head();
    let own = address(silent);
    let head = nodes[0].wait_head(frozen + 10);
    assert!(!live_at(&nodes[0], head).contains(&own));
    assert_eq!(silent.call("eth_mining", json!([])), false);
    assert_eq!(silent.call("istanbul_isValidator", json!([])), true);
    // A burst brings many blocks at once.
    let burst = silent.wait_head(frozen + 2);
    assert!(burst >= frozen + 8, "{frozen} then {burst}");
    silent.call("miner_start", json!([]));
    wait_live(silent, burst);
}

#[test]
fn a_mute_validator_follows_with_its_peers_and_has_no_part_in_any_block() {
    let dir = tempdir().unwrap();
    let validator = |index| Sim::validator(dir.path(), index, 4);
    let mut nodes: Vec<SimNode> = (0..3).map(|index| validator(index).spawn()).collect();
    nodes.push(validator(3).option("mute", "until-start").spawn());
    nodes.iter_mut().for_each(SimNode::wait_rpc);
    let goal = nodes[0].head() + 12;
    nodes[3].wait_head(goal);
    assert_eq!((nodes[3].call("eth_mining", json!([])), peers(&nodes[3])), (json!(true), 3));
    assert_eq!(nodes[3].traces.votes(), [Value::Null; 0]);
    nodes[3].call("miner_start", json!([]));
    until("a vote", || (!nodes[3].traces.votes().is_empty()).then_some(()));
    nodes[3].traces.script(&json!({"mute": true}));
    // A block whose votes were counted before the node read its script may still come.
    let goal = nodes[0].head() + 12;
    let head = nodes[3].wait_head(goal);
    let last = nodes[3].traces.votes().iter().filter_map(|vote| vote["height"].as_u64()).max();
    assert!(last < Some(head), "{last:?} {head}");
}

#[test]
fn an_old_binary_freezes_before_the_fork_and_a_new_one_takes_over() {
    let dir = tempdir().unwrap();
    let v2 = stamp(&dir.path().join("v2"), &[("version", "v2.0.0"), ("fork", "15")]);
    let upgraded = |index| Sim::validator(dir.path(), index, 4).program(&v2);
    let nodes: Vec<SimNode> = (0..3).map(|index| upgraded(index).start()).collect();
    let mut old = Sim::validator(dir.path(), 3, 4).start();
    nodes[0].wait_head(20);
    old.wait_head(14);
    assert_eq!(old.head(), 14);
    until("the sync that fails", || old.call("eth_syncing", json!([])).is_object().then_some(()));
    assert_eq!(old.call("eth_mining", json!([])), true);
    assert!(old.log().contains("########## BAD BLOCK #########\nBlock: 15 ("), "{}", old.log());
    let known = |node: &SimNode| {
        node.call("admin_nodeInfo", json!([]))["protocols"]["eth"]["config"]["bohoBlock"].clone()
    };
    assert_eq!((known(&old), known(&nodes[0])), (Value::Null, json!(15)));
    assert_eq!(old.stop().code(), Some(0));
    let late = upgraded(3).start();
    wait_live(&late, nodes[0].head());
    // Whose program proposed a block is written in its vanity.
    let versions = |node: &SimNode, height: u64| {
        node.call("istanbul_getWbftExtraInfo", json!([format!("{height:#x}")]))["vanityData"].clone()
    };
    let own = address(&late);
    let mined = until("a block of the upgraded one", || {
        let head = late.head();
        let block = late.call("eth_getBlockByNumber", json!([format!("{head:#x}"), false]));
        (block["miner"] == own.as_str()).then_some(head)
    });
    assert_eq!(versions(&late, mined), "[version: v2.0.0, client: geth, go: go1.26.6, os: linux]");
}

#[test]
fn an_old_binary_may_keep_a_block_of_its_own_at_the_fork() {
    let dir = tempdir().unwrap();
    let v2 = stamp(&dir.path().join("v2"), &[("version", "v2.0.0"), ("fork", "12")]);
    let upgraded = |index| Sim::validator(dir.path(), index, 4).program(&v2);
    let nodes: Vec<SimNode> = (0..3).map(|index| upgraded(index).start()).collect();
    let mut old = Sim::validator(dir.path(), 3, 4).option("own-block", true).start();
    nodes[0].wait_head(16);
    old.wait_head(12);
    assert_eq!(old.head(), 12);
    let hash = |node: &SimNode| node.call("eth_getBlockByNumber", json!(["0xc", false]))["hash"].clone();
    assert_ne!(hash(&old), hash(&nodes[0]));
    old.stop();
    // A program with the fork built in takes that block back.
    let late = upgraded(3).start();
    wait_live(&late, 16);
    assert_eq!(hash(&late), hash(&nodes[0]));
}

#[test]
fn validators_killed_together_decide_final_blocks_again() {
    let dir = tempdir().unwrap();
    let sims: Vec<Sim> =
        (0..4).map(|index| Sim::validator(dir.path(), index, 4).option("rewind", 10)).collect();
    // They would go on while one after the other is killed.
    let start = |sim: &Sim| sim.clone().option("freeze", 25).start();
    let mut nodes: Vec<SimNode> = sims.iter().map(start).collect();
    let head = nodes[0].wait_head(25);
    let hash = |node: &SimNode| {
        node.call("eth_getBlockByNumber", json!([format!("{head:#x}"), false]))["hash"].clone()
    };
    let old = hash(&nodes[0]);
    for node in &mut nodes {
        node.kill();
    }
    let nodes: Vec<SimNode> = sims.iter().map(Sim::start).collect();
    nodes[0].wait_head(head + 1);
    assert_ne!(hash(&nodes[0]), old);
}

#[test]
fn a_twin_with_the_same_key_signs_for_the_silent_one() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 4);
    let silent = &nodes[0];
    let own = address(silent);
    nodes[1].wait_head(5);
    silent.call("miner_stop", json!([]));
    let unseen = until("a block without its vote", || {
        let head = nodes[1].head();
        (!live_at(&nodes[1], head).contains(&own)).then_some(head)
    });
    let twin = Sim::validator(dir.path(), 0, 4).datadir(dir.path().join("twin")).start();
    assert_eq!(address(&twin), own);
    wait_live(&twin, unseen);
    assert_eq!(silent.call("eth_mining", json!([])), false);
    assert!(live_at(&nodes[1], nodes[1].wait_head(twin.head())).contains(&own));
}

#[test]
fn an_end_node_follows_without_mining() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 4);
    let end = Sim::validator(dir.path(), 4, 4).without("--mine").start();
    nodes[0].wait_head(20);
    end.wait_head(20);
    assert_eq!(peers(&end), 4);
    assert_eq!(end.call("eth_mining", json!([])), false);
    assert_eq!(end.call("istanbul_isValidator", json!([])), false);
}

#[test]
fn a_validator_may_leave_the_set_at_an_epoch() {
    let dir = tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("net")).unwrap();
    std::fs::write(dir.path().join("net/sets.json"), "[[10,[0,1,3]]]").unwrap();
    let nodes = start(dir.path(), 4);
    nodes[2].wait_head(15);
    let is_validator = |at: &str| nodes[2].call("istanbul_isValidator", json!([at]));
    assert_eq!((is_validator("0xa"), is_validator("0xb")), (json!(true), json!(false)));
    assert_eq!(nodes[0].call("istanbul_getValidators", json!(["0xb"])).as_array().unwrap().len(), 3);
    assert_eq!(live_at(&nodes[0], 13).len(), 3);
}
