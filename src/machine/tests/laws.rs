//! The laws that hold whatever happens: the invariants of DESIGN section 3, as far as decisions can break them.
//!
//! They are stated over the world and over [`Truth`], which knows what the machine may not know, never over
//! the machine's own state.

use super::world::{Process, World};
use super::*;
use crate::exit::Exit;
use std::collections::BTreeSet;

/// The events as they really happened.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Truth {
    /// The binaries verified since they were last written.
    pub(super) verified: BTreeSet<Target>,
    /// The upgrades that were durably applied.
    applied: BTreeSet<Name>,
    /// When the node was asked to stop.
    pub(super) stopping_since: Option<Instant>,
    asked_to_stop: bool,
    asked_to_restart: bool,
    /// Whether the operator has ever ordered the way back.
    ordered_back: bool,
    /// Whether that was forced.
    forced_back: bool,
    /// Whether the last node to end has left its data unclean.
    pub(super) unclean: bool,
    trial: Option<Trial>,
    /// When the node was executed.
    pub(super) executed_at: Option<Instant>,
    /// The upgrade whose binary was looked at just now.
    pub(super) inspected: Option<Target>,
}

/// The last upgrade that was begun.
#[derive(Debug, Clone, Hash)]
struct Trial {
    from: Target,
    to: Target,
    fork_height: Option<u64>,
    /// How often the new binary was executed.
    executed: u32,
    /// Whether it had peers.
    networked: bool,
    /// The head when it was executed first.
    floor: u64,
    /// The highest head it has made, and the highest while its engine was on.
    top: u64,
    sealed: u64,
}

impl Truth {
    pub(super) fn asked(&mut self, request: &Request) {
        match request {
            Request::Stop | Request::Detach => self.asked_to_stop = true,
            Request::Restart => self.asked_to_restart = true,
            Request::Rollback(order) => self.ordered(order),
            _ => {}
        }
    }

    /// The operator orders the way back while no supervisor runs.
    pub(super) fn ordered(&mut self, order: &Back) {
        self.ordered_back = true;
        self.forced_back |= order.force;
    }

    /// One question, one answer.
    pub(super) fn is_answered(&self, done: &[Action]) -> Result<(), String> {
        let is_answer = |action: &&Action| {
            matches!(
                action,
                Action::Answer { to: 1, .. }
                    | Action::Strike { reply_to: Some(1), .. }
                    | Action::Reexec { reply_to: Some(1) }
            )
        };
        let answers = done.iter().filter(is_answer);
        require(answers.count() == 1, "a request has exactly one answer")
    }

    /// The supervisor is started.
    pub(super) fn forgets(&mut self) {
        self.asked_to_stop = false;
        self.asked_to_restart = false;
    }

    /// The head of the node rises or is told again.
    pub(super) fn rises(&mut self, running: &Process, height: u64) {
        if let Some(trial) = self.trial.as_mut().filter(|t| t.to == running.target) {
            trial.top = trial.top.max(height);
            if running.mode == Mode::Full {
                trial.sealed = trial.sealed.max(height);
            }
        }
    }

    /// A head record is made durable.
    pub(super) fn kept(&self, old: Option<&HeadRecord>, new: &HeadRecord) -> Result<(), String> {
        let fork = self.trial.as_ref().and_then(|t| t.fork_height);
        let own_block = old.is_some_and(|old| Some(old.block.height) == fork);
        let rose = old.is_none_or(|old| new.block.height >= old.block.height);
        require(rose || own_block, "the head record does not fall")
    }

    pub(super) fn executed(&mut self, version: &Version, mode: Mode, head: u64, now: Instant) {
        (self.executed_at, self.stopping_since) = (Some(now), None);
        self.asked_to_restart = false;
        if let Some(trial) = self.trial.as_mut().filter(|t| t.to == version.target) {
            if trial.executed == 0 {
                (trial.floor, trial.top, trial.sealed) = (head, head, head);
            }
            trial.executed += 1;
            trial.networked |= mode != Mode::Dry;
        }
    }

