//! The hand that makes things go wrong, the person that helps where only a person can, and the look at how all has ended.

use super::home::Home;
use super::scenario::{Binary, Fault};
use super::sim::{Sim, What};
use super::*;
use crate::machine::quorum::{margin, quorum};

/// How often the whole is looked at.
const LOOK: u64 = 10_000;
/// A chain that goes on has a block at least this often, with the round timers of a long absence.
const GOES_ON: u64 = 30_000;
/// The time in which all that have voted for a block get it.
const SPREADS: u64 = 200;
/// How long after the last trouble a person looks, and how often.
const PERSON: u64 = 900_000;
const AGAIN: u64 = 120_000;

impl Sim {
    pub(super) fn fault(&mut self, n: usize) {
        let fault = self.scenario.faults[n].1.clone();
        let decided = self.chain.blocks[self.chain.tip()].time;
        if matches!(fault, Fault::PowerLoss(_) | Fault::SupervisorsDie(_)) && self.now < decided + SPREADS {
            // A block that is lost before its voters have it is known to none of them: no rule can save that.
            return self.after(SPREADS, What::Fault(n));
        }
        if matches!(fault, Fault::Foreign(i, _) if self.homes[i].record.chain.is_none()) {
            // A home is bound to the chain of its first contact, whichever that is: no rule can know better.
            return self.after(SPREADS, What::Fault(n));
        }
        match fault {
            Fault::Crash(i) => {
                self.note(i, || "its node is killed".to_owned());
                self.surprises(i);
                self.kill(i, Status::Signal(9));
            }
            Fault::PowerLoss(lost) => {
                for (i, wait) in lost {
                    self.lose_power(i, wait);
                }
            }
            Fault::SupervisorsDie(lost) => {
                for (i, wait) in lost {
                    if self.homes[i].machine.is_some() {
                        self.note(i, || "its supervisor dies".to_owned());
                        self.supervisor_dies(i);
                        self.after(wait, What::Boot(i));
                    }
                }
            }
            Fault::Death(i) => {
                self.lose_power(i, 0);
                self.homes[i].dead = true;
            }
            Fault::Restart(i) => {
                let home = &mut self.homes[i];
                // A stop that a dead supervisor has recorded for an upgrade is on disk for a while after it was given up.
                let machine = home.machine.as_ref();
                let rests = machine.is_some_and(|machine| machine.newest_record().upgrade.is_none());
                home.ordered = rests && (home.node.is_some() || home.is_held());
                self.surprises(i);
                self.request(i, Request::Restart);
            }
            Fault::Lie(i, above) => {
                self.lie(i, above, "0xfa", "0xfb");
            }
            Fault::TwoLies(i, above) => {
                self.lie(i, above, "0xfa", "0xfb");
                self.lie(i, above + 1, "0xfc", "0xfa");
            }
            Fault::Foreign(i, time) => {
                self.note(i, || "a node of another chain answers".to_owned());
                self.homes[i].foreign_until = self.now + time;
                let height = self.dice.pick(&[10, 5_000, 5_000_000]);
                self.foreign_head(i, height);
            }
        }
    }

    fn lose_power(&mut self, i: usize, wait: u64) {
        // The heads of a node without a supervisor are on no record.
        let unattended = self.homes[i].node.is_some() && self.homes[i].machine.is_none();
        if self.homes[i].dead || self.homes[i].is_halted() || unattended {
            return;
        }
        self.note(i, || "power is lost".to_owned());
        self.surprises(i);
        self.supervisor_dies(i);
        self.kill(i, Status::Signal(9));
        // The lock names no launch of the new boot.
        self.homes[i].launched = None;
        self.after(wait, What::Boot(i));
    }

    pub(super) fn request(&mut self, i: usize, what: Request) {
        self.note(i, || format!("its operator asks for {what:?}"));
        self.feed(i, Event::Request(Ask { reply_to: Some(1), what }));
    }

    fn lie(&mut self, i: usize, above: u64, hash: &str, parent: &str) {
        if self.homes[i].serving().is_none_or(|node| !node.answers) {
            return;
        }
        let mut head = self.header(i, self.homes[i].head);
        head.block = Block { height: head.block.height + above, hash: Some(hash.to_owned()) };
        head.parent = Some(parent.to_owned());
        self.note(i, || format!("hears of block {} {hash}, which is not there", head.block.height));
        self.feed(i, Event::Head(head));
    }

