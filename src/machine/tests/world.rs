//! A toy world: a disk, a node process, a worker and a clock, on which actions are performed at once.
//!
//! The next input is chosen from outside, one [`Input`] at a time, among what [`World::possible`] says.
//! The supervisor's loop keeps its contract here: the outcome of a prompt action is delivered before
//! anything else, that of a record which is written beside a node at any time, and what the machine asks for is what it
//! gets.

use super::laws::Truth;
use super::transcript::is_routine;
use super::*;
use crate::exit::Exit;

/// How much may happen at most until all is at rest.
pub(super) const SETTLED: usize = 1_000;

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    /// The prompt action succeeds.
    Ok,
    /// The prompt action fails and has no effect.
    Fail(Class),
    /// The prompt action fails and has its effect all the same: only its fsync has failed.
    FailLate(Class),
    /// Nothing holds the locks any more.
    Release,
    /// The next SIGTERM cannot be sent.
    Unsent,
    /// The node process ends.
    Exit(Status),
    /// The node process ends because the disk is full.
    Full,
    /// The node tells this head.
    Head(u64),
    /// The head rises to this, and the node does not tell.
    Unheard(u64),
    /// The job is done and has succeeded.
    Done,
    /// The job has failed, or a hook has.
    Failed(Class),
    /// The hook wants the old binary to stay.
    Abort,
    /// The hook wants to be run again.
    Retry,
    /// The operator asks.
    Ask(Request),
    /// The schedule changes.
    Plan(Vec<Upgrade>),
    /// The configuration changes.
    Configure(Policy),
    /// Time passes until the machine's deadline.
    Tick,
    /// Time passes; the machine is woken at its deadlines. If it then acts, the rest does not pass.
    Pass(Duration),
    /// The supervisor is killed: before or after the effect of a pending prompt action.
    Die { effect: bool, node: Fate },
    /// The node of a supervisor that has died ends too.
    Follow,
    /// The supervisor is started again.
    Boot,
}

/// The fate of a node whose supervisor is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It dies at once.
    Dies,
    /// It stays for a while, and its head stays too.
    Lingers,
    /// It stays for a while, and its head rises unseen.
    Rises,
}

/// A node process.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Process {
    pub(super) target: Target,
    pub(super) mode: Mode,
    /// Whether it has told a head.
    pub(super) heard: bool,
    pub(super) terminated: bool,
    pub(super) killed: bool,
    /// Whether its supervisor has died, so that nothing is heard of it any more.
    pub(super) orphan: bool,
    /// Whether another supervisor has taken it over since.
    pub(super) adopted: bool,
}

/// The world.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) schedule: Vec<Arc<Upgrade>>,
    /// Whether upgrades come with a hook.
    pub(super) hook: bool,
    /// The record that was acknowledged last.
    pub(super) record: Record,
    /// A later one that is on disk, though its write has failed.
    pub(super) unacknowledged: Option<Record>,
    /// Whether the next SIGTERM cannot be sent.
    pub(super) unsent: bool,
    /// Whether the last write of a record has failed.
    pub(super) unwritten: bool,
    /// The chain that the node is on: what its hashes begin with.
    pub(super) chain: &'static str,
    /// The head record on disk.
    pub(super) head_record: Option<HeadRecord>,
    /// Where `current` points on disk.
    pub(super) link: Target,
    /// The head in the node's data.
    pub(super) head: u64,
    pub(super) now: Instant,
    /// When time began.
    pub(super) epoch: Instant,
    /// `None` while the supervisor is dead.
    pub(super) machine: Option<Machine>,
    /// The prompt action, or the record, whose outcome is to come.
    pub(super) pending: Option<Action>,
    /// Whether it is a record that was sent while a node ran: all else goes on meanwhile.
    pub(super) is_beside: bool,
    /// Whether the machine waits for the locks.
    pub(super) awaiting: bool,
    pub(super) process: Option<Process>,
    /// The launch that the lock names.
    pub(super) launched: Option<u64>,
    /// The job, and whether it was asked to end.
    pub(super) job: Option<(Job, bool)>,
    /// How the supervisor has ended, if it has.
    pub(super) end: Option<(Exit, String)>,
    pub(super) truth: Truth,
    /// The actions of the last step, for transcripts.
    pub(super) done: Vec<Action>,
}

