//! The states of the machine. Each owns exactly the data that is valid in it.

use super::chain_check::ChainCheck;
use super::event::{Ending, Head, Job, Mode, Notice, Status, Survey};
use super::network::Network;
use super::record::{Attempt, Block, Ready, Record, Target};
use super::recovery::Recovery;
use super::upgrade::Upgrade;
use crate::exit::Exit;
use crate::name::Name;
use std::time::{Duration, Instant};

/// Heads in a row that must come in time before a node counts as following the chain.
const IN_TIME: u32 = 3;

/// Periods without a head after which the chain counts as having stood still.
const GAP: u32 = 8;

/// Where the machine is. The diagram is in the documentation of [`super`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum State {
    /// Before [`super::Event::Boot`].
    Born,
    /// No node of ours runs; waiting until nothing holds the previous one's locks.
    Clearing { since: Instant, reminded: bool, then: Cleared },
    /// No node runs; a record is being made durable; `old` is the one on disk until then. `news` is reported when it is durable.
    Recording { then: AfterRecord, old: Box<Record>, news: Option<Notice> },
    /// The node is being executed.
    Spawning { mode: Mode },
    /// The node runs.
    Running(Node),
    /// A validator's peers are being removed, just before its SIGTERM.
    Leaving { why: Why, since: Instant, node: Node },
    /// The staged binary of this upgrade is being looked at, just before the node, if one runs, is
    /// stopped for it.
    Inspecting { name: Name, node: Option<Node> },
    /// SIGTERM was sent, and the node is ending; or it could not be sent, and is sent again at `unsent`.
    Stopping {
        why: Why,
        since: Instant,
        node: Node,
        killed: bool,
        reminded: Instant,
        unsent: Option<Instant>,
    },
    /// No node runs; long work must be done before the next start.
    Working { job: Job, begun: bool },
    /// The link is being pointed at the new or, on the way back, the old binary.
    Linking { back: bool },
    /// No node runs; something is tried again at `until`.
    Resting { until: Instant, then: Rested },
    /// Over.
    Ended,
}

impl State {
    /// SIGTERM was just sent.
    pub(super) fn stopping(now: Instant, node: Node, why: Why) -> State {
        State::Stopping { why, since: now, node, killed: false, reminded: now, unsent: None }
    }
}

/// The step after the locks are free.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Cleared {
    /// Start the version of the record.
    Start,
    /// The supervisor has just started; go on from the record.
    Resume(Recovery),
    /// The node has just ended; remember how, and go on with why it did.
    Down { why: Why, ending: Ending, ran: Ran },
}

/// A record on its way to the disk while a node runs. Until it is there the one before stands, in every state.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Outgoing {
    pub(super) record: Record,
    /// The step after it is durable.
    pub(super) then: Sent,
    /// The news to report then.
    pub(super) news: Option<Notice>,
}

/// The step after a record is durable that was written while a node ran.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Sent {
    /// Nothing but the record has changed.
    Nothing,
    /// The upgrade is applied.
    Applied(Box<Attempt>),
    /// Stop the node for the upgrade.
    Stop,
}

/// The step after a record is durable that was written with no node running.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum AfterRecord {
    /// Start the version of the record, now or later.
    Start(Option<Instant>),
    /// The node is down for the upgrade in the record: backup, hook, switch, or the way back.
    Upgrade,
    /// The backup that has begun beside the write goes on.
    Backup(Box<Job>),
    /// Point the link at the new binary.
    Link(Target),
    /// Execute the node.
    Spawn,
    /// End the supervisor.
    End { exit: Exit, node: Option<Status>, reason: String },
}

/// The step after a rest.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Rested {
    /// Start the version of the record.
    Start,
    /// The same, but not before: a silent node needs something to sync.
    Gap,
    /// The same, as soon as it may be started; until then, warn again.
    Held,
    /// Try again to make this durable, then report the news and go on.
    Record(Box<Record>, AfterRecord, Option<Notice>),
    /// Do the step of the upgrade again that has failed.
    GoOn,
    /// Try again to point the link back at the old binary.
    LinkBack,
}

