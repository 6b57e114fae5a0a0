//! Which servers have asked to be left alone, and until when.
//!
//! A fetch that has failed is begun again by whoever wants the file. A server that asks for a longer wait
//! than a fetch takes is then not to be asked at once again, so this outlives the fetch. It does not outlive
//! the process: what a server has asked of one run of ours is no reason to hold up the next.

use super::url::Url;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest rest of a mirror, whatever it asks for.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The URLs that are not to be asked for yet. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Rests(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Rests {
    /// Takes note that the server of a URL has asked at `now` to wait for so long.
    pub(super) fn note(&self, url: &Url, asked: Duration, now: Instant) {
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rests.retain(|_, until| *until > now);
        rests.insert(url.as_str().to_owned(), now + asked.min(LONGEST));
    }

    /// How much of that is left at `now`; `None` if nothing is.
    pub(super) fn left(&self, url: &Url, now: Instant) -> Option<Duration> {
        let rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rests
            .get(url.as_str())
            .map(|until| until.saturating_duration_since(now))
            .filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks_but_not_for_ever() {
        let (rests, now) = (Rests::default(), Instant::now());
        let [a, b] = ["http://a/x", "http://b/x"].map(|text| text.parse::<Url>().unwrap());
        let hour = Duration::from_secs(3600);
        rests.clone().note(&a, hour, now);
        assert_eq!(rests.left(&a, now + hour / 4), Some(hour * 3 / 4));
        assert_eq!((rests.left(&a, now + hour), rests.left(&b, now)), (None, None));
        rests.note(&b, Duration::MAX, now + hour);
        assert_eq!(rests.left(&b, now + hour), Some(LONGEST));
        assert_eq!(rests.0.lock().unwrap().len(), 1);
    }
}
