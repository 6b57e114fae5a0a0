//! The questions by which a node is known: which chain it is on, and which block it has where the old binary was stopped.

use super::chain_check::ChainCheck;
use super::event::{Action, Failure, Mode, Recollection};
use super::record::{Chain, Record};
use super::resolve::forgotten;
use super::state::{Next, Node, Why};
use super::{Level, Machine, Notice};
use std::time::Instant;

impl Machine {
    /// Asks for the block as soon as the node can have it, until it has answered.
    pub(super) fn ask_chain_check(&mut self, now: Instant, node: &mut Node) {
        let (Some((_, head)), true) = (node.rose, self.record.upgrade.is_some()) else { return };
        let again = self.policy.poll_interval;
        // A clean stop may have lost the block, and the data gets no other one without peers.
        let is_dry = node.mode == Mode::Dry;
        let is_open = |c: &&mut ChainCheck| {
            !c.is_settled() && (c.height <= head || is_dry) && c.asked.is_none_or(|at| now >= at + again)
        };
        if let Some(check) = node.chain_check.as_mut().filter(is_open) {
            check.asked = Some(now);
            self.actions.push(Action::Recall { height: check.height.min(head) });
        }
    }

    /// The node has answered which block it has at a height, or could not.
    pub(super) fn recalled(&mut self, result: Result<Recollection, Failure>) {
        let rate = self.rate();
        let Some(node) = self.node_mut() else { return };
        let (is_ours, is_dry) = (node.identity.known, node.mode == Mode::Dry);
        let check = node.chain_check.as_mut();
        match (check, &result) {
            (Some(check), Ok(Recollection { block, client_version, .. }))
                if block.height == check.height && (block.hash.is_some() || !is_dry) =>
            {
                let other = block.hash.as_ref().is_some_and(|hash| !hash.eq_ignore_ascii_case(&check.hash));
                if other && !is_ours {
                    // As long as the node has not named the chain of this home, another one may answer at its address.
                    return;
                }
                if other && !check.doubted {
                    (check.doubted, check.trouble) =
                        (true, Some("another one, to be asked for again".to_owned()));
                } else {
                    (check.found, check.trouble, check.doubted) = (block.hash.clone(), None, other);
                }
                check.client.clone_from(client_version);
            }
            (Some(check), Ok(_)) if is_dry => check.trouble = Some("the data does not have it".to_owned()),
            (Some(check), Err(failure)) => check.trouble = Some(failure.detail.clone()),
            (Some(_) | None, _) => {}
        }
        let Ok(Recollection { block, forks, .. }) = result else { return };
        if is_dry {
            // Another node may have answered.
            let is_known = block.hash.as_ref().is_some_and(|hash| self.heads.has(block.height, hash));
            self.departure.forks = forks.filter(|_| is_known).unwrap_or_default();
        } else if is_ours {
            let hearing = self.heads.recalled(&block, rate);
            self.heard(hearing);
        }
    }

    /// When the node is asked again for what it has not answered.
    pub(super) fn chain_check_deadline(&self, node: &Node) -> Option<(Instant, &'static str)> {
        let check = node.chain_check.as_ref().filter(|c| !c.is_settled())?;
        check.asked.map(|at| (at + self.policy.poll_interval, "chain check"))
    }

    /// Asks which chain the node is on until that is known, and again at its first head, to know that the same node has
    /// reported it. The first contact binds the home to its chain; a node on another chain is refused.
    pub(super) fn identify(&mut self, now: Instant, node: &mut Node) -> Option<Next> {
        if self.may_record(now, node)
            && let Some(chain) = self.unbound.clone()
        {
            let text = format!("chain={} genesis={}", chain.id, chain.genesis);
            let news = Some(Notice { level: Level::Info, event: "chain_bound", text, history: false });
            let record = Record { chain: Some(chain), ..self.record.clone() };
            return Some(Next::Save { record: Box::new(record), news, applied: None });
        }
        let identity = &mut node.identity;
        let again = identity.asked.is_none_or(|at| now >= at + self.policy.poll_interval);
        let (lacks_voucher, unasked) = self.heads.lacks_voucher();
        // An answer that is still to come proves nothing about a head that was heard after its question.
        let is_answered = identity.unanswered == 0;
        let is_unknown = !identity.known || lacks_voucher;
        if is_answered && (unasked || again && is_unknown && node.head.is_some()) {
            self.heads.ask_voucher();
            identity.asked = Some(now);
            identity.unanswered = identity.unanswered.saturating_add(1);
            self.actions.push(Action::Identify);
        }
        // Two answers at a distance, since another node may answer for a moment.
        let (since, other) = identity.other.clone()?;
        let sure = now >= since + self.policy.poll_interval && !identity.known && identity.repeated;
        sure.then_some(Next::Stop(Why::Refuse(other)))
    }

    /// The node has answered which chain it is on, or could not.
    pub(super) fn identified(&mut self, now: Instant, result: Result<Chain, Failure>) {
        let (ours, rate) = (self.record.chain.clone(), self.rate());
        let Some(node) = self.node_mut() else { return };
        let identity = &mut node.identity;
        identity.unanswered = identity.unanswered.saturating_sub(1);
        let is_last = identity.unanswered == 0;
        let Ok(theirs) = result else { return };
        let Some(ours) = ours else {
            self.unbound.get_or_insert(theirs);
            return;
        };
        if theirs == ours {
            let was_known = std::mem::replace(&mut identity.known, true);
            (identity.other, identity.repeated) = (None, false);
            let head = node.head.clone().filter(|_| !was_known);
            if is_last {
                self.heads.vouch();
            }
            if let Some(head) = head {
                let hearing = self.heads.hear(now, &head, rate);
                self.heard(hearing);
            }
            return;
        }
        let text = format!(
            "the node is on chain {} with genesis {}, and this home is bound to chain {} with genesis {}; \
             if that is intended: wemixvisor resolve chain",
            theirs.id, theirs.genesis, ours.id, ours.genesis
        );
        let since = identity.other.as_ref().map(|(since, _)| *since);
        (identity.known, identity.repeated) = (false, since.is_some());
        identity.other = Some((since.unwrap_or(now), text.clone()));
        self.heads.distrust();
        if since.is_none() {
            self.note(Level::Error, "other_chain", text);
        }
    }

    /// The operator states that the chain has lost the block of the record. The block at which the old binary was stopped
    /// is no evidence against the new one either.
    pub(super) fn reset_head(&mut self, now: Instant) -> String {
        let highest = self.heads.height();
        self.heads.reset();
        let was = highest.map_or("none".to_owned(), |height| height.to_string());
        self.note(Level::Warn, "head_record_reset", format!("was={was} the operator decided so"));
        self.actions.push(Action::ForgetHead);
        // A node that stands still reports no head by itself.
        if self.node().is_some() {
            self.actions.push(Action::Confirm);
        }
        let mut record = self.record.clone();
        let witness = record.upgrade.as_mut().and_then(|attempt| attempt.witness.take());
        if witness.is_some()
            && let Some(mut node) = self.take_running()
        {
            node.chain_check = None;
            self.follow(now, node, Next::record(record));
        }
        let goal = self.node().and_then(|node| node.network.returning.goal.as_ref());
        let goal = goal.filter(|_| self.record.silent).map(|goal| {
            let height = goal.height;
            format!(
                "; the node stays silent until it is beyond block {height}, which was final when it was started: if \
                 that is wrong, wemixvisor restart"
            )
        });
        forgotten(highest) + &goal.unwrap_or_default()
    }
}
