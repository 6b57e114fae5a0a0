//! A validator's machine, asked and answered by hand: what it wants to know, and what follows.

use super::super::{
    Ask, Block, Class, Ending, Event, Facts, Head, JobEnd, NodeMark, Origin, Policy, Ready, Request, Status,
    Target, Version,
};
use super::*;
use crate::digest::Digest;
use crate::exit::Exit;
use crate::machine::gates::{Sample, Seat};

const US: [u8; 20] = [1; 20];
const H: u64 = 100;

/// A machine, its clock, and a disk and node that do at once what they are told.
struct Rig {
    machine: Machine,
    now: Instant,
    record: Record,
    said: Vec<Action>,
}

fn version(target: Target) -> Version {
    Version { target, sha256: Digest::sha256(b"") }
}

fn v2() -> Target {
    Target::Upgrade("v2".parse().unwrap())
}

fn hash(height: u64) -> String {
    format!("0x{height:064x}")
}

/// A calm network of four, seen from a fresh head, in which everybody but `missing` seals.
fn survey(head: u64, missing: &[u8]) -> Survey {
    let seat = |n: u8| Seat { validator: [n; 20], sealing: !missing.contains(&n) };
    Survey {
        me: Some(US),
        due_set: (1..=4).map(|n| [n; 20]).collect(),
        sample: Sample {
            head,
            head_age: Duration::from_secs(1),
            period: Duration::from_secs(1),
            set: (1..=4).map(seat).collect(),
            blocks: 8,
            first_round: 8,
            proposer: None,
        },
        own_seals: (20, 20),
        own_seal_age: None,
        network_head: None,
        client_version: None,
        forks: None,
    }
}

impl Rig {
    fn new(policy: Policy, node: NodeMark, highest: u64) -> Rig {
        Rig::with(Policy { validator: true, ..policy }, node, highest)
    }

    fn with(policy: Policy, node: NodeMark, highest: u64) -> Rig {
        let mut record = Record::new(version(Target::Genesis));
        record.node = node;
        record.highest = Some(Block { height: highest, hash: Some(hash(highest)) });
        let policy = Policy { backup: false, ..policy };
        let machine = Machine::new(policy, 0, record.clone());
        let mut rig = Rig { machine, now: Instant::now(), record: record.clone(), said: Vec::new() };
        rig.feed(Event::Boot(Facts { record, link: version(Target::Genesis) }));
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
                    _ => {}
                }
                self.said.push(action);
            }
        }
    }

    /// A second passes, and the node tells its head, twice.
    fn head(&mut self, height: u64) {
        self.pass(1);
        let head = || Head { block: Block { height, hash: Some(hash(height)) }, timestamp: None };
        self.feed(Event::Head(head()));
        self.feed(Event::Head(head()));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn schedule(&mut self, fork: Option<u64>) {
        let mut upgrade = Upgrade::new("v2".parse().unwrap(), H, Origin::Schedule);
        upgrade.fork_height = fork;
        self.feed(Event::Schedule(vec![upgrade]));
        let ready = Ready { version: version(v2()), hook: false };
        self.feed(Event::JobDone(JobEnd::Prepared("v2".parse().unwrap(), Ok(ready))));
    }

    fn surveyed(&mut self, survey: Survey) {
        self.feed(Event::Surveyed(Ok(survey)));
    }

    fn recalls(&mut self, height: u64, hash: String) {
        self.feed(Event::Recalled(Ok(Block { height, hash: Some(hash) })));
    }

    fn exits(&mut self, status: Status) {
        self.feed(Event::Exited(Ending { status, environment: None }));
    }

    fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.said.iter().filter(|action| is(action)).count()
    }

    fn stops(&self) -> usize {
        self.count(|a| *a == Action::Terminate)
    }

    fn told(&self, event: &str) -> bool {
        self.said.iter().any(|a| matches!(a, Action::Tell(notice) if notice.event == event))
    }

    fn hold(&self) -> String {
        self.machine.view().planned[0].hold.clone().unwrap_or_default()
    }
}

fn running() -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(None);
    rig
}

#[test]
fn a_validator_stops_when_the_network_can_spare_it() {
    let mut rig = running();
    rig.head(H);
    assert_eq!(rig.said.last(), Some(&Action::Survey { due: Some(H) }));
    assert_eq!(rig.stops(), 0, "not before it knows");
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_gate_that_holds_is_shown_with_numbers_and_asked_again_with_the_next_head() {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(survey(H, &[3]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("3 of 4 live, need 3 without us, have 2"), "{}", rig.hold());
    let surveys = |rig: &Rig| rig.count(|a| matches!(a, Action::Survey { .. }));
    let before = surveys(&rig);
    rig.feed(Event::Tick);
    assert_eq!(surveys(&rig), before, "one survey per head");
    rig.head(H + 1);
    assert_eq!(surveys(&rig), before + 1);
    rig.surveyed(survey(H + 1, &[]));
    assert_eq!(rig.stops(), 1);
    assert!(rig.told("gates_hold") && rig.told("gates_open"));
}

#[test]
fn what_the_network_said_before_the_head_moved_on_does_not_count() {
    let mut rig = running();
    rig.head(H + 5);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("unknown"), "{}", rig.hold());
}

#[test]
fn a_node_that_cannot_be_asked_is_not_stopped_until_the_fork_demands_it() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(Some(H + 20));
    rig.head(H);
    rig.feed(Event::Surveyed(Err(Failure::new(super::super::Class::Transient, "no istanbul"))));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("no istanbul"), "{}", rig.hold());
    rig.head(H + 19);
    assert_eq!(rig.stops(), 1, "the old binary cannot follow the next block");
}

