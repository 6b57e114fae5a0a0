//! `state/schedule.json`: what the operator has decided, as opposed to what plans and node say.
//!
//! Upgrades scheduled by hand, upgrades cancelled, and which plans are active and with which content.
//! Commands change it under a lock of its own, so that they work whether or not a supervisor runs.
//! Merging all sources is the business of [`machine::merge`](crate::machine::merge).
//!
//! The file is one JSON object whose first member is the CRC-32 of all bytes behind its eight digits. A wrong
//! checksum, an unknown key and any other deviation are errors: a flipped bit in a key must not
//! lose an upgrade that the operator has scheduled, or bring one back that was cancelled.
//!
//! ```text
//! {"crc32":"1a2b3c4d",
//!   "version": 1,
//!   "upgrades": [ … ]
//! }
//! ```

use super::entry::Entry;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::binary::open_regular;
use crate::home::lock::lock_within;
use crate::home::regular;
use crate::home::slots::crc32;
use crate::home::{Home, durable};
use crate::machine::{Origin, Upgrade};
use crate::name::Name;
use crate::sorted::{self, Set};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

/// Upper bound on the size of the file; no schedule comes near it.
const LIMIT: u64 = 16 * 1024 * 1024;
/// The text before and behind the digits of the checksum.
const HEAD: &str = "{\"crc32\":\"";
const SEPARATOR: &str = "\",";
/// How long a command waits while another one changes the schedule, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);

/// The operator's decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agenda {
    version: u32,
    /// Upgrades scheduled by hand.
    #[serde(default)]
    upgrades: Vec<Entry>,
    /// Upgrades that must not happen, whoever plans them.
    #[serde(default)]
    cancelled: Vec<Cancelled>,
    #[serde(default)]
    plans: Vec<ActivePlan>,
    /// Upgrades on hold, from whatever source they are planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    on_hold: Vec<Name>,
}

/// The member that every version has.
#[derive(Deserialize)]
struct Stamp {
    version: u32,
}

/// An upgrade that must not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancelled {
    name: Name,
    height: u64,
}

/// A plan that was activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivePlan {
    /// The plan.
    pub name: Name,
    /// The digest of the file that was activated. Another file of that name is not followed.
    pub sha256: Digest,
    /// Whether its upgrades are held back for now.
    #[serde(default)]
    pub paused: bool,
}

impl Default for Agenda {
    fn default() -> Self {
        Agenda {
            version: Agenda::VERSION,
            upgrades: Vec::new(),
            cancelled: Vec::new(),
            plans: Vec::new(),
            on_hold: Vec::new(),
        }
    }
}

impl Agenda {
    const VERSION: u32 = 1;

    /// The decisions; none, if there is no file yet.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if the file is damaged or cannot be understood. It must not be taken for an empty one:
    /// an upgrade that was cancelled might begin, and one that was scheduled might not.
    pub fn load(home: &Home) -> Result<Agenda> {
        let path = home.schedule();
        let file = match open_regular(&path) {
            Ok(file) => file,
            Err(e) if e.os().is_some_and(|os| os.kind() == io::ErrorKind::NotFound) => {
                return Ok(Agenda::default());
            }
            Err(e) => return Err(e),
        };
        let bad = |why: String| {
            Error::new(Kind::BadInput, "read schedule")
                .at(path.display())
                .because(why)
                .hint(
                    "it cannot be edited by hand: move it away and make it anew with `wemixvisor upgrade schedule`, \
                     `upgrade cancel` and `plan execute`",
                )
        };
        let bytes = regular::read_open(&file, LIMIT).map_err(|e| match e.kind() {
            io::ErrorKind::FileTooLarge => bad(e.to_string()),
            _ => Error::io("read", &path, e),
        })?;
        Agenda::decode(&bytes).map_err(bad)
    }

    fn decode(bytes: &[u8]) -> Result<Agenda, String> {
        let sum_and_rest = bytes.strip_prefix(HEAD.as_bytes()).and_then(|b| b.split_at_checked(8));
        let Some((sum, rest)) = sum_and_rest else { return Err("it has no checksum".to_owned()) };
        let body = rest.strip_prefix(SEPARATOR.as_bytes()).map(|members| [b"{", members].concat());
        let agenda =
            body.ok_or_else(|| "its first line is damaged".to_owned()).and_then(|b| Agenda::parse(&b));
        match agenda {
            agenda if *sum == crc32(rest) => agenda,
            Ok(_) => Err("its checksum is wrong".to_owned()),
            Err(why) => Err(format!("its checksum is wrong: {why}")),
        }
    }

