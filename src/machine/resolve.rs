//! The decisions of the operator about a home on which nothing runs.
//!
//! The decision is made here, on the record, and carried out as the supervisor's own are: by actions, in order. A step that
//! ends the halt comes last, so that a decision which is interrupted can be made again.

use super::back;
use super::event::Action;
use super::record::{Attempt, Back, NodeMark, Ready, Record, Target};
use super::rollback::{self, Known, objection_to};
use crate::name::Name;

/// A decision.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Try again: the upgrade with all its attempts, or the start of the node.
    Retry,
    /// Try the upgrade again with another binary.
    RetryWith {
        /// The name that it is staged as.
        name: Name,
        /// The binary, which was verified.
        ready: Ready,
        /// Where `current` leads to.
        link: Target,
    },
    /// Go back to an earlier version.
    Rollback {
        /// To which, and how.
        order: Back,
        /// Facts that are not in the record.
        known: Known,
    },
    /// Do not go back, as was ordered while a supervisor ran.
    CancelRollback,
    /// Forget the highest head that was ever known for sure.
    ForgetHead,
    /// Bind the home to the chain that its node is on next.
    Rebind,
    /// Put older data in place.
    Restore(Restore),
}

/// How older data is put in place.
#[derive(Debug, Clone, Copy)]
pub struct Restore {
    /// Whether the operator overrules objections.
    pub force: bool,
    /// Whether the node must not seal until it is past everything that was final before.
    pub silent: bool,
}

/// A decision that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The steps: `Record`, `Link` and `ForgetHead`.
    pub actions: Vec<Action>,
    /// The consequence, for people.
    pub said: String,
}

/// Why a decision cannot be made, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// The advice.
    pub advice: Option<&'static str>,
}

pub(super) fn refused(why: impl Into<String>, advice: Option<&'static str>) -> Refused {
    Refused { why: why.into(), advice }
}

/// Makes a decision on the record. `highest` is the height of the head record, if it can be read.
///
/// # Errors
/// If it does not apply, or may hurt.
pub fn resolve(record: Record, highest: Option<u64>, decision: Decision) -> Result<Resolved, Refused> {
    match decision {
        Decision::ForgetHead => Ok(forget_head(record, highest)),
        Decision::Rebind => rebind(record),
        Decision::Restore(how) => restore(record, how),
        Decision::Retry => end_halt(record, |record| {
            record.upgrade.iter_mut().for_each(Attempt::begin_anew);
            Ok((Vec::new(), after_retry(record)))
        }),
        Decision::RetryWith { name, ready, link } => {
            end_halt(record, |record| retry_with(record, &name, ready, &link))
        }
        Decision::Rollback { order, known } => go_back(record, &order, &known),
        Decision::CancelRollback => Ok(Resolved {
            actions: vec![Action::Record(back::cancel(record)?)],
            said: "the rollback is cancelled".to_owned(),
        }),
    }
}

/// Ends the halt after a change of the record, whose own steps come first.
fn end_halt(
    mut record: Record,
    change: impl FnOnce(&mut Record) -> Result<(Vec<Action>, String), Refused>,
) -> Result<Resolved, Refused> {
    let reason = record.halted.clone().ok_or_else(not_halted)?;
    let (mut actions, said) = change(&mut record)?;
    actions.push(Action::Record(Record { halted: None, ..record }));
    Ok(Resolved { actions, said: format!("was halted: {reason}\n{said}") })
}

fn retry_with(
    record: &mut Record,
    name: &Name,
    ready: Ready,
    link: &Target,
) -> Result<(Vec<Action>, String), Refused> {
    let attempt = record.upgrade.as_mut().ok_or_else(no_upgrade)?;
    let new = ready.version.target.clone();
    // A restore may have begun, so the data may be older than the last block that was signed.
    record.silent |= attempt.restores();
    attempt.begin_with(ready);
    let said = format!("the next `wemixvisor run` tries upgrade {} with the binary of {name}", attempt.name);
    // Where the link leads to the old binary the next run switches it.
    let is_switched = *link != attempt.from.target;
    let mut actions = vec![Action::Record(record.clone())];
    actions.extend(is_switched.then_some(Action::Link(new)));
    Ok((actions, said))
}

/// The upgrade that could be finished with the binary which is staged as `name`.
///
/// # Errors
/// If it is not halted, or that binary cannot be the one.
pub fn may_retry_with<'a>(record: &'a Record, name: &Name) -> Result<&'a Attempt, Refused> {
    record.halted.as_ref().ok_or_else(not_halted)?;
    let attempt = record.upgrade.as_ref().ok_or_else(no_upgrade)?;
    match objection_to(attempt, name) {
        Some(why) => Err(refused(format!("{name} cannot take its place: {why}"), None)),
        None => Ok(attempt),
    }
}

fn not_halted() -> Refused {
    refused("there is nothing to resolve: no upgrade was halted", None)
}

fn no_upgrade() -> Refused {
    let advice = "after `wemixvisor resolve retry` plan one as usual";
    refused("no upgrade is under way that could have another binary", Some(advice))
}

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

