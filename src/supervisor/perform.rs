//! The effects: each action of the machine, performed in the loop or handed to a thread.

use super::child::Child;
use super::control::Reply;
use super::surveyor::Order;
use super::{End, Supervisor, failure, node_args, poller, recorded};
use crate::error::{Error, Kind, Result};
use crate::home::durable;
use crate::machine::{Action, Class, Event, Failure, Job, Mode, Target, Version};
use crate::upgrade::node_args::Changes;
use std::time::Instant;

impl Supervisor {
    /// Performs one action. The outcome of a prompt one is returned; that of any other comes later.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Record(record) => {
                self.recorder.write(record);
                // A node that runs is not kept waiting for a disk. Without one there is nothing else to do.
                if self.child.is_some() { None } else { Some(recorded(self.recorder.wait())) }
            }
            Action::Link(target) => Some(match self.link(&target) {
                Ok(()) => Event::Linked,
                Err(e) => Event::LinkFailed {
                    failure: failure(&e),
                    leads_to: self.context.home.read_current_link().ok(),
                },
            }),
            Action::Inspect(version) => {
                Some(match self.context.verified.check(&self.context.home, &version) {
                    Ok(_) => Event::Inspected,
                    Err(e) => Event::InspectFailed(failure(&e)),
                })
            }
            Action::Adopt => {
                self.adopt();
                None
            }
            Action::Spawn { version, mode, launch } => Some(match self.spawn(&version, mode, launch) {
                Ok(pid) => Event::Spawned { pid },
                Err(failure) => Event::SpawnFailed(failure),
            }),
            Action::Reexec { reply_to } => {
                let failed = self.reexec();
                log::error!("event=reexec_failed {failed}");
                if let Some(to) = reply_to {
                    self.answer(to, Reply::Refused(failed.to_string()));
                }
                None
            }
            Action::AwaitRelease => {
                let pattern = self.data_path(&self.context.config.daemon_node_lock);
                self.release.watch(pattern);
                None
            }
            Action::Terminate => {
                let sent = self.signal_child("SIGTERM", Child::terminate);
                let failed = |e: std::io::Error| Failure::new(Class::Environment, e.to_string());
                Some(sent.map_or_else(|e| Event::NotTerminated(failed(e)), |()| Event::Terminated))
            }
            Action::Kill => {
                // A failure is logged; the end of the node is waited for in any case.
                let _ = self.signal_child("SIGKILL", Child::kill);
                None
            }
            Action::Start(job) => {
                // A preparation is told of by the machine, once; it may be tried many times.
                let is_often = matches!(job, Job::Prepare(_) | Job::Ahead { .. } | Job::Tend { .. });
                let level = if is_often { log::Level::Debug } else { log::Level::Info };
                log::log!(level, "event=job_begun job={}", describe(&job));
                self.worker.begin(job, self.context.clone());
                None
            }
            Action::CancelJob => {
                self.worker.cancel();
                None
            }
            Action::Confirm => {
                self.poller.confirm();
                None
            }
            Action::Trace { from, to } => {
                self.ask_node(Order::Trace { from, to });
                None
            }
            Action::Identify => {
                self.ask_node(Order::Identify);
                None
            }
            Action::KeepHead(record) => {
                self.head_keeper.keep(Some(record));
                None
            }
            Action::ForgetHead => {
                self.head_keeper.keep(None);
                None
            }
            Action::Survey => {
                self.ask_node(Order::Survey);
                None
            }
            Action::Recall { height } => {
                self.ask_node(Order::Recall { height });
                None
            }
            Action::StartSealing => {
                self.ask_node(Order::StartSealing);
                None
            }
            Action::StopSealing => {
                self.ask_node(Order::StopSealing);
                None
            }
            Action::Greet { validators, turn } => {
                self.ask_node(Order::Greet { validators, turn });
                None
            }
            Action::Unpeer => {
                self.ask_node(Order::Unpeer);
                None
            }
            Action::Strike { name, reply_to } => {
                self.strike(name, reply_to);
                None
            }
            Action::Answer { to, reply } => {
                self.answer(to, reply.map_or_else(Reply::Refused, Reply::Done));
                None
            }
            Action::AfterUpgrade(progress) => {
                self.afterwards.begin(self.context.clone(), progress);
                None
            }
            Action::Tell(notice) => {
                self.tell(notice);
                None
            }
            Action::Exit { exit, node, reason } => {
                self.end = Some(End { exit, node, reason });
                None
            }
        }
    }

    /// Has `current` lead to a version. A new one is verified once more: backup and hook may have taken hours.
    fn link(&self, target: &Target) -> Result<()> {
        let new = self.machine.record().upgrade.as_ref().map(|attempt| &attempt.to);
        if let Some(new) = new.filter(|new| new.target == *target) {
            self.context.verified.check(&self.context.home, new)?;
        }
        durable::link(std::path::Path::new(&target.to_string()), &self.context.home.current())
    }

    fn ask_node(&self, order: Order) {
        if let Some(child) = &self.child {
            let options = poller::Options::new(&self.context.config, &self.context.home);
            self.surveyor.order(child.pid(), self.spawned, options, order);
        }
    }

    /// It returns only if the program at our path could not be executed.
    fn reexec(&mut self) -> Error {
        if !self.recorder.drain() {
            let why = "the disk does not take what is still to be written; nothing has changed";
            return Error::new(Kind::Io, why);
        }
        self.seat.hand_over()
    }

    /// Takes the node over that an earlier supervisor has launched.
    fn adopt(&mut self) {
        let Some(process) = self.found.take() else { return };
        self.spawned = Instant::now().checked_sub(process.age).unwrap_or_else(Instant::now);
        self.mind(Child::adopt(process));
    }

    /// Follows a node that runs, to its end.
    fn mind(&mut self, child: Child) {
        self.minder.mind(child.pidfd(), child.pid());
        self.poller.follow(child.pid());
        self.child = Some(child);
    }

    fn spawn(&mut self, version: &Version, mode: Mode, number: u64) -> Result<u32, Failure> {
        let home = &self.context.home;
        let stamp = self.context.verified.check(home, version).map_err(|e| failure(&e))?;
        let config = &self.context.config;
        let fast_sync = config.validator_mode && config.daemon_fast_sync;
        let args = Changes::of(home, &version.target).map_err(|e| failure(&e))?.apply(&self.args);
        let launch = node_args::launch(&args, std::env::vars_os(), mode, fast_sync);
        match mode {
            Mode::Full => {}
            Mode::Silent => {
                log::warn!("event=silent_start the node starts without --mine until sealing is safe")
            }
            Mode::Dry => {
                log::info!("event=dry_start the new binary is tried without peers and without --mine")
            }
        }
        let child = Child::spawn(home, &home.binary(&version.target), &launch, number, stamp)?;
        self.spawned = Instant::now();
        let pid = child.pid();
        self.mind(child);
        Ok(pid)
    }

    /// Sends the node a signal and logs the outcome.
    fn signal_child(&self, name: &str, send: impl Fn(&Child) -> std::io::Result<()>) -> std::io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let sent = send(child);
        match &sent {
            Ok(()) => log::info!("event=signal_sent signal={name} pid={}", child.pid()),
            Err(e) => log::error!("event=signal_not_sent signal={name} pid={} {e}", child.pid()),
        }
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
