//! Copying one file, hashing what passes, and noticing when another process writes to it meanwhile.

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::home::binary::open_regular;
use crate::home::trace::{Effect, note};
use crate::upgrade::Cancel;
use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const CHUNK: usize = 1024 * 1024;

/// Copies files one after the other, counting the bytes.
pub(in crate::upgrade) struct Copier<'a> {
    cancel: &'a Cancel,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
    chunk: Vec<u8>,
}

impl<'a> Copier<'a> {
    pub(in crate::upgrade) fn new(
        cancel: &'a Cancel,
        total: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Copier { cancel, progress, done: 0, total, chunk: vec![0; CHUNK] }
    }

    /// Copies a file with its modification time; the copy is new and has `mode`. It is not synced.
    pub(in crate::upgrade) fn copy(&mut self, from: &Path, to: &Path, mode: u32) -> Result<(u64, Digest)> {
        let source = open_regular(from)?;
        let before = source.metadata().map_err(|e| Error::io("inspect", from, e))?;
        let written = |e| Error::io("write", to, e);
        let mut copy =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(written)?;
        note(Effect::Create(to, 0o600));
        let mut offset = 0;
        let (size, digest) = self.pass(&source, from, &mut |bytes| {
            copy.write_all(bytes).map_err(written)?;
            note(Effect::Write(to, offset, bytes));
            offset += bytes.len() as u64;
            Ok(())
        })?;
        let after = source.metadata().map_err(|e| Error::io("inspect", from, e))?;
        let modified = before.modified().map_err(|e| Error::io("inspect", from, e))?;
        if size != before.len() || after.len() != size || after.modified().ok() != Some(modified) {
            return Err(Error::new(Kind::Failed, "the file changed while it was copied")
                .at(from.display())
                .hint("find out which process writes to the data directory"));
        }
        copy.set_times(FileTimes::new().set_modified(modified)).map_err(written)?;
        copy.set_permissions(Permissions::from_mode(mode)).map_err(written)?;
        note(Effect::Mode(to, mode));
        Ok((size, digest))
    }

    /// The digest of a file.
    pub(in crate::upgrade) fn hash(&mut self, path: &Path) -> Result<Digest> {
        Ok(self.pass(&open_regular(path)?, path, &mut |_| Ok(()))?.1)
    }

    fn pass(
        &mut self,
        mut source: &File,
        path: &Path,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(u64, Digest)> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut size = 0;
        loop {
            if self.cancel.is_cancelled() {
                return Err(Error::new(Kind::Failed, "cancelled").at(path.display()));
            }
            let n = match source.read(&mut self.chunk) {
                Ok(0) => return Ok((size, hasher.finish())),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read", path, e)),
            };
            hasher.update(&self.chunk[..n]);
            sink(&self.chunk[..n])?;
            size += n as u64;
            self.done += n as u64;
            (self.progress)(self.done, self.total);
        }
    }
}
