//! Whole networks in the situations that have halted a chain or rewritten its blocks: four validators, each under its own
//! supervisor. Every run ends with a chain that goes on, and an audit of the votes.
//!
//! Turns with all there, with one dead, and around a change of the set are in `rolling`; so is a twin that seals while a
//! validator comes back.

use super::rolling::no_validator_was_missed;
use crate::rig::fleet::{Fleet, H, PACE, cut_power, plan, wait_all, wait_sealing};
use crate::rig::sim::{Sim, SimNode, call, head, until, wait_head};
use crate::rig::visor::{Rig, Visor};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The hash of a block as a node has it.
fn hash_at(ipc: &Path, height: u64) -> String {
    let block = call(ipc, "eth_getBlockByNumber", &json!([format!("{height:#x}"), false]));
    block["hash"].as_str().unwrap().to_owned()
}

/// A supervisor looks at the peers once a second, whatever the period: a silent node keeps them as long as a real one does.
const LONG_CONTACT: [(&str, &str); 2] = [("drop", "2500"), ("redial", "1000")];

/// Four validators without any plan.
fn unplanned(options: &[(&str, &str)]) -> Fleet {
    Fleet::with(4, options, |_, _| ())
}

/// Four validators with an upgrade to v2, which seals nothing at validator `index`: as `mute` says, for ever or until
/// `miner_start` is called.
fn upgraded_to_a_mute(index: usize, mute: &str) -> Fleet {
    let fleet = Fleet::with(4, &[], |home, rig| {
        let mute = if home == index { mute } else { "false" };
        rig.stage("v2", &[&PACE[..], &[("mute", mute)]].concat());
        rig.ok(&["upgrade", "schedule", "v2", &H.to_string()]);
    });
    // As many as an operator has by default: in fewer blocks the seals of the old binary outnumber the missing ones.
    fleet.set("DAEMON_PROBATION_BLOCKS", "20")
}

/// Of the validators that came back to a chain without a quorum the first one voted after that chain had stood still for
/// 15 s, and not before: until then another may come back with a block that was final. From then on the chain moves, and
/// one that has come back later may follow it at once.
fn sign_after_standing_still(homes: &[Rig]) {
    let first_vote = |home: &Rig| {
        let back = &home.traces().starts()[1];
        let first = until("a vote after the power cut", || {
            let votes = home.traces().votes();
            votes.iter().find(|vote| vote["pid"] == back["pid"]).map(|vote| vote["ms"].as_u64().unwrap())
        });
        (first, first - back["ms"].as_u64().unwrap())
    };
    let (_, waited) = homes.iter().map(first_vote).min().unwrap();
    assert!(waited >= 15_000, "the first vote came {waited} ms after the start");
}

