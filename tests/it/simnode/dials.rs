//! Public addresses, where a second connection is refused for a while, and nodes that make no connection.

use super::network::{peers, start, wait_live};
use crate::rig::sim::{Sim, SimNode, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;

fn public(root: &Path, index: usize) -> Sim {
    Sim::validator(root, index, 4).option("public", true)
}

fn start_public(root: &Path) -> Vec<SimNode> {
    let mut nodes: Vec<SimNode> = (0..4).map(|index| public(root, index).spawn()).collect();
    nodes.iter_mut().for_each(SimNode::wait_rpc);
    nodes
}

/// When the last dial of a node was accepted.
fn dial(root: &Path, index: usize) -> Option<u64> {
    let text = std::fs::read(root.join("net/dials.json")).ok()?;
    serde_json::from_slice::<Value>(&text).unwrap()[index.to_string()].as_u64()
}

fn remove_peers(node: &SimNode) {
    for peer in node.call("admin_peers", json!([])).as_array().unwrap() {
        assert_eq!(node.call("admin_removePeer", json!([peer["enode"]])), true);
    }
    assert_eq!(peers(node), 0);
}

#[test]
fn a_clean_stop_burns_the_address_and_a_kill_does_not() {
    let dir = tempdir().unwrap();
    let mut nodes = start_public(dir.path());
    nodes[0].wait_head(10);
    let before = [2, 3].map(|index| until("the first dial", || dial(dir.path(), index)));
    nodes[2].kill();
    assert_eq!(dial(dir.path(), 2), Some(before[0]));
    nodes[3].stop();
    assert!(dial(dir.path(), 3) > Some(before[1]));
}

#[test]
fn a_burnt_address_has_no_peers_until_it_dials_again() {
    let dir = tempdir().unwrap();
    let mut nodes = start_public(dir.path());
    nodes[0].wait_head(10);
    nodes[3].stop();
    let long = public(dir.path(), 3).option("refuse", 60_000).option("redial", 60_000);
    let mut back = long.start();
    let head = back.head();
    nodes[0].wait_head(head + 20);
    assert_eq!((back.head(), peers(&back), peers(&nodes[0])), (head, 0, 2));
    back.kill();
    // 35 periods after the last contact it is let in, and catches up at once.
    let back = public(dir.path(), 3).option("refuse", 60_000).start();
    wait_live(&back, head + 20);
}

#[test]
fn peers_removed_before_a_stop_let_the_node_in_at_once() {
    let dir = tempdir().unwrap();
    let mut nodes = start_public(dir.path());
    nodes[0].wait_head(10);
    let before = until("the first dial", || dial(dir.path(), 3));
    remove_peers(&nodes[3]);
    assert_eq!(nodes[3].stop().code(), Some(0));
    assert_eq!(dial(dir.path(), 3), Some(before));
    // So long that nothing but an accepted dial can have brought the peers.
    let back = public(dir.path(), 3).option("refuse", 1).option("redial", 60_000).start();
    wait_live(&back, nodes[0].head());
}

#[test]
fn a_second_start_is_refused_but_not_after_a_dry_one() {
    let dir = tempdir().unwrap();
    let mut nodes = start_public(dir.path());
    nodes[0].wait_head(5);
    until("the first dial", || dial(dir.path(), 3));
    nodes[3].kill();
    let again = public(dir.path(), 3).option("refuse", 60_000).option("redial", 60_000);
    let mut refused = again.start();
    let head = refused.head();
    nodes[0].wait_head(head + 10);
    assert_eq!(peers(&refused), 0);
    refused.kill();
    let before = dial(dir.path(), 3);
    let mut dry = again.without("--mine").arg("--maxpeers").arg("0").start();
    assert_eq!(dry.stop().code(), Some(0));
    assert_eq!(dial(dir.path(), 3), before);
}

#[test]
fn a_dry_node_answers_with_its_own_head_and_is_seen_by_none() {
    let dir = tempdir().unwrap();
    let mut nodes = start(dir.path(), 4);
    nodes[3].wait_head(10);
    nodes[3].stop();
    let members = || std::fs::read_dir(dir.path().join("net/members")).unwrap().count();
    let sim = Sim::validator(dir.path(), 3, 4).without("--mine");
    let mut dry = sim.arg("--maxpeers").arg("0").arg("--nodiscover").start();
    let (head, at) = (dry.head(), nodes[0].head());
    nodes[0].wait_head(at + 10);
    assert_eq!((dry.head(), peers(&dry), peers(&nodes[0]), members()), (head, 0, 2, 3));
    let hash = |node: &SimNode| node.call("eth_getBlockByNumber", json!(["0xa", false]))["hash"].clone();
    assert_eq!(hash(&dry), hash(&nodes[0]));
    dry.signal(Signal::TERM);
    assert_eq!(dry.wait().code(), Some(0));
    let back = Sim::validator(dir.path(), 3, 4).start();
    wait_live(&back, head);
}

#[test]
fn removed_peers_stay_away_until_they_are_added_again() {
    let dir = tempdir().unwrap();
    let nodes = start(dir.path(), 4);
    nodes[0].wait_head(5);
    let all = nodes[3].call("admin_peers", json!([]));
    remove_peers(&nodes[3]);
    until("the others to see it", || nodes[..3].iter().all(|node| peers(node) == 2).then_some(()));
    // Without a peer it gets no block.
    let frozen = nodes[3].head();
    nodes[0].wait_head(frozen + 10);
    assert_eq!(nodes[3].head(), frozen);
    for peer in all.as_array().unwrap() {
        assert_eq!(nodes[3].call("admin_addPeer", json!([peer["enode"]])), true);
    }
    until("the peers to be back", || (peers(&nodes[3]) == 3).then_some(()));
    wait_live(&nodes[3], frozen + 10);
}

#[test]
fn a_throw_away_key_follows_like_an_end_node_and_uses_the_address_up() {
    let dir = tempdir().unwrap();
    let mut nodes = start_public(dir.path());
    nodes[0].wait_head(5);
    let before = until("the first dial", || dial(dir.path(), 3));
    nodes[3].kill();
    let key = dir.path().join("key");
    std::fs::write(&key, "throw-away").unwrap();
    let sim = public(dir.path(), 3).without("--mine").option("refuse", 1);
    let stranger = sim.arg("--nodekey").arg(key.to_str().unwrap()).start();
    let head = stranger.head();
    stranger.wait_head(head + 20);
    assert_eq!((peers(&stranger), stranger.call("istanbul_isValidator", json!([]))), (3, json!(false)));
    assert!(dial(dir.path(), 3) > Some(before));
}

#[test]
fn of_two_nodes_with_one_key_the_later_one_may_have_all_peers() {
    let dir = tempdir().unwrap();
    let twin = |index| Sim::validator(dir.path(), index, 4).option("twin", true);
    let nodes: Vec<SimNode> = (0..4).map(|index| twin(index).start()).collect();
    nodes[3].wait_head(5);
    let mut later = twin(0).datadir(dir.path().join("twin")).start();
    until("the first to be alone", || (peers(&nodes[0]) == 0).then_some(()));
    until("the later one in its place", || (peers(&nodes[1]) == 3).then_some(()));
    let frozen = nodes[0].head();
    nodes[1].wait_head(frozen + 10);
    assert_eq!(nodes[0].head(), frozen);
    later.kill();
    until("the peers to be back", || (peers(&nodes[0]) == 3).then_some(()));
    wait_live(&nodes[0], frozen + 10);
}