impl World {
    /// A home on which `genesis` is to run, with a supervisor that is about to start.
    pub(super) fn new(policy: Policy, schedule: Vec<Upgrade>) -> World {
        let now = Instant::now() + Duration::from_secs(1_000_000);
        World {
            policy,
            schedule: schedule.into_iter().map(Arc::new).collect(),
            hook: false,
            record: Record { chain: Some(chain()), ..Record::new(version(&Target::Genesis)) },
            unacknowledged: None,
            unsent: false,
            unwritten: false,
            chain: "0x",
            head_record: Some(HeadRecord::new(block(H - 10))),
            link: Target::Genesis,
            head: H - 10,
            now,
            epoch: now,
            machine: None,
            pending: None,
            is_beside: false,
            awaiting: false,
            process: None,
            launched: None,
            job: None,
            end: None,
            truth: Truth::default(),
            done: Vec::new(),
        }
    }

    /// Lets `input` happen. The error says which law the machine has broken.
    pub(super) fn step(&mut self, input: &Input) -> Result<(), String> {
        self.done.clear();
        // A binary that was looked at before a record was sent was looked at for it.
        if matches!(input, Input::Boot) || matches!(input, Input::Head(_)) && self.pending.is_none() {
            self.truth.inspected = None;
        }
        match input {
            Input::Ok => self.succeed()?,
            Input::Fail(class) => self.fail(*class, false)?,
            Input::FailLate(class) => self.fail(*class, true)?,
            Input::Release => {
                self.awaiting = false;
                self.feed(Event::Released)?;
            }
            Input::Unsent => {
                self.unsent = true;
            }
            Input::Exit(status) => self.exit(*status, None)?,
            Input::Full => self.exit(Status::Code(1), Some("disk full".to_owned()))?,
            Input::Head(height) => {
                self.head = *height;
                let running = self.process.clone().expect("a node runs");
                self.truth.rises(&running, *height);
                self.process.iter_mut().for_each(|process| process.heard = true);
                let told = self.told(*height);
                self.feed(Event::Head(told))?;
            }
            Input::Unheard(height) => {
                self.head = *height;
                let running = self.process.clone().expect("a node runs");
                self.truth.rises(&running, *height);
            }
            Input::Done | Input::Failed(_) | Input::Abort | Input::Retry => {
                let (job, _) = self.job.take().expect("a job runs");
                let end = self.outcome(&job, input);
                self.feed(Event::JobDone(end))?;
            }
            Input::Ask(request) => {
                self.truth.asked(request);
                self.feed(Event::Request(Ask { reply_to: Some(1), what: request.clone() }))?;
                self.truth.is_answered(&self.done)?;
            }
            Input::Plan(upgrades) => {
                self.schedule = upgrades.iter().cloned().map(Arc::new).collect();
                self.feed(Event::Schedule(self.schedule.clone()))?;
            }
            Input::Configure(policy) => {
                self.policy = policy.clone();
                self.feed(Event::Policy(policy.clone()))?;
            }
            Input::Tick => {
                let (at, _) = self.machine.as_ref().and_then(Machine::deadline).expect("there is a deadline");
                self.now = at;
                self.feed(Event::Tick)?;
            }
            Input::Pass(time) => self.pass(*time)?,
            Input::Die { effect, node } => self.die(*effect, *node)?,
            Input::Follow => {
                self.process = None;
                self.truth.unclean = true;
            }
            Input::Boot => self.boot()?,
        }
        self.look()
    }

    /// Lets everything go well until the chain is at `height` and nothing is under way, or the supervisor
    /// has ended. `seen` is told each step.
    pub(super) fn settle(&mut self, height: u64, mut seen: impl FnMut(&World, &Input)) -> Result<(), String> {
        for _ in 0..SETTLED {
            if self.settle_on(height, &mut seen)? {
                return Ok(());
            }
        }
        Err("it comes to rest".to_owned())
    }

    /// The next thing that happens on the way there. Returns whether there is none.
    pub(super) fn settle_on(
        &mut self,
        height: u64,
        seen: &mut impl FnMut(&World, &Input),
    ) -> Result<bool, String> {
        let input = match &self.process {
            _ if self.end.is_some() => return Ok(true),
            _ if self.machine.is_none() => Input::Boot,
            Some(process) if process.orphan => Input::Follow,
            _ if self.pending.is_some() => Input::Ok,
            _ if self.job.as_ref().is_some_and(|(_, cancelled)| *cancelled) => {
                Input::Failed(Class::Cancelled)
            }
            _ if self.job.is_some() => Input::Done,
            Some(process) if process.killed => Input::Exit(Status::Signal(9)),
            Some(process) if process.terminated => Input::Exit(Status::Code(0)),
            Some(_) if self.head >= height && self.record.upgrade.is_none() => return Ok(true),
            Some(_) => {
                self.step(&Input::Pass(Duration::from_secs(10)))?;
                if self.pending.is_some() || self.process.as_ref().is_none_or(|p| p.terminated) {
                    return Ok(false);
                }
                Input::Head(self.head + 5)
            }
            None if self.awaiting => Input::Release,
            None => Input::Tick,
        };
        seen(self, &input);
        self.step(&input)?;
        Ok(false)
    }

