//! The effects: each action of the machine, performed in the loop or handed to a thread.

use super::child::Child;
use super::control::Reply;
use super::node_args::{self, Invocation, Variable};
use super::poller::{self, PollerOrder};
use super::surveyor::NodeOrder;
use super::worker::Context;
use super::{End, Supervisor, failure, recorded};
use crate::error::{Error, Kind, Result};
use crate::home::durable;
use crate::machine::{
    Action, Class, Event, Failure, Job, Level, Mode, Notice, Receipt, Record, Target, Version,
};
use crate::time::rfc3339;
use crate::upgrade::counters::UPGRADES;
use crate::upgrade::node_args::Changes;
use std::time::{Instant, SystemTime};

impl Supervisor {
    /// Performs one action. The outcome of a prompt one is returned; that of any other comes later.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Record(record) => return self.record(record),
            Action::Link(target) => return Some(self.linked(&target)),
            Action::Inspect(version) => return Some(self.inspected(&version)),
            Action::Spawn { version, mode, launch } => {
                let spawned = self.spawn(&version, mode, launch);
                return Some(spawned.map_or_else(Event::SpawnFailed, |pid| Event::Spawned { pid }));
            }
            Action::Terminate => return Some(self.terminated()),
            Action::Kill => self.kill(),
            Action::Adopt => self.adopt(),
            Action::Reexec { reply_to } => self.reexec(reply_to),
            Action::AwaitRelease => {
                let Context { config, home, .. } = &self.context;
                self.release.watch(home.data().join(&config.daemon_node_lock));
            }
            Action::Start(job) => self.begin(job),
            Action::CancelJob => self.worker.cancel(),
            Action::Confirm => self.poller.order(PollerOrder::Confirm),
            Action::Trace { from, to } => self.ask_node(NodeOrder::Trace { from, to }),
            Action::Identify => self.ask_node(NodeOrder::Identify),
            Action::Survey => self.ask_node(NodeOrder::Survey),
            Action::Recall { height } => self.ask_node(NodeOrder::Recall { height }),
            Action::StartSealing => self.ask_node(NodeOrder::StartSealing),
            Action::StopSealing => self.ask_node(NodeOrder::StopSealing),
            Action::Greet { validators, turn } => self.ask_node(NodeOrder::Greet { validators, turn }),
            Action::Unpeer => self.ask_node(NodeOrder::Unpeer),
            Action::KeepHead(record) => self.head_keeper.order(Some(record)),
            Action::ForgetHead => self.head_keeper.order(None),
            Action::ReadPlans => self.read_plans(),
            Action::Strike { name, reply_to } => self.strike(name, reply_to),
            Action::Answer { to, reply } => self.answer(to, reply.map_or_else(Reply::Refused, Reply::Done)),
            Action::AfterUpgrade(progress) => self.post_hooks.begin(self.context.clone(), progress),
            Action::Receipt(receipt) => self.keep_receipt(*receipt),
            Action::Tell(notice) => self.tell(notice),
            Action::Exit { exit, node, reason } => self.end = Some(End { exit, node, reason }),
        }
        None
    }

    /// A node that runs never waits for a disk. Without one there is nothing to do meanwhile, but for the worker.
    fn record(&mut self, record: Record) -> Option<Event> {
        self.recorder.write(record);
        if self.child.is_some() { None } else { Some(recorded(self.recorder.wait())) }
    }

    fn linked(&self, target: &Target) -> Event {
        match self.link(target) {
            Ok(()) => Event::Linked,
            Err(e) => Event::LinkFailed {
                failure: failure(&e),
                leads_to: self.context.home.read_current_link().ok(),
            },
        }
    }

    fn inspected(&self, version: &Version) -> Event {
        let checked = self.context.binaries.verified.check(&self.context.home, version);
        checked.map_or_else(|e| Event::InspectFailed(failure(&e)), |_| Event::Inspected)
    }

    fn terminated(&mut self) -> Event {
        match self.signal_child("SIGTERM", Child::terminate) {
            Ok(()) => Event::Terminated,
            Err(e) => Event::NotTerminated(Failure::new(Class::Environment, e.to_string())),
        }
    }

    fn kill(&mut self) {
        // A failure is logged; the end of the node is waited for in any case.
        let _ = self.signal_child("SIGKILL", Child::kill);
    }

    fn begin(&mut self, job: Job) {
        // These may be tried many times; the machine logs a preparation once.
        let is_often = matches!(job, Job::Prepare(_) | Job::Ahead { .. } | Job::Tend { .. });
        let level = if is_often { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "event=job_begun job={}", describe(&job));
        self.worker.begin(job, self.context.clone());
    }

    /// Has `current` lead to a version. A new one is verified once more: backup and hook may have taken hours.
    fn link(&self, target: &Target) -> Result<()> {
        let new = self.machine.record().upgrade.as_ref().map(|attempt| &attempt.to);
        if let Some(new) = new.filter(|new| new.target == *target) {
            self.context.binaries.verified.check(&self.context.home, new)?;
        }
        durable::link(std::path::Path::new(&target.to_string()), &self.context.home.current())
    }

    fn ask_node(&self, order: NodeOrder) {
        if let Some(child) = &self.child {
            let options = poller::Options::new(&self.context.config, &self.context.home);
            self.surveyor.order((child.pid(), self.spawned_at, options, order));
        }
    }

    /// Has the receipt of an upgrade written, with the times of its steps.
    fn keep_receipt(&mut self, mut receipt: Receipt) {
        let now = SystemTime::now();
        for step in &mut receipt.steps {
            step.time = step.ago.and_then(|ago| now.checked_sub(ago)).map(rfc3339);
        }
        UPGRADES[receipt.outcome as usize].add(1);
        self.recorder.keep(receipt.clone());
        self.receipt = Some(receipt);
    }

    /// Returns only if the program at our path could not be executed.
    fn reexec(&mut self, reply_to: Option<u64>) {
        let failed = match self.recorder.drain() {
            true => self.seat.hand_over(),
            false => {
                let why = "the disk does not take what is still to be written; nothing has changed";
                Error::new(Kind::Io, why)
            }
        };
        log::error!("event=reexec_failed {failed}");
        if let Some(to) = reply_to {
            self.answer(to, Reply::Refused(failed.to_string()));
        }
    }

    /// Takes the node over that an earlier supervisor has launched.
    fn adopt(&mut self) {
        let Some(process) = self.found.take() else { return };
        self.spawned_at = Instant::now().checked_sub(process.age).unwrap_or_else(Instant::now);
        self.mind(Child::adopt(process));
    }

    /// Follows a node that runs, to its end.
    fn mind(&mut self, child: Child) {
        self.minder.mind(child.pidfd(), child.pid());
        self.poller.order(PollerOrder::Follow(child.pid()));
        self.child = Some(child);
    }

    fn spawn(&mut self, version: &Version, mode: Mode, number: u64) -> Result<u32, Failure> {
        let home = &self.context.home;
        let stamp = self.context.binaries.verified.check(home, version).map_err(|e| failure(&e))?;
        let config = &self.context.config;
        let args = Changes::of(home, &version.target).map_err(|e| failure(&e))?.apply(&self.args);
        let environment: Vec<Variable> = std::env::vars_os().collect();
        let mut invocation = match mode {
            // Its last words are wanted: with other arguments it might end for another reason.
            Mode::Dry if !config.validator_mode => Invocation { args, is_try: true, ..Invocation::default() },
            Mode::Dry | Mode::Full | Mode::Silent => node_args::invocation(&args, &environment, mode),
        };
        if config.validator_mode && config.daemon_fast_sync {
            invocation.set = node_args::fast_sync(&invocation.args, &environment);
        }
        match mode {
            Mode::Full => {}
            Mode::Silent => {
                log::warn!("event=silent_start the node starts without --mine until sealing is safe")
            }
            Mode::Dry if config.validator_mode => {
                log::info!("event=dry_start the new binary is tried without peers and without --mine")
            }
            Mode::Dry => log::info!("event=dry_start the new binary is tried, and its last words are kept"),
        }
        let child = Child::spawn(home, &home.binary(&version.target), &invocation, number, stamp)?;
        self.spawned_at = Instant::now();
        let pid = child.pid();
        self.mind(child);
        Ok(pid)
    }

    /// Sends the node a signal and logs the outcome.
    fn signal_child(
        &mut self,
        name: &str,
        send: impl Fn(&Child) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let (sent, whose) = (send(child), format!("signal={name} pid={}", child.pid()));
        let (level, event, text) = match &sent {
            Ok(()) => (Level::Info, "signal_sent", whose),
            Err(e) => (Level::Error, "signal_not_sent", format!("{whose} {e}")),
        };
        self.tell(Notice { level, event, text, history: false });
        sent
    }
}

fn describe(job: &Job) -> String {
    match job {
        Job::Prepare(upgrade) => format!("prepare name={}", upgrade.name),
        Job::Backup(progress) => format!("backup name={}", progress.name),
        Job::Hook { progress, retries } => format!("hook name={} retries={retries}", progress.name),
        Job::Restore(progress) => format!("restore name={}", progress.name),
        Job::Rehearse(upgrade) => format!("rehearse name={}", upgrade.name),
        Job::Ahead { name, bring } => format!("backup_ahead name={name} bring={bring}"),
        Job::Tend { .. } => "tend_backups".to_owned(),
    }
}
