//! The facts about the network on which it depends when a validator may sign again: plain data.

use super::event::Survey;
use super::gates::Validator;
use super::quorum::{margin, quorum};
use super::record::Block;
use std::time::{Duration, Instant};

/// For how long a validator counts as there after it was a connected peer.
const SEEN: Duration = Duration::from_secs(120);

/// What a validator has seen of the network since its node was started, as far as signing depends on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Returning {
    /// The head record when the node was started: what was final before.
    pub(super) goal: Option<Block>,
    /// When each other validator was a connected peer last.
    pub(super) seen: Vec<(Validator, Instant)>,
    /// When the head or the set of validators that were seen has changed last.
    pub(super) changed: Option<Instant>,
    /// The head at that time.
    pub(super) head: Option<u64>,
    /// Surveys in a row with a quorum of validators among the peers, and with any peer.
    pub(super) samples: (u32, u32),
    /// Surveys in a row with so many validators that no quorum is without all of them.
    pub(super) in_contact: u32,
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
        let count = |enough: bool, samples: u32| if enough { samples.saturating_add(1) } else { 0 };
        // Where the peers' addresses are not reported one peer counts for all.
        let needed = if survey.connected.is_some() { quorum.saturating_sub(1) } else { quorum.min(2) - 1 };
        self.samples = (
            count(peers.is_some_and(|n| n >= needed), self.samples.0),
            count(survey.peers.or(peers).is_some_and(|n| n >= 1), self.samples.1),
        );
        let contact = margin(survey.sample.set.len()).max(1).min(others.len());
        self.in_contact = count(connected.len() >= contact, self.in_contact);
        let alone = !others.is_empty() && peers == Some(0);
        self.alone_since = if alone { self.alone_since.or(Some(now)) } else { None };
    }

    /// Validators of the set that were not connected lately.
    pub(super) fn unseen(&self, survey: &Survey) -> Vec<Validator> {
        let others = survey.sample.set.iter().map(|seat| seat.validator).filter(|v| Some(*v) != survey.me);
        others.filter(|v| !self.seen.iter().any(|(seen, _)| seen == v)).collect()
    }
}
