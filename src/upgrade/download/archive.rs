//! Taking the one binary out of what was downloaded.
//!
//! An archive gives bytes and nothing else: never a path, link, mode or owner. The file that is wanted
//! must be in it exactly once, at the top or in `bin/`; anything that has no place in a release (links,
//! devices, names that lead elsewhere, garbage at the end) makes the whole archive suspect and
//! refused. What comes out is limited, also in proportion to what went in.

use super::failure::cancelled;
use super::partial::require_space;
use super::source::Form;
use super::zip;
use crate::digest::{Algorithm, Digest, Hasher, read_some};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::upgrade::Cancel;
use flate2::bufread::MultiGzDecoder;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use tar::{EntryType, PaxExtensions};

/// An archive with more entries is refused.
pub(super) const ENTRIES: usize = 10_000;
/// An entry that inflates to more than this must not have shrunk to less than a hundredth.
const FREE: u64 = 16 * 1024 * 1024;
const RATIO: u64 = 100;
/// Extensions of tar headers that are longer are refused.
const EXTENSION: u64 = 64 * 1024;

/// The sink of the binary: counted, limited and hashed.
pub(super) struct Sink<'a> {
    path: &'a Path,
    file: File,
    hasher: Hasher,
    size: u64,
    limit: u64,
    cancel: &'a Cancel,
}

/// A file as it was downloaded, and the name of the binary in it.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Its form, by its name.
    pub form: Form,
    /// Where it is.
    pub path: &'a Path,
    /// The name of the binary.
    pub daemon: &'a str,
}

impl Packed<'_> {
    /// Takes the binary out and writes it to `to`, which is replaced if it exists and is not executable. Returns its SHA-256
    /// and its size, which is at most `max_size`.
    ///
    /// # Errors
    /// [`Kind::BadInput`] with what is wrong with the archive; [`Kind::Io`] if the disk is full or fails;
    /// [`Kind::Failed`] if it was cancelled. Nothing is left at `to` then.
    pub fn extract(self, to: &Path, max_size: u64, cancel: &Cancel) -> Result<(Digest, u64)> {
        let Packed { form, path, daemon } = self;
        let archive = File::open(path).doing("open", path)?;
        let packed = archive.metadata().doing("inspect", path)?.len();
        let limit = max_size.min(FREE.saturating_add(packed.saturating_mul(RATIO)));
        let mut sink = Sink::create(to, limit, cancel)?;
        let input = BufReader::with_capacity(64 * 1024, archive);
        let taken = match form {
            Form::Bare => sink.take(input),
            Form::Gzip => sink.take(MultiGzDecoder::new(input)),
            // Other files may take as much again.
            Form::TarGzip => tar(MultiGzDecoder::new(input), limit.saturating_mul(2), daemon, &mut sink),
            Form::Zip => zip::extract(input, packed, daemon, &mut sink),
        };
        let done = taken.and_then(|()| sink.finish()).map_err(|e| match e {
            Trouble::Archive(why) => {
                Error::new(Kind::BadInput, "take the binary out of").at(path.display()).because(why)
            }
            Trouble::Ours(error) => error,
        });
        if done.is_err() {
            // A part of a binary is of no use; left over it does no harm.
            let _ = fs::remove_file(to);
        }
        done
    }
}

/// A failure: of the archive, or of our own disk.
#[derive(Debug)]
pub(super) enum Trouble {
    Archive(String),
    Ours(Error),
}

impl From<io::Error> for Trouble {
    /// An error while reading the archive is nearly always a fault in its compressed data.
    fn from(err: io::Error) -> Self {
        // The libraries quote what they could not read.
        Trouble::Archive(err.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect())
    }
}

pub(super) fn bad<T>(why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Archive(why.into()))
}

impl<'a> Sink<'a> {
    fn create(path: &'a Path, limit: u64, cancel: &'a Cancel) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .doing("create", path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).doing("chmod", path)?;
        Ok(Sink { path, file, hasher: Hasher::new(Algorithm::Sha256), size: 0, limit, cancel })
    }

    /// Makes sure that a binary of an announced size is allowed and has room.
    pub(super) fn expect(&self, size: u64) -> Result<(), Trouble> {
        if size > self.limit {
            return bad(format!("the binary has {size} bytes, but at most {} are allowed", self.limit));
        }
        require_space(&self.file, self.path, size).map_err(Trouble::Ours)
    }

    /// Takes everything that `from` yields.
    pub(super) fn take(&mut self, mut from: impl Read) -> Result<(), Trouble> {
        let mut chunk = vec![0; 64 * 1024];
        while let n @ 1.. = read_some(&mut from, &mut chunk)? {
            self.size += n as u64;
            if self.size > self.limit {
                return bad(format!("the binary has more than the {} bytes that are allowed", self.limit));
            }
            if self.cancel.is_cancelled() {
                return Err(Trouble::Ours(cancelled(self.path.display())));
            }
            require_space(&self.file, self.path, n as u64).map_err(Trouble::Ours)?;
            self.hasher.update(&chunk[..n]);
            self.file.write_all(&chunk[..n]).map_err(|e| Trouble::Ours(Error::io("write", self.path, e)))?;
        }
        Ok(())
    }

    /// How much has been taken.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn finish(self) -> Result<(Digest, u64), Trouble> {
        self.file.sync_all().map_err(|e| Trouble::Ours(Error::io("sync", self.path, e)))?;
        Ok((self.hasher.finish(), self.size))
    }
}