/// The number in a log line after these words.
fn number_after(line: &str, words: &str) -> u64 {
    let (_, rest) = line.split_once(words).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Has the chain stand still until each supervisor has the newest block on its record.
fn record_the_same_head(fleet: &Fleet) {
    let height = 20 + fleet.homes.iter().map(|home| head(&home.ipc())).max().unwrap();
    fleet.homes.iter().for_each(|home| home.script(&json!({"freeze": height})));
    let record = format!("\"height\":{height},");
    for home in &fleet.homes {
        until("the newest block on every record", || {
            let bytes = fs::read(home.of("state/head")).ok()?;
            String::from_utf8_lossy(&bytes).contains(&record).then_some(())
        });
    }
}

/// Cuts the power of validators of which each knows the newest block of the network, so that no block beyond it is to come.
fn cut_power_at_one_head(fleet: &Fleet, visors: &mut [Visor<'_>]) {
    record_the_same_head(fleet);
    cut_power(visors);
    fleet.homes.iter().for_each(|home| home.script(&json!({})));
}

#[test]
fn a_deadline_at_the_height_itself_stops_one_at_a_time() {
    let fleet = Fleet::with_deadline(4, Some(1000), Some(H));
    let mut visors = fleet.run_all();
    wait_all(&mut visors);
    let alarmed = visors.iter().filter(|visor| visor.count(&["event=deadline_passed"]) > 0);
    assert!(alarmed.count() >= 3, "only the first one is in time");
    fleet.never_two_down(1);
    fleet.goes_on();
}

#[test]
fn a_validator_that_comes_back_after_the_deadline_makes_no_other_stop() {
    let fleet = Fleet::with_deadline(4, None, Some(H + 4));
    let mut visors: Vec<Visor<'_>> = (0..3).map(|index| fleet.run(index)).collect();
    visors.iter_mut().for_each(|visor| drop(visor.wait(&["event=deadline_passed"])));
    for visor in &visors {
        visor.wait_status("a gate that holds", |status| {
            let hold = status["planned"][0]["hold"].as_str()?;
            hold.contains("3 of 4 live, need 3 without us, have 2").then_some(())
        });
    }
    assert!(fleet.homes.iter().all(|home| home.traces().signals().is_empty()), "no node was stopped");
    visors.push(fleet.run(3));
    wait_all(&mut visors);
    fleet.never_two_down(1);
    fleet.goes_on();
}

#[test]
fn upgrades_close_together_and_of_different_heights_share_one_grid() {
    let fleet = Fleet::with(4, &[], |index, rig| {
        plan(rig, "v2", if index == 3 { 52 } else { 33 }, None, None);
        plan(rig, "v3", 57, None, None);
    });
    let mut visors = fleet.run_all();
    wait_all(&mut visors);
    for visor in &mut visors {
        visor.wait(&["event=upgrade_ended", "name=v3", "outcome=applied"]);
    }
    fleet.never_two_down(2);
    fleet.goes_on();
}

#[test]
fn a_new_binary_that_never_seals_is_told_to_and_rolled_back() {
    const MUTE: usize = 3;
    let fleet = upgraded_to_a_mute(MUTE, "true");
    let mut visors = fleet.run_all();
    let told = visors[MUTE].wait(&["event=told_to_seal", "no block since"]);
    let failed = visors[MUTE].wait_outcome("v2", "rolled-back");
    assert!(failed.contains("though it was ordered to"), "{failed}");
    wait_all(&mut visors[..MUTE]);
    let home = &fleet.homes[MUTE];
    assert_eq!(home.current(), "genesis");
    let starts = until("the start of the old binary", || {
        let starts = home.traces().starts();
        (starts.len() >= 4).then_some(starts)
    });
    assert_eq!(home.versions(), ["v1", "v2", "v2", "v1"], "a binary that has failed for good is not retried");
    let (new, old) = (&starts[2], &starts[3]);
    // 40 blocks without a seal, and 20 more after it was told to.
    let since = number_after(&failed, "since block ");
    assert_eq!(number_after(&told, "no block since "), since);
    assert!(old["head"].as_u64() >= Some(since + 60), "{failed}: {starts:?}");
    // The old binary seals again.
    let votes_of =
        |start: &Value| home.traces().votes().iter().filter(|vote| vote["pid"] == start["pid"]).count();
    until("a vote of the old binary", || (votes_of(old) > 0).then_some(()));
    assert_eq!(votes_of(new), 0);
    fleet.goes_on();
    no_validator_was_missed(&fleet.ipc(0), 4, 4);
}

#[test]
fn a_new_binary_that_seals_when_it_is_told_to_is_kept() {
    let fleet = upgraded_to_a_mute(3, "until-start");
    let mut visors = fleet.run_all();
    visors[3].wait(&["event=told_to_seal"]);
    wait_all(&mut visors);
    fleet.never_two_down(1);
    fleet.goes_on();
    no_validator_was_missed(&fleet.ipc(0), 4, 4);
}

#[test]
fn a_block_of_our_own_at_the_fork_is_exchanged_for_that_of_the_network() {
    const FORK: u64 = 20;
    let fork = FORK.to_string();
    // The first three run the new version from the start; the operator of the fourth has forgotten it.
    let new = [("fork", fork.as_str())];
    let fleet = Fleet::each(4, |index| if index < 3 { &new } else { &[("own-block", "true")] }, |_, _| ());
    let mut visors = fleet.run_all();
    wait_head(&fleet.ipc(3), FORK);
    wait_head(&fleet.ipc(0), FORK + 4);
    let (ours, theirs) = (hash_at(&fleet.ipc(3), FORK), hash_at(&fleet.ipc(0), FORK));
    assert_ne!(ours, theirs);
    let home = &fleet.homes[3];
    home.stage("v2", &[&PACE[..], &[("fork", &fork)]].concat());
    home.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", &fork, "--now", "--force"]);
    visors[3].wait_outcome("v2", "applied");
    until("the network's block", || (hash_at(&fleet.ipc(3), FORK) == theirs).then_some(()));
    assert_eq!(home.versions(), ["v1", "v2", "v2"], "the old one, the new one without peers and with them");
    fleet.goes_on();
}

#[test]
fn after_a_power_cut_of_all_the_chain_goes_on_and_nothing_is_decided_twice() {
    // For a while each of them sees the rewound head of all: who signs then decides final blocks anew.
    let slow_sync = [("rewind", "10"), ("catchup", "1500")];
    let fleet = unplanned(&[LONG_CONTACT.as_slice(), &slow_sync].concat());
    let mut visors = fleet.run_all();
    wait_head(&fleet.ipc(0), 25);
    cut_power_at_one_head(&fleet, &mut visors);
    let visors = fleet.run_all();
    wait_sealing(&visors);
    // They were back below what they had decided, and began there.
    let starts: Vec<_> = fleet.homes.iter().map(|home| home.traces().starts()).collect();
    assert!(starts.iter().all(|starts| starts[1]["mine"] == false), "{starts:?}");
    for (home, starts) in fleet.homes.iter().zip(&starts) {
        let votes = home.traces().votes();
        let before = votes.iter().filter(|vote| vote["ms"].as_u64() < starts[1]["ms"].as_u64());
        let last = before.filter_map(|vote| vote["height"].as_u64()).max();
        assert!(starts[1]["head"].as_u64() < last, "{last:?} {starts:?}");
    }
    // A validator that sees a final block rewritten halts: the audit names the cause, a chain that stands still does not.
    fleet.audit();
    fleet.goes_on();
    sign_after_standing_still(&fleet.homes);
}

#[test]
fn after_a_power_cut_of_two_of_four_the_chain_goes_on() {
    let fleet = unplanned(&[LONG_CONTACT.as_slice(), &[("rewind", "10")]].concat());
    let mut visors = fleet.run_all();
    wait_head(&fleet.ipc(0), 25);
    cut_power_at_one_head(&fleet, &mut visors[2..]);
    visors.truncate(2);
    let back: Vec<Visor<'_>> = (2..4).map(|index| fleet.run(index)).collect();
    wait_sealing(&back);
    for home in &fleet.homes[2..] {
        assert_eq!(home.traces().starts()[1]["mine"], false);
    }
    fleet.goes_on();
    sign_after_standing_still(&fleet.homes[2..]);
}

#[test]
fn after_the_death_of_all_supervisors_the_chain_goes_on() {
    let fleet = unplanned(&LONG_CONTACT);
    let mut visors = fleet.run_all();
    wait_head(&fleet.ipc(0), 25);
    visors.iter_mut().for_each(Visor::kill);
    fleet.goes_on();
    let mut visors = fleet.run_all();
    for visor in &mut visors {
        visor.wait(&["event=adopted"]);
        visor.wait_node();
    }
    fleet.goes_on();
    for (home, visor) in fleet.homes.iter().zip(&visors) {
        assert_eq!((home.traces().starts().len(), home.traces().signals().len()), (1, 0));
        assert_eq!((visor.count(&["event=silent_start"]), visor.count(&["event=alone"])), (0, 0));
        assert_eq!(home.journal()["silent"], serde_json::Value::Null);
    }
}

#[test]
fn a_twin_that_comes_while_ours_runs_silences_it() {
    let fleet = unplanned(&[("twin", "true")]);
    let mut visors = fleet.run_all();
    wait_head(&fleet.ipc(3), 10);
    let network = fleet.network.path();
    let twin = Sim::new(network.join("twin")).option("network", network.display()).option("index", 3);
    let _twin = twin.option("validators", 4).option("period", 50).option("twin", true).start();
    visors[3].wait(&["event=alone", "sealing no more until that is safe"]);
    until("its engine to be off", || (call(&fleet.ipc(3), "eth_mining", &json!([])) == false).then_some(()));
    let votes = || fleet.homes[3].traces().votes();
    let before = votes().len();
    // The twin seals in its place, in every block that all have voted for.
    let goal = head(&fleet.ipc(0)) + 40;
    wait_head(&fleet.ipc(0), goal);
    let info = call(&fleet.ipc(0), "istanbul_getWbftExtraInfo", &json!([format!("{goal:#x}")]));
    assert_eq!(info["prevCommittedSeal"]["sealers"].as_array().unwrap().len(), 4, "{info}");
    assert_eq!(votes().len(), before, "ours has signed beside its twin");
    let refused = fleet.homes[3].output(&["resolve", "sign"]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(5) && why.contains("missing: "), "{why}");
    assert_eq!(fleet.homes[3].journal()["silent"], true);
    fleet.audit();
}

#[test]
fn a_clock_that_is_five_seconds_off_is_named_and_holds_nothing() {
    let fleet = Fleet::with(4, &[("slow", "5000")], |_, rig| {
        rig.stage("v2", &[&PACE[..], &[("slow", "5000")]].concat());
        rig.ok(&["upgrade", "schedule", "v2", "40"]);
    });
    let mut visors = fleet.run_all();
    visors[0].wait(&["event=clock_skew", "ahead of the chain's: check NTP"]);
    wait_all(&mut visors);
    fleet.never_two_down(1);
    // A validator that has lost its power seals again.
    cut_power(&mut visors[3..]);
    visors.truncate(3);
    let back = [fleet.run(3)];
    wait_sealing(&back);
    fleet.goes_on();
}

#[test]
fn lies_about_the_head_stop_no_node_and_are_not_recorded() {
    let fleet = Fleet::with(4, &[], |_, rig| plan(rig, "v2", 100_000, None, None));
    let mut visors = fleet.run_all();
    let home = &fleet.homes[0];
    let is_clean = |visor: &Visor<'_>| {
        let status = visor.status();
        assert!(status["head"]["height"].as_u64() < Some(100_000), "{status}");
        assert_eq!(home.current(), "genesis");
        for file in fs::read_dir(home.of("state")).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("1000000000"));
        }
    };
    for lie in ["lie@1", "lie@2"] {
        let seen = visors[0].wait_head(20);
        home.script(&json!({"rpc-lie": lie}));
        wait_head(&fleet.ipc(1), seen + 20);
        visors[0].wait_head(seen + 30);
        is_clean(&visors[0]);
        assert!(home.traces().signals().is_empty(), "it was stopped for a lie");
    }
    home.script(&json!({}));
    assert_eq!(visors[0].stop(), 0);
    visors[0] = fleet.run(0);
    visors[0].wait(&["event=rpc_connected"]);
    let goal = head(&fleet.ipc(1)) + 10;
    visors[0].wait_head(goal);
    is_clean(&visors[0]);
    fleet.goes_on();
}

