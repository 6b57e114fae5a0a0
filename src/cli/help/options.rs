//! The options of all commands, explained once where they mean the same everywhere.

/// An option of a command.
#[derive(Debug)]
pub struct Opt {
    /// The words with which the command begins; none for an option that means the same wherever it is.
    pub command: &'static str,
    /// The option.
    pub flag: &'static str,
    /// Its effect.
    pub about: &'static str,
    /// How it is written; empty for one without a value.
    pub example: &'static str,
}

const fn switch(command: &'static str, flag: &'static str, about: &'static str) -> Opt {
    Opt { command, flag, about, example: "" }
}

const fn valued(
    command: &'static str,
    flag: &'static str,
    about: &'static str,
    example: &'static str,
) -> Opt {
    Opt { command, flag, about, example }
}

/// Every option, those of one command first.
pub static OPTIONS: &[Opt] = &[
    switch("init", "--import", "take over what the other supervisor was told, and say what was not taken"),
    switch("status", "--metrics", "print the metrics of Prometheus, as for its textfile collector"),
    switch("status", "--exit-code", "end with 0 healthy, 5 something needs you, 3 no supervisor, 79 halted"),
    switch("upgrade schedule", "--now", "accept a height that has passed: the upgrade is due at once"),
    switch(
        "upgrade schedule",
        "--force",
        "accept too little room before the fork for the turns of all validators",
    ),
    valued("upgrade add", "--args", "a file with the changes of the arguments of `run`", "--args v2.args"),
    valued(
        "upgrade add",
        "--add-arg",
        "an argument that this version gets besides",
        "--add-arg --new-flag=1",
    ),
    valued(
        "upgrade add",
        "--drop-arg",
        "an argument of `run` that this version does not get",
        "--drop-arg --old-flag",
    ),
    switch("upgrade add", "--force", "replace a staged binary, or stage the one that runs"),
    switch("upgrade remove", "--force", "remove it although a rollback may lead back to it"),
    valued("rollback", "--to", "the version to go back to", "--to genesis"),
    switch("rollback", "--restore", "put the backup of before the upgrade in place of the data"),
    switch("rollback", "--force", "go back although that is refused, with the reason"),
    switch("rollback", "--yes", "ask nothing"),
    switch("rollback", "--wait", "wait until the earlier version runs"),
    switch("rollback", "--cancel", "withdraw the order"),
    valued("rehearse", "--blocks", "the number of blocks that it must follow", "--blocks 500"),
    switch("rehearse", "--keep", "keep the clone and the log of the shadow"),
    switch("rehearse", "--force", "rehearse although the machine may be too small"),
    valued("plan create", "--description", "words for people", "--description autumn"),
    valued("plan create", "--chain-id", "the chain for which it is meant", "--chain-id 1112"),
    valued("plan create", "--from", "a plan to begin with", "--from autumn.json"),
    switch("plan", "--force", "accept too little room before a fork for the turns of all validators"),
    switch("backup create", "--force", "make it although the node was killed or has crashed"),
    switch("backup restore", "--force", "restore what is refused, with the reason"),
    valued("backup prune", "--keep", "how many of the newest stay", "--keep 1"),
    valued("backup prune", "--max-age", "remove the older ones", "--max-age 720h"),
    switch("backup prune", "--replaced", "remove also the data that restores have replaced"),
    switch("backup prune", "--dry-run", "show what would be removed"),
    switch("check", "--next", "show the next turns of this node"),
    switch("check", "--wait", "wait until the network can spare it"),
    valued("resolve retry", "--with", "the staged binary to try instead", "--with v2-fixed"),
    switch("resolve rollback", "--force", "go back although that is refused, with the reason"),
    valued("resolve sign", "--at", "the block beyond which no validator has one", "--at 1200000:0x5a…"),
    switch("restart", "--wait", "wait until the node reports heads again"),
    switch("", "--when-safe", "wait first until the gates let the node go, in its turn"),
    switch("", "--json", "print JSON for programs, and nothing else on stdout"),
    switch("", "--watch", "show it again and again, until it is interrupted"),
    valued("", "--timeout", "give up after this time, with 5", "--timeout 1h30m"),
    valued(
        "",
        "--fork-height",
        "the height from which the old binary cannot follow",
        "--fork-height 1250000",
    ),
    valued("", "--deadline-height", "the height from which there is an alarm", "--deadline-height 1240000"),
    valued("", "--sha256", "the digest of the binary or archive, 64 hexadecimal digits", "--sha256 9f86d0…"),
    valued("", "--sha512", "the digest of the binary or archive, 128 hexadecimal digits", "--sha512 ee26b0…"),
    valued(
        "",
        "--url",
        "where it is, for one platform or for all",
        "--url linux/amd64=https://example.org/v2.tar.gz",
    ),
    valued("", "--info", "words for people", "--info \"first hard fork\""),
    switch("", "--data-incompatible", "the old binary cannot open data that the new one has written"),
];

