//! The status as people see it: what is going on, from the running supervisor or, without one, from the disk.

use super::forecast::{Now, grouped};
use super::home::running_status;
use super::stage::told_by;
use crate::config::Config;
use crate::error::Result;
use crate::home::{Home, launch};
use crate::machine::{
    Activity, Attempt, Machine, NetworkView, NodeView, Phase, Schedule, Target, UpgradeView, View,
};
use crate::printable::printable;
use crate::schedule::Planned;
use crate::supervisor::Status;
use crate::supervisor::metrics::Counters;
use crate::time::show_duration;
use crate::upgrade::head;
use crate::upgrade::journal::Journal;
use crate::upgrade::node_args::Changes;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// The number of upgrades of which the turn is shown beside the table.
const TURNS: usize = 5;

/// The state as the supervisor reports it; without one, as it is on disk.
pub(super) fn current(config: &Config, home: &Home) -> Result<Status> {
    if let Some(status) = running_status(home)? {
        return Ok(status);
    }
    let found = Journal::read(home)?;
    let planned = Planned::read(home);
    let Schedule { upgrades, conflicts } = planned.schedule(&found.record.ended);
    let mut view = Machine::at_rest(config.policy(), found.record, upgrades).view();
    let mut problems = planned.problems;
    problems.extend(conflicts.iter().map(ToString::to_string));
    problems.extend(found.warning.map(|damage| damage.to_string()));
    view.head_record = head::read(home)?.map(|record| record.block);
    // A link that `run` would refuse to start from.
    view.trouble = home.read_current().err().map(|e| e.to_string());
    if let Some(node) = launch::last(home)?.and_then(|last| last.process) {
        view.state = Activity::RunningAlone;
        let age_ms = u64::try_from(node.age.as_millis()).unwrap_or(u64::MAX);
        view.node = Some(NodeView { pid: node.pid.as_raw_pid().unsigned_abs(), age_ms });
    }
    Ok(Status {
        running: false,
        pid: None,
        supervisor_version: None,
        home: home.root().to_owned(),
        view,
        rpc_trouble: None,
        problems,
        counters: Counters::default(),
        receipt: None,
    })
}

/// A line of the status: its label and its text.
type Line = (&'static str, String);

/// The status as text, in lines of this width.
pub(super) fn show(home: &Home, status: &Status, width: usize) -> String {
    let view = &status.view;
    let mut lines = vec![("health", health(status))];
    lines.extend(what_runs(home, status));
    lines.extend(next(view).map(|next| ("next", next)));
    lines.extend(under_way(view));
    lines.extend(outlook(view));
    for problem in &status.problems {
        // A problem may have several lines: a list of what is wrong with a plan.
        let labels = std::iter::once("problem").chain(std::iter::repeat(""));
        lines.extend(labels.zip(problem.lines().map(str::to_owned)));
    }
    let text: String = lines.iter().map(|(label, what)| folded(label, what, width)).collect();
    text + "\n" + &upgrades_within(home, status, width)
}

/// The column at which the text of a line begins.
const INDENT: usize = 12;

/// A line with its label, folded between words where it is longer than `width`, and fit to be shown.
pub(super) fn folded(label: &str, what: &str, width: usize) -> String {
    let indent = INDENT.max(label.len());
    let room = width.saturating_sub(indent).max(20);
    let mut text = format!("{label:<indent$}");
    let mut used = 0;
    for (number, word) in printable(what).split(' ').enumerate() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            text += &format!("\n{:indent$}", "");
            used = 0;
        } else if number > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += length;
    }
    text + "\n"
}

/// Whether anything needs the operator.
fn health(status: &Status) -> String {
    let problems = status.problems.iter().filter_map(|problem| problem.lines().next());
    let mut needs = status.view.needs.iter().map(|need| need.text.as_str()).chain(problems);
    let word = match (&status.view.halted, status.running) {
        (Some(_), _) => "HALTED",
        (None, false) => "no supervisor runs",
        (None, true) => "NOT HEALTHY",
    };
    match (needs.next(), needs.count()) {
        (None, _) if status.running => "healthy, nothing needs you".to_owned(),
        (None, _) => word.to_owned(),
        (Some(first), 0) => format!("{word}: {first}"),
        (Some(first), more) => format!("{word}: {first}; and {more} more, below"),
    }
}

/// The next upgrade and when it is due.
fn next(view: &View) -> Option<String> {
    let (plan, now) = (view.planned.first()?, now(view)?);
    let left = match plan.blocks_left? {
        0 => format!("due, {}", plan.why),
        blocks => format!("in {} blocks, {}", grouped(blocks), now.when(plan.height)),
    };
    Some(format!("{} at {}: {left}", plan.name, grouped(plan.height)))
}

