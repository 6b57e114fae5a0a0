//! A fleet of validators that all follow the gates, each seeing only what the chain shows it, too late.
//!
//! The chain is simulated block by block: a validator that is up votes, an absent proposer costs a round, and
//! without a quorum no block comes. Every validator looks at a head that may be some blocks old,
//! judges alone, and stops some blocks later. Operators plan the same upgrades at different heights, and several
//! upgrades close together. Around that, validators crash and come back, or do not; upgrades fail, the set
//! changes at epochs, and forks freeze the old binaries.
//!
//! The law: no stop leaves less than a quorum, as far as that could be known. Not known are crashes, stops that
//! a fork forces and changes of the set, each in the last [`VISIBLE`] blocks. The decisions of other validators
//! are not known either, and just that is what the turns are for, so it is not excused. No deadline ever lifts a turn.
//!
//! The rules are also left out one at a time ([`Rules`]), which must break the law: otherwise the law is worth nothing.
//!
//! Runs are numbered, and the number is the seed: `FLEET_SEED=<n>` begins with that one, `FLEET_RUNS=<k>` makes k of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use wemixvisor::wbft::Order;
use wemixvisor::wbft::gates::{
    AfterOwn, Gate, RECENT, Reason, SLOT, Sample, Seat, Slot, Validator, Verdict, deadline, judge,
    room_needed,
};
use wemixvisor::wbft::quorum::{margin, quorum};

/// The oldest head that a validator looks at, in blocks behind the real one.
const MAX_LAG: u64 = 3;
/// The longest time from a decision to the last vote, in blocks.
const MAX_DELAY: u64 = 3;
/// The blocks until an absence shows to all, and every validator that had decided before has stopped; and the
/// same again, until those stops show to the rest, which may have planned otherwise meanwhile.
const VISIBLE: u64 = 2 * (MAX_LAG + MAX_DELAY + RECENT + 1);
/// Time between blocks, in milliseconds.
const PERIOD: u64 = 1000;
/// The height of the first upgrade.
const HEIGHT: u64 = 1000;
/// The blocks for which a new binary proves itself before the next upgrade may begin.
const PROBATION: u64 = 60;
const NEVER: u64 = u64::MAX;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number from `low` to `high`, both included.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Which of the rules are obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// All.
    All,
    /// All but the turns.
    WithoutTurns,
    /// All, but a group may go in the quiet half of its slot as well.
    WithoutQuiet,
    /// All, but the turns end at the deadline of an upgrade.
    LiftedAtDeadline,
    /// All, but the slots of each upgrade count from its own height.
    CountedFromHeight,
}

/// The kind of network and of trouble.
#[derive(Clone, Debug)]
struct Scenario {
    validators: usize,
    /// Blocks from the first height at which each upgrade is planned: by the earliest operator.
    upgrades: Vec<u64>,
    /// How many blocks later the last operator plans the same upgrade.
    spread: u64,
    /// Validators that are down from before the upgrade, for ever.
    dead: usize,
    /// The mean number of blocks between crashes, after which a node comes back with the same binary; 0 for none.
    crash_every: u64,
    /// The chance in percent that an upgraded node never comes back.
    lost: u64,
    /// The length of an epoch, at whose end a validator joins or leaves; 0 for none.
    epoch: u64,
    /// The blocks from the last operator's height of each upgrade to its fork.
    fork: Option<u64>,
    /// The longest outage for an upgrade, in blocks.
    outage: u64,
    /// For how many blocks a seal proves that its validator is there.
    recent: u64,
    /// Whether the order of proposers is known.
    order: bool,
    /// Whether every head is looked at as soon as it is there, as supervisors do that reach their nodes.
    attentive: bool,
    rules: Rules,
}

