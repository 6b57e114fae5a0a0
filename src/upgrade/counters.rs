//! Counters of this process, for the metrics. They begin at 0 with each supervisor, as a counter of Prometheus may.
//!
//! Statics, since the code that counts lies deep, runs in several threads, and decides nothing by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hooks that were run and did not end with 0.
pub static HOOK_FAILURES: Counter = Counter(AtomicU64::new(0));
/// Bytes that downloads have received.
pub static DOWNLOAD_BYTES: Counter = Counter(AtomicU64::new(0));
/// Events that were too many to be told.
pub static NOTIFY_DROPPED: Counter = Counter(AtomicU64::new(0));
/// Events for which the operator's program has failed.
pub static NOTIFY_FAILURES: Counter = Counter(AtomicU64::new(0));

/// Upgrades that have ended, by [`Outcome`](crate::machine::Outcome).
pub static UPGRADES: [Counter; 4] = [const { Counter(AtomicU64::new(0)) }; 4];

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
