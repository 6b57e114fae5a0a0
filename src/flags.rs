//! The grammar of a geth-like node's command line: flags begin with one or two hyphens, a value follows as a word of its
//! own or after `=`, and a switch takes one after `=` only. The values of a switch are those of Go's [ParseBool]. Such a
//! node also reads every flag from a variable of the environment, with a prefix of its own (`GETH_MINE`).
//!
//! [ParseBool]: https://pkg.go.dev/strconv#ParseBool

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// The name of a flag, and its value where that is given after `=`.
pub(crate) fn flag(arg: &OsStr) -> Option<(&str, Option<&OsStr>)> {
    let flag = arg.as_bytes().strip_prefix(b"-")?;
    let flag = flag.strip_prefix(b"-").unwrap_or(flag);
    let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
        Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]))),
        None => (flag, None),
    };
    Some((str::from_utf8(name).ok()?, value))
}

/// The value of a flag that takes one: that of the last, before any `--`.
pub(crate) fn value_of<'a>(args: &'a [OsString], name: &str) -> Option<&'a OsStr> {
    let mut found = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next().filter(|arg| *arg != "--") {
        match flag(arg) {
            Some((flag, Some(value))) if flag == name => found = Some(value),
            Some((flag, None)) if flag == name => found = rest.next().map(OsString::as_os_str),
            _ => {}
        }
    }
    found
}

/// Whether a switch is on: the last one before any `--` counts.
pub(crate) fn is_on(args: &[OsString], name: &str) -> bool {
    let flags = args.iter().take_while(|arg| *arg != "--").filter_map(|arg| flag(arg));
    flags.filter(|(flag, _)| *flag == name).last().is_some_and(|(_, value)| value.is_none_or(is_true))
}

/// Whether the value of a switch turns it on.
pub(crate) fn is_true(value: &OsStr) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].iter().any(|yes| value == *yes)
}
