//! The durable primitive `slot`: one preallocated file with two slots, each overwritten in place.
//!
//! A write is one `pwrite` and one `fdatasync` of blocks that are allocated already, so it needs neither space nor a
//! rename: a full disk does not stop it. A write that is torn by a power cut spoils the slot that it goes to and
//! never the other one. Which slot is written when, and what a damaged one means, is decided by the owner of the
//! file; here a slot is only read, judged and written.
//!
//! A slot begins with one line, followed by the payload, and blanks to the end of its last page:
//!
//! ```text
//! 1a2b3c4d version=1 seq=7 length=312
//! { … }
//! ```
//!
//! The number in front is the CRC-32 of everything behind it, up to the end of the payload. What follows the payload
//! belongs to earlier records and is not read. The line is the same in every version of a format, so that a slot of
//! another version is distinguished from a damaged one.
//!
//! This does not hold for file systems that never overwrite in place (btrfs with copy on write): there a write can need
//! space.

use super::trace::{Effect, note};
use super::{durable, regular};
use crate::error::{Doing as _, Error, Kind, Result};
use flate2::Crc;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Writes are filled up to whole pages, so that the disk need not read what surrounds them.
const PAGE: usize = 4096;

/// The longest first line: 8 digits of the checksum, and three numbers with their names.
const HEAD: usize = 96;

/// The digits of the checksum.
const DIGITS: usize = 8;

/// The format of a file of slots.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The version that is written.
    pub version: u32,
    /// The size of a slot in bytes: a multiple of the page.
    pub size: usize,
}

/// An open file of slots.
#[derive(Debug)]
pub struct Slots {
    file: File,
    path: PathBuf,
    format: Format,
}

/// Whether a file is opened to be read only, or to be written as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For readers, which may be many and beside a writer.
    Read,
    /// For the one writer.
    Write,
}

/// The content of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// It has never been written.
    Empty,
    /// It is damaged, and why.
    Bad(String),
    /// It is whole.
    Good(Entry),
}

