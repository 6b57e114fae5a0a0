//! The receipt of an upgrade: a record of what was seen from its stop to its end, for people and their tools.
//!
//! The machine takes notes beside its decisions, in memory, and never reads them. A fact that was not seen, as by a supervisor
//! that was started in the middle of an upgrade, is `None`. The receipt is handed out when a node runs again: while it is down
//! nothing is written that it need not wait for.

use super::event::{Action, Event, HookEnd, JobEnd, Survey};
use super::order::Validator;
use super::record::{Attempt, Block, Outcome, Phase, Version};
use super::state::State;
use super::view::millis;
use super::{Machine, Mode, Name};
use serde::Serialize;
use std::time::{Duration, Instant};

/// The version of the form of a [`Receipt`] as JSON.
const SCHEMA: u32 = 1;

/// The steps of an upgrade, in their order.
const STEPS: [&str; 9] = [
    "stop_sent",
    "old_ended",
    "backed_up",
    "hook_ended",
    "new_started",
    "first_answer",
    "first_beyond",
    "first_own_seal",
    "over",
];
const STOP_SENT: usize = 0;
const OLD_ENDED: usize = 1;
const BACKED_UP: usize = 2;
const HOOK_ENDED: usize = 3;
const NEW_STARTED: usize = 4;
const FIRST_ANSWER: usize = 5;
const FIRST_BEYOND: usize = 6;
const FIRST_OWN_SEAL: usize = 7;
const OVER: usize = 8;

/// The record of an upgrade that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Receipt {
    /// The version of its form.
    pub schema: u32,
    /// The upgrade.
    pub name: Name,
    /// The height that it was planned for.
    pub height: u64,
    /// Its fork height.
    pub fork_height: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words.
    pub detail: String,
    /// The version before, where it is known.
    pub from: Option<Version>,
    /// The version to switch to, where it is known.
    pub to: Option<Version>,
    /// The client version that the old node reported last.
    pub client_before: Option<String>,
    /// The client version that the new node reported.
    pub client_after: Option<String>,
    /// How often the new binary was started, a start without peers included.
    pub starts: u32,
    /// The backup, and how it was made.
    pub backup: Option<String>,
    /// How the pre-upgrade hook ended.
    pub hook: Option<String>,
    /// The validator's address, where the old node was among the validators.
    pub own: Option<String>,
    /// The newest block before the switch that carries a seal of ours or is of our making, as far as surveys saw it.
    pub last_own_seal: Option<u64>,
    /// When each step was seen.
    pub steps: Vec<Step>,
}

/// A step of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Step {
    /// Its name.
    pub step: &'static str,
    /// Its time, RFC 3339. The machine does not know it; the supervisor adds it.
    pub time: Option<String>,
    /// Milliseconds since SIGTERM was sent to the old node.
    pub after_ms: Option<u64>,
    /// The block that the step is about, if it is about one.
    pub block: Option<Block>,
    /// How long before the receipt was made.
    #[serde(skip)]
    pub ago: Option<Duration>,
}

/// The notes about the upgrade that is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    name: Option<Name>,
    steps: [Option<(Instant, Option<Block>)>; STEPS.len()],
    starts: u32,
    clients: [Option<String>; 2],
    backup: Option<String>,
    hook: Option<String>,
    own: Option<Validator>,
    last_own_seal: Option<u64>,
}

impl Notes {
    /// Takes note of the first time that a step is seen.
    fn see(&mut self, step: usize, now: Instant, block: Option<&Block>) {
        self.steps[step].get_or_insert_with(|| (now, block.cloned()));
    }

    fn has(&self, step: usize) -> bool {
        self.steps[step].is_some()
    }

    /// Takes note of a survey: `since` is how long the new binary has run, `still` for how long its head has not changed.
    fn survey(&mut self, now: Instant, survey: &Survey, since: Option<Duration>, still: Duration) {
        self.clients[usize::from(since.is_some())].clone_from(&survey.client_version);
        let Some(mark) = survey.own_mark else { return };
        // By the chain's own times, as for probation.
        if since.is_none_or(|since| mark.before_head.saturating_add(still) > since) {
            self.last_own_seal = self.last_own_seal.max(Some(mark.height));
            return;
        }
        let below = |back: usize| survey.sample.head.checked_sub(1 + u64::try_from(back).unwrap_or(u64::MAX));
        let seals =
            survey.own_seals.iter().enumerate().filter(|(_, own)| **own).filter_map(|(back, _)| below(back));
        let stopped_at = self.steps[STOP_SENT].as_ref().and_then(|(_, block)| Some(block.as_ref()?.height));
        let old = self.last_own_seal.max(stopped_at);
        let height = seals.filter(|height| Some(*height) > old).min().unwrap_or(mark.height);
        self.see(FIRST_OWN_SEAL, now, Some(&Block { height, hash: None }));
    }
}

