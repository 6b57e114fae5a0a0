//! Bringing one file to another place by the cheapest method that is safe for it, with everything that belongs to it.
//!
//! A clone (FICLONE) shares its blocks with the original until either is written to. A hard link is the same file, and
//! so only good for one that is never written again. A copy is its own file; it keeps the holes of a sparse one. Clones
//! and copies get mode, owner, times and extended attributes of the original. Nothing is synced here, but the kernel
//! begins early to write copies, so that little is left when all is synced. While a node runs, what is written of them
//! does not stay in memory, which is the node's.

use super::work::Gauge;
use crate::error::{Doing as _, Error, Result};
use crate::home::beneath::Beneath;
use crate::home::stamp::LastingStamp;
use crate::home::trace::{Effect, note};
use crate::sys;
use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, SeekFrom, Timespec, Timestamps, copy_file_range, fadvise,
    fallocate, fchown, fgetxattr, flistxattr, flistxattr_query, fsetxattr, futimens, ioctl_ficlone, linkat,
    seek,
};
use rustix::fs::{Gid, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const CHUNK: u64 = 1024 * 1024;
/// The bytes that are read at once. A larger buffer does not stay in the cache of the processor.
const BUFFER: usize = 256 * 1024;
/// After this many bytes the kernel begins to write.
const FLUSH: u64 = 16 * CHUNK;
/// The part before the end of a file that was copied earlier, which must still be the same for more to be appended.
const OVERLAP: u64 = 256 * 1024;

/// How a file has got into a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// It shares its blocks with the original until either is written to.
    Reflink,
    /// It is another name of the original.
    Hardlink,
    /// Its bytes were copied.
    #[default]
    Copy,
}

/// The methods to try for a file, the cheapest first. A copy is always possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) reflink: bool,
    pub(super) hardlink: bool,
    /// Whether a copy may share blocks: copy_file_range(2) makes clones where it can.
    pub(super) may_share: bool,
}

impl Ways {
    /// A copy, in the way of the file system.
    pub(super) const COPY: Ways = Ways { reflink: false, hardlink: false, may_share: true };
}

/// The outcome for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is there, as it was when it had this stamp.
    There(Method, LastingStamp),
    /// The original was removed.
    Gone,
    /// The original is not what it was a moment ago.
    Changed,
}

impl Method {
    /// All, the cheapest first.
    pub const ALL: [Method; 3] = [Method::Reflink, Method::Hardlink, Method::Copy];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Reflink => "reflink",
            Method::Hardlink => "hardlink",
            Method::Copy => "copy",
        })
    }
}

/// Brings the file at `path` below `from` to `to`, where nothing is yet. It had the stamp `seen` when it was listed.
/// A copy of a file that has changed since is removed again.
pub(super) fn bring(
    from: &mut Beneath,
    (path, seen): (&Path, &LastingStamp),
    to: &Path,
    ways: Ways,
    gauge: &dyn Gauge,
) -> Result<Brought> {
    let (source, meta) = match from.file(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Brought::Gone),
        Err(e) if is_another_kind(&e) => return Ok(Brought::Changed),
        Err(e) => return Err(Error::io("open", &from.full(path), e)),
    };
    let original = Original { source, meta, path: from.full(path) };
    let stamp = LastingStamp::from(&original.meta);
    if !stamp.has_content_of(seen) {
        return Ok(Brought::Changed);
    }
    let method = match original.share((from, path), to, ways)? {
        Some(method) => method,
        None => {
            original.copy(to, 0, ways, gauge).inspect_err(|_| remove(to))?;
            Method::Copy
        }
    };
    if method != Method::Copy {
        gauge.add(stamp.len).inspect_err(|_| remove(to))?;
    }
    // A link is the same file, whatever becomes of it.
    if method != Method::Hardlink && !original.is_unchanged()? {
        remove(to);
        return Ok(Brought::Changed);
    }
    Ok(Brought::There(method, stamp))
}

/// Appends to the copy at `to`, made when the file at `path` had `known` bytes, what the file has got since. None if it
/// is another one by now, or was changed anywhere but at its end, as far as the bytes before the end tell.
pub(super) fn catch_up(
    from: &mut Beneath,
    (path, known): (&Path, u64),
    to: &Path,
    gauge: &dyn Gauge,
) -> Result<Option<LastingStamp>> {
    let Ok((source, meta)) = from.file(path) else { return Ok(None) };
    let original = Original { source, meta, path: from.full(path) };
    if original.meta.len() < known || !original.ends_like(to, known)? {
        return Ok(None);
    }
    original.copy(to, known, Ways::COPY, gauge)?;
    Ok(original.is_unchanged()?.then_some(LastingStamp::from(&original.meta)))
}

fn is_another_kind(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    e.kind() == io::ErrorKind::InvalidInput || matches!(errno, Some(Errno::LOOP | Errno::NOTDIR))
}

