//! Backups beside a node that runs: files copied before the stop, and the upkeep after the switch.
//!
//! As an upgrade nears, its backup is looked at every few minutes, and begun when the rest is due in about twice the time
//! that it takes. So a lack of space is known hours before the stop, and holds the upgrade: the old node goes on,
//! also past its height. When the new binary has proved itself, digests are added and old backups are removed. Both wait
//! for all other work, and end at once for it.

use super::event::{Action, Ahead, Class, Failure, Job, Level, Mode, Notice, Tended};
use super::restart::backoff;
use super::state::{Node, State, Wish, Worker};
use super::{Machine, Upgrade};
use crate::name::Name;
use std::time::{Duration, Instant};

/// How long before an upgrade its backup is looked at first.
const FIRST_LOOK: Duration = Duration::from_secs(6 * 3600);
/// How long before it the backup is begun at the latest.
const BEGIN: Duration = Duration::from_secs(600);
/// The pauses between two looks: as a rule, and where the last one has failed or the backup is begun.
const PAUSE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(60));
/// The interval at which it is reported again that a backup is not possible.
const REMIND: Duration = Duration::from_secs(3600);

/// The interval at which backups are looked at for their age.
const AGED: Duration = Duration::from_secs(3600);

/// The state of backups.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Backups {
    /// That of the next upgrade.
    ahead: Option<Look>,
    /// From when on digests are due to be added and old backups to be removed.
    tend_at: Option<Instant>,
    /// How often that has failed in a row.
    failures: u32,
    /// The last backup that was made, and how.
    pub(super) last: Option<String>,
}

/// The last look at the backup of an upgrade.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
struct Look {
    name: Name,
    begun: Instant,
    /// When it was over; None while the job runs.
    ended: Option<Instant>,
    /// How long the rest takes.
    rest: Duration,
    /// Whether files were brought.
    brought: bool,
    /// Why no backup can be made, and when that was reported.
    lack: Option<(Failure, Instant)>,
}

impl Machine {
    /// Begins work on backups if there is nothing else to do.
    pub(super) fn mind_backups(&mut self, now: Instant) {
        match &self.state {
            State::Running(node) if node.mode != Mode::Dry => {}
            // It ends while the node does.
            State::Stopping { .. } | State::Leaving { .. } | State::Clearing { .. } => {
                return self.end_work_aside();
            }
            _ => return,
        }
        let begun = self.backups.ahead.as_ref().filter(|look| look.brought);
        if begun.is_some_and(|look| self.planned(&look.name).is_none()) {
            self.backups.ahead = None;
            self.tend_backups(now);
        }
        // The record on disk may still have an upgrade under way, which needs its backup; so may an order to go back.
        let is_on_disk = self.outgoing.is_none() && !self.behind;
        let is_settled = self.record.upgrade.is_none() && self.back.is_none() && is_on_disk;
        let is_quiet = self.worker == Worker::Idle && self.wish == Wish::Run && is_settled;
        if !is_quiet || !self.policy.backup {
            return;
        }
        if let Some((name, bring)) = self.wants_look(now) {
            let before = self.backups.ahead.take().filter(|look| look.name == name);
            let (rest, lack) = before.map_or((Duration::ZERO, None), |look| (look.rest, look.lack));
            let look = Look { name: name.clone(), begun: now, ended: None, rest, brought: bring, lack };
            self.backups.ahead = Some(look);
            self.start_aside(Job::Ahead { name, bring });
        } else if self.backups.tend_at.is_some_and(|at| now >= at) && !self.is_upgrade_close() {
            let begun = self.backups.ahead.as_ref().filter(|look| self.planned(&look.name).is_some());
            let draft = begun.map(|look| look.name.clone());
            self.start_aside(Job::Tend { draft, needed: self.record.leads_back() });
        }
    }

    pub(super) fn start_aside(&mut self, job: Job) {
        self.worker = Worker::Aside;
        self.actions.push(Action::Start(job));
    }

    /// Makes room for other work: what is done aside ends, and is taken up again later.
    pub(super) fn end_work_aside(&mut self) {
        if self.worker == Worker::Aside {
            self.worker = Worker::Ending;
            self.actions.push(Action::CancelJob);
        }
    }

    /// Digests are due to be added to backups, or there are too many.
    pub(super) fn tend_backups(&mut self, now: Instant) {
        self.backups.tend_at.get_or_insert(now);
    }

    /// When backups are to be looked at for their age though nothing else happens.
    pub(super) fn tend_at(&self) -> Option<Instant> {
        self.backups.tend_at.filter(|_| self.policy.backups_age)
    }

