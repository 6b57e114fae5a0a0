//! How the supervisor's threads are started, given orders and ended.

use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::thread::Builder;
use std::time::Duration;

/// Starts a thread that ends by itself or with the process.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| Error::new(Kind::Io, format!("start the thread `{name}`")).because(e))
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
