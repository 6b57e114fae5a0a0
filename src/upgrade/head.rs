//! The head record on disk: `state/head`, overwritten in place by turns in two slots of a preallocated file.
//!
//! It is written at every counted head of a validator, so it costs one small write and one fdatasync, and needs no
//! space and no rename. Each slot is one line of JSON, padded with blanks: a sequence number, the record, and the
//! CRC-32 of both. A slot that was torn by a power cut is noticed, and the other one, a block older, counts.

use crate::error::{Error, Kind, Result};
use crate::home::{Home, durable};
use crate::machine::HeadRecord;
use flate2::Crc;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

/// The size of a slot in bytes.
const SLOT: usize = 8192;

/// The writer of the head record. There is one per home, in the process that holds the supervisor's lock.
#[derive(Debug)]
pub struct HeadFile {
    file: File,
    seq: u64,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    seq: u64,
    record: HeadRecord,
}

impl HeadFile {
    /// Opens the file for writing, and makes it if it is missing.
    ///
    /// # Errors
    /// If it can neither be opened nor made.
    pub fn open(home: &Home) -> Result<HeadFile> {
        let path = home.head();
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                durable::put(&path, &[b' '; 2 * SLOT], 0o600)?;
                open()
            }
            opened => opened,
        };
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        let seq =
            slots(&file).map_err(|e| Error::io("read", &path, e))?.into_iter().flatten().map(|s| s.seq).max();
        Ok(HeadFile { file, seq: seq.unwrap_or(0) })
    }

    /// Makes a record durable: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// If writing or syncing fails; the record before is still there.
    pub fn write(&mut self, record: &HeadRecord) -> io::Result<()> {
        self.seq += 1;
        let mut record = record.clone();
        let bytes = loop {
            match encode(self.seq, &record) {
                Some(bytes) => break bytes,
                // Hashes of unusual length: fewer blocks of the past fit.
                None if record.recent.pop().is_some() => {}
                None => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the head record is too long"));
                }
            }
        };
        let at = (self.seq % 2) * SLOT as u64;
        self.file.write_all_at(&bytes, at)?;
        self.file.sync_data()
    }
}

/// Reads the newest head record; None if there is none.
///
/// # Errors
/// [`Kind::Halted`] if there is something that cannot be read as one.
pub fn read(home: &Home) -> Result<Option<HeadRecord>> {
    let path = home.head();
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| Error::io("open", &path, e))?,
    };
    let found = slots(&file).map_err(|e| Error::io("read", &path, e))?;
    let damaged = found.iter().any(Result::is_err);
    let newest = found.into_iter().flatten().max_by_key(|slot| slot.seq);
    match newest {
        None if damaged => {
            Err(Error::new(Kind::Halted, "the head record is damaged, so what was final cannot be proven")
                .at(path.display())
                .hint("restore it from a copy, or forget it: wemixvisor resolve head"))
        }
        newest => Ok(newest.map(|slot| slot.record)),
    }
}

/// Removes the head record.
///
/// # Errors
/// If it cannot be removed.
pub fn forget(home: &Home) -> Result<()> {
    durable::remove(&home.head())
}

/// Both slots: empty ones are left out, damaged ones are errors.
fn slots(file: &File) -> io::Result<Vec<std::result::Result<Slot, ()>>> {
    let mut found = Vec::new();
    for at in [0, SLOT as u64] {
        let mut bytes = vec![0; SLOT];
        let mut read = 0;
        while read < SLOT {
            match file.read_at(&mut bytes[read..], at + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        let text = bytes[..read].trim_ascii();
        if !text.is_empty() {
            found.push(decode(text).ok_or(()));
        }
    }
    Ok(found)
}

fn encode(seq: u64, record: &HeadRecord) -> Option<Vec<u8>> {
    let body = serde_json::to_vec(&Slot { seq, record: record.clone() }).ok()?;
    let mut bytes = format!("{} ", crc32(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    if bytes.len() >= SLOT {
        return None;
    }
    bytes.resize(SLOT - 1, b' ');
    bytes.push(b'\n');
    Some(bytes)
}

fn decode(text: &[u8]) -> Option<Slot> {
    let (sum, body) = text.split_at_checked(8)?;
    let body = body.trim_ascii();
    if sum == crc32(body).as_bytes() { serde_json::from_slice(body).ok() } else { None }
}

fn crc32(bytes: &[u8]) -> String {
    let mut crc = Crc::new();
    crc.update(bytes);
    format!("{:08x}", crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Block;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        std::fs::create_dir_all(home.state()).unwrap();
        (dir, home)
    }

    fn record(height: u64) -> HeadRecord {
        let block = |height: u64| Block { height, hash: Some(format!("0x{height:064x}")) };
        let recent = (1..=32).map(|back| block(height - back)).collect();
        HeadRecord { block: block(height), timestamp: Some(7), turns: None, recent }
    }

    #[test]
    fn the_newest_record_is_read_and_the_file_does_not_grow() {
        let (_dir, home) = home();
        assert_eq!(read(&home).unwrap(), None);
        let mut file = HeadFile::open(&home).unwrap();
        for height in 100..105 {
            file.write(&record(height)).unwrap();
            assert_eq!(read(&home).unwrap(), Some(record(height)));
        }
        let mut again = HeadFile::open(&home).unwrap();
        again.write(&record(105)).unwrap();
        assert_eq!(read(&home).unwrap(), Some(record(105)));
        assert_eq!(std::fs::metadata(home.head()).unwrap().len(), 2 * SLOT as u64);
    }

    #[test]
    fn a_torn_write_leaves_the_block_before_and_damage_of_both_is_an_error() {
        let (_dir, home) = home();
        let mut file = HeadFile::open(&home).unwrap();
        file.write(&record(100)).unwrap();
        file.write(&record(101)).unwrap();
        let whole = std::fs::read(home.head()).unwrap();
        let mut torn = whole.clone();
        torn[40] ^= 1;
        std::fs::write(home.head(), &torn).unwrap();
        assert_eq!(read(&home).unwrap(), Some(record(100)), "the second record is in the first slot");
        torn[SLOT + 40] ^= 1;
        std::fs::write(home.head(), &torn).unwrap();
        assert_eq!(read(&home).unwrap_err().kind(), Kind::Halted);
        std::fs::write(home.head(), &whole[..SLOT]).unwrap();
        assert_eq!(read(&home).unwrap(), Some(record(101)));
        forget(&home).unwrap();
        assert_eq!(read(&home).unwrap(), None);
    }
}
