//! The chain's configuration of the consensus, by height, and the clock of its rounds.
//!
//! Read from `admin_nodeInfo`. A configuration has base values and a list of transitions, each of which
//! changes some of them from a height on, so no value may be used without its height. Epochs are counted
//! anew from every transition that sets their length.
//!
//! The schedule of epochs is a forecast. The headers decide: an epoch ends where a header carries the next validators,
//! also where the configuration has another height.

use crate::sorted;
use serde_json::{Map, Value};
use std::time::Duration;

/// The largest number of seconds or blocks that is taken for a setting and not for damage.
const MAX: u64 = 100_000_000;
/// The longest timeout of the reference node, in nanoseconds: its clock counts in 63 bits.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// The rule by which validators take turns in proposing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Every block, and every round of one height, moves on to the next validator.
    #[default]
    RoundRobin,
    /// The last proposer goes on proposing; only a round that fails moves on.
    Sticky,
}

/// The settings of the consensus at one height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The time between blocks.
    pub period: Duration,
    /// The timeout of round 0; it doubles with every round.
    pub round_timeout: Duration,
    /// The longest timeout of the rounds after round 0. `None`: no limit.
    pub max_round_timeout: Option<Duration>,
    /// The number of blocks in an epoch, where it is known.
    pub epoch: Option<u64>,
    /// The rule for proposers.
    pub policy: Policy,
}

/// The round that runs at a moment of a height, if the height is not decided before.
///
/// Both times count from the start of round 0. An accepted proposal restarts the timer of its round, so a
/// round may last longer than forecast, never shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// The round.
    pub round: u64,
    /// Its start.
    pub since: Duration,
    /// The start of the next round.
    pub next: Duration,
}

/// The configuration of the consensus at every height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consensus {
    base: Timing,
    /// Ascending by height.
    transitions: Vec<Transition>,
}

/// The settings that change at a height. `None`: unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Transition {
    block: u64,
    period: Option<Duration>,
    round_timeout: Option<Duration>,
    /// `Some(None)` removes the limit.
    max_round_timeout: Option<Option<Duration>>,
    epoch: Option<u64>,
    policy: Option<Policy>,
}

impl Timing {
    /// The timeout of a round: doubled with every round, up to the limit, which does not hold for round 0.
    #[must_use]
    pub fn timeout_of(&self, round: u64) -> Duration {
        let base = self.round_timeout.min(LONGEST);
        if round == 0 {
            return base;
        }
        // 63 bits, doubled 64 times at most: it fits.
        let doubled = (base.as_nanos() << round.min(64)).min(LONGEST.as_nanos());
        let doubled = u64::try_from(doubled).map_or(LONGEST, Duration::from_nanos);
        doubled.min(self.max_round_timeout.unwrap_or(LONGEST))
    }

    /// The round that runs when `elapsed` has passed since the start of round 0.
    #[must_use]
    pub fn forecast(&self, elapsed: Duration) -> Forecast {
        let elapsed = elapsed.min(LONGEST);
        let (mut round, mut since) = (0, Duration::ZERO);
        loop {
            let timeout = self.timeout_of(round).max(Duration::from_millis(1));
            let next = since.saturating_add(timeout);
            if elapsed < next {
                return Forecast { round, since, next };
            }
            // At the limit all rounds are equally long, so that those that have passed need no loop.
            let equal = round > 0 && self.timeout_of(round + 1) == self.timeout_of(round);
            let passed = if equal { (elapsed - since).as_nanos() / timeout.as_nanos() } else { 1 };
            let passed = u32::try_from(passed).unwrap_or(u32::MAX).max(1);
            since = since.saturating_add(timeout.saturating_mul(passed));
            round += u64::from(passed);
        }
    }
}

impl Consensus {
    /// A configuration without transitions.
    #[cfg(test)]
    pub(super) fn constant(timing: Timing) -> Self {
        Consensus { base: timing, transitions: Vec::new() }
    }

