//! The journal's two slots on disk: what was acknowledged last can be read after any crash.
//!
//! A write puts the new record into `journal.json` and keeps the old one as `journal.prev.json`.
//! Each slot carries a sequence number and a checksum over its exact bytes, so a slot that was torn or
//! has rotted is noticed and the other one counts. Both bad means that nothing can be proven: that halts.
//! The meaning of the record is `machine`'s business.
//!
//! A slot is one JSON object whose first member is the CRC-32 of all bytes that follow it:
//!
//! ```text
//! {"crc32":"1a2b3c4d",
//!   "version": 1,
//!   "seq": 7,
//!   "record": { … }
//! }
//! ```

use crate::error::{Error, Kind, Result};
use crate::home::{Home, durable};
use crate::machine::Record;
use flate2::Crc;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The writer of the journal. There is one per home, in the process that holds the supervisor's lock.
#[derive(Debug)]
pub struct Journal {
    slot: PathBuf,
    prev: PathBuf,
    seq: u64,
    /// Whether `slot` holds the newest record, and so must be kept when it is replaced.
    keep: bool,
}

/// A journal as it was found.
#[derive(Debug)]
pub struct Opened {
    /// For the next writes.
    pub journal: Journal,
    /// The record that was acknowledged last.
    pub record: Record,
    /// A slot that was bad while the other was good: to be logged.
    pub warning: Option<Error>,
}

const VERSION: u32 = 1;
const HEAD: &str = "{\"crc32\":\"";
const DIGITS: usize = 8;
const LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Body<R> {
    version: u32,
    seq: u64,
    record: R,
}

/// The members that every version has.
#[derive(Deserialize)]
struct Stamp {
    version: u32,
    seq: u64,
}

enum Slot {
    Absent,
    Bad(Error),
    Good { stamp: Stamp, text: Vec<u8> },
}

impl Journal {
    /// Whether there is any trace of a journal.
    ///
    /// # Errors
    /// If that cannot be told: what may not be seen may be there.
    pub fn exists(home: &Home) -> Result<bool> {
        for slot in [home.journal(), home.journal_prev()] {
            match fs::symlink_metadata(&slot) {
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("inspect", &slot, e)),
            }
        }
        Ok(false)
    }

    /// Begins the journal of a home that has none.
    ///
    /// # Errors
    /// If there is one, or writing fails.
    pub fn create(home: &Home, record: &Record) -> Result<Self> {
        if Journal::exists(home)? {
            return Err(Error::new(Kind::Failed, "the journal exists already").at(home.journal().display()));
        }
        let mut journal = Journal { slot: home.journal(), prev: home.journal_prev(), seq: 0, keep: false };
        journal.write(record)?;
        Ok(journal)
    }

    /// Reads what was acknowledged last.
    ///
    /// # Errors
    /// [`Kind::Halted`] if no slot is good or the newest is of a newer version of this program;
    /// [`Kind::Permission`] if a slot may not be read.
    pub fn open(home: &Home) -> Result<Opened> {
        let (slot, prev) = (home.journal(), home.journal_prev());
        let (newest, keep, warning) = match (read_slot(&slot)?, read_slot(&prev)?) {
            (Slot::Good { stamp, text }, Slot::Good { stamp: older, .. }) if stamp.seq > older.seq => {
                ((stamp, text), true, None)
            }
            (Slot::Good { stamp, text }, Slot::Absent) => ((stamp, text), true, None),
            (Slot::Good { stamp, text }, Slot::Bad(e)) => ((stamp, text), true, Some(e)),
            (Slot::Absent | Slot::Good { .. }, Slot::Good { stamp, text }) => ((stamp, text), false, None),
            (Slot::Bad(e), Slot::Good { stamp, text }) => ((stamp, text), false, Some(e)),
            (Slot::Absent, Slot::Absent) => return Err(lost(&slot, "it is missing".to_owned())),
            (Slot::Bad(e), Slot::Absent | Slot::Bad(_)) | (Slot::Absent, Slot::Bad(e)) => {
                return Err(lost(&slot, e.to_string()));
            }
        };
        let (stamp, text) = newest;
        if stamp.version != VERSION {
            return Err(Error::new(Kind::Halted, "the journal was written by another version of wemixvisor")
                .at(slot.display())
                .because(format!("its format is {}, this program knows {VERSION}", stamp.version))
                .hint("run the newer wemixvisor"));
        }
        let body: Body<Record> = serde_json::from_slice(&text).map_err(|e| lost(&slot, e.to_string()))?;
        let journal = Journal { slot, prev, seq: body.seq, keep };
        Ok(Opened { journal, record: body.record, warning })
    }

    /// Acknowledges a record: when this returns, the record survives a power cut.
    ///
    /// # Errors
    /// If writing or syncing fails. Which of the two records is on disk is then unknown until the
    /// next successful write.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        // Counted even if the write fails: the record may be on disk all the same.
        self.seq += 1;
        let bytes = encode(self.seq, record);
        if self.keep {
            durable::rotate(&self.slot, &self.prev, &bytes, 0o600)
        } else {
            durable::put(&self.slot, &bytes, 0o600)?;
            self.keep = true;
            Ok(())
        }
    }
}

fn lost(slot: &Path, why: String) -> Error {
    Error::new(Kind::Halted, "no journal can be read, so what happened last cannot be proven")
        .at(slot.display())
        .because(why)
        .hint(
            "restore it from a copy, or find out which version ran last, link `current` to it, move the bad \
             files away and run `wemixvisor init --import`",
        )
}

fn encode(seq: u64, record: &Record) -> Vec<u8> {
    let body = serde_json::to_vec_pretty(&Body { version: VERSION, seq, record })
        .expect("every key of the record is a string");
    let mut rest = b"\",".to_vec();
    rest.extend_from_slice(&body[1..]);
    rest.push(b'\n');
    let mut bytes = format!("{HEAD}{}", crc32(&rest)).into_bytes();
    bytes.extend_from_slice(&rest);
    bytes
}

fn crc32(bytes: &[u8]) -> String {
    let mut crc = Crc::new();
    crc.update(bytes);
    format!("{:0DIGITS$x}", crc.sum())
}

fn read_slot(path: &Path) -> Result<Slot> {
    let bad =
        |why: &str| Error::new(Kind::BadInput, "bad slot of the journal").at(path.display()).because(why);
    let read = fs::metadata(path).and_then(|meta| {
        let readable = meta.is_file() && meta.len() <= LIMIT;
        if readable { fs::read(path).map(Some) } else { Ok(None) }
    });
    match read {
        Ok(Some(text)) => Ok(match decode(&text) {
            Ok(stamp) => Slot::Good { stamp, text },
            Err(why) => Slot::Bad(bad(&why)),
        }),
        Ok(None) => Ok(Slot::Bad(bad("not a regular file of at most 16 MiB"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Slot::Absent),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::io("read", path, e)),
        Err(e) => Ok(Slot::Bad(Error::io("read", path, e))),
    }
}

fn decode(text: &[u8]) -> Result<Stamp, String> {
    let sum_and_rest = text.strip_prefix(HEAD.as_bytes()).and_then(|t| t.split_at_checked(DIGITS));
    match sum_and_rest {
        Some((sum, rest)) if sum == crc32(rest).as_bytes() => {
            serde_json::from_slice(text).map_err(|e| e.to_string())
        }
        _ => Err("its checksum is wrong".to_owned()),
    }
}

#[cfg(test)]
mod tests;
