//! The laws that hold after each event: DESIGN section 3, as far as a fleet can break it.
//!
//! The laws are stated over the true chain and the disks, never over the machine's own state.

use super::home::{Home, number};
use super::sim::Sim;
use super::*;
use crate::machine::quorum::{margin, quorum};
use crate::machine::state::Why;

/// The blocks for which an absence that no gate foresees is hidden: until it shows in the seals, and the stop that was
/// decided last before that shows as well.
const VISIBLE: u64 = 2 * (2 + gates::RECENT + 1);

impl Sim {
    /// I7: the old binary, by digest, is not started at or past the fork, nor once a new one has signed.
    pub(super) fn check_start(&mut self, i: usize, started: &Version) {
        let ordered = std::mem::take(&mut self.homes[i].ordered);
        let home = &self.homes[i];
        let version = number(&started.target);
        // An upgrade that is under way starts its own binary.
        if ordered || home.record.upgrade.as_ref().is_some_and(|a| a.to == *started) {
            return;
        }
        let signed = home.signed;
        let counted = home.head_record.as_ref().map_or(0, |record| record.block.height);
        let lacks = |u: &&Upgrade| {
            let ended = home.record.ended(&u.name).is_none_or(|e| e.cannot_follow);
            let newer = number(&Target::Upgrade(u.name.clone())) > version;
            // Beyond a fork there is only a binary that follows it.
            let is_needed = |fork: u64| counted <= fork || !self.follows(i, version, fork);
            ended && newer && u.fork_height.is_some_and(|fork| counted + 1 >= fork && is_needed(fork))
        };
        let lacking = home.plan.iter().find(lacks).map(|u| u.name.clone());
        if version < signed {
            self.broken(format!("I7: {i} starts {} though v{signed} has signed", started.target));
        } else if let Some(name) = lacking {
            self.broken(format!("I7: {i} starts {} at {counted}, at the fork of {name}", started.target));
        }
    }

    /// I13: no stop of our own deciding leaves less than a quorum, as far as that could be known. Where a quorum was missing
    /// before, nothing is lost with it.
    pub(super) fn check_stop(&mut self, i: usize) {
        let tip = self.chain.tip();
        let height = self.chain.top() + 1;
        if !self.takes_part(i) || self.homes[i].ordered {
            return self.surprises(i);
        }
        let home = &self.homes[i];
        let version = home.serving().map_or(0, |node| node.version);
        // A node at whose address another chain answers is refused, which no gate foresees.
        let state = home.machine.as_ref().map(|machine| &machine.state);
        if matches!(state, Some(State::Stopping { why: Why::Refuse(_), .. })) {
            return self.surprises(i);
        }
        // The old binary is of no use at the fork.
        let at_fork = home.plan.iter().any(|u| {
            number(&Target::Upgrade(u.name.clone())) > version
                && u.fork_height.is_some_and(|fork| height >= fork)
        });
        if at_fork {
            return self.surprises(i);
        }
        let short = |set: &[usize]| {
            let hidden = |n: usize| {
                self.homes[n].surprise.is_some_and(|at| height - 1 - at.min(height - 1) <= VISIBLE)
            };
            let there = set.iter().filter(|n| **n != i && (self.takes_part(**n) || hidden(**n))).count();
            margin(set.len()) > 0 && there < quorum(set.len())
        };
        let set = self.chain.set(height);
        if set.iter().filter(|n| self.takes_part(**n)).count() < quorum(set.len()) {
            return;
        }
        let (before, changed) = &self.before;
        if set.contains(&i) && short(set) && (height > changed + VISIBLE || short(before)) {
            let there: Vec<usize> = set.iter().copied().filter(|n| self.takes_part(*n)).collect();
            let text = format!(
                "I13: the stop of {i} after block {} leaves less than a quorum of {set:?}: {there:?} with it",
                self.chain.height(tip)
            );
            self.broken(text);
        }
    }

    /// The old binaries are frozen at a fork, which no gate foresees.
    pub(super) fn fork_surprises(&mut self) {
        let top = self.chain.top();
        let follows = |sim: &Sim, i: usize, height: u64| {
            sim.homes[i].serving().is_some_and(|node| sim.follows(i, node.version, height))
        };
        for i in 0..self.homes.len() {
            if follows(self, i, top) && !follows(self, i, top + 1) {
                self.homes[i].surprise = Some(top);
            }
        }
    }

    /// Its absence is one that no gate foresees.
    pub(super) fn surprises(&mut self, i: usize) {
        let top = self.chain.top();
        let home = &mut self.homes[i];
        if home.serving().is_some_and(|node| node.engine) {
            home.surprise = Some(top);
        }
    }

    /// Whether the node follows the chain and votes.
    pub(super) fn takes_part(&self, i: usize) -> bool {
        let home = &self.homes[i];
        let top = self.chain.top();
        let set = self.chain.set(top + 1);
        let in_contact = set.len() == 1 || set.iter().any(|j| self.is_connected(i, *j));
        home.serving().is_some_and(|node| {
            in_contact
                && node.engine
                && node.open
                && node.shunned.is_none()
                && !node.cut
                && home.binaries[node.version] != super::scenario::Binary::Mute
                && self.chain.height(home.head) + 2 > top
                && self.follows(i, node.version, top + 1)
        })
    }

    /// I14: a head that is not there is in no record, and decides nothing.
    pub(super) fn check_record(&mut self, i: usize, record: &Record) {
        let home = &self.homes[i];
        let begins =
            home.record.upgrade.as_ref().map(|a| &a.name) != record.upgrade.as_ref().map(|a| &a.name);
        if let Some(old) = home.record.upgrade.as_ref().filter(|_| record.upgrade.is_none()) {
            let applied = record.ended(&old.name).filter(|e| e.outcome == Outcome::Applied);
            let rose = self.chain.top() > home.started_at;
            if applied.is_some_and(|e| !rose && !e.detail.starts_with("not proven")) {
                let (name, top) = (old.name.clone(), self.chain.top());
                return self
                    .broken(format!("I14: {name} of {i} is applied after {} blocks", top - home.started_at));
            }
        }
        if let (Some(halted), Some(attempt)) = (&record.halted, &record.upgrade)
            && self.scenario.faults.is_empty()
            && self.scenario.errors == 0
            && halted.contains("sealed nothing")
            && halted.contains("may have signed")
            && home.signed < number(&attempt.to.target)
        {
            self.note(i, || format!("signed nothing, and is halted: {halted}"));
            self.unproven += 1;
            return;
        }
        let Some(attempt) = &record.upgrade else { return };
        let lie = attempt.stopped_at.iter().chain(&attempt.witness).any(Home::is_lie);
        // An old binary may have made a block of its own at the fork, to which its chain has come.
        let at_fork = self.scenario.upgrades.iter().any(|planned| planned.fork == Some(attempt.height));
        if lie {
            self.broken(format!("I14: a false head of {i} is recorded: {attempt:?}"));
        } else if begins && self.chain.top() + u64::from(at_fork) < attempt.height {
            let (height, top) = (attempt.height, self.chain.top());
            self.broken(format!("I14: {i} begins an upgrade of height {height}, and the chain is at {top}"));
        }
    }

    pub(super) fn check_head_record(&mut self, i: usize, record: &HeadRecord) {
        // At the first contact nothing is known that two linked heads could contradict.
        if self.homes[i].head_record.as_ref().is_none_or(|known| Home::is_lie(&known.block)) {
            return;
        }
        if Home::is_lie(&record.block) || record.recent.iter().any(Home::is_lie) {
            self.broken(format!("I14: a false head of {i} is recorded: {:?}", record.block));
        }
    }
}
