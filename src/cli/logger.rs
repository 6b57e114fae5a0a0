//! Our own log on stderr: one line per event, as text or as JSON.

use crate::config::{Config, LogColor, LogFormat, LogLevel};
use crate::time::rfc3339;
use log::{Level, LevelFilter, Record};
use serde_json::json;
use std::io::{self, IsTerminal as _, Write};
use std::time::SystemTime;

/// Starts logging as configured.
pub(super) fn start(config: &Config) {
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
    let format = move |out: &mut env_logger::fmt::Formatter, record: &Record<'_>| {
        if json { write_json(out, record) } else { write_text(out, record, colour) }
    };
    // Libraries below are quiet: what matters of them we report ourselves.
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Error).filter_module("wemixvisor", level).format(format);
    // It fails only when there is a logger already.
    let _ = builder.try_init();
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
    writeln!(out, "{time} {paint}{:<5}{reset} wemixvisor {}", record.level(), record.args())
}

fn write_json(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let time = rfc3339(SystemTime::now());
    let message = record.args().to_string();
    let level = record.level().as_str().to_ascii_lowercase();
    let (event, rest) = match message.strip_prefix("event=") {
        Some(tagged) => tagged.split_once(' ').map_or((Some(tagged), ""), |(e, rest)| (Some(e), rest)),
        None => (None, message.as_str()),
    };
    writeln!(out, "{}", json!({"time": time, "level": level, "event": event, "message": rest}))
}
