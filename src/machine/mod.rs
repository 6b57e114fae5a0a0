//! PURE: what to do next. No I/O, no clock, no log, no channel, no thread.
//!
//! The [`Machine`] is fed one [`Event`] at a time, each with the time at which it happened, and answers with the
//! [`Action`]s to perform, in order. An action never returns a value: its outcome is a later event.
//! [`Machine::deadline`] is the time of the next [`Event::Tick`] if nothing else happens.
//!
//! ```text
//!             Boot
//!              │
//!              ▼         Released                  Recorded            Spawned
//!   ┌──────▶ Clearing ───────────▶ Recording(run) ─────────▶ Spawning ─────────▶ Running ◀─┐
//!   │          ▲                        ▲                        │               │  │  │   │
//!   │          │ time                   │ no, start              │ SpawnFailed   │  │  │   │ InspectFailed,
//!   │       Resting ◀───────────────────┼────────────────────────┘               │  │  │   │ RecordFailed
//!   │          ▲                        │                                        │  │  ▼   │
//!   │          │ crash: backoff         │                                Exited  │  │ Inspecting  (an upgrade is due)
//!   │          │                        │                                        │  │  │ Inspected
//!   │   Recording(down) ◀── Clearing ◀──┴────────────────────────────────────────┘  │  ▼
//!   │      │       │    Released    ▲                                 stop, restart,│ Running, record sent
//!   │      │stop   │upgrade         │ Exited           a validator:      unproven   │  │ Recorded
//!   │      ▼       ▼                └───── Stopping ◀── Leaving ◀───────────────────┴──┘
//!   │    Ended   Working(backup) ─▶ Working(hook) ─▶ Recording(trying) ─▶ Linking ─▶ Spawning
//!   │                │ failed           │ failed                            │ failed
//!   └────────────────┴──────────────────┴──◀── Linking(back) ◀──────────────┘
//! ```
//!
//! States, and what they wait for:
//! - `Born`: for the plans, and then for `Boot`.
//! - `Clearing`: no node of ours runs; until nothing holds the previous one's locks (I2).
//! - `Recording`: for the journal, with no node running. An intent is durable before its effect, always. A backup
//!   changes nothing on which recovery depends, so it begins beside the record of the stop.
//! - `Spawning`, `Linking`, `Inspecting`: for the outcome of one prompt action.
//! - `Running`: the node lives. Here upgrades are prepared and come due, and a new binary proves itself.
//! - `Leaving`: a validator's peers are being removed; for a second at most.
//! - `Stopping`: SIGTERM was sent, once (I8); until the node is reaped.
//! - `Working`: the node is down for an upgrade; until backup, hook or restore is done.
//! - `Resting`: the node is down; until a backoff has passed.
//! - `Ended`: the supervisor exits.
//!
//! A running node is taken out of the state once per event, changed by `&mut`, and put back once. A record that is
//! written while it runs is no state of its own: the node stays in its state and every event is taken meanwhile
//! (`recording`).
//!
//! The home of each rule: when to stop for an upgrade, [`gates`] and `validator`; which heads count, `heads`, and the
//! consequences, `hearing`; how a validator leaves, `leaving`; whether it may sign, `sealing`; whether a node is ours,
//! `identify`; whether a new binary is good, `probation`; whether there is a way back, `rollback`, and the operator's order
//! to go back, `back`; the first step after a crash, `recovery`; the way on without a record, `recording`; requests of the
//! operator, `requests`; starts of the process, `starting`, and its ends, `node`; which upgrade is due, `due`; the steps of
//! an upgrade, `switch`, and the faults that put it off, `setback`; binaries, `prepare`; backups beside a running node,
//! `backups`; what is kept of an upgrade, `receipt`; what people see, `view` and `symptoms`, and what needs them, `health`.
//! Plain data that these share: `state`, `network`, `returning`, `record`, `event`.
//!
//! Architecture invariant: nothing in this directory imports `std::fs`, `std::thread`, `log` or any part of the crate but
//! [`crate::name`], [`crate::digest`] and [`crate::exit`], which are plain data, and `crate::sorted`, which sorts.

