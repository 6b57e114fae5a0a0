//! When a validator may be stopped: turn, quorum, calm, and the distance to its own next proposal.
//!
//! Every supervisor judges alone, from headers that all of them see alike, and nothing is agreed upon by
//! messages. So the gates must be safe against what cannot be seen yet: another validator that has decided
//! to stop but whose missing vote is not in a block so far.
//!
//! - **turn** keeps apart in time those that cannot see each other's decision. There is one grid for all
//!   upgrades and all operators: slot *s* begins at height [`SLOT`]·*s*. The validators that seal its first
//!   block, sorted by address, form groups no larger than half the margin (at least one). Group *s* mod groups
//!   may begin to stop in the first [`OPEN`] blocks of the slot, no validator in the last [`QUIET`], so that
//!   when the next slot opens every stop of this one shows in the seals. A validator that joins in mid-slot
//!   waits for the next one. Turns are never lifted: a deadline that passes is an alarm, not a licence.
//! - **quorum** counts the validators that sealed in the last [`RECENT`] blocks. Without us a quorum must
//!   remain. If fewer remain than a quorum when *all* of our group stop at once, the group is shared out over
//!   the cycles, half of what can be spared at a time. With 3 validators or fewer every stop halts the
//!   chain, so this gate cannot hold; turns still keep the halts apart.
//! - **calm**: the head is fresh, the network decides most blocks in the first round, and it did not stand still while
//!   the blocks were made whose seals are counted.
//! - **proposal**: a validator that returns at a head after which it proposes would propose there again, so it is
//!   not stopped there, nor at its own block, since a clean stop may lose the newest block. Best is one block
//!   after its own; that is waited for where it fits into the open half.
//!
//! - **fork**: around a fork of another upgrade no validator stops, since those that lack that one will be gone.
//!
//! At the last block before the fork no gate holds: the old binary cannot follow the next block.
//!
//! Slots are counted in heights, so a halted chain halts the turns too, and no clocks are compared.
//! Only the age of the head is a matter of the local clock.

pub use super::order::Validator;

use super::order::Order;
use super::quorum::{margin, quorum};
use crate::sorted;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// The blocks whose seals show which validators are there: enough that one late vote does no harm, few
/// enough that a stop shows soon. Over 240 recorded blocks no healthy validator was missing from two in a row.
pub const RECENT: u64 = 4;

/// The blocks at the beginning of a slot in which its group may begin to stop.
pub const OPEN: u64 = 12;

/// The blocks at the end of a slot in which no validator begins to stop. The head that was looked at may be 3
/// blocks old, the last vote may come 3 blocks after the decision, and [`RECENT`] + 1 blocks later
/// it shows: 11. The fleet simulation fails with 10.
pub const QUIET: u64 = 12;

/// The length of a slot in blocks. All supervisors of a network must agree on it, so it is a constant.
pub const SLOT: u64 = OPEN + QUIET;

/// Blocks before the fork at which the alarm for an upgrade that has not happened is due, where no
/// deadline is given.
pub const DEADLINE_BEFORE_FORK: u64 = 60;

/// The deadline of an upgrade: as given, otherwise [`DEADLINE_BEFORE_FORK`] blocks before its fork.
#[must_use]
pub fn deadline(given: Option<u64>, fork: Option<u64>) -> Option<u64> {
    given.or(fork.map(|fork| fork.saturating_sub(DEADLINE_BEFORE_FORK)))
}

/// The blocks that it takes until each of `validators` has had a turn: one slot for each group.
#[must_use]
pub fn room_needed(validators: usize) -> u64 {
    (validators.div_ceil(group_size(validators)).max(1) as u64).saturating_mul(SLOT)
}

/// The number of validators that share a slot: half the margin, at least one.
#[must_use]
pub fn group_size(validators: usize) -> usize {
    (margin(validators) / 2).max(1)
}

/// Too few blocks before a fork for each validator to have a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    /// The size of the set.
    pub validators: usize,
    /// The number of groups, each of which needs a slot of [`SLOT`] blocks.
    pub groups: u64,
    /// The blocks that all groups need together.
    pub needed: u64,
    /// The blocks that there are.
    pub have: u64,
    /// Whether they count from the head, since the height of the upgrade has passed.
    pub from_head: bool,
}

