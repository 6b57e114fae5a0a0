//! A fleet of validators that all follow the gates, each seeing only what the chain shows it, too late.
//!
//! The chain is simulated block by block: who is up votes, an absent proposer costs a round, and
//! without a quorum no block comes. Every validator looks at a head that may be some blocks old,
//! judges alone, and stops some blocks later. Around that, validators crash and come back, or do not;
//! upgrades fail, and the set changes at epochs.
//!
//! What must hold: no stop leaves less than a quorum, as far as that could be known. What cannot be
//! known are crashes and changes of the set in the last [`VISIBLE`] blocks. What others have decided
//! cannot be known either, and just that is what the turns are for, so it is not excused. Once a deadline has
//! forced somebody, anything may happen.
//!
//! Runs are numbered, and the number is the seed: `FLEET_SEED=<n>` begins with that one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use wemixvisor::machine::gates::{Due, Gate, RECENT, Reason, Rules, Sample, Seat, Validator, Verdict, judge};
use wemixvisor::machine::quorum::{margin, quorum};

/// The oldest head that a validator looks at, in blocks behind the real one.
const MAX_LAG: u64 = 3;
/// The longest time from a decision to the last vote, in blocks.
const MAX_DELAY: u64 = 3;
/// The blocks until an absence shows to everybody, and whoever had decided before has stopped; and the
/// same again, until those stops show to the others, who may have planned otherwise meanwhile.
const VISIBLE: u64 = 2 * (MAX_LAG + MAX_DELAY + RECENT + 1);
/// Time between blocks, in milliseconds.
const PERIOD: u64 = 1000;
/// The height of the upgrade.
const HEIGHT: u64 = 1000;
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

/// What kind of network, and what kind of trouble.
#[derive(Clone)]
struct Scenario {
    validators: usize,
    slot_blocks: u64,
    /// Validators that are down from before the upgrade, for ever.
    dead: usize,
    /// The mean number of blocks between crashes, after which a node comes back with the same binary; 0 for none.
    crash_every: u64,
    /// The chance in percent that an upgraded node never comes back.
    lost: u64,
    /// The length of an epoch, at whose end somebody joins or leaves; 0 for none.
    epoch: u64,
    /// The blocks from the upgrade to the fork.
    fork: Option<u64>,
    /// The longest outage for an upgrade, in blocks.
    outage: u64,
    /// For how many blocks a seal proves that its validator is there.
    recent: u64,
    /// Whether the turn gate is obeyed.
    turns: bool,
}

impl Scenario {
    /// Nothing goes wrong.
    fn peaceful(validators: usize) -> Self {
        Scenario {
            validators,
            slot_blocks: 24,
            dead: 0,
            crash_every: 0,
            lost: 0,
            epoch: 0,
            fork: None,
            outage: 20,
            recent: RECENT,
            turns: true,
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
        scenario.slot_blocks = random.within(24, 40);
        if random.chance(50) {
            scenario.dead = random.within(0, margin(scenario.validators) as u64 - 1) as usize;
            scenario.crash_every = random.within(30, 300);
            scenario.epoch = if random.chance(50) { random.within(10, 150) } else { 0 };
        }
        if random.chance(20) {
            scenario.lost = random.within(1, 20);
        }
        if random.chance(20) {
            scenario.fork = Some(random.within(61, 300));
        }
        scenario
    }

    fn is_peaceful(&self) -> bool {
        self.dead == 0 && self.crash_every == 0 && self.lost == 0 && self.epoch == 0 && self.fork.is_none()
    }
}

#[derive(Clone, Copy)]
struct Node {
    validator: Validator,
    member: bool,
    upgraded: bool,
    /// The time from which its process runs; `NEVER` if it does not come back.
    up_at: u64,
    /// Whether it votes for the next block, since which block, and if not, the last it voted for.
    votes: bool,
    since: u64,
    last_vote: u64,
    /// The head at its last absence that no gate foresees: a crash, or a stop decided outside the set.
    surprise: u64,
    /// How its stop was decided, while that is under way.
    stopping: Option<Decision>,
}

#[derive(Clone, Copy)]
struct Decision {
    forced: bool,
    voter: bool,
}

/// What happens at a time; of several at the same time, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Crash,
    Epoch,
    Stop(usize),
    Return,
    Look(usize),
}

