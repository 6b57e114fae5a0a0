//! From "due" to the new binary, step by step, and the ways back that are still open.

use super::event::{Action, Failure, HookEnd, Job, JobEnd, Level, Notice, Ready};
use super::probation::Judgement;
use super::record::{Attempt, NodeMark, Outcome, Phase, Record, Target};
use super::restart::{ATTEMPTS, backoff};
use super::rollback::{Verdict, decide};
use super::state::{AfterRecord, Node, Preparation, Rested, State, Why, Wish, Worker};
use super::{Machine, Origin, Upgrade};
use crate::exit::Exit;
use std::time::Instant;

/// Why a stop while the node is down for an upgrade loses nothing.
const LATER: &str = "asked to stop; the upgrade goes on at the next start";

impl Machine {
    pub(super) fn drive_running(&mut self, now: Instant) {
        let State::Running(node) = &self.state else { return };
        let node = node.clone();
        match self.wish {
            Wish::Stop => return self.terminate(now, node, Why::Stop),
            Wish::Restart => return self.terminate(now, node, Why::Restart),
            Wish::Run => {}
        }
        let node = self.confirm(now, node);
        let node = self.ask_witness(now, node);
        let Some(node) = self.attend(now, node) else { return };
        if node.not_before.is_some_and(|at| now < at) {
            return;
        }
        if self.record.upgrade.is_some() { self.prove(now, node) } else { self.consider(now, node) }
    }

    /// Asks for the head again when it was seen only once, and either the next upgrade is due there or it is to
    /// be remembered.
    fn confirm(&mut self, now: Instant, node: Node) -> Node {
        let answered = node.asked.is_none_or(|at| now >= at + self.policy.poll_interval);
        let doubtful = self.seen_once(&node) || self.doubts_head(now, &node);
        if !doubtful || !answered {
            return node;
        }
        self.actions.push(Action::Confirm);
        let node = Node { asked: Some(now), ..node };
        self.state = State::Running(node.clone());
        node
    }

    pub(super) fn seen_once(&self, node: &Node) -> bool {
        self.policy.watch_height && self.next().is_some_and(|u| node.sightings(u.height) == 1)
    }

    /// Whether to switch now: an upgrade is due, its binary is ready, and nothing holds it back.
    fn consider(&mut self, now: Instant, mut node: Node) {
        let Some((upgrade, ready)) = self.due(Some(&node)) else {
            let node = self.miss(node);
            return self.stay(node);
        };
        if self.may_stop(now, &mut node, &upgrade) {
            self.inspect(Some(node), &upgrade, ready);
        } else {
            self.state = State::Running(node);
        }
    }

    /// Tells people, once, that the height of the next upgrade is there and its binary is not ready.
    fn miss(&mut self, mut node: Node) -> Node {
        let is_there = |u: &&Upgrade| self.policy.watch_height && node.sightings(u.height) == 2;
        let Some(upgrade) = self.next().filter(is_there) else { return node };
        let (name, height) = (upgrade.name.clone(), upgrade.height);
        if let Some(Preparation::Failed { detail, .. }) = self.prepared.get(&name)
            && node.missed.as_ref() != Some(&name)
        {
            let head = node.sure().unwrap_or(height);
            let text = format!("name={name} height={height} head={head} the old binary goes on: {detail}");
            self.tell(Level::Error, "upgrade_overdue", text, true);
            node.missed = Some(name);
            self.state = State::Running(node.clone());
        }
        node
    }

    pub(super) fn inspect(&mut self, node: Option<Node>, upgrade: &Upgrade, ready: Ready) {
        self.state = State::Inspecting { name: upgrade.name.clone(), node };
        self.actions.push(Action::Inspect(ready.version));
    }

    /// The upgrade to switch to now, with its binary: the one that the operator wants now, or else the next.
    /// One whose binary is not ready does not keep the other from its turn.
    pub(super) fn due(&self, node: Option<&Node>) -> Option<(Upgrade, Ready)> {
        let reached = |upgrade: &&Upgrade| match node {
            Some(node) => node.sightings(upgrade.height) == 2,
            // The last head of a node that has ended since is as good as one seen twice: it was below
            // the upgrade's height, or the upgrade was not ready, or the node ended in between.
            None => self.highest().is_some_and(|height| height >= upgrade.height),
        };
        let planned = if self.policy.watch_height { self.next().filter(reached) } else { self.triggered() };
        self.forced.iter().chain(planned).find_map(|upgrade| match self.prepared.get(&upgrade.name)? {
            Preparation::Ready(ready) => Some((upgrade.clone(), ready.clone())),
            Preparation::Working { .. } | Preparation::Failed { .. } => None,
        })
    }

