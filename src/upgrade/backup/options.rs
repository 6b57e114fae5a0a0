//! How backups are made, as configured.

use super::names::LeftOut;
use crate::config::{BackupMethod, Config};
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

/// More threads than this do not copy faster.
const WORKERS: usize = 4;

/// The configuration of backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How files get into a backup.
    pub method: BackupMethod,
    /// What is left out.
    pub left_out: LeftOut,
    /// The number of threads that copy or read; with one, the calling thread does it.
    pub workers: usize,
    /// How many bytes a second are copied or read while a node runs.
    pub rate: u64,
    /// How many backups of upgrades are kept.
    pub keep: usize,
    /// How old they may get.
    pub max_age: Option<Duration>,
}

impl Options {
    /// As the operator has configured it.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Options {
            method: config.daemon_backup_method,
            left_out: LeftOut::new(&config.daemon_backup_exclude),
            workers: available_parallelism().map_or(1, NonZero::get).min(WORKERS),
            rate: config.daemon_backup_rate.0,
            keep: usize::try_from(config.daemon_backup_keep).unwrap_or(usize::MAX),
            max_age: config.daemon_backup_max_age,
        }
    }

    /// With which what is there is read, by one thread.
    pub(super) fn for_reading() -> Self {
        Options {
            method: BackupMethod::Auto,
            left_out: LeftOut::default(),
            workers: 1,
            rate: u64::MAX,
            keep: usize::MAX,
            max_age: None,
        }
    }

    /// Whether backups are made at all.
    #[must_use]
    pub fn are_made(config: &Config) -> bool {
        !config.unsafe_skip_backup && config.daemon_backup_method != BackupMethod::None
    }
}

#[cfg(test)]
impl Options {
    /// One thread, any method.
    pub(crate) fn plain() -> Self {
        Options { keep: 2, ..Options::for_reading() }
    }
}

impl BackupMethod {
    /// The method by which a backup gets back: where it may be shared, as far as that is possible.
    pub(in crate::upgrade) fn for_restore(self) -> BackupMethod {
        match self {
            BackupMethod::Copy => BackupMethod::Copy,
            BackupMethod::Auto | BackupMethod::Reflink | BackupMethod::Hardlink | BackupMethod::None => {
                BackupMethod::Auto
            }
        }
    }
}
