//! Whether an earlier binary may run again, and on which data: DESIGN section 6.
//!
//! [`decide`] is for an upgrade whose new binary did not prove itself. [`way_back`] is for the operator, at any time: in
//! probation, after an upgrade was applied, after a halt. Both read the same table; the operator may also go back where the
//! new binary has signed, since every binary that is started after a stop signs only where that is safe (`sealing`).

use super::record::{Attempt, Back, Ended, Outcome, Phase, Record, SWITCHES, Target, Version};
use super::resolve::{Refused, refused};
use crate::digest::Digest;
use crate::name::Name;

/// The end of an upgrade whose new binary did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WayOn {
    /// Run the old binary on the data as it is.
    Old,
    /// Put this upgrade's own backup in place, then run the old binary.
    RestoreThenOld,
    /// No way back: halt for the operator.
    Halt(&'static str),
}

/// The facts about the new binary's time on the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traces {
    /// The highest head seen since, or at, the stop.
    pub highest: Option<u64>,
    /// Whether the new binary has, or may have, signed a block.
    pub signed: bool,
}

/// The operator's wish to go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The version to go back to; None for the one before.
    pub to: Option<Version>,
    /// Whether a backup must take the place of the data in any case.
    pub restore: bool,
    /// Whether the operator overrules objections.
    pub force: bool,
}

impl From<&Back> for Wanted {
    /// The wish that an order has come of.
    fn from(order: &Back) -> Wanted {
        Wanted { to: Some(order.to.clone()), restore: order.backup.is_some(), force: order.force }
    }
}

/// Facts that are not in the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest block that the chain can have by now, where that is known.
    pub highest: Option<u64>,
    /// The backups that are complete.
    pub backups: Vec<String>,
    /// Whether the node is a validator.
    pub validator: bool,
}

/// A way back that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The order that takes it.
    pub order: Back,
    /// The version that it leads away from.
    pub leaves: Version,
    /// The upgrades that it undoes, oldest first.
    pub undoes: Vec<Name>,
    /// Objections that the operator has overruled.
    pub overruled: Vec<String>,
    /// Uncertainties and consequences.
    pub doubts: Vec<String>,
}

/// An upgrade that has led from one version to the next.
struct PastStep<'a> {
    name: &'a Name,
    fork_height: Option<u64>,
    from: Option<&'a Version>,
    to: Option<&'a Version>,
    /// Whether its new binary has run.
    ran: bool,
    data_compat: bool,
    backup: Option<&'a String>,
}

/// The objection to finishing a halted upgrade with the binary that is staged as `name`. Not its way back: where that is not
/// open, as with a damaged backup, the new binary is the way on.
#[must_use]
pub(super) fn objection_to(progress: &Attempt, name: &Name) -> Option<&'static str> {
    let is_old = progress.from.target.is(name);
    is_old.then_some("that is the old binary; to go back to it: wemixvisor rollback")
}

/// Decides by the table of DESIGN section 6. Rows are tried from the most forbidding down.
#[must_use]
pub(super) fn decide(progress: &Attempt, traces: Traces) -> WayOn {
    if let Some(why) = at_a_fork(progress.fork_height, traces.highest) {
        return WayOn::Halt(why);
    }
    if traces.signed {
        return WayOn::Halt("the new binary may have signed blocks, so the old one must not run");
    }
    if progress.unclean {
        return WayOn::Halt(UNCLEAN);
    }
    match (progress.data_compat, &progress.backup) {
        (true, _) => WayOn::Old,
        (false, Some(_)) => WayOn::RestoreThenOld,
        (false, None) => WayOn::Halt(NO_BACKUP),
    }
}

const UNCLEAN: &str = "the old node ended uncleanly, so its data proves nothing";
const NO_BACKUP: &str = "the old binary cannot open the new data, and there is no backup";

/// The objection to a binary that lacks the fork at this height.
fn at_a_fork(fork: Option<u64>, highest: Option<u64>) -> Option<&'static str> {
    match (fork?, highest) {
        (_, None) => Some("it is not known how far the chain was, so the old binary may be past the fork"),
        (fork, Some(highest)) if highest >= fork => {
            Some("the chain is at or past the fork height, where the old binary must not run")
        }
        (_, Some(_)) => None,
    }
}

