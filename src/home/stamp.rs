//! The identity of a file, and whether it has changed, for one stat(2).

use crate::error::{Doing as _, Result};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells a file apart from every other and from itself after a change, while the machine runs.
///
/// The change time cannot be set by a program. Taken before a full check and found equal later,
/// a stamp means that the file is still the one that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    file: LastingStamp,
}

impl Stamp {
    /// The stamp of the file at `path`, which must not be a link.
    ///
    /// # Errors
    /// If it cannot be examined.
    pub fn of(path: &Path) -> Result<Self> {
        Ok(Stamp::from(&fs::symlink_metadata(path).doing("inspect", path)?))
    }

    /// Whether the last change is old enough to be told apart from one that follows this look: file systems count time in
    /// steps of a few milliseconds.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, _) = self.file.changed;
        let changed = u64::try_from(seconds).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > Duration::from_secs(2)))
    }
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Stamp { device: meta.dev(), file: LastingStamp::from(meta) }
    }
}

/// A stamp that stays valid after a boot, for files of one file system: the number of that may change then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastingStamp {
    /// The inode number.
    pub inode: u64,
    /// The length in bytes.
    pub len: u64,
    /// When the content was written last, in seconds and nanoseconds. A program can set it.
    pub modified: (i64, i64),
    /// When anything of it was changed last, its names included: no write leaves it as it is.
    pub changed: (i64, i64),
}

impl LastingStamp {
    /// Whether inode, length and time of the content are the same. Another name of the file does not matter.
    pub fn has_content_of(&self, other: &LastingStamp) -> bool {
        LastingStamp { changed: other.changed, ..*self } == *other
    }
}

impl From<&Metadata> for LastingStamp {
    fn from(meta: &Metadata) -> Self {
        LastingStamp {
            inode: meta.ino(),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Whether two looks were at one file, whatever it is called.
pub fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"one").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), stamp);
        // Same size and same modification time, but another file.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::rename(&path, path.with_file_name("old")).unwrap();
        fs::write(&path, b"two").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), stamp);
        let look = |name| fs::metadata(dir.path().join(name)).unwrap();
        assert!(!is_same_file(&look("f"), &look("old")) && is_same_file(&look("old"), &look("old")));
        let (stamp, now) = (Stamp::of(&path).unwrap(), SystemTime::now());
        assert!(!stamp.is_settled(now) && stamp.is_settled(now + Duration::from_secs(4)));
        fs::remove_file(&path).unwrap();
        Stamp::of(&path).unwrap_err();
    }
}
