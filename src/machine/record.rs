//! The memory that survives a crash: the journal's record, as plain data.
//!
//! The record is the intent; completion is derived from the disk. `upgrade::journal`
//! writes and reads it; [`super::recovery`] decides the first step after a crash.

use super::order::Validator;
use super::upgrade::{Origin, Upgrade, is_at_fork};
use crate::digest::Digest;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How many characters are kept of why an upgrade ended: the journal is not a log.
const DETAIL: usize = 500;

/// How many of the last upgrades are remembered with their versions: older ones are no way back.
pub(super) const SWITCHES: usize = 16;

/// A directory that `current` may point at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// `genesis`: the binary given to `init`.
    Genesis,
    /// `upgrades/<name>`.
    Upgrade(Name),
}

/// A target together with the digest of its binary.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The directory.
    pub target: Target,
    /// The SHA-256 of the binary in it.
    pub sha256: Digest,
}

/// The last known state of the node process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeMark {
    /// It has never run under this journal.
    #[default]
    Never,
    /// It was started; if nothing runs now, its end was not seen.
    Running,
    /// It ended after one SIGTERM, by itself, with its data closed.
    StoppedClean,
    /// It was killed or crashed: its head may have gone back.
    StoppedUnclean,
}

impl NodeMark {
    /// The same where no node runs: an end that was not seen counts as unclean.
    pub(super) fn with_nothing_running(self) -> NodeMark {
        if self == NodeMark::Running { NodeMark::StoppedUnclean } else { self }
    }
}

/// A block as remembered: height and hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Block {
    /// The height.
    pub height: u64,
    /// The hash as `0x…`, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// A chain, by its id and its first block.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chain {
    /// The chain id (EIP-155).
    pub id: u64,
    /// The hash of block 0 as `0x…`.
    pub genesis: String,
}

/// How far an upgrade has come since its stop began. Each is durable before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// SIGTERM is about to be, or has been, sent to the old node.
    Stopping,
    /// The old node is reaped and its locks are free.
    Stopped,
    /// The backup is complete, or none is wanted.
    BackedUp,
    /// The hook has succeeded. With the link at the old binary: the switch is due. With the link at
    /// the new one: it is about to run, runs and proves itself, or has failed `attempt` times.
    Trying,
    /// The link is being pointed back at the old binary.
    Reverting,
}

/// An upgrade under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The upgrade.
    pub name: Name,
    /// Its height.
    pub height: u64,
    /// Its fork height, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_height: Option<u64>,
    /// Whether the old binary can open data that the new one has written.
    pub data_compat: bool,
    /// How far it has come.
    pub phase: Phase,
    /// How many times the new binary has been, or is about to be, executed.
    pub attempt: u32,
    /// How many of these executions do not count against it: the operator or the machine ended them.
    #[serde(default)]
    pub forgiven: u32,
    /// Whether the new binary has been tried without peers and has opened the data.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether the new binary of a node that is no validator has ended before it answered: it is tried for a short while
    /// first then, so that its last words are kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_early: bool,
    /// The first launch of the new binary with its engine on; 0 where there was none.
    #[serde(default)]
    pub sealing: u64,
    /// Whether SIGTERM was sent to the old node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
    /// Whether the operator has ordered it for now, at any height.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Whether a block carries a seal or a proposal of the new binary.
    #[serde(default)]
    pub signed: bool,
    /// The version that ran before.
    pub from: Version,
    /// The version to switch to.
    pub to: Version,
    /// The version number that the new binary reports itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<String>,
    /// Whether there is a pre-upgrade hook to run.
    #[serde(default)]
    pub hook: bool,
    /// The planner's free text, for hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<String>,
    /// The own address of the old node, where it was among the validators at the stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Validator>,
    /// The head when the stop was decided.
    pub stopped_at: Option<Block>,
    /// The block by which the chain is known again: that head, or the last one before the fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Block>,
    /// Whether the old node ended uncleanly: then there is no backup and no way back.
    pub unclean: bool,
    /// The directory of the backup made for this upgrade, below the backup directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Why the way back was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was taken for a fault that passes: the upgrade comes due again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put_off: bool,
}

/// How an upgrade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new binary has proved itself.
    Applied,
    /// It failed before the new binary opened the data; the old one runs.
    Failed,
    /// The new binary ran, did not prove itself, and the old one runs again.
    RolledBack,
    /// The pre-upgrade hook asked for the old binary to stay.
    Aborted,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Outcome; 4] = [Outcome::Applied, Outcome::Failed, Outcome::RolledBack, Outcome::Aborted];
}

/// An upgrade that has ended, for better or worse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ended {
    /// The upgrade.
    pub name: Name,
    /// The height it was planned for.
    pub height: u64,
    /// Its fork height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_height: Option<u64>,
    /// Whether the chain has shown since that the old binary cannot follow it beyond the fork.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cannot_follow: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words.
    pub detail: String,
    /// The versions that it was about, where it was one of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
}

impl Ended {
    /// The upgrade as it was planned, as far as that is on record.
    pub(super) fn as_planned(&self) -> Upgrade {
        Upgrade {
            fork_height: self.fork_height,
            data_compat: self.switch.as_ref().is_none_or(|switch| switch.data_compat),
            ..Upgrade::new(self.name.clone(), self.height, Origin::Schedule)
        }
    }
}

