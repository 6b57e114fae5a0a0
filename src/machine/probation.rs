//! Probation: the conditions under which the upgrade to a new binary counts as applied.

use super::chain_check::Objection;
use super::event::OwnMark;
use super::network::Mute;
use super::record::Attempt;
use super::rollback::{Traces, WayOn, decide};
use super::state::{Next, Node, Why};
use super::upgrade::is_at_fork;
use super::validator::is_in_set;
use super::{Machine, USUAL_PERIOD};
use std::time::{Duration, Instant};

/// Blocks beyond the estimated head that a node may have reached unseen.
const UNSEEN: u64 = 2;
/// Blocks that a validator at a fresh head may follow without a seal before it is ordered to seal.
const MUTE: u64 = 40;
/// Blocks after that before it has failed.
const MUTE_AFTER: u64 = 20;
/// Clock skew tolerated when a block counts as older than the new binary.
const CLOCKS: Duration = Duration::from_secs(2);

/// The verdict of the facts on the new binary.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Judgement {
    /// It has proved itself.
    Good(String),
    /// It has signed; that must be durable before anything else.
    Signed,
    /// It has sealed nothing since this block, though it could have.
    Mute { since: u64 },
    /// It needs more time.
    NotYet,
    /// It should have proved itself by now, but stopping it would not help.
    Overdue(String),
    /// It should have proved itself by now, or has failed for good: stop it.
    Stop(Why),
}

impl Machine {
    pub(super) fn judge(&mut self, now: Instant, node: &mut Node) -> Judgement {
        let Some(attempt) = self.record.upgrade.clone() else { return Judgement::NotYet };
        let lived = now.duration_since(node.since);
        let long_enough = lived >= self.policy.probation_time;
        if !self.policy.watch_height {
            let lives = format!("lived={lived:.0?}");
            return if long_enough { Judgement::Good(lives) } else { Judgement::NotYet };
        }
        let Some((heard, first)) = node.first_head else {
            if lived < self.policy.start_timeout {
                return Judgement::NotYet;
            }
            return Judgement::Stop(Why::Unproven(format!("no head was reported within {lived:.0?}")));
        };
        if let Some(signed) = self.look_for_signatures(now, node, &attempt) {
            return signed;
        }
        // A head that does not count proves nothing, and a head that no survey has seen shows none of our seals.
        let counted = self.heads.height().unwrap_or(0);
        let seen = node.network.survey.as_ref().filter(|_| self.policy.validator);
        let seen = seen.map_or(counted, |survey| survey.sample.head.min(counted));
        let goal = node.network.returning.goal.as_ref().map_or(0, |block| block.height);
        let top = node.rose.map_or(first, |(_, top)| top).min(seen);
        let first = node.followed_from.unwrap_or(counted).max(goal).min(counted);
        let objection = self.objection(node, first);
        if let Some(Objection::Wrong(why)) = objection {
            return Judgement::Stop(Why::Failed(why));
        }
        let blocks = top.saturating_sub(first);
        let client = self.client_version(node).map(|name| format!(" client={name}")).unwrap_or_default();
        let report = format!("blocks={blocks} lived={lived:.0?} head={top}{client}");
        if long_enough && blocks >= self.policy.probation_blocks && objection.is_none() {
            return Judgement::Good(report);
        }
        if let Some(mute) = self.mute(now, node) {
            return mute;
        }
        if let Some(Objection::Unknown(why)) = &objection
            && lived >= self.policy.probation_time + self.patience(node)
        {
            return Judgement::Overdue(format!("{report} {why}"));
        }
        let still = now.duration_since(node.rose.map_or(heard, |(at, _)| at));
        if still < self.patience(node) {
            return Judgement::NotYet;
        }
        let reason = format!("the head has stood at {top} for {still:.0?}");
        if matches!(decide(&attempt, self.traces(now)), WayOn::Halt(_)) {
            Judgement::Overdue(reason)
        } else {
            Judgement::Stop(Why::Unproven(reason))
        }
    }

