//! The head record on disk: `state/head`, two [`slots`](crate::home::slots) that are overwritten by turns.
//!
//! It is written at every counted head of a validator, so it costs one small write and one fdatasync, and needs no
//! space and no rename. A slot that was torn by a power cut is noticed, and the other one, a block older, counts. It has no
//! turns then, so that a validator starts silent: the block that is missing may be next to one of its own.

use crate::error::{Error, Kind, Result};
use crate::home::durable::json_line;
use crate::home::slots::{Access, Entry, Format, Slot, Slots};
use crate::home::{Home, durable};
use crate::machine::HeadRecord;

/// A slot has room for the record with its recent blocks.
const FORMAT: Format = Format { version: 1, size: 8192 };

/// The writer of the head record. There is one per home, in the process that holds the supervisor's lock.
#[derive(Debug)]
pub struct HeadFile {
    slots: Slots,
    seq: u64,
}

impl HeadFile {
    /// Opens the file for writing, and makes it if it is missing.
    ///
    /// # Errors
    /// If it can neither be opened nor made.
    pub fn open(home: &Home) -> Result<HeadFile> {
        let path = home.head();
        let mut slots = Slots::open(&path, FORMAT, Access::Write)?;
        if slots.is_none() {
            Slots::create(&path, FORMAT, None)?;
            slots = Slots::open(&path, FORMAT, Access::Write)?;
        }
        let vanished = || Error::new(Kind::Io, "the head record vanished").at(path.display());
        let slots = slots.ok_or_else(vanished)?;
        slots.make_durable()?;
        let found = slots.read()?;
        if let Some(why) = found.iter().find_map(bad) {
            let what = "the newest head may be lost, so a validator starts silent";
            log::warn!("event=head_slot_bad {what}: {why}");
        }
        let seq = found.iter().filter_map(good).map(|entry| entry.seq).max().unwrap_or(0);
        Ok(HeadFile { slots, seq })
    }

    /// Makes a record durable: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// If writing or syncing fails; the record before is still there.
    pub fn write(&mut self, record: &HeadRecord) -> Result<()> {
        self.seq += 1;
        let mut record = record.clone();
        let mut payload = json_line(&record);
        // Hashes of unusual length: fewer blocks of the past fit.
        while !self.slots.has_room(payload.len()) && record.recent.pop().is_some() {
            payload = json_line(&record);
        }
        self.slots.write(usize::from(self.seq % 2 == 1), self.seq, &payload)
    }
}

/// Reads the newest head record; None if there is none.
///
/// # Errors
/// [`Kind::Halted`] if there is something that cannot be read as one; [`Kind::Io`] or [`Kind::Permission`] if the
/// operating system refuses to read it.
pub fn read(home: &Home) -> Result<Option<HeadRecord>> {
    let path = home.head();
    let damaged = |why: String| {
        Error::new(Kind::Halted, "the head record is damaged, so what was final cannot be proven")
            .at(path.display())
            .because(why)
            .hint("restore it from a copy, or forget it: wemixvisor resolve head")
    };
    let slots = match Slots::open(&path, FORMAT, Access::Read) {
        Ok(Some(slots)) => slots,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == Kind::BadInput => return Err(damaged("it is not a regular file".to_owned())),
        Err(e) => return Err(e),
    };
    let found = slots.read()?;
    let newest = found.iter().filter_map(good).max_by_key(|entry| entry.seq);
    match (newest, found.iter().find_map(bad)) {
        (Some(newest), _) if newest.version != FORMAT.version => {
            Err(damaged(format!("its format is {}, this program knows {}", newest.version, FORMAT.version)))
        }
        (Some(newest), bad) => {
            let mut record: HeadRecord =
                serde_json::from_slice(&newest.payload).map_err(|e| damaged(e.to_string()))?;
            record.turns = record.turns.filter(|_| bad.is_none());
            Ok(Some(record))
        }
        (None, Some(why)) => Err(damaged(why.to_owned())),
        (None, None) => Ok(None),
    }
}

/// Removes the head record.
///
/// # Errors
/// If it cannot be removed.
pub fn forget(home: &Home) -> Result<()> {
    durable::remove(&home.head())
}

fn good(slot: &Slot) -> Option<&Entry> {
    match slot {
        Slot::Good(entry) => Some(entry),
        Slot::Bad(_) | Slot::Empty => None,
    }
}

fn bad(slot: &Slot) -> Option<&str> {
    match slot {
        Slot::Bad(why) => Some(why),
        Slot::Good(_) | Slot::Empty => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Block, Turns};

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        std::fs::create_dir_all(home.state()).unwrap();
        (dir, home)
    }

    fn record(height: u64) -> HeadRecord {
        let block = |height: u64| Block { height, hash: Some(format!("0x{height:064x}")) };
        let recent = (1..=32).map(|back| block(height - back)).collect();
        let turns = Some(Turns { at_head: Some(3), before: Some(4), validators: 7 });
        HeadRecord { timestamp: Some(7), turns, recent, ..HeadRecord::new(block(height)) }
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
        assert_eq!(std::fs::metadata(home.head()).unwrap().len(), 2 * FORMAT.size as u64);
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
        let without_turns = |height| Some(HeadRecord { turns: None, ..record(height) });
        assert_eq!(read(&home).unwrap(), without_turns(100), "the second record is in the first slot");
        torn[FORMAT.size + 40] ^= 1;
        std::fs::write(home.head(), &torn).unwrap();
        assert_eq!(read(&home).unwrap_err().kind(), Kind::Halted);
        std::fs::write(home.head(), &whole[..FORMAT.size]).unwrap();
        assert_eq!(read(&home).unwrap(), without_turns(101));
        forget(&home).unwrap();
        assert_eq!(read(&home).unwrap(), None);
    }
}
