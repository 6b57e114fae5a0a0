//! How the supervisor's threads are started, given orders and ended.

use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// The wait before a connection is taken again that could not be.
const AGAIN: Duration = Duration::from_millis(20);

/// Starts a thread that ends by itself or with the process.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| Error::new(Kind::Io, format!("start the thread `{name}`")).because(e))
}

/// Serves each connection in a thread of this name, `most` at the same time. A further one takes the place that `make_room`
/// has another leave, or is closed at once.
pub(super) fn serve_each<S: Send + 'static>(
    name: &str,
    most: usize,
    incoming: impl Iterator<Item = io::Result<S>>,
    make_room: impl Fn() -> bool,
    serve: impl Fn(S) -> io::Result<()> + Clone + Send + 'static,
) {
    let places = Arc::new(());
    for stream in incoming {
        let Ok(stream) = stream else {
            // Out of descriptors: the client stays queued; do not spin.
            thread::sleep(AGAIN);
            continue;
        };
        // One for us and one for each connection, given back however that ends.
        if Arc::strong_count(&places) > most && !make_room() {
            continue;
        }
        let (serve, place) = (serve.clone(), Arc::clone(&places));
        let body = move || {
            // A peer that hangs up or asks nonsense harms only itself.
            let _ = serve(stream);
            drop(place);
        };
        if let Err(e) = Builder::new().name(name.to_owned()).spawn(body) {
            log::warn!("event=no_thread a connection is dropped: {e}");
        }
    }
}

/// A connection on which all reads and writes together have until a moment, however slow its peer is.
pub(super) struct Timed<'a, S> {
    stream: &'a S,
    until: Instant,
}

impl<'a, S: AsFd> Timed<'a, S> {
    /// The connection, with so much time.
    pub(super) fn new(stream: &'a S, time: Duration) -> Self {
        Timed { stream, until: Instant::now() + time }
    }

    /// Lets the next operation take the time that is left.
    fn allow(&self, operation: Timeout) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(set_socket_timeout(self.stream, operation, Some(left))?)
    }
}

impl<S: AsFd> Read for Timed<'_, S>
where
    for<'s> &'s S: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.allow(Timeout::Recv)?;
        self.stream.read(buf)
    }
}

impl<S: AsFd> Write for Timed<'_, S>
where
    for<'s> &'s S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.allow(Timeout::Send)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The handle of a thread that carries out orders. When it is dropped, the thread carries out those that are queued, then
/// ends.
#[derive(Debug)]
pub(super) struct Thread<T> {
    /// None while the handle is dropped.
    orders: Option<Sender<T>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    /// Upper bound on the wait for that end when the handle is dropped.
    patience: Duration,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts the thread; `body` returns when it can receive no order any more.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(
        name: &str,
        patience: Duration,
        body: impl FnOnce(&Receiver<T>) + Send + 'static,
    ) -> Result<Self> {
        let (orders, receiver) = unbounded();
        let (ends, ended) = bounded::<()>(0);
        start_thread(name, move || {
            body(&receiver);
            drop(ends);
        })?;
        Ok(Thread { orders: Some(orders), ended, patience })
    }
}

impl<T> Thread<T> {
    /// Hands an order over.
    pub(super) fn order(&self, order: T) {
        if let Some(orders) = &self.orders {
            // The thread lives as long as this handle.
            let _ = orders.send(order);
        }
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.ended.recv_timeout(self.patience);
    }
}
