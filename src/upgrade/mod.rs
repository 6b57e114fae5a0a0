//! The jobs an upgrade needs, and what it remembers: each does one thing and decides nothing.

pub mod backup;
mod cancel;
pub mod counters;
pub mod download;
pub mod head;
pub mod history;
pub mod hook;
pub mod import;
pub mod init;
pub mod install;
pub mod journal;
pub mod node_args;
pub mod prepare;
pub mod receipts;
pub mod rehearse;
pub mod restore;
pub mod run;
pub mod smoke;
pub mod sweep;

pub use cancel::Cancel;

use crate::error::{Error, Kind};
use crate::machine::{Class, Failure};
use std::io::ErrorKind;

/// The meaning of a failure to the machine; `cancel` is the token of the job that failed, if it was one.
pub fn classify(err: &Error, cancel: Option<&Cancel>) -> Failure {
    let full = err.os().is_some_and(|os| {
        matches!(os.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
    });
    let class = match err.kind() {
        _ if cancel.is_some_and(Cancel::is_cancelled) => Class::Cancelled,
        _ if full => Class::Environment,
        Kind::Verification => Class::Integrity,
        // A missing binary may be staged any moment.
        Kind::Unreachable | Kind::Nonsense | Kind::Busy | Kind::NotFound => Class::Transient,
        Kind::Io | Kind::Permission => Class::Environment,
        Kind::Failed
        | Kind::Usage
        | Kind::NoSupervisor
        | Kind::NotMet
        | Kind::BadInput
        | Kind::Bug
        | Kind::Config
        | Kind::Halted => Class::Permanent,
    };
    Failure::new(class, err.to_string())
}
