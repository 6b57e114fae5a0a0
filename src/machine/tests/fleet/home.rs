//! One validator's home: the machine, its disk, its worker, and the node process with its database.

use super::chain::Id;
use super::scenario::{Binary, Scenario};
use super::*;
use crate::exit::Exit;

pub(super) struct Home {
    pub(super) address: Validator,
    pub(super) policy: Policy,
    /// The plans of its operator.
    pub(super) plan: Vec<Upgrade>,
    /// The binary of each version, the first being the old one.
    pub(super) binaries: Vec<Binary>,
    /// The journal, the head record and the link, as they are on disk.
    pub(super) record: Record,
    pub(super) head_record: Option<HeadRecord>,
    pub(super) link: Target,
    /// `None` while the supervisor does not run.
    pub(super) machine: Option<Machine>,
    /// How often the supervisor was started; what was asked by an earlier one is not answered.
    pub(super) boots: u32,
    /// The time for which the machine is to be woken.
    pub(super) wake: u64,
    pub(super) awaiting: bool,
    /// The job, its number, and whether it was asked to end.
    pub(super) job: Option<(u32, Job, bool)>,
    pub(super) jobs: u32,
    /// How often the download of the binary of each version still fails.
    pub(super) failures: Vec<u32>,
    pub(super) node: Option<Process>,
    pub(super) pids: u32,
    /// The launch that the lock names.
    pub(super) launched: Option<u64>,
    /// The head in the database of a node, and the highest block that is in it.
    pub(super) head: Id,
    pub(super) top: Id,
    /// When it got that head.
    pub(super) head_since: u64,
    /// Milliseconds by which its clock is ahead.
    pub(super) skew: i64,
    /// When its peers have accepted a connection of its last.
    pub(super) accepted: Option<u64>,
    /// Its address had been used up by the node before.
    pub(super) burnt: Option<u64>,
    /// The highest version that has signed.
    pub(super) signed: usize,
    /// The head at its last absence that no gate foresees.
    pub(super) surprise: Option<u64>,
    /// The height of its head when its node was started last.
    pub(super) started_at: u64,
    /// Whether the next start is its operator's order.
    pub(super) ordered: bool,
    /// Whether it never comes back.
    pub(super) dead: bool,
    /// How the supervisor has ended.
    pub(super) exit: Option<(Exit, String)>,
    /// Until when a node of another chain answers in place of its own.
    pub(super) foreign_until: u64,
    /// The events that wait while its supervisor waits for its disk.
    pub(super) inbox: Option<VecDeque<Event>>,
    /// When the last question that was asked is answered.
    pub(super) busy_until: u64,
    /// When the person has last done something about it.
    pub(super) helped: u64,
}

pub(super) struct Process {
    pub(super) pid: u32,
    /// The supervisor that has executed it, by the number of its start.
    pub(super) boots: u32,
    pub(super) version: usize,
    /// When it was executed.
    pub(super) since: u64,
    pub(super) mode: Mode,
    /// Whether it answers over RPC.
    pub(super) answers: bool,
    pub(super) ending: bool,
    pub(super) engine: bool,
    /// Since when its engine is on at its head.
    pub(super) voting_since: u64,
    /// Whether it has found its peers, and since when the validators whose engine is on have dropped it.
    pub(super) open: bool,
    pub(super) shunned: Option<u64>,
    /// Whether its silent peers have dropped it while it signed, so that it is without any until a redial.
    pub(super) cut: bool,
    /// Whether a drop, and a sync, are due.
    pub(super) drop_due: bool,
    pub(super) sync_due: bool,
    /// When it has greeted its peers last, which told each other their heads then.
    pub(super) greeted: u64,
    pub(super) unpeered: bool,
}

impl Home {
    pub(super) fn new(i: usize, address: Validator, scenario: &Scenario, head: Id) -> Home {
        let plan = scenario.upgrades.iter().enumerate().map(|(n, planned)| {
            let mut upgrade = upgrade(&format!("v{}", n + 1), planned.heights[i]);
            upgrade.fork_height = planned.fork;
            upgrade
        });
        let mut plan: Vec<Upgrade> = plan.collect();
        plan.sort_by_key(|u| u.height);
        let binaries = scenario.upgrades.iter().map(|planned| planned.binaries[i]);
        let policy =
            Policy { validator: true, backup: scenario.backup, hook_retries: 2, ..Policy::default() };
        Home {
            address,
            policy,
            plan,
            binaries: std::iter::once(Binary::Good).chain(binaries).collect(),
            record: Record::new(version(&Target::Genesis)),
            head_record: None,
            link: Target::Genesis,
            machine: None,
            boots: 0,
            wake: 0,
            awaiting: false,
            job: None,
            jobs: 0,
            failures: vec![0; scenario.upgrades.len() + 1],
            node: None,
            pids: 0,
            launched: None,
            head,
            top: head,
            head_since: 0,
            skew: 0,
            accepted: None,
            burnt: None,
            signed: 0,
            surprise: None,
            started_at: 0,
            ordered: false,
            dead: false,
            exit: None,
            foreign_until: 0,
            inbox: None,
            busy_until: 0,
            helped: 0,
        }
    }

    /// The running node, unless it is being stopped.
    pub(super) fn serving(&self) -> Option<&Process> {
        self.node.as_ref().filter(|node| !node.ending)
    }

    pub(super) fn process(&mut self, pid: u32) -> Option<&mut Process> {
        self.node.as_mut().filter(|node| node.pid == pid && !node.ending)
    }

    /// Whether its old binary is held down, since the chain has left it behind.
    pub(super) fn is_held(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.view().held.is_some())
    }

    /// Whether the upgrade to a version is settled, for better or worse.
    pub(super) fn is_settled(&self) -> bool {
        let ended = |u: &Upgrade| {
            let last =
                self.record.ended.iter().filter(|e| e.outcome == Outcome::Applied).map(|e| e.height).max();
            self.record.ended(&u.name).is_some() || last.is_some_and(|last| u.height <= last)
        };
        self.record.upgrade.is_none() && self.plan.iter().all(ended)
    }

    pub(super) fn is_halted(&self) -> bool {
        self.record.halted.is_some() || matches!(self.exit, Some((Exit::Halted, _)))
    }
}

/// The number of a version: 0 for the first binary.
pub(super) fn target(number: usize) -> Target {
    match number {
        0 => Target::Genesis,
        number => Target::Upgrade(format!("v{number}").parse().expect("a version has a name")),
    }
}

pub(super) fn number(target: &Target) -> usize {
    match target {
        Target::Genesis => 0,
        Target::Upgrade(name) => name.to_string()[1..].parse().expect("a version is v and a number"),
    }
}
