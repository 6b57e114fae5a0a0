//! The thread that writes for the loop: the journal, the history, and a cancelled upgrade in the schedule. While a node
//! runs the loop never waits for a disk.
//!
//! Records come first, in order, and the outcome of each is reported. The rest is done when no record waits, one piece
//! at a time: the second copy of a record at rest, lines of history, receipts, the schedule.

use super::threads::Thread;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::{Receipt, Record};
use crate::name::Name;
use crate::schedule::Agenda;
use crate::schedule::Planned;
use crate::upgrade::history::{self, Entry};
use crate::upgrade::journal::Journal;
use crate::upgrade::receipts;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::collections::VecDeque;
use std::time::Duration;

/// How long the end of the supervisor, and a `reexec`, wait for writes that are still queued.
const DRAIN: Duration = Duration::from_secs(5);
/// The wait before a failed write of the second copy of a record is repeated.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the schedule may be locked by a command that changes it.
const LOCKED: Duration = Duration::from_millis(250);

/// The outcome of the write of a record.
pub(super) type Written = Result<()>;

/// The outcome of the cancellation of an upgrade.
#[derive(Debug)]
pub(super) struct Struck {
    pub(super) name: Name,
    /// The caller.
    pub(super) reply_to: Option<u64>,
    pub(super) result: Result<()>,
}

/// Work that is done when no record waits.
#[derive(Debug)]
enum Task {
    Settle,
    Note(Entry),
    Keep(Box<Receipt>),
    Strike {
        name: Name,
        heights: Vec<u64>,
        reply_to: Option<u64>,
    },
    /// Report that all earlier orders are carried out.
    Report(Sender<()>),
}

#[derive(Debug)]
enum RecorderOrder {
    Write(Box<Record>),
    Later(Task),
}

/// The handle of the thread. Dropped, the thread ends when all is written.
#[derive(Debug)]
pub(super) struct Recorder {
    thread: Thread<RecorderOrder>,
    written: Receiver<Written>,
    /// Whether a record was written since the last second copy.
    unsettled: bool,
}

impl Recorder {
    /// Starts the thread; outcomes go to `written`, whose receiving end is needed here as well, and to `struck`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(
        home: &Home,
        journal: Journal,
        written: (Sender<Written>, Receiver<Written>),
        struck: Sender<Struck>,
    ) -> Result<Self> {
        let (outcomes, written) = written;
        let desk = Desk {
            home: home.clone(),
            journal,
            written: outcomes,
            struck,
            later: VecDeque::new(),
            is_unsettled: false,
        };
        let thread = Thread::start("recorder", DRAIN, |orders| desk.run(orders))?;
        Ok(Recorder { thread, written, unsettled: false })
    }

    /// Orders a record to be made durable; the outcome is reported.
    pub(super) fn write(&mut self, record: Record) {
        self.unsettled = true;
        self.thread.order(RecorderOrder::Write(Box::new(record)));
    }

    /// Waits for the outcome of the only record that is on its way. The machine has no second one then.
    pub(super) fn wait(&self) -> Written {
        self.written.recv().map_err(|e| Error::new(Kind::Bug, "wait for the journal").because(e))?
    }

    /// Orders the second copy of a record at rest, if a record was written since the last one.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) {
            self.thread.order(RecorderOrder::Later(Task::Settle));
        }
    }

    /// Orders a line of the history.
    pub(super) fn note(&self, entry: Entry) {
        self.thread.order(RecorderOrder::Later(Task::Note(entry)));
    }

    /// Orders a receipt to be kept.
    pub(super) fn keep(&self, receipt: Receipt) {
        self.thread.order(RecorderOrder::Later(Task::Keep(Box::new(receipt))));
    }

    /// Orders an upgrade to be struck off the schedule; the outcome is reported.
    pub(super) fn strike(&self, planned: &Planned, name: Name, reply_to: Option<u64>) {
        let heights = planned.heights(&name);
        self.thread.order(RecorderOrder::Later(Task::Strike { name, heights, reply_to }));
    }

    /// Waits, no longer than [`DRAIN`], until all orders are carried out. Returns whether they are.
    pub(super) fn drain(&self) -> bool {
        let (report, reported) = bounded(1);
        self.thread.order(RecorderOrder::Later(Task::Report(report)));
        reported.recv_timeout(DRAIN).is_ok()
    }
}

/// The state of the thread.
struct Desk {
    home: Home,
    journal: Journal,
    written: Sender<Written>,
    struck: Sender<Struck>,
    later: VecDeque<Task>,
    /// Whether the second copy of a record at rest could not be written, so that this is logged once.
    is_unsettled: bool,
}

impl Desk {
    fn run(mut self, orders: &Receiver<RecorderOrder>) {
        loop {
            match self.next(orders) {
                Ok(Some(RecorderOrder::Write(record))) => {
                    // No receiver: the supervisor has ended.
                    let _ = self.written.send(self.journal.write(&record));
                }
                Ok(Some(RecorderOrder::Later(task))) => self.later.push_back(task),
                Ok(None) => {
                    if let Some(task) = self.later.pop_front() {
                        self.perform(task);
                    }
                }
                Err(Ended) => return,
            }
        }
    }

    /// The next order; None where none waits and another task is due.
    fn next(&self, orders: &Receiver<RecorderOrder>) -> std::result::Result<Option<RecorderOrder>, Ended> {
        if !self.later.is_empty() {
            return match orders.try_recv() {
                Ok(order) => Ok(Some(order)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(None),
            };
        }
        if self.is_unsettled {
            return match orders.recv_timeout(AGAIN) {
                Ok(order) => Ok(Some(order)),
                Err(RecvTimeoutError::Timeout) => Ok(Some(RecorderOrder::Later(Task::Settle))),
                Err(RecvTimeoutError::Disconnected) => Err(Ended),
            };
        }
        orders.recv().map(Some).map_err(|_| Ended)
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Settle => self.settle(),
            Task::Note(entry) => {
                if let Err(e) = history::append(&self.home, &entry) {
                    log::warn!("event=history_not_written {e}");
                }
            }
            Task::Keep(receipt) => {
                if let Err(e) = receipts::keep(&self.home, &receipt) {
                    log::warn!("event=receipt_not_written {e}");
                }
            }
            Task::Strike { name, heights, reply_to } => {
                let result = Agenda::edit_within(LOCKED, &self.home, |agenda| agenda.cancel(&name, &heights));
                let _ = self.struck.send(Struck { name, reply_to, result });
            }
            Task::Report(to) => {
                let _ = to.send(());
            }
        }
    }

    /// Writes the second copy of a record at rest.
    fn settle(&mut self) {
        let trouble = self.journal.settle().err();
        if let Some(e) = trouble.as_ref().filter(|_| !self.is_unsettled) {
            log::error!("event=journal_not_settled the newest record is in one slot only: {e}");
        }
        self.is_unsettled = trouble.is_some();
    }
}

/// The supervisor has ended, and all is written.
struct Ended;
