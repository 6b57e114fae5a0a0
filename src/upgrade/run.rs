//! Running a short-lived program (a hook, `<binary> version`) so that it cannot hold us up.
//!
//! There is no shell. The program gets an empty stdin, or a short text, and its own process group, and its output is
//! kept up to a limit, so that neither a flood nor a silent hang can do harm. Time out, or being
//! cancelled, ends the whole group: SIGTERM, then SIGKILL. What the program leaves behind in its group is
//! killed when it has ended, since nothing may work on the data behind the node's back; a process that
//! is meant to stay must begin its own session.

use super::Cancel;
use super::cancel::BLIND;
use crate::children::{self, Owned};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::regular;
use crate::printable::foreign;
use crate::sys::{Birth, at_birth};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::process::Signal;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read as _, Seek as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The program to run, and how.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// The file to execute.
    pub path: &'a Path,
    /// Its arguments.
    pub args: &'a [&'a str],
    /// The working directory.
    pub dir: &'a Path,
    /// Whether it sees our own environment, or only `PATH` and `HOME` of it.
    pub inherit: bool,
    /// The text on its standard input, if there is one.
    pub input: Option<&'a str>,
    /// Variables to add.
    pub env: Vec<(&'static str, OsString)>,
    /// Descriptors that it inherits, beside the standard ones.
    pub fds: Vec<BorrowedFd<'a>>,
    /// The longest time that it may take.
    pub timeout: Duration,
    /// How long its group has between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl<'a> Program<'a> {
    /// A program that inherits nothing but `PATH` and `HOME`.
    pub fn bare(
        path: &'a Path,
        args: &'a [&'a str],
        dir: &'a Path,
        timeout: Duration,
        grace: Duration,
    ) -> Self {
        let (env, fds) = (Vec::new(), Vec::new());
        Program { path, args, dir, inherit: false, input: None, env, fds, timeout, grace }
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// Its output on stdout and stderr together: the beginning and the end, if it was much.
    pub output: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, which was not ours.
    Signalled(i32),
    /// We ended it because its time was over.
    TimedOut,
    /// We ended it because the job was cancelled.
    Cancelled,
}

/// Beginning and end of the output are kept up to this many bytes each.
const KEPT: usize = 32 * 1024;
/// How long a killed process may take to vanish before we leave it behind.
const VANISH: Duration = Duration::from_secs(30);
/// Runs a program to its end. The calling thread must live on until then (PR_SET_PDEATHSIG).
///
/// # Errors
/// If the program cannot be executed, or does not even die of SIGKILL.
pub fn run(program: &Program<'_>, cancel: &Cancel) -> Result<Ran> {
    if cancel.is_cancelled() {
        return Ok(Ran { end: End::Cancelled, output: String::new() });
    }
    let failed = |e: io::Error| execution_failed(program.path, e);
    check_magic(program.path)?;
    let (reader, child) = spawn(program).map_err(failed)?;
    let mut watched = Watched { child, reader: Some(reader), capture: Capture::default() };
    let end = watched.supervise(program, cancel)?;
    // It is a zombie now, so the group's number is still its own.
    watched.child.signal_group(Signal::KILL).map_err(failed)?;
    watched.drain();
    let status = watched.child.try_wait().map_err(failed)?;
    let by_itself = || status.map_or(End::Signalled(0), end_of);
    Ok(Ran { end: end.unwrap_or_else(by_itself), output: watched.capture.text() })
}

fn spawn(program: &Program<'_>) -> io::Result<(PipeReader, Owned)> {
    let (reader, writer) = io::pipe()?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    let mut command = Command::new(program.path);
    command.args(program.args).current_dir(program.dir).process_group(0);
    if program.inherit {
        children::keep_private(&mut command);
    } else {
        command.env_clear();
        command.envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    }
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    command.stdin(input(program.input)?).stdout(writer.try_clone()?).stderr(writer);
    let inherit = program.fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
    at_birth(&mut command, Birth { parent_death: Some(Signal::KILL), inherit, ..Birth::default() });
    // Dropping the command closes our copies of the writing end and of what is inherited.
    Ok((reader, children::spawn(&mut command)?))
}

