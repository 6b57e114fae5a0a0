//! `manifest.json` of a backup: what is in it, how each file got there, and which bytes it must have.
//!
//! A backup is complete and durable before its digests are known: while a node is down nothing is hashed. Until they
//! have been added it is *unverified*, and what is known of each file is its size and the time of its content.

use super::copy::Method;
use super::names::is_key;
use crate::digest::Digest;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::lock::{Claim, busy, claim_dir};
use crate::home::regular::{self, found};
use crate::home::{Home, durable};
use crate::machine::Block;
use crate::name::Name;
use crate::sorted;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The upgrade that it was made for, or the name that the operator has given it.
    pub upgrade: Name,
    /// The origin of the order.
    #[serde(default)]
    pub made_by: MadeBy,
    /// When, RFC 3339.
    pub time: String,
    /// How long that took, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// The data directory that was copied.
    pub source: PathBuf,
    /// The head of the chain at that time, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Block>,
    /// The version of the node that had written the data: `genesis` or `upgrades/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The sum of all file sizes in bytes.
    pub bytes: u64,
    /// The fingerprint of the tree that was copied: data that has changed since has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Digest>,
    /// The patterns of what was left out beside the keys that every node has. A restore leaves it as it is, whatever is
    /// configured by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The damage that was found since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Everything in it, parents first.
    pub entries: Vec<Entry>,
}

/// The origin of the order for a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeBy {
    /// An upgrade. There are only as many of these as are to be kept.
    #[default]
    Upgrade,
    /// `wemixvisor backup create`. Only the operator removes it.
    Operator,
}

/// One entry of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path below the data directory.
    pub path: String,
    /// The permission bits.
    pub mode: u32,
    /// Its type.
    #[serde(flatten)]
    pub content: Content,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Content {
    /// A directory.
    Dir,
    /// A relative link that stays in the data directory.
    Link {
        /// Its text.
        to: String,
    },
    /// A file.
    #[serde(alias = "copy")]
    File {
        /// Its size in bytes.
        size: u64,
        /// When its content was written last, in seconds and nanoseconds. Older manifests do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified: Option<(i64, i64)>,
        /// How it got here.
        #[serde(default)]
        method: Method,
        /// Its digest, once that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Digest>,
    },
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name, which is that of its directory.
    pub name: String,
    /// Its contents.
    pub manifest: Manifest,
}

/// The knowledge about the bytes of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The digests of its files are not all known yet.
    Unverified,
    /// The digests are known.
    Verified,
    /// It differs from its manifest.
    Damaged,
}

/// The files that got into a backup by one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The number of files.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

pub(super) const VERSION: u32 = 2;
/// The first version, which had a digest for every file.
const FIRST: u32 = 1;
/// A larger manifest is not one of ours: it would name millions of files.
const LIMIT: u64 = 1 << 30;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DATA: &str = "data";

impl Manifest {
    /// The files by method.
    pub fn share(&self, by: Method) -> Share {
        let sizes = self.entries.iter().filter_map(|entry| match &entry.content {
            Content::File { size, method, .. } if *method == by => Some(*size),
            Content::File { .. } | Content::Dir | Content::Link { .. } => None,
        });
        sizes.fold(Share::default(), |sum, size| Share { files: sum.files + 1, bytes: sum.bytes + size })
    }

    /// The methods that were used, as one word: `hardlink+copy`.
    pub fn method(&self) -> String {
        let used = Method::ALL.into_iter().filter(|method| self.share(*method).files > 0);
        let used: Vec<String> = used.map(|method| method.to_string()).collect();
        if used.is_empty() { Method::Copy.to_string() } else { used.join("+") }
    }

    /// The knowledge about its bytes.
    pub fn state(&self) -> State {
        let lacks_digest = |e: &Entry| matches!(e.content, Content::File { sha256: None, .. });
        match &self.damaged {
            Some(_) => State::Damaged,
            None if self.entries.iter().any(lacks_digest) => State::Unverified,
            None => State::Verified,
        }
    }
}

impl Backup {
    /// The directory of the copied tree.
    pub fn data(&self, home: &Home) -> PathBuf {
        home.backups().join(&self.name).join(DATA)
    }

    /// How it was made, in one line of `key=value`.
    pub fn how(&self) -> String {
        let Manifest { bytes, took_ms, .. } = self.manifest;
        let copied = self.manifest.share(Method::Copy).bytes;
        let (method, mib) = (self.manifest.method(), |bytes: u64| bytes.div_ceil(1 << 20));
        format!("method={method} mib={} copied_mib={} took={took_ms}ms", mib(bytes), mib(copied))
    }

    /// Whether it has the name under which it was made: a copy of a backup has another one, and is the operator's.
    pub(super) fn is_original(&self) -> bool {
        self.name == name_of(&self.manifest.upgrade, &self.manifest.time)
    }

