//! The one sweep at start: removes what crashes have left half-made, wherever we make things.
//!
//! The files of processes that still work are left: temporary names carry the process id, and backups, restores and
//! downloads are locked. Data that a restore has replaced is the operator's and is only shown.

use super::{backup, download, rehearse, restore};
use crate::home::{Home, durable};
use crate::machine::Target;
use std::fs;

/// Sweeps a home, its backups and what is beside its data.
pub fn sweep(home: &Home) {
    let versions = fs::read_dir(home.upgrades()).into_iter().flatten().flatten().map(|entry| entry.path());
    let versions = versions.chain([home.target(&Target::Genesis)]);
    let ours = [home.root().to_owned(), home.dir(), home.state(), home.plans(), home.upgrades()];
    for dir in ours.into_iter().chain(versions.flat_map(|dir| [dir.join("bin"), dir])) {
        // Not through a link that leads out of the home.
        if fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir()) {
            durable::sweep(&dir);
        }
    }
    download::sweep(home);
    backup::sweep(home.backups(), None);
    rehearse::sweep(home);
    for path in restore::sweep(home) {
        log::warn!(
            "event=replaced_data_kept path={} a restore has replaced it; remove it when it is not needed any more",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporaries_of_dead_processes_go_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let temp = format!(".x.{}-0.tmp", i32::MAX);
        let upgrade = home.upgrade(&"v2".parse().unwrap());
        let places = [
            home.root().to_owned(),
            home.dir(),
            home.state(),
            home.plans(),
            home.downloads(),
            home.upgrades(),
            upgrade.clone(),
            upgrade.join("bin"),
            home.genesis(),
            home.genesis().join("bin"),
            home.backups().join(".wemixvisor-partial-v2"),
        ];
        for place in &places {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join(&temp), "").unwrap();
            fs::write(place.join("kept"), "").unwrap();
        }
        fs::create_dir_all(home.data()).unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join(&temp), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), home.upgrades().join("v3")).unwrap();
        let replaced = home.root().join("data.replaced-x");
        fs::create_dir(&replaced).unwrap();
        sweep(&home);
        for place in &places[..places.len() - 1] {
            assert!(!place.join(&temp).exists() && place.join("kept").exists(), "{}", place.display());
        }
        assert!(!places[places.len() - 1].exists());
        assert!(replaced.exists() && outside.path().join(&temp).exists());
    }
}