    /// Reads `admin_nodeInfo`. `None` if the node reports no settings of the consensus there.
    ///
    /// The settings stand in the first object that has both `blockPeriodSeconds` and `requestTimeoutSeconds`,
    /// `transitions` beside or above it: software and versions differ in the place.
    ///
    /// # Errors
    /// A malformed transition, with its place in the list: without it every later height would be misjudged.
    pub fn from_node_info(info: &Map<String, Value>) -> Result<Option<Consensus>, String> {
        let Some(protocols) = info.get("protocols").and_then(Value::as_object) else { return Ok(None) };
        // The consensus protocol first: another protocol's copy may lack sections.
        let places =
            || ["istanbul", "eth"].iter().filter_map(|name| protocols.get(*name)).chain(protocols.values());
        let Some(base) = places().find_map(find_base) else { return Ok(None) };
        let found = places()
            .filter_map(find_transitions)
            .find(|list| list.as_array().is_none_or(|list| !list.is_empty()));
        let list = match found {
            None => &[][..],
            Some(list) => list.as_array().ok_or("transitions is not a list")?,
        };
        let read =
            |(n, value)| Transition::read(value).ok_or_else(|| format!("transitions.{n} is malformed"));
        let mut transitions: Vec<Transition> = list.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        // Stable: of two at one height the later one in the list is applied last.
        sorted::by_key(&mut transitions, |transition| transition.block);
        Ok(Some(Consensus { base, transitions }))
    }

    /// The settings under which block `height` is proposed and sealed.
    #[must_use]
    pub fn at(&self, height: u64) -> Timing {
        let mut timing = self.base;
        for change in self.until(height) {
            timing.period = change.period.unwrap_or(timing.period);
            timing.round_timeout = change.round_timeout.unwrap_or(timing.round_timeout);
            timing.max_round_timeout = change.max_round_timeout.unwrap_or(timing.max_round_timeout);
            timing.epoch = change.epoch.or(timing.epoch);
            timing.policy = change.policy.unwrap_or(timing.policy);
        }
        timing
    }

    /// The greatest height at or below `height` with which an epoch should end; block 0 is one. `None` without a length.
    #[must_use]
    pub fn last_epoch_block(&self, height: u64) -> Option<u64> {
        let (anchor, length) = self.schedule(height)?;
        Some(height - (height - anchor) % length)
    }

    /// The least height above `height` with which an epoch should end. `None` without a length.
    #[must_use]
    pub fn next_epoch_block(&self, height: u64) -> Option<u64> {
        let (anchor, length) = self.schedule(height)?;
        let regular = height.checked_add(length - (height - anchor) % length)?;
        // A transition that sets the length ends an epoch at its own block.
        let sets = |t: &&Transition| t.block > height && t.epoch.is_some();
        Some(self.transitions.iter().find(sets).map_or(regular, |t| regular.min(t.block)))
    }

    /// The last height from `height` on at which the same policy is in force; `None`: no change is planned.
    #[must_use]
    pub fn policy_until(&self, height: u64) -> Option<u64> {
        let now = self.at(height).policy;
        let changed =
            self.transitions.iter().find(|t| t.block > height && t.policy.is_some_and(|p| p != now));
        changed.map(|t| t.block - 1)
    }

    /// The block from which the epochs in force at `height` are counted, and their length in blocks.
    fn schedule(&self, height: u64) -> Option<(u64, u64)> {
        let base = self.base.epoch.map(|length| (0, length));
        self.until(height).filter_map(|t| t.epoch.map(|length| (t.block, length))).last().or(base)
    }

    fn until(&self, height: u64) -> impl Iterator<Item = &Transition> {
        self.transitions.iter().take_while(move |t| t.block <= height)
    }
}

impl Transition {
    fn read(value: &Value) -> Option<Transition> {
        let block = value.get("block")?.as_u64()?;
        let seconds = |name| number(value, name).map(|n| n.map(Duration::from_secs));
        // In these fields 0 means unchanged; in the other ones it means the value 0.
        let positive = |n: Option<Duration>| n.filter(|n| !n.is_zero());
        Some(Transition {
            block,
            period: positive(seconds("blockPeriodSeconds")?),
            round_timeout: positive(seconds("requestTimeoutSeconds")?),
            max_round_timeout: seconds("maxRequestTimeoutSeconds")?.map(|limit| positive(Some(limit))),
            epoch: number(value, "epochLength")?.filter(|length| *length > 0),
            policy: number(value, "proposerPolicy")?.map(policy),
        })
    }
}

