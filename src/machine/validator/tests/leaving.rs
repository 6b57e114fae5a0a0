//! When a validator stops for an upgrade or a restart, and how.

use super::*;

#[test]
fn a_validator_stops_when_the_network_can_spare_it_and_leaves_its_peers_first() {
    let mut rig = running();
    rig.head(H);
    assert_eq!(rig.said.iter().filter(|a| **a == Action::Survey).count(), 2);
    assert_eq!(rig.stops(), 0, "not before it knows");
    rig.surveyed(survey(H, &[]));
    let leaves = rig.said.iter().position(|a| *a == Action::Unpeer);
    let stops = rig.said.iter().position(|a| *a == Action::Terminate);
    assert!(leaves.is_some() && leaves < stops, "{:?}", rig.said);
}

#[test]
fn peers_that_are_not_removed_in_a_second_do_not_delay_the_stop() {
    let mut rig = running();
    rig.head(H);
    let mut acts = rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })));
    acts.extend(rig.machine.step(rig.now, Event::Inspected));
    acts.extend(rig.machine.step(rig.now, Event::Recorded));
    assert!(acts.contains(&Action::Unpeer) && !acts.contains(&Action::Terminate));
    let (at, why) = rig.machine.deadline().unwrap();
    assert_eq!((at - rig.now, why), (Duration::from_secs(1), "leaving"));
    assert!(rig.machine.step(at, Event::Tick).contains(&Action::Terminate));
}

#[test]
fn outside_its_turn_it_waits_whatever_the_deadline() {
    let mut rig = running_to(Some(161));
    for height in 92..=95 {
        rig.follow(height);
    }
    // Our slot ends open at 107; the next is ours at 192.
    for height in 108..=159 {
        rig.follow(height);
    }
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("it opens at block 192, in 33 blocks"), "{}", rig.hold());
    let warnings = rig.notices("deadline_passed");
    assert_eq!((warnings.len(), warnings[0].level), (1, Level::Warn));
    assert!(warnings[0].text.contains("deadline=101") && warnings[0].text.contains("fork=161"));
    assert!(rig.machine.view().planned[0].overdue);
    rig.follow(160);
    assert_eq!(rig.stops(), 1, "the old binary cannot follow the next block");
}

#[test]
fn it_does_not_stop_where_it_would_propose_again() {
    // After 98 we propose 99; 99 is ours; after 100 it is best.
    for (head, stops) in [(98, 0), (99, 0), (100, 1)] {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        rig.follow(91);
        rig.plan(Upgrade::new(name("v2"), 97, Origin::Schedule));
        rig.follow(head);
        assert_eq!(rig.stops(), stops, "{head}: {}", rig.hold());
    }
}

#[test]
fn the_block_after_our_own_is_waited_for_during_one_cycle_of_turns() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.follow(91);
    rig.plan(Upgrade::new(name("v2"), 97, Origin::Schedule));
    // After 97 we could go, and after 100 it would be best; but from there on the rounds are restless.
    let follow = |rig: &mut Rig, height: u64| {
        rig.head(height);
        let mut survey = survey(height, &[]);
        survey.sample.first_round = if (100..108).contains(&height) { 2 } else { 8 };
        rig.surveyed(survey);
    };
    let stopped = (92..200).find(|height| {
        follow(&mut rig, *height);
        rig.stops() > 0
    });
    assert_eq!(stopped, Some(192), "the first block of its next turn");
}

#[test]
fn a_gate_that_holds_is_shown_with_numbers_and_asked_again_with_the_next_head() {
    let mut rig = running();
    rig.head(H);
    rig.surveyed(survey(H, &[3]));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("3 of 4 live, need 3 without us, have 2"), "{}", rig.hold());
    assert_eq!(rig.machine.view().planned[0].why, rig.hold());
    let surveys = |rig: &Rig| rig.count(|a| *a == Action::Survey);
    let before = surveys(&rig);
    rig.feed(Event::Tick);
    assert_eq!(surveys(&rig), before, "one survey per head");
    rig.head(H + 4);
    assert_eq!(surveys(&rig), before + 1);
    rig.surveyed(survey(H + 4, &[]));
    assert_eq!(rig.stops(), 1);
    assert!(rig.told("gates_hold") && rig.told("gates_open"));
}

#[test]
fn a_gate_that_opens_and_closes_with_every_block_is_reported_once_and_held_since_the_first() {
    let mut rig = running();
    for height in H..H + 7 {
        rig.head(height);
        let mut seen = survey(height, &[3]);
        seen.sample.first_round = if height % 2 == 0 { 8 } else { 5 };
        (seen.sample.order, seen.sample.order_before) = (None, None);
        rig.surveyed(seen);
    }
    assert_eq!(rig.notices("gates_hold").len(), 2, "quorum, and calm besides");
    rig.head(H + 7);
    let mut seen = survey(H + 7, &[3]);
    seen.sample.first_round = 5;
    rig.surveyed(seen);
    assert!(rig.hold().contains("calm: 5 of the last 8"), "{}", rig.hold());
    assert!(rig.hold().ends_with("(for 7 s)"), "{}", rig.hold());
}

