//! `upgrade add` and `upgrade show`: the binary of an upgrade, the version that it reports, and the arguments that it needs.

use super::args::Format;
use super::upgrade::refresh;
use super::{history, print, print_json, show, tell};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::{Home, Manifest, binary};
use crate::machine::{Target, Version, View};
use crate::name::Name;
use crate::schedule::Planned;
use crate::upgrade::install::{self, Staged};
use crate::upgrade::journal::Journal;
use crate::upgrade::node_args::Changes;
use crate::upgrade::{Cancel, receipts, smoke};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A binary to stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct New {
    pub(crate) name: Name,
    pub(crate) binary: PathBuf,
    /// Whether it may replace a staged binary, or equal the running one.
    pub(crate) force: Force,
    /// The file with the arguments of the version.
    pub(crate) args: Option<PathBuf>,
    /// Arguments to add to those, and to take away from those of `run`.
    pub(crate) add_args: Vec<String>,
    pub(crate) drop_args: Vec<String>,
}

/// Stages the binary of an upgrade, and with it the arguments that it needs.
///
/// # Errors
/// [`Kind::NotMet`] if it is the binary that runs, by its digest or by the version that it reports, and is not forced; as
/// [`install::add`].
pub(super) fn add(config: &Config, home: &Home, new: &New) -> Result<()> {
    let target = Target::Upgrade(new.name.clone());
    let changes = new.changes(home, &target)?;
    let told = binary::open(&new.binary).ok().and_then(|_| told(config, home, &new.binary));
    let insists = if is_what_runs(config, home, new, told.as_deref())? { Force::Yes } else { Force::No };
    let staged = install::add(home, &target, &new.binary, new.force)?;
    if let Some(changes) = &changes {
        changes.save(home, &target)?;
    }
    install::describe(home, &target, told.as_deref(), insists)?;
    refresh(home, Some(&new.name));
    let what = match &staged {
        Staged::New(_) => "is staged",
        Staged::Same(_) => "was staged already",
        Staged::Replaced(_) => "is staged in place of another one",
    };
    let version = told.map(|told| format!(", version {told}")).unwrap_or_default();
    let args = match &changes {
        Some(changes) if *changes == Changes::default() => "\nit gets the arguments of `run`".to_owned(),
        Some(changes) => format!("\nit gets the arguments of `run` {changes}"),
        None => String::new(),
    };
    print(&format!("{} {what}{version}: {}{args}\n", new.name, staged.manifest().sha256))
}

/// Removes a staged binary, with everything that belongs to its version.
///
/// # Errors
/// [`Kind::Failed`] if it is planned; as [`install::remove`].
pub(super) fn remove(config: &Config, home: &Home, name: &Name, force: Force) -> Result<()> {
    let view = show::current(config, home)?.view;
    let is_paused = Planned::read(home).held.iter().any(|(held, _)| held == name);
    if is_paused || view.planned.iter().any(|plan| plan.name == *name) {
        let hint = format!("cancel it first: wemixvisor upgrade cancel {name}");
        return Err(Error::new(Kind::Failed, format!("upgrade {name} is planned")).hint(hint));
    }
    install::remove(home, name, force)?;
    print(&format!("{name} is removed\n"))
}

/// The staged versions that are neither in use nor planned.
pub(super) fn unplanned(home: &Home, view: &View) -> Result<Vec<Name>> {
    let mut names = install::staged(home)?;
    names.retain(|name| {
        let is_planned = view.planned.iter().any(|plan| plan.name == *name);
        let is_under_way = view.upgrade.as_ref().is_some_and(|attempt| attempt.name == *name);
        !is_planned && !is_under_way && !view.version.target.is(name)
    });
    Ok(names)
}

impl New {
    /// The changes of arguments that the command line asks for, if any.
    fn changes(&self, home: &Home, target: &Target) -> Result<Option<Changes>> {
        if self.args.is_none() && self.add_args.is_empty() && self.drop_args.is_empty() {
            return Ok(None);
        }
        let mut changes = match &self.args {
            Some(file) => Changes::load(file)?,
            None => Changes::of(home, target)?,
        };
        for (list, given) in [(&mut changes.add, &self.add_args), (&mut changes.drop, &self.drop_args)] {
            for arg in given {
                if !list.contains(arg) {
                    list.push(arg.clone());
                }
            }
        }
        changes.check().map_err(|why| Error::new(Kind::BadInput, why))?;
        Ok(Some(changes))
    }
}

