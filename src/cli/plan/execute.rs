//! `plan execute`: a plan is followed from now on, as it is now, and its binaries are prepared.
//!
//! A supervisor that runs prepares them, and this command watches it; without one this command prepares them. A missing
//! binary is no failure: there may be months until it is needed.

use super::situation::World;
use super::{Situation, next_in_words, plans, upgrades};
use crate::cli::fetch::{cancelled_by_signals, with_bar};
use crate::cli::logger::show_warnings;
use crate::cli::{print, tell, terminal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::Home;
use crate::machine::{self, BinaryState, Origin, Target};
use crate::name::Name;
use crate::printable::printable;
use crate::schedule::Agenda;
use crate::schedule::{Binary, Entry, Status, Stored, validate};
use crate::sorted::Set;
use crate::upgrade::download;
use crate::upgrade::prepare::{Binaries, prepare};
use crate::upgrade::{Cancel, install};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

/// The way to follow a plan whose fork is too near.
const FORCE: &str = "to follow it all the same, add --force";
/// How often the supervisor is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// The number of binaries that are listed one by one where they are not ready.
const LISTED: usize = 20;

/// Why binaries could not be prepared, by the name of their upgrade.
type Failures = BTreeMap<Name, Error>;

/// Follows a plan, unless it makes no sense here and now. With `force` it is followed although a fork is too near.
pub(super) fn execute(config: &Config, home: &Home, name: &Name, force: Force) -> Result<()> {
    let stored = plans(home).load(name)?;
    check(config, home, &stored, force)?;
    follow(config, home, &stored)
}

/// Follows a plan that was checked.
pub(super) fn follow(config: &Config, home: &Home, stored: &Stored) -> Result<()> {
    let name = &stored.plan.name;
    Agenda::edit(home, |agenda| {
        // The slower of two commands must not undo the activation of a newer file.
        plans(home).unchanged(name, &stored.sha256)?;
        agenda.activate(name, stored.sha256);
        Ok(())
    })?;
    super::edit::put_in_force(home)?;
    let situation = Situation::look(config, home)?;
    let (status, failures) = if situation.running {
        drop(situation);
        (watch(config, home, stored)?, Failures::new())
    } else {
        let failures = prepare_all(config, home, stored, &situation.status(stored))?;
        (Situation::look(config, home)?.status(stored), failures)
    };
    report_binaries(config, home, stored, &status, failures)
}

/// Refuses a plan that makes no sense here and now, and says what is doubtful about another one. Returns what it was checked
/// against.
pub(super) fn check(config: &Config, home: &Home, stored: &Stored, force: Force) -> Result<World> {
    let name = &stored.plan.name;
    let world = World::look(config, home);
    let report = validate(&stored.plan, &world.context(force));
    if !report.is_valid() {
        let what = format!("plan {name} cannot be followed");
        let only_room = validate(&stored.plan, &world.context(Force::Yes)).is_valid();
        let kind = if only_room { Kind::NotMet } else { Kind::BadInput };
        let error = Error::new(kind, what).at(plans(home).path(name).display()).because(report);
        return Err(if only_room { error.hint(FORCE) } else { error });
    }
    let findings = report.findings.iter().map(ToString::to_string);
    for warning in findings.chain(world.unchecked(&stored.plan)) {
        tell(format_args!("wemixvisor: {warning}"));
    }
    Ok(world)
}

/// Waits until the supervisor has tried every binary once, and shows what it is doing.
fn watch(config: &Config, home: &Home, stored: &Stored) -> Result<Status> {
    let mut line = terminal::Line::of_stderr();
    loop {
        let situation = Situation::look(config, home)?;
        if !situation.running {
            let what = "the supervisor has ended; it prepares the binaries when it runs again";
            return Err(Error::new(Kind::NoSupervisor, what));
        }
        let status = situation.status(stored);
        let untried =
            |p: &&machine::UpgradeView| matches!(p.binary, BinaryState::Waiting | BinaryState::Preparing);
        let untried: Set<&Name> = situation.view.planned.iter().filter(untried).map(|p| &p.name).collect();
        let mut ours = status.upgrades.iter().filter(|u| untried.contains(&u.name));
        // While an upgrade is under way nothing is prepared; the supervisor goes on with it afterwards.
        let Some(first) = ours.next().filter(|_| situation.view.upgrade.is_none()) else {
            return Ok(status);
        };
        let more = ours.count();
        let rest = if more == 0 { String::new() } else { format!(", and {more} more to prepare") };
        let progress = match first.binary {
            Binary::Downloading { percent: Some(percent) } => format!("downloading {percent} %"),
            Binary::Downloading { percent: None } => "downloading".to_owned(),
            _ => "being prepared".to_owned(),
        };
        line.show(&first.name, &(progress + &rest));
        thread::sleep(LOOK);
    }
}

/// Prepares every binary of the plan that is needed, in order; returns why some are not ready.
fn prepare_all(config: &Config, home: &Home, stored: &Stored, status: &Status) -> Result<Failures> {
    show_warnings();
    let cancel = cancelled_by_signals()?;
    let wanted = status.upgrades.iter().zip(&stored.plan.upgrades).filter(|(u, _)| u.phase.is_to_come());
    let mut failures = Failures::new();
    for (_, entry) in wanted {
        if let Err(e) = prepare_one(config, home, entry, &cancel) {
            failures.insert(entry.name.clone(), e);
        }
        if cancel.is_cancelled() {
            let what = format!("plan {} is followed, but not all its binaries were prepared", status.name);
            return Err(Error::new(Kind::Failed, what)
                .because("interrupted")
                .hint("what has arrived is kept; `wemixvisor run` goes on from there"));
        }
    }
    Ok(failures)
}

fn prepare_one(config: &Config, home: &Home, entry: &Entry, cancel: &Cancel) -> Result<()> {
    let upgrade = entry.clone().upgrade(Origin::Schedule);
    let target = Target::Upgrade(entry.name.clone());
    let is_missing = !home.binary(&target).exists();
    if is_missing && config.daemon_allow_download_binaries {
        tell(format_args!("{}: downloading", entry.name));
        with_bar(config, home, &upgrade, cancel)?;
    }
    prepare(config, home, &Binaries::default(), &upgrade, cancel).map(drop)
}

/// Shows the plan that is followed now, and the state of each binary. One that cannot be used is an error.
fn report_binaries(
    config: &Config,
    home: &Home,
    stored: &Stored,
    status: &Status,
    mut failures: Failures,
) -> Result<()> {
    let all = upgrades(status.total_upgrades);
    let done = if status.completed > 0 { format!(", {} done", status.completed) } else { String::new() };
    let next = next_in_words(status).map_or("nothing to come".to_owned(), |next| format!("next {next}"));
    let mut text = format!("plan {} is followed: {all}{done}, {next}\n", status.name);
    let mut worst: Option<Error> = None;
    let (mut ready, mut unready) = (0, Vec::new());
    let ours = status.upgrades.iter().zip(&stored.plan.upgrades);
    for (upgrade, entry) in ours.filter(|(u, _)| u.phase.is_to_come() && !u.phase.is_under_way()) {
        let name = &upgrade.name;
        match condition(config, home, entry, &upgrade.binary, failures.remove(name)) {
            Condition::Ready => ready += 1,
            Condition::NotYet(how) => unready.push((name, how)),
            Condition::Unusable(how, error) => {
                unready.push((name, how));
                worst = worst.or(Some(error));
            }
        }
    }
    for (name, how) in unready.iter().take(LISTED) {
        let _ = writeln!(text, "  {name}: {}", printable(how));
    }
    if unready.len() > LISTED {
        let _ = writeln!(text, "  and {} more that are not ready", unready.len() - LISTED);
    }
    if ready > 0 {
        let _ = writeln!(text, "  {ready} ready to be switched to");
    }
    print(&text)?;
    let Some(e) = worst else { return Ok(()) };
    let what = format!("plan {} is followed, but a binary cannot be used", status.name);
    Err(Error::new(e.kind(), what).because(e.to_string()))
}

/// The state of a binary, in words where it is not ready.
enum Condition {
    Ready,
    NotYet(String),
    Unusable(String, Error),
}

/// The state of a binary after its preparation, which may have failed.
fn condition(
    config: &Config,
    home: &Home,
    entry: &Entry,
    binary: &Binary,
    failure: Option<Error>,
) -> Condition {
    let hint = format!("stage it with `wemixvisor upgrade add {} BINARY`", entry.name);
    let missing = || Condition::NotYet(format!("the binary is missing; {hint}"));
    match (failure, binary) {
        (Some(e), _) if e.kind() == Kind::NotFound || is_nowhere(config, home, entry) => missing(),
        // Another process is fetching it just now.
        (Some(e), _) if e.kind() == Kind::Busy => Condition::NotYet(e.to_string()),
        (Some(e), _) => Condition::Unusable(e.to_string(), e),
        (None, Binary::Missing) => missing(),
        (None, Binary::Failed { detail }) => Condition::Unusable(detail.clone(), why(home, entry, detail)),
        (None, Binary::Verified | Binary::Staged) => Condition::Ready,
        (None, Binary::Downloading { .. }) => Condition::NotYet("is being downloaded".to_owned()),
    }
}

/// Whether the binary is not there and has no source.
fn is_nowhere(config: &Config, home: &Home, entry: &Entry) -> bool {
    let is_there = home.binary(&Target::Upgrade(entry.name.clone())).exists();
    let findable = config.daemon_allow_download_binaries
        && download::has_source(&entry.clone().upgrade(Origin::Schedule), &config.download_urls);
    !is_there && !findable
}

/// The supervisor's words as an error, with the kind that a check of the binary gives.
fn why(home: &Home, entry: &Entry, detail: &str) -> Error {
    let target = Target::Upgrade(entry.name.clone());
    let kind = match install::verify(home, &target, entry.digest.as_ref()) {
        Err(e) if e.kind() != Kind::NotFound => e.kind(),
        Ok(_) | Err(_) => Kind::Failed,
    };
    Error::new(kind, detail)
}
