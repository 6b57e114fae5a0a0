//! `wait-height` and `plan wait`: what scripts see.

use super::wait_applied;
use crate::rig::sim::Sim;
use crate::rig::visor::Rig;

#[test]
fn no_supervisor_is_there_to_be_asked() {
    let rig = Rig::new();
    let said = rig.fails(69, &["wait-height", "5"]);
    assert!(said.contains("the node cannot be asked"), "{said}");
    rig.fails(4, &["plan", "wait", "p"]);
    rig.ok(&["plan", "create", "p", "v2:30"]);
    let said = rig.fails(1, &["plan", "wait", "p"]);
    assert!(said.contains("wemixvisor plan execute p"), "{said}");
    rig.ok(&["plan", "execute", "p"]);
    let said = rig.fails(69, &["plan", "wait", "p"]);
    assert!(said.contains("nothing will happen"), "{said}");
}

#[test]
fn a_supervisor_tells_the_height_and_the_plan() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.follow("p", &["v2:30"]);
    let mut visor = rig.run();
    visor.wait(&["event=rpc_connected"]);
    // From before the upgrade to after it: the node is down in between.
    let head = rig.ok(&["wait-height", "40"]);
    let height: u64 = head.trim().strip_prefix("head ").unwrap().parse().unwrap();
    assert!(height >= 40, "{head}");
    let said = rig.fails(5, &["wait-height", "100000", "--timeout", "50ms"]);
    assert!(said.contains("not yet 100000"), "{said}");
    assert_eq!(rig.ok(&["plan", "wait", "p", "--timeout", "30s"]), "plan p is done: 1 upgrade\n");

    rig.follow("q", &["v3:100000"]);
    let said = rig.fails(5, &["plan", "wait", "q", "--timeout", "50ms"]);
    assert!(said.contains("plan q: 0 of 1 done, 1 to come"), "{said}");
    assert_eq!(visor.stop(), 0);
    // The outcome is known also where no supervisor runs.
    rig.ok(&["plan", "wait", "p"]);
}

#[test]
fn a_plan_that_did_not_succeed_is_no_success() {
    let rig = Rig::new().set("DAEMON_SMOKE_ARGS", "version");
    rig.stage("v2", &[]);
    let hook = rig.of("upgrades/v2/pre-upgrade");
    std::fs::write(&hook, "#!/bin/sh\nexit 30\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.follow("p", &["v2:20"]);
    let mut visor = rig.run();
    let said = rig.fails(1, &["plan", "wait", "p"]);
    assert!(said.contains("plan p has ended, but 1 did not succeed"), "{said}");
    let status = rig.plan_status("p");
    assert_eq!(super::phases(&status), ["aborted"]);
    assert!(status["upgrades"][0]["detail"].as_str().unwrap().contains("hook"), "{status}");
    // Planned at a new height it counts again.
    std::fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
    rig.ok(&["plan", "remove-upgrade", "p", "v2"]);
    rig.ok(&["plan", "add-upgrade", "p", "v2:25"]);
    rig.ok(&["plan", "execute", "p"]);
    wait_applied(&mut visor, "v2");
    rig.ok(&["plan", "wait", "p"]);
    assert_eq!(visor.stop(), 0);
}

#[test]
fn without_a_supervisor_the_node_tells_the_height() {
    let rig = Rig::new();
    let node = Sim::new(rig.data()).start();
    let head = rig.ok(&["wait-height", "12"]);
    assert!(head.starts_with("head 1"), "{head}");
    rig.fails(5, &["wait-height", "100000", "--timeout", "30ms"]);
    drop(node);
    rig.fails(69, &["wait-height", "100000"]);
    // Over HTTP it does not tell by itself, and is asked.
    let web = Sim::new(rig.data()).arg("--http").arg("--http.port").arg("0").start();
    let rig = rig.set("DAEMON_RPC_ADDRESS", &format!("127.0.0.1:{}", web.traces.http_port()));
    // Without its socket, which comes first.
    std::fs::remove_file(&web.ipc).unwrap();
    rig.ok(&["wait-height", "30"]);
}
