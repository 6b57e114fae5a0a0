//! How a validator comes back, and when it may sign: DESIGN 5, rule S.
//!
//! A node keeps its signatures only in memory, and its data may have gone back. So a node signs from its start on only
//! after a clean stop in turn, at a distance from its own proposals. Otherwise it starts silent and signs when it is beyond
//! everything that was final, or when all validators stand still at the same block, so that it has everything that can be
//! final. Where that cannot be proven, the operator decides.

use super::event::{Action, Failure, Level, Mode, Notice, OwnMark, Survey};
use super::gates::RECENT;
use super::order::show_some;
use super::quorum::margin;
use super::record::{Block, NodeMark, Phase, Record, Turns};
use super::state::{Next, Node, Why};
use super::{Attempt, Machine};
use std::time::{Duration, Instant};

/// Clock skew that is tolerated.
const CLOCKS: Duration = Duration::from_secs(10);
/// Blocks between the end of a node and a silent start, so that its first sync carries it past its old head.
const GAP: u32 = 4;
/// For how long head and peers must not have changed before a chain counts as standing still for all.
const STILL: Duration = Duration::from_secs(15);
/// The same where the next block would be our own: a redial has shown by then that no peer has it already.
const STILL_OURS: Duration = Duration::from_secs(55);
/// A node that has followed the chain for this time needs no quorum of validators among its peers.
const FEW_PEERS: Duration = Duration::from_secs(30);
/// A node whose engine is on and that has no peers for this long is made silent.
const ALONE: Duration = Duration::from_secs(3);
/// A validator that its peers have dropped is found again within this time.
const REDIAL: Duration = Duration::from_secs(40);
/// Peers refuse another connection from one address for this long.
pub(super) const REFUSED: Duration = Duration::from_secs(31);
/// Restarts of a silent node that is stuck.
const UNSTICK: u32 = 3;
/// The advice for a node that stays silent.
pub(super) const SIGN: &str = "see what is missing with `wemixvisor resolve sign`";

impl Machine {
    /// How the next node takes part in the network.
    pub(super) fn mode(&self, record: &Record) -> Mode {
        if self.is_untried(record) {
            return Mode::Dry;
        }
        if !self.policy.validator {
            return Mode::Full;
        }
        if !self.policy.silent_after_unclean || self.may_seal_at_once(record) {
            Mode::Full
        } else {
            Mode::Silent
        }
    }

    /// Whether the record is of a new binary that is tried for a short while first: that of a validator, unless it was
    /// tried without peers already; that of any other node only after it has ended before it answered.
    pub(super) fn is_untried(&self, record: &Record) -> bool {
        let is_validator = self.policy.validator;
        let is_first = |p: &Attempt| if is_validator { !p.dry_run } else { p.ended_early };
        let untried = |p: &Attempt| p.phase == Phase::Trying && is_first(p);
        self.policy.watch_height && record.upgrade.as_ref().is_some_and(untried)
    }

    /// Whether a node may be started with its engine on.
    fn may_seal_at_once(&self, record: &Record) -> bool {
        let restored = record.upgrade.as_ref().is_some_and(Attempt::restores);
        if record.silent || restored {
            return false;
        }
        match self.left {
            // Nothing of this home has signed so far. A node that worked on the data before may have.
            NodeMark::Never => return !self.has_data,
            NodeMark::Running | NodeMark::StoppedUnclean => return false,
            NodeMark::StoppedClean => {}
        }
        let Some(head) = self.heads.record().filter(|head| !head.unheard) else { return false };
        let Some(Turns { at_head, before, .. }) = head.turns else { return false };
        // A clean stop may lose the newest block, unless the data is known to have it; more may be lost only where a
        // program takes blocks back, and those were final. From a block above the record the distance is another one.
        let whole = self.departure.database == Some(head.block.height);
        let height = head.block.height;
        if self.departure.database.is_some_and(|data| !(height.saturating_sub(1)..=height).contains(&data)) {
            return false;
        }
        let far_before = whole || before != Some(1);
        // The next block of a lone validator is always its own: it resumes as on a chain that stands still.
        let in_turn = self.departure.in_turn && at_head != Some(1);
        // Where all lose the last block before the fork, the votes that they have given for it still count.
        (in_turn || self.is_new_at_the_fork(record) && whole) && far_before
    }