    /// Lets everything go well but for records, of which none is written any more, until a node runs or the supervisor
    /// has ended. Returns whether that comes about (I12), or a decision keeps the node down.
    pub(super) fn runs_without_records(&mut self) -> Result<bool, String> {
        for _ in 0..100 {
            let input = match &self.process {
                _ if self.end.is_some() => return Ok(true),
                _ if self.machine.is_none() => Input::Boot,
                _ if matches!(self.pending, Some(Action::Record(_))) => Input::Fail(Class::Environment),
                _ if self.pending.is_some() => Input::Ok,
                Some(process) if process.killed => Input::Exit(Status::Signal(9)),
                Some(process) if process.terminated => Input::Exit(Status::Code(0)),
                Some(_) => return Ok(true),
                _ if self.job.as_ref().is_some_and(|(_, cancelled)| *cancelled) => {
                    Input::Failed(Class::Cancelled)
                }
                _ if self.job.is_some() => Input::Done,
                None if self.awaiting => Input::Release,
                None => Input::Tick,
            };
            self.step(&input)?;
        }
        let machine = self.machine.as_ref().expect("the supervisor lives");
        Ok(machine.held().is_some() || machine.is_fork_reached(self.now))
    }

    /// The state of the world, in a word.
    pub(super) fn outcome_in_a_word(&self) -> String {
        match (&self.end, &self.process) {
            (Some((exit, _)), _) => format!("{exit:?}").to_lowercase(),
            (None, Some(process)) => format!("{} runs", process.target),
            (None, None) => "nothing runs".to_owned(),
        }
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now + time;
        while let Some((at, _)) =
            self.machine.as_ref().and_then(Machine::deadline).filter(|(at, _)| *at <= until)
        {
            self.now = at;
            self.feed(Event::Tick)?;
            if !self.done.iter().all(is_routine) {
                return Ok(());
            }
        }
        self.now = until;
        Ok(())
    }

    fn boot(&mut self) -> Result<(), String> {
        self.end = None;
        self.truth.forgets();
        if let Some(record) = self.unacknowledged.take() {
            // That was looked at when it was written.
            self.truth.inspected = record.upgrade.as_ref().map(|attempt| attempt.to.target.clone());
            self.truth.recorded(&self.record, &record)?;
            self.record = record;
        }
        self.unwritten = false;
        self.machine = Some(Machine::new(self.policy.clone(), 7, self.record.clone()));
        let head = self.head_record.clone();
        let age = self.truth.executed_at.map_or(Duration::ZERO, |at| self.now.duration_since(at));
        let alive = |p: &Process| Alive { pid: 1, sha256: version(&p.target).sha256, age };
        let process = self.process.as_ref();
        let launched = self.launched.map(|launch| Launched { launch, alive: process.map(alive) });
        let facts =
            Facts { record: self.record.clone(), link: version(&self.link), head, has_data: false, launched };
        self.feed(Event::Schedule(self.schedule.clone()))?;
        self.feed(Event::Boot(facts))
    }

    fn feed(&mut self, event: Event) -> Result<(), String> {
        let machine = self.machine.as_mut().expect("the supervisor lives");
        let actions = machine.step(self.now, event);
        for action in &actions {
            self.perform(action)?;
        }
        let answers: Vec<Event> = actions.iter().filter_map(|action| self.answer(action)).collect();
        self.unsent &= !actions.contains(&Action::Terminate);
        self.done.extend(actions);
        for event in answers {
            self.feed(event)?;
        }
        if self.end.is_some() {
            // A supervisor ends when all is written.
            if let Some(action) = self.pending.take() {
                self.effect(&action)?;
            }
            self.machine = None;
            self.awaiting = false;
            self.job = None;
        }
        Ok(())
    }

