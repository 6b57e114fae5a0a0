//! Everything that can happen, to a depth, in small worlds: every order of every event.
//!
//! Faults are rationed, or there would be no end; inputs that go well are not. Worlds that are the same
//! but for the time of day are explored once. After each step the laws hold ([`super::laws`]), and from
//! each world in which the supervisor is dead all comes to rest if nothing more goes wrong.

use super::fingerprint::fingerprint;
use super::laws::require;
use super::transcript::Story;
use super::world::{Input, SETTLED, World};
use super::*;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// How much may still go wrong, or be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ration {
    faults: u8,
    deaths: u8,
    asks: u8,
}

/// The part of the ration that an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    Free,
    Fault,
    Death,
    Ask,
}

impl Ration {
    fn without(self, cost: Cost) -> Option<Ration> {
        let Ration { faults, deaths, asks } = self;
        Some(match cost {
            Cost::Free => self,
            Cost::Fault => Ration { faults: faults.checked_sub(1)?, ..self },
            Cost::Death => Ration { deaths: deaths.checked_sub(1)?, ..self },
            Cost::Ask => Ration { asks: asks.checked_sub(1)?, ..self },
        })
    }
}

/// A small world to explore.
struct Scope {
    policy: Policy,
    schedule: Vec<Upgrade>,
    hook: bool,
    ration: Ration,
    /// The heads that a node may tell, in order.
    heads: &'static [u64],
    /// Which faults there are at all.
    faults: fn(&Input) -> bool,
}

impl Default for Scope {
    fn default() -> Self {
        Scope {
            policy: small(),
            schedule: vec![v2()],
            hook: false,
            ration: Ration { faults: 1, deaths: 1, asks: 0 },
            heads: &[100],
            faults: |_| true,
        }
    }
}

/// Every wait as short as it can be told from the others.
fn small() -> Policy {
    Policy {
        max_restarts: 1,
        probation_blocks: 0,
        probation_time: Duration::from_secs(1),
        start_timeout: Duration::from_secs(10),
        shutdown_grace: Duration::from_secs(30),
        hook_retries: 1,
        ..policy()
    }
}

/// The order in which worlds are visited. It makes no difference to which there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Those that were found last come first: few wait at a time, and their memory is used again.
    Deep,
    /// Those that were found first come first: the first story that breaks a law is the shortest.
    Wide,
}

/// An input that led to a world nothing like it was known before.
struct Step {
    input: Input,
    /// The step that led to the world in which it happened, by its number.
    before: Option<usize>,
}

/// Explores a scope; what people are told of must include `expected`, or too little was explored.
fn explore(scope: &Scope, expected: &[&str]) {
    let seen = visit(scope, Order::Deep);
    for landmark in expected {
        assert!(seen.contains(*landmark), "{landmark} was not explored, only {seen:?}");
    }
}

/// Visits all worlds of a scope, and returns the landmarks on the way.
fn visit(scope: &Scope, order: Order) -> BTreeSet<String> {
    let mut world = Box::new(scope.world());
    let mut seen = BTreeSet::new();
    let mut known = HashSet::from([fingerprint(&mut world, &scope.ration)]);
    let mut steps: Vec<Step> = Vec::new();
    let mut next = VecDeque::from([(world, scope.ration, None)]);
    let mut rests = Rests::default();
    while let Some((world, ration, before)) = match order {
        Order::Deep => next.pop_back(),
        Order::Wide => next.pop_front(),
    } {
        let inputs = possible(&world, scope.heads, scope.faults).into_iter();
        let inputs = inputs.filter_map(|(input, cost)| Some((input, ration.without(cost)?)));
        let inputs: Vec<(Input, Ration)> = inputs.collect();
        // The last one is not a copy.
        let worlds = std::iter::repeat_n(world, inputs.len());
        for ((input, ration), mut world) in inputs.into_iter().zip(worlds) {
            let mut result = world.step(&input);
            seen.extend(world.done.iter().filter_map(landmark));
            world.done.clear();
            let is_new = known.insert(fingerprint(&mut world, &ration));
            if result.is_ok() && is_new && world.machine.is_none() {
                result = rests.comes_to_rest(&mut world, scope);
            }
            let records = matches!(world.pending, Some(Action::Record(_)));
            if result.is_ok() && is_new && records && world.process.is_none() {
                let law = "I12: a node runs, though no record can be written";
                result = world.clone().runs_without_records().and_then(|runs| require(runs, law));
            }
            if is_new || result.is_err() {
                steps.push(Step { input, before });
            }
            if let Err(law) = result {
                if order == Order::Deep {
                    visit(scope, Order::Wide);
                }
                report(scope, &law, &steps);
            }
            if is_new {
                next.push_back((world, ration, Some(steps.len() - 1)));
            }
        }
    }
    seen
}

