//! Staging: how a binary gets to its place under the home, and how it is checked before each use.
//!
//! A binary counts as staged when it matches the manifest beside it, so manifest and binary need
//! no common transaction: the manifest is written first, the binary promoted second, and what a
//! crash leaves in between does not verify. A version that is in use is never touched.

use super::journal::Journal;
use crate::digest::{Algorithm, Digest, Hasher, read_some};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::force::Force;
use crate::home::durable::Rubbish;
use crate::home::regular::found;
use crate::home::trace::{Effect, note};
use crate::home::{Home, Manifest, Verified, binary, durable, trust};
use crate::machine::Target;
use crate::name::Name;
use crate::sorted;
use crate::time::rfc3339;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The result of staging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// The binary is new in its place.
    New(Manifest),
    /// The same bytes were there already.
    Same(Manifest),
    /// It took the place of another one.
    Replaced(Manifest),
}

impl Staged {
    /// The manifest that holds now.
    pub fn manifest(&self) -> &Manifest {
        let (Staged::New(manifest) | Staged::Same(manifest) | Staged::Replaced(manifest)) = self;
        manifest
    }
}

/// Stages a copy of a file that the operator names. The file itself is left alone.
///
/// # Errors
/// [`Kind::BadInput`] if it is not an executable for this machine; [`Kind::Failed`] if another binary
/// is staged and that is not forced, or the version is in use.
pub fn add(home: &Home, target: &Target, source: &Path, force: Force) -> Result<Staged> {
    let from = binary::open(source)?;
    trust::check_inside(home, &home.target(target))?;
    let to = home.binary(target);
    let named = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned()).display().to_string();
    let describe = |sha256, size| Manifest::new(sha256, size, named.as_str(), Verified::Operator);
    if fs::symlink_metadata(&to).is_ok() {
        // Nothing is written where nothing changes.
        let sha256 = digest_of(source)?;
        let size = from.metadata().doing("inspect", source)?.len();
        if digest_of(&to).ok() == Some(sha256) {
            return keep(home, target, &describe(sha256, size));
        }
        if !force.is_given() {
            return Err(occupied_by_another(target, &to));
        }
    }
    durable::mkdir(&directory_of(&to))?;
    durable::sweep(&directory_of(&to));
    let temp = durable::temp_beside(&to);
    let staged = copy_hashed(&from, source, &temp)
        .and_then(|(sha256, size)| place(home, target, &temp, &describe(sha256, size), force));
    // Promoted away if all went well.
    if fs::remove_file(&temp).is_ok() {
        note(Effect::Remove(&temp));
    }
    staged
}

/// Stages a file that is already on the home's file system and ours to move, as its manifest
/// describes it. `manifest.sha256` must have been computed over what was written to it.
///
/// # Errors
/// As [`add`]; `file` is then left where it is.
pub fn place(home: &Home, target: &Target, file: &Path, manifest: &Manifest, force: Force) -> Result<Staged> {
    let opened = binary::open_regular(file)?;
    binary::check_elf(&opened, file)?;
    if opened.metadata().doing("inspect", file)?.len() != manifest.size {
        let what = "the file has changed since it was verified";
        return Err(Error::new(Kind::Verification, what).at(file.display()));
    }
    opened.set_permissions(Permissions::from_mode(0o555)).doing("chmod", file)?;
    note(Effect::Mode(file, 0o555));
    trust::check_inside(home, &home.target(target))?;
    let to = home.binary(target);
    durable::mkdir(&directory_of(&to))?;
    let occupied = fs::symlink_metadata(&to).is_ok();
    if occupied {
        if digest_of(&to).ok() == Some(manifest.sha256) {
            return keep(home, target, manifest);
        }
        if !force.is_given() {
            return Err(occupied_by_another(target, &to));
        }
    }
    refuse_in_use(home, target, Some(&manifest.sha256))?;
    manifest.save(&home.manifest(target))?;
    if occupied {
        durable::remove(&to)?;
    }
    durable::promote(file, &to)?;
    Ok(if occupied { Staged::Replaced(manifest.clone()) } else { Staged::New(manifest.clone()) })
}

