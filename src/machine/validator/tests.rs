//! A validator's machine, asked and answered by hand: what it wants to know, and what follows.

use super::super::{
    Ask, Block, Chain, Class, Ending, Event, Facts, Head, HeadRecord, JobEnd, Mode, NodeMark, Notice, Origin,
    Outcome, OwnMark, Policy, Ready, Recollection, Record, Request, Status, Target, Turns, Version,
    objection,
};
use super::*;
use crate::digest::Digest;
use crate::exit::Exit;
use crate::machine::gates::{Sample, Seat};
use crate::name::Name;

const US: [u8; 20] = [1; 20];
/// In our slot, and one block after our own.
const H: u64 = 100;

/// A machine, its clock, and a disk and node that do at once what they are told.
struct Rig {
    machine: Machine,
    now: Instant,
    record: Record,
    kept: Option<HeadRecord>,
    said: Vec<Action>,
    /// The forks that its node names.
    forks: Vec<u64>,
}

fn version(target: Target) -> Version {
    Version { target, sha256: Digest::sha256(b"") }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn v2() -> Target {
    Target::Upgrade(name("v2"))
}

fn hash(height: u64) -> String {
    format!("0x{height:064x}")
}

fn block(height: u64) -> Block {
    Block { height, hash: Some(hash(height)) }
}

fn chain() -> Chain {
    Chain { id: 7, genesis: hash(0) }
}

fn told(height: u64) -> Head {
    let parent = height.checked_sub(1).map(hash);
    Head { block: block(height), parent, timestamp: None, proposer: Some(proposer(height)), heard_at: 0 }
}

/// Validators 1 to 4 propose in turn.
fn proposer(height: u64) -> [u8; 20] {
    [((height + 1) % 4 + 1) as u8; 20]
}

fn order(height: u64) -> Order {
    let list = (1..=4).map(|n| [n; 20]).collect();
    Order { height, list, proposer: Some(proposer(height)), until: None, sticky: false }
}

/// A calm network of four, seen from a fresh head, in which all but `missing` seal and all are connected.
fn survey(head: u64, missing: &[u8]) -> Survey {
    let seat = |n: u8| Seat { validator: [n; 20], sealing: !missing.contains(&n) };
    Survey {
        at: Instant::now(),
        me: Some(US),
        slot_set: (1..=4).map(|n| [n; 20]).collect(),
        sample: Sample {
            head,
            head_age: Duration::ZERO,
            period: Duration::from_secs(1),
            set: (1..=4).map(seat).collect(),
            blocks: 8,
            first_round: 8,
            steady_since: 0,
            order: Some(order(head)),
            order_before: head.checked_sub(1).map(order),
        },
        hash: hash(head),
        oldest: head.saturating_sub(20),
        own_seals: vec![true; 20],
        own_mark: None,
        mining: None,
        syncing: false,
        network_head: None,
        peers: Some(3),
        connected: Some((2..=4).map(|n| [n; 20]).collect()),
        public_peers: false,
        client_version: None,
        forks: None,
        round_timeout: (Duration::from_secs(2), None),
        census: Vec::new(),
    }
}

/// Our seals on the newest `number` of the last 20 blocks.
fn seals(number: usize) -> Vec<bool> {
    (0..20).map(|n| n < number).collect()
}

/// The same with these validators connected.
fn connected(head: u64, peers: &[u8]) -> Survey {
    let connected = Some(peers.iter().map(|n| [*n; 20]).collect());
    Survey { connected, peers: Some(peers.len()), ..survey(head, &[]) }
}

impl Rig {
    fn new(policy: Policy, node: NodeMark, highest: u64) -> Rig {
        Rig::with(Policy { validator: true, ..policy }, node, highest)
    }

    fn with(policy: Policy, node: NodeMark, highest: u64) -> Rig {
        let record = Record { node, chain: Some(chain()), ..Record::new(version(Target::Genesis)) };
        let head = HeadRecord { block: block(highest), timestamp: None, turns: None, recent: Vec::new() };
        Rig::boot(policy, record, Some(head))
    }

    fn boot(policy: Policy, record: Record, head: Option<HeadRecord>) -> Rig {
        let policy = Policy { backup: false, ..policy };
        let machine = Machine::new(policy, 0, record.clone());
        let now = Instant::now() + Duration::from_secs(1_000_000);
        let mut rig = Rig {
            machine,
            now,
            record: record.clone(),
            kept: head.clone(),
            said: Vec::new(),
            forks: Vec::new(),
        };
        rig.feed(Event::Boot(Facts { record, link: version(Target::Genesis), head }));
        rig
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.step(self.now, event) {
                match &action {
                    Action::Record(record) => {
                        self.record = record.clone();
                        events.push(Event::Recorded);
                    }
                    Action::Link(_) => events.push(Event::Linked),
                    Action::Inspect(_) => events.push(Event::Inspected),
                    Action::Spawn { .. } => events.push(Event::Spawned { pid: 1 }),
                    Action::AwaitRelease => events.push(Event::Released),
                    Action::Identify => events.push(Event::Identified(Ok(chain()))),
                    Action::Trace { from, to } => {
                        events.push(Event::Traced(Ok((*from..=*to).map(told).collect())));
                    }
                    Action::Unpeer => events.push(Event::Unpeered(Ok(3))),
                    Action::KeepHead(record) => self.kept = Some(record.clone()),
                    _ => {}
                }
                self.said.push(action);
            }
        }
    }

    /// A second passes, and the node tells its head.
    fn head(&mut self, height: u64) {
        self.pass(1);
        self.feed(Event::Head(told(height)));
    }

    /// A second passes, the node tells its head, and shows a calm network.
    fn follow(&mut self, height: u64) {
        self.head(height);
        self.surveyed(survey(height, &[]));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn tick(&mut self, seconds: u64) {
        self.pass(seconds);
        self.feed(Event::Tick);
    }

    fn schedule(&mut self, fork: Option<u64>) {
        self.plan(Upgrade { fork_height: fork, ..Upgrade::new(name("v2"), H, Origin::Schedule) });
    }

    fn plan(&mut self, upgrade: Upgrade) {
        let (name, target) = (upgrade.name.clone(), Target::Upgrade(upgrade.name.clone()));
        self.feed(Event::Schedule(vec![upgrade]));
        let ready = Ready { version: version(target), promised: Some("2.0.0".to_owned()), hook: false };
        self.feed(Event::JobDone(JobEnd::Prepared(name, Ok(ready))));
    }

    fn surveyed(&mut self, survey: Survey) {
        self.feed(Event::Surveyed(Ok(Survey { at: self.now, ..survey })));
    }

    fn recalls(&mut self, height: u64, hash: String) {
        self.recalls_as(height, hash, None);
    }

    fn recalls_as(&mut self, height: u64, hash: String, client: Option<&str>) {
        let (block, client_version) = (Block { height, hash: Some(hash) }, client.map(ToOwned::to_owned));
        self.feed(Event::Recalled(Ok(Recollection {
            block,
            client_version,
            forks: Some(self.forks.clone()),
        })));
    }

    fn exits(&mut self, status: Status) {
        self.feed(Event::Exited(Ending { status, environment: None }));
    }

    fn ask(&mut self, what: Request) {
        self.feed(Event::Request(Ask { reply_to: Some(1), what }));
    }

    fn answer(&self) -> Result<String, String> {
        let answer = |action: &Action| match action {
            Action::Answer { reply, .. } => Some(reply.clone()),
            _ => None,
        };
        self.said.iter().rev().find_map(answer).expect("there is an answer")
    }

    fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.said.iter().filter(|action| is(action)).count()
    }

    fn stops(&self) -> usize {
        self.count(|a| *a == Action::Terminate)
    }

    fn signs(&self) -> usize {
        self.count(|a| *a == Action::StartSealing)
    }

    fn modes(&self) -> Vec<Mode> {
        let mode = |action: &Action| match action {
            Action::Spawn { mode, .. } => Some(*mode),
            _ => None,
        };
        self.said.iter().filter_map(mode).collect()
    }

    fn notices(&self, event: &str) -> Vec<&Notice> {
        let all = self.said.iter().filter_map(|action| match action {
            Action::Tell(notice) => Some(notice),
            _ => None,
        });
        all.filter(|notice| notice.event == event).collect()
    }

    fn told(&self, event: &str) -> bool {
        !self.notices(event).is_empty()
    }

    fn hold(&self) -> String {
        self.machine.view().planned[0].hold.clone().unwrap_or_default()
    }

    fn silent(&self) -> String {
        self.machine.view().silent.unwrap_or_default()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.record.ended.iter().find(|e| e.name.as_str() == "v2").map(|e| e.outcome)
    }

    fn has_halted(&self) -> bool {
        self.said.iter().any(|a| matches!(a, Action::Exit { exit: Exit::Halted, .. }))
    }
}

