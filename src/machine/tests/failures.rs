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
        failed(environment)          → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed backup: it failed
                                     → await release
        release                      → record [genesis Running | v2 failed]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
}

#[test]
fn the_link_cannot_be_switched() {
    let mut story = stopped(policy(), v2(), false);
    story.only(Input::Release).only(Input::Ok).forget();
    story.then(Input::Fail(Class::Environment)).check(&expect![[r#"
        link failed (Environment)    → record [genesis StoppedClean | v2 Reverting attempt=0 asked]
        recorded                     → link genesis
        linked                       → record [genesis StoppedClean | v2 failed]
        recorded                     → error upgrade_ended (history): name=v2 outcome=failed current cannot be switched: it failed
                                     → await release
        release                      → record [genesis Running | v2 failed]
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
fn the_new_binary_dies_three_times_below_the_fork() {
    let mut story = trying(policy(), forking(1_000));
    story.all([CRASH, Input::Tick, CRASH, Input::Tick, CRASH]).check(&expect![[r#"
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Trying attempt=1 asked]
        (+930.0ms) tick: backoff     → await release
        release                      → record [genesis Running | v2 Trying attempt=2 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=2 of=3 the new binary ended: exit code 2
                                     → record [genesis StoppedClean | v2 Trying attempt=2 asked]
        (+2.0s) tick: backoff        → await release
        release                      → record [genesis Running | v2 Trying attempt=3 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
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
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
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
        (+120.0s) tick: start timeout → warn unproven: no head was told within 120s
                                     → SIGTERM
    "#]]);
    story.then(CLEAN).check(&expect![[r#"
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 no head was told within 120s
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
                                     → warn environment_fault: disk full: no head was told within 120s; costs no attempt
                                     → record [genesis StoppedUnclean | v2 Trying attempt=1 asked forgiven]
    "#]]);
}

#[test]
fn a_validator_that_is_not_heard_may_have_signed() {
    let policy =
        Policy { start_timeout: secs(120), silent_after_unclean: false, validator: true, ..policy() };
    let mut story = trying(policy, v2());
    story.then(after(125)).then(CLEAN).check(&expect![[r#"
        (+120.0s) pass               → warn unproven: no head was told within 120s
                                     → remove peers
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="exit code 0" after=0ns
                                     → await release
        release                      → error attempt_failed (history): attempt=1 of=3 no head was told within 120s
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
