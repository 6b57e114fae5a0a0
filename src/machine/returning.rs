//! The facts about the network on which it depends when a validator may sign again: plain data.

use super::event::Survey;
use super::gates::Validator;
use super::quorum::{margin, quorum};
use super::record::Block;
use std::time::{Duration, Instant};

/// For how long a validator counts as there after it was a connected peer.
const SEEN: Duration = Duration::from_secs(120);

/// The network as a validator has seen it since its node was started, as far as signing depends on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Returning {
    /// The head record when the node was started: what was final before.
    pub(super) goal: Option<Block>,
    /// When each other validator was a connected peer last.
    pub(super) seen: Vec<(Validator, Instant)>,
    /// When the head or the set of validators that were seen has changed last.
    pub(super) changed: Option<Instant>,
    /// The other validators of the set.
    pub(super) others: Vec<Validator>,
    /// The head at that time.
    pub(super) head: Option<u64>,
    /// Since when every survey has shown a quorum of validators among the peers.
    pub(super) quorum_since: Option<Instant>,
    /// Since when every survey has shown any peer.
    pub(super) peers_since: Option<Instant>,
    /// Since when every survey has shown enough validators that each quorum has one of them.
    pub(super) contact_since: Option<Instant>,
    /// Since when the node has followed the chain beyond everything that was final.
    pub(super) following_since: Option<Instant>,
    /// Since when there are no peers.
    pub(super) alone_since: Option<Instant>,
    /// When sealing was last asked to begin, and to end.
    pub(super) started: Option<Instant>,
    pub(super) stopped: Option<Instant>,
    /// The head at which the operator has ordered it to seal, while it waits for that.
    pub(super) ordered: Option<Block>,
    /// Whether people know that it takes too long.
    pub(super) overdue: bool,
}

impl Returning {
    /// Takes note of a survey.
    pub(super) fn note(&mut self, survey: &Survey) {
        let now = survey.at;
        let me = survey.me.unwrap_or_default();
        let set = survey.sample.set.iter().map(|seat| seat.validator).filter(|v| *v != me);
        let others: Vec<Validator> = set.collect();
        let known = |v: &&Validator| others.contains(v);
        let connected: Vec<Validator> = survey.connected.iter().flatten().filter(known).copied().collect();
        let before = self.seen.len();
        self.seen.retain(|(v, at)| others.contains(v) && now <= *at + SEEN);
        let mut has_changed = self.seen.len() != before || self.head != Some(survey.sample.head);
        has_changed |= self.others != others;
        for validator in &connected {
            match self.seen.iter_mut().find(|(v, _)| v == validator) {
                Some((_, at)) => *at = now,
                None => {
                    self.seen.push((*validator, now));
                    has_changed = true;
                }
            }
        }
        if has_changed {
            (self.changed, self.head) = (Some(now), Some(survey.sample.head));
        }
        let peers = survey.connected.as_ref().map(|_| connected.len()).or(survey.peers);
        let quorum = quorum(survey.sample.set.len());
        let keep = |since: &mut Option<Instant>, shown: bool| *since = shown.then_some(since.unwrap_or(now));
        // Where the peers' addresses are not reported one peer counts for all.
        let needed = if survey.connected.is_some() { quorum.saturating_sub(1) } else { quorum.min(2) - 1 };
        keep(&mut self.quorum_since, peers.is_some_and(|n| n >= needed));
        keep(&mut self.peers_since, survey.peers.or(peers).is_some_and(|n| n >= 1));
        let contact = margin(survey.sample.set.len()).max(1).min(others.len());
        keep(&mut self.contact_since, connected.len() >= contact);
        // Behind sentry nodes a validator has no other validator among its peers.
        let alone = !others.is_empty() && survey.peers.or(peers) == Some(0);
        self.alone_since = if alone { self.alone_since.or(Some(now)) } else { None };
        self.others = others;
    }

    /// Validators of the set that were not connected lately.
    pub(super) fn unseen(&self, survey: &Survey) -> Vec<Validator> {
        let others = survey.sample.set.iter().map(|seat| seat.validator).filter(|v| Some(*v) != survey.me);
        others.filter(|v| !self.seen.iter().any(|(seen, _)| seen == v)).collect()
    }
}
