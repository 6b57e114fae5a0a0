//! The commands of the program, as one table: help, usage errors and completions come from it, and a test holds the
//! man page against it.

mod options;

pub use options::{OPTIONS, Opt};

use crate::config::KEYS;
use crate::exit::Exit;
use std::fmt::Write as _;

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The words and arguments, without the program's name.
    pub synopsis: &'static str,
    /// Its effect, in one sentence.
    pub about: &'static str,
}

impl Usage {
    /// Its options, each with the placeholder of its value.
    pub(super) fn flags(&self) -> Vec<(&'static str, Option<&'static str>)> {
        self.parts().0
    }

    /// The placeholders of its other arguments, without the brackets of those that may be left out.
    pub(super) fn arguments(&self) -> Vec<&'static str> {
        self.parts().1
    }

    fn parts(&self) -> (Vec<(&'static str, Option<&'static str>)>, Vec<&'static str>) {
        let (mut flags, mut arguments) = (Vec::new(), Vec::new());
        let mut words = self.synopsis.split(' ');
        while let Some(word) = words.next() {
            let bare = word.trim_matches(['[', ']', '.']);
            if bare.len() > 2 && bare.starts_with("--") {
                let is_valued = word.starts_with('[') && !word.ends_with(']');
                let value = if is_valued { words.next() } else { None };
                flags.push((bare, value.map(|value| value.trim_end_matches(']'))));
            } else if bare.bytes().any(|b| b.is_ascii_uppercase()) {
                arguments.push(bare);
            }
        }
        (flags, arguments)
    }

    /// Its options as the table explains them.
    pub fn options(&self) -> Vec<&'static Opt> {
        let words = self.words();
        self.flags().into_iter().filter_map(|(flag, _)| options::find(&words, flag)).collect()
    }

    /// A line as one would type it.
    fn example(&self) -> String {
        let words = self.words();
        let flag = self.synopsis.strip_prefix(&*words).filter(|rest| rest.starts_with(" --"));
        let mut line = words.clone() + flag.unwrap_or_default();
        for argument in self.arguments() {
            line = line + " " + options::sample(&words, argument);
        }
        line.trim_end().to_owned()
    }

    /// The words before the arguments: they are typed as they are.
    pub(super) fn words(&self) -> String {
        let is_word =
            |w: &&str| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !w.starts_with('-');
        self.synopsis.split(' ').take_while(is_word).collect::<Vec<_>>().join(" ")
    }

    /// Whether it begins with these words, or is a command of this word.
    pub(super) fn begins_with(&self, words: &str) -> bool {
        format!("{} ", self.words()).starts_with(&format!("{words} "))
    }
}

const fn usage(synopsis: &'static str, about: &'static str) -> Usage {
    Usage { synopsis, about }
}

