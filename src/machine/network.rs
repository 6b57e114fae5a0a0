//! The network as the running node shows it, and the questions about it: plain data.

use super::event::Survey;
use super::gates::{Gate, Validator};
use super::order::Order;
use super::returning::Returning;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The most blocks between two surveys that count.
const AT_ONCE: u64 = 3;

/// The symptoms that were logged, and when last.
pub(super) type Symptoms = BTreeMap<&'static str, Instant>;

/// The network as the running node shows it, and what was asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Network {
    /// When a survey was asked for, if it has not come yet, and at which head.
    pub(super) asked: Option<Instant>,
    pub(super) asked_at: Option<u64>,
    /// When one was last answered, or has failed.
    pub(super) answered: Option<Instant>,
    /// The last one, and the one before.
    pub(super) survey: Option<Survey>,
    pub(super) before: Option<Survey>,
    /// A survey about a head that does not count yet: the head itself may be on its way.
    pub(super) early: Option<Survey>,
    /// The own address that was named last.
    pub(super) own: Option<Validator>,
    /// Why the last one failed, if it did.
    pub(super) failure: Option<String>,
    /// The order of proposers at the last head and at the one before, where they are known.
    pub(super) orders: Option<(Order, Order)>,
    /// The gates that hold a due upgrade back, and since when.
    pub(super) holds: Option<(Instant, Vec<Gate>)>,
    /// The gates, and the deadline, that were logged since the upgrade was first held back. Some gates open and close
    /// with every block.
    pub(super) named: BTreeSet<&'static str>,
    /// The warnings about this node itself that were given.
    pub(super) warned: BTreeSet<&'static str>,
    /// The facts on which signing depends.
    pub(super) returning: Returning,
    /// When a peer was greeted anew last, and how many were before.
    pub(super) greeted: Option<(Instant, u32)>,
    /// The symptoms that were logged.
    pub(super) symptoms: Symptoms,
    /// The last survey that proved that the new binary had not signed, and the head at that time.
    pub(super) unsigned_at: Option<Instant>,
    /// The blocks that a new binary could have sealed, and has not.
    pub(super) mute: Mute,
}

/// A count of the blocks that a validator could have sealed, and has not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mute {
    /// The last head at which it could.
    pub(super) head: Option<u64>,
    /// The newest block with its seal, or of its making.
    pub(super) mark: u64,
    /// The blocks since that one, or since the order to seal.
    pub(super) blocks: u64,
    /// Whether it was ordered to seal.
    pub(super) ordered: bool,
}

impl Mute {
    /// Takes note of a head at which it could have sealed. Of blocks that come all at once a few count.
    pub(super) fn note(&mut self, head: u64, mark: u64) {
        if mark > self.mark {
            *self = Mute { mark, ..Mute::default() };
        }
        let risen = self.head.map_or(0, |before| head.saturating_sub(before));
        (self.head, self.blocks) = (Some(head), self.blocks.saturating_add(risen.min(AT_ONCE)));
    }
}

impl Network {
    /// Whether the last two surveys show something: one answer decides nothing.
    pub(super) fn shows(&self, what: impl Fn(&Survey) -> bool) -> bool {
        [&self.survey, &self.before].into_iter().all(|survey| survey.as_ref().is_some_and(&what))
    }

    /// Whether a warning is given for the first time.
    pub(super) fn warn_once(&mut self, event: &'static str) -> bool {
        self.warned.insert(event)
    }
}
