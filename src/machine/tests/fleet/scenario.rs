//! The kind of network, the plans of its operators and the faults: all of it decided by the seed before a run begins.

use super::dice::Dice;
use crate::machine::gates::{self, room_needed};
use crate::machine::quorum::margin;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) validators: usize,
    /// Nodes that may join the set.
    pub(super) extras: usize,
    pub(super) height: u64,
    pub(super) epoch: u64,
    /// The chance in percent that the set changes with an epoch.
    pub(super) changes: u64,
    /// Whether the peers refuse an address that has connected a moment ago.
    pub(super) public: bool,
    /// The blocks to which a killed node goes back: the last multiple.
    pub(super) layer: u64,
    /// Whether stops may take minutes.
    pub(super) slow_stops: bool,
    /// The longest time that a supervisor may wait for its disk, in milliseconds.
    pub(super) slow_disk: u64,
    /// Whether nodes report the forks that they know.
    pub(super) names_forks: bool,
    pub(super) upgrades: Vec<Planned>,
    /// The seconds that a hook takes at most; 0 for none.
    pub(super) hook: u64,
    pub(super) backup: bool,
    /// The chance in percent that a question is answered by an error.
    pub(super) errors: u64,
    /// The clock of one node is off by these seconds.
    pub(super) skew: Option<(usize, i64)>,
    /// The chance in percent that a binary is downloaded late, and that a download fails.
    pub(super) late: u64,
    pub(super) failing: u64,
    /// The faults, and their times in milliseconds.
    pub(super) faults: Vec<(u64, Fault)>,
}

/// An upgrade as the network has agreed on it.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// The height in the plan of each operator.
    pub(super) heights: Vec<u64>,
    pub(super) fork: Option<u64>,
    /// Whether the chain has that fork: its operators may be mistaken.
    pub(super) is_true: bool,
    /// The binary that each operator has.
    pub(super) binaries: Vec<Binary>,
}

/// How a new binary behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Good,
    /// It follows the chain and never seals.
    Mute,
    /// It ends as soon as it is executed.
    Crashes,
    /// It ends some seconds after its start, unless it has no peers.
    CrashesLater,
    /// It lacks the fork that it was made for.
    Forkless,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node is killed.
    Crash(usize),
    /// Node and supervisor of these are gone, and come back after so many milliseconds each.
    PowerLoss(Vec<(usize, u64)>),
    /// The supervisors of these die, and their nodes are asked to stop.
    SupervisorsDie(Vec<(usize, u64)>),
    /// It never comes back.
    Death(usize),
    Restart(usize),
    /// One head that is not there, so far above the real one.
    Lie(usize, u64),
    /// Two of them, linked.
    TwoLies(usize, u64),
    /// A node of another chain answers for so many milliseconds.
    Foreign(usize, u64),
}

impl Scenario {
    /// One upgrade, and nothing goes wrong.
    pub(super) fn peaceful(validators: usize, dice: &mut Dice) -> Scenario {
        let height = dice.within(200, 2000);
        let first = height + dice.within(20, 50);
        Scenario {
            validators,
            extras: 0,
            height,
            epoch: dice.pick(&[10, 20, 50, 140, 100_000]),
            changes: 0,
            public: dice.chance(50),
            layer: dice.pick(&[1, 10, 50, 200]),
            slow_stops: false,
            slow_disk: 0,
            names_forks: true,
            upgrades: vec![Planned {
                heights: vec![first; validators],
                fork: None,
                is_true: true,
                binaries: vec![Binary::Good; validators],
            }],
            hook: 0,
            backup: false,
            errors: 0,
            skew: None,
            late: 0,
            failing: 0,
            faults: Vec::new(),
        }
    }

    /// One of many kinds.
    pub(super) fn random(seed: u64, largest: usize, dice: &mut Dice) -> Scenario {
        let validators = match dice.within(0, 99) {
            0..10 => 1,
            10..15 => dice.within(2, 3) as usize,
            15..60 => 4,
            60..75 => 5,
            75..95 => 7,
            _ => dice.within(8, largest as u64) as usize,
        };
        let mut scenario = Scenario::peaceful(validators, dice);
        if seed.is_multiple_of(10) {
            return scenario;
        }
        if dice.chance(30) {
            scenario.changes = 50;
            scenario.extras = validators.div_ceil(4);
        }
        scenario.slow_stops = dice.chance(5);
        scenario.slow_disk = dice.pick(&[0, 0, 0, 50, 3_000, 20_000]);
        scenario.names_forks = !seed.is_multiple_of(7);
        let mistaken = scenario.upgrades.iter_mut().filter(|_| seed.is_multiple_of(13));
        mistaken.for_each(|planned| planned.is_true = false);
        scenario.hook = if dice.chance(30) { dice.within(1, 60) } else { 0 };
        scenario.backup = dice.chance(50);
        scenario.errors = if dice.chance(50) { 3 } else { 0 };
        if dice.chance(15) {
            let off = dice.within(2, 10) as i64;
            let off = if dice.chance(50) { off } else { -off };
            scenario.skew = Some((dice.within(0, validators as u64 - 1) as usize, off));
        }
        scenario.late = if dice.chance(30) { 30 } else { 0 };
        scenario.failing = if dice.chance(20) { 30 } else { 0 };
        scenario.plan(dice);
        scenario.draw_faults(dice);
        scenario
    }