/// Every command, in the order of help.
pub const COMMANDS: &[Usage] = &[
    usage("init [BINARY]", "lay out the home, with BINARY as the first version of the node; or check it"),
    usage("init --import", "adopt a home that was laid out by Cosmovisor or the Go wemixvisor"),
    usage("run [--] [NODE ARGS...]", "run the node, and upgrade it when the time comes"),
    usage(
        "status [--json] [--metrics] [--watch] [--exit-code]",
        "show what is going on, for people, programs or Prometheus; with --exit-code, 5 where something needs you",
    ),
    usage(
        "stop [--when-safe] [--timeout DURATION]",
        "stop the node and the supervisor, and wait for both; with --when-safe, in its turn",
    ),
    usage(
        "restart [--when-safe] [--wait] [--timeout DURATION]",
        "stop the node and start it again: with --when-safe in its turn, with --wait until it reports heads again",
    ),
    usage("detach", "end the supervisor alone, and leave the node to the next one"),
    usage("reexec", "execute the program now at the path of the supervisor in its place; the node goes on"),
    usage(
        "upgrade schedule NAME HEIGHT [--fork-height N] [--deadline-height N] [--sha256 HEX] [--sha512 HEX] \
         [--url URL] [--info TEXT] [--data-incompatible] [--now] [--force]",
        "plan an upgrade at a height, with --now also at a height that has passed",
    ),
    usage("upgrade list [--json]", "show planned and past upgrades, and what is staged besides"),
    usage("upgrade cancel NAME", "make sure that an upgrade does not happen"),
    usage("upgrade hold NAME", "keep an upgrade from happening for now; it stays planned"),
    usage("upgrade release NAME", "let an upgrade happen that was on hold"),
    usage(
        "upgrade add NAME BINARY [--args FILE] [--add-arg ARG] [--drop-arg ARG] [--force]",
        "stage the binary of an upgrade, and how the node's arguments differ for it",
    ),
    usage(
        "upgrade show NAME [--json]",
        "show what is known of a version: its binary, its arguments, its plan, the receipt of its upgrade",
    ),
    usage(
        "upgrade fetch NAME [--url URL] [--sha256 HEX] [--json]",
        "download, verify and stage the binary of an upgrade",
    ),
    usage("upgrade now NAME", "switch now, whatever the height"),
    usage("upgrade wait NAME [--timeout DURATION]", "wait until an upgrade has ended"),
    usage("upgrade remove NAME [--force]", "remove a staged binary that is neither in use nor planned"),
    usage(
        "rollback [--to NAME] [--restore] [--force] [--yes] [--wait]",
        "go back to the version before, or to NAME (or genesis): now, or with the next run; with --restore, on its data",
    ),
    usage("rollback --cancel", "do not go back after all, as long as the node was not stopped for it"),
    usage(
        "rehearse NAME [--blocks N] [--keep] [--force] [--json]",
        "try the staged binary of an upgrade on a clone of the data, fed with the blocks of the node that goes on",
    ),
    usage(
        "plan create NAME [NAME:HEIGHT...] [--description TEXT] [--chain-id N] [--from FILE] [--force]",
        "make a plan of upgrades, which does nothing until it is executed",
    ),
    usage(
        "plan add-upgrade PLAN NAME:HEIGHT [--fork-height N] [--deadline-height N] [--sha256 HEX] \
         [--sha512 HEX] [--url URL] [--info TEXT] [--data-incompatible]",
        "put an upgrade into a plan",
    ),
    usage("plan remove-upgrade PLAN NAME", "take an upgrade out of a plan"),
    usage("plan validate NAME|FILE [--json]", "judge a plan, and report every problem at once"),
    usage("plan show NAME [--json]", "show what is in a plan"),
    usage("plan list [--json]", "show all plans"),
    usage("plan execute NAME [--force]", "follow a plan as it is now, and prepare its binaries"),
    usage(
        "plan apply FILE [--force]",
        "make or change the plan in a file and follow it, unless it is in force already",
    ),
    usage("plan pause NAME", "hold the upgrades of a plan back"),
    usage("plan resume NAME", "let a paused plan go on"),
    usage("plan remove NAME", "delete a plan that is not being followed, or is done"),
    usage(
        "plan status [NAME] [--json] [--watch]",
        "show how far a plan is; without NAME, how far all are that were executed",
    ),
    usage("plan wait NAME [--timeout DURATION]", "wait until a plan is done"),
    usage(
        "backup create [NAME] [--force] [--json]",
        "back the data of a stopped node up; only `backup prune NAME` removes it again",
    ),
    usage("backup list [--json]", "show the backups, and where data is that restores have replaced"),
    usage("backup show NAME [--json]", "show how a backup was made, and what is known about its bytes"),
    usage(
        "backup verify NAME [--json]",
        "read a backup whole and compare it with its digests, or record those that it lacks",
    ),
    usage(
        "backup restore NAME [--force] [--json]",
        "put a backup in place of the data of a stopped node; the data is kept beside it",
    ),
    usage(
        "backup prune [NAME...] [--keep N] [--max-age DURATION] [--replaced] [--dry-run] [--json]",
        "remove these backups, or those of upgrades that are too many or too old; with --replaced also the data that \
         restores have replaced",
    ),
    usage(
        "consensus [--json] [--watch]",
        "show the head, the validators and which of them are live, and the gates",
    ),
    usage(
        "check [--next] [--wait] [--timeout DURATION] [--json]",
        "show whether the network could spare this node now; with --wait, when it can; with --next, when its next turns are",
    ),
    usage("history [--json]", "show what has happened here, oldest first"),
    usage(
        "doctor [--json] [--] [NODE ARGS...]",
        "check home, node and machine, one line each with the cure; 5 where something fails",
    ),
    usage("wait-height HEIGHT [--timeout DURATION]", "wait until the chain is at a height"),
    usage(
        "resolve retry [--with NAME]",
        "after a halt: let the next run try the upgrade again, or try it with another binary, staged as NAME",
    ),
    usage(
        "resolve rollback [--force]",
        "after a halt: let the next run go back to the old binary, as rollback does",
    ),
    usage(
        "resolve sign [--at HEIGHT:HASH]",
        "show what a silent validator waits for; with --at, have it sign, once you have found out that no validator has \
         a block beyond that one",
    ),
    usage("resolve head", "forget the highest head that was known for sure, when it was a wrong one"),
    usage("resolve chain", "let the next run bind this home to another chain"),
    usage("config show [--json]", "show the effective configuration and where each value came from"),
    usage("config check [--] [NODE ARGS...]", "check the configuration, for a node with these arguments"),
    usage(
        "completion SHELL [WORD...]",
        "print the completion script for bash, zsh or fish; for `words`, the words that may come next",
    ),
    usage("version", "show the version of wemixvisor"),
    usage("help [COMMAND]", "show this help, or that of a command"),
];

/// Help about the commands that begin with the words of `topic`.
pub(super) fn help_about(topic: &str) -> String {
    let mut text = String::new();
    for command in COMMANDS.iter().filter(|c| c.begins_with(topic)) {
        let _ = writeln!(text, "wemixvisor {}\n    {}", command.synopsis, command.about);
        // Of a whole family the commands are enough.
        if command.words() == topic {
            for option in command.options() {
                let example = if option.example.is_empty() { "" } else { ", as in " };
                let about = format!("{}{example}{}", option.about, option.example);
                let _ = writeln!(text, "    {}\n        {about}", option.flag);
            }
            let _ = writeln!(text, "    example: wemixvisor {}", command.example());
        }
    }
    text.push_str("\nflags, keys and exit codes: wemixvisor help; everything: man wemixvisor\n");
    text
}

/// The whole help.
pub fn help() -> String {
    let mut text = String::from(
        "wemixvisor runs a WEMIX (WBFT) node and replaces its binary at block heights.\n\n\
         usage: wemixvisor [FLAGS] COMMAND\n\ncommands:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "  {}\n      {}", command.synopsis, command.about);
    }
    text.push_str("\nflags (each but --config is also a key of config.yaml and an environment variable):\n");
    text.push_str("  --config FILE\n      read this file instead of wemixvisor/config.yaml in the home\n");
    for key in KEYS {
        let short = key.short.map(|s| format!(", --{s}")).unwrap_or_default();
        let default = if key.default.is_empty() { String::new() } else { format!(" [{}]", key.default) };
        let _ = writeln!(text, "  {}{short} ({}){default}\n      {}", key.flag(), key.env(), key.doc);
    }
    text.push_str("\nexit codes:\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(text, "  {:>2}  {meaning}", exit.code());
    }
    text.push_str("\nsee also: man wemixvisor\n");
    text
}
