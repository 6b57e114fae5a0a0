//! Backups of the node's data, made while nothing has it open.
//!
//! A backup is a directory `<upgrade>-<time>` with the copied tree in `data/` and a manifest of every
//! entry. It is built under a hidden name and appears, whole and synced, by one rename: what is listed
//! is complete. Keys are left out, so that a backup may be kept where keys may not, and so that
//! restoring one never brings an old key back. This makes full copies; it does not know what changed since the last one.

pub(super) mod copy;

use super::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::lock::{busy, claim_dir};
use crate::home::space;
use crate::home::trace::{Effect, note};
use crate::home::tree::{Item, ItemKind, fingerprint, walk};
use crate::home::{Home, durable, regular};
use crate::name::Name;
use crate::time::rfc3339;
use copy::Copier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The upgrade that it was made for.
    pub upgrade: Name,
    /// When, RFC 3339.
    pub time: String,
    /// The data directory that was copied.
    pub source: PathBuf,
    /// The sum of all file sizes in bytes.
    pub bytes: u64,
    /// The fingerprint of the tree that was copied: data that has changed since has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Digest>,
    /// Everything in it, parents first.
    pub entries: Vec<Entry>,
}

/// One entry of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path below the data directory.
    pub path: String,
    /// The permission bits.
    pub mode: u32,
    /// Its type.
    #[serde(flatten)]
    pub content: Content,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Content {
    /// A directory.
    Dir,
    /// A relative link that stays in the data directory.
    Link {
        /// Its text.
        to: String,
    },
    /// A file whose bytes were copied.
    Copy {
        /// Its size in bytes.
        size: u64,
        /// Its digest.
        sha256: Digest,
    },
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name, which is that of its directory.
    pub name: String,
    /// Its contents.
    pub manifest: Manifest,
}

/// The cost of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes needed, with some reserve.
    pub bytes: u64,
    /// Bytes available to us where backups go.
    pub available: u64,
}

const VERSION: u32 = 1;
/// A larger manifest is not one of ours: it would name millions of files.
const LIMIT: u64 = 1 << 30;
const MANIFEST: &str = "manifest.json";
const DATA: &str = "data";
const PARTIAL: &str = ".wemixvisor-partial-";
/// Space left free beyond the copy itself.
const RESERVE: u64 = 64 * 1024 * 1024;

/// Whether a path below the data directory belongs to the node's keys.
#[must_use]
pub fn is_key(path: &Path) -> bool {
    path.components()
        .any(|part| ["nodekey", "keystore", "jwtsecret"].iter().any(|key| part.as_os_str() == *key))
}

/// Looks whether a backup can be made, which is cheap and allowed while the node runs.
///
/// # Errors
/// If the data directory is missing or cannot be copied as it is, if the backup directory is inside it, or
/// if there is too little space.
pub fn check(home: &Home) -> Result<Need> {
    plan(home).map(|plan| plan.need)
}

/// Copies the data directory of a stopped node; `progress` is told the bytes done and in all.
///
/// If a crash came between the end of the copy and the record of it, the finished backup is found and not made again.
///
/// # Errors
/// As [`check`]; if copying fails, the data changes meanwhile, or it is cancelled. Nothing is left behind then.
pub fn make(
    home: &Home,
    upgrade: &Name,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Backup> {
    if let Some(backup) = finished(home, upgrade) {
        durable::sync_dir(home.backups())?;
        log::info!("event=backup_found backup={} the data has not changed since", backup.name);
        return Ok(backup);
    }
    let plan = plan(home)?;
    let time = rfc3339(SystemTime::now());
    let name = format!("{upgrade}-{}", time.replace([':', '-'], "").replace('.', "_"));
    let partial = home.backups().join(format!("{PARTIAL}{name}"));
    durable::mkdir(&partial)?;
    // Says to others that this one is being worked on.
    let _claim = claim_dir(&partial)?.ok_or_else(|| busy(&partial))?;
    let made = copy_all(&plan, &partial, cancel, progress).and_then(|entries| {
        let (version, upgrade, bytes) = (VERSION, upgrade.clone(), plan.bytes);
        let (source, tree) = (plan.source.clone(), Some(fingerprint(&plan.items)));
        let manifest = Manifest { version, upgrade, time, source, bytes, tree, entries };
        let text = serde_json::to_vec_pretty(&manifest).expect("every key of the manifest is a string");
        durable::put(&partial.join(MANIFEST), &text, 0o600)?;
        durable::promote(&partial, &home.backups().join(&name))?;
        Ok(Backup { name, manifest })
    });
    if made.is_err() {
        // Hidden and without a name it is no backup; the next one sweeps what cannot be removed now.
        if fs::remove_dir_all(&partial).is_ok() {
            note(Effect::Remove(&partial));
        }
    }
    made
}

/// The backup that was made for `upgrade` of the very data that is there now.
fn finished(home: &Home, upgrade: &Name) -> Option<Backup> {
    let source = fs::canonicalize(home.data()).ok()?;
    let of_this = |backup: &Backup| backup.manifest.upgrade == *upgrade && backup.manifest.source == source;
    let candidates: Vec<_> = list(home).ok()?.into_iter().filter(of_this).collect();
    if candidates.is_empty() {
        return None;
    }
    let tree = Some(fingerprint(&items(&source).ok()?));
    candidates.into_iter().rfind(|backup| backup.manifest.tree == tree)
}

/// The finished backups, oldest first.
///
/// # Errors
/// If the backup directory cannot be listed.
pub fn list(home: &Home) -> Result<Vec<Backup>> {
    let dir = home.backups();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir, e)),
    };
    let names =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| !n.starts_with('.'));
    let mut backups: Vec<_> = names.filter_map(|name| load(home, &name).ok()).collect();
    backups.sort_by(|a, b| (&a.manifest.time, &a.name).cmp(&(&b.manifest.time, &b.name)));
    Ok(backups)
}

