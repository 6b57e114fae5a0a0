//! Commands about the home and the supervisor as a whole: `init`, `stop`, `restart`, `detach`, `reexec`.

use super::args::Patience;
use super::logger::show_warnings;
use super::{print, tell, wait};
use crate::config::{Config, Key, Sources, keys};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::{Home, launch};
use crate::printable::printable_lines;
use crate::supervisor::{self, Reply, Request, Status, ask, ask_once};
use crate::upgrade::import;
use crate::upgrade::init::{Line, Report, init as lay_out};
use crate::wbft::Outlook;
use serde_json::{Value, json};
use std::path::Path;

/// Lays out a home, with the binary as its first version, or checks one.
pub(super) fn init(config: &Config, home: &Home, binary: Option<&Path>) -> Result<u8> {
    if let Some(foreign) = import::unadopted(home).filter(|_| binary.is_none()) {
        let hint = "adopt it with `wemixvisor init --import`, or begin anew with `wemixvisor init BINARY`";
        let only = Error::new(Kind::NotFound, "there is only a home of Cosmovisor here");
        return Err(only.at(foreign.display()).hint(hint));
    }
    show(&lay_out(home, binary, &Config::template(&given(config)))?)
}

/// Adopts a home of another supervisor.
pub(super) fn import(config: &Config, home: &Home, sources: &Sources) -> Result<u8> {
    show(&import::import(home, import::Gathered::read(home, &given(config), &sources.env))?)
}

/// The settings of a new configuration: the name of the binary, so that later commands need not be given it.
fn given(config: &Config) -> [(&'static Key, Value); 1] {
    let name = keys::named("daemon_name").expect("the table has it");
    [(name, json!(config.daemon_name.as_str()))]
}

/// Shows the lines of a report; the exit code is that of the first problem.
fn show(report: &Report) -> Result<u8> {
    for line in &report.lines {
        match line {
            Line::Problem(problem) => tell(format_args!("wemixvisor: {problem}")),
            line => print(&format!("{line}\n"))?,
        }
    }
    Ok(report.problems().next().map_or(Exit::Ok.code(), |first| first.kind().code()))
}

/// Asks for the end, and waits for it.
pub(super) fn stop(config: Config, sources: Sources, home: Home, patience: Patience) -> Result<()> {
    if patience.when_safe {
        // Without a node and without a supervisor there is nothing to wait for.
        if launch::last(&home)?.is_none_or(|last| last.process.is_none()) {
            ask_status(&home)?;
        }
        wait::safe(&config, &home, patience.timeout, Outlook::in_turn)?;
    }
    match ask(&home, &Request::Stop) {
        Ok(answered) => {
            tell(accepted(&answered.reply)?);
            answered.wait_for_end();
        }
        Err(e) if e.kind() == Kind::NoSupervisor => {
            match launch::last(&home)?.and_then(|last| last.process) {
                Some(node) => stop_alone(config, sources, home, &node)?,
                None => return Err(e),
            }
        }
        Err(e) => return Err(e),
    }
    print("stopped\n")
}

/// Stops a node that runs without a supervisor.
fn stop_alone(config: Config, sources: Sources, home: Home, node: &launch::Process) -> Result<()> {
    show_warnings();
    let pid = node.pid.as_raw_pid();
    tell(format_args!("stopping the node, process {pid}, which runs without a supervisor"));
    let args = node.args();
    let home = home.with_data(config.data_dir(&args));
    let end = supervisor::stop(config, sources, &home, args)?;
    if launch::last(&home)?.is_some_and(|last| last.process.is_some()) {
        let why = format!("process {pid} was left alone, it is not the node that the journal names");
        return Err(Error::new(Kind::Failed, why).because(end.reason));
    }
    if end.exit == Exit::Ok { Ok(()) } else { Err(Error::new(Kind::Failed, end.reason)) }
}

/// Ends the supervisor alone.
pub(super) fn detach(home: &Home) -> Result<()> {
    // It may end before its answer is out.
    if let Some(answered) = ask_once(home, &Request::Detach)? {
        accepted(&answered.reply)?;
        answered.wait_for_end();
    }
    match launch::last(home)?.and_then(|last| last.process) {
        Some(node) => print(&format!(
            "the node goes on as process {}, and the next supervisor takes it over\n",
            node.pid.as_raw_pid()
        )),
        None => Err(Error::new(Kind::Failed, "the supervisor has ended, and the node as well")
            .at(home.root().display())),
    }
}

/// Makes the supervisor execute the program that is now at its path, and waits until that program answers.
pub(super) fn reexec(home: &Home) -> Result<()> {
    let before = ask_status(home)?;
    if let Some(answered) = ask_once(home, &Request::Reexec)? {
        // Only a failure is answered.
        return accepted(&answered.reply).and_then(|said| print(&format!("{said}\n")));
    }
    let now = ask_status(home)?;
    let version = |status: Status| status.supervisor_version.unwrap_or_else(|| "?".to_owned());
    let node = now.view.node.as_ref().map(|node| format!("; the node goes on as process {}", node.pid));
    let node = node.unwrap_or_default();
    let (old, new) = (version(before), version(now));
    print(&format!("wemixvisor {new} has taken over from {old}{node}\n"))
}

fn ask_status(home: &Home) -> Result<Status> {
    match ask(home, &Request::Status)?.reply {
        Reply::Status(status) => Ok(status),
        other => Err(unasked(&other)),
    }
}

/// The state of the supervisor, where one runs.
pub(super) fn running_status(home: &Home) -> Result<Option<Status>> {
    match ask_status(home) {
        Ok(status) => Ok(Some(status)),
        Err(e) if e.kind() == Kind::NoSupervisor => Ok(None),
        Err(e) => Err(e),
    }
}

/// Has the node stopped and started again: when the network can spare it, and waiting until it is back, where that is wanted.
pub(super) fn restart(config: &Config, home: &Home, patience: Patience) -> Result<()> {
    let before = ask_status(home)?.view.node.map(|node| node.pid);
    if patience.when_safe {
        wait::safe(config, home, patience.timeout, Outlook::in_turn)?;
    }
    let said = accepted(&ask(home, &Request::Restart)?.reply)?;
    if !patience.wait {
        return print(&format!("{said}\n"));
    }
    tell(said);
    wait::back(config, home, before, patience.timeout)
}

/// The supervisor's consent, in words; its refusal is an error.
pub(super) fn accepted(reply: &Reply) -> Result<String> {
    accepted_or(reply, Kind::Failed)
}

/// The supervisor's consent, in words; its refusal is an error of this kind.
pub(super) fn accepted_or(reply: &Reply, refusal: Kind) -> Result<String> {
    match reply {
        Reply::Done(said) => Ok(printable_lines(said)),
        Reply::Refused(why) => Err(Error::new(refusal, why.clone())),
        Reply::NotFound(_) | Reply::Status(_) | Reply::Head { .. } => Err(unasked(reply)),
    }
}

/// The error for an answer of another kind than expected.
pub(super) fn unasked(reply: &Reply) -> Error {
    match reply {
        Reply::Refused(why) => Error::new(Kind::Failed, why.clone()),
        Reply::NotFound(why) => Error::new(Kind::NotFound, why.clone()),
        Reply::Done(_) | Reply::Status(_) | Reply::Head { .. } => {
            Error::new(Kind::Nonsense, "the supervisor answered what was not asked")
        }
    }
}