/// Arguments as they are typed.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("plan", "PLAN", "autumn"),
    ("plan add-upgrade", "NAME:HEIGHT", "v2:1200000"),
    ("plan remove-upgrade", "NAME", "v2"),
    ("plan", "NAME", "autumn"),
    ("plan", "NAME|FILE", "autumn.json"),
    ("plan", "FILE", "autumn.json"),
    ("backup create", "NAME", "before-work"),
    ("backup", "NAME", "v2-20261130T120000_000Z"),
    ("", "NAME", "v2"),
    ("", "NAME:HEIGHT", "v2:1200000"),
    ("", "HEIGHT", "1200000"),
    ("", "BINARY", "/opt/gwemix-v2"),
    ("run", "NODE", "--"),
    ("", "ARGS", "--mine"),
    ("", "NODE", "--"),
    ("", "SHELL", "bash"),
    ("", "COMMAND", "upgrade schedule"),
    ("", "WORD", ""),
];

fn is_of(command: &str, words: &str) -> bool {
    command.is_empty() || format!("{words} ").starts_with(&format!("{command} "))
}

/// The explanation of an option of the command with these words.
pub(super) fn find(words: &str, flag: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.flag == flag && is_of(option.command, words))
}

/// The sample for an argument of the command with these words.
pub(super) fn sample(words: &str, argument: &'static str) -> &'static str {
    let sample = SAMPLES.iter().find(|(command, name, _)| *name == argument && is_of(command, words));
    sample.map_or(argument, |(_, _, sample)| sample)
}

#[cfg(test)]
mod tests {
    use super::super::{COMMANDS, help_about};
    use super::*;

    #[test]
    fn every_option_is_explained_and_every_explanation_is_of_one() {
        let mut used = vec![0; OPTIONS.len()];
        for command in COMMANDS {
            for (flag, value) in command.flags() {
                let found =
                    find(&command.words(), flag).unwrap_or_else(|| panic!("{}: {flag}", command.synopsis));
                assert_eq!(found.example.is_empty(), value.is_none(), "{}: {flag}", command.synopsis);
                assert!(found.example.is_empty() || found.example.starts_with(&format!("{flag} ")), "{flag}");
                used[OPTIONS.iter().position(|option| std::ptr::eq(option, found)).unwrap()] += 1;
            }
            for argument in command.arguments() {
                assert_ne!(sample(&command.words(), argument), argument, "{}", command.synopsis);
            }
        }
        let unused: Vec<_> = OPTIONS.iter().zip(used).filter(|(_, used)| *used == 0).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn the_help_of_one_command_has_options_and_an_example() {
        let help = help_about("upgrade schedule");
        for part in [
            "    --fork-height\n",
            ", as in --fork-height 1250000\n",
            "example: wemixvisor upgrade schedule v2 1200000\n",
        ] {
            assert!(help.contains(part), "{help}");
        }
        assert!(help_about("rollback").contains("example: wemixvisor rollback --cancel\n"));
        assert!(!help_about("upgrade").contains("example"), "a family is listed");
    }
}
