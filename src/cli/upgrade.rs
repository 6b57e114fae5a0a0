//! Commands about upgrades: schedule, list, cancel, hold, release, now.

use super::args::Format;
use super::home::accepted;
use super::stage::{told_by, unplanned};
use super::{network, output, print, show, tell};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::Home;
use crate::machine::gates::room;
use crate::machine::{Origin, Target, Upgrade};
use crate::name::Name;
use crate::printable::printable;
use crate::schedule::{Agenda, Entry, Planned, disagree};
use crate::supervisor::{Request, ask};
use crate::upgrade::journal::Journal;
use crate::upgrade::{head, install};
use serde_json::json;

/// The warning where no node reports the set of validators.
const UNKNOWN_ROOM: &str = "not checked: the room for the turns of all validators before the fork";

/// The consequences that the operator accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Consent {
    /// The height has passed, so the upgrade is due at once.
    pub(super) now: Force,
    /// The fork is too near for the turns of all validators.
    pub(super) force: Force,
}

/// Plans an upgrade, unless that disagrees with what is planned or has happened, or would have consequences that the
/// operator has not consented to.
pub(super) fn schedule(config: &Config, home: &Home, entry: Entry, consent: Consent) -> Result<()> {
    let (name, height) = (entry.name.clone(), entry.height);
    let upgrade = entry.clone().upgrade(Origin::Schedule);
    let record = Journal::read(home)?.record;
    let mut planned = Planned::read(home);
    // An upgrade that was cancelled may be scheduled again.
    planned.cancelled.retain(|c| *c != (name.clone(), height));
    // A conflict about this upgrade itself is reported below, with the next step.
    planned.upgrades.retain(|u| u.name != name || u.origin != Origin::Schedule);
    let is_known = Agenda::load(home)?.by_hand().iter().any(|u| u.name == name && u.height == height);
    planned.upgrades.push(upgrade.clone().into());
    let schedule = planned.schedule(&record.ended);
    if let Some(conflict) = schedule.conflicts.iter().find(|c| c.concerns(&name)) {
        return Err(disagree(&conflict.to_string()));
    }
    if let Some(ended) = record.ended(&name) {
        let what = format!("upgrade {name} has ended already: {}", ended.outcome);
        let hint = format!("to try it again: wemixvisor upgrade now {name}");
        return Err(Error::new(Kind::Failed, what).hint(hint));
    }
    if !is_known {
        refuse_or_warn(has_passed(config, home, height)?, consent.now, "to have it done at once, add --now")?;
        let short = lacks_room(config, home, &upgrade);
        refuse_or_warn(short, consent.force, "to schedule it all the same, add --force")?;
    }
    Agenda::edit(home, |agenda| agenda.schedule(entry))?;
    refresh(home, None);
    let missing = if install::staged(home)?.contains(&name) {
        let told = told_by(home, &Target::Upgrade(name.clone()));
        told.map(|told| format!(", its binary reports version {told}")).unwrap_or_default()
    } else {
        format!(
            "; its binary is not here: `wemixvisor upgrade add {name} BINARY` stages it, `wemixvisor upgrade fetch {name}` downloads it"
        )
    };
    print(&format!("{name} is scheduled at height {height}{missing}\n"))
}

/// Refuses an upgrade for an objection, or warns of it where the operator has consented.
fn refuse_or_warn(objection: Option<String>, consent: Force, hint: &'static str) -> Result<()> {
    let Some(objection) = objection else { return Ok(()) };
    if !consent.is_given() {
        return Err(Error::new(Kind::NotMet, objection).hint(hint));
    }
    tell(format_args!("wemixvisor: {objection}"));
    Ok(())
}

/// Whether the chain is at the height of an upgrade already, by what runs or by the head record.
fn has_passed(config: &Config, home: &Home, height: u64) -> Result<Option<String>> {
    let head = match network::head(config, home) {
        Some(head) => Some(head),
        None => head::read(home)?.map(|record| record.block.height),
    };
    let due = |head| format!("height {height} has passed, the head is {head}: the upgrade is due at once");
    Ok(head.filter(|head| *head >= height).map(due))
}

/// Whether not all validators can have their turn before the fork.
fn lacks_room(config: &Config, home: &Home, upgrade: &Upgrade) -> Option<String> {
    let fork = upgrade.fork_height.filter(|_| config.validator_mode)?;
    let outlook = network::look(config, home);
    let outlook = outlook.inspect_err(|e| tell(format_args!("wemixvisor: {UNKNOWN_ROOM}: {e}"))).ok()?;
    let short = room(outlook.set().len(), upgrade.height, Some(outlook.head()), fork).err();
    short.map(|short| short.to_string())
}

