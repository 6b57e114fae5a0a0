//! Each gate alone, with the numbers that an operator reads. The fleet of `tests/it/fleet.rs` tries them together.

use super::*;

/// The beginning of a cycle of 1, 2, 3, 4 and 7 groups alike.
const H: u64 = SLOT * 84;

fn validator(n: u16) -> Validator {
    let mut address = [0; 20];
    address[..2].copy_from_slice(&n.to_be_bytes());
    address
}

/// Validators 10, 20, 30 … so that there is room between them for those that join.
fn set(n: u16) -> impl Iterator<Item = Validator> {
    (1..=n).map(|i| validator(i * 10))
}

fn slot(n: u16, head: u64) -> Slot {
    Slot::of(head, set(n))
}

/// A calm network of `n`, all of which seal, at `head`.
fn calm(n: u16, head: u64) -> Sample {
    Sample {
        head,
        head_age: Duration::from_secs(1),
        period: Duration::from_secs(1),
        set: set(n).map(|validator| Seat { validator, sealing: true }).collect(),
        blocks: 8,
        first_round: 8,
        steady_since: 0,
        order: None,
        order_before: None,
    }
}

/// The same without the seals of `absent`.
fn without(n: u16, head: u64, absent: &[u16]) -> Sample {
    let mut sample = calm(n, head);
    for seat in &mut sample.set {
        seat.sealing = !absent.iter().any(|a| validator(*a) == seat.validator);
    }
    sample
}

/// The verdict on `me` in the slot that `n` validators share.
fn ask(me: u16, n: u16, now: &Sample) -> Verdict {
    judge(&validator(me), Some(&slot(n, now.head)), now, AfterOwn::Preferred)
}

fn held(verdict: Verdict) -> Vec<Gate> {
    match verdict {
        Verdict::Hold(gates) => gates,
        Verdict::Go(reason) => panic!("nothing holds: {reason}"),
    }
}

fn only(verdict: Verdict) -> Gate {
    let mut gates = held(verdict);
    assert_eq!(gates.len(), 1, "{gates:?}");
    gates.remove(0)
}

/// The heights of one cycle in which `me` may go.
fn open_heights(n: u16, me: u16) -> Vec<u64> {
    (H..H + SLOT * u64::from(n))
        .filter(|head| ask(me, n, &calm(n, *head)) == Verdict::Go(Reason::Open))
        .collect()
}

#[test]
fn the_grid_is_a_constant_of_the_protocol() {
    assert_eq!((OPEN, QUIET, SLOT), (12, 12, 24));
    assert_eq!([0, 23, 24, 47, 48].map(Slot::first_block), [0, 0, 24, 24, 48]);
    assert_eq!(Slot::first_block(u64::MAX), u64::MAX / 24 * 24);
}

#[test]
fn four_validators_have_a_slot_each_with_a_quiet_end() {
    for i in 0..4 {
        let from = H + SLOT * u64::from(i);
        assert_eq!(open_heights(4, (i + 1) * 10), (from..from + OPEN).collect::<Vec<_>>());
    }
    let gate = only(ask(30, 4, &calm(4, H + 5)));
    assert_eq!(
        gate.to_string(),
        format!("turn 3 of 4 is ours, it opens at block {}, in 43 blocks", H + 2 * SLOT)
    );
    assert_eq!((gate.name(), gate.waits_for()), ("turn", format!("block {}", H + 2 * SLOT)));
}

#[test]
fn the_grid_is_the_same_whatever_the_height_of_the_upgrade() {
    // The verdict has no height of an upgrade to count from: the same head is the same slot for all operators.
    for head in H..H + 4 * SLOT {
        let open = [10, 20, 30, 40].map(|me| ask(me, 4, &calm(4, head)) == Verdict::Go(Reason::Open));
        let turn = (head / SLOT % 4) as usize;
        let expected = std::array::from_fn(|i| i == turn && head % SLOT < OPEN);
        assert_eq!(open, expected, "head {head}");
    }
}

#[test]
fn a_late_validator_goes_when_the_slots_come_round_again() {
    let opens_at = H + SLOT + 4 * SLOT;
    let turn = |head| Gate::Turn { head, group: 2, groups: 4, opens_at };
    assert_eq!(only(ask(20, 4, &calm(4, H + SLOT + OPEN))), turn(H + SLOT + OPEN));
    assert_eq!(only(ask(20, 4, &calm(4, H + 5 * SLOT - 1))), turn(H + 5 * SLOT - 1));
    assert_eq!(ask(20, 4, &calm(4, opens_at)), Verdict::Go(Reason::Open));
    assert_eq!(ask(20, 4, &calm(4, opens_at + 4 * SLOT * 1000)), Verdict::Go(Reason::Open));
}

