//! Heads as evidence: the rules by which a reported head counts, and the head record that survives everything.
//!
//! One head reported by one source decides nothing and is recorded nowhere (I14). A head counts only if it is linked
//! to a block known before, by parent hashes or by asking again for a block of ours, and if the chain can have
//! risen that far in the time that has passed. The newest head that counts is the head record: it decides
//! whether an upgrade is due, also while the node is down, and it is the block beyond which a validator that
//! ended uncleanly may sign again.
//!
//! The record falls only when the node has followed an honest chain below it for [`HONEST`] blocks.

use super::event::Head;
use super::order::Validator;
use super::record::{Block, HeadRecord, Turns};
use crate::digest::Digest;
use std::time::{Duration, Instant};

/// Blocks beyond the rate of the chain that a head may have risen: clocks and networks are not exact.
const SLACK: u32 = 4;
/// A wall clock that is ahead of the monotonic one by this ran on without us: the machine was paused, or NTP has set it.
const JUMP: Duration = Duration::from_secs(3);
/// A gap up to this many blocks is linked block by block; over a larger one a block of ours is asked for again.
pub(super) const TRACEABLE: u64 = 64;
/// Blocks of an honest chain below the record after which the record is forgotten.
const HONEST: u64 = 20;
/// The number of counted blocks that are remembered with their hashes.
const REMEMBERED: usize = 32;

/// The machine's knowledge of the chain's height, and its open questions about it.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Heads {
    record: Option<HeadRecord>,
    /// Whether a node may have gone on unheard beyond the record that was forgotten.
    unheard: bool,
    /// When a head was judged last, and our wall clock then, as the time since the epoch.
    judged: Option<(Instant, Duration)>,
    /// The time from the record's block to then, as far as it was reckoned.
    since: Duration,
    /// The time that the chain has had until then and has not used up for counted blocks.
    credit: Option<Duration>,
    /// The head of the first contact, until another answer is linked to it.
    first: Option<First>,
    /// A head above the record whose link to it was asked for, and when.
    open: Option<(Instant, Head)>,
    /// Whether the node has the block of the record, so that it is asked for the open head again.
    anchored: bool,
    /// The chain that the node follows instead of the record's.
    other: Option<Other>,
    contradiction: Option<Contradiction>,
    /// Why the head that was reported last does not count.
    doubt: Option<String>,
}

/// The heads of the first contact: nothing is known yet that they could be linked to.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
struct First {
    /// When the first of them was heard.
    at: Instant,
    /// The last of them; each is linked to the one before.
    head: Head,
    voucher: Voucher,
    /// The head that the node was asked for by its height, and when.
    asked: Option<(Instant, Head)>,
}

/// Whether the node has named the chain of this home since its first head: another node may answer for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum Voucher {
    Missing,
    Asked,
    Given,
}

/// A chain that is not known to lead to the record, and grows block by block, in time.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
struct Other {
    last: Block,
    /// The height of its first block.
    from: u64,
    blocks: u64,
    /// Whether one of its blocks has counted before.
    shared: bool,
}

/// Another block where one of ours counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Contradiction {
    /// The block that counted.
    pub(super) ours: Block,
    /// The hash that the node reports in its place.
    pub(super) theirs: String,
    /// Whether the answer to a question of ours has repeated it.
    pub(super) confirmed: bool,
}

/// The facts by which heads are judged that do not come with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The shortest time between two blocks of the chain.
    pub(super) shortest: Duration,
    /// The measured time between blocks.
    pub(super) period: Duration,
    /// Whether a record that falls could make us sign twice.
    pub(super) validator: bool,
}

impl Pace {
    /// Two answers that are less than this apart may have come in one packet, and count as one.
    fn apart(self) -> Duration {
        (self.shortest / 2).min(Duration::from_millis(500))
    }

    /// A question is asked again after this time.
    fn question(self) -> Duration {
        self.period.max(Duration::from_secs(2))
    }
}

/// The blocks of a node that signs beyond the head record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Each is heard.
    Heard,
    /// Some may not be heard.
    Unheard,
}

/// The source of a reported block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// It came by itself: several may come in one packet.
    Head,
    /// The answer to a question that a head gave rise to.
    Answer,
}

