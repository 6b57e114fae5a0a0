//! A tree that is being built from another one, in one pass or in several: what is there already stays.
//!
//! A pass ahead of the stop brings what a running node never writes to again, and what it only appends to. The last
//! pass, with the node down, brings the rest, and whatever is new or has changed since.

use super::copy::{Brought, Method, Ways, bring, catch_up, keep_attributes, keep_times};
use super::manifest::{Content, Entry};
use super::names::{Class, Names};
use super::ways;
use super::work::{Gauge, Work};
use crate::config::BackupMethod;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::beneath::Beneath;
use crate::home::stamp::LastingStamp;
use crate::home::trace::{Effect, note};
use crate::home::tree::{Item, ItemKind};
use crate::sorted::Index;
use rustix::fs::readlinkat;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The least that a file takes on a disk.
const BLOCK: u64 = 4096;

/// Where everything comes from.
pub(in crate::upgrade) struct Source {
    pub(in crate::upgrade) root: PathBuf,
    /// Parents first.
    pub(in crate::upgrade) items: Vec<Item>,
    pub(super) names: Names,
    pub(super) ways: Ways,
}

/// The tree.
#[derive(Debug)]
pub(in crate::upgrade) struct Building {
    root: PathBuf,
    made: BTreeMap<PathBuf, Made>,
}

/// An entry that is there.
#[derive(Debug, Clone)]
struct Made {
    kind: ItemKind,
    mode: u32,
    /// Of the original, when it was brought.
    stamp: LastingStamp,
    method: Method,
    /// The text of a link.
    text: Option<PathBuf>,
}

/// Which part of the source is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Files that the node never writes again. A file that changes or vanishes is left for the next pass.
    Ahead,
    /// All files. One that changes during the pass is an error.
    Last,
}

/// One file to bring.
struct Task<'i> {
    item: &'i Item,
    ways: Ways,
    /// The length of the part that is there.
    known: Option<u64>,
}

impl Source {
    /// The tree at `root`, for one at or below `target` on the same file system as that, by the methods that are wanted and
    /// possible.
    pub(in crate::upgrade) fn find(
        root: PathBuf,
        items: Vec<Item>,
        target: &Path,
        method: BackupMethod,
    ) -> Result<Self> {
        let names = Names::of_items(&items);
        let ways = ways::find(&root, &items, &names, target, method)?;
        Ok(Source { root, items, names, ways })
    }

    /// The same, but nothing is linked.
    pub(in crate::upgrade) fn without_links(mut self) -> Self {
        self.ways.hardlink = false;
        self
    }

    /// How many bytes must be copied, neither cloned nor linked, beyond what is there already. A sparse file stays one.
    pub(in crate::upgrade) fn to_copy(&self, there: Option<&Building>) -> u64 {
        let is_new = |item: &&Item| there.is_none_or(|building| !building.has(self, item));
        let is_copied = |item: &&Item| {
            let ways = self.ways_of(&item.path);
            !ways.reflink && !ways.hardlink
        };
        let rest = |item: &Item| {
            let known = there.and_then(|building| building.known(self, item)).unwrap_or(0);
            (item.len() - known).min(item.allocated).next_multiple_of(BLOCK)
        };
        self.files().filter(is_new).filter(is_copied).map(rest).sum()
    }

    /// How many files, links and directories must be made beyond what is there already.
    pub(in crate::upgrade) fn to_make(&self, there: Option<&Building>) -> u64 {
        let is_new = |item: &&Item| there.is_none_or(|building| !building.made.contains_key(&item.path));
        let is_made = |item: &&Item| item.kind != ItemKind::File || !self.ways_of(&item.path).hardlink;
        self.items.iter().filter(is_new).filter(is_made).count() as u64
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.kind == ItemKind::File)
    }

    /// The methods for one file.
    pub(super) fn ways_of(&self, path: &Path) -> Ways {
        Ways { hardlink: self.ways.hardlink && self.names.is_immutable(path), ..self.ways }
    }

    /// Whether a running node leaves it as it is, but for its end.
    pub(super) fn is_for_ahead(&self, path: &Path) -> bool {
        self.names.class(path) != Class::Other
    }
}

/// Copies the files among `items` from below one directory to below another one, where their directories are.
pub(in crate::upgrade) fn bring_plain(
    work: &mut Work<'_>,
    from: &Path,
    items: &[Item],
    to: &Path,
) -> Result<()> {
    let files: Vec<&Item> = items.iter().filter(|item| item.kind == ItemKind::File).collect();
    let bring = |item: &&Item, gauge: &dyn Gauge| {
        let path = to.join(&item.path);
        match bring(&mut beneath(from)?, (&item.path, &item.stamp), &path, Ways::COPY, gauge)? {
            Brought::There(..) => Ok(()),
            Brought::Gone | Brought::Changed => Err(changed(&from.join(&item.path))),
        }
    };
    work.each(&files, files.iter().map(|item| item.len()).sum(), &bring).map(drop)
}

