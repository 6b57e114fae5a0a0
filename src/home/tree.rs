//! The entries of a directory tree, without following links and in a fixed order.

use super::stamp::LastingStamp;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One entry of a tree.
#[derive(Debug)]
pub struct Item {
    /// The path below the root of the tree.
    pub path: PathBuf,
    /// Its type.
    pub kind: ItemKind,
    /// Its permission bits.
    pub mode: u32,
    /// Its length in bytes.
    pub len: u64,
    /// Changes with every write and every change of name or mode.
    pub stamp: LastingStamp,
}

/// The kinds of entries that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A regular file.
    File,
    /// A directory; what is in it follows.
    Dir,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Special,
}

/// Every entry below `root` that `wanted` (given its path below the root) lets pass, parents first, siblings
/// by name. What is in a directory that does not pass is left out too, and so is what goes away meanwhile.
///
/// # Errors
/// If a directory cannot be listed.
pub fn walk(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let full = root.join(&dir);
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound && full != root => continue,
            Err(e) => return Err(Error::io("list", &full, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", &full, e))?;
            let path = dir.join(entry.file_name());
            if wanted(&path) {
                // This is lstat(2).
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(Error::io("inspect", &entry.path(), e)),
                };
                open.extend(meta.is_dir().then(|| path.clone()));
                items.push(item(path, &meta));
            }
        }
    }
    // Paths compare by component, so this puts what is in a directory right behind it.
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(items)
}

/// A digest that changes with every change below the root of the tree. It is compared for equality only, so a clock
/// that was set does no harm.
#[must_use]
pub fn fingerprint(items: &[Item]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for item in items {
        let path = item.path.as_os_str().as_bytes();
        // A path has no NUL in it, so no two trees are written alike.
        hasher.update(path);
        hasher.update(format!("\0{:?} {} {:?}\n", item.kind, item.len, item.stamp).as_bytes());
    }
    hasher.finish()
}

fn item(path: PathBuf, meta: &Metadata) -> Item {
    let stamp = LastingStamp::from(meta);
    Item { path, kind: kind_of(meta.file_type()), mode: meta.mode() & 0o777, len: meta.len(), stamp }
}

fn kind_of(file_type: FileType) -> ItemKind {
    match file_type {
        t if t.is_file() => ItemKind::File,
        t if t.is_dir() => ItemKind::Dir,
        t if t.is_symlink() => ItemKind::Link,
        _ => ItemKind::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn parents_come_first_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir(root.join("out")).unwrap();
        for name in ["a", "b/c/x", "b/y", "b.d", "out/z"] {
            fs::write(root.join(name), name).unwrap();
        }
        symlink("b", root.join("link")).unwrap();
        let items = walk(root, &|path| path != Path::new("out")).unwrap();
        let paths: Vec<_> = items.iter().map(|i| i.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a", "b", "b/c", "b/c/x", "b/y", "b.d", "link"]);
        assert_eq!((items[3].kind, items[3].len, items[6].kind), (ItemKind::File, 5, ItemKind::Link));
    }
}
