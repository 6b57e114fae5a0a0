//! Records: the steps after one is durable, and the ways on when it cannot be written.
//!
//! With a node running a record is written beside it: until it is durable the old one stands, no effect of the new one
//! begins, and every event is handled as it comes. There is one such record at a time. If the node ends meanwhile, its
//! end is judged by the record that stands when the disk has answered. If the record cannot be written, the node goes
//! on, and every step that needs it waits.
//!
//! With no node running nothing else can be done but a backup, and a write is tried again for a moment. If that fails as
//! well, a backup is ended and the binary that `current` leads to is started all the same: a node is never down for want
//! of a record (I12).
//!
//! | `current` leads to | started is |
//! |---|---|
//! | the version without an upgrade | that |
//! | the old binary of an upgrade | that, and the upgrade is put off; at the fork nothing is, since it is of no use there |
//! | a new binary that never ran, and will not | the old one, after the link was pointed back: a crash in between begins anew |
//! | a new binary that has run | that, again |
//!
//! Such a launch has a number beyond all that may be on disk, and its process writes it into its lock, so that a
//! supervisor that comes after us knows what has run. A power cut takes that knowledge away. So a validator starts
//! silent then; and where by the durable record nothing of this home has ever signed, it does not sign before a record is
//! written.

use super::Machine;
use super::event::{Action, Class, Failure, Job, Level, Notice};
use super::record::{NodeMark, Phase, Record};
use super::restart::{ATTEMPTS, backoff};
use super::state::{AfterRecord, Cleared, Node, Outgoing, Rested, Sent, State, Why};
use std::time::{Duration, Instant};

/// The wait before a record is tried again: at first, doubling, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// How many writes in a row must have failed before a node is started without its record: after 350 ms.
pub(super) const TRIES: u32 = 4;

impl Machine {
    /// Whether a record may be sent to the disk now: one at a time, and none just after one has failed.
    pub(super) fn may_record(&self, now: Instant, node: &Node) -> bool {
        self.outgoing.is_none() && node.not_before.is_none_or(|at| now >= at)
    }

    /// Has `record` made durable beside the node that runs.
    pub(super) fn send(&mut self, record: Record, then: Sent, news: Option<Notice>) {
        self.actions.push(Action::Record(record.clone()));
        self.outgoing = Some(Outgoing { record, then, news });
    }

    /// The record that is on disk or on its way there.
    pub(super) fn newest_record(&self) -> &Record {
        self.outgoing.as_ref().map_or(&self.record, |outgoing| &outgoing.record)
    }

    /// Makes `record` durable with no node running, then goes on.
    pub(super) fn save(&mut self, record: Record, then: AfterRecord) {
        self.save_with_news(record, then, None);
    }

    /// Makes `record` durable with no node running, reports the news, then goes on.
    pub(super) fn save_with_news(&mut self, record: Record, then: AfterRecord, news: Option<Notice>) {
        self.actions.push(Action::Record(record.clone()));
        let old = Box::new(std::mem::replace(&mut self.record, record));
        self.state = State::Recording { then, old, news };
    }

    pub(super) fn recorded(&mut self, now: Instant) {
        if self.unwritten > 0 {
            let text = format!("the record is durable again, after {} failures", self.unwritten);
            self.log(Level::Info, "journal_written", text);
        }
        (self.unwritten, self.behind) = (0, false);
        if let Some(sent) = self.outgoing.take() {
            return self.sent(now, sent);
        }
        let State::Recording { then, old, news } = &self.state else { return self.unexpected("recorded") };
        let has_ended = old.upgrade.is_some() && self.record.upgrade.is_none();
        let (then, news) = (then.clone(), news.clone());
        if has_ended {
            self.sift();
        }
        self.note_way_back();
        self.proceed(now, then, news);
    }