impl Scenario {
    /// Nothing goes wrong.
    fn peaceful(validators: usize) -> Self {
        Scenario {
            validators,
            upgrades: vec![0],
            spread: 0,
            dead: 0,
            crash_every: 0,
            lost: 0,
            epoch: 0,
            fork: None,
            outage: 20,
            recent: RECENT,
            order: true,
            attentive: false,
            rules: Rules::All,
        }
    }

    /// One of many kinds, so that most networks are small and some are large.
    fn random(random: &mut Random) -> Self {
        let validators = match random.within(0, 9999) {
            0..7500 => random.within(4, 8),
            7500..9800 => random.within(9, 16),
            9800..9985 => random.within(17, 60),
            9985..9999 => random.within(61, 200),
            _ => random.within(201, 1000),
        };
        let mut scenario = Scenario::peaceful(validators as usize);
        scenario.outage = random.within(4, 60);
        scenario.order = random.chance(70);
        for _ in 0..random.within(0, 2) {
            let last = scenario.upgrades.last().copied().unwrap_or(0);
            scenario.upgrades.push(last + random.within(1, 100));
        }
        if random.chance(60) {
            scenario.spread = random.within(1, 100);
        }
        if random.chance(50) {
            scenario.dead = random.within(0, margin(scenario.validators) as u64 - 1) as usize;
            scenario.crash_every = random.within(30, 300);
            scenario.epoch = if random.chance(50) { random.within(10, 150) } else { 0 };
        }
        if random.chance(20) {
            scenario.lost = random.within(1, 20);
        }
        if random.chance(40) {
            scenario.fork = Some(random.within(30, 3 * room_needed(scenario.validators)));
        }
        scenario
    }

    fn is_peaceful(&self) -> bool {
        self.dead == 0 && self.crash_every == 0 && self.lost == 0 && self.epoch == 0 && self.fork.is_none()
    }

    /// The fork height of an upgrade.
    fn fork_of(&self, upgrade: usize) -> Option<u64> {
        Some(HEIGHT + self.upgrades[upgrade] + self.spread + self.fork?)
    }
}

#[derive(Clone)]
struct Node {
    validator: Validator,
    member: bool,
    /// The height of each upgrade in the plan of its operator.
    plan: Vec<u64>,
    /// The number of upgrades that it has made.
    upgraded: usize,
    /// The time from which it may make the next.
    proven_at: u64,
    /// The time from which its process runs; `NEVER` if it does not come back.
    up_at: u64,
    /// Whether a fork has frozen its binary.
    frozen: bool,
    /// Whether it votes for the next block, since which block, and if not, the last it voted for.
    votes: bool,
    since: u64,
    last_vote: u64,
    /// The head at its last absence that no gate foresees: a crash, a stop at the fork, or one that was decided
    /// outside the set.
    surprise: u64,
    /// How its stop was decided, while that is under way.
    stopping: Option<Decision>,
}

impl Node {
    /// Whether it follows the chain.
    fn serves(&self, now: u64) -> bool {
        self.up_at <= now && !self.frozen
    }
}

#[derive(Clone, Copy)]
struct Decision {
    forced: bool,
    voter: bool,
}

/// An event. Events of the same time happen in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Crash,
    Epoch,
    Stop(usize),
    Return,
    Look(usize),
}

/// The result of a run.
#[derive(Default)]
struct Outcome {
    /// A stop that left less than a quorum though that could have been known.
    violation: Option<String>,
    halted: bool,
    /// Whether a fork has forced a stop.
    forced: bool,
    /// Blocks from the height until all that live were upgraded.
    blocks: Option<u64>,
}

struct Fleet {
    random: Random,
    scenario: Scenario,
    nodes: Vec<Node>,
    /// The members of the set, as indices; how many of them vote.
    members: Vec<usize>,
    voting: usize,
    /// How many upgrades are still to be made, of all nodes together.
    left: usize,
    /// The members before the last change of the set, and the head at that change.
    before: (Vec<usize>, u64),
    /// The sets by the first height that each seals.
    sets: Vec<(u64, Vec<Validator>)>,
    /// The slot that was asked for last.
    slot: Option<(u64, Slot)>,
    queue: BinaryHeap<Reverse<(u64, Happening)>>,
    /// In blocks, or seconds without one.
    now: u64,
    clock: u64,
    head: u64,
    /// By height from the first: when each block came, and how many so far were decided in round 0.
    times: Vec<u64>,
    first_rounds: Vec<usize>,
    outcome: Outcome,
}