/// The outcome of a reported head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It counts: the record has risen.
    Counted,
    /// It changes nothing.
    Nothing,
    /// Ask for the headers in between, both included.
    Trace { from: u64, to: u64 },
    /// Ask for the block at the height of the record.
    Recall { height: u64 },
    /// The record was forgotten: it was at this height.
    Fallen { from: u64 },
}

impl Contradiction {
    /// One line for the log and for `status`.
    pub(super) fn text(&self) -> String {
        let height = self.ours.height;
        format!("block {height} was {} and is {}", self.ours.hash.as_deref().unwrap_or("?"), self.theirs)
    }
}

impl HeadRecord {
    fn of(head: &Head) -> HeadRecord {
        HeadRecord { timestamp: head.timestamp, ..HeadRecord::new(head.block.clone()) }
    }
}

impl Heads {
    pub(super) fn new(record: Option<HeadRecord>) -> Heads {
        Heads { record, ..Heads::default() }
    }

    /// The highest head that counts.
    pub(super) fn record(&self) -> Option<&HeadRecord> {
        self.record.as_ref()
    }

    /// Its block.
    pub(super) fn block(&self) -> Option<&Block> {
        self.record.as_ref().map(|record| &record.block)
    }

    /// Its height.
    pub(super) fn height(&self) -> Option<u64> {
        self.block().map(|block| block.height)
    }

    /// The block that counted at a height, where it is remembered.
    pub(super) fn block_at(&self, height: u64) -> Option<&Block> {
        let record = self.record.as_ref()?;
        std::iter::once(&record.block).chain(&record.recent).find(|block| block.height == height)
    }

    /// Whether a block counts as part of the home's chain: it is not above the record, and contradicts no remembered block.
    pub(super) fn has(&self, height: u64, hash: &str) -> bool {
        let same = |known: &Block| known.hash.as_ref().is_none_or(|known| known.eq_ignore_ascii_case(hash));
        self.height().is_some_and(|record| height <= record) && self.block_at(height).is_none_or(same)
    }

    /// Why the head that was reported last does not count.
    pub(super) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    pub(super) fn contradiction(&self) -> Option<&Contradiction> {
        self.contradiction.as_ref()
    }

    /// At the first contact: when to ask for the head again, to have a second answer.
    pub(super) fn asks_again_at(&self, pace: Pace) -> Option<Instant> {
        let first = self.first.as_ref().filter(|first| first.voucher == Voucher::Given)?;
        Some(first.asked.as_ref().map_or(first.at + pace.apart(), |(asked, _)| *asked + pace.question()))
    }

    /// At the first contact: whether the node must name its chain before its heads count, and whether it was not asked yet.
    pub(super) fn lacks_voucher(&self) -> (bool, bool) {
        let voucher = self.first.as_ref().map(|first| first.voucher);
        (voucher.is_some_and(|it| it != Voucher::Given), voucher == Some(Voucher::Missing))
    }

    /// The node is asked which chain it is on.
    pub(super) fn ask_voucher(&mut self) {
        if let Some(first) = self.first.as_mut().filter(|first| first.voucher == Voucher::Missing) {
            first.voucher = Voucher::Asked;
        }
    }

    /// The node has named the chain of this home, in answer to the last question.
    pub(super) fn vouch(&mut self) {
        if let Some(first) = self.first.as_mut().filter(|first| first.voucher == Voucher::Asked) {
            first.voucher = Voucher::Given;
        }
    }

    /// The node has named another chain: its first head counts for nothing.
    pub(super) fn distrust(&mut self) {
        self.first = None;
    }

    /// Another node process runs: questions to the last one stay unanswered.
    pub(super) fn forget_questions(&mut self) {
        (self.open, self.first, self.contradiction, self.doubt) = (None, None, None, None);
    }

    /// Forgets the record, by the operator's order. That what was signed may not be known stays true.
    pub(super) fn reset(&mut self) {
        *self = Heads { unheard: self.is_marked(), ..Heads::default() };
    }

    /// Whether a node that signs may have gone on unheard beyond the record, or beyond the forgotten one.
    fn is_marked(&self) -> bool {
        self.record.as_ref().map_or(self.unheard, |record| record.unheard)
    }

