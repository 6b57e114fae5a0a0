//! The status of a plan as a table with a bar, for a terminal or a log.
//!
//! A pure function from a [`Status`] to text: whether there is a terminal, how wide it is, and whether
//! colours are wanted is for the caller to know. Text that came from files is shown without its control
//! characters, so that a plan cannot write on the operator's screen.

use super::status::{Binary, Stage, Status, UpgradeStatus};
use super::visit;
use crate::printable::printable;
use std::fmt::Write as _;

/// The width of a phase: `rolled-back` is the longest, and a colon tells that there is more.
const PHASE: usize = 12;
/// Between two columns.
const GAP: &str = "  ";
const HEADS: [&str; 6] = ["NAME", "HEIGHT", "FORK", "BINARY", "LEFT", "PHASE"];

/// The table, each line ended and at most `width` characters long. Where not everything has its place, names
/// are shortened and columns left out, so that each upgrade still shows how far it is.
#[must_use]
pub fn table(status: &Status, width: usize, colour: bool) -> String {
    let width = width.max(1);
    let mut rows: Vec<[String; 6]> = visit(&status.upgrades).map(cells).collect();
    let columns = fit(&mut rows, width);
    let mut text = header(status, width);
    if !rows.is_empty() {
        push_line(&mut text, &HEADS.map(str::to_owned), columns, width, "");
    }
    for (row, upgrade) in visit(rows.iter().zip(&status.upgrades)) {
        push_line(&mut text, row, columns, width, if colour { tint(upgrade.phase) } else { "" });
    }
    text
}

fn header(status: &Status, width: usize) -> String {
    let activation = serde_json::to_value(status.activation).unwrap_or_default();
    let mut first = format!("plan {}: {}", status.name, activation.as_str().unwrap_or_default());
    if let Some(height) = status.current_height {
        let _ = write!(first, ", head {height}");
    }
    let counts = [(status.failed, "failed"), (status.cancelled, "cancelled"), (status.pending, "to come")];
    let mut tail =
        format!(" {:6.2} %  {} of {} done", status.progress, status.completed, status.total_upgrades);
    for (count, word) in counts.iter().filter(|(count, _)| *count > 0) {
        let _ = write!(tail, ", {count} {word}");
    }
    let length = width.saturating_sub(tail.len() + 2).clamp(10, 40);
    format!("{}\n{}\n", clip(&first, width), clip(&format!("{}{tail}", bar(status.progress, length)), width))
}

/// A bar of `length` characters between brackets, full only at 100.
fn bar(percent: f64, length: usize) -> String {
    let filled = ((percent.clamp(0.0, 100.0) / 100.0) * length as f64).floor() as usize;
    format!("[{}{}]", "#".repeat(filled), ".".repeat(length - filled))
}

fn cells(upgrade: &UpgradeStatus) -> [String; 6] {
    let binary = match &upgrade.binary {
        Binary::Missing => "missing".to_owned(),
        Binary::Downloading { percent: Some(percent) } => format!("downloading {percent} %"),
        Binary::Downloading { percent: None } => "downloading".to_owned(),
        Binary::Staged => "staged".to_owned(),
        Binary::Verified => "verified".to_owned(),
        Binary::Failed { .. } => "failed".to_owned(),
    };
    let left = match (upgrade.blocks_left, upgrade.seconds_left) {
        (None, _) => String::new(),
        (Some(0), _) => "now".to_owned(),
        (Some(blocks), None) => format!("{blocks} blocks"),
        (Some(blocks), Some(seconds)) => format!("{blocks} blocks, {}", about(seconds)),
    };
    let trouble = match &upgrade.binary {
        Binary::Failed { detail } if upgrade.phase.is_to_come() => Some(detail),
        _ => None,
    };
    let word = serde_json::to_value(upgrade.phase).unwrap_or_default();
    let mut phase = word.as_str().unwrap_or_default().to_owned();
    if let Some(detail) = upgrade.detail.as_ref().or(trouble) {
        let _ = write!(phase, ": {}", printable(detail));
    }
    let fork = upgrade.fork_height.map(|height| height.to_string()).unwrap_or_default();
    [upgrade.name.to_string(), upgrade.height.to_string(), fork, binary, left, phase]
}

