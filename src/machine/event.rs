//! The vocabulary between the supervisor and the machine: facts in, actions out.
//!
//! An action never returns a value; its outcome is a later event. Outcomes of the *prompt* actions
//! ([`Action::Link`], [`Action::Inspect`], [`Action::Spawn`], and [`Action::Record`] with no node running) are delivered
//! before any other event, so nothing else happens in between; a job that was started before goes on. While a node runs a
//! record is written beside it, and anything may happen before its outcome: the node never waits for a disk.

use super::Policy;
use super::gates::{Sample, Validator};
use super::receipt::Receipt;
use super::record::{Attempt, Back, Block, Chain, HeadRecord, Ready, Record, Rehearsal, Target, Version};
use super::upgrade::Upgrade;
use crate::digest::Digest;
use crate::exit::Exit;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one event lives at a time")]
pub enum Event {
    /// The facts on disk. Nothing but [`Event::Schedule`] comes before it: what is planned decides what may be started.
    Boot(Facts),
    /// The record is durable.
    Recorded,
    /// The record could not be made durable; the old one stands.
    RecordFailed(Failure),
    /// The link points at the target, durably.
    Linked,
    /// The link could not be replaced durably.
    LinkFailed {
        /// Why.
        failure: Failure,
        /// The target of the link now, if it can be read.
        leads_to: Option<Target>,
    },
    /// The staged binary is still the one that was verified.
    Inspected,
    /// The staged binary is not the one that was verified.
    InspectFailed(Failure),
    /// The node process runs.
    Spawned {
        /// Its process id.
        pid: u32,
    },
    /// The node could not be executed.
    SpawnFailed(Failure),
    /// Nothing holds a lock of the previous node any more.
    Released,
    /// SIGTERM was sent.
    Terminated,
    /// SIGTERM could not be sent.
    NotTerminated(Failure),
    /// The node process was reaped.
    Exited(Ending),
    /// The long work is over.
    JobDone(JobEnd),
    /// The node reported its head.
    Head(Head),
    /// The headers asked for by [`Action::Trace`], in order, or why they cannot be had.
    Traced(Result<Vec<Head>, Failure>),
    /// Which chain the node is on, or why that is not known.
    Identified(Result<Chain, Failure>),
    /// The state of the network as the node shows it, or why that is not known.
    Surveyed(Result<Survey, Failure>),
    /// The node's name and its block at the height asked for, or why they are not known.
    Recalled(Result<Recollection, Failure>),
    /// The node was asked to seal: it does, or the order did not reach it.
    SealingStarted(Result<(), Failure>),
    /// The node was asked to seal no more: it does not, or the order did not reach it.
    SealingStopped(Result<(), Failure>),
    /// The node's peers were removed, or could not be. Either way it is time for SIGTERM.
    Unpeered(Result<usize, Failure>),
    /// There are backups without digests, or too many.
    BackupsToTend,
    /// A peer was disconnected and connected anew, `None` where the node has connected to none; or it could not be asked.
    Greeted(Result<Option<String>, Failure>),
    /// The post-upgrade hook of an upgrade has ended, or there was none.
    PostHookEnded,
    /// The present schedule: conflicts and cancelled upgrades taken out, ordered by height.
    Schedule(Vec<Arc<Upgrade>>),
    /// The configuration was read again.
    Policy(Policy),
    /// The operator asks.
    Request(Ask),
    /// The deadline has passed.
    Tick,
}

/// The facts on disk at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The journal's record.
    pub record: Record,
    /// The directory that `current` points at, and the digest of the binary there.
    pub link: Version,
    /// The head record, where there is one.
    pub head: Option<HeadRecord>,
    /// Whether a node has opened the data directory before: its own lock is there.
    pub has_data: bool,
    /// The node process that was launched last since the boot, where its lock names a launch. Before a power cut the lock
    /// may have named another one.
    pub launched: Option<Launched>,
}

/// The node process that was launched last, as its lock names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The number of the launch, as in [`Record::launch`].
    pub launch: u64,
    /// The process, while it runs.
    pub alive: Option<Alive>,
}

/// A node that an earlier supervisor has launched and that still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// Its process id.
    pub pid: u32,
    /// The digest of the file that it executes.
    pub sha256: Digest,
    /// How long it has run.
    pub age: Duration,
}

