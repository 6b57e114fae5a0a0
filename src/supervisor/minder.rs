//! The thread that waits for the end of the node.
//!
//! The end of a node that an earlier supervisor has launched makes no SIGCHLD, and one of our own may be missed.

use super::signals::Signal;
use super::start_thread;
use crate::error::{Error, Kind, Result};
use crate::sys::exit_of;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The time between the first two reports of an end whose status is late; it doubles.
const AGAIN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(10);

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
            let mut next = orders.recv().ok();
            // One node runs at a time, so that each is waited for in its turn.
            while let Some(pidfd) = next.take() {
                // After an error the loop looks for itself.
                let _ = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None));
                next = report(&pidfd, &ended, &orders);
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

/// Reports an end again and again until its status is known, or another node is to be minded: the status may be late,
/// and how late is the loop's to judge, which may itself be late. Returns that other node.
fn report(pidfd: &OwnedFd, ended: &Sender<Signal>, orders: &Receiver<OwnedFd>) -> Option<OwnedFd> {
    let mut pause = AGAIN;
    loop {
        let is_known = exit_of(pidfd.as_fd()).is_some();
        ended.send(Signal::Child).ok()?;
        if is_known {
            return orders.recv().ok();
        }
        match orders.recv_timeout(pause) {
            Ok(next) => return Some(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        pause = (pause * 2).min(SELDOM);
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::LATE;
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::Command;

    #[test]
    fn an_end_is_reported_until_another_node_is_to_be_minded() {
        let (ended, reports) = unbounded();
        let minder = Minder::start(ended).unwrap();
        // Nobody waits for it, so its status stays unknown.
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        minder.mind(pidfd.as_fd());
        // Later than any status may be.
        let begun = std::time::Instant::now();
        while begun.elapsed() < LATE * 2 {
            reports.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        child.wait().unwrap();
        drop(minder);
        while reports.recv_timeout(Duration::from_secs(20)).is_ok() {}
    }
}