    /// Whether this is the first start of a new binary after a stop that the fork has forced. The votes at the fork that
    /// the old binary gave do not count for the new one, so there it has signed nothing that could be contradicted. Where
    /// the binary does not name the fork they may count.
    fn is_new_at_the_fork(&self, record: &Record) -> bool {
        let names = |fork| self.departure.forks.contains(&fork);
        let is_new = |attempt: &Attempt| attempt.sealing == 0 && attempt.fork_height.is_some_and(names);
        self.departure.at_fork && record.upgrade.as_ref().is_some_and(is_new)
    }

    /// Until when a silent start waits, so that there is something to sync when it has its peers.
    pub(super) fn silent_not_before(&self) -> Option<Instant> {
        let turns = self.heads.record().and_then(|record| record.turns);
        // A validator that is alone has no peer to sync from.
        let alone = turns.is_some_and(|turns| turns.validators == 1);
        self.departure.at.filter(|_| !alone).map(|at| at + self.period() * GAP)
    }

    /// When peers accept a validator again that has found them a moment ago.
    pub(super) fn accepted_not_before(&self) -> Option<Instant> {
        self.departure.networked.filter(|_| self.policy.validator).map(|at| at + REFUSED)
    }

    /// Why a silent node must not seal yet.
    pub(super) fn not_yet_sealing(&self, now: Instant, node: &Node) -> Option<String> {
        let network = &node.network;
        if self.must_be_recorded_first() {
            return Some("its start is on no record, since the journal cannot be written".to_owned());
        }
        let Some(survey) = &network.survey else {
            let why = network.failure.clone();
            return Some(why.unwrap_or_else(|| "the network was not surveyed yet".to_owned()));
        };
        if let Some(contradiction) = self.heads.contradiction() {
            return Some(contradiction.text());
        }
        if !self.is_recent(now, survey) {
            return Some("the node does not answer in time".to_owned());
        }
        // On a chain that stands still the last seals stay where they are, and what was final before is our own.
        let before = network.returning.goal.as_ref().map_or(0, |block| block.height.saturating_add(1));
        let recent =
            |own: &OwnMark| own.height > before && own.height.saturating_add(RECENT) > survey.sample.head;
        let own = survey.own_mark.filter(recent);
        let own =
            own.map(|own| format!("block {} has a seal of our key: wait for blocks without", own.height));
        let moving = own.or_else(|| self.not_beyond_the_record(now, node, survey));
        let still = self.not_all_still(now, node, survey);
        match (moving, still) {
            (Some(moving), Some(still)) => {
                let stands = node.still(now) > survey.sample.period * 5;
                Some(if stands { still } else { moving })
            }
            (None, _) | (_, None) => None,
        }
    }

    /// The condition that the rule of a chain that goes on still lacks: the node is beyond everything that was final,
    /// follows, and is connected to the others.
    fn not_beyond_the_record(&self, now: Instant, node: &Node, survey: &Survey) -> Option<String> {
        if let Some(reason) = self.behind(now, node, survey) {
            return Some(reason);
        }
        // Its peers may just have dropped it; then the next block is no more its own.
        let order = survey.sample.order.as_ref().filter(|order| order.list.len() > 1);
        if survey.me.and_then(|me| order?.distance(&me)) == Some(1) {
            return Some("the next block is our own".to_owned());
        }
        let returning = &node.network.returning;
        // Behind sentry nodes a validator has no other validator for a peer.
        let long = returning.following_since.is_some_and(|since| now >= since + FEW_PEERS);
        let lasts = |since| self.lasts(survey, since);
        if lasts(returning.quorum_since) || long && lasts(returning.peers_since) {
            return None;
        }
        Some("too few validators are connected".to_owned())
    }

    /// Whether all surveys since then cover the time that a block takes. With half of that time the fleet simulation
    /// fails: a node signs before it has the newest block.
    fn lasts(&self, survey: &Survey, since: Option<Instant>) -> bool {
        let period = self.policy.shortest_period.min(Duration::from_secs(1));
        since.is_some_and(|since| survey.at >= since + period)
    }

