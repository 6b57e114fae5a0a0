//! The message about a wrong command line: the fault, the usage, and the word that was probably meant.

use super::super::help::{COMMANDS, Usage};
use crate::config::keys;
use crate::error::{Error, Kind};

pub(super) fn usage_error(what: String) -> Error {
    Error::new(Kind::Usage, what).hint("see `wemixvisor help`")
}

pub(super) fn unknown(word: &str) -> Error {
    let what = format!("there is no command or flag {word:?}");
    let near = match word.strip_prefix('-') {
        Some(_) => nearest_flag(word, COMMANDS.iter().map(|c| c.synopsis)),
        None => keys::nearest(word, COMMANDS.iter().map(Usage::words)),
    };
    match near {
        Some(near) if near.starts_with('-') => {
            Error::new(Kind::Usage, what).hint(format!("did you mean {near}? see `wemixvisor help`"))
        }
        Some(near) => Error::new(Kind::Usage, what).hint(format!("did you mean `wemixvisor {near}`?")),
        None => usage_error(what),
    }
}

/// The flag of these synopses, or of every command, that was most likely meant.
fn nearest_flag(word: &str, synopses: impl Iterator<Item = &'static str>) -> Option<String> {
    let own = synopses.flat_map(flags).map(str::to_owned);
    let everywhere = keys::KEYS.iter().map(keys::Key::flag).chain(["--config".to_owned()]);
    keys::nearest(word.split('=').next().unwrap_or_default(), own.chain(everywhere))
}

/// The flags of a synopsis.
fn flags(synopsis: &'static str) -> impl Iterator<Item = &'static str> {
    synopsis.split([' ', '[', ']']).filter(|w| w.starts_with("--") && w.len() > 2)
}

fn synopses_of(word: &str) -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().filter(move |c| c.begins_with(word)).map(|c| c.synopsis)
}

/// A use of a command that is not in its synopsis.
pub(super) fn misused(word: &str, what: &str) -> Error {
    let synopses: Vec<&str> = synopses_of(word).collect();
    if synopses.is_empty() {
        return usage_error(format!("{word}: {what}"));
    }
    Error::new(Kind::Usage, format!("{word}: {what}"))
        .hint(format!("usage: wemixvisor {}", synopses.join(" | ")))
}

/// A command that was given more than it takes.
pub(super) fn superfluous(word: &str, extra: &str) -> Error {
    let flag = extra.split('=').next().unwrap_or_default();
    if !extra.starts_with('-') {
        return misused(word, &format!("unexpected argument {extra:?}"));
    }
    if synopses_of(word).flat_map(flags).any(|own| own == flag) {
        return misused(word, &format!("{flag} is given twice"));
    }
    match nearest_flag(extra, synopses_of(word)) {
        Some(near) => misused(word, &format!("unknown flag {flag:?}, did you mean {near}?")),
        None => misused(word, &format!("unknown flag {flag:?}")),
    }
}
