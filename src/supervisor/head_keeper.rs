//! The thread that makes the head record durable. The loop hands records over and never waits for a disk.
//!
//! Where records come faster than the disk takes them, only the newest is written.

use super::start_thread;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::HeadRecord;
use crate::upgrade::head::{self, HeadFile};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::time::{Duration, Instant};

/// How often people are told that records cannot be written.
const REMIND: Duration = Duration::from_secs(60);

/// The handle of the thread. Dropped, the thread ends when all is written.
#[derive(Debug)]
pub(super) struct HeadKeeper {
    records: Option<Sender<Option<HeadRecord>>>,
    ended: Receiver<()>,
}

impl HeadKeeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(home: &Home) -> Result<Self> {
        let (records, receiver) = unbounded();
        let (ends, ended) = unbounded();
        let home = home.clone();
        let body = move || {
            run(&home, &receiver);
            drop(ends);
        };
        start_thread("head-keeper", body)
            .map_err(|e| Error::new(Kind::Io, "start the thread of the head record").because(e))?;
        Ok(HeadKeeper { records: Some(records), ended })
    }

    /// Has a record made durable, or with None the file removed.
    pub(super) fn keep(&self, record: Option<HeadRecord>) {
        if let Some(records) = &self.records {
            // The thread lives as long as this handle.
            let _ = records.send(record);
        }
    }
}

impl Drop for HeadKeeper {
    fn drop(&mut self) {
        self.records = None;
        // It ends when the last record is written, or could not be.
        let _ = self.ended.recv_timeout(Duration::from_secs(5));
    }
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
