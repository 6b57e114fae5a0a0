//! How a height is decided: round robin proposers, round timers that double, and a quorum of nodes that stand at the same
//! block. Votes are in the memory of the processes only, so what a node has signed before it was started binds it to
//! nothing.

use super::chain::{Id, Nodes};
use super::scenario::Binary;
use super::sim::{Sim, What};
use crate::machine::quorum::{margin, quorum};

/// The time between two blocks, and that of round 0.
const PERIOD: u64 = 1_000;
const ROUND: u64 = 2_000;
/// A block that was decided this recently may not have reached all, or a node that was surveyed before.
const ON_ITS_WAY: u64 = 2_000;
/// The time until a node that was dropped hears of it by a redial; two may be cut short before a sync has ended.
const UNHEARD: u64 = 3 * 36_000;

impl Sim {
    /// The node's engine is on from now on.
    pub(super) fn engine_on(&mut self, i: usize, pid: u32) {
        let now = self.now;
        let Some(node) = self.homes[i].process(pid).filter(|node| !node.engine) else { return };
        (node.engine, node.voting_since) = (true, now);
        self.note(i, || "its engine is on".to_owned());
        let head = self.homes[i].head;
        if self.chain.proposer(head, 0) == i && self.signs(i, head) {
            self.check_proposal(i, head);
        }
        self.survey_peers();
        self.schedule_round(head);
    }

    pub(super) fn engine_off(&mut self, i: usize, pid: u32) {
        if self.homes[i].process(pid).is_none_or(|node| !node.engine) {
            return;
        }
        self.falls_silent(i, pid);
        let Some(node) = self.homes[i].process(pid) else { return };
        (node.engine, node.voting_since) = (false, u64::MAX);
        self.note(i, || "its engine is off".to_owned());
        self.survey_peers();
    }

    /// Whether the node takes part in the height after `head`, if it is connected.
    fn signs(&self, i: usize, head: Id) -> bool {
        let home = &self.homes[i];
        home.serving().is_some_and(|node| {
            node.engine
                && home.head == head
                && home.binaries[node.version] != Binary::Mute
                && self.follows(i, node.version, self.chain.height(head) + 1)
        })
    }

    fn is_voting(&self, i: usize, head: Id) -> bool {
        self.signs(i, head)
            && self.homes[i].serving().is_some_and(|node| node.open && node.shunned.is_none() && !node.cut)
    }

    /// The nodes that vote for the height after `head`, and since when the first of them does.
    pub(super) fn voters(&self, head: Id) -> (Nodes, u64) {
        let height = self.chain.height(head) + 1;
        let voting = self.chain.set(height).iter().filter(|i| self.is_voting(**i, head));
        voting.fold((0, u64::MAX), |(bits, since), i| {
            let own = self.homes[*i].node.as_ref().map_or(u64::MAX, |node| node.voting_since);
            (bits | 1 << i, since.min(own))
        })
    }

    /// Sees to the next round at `head`.
    pub(super) fn schedule_round(&mut self, head: Id) {
        let (voters, since) = self.voters(head);
        if voters == 0 {
            return;
        }
        let mut round = 0;
        let mut at = (self.chain.blocks[head].time + PERIOD).max(since + 20);
        while at < self.now || self.rounds_done.get(&head).is_some_and(|done| (at, round) <= *done) {
            round += 1;
            at = since + ROUND * ((1 << round.min(40)) - 1);
        }
        if self.rounds.insert(head, (at, round)) != Some((at, round)) {
            self.at(at, What::Round(head, round));
        }
    }

    pub(super) fn round(&mut self, head: Id, round: u32) {
        if self.rounds.get(&head) != Some(&(self.now, round)) {
            return;
        }
        self.rounds.remove(&head);
        self.rounds_done.insert(head, (self.now, round));
        let height = self.chain.height(head) + 1;
        let (voters, _) = self.voters(head);
        let proposer = self.chain.proposer(head, round);
        if voters >> proposer & 1 == 1 {
            if voters.count_ones() as usize >= quorum(self.chain.set(height).len()) {
                return self.decide(head, round, proposer, voters);
            }
            if round == 0 {
                self.check_proposal(proposer, head);
            }
        } else if self.makes_own_block(proposer, head) {
            let own = self.chain.grow(head, self.now, round, proposer, 0);
            self.note(proposer, || format!("makes block {height} of its own at the fork"));
            self.adopt(proposer, own);
        }
        self.schedule_round(head);
    }

    /// Whether the proposer is an old binary, at the last block that it can follow.
    fn makes_own_block(&self, i: usize, head: Id) -> bool {
        let home = &self.homes[i];
        let height = self.chain.height(head);
        home.serving().is_some_and(|node| {
            let at_fork = self.follows(i, node.version, height) && !self.follows(i, node.version, height + 1);
            node.engine && node.open && home.head == head && at_fork
        })
    }

