//! The first step after a start: a pure function of the journal's record and of the link on disk.
//!
//! The same facts give the same outcome, so recovery may itself be killed at any point.

use super::record::{Attempt, Phase, Record, Version};
use std::fmt;

/// The first thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// Start the node that `current` points at; no upgrade is under way.
    Start,
    /// The stop had begun but was not finished: start the old node; the upgrade comes due again.
    Forget,
    /// The node is down for the upgrade: go on with the backup.
    Backup,
    /// Go on with the pre-upgrade hook.
    Hook,
    /// Go on with the switch of the link.
    Switch,
    /// The link is switched: start the new binary.
    Try,
    /// The way back had begun: finish it.
    Revert,
    /// The state on disk cannot be explained; the operator must look.
    Halt(String),
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Recovery::Start => "starting the node",
            Recovery::Forget => "the stop for the upgrade was not finished; starting the old binary",
            Recovery::Backup => "the node is down for the upgrade; going on with the backup",
            Recovery::Hook => "the node is down for the upgrade; going on with the hook",
            Recovery::Switch => "the node is down for the upgrade; going on with the switch",
            Recovery::Try => "the switch is made; starting the new binary",
            Recovery::Revert => "going on with the way back to the old binary",
            Recovery::Halt(reason) => reason,
        })
    }
}

/// Decides from the record and from what `current` really points at.
#[must_use]
pub fn recover(record: &Record, link: &Version) -> Recovery {
    if let Some(reason) = &record.halted {
        return Recovery::Halt(reason.clone());
    }
    match &record.upgrade {
        None => match mismatch(&record.current, link) {
            None => Recovery::Start,
            Some(reason) => Recovery::Halt(reason),
        },
        Some(progress) => resume(progress, link),
    }
}

fn resume(progress: &Attempt, link: &Version) -> Recovery {
    let at_old = mismatch(&progress.from, link);
    let at_new = mismatch(&progress.to, link);
    match (progress.phase, &at_old, &at_new) {
        (Phase::Stopping, None, _) if progress.past_fork() => Recovery::Backup,
        (Phase::Stopping, None, _) => Recovery::Forget,
        (Phase::Stopped, None, _) => Recovery::Backup,
        (Phase::BackedUp, None, _) => Recovery::Hook,
        (Phase::Trying, None, _) => Recovery::Switch,
        (Phase::Trying, _, None) => Recovery::Try,
        (Phase::Reverting, None, _) | (Phase::Reverting, _, None) => Recovery::Revert,
        (Phase::Stopping | Phase::Stopped | Phase::BackedUp, Some(reason), _)
        | (Phase::Trying | Phase::Reverting, _, Some(reason)) => Recovery::Halt(reason.clone()),
    }
}

/// Why the link is not what the journal expects; `None` if it is.
fn mismatch(expected: &Version, link: &Version) -> Option<String> {
    if expected.target != link.target {
        return Some(format!(
            "current points at {} but the journal says {}; point it back; if it is right as it is, move `state` away and run `wemixvisor init --import`",
            link.target, expected.target
        ));
    }
    (expected.sha256 != link.sha256).then(|| {
        format!(
            "the binary in {}/bin is not the one that was installed ({} instead of {}); put it back; to run another one, stage it with `wemixvisor upgrade add`",
            link.target, link.sha256, expected.sha256
        )
    })
}
