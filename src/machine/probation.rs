//! Probation: what a new binary has to show before the upgrade counts as applied.

use super::record::Attempt;
use super::rollback::{Traces, Verdict, decide};
use super::state::Node;
use super::validator::Objection;
use super::{Machine, USUAL_PERIOD};
use std::time::{Duration, Instant};

/// Blocks beyond the estimated head that a node may have reached unseen.
const UNSEEN: u64 = 2;

/// What the facts say about the new binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It has proved itself.
    Good(String),
    /// It has done something that closes the way back; that has to be durable before anything else.
    Trace,
    /// It needs more time.
    NotYet,
    /// It should have proved itself by now, but stopping it would not help.
    Overdue(String),
    /// It should have proved itself by now; stop it.
    Bad(String),
}

impl Machine {
    pub(super) fn judge(&self, now: Instant, node: &Node) -> Judgement {
        let Some(progress) = &self.record.upgrade else { return Judgement::NotYet };
        let lived = now.duration_since(node.since);
        let long_enough = lived >= self.policy.probation_time;
        if !self.policy.watch_height {
            return if long_enough {
                Judgement::Good(format!("lived={lived:.0?}"))
            } else {
                Judgement::NotYet
            };
        }
        let Some((told, first)) = node.first_head else {
            return if lived < self.policy.start_timeout {
                Judgement::NotYet
            } else if !progress.signed && self.may_seal_unheard(now, node) {
                Judgement::Trace
            } else {
                Judgement::Bad(format!("no head was told within {lived:.0?}"))
            };
        };
        if self.leaves_trace(progress) {
            return Judgement::Trace;
        }
        let top = node.rose.map_or(first, |(_, top)| top);
        let blocks = top - first;
        let said = self.client_version(node).map(|said| format!(" client={said}")).unwrap_or_default();
        let report = format!("blocks={blocks} lived={lived:.0?} head={top}{said}");
        let objection = self.objection(node);
        if let Some(Objection::Wrong(why)) = objection {
            return Judgement::Bad(why);
        }
        if long_enough && blocks >= self.policy.probation_blocks && objection.is_none() {
            return Judgement::Good(report);
        }
        // The next upgrade does not wait for a full probation: this binary may be unable to go on.
        if self.due(Some(node)).is_some() && (blocks > 0 || long_enough) {
            return Judgement::Good(format!("{report} cut short by the next upgrade"));
        }
        if let Some(Objection::Unknown(why)) = &objection
            && lived >= self.policy.probation_time + self.patience(node)
        {
            return Judgement::Overdue(format!("{report} {why}"));
        }
        let still = now.duration_since(node.rose.map_or(told, |(at, _)| at));
        if still < self.patience(node) {
            return Judgement::NotYet;
        }
        if !progress.signed && self.may_seal_unheard(now, node) {
            return Judgement::Trace;
        }
        let reason = format!("the head has stood at {top} for {still:.0?}");
        if self.way_back_is_open(progress, now) { Judgement::Bad(reason) } else { Judgement::Overdue(reason) }
    }

    /// When a running node may have to be judged anew though nothing was heard of it.
    pub(super) fn running_deadline(&self, node: &Node) -> Option<(Instant, &'static str)> {
        let asked = node.asked.filter(|_| self.seen_once(node));
        let confirm = asked.map(|at| (at + self.policy.poll_interval, "confirm"));
        let consider = node.not_before.map(|at| (at, "consider again"));
        let (lived, told) = self.record.upgrade.is_some().then(|| self.probation_deadlines(node)).unzip();
        let (witness, council) = (self.witness_deadline(node), self.council_deadline(node));
        [confirm, consider, lived, told, witness, council]
            .into_iter()
            .flatten()
            .filter(|(at, _)| self.is_ahead(*at))
            .min()
    }

    fn probation_deadlines(&self, node: &Node) -> ((Instant, &'static str), (Instant, &'static str)) {
        let told = match node.first_head {
            None => (node.since + self.policy.start_timeout, "start timeout"),
            Some((told, _)) => (node.rose.map_or(told, |(at, _)| at) + self.patience(node), "patience"),
        };
        ((node.since + self.policy.probation_time, "probation"), told)
    }

    /// How long the head may stand still: longer after a longer outage, as there is more to catch up.
    fn patience(&self, node: &Node) -> Duration {
        let outage = self.stopped.map_or(Duration::ZERO, |at| node.since.saturating_duration_since(at));
        self.policy.start_timeout.max(outage * 2)
    }

    /// Whether the head has crossed a line that closes the way back and is not in the record yet.
    fn leaves_trace(&self, progress: &Attempt) -> bool {
        let Some(head) = self.head.as_ref().map(|h| h.block.height) else { return false };
        let known = self.record.highest.as_ref().map_or(0, |b| b.height);
        let forks = progress.fork_height.is_some_and(|fork| head >= fork && known < fork);
        forks || self.signed(progress) != progress.signed
    }

    /// Whether the new binary has, or may have, sealed a block: that of a validator has as soon as its head
    /// is above the one at which the old one was stopped.
    pub(super) fn signed(&self, progress: &Attempt) -> bool {
        let stopped_at = progress.stopped_at.as_ref().map_or(0, |b| b.height);
        let rose = self.head.as_ref().is_some_and(|h| h.block.height > stopped_at);
        let ran = progress.attempt > 0;
        progress.signed || self.policy.validator && ran && (rose || !self.policy.watch_height)
    }

    /// Whether this is a validator that does not tell what it does: it may seal, whatever its head was last.
    pub(super) fn may_seal_unheard(&self, now: Instant, node: &Node) -> bool {
        let unheard = |top| top < self.surveyed_head(now, node);
        self.policy.validator && node.rose.is_none_or(|(_, top)| unheard(top))
    }

    fn way_back_is_open(&self, progress: &Attempt, now: Instant) -> bool {
        !matches!(decide(progress, self.traces(now)), Verdict::Halt(_))
    }

    /// What the new binary may have done to the data, by the most careful reading of what is known.
    ///
    /// The head that was seen lags behind the node's own. So the network's head is estimated from
    /// the time since the stop, and the node may have been there.
    pub(super) fn traces(&self, now: Instant) -> Traces {
        let Some(progress) = &self.record.upgrade else { return Traces { highest: None, signed: true } };
        let known = self.highest().unwrap_or(0);
        // Without a fork no height matters; with one, a time that was not seen proves nothing.
        let highest = match progress.fork_height {
            None => Some(known),
            Some(_) => self.estimate(progress, now).map(|estimate| estimate.max(known)),
        };
        Traces { highest, signed: self.signed(progress) }
    }

    /// Whether the chain has come to the fork, as far as can be told, so that the old binary is of no use.
    pub(super) fn fork_reached(&self, progress: &Attempt, now: Instant) -> bool {
        let estimate = self.estimate(progress, now);
        let estimated =
            progress.fork_height.zip(estimate).is_some_and(|(fork, head)| head.saturating_add(1) >= fork);
        progress.past_fork() || estimated
    }

    /// The network's head by now, estimated high: it went on when the node was stopped. None if
    /// that was before this process, or the head was not known then.
    fn estimate(&self, progress: &Attempt, now: Instant) -> Option<u64> {
        let stopped_at = progress.stopped_at.as_ref()?.height;
        // A halt of the chain stretches the measured period, but not the real one.
        let period = self.period().min(USUAL_PERIOD).as_millis().max(1);
        let blocks = now.duration_since(self.stopped?).as_millis() / period;
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        Some(stopped_at.saturating_add(blocks).saturating_add(UNSEEN))
    }
}
