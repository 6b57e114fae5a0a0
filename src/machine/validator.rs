//! What the network's state decides: when a validator may stop, whether a new binary follows the same
//! chain and seals, and when a node that ended uncleanly may seal again.
//!
//! The facts come as a [`Survey`], asked for when one is needed: once per head at most, and one at a time.
//! The gates themselves are in [`gates`]; here is what they are asked, and what follows.

use super::chain_check::ChainCheck;
use super::event::{Action, Failure, Level, Notice, OwnSeal, Survey};
use super::gates::{self, Due, Gate, RECENT, Reason, Rules, Sample, Verdict};
use super::record::{Attempt, Record};
use super::state::{AfterRecord, Node, State, Why};
use super::{Machine, Upgrade};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A survey that has not come back after this time is given up.
const SURVEY_LOST: Duration = Duration::from_secs(60);
/// Periods without a new block after which a node that knows of a higher head counts as frozen.
const FROZEN: u32 = 30;
/// Blocks beyond the highest one ever recorded after which nothing that was final can be sealed again.
const BEYOND: u64 = 2;
/// By how much clocks may differ before a seal counts as one of after our start.
const CLOCKS: Duration = Duration::from_secs(10);
/// Periods between leaving the consensus and the stop, to see the chain go on.
const LEAVE: u32 = 4;
/// What the operator of a node that stays silent can do.
pub(super) const SIGN: &str = "decide with `wemixvisor resolve sign`";
/// How often the highest head of a validator is made durable.
const KEEP: Duration = Duration::from_secs(10);

/// What a node's machine knows of the network, and has asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Network {
    /// When a survey was asked for, and at which head, if it has not come yet.
    asked: Option<Instant>,
    /// The head at which the last one was asked for.
    asked_at: Option<u64>,
    /// When one was last answered, for better or worse.
    answered: Option<Instant>,
    /// The last one, and when it came.
    survey: Option<(Instant, Survey)>,
    /// Why the last one failed, if it did.
    pub(super) failure: Option<String>,
    /// What holds a due upgrade back, and since when.
    pub(super) holds: Option<(Instant, Vec<Gate>)>,
    /// The gates that people were told of since it was first held back, and the deadline, if that has passed.
    /// Some gates open and close with every block.
    named: BTreeSet<&'static str>,
    /// When sealing was stopped ahead of the stop of the node.
    left: Option<Instant>,
    /// When sealing was last asked to begin.
    signing: Option<Instant>,
    /// When the engine of a node that is to be silent was last found on, and stopped.
    hushed: Option<Instant>,
    /// Whether people know that it takes too long until sealing may begin.
    pub(super) overdue: bool,
    /// When the head was last made durable.
    kept: Option<Instant>,
}

impl Machine {
    /// A survey has come back, or failed.
    pub(super) fn surveyed(&mut self, now: Instant, result: Result<Survey, Failure>) {
        let (State::Running(node) | State::Inspecting { node: Some(node), .. }) = &mut self.state else {
            return;
        };
        node.council.asked = None;
        node.council.answered = Some(now);
        match result {
            Ok(survey) => {
                node.council.failure = None;
                node.council.survey = Some((now, survey));
            }
            Err(failure) => node.council.failure = Some(failure.detail),
        }
    }

    /// Sealing was asked to begin: it has, or could not.
    pub(super) fn signing(&mut self, result: Result<(), Failure>) {
        let State::Running(node) = &self.state else { return };
        let node = node.clone();
        match result {
            Ok(()) => {
                let text = "the node seals again".to_owned();
                let record = Record { silent: false, ..self.record.clone() };
                let news = Notice::history(Level::Info, "sealing", text);
                self.save_and_tell(record, AfterRecord::Run(node), Some(news));
            }
            Err(failure) => self.warn("not_sealing", failure.detail),
        }
    }

