//! The effect loop: it gathers facts, asks the machine, and performs what that decides.
//!
//! ```text
//!  signals ─┐
//!  watcher ─┤ facts  one `Turn`           one event         actions
//!  poller ──┼──────▶ next ─────▶ handle ───────────▶ machine ──────▶ perform ─▶ child, link, recorder
//!  control ─┤         ▲                                 ▲                │
//!  worker ──┘         │ deadline                        └ prompt outcomes┤
//!                     └──────────────── later outcomes ──────────────────┘
//! ```
//!
//! Signals and the child come first, then records, job results, requests, plans, heads, surveys, and the clock. Every
//! lasting thread has a file of its own. A bug in any of them ends the process (`cli::bug`); the node goes on.
//!
//! The journal is the `recorder`'s, a thread. While a node runs the loop does not wait for it: signals, the end of the
//! node and requests are handled while the disk is slow. With no node running nothing else could be done, and
//! the loop waits, so that nothing comes between a record and the start that it allows; a backup that was begun before goes
//! on meanwhile, in the worker.
//!
//! Architecture invariant: nothing in the loop decides, and nothing in it returns early with `?`: an
//! error becomes an event, and the machine knows what to do. Only setting up can fail.

mod child;
mod control;
mod exporter;
mod handover;
mod head_keeper;
mod last_words;
mod left;
mod listeners;
pub mod metrics;
mod minder;
mod node_args;
mod notifier;
mod perform;
mod plans;
mod poller;
mod ports;
mod post_hook;
mod recorder;
mod release;
mod service;
mod signals;
mod surveyor;
mod threads;
mod turn;
mod watcher;
mod worker;

pub use control::{Reply, Request, Status, ask, ask_once};
pub use handover::CAN_RESUME;
pub use poller::endpoints;

use crate::children;
use crate::config::{Config, Loaded, Sources};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::home::durable::Rubbish;
use crate::home::{launch, space};
use crate::machine::{self, Activity, Ask, Ending, Event, Facts, Failure, Level, Machine, Notice, Receipt};
use crate::name::Name;
use crate::schedule::Planned;
use crate::sorted::Set;
use crate::upgrade::{history, sweep};
use child::Child;
use control::Call;
use crossbeam_channel::{Receiver, Sender, bounded};
use handover::Seat;
use head_keeper::HeadKeeper;
use left::Left;
use minder::Minder;
use notifier::{News, Notifier};
use poller::{Poller, PollerOrder};
use ports::Ports;
use post_hook::PostHooks;
use recorder::{Recorder, Written};
use release::Release;
use service::{Service, Standing};
use signals::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};
use surveyor::{Answer, Surveyor};
use threads::start_thread;
use turn::{Channels, Turn};
use worker::{Context, Worker};

/// A turn of the loop that takes longer is reported with what it was about.
const SLOW_TURN: Duration = Duration::from_millis(250);
/// Less free space than this on the data directory's file system counts as a full disk.
const FULL_DISK: u64 = 16 * 1024 * 1024;

/// How long the start of the node may wait for the removal of what was put aside.
const SWEPT: Duration = Duration::from_millis(200);

/// How `run` ended.
#[derive(Debug)]
pub struct End {
    /// The exit code, if it is ours.
    pub exit: Exit,
    /// The node's own end, where that decides the exit code.
    pub node: Option<machine::Status>,
    /// Why.
    pub reason: String,
}

/// Runs the node of a home until the operator, the policy or a halt ends it.
///
/// `sources` are read again on SIGHUP. `args` go to the node unchanged.
///
/// # Errors
/// If the home is taken ([`Kind::Busy`]), cannot be explained ([`Kind::Halted`]) or the operating system
/// refuses what is needed to begin. Nothing was started then.
pub fn run(config: Config, sources: Sources, home: &Home, args: Vec<OsString>) -> Result<End> {
    supervise(config, sources, home, args, None)
}

/// Takes over the node that runs without a supervisor, and stops it as a supervisor does. Starts no node.
///
/// # Errors
/// As [`run`].
pub fn stop(config: Config, sources: Sources, home: &Home, args: Vec<OsString>) -> Result<End> {
    supervise(config, sources, home, args, Some(machine::Request::Stop))
}

