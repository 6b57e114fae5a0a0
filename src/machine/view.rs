//! What people may see of the machine: a snapshot for `status`, the metrics and the log.

use super::record::{Attempt, Block, Ended, Version};
use super::state::{AfterRecord, Preparation, Rested, State, Why};
use super::validator::SIGN;
use super::{Machine, Upgrade};
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A snapshot of everything worth knowing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// One word for where the supervisor is.
    pub state: String,
    /// What runs, or would.
    pub version: Version,
    /// The node process.
    pub node: Option<NodeView>,
    /// The head last told, of this or the last node.
    pub head: Option<Block>,
    /// The block period in milliseconds, measured.
    pub period_ms: u64,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong last, while no node runs.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The upgrade under way.
    pub upgrade: Option<Attempt>,
    /// Whether the node does not seal for now, and what that waits for.
    pub silent: Option<String>,
    /// Why the operator has to decide before anything is started again.
    pub halted: Option<String>,
    /// What is planned, in order.
    pub planned: Vec<Plan>,
    /// What has ended.
    pub ended: Vec<Ended>,
}

/// A snapshot of the node process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its process id.
    pub pid: u32,
    /// For how long it has run, in milliseconds, at the last event.
    pub age_ms: u64,
}

/// A snapshot of one planned upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: Name,
    /// Its height.
    pub height: u64,
    /// Its fork height.
    pub fork_height: Option<u64>,
    /// The height from which turn and calm no longer hold it back, where one was given.
    #[serde(default)]
    pub deadline_height: Option<u64>,
    /// Who planned it.
    pub origin: String,
    /// Blocks from the head to its height; 0 if it is due.
    pub blocks_left: Option<u64>,
    /// Time until then, in milliseconds, by the measured block period.
    pub left_ms: Option<u64>,
    /// Whether its binary can be switched to: `waiting`, `preparing`, `ready` or `failed`.
    pub binary: String,
    /// How far the download of its binary is, where there is one. The machine does not know; who shows
    /// the snapshot adds it.
    pub download: Option<Download>,
    /// Why it does not happen though it is due, or why its binary is not ready.
    pub hold: Option<String>,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// In percent, where the size is known.
    pub percent: Option<u8>,
    /// In words.
    pub line: String,
}

/// One line of `key=value`, for the log.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state={} version={}", self.state, self.version.target)?;
        if let Some(node) = &self.node {
            write!(f, " node_pid={} node_age={}s", node.pid, node.age_ms / 1000)?;
        }
        if let Some(head) = &self.head {
            write!(f, " head={} period={}ms", head.height, self.period_ms)?;
        }
        write!(f, " failures={}", self.failures)?;
        if let Some(upgrade) = &self.upgrade {
            write!(f, " upgrading={} phase={} attempt={}", upgrade.name, upgrade.phase, upgrade.attempt)?;
        }
        for plan in &self.planned {
            write!(f, " planned={}@{}:{}", plan.name, plan.height, plan.binary)?;
        }
        self.trouble.iter().try_for_each(|what| write!(f, " trouble={what:?}"))?;
        self.silent.iter().try_for_each(|why| write!(f, " silent={why:?}"))?;
        self.halted.iter().try_for_each(|why| write!(f, " halted={why:?}"))
    }
}

impl Machine {
    /// A snapshot.
    #[must_use]
    pub fn view(&self) -> View {
        let forced = self.forced.iter().filter(|f| !self.schedule.iter().any(|u| u.name == f.name));
        View {
            state: self.word().to_owned(),
            version: self.version().clone(),
            node: self.node().map(|node| NodeView {
                pid: node.pid,
                age_ms: self.now.map_or(0, |now| millis(now.saturating_duration_since(node.since))),
            }),
            head: self.head.as_ref().map(|h| h.block.clone()),
            period_ms: millis(self.period()),
            failures: self.restarts.failures(),
            trouble: self.trouble.clone(),
            upgrade: self.record.upgrade.clone(),
            silent: self.record.silent.then(|| self.silence()),
            halted: self.record.halted.clone(),
            planned: forced.chain(self.open()).map(|u| self.plan_view(u)).collect(),
            ended: self.record.ended.clone(),
        }
    }

    /// What a silent node waits for.
    fn silence(&self) -> String {
        let Some((node, now)) = self.node().zip(self.now) else { return "it is not running".to_owned() };
        let why = self.not_yet_sealing(now, node).unwrap_or_else(|| "it was asked to seal".to_owned());
        if node.council.overdue { format!("{why}; {SIGN}") } else { why }
    }

    fn plan_view(&self, upgrade: &Upgrade) -> Plan {
        let head = self.head.as_ref().map(|h| h.block.height);
        let blocks_left = head.map(|head| upgrade.height.saturating_sub(head));
        let hold =
            self.node().and_then(|node| node.council.holds.as_ref()).filter(|_| blocks_left == Some(0));
        let hold = hold.map(|(since, gates)| {
            let since = self.now.map_or(0, |now| now.saturating_duration_since(*since).as_secs());
            let gates: Vec<String> = gates.iter().map(|g| format!("{}: {g}", g.name())).collect();
            format!("{} (for {since} s)", gates.join("; "))
        });
        let (binary, trouble) = match self.prepared.get(&upgrade.name) {
            None => ("waiting", None),
            Some(Preparation::Working { .. }) => ("preparing", None),
            Some(Preparation::Ready(_)) => ("ready", None),
            Some(Preparation::Failed { detail, .. }) => ("failed", Some(detail.clone())),
        };
        Plan {
            name: upgrade.name.clone(),
            height: upgrade.height,
            fork_height: upgrade.fork_height,
            deadline_height: upgrade.deadline_height,
            origin: upgrade.origin.to_string(),
            blocks_left,
            left_ms: blocks_left.map(|n| n.saturating_mul(millis(self.period()))),
            binary: binary.to_owned(),
            download: None,
            hold: trouble.or(hold),
        }
    }

    /// One word for the state, as `status` shows it.
    fn word(&self) -> &'static str {
        match &self.state {
            State::Born => "stopped",
            State::Clearing { .. } => "waiting-for-locks",
            State::Spawning | State::Recording { then: AfterRecord::Spawn, .. } => "starting",
            State::Running(_) | State::Inspecting { .. } if self.record.upgrade.is_some() => "probation",
            State::Running(_) | State::Inspecting { .. } => "running",
            State::Stopping { why: Why::Upgrade, .. } => "stopping-for-upgrade",
            State::Stopping { .. } => "stopping",
            State::Working { .. } | State::Linking { .. } => "upgrading",
            State::Recording { .. } => "recording",
            State::Resting { then: Rested::Held, .. } => "held",
            State::Resting { .. } => "backing-off",
            State::Ended => "ended",
        }
    }
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
