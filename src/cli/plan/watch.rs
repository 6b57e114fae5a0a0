//! `plan status --watch`: a table that is redrawn in place; without a terminal, a line for every change.

use super::{Situation, chosen};
use crate::cli::args::Format;
use crate::cli::show::word;
use crate::cli::{print, print_json_line, tell, terminal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::name::Name;
use crate::printable::printable;
use crate::schedule::{Binary, Status, table};
use crate::sorted::{self, Index};
use crate::time::rfc3339;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, SystemTime};

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);

/// Shows the progress of plans until all upgrades have ended, or it is interrupted.
pub(super) fn watch(config: &Config, home: &Home, plan: Option<&Name>, format: Format) -> Result<()> {
    let signals = terminal::signals()?;
    let mut view: Box<dyn View> = match (format, io::stdout().is_terminal()) {
        (Format::Text, true) => Box::new(Redrawn { screen: open()?, last: String::new(), config }),
        _ => Box::new(Lines { format, last: BTreeMap::new(), remark: None }),
    };
    loop {
        let situation = Situation::look_at_node(config, home)?;
        let chosen = chosen(home, &situation, plan)?;
        let statuses: Vec<Status> = chosen.plans.iter().map(|stored| situation.status(stored)).collect();
        let remark = match &chosen.trouble {
            Some(trouble) => Some(trouble.to_string()),
            None if !situation.running => Some("no supervisor is running, so nothing will happen".to_owned()),
            None => None,
        };
        view.show(&statuses, remark.as_deref())?;
        if statuses.iter().all(|s| s.pending == 0) {
            return chosen.trouble.map_or(Ok(()), Err);
        }
        if !terminal::goes_on(&signals, LOOK) {
            return Ok(());
        }
    }
}

fn open() -> Result<Option<terminal::Screen>> {
    terminal::Screen::open().map(Some).map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))
}

/// One of the ways to show what changes.
trait View {
    fn show(&mut self, statuses: &[Status], remark: Option<&str>) -> Result<()>;
}

/// On a terminal. What was shown last stays when the screen of before comes back.
struct Redrawn<'a> {
    screen: Option<terminal::Screen>,
    last: String,
    config: &'a Config,
}

impl View for Redrawn<'_> {
    fn show(&mut self, statuses: &[Status], remark: Option<&str>) -> Result<()> {
        let (width, colour) = terminal::of_stdout(self.config);
        let (_, rows) = terminal::size();
        let remark: Vec<String> = remark.map(printable).into_iter().collect();
        let remark: Vec<String> = remark.iter().map(|r| r.chars().take(width).collect()).collect();
        // The head, a line for every plan, and one that is free.
        let free = rows.saturating_sub(remark.len() + 1).saturating_sub(4 * statuses.len());
        let counts: Vec<usize> = statuses.iter().map(|s| s.upgrades.len()).collect();
        let shares = shares(&counts, free);
        let shown = statuses.iter().zip(shares).map(|(status, rows)| near(status, rows.max(1)));
        let mut tables: Vec<String> = shown.map(|status| table(&status, width, colour)).collect();
        tables.extend(remark.iter().map(|r| format!("{r}\n")));
        if statuses.is_empty() {
            tables.insert(0, "no plan was executed\n".to_owned());
        }
        self.last = tables.join("\n");
        let drawn = self.screen.as_ref().map_or(Ok(()), |screen| screen.draw(&self.last));
        drawn.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))
    }
}

impl Drop for Redrawn<'_> {
    fn drop(&mut self) {
        self.screen = None;
        // It is the end: a failure cannot be reported any more.
        let _ = print(&self.last);
    }
}

/// The share of `free` rows for each plan that wants this many: what small plans leave, the others share.
fn shares(wanted: &[usize], free: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    sorted::by_key(&mut order, |n| wanted[*n]);
    let (mut shares, mut left) = (vec![0; wanted.len()], free);
    for (done, n) in order.into_iter().enumerate() {
        shares[n] = wanted[n].min(left / (wanted.len() - done));
        left -= shares[n];
    }
    shares
}

/// The status with no more than `rows` of its upgrades: those around the active one.
fn near(status: &Status, rows: usize) -> Status {
    let count = status.upgrades.len();
    let active = status.upgrades.iter().position(|u| Some(&u.name) == status.active.as_ref());
    let first = active.unwrap_or(count).saturating_sub(rows / 3).min(count.saturating_sub(rows));
    let upgrades = status.upgrades.iter().skip(first).take(rows).cloned().collect();
    Status { upgrades, ..status.clone() }
}

/// Elsewhere: what has changed, each in a line of its own; remarks go to stderr.
struct Lines {
    format: Format,
    last: BTreeMap<Name, Status>,
    remark: Option<String>,
}

