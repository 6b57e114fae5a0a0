//! Whether anything needs the operator, for `status` and its exit code, the metrics and the service manager.
//!
//! A need never decides anything. A node is healthy where there is none.

use super::quorum::quorum;
use super::state::{Node, Rested, State, Wish};
use super::view::{NetworkView, SymptomView, View, millis};
use super::{Activity, BinaryState, Machine, StopTimeout};
use std::time::{Duration, Instant};

/// A node that has reported no head for so long since its start needs the operator.
const HEADLESS: Duration = Duration::from_secs(60);

impl Machine {
    /// Whether the node is in service as far as its rules let it be: it reports heads, or runs without signing until that is
    /// safe, or is not watched by heads at all.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let silent = self.record.silent || !self.policy.watch_height;
        self.node().is_some_and(|node| silent || node.head.is_some())
    }

    /// Whether the supervisor is to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.wish == Wish::Stop || self.state == State::Ended
    }

    /// Whether the node is on its way down, or down for a while, as it is by order or for an upgrade.
    #[must_use]
    pub fn takes_its_time(&self) -> bool {
        match &self.state {
            State::Leaving { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Recording { .. }
            | State::Working { .. }
            | State::Linking { .. }
            | State::Spawning { .. } => true,
            State::Born
            | State::Running(_)
            | State::Inspecting { .. }
            | State::Resting { .. }
            | State::Ended => false,
        }
    }

    /// Everything that needs the operator, the worst first. `view` has all but this.
    pub(super) fn needs(&self, view: &View) -> Vec<SymptomView> {
        let mut needs = Vec::new();
        let mut need = |name: &str, text: String| needs.push(SymptomView { name: name.to_owned(), text });
        if let Some(why) = &view.halted {
            need("halted", why.clone());
        }
        if let Some(why) = &view.held {
            need("start_held", why.clone());
        }
        let rests = matches!(&self.state, State::Resting { then, .. } if *then != Rested::Held && *then != Rested::Gap);
        // Without a trouble it rests as it is configured to, before its start.
        match view.trouble.as_ref().filter(|_| rests) {
            Some(why) => need("node_down", format!("the node is down: {why}")),
            None => match view.failures {
                0 => {}
                1 => need("node_fails", "the node has failed once".to_owned()),
                times => need("node_fails", format!("the node has failed {times} times in a row")),
            },
        }
        if let Some((node, now)) = self.node().zip(self.now) {
            let lived = now.saturating_duration_since(node.since);
            if self.policy.watch_height && node.head.is_none() && lived >= HEADLESS {
                need("no_head", format!("the node has reported no head for {lived:.0?}, since its start"));
            }
            if let Some(why) = view.silent.as_ref().filter(|_| node.network.returning.overdue) {
                need("not_signing", format!("the node does not sign: {why}"));
            }
        }
        for plan in &view.planned {
            if plan.overdue {
                need(
                    "deadline_passed",
                    format!("upgrade {} has missed its deadline: {}", plan.name, plan.why),
                );
            } else if let Some(why) = self.failed_rehearsal(&plan.name).filter(|_| !plan.on_hold) {
                let name = &plan.name;
                need(
                    "rehearsal_failed",
                    format!(
                        "upgrade {name} is held, its rehearsal has failed: {why}; stage another binary, or let it happen \
                         with `wemixvisor rehearse {name} --force`"
                    ),
                );
            } else if let Some(why) = plan.hold.as_ref().filter(|_| plan.binary == BinaryState::Failed) {
                need("upgrade_not_ready", format!("the binary of {} is not ready: {why}", plan.name));
            } else if let Some(lack) = plan.backup_lack() {
                need("no_backup", format!("upgrade {}: {lack}", plan.name));
            }
        }
        needs.extend(view.symptoms.iter().cloned());
        needs
    }

    /// The network around the node.
    pub(super) fn network_view(&self) -> Option<NetworkView> {
        let survey = self.node()?.network.survey.as_ref()?;
        let set = &survey.sample.set;
        let live = set.iter().filter(|seat| seat.sealing).count();
        let needed = if set.is_empty() { 0 } else { quorum(set.len()) };
        let others = |connected: &Vec<_>| connected.iter().filter(|who| Some(**who) != survey.me).count();
        Some(NetworkView {
            peers: survey.peers,
            connected: survey.connected.as_ref().map(others),
            validators: set.len(),
            live,
            quorum: needed,
            spare: live.saturating_sub(needed),
        })
    }

    /// The rest of the present step, in words.
    pub(super) fn remaining(&self) -> Option<String> {
        let now = self.now?;
        match &self.state {
            State::Stopping { since, .. } => {
                let left = (*since + self.policy.shutdown_grace).saturating_duration_since(now);
                let then = match self.policy.stop_timeout {
                    StopTimeout::Wait => "it is warned of",
                    StopTimeout::Abort => "the upgrade is given up",
                    StopTimeout::Kill => "it is killed",
                };
                Some(format!("{} s until {then}", left.as_secs()))
            }
            State::Running(node) if self.record.upgrade.is_some() => Some(self.probation_left(now, node)),
            State::Resting { until, .. } => {
                let left = until.saturating_duration_since(now);
                Some(format!("next try in {} s", left.as_millis().div_ceil(1000)))
            }
            _ => None,
        }
    }

    fn probation_left(&self, now: Instant, node: &Node) -> String {
        let lived = now.saturating_duration_since(node.since);
        let time = self.policy.probation_time.saturating_sub(lived).as_secs();
        let top = self.heads.height().unwrap_or(0);
        let blocks = top.saturating_sub(node.followed_from.unwrap_or(top));
        let blocks = self.policy.probation_blocks.saturating_sub(blocks);
        format!("{blocks} blocks and {time} s to prove itself")
    }
}

impl View {
    /// Where the node is, in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{}, {}", self.state, self.version.target);
        if let Some(head) = &self.head {
            line += &format!(", head {}", head.height);
        }
        if let Some(left) = &self.remaining {
            line += &format!(", {left}");
        }
        if let Some(need) = self.needs.first() {
            return format!("NEEDS YOU: {}; {line}", need.text);
        }
        if let Some(next) = self.planned.first().filter(|_| self.state == Activity::Running) {
            line += &format!("; next {} at {}", next.name, next.height);
            line += &next.blocks_left.map(|left| format!(", in {left} blocks")).unwrap_or_default();
        }
        line
    }
}

/// The age of a head, in milliseconds.
pub(super) fn head_age(now: Instant, node: &Node) -> Option<u64> {
    node.still_since.map(|since| millis(now.saturating_duration_since(since)))
}
