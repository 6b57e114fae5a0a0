//! The commands about plans.
//!
//! They work whether or not a supervisor runs. A supervisor that runs has read every change when the command ends.

mod apply;
mod edit;
mod execute;
mod roll;
mod situation;
mod watch;

pub(super) use situation::Situation;

use super::args::{Format, PlanCommand};
use super::show::{table, word};
use super::{output, print, print_json, tell, terminal, wait};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::Home;
use crate::name::Name;
use crate::printable::printable;
use crate::schedule::{self, Activation, Finding, Plan, Plans, Severity, Stage, Stored, validate_json};
use serde_json::json;
use situation::World;
use std::fmt::Write as _;
use std::path::Path;

/// Runs one of the commands.
pub(super) fn run(command: PlanCommand, config: &Config, home: &Home) -> Result<()> {
    match command {
        PlanCommand::Create(new) => edit::create(config, home, *new),
        PlanCommand::AddUpgrade { plan, entry } => edit::add(home, &plan, *entry),
        PlanCommand::RemoveUpgrade { plan, upgrade } => edit::take_out(home, &plan, &upgrade),
        PlanCommand::Validate { name_or_file, format } => validate(config, home, &name_or_file, format),
        PlanCommand::Show(format, plan) => show(config, home, &plan, format),
        PlanCommand::List(format) => list(config, home, format),
        PlanCommand::Apply { file, force } => apply::apply(config, home, &file, force),
        PlanCommand::Execute { plan, force } => execute::execute(config, home, &plan, force),
        PlanCommand::Pause(plan) => edit::pause(config, home, &plan),
        PlanCommand::Resume(plan) => edit::resume(home, &plan),
        PlanCommand::Remove(plan) => edit::remove(config, home, &plan),
        PlanCommand::Status { plan, format, watch: false } => status(config, home, plan.as_ref(), format),
        PlanCommand::Status { plan, format, watch: true } => {
            watch::watch(config, home, plan.as_ref(), format)
        }
        PlanCommand::Wait { plan, timeout } => wait::plan(config, home, &plan, timeout),
    }
}

pub(super) fn plans(home: &Home) -> Plans {
    Plans::new(home.plans())
}

/// Validates a plan, or a file that may become one.
fn validate(config: &Config, home: &Home, name_or_file: &Path, format: Format) -> Result<()> {
    let plans = plans(home);
    let named = name_or_file.to_str().and_then(|text| text.parse::<Name>().ok());
    let named = named.filter(|name| plans.path(name).exists() || !name_or_file.exists());
    let (text, path) = match &named {
        Some(name) => (plans.text(name)?, plans.path(name)),
        None => (schedule::read_text(name_or_file)?, name_or_file.to_owned()),
    };
    let world = World::look(config, home);
    let (plan, mut report) = validate_json(&text, &world.context(Force::No));
    if let (Some(name), Some(plan)) = (named, &plan)
        && plan.name != name
    {
        let what = format!("the plan calls itself {}, but its file {name}", plan.name);
        report.findings.insert(0, Finding { pointer: "/name".to_owned(), severity: Severity::Error, what });
    }
    let unchecked = plan.as_ref().and_then(|plan| world.unchecked(plan));
    let rolls = plan.as_ref().map(|plan| roll::rolls(plan, &world)).unwrap_or_default();
    if format == Format::Json {
        let rolls: Vec<_> = rolls.iter().map(roll::Roll::value).collect();
        print_json(&json!({
            "valid": report.is_valid(), "findings": report.findings, "unchecked": unchecked, "rolls": rolls,
        }))?;
    } else {
        let mut text: String = report.findings.iter().map(|f| format!("{f}\n")).collect();
        if let Some(plan) = plan.as_ref().filter(|_| report.is_valid()) {
            let _ = writeln!(text, "plan {} is valid: {}", plan.name, upgrades(plan.upgrades.len()));
        }
        print(&(text + &roll::text(&rolls)))?;
        if let Some(unchecked) = unchecked {
            tell(format_args!("wemixvisor: {unchecked}"));
        }
    }
    let errors = report.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let all = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    match errors {
        0 => Ok(()),
        _ => Err(Error::new(Kind::BadInput, format!("the plan is not valid: {all}")).at(path.display())),
    }
}

