//! Validators of one chain, each under its own supervisor, all upgraded at one height: they take turns.

use crate::rig::fleet::{Fleet, H, wait_all};
use crate::rig::sim::{Sim, head, try_call, until, wait_head};
use crate::rig::visor::{Visor, send};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use wemixvisor::wbft::quorum::quorum;
use wemixvisor::wbft::{Address, Client, Endpoint, Options, Window};

/// A block as it was decided.
struct Decision {
    height: u64,
    /// The validators that voted for it, late ones included.
    voters: BTreeSet<Address>,
    /// Whose turn to propose it was passed over.
    passed_over: Vec<Address>,
}

/// Every block but the last, from the first one for which `size` validators voted.
fn decisions(ipc: &Path, size: usize) -> Vec<Decision> {
    let mut node = Client::new(&Endpoint::Ipc(ipc.to_owned()), Options::default());
    let head = node.head().unwrap().number;
    let headers = node.headers(0..=head).unwrap();
    let mut window = Window::after(&headers[0], node.validators(0).unwrap().unwrap()).unwrap();
    let mut decisions: Vec<Decision> = Vec::new();
    for header in &headers[1..] {
        let (set, before) = (window.validators().to_vec(), window.head().proposer);
        window.push(header).unwrap();
        let block = window.head();
        if let Some(last) = decisions.last_mut() {
            last.voters.clone_from(&block.sealers);
        }
        let next = set.iter().position(|v| *v == before).map_or(0, |at| at + 1);
        let passed_over = (0..block.round as usize).map(|round| set[(next + round) % set.len()]).collect();
        decisions.push(Decision { height: block.number, voters: BTreeSet::new(), passed_over });
    }
    decisions.pop();
    let first = decisions.iter().position(|d| d.voters.len() == size).expect("a block with every vote");
    decisions.split_off(first)
}

/// Checks that the chain never halted and that whoever lost a turn was away, and alone with that unless `away` are.
pub(crate) fn no_validator_was_missed(ipc: &Path, size: usize, there: usize) {
    let decisions = decisions(ipc, there);
    assert!(decisions.first().is_some_and(|d| d.height < H), "all were there before it began");
    for pair in decisions.windows(2) {
        let [before, now] = pair else { unreachable!("windows of two") };
        let (height, voters) = (now.height, now.voters.len());
        assert!(voters + 1 >= there && voters >= quorum(size), "block {height}: {voters} voters");
        assert!(now.passed_over.len() <= 1 + size - there, "block {height}: {:?}", now.passed_over);
        for loser in &now.passed_over {
            let away = !(now.voters.contains(loser) && before.voters.contains(loser));
            assert!(away, "block {height}: {loser} lost its turn though it was there");
        }
    }
}

fn take_turns(size: usize, there: usize) {
    let fleet = Fleet::new(size, None);
    let mut visors: Vec<Visor<'_>> = (0..there).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors);
    let absences = fleet.absences(there);
    for pair in absences.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two are down at the same time: {absences:?}");
    }
    for (index, home) in fleet.homes[..there].iter().enumerate() {
        assert_eq!(home.current(), "upgrades/v2");
        wait_head(&fleet.ipc(index), H);
    }
    no_validator_was_missed(&fleet.ipc(0), size, there);
    for visor in &mut visors {
        assert!(!visor.log().contains("event=peers_not_removed"));
        assert_eq!(visor.stop(), 0);
    }
    fleet.audit();
}

#[test]
fn four_validators_take_turns() {
    take_turns(4, 4);
}

#[test]
fn seven_validators_of_which_one_is_dead_take_turns_all_the_same() {
    take_turns(7, 6);
}

#[test]
fn whoever_joins_or_leaves_the_set_meanwhile_is_upgraded_like_all_others() {
    let fleet = Fleet::new(5, None);
    // At the height the last one does not vote; when an epoch ends later, it takes the place of the third.
    let sets = "[[10,[0,1,2,3]],[60,[0,1,3,4]]]";
    fs::write(fleet.network.path().join("sets.json"), sets).unwrap();
    let mut visors: Vec<Visor<'_>> = (0..5).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors);
    assert!(visors[4].log().contains("we are not among the validators"));
    wait_head(&fleet.ipc(0), 64);
    no_validator_was_missed(&fleet.ipc(0), 4, 4);
}

#[test]
fn when_the_quorum_is_lost_midway_no_node_stops_until_it_is_back() {
    let fleet = Fleet::new(4, None);
    let mut visors: Vec<Visor<'_>> = (0..4).map(|index| fleet.run(index)).collect();
    // One is upgraded, and the one that is left beside it has its turn last.
    let is_upgraded =
        |index: &usize| fleet.homes[*index].history().iter().any(|l| l.contains("outcome=applied"));
    let first = until("the first upgrade", || (0..4).find(is_upgraded));
    let opens_at = |index: &usize| visors[*index].status()["planned"][0]["turn"]["opens_at"].as_u64();
    let last = until("the last one", || (0..4).filter(|i| *i != first).max_by_key(opens_at));
    let lost: Vec<usize> = (0..4).filter(|index| ![first, last].contains(index)).collect();
    for index in &lost {
        assert_eq!(visors[*index].stop(), 0);
    }
    let hold = visors[last].wait_status("the gates of a halted chain", |status| {
        let hold = status["planned"][0]["hold"].as_str()?.to_owned();
        hold.contains("calm: the head is").then_some(hold)
    });
    assert_eq!(fleet.homes[last].traces().signals().len(), 0, "{hold}");
    for index in &lost {
        visors[*index] = fleet.run(*index);
    }
    // Out of turn they come back silent, and sign when all have stood still for a while.
    for index in &lost {
        visors[*index].wait(&["event=sealing"]);
    }
    for index in lost.iter().chain([&last]) {
        visors[*index].wait(&["event=upgrade_ended", "name=v2", "outcome=applied"]);
    }
}

