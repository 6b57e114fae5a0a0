//! One schedule from all sources of plans: the trigger file, active plans and the operator.
//!
//! The same upgrade planned twice is one upgrade; plans that disagree are refused, not guessed at, and
//! the node stays as it is. The work is linear in the number of upgrades, but for sorting. It reads
//! no plans, and does not decide which upgrade is due.

use super::record::{Ended, Outcome};
use super::upgrade::{Origin, Upgrade, unite};
use crate::name::Name;
use crate::sorted::{self, Index, Set};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The union of all plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Upgrades to come, by strictly rising height.
    pub upgrades: Vec<Arc<Upgrade>>,
    /// The upgrades left out because their sources disagree.
    pub conflicts: Vec<Conflict>,
}

/// Upgrades that are refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The refused upgrades; none of them happens until the conflict is gone.
    pub refused: Vec<Claim>,
    /// Why, in words that follow upon the list of claims.
    pub why: String,
}

/// One source's wish to upgrade at a height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The upgrade.
    pub name: Name,
    /// Its height.
    pub height: u64,
    /// The source of the wish.
    pub origin: Origin,
}

/// Unites what is planned.
///
/// Where the same upgrade is planned more than once, the first of `planned` gives its text; a digest, fork height or place
/// of a binary that only one of them has is taken over; the earlier deadline and the more careful `data_compat` count. The
/// origin is the trigger file, if it is among them, since a node that stops by itself has named the upgrade there;
/// otherwise it is that of the first.
///
/// An upgrade that was cancelled at its height, or has ended at it in whichever way, is left out. One
/// that was applied at another height, or lies below an upgrade that was applied, is refused.
#[must_use]
pub fn merge(
    planned: impl IntoIterator<Item = Arc<Upgrade>>,
    cancelled: &[(Name, u64)],
    ended: &[Ended],
) -> Schedule {
    let cancelled: Set<_> = cancelled.iter().map(|(name, height)| (name, *height)).collect();
    let past = Past::new(ended);
    let mut conflicts = Vec::new();
    let mut open = Vec::new();
    for upgrade in planned {
        if cancelled.contains(&(&upgrade.name, upgrade.height)) {
            continue;
        }
        match past.standing(&upgrade) {
            Standing::Settled => {}
            Standing::Refused(why) => conflicts.push(Conflict { refused: vec![claim(&upgrade)], why }),
            Standing::Open => open.push(upgrade),
        }
    }

    let mut united = Vec::new();
    sorted::by(&mut open, |a, b| a.name.cmp(&b.name));
    for same_name in open.chunk_by(|a, b| a.name == b.name) {
        match unite(same_name) {
            Ok(upgrade) => united.push(upgrade),
            Err(why) => conflicts.push(Conflict { refused: same_name.iter().map(claim).collect(), why }),
        }
    }

    let mut upgrades = Vec::with_capacity(united.len());
    sorted::by_key(&mut united, |upgrade| upgrade.height);
    for same_height in united.chunk_by(|a, b| a.height == b.height) {
        if let [upgrade] = same_height {
            upgrades.push(Arc::clone(upgrade));
        } else {
            let why = "there can be only one upgrade at a height".to_owned();
            conflicts.push(Conflict { refused: same_height.iter().map(claim).collect(), why });
        }
    }
    Schedule { upgrades, conflicts }
}

/// The ended upgrades, prepared for look-ups.
pub(super) struct Past<'a> {
    by_name: Index<&'a Name, &'a Ended>,
    last_applied: Option<&'a Ended>,
}

enum Standing {
    Open,
    Settled,
    Refused(String),
}

impl<'a> Past<'a> {
    pub(super) fn new(ended: &'a [Ended]) -> Self {
        let applied = ended.iter().filter(|e| e.outcome == Outcome::Applied);
        Past {
            by_name: ended.iter().map(|e| (&e.name, e)).collect(),
            last_applied: applied.max_by_key(|e| e.height),
        }
    }

    /// Whether there is still something to do for this upgrade.
    pub(super) fn leaves_open(&self, upgrade: &Upgrade) -> bool {
        matches!(self.standing(upgrade), Standing::Open)
    }

    fn standing(&self, upgrade: &Upgrade) -> Standing {
        match self.by_name.get(&upgrade.name) {
            Some(same) if same.height == upgrade.height => return Standing::Settled,
            Some(same) if same.outcome == Outcome::Applied => {
                return Standing::Refused(format!("it was applied already, for height {}", same.height));
            }
            // It failed at another height; this is a new attempt.
            Some(_) | None => {}
        }
        match self.last_applied {
            Some(last) if upgrade.height <= last.height => {
                let why = format!("{} was applied already, for height {}", last.name, last.height);
                Standing::Refused(why)
            }
            Some(_) | None => Standing::Open,
        }
    }
}

