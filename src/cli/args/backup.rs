//! The part of the command line that is about backups.

use super::values::positive;
use super::{
    Format, format, free, free_if_any, misused, name, opt, opt_free, parsed, subcommand, timeout, unknown,
};
use crate::error::Result;
use crate::force::Force;
use crate::name::Name;
use pico_args::Arguments;
use std::ffi::OsString;
use std::time::Duration;

/// A command about backups.
#[derive(Debug, PartialEq)]
pub(crate) enum BackupCommand {
    Create { name: Option<Name>, force: Force, format: Format },
    List(Format),
    Show(String, Format),
    Verify(String, Format),
    Restore { name: String, force: Force, format: Format },
    Prune(Prune),
}

/// The backups to remove.
#[derive(Debug, PartialEq)]
pub(crate) struct Prune {
    /// The names of the backups; if empty, the outdated ones.
    pub(crate) names: Vec<String>,
    pub(crate) keep: Option<usize>,
    pub(crate) max_age: Option<Duration>,
    /// Data that restores have replaced, as well.
    pub(crate) replaced: bool,
    /// Removes nothing, and prints what would be removed.
    pub(crate) dry_run: bool,
    pub(crate) format: Format,
}

pub(super) fn backup(args: &mut Arguments) -> Result<BackupCommand> {
    let sub = subcommand(args, "backup")?;
    let word = &format!("backup {sub}");
    let takes_force = ["create", "restore"].contains(&&*sub);
    let (format, force) = (format(args), if takes_force { super::force(args) } else { Force::No });
    Ok(match sub.as_str() {
        "create" => BackupCommand::Create { name: free_if_any(args, word, "NAME", name)?, force, format },
        "list" => BackupCommand::List(format),
        "show" => BackupCommand::Show(free(args, word, "NAME", parsed)?, format),
        "verify" => BackupCommand::Verify(free(args, word, "NAME", parsed)?, format),
        "restore" => BackupCommand::Restore { name: free(args, word, "NAME", parsed)?, force, format },
        "prune" => BackupCommand::Prune(prune(args, word, format)?),
        _ => return Err(unknown(word)),
    })
}

fn prune(args: &mut Arguments, word: &str, format: Format) -> Result<Prune> {
    let keep = opt(args, word, "--keep", count)?;
    let max_age = opt(args, word, "--max-age", timeout)?;
    let (replaced, dry_run) = (args.contains("--replaced"), args.contains("--dry-run"));
    let mut names = Vec::new();
    while let Some(name) = opt_free::<OsString>(args, word)? {
        // As a shell completes the name of a directory.
        let name = name.to_string_lossy().trim_end_matches('/').to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.is_empty() && (keep.is_some() || max_age.is_some()) {
        return Err(misused(word, "give names, or --keep and --max-age"));
    }
    Ok(Prune { names, keep, max_age, replaced, dry_run, format })
}

fn count(text: &str) -> Result<usize, String> {
    positive(text, "a number").map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn read(line: &str) -> Result<BackupCommand> {
        backup(&mut Arguments::from_vec(line.split_whitespace().map(OsString::from).collect()))
    }

    #[test]
    fn what_is_removed_is_named_or_outdated() {
        let Ok(BackupCommand::Prune(asked)) = read("prune --keep 1 --max-age 24h --replaced --dry-run")
        else {
            panic!("it is a good one");
        };
        assert_eq!((asked.keep, asked.max_age), (Some(1), Some(Duration::from_secs(86_400))));
        assert!(asked.replaced && asked.dry_run && asked.names.is_empty());
        let Ok(BackupCommand::Prune(asked)) = read("prune a b a/") else { panic!("it is a good one") };
        assert_eq!(asked.names, ["a", "b"]);
        for bad in
            ["prune --keep 0", "prune a --keep 1", "prune --keep x", "restore", "create a/b", "destroy"]
        {
            assert_eq!(read(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
