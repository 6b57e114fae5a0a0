//! Flipped bits and cut ends in every file under `state/`: it is noticed, or it changes nothing, and it never leads to an
//! older truth.
//!
//! Readers are asked for every damage of the sample, because that takes no time. Supervisors are started with some.

use super::is_documented;
use super::settings::{Random, Settings};
use super::tree;
use crate::rig::sim::until;
use crate::rig::visor::Rig;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use wemixvisor::inside::HeadRecord;
use wemixvisor::inside::head;
use wemixvisor::inside::journal::Journal;
use wemixvisor::schedule::Agenda;

/// Damages of each file: in `cargo test`; in full all bits that hold something.
const READ: usize = 60;
/// Supervisors that start with a damage, of `cargo test` and in full.
const STARTED: (usize, usize) = (4, 300);

/// One damage of a file.
#[derive(Clone, Copy)]
enum Damage {
    /// This bit is another one.
    Flip { byte: usize, bit: u32 },
    /// The file ends here.
    Cut { length: usize },
}

impl Damage {
    fn done_to(self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Damage::Flip { byte, bit } => bytes[byte] ^= 1 << bit,
            Damage::Cut { length } => bytes.truncate(length),
        }
        bytes
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flip { byte, bit } => write!(f, "bit {bit} of byte {byte} flipped"),
            Damage::Cut { length } => write!(f, "cut to {length} bytes"),
        }
    }
}

/// The damages of a file: every bit of what is not blank, some of the blanks, and some lengths.
fn damages(bytes: &[u8]) -> Vec<Damage> {
    let filled = (0..bytes.len()).filter(|at| bytes[*at] != b' ');
    let blank = (0..bytes.len()).filter(|at| bytes[*at] == b' ').step_by(1 + bytes.len() / 50);
    let flips = filled.chain(blank).flat_map(|byte| (0..8).map(move |bit| Damage::Flip { byte, bit }));
    let cuts = (0..16).map(|part| Damage::Cut { length: bytes.len() * part / 16 });
    let last = bytes.len().checked_sub(1).map(|length| Damage::Cut { length });
    flips.chain(cuts).chain(last).collect()
}

/// A sample of them, one of each stretch.
fn sample<T: Copy>(all: &[T], count: usize, random: &mut Random) -> Vec<T> {
    let stretch = |i: usize| (i * all.len() / count, (i + 1) * all.len() / count);
    let one = |(begin, end): (usize, usize)| all[begin + random.below(end - begin)];
    if count >= all.len() { all.to_vec() } else { (0..count).map(stretch).map(one).collect() }
}

/// The files under `state/` with something in them.
fn files(rig: &Rig) -> Vec<PathBuf> {
    let entries = fs::read_dir(rig.of("state")).unwrap().flatten();
    let is_filled = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0);
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_filled).collect();
    files.sort();
    files
}

/// A home after its first upgrade, with another one planned far ahead. Nothing runs.
fn at_rest() -> Rig {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.schedule("v2", 5);
    rig.schedule("v3", 100_000);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    assert_eq!(visor.stop(), 0);
    drop(visor);
    rig.is_broken_on_purpose();
    rig
}

/// A home in the middle of an upgrade: its supervisor was killed while the hook ran.
fn under_way() -> Rig {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.stage("v3", &[]);
    rig.hook("v2", "pre-upgrade", "[ -e go ] || { touch here; exec sleep 1000; }");
    rig.schedule("v2", 5);
    rig.schedule("v3", 100_000);
    let mut visor = rig.run();
    until("the hook", || rig.home().join("here").exists().then_some(()));
    visor.kill();
    drop(visor);
    fs::write(rig.home().join("go"), "").unwrap();
    rig.is_broken_on_purpose();
    rig
}