    /// Claims it, so that no other process removes it or changes its manifest meanwhile: alone, or beside others that only
    /// read it.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process has claimed it.
    pub(in crate::upgrade) fn claim(&self, home: &Home, claim: Claim) -> Result<File> {
        let path = home.backups().join(&self.name);
        let claim = claim_dir(&path, claim)?;
        claim.ok_or_else(|| busy(&path).hint("try again when it has ended"))
    }

    /// Replaces the manifest durably.
    pub(super) fn save(&self, home: &Home) -> Result<()> {
        let path = home.backups().join(&self.name).join(MANIFEST);
        durable::put(&path, &durable::json_line(&self.manifest), 0o600)
    }
}

/// The name of a backup that was made for `name` at a time as in RFC 3339.
pub(super) fn name_of(name: &Name, time: &str) -> String {
    format!("{name}-{}", time.replace([':', '-'], "").replace('.', "_"))
}

/// The finished backups, oldest first.
///
/// # Errors
/// If the backup directory cannot be listed.
pub fn list(home: &Home) -> Result<Vec<Backup>> {
    list_of(home, &|_| true)
}

/// The finished backups whose names are `wanted`, oldest first. The manifests of the others, which may be large, are not
/// read.
pub(super) fn list_of(home: &Home, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Backup>> {
    list_by(home, wanted, &load)
}

/// The same, and what has the place of a backup and a manifest that cannot be read: a damaged one, so that the operator
/// sees it and can remove it. Nothing else counts it.
///
/// # Errors
/// As [`list`].
pub fn list_all(home: &Home) -> Result<Vec<Backup>> {
    list_by(home, &|_| true, &load_any)
}

fn list_by(
    home: &Home,
    wanted: &dyn Fn(&str) -> bool,
    load: &dyn Fn(&Home, &str) -> Result<Backup>,
) -> Result<Vec<Backup>> {
    let dir = home.backups();
    let Some(entries) = found(fs::read_dir(dir)).doing("list", dir)? else { return Ok(Vec::new()) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names = names.filter(|name| !name.starts_with('.') && wanted(name));
    let mut backups: Vec<_> = names.filter_map(|name| load(home, &name).ok()).collect();
    sorted::by(&mut backups, |a, b| (&a.manifest.time, &a.name).cmp(&(&b.manifest.time, &b.name)));
    Ok(backups)
}

/// One finished backup; one whose manifest cannot be read as a damaged one, of which nothing is known.
///
/// # Errors
/// [`Kind::NotFound`] if there is none of this name.
pub(super) fn load_any(home: &Home, name: &str) -> Result<Backup> {
    load(home, name).or_else(|why| {
        let upgrade = name.trim_end_matches('/').parse().ok().filter(|_| why.kind() != Kind::NotFound);
        let Some(upgrade) = upgrade else { return Err(why) };
        let manifest = Manifest {
            version: VERSION,
            upgrade,
            made_by: MadeBy::Operator,
            time: String::new(),
            took_ms: 0,
            source: PathBuf::new(),
            head: None,
            node: None,
            bytes: 0,
            tree: None,
            left_out: Vec::new(),
            damaged: Some(why.to_string()),
            entries: Vec::new(),
        };
        Ok(Backup { name: name.trim_end_matches('/').to_owned(), manifest })
    })
}

/// One finished backup.
///
/// # Errors
/// [`Kind::NotFound`] if there is none of this name; [`Kind::BadInput`] if its manifest is bad.
pub fn load(home: &Home, name: &str) -> Result<Backup> {
    // As a shell completes the name of a directory.
    let name = name.trim_end_matches('/');
    let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
    let path = home.backups().join(name).join(MANIFEST);
    let text = match regular::read(&path, LIMIT) {
        Ok(text) if plain => text,
        // A file beside the backups is none.
        Err(e) if plain && !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Error::io("read", &path, e));
        }
        _ => {
            let none = Error::new(Kind::NotFound, format!("no backup {name:?}")).at(home.backups().display());
            return Err(none.hint("see `wemixvisor backup list`"));
        }
    };
    let bad = || Error::new(Kind::BadInput, "read manifest").at(path.display());
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| bad().because(e))?;
    if !(FIRST..=VERSION).contains(&manifest.version) {
        return Err(bad().because(format!("version {} is not known here", manifest.version)));
    }
    let good = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_))) && !is_key(path);
    if !manifest.entries.iter().all(|entry| good(Path::new(&entry.path))) {
        return Err(bad().because("an entry is outside of the data directory, or a key"));
    }
    Ok(Backup { name: name.to_owned(), manifest })
}

impl Entry {
    /// The size of a file; 0 for anything else.
    pub fn size(&self) -> u64 {
        match self.content {
            Content::File { size, .. } => size,
            Content::Dir | Content::Link { .. } => 0,
        }
    }
}