    /// What needs the network's state while a node runs; returns the node as it is then, unless
    /// something was begun.
    pub(super) fn attend(&mut self, now: Instant, node: Node) -> Option<Node> {
        let node = self.ask_network(now, node);
        let node = self.hush(now, node);
        if let Some(twin) = self.twin(now, &node) {
            self.halt_for(now, node, twin);
            return None;
        }
        if self.record.silent { Some(self.wait_to_seal(now, node)) } else { self.keep_head(now, node) }
    }

    /// Asks for a survey if something depends on it and the head has moved on since the last.
    fn ask_network(&mut self, now: Instant, node: Node) -> Node {
        let Some(head) = node.last_two[0] else { return node };
        let waiting = node.council.asked.is_some_and(|at| now < at + SURVEY_LOST);
        let moved = node.council.asked_at != Some(head);
        let old = node.council.answered.is_none_or(|at| now >= at + self.policy.poll_interval);
        if waiting || !(moved || old) || !self.needs_survey(&node) {
            return node;
        }
        let due = self.next().map(|u| u.height);
        self.actions.push(Action::Survey { due });
        let mut node = node;
        node.council.asked = Some(now);
        node.council.asked_at = Some(head);
        self.state = State::Running(node.clone());
        node
    }

    /// Whether anything depends on the network's state now. It does for validators only: what others
    /// have to show, their heads show.
    fn needs_survey(&self, node: &Node) -> bool {
        let gated = || self.due(Some(node)).is_some_and(|(upgrade, _)| !self.is_forced(&upgrade));
        let under_way = || self.record.silent || self.record.upgrade.is_some();
        self.policy.validator && self.policy.watch_height && (under_way() || gated())
    }

    fn is_forced(&self, upgrade: &Upgrade) -> bool {
        self.forced.as_ref().is_some_and(|f| f.name == upgrade.name)
    }

    /// Whether a validator may stop for a due upgrade now. Anybody else may, and so may a validator
    /// whose operator said so.
    pub(super) fn may_stop(&mut self, now: Instant, node: &mut Node, upgrade: &Upgrade) -> bool {
        if !self.policy.validator || !self.policy.watch_height || self.is_forced(upgrade) {
            return true;
        }
        match self.gates(now, node, upgrade) {
            // The answer is on its way.
            Verdict::Hold(gates) if node.council.asked.is_some() && gates.iter().all(Gate::is_unknown) => {
                false
            }
            Verdict::Go(reason) => {
                node.council.named.clear();
                if node.council.holds.take().is_some() || !matches!(reason, Reason::Open) {
                    self.tell(Level::Info, "gates_open", format!("name={} {reason}", upgrade.name), true);
                }
                self.has_left(now, node)
            }
            Verdict::Hold(gates) => {
                self.come_back(node);
                let due = Due::new(upgrade.height, upgrade.fork_height, upgrade.deadline_height, []);
                let missed = due.deadline().filter(|deadline| node.sure() >= Some(*deadline));
                let before = node.council.named.len();
                node.council.named.extend(gates.iter().map(Gate::name).chain(missed.map(|_| "deadline")));
                if node.council.named.len() > before {
                    let late = missed.map(|deadline| format!(" deadline={deadline} has passed;"));
                    let level = if late.is_some() { Level::Warn } else { Level::Info };
                    let gates: Vec<String> = gates.iter().map(|g| format!("gate={} {g}", g.name())).collect();
                    let (late, gates) = (late.unwrap_or_default(), gates.join("; "));
                    self.tell(level, "gates_hold", format!("name={}{late} {gates}", upgrade.name), false);
                }
                let since = node.council.holds.as_ref().map_or(now, |(since, _)| *since);
                node.council.holds = Some((since, gates));
                false
            }
        }
    }