/// How wide each column is, so that the phase has its place. What matters least is given up first; a column of
/// no width is left out.
fn fit(rows: &mut [[String; 6]], width: usize) -> [usize; 6] {
    let mut columns = widths(rows);
    let over = |columns: &[usize; 6]| {
        let others = columns[..5].iter().filter(|column| **column > 0).map(|column| column + GAP.len());
        (others.sum::<usize>() + PHASE).saturating_sub(width)
    };
    let shorten = |name: usize, least: usize, by: usize| name.saturating_sub(by).max(name.min(least));
    columns[0] = shorten(columns[0], 24, over(&columns));
    if over(&columns) > 0 {
        for row in visit(&mut *rows) {
            // The time alone, where it is known.
            row[4] = row[4].rsplit(", ").next().unwrap_or_default().to_owned();
        }
        columns[4] = widths(rows)[4];
    }
    columns[0] = shorten(columns[0], 12, over(&columns));
    for n in [2, 3, 4] {
        if over(&columns) > 0 {
            columns[n] = 0;
        }
    }
    columns
}

fn widths(rows: &[[String; 6]]) -> [usize; 6] {
    let mut widths = HEADS.map(str::len);
    for row in visit(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Adds a line of cells under their heads; numbers stand to the right.
fn push_line(text: &mut String, cells: &[String; 6], columns: [usize; 6], width: usize, tint: &str) {
    let mut line = String::new();
    for (n, cell) in cells.iter().enumerate() {
        let column = columns[n];
        let cell = clip(cell, if n == 5 { usize::MAX } else { column });
        let _ = match n {
            _ if column == 0 => Ok(()),
            1 | 2 => write!(line, "{cell:>column$}{GAP}"),
            5 => write!(line, "{cell}"),
            _ => write!(line, "{cell:<column$}{GAP}"),
        };
    }
    let line = clip(line.trim_end(), width);
    let _ = if tint.is_empty() { writeln!(text, "{line}") } else { writeln!(text, "{tint}{line}\x1b[0m") };
}

fn tint(phase: Stage) -> &'static str {
    match phase {
        Stage::Applied => "\x1b[32m",
        Stage::Failed | Stage::RolledBack | Stage::Aborted | Stage::Refused => "\x1b[31m",
        Stage::Planned | Stage::Paused | Stage::Cancelled => "\x1b[2m",
        Stage::Waiting => "",
        Stage::Due
        | Stage::Stopping
        | Stage::Stopped
        | Stage::BackedUp
        | Stage::Trying
        | Stage::Probation
        | Stage::Reverting => "\x1b[33m",
    }
}

/// A time in its two largest units: the seconds of a day are of no use.
fn about(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// At most `width` characters, the last a `~` if some are left out.
fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['~']).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Ended, Outcome};
    use crate::schedule::{Activation, Facts, Plan};
    use expect_test::expect;
    use std::time::Duration;

    fn status() -> Status {
        let mut plan = Plan::new("london".parse().unwrap(), "");
        for text in ["v1.0:100", "v1.1:2000", "v2.0.0-rc1:3000000", "v9:99000000"] {
            plan.add(text.parse().unwrap());
        }
        plan.upgrades[2].fork_height = Some(3_000_100);
        let ended = |name: &str, height, outcome, detail: &str| Ended {
            name: name.parse().unwrap(),
            height,
            fork_height: None,
            cannot_follow: false,
            switch: None,
            outcome,
            detail: detail.to_owned(),
        };
        plan.status(&Facts {
            activation: Activation::Active,
            head: Some(2_990_000),
            period: Some(Duration::from_secs(1)),
            ended: &[
                ended("v1.0", 100, Outcome::Applied, ""),
                ended("v1.1", 2000, Outcome::RolledBack, "it did not\x1b[2J answer\nwithin 10m"),
            ],
            binaries: &[
                ("v1.0".parse().unwrap(), Binary::Verified),
                ("v2.0.0-rc1".parse().unwrap(), Binary::Downloading { percent: Some(7) }),
                ("v9".parse().unwrap(), Binary::Failed { detail: "404".to_owned() }),
            ],
            ..Facts::default()
        })
    }

    #[test]
    fn a_table_with_a_bar() {
        expect![[r#"
            plan london: active, head 2990000
            [##########..............................]  25.00 %  1 of 4 done, 1 failed, 2 to come
            NAME          HEIGHT     FORK  BINARY           LEFT                       PHASE
            v1.0             100           verified                                    applied
            v1.1            2000           missing                                     rolled-back: it did not\u{1b}[2J a~
            v2.0.0-rc1   3000000  3000100  downloading 7 %  10000 blocks, 2h46m        waiting
            v9          99000000           failed           96010000 blocks, 1111d05h  waiting: 404
        "#]]
        .assert_eq(&table(&status(), 110, false));
    }

    #[test]
    fn a_narrow_table_still_shows_how_far_each_upgrade_is() {
        let mut status = status();
        status.upgrades[3].name = "n".repeat(64).parse().unwrap();
        expect![[r#"
            plan london: active, head 2990000
            [########...........................]  25.00 %  1 of 4 done, 1 failed, 2 to come
            NAME                    HEIGHT     FORK  BINARY           LEFT      PHASE
            v1.0                       100           verified                   applied
            v1.1                      2000           missing                    rolled-back~
            v2.0.0-rc1             3000000  3000100  downloading 7 %  2h46m     waiting
            nnnnnnnnnnnnnnnnnnn~  99000000           failed           1111d05h  waiting: 404
        "#]]
        .assert_eq(&table(&status, 80, false));
        expect![[r#"
            plan london: active, head 2990000
            [###............]  25.00 %  1 of 4 done, 1 failed, 2 to come
            NAME            HEIGHT  LEFT      PHASE
            v1.0               100            applied
            v1.1              2000            rolled-back: it did not\u~
            v2.0.0-rc1     3000000  2h46m     waiting
            nnnnnnnnnnn~  99000000  1111d05h  waiting: 404
        "#]]
        .assert_eq(&table(&status, 60, false));
        expect![[r#"
            plan london: active, head 2990000
            [##........]  25.00 %  1 of 4 done,~
            NAME            HEIGHT  PHASE
            v1.0               100  applied
            v1.1              2000  rolled-back~
            v2.0.0-rc1     3000000  waiting
            nnnnnnnnnnn~  99000000  waiting: 404
        "#]]
        .assert_eq(&table(&status, 36, false));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_and_nothing_escapes() {
        for width in [0, 1, 7, 20, 40, 79, 80, 200] {
            let text = table(&status(), width, false);
            assert!(text.lines().all(|line| line.chars().count() <= width.max(1)), "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let plain = table(&status(), 80, false);
        let coloured = table(&status(), 80, true);
        let bare = ["\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"]
            .iter()
            .fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
        assert_eq!(coloured.matches("\x1b[31m").count(), 1);
        assert_eq!(coloured.matches("\x1b[32m").count(), 1);
    }

    #[test]
    fn an_empty_plan_is_a_full_bar() {
        let text = table(&Plan::new("p".parse().unwrap(), "").status(&Facts::default()), 80, false);
        assert_eq!(text, format!("plan p: inactive\n[{}] 100.00 %  0 of 0 done\n", "#".repeat(40)));
    }

    #[test]
    fn the_bar_is_full_only_at_the_end() {
        assert_eq!(bar(99.99, 10), "[#########.]");
        assert_eq!(bar(f64::NAN, 10), "[..........]");
        assert_eq!([about(59), about(60), about(3600), about(90_000)], ["59s", "1m00s", "1h00m", "1d01h"]);
    }
}
