//! What makes a node seal from its start on: `--mine`, in every spelling that a geth-like node takes.
//!
//! Its flags begin with one or two hyphens, a switch takes a value after `=` only, and the values are those
//! of Go's [ParseBool]. Such a node also reads every flag from a variable of the environment, with a prefix of
//! its own (`GETH_MINE`).
//!
//! [ParseBool]: https://pkg.go.dev/strconv#ParseBool

use std::ffi::{OsStr, OsString};

/// The arguments without those that make the node seal, and the variables that do.
pub(super) fn without_sealing(
    args: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> (Vec<OsString>, Vec<OsString>) {
    let args = args.iter().filter(|arg| !is_mine(arg)).cloned().collect();
    let is_mine = |name: &OsStr| name.as_encoded_bytes().ends_with(b"_MINE");
    (
        args,
        environment.filter(|(name, value)| is_mine(name) && is_true(value)).map(|(name, _)| name).collect(),
    )
}

fn is_mine(arg: &OsStr) -> bool {
    let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix('-')) else { return false };
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
    name == "mine" && is_true(OsStr::new(value))
}

fn is_true(value: &OsStr) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].iter().any(|yes| value == *yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_taken_out_and_nothing_else() {
        let sealing = [
            "--mine",
            "-mine",
            "--mine=true",
            "-mine=1",
            "--mine=t",
            "--mine=T",
            "-mine=True",
            "--mine=TRUE",
        ];
        let others = [
            "--mine=false",
            "-mine=0",
            "mine",
            "--miner.etherbase",
            "0x1",
            "--miner.gasprice=1",
            "--mined",
            "--",
            "-",
            "",
            "--datadir=/x/--mine",
            "---mine",
        ];
        let all: Vec<OsString> = sealing.iter().chain(&others).map(OsString::from).collect();
        let variables = [("GETH_MINE", "true"), ("GETH_MINER", "true"), ("X_MINE", "false"), ("MINE", "1")];
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let (left, hidden) = without_sealing(&all, variables);
        assert_eq!(left, others.map(OsString::from));
        assert_eq!(hidden, [OsString::from("GETH_MINE")]);
    }
}
