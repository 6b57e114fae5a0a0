//! Putting a backup in place of the node's data, while the node is stopped.
//!
//! The tree is built beside the data, by clones and links where that is possible, checked against the manifest, given
//! the live keys, and exchanged with the data in one step. What it replaces is kept under another name: it is
//! for the operator to remove. A marker inside the restored tree shows, after a crash, on which side of the
//! exchange we were, so that the data that was replaced is never taken for a failed attempt.

use super::backup::building::{Building, Source, bring_plain};
use super::backup::names::Names;
use super::backup::verify::check_tree;
use super::backup::{Backup, Content, Options, State, Work, complete, verify};
use crate::digest::Digest;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::durable::Rubbish;
use crate::home::fit::is_mount_point;
use crate::home::lock::{Claim, busy, claim_dir};
use crate::home::space::{self, Amount};
use crate::home::trace::{Effect, note};
use crate::home::tree::{Item, ItemKind, fingerprint, walk};
use crate::home::{Home, durable, regular};
use crate::sorted;
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// In a restored tree until the restore is over.
const MARKER: &str = ".wemixvisor-restored";
/// A larger note is not one of ours.
const LIMIT: u64 = 64 * 1024;

/// The places a restore works in, all siblings.
struct Places {
    live: PathBuf,
    /// Being built: may be removed at any time.
    building: PathBuf,
    /// Before the exchange the complete restored tree, after it the data that was replaced.
    side: PathBuf,
}

/// Puts `backup` in place of the data directory and returns where the replaced data is now.
///
/// # Errors
/// [`Kind::Verification`] if the backup is damaged; if there is too little space or the file system cannot
/// exchange directories. The data is then as it was.
pub fn restore(work: &mut Work<'_>, backup: &Backup) -> Result<PathBuf> {
    // Files that were left out of the backup stay, as do those that are left out of backups now.
    let left_out = work.options.left_out.and(&backup.manifest.left_out);
    let options = Options { left_out, ..work.options.clone() };
    let Work { home, background, cancel, .. } = *work;
    let work = &mut Work { home, options: &options, background, cancel, progress: work.progress };
    let places = Places::of(home)?;
    if let Some(replaced) = Done::of(home, &places, backup) {
        durable::remove(&places.live.join(MARKER))?;
        return Ok(replaced);
    }
    if let Ok(done) = regular::read(&places.live.join(MARKER), LIMIT) {
        let done = String::from_utf8_lossy(&done);
        // A crash came between the exchange and the end, perhaps before the sync of the exchange or of the other name.
        durable::sync_dir(places.live.parent().unwrap_or(Path::new("/")))?;
        let replaced = finish(home, &places, &done)?;
        if done == backup.name {
            return Ok(replaced);
        }
    }
    exchangeable(&places.live)?;
    for ours in [&places.building, &places.side] {
        if fs::symlink_metadata(ours).is_ok() {
            fs::remove_dir_all(ours).doing("remove", ours)?;
            note(Effect::Remove(ours));
        }
    }
    build(work, &places, backup).inspect_err(|_| {
        // The next attempt removes what cannot be removed now.
        if fs::remove_dir_all(&places.building).is_ok() {
            note(Effect::Remove(&places.building));
        }
    })?;
    durable::promote_large(&places.building, &places.side)?;
    durable::exchange(&places.side, &places.live)?;
    finish(home, &places, &backup.name)
}

/// Whether [`restore`] could put `backup` in place of the data now. Nothing is changed, and the node may run.
///
/// # Errors
/// As [`restore`].
pub fn check(work: &mut Work<'_>, backup: &Backup) -> Result<()> {
    let places = Places::of(work.home)?;
    exchangeable(&places.live)?;
    check_space(&places, &source(work, &places, backup)?)?;
    let checked = match backup.manifest.state() {
        State::Unverified => verify(work, backup),
        // Damage is noted in the manifest.
        State::Verified | State::Damaged => complete(work, backup.clone()).map(drop),
    };
    checked.or_else(|e| match e.kind() {
        // A process of ours is adding its digests, as after an upgrade. That changes nothing but the manifest.
        Kind::Busy => check_tree(work, &backup.data(work.home), &backup.manifest, &|_| true),
        _ => Err(e),
    })
}

/// Refuses data that no other directory can take the place of.
fn exchangeable(live: &Path) -> Result<()> {
    if is_mount_point(live)? {
        let what = "the data directory is a mount point, so no backup can be put in its place";
        let hint = "restore by hand from the backup; or keep the data in a directory below the mount point";
        return Err(Error::new(Kind::Config, what).at(live.display()).hint(hint));
    }
    Ok(())
}

