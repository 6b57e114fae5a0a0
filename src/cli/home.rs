//! Commands about the home and the supervisor as a whole: `init`, `stop`, `restart`.

use super::{print, tell};
use crate::config::{Config, keys};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::supervisor::{Reply, Request, ask};
use crate::upgrade::import;
use crate::upgrade::init::{Line, Report, init as lay_out};
use serde_json::json;
use std::path::Path;

pub(super) fn init(config: &Config, home: &Home, binary: Option<&Path>, import: bool) -> Result<u8> {
    // The name was given to lay out the home and belongs to it; later commands need not give it again.
    let name = keys::named("daemon_name").expect("the table has it");
    let text = Config::template(&[(name, json!(config.daemon_name.as_str()))]);
    let report = match (import, binary) {
        (true, Some(_)) => {
            return Err(
                Error::new(Kind::Usage, "init: --import takes no BINARY").hint("see `wemixvisor help`")
            );
        }
        (true, None) => import::import(home, &text)?,
        (false, None) if let Some(foreign) = import::unadopted(home) => {
            return Err(Error::new(Kind::NotFound, "there is only a home of Cosmovisor here")
                .at(foreign.display())
                .hint(
                    "adopt it with `wemixvisor init --import`, or begin anew with `wemixvisor init BINARY`",
                ));
        }
        (false, binary) => lay_out(home, binary, &text)?,
    };
    show(&report)?;
    match report.problems().next() {
        None => Ok(Exit::Ok.code()),
        Some(first) => Ok(first.kind().exit().code()),
    }
}

fn show(report: &Report) -> Result<()> {
    for line in &report.lines {
        match line {
            Line::Made(text) => print(&format!("made  {text}\n"))?,
            Line::Kept(text) => print(&format!("kept  {text}\n"))?,
            Line::Note(text) => print(&format!("note  {text}\n"))?,
            Line::Problem(problem) => tell(format_args!("wemixvisor: {problem}")),
        }
    }
    Ok(())
}

/// Asks for the end, and waits for it.
pub(super) fn stop(home: &Home) -> Result<()> {
    let answered = ask(home, &Request::Stop)?;
    tell(accepted(&answered.reply)?);
    answered.wait_for_end();
    print("stopped\n")
}

pub(super) fn restart(home: &Home) -> Result<()> {
    print(&format!("{}\n", accepted(&ask(home, &Request::Restart)?.reply)?))
}

/// The supervisor's consent, in words; its refusal is an error.
pub(super) fn accepted(reply: &Reply) -> Result<String> {
    match reply {
        Reply::Done(said) => Ok(said.clone()),
        Reply::Refused(_) | Reply::NotFound(_) | Reply::Status(_) | Reply::Head { .. } => Err(unasked(reply)),
    }
}

/// An answer that is not the one that was asked for.
pub(super) fn unasked(reply: &Reply) -> Error {
    match reply {
        Reply::Refused(why) => Error::new(Kind::Failed, why.clone()),
        Reply::NotFound(why) => Error::new(Kind::NotFound, why.clone()),
        Reply::Done(_) | Reply::Status(_) | Reply::Head { .. } => {
            Error::new(Kind::Nonsense, "the supervisor answered what was not asked")
        }
    }
}