/// The blocks between the height of an upgrade, or the head where that is higher, and the fork.
///
/// # Errors
/// The numbers, if there are fewer than it takes until each of `validators` has had a turn.
pub fn room(validators: usize, height: u64, head: Option<u64>, fork: u64) -> Result<u64, Short> {
    let from = head.map_or(height, |head| head.max(height));
    let have = fork.saturating_sub(from);
    let needed = room_needed(validators);
    // A validator that is alone waits for no turn.
    if validators <= 1 || have >= needed {
        return Ok(have);
    }
    Err(Short { validators, groups: needed / SLOT, needed, have, from_head: from > height })
}

/// A slot of the grid, and the validators that share its turns out among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    number: u64,
    set: Vec<Validator>,
}

/// Heights in which a group may begin to stop, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first open block.
    pub opens_at: u64,
    /// The last open block.
    pub closes_at: u64,
}

/// The state of the chain at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The height of the head.
    pub head: u64,
    /// How long ago the head was heard. For a single look at a node, as by `check`, it is how long ago by our clock the
    /// head was proposed, so that a clock that is off shows in it.
    pub head_age: Duration,
    /// The time between blocks.
    pub period: Duration,
    /// The validators that seal the next block. Must be sorted by address.
    pub set: Vec<Seat>,
    /// How many of the last blocks were looked at for [`first_round`](Self::first_round).
    pub blocks: usize,
    /// How many of these were decided in round 0.
    pub first_round: usize,
    /// The height since which heads have come without a long gap, as far as that was watched; 0 if it was not.
    pub steady_since: u64,
    /// The order of proposers at the head, if it is known.
    pub order: Option<Order>,
    /// The same one block before the head.
    pub order_before: Option<Order>,
}

/// A validator and whether it seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its address.
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
        /// The size of the set.
        validators: usize,
    },
    /// We do not vote, so the network loses nothing.
    NotInSet,
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
        /// Our group, counted from 1; 0 if we joined after the slot began.
        group: u64,
        /// The number of groups.
        groups: u64,
        /// The height at which our slot opens next.
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
        /// How many seal, us included if we do.
        live: usize,
        /// The size of the set.
        validators: usize,
        /// The quorum.
        needed: usize,
        /// How many seal besides us.
        without_us: usize,
    },
    /// The head is old, and so is what it shows.
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
        /// … of this many.
        blocks: usize,
    },
    /// The chain has stood still, and the seals that are looked at are partly from before.
    Resumed {
        /// The first block after that.
        since: u64,
    },
    /// A block of our own is too near, or so near that it is better to stop after it.
    Proposal {
        /// The head.
        head: u64,
        /// The block after which to stop.
        after: u64,
    },
    /// A fork for which another upgrade is needed is near: the validators that lack it will be gone there, and that shows
    /// in no seal before.
    Fork {
        /// The height of the fork.
        height: u64,
    },
    /// Not enough is known to decide.
    Unknown {
        /// The problem, in words.
        missing: String,
    },
}

impl Slot {
    /// The height of the first block of the slot that `height` is in. The validators that seal it share the slot.
    #[must_use]
    pub const fn first_block(height: u64) -> u64 {
        height / SLOT * SLOT
    }

    /// The slot of `height`; `set` are the validators that seal its first block, in any order.
    #[must_use]
    pub fn of(height: u64, set: impl IntoIterator<Item = Validator>) -> Self {
        let mut set: Vec<Validator> = set.into_iter().collect();
        sorted::sort(&mut set);
        set.dedup();
        Slot { number: height / SLOT, set }
    }

    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.set.len().div_ceil(group_size(self.set.len())).max(1) as u64
    }

    /// The group of `validator`, counted from 0; None if it does not seal the slot's first block.
    #[must_use]
    pub fn group(&self, validator: &Validator) -> Option<u64> {
        let at = self.set.binary_search(validator).ok()?;
        Some((at / group_size(self.set.len())) as u64)
    }

    /// The first window at or after `from` in which group `group` may begin to stop, for as long as the set stays.
    #[must_use]
    pub fn window(&self, group: u64, from: u64) -> Window {
        let (number, groups) = (from / SLOT, self.groups());
        let mut wait = (group + groups - number % groups) % groups;
        if wait == 0 && from % SLOT >= OPEN && groups > 1 {
            wait = groups;
        }
        let opens_at = number.saturating_add(wait).saturating_mul(SLOT);
        // A group that is alone never waits.
        let open = if groups > 1 { OPEN } else { SLOT };
        Window { opens_at, closes_at: opens_at.saturating_add(open - 1) }
    }

    /// The members of `seats`, sorted by address, that are of the group: a range, since groups are address ranges.
    fn mates(&self, group: u64, seats: &[Seat]) -> Range<usize> {
        let size = group_size(self.set.len());
        let first = usize::try_from(group).unwrap_or(usize::MAX).saturating_mul(size);
        let bound = |at: usize| match self.set.get(at) {
            Some(validator) if at > 0 => seats.partition_point(|seat| seat.validator < *validator),
            Some(_) => 0,
            None => seats.len(),
        };
        bound(first)..bound(first.saturating_add(size))
    }
}