/// Whether an entry's name is that of the file that is wanted.
///
/// # Errors
/// If the name leads out of the archive, or is read differently by different programs.
pub(super) fn is_wanted(name: &[u8], daemon: &str) -> Result<bool, Trouble> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(80)]).into_owned();
    let strange = name.is_empty() || name.contains(&0) || name.contains(&b'\\') || name[0] == b'/';
    if strange || name.split(|b| *b == b'/').any(|part| part == b"..") {
        return bad(format!("it has an entry with the dangerous name {:?}", shown()));
    }
    let mut parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let path = (parts.next(), parts.next(), parts.next());
    let daemon = daemon.as_bytes();
    let at_top = path == (Some(daemon), None, None);
    let in_bin = path == (Some(b"bin"), Some(daemon), None);
    Ok(at_top || in_bin)
}

pub(super) fn missing<T>(daemon: &str) -> Result<T, Trouble> {
    bad(format!("it has neither {daemon} nor bin/{daemon}"))
}

pub(super) fn twice<T>(daemon: &str) -> Result<T, Trouble> {
    bad(format!("it has {daemon} more than once"))
}

/// Reads a tar archive from end to end and takes the one file.
///
/// The entries are read raw: the library would hold long names in memory at whatever length they claim.
fn tar(input: impl Read, limit: u64, daemon: &str, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    let mut archive = tar::Archive::new(Counted { input, count: 0, limit });
    let mut search = Search { daemon, found: false, extended: false, name: None };
    let (mut entries, mut end) = (0, Some(0));
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        entries += 1;
        if entries > ENTRIES {
            return bad(format!("it has more than {ENTRIES} entries"));
        }
        if sink.cancel.is_cancelled() {
            return Err(Trouble::Ours(cancelled(sink.path.display())));
        }
        let size = entry.header().entry_size()?;
        end = size.checked_next_multiple_of(512).and_then(|s| s.checked_add(entry.raw_file_position()));
        search.look_at(&mut entry, size, sink)?;
    }
    let mut rest = archive.into_inner();
    let ended = end.is_some_and(|end| rest.count > end);
    if search.extended || !ended {
        return bad("it is cut short");
    }
    let mut chunk = [0; 4096];
    while let n @ 1.. = rest.read(&mut chunk)? {
        if chunk[..n].iter().any(|b| *b != 0) {
            return bad("something follows after its end");
        }
    }
    if search.found { Ok(()) } else { missing(daemon) }
}

/// The search for the one file, entry by entry.
struct Search<'a> {
    daemon: &'a str,
    found: bool,
    /// Whether the last entry was one that describes the next one, and the name that those give to it.
    extended: bool,
    name: Option<Vec<u8>>,
}

impl Search<'_> {
    fn look_at<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        size: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), Trouble> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => match read_extension(kind, size, entry)? {
                Some(_) => bad("it gives all its entries one name"),
                None => Ok(()),
            },
            EntryType::GNULongName | EntryType::XHeader => {
                let name = read_extension(kind, size, entry)?;
                if self.name.is_some() && name.is_some() {
                    return bad("it gives an entry two names");
                }
                (self.extended, self.name) = (true, self.name.take().or(name));
                Ok(())
            }
            EntryType::Regular | EntryType::Directory => {
                let name = self.name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                self.extended = false;
                let wanted = is_wanted(&name, self.daemon)?;
                // In old archives only the end of its name marks a directory.
                let is_dir = kind == EntryType::Directory || name.ends_with(b"/");
                match wanted {
                    _ if is_dir && (wanted || size > 0) => bad("it has a directory in the place of a file"),
                    true => self.take(entry, size, sink),
                    false => Ok(()),
                }
            }
            other => {
                let letter = char::from(other.as_byte());
                bad(format!("it has a link, device or other special entry (type {letter:?})"))
            }
        }
    }

    fn take(&mut self, entry: impl Read, size: u64, sink: &mut Sink<'_>) -> Result<(), Trouble> {
        if std::mem::replace(&mut self.found, true) {
            return twice(self.daemon);
        }
        sink.expect(size)?;
        sink.take(entry)?;
        if sink.size == size { Ok(()) } else { bad("it is cut short") }
    }
}

/// Reads an entry that describes another one, and returns the name that it gives.
fn read_extension(kind: EntryType, size: u64, data: &mut impl Read) -> Result<Option<Vec<u8>>, Trouble> {
    if size > EXTENSION {
        return bad(format!("it has a header extension of {size} bytes"));
    }
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return bad("it is cut short");
    }
    if kind == EntryType::GNULongName {
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        return Ok(Some(bytes));
    }
    let mut name = None;
    for record in PaxExtensions::new(&bytes) {
        let record = record?;
        match record.key_bytes() {
            b"path" => name = Some(record.value_bytes().to_vec()),
            // It would overrule the size in the header.
            b"size" => return bad("it gives the size of an entry twice"),
            key if key.starts_with(b"GNU.sparse") => return bad("it has a sparse file"),
            _ => {}
        }
    }
    Ok(name)
}

/// Counts what it yields, and fails when that is too much.
struct Counted<R> {
    input: R,
    count: u64,
    limit: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.count += n as u64;
        if self.count > self.limit {
            return Err(io::Error::other(format!("it inflates to more than {} bytes", self.limit)));
        }
        Ok(n)
    }
}