    fn gates(&self, now: Instant, node: &Node, upgrade: &Upgrade) -> Verdict {
        let head = node.sure().unwrap_or(0);
        if upgrade.fork_height.is_some_and(|fork| head.saturating_add(1) >= fork) {
            return Verdict::Go(Reason::Fork { height: upgrade.fork_height.unwrap_or(head) });
        }
        let unknown = |missing: String| Verdict::Hold(vec![Gate::Unknown { missing }]);
        let Some((_, survey)) =
            node.council.survey.as_ref().filter(|(_, s)| s.sample.head.saturating_add(1) >= head)
        else {
            return unknown(
                node.council.failure.clone().unwrap_or_else(|| "an answer from the node".to_owned()),
            );
        };
        if frozen(now, node, survey) {
            return Verdict::Go(Reason::Fork { height: head.saturating_add(1) });
        }
        let Some(me) = &survey.me else { return unknown("the node's own address".to_owned()) };
        let due =
            Due::new(upgrade.height, upgrade.fork_height, upgrade.deadline_height, survey.due_set.clone());
        let rules: Rules = self.policy.turns;
        // A node that has left the consensus loses its peers, so that its head grows old without meaning anything.
        let away = node.council.left.map_or(Duration::ZERO, |left| now.saturating_duration_since(left));
        let head_age = head_age(now, node, &survey.sample).saturating_sub(away);
        let sample = Sample { head_age, ..survey.sample.clone() };
        gates::judge(me, Some(&due), &rules, &sample)
    }

    /// With `leave_before_stop`: stops sealing first, and says when the chain has had time to go on without us.
    fn has_left(&mut self, now: Instant, node: &mut Node) -> bool {
        // Who is silent has left already, and must not come back by this door.
        if !self.policy.leave_before_stop || self.record.silent {
            return true;
        }
        match node.council.left {
            Some(left) => now >= left + self.period() * LEAVE,
            None => {
                node.council.left = Some(now);
                self.tell(
                    Level::Info,
                    "leaving",
                    "sealing no more; the node is stopped in a few blocks".to_owned(),
                    false,
                );
                self.actions.push(Action::Leave);
                false
            }
        }
    }

    /// Nothing is due: a node that has stopped sealing for an upgrade seals again.
    pub(super) fn stay(&mut self, mut node: Node) {
        if node.council.left.is_some() {
            self.come_back(&mut node);
            self.state = State::Running(node);
        }
    }

    fn come_back(&mut self, node: &mut Node) {
        if node.council.left.take().is_some() {
            self.actions.push(Action::Sign);
        }
    }

    /// What its chain and the network say against a new binary that looks good otherwise; `None` if nothing.
    pub(super) fn objection(&self, node: &Node) -> Option<Objection> {
        let other_chain = node.witness.as_ref().and_then(ChainCheck::objection);
        if other_chain.is_some() || !self.policy.validator {
            return other_chain;
        }
        let Some((_, survey)) = &node.council.survey else {
            let why = node.council.failure.clone();
            return Some(Objection::Unknown(
                why.unwrap_or_else(|| "the network was not surveyed yet".to_owned()),
            ));
        };
        let fork = self.record.upgrade.as_ref().and_then(|p| p.fork_height);
        if let (Some(fork), Some(known)) = (fork, &survey.forks)
            && !known.contains(&fork)
        {
            return Some(Objection::Wrong(format!("it does not know of the fork at {fork}")));
        }
        if self.record.silent {
            return Some(Objection::Unknown("it does not seal yet".to_owned()));
        }
        let seated = survey.me.is_some_and(|me| survey.sample.set.iter().any(|seat| seat.validator == me));
        let (seals, of) = survey.own_seals;
        if seated && seals * 2 < of {
            return Some(Objection::Unknown(format!("it has sealed {seals} of the last {of} blocks")));
        }
        None
    }

    /// The head as the last survey found it. Where that is long ago or has failed since, it may be anywhere.
    pub(super) fn surveyed_head(&self, now: Instant, node: &Node) -> u64 {
        let fresh = |at: Instant| now < at + self.policy.poll_interval + SURVEY_LOST;
        let survey = node.council.survey.as_ref().filter(|(at, _)| fresh(*at));
        survey.filter(|_| node.council.failure.is_none()).map_or(u64::MAX, |(_, survey)| survey.sample.head)
    }

