//! The clone of the node's data on which a shadow works: of the last backup if that is recent, otherwise of the data
//! themselves while the running node works on them.
//!
//! A clone of data in use is what a power cut would have left, and the node opens it like that: its head is older. Sorted
//! tables of Pebble are shared as hard links, since Pebble writes to no table again and replaces one that is in its way by
//! removing it. Nothing else is: goleveldb and RocksDB truncate a file that has the name of a new table, and geth cuts its
//! ancient data at the end when it takes its head back, which would reach the running node's files through a link. All
//! else is cloned by the file system where that can be done (FICLONE), and copied otherwise. Tables that appear while the
//! rest is copied are fetched afterwards. Files that vanish or grow meanwhile are no obstacle. Keys stay out.

use super::limits;
use crate::error::{Error, Kind, Result};
use crate::home::regular;
use crate::home::tree::{Item, ItemKind, walk};
use crate::sorted::Set;
use crate::upgrade::Cancel;
use crate::upgrade::backup::is_key;
use rustix::fs::{copy_file_range, ioctl_ficlone};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The bytes that are copied between two looks at what is left.
const CHUNK: usize = 8 << 20;

/// A clone that was made.
#[derive(Debug, Default)]
pub(super) struct Clone {
    /// The bytes in it.
    pub(super) bytes: u64,
    /// The bytes that were copied.
    pub(super) copied: u64,
    /// The tables that it shares with the original.
    pub(super) linked: Vec<PathBuf>,
}

/// How a clone is made.
pub(super) struct Order<'a> {
    /// The data.
    pub(super) from: &'a Path,
    /// The clone, which is not there yet.
    pub(super) to: &'a Path,
    /// The memory that the running node has in use.
    pub(super) resident: u64,
    pub(super) cancel: &'a Cancel,
    /// Is told the bytes done, and in all.
    pub(super) progress: &'a mut dyn FnMut(u64, u64),
}

/// Makes a clone, if space and memory are enough for the rehearsal.
///
/// # Errors
/// [`Kind::NotMet`] if there is too little of either, the data lead elsewhere, or it is cancelled.
pub(super) fn make(mut order: Order<'_>) -> Result<Clone> {
    make_dir(order.to)?;
    let items = items(order.from)?;
    let tables = Tables::of(order.from, &items);
    let (shared, own): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| tables.has(item));
    let clones = own.iter().max_by_key(|item| item.len()).is_none_or(|item| can_clone(&order, item));
    let links = shared.first().is_none_or(|item| can_link(&order, item));
    let bytes =
        |items: &[&Item]| items.iter().filter(|i| i.kind == ItemKind::File).map(|i| i.len()).sum::<u64>();
    let (all, some) = (bytes(&shared) + bytes(&own), bytes(&own));
    let copied = if clones { 0 } else { some + if links { 0 } else { all - some } };
    let made = own.len() + if links { 0 } else { shared.len() };
    limits::check(order.to, (copied, made as u64), order.resident)?;

    let mut clone = Clone::default();
    let mut maker = Maker { order: &mut order, clone: &mut clone, all };
    for item in items.iter().filter(|item| item.kind == ItemKind::Dir) {
        maker.bring(item, false)?;
    }
    for item in shared {
        maker.bring(item, true)?;
    }
    for item in own.iter().filter(|item| item.kind != ItemKind::Dir) {
        maker.bring(item, false)?;
    }
    // Files that were written to meanwhile may name tables that were not there before.
    let there: Set<&Path> = items.iter().map(|item| &*item.path).collect();
    for item in
        self::items(maker.order.from)?.iter().filter(|item| !there.contains(&*item.path) && tables.has(item))
    {
        maker.bring(item, true)?;
    }
    Ok(clone)
}

/// The part of the data that is cloned.
fn items(from: &Path) -> Result<Vec<Item>> {
    let is_lock = |path: &Path| path.ends_with("LOCK") || path.ends_with("FLOCK");
    let mut items = walk(from, &|path| !is_key(path) && !is_lock(path))?;
    items.retain(|item| item.kind != ItemKind::Special);
    for item in items.iter().filter(|item| item.kind == ItemKind::Link) {
        check_link(from, &item.path)?;
    }
    Ok(items)
}

/// Refuses a link through which a shadow would work on the data of the running node.
fn check_link(from: &Path, link: &Path) -> Result<()> {
    let path = from.join(link);
    let text = match fs::read_link(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| Error::io("read link", &path, e))?,
    };
    let inside = fs::canonicalize(&path).map_or(true, |real| real.starts_with(from));
    if inside && text.is_relative() {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotMet,
        "the data directory has a link that leads out of it, where a shadow must not write",
    )
    .at(path.display())
    .because(format!("it leads to {}", text.display())))
}

/// The directories in which Pebble keeps its tables.
struct Tables(Set<PathBuf>);

impl Tables {
    fn of(from: &Path, items: &[Item]) -> Self {
        let name = |item: &Item| item.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let options =
            items.iter().filter(|item| item.kind == ItemKind::File && name(item).starts_with("OPTIONS-"));
        let of_pebble = options.filter(|item| {
            let text = regular::read(&from.join(&item.path), 1 << 20).unwrap_or_default();
            String::from_utf8_lossy(&text).contains("pebble_version")
        });
        Tables(of_pebble.filter_map(|item| item.path.parent().map(Path::to_owned)).collect())
    }