/// The last restore, for a redo of it: a crash may come before its end is recorded.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    backup: String,
    replaced: PathBuf,
    /// The fingerprint of the data when it was done.
    tree: Digest,
}

impl Done {
    /// Where the data that `backup` has replaced is, if that was the last restore and nothing has changed since.
    fn of(home: &Home, places: &Places, backup: &Backup) -> Option<PathBuf> {
        let text = regular::read(&home.restored(), LIMIT).ok()?;
        let done: Done = serde_json::from_slice(&text).ok()?;
        let same = done.backup == backup.name && done.tree == places.fingerprint().ok()?;
        same.then_some(done.replaced)
    }
}

impl Places {
    /// The data that was replaced by earlier restores, oldest first: the names end with the time.
    fn replaced(&self) -> Vec<PathBuf> {
        let beside =
            self.live.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        let prefix = format!("{}.replaced-", self.live.file_name().unwrap_or_default().to_string_lossy());
        let is_replaced =
            |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix));
        let mut replaced: Vec<_> = beside.map(|entry| entry.path()).filter(is_replaced).collect();
        sorted::sort(&mut replaced);
        replaced
    }

    fn fingerprint(&self) -> Result<Digest> {
        let items = walk(&self.live, &|path| path != Path::new(MARKER))?;
        let names = Names::of_items(&items);
        Ok(fingerprint(&items, &|path| names.is_immutable(path)))
    }

    fn of(home: &Home) -> Result<Self> {
        let live = live(home)?;
        let name = live.file_name().map(|n| n.to_string_lossy().into_owned()).ok_or_else(|| {
            Error::new(Kind::Config, "the data directory has no siblings").at(live.display())
        })?;
        let beside = |suffix: &str| live.with_file_name(format!(".{name}.wemixvisor-{suffix}"));
        Ok(Places { building: beside("restoring"), side: beside("restored"), live })
    }
}

/// The data directory, which a restore needs: the keys are in it, and a backup has none.
///
/// # Errors
/// If it is missing, with the way on.
pub fn live(home: &Home) -> Result<PathBuf> {
    fs::canonicalize(home.data()).map_err(|e| {
        let hint =
            "make an empty one with `mkdir -m 700`, and put the keys of the node into it: a backup has none";
        let missing = Error::io("resolve", home.data(), e);
        if home.data().exists() { missing } else { missing.hint(hint) }
    })
}

/// Where data that restores have replaced is, oldest first.
pub fn replaced(home: &Home) -> Vec<PathBuf> {
    Places::of(home).map(|places| places.replaced()).unwrap_or_default()
}

/// Removes data that restores have replaced, durably.
///
/// # Errors
/// If the operating system refuses.
pub fn remove_replaced(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        fs::remove_dir_all(path).doing("remove", path)?;
        note(Effect::Remove(path));
        durable::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(())
}

/// Removes the unfinished tree of a restore that was cut short. A restore that is under way holds a lock. Returns where data that was
/// replaced by earlier ones still is: that is for the operator to remove.
pub(super) fn sweep(home: &Home, rubbish: &mut Rubbish) -> Vec<PathBuf> {
    let Ok(places) = Places::of(home) else { return Vec::new() };
    if let Ok(Some(_claim)) = claim_dir(&places.building, Claim::Alone) {
        // The next restore removes what cannot be put aside now.
        rubbish.take(&places.building);
    }
    // The data may be outside of the home.
    rubbish.find_aside(&places.building);
    places.replaced()
}

/// Refuses what there is too little space for.
fn check_space(places: &Places, source: &Source) -> Result<()> {
    let beside = places.live.parent().unwrap_or(Path::new("/"));
    let needed = Amount { bytes: source.to_copy(None), files: source.to_make(None) };
    let Some(lacking) = space::lacking(needed, Amount::free(beside)?) else { return Ok(()) };
    let what = "too little space beside the data to restore it";
    Err(Error::new(Kind::Io, what).at(beside.display()).because(lacking))
}

/// The tree of the backup without what stays as it is now.
fn source(work: &Work<'_>, places: &Places, backup: &Backup) -> Result<Source> {
    if let Some(damaged) = &backup.manifest.damaged {
        return Err(Error::new(Kind::Verification, damaged.clone()));
    }
    let root = backup.data(work.home);
    let items = walk(&root, &|path| !work.options.left_out.is_key(path))?;
    let beside = places.live.parent().unwrap_or(Path::new("/"));
    let source = Source::find(root, items, beside, work.options.method.for_restore())?;
    // In the first version the files of a backup did not have the modes of their originals.
    Ok(if backup.manifest.version == 1 { source.without_links() } else { source })
}

