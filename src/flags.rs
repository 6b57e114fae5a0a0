//! The grammar of a geth-like node's command line: flags begin with one or two hyphens, a value follows as a word of its
//! own or after `=`, and a switch takes one after `=` only. The values of a switch are those of Go's [ParseBool]. Such a
//! node also reads every flag from a variable of the environment, with a prefix of its own (`GETH_MINE`).
//!
//! [ParseBool]: https://pkg.go.dev/strconv#ParseBool

use std::ffi::OsStr;

/// The name of a flag, and its value where that is given after `=`.
pub(crate) fn flag(arg: &OsStr) -> Option<(&str, Option<&str>)> {
    let flag = arg.to_str()?.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    Some(flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value))))
}

/// Whether the value of a switch turns it on.
pub(crate) fn is_true(value: &OsStr) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].iter().any(|yes| value == *yes)
}