#[test]
fn a_damaged_file_is_no_older_truth_to_its_readers() {
    let settings = Settings::new();
    if !settings.wants("damage") {
        return;
    }
    let trouble: Vec<String> = [("at rest", at_rest()), ("under way", under_way())]
        .iter()
        .flat_map(|(name, rig)| read(&settings, name, rig))
        .collect();
    assert!(trouble.is_empty(), "{} of them:\n{}", trouble.len(), trouble.join("\n"));
}

fn read(settings: &Settings, name: &str, rig: &Rig) -> Vec<String> {
    let home = rig.as_home();
    let record = Journal::read(&home).unwrap().record;
    let (agenda, heads) = (Agenda::load(&home).unwrap(), head::read(&home).unwrap());
    let newest = heads.as_ref().map_or(0, |head| head.block.height);
    let without_turns = heads.clone().map(|head| HeadRecord { turns: None, ..head });
    let (mut trouble, mut older) = (Vec::new(), 0);
    let mut random = settings.random();
    for path in files(rig) {
        let bytes = fs::read(&path).unwrap();
        let all = damages(&bytes);
        let some = if settings.is_full() { all } else { sample(&all, READ, &mut random) };
        println!("damage: {name}, {}: {} damages", path.display(), some.len());
        for damage in some {
            fs::write(&path, damage.done_to(&bytes)).unwrap();
            let what = || format!("{name}, {}: {damage}", path.display());
            match Journal::open(&home) {
                Ok(opened) if opened.record != record => {
                    trouble.push(format!("{}: {:?}", what(), opened.record))
                }
                Ok(opened) => {
                    // A file that is repaired is whole.
                    let again = Journal::read(&home);
                    if again.as_ref().ok().map(|found| (&found.record, found.warning.is_none()))
                        != Some((&record, true))
                    {
                        trouble.push(format!(
                            "{}: not repaired: {:?}, then {again:?}",
                            what(),
                            opened.warning
                        ));
                    }
                }
                Err(_) => {}
            }
            if let Ok(found) = Agenda::load(&home)
                && found != agenda
            {
                trouble.push(format!("{}: {found:?}", what()));
            }
            match head::read(&home) {
                // A damaged slot may have held a newer head: the record then tells no turns, and a validator is silent.
                Ok(Some(found)) if found.block.height < newest && found.turns.is_none() => older += 1,
                Ok(Some(found))
                    if Some(&HeadRecord { turns: None, ..found.clone() }) != without_turns.as_ref() =>
                {
                    trouble.push(format!("{}: {found:?}", what()))
                }
                Ok(None) if heads.is_some() => trouble.push(format!("{}: no head", what())),
                _ => {}
            }
            fs::write(&path, &bytes).unwrap();
        }
    }
    println!("damage: {name}, {older} led to the head before");
    trouble
}

#[test]
fn a_supervisor_notices_a_damaged_file_or_it_does_no_harm() {
    let settings = Settings::new();
    if !settings.wants("damaged-start") {
        return;
    }
    let grounds = [("at rest", at_rest as fn() -> Rig), ("under way", under_way)];
    let trouble: Vec<String> = std::thread::scope(|scope| {
        let started =
            grounds.map(|(name, make)| scope.spawn(move || start_damaged(&Settings::new(), name, &make())));
        started.into_iter().flat_map(|thread| thread.join().expect("it has said why it failed")).collect()
    });
    assert!(trouble.is_empty(), "{} of them:\n{}", trouble.len(), trouble.join("\n"));
}

fn start_damaged(settings: &Settings, name: &str, rig: &Rig) -> Vec<String> {
    let before = rig.path().join("before");
    tree::copy(&rig.home(), &before);
    let all: Vec<(PathBuf, Damage)> = files(rig)
        .into_iter()
        .flat_map(|path| {
            let some =
                sample(&damages(&fs::read(&path).unwrap()), settings.count(STARTED), &mut settings.random());
            some.into_iter().map(move |damage| (path.clone(), damage))
        })
        .collect();
    let indices: Vec<usize> = (0..all.len()).collect();
    let some = sample(&indices, settings.count(STARTED), &mut settings.random());
    some.into_iter()
        .filter_map(|index| {
            let (path, damage) = &all[index];
            tree::copy(&before, &rig.home());
            fs::write(path, damage.done_to(&fs::read(path).unwrap())).unwrap();
            let trouble = starts(rig);
            println!("damaged-start: {name}, {}, {damage}: {trouble:?}", path.display());
            let what = || format!("{name}, {}: {damage}: {}", path.display(), trouble.as_ref().unwrap_err());
            trouble.is_err().then(what)
        })
        .collect()
}