/// One finished backup.
///
/// # Errors
/// [`Kind::NotFound`] if there is none of this name; [`Kind::BadInput`] if its manifest is bad.
pub fn load(home: &Home, name: &str) -> Result<Backup> {
    let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
    let path = home.backups().join(name).join(MANIFEST);
    let text = match regular::read(&path, LIMIT) {
        Ok(text) if plain => text,
        Err(e) if plain && e.kind() != io::ErrorKind::NotFound => return Err(Error::io("read", &path, e)),
        _ => {
            return Err(
                Error::new(Kind::NotFound, format!("no backup {name:?}")).at(home.backups().display())
            );
        }
    };
    let bad = || Error::new(Kind::BadInput, "read manifest").at(path.display());
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| bad().because(e))?;
    if manifest.version != VERSION {
        return Err(bad().because(format!("version {} is not known here", manifest.version)));
    }
    let good = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_))) && !is_key(path);
    if !manifest.entries.iter().all(|entry| good(Path::new(&entry.path))) {
        return Err(bad().because("an entry is outside of the data directory, or a key"));
    }
    Ok(Backup { name: name.to_owned(), manifest })
}

/// Checks every byte of a backup against its manifest.
///
/// # Errors
/// [`Kind::Verification`] with the first entry that is missing, different or too many.
pub fn verify(home: &Home, backup: &Backup, cancel: &Cancel) -> Result<()> {
    let root = backup.data(home);
    let wrong = |path: &Path, why: &str| {
        Err(Error::new(Kind::Verification, format!("the backup is damaged: {why}")).at(path.display()))
    };
    let items = walk(&root, &|_| true)?;
    let mut found: BTreeMap<&Path, &Item> = items.iter().map(|item| (&*item.path, item)).collect();
    let mut silent = |_, _| {};
    let mut copier = Copier::new(cancel, backup.manifest.bytes, &mut silent);
    for entry in &backup.manifest.entries {
        let path = root.join(&entry.path);
        let Some(item) = found.remove(Path::new(&entry.path)) else {
            return wrong(&path, "this is missing");
        };
        match &entry.content {
            Content::Dir if item.kind == ItemKind::Dir => {}
            Content::Link { to } if fs::read_link(&path).is_ok_and(|text| text == Path::new(to)) => {}
            Content::Copy { size, sha256 } if (item.kind, item.len) == (ItemKind::File, *size) => {
                if copier.hash(&path)? != *sha256 {
                    return wrong(&path, "its content has changed");
                }
            }
            Content::Dir | Content::Link { .. } | Content::Copy { .. } => {
                return wrong(&path, "its kind, size or target has changed");
            }
        }
    }
    match found.keys().next() {
        Some(extra) => wrong(&root.join(extra), "the manifest does not know this"),
        None => Ok(()),
    }
}

impl Backup {
    /// The directory of the copied tree.
    #[must_use]
    pub fn data(&self, home: &Home) -> PathBuf {
        home.backups().join(&self.name).join(DATA)
    }
}

/// The entries to copy, and what that takes.
struct Plan {
    source: PathBuf,
    items: Vec<Item>,
    bytes: u64,
    need: Need,
}

