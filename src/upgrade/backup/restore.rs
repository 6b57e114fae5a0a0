//! Putting a backup in place of the data: built and checked beside it, then exchanged in one step.
//!
//! What was in place stays beside it: nothing that a node has written is ever deleted here. Keys are
//! not in a backup; the ones in place are taken along, so that a restore never brings an old key back.

use super::copy::Copier;
use super::{Backup, Content, RESERVE, is_key, load, make_dir};
use crate::error::{Error, Kind, Result};
use crate::home::tree::{ItemKind, walk};
use crate::home::{Home, durable};
use crate::upgrade::Cancel;
use rustix::fs::statvfs;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Puts the backup called `name` in place of the data of a stopped node. Returns where the data went
/// that it replaced.
///
/// # Errors
/// If the backup is missing or damaged, space is short, or the data directory cannot be exchanged (it
/// must not be a mount point). The data is then as it was.
pub fn restore(
    home: &Home,
    name: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf> {
    let backup = load(home, name)?;
    let live = fs::canonicalize(home.data()).map_err(|e| Error::io("resolve", home.data(), e))?;
    let parent = live.parent().unwrap_or(Path::new("/"));
    let space = statvfs(parent).map_err(|e| Error::io("look for free space on", parent, e.into()))?;
    let (needed, available) =
        (backup.manifest.bytes + RESERVE, space.f_bavail.saturating_mul(space.f_frsize));
    if available < needed {
        return Err(Error::new(Kind::Io, "too little space to restore the backup")
            .at(parent.display())
            .because(format!("it needs {} MiB, {} MiB are available", needed >> 20, available >> 20)));
    }
    let fresh = durable::temp_beside(&live);
    let built = build(home, &backup, &live, &fresh, cancel, progress);
    let aside = built.and_then(|()| {
        let aside = free_name(&live, name);
        durable::promote(&fresh, &aside)?;
        durable::exchange(&aside, &live)?;
        Ok(aside)
    });
    if aside.is_err() {
        // It is ours and incomplete; what cannot be removed is only in the way of space.
        let _ = fs::remove_dir_all(&fresh);
    }
    aside
}

/// Copies the backup to `fresh`, checking every byte, and takes the live keys along.
fn build(
    home: &Home,
    backup: &Backup,
    live: &Path,
    fresh: &Path,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    make_dir(fresh)?;
    let source = backup.data(home);
    let mut copier = Copier::new(cancel, backup.manifest.bytes, progress);
    for entry in &backup.manifest.entries {
        let (from, to) = (source.join(&entry.path), fresh.join(&entry.path));
        match &entry.content {
            Content::Dir => make_dir(&to)?,
            Content::Link { to: text } => symlink(text, &to).map_err(|e| Error::io("create link", &to, e))?,
            Content::Copy { size, sha256 } => {
                if copier.copy(&from, &to, entry.mode)? != (*size, *sha256) {
                    let what = "the backup is damaged: its content has changed";
                    return Err(Error::new(Kind::Verification, what).at(from.display()));
                }
            }
        }
    }
    take_keys(live, fresh, &mut copier)?;
    // Last, and from the inside out: a directory may be one that forbids writing.
    let dirs = backup.manifest.entries.iter().rev().filter(|e| e.content == Content::Dir);
    for dir in dirs {
        set_mode(&fresh.join(&dir.path), dir.mode)?;
    }
    let mode = fs::metadata(live).map_err(|e| Error::io("inspect", live, e))?.permissions().mode();
    set_mode(fresh, mode)
}

fn take_keys(live: &Path, fresh: &Path, copier: &mut Copier<'_>) -> Result<()> {
    for item in walk(live, &|_| true)?.into_iter().filter(|item| is_key(&item.path)) {
        let (from, to) = (live.join(&item.path), fresh.join(&item.path));
        let parent = to.parent().unwrap_or(fresh);
        fs::create_dir_all(parent).map_err(|e| Error::io("create directory", parent, e))?;
        match item.kind {
            ItemKind::Dir => make_dir(&to)?,
            ItemKind::File => drop(copier.copy(&from, &to, item.mode)?),
            ItemKind::Link => {
                let text = fs::read_link(&from).map_err(|e| Error::io("read link", &from, e))?;
                symlink(text, &to).map_err(|e| Error::io("create link", &to, e))?;
            }
            ItemKind::Special => {}
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        .map_err(|e| Error::io("set the mode of", path, e))
}

/// A name beside the data directory that nothing has.
fn free_name(live: &Path, backup: &str) -> PathBuf {
    let base = live.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = (1..).map(|n| live.with_file_name(format!("{base}.before-{backup}.{n}")));
    names.into_iter().find(|path| fs::symlink_metadata(path).is_err()).expect("some number is free")
}