/// Removes what was begun. Left over it is in a directory that is removed as a whole.
fn remove(path: &Path) {
    if fs::remove_file(path).is_ok() {
        note(Effect::Remove(path));
    }
}

/// A file that is open, as it was then.
struct Original {
    source: File,
    meta: Metadata,
    /// For people.
    path: PathBuf,
}

impl Original {
    /// The file as another name or as a clone; None if neither is possible.
    fn share(&self, from: (&mut Beneath, &Path), to: &Path, ways: Ways) -> Result<Option<Method>> {
        if ways.reflink && self.meta.len() > 0 && self.clone_to(to)? {
            return Ok(Some(Method::Reflink));
        }
        let linked = ways.hardlink && self.link_to(from, to)?;
        Ok(linked.then_some(Method::Hardlink))
    }

    fn clone_to(&self, to: &Path) -> Result<bool> {
        let copy = create(to)?;
        match ioctl_ficlone(&copy, &self.source) {
            Ok(()) => {
                note(Effect::Filled(to, 0, self.meta.len()));
                self.copy_attributes(&copy, to)?;
                Ok(true)
            }
            Err(e) => {
                remove(to);
                if is_of_the_disk(e) { Err(Error::io("clone to", to, e.into())) } else { Ok(false) }
            }
        }
    }

    /// Never through a link that has taken the place of the file: what is linked must be what is open.
    fn link_to(&self, (from, path): (&mut Beneath, &Path), to: &Path) -> Result<bool> {
        let Ok((dir, name)) = from.parent(path) else { return Ok(false) };
        match linkat(dir, name, CWD, to, AtFlags::empty()) {
            Ok(()) => {}
            Err(e) if is_of_the_disk(e) => return Err(Error::io("link to", to, e.into())),
            Err(_) => return Ok(false),
        }
        let is_it =
            fs::symlink_metadata(to).is_ok_and(|meta| meta.ino() == self.meta.ino() && meta.is_file());
        if is_it {
            note(Effect::Hardlink(&self.path, to));
        } else {
            // It was not recorded yet.
            let _ = fs::remove_file(to);
        }
        Ok(is_it)
    }

    /// Copies the bytes from an offset on: up to it the file at `to` has them already.
    fn copy(&self, to: &Path, offset: u64, ways: Ways, gauge: &dyn Gauge) -> Result<()> {
        let written = |e: io::Error| Error::io("write", to, e);
        let copy = if offset == 0 {
            create(to)?
        } else {
            OpenOptions::new().write(true).open(to).map_err(written)?
        };
        let end = self.meta.len();
        if !self.is_sparse() {
            reserve(&copy, offset, end - offset);
        }
        let mut pipe = Pipe::new((&self.source, &self.path), (&copy, to));
        pipe.in_kernel = ways.may_share;
        let (mut at, mut flushed) = (offset, offset);
        while at < end {
            let (from, until) = self.data(at, end)?;
            gauge.add(from - at)?;
            at = from;
            while at < until {
                let moved = pipe.carry(at, CHUNK.min(until - at))?;
                // It got shorter meanwhile.
                if moved == 0 {
                    return Ok(());
                }
                note(Effect::Filled(to, at, moved));
                at += moved;
                gauge.add(moved)?;
                if at - flushed >= FLUSH {
                    sys::begin_writing(&copy, flushed, at - flushed);
                    if gauge.is_background() {
                        forget(&copy, flushed);
                    }
                    flushed = at;
                }
            }
        }
        if copy.metadata().map_err(written)?.len() < end {
            // It ends with a hole.
            copy.set_len(end).map_err(written)?;
        }
        sys::begin_writing(&copy, flushed, at - flushed);
        self.copy_attributes(&copy, to)
    }

    fn is_sparse(&self) -> bool {
        self.meta.blocks().saturating_mul(512) < self.meta.len()
    }

    /// The next bytes that are there from `at` on; where there is a hole up to the end, nothing at the end.
    fn data(&self, at: u64, end: u64) -> Result<(u64, u64)> {
        if !self.is_sparse() {
            return Ok((at, end));
        }
        let data = match seek(&self.source, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => return Ok((end, end)),
            // The file system does not report holes.
            Err(_) => return Ok((at, end)),
        };
        let hole = seek(&self.source, SeekFrom::Hole(data)).map_or(end, |hole| hole.min(end));
        Ok((data, hole.max(data)))
    }

    /// Whether the last bytes of the first `known` are the same in the copy.
    fn ends_like(&self, to: &Path, known: u64) -> Result<bool> {
        let at = known.saturating_sub(OVERLAP);
        let length = usize::try_from(known - at).unwrap_or(0);
        let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
        let copy = File::open(to).doing("open", to)?;
        let is_as_long = copy.metadata().is_ok_and(|meta| meta.len() == known);
        let read =
            copy.read_exact_at(&mut ours, at).and_then(|()| self.source.read_exact_at(&mut theirs, at));
        Ok(is_as_long && read.is_ok() && ours == theirs)
    }