    /// A record is durable: I5, and that nothing that matters is ever forgotten.
    pub(super) fn recorded(&mut self, old: &Record, new: &Record) -> Result<(), String> {
        // One whose stop had only begun may be forgotten, and another begun with the same record.
        let other = new.upgrade.as_ref().map(|b| &b.name);
        let forgotten = |a: &&Attempt| a.phase == Phase::Stopping && other.is_some_and(|b| *b != a.name);
        let before = old.upgrade.as_ref().filter(|a| !forgotten(a));
        match (before, &new.upgrade) {
            (Some(a), Some(b)) => {
                require(a.name == b.name, "one upgrade at a time")?;
                require(b.phase >= a.phase, "I5: a phase does not regress")?;
                require(!a.unclean || b.unclean, "an unclean stop is not forgotten")?;
                require(!a.signed || b.signed, "a signature is not forgotten")?;
                let executed = self.trial.as_ref().map_or(0, |t| t.executed);
                require(b.attempt >= executed, "no execution is forgotten")?;
            }
            (Some(a), None) => {
                let put_off = self.trial.as_ref().is_none_or(|t| !t.networked);
                let is_over = a.phase == Phase::Stopping || new.ended(&a.name).is_some();
                let law = "an upgrade that has begun comes to an end, or is put off before it has had peers";
                require(is_over || put_off, law)?;
            }
            (None, Some(b)) if b.phase == Phase::Reverting => {
                require(self.ordered_back, "what was applied is undone by order alone")?;
                require(b.to == old.current, "the way back begins at what runs")?;
                let undone = |name: &Name| new.ended(name).is_some_and(|e| e.outcome != Outcome::Applied);
                self.applied.retain(|name| !undone(name));
                require(!self.applied.contains(&b.name), "what is undone is not applied any more")?;
                let (from, to) = (b.from.target.clone(), b.to.target.clone());
                let fork_height = b.fork_height;
                let (networked, floor, top, sealed) = (true, 0, 0, 0);
                self.trial =
                    Some(Trial { from, to, fork_height, executed: 1, networked, floor, top, sealed });
            }
            (None, Some(b)) => {
                require(!self.applied.contains(&b.name), "I5: an applied upgrade is not applied again")?;
                let inspected = self.inspected.as_ref() == Some(&b.to.target);
                require(inspected, "I4: an upgrade begins with a last look at its binary")?;
                require(b.phase <= Phase::Stopped, "an upgrade begins with the stop")?;
                require(b.from == new.current, "an upgrade begins at what runs")?;
                let (from, to) = (b.from.target.clone(), b.to.target.clone());
                let fork_height = b.fork_height;
                self.trial = Some(Trial {
                    from,
                    to,
                    fork_height,
                    executed: 0,
                    networked: false,
                    floor: 0,
                    top: 0,
                    sealed: 0,
                });
            }
            (None, None) => {}
        }
        if new.node == NodeMark::StoppedClean {
            require(!self.unclean, "an unclean end is not recorded as a clean one")?;
        }
        for ended in new.ended.iter().filter(|e| e.outcome == Outcome::Applied) {
            if self.applied.insert(ended.name.clone()) {
                require(new.current.target.is(&ended.name), "what was applied is what runs")?;
                let executed = self.trial.as_ref().map_or(0, |t| t.executed);
                require(executed > 0, "what was applied has run")?;
            }
        }
        let kept = self.applied.iter().all(|name| new.ended(name).is_some());
        require(kept, "I5: what was applied is not forgotten")
    }
}

