//! The directory of plans: `plans/<name>.json`, one file per plan.
//!
//! Files are written durably and changed under a lock, so that two commands at once lose nothing. A file
//! that another user could have written is not read: whoever writes a plan decides what is executed.

use super::plan::Plan;
use super::report::Report;
use super::validate::{Context, validate_json};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result};
use crate::home::{durable, regular, trust};
use crate::name::Name;
use crate::sorted;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

/// Larger than a plan of 10,000 upgrades with everything said about each.
const MAX_FILE: u64 = 16 << 20;

/// The directory of plans.
#[derive(Debug, Clone)]
pub struct Plans {
    dir: PathBuf,
}

/// A plan as it stands on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The plan.
    pub plan: Plan,
    /// The SHA-256 of its file, by which an activation knows it again.
    pub sha256: Digest,
}

impl Plans {
    /// The plans in a directory, which need not exist yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Plans { dir: dir.into() }
    }

    /// The file of a plan.
    #[must_use]
    pub fn path(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Saves a new plan; returns the digest of its file.
    ///
    /// # Errors
    /// [`Kind::Failed`] if there is one of that name; else if writing fails.
    pub fn create(&self, plan: &Plan) -> Result<Digest> {
        let _lock = self.lock()?;
        let path = self.path(&plan.name);
        if fs::symlink_metadata(&path).is_ok() {
            let hint = format!("remove it first: wemixvisor plan remove {}", plan.name);
            return Err(Error::new(Kind::Failed, "create plan: it exists already")
                .at(path.display())
                .hint(hint));
        }
        self.write(plan)
    }

    /// Saves a plan in place of the one of that name; returns the digest of its file.
    ///
    /// # Errors
    /// If writing fails; the old one is untouched then.
    pub fn save(&self, plan: &Plan) -> Result<Digest> {
        let _lock = self.lock()?;
        self.write(plan)
    }

    /// Changes a plan, alone among processes.
    ///
    /// # Errors
    /// Those of [`Plans::load`], of `change`, and of writing; nothing is changed then.
    pub fn edit(&self, name: &Name, change: impl FnOnce(&mut Plan) -> Result<()>) -> Result<Stored> {
        let _lock = self.lock()?;
        let mut stored = self.load(name)?;
        change(&mut stored.plan)?;
        stored.sha256 = self.write(&stored.plan)?;
        Ok(stored)
    }

    /// Reads a plan. It may make no sense yet; see [`validate`](super::validate).
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none; [`Kind::Permission`] if others than its owner may write it or
    /// it belongs to another user; [`Kind::BadInput`] with every problem if it is no plan.
    pub fn load(&self, name: &Name) -> Result<Stored> {
        let path = self.path(name);
        named(name, &path, &slurp(&self.open(name)?, &path)?).map(|(stored, _)| stored)
    }

    /// Reads the file of a plan, whatever is in it.
    ///
    /// # Errors
    /// Those of [`Plans::load`], but for what the text means.
    pub fn text(&self, name: &Name) -> Result<Vec<u8>> {
        slurp(&self.open(name)?, &self.path(name))
    }

    /// Reads a plan that was activated.
    ///
    /// # Errors
    /// Those of [`Plans::load`]; [`Kind::Verification`] if the file is not the one that was activated;
    /// [`Kind::BadInput`] if it is, but makes no sense.
    pub fn follow(&self, name: &Name, activated: &Digest) -> Result<Plan> {
        let path = self.path(name);
        // A file that was not activated is not read: it may be anything.
        let mut file = self.unchanged(name, activated)?;
        file.rewind().map_err(|e| Error::io("read plan", &path, e))?;
        let (stored, report) = named(name, &path, &slurp(&file, &path)?)?;
        if stored.sha256 != *activated {
            return Err(has_changed(name, &path));
        }
        if report.is_valid() {
            Ok(stored.plan)
        } else {
            Err(Error::new(Kind::BadInput, "follow plan").at(path.display()).because(report))
        }
    }

    /// Makes sure that the file of a plan is the one with this digest, however large it is, and returns it.
    ///
    /// # Errors
    /// [`Kind::Verification`] if it is another; else those of [`Plans::load`] but for its content.
    pub fn unchanged(&self, name: &Name, sha256: &Digest) -> Result<File> {
        let path = self.path(name);
        let file = self.open(name)?;
        let found = Digest::of_reader(Algorithm::Sha256, (&file).take(MAX_FILE + 1));
        match found.map_err(|e| Error::io("read plan", &path, e))? {
            found if found == *sha256 => Ok(file),
            _ => Err(has_changed(name, &path)),
        }
    }

    /// Every plan, by name, each with what came of reading it.
    ///
    /// # Errors
    /// If the directory cannot be read. One that does not exist has no plans.
    pub fn list(&self) -> Result<Vec<(Name, Result<Stored>)>> {
        let failed = |e| Error::io("list", &self.dir, e);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            // A file with another name is not a plan: ours are made from names.
            names.extend(file.to_str().and_then(|f| f.strip_suffix(".json")).and_then(|n| n.parse().ok()));
        }
        sorted::sort(&mut names);
        Ok(names.into_iter().map(|name: Name| (name.clone(), self.load(&name))).collect())
    }

    /// Removes a plan.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none; else if removing fails.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.path(name);
        if fs::symlink_metadata(&path).is_err() {
            return Err(Error::new(Kind::NotFound, format!("there is no plan {name}")).at(path.display()));
        }
        durable::remove(&path)
    }

    /// Opens the file of a plan, if no other user can have written it.
    fn open(&self, name: &Name) -> Result<File> {
        let path = self.path(name);
        let (file, meta) = open(&path).map_err(|e| missing(e, name, &path))?;
        guard(&path, &meta)?;
        Ok(file)
    }

    fn write(&self, plan: &Plan) -> Result<Digest> {
        let json = plan.to_json();
        durable::put(&self.path(&plan.name), json.as_bytes(), 0o600)?;
        Ok(Digest::sha256(json.as_bytes()))
    }

    /// Held for the few milliseconds that a change takes, so waiting for it needs no limit.
    fn lock(&self) -> Result<File> {
        durable::mkdir(&self.dir)?;
        let path = self.dir.join(".lock");
        let file = regular::open_own(&path).map_err(|e| Error::io("open", &path, e))?;
        file.lock().map_err(|e| Error::io("lock", &path, e))?;
        Ok(file)
    }
}

