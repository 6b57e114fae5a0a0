//! The common part of the servers: threads that accept, and a way to close everything at once.
//!
//! A stopping node closes its RPC first, while it still holds its data. So each server can be told to stop accepting,
//! and each open connection to end, without waiting for the other side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

type Closer = Box<dyn FnOnce() + Send>;

/// The open connections of a server.
#[derive(Default)]
pub(crate) struct Door {
    closing: AtomicBool,
    next: AtomicU64,
    closers: Mutex<Vec<(u64, Closer)>>,
}

/// One connection; dropped, it is forgotten.
pub(crate) struct Entry {
    door: Arc<Door>,
    number: u64,
}

impl Door {
    /// Whether the server is to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Notes a connection and how to cut it. `None` when the door is closed already.
    pub(crate) fn enter(self: &Arc<Door>, closer: Closer) -> Option<Entry> {
        let mut closers = self.closers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closing() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        closers.push((number, closer));
        Some(Entry { door: self.clone(), number })
    }

    /// Cuts every connection and lets none in any more.
    pub(crate) fn close(&self) {
        let mut closers = self.closers.lock().unwrap_or_else(PoisonError::into_inner);
        self.closing.store(true, Ordering::SeqCst);
        closers.drain(..).for_each(|(_, closer)| closer());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut closers = self.door.closers.lock().unwrap_or_else(PoisonError::into_inner);
        closers.retain(|(number, _)| *number != self.number);
    }
}

/// A server that is bound, and from [`Server::begin`] on serves.
pub(crate) struct Server {
    /// Where it listens, as the log tells it.
    pub(crate) endpoint: String,
    door: Arc<Door>,
    accept: Option<Box<dyn FnOnce() + Send>>,
    thread: Option<JoinHandle<()>>,
    /// Makes the accepting thread look up.
    wake: Box<dyn Fn() + Send>,
    after: Box<dyn FnOnce() + Send>,
}

impl Server {
    /// A server whose `accept` owns the listener and returns when it was woken and the door is closing; `after` tidies up.
    pub(crate) fn new(
        endpoint: String,
        door: Arc<Door>,
        accept: impl FnOnce() + Send + 'static,
        wake: impl Fn() + Send + 'static,
        after: impl FnOnce() + Send + 'static,
    ) -> Server {
        let (accept, wake, after) = (Some(Box::new(accept) as _), Box::new(wake), Box::new(after));
        Server { endpoint, door, accept, thread: None, wake, after }
    }

    /// Starts to accept; whoever has connected before is served now.
    pub(crate) fn begin(&mut self) {
        self.thread = self.accept.take().map(std::thread::spawn);
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn close(self) {
        self.door.close();
        drop(self.accept);
        if let Some(thread) = self.thread {
            (self.wake)();
            let _ = thread.join();
        }
        (self.after)();
    }
}
