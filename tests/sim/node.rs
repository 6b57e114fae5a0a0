//! The node itself: its view of the chain, and how it keeps up with the network.
//!
//! [`Node`] is what the RPC servers read; [`Engine`] is what moves it, one visit to the network at a time. How a node
//! stands to the network ([`Standing`]) follows the recordings: one that was away waits for a sync round before it
//! catches up, one whose engine is off loses its peers and follows in bursts, one that lacks a fork freezes before it.

use super::args::Args;
use super::chain::{Block, Params, rules_at};
use super::log;
use super::net::{Network, Visit};
use super::options::Options;
use super::store::Store;
use super::world::{Member, common};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How a node stands to the chain of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Has every block and gets each new one.
    Following,
    /// Fetches what it lacks at `fetch` (milliseconds since 1970).
    Behind { fetch: u64 },
    /// A validator with its engine off: no peers, one burst at `burst`.
    Silent { burst: u64 },
    /// Cannot or may not import the next block, since `since`.
    Frozen { since: u64 },
}

/// What RPC shows of the node at this moment.
pub(crate) struct State {
    pub(crate) chain: Vec<Block>,
    /// Whether the consensus engine is wanted on.
    pub(crate) mining: bool,
    pub(crate) standing: Standing,
    /// The other members: index, version.
    pub(crate) peers: Vec<(usize, String)>,
    /// The network's height when last seen.
    pub(crate) highest: u64,
    /// Whether a sync round is under way.
    pub(crate) fetching: bool,
}

impl State {
    /// The node's own head.
    pub(crate) fn head(&self) -> &Block {
        &self.chain[self.chain.len() - 1]
    }
}

/// The part of a node that its RPC servers share.
pub(crate) struct Node {
    pub(crate) args: Args,
    pub(crate) params: Params,
    state: Mutex<State>,
    options: RwLock<Arc<Options>>,
    subscribers: Mutex<Vec<Sender<Block>>>,
}

impl Node {
    /// A node that has loaded `chain`.
    pub(crate) fn new(args: Args, params: Params, chain: Vec<Block>) -> Node {
        let state = State {
            chain,
            mining: args.mine,
            standing: Standing::Behind { fetch: 0 },
            peers: Vec::new(),
            highest: 0,
            fetching: false,
        };
        let options = RwLock::new(Arc::new(args.options.clone()));
        Node { args, params, state: Mutex::new(state), options, subscribers: Mutex::default() }
    }

    /// The state, locked.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The options in force.
    pub(crate) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other options in force.
    pub(crate) fn set_options(&self, options: Options) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// Every block from now on.
    pub(crate) fn subscribe(&self) -> Receiver<Block> {
        let (sender, receiver) = unbounded();
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn announce(&self, block: &Block) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(block.clone()).is_ok());
    }

    /// Whether the node's address is in the set that seals block `number`.
    pub(crate) fn is_validator_at(&self, number: u64) -> bool {
        self.params.validators_at(number).contains(&self.args.options.index)
    }
}

/// Takes back what a program with built-in fork heights does not accept: its fork is missing in these blocks.
pub(crate) fn check_forks(chain: &mut Vec<Block>, forks: &[u64]) {
    let bad = chain.iter().position(|block| {
        let wanted = rules_at(forks, block.number);
        wanted.len() > block.rules.len() && block.rules.iter().all(|fork| wanted.contains(fork))
    });
    if let Some(bad) = bad {
        log::warn("Rewinding chain to upgrade configuration", &[("rewindto", &(bad - 1))]);
        chain.truncate(bad);
    }
}

/// What moves a node.
pub(crate) struct Engine {
    node: Arc<Node>,
    network: Network,
    store: Store,
    me: Member,
    /// When the network has next something to do, as seen at the last visit.
    next: u64,
    /// Set when the head was once taken back on purpose.
    went_back: bool,
}

impl Engine {
    /// The engine of `node`, which keeps its blocks in `store`.
    pub(crate) fn new(node: Arc<Node>, network: Network, store: Store, me: Member) -> Engine {
        Engine { node, network, store, me, next: 0, went_back: false }
    }

    /// One visit to the network, if there is a reason for one.
    pub(crate) fn tick(&mut self, now: u64) -> std::io::Result<()> {
        let options = self.node.options();
        let standing = self.node.state().standing;
        let own_time = match standing {
            Standing::Behind { fetch } => now + options.period / 2 >= fetch,
            Standing::Silent { burst } => now >= burst,
            Standing::Following | Standing::Frozen { .. } => false,
        };
        let toggled = self.node.state().mining != self.me.mining;
        if !(own_time || toggled || self.network.is_stale() || now >= self.next) {
            return Ok(());
        }
        let node = self.node.clone();
        let mut visit = self.network.visit()?;
        let mut state = node.state();
        let before = state.chain.len();
        let mut kept = before;
        self.me.mining = state.mining;
        let mut turn = Turn { node: &node, options: &options, visit: &mut visit, state: &mut state, now };
        kept = kept.min(turn.stand());
        self.me.following = turn.state.standing == Standing::Following;
        self.me.connected = matches!(turn.state.standing, Standing::Following | Standing::Behind { .. });
        turn.visit.advance(&self.me, now);
        if self.me.following {
            kept = kept.min(turn.import());
        }
        turn.look_around(&self.me);
        kept = kept.min(turn.go_back(&mut self.went_back));
        visit.leave(&self.me)?;
        self.next = self.network.deadline(now);
        self.store.save(&state.chain, options.rewind)?;
        let fresh: Vec<Block> = state.chain[kept.min(state.chain.len())..].to_vec();
        drop(state);
        report(&fresh);
        fresh.iter().for_each(|block| node.announce(block));
        Ok(())
    }

