//! The supervisor is killed at every point of an upgrade, and the journal cannot be written at any.

use super::transcript::{Story, after, show};
use super::world::{Input, World};
use super::*;
use expect_test::expect;
use std::fmt::Write as _;

/// Every prompt action of a whole upgrade with backup and hook, with the world just before its effect.
fn points(upgrade: Upgrade) -> Vec<(String, World)> {
    let mut world = World::new(Policy { backup: true, ..policy() }, vec![upgrade]);
    world.hook = true;
    let mut points = Vec::new();
    let note = |world: &World, _: &Input| {
        if let Some(action) = &world.pending {
            points.push((show(action), world.clone()));
        }
    };
    world.settle(H + 50, note).unwrap();
    points
}

#[test]
fn killed_at_every_point() {
    let mut told = String::new();
    for (point, world) in points(v2()) {
        for (effect, word) in [(false, "before"), (true, "after")] {
            for fate in [Fate::Dies, Fate::Lingers, Fate::Rises] {
                let mut world = world.clone();
                world.step(&Input::Die { effect, node: fate }).unwrap();
                world.settle(H + 200, |_, _| {}).unwrap_or_else(|law| panic!("{word} {point}: {law}"));
                let outcome = world.outcome_in_a_word();
                assert_eq!(outcome, "upgrades/v2 runs", "{word} {point}");
            }
            let recovery = recovery_after(&world, effect);
            writeln!(told, "{word:<6} {point:<75} → {recovery:?}").unwrap();
        }
    }
    expect![[r#"
        before record [genesis Running]                                                    → Start
        after  record [genesis Running]                                                    → Start
        before spawn genesis                                                               → Start
        after  spawn genesis                                                               → Start
        before inspect upgrades/v2                                                         → Start
        after  inspect upgrades/v2                                                         → Start
        before record [genesis Running | v2 Stopping attempt=0]                            → Start
        after  record [genesis Running | v2 Stopping attempt=0]                            → Forget
        before record [genesis Running | v2 Stopping attempt=0 asked]                      → Forget
        after  record [genesis Running | v2 Stopping attempt=0 asked]                      → Forget
        before record [genesis StoppedClean | v2 Stopped attempt=0 asked]                  → Forget
        after  record [genesis StoppedClean | v2 Stopped attempt=0 asked]                  → Backup
        before record [genesis StoppedClean | v2 BackedUp attempt=0 asked backup=v2-1]     → Backup
        after  record [genesis StoppedClean | v2 BackedUp attempt=0 asked backup=v2-1]     → Hook
        before record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]            → Hook
        after  record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]            → Switch
        before link upgrades/v2                                                            → Switch
        after  link upgrades/v2                                                            → Try
        before spawn upgrades/v2                                                           → Try
        after  spawn upgrades/v2                                                           → Try
        before record [upgrades/v2 Running | v2 applied]                                   → Try
        after  record [upgrades/v2 Running | v2 applied]                                   → Start
    "#]]
    .assert_eq(&told);
}

fn recovery_after(world: &World, effect: bool) -> Recovery {
    let mut world = world.clone();
    world.step(&Input::Die { effect, node: Fate::Dies }).unwrap();
    recover(&world.record, &version(&world.link))
}

/// Recovery may itself be killed: twice at any two points is as good as once.
#[test]
fn killed_at_every_two_points() {
    for (_, world) in points(v2()) {
        let mut world = world.clone();
        world.step(&Input::Die { effect: true, node: Fate::Dies }).unwrap();
        let mut again = Vec::new();
        let note = |world: &World, _: &Input| {
            if world.pending.is_some() {
                again.push(world.clone());
            }
        };
        world.settle(H + 200, note).unwrap();
        for mut world in again {
            world.step(&Input::Die { effect: true, node: Fate::Dies }).unwrap();
            world.settle(H + 300, |_, _| {}).unwrap();
            assert_eq!(world.outcome_in_a_word(), "upgrades/v2 runs");
        }
    }
}

#[test]
fn the_journal_cannot_be_written_at_any_point() {
    let mut told = String::new();
    for (point, mut world) in points(v2()) {
        if !matches!(world.pending, Some(Action::Record(_))) {
            continue;
        }
        world.step(&Input::Fail(Class::Environment)).unwrap();
        let state = world.machine.as_ref().unwrap().view().state;
        let (at, why) = world.machine.as_ref().unwrap().deadline().unwrap();
        let wait = at.duration_since(world.now);
        writeln!(told, "{point:<75} → {state}, {why} in {wait:?}").unwrap();
        world.settle(H + 200, |_, _| {}).unwrap_or_else(|law| panic!("{point}: {law}"));
        assert_eq!(world.outcome_in_a_word(), "upgrades/v2 runs", "{point}");
    }
    expect![[r#"
        record [genesis Running]                                                    → backing-off, backoff in 5s
        record [genesis Running | v2 Stopping attempt=0]                            → running, stands in 5.1s
        record [genesis Running | v2 Stopping attempt=0 asked]                      → stopping-for-upgrade, still stopping in 60s
        record [genesis StoppedClean | v2 Stopped attempt=0 asked]                  → backing-off, backoff in 5s
        record [genesis StoppedClean | v2 BackedUp attempt=0 asked backup=v2-1]     → backing-off, backoff in 5s
        record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]            → backing-off, backoff in 5s
        record [upgrades/v2 Running | v2 applied]                                   → probation, stands in 100ms
    "#]].assert_eq(&told);
}

#[test]
fn a_journal_that_stays_unwritable_is_no_reason_to_stop_a_node_or_to_spin() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.only(Input::Head(100)).only(Input::Ok).forget();
    story.only(Input::Fail(Class::Environment)).only(Input::Head(101)).only(after(65)).only(Input::Ok);
    story.check(&expect![[r#"
        record failed (Environment)  → error journal_not_written: it failed
        (+60.0s) pass                → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
    "#]]);
}

#[test]
fn a_proof_that_cannot_be_recorded_is_recorded_later() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 101).then(Input::Exit(Status::Code(0))).blocks(101, 130).forget();
    story.only(after(60)).only(Input::Fail(Class::Environment)).blocks(131, 132).only(after(65));
    story.check(&expect![[r#"
        (+60.0s) pass                → record [upgrades/v2 Running | v2 applied]
        record failed (Environment)  → error journal_not_written: it failed
        (+60.0s) pass                → record [upgrades/v2 Running | v2 applied]
    "#]]);
}

#[test]
fn frozen_at_the_fork_there_is_only_the_way_on() {
    let upgrade = Upgrade { fork_height: Some(H + 1), ..v2() };
    for (point, world) in points(upgrade) {
        let mut world = world.clone();
        let begun = world.record.upgrade.is_some();
        world.step(&Input::Die { effect: true, node: Fate::Dies }).unwrap();
        let recovery = recover(&world.record, &version(&world.link));
        assert!(!begun || recovery != Recovery::Forget, "{point}");
        world.settle(H + 200, |_, _| {}).unwrap_or_else(|law| panic!("{point}: {law}"));
        assert_eq!(world.outcome_in_a_word(), "upgrades/v2 runs", "{point}");
    }
}