#[test]
fn a_group_is_half_the_margin_and_at_least_one() {
    assert_eq!([1, 2, 3, 4, 7, 12, 13, 100, 1000].map(group_size), [1, 1, 1, 1, 1, 1, 2, 16, 166]);
    for n in 4..=300 {
        assert!(group_size(n) == 1 || 2 * group_size(n) <= margin(n), "{n}");
        assert_eq!(slot(u16::try_from(n).unwrap(), H).groups(), n.div_ceil(group_size(n)) as u64);
    }
    // 13 validators: groups of 2, the last alone.
    let base = SLOT * 7 * 12;
    let goes = |me, h| ask(me, 13, &calm(13, base + h)) == Verdict::Go(Reason::Open);
    let together = |a, b| (0..7 * SLOT).all(|h| goes(a, h) == goes(b, h));
    assert!(together(10, 20) && !together(20, 30) && !together(120, 130));
    assert!((0..OPEN).all(|h| goes(10, h) && goes(130, 6 * SLOT + h)));
}

#[test]
fn the_room_is_one_slot_for_each_group() {
    assert_eq!([0, 1, 3, 4, 7, 13, 100].map(room_needed), [24, 24, 72, 96, 168, 168, 168]);
    // In that room every validator has a whole open half, wherever it begins at a slot.
    for (n, first) in [(4, H), (4, H + SLOT), (7, H + 5 * SLOT), (13, H)] {
        let room = first..first + room_needed(usize::from(n));
        for (_, window) in roll(&set(n).collect::<Vec<_>>(), first) {
            assert!(room.contains(&window.opens_at) && room.contains(&window.closes_at), "{n}: {window:?}");
        }
    }
}

#[test]
fn the_roll_names_each_window_once_in_its_order() {
    let all: Vec<Validator> = set(4).collect();
    let number = |v: &Validator| u16::from_be_bytes([v[0], v[1]]);
    let roll = |from| -> Vec<(u16, u64)> {
        let shuffled = [all[2], all[0], all[3], all[1]];
        roll(&shuffled, from).iter().map(|(v, w)| (number(v), w.opens_at)).collect()
    };
    assert_eq!(roll(H), [(10, H), (20, H + 24), (30, H + 48), (40, H + 72)]);
    // In the open half the running turn still counts; in the quiet half it has passed.
    assert_eq!(roll(H + 24 + 11), [(20, H + 24), (30, H + 48), (40, H + 72), (10, H + 96)]);
    assert_eq!(roll(H + 24 + 12), [(30, H + 48), (40, H + 72), (10, H + 96), (20, H + 120)]);
    assert_eq!(super::roll(&[], H), []);
    // The roll and the gate agree.
    for from in H..H + 4 * SLOT {
        for (me, window) in super::roll(&all, from) {
            let opens =
                (from..).find(|head| ask(number(&me), 4, &calm(4, *head)) == Verdict::Go(Reason::Open));
            assert_eq!(opens, Some(window.opens_at.max(from)), "from {from}");
            assert_eq!(window.closes_at, window.opens_at + OPEN - 1);
        }
    }
}

#[test]
fn the_window_of_a_lone_group_is_the_whole_slot() {
    assert_eq!(slot(1, H + 13).window(0, H + 13), Window { opens_at: H, closes_at: H + 23 });
    assert_eq!(slot(4, H + 13).window(0, H + 13), Window { opens_at: H + 96, closes_at: H + 107 });
}

#[test]
fn without_us_a_quorum_must_remain() {
    assert_eq!(ask(10, 4, &without(4, H, &[])), Verdict::Go(Reason::Open));
    let gate = only(ask(10, 4, &without(4, H, &[30])));
    assert_eq!(gate.to_string(), "3 of 4 live, need 3 without us, have 2");
    assert_eq!((gate.name(), gate.waits_for().as_str()), ("quorum", "1 more to seal"));
    // A validator that does not seal takes nothing away by leaving.
    assert_eq!(ask(10, 4, &without(4, H, &[10])), Verdict::Go(Reason::Open));
    assert_eq!(ask(10, 7, &without(7, H, &[30])), Verdict::Go(Reason::Open));
    assert_eq!(only(ask(10, 7, &without(7, H, &[30, 40]))).name(), "quorum");
}

