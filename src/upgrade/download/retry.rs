//! When to try which mirror again: a pure value that is fed times and failures.
//!
//! Each mirror has its own count of failures. After a failure the next mirror that is ready takes over at once; there is a
//! wait only when none is ready. An attempt that got further than any before it clears its mirror's count, so that a
//! large file over a bad line arrives in the end, while mirrors that only ever fail are given up.

use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many times in a row one mirror may fail.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait by doubling.
    pub longest_wait: Duration,
    /// A server that asks for a longer wait than this is given up.
    pub longest_asked: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            attempts: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            longest_asked: Duration::from_secs(600),
        }
    }
}

/// The meaning of a failed attempt for its mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It may pass: try again, not before `retry_after` where the server asked for that.
    Passing {
        /// The wait that the server asked for.
        retry_after: Option<Duration>,
    },
    /// It will not: this mirror is out.
    Lasting,
}

/// The state of all mirrors of one download.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: Policy,
    seed: u64,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, Default)]
struct Mirror {
    failures: u32,
    out: bool,
    ready_at: Duration,
}

impl Schedule {
    /// A schedule for this many mirrors, all of them ready. Equal seeds give equal schedules.
    pub fn new(mirrors: usize, policy: Policy, seed: u64) -> Self {
        Schedule { policy, seed, mirrors: vec![Mirror::default(); mirrors] }
    }

    /// The mirror to try next, and the wait before, at `now`, a time since the start of the download; None if all are out.
    pub fn next(&self, now: Duration) -> Option<(usize, Duration)> {
        let left = self.mirrors.iter().enumerate().filter(|(_, m)| !m.out);
        let (mirror, m) = left.min_by_key(|(index, m)| (m.ready_at.max(now), m.failures, *index))?;
        Some((mirror, m.ready_at.saturating_sub(now)))
    }

    /// Forgets the failures of a mirror, since an attempt at it got further than any before.
    pub fn forgive(&mut self, mirror: usize) {
        self.mirrors[mirror].failures = 0;
    }

    /// Records that an attempt at a mirror failed at `now`.
    pub fn failed(&mut self, mirror: usize, fault: Fault, now: Duration) {
        let policy = self.policy;
        let state = &mut self.mirrors[mirror];
        state.failures += 1;
        let asked = match fault {
            Fault::Passing { retry_after } => retry_after.unwrap_or_default(),
            Fault::Lasting => Duration::MAX,
        };
        if state.failures >= policy.attempts || asked > policy.longest_asked {
            state.out = true;
            return;
        }
        let doubled = policy.first_wait.saturating_mul(1 << (state.failures - 1).min(20));
        let seed = self.seed ^ ((mirror as u64) << 32) ^ u64::from(state.failures);
        state.ready_at = now + jitter(doubled.min(policy.longest_wait), seed).max(asked);
    }
}

/// A duration, up to a fifth shorter or longer.
fn jitter(wait: Duration, seed: u64) -> Duration {
    // SplitMix64: neighbouring seeds give unrelated values.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let part = ((z ^ (z >> 31)) % 4001) as u32;
    wait / 10_000 * (8000 + part)
}

