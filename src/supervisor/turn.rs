//! The events of the loop: one [`Turn`] at a time, the most urgent first.

use super::control::Call;
use super::recorder::{Struck, Written};
use super::signals::Signal;
use super::surveyor::Answer;
use super::{poller, watcher};
use crate::machine::JobEnd;
use crossbeam_channel::{Receiver, Sender, at, never, select_biased, unbounded};
use std::time::Instant;

/// Everything that can happen to the loop.
#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
pub(super) enum Turn {
    /// A signal has come, or a child has ended.
    Signal(Signal),
    /// A record that was written beside the node is durable, or cannot be written.
    Written(Written),
    /// Nothing holds a lock of the previous node.
    Released,
    /// Long work is over.
    Job(JobEnd),
    /// Another process asks.
    Call(Call),
    /// The files that plan upgrades were read.
    Plans(watcher::Seen),
    /// An upgrade is struck off the schedule, or cannot be.
    Struck(Struck),
    /// The node has reported its head, or why it cannot.
    Head(poller::Report),
    /// The node has answered a question.
    Answer(Answer),
    /// A post-upgrade hook has ended.
    HookEnded,
    /// The machine's deadline has passed.
    Tick,
}

type Channel<T> = (Sender<T>, Receiver<T>);

/// The channels on which facts come in. Each thread holds the sender of one.
pub(super) struct Channels {
    pub(super) signals: Channel<Signal>,
    pub(super) written: Channel<Written>,
    pub(super) released: Channel<()>,
    pub(super) jobs: Channel<JobEnd>,
    pub(super) calls: Channel<Call>,
    pub(super) planned: Channel<watcher::Seen>,
    pub(super) struck: Channel<Struck>,
    pub(super) heads: Channel<poller::Report>,
    pub(super) answers: Channel<Answer>,
    pub(super) hooks: Channel<()>,
}

impl Channels {
    pub(super) fn new() -> Self {
        Channels {
            signals: unbounded(),
            written: unbounded(),
            released: unbounded(),
            jobs: unbounded(),
            calls: unbounded(),
            planned: unbounded(),
            struck: unbounded(),
            heads: unbounded(),
            answers: unbounded(),
            hooks: unbounded(),
        }
    }

    /// Waits for the next turn: signals and the child come first, then records, locks and jobs that the node waits for,
    /// requests, plans, heads, answers, and the clock. No channel is ever disconnected, since a sender of each is kept here.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Turn {
        let timer = deadline.map_or_else(never, at);
        let turn = select_biased! {
            recv(self.signals.1) -> signal => signal.map(Turn::Signal),
            recv(self.written.1) -> written => written.map(Turn::Written),
            recv(self.released.1) -> released => released.map(|()| Turn::Released),
            recv(self.jobs.1) -> end => end.map(Turn::Job),
            recv(self.calls.1) -> call => call.map(Turn::Call),
            recv(self.planned.1) -> seen => seen.map(Turn::Plans),
            recv(self.struck.1) -> struck => struck.map(Turn::Struck),
            recv(self.heads.1) -> report => report.map(Turn::Head),
            recv(self.answers.1) -> answer => answer.map(Turn::Answer),
            recv(self.hooks.1) -> ended => ended.map(|()| Turn::HookEnded),
            recv(timer) -> _ => Ok(Turn::Tick),
        };
        turn.expect("a sender of every channel is kept here")
    }
}

impl Turn {
    /// Its name in a log line.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Turn::Signal(_) => "signal",
            Turn::Written(_) => "record",
            Turn::Released => "released",
            Turn::Job(_) => "job",
            Turn::Call(_) => "call",
            Turn::Plans(_) => "plans",
            Turn::Struck(_) => "schedule",
            Turn::Head(_) => "head",
            Turn::Answer(_) => "survey",
            Turn::HookEnded => "hook",
            Turn::Tick => "tick",
        }
    }
}
