//! From "due" to the new binary, step by step, and the ways back that are still open.

use super::event::{Action, Failure, HookEnd, Job, JobEnd, Level, Ready};
use super::journal::{NodeMark, Outcome, Phase, Progress, Record, Target};
use super::proof::Proof;
use super::restart::{ATTEMPTS, backoff};
use super::rollback::{Verdict, decide};
use super::state::{Node, Preparation, Recorded, Rested, State, Why, Wish};
use super::{Machine, Origin, Upgrade};
use crate::exit::Exit;
use std::time::Instant;

impl Machine {
    pub(super) fn drive_running(&mut self, now: Instant) {
        let State::Running(node) = &self.state else { return };
        let node = node.clone();
        match self.wish {
            Wish::Stop => return self.terminate(now, node, Why::Stop),
            Wish::Restart => {
                self.wish = Wish::Run;
                return self.terminate(now, node, Why::Restart);
            }
            Wish::Run => {}
        }
        if self.record.upgrade.is_some() { self.prove(now, node) } else { self.consider(now, node) }
    }

    /// Whether to switch now: an upgrade is due, its binary is ready, and nothing holds it back.
    fn consider(&mut self, now: Instant, node: Node) {
        let silent = node.asked.is_some_and(|at| now >= at + self.policy.poll_interval);
        if node.sightings == 1 && silent {
            self.actions.push(Action::Confirm);
            self.state = State::Running(Node { asked: Some(now), ..node });
            return;
        }
        if node.not_before.is_some_and(|at| now < at) {
            return;
        }
        if let Some((_, ready)) = self.due(Some(&node)) {
            self.state = State::Inspecting { node };
            self.actions.push(Action::Inspect(ready.version));
        }
    }

    /// The upgrade to switch to now, with its binary.
    pub(super) fn due(&self, node: Option<&Node>) -> Option<(Upgrade, Ready)> {
        let upgrade = self.next()?;
        let seen = || match (self.policy.watch_height, node) {
            (true, Some(node)) => node.sightings >= 2,
            // The last head of a node that has ended since is as good as one seen twice: it was below
            // the upgrade's height, or the upgrade was not ready, or the node ended in between.
            (true, None) => self.head.as_ref().is_some_and(|h| h.block.height >= upgrade.height),
            (false, _) => upgrade.origin == Origin::TriggerFile,
        };
        if self.forced.is_none() && !seen() {
            return None;
        }
        match self.prepared.get(&upgrade.name)? {
            Preparation::Ready(ready) => Some((upgrade.clone(), ready.clone())),
            Preparation::Working { .. } | Preparation::Failed { .. } => None,
        }
    }

    pub(super) fn due_while_down(&self) -> Option<(Upgrade, Ready)> {
        self.due(None)
    }

    /// Whether the chain is one whose node stops by itself, and it has named the upgrade to stop for.
    pub(super) fn stops_by_itself(&self) -> bool {
        !self.policy.watch_height && self.next().is_some_and(|u| u.origin == Origin::TriggerFile)
    }

    pub(super) fn inspected(&mut self, now: Instant) {
        let State::Inspecting { node } = &self.state else { return self.unexpected("inspected") };
        let node = node.clone();
        let Some((upgrade, ready)) = self.due(Some(&node)) else {
            self.state = State::Running(node);
            return;
        };
        self.stopped = Some(now);
        let progress = self.progress(&upgrade, ready, Phase::Stopping, false);
        let head = self.head.as_ref().map_or(0, |h| h.block.height);
        let text = format!("name={} height={} head={head}", upgrade.name, upgrade.height);
        self.tell(Level::Info, "upgrade_due", text, true);
        let mut record = Record { upgrade: Some(progress), ..self.record.clone() };
        self.note_highest(&mut record);
        self.save(record, Recorded::Terminate(node));
    }

    pub(super) fn progress(&self, upgrade: &Upgrade, ready: Ready, phase: Phase, unclean: bool) -> Progress {
        Progress {
            name: upgrade.name.clone(),
            height: upgrade.height,
            fork_height: upgrade.fork_height,
            data_compat: upgrade.data_compat,
            phase,
            attempt: 0,
            from: self.record.current.clone(),
            to: ready.version,
            hook: ready.hook,
            info: upgrade.info.clone(),
            stopped_at: self.head.as_ref().map(|h| h.block.clone()),
            unclean,
            backup: None,
            reason: None,
        }
    }

    /// Takes the highest head seen into `record`.
    pub(super) fn note_highest(&self, record: &mut Record) {
        let head = self.head.as_ref().map(|h| &h.block);
        if head.is_some_and(|b| record.highest.as_ref().is_none_or(|h| b.height > h.height)) {
            record.highest = head.cloned();
        }
    }