    fn parse(json: &[u8]) -> Result<Agenda, String> {
        let stamp: Stamp = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if stamp.version != Agenda::VERSION {
            let known = Agenda::VERSION;
            return Err(format!(
                "version {} is from another wemixvisor, this one knows {known}",
                stamp.version
            ));
        }
        let agenda: Agenda = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        // A plan keeps the fields that it does not know; here there are none.
        for entry in &agenda.upgrades {
            if let Some((key, _)) = entry.rest.iter().next() {
                return Err(format!("unknown field `{key}` in upgrade {}", entry.name));
            }
        }
        Ok(agenda)
    }

    fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec_pretty(self).expect("every key of an agenda is a string");
        let rest = [SEPARATOR.as_bytes(), &body[1..], b"\n"].concat();
        [HEAD.as_bytes(), &crc32(&rest), &rest].concat()
    }

    /// Changes what was decided, alone among processes, and makes it durable.
    ///
    /// # Errors
    /// The error of `change`, or a failure to read or write; nothing is changed then.
    pub fn edit<T>(home: &Home, change: impl FnOnce(&mut Agenda) -> Result<T>) -> Result<T> {
        Agenda::edit_within(PATIENCE, home, change)
    }

    /// The same for whoever cannot wait as long while another process edits, or was stopped while it did.
    ///
    /// # Errors
    /// As [`Agenda::edit`].
    pub fn edit_within<T>(
        patience: Duration,
        home: &Home,
        change: impl FnOnce(&mut Agenda) -> Result<T>,
    ) -> Result<T> {
        let path = home.schedule_lock();
        durable::mkdir(&home.state())?;
        let lock = regular::open_own(&path).map_err(|e| Error::io("open", &path, e))?;
        if !lock_within(patience, &lock, &path)? {
            return Err(Error::new(Kind::Failed, "another command is changing the schedule")
                .at(path.display())
                .hint("try again; if that does not help, find the wemixvisor command that hangs"));
        }
        let before = Agenda::load(home)?;
        let mut agenda = before.clone();
        let result = change(&mut agenda)?;
        if agenda != before {
            durable::put(&home.schedule(), &agenda.encode(), 0o600)?;
        } else {
            // A command that was killed before its sync may have changed it.
            durable::sync_dir(&home.state())?;
        }
        Ok(result)
    }

    /// The upgrades scheduled by hand.
    #[must_use]
    pub fn by_hand(&self) -> Vec<Upgrade> {
        self.upgrades.iter().map(|entry| entry.clone().upgrade(Origin::Schedule)).collect()
    }

    /// The upgrades that must not happen.
    #[must_use]
    pub fn cancelled(&self) -> Vec<(Name, u64)> {
        self.cancelled.iter().map(|c| (c.name.clone(), c.height)).collect()
    }

    /// The plans that were activated, in that order; paused ones among them.
    #[must_use]
    pub fn plans(&self) -> &[ActivePlan] {
        &self.plans
    }

    /// The activation of a plan, if it is active.
    #[must_use]
    pub fn plan(&self, name: &Name) -> Option<&ActivePlan> {
        self.plans.iter().find(|plan| plan.name == *name)
    }

    /// Schedules an upgrade. One that was cancelled at this height is wanted again.
    ///
    /// # Errors
    /// [`Kind::Failed`] if it is scheduled already, and differently.
    pub fn schedule(&mut self, entry: Entry) -> Result<()> {
        match self.upgrades.iter().find(|known| known.name == entry.name) {
            Some(known) if *known == entry => {}
            Some(known) => {
                let what = format!("{} is scheduled already, at {}", known.name, known.height);
                let hint = format!("cancel it first: wemixvisor upgrade cancel {}", known.name);
                return Err(Error::new(Kind::Failed, what).hint(hint));
            }
            None => self.upgrades.push(entry.clone()),
        }
        self.cancelled.retain(|c| c.name != entry.name || c.height != entry.height);
        sorted::by_key(&mut self.upgrades, |known| known.height);
        Ok(())
    }

    /// Cancels an upgrade: what is scheduled by hand, and what others plan at `heights`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if no such upgrade is planned.
    pub fn cancel(&mut self, name: &Name, heights: &[u64]) -> Result<()> {
        let by_hand = self.upgrades.iter().filter(|entry| entry.name == *name).map(|entry| entry.height);
        let all = by_hand.chain(heights.iter().copied()).collect::<Set<u64>>().into_vec();
        if all.is_empty() {
            let hint = "see what is planned: wemixvisor upgrade list";
            return Err(Error::new(Kind::NotFound, format!("no upgrade {name} is planned")).hint(hint));
        }
        self.upgrades.retain(|entry| entry.name != *name);
        self.on_hold.retain(|held| held != name);
        for height in all {
            if !self.cancelled.iter().any(|c| c.name == *name && c.height == height) {
                self.cancelled.push(Cancelled { name: name.clone(), height });
            }
        }
        Ok(())
    }

    /// Whether the operator holds an upgrade of this name back.
    #[must_use]
    pub fn is_on_hold(&self, name: &Name) -> bool {
        self.on_hold.contains(name)
    }

    /// Puts an upgrade on hold, from whatever source and at whatever height it is planned.
    pub fn hold(&mut self, name: &Name) {
        if !self.on_hold.contains(name) {
            self.on_hold.push(name.clone());
        }
    }

    /// Lets an upgrade happen that was on hold.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not.
    pub fn release(&mut self, name: &Name) -> Result<()> {
        if !self.on_hold.contains(name) {
            return Err(Error::new(Kind::NotFound, format!("upgrade {name} is not on hold")));
        }
        self.on_hold.retain(|held| held != name);
        Ok(())
    }

    /// Activates a plan with the content of this digest; activated again, it is no longer paused.
    pub fn activate(&mut self, name: &Name, sha256: Digest) {
        match self.plans.iter_mut().find(|plan| plan.name == *name) {
            Some(plan) => {
                plan.sha256 = sha256;
                plan.paused = false;
            }
            None => {
                self.plans.push(ActivePlan { name: name.clone(), sha256, paused: false });
            }
        }
    }

    /// Holds the upgrades of a plan back.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not active.
    pub fn pause(&mut self, name: &Name) -> Result<()> {
        self.active(name)?.paused = true;
        Ok(())
    }

    /// Lets a paused plan go on.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not active.
    pub fn resume(&mut self, name: &Name) -> Result<()> {
        self.active(name)?.paused = false;
        Ok(())
    }

    /// Forgets the activation of a plan; says whether it was active.
    pub fn deactivate(&mut self, name: &Name) -> bool {
        let before = self.plans.len();
        self.plans.retain(|plan| plan.name != *name);
        self.plans.len() < before
    }

    fn active(&mut self, name: &Name) -> Result<&mut ActivePlan> {
        self.plans.iter_mut().find(|plan| plan.name == *name).ok_or_else(|| {
            let hint = format!("activate it: wemixvisor plan execute {name}");
            Error::new(Kind::NotFound, format!("plan {name} is not active")).hint(hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Planned;
    use super::super::tests::{home, name};
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn schedule(home: &Home, text: &str) -> Result<()> {
        Agenda::edit(home, |agenda| agenda.schedule(text.parse().unwrap()))
    }

    fn by_hand(home: &Home) -> Vec<String> {
        let upgrades = Agenda::load(home).unwrap().by_hand();
        upgrades.iter().map(|u| format!("{}:{}", u.name, u.height)).collect()
    }

    #[test]
    fn scheduling_is_durable_ordered_and_idempotent() {
        let (_dir, home) = home();
        assert_eq!(Agenda::load(&home).unwrap(), Agenda::default());
        for text in ["v3:300", "v2:200", "v3:300"] {
            schedule(&home, text).unwrap();
        }
        assert_eq!(by_hand(&home), ["v2:200", "v3:300"]);
        let mode = fs::metadata(home.schedule()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_different_upgrade_of_the_same_name_is_refused_and_changes_nothing() {
        let (_dir, home) = home();
        schedule(&home, "v2:200").unwrap();
        let refusal = schedule(&home, "v2:250").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "v2 is scheduled already, at 200; cancel it first: wemixvisor upgrade cancel v2"
        );
        assert_eq!(by_hand(&home), ["v2:200"]);
    }

    #[test]
    fn what_is_cancelled_is_so_for_every_planner_until_scheduled_again() {
        let (_dir, home) = home();
        schedule(&home, "v2:200").unwrap();
        Agenda::edit(&home, |agenda| agenda.cancel(&name("v2"), &[200, 250])).unwrap();
        Agenda::edit(&home, |agenda| agenda.cancel(&name("v2"), &[250])).unwrap();
        assert_eq!(by_hand(&home), [""; 0]);
        let cancelled = || Agenda::load(&home).unwrap().cancelled();
        assert_eq!(cancelled(), [(name("v2"), 200), (name("v2"), 250)]);
        schedule(&home, "v2:250").unwrap();
        assert_eq!(cancelled(), [(name("v2"), 200)]);
        let unknown = Agenda::edit(&home, |agenda| agenda.cancel(&name("v9"), &[])).unwrap_err();
        assert_eq!(unknown.kind(), Kind::NotFound);
    }

    #[test]
    fn an_upgrade_on_hold_stays_planned_and_is_marked_until_it_is_released_or_cancelled() {
        let (_dir, home) = home();
        schedule(&home, "v2:200").unwrap();
        let hold = || {
            Agenda::edit(&home, |agenda| {
                agenda.hold(&name("v2"));
                Ok(())
            })
            .unwrap()
        };
        let release = || Agenda::edit(&home, |agenda| agenda.release(&name("v2")));
        let marks = || Planned::read(&home).upgrades.iter().map(|u| u.on_hold).collect::<Vec<_>>();
        assert_eq!(release().unwrap_err().kind(), Kind::NotFound);
        hold();
        hold();
        assert_eq!(marks(), [true]);
        release().unwrap();
        assert_eq!(marks(), [false]);
        hold();
        Agenda::edit(&home, |agenda| agenda.cancel(&name("v2"), &[])).unwrap();
        schedule(&home, "v2:200").unwrap();
        assert_eq!(marks(), [false]);
    }

    #[test]
    fn plans_are_activated_paused_resumed_and_forgotten() {
        let (_dir, home) = home();
        let p = name("p");
        let activate = |digest| {
            Agenda::edit(&home, |a| {
                a.activate(&p, digest);
                Ok(())
            })
        };
        let edit = |change: &dyn Fn(&mut Agenda) -> Result<()>| Agenda::edit(&home, |a| change(a));
        assert_eq!(edit(&|a| a.pause(&p)).unwrap_err().kind(), Kind::NotFound);
        let (old, new) = (Digest::sha256(b"old"), Digest::sha256(b"new"));
        let state = || Agenda::load(&home).unwrap().plan(&p).map(|plan| (plan.sha256, plan.paused));
        activate(old).unwrap();
        edit(&|a| a.pause(&p)).unwrap();
        assert_eq!(state(), Some((old, true)));
        edit(&|a| a.resume(&p)).unwrap();
        assert_eq!(state(), Some((old, false)));
        edit(&|a| a.pause(&p)).unwrap();
        activate(new).unwrap();
        assert_eq!(state(), Some((new, false)));
        assert!(Agenda::edit(&home, |a| Ok(a.deactivate(&p))).unwrap());
        assert!(!Agenda::edit(&home, |a| Ok(a.deactivate(&p))).unwrap());
        assert_eq!(state(), None);
    }

    /// Writes what is no agenda, with its right checksum.
    fn write_raw(home: &Home, json: &str) {
        durable::mkdir(&home.state()).unwrap();
        let rest = format!("{SEPARATOR}{}", &json[1..]);
        fs::write(home.schedule(), [HEAD.as_bytes(), &crc32(rest.as_bytes()), rest.as_bytes()].concat())
            .unwrap();
    }

    fn refusal(home: &Home) -> String {
        let before = fs::read(home.schedule()).unwrap();
        let refusal = Agenda::load(home).unwrap_err();
        assert_eq!(refusal.kind(), Kind::BadInput);
        schedule(home, "v2:200").unwrap_err();
        assert_eq!(fs::read(home.schedule()).unwrap(), before, "it is not overwritten");
        refusal.to_string()
    }

    #[test]
    fn a_key_that_is_not_known_is_named() {
        let (_dir, home) = home();
        let digest = Digest::sha256(b"p");
        let whole = json!({
            "version": 1,
            "upgrades": [{"name": "v2", "height": 200}],
            "cancelled": [{"name": "v1", "height": 100}],
            "plans": [{"name": "p", "sha256": digest, "paused": true}],
        });
        write_raw(&home, &whole.to_string());
        assert_eq!(by_hand(&home), ["v2:200"]);
        for place in ["", "/upgrades/0", "/cancelled/0", "/plans/0"] {
            let mut file = whole.clone();
            file.pointer_mut(place).unwrap()["ticket"] = json!(1);
            write_raw(&home, &file.to_string());
            let refusal = refusal(&home);
            assert!(refusal.contains("unknown field `ticket`"), "{refusal}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_an_error_and_never_an_empty_schedule() {
        let (_dir, home) = home();
        schedule(&home, "v2:200").unwrap();
        Agenda::edit(&home, |agenda| agenda.cancel(&name("v3"), &[300])).unwrap();
        let good = fs::read(home.schedule()).unwrap();
        let mut bytes = good.clone();
        for bit in 0..good.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Agenda::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..good.len() {
            assert!(Agenda::decode(&good[..len]).is_err(), "length {len}");
        }
        assert!(Agenda::decode(&[&good[..], b"\n"].concat()).is_err());
        Agenda::decode(&good).unwrap();
    }

    #[test]
    fn a_file_edited_by_hand_is_refused_with_the_way_to_make_it_anew() {
        let (_dir, home) = home();
        schedule(&home, "v2:200").unwrap();
        let text = fs::read_to_string(home.schedule()).unwrap();
        let plain: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(plain["upgrades"][0]["name"], "v2", "it is plain JSON for a reader");
        fs::write(home.schedule(), text.replace("200", "250")).unwrap();
        let edited = refusal(&home);
        assert!(edited.contains("its checksum is wrong; "), "{edited}");
        fs::write(home.schedule(), text.replace("upgrades", "upgradez")).unwrap();
        let flipped = refusal(&home);
        assert!(flipped.contains("checksum is wrong: unknown field `upgradez`"), "{flipped}");
        fs::write(home.schedule(), r#"{"version":1,"upgrades":[]}"#).unwrap();
        let without = refusal(&home);
        assert!(without.contains("it has no checksum"), "{without}");
        for refusal in [edited, flipped, without] {
            assert!(refusal.contains("move it away") && refusal.contains("upgrade schedule"), "{refusal}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_never_overwritten() {
        let (_dir, home) = home();
        durable::mkdir(&home.state()).unwrap();
        for bad in ["", "{", "[]"] {
            fs::write(home.schedule(), bad).unwrap();
            refusal(&home);
        }
        for (bad, part) in [
            (r#"{"version":2,"turns":[]}"#, "version 2 is from another wemixvisor"),
            (r#"{"version":1,"upgrades":[{"name":"../x","height":1}]}"#, "name"),
        ] {
            write_raw(&home, bad);
            let refusal = refusal(&home);
            assert!(refusal.contains(part), "{refusal}");
        }
    }

    #[test]
    fn edits_at_the_same_time_lose_nothing() {
        let (_dir, home) = home();
        std::thread::scope(|scope| {
            for n in 1..=8 {
                let home = &home;
                scope.spawn(move || schedule(home, &format!("v{n}:{n}")).unwrap());
            }
        });
        assert_eq!(by_hand(&home).len(), 8);
    }

    #[test]
    fn a_schedule_that_is_no_file_or_is_being_changed_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let now = || Agenda::edit_within(Duration::ZERO, &home, |agenda| agenda.cancel(&name("v2"), &[200]));
        now().unwrap();
        let lock = fs::File::open(home.schedule_lock()).unwrap();
        lock.lock().unwrap();
        assert!(now().unwrap_err().to_string().contains("another command"));
        drop(lock);
        now().unwrap();
        fs::remove_file(home.schedule()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, home.schedule(), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(Agenda::load(&home).unwrap_err().kind(), Kind::BadInput);
    }
}