/// The moment of the head, from which times are reckoned.
fn now(view: &View) -> Option<Now> {
    let period = Duration::from_millis(view.period_ms);
    view.head.as_ref().map(|head| Now { head: head.height, period, time: SystemTime::now() })
}

/// The supervisor, the node and its head.
fn what_runs(home: &Home, status: &Status) -> Vec<Line> {
    let view = &status.view;
    let pid = status.pid.map_or_else(|| "not running".to_owned(), |pid| format!("running, pid {pid}"));
    let node = view.node.as_ref().map_or_else(String::new, |n| {
        format!(", pid {}, up {}", n.pid, show_duration(Duration::from_secs(n.age_ms / 1000)))
    });
    let target = &view.version.target;
    let told = told_by(home, target).map(|told| format!(" ({told})")).unwrap_or_default();
    let mut lines = vec![
        ("supervisor", format!("{pid}, home {}", status.home.display())),
        ("node", format!("{}{node}, version {target}{told}", view.state)),
    ];
    match Changes::of(home, target) {
        Ok(changes) if changes == Changes::default() => {}
        Ok(changes) => lines.push(("arguments", format!("those of `run` {changes}"))),
        Err(e) => lines.push(("arguments", e.to_string())),
    }
    if let Some(head) = &view.head {
        let hash =
            head.hash.as_deref().map(|h| format!(" ({}…)", h.get(..10).unwrap_or(h))).unwrap_or_default();
        let age = view.head_age_ms.filter(|_| view.node.is_some());
        let age = age.map(|ms| format!(", {:.0} s old", seconds(ms))).unwrap_or_default();
        let every = format!("a block every {:.1} s", seconds(view.period_ms));
        lines.push(("head", format!("{}{hash}{age}, {every}", head.height)));
    }
    lines.extend(view.network.as_ref().map(|network| ("network", around(network))));
    if let Some(rpc_trouble) = &status.rpc_trouble {
        lines.push(("rpc", format!("the node reports no head: {rpc_trouble}")));
    }
    lines
}

/// The network around the node.
fn around(network: &NetworkView) -> String {
    let NetworkView { peers, connected, validators, live, quorum, spare } = network;
    let peers = peers.map(|n| format!("{n} peers"));
    let others = validators.saturating_sub(1);
    let connected = connected.map(|n| format!("{n} of {others} other validators connected"));
    let seal = (*validators > 0)
        .then(|| format!("{live} of {validators} validators seal, {quorum} must, {spare} may still fail"));
    let parts: Vec<String> = [peers, connected, seal].into_iter().flatten().collect();
    parts.join("; ")
}

/// The work of the supervisor, and what is wrong.
fn under_way(view: &View) -> Vec<Line> {
    let upgrading = view.upgrade.as_ref().map(|p| {
        let (from, to) = match p.phase {
            Phase::Reverting => (&p.to.target, &p.from.target),
            Phase::Stopping | Phase::Stopped | Phase::BackedUp | Phase::Trying => {
                (&p.from.target, &p.to.target)
            }
        };
        format!("{from} -> {to}: {}", stage(p))
    });
    let step = view.remaining.as_ref().map(|left| {
        let since = show_duration(Duration::from_secs(view.state_age_ms.unwrap_or(0) / 1000));
        format!("{} for {since}: {left}", view.state)
    });
    let silent = |reason| format!("the node does not sign until that is safe: {reason}");
    let lines = [
        ("failures", (view.failures > 0).then(|| format!("{} in a row", view.failures))),
        ("trouble", view.trouble.clone()),
        ("upgrading", upgrading),
        ("step", step),
        ("backup", view.backup.clone()),
        ("silent", view.silent.as_ref().map(silent)),
        ("rollback", view.back.as_ref().map(|back| format!("to {}: {}", back.to, back.why))),
        ("halted", view.halted.clone()),
    ];
    lines.into_iter().filter_map(|(label, what)| Some((label, what?))).collect()
}

/// Turns, alarms and symptoms, each with its label.
fn outlook(view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(why) = &view.held {
        let record = view.head_record.as_ref().map(|record| {
            let height = record.height;
            format!("; if the head record, {height}, is wrong, forget it with `wemixvisor resolve head`")
        });
        lines.push(("held", format!("{why}{}", record.unwrap_or_default())));
    }
    if let Some(now) = now(view) {
        let overdue = view.planned.iter().filter(|plan| plan.overdue);
        lines.extend(overdue.map(|plan| ("ALARM", alarm(plan, now.head))));
        let turns = view.planned.iter().filter_map(|plan| Some((plan, plan.turn.as_ref()?)));
        lines.extend(turns.take(TURNS).map(|(plan, turn)| {
            ("turn", format!("{}: {}", plan.name, now.our_turn(Some(turn.window), plan)))
        }));
    }
    // The warning that too few are upgraded has the same text.
    let census = view.census.iter().filter(|census| view.symptoms.iter().all(|s| s.text != **census));
    lines.extend(census.map(|census| ("census", census.clone())));
    lines.extend(view.symptoms.iter().map(|symptom| ("warning", symptom.text.clone())));
    lines
}

