//! The flows whose crash states are judged.

pub(super) mod binaries;
pub(super) mod data;
pub(super) mod primitives;
pub(super) mod records;

use super::Flow;
use crate::home::Home;
use crate::home::trace::{Effect, note};
use crate::upgrade::sweep::sweep;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// All of them.
pub(super) const ALL: [Flow; 16] = [
    primitives::PUT,
    primitives::MKDIR,
    primitives::LINK,
    primitives::REMOVE,
    primitives::PROMOTE,
    primitives::EXCHANGE,
    records::JOURNAL,
    records::NEW_JOURNAL,
    records::HEAD,
    records::SCHEDULE,
    records::HISTORY,
    binaries::STAGE,
    binaries::SWITCH,
    data::BACKUP,
    data::KEEP,
    data::RESTORE,
];

/// Bytes that are different for each number, over several pages for some of them.
fn bytes(number: usize) -> Vec<u8> {
    let lengths = [10, 5000, 300, 20_000, 4096, 1];
    let length = lengths[number % lengths.len()];
    (0..length).map(|at| (at * 7 + number * 31 + at / 251) as u8 | 1).collect()
}

/// Writes a file, without a sync.
fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    note(Effect::Create(path, 0o600));
    file.write_all(bytes).unwrap();
    note(Effect::Write(path, 0, bytes));
}

/// Makes a directory, without a sync.
fn make_dir(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    note(Effect::Mkdir(path, 0o700));
}

/// An error as the answer of a law.
fn text(error: impl Display) -> String {
    error.to_string()
}

/// Sweeps the home, and finds nothing left whose name begins with a dot.
fn nothing_is_left(home: &Home) -> Result<(), String> {
    // The sweep looks into a dozen directories, so it is spared where there is nothing.
    if !has_hidden(home.root()) {
        return Ok(());
    }
    sweep(home).remove();
    match has_hidden(home.root()) {
        true => Err(format!("the sweep leaves {:?}", super::tree::Tree::read(home.root()).lines())),
        false => Ok(()),
    }
}

fn has_hidden(dir: &Path) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        entry.file_name().as_encoded_bytes().starts_with(b".")
            || entry.file_type().is_ok_and(|kind| kind.is_dir()) && has_hidden(&entry.path())
    })
}
