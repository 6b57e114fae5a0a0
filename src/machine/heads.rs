//! Heads as evidence: which of the heads that were told count, and the head record that survives everything.
//!
//! One head told by one source decides nothing and is recorded nowhere (I14). A head counts only if it is linked
//! to a block known before, by parent hashes or by asking again for a block of ours, and if the chain can have
//! risen that far in the time that has passed. The newest head that counts is the head record: it decides
//! whether an upgrade is due, also while the node is down, and it is the block beyond which a validator that
//! ended uncleanly may sign again.
//!
//! The record falls only when the node has followed an honest chain below it for [`HONEST`] blocks.

use super::event::Head;
use super::gates::Validator;
use super::record::Block;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Blocks beyond the rate of the chain that a head may have risen: clocks and networks are not exact.
const SLACK: u32 = 4;
/// A gap up to this many blocks is linked block by block; over a larger one a block of ours is asked for again.
pub(super) const TRACEABLE: u64 = 64;
/// Blocks of an honest chain below the record after which the record is forgotten.
const HONEST: u64 = 20;
/// The number of counted blocks that are remembered with their hashes.
const RECENT: usize = 32;

/// The highest head known for sure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The block.
    pub block: Block,
    /// Its own time in seconds since the epoch, where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// The distances to our next own proposal at this head and at the one before, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Blocks before it that counted, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Block>,
}

/// How far our next own proposals are from a head and from the block before it; None for a validator that proposes
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turns {
    /// From the head on.
    pub at_head: Option<u64>,
    /// From the block before the head on.
    pub before: Option<u64>,
    /// The number of validators.
    pub validators: usize,
}