    /// Whether the headers since the stop show a signature of the new binary, or prove that there is none.
    ///
    /// Both are read from the chain: our seals in `prevCommittedSeal` and our proposals. A mark in a block that was
    /// made before the new binary was started is the old one's.
    fn look_for_signatures(&mut self, now: Instant, node: &mut Node, attempt: &Attempt) -> Option<Judgement> {
        let survey = node.network.survey.as_ref().filter(|_| self.policy.validator)?;
        let (at, switched) = (survey.at, self.switched?);
        let since = now.saturating_duration_since(switched);
        // By the chain's own times: by a clock of ours that is ahead, marks of the new binary would be older than itself.
        let age = |mark: OwnMark| mark.before_head.saturating_add(node.still(now));
        // Up to the block at which the old binary was stopped all marks are its own.
        let stopped_at = attempt.stopped_at.as_ref().map_or(0, |block| block.height);
        let newest = survey.own_mark.filter(|mark| mark.height > stopped_at).map(age);
        if !attempt.signed && newest.is_some_and(|age| age.saturating_add(CLOCKS) < since) {
            return Some(Judgement::Signed);
        }
        let fresh = node.head_age(now) <= survey.sample.period * 3;
        // One survey sees the last blocks only; what earlier ones have proven stays proven.
        let proven = self.departure.unsigned_to.unwrap_or(0).max(stopped_at);
        let whole = survey.oldest <= proven.saturating_add(1);
        let unsigned = newest.is_none_or(|age| age > since + CLOCKS);
        if fresh && whole && unsigned && !attempt.signed {
            // The seals of the head are in the block after it.
            self.departure.unsigned_to = Some(survey.sample.head.saturating_sub(1).max(proven));
            node.network.unsigned_at = Some(at);
        }
        None
    }

    /// A validator that follows the chain and seals nothing: it is ordered to seal, and has failed if it does not.
    fn mute(&self, now: Instant, node: &mut Node) -> Option<Judgement> {
        let survey = node.network.survey.as_ref()?;
        let (head, fresh) = (survey.sample.head, node.head_age(now) <= survey.sample.period * 3);
        let mark = survey.own_mark.map_or(0, |mark| mark.height);
        let could = !self.record.silent && fresh && is_in_set(survey);
        let mute = &mut node.network.mute;
        if !could {
            mute.head = None;
            return None;
        }
        mute.note(head, mark);
        match mute {
            Mute { ordered: false, blocks, .. } if *blocks >= MUTE => Some(Judgement::Mute { since: mark }),
            Mute { ordered: true, blocks, .. } if *blocks >= MUTE_AFTER => {
                let why = format!("it has sealed nothing since block {mark}, though it was ordered to");
                Some(Judgement::Stop(Why::Failed(why)))
            }
            Mute { .. } => None,
        }
    }

    /// A binary that does not know of the fork it is needed for may be the wrong one, or have the fork built in
    /// elsewhere: that is only logged.
    pub(super) fn report_unknown_fork(&mut self, node: &mut Node) {
        let fork = self.record.upgrade.as_ref().and_then(|p| p.fork_height);
        let known = node.network.survey.as_ref().and_then(|survey| survey.forks.as_ref());
        if let (Some(fork), Some(known)) = (fork, known)
            && !known.contains(&fork)
            && node.network.warn_once("fork_unknown")
        {
            let text = format!(
                "fork={fork} the configuration of the new binary names no such fork: is it the right one?"
            );
            self.warn("fork_unknown", text);
        }
    }

    /// A new binary is tried without peers: it must answer, and have the chain that the old one had.
    pub(super) fn try_dry(&mut self, now: Instant, node: &mut Node) -> Next {
        let lived = now.duration_since(node.since);
        let early = lived < self.policy.start_timeout;
        if !self.policy.validator && node.head.is_some() {
            // It ends no more before it answers, and the next start has all other checks.
            return Next::Stop(Why::Dry);
        }
        if node.head.is_none() {
            if early {
                return Next::Stay;
            }
            if !self.policy.validator {
                return Next::Stop(Why::Unproven(format!("no head was reported within {lived:.0?}")));
            }
            return Next::Stop(Why::Failed(format!(
                "tried without peers, it reported no head within {lived:.0?}"
            )));
        }
        self.ask_chain_check(now, node);
        let Some(check) = &node.chain_check else { return Next::Stop(Why::Dry) };
        match check.objection() {
            Some(Objection::Wrong(why)) => Next::Stop(Why::Failed(format!("tried without peers: {why}"))),
            // A clean stop may lose the newest block, and a program with another fork may take blocks back.
            Some(Objection::Unknown(_)) if !check.is_answered() && early => Next::Stay,
            Some(Objection::Unknown(_)) | None => Next::Stop(Why::Dry),
        }
    }

