//! A model of a file system without an order of its own: what a power cut may leave behind any prefix of a trace.
//!
//! Synced changes are there. Every other change may or may not be there, independently of the others:
//!
//! - A name that was made, removed or renamed is durable once its directory was synced. A rename is one step in both
//!   directories, and so is an exchange; the sync of the directory of the new name makes it durable.
//! - The bytes and the length of a file, and the permission bits, are durable once the file was synced. Until then
//!   see [`tear`](super::tear).
//!
//! This is worse than any file system that we know: ext4, xfs and btrfs keep the order of names within a directory.
//! A hard link is modelled as a file of its own with the content that the other one has by then: we make none to a file
//! that is written again.

use super::dice::Dice;
use super::tear::{self, How};
use super::tree::{Content, Node, Tree};
use crate::home::trace::recorder::Op;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory, and a name in it.
type Slot = (usize, OsString);

/// Exhaustive enumeration up to this number of combinations, samples beyond it.
const EXHAUSTIVE: u64 = 256;

/// The model, behind the effects that were applied so far.
pub(super) struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    live: BTreeMap<Slot, usize>,
    /// With the number of the change that made it so.
    durable: BTreeMap<Slot, (usize, Option<usize>)>,
    pending: Vec<Change>,
    changes: usize,
}

enum Kind {
    File,
    Dir,
    Link(PathBuf),
}

struct Inode {
    kind: Kind,
    mode: u32,
    new_mode: Option<u32>,
    bytes: Arc<Vec<u8>>,
    writes: Vec<(usize, Vec<u8>)>,
}

/// One change of names that is not durable yet.
struct Change {
    order: usize,
    /// The directories whose sync makes it durable.
    dirs: Vec<usize>,
    sets: Vec<(Slot, Option<usize>)>,
}

/// The number of states that a power cut may leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// The states that are numbered one by one; the others are samples.
    numbered: u64,
    /// Whether there are no other ones.
    whole: bool,
}

impl Space {
    /// No more draws than this make sense.
    pub(super) fn draws(self) -> u64 {
        if self.whole { self.numbered } else { u64::MAX }
    }
}

impl Disk {
    /// A disk on which all of this is durable.
    pub(super) fn new(root: &Path, tree: &Tree) -> Disk {
        let root_inode = Inode::new(Kind::Dir, 0o700);
        let mut disk = Disk {
            root: root.to_owned(),
            inodes: vec![root_inode],
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            changes: 0,
        };
        for (path, node) in &tree.0 {
            let inode = match node {
                Node::Dir { mode } => Inode::new(Kind::Dir, *mode),
                Node::Link(text) => Inode::new(Kind::Link(text.clone()), 0),
                Node::File { mode, content } => {
                    let bytes = Arc::new(content.bytes());
                    Inode { bytes, ..Inode::new(Kind::File, *mode) }
                }
            };
            let slot = disk.slot(&root.join(path));
            disk.inodes.push(inode);
            let number = disk.inodes.len() - 1;
            disk.live.insert(slot.clone(), number);
            disk.durable.insert(slot, (0, Some(number)));
        }
        disk
    }

