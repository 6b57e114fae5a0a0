//! Backups of the node's data, made while nothing has it open.
//!
//! A backup is a directory `<upgrade>-<time>` with the tree in `data/` and a manifest of every entry. It is built under
//! a hidden name and appears, whole and synced, by one rename: what is listed is complete. Each file gets there by the
//! cheapest method that is safe for it, so that the time a node is down depends on what must be copied and not on the
//! size of the chain; for the same reason nothing is hashed until the node is up again. Keys are left out, so that a
//! backup may be kept where keys may not, and so that restoring one never brings an old key back.
//!
//! A hard-linked file protects against what the node does, not against a disk that fails: there is one copy of it.

pub(super) mod building;
pub(super) mod copy;
mod keep;
mod manifest;
pub(super) mod names;
mod options;
mod space;
pub(super) mod verify;
pub(super) mod ways;
mod work;

pub use copy::Method;
pub use keep::{outdated, prune, remove_named};
pub use manifest::{Backup, Content, Entry, MadeBy, Manifest, State, list, list_all, load};
pub use names::{LeftOut, is_key};
pub use options::Options;
pub use space::Need;
pub use verify::{complete, verify};
pub use work::Work;

use crate::config::BackupMethod;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::beneath::Beneath;
use crate::home::durable::Rubbish;
use crate::home::lock::{Claim, busy, claim_dir};
use crate::home::trace::{Effect, note};
use crate::home::tree::{Item, ItemKind, fingerprint, walk};
use crate::home::{Home, durable};
use crate::machine::Block;
use crate::name::Name;
use crate::time::rfc3339;
use building::{Building, Pass, Source};
use manifest::{DATA, MANIFEST, VERSION, list_of, name_of};
use names::Names;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// The purpose of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// The upgrade, or a name that the operator has given.
    pub name: Name,
    /// The origin of the order.
    pub made_by: MadeBy,
    /// The head of the chain, where it is known.
    pub head: Option<Block>,
    /// The version of the node that has written the data.
    pub node: Option<String>,
}

const PARTIAL: &str = ".wemixvisor-partial-";

/// Looks whether a backup can be made, which is cheap and allowed while the node runs.
///
/// # Errors
/// If the data directory is missing or cannot be backed up as it is, if the backup directory is inside it, if the
/// method that is wanted is not possible, or if there is too little space.
pub fn check(home: &Home, options: &Options) -> Result<Need> {
    let source = source(home, options, None)?;
    space::check(home, options, space::need(&source, None))
}

/// Backs the data directory of a stopped node up. What a draft has already is not brought again.
///
/// If a crash came between the end of an upgrade's backup and the record of that, the finished one is found and not made
/// again. The operator gets a new one each time: nothing removes it, while that of an upgrade goes by itself.
///
/// # Errors
/// As [`check`]; if copying fails, the data changes meanwhile, or it is cancelled. Nothing is left behind then.
pub fn make(work: &mut Work<'_>, purpose: &Purpose, draft: Option<Draft>) -> Result<Backup> {
    let begun = Instant::now();
    if purpose.made_by == MadeBy::Upgrade
        && let Some(backup) = finished(work.home, work.options, &purpose.name)
    {
        durable::sync_dir(work.home.backups())?;
        log::info!("event=backup_found backup={} the data has not changed since", backup.name);
        draft.into_iter().for_each(Draft::remove);
        return Ok(backup);
    }
    let mut draft = match draft.filter(|draft| draft.is_of(work.home)) {
        Some(draft) => draft,
        None => Draft::begin(work.home, &purpose.name)?,
    };
    let source = draft.fill(work, Pass::Last);
    let made = source.and_then(|source| draft.finish(work, &source, purpose, begun));
    if made.is_err() {
        draft.remove();
    }
    made
}

/// A backup that is being made. Before the node is stopped it has what the node leaves as it is.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    building: Building,
    /// Says to other processes that it is being worked on.
    _claim: File,
}

