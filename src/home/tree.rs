//! The entries of a directory tree, without following links and in a fixed order.

use super::beneath::Beneath;
use super::stamp::LastingStamp;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Doing as _, Error, Result};
use crate::sorted;
use rustix::fs::{Dir, FileType, Stat};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The path below the root of the tree.
    pub path: PathBuf,
    /// Its type.
    pub kind: ItemKind,
    /// Its permission bits.
    pub mode: u32,
    /// The bytes that it takes on the disk, fewer than its length where it has holes.
    pub allocated: u64,
    /// Its inode, length and times.
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

impl Item {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.stamp.len == 0
    }
}

/// Every entry below `root` that `wanted` (given its path below the root) lets pass, parents first, siblings
/// by name. What is in a directory that does not pass is left out too, and so is what goes away meanwhile.
///
/// # Errors
/// If a directory cannot be listed, or turns into a link meanwhile.
pub fn walk(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Item>> {
    let mut beneath = Beneath::new(root).doing("list", root)?;
    let mut items = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        match list(&mut beneath, &dir, wanted) {
            Ok(found) => {
                open.extend(found.iter().filter(|i| i.kind == ItemKind::Dir).map(|item| item.path.clone()));
                items.extend(found);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.as_os_str().is_empty() => {}
            Err(e) => return Err(Error::io("list", &root.join(&dir), e)),
        }
    }
    // Paths compare by component, so this puts what is in a directory right behind it.
    sorted::by(&mut items, |a, b| a.path.cmp(&b.path));
    Ok(items)
}

/// The entries of one directory.
fn list(beneath: &mut Beneath, dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Vec<Item>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(beneath.dir(dir)?)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let path = dir.join(name);
        if name == "." || name == ".." || !wanted(&path) {
            continue;
        }
        match beneath.stat(&path) {
            Ok(stat) => found.push(item(path, &stat)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// A digest that changes with every change below the root of the tree. It is compared for equality only, so a clock
/// that was set does no harm.
///
/// A file that is never written again once it is there, as `immutable` decides by its path, may get and lose other names.
pub fn fingerprint(items: &[Item], immutable: &dyn Fn(&Path) -> bool) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for Item { path, kind, stamp, .. } in items {
        let LastingStamp { inode, len, modified, changed } = stamp;
        let when = if immutable(path) { modified } else { changed };
        // A path has no NUL in it, so no two trees are written alike.
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(format!("\0{kind:?} {len} {inode} {when:?}\n").as_bytes());
    }
    hasher.finish()
}

fn item(path: PathBuf, stat: &Stat) -> Item {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => ItemKind::File,
        FileType::Directory => ItemKind::Dir,
        FileType::Symlink => ItemKind::Link,
        _ => ItemKind::Special,
    };
    let stamp = LastingStamp {
        inode: stat.st_ino,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
    };
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    Item { path, kind, mode: stat.st_mode & 0o7777, allocated, stamp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
        assert_eq!((items[3].kind, items[3].len(), items[6].kind), (ItemKind::File, 5, ItemKind::Link));
    }
}
