//! Clones of directories that are laid out as those of nodes.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Case {
        let case = Case { dir: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            let path = case.from().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        case
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn to(&self) -> PathBuf {
        self.dir.path().join("clone")
    }

    fn make(&self) -> Result<Clone> {
        self.make_with(&Cancel::new().unwrap(), &mut |_, _| {})
    }

    fn make_with(&self, cancel: &Cancel, progress: &mut dyn FnMut(u64, u64)) -> Result<Clone> {
        make(Order { from: &self.from(), to: &self.to(), resident: 0, cancel, progress })
    }

    fn inodes(&self, path: &str) -> (u64, u64) {
        let inode = |root: PathBuf| fs::metadata(root.join(path)).unwrap().ino();
        (inode(self.from()), inode(self.to()))
    }
}

const PEBBLE: (&str, &str) = ("geth/chaindata/OPTIONS-000003", "[Version]\n  pebble_version=0.1\n");

#[test]
fn only_tables_of_pebble_are_shared() {
    let case = Case::new(&[
        PEBBLE,
        ("geth/chaindata/000001.sst", "table"),
        ("geth/chaindata/000002.log", "log"),
        ("geth/chaindata/ancient/chain/bodies.0000.cdat", "old"),
        ("geth/nodes/000001.ldb", "leveldb"),
        ("rocks/OPTIONS-000007", "rocksdb_version=8"),
        ("rocks/000001.sst", "rocksdb"),
    ]);
    let clone = case.make().unwrap();
    assert_eq!(clone.linked, [Path::new("geth/chaindata/000001.sst")]);
    let (ours, theirs) = case.inodes("geth/chaindata/000001.sst");
    assert_eq!(ours, theirs);
    for path in [
        "geth/chaindata/000002.log",
        "geth/chaindata/ancient/chain/bodies.0000.cdat",
        "geth/nodes/000001.ldb",
        "rocks/000001.sst",
    ] {
        let (ours, theirs) = case.inodes(path);
        assert_ne!(ours, theirs, "{path}");
        assert_eq!(fs::read(case.from().join(path)).unwrap(), fs::read(case.to().join(path)).unwrap());
    }
    let mode = fs::metadata(case.to().join("geth")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn keys_locks_and_sockets_stay_out() {
    let case = Case::new(&[
        ("geth/nodekey", "k"),
        ("geth/jwtsecret", "j"),
        ("keystore/UTC", "w"),
        ("geth/LOCK", ""),
        ("geth/chaindata/ancient/chain/FLOCK", ""),
        ("geth/x", "x"),
    ]);
    let _socket = std::os::unix::net::UnixListener::bind(case.from().join("geth.ipc")).unwrap();
    symlink("x", case.from().join("geth/link")).unwrap();
    case.make().unwrap();
    let paths: Vec<_> = walk(&case.to(), &|_| true).unwrap().into_iter().map(|item| item.path).collect();
    let expected = [
        "geth",
        "geth/chaindata",
        "geth/chaindata/ancient",
        "geth/chaindata/ancient/chain",
        "geth/link",
        "geth/x",
    ];
    assert_eq!(paths, expected.map(PathBuf::from));
}

#[test]
fn a_link_out_of_the_data_is_refused() {
    let case = Case::new(&[("x", "x")]);
    symlink("/etc", case.from().join("chaindata")).unwrap();
    let err = case.make().unwrap_err();
    assert_eq!(err.kind(), Kind::NotMet);
    assert!(err.to_string().contains("it leads to /etc"), "{err}");
}

#[test]
fn files_that_vanish_and_tables_that_appear_meanwhile_are_no_obstacle() {
    let case = Case::new(&[
        PEBBLE,
        ("geth/chaindata/000001.sst", "one"),
        ("geth/chaindata/000004.log", "log"),
        ("geth/chaindata/zzz", "vanishes"),
    ]);
    let dir = case.from().join("geth/chaindata");
    let mut meanwhile = |done: u64, _| {
        if done > 0 {
            let _ = fs::remove_file(dir.join("zzz"));
            fs::write(dir.join("000005.sst"), "two").unwrap();
        }
    };
    let clone = case.make_with(&Cancel::new().unwrap(), &mut meanwhile).unwrap();
    assert_eq!(clone.linked.len(), 2);
    assert_eq!(fs::read_to_string(case.to().join("geth/chaindata/000005.sst")).unwrap(), "two");
    assert!(!case.to().join("geth/chaindata/zzz").exists());
}

#[test]
fn a_cancelled_clone_ends() {
    let case = Case::new(&[("x", "x")]);
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    // A file system that clones has nothing to cancel.
    if let Err(e) = case.make_with(&cancel, &mut |_, _| {}) {
        assert_eq!(e.to_string(), "the rehearsal was cancelled");
    }
}

#[test]
fn a_rehearsal_that_needs_more_memory_than_there_is_copies_nothing() {
    let case = Case::new(&[("x", "x")]);
    let (cancel, mut progress) = (Cancel::new().unwrap(), |_, _| {});
    let order = Order {
        from: &case.from(),
        to: &case.to(),
        resident: 1 << 60,
        cancel: &cancel,
        progress: &mut progress,
    };
    assert_eq!(make(order).unwrap_err().kind(), Kind::NotMet);
    assert_eq!(walk(&case.to(), &|_| true).unwrap().len(), 0);
}
