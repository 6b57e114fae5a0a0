//! `wemixvisor init --import`: adopts a home that another supervisor has laid out.
//!
//! A home of the Go wemixvisor has our layout and is adopted in place: manifests and the journal are added,
//! binaries stay where they are. A Cosmovisor home is copied from `cosmovisor/` to `wemixvisor/` in one step
//! and not changed, so its owner can go back. What `current` points at must be whole, or nothing is
//! adopted; anything else that is broken is reported. Its settings, its plans and its hook are taken over as far as they
//! mean something here, and what is not is reported as well ([`Gathered`]). The journal is written last: a home
//! without one does not run.

mod gather;
mod settings;
mod toml;

pub use gather::Gathered;

use super::init::{Report, init, lay_out};
use super::install;
use super::journal::Journal;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::lock::SupervisorLock;
use crate::home::regular::found;
use crate::home::tree::{ItemKind, walk};
use crate::home::{Home, Manifest, Verified, binary, durable};
use crate::machine::{Ended, Outcome, Record, Target, Version};
use crate::name::Name;
use crate::schedule::trigger;
use crate::sorted;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// The directory of Cosmovisor below its `DAEMON_HOME`.
const COSMOVISOR: &str = "cosmovisor";

/// Adopts the home, with what was gathered of its settings as its configuration file if it has none. A home that is
/// adopted already is checked as by [`init`].
///
/// # Errors
/// [`Kind::NotFound`] if there is nothing to adopt; [`Kind::Halted`] if `current` is broken; [`Kind::Busy`] if
/// a supervisor of ours runs. The home is then unchanged, or can be adopted again.
pub fn import(home: &Home, gathered: Gathered) -> Result<Report> {
    let foreign = foreign(home);
    if home.dir().is_dir() {
        if Journal::exists(home)? {
            return init(home, None, &gathered.config);
        }
        if foreign.is_dir() && is_bare(home) {
            let bare = Error::new(Kind::Failed, "there is a home already, without any version of the node");
            let hint = format!("to adopt {}, remove it first", foreign.display());
            return Err(bare.at(home.dir().display()).hint(hint));
        }
        return adopt(home, &home.dir(), gathered);
    }
    if foreign.is_dir() {
        return copy_and_adopt(home, &foreign, gathered);
    }
    Err(Error::new(Kind::NotFound, "nothing to import")
        .at(home.root().display())
        .hint("there is neither wemixvisor/ nor cosmovisor/; begin with `wemixvisor init BINARY`"))
}

fn foreign(home: &Home) -> PathBuf {
    home.root().join(COSMOVISOR)
}

/// The home of Cosmovisor that is there and was not adopted, where nothing of ours is.
pub fn unadopted(home: &Home) -> Option<PathBuf> {
    Some(foreign(home)).filter(|dir| dir.is_dir() && !home.dir().exists())
}

/// Whether a home was laid out, but never got a binary.
fn is_bare(home: &Home) -> bool {
    let has_genesis = fs::symlink_metadata(home.binary(&Target::Genesis)).is_ok();
    !has_genesis && install::staged(home).is_ok_and(|names| names.is_empty())
}

/// Builds the whole home beside its place and moves it there in one step.
fn copy_and_adopt(home: &Home, foreign: &Path, gathered: Gathered) -> Result<Report> {
    let place = durable::temp_beside(&home.dir());
    let copy = Home::new(&place, home.daemon())?.with_data(home.data()).with_backups(home.backups());
    let adopted = copy_versions(foreign, &copy.dir()).and_then(|mut left_out| {
        let mut report = adopt(&copy, foreign, gathered)?;
        durable::promote(&copy.dir(), &home.dir())?;
        report.lines.append(&mut left_out.lines);
        report.note(format!("{} is left as it was", foreign.display()));
        Ok(report)
    });
    // Empty if all went well, ours alone in any case.
    let _ = fs::remove_dir_all(&place);
    adopted
}