    /// Takes the step after a record that was written beside a node, which may have ended meanwhile.
    fn sent(&mut self, now: Instant, Outgoing { record, then, news }: Outgoing) {
        let old = std::mem::replace(&mut self.record, record);
        if old.upgrade.is_some() && self.record.upgrade.is_none() {
            self.sift();
        }
        if old.chain.is_none() && self.record.chain.is_some() {
            self.unbound = None;
            // Heads reported before do not count, and while the chain stands still no other is reported.
            if let Some(node) = self.node_mut() {
                node.identity.known = true;
                self.actions.push(Action::Confirm);
            }
        }
        match then {
            Sent::Nothing => self.actions.extend(news.map(Action::Tell)),
            Sent::Applied(attempt) => {
                self.actions.extend(news.map(Action::Tell));
                self.actions.push(Action::AfterUpgrade(*attempt));
                self.post_hooks = self.post_hooks.saturating_add(1);
            }
            Sent::Stop => self.stop_as_recorded(now, news),
        }
        self.await_release();
    }

    /// Stops the node for the upgrade in the record, if it still runs and the moment has not passed.
    fn stop_as_recorded(&mut self, now: Instant, news: Option<Notice>) {
        match self.take_running() {
            Some(node) if !self.is_too_late_to_stop(now) => {
                self.actions.extend(news.map(Action::Tell));
                if let Some(attempt) = &self.record.upgrade {
                    self.forced.take_if(|u| u.name == attempt.name);
                }
                return self.terminate(now, node, Why::Upgrade);
            }
            Some(node) => {
                self.state = State::Running(node);
                self.warn("stop_too_late", "the journal was written too slowly: the moment has passed");
            }
            // It has ended, or is being stopped for another reason.
            None => {}
        }
        self.forget_the_stop();
        self.behind = true;
    }

    /// Nothing is on its way to the disk any more: a node that has ended meanwhile waits for its locks.
    fn await_release(&mut self) {
        if let State::Clearing { .. } = self.state {
            self.actions.push(Action::AwaitRelease);
        }
    }

    /// Takes the step after a record.
    fn proceed(&mut self, now: Instant, then: AfterRecord, news: Option<Notice>) {
        self.actions.extend(news.map(Action::Tell));
        if let Some(progress) = &self.record.upgrade {
            self.forced.take_if(|u| u.name == progress.name);
        }
        match then {
            AfterRecord::Start(None) => self.clear(now, Cleared::Start),
            AfterRecord::Start(Some(until)) => self.state = State::Resting { until, then: Rested::Start },
            AfterRecord::Upgrade => self.go_on(),
            AfterRecord::Backup(job) => self.state = State::Working { job: *job, begun: true },
            AfterRecord::Link(target) => {
                self.state = State::Linking { back: false };
                self.actions.push(Action::Link(target));
            }
            AfterRecord::Spawn => self.spawn(),
            AfterRecord::End { exit, node, reason } => self.end(exit, node, reason),
        }
    }

    /// The old record stands.
    pub(super) fn record_failed(&mut self, now: Instant, failure: Failure) {
        self.unwritten = self.unwritten.saturating_add(1);
        self.log(Level::Error, "journal_not_written", failure.detail);
        let again = now + self.record_again();
        if self.outgoing.take().is_some() {
            self.node_mut().into_iter().for_each(|node| node.not_before = Some(again));
            return self.await_release();
        }
        let State::Recording { then, old, news } = &self.state else {
            return self.unexpected("record_failed");
        };
        let (then, old, news) = (then.clone(), old.clone(), news.clone());
        let record = std::mem::replace(&mut self.record, *old);
        if let AfterRecord::End { exit, node, reason } = then {
            self.actions.extend(news.map(Action::Tell));
            return self.end(exit, node, reason);
        }
        if self.unwritten >= TRIES && self.go_without(now, &record, &then, news.as_ref()) {
            return;
        }
        let then = Rested::Record(Box::new(record), then, news);
        self.state = State::Resting { until: again, then };
    }