fn occupied_by_another(target: &Target, to: &Path) -> Error {
    Error::new(Kind::Failed, "another binary is staged there already").at(to.display()).hint(match target {
        Target::Genesis => "stage the new one with `wemixvisor upgrade add NAME BINARY`",
        Target::Upgrade(_) => "add --force to replace it",
    })
}

/// The same bytes are in place: only a missing, unreadable or wrong manifest is written.
fn keep(home: &Home, target: &Target, manifest: &Manifest) -> Result<Staged> {
    // The process that put them there may have been killed before the sync.
    durable::sync_dir(&directory_of(&home.binary(target)))?;
    let path = home.manifest(target);
    let is_right = |old: &Manifest| old.sha256 == manifest.sha256 && old.size == manifest.size;
    if let Some(old) = Manifest::load(&path).ok().flatten().filter(is_right) {
        return Ok(Staged::Same(old));
    }
    manifest.save(&path)?;
    Ok(Staged::Same(manifest.clone()))
}

/// Checks a staged binary: whole, executable here, and as in its manifest. Called before each use.
///
/// A binary that has no manifest because it was put there by hand is adopted if `pinned`
/// (the digest in the plan, schedule or trigger) is its digest, and refused otherwise.
///
/// # Errors
/// [`Kind::NotFound`] if nothing is staged; [`Kind::Verification`] if the binary is not what was staged or
/// pinned; [`Kind::BadInput`] if it cannot run here.
pub fn verify(home: &Home, target: &Target, pinned: Option<&Digest>) -> Result<Manifest> {
    let path = home.binary(target);
    if fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Err(Error::new(Kind::NotFound, "no binary is staged").at(path.display()).hint(hint(target)));
    }
    trust::check_inside(home, &home.target(target))?;
    drop(binary::open(&path)?);
    let manifest_path = home.manifest(target);
    match (Manifest::load(&manifest_path)?, pinned) {
        (Some(manifest), pinned) => {
            manifest.check(&path)?;
            // The download may be an archive, and then the pin is the archive's.
            match pinned {
                Some(pin) if manifest.pinned != Some(*pin) => check_pin(&path, pin).map(|()| manifest),
                _ => Ok(manifest),
            }
        }
        (None, Some(pin)) => {
            check_pin(&path, pin)?;
            let size = fs::metadata(&path).doing("inspect", &path)?.len();
            let manifest = Manifest::new(digest_of(&path)?, size, "placed by hand", Verified::Digest);
            manifest.check(&path)?;
            manifest.save(&manifest_path)?;
            Ok(manifest)
        }
        (None, None) => {
            let what = "the binary has no manifest, so its digest is unknown";
            Err(Error::new(Kind::Verification, what).at(path.display()).hint(hint(target)))
        }
    }
}

/// Notes in the manifest of a staged binary the version that it reported, and whether the operator insists on it.
///
/// # Errors
/// If it has no manifest, or that cannot be written.
pub fn describe(home: &Home, target: &Target, told: Option<&str>, insists: Force) -> Result<()> {
    let path = home.manifest(target);
    let Some(manifest) = Manifest::load(&path)? else {
        return Err(Error::new(Kind::NotFound, "the binary has no manifest").at(path.display()));
    };
    let told = told.map(ToOwned::to_owned).or_else(|| manifest.told.clone());
    let described = Manifest { told, insisted: manifest.insisted || insists.is_given(), ..manifest.clone() };
    if described == manifest { Ok(()) } else { described.save(&path) }
}

