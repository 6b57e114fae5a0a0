//! A directory tree as plain data, and the directory on the real file system that is made equal to it.
//!
//! States differ little from each other, so only the difference is written: a journal of 2 MiB is changed in place.

use crate::home::trace::recorder::Op;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything below a root, by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree(pub(super) BTreeMap<PathBuf, Node>);

/// One entry.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir { mode: u32 },
    Link(PathBuf),
    File { mode: u32, content: Content },
}

/// The bytes of a file: those of a base, cut or filled up with zeros to a length, with patches in their order.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) base: Arc<Vec<u8>>,
    pub(super) patches: Vec<(usize, Vec<u8>)>,
    pub(super) len: usize,
}

impl Content {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.base[..self.base.len().min(self.len)].to_vec();
        bytes.resize(self.len, 0);
        for (offset, patch) in &self.patches {
            let end = (offset + patch.len()).min(self.len);
            if let Some(place) = bytes.get_mut(*offset..end) {
                place.copy_from_slice(&patch[..end - offset]);
            }
        }
        bytes
    }

    fn is(&self, other: &Content) -> bool {
        Arc::ptr_eq(&self.base, &other.base) && self.len == other.len && self.patches == other.patches
    }
}

impl Tree {
    /// The tree below `root` now.
    pub(super) fn read(root: &Path) -> Tree {
        let mut tree = Tree::default();
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let mode = meta.permissions().mode() & 0o777;
                let node = if meta.is_dir() {
                    open.push(path.clone());
                    Node::Dir { mode }
                } else if meta.is_symlink() {
                    Node::Link(fs::read_link(&path).unwrap())
                } else {
                    let bytes = fs::read(&path).unwrap();
                    let content = Content { len: bytes.len(), base: Arc::new(bytes), patches: Vec::new() };
                    Node::File { mode, content }
                };
                tree.0.insert(path.strip_prefix(root).unwrap().to_owned(), node);
            }
        }
        tree
    }

    /// A number that differs between states.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in &self.0 {
            path.as_os_str().hash(&mut hasher);
            match node {
                Node::Dir { mode } => mode.hash(&mut hasher),
                Node::Link(text) => text.as_os_str().hash(&mut hasher),
                Node::File { mode, content } => {
                    let base = (Arc::as_ptr(&content.base), content.len, mode);
                    (base, &content.patches).hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }

    /// A line for each entry, to compare and to print.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |(path, node): (&PathBuf, &Node)| match node {
            Node::Dir { mode } => format!("{}/ {mode:o}", path.display()),
            Node::Link(text) => format!("{} -> {}", path.display(), text.display()),
            Node::File { mode, content } => {
                let bytes = content.bytes();
                let sum = String::from_utf8(crate::home::slots::crc32(&bytes).to_vec()).unwrap();
                format!("{} {mode:o} {} bytes, crc32 {sum}", path.display(), bytes.len())
            }
        };
        self.0.iter().map(line).collect()
    }
}

/// A directory that is made equal to one tree after the other.
pub(super) struct Mirror {
    root: PathBuf,
    now: Tree,
    /// Ranges of files that are not what `now` says.
    dirty: BTreeMap<PathBuf, Vec<(usize, usize)>>,
}

impl Mirror {
    /// Takes the directory over, and empties it.
    pub(super) fn new(root: &Path) -> Mirror {
        for entry in fs::read_dir(root).unwrap() {
            remove(&entry.unwrap().path());
        }
        Mirror { root: root.to_owned(), now: Tree::default(), dirty: BTreeMap::new() }
    }

    /// Makes the directory equal to `tree`.
    pub(super) fn show(&mut self, tree: &Tree) {
        let keeps = |path: &PathBuf, node: &Node| match (tree.0.get(path), node) {
            (Some(Node::Dir { .. }), Node::Dir { .. }) => true,
            (Some(Node::Link(new)), Node::Link(old)) => new == old,
            (Some(Node::File { .. }), Node::File { .. }) => true,
            _ => false,
        };
        let gone: Vec<_> =
            self.now.0.iter().filter(|(path, node)| !keeps(path, node)).map(|(p, _)| p.clone()).collect();
        for path in gone {
            self.drop(&path);
        }
        for (path, node) in &tree.0 {
            self.set(path, node);
        }
        self.now = tree.clone();
        self.dirty.clear();
    }

    /// Takes note of what a recovery has changed.
    pub(super) fn changed(&mut self, ops: &[Op]) {
        let below = |path: &Path| path.strip_prefix(&self.root).unwrap().to_owned();
        let mut lost = Vec::new();
        for op in ops {
            match op {
                Op::Write(path, offset, bytes) => {
                    let at = *offset as usize;
                    self.dirty.entry(below(path)).or_default().push((at, at + bytes.len()));
                }
                Op::Create(path, _)
                | Op::Mode(path, _)
                | Op::Mkdir(path, _)
                | Op::Hardlink(_, path)
                | Op::Symlink(_, path)
                | Op::Remove(path) => lost.push(below(path)),
                Op::Rename(a, b) | Op::Exchange(a, b) => lost.extend([below(a), below(b)]),
                Op::Sync(..) | Op::Begin(_) | Op::Ack(_) => {}
            }
        }
        for path in lost {
            self.drop(&path);
        }
    }

    fn drop(&mut self, path: &Path) {
        remove(&self.root.join(path));
        self.now.0.retain(|known, _| !known.starts_with(path));
        self.dirty.retain(|known, _| !known.starts_with(path));
    }

    fn set(&self, path: &Path, node: &Node) {
        let (full, known) = (self.root.join(path), self.now.0.get(path));
        match (node, known) {
            (Node::Dir { mode }, Some(Node::Dir { mode: old })) if mode == old => {}
            (Node::Dir { mode }, Some(_)) => {
                fs::set_permissions(&full, Permissions::from_mode(*mode)).unwrap();
            }
            (Node::Dir { mode }, None) => DirBuilder::new().mode(*mode).create(&full).unwrap(),
            (Node::Link(_), Some(_)) => {}
            (Node::Link(text), None) => symlink(text, &full).unwrap(),
            (Node::File { mode, content }, Some(Node::File { mode: old_mode, content: old })) => {
                let dirty = self.dirty.get(path).map_or(&[][..], Vec::as_slice);
                if mode == old_mode && old.is(content) && dirty.is_empty() {
                    return;
                }
                let in_place = mode == old_mode
                    && mode & 0o200 != 0
                    && Arc::ptr_eq(&old.base, &content.base)
                    && [old.len, content.len] == [content.base.len(); 2];
                if in_place {
                    patch(&full, old, content, dirty);
                } else {
                    fs::remove_file(&full).unwrap();
                    write(&full, *mode, content);
                }
            }
            (Node::File { mode, content }, _) => write(&full, *mode, content),
        }
    }
}

fn patch(path: &Path, old: &Content, new: &Content, dirty: &[(usize, usize)]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let ranges = old.patches.iter().map(|(at, patch)| (*at, at + patch.len())).chain(dirty.iter().copied());
    for (from, to) in ranges {
        let to = to.min(new.len);
        if from < to {
            file.write_all_at(&new.base[from..to], from as u64).unwrap();
        }
    }
    for (at, patch) in &new.patches {
        file.write_all_at(patch, *at as u64).unwrap();
    }
    // A recovery may have made it longer.
    if file.metadata().unwrap().len() != new.len as u64 {
        file.set_len(new.len as u64).unwrap();
    }
}

fn write(path: &Path, mode: u32, content: &Content) {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(&content.bytes()).unwrap();
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}
