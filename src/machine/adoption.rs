//! A node that outlived the supervisor that launched it: it is taken over as it is, and nothing counts against it.

use super::chain_check::ChainCheck;
use super::event::{Action, Alive, Level};
use super::receipt::Notes;
use super::record::{NodeMark, Phase, Target};
use super::recovery::Recovery;
use super::state::{Node, State, Why};
use super::{Machine, Upgrade};
use std::time::Instant;

impl Machine {
    /// Whether a process is the node that runs by the record.
    pub(super) fn is_ours(&self, alive: &Alive, recovery: &Recovery) -> bool {
        let expected = match recovery {
            Recovery::Start | Recovery::Forget | Recovery::Try => true,
            // The stop of a node at its fork may not be finished.
            Recovery::Backup => self.record.upgrade.as_ref().is_some_and(|p| p.phase == Phase::Stopping),
            Recovery::Hook | Recovery::Switch | Recovery::Revert | Recovery::Halt(_) => false,
        };
        expected && self.record.node == NodeMark::Running && alive.sha256 == self.version().sha256
    }

    /// Takes a node over: a stop that was asked for goes on, and so does the time of its probation.
    pub(super) fn adopt(&mut self, now: Instant, alive: &Alive) {
        let mode = self.recorded_mode();
        let since = now.checked_sub(alive.age).unwrap_or(now);
        let text = format!("pid={} version={} age={:.0?}", alive.pid, self.version().target, alive.age);
        self.note(Level::Info, "adopted", text);
        self.actions.push(Action::Adopt);
        let mut node = Node::new(alive.pid, mode, since, ChainCheck::of(&self.record));
        // The head record at its start is not known any more; the present one is higher and counts instead.
        node.network.returning.goal = self.heads.block().cloned();
        match self.record.upgrade.as_ref().map(|attempt| (attempt.phase, attempt.asked)) {
            Some((Phase::Stopping, true)) => return self.state = State::stopping(now, node, Why::Upgrade),
            // The moment for which the stop was decided has passed.
            Some((Phase::Stopping, false)) => self.forget_the_stop(),
            Some(_) if self.is_first_to_sign(mode) => self.switched = Some(since),
            Some(_) | None => {}
        }
        self.state = State::Running(node);
    }

    /// Since the last record a node was launched that is on none, because the journal could not be written. It was the
    /// binary that `current` leads to.
    pub(super) fn catch_up(&mut self, launch: u64, link: &Target) {
        let missed = u32::try_from(launch.saturating_sub(self.record.launch)).unwrap_or(u32::MAX);
        let before = self.record.node.with_nothing_running();
        (self.record.node, self.record.before, self.record.launch) = (NodeMark::Running, before, launch);
        self.record.gave_up = None;
        self.record.silent |= self.policy.validator && self.policy.silent_after_unclean;
        self.behind = true;
        let Some(attempt) = &mut self.record.upgrade else { return };
        if *link != attempt.from.target {
            attempt.attempt = attempt.attempt.saturating_add(missed);
            attempt.forgiven = attempt.forgiven.saturating_add(missed.saturating_sub(1));
        } else if attempt.phase == Phase::Reverting && !attempt.put_off {
            let reason = attempt.reason.clone().unwrap_or_default();
            let outcome = attempt.outcome_of_the_way_back();
            self.record.end(outcome, reason);
        } else {
            self.forget_the_stop();
        }
    }

    /// A stop that was not finished is decided anew; an order of the operator stays one.
    pub(super) fn forget_the_stop(&mut self) {
        self.notes = Notes::default();
        let Some(attempt) = self.record.upgrade.take().filter(|attempt| attempt.forced) else { return };
        let planned = self.planned(&attempt.name).cloned();
        let origin = super::Origin::Schedule;
        self.forced = Some(planned.unwrap_or_else(|| Upgrade::new(attempt.name, attempt.height, origin)));
    }
}
