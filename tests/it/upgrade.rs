//! Whole runs: a node is upgraded at a height, and what must not go wrong does not.

use super::rig::sim::{head, wait_head};
use super::rig::visor::Rig;

#[test]
fn a_node_is_upgraded_at_its_height() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let mut visor = rig.run_with(&[], &["--mine", "--sim.epoch", "7"]);
    visor.wait(&["event=rpc_connected"]);
    rig.ok(&["upgrade", "schedule", "v2", "30"]);
    visor.wait(&["event=upgrade_ended", "name=v2", "outcome=applied"]);

    assert_eq!(rig.current(), "upgrades/v2");
    let starts = rig.traces().starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert_eq!((&starts[0]["version"], &starts[1]["version"]), (&"v1".into(), &"v2".into()));
    assert_eq!(starts[0]["args"], starts[1]["args"], "the node's arguments survive");
    assert!((30..=32).contains(&starts[1]["head"].as_u64().unwrap()), "{starts:?}");
    assert_eq!(rig.traces().signals().len(), 1, "one SIGTERM");
    assert_eq!(rig.traces().overlaps(), [(); 0].map(|()| serde_json::Value::Null));
    wait_head(&rig.ipc(), head(&rig.ipc()) + 3);
    assert_eq!(visor.stop(), 0);
}