/// A setting that may be absent or null; `None` if it is no number or none that a setting can have.
#[expect(clippy::option_option, reason = "malformed, absent and present are three things")]
fn number(value: &Value, name: &str) -> Option<Option<u64>> {
    match value.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_u64().filter(|n| *n <= MAX).map(Some),
    }
}

/// Identifier 1 is sticky, and every other one is not.
fn policy(id: u64) -> Policy {
    if id == 1 { Policy::Sticky } else { Policy::RoundRobin }
}

/// The first object with the settings of the consensus; that of `anzeon` before those of later forks.
fn find_base(value: &Value) -> Option<Timing> {
    let object = value.as_object()?;
    let setting = |name: &str| number(value, name).flatten();
    let positive = |name: &str| setting(name).filter(|n| *n > 0);
    if let (Some(period), Some(timeout)) = (positive("blockPeriodSeconds"), positive("requestTimeoutSeconds"))
    {
        return Some(Timing {
            period: Duration::from_secs(period),
            round_timeout: Duration::from_secs(timeout),
            max_round_timeout: positive("maxRequestTimeoutSeconds").map(Duration::from_secs),
            epoch: positive("epochLength"),
            policy: setting("proposerPolicy").map(policy).unwrap_or_default(),
        });
    }
    object.get("anzeon").into_iter().chain(object.values()).find_map(find_base)
}