fn go_back(mut record: Record, order: &Back, known: &Known) -> Result<Resolved, Refused> {
    let halted = record.halted.clone().map(|reason| format!("was halted: {reason}\n")).unwrap_or_default();
    rollback::begin(&mut record, order, known)?;
    let said = format!("{halted}the next `wemixvisor run` goes back to {}", order.to.target);
    Ok(Resolved { actions: vec![Action::Record(record)], said })
}

fn forget_head(mut record: Record, highest: Option<u64>) -> Resolved {
    // The witness of an upgrade is of the same chain, and would hold the node too.
    let witness = record.upgrade.as_mut().and_then(|attempt| attempt.witness.take());
    let mut actions: Vec<Action> = witness.map(|_| Action::Record(record)).into_iter().collect();
    actions.push(Action::ForgetHead);
    Resolved { actions, said: forgotten(highest) }
}

/// The report that a head record is forgotten.
pub(super) fn forgotten(highest: Option<u64>) -> String {
    match highest {
        Some(height) => format!("the head record, block {height}, is forgotten"),
        None => "there is no head record that can be read; any remains of one are forgotten".to_owned(),
    }
}

fn rebind(mut record: Record) -> Result<Resolved, Refused> {
    let chain = record.chain.take().ok_or_else(|| refused("this home is bound to no chain yet", None))?;
    let said = format!(
        "no longer bound to chain {} with genesis {}; the next `wemixvisor run` binds anew",
        chain.id, chain.genesis
    );
    Ok(Resolved { actions: vec![Action::ForgetHead, Action::Record(record)], said })
}

