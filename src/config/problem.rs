//! The problems of a configuration, each with its place.
//!
//! An operator who mends a file needs the whole list, so reading collects problems instead of returning at the first. The
//! reading itself is in [`super::load`].

use crate::error::{Error, Kind, is_of_the_machine, out_of_files};
use crate::printable::printable;
use std::fmt;
use std::io;
use std::path::Path;

/// One thing that is wrong, or worth a warning, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, the name of an environment variable, or a flag.
    pub place: String,
    /// The problem, in words.
    pub what: String,
    /// The next step, where that is not obvious.
    pub hint: Option<String>,
    /// [`Kind::Permission`] or [`Kind::Io`], if it is a matter of these and not of what is written.
    pub kind: Kind,
}

/// Everything that is wrong with a configuration; never empty when returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// A problem at a place.
    pub fn new(place: impl fmt::Display, what: impl Into<String>) -> Self {
        Problem { place: place.to_string(), what: what.into(), hint: None, kind: Kind::Config }
    }

    /// A file that the operating system does not let us read.
    pub(super) fn unreadable(path: &Path, err: &io::Error) -> Self {
        let problem = Problem::new(path.display(), format!("cannot be read: {err}"));
        match err.kind() {
            io::ErrorKind::FileTooLarge => Problem { what: err.to_string(), ..problem },
            io::ErrorKind::PermissionDenied => {
                Problem { kind: Kind::Permission, ..problem }.hint("run as the user that the home belongs to")
            }
            _ if is_of_the_machine(err) => {
                Problem { kind: Kind::Io, hint: out_of_files(err).map(str::to_owned), ..problem }
            }
            _ => problem,
        }
    }

    /// The next step, as an instruction.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Problems {
    /// `Err` with everything found, or `Ok` if that is nothing.
    ///
    /// # Errors
    /// If there is at least one problem.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.place), printable(&self.what))?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", printable(hint)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    /// One line per problem, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Error {
        let what = match problems.0.as_slice() {
            [one] => one.to_string(),
            many => {
                let lines: String = many.iter().map(|p| format!("\n  {p}")).collect();
                format!("the configuration has {} problems:{lines}", many.len())
            }
        };
        let kinds = [Kind::Io, Kind::Permission];
        let kind = kinds.into_iter().find(|kind| problems.0.iter().any(|p| p.kind == *kind));
        Error::new(kind.unwrap_or(Kind::Config), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_one_line_and_many_are_a_list() {
        let first = Problem::new("config.yaml:3", "bad").hint("mend it");
        let one = Problems(vec![first.clone()]);
        assert_eq!(Error::from(one).to_string(), "config.yaml:3: bad; mend it");
        let two = Error::from(Problems(vec![first, Problem::new("--home", "worse")]));
        assert_eq!(
            two.to_string(),
            "the configuration has 2 problems:\n  config.yaml:3: bad; mend it\n  --home: worse"
        );
        assert_eq!(two.kind(), Kind::Config);
    }

    #[test]
    fn what_may_not_be_read_is_a_matter_of_permission() {
        let denied = Problem::unreadable(Path::new("/c"), &io::ErrorKind::PermissionDenied.into());
        let err = Error::from(Problems(vec![denied, Problem::new("--home", "worse")]));
        assert_eq!(err.kind(), Kind::Permission);
        assert!(err.to_string().contains("/c: cannot be read: permission denied; run as the user"), "{err}");
        let none_left = Problem::unreadable(Path::new("/c"), &rustix::io::Errno::MFILE.into());
        let err = Error::from(Problems(vec![none_left]));
        assert_eq!(err.kind(), Kind::Io);
        assert!(
            err.to_string().ends_with("; raise the limit of open files (LimitNOFILE= or ulimit -n)"),
            "{err}"
        );
        let gone = Problem::unreadable(Path::new("/c"), &io::ErrorKind::NotFound.into());
        assert_eq!(Error::from(Problems(vec![gone])).kind(), Kind::Config);
    }
}
