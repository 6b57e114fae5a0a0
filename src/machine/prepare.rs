//! Preparing binaries: fetched, verified and tried while there is time, one after the other.
//!
//! As soon as an upgrade is known its binary is prepared, and again after a failure; never while the node
//! is down for an upgrade. How that is done is the business of the job; what is due, of [`super::switch`].

use super::event::{Action, Class, Failure, Job, Level, Ready};
use super::restart::backoff;
use super::state::{Preparation, State, Wish, Worker};
use super::{Machine, Upgrade};
use crate::name::Name;
use std::time::Instant;

impl Machine {
    /// Begins to prepare the next binary that is not ready, if nothing else is being done.
    pub(super) fn prepare(&mut self, now: Instant) {
        if self.worker != Worker::Idle || !self.may_prepare() {
            return;
        }
        let wanted = self.unprepared().find(|(_, at)| at.is_none_or(|at| at <= now)).map(|(u, _)| u.clone());
        if let Some(upgrade) = wanted {
            let failures = match self.prepared.get(&upgrade.name) {
                Some(Preparation::Failed { failures, .. }) => *failures,
                _ => 0,
            };
            if failures == 0 {
                let text = format!("name={} height={} from={}", upgrade.name, upgrade.height, upgrade.origin);
                self.tell(Level::Info, "upgrade_known", text, false);
            }
            self.prepared.insert(upgrade.name.clone(), Preparation::Working { failures });
            self.worker = Worker::Busy;
            self.actions.push(Action::Start(Job::Prepare(upgrade)));
        }
    }

    /// Upgrades whose binary is not ready, in order, each with the time before which not to try again.
    fn unprepared(&self) -> impl Iterator<Item = (&Upgrade, Option<Instant>)> {
        self.forced.iter().chain(self.open()).filter_map(|u| match self.prepared.get(&u.name) {
            None => Some((u, None)),
            Some(Preparation::Failed { retry_at, .. }) => Some((u, Some(*retry_at))),
            Some(Preparation::Working { .. } | Preparation::Ready(_)) => None,
        })
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        if self.worker != Worker::Idle || !self.may_prepare() {
            return None;
        }
        self.unprepared().filter_map(|(_, at)| at).min()
    }

    /// Never between stop and start of an upgrade: whatever can be done before or after is not done there.
    fn may_prepare(&self) -> bool {
        self.wish == Wish::Run
            && matches!(self.state, State::Running(_) | State::Resting { .. })
            && !self.down_for_upgrade()
    }

    fn down_for_upgrade(&self) -> bool {
        self.record.upgrade.is_some() && !matches!(self.state, State::Running(_))
    }

    pub(super) fn prepared(&mut self, now: Instant, name: Name, result: Result<Ready, Failure>) {
        // What was cancelled or has changed meanwhile is not waited for any more.
        let Some(Preparation::Working { failures }) = self.prepared.get(&name) else { return };
        let failures = failures.saturating_add(1);
        match result {
            Ok(ready) => {
                let text = format!("name={name} sha256={}", ready.version.sha256.hex());
                self.tell(Level::Info, "upgrade_ready", text, false);
                self.prepared.insert(name, Preparation::Ready(ready));
            }
            Err(failure) if failure.class == Class::Cancelled => {
                self.prepared.remove(&name);
            }
            Err(failure) => {
                let mut wait = backoff(failures, self.seed);
                if matches!(failure.class, Class::Permanent | Class::Integrity) {
                    wait *= 10;
                }
                if failures == 1 {
                    self.warn("upgrade_not_ready", format!("name={name} {failure}"));
                }
                let failed = Preparation::Failed { failures, detail: failure.detail, retry_at: now + wait };
                self.prepared.insert(name, failed);
            }
        }
    }

    /// Drops what is known of an upgrade's binary, and ends the work on it; what comes of that is ignored.
    pub(super) fn forget(&mut self, name: &Name) {
        if let Some(Preparation::Working { .. }) = self.prepared.remove(name) {
            self.cancel_job();
        }
    }

    pub(super) fn cancel_job(&mut self) {
        if self.worker == Worker::Busy {
            self.worker = Worker::Ending;
            self.actions.push(Action::CancelJob);
        }
    }
}