mod adoption;
mod back;
mod backups;
mod chain_check;
mod due;
mod event;
pub mod gates;
mod greeting;
mod heads;
mod health;
mod hearing;
mod identify;
mod leaving;
mod network;
mod node;
pub mod order;
mod prepare;
mod probation;
pub mod quorum;
mod receipt;
mod record;
mod recording;
mod recovery;
mod rehearsal;
mod requests;
mod resolve;
mod restart;
mod returning;
mod rollback;
mod schedule;
mod sealing;
mod setback;
mod starting;
mod state;
mod switch;
mod symptoms;
mod upgrade;
mod validator;
mod view;

#[cfg(test)]
mod tests;

pub use event::{
    Action, Ahead, Alive, Ask, BackupMade, Class, Ending, Event, Facts, Failure, Head, HookEnd, Job, JobEnd,
    Launched, Level, Mode, Notice, OwnMark, Recollection, Request, Status, Survey, Tended,
};
pub use receipt::Receipt;
#[cfg(test)]
pub use receipt::Step;
pub use record::{
    Attempt, Back, Block, Chain, Ended, HeadRecord, NodeMark, Outcome, Phase, Ready, Record, Rehearsal,
    Switch, Target, Version,
};
pub use resolve::{Decision, Refused, Restore, may_retry_with, resolve};
pub use rollback::{Known, Wanted, WayBack, way_back};
pub use schedule::{Claim, Conflict, Schedule, merge};
pub use upgrade::{Origin, Places, Upgrade};
pub use view::{Activity, BinaryState, Download, NetworkView, NodeView, UpgradeView, View};
#[cfg(test)]
pub use {
    record::Turns,
    recovery::{Recovery, recover},
    restart::backoff,
    view::{RehearsalView, SymptomView, TurnView},
};

use crate::name::Name;
use crate::sorted::{self, Index};
use backups::Backups;
use heads::Heads;
use leaving::{Departure, LEAVE};
use receipt::Notes;
use rehearsal::Unheld;
use restart::Restarts;
use schedule::Past;
use state::{Node, Outgoing, Preparation, State, Wish, Worker};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use validator::SECOND;

/// The operator's configuration, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether to start the node again after an upgrade, or to end.
    pub restart_after_upgrade: bool,
    /// How long to wait between the switch and the start.
    pub restart_delay: Duration,
    /// Whether a node that ends by itself is started again.
    pub restart_on_failure: bool,
    /// How many failures in a row are tolerated; 0 is no limit.
    pub max_restarts: u32,
    /// How often the head is asked for when no trigger is near.
    pub poll_interval: Duration,
    /// Whether heights are watched, or the trigger file alone is the trigger.
    pub watch_height: bool,
    /// How long a node may take to stop.
    pub shutdown_grace: Duration,
    /// The treatment of a node that takes longer.
    pub stop_timeout: StopTimeout,
    /// How long a node may take to report its first head.
    pub start_timeout: Duration,
    /// How many blocks a new binary must follow.
    pub probation_blocks: u64,
    /// How long a new binary must live.
    pub probation_time: Duration,
    /// Whether the data is backed up before a switch.
    pub backup: bool,
    /// Whether a backup is begun before the node is stopped.
    pub backup_ahead: bool,
    /// Whether backups are removed by their age.
    pub backups_age: bool,
    /// How often a pre-upgrade hook may ask to be run again.
    pub hook_retries: u32,
    /// Whether this node seals blocks, so that a new binary may have signed.
    pub validator: bool,
    /// The shortest time between two blocks of the chain: a head that rises faster does not count.
    pub shortest_period: Duration,
    /// Whether a validator that ended uncleanly starts without sealing, until that is safe.
    pub silent_after_unclean: bool,
    /// How long that may take before it is logged.
    pub sign_wait: Duration,
    /// Whether a new binary is rehearsed when it is ready.
    pub rehearse: bool,
}

/// The treatment of a node that does not stop within the grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopTimeout {
    /// Go on waiting.
    Wait,
    /// Give up the upgrade; when the node ends, the old binary is started again.
    Abort,
    /// Send SIGKILL, at the price of an unclean stop.
    Kill,
}

