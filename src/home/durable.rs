//! The only code that may change state on disk, with [`slots`](super::slots): put, append, link, promote, mkdir.
//!
//! Each is atomic for a reader and durable when it returns: after a power cut the old thing or the
//! new one is there, never a part. A failed fsync is reported and never retried on the same file,
//! because the kernel may have dropped the dirty pages already (fsync(2)).
//!
//! A process that was killed right before a sync leaves what is there and not durable. So what is found as it should
//! be is synced as well before it is acknowledged.

use super::regular;
use super::trace::{Effect, note};
use crate::error::{Doing as _, Error, Kind, Result};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with, syncfs};
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Creates a directory and its missing parents with mode 0700, durably. One that exists is fine.
///
/// # Errors
/// If the operating system refuses, or something that is not a directory is in the way.
pub fn mkdir(path: &Path) -> Result<()> {
    let parent = parent_of(path);
    if path.is_dir() {
        return match sync_dir(parent) {
            // Where we may not look, we have made nothing.
            Err(e) if e.kind() == Kind::Permission => Ok(()),
            synced => synced,
        };
    }
    mkdir(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => note(Effect::Mkdir(path, 0o700)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) => return Err(Error::io("create directory", path, e)),
    }
    sync_dir(parent)
}

/// Replaces the file at `path` by `bytes` with `mode`, atomically and durably.
///
/// # Errors
/// If writing, syncing or renaming fails; the old file is then untouched.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temp = temp_beside(path);
    let written = write_new(&temp, bytes, mode).and_then(|()| rename(&temp, path));
    if written.is_err() {
        // The file is ours and incomplete; if it cannot be removed either, it is harmless.
        let _ = fs::remove_file(&temp);
    }
    written?;
    sync_dir(parent_of(path))
}

/// A value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("every key of a record is a string");
    text.push(b'\n');
    text
}

/// Adds one line to the file at `path`, durably. A torn last line of a crash is closed first.
///
/// # Errors
/// If writing or syncing fails; a part of the line may then be there.
pub fn append(path: &Path, line: &str, mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(mode);
    let (mut file, meta) = regular::open_with(&mut options, OFlags::empty(), path).doing("open", path)?;
    let len = meta.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1).doing("read", path)?;
    }
    note(Effect::Create(path, mode));
    let close = if last == [b'\n'] { "" } else { "\n" };
    let text = format!("{close}{line}\n");
    file.write_all(text.as_bytes()).doing("write", path)?;
    note(Effect::Write(path, len, text.as_bytes()));
    file.sync_all().doing("sync", path)?;
    note(Effect::Sync(path));
    sync_dir(parent_of(path))
}

/// Points the symbolic link at `path` to `target`, atomically and durably.
///
/// # Errors
/// If the link cannot be made or renamed, or if something other than a link is at `path`.
pub fn link(target: &Path, path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_symlink()) {
        let hint = "it is not a symbolic link; move it away";
        return Err(Error::new(Kind::Failed, "replace link").at(path.display()).hint(hint));
    }
    let temp = temp_beside(path);
    symlink(target, &temp).doing("create link", &temp)?;
    note(Effect::Symlink(target, &temp));
    rename(&temp, path).inspect_err(|_| {
        let _ = fs::remove_file(&temp);
    })?;
    sync_dir(parent_of(path))
}

/// Moves a finished file or directory tree to its final name, durably and without replacing anything.
///
/// Files and directories below `from` are synced bottom-up first, so what appears at `to` is whole.
///
/// # Errors
/// [`Kind::Failed`] if something is at `to` already; otherwise if the operating system refuses.
pub fn promote(from: &Path, to: &Path) -> Result<()> {
    sync_tree(from)?;
    publish(from, to)
}

/// The same for a tree of any size: instead of each of its files the whole file system is synced, once (syncfs(2)).
///
/// # Errors
/// As [`promote`]. Before Linux 5.8 a failed write is not reported.
pub fn promote_large(from: &Path, to: &Path) -> Result<()> {
    File::open(from).and_then(|dir| Ok(syncfs(dir)?)).doing("sync", from)?;
    note(Effect::SyncAll(from));
    publish(from, to)
}

fn publish(from: &Path, to: &Path) -> Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => note(Effect::Rename(from, to)),
        Err(rustix::io::Errno::EXIST) => {
            return Err(Error::new(Kind::Failed, "promote").at(to.display()).hint("it exists already"));
        }
        Err(e) => return Err(Error::io("promote to", to, e.into())),
    }
    sync_dir(parent_of(to))?;
    if parent_of(from) == parent_of(to) { Ok(()) } else { sync_dir(parent_of(from)) }
}

