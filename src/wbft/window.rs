//! The last blocks, decoded: their seals and rounds, and the validators of the next one.
//!
//! Liveness shows in `prevCommittedSeal` only. A block's own seals stop at the first quorum and lack a healthy validator
//! every fourth time; the next block has the late votes too.

use super::consensus::{Consensus, Policy, Timing};
use super::extra::Extra;
use super::fault::Fault;
use super::header::Header;
use super::hex::{Address, Hash};
use super::order;
use crate::machine::gates::{RECENT, Sample, Seat};
use crate::machine::order::Order;
use crate::machine::quorum::quorum;
use crate::sorted;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest time between two blocks that is believed, in seconds.
const LONGEST: u64 = 3600;

/// One decided block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
    /// When it was proposed, in seconds since 1970.
    pub timestamp: u64,
    /// Its proposer.
    pub proposer: Address,
    /// The name of the proposer's program.
    pub client: Option<String>,
    /// The round that decided it.
    pub round: u64,
    /// Whether an epoch ends with it: its header names the next validators.
    pub ends_epoch: bool,
    /// The validators that committed to the block **before** it, late votes included.
    pub sealers: BTreeSet<Address>,
}

/// The last block that a validator has proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its height.
    pub height: u64,
    /// The name and version that the validator's program has written into it.
    pub client: Option<String>,
}

/// Consecutive blocks up to a head.
///
/// It begins with a block that only serves to know the validators, and grows block by block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The first one has no sealers; it is not counted as one of the window.
    blocks: Vec<Decided>,
    /// The validators that sealed the head, and those that seal the next block, in seal order.
    sealed_head: Vec<Address>,
    next: Vec<Address>,
}

impl Window {
    /// A window that is still empty. `before` is the block before its first one, and `validators` are
    /// those that sealed that, in seal order.
    ///
    /// # Errors
    /// If the header is not of WBFT.
    pub fn after(before: &Header, validators: Vec<Address>) -> Result<Window, Fault> {
        let extra = decode(before)?;
        let next = extra.epoch.as_ref().map_or_else(|| validators.clone(), |epoch| epoch.next_validators());
        let first = decided(before, &extra, BTreeSet::new());
        Ok(Window { blocks: vec![first], sealed_head: validators, next })
    }

    /// Takes the next block in.
    ///
    /// # Errors
    /// If it does not follow the head, is not of WBFT, or does not show that a quorum of the validators of the
    /// head has committed to that; the window is as before.
    pub fn push(&mut self, header: &Header) -> Result<(), Fault> {
        let head = self.head();
        if header.number != head.number + 1 || header.parent_hash != head.hash {
            let (number, hash) = (head.number, head.hash);
            let what = format!("block {} does not follow block {number}, {hash}", header.number);
            return Err(Fault::Nonsense(what));
        }
        let extra = decode(header)?;
        let sealers = self.sealers_in(header.number, &extra)?;
        self.blocks.push(decided(header, &extra, sealers));
        self.sealed_head.clone_from(&self.next);
        if let Some(epoch) = extra.epoch {
            self.next = epoch.next_validators();
        }
        Ok(())
    }

    /// The validators that have committed to the head, by the seals in `extra` of the block after it.
    fn sealers_in(&self, number: u64, extra: &Extra) -> Result<BTreeSet<Address>, Fault> {
        let all = self.sealed_head.len();
        let sealers: BTreeSet<Address> = match &extra.prev_committed {
            Some(seal) => sorted::gather(seal.addresses(&self.sealed_head).ok_or_else(|| {
                Fault::Nonsense(format!("block {number} has seals beyond the {all} validators"))
            })?),
            None => BTreeSet::new(),
        };
        // Block 0 has no seals, so that block 1 carries none. Any other block was decided before the next one came.
        let (found, needed) = (sealers.len(), quorum(all));
        if number >= 2 && found < needed {
            let what =
                format!("block {number} has {found} seals of the block before, and {needed} of {all} decide");
            return Err(Fault::Nonsense(what));
        }
        Ok(sealers)
    }

    /// Forgets all but the last `blocks`.
    pub fn keep(&mut self, blocks: usize) {
        let surplus = self.blocks().len().saturating_sub(blocks);
        self.blocks.drain(..surplus);
        self.blocks[0].sealers.clear();
    }

    /// The newest block. It is not one of [`blocks`](Self::blocks) while the window is empty.
    #[must_use]
    pub fn head(&self) -> &Decided {
        self.blocks.last().expect("a window begins with a block")
    }

    /// The blocks, oldest first.
    #[must_use]
    pub fn blocks(&self) -> &[Decided] {
        self.blocks.get(1..).unwrap_or_default()
    }

    /// The last `count` blocks, oldest first, or all if there are fewer.
    #[must_use]
    pub fn last(&self, count: usize) -> &[Decided] {
        let blocks = self.blocks();
        &blocks[blocks.len().saturating_sub(count)..]
    }

    /// The validators that seal the next block, in seal order.
    #[must_use]
    pub fn validators(&self) -> &[Address] {
        &self.next
    }

    /// The proposer of the next block if round 0 decides it, by the policy in force there.
    #[must_use]
    pub fn next_proposer(&self, policy: Policy) -> Option<Address> {
        order::proposer(&self.next, proposer_of(self.head()).map(Address), 0, policy)
    }

    /// The order of proposers at the head. Without the chain's configuration they are taken to go round, and the end
    /// of the epoch is unknown; so it is where the blocks of this window contradict the configuration.
    #[must_use]
    pub fn order(&self, consensus: Option<&Consensus>) -> Order {
        let head = self.head();
        self.order_at(head, &self.next, consensus)
    }