/// Reads a plan from any file, whoever owns it, to look at it or to make a plan of it.
///
/// # Errors
/// [`Kind::BadInput`] with every problem if it is no plan; else if reading fails.
pub fn read_file(path: &Path) -> Result<Stored> {
    understand(path, &slurp(&open(path)?.0, path)?).map(|(stored, _)| stored)
}

/// Reads the text of such a file, whatever is in it.
///
/// # Errors
/// If it is no regular file, or reading fails.
pub fn read_text(path: &Path) -> Result<Vec<u8>> {
    slurp(&open(path)?.0, path)
}

/// A plan whose file is missing is one that does not exist.
fn missing(err: Error, name: &Name, path: &Path) -> Error {
    match err.os().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => {
            let hint = "see which there are: wemixvisor plan list";
            Error::new(Kind::NotFound, format!("there is no plan {name}")).at(path.display()).hint(hint)
        }
        _ => err,
    }
}

fn has_changed(name: &Name, path: &Path) -> Error {
    Error::new(Kind::Verification, "the plan has changed since it was activated")
        .at(path.display())
        .hint(format!("activate it as it is now: wemixvisor plan execute {name}"))
}

/// The plan in a file that is to have this name, and what is wrong with it.
fn named(name: &Name, path: &Path, bytes: &[u8]) -> Result<(Stored, Report)> {
    let (stored, report) = understand(path, bytes)?;
    if stored.plan.name == *name {
        return Ok((stored, report));
    }
    let what = format!("/name: the plan calls itself {}", stored.plan.name);
    let hint = "give file and plan the same name";
    Err(Error::new(Kind::BadInput, "read plan").at(path.display()).because(what).hint(hint))
}

