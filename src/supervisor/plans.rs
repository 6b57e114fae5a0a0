//! The planned upgrades, on their way from the disk to the machine, and back when the operator cancels one.

use super::control::Reply;
use super::recorder::Struck;
use super::signals::Signal;
use super::{Channels, Supervisor, watcher};
use crate::error::Kind;
use crate::machine::{self, Ask, Event};
use crate::name::Name;
use crate::sorted::Set;
use crossbeam_channel::{Sender, select_biased};

impl Supervisor {
    /// Waits for what is planned, unless we are asked to stop before, because a disk hangs.
    pub(super) fn learn_plans(&mut self, channels: &Channels) {
        loop {
            select_biased! {
                recv(channels.signals.1) -> signal => {
                    signal.into_iter().for_each(|s| self.signalled(s));
                    if signal == Ok(Signal::Stop) {
                        return;
                    }
                }
                recv(channels.planned.1) -> seen => {
                    return seen.into_iter().for_each(|s| self.planned(s));
                }
            }
        }
    }

    /// Orders an upgrade to be cancelled durably. Until that is done, plans that the watcher reads do not count.
    pub(super) fn strike(&mut self, name: Name, reply_to: Option<u64>) {
        self.striking += 1;
        self.recorder.strike(&self.planned, name, reply_to);
    }

    /// An upgrade is cancelled, or cannot be.
    pub(super) fn struck(&mut self, Struck { name, reply_to, result }: Struck) {
        self.striking -= 1;
        self.read_plans();
        let reply = match result {
            Ok(()) => {
                log::info!("event=upgrade_cancelled name={name}");
                Reply::Done(format!("upgrade {name} is cancelled"))
            }
            Err(e) if e.kind() == Kind::NotFound => Reply::NotFound(e.to_string()),
            Err(e) => Reply::Refused(e.to_string()),
        };
        if let Some(to) = reply_to {
            self.answer(to, reply);
        }
    }

    pub(super) fn planned(&mut self, seen: watcher::Seen) {
        if self.striking > 0 || !self.watcher.is_current(&seen) {
            return;
        }
        let known: Set<&String> = self.planned.problems.iter().collect();
        for problem in seen.planned.problems.iter().filter(|p| !known.contains(p)) {
            log::warn!("event=plan_unreadable {problem}");
        }
        self.planned = seen.planned;
        let schedule = self.planned.schedule(&self.machine.record().ended);
        let conflicts: Set<String> = schedule.conflicts.iter().map(ToString::to_string).collect();
        for conflict in conflicts.iter().filter(|conflict| !self.conflicts.contains(*conflict)) {
            log::error!("event=plans_disagree {conflict}");
        }
        self.conflicts = conflicts;
        let first = schedule.upgrades.first().map(|u| format!(" first={}@{}", u.name, u.height));
        let summary = format!("upgrades={}{}", schedule.upgrades.len(), first.unwrap_or_default());
        if self.scheduled != summary {
            log::info!("event=scheduled {summary}");
            self.scheduled = summary;
        }
        self.feed(Event::Schedule(schedule.upgrades));
        for (binary, caller) in std::mem::take(&mut self.refreshing) {
            if let Some(name) = binary {
                self.feed(Event::Request(Ask { reply_to: None, what: machine::Request::Refresh(name) }));
            }
            let _ = caller.send(Reply::Done("what is on disk is in force".to_owned()));
        }
    }

    /// Has everything read anew.
    pub(super) fn read_plans(&mut self) {
        self.watcher.outdate();
        self.watcher.look();
    }

    /// Has everything read anew, and answers when what is on disk by now is in force.
    pub(super) fn refresh(&mut self, binary: Option<Name>, caller: Sender<Reply>) {
        self.read_plans();
        self.refreshing.push((binary, caller));
    }
}
