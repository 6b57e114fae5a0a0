//! Requests of the operator, at convenient and at inconvenient times.

use super::transcript::{CLEAN, Story, after, secs};
use super::world::Input;
use super::*;
use crate::exit::Exit;
use expect_test::expect;

const STOP: Input = Input::Ask(Request::Stop);

fn now(text: &str) -> Input {
    Input::Ask(Request::UpgradeNow(name(text)))
}

fn cancel(text: &str) -> Input {
    Input::Ask(Request::Cancel(name(text)))
}

#[test]
fn stop_twice() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(STOP).then(STOP).then(CLEAN).check(&expect![[r#"
        (+60.0s) ask stop            → answer: stopping the node, then ending
                                     → SIGTERM
        ask stop                     → answer: stopping the node, then ending
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → exit Ok: asked to stop
    "#]]);
}

#[test]
fn stop_in_a_backoff() {
    let mut story = Story::running(policy(), vec![]);
    story.then(CLEAN).forget().then(STOP).check(&expect![[r#"
        ask stop                     → answer: stopping the node, then ending
                                     → exit Ok: asked to stop
    "#]]);
}

#[test]
fn stop_while_the_node_stops_for_an_upgrade() {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![v2()]);
    story.blocks(100, 101).forget();
    story.then(STOP).then(CLEAN).then(Input::Boot).check(&expect![[r#"
        (+1.0s) ask stop             → answer: stopping the node, then ending
        exited, exit code 0          → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → exit Ok: asked to stop
        boot                         → warn recovering (history): the node is down for the upgrade; going on with the backup
                                     → await release
        release                      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → back up
    "#]]);
}

#[test]
fn stop_during_the_backup_and_go_on_later() {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![v2()]);
    story.blocks(100, 101).then(CLEAN).forget();
    story.then(STOP).then(Input::Failed(Class::Cancelled)).check(&expect![[r#"
        ask stop                     → answer: stopping the node, then ending
                                     → cancel job
        failed(cancelled)            → exit Ok: asked to stop; the upgrade goes on at the next start
    "#]]);
    story.then(Input::Boot).then(Input::Done).check(&expect![[r#"
        boot                         → warn recovering (history): the node is down for the upgrade; going on with the backup
                                     → await release
        release                      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → back up
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn stop_in_probation_is_not_the_new_binarys_failure() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 101).then(CLEAN).blocks(102, 104).forget();
    story.then(STOP).then(CLEAN).then(Input::Boot).check(&expect![[r#"
        (+3.0s) ask stop             → answer: stopping the node, then ending
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean | v2 Trying attempt=1 asked forgiven]
        recorded                     → exit Ok: asked to stop
        boot                         → warn recovering (history): the switch is made; starting the new binary
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=2 asked forgiven]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn restart() {
    let mut story = Story::running(policy(), vec![]);
    story.then(Input::Ask(Request::Restart)).then(CLEAN).check(&expect![[r#"
        (+60.0s) ask restart         → answer: restarting the node
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
    story.then(CLEAN).forget().then(Input::Ask(Request::Restart)).check(&expect![[r#"
        ask restart                  → answer: restarting the node
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn restart_is_refused_during_an_upgrade() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 101).then(CLEAN).forget();
    story.then(Input::Ask(Request::Restart)).then(cancel("v2")).then(now("v2")).check(&expect![[r#"
        ask restart                  → refuse: upgrade v2 is under way
        ask cancel(name("v2"))       → refuse: upgrade v2 has begun and cannot be cancelled
        ask upgradenow(name("v2"))   → refuse: upgrade v2 is under way
    "#]]);
}

#[test]
fn a_node_that_runs_is_left_to_itself_and_one_that_stops_is_not() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Ask(Request::Reexec)).then(Input::Ask(Request::Detach)).check(&expect![[r#"
        (+60.0s) ask reexec          → reexec
        ask detach                   → exit Ok: detached; the node goes on as process 1
                                     → answer: the node goes on as process 1, and the next supervisor takes it over
    "#]]);
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 101).forget();
    story.then(Input::Ask(Request::Reexec)).then(Input::Ask(Request::Detach)).check(&expect![[r#"
        (+1.0s) ask reexec           → refuse: the node is being stopped; try again when it runs
        ask detach                   → refuse: the node is being stopped; try again when it runs
    "#]]);
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Ask(Request::Stop)).forget();
    story.then(Input::Ask(Request::Detach)).check(&expect![[r#"
        ask detach                   → refuse: the supervisor is stopping
    "#]]);
}

#[test]
fn an_upgrade_that_was_asked_for_is_not_forgotten_for_another_program() {
    let mut story = Story::running(policy(), Vec::new());
    story.only(now("v2")).only(Input::Ask(Request::Reexec)).forget();
    story
        .only(Input::Ask(Request::Reexec))
        .only(cancel("v2"))
        .only(Input::Ask(Request::Reexec))
        .check(&expect![[r#"
            ask reexec                   → refuse: the order to upgrade to v2 now would be forgotten: wait for it, or cancel it
            ask cancel(name("v2"))       → cancel job
                                         → strike v2
            ask reexec                   → reexec
        "#]]);
}

#[test]
fn cancel_in_time() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Head(99)).then(cancel("v2")).blocks(100, 103).check(&expect![[r#"
        (+60.0s) ask cancel(name("v2")) → strike v2
    "#]]);
}

#[test]
fn what_was_seen_for_a_cancelled_upgrade_proves_nothing_for_the_next() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.prepares = false;
    story.then(Input::Boot).then(Input::Failed(Class::Permanent)).blocks(100, 102);
    story.prepares = true;
    story.then(Input::Plan(vec![v2(), upgrade("v3", 500)])).forget();
    story.then(cancel("v2")).blocks(103, 104).check(&expect![[r#"
        ask cancel(name("v2"))       → strike v2
    "#]]);
}

#[test]
fn upgrade_now() {
    let mut story = Story::running(policy(), vec![]);
    story.then(now("v2")).then(CLEAN).check(&expect![[r#"
        (+60.0s) ask upgradenow(name("v2")) → answer: switching to v2 as soon as its binary is verified
                                     → info upgrade_known: name=v2 height=99 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=99 head=99
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn upgrade_now_to_what_cannot_be_prepared_does_not_keep_others_from_their_turn() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.prepares = false;
    story.then(now("typo")).then(Input::Failed(Class::Permanent)).check(&expect![[r#"
        (+60.0s) ask upgradenow(name("typo")) → answer: switching to typo as soon as its binary is verified
                                     → info upgrade_known: name=typo height=99 from="schedule"
                                     → prepare typo
        failed(permanent)            → warn upgrade_not_ready: name=typo it failed
    "#]]);
    story.blocks(100, 101).then(CLEAN).check(&expect![[r#"
        (+1.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
    story.then(cancel("typo")).check(&expect![[r#"
        ask cancel(name("typo"))     → strike typo
    "#]]);
}

#[test]
fn upgrade_now_survives_a_failed_preparation() {
    let mut story = Story::running(policy(), vec![]);
    story.prepares = false;
    story.then(now("v2")).then(Input::Failed(Class::Transient)).forget();
    story.then(Input::Tick).then(Input::Done).check(&expect![[r#"
        (+930.0ms) tick: prepare again → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=99 head=99
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn upgrade_now_happens_once() {
    let mut story = Story::running(
        Policy { stop_timeout: StopTimeout::Abort, shutdown_grace: secs(90), ..policy() },
        vec![],
    );
    story.then(now("v2")).forget();
    story.all([Input::Tick, Input::Tick]).then(CLEAN).blocks(100, 102).check(&expect![[r#"
        (+60.0s) tick: still stopping → warn still_stopping: waited=60s the node has not ended after sigterm
        (+30.0s) tick: shutdown grace → warn upgrade_given_up: the node did not stop within daemon_shutdown_grace
        exited, exit code 0          → info node_stopped: status="exit code 0" after=90s
                                     → await release
        release                      → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed the node did not stop within daemon_shutdown_grace
                                     → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
    // Once more, if the operator says so.
    story.then(now("v2")).check(&expect![[r#"
        (+3.0s) ask upgradenow(name("v2")) → answer: switching to v2 as soon as its binary is verified
                                     → info upgrade_known: name=v2 height=99 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0 | v2 failed]
        recorded                     → info upgrade_due (history): name=v2 height=99 head=102
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked | v2 failed]
    "#]]);
}

#[test]
fn a_node_that_does_not_stop_is_waited_for() {
    let mut story = Story::running(Policy { shutdown_grace: secs(90), ..policy() }, vec![v2()]);
    story.blocks(100, 101).forget();
    story.then(Input::Tick).then(after(95)).then(CLEAN).check(&expect![[r#"
        (+60.0s) tick: still stopping → warn still_stopping: waited=60s the node has not ended after sigterm
        (+30.0s) pass                → warn still_stopping: waited=90s the node has not ended after sigterm
        exited, exit code 0          → info node_stopped: status="exit code 0" after=90s
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn a_node_that_does_not_stop_is_killed_if_configured() {
    let policy = Policy { shutdown_grace: secs(120), stop_timeout: StopTimeout::Kill, ..policy() };
    let mut story = Story::running(policy, vec![v2()]);
    story.blocks(100, 101).forget();
    story.then(Input::Tick).then(Input::Tick).then(Input::Tick).then(Input::Exit(Status::Signal(9)));
    story.check(&expect![[r#"
        (+60.0s) tick: still stopping → warn still_stopping: waited=60s the node has not ended after sigterm
        (+60.0s) tick: shutdown grace → SIGKILL
                                     → error killing (history): the node did not stop within 120s
        (+60.0s) tick: still stopping → warn still_stopping: waited=180s the node has not ended after sigterm
        exited, signal 9             → info node_stopped: status="signal 9" after=180s
                                     → await release
        release                      → warn unclean_stop: status="signal 9" the head may have gone back
                                     → record [genesis Running | v2 Trying attempt=1 asked unclean]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn the_configuration_changes_while_the_node_stops() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.blocks(100, 101).then(Input::Tick).forget();
    let policy = Policy { shutdown_grace: secs(30), stop_timeout: StopTimeout::Kill, ..policy() };
    story.then(Input::Configure(policy)).check(&expect![[r#"
        configure                    → SIGKILL
                                     → error killing (history): the node did not stop within 60s
    "#]]);
}

#[test]
fn an_aborted_stop_that_the_operator_makes_final() {
    let policy = Policy { stop_timeout: StopTimeout::Abort, shutdown_grace: secs(30), ..policy() };
    let mut story = Story::running(policy, vec![v2()]);
    story.blocks(100, 101).then(Input::Tick).forget();
    story.then(STOP).then(CLEAN).then(Input::Boot).check(&expect![[r#"
        ask stop                     → answer: stopping the node, then ending
        exited, exit code 0          → info node_stopped: status="exit code 0" after=30s
                                     → await release
        release                      → record [genesis StoppedClean | v2 failed]
        recorded                     → exit Ok: asked to stop
        boot                         → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn dump() {
    let mut story = Story::running(policy(), vec![]);
    story.only(Input::Ask(Request::Dump));
    let answers = story.world.done.iter().filter(|a| matches!(a, Action::Answer { reply: Ok(_), .. }));
    assert_eq!(answers.count(), 1);
    assert!(story.world.done.iter().any(|a| matches!(a, Action::Tell(n) if n.event == "state")));
}

#[test]
fn a_stop_before_anything_is_known_starts_nothing() {
    let (now, record) = (Instant::now(), Record::new(version(&Target::Genesis)));
    let mut machine = Machine::new(policy(), 7, record.clone());
    let stop = Ask { reply_to: None, what: Request::Stop };
    assert_eq!(machine.step(now, Event::Request(stop)), []);
    let done = machine.step(
        now,
        Event::Boot(Facts {
            record,
            link: version(&Target::Genesis),
            head: None,
            has_data: false,
            launched: None,
        }),
    );
    let [Action::AwaitRelease, Action::Exit { exit: Exit::Ok, .. }] = &done[..] else { panic!("{done:?}") };
}