/// Nothing but the silence is recorded: the node will report the head that it goes back to, and the head record stays.
fn restore(mut record: Record, how: Restore) -> Result<Resolved, Refused> {
    if let Some(attempt) = record.upgrade.as_ref().filter(|_| record.halted.is_none()) {
        let why = format!("upgrade {} is under way, and has a backup of its own to go back to", attempt.name);
        return Err(refused(why, Some("let `wemixvisor run` bring it to its end first")));
    }
    let is_unclean = matches!(record.node, NodeMark::StoppedUnclean | NodeMark::Running);
    if is_unclean && !how.force {
        let why = "the node was killed or has crashed, so what it has signed last is not known";
        return Err(refused(why, Some("run it and stop it cleanly first; if you know better, add --force")));
    }
    record.silent |= how.silent;
    Ok(Resolved { actions: vec![Action::Record(record)], said: "the data may be replaced".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::record::Phase;
    use super::super::record::{Block, Chain, Version};
    use super::super::rollback::tests::progress;
    use super::*;
    use crate::digest::Digest;

    fn version(target: Target) -> Version {
        Version { target, sha256: Digest::sha256(b"") }
    }

    fn record() -> Record {
        Record::new(version(Target::Genesis))
    }

    fn v3() -> Target {
        Target::Upgrade("v3".parse().unwrap())
    }

    fn halted(phase: Phase) -> Record {
        let attempt = Attempt { phase, ..progress() };
        Record { halted: Some("it is broken".to_owned()), upgrade: Some(attempt), ..record() }
    }

    #[test]
    fn nothing_is_resolved_where_nothing_was_halted() {
        let refused = resolve(record(), Some(1), Decision::Retry).unwrap_err();
        assert!(refused.why.contains("nothing to resolve"), "{refused:?}");
        assert!(resolve(record(), None, Decision::Rebind).unwrap_err().why.contains("no chain"));
    }

    #[test]
    fn an_order_to_go_back_is_cancelled_until_it_has_begun() {
        let order = Back { to: version(v3()), backup: None, force: false };
        let ordered = Record { back: Some(order), ..record() };
        let resolved = resolve(ordered, None, Decision::CancelRollback).unwrap();
        assert_eq!(resolved.actions, [Action::Record(record())]);
        let refused = |record| resolve(record, None, Decision::CancelRollback).unwrap_err().why;
        assert!(refused(record()).contains("no rollback"));
        assert!(refused(halted(Phase::Reverting)).contains("has begun"));
    }

    #[test]
    fn a_way_back_that_was_halted_still_leads_over_the_backup() {
        let mut record = halted(Phase::Reverting);
        let attempt = record.upgrade.as_mut().unwrap();
        (attempt.data_compat, attempt.backup) = (false, Some("v2-1".to_owned()));
        let resolved = resolve(record, None, Decision::Retry).unwrap();
        let [Action::Record(after)] = resolved.actions.as_slice() else { panic!("{resolved:?}") };
        assert!(after.upgrade.as_ref().unwrap().restores());
    }

    #[test]
    fn where_the_way_back_is_shut_the_new_binary_is_the_way_on() {
        let mut record = halted(Phase::Reverting);
        record.current = version(Target::Genesis);
        let attempt = record.upgrade.as_mut().unwrap();
        (attempt.data_compat, attempt.backup, attempt.signed) = (false, Some("v2-1".to_owned()), true);
        attempt.to.sha256 = Digest::sha256(b"2");
        let v2: Name = "v2".parse().unwrap();
        may_retry_with(&record, &v2).unwrap();
        let ready = Ready::new(version(Target::Upgrade(v2.clone())));
        let with = Decision::RetryWith { name: v2, ready, link: Target::Upgrade("v2".parse().unwrap()) };
        let resolved = resolve(record.clone(), Some(100), with).unwrap();
        let Some(Action::Record(after)) = resolved.actions.last() else { panic!("{resolved:?}") };
        let attempt = after.upgrade.as_ref().unwrap();
        assert_eq!((attempt.phase, attempt.attempt, &attempt.reason), (Phase::Trying, 0, &None));
        assert!(after.silent && after.halted.is_none() && attempt.signed);

        // Or the old binary on the data as it is, on the operator's word.
        let wanted = |force| rollback::Wanted { to: None, restore: false, force };
        let known = Known { highest: Some(150), ..Known::default() };
        let refused = rollback::way_back(&record, &wanted(false), &known).unwrap_err();
        assert!(refused.why.contains("no backup"), "{refused:?}");
        let order = rollback::way_back(&record, &wanted(true), &known).unwrap().order;
        let resolved = resolve(record.clone(), Some(150), Decision::Rollback { order, known: known.clone() });
        let [Action::Record(after)] = &resolved.unwrap().actions[..] else { panic!() };
        assert!(after.silent && after.halted.is_none() && !after.upgrade.as_ref().unwrap().restores());
        // One that goes on takes no other way.
        let going = Record { halted: None, ..record };
        assert!(rollback::way_back(&going, &wanted(true), &known).unwrap_err().why.contains("on its way"));
    }

    #[test]
    fn the_halt_ends_last_and_the_link_leads_to_the_other_binary_where_it_was_switched() {
        let v2 = || Target::Upgrade("v2".parse().unwrap());
        for (link, linked) in [(v2(), true), (Target::Genesis, false)] {
            let ready = Ready::new(version(v3()));
            let with = Decision::RetryWith { name: "v3".parse().unwrap(), ready, link };
            let resolved = resolve(halted(Phase::Trying), Some(100), with).unwrap();
            let mut actions = resolved.actions.iter();
            let Some(Action::Record(first)) = actions.next() else { panic!("{resolved:?}") };
            assert!(first.halted.is_some() && first.upgrade.as_ref().unwrap().to.target == v3());
            let last = if linked {
                assert_eq!(actions.next(), Some(&Action::Link(v3())));
                actions.next()
            } else {
                actions.next()
            };
            assert_eq!(last, Some(&Action::Record(Record { halted: None, ..first.clone() })));
            assert_eq!(first.upgrade.as_ref().unwrap().attempt, 0);
        }
    }

    #[test]
    fn older_data_is_put_in_place_only_where_all_is_known_and_keeps_a_validator_silent() {
        let decide =
            |record: Record, force| resolve(record, None, Decision::Restore(Restore { force, silent: true }));
        for node in [NodeMark::StoppedUnclean, NodeMark::Running] {
            let crashed = Record { node, ..record() };
            assert!(decide(crashed.clone(), false).unwrap_err().why.contains("crashed"));
            decide(crashed, true).unwrap();
        }
        let stopped = Record { node: NodeMark::StoppedClean, ..record() };
        let resolved = decide(stopped.clone(), false).unwrap();
        assert_eq!(resolved.actions, [Action::Record(Record { silent: true, ..stopped })]);
        let under_way = Record { halted: None, ..halted(Phase::Trying) };
        assert!(decide(under_way, true).unwrap_err().why.contains("under way"));
        decide(halted(Phase::Trying), true).unwrap();
    }

    #[test]
    fn after_the_halt_of_a_silent_validator_the_operator_reads_that_it_stays_silent() {
        let halted = Record { halted: Some("x".to_owned()), ..record() };
        let said = |record| resolve(record, None, Decision::Retry).unwrap().said;
        assert_eq!(said(halted.clone()), "was halted: x\nthe next `wemixvisor run` starts the node again");
        let text = said(Record { silent: true, ..halted });
        assert!(text.contains("stays silent") && text.contains("stop the other node first"), "{text}");
    }

    #[test]
    fn a_head_that_is_forgotten_takes_the_witness_along() {
        let block = Block { height: 7, hash: None };
        let mut record = halted(Phase::Trying);
        record.upgrade.as_mut().unwrap().witness = Some(block);
        let resolved = resolve(record, Some(9), Decision::ForgetHead).unwrap();
        let [Action::Record(after), Action::ForgetHead] = resolved.actions.as_slice() else {
            panic!("{resolved:?}")
        };
        assert_eq!(after.upgrade.as_ref().unwrap().witness, None);
        assert!(after.halted.is_some(), "that is another decision");
        // A record that is damaged has no height, and goes all the same.
        let resolved = resolve(self::record(), None, Decision::ForgetHead).unwrap();
        assert_eq!(resolved.actions, [Action::ForgetHead]);
        let chain = Some(Chain { id: 1, genesis: "0x0".to_owned() });
        let resolved = resolve(Record { chain, ..self::record() }, None, Decision::Rebind).unwrap();
        assert_eq!(resolved.actions[0], Action::ForgetHead);
    }
}
