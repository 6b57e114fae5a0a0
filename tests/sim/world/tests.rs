//! The recorded rules of consensus, played in simulated time.

use super::*;

const START: u64 = 1_800_000_000_000;

fn params(validators: usize) -> Params {
    Params {
        chain_id: 1,
        validators,
        crowd: false,
        epoch: 10,
        fields: 10,
        period: 1000,
        timeout: 2000,
        slow: 0,
        sets: Vec::new(),
    }
}

fn members(indices: impl IntoIterator<Item = usize>) -> Vec<Member> {
    let member = |index| Member {
        index,
        pid: index as u32,
        joined: 0,
        version: "v1.0.0".into(),
        forks: Vec::new(),
        mining: true,
        following: true,
        connected: true,
        freeze: None,
        removed: Vec::new(),
        top: None,
    };
    indices.into_iter().map(member).collect()
}

/// Plays from `from` to `until` in steps of 10 ms.
fn play(world: &mut World, params: &Params, members: &[Member], from: u64, until: u64) {
    for now in (from..=until).step_by(10) {
        world.advance(params, members, now);
    }
}

fn awake(params: &Params) -> World {
    let mut world = World::new(params.genesis());
    world.wake(params, START);
    world
}

#[test]
fn a_healthy_network_decides_one_block_per_period_in_round_0_with_every_vote() {
    let params = params(4);
    let mut world = awake(&params);
    play(&mut world, &params, &members(0..4), START, START + 30_000);
    assert_eq!(world.tip().number, 31);
    for pair in world.blocks[1..].windows(2) {
        assert_eq!(pair[1].round, 0);
        assert_eq!(pair[1].votes, [0, 1, 2, 3]);
        assert_eq!(pair[1].prev_votes, pair[0].votes);
        let list = params.validators_at(pair[1].number);
        let last = list.iter().position(|index| *index == pair[0].miner).unwrap();
        assert_eq!(pair[1].miner, list[(last + 1) % 4]);
    }
}

#[test]
fn a_dead_proposer_costs_a_round() {
    let params = params(4);
    let mut world = awake(&params);
    play(&mut world, &params, &members([0, 1, 3]), START, START + 60_000);
    let rounds: Vec<u64> = world.blocks[1..].iter().map(|block| block.round).collect();
    let late = rounds.iter().filter(|round| **round == 1).count();
    assert!(rounds.iter().all(|round| *round <= 1));
    // About every third block of those that three proposers share.
    assert!(late * 5 > rounds.len() && late * 2 < rounds.len(), "{late} of {}", rounds.len());
    assert!(world.blocks[1..].iter().all(|block| block.miner != 2 && block.votes == [0, 1, 3]));
}

#[test]
fn without_quorum_the_chain_halts_and_the_rounds_climb() {
    let params = params(4);
    let mut world = awake(&params);
    play(&mut world, &params, &members(0..4), START, START + 5_000);
    let halted = world.tip().number;
    play(&mut world, &params, &members(0..2), START + 5_010, START + 25_000);
    assert_eq!(world.tip().number, halted);
    // 2 + 4 + 8 seconds have passed, 16 more have not.
    assert_eq!(world.round, 3);
    play(&mut world, &params, &members(0..4), START + 25_010, START + 27_000);
    assert_eq!((world.blocks[halted as usize + 1].round, world.tip().number), (3, halted + 2));
}

#[test]
fn a_recovery_waits_for_the_timer_of_an_absent_proposer() {
    let params = params(4);
    let mut world = awake(&params);
    let absent = params.proposer(world.tip(), 2);
    let back: Vec<usize> = (0..4).filter(|index| *index != absent).collect();
    play(&mut world, &params, &members(back[..2].iter().copied()), START, START + 7_000);
    assert_eq!((world.round, world.tip().number), (2, 0));
    play(&mut world, &params, &members(back.iter().copied()), START + 7_010, START + 13_900);
    assert_eq!(world.tip().number, 0);
    play(&mut world, &params, &members(back.iter().copied()), START + 13_910, START + 14_000);
    assert_eq!((world.tip().number, world.tip().round), (1, 3));
}

