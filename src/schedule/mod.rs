//! Upgrades that are planned: by hand, by the trigger file, and by plans of many upgrades, which are executed unattended.
//!
//! An upgrade is written as an [`Entry`], by whatever source, and planned as a
//! [`machine::Upgrade`](crate::machine::Upgrade). [`Planned`] reads all sources and unites them; [`Agenda`] is the file of
//! the operator's own decisions.
//!
//! A [`Plan`] is data; [`validate`] judges it and reports every problem at once, each with a JSON pointer;
//! [`Plans`] is the directory of plans; [`Plan::status`] tells from plain facts how far one has come, and
//! [`table`] shows it. Heights are block heights, above 0; digests are SHA-256 or SHA-512.
//!
//! Architecture invariant: nothing here knows the supervisor. What is applied or measured comes in as
//! plain data.
//!
//! A plan from its making to the question what comes next:
//!
//! ```
//! use wemixvisor::schedule::{Context, Entry, Plan, validate};
//!
//! let mut plan = Plan::new("spring".parse()?, "both forks of this year");
//! plan.add("v2.0.0:1000".parse()?);
//! let mut second = Entry::new("v3.0.0".parse()?, 5000);
//! second.fork_height = Some(5500);
//! plan.add(second);
//!
//! assert!(validate(&plan, &Context::default()).is_valid());
//! assert_eq!(plan.next(1000).map(|upgrade| upgrade.name.as_str()), Some("v3.0.0"));
//! assert_eq!(plan.at(1000).map(|upgrade| upgrade.name.as_str()), Some("v2.0.0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every problem at once, with its place:
//!
//! ```
//! use wemixvisor::schedule::{Context, validate_json};
//!
//! let file = r#"{"version": "1.0", "name": "spring", "upgrades": [
//!     {"name": "v2.0.0", "height": 1000, "sha256": "abc"},
//!     {"name": "v3.0.0", "height": 900}
//! ]}"#;
//! let (_, report) = validate_json(file.as_bytes(), &Context::default());
//! let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
//! assert_eq!(found, [
//!     "/upgrades/0/sha256: it is not 64 hexadecimal digits",
//!     "/upgrades/1/height: 900 is not above 1000, the height of /upgrades/0",
//! ]);
//! ```
//!
//! The directory of plans:
//!
//! ```
//! use wemixvisor::schedule::{Plan, Plans};
//!
//! let dir = tempfile::tempdir()?;
//! let plans = Plans::new(dir.path().join("plans"));
//! let mut plan = Plan::new("spring".parse()?, "both forks of this year");
//! plans.create(&plan)?;
//! plan.add("v2.0.0:1000".parse()?);
//! plans.save(&plan)?;
//! assert_eq!(plans.load(&plan.name)?.plan, plan);
//!
//! for (name, stored) in plans.list()? {
//!     println!("{name}: {} upgrades", stored?.plan.upgrades.len());
//! }
//! plans.remove(&plan.name)?;
//! assert!(plans.list()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Fields that we do not know survive all that, to the letter:
//!
//! ```
//! use wemixvisor::schedule::Plan;
//!
//! let file = r#"{"version": "1.0", "name": "spring", "upgrades": [], "fee": {"wei": 340282366920938463463374607431768211457}}"#;
//! let plan: Plan = serde_json::from_str(file)?;
//! assert_eq!(plan.rest.get("fee").map(|fee| fee.as_str()), Some(r#"{"wei": 340282366920938463463374607431768211457}"#));
//! assert!(plan.to_json().contains("340282366920938463463374607431768211457"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Followed only as it was when it was activated:
//!
//! ```
//! use wemixvisor::schedule::{Plan, Plans};
//!
//! let dir = tempfile::tempdir()?;
//! let plans = Plans::new(dir.path().join("plans"));
//! let mut plan = Plan::new("spring".parse()?, "");
//! plan.add("v2.0.0:1000".parse()?);
//! let activated = plans.create(&plan)?;
//! assert_eq!(plans.follow(&plan.name, &activated)?, plan);
//!
//! plans.edit(&plan.name, |plan| Ok(plan.add("v3.0.0:5000".parse().expect("it is well formed"))))?;
//! let refusal = plans.follow(&plan.name, &activated).unwrap_err();
//! assert!(refusal.to_string().contains("has changed since it was activated"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How far it has come:
//!
//! ```
//! use std::time::Duration;
//! use wemixvisor::schedule::{Activation, Facts, Plan, table};
//!
//! let mut plan = Plan::new("spring".parse()?, "");
//! plan.add("v2.0.0:1000".parse()?);
//! let status = plan.status(&Facts {
//!     activation: Activation::Active,
//!     head: Some(400),
//!     period: Some(Duration::from_secs(1)),
//!     ..Facts::default()
//! });
//! assert_eq!(status.progress, 0.0);
//! assert_eq!(status.upgrades[0].seconds_left, Some(600));
//! assert!(table(&status, 80, false).contains("600 blocks, 10m00s"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entry;
mod file;
mod json;
mod plan;
mod plans;
mod reading;
mod report;
mod sources;
mod status;
mod table;
pub(crate) mod trigger;
mod validate;