fn copy_versions(from: &Path, to: &Path) -> Result<Report> {
    let mut report = Report::default();
    durable::mkdir(to)?;
    let wanted = |path: &Path| {
        path.starts_with("genesis") || path.starts_with("upgrades") || path == Path::new("current")
    };
    for item in walk(from, &wanted)? {
        let (source, copy) = (from.join(&item.path), to.join(&item.path));
        match item.kind {
            ItemKind::Dir => durable::mkdir(&copy)?,
            ItemKind::File => {
                // This takes the mode along; what it wrote is synced when the tree is promoted.
                fs::copy(&source, &copy).doing(format!("copy {} to", source.display()), &copy)?;
            }
            ItemKind::Link if item.path == Path::new("current") => {
                let text = fs::read_link(&source).doing("read link", &source)?;
                durable::link(&text, &copy)?;
            }
            ItemKind::Link | ItemKind::Special => {
                report.note(format!("{} is not a file and was left out", source.display()))
            }
        }
    }
    Ok(report)
}

/// Adopts `home` in place. Its absolute link, if it has one, leads into `origin`.
fn adopt(home: &Home, origin: &Path, gathered: Gathered) -> Result<Report> {
    let mut report = Report::default();
    let target = read_foreign_current(home, origin)?;
    binary::open(&binary_in(origin, home, &target)).map_err(|e| match e.os().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => broken().because(e).hint(format!(
            "if {} is not the name of the binary, set DAEMON_NAME; nothing was changed",
            home.daemon()
        )),
        _ => broken().because(e),
    })?;
    let _lock = SupervisorLock::acquire(home)?;
    let is_new = fs::symlink_metadata(home.config()).is_err();
    lay_out(home, &gathered.config, &mut report)?;
    let manifest = examine(home, origin, &target)?;
    let manifest = adopt_binary(home, origin, &target, manifest)?;
    report.kept(&format!("{target}/bin/{}", home.daemon()), &manifest.sha256.to_string());
    let names = upgrade_names(home, &mut report)?;
    let others = names.iter().cloned().map(Target::Upgrade).chain([Target::Genesis]);
    for other in others.filter(|other| *other != target) {
        match examine(home, origin, &other) {
            // An error of ours fails the import: afterwards nothing would adopt this version any more.
            Ok(manifest) => {
                let manifest = adopt_binary(home, origin, &other, manifest)?;
                report.kept(&format!("{other}/bin/{}", home.daemon()), &manifest.sha256.to_string());
            }
            Err(e) => report.note(format!("{other} is not usable: {e}")),
        }
    }
    let mut record = Record::new(Version { target: target.clone(), sha256: manifest.sha256 });
    record.ended = applied(home, &target, &names, &mut report);
    for ended in record.ended.iter_mut().filter(|ended| ended.height == 0) {
        match gathered.height(&ended.name) {
            Some(height) => ended.height = height,
            None => report.note(format!("the height of {} is not on record: it is shown as 0", ended.name)),
        }
    }
    sorted::by_key(&mut record.ended, |ended| ended.height);
    gathered.write(home, &record.ended, is_new, &mut report)?;
    if fs::read_link(home.current()).is_ok_and(|text| text == Path::new(&target.to_string())) {
        report.kept("current", &target.to_string());
    } else {
        durable::link(Path::new(&target.to_string()), &home.current())?;
        report.made("current", &target.to_string());
    }
    Journal::create(home, &record)?;
    report.made("state/journal", "a new journal");
    Ok(report)
}

