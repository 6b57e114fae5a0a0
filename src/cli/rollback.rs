//! `rollback`: back to an earlier version, at any time, with or without a supervisor.
//!
//! The way back is decided here on the record as it is, shown, and ordered. A supervisor that runs decides it again by
//! what it knows, and takes it; without one it is on record for the next `run`.

use super::backup::{Beside, with_line};
use super::home::{accepted_or, running_status};
use super::resolve::{carry_out, not_met};
use super::{print, tell};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::{Home, launch};
use crate::machine::{Decision, Known, Target, Version, Wanted, WayBack, way_back};
use crate::supervisor::{Request, Status, ask};
use crate::upgrade::journal::Journal;
use crate::upgrade::{backup, head, install, restore};
use std::io::{self, BufRead as _, IsTerminal as _};
use std::thread;
use std::time::{Duration, SystemTime};

/// How often the supervisor is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// The operator's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The version to go back to; None for the one before.
    pub(crate) to: Option<Target>,
    /// Whether a backup takes the place of the data in any case.
    pub(crate) restore: bool,
    /// Whether the operator overrules the objections that can be overruled.
    pub(crate) force: Force,
    /// Whether the operator has consented already, so that nothing is asked.
    pub(crate) yes: bool,
    /// Whether to wait until the earlier version runs.
    pub(crate) wait: bool,
}

/// Goes back, or has the next `run` do it.
///
/// # Errors
/// [`Kind::NotMet`] if there is no way back, it may hurt, or the operator declines; [`Kind::Verification`] if the earlier
/// binary has changed.
pub(super) fn rollback(config: &Config, home: &Home, options: &Options) -> Result<()> {
    let status = running_status(home)?;
    let record = Journal::read(home)?.record;
    let to = options.to.as_ref().map(|to| verified(home, to)).transpose()?;
    let wanted = Wanted { to, restore: options.restore, force: options.force.is_given() };
    let mut known = known(config, home, status.as_ref())?;
    // With the node down it would be too late to learn that there is no way over a backup.
    let way = loop {
        let way = way_back(&record, &wanted, &known).map_err(not_met)?;
        let Some(name) = &way.order.backup else { break way };
        match check(config, home, name) {
            Ok(()) => break way,
            // `--force` allows the old binary on the data as it is.
            Err(e) if wanted.force && !wanted.restore && e.kind() != Kind::Failed => {
                tell(format_args!("wemixvisor: {e}"));
                known.backups.retain(|backup| backup != name);
            }
            Err(e) => return Err(e),
        }
    };
    let to = &way.order.to;
    if verified(home, &to.target)?.sha256 != to.sha256 {
        let what = format!("the binary of {} is not the one that has run here", to.target);
        return Err(Error::new(Kind::Verification, what).at(home.binary(&to.target).display()));
    }
    if status.is_none()
        && let Some(node) = launch::last(home)?.and_then(|last| last.process)
    {
        let what = format!("the node runs without a supervisor, as process {}", node.pid.as_raw_pid());
        return Err(Error::new(Kind::Busy, what)
            .hint("start `wemixvisor run`, which takes it over, and repeat the rollback"));
    }
    tell(shown(&way, status.as_ref()));
    if !options.yes && !is_wanted()? {
        return Err(Error::new(Kind::NotMet, "nothing was done"));
    }
    if status.is_none() {
        carry_out(home, Decision::Rollback { order: way.order, known })?;
        let what = "the way back is on record, and nothing is waited for: no supervisor is running";
        let alone = Error::new(Kind::NoSupervisor, what).hint("start one with `wemixvisor run`");
        return if options.wait { Err(alone) } else { Ok(()) };
    }
    let order = way.order.clone();
    tell(accepted_or(&ask(home, &Request::Rollback { order })?.reply, Kind::NotMet)?);
    if options.wait { wait(home, to) } else { Ok(()) }
}