/// The progress of an exploration that an action shows.
fn landmark(action: &Action) -> Option<String> {
    match action {
        Action::Tell(notice) => {
            let outcome = notice.text.split(' ').find_map(|word| word.strip_prefix("outcome="));
            Some(outcome.unwrap_or(notice.event).to_owned())
        }
        Action::Exit { exit, .. } => Some(format!("exit {exit:?}").to_lowercase()),
        _ => None,
    }
}

/// The worlds in which the supervisor is dead, and how they come to rest.
#[derive(Default)]
struct Rests {
    /// By fingerprint, whatever may still go wrong.
    of_worlds: HashMap<u64, Rc<str>>,
    /// By the facts on disk.
    of_facts: HashMap<u64, Rc<str>>,
}

impl Rests {
    /// I3: if nothing more goes wrong, one binary runs or the operator has to decide, and the same facts on
    /// disk always give the same outcome.
    fn comes_to_rest(&mut self, world: &mut World, scope: &Scope) -> Result<(), String> {
        let facts = world.facts();
        let end = world.end.take();
        let outcome = self.outcome(world, scope);
        world.end = end;
        let outcome = outcome?;
        require(*outcome != *"nothing runs", "I3: something runs, or the operator has to decide")?;
        let same = self.of_facts.entry(facts).or_insert_with(|| outcome.clone());
        if *same == outcome {
            return Ok(());
        }
        Err(format!("I3: the same facts give the same outcome, not {same} and {outcome}"))
    }

    /// The outcome of a world in which the supervisor is dead. It is that of each world on the way to it.
    fn outcome(&mut self, world: &mut World, scope: &Scope) -> Result<Rc<str>, String> {
        let top = scope.heads.last().expect("there is a head");
        let number = fingerprint(world, &());
        if let Some(known) = self.of_worlds.get(&number) {
            return Ok(known.clone());
        }
        let (mut world, mut way) = (world.clone(), vec![number]);
        let outcome = loop {
            require(way.len() <= SETTLED, "it comes to rest")?;
            if world.settle_on(top + 50, &mut |_, _| {})? {
                break world.outcome_in_a_word().into();
            }
            let number = fingerprint(&mut world, &());
            if let Some(known) = self.of_worlds.get(&number) {
                break known.clone();
            }
            way.push(number);
        };
        self.of_worlds.extend(way.into_iter().map(|number| (number, outcome.clone())));
        Ok(outcome)
    }
}

impl Scope {
    fn world(&self) -> World {
        let mut world = World::new(self.policy.clone(), self.schedule.clone());
        world.hook = self.hook;
        world.head = self.heads[0];
        world
    }
}

/// Tells the story that breaks the law with its last step, and fails.
fn report(scope: &Scope, law: &str, steps: &[Step]) -> ! {
    let mut inputs = Vec::new();
    let mut step = steps.last();
    while let Some(Step { input, before }) = step {
        inputs.push(input.clone());
        step = before.map(|number| &steps[number]);
    }
    let mut story = Story::new(scope.policy.clone(), scope.schedule.clone());
    story.world = scope.world();
    for input in inputs.into_iter().rev() {
        story.only(input);
    }
    panic!("broken law: {law}\n{}", story.told());
}

/// Whatever can happen next, with nodes that tell `heads`.
fn possible(world: &World, heads: &[u64], is_fault: fn(&Input) -> bool) -> Vec<(Input, Cost)> {
    let mut all = Vec::new();
    let orphan = world.process.as_ref().is_some_and(|p| p.orphan);
    if world.machine.is_none() {
        if orphan {
            all.push((Input::Follow, Cost::Free));
        }
        let cost = if world.end.is_some() { Cost::Death } else { Cost::Free };
        all.push((Input::Boot, cost));
        return all;
    }
    deaths(world, &mut all);
    if let Some(action) = &world.pending {
        all.push((Input::Ok, Cost::Free));
        let classes: &[Class] = match action {
            Action::Record(_) | Action::Link(_) => &[Class::Environment],
            Action::Inspect(_) => &[Class::Integrity],
            _ => &[Class::Environment, Class::Permanent],
        };
        let mut faults: Vec<Input> = classes.iter().map(|class| Input::Fail(*class)).collect();
        if matches!(action, Action::Record(_) | Action::Link(_)) {
            faults.push(Input::FailLate(Class::Environment));
        }
        all.extend(faults.into_iter().filter(is_fault).map(|input| (input, Cost::Fault)));
        if !world.is_beside {
            return all;
        }
    }
    if world.awaiting && world.process.is_none() {
        all.push((Input::Release, Cost::Free));
    }
    if world.machine.as_ref().is_some_and(|m| m.deadline().is_some()) {
        all.push((Input::Tick, Cost::Free));
    }
    jobs(world, &mut all);
    if !orphan {
        nodes(world, heads, &mut all);
    }
    let name = name("v2");
    let back = Back { to: version(&Target::Genesis), backup: None, force: false };
    let asks = [
        Request::Stop,
        Request::Restart,
        Request::UpgradeNow(name.clone()),
        Request::Cancel(name),
        Request::Rollback(back),
        Request::CancelRollback,
    ];
    all.extend(asks.map(|ask| (Input::Ask(ask), Cost::Ask)));
    all.retain(|(input, cost)| *cost != Cost::Fault || is_fault(input));
    all
}

