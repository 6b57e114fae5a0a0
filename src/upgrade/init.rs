//! `wemixvisor init`: lays out a home, or reports what is wrong with an existing one.
//!
//! Each step makes what is missing and leaves what is there, so a run that was cut short is
//! finished by the next one. The journal comes before the link: a home that has a link and no
//! journal has lost it, and that is for the operator to judge, not for `init` to paper over.

use super::install::{self, Staged};
use super::journal::Journal;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::lock::SupervisorLock;
use crate::home::{Home, durable};
use crate::machine::{NodeMark, Record, Target, Version};
use std::fmt;
use std::fs;
use std::path::Path;

/// The steps that were done, kept and found wrong, in order.
#[derive(Debug, Default)]
pub struct Report {
    /// One line each.
    pub lines: Vec<Line>,
}

/// One line of a [`Report`].
#[derive(Debug)]
pub enum Line {
    /// This was made now.
    Made(String),
    /// This was there and is good.
    Kept(String),
    /// Good to know.
    Note(String),
    /// This was taken over from another supervisor.
    Taken(String),
    /// This was not, and why.
    Left(String),
    /// This is wrong and was left alone.
    Problem(Error),
}

/// Lays out the home with `binary` as its first version and `config` as the text of its
/// configuration file, or checks it. What exists is never changed, `current` never reset.
///
/// # Errors
/// If something cannot be made. What is wrong with what exists is a [`Line::Problem`] instead.
pub fn init(home: &Home, binary: Option<&Path>, config: &str) -> Result<Report> {
    let mut report = Report::default();
    lay_out(home, config, &mut report)?;
    let genesis = stage_genesis(home, binary, &mut report);
    match (Journal::exists(home)?, fs::symlink_metadata(home.current()).is_ok()) {
        (false, false) => {
            if let Some(version) = genesis {
                let _lock = SupervisorLock::acquire(home)?;
                Journal::create(home, &Record::new(version.clone()))?;
                report.made("state/journal", "a new journal");
                link(home, &version.target, &mut report)?;
            }
        }
        (true, false) => restore_link(home, &mut report)?,
        (true, true) => check_current(home, &mut report),
        (false, true) => report.problem(
            Error::new(Kind::Halted, "`current` is there and the journal is not")
                .at(home.journal().display())
                .hint("if `current` is the version that ran last, run `wemixvisor init --import`"),
        ),
    }
    Ok(report)
}

/// Makes the directories and the configuration file that are missing.
pub(super) fn lay_out(home: &Home, config: &str, report: &mut Report) -> Result<()> {
    for dir in [home.dir(), home.genesis(), home.upgrades(), home.plans(), home.downloads(), home.state()] {
        let there = dir.is_dir();
        durable::mkdir(&dir)?;
        let name = dir.strip_prefix(home.root()).unwrap_or(&dir).display().to_string() + "/";
        report.lines.push(if there { Line::Kept(name) } else { Line::Made(name) });
    }
    if fs::symlink_metadata(home.config()).is_ok() {
        report.kept("config.yaml", "");
    } else {
        durable::put(&home.config(), config.as_bytes(), 0o600)?;
        report.made("config.yaml", "");
    }
    Ok(())
}

fn stage_genesis(home: &Home, binary: Option<&Path>, report: &mut Report) -> Option<Version> {
    let target = Target::Genesis;
    let name = format!("genesis/bin/{}", home.daemon());
    let staged = match binary {
        Some(source) => install::add(home, &target, source, Force::No),
        None => install::verify(home, &target, None).map(Staged::Same),
    };
    let staged = staged.map_err(|problem| report.problem(problem)).ok()?;
    let sha256 = staged.manifest().sha256;
    match staged {
        Staged::New(_) | Staged::Replaced(_) => report.made(&name, &sha256.to_string()),
        Staged::Same(_) => report.kept(&name, &sha256.to_string()),
    }
    Some(Version { target, sha256 })
}

