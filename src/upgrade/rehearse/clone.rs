//! The clone of the node's data on which a shadow works: of the last backup if that is recent, otherwise of the data
//! themselves while the running node works on them.
//!
//! A clone of data in use is what a power cut would have left, and the node opens it like that: its head is older. Sorted
//! tables of Pebble are shared as hard links, since Pebble writes to no table again and removes a table before it reuses its
//! name. Nothing else is: goleveldb and RocksDB truncate a file that has the name of a new table, and geth cuts its
//! ancient data at the end when it takes its head back, which would reach the running node's files through a link. All
//! else is cloned by the file system where that can be done (FICLONE), and copied otherwise. Tables that appear while the
//! rest is copied are fetched afterwards. Files that vanish or grow meanwhile are no obstacle. Keys stay out.

use super::limits;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::regular;
use crate::home::tree::{Item, ItemKind, walk};
use crate::sorted::Set;
use crate::upgrade::Cancel;
use crate::upgrade::backup::building::make_dir;
use crate::upgrade::backup::copy::Pipe;
use crate::upgrade::backup::is_key;
use crate::upgrade::backup::ways::{can_clone, can_link};
use rustix::fs::ioctl_ficlone;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The bytes that are copied between two looks at what is left.
const CHUNK: u64 = 8 << 20;

/// A finished clone.
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
    /// Receives the bytes done, and all bytes.
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
    let clones = own.iter().max_by_key(|item| item.len());
    let clones = clones.is_none_or(|item| can_clone(order.from, &item.path, order.to));
    let links = shared.first().is_none_or(|item| can_link(order.from, &item.path, order.to));
    let bytes =
        |items: &[&Item]| items.iter().filter(|i| i.kind == ItemKind::File).map(|i| i.len()).sum::<u64>();
    let (all, some) = (bytes(&shared) + bytes(&own), bytes(&own));
    let copied = if clones { 0 } else { some + if links { 0 } else { all - some } };
    let made = own.len() + if links { 0 } else { shared.len() };
    limits::check(order.to, (copied, made as u64), order.resident)?;

    let from = order.from;
    let mut maker = Maker { order: &mut order, tables: &tables, clone: Clone::default(), all };
    let (dirs, others): (Vec<&Item>, Vec<&Item>) =
        own.into_iter().partition(|item| item.kind == ItemKind::Dir);
    dirs.into_iter().chain(shared).chain(others).try_for_each(|item| maker.bring(item))?;
    // Files that were written to meanwhile may name tables that were not there before.
    let there: Set<&Path> = items.iter().map(|item| &*item.path).collect();
    let now = self::items(from)?;
    let new = now.iter().filter(|item| !there.contains(&*item.path) && tables.has(item));
    new.into_iter().try_for_each(|item| maker.bring(item))?;
    Ok(maker.clone)
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
    let text = regular::found(fs::read_link(&path)).doing("read link", &path)?;
    let Some(text) = text else { return Ok(()) };
    let inside = fs::canonicalize(&path).map_or(true, |real| real.starts_with(from));
    if inside && text.is_relative() {
        return Ok(());
    }
    let what = "the data directory has a link that leads out of it, where a shadow must not write";
    Err(Error::new(Kind::NotMet, what).at(path.display()).because(format!("it leads to {}", text.display())))
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
    tables: &'o Tables,
    clone: Clone,
    /// The bytes of the data.
    all: u64,
}

impl Maker<'_, '_> {
    fn bring(&mut self, item: &Item) -> Result<()> {
        let (from, to) = (self.order.from.join(&item.path), self.order.to.join(&item.path));
        match item.kind {
            ItemKind::Dir => make_dir(&to)?,
            ItemKind::Link => {
                if let Some(text) = regular::found(fs::read_link(&from)).doing("read link", &from)? {
                    symlink(&text, &to).doing("create link", &to)?;
                }
            }
            ItemKind::File => self.file(item, &from, &to)?,
            ItemKind::Special => {}
        }
        (self.order.progress)(self.clone.bytes, self.all);
        Ok(())
    }

    fn file(&mut self, item: &Item, from: &Path, to: &Path) -> Result<()> {
        let (source, meta) = match regular::open_no_link(from) {
            // It went away, or became another kind of file.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidInput => {
                return Ok(());
            }
            opened => opened.doing("open", from)?,
        };
        if self.tables.has(item) && link(from, to, meta.ino()) {
            self.clone.bytes += meta.len();
            self.clone.linked.push(item.path.clone());
            return Ok(());
        }
        let copy = create(to)?;
        if ioctl_ficlone(&copy, &source).is_ok() {
            self.clone.bytes += meta.len();
            return Ok(());
        }
        self.copy(Pipe::new((&source, from), (&copy, to)), meta.len())
    }

    /// Copies what was there when the file was opened: a file that grows has no end.
    fn copy(&mut self, mut pipe: Pipe<'_>, len: u64) -> Result<()> {
        let mut at = 0;
        while at < len {
            if self.order.cancel.is_cancelled() {
                return Err(Error::new(Kind::NotMet, "the rehearsal was cancelled"));
            }
            if let Some(what) = limits::scarce(self.order.to) {
                return Err(Error::new(Kind::NotMet, "the rehearsal was given up").because(what));
            }
            let moved = pipe.carry(at, CHUNK.min(len - at))?;
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
    options.write(true).create_new(true).mode(0o600).open(path).doing("write", path)
}

/// The bytes that a tree takes on the disk.
pub(super) fn allocated(root: &Path) -> u64 {
    let items = walk(root, &|_| true).unwrap_or_default();
    let blocks = |item: &Item| fs::symlink_metadata(root.join(&item.path)).map_or(0, |meta| meta.blocks());
    items.iter().map(blocks).sum::<u64>().saturating_mul(512)
}

#[cfg(test)]
mod tests;
