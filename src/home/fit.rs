//! Whether a home can be used at all: its file system, and the owners of its files.
//!
//! Otherwise such a fault shows at the first start or the first record only, and then at every attempt. So `run` and
//! `config check` look for it before anything begins. Nothing is changed.

use super::{Home, trust};
use crate::error::{Doing as _, Result};
use rustix::fs::{
    Access, AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags, accessat, statvfs, statx,
};
use rustix::process::geteuid;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One thing that makes a home unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The directory or file.
    pub path: PathBuf,
    /// The problem.
    pub what: String,
    /// The next step.
    pub hint: String,
}

/// The faults of the home at `root` with its data in `data`. Missing files and directories are no faults.
pub fn check(root: &Path, data: &Path) -> Vec<Unfit> {
    let dir = root.join(Home::DIR);
    let state = dir.join("state");
    let read_only = StatVfsMountFlags::RDONLY;
    let mounts = [of_mount(&dir, read_only | StatVfsMountFlags::NOEXEC), of_mount(data, read_only)];
    let mut found: Vec<_> = mounts.into_iter().flatten().collect();
    if found.is_empty() {
        found.extend([of_access(&dir), of_access(data)].into_iter().flatten());
    }
    // A command that was run as root leaves files that we may not read or replace later.
    let entries = [&dir, &state].into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let ours = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default();
        path.starts_with(&state)
            || ["state", "lock", "downloads", "upgrades"].iter().any(|ours| name == *ours)
    });
    found.extend([dir.clone()].into_iter().chain(ours).find_map(|path| of_owner(&path)));
    let dirs = ["", "genesis", "upgrades", "plans", "downloads", "state"].map(|name| dir.join(name));
    found.extend(dirs.into_iter().filter_map(|path| of_trust(root, path)));
    found
}

/// Whether a file system, or a part of one, is mounted at a directory: then no other directory can take its place. False where
/// a kernel before 5.8 does not say.
///
/// # Errors
/// If the operating system refuses.
pub(crate) fn is_mount_point(dir: &Path) -> Result<bool> {
    let found = statx(CWD, dir, AtFlags::empty(), StatxFlags::empty()).doing("inspect", dir)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A directory of the home that another user may write: that user decides what is executed.
fn of_trust(root: &Path, path: PathBuf) -> Option<Unfit> {
    let (what, hint) = trust::fault(&fs::metadata(&path).ok()?, root)?;
    Some(Unfit { path, what, hint: hint.to_owned() })
}

fn of_mount(path: &Path, forbidden: StatVfsMountFlags) -> Option<Unfit> {
    let (what, hint) = of_flags(statvfs(path).ok()?.f_flag & forbidden)?;
    Some(Unfit { path: path.to_owned(), what: what.to_owned(), hint: hint.to_owned() })
}

/// The fault of a file system with these flags, all of which are forbidden, and its remedy.
fn of_flags(flags: StatVfsMountFlags) -> Option<(&'static str, &'static str)> {
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Some(("the file system is read-only", "mount it again with rw, and look why it was not"));
    }
    let noexec = "the file system is mounted noexec, so no node can be executed from it";
    flags
        .contains(StatVfsMountFlags::NOEXEC)
        .then_some((noexec, "mount it again with exec, or move the home"))
}

fn of_access(path: &Path) -> Option<Unfit> {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match accessat(CWD, path, all, AtFlags::EACCESS) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Some(Unfit {
            path: path.to_owned(),
            what: format!("user {} may not work in it", geteuid().as_raw()),
            hint: "run as the user that it belongs to, or chown it".to_owned(),
        }),
        // Missing, or a fault that shows later.
        Ok(()) | Err(_) => None,
    }
}

fn of_owner(path: &Path) -> Option<Unfit> {
    let (owner, us) = (fs::symlink_metadata(path).ok()?.uid(), geteuid().as_raw());
    is_foreign(owner, us).then(|| Unfit {
        path: path.to_owned(),
        what: format!("it belongs to user {owner}, but this is run by user {us}"),
        hint: format!("run as user {owner}, or give all of it to user {us}: chown -R {us}"),
    })
}

/// Root may work in the home of another user; then that user cannot any more, which is noticed when it tries.
fn is_foreign(owner: u32, us: u32) -> bool {
    owner != us && us != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_executes_or_keeps_nothing_is_named() {
        let both = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC;
        let what = |flags| of_flags(flags).map(|(what, _)| what.split(',').next().unwrap());
        assert_eq!(what(both), Some("the file system is read-only"));
        assert_eq!(what(StatVfsMountFlags::NOEXEC), Some("the file system is mounted noexec"));
        assert_eq!(what(StatVfsMountFlags::NOSUID), None);
    }

    #[test]
    fn what_another_user_has_left_in_the_state_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("wemixvisor/state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("journal.json"), "").unwrap();
        assert_eq!(check(dir.path(), &dir.path().join("data")), []);
        assert_eq!((is_foreign(0, 1000), is_foreign(1001, 1000), is_foreign(1000, 0)), (true, true, false));
    }

    #[test]
    fn a_real_file_system_of_that_kind_is_found() {
        // proc(5) is mounted noexec nearly everywhere.
        let noexec = statvfs("/proc").unwrap().f_flag.contains(StatVfsMountFlags::NOEXEC);
        assert_eq!(of_mount(Path::new("/proc"), StatVfsMountFlags::NOEXEC).is_some(), noexec);
        assert_eq!(of_mount(Path::new("/proc"), StatVfsMountFlags::empty()), None);
        assert_eq!(of_mount(Path::new("/nowhere"), StatVfsMountFlags::NOEXEC), None);
    }
}
