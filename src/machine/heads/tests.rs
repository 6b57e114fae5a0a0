//! The heads that count and those that do not, on a chain of one block per second.

mod first_contact;

use super::super::gates::Sample;
use super::super::order::Order;
use super::*;

/// The time of block 0 in seconds since the epoch; block n was made n seconds later.
const GENESIS: u64 = 1_000_000;

const END_NODE: Pace =
    Pace { shortest: Duration::from_secs(1), period: Duration::from_secs(1), validator: false };
const VALIDATOR: Pace = Pace { validator: true, ..END_NODE };

/// The hash of a block on a branch; branch 0 is the chain of the home.
fn hash(branch: u64, height: u64) -> String {
    format!("0x{branch:032x}{height:032x}")
}

fn block(branch: u64, height: u64) -> Block {
    Block { height, hash: Some(hash(branch, height)) }
}

/// A head of a branch, heard as soon as it was made.
fn head(branch: u64, height: u64) -> Head {
    Head {
        block: block(branch, height),
        parent: Some(hash(branch, height.wrapping_sub(1))),
        timestamp: Some(GENESIS.saturating_add(height)),
        proposer: None,
        heard_at: GENESIS.saturating_add(height),
    }
}

/// The record at a height, with the `remembered` blocks before it.
fn record(height: u64, remembered: u64) -> HeadRecord {
    let recent = (1..=remembered).map(|back| block(0, height - back)).collect();
    HeadRecord { recent, ..HeadRecord::of(&head(0, height)) }
}

/// The heads of a node, and the clock by which they are heard.
struct Rig {
    heads: Heads,
    now: Instant,
    pace: Pace,
}

impl Rig {
    fn new(record: Option<HeadRecord>, pace: Pace) -> Rig {
        Rig { heads: Heads::new(record), now: Instant::now(), pace }
    }

    /// A home whose record is block 100 and remembers the eight before it.
    fn at_100(pace: Pace) -> Rig {
        Rig::new(Some(record(100, 8)), pace)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Hears a head at this instant.
    fn hear(&mut self, head: &Head) -> Hearing {
        self.heads.hear(self.now, head, self.pace)
    }

    /// Hears a head of a branch one second later, as soon as it was made.
    fn next(&mut self, branch: u64, height: u64) -> Hearing {
        self.wait(1);
        self.hear(&head(branch, height))
    }

    /// Hears a head a number of seconds after block 100 was made, by both clocks.
    fn late(&mut self, head: &Head, seconds: u64) -> Hearing {
        self.wait(seconds);
        self.hear(&Head { heard_at: GENESIS + 100 + seconds, ..head.clone() })
    }

    /// The node is asked which chain it is on, and names that of this home.
    fn vouch(&mut self) {
        self.heads.ask_voucher();
        self.heads.vouch();
    }

    fn traced(&mut self, headers: &[Head]) -> Hearing {
        self.heads.traced(headers, self.pace)
    }

    fn recalled(&mut self, branch: u64, height: u64) -> Hearing {
        self.heads.recalled(&block(branch, height), self.pace)
    }

    fn height(&self) -> Option<u64> {
        self.heads.height()
    }

    fn confirmed(&self) -> Option<bool> {
        self.heads.contradiction().map(|other| other.confirmed)
    }
}

#[test]
fn a_child_of_the_record_counts() {
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.next(0, 101), Hearing::Counted);
    assert_eq!(rig.heads.block(), Some(&block(0, 101)));
    assert_eq!(rig.heads.block_at(100), Some(&block(0, 100)), "the one before is remembered");
    assert_eq!(rig.next(0, 102), Hearing::Counted);
}