/// Why a node is stopped, or why it ended.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Why {
    /// The supervisor ends.
    Stop,
    /// The operator wants it started again.
    Restart,
    /// For the upgrade in the record.
    Upgrade,
    /// For the upgrade in the record, but it took longer than allowed.
    Abort,
    /// The operator goes back to an earlier version.
    Back,
    /// The new binary was tried without peers, and has done well.
    Dry,
    /// A silent validator that got stuck is started again, silent.
    Stuck,
    /// The new binary does not prove itself, but may when it is started again.
    Unproven(String),
    /// The new binary has failed for good.
    Failed(String),
    /// Something is wrong that the operator must look at.
    Halt(String),
    /// The node is on another chain than this home.
    Refuse(String),
    /// It ended by itself, unasked.
    Crash,
}

/// A running node.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Node {
    /// Its process id.
    pub(super) pid: u32,
    /// How it was started.
    pub(super) mode: Mode,
    /// When it was executed.
    pub(super) since: Instant,
    /// When it first reported a head, and its height.
    pub(super) first_head: Option<(Instant, u64)>,
    /// The height of its first head that counted.
    pub(super) followed_from: Option<u64>,
    /// When its head last rose, and to what.
    pub(super) rose: Option<(Instant, u64)>,
    /// The head that it reported last.
    pub(super) head: Option<Head>,
    /// Since when it has reported no other head than the last.
    pub(super) still_since: Option<Instant>,
    /// How many heads in a row have come one by one in time, as those of a node do that follows the chain.
    pub(super) in_time: u32,
    /// The height since which its heads have come without a long gap.
    pub(super) steady_since: Option<u64>,
    /// When the node was last asked for its head.
    pub(super) asked: Option<Instant>,
    /// Whether its chain is known to be the one of this home, and when that was asked last.
    pub(super) identity: Identity,
    /// Until when nothing that needs a record is begun, because the last one could not be written.
    pub(super) not_before: Option<Instant>,
    /// Whether it was reported that the new binary is overdue to prove itself.
    pub(super) overdue: bool,
    /// The upgrades reported as overdue: their height is there and their binary is not ready.
    pub(super) missed: Vec<Name>,
    /// When a restart was asked for.
    pub(super) restart_since: Option<Instant>,
    /// The block by which its chain is known again, where one is.
    pub(super) chain_check: Option<ChainCheck>,
    /// The network as this node shows it.
    pub(super) network: Network,
}

/// Whether a node is on the chain of this home.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Identity {
    /// When it was asked last.
    pub(super) asked: Option<Instant>,
    /// The questions that it has not answered yet.
    pub(super) unanswered: u32,
    /// Whether it is.
    pub(super) known: bool,
    /// The answer that named another chain, and when that was first given.
    pub(super) other: Option<(Instant, String)>,
    /// Whether a second answer named it too.
    pub(super) repeated: bool,
}

/// The state of the node that the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    /// It should run.
    Run,
    /// It should be started again.
    Restart,
    /// It should be stopped, and the supervisor end.
    Stop,
}

/// The state of the worker thread, which does one job at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    /// Nothing.
    Idle,
    /// A job.
    Busy,
    /// A job that gives way to any other.
    Aside,
    /// A job that it was asked to end early.
    Ending,
}

/// The decision about a running node once all of its facts are looked at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// It goes on running.
    Stay,
    /// It is stopped.
    Stop(Why),
    /// The staged binary of an upgrade is looked at, then the node is stopped for it.
    Inspect(Box<Upgrade>, Ready),
    /// A record is made durable, and its news reported; with `applied` the upgrade is over.
    Save { record: Box<Record>, news: Option<Notice>, applied: Option<Box<Attempt>> },
}

impl Next {
    /// A record is made durable, without news.
    pub(super) fn record(record: Record) -> Next {
        Next::Save { record: Box::new(record), news: None, applied: None }
    }
}

/// How far the binary of an upgrade is prepared.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Preparation {
    /// A job works on it, after this number of failures.
    Working { failures: u32 },
    /// It can be switched to.
    Ready(Box<Ready>),
    /// It failed, and is tried again then.
    Failed { failures: u32, detail: String, retry_at: Instant },
}

impl Node {
    pub(super) fn new(pid: u32, mode: Mode, since: Instant, chain_check: Option<ChainCheck>) -> Self {
        Node {
            pid,
            mode,
            since,
            first_head: None,
            followed_from: None,
            rose: None,
            head: None,
            still_since: None,
            in_time: 0,
            steady_since: None,
            asked: None,
            identity: Identity::default(),
            not_before: None,
            overdue: false,
            missed: Vec::new(),
            restart_since: None,
            chain_check,
            network: Network::default(),
        }
    }