/// Exchanges two paths of one file system in one step, durably.
///
/// # Errors
/// If either is missing or the file system cannot do it.
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).doing("exchange with", b)?;
    note(Effect::Exchange(a, b));
    sync_dir(parent_of(b))?;
    if parent_of(a) == parent_of(b) { Ok(()) } else { sync_dir(parent_of(a)) }
}

/// Removes a file durably; a missing one is fine.
///
/// # Errors
/// If the operating system refuses.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => note(Effect::Remove(path)),
        Err(e) if e.kind() == ErrorKind::NotFound && !parent_of(path).is_dir() => return Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("remove", path, e)),
    }
    sync_dir(parent_of(path))
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// If opening or syncing fails.
#[cfg_attr(test, track_caller)]
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).doing("sync directory", path)?;
    note(Effect::Sync(path));
    Ok(())
}

/// Directories of any size that are not needed any more. They are renamed at once and removed when there is time; one that
/// is left over belongs to a dead process by then, and the next sweep finds it.
#[derive(Debug, Default)]
#[must_use = "it is removed by `remove` only"]
pub struct Rubbish(Vec<PathBuf>);

impl Rubbish {
    /// Gives the directory a temporary name. One that must keep its own, as on a disk that is too full for another name,
    /// is removed at once, as far as it can be.
    pub fn take(&mut self, path: &Path) {
        loop {
            let aside = temp_beside(path);
            match fs::rename(path, &aside) {
                Ok(()) => {
                    note(Effect::Rename(path, &aside));
                    return self.0.push(aside);
                }
                // An earlier process with our id has used the name.
                Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
                Err(_) => break,
            }
        }
        if fs::remove_dir_all(path).is_ok() {
            note(Effect::Remove(path));
        }
    }

    /// As [`sweep`], but directories are only found.
    pub fn sweep(&mut self, dir: &Path) {
        for (path, is_dir) in left_in(dir, |_| true) {
            if is_dir {
                self.0.push(path);
            } else if fs::remove_file(&path).is_ok() {
                // Left over once more it does no harm.
                note(Effect::Remove(&path));
            }
        }
    }

    /// Finds what dead processes of ours have put aside of `path`. Other files beside it may belong to other programs.
    pub fn find_aside(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = left_in(parent_of(path), |of| of == name);
        self.0.extend(aside.into_iter().filter(|(_, is_dir)| *is_dir).map(|(path, _)| path));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all that can be removed.
    pub fn remove(self) {
        for path in self.0 {
            if fs::remove_dir_all(&path).is_ok() {
                note(Effect::Remove(&path));
            }
        }
    }
}

/// Removes the temporary files and directories that dead processes of ours have left in a directory.
pub fn sweep(dir: &Path) {
    let mut rubbish = Rubbish::default();
    rubbish.sweep(dir);
    rubbish.remove();
}

/// The temporary names in a directory that dead processes of ours have given to these paths, and which are directories.
fn left_in(dir: &Path, of: impl Fn(&str) -> bool) -> Vec<(PathBuf, bool)> {
    let is_left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let parts = name.to_str().and_then(parts_of);
        parts.is_some_and(|(name, pid, serial)| of(name) && is_over(pid, serial))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().filter(is_left);
    entries.map(|entry| (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()))).collect()
}

/// The name, the process and its serial number in a name of [`temp_beside`].
fn parts_of(name: &str) -> Option<(&str, Pid, u64)> {
    let (name, tail) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (pid, serial) = tail.split_once('-')?;
    Some((name, Pid::from_raw(pid.parse().ok()?)?, serial.parse().ok()?))
}

/// Whether nothing writes under this name any more. In a container every supervisor has the same process id; what we
/// have not named yet is of an earlier one then.
fn is_over(pid: Pid, serial: u64) -> bool {
    if pid == rustix::process::getpid() {
        return serial >= COUNTER.load(Ordering::Relaxed);
    }
    test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// How many temporary names this process has given.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A name beside `path` that no other thread or process of ours uses.
pub fn temp_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{serial}.tmp", std::process::id()))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    // A file of this name can only be the remnant of a dead process that had our pid.
    if fs::remove_file(path).is_ok() {
        note(Effect::Remove(path));
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).doing("create", path)?;
    note(Effect::Create(path, mode));
    file.write_all(bytes).doing("write", path)?;
    note(Effect::Write(path, 0, bytes));
    file.sync_all().doing("sync", path)?;
    note(Effect::Sync(path));
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).doing("rename to", to)?;
    note(Effect::Rename(from, to));
    Ok(())
}