/// The first list of transitions.
fn find_transitions(value: &Value) -> Option<&Value> {
    let object = value.as_object()?;
    let own = object.get("transitions").filter(|list| !list.is_null());
    own.or_else(|| object.values().find_map(find_transitions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn read(info: &Value) -> Result<Option<Consensus>, String> {
        Consensus::from_node_info(info.as_object().unwrap())
    }

    /// The configuration as v1.1.0 reports it.
    fn chain(transitions: &Value) -> Consensus {
        let wbft = json!({
            "requestTimeoutSeconds": 3, "blockPeriodSeconds": 1, "epochLength": 12, "proposerPolicy": 0,
            "maxRequestTimeoutSeconds": null,
        });
        let config = json!({ "chainId": 7, "anzeon": { "wbft": wbft }, "transitions": transitions });
        let info = json!({ "protocols": { "eth": { "config": { "chainId": 7 } }, "istanbul": { "config": config } } });
        read(&info).unwrap().unwrap()
    }

    #[test]
    fn each_height_has_the_settings_of_the_transitions_up_to_it() {
        let chain = chain(&json!([
            { "block": 90, "requestTimeoutSeconds": 5, "maxRequestTimeoutSeconds": 0 },
            { "block": 30, "epochLength": 9, "proposerPolicy": 1, "blockPeriodSeconds": 0 },
            { "block": 60, "blockPeriodSeconds": 4, "maxRequestTimeoutSeconds": 20, "proposerPolicy": 0 },
        ]));
        let at = |height| {
            let t = chain.at(height);
            let limit = t.max_round_timeout.map(|limit| limit.as_secs());
            (t.period.as_secs(), t.round_timeout.as_secs(), limit, t.epoch.unwrap(), t.policy)
        };
        assert_eq!(at(0), (1, 3, None, 12, Policy::RoundRobin));
        assert_eq!(at(29), at(0));
        assert_eq!(at(30), (1, 3, None, 9, Policy::Sticky));
        assert_eq!(at(60), (4, 3, Some(20), 9, Policy::RoundRobin));
        assert_eq!(at(u64::MAX), (4, 5, None, 9, Policy::RoundRobin));
        assert_eq!(
            (chain.policy_until(0), chain.policy_until(30), chain.policy_until(60)),
            (Some(29), Some(59), None)
        );
    }

    #[test]
    fn epochs_are_counted_anew_from_each_transition_that_sets_their_length() {
        let chain = chain(&json!([
            { "block": 30, "epochLength": 9 }, { "block": 41, "blockPeriodSeconds": 2 }, { "block": 50, "epochLength": 9 },
        ]));
        let ends: Vec<u64> = (0..80).filter(|n| chain.last_epoch_block(*n) == Some(*n)).collect();
        assert_eq!(ends, [0, 12, 24, 30, 39, 48, 50, 59, 68, 77]);
        for height in 0..77 {
            let next = ends.iter().find(|end| **end > height).copied();
            assert_eq!(chain.next_epoch_block(height), next, "{height}");
        }
        assert_eq!(chain.next_epoch_block(u64::MAX), None);
    }

    #[test]
    fn both_shapes_are_read_and_damage_is_an_error() {
        let wbft = json!({ "requestTimeoutSeconds": 2, "blockPeriodSeconds": 1 });
        // The settings in one protocol, or of a fork that has a name of its own.
        let old =
            json!({ "protocols": { "eth": { "config": { "croissant": { "wbft": wbft } } }, "snap": "x" } });
        let timing = read(&old).unwrap().unwrap().at(9);
        assert_eq!((timing.period, timing.epoch, timing.policy), (secs(1), None, Policy::RoundRobin));
        assert_eq!(read(&json!({ "protocols": { "eth": {} } })), Ok(None));
        assert_eq!(read(&json!({})), Ok(None));
        for bad in
            [json!(5), json!([{}]), json!([{ "block": -1 }]), json!([{ "block": 1, "epochLength": "5" }])]
        {
            let info =
                json!({ "protocols": { "istanbul": { "config": { "wbft": wbft, "transitions": bad } } } });
            assert!(read(&info).is_err(), "{bad}");
        }
        // A transition has the same fields as the base values, and is none of them.
        let list = json!([{ "block": 5, "requestTimeoutSeconds": 9, "blockPeriodSeconds": 9 }]);
        let info = json!({ "protocols": { "eth": { "config": { "transitions": list } }, "istanbul": { "wbft": wbft } } });
        let chain = read(&info).unwrap().unwrap();
        assert_eq!((chain.at(4).period, chain.at(5).period), (secs(1), secs(9)));
        let constant = Consensus::constant(chain.at(5));
        assert_eq!((constant.at(0).period, constant.last_epoch_block(3)), (secs(9), None));
    }

    fn timing(timeout: u64, limit: Option<u64>) -> Timing {
        Timing {
            period: secs(1),
            round_timeout: secs(timeout),
            max_round_timeout: limit.map(secs),
            epoch: None,
            policy: Policy::RoundRobin,
        }
    }

    #[test]
    fn timeouts_double_up_to_the_limit_which_does_not_hold_for_round_0() {
        let timeouts = |t: Timing| (0..6).map(|round| t.timeout_of(round).as_secs()).collect::<Vec<_>>();
        assert_eq!(timeouts(timing(3, None)), [3, 6, 12, 24, 48, 96]);
        assert_eq!(timeouts(timing(3, Some(20))), [3, 6, 12, 20, 20, 20]);
        assert_eq!(timeouts(timing(50, Some(7))), [50, 7, 7, 7, 7, 7]);
        for round in [31, 32, 33, 34, 64, 1 << 40, u64::MAX] {
            assert_eq!(timing(3, Some(20)).timeout_of(round), secs(20), "{round}");
            let free = timing(3, None).timeout_of(round);
            assert_eq!(free == LONGEST, round > 31, "{round} {free:?}");
        }
    }

    #[test]
    fn a_forecast_is_the_round_between_two_starts() {
        let starts = |timing: Timing, rounds: u64| {
            let add = |start: &mut Duration, round| {
                Some(std::mem::replace(start, start.saturating_add(timing.timeout_of(round))))
            };
            (0..rounds).scan(Duration::ZERO, add).collect::<Vec<_>>()
        };
        assert_eq!(starts(timing(2, None), 6), [0, 2, 6, 14, 30, 62].map(secs));
        for timing in [timing(2, None), timing(3, Some(20)), timing(50, Some(7)), timing(1, Some(1))] {
            let starts = starts(timing, 400);
            for elapsed in (0..1400).map(|n| Duration::from_millis(n * 250)) {
                let round = starts.iter().rposition(|start| *start <= elapsed).unwrap();
                let expected =
                    Forecast { round: round as u64, since: starts[round], next: starts[round + 1] };
                assert_eq!(timing.forecast(elapsed), expected, "{timing:?} {elapsed:?}");
            }
        }
        // A head from another age and a clock that makes no sense end as well.
        assert!(timing(1, Some(1)).forecast(secs(1 << 40)).round > 1 << 30);
        assert!(timing(2, None).forecast(Duration::MAX).next > LONGEST);
        assert_eq!(timing(0, Some(0)).forecast(Duration::ZERO).round, 0);
    }
}
