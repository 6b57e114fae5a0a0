//! Preparing binaries: fetched, verified and tried while there is time, one after the other.
//!
//! As soon as an upgrade is known its binary is prepared, and again after a failure; never while the node
//! is down for an upgrade. The job does the work; [`super::switch`] decides which upgrade is due.

use super::event::{Action, Class, Failure, Job, Level};
use super::record::Ready;
use super::restart::backoff;
use super::rollback::lacks;
use super::state::{Preparation, State, Wish, Worker};
use super::{Machine, Upgrade};
use crate::name::Name;
use std::sync::Arc;
use std::time::Instant;

/// The number of the next upgrades that are tried again until their binaries are ready.
pub(super) const CLOSE: usize = 16;

impl Machine {
    /// Begins to prepare the next binary that is not ready, if nothing else is being done.
    pub(super) fn prepare(&mut self, now: Instant) {
        let is_free = matches!(self.worker, Worker::Idle | Worker::Aside);
        if !is_free || !self.may_prepare() {
            return;
        }
        if let Some(upgrade) = self.wanted(now) {
            if self.worker == Worker::Aside {
                return self.end_work_aside();
            }
            let failures = match self.prepared.get(&upgrade.name) {
                Some(Preparation::Failed { failures, .. }) => *failures,
                _ => 0,
            };
            if failures == 0 {
                let text =
                    format!("name={} height={} from=\"{}\"", upgrade.name, upgrade.height, upgrade.origin);
                self.log(Level::Info, "upgrade_known", text);
            }
            self.prepared.insert(upgrade.name.clone(), Preparation::Working { failures });
            self.worker = Worker::Busy;
            self.actions.push(Action::Start(Job::Prepare(upgrade)));
        }
    }

    /// The upgrade to prepare now: the first of the close ones that is not ready, otherwise the first that was
    /// never tried.
    fn wanted(&mut self, now: Instant) -> Option<Upgrade> {
        let is_time = |u: &&Upgrade| match self.prepared.get(&u.name) {
            None => true,
            Some(Preparation::Failed { retry_at, .. }) => *retry_at <= now,
            Some(Preparation::Working { .. } | Preparation::Ready(_)) => false,
        };
        let close = self.close().find(is_time).cloned();
        if close.is_some() {
            return close;
        }
        let known = |u: &Arc<Upgrade>| self.prepared.contains_key(&u.name) || self.is_under_way(&u.name);
        self.tried += self.schedule.iter().skip(self.tried).take_while(|u| known(u)).count();
        self.schedule.get(self.tried).map(|u| Upgrade::clone(u))
    }

    /// The upgrades that are wanted now or next. The binaries of all others are tried once, as soon as they are known,
    /// and again only when their turn nears: a long plan must not keep us busy with what is missing.
    fn close(&self) -> impl Iterator<Item = &Upgrade> {
        self.forced.iter().chain(self.open().take(CLOSE))
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        if !matches!(self.worker, Worker::Idle | Worker::Aside) || !self.may_prepare() {
            return None;
        }
        let retry_at = |u: &Upgrade| match self.prepared.get(&u.name) {
            Some(Preparation::Failed { retry_at, .. }) => Some(*retry_at),
            None | Some(Preparation::Working { .. } | Preparation::Ready(_)) => None,
        };
        self.close().filter_map(retry_at).min()
    }

    /// Never between stop and start of an upgrade: there is time before and after.
    fn may_prepare(&self) -> bool {
        self.wish == Wish::Run
            && match self.state {
                State::Running(_) => true,
                State::Resting { .. } => self.record.upgrade.is_none(),
                _ => false,
            }
    }

    /// The binary of an upgrade, where it can be switched to.
    pub(super) fn ready(&self, name: &Name) -> Option<&Ready> {
        match self.prepared.get(name)? {
            Preparation::Ready(ready) => Some(ready),
            Preparation::Working { .. } | Preparation::Failed { .. } => None,
        }
    }

    pub(super) fn prepared(&mut self, now: Instant, name: Name, result: Result<Ready, Failure>) {
        // An upgrade that was cancelled or has changed meanwhile is not waited for any more.
        let Some(Preparation::Working { failures }) = self.prepared.get(&name) else { return };
        let failures = failures.saturating_add(1);
        match result {
            Ok(ready) => {
                let text = format!("name={name} sha256={}", ready.version.sha256.hex());
                self.log(Level::Info, "upgrade_ready", text);
                let unfit = self.open().find(|u| u.name == name).and_then(|u| self.unfit(u, &ready));
                if let Some(why) = unfit {
                    self.note(Level::Error, "upgrade_unfit", format!("name={name} {why}"));
                }
                self.prepared.insert(name, Preparation::Ready(Box::new(ready)));
            }
            Err(failure) if failure.class == Class::Cancelled => {
                self.forget(&name);
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

    /// Why a binary that is ready must not be switched to: it runs already, it is an earlier one that lacks a fork, or its
    /// rehearsal has failed. Binaries are compared by digest, since one file may be staged under many names.
    pub(super) fn unfit(&self, upgrade: &Upgrade, ready: &Ready) -> Option<String> {
        let sha256 = &ready.version.sha256;
        let current = &self.record.current;
        if *sha256 == current.sha256 && !ready.insisted {
            let what = format!("its binary is that of {}, which runs", current.target);
            return Some(format!("{what}: stage the right one, or this one with `upgrade add --force`"));
        }
        if let Some((name, fork)) = lacks(&self.record, sha256).next() {
            return Some(format!("its binary is an earlier one, which lacks the fork of {name} at {fork}"));
        }
        let why = self.held_by_rehearsal(upgrade, ready)?;
        Some(format!("its rehearsal has failed: {why}"))
    }

    /// Forgets an upgrade's binary, and ends the work on it, whose outcome is ignored.
    pub(super) fn forget(&mut self, name: &Name) {
        self.tried = 0;
        self.unheld.remove(name);
        if let Some(Preparation::Working { .. }) = self.prepared.remove(name) {
            self.cancel_job();
        }
        if self.rehearsing.as_ref() == Some(name) {
            self.end_work_aside();
        }
    }

    pub(super) fn cancel_job(&mut self) {
        if self.worker == Worker::Busy {
            self.worker = Worker::Ending;
            self.actions.push(Action::CancelJob);
        }
    }
}
