//! The command line: what was asked for, done by the part of the house that can, and shown.
//!
//! Results go to stdout, messages to stderr; with `--json` stdout is JSON and nothing else.

mod args;
mod backup;
mod bug;
mod consensus;
mod fetch;
mod forecast;
mod help;
mod home;
mod logger;
mod metrics;
mod network;
mod plan;
mod rehearse;
mod resolve;
mod rollback;
mod run;
mod show;
mod stage;
mod terminal;
mod upgrade;
mod wait;

pub use help::COMMANDS;
use help::help;

use crate::config::{Config, Loaded, Problems, Sources};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::printable::{PrintableJson, printable_lines};
use crate::supervisor::CAN_RESUME;
use crate::sys;
use crate::upgrade::journal::Journal;
use args::{Command, Format, Invocation};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};

/// Runs the program: parse, dispatch, report once. `argv` is without the program's own name, the result is the number
/// for `exit(3)`.
#[must_use]
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
        Command::Help(topic) => {
            return done(print(&topic.as_deref().map_or_else(help, help::help_about)));
        }
        _ => {}
    }
    let sources = Sources::of_process(config, flags);
    let loaded = Config::load(&sources)?;
    let home = home_of(&loaded.config)?;
    if needs_a_home(&command) {
        is_laid_out(&home)?;
    }
    if let Some(version) = asked {
        return done(run::can_resume(&version.to_string_lossy(), &loaded, &home, command));
    }
    match command {
        Command::Run { args } => run::run(loaded, sources, home, args),
        Command::Init { binary, import } => home::init(&loaded.config, &home, binary.as_deref(), import),
        Command::Status(format) => show::status(&loaded.config, &home, format),
        Command::Stop => done(home::stop(loaded.config, sources, home)),
        Command::Restart => done(home::restart(&home)),
        Command::Detach => done(home::detach(&home)),
        Command::Reexec => done(home::reexec(&home)),
        Command::Schedule { entry, now, force } => {
            done(upgrade::schedule(&loaded.config, &home, *entry, upgrade::Consent { now, force }))
        }
        Command::List { format } => done(upgrade::list(&loaded.config, &home, format)),
        Command::Cancel(name) => done(upgrade::cancel(&home, &name)),
        Command::Hold(name) => done(upgrade::hold(&home, &name)),
        Command::Release(name) => done(upgrade::release(&home, &name)),
        Command::Add(new) => done(stage::add(&loaded.config, &home, &new)),
        Command::Show { name, format } => done(stage::show(&loaded.config, &home, &name, format)),
        Command::Fetch { name, url, digest, format } => {
            done(fetch::fetch(&loaded.config, &home, fetch::Wanted { name, url, digest }, format))
        }
        Command::Now(name) => done(upgrade::now(&loaded.config, &home, name)),
        Command::Rehearse(wanted) => rehearse::run(&loaded.config, &home, &wanted),
        Command::ResolveSign { at } => done(resolve::sign(&home, at)),
        Command::ResolveHead => done(resolve::head(&home)),
        Command::ResolveChain => done(resolve::chain(&home)),
        Command::Plan(command) => plan::run(command, &loaded.config, &home),
        Command::Backup(command) => done(backup::run(command, &loaded.config, &home)),
        Command::WaitHeight { height, timeout } => done(wait::height(&loaded.config, &home, height, timeout)),
        Command::ResolveRetry { with: None } => done(resolve::retry(&home)),
        Command::ResolveRetry { with: Some(name) } => done(resolve::retry_with(&loaded.config, &home, name)),
        Command::ResolveRollback { force } => done(resolve::rollback(&loaded.config, &home, force)),
        Command::RollbackCancel => done(rollback::cancel(&home)),
        Command::Rollback(options) => done(rollback::rollback(&loaded.config, &home, &options)),
        Command::ConfigShow { format } => done(config_show(&loaded, format)),
        Command::Consensus { format, watch } => consensus::show(&loaded.config, &home, format, watch),
        Command::Check { next: true, format } => consensus::check_next(&loaded.config, &home, format),
        Command::Check { next: false, format } => consensus::check(&loaded.config, &home, format),
        Command::ConfigCheck { args } => done(config_check(&loaded, &args)),
        Command::Version | Command::Help(_) => Ok(Exit::Ok.code()),
    }
}

/// The home that the configuration names.
fn home_of(config: &Config) -> Result<Home> {
    let home = Home::new(&config.daemon_home, config.daemon_name.as_str())?;
    Ok(home.with_data(config.data_dir(&[])).with_backups(&config.daemon_data_backup_dir))
}

fn needs_a_home(command: &Command) -> bool {
    !matches!(command, Command::Init { .. } | Command::ConfigShow { .. } | Command::ConfigCheck { .. })
}

/// A directory with nothing but a configuration is no home yet.
fn is_laid_out(home: &Home) -> Result<()> {
    if fs::symlink_metadata(home.current()).is_ok() || Journal::exists(home)? {
        return Ok(());
    }
    Err(Error::new(Kind::Config, "no home is laid out here")
        .at(home.root().display())
        .hint("lay it out with `wemixvisor init BINARY`, or set DAEMON_HOME to where it is"))
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| Exit::Ok.code())
}

fn config_show(loaded: &Loaded, format: Format) -> Result<()> {
    match format {
        Format::Text => print(&loaded.show()),
        Format::Json => print_json(&loaded.show_json()),
    }
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

/// Writes a message to stderr, fit to be shown, since it may hold what others have written.
/// A message that cannot be written changes neither what is done nor the exit code.
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

/// The same in one line, for what goes on.
fn print_json_line(value: &impl serde::Serialize) -> Result<()> {
    write(|stdout| {
        serde_json::to_writer(PrintableJson(&mut *stdout), value)?;
        stdout.write_all(b"\n")
    })
}
