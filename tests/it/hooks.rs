//! The hooks of an upgrade: their environment, their exit codes, and the limits on them.

use super::rig::sim::until;
use super::rig::visor::{Rig, is_alive, send, write_script};
use std::fs;

#[test]
fn hooks_decide_over_an_upgrade() {
    let rig = Rig::new().set("DAEMON_PREUPGRADE_MAX_RETRIES", "2");
    let end = |code| format!("echo \"it is $UPGRADE_HEIGHT\"; exit {code}");
    for (name, height, script) in [
        ("abort", 5, end(30)),
        ("fail", 10, end(5)),
        ("retry", 15, end(31)),
        ("good", 20, "echo again >> tries; [ \"$(wc -l < tries)\" -gt 2 ] || exit 31".to_owned()),
    ] {
        rig.stage(name, &[]);
        rig.hook(name, "pre-upgrade", &script);
        rig.schedule(name, height);
    }
    let mut visor = rig.run();
    assert!(visor.wait_outcome("abort", "aborted").contains("it is 5"));
    assert!(visor.wait_outcome("fail", "failed").contains("exit code 5: it is 10"));
    assert!(visor.wait_outcome("retry", "failed").contains("asked for another try 3 times: it is 15"));
    visor.wait_outcome("good", "applied");
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, ["v1", "v1", "v1", "v1", "good"]);
    let args: Vec<_> = rig.traces().starts().iter().map(|s| s["args"].clone()).collect();
    assert!(args.iter().all(|a| *a == args[0]), "{args:?}");
    // Each try once more, after the node was down, and never again.
    assert_eq!(visor.count(&["hook_output", "name=retry"]), 3);
    assert_eq!(fs::read_to_string(rig.home().join("tries")).unwrap().lines().count(), 3);
    let list = rig.ok(&["upgrade", "list"]);
    for part in ["abort", "aborted: pre-upgrade hook asked to abort: it is 5", "good", "applied: "] {
        assert!(list.contains(part), "{list}");
    }
    assert_eq!(visor.stop(), 0);
}

#[test]
fn the_configured_hook_is_told_everything() {
    let rig = Rig::empty();
    let hook = rig.path().join("any hook");
    write_script(&hook, "env > env; pwd >> env; ls -d data/simnode/LOCK >> env; cat >> env");
    let rig = rig.set("DAEMON_PREUPGRADE", hook.to_str().unwrap());
    let v1 = rig.binary("v1", &[]);
    rig.ok(&["init", v1.to_str().unwrap()]);
    rig.stage("v2", &[]);
    rig.trigger("{\"name\":\"v2\",\"height\":5,\"info\":{\"a\":[1]},\"more\":\"x\"}");
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    let env = fs::read_to_string(rig.home().join("env")).unwrap();
    for line in [
        &format!("DAEMON_HOME={}", rig.home().display()),
        "DAEMON_NAME=simnode",
        "UPGRADE_NAME=v2",
        "UPGRADE_HEIGHT=5",
        "UPGRADE_INFO={\"a\":[1],\"more\":\"x\"}",
        "UPGRADE_RETRY=0",
        rig.home().to_str().unwrap(),
    ] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
}

#[test]
fn a_hook_has_its_time_and_takes_nothing_along() {
    let rig = Rig::new().set("DAEMON_PREUPGRADE_TIMEOUT", "1s");
    rig.stage("v2", &[]);
    let script = "sleep 1000 & echo $! > child; yes | head -c 3000000; echo $$ > self; exec sleep 1000";
    rig.hook("v2", "pre-upgrade", script);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    assert!(visor.wait_outcome("v2", "failed").contains("took longer than 1 s"));
    visor.wait_count(2, &["event=node_started", "version=genesis"]);
    for file in ["self", "child"] {
        let pid = fs::read_to_string(rig.home().join(file)).unwrap().trim().parse().unwrap();
        until("the end of the hook's processes", || (!is_alive(pid)).then_some(()));
    }
    let (log, node) = (visor.log().len(), visor.node());
    assert!(log < 100_000, "its output is limited: {log} bytes");
    assert!(visor.log().contains(" lines left out]"));
    assert!(visor.children().iter().all(|(pid, _)| *pid == node), "{:?}", visor.children());
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_hook_that_cannot_run_is_found_before_the_height() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    let hook = rig.of("upgrades/v2/pre-upgrade");
    fs::write(&hook, "exit 0").unwrap();
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    visor.wait(&["event=upgrade_not_ready", "name=v2", "the hook is not executable"]);
    visor.wait_head(8);
    assert_eq!((rig.current().as_str(), visor.count(&["event=node_started"])), ("genesis", 1));
    assert_eq!(visor.stop(), 0);
}

