//! Answers that are false, lost or late, and starts and stops at the wrong moment.

use super::*;

/// The supervisor starts again, with the link at v2, and no node runs.
fn rebooted(record: Record, head: Option<HeadRecord>) -> Rig {
    let mut rig = running();
    let policy = Policy { validator: true, backup: false, ..Policy::default() };
    rig.machine = Machine::new(policy, 0, record.clone());
    rig.said.clear();
    rig.feed(Event::Boot(Facts { record, link: version(v2()), head, has_data: false, launched: None }));
    rig
}

/// A running binary that names the fork itself is not "past use" there; after a restart it must not go out of turn.
#[test]
fn after_a_restart_a_binary_that_names_the_fork_waits_for_its_turn() {
    let mut rig = Rig::new(Policy::default(), NodeMark::StoppedClean, 137);
    rig.schedule(Some(110));
    let knows = |head| Survey { forks: Some(vec![110]), ..survey(head, &[]) };
    // 138 is not in our slot (slot 5: group 1).
    rig.head(138);
    rig.surveyed(knows(138));
    rig.head(139);
    rig.surveyed(knows(139));
    rig.head(140);
    rig.surveyed(knows(140));
    assert_eq!(rig.stops(), 0, "{:?}", rig.notices("gates_open"));
}

/// The old binary names the fork, so its votes and proposals at the fork count.
#[test]
fn a_stop_at_a_fork_that_the_old_binary_names_is_not_forced_before_it_was_asked() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 97);
    rig.plan(Upgrade { fork_height: Some(99), ..Upgrade::new(name("v2"), 90, Origin::Schedule) });
    rig.forks = vec![99];
    // The next block is our own, and the fork's.
    rig.head(98);
    assert_eq!(rig.stops(), 0);
    rig.surveyed(Survey { forks: Some(vec![99]), ..survey(98, &[]) });
    assert_eq!(rig.stops(), 0, "{:?}", rig.notices("gates_open"));
}

/// A fault of the environment in the try without peers must not take the way back away.
#[test]
fn an_environment_fault_in_the_dry_try_leaves_the_way_back_open() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    // Dry: the port was taken.
    rig.feed(Event::Exited(Ending {
        status: Status::Code(1),
        environment: Some("port".to_owned()),
        last_words: None,
    }));
    rig.tick(10);
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Dry]);
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    rig.tick(10);
    rig.follow_muted(H + 1);
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(!rig.has_halted(), "{:?}", rig.record.halted);
    assert_eq!(rig.outcome(), Some(Outcome::RolledBack));
}

/// The same where the supervisor is stopped during the dry try and started again.
#[test]
fn a_supervisor_that_dies_in_the_dry_try_leaves_the_way_back_open() {
    let mut rig = running();
    rig.follow(H);
    rig.exits(Status::Code(0));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry]);
    let (record, head) = (rig.record.clone(), rig.kept.clone());
    let mut rig = rebooted(record, head);
    rig.tick(100);
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    rig.tick(100);
    for height in H + 1..=H + 300 {
        rig.follow_muted(height);
        if let Some(Mode::Silent) = rig.modes().last()
            && rig.signs() > 0
        {
            rig.feed(Event::SealingStarted(Ok(())));
        }
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(!rig.has_halted(), "{:?}", rig.record.halted);
}

/// An own address that one answer names, after one answer without any.
#[test]
fn another_own_address_after_none_is_one_answer() {
    let mut rig = running();
    (92..H).for_each(|height| rig.follow(height));
    rig.head(H + 8);
    rig.surveyed(Survey { me: None, ..survey(H + 8, &[]) });
    rig.head(H + 9);
    rig.surveyed(Survey { me: Some([9; 20]), ..survey(H + 9, &[]) });
    let me = rig.machine.node().unwrap().network.survey.as_ref().unwrap().me;
    assert_ne!(me, Some([9; 20]));
}

#[test]
fn no_time_in_a_header_makes_an_overflow() {
    for far in [u64::MAX, u64::MAX / 1000] {
        for home in [NodeMark::Never, NodeMark::StoppedClean] {
            let mut rig = Rig::new(Policy::default(), home, 90);
            rig.schedule(None);
            for height in 91..H {
                rig.pass(1);
                let timestamp = Some(if height.is_multiple_of(2) { far } else { 0 });
                rig.feed(Event::Head(Head { timestamp, ..told(height) }));
            }
            rig.follow(H);
            assert!(rig.machine.deadline().is_some());
            assert_eq!(rig.machine.view().head, Some(block(H)));
        }
    }
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.head(H + 2);
    let before_head = Duration::from_secs(u64::MAX);
    let own_mark = Some(OwnMark { height: H + 1, age: Duration::ZERO, before_head });
    rig.surveyed(Survey { own_mark, ..survey(H + 2, &[]) });
    assert!(!rig.record.upgrade.as_ref().unwrap().signed);
}

