//! Flags of ours that are configuration keys, picked out of a command line.

use super::misuse::usage_error;
use super::{Command, Invocation};
use crate::config::keys;
use crate::error::Result;
use std::ffi::OsString;
use std::iter::Peekable;
use std::path::PathBuf;

/// Options whose value is an argument of the node, which may have flags of the same names as ours.
const VERBATIM: [&str; 2] = ["--add-arg", "--drop-arg"];

/// The flags of ours that were found so far.
#[derive(Debug, Default)]
pub(super) struct Ours {
    config: Option<PathBuf>,
    flags: Vec<(String, String)>,
}

impl Ours {
    /// Takes flags of ours from the front, up to the first argument that is none.
    pub(super) fn take_leading(&mut self, argv: Vec<OsString>) -> Result<Vec<OsString>> {
        let mut rest = argv.into_iter().peekable();
        while let Some(flag) = rest.peek().and_then(|arg| Flag::find(arg.to_str()?)) {
            rest.next();
            self.take(flag, &mut rest)?;
        }
        Ok(rest.collect())
    }

    /// Takes flags of ours from wherever they stand before `--`.
    pub(super) fn take_anywhere(&mut self, argv: Vec<OsString>) -> Result<Vec<OsString>> {
        let mut rest = argv.into_iter().peekable();
        let mut others = Vec::new();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                others.extend(rest.by_ref());
            } else if VERBATIM.iter().any(|flag| arg == *flag) {
                others.push(arg);
                others.extend(rest.next());
            } else if let Some(flag) = arg.to_str().and_then(Flag::find) {
                self.take(flag, &mut rest)?;
            } else {
                others.push(arg);
            }
        }
        Ok(others)
    }

    fn take(&mut self, flag: Flag, rest: &mut Peekable<impl Iterator<Item = OsString>>) -> Result<()> {
        let value = match flag.value {
            Some(value) => value,
            // A word that would turn it off must not turn it on, and go to the node besides.
            None if flag.switch => match rest.next_if(|next| next == "true" || next == "false") {
                Some(word) => word.to_string_lossy().into_owned(),
                None => "true".to_owned(),
            },
            None => {
                let value = rest.next().ok_or_else(|| usage_error(format!("{} needs a value", flag.name)))?;
                value.into_string().map_err(|v| usage_error(format!("{}: {v:?} is not UTF-8", flag.name)))?
            }
        };
        if flag.name == "--config" {
            if value.is_empty() {
                return Err(usage_error("--config needs a value".to_owned()));
            }
            if self.config.replace(PathBuf::from(value)).is_some() {
                return Err(usage_error("--config is given twice".to_owned()));
            }
        } else {
            self.flags.push((flag.name, value));
        }
        Ok(())
    }

    pub(super) fn invoke(self, command: Command) -> Invocation {
        Invocation { command, config: self.config, flags: self.flags }
    }
}

/// A flag of ours as it was written.
struct Flag {
    name: String,
    value: Option<String>,
    /// Whether it may stand without a value.
    switch: bool,
}

impl Flag {
    fn find(arg: &str) -> Option<Flag> {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg, None),
        };
        let switch = match keys::flag(name) {
            Some(key) => key.is_switch(),
            None if name == "--config" => false,
            None => return None,
        };
        Some(Flag { name: name.to_owned(), value, switch })
    }
}