fn sync_tree(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).doing("inspect", path)?;
    // Links, sockets and pipes have no content of their own; opening one may fail, or wait for ever.
    if !meta.is_dir() && !meta.is_file() {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).doing("list", path)? {
            sync_tree(&entry.doing("list", path)?.path())?;
        }
    }
    File::open(path).and_then(|f| f.sync_all()).doing("sync", path)?;
    note(Effect::Sync(path));
    Ok(())
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn put_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        put(&file, b"one", 0o600).unwrap();
        put(&file, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["f"]);
    }

    #[test]
    fn put_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::create_dir(&file).unwrap();
        put(&file, b"x", 0o600).unwrap_err();
        assert_eq!(names(dir.path()), ["f"]);
    }

    #[test]
    fn sweep_takes_only_what_dead_processes_left() {
        let dir = tempfile::tempdir().unwrap();
        // Beyond the highest process id that Linux can give.
        let dead = format!(".f.{}-0.tmp", i32::MAX);
        let live = temp_beside(&dir.path().join("f"));
        let live = live.file_name().unwrap().to_str().unwrap();
        // Of a process that had our process id.
        let earlier = format!(".f.{}-{}.tmp", std::process::id(), u64::MAX);
        let dead_dir = format!(".d.{}-0.tmp", i32::MAX);
        fs::create_dir_all(dir.path().join(dead_dir).join("x")).unwrap();
        for name in [&*dead, &*earlier, live, ".f.tmp", "f.1-0.tmp", ".x.-1-0.tmp"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        sweep(dir.path());
        let mut kept = [live, ".f.tmp", "f.1-0.tmp", ".x.-1-0.tmp"];
        kept.sort_unstable();
        assert_eq!(names(dir.path()), kept);
    }

    #[test]
    fn rubbish_is_out_of_the_way_at_once_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.join("sub")).unwrap();
            path
        };
        let mut rubbish = Rubbish::default();
        // In a container an earlier process had our id, and has used the names that come next.
        let next = COUNTER.load(Ordering::Relaxed);
        for serial in next..next + 50 {
            made(&format!(".d.{}-{serial}.tmp", std::process::id()));
        }
        let path = made("d");
        rubbish.take(&path);
        assert!(!path.exists() && !rubbish.is_empty());
        // No other name can be had: it would be too long.
        let path = made(&"n".repeat(250));
        rubbish.take(&path);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_was_put_aside_of_a_path_is_found_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let aside = dir.path().join(format!(".d.{}-0.tmp", i32::MAX));
        let other = dir.path().join(format!(".e.{}-0.tmp", i32::MAX));
        let file = dir.path().join(format!(".d.{}-1.tmp", i32::MAX));
        fs::create_dir(&aside).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(&file, "").unwrap();
        let mut rubbish = Rubbish::default();
        rubbish.find_aside(&dir.path().join("d"));
        rubbish.remove();
        assert!(!aside.exists() && other.exists() && file.exists());
    }

    #[test]
    fn append_closes_a_torn_line_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        append(&file, "one", 0o600).unwrap();
        append(&file, "two", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        fs::write(&file, "one\ntw").unwrap();
        append(&file, "three", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn link_replaces_a_link_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        link(Path::new("genesis"), &path).unwrap();
        link(Path::new("upgrades/v2"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("upgrades/v2"));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        link(Path::new("genesis"), &file).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert_eq!(names(dir.path()), ["current", "file"]);
    }

    #[test]
    fn promote_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        mkdir(&a.join("bin")).unwrap();
        fs::write(a.join("bin/x"), "1").unwrap();
        // A file as a killed node leaves it among its data.
        drop(std::os::unix::net::UnixListener::bind(a.join("socket")).unwrap());
        symlink("nowhere", a.join("link")).unwrap();
        promote(&a, &b).unwrap();
        assert_eq!(fs::read(b.join("bin/x")).unwrap(), b"1");
        mkdir(&a).unwrap();
        promote(&a, &b).unwrap_err();
        assert_eq!(fs::read(b.join("bin/x")).unwrap(), b"1");
    }

    #[test]
    fn mkdir_makes_private_parents_and_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        mkdir(&deep).unwrap();
        mkdir(&deep).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dir.path().join("f"), "").unwrap();
        mkdir(&dir.path().join("f/x")).unwrap_err();
    }
}