fn supervise(
    config: Config,
    sources: Sources,
    home: &Home,
    args: Vec<OsString>,
    order: Option<machine::Request>,
) -> Result<End> {
    let service = Service::connect();
    // First, since much is verified before the loop begins: a signal that comes meanwhile waits for the loop.
    let channels = Channels::new();
    signals::watch(channels.signals.0.clone())?;
    let seat = Seat::take(home)?;
    let swept = remove_beside(sweep::sweep(home));
    become_reaper()?;
    let Left { facts, journal, binaries, node } = Left::read(home, &config)?;
    log::info!(
        "event=started version={} pid={} home={} data={}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        home.root().display(),
        home.data().display()
    );

    control::serve(seat.socket()?, channels.calls.0.clone())?;
    exporter::start(&config, channels.calls.0.clone())?;
    let config = Arc::new(config);
    let mut supervisor = Supervisor {
        context: Context { config: Arc::clone(&config), home: home.clone(), binaries },
        sources,
        args,
        machine: Machine::new(config.policy(), seed(), facts.record.clone()),
        seat,
        recorder: Recorder::start(home, journal, channels.written.clone(), channels.struck.0.clone())?,
        child: None,
        found: node,
        minder: Minder::start(channels.signals.0.clone())?,
        worker: Worker::start(channels.jobs.0.clone(), swept)?,
        watcher: watcher::watch(home, config.daemon_poll_interval, channels.planned.0.clone())?,
        poller: Poller::start(poller::Options::new(&config, home), channels.heads.0.clone())?,
        surveyor: surveyor::start(channels.answers.0.clone())?,
        ports: Ports::default(),
        spawned_at: Instant::now(),
        planned: Arc::default(),
        striking: 0,
        conflicts: Set::default(),
        scheduled: String::new(),
        rpc_trouble: None,
        post_hooks: PostHooks::new(channels.hooks.0.clone()),
        notifier: Notifier::start()?,
        refreshing: Vec::new(),
        callers: BTreeMap::new(),
        next_caller: 0,
        notices: Vec::new(),
        release: Release::start(home, channels.released.0.clone())?,
        head_keeper: head_keeper::start(home)?,
        service,
        receipt: None,
        stage: (Activity::Stopped, Instant::now()),
        end: None,
    };
    if let Some(what) = order {
        supervisor.feed(Event::Request(Ask { reply_to: None, what }));
    }
    Ok(supervisor.run(&channels, facts))
}

/// Orphans of the node come to us, so that they are reaped.
fn become_reaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| Error::new(Kind::Io, "become the reaper of orphans").because(std::io::Error::from(e)))
}

/// A number that differs from one supervisor to the next, so that a fleet's backoffs do not coincide.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
}

/// Removes what was put aside, and waits only a moment for the end of that, since a node must be started. The channel is
/// closed at the end.
fn remove_beside(rubbish: Rubbish) -> Receiver<()> {
    let (ends, ended) = bounded::<()>(0);
    if rubbish.is_empty() {
        return ended;
    }
    let body = move || {
        rubbish.remove();
        drop(ends);
    };
    match start_thread("sweeper", body) {
        Ok(()) => drop(ended.recv_timeout(SWEPT)),
        // The next sweep finds it.
        Err(e) => log::warn!("event=no_thread what was left half-made is not removed: {e}"),
    }
    ended
}

/// The state of the loop, and the handles of the threads.
struct Supervisor {
    context: Context,
    sources: Sources,
    args: Vec<OsString>,
    machine: Machine,
    seat: Seat,
    recorder: Recorder,
    child: Option<Child>,
    /// The node that an earlier supervisor has launched, until it is adopted.
    found: Option<launch::Process>,
    minder: Minder,
    worker: Worker,
    watcher: watcher::Watcher,
    poller: Poller,
    surveyor: Surveyor,
    ports: Ports,
    /// When the node was last executed.
    spawned_at: Instant,
    planned: Arc<Planned>,
    /// The number of cancellations that are on their way to the disk.
    striking: usize,
    conflicts: Set<String>,
    /// The schedule that was logged last.
    scheduled: String,
    /// Hooks of upgrades that were applied.
    post_hooks: PostHooks,
    notifier: Notifier,
    /// Why the node reports no head, while it does not.
    rpc_trouble: Option<String>,
    /// The callers that wait until the files on disk are in force, and for which binary.
    refreshing: Vec<(Option<Name>, Sender<Reply>)>,
    /// The callers that wait for an answer, by number.
    callers: BTreeMap<u64, Sender<Reply>>,
    next_caller: u64,
    /// Notices that go into the history and to the operator's program when the machine is done with its turn: never between
    /// stop and start.
    notices: Vec<Notice>,
    release: Release,
    head_keeper: HeadKeeper,
    service: Service,
    /// The receipt of the last upgrade that has ended.
    receipt: Option<Receipt>,
    /// The state that was seen last, and since when.
    stage: (Activity, Instant),
    end: Option<End>,
}

