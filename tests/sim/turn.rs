//! One node's turn inside a visit: how it stands to the chain of the network, and what it takes over from it.
//!
//! The rules are those of the recordings. A node that was away waits for a sync round; a silent validator gets blocks by
//! sync rounds alone; a node without peers stands still; one that lacks a fork freezes before it.

use super::chain::{Block, Proposal, quorum, rules_at};
use super::log;
use super::net::{Offer, Visit};
use super::node::{Node, Standing, State};
use super::options::Options;
use super::sync;
use super::world::{Member, common};

/// The sync rounds of one process.
pub(crate) struct Sync {
    /// When the next one is due.
    pub(crate) at: Option<u64>,
    /// Whether the process has not completed one yet.
    first: bool,
    /// The head at which the end of the first one has started the engine again, below the network's head.
    pub(crate) restarted: Option<Block>,
}

impl Default for Sync {
    fn default() -> Sync {
        Sync { at: None, first: true, restarted: None }
    }
}

/// One node's turn inside a visit.
pub(crate) struct Turn<'a, 'v> {
    pub(crate) node: &'a Node,
    pub(crate) options: &'a Options,
    pub(crate) visit: &'a mut Visit<'v>,
    pub(crate) state: &'a mut State,
    pub(crate) sync: &'a mut Sync,
    /// The members that the node has as peers.
    pub(crate) peers: Vec<Member>,
    /// Whether it has those peers that are there, if any.
    pub(crate) has_link: bool,
    /// Whether it is a validator whose engine is off. Nodes that are no validators need none to follow.
    pub(crate) silent: bool,
    pub(crate) now: u64,
}

impl Turn<'_, '_> {
    /// Decides how the node stands from now on, and returns how many blocks of its chain are untouched.
    pub(crate) fn stand(&mut self) -> usize {
        let all = self.state.chain.len();
        if self.state.halted {
            self.state.standing = Standing::Halted;
            return all;
        }
        if self.options.freeze.is_some_and(|height| self.state.head().number >= height) {
            self.freeze();
            return all;
        }
        if self.is_cut_off() {
            self.state.fetching = false;
            self.state.standing = if self.silent { Standing::Silent } else { Standing::Alone };
            return all;
        }
        if self.silent { self.stay_silent() } else { self.follow() }
    }

    /// Whether the node can reach none of those it needs.
    fn is_cut_off(&self) -> bool {
        let set = self.node.params.validators_at(self.state.head().number + 1);
        if quorum(set.len()) == 1 && set.contains(&self.node.args.options.index) {
            return false;
        }
        let removed = &self.state.removed;
        let all_removed = self.peers.is_empty()
            && self.visit.others.iter().any(|other| other.connected && removed.contains(&other.index));
        !self.has_link || all_removed
    }

    /// A node whose engine is on, or that needs none.
    fn follow(&mut self) -> usize {
        let all = self.state.chain.len();
        let held = self.visit.others.iter().any(|member| member.following);
        let tip = self.visit.world().tip();
        let (ours, theirs) = (self.state.head(), (tip.number, &tip.hash));
        if self.state.standing == Standing::Following && self.is_extended() {
            // Decided with this node's vote a moment ago, also if whichever decided it is gone by now.
            return if self.can_import() { self.import_all() } else { self.refuse() };
        }
        if !held || ours.number > theirs.0 {
            if self.state.standing != Standing::Following || ours.hash != *theirs.1 {
                self.publish();
                if !held {
                    self.visit.wake(self.now);
                }
            }
            self.state.standing = Standing::Following;
            return self.recover();
        }
        if ours.hash == *theirs.1 {
            self.state.standing = Standing::Following;
            return self.recover();
        }
        if !self.can_import() {
            return self.refuse();
        }
        match self.state.standing {
            Standing::Following => self.import_all(),
            Standing::Behind { fetch } if fetch > 0 && self.now >= fetch => self.fetch(),
            Standing::Behind { fetch } if fetch > 0 => {
                // The sync round shows itself for a moment, in which the engine is off.
                self.state.fetching = self.now + self.options.period / 2 >= fetch;
                all
            }
            _ => {
                let fetch = self.sync.at.take().unwrap_or(self.now + self.delay());
                self.state.standing = Standing::Behind { fetch };
                all
            }
        }
    }

