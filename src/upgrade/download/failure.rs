//! How an attempt to download ends when it does not succeed: by fault of the mirror, or for all of them.

use super::retry::Fault;
use super::url::Url;
use crate::error::{Error, Kind};
use std::error::Error as StdError;
use std::fmt::Display;

/// Why an attempt has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The mirror is at fault: another one may do better.
    Mirror(Fault, Error),
    /// No mirror can help: the disk, the configuration, or it was cancelled.
    Fatal(Error),
}

impl From<Error> for Failure {
    /// Our own disk and configuration are not a mirror's fault.
    fn from(err: Error) -> Self {
        Failure::Fatal(err)
    }
}

type Why = Box<dyn StdError + Send + Sync>;

/// A failure that will not pass: the mirror is out.
pub(super) fn refuse(kind: Kind, url: &Url, why: impl Into<Why>) -> Failure {
    Failure::Mirror(Fault::Lasting, Error::new(kind, "download").at(url).because(why))
}

/// A failure that may pass.
pub(super) fn passing(kind: Kind, url: &Url, why: impl Into<Why>) -> Failure {
    Failure::Mirror(Fault::Passing { retry_after: None }, Error::new(kind, "download").at(url).because(why))
}

/// The end that was asked for.
pub(super) fn cancelled(place: impl Display) -> Error {
    Error::new(Kind::Failed, "the download was cancelled").at(place).hint("what has arrived is kept")
}