/// Four validators whose data exist already: their nodes were run by hand until `height`, and ended as `end` does.
fn run_by_hand(options: &[(&str, &str)], height: u64, end: impl Fn(&mut SimNode)) -> Fleet {
    let fleet = unplanned(&[LONG_CONTACT.as_slice(), options].concat());
    // By the times of their blocks it was a while ago, so that none of these seems to be new.
    let node = |index| fleet.by_hand(index).option("slow", 20_000).start();
    let mut nodes: Vec<SimNode> = (0..4).map(node).collect();
    for node in &nodes {
        node.wait_head(height);
    }
    nodes.iter_mut().for_each(end);
    fleet
}

/// Fresh homes take the data over: the chain goes on without a person, and no vote contradicts a final block.
fn are_taken_over(fleet: &Fleet) {
    let visors = fleet.run_all();
    wait_sealing(&visors);
    for home in &fleet.homes {
        assert_eq!(home.traces().starts()[1]["mine"], false, "the end of the node before was not seen");
    }
    fleet.audit();
    fleet.goes_on();
}

#[test]
fn data_of_nodes_that_were_killed_before_the_first_run_are_taken_over() {
    let slow_sync = [("rewind", "10"), ("catchup", "1500")];
    let fleet = run_by_hand(&slow_sync, 25, |node| {
        node.kill();
    });
    are_taken_over(&fleet);
    sign_after_standing_still(&fleet.homes);
}