    /// Why the node does not follow the chain beyond everything that was final, if so.
    fn behind(&self, now: Instant, node: &Node, survey: &Survey) -> Option<String> {
        let goal = node.network.returning.goal.as_ref().map_or(0, |block| block.height.saturating_add(1));
        let counted = self.heads.height().unwrap_or(0);
        let head = survey.sample.head;
        if head < goal || counted < goal {
            return Some(format!("the head is {head} and must be {goal}"));
        }
        // A silent node follows for a moment at a time: one block that comes in time proves as much as our clock does.
        // While it catches up blocks may seem to come in time, but their own times show that.
        let fresh = survey.sample.period * 3;
        let in_time = node.in_time > 0;
        let may_be_new = node.lag().is_some_and(|lag| lag <= CLOCKS + fresh);
        // By a clock that is behind every head seems new.
        if !in_time && node.ahead().is_some_and(|ahead| ahead > CLOCKS) {
            return Some(
                "our clock is behind the chain's, or a header's time is false: check NTP".to_owned(),
            );
        }
        let age = if in_time && may_be_new { node.still(now) } else { node.head_age(now) };
        if age > fresh {
            let age = age.as_secs_f64();
            let clock =
                if in_time && !may_be_new { ", or our clock is as much ahead: check NTP" } else { "" };
            return Some(format!("the head is {age:.1} s old{clock}"));
        }
        None
    }

    /// The condition that the rule of a chain that stands still lacks: all validators are there, and none has more.
    fn not_all_still(&self, now: Instant, node: &Node, survey: &Survey) -> Option<String> {
        let missing = self.missing_for_all_still(now, node, survey);
        if missing.is_empty() { None } else { Some(missing.join("; ")) }
    }

    fn missing_for_all_still(&self, now: Instant, node: &Node, survey: &Survey) -> Vec<String> {
        let mut missing = Vec::new();
        let (head, record) = (node.head.as_ref().map(|head| &head.block), self.heads.block());
        // A block that was final when the node was started stays final, also where the operator forgets the record.
        let goal = node.network.returning.goal.as_ref().map_or(0, |block| block.height);
        match (head, record) {
            (Some(head), Some(record)) if head.height < record.height.max(goal) => {
                missing.push(format!("the head is {} and must be {}", head.height, record.height.max(goal)));
            }
            (Some(head), Some(record)) if head == record => {}
            (Some(head), Some(_)) => {
                missing.push(format!("block {} is not linked to the head record", head.height))
            }
            (None, _) | (_, None) => missing.push("no head is known".to_owned()),
        }
        if self.heads.record().is_some_and(|record| record.unheard) {
            missing.push("blocks may have been signed beyond the head record that were not heard".to_owned());
        }
        if survey.syncing {
            missing.push("the node synchronises".to_owned());
        }
        if survey.connected.is_none() && survey.sample.set.len() > 1 {
            missing.push("the node does not report its peers: serve `admin`".to_owned());
        }
        let is_new = self.is_new_at_the_fork(&self.record);
        let unseen = node.network.returning.unseen(survey);
        if !is_new && !unseen.is_empty() {
            missing.push(format!("not seen for 2 min: {}", show_some(&unseen)));
        }
        // Without its peers a node stands still on any chain.
        if !self.lasts(survey, node.network.returning.contact_since) {
            missing.push("too few validators are connected now".to_owned());
        }
        let quiet = node.network.returning.changed.map(|at| now.saturating_duration_since(at));
        let ours = survey.me.and_then(|me| survey.sample.order.as_ref()?.distance(&me)) == Some(1);
        let still = if ours && !is_new && margin(survey.sample.set.len()) > 0 { STILL_OURS } else { STILL };
        if let Some(left) = still.checked_sub(quiet.unwrap_or_default()).filter(|left| !left.is_zero()) {
            missing.push(format!("nothing must change for another {:.0} s", left.as_secs_f64().ceil()));
        }
        missing
    }

    /// The next step of a silent validator: it signs where that is safe, and is started again where it is stuck.
    pub(super) fn wait_to_seal(&mut self, now: Instant, node: &mut Node) -> Option<Next> {
        // The answer to the order may be lost.
        let ordered = node.network.returning.started;
        let seals = |survey: &Survey| survey.mining == Some(true) && ordered.is_some_and(|at| survey.at > at);
        if node.network.survey.as_ref().is_some_and(seals) {
            return Some(self.seals_again(now, node));
        }
        self.keep_silent(now, node);
        let head = node.head.as_ref().map(|head| &head.block);
        let is_ordered = head.is_some() && node.network.returning.ordered.as_ref() == head;
        let reason = self.not_yet_sealing(now, node).filter(|_| !is_ordered);
        let Some(reason) = reason else { return self.seal(now, node) };
        let survey = node.network.survey.as_ref();
        let follows = survey.is_some_and(|survey| self.behind(now, node, survey).is_none());
        let returning = &mut node.network.returning;
        returning.following_since = if follows { returning.following_since.or(Some(now)) } else { None };
        let waited = now.duration_since(node.since);
        if waited >= self.policy.sign_wait && !node.network.returning.overdue {
            node.network.returning.overdue = true;
            self.note(Level::Error, "still_silent", format!("waited={waited:.0?} {reason}; {SIGN}"));
        }
        self.is_stuck(now, node).then_some(Next::Stop(Why::Stuck))
    }