/// The windows in which each of `set` may begin to stop from height `from` on, in their order, if all are healthy
/// and the set stays.
#[must_use]
pub fn roll(set: &[Validator], from: u64) -> Vec<(Validator, Window)> {
    let slot = Slot::of(from, set.iter().copied());
    let turn = |validator: &Validator| Some((*validator, slot.window(slot.group(validator)?, from)));
    let mut roll: Vec<_> = slot.set.iter().filter_map(turn).collect();
    sorted::by_key(&mut roll, |(_, window)| window.opens_at);
    roll
}

/// Whether the block after one of our own is waited for, where that comes in our turn. For ever that would not do, since
/// turns and proposals may repeat in step, and another gate be closed at just that block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterOwn {
    /// It is.
    Preferred,
    /// Any block of the turn will do.
    NoMatter,
}

/// Decides whether the validator `me` may be stopped now.
///
/// Without `slot` the question is only whether the network could spare it, whosever turn it is.
#[must_use]
pub fn judge(me: &Validator, slot: Option<&Slot>, now: &Sample, own: AfterOwn) -> Verdict {
    if let Some(missing) = missing(slot, now) {
        return Verdict::Hold(vec![Gate::Unknown { missing: missing.to_owned() }]);
    }
    let Ok(seat) = now.set.binary_search_by(|seat| seat.validator.cmp(me)) else {
        return Verdict::Go(Reason::NotInSet);
    };
    let mut holds = Vec::new();
    holds.extend(quorum_gate(&now.set[seat], now));
    let turn = slot.and_then(|slot| turn_gate(me, slot, now));
    // A block of our own is best waited for only while we could still go after it.
    let open_until = slot
        .filter(|_| own == AfterOwn::Preferred && turn.is_none())
        .map(|_| Slot::first_block(now.head).saturating_add(OPEN - 1));
    holds.extend(turn);
    holds.extend(calm_gates(now));
    holds.extend(proposal_gate(me, now, open_until));
    match margin(now.set.len()) {
        _ if !holds.is_empty() => Verdict::Hold(holds),
        0 => Verdict::Go(Reason::HaltsChain { validators: now.set.len() }),
        _ => Verdict::Go(Reason::Open),
    }
}

