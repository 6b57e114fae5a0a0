//! Opening what is below a directory without following any link, neither at the end of a path nor on the way.
//!
//! A path names whatever is there when it is resolved: a directory that another process replaces by a link in between
//! leads out of the tree. So each component is opened from the one before, and a link is refused (`ELOOP` or `ENOTDIR`).
//! openat2(2) would do the same in one call, but sandboxes refuse it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A directory, and the one below it that was asked for last.
#[derive(Debug)]
pub struct Beneath {
    path: PathBuf,
    root: OwnedFd,
    last: Option<(PathBuf, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Beneath {
    /// The directory at `root`, at the end of links as well.
    ///
    /// # Errors
    /// If it is no directory, or the operating system refuses.
    pub fn new(root: &Path) -> io::Result<Self> {
        let opened = openat(CWD, root, DIRECTORY, Mode::empty())?;
        Ok(Beneath { path: root.to_owned(), root: opened, last: None })
    }

    /// The path by which people know what is at `path` below the root.
    pub fn full(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// The directory at a path below the root; the empty path is the root itself.
    ///
    /// # Errors
    /// If there is a link on the way, or the operating system refuses.
    pub fn dir(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let opened = self.open_dir(path)?;
            self.last = Some((path.to_owned(), opened));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd()))
    }

    /// The directory that holds what is at `path`, and the name there.
    ///
    /// # Errors
    /// As [`Beneath::dir`].
    pub fn parent<'p>(&mut self, path: &'p Path) -> io::Result<(BorrowedFd<'_>, &'p Path)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, Path::new(name)))
    }

    /// Opens a regular file for reading. It never waits.
    ///
    /// # Errors
    /// The kind `InvalidInput` if it is of another type; otherwise as [`Beneath::dir`].
    pub fn file(&mut self, path: &Path) -> io::Result<(File, Metadata)> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NXIO) => return Err(irregular()),
            Err(e) => return Err(e.into()),
        };
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(irregular()) }
    }

    /// The status of the file at `path`, without following it.
    ///
    /// # Errors
    /// As [`Beneath::dir`].
    pub fn stat(&mut self, path: &Path) -> io::Result<Stat> {
        let (dir, name) = self.parent(path)?;
        Ok(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut dir = None;
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(Errno::INVAL.into()) };
            let from = dir.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            dir = Some(openat(from, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
        }
        dir.ok_or_else(|| Errno::INVAL.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_neither_at_the_end_nor_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        symlink("b", root.join("a/link")).unwrap();
        symlink("file", root.join("a/b/to-file")).unwrap();
        let mut beneath = Beneath::new(root).unwrap();
        assert_eq!(beneath.file(Path::new("a/b/file")).unwrap().1.len(), 1);
        assert!(beneath.stat(Path::new("a/b/to-file")).unwrap().st_size == 4);
        for path in ["a/link/file", "a/b/to-file", "a/b", "../x", "a/../a/b/file"] {
            beneath.file(Path::new(path)).unwrap_err();
        }
        // An open directory stays the same one, wherever its name leads now.
        beneath.dir(Path::new("a/b")).unwrap();
        fs::rename(root.join("a/b"), root.join("a/c")).unwrap();
        beneath.file(Path::new("a/b/file")).unwrap();
    }

    #[test]
    fn a_pipe_is_refused_without_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("pipe"), Mode::RWXU).unwrap();
        let refused = Beneath::new(dir.path()).unwrap().file(Path::new("pipe")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
