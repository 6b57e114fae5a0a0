//! The command line and the environment of a node, as far as we change them: to keep it from sealing, to try it without
//! peers, and to have it follow the chain again at once. Its grammar is in [`crate::flags`].

use crate::flags::{flag, is_true};
use crate::machine::Mode;
use std::ffi::{OsStr, OsString};

/// Variables that make a node look for a better chain at once and often, instead of every 10 s where it has fewer than 5
/// peers. Measured: own seal again after 0.9 s instead of 10.8 s (`wbft/README.md`, section 8).
const FAST_SYNC: [(&str, &str, &str); 2] =
    [("SYNC_FORCECYCLE", "sync.forcecycle", "1ms"), ("SYNC_TDINTERVAL", "sync.tdinterval", "100ms")];
/// The prefixes of the variables of the nodes that we know.
const PREFIXES: [&str; 2] = ["GETH_", "GWEMIX_"];

/// A variable of an environment, with its value.
pub(super) type Variable = (OsString, OsString);

/// How a node is executed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Variables of our environment that it does not get.
    pub(super) hidden: Vec<OsString>,
    /// Variables that it gets besides ours.
    pub(super) set: Vec<Variable>,
    /// Whether its stderr is kept until it has ended.
    pub(super) is_try: bool,
}

/// The command line and environment for a node in this mode. `environment` is ours.
pub(super) fn invocation(args: &[OsString], environment: &[Variable], mode: Mode) -> Invocation {
    let mut invocation = Invocation { args: args.to_vec(), ..Invocation::default() };
    if mode != Mode::Full {
        invocation.args.retain(|arg| !is_mine(arg));
        let mine = |(name, value): &&Variable| ends_with(name, "_MINE") && is_true(value);
        invocation.hidden.extend(environment.iter().filter(mine).map(|(name, _)| name.clone()));
    }
    if mode == Mode::Dry {
        invocation.args = without_peers(invocation.args);
        let limits = environment.iter().filter(|(name, _)| ends_with(name, "_MAXPEERS"));
        invocation.hidden.extend(limits.map(|(name, _)| name.clone()));
        invocation.is_try = true;
    }
    invocation
}

/// The arguments for a node with no peers at all, instead of any number that was configured.
fn without_peers(args: Vec<OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        match flag(&arg) {
            Some(("maxpeers", None)) => drop(rest.next()),
            Some(("maxpeers", Some(_))) => {}
            _ => kept.push(arg),
        }
    }
    kept.extend(["--maxpeers", "0"].map(OsString::from));
    kept
}

/// The variables for a fast sync that the operator has not set, by a variable or a flag.
pub(super) fn fast_sync(args: &[OsString], environment: &[Variable]) -> Vec<Variable> {
    let mut set = Vec::new();
    for (name, given, value) in FAST_SYNC {
        if args.iter().any(|arg| flag(arg).is_some_and(|(flag, _)| flag == given)) {
            continue;
        }
        for prefix in PREFIXES {
            let name = OsString::from(format!("{prefix}{name}"));
            if environment.iter().all(|(other, _)| *other != name) {
                set.push((name, OsString::from(value)));
            }
        }
    }
    set
}

fn ends_with(name: &OsStr, end: &str) -> bool {
    name.as_encoded_bytes().ends_with(end.as_bytes())
}

fn is_mine(arg: &OsStr) -> bool {
    let Some((name, value)) = flag(arg) else { return false };
    name == "mine" && value.is_none_or(is_true)
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
        let silent = invocation(&all, &pairs(&variables), Mode::Silent);
        assert_eq!(silent.args, others.map(OsString::from));
        assert_eq!(silent.hidden, [OsString::from("GETH_MINE")]);
    }

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn a_node_is_tried_without_peers_and_engine_whatever_was_configured() {
        let args = os(&["--mine", "--maxpeers", "50", "-maxpeers=3", "--port", "1"]);
        let dry = invocation(&args, &pairs(&[("GETH_MAXPEERS", "9"), ("PATH", "/")]), Mode::Dry);
        assert_eq!(dry.args, os(&["--port", "1", "--maxpeers", "0"]));
        assert_eq!(dry.hidden, os(&["GETH_MAXPEERS"]));
    }

    #[test]
    fn fast_sync_is_set_where_the_operator_has_not_set_it() {
        let set = |args: &[&str], environment: &[(&str, &str)]| fast_sync(&os(args), &pairs(environment));
        let all = pairs(&[
            ("GETH_SYNC_FORCECYCLE", "1ms"),
            ("GWEMIX_SYNC_FORCECYCLE", "1ms"),
            ("GETH_SYNC_TDINTERVAL", "100ms"),
            ("GWEMIX_SYNC_TDINTERVAL", "100ms"),
        ]);
        assert_eq!(set(&["--mine"], &[]), all);
        assert_eq!(set(&["--sync.forcecycle", "5s"], &[]), all[2..]);
        assert_eq!(set(&["--sync.forcecycle=5s", "-sync.tdinterval=1s"], &[]), []);
        assert_eq!(set(&[], &[("GWEMIX_SYNC_FORCECYCLE", "9s")]), [&all[..1], &all[2..]].concat());
    }
}
