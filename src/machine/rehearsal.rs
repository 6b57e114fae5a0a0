//! Rehearsals that are held by themselves: when, what ends one early, and what a failed one holds up.
//!
//! A rehearsal is the least urgent work: it begins when the binaries of the next upgrades are ready and the node runs
//! undisturbed, and makes way for everything else, in the last minutes before an upgrade for its backup. An upgrade that
//! comes due before the end of its rehearsal, or too soon for one, goes on without: none waits, since it may have to be in
//! time for a fork. It is said why, and a validator's binary is then tried without peers first.

use super::event::{Class, Failure, Job, Level, Mode};
use super::prepare::CLOSE;
use super::record::{Ready, Rehearsal};
use super::restart::backoff;
use super::state::{Preparation, State, Wish, Worker};
use super::{Machine, Upgrade};
use crate::name::Name;
use std::time::Instant;

/// A rehearsal that cannot be held (too little space, no new blocks) is tried again after this multiple of the usual wait.
const PATIENCE: u32 = 10;

/// A rehearsal that could not be held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Unheld {
    failures: u32,
    /// When it is tried again.
    again: Instant,
    why: String,
}

impl Machine {
    /// Begins the next rehearsal, or ends one that is in the way.
    pub(super) fn rehearse(&mut self, now: Instant) {
        if !self.may_rehearse() || self.due().is_some() {
            if self.rehearsing.is_some() {
                self.end_work_aside();
            }
            return;
        }
        if self.worker != Worker::Idle {
            return;
        }
        let is_time = |unheld: Option<&Unheld>| unheld.is_none_or(|unheld| unheld.again <= now);
        let next = self.unrehearsed().find(|u| is_time(self.unheld.get(&u.name))).cloned();
        if let Some(upgrade) = next {
            self.rehearsing = Some(upgrade.name.clone());
            self.start_aside(Job::Rehearse(upgrade));
        }
    }

    /// When a rehearsal that could not be held is tried again.
    pub(super) fn rehearse_at(&self) -> Option<Instant> {
        if self.worker != Worker::Idle || !self.may_rehearse() {
            return None;
        }
        self.unrehearsed().filter_map(|u| self.unheld.get(&u.name)).map(|unheld| unheld.again).min()
    }

    pub(super) fn rehearsed(&mut self, now: Instant, name: &Name, result: Result<Rehearsal, Failure>) {
        self.rehearsing = None;
        match result {
            Ok(verdict) => {
                self.unheld.remove(name);
                // A binary that has changed meanwhile is looked at anew.
                let Some(Preparation::Ready(ready)) = self.prepared.get_mut(name) else { return };
                ready.rehearsal = verdict.clone();
                match verdict {
                    Rehearsal::Failed(why) => {
                        let text = format!("name={name} the upgrade is held: {why}");
                        self.note(Level::Error, "rehearsal_failed", text);
                    }
                    Rehearsal::Passed => {
                        self.note(Level::Info, "rehearsal_passed", format!("name={name}"));
                    }
                    Rehearsal::None => {}
                }
            }
            Err(failure) if failure.class == Class::Cancelled => {
                self.log(Level::Info, "rehearsal_cancelled", format!("name={name}"));
            }
            Err(failure) => {
                let failures = self.unheld.get(name).map_or(0, |unheld| unheld.failures).saturating_add(1);
                if failures == 1 {
                    self.warn("rehearsal_not_held", format!("name={name} {failure}"));
                }
                let again = now + backoff(failures, self.seed) * PATIENCE;
                self.unheld.insert(name.clone(), Unheld { failures, again, why: failure.to_string() });
            }
        }
    }

    /// Why an upgrade whose binary is ready is held all the same: its rehearsal has failed, and the operator has not
    /// overruled that.
    pub(super) fn held_by_rehearsal<'a>(&self, upgrade: &Upgrade, ready: &'a Ready) -> Option<&'a str> {
        match &ready.rehearsal {
            Rehearsal::Failed(why) if self.policy.rehearse && !self.is_forced(upgrade) => Some(why),
            Rehearsal::Failed(_) | Rehearsal::Passed | Rehearsal::None => None,
        }
    }

    /// The fault that the rehearsal of an upgrade has found, if that holds it.
    pub(super) fn failed_rehearsal(&self, name: &Name) -> Option<&str> {
        let upgrade = self.open().find(|upgrade| upgrade.name == *name)?;
        self.held_by_rehearsal(upgrade, self.ready(name)?)
    }

    /// Why an upgrade, as it stands, goes on without the rehearsal that the operator wants.
    pub(super) fn why_unrehearsed(&self, upgrade: &Upgrade) -> Option<String> {
        let lacks_one = |ready: &Ready| ready.rehearsal == Rehearsal::None && !ready.accepted;
        let is_wanted = self.policy.rehearse && !self.is_forced(upgrade);
        self.ready(&upgrade.name).filter(|ready| is_wanted && lacks_one(ready))?;
        let is_due = self.due().is_some_and(|(due, _)| due.name == upgrade.name);
        match self.unheld.get(&upgrade.name) {
            _ if self.rehearsing.as_ref() == Some(&upgrade.name) => {
                is_due.then(|| "its rehearsal has not ended".to_owned())
            }
            Some(unheld) => Some(format!("none could be held: {}", unheld.why)),
            None if is_due || self.makes_way() && self.is_near(upgrade) => {
                Some("its height is too near for one".to_owned())
            }
            None => None,
        }
    }

    /// The next upgrades whose binaries are ready and were not rehearsed.
    fn unrehearsed(&self) -> impl Iterator<Item = &Upgrade> {
        let is_new = |ready: &Ready| ready.rehearsal == Rehearsal::None && !ready.accepted;
        self.open().take(CLOSE).filter(move |u| self.ready(&u.name).is_some_and(is_new))
    }

    /// A rehearsal needs a node that runs undisturbed: the shadow executes its blocks.
    fn may_rehearse(&self) -> bool {
        let runs = match &self.state {
            State::Running(node) => node.mode != Mode::Dry && node.first_head.is_some(),
            _ => false,
        };
        let is_settled = self.record.upgrade.is_none() && self.back.is_none() && !self.behind;
        let is_quiet = self.wish == Wish::Run && is_settled;
        self.policy.rehearse && runs && is_quiet && !self.makes_way()
    }

    /// Whether the backup of the next upgrade may be begun at any time.
    fn makes_way(&self) -> bool {
        self.policy.backup && self.policy.backup_ahead && self.is_upgrade_close()
    }
}
