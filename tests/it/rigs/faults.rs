//! A supervisor with an upgrade before it, and one system call that fails, once or for ever: it is no bug of ours that
//! ends it, a node runs in the end, and the upgrade is applied, or it is held or has failed with a reason.

use super::calls::Call;
use super::flows::{Run, Scene, in_turn, start};
use super::settings::Settings;
use super::trace::{Fault, is_permitted};
use super::upgrade::UPGRADE;
use super::{ERRORS, is_documented};
use crate::rig::sim::{try_call, until_within};
use crate::rig::visor::{is_alive, working_on};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

/// Calls that `cargo test` has fail.
const REDUCED: usize = 6;
/// Supervisors at the same time.
const AT_ONCE: usize = 4;
/// The longest time that a supervisor may need to get over one error: a backoff and the upgrade. Where the error goes
/// on, this is when it is looked at.
const ONCE: Duration = Duration::from_secs(75);
const FOR_EVER: Duration = Duration::from_secs(8);

/// Trouble that no program can avoid: the trouble that comes where this call fails on a path that ends so. Empty is any.
struct Known {
    /// Its name.
    finding: &'static str,
    call: &'static str,
    on: &'static str,
    /// A part of the trouble.
    trouble: &'static str,
}

/// Without these calls no node may be started, or can be.
const KNOWN: &[Known] = &[
    // Without the claim on the home another supervisor may be at work on it. Writing into the claim may fail.
    Known { finding: "no claim", call: "openat", on: "/wemixvisor/lock", trouble: BEFORE },
    Known { finding: "no claim", call: "flock", on: "/wemixvisor/lock", trouble: BEFORE },
    // A supervisor that could not be asked or stopped does not begin. A full disk does not do this: a socket has no blocks.
    Known { finding: "no socket", call: "", on: "/control.sock", trouble: BEFORE },
    // A journal that cannot be opened does not say which binary is to run. Its syncs may fail.
    Known { finding: "no journal", call: "openat", on: "/state/journal", trouble: BEFORE },
    // Where no process can be had, there is no node. The start is tried again for as long as that lasts.
    Known { finding: "no process", call: "clone", on: "", trouble: "the node is down" },
    Known { finding: "no process", call: "execve", on: "", trouble: "the node is down" },
    // A node that its lock does not name would not be known again, and what it has done would be judged by the one
    // before (I11, I13). The lock keeps its length, so that a full disk does not do this.
    Known { finding: "no name", call: "pwrite64", on: "", trouble: "event=node_not_started" },
    // Without its lock no node is started, because another one may have it (I2). It is tried again likewise.
    Known { finding: "no node lock", call: "", on: "", trouble: "/state/node.lock" },
];

/// Where a supervisor ends by itself without a node.
const BEFORE: &str = "before a node had started";

#[test]
fn an_upgrade_gets_over_a_failing_call_and_the_node_always_runs() {
    let settings = Settings::new();
    if !is_permitted() || !settings.wants("faults") {
        return;
    }
    let count = start(&UPGRADE, &(UPGRADE.scene)(), Fault::None).calls.len();
    let points = settings.points(count, REDUCED);
    println!("faults: {count} calls, {} broken", points.len());
    let trouble = Mutex::new(Vec::new());
    in_turn(&points, AT_ONCE, |at| {
        for errno in settings.errors(&ERRORS, |errno| errno as i32, at) {
            // Interrupted for ever is rightly tried again for ever.
            let ever = (settings.is_full() || !settings.is_reduced() && at.is_multiple_of(5))
                && errno != Errno::EINTR;
            for lasting in [false, true].into_iter().take(1 + usize::from(ever)) {
                let replay = settings.replay("faults", at);
                let Some((call, found)) = fails_at(at, errno, lasting) else { continue };
                let how = if lasting { "for ever" } else { "once" };
                let what = format!("call {at} of {count}, {call}, failed {how} with {errno}: {found}");
                println!("{what}");
                if let Some(found) = found.strip_prefix("TROUBLE ") {
                    let known = KNOWN.iter().find(|known| known.is(&call, found));
                    match known {
                        Some(known) => println!("known as {}", known.finding),
                        None => trouble
                            .lock()
                            .unwrap()
                            .push(format!("{what}; {replay} RIG_ERRNO={}", errno as i32)),
                    }
                }
            }
        }
    });
    let trouble = trouble.into_inner().unwrap();
    assert!(trouble.is_empty(), "{} of them:\n{}", trouble.len(), trouble.join("\n"));
}

