//! The journal on disk: the record that was acknowledged last can be read after any crash, or nothing is started.
//!
//! `state/journal` is a file of two [`slots`](crate::home::slots), allocated when the home is made, so that a write
//! needs no space. Each slot holds a record as JSON, with a sequence number. The meaning of a record is the
//! machine's business, with one exception: whether an upgrade is under way.
//!
//! - While an upgrade is under way the slots take turns. A write goes to the slot that does not hold the newest
//!   record, so the newest acknowledged record survives a write that is torn.
//! - At rest both slots hold the same record. [`Journal::write`] acknowledges it when one of them does, and
//!   [`Journal::settle`] writes the other. They are two calls because a node may be waiting for the first: the
//!   supervisor settles when everything is performed that the record allows, such as the start of the node. During an
//!   upgrade there is nothing to settle, so an upgrade never pays for it.
//!
//! The meaning of a damaged slot follows from that:
//!
//! | the other slot | decision |
//! |---|---|
//! | is at rest | It serves, with a warning, and the damaged one is written anew. If that one was newer, it held the first record of an upgrade, `stopping`, and recovery forgets that one anyway. |
//! | records an upgrade under way | The damaged slot may hold a later phase: halted, with what is known. |
//! | is damaged, too | Halted. |
//!
//! The file `state/upgrading` shows to other programs whether an upgrade is under way. It is never read here.
//!
//! A failure of the operating system at open or read is neither: it proves nothing, and is reported as what it is.

use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::Home;
use crate::home::durable::json_line;
use crate::home::regular::{self, found};
use crate::home::slots::{Access, Entry, Format, Slot, Slots};
use crate::home::trace::{self, Effect};
use crate::machine::{Attempt, Phase, Record};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The writer of the journal. There is one per home, in the process that holds the supervisor's lock.
#[derive(Debug)]
pub struct Journal {
    slots: Slots,
    /// The slot that holds the newest acknowledged record, and the number of that record.
    newest: (usize, u64),
    /// The highest number that was given to a write, whether or not it succeeded.
    seq: u64,
    /// The newest record, where it is at rest.
    rest: Option<Vec<u8>>,
    /// Whether the other slot is known to hold the same record.
    settled: bool,
    sign: Sign,
}

/// A journal as it was found.
#[derive(Debug)]
pub struct Opened {
    /// For the next writes.
    pub journal: Journal,
    /// The record that was acknowledged last.
    pub record: Record,
    /// A slot that was damaged while the other one was at rest, or a sync that failed at rest: to be logged.
    pub warning: Option<Error>,
}

/// A record as a reader finds it.
#[derive(Debug)]
pub struct Found {
    /// The record that was acknowledged last.
    pub record: Record,
    /// A slot that is damaged while the other one is at rest; the next supervisor repairs it.
    pub warning: Option<Error>,
}

/// A slot has room for 1,500 upgrades that ended with the longest names and reasons, and for 5,000 usual ones.
const FORMAT: Format = Format { version: VERSION, size: 1024 * 1024 };

/// The version of the journal that this program reads and writes.
pub const VERSION: u32 = 1;

/// The room that an upgrade leaves when it begins, for what its later records add.
const RESERVE: usize = 64 * 1024;

/// A reader may meet a writer within a slot; it looks again before it takes that for damage.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

impl Journal {
    /// Whether there is a journal.
    ///
    /// # Errors
    /// If that is unknown: a file that may not be seen may be there.
    pub fn exists(home: &Home) -> Result<bool> {
        let path = home.journal();
        Ok(found(fs::symlink_metadata(&path)).doing("inspect", &path)?.is_some())
    }

    /// Begins the journal of a home that has none.
    ///
    /// # Errors
    /// If there is one, or writing fails.
    pub fn create(home: &Home, record: &Record) -> Result<Journal> {
        if Journal::exists(home)? {
            return Err(Error::new(Kind::Failed, "the journal exists already").at(home.journal().display()));
        }
        Slots::create(&home.journal(), FORMAT, Some((1, &json_line(record))))?;
        Ok(Journal::open(home)?.journal)
    }