    /// Whether the chain of the network goes on where the node's own ends.
    fn is_extended(&self) -> bool {
        let world = &self.visit.world().blocks;
        let head = self.state.head();
        world.len() > self.state.chain.len()
            && world.get(head.number as usize).is_some_and(|block| block.hash == head.hash)
    }

    /// A block that the node's program does not accept.
    fn refuse(&mut self) -> usize {
        self.freeze();
        self.propose_alone()
    }

    /// The end of a sync round. The first of a process may end below the head that the others have reached by then.
    fn fetch(&mut self) -> usize {
        self.state.fetching = false;
        let first = std::mem::take(&mut self.sync.first);
        let tip = self.visit.world().tip().number;
        if first && self.options.short_sync > 0 {
            let height = tip.saturating_sub(self.options.short_sync);
            let kept = self.import(&Offer { height, beyond: Vec::new() });
            self.sync.restarted = Some(self.state.head().clone());
            self.state.standing = Standing::Behind { fetch: self.now + self.options.period };
            return kept;
        }
        let kept = self.import_all();
        if self.state.head().hash == self.visit.world().tip().hash {
            self.state.standing = Standing::Following;
        }
        kept
    }

    /// Gets back what the network has lost but a peer still has in its database.
    fn recover(&mut self) -> usize {
        let all = self.state.chain.len();
        let offer = self.visit.offer(&self.peers);
        if offer.beyond.is_empty() || !self.is_worth(&offer) {
            self.sync.at = None;
            return all;
        }
        if !self.is_time() {
            return all;
        }
        let kept = self.import(&offer);
        self.publish();
        kept
    }

    /// A validator whose engine is off gets no blocks but by a sync round.
    fn stay_silent(&mut self) -> usize {
        let all = self.state.chain.len();
        self.state.standing = Standing::Silent;
        self.state.fetching = false;
        if self.peers.is_empty() {
            self.sync.at = None;
            return all;
        }
        let offer = self.visit.offer(&self.peers);
        // The first round takes place in any case, the later ones for a reason.
        if (self.sync.first || self.sync.at.is_some() || self.is_worth(&offer)) && self.is_time() {
            let worth = self.is_worth(&offer);
            self.sync.first = false;
            return if worth { self.import(&offer) } else { all };
        }
        all
    }

    /// Whether the peers are far enough ahead for a sync round.
    fn is_worth(&self, offer: &Offer) -> bool {
        offer.top() >= self.state.head().number + sync::gap(self.sync.first)
    }

    /// Whether a sync round takes place now; if none is due one is arranged.
    fn is_time(&mut self) -> bool {
        let at = *self.sync.at.get_or_insert(self.now + self.delay());
        let due = self.now >= at;
        if due {
            self.sync.at = None;
        }
        due
    }

    fn delay(&self) -> u64 {
        let cycle = self.node.args.cycle;
        self.options.catchup.unwrap_or_else(|| cycle.delay(self.options.period, self.peers.len()))
    }

    fn publish(&mut self) {
        let chain = std::mem::take(&mut self.state.chain);
        self.visit.publish(&chain);
        self.state.chain = chain;
    }

    /// Takes over what the network has and the node can follow, and returns how many blocks stayed.
    pub(crate) fn import_all(&mut self) -> usize {
        self.import(&Offer { height: u64::MAX, beyond: Vec::new() })
    }

