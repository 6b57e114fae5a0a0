//! Waiting until nothing holds a lock of the previous node.
//!
//! Two locks count: the one that every process of the node inherited from us, and the node's own in
//! its data directory. Usually both are free the moment the node is reaped and no thread is needed.

use crate::home::Home;
use crate::home::lock::{DataLock, NodeLock, probe_data_lock};
use crossbeam_channel::Sender;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How long to wait between two looks, growing from the first to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Sends to `done` once the locks are free; at once and without a thread if they are.
pub(super) fn watch(home: &Home, pattern: PathBuf, done: Sender<()>) {
    match holder(home, &pattern) {
        None => drop(done.send(())),
        Some(holder) => {
            log::warn!("event=waiting_for_locks {holder}");
            let home = home.clone();
            let body = move || wait(&home, &pattern, &done);
            if let Err(e) = thread::Builder::new().name("locks".to_owned()).spawn(body) {
                log::error!("event=no_thread locks are not watched: {e}");
            }
        }
    }
}

fn wait(home: &Home, pattern: &std::path::Path, done: &Sender<()>) {
    let mut pause = LOOK.0;
    while holder(home, pattern).is_some() {
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK.1);
    }
    // The receiver is gone only when the supervisor is.
    let _ = done.send(());
}

/// What holds a lock, in words; a lock that cannot be examined counts as held.
fn holder(home: &Home, pattern: &std::path::Path) -> Option<String> {
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