    /// A head of another chain is reported, and the next one a second later.
    pub(super) fn foreign_head(&mut self, i: usize, height: u64) {
        if self.now >= self.homes[i].foreign_until {
            return self.push_head(i);
        }
        if self.homes[i].serving().is_some_and(|node| node.answers) {
            let mut head = self.header(i, self.homes[i].head);
            head.block = Block { height, hash: Some(format!("0xf{height:x}")) };
            head.parent = Some(format!("0xf{:x}", height - 1));
            self.feed(i, Event::Head(head));
        }
        self.after(1_000, What::Foreign(i, height + 1));
    }

    /// Looks at the whole: whether all is well, whether time is up, and whether a person has to help.
    pub(super) fn look(&mut self) {
        let quiet = self.scenario.troubled_until();
        if self.now > quiet + LOOK {
            let unwell: Vec<String> =
                (0..self.homes.len()).filter_map(|i| Some(format!("{i}: {}", self.ill(i)?))).collect();
            let goes_on =
                self.now < self.chain.blocks[self.chain.tip()].time + GOES_ON || self.cannot_go_on();
            if unwell.is_empty() && goes_on {
                self.over = true;
                return;
            }
            // Rounds take minutes by the time that a person comes.
            let rounds = if self.helped > 0 { 6_000 } else { 0 };
            if self.now > quiet + 1000 * (self.scenario.patience() + rounds) {
                if self.cannot_go_on() {
                    self.over = true;
                    return;
                }
                let chain = if goes_on { "" } else { "the chain stands still; " };
                return self.broken(format!("in time all is well: {chain}{}", unwell.join("; ")));
            }
            if self.now > quiet + PERSON {
                self.forget_lost_blocks();
                if !goes_on {
                    self.help();
                }
            }
        }
        self.after(LOOK, What::Look);
    }

    /// A lone validator may have decided a block that no other node has, and that another one has decided anew: its operator
    /// reads that in its status.
    fn forget_lost_blocks(&mut self) {
        for i in 0..self.homes.len() {
            let machine = self.homes[i].machine.as_ref();
            if machine.is_some_and(|machine| machine.heads.contradiction().is_some()) {
                self.request(i, Request::ResetHead);
                self.helped += 1;
            }
        }
    }

    /// Whether fewer than a quorum can ever seal again.
    fn cannot_go_on(&self) -> bool {
        let height = self.chain.top() + 1;
        let set = self.chain.set(height);
        let able = set.iter().filter(|i| {
            let home = &self.homes[**i];
            let last = home.binaries.len() - 1;
            let upgrades = 1..=last;
            // A binary that is not good may have been left for the old one, which does not follow a fork.
            let bad = upgrades.filter(|n| home.binaries[*n] != Binary::Good).min();
            let version = bad.map_or(last, |bad| bad - 1);
            // Where the chain stands a mute one cannot be shown to have signed nothing.
            let mute = home.binaries.contains(&Binary::Mute);
            !home.dead && !home.is_halted() && !mute && (bad.is_none() || self.follows(**i, version, height))
        });
        able.count() < quorum(set.len())
    }

    /// The fault of a node, if it has one.
    fn ill(&self, i: usize) -> Option<String> {
        let home = &self.homes[i];
        if home.dead || home.is_halted() {
            return None;
        }
        // An old binary that the chain has left behind is held down, with the reason.
        if home.is_held() {
            return None;
        }
        let Some(node) = home.serving() else { return Some("no node runs".to_owned()) };
        if home.machine.is_none() {
            return Some("no supervisor runs".to_owned());
        }
        // A new binary that lacks its fork is frozen there for good, which its machine reports.
        let follows = self.follows(i, node.version, self.chain.top() + 1);
        // So is an old one whose upgrade has failed; only an order of its operator can help it before the next height.
        let failed = home.record.ended.iter().any(|e| e.outcome != Outcome::Applied);
        if !follows && (failed || home.binaries[node.version] == Binary::Forkless) {
            return None;
        }
        // Where none can be spared the upgrades wait, and rightly so.
        let set = self.chain.set(self.chain.top() + 1);
        let there = set.iter().filter(|n| self.takes_part(**n)).count();
        let waits = margin(set.len()) > 0 && there <= quorum(set.len()) && self.takes_part(i);
        if !home.is_settled() && !waits {
            return Some(format!("its upgrades are not settled: {}", why(home)));
        }
        let member = self.chain.set(self.chain.top() + 1).contains(&i);
        if home.record.silent && follows && member {
            return Some(format!("it is silent: {}", why(home)));
        }
        // Its head is heard again, so that after a power cut its record is believed.
        let marked = home.head_record.as_ref().is_some_and(|record| record.unheard);
        if member && marked && self.takes_part(i) {
            return Some("its head record stays marked".to_owned());
        }
        if member && follows && !self.takes_part(i) && home.binaries[node.version] == Binary::Good {
            return Some("it does not take part".to_owned());
        }
        None
    }

