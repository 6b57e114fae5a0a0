//! Width and colours of stdout, a line on stderr that is redrawn, and a screen that is.

use crate::config::{Config, LogColor};
use crate::error::{Error, Kind, Result};
use crate::printable::printable;
use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

/// How wide a line on stdout may be, and whether there may be colours. Anything but a terminal takes lines of any length.
pub(super) fn of_stdout(config: &Config) -> (usize, bool) {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return (usize::MAX, false);
    }
    (size().0, !no_color() && config.log_color != LogColor::Never)
}

/// Whether the environment asks for no colours (<https://no-color.org>).
pub(super) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Columns and rows of the terminal on stdout.
pub(super) fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => (80, 24),
    }
}

/// Signals that end or redraw something that is watched, as they arrive.
pub(super) fn signals() -> Result<Receiver<i32>> {
    let (sender, receiver) = bounded(16);
    // A signal that does not fit follows sixteen unread ones, which have the same effect.
    on_signals(&[SIGINT, SIGTERM, SIGHUP, SIGWINCH], move |signal| _ = sender.try_send(signal))?;
    Ok(receiver)
}

/// Has a thread call `act` for each of these signals.
pub(super) fn on_signals(which: &[i32], act: impl Fn(i32) + Send + 'static) -> Result<()> {
    let failed = |e| Error::new(Kind::Io, "catch signals").because(e);
    let mut signals = Signals::new(which).map_err(failed)?;
    let body = move || signals.forever().for_each(act);
    thread::Builder::new().name("signals".to_owned()).spawn(body).map_err(failed)?;
    Ok(())
}

/// Waits before something that is watched is looked at again; returns whether the output still has a reader.
pub(super) fn goes_on(signals: &Receiver<i32>, pause: Duration) -> bool {
    match signals.recv_timeout(pause) {
        Ok(SIGWINCH) | Err(_) => !reader_is_gone(),
        Ok(_) => false,
    }
}

/// Whether stdout is not read any more: it is a pipe without a reader, or a terminal that was closed (poll(2)).
fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    polled.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// One line on stderr about what is going on: redrawn on a terminal; elsewhere written once per subject.
pub(super) struct Line {
    terminal: bool,
    subject: Option<String>,
}

impl Line {
    pub(super) fn of_stderr() -> Self {
        Line { terminal: io::stderr().is_terminal(), subject: None }
    }

    /// Whether it is on a terminal, where a newer state takes the place of an older one.
    pub(super) fn is_redrawn(&self) -> bool {
        self.terminal
    }

    /// Shows the state of a subject. A failure to show it is ignored.
    pub(super) fn show(&mut self, subject: &impl std::fmt::Display, text: &str) {
        let subject = subject.to_string();
        let line = printable(&format!("{subject}: {text}"));
        let mut stderr = io::stderr().lock();
        if self.terminal {
            let width = tcgetwinsize(&stderr).map_or(80, |size| usize::from(size.ws_col).max(20));
            let line: String = line.chars().take(width - 1).collect();
            let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
        } else if self.subject.as_ref() != Some(&subject) {
            let _ = writeln!(stderr, "{line}");
        }
        self.subject = Some(subject);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.terminal && self.subject.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The alternate screen of the terminal, without a cursor; what was there before comes back on drop.
pub(super) struct Screen;

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(Screen)
    }

    /// Shows this, and nothing of what was shown before.
    pub(super) fn draw(&self, text: &str) -> io::Result<()> {
        // Line by line over the old one, so that nothing flickers.
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\r\n")).collect();
        write(&format!("\x1b[H{}\x1b[J", lines.trim_end_matches("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A failure cannot be reported any more.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
