//! When two worlds are the same for all that can follow: the same but for the time of day.

use super::world::World;
use super::*;
use crate::machine::network::Network;
use crate::machine::state::{AfterRecord, Cleared, Outgoing, Rested};
use std::hash::{Hash, Hasher};

/// Beyond this, how long ago something was makes no difference in the explored policies.
const LONG_AGO: Duration = Duration::from_secs(12);

/// A number that two worlds share if nothing can tell them apart but a clock on the wall. Times and the numbers of the
/// launches are taken out of the world for the moment in which it is hashed, which is faster than to copy it.
pub(super) fn fingerprint(world: &mut World, extra: &impl Hash) -> u64 {
    let mut into = Mixer(0);
    let launch = world.record.launch;
    if let Some(record) = &mut world.unacknowledged {
        (record.launch.wrapping_sub(launch), uncounted(record, &mut into)).hash(&mut into);
    }
    match &mut world.pending {
        Some(Action::Record(record)) => {
            uncounted(record, &mut into);
        }
        Some(Action::Spawn { version, mode, .. }) => (1, version, mode).hash(&mut into),
        other => (2, other).hash(&mut into),
    }
    uncounted(&mut world.record, &mut into).hash(&mut into);
    let World { head_record, link, head, awaiting, process, job, end, schedule, truth, .. } = &*world;
    (world.unacknowledged.is_some(), world.unwritten, world.unsent, world.is_beside).hash(&mut into);
    let launched = world.launched.map(|launched| launched.wrapping_sub(launch));
    (extra, launched, head_record, link, head, awaiting, process, job, end, schedule).hash(&mut into);
    let (epoch, now) = (world.epoch, world.now);
    let since = |at: &Instant| match at.checked_duration_since(now) {
        Some(ahead) => (ahead, Duration::ZERO),
        None => (Duration::ZERO, now.duration_since(*at).min(LONG_AGO)),
    };
    truth.stopping_since.as_ref().map(since).hash(&mut into);
    let taken = (world.truth.stopping_since.take(), world.truth.executed_at.take());
    world.truth.hash(&mut into);
    (world.truth.stopping_since, world.truth.executed_at) = taken;
    let Some(machine) = &mut world.machine else { return into.finish() };
    (machine.record.launch.wrapping_sub(launch), uncounted(&mut machine.record, &mut into)).hash(&mut into);
    if let Some(Outgoing { record, then, news }) = &mut machine.outgoing {
        (uncounted(record, &mut into), then, news).hash(&mut into);
    }
    let times: Vec<Instant> = times(machine).into_iter().map(|at| std::mem::replace(at, epoch)).collect();
    times.iter().map(since).for_each(|since| since.hash(&mut into));
    let Machine {
        state, prepared, stopped, switched, departure, schedule, forced, worker, wish, left, ..
    } = &*machine;
    (state, prepared, stopped, switched, departure, schedule, forced, worker, wish, left).hash(&mut into);
    let Machine {
        restarts, heads, unbound, unstuck, at_once, link, unwritten, behind, put_off, back, ..
    } = &*machine;
    (restarts, unbound, unstuck, at_once, link, unwritten, behind, put_off, back).hash(&mut into);
    (heads.record(), heads.contradiction(), heads.doubt()).hash(&mut into);
    self::times(machine).into_iter().zip(times).for_each(|(at, time)| *at = time);
    into.finish()
}

/// Every time that a machine remembers.
fn times(machine: &mut Machine) -> Vec<&mut Instant> {
    let Machine { state, prepared, stopped, switched, departure, .. } = machine;
    let mut times = of_state(state);
    times.extend(prepared.values_mut().filter_map(|preparation| match preparation {
        Preparation::Failed { retry_at, .. } => Some(retry_at),
        Preparation::Working { .. } | Preparation::Ready(_) => None,
    }));
    let others = [stopped, switched, &mut departure.at, &mut departure.networked];
    times.extend(others.into_iter().flatten());
    times
}

/// Hashes a record without the numbers of the launches, of which it matters only which are the same: returns whether it
/// was the last launch that sealed.
fn uncounted(record: &mut Record, into: &mut Mixer) -> bool {
    let launch = std::mem::take(&mut record.launch);
    let sealing = record.upgrade.as_mut().map_or(0, |attempt| std::mem::take(&mut attempt.sealing));
    if let Some(attempt) = &mut record.upgrade {
        attempt.sealing = sealing.min(1);
    }
    record.hash(into);
    record.launch = launch;
    if let Some(attempt) = &mut record.upgrade {
        attempt.sealing = sealing;
    }
    sealing == launch
}

impl World {
    /// The facts that a supervisor finds when it starts, as a number.
    pub(super) fn facts(&self) -> u64 {
        let mut into = Mixer(0);
        let process = self.process.as_ref().map(|p| (&p.target, p.terminated));
        (&self.record, &self.unacknowledged).hash(&mut into);
        (&self.head_record, &self.link, &self.schedule, self.launched, process).hash(&mut into);
        into.finish()
    }
}

/// Answers of a node about its network are not explored, so they do not distinguish worlds.
impl Hash for Network {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Mixes like SplitMix64; the default hasher takes most of the time of an exploration without optimization.
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.write_u64(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let z = (self.0 ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = (z ^ (z >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

/// Every time that a state remembers.
fn of_state(state: &mut State) -> Vec<&mut Instant> {
    let mut all = Vec::new();
    match state {
        State::Born
        | State::Spawning { .. }
        | State::Working { .. }
        | State::Linking { .. }
        | State::Ended => {}
        State::Inspecting { node, .. } => all.extend(node.iter_mut().flat_map(of_node)),
        State::Running(node) => all.extend(of_node(node)),
        State::Clearing { since, then, .. } => {
            all.push(since);
            if let Cleared::Down { ran, .. } = then {
                all.extend(ran.times());
            }
        }
        State::Recording { then, .. } => all.extend(of_recorded(then)),
        State::Leaving { since, node, .. } => {
            all.push(since);
            all.extend(of_node(node));
        }
        State::Stopping { since, node, reminded, unsent, .. } => {
            all.extend([since, reminded]);
            all.extend(unsent);
            all.extend(of_node(node));
        }
        State::Resting { until, then } => {
            all.push(until);
            if let Rested::Record(_, then, _) = then {
                all.extend(of_recorded(then));
            }
        }
    }
    all
}

fn of_recorded(recorded: &mut AfterRecord) -> Vec<&mut Instant> {
    match recorded {
        AfterRecord::Start(until) => until.iter_mut().collect(),
        AfterRecord::Upgrade
        | AfterRecord::Backup(_)
        | AfterRecord::Link(_)
        | AfterRecord::Spawn
        | AfterRecord::End { .. } => Vec::new(),
    }
}

fn of_node(node: &mut Node) -> Vec<&mut Instant> {
    let Node { since, first_head, rose, still_since, asked, not_before, restart_since, identity, .. } = node;
    let mut all = vec![since];
    all.extend(first_head.iter_mut().map(|(at, _)| at));
    all.extend(rose.iter_mut().map(|(at, _)| at));
    all.extend(asked.iter_mut().chain(not_before).chain(still_since).chain(restart_since));
    all.extend(identity.asked.iter_mut().chain(identity.other.iter_mut().map(|(at, _)| at)));
    all
}
