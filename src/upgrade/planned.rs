//! The view of all that is planned as the watcher keeps it: what [`gather_with`] finds, reading after reading.

use super::agenda::{Agenda, gather_with};
use super::trigger;
use crate::home::Home;
use crate::machine::Upgrade;
use crate::name::Name;

/// The result of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// The upgrades of the sources, each for itself.
    pub upgrades: Vec<Upgrade>,
    /// The upgrades of paused plans, by name and height.
    pub held: Vec<(Name, u64)>,
    /// The upgrades that must not happen, by name and height.
    pub cancelled: Vec<(Name, u64)>,
    /// The sources that could not be read, one line each.
    pub problems: Vec<String>,
}

impl Planned {
    /// The heights at which anybody plans an upgrade of this name, though the plan may be paused.
    #[must_use]
    pub fn heights(&self, name: &Name) -> Vec<u64> {
        let planned = self.upgrades.iter().map(|u| (&u.name, u.height));
        let held = self.held.iter().map(|(name, height)| (name, *height));
        planned.chain(held).filter(|(known, _)| *known == name).map(|(_, height)| height).collect()
    }

    /// Whether an upgrade of this name is to happen.
    #[must_use]
    pub fn has(&self, name: &Name) -> bool {
        self.upgrades.iter().any(|u| u.name == *name)
    }
}

/// Reads again and again, and remembers what the trigger file said while it is being rewritten, and what the
/// operator had decided should that file be damaged.
#[derive(Debug)]
pub struct Reader {
    home: Home,
    trigger: Option<Upgrade>,
    agenda: Option<Agenda>,
}

impl Reader {
    /// A reader of what is planned for this home.
    #[must_use]
    pub fn new(home: &Home) -> Self {
        Reader { home: home.clone(), trigger: None, agenda: None }
    }

    /// Reads everything now. What cannot be read is a problem, never an error.
    pub fn read(&mut self) -> Planned {
        let mut problems = Vec::new();
        match trigger::read(&self.home.trigger()) {
            Ok(found) => self.trigger = found,
            // Half-written, perhaps: what it said before holds until it says something else, or is gone.
            Err(e) => problems.push(e.to_string()),
        }
        match Agenda::load(&self.home) {
            Ok(agenda) => self.agenda = Some(agenda),
            // It is damaged: what was read before are still the operator's decisions.
            Err(e) => problems.push(e.to_string()),
        }
        // Without them nothing is planned: an upgrade that was cancelled might begin.
        let Some(agenda) = self.agenda.clone() else { return Planned { problems, ..Planned::default() } };
        let gathered = gather_with(&self.home, agenda, self.trigger.clone());
        problems.extend(gathered.troubles.iter().map(|(_, e)| e.to_string()));
        let cancelled = gathered.agenda.cancelled();
        Planned { cancelled, upgrades: gathered.planned, held: gathered.held, problems }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_schedule_that_is_damaged_meanwhile_still_says_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
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
}
