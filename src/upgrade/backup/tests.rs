//! Backups of small data directories, and everything that must not end up in one.

use super::*;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

struct Rig {
    dir: tempfile::TempDir,
    home: Home,
    name: Name,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let rig = Rig { dir, home, name: "v2".parse().unwrap() };
        for (path, text) in [
            ("geth/chaindata/000001.ldb", "blocks"),
            ("geth/chaindata/LOCK", ""),
            ("geth/LOCK", ""),
            ("geth/nodekey", "secret"),
            ("geth/jwtsecret", "secret"),
            ("keystore/UTC--1", "secret"),
            ("big", &"x".repeat(3 * 1024 * 1024)),
            ("empty", ""),
        ] {
            rig.write(path, text);
        }
        fs::create_dir(rig.home.data().join("ancient")).unwrap();
        symlink("000001.ldb", rig.home.data().join("geth/chaindata/CURRENT")).unwrap();
        rig
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.home.data().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn make(&self) -> Result<Backup> {
        make(&self.home, &self.name, &Cancel::new().unwrap(), &mut |_, _| {})
    }

    fn verify(&self, backup: &Backup) -> Result<()> {
        verify(&self.home, backup, &Cancel::new().unwrap())
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        walk(self.home.backups(), &|_| true).unwrap().into_iter().map(|i| i.path).collect()
    }
}

#[test]
fn a_backup_holds_everything_but_keys_locks_and_sockets() {
    let rig = Rig::new();
    let _socket = UnixListener::bind(rig.home.data().join("node.ipc")).unwrap();
    let mut told = Vec::new();
    let backup =
        make(&rig.home, &rig.name, &Cancel::new().unwrap(), &mut |done, all| told.push((done, all))).unwrap();
    let paths: Vec<_> = backup.manifest.entries.iter().map(|e| &*e.path).collect();
    let expected = [
        "ancient",
        "big",
        "empty",
        "geth",
        "geth/chaindata",
        "geth/chaindata/000001.ldb",
        "geth/chaindata/CURRENT",
    ];
    assert_eq!(paths, expected);
    let data = backup.data(&rig.home);
    assert_eq!(fs::read(data.join("geth/chaindata/000001.ldb")).unwrap(), b"blocks");
    assert_eq!(fs::read_link(data.join("geth/chaindata/CURRENT")).unwrap(), Path::new("000001.ldb"));
    assert_eq!(walk(&data, &|_| true).unwrap().len(), expected.len());
    assert!(
        told.len() >= 4 && told.last() == Some(&(backup.manifest.bytes, backup.manifest.bytes)),
        "{told:?}"
    );
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    rig.verify(&backup).unwrap();
    assert_eq!(list(&rig.home).unwrap(), std::slice::from_ref(&backup));
    assert_eq!(load(&rig.home, &backup.name).unwrap(), backup);
}

#[test]
fn any_change_to_a_backup_is_found() {
    let rig = Rig::new();
    let backup = rig.make().unwrap();
    let data = backup.data(&rig.home);
    let file = data.join("geth/chaindata/000001.ldb");
    let damaged = |part: &str| {
        let err = rig.verify(&backup).unwrap_err();
        assert!(err.kind() == Kind::Verification && err.to_string().contains(part), "{err}");
    };
    fs::write(&file, "blockz").unwrap();
    damaged("content");
    fs::write(&file, "block").unwrap();
    damaged("size");
    fs::remove_file(&file).unwrap();
    damaged("missing");
    fs::write(&file, "blocks").unwrap();
    rig.verify(&backup).unwrap();
    fs::write(data.join("more"), "").unwrap();
    damaged("does not know");
    fs::remove_file(data.join("more")).unwrap();
    fs::remove_file(data.join("geth/chaindata/CURRENT")).unwrap();
    symlink("/etc/passwd", data.join("geth/chaindata/CURRENT")).unwrap();
    damaged("target");
}

#[test]
fn what_somebody_removes_meanwhile_is_left_out() {
    let rig = Rig::new();
    let (file, link) = (rig.home.data().join("zz.tmp"), rig.home.data().join("zz.link"));
    fs::write(&file, "").unwrap();
    symlink("zz.tmp", &link).unwrap();
    let mut remove = |_, _| [&file, &link].into_iter().for_each(|path| drop(fs::remove_file(path)));
    let backup = make(&rig.home, &rig.name, &Cancel::new().unwrap(), &mut remove).unwrap();
    assert!(!backup.manifest.entries.iter().any(|entry| entry.path.starts_with("zz")), "{backup:?}");
    rig.verify(&backup).unwrap();
}

