//! How far a plan has come, from plain facts: what has ended, what is under way, where the chain is.
//!
//! An upgrade counts as completed when history says that it was applied, never because its height has
//! passed. The work is linear in the number of upgrades and of facts, but for ordered maps.

use super::entry::Entry;
use super::plan::Plan;
use super::visit;
use crate::machine::{Conflict, Ended, Outcome, Phase};
use crate::name::Name;
use crate::sorted::{Index, Set};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The facts outside the plan, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Whether the plan is being followed.
    pub activation: Activation,
    /// The height of the chain.
    pub head: Option<u64>,
    /// The measured time between two blocks.
    pub period: Option<Duration>,
    /// The upgrade under way, of whichever plan, with its height and how far it is.
    pub under_way: Option<(&'a Name, u64, Stage)>,
    /// The upgrades that have ended.
    pub ended: &'a [Ended],
    /// The upgrades that the operator has cancelled.
    pub cancelled: &'a [(Name, u64)],
    /// The upgrades that are refused.
    pub conflicts: &'a [Conflict],
    /// The reasons that hold upgrades back whose height has come.
    pub holds: &'a [(Name, String)],
    /// How far the binaries are; one that is not in the list is missing.
    pub binaries: &'a [(Name, Binary)],
}

/// Whether a plan is being followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// It was never activated.
    #[default]
    Inactive,
    /// Its upgrades are scheduled.
    Active,
    /// It was activated, and is held back for now.
    Paused,
    /// It was activated, but its file is another now; it takes another activation.
    Changed,
}

/// How far a binary is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Binary {
    /// It is not there.
    #[default]
    Missing,
    /// It is being fetched.
    Downloading {
        /// How much of it is there, where its size is known.
        percent: Option<u8>,
    },
    /// It is there, and has not been verified by this supervisor yet.
    Staged,
    /// It is there, verified and tried.
    Verified,
    /// It cannot be had, or cannot be used.
    Failed {
        /// Why.
        detail: String,
    },
}

/// The progress of an upgrade of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its plan is not followed.
    Planned,
    /// Its plan is held back.
    Paused,
    /// Its height is to come.
    Waiting,
    /// Its height has come.
    Due,
    /// The old node is being stopped.
    Stopping,
    /// The old node has stopped.
    Stopped,
    /// The backup is done.
    BackedUp,
    /// The hook is done, and the new binary is being started, or is about to be.
    Trying,
    /// The new binary runs and proves itself.
    Probation,
    /// The old binary is being put back.
    Reverting,
    /// It is done.
    Applied,
    /// It failed before the new binary opened the data.
    Failed,
    /// The new binary did not prove itself, and the old one runs.
    RolledBack,
    /// Its hook asked for the old binary to stay.
    Aborted,
    /// The operator has cancelled it.
    Cancelled,
    /// It disagrees with something else that is planned.
    Refused,
}

/// How far a plan has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The plan.
    pub name: Name,
    /// Whether it is being followed.
    pub activation: Activation,
    /// How many upgrades it has.
    pub total_upgrades: usize,
    /// How many were applied.
    pub completed: usize,
    /// How many are to come or under way, refused ones among them.
    pub pending: usize,
    /// How many have ended otherwise.
    pub failed: usize,
    /// How many were cancelled.
    pub cancelled: usize,
    /// The upgrade under way, else the next.
    pub active: Option<Name>,
    /// The height of the chain.
    pub current_height: Option<u64>,
    /// How many of those that were not cancelled are completed, in percent with two decimals, rounded
    /// down so that 100 is all of them. Nothing to do is 100.
    pub progress: f64,
    /// Each upgrade, in the order of the plan.
    pub upgrades: Vec<UpgradeStatus>,
}

/// How far one upgrade has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// The upgrade.
    pub name: Name,
    /// The height from which it is due.
    pub height: u64,
    /// The first height that needs the new binary.
    pub fork_height: Option<u64>,
    /// Its progress.
    pub phase: Stage,
    /// How far its binary is.
    pub binary: Binary,
    /// Blocks until it is due; 0 if it is. Only for upgrades to come, while the head is known.
    pub blocks_left: Option<u64>,
    /// Seconds until then, by the measured block period.
    pub seconds_left: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so, why it is refused, or what holds it back.
    pub detail: Option<String>,
}