/// A validator that runs since block 90, with `v2` planned.
fn running() -> Rig {
    running_to(None)
}

fn running_to(fork: Option<u64>) -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.schedule(fork);
    rig.follow(91);
    rig
}

// Leaving.

#[test]
fn a_validator_stops_when_the_network_can_spare_it_and_leaves_its_peers_first() {
    let mut rig = running();
    rig.head(H);
    assert_eq!(rig.said.iter().filter(|a| **a == Action::Survey).count(), 2);
    assert_eq!(rig.stops(), 0, "not before it knows");
    rig.surveyed(survey(H, &[]));
    let leaves = rig.said.iter().position(|a| *a == Action::Unpeer);
    let stops = rig.said.iter().position(|a| *a == Action::Terminate);
    assert!(leaves.is_some() && leaves < stops, "{:?}", rig.said);
}

#[test]
fn peers_that_are_not_removed_in_a_second_do_not_delay_the_stop() {
    let mut rig = running();
    rig.head(H);
    let mut acts = rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })));
    acts.extend(rig.machine.step(rig.now, Event::Inspected));
    acts.extend(rig.machine.step(rig.now, Event::Recorded));
    assert!(acts.contains(&Action::Unpeer) && !acts.contains(&Action::Terminate));
    let (at, why) = rig.machine.deadline().unwrap();
    assert_eq!((at - rig.now, why), (Duration::from_secs(1), "leaving"));
    assert!(rig.machine.step(at, Event::Tick).contains(&Action::Terminate));
}

#[test]
fn outside_its_turn_it_waits_whatever_the_deadline() {
    let mut rig = running_to(Some(161));
    for height in 92..=95 {
        rig.follow(height);
    }
    // Our slot ends open at 107; the next is ours at 192.
    for height in 108..=159 {
        rig.follow(height);
    }
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("it opens at block 192, in 33 blocks"), "{}", rig.hold());
    let warnings = rig.notices("deadline_passed");
    assert_eq!((warnings.len(), warnings[0].level), (1, Level::Warn));
    assert!(warnings[0].text.contains("deadline=101") && warnings[0].text.contains("fork=161"));
    assert!(rig.machine.view().planned[0].overdue);
    rig.follow(160);
    assert_eq!(rig.stops(), 1, "the old binary cannot follow the next block");
}

#[test]
fn it_does_not_stop_where_it_would_propose_again() {
    // After 98 we propose 99; 99 is ours; after 100 it is best.
    for (head, stops) in [(98, 0), (99, 0), (100, 1)] {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        rig.follow(91);
        rig.plan(Upgrade::new(name("v2"), 97, Origin::Schedule));
        rig.follow(head);
        assert_eq!(rig.stops(), stops, "{head}: {}", rig.hold());
    }
}

