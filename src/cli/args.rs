//! From the command line to a [`Command`]: pure, and the only place that knows the argument parser.
//!
//! Flags of ours may stand before the command and after it. What belongs to the node is split off
//! first: everything behind `run` from `--`, or from the first argument that is not a flag of ours.

mod backup;
mod misuse;
mod own;
mod plan;
mod upgrade;
mod values;

pub(crate) use backup::{BackupCommand, Prune};
pub(crate) use plan::{NewPlan, PlanCommand};

use super::fetch;
use super::help::COMMANDS;
use super::rehearse::Wanted;
use super::rollback::Options as Rollback;
use super::stage::New;
use super::upgrade::Consent;
use crate::error::Result;
use crate::force::Force;
use crate::machine::Block;
use crate::name::Name;
use crate::schedule::Entry;
use crate::upgrade::rehearse::BLOCKS;
use misuse::{misused, superfluous, unknown, usage_error};
use own::Ours;
use pico_args::Arguments;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use upgrade::entry;
use values::{block, blocks, height, name, parsed, timeout, version};

/// A command line, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Invocation {
    pub(crate) command: Command,
    /// The file of `--config`.
    pub(crate) config: Option<PathBuf>,
    /// Flags that are configuration keys, with their values.
    pub(crate) flags: Vec<(String, String)>,
}

/// A command.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Init(Option<PathBuf>),
    Import,
    Run(Vec<OsString>),
    Status(Shown),
    Stop(Patience),
    Restart(Patience),
    Detach,
    Reexec,
    Schedule(Box<Entry>, Consent),
    List(Format),
    Cancel(Name),
    Hold(Name),
    Release(Name),
    Add(Box<New>),
    Show(Format, Name),
    History(Format),
    Now(Name),
    Rollback(Rollback),
    RollbackCancel,
    Rehearse(Wanted),
    Fetch(fetch::Wanted),
    Plan(PlanCommand),
    Backup(BackupCommand),
    WaitUpgrade { name: Name, timeout: Option<Duration> },
    Unstage { name: Name, force: Force },
    WaitHeight { height: u64, timeout: Option<Duration> },
    ResolveRetry { with: Option<Name> },
    ResolveSign { at: Option<Block> },
    ResolveHead,
    ResolveChain,
    ResolveRollback(Force),
    ConfigShow(Format),
    ConfigCheck(Vec<OsString>),
    Consensus { format: Format, watch: bool },
    Check { patience: Patience, format: Format },
    CheckNext(Format),
    Doctor { format: Format, args: Vec<OsString> },
    Completion { shell: String, words: Vec<String> },
    Version,
    Help(Option<String>),
}

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// How the status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(super) format: StatusFormat,
    /// Again and again, until it is interrupted.
    pub(super) watch: bool,
    /// Whether the exit code says how healthy the node is.
    pub(super) exit_code: bool,
}

/// Whether a command waits before or after its work, and for how long at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Until the network can spare the node.
    pub(super) when_safe: bool,
    /// Until the node is back.
    pub(super) wait: bool,
    pub(super) timeout: Option<Duration>,
}

impl Patience {
    fn checked(self, word: &str) -> Result<Self> {
        if self.timeout.is_some() && !self.when_safe && !self.wait {
            return Err(misused(word, "--timeout is for a command that waits"));
        }
        Ok(self)
    }
}

/// The form of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusFormat {
    Text,
    Json,
    Metrics,
}

/// Reads a value from its text; the error is the reason, in words.
type Read<T> = fn(&str) -> Result<T, String>;

fn shown(args: &mut Arguments, word: &str) -> Result<Shown> {
    let format = match (args.contains("--json"), args.contains("--metrics")) {
        (false, false) => StatusFormat::Text,
        (true, false) => StatusFormat::Json,
        (false, true) => StatusFormat::Metrics,
        (true, true) => return Err(misused(word, "--json and --metrics exclude each other")),
    };
    let watch = args.contains("--watch");
    if watch && format == StatusFormat::Metrics {
        return Err(misused(word, "--metrics and --watch exclude each other"));
    }
    Ok(Shown { format, watch, exit_code: args.contains("--exit-code") })
}

