//! The node's data: backed up, and put back.

use super::{nothing_is_left, text};
use crate::crash::{Flow, Seen, step};
use crate::home::{Home, durable};
use crate::upgrade::backup::{self, Backup, Content, MadeBy, Options, Purpose, Work};
use crate::upgrade::restore::restore;
use crate::upgrade::{Cancel, sweep};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// The data of two moments. A database has a table that is linked.
const OLD: [(&str, usize); 5] = [
    ("geth/chain/1", 1),
    ("geth/chain/2", 2),
    ("geth/log", 3),
    ("geth/chain/MANIFEST-1", 2),
    ("geth/chain/1.sst", 1),
];
const NEW: [(&str, usize); 3] = [("geth/chain/1", 4), ("geth/chain/2", 5), ("geth/chain/3", 1)];

fn fill(home: &Home, files: &[(&str, usize)]) {
    let _ = fs::remove_dir_all(home.data());
    for (path, number) in files {
        let path = home.data().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, super::bytes(*number)).unwrap();
    }
    fs::write(home.data().join("geth/nodekey"), "the key").unwrap();
    symlink("1", home.data().join("geth/chain/CURRENT")).unwrap();
    fs::set_permissions(home.data().join("geth/chain"), fs::Permissions::from_mode(0o750)).unwrap();
}

/// Whether these files, and no other ones, are in `dir`, with the key and the mode.
fn holds(dir: &Path, files: &[(&str, usize)]) -> bool {
    let is = |(path, number): &(&str, usize)| fs::read(dir.join(path)).ok() == Some(super::bytes(*number));
    let count = |below: &str| fs::read_dir(dir.join(below)).map_or(0, Iterator::count);
    let in_chain = files.iter().filter(|(path, _)| path.starts_with("geth/chain")).count() + 1;
    let mode = fs::metadata(dir.join("geth/chain")).map_or(0, |meta| meta.permissions().mode() & 0o777);
    files.iter().all(is)
        && fs::read(dir.join("geth/nodekey")).ok().as_deref() == Some(b"the key")
        && fs::read_link(dir.join("geth/chain/CURRENT")).is_ok()
        && (count("geth/chain"), mode) == (in_chain, 0o750)
}

