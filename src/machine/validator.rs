//! The questions to the network while a node runs, and the decisions of a validator by the answers: when it may stop for
//! an upgrade, whether a new binary seals, and whether another node signs with its key.
//!
//! The facts come as a [`Survey`], one at a time. The gates themselves are in [`gates`]; how a validator leaves and
//! comes back is in `leaving` and `returning`.

use super::chain_check::{ChainCheck, Objection};
use super::event::{Action, Failure, Head, Level, Mode, Survey};
use super::gates::{self, Gate, Reason, Verdict};
use super::heads::turns;
use super::order::Order;
use super::record::Turns;
use super::state::{Next, Node, State, Why};
use super::{Machine, Upgrade};
use std::time::{Duration, Instant};

/// A survey that has not come back after this time is given up.
const SURVEY_LOST: Duration = Duration::from_secs(60);
/// The time between two surveys at the same head where something depends on them; less where blocks come faster.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// For how long a survey counts at least.
const ANSWER: Duration = Duration::from_secs(3);
/// Periods without a new head after which the network is asked for the reason.
pub(super) const STANDS: u32 = 5;
/// Periods without a new head after which a node that knows of a higher one counts as frozen.
const FROZEN: u32 = 30;

impl Machine {
    /// A survey has come back, or failed.
    pub(super) fn surveyed(&mut self, now: Instant, result: Result<Survey, Failure>) {
        let counts = result.as_ref().is_ok_and(|survey| self.heads.has(survey.sample.head, &survey.hash));
        // A head above the node's own was false, or was taken back: nothing else shows that while the chain stands still.
        let reported = self.node().and_then(Node::height);
        if result.as_ref().is_ok_and(|survey| reported > Some(survey.sample.head)) {
            self.actions.push(Action::Confirm);
        }
        let Some(node) = self.node_mut() else { return };
        let network = &mut node.network;
        (network.asked, network.answered) = (None, Some(now));
        let survey = match result {
            Ok(survey) => survey,
            Err(failure) => {
                network.failure = Some(failure.detail);
                return;
            }
        };
        if !counts {
            // Another node may have answered, or the head does not count yet.
            let text =
                format!("an answer about a head that counts, and not about block {}", survey.sample.head);
            (network.failure, network.early) = (Some(text), Some(survey));
            return self.hear_again(now);
        }
        network.early = None;
        let own = network.own;
        network.own = survey.me.or(own);
        if own.is_some() && own != survey.me {
            network.failure = Some("the same own address twice: the last two answers differ".to_owned());
            return self.hear_again(now);
        }
        network.failure = None;
        let has_peers = survey.public_peers;
        let had_peers = network.survey.as_ref().is_some_and(|_| network.returning.alone_since.is_none());
        network.returning.note(&survey);
        let orders = survey.sample.order_before.clone().zip(survey.sample.order.clone());
        // An answer about an older head does not replace what is known of a newer one.
        let height = |orders: &Option<(Order, Order)>| orders.as_ref().map(|(_, at)| at.height);
        if height(&orders) >= height(&network.orders) {
            network.orders = orders;
        }
        let (head, me, at) = (survey.sample.head, survey.me, survey.at);
        let turns = me.as_ref().and_then(|me| turns(me, &survey.sample));
        network.before = network.survey.replace(survey);
        if has_peers && !had_peers {
            self.departure.networked = Some(at);
        }
        self.note_turns(head, turns);
        self.warn_of_what_is_not_served();
        self.hear_again(now);
    }

    /// Judges an answer again that came before its head counted.
    pub(super) fn survey_of_the_head(&mut self, now: Instant) {
        let Some(node) = self.node_mut() else { return };
        let Some(survey) = node.network.early.take() else { return };
        let (head, hash) = (survey.sample.head, survey.hash.clone());
        if self.heads.has(head, &hash) {
            self.surveyed(now, Ok(survey));
        } else if let Some(node) = self.node_mut() {
            node.network.early = Some(survey);
        }
    }

    /// A head whose link to the record could not be had is asked for again: no other one comes while the chain stands still.
    fn hear_again(&mut self, now: Instant) {
        let ours = self.node().filter(|node| node.identity.known && node.mode != Mode::Dry);
        let head = ours.and_then(|node| node.head.clone());
        let is_above = |head: &Head| self.heads.height().is_some_and(|known| head.block.height > known);
        if let Some(head) = head.filter(is_above) {
            let hearing = self.heads.hear(now, &head, self.rate());
            self.heard(hearing);
        }
    }