/// How long a `Retry-After` header asks to wait: seconds, or a date (RFC 9110 section 10.2.3).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number beyond u64 asks for a longer wait than any that is granted.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = http_date(value)?;
    Some(date.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// A date as `Sun, 06 Nov 1994 08:49:37 GMT`, as time since 1970.
fn http_date(text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() <= 4);
    let day = number(parts.next()?)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as u64 + 1;
    let year = number(parts.next()?)?;
    let mut clock = parts.next()?.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let ends = (parts.next(), parts.next(), clock.next()) == (Some("GMT"), None, None);
    let is_date = (1970..=9999).contains(&year) && (1..=31).contains(&day);
    if !ends || !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Counting years from March puts the leap day at the end of a year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PASSING: Fault = Fault::Passing { retry_after: None };

    fn asked(seconds: u64) -> Fault {
        Fault::Passing { retry_after: Some(Duration::from_secs(seconds)) }
    }

    /// Runs a schedule whose attempts take no time, and returns the order of mirrors and the waits.
    fn run(mirrors: usize, fault: impl Fn(usize, usize) -> Fault) -> (Vec<usize>, Vec<Duration>) {
        let mut schedule = Schedule::new(mirrors, Policy::default(), 7);
        let (mut now, mut order, mut waits) = (Duration::ZERO, Vec::new(), Vec::new());
        while let Some((mirror, wait)) = schedule.next(now) {
            now += wait;
            schedule.failed(mirror, fault(mirror, order.len()), now);
            order.push(mirror);
            waits.push(wait);
            assert!(order.len() < 1000);
        }
        (order, waits)
    }

    #[test]
    fn waits_double_within_a_fifth() {
        let (order, waits) = run(1, |_, _| PASSING);
        assert_eq!(order.len(), 6);
        assert_eq!(waits[0], Duration::ZERO);
        for (index, wait) in waits[1..].iter().enumerate() {
            let middle = SECOND * (1 << index);
            assert!(*wait >= middle * 4 / 5 && *wait <= middle * 6 / 5, "{index}: {wait:?}");
        }
    }

    #[test]
    fn waits_have_an_upper_limit() {
        let policy = Policy { attempts: 100, ..Policy::default() };
        let mut schedule = Schedule::new(1, policy, 1);
        for _ in 0..99 {
            schedule.failed(0, PASSING, Duration::ZERO);
            let (_, wait) = schedule.next(Duration::ZERO).unwrap();
            assert!(wait <= policy.longest_wait * 6 / 5);
        }
    }

    #[test]
    fn the_next_mirror_takes_over_without_a_wait() {
        let (order, waits) = run(3, |_, _| PASSING);
        assert_eq!(order[..3], [0, 1, 2]);
        assert_eq!(waits[..3], [Duration::ZERO; 3]);
        assert!(waits[3] > Duration::ZERO);
        assert_eq!(order.len(), 18);
    }

    #[test]
    fn a_mirror_with_a_lasting_fault_is_out() {
        let (order, _) = run(2, |mirror, _| if mirror == 0 { Fault::Lasting } else { PASSING });
        assert_eq!(order, [0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(run(2, |_, _| Fault::Lasting).0, [0, 1]);
        assert!(run(0, |_, _| Fault::Lasting).0.is_empty());
    }

    #[test]
    fn what_the_server_asks_for_is_respected_up_to_a_limit() {
        let (_, waits) = run(1, |_, _| asked(30));
        assert!(waits[1..4].iter().all(|w| *w == SECOND * 30), "{waits:?}");
        assert_eq!(run(1, |_, _| asked(601)).0.len(), 1);
        let (order, _) = run(2, |mirror, _| if mirror == 0 { asked(600) } else { PASSING });
        assert_eq!(order, [0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn getting_further_clears_the_record() {
        let mut schedule = Schedule::new(1, Policy::default(), 3);
        for _ in 0..100 {
            schedule.forgive(0);
            schedule.failed(0, PASSING, Duration::ZERO);
            let (_, wait) = schedule.next(Duration::ZERO).unwrap();
            assert!(wait <= SECOND * 6 / 5);
        }
        for _ in 0..5 {
            schedule.failed(0, PASSING, Duration::ZERO);
        }
        assert_eq!(schedule.next(Duration::ZERO), None);
    }

    #[test]
    fn jitter_differs_by_seed_and_repeats_for_the_same() {
        let all: std::collections::BTreeSet<_> = (0..100).map(|seed| jitter(SECOND, seed)).collect();
        assert!(all.len() > 90);
        assert_eq!(jitter(SECOND, 5), jitter(SECOND, 5));
    }

    #[test]
    fn both_forms_of_retry_after() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |text: &str| retry_after(text, now);
        assert_eq!(after("120"), Some(SECOND * 120));
        assert_eq!(after(" 0 "), Some(Duration::ZERO));
        assert_eq!(after(&"9".repeat(40)), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(SECOND * 60));
        assert_eq!(after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(
            after("Tue, 29 Feb 2000 00:00:00 GMT"),
            Some(Duration::from_secs(951_782_400 - 784_111_777))
        );
        for bad in [
            "",
            "-1",
            "soon",
            "1.5",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
        ] {
            assert_eq!(after(bad), None, "{bad:?}");
        }
    }
}
