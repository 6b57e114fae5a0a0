//! From "due" to the new binary, step by step, and the ways back that are still open.

use super::event::{Action, BackupMade, Failure, HookEnd, Job, JobEnd, Level, Mode, Notice, Status};
use super::probation::Judgement;
use super::record::{Attempt, NodeMark, Outcome, Phase, Ready, Record, Rehearsal, Target};
use super::restart::{ATTEMPTS, backoff};
use super::rollback::{WayOn, decide};
use super::state::{AfterRecord, Next, Node, Preparation, Rested, Sent, State, Why, Wish, Worker};
use super::validator::is_in_set;
use super::{Machine, Upgrade};
use crate::exit::Exit;
use std::time::{Duration, Instant};

/// How often the head is asked for again at the first contact.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// No program ends itself by this signal: an operator, or the kernel for want of memory, has killed it.
pub(super) const SIGKILL: i32 = 9;
/// Why a stop while the node is down for an upgrade loses nothing.
const LATER: &str = "asked to stop; the upgrade goes on at the next start";

impl Machine {
    pub(super) fn drive_running(&mut self, now: Instant) {
        let Some(mut node) = self.take_running() else { return };
        let next = self.run(now, &mut node);
        self.follow(now, node, next);
    }

    /// Takes the running node out of the state; [`follow`](Self::follow) puts it back.
    pub(super) fn take_running(&mut self) -> Option<Node> {
        match std::mem::replace(&mut self.state, State::Born) {
            State::Running(node) => Some(node),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Does what follows for a running node that was taken out of the state.
    pub(super) fn follow(&mut self, now: Instant, node: Node, next: Next) {
        match next {
            Next::Stay => self.state = State::Running(node),
            Next::Stop(why) => self.terminate(now, node, why),
            Next::Inspect(upgrade, ready) => self.inspect(Some(node), &upgrade, ready),
            Next::Save { record, news, applied } => {
                if self.may_record(now, &node) {
                    self.send(*record, applied.map_or(Sent::Nothing, Sent::Applied), news);
                }
                self.state = State::Running(node);
            }
        }
    }

    /// Looks at everything that a running node may call for, the most urgent first.
    fn run(&mut self, now: Instant, node: &mut Node) -> Next {
        match self.wish {
            Wish::Stop => return Next::Stop(Why::Stop),
            Wish::Restart if node.mode == Mode::Dry => {}
            Wish::Restart if !self.waits_to_leave(now, node) => return Next::Stop(Why::Restart),
            Wish::Restart | Wish::Run => {}
        }
        if self.behind && self.may_record(now, node) {
            return Next::record(self.record.clone());
        }
        if let Some(next) = self.record_order(now, node) {
            return next;
        }
        if node.mode == Mode::Dry {
            return self.try_dry(now, node);
        }
        if let Some(next) = self.identify(now, node) {
            return next;
        }
        self.ask_for_second_head(now, node);
        self.ask_network(now, node);
        self.ask_chain_check(now, node);
        self.report_symptoms(now, node);
        if let Some(next) = self.attend(now, node) {
            return next;
        }
        if !self.may_record(now, node) || self.wish == Wish::Restart {
            return Next::Stay;
        }
        if let Some(order) = self.back.clone() {
            return self.wait_to_go_back(now, node, &order);
        }
        if self.record.upgrade.is_some() {
            return self.prove(now, node);
        }
        self.report_deadline(node);
        self.note_forks_followed(now, node).unwrap_or_else(|| self.consider(now, node))
    }

    /// At the first contact the head is asked for again: one answer decides nothing.
    fn ask_for_second_head(&mut self, now: Instant, node: &mut Node) {
        let again = self.heads.asks_again_at(self.rate()).filter(|at| now >= *at);
        if again.is_some() && node.asked.is_none_or(|at| now >= at + ASK_AGAIN) && self.policy.watch_height {
            node.asked = Some(now);
            self.actions.push(Action::Confirm);
        }
    }

    /// An old binary that stands at a fork while the network goes on cannot follow it: that is remembered with the
    /// upgrade that has failed, until a block beyond the fork counts.
    fn note_forks_followed(&self, now: Instant, node: &Node) -> Option<Next> {
        let head = &node.head.as_ref()?.block;
        let counts = head.hash.as_ref().is_some_and(|hash| self.heads.has(head.height, hash));
        let frozen = self.is_frozen(now, node);
        let differs = |cannot_follow: bool, fork: u64| {
            if cannot_follow {
                counts && head.height > fork
            } else {
                frozen && (head.height == fork || head.height.saturating_add(1) == fork)
            }
        };
        let at = self.record.ended.iter().position(|e| {
            e.outcome != Outcome::Applied && e.fork_height.is_some_and(|fork| differs(e.cannot_follow, fork))
        })?;
        let mut record = self.record.clone();
        let ended = &mut record.ended[at];
        ended.cannot_follow = !ended.cannot_follow;
        Some(Next::record(record))
    }

    pub(super) fn inspect(&mut self, node: Option<Node>, upgrade: &Upgrade, ready: Ready) {
        self.state = State::Inspecting { name: upgrade.name.clone(), node };
        self.actions.push(Action::Inspect(ready.version));
    }

    pub(super) fn inspected(&mut self, now: Instant) {
        let State::Inspecting { node, .. } = &self.state else { return self.unexpected("inspected") };
        let mut node = node.clone();
        let Some((upgrade, ready)) = self.due().filter(|_| self.back.is_none()) else {
            return self.look_away(now, node);
        };
        // The look at the binary may have taken its time.
        if node.as_mut().is_some_and(|node| !self.may_stop(now, node, &upgrade)) {
            return self.look_away(now, node);
        }
        self.stopped = Some(now);
        let phase = if node.is_some() { Phase::Stopping } else { Phase::Stopped };
        let survey = node.as_ref().and_then(|node| node.network.survey.as_ref());
        let own = survey.filter(|survey| is_in_set(survey)).and_then(|survey| survey.me);
        let progress = Attempt { own, ..self.progress(&upgrade, ready, phase) };
        let head = self.heads.height().map_or("unknown".to_owned(), |head| head.to_string());
        let text = format!("name={} height={} head={head}", upgrade.name, upgrade.height);
        let news = Some(Notice::to_history(Level::Info, "upgrade_due", text));
        if let Some(why) = self.why_unrehearsed(&upgrade) {
            let text = format!("name={} it goes on without a rehearsal: {why}", upgrade.name);
            self.note(Level::Warn, "unrehearsed", text);
        }
        let record = Record { upgrade: Some(progress), ..self.record.clone() };
        if node.is_none() {
            self.leave_own_block_at_the_fork();
        }
        (self.switched, self.departure.unsigned_to) = (None, None);
        match node {
            Some(node) => {
                self.state = State::Running(node);
                self.send(record, Sent::Stop, news);
            }
            None => self.save_with_news(record, AfterRecord::Upgrade, news),
        }
    }

    /// The binary has changed since it was verified: it must be prepared anew.
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
        let stopped_at = self.heads.block();
        // The block at the fork may rightly be another one afterwards.
        let own = self.own_block_at_a_fork();
        let fork = upgrade.fork_height.into_iter().chain(own).min();
        let last = stopped_at.map(|block| fork.map_or(block.height, |fork| block.height.min(fork - 1)));
        let witness = last.and_then(|height| self.heads.block_at(height));
        Attempt {
            dry_run: ready.rehearsal == Rehearsal::Passed,
            forced: self.is_forced(upgrade),
            promised: ready.promised,
            hook: ready.hook,
            stopped_at: stopped_at.cloned(),
            witness: witness.cloned(),
            // A node that runs is not known to have ended uncleanly, until it has.
            unclean: phase == Phase::Stopped && self.left == NodeMark::StoppedUnclean,
            ..Attempt::new(upgrade, self.record.current.clone(), ready.version, phase)
        }
    }

    /// The next step of the upgrade in the record, with the node down.
    pub(super) fn go_on(&mut self) {
        let Some(progress) = self.record.upgrade.clone() else { return self.unexpected("no upgrade") };
        match progress.phase {
            Phase::Stopping | Phase::Stopped | Phase::BackedUp => match self.work_before_switch(&progress) {
                Some(job) => self.work(job),
                None => self.switch(progress),
            },
            Phase::Trying => self.switch(progress),
            Phase::Reverting => self.go_back(progress),
        }
    }

    /// The next step of the upgrade in `record`, which is made durable first, with two exceptions that save the node the time
    /// of a write. Where the switch follows at once, its record has all that this one has.
    ///
    /// A backup begins at once, and the record is written beside it: it changes nothing but its own hidden directory, and
    /// nothing follows from its end but a record. After a crash until then the stop counts as unfinished, as it does without
    /// a backup: the old node is started, its end counts as unclean, and the next start sweeps what was copied. A backup
    /// that was finished is found again only where the data has not changed since.
    pub(super) fn go_on_with(&mut self, record: Record) {
        match record.upgrade.as_ref().and_then(|progress| self.work_before_switch(progress)) {
            None => {
                self.record = record;
                self.go_on();
            }
            Some(job @ Job::Backup(_)) if self.worker == Worker::Idle => {
                self.start_job(&job);
                self.save(record, AfterRecord::Backup(Box::new(job)));
            }
            Some(_) => self.save(record, AfterRecord::Upgrade),
        }
    }

    /// The work with the node down that comes before the switch, where there is some.
    fn work_before_switch(&self, progress: &Attempt) -> Option<Job> {
        let needs_backup = self.policy.backup && !progress.unclean && progress.phase != Phase::BackedUp;
        if needs_backup {
            return Some(Job::Backup(progress.clone()));
        }
        progress.hook.then(|| Job::Hook { progress: progress.clone(), retries: 0 })
    }

    fn work(&mut self, job: Job) {
        self.state = State::Working { job, begun: false };
    }

    /// Starts a job of an upgrade, for which the worker is free.
    fn start_job(&mut self, job: &Job) {
        self.worker = Worker::Busy;
        self.actions.push(Action::Start(job.clone()));
    }

    pub(super) fn drive_working(&mut self) {
        let State::Working { job, begun } = &mut self.state else { return };
        let (stop, back) = (self.wish == Wish::Stop, self.back.is_some());
        match (self.worker, *begun) {
            // The phase is durable; the next start goes on from it.
            (Worker::Idle, _) if stop => self.end(Exit::Ok, None, LATER.to_owned()),
            (Worker::Idle, false) if back => drop(self.goes_back()),
            (Worker::Idle, false) => {
                *begun = true;
                let job = job.clone();
                self.start_job(&job);
            }
            // The node is down: what was being prepared for later can wait.
            (Worker::Busy, begun) if stop || back || !begun => self.cancel_job(),
            (Worker::Aside, _) => self.end_work_aside(),
            (Worker::Idle | Worker::Busy | Worker::Ending, _) => {}
        }
    }

    pub(super) fn job_done(&mut self, now: Instant, end: JobEnd) {
        self.worker = Worker::Idle;
        let end = match end {
            JobEnd::Prepared(name, result) => return self.prepared(now, name, result),
            JobEnd::Rehearsed(name, result) => return self.rehearsed(now, &name, result),
            JobEnd::Ahead(name, result) => return self.looked_ahead(now, &name, result),
            JobEnd::Tended(result) => return self.tended(now, result),
            end => end,
        };
        if let State::Resting { then: Rested::Record(record, AfterRecord::Backup(job), _), .. } = &self.state
        {
            let (record, job) = (Record::clone(record), Job::clone(job));
            // The next record has all that this one has.
            self.record = record;
            self.state = State::Working { job, begun: true };
        }
        let State::Working { job, begun: true, .. } = &self.state else { return self.unexpected("job_done") };
        if self.wish == Wish::Stop {
            // A backup, hook or restore cut short is done again from its beginning.
            return self.end(Exit::Ok, None, LATER.to_owned());
        }
        let job = job.clone();
        if self.goes_back() {
            return;
        }
        if self.back.is_some() {
            // The order waits for the journal, and the switch must not pass it.
            return self.save(self.record.clone(), AfterRecord::Upgrade);
        }
        match (job, end) {
            (Job::Backup(_), JobEnd::BackedUp(result)) => self.backed_up(now, result),
            (Job::Hook { progress, retries }, JobEnd::Hooked(end)) => {
                self.hooked(now, progress, retries, end)
            }
            (Job::Restore(_), JobEnd::Restored(Ok(()))) => {
                self.note(Level::Warn, "restored", "the data is as it was before the upgrade");
                self.link_back();
            }
            (Job::Restore(_), JobEnd::Restored(Err(failure))) => {
                self.halt(format!("the backup cannot be restored: {failure}"));
            }
            // The end of another job.
            _ => self.unexpected("job_done"),
        }
    }

    fn backed_up(&mut self, now: Instant, result: Result<BackupMade, Failure>) {
        let backup = match result {
            Ok(backup) => backup,
            Err(failure) => {
                let failure = self.cause_of_no_backup(failure);
                return self.set_back(now, "backup", &failure);
            }
        };
        self.tend_backups(now);
        let text = format!("backup={} {}", backup.name, backup.how);
        self.backups.last = Some(text.clone());
        self.note(Level::Info, "backed_up", text);
        let mut record = self.record.clone();
        if let Some(progress) = &mut record.upgrade {
            (progress.backup, progress.phase) = (Some(backup.name), Phase::BackedUp);
        }
        self.go_on_with(record);
    }

    fn hooked(&mut self, now: Instant, progress: Attempt, retries: u32, end: HookEnd) {
        match end {
            HookEnd::Continue => self.switch(progress),
            HookEnd::Retry(_) if retries < self.policy.hook_retries => {
                self.work(Job::Hook { progress, retries: retries + 1 });
            }
            HookEnd::Retry(said) => {
                let tries = retries + 1;
                let detail = format!("pre-upgrade hook asked for another try {tries} times: {said}");
                self.give_up(now, Outcome::Failed, detail);
            }
            HookEnd::Abort(said) => {
                self.give_up(now, Outcome::Aborted, format!("pre-upgrade hook asked to abort: {said}"));
            }
            HookEnd::Failed(failure) => self.set_back(now, "pre-upgrade hook", &failure),
        }
    }

    /// Ends an upgrade before its switch: the old binary runs again at once, unless it must not.
    pub(super) fn give_up(&mut self, now: Instant, outcome: Outcome, detail: String) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("give_up") };
        if self.fork_reached(progress, now) {
            return self.halt(format!("upgrade {}: {detail}; and the chain is at the fork", progress.name));
        }
        let (record, news) = self.end_of(progress, Level::Error, outcome, detail);
        self.save_with_news(record, AfterRecord::Start(None), Some(news));
    }

    /// The record after the end of the upgrade that is under way, and the news of it.
    fn end_of(&self, attempt: &Attempt, level: Level, outcome: Outcome, detail: String) -> (Record, Notice) {
        let text = format!("name={} outcome={outcome} {detail}", attempt.name);
        let mut record = self.record.clone();
        if outcome == Outcome::Applied {
            record.current = attempt.to.clone();
        }
        record.end(outcome, detail);
        (record, Notice::to_history(level, "upgrade_ended", text))
    }

    /// Points the link at the new binary. With nothing to wait for, the attempt that follows is
    /// recorded with it: the node is down, and each write costs milliseconds.
    fn switch(&mut self, progress: Attempt) {
        let target = progress.to.target.clone();
        let progress = Attempt { phase: Phase::Trying, attempt: 0, ..progress };
        let record = Record { upgrade: Some(progress), ..self.record.clone() };
        let at_once = self.policy.restart_after_upgrade
            && self.policy.restart_delay.is_zero()
            && self.starts_not_before(&record).is_none();
        let record = if at_once { self.about_to_run(record) } else { record };
        self.save(record, AfterRecord::Link(target));
    }

    pub(super) fn linked(&mut self, now: Instant) {
        let State::Linking { back } = self.state else { return self.unexpected("linked") };
        let Some(progress) = &self.record.upgrade else { return self.unexpected("linked") };
        self.link = Some(if back { progress.from.target.clone() } else { progress.to.target.clone() });
        if back {
            let detail = progress.reason.clone().unwrap_or_default();
            // Once the upgrade has ended nothing else records that the data was put back.
            let silent = self.policy.validator && self.policy.silent_after_unclean && progress.restores();
            if progress.put_off {
                let attempt = progress.clone();
                self.record.silent |= silent;
                return self.put_off(now, &attempt, detail);
            }
            let outcome = progress.outcome_of_the_way_back();
            let (mut record, news) = self.end_of(progress, Level::Error, outcome, detail);
            record.silent |= silent;
            return self.save_with_news(record, AfterRecord::Start(None), Some(news));
        }
        self.note(Level::Info, "switched", format!("current={}", self.version().target));
        if self.record.upgrade.as_ref().is_some_and(|p| p.attempt > 0) {
            // The attempt was recorded with the switch.
            self.spawn();
        } else if self.policy.restart_after_upgrade {
            self.state = State::Resting { until: now + self.policy.restart_delay, then: Rested::Start };
        } else {
            self.end(Exit::Ok, None, "switched; daemon_restart_after_upgrade is off".to_owned());
        }
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
            let wait = self.wait_after_failure(now);
            let progress = Attempt { forgiven: progress.forgiven.saturating_add(1), ..progress };
            let record = Record { upgrade: Some(progress), ..self.record.clone() };
            let wait = self.wait_to_start(now, &record, wait);
            return self.save(record, AfterRecord::Start(Some(now + wait)));
        }
        self.note(Level::Error, "attempt_failed", format!("attempt={attempt} of={ATTEMPTS} {reason}"));
        if attempt < ATTEMPTS {
            let wait = self.wait_to_start(now, &self.record, backoff(attempt, self.seed));
            return self.save(self.record.clone(), AfterRecord::Start(Some(now + wait)));
        }
        self.failed_for_good(now, format!("{reason}, after {attempt} attempts"));
    }

    /// The new binary was tried without peers and has failed: the old one runs again at once, without a second absence,
    /// unless the chain is at the fork, where the new one is tried again. A binary that was killed has proven nothing, so
    /// its upgrade comes due again.
    pub(super) fn failed_dry(&mut self, now: Instant, reason: String, status: Status) {
        let killed = status == Status::Signal(SIGKILL);
        let has_fork = self.record.upgrade.as_ref().is_some_and(|p| p.fork_height.is_some());
        let is_needed = has_fork && self.is_fork_reached(now);
        // Where there is no way back, as after an unclean end of the old one, a kill is no reason to halt either.
        let way_back = self.record.upgrade.as_ref().map(|p| decide(p, self.traces(now)));
        let is_shut = killed && matches!(way_back, Some(WayOn::Halt(_)));
        if is_needed || is_shut {
            return self.attempt_failed(now, reason, killed.then(|| "it was killed".to_owned()));
        }
        if let Some(attempt) = self.record.upgrade.as_mut().filter(|_| killed) {
            attempt.put_off = true;
        }
        self.failed_for_good(now, reason);
    }

    /// The new binary has failed for good: back to the old one, or halt.
    pub(super) fn failed_for_good(&mut self, now: Instant, reason: String) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("failed_for_good") };
        match decide(progress, self.traces(now)) {
            WayOn::Old | WayOn::RestoreThenOld => self.revert(reason),
            WayOn::Halt(why) => {
                self.halt(format!("upgrade {} has failed ({reason}), and {why}", progress.name))
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

    pub(super) fn link_back(&mut self) {
        let Some(progress) = &self.record.upgrade else { return self.unexpected("link_back") };
        let target: Target = progress.from.target.clone();
        self.state = State::Linking { back: true };
        self.actions.push(Action::Link(target));
    }

    /// Judges a running new binary: good, not yet, or to be stopped.
    fn prove(&mut self, now: Instant, node: &mut Node) -> Next {
        let Some(attempt) = self.record.upgrade.clone() else { return Next::Stay };
        if let Some(later) = self.overtaken(now, node, &attempt) {
            let head = node.height().unwrap_or(0);
            let detail = format!("not proven to the end: at block {head} the chain needs {}", later.name);
            let (record, news) = self.end_of(&attempt, Level::Warn, Outcome::Applied, detail);
            return Next::Save { record: Box::new(record), news: Some(news), applied: None };
        }
        self.report_unknown_fork(node);
        match self.judge(now, node) {
            Judgement::Good(detail) => {
                self.restarts.forgive();
                let (record, news) = self.end_of(&attempt, Level::Info, Outcome::Applied, detail);
                Next::Save { record: Box::new(record), news: Some(news), applied: Some(Box::new(attempt)) }
            }
            Judgement::Signed => {
                let mut record = self.record.clone();
                record.upgrade.iter_mut().for_each(|attempt| attempt.signed = true);
                Next::record(record)
            }
            Judgement::Mute { since } => {
                (node.network.mute.ordered, node.network.mute.blocks) = (true, 0);
                self.actions.push(Action::StartSealing);
                self.warn("told_to_seal", format!("no block since {since} has a seal of ours"));
                Next::Stay
            }
            Judgement::NotYet => Next::Stay,
            Judgement::Overdue(detail) => {
                if !node.overdue {
                    node.overdue = true;
                    self.warn("probation_overdue", detail);
                }
                Next::Stay
            }
            Judgement::Stop(why) => {
                if let Why::Unproven(reason) | Why::Failed(reason) = &why {
                    self.warn("unproven", reason.clone());
                }
                Next::Stop(why)
            }
        }
    }
}