#[test]
fn a_delay_of_the_machine_is_no_round_change() {
    let params = params(4);
    let mut world = awake(&params);
    world.advance(&params, &members(0..4), START);
    world.advance(&params, &members(0..4), START + 500_000);
    assert_eq!((world.tip().number, world.tip().round), (2, 0));
}

#[test]
fn silent_validators_and_those_behind_do_not_vote() {
    let params = params(4);
    let mut world = awake(&params);
    let mut all = members(0..4);
    all[1].mining = false;
    play(&mut world, &params, &all, START, START + 10_000);
    assert!(world.blocks[1..].iter().all(|block| block.votes == [0, 2, 3]));
    let halted = world.tip().number;
    all[2].following = false;
    play(&mut world, &params, &all, START + 10_010, START + 60_000);
    assert_eq!(world.tip().number, halted);
}

#[test]
fn a_frozen_validator_does_not_vote_above_its_height() {
    let params = params(4);
    let mut world = awake(&params);
    let mut all = members(0..4);
    for member in &mut all[..2] {
        member.freeze = Some(5);
    }
    play(&mut world, &params, &all, START, START + 20_000);
    assert_eq!((world.tip().number, &world.tip().votes), (5, &vec![0, 1, 2, 3]));
}

#[test]
fn a_fork_separates_those_that_know_it() {
    let params = params(4);
    let mut world = awake(&params);
    let mut all = members(0..4);
    for member in &mut all[..3] {
        member.forks = vec![5];
    }
    play(&mut world, &params, &all, START, START + 20_000);
    assert!(world.blocks[1..5].iter().all(|block| block.rules.is_empty() && block.votes.len() == 4));
    assert!(world.blocks[5..].iter().all(|block| block.rules == [5] && block.votes == [0, 1, 2]));
    assert!(world.tip().number > 8);
    // Two against two: neither side has a quorum for the block at the fork.
    let mut world = awake(&params);
    all[2].forks.clear();
    play(&mut world, &params, &all, START, START + 20_000);
    assert_eq!(world.tip().number, 4);
}

#[test]
fn two_processes_with_one_key_have_one_vote() {
    let params = params(4);
    let mut world = awake(&params);
    play(&mut world, &params, &members([0, 0, 1]), START, START + 20_000);
    assert_eq!(world.tip().number, 0);
}

#[test]
fn the_longer_chain_replaces_what_is_above_the_common_ancestor() {
    let params = params(4);
    let mut world = awake(&params);
    play(&mut world, &params, &members(0..4), START, START + 5_000);
    let mut other = world.clone();
    other.blocks.truncate(3);
    play(&mut other, &params, &members(0..3), START + 6_000, START + 16_000);
    world.adopt(&other.blocks);
    assert_eq!(world.blocks, other.blocks);
}

#[test]
fn the_first_to_come_begins_round_0_anew_and_does_not_wait_for_longer_than_a_period() {
    let params = params(1);
    let mut world = awake(&params);
    (world.round, world.due) = (5, START + 60_000);
    world.wake(&params, START);
    assert_eq!((world.round, world.due), (0, START + 1000));
}

#[test]
fn members_that_removed_each_other_are_no_peers() {
    let mut all = members([0, 1, 0]);
    assert!(all[0].sees(&all[1]) && all[1].sees(&all[0]));
    assert!(!all[0].sees(&all[2]), "a process with the same key");
    all[1].removed = vec![0];
    assert!(!all[0].sees(&all[1]) && !all[1].sees(&all[0]));
    all[1].removed.clear();
    all[1].connected = false;
    assert!(!all[0].sees(&all[1]) && all[1].sees(&all[0]));
}