/// A false block at the fork, told once.
#[test]
fn one_answer_does_not_take_the_record_back() {
    let mut rig = upgraded_to(Some(102));
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.follow(102);
    assert_eq!(rig.kept.as_ref().unwrap().block.height, 102);
    let other = Head { block: Block { height: 102, hash: Some(hash(7)) }, ..told(102) };
    rig.pass(1);
    rig.feed(Event::Head(other));
    assert_eq!(rig.kept.as_ref().unwrap().block.height, 102);
}

/// `resolve sign --at` at a head that is not linked to the record.
#[test]
fn an_order_to_sign_on_another_chain_is_refused() {
    let mut rig = after_a_kill();
    let other = |h: u64| Head {
        block: Block { height: h, hash: Some(format!("0xff{h}")) },
        parent: Some(format!("0xff{}", h - 1)),
        ..told(h)
    };
    // Nothing links it: the trace finds other blocks.
    rig.machine.step(rig.now, Event::Head(other(205)));
    rig.surveyed(Survey { hash: "0xff205".to_owned(), ..survey(205, &[]) });
    rig.ask(Request::Sign(Some(Block { height: 205, hash: Some("0xff205".to_owned()) })));
    assert_eq!(rig.signs(), 0, "{:?}", rig.answer());
}

/// One answer with a smaller set.
#[test]
fn one_answer_about_the_set_does_not_open_the_halt_rule() {
    let mut rig = after_a_kill();
    rig.head(200);
    for _ in 0..60 {
        rig.pass(1);
        rig.surveyed(connected(200, &[2, 3]));
    }
    assert_eq!(rig.signs(), 0);
    rig.pass(1);
    let mut lie = connected(200, &[2, 3]);
    lie.sample.set.truncate(3);
    rig.surveyed(lie);
    assert_eq!(rig.signs(), 0);
}

/// A clock that is behind.
#[test]
fn a_head_that_is_old_is_not_fresh_by_a_clock_that_is_behind() {
    let mut rig = after_a_kill();
    // The chain is at 1,050 s; our clock shows 900.
    for height in [201, 210, 220] {
        rig.pass(1);
        let head = Head { timestamp: Some(1_000 + height - 200), heard_at: 900, ..told(height) };
        rig.feed(Event::Head(head));
        rig.surveyed(survey(height, &[]));
    }
    assert_eq!(rig.signs(), 0, "it catches up, 19 blocks in two seconds");
}

/// An upgrade that begins with the node down notes no own address; the way back by hand must not open by that.
#[test]
fn the_way_back_by_hand_where_the_upgrade_began_with_the_node_down() {
    let mut rig = running();
    (92..H).for_each(|height| rig.follow(height));
    // Due, held since no survey of it has come; then the node ends by itself, cleanly.
    rig.head(H);
    assert_eq!(rig.stops(), 0);
    rig.exits(Status::Code(0));
    rig.tick(2);
    rig.head(H);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    rig.tick(40);
    // It seals.
    for height in H + 40..H + 44 {
        rig.follow(height);
    }
    rig.feed(Event::SealingStarted(Ok(())));
    rig.head(H + 44);
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted(), "{:?}", rig.outcome());
    assert!(warns_of_signatures(&rig.record, H + 44));
}

/// One answer that we are not in the set makes no new binary good.
#[test]
fn one_answer_about_the_set_makes_no_binary_good() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls_as(H, hash(H), Some("v2.0.0"));
    for height in H + 1..=H + 22 {
        rig.follow_muted(height);
    }
    rig.pass(60);
    rig.follow_muted(H + 23);
    rig.follow_muted(H + 24);
    assert_eq!(rig.outcome(), None);
    rig.head(H + 25);
    let mut lie = Survey { own_seals: seals(0), oldest: H - 5, own_mark: None, ..survey(H + 25, &[1]) };
    lie.sample.set.remove(0);
    rig.surveyed(lie);
    assert_eq!(rig.outcome(), None);
}

/// `resolve retry --with v2b` after a binary that may have signed: what it signed must not count as the old one's.
#[test]
fn a_second_binary_after_one_that_signed_opens_no_way_back() {
    let mut rig = upgraded();
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    // It seals a block or two and dies before that is certain: not proven.
    rig.head(H + 2);
    rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, 1) });
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted());
    let attempt = rig.record.upgrade.clone().unwrap();
    assert!(attempt.sealing > 0 && !attempt.signed);
    assert!(warns_of_signatures(&rig.record, H + 2));
    // The operator tries another binary, staged as v2 (`resolve retry --with`).
    let mut record = rig.record.clone();
    record.halted = None;
    let ready = Ready::new(version(v2()));
    record.upgrade.as_mut().unwrap().begin_with(ready);
    let head = rig.kept.clone();
    let mut rig = rebooted(record, head);
    rig.tick(100);
    rig.head(H + 2);
    rig.recalls(H, hash(H));
    rig.exits(Status::Code(0));
    rig.tick(100);
    for height in H + 200..=H + 204 {
        rig.head(height);
        rig.surveyed(Survey { oldest: H - 5, ..marked(H + 2, height - H - 2) });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted(), "the old binary runs again: {:?} {:?}", rig.outcome(), rig.modes());
}

