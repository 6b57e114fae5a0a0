//! Everything that is planned: by the operator, by the plans that are active and by the trigger file.
//!
//! The supervisor and every command learn it here, so that all of them see the same: [`Planned::read`] reads all
//! sources, and [`Planned::schedule`] unites them.

use super::file::{ActivePlan, Agenda};
use super::plans::Plans;
use super::trigger;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::home::stamp::Stamp;
use crate::machine::{Ended, Outcome, Schedule, Upgrade, merge};
use crate::name::Name;
use std::sync::Arc;
use std::time::SystemTime;

/// The result of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// The upgrades of the sources, each for itself.
    pub upgrades: Vec<Arc<Upgrade>>,
    /// The upgrades of paused plans, by name and height.
    pub held: Vec<(Name, u64)>,
    /// The upgrades that must not happen, by name and height.
    pub cancelled: Vec<(Name, u64)>,
    /// The sources that could not be read, each with the reason.
    pub problems: Vec<String>,
}

impl Planned {
    /// Reads all sources once. What cannot be read is a problem, never an error.
    #[must_use]
    pub fn read(home: &Home) -> Planned {
        Reader::new(home).read()
    }

    /// One schedule of all that is planned, less what was cancelled or applied. An upgrade that has ended otherwise stays:
    /// the operator may still want it, so only the machine leaves it out.
    #[must_use]
    pub fn schedule(&self, ended: &[Ended]) -> Schedule {
        let applied: Vec<_> = ended.iter().filter(|e| e.outcome == Outcome::Applied).cloned().collect();
        merge(self.upgrades.iter().cloned(), &self.cancelled, &applied)
    }

    /// The upgrade of this name as all its sources together describe it; `None` if it is not planned.
    ///
    /// # Errors
    /// [`Kind::Failed`] if they disagree.
    pub fn upgrade(&self, name: &Name) -> Result<Option<Arc<Upgrade>>> {
        let sources = self.upgrades.iter().filter(|upgrade| upgrade.name == *name);
        let Schedule { upgrades, conflicts } = merge(sources.cloned(), &[], &[]);
        match conflicts.first() {
            Some(conflict) => Err(disagree(&conflict.to_string())),
            None => Ok(upgrades.into_iter().next()),
        }
    }

    /// The heights at which an upgrade of this name is planned, by paused plans as well.
    #[must_use]
    pub fn heights(&self, name: &Name) -> Vec<u64> {
        let planned = self.upgrades.iter().map(|u| (&u.name, u.height));
        let held = self.held.iter().map(|(name, height)| (name, *height));
        planned.chain(held).filter(|(known, _)| *known == name).map(|(_, height)| height).collect()
    }

    /// Whether an upgrade of this name is planned and not paused.
    #[must_use]
    pub fn has(&self, name: &Name) -> bool {
        self.upgrades.iter().any(|u| u.name == *name)
    }
}

/// The error of a command about an upgrade whose sources disagree.
pub(crate) fn disagree(conflict: &str) -> Error {
    Error::new(Kind::Failed, conflict).hint("see `wemixvisor upgrade list`")
}

/// Reads again and again, and remembers what the trigger file said while it is being rewritten, and what the
/// operator had decided should that file be damaged.
///
/// A plan as it was read is kept as well, and its file is read again only when something about it has changed.
#[derive(Debug)]
pub(crate) struct Reader {
    home: Home,
    trigger: Option<Upgrade>,
    agenda: Option<Agenda>,
    plans: Vec<Known>,
}

/// A plan that was read.
#[derive(Debug)]
struct Known {
    name: Name,
    sha256: Digest,
    upgrades: Vec<Arc<Upgrade>>,
    /// The stamp of its file before it was read, unless it was changed just before.
    stamp: Option<Stamp>,
}

impl Reader {
    /// A reader of what is planned for this home.
    pub(crate) fn new(home: &Home) -> Self {
        Reader { home: home.clone(), trigger: None, agenda: None, plans: Vec::new() }
    }

    /// Reads everything now. What cannot be read is a problem, never an error.
    pub(crate) fn read(&mut self) -> Planned {
        let mut found = Planned::default();
        match trigger::read(&self.home.trigger()) {
            Ok(trigger) => self.trigger = trigger,
            // Half-written, perhaps: what it said before holds until it says something else, or is gone.
            Err(e) => found.problems.push(e.to_string()),
        }
        match Agenda::load(&self.home) {
            Ok(agenda) => self.agenda = Some(agenda),
            // It is damaged: what was read before are still the operator's decisions.
            Err(e) => found.problems.push(e.to_string()),
        }
        // Without them nothing is planned: an upgrade that was cancelled might begin.
        let Some(agenda) = &self.agenda else { return found };
        found.cancelled = agenda.cancelled();
        found.upgrades = agenda.by_hand().into_iter().map(Arc::new).collect();
        let known = std::mem::take(&mut self.plans);
        for active in agenda.plans() {
            match follow(&Plans::new(self.home.plans()), active, &known, SystemTime::now()) {
                Ok(plan) => {
                    if active.paused {
                        found.held.extend(plan.upgrades.iter().map(|u| (u.name.clone(), u.height)));
                    } else {
                        found.upgrades.extend_from_slice(&plan.upgrades);
                    }
                    self.plans.push(plan);
                }
                // It is reported when the plan is resumed.
                Err(_) if active.paused => {}
                Err(e) => found.problems.push(e.to_string()),
            }
        }
        found.upgrades.extend(self.trigger.clone().map(Arc::new));
        for upgrade in &mut found.upgrades {
            if agenda.is_on_hold(&upgrade.name) {
                Arc::make_mut(upgrade).on_hold = true;
            }
        }
        found
    }
}