fn deaths(world: &World, all: &mut Vec<(Input, Cost)>) {
    let effects: &[bool] = if world.pending.is_some() { &[false, true] } else { &[false] };
    for &effect in effects {
        let spawns = effect && matches!(world.pending, Some(Action::Spawn { .. }));
        let runs = world.process.as_ref().is_some_and(|p| !p.orphan);
        let fates: &[Fate] =
            if spawns || runs { &[Fate::Dies, Fate::Lingers, Fate::Rises] } else { &[Fate::Dies] };
        all.extend(fates.iter().map(|&node| (Input::Die { effect, node }, Cost::Death)));
    }
}

fn jobs(world: &World, all: &mut Vec<(Input, Cost)>) {
    let Some((job, cancelled)) = &world.job else { return };
    all.push((Input::Done, Cost::Free));
    if *cancelled {
        all.push((Input::Failed(Class::Cancelled), Cost::Free));
    } else {
        all.push((Input::Failed(Class::Permanent), Cost::Fault));
        all.push((Input::Failed(Class::Environment), Cost::Fault));
    }
    if let Job::Hook { .. } = job {
        all.extend([(Input::Abort, Cost::Fault), (Input::Retry, Cost::Fault)]);
    }
}

fn nodes(world: &World, heads: &[u64], all: &mut Vec<(Input, Cost)>) {
    let Some(process) = &world.process else { return };
    if process.terminated {
        all.push((Input::Exit(Status::Code(0)), Cost::Free));
        let cost = if process.killed { Cost::Free } else { Cost::Fault };
        all.push((Input::Exit(Status::Signal(9)), cost));
        return;
    }
    // A binary does not get past the forks of later ones.
    let later = world.schedule.iter().rev().take_while(|u| !process.target.is(&u.name));
    let top = later.filter_map(|u| u.fork_height).min().map_or(u64::MAX, |fork| fork - 1);
    let first = heads[0];
    let heads = heads.iter().filter(|h| **h <= top);
    let now = heads.clone().rfind(|h| **h <= world.head).unwrap_or(&first);
    let then = heads.clone().find(|h| **h > world.head);
    if !world.unsent {
        all.push((Input::Unsent, Cost::Fault));
    }
    all.push((Input::Head(*now), Cost::Free));
    all.extend(then.map(|height| (Input::Head(*height), Cost::Free)));
    all.extend(then.map(|height| (Input::Unheard(*height), Cost::Fault)));
    all.extend(
        [Input::Exit(Status::Code(0)), Input::Exit(Status::Signal(9)), Input::Full].map(|i| (i, Cost::Fault)),
    );
}

/// Set `EXPLORE_MORE` to a number to ration that much more of everything, and take your time.
fn ration(faults: u8, deaths: u8, asks: u8) -> Ration {
    let more: u8 = std::env::var("EXPLORE_MORE").ok().and_then(|more| more.parse().ok()).unwrap_or(0);
    Ration { faults: faults + more, deaths: deaths + more, asks: asks + more }
}

fn forks_at(fork: u64) -> Vec<Upgrade> {
    vec![Upgrade { fork_height: Some(fork), ..v2() }]
}

fn is_crash(input: &Input) -> bool {
    matches!(input, Input::Exit(_) | Input::Full)
}

#[test]
fn one_thing_goes_wrong_and_the_supervisor_dies() {
    let policy = Policy { probation_blocks: 1, ..small() };
    let scope = Scope { policy, heads: &[99, 100, 101], ..Scope::default() };
    explore(&scope, &["applied", "failed", "recovering", "journal_not_written", "upgrade_changed_on_disk"]);
}

