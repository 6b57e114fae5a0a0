//! A node that outlived the supervisor that launched it: it is taken over as it is, and nothing counts against it.

use super::chain_check::ChainCheck;
use super::event::{Action, Alive, Level};
use super::record::{NodeMark, Phase};
use super::recovery::Recovery;
use super::state::{Node, State, Why};
use super::{Machine, Upgrade};
use std::time::Instant;

impl Machine {
    /// Whether a process is the node that the record says is running.
    pub(super) fn is_ours(&self, alive: &Alive, recovery: &Recovery) -> bool {
        let expected = match recovery {
            Recovery::Start | Recovery::Forget | Recovery::Try => true,
            // The stop of a node at its fork may not be finished.
            Recovery::Backup => self.is_stopping(),
            Recovery::Hook | Recovery::Switch | Recovery::Revert | Recovery::Halt(_) => false,
        };
        expected && self.record.node == NodeMark::Running && alive.sha256 == self.version().sha256
    }

    fn is_stopping(&self) -> bool {
        self.record.upgrade.as_ref().is_some_and(|attempt| attempt.phase == Phase::Stopping)
    }

    /// Takes a node over. What it has been asked by the supervisor before goes on, and its time goes on.
    pub(super) fn adopt(&mut self, now: Instant, alive: &Alive) {
        let mode = self.recorded_mode();
        let since = now.checked_sub(alive.age).unwrap_or(now);
        let text = format!("pid={} version={} age={:.0?}", alive.pid, self.version().target, alive.age);
        self.tell(Level::Info, "adopted", text, true);
        self.actions.push(Action::Adopt);
        let mut node = Node::new(alive.pid, mode, since, ChainCheck::of(&self.record));
        // What was final at its start is not known any more: what is final now counts.
        node.network.returning.goal = self.heads.block().cloned();
        let Some(attempt) = &self.record.upgrade else {
            self.state = State::Running(node);
            return;
        };
        match attempt.phase {
            Phase::Stopping if attempt.asked => {
                let why = Why::Upgrade;
                self.state = State::Stopping { why, since: now, node, killed: false, reminded: now };
            }
            Phase::Stopping => {
                // The moment for which the stop was decided has passed.
                self.forget_the_stop();
                self.state = State::Running(node);
            }
            Phase::Trying | Phase::Stopped | Phase::BackedUp | Phase::Reverting => {
                if self.is_first_to_sign(mode) {
                    self.switched = Some(since);
                }
                self.state = State::Running(node);
            }
        }
    }

    /// A stop that was not finished is decided anew; an order of the operator stays one.
    pub(super) fn forget_the_stop(&mut self) {
        let Some(attempt) = self.record.upgrade.take().filter(|attempt| attempt.forced) else { return };
        let planned = self.planned(&attempt.name).cloned();
        let origin = super::Origin::Schedule;
        self.forced = Some(planned.unwrap_or_else(|| Upgrade::new(attempt.name, attempt.height, origin)));
    }
}
