//! When a validator stops for the way back that the operator has ordered.

use super::*;
use crate::machine::{Back, Failure, Job};

fn back(force: bool) -> Request {
    Request::Rollback(Back { to: version(Target::Genesis), backup: None, force })
}

#[test]
fn it_waits_for_its_turn_unless_the_operator_forces_it() {
    // Our slot was open up to block 107, and is again at 192.
    for (force, goes_at, mode) in [(false, 192, Mode::Full), (true, 109, Mode::Silent)] {
        let mut rig = upgraded();
        rig.recalls(H, hash(H));
        for height in H + 1..=109 {
            rig.follow(height);
        }
        let stops = rig.stops();
        rig.ask(back(force));
        assert_eq!(rig.answer().unwrap().contains("in its turn"), !force);
        let gone = (109..200).find(|height| {
            if *height > 109 {
                rig.follow(*height);
            }
            rig.stops() > stops
        });
        assert_eq!(gone, Some(goes_at), "{:?}", rig.machine.view().back);
        assert!(rig.said.iter().rev().take(4).any(|a| *a == Action::Unpeer), "it leaves its peers first");
        rig.exits(Status::Code(0));
        // A silent node is given something to sync.
        rig.tick(10);
        assert_eq!((rig.outcome(), rig.modes().last()), (Some(Outcome::RolledBack), Some(&mode)));
        assert_eq!(rig.record.current, version(Target::Genesis));
    }
}

#[test]
fn an_order_that_waits_for_its_turn_can_be_cancelled() {
    let mut rig = upgraded();
    rig.recalls(H, hash(H));
    for height in H + 1..=109 {
        rig.follow(height);
    }
    rig.ask(Request::CancelRollback);
    assert!(rig.answer().unwrap_err().contains("no rollback is ordered"));
    let stops = rig.stops();
    rig.ask(back(false));
    rig.answer().unwrap();
    rig.follow(110);
    assert!(rig.record.back.is_some());
    rig.ask(Request::CancelRollback);
    assert!(rig.answer().unwrap().contains("is cancelled"));
    // Its next turn goes by.
    for height in 111..=215 {
        rig.follow(height);
    }
    assert_eq!((rig.stops(), &rig.record.back, rig.machine.view().back), (stops, &None, None));
}

#[test]
fn no_backup_is_removed_while_an_order_waits_that_may_need_it() {
    for is_begun in [true, false] {
        let mut rig = upgraded();
        rig.recalls(H, hash(H));
        for height in H + 1..=180 {
            rig.follow(height);
        }
        assert_eq!(rig.outcome(), Some(Outcome::Applied));
        rig.feed(Event::Policy(Policy { validator: true, backup: true, ..Policy::default() }));
        let tends = |rig: &Rig| rig.count(|a| matches!(a, Action::Start(Job::Tend { .. })));
        if is_begun {
            rig.feed(Event::BackupsToTend);
        }
        let before = tends(&rig);
        assert_eq!(before > 0, is_begun);
        rig.ask(back(false));
        rig.feed(Event::BackupsToTend);
        assert_eq!(rig.count(|a| *a == Action::CancelJob) > 0, is_begun, "it is ended for the order");
        if is_begun {
            let cancelled = Failure::new(Class::Cancelled, "cancelled");
            rig.feed(Event::JobDone(JobEnd::Tended(Err(cancelled))));
        }
        for height in 181..=190 {
            rig.follow(height);
        }
        assert!(rig.machine.view().back.is_some());
        assert_eq!(tends(&rig), before, "not while it waits for its turn");
    }
}

#[test]
fn status_says_what_it_waits_for_and_an_order_that_comes_too_late_is_dropped() {
    let mut rig = upgraded_to(Some(150));
    rig.recalls(H, hash(H));
    for height in H + 1..=109 {
        rig.follow(height);
    }
    let stops = rig.stops();
    rig.ask(back(false));
    rig.answer().unwrap();
    rig.follow(110);
    let view = rig.machine.view().back.unwrap();
    assert!(view.why.contains("turn: ") && view.why.contains("192"), "{view:?}");
    assert_eq!(
        rig.record.back.as_ref().map(|order| &order.to.target),
        Some(&Target::Genesis),
        "it is durable"
    );
    // A quiet stretch around the fork keeps it as well, and then there is no way back.
    for height in 111..=149 {
        rig.follow(height);
    }
    assert_eq!((rig.stops(), &rig.record.back, rig.machine.view().back), (stops, &None, None));
    assert!(rig.notices("rollback_refused")[0].text.contains("fork"));
    rig.ask(back(false));
    assert!(rig.answer().unwrap_err().contains("at or past the fork"));
}

#[test]
fn the_binary_that_runs_is_not_upgraded_to_unless_the_operator_insists() {
    for insisted in [false, true] {
        let mut rig = Rig::new(Policy::default(), NodeMark::Never, 90);
        rig.feed(Event::Schedule(vec![Upgrade::new(name("v2"), H, Origin::Schedule).into()]));
        let version = Version { target: v2(), ..version(Target::Genesis) };
        let ready = Ready { insisted, ..Ready::new(version) };
        rig.feed(Event::JobDone(JobEnd::Prepared(name("v2"), Ok(ready))));
        rig.follow(91);
        rig.follow(H);
        assert_eq!((rig.stops() > 0, rig.told("upgrade_unfit")), (insisted, !insisted));
        let why = rig.machine.view().planned.first().map(|plan| plan.why.clone()).unwrap_or_default();
        assert!(insisted || why.contains("that of genesis, which runs"), "{why}");
    }
}
