//! `resolve`: the operator's decision after a halt. Nothing runs while it is made.

use super::home::accepted;
use super::print;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::home::lock::SupervisorLock;
use crate::machine::{NodeMark, Phase, Record, objection};
use crate::supervisor::{Request, ask};
use crate::upgrade::journal::Journal;

/// Lets the next run try the upgrade again, with all its attempts.
pub(super) fn retry(home: &Home) -> Result<()> {
    decide(home, |record| {
        if let Some(progress) = &mut record.upgrade {
            progress.attempt = 0;
        }
        Ok("the next `wemixvisor run` tries again".to_owned())
    })
}

/// Lets the next run go back to the old binary.
pub(super) fn rollback(home: &Home, force: bool) -> Result<()> {
    decide(home, |record| {
        let highest = record.highest.as_ref().map(|b| b.height);
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

/// Has a silent validator sign: the one that runs, or the next that is started.
pub(super) fn sign(home: &Home) -> Result<()> {
    match ask(home, &Request::Sign) {
        Ok(answered) => print(&format!("{}\n", accepted(&answered.reply)?)),
        Err(e) if e.kind() == Kind::NoSupervisor => {
            let _lock = SupervisorLock::acquire(home)?;
            let opened = Journal::open(home)?;
            let (mut journal, mut record) = (opened.journal, opened.record);
            if let Some(reason) = &record.halted {
                return Err(Error::new(Kind::NotMet, format!("it was halted: {reason}"))
                    .hint("when that is over: wemixvisor resolve retry, then resolve sign if need be"));
            }
            if !record.silent && matches!(record.node, NodeMark::Never | NodeMark::StoppedClean) {
                return Err(Error::new(Kind::NotMet, "nothing keeps the node from signing"));
            }
            record.silent = false;
            record.node = NodeMark::StoppedClean;
            journal.write(&record)?;
            print("the next `wemixvisor run` signs at once\n")
        }
        Err(e) => Err(e),
    }
}

fn decide(home: &Home, change: impl FnOnce(&mut Record) -> Result<String>) -> Result<()> {
    let _lock = SupervisorLock::acquire(home)?;
    let opened = Journal::open(home)?;
    let (mut journal, mut record) = (opened.journal, opened.record);
    let Some(reason) = record.halted.take() else {
        return Err(Error::new(Kind::NotMet, "there is nothing to resolve: no upgrade was halted"));
    };
    let said = change(&mut record)?;
    journal.write(&record)?;
    print(&format!("was halted: {reason}\n{said}\n"))
}
