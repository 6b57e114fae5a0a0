//! Starting the node, noticing its end, stopping it: the life of a process outside of upgrades.

use super::chain_check::ChainCheck;
use super::event::{Action, Class, Ending, Facts, Failure, Level, Notice, Status};
use super::record::{NodeMark, Outcome, Phase, Record, Version};
use super::recovery::{Recovery, recover};
use super::restart::backoff;
use super::state::{AfterRecord, Cleared, Node, Preparation, Rested, State, Why, Wish};
use super::{Machine, NAG, StopTimeout};
use crate::exit::Exit;
use std::time::{Duration, Instant};

/// How long to wait before a record that could not be written is written again.
const RECORD_AGAIN: Duration = Duration::from_secs(5);
/// How long a running node is left alone after its record could not be written.
const LEAVE_ALONE: Duration = Duration::from_secs(60);
/// Why an upgrade is given up when the node does not stop.
const TOO_SLOW: &str = "the node did not stop within daemon_shutdown_grace";

impl Machine {
    pub(super) fn boot(&mut self, now: Instant, facts: Facts) {
        let recovery = recover(&facts.record, &facts.link);
        self.record = facts.record;
        self.left = match self.record.node {
            NodeMark::Running => NodeMark::StoppedUnclean,
            seen @ (NodeMark::Never | NodeMark::StoppedClean | NodeMark::StoppedUnclean) => seen,
        };
        if let Recovery::Halt(reason) = recovery {
            return self.end(Exit::Halted, None, reason);
        }
        if recovery != Recovery::Start {
            self.tell(Level::Warn, "recovering", recovery.to_string(), true);
        }
        self.clear(now, Cleared::Resume(recovery));
    }

    /// Waits until nothing holds the previous node's locks, then goes on.
    pub(super) fn clear(&mut self, now: Instant, then: Cleared) {
        self.state = State::Clearing { since: now, nagged: false, then };
        self.actions.push(Action::AwaitRelease);
    }

    /// Makes `record` durable, then goes on.
    pub(super) fn save(&mut self, record: Record, then: AfterRecord) {
        self.save_and_tell(record, then, None);
    }

    /// Makes `record` durable, tells what it says, then goes on.
    pub(super) fn save_and_tell(&mut self, record: Record, then: AfterRecord, news: Option<Notice>) {
        self.actions.push(Action::Record(record.clone()));
        let old = Box::new(std::mem::replace(&mut self.record, record));
        self.state = State::Recording { then, old, news };
    }

    pub(super) fn end(&mut self, exit: Exit, node: Option<Status>, reason: String) {
        self.cancel_job();
        self.state = State::Ended;
        self.actions.push(Action::Exit { exit, node, reason });
    }

    /// Halts for the operator, durably: nothing is started again until that is resolved.
    pub(super) fn halt(&mut self, reason: String) {
        let news = Notice::history(Level::Error, "halted", reason.clone());
        let record = Record { halted: Some(reason.clone()), ..self.record.clone() };
        self.save_and_tell(record, AfterRecord::End { exit: Exit::Halted, node: None, reason }, Some(news));
    }

    pub(super) fn released(&mut self, now: Instant) {
        let State::Clearing { then, .. } = &self.state else { return self.unexpected("released") };
        match then.clone() {
            Cleared::Start => self.start(now),
            Cleared::Resume(recovery) => self.resume(now, recovery),
            Cleared::Down { why, ending, since } => self.down(now, why, ending, since),
        }
    }

    fn resume(&mut self, now: Instant, recovery: Recovery) {
        let was_running = self.record.node == NodeMark::Running;
        self.record.node = self.left;
        match recovery {
            Recovery::Start => self.start(now),
            Recovery::Forget => {
                self.record.upgrade = None;
                self.start(now);
            }
            Recovery::Backup => {
                let mut record = self.record.clone();
                if let Some(progress) = &mut record.upgrade {
                    progress.unclean |= record.node == NodeMark::StoppedUnclean;
                    progress.phase = Phase::Stopped;
                }
                self.save(record, AfterRecord::Upgrade);
            }
            Recovery::Switch if was_running => {
                // That was the attempt recorded in advance; nothing has run since the old node's end.
                let unclean = self.record.upgrade.as_ref().is_none_or(|p| p.unclean);
                self.left = if unclean { NodeMark::StoppedUnclean } else { NodeMark::StoppedClean };
                self.record.node = self.left;
                self.go_on();
            }
            Recovery::Hook | Recovery::Switch | Recovery::Revert => self.go_on(),
            Recovery::Try { failed: false } => self.start(now),
            Recovery::Try { failed: true } => {
                if let Some(progress) = &mut self.record.upgrade {
                    progress.signed |= self.policy.validator;
                }
                self.attempt_failed(now, "its end was not seen, the supervisor had died".to_owned(), None);
            }
            Recovery::Halt(reason) => self.end(Exit::Halted, None, reason),
        }
    }