fn plan(home: &Home) -> Result<Plan> {
    let source = fs::canonicalize(home.data()).map_err(|e| {
        Error::new(Kind::Config, "no data directory to back up")
            .at(home.data().display())
            .because(e)
            .hint("set daemon_data_dir to the node's --datadir")
    })?;
    let target = home.backups();
    durable::mkdir(target)?;
    let resolved = fs::canonicalize(target).map_err(|e| Error::io("resolve", target, e))?;
    if resolved.starts_with(&source) {
        return Err(Error::new(Kind::Config, "the backup directory is inside the data directory")
            .at(resolved.display())
            .hint("set daemon_data_backup_dir to another place"));
    }
    sweep(target);
    let items = items(&source)?;
    for item in items.iter().filter(|item| item.kind == ItemKind::Link) {
        check_link(&source, &item.path)?;
    }
    let files = || items.iter().filter(|item| item.kind == ItemKind::File).map(|item| item.len);
    let bytes = files().sum();
    let need = Need {
        bytes: files().map(|len| len.next_multiple_of(4096)).sum::<u64>()
            + items.len() as u64 * 4096
            + RESERVE,
        available: space::free(target)?,
    };
    if need.available < need.bytes {
        return Err(space::too_little("for a backup of the data", target, need.bytes, need.available)
            .hint("make room, set daemon_data_backup_dir to another disk, or set unsafe_skip_backup"));
    }
    Ok(Plan { source, items, bytes, need })
}

/// The part of the data directory that is copied.
fn items(source: &Path) -> Result<Vec<Item>> {
    // A lock file means something only to the process that made it.
    let mut items = walk(source, &|path| !is_key(path) && !path.ends_with("LOCK"))?;
    items.retain(|item| item.kind != ItemKind::Special);
    Ok(items)
}

/// A link is copied as a link, so what it leads to must be in the backup as well.
fn check_link(source: &Path, link: &Path) -> Result<()> {
    let path = source.join(link);
    let text = fs::read_link(&path).map_err(|e| Error::io("read link", &path, e))?;
    // One that leads nowhere holds nothing that could be lost.
    let inside = fs::canonicalize(&path).map_or(true, |real| real.starts_with(source));
    if inside && text.is_relative() {
        return Ok(());
    }
    Err(Error::new(Kind::Config, "the data directory has a link that leads out of it")
        .at(path.display())
        .because(format!("a backup would lack what is in {}", text.display()))
        .hint("move that into the data directory, or set unsafe_skip_backup and back up yourself"))
}

fn copy_all(
    plan: &Plan,
    partial: &Path,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Entry>> {
    let root = partial.join(DATA);
    make_dir(&root)?;
    let mut copier = Copier::new(cancel, plan.bytes, progress);
    let mut entries = Vec::with_capacity(plan.items.len());
    for item in &plan.items {
        let (from, to) = (plan.source.join(&item.path), root.join(&item.path));
        match copy_one(item.kind, &from, &to, &mut copier) {
            Ok(Some(content)) => {
                entries.push(Entry { path: utf8(&item.path)?, mode: item.mode, content });
            }
            Ok(None) => {}
            // A file that another process removes meanwhile is not the node's; the walk leaves it out as well.
            Err(_) if is_gone(&from) => {
                log::warn!("event=left_out_of_backup path={} it was removed meanwhile", from.display());
            }
            Err(e) => return Err(e),
        }
    }
    Ok(entries)
}

/// Copies one entry of the tree; `None` if it is of a kind that is not copied.
fn copy_one(kind: ItemKind, from: &Path, to: &Path, copier: &mut Copier<'_>) -> Result<Option<Content>> {
    Ok(Some(match kind {
        ItemKind::Dir => {
            make_dir(to)?;
            Content::Dir
        }
        ItemKind::Link => {
            let text = fs::read_link(from).map_err(|e| Error::io("read link", from, e))?;
            symlink(&text, to).map_err(|e| Error::io("create link", to, e))?;
            note(Effect::Symlink(&text, to));
            Content::Link { to: utf8(&text)? }
        }
        ItemKind::File => {
            let (size, sha256) = copier.copy(from, to, 0o600)?;
            Content::Copy { size, sha256 }
        }
        ItemKind::Special => return Ok(None),
    }))
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|e| Error::io("create directory", path, e))?;
    note(Effect::Mkdir(path, 0o700));
    Ok(())
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Error::new(Kind::Failed, "the manifest cannot hold a name that is not UTF-8").at(path.display())
    })
}

/// Removes what backups that did not end have left. One that is being made is locked.
pub(super) fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_bytes().starts_with(PARTIAL.as_bytes());
        if ours && let Ok(Some(_claim)) = claim_dir(&entry.path()) {
            // If it cannot be removed, the check for space takes it into account.
            if fs::remove_dir_all(entry.path()).is_ok() {
                note(Effect::Remove(&entry.path()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