    pub(super) fn nodes(&self) -> usize {
        self.validators + self.extras
    }

    fn plan(&mut self, dice: &mut Dice) {
        let nodes = self.nodes() as u64;
        let mut base = self.height + dice.within(15, 60);
        self.upgrades.clear();
        if dice.chance(20) {
            // Just before a slot ends, where the next group would follow unseen.
            base = base.next_multiple_of(gates::SLOT) - dice.within(1, 4);
        }
        for _ in 0..dice.pick(&[1, 1, 1, 2, 2, 3]) {
            let spread = if dice.chance(40) { dice.within(1, 80) } else { 0 };
            let heights: Vec<u64> = (0..nodes).map(|_| base + dice.within(0, spread)).collect();
            let room = room_needed(self.validators);
            let fork = match dice.within(0, 9) {
                0..5 => None,
                5..7 => Some(dice.within(30, room.max(40))),
                _ => Some(room + dice.within(0, 300)),
            };
            let fork = fork.map(|blocks| base + spread + blocks);
            let mut binaries = vec![Binary::Good; nodes as usize];
            if dice.chance(15) {
                let bad = [Binary::Crashes, Binary::CrashesLater, Binary::Forkless, Binary::Mute];
                // A mute validator of three stops the chain, which then cannot show that it has not signed.
                let bad = dice.pick(&bad[..if self.validators < 4 { 3 } else { 4 }]);
                if bad != Binary::Forkless || fork.is_some() {
                    binaries[dice.within(0, nodes - 1) as usize] = bad;
                }
            }
            self.upgrades.push(Planned { heights, fork, is_true: true, binaries });
            base += spread + dice.within(1, 60);
        }
    }

    /// The time until which things go wrong, in milliseconds.
    pub(super) fn troubled_until(&self) -> u64 {
        self.faults.iter().map(|(at, _)| *at).max().unwrap_or(0)
    }

    fn draw_faults(&mut self, dice: &mut Dice) {
        let nodes = self.nodes() as u64;
        let span = 1000 * (40 + 24 * nodes.min(10) * self.upgrades.len() as u64);
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 3, 5]) {
            let at = dice.within(5_000, span);
            let i = dice.within(0, nodes - 1) as usize;
            let some = |dice: &mut Dice, percent, least, most| -> Vec<(usize, u64)> {
                let hit: Vec<usize> = (0..nodes as usize).filter(|_| dice.chance(percent)).collect();
                hit.into_iter().map(|i| (i, dice.within(least, most))).collect()
            };
            let fault = match dice.within(0, 99) {
                0..25 => Fault::Crash(i),
                25..35 => Fault::PowerLoss(some(dice, 100, 5_000, 60_000)),
                35..45 => Fault::PowerLoss(some(dice, 50, 5_000, 60_000)),
                45..52 => Fault::SupervisorsDie(some(dice, 100, 1_000, 20_000)),
                52..60 => Fault::SupervisorsDie(some(dice, 40, 1_000, 20_000)),
                60..75 => Fault::Restart(i),
                75..83 => Fault::Lie(i, dice.pick(&[1, 2, 5, 100, 1_000_000])),
                83..90 => Fault::TwoLies(i, dice.pick(&[100, 1_000, 1_000_000])),
                90..95 => Fault::Foreign(i, dice.within(1_000, 20_000)),
                _ if margin(self.validators) > 0 => Fault::Death(i),
                _ => Fault::Crash(i),
            };
            self.faults.push((at, fault));
        }
        // One validator may be lost for ever, no more.
        let mut dead = false;
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::Death(_)) || !std::mem::replace(&mut dead, true));
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// The seconds within which all must be well when nothing goes wrong any more.
    pub(super) fn patience(&self) -> u64 {
        let last = self.upgrades.iter().flat_map(|u| u.heights.iter().copied().chain(u.fork)).max();
        let blocks = last.unwrap_or(0).saturating_sub(self.height);
        let cycles = 6 * self.upgrades.len() as u64 * room_needed(self.nodes());
        blocks * 2 + cycles + 2400 + gates::SLOT
    }
}
