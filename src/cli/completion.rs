//! Completion of command lines. The scripts for the shells are a few lines each that ask the program itself for the words
//! that may come next, so that all of them know what the table of commands and the home know.

use super::help::{COMMANDS, Usage};
use super::print;
use crate::config::{Config, KEYS, Sources};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::sorted;
use std::fs;
use std::path::PathBuf;

const BASH: &str = r#"# Completion of wemixvisor for bash: source it, or put it into /usr/share/bash-completion/completions/wemixvisor
_wemixvisor() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1)
}
complete -o default -F _wemixvisor wemixvisor
"#;
const ZSH: &str = r#"#compdef wemixvisor
# Completion of wemixvisor for zsh: put it into a directory of $fpath as _wemixvisor
_wemixvisor() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then
        found=("${found[@]//:/\\:}")
        found=("${found[@]/$'\t'/:}")
        _describe wemixvisor found
    else
        _files
    fi
}
if [[ "$funcstack[1]" == _wemixvisor ]]; then _wemixvisor "$@"; else compdef _wemixvisor wemixvisor; fi
"#;
const FISH: &str = r#"# Completion of wemixvisor for fish: put it into /usr/share/fish/vendor_completions.d/wemixvisor.fish
function __wemixvisor
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l found ($program completion words $words (commandline -ct) 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c wemixvisor -f -a '(__wemixvisor)'
"#;

/// A word that may come next, and its explanation.
type Candidate = (String, &'static str);

/// Prints the script for a shell, or the words that may come next.
pub(super) fn completion(shell: &str, words: &[String], sources: &Sources) -> Result<()> {
    match shell {
        "bash" => print(BASH),
        "zsh" => print(ZSH),
        "fish" => print(FISH),
        "words" => {
            let home = Config::load(sources).ok().and_then(|loaded| super::home_of(&loaded.config).ok());
            let names = |kind| home.as_ref().map(|home| names(home, kind)).unwrap_or_default();
            let found = candidates(words, names);
            print(&found.iter().map(|(word, about)| format!("{word}\t{about}\n")).collect::<String>())
        }
        other => {
            let what = format!("there is no completion for {other:?}");
            Err(Error::new(Kind::Usage, what).hint("there are bash, zsh and fish"))
        }
    }
}

/// Things that have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Upgrades,
    Plans,
    Backups,
}

/// The names of what is in the home.
fn names(home: &Home, kind: Names) -> Vec<String> {
    let dir: PathBuf = match kind {
        Names::Upgrades => home.upgrades(),
        Names::Plans => home.plans(),
        Names::Backups => home.backups().to_owned(),
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = entries.filter(|name| !name.starts_with('.')).collect();
    if kind == Names::Plans {
        names = names.iter().filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    }
    sorted::sort(&mut names);
    names
}

/// The words that may stand in place of the last one. None where a file is expected, or anything.
fn candidates(words: &[String], names: impl Fn(Names) -> Vec<String>) -> Vec<Candidate> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    if before.first().is_some_and(|word| word == "run") || before.iter().any(|word| word == "--") {
        return Vec::new();
    }
    let mut found = match command(before) {
        None if last.starts_with('-') => {
            let keys = KEYS.iter().map(|key| (key.flag(), key.doc));
            keys.chain([("--config".to_owned(), "read this file instead of config.yaml in the home")])
                .collect()
        }
        None => next_words(before),
        Some((uses, given)) => arguments(&uses, &given, last, names),
    };
    found.retain(|(word, _)| word.starts_with(last));
    found
}

/// The uses of the command that begins a line, and the words behind it; `None` while it is not complete.
fn command(before: &[String]) -> Option<(Vec<&'static Usage>, Vec<String>)> {
    let is_begun = |command: &&Usage, length: usize| {
        before.len() >= length && command.words() == before[..length].join(" ")
    };
    let uses = |length| COMMANDS.iter().filter(|command| is_begun(command, length)).collect::<Vec<_>>();
    let (uses, length) =
        [2, 1].into_iter().map(|length| (uses(length), length)).find(|(uses, _)| !uses.is_empty())?;
    Some((uses, before[length..].to_vec()))
}

/// The next word of the commands that begin with these.
fn next_words(before: &[String]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for command in COMMANDS {
        let words = command.words();
        let words: Vec<&str> = words.split(' ').collect();
        let Some(next) = words.get(before.len()).filter(|_| before.iter().zip(&words).all(|(a, b)| a == b))
        else {
            continue;
        };
        if found.iter().all(|(known, _)| known != next) {
            let is_last = words.len() == before.len() + 1;
            found.push(((*next).to_owned(), if is_last { command.about } else { "" }));
        }
    }
    found
}

/// The options and arguments of a command that may follow those that are given.
fn arguments(
    uses: &[&'static Usage],
    given: &[String],
    last: &str,
    names: impl Fn(Names) -> Vec<String>,
) -> Vec<Candidate> {
    let words = uses[0].words();
    let flags: Vec<_> = uses.iter().flat_map(|usage| usage.flags()).collect();
    let expected = uses[0].arguments();
    let value_of = |flag: &str| flags.iter().find(|(known, _)| *known == flag)?.1;
    let placeholder = match given.last().and_then(|word| value_of(word)) {
        Some(value) => Some(value),
        None if last.starts_with('-') => {
            let options = uses.iter().flat_map(|usage| usage.options());
            let options = options.filter(|option| !given.iter().any(|word| word == option.flag));
            let help = ("--help".to_owned(), "explain the command");
            return options.map(|option| (option.flag.to_owned(), option.about)).chain([help]).collect();
        }
        None => {
            let mut free = 0;
            let mut rest = given.iter();
            while let Some(word) = rest.next() {
                if value_of(word).is_some() {
                    rest.next();
                } else if !word.starts_with('-') {
                    free += 1;
                }
            }
            // A command has one or two words.
            expected.get(free).or_else(|| expected.iter().find(|name| **name == "COMMAND")).copied()
        }
    };
    let about = |kind| names(kind).into_iter().map(|name| (name, "")).collect();
    match (placeholder, words.split(' ').next().unwrap_or_default()) {
        (Some("SHELL"), _) => ["bash", "zsh", "fish"].map(|shell| (shell.to_owned(), "")).to_vec(),
        (Some("COMMAND"), _) => next_words(given),
        (Some("PLAN"), _) => about(Names::Plans),
        (Some("NAME"), "plan") if words != "plan remove-upgrade" => about(Names::Plans),
        (Some("NAME"), "backup") => about(Names::Backups),
        (Some("NAME"), _) => about(Names::Upgrades),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Command, parse};
    use super::*;

    /// The candidates for a line; a blank at its end begins a new word.
    fn complete(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let line = [&["completion".to_owned(), "words".to_owned()], &words[..]].concat();
        let Ok(invocation) = parse(line.into_iter().map(Into::into).collect()) else { return Vec::new() };
        let Command::Completion { words, .. } = invocation.command else { panic!() };
        let names = |kind| vec![format!("{kind:?}").to_lowercase()];
        candidates(&words, names).into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn a_line_goes_on_with_commands_options_and_names() {
        assert_eq!(complete("sta"), ["status"]);
        assert_eq!(complete("--home /x sta"), ["status"]);
        assert_eq!(complete("upgrade re"), ["release", "remove"]);
        assert_eq!(complete("upgrade wait "), ["upgrades"]);
        assert_eq!(complete("upgrade wait --timeout 5s up"), ["upgrades"]);
        assert_eq!(complete("upgrade wait v2 "), [""; 0]);
        assert_eq!(complete("upgrade wait v2 --"), ["--timeout", "--help"]);
        assert_eq!(complete("status --json --me"), ["--metrics"]);
        assert_eq!(complete("status --json --js"), [""; 0], "it is given");
        assert_eq!(complete("plan execute "), ["plans"]);
        assert_eq!(complete("plan remove-upgrade p "), ["upgrades"]);
        assert_eq!(complete("plan add-upgrade "), ["plans"]);
        assert_eq!(complete("backup show b"), ["backups"]);
        assert_eq!(complete("rollback --to "), ["upgrades"]);
        assert_eq!(complete("rollback --c"), ["--cancel"]);
        assert_eq!(complete("help up"), ["upgrade"]);
        assert_eq!(complete("help upgrade ho"), ["hold"]);
        assert_eq!(complete("completion z"), ["zsh"]);
        assert_eq!(complete("--daemon-ho"), ["--daemon-home"]);
        assert!(complete("").contains(&"doctor".to_owned()));
        // A file, or the node's own.
        for line in ["plan apply ", "plan create p --from ", "init ", "run --", "doctor -- --m", "--config "]
        {
            assert_eq!(complete(line), [""; 0], "{line}");
        }
    }
}
