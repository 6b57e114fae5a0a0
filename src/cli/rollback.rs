//! `rollback`: back to an earlier version, at any time, with or without a supervisor.
//!
//! The way back is decided here on the record as it is, shown, and ordered. A supervisor that runs decides it again by
//! what it knows, and takes it; without one it is on record for the next `run`.

use super::home::accepted;
use super::resolve::{carry_out, not_met};
use super::{print, tell};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::{Home, launch};
use crate::machine::{Decision, Known, Target, Version, View, Wanted, WayBack, way_back};
use crate::supervisor::{Reply, Request, Status, ask};
use crate::upgrade::journal::Journal;
use crate::upgrade::{backup, head, install};
use std::io::{self, BufRead as _, IsTerminal as _};
use std::thread;
use std::time::{Duration, SystemTime};

/// How often the supervisor is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// The blocks that may have come unseen since the head record was written.
const UNSEEN: u64 = 2;

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The version to go back to; None for the one before.
    pub(crate) to: Option<Target>,
    /// Whether a backup is to take the place of the data in any case.
    pub(crate) restore: bool,
    /// Whether the operator knows better.
    pub(crate) force: bool,
    /// Whether nothing is to be asked.
    pub(crate) yes: bool,
    /// Whether to wait until the earlier version runs.
    pub(crate) wait: bool,
}

/// Goes back, or has the next `run` do it.
///
/// # Errors
/// [`Kind::NotMet`] if there is no way back, it may hurt, or is not wanted; [`Kind::Verification`] if the earlier binary is
/// not what it was.
pub(super) fn rollback(config: &Config, home: &Home, options: &Options) -> Result<()> {
    let status = supervisor(home)?;
    let record = Journal::read(home)?.record;
    let to = options.to.as_ref().map(|to| verified(home, to)).transpose()?;
    let wanted = Wanted { to, restore: options.restore, force: options.force };
    let known = known(config, home, status.as_ref())?;
    let way = way_back(&record, &wanted, &known).map_err(not_met)?;
    let to = &way.order.to;
    if verified(home, &to.target)?.sha256 != to.sha256 {
        let what = format!("the binary of {} is not the one that has run", to.target);
        return Err(Error::new(Kind::Verification, what).at(home.binary(&to.target).display()));
    }
    if status.is_none()
        && let Some(node) = launch::last(home)?.and_then(|last| last.process)
    {
        let what = format!("the node runs without a supervisor, as process {}", node.pid.as_raw_pid());
        return Err(Error::new(Kind::Busy, what).hint("`wemixvisor run` takes it over, and can go back then"));
    }
    tell(shown(&way, status.is_some()));
    if !options.yes && !is_wanted()? {
        return Err(Error::new(Kind::NotMet, "nothing was done"));
    }
    if status.is_none() {
        carry_out(home, Decision::Rollback { order: way.order, known })?;
        return if options.wait {
            let what = "the way back is on record, and nothing is waited for: no supervisor is running";
            Err(Error::new(Kind::NoSupervisor, what).hint("start one with `wemixvisor run`"))
        } else {
            Ok(())
        };
    }
    let order = way.order.clone();
    match ask(home, &Request::Rollback { order })?.reply {
        Reply::Refused(why) => return Err(Error::new(Kind::NotMet, why)),
        reply => tell(accepted(&reply)?),
    }
    if options.wait { wait(home, to) } else { Ok(()) }
}

/// The state of the supervisor, where one runs.
fn supervisor(home: &Home) -> Result<Option<Status>> {
    match ask(home, &Request::Status) {
        Ok(answered) => match answered.reply {
            Reply::Status(status) => Ok(Some(status)),
            other => Err(super::home::unasked(&other)),
        },
        Err(e) if e.kind() == Kind::NoSupervisor => Ok(None),
        Err(e) => Err(e),
    }
}

/// A version whose binary is what was staged.
fn verified(home: &Home, target: &Target) -> Result<Version> {
    let manifest = install::verify(home, target, None)?;
    Ok(Version { target: target.clone(), sha256: manifest.sha256 })
}

/// What is known besides the record: how high the chain can be by now, and the backups.
fn known(config: &Config, home: &Home, status: Option<&Status>) -> Result<Known> {
    let highest = match status {
        Some(Status { view, .. }) => view.head.iter().chain(&view.head_record).map(|b| b.height).max(),
        None => head::read(home)?.and_then(|record| {
            let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let age = Duration::from_secs(age.saturating_sub(record.timestamp?));
            let blocks = age.as_millis() / config.block_period.as_millis().max(1);
            let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
            Some(record.block.height.saturating_add(blocks).saturating_add(UNSEEN))
        }),
    };
    let backups = backup::list(home)?.into_iter().map(|backup| backup.name).collect();
    Ok(Known { highest, backups, validator: config.validator_mode })
}

/// What is going to be done, and what cannot be known.
fn shown(way: &WayBack, runs: bool) -> String {
    let undoes: Vec<String> = way.undoes.iter().map(ToString::to_string).collect();
    let mut lines =
        vec![format!("{} -> {}, which undoes {}", way.leaves.target, way.order.to.target, undoes.join(", "))];
    let node = if runs { "the node is stopped" } else { "the next `wemixvisor run` does it" };
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
        return Err(Error::new(Kind::NotMet, what).hint("if that is wanted, add --yes"));
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
        let Some(Status { view, .. }) = supervisor(home)? else { return Err(ended(home)) };
        if view.back.is_none() && view.upgrade.is_none() {
            let runs = view.version == *to && view.node.is_some();
            if runs {
                return print(&format!("{} runs\n", to.target));
            }
            if view.version != *to {
                let what = format!("it was not gone back: {} is what runs", view.version.target);
                return Err(Error::new(Kind::Failed, what).hint("the log says why: event=rollback_refused"));
            }
        }
        let now = progress(&view);
        if now != last {
            tell(&now);
            last = now;
        }
        thread::sleep(LOOK);
    }
}

fn progress(view: &View) -> String {
    match &view.back {
        Some(back) => format!("{}: {}", view.state, back.why),
        None => view.state.to_string(),
    }
}

/// Why nothing more will happen.
fn ended(home: &Home) -> Error {
    match Journal::read(home).map(|found| found.record.halted) {
        Ok(Some(reason)) => Error::new(Kind::Halted, reason).hint("decide with `wemixvisor resolve`"),
        Ok(None) | Err(_) => Error::new(Kind::NoSupervisor, "the supervisor has ended meanwhile")
            .hint("the way back goes on with the next `wemixvisor run`"),
    }
}