/// Starts a supervisor on a damaged home: how it went, or what is wrong with that.
fn starts(rig: &Rig) -> Result<String, String> {
    for args in [&["status"][..], &["upgrade", "list"]] {
        let out = rig.output(args);
        let code = out.status.code().unwrap_or(-1);
        if !is_documented(code) {
            return Err(format!("{} ended with {code}", args.join(" ")));
        }
    }
    let runs = rig.versions();
    let mut visor = rig.run();
    let is_settled = |rig: &Rig| {
        let record = Journal::read(&rig.as_home()).ok()?.record;
        (record.upgrade.is_none() && rig.versions().len() > runs.len()).then_some(())
    };
    until("the end of a damaged start", || {
        (visor.has_ended().is_some() || is_settled(rig).is_some()).then_some(())
    });
    if let Some(code) = visor.has_ended() {
        let log = visor.log();
        let why = log.lines().rfind(|line| line.starts_with("wemixvisor: ") || line.contains("ERROR"));
        return match why {
            _ if !is_documented(code) || code == 0 => Err(format!("it ended with {code}: {log}")),
            None => Err(format!("it ended with {code} and without a reason: {log}")),
            Some(why) => Ok(format!("{code}: {why}")),
        };
    }
    let found = (rig.current(), rig.versions(), visor.stop());
    let versions: Vec<_> = found.1[runs.len()..].iter().map(String::as_str).collect();
    // The new binary was applied before, or is now, and the old one is never run again.
    if (found.0.as_str(), versions.last(), found.2) != ("upgrades/v2", Some(&"v2"), 0)
        || versions.contains(&"v1")
    {
        return Err(format!("it ran {versions:?} and ended with {}: {}", found.2, visor.log()));
    }
    Ok(format!("it runs {versions:?}"))
}

#[test]
fn no_node_is_started_beside_one_whose_name_is_damaged() {
    let settings = Settings::new();
    if !settings.wants("damaged-name") {
        return;
    }
    // In full this takes longer than the five minutes that a node of these tests lives.
    let rig = Rig::with(&[("lifetime", "7200000")]);
    let mut visor = rig.run();
    visor.wait_node();
    visor.wait(&["event=chain_bound"]);
    rig.ok(&["detach"]);
    assert_eq!(visor.end_beside(), 0);
    let lock: &Path = &rig.of("state/node.lock");
    let bytes = fs::read(lock).unwrap();
    let all = damages(&bytes);
    let some = if settings.is_full() { all } else { sample(&all, 6, &mut settings.random()) };
    println!("damaged-name: {} damages, {}", some.len(), settings.replay("damaged-name", 0));
    for damage in some {
        fs::write(lock, damage.done_to(&bytes)).unwrap();
        let mut visor = rig.run();
        until("an answer to the node", || {
            let log = visor.log();
            let is_there =
                ["event=adopted", "event=waiting_for_locks"].iter().any(|event| log.contains(event));
            (visor.has_ended().is_some() || is_there).then_some(())
        });
        assert_eq!(
            (rig.traces().starts().len(), rig.traces().signals().len()),
            (1, 0),
            "{damage}: {}",
            visor.log()
        );
        if visor.has_ended().is_none() {
            visor.kill();
        }
        fs::write(lock, &bytes).unwrap();
    }
    let mut visor = rig.run();
    visor.wait(&["event=adopted"]);
    assert_eq!(visor.stop(), 0);
    assert_eq!(rig.traces().starts().len(), 1);
}
