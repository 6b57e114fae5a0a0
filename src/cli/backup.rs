//! `backup`: the commands about backups.
//!
//! Those that read or replace the data work only while no process has it open: they hold the locks of the supervisor and
//! of the node, and check the node's own lock.

use super::args::{BackupCommand, Format, Prune};
use super::fetch::cancelled_by_signals;
use super::resolve::ClaimedHome;
use super::show::{table, word};
use super::terminal::Line;
use super::{logger, output};
use crate::config::{Config, SignAfterUnclean};
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::lock::{DataLock, probe_data_lock};
use crate::home::{Home, launch};
use crate::machine::{Decision, NodeMark, Restore};
use crate::name::Name;
use crate::sorted;
use crate::upgrade::backup::{self, Backup, MadeBy, Manifest, Method, Options, Purpose, State, Work};
use crate::upgrade::journal::Journal;
use crate::upgrade::restore;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::SystemTime;

/// The default name of a backup.
const MANUAL: &str = "manual";

/// Runs one of the commands.
pub(super) fn run(command: BackupCommand, config: &Config, home: &Home) -> Result<()> {
    match command {
        BackupCommand::Create { name, force, format } => create(config, home, name, force, format),
        BackupCommand::List(format) => list(home, format),
        BackupCommand::Show(name, format) => show(home, &name, format),
        BackupCommand::Verify(name, format) => verify(config, home, &name, format),
        BackupCommand::Restore { name, force, format } => restore(config, home, &name, force, format),
        BackupCommand::Prune(prune) => self::prune(config, home, &prune),
    }
}

fn create(config: &Config, home: &Home, name: Option<Name>, force: Force, format: Format) -> Result<()> {
    let claimed = ClaimedHome::take(home)?;
    nothing_has_the_data_open(config, home)?;
    let record = claimed.record();
    if matches!(record.node, NodeMark::StoppedUnclean | NodeMark::Running) && !force.is_given() {
        let what = "the node was killed or has crashed: its data may be of different moments";
        return Err(Error::new(Kind::NotMet, what)
            .hint("run the node and stop it cleanly first; if you know better, add --force"));
    }
    let name = name.map_or_else(|| MANUAL.parse(), Ok).expect("it is a name");
    let purpose = Purpose {
        name,
        made_by: MadeBy::Operator,
        head: crate::upgrade::head::read(home)?.map(|head| head.block),
        node: Some(record.current.target.to_string()),
    };
    let mut options = Options::new(config);
    if options.method == crate::config::BackupMethod::None {
        // `none` is about upgrades: an operator who orders a backup gets one.
        options.method = crate::config::BackupMethod::Auto;
    }
    let made =
        with_line(home, &options, Beside::Nothing, "backup", |work| backup::make(work, &purpose, None))?;
    output(format, &summary(&made), || format!("backup {} is complete: {}\n", made.name, made.how()))
}

fn list(home: &Home, format: Format) -> Result<()> {
    let (backups, replaced) = (backup::list_all(home)?, restore::replaced(home));
    let summaries: Vec<Value> = backups.iter().map(summary).collect();
    let value = json!({"backups": summaries, "replaced": replaced});
    output(format, &value, || listed(&backups, &replaced))
}

fn listed(backups: &[Backup], replaced: &[PathBuf]) -> String {
    let mut rows = vec![["BACKUP", "MADE BY", "NODE", "HEAD", "MIB", "METHOD", "STATE"].map(str::to_owned)];
    for backup in backups {
        let Manifest { made_by, node, head, bytes, .. } = &backup.manifest;
        rows.push([
            backup.name.clone(),
            word(made_by),
            node.clone().unwrap_or_else(|| "?".to_owned()),
            head.as_ref().map_or_else(|| "?".to_owned(), |head| head.height.to_string()),
            bytes.div_ceil(1 << 20).to_string(),
            backup.manifest.method(),
            word(&backup.manifest.state()),
        ]);
    }
    let mut text = if backups.is_empty() { "there are no backups\n".to_owned() } else { table(rows) };
    for path in replaced {
        text += &format!("replaced data is kept in {}\n", path.display());
    }
    text
}