impl Plan {
    /// How far the plan has come.
    #[must_use]
    pub fn status(&self, facts: &Facts<'_>) -> Status {
        let known = FactIndex::new(facts);
        let upgrades: Vec<_> = visit(&self.upgrades).map(|entry| known.upgrade(entry)).collect();
        let count = |wanted: fn(Stage) -> bool| upgrades.iter().filter(|u| wanted(u.phase)).count();
        let completed = count(|stage| stage == Stage::Applied);
        let cancelled = count(|stage| stage == Stage::Cancelled);
        let pending = count(Stage::is_to_come);
        let under_way = upgrades.iter().find(|u| u.phase.is_under_way());
        let next = || {
            let to_come = upgrades.iter().filter(|u| u.phase.is_to_come() && u.phase != Stage::Refused);
            to_come.min_by_key(|u| u.height)
        };
        Status {
            name: self.name.clone(),
            activation: facts.activation,
            total_upgrades: upgrades.len(),
            completed,
            pending,
            failed: upgrades.len() - completed - cancelled - pending,
            cancelled,
            active: under_way.or_else(next).map(|u| u.name.clone()),
            current_height: facts.head,
            progress: percent(completed, upgrades.len() - cancelled),
            upgrades,
        }
    }
}

impl Stage {
    /// Whether something is yet to happen, or is happening.
    #[must_use]
    pub fn is_to_come(self) -> bool {
        match self {
            Stage::Planned | Stage::Paused | Stage::Waiting | Stage::Due | Stage::Refused => true,
            Stage::Applied | Stage::Failed | Stage::RolledBack | Stage::Aborted | Stage::Cancelled => false,
            Stage::Stopping
            | Stage::Stopped
            | Stage::BackedUp
            | Stage::Trying
            | Stage::Probation
            | Stage::Reverting => true,
        }
    }

    /// Whether the upgrade has begun and not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        let waits =
            matches!(self, Stage::Planned | Stage::Paused | Stage::Waiting | Stage::Due | Stage::Refused);
        self.is_to_come() && !waits
    }
}

impl From<Phase> for Stage {
    /// The stage of a journal's phase. Probation is not in the journal: it is [`Phase::Trying`] while the
    /// new binary runs.
    fn from(phase: Phase) -> Stage {
        match phase {
            Phase::Stopping => Stage::Stopping,
            Phase::Stopped => Stage::Stopped,
            Phase::BackedUp => Stage::BackedUp,
            Phase::Trying => Stage::Trying,
            Phase::Reverting => Stage::Reverting,
        }
    }
}

impl From<Outcome> for Stage {
    fn from(outcome: Outcome) -> Stage {
        match outcome {
            Outcome::Applied => Stage::Applied,
            Outcome::Failed => Stage::Failed,
            Outcome::RolledBack => Stage::RolledBack,
            Outcome::Aborted => Stage::Aborted,
        }
    }
}