    /// When a running node must be judged anew though no event has come.
    pub(super) fn running_deadline(&self, node: &Node) -> Option<(Instant, &'static str)> {
        let now = self.now?;
        let second = self.heads.asks_again_at(self.rate()).map(|at| (at, "second head"));
        let (lacks_voucher, _) = self.heads.lacks_voucher();
        let identity = node.identity.asked.filter(|_| !node.identity.known || lacks_voucher);
        let identity = identity.map(|at| (at + self.policy.poll_interval, "identify"));
        let consider = node.not_before.map(|at| (at, "consider again"));
        let restart = node.restart_since.map(|at| (at + self.period() * 12, "restart"));
        let (lived, heard) = self.record.upgrade.is_some().then(|| self.probation_deadlines(node)).unzip();
        let (check, network) = (self.chain_check_deadline(node), self.network_deadline(now, node));
        [second, identity, consider, restart, lived, heard, check, network]
            .into_iter()
            .flatten()
            .filter(|(at, _)| self.is_ahead(*at))
            .min()
    }

    fn probation_deadlines(&self, node: &Node) -> ((Instant, &'static str), (Instant, &'static str)) {
        let heard = match node.first_head {
            None => (node.since + self.policy.start_timeout, "start timeout"),
            Some((heard, _)) => (node.rose.map_or(heard, |(at, _)| at) + self.patience(node), "patience"),
        };
        ((node.since + self.policy.probation_time, "probation"), heard)
    }

    /// How long the head may stand still: longer after a longer outage, as there is more to catch up.
    fn patience(&self, node: &Node) -> Duration {
        let outage = self.stopped.map_or(Duration::ZERO, |at| node.since.saturating_duration_since(at));
        self.policy.start_timeout.max(outage * 2)
    }

    /// The traces that the new binary may have left, by the most careful reading of what is known.
    ///
    /// The head that was seen lags behind the node's own. So the network's head is estimated from
    /// the time since the stop, and the node may have been there.
    pub(super) fn traces(&self, now: Instant) -> Traces {
        let Some(attempt) = &self.record.upgrade else { return Traces { highest: None, signed: true } };
        let known = self.heads.height().unwrap_or(0);
        // Without a fork no height matters; with one, a time that was not seen proves nothing.
        let highest = match attempt.fork_height {
            None => Some(known),
            Some(_) => self.estimate(attempt, now).map(|estimate| estimate.max(known)),
        };
        Traces { highest, signed: self.may_have_signed(now, attempt) }
    }

    /// Whether the new binary of a validator has, or may have, signed: it has run with its engine on, and the chain does
    /// not prove the contrary.
    fn may_have_signed(&self, now: Instant, attempt: &Attempt) -> bool {
        if !self.policy.validator || attempt.signed || attempt.sealing == 0 {
            return attempt.signed;
        }
        if !self.policy.watch_height {
            return true;
        }
        !self.node().map_or(self.departure.unsigned, |node| self.is_proven_unsigned(node, now))
    }

    /// Whether the chain has proven, as of `at`, that the new binary has signed nothing.
    pub(super) fn is_proven_unsigned(&self, node: &Node, at: Instant) -> bool {
        // The headers show what was signed a block ago, and are read once per block.
        let recent = self.period() * 2 + CLOCKS;
        node.network.unsigned_at.is_some_and(|proven| at.saturating_duration_since(proven) <= recent)
    }

    /// Whether the chain has come to the fork, by the most careful estimate, so that the old binary is of no use.
    pub(super) fn fork_reached(&self, attempt: &Attempt, now: Instant) -> bool {
        let estimate = self.estimate(attempt, now).zip(attempt.fork_height);
        attempt.past_fork() || estimate.is_some_and(|(head, fork)| is_at_fork(head, fork))
    }

    /// The network's head by now, estimated high: it went on when the node was stopped. None if
    /// that was before this process, or the head was not known then.
    fn estimate(&self, attempt: &Attempt, now: Instant) -> Option<u64> {
        let stopped_at = attempt.stopped_at.as_ref()?.height;
        // A halt of the chain stretches the measured period, but not the real one.
        let period = self.period().min(USUAL_PERIOD).as_millis().max(1);
        let blocks = now.duration_since(self.stopped?).as_millis() / period;
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        Some(stopped_at.saturating_add(blocks).saturating_add(UNSEEN))
    }
}