    /// Starts what the record says: first the mark that it runs, and the count of attempts, durably.
    /// What must not be started without the operator's word rests instead.
    pub(super) fn start(&mut self, now: Instant) {
        if let Some(reason) = self.held()
            && self.wish != Wish::Restart
        {
            self.warn("start_held", reason);
            self.state = State::Resting { until: now + NAG, then: Rested::Held };
            return;
        }
        let mut record = self.record.clone();
        record.silent = self.starts_silent(record.node == NodeMark::StoppedUnclean);
        record.node = NodeMark::Running;
        if let Some(progress) = &mut record.upgrade {
            progress.attempt += 1;
        }
        self.save(record, AfterRecord::Spawn);
    }

    /// The binary that is to run.
    pub(super) fn version(&self) -> &Version {
        match &self.record.upgrade {
            Some(progress) if progress.phase == Phase::Trying => &progress.to,
            _ => &self.record.current,
        }
    }

    pub(super) fn spawn(&mut self) {
        if self.wish == Wish::Restart {
            self.wish = Wish::Run;
        }
        self.state = State::Spawning;
        self.actions.push(Action::Spawn { version: self.version().clone(), silent: self.record.silent });
    }

    pub(super) fn spawned(&mut self, now: Instant, pid: u32) {
        let State::Spawning = self.state else { return self.unexpected("spawned") };
        self.tell(Level::Info, "node_started", format!("pid={pid} version={}", self.version().target), false);
        self.state = State::Running(Node::new(pid, now, ChainCheck::of(&self.record)));
    }

    pub(super) fn spawn_failed(&mut self, now: Instant, failure: Failure) {
        let State::Spawning = self.state else { return self.unexpected("spawn_failed") };
        self.warn("node_not_started", failure.detail.clone());
        let mut record = self.record.clone();
        // Nothing was executed, so all is as the last node left it.
        record.node = self.left;
        let reason = format!("the new binary cannot be executed: {failure}");
        match (&mut record.upgrade, failure.class) {
            (Some(progress), Class::Environment) => {
                progress.attempt = progress.attempt.saturating_sub(1);
                self.restarts.fail(None, now);
                let wait = backoff(self.restarts.failures(), self.seed);
                self.save(record, AfterRecord::Start(Some(now + wait)));
            }
            (Some(progress), _) if progress.attempt <= 1 => {
                progress.attempt = 0;
                self.record = record;
                self.revert_unless_at_fork(now, reason);
            }
            (Some(_), _) => {
                self.record = record;
                self.attempt_failed(now, reason, None);
            }
            (None, _) => self.try_again(now, record, None, failure.detail, None),
        }
    }

    pub(super) fn exited(&mut self, now: Instant, ending: Ending) {
        match &self.state {
            State::Running(node) | State::Inspecting { node: Some(node), .. } => {
                let since = node.since;
                self.warn(
                    "node_exited",
                    format!("status=\"{}\" after={:.0?}", ending.status, now.duration_since(since)),
                );
                self.clear(now, Cleared::Down { why: Why::Crash, ending, since });
            }
            State::Stopping { why, since: asked, node, .. } => {
                let (why, since) = (why.clone(), node.since);
                let text = format!("status=\"{}\" after={:.0?}", ending.status, now.duration_since(*asked));
                self.tell(Level::Info, "node_stopped", text, false);
                self.clear(now, Cleared::Down { why, ending, since });
            }
            State::Born
            | State::Clearing { .. }
            | State::Recording { .. }
            | State::Spawning
            | State::Inspecting { node: None, .. }
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
            (Why::Crash, Status::Code(code)) => code == 0 || self.triggered().is_some(),
            (Why::Crash, Status::Signal(_)) => false,
            (_, status) => status.is_graceful(),
        };
        record.node = if graceful { NodeMark::StoppedClean } else { NodeMark::StoppedUnclean };
        if !graceful {
            self.warn("unclean_stop", format!("status=\"{}\" the head may have gone back", ending.status));
        }
        self.left = record.node;
        self.note_head(&mut record);
        match why {
            _ if self.wish == Wish::Stop => {
                self.after_the_stop_for_an_upgrade(now, &mut record, &why, graceful);
                let reason = "asked to stop".to_owned();
                self.save(record, AfterRecord::End { exit: Exit::Ok, node: None, reason });
            }
            Why::Stop | Why::Restart => self.save(record, AfterRecord::Start(None)),
            Why::Upgrade => {
                self.after_the_stop_for_an_upgrade(now, &mut record, &why, graceful);
                if record.upgrade.as_ref().is_some_and(|p| self.has_work(p)) {
                    return self.save(record, AfterRecord::Upgrade);
                }
                // The switch follows at once, and its record says all that this one would.
                self.record = record;
                self.go_on();
            }
            Why::Abort => {
                self.record = record;
                self.give_up(now, Outcome::Failed, TOO_SLOW.to_owned());
            }
            Why::Unproven(reason) => {
                self.record = record;
                self.attempt_failed(now, reason, ending.environment);
            }
            Why::Halt(reason) => {
                self.record = record;
                self.halt(reason);
            }
            Why::Crash if record.upgrade.is_some() => {
                self.record = record;
                self.attempt_failed(
                    now,
                    format!("the new binary ended: {}", ending.status),
                    ending.environment,
                );
            }
            // Not a failure of the node, whatever the policy for failures: the next binary's turn has come.
            Why::Crash if self.due_while_down().is_some() || self.held().is_some() => {
                self.restarts.fail(Some(since), now);
                self.save(record, AfterRecord::Start(Some(now)));
            }
            Why::Crash => {
                self.try_again(now, record, Some(since), ending.status.to_string(), Some(ending.status))
            }
        }
    }

