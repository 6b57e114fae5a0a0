//! `upgrades/NAME/args`: differences of the node's arguments for one version, since other versions may not know a flag.
//!
//! One argument per line, which is added behind those of `run`. A line that begins with `!` takes one of these away:
//! `!--flag` takes `--flag` and `--flag=VALUE`, and `!--flag VALUE` both words. Empty lines and lines that begin with `#`
//! are ignored. Nothing is guessed about which flags take a value.

use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::{Home, durable, regular};
use crate::machine::Target;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Upper bound on the size of the file.
const LIMIT: u64 = 64 * 1024;
/// Flags that name the node's data and key, which all versions share; without hyphens, as Go reads them.
const FIXED: [&str; 3] = ["datadir", "datadir.ancient", "nodekey"];

/// The differences of a version's arguments from those of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Arguments that are taken away.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Arguments that are added.
    #[serde(default)]
    pub add: Vec<String>,
}

impl Changes {
    /// The changes for a version; none where there is no file.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if the file is not in this format.
    pub fn of(home: &Home, target: &Target) -> Result<Changes> {
        let path = home.args(target);
        let bytes = regular::found(regular::read(&path, LIMIT)).doing("read", &path)?;
        bytes.map_or_else(|| Ok(Changes::default()), |bytes| Changes::parse(&bytes, &path))
    }

    /// Reads the changes from a file of the operator.
    ///
    /// # Errors
    /// As [`of`](Self::of), and if there is no such file.
    pub fn load(path: &Path) -> Result<Changes> {
        let bytes = regular::read(path, LIMIT).doing("read", path)?;
        Changes::parse(&bytes, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Changes> {
        let bad = |why: &str| {
            Error::new(Kind::BadInput, "read the arguments of a version").at(path.display()).because(why)
        };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        let mut changes = Changes::default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            match line.strip_prefix('!') {
                Some(dropped) => changes.drop.push(dropped.trim().to_owned()),
                None => changes.add.push(line.to_owned()),
            }
        }
        changes.check().map_err(|why| bad(&why))?;
        Ok(changes)
    }

    /// Checks that every change is one argument, and none is about the data.
    ///
    /// # Errors
    /// The problem, in words.
    pub fn check(&self) -> std::result::Result<(), String> {
        if let Some(argument) = self.add.iter().find(|argument| argument.starts_with(['!', '#'])) {
            return Err(format!(
                "{argument:?} is not an argument of a node: a line of the file that begins so has another meaning"
            ));
        }
        for argument in self.add.iter().chain(&self.drop) {
            if argument.is_empty() || argument.contains(['\0', '\n', '\r']) {
                return Err(format!("{argument:?} is no argument"));
            }
            let name = flag(argument).split(['=', ' ']).next().unwrap_or_default();
            if argument.starts_with('-') && FIXED.contains(&name) {
                return Err(format!("{argument:?}: all versions work on the same data with the same key"));
            }
        }
        Ok(())
    }

    /// Puts the changes in place for a version, durably.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&self, home: &Home, target: &Target) -> Result<()> {
        let path = home.args(target);
        if *self == Changes::default() {
            return durable::remove(&path);
        }
        let dropped = self.drop.iter().map(|argument| format!("!{argument}\n"));
        let text: String = dropped.chain(self.add.iter().map(|argument| format!("{argument}\n"))).collect();
        durable::put(&path, text.as_bytes(), 0o600)
    }

    /// The arguments of a node of this version: those of `run` with the changes on top.
    pub fn apply(&self, args: &[OsString]) -> Vec<OsString> {
        let mut left = Vec::with_capacity(args.len() + self.add.len());
        let mut rest = args.iter().peekable();
        while let Some(arg) = rest.next() {
            let pair = |next: &OsString| self.drop.iter().any(|dropped| is_pair(dropped, arg, next));
            if rest.peek().copied().is_some_and(pair) {
                rest.next();
            } else if !self.drop.iter().any(|dropped| is_dropped(dropped, arg)) {
                left.push(arg.clone());
            }
        }
        left.extend(self.add.iter().map(OsString::from));
        left
    }