/// Blocks before a trigger within which the head is watched closely.
const NEAR: u64 = 60;
/// The interval at which a log line is repeated while its cause lasts.
const REMIND: Duration = Duration::from_secs(60);
/// The block period assumed until two heads have been seen: that of WBFT networks.
const USUAL_PERIOD: Duration = Duration::from_secs(1);

/// The longest time between two blocks that is believed.
const LONGEST_PERIOD: Duration = Duration::from_secs(3600);

/// How often the head record is made durable where the node is no validator.
const KEEP: Duration = Duration::from_secs(10);
/// How many times between blocks are needed to know the period, and how many are kept.
const GAPS: (usize, usize) = (3, 15);

/// Decides. See the documentation of this module.
#[derive(Debug, Clone)]
pub struct Machine {
    policy: Policy,
    /// For the jitter of backoffs.
    seed: u64,
    state: State,
    /// The record as it is on disk; with no node running, as it is just being made durable.
    record: Record,
    /// The record that is on its way to the disk while a node runs.
    outgoing: Option<Outgoing>,
    /// The open upgrades, by height; one of them may be under way.
    schedule: Vec<Arc<Upgrade>>,
    /// The settled upgrades. The operator may still force one.
    settled: Vec<Arc<Upgrade>>,
    /// The number of upgrades at the beginning of the schedule whose first preparation was tried.
    tried: usize,
    /// The upgrade that the operator wants now, at any height.
    forced: Option<Upgrade>,
    prepared: BTreeMap<Name, Preparation>,
    backups: Backups,
    worker: Worker,
    wish: Wish,
    /// How the last node ended; the record has `Running` from just before the next one is executed.
    left: NodeMark,
    /// Whether a node had opened the data directory before the supervisor started.
    has_data: bool,
    restarts: Restarts,
    /// The heads that count.
    heads: Heads,
    /// The head of the node that runs, or of the last one that ran, as it was reported.
    head: Option<Head>,
    /// The last times between two blocks, to measure the block period.
    gaps: VecDeque<Duration>,
    /// Their median, when there are enough of them.
    measured_period: Option<Duration>,
    /// How the last node has left the network, as far as this process has seen it.
    departure: Departure,
    /// The chain of the first contact, until the home is bound to it.
    unbound: Option<Chain>,
    /// When the head record was last made durable.
    kept: Option<Instant>,
    /// How often a silent node that was stuck was started again since one has sealed.
    unstuck: u32,
    /// Whether the next start is the operator's order, which nothing holds.
    at_once: bool,
    /// When the new binary was first executed with peers, if that was in this process.
    switched: Option<Instant>,
    /// When the last event happened.
    now: Option<Instant>,
    /// When an event last came late because we were held up, as by a slow disk.
    woke: Option<Instant>,
    /// When the stop for the upgrade in the record was decided, if that was in this process.
    stopped: Option<Instant>,
    /// The last warning or error, while no node runs.
    trouble: Option<String>,
    /// Where `current` leads, as far as that is known.
    link: Option<Target>,
    /// How many writes of a record have failed in a row.
    unwritten: u32,
    /// Whether the record is not on disk: the node was started all the same.
    behind: bool,
    /// The upgrades that were put off, and how often.
    put_off: BTreeMap<Name, u32>,
    /// The upgrade that the worker rehearses.
    rehearsing: Option<Name>,
    /// The upgrades whose rehearsal could not be held: how often, when it is tried again, and why.
    unheld: BTreeMap<Name, Unheld>,
    /// How many post-upgrade hooks run.
    post_hooks: u32,
    /// The operator's order to go back, until the way back is on record.
    back: Option<Back>,
    /// Notes about the upgrade under way, for its receipt. Nothing is decided by them.
    notes: Notes,
    actions: Vec<Action>,
}

