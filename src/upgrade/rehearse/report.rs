//! `rehearsal.json` beside the manifest of a staged binary: what its rehearsal has shown, and of what.
//!
//! It counts for nothing else than what was rehearsed: these bytes, run with these differences of the arguments, and checked
//! for this fork. Otherwise the binary counts as not rehearsed.

use crate::digest::Digest;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::{Home, durable, regular};
use crate::machine::Rehearsal;
use crate::name::Name;
use crate::upgrade::node_args::Changes;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const LIMIT: u64 = 1 << 20;

/// The outcome of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub version: u32,
    /// The upgrade.
    pub upgrade: Name,
    /// The digest of the binary that was rehearsed.
    pub sha256: Digest,
    /// The differences of its arguments.
    #[serde(default, skip_serializing_if = "is_none")]
    pub args: Changes,
    /// The fork that it had to know, where one was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<u64>,
    /// The time, RFC 3339.
    pub time: String,
    /// Whether the binary passed.
    pub passed: bool,
    /// The reasons for which it did not.
    pub reasons: Vec<String>,
    /// Whether the operator lets the upgrade happen although it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// Further notes for the operator.
    pub notes: Vec<String>,
    /// The origin of the clone: `live`, or the name of a backup.
    pub from: String,
    /// Bytes in the clone at first, and how many of them were copied.
    pub bytes: u64,
    /// See `bytes`.
    pub copied: u64,
    /// Whether the binary was fed blocks.
    pub fed: bool,
    /// The number of blocks that it has executed, and that were wanted.
    pub blocks: u64,
    /// See `blocks`.
    pub wanted: u64,
    /// Its head at first.
    pub began_at: Option<u64>,
    /// Its head at the end, the same block as on the running node.
    pub ended_at: Option<u64>,
    /// The hash of that block.
    pub hash: Option<String>,
    /// Its own name.
    pub client_version: Option<String>,
    /// The heights of the forks that it knows, where it reports them.
    pub forks: Option<Vec<u64>>,
    /// The times.
    #[serde(flatten)]
    pub times: Times,
    /// The bytes by which the data have grown, a migration included.
    pub growth: i64,
    /// Lines of its log at WARN and above: the first ones, and the number of all.
    pub log: Vec<String>,
    /// See `log`.
    pub log_lines: u64,
}

/// The subject of a rehearsal.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The digest of the binary.
    pub sha256: &'a Digest,
    /// The differences of its arguments.
    pub args: &'a Changes,
    /// The fork that it must know.
    pub fork: Option<u64>,
}

fn is_none(args: &Changes) -> bool {
    *args == Changes::default()
}

/// How long each step took, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Making the clone.
    pub clone_ms: u64,
    /// From the first execution to the first answer, a migration included.
    pub start_ms: Option<u64>,
    /// From the first answer to the head of the running node.
    pub catch_up_ms: Option<u64>,
    /// The blocks of that.
    pub catch_up_blocks: u64,
    /// From SIGTERM to the end.
    pub stop_ms: Option<u64>,
}

impl Report {
    /// A report that nothing is known for yet.
    pub(super) fn new(upgrade: Name, subject: Subject<'_>, wanted: u64, time: String) -> Self {
        Report {
            version: VERSION,
            upgrade,
            sha256: *subject.sha256,
            args: subject.args.clone(),
            fork: subject.fork,
            time,
            passed: false,
            reasons: Vec::new(),
            accepted: false,
            notes: Vec::new(),
            from: String::new(),
            bytes: 0,
            copied: 0,
            fed: false,
            blocks: 0,
            wanted,
            began_at: None,
            ended_at: None,
            hash: None,
            client_version: None,
            forks: None,
            times: Times::default(),
            growth: 0,
            log: Vec::new(),
            log_lines: 0,
        }
    }

    /// The report of an upgrade; `None` if there is none.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if it is none of ours.
    pub fn load(home: &Home, upgrade: &Name) -> Result<Option<Self>> {
        let path = home.rehearsal(upgrade);
        let bytes = regular::found(regular::read(&path, LIMIT)).doing("read", &path)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let bad = || Error::new(Kind::BadInput, "read the report of a rehearsal").at(path.display());
        let report: Report = serde_json::from_slice(&bytes).map_err(|e| bad().because(e))?;
        match report.version {
            VERSION => Ok(Some(report)),
            other => Err(bad().because(format!("version {other} is not known here"))),
        }
    }

    /// The report of an upgrade, if it is about this.
    pub fn of(home: &Home, upgrade: &Name, subject: Subject<'_>) -> Option<Self> {
        let report = Report::load(home, upgrade).unwrap_or_else(|e| {
            log::warn!("event=rehearsal_unreadable name={upgrade} {e}");
            None
        });
        report.filter(|report| report.is_about(subject))
    }