/// Moves a staged binary that failed its check out of the way, and returns where it is now. Nothing
/// vouches for it, so it is not executable there.
///
/// # Errors
/// If the version is in use, nothing is there, or moving fails.
pub fn quarantine(home: &Home, name: &Name) -> Result<PathBuf> {
    let target = Target::Upgrade(name.clone());
    refuse_in_use(home, &target, None)?;
    let time = rfc3339(SystemTime::now()).replace([':', '.'], "-");
    let to = home.upgrades().join(format!(".quarantine-{name}-{time}"));
    let from = home.binary(&target);
    // Not through a link that was put there.
    if fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
        let mode = Permissions::from_mode(0o400);
        fs::set_permissions(&from, mode).doing("chmod", &from)?;
        note(Effect::Mode(&from, 0o400));
    }
    durable::promote(&from, &to)?;
    durable::remove(&home.manifest(&target))?;
    Ok(to)
}

/// Removes a staged version: its binary, arguments, hooks and report.
///
/// # Errors
/// [`Kind::NotFound`] if nothing is staged; [`Kind::Failed`] if it is in use, or, unless that is forced, if a rollback leads
/// back to it; otherwise if the operating system refuses.
pub fn remove(home: &Home, name: &Name, force: Force) -> Result<()> {
    let target = Target::Upgrade(name.clone());
    if !staged(home)?.contains(name) {
        let what = format!("no binary of {name} is staged");
        return Err(Error::new(Kind::NotFound, what).hint("see `wemixvisor upgrade list`"));
    }
    refuse_in_use(home, &target, None)?;
    let ended = Journal::read(home)?.record.ended;
    if !force.is_given() && ended.iter().filter_map(|e| e.switch.as_ref()).any(|s| s.from.target == target) {
        let what = format!("{name} ran before, and a rollback may lead back to it");
        return Err(Error::new(Kind::Failed, what).hint("to remove it all the same, add --force"));
    }
    let mut rubbish = Rubbish::default();
    rubbish.take(&home.upgrade(name));
    durable::sync_dir(&home.upgrades())?;
    rubbish.remove();
    Ok(())
}

/// The upgrades that have a binary in place, verified or not, by name.
///
/// # Errors
/// If the directory cannot be listed.
pub fn staged(home: &Home) -> Result<Vec<Name>> {
    let dir = home.upgrades();
    let mut names = Vec::new();
    let Some(entries) = found(fs::read_dir(&dir)).doing("list", &dir)? else { return Ok(names) };
    for entry in entries {
        let entry = entry.doing("list", &dir)?;
        let name = entry.file_name().to_str().and_then(|n| n.parse::<Name>().ok());
        names.extend(name.filter(|n| fs::symlink_metadata(home.binary(&Target::Upgrade(n.clone()))).is_ok()));
    }
    sorted::sort(&mut names);
    Ok(names)
}

/// The SHA-256 of a file that is not a link.
///
/// # Errors
/// If it cannot be read.
pub fn digest_of(path: &Path) -> Result<Digest> {
    let file = binary::open_regular(path)?;
    Digest::of_reader(Algorithm::Sha256, file).doing("read", path)
}

fn check_pin(path: &Path, pin: &Digest) -> Result<()> {
    let file = binary::open_regular(path)?;
    let found = Digest::of_reader(pin.algorithm(), file).doing("read", path)?;
    if found == *pin {
        return Ok(());
    }
    Err(Error::new(Kind::Verification, "the staged binary is not the one that the upgrade pins")
        .at(path.display())
        .because(format!("it is {found}, the upgrade says {pin}"))
        .hint("stage the right one with `wemixvisor upgrade add --force`, or correct the plan"))
}

/// Refuses to change a version that runs, ran last, or takes part in an upgrade under way. Putting
/// back the very bytes that the journal remembers is no change.
fn refuse_in_use(home: &Home, target: &Target, sha256: Option<&Digest>) -> Result<()> {
    let mut in_use = home.read_current_link().is_ok_and(|current| current == *target);
    if Journal::exists(home)? {
        let record = Journal::read(home)?.record;
        let under_way = record.upgrade.iter().flat_map(|u| [&u.from, &u.to]);
        for version in under_way.chain([&record.current]).filter(|v| v.target == *target) {
            if Some(&version.sha256) == sha256 {
                return Ok(());
            }
            in_use = true;
        }
    }
    if !in_use {
        return Ok(());
    }
    Err(Error::new(Kind::Failed, "this version is in use and must not change")
        .at(home.binary(target).display())
        .hint("give the other binary a new name and upgrade to it"))
}