/// Makes the link of an `init` that was cut short. A link that was lost later may have pointed elsewhere.
fn restore_link(home: &Home, report: &mut Report) -> Result<()> {
    match interrupted(home) {
        Ok(target) => link(home, &target, report),
        Err(problem) => {
            report.problem(problem);
            Ok(())
        }
    }
}

/// The target of the link that an `init` which was cut short would have made.
fn interrupted(home: &Home) -> Result<Target> {
    let record = Journal::read(home)?.record;
    let Version { target, sha256 } = &record.current;
    if record != Record::new(record.current.clone()) || record.node != NodeMark::Never {
        let hint = format!("the journal says that {target} ran last: if you agree, ln -s {target} current");
        let what = "`current` is missing, and the node has run already";
        return Err(Error::new(Kind::Halted, what).at(home.current().display()).hint(hint));
    }
    match install::verify(home, target, None)? {
        manifest if manifest.sha256 == *sha256 => Ok(target.clone()),
        _ => Err(mismatch(home, &record.current)),
    }
}

fn check_current(home: &Home, report: &mut Report) {
    let checked = Journal::read(home).and_then(|found| {
        report.lines.extend(found.warning.map(Line::Problem));
        report.kept("state/journal", "");
        let current = home.read_current()?;
        let manifest = install::verify(home, &current.target, None)?;
        let record = found.record;
        let under_way = record.upgrade.iter().flat_map(|u| [&u.from, &u.to]);
        let known = under_way.chain([&record.current]).find(|v| v.target == current.target);
        match known {
            Some(version) if version.sha256 == manifest.sha256 => Ok(current.target),
            Some(version) => Err(mismatch(home, version)),
            None => Err(Error::new(Kind::Halted, "`current` and the journal disagree")
                .at(home.current().display())
                .because(format!("the link says {}, the journal {}", current.target, record.current.target))
                .hint("find out which version ran last and link `current` to it")),
        }
    });
    match checked {
        Ok(target) => report.kept("current", &target.to_string()),
        Err(err) => report.problem(err),
    }
}

fn mismatch(home: &Home, version: &Version) -> Error {
    Error::new(Kind::Halted, "the binary is not the one that the journal records")
        .at(home.binary(&version.target).display())
        .because(format!("the journal says {}", version.sha256))
        .hint("put the right binary back")
}

fn link(home: &Home, target: &Target, report: &mut Report) -> Result<()> {
    durable::link(Path::new(&target.to_string()), &home.current())?;
    report.made("current", &target.to_string());
    Ok(())
}

impl Report {
    /// The problems.
    pub fn problems(&self) -> impl Iterator<Item = &Error> {
        self.lines.iter().filter_map(|line| match line {
            Line::Problem(err) => Some(err),
            Line::Made(_) | Line::Kept(_) | Line::Note(_) | Line::Taken(_) | Line::Left(_) => None,
        })
    }

    pub(super) fn made(&mut self, name: &str, detail: &str) {
        self.lines.push(Line::Made(below(name, detail)));
    }

    pub(super) fn kept(&mut self, name: &str, detail: &str) {
        self.lines.push(Line::Kept(below(name, detail)));
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Note(text.into()));
    }

    pub(super) fn problem(&mut self, err: Error) {
        self.lines.push(Line::Problem(err));
    }
}

fn below(name: &str, detail: &str) -> String {
    let gap = if detail.is_empty() { "" } else { "  " };
    format!("{}/{name}{gap}{detail}", Home::DIR)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Made(text) => write!(f, "made  {text}"),
            Line::Kept(text) => write!(f, "kept  {text}"),
            Line::Note(text) => write!(f, "note  {text}"),
            Line::Taken(text) => write!(f, "taken {text}"),
            Line::Left(text) => write!(f, "left  {text}"),
            Line::Problem(err) => write!(f, "problem  {err}"),
        }
    }
}

