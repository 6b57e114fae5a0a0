//! Our own log on stderr: one line per event, as text or as JSON.
//!
//! Lines are written by a thread of their own: a terminal on which output was stopped, or a service
//! manager that does not read, must not keep an upgrade or a stop waiting. When too many lines wait
//! the next are dropped and counted. A command that does something once shows its warnings by itself.

use crate::config::{Config, LogColor, LogFormat, LogLevel};
use crate::error::{Error, Kind, Result};
use crate::printable::{printable, printable_json};
use crate::time::rfc3339;
use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Record};
use serde_json::json;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

/// Lines that may wait to be written.
const WAITING: usize = 1024;
/// How long the last lines have to be written before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The way to the thread that writes, once it has started.
static LINES: OnceLock<Sender<Line>> = OnceLock::new();

/// The log as long as it may be written to. Dropped, it gives the last lines their time.
#[must_use]
pub(super) struct Log;

/// A message to the thread that writes.
enum Line {
    Text(Vec<u8>),
    /// Says that everything before it was written.
    Done(Sender<()>),
}

/// Starts logging as configured.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start(config: &Config) -> Result<Log> {
    let level = match config.log_level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    };
    let colour = match config.log_color {
        LogColor::Always => true,
        LogColor::Never => false,
        LogColor::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    };
    let json = config.log_format == LogFormat::Json;
    let (lines, waiting) = bounded(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let outlet = Outlet { level, json, colour, lines: lines.clone(), lost: Arc::clone(&lost) };
    let body = move || write_lines(&waiting, &lost, json);
    let started = thread::Builder::new().name("log".to_owned()).spawn(body);
    started.map_err(|e| Error::new(Kind::Io, "start the log thread").because(e))?;
    // Both fail only when there is a logger already.
    if log::set_boxed_logger(Box::new(outlet)).is_ok() {
        log::set_max_level(level);
    }
    let _ = LINES.set(lines);
    Ok(Log)
}

/// Whether lines are written by the thread.
pub(super) fn has_started() -> bool {
    LINES.get().is_some()
}

/// Gives the lines that wait to be written their time.
pub(super) fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, written) = bounded(1);
    if lines.send_timeout(Line::Done(done), LAST_WORDS).is_ok() {
        // Whoever does not read for so long does not want to know.
        let _ = written.recv_timeout(LAST_WORDS);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        flush();
    }
}

/// Shows on stderr what `run` would log as a warning: mirrors that fail, and what nothing vouches for.
pub(super) fn show_warnings() {
    struct Warnings;

    impl log::Log for Warnings {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= Level::Warn && metadata.target().starts_with("wemixvisor")
        }

        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                let mut stderr = io::stderr().lock();
                // In the place of the bar, which is drawn again below.
                let clear = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
                let text = printable(&record.args().to_string());
                let _ = writeln!(stderr, "{clear}warning: {text}");
            }
        }

        fn flush(&self) {}
    }

    // A logger that is there already shows them.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// The logger, which never waits for the thread that writes.
struct Outlet {
    level: LevelFilter,
    json: bool,
    colour: bool,
    lines: Sender<Line>,
    lost: Arc<AtomicU64>,
}

impl log::Log for Outlet {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Libraries below are quiet: what matters of them we report ourselves.
        let is_ours = metadata.target().starts_with("wemixvisor");
        metadata.level() <= if is_ours { self.level } else { LevelFilter::Error }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Vec::new();
        let written = if self.json {
            write_json(&mut line, record)
        } else {
            write_text(&mut line, record, self.colour)
        };
        if written.is_err() || self.lines.try_send(Line::Text(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

fn write_lines(lines: &Receiver<Line>, lost: &AtomicU64, json: bool) {
    let mut stderr = io::stderr();
    for line in lines {
        match line {
            // If it cannot be written, that cannot be reported either.
            Line::Text(text) => drop(stderr.write_all(&text)),
            Line::Done(done) => drop(done.send(())),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => {
                let text =
                    format_args!("event=log_lines_lost count={count} the reader of the log was too slow");
                let record = Record::builder().level(Level::Warn).args(text).build();
                let _ = if json {
                    write_json(&mut stderr, &record)
                } else {
                    write_text(&mut stderr, &record, false)
                };
            }
        }
    }
}

fn write_text(out: &mut impl Write, record: &Record<'_>, colour: bool) -> io::Result<()> {
    let paint = match record.level() {
        _ if !colour => "",
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug | Level::Trace => "\x1b[2m",
    };
    let reset = if colour { "\x1b[0m" } else { "" };
    let time = rfc3339(SystemTime::now());
    // Lines of other programs must not look like ours.
    let message = printable(&record.args().to_string());
    writeln!(out, "{time} {paint}{:<5}{reset} wemixvisor {message}", record.level())
}

fn write_json(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let time = rfc3339(SystemTime::now());
    let message = record.args().to_string();
    let level = record.level().as_str().to_ascii_lowercase();
    let (event, rest) = match message.strip_prefix("event=") {
        Some(tagged) => tagged.split_once(' ').map_or((Some(tagged), ""), |(e, rest)| (Some(e), rest)),
        None => (None, message.as_str()),
    };
    let line = json!({"time": time, "level": level, "event": event, "message": rest});
    writeln!(out, "{}", printable_json(&line.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_acts_on_a_terminal_or_looks_like_two() {
        let args = format_args!("event=x said=\u{9b}2J\u{202e}\n");
        let record = Record::builder().level(Level::Warn).args(args).build();
        let (mut text, mut json) = (Vec::new(), Vec::new());
        write_text(&mut text, &record, false).unwrap();
        write_json(&mut json, &record).unwrap();
        let [text, json] = [text, json].map(|line| String::from_utf8(line).unwrap());
        assert!(text.ends_with(" WARN  wemixvisor event=x said=\\u{9b}2J\\u{202e}\\n\n"), "{text}");
        assert!(json.contains(r#""message":"said=\u009b2J\u202e\n""#), "{json}");
    }
}
