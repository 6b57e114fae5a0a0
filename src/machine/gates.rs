//! When a validator may be stopped for an upgrade: turn, quorum, calm, and the deadline that overrides.
//!
//! Every supervisor judges alone, from headers that all of them see alike, and nothing is agreed upon
//! by messages. So the gates must be safe against what one cannot see yet: somebody else who has
//! decided to stop but whose missing vote is not in a block so far.
//!
//! - **turn** keeps apart in time those who cannot see each other's decision. The validators of the set
//!   at the upgrade's height H, sorted by address, form groups no larger than half the margin (at
//!   least one). Group *k* may go while the head is in [H + *k*·slot, H + (*k*+1)·slot − [`QUIET`]).
//!   In the quiet end of a slot nobody begins, so that when the next slot opens every stop of this
//!   one shows in the seals. After the last group the first has its slot again, and so on: whoever
//!   was late goes then, and two late ones still do not go together. Who joined the set after H
//!   belongs to the group of the address range that it falls into.
//! - **quorum** counts who sealed in the last [`RECENT`] blocks. Without us a quorum must remain. If
//!   fewer remain than a quorum when *all* of our group go at once, the group is shared out over the
//!   cycles, half of what can be spared at a time. With 3 validators or fewer every stop halts the
//!   chain, so this gate cannot hold; turns still keep the halts apart.
//! - **calm**: the head is fresh, and the network decides most blocks in the first round.
//! - **deadline**: past it turn and calm no longer hold, quorum does. At the last block before the fork
//!   nothing holds: the old binary cannot follow the next block.
//!
//! Slots are counted in heights, so a halted chain halts the turns too, and no clocks are compared.
//! Only the age of the head is a matter of the local clock.

use super::quorum::{margin, quorum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// A validator, by its address.
pub type Validator = [u8; 20];

/// The blocks whose seals tell who is there: enough that a vote that came late once does no harm, few
/// enough that a stop shows soon. Over 240 recorded blocks no healthy validator was missing from two in a row.
pub const RECENT: u64 = 4;

/// The blocks at the end of a slot in which nobody begins to stop. The head that was looked at may be 3
/// blocks old, the last vote may come 3 blocks after the decision, and [`RECENT`] + 1 blocks later
/// it shows: 11. The fleet simulation fails with 10.
pub const QUIET: u64 = 12;

/// The shortest slot: as long open as quiet.
pub const MIN_SLOT: u64 = 2 * QUIET;

/// Blocks before the fork at which the deadline is, where none is given.
pub const DEADLINE_BEFORE_FORK: u64 = 60;

/// What the operator has configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The length of a slot in blocks; less than [`MIN_SLOT`] counts as that.
    pub slot_blocks: u64,
    /// Whether not to stop when it is our turn to propose the next block.
    pub avoid_own_proposal: bool,
}

/// An upgrade as far as the gates depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    height: u64,
    fork: Option<u64>,
    deadline: Option<u64>,
    set: Vec<Validator>,
}

/// What the chain shows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The height of the head.
    pub head: u64,
    /// How long ago the head was proposed.
    pub head_age: Duration,
    /// The time between blocks.
    pub period: Duration,
    /// The validators that seal the next block. Must be sorted by address.
    pub set: Vec<Seat>,
    /// How many of the last blocks were looked at for [`first_round`](Self::first_round).
    pub blocks: usize,
    /// How many of these were decided in round 0.
    pub first_round: usize,
    /// Who proposes the next block, if that is known.
    pub proposer: Option<Validator>,
}

/// A validator and whether it seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Who it is.
    pub validator: Validator,
    /// Whether its seal is in `prevCommittedSeal` of one of the last [`RECENT`] blocks.
    pub sealing: bool,
}

/// Whether to stop now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Stop now.
    Go(Reason),
    /// These gates hold; never empty.
    Hold(Vec<Gate>),
}

/// Why it is right to stop now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// All gates are open.
    Open,
    /// All gates are open, but so few validators cannot spare one: the chain will halt.
    HaltsChain {
        /// How many there are.
        validators: usize,
    },
    /// We do not vote, so nobody needs us.
    NotInSet,
    /// The deadline has passed; a quorum remains without us.
    Deadline {
        /// The deadline.
        height: u64,
    },
    /// The old binary cannot follow the next block.
    Fork {
        /// The first height that needs the new binary.
        height: u64,
    },
}

/// A gate that holds, and the numbers behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gate")]
pub enum Gate {
    /// Another group's slot, or the quiet end of ours.
    Turn {
        /// The head.
        head: u64,
        /// Our slot, counted from 1.
        slot: u64,
        /// The number of slots.
        slots: u64,
        /// The height at which ours opens next.
        opens_at: u64,
    },
    /// Our slot, but too few validators can be spared for all of our group in one cycle.
    Share {
        /// How many may go in one cycle.
        at_once: usize,
        /// How many want to.
        group: usize,
        /// The height at which our share has its cycle.
        opens_at: u64,
    },
    /// Without us there would be no quorum.
    Quorum {
        /// Who seals, us included if we do.
        live: usize,
        /// The size of the set.
        validators: usize,
        /// The quorum.
        needed: usize,
        /// Who seals besides us.
        without_us: usize,
    },
    /// The head is old, so what it shows is too.
    Stale {
        /// The age of the head in milliseconds.
        age_ms: u64,
        /// The age up to which it is fresh, in milliseconds.
        limit_ms: u64,
    },
    /// The network needs round changes for too many blocks.
    Rounds {
        /// Blocks decided in round 0 …
        first_round: usize,
        /// … of so many.
        blocks: usize,
    },
    /// We propose the next block.
    Proposal {
        /// Its height.
        height: u64,
    },
    /// Not enough is known to decide.
    Unknown {
        /// What is missing.
        missing: String,
    },
}

