//! How a validator that stands one block below the others gets that block.
//!
//! A node learns of a peer's head when both connect. What is announced later counts as its parent, so a node asks for nothing
//! that is one block above its own head (`wbft/README.md`, section 8: two nodes hung at max − 1). While the chain goes
//! on the next block mends that. Where it stands still, and the votes of this very node are missing, nothing does.

use super::Machine;
use super::event::{Action, Failure, Level, Survey};
use super::gates::Validator;
use super::state::Node;
use std::time::{Duration, Instant};

/// How long the chain stands still, with a quorum connected, before the first peer is greeted anew; and the time from one
/// to the next. Peers refuse a second connection for about half of it.
const PAUSE: Duration = Duration::from_secs(60);
/// It is longer by up to this, so that the validators do not all begin at once.
const APART: Duration = Duration::from_secs(60);

impl Machine {
    /// Connects anew to one validator after the other while the chain stands still though enough are there to go on: then
    /// they do not all stand at the same block.
    pub(super) fn greet(&mut self, now: Instant, node: &mut Node) {
        let network = &node.network;
        let pause = PAUSE + APART * (self.seed % 100) as u32 / 100;
        let long = |since: Option<Instant>| since.is_some_and(|since| now >= since + pause);
        let is_seen = |survey: &Survey| survey.network_head.is_some();
        let stands =
            long(node.still_since) && long(network.returning.quorum_since) && !network.shows(is_seen);
        if !stands || network.greeted.is_some_and(|(at, _)| now < at + pause) {
            return;
        }
        let Some(survey) = &network.survey else { return };
        let is_member = |peer: &&Validator| survey.sample.set.iter().any(|seat| seat.validator == **peer);
        let validators = survey.connected.iter().flatten().filter(is_member).copied().collect();
        let turn = network.greeted.map_or(0, |(_, turn)| turn.wrapping_add(1));
        node.network.greeted = Some((now, turn));
        self.actions.push(Action::Greet { validators, turn });
    }

    /// A peer was greeted anew, or none could be.
    pub(super) fn greeted(&mut self, result: Result<Option<String>, Failure>) {
        match result {
            Ok(Some(peer)) => {
                let text = format!("peer={peer} the chain stands still, and a quorum is connected");
                self.log(Level::Info, "greeted_anew", text);
            }
            Ok(None) => {}
            Err(failure) => self.warn("not_greeted_anew", failure.detail),
        }
    }
}
