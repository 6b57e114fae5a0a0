//! Every command that writes without a node, killed before each call that changes something: run again, it ends as if
//! nothing had happened.

use super::cases::{Ground, Stage, each_wanted};
use super::is_documented;
use super::settings::Settings;
use super::trace::{Fault, is_permitted};

/// Calls of each command that `cargo test` breaks.
const REDUCED: usize = 2;

#[test]
fn a_killed_command_is_done_when_it_is_run_again() {
    let settings = Settings::new();
    if !is_permitted() {
        return;
    }
    let trouble = each_wanted(&settings, Ground::new, |stage| kills(&settings, stage));
    assert!(trouble.is_empty(), "{}", trouble.join("\n\n"));
}

#[test]
fn a_backup_does_not_wait_for_its_own_claim() {
    if !is_permitted() {
        return;
    }
    each_wanted(&Settings::only("backup-create"), Ground::new, |stage| {
        let is_claim = |path: &String| path.contains("/backups/.wemixvisor-partial-");
        let claims = stage
            .whole
            .outcome
            .calls
            .iter()
            .filter(|call| call.name == "flock" && call.on.iter().any(is_claim));
        assert_eq!(claims.count(), 1, "{:?}", stage.whole.outcome.calls);
        Vec::new()
    });
}

fn kills(settings: &Settings, stage: &Stage<'_>) -> Vec<String> {
    let case = stage.case;
    let count = stage.whole.outcome.calls.len();
    let points = settings.points(count, REDUCED);
    println!("{}: {count} calls, killed at {}", case.name, points.len());
    let killed_at = |at: usize| {
        let run = stage.break_at(Fault::Kill { at });
        let (hit, replay) = (run.outcome.hits.first(), settings.replay(case.name, at));
        let Some(hit) = hit else { return Some(format!("there is no call {at} of {count}; {replay}")) };
        let trouble = recovers(stage);
        let what = || {
            format!(
                "{} was killed at call {at} of {count}, {hit}; {replay}\n{}",
                case.name,
                trouble.join("\n")
            )
        };
        (!trouble.is_empty()).then(what)
    };
    points.into_iter().filter_map(killed_at).collect()
}

/// The fault of the home after the command has been run again.
pub(super) fn recovers(stage: &Stage<'_>) -> Vec<String> {
    let mut trouble = look_around(stage);
    let again = stage.again();
    let code = again.status.code().unwrap_or(-1);
    trouble.extend(stage.differences());
    if code != 0 && !stage.case.already.contains(&code) {
        trouble.push(format!("run again it ended with {code}: {}", String::from_utf8_lossy(&again.stderr)));
    }
    trouble
}

/// The fault in the answers of the commands that only read, on a half-made home.
fn look_around(stage: &Stage<'_>) -> Vec<String> {
    let looks: [&[&str]; 3] = [&["status", "--json"], &["upgrade", "list"], &["config", "check"]];
    let mut trouble = Vec::new();
    for args in looks {
        let out = stage.rig().output(args);
        let code = out.status.code().unwrap_or(-1);
        if !is_documented(code) {
            let stderr = String::from_utf8_lossy(&out.stderr);
            trouble.push(format!("{} ended with {code}: {stderr}", args.join(" ")));
        }
    }
    trouble
}
