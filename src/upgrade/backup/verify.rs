//! Verification of a backup against its manifest, and the digests that are added to the manifest later.

use super::Backup;
use super::manifest::{Content, Entry, Manifest, State};
use super::work::{Gauge, Work};
use crate::digest::{Algorithm, Digest, Hasher, read_some};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::beneath::Beneath;
use crate::home::durable;
use crate::home::lock::Claim;
use crate::home::tree::{Item, ItemKind, walk};
use crate::sorted;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const CHUNK: usize = 1024 * 1024;
/// The interval at which new digests are saved, so that little is read again after an interruption.
const SAVE: Duration = Duration::from_secs(60);
/// The number of files that are read between two looks at the clock.
const BATCH: usize = 64;

/// Checks every byte of a backup against its manifest, as far as that has digests, while no other process changes it.
///
/// # Errors
/// [`Kind::Verification`] with the first entry that is missing, different or superfluous; [`Kind::Busy`] if another
/// process changes the backup.
pub fn verify(work: &mut Work<'_>, backup: &Backup) -> Result<()> {
    let _claim = backup.claim(work.home, Claim::Shared)?;
    check_tree(work, &backup.data(work.home), &backup.manifest, &|_| true)
}

/// Adds the digests that the manifest of a backup lacks, durably. A backup that has all its digests is checked against
/// them instead.
///
/// # Errors
/// [`Kind::Verification`] if the backup is damaged. The manifest records the damage, unless another process reads the
/// backup at that moment.
pub fn complete(work: &mut Work<'_>, mut backup: Backup) -> Result<Backup> {
    let (claim, checked) = match backup.manifest.state() {
        State::Verified => {
            // A process that was killed may have left the manifest before it was durable.
            durable::sync_dir(&work.home.backups().join(&backup.name))?;
            (None, verify(work, &backup))
        }
        State::Unverified => {
            let claim = backup.claim(work.home, Claim::Alone)?;
            (Some(claim), add_digests(work, &mut backup))
        }
        State::Damaged => {
            let damage = backup.manifest.damaged.unwrap_or_default();
            return Err(Error::new(Kind::Verification, damage));
        }
    };
    let Err(e) = checked else { return Ok(backup) };
    if e.kind() == Kind::Verification
        && let Ok(_claim) = claim.map_or_else(|| backup.claim(work.home, Claim::Alone), Ok)
    {
        backup.manifest.damaged = Some(e.to_string());
        backup.save(work.home)?;
    }
    Err(e)
}

/// The files whose time of content must be that of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timed {
    /// Those without a digest: with one the time adds nothing.
    WithoutDigest,
    /// All, while digests are added: a digest is worth only as much as the file that it was taken of.
    All,
}

fn add_digests(work: &mut Work<'_>, backup: &mut Backup) -> Result<()> {
    let root = backup.data(work.home);
    check_shape(&root, &backup.manifest, &|_| true, Timed::All)?;
    let lacking: Vec<usize> = (0..backup.manifest.entries.len())
        .filter(|at| matches!(backup.manifest.entries[*at].content, Content::File { sha256: None, .. }))
        .collect();
    let mut saved = Instant::now();
    let mut done = 0;
    for batch in lacking.chunks(BATCH) {
        let entries: Vec<&Entry> = batch.iter().map(|at| &backup.manifest.entries[*at]).collect();
        let found = hash_all(work, &root, &entries, (done, backup.manifest.bytes));
        if found.is_err() && done > 0 {
            // Keeps the digests that are known: their files need not be read again.
            backup.save(work.home)?;
        }
        done += entries.iter().map(|entry| entry.size()).sum::<u64>();
        for (at, digest) in batch.iter().zip(found?) {
            if let Content::File { sha256, .. } = &mut backup.manifest.entries[*at].content {
                *sha256 = Some(digest);
            }
        }
        if saved.elapsed() >= SAVE {
            saved = Instant::now();
            backup.save(work.home)?;
        }
    }
    // Sizes and times that are still those of the manifest show that no file changed before it was read.
    check_shape(&root, &backup.manifest, &|_| true, Timed::All)?;
    backup.save(work.home)
}