/// The version that a binary reports.
fn told(config: &Config, home: &Home, binary: &Path) -> Option<String> {
    let path = fs::canonicalize(binary).unwrap_or_else(|_| binary.to_owned());
    let failed = |e| Error::new(Kind::Io, "make a pipe").because(e);
    let tested = Cancel::new()
        .map_err(failed)
        .and_then(|cancel| smoke::test(&path, &config.daemon_smoke_args, home.root(), &cancel));
    match tested {
        Ok(said) => said.told,
        Err(e) => {
            tell(format_args!("wemixvisor: warning: {e}"));
            None
        }
    }
}

/// Refuses to upgrade to the binary that runs, unless that is forced. Returns whether the operator insists on it.
fn is_what_runs(config: &Config, home: &Home, new: &New, version: Option<&str>) -> Result<bool> {
    let Some(running) = running(home)?.filter(|running| !running.target.is(&new.name)) else {
        return Ok(false);
    };
    let path = fs::canonicalize(&new.binary).unwrap_or_else(|_| new.binary.clone());
    let is_same = install::digest_of(&path).is_ok_and(|sha256| sha256 == running.sha256);
    let runs =
        || told_by(home, &running.target).or_else(|| told(config, home, &home.binary(&running.target)));
    let what = match version {
        _ if is_same => format!("this is the binary of {}, which runs", running.target),
        Some(version) if runs().as_deref() == Some(version) => {
            format!("it reports the version {version}, as {} does, which runs", running.target)
        }
        Some(_) | None => return Ok(false),
    };
    if !new.force.is_given() {
        let hint = "to stage it all the same, add --force";
        return Err(Error::new(Kind::NotMet, what).at(new.binary.display()).hint(hint));
    }
    tell(format_args!("wemixvisor: warning: {what}"));
    Ok(is_same)
}

/// The version that runs, or that the next `run` starts.
fn running(home: &Home) -> Result<Option<Version>> {
    if !Journal::exists(home)? {
        return Ok(None);
    }
    let record = Journal::read(home)?.record;
    let new = record.upgrade.filter(|attempt| attempt.attempt > 0).map(|attempt| attempt.to);
    Ok(Some(new.unwrap_or(record.current)))
}

/// The version that a staged binary reported when it was tried.
pub(super) fn told_by(home: &Home, target: &Target) -> Option<String> {
    Manifest::load(&home.manifest(target)).ok().flatten()?.told
}

/// Shows everything about one version: its binary, its arguments, and what is planned with it.
///
/// # Errors
/// [`Kind::NotFound`] if nothing is known of it.
pub(super) fn show(config: &Config, home: &Home, name: &Name, format: Format) -> Result<()> {
    let target = Target::Upgrade(name.clone());
    let manifest = Manifest::load(&home.manifest(&target))?;
    let changes = Changes::of(home, &target)?;
    let view = show::current(config, home)?.view;
    let plan = view.planned.iter().find(|plan| plan.name == *name);
    let ended = view.ended.iter().find(|ended| ended.name == *name);
    let under_way = view.upgrade.as_ref().filter(|attempt| attempt.name == *name);
    if manifest.is_none() && plan.is_none() && ended.is_none() && under_way.is_none() {
        let what = format!("nothing is known of {name}");
        return Err(Error::new(Kind::NotFound, what).hint("see `wemixvisor upgrade list`"));
    }
    let receipt = receipts::read(home, name)?;
    if format == Format::Json {
        let args = json!({"add": changes.add, "drop": changes.drop});
        return print_json(&json!({
            "name": name, "binary": manifest, "args": args, "planned": plan, "under_way": under_way, "ended": ended,
            "receipt": receipt,
        }));
    }
    let mut rows = vec![["version".to_owned(), target.to_string()]];
    let mut row = |label: &str, text: String| rows.push([label.to_owned(), text]);
    match &manifest {
        Some(manifest) => {
            let untried = || "it was not asked for its version".to_owned();
            row("told", manifest.told.clone().unwrap_or_else(untried));
            row("sha256", manifest.sha256.hex());
            row("from", format!("{}, {}", manifest.source, manifest.time));
        }
        None => row("binary", "none is staged".to_owned()),
    }
    if changes != Changes::default() {
        row("arguments", format!("those of `run` {changes}"));
    }
    if view.version.target == target {
        row("state", view.state.to_string());
    }
    under_way.into_iter().for_each(|attempt| row("upgrade", format!("under way: {}", show::stage(attempt))));
    let planned = plan.map(|plan| format!("for height {} by {}: {}", plan.height, plan.origin, plan.why));
    planned.into_iter().for_each(|text| row("planned", text));
    ended.into_iter().for_each(|ended| row("ended", format!("{}: {}", ended.outcome, ended.detail)));
    rows.extend(receipt.iter().flat_map(history::receipt));
    print(&show::table(rows))
}
