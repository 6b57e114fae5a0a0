//! Blocks to come, as an operator plans by them: how far away, for how long, and at what time by the clock.
//!
//! A forecast is the measured period times the number of blocks. It is as good as that: rounds that fail and
//! validators that are down make it later.

use crate::machine::UpgradeView;
use crate::machine::gates::Window;
use crate::sys::zone_at;
use crate::time::rfc3339;
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The moment from which is reckoned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// The height of the head.
    pub(super) head: u64,
    /// The time between two blocks.
    pub(super) period: Duration,
    /// The clock's time.
    pub(super) time: SystemTime,
}

/// Blocks in which a validator may begin to stop, and when they are expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Turn {
    #[serde(flatten)]
    window: Window,
    /// Blocks from the head to the first; 0 if it is open.
    opens_in_blocks: u64,
    opens_in_ms: u64,
    /// The time at which it opens, in UTC.
    opens_at_time: String,
}

impl Now {
    /// The turn of a window.
    pub(super) fn turn(&self, window: Window) -> Turn {
        let wait = self.until(window.opens_at);
        Turn {
            window,
            opens_in_blocks: window.opens_at.saturating_sub(self.head),
            opens_in_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            opens_at_time: rfc3339(self.time + wait),
        }
    }

    /// A window in words: its blocks, and when the first of them is expected.
    pub(super) fn words(&self, window: Window) -> String {
        let blocks = format!("block {} to {}", grouped(window.opens_at), grouped(window.closes_at));
        if window.opens_at <= self.head {
            return format!("{blocks}, open now");
        }
        format!("{blocks}, {}", self.when(window.opens_at))
    }

    /// Our turn for an upgrade, and the heights that end the time for it.
    pub(super) fn our_turn(&self, turn: Option<Window>, plan: &UpgradeView) -> String {
        let turn = turn.map(|window| match plan.fork_height {
            Some(fork) if fork <= self.head => "the fork has passed".to_owned(),
            Some(fork) if fork <= window.opens_at => {
                "our turn: none before the fork, the switch is at the last block before it".to_owned()
            }
            Some(_) | None => format!("our turn: {}", self.words(window)),
        });
        let fork = plan.fork_height.map(|fork| format!("fork at {}", grouped(fork)));
        let deadline = plan.deadline_height.map(|deadline| format!("deadline {}", grouped(deadline)));
        let all: Vec<String> = [turn, fork, deadline].into_iter().flatten().collect();
        all.join("; ")
    }

    /// When a block is expected, in words.
    pub(super) fn when(&self, height: u64) -> String {
        let wait = self.until(height);
        if wait.is_zero() {
            return "now".to_owned();
        }
        format!("in {}, {}", about(wait), clock(self.time + wait, self.time, zone_at))
    }

    /// The time until a block, within a century.
    fn until(&self, height: u64) -> Duration {
        let blocks = u32::try_from(height.saturating_sub(self.head)).unwrap_or(u32::MAX);
        self.period.saturating_mul(blocks).min(Duration::from_secs(100 * 365 * 86_400))
    }
}

/// A number with a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in its two largest units.
pub(super) fn about(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

/// A time in the zone of this machine and in UTC, with the day where that is not today's.
fn clock(time: SystemTime, now: SystemTime, zone: impl Fn(i64) -> Option<(String, i64)>) -> String {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (name, ahead) = i64::try_from(seconds(time)).ok().and_then(zone).unwrap_or(("UTC".to_owned(), 0));
    let local = |time: SystemTime| {
        let shifted = seconds(time).saturating_add_signed(ahead);
        let text = rfc3339(UNIX_EPOCH + Duration::from_secs(shifted));
        (text[..10].to_owned(), text[11..16].to_owned())
    };
    let ((day, minute), (today, _)) = (local(time), local(now));
    let day = if day == today { String::new() } else { day + " " };
    if ahead == 0 {
        return format!("{day}{minute} UTC");
    }
    let utc = rfc3339(time);
    format!("{day}{minute} {name} ({} UTC)", &utc[11..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::machine::{Machine, Origin, Policy, Record, Target, Upgrade, Version};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_turn_has_blocks_a_duration_and_a_time() {
        let now = Now { head: 504, period: Duration::from_secs(1), time: at(1_772_323_200) };
        let window = Window { opens_at: 12_024, closes_at: 12_035 };
        assert!(now.words(window).starts_with("block 12,024 to 12,035, in 3 h 12 min, "));
        let turn = now.turn(window);
        assert_eq!((turn.opens_in_blocks, turn.opens_in_ms), (11_520, 11_520_000));
        assert_eq!(turn.opens_at_time, "2026-03-01T03:12:00.000Z");
        let open = Window { opens_at: 504, closes_at: 515 };
        assert_eq!((now.words(open).as_str(), now.turn(open).opens_in_ms), ("block 504 to 515, open now", 0));
    }

    #[test]
    fn a_turn_after_the_fork_is_none() {
        let mut plan = Machine::at_rest(
            Policy::default(),
            Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") }),
            vec![Upgrade::new("v2".parse().unwrap(), 100, Origin::Schedule).into()],
        )
        .view()
        .planned
        .remove(0);
        (plan.fork_height, plan.deadline_height) = (Some(230), Some(200));
        let at = |head, opens_at| {
            let now = Now { head, period: Duration::from_secs(1), time: UNIX_EPOCH };
            now.our_turn(Some(Window { opens_at, closes_at: opens_at + 11 }), &plan)
        };
        assert!(at(100, 216).starts_with("our turn: block 216 to 227, in 1 min 56 s, "));
        assert_eq!(
            at(220, 240),
            "our turn: none before the fork, the switch is at the last block before it; fork at 230; deadline 200"
        );
        assert_eq!(at(230, 216), "the fork has passed; fork at 230; deadline 200");
    }

    #[test]
    fn the_clock_is_the_local_one_and_names_the_day_where_it_is_another() {
        let (noon, evening) = (at(1_772_366_400), at(1_772_400_600));
        let utc = |_| Some(("UTC".to_owned(), 0));
        let seoul = |_| Some(("KST".to_owned(), 9 * 3600));
        assert_eq!(clock(evening, noon, utc), "21:30 UTC");
        assert_eq!(clock(evening, noon, seoul), "2026-03-02 06:30 KST (21:30 UTC)");
        assert_eq!(clock(evening, noon, |_| None), "21:30 UTC");
        assert_eq!(clock(at(u64::from(u32::MAX)), noon, utc), "2106-02-07 06:28 UTC");
    }

    #[test]
    fn numbers_and_durations_are_short() {
        let numbers = [0, 999, 1000, 12_540, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,540", "1,234,567"]);
        let durations = [0, 59, 61, 3600, 90_000].map(|s| about(Duration::from_secs(s)));
        assert_eq!(durations, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        let far = Now { head: 0, period: Duration::from_secs(1), time: at(0) };
        assert!(far.when(u64::MAX).starts_with("in 36500 d"), "{}", far.when(u64::MAX));
    }
}