/// Cancels an order to go back that has not begun.
///
/// # Errors
/// [`Kind::NotMet`] if there is none, or it has begun.
pub(super) fn cancel(home: &Home) -> Result<()> {
    match ask(home, &Request::CancelRollback) {
        Ok(answered) => print(&format!("{}\n", accepted_or(&answered.reply, Kind::NotMet)?)),
        Err(e) if e.kind() == Kind::NoSupervisor => carry_out(home, Decision::CancelRollback),
        Err(e) => Err(e),
    }
}

/// A version, after a check that its binary is the staged one.
fn verified(home: &Home, target: &Target) -> Result<Version> {
    let manifest = install::verify(home, target, None)?;
    Ok(Version { target: target.clone(), sha256: manifest.sha256 })
}

/// Reads a backup whole, and looks whether it could take the place of the data.
fn check(config: &Config, home: &Home, name: &str) -> Result<()> {
    let found = backup::load(home, name)?;
    let beside = Beside::of(home);
    with_line(home, &backup::Options::new(config), beside, "verify", |work| restore::check(work, &found))
}

/// Facts besides the record: the highest block that the chain can have by now, and the backups.
fn known(config: &Config, home: &Home, status: Option<&Status>) -> Result<Known> {
    let highest = match status {
        Some(Status { view, .. }) => view.head.iter().chain(&view.head_record).map(|b| b.height).max(),
        None => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            head::read(home)?.and_then(|record| record.highest_possible(now, config.block_period))
        }
    };
    let whole = backup::list(home)?.into_iter().filter(|backup| backup.manifest.damaged.is_none());
    let backups = whole.map(|backup| backup.name).collect();
    Ok(Known { highest, backups, validator: config.validator_mode })
}

/// The steps of the way back and its doubts, as the operator reads them.
fn shown(way: &WayBack, status: Option<&Status>) -> String {
    let undoes: Vec<String> = way.undoes.iter().map(ToString::to_string).collect();
    let mut lines =
        vec![format!("{} -> {}, which undoes {}", way.leaves.target, way.order.to.target, undoes.join(", "))];
    let node = status.map_or("the next `wemixvisor run` does it", |_| "the node is stopped");
    let data = match &way.order.backup {
        Some(backup) => format!("the backup {backup} takes the place of the data, which is kept aside"),
        None => "the data stays as it is".to_owned(),
    };
    lines.push(format!("  {node}; {data}; then {} is started", way.order.to.target));
    lines.extend(way.overruled.iter().map(|why| format!("  FORCED although {why}")));
    lines.extend(way.doubts.iter().map(|doubt| format!("  {doubt}")));
    lines.join("\n")
}

/// Asks on the terminal.
fn is_wanted() -> Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let what = "nothing was done: there is no terminal to ask on";
        return Err(Error::new(Kind::NotMet, what).hint("to go back without being asked, add --yes"));
    }
    tell("go back? [y/N]");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|e| Error::new(Kind::Io, "read the answer").because(e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Waits until the earlier version runs.
fn wait(home: &Home, to: &Version) -> Result<()> {
    let mut last = String::new();
    loop {
        let Some(Status { view, .. }) = running_status(home)? else { return Err(ended(home)) };
        if view.back.is_none() && view.upgrade.is_none() {
            if view.version == *to && view.node.is_some() {
                return print(&format!("{} runs\n", to.target));
            }
            if view.version != *to {
                let what = format!("the rollback was refused: {} still runs", view.version.target);
                return Err(
                    Error::new(Kind::Failed, what).hint("the log has the reason: event=rollback_refused")
                );
            }
        }
        let now = match &view.back {
            Some(back) => format!("{}: {}", view.state, back.why),
            None => view.state.to_string(),
        };
        if now != last {
            tell(&now);
            last = now;
        }
        thread::sleep(LOOK);
    }
}

/// The reason why nothing more will happen.
fn ended(home: &Home) -> Error {
    match Journal::read(home).map(|found| found.record.why_halted()) {
        Ok(Some(reason)) => Error::new(Kind::Halted, reason),
        Ok(None) | Err(_) => Error::new(Kind::NoSupervisor, "the supervisor has ended before it was done")
            .hint("the way back goes on with the next `wemixvisor run`"),
    }
}