impl World {
    /// Whether `action` may be performed in this world.
    pub(super) fn check(&self, action: &Action) -> Result<(), String> {
        let down = self.process.is_none();
        match action {
            Action::Record(_) | Action::Inspect(_) => {
                require(self.pending.is_none(), "one prompt action at a time")
            }
            Action::Link(target) => self.check_link(target),
            Action::Spawn { version, mode, launch } => self.check_spawn(version, *mode, *launch),
            Action::Reexec { .. } => Ok(()),
            Action::Adopt => {
                let orphan = self.process.as_ref().filter(|p| p.orphan);
                require(
                    orphan.is_some_and(|p| p.target == self.link),
                    "only the node of this home is adopted",
                )
            }
            Action::AwaitRelease => require(!self.awaiting, "the locks are waited for once"),
            Action::Terminate => self.check_terminate(),
            Action::Kill => {
                let killed = self.process.as_ref().is_none_or(|p| p.killed || !p.terminated);
                let waited = self.truth.stopping_since.map(|at| self.now.duration_since(at));
                let patient = waited.is_some_and(|w| w >= self.policy.shutdown_grace);
                require(self.policy.stop_timeout == StopTimeout::Kill, "I8: no SIGKILL unless configured")?;
                require(!killed && patient, "I8: SIGKILL once, after SIGTERM and the grace")
            }
            Action::Start(job) => self.check_job(job),
            Action::CancelJob => {
                require(self.job.as_ref().is_some_and(|(_, c)| !c), "a job is asked to end once")
            }
            Action::Confirm
            | Action::Survey
            | Action::Recall { .. }
            | Action::Trace { .. }
            | Action::Identify
            | Action::StartSealing
            | Action::StopSealing
            | Action::Unpeer
            | Action::Greet { .. } => require(!down, "a node can be asked"),
            Action::Tell(notice) if notice.event == "unexpected_event" => {
                Err(format!("as the loop keeps its contract: {notice:?}"))
            }
            Action::Exit { exit, reason, .. } => self.check_exit(*exit, reason),
            Action::AfterUpgrade(progress) => {
                let ended = self.record.ended(&progress.name);
                let applied = ended.is_some_and(|e| e.outcome == Outcome::Applied);
                require(
                    applied && self.record.upgrade.is_none(),
                    "an upgrade is over when its last hook runs",
                )
            }
            Action::Receipt(receipt) => {
                let ended = self.record.ended(&receipt.name);
                let is_over = ended.is_some_and(|e| e.outcome == receipt.outcome);
                require(is_over, "a receipt is about an upgrade that is over")
            }
            Action::Tell(_)
            | Action::Strike { .. }
            | Action::Answer { .. }
            | Action::KeepHead(_)
            | Action::ForgetHead
            | Action::ReadPlans => Ok(()),
        }
    }

    fn check_link(&self, to: &Target) -> Result<(), String> {
        require(self.pending.is_none(), "one prompt action at a time")?;
        require(self.process.is_none(), "the link is switched with the node down")?;
        let progress = self.record.upgrade.as_ref().ok_or("the link is switched for an upgrade")?;
        let never_ran = self.truth.trial.as_ref().is_none_or(|t| t.executed == 0);
        match progress.phase {
            Phase::Trying if self.unwritten && never_ran && *to == progress.from.target => {}
            Phase::Trying => require(*to == progress.to.target, "the way forth leads to the new binary")?,
            Phase::Reverting => require(*to == progress.from.target, "the way back leads to the old binary")?,
            phase => return Err(format!("an intent is durable before its effect: link in {phase:?}")),
        }
        require(*to == Target::Genesis || self.truth.verified.contains(to), "I4: only what was verified")
    }