    /// Performs an action as far as it has effects at once; the laws are checked first.
    fn perform(&mut self, action: &Action) -> Result<(), String> {
        self.check(action)?;
        match action {
            Action::Record(_) | Action::Link(_) | Action::Inspect(_) | Action::Spawn { .. } => {
                self.pending = Some(action.clone());
                self.is_beside = matches!(action, Action::Record(_)) && self.process.is_some();
            }
            Action::AwaitRelease => self.awaiting = true,
            Action::Reexec { .. } => {}
            Action::Adopt => {
                let asked = self
                    .record
                    .upgrade
                    .as_ref()
                    .is_some_and(|attempt| attempt.asked && attempt.phase == Phase::Stopping);
                if let Some(process) = &mut self.process {
                    (process.orphan, process.adopted) = (false, true);
                    // Where that is not on record it may be asked again, once.
                    process.terminated &= asked;
                }
            }
            Action::Terminate => {
                if let Some(process) = &mut self.process {
                    process.terminated = !self.unsent;
                }
                // One that could not be sent was the same stop.
                self.truth.stopping_since.get_or_insert(self.now);
            }
            Action::Kill => {
                if let Some(process) = &mut self.process {
                    process.killed = true;
                }
            }
            Action::Start(job) => self.job = Some((job.clone(), false)),
            Action::CancelJob => {
                if let Some((_, cancelled)) = &mut self.job {
                    *cancelled = true;
                }
            }
            Action::Strike { name, .. } => self.schedule.retain(|u| u.name != *name),
            Action::Exit { exit, reason, .. } => self.end = Some((*exit, reason.clone())),
            Action::KeepHead(record) => {
                self.truth.kept(self.head_record.as_ref(), record)?;
                self.head_record = Some(record.clone());
            }
            Action::ForgetHead => self.head_record = None,
            Action::ReadPlans
            | Action::Survey
            | Action::Recall { .. }
            | Action::Trace { .. }
            | Action::Identify
            | Action::StartSealing
            | Action::StopSealing
            | Action::Unpeer
            | Action::Greet { .. }
            | Action::Confirm
            | Action::Answer { .. }
            | Action::Tell(_)
            | Action::AfterUpgrade(_)
            | Action::Receipt(_) => {}
        }
        Ok(())
    }

    /// The head at a height as the node tells it.
    fn told(&self, height: u64) -> Head {
        let on_its_chain = |hash: String| hash.replacen("0x", self.chain, 1);
        let head = told(height);
        let block = Block { hash: head.block.hash.map(on_its_chain), ..head.block };
        Head { block, parent: head.parent.map(on_its_chain), ..head }
    }

    /// The answers that the node gives at once. No survey is answered here.
    fn answer(&self, action: &Action) -> Option<Event> {
        Some(match action {
            Action::Identify => Event::Identified(Ok(chain())),
            Action::Recall { height } => {
                let none = Block { height: *height, hash: None };
                let known = if *height <= self.head { self.told(*height).block } else { none };
                Event::Recalled(Ok(Recollection { block: known, client_version: None, forks: None }))
            }
            Action::Trace { from, to } => {
                Event::Traced(Ok((*from..=*to).map(|height| self.told(height)).collect()))
            }
            Action::Unpeer => Event::Unpeered(Ok(3)),
            Action::Greet { .. } => Event::Greeted(Ok(None)),
            Action::Terminate if self.unsent => {
                Event::NotTerminated(Failure::new(Class::Environment, "it failed"))
            }
            Action::Terminate => Event::Terminated,
            Action::Confirm => Event::Head(self.told(self.head)),
            Action::AfterUpgrade(_) => Event::PostHookEnded,
            _ => return None,
        })
    }