fn patience(args: &mut Arguments, word: &str, comes_back: bool) -> Result<Patience> {
    let when_safe = args.contains("--when-safe");
    let wait = comes_back && args.contains("--wait");
    Patience { when_safe, wait, timeout: opt(args, word, "--timeout", timeout)? }.checked(word)
}

/// Reads a command line, without the program's own name.
pub(crate) fn parse(argv: Vec<OsString>) -> Result<Invocation> {
    let mut ours = Ours::default();
    let is_bare = argv.is_empty();
    let mut rest = ours.take_leading(argv)?;
    let word = match rest.is_empty() {
        // `--home status` has taken the command for a value: a script must not see that end with 0.
        true if !is_bare => return Err(usage_error("no command is given".to_owned())),
        true => "help".into(),
        false => rest.remove(0),
    };
    let word = word.to_string_lossy().into_owned();
    if word == "run" {
        let mut args = ours.take_leading(rest)?;
        // The node's own help is asked for behind `--`.
        if args.first().is_some_and(|a| a == "--help" || a == "-h") {
            return Ok(ours.invoke(Command::Help(Some(word))));
        }
        if args.first().is_some_and(|a| a == "--") {
            args.remove(0);
        }
        return Ok(ours.invoke(Command::Run(args)));
    }
    if word == "completion" && rest.first().is_some_and(|shell| shell == "words") {
        return words_of_another_line(ours, rest);
    }
    let node_args = if word == "config" || word == "doctor" { behind_dashes(&mut rest) } else { Vec::new() };
    let mut args = Arguments::from_vec(ours.take_anywhere(rest)?);
    let word = in_full(word, &args);
    if args.contains(["-h", "--help"]) {
        let topic = COMMANDS.iter().any(|c| c.begins_with(&word)).then_some(word);
        return Ok(ours.invoke(Command::Help(topic)));
    }
    let mut command = command(word.split(' ').next().unwrap_or_default(), &mut args)?;
    match &mut command {
        Command::ConfigCheck(args) | Command::Doctor { args, .. } => *args = node_args,
        _ if let Some(extra) = node_args.first() => return Err(superfluous(&word, &extra.to_string_lossy())),
        _ => {}
    }
    match args.finish().first() {
        None => Ok(ours.invoke(command)),
        Some(extra) => Err(superfluous(&word, &extra.to_string_lossy())),
    }
}

/// The words of a line that is being typed, the last of which is not complete. Its flags of ours count as ours, since they
/// say which home is meant.
fn words_of_another_line(mut ours: Ours, mut rest: Vec<OsString>) -> Result<Invocation> {
    rest.remove(0);
    let last = rest.pop();
    let is_ours = rest.iter().all(|word| word != "--");
    let words = if is_ours { ours.take_anywhere(rest)? } else { rest };
    let words = words.into_iter().chain(last).map(|word| word.to_string_lossy().into_owned()).collect();
    Ok(ours.invoke(Command::Completion { shell: "words".to_owned(), words }))
}

/// Takes the arguments behind `--`, which are the node's.
fn behind_dashes(rest: &mut Vec<OsString>) -> Vec<OsString> {
    let Some(at) = rest.iter().position(|arg| arg == "--") else { return Vec::new() };
    let theirs = rest.split_off(at);
    theirs.into_iter().skip(1).collect()
}

/// The words of the command that begins with `word`: `upgrade list` and not only `upgrade`.
fn in_full(word: String, args: &Arguments) -> String {
    let sub = args.clone().subcommand().ok().flatten().map(|sub| format!("{word} {sub}"));
    sub.filter(|full| COMMANDS.iter().any(|c| c.words() == *full)).unwrap_or(word)
}