#[test]
fn a_gate_that_holds_is_shown_with_numbers_and_asked_again_with_the_next_head() {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(survey(H, &[3]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("3 of 4 live, need 3 without us, have 2"), "{}", rig.hold());
    assert_eq!(rig.machine.view().planned[0].why, rig.hold());
    let surveys = |rig: &Rig| rig.count(|a| *a == Action::Survey);
    let before = surveys(&rig);
    rig.feed(Event::Tick);
    assert_eq!(surveys(&rig), before, "one survey per head");
    rig.head(H + 4);
    assert_eq!(surveys(&rig), before + 1);
    rig.surveyed(survey(H + 4, &[]));
    assert_eq!(rig.stops(), 1);
    assert!(rig.told("gates_hold") && rig.told("gates_open"));
}

#[test]
fn a_gate_that_opens_and_closes_with_every_block_is_reported_once_and_held_since_the_first() {
    let mut rig = running();
    for height in H..H + 7 {
        rig.head(height);
        let mut seen = survey(height, &[3]);
        seen.sample.first_round = if height % 2 == 0 { 8 } else { 5 };
        (seen.sample.order, seen.sample.order_before) = (None, None);
        rig.surveyed(seen);
    }
    assert_eq!(rig.notices("gates_hold").len(), 2, "quorum, and calm besides");
    rig.head(H + 7);
    let mut seen = survey(H + 7, &[3]);
    seen.sample.first_round = 5;
    rig.surveyed(seen);
    assert!(rig.hold().contains("calm: 5 of the last 8"), "{}", rig.hold());
    assert!(rig.hold().ends_with("(for 7 s)"), "{}", rig.hold());
}

#[test]
fn an_answer_about_a_head_that_does_not_count_decides_nothing() {
    let not_in_set = |head: u64, hash: String| {
        let mut answer = Survey { hash, ..survey(head, &[]) };
        answer.sample.set.remove(0);
        answer
    };
    // Our turn is over, so that only a validator that is none any more would stop.
    let held = || {
        let mut rig = running();
        (92..H).chain([H + 8]).for_each(|height| rig.follow(height));
        assert_eq!(rig.stops(), 0, "{}", rig.hold());
        rig.head(H + 9);
        rig
    };
    // A node of another chain answers at the address.
    let mut rig = held();
    rig.surveyed(not_in_set(5_000, hash(5_000)));
    rig.surveyed(not_in_set(H + 9, "0xf1".to_owned()));
    assert_eq!(rig.stops(), 0, "{:?}", rig.notices("gates_open"));
    let mut rig = held();
    rig.surveyed(not_in_set(H + 9, hash(H + 9)));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.surveyed(not_in_set(H + 9, hash(H + 9)));
    assert_eq!(rig.stops(), 1, "on its own chain it counts");
}

#[test]
fn what_the_network_showed_before_the_head_moved_on_does_not_count() {
    let mut rig = running();
    rig.head(H + 4);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("unknown"), "{}", rig.hold());
}

#[test]
fn a_node_that_cannot_be_asked_is_not_stopped_until_the_fork_demands_it() {
    let mut rig = running_to(Some(H + 20));
    rig.head(H);
    rig.feed(Event::Surveyed(Err(Failure::new(Class::Transient, "no istanbul"))));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("no istanbul"), "{}", rig.hold());
    rig.head(H + 19);
    assert_eq!(rig.stops(), 1, "the old binary cannot follow the next block");
}

/// A validator at `H` with v2 due there, whose head does not rise any more while `network_head` is told.
fn standing(fork_that_was_missed: Option<u64>, network_head: Option<u64>) -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 90);
    let ended = fork_that_was_missed.map(|fork| super::super::Ended {
        name: name("v1"),
        height: H - 1,
        fork_height: Some(fork),
        cannot_follow: true,
        outcome: Outcome::RolledBack,
        detail: String::new(),
    });
    let record = Record { ended: ended.into_iter().collect(), ..rig.record.clone() };
    rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, None);
    rig.schedule(None);
    rig.follow(H - 1);
    rig.head(H);
    let survey = Survey { network_head, ..survey(H, &[2, 3, 4]) };
    rig.surveyed(survey.clone());
    assert_eq!(rig.stops(), 0);
    rig.pass(31);
    rig.surveyed(survey);
    rig
}

#[test]
fn a_node_that_stands_at_a_fork_that_it_lacks_is_rolled_forward() {
    assert_eq!(standing(Some(H + 1), Some(H + 10)).stops(), 1);
    assert_eq!(standing(Some(H + 1), None).stops(), 0, "the whole network may stand still");
    assert_eq!(
        standing(None, Some(H + 10)).stops(),
        0,
        "a peer may claim anything; without a fork it catches up"
    );
}

#[test]
fn an_order_to_sign_holds_at_its_head_only() {
    let mut rig = after_a_kill();
    rig.head(200);
    rig.surveyed(connected(200, &[2]));
    rig.ask(Request::Sign(Some(Block { height: 200, hash: Some(hash(200)) })));
    assert!(rig.answer().is_ok());
    rig.feed(Event::SealingStarted(Ok(())));
    (201..=301).for_each(|height| rig.follow(height));
    let before = rig.signs();
    for _ in 0..6 {
        rig.pass(1);
        rig.surveyed(connected(301, &[]));
    }
    assert!(rig.record.silent, "it is alone");
    assert_eq!(rig.signs(), before);
}

#[test]
fn a_journal_that_cannot_be_written_is_not_written_again_at_once() {
    let mut rig = running();
    rig.follow(92);
    for _ in 0..2 {
        rig.pass(1);
        rig.surveyed(connected(92, &[]));
    }
    rig.pass(3);
    let answer = Survey { at: rig.now, ..connected(92, &[]) };
    let mut actions = rig.machine.step(rig.now, Event::Surveyed(Ok(answer)));
    let mut rounds = 0;
    while actions.iter().any(|action| matches!(action, Action::Record(_))) && rounds < 10 {
        rounds += 1;
        let failure = Failure::new(Class::Environment, "read-only file system".to_owned());
        actions = rig.machine.step(rig.now, Event::RecordFailed(failure));
    }
    assert_eq!(rounds, 1);
}

#[test]
fn a_binary_that_takes_final_blocks_back_does_not_seal_from_its_start() {
    for fork in [None, Some(H + 1)] {
        let mut rig = running_to(fork);
        rig.follow(H);
        rig.exits(Status::Code(0));
        rig.head(H - 10);
        rig.recalls(H - 10, hash(H - 10));
        rig.exits(Status::Code(0));
        rig.tick(10);
        assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Silent], "{fork:?}");
    }
}

#[test]
fn a_record_that_is_forgotten_lets_no_silent_node_sign_below_what_was_final() {
    let mut rig = after_a_kill();
    rig.head(150);
    rig.ask(Request::ResetHead);
    for _ in 0..80 {
        rig.pass(1);
        rig.feed(Event::Head(told(150)));
        rig.surveyed(survey(150, &[]));
    }
    assert_eq!(rig.signs(), 0);
}