/// Long work, all of it on this thread.
fn with<T>(home: &Home, job: impl Fn(&mut Work<'_>) -> crate::error::Result<T>) -> Result<T, String> {
    let (options, cancel) = (Options { keep: 1, ..Options::plain() }, Cancel::new().map_err(text)?);
    let progress = &mut |_, _| {};
    let mut work = Work { home, options: &options, background: false, cancel: &cancel, progress };
    loop {
        let done = job(&mut work).map_err(text);
        // A child that another test gives birth to has our locks until its exec.
        if !done.as_ref().is_err_and(|e| e.contains("another process is working on it")) {
            return done;
        }
    }
}

fn make(home: &Home, name: &str) -> Result<Backup, String> {
    let name = name.parse().map_err(text)?;
    let purpose = Purpose { name, made_by: MadeBy::Upgrade, head: None, node: None };
    with(home, |work| backup::make(work, &purpose, None))
}

/// The times of files are not in the model.
fn timeless(mut backup: Backup) -> Backup {
    for entry in &mut backup.manifest.entries {
        if let Content::File { modified, .. } = &mut entry.content {
            *modified = None;
        }
    }
    backup
}

/// Every backup that is listed verifies (I6), and has the old data, whether its digests are known or not.
fn listed(home: &Home) -> Result<Vec<Backup>, String> {
    let backups: Vec<_> = backup::list(home).map_err(text)?.into_iter().map(timeless).collect();
    for backup in &backups {
        with(home, |work| backup::verify(work, backup))?;
        let is = |(path, number): &(&str, usize)| {
            fs::read(backup.data(home).join(path)).ok() == Some(super::bytes(*number))
        };
        if !OLD.iter().all(is) {
            return Err(format!("{} does not have the data", backup.name));
        }
    }
    Ok(backups)
}

/// Backups for two upgrades.
pub(in crate::crash) const BACKUP: Flow = Flow {
    name: "backup",
    share: 15,
    setup: |home| fill(home, &OLD),
    run: |home, from| {
        for number in from..=2 {
            step(number, || drop(make(home, &format!("v{number}")).unwrap()));
        }
    },
    law: |home, seen| {
        let names = |backups: Vec<Backup>| {
            backups.into_iter().map(|backup| backup.manifest.upgrade.to_string()).collect::<Vec<_>>()
        };
        let found = names(listed(home)?);
        for number in 1..=2 {
            let is_there = found.contains(&format!("v{number}"));
            if number <= seen.acked && !is_there || number > seen.begun && is_there {
                return Err(format!("backups: {found:?}"));
            }
        }
        if !holds(home.data(), &OLD) {
            return Err("the data is not what it was".to_owned());
        }
        nothing_is_left(home)
    },
};

/// The digests of a backup are added to its manifest, and then the one before is removed.
pub(in crate::crash) const KEEP: Flow = Flow {
    name: "keep",
    share: 8,
    setup: |home| {
        fill(home, &OLD);
        for name in ["v1", "v2"] {
            let backup = timeless(make(home, name).unwrap());
            let text = serde_json::to_vec(&backup.manifest).unwrap();
            fs::write(home.backups().join(backup.name).join("manifest.json"), text).unwrap();
        }
    },
    run: |home, from| {
        if from <= 1 {
            step(1, || {
                let newest = backup::list(home).unwrap().pop().unwrap();
                with(home, |work| backup::complete(work, newest.clone())).unwrap();
            });
        }
        step(2, || drop(with(home, |work| backup::prune(work, &[])).unwrap()));
    },
    law: |home, seen| {
        let found = listed(home)?;
        let names: Vec<_> = found.iter().map(|backup| backup.manifest.upgrade.as_str()).collect();
        let verified = found.last().is_some_and(|backup| backup.manifest.state() == backup::State::Verified);
        let state = match (&names[..], verified) {
            (["v1", "v2"], false) => Some(0),
            (["v1", "v2"], true) => Some(1),
            (["v2"], true) => Some(2),
            _ => None,
        };
        seen.check("what is kept", state)?;
        nothing_is_left(home)
    },
};

/// A restore, and another one of the same backup when the data has gone on.
pub(in crate::crash) const RESTORE: Flow = Flow {
    name: "restore",
    share: 8,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        fill(home, &OLD);
        let backup = make(home, "v2").unwrap();
        with(home, |work| backup::complete(work, backup.clone())).unwrap();
        fill(home, &NEW);
    },
    run: |home, _| step(1, || redo(home).unwrap()),
    law: |home, seen| {
        if listed(home)?.len() != 1 {
            return Err("the backup is gone".to_owned());
        }
        let (old, new) = (holds(home.data(), &OLD), holds(home.data(), &NEW));
        let state = match (old, new) {
            (true, false) => Some(1),
            (false, true) => Some(0),
            _ => None,
        };
        seen.check("the data", state)?;
        is_kept(home, seen)?;
        redo(home)?;
        if !holds(home.data(), &OLD) || home.data().join(".wemixvisor-restored").exists() {
            return Err("it cannot be finished".to_owned());
        }
        is_kept(home, Seen { acked: 1, begun: 1 })?;
        sweep::sweep(home).remove();
        nothing_is_left(home)
    },
};

fn redo(home: &Home) -> Result<(), String> {
    let backup = backup::list(home).map_err(text)?.pop().ok_or("no backup")?;
    with(home, |work| restore(work, &backup)).map(drop)
}

/// The data that is replaced is somewhere, as a whole; in the end under the name that the operator is told.
fn is_kept(home: &Home, seen: Seen) -> Result<(), String> {
    let beside = fs::read_dir(home.root()).map_err(text)?.flatten();
    let names: Vec<_> = beside.filter(|entry| holds(&entry.path(), &NEW)).map(|e| e.file_name()).collect();
    let is_replaced = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("data.replaced-");
    match seen.acked {
        0 if !names.is_empty() => Ok(()),
        1 if names.iter().any(is_replaced) => Ok(()),
        _ => Err(format!("what is replaced is in {names:?}")),
    }
}