    /// The upgrade whose backup is looked at now, and whether it is begun.
    fn wants_look(&self, now: Instant) -> Option<(Name, bool)> {
        let (upgrade, left) = self.nearing().filter(|_| self.policy.backup_ahead)?;
        let look = self.backups.ahead.as_ref().filter(|look| look.name == upgrade.name);
        let bring = look.is_some_and(|look| look.lack.is_none() && left <= BEGIN.max(look.rest * 2));
        let is_time = look.is_none_or(|look| {
            let Some(ended) = look.ended else { return false };
            let pause = match &look.lack {
                Some(_) => PAUSE.1,
                // A long one is not begun again at once.
                None if look.brought => PAUSE.1.max(ended.saturating_duration_since(look.begun) * 4),
                None => PAUSE.0,
            };
            now >= ended + pause || bring && !look.brought
        });
        is_time.then(|| (upgrade.name.clone(), bring))
    }

    /// The next upgrade that is ready, and the time until its height, if that is near enough to look at its backup.
    fn nearing(&self) -> Option<(&Upgrade, Duration)> {
        let head = self.heads.height().filter(|_| self.policy.watch_height)?;
        let left = |u: &Upgrade| self.time_to(u, head);
        let near = self.open().take_while(|u| left(u) <= FIRST_LOOK);
        let next = self.forced.iter().chain(near).find(|u| self.ready(&u.name).is_some())?;
        Some((next, left(next))).filter(|(_, left)| *left <= FIRST_LOOK)
    }

    fn time_to(&self, upgrade: &Upgrade, head: u64) -> Duration {
        let blocks = u32::try_from(upgrade.height.saturating_sub(head)).unwrap_or(u32::MAX);
        self.period().saturating_mul(blocks)
    }

    /// Whether this upgrade is so near that its backup may be begun.
    pub(super) fn is_near(&self, upgrade: &Upgrade) -> bool {
        let head = self.heads.height().filter(|_| self.policy.watch_height);
        head.is_some_and(|head| self.time_to(upgrade, head) <= BEGIN)
    }

    /// Whether there is no time any more for work that can wait.
    pub(super) fn is_upgrade_close(&self) -> bool {
        self.nearing().is_some_and(|(_, left)| left <= BEGIN)
    }

    /// The look at the backup of an upgrade is over.
    pub(super) fn looked_ahead(&mut self, now: Instant, name: &Name, result: Result<Ahead, Failure>) {
        let Some(look) = self.backups.ahead.as_mut().filter(|look| look.name == *name) else { return };
        look.ended = Some(now);
        match result {
            Ok(ahead) => {
                look.rest = ahead.rest;
                if look.lack.take().is_some() {
                    self.note(Level::Info, "backup_possible", format!("name={name} again"));
                }
            }
            // Files copied before it was cancelled are kept.
            Err(failure) if failure.class == Class::Cancelled => {}
            Err(failure) => {
                let reported = look.lack.as_ref().map(|(_, at)| *at);
                let is_news = reported.is_none_or(|at| now >= at + REMIND);
                look.lack = Some((failure.clone(), reported.filter(|_| !is_news).unwrap_or(now)));
                look.brought = false;
                if is_news {
                    let text = format!("name={name} {failure}; the upgrade waits until one can be made");
                    let history = reported.is_none();
                    let notice = Notice { level: Level::Warn, event: "backup_not_possible", text, history };
                    self.actions.push(Action::Tell(notice));
                }
            }
        }
    }

    /// Why no backup can be made for an upgrade, as far as that is known.
    pub(super) fn backup_lack(&self, upgrade: &Upgrade) -> Option<String> {
        let look =
            self.backups.ahead.as_ref().filter(|look| look.name == upgrade.name && self.policy.backup)?;
        look.lack.as_ref().map(|(failure, _)| failure.to_string())
    }

    pub(super) fn tended(&mut self, now: Instant, result: Result<Tended, Failure>) {
        let Tended { verified, removed, damaged } = match result {
            Ok(tended) => tended,
            Err(failure) if failure.class == Class::Cancelled => {
                (self.backups.tend_at, self.backups.failures) = (Some(now + PAUSE.1), 0);
                return;
            }
            Err(failure) => {
                self.backups.failures = self.backups.failures.saturating_add(1);
                self.backups.tend_at = Some(now + PAUSE.0 + backoff(self.backups.failures, self.seed));
                if self.backups.failures == 1 {
                    self.warn("backups_not_tended", failure.to_string());
                }
                return;
            }
        };
        // One grows too old without any event.
        let again = self.policy.backups_age.then(|| now + AGED);
        (self.backups.tend_at, self.backups.failures) = (again, 0);
        for name in verified {
            self.log(Level::Info, "backup_verified", format!("backup={name} its digests are recorded"));
        }
        for name in removed {
            self.note(Level::Info, "backup_removed", format!("backup={name} there are newer ones"));
        }
        for damage in damaged {
            self.note(Level::Error, "backup_damaged", damage);
        }
    }

    /// Whether a lack of what a backup takes holds an upgrade that is due.
    pub(super) fn is_held_for_backup(&self, node: &mut Node, upgrade: &Upgrade) -> bool {
        let lacks = self.backup_lack(upgrade).is_some();
        if lacks {
            // The gates are asked again when there is a backup.
            node.network.holds = None;
        }
        lacks
    }
}
