//! The home as it was left: the facts with which the machine boots, read before anything is done.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::home::{Home, glob, launch};
use crate::machine::{Alive, Facts, Launched, Record, Target, Version};
use crate::schedule::Agenda;
use crate::upgrade::journal::{Journal, Opened};
use crate::upgrade::prepare::{Binaries, Verified};
use crate::upgrade::{head, history};

/// A home as an earlier supervisor, or none, has left it.
pub(super) struct Left {
    pub(super) facts: Facts,
    pub(super) journal: Journal,
    pub(super) binaries: Binaries,
    /// The node that was launched last, where it is alive.
    pub(super) node: Option<launch::Process>,
}

impl Left {
    /// Reads a home that no other supervisor uses.
    ///
    /// # Errors
    /// If something in it cannot be read, or does not fit together.
    pub(super) fn read(home: &Home, config: &Config) -> Result<Left> {
        let current = home.read_current()?;
        let Opened { journal, record, warning } = Journal::open(home)?;
        report_record(home, &record, warning);
        // A damaged schedule is the operator's to make anew, before an upgrade is missed.
        Agenda::load(home)?;
        let binaries = Binaries::default();
        let link = link_as_it_is(home, &binaries.verified, &record, current.target)?;
        let (launched, node) = launch::last(home)?.map(launched).unzip();
        let facts = Facts {
            record,
            link,
            head: head::read(home)?,
            has_data: !glob::expand(&home.data().join(&config.daemon_node_lock)).is_empty(),
            launched,
        };
        Ok(Left { facts, journal, binaries, node: node.flatten() })
    }
}

/// The launch as the machine knows it, and the process where it is alive.
fn launched(launch: launch::Launch) -> (Launched, Option<launch::Process>) {
    let alive = |process: &launch::Process| Alive {
        pid: process.pid.as_raw_pid().unsigned_abs(),
        sha256: process.sha256,
        age: process.age,
    };
    (Launched { launch: launch.number, alive: launch.process.as_ref().map(alive) }, launch.process)
}

/// Logs a damaged slot of the journal, and completes the history by its record.
fn report_record(home: &Home, record: &Record, warning: Option<Error>) {
    if let Some(warning) = warning {
        log::warn!("event=journal_slot_bad {warning}");
    }
    match history::complete(home, record) {
        Ok(true) => log::info!("event=history_completed the end of the last upgrade was missing"),
        Ok(false) => {}
        Err(e) => log::warn!("event=history_not_written {e}"),
    }
}

/// The target of `current`, with the digest of the binary that is really there.
fn link_as_it_is(home: &Home, verified: &Verified, record: &Record, target: Target) -> Result<Version> {
    let versions = record.upgrade.iter().flat_map(|p| [&p.from, &p.to]).chain([&record.current]);
    for version in versions.filter(|v| v.target == target) {
        if verified.check(home, version).is_ok() {
            return Ok(version.clone());
        }
    }
    let sha256 = crate::upgrade::install::digest_of(&home.binary(&target))?;
    Ok(Version { target, sha256 })
}
