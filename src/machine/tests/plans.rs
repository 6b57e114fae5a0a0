//! Long plans: what is open, what is prepared when, and what history has closed.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
use super::*;

/// The upgrades that a job was begun for, in order.
fn prepared(story: &mut Story) -> Vec<Name> {
    let told = story.take();
    told.lines().filter_map(|line| Some(name(line.rsplit_once("prepare ")?.1.trim()))).collect()
}

#[test]
fn nothing_goes_back_behind_what_was_applied() {
    let mut story = Story::running(policy(), vec![v2(), upgrade("v3", 2 * H)]);
    story.then(Input::Ask(Request::UpgradeNow(name("v3")))).then(CLEAN);
    story.blocks(H - 1, H + 10).then(after(60)).blocks(H + 11, H + 20);
    let record = &story.world.record;
    assert_eq!(record.current.target, Target::Upgrade(name("v3")));
    let ended: Vec<_> = record.ended.iter().map(|e| (e.name.as_str(), e.outcome)).collect();
    assert_eq!(ended, [("v3", Outcome::Applied)]);
    assert_eq!(record.upgrade, None);
}

#[test]
fn every_binary_is_tried_once_and_only_those_close_by_again_and_again() {
    let many: Vec<Upgrade> = (1..=40).map(|n| upgrade(&format!("w{n}"), H + n)).collect();
    let names: Vec<Name> = many.iter().map(|u| u.name.clone()).collect();
    let mut story = Story::new(policy(), many);
    story.prepares = false;
    story.then(Input::Boot);
    for _ in 0..40 {
        story.then(Input::Failed(Class::Permanent));
    }
    assert_eq!(prepared(&mut story), names);
    let start = story.world.now;
    loop {
        let busy = story.world.job.is_some();
        if !busy && story.world.now > start + Duration::from_secs(100) {
            break;
        }
        story.then(if busy { Input::Failed(Class::Permanent) } else { Input::Tick });
    }
    let again = prepared(&mut story);
    assert!(again.len() > 16, "{again:?}");
    assert!(again.iter().all(|n| names[..16].contains(n)), "{again:?}");
    // A binary that was staged is prepared at once, however far its upgrade is.
    story.then(Input::Ask(Request::Refresh(name("w40"))));
    assert_eq!(prepared(&mut story), [name("w40")]);
}

#[test]
fn an_upgrade_on_hold_is_prepared_and_waits_and_lets_others_go_first() {
    let held = || Upgrade { on_hold: true, ..v2() };
    let mut story = Story::running(policy(), vec![held(), upgrade("v3", 300)]);
    story.blocks(100, 102);
    assert!(!story.take().contains("inspect"));
    let why = |story: &Story| story.world.machine.as_ref().unwrap().view().planned[0].why.clone();
    assert_eq!(why(&story), "it is on hold: wemixvisor upgrade release v2");
    story.only(Input::Ask(Request::UpgradeNow(name("v2"))));
    assert!(story.take().contains("refuse: v2 is on hold"));
    // Its binary is the same one when it is released.
    let mut released = Story::running(policy(), vec![held(), upgrade("v3", 300)]);
    released.blocks(100, 102).forget();
    released.only(Input::Plan(vec![v2(), upgrade("v3", 300)]));
    assert!(released.take().contains("inspect upgrades/v2"));
    story.then(Input::Plan(vec![held(), upgrade("v3", 103)])).blocks(103, 104);
    assert!(story.take().contains("inspect upgrades/v3"));
}

#[test]
fn a_chain_that_stops_for_an_upgrade_on_hold_waits_for_the_operator() {
    let stops = Policy { watch_height: false, ..policy() };
    let held = Upgrade { origin: Origin::TriggerFile, on_hold: true, ..v2() };
    let mut story = Story::new(stops, vec![held]);
    story.then(Input::Boot).then(after(1));
    let told = story.take();
    assert!(told.contains("start_held") && told.contains("upgrade release v2"), "{told}");
}
