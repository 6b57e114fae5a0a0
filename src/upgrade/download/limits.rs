//! The limits of time of a download, which are constants.

use super::retry::Policy;
use std::time::Duration;

/// How long to wait for a server, and how often to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The longest that finding and connecting to a server may take (each).
    pub connect: Duration,
    /// The longest that a server may take to send the head of its answer.
    pub first_byte: Duration,
    /// The least number of bytes per second.
    pub min_rate: u64,
    /// The time over which that is measured.
    pub rate_window: Duration,
    /// When to try again.
    pub retry: Policy,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            min_rate: 10 * 1024,
            rate_window: Duration::from_secs(30),
            retry: Policy::default(),
        }
    }
}
