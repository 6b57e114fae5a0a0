//! The node as its RPC servers see it: its chain, its peers, its options.
//!
//! How it stands to the network ([`Standing`]) follows the recordings: a node that was away waits for a sync round before
//! it catches up, a validator whose engine is off loses its peers and follows in bursts, a node that lacks a fork freezes
//! before it. What moves it is the engine.

use super::args::Args;
use super::chain::{Block, Params, rules_at};
use super::log;
use super::options::{Lie, Mute, Options};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How a node stands to the chain of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Has every block and gets each new one.
    Following,
    /// Fetches what it lacks at `fetch` (milliseconds since 1970).
    Behind { fetch: u64 },
    /// A validator with its engine off: it gets no new block but what a sync brings.
    Silent,
    /// Without peers.
    Alone,
    /// Told by `engine_forkchoiceUpdated` to leave imports to a consensus client that does not exist.
    Halted,
    /// Cannot or may not import the next block, since `since`.
    Frozen { since: u64 },
}

/// The node as RPC shows it at this moment.
pub(crate) struct State {
    pub(crate) chain: Vec<Block>,
    /// Whether the consensus engine is on.
    pub(crate) mining: bool,
    /// Whether `miner_start` was called.
    pub(crate) start_requested: bool,
    /// When an engine that was told to stop has stopped.
    pub(crate) engine_ends: Option<u64>,
    pub(crate) standing: Standing,
    /// The other members: index, version.
    pub(crate) peers: Vec<(usize, String)>,
    /// The network's height when last seen.
    pub(crate) highest: u64,
    /// Whether a sync round is under way.
    pub(crate) fetching: bool,
    /// Members removed by `admin_removePeer`.
    pub(crate) removed: Vec<usize>,
    /// Whether a finalized block was announced, which ends all imports for ever.
    pub(crate) halted: bool,
    /// Hashes of the blocks above the head that an unclean end has left in the database.
    pub(crate) buried: Vec<String>,
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
    /// Answers that carried the present lie.
    lies: AtomicU64,
}

impl Node {
    /// A node that has loaded `chain`.
    pub(crate) fn new(args: Args, params: Params, chain: Vec<Block>, halted: bool) -> Node {
        let state = State {
            chain,
            mining: args.mine,
            start_requested: false,
            engine_ends: None,
            standing: Standing::Behind { fetch: 0 },
            peers: Vec::new(),
            highest: 0,
            fetching: false,
            removed: Vec::new(),
            halted,
            buried: Vec::new(),
        };
        let options = RwLock::new(Arc::new(args.options.clone()));
        let (state, subscribers) = (Mutex::new(state), Mutex::default());
        Node { args, params, state, options, subscribers, lies: AtomicU64::new(0) }
    }

    /// The state, locked.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops an engine whose time is up.
    pub(crate) fn settle(&self, now: u64) {
        let mut state = self.state();
        if state.engine_ends.take_if(|end| now >= *end).is_some() {
            state.mining = false;
        }
    }

    /// Whether the engine is on and sends consensus messages.
    pub(crate) fn takes_part(&self, state: &State) -> bool {
        let is_mute = match self.options().mute {
            Mute::Never => false,
            Mute::UntilStart => !state.start_requested,
            Mute::Always => true,
        };
        state.mining && !is_mute
    }

    /// The options in force.
    pub(crate) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other options in force.
    pub(crate) fn set_options(&self, options: Options) {
        if options.rpc_lie != self.options().rpc_lie {
            self.lies.store(0, Ordering::SeqCst);
        }
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// Every block from now on.
    pub(crate) fn subscribe(&self) -> Receiver<Block> {
        let (sender, receiver) = unbounded();
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Blocks by which a kill takes the head back.
    pub(crate) fn rewind(&self) -> u64 {
        if self.args.archive { 0 } else { self.options().rewind }
    }

    /// Whether an answer carries the lie in force, which is about the `chain` or about the head. Each answer counts.
    pub(crate) fn lies(&self, about_chain: bool) -> bool {
        let Some(Lie { chain, answers }) = self.options().rpc_lie else { return false };
        chain == about_chain && self.lies.fetch_add(1, Ordering::SeqCst) < answers
    }

    /// Sends a block to the subscribers.
    pub(crate) fn announce(&self, block: &Block) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(block.clone()).is_ok());
    }

    /// Whether the node's address is in the set that seals block `number`.
    pub(crate) fn is_validator_at(&self, number: u64) -> bool {
        self.params.validators_at(number).contains(&self.args.options.index)
    }
}

/// Takes back what a program with built-in fork heights does not accept: its fork is missing in these blocks. Returns
/// whether there were any.
pub(crate) fn check_forks(chain: &mut Vec<Block>, forks: &[u64]) -> bool {
    let bad = chain.iter().position(|block| {
        let wanted = rules_at(forks, block.number);
        wanted.len() > block.rules.len() && block.rules.iter().all(|fork| wanted.contains(fork))
    });
    if let Some(bad) = bad {
        log::warn("Rewinding chain to upgrade configuration", &[("rewindto", &(bad - 1))]);
        chain.truncate(bad);
    }
    bad.is_some()
}