fn claim(upgrade: &Arc<Upgrade>) -> Claim {
    Claim { name: upgrade.name.clone(), height: upgrade.height, origin: upgrade.origin.clone() }
}

impl Conflict {
    /// Whether it refuses this upgrade.
    #[must_use]
    pub fn concerns(&self, name: &Name) -> bool {
        self.refused.iter().any(|claim| claim.name == *name)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.name, self.height, self.origin)
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, claim) in self.refused.iter().enumerate() {
            write!(f, "{}{claim}", if n == 0 { "" } else { ", " })?;
        }
        write!(f, ": {}", self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Places;
    use super::*;
    use crate::digest::Digest;
    use proptest::prelude::*;

    fn merge(
        planned: impl IntoIterator<Item = Upgrade>,
        cancelled: &[(Name, u64)],
        ended: &[Ended],
    ) -> Schedule {
        super::merge(planned.into_iter().map(Arc::new), cancelled, ended)
    }

    fn anywhere(url: &str) -> Places {
        [("any", url)].into_iter().collect()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn planned(text: &str, height: u64, origin: Origin) -> Upgrade {
        Upgrade::new(name(text), height, origin)
    }

    fn by_hand(text: &str, height: u64) -> Upgrade {
        planned(text, height, Origin::Schedule)
    }

    fn by_file(text: &str, height: u64) -> Upgrade {
        planned(text, height, Origin::TriggerFile)
    }

    fn past(text: &str, height: u64, outcome: Outcome) -> Ended {
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

    fn shown(schedule: &Schedule) -> Vec<String> {
        schedule.upgrades.iter().map(|u| format!("{}@{}", u.name, u.height)).collect()
    }

    fn refusals(schedule: &Schedule) -> Vec<String> {
        schedule.conflicts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ordered_by_height_whoever_plans() {
        let plan = planned("v3", 300, Origin::Plan(name("p")));
        let schedule = merge([by_hand("v4", 400), plan, by_file("v2", 200)], &[], &[]);
        assert_eq!(shown(&schedule), ["v2@200", "v3@300", "v4@400"]);
        assert_eq!(schedule.conflicts, []);
    }

    #[test]
    fn the_same_upgrade_twice_is_one_with_what_either_knows() {
        let digest = Digest::sha256(b"v2");
        let mut a = by_hand("v2", 200);
        a.digest = Some(digest);
        a.deadline_height = Some(260);
        let mut b = by_file("v2", 200);
        b.fork_height = Some(300);
        b.deadline_height = Some(240);
        b.data_compat = false;
        b.info = Some("text".into());
        b.binaries = anywhere("https://x/v2");
        let schedule = merge([a, b.clone()], &[], &[]);
        let united = Upgrade { digest: Some(digest), ..b };
        assert_eq!(schedule, Schedule { upgrades: vec![united.clone().into()], conflicts: vec![] });
        // While no heights are known only the trigger file says that it is time.
        assert_eq!(united.origin, Origin::TriggerFile);
    }

    #[test]
    fn disagreements_are_refused_and_nothing_else_is() {
        let with = |change: fn(&mut Upgrade)| {
            let mut upgrade = by_file("v2", 200);
            change(&mut upgrade);
            upgrade
        };
        let mut ours = by_hand("v2", 200);
        ours.fork_height = Some(300);
        ours.binaries = anywhere("https://ours/v2");
        for (theirs, on) in [
            (by_file("v2", 201), "the height"),
            (with(|u| u.fork_height = Some(301)), "the fork height"),
            (with(|u| u.binaries = anywhere("https://theirs/v2")), "where the binary is"),
        ] {
            let schedule = merge([ours.clone(), by_hand("v3", 300), theirs], &[], &[]);
            assert_eq!(shown(&schedule), ["v3@300"]);
            let [refusal] = &refusals(&schedule)[..] else { panic!("{schedule:?}") };
            assert!(refusal.starts_with("v2 at 200 (schedule), v2 at 20"), "{refusal}");
            assert!(refusal.contains(&format!("they disagree on {on}")), "{refusal}");
        }
    }

    #[test]
    fn digests_must_be_equal_and_make_places_irrelevant() {
        let pinned = |origin, bytes: &[u8], url: &str| {
            let mut upgrade = planned("v2", 200, origin);
            upgrade.digest = Some(Digest::sha256(bytes));
            upgrade.binaries = anywhere(url);
            upgrade
        };
        let ours = pinned(Origin::Schedule, b"v2", "https://ours/v2");
        let apart = merge([ours.clone(), pinned(Origin::TriggerFile, b"other", "https://ours/v2")], &[], &[]);
        assert_eq!(shown(&apart), [""; 0]);
        let same = merge([ours.clone(), pinned(Origin::TriggerFile, b"v2", "https://theirs/v2")], &[], &[]);
        assert_eq!(same.upgrades, [Upgrade { origin: Origin::TriggerFile, ..ours }.into()]);
    }

    #[test]
    fn two_upgrades_at_one_height_are_both_refused() {
        let schedule = merge([by_hand("v2", 200), by_file("v3", 200), by_hand("v4", 201)], &[], &[]);
        assert_eq!(shown(&schedule), ["v4@201"]);
        assert!(schedule.conflicts[0].concerns(&name("v2")) && schedule.conflicts[0].concerns(&name("v3")));
        assert_eq!(
            refusals(&schedule),
            [
                "v2 at 200 (schedule), v3 at 200 (upgrade-info.json): there can be only one upgrade at a height"
            ]
        );
    }

    #[test]
    fn a_cancelled_upgrade_is_gone_and_so_is_its_conflict() {
        let schedule = merge([by_hand("v2", 200), by_file("v2", 250)], &[(name("v2"), 250)], &[]);
        assert_eq!((shown(&schedule), schedule.conflicts), (vec!["v2@200".to_owned()], vec![]));
    }

    #[test]
    fn what_has_ended_is_not_planned_again() {
        let ended = [past("v2", 200, Outcome::Applied), past("v3", 300, Outcome::RolledBack)];
        let file_outlives = merge([by_file("v2", 200), by_hand("v3", 300)], &[], &ended);
        assert_eq!(file_outlives, Schedule::default());
        let again = merge([by_hand("v3", 350)], &[], &ended);
        assert_eq!(shown(&again), ["v3@350"]);
        let elsewhere = merge([by_hand("v2", 250)], &[], &ended);
        assert_eq!(refusals(&elsewhere), ["v2 at 250 (schedule): it was applied already, for height 200"]);
    }

    #[test]
    fn nothing_goes_back_behind_what_was_applied() {
        let older = past("v1", 100, Outcome::Applied);
        let ended = [older.clone(), past("v3", 300, Outcome::Applied), older];
        let schedule = merge([by_file("v2", 200), by_hand("v2b", 300), by_hand("v4", 301)], &[], &ended);
        assert_eq!(shown(&schedule), ["v4@301"]);
        assert_eq!(
            refusals(&schedule)[0],
            "v2 at 200 (upgrade-info.json): v3 was applied already, for height 300"
        );
    }

    fn any_upgrade() -> impl Strategy<Value = Upgrade> {
        let bit = || proptest::option::of(any::<bool>());
        (0..4u8, 1..6u64, any::<bool>(), bit(), bit(), bit()).prop_map(
            |(n, height, file, digest, fork, url)| {
                let origin = if file { Origin::TriggerFile } else { Origin::Schedule };
                let mut upgrade = planned(&format!("v{n}"), height, origin);
                upgrade.digest = digest.map(|d| Digest::sha256(&[u8::from(d)]));
                upgrade.fork_height = fork.map(|f| 7 + u64::from(f));
                upgrade.binaries = url.map(|u| ("any", format!("https://{u}"))).into_iter().collect();
                upgrade
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_of_plans_decides_nothing_and_nothing_is_lost(
            mut upgrades in proptest::collection::vec(any_upgrade(), 0..8)
        ) {
            let forth = merge(upgrades.clone(), &[], &[]);
            upgrades.reverse();
            let back = merge(upgrades.clone(), &[], &[]);
            prop_assert_eq!(shown(&forth), shown(&back));
            prop_assert!(forth.upgrades.windows(2).all(|w| w[0].height < w[1].height));
            for upgrade in &upgrades {
                let planned = forth.upgrades.iter().any(|u| u.name == upgrade.name);
                let refused = forth.conflicts.iter().any(|c| c.concerns(&upgrade.name));
                prop_assert!(planned != refused);
            }
            let cancelled: Vec<_> = upgrades.iter().map(|u| (u.name.clone(), u.height)).collect();
            prop_assert_eq!(merge(upgrades, &cancelled, &[]), Schedule::default());
        }
    }
}
