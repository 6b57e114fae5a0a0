//! Our own log on stderr: one line per event, as text or as JSON.
//!
//! Lines are written by a thread of their own: a terminal on which output was stopped, or a service
//! manager that does not read, must not keep an upgrade or a stop waiting. When too many lines wait
//! the next are dropped and counted. Of one event no more than a burst of lines is written; the others are counted in
//! one line, but for errors. A command that does something once shows its warnings by itself.

use super::terminal::no_color;
use crate::config::{Config, LogColor, LogFormat};
use crate::error::{Error, Kind, Result};
use crate::printable::{printable, printable_json};
use crate::time::rfc3339;
use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Record};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Lines that may wait to be written.
const WAITING: usize = 1024;
/// The lines of one event that are written within a window of time.
const BURST: u64 = 200;
const WINDOW: Duration = Duration::from_secs(10);
/// The time for the last lines to be written before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The way to the thread that writes, once it has started.
static LINES: OnceLock<Sender<Line>> = OnceLock::new();

static LIMITER: Mutex<Limiter> = Mutex::new(Limiter(BTreeMap::new()));

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
    let is_coloured = match config.log_color {
        LogColor::Always => true,
        LogColor::Never => false,
        LogColor::Auto => io::stderr().is_terminal() && !no_color(),
    };
    let log_format = config.log_format;
    let format = move |out: &mut env_logger::fmt::Formatter, record: &Record<'_>| {
        let colour = is_coloured.then(|| colour_of(record.level()));
        let limiter = || LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
        for (event, count) in limiter().ended(Instant::now()) {
            let text = format_args!("event=log_lines_left_out of={event} count={count} there were too many");
            write(log_format, out, &Record::builder().level(Level::Warn).args(text).build(), colour)?;
        }
        let is_written = limiter().lets_pass(Instant::now(), record);
        if is_written { write(log_format, out, record, colour) } else { Ok(()) }
    };
    // Libraries are quiet: what matters of them is reported by our own code.
    let mut builder = env_logger::Builder::new();
    let level = config.log_level.into();
    builder.filter_level(LevelFilter::Error).filter_module("wemixvisor", level).format(format);
    let (lines, waiting) = bounded(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let outlet = Outlet { lines: lines.clone(), lost: Arc::clone(&lost) };
    builder.target(env_logger::Target::Pipe(Box::new(outlet)));
    let body = move || write_lines(&waiting, &lost, log_format);
    let started = thread::Builder::new().name("log".to_owned()).spawn(body);
    started.map_err(|e| Error::new(Kind::Io, "start the log thread").because(e))?;
    // Both fail only when there is a logger already.
    let _ = builder.try_init();
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
    let left_out = LIMITER.lock().unwrap_or_else(PoisonError::into_inner).end();
    for (event, count) in left_out {
        log::warn!("event=log_lines_left_out of={event} count={count} there were too many");
    }
    let (done, written) = bounded(1);
    if lines.send_timeout(Line::Done(done), LAST_WORDS).is_ok() {
        // A reader that takes longer does without the last lines.
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

    // It fails where there is a logger already, which shows them.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// How many lines of each event were logged since its window began.
struct Limiter(BTreeMap<String, (Instant, u64)>);

impl Limiter {
    /// Whether a line is one of the first of its event, or an error, or was asked for by a level that shows everything.
    fn lets_pass(&mut self, now: Instant, record: &Record<'_>) -> bool {
        let message = record.args().to_string();
        let event = message.strip_prefix("event=").and_then(|rest| rest.split(' ').next());
        let Some(event) = event.filter(|_| matches!(record.level(), Level::Warn | Level::Info)) else {
            return true;
        };
        let (_, lines) = self.0.entry(event.to_owned()).or_insert((now, 0));
        *lines += 1;
        *lines <= BURST
    }

    /// Forgets the windows that have ended; returns the events of which lines were left out, and how many.
    fn ended(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut left_out = Vec::new();
        self.0.retain(|event, (begun, lines)| {
            let lasts = now < *begun + WINDOW;
            if !lasts && *lines > BURST {
                left_out.push((event.clone(), *lines - BURST));
            }
            lasts
        });
        left_out
    }

    /// The same for all windows.
    fn end(&mut self) -> Vec<(String, u64)> {
        self.ended(Instant::now() + WINDOW)
    }
}

/// The logger's way to the thread that writes, which it never waits for.
struct Outlet {
    lines: Sender<Line>,
    lost: Arc<AtomicU64>,
}

impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Line>, lost: &AtomicU64, format: LogFormat) {
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
                let _ = write(format, &mut stderr, &record, None);
            }
        }
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug | Level::Trace => "\x1b[2m",
    }
}