#[test]
fn a_node_that_cannot_be_asked_is_not_stopped_until_the_fork_demands_it() {
    let mut rig = running_to(Some(H + 20));
    rig.head(H);
    rig.feed(Event::Surveyed(Err(Failure::new(Class::Transient, "no istanbul"))));
    assert_eq!(rig.stops(), 0);
    assert!(rig.hold().contains("no istanbul"), "{}", rig.hold());
    rig.head(H + 19);
    assert_eq!(rig.stops(), 1, "the old binary cannot follow the next block");
}

#[test]
fn a_node_that_stands_at_a_fork_that_it_lacks_is_rolled_forward() {
    assert_eq!(standing(Some(H + 1), Some(H + 10)).stops(), 1);
    assert_eq!(standing(Some(H + 1), None).stops(), 0, "the whole network may stand still");
    assert_eq!(
        standing(None, Some(H + 10)).stops(),
        0,
        "a peer may claim anything; without a fork it catches up"
    );
}

#[test]
fn a_journal_that_cannot_be_written_is_not_written_again_at_once() {
    let mut rig = running();
    rig.follow(92);
    for _ in 0..2 {
        rig.pass(1);
        rig.surveyed(connected(92, &[]));
    }
    rig.pass(3);
    let answer = Survey { at: rig.now, ..connected(92, &[]) };
    let mut actions = rig.machine.step(rig.now, Event::Surveyed(Ok(answer)));
    let mut rounds = 0;
    while actions.iter().any(|action| matches!(action, Action::Record(_))) && rounds < 10 {
        rounds += 1;
        let failure = Failure::new(Class::Environment, "read-only file system".to_owned());
        actions = rig.machine.step(rig.now, Event::RecordFailed(failure));
    }
    assert_eq!(rounds, 1);
}

#[test]
fn a_stop_that_was_decided_too_long_ago_is_decided_anew() {
    // The look at the binary takes long.
    let mut rig = running();
    rig.head(H);
    let looks = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Inspect(_)));
    assert!(looks(&rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })))));
    rig.pass(30);
    let actions = rig.machine.step(rig.now, Event::Inspected);
    assert!(!actions.iter().any(|action| matches!(action, Action::Record(_))), "{actions:?}");
    // The journal does.
    let mut rig = running();
    rig.head(H);
    assert!(looks(&rig.machine.step(rig.now, Event::Surveyed(Ok(Survey { at: rig.now, ..survey(H, &[]) })))));
    rig.machine.step(rig.now, Event::Inspected);
    rig.pass(30);
    let actions = rig.machine.step(rig.now, Event::Recorded);
    assert!(!actions.contains(&Action::Unpeer), "{actions:?}");
    assert!(
        actions.iter().any(|a| matches!(a, Action::Record(record) if record.upgrade.is_none())),
        "{actions:?}"
    );
}

#[test]
fn the_operators_now_needs_no_gate() {
    let mut rig = running();
    rig.head(H - 5);
    rig.ask(Request::UpgradeNow(name("v2")));
    let ready = Ready::new(version(v2()));
    rig.feed(Event::JobDone(JobEnd::Prepared(name("v2"), Ok(ready))));
    assert_eq!(rig.stops(), 1);
}

#[test]
fn a_restart_waits_a_few_blocks_for_a_good_moment_and_no_longer() {
    let mut rig = running();
    rig.follow(94);
    rig.ask(Request::Restart);
    assert_eq!(rig.stops(), 0, "we propose the next block");
    rig.follow(95);
    rig.follow(96);
    assert_eq!(rig.stops(), 1);
    let mut rig = running();
    rig.follow(94);
    rig.ask(Request::Restart);
    rig.tick(13);
    assert_eq!(rig.stops(), 1, "the chain may stand still");
}

#[test]
fn a_fork_that_the_old_binary_knows_forces_no_stop_and_makes_no_vote_void() {
    let mut rig = running_to(Some(H + 3));
    let forks = Some(vec![7, H + 3]);
    for height in 92..=H + 2 {
        rig.head(height);
        rig.surveyed(Survey { forks: forks.clone(), ..survey(height, &[3]) });
    }
    assert_eq!(rig.stops(), 0, "{}", rig.hold());
}

#[test]
fn an_upgrade_that_is_not_ready_holds_no_other_one_up() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.follow(91);
    let (v2, v3) =
        (Upgrade::new(name("v2"), 96, Origin::Schedule), Upgrade::new(name("v3"), 98, Origin::Schedule));
    rig.feed(Event::Schedule(vec![v2.into(), v3.into()]));
    rig.feed(Event::JobDone(JobEnd::Prepared(
        name("v2"),
        Err(Failure::new(Class::Permanent, "no such file")),
    )));
    let ready = Ready::new(version(Target::Upgrade(name("v3"))));
    rig.feed(Event::JobDone(JobEnd::Prepared(name("v3"), Ok(ready))));
    rig.follow(H);
    let upgrade = rig.record.upgrade.as_ref().map(|p| p.name.as_str());
    assert_eq!((rig.stops(), upgrade), (1, Some("v3")));
    let view = rig.machine.view();
    assert!(view.planned[0].why.contains("no such file"), "{:?}", view.planned);
}