    /// Milliseconds until the next tick is worth while.
    pub(crate) fn pause(&self, now: u64) -> u64 {
        let step = (self.node.options().period / 5).clamp(2, 50);
        match self.next.saturating_sub(now) {
            0 => step,
            wait => wait.min(step),
        }
    }

    /// Leaves the network, writes everything, and hands the store (with its lock) back.
    pub(crate) fn stop(mut self) -> std::io::Result<Store> {
        self.network.quit();
        let chain = self.node.state().chain.clone();
        self.store.save(&chain, 0)?;
        Ok(self.store)
    }
}

/// One node's turn inside a visit.
struct Turn<'a, 'v> {
    node: &'a Node,
    options: &'a Options,
    visit: &'a mut Visit<'v>,
    state: &'a mut State,
    now: u64,
}

impl Turn<'_, '_> {
    /// Decides how the node stands from now on; tells how many blocks of its chain are untouched.
    fn stand(&mut self) -> usize {
        let all = self.state.chain.len();
        if self.options.freeze.is_some_and(|height| self.state.head().number >= height) {
            self.freeze();
            return all;
        }
        if self.is_silent() {
            return self.stay_silent();
        }
        let held = self.visit.others.iter().any(|member| member.following);
        let tip = self.visit.world().tip();
        let (ours, theirs) = (self.state.head(), (tip.number, &tip.hash));
        if !held || ours.number > theirs.0 {
            if self.state.standing != Standing::Following || ours.hash != *theirs.1 {
                let chain = std::mem::take(&mut self.state.chain);
                self.visit.publish(&chain);
                self.state.chain = chain;
                if !held {
                    self.visit.wake(self.now);
                }
            }
            self.state.standing = Standing::Following;
            return all;
        }
        if ours.hash == *theirs.1 {
            self.state.standing = Standing::Following;
            return all;
        }
        if !self.can_import() {
            self.freeze();
            return self.propose_alone();
        }
        match self.state.standing {
            Standing::Following => self.import(),
            Standing::Behind { fetch } if fetch > 0 && self.now >= fetch => {
                self.state.fetching = false;
                let kept = self.import();
                if self.state.head().hash == self.visit.world().tip().hash {
                    self.state.standing = Standing::Following;
                }
                kept
            }
            Standing::Behind { fetch } if fetch > 0 => {
                // The sync round shows itself for a moment, in which the engine is off.
                self.state.fetching = self.now + self.options.period / 2 >= fetch;
                all
            }
            _ => {
                self.state.standing = Standing::Behind { fetch: self.now + self.options.catchup_delay() };
                all
            }
        }
    }

    /// Takes over what the network has and the node can follow; tells how many blocks stayed.
    fn import(&mut self) -> usize {
        let world = &self.visit.world().blocks;
        let kept = common(&self.state.chain, world);
        let forks = &self.node.args.options.fork;
        let limit = self.options.freeze.unwrap_or(u64::MAX);
        let good = world[kept..]
            .iter()
            .take_while(|block| block.number <= limit && rules_at(forks, block.number) == block.rules);
        let good: Vec<Block> = good.cloned().collect();
        if kept < self.state.chain.len() && kept + good.len() <= self.state.chain.len() {
            // What can be followed is not longer than what we have: nothing to gain.
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

    /// A validator whose engine is off. Nodes that are no validators need none to follow.
    fn is_silent(&self) -> bool {
        !self.state.mining && self.node.is_validator_at(self.state.head().number + 1)
    }

    fn stay_silent(&mut self) -> usize {
        let Standing::Silent { burst } = self.state.standing else {
            self.state.standing = Standing::Silent { burst: self.now + self.options.redial_interval() };
            return self.state.chain.len();
        };
        if self.now < burst {
            return self.state.chain.len();
        }
        self.state.standing = Standing::Silent { burst: self.now + self.options.redial_interval() };
        self.import()
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
            super::chain::Proposal {
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

    /// Notes who is there, as far as the node's standing lets it see them.
    fn look_around(&mut self, me: &Member) {
        let mut peers: Vec<(usize, String)> = self
            .visit
            .others
            .iter()
            .filter(|member| member.connected && member.index != me.index)
            .map(|member| (member.index, member.version.clone()))
            .collect();
        peers.sort();
        match self.state.standing {
            Standing::Following | Standing::Behind { .. } => {}
            Standing::Silent { .. } => peers.clear(),
            Standing::Frozen { since } => {
                // Each failed sync round drops the peer it was tried with.
                let failed = (self.now - since) / (10 * self.options.period);
                peers.truncate(peers.len().saturating_sub(failed as usize));
            }
        }
        self.state.peers = peers;
        self.state.highest = self.visit.world().tip().number;
    }

    /// The switch that makes a head go backwards, once.
    fn go_back(&mut self, went_back: &mut bool) -> usize {
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

fn report(fresh: &[Block]) {
    let Some(last) = fresh.last() else { return };
    let hash = format!("{}..{}", &last.hash[2..8], &last.hash[last.hash.len() - 6..]);
    let blocks = fresh.len();
    log::info(
        "Imported new chain segment",
        &[("number", &last.number), ("hash", &hash), ("blocks", &blocks)],
    );
}
