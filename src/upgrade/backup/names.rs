//! Properties of a file that its name shows: whether it is a key, and whether the node ever writes to it again.
//!
//! Only names count, and only those that databases are known by: a file that is taken for immutable and is not would
//! make a backup change behind our back. So whatever is not in the table is copied while the node is down.

use crate::home::glob::matches;
use crate::home::tree::Item;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Names that are never copied: the keys of a node, and a lock, which belongs to a process.
const KEYS: [&str; 3] = ["nodekey", "keystore", "jwtsecret"];
const LOCK: &str = "LOCK";

/// The files and directories of the data that are left out of backups, and stay as they are when one is restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut(Vec<String>);

impl LeftOut {
    /// The keys of a node, and what matches these patterns. A pattern without a slash is one of a name anywhere in the
    /// data; any other is one of a path below the data directory.
    pub fn new(patterns: &[String]) -> Self {
        LeftOut(patterns.iter().map(|pattern| pattern.trim_matches('/').to_owned()).collect())
    }

    /// The patterns, beside the keys that every node has.
    pub(super) fn patterns(&self) -> &[String] {
        &self.0
    }

    /// These patterns and `others`, those of a manifest.
    pub(in crate::upgrade) fn and(&self, others: &[String]) -> LeftOut {
        LeftOut(self.0.iter().chain(others).cloned().collect())
    }

    /// Whether a path below the data directory is a key, or is in a directory of keys.
    pub fn is_key(&self, path: &Path) -> bool {
        is_key(path) || self.0.iter().any(|pattern| is_at(pattern, path))
    }

    /// Whether it is copied.
    pub(super) fn is_copied(&self, path: &Path) -> bool {
        !path.ends_with(LOCK) && !self.is_key(path)
    }
}

/// Whether a path below the data directory is one of the keys that every node has.
pub fn is_key(path: &Path) -> bool {
    path.components().any(|part| KEYS.iter().any(|key| part.as_os_str() == *key))
}

fn is_at(pattern: &str, path: &Path) -> bool {
    let fits = |name: &OsStr, pattern: &OsStr| matches(name.as_bytes(), pattern.as_bytes());
    if !pattern.contains('/') {
        return path.iter().any(|name| fits(name, OsStr::new(pattern)));
    }
    let mut names = path.iter();
    Path::new(pattern).iter().all(|part| names.next().is_some_and(|name| fits(name, part)))
}

/// How the node treats a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It is written once and then only removed.
    Immutable,
    /// It is only appended to.
    Grows,
    /// It may be written anywhere.
    Other,
}

/// The databases in a tree, by their names.
#[derive(Debug, Default)]
pub(in crate::upgrade) struct Names {
    /// Directories of a LevelDB, Pebble or RocksDB: each has a manifest.
    databases: BTreeSet<PathBuf>,
    /// The highest number of each table of ancient data.
    highest: BTreeMap<(PathBuf, Vec<u8>), u32>,
}

impl Names {
    pub(super) fn of<'i>(paths: impl Iterator<Item = &'i Path>) -> Self {
        let mut names = Names::default();
        for path in paths {
            let dir = path.parent().unwrap_or(Path::new("")).to_owned();
            let name = path.file_name().unwrap_or_default().as_bytes();
            if name.starts_with(b"MANIFEST-") {
                names.databases.insert(dir);
            } else if let Some((table, number)) = ancient(name) {
                let highest = names.highest.entry((dir, table)).or_default();
                *highest = number.max(*highest);
            }
        }
        names
    }

    pub(in crate::upgrade) fn of_items(items: &[Item]) -> Self {
        Names::of(items.iter().map(|item| &*item.path))
    }

    pub(in crate::upgrade) fn is_immutable(&self, path: &Path) -> bool {
        self.class(path) == Class::Immutable
    }

    /// The table, by kind of database: sorted tables of LevelDB, Pebble and RocksDB are written once. Of the ancient
    /// data of geth (`bodies.0012.cdat` with its index `bodies.cidx`) the file with the highest number grows. The one
    /// before it is cut and grows again, in place, where a repair after a crash takes back the little that a new file has.
    pub(super) fn class(&self, path: &Path) -> Class {
        let dir = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name.ends_with(b".sst") || name.ends_with(b".ldb") {
            return if self.databases.contains(dir) { Class::Immutable } else { Class::Other };
        }
        if let Some((table, number)) = ancient(name) {
            let highest = self.highest.get(&(dir.to_owned(), table)).copied().unwrap_or(0);
            let is_settled = number.saturating_add(1) < highest;
            return if is_settled { Class::Immutable } else { Class::Grows };
        }
        if name.ends_with(b".cidx") || name.ends_with(b".ridx") { Class::Grows } else { Class::Other }
    }
}

/// The table and number of a file of ancient data, compressed (`cdat`) or raw (`rdat`).
fn ancient(name: &[u8]) -> Option<(Vec<u8>, u32)> {
    let text = str::from_utf8(name).ok()?;
    let (stem, kind) = text.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "cdat" | "rdat"))?;
    let (table, number) = stem.rsplit_once('.')?;
    let digits = number.len() >= 4 && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits && !table.is_empty())?;
    Some((format!("{table}.{kind}").into_bytes(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_what_is_immutable_by_name() {
        let tree = [
            "geth/chaindata/000001.sst",
            "geth/chaindata/MANIFEST-000001",
            "geth/chaindata/000002.log",
            "geth/chaindata/ancient/chain/bodies.0000.cdat",
            "geth/chaindata/ancient/chain/bodies.0002.cdat",
            "geth/chaindata/ancient/chain/hashes.0000.rdat",
            "geth/chaindata/ancient/chain/bodies.cidx",
            "geth/nodes/000001.ldb",
            "geth/nodes/MANIFEST-000000",
            "photos/000001.sst",
            "geth/chaindata/ancient/chain/bodies.0001.cdat",
        ];
        let names = Names::of(tree.iter().map(Path::new));
        let class = |path: &str| names.class(Path::new(path));
        for path in [tree[0], tree[3], tree[7]] {
            assert_eq!(class(path), Class::Immutable, "{path}");
        }
        for path in [tree[4], tree[5], tree[6], tree[10]] {
            assert_eq!(class(path), Class::Grows, "{path}");
        }
        // A write-ahead log may be used again from its beginning.
        for path in [tree[1], tree[2], tree[9], "x.12.cdat", ".0001.cdat", "0001.cdat", "a.0001.cdat.tmp"] {
            assert_eq!(class(path), Class::Other, "{path}");
        }
    }

    #[test]
    fn keys_are_left_out_by_name_and_by_pattern() {
        let left_out =
            LeftOut::new(&["*.pem".to_owned(), "/geth/private/*".to_owned(), "secrets/".to_owned()]);
        for key in [
            "geth/nodekey",
            "keystore/UTC--1",
            "geth/jwtsecret",
            "a/b.pem",
            "geth/private/x",
            "geth/private/x/y",
            "deep/secrets/z",
        ] {
            assert!(left_out.is_key(Path::new(key)), "{key}");
        }
        for data in ["geth/nodekeys", "geth/private", "x/geth/private/x", "b.pem.txt"] {
            assert!(!left_out.is_key(Path::new(data)), "{data}");
        }
        assert!(!left_out.is_copied(Path::new("geth/LOCK")) && left_out.is_copied(Path::new("geth/LOCKS")));
    }
}