    /// The order of proposers at the block before the head: by the list that has sealed the head. `None` while the
    /// window is empty.
    #[must_use]
    pub fn order_before(&self, consensus: Option<&Consensus>) -> Option<Order> {
        let [.., before, head] = self.blocks.as_slice() else { return None };
        let mut order = self.order_at(before, &self.sealed_head, consensus);
        if head.ends_epoch {
            // A change of the policy between the two would be at the head, after which the list ends anyway.
            order.until = Some(head.number);
        }
        Some(order)
    }

    fn order_at(&self, head: &Decided, list: &[Address], consensus: Option<&Consensus>) -> Order {
        let next = head.number.saturating_add(1);
        let fits = |c: &&Consensus| {
            self.blocks
                .iter()
                .all(|b| c.last_epoch_block(b.number).is_some_and(|end| (end == b.number) == b.ends_epoch))
        };
        let epoch = consensus.filter(fits).and_then(|c| c.next_epoch_block(head.number));
        let policy = consensus.and_then(|c| c.policy_until(next));
        Order {
            height: head.number,
            list: list.iter().map(|v| v.0).collect(),
            proposer: proposer_of(head),
            until: epoch.map(|end| policy.map_or(end, |last| end.min(last))).or(policy),
            sticky: consensus.is_some_and(|c| c.at(next).policy == Policy::Sticky),
        }
    }

    /// The last proposal of each validator that has proposed one of the last `count` blocks: a census of their versions.
    #[must_use]
    pub fn census(&self, count: usize) -> BTreeMap<Address, Proposal> {
        let proposal = |b: &Decided| (b.proposer, Proposal { height: b.number, client: b.client.clone() });
        sorted::gather(self.last(count).iter().map(proposal))
    }

    /// How far the head was proposed in the future of the clock that shows `now`, in seconds since 1970: then one of
    /// the clocks is wrong, ours or that of the proposer. Zero if it was not.
    #[must_use]
    pub fn clock_skew(&self, now: Duration) -> Duration {
        Duration::from_secs(self.head().timestamp).saturating_sub(now)
    }

    /// Whether the seal of `validator` is in each of the last `count` blocks, from the newest down.
    #[must_use]
    pub fn seals_of(&self, validator: &Address, count: usize) -> Vec<bool> {
        self.last(count).iter().rev().map(|block| block.sealers.contains(validator)).collect()
    }

    /// The newest block with a seal of `validator`.
    #[must_use]
    pub fn last_seal_of(&self, validator: &Address) -> Option<&Decided> {
        self.blocks().iter().rev().find(|block| block.sealers.contains(validator))
    }

    /// The validators with a seal in one of the last `count` blocks.
    #[must_use]
    pub fn sealers(&self, count: usize) -> BTreeSet<Address> {
        sorted::gather(self.last(count).iter().flat_map(|block| block.sealers.iter().copied()))
    }

    /// How many of the last `count` blocks each round has decided.
    #[must_use]
    pub fn rounds(&self, count: usize) -> BTreeMap<u64, usize> {
        let mut rounds = BTreeMap::new();
        for block in self.last(count) {
            *rounds.entry(block.round).or_insert(0) += 1;
        }
        rounds
    }

    /// The time between blocks that round 0 decided, from their own times; at least a second,
    /// which is the grain of their clocks. `None` without two such blocks in a row.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        let mut gaps: Vec<u64> = self
            .blocks
            .windows(2)
            .filter(|pair| pair[1].round == 0)
            .map(|pair| pair[1].timestamp.saturating_sub(pair[0].timestamp))
            .collect();
        sorted::sort(&mut gaps);
        // The times in headers may be anything.
        gaps.get(gaps.len() / 2).map(|gap| Duration::from_secs((*gap).clamp(1, LONGEST)))
    }

    /// The validators with a seal in one of the last [`RECENT`] blocks: those that count as live, for the gates and for
    /// display.
    #[must_use]
    pub fn live(&self) -> BTreeSet<Address> {
        self.sealers(usize::try_from(RECENT).unwrap_or(usize::MAX))
    }

    /// The facts that the gates of a validator judge by; `timing` is that of the next block.
    #[must_use]
    pub fn sample(&self, head_age: Duration, timing: &Timing, consensus: Option<&Consensus>) -> Sample {
        let recent = self.live();
        let seat = |v: &Address| Seat { validator: v.0, sealing: recent.contains(v) };
        let mut set: Vec<Seat> = self.next.iter().map(seat).collect();
        sorted::by_key(&mut set, |seat| seat.validator);
        let blocks = self.last(span(self.next.len()));
        Sample {
            head: self.head().number,
            head_age,
            period: timing.period,
            set,
            blocks: blocks.len(),
            first_round: blocks.iter().filter(|block| block.round == 0).count(),
            steady_since: 0,
            order: Some(self.order(consensus)),
            order_before: self.order_before(consensus),
        }
    }
}

/// The number of blocks that shows the liveness of this number of validators: 8, or one round of proposers.
#[must_use]
pub(super) fn span(validators: usize) -> usize {
    validators.max(8)
}

/// The proposer of a block as the proposer rule counts it: block 0 has none.
fn proposer_of(block: &Decided) -> Option<[u8; 20]> {
    (block.number > 0 && block.proposer != Address::ZERO).then_some(block.proposer.0)
}

fn decode(header: &Header) -> Result<Extra, Fault> {
    Extra::decode(&header.extra_data).map_err(|e| Fault::Nonsense(format!("block {}: {e}", header.number)))
}

fn decided(header: &Header, extra: &Extra, sealers: BTreeSet<Address>) -> Decided {
    Decided {
        number: header.number,
        hash: header.hash,
        timestamp: header.timestamp,
        proposer: header.miner,
        client: extra.client(),
        round: extra.round,
        ends_epoch: extra.epoch.is_some(),
        sealers,
    }
}