fn show(home: &Home, name: &str, format: Format) -> Result<()> {
    let found = backup::load(home, name)?;
    output(format, &summary(&found), || shown(&found))
}

fn shown(found: &Backup) -> String {
    let Manifest { upgrade, made_by, time, took_ms, source, head, node, bytes, left_out, damaged, .. } =
        &found.manifest;
    let unknown = || "unknown".to_owned();
    let head = head.as_ref().map_or_else(unknown, |head| match &head.hash {
        Some(hash) => format!("{} ({hash})", head.height),
        None => head.height.to_string(),
    });
    let mut rows = vec![
        ["backup", &found.name],
        ["for", &format!("{upgrade}, by the {}", word(made_by))],
        ["made", &format!("{time}, in {took_ms} ms")],
        ["data of", &source.display().to_string()],
        ["node", &node.clone().unwrap_or_else(unknown)],
        ["head", &head],
        ["size", &format!("{} MiB in {} entries", bytes.div_ceil(1 << 20), found.manifest.entries.len())],
    ]
    .into_iter()
    .map(|row| row.map(str::to_owned))
    .collect::<Vec<_>>();
    for method in Method::ALL {
        let share = found.manifest.share(method);
        if share.files > 0 {
            let text = format!("{} files, {} MiB", share.files, share.bytes.div_ceil(1 << 20));
            rows.push([method.to_string(), text]);
        }
    }
    if !left_out.is_empty() {
        rows.push(["left out".to_owned(), format!("the keys, and {}", left_out.join(", "))]);
    }
    let state = damaged.clone().unwrap_or_else(|| word(&found.manifest.state()));
    rows.push(["state".to_owned(), state]);
    table(rows)
}

/// Reads a backup whole: compares it with its digests, or records those that it lacks.
fn verify(config: &Config, home: &Home, name: &str, format: Format) -> Result<()> {
    let found = backup::load(home, name)?;
    if let Some(damaged) = &found.manifest.damaged {
        return Err(Error::new(Kind::Verification, damaged.clone()));
    }
    let before = found.manifest.state();
    let options = Options::new(config);
    let found = with_line(home, &options, Beside::of(home), "verify", |work| backup::complete(work, found))?;
    output(format, &summary(&found), || match before {
        State::Unverified => format!("backup {name} is complete, and its digests are recorded from now on\n"),
        State::Verified | State::Damaged => format!("backup {name} is as it was made\n"),
    })
}

fn restore(config: &Config, home: &Home, name: &str, force: Force, format: Format) -> Result<()> {
    let mut claimed = ClaimedHome::take(home)?;
    nothing_has_the_data_open(config, home)?;
    let found = backup::load(home, name)?;
    let source = &found.manifest.source;
    let here = restore::live(home)?;
    if *source != here && !force.is_given() {
        let what = format!("backup {name} is of another data directory: {}", source.display());
        let hint = "set daemon_data_dir; if it has moved here, add --force";
        return Err(Error::new(Kind::NotMet, what).at(here.display()).hint(hint));
    }
    // Recorded before the data is exchanged: a node that goes on from older data must not sign where it has signed.
    let silent = config.validator_mode && config.sign_after_unclean == SignAfterUnclean::Wait;
    claimed.decide(Decision::Restore(Restore { force: force.is_given(), silent }))?;
    let options = Options::new(config);
    let replaced =
        with_line(home, &options, Beside::Nothing, "restore", |work| restore::restore(work, &found))?;
    output(format, &json!({"backup": name, "replaced": replaced, "silent": silent}), || {
        let silent = if silent { "; the validator stays silent until signing is safe" } else { "" };
        format!(
            "the data is that of backup {name}{silent}\nwhat it has replaced is kept in {}; remove it with \
             `wemixvisor backup prune --replaced`\n",
            replaced.display()
        )
    })
}

