//! A SHA-256 or SHA-512 digest: parsing, printing, and computing one over bytes as they pass.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// A digest with its algorithm. Written `sha256:<64 hex digits>` or `sha512:<128 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    /// SHA-256, FIPS 180-4.
    Sha256([u8; 32]),
    /// SHA-512, FIPS 180-4.
    Sha512([u8; 64]),
}

/// The algorithm of a [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDigest(String);

impl Digest {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The digits alone, in lower case.
    pub fn hex(&self) -> String {
        self.bytes().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads digits alone, of either case; the algorithm follows from their number.
    ///
    /// # Errors
    /// If the text is not 64 or 128 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(hex.chars().take(140).collect());
        let bytes = decode_hex(hex).ok_or_else(bad)?;
        if let Ok(b) = <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(Digest::Sha256(b))
        } else if let Ok(b) = <[u8; 64]>::try_from(bytes.as_slice()) {
            Ok(Digest::Sha512(b))
        } else {
            Err(bad())
        }
    }

    /// The digest of everything `reader` yields, in one pass with bounded memory.
    ///
    /// # Errors
    /// If reading fails.
    pub fn of_reader(algorithm: Algorithm, mut reader: impl Read) -> io::Result<Self> {
        let mut hasher = Hasher::new(algorithm);
        let mut buf = vec![0; 64 * 1024];
        while let read @ 1.. = read_some(&mut reader, &mut buf)? {
            hasher.update(&buf[..read]);
        }
        Ok(hasher.finish())
    }

    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(b) => b,
            Digest::Sha512(b) => b,
        }
    }
}

/// Computes a digest over bytes as they pass.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 in progress.
    Sha256(sha2::Sha256),
    /// SHA-512 in progress.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(h) => Digest::Sha256(h.finalize().into()),
            Hasher::Sha512(h) => Digest::Sha512(h.finalize().into()),
        }
    }
}

/// Reads once, and again where a signal has interrupted that; 0 at the end.
pub(crate) fn read_some(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The bytes of an even number of hexadecimal digits of either case; `None` for anything else.
pub fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = hex.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

impl FromStr for Digest {
    type Err = BadDigest;

    /// Reads `sha256:HEX`, `sha512:HEX`, or the digits alone.
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.chars().take(140).collect());
        let Some((algorithm, hex)) = text.split_once(':') else { return Digest::from_hex(text) };
        let digest = Digest::from_hex(hex).map_err(|_| bad())?;
        match (algorithm.to_ascii_lowercase().as_str(), digest) {
            ("sha256", Digest::Sha256(_)) | ("sha512", Digest::Sha512(_)) => Ok(digest),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a digest: 64 (sha256) or 128 (sha512) hexadecimal digits expected", self.0)
    }
}

impl std::error::Error for BadDigest {}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(Digest::sha256(b"abc").hex(), ABC);
        let streamed = Digest::of_reader(Algorithm::Sha512, &b"abc"[..]).unwrap();
        assert!(streamed.hex().starts_with("ddaf35a193617aba"));
    }

    #[test]
    fn reads_what_it_prints_and_either_case() {
        let digest = Digest::sha256(b"abc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(ABC.to_uppercase().parse(), Ok(digest));
    }

    #[test]
    fn refuses_wrong_lengths_letters_and_algorithms() {
        for bad in
            ["", "abc", "sha256:", &format!("sha512:{ABC}"), &format!("md5:{ABC}"), &ABC.replace('b', "g")]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