/// The operator's way back, by the same table.
///
/// # Errors
/// If there is none, or it may hurt and is not forced.
pub fn way_back(record: &Record, wanted: &Wanted, known: &Known) -> Result<WayBack, Refused> {
    let attempt = record.upgrade.as_ref();
    // One that has halted may go another way.
    let goes = |attempt: &&Attempt| attempt.phase == Phase::Reverting && record.halted.is_none();
    if let Some(attempt) = attempt.filter(goes) {
        return Err(refused(format!("upgrade {} is on its way back already", attempt.name), None));
    }
    let steps = steps(&record.ended, attempt);
    let leaves = attempt.map_or(&record.current, |attempt| &attempt.to);
    let to = wanted.to.as_ref().or_else(|| previous(&steps, leaves)).ok_or_else(no_earlier_version)?;
    if to.sha256 == leaves.sha256 {
        let what = format!("{} has the same binary as {}, so it is no way back", to.target, leaves.target);
        return Err(refused(what, None));
    }
    if let Some(attempt) = attempt.filter(|attempt| attempt.attempt == 0 && attempt.from != *to) {
        let what = format!("upgrade {} has not come to its new binary yet", attempt.name);
        return Err(refused(what, Some("the way back from it leads to the version before it alone")));
    }
    let undone = undone(&steps, to).filter(|undone| !undone.is_empty()).ok_or_else(|| {
        let what = format!("{} has not run here before {}, so it is no way back", to.target, leaves.target);
        refused(what, Some("plan it as an upgrade: `wemixvisor upgrade schedule` or `upgrade now`"))
    })?;
    let (backup, lacks_backup) = data(undone, wanted, known)?;
    let mut forks = undone.iter().filter_map(|step| step.fork_height);
    // At the last block before a fork the old binary cannot follow the next one.
    let next = known.highest.map(|highest| highest.saturating_add(1));
    let fork = forks.find_map(|fork| at_a_fork(Some(fork), next));
    let unclean = attempt.is_some_and(|attempt| attempt.unclean && attempt.attempt > 0).then_some(UNCLEAN);
    let objections: Vec<&str> = fork.into_iter().chain(unclean).chain(lacks_backup).collect();
    if let Some(first) = objections.first().filter(|_| !wanted.force) {
        return Err(refused(
            format!("going back may hurt: {first}"),
            Some("if you know better, add --force"),
        ));
    }
    let order = Back { to: to.clone(), backup, force: wanted.force };
    Ok(WayBack {
        doubts: doubts(&order, leaves, undone, known),
        order,
        leaves: leaves.clone(),
        undoes: undone.iter().map(|step| step.name.clone()).collect(),
        overruled: objections.into_iter().map(ToOwned::to_owned).collect(),
    })
}

/// The upgrades that have led to the version that runs now, or runs next, oldest first.
fn steps<'a>(ended: &'a [Ended], attempt: Option<&'a Attempt>) -> Vec<PastStep<'a>> {
    let applied = ended.iter().filter(|ended| ended.outcome == Outcome::Applied);
    let applied = applied.map(|ended| PastStep {
        name: &ended.name,
        fork_height: ended.fork_height,
        from: ended.switch.as_ref().map(|switch| &switch.from),
        to: ended.switch.as_ref().map(|switch| &switch.to),
        ran: true,
        data_compat: ended.switch.as_ref().is_none_or(|switch| switch.data_compat),
        backup: ended.switch.as_ref().and_then(|switch| switch.backup.as_ref()),
    });
    let under_way = attempt.into_iter().map(|attempt| PastStep {
        name: &attempt.name,
        fork_height: attempt.fork_height,
        from: Some(&attempt.from),
        to: Some(&attempt.to),
        ran: attempt.attempt > 0,
        data_compat: attempt.data_compat,
        backup: attempt.backup.as_ref(),
    });
    applied.chain(under_way).collect()
}

/// The version before `leaves`.
fn previous<'a>(steps: &[PastStep<'a>], leaves: &Version) -> Option<&'a Version> {
    steps.last().filter(|step| step.to == Some(leaves)).and_then(|step| step.from)
}

fn no_earlier_version() -> Refused {
    refused("no earlier version is on record", Some("name the one to go back to: --to NAME"))
}