    /// What a stop, by whatever order, means for the upgrade in the record.
    fn after_the_stop_for_an_upgrade(&self, now: Instant, record: &mut Record, why: &Why, graceful: bool) {
        let Some(progress) = &mut record.upgrade else { return };
        match (progress.phase, why) {
            (Phase::Stopping, Why::Abort) if !self.fork_reached(progress, now) => {
                record.end(Outcome::Failed, TOO_SLOW.to_owned());
            }
            (Phase::Stopping, _) => {
                progress.phase = Phase::Stopped;
                progress.unclean = !graceful;
            }
            // The operator's stop is not the new binary's failure.
            (Phase::Trying, Why::Stop) => progress.forgiven += 1,
            (Phase::Trying | Phase::Stopped | Phase::BackedUp | Phase::Reverting, _) => {}
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
            return self.save(record, AfterRecord::End { exit: Exit::Failed, node: status, reason });
        }
        if self.restarts.exhausted(self.policy.max_restarts) {
            let reason = format!("the node failed {failures} times in a row, last: {what}");
            let news = Notice::history(Level::Error, "halted", reason.clone());
            let then = AfterRecord::End { exit: Exit::Halted, node: None, reason };
            return self.save_and_tell(record, then, Some(news));
        }
        let wait = backoff(failures, self.seed);
        self.warn("restarting", format!("failures={failures} in={wait:.1?} last={what:?}"));
        self.save(record, AfterRecord::Start(Some(now + wait)));
    }

    pub(super) fn recorded(&mut self, now: Instant) {
        let State::Recording { then, old, news } = &self.state else { return self.unexpected("recorded") };
        let has_ended = old.upgrade.is_some() && self.record.upgrade.is_none();
        let (then, news) = (then.clone(), news.clone());
        if has_ended {
            self.sift();
        }
        self.actions.extend(news.map(Action::Tell));
        if let Some(progress) = &self.record.upgrade {
            self.forced.take_if(|u| u.name == progress.name);
        }
        match then {
            AfterRecord::Terminate(node) => self.terminate(now, node, Why::Upgrade),
            AfterRecord::Run(node) => self.state = State::Running(node),
            AfterRecord::Applied(node, progress) => {
                self.state = State::Running(node);
                self.actions.push(Action::AfterUpgrade(*progress));
            }
            AfterRecord::Start(None) => self.clear(now, Cleared::Start),
            AfterRecord::Start(Some(until)) => self.state = State::Resting { until, then: Rested::Start },
            AfterRecord::Upgrade => self.go_on(),
            AfterRecord::Link(target) => {
                self.state = State::Linking { back: false };
                self.actions.push(Action::Link(target));
            }
            AfterRecord::Spawn => self.spawn(),
            AfterRecord::End { exit, node, reason } => self.end(exit, node, reason),
        }
    }