/// One whole entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The version of the format by which the payload was written.
    pub version: u32,
    /// The sequence number.
    pub seq: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Slots {
    /// Makes the file at `path`, with all its blocks, in one step: with `first` in both slots, or with empty ones.
    ///
    /// # Errors
    /// If the entry does not fit, or the file cannot be made. Nothing is at `path` then that was not there before.
    pub fn create(path: &Path, format: Format, first: Option<(u64, &[u8])>) -> Result<()> {
        // Real blocks: the first write to blocks that are merely reserved (fallocate) may need space of its own.
        let mut bytes = vec![b' '; 2 * format.size];
        if let Some((seq, payload)) = first {
            let slot = encode(format, seq, payload).ok_or_else(|| too_long(path, format, payload))?;
            for at in [0, format.size] {
                bytes[at..at + slot.len()].copy_from_slice(&slot);
            }
        }
        durable::put(path, &bytes, 0o600)
    }

    /// Opens the file at `path`; None if there is none. What is read from it is durable after [`Slots::make_durable`].
    ///
    /// # Errors
    /// [`Kind::BadInput`] if it is not a regular file. A failure of the operating system is [`Kind::Io`] or
    /// [`Kind::Permission`]; it proves nothing about the content.
    pub fn open(path: &Path, format: Format, access: Access) -> Result<Option<Slots>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Write);
        match regular::open_with(&mut options, OFlags::NOFOLLOW, path) {
            Ok((file, _)) => Ok(Some(Slots { file, path: path.to_owned(), format })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if is_strange(&e) => {
                Err(Error::new(Kind::BadInput, "not a regular file").at(path.display()))
            }
            Err(e) => Err(Error::io("open", path, e)),
        }
    }

    /// Makes the file and its entries durable. The writer before may have been killed before its sync: nothing may follow
    /// from an entry, or be added to a file, that a power cut could still take away.
    ///
    /// # Errors
    /// If syncing fails.
    pub fn make_durable(&self) -> Result<()> {
        self.sync()?;
        durable::sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads both slots.
    ///
    /// # Errors
    /// If the operating system fails at reading. That is not damage, so it is never [`Slot::Bad`].
    pub fn read(&self) -> Result<[Slot; 2]> {
        let slot = |which| self.read_slot(which).doing("read", &self.path);
        Ok([slot(0)?, slot(1)?])
    }

    /// Whether a payload has room in a slot.
    pub fn has_room(&self, payload: usize) -> bool {
        payload <= self.format.size - HEAD
    }

    /// Overwrites a slot: when this returns, the entry survives a power cut.
    ///
    /// # Errors
    /// If the payload does not fit: nothing is written then. If writing or syncing fails, the content of this slot is
    /// unknown, and the other one is untouched. Pages that could not be written are not synced again: a later
    /// write hands all of its bytes over anew.
    pub fn write(&self, which: usize, seq: u64, payload: &[u8]) -> Result<()> {
        let bytes =
            encode(self.format, seq, payload).ok_or_else(|| too_long(&self.path, self.format, payload))?;
        self.file.write_all_at(&bytes, self.offset(which)).doing("write", &self.path)?;
        note(Effect::Write(&self.path, self.offset(which), &bytes));
        self.sync()
    }

    #[cfg_attr(test, track_caller)]
    fn sync(&self) -> Result<()> {
        self.file.sync_data().doing("sync", &self.path)?;
        note(Effect::Sync(&self.path));
        Ok(())
    }

    /// Allocates the blocks that a file which was cut short has lost.
    ///
    /// # Errors
    /// If its length cannot be read, or there is no space.
    pub fn allocate(&self) -> Result<()> {
        let whole = 2 * self.format.size;
        let len = self.file.metadata().doing("inspect", &self.path)?.len();
        let len = usize::try_from(len).unwrap_or(whole).min(whole);
        if len < whole {
            let blanks = vec![b' '; whole - len];
            self.file.write_all_at(&blanks, len as u64).doing("write", &self.path)?;
            note(Effect::Write(&self.path, len as u64, &blanks));
            self.sync()?;
        }
        Ok(())
    }

    fn offset(&self, which: usize) -> u64 {
        (which * self.format.size) as u64
    }

    fn read_slot(&self, which: usize) -> io::Result<Slot> {
        let head = self.read_at(self.offset(which), HEAD)?;
        if head.len() == HEAD && head.iter().all(|b| *b == b' ') {
            return Ok(Slot::Empty);
        }
        let bad = |why: &str| Ok(Slot::Bad(why.to_owned()));
        let Some(head) = Head::parse(&head) else { return bad("its first line is damaged") };
        if head.length > self.format.size - HEAD {
            return bad("its length is wrong");
        }
        let bytes = self.read_at(self.offset(which), head.line + head.length)?;
        if bytes.len() < head.line + head.length {
            return bad("it is cut short");
        }
        if crc32(&bytes[DIGITS..]) != bytes[..DIGITS] {
            return bad("its checksum is wrong");
        }
        let payload = bytes[head.line..].to_vec();
        Ok(Slot::Good(Entry { version: head.version, seq: head.seq, payload }))
    }

    /// Up to `length` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut read = 0;
        while read < length {
            match self.file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// A link, a directory, a pipe: what no failure of a disk makes of a file.
fn is_strange(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    error.kind() == io::ErrorKind::InvalidInput || matches!(errno, Some(Errno::LOOP | Errno::ISDIR))
}

/// The first line of a slot.
struct Head {
    version: u32,
    seq: u64,
    length: usize,
    /// The length of the line itself.
    line: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Head> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut words = text.get(DIGITS..)?.strip_prefix(' ')?.split(' ');
        let mut number =
            |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok();
        let (version, seq, length) = (number("version")?, number("seq")?, number("length")?);
        Some(Head { version: version.try_into().ok()?, seq, length: length.try_into().ok()?, line: end + 1 })
    }
}

/// The bytes of a slot; None if they do not fit.
fn encode(format: Format, seq: u64, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > format.size - HEAD {
        return None;
    }
    let mut rest = format!(" version={} seq={seq} length={}\n", format.version, payload.len()).into_bytes();
    rest.extend_from_slice(payload);
    let mut bytes = crc32(&rest).to_vec();
    bytes.append(&mut rest);
    bytes.resize(bytes.len().next_multiple_of(PAGE).min(format.size), b' ');
    Some(bytes)
}

/// The CRC-32 of `bytes` as hexadecimal digits.
pub fn crc32(bytes: &[u8]) -> [u8; DIGITS] {
    let mut crc = Crc::new();
    crc.update(bytes);
    let text = format!("{:0DIGITS$x}", crc.sum());
    text.into_bytes().try_into().expect("32 bits have eight hexadecimal digits")
}

fn too_long(path: &Path, format: Format, payload: &[u8]) -> Error {
    Error::new(Kind::Failed, "the record is too long").at(path.display()).because(format!(
        "it has {} bytes, and there is room for {}",
        payload.len(),
        format.size - HEAD
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    const FORMAT: Format = Format { version: 3, size: PAGE };

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        (dir, path)
    }

    fn open(path: &Path, access: Access) -> Slots {
        Slots::open(path, FORMAT, access).unwrap().unwrap()
    }

    fn good(seq: u64, payload: &[u8]) -> Slot {
        Slot::Good(Entry { version: 3, seq, payload: payload.to_vec() })
    }

    #[test]
    fn slots_are_made_whole_and_each_is_written_without_the_other() {
        let (_dir, path) = file();
        assert!(Slots::open(&path, FORMAT, Access::Read).unwrap().is_none());
        Slots::create(&path, FORMAT, None).unwrap();
        let slots = open(&path, Access::Write);
        assert_eq!(slots.read().unwrap(), [Slot::Empty, Slot::Empty]);
        slots.write(1, 5, b"five").unwrap();
        assert_eq!(slots.read().unwrap(), [Slot::Empty, good(5, b"five")]);
        slots.write(0, 6, b"a longer six").unwrap();
        slots.write(0, 7, b"7").unwrap();
        assert_eq!(open(&path, Access::Read).read().unwrap(), [good(7, b"7"), good(5, b"five")]);
        Slots::create(&path, FORMAT, Some((1, b"one"))).unwrap();
        assert_eq!(open(&path, Access::Read).read().unwrap(), [good(1, b"one"), good(1, b"one")]);
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_noticed_and_stays_in_it() {
        let (_dir, path) = file();
        Slots::create(&path, FORMAT, Some((7, b"the payload"))).unwrap();
        let slots = open(&path, Access::Write);
        let used = encode(FORMAT, 7, b"the payload").unwrap().trim_ascii_end().len();
        let whole = fs::read(&path).unwrap();
        for (which, at) in [0, PAGE].into_iter().enumerate() {
            for bit in 0..used * 8 {
                let (offset, byte) = (at + bit / 8, whole[at + bit / 8]);
                slots.file.write_all_at(&[byte ^ (1 << (bit % 8))], offset as u64).unwrap();
                let read = slots.read().unwrap();
                assert!(matches!(read[which], Slot::Bad(_)), "slot {which}, bit {bit}");
                assert_eq!(read[1 - which], good(7, b"the payload"));
                slots.file.write_all_at(&[byte], offset as u64).unwrap();
            }
            for offset in at + used..at + PAGE {
                slots.file.write_all_at(b"x", offset as u64).unwrap();
                assert_eq!(slots.read().unwrap()[which], good(7, b"the payload"), "beyond the payload");
            }
        }
    }

    #[test]
    fn every_truncation_is_noticed_or_harmless_and_allocation_makes_up_for_it() {
        let (_dir, path) = file();
        Slots::create(&path, FORMAT, Some((7, b"the payload"))).unwrap();
        let whole = fs::read(&path).unwrap();
        let used = encode(FORMAT, 7, b"the payload").unwrap().trim_ascii_end().len();
        for len in (0..whole.len()).rev() {
            let slots = open(&path, Access::Write);
            slots.file.set_len(len as u64).unwrap();
            for (slot, at) in slots.read().unwrap().into_iter().zip([0, PAGE]) {
                match slot {
                    Slot::Good(_) => assert!(len >= at + used, "{len}"),
                    Slot::Bad(_) => assert!(len < at + used, "{len}"),
                    Slot::Empty => panic!("{len}: cut short is not empty"),
                }
            }
        }
        let slots = open(&path, Access::Write);
        slots.allocate().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), whole.len() as u64);
        assert_eq!(slots.read().unwrap(), [Slot::Empty, Slot::Empty]);
    }

    #[test]
    fn a_write_allocates_nothing() {
        let (_dir, path) = file();
        let format = Format { version: 3, size: 16 * PAGE };
        Slots::create(&path, format, None).unwrap();
        let place = || fs::metadata(&path).map(|m| (m.blocks(), m.len(), m.ino())).unwrap();
        let before = place();
        assert!(before.0 * 512 >= before.1, "every block is there from the start: {before:?}");
        let slots = Slots::open(&path, format, Access::Write).unwrap().unwrap();
        for seq in 0..20 {
            slots.write((seq % 2) as usize, seq, &vec![b'x'; 3000 * seq as usize]).unwrap();
            assert_eq!(place(), before);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let (_dir, path) = file();
        let longest = vec![b'x'; PAGE - HEAD];
        Slots::create(&path, FORMAT, Some((u64::MAX, &longest))).unwrap();
        let slots = open(&path, Access::Write);
        assert_eq!(slots.read().unwrap(), [good(u64::MAX, &longest), good(u64::MAX, &longest)]);
        let longer = vec![b'x'; PAGE - HEAD + 1];
        assert!(slots.has_room(longest.len()) && !slots.has_room(longer.len()));
        let refusal = slots.write(0, 1, &longer).unwrap_err();
        assert!(refusal.to_string().contains("room for 4000"), "{refusal}");
        assert_eq!(slots.read().unwrap()[0], good(u64::MAX, &longest));
        let other = path.with_extension("other");
        Slots::create(&other, FORMAT, Some((1, &longer))).unwrap_err();
        assert!(!other.exists());
    }

    #[test]
    fn a_failure_of_the_operating_system_is_never_damage() {
        let (_dir, path) = file();
        Slots::create(&path, FORMAT, Some((7, b"the payload"))).unwrap();
        // A descriptor that cannot be read: EBADF.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let slots = Slots { file, path: path.clone(), format: FORMAT };
        assert_eq!(slots.read().unwrap_err().kind(), Kind::Io);
        // ENOTDIR, and ENAMETOOLONG.
        for strange in [path.join("below"), path.with_file_name("x".repeat(300))] {
            assert_eq!(Slots::open(&strange, FORMAT, Access::Read).unwrap_err().kind(), Kind::Io);
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let (dir, path) = file();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("slots", &link).unwrap();
        for path in [&path, &link, dir.path()] {
            for access in [Access::Read, Access::Write] {
                assert_eq!(Slots::open(path, FORMAT, access).unwrap_err().kind(), Kind::BadInput);
            }
        }
    }
}