    /// The distances to our next proposals at a head that was just reported, by the order before it.
    pub(super) fn turns_after(&mut self, head: &Head) -> Option<Turns> {
        let network = &mut self.node_mut()?.network;
        let (_, at) = network.orders.take()?;
        let next = at.after(head.block.height, Some(head.proposer?))?;
        let me = network.survey.as_ref().and_then(|survey| survey.me)?;
        let validators = next.list.len();
        let turns = Turns { at_head: next.distance(&me), before: at.distance(&me), validators };
        network.orders = Some((at, next));
        Some(turns)
    }

    /// Keeps with the head record how far our next proposals are from it, where it is of this height.
    pub(super) fn note_turns(&mut self, height: u64, turns: Option<Turns>) {
        if turns.is_some_and(|turns| self.heads.note_turns(height, turns)) {
            self.keep_head();
        }
    }

    /// Logs once for each node which methods it does not serve, the cost of that, and how to serve them.
    fn warn_of_what_is_not_served(&mut self) {
        if !self.policy.validator {
            return;
        }
        let Some(node) = self.node_mut() else { return };
        let Some(survey) = &node.network.survey else { return };
        let lacks = [
            (
                survey.me.is_none(),
                "own_address_unknown",
                "no upgrade happens before it is known: serve `istanbul` or `eth_coinbase`, or set validator_address",
            ),
            (
                survey.connected.is_none(),
                "admin_not_served",
                "each stop may cost 35 s without peers: let wemixvisor use the node's IPC socket, or serve `admin`",
            ),
        ];
        for (_, event, text) in lacks.into_iter().filter(|(lacks, ..)| *lacks) {
            if self.node_mut().is_some_and(|node| node.network.warn_once(event)) {
                self.warn(event, text);
            }
        }
    }

    /// Asks for a survey if something depends on it and the last one is of another head or too old.
    pub(super) fn ask_network(&mut self, now: Instant, node: &mut Node) {
        let Some(head) = node.height() else { return };
        let network = &node.network;
        let waiting = network.asked.is_some_and(|at| now < at + SURVEY_LOST);
        let moved = network.asked_at != Some(head);
        let old = network.answered.is_none_or(|at| now >= at + self.survey_pause(now, node));
        if !waiting && (moved || old) && self.needs_survey(now, node) {
            self.actions.push(Action::Survey);
            (node.network.asked, node.network.asked_at) = (Some(now), Some(head));
        }
    }

    /// A validator is surveyed at every head, since it may leave at any; another node only where its head
    /// stands still.
    fn needs_survey(&self, now: Instant, node: &Node) -> bool {
        self.policy.watch_height && (self.policy.validator || self.stands(now, node))
    }

    /// Whether a survey shows the network as it is now: an answer may have waited until there was time for it.
    pub(super) fn is_recent(&self, now: Instant, survey: &Survey) -> bool {
        now <= survey.at + (self.period() * 3).max(ANSWER)
    }

    /// The time between two surveys at the same head.
    fn survey_pause(&self, now: Instant, node: &Node) -> Duration {
        let hurry = self.policy.validator
            && (self.record.silent || self.record.upgrade.is_some() || node.still(now) > self.period() * 2);
        let often = self.period().clamp(SECOND / 10, SECOND);
        // A silent validator has its peers for a second or two at a time.
        let often = if self.record.silent { (often / 4).max(SECOND / 10) } else { often };
        if hurry { often.min(self.policy.poll_interval) } else { self.policy.poll_interval }
    }

    /// Whether no new head has come for so long that it is reported.
    pub(super) fn stands(&self, now: Instant, node: &Node) -> bool {
        node.still(now) > self.period().max(SECOND) * STANDS
    }

    /// Whether the head stands still while the node knows that the network's goes on. No clock is compared, as one that was
    /// set would make all validators go at once.
    pub(super) fn is_frozen(&self, now: Instant, node: &Node) -> bool {
        let head = node.height().unwrap_or(0);
        let ended = self.record.ended.iter().filter_map(|ended| ended.fork_height);
        let under_way = self.record.upgrade.iter().filter_map(|attempt| attempt.fork_height);
        let planned = self.open_up_to(head).filter_map(|upgrade| upgrade.fork_height);
        let mut forks = planned.chain(ended).chain(under_way);
        let at_fork = forks.any(|fork| head == fork || head.saturating_add(1) == fork);
        at_fork
            && node.network.shows(|survey| {
                let still = node.still(now) > survey.sample.period * FROZEN;
                still && survey.network_head.is_some_and(|network| network > survey.sample.head)
            })
    }

