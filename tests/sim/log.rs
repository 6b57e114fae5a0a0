//! Log lines in the shape of a geth-like node: `INFO [11-24|01:00:54.902] message   key=value`.
//!
//! They go to stderr and are lost without complaint when no process reads it. Times are UTC.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// As `--verbosity`: 1 errors, 2 warnings, 3 information.
static VERBOSITY: AtomicU8 = AtomicU8::new(3);

/// Sets how much is logged.
pub(crate) fn set_verbosity(level: u8) {
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// `INFO` with its `key=value` pairs.
pub(crate) fn info(message: &str, pairs: &[(&str, &dyn Display)]) {
    line(3, "INFO ", message, pairs);
}

/// `WARN`.
pub(crate) fn warn(message: &str, pairs: &[(&str, &dyn Display)]) {
    line(2, "WARN ", message, pairs);
}

/// `ERROR`.
pub(crate) fn error(message: &str, pairs: &[(&str, &dyn Display)]) {
    line(1, "ERROR", message, pairs);
}

/// The last line of a node that gives up; the caller exits with code 1.
pub(crate) fn fatal(message: &str) {
    let _ = writeln!(std::io::stderr(), "Fatal: {message}");
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64)
}

fn line(level: u8, label: &str, message: &str, pairs: &[(&str, &dyn Display)]) {
    if level > VERBOSITY.load(Ordering::Relaxed) {
        return;
    }
    let mut text = format!("{label}[{}] ", stamp(now_ms()));
    if pairs.is_empty() {
        text.push_str(message);
    } else {
        text.push_str(&format!("{message:<40}"));
    }
    for (key, value) in pairs {
        let value = value.to_string();
        let quoted = value.is_empty() || value.contains([' ', '=', '"']);
        text.push_str(&if quoted { format!(" {key}={value:?}") } else { format!(" {key}={value}") });
    }
    text.push('\n');
    // One write per line, so that lines of several processes on one pipe do not mix.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// `MM-DD|HH:MM:SS.mmm`.
fn stamp(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to a civil date by shifting the year to begin in March, when leap days come last.
    let shifted = days + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    format!("{month:02}-{day:02}|{hour:02}:{minute:02}:{:02}.{:03}", in_day / 1000 % 60, in_day % 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_stamped_as_recorded() {
        assert_eq!(super::stamp(1_795_482_054_902), "11-24|01:00:54.902");
        assert_eq!(super::stamp(1_709_164_800_000), "02-29|00:00:00.000");
        assert_eq!(super::stamp(0), "01-01|00:00:00.000");
    }
}
