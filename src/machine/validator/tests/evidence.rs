//! Other signers, other chains, and answers that decide nothing.

use super::*;

#[test]
fn another_node_that_signs_with_our_key_stops_and_halts_it() {
    let mut rig = after_a_kill();
    rig.head(215);
    rig.pass(60);
    rig.surveyed(marked(215, 70));
    assert_eq!(rig.stops(), 0, "that was our own, before");
    rig.head(216);
    rig.surveyed(marked(216, 5));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.head(217);
    rig.surveyed(marked(216, 6));
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.record.halted.is_some());
}

#[test]
fn it_does_not_sign_while_another_node_may() {
    let mut rig = after_a_kill();
    rig.follow(200);
    rig.head(205);
    rig.surveyed(marked(205, 1));
    rig.head(206);
    rig.surveyed(Survey { own_mark: marked(203, 3).own_mark, ..survey(206, &[]) });
    assert_eq!(rig.signs(), 0, "after a few seconds nothing tells whose seal that is");
    assert!(rig.silent().contains("block 203 has a seal of our key"));
    rig.head(207);
    rig.surveyed(Survey { own_mark: marked(203, 4).own_mark, ..survey(207, &[]) });
    assert_eq!((rig.signs(), rig.stops()), (1, 0), "it was our own");
}

#[test]
fn an_engine_that_runs_though_the_node_must_be_silent_is_stopped_and_no_duplicate() {
    let mut rig = after_a_kill();
    rig.head(230);
    rig.pass(60);
    let stopped = |rig: &Rig| (rig.count(|a| *a == Action::StopSealing), rig.stops());
    rig.surveyed(Survey { mining: Some(true), ..marked(230, 1) });
    assert_eq!(stopped(&rig), (1, 0));
    assert!(rig.told("not_silent"));
    rig.head(231);
    rig.surveyed(Survey { mining: Some(false), ..marked(231, 1) });
    assert_eq!(stopped(&rig), (1, 0), "that was the engine");
    rig.pass(30);
    rig.head(260);
    rig.surveyed(Survey { mining: Some(false), ..marked(260, 1) });
    rig.head(261);
    rig.surveyed(Survey { mining: Some(false), ..marked(260, 2) });
    assert_eq!(rig.stops(), 1, "and that was not");
}

#[test]
fn a_final_block_that_is_decided_anew_halts_a_validator_that_signs() {
    let mut rig = running();
    rig.follow(92);
    rig.follow(93);
    let other = Head { block: Block { height: 93, hash: Some(hash(7)) }, ..told(93) };
    rig.pass(1);
    rig.feed(Event::Head(other.clone()));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.recalls(93, hash(7));
    rig.tick(1);
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.told("final_block_rewritten"));
    // A node of another chain that answers at its address for a moment halts nothing.
    let mut rig = running();
    rig.follow(92);
    rig.follow(93);
    rig.feed(Event::Head(other));
    rig.recalls(93, hash(93));
    rig.tick(10);
    assert_eq!(rig.stops(), 0);
}

#[test]
fn a_node_of_another_chain_is_refused_and_named() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let other = Chain { id: 8, genesis: hash(0) };
    rig.machine.step(rig.now, Event::Head(told(95)));
    for _ in 0..3 {
        let acts = rig.machine.step(rig.now, Event::Identified(Ok(other.clone())));
        rig.said.extend(acts);
        rig.pass(5);
    }
    assert_eq!(rig.stops(), 1);
    rig.exits(Status::Code(0));
    let refused = |a: &Action| matches!(a, Action::Exit { exit: Exit::Nonsense, reason, .. } if reason.contains("chain 8"));
    assert_eq!(rig.count(refused), 1);
    assert_eq!(rig.kept.as_ref().unwrap().block.height, 90, "its heads count for nothing");
}

#[test]
fn another_own_address_is_believed_when_it_is_named_twice() {
    let mut rig = running();
    let other = |head| Survey { me: Some([9; 20]), ..survey(head, &[]) };
    rig.head(H);
    rig.surveyed(other(H));
    assert_eq!(rig.stops(), 0, "no validator, if that were so");
    rig.surveyed(other(H));
    rig.surveyed(other(H));
    assert_eq!(rig.stops(), 1);
    // One answer is one answer, also where it is judged again because it came before its head.
    let mut rig = running();
    rig.pass(1);
    rig.surveyed(other(92));
    rig.feed(Event::Head(told(92)));
    let me = rig.machine.node().unwrap().network.survey.as_ref().unwrap().me;
    assert_eq!(me, Some(US), "the address that was named before");
}