impl Draft {
    /// Begins a backup of the data of a node that runs, for what a name stands for.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn begin(home: &Home, name: &Name) -> Result<Self> {
        sweep_now(target(home)?, None);
        let path = home.backups().join(format!("{PARTIAL}{}", name_of(name, &rfc3339(SystemTime::now()))));
        durable::mkdir(&path)?;
        let claim = claim_dir(&path, Claim::Alone)?.ok_or_else(|| busy(&path))?;
        let building = Building::new(path.join(DATA))?;
        Ok(Draft { path, building, _claim: claim })
    }

    /// Whether it is where backups go. The operator may have set another directory meanwhile.
    fn is_of(&self, home: &Home) -> bool {
        self.path.parent() == Some(home.backups())
    }

    /// Writes the manifest, syncs all and gives it its name.
    fn finish(&self, work: &Work<'_>, source: &Source, purpose: &Purpose, begun: Instant) -> Result<Backup> {
        self.building.copy_dir_attributes(source)?;
        let now = SystemTime::now();
        let Purpose { name, made_by, head, node } = purpose.clone();
        let entries = self.building.entries()?;
        let is_immutable = |path: &Path| source.names.is_immutable(path);
        let manifest = Manifest {
            version: VERSION,
            made_by,
            time: rfc3339(now),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            source: source.root.clone(),
            head,
            node,
            bytes: entries.iter().map(Entry::size).sum(),
            tree: Some(fingerprint(&source.items, &is_immutable)),
            left_out: work.options.left_out.patterns().to_vec(),
            damaged: None,
            entries,
            upgrade: name.clone(),
        };
        let backup = Backup { name: name_of(&name, &rfc3339(now)), manifest };
        write(&self.path.join(MANIFEST), &durable::json_line(&backup.manifest))?;
        durable::promote_large(&self.path, &work.home.backups().join(&backup.name))?;
        Ok(backup)
    }

    /// Brings what the node that runs has written and does not change any more. May be done again, any number of times.
    /// After a failure or a cancellation, the next call goes on from there.
    ///
    /// # Errors
    /// As [`check`]; or if copying fails or is cancelled.
    pub fn go_ahead(&mut self, work: &mut Work<'_>) -> Result<()> {
        let begun = Instant::now();
        self.fill(work, Pass::Ahead)?;
        log::debug!("event=backup_brought_ahead took={}ms", begun.elapsed().as_millis());
        Ok(())
    }

    /// Looks whether the rest can be brought.
    ///
    /// # Errors
    /// As [`check`].
    pub fn check(&self, home: &Home, options: &Options) -> Result<Need> {
        self.need(home, options, &source(home, options, Some(self))?)
    }

    fn need(&self, home: &Home, options: &Options, source: &Source) -> Result<Need> {
        space::check(home, options, space::need(source, Some(&self.building)))
    }

    fn fill(&mut self, work: &mut Work<'_>, pass: Pass) -> Result<Source> {
        let source = source(work.home, work.options, Some(self))?;
        self.need(work.home, work.options, &source)?;
        self.building.fill(&source, pass, work)?;
        Ok(source)
    }

    /// Gives it up. Hidden and without a name it is no backup; the next one sweeps what cannot be removed now.
    pub fn remove(self) {
        if fs::remove_dir_all(&self.path).is_ok() {
            note(Effect::Remove(&self.path));
        }
    }
}

/// Writes a new file that is synced later.
fn write(path: &Path, text: &[u8]) -> Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.doing("create", path)?;
    note(Effect::Create(path, 0o600));
    file.write_all(text).doing("write", path)?;
    note(Effect::Write(path, 0, text));
    Ok(())
}

/// The backup that was made for the upgrade `name` of the very data that is there now, as backups are made now.
fn finished(home: &Home, options: &Options, name: &Name) -> Option<Backup> {
    let root = fs::canonicalize(home.data()).ok()?;
    let of_this = |backup: &Backup| {
        let Manifest { upgrade, made_by, source, damaged, left_out, .. } = &backup.manifest;
        let is_copied =
            || [Method::Reflink, Method::Hardlink].map(|by| backup.manifest.share(by).files) == [0; 2];
        let is_as_wanted =
            *left_out == options.left_out.patterns() && (options.method != BackupMethod::Copy || is_copied());
        let is_of_upgrade = upgrade == name && *made_by == MadeBy::Upgrade;
        is_of_upgrade && *source == root && damaged.is_none() && is_as_wanted
    };
    // Names of others may begin like this one as well.
    let is_named = |other: &str| other.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
    let candidates: Vec<_> = list_of(home, &is_named).ok()?.into_iter().filter(of_this).collect();
    if candidates.is_empty() {
        return None;
    }
    let items = items(&root, &options.left_out).ok()?;
    let names = Names::of_items(&items);
    let tree = Some(fingerprint(&items, &|path| names.is_immutable(path)));
    candidates.into_iter().rfind(|backup| backup.manifest.tree == tree)
}

