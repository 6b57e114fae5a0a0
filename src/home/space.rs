//! Free space on a file system, as a process without privileges may use it.

use crate::error::{Error, Kind, Result};
use rustix::fs::{StatVfs, fstatvfs, statvfs};
use std::fs::File;
use std::path::Path;

/// The bytes that are free on the file system of the file or directory at `path`.
///
/// # Errors
/// If the operating system does not say.
pub fn free(path: &Path) -> Result<u64> {
    statvfs(path).map(bytes).map_err(|e| Error::io("look for free space on", path, e.into()))
}

/// The number of files that can still be made on the file system of a directory.
///
/// # Errors
/// As [`free`].
pub fn free_files(path: &Path) -> Result<u64> {
    let stat = statvfs(path).map_err(|e| Error::io("look for free space on", path, e.into()))?;
    // Some file systems make what a file takes when it is made, and have no number.
    Ok(if stat.f_files == 0 { u64::MAX } else { stat.f_favail })
}

/// The free bytes beside a file that is open; `path` is for the message.
///
/// # Errors
/// As [`free`].
pub fn free_beside(file: &File, path: &Path) -> Result<u64> {
    fstatvfs(file).map(bytes).map_err(|e| Error::io("look for free space on", path, e.into()))
}

/// That `needed` bytes are not there for what is to be done.
pub(crate) fn too_little(what: &str, path: &Path, needed: u64, free: u64) -> Error {
    Error::new(Kind::Io, format!("too little space {what}")).at(path.display()).because(format!(
        "it needs {} MiB, {} MiB are available",
        needed >> 20,
        free >> 20
    ))
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
