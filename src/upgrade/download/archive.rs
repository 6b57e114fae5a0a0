//! Taking the one binary out of what was downloaded.
//!
//! An archive gives bytes and nothing else: never a path, link, mode or owner. The file that is wanted
//! must be in it exactly once, at the top or in `bin/`, or so in the only directory at the top; anything that has no place in a release (links,
//! devices, names that lead elsewhere, garbage at the end) makes the whole archive suspect and
//! refused. What comes out is limited, also in proportion to what went in.

use super::failure::cancelled;
use super::partial::require_space;
use super::source::Form;
use super::zip;
use crate::digest::{Algorithm, Digest, Hasher, read_some};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::printable::foreign;
use crate::upgrade::Cancel;
use flate2::bufread::MultiGzDecoder;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, Write as _};
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
        Trouble::Archive(foreign(&err.to_string()))
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

    /// Forgets all that was taken.
    fn restart(&mut self) -> Result<(), Trouble> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|e| Trouble::Ours(Error::io("empty", self.path, e)))?;
        (self.hasher, self.size) = (Hasher::new(Algorithm::Sha256), 0);
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

/// The place of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// That of the binary: at the top or in `bin/`.
    Here,
    /// The same in a directory at the top, which counts if that holds all there is.
    Below,
    /// Any other.
    Elsewhere,
}

/// The entries of an archive that may be the one that is wanted.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    daemon: &'a str,
    /// The first name at the top, and whether there are others.
    top: Option<Vec<u8>>,
    several: bool,
    here: usize,
    below: usize,
    /// Whether a directory is in the place of the binary.
    directory: bool,
}

impl<'a> Layout<'a> {
    pub(super) fn new(daemon: &'a str) -> Self {
        Layout { daemon, top: None, several: false, here: 0, below: 0, directory: false }
    }

    /// Takes note of an entry and returns its place; that of a directory is always elsewhere.
    ///
    /// # Errors
    /// If the name leads out of the archive, or is read differently by different programs.
    pub(super) fn see(&mut self, name: &[u8], is_dir: bool) -> Result<Place, Trouble> {
        let strange = name.is_empty() || name.contains(&0) || name.contains(&b'\\') || name[0] == b'/';
        if strange || name.split(|b| *b == b'/').any(|part| part == b"..") {
            let shown = foreign(&String::from_utf8_lossy(name));
            return bad(format!("it has an entry with the dangerous name {shown:?}"));
        }
        let parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<&[u8]> = parts.take(4).collect();
        if let Some(first) = parts.first() {
            self.several |= self.top.get_or_insert_with(|| first.to_vec()) != first;
        }
        let daemon = self.daemon.as_bytes();
        let is_wanted = |parts: &[&[u8]]| *parts == [daemon] || *parts == [b"bin", daemon];
        match parts.as_slice() {
            here if is_wanted(here) && is_dir => self.directory = true,
            _ if is_dir => {}
            here if is_wanted(here) => {
                self.here += 1;
                return Ok(Place::Here);
            }
            [_, below @ ..] if is_wanted(below) => {
                self.below += 1;
                return Ok(Place::Below);
            }
            _ => {}
        }
        Ok(Place::Elsewhere)
    }

    /// The place of the binary, once all entries were seen.
    ///
    /// # Errors
    /// If it is not in exactly one place.
    pub(super) fn judge(&self) -> Result<Place, Trouble> {
        let daemon = self.daemon;
        let below = if self.several { 0 } else { self.below };
        match (self.here, below) {
            (0, 1) => Ok(Place::Below),
            (1.., _) | (0, 0) if self.directory => bad("it has a directory in the place of a file"),
            (1, _) => Ok(Place::Here),
            (0, 0) => {
                bad(format!("it has neither {daemon} nor bin/{daemon}, at the top or in its only directory"))
            }
            _ => bad(format!("it has {daemon} more than once")),
        }
    }
}

/// Reads a tar archive from end to end and takes the one file.
///
/// The entries are read raw: the library would hold long names in memory at whatever length they claim.
fn tar(input: impl Read, limit: u64, daemon: &str, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    let mut archive = tar::Archive::new(Counted { input, count: 0, limit });
    let mut search = Search { layout: Layout::new(daemon), taken: None, extended: false, name: None };
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
    search.layout.judge().map(drop)
}

/// The search for the one file, entry by entry.
struct Search<'a> {
    layout: Layout<'a>,
    /// The place of the file that was taken last.
    taken: Option<Place>,
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
                // In old archives only the end of its name marks a directory.
                let is_dir = kind == EntryType::Directory || name.ends_with(b"/");
                if is_dir && size > 0 {
                    return bad("it has a directory in the place of a file");
                }
                let place = self.layout.see(&name, is_dir)?;
                match (place, self.taken) {
                    // Whether the directory that it is in is the only one shows at the end.
                    (Place::Below, None) | (Place::Here, None | Some(Place::Below)) => {
                        self.taken = Some(place);
                        take(entry, size, sink)
                    }
                    _ => Ok(()),
                }
            }
            other => {
                let letter = char::from(other.as_byte());
                bad(format!("it has a link, device or other special entry (type {letter:?})"))
            }
        }
    }
}

fn take(entry: impl Read, size: u64, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    sink.expect(size)?;
    sink.restart()?;
    sink.take(entry)?;
    if sink.size == size { Ok(()) } else { bad("it is cut short") }
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