#[test]
fn a_stop_that_was_decided_too_long_ago_is_decided_anew() {
    // The look at the binary takes long.
    let mut rig = running();
    rig.head(H);
    let looks = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Inspect(_)));
    assert!(looks(&rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })))));
    rig.pass(30);
    let actions = rig.machine.step(rig.now, Event::Inspected);
    assert!(!actions.iter().any(|action| matches!(action, Action::Record(_))), "{actions:?}");
    // The journal does.
    let mut rig = running();
    rig.head(H);
    assert!(looks(&rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })))));
    rig.machine.step(rig.now, Event::Inspected);
    rig.pass(30);
    let actions = rig.machine.step(rig.now, Event::Recorded);
    assert!(!actions.contains(&Action::Unpeer), "{actions:?}");
    assert!(
        actions.iter().any(|a| matches!(a, Action::Record(record) if record.upgrade.is_none())),
        "{actions:?}"
    );
}

#[test]
fn the_operators_now_needs_no_gate() {
    let mut rig = running();
    rig.head(H - 5);
    rig.ask(Request::UpgradeNow(name("v2")));
    let ready = Ready { version: version(v2()), promised: None, hook: false };
    rig.feed(Event::JobDone(JobEnd::Prepared(name("v2"), Ok(ready))));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_restart_waits_a_few_blocks_for_a_good_moment_and_no_longer() {
    let mut rig = running();
    rig.follow(94);
    rig.ask(Request::Restart);
    assert_eq!(rig.stops(), 0, "we propose the next block");
    rig.follow(95);
    rig.follow(96);
    assert_eq!(rig.stops(), 1);
    let mut rig = running();
    rig.follow(94);
    rig.ask(Request::Restart);
    rig.tick(13);
    assert_eq!(rig.stops(), 1, "the chain may stand still");
}

// Coming back.

/// A validator that was stopped for its upgrade in turn, whose new binary was tried without peers.
fn upgraded() -> Rig {
    upgraded_to(None)
}

fn upgraded_to(fork: Option<u64>) -> Rig {
    let mut rig = running_to(fork);
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    rig
}

#[test]
fn a_new_binary_is_tried_without_peers_and_then_seals_at_once() {
    let rig = upgraded();
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full]);
    assert_eq!(rig.stops(), 2);
    assert_eq!(rig.count(|a| *a == Action::Unpeer), 1, "nothing is left by a node without peers");
    let attempt = rig.record.upgrade.as_ref().unwrap();
    assert_eq!((attempt.attempt, attempt.forgiven, attempt.sealing), (2, 1, true));
}

#[test]
fn a_new_binary_that_fails_without_peers_is_rolled_back_without_a_second_absence() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.exits(Status::Code(1));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full], "the old one seals at once (N17)");
    // The same where it has another chain, and where it tells nothing.
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(H);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.tick(600);
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_head_of_another_node_does_not_hold_up_the_try_without_peers() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(5_000_000);
    rig.head(H - 1);
    let before = rig.stops();
    rig.feed(Event::Recalled(Ok(Recollection {
        block: Block { height: H, hash: None },
        client_version: None,
        forks: None,
    })));
    assert_eq!(rig.stops(), before + 1, "its own data ends below the block that is asked for");
}

#[test]
fn peers_are_found_once_in_31_seconds_also_on_the_way_back() {
    let found = |rig: &mut Rig, height| {
        rig.head(height);
        rig.surveyed(Survey { public_peers: true, ..survey(height, &[]) });
    };
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 52);
    rig.schedule(None);
    (53..=H).for_each(|height| found(&mut rig, height));
    rig.exits(Status::Code(0));
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full], "the old node has found them long ago");
    found(&mut rig, H + 1);
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    rig.tick(30);
    assert_eq!(rig.modes().len(), 3, "its peers would refuse it");
    rig.tick(1);
    assert_eq!(rig.modes().len(), 4);
}

#[test]
fn an_answer_that_has_waited_opens_no_gate() {
    let mut rig = running();
    rig.head(H);
    rig.feed(Event::Surveyed(Ok(Survey { at: rig.now - Duration::from_secs(4), ..survey(H, &[]) })));
    assert_eq!(rig.stops(), 0);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn out_of_turn_or_next_to_an_own_proposal_it_comes_back_silent() {
    let restarted = |head: u64| {
        let mut rig = running();
        rig.follow(head);
        rig.ask(Request::Restart);
        rig.tick(13);
        rig.exits(Status::Code(0));
        rig.tick(10);
        rig.modes()
    };
    assert_eq!(restarted(96), [Mode::Full, Mode::Full], "in our slot, after our own block");
    assert_eq!(restarted(98), [Mode::Full, Mode::Silent], "we would propose 99 again");
    assert_eq!(restarted(95), [Mode::Full, Mode::Silent], "a clean stop may lose block 95, which was ours");
    assert_eq!(restarted(112), [Mode::Full, Mode::Silent], "the quiet half");
}

#[test]
fn at_the_fork_all_go_at_once_and_seal_at_once() {
    let started = |forks: &[u64], lost: u64| {
        let mut rig = running_to(Some(H + 1));
        for height in 92..H {
            rig.head(height);
            rig.surveyed(survey(height, &[3]));
        }
        assert_eq!(rig.stops(), 0);
        rig.head(H);
        assert_eq!(rig.stops(), 1);
        rig.exits(Status::Code(0));
        rig.forks = forks.to_vec();
        rig.head(H - lost);
        rig.recalls(H - lost, hash(H - lost));
        rig.exits(Status::Code(0));
        rig.tick(10);
        rig.modes()
    };
    // The old binary's votes at the fork do not count for the new one.
    assert_eq!(started(&[7, H + 1], 0), [Mode::Full, Mode::Dry, Mode::Full]);
    assert_eq!(started(&[7, H + 1], 1), [Mode::Full, Mode::Dry, Mode::Full], "a clean stop has lost a block");
    // Where the operator is mistaken about the fork they do (N11).
    assert_eq!(started(&[7], 0), [Mode::Full, Mode::Dry, Mode::Silent]);
}

#[test]
fn a_silent_start_waits_until_there_is_something_to_sync() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.follow(91);
    rig.pass(40);
    rig.follow(92);
    rig.exits(Status::Signal(9));
    rig.tick(1);
    assert_eq!(rig.modes().len(), 1);
    rig.tick(3);
    assert_eq!(rig.modes(), [Mode::Full, Mode::Silent]);
    assert!(rig.record.silent, "a restart of ours must not forget it");
}

/// A validator whose node was killed at block 200, started again.
fn after_a_kill() -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedUnclean, 200);
    assert_eq!(rig.modes(), [Mode::Silent]);
    rig.pass(1);
    rig
}