    fn check_spawn(&self, version: &Version, mode: Mode, launch: u64) -> Result<(), String> {
        require(self.pending.is_none(), "one prompt action at a time")?;
        require(self.process.is_none(), "I2: never two nodes")?;
        require(version.target == self.link, "I1: what runs is what current points at")?;
        require(self.record.halted.is_none(), "what is halted stays down")?;
        let genesis = version.target == Target::Genesis;
        require(genesis || self.truth.verified.contains(&version.target), "I4: only what was verified")?;
        let on_disk = self.unacknowledged.iter().chain([&self.record]);
        if on_disk.clone().all(|record| launch > record.launch) {
            return self.check_unrecorded(version, mode);
        }
        require(self.record.launch == launch, "the number of a launch is its own")?;
        require(self.record.node == NodeMark::Running, "an intent is durable before its effect: spawn")?;
        match &self.record.upgrade {
            Some(progress) => {
                require(
                    progress.phase == Phase::Trying,
                    "the new binary is started when the link is switched",
                )?;
                require(*version == progress.to, "an upgrade starts its own binary")?;
                let executed = self.truth.trial.as_ref().map_or(0, |t| t.executed);
                require(progress.attempt > executed, "the attempt counter is durable before its exec")
            }
            None => {
                require(*version == self.record.current, "what runs is what the journal says")?;
                self.check_old(version)
            }
        }
    }

    /// A node is started though its record cannot be written (I12).
    fn check_unrecorded(&self, version: &Version, mode: Mode) -> Result<(), String> {
        require(self.unwritten, "an intent is durable before its effect: spawn")?;
        let silent = self.policy.validator && self.policy.silent_after_unclean;
        require(!silent || mode != Mode::Full, "a validator whose start is on no record is silent")?;
        match &self.record.upgrade {
            Some(progress) if *version == progress.to => require(
                progress.phase == Phase::Trying,
                "the new binary is started when the link is switched",
            ),
            Some(progress) => {
                require(*version == progress.from, "what runs is what the journal says")?;
                require(!progress.past_fork(), "I7: the old binary is not started at the fork")?;
                self.check_old(version)
            }
            None => {
                require(*version == self.record.current, "what runs is what the journal says")?;
                self.check_old(version)
            }
        }
    }

    /// I7.
    fn check_old(&self, version: &Version) -> Result<(), String> {
        let known = self.head_record.as_ref().map_or(0, |record| record.block.height);
        let at_fork = |fork: Option<u64>| fork.is_some_and(|fork| known.saturating_add(1) >= fork);
        let planned = self.schedule.iter().filter(|u| !self.truth.applied.contains(&u.name));
        let planned = planned.map(|u| (u.height, u.fork_height));
        let ended = self.record.ended.iter().filter(|e| e.outcome != Outcome::Applied && e.cannot_follow);
        let ended = ended.map(|e| (e.height, e.fork_height));
        let applied = self.record.ended.iter().filter(|e| e.outcome == Outcome::Applied);
        let applied = applied.map(|e| e.height).max().unwrap_or(0);
        if planned.chain(ended).any(|(height, fork)| height > applied && at_fork(fork)) {
            let asked = self.truth.asked_to_restart || self.truth.forced_back;
            require(asked, "I7: the old binary is not started at the fork")?;
        }
        let by_itself = |_: &&Trial| !self.truth.ordered_back;
        let trial = self.truth.trial.as_ref().filter(by_itself);
        match trial.filter(|t| t.from == version.target && t.executed > 0) {
            Some(trial) => {
                let signed = self.policy.validator && trial.sealed > trial.floor;
                require(!signed, "I7: the old binary is not started once the new one has signed")?;
                let forked = trial.fork_height.is_some_and(|fork| trial.top >= fork);
                require(!forked, "I7: the old binary is not started once the new one was past the fork")
            }
            None => Ok(()),
        }
    }

    fn check_terminate(&self) -> Result<(), String> {
        let process = self.process.as_ref().ok_or("there is nothing to stop")?;
        require(!process.terminated && !process.orphan, "I8: one SIGTERM per stop")?;
        let asked = self.truth.asked_to_stop || self.truth.asked_to_restart;
        let phase = self.record.upgrade.as_ref().map(|p| p.phase);
        let upgrade = matches!(phase, Some(Phase::Stopping | Phase::Trying));
        let back = self.record.back.is_some();
        require(asked || upgrade || back, "an intent is durable before its effect: SIGTERM")
    }

