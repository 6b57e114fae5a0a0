//! How a validator comes back, and when it signs again.

use super::*;

#[test]
fn a_new_binary_is_tried_without_peers_and_then_seals_at_once() {
    let rig = upgraded();
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full]);
    assert_eq!(rig.stops(), 2);
    assert_eq!(rig.count(|a| *a == Action::Unpeer), 1, "nothing is left by a node without peers");
    let attempt = rig.record.upgrade.as_ref().unwrap();
    assert_eq!((attempt.attempt, attempt.forgiven, attempt.sealing), (2, 1, 3));
}

/// A node of another chain may answer at the address while the new binary opens its data.
#[test]
fn a_node_that_has_not_named_our_chain_proves_nothing_against_a_new_binary() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(H);
    let is_named = |rig: &mut Rig, known| rig.machine.node_mut().unwrap().identity.known = known;
    is_named(&mut rig, false);
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    assert_eq!((rig.stops(), rig.outcome()), (1, None));
    is_named(&mut rig, true);
    rig.recalls(H, hash(H));
    rig.tick(1);
    assert_eq!((rig.stops(), rig.outcome()), (2, None), "it has opened the data");
}

#[test]
fn a_new_binary_that_fails_without_peers_is_rolled_back_without_a_second_absence() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.exits(Status::Code(1));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full], "the old one seals at once (N17)");
    // The same where it has another chain, and where it tells nothing.
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(H);
    // One answer decides nothing.
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.tick(600);
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_head_of_another_node_does_not_hold_up_the_try_without_peers() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    rig.head(5_000_000);
    rig.head(H - 1);
    let before = rig.stops();
    rig.feed(Event::Recalled(Ok(Recollection {
        block: Block { height: H, hash: None },
        client_version: None,
        forks: None,
    })));
    assert_eq!(rig.stops(), before + 1, "its own data ends below the block that is asked for");
}

#[test]
fn peers_are_found_once_in_31_seconds_also_on_the_way_back() {
    let found = |rig: &mut Rig, height| {
        rig.head(height);
        rig.surveyed(Survey { public_peers: true, ..survey(height, &[]) });
    };
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 52);
    rig.schedule(None);
    (53..=H).for_each(|height| found(&mut rig, height));
    rig.exits(Status::Code(0));
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Full], "the old node has found them long ago");
    found(&mut rig, H + 1);
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
    rig.tick(30);
    assert_eq!(rig.modes().len(), 3, "its peers would refuse it");
    rig.tick(1);
    assert_eq!(rig.modes().len(), 4);
}

#[test]
fn out_of_turn_or_next_to_an_own_proposal_it_comes_back_silent() {
    let restarted = |head: u64| {
        let mut rig = running();
        rig.follow(head);
        rig.ask(Request::Restart);
        rig.tick(13);
        rig.exits(Status::Code(0));
        rig.tick(10);
        rig.modes()
    };
    assert_eq!(restarted(96), [Mode::Full, Mode::Full], "in our slot, after our own block");
    assert_eq!(restarted(97), [Mode::Full, Mode::Full], "in our slot, two blocks before our own");
    assert_eq!(restarted(98), [Mode::Full, Mode::Silent], "we would propose 99 again");
    assert_eq!(restarted(95), [Mode::Full, Mode::Silent], "a clean stop may lose block 95, which was ours");
    assert_eq!(restarted(112), [Mode::Full, Mode::Silent], "the quiet half");
}

#[test]
fn blocks_that_come_while_it_stops_may_bring_it_next_to_an_own_proposal() {
    let stopped = |last: u64| {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        rig.follow(91);
        rig.follow(105);
        rig.ask(Request::Restart);
        assert_eq!(rig.stops(), 1, "two blocks before 107, which is ours");
        (106..=last).for_each(|height| rig.head(height));
        rig.exits(Status::Code(0));
        rig.tick(10);
        assert_eq!(rig.kept.as_ref().unwrap().block.height, last);
        rig.modes()
    };
    assert_eq!(stopped(105), [Mode::Full, Mode::Full]);
    assert_eq!(stopped(106), [Mode::Full, Mode::Silent], "we would propose 107 again");
    assert_eq!(stopped(107), [Mode::Full, Mode::Silent], "the stop may have lost block 107");
    assert_eq!(stopped(108), [Mode::Full, Mode::Full]);
}

