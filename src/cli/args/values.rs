//! The values of arguments, each read from its text; the error is the reason, in words.

use crate::machine::{Block, Target};
use crate::name::Name;
use crate::time::parse_duration;
use crate::url::{check, redact};
use crate::wbft::Hash;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The name of an upgrade, a plan or a backup.
pub(super) fn name(text: &str) -> Result<Name, String> {
    parsed(text)
}

/// A value of a type that reads itself.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|e| e.to_string())
}

/// A version: the name of an upgrade, or `genesis`.
pub(super) fn version(text: &str) -> Result<Target, String> {
    text.parse::<Target>().or_else(|_| name(text).map(Target::Upgrade))
}

/// Splits `URL` or `OS/ARCH=URL`.
pub(super) fn place(text: &str) -> (String, String) {
    let is_platform = |word: &&str| word.split('/').count() == 2 && !word.contains(':');
    let (platform, url) = text.split_once('=').filter(|(left, _)| is_platform(left)).unwrap_or(("any", text));
    (platform.to_owned(), url.to_owned())
}

pub(super) fn url(text: &str) -> Result<String, String> {
    match check(text, &["http", "https"]) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => Err(format!("{:?} is not a URL: {why}", redact(text))),
    }
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// A block as `HEIGHT:HASH`.
pub(super) fn block(text: &str) -> Result<Block, String> {
    let (number, hash) = text.split_once(':').ok_or("a block is HEIGHT:HASH, with the hash as 0x…")?;
    let height = height(number)?;
    let hash: Hash = hash.parse().map_err(|e| format!("{hash:?}: {e}"))?;
    Ok(Block { height, hash: Some(hash.to_string()) })
}

pub(super) fn height(text: &str) -> Result<u64, String> {
    positive(text, "a height")
}

pub(super) fn blocks(text: &str) -> Result<u64, String> {
    positive(text, "a number of blocks")
}

/// A whole number from 1 on, which is `noun`.
pub(super) fn positive(text: &str, noun: &str) -> Result<u64, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0).ok_or_else(|| {
        let start: String = text.chars().take(40).collect();
        format!("{start:?} is not {noun}: a whole number from 1 on")
    })
}