    /// With a node running, the old record stands and life goes on. With none, writing is tried
    /// again, except on the way out, where a missing record is safe and waiting is not.
    pub(super) fn record_failed(&mut self, now: Instant, failure: Failure) {
        let State::Recording { then, old, news } = &self.state else {
            return self.unexpected("record_failed");
        };
        let (then, old, news) = (then.clone(), old.clone(), news.clone());
        self.tell(Level::Error, "journal_not_written", failure.detail.clone(), false);
        let record = std::mem::replace(&mut self.record, *old);
        match then {
            AfterRecord::Terminate(mut node)
            | AfterRecord::Run(mut node)
            | AfterRecord::Applied(mut node, _) => {
                node.not_before = Some(now + LEAVE_ALONE);
                self.state = State::Running(node);
            }
            AfterRecord::End { exit, node, reason } => {
                self.actions.extend(news.map(Action::Tell));
                self.end(exit, node, reason);
            }
            then @ (AfterRecord::Start(_)
            | AfterRecord::Upgrade
            | AfterRecord::Link(_)
            | AfterRecord::Spawn) => {
                let then = Rested::Record(Box::new(record), then, news);
                self.state = State::Resting { until: now + RECORD_AGAIN, then };
            }
        }
    }

    /// Sends SIGTERM, once, and ends work that would be in the way of what comes after.
    pub(super) fn terminate(&mut self, now: Instant, node: Node, why: Why) {
        self.actions.push(Action::Terminate);
        self.cancel_job();
        self.state = State::Stopping { why, since: now, node, killed: false, nagged: now };
    }

    pub(super) fn drive_resting(&mut self, now: Instant) {
        let State::Resting { until, then } = &self.state else { return };
        if self.wish == Wish::Stop {
            return self.end(Exit::Ok, None, "asked to stop".to_owned());
        }
        let time = now >= *until;
        match then.clone() {
            then @ (Rested::Start | Rested::Held) => match self.due_while_down() {
                Some((upgrade, ready)) => self.inspect(None, &upgrade, ready),
                None if time || self.wish == Wish::Restart => self.clear(now, Cleared::Start),
                None if then == Rested::Held && self.held().is_none() => self.clear(now, Cleared::Start),
                None => {}
            },
            Rested::Record(record, then, news) if time => self.save_and_tell(*record, then, news),
            Rested::Record(..) => {}
        }
    }

    /// Why what `current` points at must not be started now, if so, unless the operator says so.
    ///
    /// An old binary that is started at the fork freezes there, and a validator may propose a block of its own.
    fn held(&self) -> Option<String> {
        if self.record.upgrade.is_some() {
            return None;
        }
        if let Some(upgrade) = self.triggered()
            && matches!(self.prepared.get(&upgrade.name), None | Some(Preparation::Working { .. }))
        {
            return Some(format!("the binary of {} is not ready yet", upgrade.name));
        }
        let applied = self.record.ended.iter().filter(|e| e.outcome == Outcome::Applied);
        let applied = applied.map(|e| e.height).max();
        let planned = self.open().map(|u| (&u.name, u.height, u.fork_height));
        let ended = self.record.ended.iter().filter(|e| e.outcome != Outcome::Applied);
        let ended = ended.map(|e| (&e.name, e.height, e.fork_height));
        let head = self.highest()?;
        let (name, _, fork) = planned.chain(ended).find(|(_, height, fork)| {
            applied.is_none_or(|applied| *height > applied)
                && fork.is_some_and(|fork| head.saturating_add(1) >= fork)
        })?;
        let fork = fork.unwrap_or_default();
        Some(format!(
            "the chain was at {head} and needs {name} from its fork at {fork} on; \
             to start {} all the same: wemixvisor restart",
            self.record.current.target
        ))
    }

    pub(super) fn drive_clearing(&mut self, now: Instant) {
        let State::Clearing { since, nagged, then } = &mut self.state else { return };
        let waited = now.duration_since(*since);
        // The end of a node is worth recording, but not worth waiting for a stray process for ever.
        if self.wish == Wish::Stop && (waited >= NAG || !matches!(then, Cleared::Down { .. })) {
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
                    *nagged = now;
                    self.actions.push(Action::Kill);
                    self.tell(
                        Level::Error,
                        "killing",
                        format!("the node did not stop within {waited:.0?}"),
                        true,
                    );
                    return;
                }
                (StopTimeout::Abort, Why::Upgrade) => {
                    *why = Why::Abort;
                    *nagged = now;
                    self.warn("upgrade_given_up", TOO_SLOW.to_owned());
                    return;
                }
                (StopTimeout::Abort | StopTimeout::Wait, _) => {}
            }
        }
        let grace_is_over = waited >= grace && *nagged < *since + grace;
        if grace_is_over || now.duration_since(*nagged) >= NAG {
            *nagged = now;
            self.warn("still_stopping", format!("waited={waited:.0?} the node has not ended after SIGTERM"));
        }
    }
}
