//! A validator's machine, asked and answered by hand: what it wants to know, and what follows.

use super::super::{
    Ask, Block, Class, Ending, Event, Facts, Head, JobEnd, NodeMark, Origin, OwnSeal, Policy, Ready,
    Recollection, Request, Status, Target, Version,
};
use super::*;
use crate::digest::Digest;
use crate::exit::Exit;
use crate::machine::gates::{Sample, Seat};
use crate::name::Name;

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
        own_seal: None,
        mining: None,
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
        let ready = Ready { version: version(v2()), promised: Some("2.0.0".to_owned()), hook: false };
        self.feed(Event::JobDone(JobEnd::Prepared("v2".parse().unwrap(), Ok(ready))));
    }

    fn surveyed(&mut self, survey: Survey) {
        self.feed(Event::Surveyed(Ok(survey)));
    }

    fn recalls(&mut self, height: u64, hash: String) {
        self.recalls_as(height, hash, None);
    }

    fn recalls_as(&mut self, height: u64, hash: String, client: Option<&str>) {
        let (block, client_version) = (Block { height, hash: Some(hash) }, client.map(ToOwned::to_owned));
        self.feed(Event::Recalled(Ok(Recollection { block, client_version })));
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
fn a_gate_that_opens_and_closes_with_every_block_is_told_of_once_and_held_since_the_first() {
    let mut rig = running();
    for height in H..H + 20 {
        rig.head(height);
        let mut seen = survey(height, &[3]);
        seen.sample.first_round = if height % 2 == 0 { 8 } else { 5 };
        rig.surveyed(seen);
    }
    let notices = rig.count(|a| matches!(a, Action::Tell(notice) if notice.event == "gates_hold"));
    assert_eq!(notices, 2, "quorum, and calm besides");
    assert!(
        rig.hold().contains("calm: 5 of the last 8") && rig.hold().ends_with("(for 19 s)"),
        "{}",
        rig.hold()
    );
}

#[test]
fn that_gates_hold_past_the_deadline_is_a_warning() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(Some(H + 65));
    for height in H..H + 20 {
        rig.head(height);
        rig.surveyed(survey(height, &[3]));
    }
    let warning = |action: &Action| match action {
        Action::Tell(notice) if notice.level == Level::Warn => Some(notice.text.clone()),
        _ => None,
    };
    let warnings: Vec<String> = rig.said.iter().filter_map(warning).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let says = format!("name=v2 deadline={} has passed; gate=quorum 3 of 4 live", H + 5);
    assert!(warnings[0].starts_with(&says), "{warnings:?}");
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
    frozen.network_head = Some(H + 10);
    rig.surveyed(frozen.clone());
    assert_eq!(rig.stops(), 0, "a clock that was set forward is no proof");
    rig.pass(31);
    rig.surveyed(Survey { network_head: None, ..frozen.clone() });
    assert_eq!(rig.stops(), 0, "the whole network may stand still");
    rig.surveyed(frozen);
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_head_that_stands_still_is_old_whatever_the_clock_says() {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(survey(H, &[2, 3]));
    rig.pass(4);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("the head is 4.0 s old"), "{}", rig.hold());
    rig.head(H + 1);
    rig.surveyed(survey(H + 1, &[]));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_height_that_was_told_once_opens_no_gate_and_is_not_remembered() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    rig.schedule(Some(H + 20));
    rig.head(60);
    rig.pass(10);
    let lie = Head { block: Block { height: 1_000_000, hash: Some(hash(7)) }, timestamp: None };
    rig.feed(Event::Head(lie));
    let highest = |rig: &Rig| rig.record.highest.as_ref().map(|b| b.height);
    assert_eq!(highest(&rig), Some(50));
    rig.head(H);
    assert_eq!(highest(&rig), Some(H));
    rig.surveyed(survey(H, &[3]));
    assert_eq!(rig.stops(), 0, "the fork is not near");
    assert!(rig.hold().contains("3 of 4 live"), "{}", rig.hold());
    rig.head(H + 1);
    rig.surveyed(survey(H + 1, &[]));
    assert_eq!(rig.stops(), 1, "nor is what the network says out of date");
}

#[test]
fn the_head_of_a_validator_that_is_polled_is_remembered_all_the_same() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
    let told =
        |height| Event::Head(Head { block: Block { height, hash: Some(hash(height)) }, timestamp: None });
    // More blocks come between two questions than are believed at once.
    for height in [60, 65, 70] {
        rig.pass(5);
        rig.feed(told(height));
        let asked = rig.said.drain(..).filter(|action| *action == Action::Confirm).count();
        if asked > 0 {
            rig.feed(told(height));
        }
    }
    assert_eq!(rig.record.highest.map(|b| b.height), Some(65));
}

