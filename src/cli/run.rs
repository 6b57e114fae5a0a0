//! `run`: the main job, in the foreground.

use super::args::Command;
use super::doctor;
use crate::config::{Loaded, Sources};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::machine::Status;
use crate::schedule::Agenda;
use crate::supervisor::{self, CAN_RESUME};
use crate::upgrade::head;
use crate::upgrade::journal::{Journal, VERSION};
use std::ffi::OsString;

pub(super) fn run(loaded: Loaded, sources: Sources, home: Home, args: Vec<OsString>) -> Result<u8> {
    let _log = super::logger::start(&loaded.config)?;
    for warning in check(&loaded, &args)? {
        log::warn!("event=config_warning {warning}");
    }
    let home = home.with_data(loaded.config.data_dir(&args));
    for fault in doctor::before_start(&loaded, &home, &args) {
        let cure = fault.cure.unwrap_or_default();
        log::warn!("event=doctor check={} {}; {cure}", fault.check, fault.text);
    }
    let end = supervisor::run(loaded.config, sources, &home, args)?;
    let code = match (end.exit, end.node) {
        // Never 0: the node was not asked to end.
        (Exit::Failed, Some(Status::Code(code))) => u8::try_from(code).unwrap_or(1).max(1),
        (Exit::Failed, Some(Status::Signal(signal))) => u8::try_from(128 + signal).unwrap_or(1),
        (exit, _) => exit.code(),
    };
    let level = if end.exit == Exit::Ok { log::Level::Info } else { log::Level::Error };
    let halted = Some(&home).filter(|_| end.exit == Exit::Halted).and_then(|home| Journal::read(home).ok());
    let reason = halted.and_then(|found| found.record.why_halted()).unwrap_or(end.reason);
    log::log!(level, "event=ended code={code} {reason}");
    Ok(code)
}

/// Checks everything that is known before the first start; the warnings.
fn check(loaded: &Loaded, args: &[OsString]) -> Result<Vec<String>> {
    let (unfit, doubtful) = loaded.check_args(args);
    unfit.into_result()?;
    loaded.config.check_dirs(args)?;
    let (problems, unsure) = loaded.check_disk(args);
    problems.into_result()?;
    Ok(loaded.warnings.iter().chain(&doubtful).chain(&unsure).map(ToString::to_string).collect())
}

/// Whether this program could go on as this `run`, with a journal of a version and with all that a start reads.
pub(super) fn can_resume(version: &str, loaded: &Loaded, home: &Home, command: Command) -> Result<()> {
    let Command::Run(args) = command else {
        return Err(Error::new(Kind::Usage, format!("only `run` has {CAN_RESUME}")));
    };
    if version != VERSION.to_string() {
        return Err(Error::new(
            Kind::NotMet,
            format!(
                "wemixvisor {} has journals of version {VERSION}, not {version}",
                env!("CARGO_PKG_VERSION")
            ),
        ));
    }
    check(loaded, &args)?;
    home.read_current()?;
    Journal::read(home)?;
    Agenda::load(home)?;
    head::read(home)?;
    Ok(())
}
