//! The one sweep at start: removes what crashes have left half-made, wherever we make things.
//!
//! The files of processes that still work are left: temporary names carry the process id, and backups, restores and
//! downloads are locked. Data that a restore has replaced is the operator's and is only shown.
//!
//! A half-made copy of the data may be large. It is only put aside before the node starts.

use super::{backup, download, rehearse, restore};
use crate::home::Home;
use crate::home::durable::Rubbish;
use crate::machine::Target;
use std::fs;

/// Sweeps a home, its backups and what is beside its data. Returns the directories that are still to be removed.
pub fn sweep(home: &Home) -> Rubbish {
    let mut rubbish = Rubbish::default();
    let versions = fs::read_dir(home.upgrades()).into_iter().flatten().flatten().map(|entry| entry.path());
    let versions = versions.chain([home.target(&Target::Genesis)]);
    let ours = [home.root().to_owned(), home.dir(), home.state(), home.plans(), home.upgrades()];
    for dir in ours.into_iter().chain(versions.flat_map(|dir| [dir.join("bin"), dir])) {
        // Not through a link that leads out of the home.
        if fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir()) {
            rubbish.sweep(&dir);
        }
    }
    download::sweep(home);
    backup::sweep(home.backups(), None, &mut rubbish);
    rehearse::sweep(home, &mut rubbish);
    for path in restore::sweep(home, &mut rubbish) {
        log::warn!(
            "event=replaced_data_kept path={} a restore has replaced it; remove it when it is not needed any more",
            path.display()
        );
    }
    rubbish
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
        // Of a start that was killed before it had removed that.
        let aside = home.root().join(format!("..data.wemixvisor-restoring.{}-0.tmp", i32::MAX));
        fs::create_dir(&aside).unwrap();
        let rubbish = sweep(&home);
        assert!(!places[places.len() - 1].exists(), "its name is free before it is removed");
        assert!(aside.exists(), "a large one is not removed before the node starts");
        rubbish.remove();
        assert!(!aside.exists());
        for place in &places[..places.len() - 1] {
            assert!(!place.join(&temp).exists() && place.join("kept").exists(), "{}", place.display());
        }
        assert_eq!(fs::read_dir(home.backups()).unwrap().count(), 0);
        assert!(replaced.exists() && outside.path().join(&temp).exists());
    }
}
