//! How far a download is, at what rate, and when it will be done, in words for people.
//!
//! Pure: the caller passes the time, and decides where and how often the words are shown.

use super::url::Url;
use crate::error::Error;
use crate::time::show_duration;
use std::time::Duration;

/// How far a download is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Its source.
    pub url: &'a Url,
    /// How many bytes are there, with those of earlier attempts.
    pub received: u64,
    /// How many there will be, where that is known.
    pub total: Option<u64>,
    /// Why the last attempt has failed, until the next one gets anywhere.
    pub trouble: Option<&'a Error>,
}

/// Measures a download. All times are counted from one start of the caller's choice.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    received: u64,
    total: Option<u64>,
    /// Bytes per second, once there are two samples.
    rate: Option<f64>,
    sample: Option<(Duration, u64)>,
    shown: Option<Duration>,
}

/// The shortest time over which the rate is measured, and the weight of older measurements.
const SAMPLE: Duration = Duration::from_millis(500);
const FADE: f64 = 0.7;

impl Meter {
    /// Takes note of a progress at `now`.
    pub fn update(&mut self, now: Duration, progress: &Progress<'_>) {
        // Another source, or from the start again.
        if progress.received < self.received {
            self.rate = None;
            self.sample = None;
        }
        (self.received, self.total) = (progress.received, progress.total);
        let Some((then, before)) = self.sample else {
            self.sample = Some((now, self.received));
            return;
        };
        let passed = now.saturating_sub(then);
        if passed >= SAMPLE {
            let rate = (self.received - before) as f64 / passed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |old| old * FADE + rate * (1.0 - FADE)));
            self.sample = Some((now, self.received));
        }
    }

    /// Whether it is time to show it again, `every` so often. The first time it is.
    pub fn is_due(&mut self, now: Duration, every: Duration) -> bool {
        let due = self.shown.is_none_or(|shown| now.saturating_sub(shown) >= every);
        if due {
            self.shown = Some(now);
        }
        due
    }

    /// Bytes per second, as far as they were measured.
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(|rate| rate as u64)
    }

    /// How long it will take at this rate.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.received) as f64;
        let seconds = left / self.rate.filter(|rate| *rate >= 1.0)?;
        Some(Duration::from_secs(seconds.ceil().min(1e9) as u64))
    }

    /// One line without an end, for a log: `12.0 MiB of 96.0 MiB (12 %), 4.0 MiB/s, 21s left`.
    pub fn line(&self) -> String {
        let mut line = self.position();
        if let Some(rate) = self.rate() {
            line += &format!(", {}/s", show_bytes(rate));
        }
        if let Some(left) = self.time_left() {
            line += &format!(", {} left", show_duration(left));
        }
        line
    }

    /// The same when nothing has arrived for some time, because the server stalls or is asked again
    /// later: `12.0 MiB of 96.0 MiB (12 %), nothing for 7s`.
    pub fn line_when_quiet(&self, quiet: Duration) -> String {
        format!("{}, nothing for {}", self.position(), show_duration(Duration::from_secs(quiet.as_secs())))
    }

    /// The same when the last attempt has failed and another one follows.
    pub fn line_in_trouble(&self, trouble: &str) -> String {
        format!("{}, to be tried again: {trouble}", self.position())
    }

    fn position(&self) -> String {
        match self.total {
            Some(total) => {
                format!("{} of {} ({} %)", show_bytes(self.received), show_bytes(total), self.percent(total))
            }
            None => show_bytes(self.received),
        }
    }

    /// The [line](Meter::line) with a bar before it, for a terminal of this many columns.
    pub fn bar(&self, columns: usize) -> String {
        let line = self.line();
        let room = columns.saturating_sub(line.len() + 4).min(40);
        match self.total.filter(|_| room >= 10) {
            Some(total) => {
                let full = usize::try_from(self.percent(total)).unwrap_or(100) * room / 100;
                format!("[{}{}] {line}", "#".repeat(full), ".".repeat(room - full))
            }
            None => line.chars().take(columns).collect(),
        }
    }

    fn percent(&self, total: u64) -> u64 {
        match total {
            0 => 100,
            _ => (u128::from(self.received) * 100 / u128::from(total)).min(100) as u64,
        }
    }
}

/// A number of bytes with three or four digits and a binary unit.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(meter: &mut Meter, seconds: f64, received: u64, total: Option<u64>) {
        let url = "http://a/x".parse().unwrap();
        meter.update(
            Duration::from_secs_f64(seconds),
            &Progress { url: &url, received, total, trouble: None },
        );
    }

    #[test]
    fn a_steady_download() {
        let mut meter = Meter::default();
        at(&mut meter, 0.0, 0, Some(96 * MIB));
        assert_eq!(meter.line(), "0 B of 96.0 MiB (0 %)");
        for second in 1..=3 {
            at(&mut meter, f64::from(second), second as u64 * 4 * MIB, Some(96 * MIB));
        }
        assert_eq!(meter.line(), "12.0 MiB of 96.0 MiB (12 %), 4.0 MiB/s, 21s left");
        assert_eq!(meter.bar(80), format!("[###{}] {}", ".".repeat(25), meter.line()));
        assert_eq!(meter.bar(20), "12.0 MiB of 96.0 MiB");
        assert_eq!(
            meter.line_when_quiet(Duration::from_millis(7900)),
            "12.0 MiB of 96.0 MiB (12 %), nothing for 7s"
        );
    }

    #[test]
    fn what_was_there_before_does_not_count_into_the_rate() {
        let mut meter = Meter::default();
        at(&mut meter, 0.0, 50 * MIB, Some(100 * MIB));
        at(&mut meter, 1.0, 51 * MIB, Some(100 * MIB));
        assert_eq!(meter.rate(), Some(MIB));
        at(&mut meter, 2.0, MIB, Some(100 * MIB));
        assert_eq!(meter.rate(), None);
        assert_eq!(meter.line(), "1.0 MiB of 100.0 MiB (1 %)");
    }

    #[test]
    fn unknown_and_odd_sizes() {
        let mut meter = Meter::default();
        at(&mut meter, 0.0, 0, None);
        at(&mut meter, 1.0, 1000, None);
        assert_eq!(meter.line(), "1000 B, 1000 B/s");
        assert_eq!(meter.time_left(), None);
        let mut meter = Meter::default();
        at(&mut meter, 0.0, 0, Some(0));
        assert_eq!(meter.line(), "0 B of 0 B (100 %)");
        at(&mut meter, 1.0, 0, Some(u64::MAX));
        assert_eq!(meter.time_left(), None, "nothing arrives");
    }

    #[test]
    fn shown_at_once_and_then_every_so_often() {
        let (mut meter, every) = (Meter::default(), Duration::from_secs(5));
        let due: Vec<bool> = (0..12).map(|s| meter.is_due(Duration::from_secs(s), every)).collect();
        assert_eq!(due.iter().filter(|d| **d).count(), 3);
        assert!(due[0] && due[5] && due[10]);
    }

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (MIB - 1, "1.0 MiB"),
            (3 * MIB / 2, "1.5 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}