impl View for Lines {
    fn show(&mut self, statuses: &[Status], remark: Option<&str>) -> Result<()> {
        let new = remark.filter(|remark| self.remark.as_deref() != Some(*remark));
        new.into_iter().for_each(|remark| tell(format_args!("wemixvisor: {remark}")));
        self.remark = remark.map(ToOwned::to_owned);
        for status in statuses {
            let before = self.last.get(&status.name);
            if self.format == Format::Json {
                if before != Some(status) {
                    print_json_line(status)?;
                }
            } else {
                let time = rfc3339(SystemTime::now());
                for change in changes(before, status) {
                    print(&format!("{time} {change}\n"))?;
                }
            }
            self.last.insert(status.name.clone(), status.clone());
        }
        Ok(())
    }
}

/// The changes worth a line, in words. At first that is the plan as a whole.
fn changes(before: Option<&Status>, now: &Status) -> Vec<String> {
    let head = now.current_height.map(|h| format!(" head={h}")).unwrap_or_default();
    let Some(before) = before else {
        let Status { name, activation, completed, total_upgrades, .. } = now;
        return vec![format!(
            "plan={name} {}{head} done={completed} of={total_upgrades} progress={:.2}",
            word(activation),
            now.progress
        )];
    };
    let mut changes = Vec::new();
    if before.activation != now.activation {
        changes.push(format!("plan={} {}", now.name, word(&now.activation)));
    }
    let known: Index<_, _> = before.upgrades.iter().map(|u| (&u.name, u)).collect();
    for upgrade in &now.upgrades {
        let before = known.get(&upgrade.name);
        let place = format!("plan={} upgrade={}", now.name, upgrade.name);
        if before.is_none_or(|b| b.phase != upgrade.phase) {
            let detail = upgrade.detail.as_deref().map(|d| format!(": {}", printable(d)));
            changes.push(format!("{place} {}{head}{}", word(&upgrade.phase), detail.unwrap_or_default()));
        }
        let state = |binary: &Binary| match binary {
            Binary::Downloading { .. } => "downloading".to_owned(),
            Binary::Missing => "missing".to_owned(),
            Binary::Staged => "staged".to_owned(),
            Binary::Verified => "verified".to_owned(),
            Binary::Failed { detail } => format!("failed: {}", printable(detail)),
        };
        if before.is_none_or(|b| state(&b.binary) != state(&upgrade.binary)) {
            changes.push(format!("{place} binary {}", state(&upgrade.binary)));
        }
    }
    if before.completed != now.completed {
        changes.push(format!("plan={} progress={:.2}", now.name, now.progress));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Ended, Outcome};
    use crate::schedule::{Activation, Facts, Plan};

    fn plan(upgrades: u64) -> Plan {
        let mut plan = Plan::new("p".parse().unwrap(), "");
        (1..=upgrades).for_each(|n| plan.add(format!("v{n}:{}", 100 * n).parse().unwrap()));
        plan
    }

    fn at(head: u64) -> Facts<'static> {
        Facts { activation: Activation::Active, head: Some(head), ..Facts::default() }
    }

    #[test]
    fn of_a_long_plan_the_upgrades_around_the_next_are_shown() {
        let ended: Vec<Ended> = (1..=50)
            .map(|n| Ended {
                name: format!("v{n}").parse().unwrap(),
                height: 100 * n,
                fork_height: None,
                cannot_follow: false,
                switch: None,
                outcome: Outcome::Applied,
                detail: String::new(),
            })
            .collect();
        let status = plan(100).status(&Facts { ended: &ended, ..at(5050) });
        let shown = |rows| {
            let shown: Vec<String> =
                near(&status, rows).upgrades.iter().map(|u| u.name.to_string()).collect();
            (shown.len(), shown[0].clone())
        };
        assert_eq!(shown(9), (9, "v48".to_owned()));
        assert_eq!(shown(90), (90, "v11".to_owned()));
        assert_eq!(shown(200), (100, "v1".to_owned()));
    }

    #[test]
    fn small_plans_leave_their_rows_to_large_ones() {
        assert_eq!(shares(&[10_000, 2, 7, 100], 29), [10, 2, 7, 10]);
        assert_eq!(shares(&[5, 5], 7), [3, 4]);
        assert_eq!(shares(&[], 7), [0; 0]);
    }

    #[test]
    fn a_line_tells_what_has_changed_and_the_head_alone_is_no_change() {
        let (before, same) = (plan(2).status(&at(50)), plan(2).status(&at(60)));
        assert_eq!(changes(None, &before), ["plan=p active head=50 done=0 of=2 progress=0.00"]);
        assert_eq!(changes(Some(&before), &same), [""; 0]);
        let binaries = [("v2".parse().unwrap(), Binary::Failed { detail: "no\nroom".into() })];
        let later = plan(2).status(&Facts { binaries: &binaries, ..at(100) });
        assert_eq!(
            changes(Some(&same), &later),
            ["plan=p upgrade=v1 due head=100", "plan=p upgrade=v2 binary failed: no\\nroom"]
        );
        let paused = plan(2).status(&Facts { activation: Activation::Paused, ..at(50) });
        assert_eq!(changes(Some(&before), &paused)[0], "plan=p paused");
    }
}