impl Supervisor {
    fn run(mut self, channels: &Channels, facts: Facts) -> End {
        // First what is planned, then the start: an old binary must not be started at the fork of the next.
        self.learn_plans(channels);
        self.feed(Event::Boot(facts));
        // An earlier supervisor may have ended before it tended them.
        self.feed(Event::BackupsToTend);
        loop {
            if let Some(end) = self.end.take() {
                self.post_hooks.end();
                self.worker.end();
                self.notifier.end(&self.context.config, end.exit);
                return end;
            }
            let wake = self.machine.deadline().map(|(when, _)| when);
            let turn = channels.next(wake.into_iter().chain(self.service.deadline()).min());
            let (begun, name) = (Instant::now(), turn.name());
            self.handle(turn);
            let took = begun.elapsed();
            if took > SLOW_TURN {
                log::warn!("event=slow_turn about={name} took={took:.0?}");
            }
            self.tell_service();
        }
    }

    fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Signal(signal) => self.signalled(signal),
            Turn::Written(written) => self.feed(recorded(written)),
            Turn::Released => self.feed(Event::Released),
            Turn::Job(end) => self.feed(Event::JobDone(end)),
            Turn::Call(call) => self.called(call),
            Turn::Plans(seen) => self.planned(seen),
            Turn::Struck(struck) => self.struck(struck),
            Turn::Head(report) => self.head_reported(report),
            Turn::Answer(answer) => self.answered(answer),
            Turn::HookEnded => self.feed(Event::PostHookEnded),
            Turn::Tick => self.feed(Event::Tick),
        }
    }

    /// Gives the machine an event and performs what it answers, prompt outcomes first, to the end.
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.step(Instant::now(), event) {
                events.extend(self.perform(action));
            }
        }
        // After the machine's turn, so that it never delays a start.
        self.recorder.settle();
        self.poller.pace(self.machine.pace());
        let activity = self.machine.activity();
        if activity != self.stage.0 {
            self.stage = (activity, Instant::now());
        }
        self.pass_on_notices();
    }

    /// Tells the service manager where we are, if there is one.
    fn tell_service(&mut self) {
        let machine = &self.machine;
        self.service.tell(Instant::now(), || Standing {
            is_ready: machine.is_ready(),
            is_ending: machine.is_ending(),
            takes_its_time: machine.takes_its_time(),
            line: machine.line(),
        });
    }

    fn signalled(&mut self, signal: Signal) {
        let request = match signal {
            Signal::Child => return self.reap(),
            Signal::Stop => machine::Request::Stop,
            Signal::Reload => return self.reload(),
            Signal::Dump => machine::Request::Dump,
            Signal::Reexec => machine::Request::Reexec,
            Signal::Ignored(number) => {
                return log::info!("event=signal_ignored signal={}", signals::name(number));
            }
        };
        self.feed(Event::Request(Ask { reply_to: None, what: request }));
    }

    fn reap(&mut self) {
        children::reap_strays();
        let Some(child) = &mut self.child else { return };
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                self.child = None;
                self.rpc_trouble = None;
                self.poller.order(PollerOrder::Rest);
                let environment = self.disk_is_full().or_else(|| self.port_is_taken());
                let last_words = last_words::take(&self.context.home);
                self.feed(Event::Exited(Ending { status, environment, last_words }));
            }
            Err(e) => log::error!("event=wait_failed {e}"),
        }
    }

    /// A node whose disk is full ends, whichever binary it is.
    fn disk_is_full(&self) -> Option<String> {
        let data = self.context.home.data();
        let free = space::free(data).ok()?;
        (free < FULL_DISK).then(|| format!("the disk of {} is full ({free} bytes left)", data.display()))
    }

    /// A node whose port is taken ends or hangs, whichever binary it is. It matters to an upgrade only, and looking
    /// takes a while.
    fn port_is_taken(&mut self) -> Option<String> {
        let upgrade = self.machine.record().upgrade.as_ref();
        upgrade.filter(|u| u.phase == machine::Phase::Trying)?;
        self.ports.taken()
    }

    fn reload(&mut self) {
        self.service.reloading();
        let fits = |loaded: Loaded| {
            loaded.check_trust()?;
            loaded.check_args(&self.args).0.into_result().map(|()| loaded)
        };
        let loaded = match Config::load(&self.sources).and_then(fits) {
            Ok(loaded) => loaded,
            Err(problems) => {
                problems.0.iter().for_each(|problem| log::error!("event=config_problem {problem}"));
                return log::error!("event=config_not_reloaded the old one stays in force");
            }
        };
        let old = &self.context.config;
        let config = Config {
            daemon_home: old.daemon_home.clone(),
            daemon_name: old.daemon_name.clone(),
            daemon_data_dir: old.daemon_data_dir.clone(),
            log_level: old.log_level,
            log_format: old.log_format,
            log_color: old.log_color,
            metrics_address: old.metrics_address,
            unsafe_metrics_public: old.unsafe_metrics_public,
            metrics_textfile: old.metrics_textfile.clone(),
            ..loaded.config.clone()
        };
        for key in loaded.config.differences(&config) {
            log::warn!("event=config_needs_restart key={} it keeps its old value until then", key.name);
        }
        for key in config.differences(old) {
            log::info!("event=config_changed key={}", key.name);
        }
        log::info!("event=config_reloaded");
        self.context.config = Arc::new(config);
        self.watcher.pace(self.context.config.daemon_poll_interval);
        let options = poller::Options::new(&self.context.config, &self.context.home);
        self.poller.order(PollerOrder::Reconfigure(options));
        self.feed(Event::Policy(self.context.config.policy()));
    }

    fn called(&mut self, (request, caller): Call) {
        let what = match request {
            Request::Status => {
                // A caller that has gone needs no answer.
                let _ = caller.send(Reply::Status(self.status()));
                return;
            }
            Request::Head => {
                let period_ms = u64::try_from(self.machine.period().as_millis()).unwrap_or(u64::MAX);
                let _ = caller.send(Reply::Head { height: self.machine.head(), period_ms });
                return;
            }
            Request::Stop => machine::Request::Stop,
            Request::Restart => machine::Request::Restart,
            Request::Detach => machine::Request::Detach,
            Request::Reexec => machine::Request::Reexec,
            Request::UpgradeNow { name } => machine::Request::UpgradeNow(name),
            Request::Rollback { order } => machine::Request::Rollback(order),
            Request::CancelRollback => machine::Request::CancelRollback,
            Request::Cancel { name } => machine::Request::Cancel(name),
            Request::Sign { at } => machine::Request::Sign(at),
            Request::ResetHead => machine::Request::ResetHead,
            Request::Refresh { binary } => return self.refresh(binary, caller),
        };
        self.next_caller += 1;
        self.callers.insert(self.next_caller, caller);
        self.feed(Event::Request(Ask { reply_to: Some(self.next_caller), what }));
    }

    fn answer(&mut self, to: u64, reply: Reply) {
        if let Some(caller) = self.callers.remove(&to) {
            let _ = caller.send(reply);
        }
    }

    fn head_reported(&mut self, report: poller::Report) {
        // Reports about the previous process no longer count.
        if self.child.as_ref().is_none_or(|c| c.pid() != report.pid) {
            return;
        }
        match report.head {
            Ok(head) => {
                self.rpc_trouble = None;
                self.ports.hear(report.pid, head.block.height);
                self.feed(Event::Head(head));
            }
            Err(why) => self.rpc_trouble = Some(why),
        }
    }

    fn answered(&mut self, answer: Answer) {
        if self.child.as_ref().is_some_and(|c| c.pid() == answer.pid) {
            self.feed(answer.event);
        }
    }

    fn tell(&mut self, notice: Notice) {
        let level = match notice.level {
            Level::Error => log::Level::Error,
            Level::Warn => log::Level::Warn,
            Level::Info => log::Level::Info,
        };
        log::log!(level, "event={} {}", notice.event, notice.text);
        self.notices.push(notice);
    }

    fn pass_on_notices(&mut self) {
        let record = self.machine.record();
        let (upgrade, height) = (record.upgrade.as_ref().map(|p| &p.name), self.machine.head());
        let ended = record.ended.last().map(|ended| ended.outcome);
        for notice in self.notices.drain(..) {
            if notice.history {
                self.recorder.note(history::Entry::new(notice.event, upgrade, height, notice.text.clone()));
            }
            let Some(event) = notifier::event_of(notice.event, ended) else { continue };
            // Most of them name their upgrade first.
            let named = notice.text.strip_prefix("name=").and_then(|text| text.split(' ').next());
            let upgrade = named.map(str::to_owned).or_else(|| upgrade.map(ToString::to_string));
            let version = self.machine.version().target.to_string();
            self.notifier.tell(&self.context, News { event, notice, version, height, upgrade });
        }
    }

    fn status(&self) -> Status {
        let problems = self.planned.problems.iter().chain(self.conflicts.iter()).cloned().collect();
        let mut view = self.machine.view();
        view.state_age_ms = u64::try_from(self.stage.1.elapsed().as_millis()).ok();
        for plan in &mut view.planned {
            plan.download = self.context.binaries.downloads.of(&plan.name);
        }
        Status {
            running: true,
            pid: Some(std::process::id()),
            supervisor_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            home: self.context.home.root().to_owned(),
            view,
            rpc_trouble: self.rpc_trouble.clone(),
            problems,
            counters: metrics::Counters::now(),
            receipt: self.receipt.clone(),
        }
    }
}

/// The outcome of a record, as the machine knows it.
fn recorded(written: Written) -> Event {
    written.map_or_else(|e| Event::RecordFailed(failure(&e)), |()| Event::Recorded)
}

fn failure(err: &Error) -> Failure {
    crate::upgrade::classify(err, None)
}
