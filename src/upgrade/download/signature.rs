//! Minisign signatures: whether one is by a key that the operator trusts, and for this upgrade.
//!
//! A signature proves that a trusted key signed the file, not what for: without the name in its
//! trusted comment, an old binary could be passed off as the new one. Legacy signatures, which need the
//! whole file in memory, are refused; minisign has not made them by default for years.

use crate::config::PublicKey;
use crate::name::Name;
use minisign_verify::{Error, Signature, StreamVerifier};

/// A signature that one of our keys claims to have made, for a comment that names the upgrade.
/// Neither is proven before the whole file has passed through [`Signed::verifier`].
#[derive(Clone)]
pub(super) struct Signed {
    key: PublicKey,
    signature: Signature,
}

impl Signed {
    /// Reads a `.minisig` file.
    ///
    /// # Errors
    /// Why it does not vouch for this upgrade, in words.
    pub(super) fn parse(text: &str, keys: &[PublicKey], upgrade: &Name) -> Result<Self, String> {
        let signature = Signature::decode(text).map_err(|_| "it is not a minisign signature".to_owned())?;
        for key in keys {
            match key.key().verify_stream(&signature) {
                Ok(_) => {}
                Err(Error::UnexpectedKeyId) => continue,
                Err(Error::UnsupportedLegacyMode) => {
                    return Err("it is of the legacy kind; sign again with a current minisign".to_owned());
                }
                Err(other) => return Err(other.to_string()),
            }
            let comment = signature.trusted_comment();
            if !names(comment, upgrade) {
                return Err(format!(
                    "its trusted comment {:?} does not name {upgrade}; sign with -t 'upgrade:{upgrade}'",
                    crate::printable::foreign(comment)
                ));
            }
            return Ok(Signed { key: key.clone(), signature });
        }
        Err("it is by none of download_public_keys".to_owned())
    }

    /// Takes the bytes of the file and proves signature and trusted comment at its end.
    pub(super) fn verifier(&self) -> StreamVerifier<'_> {
        self.key.key().verify_stream(&self.signature).expect("parse has tried exactly this")
    }

    /// The key.
    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Whether a name stands in a comment as a word of its own. What may be part of a name may not be
/// next to it: `v2` is named by neither `v2.1` nor `v2-rc1`.
fn names(comment: &str, name: &Name) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    comment.split(|c| !word(c)).any(|part| part == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_stand_alone() {
        let named = |comment: &str, name: &str| names(comment, &name.parse().unwrap());
        for comment in ["v2", "upgrade:v2", "timestamp:1\tfile:v2\thashed", "file:v2/node", "for (v2), final"]
        {
            assert!(named(comment, "v2"), "{comment}");
        }
        for comment in ["", "v2.1", "v2-rc1", "xv2", "v2_", "V2", "v 2", "file:node-v2.gz"] {
            assert!(!named(comment, "v2"), "{comment}");
        }
    }

    #[test]
    fn text_that_is_no_signature_is_refused() {
        for text in
            ["", "x", "untrusted comment: x\nAAAA\ntrusted comment: v2\nAAAA", "\n\n\n\n", "a\nb\nc\nd\ne"]
        {
            assert!(Signed::parse(text, &[], &"v2".parse().unwrap()).is_err(), "{text:?}");
        }
    }
}
