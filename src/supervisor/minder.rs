//! The thread that waits for the end of the node.
//!
//! The end of a node that an earlier supervisor has launched makes no SIGCHLD, and one of our own may be missed.

use super::child::LATE;
use super::signals::Signal;
use super::start_thread;
use crate::error::{Error, Kind, Result};
use crate::sys::exit_of;
use crossbeam_channel::{Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two looks for a status that is late.
const AGAIN: Duration = Duration::from_millis(20);

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Minder {
    nodes: Sender<OwnedFd>,
}

impl Minder {
    /// Starts the thread; for every end of a node it sends to `ended` as if the kernel had.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(ended: Sender<Signal>) -> Result<Self> {
        let (nodes, orders) = unbounded::<OwnedFd>();
        let body = move || {
            // One node runs at a time, so that each is waited for in its turn.
            for pidfd in orders {
                // After an error the loop looks for itself.
                let _ = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None));
                // Its status may be late.
                let seen = Instant::now();
                loop {
                    let is_known = exit_of(pidfd.as_fd()).is_some();
                    let is_last = is_known || seen.elapsed() > LATE;
                    if ended.send(Signal::Child).is_err() || is_last {
                        break;
                    }
                    thread::sleep(AGAIN);
                }
            }
        };
        start_thread("minder", body)
            .map_err(|e| Error::new(Kind::Io, "start the thread that waits for the node").because(e))?;
        Ok(Minder { nodes })
    }

    /// Reports when the process of this descriptor (pidfd_open(2)) has ended.
    pub(super) fn mind(&self, pidfd: BorrowedFd<'_>) {
        match pidfd.try_clone_to_owned() {
            // The thread lives as long as this handle.
            Ok(pidfd) => drop(self.nodes.send(pidfd)),
            Err(e) => log::warn!("event=node_not_minded {e}"),
        }
    }
}
