//! A node that ends by itself, outside of upgrades.

use super::transcript::{CLEAN, Story, after, secs};
use super::world::Input;
use super::*;
use expect_test::expect;

#[test]
fn a_crash_is_followed_by_a_start_after_a_while() {
    let mut story = Story::running(policy(), vec![]);
    story.then(Input::Exit(Status::Signal(11))).then(Input::Tick).check(&expect![[r#"
        (+60.0s) exited, signal 11   → warn node_exited: status="signal 11" after=60s
                                     → await release
        release                      → warn unclean_stop: status="signal 11" the head may have gone back
                                     → warn restarting: failures=1 in=930.0ms last="signal 11"
                                     → record [genesis StoppedUnclean]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn exit_code_zero_is_a_failure_too() {
    let mut story = Story::running(Policy { max_restarts: 2, ..policy() }, vec![]);
    story.all([CLEAN, Input::Tick, CLEAN, Input::Tick, CLEAN]).check(&expect![[r#"
        (+60.0s) exited, exit code 0 → warn node_exited: status="exit code 0" after=60s
                                     → await release
        release                      → warn restarting: failures=1 in=930.0ms last="exit code 0"
                                     → record [genesis StoppedClean]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
        exited, exit code 0          → warn node_exited: status="exit code 0" after=0ns
                                     → await release
        release                      → warn restarting: failures=2 in=2.0s last="exit code 0"
                                     → record [genesis StoppedClean]
        (+2.0s) tick: backoff        → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
        exited, exit code 0          → warn node_exited: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → error halted (history): the node failed 3 times in a row, last: exit code 0
                                     → exit Halted: the node failed 3 times in a row, last: exit code 0
    "#]]);
}

#[test]
fn ten_minutes_of_health_forgive_earlier_failures() {
    let mut story = Story::running(Policy { max_restarts: 1, ..policy() }, vec![]);
    story.all([CLEAN, Input::Tick, after(600)]).forget().then(CLEAN).check(&expect![[r#"
        (+600.0s) exited, exit code 0 → warn node_exited: status="exit code 0" after=600s
                                     → await release
        release                      → warn restarting: failures=1 in=930.0ms last="exit code 0"
                                     → record [genesis StoppedClean]
    "#]]);
}

#[test]
fn without_restarts_the_supervisor_ends_like_its_node() {
    let mut story = Story::running(Policy { restart_on_failure: false, ..policy() }, vec![]);
    story.then(Input::Exit(Status::Code(3))).check(&expect![[r#"
        (+60.0s) exited, exit code 3 → warn node_exited: status="exit code 3" after=60s
                                     → await release
        release                      → warn unclean_stop: status="exit code 3" the head may have gone back
                                     → record [genesis StoppedUnclean]
        recorded                     → exit Failed, node exit code 3: the node ended: exit code 3
    "#]]);
}

#[test]
fn a_node_that_cannot_be_executed() {
    let mut story = Story::new(Policy { max_restarts: 1, ..policy() }, vec![]);
    let again = [Input::Tick, Input::Release, Input::Ok, Input::Fail(Class::Environment), Input::Ok];
    story.only(Input::Boot).only(Input::Release).only(Input::Ok);
    story.only(Input::Fail(Class::Permanent)).only(Input::Ok);
    for input in again {
        story.only(input);
    }
    story.check(&expect![[r#"
        boot                         → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawn failed (Permanent)     → warn node_not_started: it failed
                                     → warn restarting: failures=1 in=930.0ms last="it failed"
                                     → record [genesis Never]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawn failed (Environment)   → warn node_not_started: it failed
                                     → warn restarting: failures=2 in=2.0s last="it failed"
                                     → record [genesis Never]
    "#]]);
}

#[test]
fn a_failed_exec_does_not_make_an_unclean_end_clean() {
    let mut story = Story::running(policy(), vec![]);
    story
        .then(Input::Exit(Status::Signal(9)))
        .only(Input::Tick)
        .only(Input::Release)
        .only(Input::Ok)
        .forget();
    story.then(Input::Fail(Class::Environment)).check(&expect![[r#"
        spawn failed (Environment)   → warn node_not_started: it failed
                                     → warn restarting: failures=2 in=2.0s last="it failed"
                                     → record [genesis StoppedUnclean]
    "#]]);
}

#[test]
fn a_stray_process_holds_the_locks() {
    let mut story = Story::running(policy(), vec![]);
    story.only(Input::Exit(Status::Signal(9))).only(Input::Tick);
    let view = story.world.machine.as_ref().unwrap().view();
    assert_eq!((view.state, view.node), (Activity::WaitingForLocks, None));
    story.only(Input::Ask(Request::Stop));
    story.check(&expect![[r#"
        (+60.0s) exited, signal 9    → warn node_exited: status="signal 9" after=60s
                                     → await release
        (+60.0s) tick: locks still held → warn locks_still_held: something of the previous node is still alive; no node is started
        ask stop                     → answer: stopping the node, then ending
                                     → exit Ok: asked to stop
    "#]]);
}

#[test]
fn a_crash_while_an_upgrade_is_due() {
    // Its binary comes just in time; the old one is not started again.
    let mut story = Story::new(policy(), vec![v2()]);
    story.prepares = false;
    story.then(Input::Boot).blocks(99, 101).forget();
    story.all([Input::Exit(Status::Code(1)), Input::Done]).check(&expect![[r#"
        (+3.0s) exited, exit code 1  → warn node_exited: status="exit code 1" after=3s
                                     → await release
        release                      → warn unclean_stop: status="exit code 1" the head may have gone back
                                     → warn restarting: failures=1 in=930.0ms last="exit code 1"
                                     → record [genesis StoppedUnclean]
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis StoppedUnclean | v2 Stopped attempt=0 unclean]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=101
                                     → record [genesis Running | v2 Trying attempt=1 unclean]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn a_crash_while_a_later_upgrade_is_prepared() {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![v2()]);
    story.prepares = false;
    // The download for later does not delay what is due.
    story.then(Input::Plan(vec![v2(), upgrade("v3", 500)])).forget();
    story.then(Input::Head(100)).then(CLEAN).then(Input::Failed(Class::Cancelled)).check(&expect![[r#"
        head 100                     → inspect upgrades/v2
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
}

#[test]
fn the_binary_is_changed_while_the_node_is_down() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.prepares = false;
    story.then(Input::Boot).blocks(99, 100).then(CLEAN).forget();
    story.only(Input::Done).then(Input::Fail(Class::Integrity));
    story.prepares = true;
    story.then(Input::Tick).blocks(100, 100).check(&expect![[r#"
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspect failed (Integrity)   → warn upgrade_changed_on_disk: name=v2 it failed
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
                                     → error upgrade_overdue (history): name=v2 height=100 head=100 the old binary goes on: it failed
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        (+1.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn an_old_binary_is_not_started_at_the_fork() {
    let mut story = Story::new(policy(), vec![Upgrade { fork_height: Some(200), ..v2() }]);
    story.prepares = false;
    story.then(Input::Boot).then(Input::Failed(Class::Permanent)).blocks(198, 199).forget();
    story.all([CLEAN, Input::Tick, Input::Failed(Class::Permanent), after(61), after(61)]).check(&expect![[r#"
        (+1.0s) exited, exit code 0  → warn node_exited: status="exit code 0" after=2s
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → await release
        release                      → warn start_held: the chain was at 199 and needs v2 from its fork at 200 on; to start genesis all the same: wemixvisor restart
        (+7.3s) tick: prepare again  → prepare v2
        (+19.8s) pass                → prepare v2
        (+32.9s) pass                → await release
        release                      → warn start_held: the chain was at 199 and needs v2 from its fork at 200 on; to start genesis all the same: wemixvisor restart
    "#]]);
    let view = story.world.machine.as_ref().unwrap().view();
    assert!(view.held.is_some_and(|why| why.contains("needs v2")));
    assert_eq!(view.trouble.as_deref(), Some("node_exited status=\"exit code 0\" after=2s"));
    story.then(Input::Done).check(&expect![[r#"
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis StoppedClean | v2 Stopped attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=199
                                     → record [genesis Running | v2 Trying attempt=1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn an_old_binary_is_started_at_the_fork_if_the_operator_says_so() {
    let mut story = Story::new(policy(), vec![Upgrade { fork_height: Some(200), ..v2() }]);
    story.prepares = false;
    story.then(Input::Boot).then(Input::Failed(Class::Permanent)).blocks(198, 199).then(CLEAN).forget();
    story.then(Input::Ask(Request::Restart)).check(&expect![[r#"
        ask restart                  → answer: restarting the node
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
                                     → warn deadline_passed (history): name=v2 deadline=140 head=199 fork=200 blocks_left=1 the upgrade has not happened
                                     → error upgrade_overdue (history): name=v2 height=100 head=199 the old binary goes on: it failed
    "#]]);
    story.then(CLEAN).forget().then(Input::Ask(Request::Cancel(name("v2")))).check(&expect![[r#"
        ask cancel(name("v2"))       → strike v2
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn a_fork_that_a_failed_upgrade_was_for_is_no_curse() {
    let mut story = Story::running(policy(), vec![]);
    story.world.hook = true;
    story.then(Input::Plan(vec![Upgrade { fork_height: Some(200), ..v2() }])).blocks(100, 101);
    story.all([CLEAN, Input::Abort]).blocks(102, 199).forget();
    // Whoever plans leaves out what has ended.
    story.then(Input::Plan(vec![])).then(CLEAN).check(&expect![[r#"
        (+98.0s) exited, exit code 0 → warn node_exited: status="exit code 0" after=98s
                                     → await release
        release                      → warn restarting: failures=1 in=930.0ms last="exit code 0"
                                     → record [genesis StoppedClean | v2 aborted]
    "#]]);
}

#[test]
fn the_head_is_asked_for_more_often_near_a_trigger() {
    let mut story = Story::running(policy(), vec![upgrade("v2", 1_000)]);
    let pace = |story: &Story| story.world.machine.as_ref().unwrap().pace();
    story.blocks(100, 900);
    assert_eq!(pace(&story), secs(5));
    story.blocks(901, 940);
    assert_eq!(pace(&story), secs(1) / 4);
    story.then(Input::Configure(Policy { poll_interval: Duration::from_millis(10), ..policy() }));
    assert_eq!(pace(&story), Duration::from_millis(10));
    // The head record of a validator is as new as its head.
    let mut story = Story::running(policy(), vec![]);
    story.blocks(100, 110);
    assert_eq!(pace(&story), secs(5));
    story.then(Input::Configure(Policy { validator: true, ..policy() }));
    assert_eq!(pace(&story), secs(1) / 4);
}

#[test]
fn what_keeps_the_node_down_is_in_view_until_one_runs() {
    let mut story = Story::running(policy(), vec![]);
    let trouble = |story: &Story| story.world.machine.as_ref().unwrap().view().trouble;
    assert_eq!(trouble(&story), None);
    story.then(CLEAN);
    assert_eq!(trouble(&story).as_deref(), Some("restarting failures=1 in=930.0ms last=\"exit code 0\""));
    story.then(Input::Tick);
    assert_eq!(trouble(&story), None);
}