/// The versions before and after an upgrade, and what a way back needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Switch {
    /// The version that ran before.
    pub from: Version,
    /// The version to switch to.
    pub to: Version,
    /// Whether the old binary can open data that the new one has written.
    pub data_compat: bool,
    /// The directory of the backup made for this upgrade, below the backup directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
}

/// The operator's order to go back to an earlier version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Back {
    /// The version to go back to.
    pub to: Version,
    /// The backup to put in place of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Whether the operator overrules objections, so that neither a fork nor a gate holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Everything that survives a crash of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The target of `current` when no upgrade is under way.
    pub current: Version,
    /// The last known state of the node process.
    pub node: NodeMark,
    /// How the one before had ended.
    #[serde(default)]
    pub before: NodeMark,
    /// The number of the last launch. The process writes it into its lock before it executes the node.
    #[serde(default)]
    pub launch: u64,
    /// The chain of this home, from the first contact on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// The upgrade under way, from the moment its stop begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Attempt>,
    /// Upgrades that have ended, oldest first, one entry per name.
    #[serde(default)]
    pub ended: Vec<Ended>,
    /// Whether the node must not seal until it is past everything that was final before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Why the operator must decide before anything is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Why the supervisor gave up on a node that failed again and again, until the next one starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
    /// The operator's order to go back, until the way back begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Back>,
}

impl Record {
    /// The record of a new home whose `current` is `current`.
    #[must_use]
    pub fn new(current: Version) -> Self {
        Record {
            current,
            node: NodeMark::Never,
            before: NodeMark::Never,
            launch: 0,
            chain: None,
            upgrade: None,
            ended: Vec::new(),
            halted: None,
            gave_up: None,
            silent: false,
            back: None,
        }
    }

    /// Takes the upgrade out of the way and remembers how it ended.
    pub fn end(&mut self, outcome: Outcome, detail: String) {
        if let Some(p) = self.upgrade.take() {
            self.ended.retain(|e| e.name != p.name);
            let detail = detail.chars().take(DETAIL).collect();
            let Attempt { name, height, fork_height, from, to, data_compat, backup, .. } = p;
            let switch = Some(Switch { from, to, data_compat, backup });
            let ended = Ended { name, height, fork_height, cannot_follow: false, outcome, detail, switch };
            self.ended.push(ended);
            let old = self.ended.len().saturating_sub(SWITCHES);
            self.ended[..old].iter_mut().for_each(|ended| ended.switch = None);
        }
    }

    /// The backup that leads back from the last upgrade that was applied, if there is one.
    #[must_use]
    pub fn leads_back(&self) -> Option<String> {
        self.ended.iter().rfind(|ended| ended.outcome == Outcome::Applied)?.switch.as_ref()?.backup.clone()
    }

    /// Why nothing goes on without the operator, and with what it would.
    #[must_use]
    pub fn why_halted(&self) -> Option<String> {
        let undecided = self.halted.as_ref().map(|why| format!("{why}; decide with `wemixvisor resolve`"));
        undecided.or(self.gave_up.as_ref().map(|why| format!("{why}; `wemixvisor run` starts it again")))
    }

    /// How the upgrade `name` ended, if it has.
    #[must_use]
    pub fn ended(&self, name: &Name) -> Option<&Ended> {
        self.ended.iter().find(|e| e.name == *name)
    }
}

impl Attempt {
    /// A planned upgrade that begins.
    pub fn new(upgrade: &Upgrade, from: Version, to: Version, phase: Phase) -> Attempt {
        Attempt {
            name: upgrade.name.clone(),
            height: upgrade.height,
            fork_height: upgrade.fork_height,
            data_compat: upgrade.data_compat,
            info: upgrade.info.clone(),
            phase,
            attempt: 0,
            forgiven: 0,
            dry_run: false,
            ended_early: false,
            sealing: 0,
            own: None,
            asked: false,
            forced: false,
            signed: false,
            from,
            to,
            promised: None,
            hook: false,
            stopped_at: None,
            witness: None,
            unclean: false,
            backup: None,
            reason: None,
            put_off: false,
        }
    }

    /// An upgrade from genesis to v2 at block 100 that has just begun.
    #[cfg(test)]
    pub(crate) fn example() -> Attempt {
        let origin = super::upgrade::Origin::Schedule;
        let upgrade = Upgrade::new("v2".parse().unwrap(), 100, origin);
        let version = |target| Version { target, sha256: Digest::sha256(b"") };
        let to = version(Target::Upgrade(upgrade.name.clone()));
        Attempt::new(&upgrade, version(Target::Genesis), to, Phase::Stopping)
    }

    /// Whether the chain was at the fork already when the stop was decided, so that the old binary,
    /// which cannot follow it, must not be started again. One frozen at `fork - 1` is at the fork.
    #[must_use]
    pub fn past_fork(&self) -> bool {
        let stopped_at = self.stopped_at.as_ref().map(|b| b.height);
        stopped_at.zip(self.fork_height).is_some_and(|(head, fork)| is_at_fork(head, fork))
    }

