//! Starting the node: when it may be started, in which mode, and what follows a start that fails.

use super::chain_check::ChainCheck;
use super::event::{Action, Class, Failure, Level, Mode};
use super::record::{Attempt, NodeMark, Outcome, Phase, Record, Version};
use super::restart::backoff;
use super::state::{AfterRecord, Node, Preparation, Rested, State};
use super::upgrade::is_at_fork;
use super::{Machine, REMIND};
use std::time::{Duration, Instant};

/// The way to let an upgrade happen that is on hold.
pub(super) const RELEASE: &str = "wemixvisor upgrade release";
/// How often a new binary is executed in vain, by a fault of the machine, before the old one runs again.
const SPAWNS: u32 = 3;

impl Machine {
    /// Starts the version of the record: first the mark that it runs, and the count of attempts, durably.
    /// A node that must not be started without the operator's order rests instead.
    pub(super) fn start(&mut self, now: Instant) {
        if self.goes_back() {
            return;
        }
        if let Some(reason) = self.held()
            && !self.at_once
        {
            self.warn("start_held", reason);
            self.state = State::Resting { until: now + REMIND, then: Rested::Held };
            return;
        }
        if let Some(until) = self.starts_not_before(&self.record) {
            self.state = State::Resting { until, then: Rested::Gap };
            return;
        }
        let record = self.about_to_run(self.record.clone());
        self.save(record, AfterRecord::Spawn);
    }

    /// Until when a start with this record waits, if that is still to come.
    pub(super) fn starts_not_before(&self, record: &Record) -> Option<Instant> {
        let mode = self.mode(record);
        let silent = self.silent_not_before().filter(|_| mode == Mode::Silent);
        let accepted = self.accepted_not_before().filter(|_| mode != Mode::Dry);
        silent.max(accepted).filter(|at| self.is_ahead(*at))
    }

    /// How long a start with this record waits, at least as long as `least`.
    pub(super) fn wait_to_start(&self, now: Instant, record: &Record, least: Duration) -> Duration {
        self.starts_not_before(record).map_or(least, |at| least.max(at.saturating_duration_since(now)))
    }

    /// The record of a node that is about to be executed.
    pub(super) fn about_to_run(&self, mut record: Record) -> Record {
        let mode = self.mode(&record);
        record.silent = match mode {
            Mode::Full => false,
            Mode::Silent => true,
            // It seals nothing, and decides nothing about the next one.
            Mode::Dry => record.silent,
        };
        (record.node, record.before) = (NodeMark::Running, self.left);
        record.gave_up = None;
        record.launch += 1;
        if let Some(attempt) = &mut record.upgrade {
            attempt.attempt += 1;
            if mode == Mode::Full && attempt.sealing == 0 && self.policy.validator {
                attempt.sealing = record.launch;
            }
        }
        record
    }

    /// The binary that runs, or runs next.
    #[must_use]
    pub fn version(&self) -> &Version {
        match &self.record.upgrade {
            Some(progress) if progress.phase == Phase::Trying => &progress.to,
            _ => &self.record.current,
        }
    }

    pub(super) fn spawn(&mut self) {
        self.at_once = false;
        let mode = self.recorded_mode();
        self.state = State::Spawning { mode };
        let launch = self.record.launch;
        self.actions.push(Action::Spawn { version: self.version().clone(), mode, launch });
    }

    /// Whether all that the new binary has signed, if anything, is younger than the launch on record.
    pub(super) fn is_first_to_sign(&self, mode: Mode) -> bool {
        let launch = self.record.launch;
        let is_first = |attempt: &Attempt| attempt.sealing == 0 || attempt.sealing == launch;
        mode != Mode::Dry && self.record.upgrade.as_ref().is_some_and(is_first)
    }

    /// How the node takes part that runs by the record, or is about to.
    pub(super) fn recorded_mode(&self) -> Mode {
        match self.record.silent {
            _ if self.is_untried(&self.record) => Mode::Dry,
            true => Mode::Silent,
            false => Mode::Full,
        }
    }

    pub(super) fn spawned(&mut self, now: Instant, pid: u32) {
        let State::Spawning { mode } = self.state else { return self.unexpected("spawned") };
        let how = match mode {
            Mode::Full => "",
            Mode::Silent => " mode=silent",
            Mode::Dry => " mode=dry",
        };
        self.log(Level::Info, "node_started", format!("pid={pid} version={}{how}", self.version().target));
        self.heads.forget_questions();
        if self.is_first_to_sign(mode) {
            self.switched = Some(now);
        }
        let mut node = Node::new(pid, mode, now, ChainCheck::of(&self.record));
        let kept = self.departure.goal.take();
        node.network.returning.goal =
            kept.into_iter().chain(self.heads.block().cloned()).max_by_key(|b| b.height);
        node.not_before = self.behind.then(|| now + self.record_again());
        self.state = State::Running(node);
    }