#[test]
fn the_operators_now_needs_no_gate() {
    let mut rig = running();
    rig.head(H - 50);
    rig.feed(Event::Request(Ask { reply_to: None, what: Request::UpgradeNow("v2".parse().unwrap()) }));
    let ready = Ready { version: version(v2()), promised: None, hook: false };
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
    // Without its engine it loses its peers, and its head stands still.
    rig.pass(2);
    let mut alone = survey(H + 1, &[]);
    alone.sample.head_age = Duration::from_secs(4);
    rig.surveyed(alone);
    assert_eq!(rig.stops(), 0);
    rig.pass(1);
    rig.feed(Event::Tick);
    let count = |rig: &Rig, what: &Action| rig.count(|a| a == what);
    assert_eq!((count(&rig, &Action::Leave), count(&rig, &Action::Sign), rig.stops()), (1, 0, 1));
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

#[test]
fn a_silent_one_has_left_already_and_does_not_come_back_to_seal() {
    let mut rig = after_a_kill(Policy { leave_before_stop: true, ..Policy::default() });
    rig.schedule(None);
    rig.head(140);
    rig.surveyed(survey(140, &[1]));
    assert_eq!((rig.count(|a| *a == Action::Leave), rig.stops()), (0, 1));
    assert_eq!(rig.count(|a| *a == Action::Sign), 0);
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
fn after_the_data_was_put_back_it_is_silent() {
    for (data_compat, silent) in [(false, 1), (true, 0)] {
        let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 50);
        rig.feed(Event::Policy(Policy { validator: true, ..Policy::default() }));
        let upgrade = Upgrade { data_compat, ..Upgrade::new("v2".parse().unwrap(), H, Origin::Schedule) };
        rig.feed(Event::Schedule(vec![upgrade]));
        let ready = Ready { version: version(v2()), promised: None, hook: false };
        rig.feed(Event::JobDone(JobEnd::Prepared("v2".parse().unwrap(), Ok(ready))));
        rig.head(H);
        rig.surveyed(survey(H, &[]));
        rig.exits(Status::Code(0));
        rig.feed(Event::JobDone(JobEnd::BackedUp(Ok("v2-1".to_owned()))));
        for _ in 0..3 {
            rig.exits(Status::Code(0));
            rig.pass(60);
            rig.feed(Event::Tick);
        }
        if !data_compat {
            rig.feed(Event::JobDone(JobEnd::Restored(Ok(()))));
        }
        let spawned = |silent| rig.count(|a| matches!(a, Action::Spawn { silent: s, .. } if *s == silent));
        assert_eq!((spawned(true), spawned(false)), (silent, 5 - silent), "the old one once more");
        assert_eq!(rig.record.silent, silent == 1);
    }
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
fn a_node_that_cannot_be_told_to_seal_is_upgraded_all_the_same() {
    let mut rig = after_a_kill(Policy::default());
    rig.schedule(Some(300));
    rig.head(298);
    rig.recalls(200, hash(200));
    for head in 298..=299 {
        rig.head(head);
        rig.surveyed(survey(head, &[1, 2]));
        rig.feed(Event::Signing(Err(Failure::new(Class::Permanent, "no miner_start here"))));
    }
    assert!(rig.count(|a| *a == Action::Sign) > 0 && rig.told("not_sealing"));
    assert_eq!(rig.stops(), 1, "at the last block before the fork");
}

#[test]
fn a_clean_stop_in_between_does_not_make_it_speak() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(150);
    rig.feed(Event::Request(Ask { reply_to: None, what: Request::Restart }));
    rig.exits(Status::Code(0));
    assert_eq!(rig.count(|a| matches!(a, Action::Spawn { silent: true, .. })), 2);
}

/// A seal of our key in a block of so many seconds ago.
fn sealed(height: u64, seconds: u64) -> Survey {
    let own_seal = Some(OwnSeal { height, age: Duration::from_secs(seconds) });
    Survey { own_seal, ..survey(height, &[]) }
}

fn has_halted(rig: &Rig) -> bool {
    rig.said.iter().any(|a| matches!(a, Action::Exit { exit: Exit::Halted, .. }))
}

#[test]
fn a_twin_with_the_same_key_stops_and_halts_it() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(215);
    rig.pass(60);
    rig.surveyed(sealed(215, 70));
    assert_eq!(rig.stops(), 0, "that was we ourselves, before");
    rig.head(216);
    rig.surveyed(sealed(216, 5));
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(has_halted(&rig) && rig.record.halted.is_some());
}

