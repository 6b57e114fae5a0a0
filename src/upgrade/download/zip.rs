//! One file out of a zip archive, where everything that is said twice must agree.
//!
//! A zip archive describes each file in its central directory and again before its data; programs
//! that believe one or the other see different files. Here the central directory is the guide, the
//! local header of the wanted file is checked against it, and size and CRC-32 against the data. ZIP64,
//! encryption, several disks, and bytes before or after the archive are refused. The format is
//! PKWARE's APPNOTE.TXT.

use super::archive::{ENTRIES, Layout, Place, Sink, Trouble, bad};
use flate2::CrcReader;
use flate2::bufread::DeflateDecoder;
use std::io::{BufReader, Read, Seek, SeekFrom};

const END: usize = 22;
const LONGEST_COMMENT: usize = 0xffff;
const CENTRAL: usize = 46;
const LOCAL: usize = 30;

const ENCRYPTED: u16 = 1;
const DESCRIPTOR: u16 = 1 << 3;
/// Strong encryption, and a central directory that is encrypted itself.
const STRANGE: u16 = 1 << 5 | 1 << 6 | 1 << 13;

/// The entry of the wanted file in the central directory.
struct Entry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

impl Entry {
    /// Whether size and CRC follow the data.
    fn is_deferred(&self) -> bool {
        self.flags & DESCRIPTOR != 0
    }
}

/// The place of the central directory.
struct Directory {
    start: u64,
    size: u64,
    entries: usize,
}

/// Takes the one file out of an archive of `len` bytes.
///
/// # Errors
/// The problem with the archive.
pub(super) fn extract<R: Read + Seek>(
    mut input: BufReader<R>,
    len: u64,
    daemon: &str,
    sink: &mut Sink<'_>,
) -> Result<(), Trouble> {
    let directory = find_directory(&mut input, len)?;
    let (entry, offsets) = find_entry(&mut input, &directory, daemon)?;
    if offsets.iter().min() != Some(&0) || offsets.iter().filter(|o| **o == entry.offset).count() > 1 {
        return bad("something in it overlaps, or stands before its beginning");
    }
    // The next entry begins where our file has ended, if nothing overlaps.
    let end = offsets.into_iter().filter(|o| *o > entry.offset).min().unwrap_or(directory.start);
    let data = find_data(&mut input, &entry)?;
    if data.checked_add(entry.packed).is_none_or(|e| e > end) {
        return bad("the file overlaps something else in it");
    }
    sink.expect(entry.size)?;
    input.seek(SeekFrom::Start(data))?;
    let mut packed = (&mut input).take(entry.packed);
    let (crc, size) = match entry.method {
        0 => take(&mut packed, sink)?,
        _ => {
            let mut inflater = DeflateDecoder::new(&mut packed);
            take(&mut inflater, sink)?
        }
    };
    if size != entry.size || crc != entry.crc || packed.limit() > 0 {
        return bad("the file is not what the directory says (size or CRC-32)");
    }
    match entry.is_deferred() {
        true => check_descriptor(&mut input, &entry, end - data - entry.packed),
        false => Ok(()),
    }
}

/// The place of a file's data, behind its local header, which must agree with the directory.
fn find_data<R: Read + Seek>(input: &mut BufReader<R>, entry: &Entry) -> Result<u64, Trouble> {
    input.seek(SeekFrom::Start(entry.offset))?;
    let mut local = [0; LOCAL];
    input.read_exact(&mut local)?;
    let (name_len, extra_len) = (u16_at(&local, 26), u16_at(&local, 28));
    let mut name = vec![0; name_len.into()];
    input.read_exact(&mut name)?;
    let described = [u32_at(&local, 14), u32_at(&local, 18), u32_at(&local, 22)];
    let expected = [u64::from(entry.crc), entry.packed, entry.size];
    let agrees = |(local, central): (&u32, &u64)| {
        u64::from(*local) == *central || (entry.is_deferred() && *local == 0)
    };
    if !local.starts_with(b"PK\x03\x04")
        || u16_at(&local, 6) != entry.flags
        || u16_at(&local, 8) != entry.method
        || name != entry.name
        || !described.iter().zip(&expected).all(agrees)
    {
        return bad("its directory and the header of the file contradict each other");
    }
    Ok(entry.offset + (LOCAL as u64) + u64::from(name_len) + u64::from(extra_len))
}

fn take(from: impl Read, sink: &mut Sink<'_>) -> Result<(u32, u64), Trouble> {
    let mut reader = CrcReader::new(from);
    sink.take(&mut reader)?;
    Ok((reader.crc().sum(), sink.size()))
}

