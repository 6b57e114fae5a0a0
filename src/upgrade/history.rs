//! `history.jsonl`: what happened to the node, one line per event, for people.
//!
//! It is append-only and never read for a decision, unlike the journal. A line that a crash tore is skipped when the
//! history is shown.

use crate::error::{Doing as _, Error, Result};
use crate::home::{Home, durable, regular};
use crate::machine::Record;
use crate::name::Name;
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::time::SystemTime;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The time, RFC 3339.
    pub time: String,
    /// The event, as a stable word (`upgrade_due`, `upgrade_ended`).
    pub event: String,
    /// The upgrade that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Name>,
    /// The node's head at that time, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// The rest, in words.
    pub detail: String,
}

/// The events at both ends of an upgrade.
const DUE: &str = "upgrade_due";
const ENDED: &str = "upgrade_ended";
/// No more than this is read from the end of the file.
const SHOWN: u64 = 1024 * 1024;

impl Entry {
    /// An event of now.
    pub fn new(event: &str, upgrade: Option<&Name>, height: Option<u64>, detail: impl Into<String>) -> Self {
        let time = rfc3339(SystemTime::now());
        Entry { time, event: event.to_owned(), upgrade: upgrade.cloned(), height, detail: detail.into() }
    }
}

/// Adds an event, durably.
///
/// # Errors
/// If writing fails.
pub fn append(home: &Home, entry: &Entry) -> Result<()> {
    let line = serde_json::to_string(entry).expect("every key of an entry is a string");
    durable::append(&home.history(), &line, 0o600)
}

/// Adds the end of the last upgrade that has ended, if a crash came between its record and its line. Returns whether it
/// was missing.
///
/// # Errors
/// If reading or writing fails.
pub fn complete(home: &Home, record: &Record) -> Result<bool> {
    let Some(ended) = record.ended.last() else { return Ok(false) };
    if record.upgrade.as_ref().is_some_and(|upgrade| upgrade.name == ended.name) {
        return Ok(false);
    }
    let text = format!("name={} outcome={} {}", ended.name, ended.outcome, ended.detail);
    let of_this = format!("name={} ", ended.name);
    let lines = read(home, usize::MAX)?;
    let about_it = |entry: &&Entry| entry.detail.starts_with(&of_this);
    // The record keeps the beginning of a long reason, the line all of it.
    let is_there = lines.iter().any(|entry| entry.event == ENDED && entry.detail.starts_with(&text));
    let last = lines.iter().filter(about_it).rfind(|entry| entry.event == DUE || entry.event == ENDED);
    let is_missing = match last {
        _ if is_there => false,
        Some(entry) => entry.event == DUE,
        // The part of a long history that was not read may hold it.
        None => std::fs::metadata(home.history()).map_or(0, |meta| meta.len()) <= SHOWN,
    };
    if is_missing {
        append(home, &Entry::new(ENDED, Some(&ended.name), None, text))?;
    }
    Ok(is_missing)
}

/// The last `limit` events, oldest first. A history that was never written is empty.
///
/// # Errors
/// If the file cannot be read.
pub fn read(home: &Home, limit: usize) -> Result<Vec<Entry>> {
    let path = home.history();
    let opened = regular::found(regular::open(&path)).doing("open", &path)?;
    let Some((mut file, meta)) = opened else { return Ok(Vec::new()) };
    let failed = |e| Error::io("read", &path, e);
    file.seek(SeekFrom::Start(meta.len().saturating_sub(SHOWN))).map_err(failed)?;
    let mut entries = Vec::new();
    for line in BufReader::new(file.take(SHOWN)).split(b'\n') {
        entries.extend(serde_json::from_slice::<Entry>(&line.map_err(failed)?).ok());
    }
    entries.drain(..entries.len().saturating_sub(limit));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_end_that_a_crash_kept_out_of_the_history_is_added_once() {
        use crate::digest::Digest;
        use crate::machine::{Ended, Outcome, Target, Version};
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        let mut record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        assert!(!complete(&home, &record).unwrap());
        let name: Name = "v2".parse().unwrap();
        let (outcome, detail) = (Outcome::Failed, "no luck".to_owned());
        let ended =
            Ended { name, height: 5, fork_height: None, cannot_follow: false, switch: None, outcome, detail };
        let due = |name: &str| {
            append(&home, &Entry::new(DUE, None, None, format!("name={name} height=5"))).unwrap()
        };
        due("v2");
        record.ended.push(ended.clone());
        assert!(complete(&home, &record).unwrap());
        assert!(!complete(&home, &record).unwrap());
        let last = read(&home, 1).unwrap().remove(0);
        assert_eq!((last.event.as_str(), last.detail.as_str()), (ENDED, "name=v2 outcome=failed no luck"));
        // The same one again, with another end; the stop of a third was not finished.
        due("v2");
        record.ended[0] = Ended { outcome: Outcome::Applied, ..ended };
        due("v20");
        assert!(complete(&home, &record).unwrap());
        due("v2");
        assert!(!complete(&home, &record).unwrap());
        assert_eq!(read(&home, 100).unwrap().iter().filter(|entry| entry.event == ENDED).count(), 2);
    }

    #[test]
    fn shows_the_last_events_and_passes_over_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        assert_eq!(read(&home, 10).unwrap(), []);
        let name: Name = "v2".parse().unwrap();
        let entries: Vec<_> =
            (0..4).map(|h| Entry::new("applied", Some(&name), Some(h), "line\nbreak")).collect();
        append(&home, &entries[0]).unwrap();
        append(&home, &entries[1]).unwrap();
        let whole = fs::read(home.history()).unwrap();
        fs::write(home.history(), &whole[..whole.len() - 5]).unwrap();
        append(&home, &entries[2]).unwrap();
        append(&home, &entries[3]).unwrap();
        assert_eq!(read(&home, 10).unwrap(), [entries[0].clone(), entries[2].clone(), entries[3].clone()]);
        assert_eq!(read(&home, 1).unwrap(), [entries[3].clone()]);
        // A pipe is not waited for.
        fs::remove_file(home.history()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, home.history(), rustix::fs::Mode::RWXU).unwrap();
        assert!(read(&home, 1).unwrap_err().to_string().contains("not a regular file"));
        assert!(append(&home, &entries[0]).unwrap_err().to_string().contains("not a regular file"));
    }
}
