//! A node that is far behind: it passes several heights, with each binary in its turn.

use super::wait_applied;
use crate::rig::sim::{Sim, SimNode, stamp, wait_head};
use crate::rig::visor::Rig;
use std::path::Path;

/// A network of one validator that is at `height` already.
fn network(root: &Path, height: u64, forks: &str) -> SimNode {
    let program = stamp(&root.join("validator"), &[("version", "v9"), ("fork", forks)]);
    let node = Sim::validator(root, 0, 1).program(&program).start();
    node.wait_head(height);
    node
}

/// Runs our node as an end node of that network, from block 0, through three upgrades.
fn catch_up(rig: &Rig, root: &Path, forks: [&str; 3], target: u64) -> String {
    for (name, known) in ["v2", "v3", "v4"].into_iter().zip(forks) {
        rig.stage(name, &[("fork", known)]);
    }
    rig.follow("p", &["v2:15", "v3:25", "v4:35"]);
    let net = root.join("net");
    let node = ["--sim.network", net.to_str().unwrap(), "--sim.index", "1", "--sim.validators", "1"];
    let mut visor = rig.run_with(&[], &node);
    for name in ["v2", "v3", "v4"] {
        wait_applied(&mut visor, name);
    }
    wait_head(&rig.ipc(), target);
    assert_eq!(rig.versions(), ["v1", "v2", "v3", "v4"]);
    let starts = rig.traces().starts();
    let heads: Vec<String> = starts.iter().map(|start| start["head"].to_string()).collect();
    assert_eq!((rig.traces().signals().len(), rig.traces().overlaps().len()), (3, 0));
    assert_eq!(rig.plan_status("p")["completed"], 3);
    assert_eq!(visor.stop(), 0);
    heads.join(" ")
}

#[test]
fn where_each_binary_reaches_only_to_the_next_fork() {
    let root = tempfile::tempdir().unwrap();
    let _network = network(root.path(), 60, "20,30,40");
    let heads = catch_up(&Rig::new(), root.path(), ["20", "20,30", "20,30,40"], 61);
    // Each began where the one before was frozen.
    assert_eq!(heads, "0 19 29 39");
}

#[test]
fn where_the_first_binary_could_pass_them_all() {
    let root = tempfile::tempdir().unwrap();
    let _network = network(root.path(), 60, "");
    catch_up(&Rig::new(), root.path(), ["", "", ""], 70);
}
