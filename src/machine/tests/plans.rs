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
