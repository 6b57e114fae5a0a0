//! Starting the node, noticing its end, stopping it: the life of a process outside of upgrades.

use super::event::{Action, Class, Ending, Facts, Failure, Level, Status};
use super::journal::{NodeMark, Outcome, Phase, Record, Version};
use super::recovery::{Recovery, recover};
use super::restart::backoff;
use super::state::{Cleared, Node, Recorded, Rested, State, Why, Wish};
use super::{Machine, NAG, StopTimeout};
use crate::exit::Exit;
use std::time::{Duration, Instant};

/// How long to wait before a record that could not be written is written again.
const RECORD_AGAIN: Duration = Duration::from_secs(5);
/// How long a running node is left alone after its record could not be written.
const LEAVE_ALONE: Duration = Duration::from_secs(60);
/// How long it is left alone when its staged binary has changed and has to be verified again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn boot(&mut self, now: Instant, facts: Facts) {
        let recovery = recover(&facts.record, &facts.link);
        self.record = facts.record;
        if let Recovery::Halt(reason) = recovery {
            return self.end(Exit::Halted, None, reason);
        }
        if recovery != Recovery::Start {
            self.tell(Level::Warn, "recovering", format!("{recovery:?}"), true);
        }
        self.clear(now, Cleared::Resume(recovery));
    }

    /// Waits until nothing holds the previous node's locks, then goes on.
    pub(super) fn clear(&mut self, now: Instant, then: Cleared) {
        self.state = State::Clearing { since: now, nagged: false, then };
        self.actions.push(Action::AwaitRelease);
    }

    /// Makes `record` durable, then goes on.
    pub(super) fn save(&mut self, record: Record, then: Recorded) {
        self.actions.push(Action::Record(record.clone()));
        let old = Box::new(std::mem::replace(&mut self.record, record));
        self.state = State::Recording { then, old };
    }

    pub(super) fn end(&mut self, exit: Exit, node: Option<Status>, reason: String) {
        if self.busy {
            self.actions.push(Action::CancelJob);
        }
        self.state = State::Ended;
        self.actions.push(Action::Exit { exit, node, reason });
    }

    /// Halts for the operator, durably: nothing is started again until that is resolved.
    pub(super) fn halt(&mut self, reason: String) {
        self.tell(Level::Error, "halted", reason.clone(), true);
        let record = Record { halted: Some(reason.clone()), ..self.record.clone() };
        self.save(record, Recorded::End { exit: Exit::Halted, node: None, reason });
    }

    pub(super) fn released(&mut self, now: Instant) {
        let State::Clearing { then, .. } = &self.state else { return self.unexpected("released") };
        match then.clone() {
            Cleared::Start => self.start(),
            Cleared::Resume(recovery) => self.resume(now, recovery),
            Cleared::Down { why, ending, since } => self.down(now, why, ending, since),
        }
    }

    fn resume(&mut self, now: Instant, recovery: Recovery) {
        let mut record = self.record.clone();
        if record.node == NodeMark::Running {
            record.node = NodeMark::StoppedUnclean;
        }
        match recovery {
            Recovery::Start | Recovery::Forget => {
                record.upgrade = None;
                self.record = record;
                self.start();
            }
            Recovery::Backup => {
                if let Some(progress) = &mut record.upgrade {
                    progress.unclean |= record.node == NodeMark::StoppedUnclean;
                    progress.phase = Phase::Stopped;
                }
                self.save(record, Recorded::Upgrade);
            }
            Recovery::Hook | Recovery::Switch | Recovery::Revert => {
                self.record = record;
                self.go_on();
            }
            Recovery::Try { failed: false } => self.start(),
            Recovery::Try { failed: true } => {
                self.record = record;
                self.attempt_failed(now, "its end was not seen, the supervisor had died".to_owned(), None);
            }
            Recovery::Halt(reason) => self.end(Exit::Halted, None, reason),
        }
    }

    /// Starts what the record says: first the mark that it runs, and the count of attempts, durably.
    pub(super) fn start(&mut self) {
        let mut record = self.record.clone();
        record.node = NodeMark::Running;
        if let Some(progress) = &mut record.upgrade {
            progress.attempt += 1;
        }
        self.save(record, Recorded::Spawn);
    }

    /// The binary that is to run.
    pub(super) fn version(&self) -> &Version {
        match &self.record.upgrade {
            Some(progress) if progress.phase == Phase::Trying => &progress.to,
            _ => &self.record.current,
        }
    }

    pub(super) fn spawn(&mut self) {
        self.state = State::Spawning;
        self.actions.push(Action::Spawn(self.version().clone()));
    }

    pub(super) fn spawned(&mut self, now: Instant, pid: u32) {
        let State::Spawning = self.state else { return self.unexpected("spawned") };
        self.tell(Level::Info, "node_started", format!("pid={pid} version={}", self.version().target), false);
        self.state = State::Running(Node::new(pid, now));
    }

    pub(super) fn spawn_failed(&mut self, now: Instant, failure: Failure) {
        let State::Spawning = self.state else { return self.unexpected("spawn_failed") };
        self.warn("node_not_started", failure.detail.clone());
        let mut record = self.record.clone();
        // Nothing was executed, so nothing can have been left unclean.
        record.node = NodeMark::StoppedClean;
        match (&mut record.upgrade, failure.class) {
            (_, Class::Environment) => {
                if let Some(progress) = &mut record.upgrade {
                    progress.attempt = progress.attempt.saturating_sub(1);
                }
                self.restarts.fail(None, now);
                let wait = backoff(self.restarts.failures(), self.seed);
                self.save(record, Recorded::Start(Some(now + wait)));
            }
            (Some(progress), _) if progress.attempt <= 1 => {
                progress.attempt = 0;
                self.record = record;
                self.revert(format!("the new binary cannot be executed: {failure}"));
            }
            (Some(_), _) => {
                self.record = record;
                self.attempt_failed(now, format!("the new binary cannot be executed: {failure}"), None);
            }
            (None, _) => self.try_again(now, record, None, failure.detail, None),
        }
    }

    pub(super) fn exited(&mut self, now: Instant, ending: Ending) {
        match &self.state {
            State::Running(node) | State::Inspecting { node } => {
                let since = node.since;
                self.warn(
                    "node_exited",
                    format!("status={} after={:?}", ending.status, now.duration_since(since)),
                );
                self.clear(now, Cleared::Down { why: Why::Crash, ending, since });
            }
            State::Stopping { why, since: asked, node, .. } => {
                let (why, since) = (why.clone(), node.since);
                let text = format!("status={} after={:?}", ending.status, now.duration_since(*asked));
                self.tell(Level::Info, "node_stopped", text, false);
                self.clear(now, Cleared::Down { why, ending, since });
            }
            State::Born
            | State::Clearing { .. }
            | State::Recording { .. }
            | State::Spawning
            | State::Working { .. }
            | State::Linking { .. }
            | State::Resting { .. }
            | State::Ended => self.unexpected("exited"),
        }
    }

    /// The node is reaped and its locks are free: remember how it ended, and go on with why.
    fn down(&mut self, now: Instant, why: Why, ending: Ending, since: Instant) {
        let mut record = self.record.clone();
        let graceful = match (&why, ending.status) {
            // A chain whose node stops by itself does so with any code once its data is closed.
            (Why::Crash, Status::Code(code)) => code == 0 || self.stops_by_itself(),
            (Why::Crash, Status::Signal(_)) => false,
            (_, status) => status.is_graceful(),
        };
        record.node = if graceful { NodeMark::StoppedClean } else { NodeMark::StoppedUnclean };
        if !graceful {
            self.warn("unclean_stop", format!("status={} the head may have gone back", ending.status));
        }
        self.note_highest(&mut record);
        match why {
            _ if self.wish == Wish::Stop => {
                self.after_the_stop_for_an_upgrade(&mut record, &why, graceful);
                let reason = "asked to stop".to_owned();
                self.save(record, Recorded::End { exit: Exit::Ok, node: None, reason });
            }
            Why::Stop | Why::Restart => self.save(record, Recorded::Start(None)),
            Why::Upgrade => {
                self.after_the_stop_for_an_upgrade(&mut record, &why, graceful);
                self.save(record, Recorded::Upgrade);
            }
            Why::Abort => {
                self.record = record;
                self.give_up(
                    Outcome::Failed,
                    "the node did not stop within daemon_shutdown_grace".to_owned(),
                );
            }
            Why::Unproven(reason) => {
                self.record = record;
                self.attempt_failed(now, reason, None);
            }
            Why::Crash if record.upgrade.is_some() => {
                self.record = record;
                self.attempt_failed(
                    now,
                    format!("the new binary ended: {}", ending.status),
                    ending.environment,
                );
            }
            Why::Crash => match self.due_while_down() {
                Some((upgrade, ready)) => {
                    self.stopped = Some(now);
                    record.upgrade = Some(self.progress(&upgrade, ready, Phase::Stopped, !graceful));
                    self.save(record, Recorded::Upgrade);
                }
                None => {
                    self.try_again(now, record, Some(since), ending.status.to_string(), Some(ending.status))
                }
            },
        }
    }

    /// What a stop, by whatever order, means for the upgrade in the record.
    fn after_the_stop_for_an_upgrade(&mut self, record: &mut Record, why: &Why, graceful: bool) {
        let Some(progress) = &mut record.upgrade else { return };
        match progress.phase {
            Phase::Stopping if *why == Why::Abort => record.upgrade = None,
            Phase::Stopping => {
                progress.phase = Phase::Stopped;
                progress.unclean = !graceful;
            }
            // The operator's stop is not the new binary's failure.
            Phase::Trying => progress.attempt = progress.attempt.saturating_sub(1),
            Phase::Stopped | Phase::BackedUp | Phase::Reverting => {}
        }
    }

    /// The restart policy: again after a backoff, or the end.
    fn try_again(
        &mut self,
        now: Instant,
        record: Record,
        ran: Option<Instant>,
        what: String,
        status: Option<Status>,
    ) {
        self.restarts.fail(ran, now);
        let failures = self.restarts.failures();
        if !self.policy.restart_on_failure {
            let reason = format!("the node ended: {what}");
            return self.save(record, Recorded::End { exit: Exit::Failed, node: status, reason });
        }
        if self.restarts.exhausted(self.policy.max_restarts) {
            let reason = format!("the node failed {failures} times in a row, last: {what}");
            self.tell(Level::Error, "halted", reason.clone(), true);
            return self.save(record, Recorded::End { exit: Exit::Halted, node: None, reason });
        }
        let wait = backoff(failures, self.seed);
        self.warn("restarting", format!("failures={failures} in={wait:?} last={what}"));
        self.save(record, Recorded::Start(Some(now + wait)));
    }

    pub(super) fn recorded(&mut self, now: Instant) {
        let State::Recording { then, .. } = std::mem::replace(&mut self.state, State::Ended) else {
            return self.unexpected("recorded");
        };
        match then {
            Recorded::Terminate(node) => self.terminate(now, node, Why::Upgrade),
            Recorded::Run(node) => self.state = State::Running(node),
            Recorded::Start(None) => self.clear(now, Cleared::Start),
            Recorded::Start(Some(until)) => self.state = State::Resting { until, then: Rested::Start },
            Recorded::Upgrade => self.go_on(),
            Recorded::Link { target, back } => {
                self.state = State::Linking { back };
                self.actions.push(Action::Link(target));
            }
            Recorded::Spawn => self.spawn(),
            Recorded::End { exit, node, reason } => self.end(exit, node, reason),
        }
    }

    /// With a node running, the old record stands and life goes on. With none, writing is tried
    /// again, except on the way out, where a missing record is safe and waiting is not.
    pub(super) fn record_failed(&mut self, now: Instant, failure: Failure) {
        let State::Recording { then, old } = std::mem::replace(&mut self.state, State::Ended) else {
            return self.unexpected("record_failed");
        };
        self.tell(Level::Error, "journal_not_written", failure.detail.clone(), false);
        let record = std::mem::replace(&mut self.record, *old);
        match then {
            Recorded::Terminate(mut node) | Recorded::Run(mut node) => {
                node.not_before = Some(now + LEAVE_ALONE);
                self.state = State::Running(node);
            }
            Recorded::End { exit, node, reason } => self.end(exit, node, reason),
            then @ (Recorded::Start(_) | Recorded::Upgrade | Recorded::Link { .. } | Recorded::Spawn) => {
                let then = Rested::Record(Box::new(record), then);
                self.state = State::Resting { until: now + RECORD_AGAIN, then };
            }
        }
    }

    pub(super) fn inspect_failed(&mut self, now: Instant, failure: &Failure) {
        let State::Inspecting { node } = &self.state else { return self.unexpected("inspect_failed") };
        let node = Node { not_before: Some(now + LOOK_AGAIN), ..node.clone() };
        self.state = State::Running(node);
        self.warn("upgrade_changed_on_disk", failure.detail.clone());
        if let Some(name) = self.next().map(|u| u.name.clone()) {
            self.prepared.remove(&name);
        }
    }

    /// Sends SIGTERM, once, and ends work that would be in the way of what comes after.
    pub(super) fn terminate(&mut self, now: Instant, node: Node, why: Why) {
        self.actions.push(Action::Terminate);
        if self.busy {
            self.actions.push(Action::CancelJob);
        }
        self.state = State::Stopping { why, since: now, node, killed: false, nagged: now };
    }

    pub(super) fn drive_resting(&mut self, now: Instant) {
        let State::Resting { until, then } = &self.state else { return };
        if self.wish == Wish::Stop {
            return self.end(Exit::Ok, None, "asked to stop".to_owned());
        }
        let restart = std::mem::replace(&mut self.wish, Wish::Run) == Wish::Restart;
        match then.clone() {
            Rested::Start if self.record.upgrade.is_none() && self.due_while_down().is_some() => {
                let Some((upgrade, ready)) = self.due_while_down() else { return };
                self.stopped = Some(now);
                let unclean = self.record.node == NodeMark::StoppedUnclean;
                let progress = self.progress(&upgrade, ready, Phase::Stopped, unclean);
                let record = Record { upgrade: Some(progress), ..self.record.clone() };
                self.save(record, Recorded::Upgrade);
            }
            Rested::Start if restart || now >= *until => self.clear(now, Cleared::Start),
            Rested::Record(record, then) if now >= *until => self.save(*record, then),
            Rested::Start | Rested::Record(..) => {}
        }
    }

    pub(super) fn drive_clearing(&mut self, now: Instant) {
        let State::Clearing { since, nagged, then } = &mut self.state else { return };
        let waited = now.duration_since(*since);
        if self.wish == Wish::Stop && !matches!(then, Cleared::Down { .. }) {
            return self.end(Exit::Ok, None, "asked to stop".to_owned());
        }
        if waited >= NAG && !*nagged {
            *nagged = true;
            self.warn(
                "locks_still_held",
                "something of the previous node is still alive; no node is started".to_owned(),
            );
        }
    }

    pub(super) fn drive_stopping(&mut self, now: Instant) {
        let grace = self.policy.shutdown_grace;
        let State::Stopping { why, since, killed, nagged, .. } = &mut self.state else { return };
        let waited = now.duration_since(*since);
        if waited >= grace && !*killed {
            match (self.policy.stop_timeout, &why) {
                (StopTimeout::Kill, _) => {
                    *killed = true;
                    self.actions.push(Action::Kill);
                    self.tell(
                        Level::Error,
                        "killing",
                        format!("the node did not stop within {waited:?}"),
                        true,
                    );
                    return;
                }
                (StopTimeout::Abort, Why::Upgrade) => *why = Why::Abort,
                (StopTimeout::Abort | StopTimeout::Wait, _) => {}
            }
        }
        if now.duration_since(*nagged) >= NAG {
            *nagged = now;
            self.warn("still_stopping", format!("waited={waited:?} the node has not ended after SIGTERM"));
        }
    }
}