    /// The decisions by the state of the network that do not depend on an upgrade being due.
    pub(super) fn attend(&mut self, now: Instant, node: &mut Node) -> Option<Next> {
        if !self.policy.validator {
            return None;
        }
        if let Some(reason) = self.rewritten(now, node) {
            self.note(Level::Error, "final_block_rewritten", reason.clone());
            return Some(Next::Stop(Why::Halt(reason)));
        }
        if let Some(reason) = self.duplicate_signer(node) {
            self.note(Level::Error, "duplicate_signer", reason.clone());
            return Some(Next::Stop(Why::Halt(reason)));
        }
        if self.record.silent {
            return self.wait_to_seal(now, node);
        }
        self.greet(now, node);
        self.silence_if_alone(now, node)
    }

    /// Whether the chain has decided another block where one was final for us, and we sign on it.
    ///
    /// Two answers must show it, and the node must be on the chain of this home: another node may answer at its address.
    fn rewritten(&mut self, now: Instant, node: &mut Node) -> Option<String> {
        let contradiction = self.heads.contradiction()?;
        if !contradiction.confirmed {
            let height = contradiction.ours.height;
            if node.asked.is_none_or(|at| now >= at + self.policy.poll_interval) {
                node.asked = Some(now);
                self.actions.push(Action::Recall { height });
            }
            return None;
        }
        if node.network.warned.insert("rewritten") {
            // The chain is asked for again before anything follows from this.
            (node.identity.known, node.identity.asked) = (false, None);
            return None;
        }
        let signs = !self.record.silent;
        (signs && node.identity.known).then(|| format!("after we have signed, {}", contradiction.text()))
    }

    pub(super) fn is_forced(&self, upgrade: &Upgrade) -> bool {
        self.forced.as_ref().is_some_and(|f| f.name == upgrade.name)
    }

    /// Whether a node may stop for a due upgrade now. Only validators ever wait, unless the operator overrules that.
    pub(super) fn may_stop(&mut self, now: Instant, node: &mut Node, upgrade: &Upgrade) -> bool {
        if !self.policy.validator || !self.policy.watch_height || self.is_forced(upgrade) {
            return true;
        }
        let verdict = match self.is_past_use(now, node, upgrade) {
            Some(reason) => Verdict::Go(reason),
            None if self.is_frozen(now, node) => {
                Verdict::Go(Reason::Fork { height: node.height().unwrap_or(0).saturating_add(1) })
            }
            None => self.unless_a_fork_is_near(upgrade.fork_height, self.gates(now, node)),
        };
        self.let_go(now, node, &format!("name={}", upgrade.name), verdict)
    }

    /// Whether the gates let a node go; logs what they hold. `what` names the purpose of the stop.
    pub(super) fn let_go(&mut self, now: Instant, node: &mut Node, what: &str, verdict: Verdict) -> bool {
        match verdict {
            // The answer is on its way.
            Verdict::Hold(gates) if node.network.asked.is_some() && gates.iter().all(Gate::is_unknown) => {
                false
            }
            Verdict::Go(reason) => {
                node.network.named.clear();
                if node.network.holds.take().is_some() || !matches!(reason, Reason::Open) {
                    self.note(Level::Info, "gates_open", format!("{what} {reason}"));
                }
                true
            }
            Verdict::Hold(gates) => {
                self.report_hold(now, node, what, gates);
                false
            }
        }
    }

    /// Holds a stop back around a fork that is not its own.
    pub(super) fn unless_a_fork_is_near(&self, own: Option<u64>, verdict: Verdict) -> Verdict {
        let head = self.heads.height().unwrap_or(0);
        let planned = self.schedule.iter().filter_map(|u| u.fork_height);
        let mut forks = planned.chain(self.record.ended.iter().filter_map(|e| e.fork_height));
        let near = |fork: &u64| {
            let quiet = fork.saturating_sub(gates::QUIET)..fork.saturating_add(gates::QUIET);
            own != Some(*fork) && quiet.contains(&head)
        };
        match (verdict, forks.find(near)) {
            (Verdict::Go(_), Some(height)) => Verdict::Hold(vec![Gate::Fork { height }]),
            (verdict, _) => verdict,
        }
    }

    /// Notes which gates hold, and logs each once.
    fn report_hold(&mut self, now: Instant, node: &mut Node, what: &str, gates: Vec<Gate>) {
        let network = &mut node.network;
        let before = network.named.len();
        network.named.extend(gates.iter().map(Gate::name));
        if network.named.len() > before {
            let gates: Vec<String> = gates.iter().map(|g| format!("gate={} {g}", g.name())).collect();
            self.log(Level::Info, "gates_hold", format!("{what} {}", gates.join("; ")));
        }
        let since = node.network.holds.as_ref().map_or(now, |(since, _)| *since);
        node.network.holds = Some((since, gates));
    }

