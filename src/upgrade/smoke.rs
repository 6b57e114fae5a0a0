//! The smoke test: does a staged binary start at all on this machine?
//!
//! `<binary> version` (or the arguments in `daemon_smoke_args`) needs no data and is cheap, and it fails for what a digest
//! cannot show: a missing library, a processor that lacks an instruction, a build for another chain's launcher. It runs
//! while the old node is still up.

use super::Cancel;
use super::run::{End, Program, run};
use crate::error::{Error, Kind, Result};
use crate::printable::foreign;
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(2);

/// A binary's report of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The first line of what it prints.
    pub line: String,
    /// The first version number in what it prints (`1.0.1`), if there is one.
    pub version: Option<String>,
    /// The version in its own words: what stands behind the first `Version:`, otherwise that number.
    pub told: Option<String>,
}

/// Runs the binary with `args` in `dir` and returns its report of itself.
///
/// # Errors
/// If it does not end with code 0 within 10 seconds, or is cancelled.
pub fn test(binary: &Path, args: &str, dir: &Path, cancel: &Cancel) -> Result<Said> {
    let words: Vec<&str> = args.split_whitespace().collect();
    let ran = run(&Program::bare(binary, &words, dir, TIMEOUT, GRACE), cancel)?;
    let why = match ran.end {
        End::Exited(0) => {
            let line = foreign(ran.output.lines().next().unwrap_or_default().trim());
            let version = version_in(&ran.output).map(ToOwned::to_owned);
            let told = told_in(&ran.output).map(ToOwned::to_owned).or_else(|| version.clone());
            return Ok(Said { line, version, told });
        }
        End::Exited(code) => format!("exit code {code}"),
        End::Signalled(signal) => format!("signal {signal}"),
        End::TimedOut => format!("no end within {} s", TIMEOUT.as_secs()),
        End::Cancelled => "cancelled".to_owned(),
    };
    Err(Error::new(Kind::Failed, format!("the smoke test `{args}` failed"))
        .at(binary.display())
        .because(format!("{why}: {}", ran.last_words()))
        .hint("run it by hand to see more"))
}

/// The text behind the first `Version:`, where it is one short word or a few.
fn told_in(text: &str) -> Option<&str> {
    const LONGEST: usize = 64;
    let told = text.lines().find_map(|line| line.split_once("Version:")).map(|(_, told)| told.trim());
    told.filter(|told| !told.is_empty() && told.len() <= LONGEST)
}

/// The first three numbers in a row that have dots between them.
fn version_in(text: &str) -> Option<&str> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let runs = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|run| run.trim_matches('.'));
    runs.filter(|run| run.split('.').count() == 3).find(|run| run.split('.').all(is_number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn tested(script: &str) -> Result<Said> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        test(&path, "version", dir.path(), &Cancel::new().unwrap())
    }

    #[test]
    fn a_binary_that_tells_its_version_passes() {
        assert_eq!(tested("echo \"Node $1 $#\"; echo more").unwrap().line, "Node version 1");
        assert_eq!(tested("exit 0").unwrap(), Said { line: String::new(), version: None, told: None });
        let told = |script| tested(script).unwrap().told;
        assert_eq!(
            told("echo Gstable; echo Version: 1.0.1-stable; echo Go Version: go1.2.3").unwrap(),
            "1.0.1-stable"
        );
        assert_eq!(told("echo node 1.2.3").unwrap(), "1.2.3");
    }

    #[test]
    fn the_version_is_the_first_number_of_three_parts() {
        let recorded = include_str!("../../tests/data/wbft/node-log-version-stdout.txt");
        for (text, version) in [
            (recorded, Some("1.0.1")),
            ("anvil Version: 1.7.1-stable\nCommit SHA: 2.3.4", Some("1.7.1")),
            ("Node v10.20.30.", Some("10.20.30")),
            ("on 127.0.0.1 in 2026.11, 1..2, v2", None),
        ] {
            assert_eq!(version_in(text), version, "{text}");
        }
    }

    #[test]
    fn a_binary_that_fails_is_reported_with_its_last_words() {
        let err = tested("echo loading; echo 'no such library' >&2; exit 127").unwrap_err().to_string();
        assert!(err.contains("exit code 127: no such library"), "{err}");
        assert!(tested("kill -ILL $$").unwrap_err().to_string().contains("signal 4"));
    }
}
