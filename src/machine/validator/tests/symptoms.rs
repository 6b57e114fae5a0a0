//! Clocks, chains that stand still and late rolls are named, and nothing follows.

use super::*;

#[test]
fn a_clock_that_is_off_is_named_and_holds_nothing() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.schedule(None);
    for height in 91..=H {
        rig.pass(1);
        // Our clock is 8 s ahead.
        rig.feed(Event::Head(Head {
            timestamp: Some(1_000 + height),
            heard_at: 1_008 + height,
            ..told(height)
        }));
        rig.surveyed(survey(height, &[]));
    }
    assert_eq!(rig.stops(), 1, "{}", rig.hold());
    let skew = rig.notices("clock_skew");
    assert!(skew.len() == 1 && skew[0].text.contains("8s ahead"), "{skew:?}");
}

#[test]
fn proposers_that_are_not_upgraded_are_named_when_the_roll_is_late() {
    let mut rig = running();
    rig.schedule(Some(H + 1000));
    // Four validators take four slots, and a round of proposals shows the last one's version.
    for height in 92..H + 110 {
        rig.head(height);
        let census = (1..=4).map(|n| ([n; 20], "1.0.0".to_owned())).collect();
        rig.surveyed(Survey { census, ..survey(height, &[3, 4]) });
        assert_eq!(rig.told("few_upgraded"), height >= H + 100, "{height}");
    }
    let text = &rig.notices("few_upgraded")[0].text;
    assert_eq!(text, "0 of 4 proposers run >= 2.0.0; quorum 3; fork in 900 blocks");
}

#[test]
fn a_chain_that_stands_still_is_named_with_the_missing_and_the_next_round() {
    let mut rig = running();
    rig.follow(92);
    rig.pass(10);
    rig.surveyed(connected(92, &[2]));
    rig.feed(Event::Tick);
    let warnings = rig.notices("chain_stands_still");
    assert_eq!(warnings.len(), 1);
    let text = &warnings[0].text;
    for part in ["head=92", "3 of 4 validators", "0x0303", "0x0404", "round 3 begins in 4 s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
