//! The one error type: what was attempted, on which path or URL, why it failed and what to do next.
//!
//! An enum of variants per cause was rejected: no caller branches on more than the [`Kind`], which is
//! what decides the exit code, and a message that names operation, place and next step is what an
//! operator needs. `cli::program` is the only place that prints one.

use crate::exit::Exit;
use crate::printable::{printable, printable_lines};
use rustix::io::Errno;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// The kind of a failure; its number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Anything that has no better kind.
    Failed = Exit::Failed as u8,
    /// The command line is wrong.
    Usage = Exit::Usage as u8,
    /// No supervisor is running on this home.
    NoSupervisor = Exit::NoSupervisor as u8,
    /// No such upgrade, plan or backup.
    NotFound = Exit::NotFound as u8,
    /// A condition that was asked for does not hold.
    NotMet = Exit::NotMet as u8,
    /// An input file is bad.
    BadInput = Exit::BadInput as u8,
    /// A checksum or signature does not match, or there is none.
    Verification = Exit::Verification as u8,
    /// A server or the node cannot be reached, or was too slow.
    Unreachable = Exit::Unreachable as u8,
    /// Our own assumption is broken.
    Bug = Exit::Bug as u8,
    /// The operating system refused an operation.
    Io = Exit::Io as u8,
    /// Another supervisor holds this home.
    Busy = Exit::Busy as u8,
    /// A peer answered something that makes no sense.
    Nonsense = Exit::Nonsense as u8,
    /// Permission denied.
    Permission = Exit::Permission as u8,
    /// The configuration is bad.
    Config = Exit::Config as u8,
    /// The operator must decide.
    Halted = Exit::Halted as u8,
}

impl Kind {
    /// The exit code of a command that fails with this kind.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A failure with everything a person needs to act on it.
///
/// Shown as one line: `what: place: source; hint`, without characters that act on a terminal.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `kind`; `what` is the operation, in lower case, without a full stop.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), place: None, source: None, hint: None }
    }

    /// A failed operation of the operating system on `path`. A refusal becomes [`Kind::Permission`].
    pub fn io(what: impl Into<String>, path: &Path, err: io::Error) -> Self {
        let kind = match err.kind() {
            io::ErrorKind::PermissionDenied => Kind::Permission,
            _ => Kind::Io,
        };
        let hint = out_of_files(&err).map(str::to_owned);
        Error { hint, ..Error::new(kind, what) }.at(path.display()).because(err)
    }

    /// Where: a path, `file:line`, or URL.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Why: the underlying failure.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The next step, as an instruction.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The error of the operating system underneath, where there is one.
    pub fn os(&self) -> Option<&io::Error> {
        self.source.as_deref().and_then(|s| s.downcast_ref::<io::Error>())
    }
}

/// Names the operation and the path of a failure of the operating system.
pub(crate) trait Doing<T> {
    /// The same result; a failure becomes [`Error::io`].
    fn doing(self, what: impl Into<String>, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>, path: &Path) -> Result<T> {
        self.map_err(|e| Error::io(what, path, e.into()))
    }
}

/// Whether the machine is out of something or fails, whatever the file is that was asked for.
pub(crate) fn is_of_the_machine(err: &io::Error) -> bool {
    let errno = err.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO | Errno::STALE | Errno::TIMEDOUT)
    )
}

/// The next step if we, or the machine, have too many files open.
pub(crate) fn out_of_files(err: &io::Error) -> Option<&'static str> {
    match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => Some("raise the limit of open files (LimitNOFILE= or ulimit -n)"),
        Some(Errno::NFILE) => Some("raise the machine's limit of open files (sysctl fs.file-max)"),
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A list of problems has one in each line.
        f.write_str(&printable_lines(&self.what))?;
        if let Some(place) = &self.place {
            write!(f, ": {}", printable(place))?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {}", printable_lines(&source.to_string()))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {}", printable(hint))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_where_why_and_what_next() {
        let err = Error::io("open", Path::new("/x"), io::Error::other("boom")).hint("look at it");
        assert_eq!(err.to_string(), "open: /x: boom; look at it");
        assert_eq!(err.kind().code(), Exit::Io.code());
        let err = Error::io("open", Path::new("/x"), Errno::NFILE.into()).to_string();
        assert!(err.ends_with("; raise the machine's limit of open files (sysctl fs.file-max)"), "{err}");
        let err = Error::io("open", Path::new("/x\n\x1b[2J"), io::Error::other("1\n  2\u{9b}"));
        assert_eq!(err.to_string(), "open: /x\\n\\u{1b}[2J: 1\n  2\\u{9b}");
    }

    #[test]
    fn a_refusal_is_a_matter_of_permission() {
        let err = Error::io("open", Path::new("/x"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(err.kind(), Kind::Permission);
    }
}