#[test]
fn an_answer_that_comes_before_its_head_counts_with_it() {
    let mut rig = running();
    (92..H).for_each(|height| rig.follow(height));
    rig.pass(1);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    rig.feed(Event::Head(told(H)));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn an_answer_that_has_waited_opens_no_gate() {
    let mut rig = running();
    rig.head(H);
    rig.feed(Event::Surveyed(Ok(Survey { at: rig.now - Duration::from_secs(4), ..survey(H, &[]) })));
    assert_eq!(rig.stops(), 0);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn an_answer_about_a_head_that_does_not_count_decides_nothing() {
    let not_in_set = |head: u64, hash: String| {
        let mut answer = Survey { hash, ..survey(head, &[]) };
        answer.sample.set.remove(0);
        answer
    };
    // Our turn is over, so that only a validator that is none any more would stop.
    let held = || {
        let mut rig = running();
        (92..H).chain([H + 8]).for_each(|height| rig.follow(height));
        assert_eq!(rig.stops(), 0, "{}", rig.hold());
        rig.head(H + 9);
        rig
    };
    // A node of another chain answers at the address.
    let mut rig = held();
    rig.surveyed(not_in_set(5_000, hash(5_000)));
    rig.surveyed(not_in_set(H + 9, "0xf1".to_owned()));
    assert_eq!(rig.stops(), 0, "{:?}", rig.notices("gates_open"));
    let mut rig = held();
    rig.surveyed(not_in_set(H + 9, hash(H + 9)));
    assert_eq!(rig.stops(), 0, "one answer decides nothing");
    rig.surveyed(not_in_set(H + 9, hash(H + 9)));
    assert_eq!(rig.stops(), 1, "on its own chain it counts");
}

#[test]
fn an_old_binary_that_is_seen_to_stand_at_a_fork_is_remembered_to_be_unable_to_follow() {
    let mut rig = running_to(Some(300));
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.exits(Status::Code(1));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    let cannot = |rig: &Rig| rig.record.ended[0].cannot_follow;
    (H + 1..=299).for_each(|height| rig.follow(height));
    assert!(!cannot(&rig), "no curse (N12)");
    rig.pass(31);
    rig.surveyed(Survey { network_head: Some(320), ..survey(299, &[]) });
    assert!(!cannot(&rig), "one answer decides nothing");
    rig.pass(1);
    rig.surveyed(Survey { network_head: Some(320), ..survey(299, &[]) });
    assert!(cannot(&rig));
    rig.follow(300);
    assert!(cannot(&rig), "it may be a block of its own");
    rig.follow(301);
    assert!(!cannot(&rig));
}

#[test]
fn the_head_of_a_validator_is_made_durable_at_every_block_with_its_turns() {
    let mut rig = running();
    rig.follow(92);
    rig.head(93);
    let kept = rig.kept.clone().unwrap();
    assert_eq!(kept.block, block(93));
    let turns = Turns { at_head: Some(2), before: Some(3), validators: 4 };
    assert_eq!(kept.turns, Some(turns), "known before the next survey");
}

#[test]
fn what_the_network_showed_before_the_head_moved_on_does_not_count() {
    let mut rig = running();
    rig.head(H + 4);
    rig.surveyed(survey(H, &[]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("unknown"), "{}", rig.hold());
}

/// The last seal of the old binary may be on a block after the one at which it was stopped.
#[test]
fn a_receipt_tells_the_seals_of_the_old_binary_from_those_of_the_new_one() {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(Survey { client_version: Some("one".to_owned()), ..marked(H - 1, 1) });
    rig.surveyed(Survey { client_version: Some("one".to_owned()), ..survey(H, &[]) });
    rig.feed(Event::Terminated);
    rig.exits(Status::Code(0));
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.pass(2);
    rig.exits(Status::Code(0));
    rig.pass(2);
    let sealed = |head: u64, heights: std::ops::RangeInclusive<u64>, mark: u64| Survey {
        own_seals: (0..20).map(|back| heights.contains(&(head - 1 - back))).collect(),
        own_mark: marked(mark, head - mark).own_mark,
        client_version: Some("two".to_owned()),
        ..survey(head, &[])
    };
    rig.head(H + 6);
    rig.recalls(H, hash(H));
    rig.surveyed(sealed(H + 6, H - 5..=H + 1, H + 1));
    rig.pass(2);
    rig.head(H + 9);
    rig.surveyed(sealed(H + 9, H + 7..=H + 8, H + 8));
    rig.pass(60);
    rig.head(H + 40);
    rig.surveyed(sealed(H + 40, H + 7..=H + 39, H + 39));
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
    let receipt = rig.said.iter().find_map(|action| match action {
        Action::Receipt(receipt) => Some(receipt),
        _ => None,
    });
    let receipt = receipt.unwrap();
    let height = |step: &str| {
        receipt.steps.iter().find(|seen| seen.step == step).and_then(|seen| Some(seen.block.as_ref()?.height))
    };
    assert_eq!((receipt.last_own_seal, height("first_own_seal")), (Some(H + 1), Some(H + 7)));
    assert_eq!((height("stop_sent"), height("first_beyond")), (Some(H), Some(H + 6)));
    assert_eq!(
        (receipt.client_before.as_deref(), receipt.client_after.as_deref()),
        (Some("one"), Some("two"))
    );
    assert_eq!(
        (receipt.own.as_deref(), receipt.starts),
        (Some(format!("0x{}", "01".repeat(20)).as_str()), 2)
    );
}