impl Due {
    /// An upgrade due at `height`; `set` are the validators that seal that block, in any order.
    #[must_use]
    pub fn new(
        height: u64,
        fork: Option<u64>,
        deadline: Option<u64>,
        set: impl IntoIterator<Item = Validator>,
    ) -> Self {
        let mut set: Vec<Validator> = set.into_iter().collect();
        set.sort_unstable();
        set.dedup();
        let deadline = deadline.or(fork.map(|f| f.saturating_sub(DEADLINE_BEFORE_FORK)));
        Due { height, fork, deadline, set }
    }

    /// The height from which turn and calm no longer hold.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// How many validators share a slot: half the margin, at least one.
    #[must_use]
    pub fn group_size(&self) -> usize {
        (margin(self.set.len()) / 2).max(1)
    }

    fn slots(&self) -> u64 {
        self.set.len().div_ceil(self.group_size()).max(1) as u64
    }

    /// The slot of `validator`, counted from 0; it need not be of the set at the height.
    fn slot(&self, validator: &Validator) -> u64 {
        let before = self.set.partition_point(|v| v < validator);
        (before.min(self.set.len().saturating_sub(1)) / self.group_size()) as u64
    }

    /// Who of `seats`, sorted by address, shares the slot of `validator`: a range of addresses.
    fn mates(&self, validator: &Validator, seats: &[Seat]) -> Range<usize> {
        let slot = self.slot(validator) as usize;
        let up_to = |slots: usize| match self.set.get(slots * self.group_size() - 1) {
            Some(last) if (slots as u64) < self.slots() => seats.partition_point(|s| s.validator <= *last),
            _ => seats.len(),
        };
        let from = if slot == 0 { 0 } else { up_to(slot) };
        from..up_to(slot + 1)
    }
}

/// Decides whether the validator `me` may be stopped now.
///
/// Without `due` the question is only whether the network could spare it: for `wemixvisor check`, and
/// for a stop that the operator asks for.
#[must_use]
pub fn judge(me: &Validator, due: Option<&Due>, rules: &Rules, now: &Sample) -> Verdict {
    if let Some(fork) = due.and_then(|d| d.fork).filter(|fork| now.head.saturating_add(1) >= *fork) {
        return Verdict::Go(Reason::Fork { height: fork });
    }
    if let Some(missing) = missing(due, now) {
        return Verdict::Hold(vec![Gate::Unknown { missing: missing.to_owned() }]);
    }
    let Ok(seat) = now.set.binary_search_by(|seat| seat.validator.cmp(me)) else {
        return Verdict::Go(Reason::NotInSet);
    };
    let overdue = due.and_then(|d| d.deadline).filter(|deadline| now.head >= *deadline);
    let mut holds = Vec::new();
    holds.extend(quorum_gate(&now.set[seat], now));
    if overdue.is_none() {
        holds.extend(due.and_then(|due| turn_gate(me, due, rules, now)));
        holds.extend(calm_gates(now));
        let ours = rules.avoid_own_proposal && now.set.len() > 1 && now.proposer.as_ref() == Some(me);
        holds.extend(ours.then_some(Gate::Proposal { height: now.head.saturating_add(1) }));
    }
    match overdue {
        _ if !holds.is_empty() => Verdict::Hold(holds),
        Some(height) => Verdict::Go(Reason::Deadline { height }),
        None if margin(now.set.len()) == 0 => Verdict::Go(Reason::HaltsChain { validators: now.set.len() }),
        None => Verdict::Go(Reason::Open),
    }
}

fn missing(due: Option<&Due>, now: &Sample) -> Option<&'static str> {
    if due.is_some_and(|d| d.set.is_empty()) {
        Some("the validators at the upgrade's height")
    } else if now.set.is_empty() {
        Some("the validators of the next block")
    } else if now.blocks == 0 {
        Some("the last blocks")
    } else {
        None
    }
}

fn live(seats: &[Seat]) -> usize {
    seats.iter().filter(|seat| seat.sealing).count()
}

fn quorum_gate(ours: &Seat, now: &Sample) -> Option<Gate> {
    let validators = now.set.len();
    let needed = quorum(validators);
    let live = live(&now.set);
    let without_us = live - usize::from(ours.sealing);
    // With no margin the question is pointless: a quorum never remains.
    let holds = margin(validators) > 0 && without_us < needed;
    holds.then_some(Gate::Quorum { live, validators, needed, without_us })
}

