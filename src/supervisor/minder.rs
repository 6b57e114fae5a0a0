//! The thread that waits for the end of the node.
//!
//! The end of a node that an earlier supervisor has launched makes no SIGCHLD, and one of our own may be missed.

use super::signals::Signal;
use super::threads::Thread;
use crate::error::Result;
use crate::sys::exit_of;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, test_kill_process};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

/// The time between the first two reports of an end whose status is late; it doubles.
const AGAIN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(10);
/// The time between two looks of the loop itself, where the end of a node cannot be waited for.
const BLIND: Duration = Duration::from_secs(1);

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Minder(Thread<MindedNode>);

/// A node to wait for.
#[derive(Debug)]
enum MindedNode {
    /// By its descriptor (pidfd_open(2)).
    Described(OwnedFd),
    /// By its number, since no descriptor could be had.
    Numbered(Option<Pid>),
}

impl Minder {
    /// Starts the thread; for every end of a node it sends to `ended` as if the kernel had.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(ended: Sender<Signal>) -> Result<Self> {
        let body = move |orders: &Receiver<MindedNode>| {
            let mut next = orders.recv().ok();
            // One node runs at a time, so each is waited for in its turn.
            while let Some(node) = next.take() {
                next = match node {
                    MindedNode::Described(pidfd) => {
                        wait(&pidfd, &ended);
                        report(&pidfd, &ended, orders)
                    }
                    MindedNode::Numbered(pid) => {
                        look_for(pid, orders, &ended);
                        orders.recv().ok()
                    }
                };
            }
        };
        Thread::start("minder", Duration::ZERO, body).map(Minder)
    }

    /// Reports when this process has ended; the descriptor, where there is one, stands for it (pidfd_open(2)).
    pub(super) fn mind(&self, pidfd: Option<BorrowedFd<'_>>, pid: u32) {
        let described = pidfd.and_then(|pidfd| pidfd.try_clone_to_owned().ok()).map(MindedNode::Described);
        let numbered = || MindedNode::Numbered(i32::try_from(pid).ok().and_then(Pid::from_raw));
        self.0.order(described.unwrap_or_else(numbered));
    }
}

/// Waits for the end of a process. Where the kernel has no memory for that, the loop looks each second.
fn wait(pidfd: &OwnedFd, ended: &Sender<Signal>) {
    while rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None)).is_err() {
        if ended.send(Signal::Child).is_err() {
            return;
        }
        thread::sleep(BLIND);
    }
}

/// Makes the loop look each second, until no process has this number or another node must be waited for.
fn look_for(pid: Option<Pid>, orders: &Receiver<MindedNode>, ended: &Sender<Signal>) {
    while pid.is_some_and(|pid| test_kill_process(pid).is_ok()) && orders.is_empty() {
        if ended.send(Signal::Child).is_err() {
            return;
        }
        thread::sleep(BLIND);
    }
}

/// Reports an end repeatedly until its status is known, or until another node must be waited for, which is returned. The
/// loop decides how long it waits for a status that is late.
fn report(pidfd: &OwnedFd, ended: &Sender<Signal>, orders: &Receiver<MindedNode>) -> Option<MindedNode> {
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
    use crate::children;
    use crossbeam_channel::unbounded;
    use rustix::process::{PidfdFlags, Signal as Sent, pidfd_open};
    use std::process::Command;

    #[test]
    fn an_end_is_reported_until_another_node_must_be_minded() {
        let (ended, reports) = unbounded();
        let minder = Minder::start(ended).unwrap();
        // It is not waited for, so its status stays unknown.
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        minder.mind(Some(pidfd.as_fd()), child.id());
        // Later than any status may be.
        let begun = std::time::Instant::now();
        while begun.elapsed() < LATE * 2 {
            reports.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        child.wait().unwrap();
        drop(minder);
        while reports.recv_timeout(Duration::from_secs(20)).is_ok() {}
    }

    #[test]
    fn an_end_is_noticed_with_and_without_a_descriptor() {
        for described in [true, false] {
            let (sender, ends) = unbounded();
            let minder = Minder::start(sender).unwrap();
            let mut child = children::spawn(Command::new("/bin/sh").args(["-c", "exec sleep 1000"])).unwrap();
            let pid = child.pid().as_raw_pid().unsigned_abs();
            minder.mind(child.pidfd().filter(|_| described), pid);
            child.signal(Sent::KILL).unwrap();
            while child.try_wait().unwrap().is_none() {
                assert!(matches!(ends.recv().unwrap(), Signal::Child));
            }
        }
    }
}