    /// The arguments of a node that runs with these changes, without those that they have added.
    pub fn without_added<'a>(&self, args: &'a [OsString]) -> &'a [OsString] {
        let added: Vec<OsString> = self.add.iter().map(OsString::from).collect();
        args.strip_suffix(&added[..]).unwrap_or(args)
    }
}

/// As operators read it: `without --old, with --new`.
impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dropped = self.drop.iter().map(|argument| format!("without {argument}"));
        let added = self.add.iter().map(|argument| format!("with {argument}"));
        f.write_str(&dropped.chain(added).collect::<Vec<_>>().join(", "))
    }
}

/// Whether one word is dropped: it is equal, or a flag of that name with its value after `=`.
fn is_dropped(dropped: &str, arg: &OsStr) -> bool {
    let Some(arg) = arg.to_str() else { return false };
    let name = arg.split_once('=').map_or(arg, |(name, _)| name);
    arg == dropped || arg.starts_with('-') && dropped.starts_with('-') && flag(name) == flag(dropped)
}

/// Whether two words in a row, a flag and its value, are dropped.
fn is_pair(dropped: &str, arg: &OsStr, next: &OsStr) -> bool {
    let Some((name, value)) = dropped.split_once(' ') else { return false };
    let has_value = arg.as_encoded_bytes().contains(&b'=');
    !has_value && is_dropped(name, arg) && next == value.trim()
}

/// A flag without its hyphens, of which there may be one or two.
fn flag(text: &str) -> &str {
    let text = text.strip_prefix('-').unwrap_or(text);
    text.strip_prefix('-').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Result<Changes> {
        Changes::parse(text.as_bytes(), Path::new("args"))
    }

    fn applied(text: &str, args: &str) -> String {
        let args: Vec<OsString> = args.split_whitespace().map(OsString::from).collect();
        let words = changes(text).unwrap().apply(&args);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn arguments_are_taken_away_and_added() {
        let args = "--datadir d --old=1 -old 2 --http --cache 5 console";
        for (text, expected) in [
            ("", args),
            ("# new\n\n--new=7\n", "--datadir d --old=1 -old 2 --http --cache 5 console --new=7"),
            ("!--old\n!--cache 5", "--datadir d 2 --http console"),
            ("!--old 2\n--old=3", "--datadir d --old=1 --http --cache 5 console --old=3"),
            ("!--htt\n!--cache 6\n!con", args),
            ("!console", "--datadir d --old=1 -old 2 --http --cache 5"),
        ] {
            assert_eq!(applied(text, args), expected, "{text:?}");
        }
    }

    #[test]
    fn a_running_node_shows_its_arguments_without_those_that_its_version_added() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let of_v1 = changes("!--old\n--new=7\n--x").unwrap();
        for (running, expected) in [("--http --new=7 --x", "--http"), ("--http --new=7", "--http --new=7")] {
            assert_eq!(of_v1.without_added(&words(running)), words(expected));
        }
    }

    #[test]
    fn no_version_has_other_data_and_nonsense_is_refused() {
        for text in ["--datadir=x", "-datadir", "!--datadir x", "--nodekey k", "!", "a\0b"] {
            assert_eq!(changes(text).unwrap_err().kind(), Kind::BadInput, "{text:?}");
        }
        let bad = Changes::parse(b"\xff", Path::new("args")).unwrap_err();
        assert!(bad.to_string().contains("UTF-8"), "{bad}");
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let target = Target::Upgrade("v2".parse().unwrap());
        let saved = Changes { drop: vec!["--old".to_owned()], add: vec!["--new".to_owned()] };
        assert!(Changes { add: vec!["# x".to_owned()], ..saved.clone() }.check().is_err());
        durable::mkdir(&home.target(&target)).unwrap();
        saved.save(&home, &target).unwrap();
        assert_eq!(Changes::of(&home, &target).unwrap(), saved);
        assert_eq!(saved.to_string(), "without --old, with --new");
        Changes::default().save(&home, &target).unwrap();
        assert!(!home.args(&target).exists());
        Changes::default().save(&home, &target).unwrap();
        assert_eq!(Changes::of(&home, &target).unwrap(), Changes::default());
    }
}