#[test]
fn three_validators_or_fewer_halt_the_chain_in_turn_and_say_so() {
    for n in 1..=3 {
        let halts = Verdict::Go(Reason::HaltsChain { validators: usize::from(n) });
        assert_eq!(ask(10, n, &calm(n, H)), halts);
    }
    assert_eq!(only(ask(20, 3, &calm(3, H))).name(), "turn");
    assert_eq!(only(ask(10, 3, &calm(3, H + SLOT + 1))).name(), "turn");
    assert_eq!(only(ask(10, 2, &calm(2, H + OPEN))).name(), "turn", "in the quiet half");
    // With no other validator there is no slot to wait for.
    assert!((0..SLOT).all(|h| matches!(ask(10, 1, &calm(1, H + h)), Verdict::Go(_))));
}

#[test]
fn calm_means_a_fresh_head_and_first_rounds() {
    let mut now = calm(4, H);
    now.head_age = Duration::from_millis(3000);
    now.first_round = 6;
    assert_eq!(ask(10, 4, &now), Verdict::Go(Reason::Open));
    now.head_age = Duration::from_millis(3100);
    let gate = only(ask(10, 4, &now));
    assert_eq!(gate.to_string(), "the head is 3.1 s old, fresh is up to 3.0 s");
    now.first_round = 5;
    let gates = held(ask(10, 4, &now));
    assert_eq!(gates[1].to_string(), "5 of the last 8 blocks decided in round 0, need 3 of 4");
    assert_eq!(gates[1].waits_for(), "6 of 8 blocks decided in round 0");
    assert!(gates.iter().all(|g| g.name() == "calm"));
}

#[test]
fn all_that_holds_is_reported() {
    let mut now = in_order(4, H, 40, H + 100);
    now.set[3].sealing = false;
    (now.head_age, now.first_round) = (Duration::from_secs(9), 0);
    // The last block is that of 40, the next one that of 10.
    let names = |me| -> Vec<&str> { held(ask(me, 4, &now)).iter().map(Gate::name).collect() };
    assert_eq!(names(20), ["quorum", "turn", "calm", "calm"]);
    assert_eq!(names(10), ["quorum", "calm", "calm", "proposal"]);
}

#[test]
fn a_deadline_is_an_alarm_and_no_licence() {
    assert_eq!(deadline(None, Some(H + 500)), Some(H + 440));
    assert_eq!(deadline(Some(H + 50), Some(H + 500)), Some(H + 50));
    assert_eq!((deadline(None, None), deadline(None, Some(5))), (None, Some(0)));
    // Whatever the head, the gates know no deadline: in a thousand cycles they open in the turns alone.
    let open = (H..H + 4000 * SLOT).filter(|h| ask(40, 4, &calm(4, *h)) == Verdict::Go(Reason::Open));
    assert!(open.clone().all(|h| h / SLOT % 4 == 3 && h % SLOT < OPEN));
    assert_eq!(open.count(), 1000 * OPEN as usize);
}

#[test]
fn a_validator_that_does_not_vote_may_go_at_any_time() {
    let not = Verdict::Go(Reason::NotInSet);
    assert_eq!(ask(15, 4, &without(4, H - 7, &[10, 20])), not);
    // The set at the beginning of the slot does not matter for it: one that has left the set is free as well.
    let mut now = calm(4, H + SLOT - 1);
    now.set.remove(0);
    assert_eq!(ask(10, 4, &now), not);
}

#[test]
fn a_validator_that_joins_in_mid_slot_waits_for_the_next_one() {
    let mut now = calm(4, H + 3);
    now.set.push(Seat { validator: validator(25), sealing: true });
    now.set.sort_by_key(|seat| seat.validator);
    let gate = only(ask(25, 4, &now));
    assert_eq!(gate, Gate::Turn { head: H + 3, group: 0, groups: 4, opens_at: H + SLOT });
    assert_eq!(
        gate.to_string(),
        format!("we joined in mid-slot, the next slot begins at block {}", H + SLOT)
    );
    // The turns of this slot stay as they were.
    assert_eq!(ask(10, 4, &now), Verdict::Go(Reason::Open));
    // From the next slot on five validators share the turns.
    let five: Vec<Validator> = [10, 20, 25, 30, 40].map(validator).to_vec();
    for me in [10, 20, 25, 30, 40] {
        for h in 0..5 {
            let head = H + SLOT * (1 + h);
            let slot = Slot::of(head, five.iter().copied());
            let verdict =
                judge(&validator(me), Some(&slot), &Sample { head, ..now.clone() }, AfterOwn::Preferred);
            let turn = (head / SLOT % 5) as usize == five.iter().position(|v| *v == validator(me)).unwrap();
            assert_eq!(verdict == Verdict::Go(Reason::Open), turn, "{me} at {head}");
        }
    }
}

