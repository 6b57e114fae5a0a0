//! Which methods are possible between two directories. It is tried out: what a file system can depends on how it was
//! made and mounted, and a limit may lie between two directories of one.

use super::copy::Ways;
use super::names::Names;
use crate::config::BackupMethod;
use crate::error::{Error, Kind, Result};
use crate::home::beneath::Beneath;
use crate::home::durable;
use crate::home::tree::{Item, ItemKind};
use rustix::fs::{AtFlags, CWD, ioctl_ficlone, linkat};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The methods that are wanted and possible between the two file systems, which is tried out on one file each.
///
/// # Errors
/// If clones are wanted and are not possible.
pub(super) fn find(
    root: &Path,
    items: &[Item],
    names: &Names,
    target: &Path,
    method: BackupMethod,
) -> Result<Ways> {
    let files = || items.iter().filter(|item| item.kind == ItemKind::File);
    let (clones, links) = match method {
        BackupMethod::Auto => (true, true),
        BackupMethod::Reflink => (true, false),
        BackupMethod::Hardlink => (false, true),
        BackupMethod::Copy | BackupMethod::None => (false, false),
    };
    let whole = files().find(|item| !item.is_empty()).filter(|_| clones);
    let reflink = whole.is_some_and(|item| can_clone(root, &item.path, target));
    if method == BackupMethod::Reflink && whole.is_some() && !reflink {
        let what = "files cannot be cloned from the data directory to the backups";
        let hint = "set daemon_backup_method to auto, or put both on one file system that can: xfs or btrfs";
        return Err(Error::new(Kind::Config, what).at(target.display()).hint(hint));
    }
    let immutable = files().find(|item| names.is_immutable(&item.path)).filter(|_| links && !reflink);
    let hardlink = immutable.is_some_and(|item| can_link(root, &item.path, target));
    Ok(Ways { reflink, hardlink, may_share: method != BackupMethod::Copy })
}

/// A name for an attempt; what a crash leaves of it is swept.
fn probe(target: &Path) -> PathBuf {
    durable::temp_beside(&target.join("probe"))
}

/// Whether the file at `path` below `root` can be cloned to the directory `target`.
pub(in crate::upgrade) fn can_clone(root: &Path, path: &Path, target: &Path) -> bool {
    let probe = probe(target);
    let cloned = Beneath::new(root).and_then(|mut beneath| beneath.file(path)).and_then(|(file, _)| {
        let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
        Ok(ioctl_ficlone(copy, file)?)
    });
    let _ = fs::remove_file(&probe);
    cloned.is_ok()
}

/// Whether it can get another name there.
pub(in crate::upgrade) fn can_link(root: &Path, path: &Path, target: &Path) -> bool {
    let probe = probe(target);
    let linked = Beneath::new(root).and_then(|mut beneath| {
        let (dir, name) = beneath.parent(path)?;
        Ok(linkat(dir, name, CWD, &probe, AtFlags::empty())?)
    });
    let _ = fs::remove_file(&probe);
    linked.is_ok()
}