    /// Applies an effect. Marks of the test are none.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path, mode) => {
                if self.find(path).is_none() {
                    self.make(path, Inode::new(Kind::File, *mode));
                }
            }
            Op::Mkdir(path, mode) => self.make(path, Inode::new(Kind::Dir, *mode)),
            Op::Symlink(text, path) => self.make(path, Inode::new(Kind::Link(text.clone()), 0)),
            Op::Write(path, offset, bytes) => {
                let offset = usize::try_from(*offset).unwrap();
                self.at(path).writes.push((offset, bytes.clone()));
            }
            Op::Hardlink(from, to) => {
                let Inode { kind: _, mode, new_mode, bytes, writes } = self.at(from);
                let bytes = Arc::clone(bytes);
                let inode = Inode {
                    kind: Kind::File,
                    mode: *mode,
                    new_mode: *new_mode,
                    bytes,
                    writes: writes.clone(),
                };
                self.make(to, inode);
            }
            Op::Mode(path, mode) => self.at(path).new_mode = Some(*mode),
            Op::Rename(from, to) => {
                let (from, to) = (self.slot(from), self.slot(to));
                let inode = self.live[&from];
                self.change(vec![to.0], vec![(from, None), (to, Some(inode))]);
            }
            Op::Exchange(a, b) => {
                let (a, b) = (self.slot(a), self.slot(b));
                let (of_a, of_b) = (self.live[&a], self.live[&b]);
                self.change(vec![a.0, b.0], vec![(a, Some(of_b)), (b, Some(of_a))]);
            }
            Op::Remove(path) => self.remove(&self.slot(path)),
            // The directory that the root is in.
            Op::Sync(path, _) if !path.starts_with(&self.root) => {}
            Op::Sync(path, _) => {
                let number = self.find(path).expect("what is synced is there");
                self.sync(number);
            }
            Op::Begin(_) | Op::Ack(_) => {}
        }
    }

    /// The tree as a reader finds it without a power cut.
    pub(super) fn live(&self) -> Tree {
        let names = self.live.iter().map(|(slot, inode)| (slot, *inode)).collect();
        self.tree(&names, &mut |inode| {
            let content = tear::torn(&inode.bytes, &inode.writes, How::All, &mut Dice::new(0));
            (inode.new_mode.unwrap_or(inode.mode), content)
        })
    }

    /// How many states a power cut now may leave.
    pub(super) fn space(&self) -> Space {
        let files = self.inodes.iter().filter(|inode| !inode.writes.is_empty()).count();
        let bits = self.pending.len() + self.inodes.iter().filter(|inode| inode.new_mode.is_some()).count();
        let bases = u32::try_from(bits).unwrap_or(u32::MAX);
        let all = 2_u64.checked_pow(bases).and_then(|n| n.checked_mul(3_u64.checked_pow(files as u32)?));
        match all {
            Some(all) if all <= EXHAUSTIVE => Space { numbered: all, whole: files == 0 },
            _ => Space { numbered: 0, whole: false },
        }
    }

    /// The state of this number.
    pub(super) fn state(&self, draw: u64, dice: &mut Dice) -> Tree {
        let space = self.space();
        let mut number = (draw < space.numbered).then_some(draw);
        // With samples, how much of what was not synced tends to be there.
        let share = [1, 4, 8, 12, 15][dice.below(5)];
        let mut choose = |dice: &mut Dice, of: u64| match &mut number {
            Some(rest) => {
                let choice = *rest % of;
                *rest /= of;
                choice
            }
            None if of == 2 => u64::from(dice.below(16) < share),
            None => of,
        };
        let mut names: BTreeMap<&Slot, (usize, Option<usize>)> =
            self.durable.iter().map(|(slot, found)| (slot, *found)).collect();
        for change in &self.pending {
            if choose(dice, 2) == 1 {
                for (slot, inode) in &change.sets {
                    let found = names.entry(slot).or_default();
                    if found.0 < change.order {
                        *found = (change.order, *inode);
                    }
                }
            }
        }
        // Where a later rename is there and an earlier one of the same file is not, the later name counts.
        let mut newest: BTreeMap<usize, usize> = BTreeMap::new();
        for (order, inode) in names.values().filter_map(|(order, inode)| Some((*order, (*inode)?))) {
            let known = newest.entry(inode).or_default();
            *known = order.max(*known);
        }
        let names = names
            .into_iter()
            .filter_map(|(slot, (order, inode))| Some((slot, inode.filter(|inode| newest[inode] == order)?)))
            .collect();
        self.tree(&names, &mut |inode| {
            let mode = match inode.new_mode {
                Some(new) if choose(dice, 2) == 1 => new,
                _ => inode.mode,
            };
            let how = match inode.writes.is_empty() {
                true => How::None,
                false => [How::None, How::All, How::Hollow, How::Any][choose(dice, 3) as usize],
            };
            (mode, tear::torn(&inode.bytes, &inode.writes, how, dice))
        })
    }

    fn tree(
        &self,
        names: &BTreeMap<&Slot, usize>,
        content: &mut dyn FnMut(&Inode) -> (u32, Content),
    ) -> Tree {
        let mut tree = Tree::default();
        let mut open = vec![(0, PathBuf::new())];
        while let Some((dir, path)) = open.pop() {
            let from: Slot = (dir, OsString::new());
            for (slot, number) in names.range::<&Slot, _>(&from..).take_while(|(slot, _)| slot.0 == dir) {
                let (path, inode) = (path.join(&slot.1), &self.inodes[*number]);
                let node = match &inode.kind {
                    Kind::Link(text) => Node::Link(text.clone()),
                    Kind::Dir => {
                        open.push((*number, path.clone()));
                        Node::Dir { mode: content(inode).0 }
                    }
                    Kind::File => {
                        let (mode, content) = content(inode);
                        Node::File { mode, content }
                    }
                };
                tree.0.insert(path, node);
            }
        }
        tree
    }

    fn make(&mut self, path: &Path, inode: Inode) {
        self.inodes.push(inode);
        let slot = self.slot(path);
        self.change(vec![slot.0], vec![(slot, Some(self.inodes.len() - 1))]);
    }

    /// Children first, as `remove_dir_all` does it, each for itself.
    fn remove(&mut self, slot: &Slot) {
        let number = self.live[slot];
        let children: Vec<Slot> =
            self.live.keys().filter(|child| child.0 == number && number != slot.0).cloned().collect();
        for child in children {
            self.remove(&child);
        }
        self.change(vec![slot.0], vec![(slot.clone(), None)]);
    }

    fn change(&mut self, dirs: Vec<usize>, sets: Vec<(Slot, Option<usize>)>) {
        for (slot, inode) in &sets {
            match inode {
                Some(inode) => self.live.insert(slot.clone(), *inode),
                None => self.live.remove(slot),
            };
        }
        self.changes += 1;
        self.pending.push(Change { order: self.changes, dirs, sets });
    }

    fn sync(&mut self, number: usize) {
        let inode = &mut self.inodes[number];
        inode.mode = inode.new_mode.take().unwrap_or(inode.mode);
        if !inode.writes.is_empty() {
            let content = tear::torn(&inode.bytes, &inode.writes, How::All, &mut Dice::new(0));
            inode.bytes = Arc::new(content.bytes());
            inode.writes.clear();
        }
        for change in self.pending.extract_if(.., |change| change.dirs.contains(&number)) {
            for (slot, inode) in change.sets {
                let found = self.durable.entry(slot).or_default();
                if found.0 < change.order {
                    *found = (change.order, inode);
                }
            }
        }
    }

    fn at(&mut self, path: &Path) -> &mut Inode {
        let number = self.find(path).unwrap_or_else(|| panic!("{} is not there", path.display()));
        &mut self.inodes[number]
    }

    fn find(&self, path: &Path) -> Option<usize> {
        if path == self.root { Some(0) } else { self.live.get(&self.slot(path)).copied() }
    }

    fn slot(&self, path: &Path) -> Slot {
        let below = path.strip_prefix(&self.root).expect("all effects are below the root");
        let mut parts: Vec<_> = below.iter().map(of_a_dead_process).collect();
        let name = parts.pop().expect("the root itself is never changed");
        let dir = parts.into_iter().fold(0, |dir, part| {
            *self.live.get(&(dir, part)).unwrap_or_else(|| panic!("no directory for {}", path.display()))
        });
        (dir, name)
    }
}

impl Inode {
    fn new(kind: Kind, mode: u32) -> Inode {
        Inode { kind, mode, new_mode: None, bytes: Arc::default(), writes: Vec::new() }
    }
}

/// After a power cut the writer of a temporary file is dead. Here it is this process.
fn of_a_dead_process(name: &OsStr) -> OsString {
    let ours = format!(".{}-", std::process::id());
    match name.to_str() {
        Some(text) if text.ends_with(".tmp") => text.replace(&ours, &format!(".{}-", i32::MAX)).into(),
        _ => name.to_owned(),
    }
}