/// A plan that was activated, read anew unless it is known.
fn follow(plans: &Plans, active: &ActivePlan, known: &[Known], now: SystemTime) -> Result<Known> {
    let stamp = Stamp::of(&plans.path(&active.name)).ok().filter(|stamp| stamp.is_settled(now));
    let upgrades = match known.iter().find(|k| (&k.name, &k.sha256) == (&active.name, &active.sha256)) {
        Some(known) => {
            if stamp.is_none() || stamp != known.stamp {
                plans.unchanged(&active.name, &active.sha256)?;
            }
            known.upgrades.clone()
        }
        None => plans.follow(&active.name, &active.sha256)?.schedule(),
    };
    Ok(Known { name: active.name.clone(), sha256: active.sha256, upgrades, stamp })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::super::tests::{home, name};
    use super::*;
    use crate::machine::Origin;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_schedule_that_is_damaged_meanwhile_still_says_what_it_said() {
        let (_dir, home) = home();
        Agenda::edit(&home, |agenda| agenda.schedule("v2:200".parse().unwrap())).unwrap();
        Agenda::edit(&home, |agenda| agenda.cancel(&"v3".parse().unwrap(), &[300])).unwrap();
        let mut reader = Reader::new(&home);
        let before = reader.read();
        assert_eq!((before.upgrades.len(), before.cancelled.len(), before.problems.len()), (1, 1, 0));
        fs::write(home.schedule(), "rot").unwrap();
        let after = reader.read();
        assert_eq!((&after.upgrades, &after.cancelled), (&before.upgrades, &before.cancelled));
        assert!(after.problems[0].contains("schedule.json"), "{:?}", after.problems);
        // A reader that has never seen a whole one plans nothing, and says why.
        let fresh = Reader::new(&home).read();
        assert_eq!((fresh.upgrades.len(), fresh.problems.len()), (0, 1));
        fs::remove_file(home.schedule()).unwrap();
        assert_eq!(reader.read(), Planned::default());
    }

    #[test]
    fn a_trigger_that_is_being_rewritten_still_says_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.data()).unwrap();
        let mut reader = Reader::new(&home);
        let names =
            |planned: &Planned| planned.upgrades.iter().map(|u| u.name.to_string()).collect::<Vec<_>>();
        assert_eq!(reader.read(), Planned::default());
        fs::write(home.trigger(), "{\"name\":").unwrap();
        let broken = reader.read();
        assert_eq!((names(&broken).len(), broken.problems.len()), (0, 1));
        fs::write(home.trigger(), "{\"name\":\"v2\",\"height\":5}").unwrap();
        assert_eq!(names(&reader.read()), ["v2"]);
        fs::write(home.trigger(), "").unwrap();
        let broken = reader.read();
        assert_eq!((names(&broken), broken.problems.len()), (vec!["v2".to_owned()], 1));
        fs::remove_file(home.trigger()).unwrap();
        assert_eq!(reader.read(), Planned::default());
    }

    #[test]
    fn all_plans_are_gathered_and_one_in_trouble_stops_no_other() {
        let (_dir, home) = home();
        let plans = Plans::new(home.plans());
        Agenda::edit(&home, |agenda| agenda.schedule("v2:200".parse().unwrap())).unwrap();
        for (plan, upgrade) in
            [("good", "v3:300"), ("changed", "v4:400"), ("paused", "v5:500"), ("idle", "v6:600")]
        {
            let mut content = Plan::new(name(plan), "");
            content.add(upgrade.parse().unwrap());
            let sha256 = plans.create(&content).unwrap();
            Agenda::edit(&home, |agenda| {
                match plan {
                    "idle" => {}
                    _ => agenda.activate(&name(plan), sha256),
                }
                if plan == "paused" { agenda.pause(&name(plan)) } else { Ok(()) }
            })
            .unwrap();
        }
        plans.save(&Plan::new(name("changed"), "another")).unwrap();
        fs::create_dir_all(home.data()).unwrap();
        fs::write(home.trigger(), r#"{"name":"v7","height":700}"#).unwrap();
        let planned = Planned::read(&home);
        let heights = |planned: &Planned| {
            planned.schedule(&[]).upgrades.iter().map(|upgrade| upgrade.height).collect::<Vec<_>>()
        };
        assert_eq!(heights(&planned), [200, 300, 700]);
        assert_eq!(planned.held, [(name("v5"), 500)]);
        let [problem] = &planned.problems[..] else { panic!("{planned:?}") };
        assert!(problem.contains("changed.json") && problem.contains("has changed"), "{problem}");
        Agenda::edit(&home, |agenda| agenda.cancel(&name("v7"), &[700])).unwrap();
        assert_eq!(heights(&Planned::read(&home)), [200, 300]);
    }

    #[test]
    fn a_plan_is_understood_once_for_as_long_as_its_file_stays() {
        let (_dir, home) = home();
        let (plans, mut plan) = (Plans::new(home.plans()), Plan::new(name("p"), ""));
        let edit = |change: &dyn Fn(&mut Agenda)| {
            let changed = |agenda: &mut Agenda| {
                change(agenda);
                Ok(())
            };
            Agenda::edit(&home, changed).unwrap();
        };
        let activate = |plan: &Plan| {
            let sha256 = plans.save(plan).unwrap();
            edit(&|agenda| agenda.activate(&name("p"), sha256));
        };
        plan.add("v2:200".parse().unwrap());
        activate(&plan);
        let mut reader = Reader::new(&home);
        let first = Arc::clone(&reader.read().upgrades[0]);
        let mut is_first = || Arc::ptr_eq(&reader.read().upgrades[0], &first);
        assert!(is_first());
        edit(&|agenda| agenda.hold(&name("v2")));
        assert!(!is_first() && reader.read().upgrades[0].on_hold && !first.on_hold);
        edit(&|agenda| agenda.release(&name("v2")).unwrap());
        edit(&|agenda| agenda.pause(&name("p")).unwrap());
        let paused = reader.read();
        assert_eq!((paused.upgrades.len(), paused.held), (0, vec![(name("v2"), 200)]));
        edit(&|agenda| agenda.resume(&name("p")).unwrap());
        assert_eq!(reader.read().upgrades, [first]);

        let file = fs::read(plans.path(&name("p"))).unwrap();
        fs::write(plans.path(&name("p")), [&file[..], b" "].concat()).unwrap();
        let changed = reader.read();
        assert!(changed.upgrades.is_empty() && changed.problems[0].contains("has changed"), "{changed:?}");
        fs::write(plans.path(&name("p")), &file).unwrap();
        assert_eq!(reader.read().upgrades.len(), 1);
        plan.add("v1:100".parse().unwrap());
        activate(&plan);
        let heights: Vec<u64> = reader.read().upgrades.iter().map(|upgrade| upgrade.height).collect();
        assert_eq!(heights, [100, 200]);
    }

    #[test]
    fn the_file_of_a_plan_is_read_again_when_anything_about_it_has_changed() {
        let (_dir, home) = home();
        let plans = Plans::new(home.plans());
        plans.create(&Plan::new(name("p"), "")).unwrap();
        // Only a reader of the file sees that it has another digest.
        let sha256 = Digest::sha256(b"before");
        let active = ActivePlan { name: name("p"), sha256, paused: false };
        let now = SystemTime::now() + Duration::from_secs(4);
        let stamp = Some(Stamp::of(&plans.path(&name("p"))).unwrap());
        let mut known = [Known { name: name("p"), sha256, upgrades: Vec::new(), stamp }];
        assert_eq!(follow(&plans, &active, &known, now).unwrap().stamp, stamp);
        // A change as young as this one might be followed by another that leaves the same times.
        follow(&plans, &active, &known, SystemTime::now()).unwrap_err();
        fs::File::open(plans.path(&name("p"))).unwrap().set_modified(now).unwrap();
        follow(&plans, &active, &known, now).unwrap_err();
        known[0].stamp = None;
        follow(&plans, &active, &known, now).unwrap_err();
    }

    #[test]
    fn an_upgrade_is_described_by_all_its_sources() {
        let (_dir, home) = home();
        fs::create_dir_all(home.data()).unwrap();
        Agenda::edit(&home, |agenda| agenda.schedule("v2:200".parse().unwrap())).unwrap();
        let write = |text: &str| fs::write(home.trigger(), text).unwrap();
        write(r#"{"name":"v2","height":200,"fork_height":300}"#);
        let upgrade = Planned::read(&home).upgrade(&name("v2")).unwrap().unwrap();
        assert_eq!((upgrade.fork_height, &upgrade.origin), (Some(300), &Origin::TriggerFile));
        assert_eq!(Planned::read(&home).upgrade(&name("v3")).unwrap(), None);
        write(r#"{"name":"v2","height":201}"#);
        let refused = Planned::read(&home).upgrade(&name("v2")).unwrap_err().to_string();
        assert!(refused.contains("they disagree on the height"), "{refused}");
    }
}
