//! Upgrades: how one goes, what makes it due, and what keeps it waiting.

use super::transcript::{CLEAN, Story, after, secs};
use super::world::Input;
use super::*;
use expect_test::expect;

#[test]
fn at_its_height_and_never_again() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.then(Input::Boot);
    story.check(&expect![[r#"
        boot                         → await release
        release                      → record [genesis Running]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
    "#]]);
    story.blocks(98, 100).then(Input::Head(100)).then(CLEAN);
    story.check(&expect![[r#"
        (+3.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
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
    story.blocks(100, 120).then(after(60)).blocks(121, 140).check(&expect![[r#"
        (+60.0s) pass                → record [upgrades/v2 Running | v2 applied]
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied blocks=20 lived=60s head=120
                                     → after the upgrade to v2
    "#]]);
    // The schedule still has it, but it has been applied.
    story.then(Input::Die { effect: false, node: Fate::Dies }).then(Input::Boot).blocks(141, 142);
    story.check(&expect![[r#"
        (+20.0s) boot                → await release
        release                      → record [upgrades/v2 Running | v2 applied]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn with_backup_and_hook() {
    let mut story = Story::running(Policy { backup: true, ..policy() }, vec![]);
    story.world.hook = true;
    story.then(Input::Plan(vec![v2()])).forget();
    story.blocks(100, 101).then(CLEAN).then(Input::Done).then(Input::Done);
    story.check(&expect![[r#"
        (+1.0s) head 100             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → back up
                                     → record [genesis StoppedClean | v2 Stopped attempt=0 asked]
        done                         → info backed_up (history): backup=v2-1 method=copy
                                     → record [genesis StoppedClean | v2 BackedUp attempt=0 asked backup=v2-1]
        recorded                     → run hook, retries=0
        done                         → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn the_height_is_jumped_over() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Head(130)).then(Input::Head(131)).check(&expect![[r#"
        (+60.0s) head 130            → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=130
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn a_head_that_is_linked_to_nothing_is_not_enough() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.world.chain = "other";
    story.then(Input::Head(100)).then(Input::Head(101)).then(Input::Head(5_000));
    story.check(&expect![[r#"
        (+60.0s) head 100            → warn other_block: block 99 was 0x63 and is other63; if the network is right, forget ours with `wemixvisor resolve head`
    "#]]);
    story.world.chain = "0x";
    story.then(after(10)).then(Input::Head(100)).check(&expect![[r#"
        (+10.0s) head 100            → warn head_went_back: from=5000 to=100
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn late_start() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.world.head = 500;
    story.then(Input::Boot).forget();
    story.then(Input::Head(500)).then(Input::Head(500)).check(&expect![[r#"
        head 500                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=500
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn the_binary_is_missing_at_first() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.prepares = false;
    story.then(Input::Boot).forget();
    story.then(Input::Failed(Class::Permanent)).blocks(99, 101);
    story.then(after(8)).then(Input::Failed(Class::Permanent));
    story.check(&expect![[r#"
        failed(permanent)            → warn upgrade_not_ready: name=v2 it failed
        (+2.0s) head 100             → error upgrade_overdue (history): name=v2 height=100 head=100 the old binary goes on: it failed
        (+7.3s) pass                 → prepare v2
    "#]]);
    // The operator has staged it.
    story.then(Input::Ask(Request::Refresh(name("v2")))).then(Input::Done).check(&expect![[r#"
        ask refresh(name("v2"))      → answer: looking again
                                     → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=101
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn the_binary_changes_after_its_verification() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.only(Input::Head(100)).then(Input::Fail(Class::Integrity));
    story.then(Input::Tick).check(&expect![[r#"
        (+60.0s) head 100            → inspect upgrades/v2
        inspect failed (Integrity)   → warn upgrade_changed_on_disk: name=v2 it failed
                                     → error upgrade_overdue (history): name=v2 height=100 head=100 the old binary goes on: it failed
        (+930.0ms) tick: prepare again → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=100
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn a_second_upgrade_waits_until_the_first_is_good() {
    let v3 = upgrade("v3", 110);
    let mut story = Story::running(policy(), vec![v2(), v3]);
    story.blocks(100, 101).then(CLEAN).forget();
    story.blocks(101, 165).then(CLEAN).check(&expect![[r#"
        (+60.0s) pass                → record [upgrades/v2 Running | v2 applied]
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied blocks=58 lived=60s head=159
                                     → after the upgrade to v2
                                     → inspect upgrades/v3
        inspected                    → record [upgrades/v2 Running | v3 Stopping attempt=0 | v2 applied]
        recorded                     → info upgrade_due (history): name=v3 height=110 head=159
                                     → SIGTERM
                                     → record [upgrades/v2 Running | v3 Stopping attempt=0 asked | v2 applied]
        (+5.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=5s
                                     → await release
        release                      → record [upgrades/v2 Running | v3 Trying attempt=1 asked | v2 applied]
        recorded                     → link upgrades/v3
        linked                       → info switched (history): current=upgrades/v3
                                     → spawn upgrades/v3
        spawned                      → info node_started: pid=1 version=upgrades/v3
    "#]]);
}

#[test]
fn a_chain_that_stops_by_itself() {
    let policy = Policy { watch_height: false, restart_on_failure: false, ..policy() };
    let mut story = Story::new(policy, vec![]);
    story.prepares = false;
    story.then(Input::Boot).forget();
    // The node names the upgrade and ends at once; its binary has to be downloaded first.
    let told = Upgrade { origin: Origin::TriggerFile, ..v2() };
    story.then(Input::Plan(vec![told])).then(Input::Exit(Status::Code(2))).check(&expect![[r#"
        schedule v2@100              → info upgrade_known: name=v2 height=100 from="upgrade-info.json"
                                     → prepare v2
        exited, exit code 2          → warn node_exited: status="exit code 2" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean]
        recorded                     → await release
        release                      → warn start_held: the binary of v2 is not ready yet
    "#]]);
    story.then(Input::Done).then(Input::Tick).check(&expect![[r#"
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis StoppedClean | v2 Stopped attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=90
                                     → record [genesis Running | v2 Trying attempt=1]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        (+60.0s) tick: probation     → record [upgrades/v2 Running | v2 applied]
        recorded                     → info upgrade_ended (history): name=v2 outcome=applied lived=60s
                                     → after the upgrade to v2
    "#]]);
}

#[test]
fn the_trigger_is_the_file_where_no_height_is_known() {
    let told = Upgrade { origin: Origin::TriggerFile, ..v2() };
    let mut story = Story::running(Policy { watch_height: false, ..policy() }, vec![upgrade("v9", 1)]);
    story.then(Input::Plan(vec![told])).check(&expect![[r#"
        (+60.0s) schedule v2@100     → info upgrade_known: name=v2 height=100 from="upgrade-info.json"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=99
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn the_trigger_file_counts_whoever_else_plans_the_same_or_something_before() {
    let by_plan = |upgrade| Upgrade { origin: Origin::Plan(name("p")), ..upgrade };
    let planned = vec![by_plan(upgrade("v1b", 50)), by_plan(v2())];
    let mut story = Story::running(Policy { watch_height: false, ..policy() }, planned.clone());
    story.forget();
    // As the schedule has it when the file names what the plan has too. The binary is ready already.
    let all = planned.into_iter().chain([Upgrade { origin: Origin::TriggerFile, ..v2() }]);
    let told = merge(all.map(Arc::new), &[], &[]).upgrades.into_iter().map(Arc::unwrap_or_clone).collect();
    story.then(Input::Plan(told)).check(&expect![[r#"
        (+60.0s) schedule v1b@50 v2@100 → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=100 head=99
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn without_a_start_after_the_switch() {
    let mut story = Story::running(Policy { restart_after_upgrade: false, ..policy() }, vec![v2()]);
    story.blocks(100, 101).forget().then(CLEAN).check(&expect![[r#"
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis StoppedClean | v2 Trying attempt=0 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
                                     → exit Ok: switched; daemon_restart_after_upgrade is off
    "#]]);
    story.then(Input::Boot).check(&expect![[r#"
        boot                         → warn recovering (history): the switch is made; starting the new binary
                                     → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn with_a_delay_before_the_start() {
    let mut story = Story::running(Policy { restart_delay: secs(30), ..policy() }, vec![v2()]);
    story.blocks(100, 101).forget().then(CLEAN).then(Input::Tick).check(&expect![[r#"
        (+1.0s) exited, exit code 0  → info node_stopped: status="exit code 0" after=1s
                                     → await release
        release                      → record [genesis StoppedClean | v2 Trying attempt=0 asked]
        recorded                     → link upgrades/v2
        linked                       → info switched (history): current=upgrades/v2
        (+30.0s) tick: backoff       → await release
        release                      → record [genesis Running | v2 Trying attempt=1 asked]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
    "#]]);
}

#[test]
fn moved_to_another_height() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.then(Input::Plan(vec![upgrade("v2", 105)])).blocks(100, 104).then(Input::Head(104));
    story.check(&expect![[r#"
        (+60.0s) schedule v2@105     → info upgrade_known: name=v2 height=105 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
    "#]]);
    // Its binary is verified anew, as the digest may have been what changed.
    story.then(Input::Plan(vec![upgrade("v2", 103)])).check(&expect![[r#"
        (+5.0s) schedule v2@103      → info upgrade_known: name=v2 height=103 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
                                     → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0]
        recorded                     → info upgrade_due (history): name=v2 height=103 head=104
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked]
    "#]]);
}

#[test]
fn changed_while_it_is_being_prepared() {
    let mut story = Story::new(policy(), vec![v2()]);
    story.prepares = false;
    story.then(Input::Boot).forget();
    let digest = Some(Digest::sha256(b"other"));
    story.then(Input::Plan(vec![Upgrade { digest, ..v2() }])).then(Input::Done).check(&expect![[r#"
        schedule v2@100              → cancel job
        done                         → info upgrade_known: name=v2 height=100 from="schedule"
                                     → prepare v2
    "#]]);
}

#[test]
fn a_failed_one_is_new_at_another_height() {
    let mut story = Story::running(policy(), vec![v2()]);
    story.world.hook = true;
    story.then(Input::Plan(vec![upgrade("v2", 101)])).blocks(101, 102).then(CLEAN);
    story.then(Input::Failed(Class::Permanent)).forget();
    story.blocks(103, 105).check(&expect![[""]]);
    story.then(Input::Plan(vec![upgrade("v2", 106)])).blocks(106, 107).check(&expect![[r#"
        (+3.0s) schedule v2@106      → info upgrade_known: name=v2 height=106 from="schedule"
                                     → prepare v2
        done                         → info upgrade_ready: name=v2 sha256=d2857e9b0d6a4aa8b8ca67bd2e2a61eaefd5d4ab13fa1f90dec184af7d8893ab
        (+1.0s) head 106             → inspect upgrades/v2
        inspected                    → record [genesis Running | v2 Stopping attempt=0 | v2 failed]
        recorded                     → info upgrade_due (history): name=v2 height=106 head=106
                                     → SIGTERM
                                     → record [genesis Running | v2 Stopping attempt=0 asked | v2 failed]
    "#]]);
}

#[test]
fn a_home_that_has_it_already() {
    let mut story = Story::new(policy(), vec![v2()]);
    let link = Target::Upgrade(name("v2"));
    story.world.truth.verified.insert(link.clone());
    story.world.record = Record::new(version(&link));
    story.world.link = link;
    story.then(Input::Boot).blocks(100, 101).check(&expect![[r#"
        boot                         → await release
        release                      → record [upgrades/v2 Running]
        recorded                     → spawn upgrades/v2
        spawned                      → info node_started: pid=1 version=upgrades/v2
        (+1.0s) head 100             → record [upgrades/v2 Running]
        recorded                     → confirm
                                     → info chain_bound: chain=1 genesis=0x00
    "#]]);
}
