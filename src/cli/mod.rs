//! The command line: parses it, has the module of the command do the work, and shows the result.
//!
//! Results go to stdout, messages to stderr; with `--json` stdout is JSON and nothing else.

mod args;
mod backup;
mod bug;
mod completion;
mod consensus;
mod doctor;
mod fetch;
mod forecast;
mod help;
mod history;
mod home;
mod logger;
mod network;
mod plan;
mod rehearse;
mod resolve;
mod rollback;
mod run;
mod show;
mod stage;
mod status;
mod terminal;
mod upgrade;
mod wait;

use help::help;
pub use help::{COMMANDS, OPTIONS, Opt};

use crate::config::{Config, Loaded, Problems, Sources};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::printable::{PrintableJson, printable_lines};
use crate::supervisor::CAN_RESUME;
use crate::sys;
use crate::upgrade::import;
use crate::upgrade::journal::Journal;
use args::{Command, Format, Invocation};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};

/// Runs the program: parse, dispatch, report once. `argv` is without the program's own name, the result is the number
/// for `exit(3)`.
pub fn program(argv: Vec<OsString>) -> u8 {
    bug::ends_the_process();
    sys::keep_files_private();
    dispatch(argv).unwrap_or_else(|e| {
        tell(format_args!("wemixvisor: {e}"));
        e.kind().code()
    })
}

/// Does what the command line asks for. An error is reported by the caller.
fn dispatch(argv: Vec<OsString>) -> Result<u8> {
    let (asked, argv) = match argv.as_slice() {
        [option, version, rest @ ..] if option == CAN_RESUME => (Some(version.clone()), rest.to_vec()),
        _ => (None, argv),
    };
    let Invocation { command, config, flags } = args::parse(argv)?;
    match command {
        Command::Version => return done(print(&format!("wemixvisor {}\n", env!("CARGO_PKG_VERSION")))),
        Command::Help(topic) => return done(print(&topic.as_deref().map_or_else(help, help::help_about))),
        _ => {}
    }
    let sources = Sources::of_process(config, flags);
    if let Command::Completion { shell, words } = &command {
        return done(completion::completion(shell, words, &sources));
    }
    let loaded = Config::load(&sources)?;
    let home = home_of(&loaded.config)?;
    if needs_a_home(&command) {
        is_laid_out(&home)?;
    }
    if let Some(version) = asked {
        return done(run::can_resume(&version.to_string_lossy(), &loaded, &home, command));
    }
    let config = &loaded.config;
    done(match command {
        Command::Run(args) => return run::run(loaded, sources, home, args),
        Command::Init(binary) => return home::init(config, &home, binary.as_deref()),
        Command::Import => return home::import(config, &home, &sources),
        Command::Status(wanted) => return status::status(config, &home, &wanted),
        Command::Rehearse(wanted) => return rehearse::run(config, &home, &wanted),
        Command::Consensus { format, watch: true } => return consensus::watch(config, &home, format),
        Command::Consensus { format, watch: false } => return consensus::show(config, &home, format),
        Command::Stop(patience) => home::stop(loaded.config, sources, home, patience),
        Command::Restart(patience) => home::restart(config, &home, patience),
        Command::Detach => home::detach(&home),
        Command::Reexec => home::reexec(&home),
        Command::Schedule(entry, consent) => upgrade::schedule(config, &home, *entry, consent),
        Command::List(format) => upgrade::list(config, &home, format),
        Command::Cancel(name) => upgrade::cancel(&home, &name),
        Command::Hold(name) => upgrade::hold(&home, &name),
        Command::Release(name) => upgrade::release(&home, &name),
        Command::Add(new) => stage::add(config, &home, &new),
        Command::History(format) => history::history(&home, format),
        Command::Show(format, name) => stage::show(config, &home, &name, format),
        Command::Fetch(wanted) => fetch::fetch(config, &home, wanted),
        Command::Now(name) => upgrade::now(config, &home, name),
        Command::ResolveSign { at } => resolve::sign(&home, at),
        Command::ResolveHead => resolve::head(&home),
        Command::ResolveChain => resolve::chain(&home),
        Command::Plan(command) => plan::run(command, config, &home),
        Command::Backup(command) => backup::run(command, config, &home),
        Command::WaitUpgrade { name, timeout } => wait::upgrade(config, &home, &name, timeout),
        Command::Unstage { name, force } => stage::remove(config, &home, &name, force),
        Command::WaitHeight { height, timeout } => wait::height(config, &home, height, timeout),
        Command::ResolveRetry { with: None } => resolve::retry(&home),
        Command::ResolveRetry { with: Some(name) } => resolve::retry_with(config, &home, name),
        Command::ResolveRollback(force) => resolve::rollback(config, &home, force),
        Command::RollbackCancel => rollback::cancel(&home),
        Command::Rollback(options) => rollback::rollback(config, &home, &options),
        Command::ConfigShow(format) => output(format, &loaded.show_json(), || loaded.show()),
        Command::CheckNext(format) => consensus::check_next(config, &home, format),
        Command::Check { patience, format } => consensus::check(config, &home, format, patience),
        Command::ConfigCheck(args) => config_check(&loaded, &args),
        Command::Doctor { args, format } => return doctor::doctor(&loaded, home, args, format),
        Command::Completion { .. } | Command::Version | Command::Help(_) => Ok(()),
    })
}

