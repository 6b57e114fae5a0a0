//! How the supervisor's threads are started, given orders and ended.

use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::io;
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

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

/// Serves each connection in a thread of this name, `most` at the same time; further ones are closed at once.
pub(super) fn serve_each<S: Send + 'static>(
    name: &str,
    most: usize,
    incoming: impl Iterator<Item = io::Result<S>>,
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
        if Arc::strong_count(&places) > most {
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