impl Building {
    /// An empty tree at `root`, where nothing is yet.
    pub(in crate::upgrade) fn new(root: PathBuf) -> Result<Self> {
        make_dir(&root)?;
        Ok(Building { root, made: BTreeMap::new() })
    }

    /// Brings everything.
    pub(in crate::upgrade) fn fill_whole(&mut self, source: &Source, work: &mut Work<'_>) -> Result<()> {
        self.fill(source, Pass::Last, work)
    }

    /// Brings a part of the source.
    pub(super) fn fill(&mut self, source: &Source, pass: Pass, work: &mut Work<'_>) -> Result<()> {
        self.clear(source)?;
        let mut tasks = Vec::new();
        for item in &source.items {
            match item.kind {
                ItemKind::Dir => self.bring_dir(item)?,
                ItemKind::Link if pass == Pass::Last => self.bring_link(source, item)?,
                ItemKind::File if pass == Pass::Last || source.is_for_ahead(&item.path) => {
                    tasks.extend(self.task(source, item));
                }
                ItemKind::Link | ItemKind::File | ItemKind::Special => {}
            }
        }
        let total = tasks.iter().map(|task| task.item.len() - task.known.unwrap_or(0)).sum();
        let (root, brought) = (self.root.clone(), Mutex::new(Vec::new()));
        let bring = |task: &Task<'_>, gauge: &dyn Gauge| {
            let path = source.root.join(&task.item.path);
            match task.perform(&mut beneath(&source.root)?, &root, gauge)? {
                Brought::There(method, stamp) => {
                    let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
                    brought.push((task.item.path.clone(), task.item.mode, method, stamp));
                }
                Brought::Changed if pass == Pass::Last => return Err(changed(&path)),
                // While the node runs neither is unusual.
                Brought::Gone | Brought::Changed if pass == Pass::Ahead => {}
                Brought::Gone | Brought::Changed => log_left_out(&path),
            }
            Ok(())
        };
        let done = work.each(&tasks, total, &bring);
        // Also what was done before a failure is there for the next pass.
        for (path, mode, method, stamp) in brought.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.made.insert(path, Made { kind: ItemKind::File, mode, stamp, method, text: None });
        }
        done.map(drop)
    }

    /// Whether a file is there as it is in the source. A linked one must still be one that is never written again: when
    /// later files of its table have gone, the node appends to it.
    pub(super) fn has(&self, source: &Source, item: &Item) -> bool {
        let made = self.made.get(&item.path).filter(|made| made.kind == item.kind);
        let may_stay =
            |made: &&Made| made.method != Method::Hardlink || source.names.is_immutable(&item.path);
        made.filter(may_stay).is_some_and(|made| made.stamp.has_content_of(&item.stamp))
    }

    /// Gives the directories what belongs to their originals, except for the mode. Nothing is brought afterwards.
    pub(in crate::upgrade) fn copy_dir_attributes(&self, source: &Source) -> Result<()> {
        let mut from = beneath(&source.root)?;
        for (path, _) in self.made.iter().rev().filter(|(_, made)| made.kind == ItemKind::Dir) {
            let to = self.root.join(path);
            let failed = |e| Error::io("set attributes of", &to, e);
            let original = match from.dir(path).and_then(|dir| dir.try_clone_to_owned()) {
                Ok(original) => original,
                // It was removed meanwhile; what was in it is left out already.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            let (original, copy) = (File::from(original), File::open(&to).map_err(failed)?);
            let meta = original.metadata().map_err(failed)?;
            keep_attributes(&original, &meta, &copy, &to)?;
            keep_times(&meta, &copy).map_err(failed)?;
        }
        Ok(())
    }

    /// The entries of its manifest.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |(path, made): (&PathBuf, &Made)| {
            let content = match (made.kind, &made.text) {
                (ItemKind::Dir, _) => Content::Dir,
                (_, Some(text)) => Content::Link { to: utf8(text)? },
                _ => Content::File {
                    size: made.stamp.len,
                    modified: Some(made.stamp.modified),
                    method: made.method,
                    sha256: None,
                },
            };
            Ok(Entry { path: utf8(path)?, mode: made.mode, content })
        };
        self.made.iter().map(entry).collect()
    }

    /// Removes what the source does not have any more, or has as something else.
    fn clear(&mut self, source: &Source) -> Result<()> {
        let wanted: Index<&Path, ItemKind> = source.items.iter().map(|i| (&*i.path, i.kind)).collect();
        let is_wanted = |path: &PathBuf, made: &Made| wanted.get(&**path) == Some(&made.kind);
        let gone = self.made.iter().filter(|(path, made)| !is_wanted(path, made));
        let gone: Vec<PathBuf> = gone.map(|(path, _)| path.clone()).collect();
        // The entries of a directory come behind it.
        for path in gone.iter().rev() {
            if let Some(made) = self.made.remove(path) {
                remove(&self.root.join(path), made.kind)?;
            }
        }
        Ok(())
    }

    fn bring_dir(&mut self, item: &Item) -> Result<()> {
        if !self.made.contains_key(&item.path) {
            make_dir(&self.root.join(&item.path))?;
        }
        self.note_made(item, None);
        Ok(())
    }

    fn bring_link(&mut self, source: &Source, item: &Item) -> Result<()> {
        let (from, to) = (source.root.join(&item.path), self.root.join(&item.path));
        let mut beneath = beneath(&source.root)?;
        let (dir, name) = beneath.parent(&item.path).doing("read link", &from)?;
        let text = match readlinkat(dir, name, Vec::new()) {
            Ok(text) => PathBuf::from(OsStr::from_bytes(text.as_bytes())),
            Err(Errno::NOENT) => {
                log_left_out(&from);
                return Ok(());
            }
            Err(e) => return Err(Error::io("read link", &from, e.into())),
        };
        symlink(&text, &to).doing("create link", &to)?;
        note(Effect::Symlink(&text, &to));
        self.note_made(item, Some(text));
        Ok(())
    }

    fn note_made(&mut self, item: &Item, text: Option<PathBuf>) {
        let Item { kind, mode, stamp, .. } = *item;
        self.made.insert(item.path.clone(), Made { kind, mode, stamp, method: Method::Copy, text });
    }

    /// How much of a file is there already, where it has only grown since it was copied.
    fn known(&self, source: &Source, item: &Item) -> Option<u64> {
        let made = self.made.get(&item.path)?;
        let has_grown = source.names.class(&item.path) == Class::Grows
            && made.method == Method::Copy
            && made.stamp.inode == item.stamp.inode
            && (1..item.len()).contains(&made.stamp.len);
        has_grown.then_some(made.stamp.len)
    }

    /// The task for a file, if it needs one. A copy that has changed and cannot be appended to is removed first.
    fn task<'i>(&mut self, source: &Source, item: &'i Item) -> Option<Task<'i>> {
        if self.has(source, item) {
            // Its mode may have changed all the same.
            self.made.entry(item.path.clone()).and_modify(|made| made.mode = item.mode);
            return None;
        }
        let ways = source.ways_of(&item.path);
        let known = self.known(source, item);
        self.made.remove(&item.path);
        if known.is_none() {
            // A file that cannot be removed is in the way of its copy, which says so.
            let _ = remove(&self.root.join(&item.path), ItemKind::File);
        }
        Some(Task { item, ways, known })
    }
}