/// The target of `current`. Others write it relative or absolute, and make it only when they first run.
fn read_foreign_current(home: &Home, origin: &Path) -> Result<Target> {
    let link = origin.join("current");
    let text = found(fs::read_link(&link)).map_err(|e| broken().at(link.display()).because(e))?;
    let Some(text) = text else {
        if install::staged(home)?.is_empty() {
            return Ok(Target::Genesis);
        }
        return Err(Error::new(Kind::Halted, "`current` is missing, and there are upgrades")
            .at(link.display())
            .hint(
                "link it to the version that ran last: ln -s genesis current, or ln -s upgrades/NAME current",
            ));
    };
    // Going through the components takes a final slash and single dots away.
    let named = |path: &Path| {
        let plain: PathBuf = path.components().filter(|c| !matches!(c, Component::CurDir)).collect();
        plain.to_str()?.parse().ok()
    };
    // The text of the link counts, and so does its target: the home may have had another path then.
    let leads_to =
        || fs::canonicalize(&link).ok()?.strip_prefix(fs::canonicalize(origin).ok()?).ok().and_then(named);
    named(text.strip_prefix(origin).unwrap_or(&text)).or_else(leads_to).ok_or_else(|| {
        broken()
            .at(link.display())
            .because(format!("{} is neither `genesis` nor `upgrades/<name>`", text.display()))
    })
}

fn broken() -> Error {
    Error::new(Kind::Halted, "cannot adopt a home whose `current` is broken")
        .hint("repair it first; nothing was changed")
}

/// The path of a target's binary before it was copied.
fn binary_in(origin: &Path, home: &Home, target: &Target) -> PathBuf {
    origin.join(target.to_string()).join("bin").join(home.daemon())
}

/// Looks at the binary of a version, and returns its manifest if it has one and agrees with it.
fn examine(home: &Home, origin: &Path, target: &Target) -> Result<Option<Manifest>> {
    // Examined first in `origin`: an error names the file that people know.
    drop(binary::open(&binary_in(origin, home, target))?);
    drop(binary::open(&home.binary(target))?);
    match Manifest::load(&home.manifest(target))? {
        Some(_) => install::verify(home, target, None).map(Some),
        None => Ok(None),
    }
}

/// Writes the manifest of a binary that has none.
fn adopt_binary(home: &Home, origin: &Path, target: &Target, found: Option<Manifest>) -> Result<Manifest> {
    if let Some(manifest) = found {
        return Ok(manifest);
    }
    let (path, source) = (home.binary(target), binary_in(origin, home, target));
    let file = binary::open(&path)?;
    let size = file.metadata().doing("inspect", &path)?.len();
    let manifest =
        Manifest::new(install::digest_of(&path)?, size, source.display().to_string(), Verified::Import);
    file.set_permissions(Permissions::from_mode(0o555)).doing("chmod", &path)?;
    manifest.save(&home.manifest(target))?;
    Ok(manifest)
}

fn upgrade_names(home: &Home, report: &mut Report) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for item in walk(&home.upgrades(), &|path| path.components().count() == 1)? {
        match item.path.to_string_lossy().parse() {
            Ok(name) if item.kind == ItemKind::Dir => names.push(name),
            Ok(_) => report.note(format!("upgrades/{} is not a directory", item.path.display())),
            Err(e) => report.note(format!("the upgrade {} cannot be used: {e}", item.path.display())),
        }
    }
    Ok(names)
}