/// The facts, prepared for questions about one upgrade.
struct FactIndex<'a> {
    facts: &'a Facts<'a>,
    ended: Index<(&'a Name, u64), &'a Ended>,
    cancelled: Set<(&'a Name, u64)>,
    refused: Index<&'a Name, &'a Conflict>,
    holds: Index<&'a Name, &'a String>,
    binaries: Index<&'a Name, &'a Binary>,
}

impl<'a> FactIndex<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        let claims = |conflict: &'a Conflict| conflict.refused.iter().map(move |c| (&c.name, conflict));
        FactIndex {
            facts,
            ended: facts.ended.iter().map(|e| ((&e.name, e.height), e)).collect(),
            cancelled: facts.cancelled.iter().map(|(name, height)| (name, *height)).collect(),
            refused: facts.conflicts.iter().flat_map(claims).collect(),
            holds: facts.holds.iter().map(|(name, hold)| (name, hold)).collect(),
            binaries: facts.binaries.iter().map(|(name, binary)| (name, binary)).collect(),
        }
    }

    fn upgrade(&self, entry: &Entry) -> UpgradeStatus {
        let key = (&entry.name, entry.height);
        let ended = self.ended.get(&key).copied();
        let refused = self.refused.get(&entry.name).copied();
        let under_way = self.facts.under_way.filter(|(name, height, _)| (*name, *height) == key);
        let phase = match (ended, under_way) {
            (_, Some((.., stage))) => stage,
            (Some(ended), None) => ended.outcome.into(),
            (None, None) if self.cancelled.contains(&key) => Stage::Cancelled,
            (None, None) => match self.facts.activation {
                Activation::Inactive | Activation::Changed => Stage::Planned,
                Activation::Paused => Stage::Paused,
                Activation::Active if refused.is_some() => Stage::Refused,
                Activation::Active if self.facts.head.is_some_and(|head| head >= entry.height) => Stage::Due,
                Activation::Active => Stage::Waiting,
            },
        };
        let is_ahead = phase.is_to_come() && !phase.is_under_way();
        let blocks_left = self.facts.head.filter(|_| is_ahead).map(|head| entry.height.saturating_sub(head));
        let seconds = |blocks: u64, period: Duration| {
            u64::try_from(u128::from(blocks) * period.as_millis() / 1000).unwrap_or(u64::MAX)
        };
        let detail = match phase {
            Stage::Refused => refused.map(ToString::to_string),
            Stage::Due => self.holds.get(&entry.name).copied().cloned(),
            _ => ended.map(|e| e.detail.clone()).filter(|detail| !detail.is_empty()),
        };
        UpgradeStatus {
            name: entry.name.clone(),
            height: entry.height,
            fork_height: entry.fork_height,
            phase,
            binary: self.binaries.get(&entry.name).copied().cloned().unwrap_or_default(),
            blocks_left,
            seconds_left: blocks_left.zip(self.facts.period).map(|(blocks, period)| seconds(blocks, period)),
            outcome: ended.filter(|_| under_way.is_none()).map(|e| e.outcome),
            detail,
        }
    }
}

