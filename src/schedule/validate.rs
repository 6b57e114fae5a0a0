//! Judging a plan: every problem at once, each with a JSON pointer (RFC 6901) to the place.
//!
//! An error makes a plan unfit for activation; a warning says what it will mean. What is wrong with a plan in itself is
//! found where it is read. The work is linear in the number of upgrades, but for looking names up in ordered maps.

use super::entry::Entry;
use super::json::read;
use super::plan::{Draft, Plan};
use super::report::{Finding, Report, Severity};
use super::visit;
use crate::machine::gates::room;
use crate::machine::{Ended, Origin, Outcome, Upgrade, merge};
use crate::name::Name;
use crate::sorted::{Index, Set};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The facts outside the plan, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The height of the chain.
    pub head: Option<u64>,
    /// The chain that the node follows (`eth_chainId`).
    pub chain_id: Option<u64>,
    /// The upgrades of all sources. Those of an active version of the same plan are passed over.
    pub planned: &'a [Arc<Upgrade>],
    /// The upgrades that the operator has cancelled.
    pub cancelled: &'a [(Name, u64)],
    /// The upgrades that have ended.
    pub ended: &'a [Ended],
    /// For a validator: the size of the set, and how bad it is if not all of them can have a turn before a fork.
    pub room: Option<(usize, Severity)>,
}

/// Judges the bytes of a plan's file; the plan itself is returned if they are one.
#[must_use]
pub fn validate_json(bytes: &[u8], context: &Context<'_>) -> (Option<Plan>, Report) {
    let refused = |what: String| (None, Report { findings: vec![Finding::error("", what)] });
    let fields = match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(json) => read(json),
        Err(e) => return refused(format!("not JSON: {e}")),
    };
    let Ok(fields) = fields else { return refused("expected an object: a plan".to_owned()) };
    let (mut places, mut upgrades) = (Vec::new(), Vec::new());
    let mut draft = Draft::read(fields, &mut |place, entry| {
        places.push(place);
        upgrades.push(entry);
    });
    let report = judge(&mut draft, places.into_iter().zip(&upgrades).collect(), context);
    (draft.plan(upgrades), report)
}

/// Judges a plan.
#[must_use]
pub fn validate(plan: &Plan, context: &Context<'_>) -> Report {
    let mut places = Vec::new();
    let mut draft = {
        let text = serde_json::to_vec(plan).expect("every key of a plan is a string");
        let fields = serde_json::from_slice(&text).expect("it was written just now");
        Draft::read(fields, &mut |place, _| places.push(place))
    };
    judge(&mut draft, places.into_iter().map(|place| (place, &plan.upgrades[place])).collect(), context)
}

/// Everything that was found about a plan where it was read, and then about these upgrades, each with its place in it.
fn judge(draft: &mut Draft, upgrades: Vec<(usize, &Entry)>, context: &Context<'_>) -> Report {
    let mut judge = Judge { context, report: std::mem::take(&mut draft.report) };
    judge.chain(draft.chain_id);
    judge.conflicts(draft.name.as_ref(), &upgrades);
    judge.report
}

/// The judgement of what could be read of a plan against the facts outside it.
struct Judge<'a> {
    context: &'a Context<'a>,
    report: Report,
}

impl Judge<'_> {
    fn warn(&mut self, pointer: String, what: impl Into<String>) {
        let warning = Finding { severity: Severity::Warning, ..Finding::error(pointer, what) };
        self.report.findings.push(warning);
    }

    fn chain(&mut self, meant: Option<u64>) {
        if let (Some(meant), Some(ours)) = (meant, self.context.chain_id)
            && meant != ours
        {
            let what = format!("the plan is for chain {meant}, but the node follows {ours}");
            self.report.error("/chain_id", what);
        }
    }

    /// Findings about the upgrades from the facts outside the plan.
    fn conflicts(&mut self, plan: Option<&Name>, upgrades: &[(usize, &Entry)]) {
        // A plan without a name has no other version that could be active.
        let unnamed = || "unnamed".parse().expect("it is a name");
        let own = Origin::Plan(plan.cloned().unwrap_or_else(unnamed));
        let cancelled: Set<_> = self.context.cancelled.iter().map(|(n, h)| (n, *h)).collect();
        let ended: Index<_, _> = self.context.ended.iter().map(|e| ((&e.name, e.height), e)).collect();
        for (index, entry) in visit(upgrades) {
            let key = (&entry.name, entry.height);
            if let Some(ended) = ended.get(&key) {
                let how = match ended.outcome {
                    Outcome::Applied => "was applied",
                    Outcome::Failed => "has failed",
                    Outcome::RolledBack => "was rolled back",
                    Outcome::Aborted => "was aborted by its hook",
                };
                let what = format!("it {how} at this height, and is not done again");
                self.warn(format!("/upgrades/{index}"), what);
            } else if cancelled.contains(&key) {
                self.warn(format!("/upgrades/{index}"), "it was cancelled, and will not happen");
            } else {
                self.passed(entry, *index);
                self.room(entry, *index);
            }
        }

        // Ours alone have been judged where they were read.
        let mut theirs = self.context.planned.iter().filter(|upgrade| upgrade.origin != own).peekable();
        if theirs.peek().is_none() && self.context.ended.is_empty() {
            return;
        }
        let ours = upgrades.iter().map(|(_, entry)| Arc::new(Entry::clone(entry).upgrade(own.clone())));
        let merged = merge(ours.chain(theirs.cloned()), self.context.cancelled, self.context.ended);
        let places: Index<_, _> = upgrades.iter().map(|(index, entry)| (&entry.name, *index)).collect();
        for conflict in merged.conflicts {
            // Two of ours that collide with each other have been reported already.
            let foreign = conflict.refused.len() == 1 || conflict.refused.iter().any(|c| c.origin != own);
            for claim in conflict.refused.iter().filter(|claim| claim.origin == own && foreign) {
                if let Some(index) = places.get(&claim.name) {
                    self.report.error(format!("/upgrades/{index}"), conflict.to_string());
                }
            }
        }
    }

    /// Whether all validators can have their turn before the fork. Of an upgrade that is planned already some may have
    /// had it, so the blocks that have passed count as well.
    fn room(&mut self, entry: &Entry, index: usize) {
        let (Some((validators, severity)), Some(fork)) = (self.context.room, entry.fork_height) else {
            return;
        };
        let head = self.context.head.unwrap_or(0);
        if fork <= head || fork <= entry.height {
            return;
        }
        let is_known = |known: &Arc<Upgrade>| known.name == entry.name && known.height == entry.height;
        let head = (!self.context.planned.iter().any(is_known)).then_some(head);
        if let Err(short) = room(validators, entry.height, head, fork) {
            let pointer = format!("/upgrades/{index}/fork_height");
            let finding = Finding { severity, ..Finding::error(pointer, short.to_string()) };
            self.report.findings.push(finding);
        }
    }

    fn passed(&mut self, entry: &Entry, index: usize) {
        let Some(head) = self.context.head else { return };
        if entry.fork_height.is_some_and(|fork| fork <= head) {
            let what = format!("the chain is past it (at {head}): a node without this upgrade stands still");
            self.warn(format!("/upgrades/{index}/fork_height"), what);
        }
        if entry.height <= head {
            let what = format!("the chain is past it (at {head}): it is due as soon as the plan is executed");
            self.warn(format!("/upgrades/{index}/height"), what);
        }
    }
}

#[cfg(test)]
mod tests;