    fn decide(&mut self, head: Id, round: u32, proposer: usize, voters: Nodes) {
        let height = self.chain.height(head) + 1;
        if let Some(other) = self.chain.decided_at(height) {
            let hash = self.chain.blocks[other].hash.clone();
            let by: Vec<usize> = (0..self.homes.len()).filter(|i| voters >> i & 1 == 1).collect();
            return self.broken(format!(
                "two blocks at one height: block {height} was {hash}, and {by:?} decide it anew"
            ));
        }
        // Now and then a vote comes too late even for the next block.
        let late = self.dice.within(0, 40 * self.homes.len() as u64) as usize;
        let shown =
            if late < self.homes.len() && voters.count_ones() > 1 { voters & !(1 << late) } else { voters };
        let id = self.chain.grow(head, self.now, round, proposer, shown.max(1 << proposer));
        self.rounds_done.clear();
        self.fork_surprises();
        for i in 0..self.homes.len() {
            let votes = voters >> i & 1 == 1;
            let home = &mut self.homes[i];
            let Some(node) = home.node.as_ref().filter(|node| !node.ending) else { continue };
            if votes {
                home.signed = home.signed.max(node.version);
            }
            let (pid, hears) = (node.pid, node.open && node.shunned.is_none() && !node.cut);
            if hears {
                let delay = if i == proposer {
                    0
                } else if votes {
                    self.dice.within(1, 40)
                } else {
                    self.dice.within(20, 150)
                };
                self.after(delay, What::Import(i, pid, id));
            }
        }
        if height.is_multiple_of(self.chain.epoch) {
            self.draw_set(height);
        }
    }

    /// A validator may join or leave with the next block.
    fn draw_set(&mut self, height: u64) {
        let mut set = self.chain.set(height).to_vec();
        if self.dice.chance(self.scenario.changes) {
            let i = self.dice.within(0, self.homes.len() as u64 - 1) as usize;
            match set.iter().position(|n| *n == i) {
                Some(at) if set.len() > 4 => {
                    set.remove(at);
                }
                None if set.len() >= 4 => set.push(i),
                Some(_) | None => {}
            }
            self.before = (self.chain.set(height).to_vec(), height);
            self.note(i, || format!("the set from block {} on is {set:?}", height + 1));
        }
        self.chain.draw(set, &mut self.dice);
        self.survey_peers();
    }

    pub(super) fn import(&mut self, i: usize, pid: u32, id: Id) {
        let (parent, height) = (self.chain.blocks[id].parent, self.chain.height(id));
        let Some(node) = self.homes[i].process(pid).filter(|node| node.open) else { return };
        let version = node.version;
        if self.homes[i].head == parent {
            if self.follows(i, version, height) {
                self.adopt(i, id);
            }
        } else if self.chain.height(self.homes[i].head) < height {
            let wait = self.dice.within(200, 1_000);
            let node = self.homes[i].process(pid).expect("it runs");
            if !node.sync_due {
                node.sync_due = true;
                self.after(wait, What::Sync(i, pid));
            }
        }
    }

    /// A proposal at a height that was decided before contradicts a final block.
    ///
    /// A validator that its peers have dropped cannot know of the last blocks before they find it again. Few of those
    /// do no harm; more than the margin at one height would. At a fork that has forced its stop a new binary signs at once:
    /// without it the chain may not go on.
    fn check_proposal(&mut self, i: usize, head: Id) {
        let height = self.chain.height(head) + 1;
        let Some(decided) = self.chain.decided_at(height).map(|id| self.chain.blocks[id].time) else {
            return;
        };
        if self.now <= decided + ON_ITS_WAY {
            return;
        }
        // The last block of a lone validator may have reached no other node.
        let heard =
            |j: usize| j != i && self.is_connected(i, j) && self.chain.height(self.homes[j].top) >= height;
        if self.chain.set(height).len() == 1 && !(0..self.homes.len()).any(heard) {
            self.note(i, || format!("decides block {height} anew, which no other node has"));
            return self.chain.lose_above(head);
        }
        let at_fork =
            self.scenario.upgrades.iter().any(|planned| planned.is_true && planned.fork == Some(height));
        if at_fork || self.now <= decided + UNHEARD {
            let stale = self.stale.entry(height).or_default();
            *stale |= 1 << i;
            if stale.count_ones() as usize <= margin(self.chain.set(height).len()) {
                return self.note(i, || format!("proposes block {height} again"));
            }
        }
        self.broken(format!("{i} proposes block {height} again, which is final"));
    }
}
