//! Symptoms with names: what is wrong with a running node or its network, in one line each, for status and log.
//!
//! A symptom never decides anything. It is logged when it shows, and again each minute while it lasts.

use super::event::{Level, Survey};
use super::gates::{SLOT, Seat, Validator, group_size, room, room_needed};
use super::order::show_some;
use super::quorum::quorum;
use super::state::Node;
use super::{Machine, REMIND, Upgrade};
use std::time::{Duration, Instant};

/// A silent node without peers for this long may have a rival for its address.
const RIVAL: Duration = Duration::from_secs(70);
/// Blocks before a fork from which on the versions of the proposers matter.
const FORK_IS_NEAR: u64 = 3600;

/// Symptoms of a plan, which lasts for weeks: they are logged once, and shown by status for as long as they last.
const ONCE: [&str; 1] = ["little_room"];

/// One symptom: a stable name and a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Symptom {
    pub(super) name: &'static str,
    pub(super) text: String,
}

fn symptom(name: &'static str, text: String) -> Symptom {
    Symptom { name, text }
}

impl Machine {
    /// Logs every symptom that is new, or has lasted for another minute.
    pub(super) fn report_symptoms(&mut self, now: Instant, node: &mut Node) {
        let symptoms = self.symptoms(now, node);
        node.network.symptoms.retain(|name, _| symptoms.iter().any(|symptom| symptom.name == *name));
        for Symptom { name, text } in symptoms {
            let reported = node.network.symptoms.get(name);
            if reported.is_none_or(|at| now >= *at + REMIND && !ONCE.contains(&name)) {
                node.network.symptoms.insert(name, now);
                self.log(Level::Warn, name, text);
            }
        }
    }

    /// The symptoms of this moment.
    pub(super) fn symptoms(&self, now: Instant, node: &Node) -> Vec<Symptom> {
        if !self.policy.watch_height {
            return Vec::new();
        }
        let survey = node.network.survey.as_ref();
        let standing = if self.stands(now, node) { Some(self.standing(now, node, survey)) } else { None };
        let mut all = Vec::new();
        all.extend(standing);
        all.extend(self.no_peers(now, node));
        all.extend(self.clock_skew(node));
        all.extend(self.heads.doubt().map(|doubt| symptom("head_not_counted", doubt.to_owned())));
        let advice = "if the network is right, forget ours with `wemixvisor resolve head`";
        let other = self.heads.contradiction().map(|c| format!("{}; {advice}", c.text()));
        all.extend(other.map(|text| symptom("other_block", text)));
        all.extend(survey.and_then(|survey| self.too_few_upgraded(survey)));
        all.extend(survey.and_then(|survey| self.little_room(survey)));
        all
    }

    /// Why no new head comes, as far as that is known.
    fn standing(&self, now: Instant, node: &Node, survey: Option<&Survey>) -> Symptom {
        let (head, still) = (node.height().unwrap_or(0), node.still(now));
        let since = format!("head={head} for={still:.0?}");
        let behind = survey.and_then(|survey| survey.network_head).filter(|network| *network > head);
        if let Some(network) = behind {
            let is_here = |fork: &u64| head == *fork || head + 1 == *fork;
            let fork = self.open_up_to(head).find_map(|u| u.fork_height.filter(is_here));
            let since = format!("{since} the network is at {network}");
            return match fork {
                Some(fork) => symptom(
                    "frozen_at_fork",
                    format!("{since}: the old binary cannot follow the fork at {fork}"),
                ),
                None => symptom(
                    "frozen",
                    format!(
                        "{since}: the node imports nothing; a fork that this binary lacks, or a call of engine_forkchoiceUpdated: restart it, and look at its log"
                    ),
                ),
            };
        }
        let mut text = format!("{since} no new block");
        if let Some(survey) = survey.filter(|survey| !survey.sample.set.is_empty()) {
            let needed = quorum(survey.sample.set.len());
            text.push_str(&format!("; {needed} of {} validators are needed", survey.sample.set.len()));
            let absent = absent(survey);
            if !absent.is_empty() {
                text.push_str(&format!(", not there: {}", show_some(&absent)));
            }
            let (round, left) = next_round(still, survey.round_timeout);
            text.push_str(&format!("; round {round} begins in {:.0} s", left.as_secs_f64()));
        }
        symptom("chain_stands_still", text)
    }