#[test]
fn a_head_over_a_gap_counts_when_the_headers_link_it() {
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.late(&head(0, 104), 4), Hearing::Trace { from: 100, to: 103 });
    assert_eq!(rig.height(), Some(100), "not before the headers are there");
    let headers: Vec<Head> = (100..=103).map(|height| head(0, height)).collect();
    assert_eq!(rig.traced(&headers), Hearing::Counted);
    assert_eq!(rig.height(), Some(104));
    let between: Vec<u64> = (96..=104).filter(|h| rig.heads.block_at(*h) == Some(&block(0, *h))).collect();
    assert_eq!(between, (96..=104).collect::<Vec<_>>(), "the blocks of the gap are remembered");
    assert_eq!(rig.traced(&headers), Hearing::Nothing, "no head waits for them any more");
}

#[test]
fn a_head_that_the_headers_do_not_link_does_not_count() {
    let ours = |heights: std::ops::RangeInclusive<u64>| heights.map(|height| head(0, height)).collect();
    let cases: [(&str, Vec<Head>); 5] = [
        ("the head is of another branch", ours(100..=103)),
        ("one header is missing", ours(100..=102)),
        ("they begin above the record", ours(101..=103)),
        (
            "they are of another branch from 102 on",
            [ours(100..=101), vec![head(7, 102), head(7, 103)]].concat(),
        ),
        ("none came", Vec::new()),
    ];
    for (case, headers) in cases {
        let mut rig = Rig::at_100(VALIDATOR);
        assert_eq!(rig.late(&head(7, 104), 4), Hearing::Trace { from: 100, to: 103 }, "{case}");
        assert_eq!(rig.traced(&headers), Hearing::Nothing, "{case}");
        assert_eq!((rig.height(), rig.confirmed()), (Some(100), None), "{case}");
        // The chain goes on from the record as before.
        assert_eq!(rig.next(0, 101), Hearing::Counted, "{case}");
    }
}

#[test]
fn a_head_without_a_parent_is_traced() {
    let mut rig = Rig::at_100(VALIDATOR);
    let told = Head { parent: None, ..head(0, 101) };
    assert_eq!(rig.late(&told, 1), Hearing::Trace { from: 100, to: 100 });
    assert_eq!(rig.traced(&[head(0, 100)]), Hearing::Nothing, "a header shows no parent that it lacks");
    assert_eq!(rig.heads.doubt(), Some("block 101 is not linked to block 100"));
}

#[test]
fn while_a_question_is_open_no_other_is_asked_for_two_seconds() {
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.late(&head(0, 103), 3), Hearing::Trace { from: 100, to: 102 });
    assert_eq!(rig.next(0, 104), Hearing::Nothing);
    assert_eq!(rig.next(0, 105), Hearing::Trace { from: 100, to: 104 });
}

#[test]
fn a_long_gap_is_linked_by_our_block_and_by_the_head_asked_for_again() {
    let wide = 165;
    let far = |rig: &mut Rig| rig.late(&head(0, wide), wide - 100);
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.late(&head(0, wide - 1), 64), Hearing::Trace { from: 100, to: wide - 2 });

    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(far(&mut rig), Hearing::Recall { height: 100 });
    assert_eq!(rig.recalled(0, 100), Hearing::Recall { height: wide });
    assert_eq!(rig.height(), Some(100), "having our block alone proves nothing");
    assert_eq!(rig.recalled(0, wide), Hearing::Counted);
    assert_eq!(rig.height(), Some(wide));

    let mut rig = Rig::at_100(VALIDATOR);
    far(&mut rig);
    assert_eq!(rig.recalled(0, wide), Hearing::Nothing, "without our block it proves nothing either");
    assert_eq!(rig.height(), Some(100));

    let mut rig = Rig::at_100(VALIDATOR);
    far(&mut rig);
    rig.recalled(0, 100);
    assert_eq!(rig.recalled(7, wide), Hearing::Nothing, "the second answer is another block");
    assert_eq!(rig.height(), Some(100));

    let mut rig = Rig::at_100(VALIDATOR);
    far(&mut rig);
    assert_eq!(rig.recalled(7, 100), Hearing::Nothing, "the node has another block in place of ours");
    assert_eq!((rig.height(), rig.confirmed()), (Some(100), Some(false)));
}