/// The height of the first simulated block: enough before the upgrade for a full window of rounds.
const FIRST: u64 = HEIGHT - 70;

impl Fleet {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = Random(seed);
        let mut nodes = Vec::new();
        for i in 0..scenario.validators + scenario.validators / 4 {
            let mut validator = [0; 20];
            validator[..8].copy_from_slice(&random.next().to_be_bytes());
            let mut own = |base: &u64| HEIGHT + base + random.within(0, scenario.spread);
            let mut plan: Vec<u64> = scenario.upgrades.iter().map(&mut own).collect();
            plan.sort_unstable();
            nodes.push(Node {
                validator,
                member: i < scenario.validators,
                plan,
                upgraded: 0,
                proven_at: 0,
                up_at: if i < scenario.dead { NEVER } else { 0 },
                frozen: false,
                votes: false,
                since: 0,
                last_vote: 0,
                surprise: 0,
                stopping: None,
            });
        }
        nodes.sort_by_key(|n| n.validator);
        let mut fleet = Fleet {
            members: Vec::new(),
            voting: 0,
            left: (nodes.len() - scenario.dead) * scenario.upgrades.len(),
            before: (Vec::new(), 0),
            sets: Vec::new(),
            slot: None,
            queue: BinaryHeap::new(),
            now: 0,
            clock: 0,
            head: FIRST - 1,
            times: Vec::new(),
            first_rounds: Vec::new(),
            outcome: Outcome::default(),
            nodes,
            random,
            scenario,
        };
        fleet.recount();
        fleet.note_set();
        for i in 0..fleet.nodes.len() {
            let at = HEIGHT - FIRST + fleet.random.within(0, 12);
            fleet.queue.push(Reverse((at, Happening::Look(i))));
        }
        if fleet.scenario.crash_every > 0 {
            fleet.queue.push(Reverse((10, Happening::Crash)));
        }
        if fleet.scenario.epoch > 0 {
            fleet.queue.push(Reverse((fleet.scenario.epoch, Happening::Epoch)));
        }
        fleet
    }

    fn run(mut self) -> Outcome {
        let Scenario { validators, upgrades, spread, .. } = &self.scenario;
        // Where things go wrong some are never upgraded, and waiting longer shows nothing new.
        let cycles = if self.scenario.is_peaceful() { 16 } else { 4 } * upgrades.len() as u64;
        let last = upgrades.last().copied().unwrap_or(0) + spread;
        let end = HEIGHT - FIRST + last + cycles * room_needed(*validators);
        while let Some(Reverse((at, what))) = self.queue.pop() {
            while self.now < at {
                self.now += 1;
                self.block();
            }
            match what {
                Happening::Crash => self.crash(),
                Happening::Epoch => self.change_set(),
                Happening::Stop(i) => self.stop(i),
                Happening::Return => self.recount(),
                Happening::Look(i) => self.look(i),
            }
            if self.left == 0 {
                self.outcome.blocks = Some(self.head - HEIGHT);
                break;
            }
            if self.now > end || self.outcome.violation.is_some() {
                break;
            }
        }
        self.outcome
    }

    /// The next block, if there is a quorum for it.
    fn block(&mut self) {
        self.clock += PERIOD;
        let forks = (0..self.scenario.upgrades.len()).filter_map(|u| self.scenario.fork_of(u));
        if forks.filter(|fork| *fork == self.head + 1).count() > 0 {
            self.recount();
        }
        if self.voting < quorum(self.members.len()) {
            self.outcome.halted = true;
            return;
        }
        self.head += 1;
        let mut round = 0;
        while !self.nodes[self.proposer(self.head, round)].votes {
            self.clock += (2 * PERIOD) << round.min(4);
            round += 1;
        }
        self.times.push(self.clock);
        let before = self.first_rounds.last().copied().unwrap_or(0);
        self.first_rounds.push(before + usize::from(round == 0));
    }

    fn proposer(&self, height: u64, round: usize) -> usize {
        self.members[(height as usize + round) % self.members.len()]
    }

    /// Notes which nodes vote for the next block, after anything that may change it.
    fn recount(&mut self) {
        let upgrades = 0..self.scenario.upgrades.len();
        let forked = |u: &usize| self.scenario.fork_of(*u).is_some_and(|fork| self.head + 1 >= fork);
        let needed = upgrades.filter(forked).count();
        self.voting = 0;
        self.members.clear();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            node.frozen = node.upgraded < needed;
            let votes = node.member && node.serves(self.now);
            match (node.votes, votes) {
                (false, true) => node.since = self.head + 1,
                (true, false) => node.last_vote = self.head,
                _ => {}
            }
            if node.frozen && node.votes {
                // No gate foresees that.
                node.surprise = self.head;
            }
            node.votes = votes;
            self.voting += usize::from(votes);
            if node.member {
                self.members.push(i);
            }
        }
    }

    /// Notes that the members of now seal from the next block on.
    fn note_set(&mut self) {
        let set = self.members.iter().map(|i| self.nodes[*i].validator).collect();
        self.sets.push((self.head + 1, set));
        self.slot = None;
    }

    /// The slot of a head, of the validators that seal its first block.
    fn slot_of(&mut self, head: u64) -> Slot {
        let first = Slot::first_block(head);
        if let Some((_, slot)) = self.slot.as_ref().filter(|(known, _)| *known == first) {
            return slot.clone();
        }
        let set = self.sets.iter().rev().find(|(from, _)| *from <= first).or(self.sets.first());
        let slot = Slot::of(head, set.map(|(_, set)| set.clone()).unwrap_or_default());
        self.slot = Some((first, slot.clone()));
        slot
    }

    /// Takes node `i` down for `outage` blocks or for ever.
    fn take_down(&mut self, i: usize, outage: Option<u64>) {
        let back = outage.map_or(NEVER, |o| self.now + o);
        if back != NEVER {
            self.queue.push(Reverse((back, Happening::Return)));
        }
        self.nodes[i].up_at = self.nodes[i].up_at.max(back);
        self.recount();
    }

    fn crash(&mut self) {
        let i = self.random.next() as usize % self.nodes.len();
        let outage = self.random.within(5, 80);
        if self.nodes[i].up_at <= self.now {
            self.nodes[i].surprise = self.head;
            self.take_down(i, Some(outage));
        }
        let next = self.now + self.random.within(1, 2 * self.scenario.crash_every);
        self.queue.push(Reverse((next, Happening::Crash)));
    }

    /// The end of an epoch: a validator joins or leaves.
    fn change_set(&mut self) {
        let i = self.random.next() as usize % self.nodes.len();
        // A chain that stands still has no epochs.
        let goes_on = self.head > self.before.1 + VISIBLE;
        if goes_on && (!self.nodes[i].member || self.members.len() > 4) {
            self.before = (self.members.clone(), self.head);
            self.nodes[i].member = !self.nodes[i].member;
            self.recount();
            self.note_set();
        }
        self.queue.push(Reverse((self.now + self.scenario.epoch, Happening::Epoch)));
    }

    /// Node `i` sees what the chain shows, and decides.
    fn look(&mut self, i: usize) {
        let node = &self.nodes[i];
        let Some(height) = node.plan.get(node.upgraded).copied().filter(|_| node.stopping.is_none()) else {
            return;
        };
        let (member, fork) = (node.member, self.scenario.fork_of(node.upgraded));
        let ready = node.up_at <= self.now && node.proven_at <= self.now;
        let attentive = self.scenario.attentive;
        let (lag, mut pause) = (self.random.within(0, MAX_LAG), self.random.within(3, 12));
        let lag = if attentive { 0 } else { lag };
        let head = self.head - lag.min(self.head - FIRST);
        if ready && head >= height {
            if fork.is_some_and(|fork| head + 1 >= fork) {
                return self.decide(i, Decision { forced: true, voter: member });
            }
            match self.verdict(i, head, height, fork) {
                Verdict::Go(_) => return self.decide(i, Decision { forced: false, voter: member }),
                Verdict::Hold(gates) => {
                    let turn = gates.iter().find_map(|gate| match gate {
                        Gate::Turn { opens_at, .. } | Gate::Share { opens_at, .. } => Some(*opens_at),
                        _ => None,
                    });
                    // Most have nothing to look for until their slot opens; some look all the same.
                    let left = turn.map_or(0, |opens_at| opens_at.saturating_sub(self.head));
                    if left > pause && !self.random.chance(20) && self.scenario.rules == Rules::All {
                        pause = left - self.random.within(0, 1) + self.random.within(0, 8);
                    }
                }
            }
        }
        pause = if attentive { 1 } else { pause };
        if let Some(left) = fork.and_then(|fork| (fork - 1).checked_sub(self.head)) {
            pause = pause.min(left.max(1));
        }
        self.queue.push(Reverse((self.now + pause, Happening::Look(i))));
    }

    /// The verdict of the gates, or of gates without one of their rules.
    fn verdict(&mut self, i: usize, head: u64, height: u64, fork: Option<u64>) -> Verdict {
        let me = self.nodes[i].validator;
        let mut sample = self.sample(head);
        let slot = match self.scenario.rules {
            Rules::CountedFromHeight => {
                // The same heights as seen from a grid that begins at the upgrade's own.
                sample.head = head - height;
                let set = self.slot_of(head);
                let members = self.members.iter().map(|m| self.nodes[*m].validator);
                if set.group(&me).is_some() { Slot::of(sample.head, members) } else { set }
            }
            _ => self.slot_of(head),
        };
        let lifted = match self.scenario.rules {
            Rules::WithoutTurns => true,
            Rules::LiftedAtDeadline => deadline(None, fork).is_some_and(|deadline| head >= deadline),
            Rules::WithoutQuiet => slot.group(&me) == Some(head / SLOT % slot.groups()),
            Rules::All | Rules::CountedFromHeight => false,
        };
        let mut verdict = judge(&me, Some(&slot), &sample, AfterOwn::Preferred);
        if let Verdict::Hold(gates) = &mut verdict
            && lifted
        {
            gates.retain(|gate| gate.name() != "turn");
            if gates.is_empty() {
                verdict = Verdict::Go(Reason::Open);
            }
        }
        // The order is looked at last, as it costs most.
        if matches!(verdict, Verdict::Go(Reason::Open)) && self.scenario.order && !lifted {
            (sample.order, sample.order_before) = (Some(self.order(head)), Some(self.order(head - 1)));
            sample.head = head;
            verdict = judge(&me, None, &sample, AfterOwn::Preferred);
        }
        verdict
    }

    fn order(&self, height: u64) -> Order {
        let list = self.members.iter().map(|i| self.nodes[*i].validator).collect();
        let proposer = Some(self.nodes[self.proposer(height, 0)].validator);
        Order { height, list, proposer, until: None, sticky: false }
    }

    fn decide(&mut self, i: usize, decision: Decision) {
        self.nodes[i].stopping = Some(decision);
        let at = self.now + 1 + self.random.within(0, MAX_DELAY);
        self.queue.push(Reverse((at, Happening::Stop(i))));
    }

    /// The sample of the chain at `head`. Collected in a block are the votes for the one before it.
    fn sample(&mut self, head: u64) -> Sample {
        let oldest = head - self.scenario.recent;
        let mut set = Vec::with_capacity(self.members.len());
        for i in &self.members {
            let node = &self.nodes[*i];
            let sealing = node.since < head && (node.votes || node.last_vote >= oldest);
            set.push(Seat { validator: node.validator, sealing });
        }
        // Now and then a vote comes too late for all of the blocks.
        let late = self.random.within(0, 50 * set.len() as u64) as usize;
        if let Some(seat) = set.get_mut(late) {
            seat.sealing = false;
        }
        let blocks = self.scenario.validators.clamp(8, 64);
        let at = (head - FIRST) as usize;
        Sample {
            head,
            head_age: Duration::from_millis(self.clock - self.times[at]),
            period: Duration::from_millis(PERIOD),
            set,
            blocks,
            first_round: self.first_rounds[at] - self.first_rounds[at - blocks],
            steady_since: 0,
            order: None,
            order_before: None,
        }
    }

    /// Node `i` stops, as decided some blocks ago, and comes back upgraded or not at all.
    fn stop(&mut self, i: usize) {
        let outage = self.random.within(3, self.scenario.outage);
        let lost = self.random.chance(self.scenario.lost);
        let voted = self.nodes[i].votes;
        let Some(decision) = self.nodes[i].stopping.take() else { return };
        let node = &mut self.nodes[i];
        node.upgraded += 1;
        node.proven_at = self.now + outage + PROBATION;
        self.left -= if lost { node.plan.len() + 1 - node.upgraded } else { 1 };
        if decision.forced || !decision.voter {
            node.surprise = self.head;
        }
        self.take_down(i, (!lost).then_some(outage));
        if !lost {
            self.queue.push(Reverse((self.now + outage, Happening::Look(i))));
        }
        self.outcome.forced |= decision.forced;
        if voted && !decision.forced && self.is_short(&self.members) {
            let (members, at) = &self.before;
            if self.head - at > VISIBLE || self.is_short(members) {
                let (up, all) = (self.voting, self.members.len());
                self.outcome.violation = Some(format!("a stop at block {} left {up} of {all}", self.head));
            }
        }
    }

    /// Whether a quorum of these members is missing, even with those whose absence could not be known.
    fn is_short(&self, members: &[usize]) -> bool {
        let hidden = |n: &Node| n.surprise > 0 && self.head - n.surprise <= VISIBLE;
        let there = members.iter().map(|i| &self.nodes[*i]).filter(|n| n.serves(self.now) || hidden(n));
        margin(members.len()) > 0 && there.count() < quorum(members.len())
    }
}

