//! Backups of small data directories, and everything that must not end up in one.

mod hostile;

use super::*;
use crate::digest::Digest;
use crate::upgrade::Cancel;
use std::ffi::OsStr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

struct Rig {
    dir: tempfile::TempDir,
    home: Home,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let rig = Rig { dir, home };
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
        self.make_for("v2", &Cancel::new().unwrap(), &mut |_, _| {})
    }

    fn make_for(&self, name: &str, cancel: &Cancel, progress: &mut dyn FnMut(u64, u64)) -> Result<Backup> {
        make_in(&self.home, name, cancel, progress)
    }

    /// Does work with these options, and as several threads do it.
    fn with<T>(&self, options: &Options, job: impl FnOnce(&mut Work<'_>) -> T) -> T {
        let (cancel, progress) = (Cancel::new().unwrap(), &mut |_, _| {});
        job(&mut Work { home: &self.home, options, background: false, cancel: &cancel, progress })
    }

    fn make_by(&self, method: BackupMethod) -> Backup {
        let options = Options { method, workers: 3, ..Options::plain() };
        self.with(&options, |work| make(work, &purpose("v2"), None)).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.data().join(path)
    }

    fn verify(&self, backup: &Backup) -> Result<()> {
        verify_in(&self.home, backup)
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        walk(self.home.backups(), &|_| true).unwrap().into_iter().map(|i| i.path).collect()
    }
}

fn verify_in(home: &Home, backup: &Backup) -> Result<()> {
    let (options, cancel) = (Options::plain(), Cancel::new().unwrap());
    let progress = &mut |_, _| {};
    verify(&mut Work { home, options: &options, background: false, cancel: &cancel, progress }, backup)
}

fn purpose(name: &str) -> Purpose {
    Purpose { name: name.parse().unwrap(), made_by: MadeBy::Upgrade, head: None, node: None }
}

fn make_in(home: &Home, name: &str, cancel: &Cancel, progress: &mut dyn FnMut(u64, u64)) -> Result<Backup> {
    let options = Options::plain();
    make(&mut Work { home, options: &options, background: false, cancel, progress }, &purpose(name), None)
}

