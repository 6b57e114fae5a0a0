//! Which upgrade is due.

use super::event::Level;
use super::record::{Attempt, Ready};
use super::state::{Next, Node, Preparation};
use super::upgrade::is_at_fork;
use super::{Machine, Origin, Upgrade};
use std::time::Instant;

impl Machine {
    /// Whether to switch now: an upgrade is due, its binary is ready, and nothing holds it back.
    pub(super) fn consider(&mut self, now: Instant, node: &mut Node) -> Next {
        self.report_missed(node);
        let Some((upgrade, ready)) = self.due() else {
            node.network.holds = None;
            return Next::Stay;
        };
        // A node that has not answered yet may not have set its signal handlers: SIGTERM would kill it.
        let is_starting = self.policy.watch_height && self.forced.is_none() && node.first_head.is_none();
        if is_starting || self.is_held_for_backup(node, &upgrade) || !self.may_stop(now, node, &upgrade) {
            return Next::Stay;
        }
        Next::Inspect(Box::new(upgrade), ready)
    }

    /// Logs, once for each, that the height of an upgrade is there and its binary is not ready.
    fn report_missed(&mut self, node: &mut Node) {
        let Some(head) = self.heads.height().filter(|_| self.policy.watch_height) else { return };
        let obstacle = |u: &Upgrade| match self.prepared.get(&u.name)? {
            _ if u.on_hold => None,
            Preparation::Failed { detail, .. } => Some(detail.clone()),
            Preparation::Ready(ready) => self.unfit(u, ready),
            Preparation::Working { .. } => None,
        };
        let missed = self.open_up_to(head).filter(|u| !node.missed.contains(&u.name));
        let missed: Vec<_> = missed.filter_map(|u| Some((u.name.clone(), u.height, obstacle(u)?))).collect();
        for (name, height, why) in missed {
            if !self.is_put_off(&name) {
                let text = format!("name={name} height={height} head={head} the old binary goes on: {why}");
                self.note(Level::Error, "upgrade_overdue", text);
            }
            node.missed.push(name);
        }
    }

    /// The upgrade to switch to now, with its binary: what the operator wants now, otherwise the lowest upgrade whose height
    /// is reached and whose binary is ready. An upgrade that is not ready holds no other one up.
    ///
    /// The height is that of the head record, whether or not a node runs.
    pub(super) fn due(&self) -> Option<(Upgrade, Ready)> {
        let head = self.heads.height().filter(|_| self.policy.watch_height);
        let ready = |upgrade: &Upgrade| {
            let ready = self.ready(&upgrade.name).filter(|_| !upgrade.on_hold)?;
            self.unfit(upgrade, ready).is_none().then(|| (upgrade.clone(), ready.clone()))
        };
        let reached = || head.into_iter().flat_map(|head| self.open_up_to(head));
        // At a fork no binary is of use that lacks it, so the earlier ones are left out.
        let at_fork = reached().filter(|u| self.is_at_fork_of(u)).filter_map(ready).last();
        let forced = self.forced.as_ref().and_then(ready);
        forced.or(at_fork).or_else(|| reached().chain(self.triggered()).find_map(ready))
    }

    /// Whether the next block is at the fork of an upgrade, or beyond.
    fn is_at_fork_of(&self, upgrade: &Upgrade) -> bool {
        let head = self.heads.height().unwrap_or(0);
        upgrade.fork_height.is_some_and(|fork| is_at_fork(head, fork))
    }

    /// The later upgrade that the chain needs now while the one in the record proves itself: at its fork, or where that one
    /// is frozen.
    pub(super) fn overtaken(&self, now: Instant, node: &Node, attempt: &Attempt) -> Option<Upgrade> {
        let (later, _) = self.due()?;
        let is_needed = self.is_at_fork_of(&later) || self.is_frozen(now, node);
        (later.height > attempt.height && is_needed).then_some(later)
    }

    /// The same with no node running, unless an upgrade is under way already.
    pub(super) fn due_while_down(&self) -> Option<(Upgrade, Ready)> {
        if self.record.upgrade.is_none() { self.due() } else { None }
    }

    /// For a node that stops by itself: the upgrade that it has named in the trigger file. What others plan
    /// before that one waits for a height, which is not known.
    pub(super) fn triggered(&self) -> Option<&Upgrade> {
        if self.policy.watch_height {
            return None;
        }
        self.open().find(|upgrade| upgrade.origin == Origin::TriggerFile)
    }
}