    /// The next step of the upgrade in the record, with the node down.
    pub(super) fn go_on(&mut self) {
        self.forced = None;
        let Some(progress) = self.record.upgrade.clone() else { return self.unexpected("no upgrade") };
        match progress.phase {
            Phase::Stopping | Phase::Stopped if progress.unclean || !self.policy.backup => {
                self.hook(progress, 0)
            }
            Phase::Stopping | Phase::Stopped => self.work(Job::Backup(progress)),
            Phase::BackedUp => self.hook(progress, 0),
            Phase::Trying => self.switch(progress),
            Phase::Reverting => self.go_back(progress),
        }
    }

    fn hook(&mut self, progress: Progress, retries: u32) {
        if progress.hook { self.work(Job::Hook { progress, retries }) } else { self.switch(progress) }
    }

    fn work(&mut self, job: Job) {
        self.state = State::Working { job, begun: false, cancelled: false };
    }

    pub(super) fn drive_working(&mut self) {
        let State::Working { job, begun, cancelled } = &mut self.state else { return };
        if self.wish == Wish::Stop && !self.busy {
            // The phase is durable; the next start goes on from it.
            return self.end(
                Exit::Ok,
                None,
                "asked to stop; the upgrade goes on at the next start".to_owned(),
            );
        }
        if self.wish == Wish::Stop && !*cancelled {
            *cancelled = true;
            self.actions.push(Action::CancelJob);
        }
        if !self.busy && !*begun {
            *begun = true;
            self.busy = true;
            self.actions.push(Action::Start(job.clone()));
        }
    }

    pub(super) fn job_done(&mut self, now: Instant, end: JobEnd) {
        self.busy = false;
        if let JobEnd::Prepared(name, result) = end {
            return self.prepared(now, name, result);
        }
        let State::Working { job, begun: true, .. } = &self.state else { return self.unexpected("job_done") };
        if self.wish == Wish::Stop {
            // A backup, hook or restore cut short is done again from its beginning.
            return self.end(
                Exit::Ok,
                None,
                "asked to stop; the upgrade goes on at the next start".to_owned(),
            );
        }
        match (job.clone(), end) {
            (Job::Backup(_), JobEnd::BackedUp(Ok(backup))) => {
                self.tell(Level::Info, "backed_up", format!("backup={backup}"), true);
                let mut record = self.record.clone();
                if let Some(progress) = &mut record.upgrade {
                    progress.backup = Some(backup);
                    progress.phase = Phase::BackedUp;
                }
                self.save(record, Recorded::Upgrade);
            }
            (Job::Backup(_), JobEnd::BackedUp(Err(failure))) => {
                self.give_up(Outcome::Failed, format!("backup: {failure}"));
            }
            (Job::Hook { progress, retries }, JobEnd::Hooked(end)) => self.hooked(progress, retries, end),
            (Job::Restore(_), JobEnd::Restored(Ok(()))) => {
                self.tell(
                    Level::Warn,
                    "restored",
                    "the data is as it was before the upgrade".to_owned(),
                    true,
                );
                self.link_back();
            }
            (Job::Restore(_), JobEnd::Restored(Err(failure))) => {
                self.halt(format!("the backup cannot be restored: {failure}"));
            }
            (Job::Prepare(_) | Job::Backup(_) | Job::Hook { .. } | Job::Restore(_), _) => {
                self.unexpected("job_done")
            }
        }
    }

    fn hooked(&mut self, progress: Progress, retries: u32, end: HookEnd) {
        match end {
            HookEnd::Continue => self.switch(progress),
            HookEnd::Retry(_) if retries < self.policy.hook_retries => self.hook(progress, retries + 1),
            HookEnd::Retry(said) => {
                let tries = retries + 1;
                self.give_up(
                    Outcome::Failed,
                    format!("pre-upgrade hook asked for another try {tries} times: {said}"),
                );
            }
            HookEnd::Abort(said) => {
                self.give_up(Outcome::Aborted, format!("pre-upgrade hook asked to abort: {said}"))
            }
            HookEnd::Failed(failure) => self.give_up(Outcome::Failed, format!("pre-upgrade hook: {failure}")),
        }
    }