/// The home that the configuration names.
fn home_of(config: &Config) -> Result<Home> {
    let home = Home::new(&config.daemon_home, config.daemon_name.as_str())?;
    Ok(home.with_data(config.data_dir(&[])).with_backups(&config.daemon_data_backup_dir))
}

fn needs_a_home(command: &Command) -> bool {
    use Command::{ConfigCheck, ConfigShow, Doctor, Import, Init};
    !matches!(command, Init(_) | Import | ConfigShow(_) | ConfigCheck(_) | Doctor { .. })
}

/// A directory with nothing but a configuration is no home yet.
fn is_laid_out(home: &Home) -> Result<()> {
    if fs::symlink_metadata(home.current()).is_ok() || Journal::exists(home)? {
        return Ok(());
    }
    let hint = match import::unadopted(home) {
        Some(_) => "adopt the one of Cosmovisor with `wemixvisor init --import`",
        None => "lay it out with `wemixvisor init BINARY`, or set DAEMON_HOME to where it is",
    };
    Err(Error::new(Kind::Config, "no home is laid out here").at(home.root().display()).hint(hint))
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| Exit::Ok.code())
}

/// Checks the configuration for `run` with these arguments for the node.
fn config_check(loaded: &Loaded, args: &[OsString]) -> Result<()> {
    let (missing, warnings) = loaded.check_disk(args);
    let (unfit, doubtful) = loaded.check_args(args);
    for warning in loaded.warnings.iter().chain(&warnings).chain(&doubtful) {
        tell(format_args!("warning: {warning}"));
    }
    Problems([missing.0, unfit.0].concat()).into_result()?;
    loaded.config.check_dirs(args)?;
    let file = loaded.file.as_ref().map_or_else(|| "no file".to_owned(), |f| f.display().to_string());
    print(&format!("the configuration is good ({file})\n"))
}

/// Writes a result. A reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    write(|stdout| stdout.write_all(text.as_bytes()))
}

/// The same for a result that is made while it is written.
fn write(result: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    match result(&mut stdout).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Io, "write to stdout").because(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a result as JSON for programs, or as text for people.
fn output(format: Format, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Json => print_json(value),
        Format::Text => print(&text()),
    }
}

/// Writes a message to stderr, with escapes for what acts on a terminal: it may quote files and nodes. A message that
/// cannot be written changes neither the outcome nor the exit code.
fn tell(message: impl fmt::Display) {
    let text = printable_lines(message.to_string().trim_end()) + "\n";
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    write(|stdout| {
        serde_json::to_writer_pretty(PrintableJson(&mut *stdout), value)?;
        stdout.write_all(b"\n")
    })
}

/// Writes JSON in one line, as one of a sequence.
fn print_json_line(value: &impl serde::Serialize) -> Result<()> {
    write(|stdout| {
        serde_json::to_writer(PrintableJson(&mut *stdout), value)?;
        stdout.write_all(b"\n")
    })
}