    /// The same with no node running, unless an upgrade is under way already.
    pub(super) fn due_while_down(&self) -> Option<(Upgrade, Ready)> {
        if self.record.upgrade.is_none() { self.due(None) } else { None }
    }

    /// Where the node stops by itself: the upgrade that it has named in the trigger file. What others plan
    /// before that one waits for a height, of which nobody tells.
    pub(super) fn triggered(&self) -> Option<&Upgrade> {
        self.open().find(|upgrade| !self.policy.watch_height && upgrade.origin == Origin::TriggerFile)
    }

    pub(super) fn inspected(&mut self, now: Instant) {
        let State::Inspecting { node, .. } = &self.state else { return self.unexpected("inspected") };
        let node = node.clone();
        let Some((upgrade, ready)) = self.due(node.as_ref()) else {
            return self.look_away(now, node);
        };
        self.stopped = Some(now);
        let phase = if node.is_some() { Phase::Stopping } else { Phase::Stopped };
        let progress = self.progress(&upgrade, ready, phase);
        let head = self.highest().map_or("unknown".to_owned(), |head| head.to_string());
        let text = format!("name={} height={} head={head}", upgrade.name, upgrade.height);
        let news = Some(Notice::history(Level::Info, "upgrade_due", text));
        let mut record = Record { upgrade: Some(progress), ..self.record.clone() };
        self.note_head(&mut record);
        self.save_and_tell(record, node.map_or(AfterRecord::Upgrade, AfterRecord::Terminate), news);
    }

    /// The binary has changed since it was verified: it has to be prepared anew.
    pub(super) fn inspect_failed(&mut self, now: Instant, failure: Failure) {
        let State::Inspecting { name, node } = &self.state else {
            return self.unexpected("inspect_failed");
        };
        let (name, node) = (name.clone(), node.clone());
        self.warn("upgrade_changed_on_disk", format!("name={name} {failure}"));
        let retry_at = now + backoff(1, self.seed);
        self.prepared.insert(name, Preparation::Failed { failures: 1, detail: failure.detail, retry_at });
        self.look_away(now, node);
    }

    fn look_away(&mut self, now: Instant, node: Option<Node>) {
        self.state = match node {
            Some(node) => State::Running(node),
            None => {
                let until = now + backoff(self.restarts.failures(), self.seed);
                State::Resting { until, then: Rested::Start }
            }
        };
    }

    fn progress(&self, upgrade: &Upgrade, ready: Ready, phase: Phase) -> Attempt {
        let stopped_at = self.head.as_ref().map(|h| &h.block).or(self.record.highest.as_ref());
        Attempt {
            name: upgrade.name.clone(),
            height: upgrade.height,
            fork_height: upgrade.fork_height,
            data_compat: upgrade.data_compat,
            phase,
            attempt: 0,
            forgiven: 0,
            signed: false,
            from: self.record.current.clone(),
            to: ready.version,
            promised: ready.promised,
            hook: ready.hook,
            info: upgrade.info.clone(),
            stopped_at: stopped_at.cloned(),
            // A node that runs is not known to have ended uncleanly, until it has.
            unclean: phase == Phase::Stopped && self.left == NodeMark::StoppedUnclean,
            backup: None,
            reason: None,
        }
    }

    /// Takes the head into `record`, with what it says of the past.
    pub(super) fn note_head(&self, record: &mut Record) {
        let head = self.head.as_ref().map(|h| &h.block);
        if head.is_some_and(|b| record.highest.as_ref().is_none_or(|h| b.height > h.height)) {
            record.highest = head.cloned();
        }
        if let Some(progress) = &mut record.upgrade {
            progress.signed = self.signed(progress);
        }
    }