/// The restart of a silent node that is stuck is no failure of the new binary.
#[test]
fn a_stuck_restart_costs_no_attempt() {
    let mut rig = upgraded();
    let attempts = |rig: &Rig| rig.record.upgrade.as_ref().map(|a| a.attempt - a.forgiven);
    rig.head(H + 1);
    rig.recalls(H, hash(H));
    rig.surveyed(survey(H + 1, &[]));
    // Its peers are gone: it is made silent. It is not stopped for that: it may be the only one that has the newest block.
    for _ in 0..60 {
        rig.pass(1);
        rig.surveyed(connected(H + 1, &[]));
    }
    assert!(rig.record.silent);
    assert_eq!(rig.modes().len(), 3, "{:?}", rig.modes());
    // Below that block it is started again, to look for peers.
    let stops = rig.stops();
    rig.head(H);
    assert_eq!(rig.stops(), stops + 1);
    rig.exits(Status::Code(0));
    rig.tick(10);
    assert_eq!(attempts(&rig), Some(1));
}

/// The running binary has followed the chain 200 blocks beyond the "fork" of a planned upgrade whose binary is not there.
#[test]
fn a_planned_fork_that_the_binary_has_followed_holds_no_start() {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let v2 = Upgrade { fork_height: Some(110), ..Upgrade::new(name("v2"), H, Origin::Schedule) };
    rig.feed(Event::Schedule(vec![v2.into()]));
    let failure = Failure::new(Class::Permanent, "no binary is staged".to_owned());
    rig.feed(Event::JobDone(JobEnd::Prepared(name("v2"), Err(failure))));
    for height in 91..=310 {
        rig.head(height);
        rig.surveyed(Survey { forks: Some(vec![110]), ..survey(height, &[]) });
    }
    assert_eq!((rig.stops(), rig.kept.as_ref().unwrap().block.height), (0, 310));
    rig.exits(Status::Signal(9));
    for _ in 0..3600 {
        rig.tick(1);
    }
    assert_eq!(rig.modes().len(), 2, "{:?}", rig.notices("start_held").len());
}

/// A new binary has followed the chain beyond another planned fork, and was taken back: the old one lacks that fork.
#[test]
fn a_planned_fork_that_another_binary_has_followed_holds_the_start() {
    let mut rig = upgraded();
    rig.head(H + 1);
    let head = rig.kept.clone().unwrap();
    assert_eq!((head.block.height, head.binary), (H + 1, Some(version(v2()).sha256)));
    let is_held = |current: Version| {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        let record =
            Record { node: NodeMark::StoppedClean, chain: Some(chain()), ..Record::new(current.clone()) };
        rig.machine = Machine::new(Policy { validator: true, ..Policy::default() }, 0, record.clone());
        let planned = Upgrade { fork_height: Some(H), ..Upgrade::new(name("v1"), H - 5, Origin::Schedule) };
        rig.feed(Event::Schedule(vec![planned.into()]));
        rig.feed(Event::Boot(Facts {
            record,
            link: current,
            head: Some(head.clone()),
            has_data: false,
            launched: None,
        }));
        rig.told("start_held")
    };
    assert!(is_held(version(Target::Genesis)));
    assert!(!is_held(version(v2())));
}

#[test]
fn a_head_record_that_is_forgotten_is_made_anew_though_the_chain_stands_still() {
    let mut rig = after_a_kill();
    rig.head(200);
    let confirms = rig.count(|a| *a == Action::Confirm);
    rig.ask(Request::ResetHead);
    assert_eq!(rig.count(|a| *a == Action::Confirm), confirms + 1, "no head comes by itself");
    for _ in 0..3 {
        rig.head(200);
    }
    assert_eq!(rig.kept.as_ref().unwrap().block.height, 200);
}

/// The order to seal was carried out, and its answer was lost.
#[test]
fn an_engine_that_is_on_after_the_order_seals_whatever_the_answer_was() {
    let mut rig = after_a_kill();
    for height in [150, 200, 201] {
        rig.follow(height);
    }
    assert_eq!(rig.signs(), 1);
    rig.feed(Event::SealingStarted(Err(Failure::new(Class::Transient, "timeout".to_owned()))));
    let mining = |height: u64, survey: Survey| Survey {
        mining: Some(true),
        own_mark: marked(height, 1).own_mark,
        ..survey
    };
    for height in 202..210 {
        rig.head(height);
        rig.surveyed(mining(height, survey(height, &[])));
    }
    assert!(!rig.record.silent && rig.told("sealing"));
    // Its peers go.
    for _ in 0..60 {
        rig.pass(1);
        rig.surveyed(mining(209, connected(209, &[])));
    }
    assert!(rig.count(|a| *a == Action::StopSealing) > 0);
}

