//! The chain: its constants, its blocks, and their encoding as headers.
//!
//! A block keeps only what was decided (who proposed it, in which round, who voted, under which rules). Addresses,
//! keys, signatures, validator order and the genesis block follow from the chain id by hashing, so that every process
//! of one network computes the same ones. Nothing here is cryptography: signatures are noise of the right length.

use super::extra::{Epoch, Extra, Header, Seal, vanity};
use super::hex;
use super::keccak::keccak256;
use serde::{Deserialize, Serialize};

/// When every simulated chain began, in seconds since 1970.
const GENESIS_TIME: u64 = 1_767_225_600;
/// The tip that recorded blocks carry.
const GAS_TIP: u128 = 27_600_000_000_000;
/// The diligence every candidate starts with.
const DILIGENCE: u64 = 1_900_000;

/// The constants that all nodes of a network share.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) chain_id: u64,
    /// Candidates 0 .. `validators`; nodes with a higher index are end nodes.
    pub(crate) validators: usize,
    /// Whether the validators without a process vote as the one that plays the round does.
    pub(crate) crowd: bool,
    pub(crate) epoch: u64,
    /// Fields of `extraData`: 10, or 9 as go-wbft has it.
    pub(crate) fields: u8,
    /// Milliseconds between blocks, and until round 0 is given up.
    pub(crate) period: u64,
    pub(crate) timeout: u64,
    /// Milliseconds by which the clocks of the proposers are slow.
    pub(crate) slow: u64,
    /// Validator sets other than "all", each from the epoch that begins after a height.
    pub(crate) sets: Vec<(u64, Vec<usize>)>,
}

/// One decided block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) number: u64,
    pub(crate) hash: String,
    pub(crate) parent: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    /// Index of the proposer.
    pub(crate) miner: usize,
    pub(crate) round: u64,
    pub(crate) prev_round: u64,
    /// Indices of all who voted for this block, in time or late.
    pub(crate) votes: Vec<usize>,
    pub(crate) prev_votes: Vec<usize>,
    /// The forks active in this block.
    pub(crate) rules: Vec<u64>,
    /// Version of the proposer's program.
    pub(crate) version: String,
    /// Makes a block that is decided a second time a different one.
    pub(crate) salt: u64,
}

/// The part of a block that its proposer adds to the parent.
pub(crate) struct Proposal {
    pub(crate) miner: usize,
    pub(crate) round: u64,
    pub(crate) votes: Vec<usize>,
    pub(crate) rules: Vec<u64>,
    pub(crate) version: String,
    pub(crate) now_ms: u64,
}

/// The forks of `known` that are active at `height`.
pub(crate) fn rules_at(known: &[u64], height: u64) -> Vec<u64> {
    let mut active: Vec<u64> = known.iter().copied().filter(|fork| *fork <= height).collect();
    active.sort_unstable();
    active
}

/// Votes needed among `n` validators.
pub(crate) fn quorum(n: usize) -> usize {
    n - n.saturating_sub(1) / 3
}

impl Params {
    /// Block 0.
    pub(crate) fn genesis(&self) -> Block {
        let mut block = Block {
            number: 0,
            hash: String::new(),
            parent: hex::data(&[0; 32]),
            time: GENESIS_TIME,
            miner: usize::MAX,
            round: 0,
            prev_round: 0,
            votes: Vec::new(),
            prev_votes: Vec::new(),
            rules: Vec::new(),
            version: String::new(),
            salt: 0,
        };
        block.hash = hex::data(&self.header(&block, 0).hash());
        block
    }

    /// The block that follows `parent`.
    pub(crate) fn seal(&self, parent: &Block, proposal: Proposal) -> Block {
        let mut block = Block {
            number: parent.number + 1,
            hash: String::new(),
            parent: parent.hash.clone(),
            time: parent.time.max(proposal.now_ms.saturating_sub(self.slow) / 1000),
            miner: proposal.miner,
            round: proposal.round,
            prev_round: parent.round,
            votes: proposal.votes,
            prev_votes: parent.votes.clone(),
            rules: proposal.rules,
            version: proposal.version,
            salt: proposal.now_ms,
        };
        block.hash = hex::data(&self.header(&block, 0).hash());
        block
    }

    /// The address of a node.
    pub(crate) fn address(&self, index: usize) -> [u8; 20] {
        let mut address = [0; 20];
        if index != usize::MAX {
            address.copy_from_slice(&self.node_id(index)[12..]);
        }
        address
    }