#[test]
fn after_an_unclean_stop_it_signs_beyond_everything_final_with_a_quorum_of_peers() {
    let mut rig = after_a_kill();
    rig.follow(150);
    rig.follow(200);
    rig.follow(201);
    assert_eq!(rig.signs(), 1, "one block beyond the record, three peers, a fresh head");
    rig.feed(Event::SealingStarted(Ok(())));
    assert!(!rig.record.silent && rig.told("sealing"));
    // One sample of peers is not enough, nor are too few.
    let mut rig = after_a_kill();
    rig.head(201);
    rig.surveyed(survey(201, &[]));
    assert_eq!(rig.signs(), 0);
    let mut rig = after_a_kill();
    for height in 201..230 {
        rig.head(height);
        rig.surveyed(connected(height, &[2]));
    }
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("too few"), "{}", rig.silent());
    for height in 230..234 {
        rig.head(height);
        rig.surveyed(connected(height, &[2]));
    }
    assert_eq!(rig.signs(), 1, "after 30 s one is enough");
}

#[test]
fn a_head_that_is_old_is_not_fresh_while_the_node_catches_up() {
    let mut rig = after_a_kill();
    for height in [201, 210, 220] {
        rig.pass(1);
        let head = Head { timestamp: Some(1_000), heard_at: 1_050, ..told(height) };
        rig.feed(Event::Head(head));
        rig.surveyed(survey(height, &[]));
    }
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("s old"), "{}", rig.silent());
}

#[test]
fn when_all_stand_still_at_the_record_and_all_are_there_it_signs() {
    let mut rig = after_a_kill();
    rig.follow(200);
    for second in 0..20 {
        assert_eq!(rig.signs(), usize::from(second >= 15), "{second}: {}", rig.silent());
        rig.pass(1);
        rig.surveyed(survey(200, &[1, 2, 3, 4]));
    }
}

#[test]
fn it_does_not_sign_below_the_record_or_where_one_is_unseen_or_a_sync_runs() {
    let still = |height: u64, change: fn(&mut Survey)| {
        let mut rig = after_a_kill();
        rig.head(height);
        for _ in 0..29 {
            rig.pass(1);
            let mut survey = survey(height, &[1, 2, 3, 4]);
            change(&mut survey);
            rig.surveyed(survey);
        }
        (rig.signs(), rig.silent())
    };
    assert!(still(200, |_| {}).0 > 0);
    for (height, change, why) in [
        (150, (|_| {}) as fn(&mut Survey), "the head is 150 and has to be 200"),
        (200, |s| s.connected = Some(vec![[2; 20], [3; 20]]), "validator 0x0404"),
        (200, |s| s.syncing = true, "synchronises"),
        (200, |s| s.connected = None, "serve `admin`"),
    ] {
        let (signs, silent) = still(height, change);
        assert_eq!(signs, 0, "{why}");
        assert!(silent.contains(why), "{silent}");
    }
}

#[test]
fn two_of_four_that_were_killed_see_the_others_now_and_then_and_sign() {
    let mut rig = after_a_kill();
    rig.head(200);
    for second in 0..60u64 {
        rig.pass(1);
        // The validators that run are connected for a moment every 35 s, the other silent one always.
        rig.surveyed(connected(200, if second % 35 < 2 { &[2, 3, 4] } else { &[4] }));
    }
    assert!(rig.signs() > 0, "{}", rig.silent());
}

#[test]
fn one_block_below_the_record_in_a_silent_chain_it_is_started_again() {
    let mut rig = after_a_kill();
    rig.head(199);
    for _ in 0..40 {
        rig.pass(1);
        rig.surveyed(survey(199, &[1, 2, 3, 4]));
    }
    assert_eq!((rig.stops(), rig.signs()), (1, 0));
    rig.exits(Status::Code(0));
    rig.tick(4);
    assert_eq!(rig.modes(), [Mode::Silent, Mode::Silent]);
}

#[test]
fn the_operator_states_the_last_final_block_and_the_node_must_have_it() {
    let mut rig = after_a_kill();
    rig.head(150);
    rig.surveyed(connected(150, &[2]));
    let at = |height: u64, hash: String| Request::Sign(Some(Block { height, hash: Some(hash) }));
    rig.ask(at(150, hash(150)));
    assert!(rig.answer().unwrap_err().contains("block 200"), "below the record (N4)");
    rig.head(200);
    rig.surveyed(connected(200, &[2]));
    rig.ask(Request::Sign(None));
    let missing = rig.answer().unwrap_err();
    assert!(missing.contains("0x0303") && missing.contains("0x0404"), "{missing}");
    assert!(missing.contains(&format!("resolve sign --at 200:{}", hash(200))), "{missing}");
    rig.ask(at(200, hash(7)));
    assert!(rig.answer().unwrap_err().contains("the node's head is 200"));
    assert_eq!(rig.signs(), 0);
    rig.ask(at(200, hash(200)));
    assert!(rig.answer().is_ok());
    assert_eq!(rig.signs(), 1);
}

#[test]
fn a_validator_that_is_alone_resumes_by_the_same_rules() {
    let alone = |head: u64| {
        let mut alone = connected(head, &[]);
        alone.sample.set.truncate(1);
        for order in [&mut alone.sample.order, &mut alone.sample.order_before].into_iter().flatten() {
            order.list.truncate(1);
            order.proposer = Some(US);
        }
        alone
    };
    let mut rig = after_a_kill();
    rig.head(200);
    for _ in 0..17 {
        rig.pass(1);
        rig.surveyed(alone(200));
    }
    assert_eq!(rig.signs(), 1, "{}", rig.silent());
    // After a clean stop as well: the node may have decided a block of which nothing was heard any more.
    let turns = Some(Turns { at_head: Some(1), before: Some(1), validators: 1 });
    let head = HeadRecord { block: block(200), timestamp: None, turns, recent: Vec::new() };
    let record = Record { node: NodeMark::StoppedClean, ..Record::new(version(Target::Genesis)) };
    let record = Record { chain: Some(chain()), ..record };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(head));
    assert_eq!(rig.modes(), [Mode::Silent]);
    rig.head(200);
    let mut waits = 0;
    while rig.signs() == 0 && waits < 30 {
        rig.pass(1);
        rig.surveyed(alone(200));
        waits += 1;
    }
    assert_eq!(waits, 16, "{}", rig.silent());
}