/// The numbers of the runs: always the same 5,000, unless the environment asks for others, as `scripts/torture` does.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("FLEET_SEED").unwrap_or(0);
    first..first + number("FLEET_RUNS").unwrap_or(5_000)
}

/// The sum of many runs.
#[derive(Default)]
struct Summary {
    runs: u64,
    halted: u64,
    forced: u64,
    unfinished: u64,
    /// Validators, and blocks until all were upgraded.
    finished: Vec<(usize, u64)>,
}

impl Summary {
    fn run(&mut self, seed: u64) {
        let mut random = Random(seed);
        let scenario = Scenario::random(&mut random);
        let (validators, peaceful) = (scenario.validators, scenario.is_peaceful());
        let outcome = Fleet::new(random.next(), scenario.clone()).run();
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}; {scenario:?}");
        }
        assert!(!peaceful || !outcome.halted, "seed {seed}: the chain halted for no other reason");
        assert!(!peaceful || outcome.blocks.is_some(), "seed {seed}: some were never upgraded; {scenario:?}");
        self.runs += 1;
        self.halted += u64::from(outcome.halted);
        self.forced += u64::from(outcome.forced);
        self.unfinished += u64::from(outcome.blocks.is_none());
        self.finished.extend(outcome.blocks.map(|blocks| (validators, blocks)));
    }

    fn print(&self) {
        let Summary { runs, halted, forced, unfinished, .. } = self;
        println!("{runs} fleets: {forced} forced by a fork, {halted} halted, {unfinished} not finished");
        for (low, high) in [(4, 8), (9, 16), (17, 60), (61, 200), (201, 1000)] {
            let sizes = low..=high;
            let mut blocks: Vec<u64> =
                self.finished.iter().filter(|(n, _)| sizes.contains(n)).map(|(_, blocks)| *blocks).collect();
            blocks.sort_unstable();
            let Some(last) = blocks.len().checked_sub(1) else { continue };
            println!(
                "{} of {low} to {high} validators, blocks until all were upgraded: median {}, 95 % {}, worst {}",
                blocks.len(),
                blocks[last / 2],
                blocks[last * 95 / 100],
                blocks[last]
            );
        }
    }
}