    /// The block at `height` and those after it are no evidence any more: the record falls below it.
    pub(super) fn fall_below(&mut self, height: u64) {
        let Some(record) = self.record.as_mut().filter(|record| record.block.height >= height) else {
            return;
        };
        record.recent.retain(|block| block.height < height);
        if record.recent.is_empty() {
            (self.unheard, self.record) = (record.unheard, None);
        } else {
            record.block = record.recent.remove(0);
            (record.turns, record.timestamp) = (None, None);
        }
        self.forget_questions();
    }

    /// Takes note of the binary that has followed the chain up to the record.
    pub(super) fn note_binary(&mut self, binary: Digest) {
        if let Some(record) = &mut self.record {
            record.binary = Some(binary);
        }
    }

    /// Notes how far our next proposals are from the head of this height. Returns whether that is new.
    pub(super) fn note_turns(&mut self, height: u64, turns: Turns) -> bool {
        let record = self.record.as_mut().filter(|record| record.block.height == height);
        record.is_some_and(|record| record.turns.replace(turns) != Some(turns))
    }

    /// Notes whether a node that signs may have gone on beyond the record. Returns whether that is new.
    pub(super) fn note_beyond(&mut self, beyond: Beyond) -> bool {
        let unheard = beyond == Beyond::Unheard;
        self.record.as_mut().is_some_and(|record| std::mem::replace(&mut record.unheard, unheard) != unheard)
    }

    /// Judges a reported head.
    pub(super) fn hear(&mut self, now: Instant, head: &Head, pace: Pace) -> Hearing {
        let passed = self.pass(now, head.heard_at);
        let Some(record) = &self.record else { return self.meet(now, head, pace) };
        let since_record = match (head.heard_at, record.timestamp) {
            (heard, Some(then)) => Duration::from_secs(heard.saturating_sub(then)),
            // Nothing is known of the time before.
            (_, None) => Duration::MAX,
        };
        // By the clock that is further on: a wall clock that was set back must not hold the record, and the same head may be
        // judged again much later.
        self.since = since_record.max(self.since.saturating_add(passed));
        let possible = self.since.saturating_add(pace.shortest.saturating_mul(SLACK));
        // Heads that have waited come all at once, and the first must not use up the time of the others.
        let grown = |credit: Duration| credit.saturating_add(passed).min(possible).max(credit);
        let credit = self.credit.map_or(possible, grown);
        self.credit = Some(credit);
        let (height, known) = (head.block.height, record.block.clone());
        let follows = is_child(head, &known);
        if !follows && let Some(from) = self.follow_other(head, pace) {
            return Hearing::Fallen { from };
        }
        if height <= known.height {
            return match self.block_at(height).cloned() {
                Some(ours) => self.compare(&ours, head),
                None => Hearing::Nothing,
            };
        }
        if self.cost(height, pace) > credit {
            let what = format!(
                "block {height} is more than the chain can have risen to since block {}",
                known.height
            );
            self.doubt = Some(what);
            return Hearing::Nothing;
        }
        if follows {
            self.count(now, std::slice::from_ref(head), pace);
            return Hearing::Counted;
        }
        if self.open.as_ref().is_some_and(|(asked, _)| now < *asked + pace.question()) {
            return Hearing::Nothing;
        }
        (self.open, self.anchored) = (Some((now, head.clone())), false);
        if height - known.height > TRACEABLE {
            return Hearing::Recall { height: known.height };
        }
        // With the block of the record: on another chain nothing fits.
        Hearing::Trace { from: known.height, to: height - 1 }
    }

    /// The time that has passed since a head was judged last. Where our wall clock has gone on beyond the monotonic one,
    /// the chain has had that time too. It is our own clock, so no node can claim it.
    fn pass(&mut self, now: Instant, heard_at: u64) -> Duration {
        let wall = Duration::from_secs(heard_at);
        let (at, clock) = self.judged.unwrap_or((now, wall));
        let passed = now.saturating_duration_since(at);
        // A head that is judged again was heard earlier, and the wall clock has gone on since.
        let expected = clock.saturating_add(passed);
        self.judged = Some((now, wall.max(expected)));
        let jump = wall.saturating_sub(expected);
        if jump >= JUMP { passed.saturating_add(jump) } else { passed }
    }