#[test]
fn a_binary_that_changes_or_goes_after_it_was_ready_leaves_the_old_one_running() {
    // One that is missing may be put back.
    let missing = ("rm", ["event=upgrade_put_off", "No such file"]);
    let changed = ("echo >>", ["event=upgrade_ended", "the staged binary has changed"]);
    for (change, says) in [missing, changed] {
        let rig = Rig::new();
        rig.stage("v2", &[]);
        let binary = rig.of("upgrades/v2/bin/simnode");
        let script = format!("chmod u+w {0}; {change} {0}", binary.display());
        rig.hook("v2", "pre-upgrade", &script);
        rig.schedule("v2", 5);
        let mut visor = rig.run();
        visor.wait(&says);
        visor.wait_count(2, &["event=node_started", "version=genesis"]);
        assert_eq!(rig.current(), "genesis");
        assert_eq!(visor.stop(), 0);
    }
}

#[test]
fn after_an_upgrade_its_own_hook_runs_and_decides_nothing() {
    let rig = Rig::new();
    for (name, height) in [("v2", 5), ("v3", 1_000_000)] {
        rig.stage(name, &[]);
        rig.schedule(name, height);
    }
    rig.hook("v2", "post-upgrade", "readlink wemixvisor/current > after; echo bad luck; exit 1");
    rig.hook("v3", "post-upgrade", "echo $$ > self; exec sleep 1000");
    let mut visor = rig.run();
    visor.wait(&["event=post_upgrade_failed", "name=v2", "exit code 1: bad luck"]);
    assert_eq!(fs::read_to_string(rig.home().join("after")).unwrap(), "upgrades/v2\n");
    assert_eq!(visor.status()["ended"][0]["outcome"], "applied");
    rig.ok(&["upgrade", "now", "v3"]);
    let pid =
        until("the hook", || fs::read_to_string(rig.home().join("self")).ok()?.trim().parse::<u32>().ok());
    // The node and everything else goes on meanwhile.
    visor.wait_outcome("v3", "applied");
    let head = visor.wait_head(0);
    visor.wait_head(head + 5);
    assert_eq!(visor.stop(), 0);
    assert!(!is_alive(pid));
    let history = rig.history();
    assert_eq!(
        history.iter().filter(|line| line.starts_with("post_upgrade_failed")).count(),
        2,
        "{history:?}"
    );
    let versions: Vec<_> = rig.traces().starts().iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, ["v1", "v2", "v3"]);
}

#[test]
fn no_node_starts_and_no_hook_runs_again_beside_what_a_killed_supervisors_hook_has_left() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    // The hook dies with the supervisor; what it has started does not.
    let script = "echo \"retry=$UPGRADE_RETRY\" >> runs; [ $UPGRADE_RETRY = 1 ] && exit 0; \
                  sleep 1000 & echo $! > child; exec sleep 1000";
    rig.hook("v2", "pre-upgrade", script);
    rig.schedule("v2", 5);
    let mut visor = rig.run();
    let pid = until("the child of the hook", || {
        let text = fs::read_to_string(rig.home().join("child")).ok()?;
        text.ends_with('\n').then(|| text.trim().parse::<u32>().unwrap())
    });
    visor.kill();
    let mut next = rig.run();
    next.wait(&["event=waiting_for_locks", &format!("process {pid} (sleep)")]);
    assert_eq!(next.status()["state"], "waiting-for-locks");
    assert_eq!(rig.versions(), ["v1"]);
    assert!(is_alive(pid));
    send(pid, rustix::process::Signal::KILL);
    next.wait_outcome("v2", "applied");
    assert_eq!(rig.versions(), ["v1", "v2"]);
    assert_eq!(fs::read_to_string(rig.home().join("runs")).unwrap(), "retry=0\nretry=1\n");
    assert_eq!(next.stop(), 0);
}