/// The upgrades since the binary of `to` ran last, by its digest and under any name; None where it never ran.
fn undone<'a, 'b>(steps: &'b [PastStep<'a>], to: &Version) -> Option<&'b [PastStep<'a>]> {
    let is_it = |version: Option<&Version>| version.is_some_and(|version| version.sha256 == to.sha256);
    // Of an upgrade of long ago only the name is on record.
    let is_after = |step: &PastStep<'_>| is_it(step.to) || step.to.is_none() && to.target.is(step.name);
    match steps.iter().rposition(is_after) {
        Some(at) => Some(&steps[at + 1..]),
        None => {
            let from = steps.iter().position(|step| is_it(step.from));
            from.or_else(|| (to.target == Target::Genesis).then_some(0)).map(|at| &steps[at..])
        }
    }
}

/// The forks that a binary lacks because it ran here, under any name, before the upgrades for them.
pub(super) fn lacks<'a>(record: &'a Record, sha256: &Digest) -> impl Iterator<Item = (&'a Name, u64)> {
    // Of those before no digest is on record.
    let recent = record.ended.len().saturating_sub(SWITCHES);
    let steps = steps(&record.ended[recent..], record.upgrade.as_ref());
    let is_it = |version: Option<&Version>| version.is_some_and(|version| version.sha256 == *sha256);
    let after = steps.iter().rposition(|step| is_it(step.to)).map(|at| at + 1);
    let since = after.or_else(|| steps.iter().position(|step| is_it(step.from))).unwrap_or(steps.len());
    steps.into_iter().skip(since).filter_map(|step| Some((step.name, step.fork_height?)))
}

