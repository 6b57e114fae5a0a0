//! The space that a backup takes, by the method that each file gets into it, and what would help where it is lacking.

use super::building::{Building, Source};
use super::{Options, manifest};
use crate::config::BackupMethod;
use crate::error::{Error, Kind, Result};
use crate::home::{Home, space};

/// Space left free beyond the backup itself.
const RESERVE: u64 = 64 * 1024 * 1024;
const BLOCK: u64 = 4096;
/// Files that can still be made beyond those of the backup.
const FILES: u64 = 1024;

/// The cost of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes needed, with some reserve.
    pub bytes: u64,
    /// Bytes available to us where backups go.
    pub available: u64,
    /// Bytes that are copied, neither cloned nor linked.
    pub to_copy: u64,
    /// Files and directories that are made, with some reserve.
    pub files: u64,
    /// How many the file system of the backups can still make.
    pub available_files: u64,
}

/// The space still needed for a backup of `source`, beyond what is there already.
pub(super) fn need(home: &Home, source: &Source, there: Option<&Building>) -> Result<Need> {
    let target = home.backups();
    let to_copy = source.to_copy(there);
    Ok(Need {
        bytes: to_copy + source.items.len() as u64 * BLOCK + RESERVE,
        available: space::free(target)?,
        to_copy,
        files: source.to_make(there) + FILES,
        available_files: space::free_files(target)?,
    })
}

/// Refuses a backup for which there is too little space.
pub(super) fn check(home: &Home, options: &Options, need: &Need) -> Result<()> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let lacking = if need.available < need.bytes {
        format!(
            "it needs {} MiB, {} MiB are available, {} MiB are missing",
            mib(need.bytes),
            need.available >> 20,
            mib(need.bytes - need.available)
        )
    } else if need.available_files < need.files {
        format!(
            "it needs {} inodes, {} are available, {} are missing",
            need.files,
            need.available_files,
            need.files - need.available_files
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Io, "too little space for a backup of the data")
        .at(home.backups().display())
        .because(lacking)
        .hint(help(home, options)))
}

/// The remedies, the cheapest first.
fn help(home: &Home, options: &Options) -> String {
    let mut help = Vec::new();
    let older = manifest::list(home).map_or(0, |backups| backups.len().saturating_sub(1));
    if older > 0 {
        help.push(format!("remove the {older} older backups with `wemixvisor backup prune --keep 1`"));
    }
    help.push("make room".to_owned());
    help.push(match options.method {
        BackupMethod::Copy => "set daemon_backup_method to auto".to_owned(),
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
        let need =
            Need { bytes: 3 << 30, available: 1 << 30, to_copy: 0, files: 3000, available_files: 1000 };
        let refused = |method, need: &Need| {
            let options = Options { method, ..Options::plain() };
            check(&home, &options, need).unwrap_err().to_string()
        };
        let text = refused(BackupMethod::Auto, &need);
        for part in [
            &*home.backups().display().to_string(),
            "it needs 3072 MiB, 1024 MiB are available, 2048 MiB are missing",
            "make room, set daemon_data_backup_dir",
            "or set unsafe_skip_backup",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(refused(BackupMethod::Copy, &need).contains("set daemon_backup_method to auto"));
        let roomy = Need { available: 3 << 30, ..need };
        let text = refused(BackupMethod::Auto, &roomy);
        assert!(text.contains("it needs 3000 inodes, 1000 are available, 2000 are missing"), "{text}");
        check(&home, &Options::plain(), &Need { available_files: 3000, ..roomy }).unwrap();
    }
}