fn turn_gate(me: &Validator, due: &Due, rules: &Rules, now: &Sample) -> Option<Gate> {
    let length = rules.slot_blocks.max(MIN_SLOT);
    let (slots, ours) = (due.slots(), due.slot(me));
    let first = due.height.saturating_add(ours.saturating_mul(length));
    let cycle_length = slots.saturating_mul(length);
    // The start of our slot in the given cycle.
    let start = |cycle: u64| first.saturating_add(cycle.saturating_mul(cycle_length));
    let closed = |opens_at| Gate::Turn { head: now.head, slot: ours + 1, slots, opens_at };
    if now.head < first {
        return Some(closed(first));
    }
    let cycle = (now.head - first) / cycle_length;
    let into_slot = (now.head - first) % cycle_length;
    // With one slot there is nobody to keep apart from.
    if slots > 1 && into_slot >= length - QUIET {
        return Some(closed(start(cycle + 1)));
    }
    share_gate(me, due, now, cycle, start)
}

/// Shares our group out over the cycles if the network cannot spare all of it at once.
fn share_gate(
    me: &Validator,
    due: &Due,
    now: &Sample,
    cycle: u64,
    start: impl Fn(u64) -> u64,
) -> Option<Gate> {
    let group = &now.set[due.mates(me, &now.set)];
    let live = live(&now.set);
    let needed = quorum(now.set.len());
    let remain = live - self::live(group);
    let at_once = if remain >= needed { group.len() } else { live.saturating_sub(needed) / 2 };
    let at_once = at_once.clamp(1, due.group_size());
    let shares = group.len().div_ceil(at_once).max(1) as u64;
    let ours = (group.partition_point(|seat| seat.validator < *me) / at_once) as u64;
    let wait = (ours + shares - cycle % shares) % shares;
    (wait > 0).then(|| Gate::Share { at_once, group: group.len(), opens_at: start(cycle + wait) })
}

fn calm_gates(now: &Sample) -> impl Iterator<Item = Gate> {
    let limit = now.period * 3;
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let stale =
        (now.head_age > limit).then(|| Gate::Stale { age_ms: millis(now.head_age), limit_ms: millis(limit) });
    let restless = (now.first_round * 4 < now.blocks * 3)
        .then_some(Gate::Rounds { first_round: now.first_round, blocks: now.blocks });
    stale.into_iter().chain(restless)
}

impl Gate {
    /// Its name, for status, metrics and log: `turn`, `quorum`, `calm`, `proposal` or `unknown`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Gate::Turn { .. } | Gate::Share { .. } => "turn",
            Gate::Quorum { .. } => "quorum",
            Gate::Stale { .. } | Gate::Rounds { .. } => "calm",
            Gate::Proposal { .. } => "proposal",
            Gate::Unknown { .. } => "unknown",
        }
    }

    /// Whether it holds only because too little is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Gate::Unknown { .. })
    }

    /// What would open it.
    #[must_use]
    pub fn waits_for(&self) -> String {
        match self {
            Gate::Turn { opens_at, .. } | Gate::Share { opens_at, .. } => format!("block {opens_at}"),
            Gate::Quorum { needed, without_us, .. } => {
                format!("{} more to seal", needed.saturating_sub(*without_us))
            }
            Gate::Stale { .. } => "a fresh head".to_owned(),
            Gate::Rounds { blocks, .. } => {
                format!("{} of {blocks} blocks decided in round 0", (blocks * 3).div_ceil(4))
            }
            Gate::Proposal { height } => format!("block {height}"),
            Gate::Unknown { missing } => missing.clone(),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gate::Turn { head, slot, slots, opens_at } => {
                let left = opens_at.saturating_sub(*head);
                write!(f, "slot {slot} of {slots} is ours, it opens at block {opens_at}, in {left} blocks")
            }
            Gate::Share { at_once, group, opens_at } => write!(
                f,
                "{at_once} of the {group} in our slot may go at a time, we may from block {opens_at}"
            ),
            Gate::Quorum { live, validators, needed, without_us } => {
                write!(f, "{live} of {validators} live, need {needed} without us, have {without_us}")
            }
            Gate::Stale { age_ms, limit_ms } => {
                write!(f, "the head is {} s old, fresh is up to {} s", seconds(*age_ms), seconds(*limit_ms))
            }
            Gate::Rounds { first_round, blocks } => {
                write!(f, "{first_round} of the last {blocks} blocks decided in round 0, need 3 of 4")
            }
            Gate::Proposal { height } => write!(f, "we propose block {height}"),
            Gate::Unknown { missing } => f.write_str(missing),
        }
    }
}

/// Milliseconds as seconds with one decimal.
fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Open => f.write_str("all gates are open"),
            Reason::HaltsChain { validators } => write!(
                f,
                "all gates are open, but of {validators} validators none can be spared: the chain halts until we are back"
            ),
            Reason::NotInSet => f.write_str("we are not among the validators"),
            Reason::Deadline { height } => write!(f, "the deadline, block {height}, has passed"),
            Reason::Fork { height } => write!(f, "the fork at block {height} needs the new binary"),
        }
    }
}

#[cfg(test)]
mod tests;
