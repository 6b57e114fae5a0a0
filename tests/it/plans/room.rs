//! Room before a fork: too few blocks for the turns of all validators are refused wherever an upgrade is planned.

use crate::rig::sim::until;
use crate::rig::visor::{Rig, Visor};
use serde_json::Value;
use std::path::Path;

const SHORT: &str = "4 validators need 4 × 24 = 96 blocks between height and fork, there are 60";

/// One validator of four. It never decides a block alone, and reports the set all the same.
fn one_of_four<'a>(rig: &'a Rig, network: &Path) -> Visor<'a> {
    let network = network.to_str().unwrap();
    let chain = ["--sim.network", network, "--sim.index", "0", "--sim.validators", "4"];
    let visor = rig.run_with(&[], &[&["--mine"], &chain[..]].concat());
    until("a node that answers", || rig.output(&["consensus"]).status.success().then_some(()));
    visor
}

#[test]
fn too_little_room_is_refused_with_the_numbers_unless_forced() {
    let (rig, network) = (Rig::new().set("DAEMON_VALIDATOR_MODE", "true"), tempfile::tempdir().unwrap());
    let mut visor = one_of_four(&rig, network.path());
    let schedule = ["upgrade", "schedule", "v2", "120", "--fork-height", "180"];
    assert!(rig.fails(5, &schedule).contains(SHORT));
    rig.ok(&["upgrade", "schedule", "v1", "96", "--fork-height", "192"]);

    rig.ok(&["plan", "create", "p"]);
    rig.ok(&["plan", "add-upgrade", "p", "v2:120", "--fork-height", "180"]);
    let out = rig.output(&["plan", "validate", "p"]);
    assert_eq!(out.status.code(), Some(65));
    assert!(String::from_utf8(out.stdout).unwrap().contains(SHORT));
    let refused = rig.fails(5, &["plan", "execute", "p"]);
    assert!(refused.contains(SHORT) && refused.contains("--force"), "{refused}");
    let copy = rig.path().join("copy.json");
    std::fs::write(&copy, rig.ok(&["plan", "show", "p", "--json"])).unwrap();
    let create = ["plan", "create", "q", "--from", copy.to_str().unwrap()];
    assert!(rig.fails(5, &create).contains(SHORT));
    rig.ok(&[&create[..], &["--force"]].concat());
    rig.ok(&["plan", "execute", "p", "--force"]);

    rig.trigger("{\"name\":\"v3\",\"height\":240,\"info\":{\"fork_height\":250}}");
    until("the warning of the supervisor", || {
        let text = visor.status()["symptoms"].to_string();
        text.contains("upgrade v2 at 120, fork at 180: ").then_some(())
    });
    visor.wait(&["event=little_room", SHORT]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_roll_and_the_turns_agree() {
    let (rig, network) = (Rig::new().set("DAEMON_VALIDATOR_MODE", "true"), tempfile::tempdir().unwrap());
    let mut visor = one_of_four(&rig, network.path());
    rig.ok(&["plan", "create", "p", "v2:240"]);
    let json = |args: &[&str]| serde_json::from_str::<Value>(&rig.ok(args)).unwrap();
    let judged = json(&["plan", "validate", "p", "--json"]);
    let roll = judged["rolls"][0]["turns"].as_array().unwrap();
    let opens: Vec<u64> = roll.iter().map(|turn| turn["opens_at"].as_u64().unwrap()).collect();
    assert_eq!(opens, [240, 264, 288, 312]);
    let ours = roll.iter().find(|turn| turn["is_this_node"] == true).unwrap();

    rig.ok(&["plan", "execute", "p"]);
    let next = json(&["check", "--next", "--json"]);
    assert_eq!(next["address"], ours["validator"]);
    assert_eq!(next["next_upgrade"]["turn"]["opens_at"], ours["opens_at"]);
    // A turn comes every fourth slot.
    let turns: Vec<u64> =
        next["turns"].as_array().unwrap().iter().map(|turn| turn["opens_at"].as_u64().unwrap()).collect();
    assert!(turns.windows(2).all(|pair| pair[1] - pair[0] == 96), "{turns:?}");
    assert_eq!(turns[0] % 96, ours["opens_at"].as_u64().unwrap() % 96);
    let shown = json(&["consensus", "--json"]);
    assert_eq!(shown["next_upgrade"]["turn"]["opens_at"], ours["opens_at"]);
    until("the turn in status", || {
        (visor.status()["planned"][0]["turn"]["opens_at"] == ours["opens_at"]).then_some(())
    });
    let words = rig.ok(&["check", "--next"]);
    assert!(words.contains("upgrade v2 at 240; our turn: block "), "{words}");
    assert!(rig.ok(&["status"]).contains("turn        v2: our turn: block "), "{}", rig.ok(&["status"]));
    assert_eq!(visor.stop(), 0);
}