    /// What the running node called itself when it was asked last.
    pub(super) fn client_version<'a>(&self, node: &'a Node) -> Option<&'a str> {
        let surveyed =
            || node.council.survey.as_ref().and_then(|(_, survey)| survey.client_version.as_deref());
        node.witness.as_ref().and_then(ChainCheck::client).or_else(surveyed)
    }

    /// Stops the engine of a node that is to be silent, whatever has set it going.
    fn hush(&mut self, now: Instant, mut node: Node) -> Node {
        let council = &mut node.council;
        let mining = council.survey.as_ref().is_some_and(|(_, survey)| survey.mining == Some(true));
        let again = council.hushed.is_none_or(|at| now >= at + self.policy.poll_interval);
        if self.record.silent && council.signing.is_none() && mining && again {
            council.hushed = Some(now);
            self.state = State::Running(node.clone());
            self.warn(
                "not_silent",
                "the node's engine is on though it must not seal yet; stopping it".to_owned(),
            );
            self.actions.push(Action::Leave);
        }
        node
    }

    /// Somebody else who seals with our key while our node is silent.
    ///
    /// A seal of ours is told from one of somebody else by its time and by its height: our clock may have been
    /// set, and the head may have gone on unseen before our node was killed, but hardly both.
    fn twin(&self, now: Instant, node: &Node) -> Option<String> {
        let (_, survey) =
            node.council.survey.as_ref().filter(|_| self.record.silent && node.council.signing.is_none())?;
        let OwnSeal { height, age } = survey.own_seal?;
        let silent_for = now.duration_since(node.council.hushed.unwrap_or(node.since));
        let unseen = KEEP.as_millis() / survey.sample.period.as_millis().max(1);
        let unseen = u64::try_from(unseen).unwrap_or(u64::MAX).saturating_add(RECENT);
        let known = self.record.highest.as_ref().map_or(0, |b| b.height.saturating_add(unseen));
        (age + CLOCKS < silent_for && height > known).then(|| {
            format!(
                "block {height} of {:.0} s ago has a seal of our key, made while our node was silent: another node uses the same key",
                age.as_secs_f64()
            )
        })
    }

    /// Stops the node and halts for the operator.
    fn halt_for(&mut self, now: Instant, node: Node, reason: String) {
        self.tell(Level::Error, "twin", reason.clone(), true);
        self.terminate(now, node, Why::Halt(reason));
    }

    /// A silent node seals again when nothing that was final before can be sealed a second time.
    fn wait_to_seal(&mut self, now: Instant, mut node: Node) -> Node {
        if let Some(reason) = self.not_yet_sealing(now, &node) {
            let waited = now.duration_since(node.since);
            if waited >= self.policy.sign_wait && !node.council.overdue {
                node.council.overdue = true;
                let text = format!("waited={waited:.0?} {reason}; {SIGN}");
                self.tell(Level::Error, "still_silent", text, true);
                self.state = State::Running(node.clone());
            }
            return node;
        }
        // Whether it can be told to is no reason to miss an upgrade.
        self.seal(now, node)
    }

    /// Asks the node to seal. The answer decides whether it is silent no more.
    pub(super) fn seal(&mut self, now: Instant, mut node: Node) -> Node {
        let again = node.council.signing.is_none_or(|at| now >= at + self.policy.poll_interval);
        if again {
            node.council.signing = Some(now);
            self.actions.push(Action::Sign);
            self.state = State::Running(node.clone());
        }
        node
    }

    /// Why a silent node must not seal yet.
    pub(super) fn not_yet_sealing(&self, now: Instant, node: &Node) -> Option<String> {
        let Some((_, survey)) = &node.council.survey else {
            return Some(
                node.council.failure.clone().unwrap_or_else(|| "the network was not surveyed yet".to_owned()),
            );
        };
        let highest = self.record.highest.as_ref();
        let goal = highest.map_or(0, |b| b.height.saturating_add(BEYOND));
        if survey.sample.head < goal {
            return Some(format!("the head is {} and has to be {goal}", survey.sample.head));
        }
        let age = head_age(now, node, &survey.sample);
        if age > survey.sample.period * 3 {
            return Some(format!("the head is {:.1} s old", age.as_secs_f64()));
        }
        // It is one of our own from before, or that of a twin: a few blocks tell.
        if let Some(own) =
            survey.own_seal.filter(|own| own.height.saturating_add(RECENT) > survey.sample.head)
        {
            return Some(format!("block {} has a seal of our key, which has to be seen to end", own.height));
        }
        match node.witness.as_ref().and_then(ChainCheck::objection) {
            Some(Objection::Unknown(why) | Objection::Wrong(why)) => Some(why),
            None => None,
        }
    }

    /// Makes the highest head of a validator durable now and then: it is what a restart after a crash
    /// must get past before it seals.
    fn keep_head(&mut self, now: Instant, node: Node) -> Option<Node> {
        if !self.has_head_to_keep(now, &node) || self.doubts_head(now, &node) {
            return Some(node);
        }
        let mut node = node;
        node.council.kept = Some(now);
        let mut record = self.record.clone();
        self.note_head(&mut record);
        self.save(record, AfterRecord::Run(node));
        None
    }

    fn has_head_to_keep(&self, now: Instant, node: &Node) -> bool {
        let due = node.council.kept.unwrap_or(node.since) + KEEP;
        let risen = node.last_two[0] > self.record.highest.as_ref().map(|b| b.height);
        self.policy.validator && !self.record.silent && risen && now >= due
    }

    /// Whether a head that is to be made durable is far above the one before, and was told only once. A lie
    /// would keep the node silent for ever after a crash.
    pub(super) fn doubts_head(&self, now: Instant, node: &Node) -> bool {
        let believed = node.sure().map(|sure| sure.saturating_add(BEYOND));
        self.has_head_to_keep(now, node) && node.last_two[0] > believed
    }

    /// Whether the next start is to be a silent one: the last node ended uncleanly, or its data was restored.
    pub(super) fn starts_silent(&self, ended_uncleanly: bool) -> bool {
        let restored = self.record.upgrade.as_ref().is_some_and(Attempt::restores);
        self.policy.validator
            && self.policy.silent_after_unclean
            && (self.record.silent || ended_uncleanly || restored)
    }

    /// When the network may have to be asked or judged anew though nothing was heard.
    pub(super) fn council_deadline(&self, node: &Node) -> Option<(Instant, &'static str)> {
        let again = node.council.answered.map(|at| at + self.policy.poll_interval);
        let lost = node.council.asked.map(|at| at + SURVEY_LOST);
        let survey = lost.or(again).filter(|_| self.needs_survey(node)).map(|at| (at, "survey"));
        let left = node.council.left.map(|at| (at + self.period() * LEAVE, "left"));
        let overdue = self.record.silent.then(|| (node.since + self.policy.sign_wait, "sign wait"));
        [survey, left, overdue].into_iter().flatten().filter(|(at, _)| self.is_ahead(*at)).min()
    }
}

/// What speaks against a new binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    /// It may still turn out well.
    Unknown(String),
    /// It follows another chain, or will not follow this one.
    Wrong(String),
}

/// A node whose head stands still before our eyes while it knows that the network's goes on. No clock is
/// compared, as one that was set would have the whole network go at once.
fn frozen(now: Instant, node: &Node, survey: &Survey) -> bool {
    let still = node.still(now, survey.sample.head) > survey.sample.period * FROZEN;
    still && survey.network_head.is_some_and(|network| network > survey.sample.head)
}

/// The age of the head: by its own time and our clock, but no less than we have watched it stand still.
fn head_age(now: Instant, node: &Node, sample: &Sample) -> Duration {
    sample.head_age.max(node.still(now, sample.head))
}

#[cfg(test)]
mod tests;