/// Finds the end of central directory record, which ends the file and points at the directory.
fn find_directory<R: Read + Seek>(input: &mut BufReader<R>, len: u64) -> Result<Directory, Trouble> {
    let tail_len = len.min((END + LONGEST_COMMENT) as u64);
    input.seek(SeekFrom::Start(len - tail_len))?;
    let mut tail = vec![0; usize::try_from(tail_len).unwrap_or(0)];
    input.read_exact(&mut tail)?;
    let starts = (0..(tail.len() + 1).saturating_sub(END)).rev();
    let found = starts.into_iter().find(|at| {
        let record = &tail[*at..];
        record.starts_with(b"PK\x05\x06") && END + usize::from(u16_at(record, 20)) == record.len()
    });
    let Some(at) = found else { return bad("it is no zip archive, or is cut short") };
    let record = &tail[at..];
    let (here, all) = (u16_at(record, 8), u16_at(record, 10));
    let (size, start) = (u32_at(record, 12), u32_at(record, 16));
    if u16_at(record, 4) != 0 || u16_at(record, 6) != 0 || here != all {
        return bad("it is spread over several disks");
    }
    if all == u16::MAX || size == u32::MAX || start == u32::MAX {
        return bad("it is a ZIP64 archive; pack it without");
    }
    let directory = Directory { start: start.into(), size: size.into(), entries: all.into() };
    if directory.start + directory.size != len - tail_len + at as u64 {
        return bad("its directory is not where it should be");
    }
    if directory.entries > ENTRIES {
        return bad(format!("it has more than {ENTRIES} entries"));
    }
    Ok(directory)
}

/// Reads the whole central directory: the wanted file, and where every entry begins.
fn find_entry<R: Read + Seek>(
    input: &mut BufReader<R>,
    directory: &Directory,
    daemon: &str,
) -> Result<(Entry, Vec<u64>), Trouble> {
    input.seek(SeekFrom::Start(directory.start))?;
    let mut left = input.take(directory.size);
    let mut offsets = Vec::with_capacity(directory.entries);
    let mut layout = Layout::new(daemon);
    let (mut here, mut below) = (None::<Entry>, None::<Entry>);
    for _ in 0..directory.entries {
        let entry = read_entry(&mut left, directory)?;
        offsets.push(entry.offset);
        match layout.see(&entry.name, entry.name.ends_with(b"/"))? {
            Place::Here => here = Some(entry),
            Place::Below => below = Some(entry),
            Place::Elsewhere => {}
        }
    }
    if left.limit() > 0 {
        return bad("its directory is damaged");
    }
    let found = if layout.judge()? == Place::Here { here } else { below };
    match found {
        Some(entry) if !matches!(entry.method, 0 | 8) => {
            bad(format!("the file is compressed by method {}; use deflate", entry.method))
        }
        Some(entry) => Ok((entry, offsets)),
        None => bad("its directory is damaged"),
    }
}

/// Reads the next entry of the central directory.
fn read_entry(left: &mut impl Read, directory: &Directory) -> Result<Entry, Trouble> {
    let mut fixed = [0; CENTRAL];
    left.read_exact(&mut fixed)?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return bad("its directory is damaged");
    }
    let mut name = vec![0; u16_at(&fixed, 28).into()];
    left.read_exact(&mut name)?;
    let mut extra = vec![0; u16_at(&fixed, 30).into()];
    left.read_exact(&mut extra)?;
    let comment = u64::from(u16_at(&fixed, 32));
    if std::io::copy(&mut left.take(comment), &mut std::io::sink())? != comment {
        return bad("its directory is damaged");
    }
    let entry = Entry {
        flags: u16_at(&fixed, 8),
        method: u16_at(&fixed, 10),
        crc: u32_at(&fixed, 16),
        packed: u32_at(&fixed, 20).into(),
        size: u32_at(&fixed, 24).into(),
        offset: u32_at(&fixed, 42).into(),
        name,
    };
    check(&entry, &fixed, &extra, directory)?;
    Ok(entry)
}

/// Refuses entries that have no place in a release.
fn check(entry: &Entry, fixed: &[u8; CENTRAL], extra: &[u8], directory: &Directory) -> Result<(), Trouble> {
    if entry.flags & (ENCRYPTED | STRANGE) != 0 {
        return bad("it is encrypted");
    }
    // Made on Unix: the upper half of the attributes is a mode.
    let kind = u32_at(fixed, 38) >> 28;
    let plain = matches!(kind, 0 | 8) || kind == 4 && entry.name.ends_with(b"/");
    if fixed[5] == 3 && !plain {
        return bad("it has a link, device or other special entry");
    }
    let huge = [entry.packed, entry.size, entry.offset].contains(&u64::from(u32::MAX));
    if huge || u16_at(fixed, 34) != 0 || has_zip64(extra) {
        return bad("it is a ZIP64 archive or spread over several disks; pack it without");
    }
    if entry.offset >= directory.start {
        return bad("its directory points at itself");
    }
    Ok(())
}

fn has_zip64(mut extra: &[u8]) -> bool {
    while extra.len() >= 4 {
        if u16_at(extra, 0) == 1 {
            return true;
        }
        extra = extra.get(4 + usize::from(u16_at(extra, 2))..).unwrap_or_default();
    }
    false
}

/// The descriptor that follows the data repeats CRC-32 and sizes, with or without a signature.
fn check_descriptor(input: &mut impl Read, entry: &Entry, room: u64) -> Result<(), Trouble> {
    let mut bytes = Vec::new();
    input.take(room.min(16)).read_to_end(&mut bytes)?;
    let fields = bytes.strip_prefix(b"PK\x07\x08").unwrap_or(&bytes);
    let fits = fields.len() >= 12
        && u32_at(fields, 0) == entry.crc
        && u64::from(u32_at(fields, 4)) == entry.packed
        && u64::from(u32_at(fields, 8)) == entry.size;
    if fits { Ok(()) } else { bad("its directory and the descriptor of the file contradict each other") }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
