//! An upgrade as it is written: in a plan, in the trigger file, in the schedule and on the command line.
//!
//! All of them are read here, so that the same rules and limits hold and the same words are used wherever it is written.

use super::json::{Fields, Json, Members, read};
use super::reading::Reading;
use super::report::Report;
use crate::digest::{BadDigest, Digest};
use crate::machine::{Origin, Places, Upgrade};
use crate::name::Name;
use crate::url;
use serde::de::Error;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::str::FromStr;

/// A longer `info` is refused: hooks get it in their environment, and Linux takes no variable beyond 128 KiB.
const MAX_INFO: usize = 64 * 1024;

/// One upgrade as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The upgrade's name, which is also its directory under `upgrades/`.
    pub name: Name,
    /// The height from which it is due.
    pub height: u64,
    /// The first height that needs the new binary, above `height`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork_height: Option<u64>,
    /// Past this height a validator no longer waits for its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_height: Option<u64>,
    /// Whether the old binary can open data that the new one has written; if not said, it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_compat: Option<bool>,
    /// The digest of what is downloaded or staged, written as `sha256` or `sha512`.
    #[serde(flatten, serialize_with = "pinned")]
    pub digest: Option<Digest>,
    /// The sources of the binary, by `os/arch` (`linux/amd64`) or `any`.
    #[serde(skip_serializing_if = "Places::is_empty")]
    pub binaries: Places,
    /// Anything, handed to hooks as `UPGRADE_INFO`: a text as it is, all else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// Fields that we do not know; they survive to the letter.
    #[serde(flatten)]
    pub rest: Fields,
}

impl Entry {
    /// The keys of all that can be said of an upgrade but its name, its height and free text.
    pub(super) const DETAILS: [&str; 6] =
        ["fork_height", "deadline_height", "data_compat", "sha256", "sha512", "binaries"];
    /// The options of the command line that take the text of a field, with its key.
    pub(crate) const OPTIONS: [(&str, &str); 5] = [
        ("--fork-height", "fork_height"),
        ("--deadline-height", "deadline_height"),
        ("--sha256", "sha256"),
        ("--sha512", "sha512"),
        ("--info", "info"),
    ];

    /// An upgrade of which nothing but name and height is known.
    #[must_use]
    pub fn new(name: Name, height: u64) -> Self {
        Entry {
            name,
            height,
            fork_height: None,
            deadline_height: None,
            data_compat: None,
            digest: None,
            binaries: Places::default(),
            info: None,
            rest: Fields::default(),
        }
    }

    /// Reads an upgrade that has to make sense.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(fields: Fields) -> Result<Entry, Report> {
        match Entry::read_leniently(fields.members()) {
            (Some(entry), report) if report.findings.is_empty() => Ok(entry),
            (_, report) => Err(report),
        }
    }

    /// Reads an upgrade that need not make sense, and everything that is wrong with it.
    fn read_leniently(fields: Members<'_>) -> (Option<Entry>, Report) {
        let mut reading = Reading::new("", fields);
        let (name, height) = (reading.name(), reading.own_height());
        Entry::read_details(reading, name, height)
    }

    /// Reads all but name and height, which have been read.
    pub(super) fn read_details(
        mut reading: Reading<'_>,
        name: Option<Name>,
        height: Option<u64>,
    ) -> (Option<Entry>, Report) {
        let (fork_height, deadline_height) = heights(&mut reading, height);
        let digest = digest(&mut reading);
        let binaries = binaries(&mut reading);
        let data_compat = reading.read("data_compat", "expected true or false");
        let info = reading.take("info").map(Json::from);
        if info.as_ref().map(Json::text).is_some_and(|text| text.len() > MAX_INFO || text.contains('\0')) {
            reading.wrong("info", "it is longer than 64 KiB or has a zero byte in it");
        }
        let rest = reading.unknown();
        let is_whole = reading.is_whole;
        let whole = name.zip(height).filter(|_| is_whole).map(|(name, height)| Entry {
            name,
            height,
            fork_height,
            deadline_height,
            data_compat,
            digest,
            binaries,
            info,
            rest,
        });
        (whole, reading.report)
    }

    /// The upgrade as the other modules know it, planned by `origin`.
    #[must_use]
    pub fn upgrade(self, origin: Origin) -> Upgrade {
        Upgrade {
            fork_height: self.fork_height,
            deadline_height: self.deadline_height,
            data_compat: self.data_compat.unwrap_or(true),
            digest: self.digest,
            binaries: self.binaries,
            info: self.info.as_ref().map(Json::text),
            ..Upgrade::new(self.name, self.height, origin)
        }
    }
}

