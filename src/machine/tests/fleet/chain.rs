//! The chain as a tree of blocks: which are decided, which set seals each height, and which proposer is due.
//!
//! A block is decided by the votes of a quorum of nodes that stand at its parent, wherever that is: nothing but the
//! nodes' own behaviour keeps them from deciding a height twice, and that is a law of [`super::laws`].

use super::dice::Dice;

/// A block, by its place in the tree.
pub(super) type Id = usize;

/// Nodes by number, as bits.
pub(super) type Nodes = u128;

#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) height: u64,
    pub(super) parent: Id,
    pub(super) hash: String,
    /// When it was decided, in milliseconds.
    pub(super) time: u64,
    pub(super) round: u32,
    pub(super) proposer: usize,
    /// The nodes that have voted for it: what the next block shows as `prevCommittedSeal`.
    pub(super) voters: Nodes,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) blocks: Vec<Block>,
    /// The decided blocks by height, from the first.
    decided: Vec<Id>,
    first: u64,
    /// The length of an epoch.
    pub(super) epoch: u64,
    /// The sets by epoch from that of the first block, each in the order of proposers.
    sets: Vec<Vec<usize>>,
}

impl Chain {
    /// A chain whose last `length` blocks up to `height` were all sealed by all of `set`.
    pub(super) fn new(height: u64, length: u64, epoch: u64, set: &[usize]) -> Chain {
        let first = height - length;
        let epochs = height / epoch - first.saturating_sub(1) / epoch + 1;
        let sets = (0..epochs).map(|_| set.to_vec()).collect();
        let mut chain = Chain { blocks: Vec::new(), decided: Vec::new(), first, epoch, sets };
        let voters = set.iter().fold(0, |bits, node| bits | 1 << node);
        for h in first..=height {
            let parent = chain.blocks.len().saturating_sub(1);
            let proposer = set[h as usize % set.len()];
            let id = chain.add(h, parent, 0, 0, proposer, voters);
            chain.decided.push(id);
        }
        chain
    }

    fn add(&mut self, height: u64, parent: Id, time: u64, round: u32, proposer: usize, voters: Nodes) -> Id {
        let id = self.blocks.len();
        self.blocks.push(Block { height, parent, hash: format!("0xb{id:x}"), time, round, proposer, voters });
        id
    }

    /// A block on `parent` that is decided, or, without voters, a node's own.
    pub(super) fn grow(&mut self, parent: Id, time: u64, round: u32, proposer: usize, voters: Nodes) -> Id {
        let height = self.blocks[parent].height + 1;
        let id = self.add(height, parent, time, round, proposer, voters);
        if voters != 0 && self.decided_at(height).is_none() {
            self.decided.push(id);
        }
        id
    }

    /// The last decided block.
    pub(super) fn tip(&self) -> Id {
        self.decided[self.decided.len() - 1]
    }

    /// The decided blocks above `id` are in no database, so there are none.
    pub(super) fn lose_above(&mut self, id: Id) {
        let length = self.height(id) + 1 - self.first;
        self.decided.truncate(length as usize);
    }

    pub(super) fn height(&self, id: Id) -> u64 {
        self.blocks[id].height
    }

    pub(super) fn top(&self) -> u64 {
        self.height(self.tip())
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The decided block of a height.
    pub(super) fn decided_at(&self, height: u64) -> Option<Id> {
        self.decided.get(height.checked_sub(self.first)? as usize).copied()
    }

    pub(super) fn is_decided(&self, id: Id) -> bool {
        self.decided_at(self.height(id)) == Some(id)
    }

    /// The block at `height` of the chain that ends with `head`.
    pub(super) fn at(&self, head: Id, height: u64) -> Option<Id> {
        if height > self.height(head) || height < self.first {
            return None;
        }
        let mut id = head;
        while self.height(id) > height {
            if self.is_decided(id) {
                return self.decided_at(height);
            }
            id = self.blocks[id].parent;
        }
        Some(id)
    }

    /// The validators that seal a height, in the order of proposers.
    pub(super) fn set(&self, height: u64) -> &[usize] {
        let epoch = |h: u64| h.saturating_sub(1) / self.epoch;
        let at = epoch(height).saturating_sub(epoch(self.first)) as usize;
        &self.sets[at.min(self.sets.len() - 1)]
    }

    /// The last height that the set of `height` seals.
    pub(super) fn until(&self, height: u64) -> u64 {
        height.div_ceil(self.epoch) * self.epoch
    }

    /// Draws the set of the next epoch.
    pub(super) fn draw(&mut self, mut set: Vec<usize>, dice: &mut Dice) {
        dice.shuffle(&mut set);
        self.sets.push(set);
    }

    /// The proposer of a round of the height after `head`.
    pub(super) fn proposer(&self, head: Id, round: u32) -> usize {
        let block = &self.blocks[head];
        let set = self.set(block.height + 1);
        let last = set.iter().position(|node| *node == block.proposer).unwrap_or(0);
        set[(last + 1 + round as usize) % set.len()]
    }

    /// The blocks from `head` back, the newest first.
    pub(super) fn back_from(&self, head: Id) -> impl Iterator<Item = &Block> {
        let first = self.first;
        let parent = move |block: &&Block| (block.height > first).then(|| &self.blocks[block.parent]);
        std::iter::successors(Some(&self.blocks[head]), parent)
    }
}
