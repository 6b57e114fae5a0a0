//! A home as it is on disk, to be compared with another: names, kinds, modes, content.
//!
//! Times differ from run to run and are blanked, and so are the holders that locks name, and what a backup owes to the moment
//! and to the file system. The journal is compared by its record, because its sequence number
//! counts the writes. Temporary files of processes that have ended are listed apart.

use crate::rig::visor::Rig;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use wemixvisor::Digest;
use wemixvisor::home::Home;
use wemixvisor::inside::journal::Journal;

/// A home at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The home of a rig, and the temporary files in it.
    pub(super) fn of(rig: &Rig) -> (Tree, Vec<String>) {
        let (mut tree, mut temporary) = (Tree::default(), Vec::new());
        let home = Home::new(rig.home(), "simnode").unwrap();
        // First: the next process that opens the journal puts state/upgrading right.
        if Journal::exists(&home).unwrap_or(false) {
            let record = Journal::open(&home).map(|opened| format!("{:?}", opened.record));
            tree.files.insert("the journal's record".into(), record.unwrap_or_else(|e| e.to_string()));
        }
        tree.add(&rig.home(), "", &mut temporary);
        (tree, temporary)
    }

    fn add(&mut self, dir: &Path, at: &str, temporary: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let (path, below) = (entry.path(), format!("{at}/{}", without_times(&name)));
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
        Ok(text) if text.len() < 64 * 1024 => without_times(&without_chance(text)),
        Ok(text) => Digest::sha256(text.as_bytes()).hex(),
        Err(e) => Digest::sha256(e.as_bytes()).hex(),
    }
}

/// The description of a backup or a restore, without how long it took, which inodes there were, and how each file got
/// there: a call that fails may leave another way.
fn without_chance(text: String) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) else { return text };
    if fields.remove("tree").is_none() {
        return text;
    }
    fields.remove("took_ms");
    let entries = fields.get_mut("entries").and_then(Value::as_array_mut).into_iter().flatten();
    for entry in entries.filter_map(Value::as_object_mut) {
        entry.remove("method");
    }
    Value::Object(fields).to_string()
}

/// The text with every time blanked: of RFC 3339, and as it is in the names of files.
fn without_times(text: &str) -> String {
    const SHAPES: [&str; 2] = ["dddd-dd-ddTdd:dd:dd", "ddddddddTdddddd"];
    let is_of = |rest: &str, shape: &str| {
        rest.len() >= shape.len()
            && rest.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
                b'd' => byte.is_ascii_digit(),
                _ => byte == shape,
            })
    };
    let (mut blanked, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        if let Some(shape) = SHAPES.iter().find(|shape| is_of(rest, shape)) {
            blanked.push_str("TIME");
            let is_fraction = |c: char| c.is_ascii_digit() || c == '.' || c == '_';
            rest = rest[shape.len()..].trim_start_matches(is_fraction);
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