    /// The effect of a pending prompt action on the world.
    fn effect(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Record(record) => {
                self.truth.recorded(&self.record, record)?;
                self.record = record.clone();
                (self.unacknowledged, self.unwritten) = (None, false);
            }
            Action::Link(target) => self.link = target.clone(),
            Action::Inspect(version) => self.truth.inspected = Some(version.target.clone()),
            Action::Spawn { version, mode, launch } => {
                self.launched = Some(*launch);
                self.truth.executed(version, *mode, self.head, self.now);
                let (target, mode) = (version.target.clone(), *mode);
                self.process = Some(Process {
                    target,
                    mode,
                    heard: false,
                    terminated: false,
                    killed: false,
                    orphan: false,
                    adopted: false,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn succeed(&mut self) -> Result<(), String> {
        let action = self.pending.take().expect("a prompt action is pending");
        self.effect(&action)?;
        self.feed(match action {
            Action::Record(_) => Event::Recorded,
            Action::Link(_) => Event::Linked,
            Action::Inspect(_) => Event::Inspected,
            _ => Event::Spawned { pid: 1 },
        })
    }

    fn fail(&mut self, class: Class, late: bool) -> Result<(), String> {
        let failure = Failure::new(class, "it failed");
        let event = match self.pending.take().expect("a prompt action is pending") {
            Action::Record(record) => {
                self.unwritten = true;
                if late {
                    self.truth.clone().recorded(&self.record, &record)?;
                    self.unacknowledged = Some(record);
                }
                Event::RecordFailed(failure)
            }
            Action::Link(target) => {
                if late {
                    self.link = target;
                }
                Event::LinkFailed { failure, leads_to: Some(self.link.clone()) }
            }
            Action::Inspect(_) => Event::InspectFailed(failure),
            _ => Event::SpawnFailed(failure),
        };
        self.feed(event)
    }

    fn exit(&mut self, status: Status, environment: Option<String>) -> Result<(), String> {
        let process = self.process.take().expect("a node runs");
        let status = if process.adopted { Status::Unknown } else { status };
        self.truth.stopping_since = None;
        // It ended before it could have done anything to the data.
        let at_once =
            self.truth.executed_at.is_some_and(|at| self.now.duration_since(at) < Duration::from_secs(1));
        let is_harmless =
            self.policy.watch_height && !process.heard && (process.mode != Mode::Full || at_once);
        self.truth.unclean = match status {
            Status::Code(_) if is_harmless => self.truth.unclean,
            Status::Code(0) => false,
            // A chain whose node stops by itself may do so with any code, once its data is closed.
            Status::Code(_) => self.policy.watch_height,
            Status::Signal(signal) => signal != 15 || !process.terminated,
            Status::Unknown => !process.terminated || self.policy.validator,
        };
        self.feed(Event::Exited(Ending { status, environment, last_words: None }))
    }

    fn outcome(&mut self, job: &Job, input: &Input) -> JobEnd {
        let result = match input {
            Input::Failed(class) => Err(Failure::new(*class, "it failed")),
            _ => Ok(()),
        };
        match job {
            Job::Prepare(upgrade) => {
                let target = Target::Upgrade(upgrade.name.clone());
                if result.is_ok() {
                    self.truth.verified.insert(target.clone());
                }
                let ready = Ready { hook: self.hook, ..Ready::new(version(&target)) };
                JobEnd::Prepared(upgrade.name.clone(), result.map(|()| ready))
            }
            Job::Backup(progress) => {
                JobEnd::BackedUp(result.map(|()| format!("{}-1", progress.name).as_str().into()))
            }
            Job::Restore(_) => JobEnd::Restored(result),
            Job::Rehearse(upgrade) => {
                let verdict = match input {
                    Input::Abort => Rehearsal::Failed("it does not stop".to_owned()),
                    _ => Rehearsal::Passed,
                };
                JobEnd::Rehearsed(upgrade.name.clone(), result.map(|()| verdict))
            }
            Job::Ahead { name, .. } => {
                JobEnd::Ahead(name.clone(), result.map(|()| Ahead { rest: Duration::from_secs(1) }))
            }
            Job::Tend { .. } => JobEnd::Tended(result.map(|()| Tended::default())),
            Job::Hook { .. } => JobEnd::Hooked(match (input, result) {
                (Input::Abort, _) => HookEnd::Abort("not now".to_owned()),
                (Input::Retry, _) => HookEnd::Retry("not yet".to_owned()),
                (_, Err(failure)) => HookEnd::Failed(failure),
                (_, Ok(())) => HookEnd::Continue,
            }),
        }
    }

    fn die(&mut self, effect: bool, node: Fate) -> Result<(), String> {
        if let Some(action) = self.pending.take()
            && effect
        {
            self.effect(&action)?;
        }
        self.machine = None;
        self.awaiting = false;
        self.job = None;
        if let Some(process) = &mut self.process {
            process.orphan = true;
            if node == Fate::Rises {
                self.head += 1;
                let running = process.clone();
                self.truth.rises(&running, self.head);
            }
        }
        if node == Fate::Dies {
            self.truth.unclean |= self.process.take().is_some();
        }
        Ok(())
    }
}

/// The chain of this home.
fn chain() -> Chain {
    Chain { id: 1, genesis: "0x00".to_owned() }
}

/// The block of the chain at a height.
pub(super) fn block(height: u64) -> Block {
    Block { height, hash: Some(format!("{height:#x}")) }
}

/// The block of a height as a node tells it.
pub(super) fn told(height: u64) -> Head {
    let parent = height.checked_sub(1).and_then(|parent| block(parent).hash);
    Head { block: block(height), parent, timestamp: None, proposer: None, heard_at: 0 }
}