fn hint(target: &Target) -> String {
    match target {
        Target::Genesis => "give it with `wemixvisor init BINARY`".to_owned(),
        Target::Upgrade(name) => format!("stage it with `wemixvisor upgrade add {name} BINARY`"),
    }
}

fn copy_hashed(mut from: &File, source: &Path, to: &Path) -> Result<(Digest, u64)> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).doing("create", to)?;
    note(Effect::Create(to, 0o600));
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buf = vec![0; 256 * 1024];
    let mut size = 0;
    while let read @ 1.. = read_some(&mut from, &mut buf).doing("read", source)? {
        hasher.update(&buf[..read]);
        out.write_all(&buf[..read]).doing("write", to)?;
        note(Effect::Write(to, size, &buf[..read]));
        size += read as u64;
    }
    Ok((hasher.finish(), size))
}

fn directory_of(file: &Path) -> PathBuf {
    file.parent().map(Path::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::binary::tests::{elf, write_elf};
    use crate::machine::{Record, Version};

    struct Rig {
        dir: tempfile::TempDir,
        home: Home,
        v2: Target,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::new(dir.path().join("home"), "node").unwrap();
            durable::mkdir(&home.state()).unwrap();
            Rig { dir, home, v2: Target::Upgrade("v2".parse().unwrap()) }
        }

        fn source(&self, payload: &str) -> PathBuf {
            let path = self.dir.path().join(payload);
            write_elf(&path, payload.as_bytes());
            path
        }

        fn add(&self, payload: &str, force: Force) -> Result<Staged> {
            add(&self.home, &self.v2, &self.source(payload), force)
        }
    }

    #[test]
    fn a_staged_binary_verifies_until_it_is_changed() {
        let rig = Rig::new();
        let Staged::New(manifest) = rig.add("one", Force::No).unwrap() else { panic!() };
        assert_eq!(manifest.sha256, Digest::sha256(&elf(b"one")));
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap(), manifest);
        let path = rig.home.binary(&rig.v2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o555);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(staged(&rig.home).unwrap(), ["v2".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        write_elf(&path, b"two");
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap_err().kind(), Kind::Verification);
    }

    #[test]
    fn the_same_again_changes_nothing_and_another_needs_force() {
        let rig = Rig::new();
        let first = rig.add("one", Force::No).unwrap().manifest().clone();
        assert_eq!(rig.add("one", Force::No).unwrap(), Staged::Same(first.clone()));
        assert_eq!(rig.add("two", Force::No).unwrap_err().kind(), Kind::Failed);
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap(), first);
        let Staged::Replaced(second) = rig.add("two", Force::Yes).unwrap() else { panic!() };
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap(), second);
    }

    #[test]
    fn what_cannot_run_here_is_refused_and_leaves_nothing() {
        let rig = Rig::new();
        let script = rig.dir.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        for source in [script, rig.dir.path().join("missing"), rig.dir.path().to_owned()] {
            add(&rig.home, &rig.v2, &source, Force::Yes).unwrap_err();
        }
        assert_eq!(staged(&rig.home).unwrap(), []);
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_version_in_use_is_never_touched() {
        let rig = Rig::new();
        let sha256 = rig.add("one", Force::No).unwrap().manifest().sha256;
        durable::link(Path::new("upgrades/v2"), &rig.home.current()).unwrap();
        assert!(rig.add("two", Force::Yes).unwrap_err().to_string().contains("in use"));
        assert_eq!(rig.add("one", Force::No).unwrap().manifest().sha256, sha256);
        fs::remove_file(rig.home.current()).unwrap();
        Journal::create(&rig.home, &Record::new(Version { target: rig.v2.clone(), sha256 })).unwrap();
        assert!(rig.add("two", Force::Yes).unwrap_err().to_string().contains("in use"));
        assert!(quarantine(&rig.home, &"v2".parse().unwrap()).is_err());
        verify(&rig.home, &rig.v2, None).unwrap();
        fs::remove_file(rig.home.binary(&rig.v2)).unwrap();
        assert!(rig.add("two", Force::No).unwrap_err().to_string().contains("in use"));
        rig.add("one", Force::No).unwrap();
    }

    #[test]
    fn a_hook_that_was_there_first_stays() {
        let rig = Rig::new();
        let name: Name = "v2".parse().unwrap();
        durable::mkdir(&rig.home.upgrade(&name)).unwrap();
        fs::write(rig.home.pre_upgrade(&name), "hook").unwrap();
        rig.add("one", Force::No).unwrap();
        assert_eq!(fs::read(rig.home.pre_upgrade(&name)).unwrap(), b"hook");
    }

    #[test]
    fn a_binary_placed_by_hand_counts_only_when_pinned_or_added() {
        let rig = Rig::new();
        let path = rig.home.binary(&rig.v2);
        write_elf(&path, b"one");
        let err = verify(&rig.home, &rig.v2, None).unwrap_err();
        assert!(err.kind() == Kind::Verification && err.to_string().contains("upgrade add v2"), "{err}");
        let (right, wrong) = (Digest::sha256(&elf(b"one")), Digest::sha256(b"other"));
        assert_eq!(verify(&rig.home, &rig.v2, Some(&wrong)).unwrap_err().kind(), Kind::Verification);
        assert_eq!(verify(&rig.home, &rig.v2, Some(&right)).unwrap().verified, Verified::Digest);
        fs::remove_file(rig.home.manifest(&rig.v2)).unwrap();
        let Staged::Same(manifest) = add(&rig.home, &rig.v2, &path, Force::No).unwrap() else { panic!() };
        assert_eq!(verify(&rig.home, &rig.v2, Some(&right)).unwrap(), manifest);
        assert_eq!(verify(&rig.home, &rig.v2, Some(&wrong)).unwrap_err().kind(), Kind::Verification);
    }

    #[test]
    fn whatever_a_crash_leaves_does_not_verify_and_can_be_staged_again() {
        let rig = Rig::new();
        let (one, two) = (elf(b"one"), elf(b"two"));
        let describe =
            |bytes: &[u8]| Manifest::new(Digest::sha256(bytes), bytes.len() as u64, "x", Verified::Operator);
        // After the manifest; after the old binary of a replacement was removed.
        durable::mkdir(rig.home.binary(&rig.v2).parent().unwrap()).unwrap();
        describe(&one).save(&rig.home.manifest(&rig.v2)).unwrap();
        verify(&rig.home, &rig.v2, None).unwrap_err();
        rig.add("one", Force::No).unwrap();
        describe(&two).save(&rig.home.manifest(&rig.v2)).unwrap();
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap_err().kind(), Kind::Verification);
        rig.add("two", Force::Yes).unwrap();
        verify(&rig.home, &rig.v2, None).unwrap();
    }

    #[test]
    fn a_bad_binary_is_moved_aside() {
        let rig = Rig::new();
        rig.add("one", Force::No).unwrap();
        let moved = quarantine(&rig.home, &"v2".parse().unwrap()).unwrap();
        assert_eq!(fs::read(&moved).unwrap(), elf(b"one"));
        assert_eq!(fs::metadata(&moved).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(verify(&rig.home, &rig.v2, None).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(staged(&rig.home).unwrap(), []);
    }

    #[test]
    fn a_file_that_changed_after_its_verification_is_not_placed() {
        let rig = Rig::new();
        let file = rig.source("one");
        let manifest =
            Manifest::new(Digest::sha256(&elf(b"on")), elf(b"on").len() as u64, "x", Verified::Digest);
        assert_eq!(
            place(&rig.home, &rig.v2, &file, &manifest, Force::No).unwrap_err().kind(),
            Kind::Verification
        );
    }
}
