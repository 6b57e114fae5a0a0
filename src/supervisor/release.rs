//! The thread that waits until nothing holds a lock of the previous node.
//!
//! Two locks count: the one that every process of the node inherited from us, and the node's own in
//! its data directory. Usually both are free the moment the node is reaped and the thread is not needed;
//! it stands by all the same, because a new one might not be had when the machine is out of processes.

use super::essential;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::home::lock::{DataLock, NodeLock, probe_data_lock};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How long to wait between two looks, growing from the first to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// The handle of the thread. Dropped, the thread ends when the locks are free.
#[derive(Debug)]
pub(super) struct Release {
    home: Home,
    held: Sender<PathBuf>,
    done: Sender<()>,
}

impl Release {
    /// Starts the thread; it sends to `done` once the locks are free.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(home: &Home, done: Sender<()>) -> Result<Self> {
        let (held, patterns) = unbounded();
        let body = {
            let (home, done) = (home.clone(), done.clone());
            move || run(&home, &patterns, &done)
        };
        essential::spawn("locks", body)
            .map_err(|e| Error::new(Kind::Io, "start the thread that waits for locks").because(e))?;
        Ok(Release { home: home.clone(), held, done })
    }

    /// Sends to `done` once the locks are free, the node's own being those that match `pattern`: at once if they are.
    pub(super) fn watch(&self, pattern: PathBuf) {
        match holder(&self.home, &pattern) {
            // The receiver is gone only when the supervisor is.
            None => drop(self.done.send(())),
            Some(holder) => {
                log::warn!("event=waiting_for_locks {holder}");
                // The thread lives as long as this handle.
                let _ = self.held.send(pattern);
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

/// The holder of a lock, in words; a lock that cannot be examined counts as held.
fn holder(home: &Home, pattern: &Path) -> Option<String> {
    match NodeLock::try_acquire(home) {
        Ok(Some(_free)) => {}
        Ok(None) => {
            return Some(format!(
                "lock={} a process of the previous node is alive",
                home.node_lock().display()
            ));
        }
        Err(e) => return Some(e.to_string()),
    }
    match probe_data_lock(pattern) {
        Ok(DataLock::Absent | DataLock::Free) => None,
        Ok(DataLock::Held { path, pid }) => {
            let by = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Some(format!("lock={} the node's own lock is held by {by}", path.display()))
        }
        Err(e) => Some(e.to_string()),
    }
}
