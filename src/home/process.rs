//! A process as proc(5) shows it.

use crate::error::{Doing as _, Result};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Clock ticks in a second, as the kernel shows them on every platform of ours (`USER_HZ`).
const TICKS: u64 = 100;

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) state: char,
    pub(super) parent: i32,
    /// The flags of the kernel's `sched.h`.
    pub(super) flags: u64,
    /// The start, in clock ticks since the boot.
    pub(super) started: u64,
}

impl Stat {
    /// Reads the one line of the file.
    pub(super) fn parse(line: &str) -> Option<Stat> {
        let pid = line.split(' ').next()?.parse().ok()?;
        // The name of the program is in parentheses and may hold anything.
        let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags = fields.nth(4)?.parse().ok()?;
        Some(Stat { pid, state, parent, flags, started: fields.nth(12)?.parse().ok()? })
    }

    /// The process as it is now, if the one of this id is this one and has not ended.
    pub(super) fn now(&self, dir: &str) -> Result<Option<Stat>> {
        let path = format!("{dir}/stat");
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => return Ok(None),
            read => read.doing("read", Path::new(&path))?,
        };
        Ok(Stat::parse(&text).filter(|p| p.started == self.started && !matches!(p.state, 'Z' | 'X')))
    }

    /// The time since its start.
    pub(super) fn age(&self) -> Result<Duration> {
        let path = Path::new("/proc/uptime");
        let text = fs::read_to_string(path).doing("read", path)?;
        let uptime: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let started = Duration::from_millis(self.started.saturating_mul(1000 / TICKS));
        Ok(Duration::try_from_secs_f64(uptime).unwrap_or_default().saturating_sub(started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_no_obstacle() {
        let line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2";
        assert_eq!(
            Stat::parse(line),
            Some(Stat { pid: 42, state: 'S', parent: 1, flags: 4_194_560, started: 987_654 })
        );
        for bad in ["", "42", "42 (x", "x (y) S 1", "42 (y) S 1 2 3"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }
}