    fn no_peers(&self, now: Instant, node: &Node) -> Option<Symptom> {
        let since = node.network.returning.alone_since.filter(|since| now >= *since + RIVAL)?;
        let time = now.duration_since(since);
        let text =
            format!("no peers for {time:.0?}: does another node run with this key, or from this address?");
        self.record.silent.then(|| symptom("silent_without_peers", text))
    }

    /// The clock is off where heads come one by one in time and are still far from our own time. A silent node hears one
    /// or two of them at a time.
    fn clock_skew(&self, node: &Node) -> Option<Symptom> {
        let limit = (self.period() * 3).max(Duration::from_secs(3));
        let head = node.head.as_ref()?;
        let timestamp = head.timestamp?;
        let off = Duration::from_secs(head.heard_at.abs_diff(timestamp));
        let ahead = head.heard_at > timestamp;
        let in_time = node.follows() || self.record.silent && node.in_time > 0;
        if off <= limit || ahead && !in_time {
            return None;
        }
        let how = if ahead { "ahead of" } else { "behind" };
        Some(symptom("clock_skew", format!("our clock is {off:.0?} {how} the chain's: check NTP")))
    }

    /// A fork that is near, a roll that is late, and fewer than a quorum of the proposers with the new version.
    fn too_few_upgraded(&self, survey: &Survey) -> Option<Symptom> {
        let head = self.heads.height()?;
        let near = |u: &Upgrade| u.fork_height.filter(|fork| *fork > head).map(|fork| (u.height, fork));
        let (height, fork) = self.open_up_to(head.saturating_add(FORK_IS_NEAR)).find_map(near)?;
        if fork - head > FORK_IS_NEAR {
            return None;
        }
        let census = self.census(survey)?;
        let late = is_late(survey.sample.set.len(), census.upgraded, head, (height, fork));
        (late && census.upgraded < census.quorum).then(|| symptom("few_upgraded", census.to_string()))
    }

    /// The first upgrade with too few blocks for the turns of all validators between its height and its fork. The
    /// head does not count: while the validators take their turns fewer and fewer blocks are needed.
    fn little_room(&self, survey: &Survey) -> Option<Symptom> {
        let (head, validators) = (survey.sample.head, survey.sample.set.len());
        self.open().filter(|_| self.policy.validator).find_map(|upgrade| {
            let fork = upgrade.fork_height.filter(|fork| *fork > head)?;
            let short = room(validators, upgrade.height, None, fork).err()?;
            let text = format!("upgrade {} at {}, fork at {fork}: {short}", upgrade.name, upgrade.height);
            Some(symptom("little_room", text))
        })
    }

    /// How many of the proposers of the last blocks run at least the version of the next upgrade that has a fork.
    pub(super) fn census(&self, survey: &Survey) -> Option<Census> {
        let head = self.heads.height()?;
        let upgrade = self.open().find(|u| u.fork_height.is_some_and(|fork| fork > head))?;
        let wanted = self.ready(&upgrade.name)?.promised.as_deref()?;
        let runs = survey.census.iter().filter(|(_, version)| is_at_least(version, wanted)).count();
        Some(Census {
            upgraded: runs,
            proposers: survey.census.len(),
            version: wanted.to_owned(),
            quorum: quorum(survey.sample.set.len()),
            fork_in: upgrade.fork_height.unwrap_or(head).saturating_sub(head),
        })
    }
}

/// The versions of the proposers against the version that the next fork needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) upgraded: usize,
    proposers: usize,
    version: String,
    pub(super) quorum: usize,
    fork_in: u64,
}