/// An upgrade whose deadline has passed, with the numbers.
fn alarm(plan: &UpgradeView, head: u64) -> String {
    let deadline = grouped(plan.deadline_height.unwrap_or_default());
    let fork = plan.fork_height.map(|fork| match fork.saturating_sub(head) {
        0 => format!(", the fork was at {}", grouped(fork)),
        left => format!(", the fork is at {}, in {} blocks", grouped(fork), grouped(left)),
    });
    let (fork, why) = (fork.unwrap_or_default(), &plan.why);
    format!("{} has missed its deadline {deadline}, the head is {}{fork}: {why}", plan.name, grouped(head))
}

/// Planned and past upgrades for lines of this width: as a table where that fits, otherwise one below the other.
fn upgrades_within(home: &Home, status: &Status, width: usize) -> String {
    let table = upgrades(home, status);
    if table.lines().all(|line| line.chars().count() <= width) {
        return table;
    }
    let mut text = String::new();
    for [name, height, when, origin, binary, why] in rows(home, status).into_iter().skip(1) {
        text += &folded(&printable(&name), &format!("at {height}, {when}"), width);
        let binary = if binary.is_empty() { binary } else { format!("binary {binary}, planned by {origin}") };
        text.extend([binary, why].iter().filter(|line| !line.is_empty()).map(|line| folded("", line, width)));
    }
    text
}

/// Planned and past upgrades as a table.
pub(super) fn upgrades(home: &Home, status: &Status) -> String {
    match rows(home, status) {
        rows if rows.len() == 1 => "no upgrades are planned\n".to_owned(),
        rows => table(rows),
    }
}

/// The rows of that table, its head first.
fn rows(home: &Home, status: &Status) -> Vec<[String; 6]> {
    let view = &status.view;
    let mut rows =
        vec![["UPGRADE", "HEIGHT", "WHEN", "PLANNED BY", "BINARY", "WHY NOT YET"].map(ToOwned::to_owned)];
    let blank = String::new;
    if let Some(begun) = &view.upgrade {
        let how = format!("under way: {}", stage(begun));
        rows.push([begun.name.to_string(), begun.height.to_string(), how, blank(), blank(), blank()]);
    }
    for plan in &view.planned {
        let when = match (plan.blocks_left, plan.left_ms) {
            (Some(0), _) => "due".to_owned(),
            (Some(blocks), Some(ms)) => {
                format!("in {blocks} blocks, {}", show_duration(Duration::from_secs(ms.div_ceil(1000))))
            }
            _ => "planned".to_owned(),
        };
        let download = plan.download.as_ref().map(|download| format!("downloading: {}", download.line));
        let told = told_by(home, &Target::Upgrade(plan.name.clone()));
        let version = told.map(|told| format!(" {told}")).unwrap_or_default();
        let unrehearsed = plan.unrehearsed.as_ref().map(|why| format!(", not rehearsed: {why}"));
        let rehearsal = plan.rehearsal.map(|rehearsal| format!(", {rehearsal}"));
        let rehearsal = unrehearsed.or(rehearsal).unwrap_or_default();
        let binary = download.unwrap_or_else(|| format!("{}{version}{rehearsal}", plan.binary));
        let is_known = status.running || plan.on_hold;
        let why = if is_known { plan.why.clone() } else { "no supervisor is running".to_owned() };
        let (name, height) = (plan.name.to_string(), plan.height.to_string());
        rows.push([name, height, when, plan.origin.to_string(), binary, why]);
    }
    for ended in &view.ended {
        let how = format!("{}: {}", ended.outcome, ended.detail);
        rows.push([ended.name.to_string(), ended.height.to_string(), how, blank(), blank(), blank()]);
    }
    rows
}

/// How far an upgrade is. Before the new binary is started there is no attempt to speak of.
pub(super) fn stage(progress: &Attempt) -> String {
    match progress.attempt {
        0 => progress.phase.to_string(),
        attempt => format!("{}, attempt {attempt}", progress.phase),
    }
}

