//! Free space on a file system, as a process without privileges may use it.

use crate::error::{Doing as _, Result};
use rustix::fs::{StatVfs, fstatvfs, statvfs};
use std::fs::File;
use std::path::Path;

/// Bytes and files: those that are free, or that something takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Amount {
    /// The bytes that are free on the file system of a directory, and the files that can still be made on it.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn free(path: &Path) -> Result<Amount> {
        let stat = statvfs(path).doing("look for free space on", path)?;
        // Some file systems make what a file takes when it is made, and have no number.
        let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok(Amount { bytes: bytes(stat), files })
    }
}

/// The words for the part of `needed` that is missing, if any is.
pub(crate) fn lacking(needed: Amount, free: Amount) -> Option<String> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (need, there, missing, unit) = if free.bytes < needed.bytes {
        (mib(needed.bytes), free.bytes >> 20, mib(needed.bytes - free.bytes), " MiB")
    } else if free.files < needed.files {
        (needed.files, free.files, needed.files - free.files, " inodes")
    } else {
        return None;
    };
    Some(format!("it needs {need}{unit}, {there}{unit} are available, {missing}{unit} are missing"))
}

/// The bytes that are free on the file system of the file or directory at `path`.
///
/// # Errors
/// If the operating system refuses.
pub fn free(path: &Path) -> Result<u64> {
    Amount::free(path).map(|free| free.bytes)
}

/// The free bytes beside a file that is open; `path` is for the message.
///
/// # Errors
/// As [`free`].
pub fn free_beside(file: &File, path: &Path) -> Result<u64> {
    fstatvfs(file).map(bytes).doing("look for free space on", path)
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped over a result")]
fn bytes(stat: StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_an_open_file_of_it_have_the_same_space() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let (one, other) = (free(dir.path()).unwrap(), free_beside(&file, dir.path()).unwrap());
        // Other tests write meanwhile.
        assert!(one > 0 && one.abs_diff(other) < 1 << 30, "{one} {other}");
        let missing = free(&dir.path().join("nothing")).unwrap_err();
        assert!(missing.to_string().contains("look for free space on"), "{missing}");
    }
}
