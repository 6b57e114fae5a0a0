//! `rehearse`: the staged binary on a clone of the data, beside the node that goes on.

use super::args::Format;
use super::fetch::cancelled_by_signals;
use super::logger::show_warnings;
use super::terminal::Line;
use super::upgrade::refresh;
use super::{output, print};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::force::Force;
use crate::home::Home;
use crate::machine::Target;
use crate::name::Name;
use crate::schedule::Planned;
use crate::upgrade::install;
use crate::upgrade::node_args::Changes;
use crate::upgrade::rehearse::{Order, Progress, Report, Subject, rehearse};
use std::fmt::Write as _;

/// The rehearsal that the operator wants.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) blocks: u64,
    pub(super) keep: bool,
    /// Whether the last rehearsal is accepted as it is, and none is held.
    pub(super) force: Force,
    pub(super) format: Format,
}

pub(super) fn run(config: &Config, home: &Home, wanted: &Wanted) -> Result<u8> {
    let Wanted { name, blocks, keep, force, format } = wanted;
    if force.is_given() {
        return accept(home, name);
    }
    show_warnings();
    let fork = fork(home, name)?;
    let cancel = cancelled_by_signals()?;
    let order = Order { config, home, name, blocks: *blocks, fork, keep: *keep };
    let mut line = Line::of_stderr();
    let report = rehearse(&order, &cancel, &mut |progress| show(&mut line, progress));
    drop(line);
    let report = report?;
    refresh(home, Some(name));
    output(*format, &report, || text(&report))?;
    Ok(if report.passed { Exit::Ok } else { Exit::NotMet }.code())
}

/// The fork that is planned for an upgrade.
fn fork(home: &Home, name: &Name) -> Result<Option<u64>> {
    Ok(Planned::read(home).upgrade(name)?.and_then(|upgrade| upgrade.fork_height))
}

/// Lets an upgrade happen whose rehearsal has failed.
fn accept(home: &Home, name: &Name) -> Result<u8> {
    let manifest = install::verify(home, &Target::Upgrade(name.clone()), None)?;
    let args = Changes::of(home, &Target::Upgrade(name.clone()))?;
    let subject = Subject { sha256: &manifest.sha256, args: &args, fork: fork(home, name)? };
    let report = Report::of(home, name, subject).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("the staged binary of {name} was not rehearsed as it is planned"))
            .hint(format!("rehearse it with `wemixvisor rehearse {name}`"))
    })?;
    let report = report.accept(home)?;
    refresh(home, Some(name));
    print(&if report.passed {
        format!("{name} has passed its rehearsal, there is nothing to accept\n")
    } else {
        format!("{name} may happen although its rehearsal has failed: {}\n", report.reasons.join("; "))
    })?;
    Ok(Exit::Ok.code())
}

fn show(line: &mut Line, progress: Progress) {
    match progress {
        Progress::Clone { done, total } => {
            line.show(&"clone", &format!("{} of {} MiB", done >> 20, total >> 20));
        }
        Progress::Start => line.show(&"start", "the new binary opens the data"),
        Progress::Feed { blocks, wanted, behind } => {
            line.show(&"execute", &format!("{blocks} blocks, {wanted} wanted, {behind} behind"));
        }
        Progress::Stop => line.show(&"stop", "the new binary ends"),
    }
}

/// A report for people.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let verdict = if report.passed { "has passed" } else { "has failed" };
    let mut say = |line: String| _ = writeln!(text, "{line}");
    say(format!("{} {verdict}: {}", report.upgrade, report.sha256));
    report.reasons.iter().for_each(|reason| say(format!("  reason      {reason}")));
    report.notes.iter().for_each(|note| say(format!("  note        {note}")));
    if let Some(version) = &report.client_version {
        say(format!("  version     {version}"));
    }
    let seconds =
        |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{}.{:03} s", ms / 1000, ms % 1000));
    let times = &report.times;
    say(format!(
        "  clone       {} MiB of {}, {} MiB copied, {}",
        report.bytes >> 20,
        report.from,
        report.copied >> 20,
        seconds(Some(times.clone_ms))
    ));
    say(format!("  first start {}", seconds(times.start_ms)));
    say(format!("  catch-up    {} blocks, {}", times.catch_up_blocks, seconds(times.catch_up_ms)));
    let height = |height: Option<u64>| height.map_or("-".to_owned(), |height| height.to_string());
    say(format!(
        "  executed    {} of {} blocks, from {} to {}",
        report.blocks,
        report.wanted,
        height(report.began_at),
        height(report.ended_at)
    ));
    say(format!("  stop        {}", seconds(times.stop_ms)));
    say(format!("  growth      {} MiB", report.growth / (1 << 20)));
    say(format!("  log         {} lines at WARN and above", report.log_lines));
    report.log.iter().for_each(|line| say(format!("    {line}")));
    text
}