    /// Reads the record that was acknowledged last, in order to write the next ones. A damaged slot is repaired if
    /// the other one is at rest.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the last record cannot be proven, or the journal is of another version of this program;
    /// [`Kind::Io`] or [`Kind::Permission`] if the operating system refuses to open or read it, or to sync it while an
    /// upgrade is under way.
    pub fn open(home: &Home) -> Result<Opened> {
        let slots = open(home, Access::Write)?;
        let Judged { record, newest, settled, damage } = judge(home, slots.read()?)?;
        let synced = match slots.make_durable() {
            // Nothing must follow from a phase that a power cut could still take away.
            Err(e) if record.upgrade.is_some() => return Err(e),
            // At rest all that follows is a node that runs, and it is not down for want of a sync.
            synced => synced,
        };
        let rest = record.upgrade.is_none().then(|| json_line(&record));
        let sign = Sign::new(home.upgrading(), is_upgrading(&record));
        let mut journal = Journal { slots, newest, seq: newest.1, rest, settled, sign };
        let allocated = journal.slots.allocate();
        let repaired = journal.settle().and(allocated).and(synced);
        let warning = match (damage, repaired) {
            (None, Ok(())) => None,
            (Some(why), Ok(())) => Some(bad_slot(home, &why).hint("it is repaired")),
            (Some(why), Err(e)) => Some(bad_slot(home, &why).hint(format!("it cannot be repaired: {e}"))),
            // The record that counts is whole.
            (None, Err(e)) => Some(e),
        };
        Ok(Opened { journal, record, warning })
    }

    /// Reads the record that was acknowledged last, and changes nothing. A supervisor may be writing meanwhile.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn read(home: &Home) -> Result<Found> {
        let slots = open(home, Access::Read)?;
        let Judged { record, damage, .. } = judge(home, look(|| slots.read())?)?;
        Ok(Found { record, warning: damage.map(|why| bad_slot(home, &why)) })
    }

    /// Acknowledges a record: when this returns, the record survives a power cut. [`Journal::settle`] must follow
    /// where time allows.
    ///
    /// # Errors
    /// If the record is too long for a slot: nothing is written then. If writing or syncing fails: which of the two
    /// records is on disk is unknown until the next successful write, or until [`Journal::settle`] has put a record
    /// at rest back.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let payload = json_line(record);
        self.check_room(record, payload.len())?;
        let other = 1 - self.newest.0;
        // Counted and unsettled even if the write fails: the record may be on disk all the same.
        self.seq += 1;
        self.settled = false;
        let (was, is) = (self.sign.is_shown == Some(true), is_upgrading(record));
        self.sign.show(was || is);
        let written = self.slots.write(other, self.seq, &payload);
        self.sign.show(if written.is_ok() { is } else { was });
        written?;
        self.newest = (other, self.seq);
        self.rest = record.upgrade.is_none().then_some(payload);
        Ok(())
    }

    /// Has both slots hold the newest record if it is at rest. It costs nothing if they do.
    ///
    /// # Errors
    /// If writing or syncing fails. The newest record stays acknowledged, and this can be called again.
    pub fn settle(&mut self) -> Result<()> {
        let Some(rest) = self.rest.as_ref().filter(|_| !self.settled) else { return Ok(()) };
        let (newest, seq) = self.newest;
        self.slots.write(1 - newest, seq, rest)?;
        self.settled = true;
        Ok(())
    }

    /// Acknowledges a record and settles it, for a caller that nothing waits for.
    ///
    /// # Errors
    /// As [`Journal::write`] and [`Journal::settle`].
    pub fn write_settled(&mut self, record: &Record) -> Result<()> {
        self.write(record)?;
        self.settle()
    }

    /// An upgrade begins only where its later records will have room as well: in the middle of it there is no way on
    /// without them.
    fn check_room(&self, record: &Record, length: usize) -> Result<()> {
        let begins = record.upgrade.as_ref().is_some_and(|attempt| attempt.phase == Phase::Stopping);
        let wanted = if begins { length + RESERVE } else { length };
        if self.slots.has_room(wanted) {
            return Ok(());
        }
        Err(Error::new(Kind::Failed, "the journal has no room for this record")
            .because(format!("it has {length} bytes, with {} upgrades that have ended", record.ended.len())))
    }
}

/// Whether an upgrade is under way and does not wait for the operator.
fn is_upgrading(record: &Record) -> bool {
    record.upgrade.is_some() && record.halted.is_none()
}

/// The file that is there from just before the first record of an upgrade until just after the one that ends it. It is empty,
/// so that it takes no block, and not synced: whoever opens the journal puts it right.
#[derive(Debug)]
struct Sign {
    path: PathBuf,
    /// Whether it is there; None where that is not known.
    is_shown: Option<bool>,
}

impl Sign {
    /// The file, put right.
    fn new(path: PathBuf, is_shown: bool) -> Sign {
        let mut sign = Sign { path, is_shown: None };
        sign.show(is_shown);
        sign
    }

    fn show(&mut self, is_shown: bool) {
        if self.is_shown == Some(is_shown) {
            return;
        }
        let done = match is_shown {
            true => regular::open_own(&self.path).map(drop),
            false => found(fs::remove_file(&self.path)).map(|removed| {
                removed.into_iter().for_each(|()| trace::note(Effect::Remove(&self.path)));
            }),
        };
        self.is_shown = done.is_ok().then_some(is_shown);
        if let Err(e) = done {
            log::warn!("event=upgrading_not_shown {}: {e}", self.path.display());
        }
    }
}

