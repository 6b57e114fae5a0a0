//! Opening and reading files that other programs may have put there: never waiting, never without a limit.
//!
//! Opening a pipe blocks until another process writes to it, and a device may have no end. So every file is opened with
//! O_NONBLOCK, which has no effect on a regular file, and its type is checked before it is read.

use super::trace::{Effect, note};
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file for reading, at the end of links as well.
///
/// # Errors
/// If it is no regular file, or the operating system refuses.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    open_with(OpenOptions::new().read(true), OFlags::empty(), path)
}

/// The same, but a link is refused (`ELOOP`).
///
/// # Errors
/// As [`open`].
pub fn open_no_link(path: &Path) -> io::Result<(File, Metadata)> {
    open_with(OpenOptions::new().read(true), OFlags::NOFOLLOW, path)
}

/// Opens a file of ours, a lock for instance, for reading and writing. It is created with mode 0600 if it is not there.
///
/// # Errors
/// As [`open`].
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let (file, _) = open_with(&mut options, OFlags::empty(), path)?;
    note(Effect::Create(path, 0o600));
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// If it is larger; otherwise as [`open`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&open(path)?.0, limit)
}

/// The same for an open file, from where it is.
///
/// # Errors
/// If there is more, or reading fails.
pub fn read_open(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= limit {
        return Ok(bytes);
    }
    let (size, unit) = if limit >> 20 > 0 { (limit >> 20, "MiB") } else { (limit >> 10, "KiB") };
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {size} {unit}")))
}

/// None for what is not there.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Opens with these options and never waits. Any other type of file is an error of the kind `InvalidInput`.
///
/// # Errors
/// As [`open`].
pub fn open_with(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path).map_err(|e| match e.raw_os_error() {
        // A pipe without a reader that is opened for writing only, or a socket.
        Some(errno) if errno == rustix::io::Errno::NXIO.raw_os_error() => irregular(),
        _ => e,
    })?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta)) } else { Err(irregular()) }
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nothing_but_a_file_of_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "x".repeat(1024)).unwrap();
        assert_eq!(read(&path, 1024).unwrap().len(), 1024);
        fs::write(&path, "x".repeat(1025)).unwrap();
        assert_eq!(read(&path, 1024).unwrap_err().to_string(), "it is larger than 1 KiB");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        open(&link).unwrap();
        open_no_link(&link).unwrap_err();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let socket = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for odd in [&pipe, &socket, Path::new("/dev/zero"), dir.path()] {
            assert_eq!(read(odd, 1024).unwrap_err().to_string(), "it is not a regular file", "{odd:?}");
        }
        assert_eq!(open_own(&pipe).unwrap_err().to_string(), "it is not a regular file");
        let write_only = open_with(OpenOptions::new().write(true), OFlags::empty(), &pipe);
        assert_eq!(write_only.unwrap_err().to_string(), "it is not a regular file");
    }
}
