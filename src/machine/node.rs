//! Starting the node, noticing its end, stopping it: the life of a process outside of upgrades.

use super::chain_check::ChainCheck;
use super::event::{Action, Class, Ending, Facts, Failure, Level, Mode, Notice, Status};
use super::record::{Attempt, Block, NodeMark, Outcome, Phase, Record, Version};
use super::recovery::{Recovery, recover};
use super::restart::backoff;
use super::state::{AfterRecord, Cleared, Node, Preparation, Ran, Rested, State, Why, Wish};
use super::{Heads, Machine, REMIND, StopTimeout};
use crate::exit::Exit;
use std::time::{Duration, Instant};

/// A node whose engine is on and that ends within this time has sealed nothing unheard.
const UNHEARD: Duration = Duration::from_secs(1);
/// The way to let an upgrade happen that is on hold.
pub(super) const RELEASE: &str = "wemixvisor upgrade release";
/// How often a new binary is executed in vain, for want of something, before the old one runs again.
const SPAWNS: u32 = 3;
/// No program ends itself by this signal: an operator, or the kernel for want of memory, has killed it.
const SIGKILL: i32 = 9;
/// Why an upgrade is given up when the node does not stop.
const TOO_SLOW: &str = "the node did not stop within daemon_shutdown_grace";

impl Machine {
    pub(super) fn boot(&mut self, now: Instant, facts: Facts) {
        self.record = facts.record;
        self.back = self.record.back.clone();
        self.heads = Heads::new(facts.head);
        self.has_data = facts.has_data;
        self.link = Some(facts.link.target.clone());
        // Where the lock names no launch since the boot, nothing proves that the last one never came to its exec.
        match &facts.launched {
            Some(named) if named.launch > self.record.launch => {
                self.catch_up(named.launch, &facts.link.target)
            }
            Some(named) if named.launch < self.record.launch && self.record.node == NodeMark::Running => {
                self.take_back_the_launch();
            }
            Some(_) | None => {}
        }
        let last = self.record.launch;
        self.left = match self.record.node {
            NodeMark::Running => NodeMark::StoppedUnclean,
            seen @ (NodeMark::Never | NodeMark::StoppedClean | NodeMark::StoppedUnclean) => seen,
        };
        let recovery = recover(&self.record, &facts.link);
        if let Recovery::Halt(reason) = recovery {
            return self.end(Exit::Halted, None, reason);
        }
        let alive =
            facts.launched.filter(|launched| launched.launch == last).and_then(|launched| launched.alive);
        if let Some(alive) = alive.filter(|alive| self.is_ours(alive, &recovery)) {
            return self.adopt(now, &alive);
        }
        if recovery != Recovery::Start {
            self.tell_history(Level::Warn, "recovering", recovery.to_string());
        }
        self.clear(now, Cleared::Resume(recovery));
    }

    /// The last launch never came to its exec: the supervisor died before.
    fn take_back_the_launch(&mut self) {
        self.record.node = self.record.before;
        let launch = self.record.launch;
        if let Some(attempt) = &mut self.record.upgrade {
            attempt.attempt = attempt.attempt.saturating_sub(1);
            if attempt.sealing == launch {
                attempt.sealing = 0;
            }
        }
    }

    /// Waits until no record is on its way and nothing holds the previous node's locks, then goes on.
    pub(super) fn clear(&mut self, now: Instant, then: Cleared) {
        self.state = State::Clearing { since: now, reminded: false, then };
        if self.outgoing.is_none() {
            self.actions.push(Action::AwaitRelease);
        }
    }

    pub(super) fn end(&mut self, exit: Exit, node: Option<Status>, reason: String) {
        self.cancel_job();
        self.state = State::Ended;
        self.actions.push(Action::Exit { exit, node, reason });
    }

    /// Halts for the operator, durably: nothing is started again until that is resolved.
    pub(super) fn halt(&mut self, reason: String) {
        let news = Notice::to_history(Level::Error, "halted", reason.clone());
        let record = Record { halted: Some(reason.clone()), ..self.record.clone() };
        self.save_and_tell(record, AfterRecord::End { exit: Exit::Halted, node: None, reason }, Some(news));
    }

    pub(super) fn released(&mut self, now: Instant) {
        let State::Clearing { then, .. } = &self.state else { return self.unexpected("released") };
        match then.clone() {
            Cleared::Start => self.start(now),
            Cleared::Resume(recovery) => self.resume(now, recovery),
            Cleared::Down { why, ending, ran } => self.down(now, why, ending, ran),
        }
    }

