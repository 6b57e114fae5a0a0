//! The problems of something that was written: all of them at once, each with a JSON pointer (RFC 6901).

use crate::printable::printable;
use serde::Serialize;
use std::fmt;

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The plan cannot be activated.
    Error,
    /// The plan can be activated, but may not mean what its author thinks.
    Warning,
}

/// Something about a plan that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where, as a JSON pointer: `/upgrades/3/height`; empty for the whole file.
    pub pointer: String,
    /// How bad.
    pub severity: Severity,
    /// The problem, in words.
    pub what: String,
}

/// Everything found about a plan: in itself, in the order of the file; then against the rest of the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each on its own.
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(super) fn error(pointer: impl Into<String>, what: impl Into<String>) -> Self {
        Finding { pointer: pointer.into(), severity: Severity::Error, what: what.into() }
    }
}

impl Report {
    /// Whether the plan can be activated: nothing was found, or warnings only.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }

    pub(super) fn error(&mut self, pointer: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding::error(pointer, what));
    }

    /// All findings in one line.
    pub(super) fn line(&self) -> String {
        self.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// A key as a part of a JSON pointer.
pub(super) fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// One line. The pointer is shown without characters that act on a terminal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "plan" } else { &self.pointer };
        let (place, what) = (printable(place), printable(&self.what));
        match self.severity {
            Severity::Error => write!(f, "{place}: {what}"),
            Severity::Warning => write!(f, "{place}: warning: {what}"),
        }
    }
}

impl fmt::Display for Report {
    /// One finding as it is; several as their number and an indented line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.findings.as_slice() {
            [] => f.write_str("nothing found"),
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} findings:", many.len())?;
                many.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
            }
        }
    }
}

impl std::error::Error for Report {}
