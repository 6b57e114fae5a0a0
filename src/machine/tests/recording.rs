//! A record is on its way to the disk while a node runs: everything else goes on.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
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