#[test]
fn it_does_not_seal_while_a_twin_may() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(201);
    rig.recalls(200, hash(200));
    rig.head(205);
    rig.surveyed(sealed(205, 1));
    rig.head(206);
    rig.surveyed(Survey { own_seal: sealed(203, 3).own_seal, ..survey(206, &[]) });
    assert_eq!(rig.count(|a| *a == Action::Sign), 0, "after so few seconds nobody knows whose seal that is");
    assert!(rig.machine.view().silent.unwrap().contains("block 203 has a seal of our key"));
    rig.head(207);
    rig.surveyed(Survey { own_seal: sealed(203, 4).own_seal, ..survey(207, &[1]) });
    assert_eq!((rig.count(|a| *a == Action::Sign), rig.stops()), (1, 0), "it was our own");
}

#[test]
fn our_own_last_seals_are_no_twin_when_the_clock_was_set_back() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(205);
    rig.pass(60);
    rig.surveyed(sealed(205, 0));
    assert_eq!(rig.stops(), 0, "the head may have gone on unseen before the kill");
    rig.head(230);
    rig.surveyed(sealed(230, 0));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn an_engine_that_runs_though_the_node_is_to_be_silent_is_stopped_and_no_twin() {
    let mut rig = after_a_kill(Policy::default());
    rig.head(230);
    rig.pass(60);
    rig.surveyed(Survey { mining: Some(true), ..sealed(230, 1) });
    assert_eq!((rig.count(|a| *a == Action::Leave), rig.stops()), (1, 0));
    assert!(rig.told("not_silent"));
    rig.head(231);
    rig.surveyed(Survey { mining: Some(false), ..sealed(231, 1) });
    assert_eq!((rig.count(|a| *a == Action::Leave), rig.stops()), (1, 0), "that was the engine");
    rig.pass(30);
    rig.head(260);
    rig.surveyed(Survey { mining: Some(false), ..sealed(260, 1) });
    assert_eq!(rig.stops(), 1, "and that was not");
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
fn a_new_binary_that_does_not_seal_makes_room_for_the_next() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.pass(660);
    rig.head(H + 30);
    rig.surveyed(Survey { own_seals: (0, 20), ..survey(H + 30, &[]) });
    assert!(rig.told("probation_overdue") && !applied(&rig));
    let name: Name = "v3".parse().unwrap();
    rig.feed(Event::Schedule(vec![Upgrade::new(name.clone(), H + 20, Origin::Schedule)]));
    let target = Target::Upgrade(name.clone());
    let ready = Ready { version: version(target), promised: None, hook: false };
    rig.feed(Event::JobDone(JobEnd::Prepared(name, Ok(ready))));
    assert!(applied(&rig));
}

#[test]
fn a_new_binary_that_is_still_silent_has_not_proved_itself() {
    let mut rig = after_a_kill(Policy::default());
    rig.schedule(None);
    rig.head(140);
    rig.surveyed(survey(140, &[1]));
    assert_eq!(rig.stops(), 1, "nobody needs one who does not seal");
    rig.exits(Status::Code(0));
    rig.head(160);
    rig.pass(60);
    rig.head(201);
    rig.recalls(200, hash(200));
    // Its seals of before the kill may still be in the last blocks.
    rig.surveyed(Survey { own_seals: (12, 20), ..survey(201, &[1]) });
    assert!(!applied(&rig));
    rig.head(202);
    rig.surveyed(Survey { own_seals: (12, 20), ..survey(202, &[1]) });
    rig.feed(Event::Signing(Ok(())));
    rig.head(203);
    rig.surveyed(Survey { own_seals: (12, 20), ..survey(203, &[]) });
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
fn another_node_at_the_same_address_proves_nothing_of_the_new_binary() {
    let mut rig = upgraded_bystander();
    rig.head(H);
    rig.recalls_as(H, hash(H), Some("Gwemix/v1.0.0-stable/linux-amd64/go1.26.6"));
    rig.head(H + 30);
    rig.pass(1300);
    rig.feed(Event::Tick);
    let overdue = |a: &Action| matches!(a, Action::Tell(n) if n.event == "probation_overdue" && n.text.contains("v1.0.0"));
    assert!(!applied(&rig) && rig.count(overdue) == 1, "{:?}", rig.said);
    assert_eq!((rig.stops(), rig.count(|a| *a == Action::Recall { height: H })), (1, 2), "it is asked again");
    rig.recalls_as(H, hash(H), Some("Gwemix/v2.0.0-stable/linux-amd64/go1.26.6"));
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
