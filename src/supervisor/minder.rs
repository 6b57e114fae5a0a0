//! The thread that waits for the end of the node.
//!
//! The end of a node that an earlier supervisor has launched makes no SIGCHLD, and one of our own may be missed.

use super::signals::Signal;
use super::start_thread;
use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{BorrowedFd, OwnedFd};

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
                if ended.send(Signal::Child).is_err() {
                    return;
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