/// The backup to put in place of the data, if so, and the objection where one is needed that is not there.
fn data(
    undone: &[PastStep<'_>],
    wanted: &Wanted,
    known: &Known,
) -> Result<(Option<String>, Option<&'static str>), Refused> {
    let mut ran = undone.iter().filter(|step| step.ran);
    let opens = ran.clone().all(|step| step.data_compat);
    // The data as the version to go back to has left it.
    let saved = ran.next().and_then(|step| step.backup).filter(|backup| known.backups.contains(backup));
    match (opens && !wanted.restore, saved) {
        (true, _) => Ok((None, None)),
        (false, Some(backup)) => Ok((Some(backup.clone()), None)),
        (false, None) if wanted.restore => {
            let what = "there is no backup of the data as that version has left it";
            Err(refused(what, Some("without --restore it runs on the data as it is")))
        }
        (false, None) => Ok((None, Some(NO_BACKUP))),
    }
}

/// Uncertainties of a way back, and consequences that the operator should know.
fn doubts(order: &Back, leaves: &Version, undone: &[PastStep<'_>], known: &Known) -> Vec<String> {
    let (old, new) = (&order.to.target, &leaves.target);
    let has_run = undone.iter().any(|step| step.ran);
    let mut doubts = Vec::new();
    match &order.backup {
        Some(backup) => doubts.push(format!(
            "the data becomes that of backup {backup}; the node fetches all later blocks again"
        )),
        None if has_run => {
            doubts.push(format!(
                "whether {old} can open data that {new} has written is not known, only planned"
            ));
        }
        None => {}
    }
    if known.validator && has_run {
        doubts
            .push(format!("{new} may have signed blocks: {old} signs when that is safe, as after any stop"));
    }
    for (step, fork) in undone.iter().filter_map(|step| Some((step, step.fork_height?))) {
        let left = match known.highest {
            Some(highest) if highest < fork => format!(", {} blocks from here", fork - highest),
            _ => String::new(),
        };
        doubts
            .push(format!("{old} cannot follow the chain beyond the fork of {} at {fork}{left}", step.name));
    }
    doubts
}

/// Makes an order the way back of an upgrade under way, which all that follows takes to its end. One that was applied
/// is under way again for it.
///
/// # Errors
/// If the way back is not open any more.
pub(super) fn begin(record: &mut Record, order: &Back, known: &Known) -> Result<(), Refused> {
    let way = way_back(record, &order.into(), known)?;
    let reason = format!("the operator went back to {}", order.to.target);
    for ended in record.ended.iter_mut().filter(|ended| way.undoes.contains(&ended.name)) {
        (ended.outcome, ended.detail) = (Outcome::RolledBack, reason.clone());
    }
    let last = way.undoes.last().and_then(|name| record.ended(name)).cloned();
    // A restore may have begun, so the data may be older than the last block that was signed.
    record.silent |= record.upgrade.as_ref().is_some_and(Attempt::restores);
    let attempt = record.upgrade.take().or_else(|| Some(again(&last?, &way.leaves)));
    let attempt = attempt.ok_or_else(no_earlier_version)?;
    record.upgrade = Some(Attempt {
        phase: Phase::Reverting,
        put_off: false,
        // The operator's word is one on the fork, too: the old binary is not held back at it.
        fork_height: attempt.fork_height.filter(|_| way.overruled.is_empty()),
        from: order.to.clone(),
        data_compat: order.backup.is_none() && attempt.data_compat,
        backup: order.backup.clone().or_else(|| attempt.backup.clone().filter(|_| attempt.data_compat)),
        reason: Some(reason),
        ..attempt
    });
    record.current = order.to.clone();
    (record.halted, record.back) = (None, None);
    Ok(())
}

/// An upgrade that was applied, under way again.
fn again(ended: &Ended, to: &Version) -> Attempt {
    Attempt {
        attempt: 1,
        dry_run: true,
        backup: ended.switch.as_ref().and_then(|switch| switch.backup.clone()),
        ..Attempt::new(&ended.as_planned(), to.clone(), to.clone(), Phase::Reverting)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machine::{Target, Version};

    /// The third attempt of an upgrade at 100 with a fork at 200.
    pub(in crate::machine) fn progress() -> Attempt {
        Attempt { fork_height: Some(200), phase: Phase::Trying, attempt: 3, ..Attempt::example() }
    }

    #[test]
    fn the_way_on_is_neither_back_nor_the_old_binary() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let from = Version { target: Target::Upgrade(name("v1")), ..progress().from };
        let halted = Attempt { from, ..progress() };
        assert!(objection_to(&halted, &name("v1")).is_some());
        assert_eq!(objection_to(&halted, &name("v2")), None, "its own, mended or not");
        assert_eq!(objection_to(&halted, &name("v3")), None);
        assert_eq!(objection_to(&Attempt { phase: Phase::Reverting, ..halted }, &name("v2")), None);
    }

    #[test]
    fn the_table() {
        let traces = |highest, signed| Traces { highest, signed };
        let fine = progress();
        assert_eq!(decide(&fine, traces(Some(199), false)), WayOn::Old);
        assert!(matches!(decide(&fine, traces(Some(200), false)), WayOn::Halt(_)));
        assert!(matches!(decide(&fine, traces(Some(150), true)), WayOn::Halt(_)));
        assert!(matches!(decide(&fine, traces(None, false)), WayOn::Halt(_)));
        let unclean = Attempt { unclean: true, ..progress() };
        assert!(matches!(decide(&unclean, traces(Some(150), false)), WayOn::Halt(_)));
        let incompatible = Attempt { data_compat: false, ..progress() };
        assert!(matches!(decide(&incompatible, traces(Some(150), false)), WayOn::Halt(_)));
        let saved = Attempt { backup: Some("v2-1".into()), ..incompatible };
        assert_eq!(decide(&saved, traces(Some(150), false)), WayOn::RestoreThenOld);
        let no_fork = Attempt { fork_height: None, ..progress() };
        assert_eq!(decide(&no_fork, traces(Some(1_000_000), false)), WayOn::Old);
    }

    #[test]
    fn an_earlier_binary_lacks_the_forks_since_whatever_its_name() {
        let version = |text: &str| {
            let target = text.parse::<Target>().unwrap();
            Version { sha256: Digest::sha256(text.as_bytes()), target }
        };
        let (v1, v2, v3) = (version("genesis"), version("upgrades/v2"), version("upgrades/v3"));
        let mut record = Record::new(v1.clone());
        for (from, to, fork) in [(&v1, &v2, 100), (&v2, &v3, 200)] {
            let name = to.target.to_string().trim_start_matches("upgrades/").parse().unwrap();
            let (from, to) = (from.clone(), to.clone());
            record.upgrade = Some(Attempt { name, from, to, fork_height: Some(fork), ..Attempt::example() });
            record.end(Outcome::Applied, String::new());
        }
        let lacking =
            |version: &Version| lacks(&record, &version.sha256).map(|(_, fork)| fork).collect::<Vec<_>>();
        assert_eq!((lacking(&v1), lacking(&v2), lacking(&v3)), (vec![100, 200], vec![200], vec![]));
        assert_eq!(lacking(&version("upgrades/v9")), [0; 0]);
        // Of those before the last ones no version is remembered.
        for n in 10..30 {
            let name = format!("w{n}").parse().unwrap();
            record.upgrade = Some(Attempt { name, ..Attempt::example() });
            record.end(Outcome::Failed, String::new());
        }
        assert_eq!(record.ended.iter().filter(|ended| ended.switch.is_some()).count(), 16);
    }
}
