//! A validator's machine, asked and answered by hand: what it wants to know, and what follows.

mod back;
mod evidence;
mod leaving;
mod mishaps;
mod probation;
mod sealing;
mod setbacks;
mod symptoms;
mod unheard;

use super::super::rollback::{Known, Wanted, way_back};
use super::super::{
    Ask, Block, Chain, Class, Ending, Event, Facts, Head, HeadRecord, JobEnd, Mode, NodeMark, Notice, Origin,
    Outcome, OwnMark, Policy, Ready, Recollection, Record, Request, Status, Target, Turns, Version,
};
use super::*;
use crate::digest::Digest;
use crate::exit::Exit;
use crate::machine::Launched;
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
    let sha256 = Digest::sha256(target.to_string().as_bytes());
    Version { target, sha256 }
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
        Rig::boot(policy, record, Some(HeadRecord::new(block(highest))))
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
        rig.feed(Event::Boot(Facts {
            record,
            link: version(Target::Genesis),
            head,
            has_data: false,
            launched: None,
        }));
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
                    // At the first contact.
                    Action::Recall { height } if self.machine.heads.height().is_none() => {
                        let block = block(*height);
                        let answer = Recollection { block, client_version: None, forks: None };
                        events.push(Event::Recalled(Ok(answer)));
                    }
                    Action::Unpeer => events.push(Event::Unpeered(Ok(3))),
                    Action::Greet { .. } => events.push(Event::Greeted(Ok(Some("a".to_owned())))),
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
        self.feed(Event::Schedule(vec![upgrade.into()]));
        let ready = Ready { promised: Some("2.0.0".to_owned()), ..Ready::new(version(target)) };
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
        self.feed(Event::Exited(Ending { status, environment: None, last_words: None }));
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
        self.count(|a| matches!(a, Action::Terminate))
    }

    fn signs(&self) -> usize {
        self.count(|a| matches!(a, Action::StartSealing))
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

/// A validator at `H` with v2 due there, whose head does not rise any more while `network_head` is told.
fn standing(fork_that_was_missed: Option<u64>, network_head: Option<u64>) -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 90);
    let ended = fork_that_was_missed.map(|fork| super::super::Ended {
        name: name("v1"),
        height: H - 1,
        fork_height: Some(fork),
        cannot_follow: true,
        switch: None,
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

/// A validator whose node was killed at block 200, started again.
fn after_a_kill() -> Rig {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedUnclean, 200);
    assert_eq!(rig.modes(), [Mode::Silent]);
    rig.pass(1);
    rig
}

/// A mark of our key in a block of this many seconds ago.
fn marked(height: u64, seconds: u64) -> Survey {
    let own_mark = Some(OwnMark {
        height,
        age: Duration::from_secs(seconds),
        before_head: Duration::from_secs(seconds),
    });
    Survey { own_mark, ..survey(height, &[]) }
}

impl Rig {
    /// A block in which we have neither sealed nor proposed since the stop.
    fn follow_muted(&mut self, height: u64) {
        self.head(height);
        let oldest = H - 5;
        self.surveyed(Survey { own_seals: seals(0), oldest, own_mark: None, ..survey(height, &[1]) });
    }
}

/// Whether the operator who wants to go back is told that the new binary may have signed.
fn warns_of_signatures(record: &Record, highest: u64) -> bool {
    let wanted = Wanted { to: None, restore: false, force: false };
    let known = Known { highest: Some(highest), validator: true, ..Known::default() };
    let record = Record { halted: None, ..record.clone() };
    let way = way_back(&record, &wanted, &known).unwrap();
    way.doubts.iter().any(|doubt| doubt.contains("may have signed"))
}