#[test]
fn at_the_fork_all_go_at_once_and_seal_at_once() {
    let started = |forks: &[u64], lost: u64| {
        let mut rig = running_to(Some(H + 1));
        for height in 92..H {
            rig.head(height);
            rig.surveyed(survey(height, &[3]));
        }
        assert_eq!(rig.stops(), 0);
        rig.head(H);
        assert_eq!(rig.stops(), 1);
        rig.exits(Status::Code(0));
        rig.forks = forks.to_vec();
        rig.head(H - lost);
        rig.recalls(H - lost, hash(H - lost));
        rig.exits(Status::Code(0));
        rig.tick(10);
        rig.modes()
    };
    // The old binary's votes at the fork do not count for the new one.
    assert_eq!(started(&[7, H + 1], 0), [Mode::Full, Mode::Dry, Mode::Full]);
    assert_eq!(
        started(&[7, H + 1], 1),
        [Mode::Full, Mode::Dry, Mode::Silent],
        "the votes for the lost block count"
    );
    // Where the operator is mistaken about the fork they do (N11).
    assert_eq!(started(&[7], 0), [Mode::Full, Mode::Dry, Mode::Silent]);
}

#[test]
fn a_silent_start_waits_until_there_is_something_to_sync() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.follow(91);
    rig.pass(40);
    rig.follow(92);
    rig.exits(Status::Signal(9));
    rig.tick(1);
    assert_eq!(rig.modes().len(), 1);
    rig.tick(3);
    assert_eq!(rig.modes(), [Mode::Full, Mode::Silent]);
    assert!(rig.record.silent, "a restart of ours must not forget it");
}

#[test]
fn after_an_unclean_stop_it_signs_beyond_everything_final_with_a_quorum_of_peers() {
    let mut rig = after_a_kill();
    rig.follow(150);
    rig.follow(200);
    rig.follow(201);
    assert_eq!(rig.signs(), 1, "one block beyond the record, three peers, a fresh head");
    rig.feed(Event::SealingStarted(Ok(())));
    assert!(!rig.record.silent && rig.told("sealing"));
    // One sample of peers is not enough, nor are too few.
    let mut rig = after_a_kill();
    rig.head(201);
    rig.surveyed(survey(201, &[]));
    assert_eq!(rig.signs(), 0);
    let mut rig = after_a_kill();
    for height in 201..230 {
        rig.head(height);
        rig.surveyed(connected(height, &[2]));
    }
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("too few"), "{}", rig.silent());
    for height in 230..234 {
        rig.head(height);
        rig.surveyed(connected(height, &[2]));
    }
    assert_eq!(rig.signs(), 1, "after 30 s one is enough");
}

#[test]
fn a_head_that_is_old_is_not_fresh_while_the_node_catches_up() {
    let mut rig = after_a_kill();
    for height in [201, 210, 220] {
        rig.pass(1);
        let head = Head { timestamp: Some(1_000), heard_at: 1_050, ..told(height) };
        rig.feed(Event::Head(head));
        rig.surveyed(survey(height, &[]));
    }
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("s old"), "{}", rig.silent());
}

#[test]
fn a_clock_that_is_ahead_keeps_no_node_silent_up_to_ten_seconds_and_is_named_beyond() {
    // It follows for a moment at a time, as its peers drop it.
    let follows = |ahead: u64| {
        let mut rig = after_a_kill();
        for contact in 0..3 {
            for height in [210 + 40 * contact, 211 + 40 * contact] {
                rig.pass(1);
                let timestamp = 1_000 + height;
                // A second goes by before the node has the block and reports it.
                let heard_at = timestamp + ahead + 1;
                rig.feed(Event::Head(Head { timestamp: Some(timestamp), heard_at, ..told(height) }));
                let head_age = Duration::from_secs(ahead + 1);
                let survey = survey(height, &[]);
                rig.surveyed(Survey { sample: Sample { head_age, ..survey.sample }, ..survey });
            }
            rig.pass(38);
            rig.surveyed(Survey { peers: Some(0), ..connected(211 + 40 * contact, &[]) });
        }
        (rig.signs(), rig.told("clock_skew"))
    };
    assert!(follows(10).0 > 0);
    assert_eq!(follows(20), (0, true));
}

#[test]
fn when_all_stand_still_at_the_record_and_all_are_there_it_signs() {
    let mut rig = after_a_kill();
    rig.follow(200);
    for second in 0..20 {
        assert_eq!(rig.signs(), usize::from(second >= 15), "{second}: {}", rig.silent());
        rig.pass(1);
        rig.surveyed(survey(200, &[1, 2, 3, 4]));
    }
}