fn write(
    format: LogFormat,
    out: &mut impl Write,
    record: &Record<'_>,
    colour: Option<&str>,
) -> io::Result<()> {
    match format {
        LogFormat::Text => write_text(out, record, colour),
        LogFormat::Json => write_json(out, record),
    }
}

fn write_text(out: &mut impl Write, record: &Record<'_>, colour: Option<&str>) -> io::Result<()> {
    let (paint, reset) = colour.map_or(("", ""), |colour| (colour, "\x1b[0m"));
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
    let fields = event.map(|_| fields(rest));
    let line = json!({"time": time, "level": level, "event": event, "message": rest, "fields": fields});
    writeln!(out, "{}", printable_json(&line.to_string()))
}

/// The words `key=value` with which the text of an event begins. Text of other programs comes behind them, and the first
/// value of a key counts.
fn fields(mut rest: &str) -> BTreeMap<&str, String> {
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut fields = BTreeMap::new();
    while let Some((key, value)) =
        rest.split_once('=').filter(|(key, _)| !key.is_empty() && key.chars().all(is_key))
    {
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                value.split_once(' ').map_or((value.to_owned(), ""), |(word, rest)| (word.to_owned(), rest))
            }
        };
        fields.entry(key).or_insert(value);
        rest = behind;
    }
    fields
}

/// The text up to the closing quote, and what comes behind it and a blank.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, quoted[at + 1..].trim_start()),
            '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
            c => text.push(c),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_event_is_counted_and_errors_are_never_left_out() {
        let mut limiter = Limiter(BTreeMap::new());
        let begun = Instant::now();
        let mut passed = |level, event: &str, count: u64| {
            let args = format!("event={event} x");
            let args = format_args!("{args}");
            let record = Record::builder().level(level).args(args).build();
            (0..count).filter(|_| limiter.lets_pass(begun, &record)).count() as u64
        };
        assert_eq!(passed(Level::Warn, "flood", BURST + 70), BURST);
        assert_eq!(passed(Level::Info, "other", BURST), BURST);
        for level in [Level::Error, Level::Debug] {
            assert_eq!(passed(level, "flood", 2 * BURST), 2 * BURST);
        }
        assert_eq!(limiter.ended(begun + WINDOW / 2), []);
        assert_eq!(limiter.ended(begun + WINDOW), [("flood".to_owned(), 70)]);
        assert_eq!(limiter.end(), []);
    }

    #[test]
    fn the_words_of_an_event_are_fields_in_json() {
        let of = |text: &'static str| {
            fields(text).into_iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>()
        };
        assert_eq!(of("pid=7 version=upgrades/v2"), ["pid:7", "version:upgrades/v2"]);
        assert_eq!(of(r#"status="exit code 1" after=3s the head a=b"#), ["after:3s", "status:exit code 1"]);
        assert_eq!(of(r#"last="it said \"no\"" in=2.0s"#), ["in:2.0s", r#"last:it said "no""#]);
        assert_eq!(of("name=v2 name=v3 said: x=1"), ["name:v2"]);
        for none in ["", "the node=x", "=x", "\"", "Key=x"] {
            assert_eq!(of(none), [] as [&str; 0], "{none}");
        }
        assert_eq!(of("cut=\"short"), ["cut:short"]);
    }

    #[test]
    fn no_line_acts_on_a_terminal_or_looks_like_two() {
        let args = format_args!("event=x said=\u{9b}2J\u{202e}\n");
        let record = Record::builder().level(Level::Warn).args(args).build();
        let (mut text, mut json) = (Vec::new(), Vec::new());
        write_text(&mut text, &record, None).unwrap();
        write_json(&mut json, &record).unwrap();
        let [text, json] = [text, json].map(|line| String::from_utf8(line).unwrap());
        assert!(text.ends_with(" WARN  wemixvisor event=x said=\\u{9b}2J\\u{202e}\\n\n"), "{text}");
        assert!(json.contains(r#""message":"said=\u009b2J\u202e\n""#), "{json}");
    }
}
