//! A token that ends a job from another thread: a flag to look at, and a descriptor to wait on.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The pause where poll(2) fails, so that nothing spins.
pub(super) const BLIND: Duration = Duration::from_millis(50);

/// Shared between a job and the threads that may end it. Once cancelled it stays cancelled.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    flag: AtomicBool,
    event: OwnedFd,
}

impl Cancel {
    /// A token that is not cancelled.
    ///
    /// # Errors
    /// If the process has no descriptor left (eventfd(2)).
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel(Arc::new(Inner { flag: AtomicBool::new(false), event })))
    }

    /// Asks the job to end.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::Release);
        // It fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Waits, for no longer than `limit`, and less if the job must end. It may return early without a reason.
    pub fn wait(&self, limit: Duration) {
        let Ok(time) = Timespec::try_from(limit) else { return };
        match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The machine has no memory for it (poll(2)).
            Err(_) => thread::sleep(limit.min(BLIND)),
        }
    }

    /// Whether the job must end.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::Acquire)
    }
}

impl AsFd for Cancel {
    /// Readable from the moment at which the job must end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