#[test]
fn it_does_not_sign_below_the_record_or_where_one_is_unseen_or_a_sync_runs() {
    let still = |height: u64, change: fn(&mut Survey)| {
        let mut rig = after_a_kill();
        rig.head(height);
        for _ in 0..29 {
            rig.pass(1);
            let mut survey = survey(height, &[1, 2, 3, 4]);
            change(&mut survey);
            rig.surveyed(survey);
        }
        (rig.signs(), rig.silent())
    };
    assert!(still(200, |_| {}).0 > 0);
    for (height, change, why) in [
        (150, (|_| {}) as fn(&mut Survey), "the head is 150 and must be 200"),
        (200, |s| s.connected = Some(vec![[2; 20], [3; 20]]), "not seen for 2 min: 0x0404"),
        (200, |s| s.syncing = true, "synchronises"),
        (200, |s| s.connected = None, "serve `admin`"),
    ] {
        let (signs, silent) = still(height, change);
        assert_eq!(signs, 0, "{why}");
        assert!(silent.contains(why), "{silent}");
    }
}

#[test]
fn two_of_four_that_were_killed_see_the_others_now_and_then_and_sign() {
    let mut rig = after_a_kill();
    rig.head(200);
    for second in 0..60u64 {
        rig.pass(1);
        // The validators that run are connected for a moment every 35 s, the other silent one always.
        rig.surveyed(connected(200, if second % 35 < 2 { &[2, 3, 4] } else { &[4] }));
    }
    assert!(rig.signs() > 0, "{}", rig.silent());
}

#[test]
fn one_block_below_the_record_in_a_silent_chain_it_is_started_again() {
    let mut rig = after_a_kill();
    rig.head(199);
    for _ in 0..40 {
        rig.pass(1);
        rig.surveyed(survey(199, &[1, 2, 3, 4]));
    }
    assert_eq!((rig.stops(), rig.signs()), (1, 0));
    rig.exits(Status::Code(0));
    rig.tick(4);
    assert_eq!(rig.modes(), [Mode::Silent, Mode::Silent]);
}

#[test]
fn the_operator_states_the_last_final_block_and_the_node_must_have_it() {
    let mut rig = after_a_kill();
    rig.head(150);
    rig.surveyed(connected(150, &[2]));
    let at = |height: u64, hash: String| Request::Sign(Some(Block { height, hash: Some(hash) }));
    rig.ask(at(150, hash(150)));
    assert!(rig.answer().unwrap_err().contains("block 200"), "below the record (N4)");
    rig.head(200);
    rig.surveyed(connected(200, &[2]));
    rig.ask(Request::Sign(None));
    let missing = rig.answer().unwrap_err();
    assert!(missing.contains("0x0303") && missing.contains("0x0404"), "{missing}");
    assert!(missing.contains(&format!("resolve sign --at 200:{}", hash(200))), "{missing}");
    rig.ask(at(200, hash(7)));
    assert!(rig.answer().unwrap_err().contains("the node's head is 200"));
    assert_eq!(rig.signs(), 0);
    rig.ask(at(200, hash(200)));
    assert!(rig.answer().is_ok());
    assert_eq!(rig.signs(), 1);
}

#[test]
fn a_validator_that_is_alone_resumes_by_the_same_rules() {
    let alone = |head: u64| {
        let mut alone = connected(head, &[]);
        alone.sample.set.truncate(1);
        for order in [&mut alone.sample.order, &mut alone.sample.order_before].into_iter().flatten() {
            order.list.truncate(1);
            order.proposer = Some(US);
        }
        alone
    };
    let mut rig = after_a_kill();
    rig.head(200);
    for _ in 0..17 {
        rig.pass(1);
        rig.surveyed(alone(200));
    }
    assert_eq!(rig.signs(), 1, "{}", rig.silent());
    // After a clean stop as well: the node may have decided a block of which nothing was heard any more.
    let turns = Some(Turns { at_head: Some(1), before: Some(1), validators: 1 });
    let head = HeadRecord { turns, ..HeadRecord::new(block(200)) };
    let record = Record { node: NodeMark::StoppedClean, ..Record::new(version(Target::Genesis)) };
    let record = Record { chain: Some(chain()), ..record };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(head));
    assert_eq!(rig.modes(), [Mode::Silent]);
    rig.head(200);
    let mut waits = 0;
    while rig.signs() == 0 && waits < 30 {
        rig.pass(1);
        rig.surveyed(alone(200));
        waits += 1;
    }
    assert_eq!(waits, 16, "{}", rig.silent());
}

#[test]
fn a_node_that_is_alone_with_its_engine_on_is_made_silent() {
    let mut rig = running();
    rig.follow(92);
    for _ in 0..4 {
        rig.pass(1);
        rig.surveyed(connected(92, &[]));
    }
    assert_eq!(rig.count(|a| *a == Action::StopSealing), 1);
    assert!(rig.record.silent && rig.told("alone"));
    rig.follow(93);
    rig.follow(94);
    assert_eq!(rig.signs(), 0, "the next block would be our own");
    rig.follow(95);
    assert_eq!(rig.signs(), 1, "its peers are there again and the chain goes on");
}