/// The word by which JSON names a value.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Rows with columns aligned to the left, two spaces apart, fit to be shown. What has nothing to its right may be
/// of any length.
pub(super) fn table<const N: usize>(mut rows: Vec<[String; N]>) -> String {
    rows.iter_mut().flatten().for_each(|cell| *cell = printable(cell));
    let goes_on = |row: &[String; N], column: usize| row[column + 1..].iter().any(|cell| !cell.is_empty());
    let width = |column: usize| {
        let inner = rows.iter().filter(|row| goes_on(row, column));
        inner.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::machine::gates::Window;
    use crate::machine::{Block, Origin, Policy, Record, SymptomView, TurnView, Upgrade, Version};

    #[derive(PartialEq)]
    enum Supervisor {
        Running,
        Absent,
    }

    fn status(view: View, supervisor: Supervisor) -> Status {
        Status {
            running: supervisor == Supervisor::Running,
            pid: None,
            supervisor_version: None,
            home: "/h".into(),
            view,
            rpc_trouble: None,
            problems: Vec::new(),
            counters: Counters::default(),
            receipt: None,
        }
    }

    fn nowhere() -> Home {
        Home::new("/nonexistent", "node").unwrap()
    }

    #[test]
    fn a_long_last_cell_moves_no_column() {
        let rows = [["A", "B", "C"], ["1", "two", "3"], ["1", "long and longer", ""]];
        let rows = rows.map(|row| row.map(ToOwned::to_owned));
        assert_eq!(table(rows.to_vec()), "A  B    C\n1  two  3\n1  long and longer\n");
    }

    #[test]
    fn hostile_text_neither_moves_a_column_nor_makes_a_line_of_its_own() {
        let rows = [["A", "B"], ["\u{1b}", "2"], ["3", "\n4"]].map(|row| row.map(ToOwned::to_owned));
        assert_eq!(table(rows.to_vec()), "A       B\n\\u{1b}  2\n3       \\n4\n");
        let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"one") };
        let mut view = Machine::at_rest(Policy::default(), Record::new(current), Vec::new()).view();
        view.trouble = Some("it said\nhalted      no".to_owned());
        let problems = vec!["two:\n  a\n  b".to_owned()];
        let text = show(&nowhere(), &Status { problems, ..status(view, Supervisor::Absent) }, usize::MAX);
        assert!(text.contains("trouble     it said\\nhalted      no\n"), "{text}");
        assert!(text.contains("problem     two:\n              a\n              b\n"), "{text}");
    }

    /// The view of a validator at block 12,551 whose upgrade has missed its deadline.
    fn late() -> View {
        let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"one") };
        let upgrade = Upgrade {
            fork_height: Some(12_600),
            ..Upgrade::new("v2".parse().unwrap(), 12_000, Origin::Schedule)
        };
        let mut view = Machine::at_rest(Policy::default(), Record::new(current), vec![upgrade.into()]).view();
        view.head = Some(Block { height: 12_551, hash: None });
        let plan = &mut view.planned[0];
        plan.overdue = true;
        plan.why = "turn: turn 2 of 4 is ours".to_owned();
        let window = Window { opens_at: 12_552, closes_at: 12_563 };
        plan.turn = Some(TurnView { window, opens_in_ms: 1000 });
        view
    }

    #[test]
    fn a_validator_sees_its_turn_the_alarm_and_what_is_wrong() {
        let mut view = late();
        view.census = Some("5 of 7 proposers run >= 1.1.0; quorum 5; fork in 49 blocks".to_owned());
        view.symptoms =
            vec![SymptomView { name: "clock_skew".to_owned(), text: "our clock is off".to_owned() }];
        let lines: Vec<String> =
            outlook(&view).iter().map(|(label, what)| format!("{label}: {what}")).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(
            lines[0],
            "ALARM: v2 has missed its deadline 12,540, the head is 12,551, the fork is at 12,600, in 49 blocks: \
             turn: turn 2 of 4 is ours"
        );
        assert!(lines[1].starts_with("turn: v2: our turn: block 12,552 to 12,563, in 1 s, "), "{lines:?}");
        assert!(lines[1].ends_with("; fork at 12,600; deadline 12,540"), "{lines:?}");
        assert_eq!(lines[2], "census: 5 of 7 proposers run >= 1.1.0; quorum 5; fork in 49 blocks");
        assert_eq!(lines[3], "warning: our clock is off");
        let table = upgrades(&nowhere(), &status(view.clone(), Supervisor::Running));
        assert!(table.lines().next().unwrap().ends_with("WHY NOT YET"), "{table}");
        assert!(table.contains("turn: turn 2 of 4 is ours"), "{table}");
        let table = upgrades(&nowhere(), &status(view, Supervisor::Absent));
        assert!(table.contains("no supervisor is running"), "{table}");
    }

    #[test]
    fn a_node_that_is_held_names_the_head_that_holds_it_and_the_cure() {
        let mut view = late();
        view.head_record = Some(Block { height: 970, hash: None });
        assert!(outlook(&view).iter().all(|(label, _)| *label != "held"));
        view.held = Some("the chain was at 970 and needs v2 from its fork at 900 on".to_owned());
        let lines = outlook(&view);
        let (_, held) = lines.iter().find(|(label, _)| *label == "held").unwrap();
        assert!(
            held.contains("the head record, 970, is wrong") && held.contains("`wemixvisor resolve head`"),
            "{held}"
        );
    }
}