impl Machine {
    /// Takes note of an event that is about the upgrade under way, before it is handled.
    pub(super) fn take_notes(&mut self, now: Instant, event: &Event) {
        let Some(attempt) = self.record.upgrade.clone() else { return };
        if self.notes.name.as_ref() != Some(&attempt.name) {
            // One before has ended with no node between it and this one.
            self.hand_out(now);
            self.begin_notes(now, &attempt);
        }
        let (stops, tries) = (attempt.phase == Phase::Stopping, attempt.phase == Phase::Trying);
        let is_dry = matches!(self.state, State::Spawning { mode: Mode::Dry });
        let notes = &mut self.notes;
        match event {
            Event::Terminated if stops => notes.see(STOP_SENT, now, attempt.stopped_at.as_ref()),
            Event::Exited(_) if stops => notes.see(OLD_ENDED, now, None),
            Event::JobDone(JobEnd::BackedUp(Ok(made))) => {
                notes.see(BACKED_UP, now, None);
                notes.backup = Some(format!("{} {}", made.name, made.how));
            }
            Event::JobDone(JobEnd::Hooked(end)) => {
                notes.see(HOOK_ENDED, now, None);
                notes.hook = Some(in_words(end));
            }
            Event::Spawned { .. } if tries => {
                notes.starts += 1;
                if !is_dry {
                    notes.see(NEW_STARTED, now, None);
                }
            }
            Event::Head(head) if tries && notes.has(NEW_STARTED) => {
                notes.see(FIRST_ANSWER, now, Some(&head.block));
                if attempt.stopped_at.as_ref().is_some_and(|at| head.block.height > at.height) {
                    notes.see(FIRST_BEYOND, now, Some(&head.block));
                }
            }
            Event::Surveyed(Ok(survey)) => self.note_survey(now, survey),
            _ => {}
        }
    }

    fn begin_notes(&mut self, now: Instant, attempt: &Attempt) {
        self.notes = Notes { name: Some(attempt.name.clone()), own: attempt.own, ..Notes::default() };
        if let Some(survey) = self.survey_of_node().cloned() {
            self.note_survey(now, &survey);
        }
    }

    fn note_survey(&mut self, now: Instant, survey: &Survey) {
        let since = self.notes.steps[NEW_STARTED].as_ref().map(|(at, _)| now.saturating_duration_since(*at));
        let still = self.node().map_or(Duration::ZERO, |node| node.still(now));
        self.notes.survey(now, survey, since, still);
    }

    /// Hands the receipt of an upgrade out that is over, as soon as a node runs, or none ever will.
    pub(super) fn close_notes(&mut self, now: Instant) {
        let rests = self.node().is_some() || self.state == State::Ended;
        if rests && self.record.upgrade.is_none() && !self.behind {
            self.hand_out(now);
        }
    }

    fn hand_out(&mut self, now: Instant) {
        let Some(name) = self.notes.name.clone() else { return };
        self.notes.see(OVER, now, self.heads.block());
        let notes = std::mem::take(&mut self.notes);
        let Some(ended) = self.record.ended(&name).cloned() else { return };
        let stopped = notes.steps[STOP_SENT].as_ref().map(|(at, _)| *at);
        let step = |(step, seen): (&'static str, &Option<(Instant, Option<Block>)>)| {
            let (at, block) = seen.clone().unzip();
            let after = at.zip(stopped).map(|(at, stopped)| millis(at.saturating_duration_since(stopped)));
            let ago = at.map(|at| now.saturating_duration_since(at));
            Step { step, time: None, after_ms: after, block: block.flatten(), ago }
        };
        let (from, to) = ended.switch.map(|switch| (switch.from, switch.to)).unzip();
        let [client_before, client_after] = notes.clients;
        let receipt = Receipt {
            schema: SCHEMA,
            name,
            height: ended.height,
            fork_height: ended.fork_height,
            outcome: ended.outcome,
            detail: ended.detail,
            from,
            to,
            client_before,
            client_after,
            starts: notes.starts,
            backup: notes.backup,
            hook: notes.hook,
            own: notes
                .own
                .map(|own| own.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))),
            last_own_seal: notes.last_own_seal,
            steps: STEPS.into_iter().zip(&notes.steps).map(step).collect(),
        };
        self.actions.push(Action::Receipt(Box::new(receipt)));
    }
}

fn in_words(end: &HookEnd) -> String {
    match end {
        HookEnd::Continue => "it has succeeded".to_owned(),
        HookEnd::Abort(said) => format!("it asked to abort: {said}"),
        HookEnd::Retry(said) => format!("it asked for another try: {said}"),
        HookEnd::Failed(failure) => failure.to_string(),
    }
}
