//! A new binary proves itself, or does not.

use super::*;

#[test]
fn a_new_binary_has_to_seal_and_to_have_the_old_blocks() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { own_seals: seals(2), ..survey(H + 1, &[]) });
    rig.pass(60);
    rig.head(H + 30);
    rig.surveyed(Survey { own_seals: seals(2), ..survey(H + 30, &[]) });
    assert_eq!(rig.outcome(), None, "it does not seal");
    rig.head(H + 31);
    rig.surveyed(Survey { own_seals: seals(12), ..survey(H + 31, &[]) });
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn seals_of_the_old_binary_and_heads_that_no_survey_has_seen_prove_nothing_of_the_new_one() {
    let mut rig = upgraded();
    rig.feed(Event::Policy(Policy {
        validator: true,
        backup: false,
        probation_blocks: 3,
        ..Policy::default()
    }));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.pass(60);
    for height in H + 2..=H + 6 {
        rig.head(height);
        // All blocks up to that of the stop have our seal, and none above.
        let own_seals = (0..20).map(|n| height - 1 - n <= H + 1).collect();
        rig.surveyed(Survey { own_seals, ..survey(height, &[]) });
    }
    assert_eq!(rig.outcome(), None);
    rig.surveyed(survey(H + 3, &[]));
    rig.head(H + 7);
    assert_eq!(rig.outcome(), None, "two blocks are seen");
    rig.surveyed(survey(H + 7, &[]));
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn a_new_binary_that_never_seals_is_told_to_and_then_rolled_back() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    for height in H + 1..=H + 40 {
        rig.follow_muted(height);
    }
    assert_eq!((rig.signs(), rig.stops()), (0, 2));
    rig.follow_muted(H + 41);
    assert_eq!(rig.signs(), 1, "told to seal after 40 blocks");
    for height in H + 42..=H + 62 {
        rig.follow_muted(height);
    }
    assert_eq!(rig.stops(), 3, "and failed 20 blocks later");
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack), "the headers prove that it has signed nothing");
}

#[test]
fn blocks_that_come_all_at_once_do_not_show_that_a_binary_cannot_seal() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.follow_muted(H + 1);
    for burst in 1..=13 {
        rig.follow_muted(H + 1 + burst * 30);
    }
    assert_eq!(rig.signs(), 0, "39 blocks");
    rig.follow_muted(H + 392);
    assert_eq!(rig.signs(), 1);
}

#[test]
fn a_new_binary_that_has_signed_or_may_have_is_never_rolled_back() {
    // Proven: a block made long after its start carries our seal.
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.pass(30);
    rig.head(H + 30);
    rig.surveyed(marked(H + 30, 1));
    assert!(rig.record.upgrade.as_ref().unwrap().signed);
    // Not proven: headers are missing.
    let mut rig = upgraded();
    rig.head(H + 1);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted(), "{:?}", rig.said);
    // A head that rose is no signature, where the headers show none.
    let mut rig = upgraded();
    rig.follow_muted(H + 1);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_fork_that_the_new_binary_does_not_know_is_a_warning_and_no_more() {
    let mut rig = upgraded_to(Some(H + 1000));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(Survey { forks: Some(vec![0, 7]), ..survey(H + 1, &[]) });
    assert!(rig.told("fork_unknown"));
    assert_eq!(rig.stops(), 2);
    rig.pass(60);
    rig.follow(H + 30);
    assert_eq!(rig.outcome(), Some(Outcome::Applied));
}

#[test]
fn a_block_of_our_own_at_the_fork_may_be_exchanged() {
    let mut rig = running_to(Some(102));
    rig.follow(99);
    rig.head(H);
    // It was held by its gates until it had made the block at the fork itself.
    rig.surveyed(survey(H, &[3]));
    rig.feed(Event::Head(told(101)));
    assert_eq!(rig.stops(), 1, "the last block before the fork");
    rig.feed(Event::Head(told(102)));
    rig.exits(Status::Code(0));
    rig.head(101);
    rig.recalls(101, hash(101));
    rig.exits(Status::Code(0));
    rig.tick(10);
    let other = |height: u64, parent: String| Head {
        block: Block { height, hash: Some(format!("0xff{height}")) },
        parent: Some(parent),
        ..told(height)
    };
    rig.pass(1);
    rig.feed(Event::Head(other(102, hash(101))));
    rig.feed(Event::Head(other(103, "0xff102".to_owned())));
    assert_eq!(rig.kept.as_ref().unwrap().block.hash.as_deref(), Some("0xff103"));
    assert!(!rig.has_halted());
}

#[test]
fn what_was_signed_before_a_crash_of_ours_stays_possible() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.head(H + 2);
    rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, 1) });
    assert!(!rig.record.upgrade.as_ref().unwrap().signed, "it is too young to be certain");
    let (record, head) = (rig.record.clone(), rig.kept.clone());
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let policy = Policy { validator: true, backup: false, ..Policy::default() };
    rig.machine = Machine::new(policy, 0, record.clone());
    let launched = Some(Launched { launch: record.launch, alive: None });
    rig.feed(Event::Boot(Facts { record, link: version(v2()), head, has_data: false, launched }));
    rig.tick(100);
    for height in H + 112..=H + 116 {
        rig.head(height);
        rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, height - H - 2) });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.outcome().is_none());
}

#[test]
fn a_clock_that_is_ahead_makes_no_signature_of_the_new_binary_one_of_the_old() {
    let mut rig = upgraded();
    rig.head(H + 1);
    for height in H + 2..=H + 6 {
        rig.head(height);
        let own_mark = OwnMark { age: Duration::from_secs(11), ..marked(height - 1, 1).own_mark.unwrap() };
        rig.surveyed(Survey { oldest: H - 5, own_mark: Some(own_mark), ..survey(height, &[]) });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted() && rig.outcome().is_none());
    assert!(warns_of_signatures(&rig.record, H + 6));
}

#[test]
fn a_new_binary_with_another_key_is_not_good() {
    for (me, outcome) in [(None, None), (Some([9; 20]), Some(Outcome::RolledBack))] {
        let mut rig = upgraded();
        rig.head(H + 1);
        rig.recalls(H, hash(H));
        for height in H + 2..=H + 90 {
            rig.head(height);
            rig.surveyed(Survey { me, own_seals: Vec::new(), oldest: H - 5, ..survey(height, &[1]) });
        }
        rig.exits(Status::Code(0));
        assert_ne!(rig.outcome(), Some(Outcome::Applied));
        assert!(me.is_none() || rig.outcome() == outcome, "{:?}", rig.record.halted);
    }
}
