//! Making and changing plans, and holding them back.

use super::super::args::NewPlan;
use super::situation::World;
use super::{Situation, plans, under_way, upgrades};
use crate::cli::home::accepted;
use crate::cli::{print, tell};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::name::Name;
use crate::schedule::Agenda;
use crate::schedule::{Activation, Context, Entry, Finding, Plan, Report, Severity, read_file, validate};
use crate::supervisor::{Request, ask};

/// Makes a plan. It may be empty, but its upgrades must be valid.
pub(super) fn create(config: &Config, home: &Home, new: NewPlan) -> Result<()> {
    let NewPlan { name, description, chain_id, from, upgrades: entries, force } = new;
    let mut plan = match &from {
        Some(file) => read_file(file)?.plan,
        None => Plan::new(name.clone(), ""),
    };
    plan.name = name.clone();
    plan.description = description.unwrap_or(plan.description);
    plan.chain_id = chain_id.or(plan.chain_id);
    entries.into_iter().for_each(|entry| plan.add(entry));
    let bad = |finding: &Finding| finding.severity == Severity::Error && !plan.upgrades.is_empty();
    let mut report = validate(&plan, &Context::default());
    report.findings.retain(bad);
    if !report.findings.is_empty() {
        let what = format!("plan {name} is not valid");
        return Err(Error::new(Kind::BadInput, what).because(report));
    }
    let world = World::look(config, home);
    let short = if force.is_given() { Report::default() } else { world.short_of_room(&plan) };
    if !short.findings.is_empty() {
        let what = format!("plan {name} leaves too little room before a fork");
        let hint = "to make it all the same, add --force";
        return Err(Error::new(Kind::NotMet, what).because(short).hint(hint));
    }
    plans(home).create(&plan)?;
    if plan.upgrades.is_empty() {
        let hint = format!("add upgrades with `wemixvisor plan add-upgrade {name} NAME:HEIGHT`");
        return print(&format!("plan {name} is made, without upgrades; {hint}\n"));
    }
    for finding in validate(&plan, &world.context(force)).findings {
        tell(format_args!("wemixvisor: {finding}"));
    }
    let next = format!("follow it with `wemixvisor plan execute {name}`");
    print(&format!("plan {name} is made, with {}; {next}\n", upgrades(plan.upgrades.len())))
}

/// Puts an upgrade into a plan. Errors elsewhere in the plan do not prevent that.
pub(super) fn add(home: &Home, plan: &Name, entry: Entry) -> Result<()> {
    let said = format!("{} at {} is in plan {plan}", entry.name, entry.height);
    let stored = plans(home).edit(plan, |plan| {
        if let Some(known) = plan.upgrades.iter().find(|e| e.name == entry.name) {
            let what = format!("{} is in plan {} already, at {}", known.name, plan.name, known.height);
            let hint =
                format!("take it out first: wemixvisor plan remove-upgrade {} {}", plan.name, known.name);
            return Err(Error::new(Kind::Failed, what).hint(hint));
        }
        let name = entry.name.clone();
        plan.add(entry);
        let index = plan.upgrades.iter().position(|e| e.name == name).unwrap_or_default();
        let ours = format!("/upgrades/{index}/");
        let mut report = validate(plan, &Context::default());
        report.findings.retain(|f| f.severity == Severity::Error && f.pointer.starts_with(&ours));
        if report.findings.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::BadInput, format!("{name} cannot be added")).because(report))
    })?;
    print(&format!("{said}, which has {}\n", upgrades(stored.plan.upgrades.len())))?;
    tell_of_change(home, plan)
}

/// Takes an upgrade out of a plan.
pub(super) fn take_out(home: &Home, plan: &Name, upgrade: &Name) -> Result<()> {
    let stored = plans(home).edit(plan, |plan| match plan.remove(upgrade) {
        Some(_) => Ok(()),
        None => {
            let hint = format!("see its upgrades: wemixvisor plan show {}", plan.name);
            Err(Error::new(Kind::NotFound, format!("{upgrade} is not in plan {}", plan.name)).hint(hint))
        }
    })?;
    print(&format!("{upgrade} is out of plan {plan}, which has {}\n", upgrades(stored.plan.upgrades.len())))?;
    tell_of_change(home, plan)
}

/// Warns that a plan which was followed is not any more, since it has changed.
fn tell_of_change(home: &Home, plan: &Name) -> Result<()> {
    if Agenda::load(home)?.plan(plan).is_some() {
        tell(format_args!(
            "wemixvisor: plan {plan} was being followed, and is not any more now that it has changed; to follow \
             it as it is: wemixvisor plan execute {plan}"
        ));
    }
    put_in_force(home)
}

/// Holds a plan back. When this returns, none of its upgrades begins any more.
pub(super) fn pause(config: &Config, home: &Home, plan: &Name) -> Result<()> {
    Agenda::edit(home, |agenda| agenda.pause(plan))?;
    put_in_force(home)?;
    let stored = plans(home).load(plan);
    let begun = Situation::look(config, home).ok().zip(stored.ok());
    let begun = begun.map(|(situation, stored)| under_way_in_words(&situation, &stored.plan));
    print(&format!("plan {plan} is paused{}\n", begun.unwrap_or_default()))
}

/// The upgrade of a plan that cannot be stopped any more.
fn under_way_in_words(situation: &Situation<'_>, plan: &Plan) -> String {
    let begun = under_way(situation, plan);
    begun.map(|upgrade| format!("; {upgrade} had begun already, and goes on")).unwrap_or_default()
}

/// Lets a paused plan go on.
pub(super) fn resume(home: &Home, plan: &Name) -> Result<()> {
    Agenda::edit(home, |agenda| {
        agenda.resume(plan)?;
        let activated = agenda.plan(plan).map(|active| active.sha256);
        activated.map_or(Ok(()), |sha256| plans(home).follow(plan, &sha256).map(drop))
    })?;
    put_in_force(home)?;
    print(&format!("plan {plan} goes on\n"))
}

/// Deletes a plan. A plan with upgrades to come must be paused first, so that a slip costs no upgrade.
pub(super) fn remove(config: &Config, home: &Home, plan: &Name) -> Result<()> {
    let mut also = String::new();
    // A plan whose file cannot be read can be removed, too.
    if let Ok(stored) = plans(home).load(plan) {
        let situation = Situation::look(config, home)?;
        let status = situation.status(&stored);
        if status.activation == Activation::Active && status.pending > 0 {
            let what = format!("plan {plan} is being followed, with {} to come", upgrades(status.pending));
            let hint = format!("hold it back first: wemixvisor plan pause {plan}");
            return Err(Error::new(Kind::Failed, what).hint(hint));
        }
        also = under_way_in_words(&situation, &stored.plan);
    }
    let was_active = Agenda::edit(home, |agenda| Ok(agenda.deactivate(plan)))?;
    match plans(home).remove(plan) {
        Err(e) if e.kind() == Kind::NotFound && was_active => {}
        removed => removed?,
    }
    put_in_force(home)?;
    print(&format!("plan {plan} is removed{also}\n"))
}

/// Waits until the supervisor, if one runs, acts upon what is on disk now.
///
/// # Errors
/// If one runs and does not confirm that.
pub(super) fn put_in_force(home: &Home) -> Result<()> {
    match ask(home, &Request::Refresh { binary: None }) {
        Ok(answered) => accepted(&answered.reply).map(drop).map_err(|e| {
            Error::new(Kind::Failed, "it is on disk, but the supervisor has not taken note yet").because(e)
        }),
        Err(e) if e.kind() == Kind::NoSupervisor => Ok(()),
        Err(e) => Err(e),
    }
}