#[test]
fn a_node_that_is_alone_with_its_engine_on_is_made_silent() {
    let mut rig = running();
    rig.follow(92);
    for _ in 0..4 {
        rig.pass(1);
        rig.surveyed(connected(92, &[]));
    }
    assert_eq!(rig.count(|a| *a == Action::StopSealing), 1);
    assert!(rig.record.silent && rig.told("alone"));
    rig.follow(93);
    rig.follow(94);
    assert_eq!(rig.signs(), 0, "the next block would be our own");
    rig.follow(95);
    assert_eq!(rig.signs(), 1, "its peers are there again and the chain goes on");
}

#[test]
fn with_sign_after_unclean_now_or_no_validator_nothing_is_silent() {
    let policy = Policy { silent_after_unclean: false, ..Policy::default() };
    assert_eq!(Rig::new(policy, NodeMark::StoppedUnclean, 200).modes(), [Mode::Full]);
    assert_eq!(Rig::with(Policy::default(), NodeMark::StoppedUnclean, 200).modes(), [Mode::Full]);
}

#[test]
fn data_that_was_put_back_makes_it_silent() {
    for (data_compat, last) in [(false, Mode::Silent), (true, Mode::Full)] {
        let mut rig = running();
        rig.feed(Event::Policy(Policy { validator: true, ..Policy::default() }));
        rig.plan(Upgrade { data_compat, ..Upgrade::new(name("v2"), H, Origin::Schedule) });
        rig.follow(H);
        rig.exits(Status::Code(0));
        rig.feed(Event::JobDone(JobEnd::BackedUp(Ok("v2-1".to_owned()))));
        rig.exits(Status::Code(1));
        if !data_compat {
            rig.feed(Event::JobDone(JobEnd::Restored(Ok(()))));
        }
        rig.tick(10);
        assert_eq!(rig.modes().last(), Some(&last), "{:?}", rig.modes());
    }
}

// Other signers, other chains.

/// A mark of our key in a block of this many seconds ago.
fn marked(height: u64, seconds: u64) -> Survey {
    let own_mark = Some(OwnMark {
        height,
        age: Duration::from_secs(seconds),
        before_head: Duration::from_secs(seconds),
    });
    Survey { own_mark, ..survey(height, &[]) }
}

#[test]
fn another_node_that_signs_with_our_key_stops_and_halts_it() {
    let mut rig = after_a_kill();
    rig.head(215);
    rig.pass(60);
    rig.surveyed(marked(215, 70));
    assert_eq!(rig.stops(), 0, "that was our own, before");
    rig.head(216);
    rig.surveyed(marked(216, 5));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.head(217);
    rig.surveyed(marked(216, 6));
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.record.halted.is_some());
}

#[test]
fn it_does_not_sign_while_another_node_may() {
    let mut rig = after_a_kill();
    rig.follow(200);
    rig.head(205);
    rig.surveyed(marked(205, 1));
    rig.head(206);
    rig.surveyed(Survey { own_mark: marked(203, 3).own_mark, ..survey(206, &[]) });
    assert_eq!(rig.signs(), 0, "after a few seconds nothing tells whose seal that is");
    assert!(rig.silent().contains("block 203 has a seal of our key"));
    rig.head(207);
    rig.surveyed(Survey { own_mark: marked(203, 4).own_mark, ..survey(207, &[]) });
    assert_eq!((rig.signs(), rig.stops()), (1, 0), "it was our own");
}

#[test]
fn an_engine_that_runs_though_the_node_must_be_silent_is_stopped_and_no_duplicate() {
    let mut rig = after_a_kill();
    rig.head(230);
    rig.pass(60);
    let stopped = |rig: &Rig| (rig.count(|a| *a == Action::StopSealing), rig.stops());
    rig.surveyed(Survey { mining: Some(true), ..marked(230, 1) });
    assert_eq!(stopped(&rig), (1, 0));
    assert!(rig.told("not_silent"));
    rig.head(231);
    rig.surveyed(Survey { mining: Some(false), ..marked(231, 1) });
    assert_eq!(stopped(&rig), (1, 0), "that was the engine");
    rig.pass(30);
    rig.head(260);
    rig.surveyed(Survey { mining: Some(false), ..marked(260, 1) });
    rig.head(261);
    rig.surveyed(Survey { mining: Some(false), ..marked(260, 2) });
    assert_eq!(rig.stops(), 1, "and that was not");
}

#[test]
fn a_final_block_that_is_decided_anew_halts_a_validator_that_signs() {
    let mut rig = running();
    rig.follow(92);
    rig.follow(93);
    let other = Head { block: Block { height: 93, hash: Some(hash(7)) }, ..told(93) };
    rig.pass(1);
    rig.feed(Event::Head(other.clone()));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.recalls(93, hash(7));
    rig.tick(1);
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.told("final_block_rewritten"));
    // A node of another chain that answers at its address for a moment halts nothing.
    let mut rig = running();
    rig.follow(92);
    rig.follow(93);
    rig.feed(Event::Head(other));
    rig.recalls(93, hash(93));
    rig.tick(10);
    assert_eq!(rig.stops(), 0);
}

#[test]
fn a_node_of_another_chain_is_refused_and_named() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let other = Chain { id: 8, genesis: hash(0) };
    rig.machine.step(rig.now, Event::Head(told(95)));
    for _ in 0..3 {
        let acts = rig.machine.step(rig.now, Event::Identified(Ok(other.clone())));
        rig.said.extend(acts);
        rig.pass(5);
    }
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    let refused = |a: &Action| matches!(a, Action::Exit { exit: Exit::Nonsense, reason, .. } if reason.contains("chain 8"));
    assert_eq!(rig.count(refused), 1);
    assert_eq!(rig.kept.as_ref().unwrap().block.height, 90, "its heads count for nothing");
}

// Probation.

