//! The expected digests and signature of a download, and the check of the bytes against them.
//!
//! The strongest there is counts: a signature where keys are configured, otherwise the digest that is
//! pinned or in the URL, otherwise a checksum file beside the file. A weaker proof is not fetched, but
//! everything that is known must match. All is known before the first byte of the file is fetched, so that one pass over
//! the bytes is enough.

use super::Order;
use super::checksum;
use super::client::Client;
use super::failure::{Failure, refuse};
use super::retry::Fault;
use super::signature::Signed;
use super::source::Source;
use super::url::Url;
use crate::config::{Config, PublicKey};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::home::Verified;
use crate::upgrade::Cancel;
use minisign_verify::StreamVerifier;

/// More than any signature or list of checksums needs.
const LIMIT: u64 = 1024 * 1024;

/// The digests and the signature that a file must match, known before it arrives.
pub(super) struct Expected {
    signed: Option<Signed>,
    digests: Vec<(Digest, &'static str)>,
    method: Verified,
}

/// The hashes and the signature check over the bytes so far.
pub(super) struct Check<'a> {
    sha256: Hasher,
    sha512: Option<Hasher>,
    signature: Option<StreamVerifier<'a>>,
}

impl Expected {
    /// Finds the signature, digest or checksum file for the file at `source`.
    ///
    /// # Errors
    /// [`Kind::Verification`] if nothing does and that is not allowed, or if something is contradictory.
    pub(super) fn find(
        client: &Client,
        source: &Source,
        order: &Order<'_>,
        config: &Config,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let url = &source.url;
        let pinned = order.upgrade.digest.map(|d| (d, "the digest that the upgrade pins"));
        let in_url = source.digest.map(|d| (d, "the digest in the URL"));
        let digests: Vec<_> = pinned.into_iter().chain(in_url).collect();
        if !config.download_public_keys.is_empty() {
            let signed = Some(find_signature(client, url, order, &config.download_public_keys, cancel)?);
            return Ok(Expected { signed, digests, method: Verified::Signature });
        }
        if !digests.is_empty() {
            return Ok(Expected { signed: None, digests, method: Verified::Digest });
        }
        if let Some(digest) = find_checksum(client, url, cancel)? {
            let digests = vec![(digest, "the checksum file")];
            return Ok(Expected { signed: None, digests, method: Verified::ChecksumFile });
        }
        if config.unsafe_skip_checksum {
            log::warn!(
                "event=download_unverified name={} url={url} nothing vouches for it and unsafe_skip_checksum is set",
                order.upgrade.name
            );
            return Ok(Expected { signed: None, digests, method: Verified::Unchecked });
        }
        let error = Error::new(Kind::Verification, "nothing vouches for the file").at(url).hint(
            "pin its sha256 in the plan or with --sha256, or put a .sha256 file beside it on the server",
        );
        Err(Failure::Mirror(Fault::Lasting, error))
    }

    /// A known digest.
    #[cfg(test)]
    pub(super) fn of_digest(digest: Digest) -> Self {
        Expected { signed: None, digests: vec![(digest, "a test's digest")], method: Verified::Digest }
    }

    /// The check of the file, before its first byte.
    pub(super) fn check(&self) -> Check<'_> {
        let needs_512 = self.digests.iter().any(|(d, _)| d.algorithm() == Algorithm::Sha512);
        Check {
            sha256: Hasher::new(Algorithm::Sha256),
            sha512: needs_512.then(|| Hasher::new(Algorithm::Sha512)),
            signature: self.signed.as_ref().map(Signed::verifier),
        }
    }

    /// How the file is verified if it is.
    pub(super) fn method(&self) -> Verified {
        self.method
    }

    /// The key that has signed the file.
    pub(super) fn key(&self) -> Option<&PublicKey> {
        self.signed.as_ref().map(Signed::key)
    }
}

impl Check<'_> {
    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
        if let Some(signature) = &mut self.signature {
            signature.update(bytes);
        }
    }

    /// Verifies the whole file, and returns its SHA-256.
    ///
    /// # Errors
    /// The mismatch, in words.
    pub(super) fn verify(self, expected: &Expected) -> Result<Digest, String> {
        let sha256 = self.sha256.finish();
        let sha512 = self.sha512.map(Hasher::finish);
        for (wanted, origin) in &expected.digests {
            let found = match wanted.algorithm() {
                Algorithm::Sha256 => sha256,
                Algorithm::Sha512 => sha512.expect("it is computed when a digest needs it"),
            };
            if found != *wanted {
                return Err(format!("it is {found}, but {origin} is {wanted}"));
            }
        }
        if let Some(mut signature) = self.signature {
            signature.finalize().map_err(|e| format!("its signature does not hold: {e}"))?;
        }
        Ok(sha256)
    }
}

fn find_signature(
    client: &Client,
    url: &Url,
    order: &Order<'_>,
    keys: &[PublicKey],
    cancel: &Cancel,
) -> Result<Signed, Failure> {
    let at = url.beside(".minisig");
    let text = client.document(&at, LIMIT, cancel)?.ok_or_else(|| {
        refuse(Kind::Verification, &at, "download_public_keys requires a signature and there is none")
    })?;
    Signed::parse(&String::from_utf8_lossy(&text), keys, &order.upgrade.name)
        .map_err(|why| refuse(Kind::Verification, &at, format!("the signature does not count: {why}")))
}

/// The digest in the checksum file beside the file; `None` if there is no such file, or our file is
/// not in it.
fn find_checksum(client: &Client, url: &Url, cancel: &Cancel) -> Result<Option<Digest>, Failure> {
    for (suffix, algorithm) in [(".sha256", Algorithm::Sha256), (".sha512", Algorithm::Sha512)] {
        let at = url.beside(suffix);
        let Some(text) = client.document(&at, LIMIT, cancel)? else { continue };
        let found = checksum::find(&String::from_utf8_lossy(&text), algorithm, &url.file_name())
            .map_err(|why| refuse(Kind::Verification, &at, format!("the checksum file is no use: {why}")))?;
        match found {
            Some(digest) => return Ok(Some(digest)),
            None => log::warn!("event=checksum_ignored url={at} it does not list {}", url.file_name()),
        }
    }
    Ok(None)
}