    /// Asks the node to seal, after that is on record where a new binary must not be able to deny it.
    pub(super) fn seal(&mut self, now: Instant, node: &mut Node) -> Option<Next> {
        if self.must_be_recorded_first() {
            return None;
        }
        if self.record.upgrade.as_ref().is_some_and(|p| p.sealing == 0) {
            let mut record = self.record.clone();
            record.upgrade.iter_mut().for_each(|p| p.sealing = record.launch);
            return Some(Next::record(record));
        }
        let returning = &mut node.network.returning;
        if returning.started.is_none_or(|at| now >= at + self.policy.poll_interval) {
            returning.started = Some(now);
            self.actions.push(Action::StartSealing);
        }
        None
    }

    /// Sealing was asked to begin: it has, or could not.
    pub(super) fn sealing_started(&mut self, now: Instant, result: Result<(), Failure>) {
        if let Err(failure) = result {
            return self.warn("not_sealing", failure.detail);
        }
        let Some(mut node) = self.take_running() else { return };
        let next = if self.record.silent { self.seals_again(now, &mut node) } else { Next::Stay };
        self.follow(now, node, next);
    }

    fn seals_again(&mut self, now: Instant, node: &mut Node) -> Next {
        self.unstuck = 0;
        node.network.returning.ordered = None;
        let text = format!("the node seals again after={:.1?}", now.duration_since(node.since));
        let record = Record { silent: false, ..self.record.clone() };
        let news = Some(Notice::to_history(Level::Info, "sealing", text));
        Next::Save { record: Box::new(record), news, applied: None }
    }