/// Checks a tree against a manifest: the entries that `counts` lets pass.
///
/// # Errors
/// As [`verify`].
pub(in crate::upgrade) fn check_tree(
    work: &mut Work<'_>,
    root: &Path,
    manifest: &Manifest,
    counts: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    check_shape(root, manifest, counts, Timed::WithoutDigest)?;
    let has_digest =
        |e: &&Entry| counts(Path::new(&e.path)) && matches!(e.content, Content::File { sha256: Some(_), .. });
    let entries: Vec<&Entry> = manifest.entries.iter().filter(has_digest).collect();
    let found = hash_all(work, root, &entries, (0, manifest.bytes))?;
    let differs = |(entry, found): (&&Entry, Digest)| match entry.content {
        Content::File { sha256: Some(digest), .. } if digest != found => Some(root.join(&entry.path)),
        Content::File { .. } | Content::Dir | Content::Link { .. } => None,
    };
    match entries.iter().zip(found).find_map(differs) {
        Some(path) => Err(damaged(&path, "its content has changed")),
        None => Ok(()),
    }
}

/// Checks everything but the bytes: the entries, their kinds, sizes and times.
fn check_shape(root: &Path, manifest: &Manifest, counts: &dyn Fn(&Path) -> bool, timed: Timed) -> Result<()> {
    let items = walk(root, counts)?;
    let mut found: BTreeMap<&Path, &Item> = sorted::gather(items.iter().map(|item| (&*item.path, item)));
    for entry in manifest.entries.iter().filter(|entry| counts(Path::new(&entry.path))) {
        let path = root.join(&entry.path);
        let Some(item) = found.remove(Path::new(&entry.path)) else {
            return Err(damaged(&path, "this is missing"));
        };
        let is_right = match &entry.content {
            Content::Dir => item.kind == ItemKind::Dir,
            Content::Link { to } => fs::read_link(&path).is_ok_and(|text| text == Path::new(to)),
            Content::File { size, modified, sha256, .. } => {
                let is_timed = timed == Timed::All || sha256.is_none();
                let is_of_time = modified.is_none_or(|modified| modified == item.stamp.modified);
                item.kind == ItemKind::File && item.len() == *size && (is_of_time || !is_timed)
            }
        };
        if !is_right {
            return Err(damaged(&path, "its kind, size, time or target has changed"));
        }
    }
    match found.keys().next() {
        Some(extra) => Err(damaged(&root.join(extra), "the manifest does not know this")),
        None => Ok(()),
    }
}

/// The digests of these files. For the progress, `whole` has the number of bytes that were read before and the total.
fn hash_all(work: &mut Work<'_>, root: &Path, entries: &[&Entry], whole: (u64, u64)) -> Result<Vec<Digest>> {
    let total = entries.iter().map(|entry| entry.size()).sum();
    let hash = |entry: &&Entry, gauge: &dyn Gauge| {
        let full = root.join(&entry.path);
        let mut beneath = Beneath::new(root).doing("open", root)?;
        let (file, _) = beneath.file(Path::new(&entry.path)).doing("open", &full)?;
        hash(file, &full, gauge)
    };
    let Work { home, options, background, cancel, .. } = *work;
    let mut progress = |done, _| (work.progress)(whole.0 + done, whole.1);
    Work { home, options, background, cancel, progress: &mut progress }.each(entries, total, &hash)
}

fn hash(mut file: fs::File, path: &Path, gauge: &dyn Gauge) -> Result<Digest> {
    let (mut hasher, mut chunk) = (Hasher::new(Algorithm::Sha256), vec![0; CHUNK]);
    while let read @ 1.. = read_some(&mut file, &mut chunk).doing("read", path)? {
        hasher.update(&chunk[..read]);
        gauge.add(read as u64)?;
    }
    Ok(hasher.finish())
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(Kind::Verification, format!("the backup is damaged: {why}")).at(path.display())
}
