//! The first steps of the supervisor, and the end of the node, by itself or after a stop.

use super::event::{Action, Ending, Facts, Level, Mode, Notice, Status};
use super::record::{Block, NodeMark, Outcome, Phase, Record};
use super::recovery::{Recovery, recover};
use super::state::{AfterRecord, Cleared, Ran, Rested, State, Why, Wish};
use super::switch::SIGKILL;
use super::{Heads, Machine, REMIND, StopTimeout};
use crate::exit::Exit;
use std::time::{Duration, Instant};

/// A node whose engine is on and that ends within this time has sealed nothing unheard.
const UNHEARD: Duration = Duration::from_secs(1);
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
        self.left = self.record.node.with_nothing_running();
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
            self.note(Level::Warn, "recovering", recovery.to_string());
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
        self.save_with_news(record, AfterRecord::End { exit: Exit::Halted, node: None, reason }, Some(news));
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
        if !matches!(recovery, Recovery::Revert | Recovery::Halt(_)) && self.goes_back() {
            return;
        }
        match recovery {
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
                self.log(Level::Info, "node_stopped", text);
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
        if record.node == NodeMark::StoppedUnclean && self.left != NodeMark::StoppedUnclean {
            self.warn("unclean_stop", format!("status=\"{}\" the head may have gone back", ending.status));
        }
        self.left = record.node;
        self.note_departure(&why, &ending, &ran);
        if self.wish == Wish::Stop {
            self.after_the_stop_for_an_upgrade(now, &mut record, &why);
            let reason = "asked to stop".to_owned();
            return self.save(record, AfterRecord::End { exit: Exit::Ok, node: None, reason });
        }
        let may_go_back = !matches!(why, Why::Halt(_) | Why::Refuse(_));
        if !may_go_back || !self.goes_back_from(&mut record) {
            self.go_on_after(now, why, record, ending, ran);
        }
    }

    /// The step after a node has ended for this reason, with `record` yet to be written.
    fn go_on_after(&mut self, now: Instant, why: Why, mut record: Record, ending: Ending, ran: Ran) {
        match why {
            Why::Stop => self.save(record, AfterRecord::Start(None)),
            Why::Restart => {
                (self.wish, self.at_once) = (Wish::Run, true);
                self.save(record, AfterRecord::Start(None));
            }
            // An order to go back that is refused by now, and peers that are not found, prove nothing against a new binary.
            Why::Back | Why::Stuck => {
                self.unstuck += u32::from(why == Why::Stuck);
                record.upgrade.iter_mut().for_each(|attempt| attempt.forgiven += 1);
                self.save(record, AfterRecord::Start(None));
            }
            Why::Upgrade => {
                self.leave_own_block_at_the_fork();
                self.after_the_stop_for_an_upgrade(now, &mut record, &why);
                self.go_on_with(record);
            }
            Why::Abort => {
                self.record = record;
                self.give_up(now, Outcome::Failed, TOO_SLOW.to_owned());
            }
            Why::Dry => {
                self.departure.database = ran.head.map(|head| head.height);
                if let Some(attempt) = &mut record.upgrade {
                    (attempt.dry_run, attempt.ended_early) = (true, false);
                    attempt.forgiven += 1;
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
    fn note_departure(&mut self, why: &Why, ending: &Ending, ran: &Ran) {
        if !self.left_data_alone(ending, ran) {
            self.departure.at = Some(ran.ended);
            // Where its head is not that of the record, the distance from there is not known.
            let graceful = self.left != NodeMark::StoppedUnclean && *why != Why::Crash;
            let in_order = graceful && ran.head.as_ref() == self.heads.block();
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
    fn crashed(&mut self, now: Instant, mut record: Record, ending: Ending, ran: &Ran) {
        if let Some(attempt) = &mut record.upgrade {
            let by_itself = !matches!(ending.status, Status::Signal(SIGKILL) | Status::Unknown);
            let unheard = self.policy.watch_height && ran.first.is_none() && ending.environment.is_none();
            attempt.ended_early |= !self.policy.validator && unheard && by_itself;
            let last = ending.last_words.as_ref().map(|last| format!(": {last}")).unwrap_or_default();
            let reason = format!("the new binary ended: {}{last}", ending.status);
            self.record = record;
            if ran.mode == Mode::Dry && self.policy.validator && ending.environment.is_none() {
                return self.failed_dry(now, reason, ending.status);
            }
            return self.attempt_failed(now, reason, ending.environment);
        }
        // No failure of the node: the next binary's turn has come.
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

    /// The effect of a stop on the upgrade in the record.
    fn after_the_stop_for_an_upgrade(&self, now: Instant, record: &mut Record, why: &Why) {
        let Some(progress) = &mut record.upgrade else { return };
        match (progress.phase, why) {
            (Phase::Stopping, Why::Abort) if !self.fork_reached(progress, now) => {
                record.end(Outcome::Failed, TOO_SLOW.to_owned());
            }
            (Phase::Stopping, _) => {
                progress.phase = Phase::Stopped;
                progress.unclean = record.node == NodeMark::StoppedUnclean;
            }
            // The operator's stop is not the new binary's failure.
            (Phase::Trying, Why::Stop | Why::Dry) => progress.forgiven += 1,
            (Phase::Trying | Phase::Stopped | Phase::BackedUp | Phase::Reverting, _) => {}
        }
    }

    /// The restart policy: again after a backoff, or the end.
    pub(super) fn try_again(
        &mut self,
        now: Instant,
        mut record: Record,
        ran: Option<(Instant, Status)>,
        what: String,
    ) {
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
            record.gave_up = Some(reason.clone());
            let then = AfterRecord::End { exit: Exit::Halted, node: None, reason };
            return self.save_with_news(record, then, Some(news));
        }
        self.start_later(now, record, &what);
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
            Rested::Record(record, then, news) if time => self.save_with_news(*record, then, news),
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
                    "something of the previous node is still alive; no node is started",
                ),
                Some(_) => {
                    let text = "the disk does not take the last record; no node is started before it has";
                    self.warn("journal_hangs", text);
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
                    self.note(Level::Error, "killing", format!("the node did not stop within {waited:.0?}"));
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