    fn check_job(&self, job: &Job) -> Result<(), String> {
        require(self.job.is_none(), "one job at a time")?;
        if let Job::Prepare(_) = job {
            // One whose stop had only begun may have been forgotten already.
            let phase = self.record.upgrade.as_ref().map(|p| p.phase);
            let under_way = phase.is_some_and(|p| p > Phase::Stopping) && self.process.is_none();
            // It may have been put off, and that is on no record.
            let under_way = under_way && !self.unwritten;
            return require(!under_way, "nothing is prepared while the node is down for an upgrade");
        }
        if let Job::Ahead { .. } | Job::Tend { .. } | Job::Rehearse(_) = job {
            require(self.process.is_some(), "what can wait is done beside a node")?;
            return require(
                self.record.upgrade.is_none(),
                "nothing is done aside while an upgrade is under way",
            );
        }
        require(self.process.is_none(), "the data is touched with the node down")?;
        let progress = self.record.upgrade.as_ref().ok_or("work is for an upgrade")?;
        if let Job::Backup(own) = job {
            // It begins beside the record of the stop: see `look`.
            let phases = [Phase::Stopping, Phase::Stopped];
            require(phases.contains(&progress.phase), "a backup is made between the stop and the switch")?;
            let is_clean = !own.unclean && !progress.unclean && !self.truth.unclean;
            return require(is_clean, "data that was left unclean is not saved");
        }
        let (phases, clean): (&[Phase], _) = match job {
            Job::Hook { .. } => (&[Phase::Stopped, Phase::BackedUp], false),
            Job::Prepare(_)
            | Job::Backup(_)
            | Job::Restore(_)
            | Job::Ahead { .. }
            | Job::Tend { .. }
            | Job::Rehearse(_) => (&[Phase::Reverting], true),
        };
        require(phases.contains(&progress.phase), "an intent is durable before its effect: job")?;
        require(!clean || !progress.unclean, "data that was left unclean is neither saved nor replaced")
    }

    fn check_exit(&self, exit: Exit, reason: &str) -> Result<(), String> {
        let alone = self.process.as_ref().is_none_or(|p| p.orphan);
        require(alone || reason.starts_with("detached"), "no node is left behind")?;
        require(!reason.is_empty(), "an end has a reason")?;
        let trying = self.record.upgrade.as_ref().is_some_and(|p| p.phase == Phase::Trying);
        match exit {
            Exit::Ok => {
                let switched = !self.policy.restart_after_upgrade && trying;
                require(self.truth.asked_to_stop || switched, "the end was not asked for")
            }
            Exit::Failed => require(!self.policy.restart_on_failure, "failures are to be tried again"),
            Exit::Halted => Ok(()),
            other => Err(format!("{other:?} is not for the machine to say")),
        }
    }

    /// The laws that hold between any two steps.
    pub(super) fn look(&self) -> Result<(), String> {
        let Some(machine) = &self.machine else { return Ok(()) };
        let deadline = machine.deadline();
        if let Some((_, why)) = deadline.filter(|(at, _)| *at <= self.now) {
            return Err(format!("a deadline is in the future: {why}"));
        }
        let waits = self.pending.is_some() || self.awaiting || self.job.is_some();
        let runs = self.process.as_ref().is_some_and(|p| !p.orphan);
        if let Some((Job::Backup(_), is_cancelled)) = &self.job {
            require(self.process.is_none(), "I2: no node beside a backup")?;
            let is_stopping = self.record.upgrade.as_ref().is_some_and(|p| p.phase == Phase::Stopping);
            // One that failed is written again, or the backup ends.
            let is_tried_again = self.unwritten && (deadline.is_some() || *is_cancelled);
            let is_written = is_tried_again || matches!(self.pending, Some(Action::Record(_)));
            require(!is_stopping || is_written, "beside a backup the stop is recorded")?;
        }
        require(waits || runs || deadline.is_some(), "there is a way forward")
    }
}

pub(super) fn require(holds: bool, law: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(law.to_owned()) }
}