fn missing(slot: Option<&Slot>, now: &Sample) -> Option<&'static str> {
    if slot.is_some_and(|slot| slot.set.is_empty() || slot.number != now.head / SLOT) {
        Some("the validators that share this slot")
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

fn turn_gate(me: &Validator, slot: &Slot, now: &Sample) -> Option<Gate> {
    let groups = slot.groups();
    let Some(group) = slot.group(me) else {
        let opens_at = (slot.number.saturating_add(1)).saturating_mul(SLOT);
        return Some(Gate::Turn { head: now.head, group: 0, groups, opens_at });
    };
    let Window { opens_at, .. } = slot.window(group, now.head);
    if opens_at > now.head {
        return Some(Gate::Turn { head: now.head, group: group + 1, groups, opens_at });
    }
    share_gate(me, slot, group, now)
}

/// Shares our group out over the cycles if the network cannot spare all of it at once.
fn share_gate(me: &Validator, slot: &Slot, group: u64, now: &Sample) -> Option<Gate> {
    let cycle = slot.number / slot.groups();
    let mates = &now.set[slot.mates(group, &now.set)];
    let live = live(&now.set);
    let needed = quorum(now.set.len());
    let remain = live - self::live(mates);
    let at_once = if remain >= needed { mates.len() } else { live.saturating_sub(needed) / 2 };
    let at_once = at_once.clamp(1, group_size(slot.set.len()));
    let shares = mates.len().div_ceil(at_once).max(1) as u64;
    let ours = (mates.partition_point(|seat| seat.validator < *me) / at_once) as u64;
    let wait = (ours + shares - cycle % shares) % shares;
    let opens_at = (cycle.saturating_add(wait)).saturating_mul(slot.groups()).saturating_add(group);
    (wait > 0).then(|| Gate::Share { at_once, group: mates.len(), opens_at: opens_at.saturating_mul(SLOT) })
}

/// Keeps a validator from being stopped where it would propose again when it returns, and prefers the block after
/// its own where that comes before `open_until`.
pub(super) fn proposal_gate(me: &Validator, now: &Sample, open_until: Option<u64>) -> Option<Gate> {
    let order = now.order.as_ref().filter(|order| order.height == now.head)?;
    let validators = order.list.len() as u64;
    // Of two validators each is always next to one of its own blocks. A sticky proposer has no better moment.
    if validators < 3 || order.sticky {
        return None;
    }
    let hold = |after: u64| Some(Gate::Proposal { head: now.head, after });
    let next = now.head.saturating_add(1);
    let distance = order.distance(me)?;
    if distance == 1 {
        return hold(next.saturating_add(1));
    }
    let proposed_head = now.order_before.as_ref().and_then(|before| before.distance(me)) == Some(1);
    if proposed_head || order.ends_with_next() {
        return hold(next);
    }
    let is_best = distance + 1 == validators;
    let best = now.head.saturating_add(distance).saturating_add(1);
    let fits = open_until.is_some_and(|last| best <= last)
        && order.until.is_none_or(|until| best.saturating_add(1) < until);
    if fits && !is_best { hold(best) } else { None }
}

fn calm_gates(now: &Sample) -> impl Iterator<Item = Gate> {
    let limit = now.period * 3;
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let stale =
        (now.head_age > limit).then(|| Gate::Stale { age_ms: millis(now.head_age), limit_ms: millis(limit) });
    let restless = (now.first_round * 4 < now.blocks * 3)
        .then_some(Gate::Rounds { first_round: now.first_round, blocks: now.blocks });
    let resumed = now.steady_since > 0 && now.head < now.steady_since.saturating_add(RECENT + 1);
    let resumed = resumed.then_some(Gate::Resumed { since: now.steady_since });
    stale.into_iter().chain(restless).chain(resumed)
}

impl Gate {
    /// Its name, for status, metrics and log: `turn`, `quorum`, `calm`, `proposal`, `fork` or `unknown`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Gate::Turn { .. } | Gate::Share { .. } => "turn",
            Gate::Quorum { .. } => "quorum",
            Gate::Stale { .. } | Gate::Rounds { .. } | Gate::Resumed { .. } => "calm",
            Gate::Proposal { .. } => "proposal",
            Gate::Fork { .. } => "fork",
            Gate::Unknown { .. } => "unknown",
        }
    }

    /// Whether it holds only because too little is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Gate::Unknown { .. })
    }

    /// The condition that would open it.
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
            Gate::Resumed { since } => format!("block {}", since.saturating_add(RECENT + 1)),
            Gate::Proposal { after, .. } => format!("block {after}"),
            Gate::Fork { height } => format!("block {}", height.saturating_add(QUIET)),
            Gate::Unknown { missing } => missing.clone(),
        }
    }
}

/// Gates that hold, each with its name and numbers, in one line.
pub(super) fn list(gates: &[Gate]) -> String {
    let gates: Vec<String> = gates.iter().map(|gate| format!("{}: {gate}", gate.name())).collect();
    gates.join("; ")
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gate::Turn { group: 0, opens_at, .. } => {
                write!(f, "we joined in mid-slot, the next slot begins at block {opens_at}")
            }
            Gate::Turn { head, group, groups, opens_at } => {
                let left = opens_at.saturating_sub(*head);
                write!(f, "turn {group} of {groups} is ours, it opens at block {opens_at}, in {left} blocks")
            }
            Gate::Share { at_once, group, opens_at } => write!(
                f,
                "{at_once} of the {group} that share our turn may go at a time, we may from block {opens_at}"
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
            Gate::Resumed { since } => {
                write!(
                    f,
                    "the chain goes on since block {since} only, and older seals do not show which validators are there"
                )
            }
            Gate::Proposal { head, after } => {
                write!(f, "a block of our own is near block {head}, better to stop after block {after}")
            }
            Gate::Fork { height } => {
                write!(f, "the fork at block {height} of another upgrade is near, and not all may follow it")
            }
            Gate::Unknown { missing } => f.write_str(missing),
        }
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Short { validators, groups, needed, have, from_head } = self;
        write!(f, "{validators} validators need {groups} × {SLOT} = {needed} blocks between ")?;
        let verb = if *have == 1 { "is" } else { "are" };
        write!(f, "{} and fork, there {verb} {have}", if *from_head { "head" } else { "height" })
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
            Reason::Fork { height } => write!(f, "the fork at block {height} needs the new binary"),
        }
    }
}

#[cfg(test)]
mod tests;