#[test]
fn validators_that_joined_between_two_of_a_group_share_its_cycles() {
    // 100 validators share the slot, of which one has left and one has joined in its address range since.
    let mut now = calm(100, 0);
    now.set.remove(3);
    now.set.push(Seat { validator: validator(45), sealing: true });
    now.set.sort_by_key(|seat| seat.validator);
    assert_eq!(only(ask(45, 100, &now)).name(), "turn");
    assert_eq!(ask(10, 100, &now), Verdict::Go(Reason::Open));
    assert_eq!(ask(160, 100, &now), Verdict::Go(Reason::Open));
}

#[test]
fn a_group_that_cannot_all_be_spared_is_shared_out_over_the_cycles() {
    // 100 validators: quorum 67, groups of 16 in 7 slots. With 25 absent elsewhere, 8 can be spared.
    let absent: Vec<u16> = (60..85).map(|i| i * 10).collect();
    let now = |cycle: u64| without(100, cycle * 7 * SLOT, &absent);
    let goes = |me: u16, cycle| ask(me, 100, &now(cycle)) == Verdict::Go(Reason::Open);
    for cycle in 0..8 {
        let open: Vec<u16> = (1..=16).filter(|i| goes(i * 10, cycle)).collect();
        let first = 4 * (cycle as u16 % 4);
        assert_eq!(open, (first + 1..=first + 4).collect::<Vec<_>>(), "cycle {cycle}");
    }
    let gate = only(ask(160, 100, &now(0)));
    assert_eq!(gate, Gate::Share { at_once: 4, group: 16, opens_at: 3 * 7 * SLOT });
    assert_eq!(gate.to_string(), "4 of the 16 that share our turn may go at a time, we may from block 504");
    // All that are gone in our own slot do not count against it: they are what this slot is for.
    let mates: Vec<u16> = (1..=15).map(|i| i * 10).collect();
    assert_eq!(ask(160, 100, &without(100, 0, &mates)), Verdict::Go(Reason::Open));
}

/// A calm network in which `last` has proposed the head, of an epoch that ends with block `until`.
fn in_order(n: u16, head: u64, last: u16, until: u64) -> Sample {
    let list: Vec<Validator> = set(n).collect();
    let at = list.iter().position(|v| *v == validator(last)).unwrap();
    let before = list[(at + list.len() - 1) % list.len()];
    let order = |height, proposer| Order {
        height,
        list: list.clone(),
        proposer: Some(proposer),
        until: Some(until),
        sticky: false,
    };
    let (order, order_before) = (Some(order(head, validator(last))), Some(order(head - 1, before)));
    Sample { order, order_before, ..calm(n, head) }
}

/// The gate alone, where no better block can be waited for.
fn proposal(me: u16, now: &Sample) -> Option<Gate> {
    proposal_gate(&validator(me), now, None)
}

#[test]
fn no_validator_stops_one_block_before_its_own_or_at_it() {
    let now = in_order(4, H, 10, H + 100);
    // 20 proposes the next block, 10 has proposed the head, 30 and 40 are two and three away.
    assert_eq!(proposal(20, &now), Some(Gate::Proposal { head: H, after: H + 2 }));
    assert_eq!(proposal(10, &now), Some(Gate::Proposal { head: H, after: H + 1 }));
    assert_eq!((proposal(30, &now), proposal(40, &now)), (None, None));
    let gate = only(ask(10, 4, &now));
    assert_eq!((gate.name(), gate.waits_for()), ("proposal", format!("block {}", H + 1)));
    assert_eq!(
        gate.to_string(),
        format!("a block of our own is near block {H}, better to stop after block {}", H + 1)
    );
    // A node that is asked about another head says nothing about this one.
    let other = Sample { head: H + 1, ..now };
    assert_eq!(proposal(20, &other), None);
}

#[test]
fn no_validator_stops_where_the_next_list_is_not_drawn() {
    // The list of the block after the next is drawn with block H + 1: no distance is known beyond.
    let now = in_order(4, H, 10, H + 1);
    for me in [10, 30, 40] {
        assert_eq!(proposal(me, &now), Some(Gate::Proposal { head: H, after: H + 1 }), "{me}");
    }
    assert_eq!(proposal(30, &in_order(4, H, 10, H + 2)), None);
}

