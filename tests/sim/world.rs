//! The consensus of one network as a pure function: who is there, what time it is → which blocks are decided.
//!
//! There are no messages between the nodes. Whichever process looks first after a block is due decides it on behalf of
//! all that would have voted for it, so a loaded machine slows the chain down but never causes a round change; only
//! absent, silent and frozen validators do. The rules are those of a recorded network: round robin, a timeout that
//! doubles with every round, a quorum of the epoch's list, a halt without one.

use super::chain::{Block, Params, Proposal, quorum, rules_at};

/// One running process of the network, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) pid: u32,
    /// When it joined, in milliseconds since 1970.
    pub(crate) joined: u64,
    pub(crate) version: String,
    /// Forks its program knows.
    pub(crate) forks: Vec<u64>,
    /// Whether its consensus engine is on and not mute.
    pub(crate) mining: bool,
    /// Whether it has every block of the network and gets each new one at once.
    pub(crate) following: bool,
    /// Whether others keep it as a peer.
    pub(crate) connected: bool,
    /// The height above which it takes no part.
    pub(crate) freeze: Option<u64>,
    /// Members that it has removed from its peers.
    pub(crate) removed: Vec<usize>,
    /// Number and hash of the highest block in its database, unless it is following.
    pub(crate) top: Option<(u64, String)>,
}

impl Member {
    /// Whether the two have each other as peers, as far as `other` is concerned: `self` may have none at all.
    pub(crate) fn sees(&self, other: &Member) -> bool {
        other.connected
            && other.index != self.index
            && !self.removed.contains(&other.index)
            && !other.removed.contains(&self.index)
    }

    /// Whether `other` has the same key and has taken the peers over, since it came later.
    pub(crate) fn is_outdone_by(&self, other: &Member) -> bool {
        other.index == self.index && (other.joined, other.pid) > (self.joined, self.pid)
    }
}

/// The network's chain and the round being played for the next block.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) blocks: Vec<Block>,
    pub(crate) round: u64,
    /// When this round began, in milliseconds since 1970.
    pub(crate) round_began: u64,
    /// Before this time no block is proposed.
    pub(crate) due: u64,
}

impl World {
    /// A network that has decided nothing yet.
    pub(crate) fn new(genesis: Block) -> World {
        World { blocks: vec![genesis], round: 0, round_began: 0, due: 0 }
    }

    /// The last decided block.
    pub(crate) fn tip(&self) -> &Block {
        &self.blocks[self.blocks.len() - 1]
    }

    /// Votes and rounds live in memory only: when the first node arrives, the round begins anew.
    pub(crate) fn wake(&mut self, params: &Params, now: u64) {
        (self.round, self.round_began) = (0, now);
        self.due = self.due.min(now + params.period);
    }

    /// Replaces everything above the common ancestor by the chain of a node that holds the longer one, or the only one.
    /// Tells how many blocks stayed.
    pub(crate) fn adopt(&mut self, chain: &[Block]) -> usize {
        let common = common(&self.blocks, chain);
        self.blocks.truncate(common);
        self.blocks.extend_from_slice(&chain[common..]);
        common
    }

    /// Decides every block and passes every round that is due at `now`; whether anything changed.
    pub(crate) fn advance(&mut self, params: &Params, members: &[Member], now: u64) -> bool {
        let mut changed = false;
        loop {
            if now < self.due || !members.iter().any(|member| member.following && member.mining) {
                return changed;
            }
            if let Some(proposal) = self.proposal(params, members, now) {
                let block = params.seal(self.tip(), proposal);
                self.blocks.push(block);
                // The cadence is kept while we are in time, and begins anew after a delay.
                let late = now > self.due + params.period / 2;
                self.due = if late { now } else { self.due } + params.period;
                (self.round, self.round_began) = (0, now);
            } else if now >= self.round_ends(params) {
                self.round_began = self.round_ends(params);
                self.round += 1;
            } else {
                return changed;
            }
            changed = true;
        }
    }

    /// When there is next something to decide or to give up, if nothing else happens.
    pub(crate) fn deadline(&self, params: &Params, now: u64) -> u64 {
        if now < self.due { self.due } else { self.round_ends(params) }
    }

    fn round_ends(&self, params: &Params) -> u64 {
        // Beyond this many rounds a simulated halt has outlasted every test.
        self.round_began.saturating_add(params.timeout << self.round.min(20))
    }

    /// The block that the current round decides, if its proposer is there and enough others agree with it.
    fn proposal(&self, params: &Params, members: &[Member], now: u64) -> Option<Proposal> {
        let number = self.tip().number + 1;
        let list = params.validators_at(number);
        let voters: Vec<&Member> = members
            .iter()
            .filter(|member| member.following && member.mining && list.contains(&member.index))
            .filter(|member| member.freeze.is_none_or(|height| number <= height))
            .collect();
        let proposer = params.proposer(self.tip(), self.round);
        let proposer = voters.iter().find(|member| member.index == proposer)?;
        let rules = rules_at(&proposer.forks, number);
        let mut votes: Vec<usize> = voters
            .iter()
            .filter(|member| rules_at(&member.forks, number) == rules)
            .map(|member| member.index)
            .collect();
        votes.sort_unstable();
        // Two processes with one key still have one vote.
        votes.dedup();
        (votes.len() >= quorum(list.len())).then(|| Proposal {
            miner: proposer.index,
            round: self.round,
            votes,
            rules,
            version: proposer.version.clone(),
            now_ms: now,
        })
    }
}

/// How many blocks two chains share. Equal hashes mean equal histories, so the search can halve.
pub(crate) fn common(a: &[Block], b: &[Block]) -> usize {
    let (mut low, mut high) = (0, a.len().min(b.len()));
    while low < high {
        let middle = (low + high) / 2;
        if a[middle].hash == b[middle].hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests;