/// What came of a run.
#[derive(Default)]
struct Outcome {
    /// A stop that left less than a quorum though that could have been known.
    violation: Option<String>,
    halted: bool,
    forced: bool,
    /// Blocks from the height until everybody alive was upgraded.
    blocks: Option<u64>,
}

struct Fleet {
    random: Random,
    scenario: Scenario,
    rules: Rules,
    due: Due,
    nodes: Vec<Node>,
    /// The members of the set, as indices; how many of them vote.
    members: Vec<usize>,
    voting: usize,
    /// How many still have to be upgraded.
    left: usize,
    /// The members before the last change of the set, and the head at that change.
    before: (Vec<usize>, u64),
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
            nodes.push(Node {
                validator,
                member: i < scenario.validators,
                upgraded: false,
                up_at: if i < scenario.dead { NEVER } else { 0 },
                votes: false,
                since: 0,
                last_vote: 0,
                surprise: 0,
                stopping: None,
            });
        }
        nodes.sort_by_key(|n| n.validator);
        let set = nodes.iter().filter(|n| n.member).map(|n| n.validator);
        let due = Due::new(HEIGHT, scenario.fork.map(|f| HEIGHT + f), None, set);
        let rules = Rules { slot_blocks: scenario.slot_blocks, avoid_own_proposal: random.chance(30) };
        let mut fleet = Fleet {
            rules,
            due,
            members: Vec::new(),
            voting: 0,
            left: nodes.len() - scenario.dead,
            before: (Vec::new(), 0),
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
        let slots = self.scenario.validators.div_ceil(self.due.group_size()) as u64;
        // Where things go wrong some are never upgraded, and waiting longer shows nothing new.
        let cycles = if self.scenario.is_peaceful() { 8 } else { 4 };
        let end = HEIGHT - FIRST + cycles * slots * self.scenario.slot_blocks;
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
        if self.scenario.fork.is_some_and(|f| self.head + 1 == HEIGHT + f) {
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

    /// Notes who votes for the next block, after anything that may change it.
    fn recount(&mut self) {
        let forked = self.scenario.fork.is_some_and(|f| self.head + 1 >= HEIGHT + f);
        self.voting = 0;
        self.members.clear();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            let votes = node.member && node.up_at <= self.now && (node.upgraded || !forked);
            match (node.votes, votes) {
                (false, true) => node.since = self.head + 1,
                (true, false) => node.last_vote = self.head,
                _ => {}
            }
            node.votes = votes;
            self.voting += usize::from(votes);
            if node.member {
                self.members.push(i);
            }
        }
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

    /// The end of an epoch: somebody joins or leaves.
    fn change_set(&mut self) {
        let i = self.random.next() as usize % self.nodes.len();
        // A chain that stands still has no epochs.
        let goes_on = self.head > self.before.1 + VISIBLE;
        if goes_on && (!self.nodes[i].member || self.members.len() > 4) {
            self.before = (self.members.clone(), self.head);
            self.nodes[i].member = !self.nodes[i].member;
            self.recount();
        }
        self.queue.push(Reverse((self.now + self.scenario.epoch, Happening::Epoch)));
    }

    /// Node `i` sees what the chain shows, and decides.
    fn look(&mut self, i: usize) {
        let node = self.nodes[i];
        if node.upgraded || node.stopping.is_some() {
            return;
        }
        let lag = self.random.within(0, MAX_LAG);
        let mut pause = self.random.within(3, 12);
        if node.up_at <= self.now && self.head >= HEIGHT + lag {
            let sample = self.sample(self.head - lag);
            match judge(&node.validator, Some(&self.due), &self.rules, &sample) {
                Verdict::Go(reason) => {
                    let forced = matches!(reason, Reason::Deadline { .. } | Reason::Fork { .. });
                    return self.decide(i, Decision { forced, voter: node.member });
                }
                Verdict::Hold(gates) => {
                    let turn = gates.iter().find_map(|gate| match gate {
                        Gate::Turn { opens_at, .. } | Gate::Share { opens_at, .. } => Some(*opens_at),
                        _ => None,
                    });
                    if !self.scenario.turns && turn.is_some() && gates.len() == 1 {
                        return self.decide(i, Decision { forced: false, voter: node.member });
                    }
                    // Most have nothing to look for until their slot opens; some look all the same.
                    let left = turn.map_or(0, |opens_at| opens_at.saturating_sub(self.head));
                    if left > pause && !self.random.chance(20) {
                        pause = left - self.random.within(0, 1) + self.random.within(0, 12);
                    }
                }
            }
        }
        self.queue.push(Reverse((self.now + pause, Happening::Look(i))));
    }

    fn decide(&mut self, i: usize, decision: Decision) {
        self.nodes[i].stopping = Some(decision);
        let at = self.now + 1 + self.random.within(0, MAX_DELAY);
        self.queue.push(Reverse((at, Happening::Stop(i))));
    }

    /// What the chain shows at `head`. Collected in a block are the votes for the one before it.
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
            proposer: Some(self.nodes[self.proposer(head + 1, 0)].validator),
        }
    }

    /// Node `i` stops, as decided some blocks ago, and comes back upgraded or not at all.
    fn stop(&mut self, i: usize) {
        let outage = self.random.within(3, self.scenario.outage);
        let lost = self.random.chance(self.scenario.lost);
        let voted = self.nodes[i].votes;
        let Some(decision) = self.nodes[i].stopping.take() else { return };
        self.nodes[i].upgraded = true;
        self.left -= 1;
        if !decision.voter {
            self.nodes[i].surprise = self.head;
        }
        self.take_down(i, (!lost).then_some(outage));
        self.outcome.forced |= decision.forced;
        if voted && !self.outcome.forced && self.is_short(&self.members) {
            let (members, at) = &self.before;
            if self.head - at > VISIBLE || self.is_short(members) {
                let (up, all) = (self.voting, self.members.len());
                self.outcome.violation = Some(format!("a stop at block {} left {up} of {all}", self.head));
            }
        }
    }

    /// Whether a quorum of these members is missing, even with those of whose absence nobody could know.
    fn is_short(&self, members: &[usize]) -> bool {
        let hidden = |n: &Node| n.surprise > 0 && self.head - n.surprise <= VISIBLE;
        let there = members.iter().map(|i| &self.nodes[*i]).filter(|n| n.up_at <= self.now || hidden(n));
        margin(members.len()) > 0 && there.count() < quorum(members.len())
    }
}