    /// The p2p identity of a node; its last 20 bytes are the address.
    pub(crate) fn node_id(&self, index: usize) -> [u8; 32] {
        keccak256(format!("simnode {} of chain {}", index, self.chain_id).as_bytes())
    }

    /// The BLS public key of a validator.
    pub(crate) fn bls(&self, index: usize) -> Vec<u8> {
        self.noise(&format!("bls {index}"), 48)
    }

    /// The validators that seal block `number`, in the order of their seal bits.
    pub(crate) fn validators_at(&self, number: u64) -> Vec<usize> {
        self.chosen_at(number.saturating_sub(1) / self.epoch * self.epoch)
    }

    /// The validators in round-robin order whose turn it is to propose `number` in `round`.
    pub(crate) fn proposer(&self, parent: &Block, round: u64) -> usize {
        let list = self.validators_at(parent.number + 1);
        // A proposer that the new list does not have counts as its last entry, so that entry 0 is next.
        let last = list.iter().position(|index| *index == parent.miner).unwrap_or(list.len() - 1);
        list[(last as u64 + 1 + round) as usize % list.len()]
    }

    /// Whether `number` closes an epoch and carries the next validator list.
    pub(crate) fn is_epoch(&self, number: u64) -> bool {
        number.is_multiple_of(self.epoch)
    }

    /// The list that the epoch block `number` chooses, reshuffled each time.
    fn chosen_at(&self, number: u64) -> Vec<usize> {
        let set = self.sets.iter().rev().find(|(from, _)| *from <= number);
        let mut list = set.map_or_else(|| (0..self.validators).collect(), |(_, set)| set.clone());
        if number > 0 {
            let dice = self.noise(&format!("shuffle {number}"), 4 * list.len());
            for i in (1..list.len()).rev() {
                let draw =
                    u32::from_le_bytes([dice[4 * i], dice[4 * i + 1], dice[4 * i + 2], dice[4 * i + 3]]);
                list.swap(i, draw as usize % (i + 1));
            }
        }
        list
    }

    /// The epoch information that block `number` carries.
    pub(crate) fn epoch_info(&self, number: u64) -> Option<Epoch> {
        if !self.is_epoch(number) {
            return None;
        }
        let chosen = self.chosen_at(number);
        Some(Epoch {
            candidates: (0..self.validators).map(|index| (self.address(index), DILIGENCE)).collect(),
            bls: chosen.iter().map(|index| self.bls(*index)).collect(),
            validators: chosen,
        })
    }

    /// The header of `block` as `viewer` stores it: nodes may hold different prepare votes for the same block.
    pub(crate) fn header(&self, block: &Block, viewer: usize) -> Header {
        let randao = self.noise(&format!("randao {} {} {}", block.number, block.miner, block.salt), 64);
        let extra = self.extra(block, viewer, [randao.as_slice(), &[0]].concat());
        Header {
            parent: hash(&block.parent),
            miner: self.address(block.miner),
            state_root: keccak256(format!("state {:?}", block.rules).as_bytes()),
            number: block.number,
            time: block.time,
            mix: if block.number == 0 { [0; 32] } else { keccak256(&randao) },
            extra,
        }
    }

    fn extra(&self, block: &Block, viewer: usize, randao: Vec<u8>) -> Extra {
        let gas_tip = (self.fields == 10).then_some(GAS_TIP);
        let mut extra = Extra {
            vanity: Vec::new(),
            randao: Vec::new(),
            prev_round: block.prev_round,
            prev_prepared: None,
            prev_committed: None,
            round: block.round,
            prepared: None,
            committed: None,
            gas_tip,
            epoch: self.epoch_info(block.number),
        };
        if block.number == 0 {
            return extra;
        }
        let list = self.validators_at(block.number);
        extra.vanity = vanity(&block.version);
        extra.randao = randao;
        let viewer = if block.salt.is_multiple_of(4) { viewer } else { 0 };
        extra.prepared = self.quorum_seal(&list, block, &format!("prepared by {viewer}"));
        extra.committed = self.quorum_seal(&list, block, "committed");
        if block.number > 1 {
            let list = self.validators_at(block.number - 1);
            let seal =
                |what: &str| self.seal_of(&list, &block.prev_votes, &format!("{what} {}", block.parent));
            extra.prev_prepared = seal("prev-prepared");
            extra.prev_committed = seal("prev-committed");
        }
        extra
    }

