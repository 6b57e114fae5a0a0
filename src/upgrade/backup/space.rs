//! The space that a backup takes, by the method that each file gets into it, and what would help where it is lacking.

use super::building::{Building, Source};
use super::{Options, list, outdated};
use crate::config::BackupMethod;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::home::space::{self, Amount};
use crate::upgrade::restore::replaced;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// Space left free beyond the backup itself.
const RESERVE: u64 = 64 * 1024 * 1024;
const BLOCK: u64 = 4096;
/// Files that can still be made beyond those of the backup.
const FILES: u64 = 1024;

/// The cost of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes, and files and directories, with some reserve.
    pub(crate) amount: Amount,
    /// Bytes that are copied, neither cloned nor linked.
    pub to_copy: u64,
}

/// The space still needed for a backup of `source`, beyond what is there already.
pub(super) fn need(source: &Source, there: Option<&Building>) -> Need {
    let to_copy = source.to_copy(there);
    let bytes = to_copy + source.items.len() as u64 * BLOCK + RESERVE;
    Need { amount: Amount { bytes, files: source.to_make(there) + FILES }, to_copy }
}

/// Refuses a backup for which there is too little space.
pub(super) fn check(home: &Home, options: &Options, need: Need) -> Result<Need> {
    check_against(Amount::free(home.backups())?, home, options, need)
}

fn check_against(free: Amount, home: &Home, options: &Options, need: Need) -> Result<Need> {
    match space::lacking(need.amount, free) {
        None => Ok(need),
        Some(lacking) => Err(Error::new(Kind::Io, "too little space for a backup of the data")
            .at(home.backups().display())
            .because(lacking)
            .hint(help(home, options))),
    }
}

/// The remedies, the cheapest first.
fn help(home: &Home, options: &Options) -> String {
    let mut help = Vec::new();
    // Those of the operator are removed by name alone.
    let fewest = Options { keep: 1, ..options.clone() };
    let older = list(home).map_or(0, |backups| outdated(&backups, &fewest, &[], SystemTime::now()).len());
    if older > 0 {
        help.push(format!(
            "remove the {older} older backups of upgrades with `wemixvisor backup prune --keep 1`"
        ));
    }
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let is_beside = device(home.data()) == device(home.backups());
    if is_beside && !replaced(home).is_empty() {
        help.push(
            "remove the data that restores have replaced with `wemixvisor backup prune --replaced`"
                .to_owned(),
        );
    }
    help.push("make room".to_owned());
    help.push(match options.method {
        BackupMethod::Copy => "set daemon_backup_method to auto".to_owned(),
        _ if is_beside => "set daemon_data_backup_dir to a larger file system".to_owned(),
        _ => "set daemon_data_backup_dir to the file system of the data, where files need not be copied, or to a larger one"
            .to_owned(),
    });
    help.push("set unsafe_skip_backup".to_owned());
    let last = help.pop().unwrap_or_default();
    format!("{}, or {last}", help.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_where_and_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let need = Need { amount: Amount { bytes: 3 << 30, files: 3000 }, to_copy: 0 };
        let free = |gib: u64, files| Amount { bytes: gib << 30, files };
        let refused = |method, free| {
            let options = Options { method, ..Options::plain() };
            check_against(free, &home, &options, need).unwrap_err().to_string()
        };
        let text = refused(BackupMethod::Auto, free(1, 1000));
        for part in [
            &*home.backups().display().to_string(),
            "it needs 3072 MiB, 1024 MiB are available, 2048 MiB are missing",
            "make room, set daemon_data_backup_dir",
            "or set unsafe_skip_backup",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(refused(BackupMethod::Copy, free(1, 1000)).contains("set daemon_backup_method to auto"));
        let text = refused(BackupMethod::Auto, free(3, 1000));
        assert!(
            text.contains("it needs 3000 inodes, 1000 inodes are available, 2000 inodes are missing"),
            "{text}"
        );
        check_against(free(3, 3000), &home, &Options::plain(), need).unwrap();
    }
}