#[test]
fn a_new_binary_has_to_seal_and_to_have_the_old_blocks() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { own_seals: seals(2), ..survey(H + 1, &[]) });
    rig.pass(60);
    rig.head(H + 30);
    rig.surveyed(Survey { own_seals: seals(2), ..survey(H + 30, &[]) });
    assert_eq!(rig.outcome(), None, "it does not seal");
    rig.head(H + 31);
    rig.surveyed(Survey { own_seals: seals(12), ..survey(H + 31, &[]) });
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn seals_of_the_old_binary_and_heads_that_no_survey_has_seen_prove_nothing_of_the_new_one() {
    let mut rig = upgraded();
    rig.feed(Event::Policy(Policy {
        validator: true,
        backup: false,
        probation_blocks: 3,
        ..Policy::default()
    }));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.pass(60);
    for height in H + 2..=H + 6 {
        rig.head(height);
        // All blocks up to that of the stop have our seal, and none above.
        let own_seals = (0..20).map(|n| height - 1 - n <= H + 1).collect();
        rig.surveyed(Survey { own_seals, ..survey(height, &[]) });
    }
    assert_eq!(rig.outcome(), None);
    rig.surveyed(survey(H + 3, &[]));
    rig.head(H + 7);
    assert_eq!(rig.outcome(), None, "two blocks are seen");
    rig.surveyed(survey(H + 7, &[]));
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn a_new_binary_that_never_seals_is_told_to_and_then_rolled_back() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    for height in H + 1..=H + 40 {
        rig.follow_muted(height);
    }
    assert_eq!((rig.signs(), rig.stops()), (0, 2));
    rig.follow_muted(H + 41);
    assert_eq!(rig.signs(), 1, "told to seal after 40 blocks");
    for height in H + 42..=H + 62 {
        rig.follow_muted(height);
    }
    assert_eq!(rig.stops(), 3, "and failed 20 blocks later");
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack), "the headers prove that it has signed nothing");
}

#[test]
fn blocks_that_come_all_at_once_do_not_show_that_a_binary_cannot_seal() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.follow_muted(H + 1);
    for burst in 1..=13 {
        rig.follow_muted(H + 1 + burst * 30);
    }
    assert_eq!(rig.signs(), 0, "39 blocks");
    rig.follow_muted(H + 392);
    assert_eq!(rig.signs(), 1);
}

impl Rig {
    /// A block in which we have neither sealed nor proposed since the stop.
    fn follow_muted(&mut self, height: u64) {
        self.head(height);
        let oldest = H - 5;
        self.surveyed(Survey { own_seals: seals(0), oldest, own_mark: None, ..survey(height, &[1]) });
    }
}

#[test]
fn a_new_binary_that_has_signed_or_may_have_is_never_rolled_back() {
    // Proven: a block made long after its start carries our seal.
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.pass(30);
    rig.head(H + 30);
    rig.surveyed(marked(H + 30, 1));
    assert!(rig.record.upgrade.as_ref().unwrap().signed);
    // Not proven: headers are missing.
    let mut rig = upgraded();
    rig.head(H + 1);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted(), "{:?}", rig.said);
    // A head that rose is no signature, where the headers show none.
    let mut rig = upgraded();
    rig.follow_muted(H + 1);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_fork_that_the_new_binary_does_not_know_is_a_warning_and_no_more() {
    let mut rig = upgraded_to(Some(H + 1000));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { forks: Some(vec![0, 7]), ..survey(H + 1, &[]) });
    assert!(rig.told("fork_unknown"));
    assert_eq!(rig.stops(), 2);
    rig.pass(60);
    rig.follow(H + 30);
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn a_block_of_our_own_at_the_fork_may_be_exchanged() {
    let mut rig = running_to(Some(102));
    rig.follow(99);
    rig.head(H);
    // It was held by its gates until it had made the block at the fork itself.
    rig.surveyed(survey(H, &[3]));
    rig.feed(Event::Head(told(101)));
    assert_eq!(rig.stops(), 1, "the last block before the fork");
    rig.feed(Event::Head(told(102)));
    rig.exits(Status::Code(0));
    rig.head(101);
    rig.recalls(101, hash(101));
    rig.exits(Status::Code(0));
    rig.tick(10);
    let other = |height: u64, parent: String| Head {
        block: Block { height, hash: Some(format!("0xff{height}")) },
        parent: Some(parent),
        ..told(height)
    };
    rig.pass(1);
    rig.feed(Event::Head(other(102, hash(101))));
    rig.feed(Event::Head(other(103, "0xff102".to_owned())));
    assert_eq!(rig.kept.as_ref().unwrap().block.hash.as_deref(), Some("0xff103"));
    assert!(!rig.has_halted());
}

#[test]
fn an_old_binary_that_is_seen_to_stand_at_a_fork_is_remembered_to_be_unable_to_follow() {
    let mut rig = running_to(Some(300));
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.exits(Status::Code(1));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    let cannot = |rig: &Rig| rig.record.ended[0].cannot_follow;
    (H + 1..=299).for_each(|height| rig.follow(height));
    assert!(!cannot(&rig), "no curse (N12)");
    rig.pass(31);
    rig.surveyed(Survey { network_head: Some(320), ..survey(299, &[]) });
    assert!(!cannot(&rig), "one answer decides nothing");
    rig.pass(1);
    rig.surveyed(Survey { network_head: Some(320), ..survey(299, &[]) });
    assert!(cannot(&rig));
    rig.follow(300);
    assert!(cannot(&rig), "it may be a block of its own");
    rig.follow(301);
    assert!(!cannot(&rig));
}

#[test]
fn another_own_address_is_believed_when_it_is_named_twice() {
    let mut rig = running();
    let other = |head| Survey { me: Some([9; 20]), ..survey(head, &[]) };
    rig.head(H);
    rig.surveyed(other(H));
    assert_eq!(rig.stops(), 0, "no validator, if that were so");
    rig.surveyed(other(H));
    rig.surveyed(other(H));
    assert_eq!(rig.stops(), 1);
    // One answer is one answer, also where it is judged again because it came before its head.
    let mut rig = running();
    rig.pass(1);
    rig.surveyed(other(92));
    rig.feed(Event::Head(told(92)));
    let me = rig.machine.node().unwrap().network.survey.as_ref().unwrap().me;
    assert_eq!(me, Some(US), "the address that was named before");
}

