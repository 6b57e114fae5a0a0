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
    story.check(&expect![[r#""#]]);
}

#[test]
fn a_backup_that_is_not_possible_holds_the_upgrade_until_it_is() {
    let mut story = Story::new(ahead(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).forget();
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
    story.check(&expect![[r#""#]]);
}

#[test]
fn what_can_wait_gives_way_to_the_stop_and_to_another_binary() {
    let mut story = Story::new(ahead(), vec![v2()]);
    story.then(Input::Boot).then(after(60)).forget();
    // It is still being brought when the height is there.
    story.then(Input::Head(99)).then(Input::Done).blocks(100, 100).then(CLEAN);
    story.then(Input::Failed(Class::Cancelled));
    story.check(&expect![[r#""#]]);

    let mut story = Story::running(ahead(), vec![]);
    story.then(Input::Plan(vec![upgrade("v2", 1000)])).blocks(100, 100).forget();
    story.then(Input::Plan(vec![upgrade("v2", 1000), upgrade("v3", 2000)]));
    story.then(Input::Failed(Class::Cancelled));
    story.check(&expect![[r#""#]]);
}

#[test]
fn far_from_an_upgrade_it_is_only_looked_and_then_not_at_every_block() {
    let mut story = Story::new(ahead(), vec![upgrade("v2", 5000)]);
    story.then(Input::Boot).then(after(60)).forget();
    story.then(Input::Head(99)).then(Input::Done).blocks(100, 699).then(Input::Done).blocks(700, 710);
    let told = story.take();
    assert_eq!(told.matches("look at the backup for v2").count(), 2, "{told}");
    assert!(!told.contains("begin the backup"), "{told}");
}