    /// Whether it counts for this. A binary that has passed and reports its forks is known to have any of them.
    fn is_about(&self, Subject { sha256, args, fork }: Subject<'_>) -> bool {
        let has = |fork: u64| self.forks.as_ref().is_some_and(|forks| forks.contains(&fork));
        let is_checked = self.fork == fork || self.passed && fork.is_none_or(has);
        self.sha256 == *sha256 && self.args == *args && is_checked
    }

    /// Its consequence for the upgrade, and whether the operator has accepted a failure.
    pub fn verdict(&self) -> (Rehearsal, bool) {
        match (self.passed, self.accepted) {
            (true, _) => (Rehearsal::Passed, false),
            (false, true) => (Rehearsal::None, true),
            (false, false) => (Rehearsal::Failed(self.reasons.join("; ")), false),
        }
    }

    /// Lets the upgrade happen although its rehearsal has failed.
    ///
    /// # Errors
    /// If the report cannot be written.
    pub fn accept(mut self, home: &Home) -> Result<Self> {
        self.accepted = !self.passed;
        self.save(home)?;
        Ok(self)
    }

    pub(super) fn save(&self, home: &Home) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("every key of a report is a string");
        durable::put(&home.rehearsal(&self.upgrade), &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_verdict_counts_only_for_what_was_rehearsed() {
        let digest = Digest::sha256(b"x");
        let (none, changed) =
            (Changes::default(), Changes { add: vec!["--new".to_owned()], drop: Vec::new() });
        let with = |args, fork| Subject { sha256: &digest, args, fork };
        let report = |args, fork, passed, forks: Option<&[u64]>| {
            let report = Report::new("v2".parse().unwrap(), with(args, fork), 100, "now".to_owned());
            Report { passed, forks: forks.map(<[u64]>::to_vec), ..report }
        };
        let plain = report(&none, None, true, None);
        assert!(plain.is_about(with(&none, None)));
        assert!(!plain.is_about(with(&changed, None)), "it was run with other arguments");
        assert!(!plain.is_about(with(&none, Some(150))), "nothing was asked about a fork");
        assert!(report(&changed, Some(150), true, None).is_about(with(&changed, Some(150))));
        let forks = report(&none, Some(150), true, Some(&[150, 170]));
        assert!(forks.is_about(with(&none, Some(170))) && forks.is_about(with(&none, None)));
        assert!(!forks.is_about(with(&none, Some(160))));
        let failed = report(&none, Some(150), false, Some(&[170]));
        assert!(failed.is_about(with(&none, Some(150))));
        assert!(!failed.is_about(with(&none, Some(170))), "the fork that it lacks is planned no more");
        // Older reports have neither.
        let old = serde_json::to_string(&plain).unwrap();
        assert!(!old.contains("args") && !old.contains("\"fork\""), "{old}");
        assert_eq!(serde_json::from_str::<Report>(&old).unwrap(), plain);
    }

    #[test]
    fn a_report_is_about_one_binary() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let name: Name = "v2".parse().unwrap();
        assert_eq!(Report::load(&home, &name).unwrap(), None);
        fs::create_dir_all(home.upgrade(&name)).unwrap();
        let digest = Digest::sha256(b"x");
        let args = Changes::default();
        let of = |sha256: &Digest| Report::of(&home, &name, Subject { sha256, args: &args, fork: None });
        let subject = Subject { sha256: &digest, args: &args, fork: None };
        let report = Report::new(name.clone(), subject, 100, "now".to_owned());
        report.save(&home).unwrap();
        assert_eq!(of(&digest), Some(report.clone()));
        assert_eq!(of(&Digest::sha256(b"y")), None);
        let failed = Report { reasons: vec!["a".to_owned(), "b".to_owned()], ..report.clone() };
        assert_eq!(failed.verdict(), (Rehearsal::Failed("a; b".to_owned()), false));
        failed.accept(&home).unwrap();
        let accepted = of(&digest).unwrap();
        assert_eq!(accepted.verdict(), (Rehearsal::None, true));
        let passed = Report { passed: true, ..report.clone() };
        assert_eq!(passed.accept(&home).unwrap().verdict(), (Rehearsal::Passed, false));
        for bad in ["{", "{\"version\":2}"] {
            fs::write(home.rehearsal(&name), bad).unwrap();
            assert_eq!(Report::load(&home, &name).unwrap_err().kind(), Kind::BadInput);
            assert_eq!(of(&digest), None);
        }
        Report { version: 2, ..report }.save(&home).unwrap();
        assert!(Report::load(&home, &name).unwrap_err().to_string().contains("version 2"));
    }
}