pub(super) fn upgrades(n: usize) -> String {
    if n == 1 { "1 upgrade".to_owned() } else { format!("{n} upgrades") }
}

fn show(config: &Config, home: &Home, name: &Name, format: Format) -> Result<()> {
    let stored = plans(home).load(name)?;
    output(format, &stored.plan, || {
        let activation = Situation::look(config, home).map(|s| s.activation(&stored)).ok();
        described(&stored, activation)
    })
}

fn described(stored: &Stored, activation: Option<Activation>) -> String {
    let Plan { name, description, created_at, chain_id, upgrades, .. } = &stored.plan;
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{what:<12}{}", printable(value));
        }
    };
    line("plan", name.as_str());
    line("description", description);
    line("created", created_at);
    line("chain", &chain_id.map(|id| id.to_string()).unwrap_or_default());
    line("digest", &stored.sha256.to_string());
    line("state", &activation.map(|activation| word(&activation)).unwrap_or_default());
    if upgrades.is_empty() {
        return text + "\nthere is no upgrade in it\n";
    }
    let mut rows =
        vec![["UPGRADE", "HEIGHT", "FORK", "DEADLINE", "DATA", "DIGEST", "FROM"].map(ToOwned::to_owned)];
    for entry in upgrades {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let digest = entry.digest.map(|d| format!("{}:{:.12}…", d.algorithm(), d.hex())).unwrap_or_default();
        let place = |(platform, url): (&str, &str)| format!("{platform}={}", crate::url::redact(url));
        let from: Vec<String> = entry.binaries.iter().map(place).collect();
        rows.push([
            entry.name.to_string(),
            entry.height.to_string(),
            number(entry.fork_height),
            number(entry.deadline_height),
            if entry.data_compat == Some(false) { "incompatible".to_owned() } else { String::new() },
            digest,
            from.join(" "),
        ]);
    }
    text + "\n" + &table(rows)
}

fn list(config: &Config, home: &Home, format: Format) -> Result<()> {
    let situation = Situation::look(config, home)?;
    let all = plans(home).list()?;
    // A plan that is followed, or would be, but whose file is gone.
    let lost = situation.agenda.plans().iter().map(|active| &active.name);
    let lost: Vec<Name> = lost.filter(|name| !all.iter().any(|(known, _)| known == *name)).cloned().collect();
    let mut rows = vec![["PLAN", "STATE", "UPGRADES", "DONE", "NEXT", "ABOUT"].map(ToOwned::to_owned)];
    let mut values = Vec::new();
    let lost = lost.into_iter().map(|name| (name.clone(), plans(home).load(&name)));
    for (name, stored) in all.into_iter().chain(lost) {
        match stored {
            Ok(stored) => {
                let status = situation.status(&stored);
                let next = status.upgrades.iter().find(|u| Some(&u.name) == status.active.as_ref());
                rows.push([
                    name.to_string(),
                    word(&status.activation),
                    status.total_upgrades.to_string(),
                    format!("{:.0} %", status.progress.floor()),
                    next.map(|u| format!("{} at {}", u.name, u.height)).unwrap_or_default(),
                    stored.plan.description.clone(),
                ]);
                values.push(json!({
                    "name": name, "description": stored.plan.description,
                    "created_at": stored.plan.created_at, "sha256": stored.sha256,
                    "activation": status.activation, "total_upgrades": status.total_upgrades,
                    "completed": status.completed, "progress": status.progress, "active": status.active,
                    "problem": null,
                }));
            }
            Err(problem) => {
                let problem = problem.to_string();
                let row = [name.as_str(), "unreadable", "", "", "", &problem];
                rows.push(row.map(ToOwned::to_owned));
                values.push(json!({"name": name, "problem": problem}));
            }
        }
    }
    output(format, &values, || match rows.len() {
        1 => "there are no plans; make one with `wemixvisor plan create NAME`\n".to_owned(),
        _ => table(rows),
    })
}

