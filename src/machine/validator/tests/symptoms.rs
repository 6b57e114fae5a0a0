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

#[test]
fn a_node_that_stands_while_the_network_goes_on_is_frozen_and_at_a_fork_that_is_named() {
    let beyond = |head: u64| Survey { network_head: Some(head + 50), ..survey(head, &[]) };
    for (fork, named) in [(None, "frozen"), (Some(H + 40), "frozen"), (Some(H + 1), "frozen_at_fork")] {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        // Its binary is not there.
        let upgrade = Upgrade { fork_height: fork, ..Upgrade::new(name("v2"), H, Origin::Schedule) };
        rig.feed(Event::Schedule(vec![upgrade.into()]));
        rig.follow(91);
        rig.head(H);
        for _ in 0..5 {
            rig.pass(1);
            rig.surveyed(beyond(H));
        }
        assert!(!rig.told(named), "{fork:?}");
        for _ in 0..62 {
            rig.pass(1);
            rig.surveyed(beyond(H));
        }
        let texts: Vec<&str> = rig.notices(named).iter().map(|notice| notice.text.as_str()).collect();
        assert_eq!(texts.len(), 2, "once, and again after a minute: {texts:?}");
        assert!(texts[0].contains(&format!("head={H} for=6s the network is at {}", H + 50)), "{texts:?}");
        let shown: Vec<String> =
            rig.machine.view().symptoms.into_iter().map(|symptom| symptom.name).collect();
        assert!(shown.iter().any(|name| name == named), "{shown:?}");
        let at_fork = format!("cannot follow the fork at {}", H + 1);
        assert_eq!(texts[0].contains(&at_fork), named == "frozen_at_fork", "{texts:?}");
        assert!(!rig.told("chain_stands_still") && rig.stops() == 0);
    }
}