    pub(super) fn sealing_stopped(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.warn("not_silent", format!("the engine cannot be stopped: {failure}"));
        }
    }

    /// Stops the engine of a node that must be silent.
    fn keep_silent(&mut self, now: Instant, node: &mut Node) {
        let mining = node.network.survey.as_ref().is_some_and(|survey| survey.mining == Some(true));
        let returning = &mut node.network.returning;
        let again = returning.stopped.is_none_or(|at| now >= at + self.policy.poll_interval);
        if mining && again && returning.started.is_none() {
            returning.stopped = Some(now);
            self.actions.push(Action::StopSealing);
            let text = "the node's engine is on though it must not seal yet; stopping it".to_owned();
            self.warn("not_silent", text);
        }
    }

    /// A node whose engine is on and that is alone would propose at an old head when its peers come back: it is
    /// made silent, as after an unclean stop.
    pub(super) fn silence_if_alone(&mut self, now: Instant, node: &mut Node) -> Option<Next> {
        let alone = node.network.returning.alone_since.filter(|since| now >= *since + ALONE)?;
        let is_recent = node.network.survey.as_ref().is_some_and(|survey| self.is_recent(now, survey));
        // A node that was just ordered to seal was dropped while it was silent, and is found again by a redial.
        let redial = node.network.returning.started.is_some_and(|at| now < at + REDIAL);
        if redial || !is_recent || !self.policy.silent_after_unclean {
            return None;
        }
        let text =
            format!("no peers for {:.0?}; sealing no more until that is safe", now.duration_since(alone));
        let returning = &mut node.network.returning;
        (returning.stopped, returning.started) = (Some(now), None);
        returning.goal = self.heads.block().cloned();
        self.actions.push(Action::StopSealing);
        let record = Record { silent: true, ..self.record.clone() };
        let news = Some(Notice::to_history(Level::Warn, "alone", text));
        Some(Next::Save { record: Box::new(record), news, applied: None })
    }

    /// Whether a silent node only comes on by a new start: one block below the record it has nothing to sync while the
    /// chain stands still, and without peers it waits for a redial.
    fn is_stuck(&self, now: Instant, node: &Node) -> bool {
        let Some(survey) = &node.network.survey else { return false };
        let record = self.heads.height().unwrap_or(0);
        let one_below = survey.sample.head.saturating_add(1) == record && node.still(now) >= STILL;
        // A stop may lose the newest block, which no other node may have. Where nothing is missing a redial is enough.
        let lacks = node.height().is_none_or(|head| head < record);
        let alone = lacks
            && node
                .network
                .returning
                .alone_since
                .is_some_and(|since| now >= since + REFUSED + Duration::from_secs(5));
        let limit = if one_below { UNSTICK } else { 1 };
        let may_dial = self.departure.networked.is_none_or(|at| now >= at + REFUSED);
        self.unstuck < limit && may_dial && now >= node.since + REFUSED && (one_below || alone)
    }

    /// Another node that seals with our key while ours is silent.
    ///
    /// The seal of another node is recognised by its time and by its height: our clock may have been set, and the head may
    /// have gone on unseen before our node was killed, but hardly both.
    pub(super) fn duplicate_signer(&self, node: &Node) -> Option<String> {
        let returning = &node.network.returning;
        let survey =
            node.network.survey.as_ref().filter(|_| self.record.silent && returning.started.is_none())?;
        let silent_since = returning.stopped.unwrap_or(node.since);
        let known = returning.goal.as_ref().map_or(0, |block| block.height.saturating_add(RECENT));
        let is_anothers = |survey: &Survey| {
            let silent_for = survey.at.saturating_duration_since(silent_since);
            // While our own engine is found on, a seal may be ours.
            let mark = survey.own_mark.filter(|_| survey.mining != Some(true));
            mark.is_some_and(|mark| mark.height > known && mark.age + CLOCKS < silent_for)
        };
        let OwnMark { height, age, .. } = survey.own_mark.filter(|_| node.network.shows(is_anothers))?;
        Some(format!(
            "block {height} of {:.0} s ago has a seal of our key, made while our node was silent: another node uses the same key",
            age.as_secs_f64()
        ))
    }

    /// The operator states that `at` is the last final block of the network; without it, the answer lists what is
    /// missing.
    pub(super) fn sign_at(&mut self, now: Instant, at: Option<&Block>) -> Result<String, String> {
        let Some(mut node) = self.take_running() else { return Err("no node is running".to_owned()) };
        let answer = self.may_sign_at(now, &node, at);
        if answer.is_ok() {
            node.network.returning.ordered = node.head.as_ref().map(|head| head.block.clone());
        }
        let next = if answer.is_ok() { self.seal(now, &mut node) } else { None };
        self.follow(now, node, next.unwrap_or(Next::Stay));
        answer
    }

    fn may_sign_at(&self, now: Instant, node: &Node, at: Option<&Block>) -> Result<String, String> {
        if !self.record.silent {
            return Err("nothing keeps the node from signing".to_owned());
        }
        let Some(head) = node.head.as_ref().map(|head| &head.block) else {
            return Err("the node has not reported its head yet".to_owned());
        };
        let show = |block: &Block| format!("{}:{}", block.height, block.hash.as_deref().unwrap_or("?"));
        if let Some(record) = self.heads.block() {
            if head.height < record.height {
                let (head, record) = (head.height, show(record));
                return Err(format!(
                    "the head is {head}, and block {record} was final: wait until the node has it"
                ));
            }
            if head.height == record.height && head != record {
                return Err(format!("the head is {}, and block {} was final", show(head), show(record)));
            }
        }
        if let Some(contradiction) = self.heads.contradiction() {
            return Err(contradiction.text());
        }
        let is_linked = |hash: &String| self.heads.has(head.height, hash);
        if self.heads.record().is_some() && !head.hash.as_ref().is_some_and(is_linked) {
            return Err(format!("block {} is not linked to the head record", head.height));
        }
        let Some(at) = at else {
            let survey = node.network.survey.as_ref();
            let missing =
                survey.map(|survey| self.missing_for_all_still(now, node, survey)).unwrap_or_default();
            return Err(format!(
                "missing: {}; if no validator has a block beyond block {}, which only you can find out: wemixvisor resolve sign --at {}",
                if missing.is_empty() { "an answer from the node".to_owned() } else { missing.join("; ") },
                head.height,
                show(head)
            ));
        };
        let same = at.height == head.height
            && at.hash.as_ref().zip(head.hash.as_ref()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        if same {
            Ok("asking the node to seal".to_owned())
        } else {
            Err(format!("the node's head is {}", show(head)))
        }
    }
}