#[test]
fn a_node_that_stands_still_while_the_network_goes_on_is_rolled_forward() {
    let mut rig = running();
    rig.head(H);
    let mut frozen = survey(H, &[2, 3, 4]);
    frozen.sample.head_age = Duration::from_secs(31);
    rig.surveyed(frozen.clone());
    assert_eq!(rig.stops(), 0, "the whole network may stand still");
    frozen.network_head = Some(H + 10);
    rig.pass(10);
    rig.surveyed(frozen);
    assert_eq!(rig.stops(), 1);
}

#[test]
fn the_operators_now_needs_no_gate() {
    let mut rig = running();
    rig.head(H - 50);
    rig.feed(Event::Request(Ask { reply_to: None, what: Request::UpgradeNow("v2".parse().unwrap()) }));
    let ready = Ready { version: version(v2()), hook: false };
    rig.feed(Event::JobDone(JobEnd::Prepared("v2".parse().unwrap(), Ok(ready))));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn with_leave_before_stop_it_seals_no_more_for_a_few_blocks_first() {
    let mut rig =
        Rig::new(Policy { leave_before_stop: true, ..Policy::default() }, NodeMark::StoppedClean, 50);
    rig.schedule(None);
    rig.head(H);
    rig.surveyed(survey(H, &[]));
    assert_eq!((rig.count(|a| *a == Action::Leave), rig.stops()), (1, 0));
    rig.head(H + 1);
    rig.surveyed(survey(H + 1, &[]));
    assert_eq!(rig.stops(), 0);
    rig.pass(10);
    rig.feed(Event::Tick);
    rig.head(H + 5);
    rig.surveyed(survey(H + 5, &[]));
    assert_eq!((rig.count(|a| *a == Action::Leave), rig.stops()), (1, 1));
}

#[test]
fn whoever_has_left_and_then_may_not_stop_comes_back() {
    for cancelled in [false, true] {
        let mut rig =
            Rig::new(Policy { leave_before_stop: true, ..Policy::default() }, NodeMark::StoppedClean, 50);
        rig.schedule(None);
        rig.head(H);
        rig.surveyed(survey(H, &[]));
        assert_eq!((rig.count(|a| *a == Action::Leave), rig.count(|a| *a == Action::Sign)), (1, 0));
        if cancelled {
            rig.feed(Event::Schedule(Vec::new()));
        } else {
            rig.head(H + 1);
            rig.surveyed(survey(H + 1, &[1, 3]));
        }
        assert_eq!((rig.stops(), rig.count(|a| *a == Action::Sign)), (0, 1));
    }
}

/// A validator whose node was killed, started again.
fn after_a_kill(policy: Policy) -> Rig {
    Rig::new(policy, NodeMark::StoppedUnclean, 200)
}

#[test]
fn after_an_unclean_stop_it_is_silent_until_it_is_past_everything_final() {
    let mut rig = after_a_kill(Policy::default());
    assert_eq!(rig.count(|a| matches!(a, Action::Spawn { silent: true, .. })), 1);
    assert!(rig.record.silent, "a restart of ours must not forget it");
    rig.head(150);
    assert_eq!(rig.said.last(), Some(&Action::Survey { due: None }));
    rig.surveyed(survey(150, &[1]));
    rig.head(201);
    assert!(rig.said.contains(&Action::Recall { height: 200 }));
    rig.recalls(200, hash(200));
    rig.surveyed(survey(201, &[1]));
    assert_eq!(rig.count(|a| *a == Action::Sign), 0);
    rig.head(202);
    rig.surveyed(survey(202, &[1]));
    assert_eq!(rig.count(|a| *a == Action::Sign), 1);
    rig.feed(Event::Signing(Ok(())));
    assert!(!rig.record.silent && rig.told("sealing"));
}

#[test]
fn another_block_where_ours_was_keeps_it_silent() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(210);
    rig.recalls(200, hash(7));
    rig.surveyed(survey(210, &[1]));
    assert_eq!(rig.count(|a| *a == Action::Sign), 0);
    assert!(rig.machine.view().silent.unwrap().contains("block 200 was"));
}