#[test]
fn a_head_cannot_rise_faster_than_the_shortest_block_period() {
    // Ten seconds and a slack of four blocks, with a tenth for the clocks: 15 blocks of 0.9 s each.
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.late(&head(0, 116), 10), Hearing::Nothing);
    assert_eq!(rig.heads.doubt(), Some("block 116 is more than the chain can have risen to since block 100"));
    assert_eq!(rig.hear(&head(0, 115)), Hearing::Trace { from: 100, to: 114 });
}

#[test]
fn time_that_counted_blocks_have_used_up_cannot_be_used_again() {
    let mut rig = Rig::at_100(VALIDATOR);
    // The slack pays for four blocks in no time, not for a fifth.
    let counted = (101..=110).take_while(|height| {
        let told = Head { heard_at: GENESIS + 100, timestamp: Some(GENESIS + 100), ..head(0, *height) };
        rig.hear(&told) == Hearing::Counted
    });
    assert_eq!(counted.count(), 4);
}

#[test]
fn a_chain_that_was_followed_for_long_cannot_rise_at_once() {
    let mut rig = Rig::at_100(VALIDATOR);
    for height in 101..=1100 {
        assert_eq!(rig.next(0, height), Hearing::Counted);
    }
    let told = Head { heard_at: GENESIS + 1100, ..head(0, 1110) };
    assert_eq!(rig.hear(&told), Hearing::Nothing, "a tenth of the time is not saved up");
    // The time passes, though the wall clock was set back.
    rig.wait(10);
    assert_eq!(rig.hear(&told), Hearing::Trace { from: 1100, to: 1109 });
}

#[test]
fn the_highest_height_of_all_does_no_harm() {
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.late(&head(0, u64::MAX), 0), Hearing::Nothing);
    assert_eq!(rig.next(0, 101), Hearing::Counted);
    let mut rig = Rig::new(Some(HeadRecord::of(&head(0, u64::MAX))), VALIDATOR);
    assert_eq!(rig.next(0, 101), Hearing::Nothing);
}

#[test]
fn one_false_head_is_forgotten_when_the_true_one_comes() {
    for lie in [head(7, 101), head(7, 103), head(7, 100), head(7, 97)] {
        let mut rig = Rig::at_100(VALIDATOR);
        assert_ne!(rig.late(&lie, 1), Hearing::Counted);
        assert_eq!(rig.height(), Some(100), "{lie:?}");
        assert_eq!(rig.hear(&head(0, 101)), Hearing::Counted, "{lie:?}");
        assert_eq!((rig.confirmed(), rig.heads.doubt()), (None, None), "{lie:?}");
    }
}

#[test]
fn a_false_head_counts_no_more_for_being_repeated() {
    for lie in [head(7, 101), head(7, 103), head(7, 100)] {
        let mut rig = Rig::at_100(VALIDATOR);
        for _ in 0..2 {
            assert_ne!(rig.late(&lie, 3), Hearing::Counted);
            // The questions are answered by the true chain.
            rig.traced(&(100..lie.block.height).map(|height| head(0, height)).collect::<Vec<_>>());
            rig.recalled(0, 100);
        }
        assert_eq!((rig.height(), rig.confirmed()), (Some(100), None), "{lie:?}");
    }
}

#[test]
fn a_head_that_came_too_early_counts_when_it_is_judged_again() {
    let early = HeadRecord { timestamp: Some(GENESIS + 100), ..record(100, 8) };
    let mut rig = Rig::new(Some(early), VALIDATOR);
    let risen = Head { heard_at: GENESIS + 110, ..head(0, 160) };
    assert_eq!(rig.hear(&risen), Hearing::Nothing, "60 blocks in 10 s");
    rig.wait(30);
    assert_eq!(rig.hear(&risen), Hearing::Nothing);
    rig.wait(30);
    assert_eq!(
        rig.hear(&risen),
        Hearing::Trace { from: 100, to: 159 },
        "the chain stands still, and the time passes"
    );
}

