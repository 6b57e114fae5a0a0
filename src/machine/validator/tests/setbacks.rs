//! Faults that put an upgrade off, and the cost of a flood of false heads.

use super::*;

/// `v2` and `v3` are due at once and ready again as soon as they may be; each new binary is killed in its dry try. How
/// often the validator is stopped in so many seconds.
fn stops_for_what_is_killed(seconds: u64) -> usize {
    let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
    let names = ["v2", "v3"];
    let planned = |at: usize| Upgrade::new(name(names[at]), H - 5 + at as u64, Origin::Schedule);
    rig.feed(Event::Schedule(vec![planned(0).into(), planned(1).into()]));
    let (mut height, mut stops) = (91, 0);
    for _ in 0..seconds {
        for of in names {
            let version = version(Target::Upgrade(name(of)));
            let ready = Ready::new(version);
            rig.feed(Event::JobDone(JobEnd::Prepared(name(of), Ok(ready))));
        }
        height += 1;
        rig.head(height);
        rig.surveyed(Survey { mining: Some(true), ..survey(height, &[]) });
        let more = rig.stops();
        rig.said.clear();
        if more > 0 {
            stops += more;
            rig.exits(Status::Code(0));
            rig.head(height);
            rig.exits(Status::Signal(9));
            rig.tick(6);
            height += 6;
        }
    }
    stops
}

#[test]
fn two_upgrades_that_are_put_off_by_turns_are_put_off_ever_longer() {
    let stops = stops_for_what_is_killed(20_000);
    assert!((10..30).contains(&stops), "{stops} stops in {} cycles of turns", 20_000 / 96);
}

#[test]
fn a_new_binary_that_is_killed_after_an_unclean_end_of_the_old_one_is_tried_again() {
    let mut rig = running();
    (92..H).for_each(|height| rig.follow(height));
    rig.head(H);
    // The kernel kills the old node for want of memory while its upgrade is due, and then the new one.
    rig.exits(Status::Signal(9));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry]);
    rig.exits(Status::Signal(9));
    (0..5).for_each(|_| rig.tick(1));
    assert_eq!(rig.modes(), [Mode::Full, Mode::Dry, Mode::Dry], "{:?}", rig.record.halted);
    assert!(rig.told("environment_fault"));
}

#[test]
fn a_flood_of_first_heads_makes_no_flood_of_questions() {
    let record = Record { chain: Some(chain()), ..Record::new(version(Target::Genesis)) };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, None);
    let unlinked = |n: u64| Head { parent: Some(hash(0)), ..told(n * 7) };
    rig.pass(1);
    rig.feed(Event::Head(unlinked(1)));
    // None of them is answered.
    let asked = (2..1000).flat_map(|n| rig.machine.step(rig.now, Event::Head(unlinked(n))));
    assert_eq!(asked.filter(|action| *action == Action::Identify).count(), 1);
}

#[test]
fn a_node_that_answers_later_than_it_is_asked_again_vouches_for_its_head_all_the_same() {
    let policy = Policy { validator: true, poll_interval: Duration::from_millis(100), ..Policy::default() };
    let record = Record { chain: Some(chain()), ..Record::new(version(Target::Genesis)) };
    let mut rig = Rig::boot(policy, record, None);
    let (mut due, mut height) = (std::collections::VecDeque::new(), 100);
    for tenth in 0..100_u64 {
        rig.now += Duration::from_millis(100);
        let mut events = vec![Event::Tick];
        if tenth % 10 == 0 {
            height += 1;
            events.push(Event::Head(told(height)));
        }
        // Each question is answered after 300 ms.
        while due.front().is_some_and(|at| *at + 3 <= tenth) {
            due.pop_front();
            events.push(Event::Identified(Ok(chain())));
        }
        events.reverse();
        while let Some(event) = events.pop() {
            for action in rig.machine.step(rig.now, event) {
                match action {
                    Action::Identify => due.push_back(tenth),
                    Action::Recall { height } => {
                        let answer = Recollection { block: block(height), client_version: None, forks: None };
                        events.push(Event::Recalled(Ok(answer)));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(rig.machine.view().head_record.is_some(), "no head has counted up to block {height}");
}