#[test]
fn no_stop_leaves_less_than_a_quorum() {
    let all = seeds();
    println!("seeds {all:?}");
    let mut summary = Summary::default();
    all.for_each(|seed| summary.run(seed));
    summary.print();
}

/// In how many of 300 fleets of `sizes` validators without other trouble the law is broken.
fn broken(sizes: std::ops::Range<usize>, scenario: impl Fn(usize) -> Scenario) -> usize {
    let size = |seed: u64| sizes.start + seed as usize % sizes.len();
    let breaks = |seed: &u64| Fleet::new(*seed, scenario(size(*seed))).run().violation.is_some();
    (0..300).filter(breaks).count()
}

#[test]
fn each_rule_is_needed() {
    let upgrades = || vec![0, 30];
    let with = |rules| move |n| Scenario { rules, upgrades: upgrades(), spread: 50, ..Scenario::peaceful(n) };
    assert_eq!(broken(4..64, with(Rules::All)), 0);
    for (rules, least) in
        [(Rules::WithoutTurns, 250), (Rules::CountedFromHeight, 100), (Rules::WithoutQuiet, 30)]
    {
        let broken = broken(4..7, with(rules));
        assert!(broken > least, "{rules:?}: {broken} of 300");
    }
    // A validator whose turn has not come by the deadline must not go all the same.
    let late = |rules| move |n| Scenario { rules, fork: Some(100), ..Scenario::peaceful(n) };
    assert_eq!(broken(4..64, late(Rules::All)), 0);
    let broken = broken(4..64, late(Rules::LiftedAtDeadline));
    assert!(broken > 200, "{broken} of 300");
}

#[test]
fn with_the_room_that_is_asked_for_no_fork_forces_a_stop() {
    for seed in 0..300 {
        let validators = 4 + seed as usize % 30;
        let upgrades = vec![seed % SLOT];
        let fork = Some(room_needed(validators));
        let scenario =
            Scenario { attentive: true, outage: 6, fork, upgrades, ..Scenario::peaceful(validators) };
        let outcome = Fleet::new(seed, scenario).run();
        assert_eq!((outcome.forced, outcome.halted, outcome.violation), (false, false, None), "seed {seed}");
    }
}

#[test]
fn a_binary_that_never_comes_back_ends_the_rollout_and_not_the_chain() {
    for validators in [4, 7, 22, 100, 300] {
        let broken = Scenario { lost: 100, ..Scenario::peaceful(validators) };
        let outcome = Fleet::new(7, broken.clone()).run();
        assert_eq!((outcome.halted, outcome.violation), (false, None), "{validators} validators");
        // A seal that counts as proof for as many blocks as there are validators shows the absence too late.
        let trusting = Scenario { recent: 64.min(validators as u64), ..broken };
        let outcome = Fleet::new(7, trusting).run();
        assert!(validators < 50 || outcome.violation.is_some(), "{validators} validators");
    }
}
