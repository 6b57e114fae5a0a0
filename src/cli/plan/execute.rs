//! `plan execute`: a plan is followed from now on, as it is now, and its binaries are prepared.
//!
//! With a supervisor running, that prepares them, and this command watches; without one the command
//! does it by itself. A binary that is missing is no failure: there may be months until it is needed.

use super::situation::World;
use super::{Situation, next_in_words, plans, upgrades};
use crate::cli::fetch::{Bar, cancelled_by_signals};
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
use crate::upgrade::download::{self, Order, Progress, Rests};
use crate::upgrade::prepare::{Binaries, fetch, prepare};
use crate::upgrade::{Cancel, install};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

/// The way to follow a plan whose fork is too near.
const FORCE: &str = "to follow it all the same, add --force";
/// How often the supervisor is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// Of so many upgrades it is told one by one how their binaries are.
const TOLD: usize = 20;

/// Follows a plan, unless it makes no sense here and now. With `force` it is followed although a fork is too near.
pub(super) fn execute(config: &Config, home: &Home, name: &Name, force: Force) -> Result<()> {
    let stored = plans(home).load(name)?;
    check(config, home, &stored, force)?;
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
        (watch(config, home, &stored)?, BTreeMap::new())
    } else {
        let failures = prepare_all(config, home, &stored, &situation)?;
        (Situation::look(config, home)?.status(&stored), failures)
    };
    report_binaries(config, home, &stored, &status, failures)
}

/// Refuses a plan that makes no sense here and now, and says what is doubtful about another one.
fn check(config: &Config, home: &Home, stored: &Stored, force: Force) -> Result<()> {
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
    for finding in &report.findings {
        tell(format_args!("wemixvisor: {finding}"));
    }
    if let Some(unchecked) = world.unchecked(&stored.plan) {
        tell(format_args!("wemixvisor: {unchecked}"));
    }
    Ok(())
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
        match first.binary {
            Binary::Downloading { percent: Some(percent) } => {
                line.show(&first.name, &format!("downloading {percent} %{rest}"));
            }
            Binary::Downloading { percent: None } => line.show(&first.name, &format!("downloading{rest}")),
            _ => line.show(&first.name, &format!("being prepared{rest}")),
        }
        thread::sleep(LOOK);
    }
}

/// Prepares every binary of the plan that is needed, in order; returns why some are not ready.
fn prepare_all(
    config: &Config,
    home: &Home,
    stored: &Stored,
    situation: &Situation<'_>,
) -> Result<BTreeMap<Name, Error>> {
    show_warnings();
    let cancel = cancelled_by_signals()?;
    let status = situation.status(stored);
    let wanted = status.upgrades.iter().zip(&stored.plan.upgrades).filter(|(u, _)| u.phase.is_to_come());
    let mut failures = BTreeMap::new();
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
        let mut bar = Bar::default();
        let order = Order { home, upgrade: &upgrade, urls: &config.download_urls };
        let progress = &mut |progress: Progress<'_>| bar.update(&progress);
        let fetched = fetch(config, &order, Rests::default(), progress, cancel);
        bar.end();
        fetched?;
    }
    prepare(config, home, &Binaries::default(), &upgrade, cancel).map(drop)
}

/// Says what is followed now, and how each binary is. One that cannot be used is an error.
fn report_binaries(
    config: &Config,
    home: &Home,
    stored: &Stored,
    status: &Status,
    mut failures: BTreeMap<Name, Error>,
) -> Result<()> {
    let mut text = format!("plan {} is followed: {}", status.name, upgrades(status.total_upgrades));
    if status.completed > 0 {
        let _ = write!(text, ", {} done", status.completed);
    }
    match next_in_words(status) {
        Some(next) => _ = writeln!(text, ", next {next}"),
        None => text.push_str(", nothing to come\n"),
    }
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
    for (name, how) in unready.iter().take(TOLD) {
        let _ = writeln!(text, "  {name}: {}", printable(how));
    }
    if unready.len() > TOLD {
        let _ = writeln!(text, "  and {} more that are not ready", unready.len() - TOLD);
    }
    if ready > 0 {
        let _ = writeln!(text, "  {ready} ready to be switched to");
    }
    print(&text)?;
    match worst {
        None => Ok(()),
        Some(e) => {
            let what = format!("plan {} is followed, but a binary cannot be used", status.name);
            Err(Error::new(e.kind(), what).because(e.to_string()))
        }
    }
}

/// How a binary is, in words where it is not ready.
enum Condition {
    Ready,
    NotYet(String),
    Unusable(String, Error),
}

/// How the binary of an upgrade is after its preparation, which may have failed.
fn condition(
    config: &Config,
    home: &Home,
    entry: &Entry,
    binary: &Binary,
    failure: Option<Error>,
) -> Condition {
    let missing = || {
        let name = &entry.name;
        Condition::NotYet(format!(
            "the binary is missing; stage it with `wemixvisor upgrade add {name} BINARY`"
        ))
    };
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

/// Whether the binary is not there, and nothing says where it can be had.
fn is_nowhere(config: &Config, home: &Home, entry: &Entry) -> bool {
    let is_there = home.binary(&Target::Upgrade(entry.name.clone())).exists();
    let findable = config.daemon_allow_download_binaries
        && download::has_source(&entry.clone().upgrade(Origin::Schedule), &config.download_urls);
    !is_there && !findable
}

/// The supervisor's words as an error of the kind that they are about.
fn why(home: &Home, entry: &Entry, detail: &str) -> Error {
    let target = Target::Upgrade(entry.name.clone());
    let kind = match install::verify(home, &target, entry.digest.as_ref()) {
        Err(e) if e.kind() != Kind::NotFound => e.kind(),
        Ok(_) | Err(_) => Kind::Failed,
    };
    Error::new(kind, detail)
}