    pub(super) fn spawn_failed(&mut self, now: Instant, failure: Failure) {
        let State::Spawning { .. } = self.state else { return self.unexpected("spawn_failed") };
        self.warn("node_not_started", failure.detail.clone());
        let mut record = self.record.clone();
        // Nothing was executed, so all is as the last node left it.
        record.node = self.left;
        let reason = format!("the new binary cannot be executed: {failure}");
        match (&mut record.upgrade, failure.class) {
            (Some(progress), Class::Environment | Class::Transient) => {
                progress.attempt = progress.attempt.saturating_sub(1);
                let never_ran = progress.attempt == 0;
                let wait = self.wait_after_failure(now);
                if never_ran && self.restarts.failures() >= SPAWNS && !self.is_fork_reached(now) {
                    self.record = record;
                    return self.revert_for_now(reason);
                }
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
            // No fault of the node: it is tried again for as long as that lasts.
            (None, Class::Environment | Class::Transient) if self.policy.restart_on_failure => {
                self.restarts.fail(None, now);
                self.start_later(now, record, &failure.detail);
            }
            (None, _) => self.try_again(now, record, None, failure.detail),
        }
    }

    /// Starts the node again after a backoff.
    pub(super) fn start_later(&mut self, now: Instant, record: Record, last: &str) {
        let failures = self.restarts.failures();
        let wait = self.wait_to_start(now, &record, backoff(failures, self.seed));
        self.warn("restarting", format!("failures={failures} in={wait:.1?} last={last:?}"));
        self.save(record, AfterRecord::Start(Some(now + wait)));
    }

    /// Counts a failure of something else than the node. Returns the backoff after it.
    pub(super) fn wait_after_failure(&mut self, now: Instant) -> Duration {
        self.restarts.fail(None, now);
        backoff(self.restarts.failures(), self.seed)
    }

    /// Why the binary that `current` points at must not be started now without the operator's order, if so.
    ///
    /// An old binary that is started at the fork freezes there, and a validator may propose a block of its own.
    pub(super) fn held(&self) -> Option<String> {
        if self.record.upgrade.is_some() {
            return None;
        }
        if let Some(upgrade) = self.triggered() {
            if upgrade.on_hold {
                let name = &upgrade.name;
                return Some(format!("the old binary stops for {name}, which is on hold: {RELEASE} {name}"));
            }
            match self.prepared.get(&upgrade.name) {
                None | Some(Preparation::Working { .. }) => {
                    return Some(format!("the binary of {} is not ready yet", upgrade.name));
                }
                Some(Preparation::Failed { .. }) if self.is_put_off(&upgrade.name) => {
                    return Some(format!(
                        "upgrade {} is put off, and the old binary stops for it",
                        upgrade.name
                    ));
                }
                Some(Preparation::Failed { .. } | Preparation::Ready(_)) => {}
            }
        }
        let applied = self.record.ended.iter().filter(|e| e.outcome == Outcome::Applied);
        let applied = applied.map(|e| e.height).max();
        // The binary that has followed the chain beyond a planned fork does not lack it.
        let head = self.heads.height()?;
        let binary = self.heads.record().and_then(|record| record.binary);
        let is_beyond = |fork: u64| head > fork && binary == Some(self.record.current.sha256);
        let planned =
            self.open().map(|u| (&u.name, u.height, u.fork_height.filter(|fork| !is_beyond(*fork))));
        // A fork of an upgrade that failed counts once the chain has shown that the old binary cannot follow it.
        let ended = self.record.ended.iter().filter(|e| e.outcome != Outcome::Applied && e.cannot_follow);
        let ended = ended.map(|e| (&e.name, e.height, e.fork_height));
        let (name, _, fork) = planned.chain(ended).find(|(_, height, fork)| {
            applied.is_none_or(|applied| *height > applied) && fork.is_some_and(|fork| is_at_fork(head, fork))
        })?;
        let fork = fork.unwrap_or_default();
        Some(format!(
            "the chain was at {head} and needs {name} from its fork at {fork} on; \
             to start {} all the same: wemixvisor restart",
            self.record.current.target
        ))
    }
}
