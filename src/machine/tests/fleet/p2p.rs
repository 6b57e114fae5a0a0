//! Connections and synchronisation, as measured (`wbft/README.md`, sections 5, 8 and 10).
//!
//! Validators whose engine is on are connected, and so are those whose engine is off, each among themselves. A silent
//! validator drops a signing one at its first consensus message and finds it again by a redial, for a moment. Peers
//! refuse an address that has connected within 30 s.

use super::chain::Id;
use super::sim::{Sim, What};

/// A connection is refused this long after one was accepted, and dialled anew after this time.
const REFUSED: u64 = 30_000;
const REDIAL: u64 = 35_000;
/// A chain without a block for this time stands still.
const STANDS: u64 = 5_000;

impl Sim {
    /// The node looks for its peers: at once, or when they accept its address again.
    pub(super) fn dial(&mut self, i: usize, pid: u32) {
        let home = &self.homes[i];
        let last = home.accepted.into_iter().chain(home.burnt).max();
        let refused = self.scenario.public && last.is_some_and(|at| self.now < at + REFUSED);
        let wait = if refused { REDIAL + self.dice.within(0, 1_000) } else { self.dice.within(100, 400) };
        if refused {
            self.note(i, || "its peers refuse its address".to_owned());
        }
        self.after(wait, What::Open(i, pid));
    }

    pub(super) fn open(&mut self, i: usize, pid: u32) {
        let now = self.now;
        let Some(node) = self.homes[i].process(pid).filter(|node| !node.unpeered) else { return };
        (node.open, node.greeted) = (true, now);
        self.homes[i].accepted = Some(now);
        self.survey_peers();
        self.schedule_round(self.homes[i].head);
    }

    /// A silent validator drops the peers that sign, at a consensus message.
    pub(super) fn drop_signers(&mut self, i: usize, pid: u32) {
        let signers = self.has_signers(i);
        let silent = self.is_silent(i);
        let now = self.now;
        let Some(node) = self.homes[i].process(pid) else { return };
        node.drop_due = false;
        if silent && signers && node.shunned.is_none() {
            node.shunned = Some(now);
            let wait = REDIAL + self.dice.within(0, 1_000);
            self.after(wait, What::Redial(i, pid));
        }
    }

    pub(super) fn redial(&mut self, i: usize, pid: u32) {
        let now = self.now;
        let Some(node) = self.homes[i].process(pid) else { return };
        (node.shunned, node.cut, node.greeted) = (None, false, now);
        self.homes[i].accepted = Some(now);
        self.survey_peers();
        self.schedule_round(self.homes[i].head);
    }

    pub(super) fn unpeer(&mut self, i: usize, pid: u32) {
        if let Some(node) = self.homes[i].process(pid) {
            (node.open, node.unpeered) = (false, true);
        }
    }

    /// A node that signs no more has been dropped by its silent peers; it is found again by a redial.
    pub(super) fn falls_silent(&mut self, i: usize, pid: u32) {
        let set = self.chain.set(self.chain.top() + 1);
        let alone = !set.iter().any(|j| self.is_connected(i, *j));
        if let Some(node) =
            self.homes[i].process(pid).filter(|node| alone && node.open && node.shunned.is_none())
        {
            node.cut = true;
            let wait = REDIAL - self.dice.within(0, 5_000);
            self.after(wait, What::Redial(i, pid));
        }
    }

    /// The node connects to one of its peers anew, so that both learn of each other's head.
    pub(super) fn greet(&mut self, i: usize, turn: u32) {
        let peers: Vec<usize> = (0..self.homes.len()).filter(|j| self.is_connected(i, *j)).collect();
        if let Some(at) = (turn as usize).checked_rem(peers.len()) {
            let j = peers[at];
            self.note(i, || format!("connects to {j} anew"));
            self.greetings.insert((i.min(j), i.max(j)), self.now);
            self.survey_peers();
        }
    }

    /// Whether it is a validator whose engine is off.
    fn is_silent(&self, i: usize) -> bool {
        let member = self.chain.set(self.chain.top() + 1).contains(&i);
        member && self.homes[i].serving().is_some_and(|node| !node.engine)
    }

    fn is_open(&self, i: usize) -> bool {
        self.homes[i].serving().is_some_and(|node| node.open)
    }

    /// Whether another validator signs that can be connected.
    fn has_signers(&self, i: usize) -> bool {
        let set = self.chain.set(self.chain.top() + 1);
        set.iter().any(|j| *j != i && self.is_open(*j) && !self.is_silent(*j))
    }

