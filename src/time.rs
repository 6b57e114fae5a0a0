//! Durations as operators write them (`300ms`, `10m`, `1m30s`) and times as RFC 3339.
//!
//! Our own few lines: a date library costs 180 KiB of the binary, and we only ever print UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDuration(String);

const UNITS: [(&str, u128); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a duration of the form of Go's: numbers with units `h m s ms us ns`, or a bare `0`.
///
/// # Errors
/// If a number has no unit, a unit is unknown, or the sum is beyond 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.chars().take(60).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&n| n > 0 && n < 19).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, scale) = UNITS.iter().find(|(u, _)| tail.starts_with(u)).ok_or_else(bad)?;
        nanos += number.parse::<u128>().map_err(|_| bad())? * scale;
        rest = &tail[unit.len()..];
    }
    let whole = u64::try_from(nanos).map_err(|_| bad())?;
    let limit = Duration::from_secs(100 * 365 * 24 * 3600);
    Some(Duration::from_nanos(whole)).filter(|d| !text.is_empty() && *d <= limit).ok_or_else(bad)
}

/// Shows a duration in the form that [`parse_duration`] reads, exact to the nanosecond.
pub fn show_duration(d: Duration) -> String {
    let (h, m, s) = (d.as_secs() / 3600, d.as_secs() / 60 % 60, d.as_secs() % 60);
    let nanos = d.subsec_nanos();
    let (ms, us, ns) = (nanos / 1_000_000, nanos / 1000 % 1000, nanos % 1000);
    let parts =
        [(h, "h"), (m, "m"), (s, "s"), (u64::from(ms), "ms"), (u64::from(us), "us"), (u64::from(ns), "ns")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, u)| format!("{n}{u}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A point of time as RFC 3339 in UTC with milliseconds: `2026-03-01T12:00:00.000Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_from_days(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Counting from 0000-03-01 puts the leap day at the end of a year of the count.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration: write it as 300ms, 10m or 1m30s", self.0)
    }
}

impl std::error::Error for BadDuration {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_operators_write_them() {
        let ms = |n| Ok(Duration::from_millis(n));
        assert_eq!(parse_duration("300ms"), ms(300));
        assert_eq!(parse_duration("10m"), ms(600_000));
        assert_eq!(parse_duration("1m30s"), ms(90_000));
        assert_eq!(parse_duration("2h"), ms(7_200_000));
        assert_eq!(parse_duration("0"), ms(0));
        for bad in
            ["", "5", "m", "5x", "-1s", "1 s", "1s ", "1.5s", "99999999999999999999s", "1000000h", "1s5"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for text in ["300ms", "10m", "1m30s", "2h", "1h1ms", "0s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn dates_at_the_corners_of_the_calendar() {
        let at = |secs| rfc3339(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_772_323_199), "2026-02-28T23:59:59.000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }
}