    /// The next step of the upgrade in the record, with the node down.
    pub(super) fn go_on(&mut self) {
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

    /// Whether anything has to be done between the stop and the switch.
    pub(super) fn has_work(&self, progress: &Attempt) -> bool {
        progress.hook || self.policy.backup && !progress.unclean
    }

    fn hook(&mut self, progress: Attempt, retries: u32) {
        if progress.hook { self.work(Job::Hook { progress, retries }) } else { self.switch(progress) }
    }

    fn work(&mut self, job: Job) {
        self.state = State::Working { job, begun: false };
    }

    pub(super) fn drive_working(&mut self) {
        let State::Working { job, begun } = &mut self.state else { return };
        let stop = self.wish == Wish::Stop;
        match (self.worker, *begun) {
            // The phase is durable; the next start goes on from it.
            (Worker::Idle, _) if stop => self.end(Exit::Ok, None, LATER.to_owned()),
            (Worker::Idle, false) => {
                *begun = true;
                self.worker = Worker::Busy;
                self.actions.push(Action::Start(job.clone()));
            }
            // The node is down: what was being prepared for later can wait.
            (Worker::Busy, begun) if stop || !begun => self.cancel_job(),
            (Worker::Idle | Worker::Busy | Worker::Ending, _) => {}
        }
    }

    pub(super) fn job_done(&mut self, now: Instant, end: JobEnd) {
        self.worker = Worker::Idle;
        if let JobEnd::Prepared(name, result) = end {
            return self.prepared(now, name, result);
        }
        let State::Working { job, begun: true, .. } = &self.state else { return self.unexpected("job_done") };
        if self.wish == Wish::Stop {
            // A backup, hook or restore cut short is done again from its beginning.
            return self.end(Exit::Ok, None, LATER.to_owned());
        }
        match (job.clone(), end) {
            (Job::Backup(_), JobEnd::BackedUp(Ok(backup))) => {
                self.tell(Level::Info, "backed_up", format!("backup={backup}"), true);
                let mut record = self.record.clone();
                if let Some(progress) = &mut record.upgrade {
                    progress.backup = Some(backup);
                    progress.phase = Phase::BackedUp;
                }
                self.save(record, AfterRecord::Upgrade);
            }
            (Job::Backup(_), JobEnd::BackedUp(Err(failure))) => {
                self.give_up(now, Outcome::Failed, format!("backup: {failure}"));
            }
            (Job::Hook { progress, retries }, JobEnd::Hooked(end)) => {
                self.hooked(now, progress, retries, end)
            }
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

    fn hooked(&mut self, now: Instant, progress: Attempt, retries: u32, end: HookEnd) {
        match end {
            HookEnd::Continue => self.switch(progress),
            HookEnd::Retry(_) if retries < self.policy.hook_retries => self.hook(progress, retries + 1),
            HookEnd::Retry(said) => {
                let tries = retries + 1;
                let detail = format!("pre-upgrade hook asked for another try {tries} times: {said}");
                self.give_up(now, Outcome::Failed, detail);
            }
            HookEnd::Abort(said) => {
                self.give_up(now, Outcome::Aborted, format!("pre-upgrade hook asked to abort: {said}"));
            }
            HookEnd::Failed(failure) => {
                self.give_up(now, Outcome::Failed, format!("pre-upgrade hook: {failure}"));
            }
        }
    }

    /// Ends an upgrade before its switch: the old binary runs again at once, unless it must not.
    pub(super) fn give_up(&mut self, now: Instant, outcome: Outcome, detail: String) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("give_up") };
        if self.fork_reached(progress, now) {
            return self.halt(format!("upgrade {}: {detail}; and the chain is at the fork", progress.name));
        }
        let text = format!("name={} outcome={outcome} {detail}", progress.name);
        let news = Notice::history(Level::Error, "upgrade_ended", text);
        let mut record = self.record.clone();
        record.end(outcome, detail);
        self.save_and_tell(record, AfterRecord::Start(None), Some(news));
    }

    /// Points the link at the new binary. With nothing to wait for, the attempt that follows is
    /// recorded in the same breath: the node is down, and each write costs milliseconds.
    fn switch(&mut self, progress: Attempt) {
        let at_once = self.policy.restart_after_upgrade && self.policy.restart_delay.is_zero();
        let target = progress.to.target.clone();
        let progress = Attempt { phase: Phase::Trying, attempt: u32::from(at_once), ..progress };
        let node = if at_once { NodeMark::Running } else { self.record.node };
        let silent = self.starts_silent(self.record.node == NodeMark::StoppedUnclean);
        let record = Record { upgrade: Some(progress), node, silent, ..self.record.clone() };
        self.save(record, AfterRecord::Link(target));
    }

    pub(super) fn linked(&mut self, now: Instant) {
        let State::Linking { back } = self.state else { return self.unexpected("linked") };
        if back {
            let Some(progress) = &self.record.upgrade else { return self.unexpected("linked") };
            let detail = progress.reason.clone().unwrap_or_default();
            let outcome = if progress.attempt == 0 { Outcome::Failed } else { Outcome::RolledBack };
            let text = format!("name={} outcome={outcome} {detail}", progress.name);
            let news = Notice::history(Level::Error, "upgrade_ended", text);
            let mut record = self.record.clone();
            // Of data that was put back nobody will know any more when the node is started.
            record.silent = self.starts_silent(false);
            record.end(outcome, detail);
            return self.save_and_tell(record, AfterRecord::Start(None), Some(news));
        }
        self.tell(Level::Info, "switched", format!("current={}", self.version().target), true);
        if self.record.upgrade.as_ref().is_some_and(|p| p.attempt > 0) {
            // The attempt was recorded with the switch.
            self.spawn();
        } else if self.policy.restart_after_upgrade {
            self.state = State::Resting { until: now + self.policy.restart_delay, then: Rested::Start };
        } else {
            self.end(Exit::Ok, None, "switched; daemon_restart_after_upgrade is off".to_owned());
        }
    }

    pub(super) fn link_failed(&mut self, now: Instant, failure: &Failure) {
        let State::Linking { back } = self.state else { return self.unexpected("link_failed") };
        if back {
            return self.halt(format!("current cannot be switched back: {failure}"));
        }
        if let Some(progress) = &mut self.record.upgrade {
            progress.attempt = 0;
            self.record.node = self.left;
        }
        // The old link stands or, if only its fsync failed, either may; the way back settles it.
        self.revert_unless_at_fork(now, format!("current cannot be switched: {failure}"));
    }

    /// Takes the way back from a new binary that was never executed.
    pub(super) fn revert_unless_at_fork(&mut self, now: Instant, reason: String) {
        match &self.record.upgrade {
            Some(progress) if self.fork_reached(progress, now) => {
                self.halt(format!("upgrade {}: {reason}; and the chain is at the fork", progress.name));
            }
            Some(_) | None => self.revert(reason),
        }
    }

    /// The new binary has failed once more: again after a while, or back, or halt.
    pub(super) fn attempt_failed(&mut self, now: Instant, reason: String, environment: Option<String>) {
        let Some(progress) = self.record.upgrade.clone() else { return self.unexpected("attempt_failed") };
        let attempt = progress.attempt.saturating_sub(progress.forgiven);
        if let Some(fault) = environment {
            self.warn("environment_fault", format!("{fault}: {reason}; costs no attempt"));
            self.restarts.fail(None, now);
            let progress = Attempt { forgiven: progress.forgiven.saturating_add(1), ..progress };
            let record = Record { upgrade: Some(progress), ..self.record.clone() };
            let wait = backoff(self.restarts.failures(), self.seed);
            return self.save(record, AfterRecord::Start(Some(now + wait)));
        }
        self.tell(Level::Error, "attempt_failed", format!("attempt={attempt} of={ATTEMPTS} {reason}"), true);
        if attempt < ATTEMPTS {
            let wait = backoff(attempt, self.seed);
            return self.save(self.record.clone(), AfterRecord::Start(Some(now + wait)));
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
        let progress = Attempt { phase: Phase::Reverting, reason: Some(reason), ..progress };
        let record = Record { upgrade: Some(progress), ..self.record.clone() };
        self.save(record, AfterRecord::Upgrade);
    }

    fn go_back(&mut self, progress: Attempt) {
        if progress.restores() {
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
            Judgement::Good(detail) => {
                let Some(progress) = &self.record.upgrade else { return };
                let text = format!("name={} outcome={} {detail}", progress.name, Outcome::Applied);
                let current = progress.to.clone();
                let news = Notice::history(Level::Info, "upgrade_ended", text);
                let then = AfterRecord::Applied(node, Box::new(progress.clone()));
                self.restarts.forgive();
                let mut record = Record { current, ..self.record.clone() };
                record.end(Outcome::Applied, detail);
                self.note_head(&mut record);
                self.save_and_tell(record, then, Some(news));
            }
            Judgement::Trace => {
                let mut record = self.record.clone();
                self.note_head(&mut record);
                if let Some(progress) = &mut record.upgrade {
                    progress.signed |= self.may_seal_unheard(now, &node);
                }
                self.save(record, AfterRecord::Run(node));
            }
            Judgement::NotYet => {}
            Judgement::Overdue(detail) if !node.overdue => {
                self.warn("probation_overdue", detail);
                self.state = State::Running(Node { overdue: true, ..node });
            }
            Judgement::Overdue(_) => {}
            Judgement::Bad(reason) => {
                self.warn("unproven", reason.clone());
                self.terminate(now, node, Why::Unproven(reason));
            }
        }
    }
}
