//! Backups beside a running node: begun before the stop, held back by what they lack, tended afterwards.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
use super::*;
use expect_test::expect;

fn ahead() -> Policy {
    Policy { backup: true, backup_ahead: true, ..policy() }
}

#[test]
fn it_is_begun_before_the_stop_and_tended_when_the_new_binary_is_good() {
    let mut story = Story::new(ahead(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).forget();
    story.then(Input::Head(99)).then(Input::Done).then(Input::Done);
    story.then(after(1)).then(Input::Head(100)).then(CLEAN).then(Input::Done);
    story.blocks(101, 120).then(after(60)).blocks(121, 122).then(Input::Done);
    story.check(&expect![[r#"
        (+60.0s) done                → begin the backup for v2
        (+1.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        (+81.0s) head 121            → record [upgrades/v2 Running | v2 applied]
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied blocks=20 lived=81s head=121
                                     → after the upgrade to v2
                                     → tend backups
    "#]]);
}

#[test]
fn backups_that_grow_too_old_are_looked_at_every_hour() {
    for backups_age in [true, false] {
        let mut story = Story::new(Policy { backups_age, ..ahead() }, vec![v2()]);
        story.then(Input::Boot).then(after(60));
        story.then(Input::Head(99)).then(Input::Done).then(Input::Done);
        story.then(after(1)).then(Input::Head(100)).then(CLEAN).then(Input::Done);
        story.blocks(101, 120).then(after(60)).blocks(121, 122).then(Input::Done).forget();
        story.then(after(3500)).blocks(123, 124);
        assert!(!story.take().contains("tend backups"));
        story.then(after(110)).blocks(125, 126);
        assert_eq!(story.take().contains("tend backups"), backups_age);
    }
}

#[test]
fn a_backup_that_is_not_possible_holds_the_upgrade_until_it_is() {
    let mut story = Story::new(ahead(), vec![v2()]);
    story.then(Input::Boot).forget();
    story.then(Input::Head(99)).then(Input::Failed(Class::Environment)).blocks(100, 130);
    let plan = story.world.machine.as_ref().unwrap().view().planned[0].clone();
    assert_eq!(plan.gates, ["backup"]);
    assert_eq!(plan.why, "no backup can be made: it failed");
    assert!(plan.hold.is_some());
    // The operator's word does not make room.
    story.then(Input::Ask(Request::UpgradeNow(name("v2"))));
    story
        .blocks(131, 170)
        .then(Input::Failed(Class::Environment))
        .blocks(171, 240)
        .then(Input::Done)
        .blocks(241, 242);
    story.check(&expect![[r#"
        failed(environment)          → warn backup_not_possible (history): name=v2 it failed; the upgrade waits until one can be made
        (+31.0s) ask upgradenow(name("v2")) → answer: switching to v2 as soon as its binary is verified
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        (+29.0s) head 159            → look at the backup for v2
        (+71.0s) head 230            → look at the backup for v2
        (+10.0s) done                → info backup_possible (history): name=v2 again
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=240
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn what_can_wait_gives_way_to_the_stop_and_to_another_binary() {
    let mut story = Story::new(ahead(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).forget();
    // It is still being brought when the height is there.
    story.then(Input::Head(99)).then(Input::Done).blocks(100, 100).then(CLEAN);
    story.then(Input::Failed(Class::Cancelled));
    story.check(&expect![[r#"
        (+60.0s) done                → begin the backup for v2
        (+1.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → cancel job
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        failed(cancelled)            → back up
    "#]]);

    let mut story = Story::running(ahead(), vec![]);
    story.then(Input::Plan(vec![upgrade("v2", 1000)])).blocks(100, 100).forget();
    story.then(Input::Plan(vec![upgrade("v2", 1000), upgrade("v3", 2000)]));
    story.then(Input::Failed(Class::Cancelled));
    story.check(&expect![[r#"
        (+1.0s) schedule v2@1000 v3@2000 → cancel job
        failed(cancelled)            → info upgrade_known: name=v3 height=2000 from="schedule"
                                     → prepare v3
        done                         → info upgrade_ready: name=v3 sha256=3fe3df66f343c6fa3b3624141ebf0c6cc8a89c6a343883a286ba669ed2f8bee4
    "#]]);
}

#[test]
fn far_from_an_upgrade_it_is_only_looked_and_then_not_at_every_block() {
    let mut story = Story::new(ahead(), vec![upgrade("v2", 5000)]);
    story
        .then(Input::Boot)
        .then(Input::Head(99))
        .then(Input::Done)
        .blocks(100, 705)
        .then(Input::Done)
        .blocks(706, 710);
    let told = story.take();
    assert_eq!(told.matches("look at the backup for v2").count(), 2, "{told}");
    assert!(!told.contains("begin the backup"), "{told}");
}