    /// Takes over what is on offer and the node can follow, and returns how many blocks stayed.
    fn import(&mut self, offer: &Offer) -> usize {
        let world = &self.visit.world().blocks;
        let kept = common(&self.state.chain, world);
        let forks = &self.node.args.options.fork;
        let limit = self.options.freeze.unwrap_or(u64::MAX);
        let good = world[kept..]
            .iter()
            .take_while(|block| block.number <= offer.height)
            .chain(&offer.beyond)
            .take_while(|block| block.number <= limit && rules_at(forks, block.number) == block.rules);
        let good: Vec<Block> = good.cloned().collect();
        if kept < self.state.chain.len() && kept + good.len() <= self.state.chain.len() {
            // The part that can be followed is not longer than the own chain: nothing to gain.
            return self.state.chain.len();
        }
        self.state.chain.truncate(kept);
        self.state.chain.extend(good);
        kept
    }

    fn can_import(&self) -> bool {
        let world = &self.visit.world().blocks;
        let next = world.get(common(&self.state.chain, world));
        next.is_none_or(|block| rules_at(&self.node.args.options.fork, block.number) == block.rules)
    }

    fn freeze(&mut self) {
        if !matches!(self.state.standing, Standing::Frozen { .. }) {
            self.state.standing = Standing::Frozen { since: self.now };
            let common = common(&self.state.chain, &self.visit.world().blocks);
            if let Some(bad) = self.visit.world().blocks.get(common) {
                report_bad(bad);
            }
        }
    }

    /// The recorded rarer case: the node was the proposer of the block at the fork and keeps its own.
    fn propose_alone(&mut self) -> usize {
        let all = self.state.chain.len();
        let common = common(&self.state.chain, &self.visit.world().blocks);
        if !self.options.own_block || common < all {
            return all;
        }
        let head = self.state.head();
        let index = self.node.args.options.index;
        let own = self.node.params.seal(
            head,
            Proposal {
                miner: index,
                round: 0,
                votes: head.votes.clone(),
                rules: rules_at(&self.node.args.options.fork, head.number + 1),
                version: self.node.args.options.version.clone(),
                now_ms: self.now,
            },
        );
        self.state.chain.push(own);
        all
    }

    /// Notes which members are there, as far as the node's standing lets it see them.
    pub(crate) fn look_around(&mut self) {
        let set = self.node.params.validators_at(self.state.head().number + 1);
        let me = self.node.args.options.index;
        // A silent validator drops those that send consensus messages, and keeps others that are silent as well.
        let is_kept = |other: &&Member| {
            let removed = self.state.removed.contains(&other.index) || other.removed.contains(&me);
            !other.mining && other.index != me && set.contains(&other.index) && !removed
        };
        let kept = self.visit.others.iter().filter(|_| self.silent && !self.has_link).filter(is_kept);
        let mut peers: Vec<(usize, String)> =
            self.peers.iter().chain(kept).map(|member| (member.index, member.version.clone())).collect();
        peers.sort();
        if let Standing::Frozen { since } = self.state.standing {
            // Each failed sync round drops the peer it was tried with.
            let failed = (self.now - since) / (10 * self.options.period);
            peers.truncate(peers.len().saturating_sub(failed as usize));
        }
        self.state.peers = peers;
        self.state.highest = self.visit.world().tip().number;
    }

    /// The switch that makes a head go backwards, once.
    pub(crate) fn go_back(&mut self, went_back: &mut bool) -> usize {
        let all = self.state.chain.len();
        let Some((blocks, height)) = self.options.backwards else { return all };
        if *went_back || self.state.head().number < height {
            return all;
        }
        *went_back = true;
        let left = all.saturating_sub(blocks as usize).max(1);
        self.state.chain.truncate(left);
        self.state.standing = Standing::Behind { fetch: 0 };
        left
    }
}

/// The banner that tells operators of a block which the node cannot import, though it may be the only one that cannot.
fn report_bad(block: &Block) {
    let Block { number, hash, .. } = block;
    let error = "invalid merkle root";
    log::error(
        &format!(
            "\n########## BAD BLOCK #########\nBlock: {number} ({hash})\nError: {error}\nPlatform: geth (devel) \
             go1.26.6 amd64 linux\nReceipts: \n##############################\n"
        ),
        &[],
    );
    let err = format!("retrieved hash chain is invalid: {error}");
    log::warn("Synchronisation failed, dropping peer", &[("err", &err)]);
}
