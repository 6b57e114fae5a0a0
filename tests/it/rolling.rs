//! Validators of one chain, each under its own supervisor, all upgraded at one height: they take turns.

use super::rig::sim::{try_call, until, wait_head};
use super::rig::visor::{Rig, Visor, send};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const H: u64 = 40;

/// The homes of the validators of one chain.
struct Fleet {
    network: TempDir,
    homes: Vec<Rig>,
}

impl Fleet {
    fn new(size: usize, fork: Option<u64>) -> Fleet {
        let network = tempfile::tempdir().unwrap();
        let home = || {
            let rig = Rig::with(&[("period", "50")]);
            let fork = fork.map(|fork| fork.to_string());
            let knows = fork.as_deref().map(|fork| ("fork", fork));
            let options: Vec<(&str, &str)> = [("period", "50")].into_iter().chain(knows).collect();
            rig.stage("v2", &options);
            let mut args = vec!["upgrade", "schedule", "v2", "40"];
            if let Some(fork) = &fork {
                args.extend(["--fork-height", fork]);
            }
            rig.ok(&args);
            rig.set("DAEMON_VALIDATOR_MODE", "true").set("DAEMON_SLOT_BLOCKS", "24")
        };
        Fleet { network, homes: (0..size).map(|_| home()).collect() }
    }

    /// Starts the supervisor of validator `index`.
    fn run(&self, index: usize) -> Visor<'_> {
        let (index_text, size) = (index.to_string(), self.homes.len().to_string());
        let network = self.network.path().to_str().unwrap();
        let chain = ["--sim.network", network, "--sim.index", &index_text, "--sim.validators", &size];
        let mut args = vec!["--mine"];
        args.extend(chain);
        self.homes[index].run_with(&[], &args)
    }

    fn ipc(&self, index: usize) -> PathBuf {
        self.homes[index].ipc()
    }

    /// When each validator was down for its upgrade: from its SIGTERM to its next start, in order.
    fn absences(&self) -> Vec<(u64, u64, usize)> {
        let ms = |value: &serde_json::Value| value["ms"].as_u64().unwrap();
        let mut absences: Vec<_> = self
            .homes
            .iter()
            .enumerate()
            .map(|(index, home)| {
                let (signals, starts) = (home.traces().signals(), home.traces().starts());
                assert_eq!((signals.len(), starts.len()), (1, 2), "one SIGTERM, one new start");
                (ms(&signals[0]), ms(&starts[1]), index)
            })
            .collect();
        absences.sort_unstable();
        absences
    }
}

fn wait_all(visors: &mut [Visor<'_>]) {
    for visor in visors {
        visor.wait(&["event=upgrade_ended", "name=v2", "outcome=applied"]);
    }
}

fn take_turns(size: usize) {
    let fleet = Fleet::new(size, None);
    let mut visors: Vec<Visor<'_>> = (0..size).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors);
    let absences = fleet.absences();
    for pair in absences.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two are down at the same time: {absences:?}");
    }
    for (index, home) in fleet.homes.iter().enumerate() {
        assert_eq!(home.current(), "upgrades/v2");
        wait_head(&fleet.ipc(index), H);
    }
    for visor in &mut visors {
        assert_eq!(visor.stop(), 0);
    }
}

#[test]
fn four_validators_take_turns() {
    take_turns(4);
}

#[test]
fn seven_validators_take_turns() {
    take_turns(7);
}

#[test]
fn with_one_validator_dead_the_others_wait_for_it() {
    let fleet = Fleet::new(4, None);
    let mut visors: Vec<Visor<'_>> = (0..3).map(|index| fleet.run(index)).collect();
    let hold = |visor: &Visor<'_>| {
        visor.wait_status("a gate that holds", |status| {
            let hold = status["planned"][0]["hold"].as_str()?.to_owned();
            hold.contains("3 of 4 live, need 3 without us, have 2").then_some(hold)
        })
    };
    visors.iter().for_each(|visor| drop(hold(visor)));
    assert!(fleet.homes.iter().all(|home| home.traces().signals().is_empty()), "nobody has stopped");
    visors.push(fleet.run(3));
    wait_all(&mut visors);
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
fn the_fork_ends_all_patience() {
    // The fourth never comes, so that no gate would ever open; at the last block before the fork the old
    // binary is of no use any more.
    let fleet = Fleet::new(4, Some(80));
    let mut visors: Vec<Visor<'_>> = (0..3).map(|index| fleet.run(index)).collect();
    wait_all(&mut visors);
    for home in &fleet.homes[..3] {
        let starts = home.traces().starts();
        assert!(starts[1]["head"].as_u64().unwrap() >= 79, "{starts:?}");
    }
}

#[test]
fn a_supervisor_whose_node_does_not_answer_holds_nobody_else_up() {
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
