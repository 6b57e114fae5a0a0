//! Requests of the operator, by command or by signal, while a supervisor runs.

use super::Machine;
use super::event::{Action, Ask, Level, Request};
use super::heads::Beyond;
use super::record::{Ended, Outcome};
use super::starting::RELEASE;
use super::state::{State, Wish};
use super::upgrade::{Origin, Upgrade};
use crate::exit::Exit;
use crate::name::Name;
use std::time::Instant;

/// Why a request is refused that needs all to be on disk.
const WRITING: &str = "a record is on its way to the disk; try again in a moment";
/// Why another program is not executed in our place: a hook would lose the thread that ends it in time.
const HOOK_RUNS: &str = "a post-upgrade hook is running; try again when it has ended";

impl Machine {
    /// A person, a command or a signal asks for something.
    pub(super) fn asked(&mut self, now: Instant, ask: Ask) {
        let under_way = self.newest_record().upgrade.as_ref().map(|p| p.name.clone());
        let reply = match ask.what {
            Request::Stop => {
                self.wish = Wish::Stop;
                Ok("stopping the node, then ending".to_owned())
            }
            Request::Restart => self.asked_to_restart(under_way),
            Request::Detach => self.asked_to_detach(),
            Request::Reexec => match self.may_be_replaced() {
                Ok(()) => return self.actions.push(Action::Reexec { reply_to: ask.reply_to }),
                Err(why) => Err(why),
            },
            Request::UpgradeNow(name) => self.force(name, under_way),
            Request::Rollback(order) => self.asked_to_go_back(now, order),
            Request::CancelRollback => self.asked_to_stay(now),
            Request::Cancel(name) if under_way.as_ref() == Some(&name) => {
                Err(format!("upgrade {name} has begun and cannot be cancelled"))
            }
            Request::Cancel(name) => return self.cancel(name, ask.reply_to),
            Request::Refresh(name) => {
                self.forget(&name);
                Ok("looking again".to_owned())
            }
            Request::Sign(at) => self.sign_at(now, at.as_ref()),
            Request::ResetHead if self.outgoing.is_some() => Err(WRITING.to_owned()),
            Request::ResetHead => Ok(self.reset_head(now)),
            Request::Dump => {
                let text = self.view().to_string();
                self.log(Level::Info, "state", text);
                Ok("the log has it".to_owned())
            }
        };
        if let Some(to) = ask.reply_to {
            self.actions.push(Action::Answer { to, reply });
        }
    }

    fn asked_to_restart(&mut self, under_way: Option<Name>) -> Result<String, String> {
        match under_way {
            Some(name) => Err(format!("upgrade {name} is under way")),
            None if self.wish == Wish::Stop => Err("the supervisor is stopping".to_owned()),
            None if matches!(self.state, State::Running(_) | State::Resting { .. }) => {
                self.wish = Wish::Restart;
                Ok("restarting the node".to_owned())
            }
            None => Ok("the node is just being started".to_owned()),
        }
    }

    fn asked_to_detach(&mut self) -> Result<String, String> {
        let pid = self.goes_on_alone()?;
        // The node signs on, and nothing is heard of it.
        let signs = self.node().is_some_and(|node| self.may_sign(node));
        if signs && self.heads.note_beyond(Beyond::Unheard) {
            self.keep_head();
        }
        self.end(Exit::Ok, None, format!("detached; the node goes on as process {pid}"));
        Ok(format!("the node goes on as process {pid}, and the next supervisor takes it over"))
    }

    /// Whether another program may take the place of the supervisor's.
    fn may_be_replaced(&self) -> Result<(), String> {
        self.goes_on_alone()?;
        if self.post_hooks > 0 {
            return Err(HOOK_RUNS.to_owned());
        }
        match &self.forced {
            // That order is on no record before its stop begins.
            Some(Upgrade { name, .. }) => Err(format!(
                "the order to upgrade to {name} now would be forgotten: wait for it, or cancel it"
            )),
            None => Ok(()),
        }
    }

    fn cancel(&mut self, name: Name, reply_to: Option<u64>) {
        self.forced.take_if(|u| u.name == name);
        self.schedule.retain(|u| u.name != name);
        self.settled.retain(|u| u.name != name);
        self.forget(&name);
        self.actions.push(Action::Strike { name, reply_to });
    }

    /// The process id of the node, if it can be left to itself: it runs, and nothing is being done to it.
    fn goes_on_alone(&self) -> Result<u32, String> {
        match (&self.state, self.wish) {
            (_, Wish::Stop) => Err("the supervisor is stopping".to_owned()),
            (State::Running(_), Wish::Run) if self.outgoing.is_some() => Err(WRITING.to_owned()),
            (State::Running(node), Wish::Run) => Ok(node.pid),
            (State::Running(_) | State::Leaving { .. } | State::Stopping { .. }, _) => {
                Err("the node is being stopped; try again when it runs".to_owned())
            }
            _ => Err("no node is running".to_owned()),
        }
    }

    fn force(&mut self, name: Name, under_way: Option<Name>) -> Result<String, String> {
        if let Some(other) = under_way {
            return Err(format!("upgrade {other} is under way"));
        }
        if self.wish == Wish::Stop {
            return Err("the supervisor is stopping".to_owned());
        }
        if let Some(order) = &self.back {
            return Err(format!("the operator goes back to {}", order.to.target));
        }
        let record = self.newest_record();
        if record.current.target.is(&name) {
            return Err(format!("{name} is what runs"));
        }
        if record.ended(&name).is_some_and(|e| e.outcome == Outcome::Applied) {
            return Err(format!("{name} was applied already"));
        }
        let head = self.heads.height().map_or(1, |height| height.max(1));
        let planned = self.planned(&name).cloned();
        if planned.as_ref().is_some_and(|planned| planned.on_hold) {
            return Err(format!("{name} is on hold: {RELEASE} {name}"));
        }
        // One that was tried before is still what it was: with its fork, and at its height, so that its end settles the plan
        // that it was of.
        let known = record.ended(&name).map(Ended::as_planned);
        self.forget(&name);
        let upgrade = planned.or(known);
        self.forced = Some(upgrade.unwrap_or_else(|| Upgrade::new(name.clone(), head, Origin::Schedule)));
        Ok(format!("switching to {name} as soon as its binary is verified"))
    }
}