impl Task<'_> {
    fn perform(&self, from: &mut Beneath, root: &Path, gauge: &dyn Gauge) -> Result<Brought> {
        let (item, to) = (self.item, root.join(&self.item.path));
        if let Some(known) = self.known {
            if let Some(stamp) = catch_up(from, (&item.path, known), &to, gauge)? {
                return Ok(Brought::There(Method::Copy, stamp));
            }
            remove(&to, ItemKind::File)?;
        }
        bring(from, (&item.path, &item.stamp), &to, self.ways, gauge)
    }
}

fn beneath(root: &Path) -> Result<Beneath> {
    Beneath::new(root).doing("open", root)
}

pub(in crate::upgrade) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).doing("create directory", path)?;
    note(Effect::Mkdir(path, 0o700));
    Ok(())
}

fn remove(path: &Path, kind: ItemKind) -> Result<()> {
    match if kind == ItemKind::Dir { fs::remove_dir(path) } else { fs::remove_file(path) } {
        Ok(()) => note(Effect::Remove(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("remove", path, e)),
    }
    Ok(())
}

fn changed(path: &Path) -> Error {
    Error::new(Kind::Failed, "the file changed while it was copied")
        .at(path.display())
        .hint("find out which process writes to the data directory")
}

fn log_left_out(path: &Path) {
    log::warn!("event=left_out_of_backup path={} it was removed meanwhile", path.display());
}

fn utf8(path: &Path) -> Result<String> {
    let what = "the manifest cannot hold a name that is not UTF-8";
    path.to_str().map(str::to_owned).ok_or_else(|| Error::new(Kind::Failed, what).at(path.display()))
}
