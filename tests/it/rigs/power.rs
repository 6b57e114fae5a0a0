//! The power is cut before a call that changes something: what was acknowledged is there, and what was begun is ended by
//! the next run as if nothing had happened.
//!
//! The home is on a [`Disk`]. The binaries to be staged and the node's data are not: a node syncs its data as it likes,
//! and what it may lose is no matter of ours.

use super::cases::{Ground, Stage, each_wanted};
use super::disk::Disk;
use super::flows::{Scene, ends, in_turn, start};
use super::kills::recovers;
use super::settings::Settings;
use super::trace::{Fault, is_permitted};
use super::upgrade::{UPGRADE, planned};
use crate::rig::visor::Rig;
use std::fs::{self, File};

/// Calls of each command before which the power is cut, where nothing else is asked for.
const COMMANDS: usize = 8;
/// Supervisors, and those at the same time.
const SUPERVISORS: usize = 8;
const AT_ONCE: usize = 4;

#[test]
fn a_command_is_done_when_it_is_run_again_after_a_power_cut() {
    let settings = Settings::new();
    if !is_permitted() || !Disk::is_permitted() {
        return;
    }
    let trouble = each_wanted(&settings, Ground::on_disk, |stage| cuts(&settings, stage));
    assert!(trouble.is_empty(), "{}", trouble.join("\n\n"));
}

fn cuts(settings: &Settings, stage: &Stage<'_>) -> Vec<String> {
    let case = stage.case;
    let count = stage.whole.outcome.calls.len();
    let points = settings.points(count, COMMANDS);
    println!("{}: {count} calls, cut at {}, and behind the last", case.name, points.len());
    let cut_at = |at: usize| {
        let run = stage.break_at(stage.power_cut(at));
        let (hit, replay) = (run.outcome.hits.first(), settings.replay(case.name, at));
        let Some(hit) = hit else { return Some(format!("there is no call {at} of {count}; {replay}")) };
        let trouble = recovers(stage);
        let what = || {
            format!(
                "{}: the power was cut at call {at} of {count}, {hit}; {replay}\n{}",
                case.name,
                trouble.join("\n")
            )
        };
        (!trouble.is_empty()).then(what)
    };
    points.into_iter().filter_map(cut_at).chain(is_acknowledged(stage)).collect()
}

/// The effects that are missing when the power is cut behind a command that has succeeded.
fn is_acknowledged(stage: &Stage<'_>) -> Option<String> {
    let run = stage.break_at(Fault::None);
    assert_eq!(run.outcome.code, 0, "{}", run.stderr);
    stage.cut_power();
    let trouble = stage.differences();
    let what = || format!("{}: the power was cut behind its end\n{}", stage.case.name, trouble.join("\n"));
    (!trouble.is_empty()).then(what)
}

#[test]
fn an_upgrade_gets_over_a_power_cut() {
    let settings = Settings::new();
    if !is_permitted() || !Disk::is_permitted() || !settings.wants("power") {
        return;
    }
    let disk = Disk::new();
    let scene = on_disk(&disk);
    let count = start(&UPGRADE, &scene, Fault::None).calls.len();
    drop(scene);
    let points = settings.points(count, SUPERVISORS);
    println!("power: {count} calls, cut at {}", points.len());
    in_turn(&points, AT_ONCE, |at| is_survived(at, count, &settings));
}

fn is_survived(at: usize, count: usize, settings: &Settings) {
    let disk = Disk::new();
    let scene = on_disk(&disk);
    let fault = Fault::PowerCut { at, plug: disk.plug(at), dir: scene.rig.data() };
    let outcome = start(&UPGRADE, &scene, fault);
    let Some(hit) = outcome.hits.first() else { return };
    scene.rig.one_was_killed();
    disk.restart();
    scene.rig.has_lost_power();
    let replay = settings.replay("power", at);
    let what = format!("power: cut at call {at} of {count}, {hit}; {replay}");
    println!("{what}");
    ends(&UPGRADE, &scene, true, &what);
}

fn on_disk(disk: &Disk) -> Scene {
    let scene = planned(Rig::empty().on(&disk.mount()));
    disk.sync();
    scene
}

#[test]
fn only_what_is_synced_outlives_a_power_cut() {
    if !Disk::is_permitted() {
        return;
    }
    let disk = Disk::new();
    let write = |name: &str, is_synced: bool| {
        let path = disk.mount().join(name);
        fs::write(&path, "written").unwrap();
        if is_synced {
            File::open(path).unwrap().sync_all().unwrap();
            File::open(disk.mount()).unwrap().sync_all().unwrap();
        }
    };
    write("synced", true);
    write("lost", false);
    disk.plug(1).pull();
    disk.restart();
    assert_eq!(fs::read_to_string(disk.mount().join("synced")).unwrap(), "written");
    assert!(!disk.mount().join("lost").exists());
    write("hollow", false);
    disk.plug(2).pull();
    disk.restart();
    assert_eq!(fs::read_to_string(disk.mount().join("hollow")).unwrap(), "");
}