#[test]
fn with_a_record_the_first_contact_is_judged_like_any_other_head() {
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.heads.asks_again_at(rig.pace), None);
    assert_eq!(rig.hear(&head(0, 100)), Hearing::Nothing, "the node stands where it was");
    assert_eq!(rig.confirmed(), None);
    // A chain of which no time is known may have risen to any height, but the head still has to be linked.
    let undated = HeadRecord { timestamp: None, ..record(100, 8) };
    let mut rig = Rig::new(Some(undated), VALIDATOR);
    assert_eq!(rig.hear(&head(0, 1_000_000)), Hearing::Recall { height: 100 });
}

#[test]
fn the_record_of_an_end_node_falls_after_twenty_honest_blocks() {
    let mut rig = Rig::at_100(END_NODE);
    for height in 51..=69 {
        assert_eq!(rig.next(7, height), Hearing::Nothing, "{height}");
        assert_eq!(rig.hear(&head(7, height)), Hearing::Nothing, "a head that is heard twice is one block");
    }
    assert_eq!(rig.height(), Some(100));
    assert_eq!(rig.next(7, 70), Hearing::Fallen { from: 100 });
    assert_eq!(rig.heads.block(), Some(&block(7, 70)));
    assert_eq!(rig.next(7, 71), Hearing::Counted);
}

#[test]
fn the_record_does_not_fall_for_blocks_that_are_old_or_not_linked() {
    let mut rig = Rig::at_100(END_NODE);
    // A node that catches up.
    for height in 10..=80 {
        let old = Head { heard_at: GENESIS + 200, ..head(0, height) };
        assert_eq!(rig.hear(&old), Hearing::Nothing);
    }
    // Two nodes behind one address.
    for height in 51..=90 {
        rig.wait(1);
        assert_eq!(rig.hear(&head(7 + height % 2, height)), Hearing::Nothing);
    }
    // The same head, again and again.
    for _ in 0..40 {
        assert_eq!(rig.hear(&head(7, 60)), Hearing::Nothing);
    }
    assert_eq!(rig.height(), Some(100));
    // Blocks that count begin the reckoning anew.
    for height in 51..=69 {
        rig.next(7, height);
    }
    assert_eq!(rig.hear(&head(0, 101)), Hearing::Counted);
    assert_eq!(rig.next(7, 70), Hearing::Nothing);
}

#[test]
fn the_record_of_a_validator_falls_only_for_a_chain_that_shares_a_block_with_it() {
    let mut rig = Rig::at_100(VALIDATOR);
    for height in 51..=90 {
        assert_eq!(rig.next(7, height), Hearing::Nothing);
    }
    assert_eq!(rig.height(), Some(100), "what was final on our chain may not be signed again");

    // A false record at a height that the chain has not reached, above blocks that counted.
    let false_record = HeadRecord { recent: (41..=50).map(|h| block(0, h)).collect(), ..record(100, 0) };
    let mut rig = Rig::new(Some(false_record), VALIDATOR);
    for height in 50..=68 {
        assert_eq!(rig.next(0, height), Hearing::Nothing, "{height}");
    }
    assert_eq!(rig.next(0, 69), Hearing::Fallen { from: 100 });
    assert_eq!(rig.height(), Some(69));
}

#[test]
fn another_block_at_a_recorded_height_is_a_contradiction_once_the_node_confirms_it() {
    for height in [100, 95] {
        let mut rig = Rig::at_100(VALIDATOR);
        assert_eq!(rig.late(&head(7, height), 1), Hearing::Recall { height });
        assert_eq!(rig.hear(&head(7, height)), Hearing::Recall { height });
        assert_eq!(rig.confirmed(), Some(false), "heads alone confirm nothing");
        rig.recalled(7, height);
        assert_eq!(rig.confirmed(), Some(true));
        let text = rig.heads.contradiction().unwrap().text();
        assert_eq!(text, format!("block {height} was {} and is {}", hash(0, height), hash(7, height)));
        assert_eq!(rig.heads.block_at(height), Some(&block(0, height)), "it is no record");
        assert_eq!(rig.height(), Some(100));
    }
}

