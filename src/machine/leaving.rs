//! How a validator leaves the network, so that it comes back quickly and proposes nothing twice: DESIGN 5, rule S.
//!
//! A node that stops redials its peers while it dies and so uses up its address there: for 35 s they refuse it.
//! So its peers are removed first. And it is stopped where its next own proposal is not the next block.

use super::event::{Action, Failure, Mode, Survey};
use super::gates::{self, AfterOwn, Reason, Slot, Verdict};
use super::record::{Block, Phase};
use super::state::{Node, Sent, State, Why};
use super::upgrade::is_at_fork;
use super::validator::is_in_set;
use super::{Machine, Upgrade};
use std::time::{Duration, Instant};

/// The longest time that the removal of peers may take.
pub(super) const LEAVE: Duration = Duration::from_secs(1);
/// The wait before a SIGTERM is sent again that could not be sent: at least, and at most.
const RESEND: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Blocks for which a restart waits at most for a good moment to leave.
const PATIENCE: u32 = 12;

/// How the last node has left the network, as far as this process has seen it.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Departure {
    /// When it ended.
    pub(super) at: Option<Instant>,
    /// Whether its stop was in turn.
    pub(super) in_turn: bool,
    /// Whether it was stopped because the old binary cannot follow the next block.
    pub(super) at_fork: bool,
    /// The head in its data, where a try of the next binary without peers has shown that.
    pub(super) database: Option<u64>,
    /// The forks that the new binary has named when it was tried without peers.
    pub(super) forks: Vec<u64>,
    /// When a node found its peers last: they refuse another connection for a while.
    pub(super) networked: Option<Instant>,
    /// Whether the chain has proven that the new binary had signed nothing when it was last asked to stop.
    pub(super) unsigned: bool,
    /// The block up to which it has proven that.
    pub(super) unsigned_to: Option<u64>,
    /// The block that was final for it, if it was silent: the next node waits for it too, also where the operator has reset
    /// the head record meanwhile.
    pub(super) goal: Option<Block>,
}

impl Machine {
    /// Stops the node. One that is started again afterwards leaves its peers first, if it is a validator.
    pub(super) fn terminate(&mut self, now: Instant, node: Node, why: Why) {
        let returns = match why {
            Why::Upgrade | Why::Back | Why::Restart | Why::Stuck | Why::Unproven(_) | Why::Failed(_) => true,
            Why::Stop | Why::Abort | Why::Dry | Why::Halt(_) | Why::Refuse(_) | Why::Crash => false,
        };
        if returns && self.policy.validator && self.policy.watch_height && node.mode != Mode::Dry {
            self.departure.in_turn = self.is_in_turn(now, &node);
            let fork =
                self.record.upgrade.as_ref().and_then(|p| p.fork_height).filter(|_| why == Why::Upgrade);
            let next = self.heads.height().map(|head| head.saturating_add(1));
            self.departure.at_fork = fork.is_some_and(|fork| next == Some(fork) && !node.may_have_fork(fork));
            self.actions.push(Action::Unpeer);
            self.state = State::Leaving { why, since: now, node };
        } else {
            self.stop(now, node, why);
        }
    }

    /// Sends SIGTERM, once, and ends work that would be in the way of what comes after.
    fn stop(&mut self, now: Instant, node: Node, why: Why) {
        self.actions.push(Action::Terminate);
        self.cancel_job();
        self.state = State::stopping(now, node, why);
    }

    /// SIGTERM was sent. That is recorded while the node stops, so that a supervisor that comes after us does not send it
    /// again.
    pub(super) fn note_asked(&mut self) {
        let State::Stopping { .. } = &self.state else { return };
        let mut record = self.record.clone();
        if let Some(attempt) = record.upgrade.as_mut().filter(|attempt| attempt.phase == Phase::Stopping) {
            attempt.asked = true;
            self.send(record, Sent::Nothing, None);
        }
    }

    /// SIGTERM could not be sent: the node has not been asked yet.
    pub(super) fn not_terminated(&mut self, now: Instant, failure: Failure) {
        let State::Stopping { since, unsent, .. } = &mut self.state else { return };
        let waited = now.saturating_duration_since(*since);
        let wait = (waited / 2).clamp(RESEND.0, RESEND.1);
        *unsent = Some(now + wait);
        self.warn("sigterm_not_sent", format!("again in {wait:.1?}: {failure}"));
    }

    pub(super) fn send_again(&mut self, now: Instant) {
        let State::Stopping { unsent, .. } = &mut self.state else { return };
        if unsent.take_if(|at| now >= *at).is_some() {
            self.actions.push(Action::Terminate);
        }
    }