/// The head as a node reported it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    /// The block.
    pub block: Block,
    /// The hash of the block before, where it was reported.
    pub parent: Option<String>,
    /// The block's own time in seconds since the epoch, where it was reported.
    pub timestamp: Option<u64>,
    /// The validator that proposed it, where it was reported.
    pub proposer: Option<Validator>,
    /// Our own clock when the head was heard, in seconds since the epoch.
    pub heard_at: u64,
}

/// A node's block at a height, and the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recollection {
    /// Its block at the height asked for, without a hash if it has none there.
    pub block: Block,
    /// The client version, where the node reports one.
    pub client_version: Option<String>,
    /// The heights of the forks that the running program knows, where it reports them.
    pub forks: Option<Vec<u64>>,
}

/// The network at one moment, as one node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// When the node was asked: its answer may have waited behind long work.
    pub at: Instant,
    /// The address with which the node seals, if that is known.
    pub me: Option<Validator>,
    /// The validators that seal the first block of the head's slot ([`gates::Slot::first_block`](super::gates::Slot::first_block)).
    pub slot_set: Vec<Validator>,
    /// The seals, the order of proposers, and how calm the network is.
    pub sample: Sample,
    /// The hash of the head.
    pub hash: String,
    /// The height of the oldest block that was looked at for seals; all up to the head were.
    pub oldest: u64,
    /// Whether our seal is on each of the last blocks below the head, from the newest down: the seals of a block are in
    /// the next one.
    pub own_seals: Vec<bool>,
    /// The newest block with a seal of ours, or of our making.
    pub own_mark: Option<OwnMark>,
    /// Whether the node's engine is on, if it reports that.
    pub mining: Option<bool>,
    /// Whether the node reports that it synchronises.
    pub syncing: bool,
    /// The highest head that the node has heard of from its peers.
    pub network_head: Option<u64>,
    /// The number of its peers, if it reports that.
    pub peers: Option<usize>,
    /// The validators among its peers; None where `admin` is not served.
    pub connected: Option<Vec<Validator>>,
    /// Whether a peer has a public address: geth refuses another connection from such an address within 30 s.
    pub public_peers: bool,
    /// The client version of the node.
    pub client_version: Option<String>,
    /// The heights of the forks that the running program knows, where it reports them.
    pub forks: Option<Vec<u64>>,
    /// The time that round 0 is given, and the longest that any round is given, where there is a limit. Each
    /// round gets twice the time of the one before.
    pub round_timeout: (Duration, Option<Duration>),
    /// The client version in the last block that each validator proposed, of the last blocks.
    pub census: Vec<(Validator, String)>,
}

/// The newest trace of our key on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnMark {
    /// The height of the block that we have sealed or proposed.
    pub height: u64,
    /// How long ago that block was proposed, by our clock.
    pub age: Duration,
    /// How much older than the head of the survey it is, by the blocks' own times.
    pub before_head: Duration,
}

/// How the node process ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Exit code or signal.
    pub status: Status,
    /// A fault of the machine rather than of the node, if there is one (disk full, port taken).
    pub environment: Option<String>,
    /// The last lines that it wrote, where they were kept.
    pub last_words: Option<String>,
}

/// The wait status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It was not our child, so the kernel did not report it.
    Unknown,
}

/// The class of a failure; decisions branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// May well succeed when tried again.
    Transient,
    /// Will fail again.
    Permanent,
    /// Something is not what it was verified to be.
    Integrity,
    /// The machine is at fault: no space, no permission, something in use.
    Environment,
    /// The job was ordered to stop.
    Cancelled,
}

/// A failure: a class to branch on, and a text to report.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The class, on which decisions branch.
    pub class: Class,
    /// The cause, for people.
    pub detail: String,
}

/// A request of the operator, over the control socket or by a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The caller that gets the answer; `None` for a signal.
    pub reply_to: Option<u64>,
    /// The request.
    pub what: Request,
}

/// A request of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Stop the node, then end.
    Stop,
    /// Stop the node and start it again.
    Restart,
    /// End, and leave the node as it runs.
    Detach,
    /// Execute the program that is now at our path, in our process and with the node as it runs.
    Reexec,
    /// Switch to this upgrade now, at any height.
    UpgradeNow(Name),
    /// Go back to an earlier version.
    Rollback(Back),
    /// Do not go back after all.
    CancelRollback,
    /// Forget this upgrade.
    Cancel(Name),
    /// Have a silent validator seal: the operator states that this is the last final block of the network.
    /// Without a block the answer lists what is missing.
    Sign(Option<Block>),
    /// Forget the head record.
    ResetHead,
    /// The binary of this upgrade has changed on disk: prepare it anew.
    Refresh(Name),
    /// Log the state.
    Dump,
}

