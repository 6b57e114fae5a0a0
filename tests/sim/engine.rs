//! The engine of a node: what moves it, one visit to the network at a time.
//!
//! A visit has a fixed order: peers come or go, the node decides how it stands, whatever is due is decided on behalf of
//! all that vote, the node imports it, and the others are shown how it stands now.

use super::chain::Block;
use super::link::{Change, Link};
use super::log;
use super::net::{Network, Visit};
use super::node::{Node, Standing, State};
use super::store::Store;
use super::turn::{Sync, Turn};
use super::votes::Votes;
use super::world::Member;
use std::path::Path;
use std::sync::Arc;

/// The part of a node that moves it.
pub(crate) struct Engine {
    node: Arc<Node>,
    network: Network,
    store: Store,
    me: Member,
    /// Blocks above the head that an unclean end has left in the database.
    known: Vec<Block>,
    votes: Votes,
    contact: Contact,
    sync: Sync,
    /// When the network has next something to do, as seen at the last visit.
    next: u64,
    /// Set when the head was once taken back on purpose.
    went_back: bool,
}

/// The link of a node with what its peers remember of it.
struct Contact {
    link: Link,
    /// Whether peers have accepted the connection of this link.
    accepted: bool,
    /// Set when the node has dialled again.
    dialled: bool,
}

impl Contact {
    /// Lets peers come or go, and returns those that are there; `None` without a link.
    fn pass(
        &mut self,
        visit: &Visit,
        me: &Member,
        silent: bool,
        node: &Node,
        now: u64,
    ) -> std::io::Result<Option<Vec<Member>>> {
        let options = node.options();
        let peers: Vec<Member> = visit.others.iter().filter(|other| me.sees(other)).cloned().collect();
        let set = node.params.validators_at(visit.world().tip().number + 1);
        let noisy = peers.iter().any(|peer| peer.mining && set.contains(&peer.index));
        match self.link.pass(now, silent, noisy, &options) {
            Change::None => {}
            Change::Dropped => self.accepted = false,
            Change::Dialled => self.dialled = true,
        }
        if !self.link.is_up() || options.twin && visit.others.iter().any(|other| me.is_outdone_by(other)) {
            return Ok(None);
        }
        if !self.accepted && !peers.is_empty() {
            self.accepted = true;
            if options.public {
                visit.note_dial(options.address(), now)?;
            }
        }
        Ok(Some(peers))
    }
}

impl Engine {
    /// The engine of `node`, which keeps its blocks in `store` and its traces in `dir`.
    pub(crate) fn new(
        node: Arc<Node>,
        network: Network,
        (store, known): (Store, Vec<Block>),
        me: Member,
        dir: &Path,
        now: u64,
    ) -> Engine {
        let link = Link::open(now, network.last_dial(node.options().address()), &node.options());
        Engine {
            node,
            network,
            store,
            me,
            known,
            votes: Votes::new(dir.join("sim.votes")),
            contact: Contact { link, accepted: false, dialled: false },
            sync: Sync::default(),
            next: 0,
            went_back: false,
        }
    }