impl Known {
    fn is(&self, call: &Call, trouble: &str) -> bool {
        (self.call.is_empty() || call.name == self.call)
            && (self.on.is_empty() || call.on.iter().any(|path| path.ends_with(self.on)))
            && trouble.contains(self.trouble)
    }
}

/// The call that failed, and how it ended: with `TROUBLE` where that is not as it should be.
fn fails_at(at: usize, errno: Errno, lasting: bool) -> Option<(Call, String)> {
    let scene = (UPGRADE.scene)();
    // Its answer to another fault is judged here.
    scene.rig.is_broken_on_purpose();
    let found = Mutex::new(String::new());
    let fault = Fault::Fail { at, errno, lasting };
    let outcome = super::flows::start_with(&UPGRADE, &scene, fault, &|run| {
        *found.lock().unwrap() = watch(run, if lasting { FOR_EVER } else { ONCE });
        run.end_by("stop");
    });
    let call = outcome.hits.first()?.clone();
    let mut found = found.into_inner().unwrap();
    if found == "ended" {
        found = ended(&scene, outcome.code, lasting);
    } else if !lasting && outcome.code != 0 {
        found = format!("TROUBLE stopped, it ended with {}", outcome.code);
    }
    Some((call, found))
}

/// Waits until the upgrade has ended, or the supervisor, and looks at the node.
fn watch(run: &Run<'_>, patience: Duration) -> String {
    // The log may be what fails.
    let end = || {
        let ended = run.scene.rig.journal()["ended"][0].clone();
        Some(format!("{} {}", ended["outcome"].as_str()?, ended["detail"].as_str().unwrap_or_default()))
    };
    let deadline = std::time::Instant::now() + patience;
    let outcome = until_within(patience * 2, "the end of an upgrade with an error", || {
        let is_late = std::time::Instant::now() > deadline;
        let is_put_off = || run.log().contains("event=upgrade_put_off");
        (run.traced.has_ended() || is_late || end().is_some() || is_put_off()).then(end)
    });
    if run.traced.has_ended() {
        return "ended".into();
    }
    let ipc = run.scene.rig.ipc();
    let runs = || try_call(&ipc, "eth_blockNumber", &json!([])).is_some();
    let deadline = std::time::Instant::now() + ONCE;
    until_within(ONCE * 2, "the node", || {
        (runs() || run.traced.has_ended() || std::time::Instant::now() > deadline).then_some(())
    });
    let status: Value =
        serde_json::from_slice(&run.scene.rig.output(&["status", "--json"]).stdout).unwrap_or_default();
    match outcome {
        _ if run.traced.has_ended() => "ended".into(),
        _ if !runs() => format!("TROUBLE the node is down: {}", last_lines(&run.log())),
        Some(outcome) if outcome.starts_with("applied ") => outcome,
        // None of these errors proves anything against the binary.
        Some(outcome) => format!("TROUBLE {outcome}"),
        None if status["planned"][0]["why"].is_string() || status["upgrade"].is_object() => format!(
            "the node runs, the upgrade waits: {} {}; {}",
            status["planned"][0]["why"],
            status["upgrade"]["phase"],
            last_lines(&run.log())
        ),
        None => format!("TROUBLE no end, no reason: {status}"),
    }
}

/// Judges a supervisor that has ended by itself: whoever starts it again has its node.
fn ended(scene: &Scene, code: i32, lasting: bool) -> String {
    let log = fs::read_to_string(scene.rig.path().join("traced.log")).unwrap_or_default();
    let said = last_lines(&log);
    if !is_documented(code) {
        return format!("TROUBLE it ended with {code}: {said}");
    }
    if lasting && !log.contains("event=node_started") {
        return format!("TROUBLE it ended with {code} {BEFORE}: {said}");
    }
    let is_down = !working_on(&scene.rig.data()).into_iter().any(is_alive);
    if is_down && log.contains("event=node_started") {
        return format!("TROUBLE it ended with {code} and no node: {said}");
    }
    let again = start(&UPGRADE, scene, Fault::None);
    if again.code != 0 || scene.rig.current() != "upgrades/v2" {
        return format!("TROUBLE it ended with {code}, and started again with {}: {said}", again.code);
    }
    format!("it ended with {code} ({said}), and started again it upgraded")
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR") || line.starts_with("wemixvisor:"))
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}