#[test]
fn with_sign_after_unclean_now_or_no_validator_nothing_is_silent() {
    let policy = Policy { silent_after_unclean: false, ..Policy::default() };
    assert_eq!(Rig::new(policy, NodeMark::StoppedUnclean, 200).modes(), [Mode::Full]);
    assert_eq!(Rig::with(Policy::default(), NodeMark::StoppedUnclean, 200).modes(), [Mode::Full]);
}

#[test]
fn data_that_was_put_back_makes_it_silent() {
    for (data_compat, last) in [(false, Mode::Silent), (true, Mode::Full)] {
        let mut rig = running();
        rig.feed(Event::Policy(Policy { validator: true, ..Policy::default() }));
        rig.plan(Upgrade { data_compat, ..Upgrade::new(name("v2"), H, Origin::Schedule) });
        rig.follow(H);
        rig.exits(Status::Code(0));
        rig.feed(Event::JobDone(JobEnd::BackedUp(Ok("v2-1".into()))));
        rig.exits(Status::Code(1));
        if !data_compat {
            rig.feed(Event::JobDone(JobEnd::Restored(Ok(()))));
        }
        rig.tick(10);
        assert_eq!(rig.modes().last(), Some(&last), "{:?}", rig.modes());
    }
}

#[test]
fn a_validator_behind_sentry_nodes_is_not_alone() {
    let mut rig = running();
    let sentries = Some(vec![[77; 20], [78; 20]]);
    for height in 92..=H - 2 {
        rig.head(height);
        rig.surveyed(Survey { peers: Some(2), connected: sentries.clone(), ..survey(height, &[]) });
    }
    assert!(!rig.told("alone") && !rig.record.silent);
}

#[test]
fn data_beyond_the_record_makes_it_silent() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    rig.plan(Upgrade::new(name("v2"), 105, Origin::Schedule));
    (91..=105).for_each(|height| rig.follow(height));
    rig.exits(Status::Code(0));
    rig.head(106);
    rig.recalls(105, hash(105));
    rig.exits(Status::Code(0));
    rig.tick(10);
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Silent], "the block after 106 is our own");
}

#[test]
fn an_order_to_sign_holds_at_its_head_only() {
    let mut rig = after_a_kill();
    rig.head(200);
    rig.surveyed(connected(200, &[2]));
    rig.ask(Request::Sign(Some(Block { height: 200, hash: Some(hash(200)) })));
    assert!(rig.answer().is_ok());
    rig.feed(Event::SealingStarted(Ok(())));
    (201..=301).for_each(|height| rig.follow(height));
    let before = rig.signs();
    for _ in 0..6 {
        rig.pass(1);
        rig.surveyed(connected(301, &[]));
    }
    assert!(rig.record.silent, "it is alone");
    assert_eq!(rig.signs(), before);
}

#[test]
fn a_binary_that_takes_final_blocks_back_does_not_seal_from_its_start() {
    for fork in [None, Some(H + 1)] {
        let mut rig = running_to(fork);
        rig.follow(H);
        rig.exits(Status::Code(0));
        rig.head(H - 10);
        rig.recalls(H - 10, hash(H - 10));
        rig.exits(Status::Code(0));
        rig.tick(10);
        assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Silent], "{fork:?}");
    }
}

#[test]
fn a_record_that_is_forgotten_lets_no_silent_node_sign_below_what_was_final() {
    let mut rig = after_a_kill();
    rig.head(150);
    rig.ask(Request::ResetHead);
    let said = rig.answer().unwrap();
    assert!(said.contains("beyond block 200") && said.ends_with("wemixvisor restart"), "{said}");
    for _ in 0..80 {
        rig.pass(1);
        rig.feed(Event::Head(told(150)));
        rig.surveyed(survey(150, &[]));
    }
    assert_eq!(rig.signs(), 0);
    // Nor does one that we start again ourselves, since it finds no peers.
    for _ in 0..50 {
        rig.pass(1);
        rig.surveyed(connected(150, &[]));
    }
    rig.exits(Status::Code(0));
    rig.tick(40);
    assert_eq!(rig.modes(), [Mode::Silent; 2]);
    rig.head(150);
    for _ in 0..80 {
        rig.pass(1);
        rig.surveyed(survey(150, &[]));
    }
    assert_eq!(rig.signs(), 0, "{}", rig.silent());
}