impl std::fmt::Display for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Census { upgraded, proposers, version, quorum, fork_in } = self;
        write!(
            f,
            "{upgraded} of {proposers} proposers run >= {version}; quorum {quorum}; fork in {fork_in} blocks"
        )
    }
}

/// Whether a roll is late: every validator has had its turn since the height of the upgrade, or a quorum of
/// `validators` no longer has one before the fork, since only `upgraded` of them have switched.
///
/// A validator shows its version in its next proposal, so the count may lag by a whole round of proposers.
fn is_late(validators: usize, upgraded: usize, head: u64, (height, fork): (u64, u64)) -> bool {
    let all_had_turns = height.saturating_add(room_needed(validators)).saturating_add(validators as u64);
    let missing = quorum(validators).saturating_sub(upgraded);
    let needed = (missing.div_ceil(group_size(validators)) as u64).saturating_mul(SLOT);
    head >= all_had_turns || head >= height && fork.saturating_sub(head) < needed
}

/// The other validators that are not connected; where peers are not reported, those that do not seal.
fn absent(survey: &Survey) -> Vec<Validator> {
    let there = |seat: &Seat| match &survey.connected {
        Some(connected) => connected.contains(&seat.validator),
        None => seat.sealing,
    };
    let others = survey.sample.set.iter().filter(|seat| Some(seat.validator) != survey.me);
    others.filter(|seat| !there(seat)).map(|seat| seat.validator).collect()
}

/// The number of the next round and the time until it begins, for a height that began `since` ago. Each round has
/// twice the time of the one before, up to a limit.
pub(super) fn next_round(since: Duration, (first, longest): (Duration, Option<Duration>)) -> (u32, Duration) {
    let (mut round, mut begins, mut length) = (0, Duration::ZERO, first.max(Duration::from_millis(1)));
    while begins <= since && round < 64 {
        begins = begins.saturating_add(longest.map_or(length, |longest| length.min(longest)));
        length = length.saturating_mul(2);
        round += 1;
    }
    (round, begins.saturating_sub(since))
}

/// Whether a version is at least another, by their numbers; a version without numbers is not.
pub(super) fn is_at_least(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let from = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let digits = text[from..].split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
        digits.split('.').map_while(|part| part.parse().ok()).take(3).collect()
    };
    let (version, wanted) = (numbers(version), numbers(wanted));
    !version.is_empty() && version >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_double_up_to_the_limit() {
        let seconds = Duration::from_secs;
        let at = |since, longest| next_round(seconds(since), (seconds(2), longest));
        // They begin at 0, 2, 6, 14, 30 s.
        assert_eq!(at(0, None), (1, seconds(2)));
        assert_eq!(at(5, None), (2, seconds(1)));
        assert_eq!(at(14, None), (4, seconds(16)));
        assert_eq!(at(14, Some(seconds(8))), (4, seconds(8)));
    }

    #[test]
    fn a_roll_is_late_after_all_turns_or_with_too_few_left() {
        // Seven validators take seven slots, and five of them are a quorum.
        let late = |upgraded, head, fork| is_late(7, upgraded, head, (1000, fork));
        assert!(!late(0, 999, 1000 + 168), "it has not begun");
        assert!(!late(0, 1000, 1000 + 168), "it begins with just enough room");
        assert!(!late(2, 1000 + 96, 1000 + 168), "three more have three slots");
        assert!(late(2, 1000 + 97, 1000 + 168) && !late(3, 1000 + 97, 1000 + 168));
        // With room to spare the last proposal of the last validator is waited for.
        assert!(!late(0, 1000 + 168 + 6, 3000) && late(0, 1000 + 168 + 7, 3000));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, wanted, is) in [
            ("v1.1.0", "1.1.0", true),
            ("Gwemix/v1.10.0-stable/linux", "1.9.0", true),
            ("1.0.9", "1.1.0", false),
            ("unknown", "1.0.0", false),
        ] {
            assert_eq!(is_at_least(version, wanted), is, "{version} {wanted}");
        }
    }
}