/// The upgrades that have been applied already, so that a trigger file that outlived it has no second effect:
/// the current version, and those into which Cosmovisor has copied the trigger when it applied them.
fn applied(home: &Home, current: &Target, names: &[Name], report: &mut Report) -> Vec<Ended> {
    let trigger = trigger::read(&home.trigger()).unwrap_or_else(|e| {
        report.note(e.to_string());
        None
    });
    let mut ended = Vec::new();
    for name in names {
        let copy = home.upgrade(name).join("upgrade-info.json");
        let own = trigger::read(&copy).ok().flatten().or_else(|| trigger.clone()).filter(|u| u.name == *name);
        let is_current = *current == Target::Upgrade(name.clone());
        if is_current || fs::symlink_metadata(&copy).is_ok() {
            ended.push(Ended {
                cannot_follow: false,
                switch: None,
                name: name.clone(),
                height: own.map_or(0, |u| u.height),
                fork_height: None,
                outcome: Outcome::Applied,
                detail: "before the home was imported".to_owned(),
            });
        }
    }
    if let Some(upgrade) = trigger.filter(|u| !ended.iter().any(|e| e.name == u.name)) {
        report.note(format!(
            "{} asks for upgrade {} at height {}: if that is done already, remove the file before the first run",
            home.trigger().display(),
            upgrade.name,
            upgrade.height
        ));
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::home::binary::tests::{elf, write_elf};
    use std::os::unix::fs::symlink;

    /// A home with genesis and v2 in `dir`, `current` as given.
    pub(super) fn laid_out(dir: &str, current: Option<&str>) -> (tempfile::TempDir, Home) {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::new(temp.path(), "node").unwrap();
        let base = temp.path().join(dir);
        write_elf(&base.join("genesis/bin/node"), b"one");
        write_elf(&base.join("upgrades/v2/bin/node"), b"two");
        fs::create_dir(home.data()).unwrap();
        if let Some(current) = current {
            symlink(current.replace("BASE", base.to_str().unwrap()), base.join("current")).unwrap();
        }
        (temp, home)
    }

    fn runs(home: &Home, target: &str, payload: &[u8]) {
        let record = Journal::open(home).unwrap().record;
        assert_eq!(home.read_current().unwrap().target.to_string(), target);
        assert_eq!(
            (record.current.target.to_string(), record.current.sha256),
            (target.to_owned(), Digest::sha256(&elf(payload)))
        );
        let report = import(home, Gathered::default()).unwrap();
        assert!(report.problems().next().is_none() && !report.to_string().contains("made"), "{report}");
    }

    #[test]
    fn a_go_home_is_adopted_in_place_whichever_way_its_link_is_written() {
        for current in ["genesis", "./genesis/", "BASE/genesis", "BASE/../alias/genesis/"] {
            let (temp, home) = laid_out("wemixvisor", Some(current));
            symlink("wemixvisor", temp.path().join("alias")).unwrap();
            let report = import(&home, Gathered::default()).unwrap();
            assert!(report.problems().next().is_none(), "{report}");
            runs(&home, "genesis", b"one");
            install::verify(&home, &Target::Upgrade("v2".parse().unwrap()), None).unwrap();
        }
    }

    #[test]
    fn a_cosmovisor_home_is_copied_and_left_alone() {
        let (temp, home) = laid_out("cosmovisor", Some("BASE/upgrades/v2"));
        fs::write(home.trigger(), r#"{"name":"v2","height":7}"#).unwrap();
        fs::write(temp.path().join("cosmovisor/genesis/note"), "kept").unwrap();
        symlink("/etc/passwd", temp.path().join("cosmovisor/genesis/link")).unwrap();
        let report = import(&home, Gathered::default()).unwrap();
        assert!(report.to_string().contains("genesis/link is not a file"), "{report}");
        runs(&home, "upgrades/v2", b"two");
        let manifest = Manifest::load(&home.manifest(&Target::Genesis)).unwrap().unwrap();
        assert_eq!(Path::new(&manifest.source), temp.path().join("cosmovisor/genesis/bin/node"));
        let ended = Journal::open(&home).unwrap().record.ended;
        assert_eq!((ended.len(), ended[0].name.as_str(), ended[0].height), (1, "v2", 7));
        assert_eq!(fs::read(home.genesis().join("note")).unwrap(), b"kept");
        assert!(temp.path().join("cosmovisor/upgrades/v2/bin/node").is_file());
        let left = fs::read_dir(temp.path()).unwrap().count();
        assert_eq!(left, 3, "cosmovisor, wemixvisor and data");
    }

    #[test]
    fn a_home_that_never_ran_begins_with_genesis_if_that_is_all_there_is() {
        let (_temp, home) = laid_out("wemixvisor", None);
        let err = import(&home, Gathered::default()).unwrap_err();
        assert!(err.kind() == Kind::Halted && err.to_string().contains("ln -s"), "{err}");
        fs::remove_dir_all(home.upgrades()).unwrap();
        import(&home, Gathered::default()).unwrap();
        runs(&home, "genesis", b"one");
    }

    #[test]
    fn a_broken_current_is_refused_and_nothing_is_written() {
        for (dir, current) in
            [("wemixvisor", "upgrades/gone"), ("wemixvisor", "/bin"), ("cosmovisor", "BASE/../x")]
        {
            let (temp, home) = laid_out(dir, Some(current));
            let before = walk(temp.path(), &|_| true).unwrap().len();
            let err = import(&home, Gathered::default()).unwrap_err();
            let place = temp.path().join(dir).display().to_string();
            assert!(err.kind() == Kind::Halted && err.to_string().contains(&place), "{err}");
            assert_eq!(walk(temp.path(), &|_| true).unwrap().len(), before);
        }
    }

    #[test]
    fn a_binary_that_is_a_link_is_named_by_the_path_that_people_know() {
        for dir in ["wemixvisor", "cosmovisor"] {
            let (temp, home) = laid_out(dir, Some("genesis"));
            for version in ["genesis", "upgrades/v2"] {
                let binary = temp.path().join(dir).join(version).join("bin/node");
                fs::rename(&binary, temp.path().join("elsewhere")).unwrap();
                symlink(temp.path().join("elsewhere"), &binary).unwrap();
            }
            let said = import(&home, Gathered::default()).unwrap_err().to_string();
            let binary = temp.path().join(dir).join("genesis/bin/node");
            assert!(said.contains(&format!("symbolic link: {}", binary.display())), "{said}");
            fs::remove_file(&binary).unwrap();
            fs::copy(temp.path().join("elsewhere"), &binary).unwrap();
            let said = import(&home, Gathered::default()).unwrap().to_string();
            let binary = temp.path().join(dir).join("upgrades/v2/bin/node");
            assert!(said.contains(&format!("symbolic link: {}", binary.display())), "{said}");
        }
    }

    #[test]
    fn who_has_not_told_the_name_of_the_binary_is_asked_for_it() {
        let (temp, _) = laid_out("cosmovisor", Some("genesis"));
        let said =
            import(&Home::new(temp.path(), "wemixd").unwrap(), Gathered::default()).unwrap_err().to_string();
        assert!(said.contains("cosmovisor/genesis/bin/wemixd") && said.contains("set DAEMON_NAME"), "{said}");
    }

    #[test]
    fn a_home_of_ours_without_a_binary_is_no_home_to_adopt() {
        let (_temp, home) = laid_out("cosmovisor", Some("genesis"));
        assert!(unadopted(&home).is_some());
        init(&home, None, "").unwrap();
        let err = import(&home, Gathered::default()).unwrap_err();
        assert!(err.to_string().contains("remove it first") && unadopted(&home).is_none(), "{err}");
        fs::remove_dir_all(home.dir()).unwrap();
        import(&home, Gathered::default()).unwrap();
        runs(&home, "genesis", b"one");
    }

    #[test]
    fn other_broken_versions_and_pending_triggers_are_noted() {
        let (_temp, home) = laid_out("wemixvisor", Some("genesis"));
        fs::write(home.upgrade(&"v2".parse().unwrap()).join("bin/node"), "").unwrap();
        fs::create_dir(home.upgrades().join("a name")).unwrap();
        fs::write(home.trigger(), r#"{"name":"v2","height":7}"#).unwrap();
        let report = import(&home, Gathered::default()).unwrap().to_string();
        for part in
            ["upgrades/v2 is not usable", "\"a name\" is not a name", "asks for upgrade v2 at height 7"]
        {
            assert!(report.contains(part), "{report}");
        }
        runs(&home, "genesis", b"one");
    }

    #[test]
    fn there_must_be_something_to_import() {
        let temp = tempfile::tempdir().unwrap();
        let err = import(&Home::new(temp.path(), "node").unwrap(), Gathered::default()).unwrap_err();
        assert_eq!(err.kind(), Kind::NotFound);
    }
}
