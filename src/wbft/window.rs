//! The last blocks, decoded: who sealed them, in which rounds, and who seals the next one.
//!
//! Liveness shows in `prevCommittedSeal` only. A block's own seals stop at the first quorum, and miss a
//! healthy validator every fourth time; the next block collects the late votes too.

use super::extra::Extra;
use super::fault::Fault;
use super::header::Header;
use super::hex::{Address, Hash};
use crate::machine::gates::{RECENT, Sample, Seat};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One decided block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
    /// When it was proposed, in seconds since 1970.
    pub timestamp: u64,
    /// Who proposed it.
    pub proposer: Address,
    /// What the proposer's program calls itself.
    pub client: Option<String>,
    /// The round that decided it.
    pub round: u64,
    /// Who committed to the block **before** it, late votes included.
    pub sealers: BTreeSet<Address>,
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
    /// If it does not follow the head, is not of WBFT, or its seals are not of the validators that it must
    /// be sealed by; the window is as before.
    pub fn push(&mut self, header: &Header) -> Result<(), Fault> {
        let head = self.head();
        if header.number != head.number + 1 || header.parent_hash != head.hash {
            let (number, hash) = (head.number, head.hash);
            let what = format!("block {} does not follow block {number}, {hash}", header.number);
            return Err(Fault::Nonsense(what));
        }
        let extra = decode(header)?;
        let sealers = match &extra.prev_committed {
            Some(seal) => seal.addresses(&self.sealed_head).ok_or_else(|| {
                let all = self.sealed_head.len();
                Fault::Nonsense(format!("block {} has seals beyond the {all} validators", header.number))
            })?,
            None => Vec::new(),
        };
        self.blocks.push(decided(header, &extra, sealers.into_iter().collect()));
        self.sealed_head.clone_from(&self.next);
        if let Some(epoch) = extra.epoch {
            self.next = epoch.next_validators();
        }
        Ok(())
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

    /// Who proposes the next block if round 0 decides it: the one after the proposer of the head.
    #[must_use]
    pub fn next_proposer(&self) -> Option<Address> {
        let at = self.next.iter().position(|v| *v == self.head().proposer)?;
        Some(self.next[(at + 1) % self.next.len()])
    }

    /// In how many of the last `count` blocks the seal of `validator` is.
    #[must_use]
    pub fn seals_of(&self, validator: &Address, count: usize) -> usize {
        self.last(count).iter().filter(|block| block.sealers.contains(validator)).count()
    }

    /// The newest block with a seal of `validator`.
    #[must_use]
    pub fn last_seal_of(&self, validator: &Address) -> Option<&Decided> {
        self.blocks().iter().rev().find(|block| block.sealers.contains(validator))
    }

    /// Everybody with a seal in one of the last `count` blocks.
    #[must_use]
    pub fn sealers(&self, count: usize) -> BTreeSet<Address> {
        self.last(count).iter().flat_map(|block| block.sealers.iter().copied()).collect()
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

    /// The time between blocks that round 0 decided, from what they say themselves; at least a second,
    /// which is the grain of their clocks. `None` without two such blocks in a row.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        let mut gaps: Vec<u64> = self
            .blocks
            .windows(2)
            .filter(|pair| pair[1].round == 0)
            .map(|pair| pair[1].timestamp.saturating_sub(pair[0].timestamp))
            .collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).map(|gap| Duration::from_secs((*gap).max(1)))
    }

    /// What the gates of a validator ask for.
    #[must_use]
    pub fn sample(&self, head_age: Duration, period: Duration) -> Sample {
        let recent = self.sealers(usize::try_from(RECENT).unwrap_or(usize::MAX));
        let seat = |v: &Address| Seat { validator: v.0, sealing: recent.contains(v) };
        let mut set: Vec<Seat> = self.next.iter().map(seat).collect();
        set.sort_unstable_by_key(|seat| seat.validator);
        let blocks = self.last(span(self.next.len()));
        Sample {
            head: self.head().number,
            head_age,
            period,
            set,
            blocks: blocks.len(),
            first_round: blocks.iter().filter(|block| block.round == 0).count(),
            order: None,
            order_before: None,
        }
    }
}

/// How many blocks tell about so many validators: 8, or one round of proposers.
#[must_use]
pub(super) fn span(validators: usize) -> usize {
    validators.max(8)
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
        sealers,
    }
}