pub use crate::machine::{Claim, Conflict, Ended, Origin, Outcome, Phase, Places, Schedule, Switch, Upgrade};
pub use entry::Entry;
pub use file::{ActivePlan, Agenda};
pub use json::{Fields, Json};
pub use plan::Plan;
pub use plans::{Plans, Stored, read_file, read_text};
pub use report::{Finding, Report, Severity};
pub use sources::Planned;
pub(crate) use sources::{Reader, disagree};
pub use status::{Activation, Binary, Facts, Stage, Status, UpgradeStatus};
pub use table::table;
pub use validate::{Context, validate, validate_json};

/// Every loop over the upgrades of a plan goes through here, so that a test can count how often one is
/// looked at.
fn visit<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    let items = items.into_iter();
    #[cfg(test)]
    let items = items.inspect(|_| tests::VISITS.with(|visits| visits.set(visits.get() + 1)));
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::machine::{Ended, Outcome};
    use crate::name::Name;
    use std::cell::Cell;

    thread_local! {
        pub(super) static VISITS: Cell<u64> = const { Cell::new(0) };
    }

    /// A home with nothing in it.
    pub(super) fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        (dir, home)
    }

    pub(super) fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// How often upgrades are looked at to validate, judge and show a plan of `n` of them.
    fn work(n: u64) -> u64 {
        let mut plan = Plan::new("long".parse().unwrap(), "");
        plan.upgrades = (1..=n).map(|i| Entry::new(format!("v{i}").parse().unwrap(), 100 * i)).collect();
        let ended: Vec<Ended> = plan.upgrades[..plan.upgrades.len() / 2]
            .iter()
            .map(|e| Ended {
                name: e.name.clone(),
                height: e.height,
                fork_height: None,
                cannot_follow: false,
                switch: None,
                outcome: Outcome::Applied,
                detail: String::new(),
            })
            .collect();
        let planned = plan.clone().schedule();
        let head = Some(50 * n);
        VISITS.with(|visits| visits.set(0));
        let context = Context { head, planned: &planned, ended: &ended, ..Context::default() };
        let (read, report) = validate_json(plan.to_json().as_bytes(), &context);
        assert!(report.is_valid() && read.as_ref() == Some(&plan));
        let facts = Facts { activation: Activation::Active, head, ended: &ended, ..Facts::default() };
        let status = plan.status(&facts);
        assert_eq!((status.completed, status.progress), (ended.len(), 50.0));
        assert_eq!(table(&status, 80, false).lines().count() as u64, n + 3);
        VISITS.with(Cell::get)
    }

    #[test]
    fn ten_thousand_upgrades_are_ten_times_the_work_of_a_thousand() {
        assert_eq!(work(10_000), 10 * work(1000));
    }
}
