//! `status`: once or again and again, for people, programs or Prometheus; and how healthy the node is, as an exit code.

use super::args::{Shown, StatusFormat};
use super::show::{current, show};
use super::{print, print_json, print_json_line, terminal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::printable::printable;
use crate::schedule::Agenda;
use crate::supervisor::{Status, metrics};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// How often a status that is watched is looked at again.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn status(config: &Config, home: &Home, wanted: &Shown) -> Result<u8> {
    let status =
        if wanted.watch { watch(config, home, wanted.format)? } else { once(config, home, wanted.format)? };
    match Agenda::load(home) {
        Err(damaged) if status.running => Err(damaged),
        _ if wanted.exit_code => Ok(judged(&status).code()),
        _ if status.running => Ok(Exit::Ok.code()),
        _ => Ok(Exit::NoSupervisor.code()),
    }
}

/// How healthy the node is, the worst first.
fn judged(status: &Status) -> Exit {
    let view = &status.view;
    if view.halted.is_some() {
        Exit::Halted
    } else if !status.running {
        Exit::NoSupervisor
    } else if !view.needs.is_empty() || !status.problems.is_empty() {
        Exit::NotMet
    } else {
        Exit::Ok
    }
}

fn once(config: &Config, home: &Home, format: StatusFormat) -> Result<Status> {
    let status = current(config, home)?;
    match format {
        StatusFormat::Text => print(&show(home, &status, terminal::of_stdout(config).0))?,
        StatusFormat::Json => print_json(&status)?,
        StatusFormat::Metrics => print(&metrics::render(&status))?,
    }
    Ok(status)
}

/// Redrawn on a terminal; elsewhere, and as JSON, one line whenever it has changed.
fn watch(config: &Config, home: &Home, format: StatusFormat) -> Result<Status> {
    let signals = terminal::signals()?;
    let unwritten = |e| Error::new(Kind::Io, "write to stdout").because(e);
    let redraws = format == StatusFormat::Text && io::stdout().is_terminal();
    let screen = redraws.then(terminal::Screen::open).transpose().map_err(unwritten)?;
    let (mut last, mut told) = (None, String::new());
    loop {
        let status = current(config, home)?;
        match &screen {
            Some(screen) => {
                told = show(home, &status, terminal::of_stdout(config).0);
                screen.draw(&told).map_err(unwritten)?;
            }
            None if format == StatusFormat::Json && last.as_ref() != Some(&status) => {
                print_json_line(&status)?
            }
            None if format == StatusFormat::Text => {
                let line = printable(&status.view.line()) + "\n";
                if line != told {
                    print(&line)?;
                    told = line;
                }
            }
            None => {}
        }
        if !terminal::goes_on(&signals, LOOK) {
            if let Some(screen) = screen {
                // The last one stays when the screen of before comes back.
                drop(screen);
                print(&told)?;
            }
            return Ok(status);
        }
        last = Some(status);
    }
}