fn build(work: &mut Work<'_>, places: &Places, backup: &Backup) -> Result<()> {
    let _in_use = backup.claim(work.home, Claim::Shared)?;
    let source = source(work, places, backup)?;
    check_space(places, &source)?;
    let (to, options) = (&places.building, work.options);
    let mut building = Building::new(to.clone())?;
    // Held until the end: it is being worked on.
    let _claim = claim_dir(to, Claim::Alone)?.ok_or_else(|| busy(to))?;
    durable::put(&to.join(MARKER), backup.name.as_bytes(), 0o600)?;
    building.fill_whole(&source, work)?;
    let counts = |path: &Path| path != Path::new(MARKER) && !options.left_out.is_key(path);
    check_tree(work, to, &backup.manifest, &counts)?;
    building.copy_dir_attributes(&source)?;
    let stays = |path: &str| options.left_out.is_key(Path::new(path));
    copy_keys(work, places)?;
    // Children first: a directory that may not be written to must be complete by then.
    for entry in backup.manifest.entries.iter().rev().filter(|entry| !stays(&entry.path)) {
        let path = to.join(&entry.path);
        if matches!(entry.content, Content::Dir | Content::File { .. }) {
            set_mode(&path, entry.mode)?;
        }
    }
    let live = fs::metadata(&places.live).doing("inspect", &places.live)?;
    set_mode(to, live.permissions().mode() & 0o7777)
}

