//! Faults that pass, such as a full disk or a lack of descriptors: they put an upgrade off and never end it.

use super::Machine;
use super::event::{Class, Failure, Level, Notice};
use super::record::{Attempt, Outcome, Record, Target};
use super::state::{AfterRecord, Preparation, Rested, State};
use crate::name::Name;
use std::time::{Duration, Instant};

/// The time for which an upgrade is put off: at first, doubling, and at most.
const HOLD: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

impl Machine {
    /// A step before the switch has failed. Only a fault that stays ends the upgrade: otherwise it is put off, or at the
    /// fork, where the old binary is of no use, the step is done again.
    pub(super) fn set_back(&mut self, now: Instant, step: &str, failure: &Failure) {
        let Some(attempt) = self.record.upgrade.clone() else { return self.unexpected("set_back") };
        let detail = format!("{step}: {failure}");
        match failure.class {
            Class::Permanent | Class::Integrity => self.give_up(now, Outcome::Failed, detail),
            Class::Transient | Class::Environment | Class::Cancelled if self.is_fork_reached(now) => {
                self.try_again_at_the_fork(now, &detail);
            }
            Class::Transient | Class::Environment | Class::Cancelled => self.put_off(now, &attempt, detail),
        }
    }

    /// The link could not be changed. If only its fsync failed, either link may be there after a power cut, and recovery
    /// handles both. The decision depends on where the link leads now.
    pub(super) fn link_failed(&mut self, now: Instant, failure: &Failure, leads_to: Option<Target>) {
        let State::Linking { back } = self.state else { return self.unexpected("link_failed") };
        let Some(progress) = &mut self.record.upgrade else { return self.unexpected("link_failed") };
        let at_old = leads_to.as_ref() == Some(&progress.from.target);
        let passes = matches!(failure.class, Class::Transient | Class::Environment);
        self.link = leads_to;
        if back {
            let reason = format!("current cannot be switched back: {failure}");
            return match (at_old, passes) {
                (true, _) => {
                    self.warn("link_not_durable", reason);
                    self.linked(now);
                }
                (false, true) => {
                    let wait = self.wait_after_failure(now);
                    self.note(Level::Error, "link_failed", format!("{reason}; again in {wait:.1?}"));
                    self.state = State::Resting { until: now + wait, then: Rested::LinkBack };
                }
                (false, false) => self.halt(reason),
            };
        }
        progress.attempt = 0;
        let attempt = progress.clone();
        self.record.node = self.left;
        let reason = format!("current cannot be switched: {failure}");
        match (passes, at_old) {
            (true, _) if self.is_fork_reached(now) => self.try_again_at_the_fork(now, &reason),
            (true, true) => self.put_off(now, &attempt, reason),
            (true, false) => self.revert_for_now(reason),
            (false, true) => self.give_up(now, Outcome::Failed, reason),
            (false, false) => self.revert_unless_at_fork(now, reason),
        }
    }

    /// Whether the chain is at the fork of the upgrade that is under way.
    pub(super) fn is_fork_reached(&self, now: Instant) -> bool {
        self.record.upgrade.as_ref().is_some_and(|attempt| self.fork_reached(attempt, now))
    }

    /// Does the step again after a while: at the fork the old binary is of no use.
    pub(super) fn try_again_at_the_fork(&mut self, now: Instant, detail: &str) {
        let wait = self.wait_after_failure(now);
        let text = format!("{detail}; the chain is at the fork, so it is tried again in {wait:.1?}");
        self.note(Level::Error, "upgrade_set_back", text);
        self.state = State::Resting { until: now + wait, then: Rested::GoOn };
    }

    /// Puts an upgrade off whose new binary was not executed and whose link leads to the old one: that runs again at
    /// once, and the upgrade comes due again after a while.
    pub(super) fn put_off(&mut self, now: Instant, attempt: &Attempt, detail: String) {
        let name = attempt.name.clone();
        let times = self.put_off.get(&name).map_or(1, |times| times.saturating_add(1));
        self.put_off.insert(name.clone(), times);
        let wait = self.hold_back(attempt, times);
        let news = format!("name={name} in={wait:.0?} {detail}; the old binary goes on until then");
        let news = Notice::to_history(Level::Error, "upgrade_put_off", news);
        let failed = Preparation::Failed { failures: times, detail, retry_at: now + wait };
        self.prepared.insert(name, failed);
        // The old record stands until the new one is durable.
        let old = Record { node: self.left, ..self.record.clone() };
        self.forget_the_stop();
        let record = Record { node: self.left, ..std::mem::replace(&mut self.record, old) };
        self.save_with_news(record, AfterRecord::Start(None), Some(news));
    }

    /// Whether this upgrade was put off before.
    pub(super) fn is_put_off(&self, name: &Name) -> bool {
        self.put_off.contains_key(name)
    }

    /// How long an upgrade is put off: each time longer, and no longer than half of the room before its fork.
    fn hold_back(&self, attempt: &Attempt, times: u32) -> Duration {
        let wait = HOLD.0.saturating_mul(1 << times.saturating_sub(1).min(16)).min(HOLD.1);
        let Some(fork) = attempt.fork_height else { return wait };
        let blocks = fork.saturating_sub(self.heads.height().unwrap_or(0).saturating_add(1));
        let room = self.period().saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX));
        wait.min(room / 2).max(Duration::from_secs(1))
    }

    /// Takes the way back for a fault that passes: the upgrade comes due again.
    pub(super) fn revert_for_now(&mut self, reason: String) {
        if let Some(progress) = &mut self.record.upgrade {
            progress.put_off = true;
        }
        self.revert(reason);
    }
}