/// Work that takes longer than a few milliseconds. At most one runs at a time.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Job {
    /// Fetch, verify and smoke-test the binary of an upgrade.
    Prepare(Upgrade),
    /// Copy the data of the stopped node.
    Backup(Attempt),
    /// Run the pre-upgrade hook.
    Hook {
        /// The upgrade.
        progress: Attempt,
        /// How often the hook has asked to be run again.
        retries: u32,
    },
    /// Put the backup of this upgrade in place of the data.
    Restore(Attempt),
    /// Try the binary of an upgrade on a clone of the data, beside the node.
    Rehearse(Upgrade),
    /// Check whether the backup of an upgrade is possible while the node runs, and copy the files that do not change any more.
    Ahead {
        /// The upgrade.
        name: Name,
        /// Whether files are copied, not only checked.
        bring: bool,
    },
    /// Add digests to backups, and remove those that are too many.
    Tend {
        /// The upgrade whose backup has been begun and is still wanted.
        draft: Option<Name>,
        /// The backup that leads back from the version that runs, which stays.
        needed: Option<String>,
    },
}

/// How a [`Job`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// Of [`Job::Prepare`].
    Prepared(Name, Result<Ready, Failure>),
    /// Of [`Job::Backup`].
    BackedUp(Result<BackupMade, Failure>),
    /// Of [`Job::Hook`].
    Hooked(HookEnd),
    /// Of [`Job::Restore`].
    Restored(Result<(), Failure>),
    /// Of [`Job::Rehearse`]. A failure: none could be held.
    Rehearsed(Name, Result<Rehearsal, Failure>),
    /// Of [`Job::Ahead`].
    Ahead(Name, Result<Ahead, Failure>),
    /// Of [`Job::Tend`].
    Tended(Result<Tended, Failure>),
}

/// How far the backup of an upgrade is, while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The time that it takes to copy the rest.
    pub rest: Duration,
}

/// The outcome of [`Job::Tend`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    /// Those that have got their digests.
    pub verified: Vec<String>,
    /// Those that were removed.
    pub removed: Vec<String>,
    /// The damage found in others, one line for each.
    pub damaged: Vec<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupMade {
    /// Its name.
    pub name: String,
    /// How it was made, as `key=value`.
    pub how: String,
}

/// The answer of the pre-upgrade hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEnd {
    /// Go on.
    Continue,
    /// Keep the old binary.
    Abort(String),
    /// Run the hook again.
    Retry(String),
    /// It failed.
    Failed(Failure),
}