    /// The headers that were asked for by [`Hearing::Trace`]; whether the open head counts now.
    pub(super) fn traced(&mut self, headers: &[Head], pace: Pace) -> Hearing {
        let (Some((heard, head)), Some(record)) = (self.open.take(), &self.record) else {
            return Hearing::Nothing;
        };
        let known = record.block.clone();
        let Some((first, rest)) =
            headers.split_first().filter(|(first, _)| first.block.height == known.height)
        else {
            return Hearing::Nothing;
        };
        if !is_same(&first.block, &known) {
            return self.compare(&known, first);
        }
        let mut links: Vec<Head> =
            rest.iter().filter(|h| h.block.height < head.block.height).cloned().collect();
        links.push(head);
        let mut last = known;
        for link in &links {
            if !is_child(link, &last) {
                self.doubt =
                    Some(format!("block {} is not linked to block {}", link.block.height, last.height));
                return Hearing::Nothing;
            }
            last = link.block.clone();
        }
        self.count(heard, &links, pace);
        Hearing::Counted
    }

    /// The node's block at a height, as it answered when it was asked for it.
    pub(super) fn recalled(&mut self, block: &Block, pace: Pace) -> Hearing {
        if self.record.is_none() {
            return self.met(block);
        }
        // A node that has both our block and the open head is on our chain.
        if let Some((_, head)) = &self.open
            && head.block.height == block.height
        {
            let counts = self.anchored && block.hash.is_some() && is_same(block, &head.block);
            let open = self.open.take();
            self.anchored = false;
            return match open.filter(|_| counts) {
                Some((heard, head)) => {
                    self.count(heard, std::slice::from_ref(&head), pace);
                    Hearing::Counted
                }
                None => Hearing::Nothing,
            };
        }
        let Some(ours) = self.block_at(block.height).cloned() else { return Hearing::Nothing };
        let Some(theirs) = &block.hash else { return Hearing::Nothing };
        if is_same(block, &ours) {
            self.contradiction = None;
            return match &self.open {
                Some((_, head))
                    if Some(block.height) == self.height() && head.block.height > block.height =>
                {
                    let height = head.block.height;
                    self.anchored = true;
                    Hearing::Recall { height }
                }
                Some(_) | None => Hearing::Nothing,
            };
        }
        self.open = None;
        self.contradict(ours, theirs.clone(), Source::Answer);
        Hearing::Nothing
    }

    /// The first contact: two linked answers make the record, where the node has named the chain of this home in between
    /// and has that block at its height. An answer in the same packet is no second answer, and a node that answers
    /// falsely about the latest block repeats that for as long as it is asked.
    fn meet(&mut self, now: Instant, head: &Head, pace: Pace) -> Hearing {
        let linked =
            |first: &&mut First| is_same(&first.head.block, &head.block) || is_child(head, &first.head.block);
        let Some(first) = self.first.as_mut().filter(linked) else {
            self.first = Some(First { at: now, head: head.clone(), voucher: Voucher::Missing, asked: None });
            return Hearing::Nothing;
        };
        first.head = head.clone();
        let waits = first.asked.as_ref().is_some_and(|(asked, _)| now < *asked + pace.question());
        if first.voucher != Voucher::Given || now < first.at + pace.apart() || waits {
            return Hearing::Nothing;
        }
        first.asked = Some((now, head.clone()));
        Hearing::Recall { height: head.block.height }
    }

    /// The node's block at the height of the head that the first contact was about.
    fn met(&mut self, block: &Block) -> Hearing {
        let Some((_, head)) = self.first.as_ref().and_then(|first| first.asked.as_ref()) else {
            return Hearing::Nothing;
        };
        if head.block.height != block.height {
            return Hearing::Nothing;
        }
        let unheard = self.unheard;
        let record = || HeadRecord { unheard, ..HeadRecord::of(head) };
        let record = (block.hash.is_some() && is_same(block, &head.block)).then(record);
        (self.record, self.first) = (record, None);
        // Another record: its time begins now.
        (self.since, self.credit) = (Duration::ZERO, None);
        if self.record.is_some() { Hearing::Counted } else { Hearing::Nothing }
    }

