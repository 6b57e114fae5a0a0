//! A home as it is on disk, to be compared with another: names, kinds, modes, content.
//!
//! Times differ from run to run and are blanked, and so are the holders that locks name. The journal is compared by its record, because its sequence number
//! counts the writes. Temporary files of processes that have ended are listed apart.

use crate::rig::visor::Rig;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use wemixvisor::digest::Digest;
use wemixvisor::home::Home;
use wemixvisor::upgrade::journal::Journal;

/// A home at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The home of a rig, and the temporary files in it.
    pub(super) fn of(rig: &Rig) -> (Tree, Vec<String>) {
        let (mut tree, mut temporary) = (Tree::default(), Vec::new());
        tree.add(&rig.home(), "", &mut temporary);
        let home = Home::new(rig.home(), "simnode").unwrap();
        if Journal::exists(&home).unwrap_or(false) {
            let record = Journal::open(&home).map(|opened| format!("{:?}", opened.record));
            tree.files.insert("the journal's record".into(), record.unwrap_or_else(|e| e.to_string()));
        }
        (tree, temporary)
    }

    fn add(&mut self, dir: &Path, at: &str, temporary: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let (path, below) = (entry.path(), format!("{at}/{name}"));
            if name.starts_with('.') && name.ends_with(".tmp") {
                temporary.push(below);
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, mode) = (meta.file_type(), meta.permissions().mode() & 0o7777);
            let content = if kind.is_dir() {
                self.add(&path, &below, temporary);
                "directory".into()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_socket() || below.contains("/state/journal") {
                continue;
            } else if path.extension().is_some_and(|e| e == "lock") || name == "lock" {
                "its last holder".into()
            } else {
                content_of(&path)
            };
            self.files.insert(below, format!("{mode:o} {content}"));
        }
    }

    /// How another home differs from this one, a line each.
    pub(super) fn differences(&self, other: &Tree) -> Vec<String> {
        let names =
            self.files.keys().chain(other.files.keys().filter(|name| !self.files.contains_key(*name)));
        let differ = names.filter(|name| self.files.get(*name) != other.files.get(*name));
        let show =
            |tree: &Tree, name: &str| tree.files.get(name).cloned().unwrap_or_else(|| "nothing".into());
        differ.map(|name| format!("{name}: {} became {}", show(self, name), show(other, name))).collect()
    }
}

/// A file's text without its times; the digest of what is no text.
fn content_of(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    match String::from_utf8(bytes) {
        Ok(text) if text.len() < 64 * 1024 => without_times(&text),
        Ok(text) => Digest::sha256(text.as_bytes()).hex(),
        Err(e) => Digest::sha256(e.as_bytes()).hex(),
    }
}

/// The text with every time of RFC 3339 blanked.
fn without_times(text: &str) -> String {
    const SHAPE: &str = "dddd-dd-ddTdd:dd:dd";
    let is_time = |rest: &str| {
        rest.len() >= SHAPE.len()
            && rest.bytes().zip(SHAPE.bytes()).all(|(byte, shape)| match shape {
                b'd' => byte.is_ascii_digit(),
                _ => byte == shape,
            })
    };
    let (mut blanked, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        if is_time(rest) {
            blanked.push_str("TIME");
            rest = rest[SHAPE.len()..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            blanked.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    blanked
}

/// Makes `to` a copy of a directory, whatever was there.
pub(super) fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    if from.exists() {
        let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(done.success(), "copy {}", from.display());
    }
}