    pub(super) fn is_connected(&self, i: usize, j: usize) -> bool {
        if i == j || !self.is_open(i) || !self.is_open(j) {
            return false;
        }
        let node = |n: usize| self.homes[n].serving();
        if node(i).is_some_and(|node| node.cut) || node(j).is_some_and(|node| node.cut) {
            return false;
        }
        let shunned = |n: usize| node(n).is_some_and(|node| node.shunned.is_some());
        match (self.is_silent(i), self.is_silent(j)) {
            (true, true) => true,
            (true, false) => !shunned(i),
            (false, true) => !shunned(j),
            (false, false) => !shunned(i) && !shunned(j),
        }
    }

    /// After anything that connects or disconnects nodes: drops and syncs that follow.
    pub(super) fn survey_peers(&mut self) {
        for i in 0..self.homes.len() {
            if !self.is_open(i) {
                continue;
            }
            let silent = self.is_silent(i) && self.has_signers(i);
            let behind = self.best(i).is_some_and(|best| best != self.homes[i].head);
            let (drop, sync) = (self.dice.within(100, 2_000), self.dice.within(200, 1_000));
            let node = self.homes[i].node.as_mut().expect("it is open");
            let pid = node.pid;
            if silent && node.shunned.is_none() && !node.drop_due {
                node.drop_due = true;
                self.after(drop, What::Drop(i, pid));
            }
            let node = self.homes[i].node.as_mut().expect("it is open");
            if behind && !node.sync_due {
                node.sync_due = true;
                self.after(sync, What::Sync(i, pid));
            }
        }
    }

    /// The highest block that a node can have from itself and its peers, as far as its binary follows.
    fn best(&self, i: usize) -> Option<Id> {
        let home = &self.homes[i];
        let version = home.serving()?.version;
        let mut best = home.head;
        let mut peers = 0;
        for j in 0..self.homes.len() {
            if self.is_connected(i, j) {
                peers += 1;
                for id in [self.homes[j].head, self.homes[j].top] {
                    if self.chain.is_decided(id) && self.chain.height(id) > self.chain.height(best) {
                        best = id;
                    }
                }
            }
        }
        // A node that is all alone has what is in its database.
        if peers == 0 && self.homes.len() > 1 {
            return None;
        }
        if self.chain.is_decided(home.top) && self.chain.height(home.top) > self.chain.height(best) {
            best = home.top;
        }
        let mut height = self.chain.height(best);
        let from = self.chain.height(home.head);
        while height > from && !self.follows(i, version, height) {
            height -= 1;
        }
        self.chain.at(best, height).filter(|_| height > from)
    }

    pub(super) fn sync(&mut self, i: usize, pid: u32) {
        let best = self.best(i);
        let Some(node) = self.homes[i].process(pid) else { return };
        node.sync_due = false;
        let Some(best) = best else { return };
        let gap = self.chain.height(best) - self.chain.height(self.homes[i].head);
        if gap == 1 && self.now > self.chain.blocks[best].time + STANDS && !self.knows_of(i, best) {
            return;
        }
        self.adopt(i, best);
    }

    /// Whether a peer had the block when both greeted each other: what is announced later counts as its parent, so that a node
    /// one block below does not ask for it.
    fn knows_of(&self, i: usize, best: Id) -> bool {
        let greeted = |n: usize| self.homes[n].serving().map_or(0, |node| node.greeted);
        let mut have = (0..self.homes.len())
            .filter(|j| self.is_connected(i, *j) && self.homes[*j].head == best)
            .peekable();
        // Blocks that are in databases only come back with the first round.
        let anew = |j: usize| self.greetings.get(&(i.min(j), i.max(j))).copied().unwrap_or(0);
        have.peek().is_none()
            || have.any(|j| self.homes[j].head_since <= greeted(i).max(greeted(j)).max(anew(j)))
    }

    /// The node has a new head.
    pub(super) fn adopt(&mut self, i: usize, head: Id) {
        let now = self.now;
        let higher = self.chain.height(head) > self.chain.height(self.homes[i].top);
        let home = &mut self.homes[i];
        (home.head, home.head_since) = (head, now);
        if higher {
            home.top = head;
        }
        if let Some(node) = &mut home.node
            && node.engine
        {
            node.voting_since = now;
        }
        self.push_head(i);
        self.schedule_round(head);
    }
}
