//! The block by which a chain is known again: the one at which the old binary was stopped or, where the node
//! is silent, the highest that was ever recorded. A node that has another block there follows another chain.
//! And one that does not call itself by the version of the new binary is another node, at the same address.

use super::event::{Action, Failure, Recollection};
use super::state::{Node, State};
use super::validator::Objection;
use super::{Block, Machine, Record};
use std::time::Instant;

/// A block that the node's chain must have, and what the node says of it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct ChainCheck {
    height: u64,
    hash: String,
    /// The version number that the node's binary has told, if it did.
    promised: Option<String>,
    /// When the node was last asked for it.
    asked: Option<Instant>,
    /// The hash of the node's own block at this height.
    found: Option<String>,
    /// What the node calls itself, where it tells.
    client: Option<String>,
    /// Why it is not known, where the node did not answer.
    trouble: Option<String>,
}

impl ChainCheck {
    /// What a node that is started with this record has to show; `None` where nothing is known of the chain.
    pub(super) fn of(record: &Record) -> Option<ChainCheck> {
        let stopped_at = || record.upgrade.as_ref().and_then(|p| p.stopped_at.as_ref());
        let block = if record.silent { record.highest.as_ref() } else { stopped_at() };
        let Block { height, hash } = block?.clone();
        let promised = record.upgrade.as_ref().and_then(|p| p.promised.clone());
        let hash = hash?;
        Some(ChainCheck { height, hash, promised, asked: None, found: None, client: None, trouble: None })
    }

    /// What the node calls itself, where it has told.
    pub(super) fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The version that was promised and what the node calls itself, if that does not go together.
    fn stranger(&self) -> Option<(&str, &str)> {
        let (promised, client) = (self.promised.as_deref()?, self.client.as_deref()?);
        (!client.contains(promised)).then_some((promised, client))
    }

    /// Whether nothing is left to ask.
    fn has_told(&self) -> bool {
        self.found.is_some() && self.stranger().is_none()
    }

    /// What speaks against the node's chain; `None` if it is the one that it was.
    pub(super) fn objection(&self) -> Option<Objection> {
        let ChainCheck { height, hash, found, trouble, .. } = self;
        match (found, trouble) {
            (Some(found), _) if found.eq_ignore_ascii_case(hash) => {
                let (promised, client) = self.stranger()?;
                Some(Objection::Unknown(format!(
                    "its binary says that it is {promised}, but {client:?} answers: another node at its RPC address?"
                )))
            }
            (Some(found), _) => Some(Objection::Wrong(format!("block {height} was {hash} and is {found}"))),
            (None, Some(trouble)) => Some(Objection::Unknown(format!("block {height}: {trouble}"))),
            (None, None) => Some(Objection::Unknown(format!("block {height} is not known yet"))),
        }
    }
}

impl Machine {
    /// Asks for the witness as soon as the node can have it, until it has told.
    pub(super) fn ask_witness(&mut self, now: Instant, mut node: Node) -> Node {
        let Some((_, head)) = node.rose else { return node };
        let again = self.policy.poll_interval;
        let needed = self.record.silent || self.record.upgrade.is_some();
        let is_open = |w: &&mut ChainCheck| {
            !w.has_told() && w.height <= head && w.asked.is_none_or(|at| now >= at + again)
        };
        if let Some(witness) = node.witness.as_mut().filter(|_| needed).filter(is_open) {
            witness.asked = Some(now);
            self.actions.push(Action::Recall { height: witness.height });
            self.state = State::Running(node.clone());
        }
        node
    }

    /// The node has told which block it has at a height, or could not.
    pub(super) fn recalled(&mut self, result: Result<Recollection, Failure>) {
        let (State::Running(node) | State::Inspecting { node: Some(node), .. }) = &mut self.state else {
            return;
        };
        let Some(witness) = &mut node.witness else { return };
        match result {
            Ok(Recollection { block, client_version }) if block.height == witness.height => {
                (witness.found, witness.client, witness.trouble) = (block.hash, client_version, None);
            }
            // The answer to a question of somebody else.
            Ok(_) => {}
            Err(failure) => witness.trouble = Some(failure.detail),
        }
    }

    /// When the node is asked again for what it has not told.
    pub(super) fn witness_deadline(&self, node: &Node) -> Option<(Instant, &'static str)> {
        let witness = node.witness.as_ref().filter(|w| !w.has_told())?;
        witness.asked.map(|at| (at + self.policy.poll_interval, "witness"))
    }
}