#[test]
fn a_killed_validator_comes_back_silent_and_seals_when_that_is_safe() {
    let fleet = Fleet::new(4, None);
    let mut visors: Vec<Visor<'_>> = (0..4).map(|index| fleet.run(index)).collect();
    fleet.homes.iter().for_each(|home| drop(home.ok(&["upgrade", "cancel", "v2"])));
    wait_head(&fleet.ipc(3), 5);
    send(visors[3].node(), rustix::process::Signal::KILL);
    visors[3].wait(&["event=unclean_stop"]);
    visors[3].wait(&["event=silent_start"]);
    visors[3].wait(&["event=sealing"]);
    let starts = fleet.homes[3].traces().starts();
    assert_eq!((&starts[0]["mine"], &starts[1]["mine"]), (&true.into(), &false.into()));
    assert_eq!(fleet.homes[3].journal()["silent"], serde_json::Value::Null);
    until("its engine", || {
        let mining = try_call(&fleet.ipc(3), "eth_mining", &serde_json::json!([]))?;
        (mining == true).then_some(())
    });
}

#[test]
fn a_twin_with_the_same_key_halts_a_validator_that_is_silent() {
    let fleet = Fleet::new(4, None);
    let mut visors: Vec<Visor<'_>> = (0..4).map(|index| fleet.run(index)).collect();
    fleet.homes.iter().for_each(|home| drop(home.ok(&["upgrade", "cancel", "v2"])));
    wait_head(&fleet.ipc(3), 5);
    // The machine loses its power, and the operator moves the validator to another one.
    let node = visors[3].node();
    visors[3].kill();
    send(node, rustix::process::Signal::KILL);
    let lost_at = head(&fleet.ipc(0));
    let network = fleet.network.path();
    let twin = Sim::new(network.join("twin")).option("network", network.display()).option("index", 3);
    let _twin = twin.option("validators", 4).option("period", 50).start();
    // Long enough that what the lost node knows is out of date: the blocks of these tests come fast, but a head
    // counts as fresh for three seconds.
    until("the twin to seal for a while", || {
        let shown = fleet.homes[0].output(&["consensus", "--json"]).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).ok()?;
        let seals = |v: &serde_json::Value| v["last_commit"].as_u64().is_some_and(|h| h > lost_at + 80);
        shown["consensus"]["validators"].as_array()?.iter().all(seals).then_some(())
    });
    // The power comes back.
    let mut visor = fleet.run(3);
    visor.wait(&["event=duplicate_signer", "has a seal of our key"]);
    assert_eq!(visor.end(), 79);
    let starts = fleet.homes[3].traces().starts();
    assert_eq!((&starts[0]["mine"], &starts[1]["mine"]), (&true.into(), &false.into()));
    let refused = fleet.homes[3].output(&["resolve", "sign"]);
    assert_eq!(refused.status.code(), Some(3), "no node runs that could prove anything");
    fleet.homes[3].ok(&["resolve", "retry"]);
    assert_eq!(fleet.homes[3].journal()["silent"], true);
}

#[test]
fn the_fork_ends_all_patience() {
    // The fourth never comes, so that no gate would ever open; at the last block before the fork the old
    // binary is of no use any more.
    let fleet = Fleet::new(4, Some(80));
    let mut visors: Vec<Visor<'_>> = (0..3).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors);
    for home in &fleet.homes[..3] {
        let starts = home.traces().starts();
        assert!(starts[2]["head"].as_u64().unwrap() >= 79, "{starts:?}");
    }
}

#[test]
fn a_supervisor_whose_node_does_not_answer_holds_no_other_up() {
    let fleet = Fleet::new(4, None);
    fs::create_dir_all(fleet.homes[0].data()).unwrap();
    fleet.homes[0].traces().script(&serde_json::json!({"rpc": "hang"}));
    let mut visors: Vec<Visor<'_>> = (0..4).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors[1..]);
    assert_eq!(fleet.homes[0].traces().signals().len(), 0, "the one that knows nothing is left alone");
    assert_eq!(fleet.homes[0].current(), "genesis");
}

#[test]
fn the_consensus_is_shown_and_a_node_that_can_be_spared_is_told_from_one_that_cannot() {
    let fleet = Fleet::new(4, None);
    fleet.homes.iter().for_each(|home| drop(home.ok(&["upgrade", "cancel", "v2"])));
    let mut visors: Vec<Visor<'_>> = (0..4).map(|index| fleet.run(index)).collect();
    let home = &fleet.homes[0];
    let show = || -> serde_json::Value {
        serde_json::from_slice(&home.output(&["consensus", "--json"]).stdout).unwrap_or_default()
    };
    until("four that are live", || (show()["consensus"]["live"] == 4).then_some(()));
    let shown = show();
    assert_eq!(
        (&shown["consensus"]["quorum"], &shown["consensus"]["is_validator"]),
        (&3.into(), &true.into()),
        "{shown}"
    );
    until("a calm moment", || home.output(&["check"]).status.success().then_some(()));
    assert!(home.ok(&["consensus"]).contains("4 of 4 live, quorum 3, margin 1"));
    assert_eq!(visors[3].stop(), 0);
    let why = until("a missing one", || {
        let out = home.output(&["check"]);
        let why = String::from_utf8(out.stderr).unwrap();
        (out.status.code() == Some(5) && why.contains("need 3 without us")).then_some(why)
    });
    assert!(why.contains("3 of 4 live"), "{why}");
}