#[test]
fn a_record_that_has_fallen_keeps_no_node_silent() {
    let recent = vec![block(150)];
    let head = HeadRecord { recent, ..HeadRecord::new(block(1121)) };
    let record = Record { node: NodeMark::StoppedUnclean, ..Record::new(version(Target::Genesis)) };
    let record = Record { chain: Some(chain()), ..record };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(head));
    assert_eq!(rig.modes(), [Mode::Silent]);
    for height in 149..175 {
        rig.pass(1);
        rig.feed(Event::Head(Head { timestamp: Some(height), heard_at: height, ..told(height) }));
        rig.surveyed(survey(height, &[]));
    }
    assert!(rig.told("head_record_fell"));
    assert!(rig.signs() > 0, "{}", rig.silent());
}

/// Another supervisor, or none, may have run the node until a moment ago.
#[test]
fn the_first_start_in_a_home_is_silent_where_a_node_has_opened_the_data_before() {
    for (has_data, mode) in [(false, Mode::Full), (true, Mode::Silent)] {
        let record = Record::new(version(Target::Genesis));
        let policy = Policy { validator: true, backup: false, ..Policy::default() };
        let mut rig = Rig::boot(policy.clone(), record.clone(), None);
        rig.machine = Machine::new(policy, 0, record.clone());
        let link = version(Target::Genesis);
        rig.feed(Event::Boot(Facts { record, link, head: None, has_data, launched: None }));
        rig.tick(100);
        assert_eq!(rig.modes().last(), Some(&mode));
    }
}

/// The data that a first start finds, with three others whose chain goes on.
fn taken_over(height: u64) -> Rig {
    let record = Record::new(version(Target::Genesis));
    let policy = Policy { validator: true, backup: false, ..Policy::default() };
    let mut rig = Rig::boot(policy.clone(), record.clone(), None);
    rig.machine = Machine::new(policy, 0, record.clone());
    rig.said.clear();
    let link = version(Target::Genesis);
    rig.feed(Event::Boot(Facts { record, link, head: None, has_data: true, launched: None }));
    rig.tick(100);
    (0..3).for_each(|_| fresh(&mut rig, height));
    rig
}

/// A second passes, and the node shows a head that is new by its own time.
fn fresh(rig: &mut Rig, height: u64) {
    rig.pass(1);
    rig.feed(Event::Head(Head { timestamp: Some(height), heard_at: height, ..told(height) }));
    rig.surveyed(survey(height, &[]));
}

/// The node before may have voted for the block after its last one.
#[test]
fn data_of_an_unknown_end_come_back_beyond_the_first_head_of_the_home_or_where_all_stand_still() {
    let mut rig = taken_over(152);
    assert_eq!((rig.modes(), rig.machine.heads.height()), (vec![Mode::Silent], Some(152)));
    assert_eq!(rig.signs(), 0, "the chain has not gone on yet");
    assert!(rig.silent().contains("must be 153"), "{}", rig.silent());
    for height in 153..=156 {
        fresh(&mut rig, height);
    }
    assert!(rig.signs() > 0, "{}", rig.silent());

    let mut rig = taken_over(152);
    for _ in 0..80 {
        rig.pass(1);
        rig.feed(Event::Head(told(152)));
        rig.surveyed(survey(152, &[]));
    }
    assert!(rig.signs() > 0, "{}", rig.silent());
}

#[test]
fn only_an_earlier_launch_of_this_boot_proves_that_the_last_one_never_ran() {
    let seen = |named: Option<u64>| {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        let record = Record {
            node: NodeMark::Running,
            before: NodeMark::StoppedClean,
            launch: 5,
            chain: Some(chain()),
            ..Record::new(version(Target::Genesis))
        };
        let policy = Policy { validator: true, backup: false, ..Policy::default() };
        rig.machine = Machine::new(policy, 0, record.clone());
        let (head, launched) = (rig.kept.clone(), named.map(|launch| Launched { launch, alive: None }));
        rig.feed(Event::Boot(Facts {
            record,
            link: version(Target::Genesis),
            head,
            has_data: false,
            launched,
        }));
        rig.tick(100);
        (rig.record.launch, rig.record.before)
    };
    // The number of a launch that was taken back is not given again.
    assert_eq!(seen(Some(4)), (6, NodeMark::StoppedClean));
    assert_eq!(seen(Some(5)), (6, NodeMark::StoppedUnclean));
    assert_eq!(seen(Some(6)), (7, NodeMark::StoppedUnclean), "the journal is older than the lock");
    assert_eq!(seen(None), (6, NodeMark::StoppedUnclean), "a power cut may have taken the name away");
}
