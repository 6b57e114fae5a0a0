//! Every sync is needed: without it, or behind the next effect, some crash state breaks a law.
//!
//! A sync is named by the place in the source that calls it. Taking it out of the recorded traces is the same as
//! taking the call out of the source; putting it off behind the next effect is the same as exchanging the two.

use super::{Broken, Flow, Lab, Trace, flows};
use crate::home::trace::recorder::Op;
use std::collections::BTreeMap;
use std::fs;
use std::panic::Location;
use std::path::{Path, PathBuf};

/// Syncs that no law needs, and the reason for which they are there all the same.
const KEPT: [(&str, &[Mutation], &str); 4] = [
    (
        "durable::mkdir: return match sync_dir(parent) {",
        &[Mutation::Late],
        "what is made in a directory may be durable before the directory, as long as both are when it is acknowledged",
    ),
    ("durable::mkdir: sync_dir(parent)", &[Mutation::Late], "as above"),
    (
        "durable::publish: if parent_of(from) == parent_of(to) { Ok(()) } else { sync_dir(parent_of(from)) }",
        &[Mutation::Missing, Mutation::Late],
        "a file system whose renames are not one step in both directories may keep the old name as well",
    ),
    (
        "durable::exchange: if parent_of(a) == parent_of(b) { Ok(()) } else { sync_dir(parent_of(a)) }",
        &[Mutation::Missing, Mutation::Late],
        "as for promote; what is exchanged by a restore is in one directory",
    ),
];

/// States that are judged of one mutated trace, at each cut and in all: in every flow a few, which show most mutations,
/// and then in every flow as many as it takes for one to count as harmless.
const EFFORTS: [Effort; 2] = [Effort { at_a_cut: 8, in_all: 300 }, Effort { at_a_cut: 40, in_all: 3000 }];

#[derive(Debug, Clone, Copy)]
struct Effort {
    at_a_cut: u64,
    in_all: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    /// The sync is missing.
    Missing,
    /// It comes behind the next effect or acknowledgement.
    Late,
}

#[test]
fn every_sync_and_its_place_are_needed() {
    let mut labs: Vec<(Lab, Vec<Trace>)> = flows::ALL
        .iter()
        .map(|flow: &Flow| {
            let mut lab = Lab::new(*flow);
            let traces = std::mem::take(&mut lab.traces);
            (lab, traces)
        })
        .collect();
    let mut places: BTreeMap<(&str, u32), &Location<'static>> = BTreeMap::new();
    for op in labs.iter().flat_map(|(_, traces)| traces).flat_map(|trace| &trace.ops) {
        if let Op::Sync(_, place) = op
            && !place.file().contains("crash")
        {
            places.insert((place.file(), place.line()), place);
        }
    }
    let mut wrong = Vec::new();
    for place in places.values() {
        let name = name(place);
        for mutation in [Mutation::Missing, Mutation::Late] {
            let is_kept = |(kept, harmless, _): &(_, &[_], _)| *kept == name && harmless.contains(&mutation);
            let is_kept = KEPT.iter().any(is_kept);
            // With all states, more effort is made to show that one is needed though it is listed.
            let efforts = if is_kept && super::asked_states().is_none() { &EFFORTS[..1] } else { &EFFORTS };
            let found = efforts.iter().find_map(|effort| {
                labs.iter_mut().find_map(|(lab, traces)| {
                    breaks(lab, traces, &|trace| mutate(trace, place, mutation), *effort)
                })
            });
            match &found {
                Some((flow, broken)) => println!("{name}: {mutation:?} breaks {flow}: {}", broken.why),
                None => println!("{name}: {mutation:?} breaks nothing"),
            }
            if found.is_some() == is_kept {
                wrong.push(format!("{name}: {mutation:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "needed although listed, or listed nowhere and not needed: {wrong:#?}");
}

/// The first flow of this lab that a mutation breaks.
fn breaks(
    lab: &mut Lab,
    traces: &[Trace],
    mutate: &dyn Fn(&Trace) -> Option<Trace>,
    effort: Effort,
) -> Option<(&'static str, Box<Broken>)> {
    let mut left = effort.in_all;
    for (number, trace) in traces.iter().enumerate() {
        let Some(mutated) = mutate(trace) else { continue };
        // Beyond the first trace, where each is like another one, fewer of each.
        let at_a_cut = if number == 0 { effort.at_a_cut } else { effort.at_a_cut / 4 };
        match lab.search(number, &mutated, &vec![at_a_cut; trace.ops.len()]) {
            Ok(states) => left = left.saturating_sub(states),
            Err(broken) => return Some((lab.flow.name, broken)),
        }
        if left == 0 {
            break;
        }
    }
    None
}

/// The trace without the syncs of one place, or with each of them late. None if it has none.
fn mutate(trace: &Trace, place: &Location<'static>, mutation: Mutation) -> Option<Trace> {
    let is_it =
        |op: &Op| matches!(op, Op::Sync(_, at) if (at.file(), at.line()) == (place.file(), place.line()));
    let first = trace.ops.iter().position(is_it)?;
    let (mut ops, mut late, mut killed) = (Vec::new(), Vec::new(), 0);
    for (at, op) in trace.ops.iter().enumerate() {
        if at == trace.killed {
            killed = ops.len();
        }
        match op {
            Op::Sync(path, at) if is_it(op) => {
                if mutation == Mutation::Late {
                    late.push((path.clone(), *at));
                }
            }
            Op::Sync(..) | Op::Begin(_) => ops.push(op.clone()),
            _ => {
                ops.push(op.clone());
                let late = late.drain(..).filter_map(|(path, at)| Some(Op::Sync(behind(&path, op)?, at)));
                ops.extend(late);
            }
        }
    }
    ops.extend(late.into_iter().map(|(path, at)| Op::Sync(path, at)));
    // The states before it equal those without the mutation.
    Some(Trace { ops, killed: killed.max(first) })
}

/// The path of what was at `path` before an effect; None if it is gone.
fn behind(path: &Path, op: &Op) -> Option<PathBuf> {
    let moved = |from: &Path, to: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
    match op {
        Op::Rename(from, to) => Some(moved(from, to).unwrap_or_else(|| path.to_owned())),
        Op::Exchange(a, b) => Some(moved(a, b).or_else(|| moved(b, a)).unwrap_or_else(|| path.to_owned())),
        Op::Remove(gone) if path.starts_with(gone) => None,
        _ => Some(path.to_owned()),
    }
}

/// File, function and text of a place in the source.
fn name(place: &Location<'static>) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(place.file())).unwrap();
    let lines: Vec<_> = text.lines().take(place.line() as usize).collect();
    let function = lines.iter().rev().find_map(|line| {
        let (_, rest) = line.split_once("fn ")?;
        rest.split_once('(').map(|(name, _)| name.split('<').next().unwrap_or(name))
    });
    let file = Path::new(place.file()).file_stem().unwrap_or_default().to_string_lossy();
    format!("{file}::{}: {}", function.unwrap_or("?"), lines.last().unwrap_or(&"?").trim())
}
