//! The states of the machine. Each owns exactly the data that is valid in it.

use super::chain_check::ChainCheck;
use super::event::{Ending, Job, Notice, Ready, Status};
use super::record::{Attempt, Record, Target};
use super::recovery::Recovery;
use super::validator::Network;
use crate::exit::Exit;
use crate::name::Name;
use std::time::{Duration, Instant};

/// Where the machine is. The diagram is in the documentation of [`super`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum State {
    /// Before [`super::Event::Boot`].
    Born,
    /// No node of ours runs; waiting until nothing holds the previous one's locks.
    Clearing { since: Instant, nagged: bool, then: Cleared },
    /// A record is being made durable; `old` is the one on disk until then. `news` is true when it is.
    Recording { then: AfterRecord, old: Box<Record>, news: Option<Notice> },
    /// The node is being executed.
    Spawning,
    /// The node runs.
    Running(Node),
    /// The staged binary of this upgrade is being looked at, just before the node, if one runs, is
    /// stopped for it.
    Inspecting { name: Name, node: Option<Node> },
    /// SIGTERM was sent; the node is ending.
    Stopping { why: Why, since: Instant, node: Node, killed: bool, nagged: Instant },
    /// No node runs; long work has to be done before one may.
    Working { job: Job, begun: bool },
    /// The link is being pointed at the new or, on the way back, the old binary.
    Linking { back: bool },
    /// No node runs; something is tried again at `until`.
    Resting { until: Instant, then: Rested },
    /// Over.
    Ended,
}

/// What follows when the locks are free.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Cleared {
    /// Start what the record says.
    Start,
    /// The supervisor has just started; go on where the record says.
    Resume(Recovery),
    /// The node has just ended; remember how, and go on with why it did.
    Down { why: Why, ending: Ending, since: Instant },
}

/// What follows when a record is durable.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum AfterRecord {
    /// Send SIGTERM to the node, for the upgrade.
    Terminate(Node),
    /// Go on running: nothing but the record has changed.
    Run(Node),
    /// Go on running: the upgrade is applied.
    Applied(Node, Box<Attempt>),
    /// Start what the record says, now or later.
    Start(Option<Instant>),
    /// The node is down for the upgrade in the record: backup, hook, switch, or the way back.
    Upgrade,
    /// Point the link at the new binary.
    Link(Target),
    /// Execute the node.
    Spawn,
    /// End the supervisor.
    End { exit: Exit, node: Option<Status>, reason: String },
}

/// What follows a rest.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub(super) enum Rested {
    /// Start what the record says.
    Start,
    /// Start what the record says, as soon as it may be started; until then, tell people again.
    Held,
    /// Try again to make this durable, then tell the news and go on.
    Record(Box<Record>, AfterRecord, Option<Notice>),
}

/// Why a node is stopped, or why it ended.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Why {
    /// The supervisor is to end.
    Stop,
    /// The operator wants it started again.
    Restart,
    /// For the upgrade in the record.
    Upgrade,
    /// For the upgrade in the record, but it took longer than allowed.
    Abort,
    /// The new binary does not prove itself.
    Unproven(String),
    /// Something is wrong that the operator has to look at.
    Halt(String),
    /// Nobody asked: it ended by itself.
    Crash,
}

/// A running node.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Node {
    /// Its process id.
    pub(super) pid: u32,
    /// When it was executed.
    pub(super) since: Instant,
    /// When it first told a head, and which.
    pub(super) first_head: Option<(Instant, u64)>,
    /// When its head last rose, and to what.
    pub(super) rose: Option<(Instant, u64)>,
    /// The last two heads it told, the later one first.
    pub(super) last_two: [Option<u64>; 2],
    /// Since when it has told no other head than the last.
    pub(super) still_since: Option<Instant>,
    /// When the node was last asked to confirm its head.
    pub(super) asked: Option<Instant>,
    /// Until when it is left alone because its record could not be written.
    pub(super) not_before: Option<Instant>,
    /// Whether people know that the new binary is overdue to prove itself.
    pub(super) overdue: bool,
    /// The upgrade of which people know that its height is there and its binary is not ready.
    pub(super) missed: Option<Name>,
    /// The block by which its chain is known again, where one is.
    pub(super) witness: Option<ChainCheck>,
    /// What is known of the network.
    pub(super) council: Network,
}

/// What the operator wants of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    /// It should run.
    Run,
    /// It should be started again.
    Restart,
    /// It should be stopped, and the supervisor end.
    Stop,
}

/// What the worker thread does; it does one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    /// Nothing.
    Idle,
    /// A job.
    Busy,
    /// A job that it was asked to end early.
    Ending,
}

/// How far the binary of an upgrade is prepared.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Preparation {
    /// A job works on it, after so many failures.
    Working { failures: u32 },
    /// It can be switched to.
    Ready(Ready),
    /// It failed, and is tried again then.
    Failed { failures: u32, detail: String, retry_at: Instant },
}

impl Node {
    pub(super) fn new(pid: u32, since: Instant, witness: Option<ChainCheck>) -> Self {
        Node {
            pid,
            since,
            first_head: None,
            rose: None,
            last_two: [None, None],
            still_since: None,
            asked: None,
            not_before: None,
            overdue: false,
            missed: None,
            witness,
            council: Network::default(),
        }
    }

    /// Takes note of a head.
    pub(super) fn told(&mut self, now: Instant, height: u64) {
        self.first_head.get_or_insert((now, height));
        let [last, _] = self.last_two;
        if last != Some(height) {
            self.still_since = Some(now);
        }
        self.last_two = [Some(height), last];
        if self.rose.is_none_or(|(_, top)| height > top) {
            self.rose = Some((now, height));
        }
    }

    /// The head as far as it was told twice.
    pub(super) fn sure(&self) -> Option<u64> {
        let [last, before] = self.last_two;
        last.zip(before).map(|(last, before)| last.min(before))
    }

    /// For how long a head that others have told as well has been the last that the node has told.
    pub(super) fn still(&self, now: Instant, head: u64) -> Duration {
        let is_last = self.last_two[0].is_some_and(|last| head <= last);
        self.still_since
            .filter(|_| is_last)
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How many of the last two heads, without a lower one after them, were at or above `height`.
    pub(super) fn sightings(&self, height: u64) -> usize {
        self.last_two.iter().take_while(|head| head.is_some_and(|h| h >= height)).count()
    }
}
