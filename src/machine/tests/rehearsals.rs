//! Rehearsals that are held by themselves: when one begins, what ends it, and what a failed one holds up.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
use super::*;
use expect_test::expect;

fn rehearses() -> Policy {
    Policy { rehearse: true, ..policy() }
}

/// A node ten blocks before its upgrade, whose binary is just being rehearsed.
fn rehearsing() -> Story {
    let mut story = Story::new(rehearses(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).then(Input::Head(H - 10));
    assert!(story.take().contains("→ rehearse v2"));
    story
}

fn rehearsal(story: &Story) -> Option<RehearsalView> {
    story.world.machine.as_ref().unwrap().view().planned[0].rehearsal
}

#[test]
fn a_binary_that_is_ready_is_rehearsed_once_there_is_a_head() {
    let mut story = Story::new(rehearses(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).then(Input::Head(H - 10));
    assert_eq!(rehearsal(&story), Some(RehearsalView::Running));
    story.then(Input::Done).blocks(H - 9, H - 8);
    assert_eq!(rehearsal(&story), Some(RehearsalView::Passed));
    story.check(&expect![[r#"
        boot                         → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        (+60.0s) head 90             → rehearse v2
        done                         → info rehearsal_passed (history): name=v2
    "#]]);
    story.blocks(H - 7, H).then(CLEAN);
    assert!(story.take().contains("spawn upgrades/v2"));
}

#[test]
fn nothing_is_rehearsed_where_the_operator_does_not_want_it() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).then(Input::Head(H - 10));
    assert!(!story.take().contains("rehearse"));
}

#[test]
fn a_failed_rehearsal_holds_the_upgrade_and_says_so() {
    let mut story = rehearsing();
    story.then(Input::Abort).blocks(H - 1, H + 1);
    story.check(&expect![[r#"
        abort                        → error rehearsal_failed (history): name=v2 the upgrade is held: it does not stop
        (+2.0s) head 100             → error upgrade_overdue (history): name=v2 height=100 head=100 the old binary goes on: its rehearsal has failed: it does not stop
    "#]]);
    let plan = story.world.machine.as_ref().unwrap().view().planned.remove(0);
    assert_eq!((plan.rehearsal, plan.binary), (Some(RehearsalView::Failed), BinaryState::Ready));
    assert_eq!(plan.why, "its rehearsal has failed: it does not stop");
    let needs = story.world.machine.as_ref().unwrap().view().needs;
    let need = needs.iter().find(|need| need.name == "rehearsal_failed").unwrap();
    let cure = "has failed: it does not stop; stage another binary, or let it happen with `wemixvisor rehearse v2 --force`";
    assert!(need.text.contains(cure), "{need:?}");
    // The word of the operator goes before it.
    story.then(Input::Ask(Request::UpgradeNow(name("v2"))));
    assert!(story.take().contains("inspect upgrades/v2"));
}

#[test]
fn an_upgrade_that_comes_due_does_not_wait_for_its_rehearsal() {
    let mut story = rehearsing();
    story.blocks(H - 1, H);
    story.check(&expect![[r#"
        (+2.0s) head 100             → inspect upgrades/v2
                                     → cancel job
        inspected                    → warn unrehearsed (history): name=v2 it goes on without a rehearsal: its rehearsal has not ended
                                     → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
    story.then(Input::Failed(Class::Cancelled)).then(CLEAN);
    assert!(story.take().contains("spawn upgrades/v2"));
}

#[test]
fn one_that_is_ready_too_near_its_height_goes_on_and_says_so() {
    let policy = Policy { backup: true, backup_ahead: true, ..rehearses() };
    let mut story = Story::new(policy, vec![v2()]);
    story.then(Input::Boot).then(after(60)).then(Input::Head(H - 10));
    assert!(!story.take().contains("→ rehearse"));
    let plan = story.world.machine.as_ref().unwrap().view().planned.remove(0);
    assert_eq!(plan.unrehearsed.as_deref(), Some("its height is too near for one"));
    story.blocks(H - 1, H);
    let told =
        "warn unrehearsed (history): name=v2 it goes on without a rehearsal: its height is too near for one";
    let story = story.take();
    assert!(story.contains(told) && story.contains("SIGTERM"), "{story}");
}

#[test]
fn a_stop_and_other_work_end_a_rehearsal() {
    let mut story = rehearsing();
    story.then(Input::Ask(Request::Stop));
    assert!(story.take().contains("cancel"));
    story.then(Input::Failed(Class::Cancelled)).then(CLEAN);

    let mut story = rehearsing();
    story.then(Input::Plan(vec![v2(), upgrade("v3", H + 100)]));
    assert!(story.take().contains("cancel"));
    story.then(Input::Failed(Class::Cancelled));
    story.check(&expect![[r#"
        failed(cancelled)            → info rehearsal_cancelled: name=v2
                                     → info upgrade_known: name=v3 height=200 from="schedule"
                                     → prepare v3
        done                         → info upgrade_ready: name=v3 sha256=3fe3df66f343c6fa3b3624141ebf0c6cc8a89c6a343883a286ba669ed2f8bee4
                                     → rehearse v2
    "#]]);
}

#[test]
fn a_rehearsal_that_cannot_be_held_is_tried_again_later_and_holds_nothing() {
    let mut story = rehearsing();
    story.then(Input::Failed(Class::Permanent)).then(after(5)).then(Input::Head(H - 9));
    story.check(&expect![[r#"
        failed(permanent)            → warn rehearsal_not_held: name=v2 it failed
    "#]]);
    story.then(after(60)).then(Input::Head(H - 8));
    assert!(story.take().contains("→ rehearse v2"));
    let plan = story.world.machine.as_ref().unwrap().view().planned.remove(0);
    assert_eq!(plan.unrehearsed, None, "it is being rehearsed");
    story.then(Input::Failed(Class::Permanent)).blocks(H - 1, H);
    let story = story.take();
    let told = "unrehearsed (history): name=v2 it goes on without a rehearsal: none could be held: it failed";
    assert!(story.contains("inspect upgrades/v2") && story.contains(told), "{story}");
}
