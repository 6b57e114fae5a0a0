//! A reported head is judged by [`heads`](super::heads), and kept on disk where it counts.

use super::Machine;
use super::event::{Action, Failure, Head, Level, Mode, Survey};
use super::heads::{Beyond, Hearing, Pace};
use super::record::Block;
use super::state::{Node, State};
use super::validator::{SECOND, STANDS};
use super::{KEEP, LONGEST_PERIOD};
use std::time::{Duration, Instant};

impl Machine {
    /// The facts by which heads are judged.
    pub(super) fn rate(&self) -> Pace {
        let (shortest, period) = (self.policy.shortest_period, self.period());
        Pace { shortest, period, validator: self.policy.validator }
    }

    pub(super) fn see(&mut self, now: Instant, head: Head) {
        let (period, rate) = (self.period(), self.rate());
        let node = match &mut self.state {
            State::Running(node) | State::Leaving { node, .. } | State::Stopping { node, .. } => node,
            _ => return,
        };
        let (height, before) = (head.block.height, node.head.clone());
        let went_back = before.as_ref().is_some_and(|before| height < before.block.height);
        let gap = before.as_ref().and_then(|before| gap(before, &head, node.still(now)));
        node.hear(now, &head, period);
        // An end of the chain that is not known to be ours counts for nothing.
        let (is_ours, mode) = (node.identity.known, node.mode);
        if let Some(before) = before.filter(|_| went_back) {
            self.warn("head_went_back", format!("from={} to={height}", before.block.height));
        }
        if let Some(gap) = gap {
            self.note_gap(gap);
        }
        self.head = Some(head.clone());
        if is_ours && mode != Mode::Dry {
            let turns = self.turns_after(&head);
            let hearing = self.heads.hear(now, &head, rate);
            self.heard(hearing);
            self.note_turns(height, turns);
        }
    }

    /// The headers between the head record and a head have come, or cannot be had.
    pub(super) fn traced(&mut self, result: Result<Vec<Head>, Failure>) {
        if let Ok(headers) = result {
            let hearing = self.heads.traced(&headers, self.rate());
            self.heard(hearing);
        }
    }

    /// Does what a judged head calls for.
    pub(super) fn heard(&mut self, hearing: Hearing) {
        match hearing {
            Hearing::Nothing => {}
            Hearing::Counted => {
                self.heads.note_binary(self.version().sha256);
                // Without a record the first head that counts is what is known to be final.
                let first = self.heads.block().cloned();
                if let Some(node) = self.node_mut() {
                    let goal = &mut node.network.returning.goal;
                    *goal = goal.take().or(first);
                }
                self.keep_head();
            }
            Hearing::Trace { from, to } => self.actions.push(Action::Trace { from, to }),
            Hearing::Recall { height } => self.actions.push(Action::Recall { height }),
            Hearing::Fallen { from } => {
                // It was wrong, and so is what was taken to be final by it.
                let goal = self.heads.block().cloned();
                if let Some(node) = self.node_mut() {
                    node.network.returning.goal = goal;
                }
                let to = self.heads.height().unwrap_or(0);
                let text =
                    format!("from={from} to={to} the node follows an honest chain below the head record");
                self.note(Level::Warn, "head_record_fell", text);
                self.keep_head();
            }
        }
        let head = self.node().and_then(|node| node.head.as_ref()).map(|head| head.block.clone());
        if let Some(Block { height, hash: Some(hash) }) = head
            && self.heads.has(height, &hash)
            && let Some(node) = self.node_mut()
        {
            node.followed_from.get_or_insert(height);
        }
        // A late validator's own block at the fork was never final: the network's takes its place.
        let other = self.heads.contradiction().filter(|other| other.confirmed);
        let other = other.map(|other| other.ours.height);
        if other.is_some() && other == self.own_block_at_a_fork() {
            self.leave_own_block_at_the_fork();
        }
    }

    /// Marks the head record where a node that signs may have gone on beyond it unheard: the last reported head was not
    /// that of the record, as from another node at its address, or none was reported for long.
    ///
    /// After a power cut of all validators nothing else shows that the record is too low. While nothing is signed the mark
    /// stays. A node that ends reports nothing any more, but the link of its last head may still come.
    pub(super) fn mind_the_head_record(&mut self, now: Instant) {
        let (node, ends) = match &self.state {
            State::Running(node) => (node, false),
            State::Leaving { node, .. } | State::Stopping { node, .. } => (node, true),
            _ => return,
        };
        if !self.policy.watch_height || !self.may_sign(node) {
            return;
        }
        let is_known = |survey: &&Survey| {
            let block = self.heads.block_at(survey.sample.head);
            block.is_some_and(|block| block.hash.as_ref() == Some(&survey.hash))
        };
        let surveyed = node.network.survey.as_ref().filter(is_known);
        let heard = node.still_since.into_iter().chain(surveyed.map(|survey| survey.at)).max();
        let long = self.period().max(SECOND) * STANDS;
        let is_late = now > heard.unwrap_or(node.since) + long;
        let told = node.head.as_ref().map(|head| &head.block);
        let known = told.and_then(|block| self.heads.block_at(block.height));
        let differs = told.is_some() && told != known;
        // A node that has just been started may end without having signed anything.
        let is_new = told.is_none() && !is_late;
        // A head that came while we were held up waits to be heard.
        let held_up = is_late && !differs && self.woke.is_some_and(|at| now <= at + long);
        // A node that has lost its newest blocks gets those first.
        let is_below = !is_late && !differs && told != self.heads.block();
        if is_new || held_up || is_below {
            return;
        }
        let beyond = if is_late || differs { Beyond::Unheard } else { Beyond::Heard };
        if (beyond == Beyond::Heard || !ends) && self.heads.note_beyond(beyond) {
            self.keep_head();
        }
    }

    /// Whether a node may be signing. A node that was ordered to seal may, before its answer or the record of that is there.
    pub(super) fn may_sign(&self, node: &Node) -> bool {
        let is_on = !self.record.silent || node.network.returning.started.is_some();
        self.policy.validator && node.mode != Mode::Dry && is_on
    }

    /// Makes the head record durable: at every block of a validator, otherwise now and then.
    pub(super) fn keep_head(&mut self) {
        let often = self.policy.validator || self.node().is_none();
        let due = self.kept.zip(self.now).is_none_or(|(at, now)| now >= at + KEEP);
        if let Some(record) = self.heads.record().filter(|_| often || due) {
            self.actions.push(Action::KeepHead(record.clone()));
            self.kept = self.now;
        }
    }
}

/// The time between two blocks that were reported one after the other; `heard` is the time between the two hearings.
///
/// The times in the headers are right while the node catches up, but only to the second.
fn gap(before: &Head, head: &Head, heard: Duration) -> Option<Duration> {
    let blocks =
        u32::try_from(head.block.height.checked_sub(before.block.height)?).ok().filter(|n| *n > 0)?;
    let (then, at) = before.timestamp.zip(head.timestamp).unwrap_or_default();
    let by_headers = Duration::from_secs(at.saturating_sub(then)) / blocks;
    let gap = if by_headers >= Duration::from_secs(1) { by_headers } else { heard / blocks };
    // The times in headers may be anything.
    Some(gap.min(LONGEST_PERIOD))
}