    fn resume(&mut self, now: Instant, recovery: Recovery) {
        let was_running = std::mem::replace(&mut self.record.node, self.left) == NodeMark::Running;
        if matches!(recovery, Recovery::Backup | Recovery::Hook | Recovery::Switch) {
            // The end of the old node was not seen, or the head record is older than that.
            self.leave_own_block_at_the_fork();
        }
        match recovery {
            Recovery::Start
            | Recovery::Forget
            | Recovery::Backup
            | Recovery::Hook
            | Recovery::Switch
            | Recovery::Try
                if self.goes_back() => {}
            Recovery::Start => self.start(now),
            Recovery::Forget => {
                self.forget_the_stop();
                self.start(now);
            }
            Recovery::Backup => {
                let mut record = self.record.clone();
                if let Some(progress) = &mut record.upgrade {
                    progress.unclean |= record.node == NodeMark::StoppedUnclean;
                    progress.phase = Phase::Stopped;
                }
                self.save(record, AfterRecord::Upgrade);
            }
            Recovery::Hook | Recovery::Switch | Recovery::Revert => self.go_on(),
            Recovery::Try => {
                if was_running && let Some(attempt) = &mut self.record.upgrade {
                    // An end that was not seen is no failure.
                    attempt.forgiven += 1;
                }
                self.start(now);
            }
            Recovery::Halt(reason) => self.end(Exit::Halted, None, reason),
        }
    }

