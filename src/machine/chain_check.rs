//! Whether a node is on the chain of this home, and is the node that was started: by chain id and genesis block, by
//! the block at which the old binary was stopped, and by the version that it reports.
//!
//! A node that has another block there follows another chain. A node that does not report the version of the new binary
//! is another node, at the same address.

use super::record::{Block, Record};
use std::time::Instant;

/// A block that the node's chain must have, and what the node answers about it.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct ChainCheck {
    pub(super) height: u64,
    pub(super) hash: String,
    /// The version number that the node's binary has reported, if it did.
    promised: Option<String>,
    /// When the node was last asked for it.
    pub(super) asked: Option<Instant>,
    /// The hash of the node's own block at this height.
    pub(super) found: Option<String>,
    /// Whether it has answered another one before: one answer decides nothing.
    pub(super) doubted: bool,
    /// The client version that the node reports.
    pub(super) client: Option<String>,
    /// Why it is not known, where the node did not answer.
    pub(super) trouble: Option<String>,
}

impl ChainCheck {
    /// The check of a node that is started with this record; `None` where nothing is known of the chain.
    pub(super) fn of(record: &Record) -> Option<ChainCheck> {
        let attempt = record.upgrade.as_ref()?;
        let Block { height, hash } = attempt.witness.clone()?;
        let promised = attempt.promised.clone();
        Some(ChainCheck { height, hash: hash?, promised, ..ChainCheck::default() })
    }

    /// Whether the node has answered, or could not.
    pub(super) fn is_answered(&self) -> bool {
        self.found.is_some() || self.trouble.is_some() && !self.doubted
    }

    /// The client version that the node reports.
    pub(super) fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The version that was promised and the version that the node reports, if the second does not contain the first.
    fn stranger(&self) -> Option<(&str, &str)> {
        let (promised, client) = (self.promised.as_deref()?, self.client.as_deref()?);
        (!client.contains(promised)).then_some((promised, client))
    }

    /// Whether nothing is left to ask.
    pub(super) fn is_settled(&self) -> bool {
        self.found.is_some() && self.stranger().is_none()
    }

    /// The objection to the node's chain; `None` if the chain is the same as before.
    pub(super) fn objection(&self) -> Option<Objection> {
        let ChainCheck { height, hash, found, trouble, .. } = self;
        match (found, trouble) {
            (Some(found), _) if found.eq_ignore_ascii_case(hash) => {
                let (promised, client) = self.stranger()?;
                Some(Objection::Unknown(format!(
                    "its binary reports {promised}, but {client:?} answers: another node at its RPC address?"
                )))
            }
            (Some(found), _) => Some(Objection::Wrong(format!("block {height} was {hash} and is {found}"))),
            (None, Some(trouble)) => Some(Objection::Unknown(format!("block {height}: {trouble}"))),
            (None, None) => Some(Objection::Unknown(format!("block {height} is not known yet"))),
        }
    }
}

/// A reason why a new binary does not count as good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    /// It may still turn out well.
    Unknown(String),
    /// It follows another chain, or will not follow this one.
    Wrong(String),
}
