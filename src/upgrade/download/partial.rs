//! The part of a file that has arrived so far: a prefix on disk that outlives failures and restarts of ours.
//!
//! Beside the prefix stands a note of what it is a prefix of. The note is durable before the first
//! byte it speaks of is written, and the old bytes are gone before the note is: whatever a crash leaves
//! behind, a note never vouches for bytes of another body. A prefix is only ever a saving of time; what is
//! put together from it is verified like everything else.

use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::lock::{NEWBORN, try_lock, within};
use crate::home::space;
use crate::home::stamp::is_same_file;
use crate::home::{durable, regular};
use crate::name::Name;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The note: of which body the prefix is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    version: u32,
    /// Its source, without credentials.
    pub(super) url: String,
    /// The strong entity tag that the server gave the body.
    pub(super) etag: Option<String>,
    /// The size of the whole.
    pub(super) total: Option<u64>,
}

/// The claim on one upgrade's download, so that two never write to one file. It is released when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _file: File,
}

/// A prefix on disk.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    note_path: PathBuf,
    file: File,
    len: u64,
    note: Option<Note>,
}

impl Claim {
    /// Claims the download of an upgrade.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process or thread has it.
    pub(super) fn take(dir: &Path, name: &Name) -> Result<Self> {
        let claim = within(NEWBORN, || Claim::try_take(dir, name))?;
        claim.ok_or_else(|| {
            let what = format!("another download of {name} is under way");
            Error::new(Kind::Busy, what).at(Claim::path(dir, name).display())
        })
    }

    fn path(dir: &Path, name: &Name) -> PathBuf {
        dir.join(format!("{name}.lock"))
    }

