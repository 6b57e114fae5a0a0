//! Receipts: what is kept of an upgrade, when, and what is left open.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
use super::*;
use crate::machine::receipt::Receipt;
use expect_test::expect;

/// Lets time pass, and what happens by itself, until a receipt is handed out.
fn next(story: &mut Story) -> Receipt {
    for _ in 0..20 {
        let Story { world, .. } = &*story;
        let input = match (&world.pending, world.awaiting && world.process.is_none()) {
            (Some(_), _) => Input::Ok,
            (None, true) => Input::Release,
            (None, false) => after(10),
        };
        let is_down = world.process.is_none();
        story.only(input);
        if let Some(receipt) = handed_out(story).pop() {
            assert!(!is_down || story.world.process.is_some(), "the node is down");
            return receipt;
        }
    }
    panic!("there is no receipt: {}", story.told());
}

/// The receipts that a story has handed out with its last input.
fn handed_out(story: &Story) -> Vec<Receipt> {
    let receipt = |action: &Action| match action {
        Action::Receipt(receipt) => Some(Receipt::clone(receipt)),
        _ => None,
    };
    story.world.done.iter().filter_map(receipt).collect()
}

/// The steps that were seen, with the milliseconds since the stop, and heights.
fn steps(receipt: &Receipt) -> String {
    let seen = receipt.steps.iter().filter_map(|step| {
        step.ago?;
        let height = step.block.as_ref().map(|block| format!(" at {}", block.height)).unwrap_or_default();
        let ms = step.after_ms.map_or("?".to_owned(), |ms| ms.to_string());
        Some(format!("{} {ms}{height}\n", step.step))
    });
    seen.collect()
}

#[test]
fn an_upgrade_that_is_applied_has_every_step() {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![]);
    story.world.hook = true;
    story.then(Input::Plan(vec![v2()])).blocks(100, 101).then(after(2)).then(CLEAN);
    story.then(after(3)).then(Input::Done).then(after(4)).then(Input::Done).then(after(1));
    story.blocks(100, 125);
    let receipt = next(&mut story);
    assert_eq!((receipt.name.as_str(), receipt.outcome, receipt.starts), ("v2", Outcome::Applied, 1));
    assert_eq!(receipt.to.as_ref().unwrap().target, Target::Upgrade(name("v2")));
    assert_eq!(receipt.hook.as_deref(), Some("it has succeeded"));
    assert!(receipt.backup.as_deref().unwrap().starts_with("v2"), "{receipt:?}");
    assert!(receipt.steps[0].block.as_ref().unwrap().hash.is_some());
    expect![[r#"
        stop_sent 0 at 100
        old_ended 3000
        backed_up 6000
        hook_ended 10000
        new_started 10000
        first_answer 12000 at 100
        first_beyond 13000 at 101
        over 70000 at 125
    "#]]
    .assert_eq(&steps(&receipt));
}

#[test]
fn one_that_has_failed_is_over_when_the_old_binary_runs() {
    let mut story = Story::running(policy(), vec![]);
    story.world.hook = true;
    story.then(Input::Plan(vec![v2()])).blocks(100, 100).then(after(1)).then(CLEAN).then(after(1));
    story.only(Input::Failed(Class::Permanent));
    let receipt = next(&mut story);
    assert_eq!(receipt.outcome, Outcome::Failed);
    assert_eq!(receipt.client_after, None);
    expect![[r#"
        stop_sent 0 at 100
        old_ended 1000
        hook_ended 2000
        over 2000 at 100
    "#]]
    .assert_eq(&steps(&receipt));
}

#[test]
fn a_supervisor_that_comes_late_guesses_nothing() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 100).then(CLEAN).blocks(100, 105);
    story.then(Input::Die { effect: false, node: Fate::Lingers }).then(Input::Boot);
    story.blocks(106, 130);
    let receipt = next(&mut story);
    assert_eq!((receipt.outcome, receipt.starts), (Outcome::Applied, 0));
    expect![[r#"
        over ? at 130
    "#]]
    .assert_eq(&steps(&receipt));
}

/// Nor is it taken for the end of an earlier try.
#[test]
fn one_that_was_put_off_is_not_over() {
    let mut story = Story::running(policy(), vec![]);
    story.world.hook = true;
    story.then(Input::Plan(vec![v2()])).blocks(100, 100).then(CLEAN).only(Input::Failed(Class::Permanent));
    assert_eq!(next(&mut story).outcome, Outcome::Failed);
    story.blocks(101, 102).then(Input::Ask(Request::UpgradeNow(name("v2")))).then(CLEAN);
    story.only(Input::Failed(Class::Environment));
    while story.world.process.is_none() {
        story.only(if story.world.awaiting { Input::Release } else { Input::Ok });
        assert!(handed_out(&story).is_empty());
    }
    story.only(Input::Head(103));
    assert!(handed_out(&story).is_empty());
    assert!(story.take().contains("upgrade_put_off"));
}