/// The same by a plain `resolve retry`: the second start after it is taken for the first of the new binary.
#[test]
fn after_a_retry_the_second_start_is_not_the_first() {
    let rig = upgraded();
    let mut record = rig.record.clone();
    // As after a halt and `resolve retry`; the first tries have shown nothing.
    let attempt = record.upgrade.as_mut().unwrap();
    attempt.begin_anew();
    assert!(attempt.dry_run && attempt.sealing > 0);
    let head = rig.kept.clone();
    let mut rig = rebooted(record, head);
    rig.tick(100);
    // The first start after it: it seals, and crashes before that is certain.
    rig.follow(H + 100);
    rig.follow(H + 101);
    rig.follow(H + 102);
    rig.feed(Event::SealingStarted(Ok(())));
    rig.head(H + 103);
    rig.surveyed(Survey { oldest: H - 5, ..marked(H + 103, 0) });
    assert!(!rig.record.upgrade.as_ref().unwrap().signed);
    rig.exits(Status::Signal(11));
    rig.tick(60);
    for height in H + 160..=H + 164 {
        rig.head(height);
        rig.surveyed(Survey {
            oldest: H - 5,
            own_mark: marked(H + 103, height - H - 103).own_mark,
            ..survey(height, &[1])
        });
    }
    rig.recalls(H, hash(5));
    rig.recalls(H, hash(5));
    rig.exits(Status::Code(0));
    assert!(rig.has_halted(), "the old binary runs again: {:?} {:?}", rig.outcome(), rig.modes());
}

/// It learns of a block that the others have beyond its own at a new connection only.
#[test]
fn while_a_quorum_stands_still_together_one_peer_after_the_other_is_connected_anew() {
    let greeted = |rig: &Rig| rig.count(|a| matches!(a, Action::Greet { .. }));
    let stand = |rig: &mut Rig, peers: &[u8], seconds: u64| {
        for _ in 0..seconds {
            rig.tick(1);
            rig.surveyed(connected(95, peers));
        }
    };
    let mut rig = running();
    (92..=95).for_each(|height| rig.follow(height));
    stand(&mut rig, &[2, 3], 59);
    assert_eq!(greeted(&rig), 0);
    stand(&mut rig, &[2, 3], 2);
    assert_eq!(greeted(&rig), 1);
    stand(&mut rig, &[2, 3], 62);
    assert_eq!(rig.count(|a| *a == Action::Greet { validators: vec![[2; 20], [3; 20]], turn: 1 }), 1);

    let mut rig = running();
    (92..=95).for_each(|height| rig.follow(height));
    stand(&mut rig, &[2], 90);
    assert_eq!(greeted(&rig), 0, "too few are there to go on: the chain waits for them");
}

/// The old binary has made a block of its own at the fork; power is lost after its stop was recorded and before its end
/// was seen.
#[test]
fn an_own_block_at_the_fork_is_left_behind_where_the_end_of_the_old_node_was_not_seen() {
    let mut rig = running_to(Some(H + 1));
    rig.follow(H);
    assert_eq!(rig.stops(), 1, "the next block needs the new binary");
    let record = rig.record.clone();
    let own = HeadRecord { block: block(H + 1), recent: vec![block(H)], ..rig.kept.clone().unwrap() };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(own));
    rig.tick(60);
    assert_eq!(rig.kept.as_ref().unwrap().block.height, H, "what the network decides there takes its place");
}

/// It was counted by the old binary, and a silent node waits for what was final: not for that.
#[test]
fn no_silent_node_waits_for_an_own_block_at_the_fork() {
    let own = HeadRecord { block: block(H + 1), recent: vec![block(H)], ..running_to(None).kept.unwrap() };
    let record = Record { node: NodeMark::StoppedUnclean, ..Record::new(version(Target::Genesis)) };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(own));
    rig.tick(60);
    let goal = |rig: &Rig| rig.machine.node().unwrap().network.returning.goal.clone();
    assert_eq!((rig.modes(), goal(&rig)), (vec![Mode::Silent], Some(block(H + 1))));
    rig.schedule(Some(H + 1));
    rig.machine.departure.goal = Some(block(H + 1));
    rig.machine.leave_own_block_at_the_fork();
    assert_eq!((goal(&rig), &rig.machine.departure.goal), (Some(block(H)), &Some(block(H))));
}
