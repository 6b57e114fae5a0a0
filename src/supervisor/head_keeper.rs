//! The thread that makes the head record durable. The loop hands records over and never waits for a disk.
//!
//! Where records come faster than the disk takes them, only the newest is written.

use super::threads::Thread;
use crate::error::Result;
use crate::home::Home;
use crate::machine::HeadRecord;
use crate::upgrade::head::{self, HeadFile};
use crossbeam_channel::Receiver;
use std::time::{Duration, Instant};

/// The interval at which it is logged again that records cannot be written.
const REMIND: Duration = Duration::from_secs(60);
/// How long the end of the supervisor waits for the last record.
const DRAIN: Duration = Duration::from_secs(5);

/// The handle of the thread. It makes a record durable; for None it removes the file.
pub(super) type HeadKeeper = Thread<Option<HeadRecord>>;

/// Starts the thread.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start(home: &Home) -> Result<HeadKeeper> {
    let home = home.clone();
    Thread::start("head-keeper", DRAIN, move |records| run(&home, records))
}

fn run(home: &Home, records: &Receiver<Option<HeadRecord>>) {
    let (mut file, mut reported) = (None::<HeadFile>, None::<Instant>);
    while let Ok(first) = records.recv() {
        let newest = records.try_iter().last().unwrap_or(first);
        if let Err(e) = keep(home, &mut file, newest) {
            file = None;
            if reported.is_none_or(|at| at.elapsed() >= REMIND) {
                log::error!(
                    "event=head_not_kept after a crash this validator may not know what was final: {e}"
                );
                reported = Some(Instant::now());
            }
        }
    }
}

fn keep(home: &Home, file: &mut Option<HeadFile>, record: Option<HeadRecord>) -> Result<()> {
    let Some(record) = record else {
        *file = None;
        return head::forget(home);
    };
    let open = match file {
        Some(open) => open,
        None => file.insert(HeadFile::open(home)?),
    };
    open.write(&record)
}