/// Shows how far plans are. One that has changed, or cannot be read, is an error as well.
fn status(config: &Config, home: &Home, plan: Option<&Name>, format: Format) -> Result<()> {
    let situation = Situation::look_at_node(config, home)?;
    let chosen = chosen(home, &situation, plan)?;
    let statuses: Vec<_> = chosen.plans.iter().map(|stored| situation.status(stored)).collect();
    if format == Format::Json {
        match (plan, &statuses[..]) {
            (Some(_), [one]) => print_json(one)?,
            _ => print_json(&statuses)?,
        }
    } else {
        let (width, colour) = terminal::of_stdout(config);
        let tables: Vec<String> = statuses.iter().map(|s| schedule::table(s, width, colour)).collect();
        match tables.is_empty() && chosen.trouble.is_none() {
            true => print("no plan was executed; see `wemixvisor plan list`\n")?,
            false => print(&tables.join("\n"))?,
        }
        if !situation.running && statuses.iter().any(|s| s.pending > 0) {
            tell(format_args!("wemixvisor: no supervisor is running, so nothing will happen"));
        }
    }
    chosen.trouble.map_or(Ok(()), Err)
}

/// Plans that were asked for.
struct Chosen {
    plans: Vec<Stored>,
    /// The first thing that is wrong with one of them.
    trouble: Option<Error>,
}

/// One plan, or all that were activated. Of several that cannot be read the others are shown.
fn chosen(home: &Home, situation: &Situation<'_>, plan: Option<&Name>) -> Result<Chosen> {
    let names: Vec<Name> = match plan {
        Some(name) => vec![name.clone()],
        None => situation.agenda.plans().iter().map(|active| active.name.clone()).collect(),
    };
    let mut chosen = Chosen { plans: Vec::new(), trouble: None };
    for name in &names {
        let trouble = match plans(home).load(name) {
            Ok(stored) => {
                let changed = situation.activation(&stored) == Activation::Changed;
                chosen.plans.push(stored);
                changed.then(|| has_changed(name))
            }
            Err(e) if plan.is_some() => return Err(e),
            Err(e) => Some(e),
        };
        match trouble {
            Some(trouble) if chosen.trouble.is_some() => tell(format_args!("wemixvisor: {trouble}")),
            trouble => chosen.trouble = chosen.trouble.or(trouble),
        }
    }
    Ok(chosen)
}

pub(super) fn has_changed(name: &Name) -> Error {
    let what = format!("plan {name} has changed since it was executed, and is not followed");
    let hint = format!("look at it, then follow it as it is now: wemixvisor plan execute {name}");
    Error::new(Kind::Verification, what).hint(hint)
}

/// The first of the upgrades that are under way, if one is of this plan.
fn under_way(situation: &Situation<'_>, plan: &Plan) -> Option<Name> {
    let progress = situation.view.upgrade.as_ref()?;
    plan.upgrades.iter().any(|e| e.name == progress.name).then(|| progress.name.clone())
}

/// The next upgrade of a status, in words.
fn next_in_words(status: &schedule::Status) -> Option<String> {
    let next = status.upgrades.iter().find(|u| Some(&u.name) == status.active.as_ref())?;
    let left = match (next.phase, next.blocks_left) {
        (Stage::Waiting, Some(blocks)) => format!(", in {blocks} blocks"),
        (Stage::Due, _) => ", which is due".to_owned(),
        _ => String::new(),
    };
    Some(format!("{} at {}{left}", next.name, next.height))
}
