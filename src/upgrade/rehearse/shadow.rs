//! The shadow as a process: executed, watched, asked, stopped, and read in its log.
//!
//! It is thrown away with all it has, so it may be killed where a node may not: when it is not wanted any more, when space or
//! memory get scarce, and when it does not end within the grace of a node. It dies with us, by whatever we end.

use super::isolation::Launch;
use super::limits;
use crate::children::{self, Owned};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::regular;
use crate::home::stamp::Stamp;
use crate::printable::printable;
use crate::sys::{Birth, at_birth};
use crate::upgrade::Cancel;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two looks at what may end a rehearsal.
const LOOK: Duration = Duration::from_millis(200);
/// How long a killed process may take to vanish.
const VANISH: Duration = Duration::from_secs(30);
/// The lines of its log that are kept, and how much of each.
const KEPT: usize = 40;
const LINE: usize = 300;

/// A shadow that runs.
pub(super) struct Shadow {
    child: Owned,
    log: PathBuf,
    /// The moment of its start.
    pub(super) begun: Instant,
}

/// The verified file, which is executed.
pub(super) struct Binary {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
}

impl Shadow {
    /// Executes the binary. It inherits `lock`, which keeps its directory from being removed while it lives.
    pub(super) fn spawn(
        binary: &Binary,
        launch: &Launch,
        cwd: &Path,
        log: &Path,
        lock: OwnedFd,
    ) -> Result<Shadow> {
        let failed = |e: io::Error| Error::io("execute", &binary.path, e);
        let out = File::create(log).doing("create", log)?;
        let mut command = Command::new(&binary.path);
        command.args(&launch.args).env_clear().envs(launch.environment.iter().cloned()).current_dir(cwd);
        command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out);
        let birth = Birth {
            session: true,
            parent_death: Some(Signal::KILL),
            inherit: vec![lock],
            ..Birth::default()
        };
        at_birth(&mut command, birth);
        let begun = Instant::now();
        let child = children::spawn(&mut command).map_err(failed)?;
        let mut shadow = Shadow { child, log: log.to_owned(), begun };
        let exe = format!("/proc/{}/exe", shadow.child.pid().as_raw_pid());
        // A process that has ended already has no such file; its end is reported as such.
        if fs::metadata(exe).is_ok_and(|meta| Stamp::from(&meta) != binary.stamp) {
            shadow.end_at_once();
            return Err(Error::new(Kind::Verification, "the binary was exchanged when it was executed")
                .at(binary.path.display()));
        }
        Ok(shadow)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.child.has_ended().unwrap_or(true)
    }

    /// Whether it has ended, or does so within this time.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        self.child.ends_within(time)
    }

    /// Ends it when the rehearsal is cancelled or something gets scarce, until `done` is closed; why goes to `ended`.
    pub(super) fn watch(
        &self,
        place: &Path,
        cancel: &Cancel,
        done: &Receiver<()>,
        ended: &Mutex<Option<String>>,
    ) {
        while done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let why = if cancel.is_cancelled() {
                Some("it was cancelled".to_owned())
            } else {
                limits::scarce(place)
            };
            if let Some(why) = why {
                ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                self.kill();
            }
        }
    }

    /// Asks it once to end, and waits; returns the time that took, and `None` if it was killed after `grace`.
    pub(super) fn stop(&self, grace: Duration) -> Result<Option<Duration>> {
        let begun = Instant::now();
        self.child.signal(Signal::TERM).map_err(|e| Error::new(Kind::Io, "stop the shadow").because(e))?;
        if self.ends_within(grace) {
            return Ok(Some(begun.elapsed()));
        }
        self.kill();
        Ok(None)
    }

    /// Waits for its end, which is certain, and returns how it ended.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        if !self.child.ends_within(VANISH) {
            return None;
        }
        self.child.try_wait().unwrap_or_else(|e| {
            log::warn!("event=rehearsal_not_reaped {e}");
            None
        })
    }

    pub(super) fn end_at_once(&mut self) {
        self.kill();
        self.reap();
    }

    fn kill(&self) {
        if let Err(e) = self.child.signal_group(Signal::KILL) {
            log::warn!("event=shadow_not_killed pid={} {e}", self.child.pid().as_raw_pid());
        }
    }

    /// The last line of its log, for a reason.
    pub(super) fn last_words(&self) -> String {
        let mut last = String::new();
        each_line(&self.log, |line| {
            if !line.trim().is_empty() {
                line.clone_into(&mut last);
            }
        });
        if last.is_empty() { "it has written nothing".to_owned() } else { cut(&last) }
    }

    /// The first lines of its log at WARN and above, and the number of all.
    pub(super) fn warnings(&self) -> (Vec<String>, u64) {
        let (mut kept, mut count) = (Vec::new(), 0);
        each_line(&self.log, |line| {
            if is_loud(line) {
                count += 1;
                if kept.len() < KEPT {
                    kept.push(cut(line));
                }
            }
        });
        (kept, count)
    }
}

/// How a process ended, in words.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        Some((None, None)) | None => "an end that was not seen".to_owned(),
    }
}

fn each_line(path: &Path, mut see: impl FnMut(&str)) {
    /// A longer line is taken for several.
    const LONGEST: u64 = 64 << 10;
    let Ok((file, _)) = regular::open(path) else { return };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => see(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

fn cut(line: &str) -> String {
    printable(line).chars().take(LINE).collect()
}

/// Whether a line of a node's log is a warning or worse.
fn is_loud(line: &str) -> bool {
    const BEGIN: [&str; 7] = ["WARN", "ERROR", "CRIT", "EROR", "Fatal:", "panic:", "fatal error:"];
    const LEVEL: [&str; 4] = ["lvl=warn", "lvl=error", "lvl=eror", "lvl=crit"];
    BEGIN.iter().any(|begin| line.starts_with(begin)) || LEVEL.iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_at_warn_and_above_are_found() {
        for loud in [
            "WARN [11-24|01:01:15.227] Head state missing, repairing            number=366",
            "ERROR[11-24|01:01:15.227] ########## BAD BLOCK #########",
            "CRIT [11-24|01:01:15.227] x",
            "Fatal: Error starting protocol stack",
            "panic: boom",
            "t=2026-11-24 lvl=warn msg=x",
        ] {
            assert!(is_loud(loud), "{loud}");
        }
        for quiet in ["INFO [11-24|01:01:15.227] WARN", "DEBUG[x] y", "", "goroutine 1 [running]:"] {
            assert!(!is_loud(quiet), "{quiet}");
        }
    }

    #[test]
    fn lines_are_cut_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, format!("INFO x\n{}{}\n\n", "WARN y\n".repeat(50), "ERROR".repeat(100))).unwrap();
        let child = children::spawn(Command::new("/bin/true").stdin(Stdio::null())).unwrap();
        let mut shadow = Shadow { child, log, begun: Instant::now() };
        let (kept, count) = shadow.warnings();
        assert_eq!((kept.len(), count, &*kept[0]), (KEPT, 51, "WARN y"));
        assert_eq!(shadow.last_words().len(), LINE);
        assert_eq!(describe(shadow.reap()), "exit code 0");
    }
}