    /// Claims it at once; `None` if another process or thread has it.
    fn try_take(dir: &Path, name: &Name) -> Result<Option<Self>> {
        let path = Claim::path(dir, name);
        loop {
            let file = open(&path)?;
            if !try_lock(&file, &path)? {
                return Ok(None);
            }
            // A sweep may have removed it since it was opened.
            if is_at(&file, &path) {
                return Ok(Some(Claim { _file: file }));
            }
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (open, there) = (file.metadata(), fs::symlink_metadata(path));
    open.is_ok_and(|open| there.is_ok_and(|there| is_same_file(&open, &there)))
}

impl Note {
    const VERSION: u32 = 1;
    const LIMIT: u64 = 64 * 1024;

    pub(super) fn new(url: String, etag: Option<String>, total: Option<u64>) -> Self {
        Note { version: Note::VERSION, url, etag, total }
    }

    /// A note that cannot be read is as good as none.
    fn load(path: &Path) -> Option<Self> {
        let text = regular::read(path, Note::LIMIT).ok()?;
        serde_json::from_slice(&text).ok().filter(|note: &Note| note.version == Note::VERSION)
    }
}

impl Partial {
    /// Opens what an earlier attempt has left, or an empty file.
    ///
    /// # Errors
    /// If the operating system refuses, or something that is not a file is in the way.
    pub(super) fn open(dir: &Path, name: &Name) -> Result<Self> {
        let (path, note_path) = Partial::paths(dir, name);
        let file = open(&path)?;
        let len = file.metadata().doing("inspect", &path)?.len();
        let note = Note::load(&note_path);
        let mut partial = Partial { path, note_path, file, len, note };
        let beyond = partial.note.as_ref().is_none_or(|note| note.total.is_some_and(|total| len > total));
        if beyond && len > 0 {
            partial.empty()?;
        }
        Ok(partial)
    }

    /// Removes prefix and note.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn remove(dir: &Path, name: &Name) -> Result<()> {
        let (path, note_path) = Partial::paths(dir, name);
        durable::remove(&path)?;
        durable::remove(&note_path)
    }

    fn paths(dir: &Path, name: &Name) -> (PathBuf, PathBuf) {
        (dir.join(format!("{name}.partial")), dir.join(format!("{name}.partial.json")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file that the prefix is of; `None` if there is no prefix.
    pub(super) fn note(&self) -> Option<&Note> {
        self.note.as_ref().filter(|_| self.len > 0)
    }

    /// Whether the prefix is the whole.
    pub(super) fn is_whole(&self) -> bool {
        self.note().is_some_and(|note| note.total == Some(self.len))
    }

    /// Whether a server can be asked for the rest, or there is none to ask for.
    pub(super) fn can_go_on(&self) -> bool {
        self.is_whole() || self.note().is_some_and(|note| note.etag.is_some())
    }

    /// Forgets the prefix and begins another body.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn begin(&mut self, note: Note) -> Result<()> {
        self.empty()?;
        self.write_note(note)
    }

    /// Forgets the prefix.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn empty(&mut self) -> Result<()> {
        if self.len > 0 {
            self.file.set_len(0).doing("truncate", &self.path)?;
            self.len = 0;
            self.sync()?;
        }
        self.note = None;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If writing fails.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        // A size that was announced had room when the download began, and others have written since.
        self.require_space(bytes.len() as u64)?;
        self.file.write_all_at(bytes, self.len).doing("write", &self.path)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Records that the body has ended here, though its size had not been announced.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub(super) fn complete(&mut self) -> Result<()> {
        let total = Some(self.len);
        match self.note.clone().filter(|note| note.total != total) {
            Some(note) => self.write_note(Note { total, ..note }),
            None => Ok(()),
        }
    }

    /// Makes the prefix durable.
    ///
    /// # Errors
    /// If syncing fails.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().doing("sync", &self.path)
    }

    /// Hands the prefix on in pieces.
    ///
    /// # Errors
    /// If reading fails, or the file is shorter than it was.
    pub(super) fn replay(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut chunk = vec![0; 128 * 1024];
        let mut at = 0;
        while at < self.len {
            let most = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(chunk.len());
            let read = self.file.read_exact_at(&mut chunk[..most], at);
            read.doing("read", &self.path)?;
            take(&chunk[..most]);
            at += most as u64;
        }
        Ok(())
    }

    /// Checks that there is space for this many more bytes.
    ///
    /// # Errors
    /// [`Kind::Io`] if they have not.
    pub(super) fn require_space(&self, bytes: u64) -> Result<()> {
        require_space(&self.file, &self.path, bytes)
    }

    fn write_note(&mut self, note: Note) -> Result<()> {
        let text = serde_json::to_vec(&note).expect("a note is plain data");
        durable::put(&self.note_path, &text, 0o600)?;
        self.note = Some(note);
        Ok(())
    }
}

/// A download not continued for this long is of an upgrade that was cancelled, or came another way.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Removes what is left of other downloads that were forgotten, and notes and locks of those that are complete. Left
/// over once more it does no harm.
pub(super) fn sweep(dir: &Path, now: SystemTime) {
    durable::sweep(dir);
    sweep_forgotten(dir, now);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".lock")?.parse::<Name>().ok());
        let Some(name) = name else { continue };
        let is_there = |suffix: &str| fs::symlink_metadata(dir.join(format!("{name}{suffix}"))).is_ok();
        // Looked at under the claim: another process may just have begun.
        if let Ok(Some(_claim)) = Claim::try_take(dir, &name)
            && !is_there(".partial")
            && !is_there(".binary")
        {
            let _ = fs::remove_file(dir.join(format!("{name}.partial.json")));
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn sweep_forgotten(dir: &Path, now: SystemTime) {
    let is_old = |modified| now.duration_since(modified).is_ok_and(|age| age > FORGOTTEN);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| {
            let suffixes = [".partial", ".partial.json", ".binary"];
            suffixes.iter().find_map(|suffix| file.strip_suffix(suffix))?.parse::<Name>().ok()
        });
        let Some(name) = name else { continue };
        if entry.metadata().and_then(|meta| meta.modified()).is_ok_and(is_old)
            && let Ok(Some(_claim)) = Claim::try_take(dir, &name)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Space that a download must leave free: the node may write to the same disk, and ends when it is full.
const RESERVE: u64 = 32 * 1024 * 1024;

/// Checks that the file system of an open file has space for this many more bytes.
///
/// # Errors
/// [`Kind::Io`] if it has not.
pub(super) fn require_space(file: &File, path: &Path, bytes: u64) -> Result<()> {
    let free = space::free_beside(file, path)?;
    if has_room(bytes, free) {
        return Ok(());
    }
    Err(Error::io("not enough space", path, io::ErrorKind::StorageFull.into()).hint(format!(
        "{bytes} bytes are needed and {free} are free, of which {RESERVE} are left to the node"
    )))
}

fn has_room(bytes: u64, free: u64) -> bool {
    bytes.checked_add(RESERVE).is_some_and(|needed| needed <= free)
}

/// Opens a file of ours for reading and writing, and never anything else at that path.
fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let (file, _) = regular::open_with(&mut options, OFlags::NOFOLLOW, path).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidInput => Error::new(Kind::Failed, "a download cannot be written")
            .at(path.display())
            .hint("move away what is there"),
        _ => Error::io("open", path, e),
    })?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).doing("chmod", path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "v2".parse().unwrap()
    }

    fn note(etag: &str, total: Option<u64>) -> Note {
        Note::new("http://a/x".to_owned(), Some(etag.to_owned()), total)
    }

    fn content(partial: &Partial) -> Vec<u8> {
        let mut bytes = Vec::new();
        partial.replay(|chunk| bytes.extend_from_slice(chunk)).unwrap();
        bytes
    }

    #[test]
    fn a_prefix_outlives_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let mut partial = Partial::open(dir.path(), &name()).unwrap();
        assert_eq!((partial.len(), partial.note()), (0, None));
        partial.begin(note("\"1\"", Some(5))).unwrap();
        partial.append(b"he").unwrap();
        let mut partial = Partial::open(dir.path(), &name()).unwrap();
        assert_eq!(partial.note(), Some(&note("\"1\"", Some(5))));
        assert_eq!(content(&partial), b"he");
        partial.append(b"llo").unwrap();
        assert!(partial.is_whole());
        assert_eq!(content(&partial), b"hello");
        partial.begin(note("\"2\"", None)).unwrap();
        partial.append(b"x").unwrap();
        assert!(!partial.is_whole());
        partial.complete().unwrap();
        assert!(Partial::open(dir.path(), &name()).unwrap().is_whole());
        Partial::remove(dir.path(), &name()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_prefix_without_a_sensible_note_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "{\"version\":2,\"url\":\"\",\"etag\":null,\"total\":null}",
            "{\"version\":1,\"url\":\"\",\"etag\":null,\"total\":1}",
        ] {
            fs::write(dir.path().join("v2.partial"), "stale").unwrap();
            fs::write(dir.path().join("v2.partial.json"), text).unwrap();
            assert_eq!(Partial::open(dir.path(), &name()).unwrap().len(), 0, "{text}");
        }
        fs::remove_file(dir.path().join("v2.partial.json")).unwrap();
        fs::write(dir.path().join("v2.partial"), "stale").unwrap();
        assert_eq!(Partial::open(dir.path(), &name()).unwrap().len(), 0);
    }

    #[test]
    fn nothing_but_a_file_of_ours_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("v2.partial"), dir.path().join("precious"));
        fs::write(&precious, "x").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        Partial::open(dir.path(), &name()).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        Partial::open(dir.path(), &name()).unwrap_err();
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Partial::open(dir.path(), &name()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(precious).unwrap(), b"x");
    }

    #[test]
    fn one_download_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path(), &name()).unwrap();
        assert_eq!(Claim::take(dir.path(), &name()).unwrap_err().kind(), Kind::Busy);
        Claim::take(dir.path(), &"v3".parse().unwrap()).unwrap();
        drop(claim);
        Claim::take(dir.path(), &name()).unwrap();
    }

    #[test]
    fn a_forgotten_download_is_removed_unless_a_process_works_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let month = FORGOTTEN + Duration::from_secs(60);
        for (file, age) in [
            ("old.partial", month),
            ("old.partial.json", month),
            ("old.binary", month),
            ("claimed.partial", month),
            ("new.partial", FORGOTTEN - Duration::from_secs(60)),
            ("ahead.partial", Duration::ZERO),
            ("notes.txt", month),
            (".hidden.partial", month),
            ("complete.lock", Duration::ZERO),
            ("complete.partial.json", Duration::ZERO),
            ("new.lock", Duration::ZERO),
        ] {
            let file = File::create(dir.path().join(file)).unwrap();
            file.set_modified(now - age).unwrap();
        }
        let claim = Claim::take(dir.path(), &"claimed".parse().unwrap()).unwrap();
        sweep(dir.path(), now);
        drop(claim);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let kept = [
            ".hidden.partial",
            "ahead.partial",
            "claimed.lock",
            "claimed.partial",
            "new.lock",
            "new.partial",
        ];
        assert_eq!(left[..6], kept);
        assert_eq!(left[6..], ["notes.txt"]);
    }

    #[test]
    fn space_is_asked_for_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let partial = Partial::open(dir.path(), &name()).unwrap();
        partial.require_space(1).unwrap();
        let err = partial.require_space(u64::MAX).unwrap_err();
        assert_eq!(err.os().unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn the_last_of_the_disk_is_left_to_the_node() {
        assert!(has_room(10, RESERVE + 10) && !has_room(10, RESERVE + 9));
        assert!(!has_room(0, RESERVE - 1) && !has_room(u64::MAX, u64::MAX));
    }
}