    /// Begins anew with this binary, and with all attempts, also where the way back had begun.
    pub fn begin_with(&mut self, ready: Ready) {
        (self.to, self.promised) = (ready.version, ready.promised);
        self.dry_run = false;
        if self.phase == Phase::Reverting {
            (self.phase, self.reason) = (Phase::Trying, None);
        }
        self.begin_anew();
    }

    /// Begins anew, with all attempts. An upgrade on its way back goes on with that, over its backup where the new binary
    /// has run.
    pub fn begin_anew(&mut self) {
        if self.phase == Phase::Reverting {
            return;
        }
        (self.attempt, self.forgiven, self.put_off, self.ended_early) = (0, 0, false, false);
    }

    /// How the upgrade ends when the old binary is back.
    #[must_use]
    pub fn outcome_of_the_way_back(&self) -> Outcome {
        if self.attempt == 0 { Outcome::Failed } else { Outcome::RolledBack }
    }

    /// Whether the way back leads over the backup: the new binary has run, and the old one cannot open its data.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.phase == Phase::Reverting && self.attempt > 0 && !self.data_compat && self.backup.is_some()
    }
}

impl Target {
    /// Whether this is the directory of the upgrade `name`.
    #[must_use]
    pub fn is(&self, name: &Name) -> bool {
        matches!(self, Target::Upgrade(own) if own == name)
    }
}

/// As in JSON.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// As in JSON.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("upgrades/") {
            None if text == "genesis" => Ok(Target::Genesis),
            Some(name) => name.parse().map(Target::Upgrade).map_err(|e| format!("{e}")),
            None => Err(format!("{text:?} is neither `genesis` nor `upgrades/<name>`")),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Genesis => f.write_str("genesis"),
            Target::Upgrade(name) => write!(f, "upgrades/{name}"),
        }
    }
}

/// The highest head known for sure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The block.
    pub block: Block,
    /// Its own time in seconds since the epoch, where it was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// The digest of the binary that has followed the chain up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Digest>,
    /// The distances to our next own proposal at this head and at the one before, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Whether a node that signs may have gone on beyond it unheard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheard: bool,
    /// Blocks before it that counted, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Block>,
}

/// Blocks that the chain may have gained before the head record was written.
const UNSEEN: u64 = 2;

impl HeadRecord {
    /// A record of a block of which nothing more is known.
    #[must_use]
    pub fn new(block: Block) -> HeadRecord {
        HeadRecord { block, timestamp: None, binary: None, turns: None, unheard: false, recent: Vec::new() }
    }

    /// The highest block that the chain can have at a time since the epoch, where nothing has watched it since this record.
    /// None where the record has no time.
    #[must_use]
    pub fn highest_possible(&self, now: Duration, period: Duration) -> Option<u64> {
        let age = now.saturating_sub(Duration::from_secs(self.timestamp?));
        let blocks = u64::try_from(age.as_millis() / period.as_millis().max(1)).unwrap_or(u64::MAX);
        Some(self.block.height.saturating_add(blocks).saturating_add(UNSEEN))
    }
}

/// How far our next own proposals are from a head and from the block before it; None for a validator that proposes
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turns {
    /// From the head on.
    pub at_head: Option<u64>,
    /// From the block before the head on.
    pub before: Option<u64>,
    /// The number of validators.
    pub validators: usize,
}

/// A binary that is staged, verified and smoke-tested.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ready {
    /// The version to switch to.
    pub version: Version,
    /// The version number that the binary itself reports, if it does: the node that runs must call itself by it.
    pub promised: Option<String>,
    /// Whether there is a pre-upgrade hook to run.
    pub hook: bool,
    /// The result of this binary's rehearsal.
    pub rehearsal: Rehearsal,
    /// Whether the operator lets the upgrade happen although the rehearsal has failed.
    pub accepted: bool,
    /// Whether the operator has staged it although it is what runs.
    pub insisted: bool,
}

impl Ready {
    /// A binary of which nothing more is known.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Ready {
            version,
            promised: None,
            hook: false,
            rehearsal: Rehearsal::None,
            accepted: false,
            insisted: false,
        }
    }
}

/// The result of a binary's rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Rehearsal {
    /// There was none.
    #[default]
    None,
    /// It found nothing that speaks against the binary.
    Passed,
    /// It found this fault.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwatched_chain_may_have_grown_since_its_head_record() {
        let block = Block { height: 100, hash: None };
        let record = HeadRecord { timestamp: Some(1_000), ..HeadRecord::new(block) };
        let at = |seconds| record.highest_possible(Duration::from_secs(seconds), Duration::from_secs(3));
        // The clock may have been set back since.
        assert_eq!((at(1_031), at(1_000), at(0)), (Some(112), Some(102), Some(102)));
        assert_eq!(record.highest_possible(Duration::from_secs(1_031), Duration::ZERO), Some(31_102));
        let undated = HeadRecord { timestamp: None, ..record.clone() };
        assert_eq!(undated.highest_possible(Duration::ZERO, Duration::from_secs(1)), None);
    }
}