    fn is_unchanged(&self) -> Result<bool> {
        let now = self.source.metadata().doing("inspect", &self.path)?;
        Ok(LastingStamp::from(&now).has_content_of(&LastingStamp::from(&self.meta)))
    }

    /// Gives the copy what belongs to the original beside its bytes.
    fn copy_attributes(&self, copy: &File, to: &Path) -> Result<()> {
        keep_attributes(&self.source, &self.meta, copy, to)?;
        let mode = self.meta.mode() & 0o7777;
        copy.set_permissions(Permissions::from_mode(mode)).doing("chmod", to)?;
        note(Effect::Mode(to, mode));
        // Last: everything before changes them.
        keep_times(&self.meta, copy).doing("set the times of", to)
    }
}

/// Gives `copy` the owner and the extended attributes of what `meta` is about. Those that only root may set are left
/// out where we are not root.
pub(super) fn keep_attributes(source: &File, meta: &Metadata, copy: &File, to: &Path) -> Result<()> {
    let failed = |e: Errno| Error::io("set attributes of", to, e.into());
    let now = copy.metadata().doing("inspect", to)?;
    if (now.uid(), now.gid()) != (meta.uid(), meta.gid()) {
        let owner = (Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())));
        match fchown(copy, owner.0, owner.1) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    // Most files have none.
    let Ok(length @ 1..) = flistxattr_query(source) else { return Ok(()) };
    let mut names = vec![0; length];
    let Ok(length) = flistxattr(source, &mut names[..]) else { return Ok(()) };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 * 1024];
        let Ok(length) = fgetxattr(source, name, &mut value[..]) else { continue };
        match fsetxattr(copy, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(())
}

/// Gives `copy` the times of what `meta` is about.
pub(super) fn keep_times(meta: &Metadata, copy: &File) -> io::Result<()> {
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(futimens(copy, &times)?)
}

fn create(to: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let copy = options.read(true).write(true).create_new(true).mode(0o600).open(to);
    let copy = copy.doing("write", to)?;
    note(Effect::Create(to, 0o600));
    Ok(copy)
}

/// Gives a file its blocks before they are written, where the file system can: to find them for each part that the kernel
/// begins to write costs the processor a third of the copy. What is lacking is reported when it is written.
fn reserve(file: &File, at: u64, length: u64) {
    if length >= CHUNK {
        let _ = fallocate(file, FallocateFlags::empty(), at, length);
    }
}

/// Whether another method would not help.
fn is_of_the_disk(e: Errno) -> bool {
    matches!(e, Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS)
}

/// Has the kernel keep nothing in memory of the first bytes of a file. What is still being written stays.
fn forget(file: &File, length: u64) {
    if let Some(length) = NonZero::new(length) {
        let _ = fadvise(file, 0, Some(length), Advice::DontNeed);
    }
}

/// Carries bytes from one file to another, in the kernel where that can do it.
pub(in crate::upgrade) struct Pipe<'a> {
    /// Each file with its path, for messages.
    source: (&'a File, &'a Path),
    copy: (&'a File, &'a Path),
    in_kernel: bool,
    buffer: Vec<u8>,
}

impl<'a> Pipe<'a> {
    pub(in crate::upgrade) fn new(source: (&'a File, &'a Path), copy: (&'a File, &'a Path)) -> Self {
        Pipe { source, copy, in_kernel: true, buffer: Vec::new() }
    }

    /// Carries up to `length` bytes. None are left where 0 is returned.
    pub(in crate::upgrade) fn carry(&mut self, at: u64, length: u64) -> Result<u64> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        while self.in_kernel {
            let (mut from, mut to) = (at, at);
            match copy_file_range(self.source.0, Some(&mut from), self.copy.0, Some(&mut to), length) {
                // Some file systems return this in the middle of a file.
                Ok(0) => self.in_kernel = false,
                Ok(moved) => return Ok(moved as u64),
                Err(Errno::INTR) => {}
                Err(e) if is_of_the_disk(e) => return Err(self.failed(e)),
                // Between these two it cannot.
                Err(_) => self.in_kernel = false,
            }
        }
        self.buffer.resize(length.min(BUFFER), 0);
        let read = loop {
            match self.source.0.read_at(&mut self.buffer, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read.doing("read", self.source.1)?,
            }
        };
        self.copy.0.write_all_at(&self.buffer[..read], at).doing("write", self.copy.1)?;
        Ok(read as u64)
    }

    fn failed(&self, e: Errno) -> Error {
        Error::io(format!("copy {} to", self.source.1.display()), self.copy.1, e.into())
    }
}