#[test]
fn a_backup_that_fails_or_is_cancelled_leaves_nothing() {
    let rig = Rig::new();
    let cancel = Cancel::new().unwrap();
    let err = make(&rig.home, &rig.name, &cancel, &mut |_, _| cancel.cancel()).unwrap_err();
    assert!(err.to_string().contains("cancelled"), "{err}");
    assert_eq!(rig.left_behind(), [] as [PathBuf; 0]);
    let data = rig.home.data().to_owned();
    let mut grow = |done, _| {
        if done == 1024 * 1024 {
            fs::write(data.join("big"), "short").unwrap();
        }
    };
    let err = make(&rig.home, &rig.name, &Cancel::new().unwrap(), &mut grow).unwrap_err();
    assert!(err.to_string().contains("changed while"), "{err}");
    assert_eq!(rig.left_behind(), [] as [PathBuf; 0]);
}

#[test]
fn what_a_crash_left_is_no_backup_and_is_swept_unless_it_is_being_made() {
    let rig = Rig::new();
    let backup = rig.make().unwrap();
    let (dead, live) = ([PARTIAL, "v1-dead"].concat(), [PARTIAL, "v1-live"].concat());
    for name in [&dead, &live] {
        fs::create_dir_all(rig.home.backups().join(name).join(DATA)).unwrap();
    }
    fs::create_dir(rig.home.backups().join("something else")).unwrap();
    let _claim = claim_dir(&rig.home.backups().join(&live)).unwrap().unwrap();
    assert_eq!(list(&rig.home).unwrap(), [backup]);
    check(&rig.home).unwrap();
    let kept = |name: &str| rig.home.backups().join(name).exists();
    assert!(!kept(&dead) && kept(&live) && kept("something else"));
}

#[test]
fn what_cannot_be_backed_up_is_said_before_the_node_is_stopped() {
    let refused = |rig: &Rig, home: &Home, part: &str| {
        let err = check(home).unwrap_err();
        assert!(err.kind() == Kind::Config && err.to_string().contains(part), "{err}");
        assert!(make(home, &rig.name, &Cancel::new().unwrap(), &mut |_, _| {}).is_err());
    };
    let rig = Rig::new();
    refused(&rig, &rig.home.clone().with_data(rig.dir.path().join("gone")), "daemon_data_dir");
    refused(
        &rig,
        &rig.home.clone().with_backups(rig.home.data().join("geth/b")),
        "inside the data directory",
    );
    let rig = Rig::new();
    for text in ["/etc", "../../..", &format!("{}/geth", rig.home.data().display())] {
        symlink(text, rig.home.data().join("ancient/link")).unwrap();
        refused(&rig, &rig.home, "leads out of it");
        fs::remove_file(rig.home.data().join("ancient/link")).unwrap();
    }
    symlink("gone", rig.home.data().join("ancient/link")).unwrap();
    check(&rig.home).unwrap();
}

#[test]
fn too_little_space_names_both_numbers() {
    let rig = Rig::new();
    File::create(rig.home.data().join("huge")).unwrap().set_len(1 << 42).unwrap();
    let err = check(&rig.home).unwrap_err().to_string();
    assert!(err.contains("it needs 41943") && err.contains("MiB are available"), "{err}");
}

#[test]
fn a_manifest_that_leads_out_or_names_keys_is_refused() {
    let rig = Rig::new();
    let backup = rig.make().unwrap();
    for path in ["../x", "/etc/x", "keystore/x"] {
        let mut manifest = backup.manifest.clone();
        manifest.entries[0].path = path.to_owned();
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(rig.home.backups().join(&backup.name).join(MANIFEST), text).unwrap();
        assert_eq!(load(&rig.home, &backup.name).unwrap_err().kind(), Kind::BadInput);
    }
    assert_eq!(list(&rig.home).unwrap(), []);
    for name in ["", "..", "../backups", "gone", ".hidden"] {
        assert_eq!(load(&rig.home, name).unwrap_err().kind(), Kind::NotFound, "{name:?}");
    }
}

#[test]
fn a_redo_finds_the_finished_backup_of_unchanged_data_and_only_that() {
    let rig = Rig::new();
    let first = rig.make().unwrap();
    // The supervisor was killed before it recorded the end.
    assert_eq!(rig.make().unwrap(), first);
    assert_eq!(list(&rig.home).unwrap(), std::slice::from_ref(&first));
    // That of another upgrade does not count.
    let v3 = make(&rig.home, &"v3".parse().unwrap(), &Cancel::new().unwrap(), &mut |_, _| {}).unwrap();
    assert_ne!(v3.name, first.name);
    // Same size, and the time put back.
    let path = rig.home.data().join("geth/chaindata/000001.ldb");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "blockz").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let second = rig.make().unwrap();
    assert_ne!(second.name, first.name);
    rig.verify(&second).unwrap();
}
