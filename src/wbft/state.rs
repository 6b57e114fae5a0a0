//! The known state of the consensus, for people and for JSON.
//!
//! No method reports the round in progress, so `round` is that of the last block, and `step` is as much as shows from
//! outside. One validator has one vote, so power is 1 of N.

use super::client::Syncing;
use super::hex::{Address, Hash};
use super::metrics::RoundMetrics;
use super::observer::Observation;
use super::window::span;
use crate::machine::quorum::{margin, quorum};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The node's part in the consensus, as far as that can be seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The head is decided and the next block is not overdue.
    Commit,
    /// The next block is overdue by more than the time that a round is given.
    RoundChange,
    /// A sync round is under way: the node follows the other validators instead of taking part.
    Syncing,
    /// The node is a validator, but its engine is off.
    Silent,
    /// The node cannot be asked.
    #[default]
    Down,
}

/// A validator of the set that seals the next block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its address.
    pub address: Address,
    /// Whether its seal is in one of the last [`RECENT`](crate::machine::gates::RECENT) blocks, which is also what the
    /// quorum gate asks.
    pub live: bool,
    /// The height of the newest block that it is known to have committed to.
    pub last_commit: Option<u64>,
    /// The name of its program in the last block that it proposed, if it proposed one of these.
    pub client: Option<String>,
}

/// The state of the consensus as one node shows it; by default that of a node that cannot be asked. Heights are block
/// numbers, times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConsensusState {
    /// The height of the head.
    pub height: u64,
    /// The hash of the head.
    pub hash: Option<Hash>,
    /// The round that decided the head.
    pub round: u64,
    /// The step of the round in progress, as far as it is known.
    pub step: Step,
    /// The address with which the node seals, if it reports one.
    pub address: Option<Address>,
    /// Whether that is one of the validators of the next block. It proves nothing about the node's health.
    pub is_validator: bool,
    /// Its seal bit.
    pub validator_index: Option<usize>,
    /// How many validators there are.
    pub validator_count: usize,
    /// The node's votes: 1, or 0 if it is no validator.
    pub validator_power: usize,
    /// All votes: as many as validators.
    pub total_power: usize,
    /// Whether the node reports that it is syncing. That it does not proves nothing.
    pub is_syncing: bool,
    /// Whether it knows of a higher head than its own.
    pub catching_up: bool,
    /// The validators of the next block, in the order of their seal bits.
    pub validators: Vec<Member>,
    /// The number of them that are live.
    pub live: usize,
    /// How many are needed for a block.
    pub quorum: usize,
    /// How many may be missing when all others are live.
    pub margin: usize,
    /// How long ago the head was proposed, in milliseconds.
    #[serde(rename = "head_age_ms", serialize_with = "as_millis")]
    pub head_age: Duration,
    /// How far the head was proposed in the future of our clock, in milliseconds.
    #[serde(rename = "clock_skew_ms", serialize_with = "as_millis")]
    pub clock_skew: Duration,
    /// The time between blocks, in milliseconds.
    #[serde(rename = "block_period_ms", serialize_with = "as_millis")]
    pub block_period: Duration,
    /// How many of the last max(8, N) blocks each round has decided.
    pub rounds: BTreeMap<u64, usize>,
    /// The number of the node's peers, if it reports that.
    pub peers: Option<u64>,
    /// Whether its engine is on, if it reports that.
    pub mining: Option<bool>,
    /// The proposer of the next block if round 0 decides it.
    pub next_proposer: Option<Address>,
    /// The counters of rounds that the node exposes as metrics, where they were asked for.
    pub live_rounds: Option<RoundMetrics>,
}

impl From<&Observation> for ConsensusState {
    fn from(seen: &Observation) -> Self {
        let Observation { window, head_age, own, syncing, mining, peers, timing, .. } = seen;
        let set = window.validators();
        let span = span(set.len());
        let live = window.live();
        let census = seen.census();
        let member = |address: &Address| Member {
            address: *address,
            live: live.contains(address),
            // A seal in a block is a vote for the one before it.
            last_commit: window.last_seal_of(address).map(|block| block.number - 1),
            client: census.get(address).and_then(|proposal| proposal.client.clone()),
        };
        let validators: Vec<Member> = set.iter().map(member).collect();
        let validator_index = own.and_then(|own| set.iter().position(|v| *v == own));
        let is_validator = validator_index.is_some();
        let (is_syncing, catching_up) = match syncing {
            Syncing::Idle => (false, false),
            Syncing::Active { highest, .. } => (true, *highest > window.head().number),
        };
        let step = if is_syncing {
            Step::Syncing
        } else if is_validator && *mining == Some(false) {
            Step::Silent
        } else if *head_age > timing.period + timing.round_timeout {
            Step::RoundChange
        } else {
            Step::Commit
        };
        ConsensusState {
            height: window.head().number,
            hash: Some(window.head().hash),
            round: window.head().round,
            step,
            address: *own,
            is_validator,
            validator_index,
            validator_count: set.len(),
            validator_power: usize::from(is_validator),
            total_power: set.len(),
            is_syncing,
            catching_up,
            live: validators.iter().filter(|v| v.live).count(),
            validators,
            quorum: quorum(set.len()),
            margin: margin(set.len()),
            head_age: *head_age,
            clock_skew: seen.clock_skew,
            block_period: timing.period,
            rounds: window.rounds(span),
            peers: *peers,
            mining: *mining,
            next_proposer: window.next_proposer(timing.policy),
            live_rounds: None,
        }
    }
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
