//! Whether anything needs the operator, and what the service manager is told.

use super::transcript::{CLEAN, Story, after};
use super::world::Input;
use super::*;

fn names(story: &Story) -> Vec<String> {
    machine(story).view().needs.into_iter().map(|need| need.name).collect()
}

fn machine(story: &Story) -> &Machine {
    story.world.machine.as_ref().unwrap()
}

#[test]
fn a_node_that_reports_heads_is_ready_and_needs_nothing() {
    let mut story = Story::new(policy(), vec![]);
    story.then(Input::Boot);
    assert!(!machine(&story).is_ready(), "it has reported no head yet");
    story.then(after(1)).then(Input::Head(H - 1));
    assert!(machine(&story).is_ready() && !machine(&story).takes_its_time());
    assert_eq!(names(&story), [""; 0]);
    assert_eq!(machine(&story).view().line(), format!("running, genesis, head {}", H - 1));
}

#[test]
fn the_line_names_the_next_upgrade() {
    let story = Story::running(policy(), vec![upgrade("v2", H + 50)]);
    let line = machine(&story).view().line();
    assert_eq!(line, format!("running, genesis, head {}; next v2 at {}, in 51 blocks", H - 1, H + 50));
}

#[test]
fn a_node_without_a_head_needs_the_operator_after_a_minute() {
    let mut story = Story::new(policy(), vec![]);
    story.then(Input::Boot).then(after(59)).then(Input::Plan(vec![]));
    assert_eq!(names(&story), [""; 0]);
    story.then(after(2)).then(Input::Plan(vec![]));
    assert_eq!(names(&story), ["no_head"]);
}

#[test]
fn a_node_that_is_down_needs_the_operator_until_it_has_run_for_a_while() {
    let mut story = Story::running(policy(), vec![]);
    story.then(Input::Exit(Status::Code(2)));
    assert_eq!(names(&story), ["node_down"]);
    let view = machine(&story).view();
    assert!(view.line().starts_with("NEEDS YOU: the node is down: restarting failures=1"), "{}", view.line());
    assert!(view.remaining.unwrap().starts_with("next try in "));
    story.then(Input::Tick).then(after(1)).then(Input::Head(H - 1));
    assert_eq!(names(&story), ["node_fails"]);
}

#[test]
fn the_delay_before_a_start_that_is_configured_is_no_cause_for_alarm() {
    let delay = Policy { restart_delay: Duration::from_secs(30), ..policy() };
    let mut story = Story::running(delay, vec![v2()]);
    story.then(Input::Head(H)).then(CLEAN);
    assert_eq!(names(&story), [""; 0]);
    let left = machine(&story).view().remaining.unwrap();
    assert!(left.starts_with("next try in "), "{left}");
}

#[test]
fn a_stop_takes_its_time_and_an_upgrade_does() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Head(H));
    assert!(machine(&story).takes_its_time() && !machine(&story).is_ending());
    let left = machine(&story).view().remaining.unwrap();
    assert!(left.ends_with("s until it is warned of"), "{left}");
    assert_eq!(names(&story), [""; 0], "an upgrade is no cause for alarm");
    story.then(CLEAN).then(after(1)).then(Input::Head(H + 1));
    let left = machine(&story).view().remaining.unwrap();
    assert!(left.ends_with("to prove itself"), "{left}");
    assert!(!machine(&story).takes_its_time());
    story.then(Input::Ask(Request::Stop));
    assert!(machine(&story).is_ending());
}

#[test]
fn a_deadline_that_has_passed_and_a_binary_that_is_not_ready_need_the_operator() {
    let late = Upgrade { deadline_height: Some(H + 5), fork_height: Some(H + 100), ..v2() };
    let mut story = Story::new(policy(), vec![late]);
    story.prepares = false;
    story.then(Input::Boot).then(after(60)).then(Input::Head(H - 1));
    story.then(Input::Failed(Class::Permanent));
    assert_eq!(names(&story), ["upgrade_not_ready"]);
    story.then(after(1)).then(Input::Head(H + 6));
    assert!(names(&story).contains(&"deadline_passed".to_owned()), "{:?}", names(&story));
}