#[test]
fn a_contradiction_ends_with_our_block_and_begins_anew_with_a_third() {
    let mut rig = Rig::at_100(VALIDATOR);
    rig.hear(&head(7, 100));
    rig.recalled(0, 100);
    assert_eq!(rig.confirmed(), None, "the node has our block after all");
    rig.hear(&head(7, 100));
    rig.hear(&head(0, 100));
    assert_eq!(rig.confirmed(), None, "the head is our block again");
    rig.hear(&head(7, 100));
    rig.recalled(8, 100);
    assert_eq!(rig.confirmed(), Some(false), "two different answers confirm neither");
    rig.recalled(8, 100);
    assert_eq!(rig.confirmed(), Some(true));
    rig.heads.forget_questions();
    assert_eq!(rig.confirmed(), None, "another process may run on another database");
}

#[test]
fn a_trace_that_begins_at_another_block_is_a_contradiction() {
    let mut rig = Rig::at_100(VALIDATOR);
    rig.late(&head(7, 102), 2);
    assert_eq!(rig.traced(&[head(7, 100), head(7, 101)]), Hearing::Recall { height: 100 });
    assert_eq!((rig.height(), rig.confirmed()), (Some(100), Some(false)));
}

#[test]
fn a_block_without_a_hash_neither_links_nor_contradicts() {
    let nameless = |height| Head { block: Block { height, hash: None }, parent: None, ..head(0, height) };
    let mut rig = Rig::at_100(VALIDATOR);
    assert_eq!(rig.hear(&nameless(100)), Hearing::Nothing);
    assert_eq!(rig.heads.recalled(&Block { height: 100, hash: None }, VALIDATOR), Hearing::Nothing);
    assert_eq!(rig.confirmed(), None);
    rig.late(&nameless(101), 1);
    assert_eq!(rig.traced(&[head(0, 100)]), Hearing::Nothing);
    assert_eq!(rig.height(), Some(100));
}

#[test]
fn the_record_falls_below_a_height_to_the_block_remembered_there() {
    let mut rig = Rig::at_100(VALIDATOR);
    rig.heads.fall_below(101);
    assert_eq!(rig.height(), Some(100), "it is below already");
    rig.heads.note_turns(100, Turns { at_head: Some(1), before: Some(2), validators: 4 });
    rig.heads.fall_below(99);
    let fallen = rig.heads.record().unwrap();
    assert_eq!((&fallen.block, fallen.timestamp, fallen.turns), (&block(0, 98), None, None));
    assert_eq!(rig.heads.block_at(97), Some(&block(0, 97)));
    assert_eq!(rig.next(0, 99), Hearing::Counted);
    rig.heads.fall_below(5);
    assert_eq!(rig.heads.record(), None);
}

#[test]
fn the_operator_can_have_it_forgotten() {
    let mut rig = Rig::at_100(VALIDATOR);
    rig.hear(&head(7, 100));
    rig.heads.reset();
    assert_eq!(rig.heads, Heads::default());
}

#[test]
fn no_more_blocks_are_remembered_than_fit_on_disk() {
    let mut rig = Rig::at_100(VALIDATOR);
    for height in 101..=200 {
        rig.next(0, height);
    }
    let recent = &rig.heads.record().unwrap().recent;
    assert_eq!((recent.len(), &recent[0], &recent[31]), (REMEMBERED, &block(0, 199), &block(0, 168)));
}

#[test]
fn turns_belong_to_the_block_of_the_record() {
    let turns = Turns { at_head: Some(3), before: Some(4), validators: 4 };
    let mut rig = Rig::at_100(VALIDATOR);
    assert!(!rig.heads.note_turns(99, turns) && !rig.heads.note_turns(101, turns));
    assert!(rig.heads.note_turns(100, turns));
    assert!(!rig.heads.note_turns(100, turns), "it is not new");
    assert_eq!(rig.heads.record().unwrap().turns, Some(turns));
    rig.next(0, 101);
    assert_eq!(rig.heads.record().unwrap().turns, None, "the next head has its own");
}