impl Machine {
    /// A machine that waits for [`Event::Boot`]. `seed` varies the jitter of its backoffs.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, record: Record) -> Self {
        Machine {
            policy,
            seed,
            state: State::Born,
            left: record.node,
            has_data: true,
            record,
            outgoing: None,
            schedule: Vec::new(),
            settled: Vec::new(),
            tried: 0,
            forced: None,
            prepared: BTreeMap::new(),
            backups: Backups::default(),
            worker: Worker::Idle,
            wish: Wish::Run,
            restarts: Restarts::default(),
            heads: Heads::default(),
            head: None,
            gaps: VecDeque::new(),
            measured_period: None,
            departure: Departure::default(),
            unbound: None,
            kept: None,
            unstuck: 0,
            at_once: false,
            switched: None,
            now: None,
            woke: None,
            stopped: None,
            trouble: None,
            link: None,
            unwritten: 0,
            behind: false,
            put_off: BTreeMap::new(),
            rehearsing: None,
            unheld: BTreeMap::new(),
            post_hooks: 0,
            back: None,
            notes: Notes::default(),
            actions: Vec::new(),
        }
    }

    /// A machine that will never be fed: to show what is on disk as it would be shown running.
    #[must_use]
    pub fn at_rest(policy: Policy, record: Record, schedule: Vec<Arc<Upgrade>>) -> Self {
        let mut machine = Machine { schedule, ..Machine::new(policy, 0, record) };
        machine.sift();
        machine
    }

    /// Takes note of an event that happened at `now`; returns the actions it calls for, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        if self.is_held_up(now) {
            self.woke = Some(now);
        }
        self.now = Some(now);
        self.take_notes(now, &event);
        match event {
            Event::Boot(facts) => self.boot(now, facts),
            Event::Recorded => self.recorded(now),
            Event::RecordFailed(failure) => self.record_failed(now, failure),
            Event::Linked => self.linked(now),
            Event::LinkFailed { failure, leads_to } => self.link_failed(now, &failure, leads_to),
            Event::Inspected => self.inspected(now),
            Event::InspectFailed(failure) => self.inspect_failed(now, failure),
            Event::Spawned { pid } => self.spawned(now, pid),
            Event::SpawnFailed(failure) => self.spawn_failed(now, failure),
            Event::Released => self.released(now),
            Event::Terminated => self.note_asked(),
            Event::NotTerminated(failure) => self.not_terminated(now, failure),
            Event::Exited(ending) => self.exited(now, ending),
            Event::JobDone(end) => self.job_done(now, end),
            Event::Head(head) => self.see(now, head),
            Event::Traced(result) => self.traced(result),
            Event::Identified(result) => self.identified(now, result),
            Event::Surveyed(result) => self.surveyed(now, result),
            Event::SealingStarted(result) => self.sealing_started(now, result),
            Event::SealingStopped(result) => self.sealing_stopped(result),
            Event::Recalled(result) => self.recalled(result),
            Event::Unpeered(result) => self.unpeered(now, result),
            Event::BackupsToTend => self.tend_backups(now),
            Event::Greeted(result) => self.greeted(result),
            Event::PostHookEnded => self.post_hooks = self.post_hooks.saturating_sub(1),
            Event::Schedule(upgrades) => self.reschedule(upgrades),
            Event::Policy(policy) => {
                if policy.backups_age && !self.policy.backups_age {
                    self.tend_backups(now);
                }
                self.policy = policy;
            }
            Event::Request(ask) => self.asked(now, ask),
            Event::Tick => {}
        }
        self.mind_the_head_record(now);
        self.drive(now);
        self.close_notes(now);
        self.note_trouble();
        std::mem::take(&mut self.actions)
    }

    /// When to send a [`Event::Tick`] if nothing else happens before, and what for.
    #[must_use]
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let own = match &self.state {
            State::Born
            | State::Recording { .. }
            | State::Linking { .. }
            | State::Inspecting { .. }
            | State::Spawning { .. }
            | State::Working { .. }
            | State::Ended => None,
            State::Resting { until, .. } => Some((*until, "backoff")),
            State::Clearing { since, reminded, .. } => {
                (!reminded).then(|| (*since + REMIND, "locks still held"))
            }
            State::Running(node) => self.running_deadline(node),
            State::Leaving { since, .. } => Some((*since + LEAVE, "leaving")),
            State::Stopping { since, killed, reminded, unsent, .. } => {
                let grace = (*since + self.policy.shutdown_grace, "shutdown grace");
                let remind = (*reminded + REMIND, "still stopping");
                let next = if *killed || !self.is_ahead(grace.0) { remind } else { remind.min(grace) };
                Some(unsent.map_or(next, |at| next.min((at, "send SIGTERM again"))))
            }
        };
        let retry = self.retry_at().map(|at| (at, "prepare again"));
        let rehearse = self.rehearse_at().map(|at| (at, "rehearse again"));
        let tend = self.tend_at().map(|at| (at, "tend backups"));
        [own, retry, rehearse, tend].into_iter().flatten().filter(|(at, _)| self.is_ahead(*at)).min()
    }

    /// Whether this event comes long after our deadline, or ends an action that is usually prompt.
    fn is_held_up(&self, now: Instant) -> bool {
        let is_late = |at: Instant| now > at + SECOND;
        let acts = matches!(self.state, State::Inspecting { .. });
        self.now.is_some_and(is_late) && (acts || self.deadline().is_some_and(|(at, _)| is_late(at)))
    }

    /// How often the head should be asked for where it does not come by itself.
    ///
    /// Far from any trigger that is the configured interval. Within 60 blocks of a trigger, and while a new binary proves
    /// itself, it is four times per block, so that H is seen a quarter of a block late at most. For a validator it always
    /// is: the head record shows which blocks it may have signed, and the distance to its next proposal.
    #[must_use]
    pub fn pace(&self) -> Duration {
        let head = self.head.as_ref().map(|h| h.block.height);
        let near = match (self.next(), head) {
            (Some(upgrade), Some(head)) => upgrade.height.saturating_sub(head) <= NEAR,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if near || self.policy.validator || self.record.upgrade.is_some() {
            (self.period() / 4).max(Duration::from_millis(20)).min(self.policy.poll_interval)
        } else {
            self.policy.poll_interval
        }
    }

    /// The block period, measured as the median of the last times between two blocks; until it can be, the usual one.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.measured_period.unwrap_or(USUAL_PERIOD)
    }

    /// Notes a time between two blocks.
    fn note_gap(&mut self, gap: Duration) {
        self.gaps.push_back(gap);
        self.gaps.drain(..self.gaps.len().saturating_sub(GAPS.1));
        let mut gaps: Vec<Duration> = self.gaps.iter().copied().collect();
        sorted::sort(&mut gaps);
        let median = gaps.get(gaps.len() / 2).filter(|_| gaps.len() >= GAPS.0);
        self.measured_period = median.copied().filter(|period| !period.is_zero());
    }

    /// Decisions by the passing of time or by facts of any kind, rather than by one event.
    fn drive(&mut self, now: Instant) {
        self.survey_of_the_head(now);
        match &self.state {
            State::Born
            | State::Recording { .. }
            | State::Linking { .. }
            | State::Inspecting { .. }
            | State::Spawning { .. }
            | State::Ended => {}
            State::Resting { .. } => self.drive_resting(now),
            State::Clearing { .. } => self.drive_clearing(now),
            State::Running(_) => self.drive_running(now),
            State::Leaving { .. } => self.drive_leaving(now),
            State::Stopping { .. } => self.drive_stopping(now),
            State::Working { .. } => self.drive_working(),
        }
        self.prepare(now);
        self.mind_backups(now);
        self.rehearse(now);
    }

    /// The record that survives a crash of ours, as it is on disk; with no node running, as it is just being made durable.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The height of the last reported head, of this or the last node; without one, that of the head record.
    #[must_use]
    pub fn head(&self) -> Option<u64> {
        self.head.as_ref().map(|h| h.block.height).or(self.heads.height())
    }

    /// The upgrade that is next by height: the lowest that is neither settled nor under way.
    fn next(&self) -> Option<&Upgrade> {
        self.open().next()
    }

    /// The upgrades that are neither settled nor under way, by height.
    fn open(&self) -> impl Iterator<Item = &Upgrade> {
        self.schedule.iter().map(|u| &**u).filter(|u| !self.is_under_way(&u.name))
    }

    /// Those of them that are planned for this height or a lower one. What depends on the head looks at no others, so that a
    /// long plan costs nothing at every block; a fork lies above the height of its upgrade.
    fn open_up_to(&self, height: u64) -> impl Iterator<Item = &Upgrade> {
        self.open().take_while(move |u| u.height <= height)
    }

    fn is_under_way(&self, name: &Name) -> bool {
        self.record.upgrade.as_ref().is_some_and(|p| p.name == *name)
    }

    fn planned(&self, name: &Name) -> Option<&Upgrade> {
        self.schedule.iter().chain(&self.settled).map(|u| &**u).find(|u| u.name == *name)
    }

    /// Puts aside what is settled. Done when something has ended or the plans have changed, so that
    /// no event looks back through years of history at every block.
    fn sift(&mut self) {
        let past = Past::new(&self.record.ended);
        let open = |u: &Arc<Upgrade>| past.leaves_open(u) && !self.record.current.target.is(&u.name);
        let (open, settled): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.schedule).into_iter().partition(open);
        self.schedule = open;
        self.settled.extend(settled);
        self.tried = 0;
    }

    /// Whether a time is still to come, as seen from the last event; what has passed was acted on.
    fn is_ahead(&self, at: Instant) -> bool {
        self.now.is_none_or(|now| at > now)
    }

    fn reschedule(&mut self, upgrades: Vec<Arc<Upgrade>>) {
        let mut before = std::mem::replace(&mut self.schedule, upgrades);
        before.append(&mut self.settled);
        let before: Index<_, _> = before.iter().map(|u| (&u.name, u)).collect();
        let after: Index<_, _> = self.schedule.iter().map(|u| (&u.name, u)).collect();
        // Its binary is the same one, whichever source names the upgrade now.
        let changed = |name: &&Name| match (before.get(*name), after.get(*name)) {
            (Some(old), Some(new)) => {
                Upgrade { origin: new.origin.clone(), on_hold: new.on_hold, ..Upgrade::clone(old) } != ***new
            }
            (old, new) => old.is_some() != new.is_some(),
        };
        let changed: Vec<Name> = self.prepared.keys().filter(changed).cloned().collect();
        self.sift();
        for name in changed {
            self.forget(&name);
        }
        if let Some(planned) = self.forced.as_ref().and_then(|f| self.planned(&f.name)) {
            self.forced = Some(planned.clone());
        }
    }

    /// Logs a notice.
    fn log(&mut self, level: Level, event: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.actions.push(Action::Tell(Notice { level, event, text, history: false }));
    }

    /// Logs a notice that goes into the history too.
    fn note(&mut self, level: Level, event: &'static str, text: impl Into<String>) {
        self.actions.push(Action::Tell(Notice::to_history(level, event, text.into())));
    }

    /// Remembers the last warning or error, until a node runs. That the node is held is shown by itself, and must not
    /// hide why the last one ended.
    fn note_trouble(&mut self) {
        let bad = |action: &Action| match action {
            Action::Tell(notice) if notice.level != Level::Info && notice.event != "start_held" => {
                Some(format!("{} {}", notice.event, notice.text))
            }
            _ => None,
        };
        let news = self.actions.iter().rev().find_map(bad);
        self.trouble = if self.node().is_some() { None } else { news.or(self.trouble.take()) };
    }

    fn warn(&mut self, event: &'static str, text: impl Into<String>) {
        self.log(Level::Warn, event, text);
    }

    /// An outcome without its action: a bug in the loop. It is reported and changes nothing.
    fn unexpected(&mut self, event: &'static str) {
        self.log(Level::Error, "unexpected_event", format!("event={event} state={:?}", self.state));
    }

    /// The node that runs, if one does.
    fn node(&self) -> Option<&Node> {
        match &self.state {
            State::Running(node) | State::Leaving { node, .. } | State::Stopping { node, .. } => Some(node),
            State::Inspecting { node, .. } => node.as_ref(),
            _ => None,
        }
    }
}
