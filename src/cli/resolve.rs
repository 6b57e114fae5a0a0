//! `resolve`: the operator's decision after a halt. Nothing runs while it is made.

use super::fetch::cancelled_by_signals;
use super::home::accepted;
use super::{logger, print};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::lock::SupervisorLock;
use crate::home::{Home, durable};
use crate::machine::{Block, Origin, Phase, Record, Upgrade, objection, objection_to};
use crate::name::Name;
use crate::supervisor::{Reply, Request, ask};
use crate::upgrade::head;
use crate::upgrade::journal::{Journal, Opened};
use crate::upgrade::prepare::{self, Downloads, Verified};
use std::path::Path;

/// Lets the next run try the upgrade again, with all its attempts.
pub(super) fn retry(home: &Home) -> Result<()> {
    decide(home, |record| {
        if let Some(progress) = &mut record.upgrade {
            progress.begin_anew();
        }
        Ok(after_retry(record))
    })
}

/// The course of the next run after [`retry`].
fn after_retry(record: &Record) -> String {
    let what = if record.upgrade.is_some() { "tries again" } else { "starts the node again" };
    let silent = if record.silent {
        "\nthe validator stays silent until signing is safe, and halts again if another node signs with its key: \
         if it halted for that, stop the other node first"
    } else {
        ""
    };
    format!("the next `wemixvisor run` {what}{silent}")
}

/// Lets the next run try the upgrade again with the binary that is staged as `name`: the way on where the
/// upgrade's own does not work and the old one must not run any more.
///
/// The binary is verified and smoke-tested first. The halt ends last, so that this can be done again if it is
/// interrupted.
pub(super) fn retry_with(config: &Config, home: &Home, name: Name) -> Result<()> {
    let _lock = with_nothing_running(home)?;
    let Opened { mut journal, mut record, .. } = Journal::open(home)?;
    let Some(reason) = record.halted.clone() else { return Err(nothing_halted()) };
    let Some(progress) = &mut record.upgrade else {
        return Err(Error::new(Kind::NotMet, "no upgrade is under way that could have another binary")
            .hint("after `wemixvisor resolve retry` plan one as usual"));
    };
    if let Some(reason) = objection_to(progress, &name) {
        return Err(Error::new(Kind::NotMet, format!("{name} cannot take its place: {reason}")));
    }
    logger::show_warnings();
    let as_if_planned = Upgrade::new(name.clone(), progress.height, Origin::Schedule);
    let cancel = cancelled_by_signals()?;
    let (verified, downloads) = (Verified::default(), Downloads::default());
    let ready = prepare::prepare(config, home, &verified, &downloads, &as_if_planned, &cancel)?;
    progress.begin_with(ready);
    let (upgrade, old, new) = (progress.name.clone(), progress.from.clone(), progress.to.target.clone());
    journal.write_settled(&record)?;
    if home.read_current_link()? != old.target {
        durable::link(Path::new(&new.to_string()), &home.current())?;
    }
    record.halted = None;
    journal.write_settled(&record)?;
    print(&format!(
        "was halted: {reason}\nthe next `wemixvisor run` tries upgrade {upgrade} with the binary of {name}\n"
    ))
}

/// Lets the next run go back to the old binary.
pub(super) fn rollback(home: &Home, force: bool) -> Result<()> {
    decide(home, |record| {
        let highest = head::read(home)?.map(|record| record.block.height);
        let Some(progress) = &mut record.upgrade else {
            return Err(Error::new(Kind::NotMet, "no upgrade is under way, so there is no way back"));
        };
        match objection(progress, highest) {
            Some(reason) if !force => {
                return Err(Error::new(Kind::NotMet, format!("going back may hurt: {reason}"))
                    .hint("if you know better, add --force"));
            }
            // That is the operator's word on the fork, too: the old binary is not held back at it.
            Some(_) => progress.fork_height = None,
            None => {}
        }
        progress.phase = Phase::Reverting;
        progress.reason = Some("the operator decided so".to_owned());
        Ok(format!("the next `wemixvisor run` goes back to {}", progress.from.target))
    })
}

/// Has the silent validator that runs sign, where the operator states that `at` is the last final block of the network;
/// without it, says what is missing.
///
/// # Errors
/// [`Kind::NotMet`] if that is not safe or nothing keeps the node from signing; [`Kind::NoSupervisor`] if none runs,
/// since the node's head is the proof.
pub(super) fn sign(home: &Home, at: Option<Block>) -> Result<()> {
    match ask(home, &Request::Sign { at })?.reply {
        Reply::Refused(why) => Err(Error::new(Kind::NotMet, why)),
        reply => print(&format!("{}\n", accepted(&reply)?)),
    }
}

/// Forgets the head record: the highest head that was ever known for sure.
pub(super) fn head(home: &Home) -> Result<()> {
    match ask(home, &Request::ResetHead) {
        Ok(answered) => print(&format!("{}\n", accepted(&answered.reply)?)),
        Err(e) if e.kind() == Kind::NoSupervisor => {
            let _lock = SupervisorLock::acquire(home)?;
            head::forget(home)?;
            print("the head record is forgotten\n")
        }
        Err(e) => Err(e),
    }
}

/// Has the next `run` bind the home to the chain that its node is on then.
pub(super) fn chain(home: &Home) -> Result<()> {
    let _lock = with_nothing_running(home)?;
    let Opened { mut journal, mut record, .. } = Journal::open(home)?;
    let Some(chain) = record.chain.take() else {
        return Err(Error::new(Kind::NotMet, "this home is bound to no chain yet"));
    };
    head::forget(home)?;
    journal.write_settled(&record)?;
    print(&format!(
        "no longer bound to chain {} with genesis {}; the next `wemixvisor run` binds anew\n",
        chain.id, chain.genesis
    ))
}

fn decide(home: &Home, change: impl FnOnce(&mut Record) -> Result<String>) -> Result<()> {
    let _lock = with_nothing_running(home)?;
    let Opened { mut journal, mut record, .. } = Journal::open(home)?;
    let Some(reason) = record.halted.take() else { return Err(nothing_halted()) };
    let said = change(&mut record)?;
    journal.write_settled(&record)?;
    print(&format!("was halted: {reason}\n{said}\n"))
}

/// Claims the home for a change of the journal, which a running supervisor would overwrite.
fn with_nothing_running(home: &Home) -> Result<SupervisorLock> {
    SupervisorLock::acquire(home).map_err(|e| match e.kind() {
        Kind::Busy => e.hint("run `wemixvisor stop` first"),
        _ => e,
    })
}

fn nothing_halted() -> Error {
    Error::new(Kind::NotMet, "there is nothing to resolve: no upgrade was halted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::machine::{Target, Version};

    #[test]
    fn after_the_halt_of_a_silent_validator_the_operator_reads_that_it_stays_silent() {
        let sha256 = Digest::sha256(b"");
        let mut record = Record::new(Version { target: Target::Genesis, sha256 });
        assert_eq!(after_retry(&record), "the next `wemixvisor run` starts the node again");
        record.silent = true;
        let text = after_retry(&record);
        assert!(text.contains("stays silent") && text.contains("stop the other node first"), "{text}");
    }
}