/// The keys that the node has now go with the restored data: the backup has none.
fn copy_keys(work: &mut Work<'_>, places: &Places) -> Result<()> {
    let left_out = &work.options.left_out;
    let keys: Vec<Item> =
        walk(&places.live, &|_| true)?.into_iter().filter(|item| left_out.is_key(&item.path)).collect();
    for item in &keys {
        let (from, to) = (places.live.join(&item.path), places.building.join(&item.path));
        durable::mkdir(to.parent().unwrap_or(&places.building))?;
        match item.kind {
            ItemKind::Dir => durable::mkdir(&to)?,
            ItemKind::Link => {
                let text = fs::read_link(&from).doing("read link", &from)?;
                symlink(&text, &to).doing("create link", &to)?;
                note(Effect::Symlink(&text, &to));
            }
            ItemKind::File | ItemKind::Special => {}
        }
    }
    bring_plain(work, &places.live, &keys, &places.building)?;
    // Children first, as in `build`; a directory that was made for a key alone is as it was, too.
    for item in keys.iter().rev() {
        let dirs = item.path.ancestors().skip(usize::from(item.kind != ItemKind::Dir));
        for dir in dirs.filter(|dir| *dir != Path::new("")) {
            let live = places.live.join(dir);
            let mode = fs::metadata(&live).doing("inspect", &live)?.permissions().mode();
            set_mode(&places.building.join(dir), mode & 0o7777)?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let now = fs::symlink_metadata(path).doing("inspect", path)?;
    if now.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).doing("chmod", path)?;
    note(Effect::Mode(path, mode));
    Ok(())
}

/// After the exchange: names what was replaced, notes that it is done, then takes the marker away.
fn finish(home: &Home, places: &Places, backup: &str) -> Result<PathBuf> {
    let time = rfc3339(SystemTime::now()).replace([':', '-'], "").replace('.', "_");
    let name = places.live.file_name().unwrap_or_default().to_string_lossy();
    let mut replaced = places.live.with_file_name(format!("{name}.replaced-{time}"));
    if fs::symlink_metadata(&places.side).is_ok() {
        durable::promote_large(&places.side, &replaced)?;
    } else if let Some(newest) = places.replaced().pop() {
        // A crash came right after that.
        replaced = newest;
    }
    let done = Done { backup: backup.to_owned(), replaced: replaced.clone(), tree: places.fingerprint()? };
    // A path that is not UTF-8 cannot be noted. Then a redo restores once more, which loses nothing.
    if let Ok(text) = serde_json::to_vec(&done) {
        durable::mkdir(&home.state())?;
        durable::put(&home.restored(), &text, 0o600)?;
    }
    durable::remove(&places.live.join(MARKER))?;
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::upgrade::Cancel;
    use crate::upgrade::backup::{LeftOut, MadeBy, Purpose, complete, make};

    fn restore_with(home: &Home, backup: &Backup, cancel: &Cancel) -> Result<PathBuf> {
        let options = Options::plain();
        restore(
            &mut Work { home, options: &options, background: false, cancel, progress: &mut |_, _| {} },
            backup,
        )
    }

    struct Rig {
        dir: tempfile::TempDir,
        home: Home,
        backup: Backup,
    }

    impl Rig {
        /// A backup of "old" data, and live data that has gone on to "new".
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::new(dir.path(), "node").unwrap();
            let write = |path: &str, text: &str| {
                let path = home.data().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            write("geth/chain/1", "old");
            write("geth/nodekey", "old key");
            symlink("1", home.data().join("geth/chain/CURRENT")).unwrap();
            fs::set_permissions(home.data().join("geth/chain"), Permissions::from_mode(0o750)).unwrap();
            let (options, cancel) = (Options::plain(), Cancel::new().unwrap());
            let name: Name = "v2".parse().unwrap();
            let purpose = Purpose { name, made_by: MadeBy::Upgrade, head: None, node: None };
            let progress = &mut |_, _| {};
            let mut work =
                Work { home: &home, options: &options, background: false, cancel: &cancel, progress };
            let backup = make(&mut work, &purpose, None).unwrap();
            let backup = complete(&mut work, backup).unwrap();
            write("geth/chain/1", "new");
            write("geth/chain/2", "new");
            write("geth/nodekey", "new key");
            write("keystore/UTC--1", "account");
            write("deep/er/nodekey", "key");
            fs::set_permissions(home.data().join("deep"), Permissions::from_mode(0o711)).unwrap();
            fs::set_permissions(home.data().join("keystore"), Permissions::from_mode(0o755)).unwrap();
            Rig { dir, home, backup }
        }

        fn restore(&self) -> Result<PathBuf> {
            restore_with(&self.home, &self.backup, &Cancel::new().unwrap())
        }

        fn live(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.home.data().join(path)).ok()
        }

        fn is_restored(&self) {
            assert_eq!(self.live("geth/chain/CURRENT").as_deref(), Some("old"));
            assert_eq!(self.live("geth/chain/2"), None);
            assert_eq!(self.live("geth/nodekey").as_deref(), Some("new key"));
            assert_eq!(self.live("keystore/UTC--1").as_deref(), Some("account"));
            assert_eq!(self.live(MARKER), None);
            let mode = |path: &str| fs::metadata(self.home.data().join(path)).unwrap().permissions().mode();
            assert_eq!(mode("geth/chain") & 0o777, 0o750);
            assert_eq!(mode("keystore") & 0o777, 0o755);
            assert_eq!(mode("deep") & 0o777, 0o711);
            assert_eq!(self.siblings(), ["backups", "data", "data.replaced"]);
        }

        fn is_untouched(&self) {
            assert_eq!(self.live("geth/chain/CURRENT").as_deref(), Some("new"));
            assert_eq!(self.siblings(), ["backups", "data"]);
        }

        fn siblings(&self) -> Vec<String> {
            let names =
                fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.map(|n| n.split('-').next().unwrap().to_owned()).collect();
            names.retain(|name| name != Home::DIR);
            names.sort();
            names
        }
    }

    #[test]
    fn old_data_new_keys_and_nothing_lost() {
        let rig = Rig::new();
        let replaced = rig.restore().unwrap();
        rig.is_restored();
        assert_eq!(fs::read(replaced.join("geth/chain/2")).unwrap(), b"new");
    }

    #[test]
    fn a_backup_is_checked_also_while_another_process_has_claimed_it() {
        let rig = Rig::new();
        let (options, cancel) = (Options::plain(), Cancel::new().unwrap());
        let check = || {
            let progress = &mut |_, _| {};
            let mut work =
                Work { home: &rig.home, options: &options, background: false, cancel: &cancel, progress };
            check(&mut work, &rig.backup)
        };
        let _claim = rig.backup.claim(&rig.home, Claim::Alone).unwrap();
        check().unwrap();
        rig.is_untouched();
        fs::write(rig.backup.data(&rig.home).join("geth/chain/1"), "odd").unwrap();
        assert_eq!(check().unwrap_err().kind(), Kind::Verification);
    }

    #[test]
    fn what_was_left_out_of_the_backup_stays_whatever_is_configured_now() {
        let rig = Rig::new();
        let options = Options { left_out: LeftOut::new(&["*.pem".to_owned()]), ..Options::plain() };
        fs::write(rig.home.data().join("validator.pem"), "live key").unwrap();
        let (cancel, progress) = (Cancel::new().unwrap(), &mut |_, _| {});
        let mut work =
            Work { home: &rig.home, options: &options, background: false, cancel: &cancel, progress };
        let name: Name = "v3".parse().unwrap();
        let purpose = Purpose { name, made_by: MadeBy::Operator, head: None, node: None };
        let backup = make(&mut work, &purpose, None).unwrap();
        assert!(!backup.data(&rig.home).join("validator.pem").exists());
        let backup = crate::upgrade::backup::load(&rig.home, &backup.name).unwrap();
        restore_with(&rig.home, &backup, &cancel).unwrap();
        assert_eq!(rig.live("validator.pem").as_deref(), Some("live key"));
        // An older manifest does not have the patterns.
        let mut old = serde_json::to_value(&backup.manifest).unwrap();
        assert!(old.as_object_mut().unwrap().remove("left_out").is_some());
        let old: crate::upgrade::backup::Manifest = serde_json::from_value(old).unwrap();
        assert_eq!(old.left_out, [] as [String; 0]);
    }

    #[test]
    fn what_was_done_once_is_done_again_when_the_data_has_gone_on() {
        let rig = Rig::new();
        let first = rig.restore().unwrap();
        fs::write(rig.home.data().join("geth/chain/1"), "new").unwrap();
        assert_ne!(rig.restore().unwrap(), first);
        assert_eq!(rig.live("geth/chain/1").as_deref(), Some("old"));
        fs::create_dir(Places::of(&rig.home).unwrap().building).unwrap();
        let beside = |name: &str| rig.dir.path().join(format!("{name}.{}-0.tmp", i32::MAX));
        let (aside, anothers) = (beside("..data.wemixvisor-restoring"), beside(".x"));
        fs::create_dir(&aside).unwrap();
        fs::write(&anothers, "").unwrap();
        let mut rubbish = Rubbish::default();
        assert_eq!(sweep(&rig.home, &mut rubbish).len(), 2);
        assert!(!Places::of(&rig.home).unwrap().building.exists());
        rubbish.remove();
        assert!(!aside.exists() && anothers.exists(), "another program's file beside the data");
    }

    #[test]
    fn a_damaged_backup_or_a_cancelled_restore_leaves_the_data_alone() {
        let rig = Rig::new();
        let file = rig.backup.data(&rig.home).join("geth/chain/1");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "odd").unwrap();
        assert_eq!(rig.restore().unwrap_err().kind(), Kind::Verification);
        rig.is_untouched();
        fs::write(&file, "old").unwrap();
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        restore_with(&rig.home, &rig.backup, &cancel).unwrap_err();
        rig.is_untouched();
        rig.restore().unwrap();
    }

    #[test]
    fn after_a_crash_at_any_step_the_next_run_finishes_and_loses_nothing() {
        let steps: [fn(&Rig, &Places); 4] = [
            |rig, places| {
                let (options, cancel) = (Options::plain(), Cancel::new().unwrap());
                let (home, progress) = (&rig.home, &mut |_, _| {});
                let mut work = Work { home, options: &options, background: false, cancel: &cancel, progress };
                build(&mut work, places, &rig.backup).unwrap();
            },
            |_, places| durable::promote(&places.building, &places.side).unwrap(),
            |_, places| durable::exchange(&places.side, &places.live).unwrap(),
            |_, places| fs::rename(&places.side, places.live.with_file_name("data.replaced-x")).unwrap(),
        ];
        for crash_after in 0..=steps.len() {
            let rig = Rig::new();
            let places = Places::of(&rig.home).unwrap();
            steps[..crash_after].iter().for_each(|step| step(&rig, &places));
            rig.restore().unwrap();
            rig.is_restored();
            // The supervisor was killed before it recorded the end, and once before it removed the marker.
            for marked in [false, true] {
                if marked {
                    fs::write(rig.home.data().join(MARKER), &rig.backup.name).unwrap();
                }
                let again = rig.restore().unwrap();
                assert_eq!(fs::read(again.join("geth/chain/2")).unwrap(), b"new", "{crash_after}");
                rig.is_restored();
                assert!(!rig.home.data().join(MARKER).exists());
            }
            let replaced = fs::read_dir(rig.dir.path()).unwrap().map(|e| e.unwrap().path());
            let replaced =
                replaced.into_iter().find(|p| p.display().to_string().contains("replaced")).unwrap();
            assert_eq!(fs::read(replaced.join("geth/chain/2")).unwrap(), b"new", "{crash_after}");
        }
    }
}
