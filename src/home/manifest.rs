//! `manifest.json` beside a staged binary: which bytes it must have, and how they were verified.
//!
//! Nothing is executed unless it matches its manifest at that moment. Fields that this version does
//! not know are kept when it writes a manifest again.

use super::binary::open_regular;
use super::{durable, regular};
use crate::digest::{Algorithm, Digest};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// The facts about a staged binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The SHA-256 of the binary.
    pub sha256: Digest,
    /// The size of the binary in bytes.
    pub size: u64,
    /// The path or URL that it came from.
    pub source: String,
    /// How it was verified before it was staged.
    pub verified: Verified,
    /// The public key of the signature that was checked, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The digest that the upgrade pinned when the binary was fetched: that of the file that was
    /// downloaded, which may be an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Digest>,
    /// The version that the binary reported when it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// Whether the operator has staged it although it is the binary that runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insisted: bool,
    /// When it was staged, RFC 3339.
    pub time: String,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The proof that a binary can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// The operator gave us the file by hand: `init` or `upgrade add`.
    Operator,
    /// It was in place when the home was adopted by `init --import`.
    Import,
    /// It matched a digest that the plan, schedule or trigger pinned.
    Digest,
    /// It matched a checksum file that was downloaded with it.
    ChecksumFile,
    /// It was signed by a key that the operator trusts.
    Signature,
    /// The operator switched checks off (`unsafe_skip_checksum`).
    Unchecked,
}

impl Manifest {
    /// The version of the format that this program writes.
    pub const VERSION: u32 = 1;
    const LIMIT: u64 = 64 * 1024;

    /// A manifest of now.
    pub fn new(sha256: Digest, size: u64, source: impl Into<String>, verified: Verified) -> Self {
        Manifest {
            version: Manifest::VERSION,
            sha256,
            size,
            source: source.into(),
            verified,
            key: None,
            pinned: None,
            told: None,
            insisted: false,
            time: rfc3339(SystemTime::now()),
            other: Map::new(),
        }
    }

    /// Reads a manifest; `None` if there is none.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if it is not one, or was written by a newer version.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let bad = || Error::new(Kind::BadInput, "read manifest").at(path.display());
        let bytes = match regular::found(regular::read(path, Manifest::LIMIT)) {
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => {
                return Err(bad().because(e));
            }
            read => read.doing("read", path)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| {
            bad().because(e).hint("stage the binary again with `wemixvisor upgrade add --force`")
        })?;
        if manifest.version != Manifest::VERSION {
            return Err(bad().because(format!("version {} is not known here", manifest.version)));
        }
        if manifest.sha256.algorithm() != Algorithm::Sha256 {
            return Err(bad().because("sha256 is not a SHA-256 digest"));
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest durably.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        durable::put(path, &self.to_bytes(), 0o600)
    }

    /// The text of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("every key of a manifest is a string");
        text.push(b'\n');
        text
    }

    /// Checks that the file at `binary` has the size and digest of this manifest.
    ///
    /// # Errors
    /// [`Kind::Verification`] if it has not.
    pub fn check(&self, binary: &Path) -> Result<()> {
        let wrong = |why: String| {
            Error::new(Kind::Verification, "the binary is not the one that was staged")
                .at(binary.display())
                .because(why)
                .hint("find out who changed it, then stage it again with `wemixvisor upgrade add --force`")
        };
        let file = open_regular(binary)?;
        let size = file.metadata().doing("inspect", binary)?.len();
        if size != self.size {
            return Err(wrong(format!("it has {size} bytes instead of {}", self.size)));
        }
        let found = Digest::of_reader(Algorithm::Sha256, file).doing("read", binary)?;
        if found != self.sha256 {
            return Err(wrong(format!("it is {found} instead of {}", self.sha256)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn keeps_fields_that_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        assert_eq!(Manifest::load(&path).unwrap(), None);
        let mut manifest = Manifest::new(Digest::sha256(b"x"), 1, "/tmp/x", Verified::Operator);
        manifest.other.insert("builder".to_owned(), "ci".into());
        manifest.save(&path).unwrap();
        assert_eq!(Manifest::load(&path).unwrap(), Some(manifest));
    }

    #[test]
    fn refuses_what_is_not_a_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let good = Manifest::new(Digest::sha256(b"x"), 1, "/tmp/x", Verified::Digest);
        let newer = Manifest { version: 2, ..good.clone() };
        let other = Manifest { sha256: Digest::Sha512([0; 64]), ..good };
        for bytes in [b"".to_vec(), b"{".to_vec(), vec![b' '; 70_000], newer.to_bytes(), other.to_bytes()] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(Manifest::load(&path).unwrap_err().kind(), Kind::BadInput);
        }
    }

    #[test]
    fn a_binary_that_changed_does_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        let manifest = Manifest::new(Digest::sha256(b"abc"), 3, "here", Verified::Operator);
        fs::write(&path, "abc").unwrap();
        manifest.check(&path).unwrap();
        for other in ["abd", "abcd", ""] {
            fs::write(&path, other).unwrap();
            assert_eq!(manifest.check(&path).unwrap_err().kind(), Kind::Verification);
        }
        fs::remove_file(&path).unwrap();
        manifest.check(&path).unwrap_err();
    }
}