#[test]
fn data_of_nodes_that_were_stopped_before_the_first_run_are_taken_over() {
    are_taken_over(&run_by_hand(&[], 25, |node| {
        node.stop();
    }));
}

#[test]
fn a_new_network_whose_data_was_made_before_the_first_run_begins() {
    let fleet = unplanned(&LONG_CONTACT);
    for index in 0..4 {
        let mut alone = fleet.by_hand(index).start();
        alone.stop();
        assert_eq!(fleet.homes[index].traces().starts()[0]["head"], 0);
    }
    are_taken_over(&fleet);
}

#[test]
fn nodes_that_run_without_a_supervisor_are_taken_over_one_by_one() {
    let fleet = unplanned(&[LONG_CONTACT.as_slice(), &[("rewind", "3")]].concat());
    let mut nodes: Vec<SimNode> = (0..4).map(|index| fleet.by_hand(index).start()).collect();
    let mut visors = Vec::new();
    for (index, node) in nodes.iter_mut().enumerate() {
        node.wait_head(25);
        if index % 2 == 0 {
            node.kill()
        } else {
            node.stop()
        };
        visors.push(fleet.run(index));
        wait_sealing(&visors[index..]);
        assert_eq!(fleet.homes[index].traces().starts()[1]["mine"], false);
    }
    fleet.goes_on();
}