/// The two slots, judged.
struct Judged {
    record: Record,
    /// The slot that counts, and its number.
    newest: (usize, u64),
    /// Whether both slots hold the same.
    settled: bool,
    /// The damage of the slot that does not count.
    damage: Option<String>,
}

fn open(home: &Home, access: Access) -> Result<Slots> {
    match Slots::open(&home.journal(), FORMAT, access) {
        Ok(Some(slots)) => Ok(slots),
        Ok(None) => Err(lost(home, "it is missing".to_owned())),
        Err(e) if e.kind() == Kind::BadInput => Err(lost(home, "it is not a regular file".to_owned())),
        Err(e) => Err(e),
    }
}

/// Both slots, as they are when no writer is within one of them; a damaged one stays damaged.
fn look(mut read: impl FnMut() -> Result<[Slot; 2]>) -> Result<[Slot; 2]> {
    let mut found = read()?;
    for _ in 1..LOOKS {
        if found.iter().all(|slot| matches!(slot, Slot::Good(_))) {
            break;
        }
        thread::sleep(PAUSE);
        found = read()?;
    }
    Ok(found)
}

fn judge(home: &Home, slots: [Slot; 2]) -> Result<Judged> {
    let damaged = |which: usize, why: &str| format!("slot {} is damaged: {why}", which + 1);
    let [first, second] = slots.map(|slot| match slot {
        Slot::Good(entry) => Ok(entry),
        Slot::Bad(why) => Err(why),
        Slot::Empty => Err("it is empty".to_owned()),
    });
    match (first, second) {
        (Ok(a), Ok(b)) => {
            let settled = a == b;
            if a.seq == b.seq && !settled {
                let why = format!("its slots differ, and both have the sequence number {}", a.seq);
                return Err(lost(home, why));
            }
            let (which, newest) = if a.seq >= b.seq { (0, a) } else { (1, b) };
            let record = decode(home, which, &newest)?;
            Ok(Judged { record, newest: (which, newest.seq), settled, damage: None })
        }
        (Ok(good), Err(why)) => beside_damage(home, 0, &good, damaged(1, &why)),
        (Err(why), Ok(good)) => beside_damage(home, 1, &good, damaged(0, &why)),
        (Err(a), Err(b)) => Err(lost(home, format!("{}, {}", damaged(0, &a), damaged(1, &b)))),
    }
}

/// Judges the slot `which` beside a damaged one.
fn beside_damage(home: &Home, which: usize, good: &Entry, damage: String) -> Result<Judged> {
    let record = decode(home, which, good)?;
    match &record.upgrade {
        None => Ok(Judged { record, newest: (which, good.seq), settled: false, damage: Some(damage) }),
        Some(attempt) => Err(unproven(home, which, attempt, &damage)),
    }
}

fn decode(home: &Home, which: usize, entry: &Entry) -> Result<Record> {
    if entry.version != FORMAT.version {
        return Err(Error::new(Kind::Halted, "the journal was written by another version of wemixvisor")
            .at(home.journal().display())
            .because(format!("its format is {}, this program knows {}", entry.version, FORMAT.version))
            .hint("run the newer wemixvisor"));
    }
    serde_json::from_slice(&entry.payload)
        .map_err(|e| lost(home, format!("slot {} makes no sense: {e}", which + 1)))
}

fn bad_slot(home: &Home, why: &str) -> Error {
    Error::new(Kind::BadInput, "a slot of the journal is damaged, the other one serves")
        .at(home.journal().display())
        .because(why)
}

/// How an operator goes on without a journal.
const ANEW: &str = "restore it from a copy, or find out which version ran last, link `current` to it, move the \
                    damaged file away and run `wemixvisor init --import`";

fn lost(home: &Home, why: String) -> Error {
    Error::new(Kind::Halted, "no journal can be read, so what happened last cannot be proven")
        .at(home.journal().display())
        .because(why)
        .hint(ANEW)
}

fn unproven(home: &Home, which: usize, attempt: &Attempt, damage: &str) -> Error {
    let what = "the journal is damaged during an upgrade, so what happened last cannot be proven";
    Error::new(Kind::Halted, what)
        .at(home.journal().display())
        .because(format!(
            "{damage}; slot {}, which may be older, says that upgrade {} from {} to {} was in phase {}",
            which + 1,
            attempt.name,
            attempt.from.target,
            attempt.to.target,
            attempt.phase,
        ))
        .hint(ANEW)
}

#[cfg(test)]
mod tests;
