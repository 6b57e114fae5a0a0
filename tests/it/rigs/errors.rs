//! The same commands with one failing system call: they succeed, or they fail with one line that names the file, and
//! run again they end as if nothing had happened.

use super::cases::{Ground, Run, Stage, each_wanted};
use super::settings::Settings;
use super::trace::{self, Fault, Outcome, is_permitted};
use super::{ERRORS, is_documented};
use crate::rig::visor::Rig;
use nix::errno::Errno;
use std::fs::{self, File};
use std::path::Path;

/// Calls of each command that `cargo test` breaks, with one error each.
const REDUCED: usize = 2;

#[test]
fn a_failing_call_is_reported_and_its_command_can_be_run_again() {
    let settings = Settings::new();
    if !is_permitted() {
        return;
    }
    let trouble = each_wanted(&settings, Ground::new, |stage| fails(&settings, stage));
    assert!(trouble.is_empty(), "{}", trouble.join("\n\n"));
}

#[test]
fn an_import_fails_where_the_manifest_of_another_version_cannot_be_written() {
    if !is_permitted() {
        return;
    }
    let trouble = each_wanted(&Settings::only("import"), Ground::new, |stage| {
        let is_it = |path: &String| path.ends_with("/genesis/manifest.json");
        let at = stage.whole.outcome.calls.iter().position(|call| call.on.iter().any(is_it)).unwrap() + 1;
        let run = stage.break_at(Fault::Fail { at, errno: Errno::EIO, lasting: false });
        assert_eq!(run.outcome.code, 74, "{}", run.stderr);
        recovers(stage, run.outcome.code)
    });
    assert_eq!(trouble, [""; 0]);
}

#[test]
fn a_backup_of_a_file_that_cannot_be_read_names_it_and_leaves_nothing() {
    if !is_permitted() {
        return;
    }
    let rig = Rig::new();
    for name in ["blocks", "state"] {
        fs::create_dir_all(rig.data()).unwrap();
        fs::write(rig.data().join(name), vec![7; 3 << 20]).unwrap();
    }
    let create = |fault| {
        let stream = |name: &str| File::create(rig.path().join(name)).unwrap();
        let command = rig.command(&["backup", "create", "a"]);
        let outcome = trace::start(&command, stream("stdout"), stream("stderr"), fault).end();
        (outcome, fs::read_to_string(rig.path().join("stderr")).unwrap())
    };
    let create_and_prune = || {
        let (whole, said) = create(Fault::None);
        assert_eq!(whole.code, 0, "{said}");
        rig.ok(&["backup", "prune", &rig.backups()[0]]);
        whole
    };
    // The first one makes the directory as well.
    create_and_prune();
    let whole = create_and_prune();
    // Where the file system clones, nothing is read.
    let Some(at) = whole.calls.iter().position(|call| call.is("copy_file_range", "/data/blocks")) else {
        return;
    };
    for lasting in [false, true] {
        // Reports of progress come by the clock, and are calls as well.
        let is_it = |(outcome, _): &(Outcome, String)| {
            let is_it = outcome.hits.first().is_some_and(|hit| hit.is("copy_file_range", "/data/blocks"));
            if outcome.code == 0 {
                rig.ok(&["backup", "prune", &rig.backups()[0]]);
            }
            is_it
        };
        let tries = std::iter::repeat_with(|| create(Fault::Fail { at: at + 1, errno: Errno::EIO, lasting }));
        let (outcome, said) = tries.take(20).find(is_it).expect("it is hit in one of twenty tries");
        assert_eq!(outcome.code, 74, "{said}");
        assert!(said.contains(rig.data().join("blocks").to_str().unwrap()), "{said}");
        assert_eq!(fs::read_dir(rig.home().join("backups")).unwrap().count(), 0);
    }
    rig.ok(&["backup", "create", "a"]);
}

fn fails(settings: &Settings, stage: &Stage<'_>) -> Vec<String> {
    let case = stage.case;
    let count = stage.whole.outcome.calls.len();
    let points = settings.points(count, REDUCED);
    let faults: Vec<_> = points
        .into_iter()
        .flat_map(|at| {
            settings.errors(&ERRORS, |errno| errno as i32, at).into_iter().map(move |errno| (at, errno))
        })
        .flat_map(|(at, errno)| [(at, errno, false), (at, errno, true)])
        // Interrupted for ever is rightly tried again for ever.
        .filter(|(_, errno, lasting)| !lasting || *errno != Errno::EINTR)
        .collect();
    println!("{}: {count} calls, {} errors", case.name, faults.len());
    let failed_with = |(at, errno, lasting): (usize, Errno, bool)| {
        let run = stage.break_at(Fault::Fail { at, errno, lasting });
        let mut trouble = answers(stage, &run, errno);
        trouble.extend(recovers(stage, run.outcome.code));
        let hit = run.outcome.hits.first().map(ToString::to_string).unwrap_or_default();
        let what = || {
            let (how, replay) = (if lasting { "for ever" } else { "once" }, settings.replay(case.name, at));
            format!(
                "{}: call {at} of {count}, {hit}, failed {how} with {errno}; {replay} RIG_ERRNO={}\nexit code {}, {}{}",
                case.name,
                errno as i32,
                run.outcome.code,
                run.stderr,
                trouble.join("\n"),
            )
        };
        (!trouble.is_empty()).then(what)
    };
    faults.into_iter().filter_map(failed_with).collect()
}

/// The fault in the answer of the broken command.
fn answers(stage: &Stage<'_>, run: &Run, errno: Errno) -> Vec<String> {
    let mut trouble = Vec::new();
    let code = run.outcome.code;
    if !is_documented(code) {
        trouble.push(format!("it ended with {code}"));
    }
    if code == 0 {
        return trouble;
    }
    // Any of the calls that failed may be the one that could not be done without.
    let paths: Vec<_> = run.outcome.hits.iter().flat_map(|hit| &hit.on).collect();
    let is_printing = paths.iter().any(|path| path.starts_with("std"));
    let home = stage.rig().home();
    // A lock that cannot be had belongs to another process, which works on the home.
    let is_held = errno == Errno::EAGAIN && run.outcome.hits.iter().any(|hit| hit.name == "flock");
    let is_named = |path: &&String| {
        let parent = Path::new(path).parent().filter(|dir| dir.starts_with(&home));
        // A tree is removed by names below descriptors, which only lead to it.
        let parent = if is_held || Path::new(path).is_relative() { Some(home.as_path()) } else { parent };
        run.stderr.contains(*path) || parent.is_some_and(|dir| run.stderr.contains(dir.to_str().unwrap()))
    };
    let warnings = stage.whole.messages();
    if !(1..=warnings + 1).contains(&run.messages()) && !is_printing {
        trouble.push("it did not report it in one line".into());
    }
    if !is_printing && !paths.is_empty() && !paths.iter().any(is_named) {
        trouble.push("it did not name the file".into());
    }
    trouble
}

/// The fault of the home: at once if the command succeeded, otherwise after it was run again.
fn recovers(stage: &Stage<'_>, code: i32) -> Vec<String> {
    let mut trouble = Vec::new();
    if code != 0 {
        let again = stage.again();
        let code = again.status.code().unwrap_or(-1);
        if code != 0 && !stage.case.already.contains(&code) {
            trouble
                .push(format!("run again it ended with {code}: {}", String::from_utf8_lossy(&again.stderr)));
        }
    }
    trouble.extend(stage.differences());
    trouble
}