    /// Starts what the record says: first the mark that it runs, and the count of attempts, durably.
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
        record.launch += 1;
        if let Some(attempt) = &mut record.upgrade {
            attempt.attempt += 1;
            if mode == Mode::Full && attempt.sealing == 0 && self.policy.validator {
                attempt.sealing = record.launch;
            }
        }
        record
    }

    /// The binary that is to run.
    pub(super) fn version(&self) -> &Version {
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

    /// How the node takes part that the record says is running, or about to run.
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
        let text = format!("pid={pid} version={}{how}", self.version().target);
        self.tell(Level::Info, "node_started", text);
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
                self.restarts.fail(None, now);
                let failures = self.restarts.failures();
                if never_ran && failures >= SPAWNS && !self.is_fork_reached(now) {
                    self.record = record;
                    return self.revert_for_now(format!("the new binary cannot be executed: {failure}"));
                }
                self.save(record, AfterRecord::Start(Some(now + backoff(failures, self.seed))));
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
                let failures = self.restarts.failures();
                let wait = self.wait_to_start(now, &record, backoff(failures, self.seed));
                let last = failure.detail;
                self.warn("restarting", format!("failures={failures} in={wait:.1?} last={last:?}"));
                self.save(record, AfterRecord::Start(Some(now + wait)));
            }
            (None, _) => self.try_again(now, record, None, failure.detail),
        }
    }

    pub(super) fn exited(&mut self, now: Instant, ending: Ending) {
        match &self.state {
            State::Running(node) | State::Inspecting { node: Some(node), .. } => {
                // Its signatures since the chain was last read are not known.
                let ran = Ran::of(node, now);
                let after = now.duration_since(ran.since);
                self.warn("node_exited", format!("status=\"{}\" after={after:.0?}", ending.status));
                self.clear(now, Cleared::Down { why: Why::Crash, ending, ran });
            }
            State::Leaving { why, since: asked, node } | State::Stopping { why, since: asked, node, .. } => {
                // The engine ends with SIGTERM, however long the rest takes.
                let unsigned = self.is_proven_unsigned(node, *asked);
                let (why, ran) = (why.clone(), Ran { unsigned, ..Ran::of(node, now) });
                let text = format!("status=\"{}\" after={:.0?}", ending.status, now.duration_since(*asked));
                self.tell(Level::Info, "node_stopped", text);
                self.clear(now, Cleared::Down { why, ending, ran });
            }
            State::Born
            | State::Clearing { .. }
            | State::Recording { .. }
            | State::Spawning { .. }
            | State::Inspecting { node: None, .. }
            | State::Working { .. }
            | State::Linking { .. }
            | State::Resting { .. }
            | State::Ended => self.unexpected("exited"),
        }
    }

    /// Whether the data is as the node before has left it: this one ended by itself before it answered, or was tried
    /// without peers and ended well. One that may seal is given no time in which it could have done so unheard.
    fn left_data_alone(&self, ending: &Ending, ran: &Ran) -> bool {
        let exited = matches!(ending.status, Status::Code(_));
        let short = ran.mode != Mode::Full || ran.ended.duration_since(ran.since) < UNHEARD;
        let unheard = self.policy.watch_height && ran.first.is_none() && exited && short;
        unheard || ran.mode == Mode::Dry && ending.status.is_graceful()
    }

    /// How the node has ended, as far as its data matters.
    fn mark(&self, why: &Why, ending: &Ending, ran: &Ran) -> NodeMark {
        let graceful = match (why, ending.status) {
            // A chain whose node stops by itself does so with any code once its data is closed.
            (Why::Crash, Status::Code(code)) => code == 0 || self.triggered().is_some(),
            (Why::Crash, Status::Signal(_) | Status::Unknown) => false,
            // After our SIGTERM, with its locks free, the data is closed. For a validator that is not enough.
            (_, Status::Unknown) => !self.policy.validator,
            (_, status) => status.is_graceful(),
        };
        match graceful {
            // It left the data as the node before it did.
            _ if self.left_data_alone(ending, ran) => self.left,
            true => NodeMark::StoppedClean,
            false => NodeMark::StoppedUnclean,
        }
    }

    /// The node is reaped and its locks are free: remember how it ended, and go on with why.
    fn down(&mut self, now: Instant, why: Why, ending: Ending, ran: Ran) {
        self.kept = None;
        self.keep_head();
        let mut record = self.record.clone();
        record.node = self.mark(&why, &ending, &ran);
        let graceful = record.node != NodeMark::StoppedUnclean;
        if !graceful && self.left != NodeMark::StoppedUnclean {
            self.warn("unclean_stop", format!("status=\"{}\" the head may have gone back", ending.status));
        }
        self.left = record.node;
        self.note_departure(&why, &ending, &ran, graceful);
        match why {
            _ if self.wish == Wish::Stop => {
                self.after_the_stop_for_an_upgrade(now, &mut record, &why, graceful);
                let reason = "asked to stop".to_owned();
                self.save(record, AfterRecord::End { exit: Exit::Ok, node: None, reason });
            }
            _ if !matches!(why, Why::Halt(_) | Why::Refuse(_)) && self.goes_back_from(&mut record) => {}
            Why::Stop => self.save(record, AfterRecord::Start(None)),
            Why::Back => {
                // It is refused by now, which is no failure of the binary.
                record.upgrade.iter_mut().for_each(|attempt| attempt.forgiven += 1);
                self.save(record, AfterRecord::Start(None));
            }
            Why::Restart => {
                (self.wish, self.at_once) = (Wish::Run, true);
                self.save(record, AfterRecord::Start(None));
            }
            Why::Stuck => {
                self.unstuck += 1;
                // That it finds no peers proves nothing against a new binary.
                record.upgrade.iter_mut().for_each(|attempt| attempt.forgiven += 1);
                self.save(record, AfterRecord::Start(None));
            }
            Why::Upgrade => {
                self.leave_own_block_at_the_fork();
                self.after_the_stop_for_an_upgrade(now, &mut record, &why, graceful);
                self.go_on_with(record);
            }
            Why::Abort => {
                self.record = record;
                self.give_up(now, Outcome::Failed, TOO_SLOW.to_owned());
            }
            Why::Dry => {
                self.departure.database = ran.head.map(|head| head.height);
                if let Some(attempt) = &mut record.upgrade {
                    (attempt.dry_run, attempt.forgiven) = (true, attempt.forgiven + 1);
                }
                self.record = record;
                self.start(now);
            }
            Why::Unproven(reason) => {
                self.record = record;
                self.attempt_failed(now, reason, ending.environment);
            }
            Why::Failed(reason) => {
                self.record = record;
                self.failed_for_good(now, reason);
            }
            Why::Halt(reason) => {
                self.record = record;
                self.halt(reason);
            }
            Why::Refuse(reason) => {
                self.save(record, AfterRecord::End { exit: Exit::Nonsense, node: None, reason });
            }
            Why::Crash => self.crashed(now, record, ending, &ran),
        }
    }

    /// Notes how the last node has left the network. One that left the data alone changes nothing.
    fn note_departure(&mut self, why: &Why, ending: &Ending, ran: &Ran, graceful: bool) {
        if !self.left_data_alone(ending, ran) {
            self.departure.at = Some(ran.ended);
            // Where its head is not that of the record, the distance from there is not known.
            let in_order = graceful && *why != Why::Crash && ran.head.as_ref() == self.heads.block();
            self.departure.in_turn &= in_order;
            self.departure.at_fork &= in_order;
            self.departure.unsigned = ran.unsigned;
            (self.departure.database, self.departure.forks) = (None, Vec::new());
        }
        // Only the operator's restart begins anew.
        let lasts = self.record.silent && *why != Why::Restart;
        self.departure.goal = ran.goal.clone().filter(|_| lasts);
    }

    /// A node has ended that was not asked to.
    fn crashed(&mut self, now: Instant, record: Record, ending: Ending, ran: &Ran) {
        if record.upgrade.is_some() {
            let last = ending.last_words.as_ref().map(|last| format!(": {last}")).unwrap_or_default();
            let reason = format!("the new binary ended: {}{last}", ending.status);
            self.record = record;
            if ran.mode == Mode::Dry && ending.environment.is_none() {
                let killed = ending.status == Status::Signal(SIGKILL);
                return self.failed_dry(now, reason, killed);
            }
            return self.attempt_failed(now, reason, ending.environment);
        }
        // Not a failure of the node, whatever the policy for failures: the next binary's turn has come.
        if self.due_while_down().is_some() || self.held().is_some() {
            self.restarts.fail(Some(ran.since), now);
            return self.save(record, AfterRecord::Start(Some(now)));
        }
        self.try_again(now, record, Some((ran.since, ending.status)), ending.status.to_string());
    }

    /// The height of the head record, where it is that of a fork which the old binary lacks: the block there may be one of
    /// its own making.
    pub(super) fn own_block_at_a_fork(&self) -> Option<u64> {
        let ended = self.record.ended.iter().filter(|e| e.outcome != Outcome::Applied);
        let under_way = self.record.upgrade.iter().filter_map(|p| p.fork_height);
        let forks =
            self.schedule.iter().filter_map(|u| u.fork_height).chain(ended.filter_map(|e| e.fork_height));
        forks.chain(under_way).find(|fork| self.heads.height() == Some(*fork))
    }

    /// A late validator may have made a block of its own at the fork, which the network then decided anew: that block
    /// is no evidence, and no silent node waits for it.
    pub(super) fn leave_own_block_at_the_fork(&mut self) {
        let Some(fork) = self.own_block_at_a_fork() else { return };
        self.heads.fall_below(fork);
        let below = self.heads.block().cloned();
        let is_left = |goal: &mut Block| goal.height >= fork;
        if self.departure.goal.take_if(is_left).is_some() {
            self.departure.goal.clone_from(&below);
        }
        if let Some(node) = self.node_mut()
            && node.network.returning.goal.take_if(is_left).is_some()
        {
            node.network.returning.goal = below;
        }
        self.keep_head();
    }

    /// The effect of a stop, by whatever order, on the upgrade in the record.
    fn after_the_stop_for_an_upgrade(&self, now: Instant, record: &mut Record, why: &Why, graceful: bool) {
        let Some(progress) = &mut record.upgrade else { return };
        match (progress.phase, why) {
            (Phase::Stopping, Why::Abort) if !self.fork_reached(progress, now) => {
                record.end(Outcome::Failed, TOO_SLOW.to_owned());
            }
            (Phase::Stopping, _) => {
                progress.phase = Phase::Stopped;
                progress.unclean = !graceful;
            }
            // The operator's stop is not the new binary's failure.
            (Phase::Trying, Why::Stop | Why::Dry) => progress.forgiven += 1,
            (Phase::Trying | Phase::Stopped | Phase::BackedUp | Phase::Reverting, _) => {}
        }
    }

    /// The restart policy: again after a backoff, or the end.
    fn try_again(&mut self, now: Instant, record: Record, ran: Option<(Instant, Status)>, what: String) {
        let (since, status) = ran.unzip();
        self.restarts.fail(since, now);
        let failures = self.restarts.failures();
        if !self.policy.restart_on_failure {
            let reason = format!("the node ended: {what}");
            return self.save(record, AfterRecord::End { exit: Exit::Failed, node: status, reason });
        }
        if self.restarts.exhausted(self.policy.max_restarts) {
            let reason = format!("the node failed {failures} times in a row, last: {what}");
            let news = Notice::to_history(Level::Error, "halted", reason.clone());
            let then = AfterRecord::End { exit: Exit::Halted, node: None, reason };
            return self.save_and_tell(record, then, Some(news));
        }
        let wait = self.wait_to_start(now, &record, backoff(failures, self.seed));
        self.warn("restarting", format!("failures={failures} in={wait:.1?} last={what:?}"));
        self.save(record, AfterRecord::Start(Some(now + wait)));
    }

    pub(super) fn drive_resting(&mut self, now: Instant) {
        let State::Resting { until, then } = &self.state else { return };
        if self.wish == Wish::Stop {
            return self.end(Exit::Ok, None, "asked to stop".to_owned());
        }
        let time = now >= *until;
        if self.wish == Wish::Restart {
            (self.wish, self.at_once) = (Wish::Run, true);
        }
        match then.clone() {
            Rested::Gap if time => self.clear(now, Cleared::Start),
            Rested::Gap => {}
            Rested::Start | Rested::Held | Rested::GoOn if self.goes_back() => {}
            then @ (Rested::Start | Rested::Held) => match self.due_while_down() {
                Some((upgrade, ready)) => self.inspect(None, &upgrade, ready),
                None if time || self.at_once => self.clear(now, Cleared::Start),
                None if then == Rested::Held && self.held().is_none() => self.clear(now, Cleared::Start),
                None => {}
            },
            Rested::Record(record, then, news) if time => self.save_and_tell(*record, then, news),
            // The stop could not be recorded beside the backup that has failed.
            Rested::GoOn if time && self.unwritten > 0 => {
                self.save(self.record.clone(), AfterRecord::Upgrade)
            }
            Rested::GoOn if time => {
                self.go_on();
                self.drive_working();
            }
            Rested::LinkBack if time => self.link_back(),
            Rested::Record(..) | Rested::GoOn | Rested::LinkBack => {}
        }
    }

    /// Why what `current` points at must not be started now, if so, unless the operator says so.
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
            applied.is_none_or(|applied| *height > applied)
                && fork.is_some_and(|fork| head.saturating_add(1) >= fork)
        })?;
        let fork = fork.unwrap_or_default();
        Some(format!(
            "the chain was at {head} and needs {name} from its fork at {fork} on; \
             to start {} all the same: wemixvisor restart",
            self.record.current.target
        ))
    }

    pub(super) fn drive_clearing(&mut self, now: Instant) {
        let State::Clearing { since, reminded, then } = &mut self.state else { return };
        let waited = now.duration_since(*since);
        // The end of a node is worth recording, but not worth waiting for a stray process for ever.
        if self.wish == Wish::Stop && (waited >= REMIND || !matches!(then, Cleared::Down { .. })) {
            return self.end(Exit::Ok, None, "asked to stop".to_owned());
        }
        if waited >= REMIND && !*reminded {
            *reminded = true;
            match &self.outgoing {
                None => self.warn(
                    "locks_still_held",
                    "something of the previous node is still alive; no node is started".to_owned(),
                ),
                Some(_) => {
                    let text = "the disk does not take the last record; no node is started before it has";
                    self.warn("journal_hangs", text.to_owned());
                }
            }
        }
    }

    pub(super) fn drive_stopping(&mut self, now: Instant) {
        self.send_again(now);
        let grace = self.policy.shutdown_grace;
        let State::Stopping { why, since, killed, reminded, unsent, .. } = &mut self.state else { return };
        let waited = now.duration_since(*since);
        if waited >= grace && !*killed && unsent.is_none() {
            match (self.policy.stop_timeout, &why) {
                (StopTimeout::Kill, _) => {
                    *killed = true;
                    *reminded = now;
                    self.actions.push(Action::Kill);
                    self.tell_history(
                        Level::Error,
                        "killing",
                        format!("the node did not stop within {waited:.0?}"),
                    );
                    return;
                }
                (StopTimeout::Abort, Why::Upgrade) => {
                    *why = Why::Abort;
                    *reminded = now;
                    self.warn("upgrade_given_up", TOO_SLOW.to_owned());
                    return;
                }
                (StopTimeout::Abort | StopTimeout::Wait, _) => {}
            }
        }
        let grace_is_over = waited >= grace && *reminded < *since + grace;
        if grace_is_over || now.duration_since(*reminded) >= REMIND {
            *reminded = now;
            self.warn("still_stopping", format!("waited={waited:.0?} the node has not ended after SIGTERM"));
        }
    }
}
