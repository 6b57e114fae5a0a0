//! When to try again: backoff, and the count of a node's failures.

use std::time::{Duration, Instant};

/// A node that ran this long is healthy again, and its earlier failures are forgiven.
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// How often an upgrade's new binary is executed before the machine gives up on it.
pub(super) const ATTEMPTS: u32 = 3;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The wait before try number `failures + 1`: 1 s doubling to 60 s, ± 20 %.
///
/// `dice` is any number; it decides the jitter and nothing else.
#[must_use]
pub fn backoff(failures: u32, dice: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let base = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let percent = 80 + (scramble(dice.wrapping_add(u64::from(failures))) % 41) as u32;
    base * percent / 100
}

/// Consecutive failures of the node, outside of upgrades.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Restarts {
    failures: u32,
}

impl Restarts {
    /// Counts a failure of a node that ran from `since` to `now`.
    pub(super) fn fail(&mut self, since: Option<Instant>, now: Instant) {
        let healthy = since.is_some_and(|s| now.duration_since(s) >= FORGIVEN_AFTER);
        self.failures = if healthy { 1 } else { self.failures + 1 };
    }

    /// Forgets all failures.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    #[must_use]
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the limit is used up; 0 is no limit.
    #[must_use]
    pub(super) fn exhausted(&self, limit: u32) -> bool {
        limit > 0 && self.failures > limit
    }
}

/// One round of SplitMix64 (Steele, Lea, Flood 2014): spreads neighbouring seeds.
fn scramble(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_minute_within_a_fifth() {
        for dice in 0..200 {
            for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (7, 60), (1000, 60)] {
                let wait = backoff(failures, dice).as_secs_f64() / f64::from(seconds);
                assert!((0.8..=1.2).contains(&wait), "failures {failures}: {wait}");
            }
        }
        assert_ne!(backoff(1, 1), backoff(1, 2), "there is jitter");
    }

    #[test]
    fn ten_minutes_of_health_forgive() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for _ in 0..5 {
            restarts.fail(Some(start), start + Duration::from_secs(599));
        }
        assert!(!restarts.exhausted(5));
        restarts.fail(Some(start), start);
        assert!(restarts.exhausted(5) && !restarts.exhausted(0));
        restarts.fail(Some(start), start + FORGIVEN_AFTER);
        assert_eq!(restarts.failures(), 1);
    }
}