#[test]
fn turns_are_the_distances_at_the_head_and_one_block_before() {
    let order = |height, proposer: u8| {
        let list = (1..=4).map(|n| [n; 20]).collect();
        Some(Order { height, list, proposer: Some([proposer; 20]), until: None, sticky: false })
    };
    let sample = Sample {
        head: 100,
        head_age: Duration::ZERO,
        period: Duration::from_secs(1),
        set: Vec::new(),
        blocks: 0,
        first_round: 0,
        steady_since: 0,
        order: order(100, 2),
        order_before: order(99, 1),
    };
    let expected = |at_head, before| Some(Turns { at_head, before, validators: 4 });
    assert_eq!(turns(&[4; 20], &sample), expected(Some(2), Some(3)));
    assert_eq!(turns(&[2; 20], &sample), expected(Some(4), Some(1)));
    assert_eq!(turns(&[9; 20], &sample), expected(None, None), "an end node proposes nothing");
    assert_eq!(turns(&[4; 20], &Sample { order_before: None, ..sample }), None);
}

#[test]
fn the_record_of_an_end_node_rises_by_no_claim() {
    let mut rig = Rig::at_100(END_NODE);
    rig.wait(1);
    for height in 5_000..5_030 {
        let mut claim = head(7, height);
        (claim.timestamp, claim.heard_at) = (Some(GENESIS + 101), GENESIS + 101);
        rig.heads.hear(rig.now, &claim, rig.pace);
    }
    assert_eq!(rig.heads.height(), Some(100));
}

/// Hears the newest head each second, and links it by our block, until it counts; after how many seconds.
fn counts_after(rig: &mut Rig, mut newest: impl FnMut(u64) -> Head) -> Option<u64> {
    (1..=60).find(|second| {
        rig.wait(1);
        let told = newest(*second);
        let Hearing::Recall { height } = rig.hear(&told) else { return false };
        rig.recalled(0, height);
        rig.recalled(0, told.block.height) == Hearing::Counted
    })
}

#[test]
fn after_a_pause_of_the_machine_the_chain_has_had_that_time() {
    let mut rig = Rig::at_100(VALIDATOR);
    for height in 101..=200 {
        assert_eq!(rig.next(0, height), Hearing::Counted);
    }
    // For an hour the machine stands still, and with it the clock of `Instant`.
    let after = counts_after(&mut rig, |second| head(0, 200 + 3600 + second));
    assert_eq!(after, Some(1), "{:?}", rig.heads.doubt());
}

#[test]
fn a_head_that_is_judged_again_and_again_gives_the_chain_no_time_twice() {
    let mut rig = Rig::at_100(VALIDATOR);
    let told = head(0, 101);
    assert_eq!(rig.hear(&told), Hearing::Counted);
    for _ in 0..6 {
        rig.wait(10);
        assert_eq!(rig.hear(&told), Hearing::Nothing);
    }
    rig.wait(1);
    let risen = |height| Head { heard_at: GENESIS + 162, ..head(0, height) };
    assert_eq!(rig.hear(&risen(101 + 61 + 20)), Hearing::Nothing, "81 blocks in 61 s");
    assert_eq!(rig.hear(&risen(101 + 61)), Hearing::Trace { from: 101, to: 161 });
}

#[test]
fn a_wall_clock_that_is_set_right_after_the_first_head_gives_the_chain_its_time() {
    let mut rig = Rig::at_100(VALIDATOR);
    // Ten minutes after a power cut: until NTP has set it the clock is an hour behind.
    assert_eq!(rig.hear(&Head { heard_at: GENESIS - 3000, ..head(0, 50) }), Hearing::Nothing);
    let after = counts_after(&mut rig, |second| head(0, 100 + 600 + second));
    assert_eq!(after, Some(1), "{:?}", rig.heads.doubt());
}
