//! The way back that the operator has ordered while a supervisor runs.
//!
//! The order is durable before anything follows from it, so that it outlives the supervisor. A node that runs is stopped for
//! it as for an upgrade: a validator in its turn, by the same gates. Once none runs, the order becomes the way back of an
//! upgrade (`rollback::begin`), which `switch` takes to its end.

use super::Machine;
use super::event::{Action, Level, Mode, Notice};
use super::gates::list;
use super::record::{Back, Phase, Record};
use super::recording::TRIES;
use super::resolve::{Refused, refused};
use super::rollback::{Known, begin, way_back};
use super::state::{AfterRecord, Next, Node, State, Why, Wish};
use std::time::Instant;

const HAS_BEGUN: &str = "the way back has begun and cannot be cancelled";

/// Takes the order off the record, with nothing running.
///
/// # Errors
/// If there is none that has not begun.
pub(super) fn cancel(mut record: Record) -> Result<Record, Refused> {
    match record.back.take() {
        Some(_) => Ok(record),
        None => Err(not_ordered(&record)),
    }
}

fn not_ordered(record: &Record) -> Refused {
    match record.upgrade.as_ref().filter(|attempt| attempt.phase == Phase::Reverting) {
        Some(_) => refused(HAS_BEGUN, Some("`wemixvisor upgrade now NAME` goes on again when it has ended")),
        None => refused("no rollback is ordered", None),
    }
}

impl Machine {
    /// The operator wants to go back.
    pub(super) fn asked_to_go_back(&mut self, now: Instant, order: Back) -> Result<String, String> {
        if self.wish == Wish::Stop || matches!(self.state, State::Born | State::Ended) {
            return Err("the supervisor is stopping".to_owned());
        }
        let highest = self.highest_possible(now);
        self.judge_order(&order, highest)?;
        let to = order.to.target.clone();
        let how = match self.node() {
            Some(_) if self.is_gated(&order) => {
                " as soon as the network can spare this validator, in its turn"
            }
            Some(_) | None => "",
        };
        self.forced = None;
        self.back = Some(order);
        // Backups may be being removed, and one of them may be needed.
        self.end_work_aside();
        // It is made durable at once, beside the node.
        if let Some(node) = self.take_running() {
            let next = self.record_order(now, &node).unwrap_or(Next::Stay);
            self.follow(now, node, next);
        }
        Ok(format!("going back to {to}{how}"))
    }

    /// The operator does not want to go back any more.
    pub(super) fn asked_to_stay(&mut self, now: Instant) -> Result<String, String> {
        if self.back.is_none() {
            return Err(not_ordered(self.newest_record()).why);
        }
        let Some(node) = self.take_running() else { return Err(HAS_BEGUN.to_owned()) };
        let order = self.back.take();
        let next = self.record_order(now, &node).unwrap_or(Next::Stay);
        self.follow(now, node, next);
        let to = order.map(|order| order.to.target.to_string()).unwrap_or_default();
        self.note(Level::Warn, "rollback_cancelled", format!("to={to} by the operator"));
        Ok(format!("the node stays: the rollback to {to} is cancelled"))
    }

    /// The objection to an order, where the chain may be as high as this.
    fn judge_order(&self, order: &Back, highest: Option<u64>) -> Result<(), String> {
        let way = way_back(&self.record, &order.into(), &self.known(order, highest));
        way.map(drop).map_err(|refused| match refused.advice {
            Some(advice) => format!("{}; {advice}", refused.why),
            None => refused.why,
        })
    }

    fn known(&self, order: &Back, highest: Option<u64>) -> Known {
        let backups = order.backup.iter().cloned().collect();
        Known { highest, backups, validator: self.policy.validator }
    }

    /// The highest block that the chain can have by now, by the most careful reading of what is known.
    fn highest_possible(&self, now: Instant) -> Option<u64> {
        let counted = self.heads.height();
        let Some(node) = self.node().filter(|node| node.head.is_some()) else {
            return if self.record.upgrade.is_some() { self.traces(now).highest } else { counted };
        };
        let network = node.network.survey.as_ref().and_then(|survey| survey.network_head);
        counted.max(node.height()).max(network)
    }

    /// Makes the order durable, or that there is none any more. A try without peers ends for it.
    pub(super) fn record_order(&self, now: Instant, node: &Node) -> Option<Next> {
        if self.record.back != self.back {
            let record = Box::new(Record { back: self.back.clone(), ..self.record.clone() });
            return self.may_record(now, node).then_some(Next::Save { record, news: None, applied: None });
        }
        (self.back.is_some() && node.mode == Mode::Dry).then_some(Next::Stop(Why::Back))
    }

    /// With the order on record: stops the node for it, or waits for the moment at which it may.
    pub(super) fn wait_to_go_back(&mut self, now: Instant, node: &mut Node, order: &Back) -> Next {
        if let Err(why) = self.judge_order(order, self.heads.height()) {
            self.drop_order(&why);
            return Next::Stay;
        }
        let verdict = if self.is_gated(order) {
            let verdict = self.gates(now, node);
            self.unless_a_fork_is_near(None, verdict)
        } else {
            return Next::Stop(Why::Back);
        };
        let goes = self.let_go(now, node, &format!("rollback to={}", order.to.target), verdict);
        if goes { Next::Stop(Why::Back) } else { Next::Stay }
    }

    /// Whether the gates decide when the node is stopped for this order.
    fn is_gated(&self, order: &Back) -> bool {
        let seals = self.policy.validator && self.policy.watch_height && !self.record.silent;
        seals && !order.force
    }

    /// The reason why a way back that was ordered has not begun, in words.
    pub(super) fn why_not_back_yet(&self) -> String {
        let Some(node) = self.node() else { return "it begins".to_owned() };
        match (&node.network.holds, &self.back) {
            (Some((_, gates)), Some(order)) if self.is_gated(order) => list(gates),
            _ => "the node is stopped for it".to_owned(),
        }
    }

    /// Begins the way back that was ordered, with no node running. Returns whether there is one.
    pub(super) fn goes_back(&mut self) -> bool {
        self.back.is_some() && self.goes_back_from(&mut self.record.clone())
    }

    /// The same from a record that is not durable yet.
    pub(super) fn goes_back_from(&mut self, record: &mut Record) -> bool {
        // A node is never down for want of a record: as long as none can be written, what `current` leads to runs.
        let Some(order) = self.back.clone().filter(|_| self.unwritten < TRIES) else { return false };
        let mut after = record.clone();
        match begin(&mut after, &order, &self.known(&order, self.heads.height())) {
            Ok(()) => {
                let name = after.upgrade.as_ref().map(|attempt| attempt.name.to_string()).unwrap_or_default();
                let text = format!("name={name} to={} the operator's order", order.to.target);
                let news = Notice::to_history(Level::Warn, "going_back", text);
                self.save_with_news(after, AfterRecord::Upgrade, Some(news));
                // The schedule lacks those that were applied, and one of them is not any more.
                self.actions.push(Action::ReadPlans);
                true
            }
            Err(refused) => {
                self.drop_order(&refused.why);
                record.back = None;
                false
            }
        }
    }

    fn drop_order(&mut self, why: &str) {
        self.back = None;
        self.note(Level::Error, "rollback_refused", why.to_owned());
    }

    /// The way back is on record, and the order is carried out.
    pub(super) fn note_way_back(&mut self) {
        let begun = self.record.upgrade.as_ref().is_some_and(|attempt| attempt.phase == Phase::Reverting);
        if begun && self.record.back.is_none() {
            self.back = None;
        }
    }
}