#[test]
fn what_takes_too_long_is_left_to_the_operator() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(150);
    rig.surveyed(survey(150, &[1]));
    rig.pass(600);
    rig.feed(Event::Tick);
    assert!(rig.told("still_silent") && rig.count(|a| *a == Action::Sign) == 0);
    rig.feed(Event::Request(Ask { reply_to: None, what: Request::Sign }));
    assert_eq!(rig.count(|a| *a == Action::Sign), 1);
}

#[test]
fn a_clean_stop_in_between_does_not_make_it_speak() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(150);
    rig.feed(Event::Request(Ask { reply_to: None, what: Request::Restart }));
    rig.exits(Status::Code(0));
    assert_eq!(rig.count(|a| matches!(a, Action::Spawn { silent: true, .. })), 2);
}

#[test]
fn a_twin_with_the_same_key_stops_and_halts_it() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(150);
    rig.pass(60);
    rig.surveyed(Survey { own_seal_age: Some(Duration::from_secs(70)), ..survey(150, &[]) });
    assert_eq!(rig.stops(), 0, "that was we ourselves, before");
    rig.head(151);
    rig.surveyed(Survey { own_seal_age: Some(Duration::from_secs(5)), ..survey(151, &[]) });
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(rig.said.iter().any(|a| matches!(a, Action::Exit { exit: Exit::Halted, .. })));
    assert!(rig.record.halted.is_some());
}

#[test]
fn with_sign_after_unclean_now_or_no_validator_nothing_is_silent() {
    let rig = after_a_kill(Policy { silent_after_unclean: false, ..Policy::default() });
    assert_eq!(rig.count(|a| matches!(a, Action::Spawn { silent: false, .. })), 1);
    let rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 200);
    assert_eq!(rig.count(|a| matches!(a, Action::Spawn { silent: false, .. })), 1);
}

/// A validator that has just been upgraded, at block 100.
fn upgraded() -> Rig {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(survey(H, &[]));
    rig.exits(Status::Code(0));
    rig
}

fn applied(rig: &Rig) -> bool {
    rig.record.ended.iter().any(|e| e.name.as_str() == "v2")
}

#[test]
fn a_new_binary_has_to_seal_and_to_have_the_old_blocks() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { own_seals: (2, 20), ..survey(H + 1, &[]) });
    rig.pass(60);
    rig.head(H + 30);
    assert!(!applied(&rig), "it does not seal");
    rig.surveyed(Survey { own_seals: (12, 20), ..survey(H + 30, &[]) });
    assert!(applied(&rig));
}

#[test]
fn a_new_binary_on_another_chain_is_stopped() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(5));
    assert_eq!(rig.stops(), 2);
    assert!(rig.told("unproven") && !applied(&rig));
}

#[test]
fn a_new_binary_that_does_not_know_its_fork_is_stopped() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(Some(H + 100));
    rig.head(H);
    rig.surveyed(survey(H, &[]));
    rig.exits(Status::Code(0));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { forks: Some(vec![0, 7]), ..survey(H + 1, &[]) });
    assert_eq!(rig.stops(), 2);
}

#[test]
fn the_head_of_a_validator_is_made_durable_now_and_then() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.head(60);
    rig.pass(10);
    rig.head(71);
    assert_eq!(rig.record.highest.as_ref().map(|b| b.height), Some(71));
    rig.head(72);
    assert_eq!(rig.record.highest.as_ref().map(|b| b.height), Some(71), "not every block");
}

/// A node that seals nothing, upgraded at `H`.
fn upgraded_bystander() -> Rig {
    let mut rig = Rig::with(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(None);
    rig.head(H);
    rig.exits(Status::Code(0));
    rig.pass(60);
    rig
}

#[test]
fn whoever_seals_nothing_has_to_have_the_old_blocks_too() {
    let mut rig = upgraded_bystander();
    rig.head(3);
    rig.head(40);
    assert!(!applied(&rig), "20 blocks of another chain prove nothing");
    assert_eq!(rig.count(|a| matches!(a, Action::Recall { .. })), 0, "it cannot have the block yet");
    rig.head(H + 5);
    rig.feed(Event::Recalled(Err(Failure::new(Class::Transient, "no answer"))));
    assert!(!applied(&rig));
    rig.pass(5);
    rig.feed(Event::Tick);
    assert_eq!(rig.count(|a| *a == Action::Recall { height: H }), 2);
    rig.recalls(H, hash(H));
    assert!(applied(&rig));
}

#[test]
fn another_chain_is_no_upgrade_of_this_one() {
    let mut rig = upgraded_bystander();
    rig.head(H + 30);
    rig.recalls(H, hash(7));
    assert_eq!(rig.stops(), 2);
    assert!(rig.told("unproven") && !applied(&rig));
}

#[test]
fn no_height_is_too_great_to_be_compared() {
    let mut rig = running();
    rig.head(u64::MAX);
    rig.surveyed(survey(u64::MAX, &[]));
    assert!(!rig.hold().contains("unknown"), "{}", rig.hold());
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedUnclean, u64::MAX);
    rig.head(150);
    rig.surveyed(survey(150, &[1]));
    assert_eq!(rig.count(|a| *a == Action::Sign), 0);
}