    /// A block's own seal holds exactly the first quorum of votes; which ones were first is left to chance.
    fn quorum_seal(&self, list: &[usize], block: &Block, what: &str) -> Option<Seal> {
        let what = format!("{what} {} {}", block.number, block.salt);
        let dice = self.noise(&what, block.votes.len());
        let mut order: Vec<(u8, usize)> = dice.into_iter().zip(block.votes.iter().copied()).collect();
        order.sort_unstable();
        let first: Vec<usize> = order.iter().take(quorum(list.len())).map(|(_, index)| *index).collect();
        self.seal_of(list, &first, &what)
    }

    fn seal_of(&self, list: &[usize], votes: &[usize], what: &str) -> Option<Seal> {
        let positions: Vec<usize> = (0..list.len()).filter(|at| votes.contains(&list[*at])).collect();
        (!positions.is_empty()).then(|| Seal::new(&positions, list.len(), self.noise(what, 96)))
    }

    /// Bytes that look random and are the same for the same `what` on the same chain.
    pub(crate) fn noise(&self, what: &str, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(32))
            .flat_map(|part| keccak256(format!("{} {part} {what}", self.chain_id).as_bytes()))
            .collect();
        bytes.truncate(len);
        bytes
    }
}

/// The 32 bytes of a hash in hex.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    hex::decode(text).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params {
            chain_id: 8383,
            validators: 4,
            crowd: false,
            epoch: 10,
            fields: 10,
            period: 1000,
            timeout: 2000,
            slow: 0,
            sets: vec![(20, vec![0, 1, 3])],
        }
    }

    #[test]
    fn quorum_is_as_recorded() {
        assert_eq!((1..=7).map(quorum).collect::<Vec<_>>(), [1, 2, 3, 3, 4, 5, 5]);
    }

    #[test]
    fn validator_lists_change_at_epochs() {
        let params = params();
        assert_eq!(params.validators_at(0), [0, 1, 2, 3]);
        assert_eq!(params.validators_at(10), [0, 1, 2, 3]);
        assert_eq!(params.validators_at(11), params.validators_at(20));
        assert_eq!(params.validators_at(21).len(), 3);
        assert_eq!(params.epoch_info(10).unwrap().validators, params.validators_at(11));
        assert!(params.epoch_info(11).is_none());
    }

    #[test]
    fn a_block_decided_again_is_another_block() {
        let params = params();
        let decide = |now_ms| {
            let proposal = Proposal {
                miner: 0,
                round: 0,
                votes: vec![0, 1, 2],
                rules: Vec::new(),
                version: "v1.0.0".into(),
                now_ms,
            };
            params.seal(&params.genesis(), proposal)
        };
        assert_eq!(decide(5), decide(5));
        assert_ne!(decide(5).hash, decide(6).hash);
    }

    #[test]
    fn seals_hold_the_quorum_and_prev_seals_every_vote() {
        let params = params();
        let propose = |votes: Vec<usize>, now_ms| Proposal {
            miner: 0,
            round: 0,
            votes,
            rules: Vec::new(),
            version: "v1.0.0".into(),
            now_ms,
        };
        let one = params.seal(&params.genesis(), propose(vec![0, 1, 2, 3], 1));
        let two = params.seal(&one, propose(vec![0, 1, 3], 2));
        let extra = params.header(&one, 0).extra;
        assert!(extra.prev_committed.is_none());
        assert_eq!(extra.committed.unwrap().positions().len(), 3);
        assert_eq!(params.header(&two, 0).extra.prev_committed.unwrap().positions(), [0, 1, 2, 3]);
    }

    #[test]
    fn nodes_may_store_different_seals_of_one_block_with_one_hash() {
        let params = params();
        let proposal = Proposal {
            miner: 0,
            round: 0,
            votes: vec![0, 1, 2, 3],
            rules: Vec::new(),
            version: "v1.0.0".into(),
            now_ms: 4,
        };
        let block = params.seal(&params.genesis(), proposal);
        let views: Vec<Header> = (0..4).map(|viewer| params.header(&block, viewer)).collect();
        assert!(views.iter().all(|view| hex::data(&view.hash()) == block.hash));
        assert!(views.iter().any(|view| view.extra.encode() != views[0].extra.encode()));
    }
}