    /// The peers are removed, or could not be.
    pub(super) fn unpeered(&mut self, now: Instant, result: Result<usize, Failure>) {
        if let State::Leaving { .. } = &self.state {
            if let Err(failure) = result {
                self.warn("peers_not_removed", format!("{failure}; the node may be without peers for 35 s"));
            }
            self.leave(now);
        }
    }

    pub(super) fn drive_leaving(&mut self, now: Instant) {
        if matches!(&self.state, State::Leaving { since, .. } if now >= *since + LEAVE) {
            self.leave(now);
        }
    }

    fn leave(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Born) {
            State::Leaving { why, node, .. } => self.stop(now, node, why),
            other => self.state = other,
        }
    }

    /// Whether the network could spare the node now, in its turn. The block after our own is only preferred, and the distance
    /// to the next own block is checked separately.
    fn is_in_turn(&self, now: Instant, node: &Node) -> bool {
        let reason = match self.gates_when(now, node, AfterOwn::NoMatter) {
            Verdict::Go(reason) => reason,
            Verdict::Hold(_) => return false,
        };
        matches!(reason, Reason::Open | Reason::HaltsChain { .. } | Reason::NotInSet)
    }

    /// Whether a restart that the operator asked for waits for a better moment: a few blocks, and no longer.
    pub(super) fn waits_to_leave(&self, now: Instant, node: &mut Node) -> bool {
        let since = *node.restart_since.get_or_insert(now);
        if !self.policy.validator || now >= since + self.period() * PATIENCE {
            return false;
        }
        let Some(survey) = &node.network.survey else { return false };
        let (Some(me), head) = (&survey.me, node.height()) else { return false };
        let fresh = node.still(now) <= survey.sample.period * 3 && Some(survey.sample.head) <= head;
        fresh
            && (Some(survey.sample.head) != head || gates::proposal_gate(me, &survey.sample, None).is_some())
    }

    /// The verdict of the gates on a stop now. It prefers the block after one of our own, for one cycle of turns.
    pub(super) fn gates(&self, now: Instant, node: &Node) -> Verdict {
        self.gates_when(now, node, AfterOwn::Preferred)
    }

    fn gates_when(&self, now: Instant, node: &Node, own: AfterOwn) -> Verdict {
        let unknown =
            |missing: &str| Verdict::Hold(vec![gates::Gate::Unknown { missing: missing.to_owned() }]);
        let Some(survey) = &node.network.survey else {
            return unknown(node.network.failure.as_deref().unwrap_or("an answer from the node"));
        };
        if !node.identity.known {
            return unknown("which chain the node is on");
        }
        // Neither an answer about an older head nor a delayed one shows the present.
        if !self.is_recent(now, survey) || node.height().is_some_and(|head| survey.sample.head < head) {
            return unknown(node.network.failure.as_deref().unwrap_or("an answer about the newest head"));
        }
        let Some(me) = &survey.me else {
            return unknown("the node's own address: serve `istanbul` or `eth`, or set validator_address");
        };
        let slot = Slot::of(survey.sample.head, survey.slot_set.iter().copied());
        let steady_since = node.steady_since.unwrap_or(0);
        let sample = gates::Sample { head_age: node.head_age(now), steady_since, ..survey.sample.clone() };
        let cycle = u32::try_from(slot.groups().saturating_mul(gates::SLOT)).unwrap_or(u32::MAX);
        let waited = node.network.holds.as_ref().map(|(since, _)| now.saturating_duration_since(*since));
        let long = waited.is_some_and(|waited| waited >= self.period().saturating_mul(cycle));
        let verdict = gates::judge(me, Some(&slot), &sample, if long { AfterOwn::NoMatter } else { own });
        let is_outside = |survey: &Survey| !is_in_set(survey);
        if verdict == Verdict::Go(Reason::NotInSet) && !node.network.shows(is_outside) {
            return unknown("a second answer that we are not among the validators");
        }
        verdict
    }

    /// Whether a decision to stop a validator was made too long ago to be carried out: its turn ends 12 blocks before that
    /// of the next, and a stop takes a few.
    pub(super) fn is_too_late_to_stop(&self, now: Instant) -> bool {
        let since = self.stopped.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.policy.validator && since > self.period() * 3
    }

    /// Whether the old binary is of no use to the network any more: at the last block before the fork, or with a
    /// block of its own at the fork, or frozen where the network goes on.
    pub(super) fn is_past_use(&self, now: Instant, node: &Node, upgrade: &Upgrade) -> Option<Reason> {
        let height = upgrade.fork_height?;
        let counted = self.heads.height().unwrap_or(0);
        let needed = is_at_fork(counted, height) || self.is_frozen(now, node);
        // A binary that knows the fork itself follows the chain beyond it.
        (needed && !node.may_have_fork(height)).then_some(Reason::Fork { height })
    }
}
