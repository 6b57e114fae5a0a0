//! Upgrades that fail: what is tried again, when the old binary runs again, and when nothing does.

use super::transcript::{CLEAN, Story, after, secs};
use super::world::Input;
use super::*;
use expect_test::expect;

const CRASH: Input = Input::Exit(Status::Code(2));

/// A node that was just stopped for `v2`, with what comes next still to be chosen.
fn stopped(policy: Policy, upgrade: Upgrade, hook: bool) -> Story {
    let mut story = Story::running(policy, vec![]);
    story.world.hook = hook;
    story.then(Input::Plan(vec![upgrade])).blocks(100, 101).forget();
    story.only(CLEAN);
    story
}

/// The new binary runs.
fn trying(policy: Policy, upgrade: Upgrade) -> Story {
    let validator = policy.validator;
    let mut story = stopped(policy, upgrade, false);
    story.then(Input::Release);
    if validator {
        // It is tried without peers first.
        story.then(Input::Head(101)).then(CLEAN);
    }
    story.forget();
    story
}

fn forking(fork: u64) -> Upgrade {
    Upgrade { fork_height: Some(fork), ..v2() }
}

#[test]
fn the_hook_asks_for_another_try_too_often() {
    let mut story = stopped(policy(), v2(), true);
    story.then(Input::Release).all([Input::Retry, Input::Retry, Input::Retry]).check(&expect![[r#"
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        recorded                     → run hook, retries=0
        retry                        → run hook, retries=1
        retry                        → run hook, retries=2
        retry                        → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed pre-upgrade hook asked for another try 3 times: not yet
                                     → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_hook_aborts() {
    let mut story = stopped(policy(), v2(), true);
    story.then(Input::Release).forget().then(Input::Abort).check(&expect![[r#"
        abort                        → record [genesis StoppedClean | v2 aborted]
        recorded                     → error upgrade_ended (history): name=v2 outcome=aborted pre-upgrade hook asked to abort: not now
                                     → await release
        release                      → record [genesis Running | v2 aborted]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_hook_fails_close_to_the_fork() {
    let mut story = stopped(policy(), forking(110), true);
    // While the hook ran, the chain went on without us.
    story.then(Input::Release).then(after(8)).forget();
    story.then(Input::Failed(Class::Permanent)).check(&expect![[r#"
        (+8.0s) failed(permanent)    → record [genesis StoppedClean | v2 Stopped attempt=0 asked | halted]
        recorded                     → error halted (history): upgrade v2: pre-upgrade hook: it failed; and the chain is at the fork
                                     → exit Halted: upgrade v2: pre-upgrade hook: it failed; and the chain is at the fork
    "#]]);
}

#[test]
fn the_backup_fails() {
    let mut story = stopped(Policy { backup: true, ..policy() }, v2(), false);
    story.then(Input::Release).forget().then(Input::Failed(Class::Environment)).check(&expect![[r#"
        failed(environment)          → record [genesis StoppedClean]
        recorded                     → error upgrade_put_off (history): name=v2 in=60s backup: it failed; the old binary goes on until then
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_link_cannot_be_switched() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Environment)).check(&expect![[r#"
        link failed (Environment)    → record [genesis StoppedClean]
        recorded                     → error upgrade_put_off (history): name=v2 in=60s current cannot be switched: it failed; the old binary goes on until then
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_new_binary_cannot_be_executed() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Permanent)).check(&expect![[r#"
        spawn failed (Permanent)     → warn node_not_started: it failed
                                     → record [genesis StoppedClean | v2 Reverting attempt=0 asked]
        recorded                     → link genesis
        linked                       → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed the new binary cannot be executed: it failed
                                     → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_new_binary_cannot_be_executed_and_the_old_one_must_not() {
    let mut story = stopped(policy(), forking(102), false);
    story.only(Input::Release).only(Input::Ok).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Permanent)).check(&expect![[r#"
        spawn failed (Permanent)     → warn node_not_started: it failed
                                     → record [genesis StoppedClean | v2 Trying attempt=0 asked | halted]
        recorded                     → error halted (history): upgrade v2: the new binary cannot be executed: it failed; and the chain is at the fork
                                     → exit Halted: upgrade v2: the new binary cannot be executed: it failed; and the chain is at the fork
    "#]]);
    story.then(Input::Boot).check(&expect![[r#"
        boot                         → exit Halted: upgrade v2: the new binary cannot be executed: it failed; and the chain is at the fork
    "#]]);
}

#[test]
fn one_that_ends_before_it_answers_is_tried_for_a_while_with_its_last_words_kept() {
    let mut story = trying(policy(), v2());
    let runs = |story: &Story| story.world.machine.as_ref().unwrap().recorded_mode();
    assert_eq!(runs(&story), Mode::Full);
    story.then(CRASH).then(after(10));
    assert_eq!(runs(&story), Mode::Dry);
    assert!(story.take().contains("mode=dry"));
    // It answers, is stopped, and is started again as any other one, at no cost.
    story.then(Input::Head(101)).then(CLEAN);
    assert_eq!(runs(&story), Mode::Full);
    let attempt = story.world.machine.as_ref().unwrap().record().upgrade.clone().unwrap();
    assert_eq!((attempt.attempt - attempt.forgiven, attempt.ended_early), (2, false));
    story.blocks(102, 120).then(after(60)).blocks(121, 122);
    assert!(story.take().contains("outcome=applied"));
}

#[test]
fn the_new_binary_dies_three_times_below_the_fork() {
    let mut story = trying(policy(), forking(1_000));
    story.all([CRASH, Input::Tick, CRASH, Input::Tick, CRASH]).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Trying attempt=1 asked]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=2 asked]
        recorded                     → spawn upgrades/v2 dry
        spawned                      → info node_started: pid=1 version=upgrades/v2 mode=dry
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=2 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Trying attempt=2 asked]
        (+2.0s) tick: backoff        → await release
        release                      → record [genesis Running | v2 Trying attempt=3 asked]
        recorded                     → spawn upgrades/v2 dry
        spawned                      → info node_started: pid=1 version=upgrades/v2 mode=dry
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Reverting attempt=3 asked]
        recorded                     → link genesis
        linked                       → record [genesis StoppedClean | v2 rolled-back]
        recorded                     → error upgrade_ended (history): name=v2 outcome=rolled-back the new binary ended: exit code 2, after 3 attempts
                                     → await release
        release                      → record [genesis Running | v2 rolled-back]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_data_of_the_new_binary_is_of_no_use_to_the_old_one() {
    let upgrade = Upgrade { data_compat: false, ..forking(1_000) };
    let mut story = stopped(Policy { backup: true, ..policy() }, upgrade, false);
    story.then(Input::Release).then(Input::Done).all([CRASH, Input::Tick, CRASH, Input::Tick]).forget();
    story.then(CRASH).then(Input::Done).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Reverting attempt=3 asked backup=v2-1]
        recorded                     → restore
        done                         → warn restored (history): the data is as it was before the upgrade
                                     → link genesis
        linked                       → record [genesis StoppedClean | v2 rolled-back]
        recorded                     → error upgrade_ended (history): name=v2 outcome=rolled-back the new binary ended: exit code 2, after 3 attempts
                                     → await release
        release                      → record [genesis Running | v2 rolled-back]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
                                     → tend backups
    "#]]);
}

#[test]
fn the_new_binary_dies_three_times_past_the_fork() {
    let mut story = trying(policy(), forking(110));
    story.blocks(101, 111).check(&expect![""]);
    story.all([CRASH, Input::Tick, CRASH, Input::Tick, CRASH]).check(&expect![[r#"
        (+11.0s) exited, exit code 2 → warn node_exited: status="exit code 2" after=11s
                                     → await release
        release                      → warn unclean_stop: status="exit code 2" the head may have gone back
                                     → error attempt_failed (history): attempt=1 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=1 asked]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=2 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=2 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=2 asked]
        (+2.0s) tick: backoff        → await release
        release                      → record [genesis Running | v2 Trying attempt=3 asked]
        recorded                     → spawn upgrades/v2 dry
        spawned                      → info node_started: pid=1 version=upgrades/v2 mode=dry
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=3 asked | halted]
        recorded                     → error halted (history): upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the chain is at or past the fork height, where the old binary must not run
                                     → exit Halted: upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the chain is at or past the fork height, where the old binary must not run
    "#]]);
}

#[test]
fn a_validator_may_have_signed() {
    let mut story = trying(Policy { silent_after_unclean: false, validator: true, ..policy() }, v2());
    story.blocks(101, 102).check(&expect![""]);
    story.all([CRASH, Input::Tick, CRASH, Input::Tick]).forget();
    story.then(CRASH).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=4 forgiven | halted]
        recorded                     → error halted (history): upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the new binary may have signed blocks, so the old one must not run
                                     → exit Halted: upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the new binary may have signed blocks, so the old one must not run
    "#]]);
}

#[test]
fn a_validator_that_ran_unseen_may_have_signed() {
    let mut story = trying(Policy { silent_after_unclean: false, validator: true, ..policy() }, v2());
    story.then(Input::Die { effect: false, node: Fate::Rises }).then(Input::Follow).then(Input::Boot);
    story.check(&expect![[r#"
        boot                         → warn recovering (history): the switch is made; starting the new binary
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=3 forgiven]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
    story.all([Input::Tick, CRASH, Input::Tick, CRASH]).check(&expect![[r#"
        (+60.0s) exited, exit code 2 → warn node_exited: status="exit code 2" after=60s
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=3 forgiven]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=4 forgiven]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=2 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=4 forgiven]
    "#]]);
}

#[test]
fn a_full_disk_costs_no_attempt() {
    let mut story = trying(policy(), v2());
    story.all([Input::Full, Input::Tick, Input::Full, Input::Tick]).check(&expect![[r#"
        full                         → warn node_exited: status="exit code 1" after=0ns
                                     → await release
        release                      → warn environment_fault: disk full: the new binary ended: exit code 1; costs no attempt
                                     → record [genesis StoppedClean | v2 Trying attempt=1 asked forgiven]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=2 asked forgiven]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        full                         → warn node_exited: status="exit code 1" after=0ns
                                     → await release
        release                      → warn environment_fault: disk full: the new binary ended: exit code 1; costs no attempt
                                     → record [genesis StoppedClean | v2 Trying attempt=2 asked forgiven]
        (+2.0s) tick: backoff        → await release
        release                      → record [genesis Running | v2 Trying attempt=3 asked forgiven]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn a_machine_out_of_processes_costs_no_attempt() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Environment)).then(Input::Tick).check(&expect![[r#"
        spawn failed (Environment)   → warn node_not_started: it failed
                                     → record [genesis StoppedClean | v2 Trying attempt=0 asked]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn a_free_attempt_is_still_an_execution() {
    // It ran and signed before the disk was full. That it then cannot be executed does not undo this.
    let mut story = trying(Policy { silent_after_unclean: false, validator: true, ..policy() }, v2());
    story.blocks(101, 102).all([Input::Full, Input::Tick, Input::Full]).only(Input::Tick).forget();
    story.only(Input::Release).only(Input::Ok).then(Input::Fail(Class::Permanent)).check(&expect![[r#"
        release                      → record [genesis Running | v2 Trying attempt=4 forgiven]
        recorded                     → spawn upgrades/v2
        spawn failed (Permanent)     → warn node_not_started: it failed
                                     → error attempt_failed (history): attempt=1 of=3 the new binary cannot be executed: it failed
                                     → record [genesis StoppedUnclean | v2 Trying attempt=4 forgiven]
    "#]]);
}

#[test]
fn the_new_binary_never_tells_a_head() {
    let mut story = trying(Policy { start_timeout: secs(120), ..policy() }, v2());
    story.all([Input::Tick, Input::Tick]).check(&expect![[r#"
        (+120.0s) tick: start timeout → warn unproven: no head was reported within 120s
                                     → SIGTERM
    "#]]);
    story.then(CLEAN).check(&expect![[r#"
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 no head was reported within 120s
                                     → record [genesis StoppedClean | v2 Trying attempt=1 asked]
    "#]]);
}

#[test]
fn a_new_binary_that_hangs_for_want_of_something_costs_no_attempt() {
    let mut story = trying(Policy { start_timeout: secs(120), ..policy() }, v2());
    story.all([Input::Tick, Input::Tick]).forget().then(Input::Full).check(&expect![[r#"
        full                         → info node_stopped: status="exit code 1" after=0ns
                                     → await release
        release                      → warn unclean_stop: status="exit code 1" the head may have gone back
                                     → warn environment_fault: disk full: no head was reported within 120s; costs no attempt
                                     → record [genesis StoppedUnclean | v2 Trying attempt=1 asked forgiven]
    "#]]);
}

#[test]
fn a_validator_that_is_not_heard_may_have_signed() {
    let policy =
        Policy { start_timeout: secs(120), silent_after_unclean: false, validator: true, ..policy() };
    let mut story = trying(policy, v2());
    story.then(after(125)).then(CLEAN).check(&expect![[r#"
        (+120.0s) pass               → warn unproven: no head was reported within 120s
                                     → remove peers
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 no head was reported within 120s
                                     → record [genesis StoppedClean | v2 Trying attempt=2 forgiven]
    "#]]);
    story.all([Input::Tick, CRASH, Input::Tick]).forget().then(CRASH).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Trying attempt=4 forgiven | halted]
        recorded                     → error halted (history): upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the new binary may have signed blocks, so the old one must not run
                                     → exit Halted: upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the new binary may have signed blocks, so the old one must not run
    "#]]);
}

#[test]
fn the_head_of_the_new_binary_stands_still() {
    let mut story = trying(Policy { start_timeout: secs(120), ..policy() }, v2());
    story.blocks(101, 105).then(after(125)).check(&expect![[r#"
        (+125.0s) pass               → warn unproven: the head has stood at 105 for 120s
                                     → SIGTERM
    "#]]);
}

#[test]
fn the_head_stands_still_where_no_way_leads_back() {
    let mut story = trying(Policy { start_timeout: secs(120), ..policy() }, forking(103));
    story.blocks(101, 105).then(after(125)).check(&expect![[r#"
        (+125.0s) pass               → warn probation_overdue: the head has stood at 105 for 120s
    "#]]);
    story.blocks(106, 130).check(&expect![[r#"
        (+16.0s) head 121            → record [upgrades/v2 Running | v2 applied]
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied blocks=20 lived=141s head=121
                                     → after the upgrade to v2
    "#]]);
}

#[test]
fn the_old_node_ends_uncleanly() {
    // No backup of such data, and no way back to it.
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![v2()]);
    story.blocks(100, 101).forget().then(Input::Exit(Status::Signal(9))).check(&expect![[r#"
        (+1.0s) exited, signal 9     → info node_stopped: status="signal 9" after=1s
                                     → await release
        release                      → warn unclean_stop: status="signal 9" the head may have gone back
                                     → record [genesis Running | v2 Trying attempt=1 asked unclean]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
    story.all([CRASH, Input::Tick, CRASH, Input::Tick]).forget().then(CRASH).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=3 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedUnclean | v2 Trying attempt=3 asked unclean | halted]
        recorded                     → error halted (history): upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the old node ended uncleanly, so its data proves nothing
                                     → exit Halted: upgrade v2 has failed (the new binary ended: exit code 2, after 3 attempts), and the old node ended uncleanly, so its data proves nothing
    "#]]);
}

#[test]
fn the_link_cannot_be_switched_back() {
    let mut story = trying(policy(), v2());
    story.all([CRASH, Input::Tick, CRASH, Input::Tick]).only(CRASH).only(Input::Release).only(Input::Ok);
    story.forget().then(Input::Fail(Class::Permanent)).then(Input::Boot).check(&expect![[r#"
        link failed (Permanent)      → record [genesis StoppedClean | v2 Reverting attempt=3 asked | halted]
        recorded                     → error halted (history): current cannot be switched back: it failed
                                     → exit Halted: current cannot be switched back: it failed
        boot                         → exit Halted: current cannot be switched back: it failed
    "#]]);
}

#[test]
fn a_backup_that_failed_for_want_of_something_is_tried_again() {
    let mut story = stopped(Policy { backup: true, ..policy() }, v2(), false);
    story.then(Input::Release).then(Input::Failed(Class::Environment)).then(Input::Head(102)).forget();
    let why = |story: &Story| story.world.machine.as_ref().unwrap().view().planned[0].why.clone();
    assert_eq!(why(&story), "it is put off for a while: backup: it failed");
    story.then(after(60)).then(after(1)).then(CLEAN).then(Input::Done).check(&expect![[r#"
        (+60.0s) pass                → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=102
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn an_upgrade_is_put_off_for_longer_each_time_and_not_beyond_its_fork() {
    let policy = Policy { backup: true, ..policy() };
    let mut waits = Vec::new();
    for (fork, times) in [(None, 8), (Some(200), 3)] {
        let mut story = stopped(policy.clone(), Upgrade { fork_height: fork, ..v2() }, false);
        story.then(Input::Release).take();
        for _ in 0..times {
            story.then(Input::Failed(Class::Environment));
            let told = story.take();
            let wait = told.split("name=v2 in=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            waits.push(wait);
            let head = story.world.head;
            while story.world.process.as_ref().is_none_or(|p| !p.terminated) {
                story.then(Input::Head(head)).then(after(1_000));
            }
            story.then(CLEAN).take();
        }
    }
    assert_eq!(waits.join(" "), "60s 120s 240s 480s 960s 1920s 3600s 3600s 49s 49s 49s");
}

#[test]
fn a_backup_that_fails_at_the_fork_is_made_again() {
    let mut story = stopped(Policy { backup: true, ..policy() }, forking(102), false);
    story.then(Input::Release).forget().then(Input::Failed(Class::Environment)).then(Input::Tick);
    story.check(&expect![[r#"
        failed(environment)          → error upgrade_set_back (history): backup: it failed; the chain is at the fork, so it is tried again in 930.0ms
        (+930.0ms) tick: backoff     → back up
    "#]]);
}

#[test]
fn current_leads_to_the_new_binary_though_the_switch_has_failed() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).forget();
    story.then(Input::FailLate(Class::Environment)).check(&expect![[r#"
        failed late (Environment)    → record [genesis StoppedClean | v2 Reverting attempt=0 asked]
        recorded                     → link genesis
        linked                       → record [genesis StoppedClean]
        recorded                     → error upgrade_put_off (history): name=v2 in=60s current cannot be switched: it failed; the old binary goes on until then
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn current_cannot_be_switched_for_good() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Permanent)).check(&expect![[r#"
        link failed (Permanent)      → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed current cannot be switched: it failed
                                     → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn current_leads_to_the_old_binary_though_the_way_back_has_failed() {
    let mut story = trying(policy(), v2());
    story.all([CRASH, Input::Tick, CRASH, Input::Tick]).only(CRASH).only(Input::Release).only(Input::Ok);
    story.forget().then(Input::FailLate(Class::Permanent)).check(&expect![[r#"
        failed late (Permanent)      → warn link_not_durable: current cannot be switched back: it failed
                                     → record [genesis StoppedClean | v2 rolled-back]
        recorded                     → error upgrade_ended (history): name=v2 outcome=rolled-back the new binary ended: exit code 2, after 3 attempts
                                     → await release
        release                      → record [genesis Running | v2 rolled-back]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_way_back_is_taken_when_that_is_possible_again() {
    let mut story = trying(policy(), v2());
    story.all([CRASH, Input::Tick, CRASH, Input::Tick]).only(CRASH).only(Input::Release).only(Input::Ok);
    story.forget().then(Input::Fail(Class::Environment)).then(Input::Tick).check(&expect![[r#"
        link failed (Environment)    → error link_failed (history): current cannot be switched back: it failed; again in 930.0ms
        (+930.0ms) tick: backoff     → link genesis
        linked                       → record [genesis StoppedClean | v2 rolled-back]
        recorded                     → error upgrade_ended (history): name=v2 outcome=rolled-back the new binary ended: exit code 2, after 3 attempts
                                     → await release
        release                      → record [genesis Running | v2 rolled-back]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn a_machine_that_stays_out_of_processes_goes_back_to_the_old_binary() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).only(Input::Ok).forget();
    for _ in 0..2 {
        story.then(Input::Fail(Class::Environment)).only(Input::Tick).only(Input::Release).only(Input::Ok);
    }
    story.forget().then(Input::Fail(Class::Environment)).check(&expect![[r#"
        spawn failed (Environment)   → warn node_not_started: it failed
                                     → record [genesis StoppedClean | v2 Reverting attempt=0 asked]
        recorded                     → link genesis
        linked                       → record [genesis StoppedClean]
        recorded                     → error upgrade_put_off (history): name=v2 in=60s the new binary cannot be executed: it failed; the old binary goes on until then
                                     → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
    story.then(Input::Head(102)).then(after(61)).then(after(1)).then(CLEAN).check(&expect![[r#"
        (+60.0s) pass                → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=102
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
}

#[test]
fn a_sigterm_that_could_not_be_sent_is_sent_again() {
    let mut story = Story::running(policy(), vec![]);
    story.then(Input::Plan(vec![v2()])).then(Input::Unsent).then(Input::Head(100)).forget();
    story.then(Input::Tick).then(CLEAN).check(&expect![[r#"
        (+100.0ms) tick: send SIGTERM again → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        exited, exit code 0          → info node_stopped: status="exit code 0" after=100ms
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn the_new_binary_is_killed_while_it_is_tried_without_peers() {
    let policy = Policy { validator: true, ..policy() };
    let mut story = stopped(policy, v2(), false);
    story.then(Input::Release).forget();
    story.then(Input::Exit(Status::Signal(9))).check(&expect![[r#"
        exited, signal 9             → warn node_exited: status="signal 9" after=0ns
                                     → await release
        release                      → warn unclean_stop: status="signal 9" the head may have gone back
                                     → record [genesis StoppedUnclean | v2 Reverting attempt=1]
        recorded                     → link genesis
        linked                       → record [genesis StoppedUnclean]
        recorded                     → error upgrade_put_off (history): name=v2 in=60s the new binary ended: signal 9; the old binary goes on until then
                                     → await release
    "#]]);
}