    /// Logs once that an upgrade's deadline has passed. That is an alarm and no licence.
    pub(super) fn report_deadline(&mut self, node: &mut Node) {
        let head = self.heads.height().unwrap_or(0);
        let late = self.open_up_to(head).find_map(|u| {
            let deadline = gates::deadline(u.deadline_height, u.fork_height)?.max(u.height);
            (head >= deadline).then(|| (u.name.clone(), deadline, u.fork_height))
        });
        let Some((name, deadline, fork)) = late else { return };
        if node.network.named.insert("deadline") {
            let fork = fork.map_or(String::new(), |fork| {
                format!(" fork={fork} blocks_left={}", fork.saturating_sub(head))
            });
            let text =
                format!("name={name} deadline={deadline} head={head}{fork} the upgrade has not happened");
            self.note(Level::Warn, "deadline_passed", text);
        }
    }

    /// The reason why a new binary that looks good otherwise is not, by its chain and by the network. Its own seals are
    /// those on blocks above `first`.
    pub(super) fn objection(&self, node: &Node, first: u64) -> Option<Objection> {
        let other_chain = node.chain_check.as_ref().and_then(ChainCheck::objection);
        if other_chain.is_some() || !self.policy.validator {
            return other_chain;
        }
        let Some(survey) = &node.network.survey else {
            let why = node.network.failure.clone();
            return Some(Objection::Unknown(
                why.unwrap_or_else(|| "the network was not surveyed yet".to_owned()),
            ));
        };
        let own = self.record.upgrade.as_ref().and_then(|attempt| attempt.own);
        if own.is_some() && survey.me != own {
            let why = "it does not have the address of the old node: is its node key another one?".to_owned();
            let shown = node.network.shows(|survey| survey.me.is_some() && survey.me != own);
            return Some(if shown { Objection::Wrong(why) } else { Objection::Unknown(why) });
        }
        if self.record.silent {
            return Some(Objection::Unknown("it does not seal yet".to_owned()));
        }
        let newer = usize::try_from(survey.sample.head.saturating_sub(first).saturating_sub(1));
        let own = &survey.own_seals[..survey.own_seals.len().min(newer.unwrap_or(usize::MAX))];
        let (seals, of) = (own.iter().filter(|sealed| **sealed).count(), own.len());
        let is_member = !node.network.shows(|survey| !is_in_set(survey));
        if is_member && of == 0 {
            return Some(Objection::Unknown("no block is known yet that it could have sealed".to_owned()));
        }
        if is_member && seals * 2 < of {
            return Some(Objection::Unknown(format!("it has sealed {seals} of the last {of} blocks")));
        }
        None
    }

    /// The name by which the running node called itself when it was asked last.
    pub(super) fn client_version<'a>(&self, node: &'a Node) -> Option<&'a str> {
        let surveyed = || node.network.survey.as_ref().and_then(|survey| survey.client_version.as_deref());
        node.chain_check.as_ref().and_then(ChainCheck::client).or_else(surveyed)
    }

    /// When the network must be asked or judged anew though no event has come.
    pub(super) fn network_deadline(&self, now: Instant, node: &Node) -> Option<(Instant, &'static str)> {
        let network = &node.network;
        let again = network.answered.map(|at| at + self.survey_pause(now, node));
        let lost = network.asked.map(|at| at + SURVEY_LOST);
        let survey = lost.or(again).filter(|_| self.needs_survey(now, node)).map(|at| (at, "survey"));
        let stands =
            node.still_since.map(|at| (at + self.period().max(SECOND) * STANDS + SECOND / 10, "stands"));
        let overdue = self.record.silent.then(|| (node.since + self.policy.sign_wait, "sign wait"));
        let stands = stands.filter(|_| self.policy.watch_height);
        [survey, stands, overdue].into_iter().flatten().filter(|(at, _)| self.is_ahead(*at)).min()
    }

    /// The running node, where a fact about it may be noted.
    pub(super) fn node_mut(&mut self) -> Option<&mut Node> {
        match &mut self.state {
            State::Running(node) | State::Inspecting { node: Some(node), .. } => Some(node),
            State::Leaving { node, .. } | State::Stopping { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// Whether the node's own address is in the set that seals the next block.
pub(super) fn is_in_set(survey: &Survey) -> bool {
    survey.me.is_some_and(|me| survey.sample.set.iter().any(|seat| seat.validator == me))
}

#[cfg(test)]
mod tests;