/// The data, if a backup of it can be made; `draft` is the one that is being made. The directory that it is in is there and
/// durable: with the node down no sync is done twice.
fn source(home: &Home, options: &Options, draft: Option<&Draft>) -> Result<Source> {
    let none = || Error::new(Kind::Config, "no data directory to back up").at(home.data().display());
    let root = fs::canonicalize(home.data())
        .map_err(|e| none().because(e).hint("set daemon_data_dir to the node's --datadir"))?;
    let target = match draft {
        Some(draft) if draft.is_of(home) => home.backups(),
        _ => target(home)?,
    };
    sweep_now(target, draft.map(|draft| &*draft.path));
    let items = items(&root, &options.left_out)?;
    let mut beneath = Beneath::new(&root).doing("open", &root)?;
    for item in &items {
        check_name(&root.join(&item.path), &item.path)?;
        match item.kind {
            ItemKind::Link => check_link(&root, &item.path)?,
            ItemKind::File => check_readable(&mut beneath, &item.path)?,
            ItemKind::Dir | ItemKind::Special => {}
        }
    }
    Source::find(root, items, target, options.method)
}

/// The directory for backups, which is made if it is missing, but not inside the data.
fn target(home: &Home) -> Result<&Path> {
    let target = home.backups();
    let there = target.ancestors().find_map(|path| fs::canonicalize(path).ok());
    let root = fs::canonicalize(home.data()).ok();
    if there.zip(root).is_some_and(|(there, root)| there.starts_with(root)) {
        let inside = Error::new(Kind::Config, "the backup directory is inside the data directory");
        return Err(inside.at(target.display()).hint("set daemon_data_backup_dir to another place"));
    }
    durable::mkdir(target)?;
    Ok(target)
}

/// The part of the data directory that is backed up.
fn items(source: &Path, left_out: &LeftOut) -> Result<Vec<Item>> {
    let mut items = walk(source, &|path| left_out.is_copied(path))?;
    items.retain(|item| item.kind != ItemKind::Special);
    Ok(items)
}

/// The manifest, which is JSON, must be able to hold every name.
fn check_name(place: &Path, name: &Path) -> Result<()> {
    if name.to_str().is_some() {
        return Ok(());
    }
    let what = "the data directory has a name that is not UTF-8, which no manifest can hold";
    let hint = "rename it, or leave it out with daemon_backup_exclude";
    Err(Error::new(Kind::Config, what).at(place.display()).hint(hint))
}

/// A file that we may not read stops a backup, also one that the node does not need, as another user may have left.
fn check_readable(beneath: &mut Beneath, path: &Path) -> Result<()> {
    let full = beneath.full(path);
    // One that has gone meanwhile is a matter of the copy.
    let Ok((dir, name)) = beneath.parent(path) else { return Ok(()) };
    match accessat(dir, name, Access::READ_OK, AtFlags::empty()) {
        Err(e @ Errno::ACCESS) => Err(Error::io("read", &full, e.into())
            .hint("let the user that runs this read it, or leave it out with daemon_backup_exclude")),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A link is copied as a link, so what it leads to must be in the backup as well.
fn check_link(source: &Path, link: &Path) -> Result<()> {
    let path = source.join(link);
    let text = fs::read_link(&path).doing("read link", &path)?;
    check_name(&path, &text)?;
    // One that leads nowhere holds nothing that could be lost.
    let inside = fs::canonicalize(&path).map_or(true, |real| real.starts_with(source));
    if inside && text.is_relative() {
        return Ok(());
    }
    if inside && text.starts_with(source) {
        let what = "the data directory has an absolute link, which leads from every copy to the original";
        let why = format!("it leads to {}", text.display());
        let hint = "make it a relative one, as with `ln -srfn`, while the node is stopped";
        return Err(Error::new(Kind::Config, what).at(path.display()).because(why).hint(hint));
    }
    Err(Error::new(Kind::Config, "the data directory has a link that leads out of it")
        .at(path.display())
        .because(format!("a backup would lack what is in {}", text.display()))
        .hint("move that into the data directory, or set unsafe_skip_backup and back up yourself"))
}

fn sweep_now(dir: &Path, own: Option<&Path>) {
    let mut rubbish = Rubbish::default();
    sweep(dir, own, &mut rubbish);
    rubbish.remove();
}

/// Finds what backups that did not end have left. One that is being made is locked; for the lock of the caller's `own` it
/// would wait in vain, with the node down.
pub(super) fn sweep(dir: &Path, own: Option<&Path>, rubbish: &mut Rubbish) {
    rubbish.sweep(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().join(MANIFEST).is_file() {
            // A manifest was being replaced.
            durable::sweep(&entry.path());
        }
        let is_partial = entry.file_name().as_bytes().starts_with(PARTIAL.as_bytes());
        if is_partial
            && own != Some(&*entry.path())
            && let Ok(Some(_claim)) = claim_dir(&entry.path(), Claim::Alone)
        {
            // If it cannot be removed, the check for space takes it into account.
            rubbish.take(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