fn command(word: &str, args: &mut Arguments) -> Result<Command> {
    Ok(match word {
        "init" => match (args.contains("--import"), binary(args, word)?) {
            (true, Some(_)) => return Err(misused(word, "--import takes no BINARY")),
            (true, None) => Command::Import,
            (false, binary) => Command::Init(binary),
        },
        "status" => Command::Status(shown(args, word)?),
        "stop" => Command::Stop(patience(args, word, false)?),
        "restart" => Command::Restart(patience(args, word, true)?),
        "detach" => Command::Detach,
        "reexec" => Command::Reexec,
        "upgrade" => upgrade::upgrade(args)?,
        "history" => Command::History(format(args)),
        "rehearse" => Command::Rehearse(Wanted {
            keep: args.contains("--keep"),
            force: force(args),
            format: format(args),
            blocks: opt(args, word, "--blocks", blocks)?.unwrap_or(BLOCKS),
            name: free(args, word, "NAME", name)?,
        }),
        "plan" => Command::Plan(plan::plan(args)?),
        "backup" => Command::Backup(backup::backup(args)?),
        "consensus" => Command::Consensus { format: format(args), watch: args.contains("--watch") },
        "doctor" => Command::Doctor { format: format(args), args: Vec::new() },
        "check" if args.contains("--next") => Command::CheckNext(format(args)),
        "check" => {
            let (wait, timeout) = (args.contains("--wait"), opt(args, word, "--timeout", timeout)?);
            let patience = Patience { when_safe: wait, timeout, ..Patience::default() };
            Command::Check { patience: patience.checked(word)?, format: format(args) }
        }
        "rollback" if args.contains("--cancel") => Command::RollbackCancel,
        "rollback" => Command::Rollback(Rollback {
            to: opt(args, word, "--to", version)?,
            restore: args.contains("--restore"),
            force: force(args),
            yes: args.contains("--yes"),
            wait: args.contains("--wait"),
        }),
        "wait-height" => Command::WaitHeight {
            timeout: opt(args, word, "--timeout", timeout)?,
            height: free(args, word, "HEIGHT", height)?,
        },
        "resolve" => match subcommand(args, word)?.as_str() {
            "retry" => Command::ResolveRetry { with: opt(args, "resolve retry", "--with", name)? },
            "sign" => Command::ResolveSign { at: opt(args, "resolve sign", "--at", block)? },
            "head" => Command::ResolveHead,
            "chain" => Command::ResolveChain,
            "rollback" => Command::ResolveRollback(force(args)),
            other => return Err(unknown(&format!("resolve {other}"))),
        },
        "config" => match subcommand(args, word)?.as_str() {
            "show" => Command::ConfigShow(format(args)),
            "check" => Command::ConfigCheck(Vec::new()),
            other => return Err(unknown(&format!("config {other}"))),
        },
        "completion" => Command::Completion { shell: free(args, word, "SHELL", parsed)?, words: Vec::new() },
        "version" | "--version" | "-V" => Command::Version,
        "help" => Command::Help(topic(args)?),
        "--help" | "-h" => Command::Help(None),
        other => return Err(unknown(other)),
    })
}

/// The subject of the help: the words of a command, or the first of them.
fn topic(args: &mut Arguments) -> Result<Option<String>> {
    let mut topic = Vec::new();
    while let Some(word) = opt_free::<OsString>(args, "help")? {
        topic.push(word.to_string_lossy().into_owned());
    }
    let topic = topic.join(" ");
    match COMMANDS.iter().any(|c| c.begins_with(&topic)) {
        _ if topic.is_empty() => Ok(None),
        true => Ok(Some(topic)),
        false => Err(unknown(&topic)),
    }
}

/// Whether the result is wanted as JSON.
fn format(args: &mut Arguments) -> Format {
    if args.contains("--json") { Format::Json } else { Format::Text }
}

fn force(args: &mut Arguments) -> Force {
    consent(args, "--force")
}

/// Whether a flag is given by which the operator overrules a refusal.
fn consent(args: &mut Arguments, flag: &'static str) -> Force {
    if args.contains(flag) { Force::Yes } else { Force::No }
}

fn subcommand(args: &mut Arguments, word: &str) -> Result<String> {
    match args.subcommand() {
        Ok(Some(sub)) => Ok(sub),
        Ok(None) => Err(misused(word, "what to do is missing")),
        Err(e) => Err(misused(word, &e.to_string())),
    }
}

/// The next free argument, which must be there.
fn free<T>(args: &mut Arguments, word: &str, what: &str, read: Read<T>) -> Result<T> {
    free_if_any(args, word, what, read)?.ok_or_else(|| misused(word, &format!("{what} is missing")))
}