/// The fork and the deadline, which must lie in order.
fn heights(reading: &mut Reading<'_>, height: Option<u64>) -> (Option<u64>, Option<u64>) {
    let (fork, deadline) = (reading.height("fork_height"), reading.height("deadline_height"));
    let Some(height) = height else { return (fork, deadline) };
    if let Some(fork) = fork.filter(|fork| *fork <= height) {
        reading.wrong("fork_height", format!("{fork} is not above {height}, the height of the upgrade"));
    }
    let latest = fork.filter(|fork| *fork > height).unwrap_or(u64::MAX);
    if let Some(deadline) = deadline.filter(|deadline| *deadline < height || *deadline > latest) {
        reading.wrong("deadline_height", format!("{deadline} is not between height and fork_height"));
    }
    (fork, deadline)
}

/// The digest, which stands under the key of its algorithm.
fn digest(reading: &mut Reading<'_>) -> Option<Digest> {
    let mut read = |key: &str, digits: usize| {
        let text: String = reading.read(key, "expected a text of hexadecimal digits")?;
        let digest = read_pinned(key, &text).ok();
        digest.or_else(|| reading.unreadable(key, format!("it is not {digits} hexadecimal digits")))
    };
    match (read("sha256", 64), read("sha512", 128)) {
        (Some(_), Some(_)) => reading.unreadable("sha512", "give sha256 or sha512, not both"),
        (one, other) => one.or(other),
    }
}

/// Reads the digest of a key `sha256` or `sha512`; the digits may have the same word before them.
fn read_pinned(key: &str, text: &str) -> Result<Digest, BadDigest> {
    let digits = text.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    format!("{key}:{digits}").parse()
}

/// Writes a digest under the key of its algorithm, as bare digits.
fn pinned<S: Serializer>(digest: &Option<Digest>, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    if let Some(digest) = digest {
        map.serialize_entry(&digest.algorithm().to_string(), &digest.hex())?;
    }
    map.end()
}

fn binaries(reading: &mut Reading<'_>) -> Places {
    let Some(mut places) = reading.below("binaries", "expected an object from os/arch to URL") else {
        return Places::default();
    };
    let mut binaries = Vec::new();
    for (platform, place) in places.rest() {
        let parts: Vec<&str> = platform.split('/').collect();
        if platform != "any" && (parts.len() != 2 || parts.contains(&"")) {
            let what = format!("{platform:?} is not a platform: os/arch, as linux/amd64, or any");
            places.wrong(&platform, what);
        }
        let Ok(place) = read::<String>(place) else {
            places.unreadable::<()>(&platform, "expected a URL");
            continue;
        };
        if let Err(why) = url::check(&place, &["http", "https"]) {
            places.wrong(&platform, format!("{:?} is not a URL: {why}", url::redact(&place)));
        }
        binaries.push((platform, place));
    }
    reading.absorb(places);
    binaries.into_iter().collect()
}

impl FromStr for Entry {
    type Err = String;

    /// Reads `NAME:HEIGHT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, height) =
            text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form NAME:HEIGHT"))?;
        let fields = [("name", name), ("height", height)];
        let fields = fields.map(|(key, text)| (key.to_owned(), Value::from(text).into()));
        Entry::read(fields.into_iter().collect()).map_err(|report| report.line())
    }
}

/// Whether it makes sense is not asked: what is on disk can be corrected.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (entry, report) = Entry::read_leniently(Fields::deserialize(from)?.members());
        entry.ok_or_else(|| D::Error::custom(report.line()))
    }
}
