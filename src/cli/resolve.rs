//! `resolve`: the operator's decision after a halt. Nothing runs while it is made.

use super::fetch::cancelled_by_signals;
use super::home::{accepted, accepted_or};
use super::rollback::Options;
use super::{logger, print};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::lock::{NodeLock, SupervisorLock};
use crate::home::{Home, durable};
use crate::machine::{Action, Block, Decision, Origin, Record, Refused, Upgrade, may_retry_with, resolve};
use crate::name::Name;
use crate::supervisor::{Request, ask};
use crate::upgrade::head;
use crate::upgrade::journal::{Journal, Opened};
use crate::upgrade::prepare::{self, Binaries};
use std::path::Path;

/// Lets the next run try the upgrade again, with all its attempts.
pub(super) fn retry(home: &Home) -> Result<()> {
    carry_out(home, Decision::Retry)
}

/// Lets the next run try the upgrade again with the binary that is staged as `name`: the way on where the
/// upgrade's own does not work and the old one must not run any more.
///
/// The binary is verified and smoke-tested first.
pub(super) fn retry_with(config: &Config, home: &Home, name: Name) -> Result<()> {
    let mut claimed = ClaimedHome::take(home)?;
    let height = may_retry_with(&claimed.record, &name).map_err(not_met)?.height;
    logger::show_warnings();
    let as_if_planned = Upgrade::new(name.clone(), height, Origin::Schedule);
    let cancel = cancelled_by_signals()?;
    let ready = prepare::prepare(config, home, &Binaries::default(), &as_if_planned, &cancel)?;
    claimed.carry_out(Decision::RetryWith { name, ready, link: home.read_current_link()? })
}

/// Lets the next run go back to the old binary after a halt, by the rules of `rollback`.
pub(super) fn rollback(config: &Config, home: &Home, force: Force) -> Result<()> {
    // A supervisor that runs has not halted, and holds the home.
    drop(ClaimedHome::take(home)?);
    if Journal::read(home)?.record.halted.is_none() {
        return Err(Error::new(Kind::NotMet, "there is nothing to resolve: no upgrade was halted")
            .hint("to go back at any other time: wemixvisor rollback"));
    }
    super::rollback::rollback(
        config,
        home,
        &Options { to: None, restore: false, force, yes: true, wait: false },
    )
}

/// Has the silent validator that runs sign, where the operator states that `at` is the last final block of the network;
/// without it, shows what is missing.
///
/// # Errors
/// [`Kind::NotMet`] if that is not safe or nothing keeps the node from signing; [`Kind::NoSupervisor`] if none runs,
/// since the node's head is the proof.
pub(super) fn sign(home: &Home, at: Option<Block>) -> Result<()> {
    print(&format!("{}\n", accepted_or(&ask(home, &Request::Sign { at })?.reply, Kind::NotMet)?))
}

/// Forgets the head record: the highest head that was ever known for sure.
pub(super) fn head(home: &Home) -> Result<()> {
    match ask(home, &Request::ResetHead) {
        Ok(answered) => print(&format!("{}\n", accepted(&answered.reply)?)),
        Err(e) if e.kind() == Kind::NoSupervisor => carry_out(home, Decision::ForgetHead),
        Err(e) => Err(e),
    }
}

/// Has the next `run` bind the home to the chain that its node is on then.
pub(super) fn chain(home: &Home) -> Result<()> {
    carry_out(home, Decision::Rebind)
}

/// Makes a decision on a home on which nothing runs.
pub(super) fn carry_out(home: &Home, decision: Decision) -> Result<()> {
    ClaimedHome::take(home)?.carry_out(decision)
}

/// A home on which nothing runs, and its record.
pub(super) struct ClaimedHome<'a> {
    home: &'a Home,
    journal: Journal,
    record: Record,
    _supervisor: SupervisorLock,
    _node: NodeLock,
}

impl ClaimedHome<'_> {
    /// Claims the home for a change of the record, which a running supervisor would overwrite.
    pub(super) fn take(home: &Home) -> Result<ClaimedHome<'_>> {
        let supervisor = SupervisorLock::acquire(home).map_err(|e| match e.kind() {
            Kind::Busy => e.hint("run `wemixvisor stop` first"),
            _ => e,
        })?;
        let node = NodeLock::try_acquire(home)?.ok_or_else(|| {
            Error::new(Kind::Busy, "the node, or something that it or a hook has started, is still running")
                .at(home.root().display())
                .hint("run `wemixvisor stop` first")
        })?;
        let Opened { journal, record, .. } = Journal::open(home)?;
        Ok(ClaimedHome { home, journal, record, _supervisor: supervisor, _node: node })
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Carries a decision out and prints its effect.
    fn carry_out(&mut self, decision: Decision) -> Result<()> {
        let said = self.decide(decision)?;
        print(&format!("{said}\n"))
    }

    /// Carries a decision out, step by step, and returns its effect in words.
    pub(super) fn decide(&mut self, decision: Decision) -> Result<String> {
        let highest = match (head::read(self.home), &decision) {
            // These decisions are the remedy for a damaged head record.
            (Err(e), Decision::ForgetHead | Decision::Rebind) if e.kind() == Kind::Halted => None,
            (read, _) => read?.map(|record| record.block.height),
        };
        let resolved = resolve(self.record.clone(), highest, decision).map_err(not_met)?;
        for action in &resolved.actions {
            match action {
                Action::Record(record) => self.journal.write_settled(record)?,
                Action::Link(target) => durable::link(Path::new(&target.to_string()), &self.home.current())?,
                Action::ForgetHead => head::forget(self.home)?,
                other => unreachable!("no decision of a person has {other:?}"),
            }
        }
        Ok(resolved.said)
    }
}

pub(super) fn not_met(refused: Refused) -> Error {
    let error = Error::new(Kind::NotMet, refused.why);
    match refused.advice {
        Some(advice) => error.hint(advice),
        None => error,
    }
}