    /// Does what only a person can: looks at all heads, and has the silent validators sign after the last final block.
    fn help(&mut self) {
        if let Some(best) = self.lost_for_ever() {
            // A node that is being started again takes no order.
            if self.homes.iter().any(|home| !home.is_halted() && home.serving().is_none()) {
                return;
            }
            self.chain.lose_above(best);
            for i in 0..self.homes.len() {
                self.request(i, Request::ResetHead);
                let block = &self.chain.blocks[best];
                let at = Block { height: block.height, hash: Some(block.hash.clone()) };
                self.request(i, Request::Sign(Some(at)));
            }
            self.helped += 1;
            return;
        }
        // Of a node that was heard all the time the record is believed.
        let unheard = |fault: &Fault| match fault {
            Fault::Foreign(..) | Fault::Lie(..) | Fault::TwoLies(..) | Fault::SupervisorsDie(_) => true,
            Fault::Crash(_) | Fault::PowerLoss(_) | Fault::Death(_) | Fault::Restart(_) => false,
        };
        let goes_unheard = self.scenario.faults.iter().any(|(_, fault)| unheard(fault));
        let is_unheard =
            |home: &Home| goes_unheard && home.head_record.as_ref().is_some_and(|record| record.unheard);
        let unseen = |home: &Home| home.dead || home.is_halted() || home.is_held() || is_unheard(home);
        // An order may come while a node is being started, and is repeated.
        if self.helped == 0 && !self.homes.iter().any(unseen) {
            return;
        }
        let tip = self.chain.tip();
        let block = self.chain.blocks[tip].clone();
        let has_it = |home: &Home| home.head == tip && home.serving().is_some();
        if !self.homes.iter().any(has_it) {
            // The one that has it is brought back.
            let lost = (0..self.homes.len()).filter(|i| self.homes[*i].top == tip && self.homes[*i].dead);
            for i in lost.collect::<Vec<_>>() {
                self.homes[i].dead = false;
                self.boot(i);
            }
            return;
        }
        for i in 0..self.homes.len() {
            let home = &self.homes[i];
            if !home.record.silent || home.machine.is_none() || self.now < home.helped + AGAIN {
                continue;
            }
            self.homes[i].helped = self.now;
            self.helped += 1;
            if has_it(&self.homes[i]) {
                let at = Block { height: block.height, hash: Some(block.hash.clone()) };
                self.request(i, Request::Sign(Some(at)));
            } else {
                self.homes[i].ordered = true;
                self.request(i, Request::Restart);
            }
        }
    }
}

impl Sim {
    /// The highest decided block that is in any database, if the last one is in none that can run again: a clean
    /// stop can lose it.
    fn lost_for_ever(&self) -> Option<super::chain::Id> {
        let alive: Vec<&Home> = self.homes.iter().filter(|home| !home.is_halted()).collect();
        // A node that has gone back gets its blocks again from another one only.
        let has = |home: &&Home| if alive.len() > 1 { home.top } else { home.head };
        let best = alive.iter().map(has).max_by_key(|id| self.chain.height(*id))?;
        (self.chain.height(best) < self.chain.top()).then_some(best)
    }
}

/// The reason that the machine itself gives.
fn why(home: &Home) -> String {
    home.machine.as_ref().map_or(String::new(), |machine| machine.view().to_string().replace('\n', " | "))
}
