//! Interference of other processes, and of a full disk, with a backup that is being made.

use super::*;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::process::Command;

/// Replaces `path` by something else.
type Turn = fn(&Path);

#[test]
fn what_turns_into_something_else_meanwhile_is_neither_followed_nor_waited_for() {
    let gone = |path: &Path| fs::rename(path, path.with_extension("away")).unwrap();
    let turns: [(&str, Turn); 4] = [
        ("geth/chaindata/000001.ldb", |path| symlink("/etc/passwd", path).unwrap()),
        ("geth/chaindata/000001.ldb", |path| mkfifoat(CWD, path, Mode::RWXU).unwrap()),
        ("geth/chaindata/000001.ldb", |path| fs::create_dir(path).unwrap()),
        // A directory on the way, with a file of the same name behind the link.
        ("geth/chaindata", |path| {
            let other = path.with_file_name("other");
            fs::create_dir(&other).unwrap();
            fs::write(other.join("000001.ldb"), "secret").unwrap();
            symlink(&other, path).unwrap();
        }),
    ];
    for (path, turn) in turns {
        let rig = Rig::new();
        let path = rig.path(path);
        let mut once = Some(turn);
        let mut meanwhile = |_, _| {
            if let Some(turn) = once.take() {
                gone(&path);
                turn(&path);
            }
        };
        let refused = rig.make_for("v2", &Cancel::new().unwrap(), &mut meanwhile).unwrap_err();
        assert!(refused.to_string().contains("changed while"), "{refused}");
        assert_eq!(rig.left_behind(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_running_node_may_do_all_that_while_its_backup_is_begun() {
    let rig = with_database();
    for i in 0..30 {
        rig.write(&format!("geth/chaindata/0002{i:02}.sst"), &"x".repeat(5000));
    }
    let options = Options { method: BackupMethod::Copy, rate: 1 << 40, ..Options::plain() };
    let (cancel, chaindata) = (Cancel::new().unwrap(), rig.path("geth/chaindata"));
    let mut draft = Draft::begin(&rig.home, &"v2".parse().unwrap()).unwrap();
    // Tables come and go all the time, and some names are used for something else.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..30 {
                let path = chaindata.join(format!("0002{i:02}.sst"));
                fs::remove_file(&path).unwrap();
                match i % 3 {
                    0 => symlink("/etc/passwd", &path).unwrap(),
                    1 => mkfifoat(CWD, &path, Mode::RWXU).unwrap(),
                    _ => fs::write(chaindata.join(format!("0003{i:02}.sst")), "new").unwrap(),
                }
            }
        });
        for _ in 0..5 {
            let progress = &mut |_, _| {};
            let mut work =
                Work { home: &rig.home, options: &options, background: true, cancel: &cancel, progress };
            // A link that leads out of the data is no reason to fail before it is seen.
            if let Err(e) = draft.go_ahead(&mut work) {
                assert!(e.to_string().contains("leads out of it"), "{e}");
            }
        }
    });
    for i in (0..30).filter(|i| i % 3 == 0) {
        fs::remove_file(chaindata.join(format!("0002{i:02}.sst"))).unwrap();
    }
    let backup = rig.with(&options, |work| make(work, &purpose("v2"), Some(draft))).unwrap();
    equals_data(&rig, &backup);
    rig.verify(&backup).unwrap();
}

/// A file system of its own, of a size; None where we may not mount.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of_mib(size: u64) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}M"), "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|out| out.status.success());
        mounted.then_some(Disk(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_that_is_full_at_any_megabyte_leaves_no_backup_and_the_one_before_it() {
    let Some(disk) = Disk::of_mib(100) else { return };
    let rig = Rig::new();
    rig.write("geth/chaindata/more", &"y".repeat(5 << 20));
    let home = rig.home.clone().with_backups(disk.0.path().join("backups"));
    let first = make_in(&home, "v1", &Cancel::new().unwrap(), &mut |_, _| {}).unwrap();
    let filler = disk.0.path().join("filler");
    let megabytes = first.manifest.bytes >> 20;
    assert_eq!(megabytes, 8);
    let mut refused = Vec::new();
    for full_at in 1..=megabytes {
        // A child of another test may hold a file that is gone until it executes its program.
        while crate::home::space::free(disk.0.path()).unwrap() < 80 << 20 {
            std::thread::yield_now();
        }
        let mut fill = |done: u64, _| {
            if done >> 20 >= full_at && !filler.exists() {
                // As much as there is.
                let _ = fs::write(&filler, vec![1; 100 << 20]);
            }
        };
        let made = make_in(&home, "v2", &Cancel::new().unwrap(), &mut fill);
        // Progress may be reported for the last megabyte only when everything is copied.
        let was_filled = fs::remove_file(&filler).is_ok();
        assert!(was_filled, "{full_at}: {made:?}");
        match made {
            Ok(backup) => {
                verify_in(&home, &backup).unwrap();
                super::super::keep::remove(&home, &backup.name).unwrap();
            }
            Err(e) => {
                assert!(e.to_string().contains("No space left"), "{full_at}: {e}");
                refused.push(full_at);
            }
        }
        assert_eq!(list(&home).unwrap(), std::slice::from_ref(&first), "{full_at}");
        assert_eq!(fs::read_dir(home.backups()).unwrap().count(), 1, "{full_at}");
    }
    // At the last megabyte a page that is left may be enough for the manifest.
    assert!((1..megabytes).all(|full_at| refused.contains(&full_at)), "{refused:?}");
}