    fn has(&self, item: &Item) -> bool {
        let is_table = item.kind == ItemKind::File && item.path.extension().is_some_and(|ext| ext == "sst");
        is_table && item.path.parent().is_some_and(|dir| self.0.contains(dir))
    }
}

struct Maker<'o, 'a> {
    order: &'o mut Order<'a>,
    clone: &'o mut Clone,
    all: u64,
}

impl Maker<'_, '_> {
    fn bring(&mut self, item: &Item, may_link: bool) -> Result<()> {
        let (from, to) = (self.order.from.join(&item.path), self.order.to.join(&item.path));
        match item.kind {
            ItemKind::Dir => make_dir(&to)?,
            ItemKind::Link => match fs::read_link(&from) {
                Ok(text) => symlink(&text, &to).map_err(|e| Error::io("create link", &to, e))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read link", &from, e)),
            },
            ItemKind::File => self.file(&item.path, (&from, &to), may_link)?,
            ItemKind::Special => {}
        }
        (self.order.progress)(self.clone.bytes, self.all);
        Ok(())
    }

    fn file(&mut self, path: &Path, (from, to): (&Path, &Path), may_link: bool) -> Result<()> {
        let (source, meta) = match regular::open_no_link(from) {
            // It went away, or became another kind of file.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidInput => {
                return Ok(());
            }
            opened => opened.map_err(|e| Error::io("open", from, e))?,
        };
        if may_link && link(from, to, meta.ino()) {
            self.clone.bytes += meta.len();
            self.clone.linked.push(path.to_owned());
            return Ok(());
        }
        let copy = create(to)?;
        if ioctl_ficlone(&copy, &source).is_ok() {
            self.clone.bytes += meta.len();
            return Ok(());
        }
        self.copy((&source, from), (&copy, to), meta.len())
    }

    /// Copies what was there when the file was opened: one that grows has no end.
    fn copy(&mut self, source: (&File, &Path), copy: (&File, &Path), len: u64) -> Result<()> {
        let mut at = 0;
        while at < len {
            if self.order.cancel.is_cancelled() {
                return Err(Error::new(Kind::NotMet, "the rehearsal was cancelled"));
            }
            if let Some(what) = limits::scarce(self.order.to) {
                return Err(Error::new(Kind::NotMet, "the rehearsal was given up").because(what));
            }
            let left = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
            let moved = carry(source, copy, at, left)?;
            if moved == 0 {
                return Ok(());
            }
            at += moved;
            self.clone.bytes += moved;
            self.clone.copied += moved;
            (self.order.progress)(self.clone.bytes, self.all);
        }
        Ok(())
    }
}

/// Carries up to `length` bytes from one file to another, in the kernel where that can do it.
fn carry(source: (&File, &Path), copy: (&File, &Path), at: u64, length: usize) -> Result<u64> {
    let (mut from, mut to) = (at, at);
    match copy_file_range(source.0, Some(&mut from), copy.0, Some(&mut to), length) {
        Ok(moved) if moved > 0 => return Ok(moved as u64),
        // Some file systems have nothing to say in the middle of a file, and others cannot do it.
        Ok(_) | Err(_) => {}
    }
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; length.min(1 << 20)];
    let read = source.0.read_at(&mut buffer, at).map_err(|e| Error::io("read", source.1, e))?;
    copy.0.write_all_at(&buffer[..read], at).map_err(|e| Error::io("write", copy.1, e))?;
    Ok(read as u64)
}

/// Makes another name of a file, if it is still the one that was opened.
fn link(from: &Path, to: &Path, inode: u64) -> bool {
    if fs::hard_link(from, to).is_err() {
        return false;
    }
    let is_it = fs::symlink_metadata(to).is_ok_and(|meta| meta.is_file() && meta.ino() == inode);
    is_it || fs::remove_file(to).is_err()
}

fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map_err(|e| Error::io("write", path, e))
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|e| Error::io("create directory", path, e))
}

/// Whether the file system clones this file to the place of the clone.
fn can_clone(order: &Order<'_>, item: &Item) -> bool {
    let probe = order.to.join(".probe");
    let cloned = regular::open_no_link(&order.from.join(&item.path))
        .ok()
        .zip(create(&probe).ok())
        .is_some_and(|((source, _), copy)| ioctl_ficlone(&copy, &source).is_ok());
    let _ = fs::remove_file(&probe);
    cloned
}

fn can_link(order: &Order<'_>, item: &Item) -> bool {
    let probe = order.to.join(".probe");
    let linked = fs::hard_link(order.from.join(&item.path), &probe).is_ok();
    let _ = fs::remove_file(&probe);
    linked
}

/// The bytes that a tree takes on the disk.
pub(super) fn allocated(root: &Path) -> u64 {
    let items = walk(root, &|_| true).unwrap_or_default();
    let blocks = |item: &Item| fs::symlink_metadata(root.join(&item.path)).map_or(0, |meta| meta.blocks());
    items.iter().map(blocks).sum::<u64>().saturating_mul(512)
}

#[cfg(test)]
mod tests;