    /// Whether its program may have this fork: one of the last two answers names it, or none has come yet.
    pub(super) fn may_have_fork(&self, fork: u64) -> bool {
        let names = |survey: &Survey| survey.forks.as_ref().is_some_and(|forks| forks.contains(&fork));
        let Network { survey, before, failure, .. } = &self.network;
        survey.is_none() && failure.is_none() || survey.iter().chain(before).any(names)
    }

    /// Takes note of a head; `period` is the time between blocks.
    pub(super) fn hear(&mut self, now: Instant, head: &Head, period: Duration) {
        let height = head.block.height;
        self.first_head.get_or_insert((now, height));
        let last = self.height();
        if last != Some(height) {
            let since = self.still_since.map(|at| now.saturating_duration_since(at));
            let gap = since.is_none_or(|since| since > period.max(Duration::from_secs(1)) * GAP);
            // A head that goes back shows that the one before was false.
            if gap || last.is_some_and(|last| height < last) {
                self.steady_since = Some(height);
            }
            let is_next = last.and_then(|last| last.checked_add(1)) == Some(height);
            let in_time = since.is_some_and(|since| since >= period / 2 && since <= period * 3);
            self.in_time = if is_next && in_time { self.in_time.saturating_add(1) } else { 0 };
            self.still_since = Some(now);
        }
        // One that went back was false, or starts anew from there.
        if self.rose.is_none_or(|(_, top)| height > top) || last.is_some_and(|last| height < last) {
            self.rose = Some((now, height));
        }
        // The same block reported again keeps the time at which it was first heard.
        if self.head.as_ref().is_none_or(|known| known.block != head.block) {
            self.head = Some(head.clone());
        }
    }

    /// The height that it reported last.
    pub(super) fn height(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.block.height)
    }

    /// For how long it has reported no new head.
    pub(super) fn still(&self, now: Instant) -> Duration {
        self.still_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The age of its head. Where heads come one by one in time it is the time since the last was heard, by no clock but
    /// ours; otherwise the node may be catching up, and the block's own time counts too.
    pub(super) fn head_age(&self, now: Instant) -> Duration {
        let still = self.still(now);
        if self.follows() { still } else { still.saturating_add(self.lag().unwrap_or_default()) }
    }

    /// Whether its heads come one by one in time, as those of a node do that follows the chain.
    pub(super) fn follows(&self) -> bool {
        self.in_time >= IN_TIME
    }

    /// How far in our future the head was made when it was heard, by our clock; None if that is in our past.
    pub(super) fn ahead(&self) -> Option<Duration> {
        let head = self.head.as_ref()?;
        head.timestamp?.checked_sub(head.heard_at).map(Duration::from_secs)
    }

    /// How long ago the head was made when it was heard, by our clock; None if that is in our future.
    pub(super) fn lag(&self) -> Option<Duration> {
        let head = self.head.as_ref()?;
        head.heard_at.checked_sub(head.timestamp?).map(Duration::from_secs)
    }
}

/// A node process that has ended.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Ran {
    /// When it was executed, and when it ended.
    pub(super) since: Instant,
    pub(super) ended: Instant,
    pub(super) mode: Mode,
    /// The first head that it reported, if it has answered over RPC.
    pub(super) first: Option<u64>,
    /// The head that it reported last.
    pub(super) head: Option<Block>,
    /// Whether the chain has proven, until it was asked to stop, that the new binary had signed nothing.
    pub(super) unsigned: bool,
    /// The block that was final when it was started.
    pub(super) goal: Option<Block>,
}

impl Ran {
    #[cfg(test)]
    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Instant> {
        [&mut self.since, &mut self.ended].into_iter()
    }

    pub(super) fn of(node: &Node, now: Instant) -> Ran {
        let first = node.first_head.map(|(_, head)| head);
        let head = node.head.as_ref().map(|head| head.block.clone());
        let goal = node.network.returning.goal.clone();
        Ran { since: node.since, ended: now, mode: node.mode, first, head, unsigned: false, goal }
    }
}
