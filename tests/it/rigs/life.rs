//! A long life of kills: of supervisors with upgrades before them, of supervisors at rest, and of nothing but many
//! supervisors that start at once. Here the moments are random; the other rigs choose them by system call.

use super::settings::Settings;
use crate::rig::sim::{comes_within, until};
use crate::rig::visor::{Rig, is_alive, working_on};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Upgrades in a row: of `cargo test`, and of the full set.
const UPGRADES: (usize, usize) = (3, 60);
/// Kills of a supervisor at rest.
const KILLS: (usize, usize) = (20, 1000);
/// Rounds of simultaneous starts, and the supervisors of each.
const ROUNDS: (usize, usize) = (3, 200);
const STARTS: usize = 8;

#[test]
fn every_upgrade_is_applied_once_whatever_becomes_of_its_supervisors() {
    let settings = Settings::new();
    if !settings.wants("upgrades") {
        return;
    }
    let count = settings.count(UPGRADES);
    println!("upgrades: {count} in a row, {}", settings.replay("upgrades", 0));
    let rig = Rig::new();
    let names: Vec<String> = (2..count + 2).map(|number| format!("v{number:03}")).collect();
    for (number, name) in (1..).zip(&names) {
        rig.stage(name, &[]);
        fs::remove_file(rig.path().join(name)).unwrap();
        rig.schedule(name, number * 5);
    }
    let mut random = settings.random();
    let ended = || rig.journal()["ended"].as_array().map_or(0, Vec::len);
    let mut kills = 0;
    let mut visor = loop {
        let mut visor = rig.run();
        let life = Duration::from_millis(random.next() % 2000);
        if comes_within(life, || ended() == count) {
            break visor;
        }
        visor.kill();
        kills += 1;
        assert!(kills < 100 * count, "it comes to no end: {}", rig.journal());
    };
    let head = visor.wait_node();
    visor.wait_head(head + 3);
    assert_eq!(visor.stop(), 0);

    // Each node is followed by the next one, and by nothing else, with one exception: where the node ended for its
    // upgrade without a supervisor that saw it, the old binary runs once more.
    let mut versions = rig.versions();
    let expected: Vec<_> = ["v1"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let log = || fs::read_to_string(rig.path().join("visor.log")).unwrap_or_default();
    let unseen = log().matches("the stop for the upgrade was not finished; starting the old binary").count();
    // One that is killed before it has started that is followed by one that finds the same.
    assert!((count + 1..=count + 1 + unseen).contains(&versions.len()), "{versions:?} {}", log());
    versions.dedup();
    assert_eq!(versions, expected, "{}", log());
    println!("upgrades: {kills} kills, {unseen} of them while the node was stopping");
    let record = rig.journal();
    for (name, ended) in names.iter().zip(record["ended"].as_array().unwrap()) {
        assert_eq!(
            (ended["name"].as_str(), ended["outcome"].as_str()),
            (Some(name.as_str()), Some("applied"))
        );
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for line in rig.history().iter().filter(|line| line.starts_with("upgrade_ended ")) {
        *told.entry(line.clone()).or_default() += 1;
    }
    assert_eq!(told.values().sum::<usize>(), count, "{told:?}");
    assert_eq!(rig.traces().overlaps().len(), 0);
}

#[test]
fn the_death_of_a_supervisor_costs_its_node_nothing() {
    let settings = Settings::new();
    if !settings.wants("deaths") {
        return;
    }
    let count = settings.count(KILLS);
    println!("deaths: {count}, {}", settings.replay("deaths", 0));
    let rig = Rig::new();
    let mut visor = rig.run();
    let mut head = visor.wait_node();
    let node = visor.node();
    visor.kill();
    let mut random = settings.random();
    for _ in 0..count {
        let mut visor = rig.run();
        // Some do not come as far as the adoption, some have the node for a while.
        let life = Duration::from_millis(random.next() % 120);
        assert!(
            !comes_within(life, || visor.has_ended().is_some()),
            "it has ended by itself: {}",
            visor.log()
        );
        visor.kill();
        assert!(is_alive(node));
    }
    let mut visor = rig.run();
    let now = visor.wait_node();
    assert!(now > head, "it has made no blocks");
    head = now;
    visor.wait_head(head + 3);
    assert_eq!((visor.node(), rig.traces().starts().len(), rig.traces().signals().len()), (node, 1, 0));
    assert_eq!(visor.stop(), 0);
    assert_eq!(rig.traces().signals().len(), 1);
}

#[test]
fn of_many_supervisors_that_start_at_once_one_has_the_home() {
    let settings = Settings::new();
    if !settings.wants("starts") {
        return;
    }
    let rounds = settings.count(ROUNDS);
    println!("starts: {rounds} rounds of {STARTS}");
    let rig = Rig::new();
    let mut starts = 0;
    let mut is_left = false;
    for round in 0..rounds {
        let mut visors: Vec<_> = (0..STARTS).map(|_| rig.run()).collect();
        until("the end of all but one", || {
            let ended: Vec<_> = visors.iter_mut().filter_map(|visor| visor.has_ended()).collect();
            assert!(ended.iter().all(|code| *code == 75), "round {round}: {ended:?}");
            assert!(ended.len() < STARTS, "round {round}: none is left");
            (ended.len() == STARTS - 1).then_some(())
        });
        let mut winner = visors.into_iter().find_map(|mut v| v.has_ended().is_none().then_some(v)).unwrap();
        winner.wait_status("a node", |status: &Value| (status["state"] == "running").then_some(()));
        starts += usize::from(!is_left);
        let nodes = working_on(&rig.data()).into_iter().filter(|pid| *pid != winner.pid() && is_alive(*pid));
        assert_eq!(nodes.collect::<Vec<_>>(), [winner.node()], "round {round}");
        until("its trace", || (rig.traces().starts().len() == starts).then_some(()));
        // Every second round they find a node that runs.
        is_left = round % 2 == 0 && round + 1 < rounds;
        if is_left {
            rig.ok(&["detach"]);
            assert_eq!(winner.end_beside(), 0);
        } else {
            assert_eq!(winner.stop(), 0);
        }
    }
    assert_eq!((rig.traces().overlaps().len(), rig.traces().starts().len()), (0, starts));
}
