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
        record [genesis Running]                                                    → backing-off, backoff in 50ms
        record [genesis Running | v2 Stopping attempt=0]                            → running, consider again in 50ms
        record [genesis Running | v2 Stopping attempt=0 asked]                      → stopping-for-upgrade, still stopping in 60s
        record [genesis StoppedClean | v2 Stopped attempt=0 asked]                  → backing-off, backoff in 50ms
        record [genesis StoppedClean | v2 BackedUp attempt=0 asked backup=v2-1]     → backing-off, backoff in 50ms
        record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]            → backing-off, backoff in 50ms
        record [upgrades/v2 Running | v2 applied]                                   → probation, consider again in 50ms
    "#]].assert_eq(&told);
}

#[test]
fn a_journal_that_stays_unwritable_is_no_reason_to_stop_a_node_or_to_spin() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.only(Input::Head(100)).only(Input::Ok).forget();
    story.only(Input::Fail(Class::Environment)).only(Input::Head(101)).only(after(65)).only(Input::Ok);
    story.check(&expect![[r#"
        record failed (Environment)  → error journal_not_written: it failed
        (+50.0ms) pass               → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
    "#]]);
}

const NO: Input = Input::Fail(Class::Environment);

/// The node is stopped for `v2`, and from then on no record is written.
fn stopped_on_a_broken_disk(policy: Policy, upgrade: Upgrade) -> Story {
    let mut story = Story::running(policy, vec![]);
    story.then(Input::Plan(vec![upgrade])).blocks(100, 101).forget();
    story.only(Input::Exit(Status::Code(0))).only(Input::Release);
    story
}

#[test]
fn a_node_is_not_down_for_want_of_a_record() {
    let mut story = stopped_on_a_broken_disk(policy(), v2());
    for input in [NO, Input::Tick, NO, Input::Tick, NO, Input::Tick, NO, NO, Input::Release, NO, Input::Ok] {
        story.only(input);
    }
    story.check(&expect![[r#"
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+50.0ms) tick: backoff      → record [genesis Running | v2 Trying attempt=1 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+100.0ms) tick: backoff     → record [genesis Running | v2 Trying attempt=1 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+200.0ms) tick: backoff     → record [genesis Running | v2 Trying attempt=1 asked]
        record failed (Environment)  → error journal_not_written: it failed
                                     → record [genesis StoppedClean]
        record failed (Environment)  → error journal_not_written: it failed
                                     → error upgrade_put_off (history): name=v2 in=60s the journal cannot be written; the old binary goes on until then
                                     → await release
        release                      → record [genesis Running]
        record failed (Environment)  → error journal_not_written: it failed
                                     → error started_unrecorded (history): the node is started all the same; its record is written as soon as that is possible
                                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
    let view = story.world.machine.as_ref().unwrap().view();
    assert_eq!(view.symptoms[0].name, "journal_not_written");
    // The upgrade waits for the journal, and for its time.
    story
        .only(after(2))
        .only(NO)
        .forget()
        .only(after(4))
        .only(Input::Ok)
        .then(Input::Head(102))
        .then(after(62));
    story.then(after(1)).check(&expect![[r#"
        (+3.2s) pass                 → record [genesis Running]
        recorded                     → info journal_written: the record is durable again, after 7 failures
        (+55.2s) pass                → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=102
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn what_runs_without_a_record_is_adopted() {
    let mut story = stopped_on_a_broken_disk(policy(), v2());
    story.all_fail();
    story.forget().only(Input::Die { effect: false, node: Fate::Rises }).then(Input::Boot);
    story.then(after(1)).then(Input::Head(103)).check(&expect![[r#"
        (+350.0ms) boot              → info adopted (history): pid=1 version=genesis age=0ns
                                     → adopt
                                     → record [genesis Running]
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        (+1.0s) head 103             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=103
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn what_has_run_without_a_record_has_ended_unseen() {
    let mut story = stopped_on_a_broken_disk(Policy { validator: true, ..policy() }, v2());
    story.all_fail();
    story.forget().only(Input::Die { effect: false, node: Fate::Dies }).then(Input::Boot);
    story.check(&expect![[r#"
        (+4.0s) boot                 → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis silent
        spawned                      → info node_started: pid=1 version=genesis mode=silent
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
    "#]]);
}

#[test]
fn a_validator_that_is_started_without_a_record_is_silent() {
    let mut story = Story::new(Policy { validator: true, ..policy() }, vec![]);
    story.only(Input::Boot).only(Input::Release);
    for input in [NO, Input::Tick, NO, Input::Tick, NO, Input::Tick, NO, Input::Ok] {
        story.only(input);
    }
    story.check(&expect![[r#"
        boot                         → await release
        release                      → record [genesis Running]
        record failed (Environment)  → error journal_not_written: it failed
        (+50.0ms) tick: backoff      → record [genesis Running]
        record failed (Environment)  → error journal_not_written: it failed
        (+100.0ms) tick: backoff     → record [genesis Running]
        record failed (Environment)  → error journal_not_written: it failed
        (+200.0ms) tick: backoff     → record [genesis Running]
        record failed (Environment)  → error journal_not_written: it failed
                                     → error started_unrecorded (history): the node is started all the same; its record is written as soon as that is possible
                                     → spawn genesis silent
        spawned                      → info node_started: pid=1 version=genesis mode=silent
    "#]]);
    let silent = story.world.machine.as_ref().unwrap().view().silent;
    assert_eq!(silent.as_deref(), Some("its start is on no record, since the journal cannot be written"));
}

#[test]
fn a_record_that_failed_and_is_on_disk_all_the_same_is_told_from_the_launch_without_one() {
    let mut story = Story::new(policy(), vec![]);
    story.only(Input::Boot).only(Input::Release);
    let late = Input::FailLate(Class::Environment);
    for input in [NO, Input::Tick, NO, Input::Tick, NO, Input::Tick, late, Input::Ok] {
        story.only(input);
    }
    story.only(Input::Die { effect: false, node: Fate::Lingers }).forget().then(Input::Boot);
    story.check(&expect![[r#"
        boot                         → info adopted (history): pid=1 version=genesis age=0ns
                                     → adopt
                                     → record [genesis Running]
    "#]]);
    assert_eq!(story.world.record.launch, story.world.launched.unwrap());
}

#[test]
fn at_the_fork_the_old_binary_waits_for_the_journal() {
    let mut story = stopped_on_a_broken_disk(policy(), Upgrade { fork_height: Some(H + 2), ..v2() });
    for input in [NO, Input::Tick, NO, Input::Tick, NO, Input::Tick, NO, Input::Tick] {
        story.only(input);
    }
    story.forget().then(Input::Ok).check(&expect![[r#"
        recorded                     → info journal_written: the record is durable again, after 4 failures
                                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
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
        (+50.0ms) pass               → record [upgrades/v2 Running | v2 applied]
        recorded                     → info journal_written: the record is durable again, after 1 failures
                                     → info upgrade_ended (history): name=v2 outcome=applied blocks=29 lived=60s head=130
                                     → after the upgrade to v2
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
