//! The configuration of backups.

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
    /// The method by which files are brought into a backup.
    pub method: BackupMethod,
    /// The files that are left out.
    pub left_out: LeftOut,
    /// The number of threads that copy or read; with one, the calling thread does it.
    pub workers: usize,
    /// The number of bytes a second that are copied or read while a node runs.
    pub rate: u64,
    /// The number of backups of upgrades that are kept.
    pub keep: usize,
    /// The age at which backups of upgrades are removed; None for no limit.
    pub max_age: Option<Duration>,
}

impl Options {
    /// The options that the operator has configured.
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
}

#[cfg(test)]
impl Options {
    /// One thread, any method.
    pub(crate) fn plain() -> Self {
        Options {
            method: BackupMethod::Auto,
            left_out: LeftOut::default(),
            workers: 1,
            rate: u64::MAX,
            keep: 2,
            max_age: None,
        }
    }
}

impl BackupMethod {
    /// The method by which a backup is restored: blocks are shared where possible, unless the operator wants copies.
    pub(in crate::upgrade) fn for_restore(self) -> BackupMethod {
        if self == BackupMethod::Copy { BackupMethod::Copy } else { BackupMethod::Auto }
    }
}