#[test]
fn the_block_after_our_own_is_best_where_it_fits_into_the_open_half() {
    // H is 30's block; 10 proposes H + 2, so it is best stopped at H + 3, one block after its own.
    let now = in_order(4, H, 30, H + 100);
    let hold = Some(Gate::Proposal { head: H, after: H + 3 });
    assert_eq!(proposal_gate(&validator(10), &now, Some(H + 11)), hold);
    assert_eq!(proposal_gate(&validator(10), &now, Some(H + 3)), hold);
    assert_eq!(proposal_gate(&validator(10), &now, Some(H + 2)), None, "it would be in the quiet half");
    assert_eq!(only(ask(10, 4, &now)), Gate::Proposal { head: H, after: H + 3 });
    // Where the turn is another's there is nothing to wait for yet, and the turn is all that holds.
    assert_eq!(only(ask(20, 4, &in_order(4, H, 40, H + 100))).name(), "turn");
    // Near the end of the epoch the best block would be past it, or the last one in it.
    assert_eq!(proposal_gate(&validator(10), &in_order(4, H, 30, H + 4), Some(H + 11)), None);
    assert_eq!(proposal_gate(&validator(10), &in_order(4, H, 30, H + 5), Some(H + 11)), hold);
}

#[test]
fn at_the_block_after_our_own_the_gate_is_open() {
    // 10 proposed H, 20 proposed H + 1.
    let now = in_order(4, H + 1, 20, H + 100);
    assert_eq!(now.order.as_ref().unwrap().distance(&validator(10)), Some(3));
    assert_eq!(ask(10, 4, &now), Verdict::Go(Reason::Open));
}

#[test]
fn in_every_open_half_there_is_a_block_at_which_a_validator_may_go() {
    for n in [3, 4, 5, 7, 13] {
        for last in 1..=n {
            for until in 1..=40 {
                let goes = |h: u64| {
                    let head = H + h;
                    let at = (u64::from(last - 1) + h) % u64::from(n);
                    let now = in_order(n, head, u16::try_from(at + 1).unwrap() * 10, H + until);
                    let now = if head < H + until { now } else { Sample { order: None, ..now } };
                    proposal_gate(&validator(10), &now, Some(H + OPEN - 1)).is_none()
                };
                assert!((0..OPEN).any(goes), "{n} validators, {last} proposed, epoch ends {until} later");
            }
        }
    }
}

#[test]
fn two_validators_and_a_sticky_proposer_have_no_better_moment() {
    let two = in_order(2, H, 10, H + 100);
    assert_eq!((proposal(10, &two), proposal(20, &two)), (None, None));
    let lone = in_order(1, H, 10, H + 100);
    assert!(matches!(ask(10, 1, &lone), Verdict::Go(Reason::HaltsChain { validators: 1 })));
    let mut sticky = in_order(4, H, 10, H + 100);
    for order in [&mut sticky.order, &mut sticky.order_before].into_iter().flatten() {
        order.sticky = true;
    }
    assert!((1..=4).all(|i| proposal(i * 10, &sticky).is_none()));
    // A validator that is not in the list proposes nothing.
    assert_eq!(proposal(15, &in_order(4, H, 10, H + 100)), None);
}

#[test]
fn what_is_not_known_is_never_guessed() {
    let unknown = |verdict| assert_eq!(only(verdict).name(), "unknown");
    unknown(judge(&validator(10), Some(&Slot::of(H, [])), &calm(4, H), AfterOwn::Preferred));
    unknown(judge(&validator(10), Some(&slot(4, H - 1)), &calm(4, H), AfterOwn::Preferred));
    unknown(ask(10, 4, &Sample { set: Vec::new(), ..calm(4, H) }));
    unknown(ask(10, 4, &Sample { blocks: 0, first_round: 0, ..calm(4, H) }));
}

#[test]
fn without_an_upgrade_the_question_is_whether_we_can_be_spared() {
    let check = |now: &Sample| judge(&validator(10), None, now, AfterOwn::Preferred);
    assert_eq!(check(&calm(4, 5)), Verdict::Go(Reason::Open));
    assert_eq!(only(check(&without(4, 5, &[20]))).name(), "quorum");
    assert_eq!(only(check(&Sample { head_age: Duration::from_secs(9), ..calm(4, 5) })).name(), "calm");
    assert_eq!(only(check(&in_order(4, H, 40, H + 100))).name(), "proposal");
}

#[test]
fn heights_at_the_end_of_the_range_do_not_overflow() {
    for me in [10, 40] {
        for head in [u64::MAX, u64::MAX - 1, Slot::first_block(u64::MAX) - 1] {
            let _ = ask(me, 4, &calm(4, head));
            let _ = ask(me, 4, &in_order(4, head, 20, u64::MAX));
            let _ = slot(4, head).window(3, head);
            let _ = roll(&set(4).collect::<Vec<_>>(), head);
        }
    }
    let _ = room_needed(usize::MAX);
}