pub(super) fn list(config: &Config, home: &Home, format: Format) -> Result<()> {
    let damaged = Agenda::load(home).err();
    let status = show::current(config, home)?;
    // Damage is reported last, as an error.
    let damage = damaged.as_ref().map(ToString::to_string);
    for problem in status.problems.iter().filter(|problem| Some(*problem) != damage.as_ref()) {
        tell(format_args!("wemixvisor: {problem}"));
    }
    let view = &status.view;
    let unplanned = unplanned(home, view)?;
    let value = json!({
        "planned": view.planned, "under_way": view.upgrade, "ended": view.ended, "unplanned": unplanned,
    });
    output(format, &value, || {
        let told = |name: &Name| told_by(home, &Target::Upgrade(name.clone()));
        let version = |name| told(name).map(|told| format!(" ({told})")).unwrap_or_default();
        let names: Vec<String> = unplanned.iter().map(|name| format!("{name}{}", version(name))).collect();
        let rest = format!("\nstaged, not planned: {}\n", printable(&names.join(", ")));
        show::upgrades(home, &status) + if names.is_empty() { "" } else { &rest }
    })?;
    damaged.map_or(Ok(()), Err)
}

pub(super) fn cancel(home: &Home, name: &Name) -> Result<()> {
    match ask(home, &Request::Cancel { name: name.clone() }) {
        Ok(answered) => print(&format!("{}\n", accepted(&answered.reply)?)),
        Err(e) if e.kind() == Kind::NoSupervisor => {
            let under_way = Journal::read(home)?.record.upgrade.is_some_and(|p| p.name == *name);
            if under_way {
                let what = format!("upgrade {name} has begun and cannot be cancelled");
                return Err(Error::new(Kind::Failed, what));
            }
            let heights = Planned::read(home).heights(name);
            Agenda::edit(home, |agenda| agenda.cancel(name, &heights))?;
            print(&format!("upgrade {name} is cancelled\n"))
        }
        Err(e) => Err(e),
    }
}

/// Puts an upgrade on hold, from whatever source it is planned: it stays planned, and does not happen.
pub(super) fn hold(home: &Home, name: &Name) -> Result<()> {
    let begun = || Error::new(Kind::Failed, format!("upgrade {name} has begun and cannot be held"));
    let is_under_way =
        || Journal::read(home).map(|found| found.record.upgrade.is_some_and(|p| p.name == *name));
    if is_under_way()? {
        return Err(begun());
    }
    if Planned::read(home).heights(name).is_empty() {
        let hint = "see what is planned: wemixvisor upgrade list";
        return Err(Error::new(Kind::NotFound, format!("no upgrade {name} is planned")).hint(hint));
    }
    Agenda::edit(home, |agenda| {
        agenda.hold(name);
        Ok(())
    })?;
    refresh(home, None);
    // It may have begun while the supervisor did not know.
    if is_under_way()? {
        return Err(begun().hint("to go back from it: wemixvisor rollback"));
    }
    print(&format!("{name} is on hold until `wemixvisor upgrade release {name}`\n"))
}

/// Lets an upgrade happen that was on hold.
pub(super) fn release(home: &Home, name: &Name) -> Result<()> {
    Agenda::edit(home, |agenda| agenda.release(name))?;
    refresh(home, None);
    print(&format!("{name} is no longer on hold\n"))
}

pub(super) fn now(config: &Config, home: &Home, name: Name) -> Result<()> {
    let can_be_had = config.daemon_allow_download_binaries
        || install::staged(home)?.contains(&name)
        || Planned::read(home).has(&name);
    if !can_be_had {
        let what = format!("upgrade {name} is neither planned nor staged");
        let hint = format!("stage its binary with `wemixvisor upgrade add {name} BINARY`");
        return Err(Error::new(Kind::NotFound, what).hint(hint));
    }
    print(&format!("{}\n", accepted(&ask(home, &Request::UpgradeNow { name })?.reply)?))
}

/// Has the supervisor, if one runs, read the plans or the binary of an upgrade again, and waits until it has. It would do
/// so by itself, later.
pub(super) fn refresh(home: &Home, binary: Option<&Name>) {
    let _ = ask(home, &Request::Refresh { binary: binary.cloned() });
}
