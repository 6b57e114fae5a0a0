//! Each gate alone, with the numbers that an operator reads. The fleet of `tests/it/fleet.rs` tries them together.

use super::*;

const H: u64 = 1000;
const RULES: Rules = Rules { slot_blocks: 60, avoid_own_proposal: false };

fn validator(n: u16) -> Validator {
    let mut address = [0; 20];
    address[..2].copy_from_slice(&n.to_be_bytes());
    address
}

/// Validators 10, 20, 30 … so that there is room between them for those who join.
fn set(n: u16) -> impl Iterator<Item = Validator> {
    (1..=n).map(|i| validator(i * 10))
}

fn due(n: u16) -> Due {
    Due::new(H, None, None, set(n))
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
        proposer: None,
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

fn ask(me: u16, due: &Due, now: &Sample) -> Verdict {
    judge(&validator(me), Some(due), &RULES, now)
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

/// The heights of one cycle at which each of `n` may go, as ranges.
fn open_heights(n: u16, me: u16) -> Vec<u64> {
    (H..H + 60 * u64::from(n))
        .filter(|head| ask(me, &due(n), &calm(n, *head)) == Verdict::Go(Reason::Open))
        .collect()
}

#[test]
fn four_validators_have_a_slot_each_with_a_quiet_end() {
    for i in 0..4 {
        let from = H + 60 * u64::from(i);
        assert_eq!(open_heights(4, (i + 1) * 10), (from..from + 48).collect::<Vec<_>>());
    }
    let gate = only(ask(30, &due(4), &calm(4, H + 5)));
    assert_eq!(gate.to_string(), "slot 3 of 4 is ours, it opens at block 1120, in 115 blocks");
    assert_eq!((gate.name(), gate.waits_for().as_str()), ("turn", "block 1120"));
}

#[test]
fn before_the_height_the_turn_holds() {
    assert_eq!(
        only(ask(10, &due(4), &calm(4, H - 1))),
        Gate::Turn { head: H - 1, slot: 1, slots: 4, opens_at: H }
    );
}

#[test]
fn who_is_late_goes_when_the_slots_come_round_again() {
    let slot = |head| Gate::Turn { head, slot: 2, slots: 4, opens_at: H + 240 + 60 };
    assert_eq!(only(ask(20, &due(4), &calm(4, H + 115))), slot(H + 115));
    assert_eq!(only(ask(20, &due(4), &calm(4, H + 299))), slot(H + 299));
    assert_eq!(ask(20, &due(4), &calm(4, H + 300)), Verdict::Go(Reason::Open));
    assert_eq!(ask(20, &due(4), &calm(4, H + 300 + 240 * 1000)), Verdict::Go(Reason::Open));
}

#[test]
fn a_group_is_half_the_margin_and_at_least_one() {
    let sizes = [1, 2, 3, 4, 7, 12, 13, 100, 1000].map(|n| due(n).group_size());
    assert_eq!(sizes, [1, 1, 1, 1, 1, 1, 2, 16, 166]);
    for n in 4..=300 {
        assert!(due(n).group_size() == 1 || 2 * due(n).group_size() <= margin(usize::from(n)), "{n}");
    }
    // 13 validators: groups of 2, the last alone.
    let together =
        |a, b| (0..60).all(|h| ask(a, &due(13), &calm(13, H + h)) == ask(b, &due(13), &calm(13, H + h)));
    assert!(together(10, 20) && !together(20, 30));
}

#[test]
fn slots_too_short_for_their_quiet_end_are_lengthened() {
    let rules = Rules { slot_blocks: 1, ..RULES };
    let open =
        |head| judge(&validator(20), Some(&due(4)), &rules, &calm(4, head)) == Verdict::Go(Reason::Open);
    let heights: Vec<u64> = (H..H + 96).filter(|h| open(*h)).collect();
    assert_eq!(heights, (H + 24..H + 36).collect::<Vec<_>>());
}

#[test]
fn without_us_a_quorum_must_remain() {
    assert_eq!(ask(10, &due(4), &without(4, H, &[])), Verdict::Go(Reason::Open));
    let gate = only(ask(10, &due(4), &without(4, H, &[30])));
    assert_eq!(gate.to_string(), "3 of 4 live, need 3 without us, have 2");
    assert_eq!((gate.name(), gate.waits_for().as_str()), ("quorum", "1 more to seal"));
    // One who does not seal takes nothing away by leaving.
    assert_eq!(ask(10, &due(4), &without(4, H, &[10])), Verdict::Go(Reason::Open));
    assert_eq!(ask(10, &due(7), &without(7, H, &[30])), Verdict::Go(Reason::Open));
    assert_eq!(only(ask(10, &due(7), &without(7, H, &[30, 40]))).name(), "quorum");
}

#[test]
fn three_validators_or_fewer_halt_the_chain_in_turn_and_say_so() {
    for n in 1..=3 {
        let halts = Verdict::Go(Reason::HaltsChain { validators: usize::from(n) });
        assert_eq!(ask(10, &due(n), &calm(n, H)), halts);
    }
    assert_eq!(only(ask(20, &due(3), &calm(3, H))).name(), "turn");
    assert_eq!(only(ask(10, &due(3), &calm(3, H + 70))).name(), "turn");
    // With nobody else there is no slot to wait for.
    assert!(matches!(ask(10, &due(1), &calm(1, H + 59)), Verdict::Go(_)));
}

#[test]
fn calm_means_a_fresh_head_and_first_rounds() {
    let mut now = calm(4, H);
    now.head_age = Duration::from_millis(3000);
    now.first_round = 6;
    assert_eq!(ask(10, &due(4), &now), Verdict::Go(Reason::Open));
    now.head_age = Duration::from_millis(3100);
    let gate = only(ask(10, &due(4), &now));
    assert_eq!(gate.to_string(), "the head is 3.1 s old, fresh is up to 3.0 s");
    now.first_round = 5;
    let gates = held(ask(10, &due(4), &now));
    assert_eq!(gates[1].to_string(), "5 of the last 8 blocks decided in round 0, need 3 of 4");
    assert_eq!(gates[1].waits_for(), "6 of 8 blocks decided in round 0");
    assert!(gates.iter().all(|g| g.name() == "calm"));
}

#[test]
fn all_that_holds_is_told() {
    let mut now = without(4, H, &[40]);
    (now.head_age, now.first_round) = (Duration::from_secs(9), 0);
    let names: Vec<&str> = held(ask(20, &due(4), &now)).iter().map(Gate::name).collect();
    assert_eq!(names, ["quorum", "turn", "calm", "calm"]);
}

#[test]
fn past_the_deadline_only_quorum_holds() {
    let due = Due::new(H, Some(H + 500), None, set(4));
    assert_eq!(due.deadline(), Some(H + 440));
    let mut now = calm(4, H + 439);
    (now.head_age, now.first_round) = (Duration::from_secs(60), 0);
    assert_eq!(held(ask(10, &due, &now)).len(), 3);
    now.head += 1;
    assert_eq!(ask(10, &due, &now), Verdict::Go(Reason::Deadline { height: H + 440 }));
    now.set[3].sealing = false;
    assert_eq!(only(ask(10, &due, &now)).name(), "quorum");
    let named = Due::new(H, Some(H + 500), Some(H + 50), set(4));
    assert_eq!(ask(40, &named, &calm(4, H + 50)), Verdict::Go(Reason::Deadline { height: H + 50 }));
}

#[test]
fn at_the_last_block_before_the_fork_nothing_holds() {
    let due = Due::new(H, Some(H + 500), None, set(4));
    let fork = Verdict::Go(Reason::Fork { height: H + 500 });
    assert_ne!(ask(10, &due, &without(4, H + 498, &[20, 30])), fork);
    assert_eq!(ask(10, &due, &without(4, H + 499, &[20, 30])), fork);
    assert_eq!(ask(10, &due, &without(4, H + 9999, &[20, 30, 40])), fork);
}

#[test]
fn who_does_not_vote_may_go_at_any_time() {
    let not = Verdict::Go(Reason::NotInSet);
    assert_eq!(ask(15, &due(4), &without(4, H - 7, &[10, 20])), not);
    // The set at H does not matter for it: who has left the set is free as well.
    let mut now = calm(4, H + 59);
    now.set.remove(0);
    assert_eq!(ask(10, &due(4), &now), not);
}

#[test]
fn who_joined_after_the_height_has_the_slot_of_its_neighbours() {
    let mut now = calm(4, H);
    for n in [5, 25, 99] {
        now.set.push(Seat { validator: validator(n), sealing: true });
    }
    now.set.sort_by_key(|seat| seat.validator);
    let slot_of = |me| match only(ask(me, &due(4), &Sample { head: H - 1, ..now.clone() })) {
        Gate::Turn { slot, .. } => slot,
        other => panic!("{other}"),
    };
    assert_eq!([5, 10, 20, 25, 30, 40, 99].map(slot_of), [1, 1, 2, 3, 3, 4, 4]);
    // Two in a slot of one go in different cycles.
    assert_eq!(ask(5, &due(4), &now), Verdict::Go(Reason::Open));
    let gate = only(ask(10, &due(4), &now));
    assert_eq!(gate, Gate::Share { at_once: 1, group: 2, opens_at: H + 240 });
    assert_eq!(gate.to_string(), "1 of the 2 in our slot may go at a time, we may from block 1240");
    now.head += 240;
    assert_eq!(ask(10, &due(4), &now), Verdict::Go(Reason::Open));
    assert_eq!(only(ask(5, &due(4), &now)), Gate::Share { at_once: 1, group: 2, opens_at: H + 480 });
}

#[test]
fn a_group_that_cannot_all_be_spared_is_shared_out_over_the_cycles() {
    // 100 validators: quorum 67, groups of 16 in 7 slots. With 25 absent elsewhere, 8 can be spared.
    let absent: Vec<u16> = (60..85).map(|i| i * 10).collect();
    let now = |cycle: u64| without(100, H + cycle * 7 * 60, &absent);
    let goes = |me: u16, cycle| ask(me, &due(100), &now(cycle)) == Verdict::Go(Reason::Open);
    for cycle in 0..8 {
        let who: Vec<u16> = (1..=16).filter(|i| goes(i * 10, cycle)).collect();
        let first = 4 * (cycle as u16 % 4);
        assert_eq!(who, (first + 1..=first + 4).collect::<Vec<_>>(), "cycle {cycle}");
    }
    assert!(matches!(only(ask(160, &due(100), &now(0))), Gate::Share { at_once: 4, group: 16, .. }));
    // All that are gone in our own slot do not count against it: they are who this slot is for.
    let mates: Vec<u16> = (1..=15).map(|i| i * 10).collect();
    assert_eq!(ask(160, &due(100), &without(100, H, &mates)), Verdict::Go(Reason::Open));
}

#[test]
fn our_own_proposal_is_awaited_if_wanted() {
    let rules = Rules { avoid_own_proposal: true, ..RULES };
    let mut now = calm(4, H);
    now.proposer = Some(validator(10));
    assert_eq!(ask(10, &due(4), &now), Verdict::Go(Reason::Open));
    let gate = only(judge(&validator(10), Some(&due(4)), &rules, &now));
    assert_eq!((gate.to_string().as_str(), gate.name()), ("we propose block 1001", "proposal"));
    now.proposer = Some(validator(20));
    assert_eq!(judge(&validator(10), Some(&due(4)), &rules, &now), Verdict::Go(Reason::Open));
    // A lone validator proposes every block.
    let lone = Sample { proposer: Some(validator(10)), ..calm(1, H) };
    assert!(matches!(judge(&validator(10), Some(&due(1)), &rules, &lone), Verdict::Go(_)));
}

#[test]
fn what_is_not_known_is_never_guessed() {
    let unknown = |verdict| assert_eq!(only(verdict).name(), "unknown");
    unknown(ask(10, &Due::new(H, None, None, []), &calm(4, H)));
    unknown(ask(10, &due(4), &Sample { set: Vec::new(), ..calm(4, H) }));
    unknown(ask(10, &due(4), &Sample { blocks: 0, first_round: 0, ..calm(4, H) }));
}

#[test]
fn without_an_upgrade_the_question_is_whether_we_can_be_spared() {
    let check = |now: &Sample| judge(&validator(10), None, &RULES, now);
    assert_eq!(check(&calm(4, 5)), Verdict::Go(Reason::Open));
    assert_eq!(only(check(&without(4, 5, &[20]))).name(), "quorum");
    assert_eq!(only(check(&Sample { head_age: Duration::from_secs(9), ..calm(4, 5) })).name(), "calm");
}

#[test]
fn heights_at_the_end_of_the_range_do_not_overflow() {
    let far = Due::new(u64::MAX - 1, None, None, set(4));
    for me in [10, 40] {
        let _ = ask(me, &far, &calm(4, u64::MAX));
        let endless = Rules { slot_blocks: u64::MAX, avoid_own_proposal: true };
        let _ = judge(&validator(me), Some(&due(4)), &endless, &calm(4, u64::MAX));
    }
}