#[test]
fn an_answer_that_comes_before_its_head_counts_with_it() {
    let mut rig = running();
    (92..H).for_each(|height| rig.follow(height));
    rig.pass(1);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    rig.feed(Event::Head(told(H)));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_validator_behind_sentry_nodes_is_not_alone() {
    let mut rig = running();
    let sentries = Some(vec![[77; 20], [78; 20]]);
    for height in 92..=H - 2 {
        rig.head(height);
        rig.surveyed(Survey { peers: Some(2), connected: sentries.clone(), ..survey(height, &[]) });
    }
    assert!(!rig.told("alone") && !rig.record.silent);
}

#[test]
fn what_was_signed_before_a_crash_of_ours_stays_possible() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.head(H + 2);
    rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, 1) });
    assert!(!rig.record.upgrade.as_ref().unwrap().signed, "it is too young to be certain");
    let (record, head) = (rig.record.clone(), rig.kept.clone());
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let policy = Policy { validator: true, backup: false, ..Policy::default() };
    rig.machine = Machine::new(policy, 0, record.clone());
    rig.feed(Event::Boot(Facts { record, link: version(v2()), head }));
    rig.tick(100);
    for height in H + 112..=H + 116 {
        rig.head(height);
        rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, height - H - 2) });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.outcome().is_none());
}

#[test]
fn a_clock_that_is_ahead_makes_no_signature_of_the_new_binary_one_of_the_old() {
    let mut rig = upgraded();
    rig.head(H + 1);
    for height in H + 2..=H + 6 {
        rig.head(height);
        let own_mark = OwnMark { age: Duration::from_secs(11), ..marked(height - 1, 1).own_mark.unwrap() };
        rig.surveyed(Survey { oldest: H - 5, own_mark: Some(own_mark), ..survey(height, &[]) });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.outcome().is_none());
    let attempt = rig.record.upgrade.as_ref().unwrap();
    assert!(objection(attempt, Some(H + 6)).is_some(), "`resolve rollback` wants --force as well");
}

#[test]
fn a_fork_that_the_old_binary_knows_forces_no_stop_and_makes_no_vote_void() {
    let mut rig = running_to(Some(H + 3));
    let forks = Some(vec![7, H + 3]);
    for height in 92..=H + 2 {
        rig.head(height);
        rig.surveyed(Survey { forks: forks.clone(), ..survey(height, &[3]) });
    }
    assert_eq!(rig.stops(), 0, "{}", rig.hold());
}

#[test]
fn data_beyond_the_record_makes_it_silent() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.plan(Upgrade::new(name("v2"), 105, Origin::Schedule));
    (91..=105).for_each(|height| rig.follow(height));
    rig.exits(Status::Code(0));
    rig.head(106);
    rig.recalls(105, hash(105));
    rig.exits(Status::Code(0));
    rig.tick(10);
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Silent], "the block after 106 is our own");
}

#[test]
fn a_new_binary_with_another_key_is_not_good() {
    for (me, outcome) in [(None, None), (Some([9; 20]), Some(Outcome::RolledBack))] {
        let mut rig = upgraded();
        rig.head(H + 1);
        rig.recalls(H, hash(H));
        for height in H + 2..=H + 90 {
            rig.head(height);
            rig.surveyed(Survey { me, own_seals: Vec::new(), oldest: H - 5, ..survey(height, &[1]) });
        }
        rig.exits(Status::Code(0));
        assert_ne!(rig.outcome(), Some(Outcome::Applied));
        assert!(me.is_none() || rig.outcome() == outcome, "{:?}", rig.record.halted);
    }
}

#[test]
fn an_upgrade_that_is_not_ready_holds_no_other_one_up() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.follow(91);
    let (v2, v3) =
        (Upgrade::new(name("v2"), 96, Origin::Schedule), Upgrade::new(name("v3"), 98, Origin::Schedule));
    rig.feed(Event::Schedule(vec![v2, v3]));
    rig.feed(Event::JobDone(JobEnd::Prepared(
        name("v2"),
        Err(Failure::new(Class::Permanent, "no such file")),
    )));
    let ready = Ready { version: version(Target::Upgrade(name("v3"))), promised: None, hook: false };
    rig.feed(Event::JobDone(JobEnd::Prepared(name("v3"), Ok(ready))));
    rig.follow(H);
    let upgrade = rig.record.upgrade.as_ref().map(|p| p.name.as_str());
    assert_eq!((rig.stops(), upgrade), (1, Some("v3")));
    let view = rig.machine.view();
    assert!(view.planned[0].why.contains("no such file"), "{:?}", view.planned);
}

#[test]
fn the_head_of_a_validator_is_made_durable_at_every_block_with_its_turns() {
    let mut rig = running();
    rig.follow(92);
    rig.head(93);
    let kept = rig.kept.clone().unwrap();
    assert_eq!(kept.block, block(93));
    let turns = Turns { at_head: Some(2), before: Some(3), validators: 4 };
    assert_eq!(kept.turns, Some(turns), "known before the next survey");
}

#[test]
fn a_clock_that_is_off_is_named_and_holds_nothing() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.schedule(None);
    for height in 91..=H {
        rig.pass(1);
        // Our clock is 8 s ahead.
        rig.feed(Event::Head(Head {
            timestamp: Some(1_000 + height),
            heard_at: 1_008 + height,
            ..told(height)
        }));
        rig.surveyed(survey(height, &[]));
    }
    assert_eq!(rig.stops(), 1, "{}", rig.hold());
    let skew = rig.notices("clock_skew");
    assert!(skew.len() == 1 && skew[0].text.contains("8s ahead"), "{skew:?}");
}

#[test]
fn proposers_that_are_not_upgraded_are_named_when_the_roll_is_late() {
    let mut rig = running();
    rig.schedule(Some(H + 1000));
    // Four validators take four slots, and a round of proposals shows the last one's version.
    for height in 92..H + 110 {
        rig.head(height);
        let census = (1..=4).map(|n| ([n; 20], "1.0.0".to_owned())).collect();
        rig.surveyed(Survey { census, ..survey(height, &[3, 4]) });
        assert_eq!(rig.told("few_upgraded"), height >= H + 100, "{height}");
    }
    let text = &rig.notices("few_upgraded")[0].text;
    assert_eq!(text, "0 of 4 proposers run >= 2.0.0; quorum 3; fork in 900 blocks");
}

#[test]
fn a_chain_that_stands_still_is_named_with_the_missing_and_the_next_round() {
    let mut rig = running();
    rig.follow(92);
    rig.pass(10);
    rig.surveyed(connected(92, &[2]));
    rig.feed(Event::Tick);
    let warnings = rig.notices("chain_stands_still");
    assert_eq!(warnings.len(), 1);
    let text = &warnings[0].text;
    for part in ["head=92", "3 of 4 validators", "0x0303", "0x0404", "round 3 begins in 4 s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