#[cfg(test)]
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::home::binary::tests::{elf, write_elf};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    fn rig() -> (tempfile::TempDir, Home, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"), "node").unwrap();
        let binary = dir.path().join("build");
        write_elf(&binary, b"one");
        (dir, home, binary)
    }

    /// Every path below the home with its content or link text, and its modification time.
    fn snapshot(dir: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    open.push(path.clone());
                }
                let content = fs::read_link(&path).map(|p| p.display().to_string().into_bytes());
                let content = content.or_else(|_| fs::read(&path)).unwrap_or_default();
                let stamp = meta.modified().unwrap();
                let (mode, content) = (meta.permissions().mode(), Digest::sha256(&content).hex());
                all.push(format!("{} {mode:o} {stamp:?} {}", path.display(), &content[..8]));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_new_home_is_complete_private_and_runnable() {
        let (_dir, home, binary) = rig();
        let report = init(&home, Some(&binary), "# text\n").unwrap();
        assert!(report.problems().next().is_none(), "{report}");
        let current = home.read_current().unwrap();
        assert_eq!(fs::read(current.binary).unwrap(), elf(b"one"));
        assert_eq!(fs::read_link(home.current()).unwrap(), Path::new("genesis"));
        let record = Journal::open(&home).unwrap().record;
        assert_eq!(record.current.sha256, install::verify(&home, &Target::Genesis, None).unwrap().sha256);
        assert_eq!(fs::read(home.config()).unwrap(), b"# text\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert!([home.dir(), home.genesis(), home.state(), home.plans()].iter().all(|p| mode(p) == 0o700));
        assert_eq!((mode(&home.config()), mode(&home.binary(&Target::Genesis))), (0o600, 0o555));
    }

    #[test]
    fn a_second_run_changes_nothing_and_a_different_binary_is_a_problem() {
        let (_dir, home, binary) = rig();
        init(&home, Some(&binary), "").unwrap();
        let before = snapshot(home.root());
        for source in [None, Some(&*binary)] {
            let report = init(&home, source, "other").unwrap();
            assert!(report.problems().next().is_none() && !report.to_string().contains("made"), "{report}");
        }
        write_elf(&binary, b"two");
        let report = init(&home, Some(&binary), "").unwrap();
        assert!(report.to_string().contains("another binary is staged"), "{report}");
        assert_eq!(snapshot(home.root()), before);
    }

    #[test]
    fn current_is_never_reset() {
        let (_dir, home, binary) = rig();
        init(&home, Some(&binary), "").unwrap();
        let v2 = Target::Upgrade("v2".parse().unwrap());
        write_elf(&binary, b"two");
        let sha256 = install::add(&home, &v2, &binary, Force::No).unwrap().manifest().sha256;
        durable::link(Path::new("upgrades/v2"), &home.current()).unwrap();
        assert!(init(&home, None, "").unwrap().to_string().contains("disagree"));
        let mut journal = Journal::open(&home).unwrap().journal;
        journal
            .write(&Record { node: NodeMark::StoppedClean, ..Record::new(Version { target: v2, sha256 }) })
            .unwrap();
        assert!(init(&home, None, "").unwrap().problems().next().is_none());
        fs::remove_file(home.current()).unwrap();
        let report = init(&home, None, "").unwrap();
        assert!(report.to_string().contains("ln -s upgrades/v2 current"), "{report}");
        assert!(fs::symlink_metadata(home.current()).is_err());
    }

    #[test]
    fn a_run_that_was_cut_short_is_finished_by_the_next() {
        let (_dir, home, binary) = rig();
        let report = init(&home, None, "").unwrap();
        assert!(report.to_string().contains("init BINARY"), "{report}");
        init(&home, Some(&binary), "").unwrap();
        fs::remove_file(home.current()).unwrap();
        assert!(init(&home, None, "").unwrap().problems().next().is_none());
        home.read_current().unwrap();
    }

    #[test]
    fn a_lost_journal_is_not_papered_over() {
        let (_dir, home, binary) = rig();
        init(&home, Some(&binary), "").unwrap();
        fs::remove_file(home.journal()).unwrap();
        let report = init(&home, Some(&binary), "").unwrap();
        assert_eq!(report.problems().map(Error::kind).collect::<Vec<_>>(), [Kind::Halted]);
        assert!(!Journal::exists(&home).unwrap());
    }
}
