//! The times before which servers must not be asked again, since they have sent `Retry-After`.
//!
//! A fetch that has failed is begun again by its caller. A server may ask for a longer wait than the fetch takes, so this
//! outlives the fetch. It does not outlive the process: the next run may ask at once.

use super::url::Url;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bound on `Retry-After`.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The URLs that must not be asked yet. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct RetryAfter(Arc<Mutex<BTreeMap<String, Instant>>>);

impl RetryAfter {
    /// Records that the server of a URL has asked at `now` for this wait.
    pub(super) fn note(&self, url: &Url, asked: Duration, now: Instant) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|_, until| *until > now);
        times.insert(url.as_str().to_owned(), now + asked.min(LONGEST));
    }

    /// The rest of the wait at `now`; `None` if there is none.
    pub(super) fn left(&self, url: &Url, now: Instant) -> Option<Duration> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = times.get(url.as_str())?.saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_not_asked_before_its_time_but_within_a_day() {
        let (times, now) = (RetryAfter::default(), Instant::now());
        let [a, b] = ["http://a/x", "http://b/x"].map(|text| text.parse::<Url>().unwrap());
        let hour = Duration::from_secs(3600);
        times.clone().note(&a, hour, now);
        assert_eq!(times.left(&a, now + hour / 4), Some(hour * 3 / 4));
        assert_eq!((times.left(&a, now + hour), times.left(&b, now)), (None, None));
        times.note(&b, Duration::MAX, now + hour);
        assert_eq!(times.left(&b, now + hour), Some(LONGEST));
        assert_eq!(times.0.lock().unwrap().len(), 1);
    }
}