#[test]
fn a_backup_holds_everything_but_keys_locks_and_sockets() {
    let rig = Rig::new();
    let _socket = UnixListener::bind(rig.home.data().join("node.ipc")).unwrap();
    let mut told = Vec::new();
    let backup =
        rig.make_for("v2", &Cancel::new().unwrap(), &mut |done, all| told.push((done, all))).unwrap();
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
    let backup = rig.with(&Options::plain(), |work| complete(work, rig.make().unwrap())).unwrap();
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
fn a_file_that_is_removed_meanwhile_is_left_out() {
    let rig = Rig::new();
    let (file, dir) = (rig.path("zz.tmp"), rig.path("zz.dir"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    fs::write(&file, "").unwrap();
    let mut remove = |_, _| {
        let _ = (fs::remove_file(&file), fs::remove_dir_all(&dir));
    };
    let backup = rig.make_for("v2", &Cancel::new().unwrap(), &mut remove).unwrap();
    assert!(
        !backup
            .manifest
            .entries
            .iter()
            .any(|entry| entry.path.starts_with("zz.tmp") || entry.path.contains("file"))
    );
    rig.verify(&backup).unwrap();
}

#[test]
fn a_backup_that_fails_or_is_cancelled_leaves_nothing() {
    let rig = Rig::new();
    let cancel = Cancel::new().unwrap();
    let err = rig.make_for("v2", &cancel, &mut |_, _| cancel.cancel()).unwrap_err();
    assert!(err.to_string().contains("cancelled"), "{err}");
    assert_eq!(rig.left_behind(), [] as [PathBuf; 0]);
    let data = rig.home.data().to_owned();
    let mut grow = |done, _| {
        if done == 1024 * 1024 {
            fs::write(data.join("big"), "short").unwrap();
        }
    };
    let err = rig.make_for("v2", &Cancel::new().unwrap(), &mut grow).unwrap_err();
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
    let _claim = claim_dir(&rig.home.backups().join(&live), Claim::Alone).unwrap().unwrap();
    assert_eq!(list(&rig.home).unwrap(), [backup]);
    check(&rig.home, &Options::plain()).unwrap();
    let kept = |name: &str| rig.home.backups().join(name).exists();
    assert!(!kept(&dead) && kept(&live) && kept("something else"));
}

#[test]
fn what_cannot_be_backed_up_is_said_before_the_node_is_stopped() {
    let refused = |_: &Rig, home: &Home, part: &str| {
        let err = check(home, &Options::plain()).unwrap_err();
        assert!(err.kind() == Kind::Config && err.to_string().contains(part), "{err}");
        make_in(home, "v2", &Cancel::new().unwrap(), &mut |_, _| {}).unwrap_err();
    };
    let rig = Rig::new();
    refused(&rig, &rig.home.clone().with_data(rig.dir.path().join("gone")), "daemon_data_dir");
    refused(
        &rig,
        &rig.home.clone().with_backups(rig.home.data().join("geth/b")),
        "inside the data directory",
    );
    assert!(!rig.home.data().join("geth/b").exists(), "it is refused before it is made");
    let rig = Rig::new();
    let inside = format!("{}/geth", fs::canonicalize(rig.home.data()).unwrap().display());
    for (text, why) in
        [("/etc", "leads out of it"), ("../../..", "leads out of it"), (&inside, "make it a relative one")]
    {
        symlink(text, rig.home.data().join("ancient/link")).unwrap();
        refused(&rig, &rig.home, why);
        fs::remove_file(rig.home.data().join("ancient/link")).unwrap();
    }
    symlink("gone", rig.home.data().join("ancient/link")).unwrap();
    check(&rig.home, &Options::plain()).unwrap();
    // No manifest can hold these.
    let odd = OsStr::from_bytes(b"odd-\xff");
    fs::write(rig.path("ancient").join(odd), "").unwrap();
    refused(&rig, &rig.home, "not UTF-8");
    let without = Options { left_out: LeftOut::new(&["odd-*".to_owned()]), ..Options::plain() };
    check(&rig.home, &without).unwrap();
    fs::remove_file(rig.path("ancient").join(odd)).unwrap();
    symlink(odd, rig.path("ancient/odd")).unwrap();
    refused(&rig, &rig.home, "not UTF-8");
}

#[test]
fn what_cannot_be_read_is_said_before_the_node_is_stopped() {
    let rig = Rig::new();
    fs::set_permissions(rig.path("big"), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(rig.path("big")).is_ok() {
        // Root reads everything.
        return;
    }
    let refused = check(&rig.home, &Options::plain()).unwrap_err();
    assert!(refused.kind() == Kind::Permission && refused.to_string().contains("data/big"), "{refused}");
    let without = Options { left_out: LeftOut::new(&["big".to_owned()]), ..Options::plain() };
    check(&rig.home, &without).unwrap();
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
    let shown = list_all(&rig.home).unwrap();
    assert_eq!((shown.len(), shown[0].manifest.state()), (1, State::Damaged));
    assert_eq!(
        outdated(&shown, &Options { keep: 1, ..Options::plain() }, &[], SystemTime::now()),
        [] as [&str; 0]
    );
    remove_named(&rig.home, std::slice::from_ref(&backup.name), None).unwrap();
    // A file is none.
    fs::write(rig.home.backups().join("notes"), "x").unwrap();
    assert_eq!(list_all(&rig.home).unwrap(), []);
    for name in ["", "..", "../backups", "gone", ".hidden", "notes"] {
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
    let v3 = rig.make_for("v3", &Cancel::new().unwrap(), &mut |_, _| {}).unwrap();
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

#[test]
fn the_operator_gets_a_new_backup_each_time_and_an_upgrade_none_of_another_kind() {
    let rig = with_database();
    let of_upgrade = rig.make_by(BackupMethod::Hardlink);
    let by_operator = || {
        let purpose = Purpose { made_by: MadeBy::Operator, ..purpose("v2") };
        rig.with(&Options::plain(), |work| make(work, &purpose, None)).unwrap()
    };
    let (first, second) = (by_operator(), by_operator());
    assert!(first.name != of_upgrade.name && first.name != second.name);
    assert_eq!((first.manifest.made_by, second.manifest.made_by), (MadeBy::Operator, MadeBy::Operator));
    assert_eq!(
        rig.make_by(BackupMethod::Hardlink).name,
        of_upgrade.name,
        "that of the operator is not its own"
    );
    let copied = rig.make_by(BackupMethod::Copy);
    assert!(copied.name != of_upgrade.name && copied.manifest.share(Method::Hardlink).files == 0);
    let left_out = LeftOut::new(&["*.pem".to_owned()]);
    let without = Options { left_out, ..Options::plain() };
    let without = rig.with(&without, |work| make(work, &purpose("v2"), None)).unwrap();
    assert_eq!(without.manifest.left_out, ["*.pem"]);
}

/// A rig whose data has a database with tables that are immutable by name, ancient data, and files of odd kinds.
fn with_database() -> Rig {
    let rig = Rig::new();
    for (path, text) in [
        ("geth/chaindata/MANIFEST-000001", "tables"),
        ("geth/chaindata/000002.sst", "table"),
        ("geth/chaindata/000003.log", "log"),
        ("geth/chaindata/ancient/bodies.0000.cdat", "old bodies"),
        ("geth/chaindata/ancient/bodies.0001.cdat", "newer bodies"),
        ("geth/chaindata/ancient/bodies.0002.cdat", "bodies"),
    ] {
        rig.write(path, text);
    }
    rig
}

fn method_of(backup: &Backup, path: &str) -> Method {
    match backup.manifest.entries.iter().find(|entry| entry.path == path).map(|entry| &entry.content) {
        Some(Content::File { method, .. }) => *method,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn only_what_is_never_written_again_is_linked_and_only_if_that_is_wanted() {
    let rig = with_database();
    let linked =
        ["geth/chaindata/000001.ldb", "geth/chaindata/000002.sst", "geth/chaindata/ancient/bodies.0000.cdat"];
    let backup = rig.make_by(BackupMethod::Hardlink);
    for entry in backup.manifest.entries.iter().filter(|entry| matches!(entry.content, Content::File { .. }))
    {
        let is_linked = linked.contains(&&*entry.path);
        let inode = |root: &Path| fs::metadata(root.join(&entry.path)).unwrap().ino();
        assert_eq!(inode(rig.home.data()) == inode(&backup.data(&rig.home)), is_linked, "{}", entry.path);
        assert_eq!(method_of(&backup, &entry.path) == Method::Hardlink, is_linked, "{}", entry.path);
    }
    assert_eq!(
        (backup.manifest.method(), backup.manifest.share(Method::Hardlink).files),
        ("hardlink+copy".into(), 3)
    );
    rig.verify(&backup).unwrap();
    // The names that a link takes away or adds do not make it other data.
    assert_eq!(rig.make_by(BackupMethod::Hardlink), backup);

    let rig = with_database();
    let copied = rig.make_by(BackupMethod::Copy);
    assert_eq!((copied.manifest.method(), copied.manifest.share(Method::Copy).files), ("copy".into(), 9));
    for path in linked {
        assert_eq!(fs::metadata(rig.path(path)).unwrap().nlink(), 1);
    }
}

#[test]
fn clones_that_are_wanted_and_impossible_are_refused_before_the_stop() {
    // No memory file system can clone.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let home = Rig::new().home.with_backups(memory.path().join("backups"));
    let rig = Rig::new();
    let home = home.with_data(rig.home.data());
    let options = Options { method: BackupMethod::Reflink, ..Options::plain() };
    let refused = check(&home, &options).unwrap_err();
    assert!(
        refused.kind() == Kind::Config && refused.to_string().contains("set daemon_backup_method to auto")
    );
    check(&home, &Options::plain()).unwrap();
    // Across file systems auto makes copies, of whatever kind.
    rig.write("geth/chaindata/MANIFEST-000001", "tables");
    let made = make_in(&home, "v2", &Cancel::new().unwrap(), &mut |_, _| {}).unwrap();
    assert_eq!(made.manifest.method(), "copy");
    verify_in(&home, &made).unwrap();
}

#[test]
fn holes_modes_times_and_attributes_are_kept_and_odd_files_are_left_out() {
    let rig = with_database();
    let sparse = File::create(rig.path("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 8 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, rig.path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let tagged = File::open(rig.path("big")).unwrap();
    // Not every file system has attributes.
    let is_tagged =
        rustix::fs::fsetxattr(&tagged, "user.note", b"kept", rustix::fs::XattrFlags::empty()).is_ok();
    fs::set_permissions(rig.path("big"), fs::Permissions::from_mode(0o640)).unwrap();
    let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::options().write(true).open(rig.path("big")).unwrap().set_modified(then).unwrap();
    File::open(rig.path("ancient")).unwrap().set_modified(then).unwrap();
    let backup = rig.make_by(BackupMethod::Copy);
    let copy = |path: &str| backup.data(&rig.home).join(path);
    let (meta, original) = (fs::metadata(copy("sparse")).unwrap(), fs::metadata(rig.path("sparse")).unwrap());
    assert_eq!((meta.len(), meta.blocks() <= original.blocks()), (64 << 20, true));
    assert_eq!(fs::read(copy("sparse")).unwrap(), fs::read(rig.path("sparse")).unwrap());
    let meta = fs::metadata(copy("big")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.modified().unwrap()), (0o640, then));
    assert_eq!(fs::metadata(copy("ancient")).unwrap().modified().unwrap(), then);
    if is_tagged {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(copy("big"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
    }
    assert!(!copy("pipe").exists());
}

#[test]
fn digests_come_later_and_until_then_a_backup_is_unverified() {
    let rig = with_database();
    let backup = rig.make().unwrap();
    assert_eq!(backup.manifest.state(), State::Unverified);
    let done =
        rig.with(&Options { workers: 3, ..Options::plain() }, |work| complete(work, backup.clone())).unwrap();
    assert_eq!(done.manifest.state(), State::Verified);
    assert_eq!(load(&rig.home, &backup.name).unwrap(), done);
    let digest = |backup: &Backup, path: &str| {
        backup.manifest.entries.iter().find_map(|entry| match &entry.content {
            Content::File { sha256, .. } if entry.path == path => *sha256,
            _ => None,
        })
    };
    assert_eq!(digest(&done, "geth/chaindata/000001.ldb"), Some(Digest::sha256(b"blocks")));
    // A file that was written to before its digest was known is noticed all the same, and never taken for good later.
    let rig = with_database();
    let backup = rig.make().unwrap();
    let file = backup.data(&rig.home).join("big");
    fs::write(&file, "x".repeat(3 << 20)).unwrap();
    let damaged = rig.with(&Options::plain(), |work| complete(work, backup.clone())).unwrap_err();
    assert!(damaged.kind() == Kind::Verification && damaged.to_string().contains("big"), "{damaged}");
    assert_eq!(load(&rig.home, &backup.name).unwrap().manifest.state(), State::Damaged);
    assert_ne!(rig.make().unwrap().name, backup.name);
}

#[test]
fn a_file_that_changes_while_digests_are_added_makes_the_backup_damaged() {
    let rig = with_database();
    let backup = rig.make().unwrap();
    let file = backup.data(&rig.home).join("big");
    let (options, cancel) = (Options::plain(), Cancel::new().unwrap());
    let mut once = Some("x".repeat(3 << 20));
    let progress = &mut |_, _| {
        if let Some(same_size) = once.take() {
            fs::write(&file, same_size.replace('x', "y")).unwrap();
        }
    };
    let mut work = Work { home: &rig.home, options: &options, background: false, cancel: &cancel, progress };
    let refused = complete(&mut work, backup.clone()).unwrap_err();
    assert!(refused.kind() == Kind::Verification && refused.to_string().contains("big"), "{refused}");
    assert_eq!(load(&rig.home, &backup.name).unwrap().manifest.state(), State::Damaged);
}

#[test]
fn damage_that_is_found_after_the_digests_is_recorded_and_stays() {
    let rig = with_database();
    let done = rig.with(&Options::plain(), |work| complete(work, rig.make().unwrap())).unwrap();
    fs::write(done.data(&rig.home).join("geth/chaindata/000001.ldb"), "blockz").unwrap();
    for _ in 0..2 {
        let now = load(&rig.home, &done.name).unwrap();
        let refused = rig.with(&Options::plain(), |work| complete(work, now)).unwrap_err();
        assert!(refused.kind() == Kind::Verification && refused.to_string().contains("000001"), "{refused}");
        assert_eq!(load(&rig.home, &done.name).unwrap().manifest.state(), State::Damaged);
    }
}

#[test]
fn a_manifest_of_the_first_version_is_still_good() {
    let text = r#"{"version":1,"upgrade":"v2","time":"2026-03-01T12:00:00.000Z","source":"/d","bytes":6,"entries":[
        {"path":"d","mode":493,"kind":"dir"},
        {"path":"d/f","mode":420,"kind":"copy","size":6,"sha256":"sha256:DIGEST"}]}"#;
    let text = text.replace("DIGEST", &Digest::sha256(b"blocks").hex());
    let rig = Rig::new();
    let dir = rig.home.backups().join("v2-old");
    fs::create_dir_all(dir.join("data/d")).unwrap();
    fs::write(dir.join("data/d/f"), "blocks").unwrap();
    fs::write(dir.join(MANIFEST), text).unwrap();
    let backup = load(&rig.home, "v2-old").unwrap();
    assert_eq!((backup.manifest.state(), backup.manifest.method()), (State::Verified, "copy".to_owned()));
    rig.verify(&backup).unwrap();
}

/// Every file of a backup is as it is in the data.
fn equals_data(rig: &Rig, backup: &Backup) {
    for item in walk(rig.home.data(), &|path| LeftOut::default().is_copied(path)).unwrap() {
        if item.kind == ItemKind::File {
            let read = |root: &Path| fs::read(root.join(&item.path)).unwrap();
            assert_eq!(read(rig.home.data()), read(&backup.data(&rig.home)), "{}", item.path.display());
        }
    }
}

#[test]
fn what_was_copied_ahead_is_not_copied_again_and_what_has_changed_since_is() {
    for method in [BackupMethod::Copy, BackupMethod::Hardlink] {
        let rig = with_database();
        let options = Options { method, ..Options::plain() };
        let mut draft = Draft::begin(&rig.home, &"v2".parse().unwrap()).unwrap();
        rig.with(&options, |work| draft.go_ahead(work)).unwrap();
        let ahead: Vec<_> = draft.building.entries().unwrap().into_iter().map(|entry| entry.path).collect();
        assert!(
            ahead.contains(&"geth/chaindata/000002.sst".to_owned()) && !ahead.contains(&"big".to_owned())
        );
        // The node goes on: it removes a table, makes another one, appends to the newest bodies, and begins new ones.
        fs::remove_file(rig.path("geth/chaindata/000002.sst")).unwrap();
        rig.write("geth/chaindata/000004.sst", "another table");
        let grow = |path: &str, text: &str| {
            let file = File::options().append(true).open(rig.path(path)).unwrap();
            (&file).write_all(text.as_bytes()).unwrap();
        };
        grow("geth/chaindata/ancient/bodies.0002.cdat", " and more");
        grow("geth/chaindata/000003.log", " and more");
        rig.write("geth/chaindata/ancient/bodies.0003.cdat", "newest");
        let mut carried = 0;
        let cancel = Cancel::new().unwrap();
        let mut progress = |done, _| carried = done;
        let mut work = Work {
            home: &rig.home,
            options: &options,
            background: false,
            cancel: &cancel,
            progress: &mut progress,
        };
        let backup = make(&mut work, &purpose("v2"), Some(draft)).unwrap();
        equals_data(&rig, &backup);
        rig.verify(&backup).unwrap();
        assert!(!backup.data(&rig.home).join("geth/chaindata/000002.sst").exists());
        let all: u64 = backup.manifest.bytes;
        assert!(carried < all, "{carried} of {all}");
        assert_eq!(
            rig.left_behind().iter().filter(|path| path.starts_with(&backup.name)).count(),
            rig.left_behind().len()
        );
    }
}

#[test]
fn what_was_not_only_appended_to_is_copied_as_a_whole() {
    let rig = with_database();
    let options = Options { method: BackupMethod::Copy, ..Options::plain() };
    let bodies = "geth/chaindata/ancient/bodies.0002.cdat";
    let mut draft = Draft::begin(&rig.home, &"v2".parse().unwrap()).unwrap();
    rig.with(&options, |work| draft.go_ahead(work)).unwrap();
    // Cut, and written anew beyond its former end, as after a reorganisation.
    let file = File::options().write(true).open(rig.path(bodies)).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(b"others, and longer", 0).unwrap();
    let backup = rig.with(&options, |work| make(work, &purpose("v2"), Some(draft))).unwrap();
    equals_data(&rig, &backup);
}

#[test]
fn a_file_that_was_linked_ahead_is_copied_once_the_node_may_write_to_it() {
    let rig = with_database();
    let options = Options { method: BackupMethod::Hardlink, ..Options::plain() };
    let bodies = |number: u32| format!("geth/chaindata/ancient/bodies.000{number}.cdat");
    let mut draft = Draft::begin(&rig.home, &"v2".parse().unwrap()).unwrap();
    rig.with(&options, |work| draft.go_ahead(work)).unwrap();
    // The node takes its ancient data back to the end of the first file, which it appends to from then on.
    (1..3).for_each(|number| fs::remove_file(rig.path(&bodies(number))).unwrap());
    let backup = rig.with(&options, |work| make(work, &purpose("v2"), Some(draft))).unwrap();
    assert_eq!(method_of(&backup, &bodies(0)), Method::Copy);
    rig.write(&bodies(0), "old bodies and others");
    rig.verify(&backup).unwrap();
}

#[test]
fn a_draft_that_was_cancelled_is_taken_up_or_leaves_nothing() {
    let rig = with_database();
    for i in 0..20 {
        rig.write(&format!("geth/chaindata/0001{i:02}.sst"), &"x".repeat(100_000));
    }
    let options = Options { method: BackupMethod::Copy, workers: 2, ..Options::plain() };
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let mut draft = Draft::begin(&rig.home, &"v2".parse().unwrap()).unwrap();
    let progress = &mut |_, _| {};
    let mut work = Work { home: &rig.home, options: &options, background: true, cancel: &cancel, progress };
    draft.go_ahead(&mut work).unwrap_err();
    let backup = rig.with(&options, |work| make(work, &purpose("v2"), Some(draft))).unwrap();
    equals_data(&rig, &backup);
    let draft = Draft::begin(&rig.home, &"v3".parse().unwrap()).unwrap();
    draft.remove();
    assert!(rig.left_behind().iter().all(|path| path.starts_with(&backup.name)));
}