/// A file in memory, so that no reader is waited for.
fn input(text: Option<&str>) -> io::Result<Stdio> {
    let Some(text) = text else { return Ok(Stdio::null()) };
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Refuses what only a shell could make sense of: execvp(3), which `Command` uses, hands such a file to one.
fn check_magic(path: &Path) -> Result<()> {
    let mut magic = Vec::new();
    let read = regular::open(path).and_then(|(file, _)| file.take(4).read_to_end(&mut magic));
    match read {
        Ok(_) if magic == *b"\x7fELF" || magic.starts_with(b"#!") => Ok(()),
        Ok(_) => Err(Error::new(Kind::BadInput, "the file is neither a program nor a script with a #! line")
            .at(path.display())
            .hint("begin it with #!/bin/sh if it is a shell script")),
        // A program may be executable and not readable.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(e) => Err(execution_failed(path, e)),
    }
}

fn execution_failed(path: &Path, err: io::Error) -> Error {
    let hint = match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if path.exists() => "its interpreter or dynamic loader is not on this machine",
        Some(Errno::NOEXEC) => "it is not a program for this machine",
        Some(Errno::ACCESS) => "make it executable, on a file system that is not mounted noexec",
        _ => return Error::io("execute", path, err),
    };
    Error::io("execute", path, err).hint(hint)
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or(0)),
    }
}

struct Watched {
    child: Owned,
    /// `None` when every writer has closed.
    reader: Option<PipeReader>,
    capture: Capture,
}

impl Watched {
    /// Returns when the process has ended; `Some` if that was our doing.
    fn supervise(&mut self, program: &Program<'_>, cancel: &Cancel) -> Result<Option<End>> {
        let mut end = None;
        let mut deadline = Instant::now() + program.timeout;
        let mut steps = [(Signal::TERM, program.grace), (Signal::KILL, VANISH)].into_iter();
        loop {
            let ready = self.wait(deadline, end.is_none().then_some(cancel))?;
            if ready.output {
                self.read();
            }
            if ready.ended {
                return Ok(end);
            }
            if ready.cancelled || Instant::now() >= deadline {
                end = end.or(Some(if ready.cancelled { End::Cancelled } else { End::TimedOut }));
                let Some((signal, time)) = steps.next() else {
                    return Err(Error::new(Kind::Failed, "the program does not die of SIGKILL")
                        .at(program.path.display())
                        .because("it hangs in the operating system"));
                };
                let sent = self.child.signal_group(signal);
                sent.doing("signal the group of", program.path)?;
                deadline = Instant::now() + time;
            }
        }
    }

    fn wait(&self, deadline: Instant, cancel: Option<&Cancel>) -> Result<Ready> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(pidfd) = self.child.pidfd() else { return self.look(left, cancel) };
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        fds.extend(self.reader.as_ref().map(|reader| PollFd::new(reader, PollFlags::IN)));
        fds.extend(cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN)));
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.look(left, cancel),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ended = ready.next().unwrap_or(false);
        let output = self.reader.is_some() && ready.next().unwrap_or(false);
        Ok(Ready { ended, output, cancelled: cancel.is_some() && ready.next().unwrap_or(false) })
    }

    /// The same without poll(2) or pidfd_open(2), for which the machine lacks something.
    fn look(&self, left: Duration, cancel: Option<&Cancel>) -> Result<Ready> {
        thread::sleep(left.min(BLIND));
        let failed = |e| Error::new(Kind::Io, "wait for a program").because(e);
        let ended = self.child.has_ended().map_err(failed)?;
        let cancelled = cancel.is_some_and(Cancel::is_cancelled);
        Ok(Ready { ended, output: self.reader.is_some(), cancelled })
    }

    /// Reads once. Returns whether there may be more.
    fn read(&mut self) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let mut buf = [0; 16 * 1024];
        match reader.read(&mut buf) {
            Ok(0) => self.reader = None,
            Ok(n) => self.capture.add(&buf[..n]),
            Err(e) => return e.kind() == io::ErrorKind::Interrupted,
        }
        self.reader.is_some()
    }

    /// Reads what is in the pipe, but not for ever: another process may have taken its other end along.
    fn drain(&mut self) {
        let mut rounds = 0..1024;
        while rounds.next().is_some() && self.read() {}
    }
}

struct Ready {
    ended: bool,
    output: bool,
    cancelled: bool,
}

/// The beginning and the end of a stream of bytes.
#[derive(Default)]
struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Capture {
    fn add(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
    }

    fn text(self) -> String {
        let tail = Vec::from(self.tail);
        if self.left_out == 0 {
            return String::from_utf8_lossy(&[self.head, tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
        format!("{head}\n[{} bytes left out]\n{tail}", self.left_out)
    }
}

impl Ran {
    /// The last words of the program as one short line, for an error message.
    pub fn last_words(&self) -> String {
        let last = self.output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no output");
        foreign(last)
    }
}

#[cfg(test)]
mod tests;