    /// The wait before a record is written again.
    pub(super) fn record_again(&self) -> Duration {
        AGAIN.0.saturating_mul(1 << self.unwritten.saturating_sub(1).min(16)).min(AGAIN.1)
    }

    /// Goes on without a record that cannot be written, towards a node that runs. Returns whether there is such a way.
    fn go_without(
        &mut self,
        now: Instant,
        record: &Record,
        then: &AfterRecord,
        news: Option<&Notice>,
    ) -> bool {
        match then {
            AfterRecord::Start(_) => {
                self.record = record.clone();
                self.behind = true;
                self.sift();
                self.proceed(now, then.clone(), news.cloned());
                true
            }
            AfterRecord::Spawn => {
                self.spawn_unrecorded(record.clone());
                true
            }
            AfterRecord::Upgrade | AfterRecord::Link(_) => self.leave_the_upgrade(now, record),
            AfterRecord::Backup(job) => self.give_up_the_backup(now, record, job),
            AfterRecord::End { .. } => false,
        }
    }

    /// The next phase of an upgrade cannot be recorded: runs what `current` leads to.
    fn leave_the_upgrade(&mut self, now: Instant, record: &Record) -> bool {
        let Some(attempt) = &record.upgrade else { return false };
        if self.link.as_ref() == Some(&attempt.from.target) {
            let is_of_use = !self.fork_reached(attempt, now);
            if is_of_use {
                self.put_off(now, attempt, "the journal cannot be written".to_owned());
            }
            return is_of_use;
        }
        if attempt.phase != Phase::Reverting {
            return false;
        }
        self.behind = true;
        if attempt.attempt == 0 {
            self.record = record.clone();
            self.link_back();
        } else {
            self.record.node = self.left;
            let wait = self.wait_to_start(now, &self.record, backoff(ATTEMPTS, self.seed));
            self.state = State::Resting { until: now + wait, then: Rested::Start };
        }
        true
    }

    /// The stop for an upgrade cannot be recorded while its backup is being made: that ends, and the upgrade is put off.
    /// At the fork both go on.
    fn give_up_the_backup(&mut self, now: Instant, record: &Record, job: &Job) -> bool {
        let may_leave = record.upgrade.as_ref().is_some_and(|attempt| !self.fork_reached(attempt, now));
        if may_leave {
            self.record = record.clone();
            self.cancel_job();
            self.state = State::Working { job: job.clone(), begun: true };
        }
        may_leave
    }

    /// Why there is no backup: it may have been cancelled for want of a record.
    pub(super) fn cause_of_no_backup(&self, failure: Failure) -> Failure {
        match failure.class {
            Class::Cancelled if self.unwritten >= TRIES => {
                Failure::new(Class::Environment, "the journal cannot be written")
            }
            _ => failure,
        }
    }

    fn spawn_unrecorded(&mut self, mut record: Record) {
        let seals = self.policy.validator && !record.silent && !self.is_untried(&record);
        if seals && self.policy.silent_after_unclean {
            record.silent = true;
            if let Some(until) = self.silent_not_before().filter(|at| self.is_ahead(*at)) {
                self.state = State::Resting { until, then: Rested::Gap };
                return;
            }
        }
        // The record that could not be written may be on disk all the same.
        let launch = record.launch + 1;
        if let Some(attempt) = record.upgrade.as_mut().filter(|attempt| attempt.sealing == record.launch) {
            attempt.sealing = if record.silent { 0 } else { launch };
        }
        record.launch = launch;
        self.record = record;
        self.behind = true;
        let text = "the node is started all the same; its record is written as soon as that is possible";
        self.note(Level::Error, "started_unrecorded", text);
        self.spawn();
    }

    /// Whether a silent node must stay so until the journal can be written: after a power cut it would seem that nothing
    /// of this home had signed.
    pub(super) fn must_be_recorded_first(&self) -> bool {
        self.behind && self.record.before == NodeMark::Never
    }
}