#[test]
fn the_operator_asks_and_the_supervisor_dies() {
    let scope = Scope { ration: ration(0, 1, 1), ..Scope::default() };
    explore(&scope, &["going_back", "applied", "recovering", "exit ok"]);
}

#[test]
fn with_backup_and_hook() {
    let policy = Policy { backup: true, ..small() };
    let scope = Scope { policy, hook: true, ..Scope::default() };
    explore(&scope, &["applied", "failed", "aborted", "backed_up"]);
}

#[test]
fn a_validator_at_the_fork() {
    let policy = Policy { validator: true, ..small() };
    let heads = &[100, 101];
    let scope = Scope { policy, schedule: forks_at(101), heads, ..Scope::default() };
    // No survey is answered here, so no validator's new binary proves itself.
    explore(&scope, &["exit halted", "start_held"]);
}

#[test]
fn with_backup_and_hook_at_the_fork() {
    let policy = Policy { backup: true, ..small() };
    let scope = Scope { policy, schedule: forks_at(101), hook: true, ..Scope::default() };
    explore(&scope, &["applied", "upgrade_set_back", "exit halted", "start_held"]);
}

#[test]
fn three_crashes() {
    let policy = Policy { max_restarts: 3, ..small() };
    let (schedule, ration) = (forks_at(1_000), ration(3, 0, 0));
    let scope = Scope { policy, schedule, ration, faults: is_crash, ..Scope::default() };
    explore(&scope, &["rolled-back", "environment_fault", "attempt_failed", "exit halted"]);
}

#[test]
fn three_crashes_of_a_validator() {
    let policy = Policy { max_restarts: 3, validator: true, ..small() };
    let (heads, ration) = (&[100, 101], ration(2, 1, 0));
    let scope = Scope { policy, heads, ration, faults: is_crash, ..Scope::default() };
    explore(&scope, &["attempt_failed", "exit halted"]);
}

#[test]
fn a_validator_that_seals_and_tells_nothing() {
    let policy = Policy { validator: true, ..small() };
    let is_silence = |input: &Input| matches!(input, Input::Unheard(_));
    let scope =
        Scope { policy, heads: &[100, 101], ration: ration(1, 0, 1), faults: is_silence, ..Scope::default() };
    explore(&scope, &["unproven", "attempt_failed", "exit halted"]);
}

#[test]
fn three_crashes_and_a_restore() {
    let policy = Policy { max_restarts: 3, backup: true, ..small() };
    let schedule = vec![Upgrade { data_compat: false, ..v2() }];
    let ration = ration(3, 0, 0);
    let scope = Scope { policy, schedule, ration, faults: is_crash, ..Scope::default() };
    explore(&scope, &["rolled-back", "restored", "exit halted"]);
}

#[test]
fn a_stop_takes_too_long_and_is_given_up() {
    let policy = Policy { stop_timeout: StopTimeout::Abort, ..small() };
    let scope = Scope { policy, ration: ration(0, 1, 0), ..Scope::default() };
    explore(&scope, &["upgrade_given_up", "failed", "applied"]);
}

#[test]
fn a_stop_takes_too_long_and_is_made_short() {
    let policy = Policy { stop_timeout: StopTimeout::Kill, ..small() };
    let scope = Scope { policy, ration: ration(0, 0, 1), ..Scope::default() };
    explore(&scope, &["killing", "unclean_stop", "applied"]);
}

#[test]
fn two_upgrades() {
    let schedule = vec![v2(), upgrade("v3", 100)];
    let scope = Scope { schedule, ration: ration(0, 1, 0), ..Scope::default() };
    explore(&scope, &["applied", "recovering"]);
}

#[test]
fn a_chain_that_stops_by_itself() {
    let policy = Policy { watch_height: false, restart_on_failure: false, ..small() };
    let schedule = vec![Upgrade { origin: Origin::TriggerFile, ..v2() }];
    let scope = Scope { policy, schedule, ration: ration(1, 1, 0), ..Scope::default() };
    explore(&scope, &["applied", "start_held", "exit failed"]);
}

#[test]
fn a_pause_after_the_switch() {
    let policy = Policy { restart_delay: Duration::from_secs(20), ..small() };
    let scope = Scope { policy, ration: ration(0, 1, 1), ..Scope::default() };
    explore(&scope, &["applied", "exit ok"]);
}

#[test]
fn an_end_after_the_switch() {
    let policy = Policy { restart_after_upgrade: false, ..small() };
    let scope = Scope { policy, ration: ration(1, 1, 0), ..Scope::default() };
    explore(&scope, &["applied", "exit ok"]);
}