/// Percent with two decimals, rounded down; all of nothing is 100.
fn percent(part: usize, whole: usize) -> f64 {
    let hundredths = part.saturating_mul(10_000).checked_div(whole).unwrap_or(10_000);
    hundredths as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::name;
    use super::*;
    use crate::machine::{Claim, Origin};
    use serde_json::{Value, json};

    fn plan(upgrades: &[&str]) -> Plan {
        let mut plan = Plan::new(name("p"), "");
        upgrades.iter().for_each(|text| plan.add(text.parse().unwrap()));
        plan
    }

    fn ended(text: &str, height: u64, outcome: Outcome) -> Ended {
        Ended {
            name: name(text),
            height,
            fork_height: None,
            cannot_follow: false,
            switch: None,
            outcome,
            detail: String::new(),
        }
    }

    fn phases(status: &Status) -> Vec<Stage> {
        status.upgrades.iter().map(|u| u.phase).collect()
    }

    #[test]
    fn the_json_that_scripts_read() {
        let ended = [Ended { detail: "hook said no".into(), ..ended("v2", 200, Outcome::Aborted) }];
        let binaries =
            [(name("v3"), Binary::Downloading { percent: Some(42) }), (name("v2"), Binary::Verified)];
        let facts = Facts {
            activation: Activation::Active,
            head: Some(250),
            period: Some(Duration::from_millis(1500)),
            ended: &ended,
            binaries: &binaries,
            ..Facts::default()
        };
        let mut plan = plan(&["v2:200", "v3:300"]);
        plan.upgrades[1].fork_height = Some(400);
        let expected = json!({
            "name": "p", "activation": "active", "total_upgrades": 2, "completed": 0, "pending": 1, "failed": 1,
            "cancelled": 0, "active": "v3", "current_height": 250, "progress": 0.0,
            "upgrades": [
                {"name": "v2", "height": 200, "fork_height": null, "phase": "aborted",
                 "binary": {"state": "verified"}, "blocks_left": null, "seconds_left": null,
                 "outcome": "aborted", "detail": "hook said no"},
                {"name": "v3", "height": 300, "fork_height": 400, "phase": "waiting",
                 "binary": {"state": "downloading", "percent": 42}, "blocks_left": 50, "seconds_left": 75,
                 "outcome": null, "detail": null},
            ]
        });
        assert_eq!(serde_json::to_value(plan.status(&facts)).unwrap(), expected);
    }

    #[test]
    fn completed_is_what_history_says_and_not_what_the_height_says() {
        let ended = [ended("v2", 200, Outcome::Applied), ended("v3", 999, Outcome::Applied)];
        let facts =
            Facts { activation: Activation::Active, head: Some(350), ended: &ended, ..Facts::default() };
        let status = plan(&["v2:200", "v3:300", "v4:400"]).status(&facts);
        assert_eq!(phases(&status), [Stage::Applied, Stage::Due, Stage::Waiting]);
        assert_eq!((status.completed, status.pending, status.progress), (1, 2, 33.33));
        assert_eq!(status.active, Some(name("v3")));
        assert_eq!(status.upgrades[1].blocks_left, Some(0));
        let facts = Facts { head: Some(400), ..facts };
        assert_eq!(phases(&plan(&["v4:400", "v5:401"]).status(&facts)), [Stage::Due, Stage::Waiting]);
    }

    #[test]
    fn the_upgrade_under_way_is_active_whatever_ended_before() {
        let before = [ended("v2", 200, Outcome::RolledBack)];
        let v2 = name("v2");
        let facts = Facts {
            activation: Activation::Active,
            head: Some(210),
            under_way: Some((&v2, 200, Stage::Probation)),
            ended: &before,
            ..Facts::default()
        };
        let status = plan(&["v1:100", "v2:200"]).status(&facts);
        assert_eq!(phases(&status), [Stage::Due, Stage::Probation]);
        assert_eq!(status.active, Some(name("v2")));
        assert_eq!(status.upgrades[1].outcome, None);
    }

    #[test]
    fn a_plan_that_is_not_followed_has_nothing_due() {
        let two = plan(&["v2:200", "v3:300"]);
        for (activation, stage) in [
            (Activation::Inactive, Stage::Planned),
            (Activation::Changed, Stage::Planned),
            (Activation::Paused, Stage::Paused),
        ] {
            let status = two.status(&Facts { activation, head: Some(250), ..Facts::default() });
            assert_eq!(phases(&status), [stage, stage]);
        }
    }

    #[test]
    fn cancelled_and_refused_upgrades_are_neither_next_nor_lost() {
        let cancelled = [(name("v2"), 200)];
        let claim = Claim { name: name("v3"), height: 300, origin: Origin::TriggerFile };
        let conflicts = [Conflict { refused: vec![claim], why: "no".into() }];
        let facts = Facts {
            activation: Activation::Active,
            cancelled: &cancelled,
            conflicts: &conflicts,
            ..Facts::default()
        };
        let status = plan(&["v2:200", "v3:300", "v4:400"]).status(&facts);
        assert_eq!(phases(&status), [Stage::Cancelled, Stage::Refused, Stage::Waiting]);
        assert_eq!((status.pending, status.cancelled, status.active), (2, 1, Some(name("v4"))));
        assert_eq!(status.upgrades[1].detail.as_deref(), Some("v3 at 300 (upgrade-info.json): no"));
        assert_eq!(status.upgrades[2].blocks_left, None);
    }

    #[test]
    fn what_is_due_says_what_holds_it_back() {
        let holds = [(name("v2"), "turn: it is another's".to_owned()), (name("v3"), "calm".to_owned())];
        let facts =
            Facts { activation: Activation::Active, head: Some(250), holds: &holds, ..Facts::default() };
        let details: Vec<_> =
            plan(&["v2:200", "v3:300"]).status(&facts).upgrades.into_iter().map(|u| u.detail).collect();
        assert_eq!(details, [Some("turn: it is another's".to_owned()), None]);
    }

    #[test]
    fn progress_is_100_only_when_all_is_done_and_never_nan() {
        assert_eq!(plan(&[]).status(&Facts::default()).progress, 100.0);
        let cancelled = [(name("v2"), 200)];
        let facts = Facts { cancelled: &cancelled, ..Facts::default() };
        assert_eq!(plan(&["v2:200"]).status(&facts).progress, 100.0);
        assert_eq!((percent(1, 3), percent(2, 3), percent(29_999, 30_000)), (33.33, 66.66, 99.99));
        let json: Value = serde_json::to_value(plan(&[]).status(&Facts::default())).unwrap();
        assert_eq!(json["progress"], json!(100.0));
    }

    #[test]
    fn times_too_far_to_count_do_not_overflow() {
        let period = Some(Duration::from_secs(3600));
        let facts = Facts { head: Some(0), period, ..Facts::default() };
        let status = plan(&[&format!("v2:{}", u64::MAX)]).status(&facts);
        assert_eq!(status.upgrades[0].seconds_left, Some(u64::MAX));
    }
}