/// The next free argument, if there is one.
fn free_if_any<T>(args: &mut Arguments, word: &str, what: &str, read: Read<T>) -> Result<Option<T>> {
    let Some(text): Option<OsString> = opt_free(args, word)? else { return Ok(None) };
    let text = text.to_str().ok_or_else(|| misused(word, &format!("{what} is not UTF-8")))?;
    read(text).map(Some).map_err(|e| misused(word, &format!("{what}: {e}")))
}

fn opt_free<T: From<OsString>>(args: &mut Arguments, word: &str) -> Result<Option<T>> {
    let free = args.opt_free_from_os_str(|s| Ok::<_, String>(s.to_owned()));
    match free.map_err(|e| misused(word, &e.to_string()))? {
        Some(text) if text.to_string_lossy().starts_with('-') => {
            Err(superfluous(word, &text.to_string_lossy()))
        }
        text => Ok(text.map(T::from)),
    }
}

/// The file of a binary.
fn binary(args: &mut Arguments, word: &str) -> Result<Option<PathBuf>> {
    match opt_free::<PathBuf>(args, word)? {
        Some(path) if path.as_os_str().is_empty() => Err(misused(word, "BINARY is empty")),
        path => Ok(path),
    }
}

fn opt<T>(args: &mut Arguments, word: &str, flag: &'static str, read: Read<T>) -> Result<Option<T>> {
    let text = args.opt_value_from_fn(flag, |s| Ok::<_, String>(s.to_owned())).map_err(|e| match e {
        pico_args::Error::NonUtf8Argument => misused(word, &format!("{flag} is not UTF-8")),
        _ => misused(word, &format!("{flag} needs a value")),
    })?;
    text.map(|text| read(&text).map_err(|e| misused(word, &format!("{flag}: {e}")))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::error::Kind;
    use crate::machine::Target;

    fn read(line: &str) -> Result<Invocation> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    fn run_args(line: &str) -> Vec<String> {
        match read(line).unwrap().command {
            Command::Run(args) => args.into_iter().map(|a| a.into_string().unwrap()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_configuration_is_checked_for_a_node_with_its_arguments() {
        let args = |line| match read(line).map(|invocation| invocation.command) {
            Ok(Command::ConfigCheck(args)) => args,
            other => panic!("{other:?}"),
        };
        assert!(args("config check").is_empty());
        assert_eq!(args("config check -- --ipcdisable --home x"), ["--ipcdisable", "--home", "x"]);
        assert_eq!(read("config show -- --ipcdisable").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_plan_against_the_odds_takes_a_word_of_its_own() {
        let forced = |line: &str| match read(line).unwrap().command {
            Command::Schedule(_, Consent { force, .. })
            | Command::Plan(PlanCommand::Execute { force, .. }) => force,
            Command::Plan(PlanCommand::Create(new)) => new.force,
            other => panic!("{other:?}"),
        };
        for line in ["upgrade schedule v2 9", "plan execute p", "plan create p v2:9"] {
            assert_eq!((forced(line), forced(&format!("{line} --force"))), (Force::No, Force::Yes), "{line}");
        }
    }

    #[test]
    fn a_command_waits_as_long_as_it_is_told_to() {
        let check = |patience, format| Command::Check { patience, format };
        assert_eq!(read("check").unwrap().command, check(Patience::default(), Format::Text));
        assert_eq!(read("check --json --next").unwrap().command, Command::CheckNext(Format::Json));
        let patience = |when_safe, wait, seconds: Option<u64>| Patience {
            when_safe,
            wait,
            timeout: seconds.map(Duration::from_secs),
        };
        let waits = patience(true, false, Some(60));
        assert_eq!(read("check --wait --timeout 1m --json").unwrap().command, check(waits, Format::Json));
        assert_eq!(read("stop --when-safe --timeout 1m").unwrap().command, Command::Stop(waits));
        assert_eq!(read("restart --wait").unwrap().command, Command::Restart(patience(false, true, None)));
        for line in ["stop --wait", "stop --timeout 1m", "check --timeout 1m", "check --when-safe"] {
            assert_eq!(read(line).unwrap_err().kind(), Kind::Usage, "{line}");
        }
    }

    #[test]
    fn the_way_back_may_lead_to_a_version_or_to_genesis() {
        let Command::Rollback(back) = read("rollback --to genesis --yes").unwrap().command else { panic!() };
        assert_eq!((back.to, back.yes, back.wait), (Some(Target::Genesis), true, false));
        let Command::Rollback(back) = read("rollback --to v1").unwrap().command else { panic!() };
        assert_eq!(back.to, Some(Target::Upgrade("v1".parse().unwrap())));
        assert_eq!(read("rollback --cancel").unwrap().command, Command::RollbackCancel);
        assert_eq!(read("rollback --cancel --yes").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_rehearsal_has_a_hundred_blocks_unless_told_otherwise() {
        let wanted = |line: &str| match read(line).unwrap().command {
            Command::Rehearse(wanted) => wanted,
            other => panic!("{other:?}"),
        };
        let plain = wanted("rehearse v2");
        assert_eq!(
            (plain.blocks, plain.keep, plain.force, plain.format),
            (100, false, Force::No, Format::Text)
        );
        let all = wanted("rehearse --keep v2 --blocks 7 --json");
        assert_eq!((all.blocks, all.keep, all.format, all.name.as_str()), (7, true, Format::Json, "v2"));
        assert!(wanted("rehearse v2 --force").force.is_given());
    }

    #[test]
    fn the_nodes_arguments_are_left_alone() {
        assert_eq!(run_args("run --datadir x --mine"), ["--datadir", "x", "--mine"]);
        assert_eq!(run_args("run -- --home x -- y"), ["--home", "x", "--", "y"]);
        assert_eq!(run_args("run -- --help"), ["--help"]);
        assert_eq!(run_args("run --mine --help"), ["--mine", "--help"]);
        assert_eq!(run_args("run --home /h --validator-mode --http --home z"), ["--http", "--home", "z"]);
        assert_eq!(run_args("--home /h run"), [""; 0]);
    }

    #[test]
    fn flags_of_ours_are_found_on_both_sides_of_a_command() {
        let invocation = read("--home /h status --json --daemon-name=gwemix --config c.yaml").unwrap();
        let shown = Shown { format: StatusFormat::Json, watch: false, exit_code: false };
        assert_eq!(invocation.command, Command::Status(shown));
        assert_eq!(invocation.config, Some("c.yaml".into()));
        let flags = [("--home", "/h"), ("--daemon-name", "gwemix")];
        assert_eq!(invocation.flags, flags.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_switch_may_have_a_value_or_none() {
        for (line, value) in [
            ("run --unsafe-skip-backup false -- --mine", "false"),
            ("run --unsafe-skip-backup=false -- --mine", "false"),
            ("run --unsafe-skip-backup true --mine", "true"),
            ("run --unsafe-skip-backup --mine", "true"),
        ] {
            assert_eq!(run_args(line), ["--mine"], "{line}");
            assert_eq!(read(line).unwrap().flags, [("--unsafe-skip-backup".to_owned(), value.to_owned())]);
        }
        assert_eq!(read("config show --validator-mode false").unwrap().flags[0].1, "false");
    }

    #[test]
    fn an_upgrade_is_scheduled_with_all_it_may_have() {
        let sha256 = Digest::sha256(b"x");
        let hex = sha256.hex();
        let line =
            format!("upgrade schedule v2 100 --fork-height 200 --sha256 {hex} --url http://x/v2 --info hi");
        let Command::Schedule(entry, _) = read(&line).unwrap().command else { panic!() };
        assert_eq!((entry.name.as_str(), entry.height, entry.fork_height), ("v2", 100, Some(200)));
        assert_eq!((entry.digest, entry.binaries.get("any")), (Some(sha256), Some("http://x/v2")));
    }

    #[test]
    fn wrong_usage_is_one_line_that_says_what_to_do() {
        for line in [
            "frobnicate",
            "upgrade",
            "upgrade frob",
            "upgrade schedule v2",
            "upgrade schedule ../../x 5",
            "upgrade schedule v2 0",
            "upgrade schedule v2 -5",
            "upgrade schedule v2 5 --sha256 zz",
            "upgrade cancel",
            "upgrade add v2",
            "status extra",
            "status --jsno",
            "--home",
            "init a b",
            "resolve maybe",
            "rehearse",
            "rehearse v2 --blocks 0",
            "rehearse v2 v3",
            "help frobnicate",
            "--help extra",
        ] {
            let err = read(line).unwrap_err();
            assert_eq!(err.kind(), Kind::Usage, "{line}: {err}");
            assert!(err.to_string().contains("wemixvisor"), "{line}: {err}");
            assert!(!err.to_string().contains('\n'), "{line}: {err}");
        }
    }

    #[test]
    fn a_value_may_follow_an_equals_sign() {
        let line = "upgrade schedule v2 100 --fork-height=200 --url=http://x/v2 --info=a=b";
        let Command::Schedule(entry, _) = read(line).unwrap().command else { panic!() };
        assert_eq!((entry.fork_height, entry.binaries.get("any")), (Some(200), Some("http://x/v2")));
        assert_eq!(entry.info, Some(serde_json::Value::from("a=b").into()));
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said_of_that_argument() {
        for (line, says) in [
            (
                "upgrade list extra",
                "upgrade list: unexpected argument \"extra\"; usage: wemixvisor upgrade list",
            ),
            (
                "upgrade list --json --json",
                "upgrade list: --json is given twice; usage: wemixvisor upgrade list",
            ),
            ("upgrade schedule v2 9 --fork-height 10 --fork-height=11", "--fork-height is given twice"),
            ("upgrade schedule --info a --info b v2 9", "--info is given twice"),
            ("upgrade schedule v2 9 --fork-height --info x", "--fork-height: \"--info\" is not a height"),
            ("upgrade schedule v2 9 --fork-height", "--fork-height needs a value"),
            ("upgrade schedule v2 9 --fork-hieght 10", "did you mean --fork-height?"),
            ("upgrade schedule v2 +9", "\"+9\" is not a height"),
            ("upgrade schedule v2 9 --sha256=", "--sha256 needs a value"),
            ("upgrade schedule v2 9 --url v2", "--url: \"v2\" is not a URL: it has no scheme"),
            (
                "upgrade schedule v2 9 --url linux/amd64=ftp://x",
                "\"ftp://x\" is not a URL: the scheme ftp is not one of",
            ),
            ("upgrade schedule v2 9 --url linux/=http://a", "--url: \"linux/\" is not a platform"),
            ("upgrade schedule v2 9 --url http://a --url http://b", "--url: there are two for any"),
            ("upgrade fetch v2 --url http://u:secret@", "--url: \"http://***@\" is not a URL"),
            ("status --daemon-shutdwon-grace 5m", "did you mean --daemon-shutdown-grace?"),
            ("--daemon-shutdwon-grace=5m status", "did you mean --daemon-shutdown-grace?"),
            ("--config a --config b status", "--config is given twice"),
            ("--config= status", "--config needs a value"),
            ("--home status", "no command is given"),
        ] {
            let said = read(line).unwrap_err().to_string();
            assert!(said.contains(says), "{line}: {said}");
        }
        let empty =
            |words: &[&str]| parse(words.iter().map(OsString::from).collect()).unwrap_err().to_string();
        assert!(empty(&["init", ""]).contains("BINARY is empty"));
        assert!(empty(&["upgrade", "add", "v2", ""]).contains("BINARY is empty"));
        assert!(empty(&["upgrade", "schedule", "v2", &"9".repeat(5000)]).len() < 400);
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for (line, topic) in [
            ("", None),
            ("help", None),
            ("--help", None),
            ("-h", None),
            ("frobnicate --help", None),
            ("status --help", Some("status")),
            ("upgrade schedule -h v2", Some("upgrade schedule")),
            ("upgrade --help", Some("upgrade")),
            ("run --help", Some("run")),
            ("run --home /h -h", Some("run")),
            ("help upgrade", Some("upgrade")),
            ("help upgrade list", Some("upgrade list")),
        ] {
            assert_eq!(read(line).unwrap().command, Command::Help(topic.map(str::to_owned)), "{line}");
        }
    }
}