    /// One visit to the network, if there is a reason for one.
    pub(crate) fn tick(&mut self, now: u64) -> std::io::Result<()> {
        let options = self.node.options();
        let node = self.node.clone();
        node.settle(now);
        if node.args.is_dry() {
            return self.stay_dry(now);
        }
        let switched = {
            let state = node.state();
            node.takes_part(&state) != self.me.mining || state.removed != self.me.removed
        };
        let own_time = now >= self.deadline();
        if !(own_time || switched || self.network.is_stale() || now >= self.next) {
            return Ok(());
        }
        let mut visit = self.network.visit()?;
        let mut state = node.state();
        let before = state.chain.len();
        self.me.mining = node.takes_part(&state);
        self.me.freeze = options.freeze;
        self.me.removed.clone_from(&state.removed);

        let silent = !state.mining && node.is_validator_at(state.head().number + 1);
        let peers = self.contact.pass(&visit, &self.me, silent, &node, now)?;
        if std::mem::take(&mut self.contact.dialled) {
            self.sync.at = Some(now);
        }
        let has_link = peers.is_some();
        let peers = peers.unwrap_or_default();
        let is_tip = has_link
            && state.head().hash == visit.world().tip().hash
            && visit.offer(&peers).beyond.is_empty();
        self.votes.switch(self.me.mining, state.head(), is_tip, now);
        self.votes.propose(&node.params, &node.args.options, now);

        let mut turn = Turn {
            node: &node,
            options: &options,
            visit: &mut visit,
            state: &mut state,
            sync: &mut self.sync,
            peers,
            has_link,
            silent,
            now,
        };
        let mut kept = before.min(turn.stand());
        self.me.following = turn.state.standing == Standing::Following;
        self.me.connected = has_link && !matches!(turn.state.standing, Standing::Frozen { .. });
        turn.visit.advance(&self.me, now);
        if self.me.following {
            kept = kept.min(turn.import_all());
        }
        turn.look_around();
        kept = kept.min(turn.go_back(&mut self.went_back));
        if let Some(head) = turn.sync.restarted.take() {
            self.votes.start(&head, now);
        }
        self.me.top = (!self.me.following).then(|| top(&state, &mut self.known));
        // A block that others can see must survive the death of the process that decided it.
        self.store.save(&state.chain, node.rewind())?;
        visit.leave(&self.me)?;
        self.next = self.network.deadline(now);
        let voting = self.me.following && self.me.mining;
        self.votes.decide(state.chain.get(kept..).unwrap_or_default(), self.me.index, voting, now);
        let fresh = state.chain.get(kept..).unwrap_or_default();
        report(fresh);
        fresh.iter().for_each(|block| node.announce(block));
        Ok(())
    }

    /// A node that is in no network: nothing but a stale proposal can come of it, and what is imported from a file.
    fn stay_dry(&mut self, now: u64) -> std::io::Result<()> {
        let node = self.node.clone();
        let mut state = node.state();
        state.standing = Standing::Alone;
        self.me.mining = node.takes_part(&state);
        self.votes.switch(self.me.mining, state.head(), false, now);
        self.votes.propose(&node.params, &node.args.options, now);
        self.store.save(&state.chain, node.rewind())
    }

    /// When the node has next something to do of itself.
    fn deadline(&self) -> u64 {
        let fetch = match self.node.state().standing {
            Standing::Behind { fetch } => fetch.saturating_sub(self.node.options().period / 2),
            _ => u64::MAX,
        };
        let sync = self.sync.at.unwrap_or(u64::MAX);
        fetch.min(sync).min(self.contact.link.deadline()).min(self.votes.deadline())
    }

    /// Milliseconds until the next tick is worth while.
    pub(crate) fn pause(&self, now: u64) -> u64 {
        let step = (self.node.options().period / 5).clamp(2, 50);
        match self.next.min(self.deadline()).saturating_sub(now) {
            0 => step,
            wait => wait.min(step),
        }
    }

    /// Leaves the network, writes everything, and hands the store (with its lock) back. On a public address the dying
    /// node dials the peers that it still had, which they count as a connection of that address.
    pub(crate) fn stop(mut self, now: u64) -> std::io::Result<Store> {
        let options = self.node.options();
        let (chain, had_peers) = {
            let state = self.node.state();
            (state.chain.clone(), !state.peers.is_empty())
        };
        let dials = options.public && self.contact.link.is_up() && had_peers;
        self.network.quit(dials.then_some((options.address(), now)))?;
        self.store.save(&chain, options.stop_rewind)?;
        Ok(self.store)
    }
}

/// Number and hash of the highest block in the database. Known blocks that the chain has left behind are forgotten.
fn top(state: &State, known: &mut Vec<Block>) -> (u64, String) {
    let head = state.head();
    let linked = known.first().is_some_and(|first| {
        let parent = state.chain.get(first.number as usize - 1);
        let over = head.number.checked_sub(first.number).map(|at| known.get(at as usize));
        parent.is_some_and(|parent| parent.hash == first.parent)
            && over.is_none_or(|over| over.is_some_and(|over| over.hash == head.hash))
    });
    if !linked {
        known.clear();
    }
    let top = known.last().unwrap_or(head);
    (top.number, top.hash.clone())
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
