//! The thread that waits until nothing holds a lock of the previous node.
//!
//! Two locks count: `node.lock`, which every process of the node inherited from us, and the node's own in its data
//! directory. Usually both are free the moment the node is reaped and the thread is not needed; it stands by because none
//! might be had when the machine is out of processes.

use super::threads::Thread;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::home::lock::{DataLock, NodeLock, holders, probe_data_lock};
use crossbeam_channel::{Receiver, Sender};
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How long to wait between two looks, growing from the first to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// The handle of the thread. Dropped, the thread ends when the locks are free.
#[derive(Debug)]
pub(super) struct Release {
    home: Home,
    thread: Thread<PathBuf>,
    done: Sender<()>,
}

impl Release {
    /// Starts the thread; it sends to `done` once the locks are free.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(home: &Home, done: Sender<()>) -> Result<Self> {
        let (ours, theirs) = (home.clone(), done.clone());
        let thread = Thread::start("locks", Duration::ZERO, move |patterns| run(&ours, patterns, &theirs))?;
        Ok(Release { home: home.clone(), thread, done })
    }

    /// Sends to `done` once the locks are free, the node's own being those that match `pattern`: at once if they are.
    pub(super) fn watch(&self, pattern: PathBuf) {
        match holder(&self.home, &pattern) {
            // The receiver is gone only when the supervisor is.
            None => drop(self.done.send(())),
            Some(held) => {
                log::warn!("event=waiting_for_locks {held}");
                self.thread.order(pattern);
            }
        }
    }
}

fn run(home: &Home, patterns: &Receiver<PathBuf>, done: &Sender<()>) {
    for pattern in patterns {
        let mut pause = LOOK.0;
        while holder(home, &pattern).is_some() {
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK.1);
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

/// The lock that keeps the node from being started; shown with its holder.
enum Held {
    /// `node.lock`, which the node and hooks inherit from us.
    Inherited(PathBuf),
    /// The node's own.
    Own(PathBuf, Option<i32>),
    /// A lock that cannot be examined counts as held.
    Unknown(Error),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Inherited(path) => {
                write!(f, "lock={} a process of the previous node or of a hook is alive", path.display())?;
                match holders(path) {
                    found if found.is_empty() => Ok(()),
                    found => write!(f, ": {}", found.join(", ")),
                }
            }
            Held::Own(path, pid) => {
                let by = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                write!(f, "lock={} the node's own lock is held by {by}", path.display())
            }
            Held::Unknown(e) => e.fmt(f),
        }
    }
}

fn holder(home: &Home, pattern: &Path) -> Option<Held> {
    match NodeLock::try_acquire(home) {
        Ok(Some(_free)) => {}
        Ok(None) => return Some(Held::Inherited(home.node_lock())),
        Err(e) => return Some(Held::Unknown(e)),
    }
    match probe_data_lock(pattern) {
        Ok(DataLock::Absent | DataLock::Free) => None,
        Ok(DataLock::Held { path, pid }) => Some(Held::Own(path, pid)),
        Err(e) => Some(Held::Unknown(e)),
    }
}