    /// Takes note of a head that does not follow upon the record. When an honest chain has grown long enough without
    /// it, the record falls: the height from which it did.
    fn follow_other(&mut self, head: &Head, pace: Pace) -> Option<u64> {
        let fresh = head.timestamp.is_some_and(|time| {
            Duration::from_secs(head.heard_at.abs_diff(time)) <= (pace.period * 3).max(Duration::from_secs(3))
        });
        let is_shared = self.block_at(head.block.height).is_some_and(|known| is_same(known, &head.block));
        let (from, blocks, shared) = match &self.other {
            _ if !fresh => (head.block.height, 0, false),
            Some(other) if is_same(&other.last, &head.block) => return None,
            Some(other) if is_child(head, &other.last) => {
                (other.from, other.blocks + 1, other.shared || is_shared)
            }
            Some(_) | None => (head.block.height, 1, is_shared),
        };
        self.other = Some(Other { last: head.block.clone(), from, blocks, shared });
        // A validator must not sign again at a height that was final: only a record that contradicts the chain of its
        // own past was wrong.
        let is_safe = !pace.validator || shared && self.contradiction.is_none();
        // A chain that begins above the record has the rate to pass.
        let falls = |record: &u64| blocks >= HONEST && is_safe && from <= *record;
        let from = self.height().filter(falls)?;
        // A chain that is followed does not show which blocks were signed unheard.
        let unheard = self.is_marked();
        *self = Heads::new(Some(HeadRecord { unheard, ..HeadRecord::of(head) }));
        Some(from)
    }

    /// Compares a reported block with the block that counted at its height.
    fn compare(&mut self, ours: &Block, head: &Head) -> Hearing {
        match &head.block.hash {
            Some(theirs) if !is_same(ours, &head.block) => {
                self.contradict(ours.clone(), theirs.clone(), Source::Head);
                Hearing::Recall { height: ours.height }
            }
            Some(_) if self.contradiction.take_if(|c| c.ours == *ours).is_some() => Hearing::Nothing,
            Some(_) | None => {
                self.doubt = None;
                Hearing::Nothing
            }
        }
    }

    fn contradict(&mut self, ours: Block, theirs: String, source: Source) {
        let before = self.contradiction.take().filter(|c| c.ours == ours && c.theirs == theirs);
        let confirmed = before.is_some_and(|c| c.confirmed || source == Source::Answer);
        self.contradiction = Some(Contradiction { ours, theirs, confirmed });
    }

    /// Takes linked blocks above the record in; the last of them was `heard` at this instant.
    fn count(&mut self, heard: Instant, links: &[Head], pace: Pace) {
        let Some(head) = links.last() else { return };
        let cost = self.cost(head.block.height, pace);
        self.credit = self.credit.map(|credit| credit.saturating_sub(cost));
        self.since = self.judged.map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(heard));
        let mut record = HeadRecord::of(head);
        if let Some(old) = self.record.take() {
            // A chain that is followed does not show which blocks were signed unheard.
            record.unheard = old.unheard;
            let between = links.iter().rev().skip(1).map(|link| link.block.clone());
            record.recent = between.chain([old.block]).chain(old.recent).take(REMEMBERED).collect();
        }
        self.record = Some(record);
        (self.open, self.other, self.doubt, self.contradiction) = (None, None, None, None);
    }

    /// The time that the chain needs at least to rise from the record to `height`, with a tenth for the clocks.
    fn cost(&self, height: u64, pace: Pace) -> Duration {
        let blocks = height.saturating_sub(self.height().unwrap_or(0));
        let each = u64::try_from(pace.shortest.as_micros()).unwrap_or(u64::MAX) / 10 * 9;
        Duration::from_micros(blocks.saturating_mul(each))
    }
}

/// Whether two blocks are the same as far as is known.
fn is_same(a: &Block, b: &Block) -> bool {
    let hashes = a.hash.as_ref().zip(b.hash.as_ref());
    a.height == b.height && hashes.is_none_or(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Whether `head` names `parent` as the block before it.
fn is_child(head: &Head, parent: &Block) -> bool {
    let follows = parent.height.checked_add(1) == Some(head.block.height);
    follows && head.parent.as_ref().zip(parent.hash.as_ref()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// The distances of `me` by the orders at a head and one block before.
pub(super) fn turns(me: &Validator, sample: &super::gates::Sample) -> Option<Turns> {
    let (order, before) = (sample.order.as_ref()?, sample.order_before.as_ref()?);
    let validators = order.list.len();
    Some(Turns { at_head: order.distance(me), before: before.distance(me), validators })
}

#[cfg(test)]
mod tests;