    /// Ends an upgrade before its switch: the old binary runs again at once, unless it must not.
    pub(super) fn give_up(&mut self, outcome: Outcome, detail: String) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("give_up") };
        if progress.past_fork() {
            return self.halt(format!("upgrade {}: {detail}; and the chain is at the fork", progress.name));
        }
        let text = format!("name={} outcome={outcome} {detail}", progress.name);
        self.tell(Level::Error, "upgrade_ended", text, true);
        let mut record = self.record.clone();
        record.end(outcome, detail);
        self.save(record, Recorded::Start(None));
    }

    /// Points the link at the new binary. With nothing to wait for, the attempt that follows is
    /// recorded in the same breath: the node is down, and each write costs milliseconds.
    fn switch(&mut self, progress: Progress) {
        let at_once = self.policy.restart_after_upgrade && self.policy.restart_delay.is_zero();
        let target = progress.to.target.clone();
        let progress = Progress { phase: Phase::Trying, attempt: u32::from(at_once), ..progress };
        let node = if at_once { NodeMark::Running } else { self.record.node };
        let record = Record { upgrade: Some(progress), node, ..self.record.clone() };
        self.save(record, Recorded::Link { target, back: false });
    }

    pub(super) fn linked(&mut self, now: Instant) {
        let State::Linking { back } = self.state else { return self.unexpected("linked") };
        if back {
            let Some(progress) = &self.record.upgrade else { return self.unexpected("linked") };
            let detail = progress.reason.clone().unwrap_or_default();
            let text = format!("name={} outcome={} {detail}", progress.name, Outcome::RolledBack);
            self.tell(Level::Error, "upgrade_ended", text, true);
            let mut record = self.record.clone();
            record.end(Outcome::RolledBack, detail);
            return self.save(record, Recorded::Start(None));
        }
        self.tell(Level::Info, "switched", format!("current={}", self.version().target), true);
        if !self.policy.restart_after_upgrade {
            return self.end(Exit::Ok, None, "switched; daemon_restart_after_upgrade is off".to_owned());
        }
        match self.record.upgrade.as_ref().map(|p| p.attempt) {
            Some(0) => {
                self.state = State::Resting { until: now + self.policy.restart_delay, then: Rested::Start }
            }
            _ => self.spawn(),
        }
    }

    pub(super) fn link_failed(&mut self, failure: Failure) {
        let State::Linking { back } = self.state else { return self.unexpected("link_failed") };
        // The old link stands or, if only its fsync failed, either may; the way back settles it.
        if back {
            self.halt(format!("current cannot be switched back: {failure}"))
        } else {
            self.revert(failure.detail)
        }
    }

    /// The new binary has failed once more: again after a while, or back, or halt.
    pub(super) fn attempt_failed(&mut self, now: Instant, reason: String, environment: Option<String>) {
        let Some(progress) = self.record.upgrade.clone() else { return self.unexpected("attempt_failed") };
        let attempt = progress.attempt;
        if let Some(fault) = environment {
            self.warn("environment_fault", format!("{fault}: {reason}; costs no attempt"));
            self.restarts.fail(None, now);
            let progress = Progress { attempt: attempt.saturating_sub(1), ..progress };
            let record = Record { upgrade: Some(progress), ..self.record.clone() };
            let wait = backoff(self.restarts.failures(), self.seed);
            return self.save(record, Recorded::Start(Some(now + wait)));
        }
        self.tell(Level::Error, "attempt_failed", format!("attempt={attempt} of={ATTEMPTS} {reason}"), true);
        if attempt < ATTEMPTS {
            let wait = backoff(attempt, self.seed);
            return self.save(self.record.clone(), Recorded::Start(Some(now + wait)));
        }
        match decide(&progress, self.traces(now)) {
            Verdict::Old | Verdict::RestoreThenOld => self.revert(reason),
            Verdict::Halt(why) => {
                self.halt(format!("upgrade {} failed {attempt} times ({reason}), and {why}", progress.name))
            }
        }
    }

    /// Takes the way back to the old binary, durably.
    pub(super) fn revert(&mut self, reason: String) {
        let Some(progress) = self.record.upgrade.clone() else { return self.unexpected("revert") };
        let progress = Progress { phase: Phase::Reverting, reason: Some(reason), ..progress };
        let record = Record { upgrade: Some(progress), ..self.record.clone() };
        self.save(record, Recorded::Upgrade);
    }

    fn go_back(&mut self, progress: Progress) {
        let has_run = progress.attempt > 0;
        if has_run && !progress.data_compat && progress.backup.is_some() {
            self.work(Job::Restore(progress));
        } else {
            self.link_back();
        }
    }

    fn link_back(&mut self) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("link_back") };
        let target: Target = progress.from.target.clone();
        self.state = State::Linking { back: true };
        self.actions.push(Action::Link(target));
    }

    /// Judges a running new binary: good, not yet, or to be stopped.
    fn prove(&mut self, now: Instant, node: Node) {
        match self.judge(now, &node) {
            Proof::Good(detail) => {
                let Some(progress) = &self.record.upgrade else { return };
                let text = format!("name={} outcome={} {detail}", progress.name, Outcome::Applied);
                let current = progress.to.clone();
                self.tell(Level::Info, "upgrade_ended", text, true);
                self.restarts.forgive();
                let mut record = Record { current, ..self.record.clone() };
                record.end(Outcome::Applied, detail);
                self.note_highest(&mut record);
                self.save(record, Recorded::Run(node));
            }
            Proof::Trace => {
                let mut record = self.record.clone();
                self.note_highest(&mut record);
                self.save(record, Recorded::Run(node));
            }
            Proof::NotYet => {}
            Proof::Overdue(detail) if !node.overdue => {
                self.warn("probation_overdue", detail);
                self.state = State::Running(Node { overdue: true, ..node });
            }
            Proof::Overdue(_) => {}
            Proof::Bad(reason) => {
                self.warn("unproven", reason.clone());
                self.terminate(now, node, Why::Unproven(reason));
            }
        }
    }
}