/// Everything that can be done.
#[derive(Debug, Clone, PartialEq, Hash)]
#[expect(clippy::large_enum_variant, reason = "one action lives at a time")]
pub enum Action {
    /// Make this record durable. With no node running, prompt; otherwise beside it, and one at a time.
    /// → `Recorded`, `RecordFailed`.
    Record(Record),
    /// Point `current` at a target. Prompt; → `Linked`, `LinkFailed`.
    Link(Target),
    /// Look whether the staged binary is still the verified one. Prompt; → `Inspected`, `InspectFailed`.
    Inspect(Version),
    /// Execute the node, of this version. Prompt; → `Spawned`, `SpawnFailed`.
    Spawn {
        /// The version.
        version: Version,
        /// How it takes part in the network.
        mode: Mode,
        /// The number of the launch, which the process writes into its lock before it executes the node.
        launch: u64,
    },
    /// Take the node over that still runs, and report its end. → `Exited`.
    Adopt,
    /// Execute the program that is at our path. It returns only if that cannot be done, and answers the caller then.
    Reexec {
        /// The caller.
        reply_to: Option<u64>,
    },
    /// Report when nothing holds a lock of the previous node. → `Released`.
    AwaitRelease,
    /// Send SIGTERM to the node. Prompt; → `Terminated`, `NotTerminated`, and in the end `Exited`.
    Terminate,
    /// Send SIGKILL to the node and its group. → `Exited`.
    Kill,
    /// Begin long work. → `JobDone`.
    Start(Job),
    /// Ask the long work to end early. → `JobDone`.
    CancelJob,
    /// Ask the node for its head at once. → `Head`.
    Confirm,
    /// Ask the node for the headers of these heights, both included. → `Traced`.
    Trace {
        /// The first height.
        from: u64,
        /// The last height.
        to: u64,
    },
    /// Ask the node which chain it is on. → `Identified`.
    Identify,
    /// Make the head record durable, without waiting for it. The newest one counts.
    KeepHead(HeadRecord),
    /// Remove the head record from the disk.
    ForgetHead,
    /// Read what is planned again: less of it is applied than before. → `Schedule`.
    ReadPlans,
    /// Ask the node about the network. → `Surveyed`.
    Survey,
    /// Ask the node for its name and its block at this height. → `Recalled`.
    Recall {
        /// The height.
        height: u64,
    },
    /// Have the node seal. → `SealingStarted`.
    StartSealing,
    /// Have the node seal no more. → `SealingStopped`.
    StopSealing,
    /// Remove the node's peers, so that it does not use up its address there while it stops. → `Unpeered`.
    Unpeer,
    /// Disconnect one of the validators to which the node has connected, and connect to it anew. → `Greeted`.
    Greet {
        /// The validators that are connected.
        validators: Vec<Validator>,
        /// Which one, counted through all of them again and again.
        turn: u32,
    },
    /// Strike this upgrade off the schedule, durably, then answer. → `Schedule`.
    Strike {
        /// The upgrade.
        name: Name,
        /// The caller that gets the answer.
        reply_to: Option<u64>,
    },
    /// Answer a request.
    Answer {
        /// The caller.
        to: u64,
        /// The outcome, or why nothing was done.
        reply: Result<String, String>,
    },
    /// Run the post-upgrade hook of an upgrade that was applied, if there is one. Nothing depends on its outcome.
    /// → `PostHookEnded`.
    AfterUpgrade(Attempt),
    /// Keep the receipt of an upgrade that is over.
    Receipt(Box<Receipt>),
    /// Log a message for people.
    Tell(Notice),
    /// End the supervisor.
    Exit {
        /// The exit code, if it is ours.
        exit: Exit,
        /// The node's own end, where that decides the exit code.
        node: Option<Status>,
        /// Why.
        reason: String,
    },
}

/// How a node that is executed takes part in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As its arguments demand.
    Full,
    /// With its engine off: it follows the chain and does not seal.
    Silent,
    /// For a short while, with its last words kept: it opens its data, answers, and is stopped again. A validator without
    /// engine and without peers, any other node as its arguments demand.
    Dry,
}

/// A message for people: one log line, and one line of history where it matters later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// Its level.
    pub level: Level,
    /// A stable name that operators search for.
    pub event: &'static str,
    /// The text, as `key=value` pairs and words.
    pub text: String,
    /// Whether it goes into the history too.
    pub history: bool,
}

/// The level of a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Something is wrong and needs the operator.
    Error,
    /// Something is unusual.
    Warn,
    /// Something happened.
    Info,
}

#[cfg(test)]
impl From<&str> for BackupMade {
    /// A backup of this name.
    fn from(name: &str) -> Self {
        BackupMade { name: name.to_owned(), how: "method=copy".to_owned() }
    }
}

impl Notice {
    /// A notice that goes into the history too.
    pub(super) fn to_history(level: Level, event: &'static str, text: String) -> Self {
        Notice { level, event, text, history: true }
    }
}

impl Failure {
    /// A failure of `class` with a text.
    pub fn new(class: Class, detail: impl Into<String>) -> Self {
        Failure { class, detail: detail.into() }
    }
}

impl Status {
    /// Whether a node that was asked to stop ended in good order: by itself, or, if its start had
    /// not finished, by the very SIGTERM (recorded: `wbft/README.md`, section 5, Stop).
    #[must_use]
    pub fn is_graceful(self) -> bool {
        const SIGTERM: i32 = 15;
        matches!(self, Status::Code(0) | Status::Signal(SIGTERM))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Code(code) => write!(f, "exit code {code}"),
            Status::Signal(signal) => write!(f, "signal {signal}"),
            Status::Unknown => f.write_str("an end that was not seen"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