fn prune(config: &Config, home: &Home, asked: &Prune) -> Result<()> {
    let mut options = Options::new(config);
    options.keep = asked.keep.unwrap_or(options.keep);
    options.max_age = asked.max_age.or(options.max_age);
    // That of an upgrade under way may be its way back, and an order to go back names the one to be restored.
    let record = Journal::read(home)?.record;
    let leads_back = record.leads_back();
    let ordered = record.back.and_then(|order| order.backup);
    let needed = record.upgrade.and_then(|upgrade| upgrade.backup).or(ordered);
    let kept: Vec<String> = needed.iter().cloned().chain(leads_back).collect();
    let backups = backup::list(home)?;
    let names = match asked.names.is_empty() {
        true => backup::outdated(&backups, &options, &kept, SystemTime::now()),
        false => asked.names.clone(),
    };
    let replaced: Vec<PathBuf> = if asked.replaced { restore::replaced(home) } else { Vec::new() };
    if !asked.dry_run {
        backup::remove_named(home, &names, needed.as_deref())?;
        restore::remove_replaced(&replaced)?;
    }
    let value = json!({"removed": names, "replaced": replaced, "dry_run": asked.dry_run});
    output(asked.format, &value, || {
        let what = if asked.dry_run { "would be removed" } else { "is removed" };
        let replaced = replaced.iter().map(|path| path.display().to_string());
        let removed = names.iter().cloned().chain(replaced).map(|name| format!("{name} {what}\n"));
        removed.reduce(|all, line| all + &line).unwrap_or_else(|| "there is nothing to remove\n".to_owned())
    })
}

/// A backup as JSON, without its entries.
fn summary(backup: &Backup) -> Value {
    let Manifest {
        upgrade,
        made_by,
        time,
        took_ms,
        source,
        head,
        node,
        bytes,
        left_out,
        damaged,
        entries,
        ..
    } = &backup.manifest;
    let share = |method: Method| (method.to_string(), json!(backup.manifest.share(method)));
    let methods: serde_json::Map<String, Value> = sorted::gather(Method::ALL.into_iter().map(share));
    json!({
        "name": backup.name, "upgrade": upgrade, "made_by": made_by, "time": time, "took_ms": took_ms,
        "source": source, "head": head, "node": node, "bytes": bytes, "entries": entries.len(),
        "method": backup.manifest.method(), "methods": methods, "state": backup.manifest.state(), "damaged": damaged,
        "left_out": left_out,
    })
}

/// Refuses to work on data that a node has open which no supervisor has started.
fn nothing_has_the_data_open(config: &Config, home: &Home) -> Result<()> {
    match probe_data_lock(&home.data().join(&config.daemon_node_lock))? {
        DataLock::Absent | DataLock::Free => Ok(()),
        DataLock::Held { path, pid } => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            Err(Error::new(Kind::Busy, format!("a node{pid} has the data open"))
                .at(path.display())
                .hint("stop it first"))
        }
    }
}

/// Does long work that Ctrl-C ends, and shows its progress on a terminal alone.
pub(super) fn with_line<T>(
    home: &Home,
    options: &Options,
    beside: Beside,
    what: &'static str,
    job: impl FnOnce(&mut Work<'_>) -> Result<T>,
) -> Result<T> {
    logger::show_warnings();
    let cancel = cancelled_by_signals()?;
    let mut line = Line::of_stderr();
    let mut progress = |done: u64, total: u64| {
        let percent = (done.saturating_mul(100)).checked_div(total).unwrap_or(100);
        if !line.is_redrawn() {
            return;
        }
        line.show(&what, &format!("{} of {} MiB, {percent} %", done >> 20, total.div_ceil(1 << 20)));
    };
    let background = beside == Beside::Node;
    job(&mut Work { home, options, background, cancel: &cancel, progress: &mut progress })
}

/// The work beside a command that reads or copies much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// The node, which must not be disturbed.
    Node,
}

impl Beside {
    /// Whether a node of this home runs; where that is not known, as if one did.
    pub(super) fn of(home: &Home) -> Self {
        match launch::last(home) {
            Ok(last) if last.as_ref().is_none_or(|last| last.process.is_none()) => Beside::Nothing,
            Ok(_) | Err(_) => Beside::Node,
        }
    }
}