fn understand(path: &Path, bytes: &[u8]) -> Result<(Stored, Report)> {
    match validate_json(bytes, &Context::default()) {
        (Some(plan), report) => Ok((Stored { plan, sha256: Digest::sha256(bytes) }, report)),
        (None, report) => Err(Error::new(Kind::BadInput, "read plan").at(path.display()).because(report)),
    }
}

fn open(path: &Path) -> Result<(File, fs::Metadata)> {
    regular::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidInput => Error::new(Kind::BadInput, "read plan").at(path.display()).because(e),
        _ => Error::io("open plan", path, e),
    })
}

fn slurp(file: &File, path: &Path) -> Result<Vec<u8>> {
    regular::read_open(file, MAX_FILE).map_err(|e| match e.kind() {
        io::ErrorKind::FileTooLarge => Error::new(Kind::BadInput, "read plan").at(path.display()).because(e),
        _ => Error::io("read plan", path, e),
    })
}

/// Refuses a file that another user could have written.
fn guard(path: &Path, meta: &fs::Metadata) -> Result<()> {
    match trust::fault(meta, path.parent().unwrap_or(path)) {
        Some((what, hint)) => {
            Err(Error::new(Kind::Permission, "read plan").at(path.display()).because(what).hint(hint))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::name;
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    fn plans() -> (tempfile::TempDir, Plans) {
        let dir = tempfile::tempdir().unwrap();
        let plans = Plans::new(dir.path().join("plans"));
        (dir, plans)
    }

    fn plan(called: &str) -> Plan {
        let mut plan = Plan::new(name(called), "for a test");
        plan.add("v2:200".parse().unwrap());
        plan
    }

    #[test]
    fn what_is_saved_is_loaded_with_the_same_digest() {
        let (_dir, plans) = plans();
        // The time at which it was made is in it.
        let plan = plan("p");
        let saved = Stored { sha256: plans.create(&plan).unwrap(), plan };
        assert_eq!(plans.load(&name("p")).unwrap(), saved);
        assert_eq!(plans.follow(&name("p"), &saved.sha256).unwrap(), saved.plan);
        assert_eq!(read_file(&plans.path(&name("p"))).unwrap(), saved);
    }

    #[test]
    fn create_never_replaces_and_save_does() {
        let (_dir, plans) = plans();
        plans.create(&plan("p")).unwrap();
        let refusal = plans.create(&plan("p")).unwrap_err().to_string();
        assert!(refusal.ends_with("remove it first: wemixvisor plan remove p"), "{refusal}");
        let mut other = plan("p");
        other.description = "other".into();
        plans.save(&other).unwrap();
        assert_eq!(plans.load(&name("p")).unwrap().plan, other);
    }

    #[test]
    fn edits_at_the_same_time_lose_nothing_and_a_failed_one_changes_nothing() {
        let (_dir, plans) = plans();
        plans.create(&plan("p")).unwrap();
        std::thread::scope(|scope| {
            for n in 1..=8u64 {
                let plans = &plans;
                scope.spawn(move || {
                    let add = |plan: &mut Plan| {
                        plan.add(format!("w{n}:{}", 1000 + n).parse().unwrap());
                        Ok(())
                    };
                    plans.edit(&name("p"), add).unwrap();
                });
            }
        });
        let before = plans.load(&name("p")).unwrap();
        assert_eq!(before.plan.upgrades.len(), 9);
        let failing = |plan: &mut Plan| {
            plan.upgrades.clear();
            Err(Error::new(Kind::Failed, "no"))
        };
        plans.edit(&name("p"), failing).unwrap_err();
        assert_eq!(plans.load(&name("p")).unwrap(), before);
    }

    #[test]
    fn a_plan_that_changed_after_activation_is_not_followed() {
        let (_dir, plans) = plans();
        let activated = plans.create(&plan("p")).unwrap();
        fs::write(plans.path(&name("p")), plans.load(&name("p")).unwrap().plan.to_json() + " ").unwrap();
        let refusal = plans.follow(&name("p"), &activated).unwrap_err();
        assert_eq!(refusal.kind(), Kind::Verification);
        assert!(refusal.to_string().ends_with("wemixvisor plan execute p"), "{refusal}");
    }

    #[test]
    fn what_was_not_activated_is_not_taken_into_memory() {
        let (_dir, plans) = plans();
        let activated = plans.create(&plan("p")).unwrap();
        let file = File::create(plans.path(&name("p"))).unwrap();
        file.set_len(MAX_FILE + 2).unwrap();
        for refusal in [
            plans.follow(&name("p"), &activated).unwrap_err(),
            plans.unchanged(&name("p"), &activated).unwrap_err(),
        ] {
            assert_eq!(refusal.kind(), Kind::Verification, "{refusal}");
        }
        assert_eq!(plans.load(&name("p")).unwrap_err().kind(), Kind::BadInput);
    }

    #[test]
    fn a_plan_without_upgrades_can_be_edited_but_not_followed() {
        let (_dir, plans) = plans();
        let empty = plans.create(&Plan::new(name("p"), "")).unwrap();
        let refusal = plans.follow(&name("p"), &empty).unwrap_err();
        assert!(refusal.to_string().contains("/upgrades: there is no upgrade in it"), "{refusal}");
    }

    #[test]
    fn a_plan_that_others_may_write_is_not_read() {
        let (_dir, plans) = plans();
        plans.create(&plan("p")).unwrap();
        let path = plans.path(&name("p"));
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(plans.load(&name("p")).unwrap_err().kind(), Kind::Permission);
            read_file(&path).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        plans.load(&name("p")).unwrap();
    }

    #[test]
    fn every_problem_of_a_file_that_is_no_plan_is_in_the_error() {
        let (_dir, plans) = plans();
        plans.create(&plan("p")).unwrap();
        let path = plans.path(&name("p"));
        let bad = json!({"version": "1.0", "name": "p", "upgrades": [{"name": "", "height": "0x5"}]});
        fs::write(&path, bad.to_string()).unwrap();
        let error = plans.load(&name("p")).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        let text = error.to_string();
        assert!(text.contains("/upgrades/0/name: ") && text.contains("/upgrades/0/height: "), "{text}");
    }

    #[test]
    fn what_is_missing_misnamed_or_no_file_is_told_apart() {
        let (_dir, plans) = plans();
        assert_eq!(plans.list().unwrap().len(), 0);
        assert_eq!(plans.load(&name("p")).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(plans.remove(&name("p")).unwrap_err().kind(), Kind::NotFound);
        plans.create(&plan("p")).unwrap();
        fs::copy(plans.path(&name("p")), plans.path(&name("q"))).unwrap();
        assert!(plans.load(&name("q")).unwrap_err().to_string().contains("the plan calls itself p"));
        fs::create_dir(plans.path(&name("r"))).unwrap();
        assert!(plans.load(&name("r")).unwrap_err().to_string().contains("not a regular file"));
        fs::write(plans.path(&name("p")).with_file_name("..json"), "").unwrap();
        let listed: Vec<_> = plans
            .list()
            .unwrap()
            .into_iter()
            .map(|(name, stored)| (name.to_string(), stored.is_ok()))
            .collect();
        assert_eq!(listed, [("p".into(), true), ("q".into(), false), ("r".into(), false)]);
        plans.remove(&name("p")).unwrap();
        assert_eq!(plans.load(&name("p")).unwrap_err().kind(), Kind::NotFound);
        std::os::unix::fs::symlink("nowhere", plans.path(&name("p"))).unwrap();
        assert_eq!(plans.load(&name("p")).unwrap_err().kind(), Kind::NotFound);
        plans.remove(&name("p")).unwrap();
        plans.create(&plan("p")).unwrap();
    }
}
