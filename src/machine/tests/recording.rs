//! A record is on its way to the disk while a node runs: everything else goes on.

use super::transcript::{CLEAN, Story, after};
use super::world::{Input, World};
use super::*;
use expect_test::expect;

/// The record of the stop for `v2` is on its way.
fn stopping_soon() -> Story {
    let mut story = Story::running(policy(), vec![v2()]);
    story.only(Input::Head(H)).only(Input::Ok).forget();
    story
}

fn ask(request: Request) -> Input {
    Input::Ask(request)
}

#[test]
fn an_operators_stop_does_not_wait_for_it() {
    let mut story = stopping_soon();
    story.only(ask(Request::Stop)).only(Input::Ok).then(CLEAN).check(&expect![[r#"
        ask stop                     → answer: stopping the node, then ending
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → exit Ok: asked to stop
    "#]]);
}

#[test]
fn a_node_that_ends_meanwhile_is_judged_when_the_disk_has_answered() {
    let mut story = stopping_soon();
    story.only(Input::Exit(Status::Code(1))).only(Input::Ok).then(Input::Release).check(&expect![[r#"
        exited, exit code 1          → warn node_exited: status="exit code 1" after=60s
        recorded                     → await release
        release                      → warn unclean_stop: status="exit code 1" the head may have gone back
                                     → record [genesis StoppedUnclean]
        recorded                     → inspect upgrades/v2
        inspected                    → record [genesis StoppedUnclean | v2 Stopped attempt=0 unclean]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → record [genesis Running | v2 Trying attempt=1 unclean]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
    let mut story = stopping_soon();
    story.only(Input::Exit(Status::Code(1))).only(Input::Fail(Class::Environment)).then(Input::Release);
    story.check(&expect![[r#"
        exited, exit code 1          → warn node_exited: status="exit code 1" after=60s
        record failed (Environment)  → error journal_not_written: it failed
                                     → await release
        release                      → warn unclean_stop: status="exit code 1" the head may have gone back
                                     → record [genesis StoppedUnclean]
        recorded                     → info journal_written: the record is durable again, after 1 failures
                                     → inspect upgrades/v2
        inspected                    → record [genesis StoppedUnclean | v2 Stopped attempt=0 unclean]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → record [genesis Running | v2 Trying attempt=1 unclean]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn a_node_waits_for_a_disk_that_hangs_and_people_know_it() {
    let mut story = stopping_soon();
    story.only(Input::Exit(Status::Code(1))).only(after(61)).only(Input::Ok).check(&expect![[r#"
        exited, exit code 1          → warn node_exited: status="exit code 1" after=60s
        (+60.0s) pass                → warn journal_hangs: the disk does not take the last record; no node is started before it has
        recorded                     → await release
    "#]]);
}

#[test]
fn heads_count_and_no_second_record_is_sent() {
    let mut story = stopping_soon();
    story.only(Input::Head(H + 1)).only(after(10)).only(Input::Head(H + 2)).only(Input::Ok);
    assert_eq!(story.world.head_record.as_ref().map(|record| record.block.height), Some(H + 2));
    story.check(&expect![[r#"
        (+10.0s) recorded            → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn what_needs_all_on_disk_is_refused_and_what_has_begun_is_known() {
    let mut story = stopping_soon();
    let requests =
        [Request::Reexec, Request::Detach, Request::ResetHead, Request::Restart, Request::Cancel(name("v2"))];
    for request in requests {
        story.only(ask(request));
    }
    story.check(&expect![[r#"
        ask reexec                   → refuse: a record is on its way to the disk; try again in a moment
        ask detach                   → refuse: a record is on its way to the disk; try again in a moment
        ask resethead                → refuse: a record is on its way to the disk; try again in a moment
        ask restart                  → refuse: upgrade v2 is under way
        ask cancel(name("v2"))       → refuse: upgrade v2 has begun and cannot be cancelled
    "#]]);
}

#[test]
fn what_was_applied_is_announced_though_its_node_is_being_stopped() {
    let mut story = Story::running(Policy { probation_blocks: 1, ..policy() }, vec![v2()]);
    story.then(Input::Head(H)).then(CLEAN).then(Input::Head(H)).then(after(61)).forget();
    story.only(Input::Head(H + 1)).only(ask(Request::Stop)).only(Input::Ok).then(CLEAN).check(&expect![[r#"
        (+61.0s) head 101            → record [upgrades/v2 Running | v2 applied]
        ask stop                     → answer: stopping the node, then ending
                                     → SIGTERM
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied blocks=1 lived=61s head=101
                                     → after the upgrade to v2
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [upgrades/v2 StoppedClean | v2 applied]
        recorded                     → exit Ok: asked to stop
    "#]]);
}

/// The node has ended for `upgrade`, and its backup has begun beside the record of that.
fn backing_up(upgrade: Upgrade) -> Story {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![upgrade]);
    story.then(Input::Head(H)).only(CLEAN).forget().only(Input::Release);
    story
}

/// P3: a sync takes as long as the disk likes, and the node is down meanwhile.
#[test]
fn between_the_old_node_and_the_new_one_the_node_waits_for_one_record_alone() {
    for backup in [false, true] {
        let mut world = World::new(Policy { backup, ..policy() }, vec![v2()]);
        let (mut alone, mut beside) = (0, 0);
        let count = |world: &World, _: &Input| {
            let is_down = world.process.is_none() && world.record.upgrade.is_some();
            if is_down && matches!(world.pending, Some(Action::Record(_))) {
                *(if world.job.is_some() { &mut beside } else { &mut alone }) += 1;
            }
        };
        world.settle(H + 50, count).unwrap();
        assert_eq!((alone, beside), (1, usize::from(backup)), "with a backup: {backup}");
    }
}

#[test]
fn a_backup_begins_beside_the_record_of_the_stop() {
    let mut story = backing_up(v2());
    story.only(Input::Ok).only(Input::Done).check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
    "#]]);
}

#[test]
fn a_record_that_fails_beside_a_backup_is_written_again_beside_it() {
    let mut story = backing_up(v2());
    let failed = Input::Fail(Class::Environment);
    story.only(failed).only(Input::Tick).only(Input::Ok).only(Input::Done).check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+50.0ms) tick: backoff      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → info journal_written: the record is durable again, after 1 failures
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
    "#]]);
}

#[test]
fn a_backup_that_ends_before_its_stop_is_on_record_is_recorded_with_the_switch() {
    let mut story = backing_up(v2());
    story.only(Input::Fail(Class::Environment)).then(Input::Done).check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
        recorded                     → info journal_written: the record is durable again, after 1 failures
                                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

/// No more is copied than the disk lets us do with it, and no node starts beside a copy.
#[test]
fn without_a_journal_the_backup_ends_and_the_old_node_runs() {
    let mut story = backing_up(v2());
    for _ in 0..3 {
        story.only(Input::Fail(Class::Environment)).only(Input::Tick);
    }
    story.only(Input::Fail(Class::Environment)).only(Input::Failed(Class::Cancelled)).all_fail();
    story.check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+50.0ms) tick: backoff      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+100.0ms) tick: backoff     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        (+200.0ms) tick: backoff     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
                                     → cancel job
        failed(cancelled)            → record [genesis StoppedClean]
    "#]]);
    assert_eq!(story.world.outcome_in_a_word(), "genesis runs");
}

#[test]
fn at_the_fork_the_backup_goes_on_without_a_journal() {
    let mut story = backing_up(Upgrade { fork_height: Some(H + 1), ..v2() });
    for _ in 0..6 {
        story.only(Input::Fail(Class::Environment)).only(Input::Tick);
    }
    assert!(!story.take().contains("cancel job"));
    story.only(Input::Ok).then(Input::Done);
    assert_eq!(story.world.outcome_in_a_word(), "upgrades/v2 runs");
}

#[test]
fn at_the_fork_a_stop_that_is_on_no_record_is_recorded_before_the_next_backup() {
    let mut story = backing_up(Upgrade { fork_height: Some(H + 1), ..v2() });
    story.only(Input::Fail(Class::Environment)).only(Input::Failed(Class::Environment));
    story.only(Input::Tick).only(Input::Ok).check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        failed(environment)          → error upgrade_set_back (history): backup: it failed; the chain is at the fork, so it is tried again in 930.0ms
        (+930.0ms) tick: backoff     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → info journal_written: the record is durable again, after 1 failures
                                     → back up
    "#]]);
}

#[test]
fn an_order_to_go_back_is_not_passed_by_the_switch_for_want_of_a_journal() {
    for fork_height in [None, Some(H + 1)] {
        let mut story = backing_up(Upgrade { fork_height, ..v2() });
        for _ in 0..3 {
            story.only(Input::Fail(Class::Environment)).only(Input::Tick);
        }
        story.only(Input::Fail(Class::Environment));
        let order = Back { to: story.world.record.current.clone(), backup: None, force: true };
        story.only(ask(Request::Rollback(order))).only(Input::Done).then(Input::Ok);
        let told = story.take();
        assert!(!told.contains("spawn upgrades/v2"), "{told}");
        assert_eq!(story.world.outcome_in_a_word(), "genesis runs", "{told}");
    }
}

/// The backup is of a node that has run on since, or of none: the stop is decided anew, and its end was not seen.
#[test]
fn after_a_crash_beside_a_backup_the_stop_was_not_finished() {
    for is_done in [false, true] {
        let mut story = backing_up(v2());
        story.only(Input::Fail(Class::Environment));
        if is_done {
            story.only(Input::Done);
        }
        story.forget().only(Input::Die { effect: false, node: Fate::Dies }).then(Input::Boot);
        story.check(&expect![[r#"
            boot                         → warn recovering (history): the stop for the upgrade was not finished; starting the old binary
                                         → await release
            release                      → record [genesis Running]
            recorded                     → spawn genesis
            spawned                      → info node_started: pid=1 version=genesis
                                         → info upgrade_known: name=v2 height=100 from="schedule"
                                         → prepare v2
            done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        "#]]);
        story.world.settle(H + 100, |_, _| {}).unwrap();
        assert_eq!(story.world.outcome_in_a_word(), "upgrades/v2 runs");
        assert!(story.world.record.ended[0].switch.as_ref().is_some_and(|switch| switch.backup.is_some()));
    }
}

#[test]
fn an_operators_stop_ends_a_backup_whose_stop_is_not_on_record() {
    let mut story = backing_up(v2());
    story.only(Input::Fail(Class::Environment)).only(ask(Request::Stop)).check(&expect![[r#"
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        record failed (Environment)  → error journal_not_written: it failed
        ask stop                     → answer: stopping the node, then ending
                                     → cancel job
                                     → exit Ok: asked to stop
    "#]]);
}