/// The numbers of `runs` runs: always the same, unless the environment asks for others.
fn seeds(runs: u64) -> std::ops::Range<u64> {
    let first = std::env::var("FLEET_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    first..first + runs
}

/// What many runs say together.
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
        let outcome = Fleet::new(random.next(), scenario).run();
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}, {validators} validators: {violation}");
        }
        assert!(!peaceful || !outcome.halted, "seed {seed}: the chain halted for no other reason");
        assert!(!peaceful || outcome.blocks.is_some(), "seed {seed}: some were never upgraded");
        self.runs += 1;
        self.halted += u64::from(outcome.halted);
        self.forced += u64::from(outcome.forced);
        self.unfinished += u64::from(outcome.blocks.is_none());
        self.finished.extend(outcome.blocks.map(|blocks| (validators, blocks)));
    }

    fn print(&self) {
        let Summary { runs, halted, forced, unfinished, .. } = self;
        println!("{runs} fleets: {forced} forced by a deadline, {halted} halted, {unfinished} not finished");
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
fn no_stop_leaves_less_than_a_quorum_in_100_000_fleets() {
    let all = seeds(100_000);
    println!("seeds {all:?}");
    let mut summary = Summary::default();
    all.for_each(|seed| summary.run(seed));
    summary.print();
}

#[test]
fn without_turns_the_chain_halts() {
    let halted = |turns| {
        let halts = |seed: &u64| {
            let validators = 4 + *seed as usize % 60;
            Fleet::new(*seed, Scenario { turns, ..Scenario::peaceful(validators) }).run().violation.is_some()
        };
        seeds(300).filter(halts).count()
    };
    assert_eq!(halted(true), 0);
    assert!(halted(false) > 250, "{} of 300", halted(false));
}

#[test]
fn a_binary_that_never_comes_back_ends_the_rollout_and_not_the_chain() {
    for validators in [4, 7, 22, 100, 300] {
        let broken = Scenario { lost: 100, ..Scenario::peaceful(validators) };
        let outcome = Fleet::new(7, broken.clone()).run();
        assert_eq!((outcome.halted, outcome.violation), (false, None), "{validators} validators");
        // Who takes a seal as proof for as many blocks as there are validators sees it too late.
        let trusting = Scenario { recent: 64.min(validators as u64), ..broken };
        let outcome = Fleet::new(7, trusting).run();
        assert!(validators < 50 || outcome.violation.is_some(), "{validators} validators");
    }
}
