//! The simulation: events in the order of their times, and the hands of the supervisors, which perform what the machines
//! ask for.

use super::chain::{Chain as Tree, Id};
use super::dice::Dice;
use super::home::{Home, target};
use super::scenario::Scenario;
use super::*;
use crate::exit::Exit;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// The events that are shown of a run that broke a law.
const STORY: usize = 60;

/// A question to a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    Confirm,
    Survey,
    Recall(u64),
    Trace(u64, u64),
    Identify,
    StartSealing,
    StopSealing,
    Unpeer,
    Greet(u32),
}

/// An event at a time, mostly of the node process of a number.
#[derive(Debug, Clone)]
pub(super) enum What {
    Boot(usize),
    Wake(usize),
    Released(usize, u32),
    Written(usize, u32, Box<Event>),
    JobDone(usize, u32),
    Answers(usize, u32),
    Engine(usize, u32),
    Open(usize, u32),
    Drop(usize, u32),
    Redial(usize, u32),
    Sync(usize, u32),
    Import(usize, u32, Id),
    Answer(usize, u32, Question),
    Gone(usize, u32, Status),
    Killed(usize, u32, Status),
    Round(Id, u32),
    Fault(usize),
    Foreign(usize, u64),
    Look,
}

struct Timed {
    at: u64,
    number: u64,
    what: What,
}

pub(super) struct Sim {
    pub(super) scenario: Scenario,
    pub(super) dice: Dice,
    /// Milliseconds since the beginning.
    pub(super) now: u64,
    base: Instant,
    queue: BinaryHeap<Timed>,
    number: u64,
    pub(super) chain: Tree,
    pub(super) homes: Vec<Home>,
    /// The next round at each head, and the last one that was had.
    pub(super) rounds: BTreeMap<Id, (u64, u32)>,
    pub(super) rounds_done: BTreeMap<Id, (u64, u32)>,
    /// The set before the last change, and the height of that.
    pub(super) before: (Vec<usize>, u64),
    /// The nodes that have proposed the last block of all again, by its height.
    pub(super) stale: BTreeMap<u64, super::chain::Nodes>,
    /// When two nodes connected anew at the will of one of them.
    pub(super) greetings: BTreeMap<(usize, usize), u64>,
    /// The law that was broken.
    verdict: Option<String>,
    pub(super) over: bool,
    tells: bool,
    pub(super) story: VecDeque<String>,
    /// How often a person had to help.
    pub(super) helped: u64,
    pub(super) steps: u64,
    /// How often an upgrade was halted though its binary had signed nothing.
    pub(super) unproven: u64,
}

impl Sim {
    pub(super) fn new(scenario: Scenario, mut dice: Dice, tells: bool) -> Sim {
        let nodes = scenario.nodes();
        let mut set: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut set);
        set.truncate(scenario.validators);
        let length = scenario.layer.max(150).min(scenario.height - 1);
        let chain = Tree::new(scenario.height, length, scenario.epoch, &set);
        let tip = chain.tip();
        let homes = (0..nodes).map(|i| {
            let mut address = [0; 20];
            address[..8].copy_from_slice(&dice.next().to_be_bytes());
            Home::new(i, address, &scenario, tip)
        });
        let homes = homes.collect();
        let mut sim = Sim {
            dice: dice.clone(),
            now: 1_000,
            base: Instant::now() + Duration::from_secs(1_000_000),
            queue: BinaryHeap::new(),
            number: 0,
            chain,
            homes,
            rounds: BTreeMap::new(),
            rounds_done: BTreeMap::new(),
            before: (set, 0),
            stale: BTreeMap::new(),
            greetings: BTreeMap::new(),
            verdict: None,
            over: false,
            tells,
            story: VecDeque::new(),
            helped: 0,
            steps: 0,
            unproven: 0,
            scenario,
        };
        if let Some((i, seconds)) = sim.scenario.skew {
            sim.homes[i].skew = seconds * 1000;
        }
        for i in 0..nodes {
            let failing = sim.scenario.failing;
            for n in 1..sim.homes[i].failures.len() {
                sim.homes[i].failures[n] =
                    if sim.dice.chance(failing) { sim.dice.within(1, 5) as u32 } else { 0 };
            }
            let at = sim.dice.within(0, 300);
            sim.after(at, What::Boot(i));
        }
        for n in 0..sim.scenario.faults.len() {
            sim.at(sim.scenario.faults[n].0, What::Fault(n));
        }
        sim.after(10_000, What::Look);
        sim
    }

    /// Runs until all is well, a law is broken, or time is up.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while let Some(Timed { at, what, .. }) = self.queue.pop() {
            self.now = at;
            self.happen(what);
            if let Some(verdict) = self.verdict.take() {
                return Err(verdict);
            }
            if self.over {
                return Ok(());
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Boot(i) => self.boot(i),
            What::Wake(i) if self.homes[i].wake == self.now => self.feed(i, Event::Tick),
            What::Wake(_) => {}
            What::Released(i, boots) => {
                if self.homes[i].boots == boots && std::mem::take(&mut self.homes[i].awaiting) {
                    self.feed(i, Event::Released);
                }
            }
            What::Written(i, boots, outcome) => {
                if self.homes[i].boots == boots {
                    let heard = self.homes[i].inbox.take();
                    self.feed(i, *outcome);
                    heard.into_iter().flatten().for_each(|event| self.feed(i, event));
                }
            }
            What::JobDone(i, job) => self.job_done(i, job),
            What::Answers(i, pid) => self.answers(i, pid),
            What::Engine(i, pid) => self.engine_on(i, pid),
            What::Open(i, pid) => self.open(i, pid),
            What::Drop(i, pid) => self.drop_signers(i, pid),
            What::Redial(i, pid) => self.redial(i, pid),
            What::Sync(i, pid) => self.sync(i, pid),
            What::Import(i, pid, id) => self.import(i, pid, id),
            What::Answer(i, pid, question) => self.answer(i, pid, question),
            What::Gone(i, pid, status) => self.gone(i, pid, status),
            What::Killed(i, pid, status) => {
                if self.homes[i].node.as_ref().is_some_and(|node| node.pid == pid) {
                    self.surprises(i);
                    self.kill(i, status);
                }
            }
            What::Round(head, round) => self.round(head, round),
            What::Fault(n) => self.fault(n),
            What::Foreign(i, height) => self.foreign_head(i, height),
            What::Look => self.look(),
        }
    }

    pub(super) fn at(&mut self, at: u64, what: What) {
        self.number += 1;
        self.queue.push(Timed { at: at.max(self.now), number: self.number, what });
    }

    pub(super) fn after(&mut self, wait: u64, what: What) {
        self.at(self.now + wait, what);
    }

    /// A law is broken.
    pub(super) fn broken(&mut self, law: String) {
        self.note(usize::MAX, || format!("BROKEN {law}"));
        self.verdict.get_or_insert(law);
    }

    /// Adds a line to the story.
    pub(super) fn note(&mut self, i: usize, text: impl FnOnce() -> String) {
        if self.tells {
            if self.story.len() >= number("FLEET_STORY").map_or(STORY, |n| n as usize) {
                self.story.pop_front();
            }
            let seconds = self.now as f64 / 1000.0;
            let (top, own) = (self.chain.top(), self.homes.get(i).map(|home| self.chain.height(home.head)));
            let own = own.map_or(String::new(), |own| format!(" {i}@{own}"));
            self.story.push_back(format!("{seconds:8.2} tip {top}{own}: {}", text()));
        }
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        self.base + Duration::from_millis(at)
    }

    /// Feeds an event to a machine and performs what it asks for; the outcomes of prompt actions come before anything else.
    pub(super) fn feed(&mut self, i: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Some(inbox) = &mut self.homes[i].inbox {
                inbox.push_back(event);
                continue;
            }
            let now = self.instant(self.now);
            let Some(machine) = &mut self.homes[i].machine else { return };
            let actions = machine.step(now, event);
            self.steps += 1;
            for action in actions {
                events.extend(self.perform(i, action));
            }
        }
        let Some(machine) = self.homes[i].machine.as_ref().filter(|_| self.homes[i].inbox.is_none()) else {
            return;
        };
        let Some((at, _)) = machine.deadline() else { return };
        // Rounded up, so that the time has come when it is woken.
        let at = at.saturating_duration_since(self.base).as_micros().div_ceil(1000) as u64;
        if at <= self.now {
            return self.broken(format!("the deadline of {i} is in the future"));
        }
        if self.homes[i].wake != at {
            self.homes[i].wake = at;
            self.at(at, What::Wake(i));
        }
    }

    /// Performs an action; the answer is the outcome of a prompt one.
    fn perform(&mut self, i: usize, action: Action) -> Option<Event> {
        match action {
            Action::Record(record) => {
                self.check_record(i, &record);
                self.homes[i].record = record;
                self.write(i, Event::Recorded)
            }
            Action::Link(target) => {
                self.note(i, || format!("current points at {target}"));
                self.homes[i].link = target;
                Some(Event::Linked)
            }
            Action::Inspect(_) => self.write(i, Event::Inspected),
            Action::Spawn { version, mode, launch } => {
                self.note(i, || format!("starts {} {mode:?}", version.target));
                self.check_start(i, &version);
                if self.homes[i].node.is_some() || self.homes[i].link != version.target {
                    self.broken(format!("I1, I2: {i} starts {} beside another node or link", version.target));
                }
                self.homes[i].launched = Some(launch);
                Some(Event::Spawned { pid: self.execute(i, &version.target, mode) })
            }
            Action::Reexec { .. } => unreachable!("no scenario asks for it"),
            Action::Adopt => {
                let home = &mut self.homes[i];
                let node = home.node.as_mut().expect("it runs");
                node.boots = home.boots;
                // It reports its head as soon as it is asked.
                let (pid, answers) = (node.pid, node.answers);
                if answers {
                    self.after(100, What::Answers(i, pid));
                }
                None
            }
            Action::AwaitRelease => {
                self.homes[i].awaiting = true;
                self.release(i);
                None
            }
            Action::Terminate => {
                self.check_stop(i);
                self.terminate(i);
                None
            }
            Action::Kill => {
                self.surprises(i);
                let pid = self.homes[i].node.as_ref()?.pid;
                self.after(1, What::Killed(i, pid, Status::Signal(9)));
                None
            }
            Action::Start(job) => {
                self.start_job(i, job);
                None
            }
            Action::CancelJob => {
                let home = &mut self.homes[i];
                home.jobs += 1;
                let number = home.jobs;
                if let Some((own, _, cancelled)) = &mut home.job {
                    (*own, *cancelled) = (number, true);
                }
                self.after(20, What::JobDone(i, number));
                None
            }
            Action::Confirm => self.ask(i, Question::Confirm),
            Action::Trace { from, to } => self.ask(i, Question::Trace(from, to)),
            Action::Identify => self.ask(i, Question::Identify),
            Action::Survey => self.ask(i, Question::Survey),
            Action::Recall { height } => self.ask(i, Question::Recall(height)),
            Action::StartSealing => self.ask(i, Question::StartSealing),
            Action::StopSealing => self.ask(i, Question::StopSealing),
            Action::Greet { turn, .. } => self.ask(i, Question::Greet(turn)),
            Action::Unpeer => {
                self.check_stop(i);
                self.ask(i, Question::Unpeer)
            }
            Action::KeepHead(record) => {
                self.check_head_record(i, &record);
                let marked = self.homes[i].head_record.as_ref().is_some_and(|record| record.unheard);
                if marked != record.unheard {
                    let (height, how) =
                        (record.block.height, if marked { "is sure again" } else { "may lack blocks" });
                    self.note(i, || format!("its head record, {height}, {how}"));
                }
                self.homes[i].head_record = Some(record);
                None
            }
            Action::ForgetHead => {
                self.homes[i].head_record = None;
                None
            }
            Action::ReadPlans => None,
            Action::Exit { exit, reason, .. } => {
                self.ends(i, exit, reason);
                None
            }
            Action::Tell(notice) => {
                self.note(i, || format!("{} {}", notice.event, notice.text));
                if notice.event == "unexpected_event" {
                    self.broken(format!("the loop keeps its contract: {}", notice.text));
                }
                None
            }
            Action::Answer { reply, .. } => {
                self.note(i, || format!("answers {reply:?}"));
                None
            }
            Action::AfterUpgrade(_) => Some(Event::PostHookEnded),
            Action::Receipt(_) | Action::Strike { .. } => None,
        }
    }

    fn ask(&mut self, i: usize, question: Question) -> Option<Event> {
        let pid = self.homes[i].node.as_ref()?.pid;
        // One question after the other, as by one thread.
        let at = (self.now + self.dice.within(1, 300)).max(self.homes[i].busy_until);
        self.homes[i].busy_until = at;
        self.at(at, What::Answer(i, pid, question));
        None
    }

    fn ends(&mut self, i: usize, exit: Exit, reason: String) {
        self.note(i, || format!("the supervisor ends: {exit:?} {reason}"));
        if self.homes[i].node.is_some() {
            self.broken(format!("{i}: no node is left behind"));
        }
        let home = &mut self.homes[i];
        (home.machine, home.job, home.awaiting, home.inbox) = (None, None, false, None);
        home.exit = Some((exit, reason));
        if exit != Exit::Halted {
            // Its operator looks, and starts it again.
            let wait = self.dice.within(5_000, 60_000);
            self.after(wait, What::Boot(i));
        }
    }

    /// Starts the supervisor of a node.
    pub(super) fn boot(&mut self, i: usize) {
        if self.homes[i].dead || self.homes[i].machine.is_some() {
            return;
        }
        self.note(i, || "the supervisor starts".to_owned());
        let seed = self.dice.next();
        let home = &mut self.homes[i];
        home.boots += 1;
        home.exit = None;
        home.machine = Some(Machine::new(home.policy.clone(), seed, home.record.clone()));
        let (plan, record) = (home.plan.clone(), home.record.clone());
        let running = home.node.as_ref().map(|node| (node.pid, node.version, node.since));
        let link = version(&home.link);
        let now = self.now;
        let alive = running.map(|(pid, number, since)| {
            let sha256 = version(&target(number)).sha256;
            Alive { pid, sha256, age: Duration::from_millis(now - since) }
        });
        let launched = self.homes[i].launched.map(|launch| Launched { launch, alive });
        let facts =
            Facts { record, link, head: self.homes[i].head_record.clone(), has_data: false, launched };
        self.feed(i, Event::Schedule(plan.into_iter().map(Arc::new).collect()));
        self.feed(i, Event::Boot(facts));
    }

    /// The supervisor waits for its disk, and hears nothing meanwhile.
    fn write(&mut self, i: usize, outcome: Event) -> Option<Event> {
        // Before its first head is on record a supervisor cannot know of what a killed node has lost.
        let is_new = self.homes[i].head_record.is_none();
        if self.scenario.slow_disk == 0 || is_new || self.dice.chance(80) {
            return Some(outcome);
        }
        let (boots, wait) = (self.homes[i].boots, self.dice.within(1, self.scenario.slow_disk));
        // A record is written beside a node that runs.
        if outcome != Event::Recorded || self.homes[i].node.is_none() {
            self.homes[i].inbox = Some(VecDeque::new());
        }
        self.after(wait, What::Written(i, boots, Box::new(outcome)));
        None
    }

    /// The supervisor is gone, and what it was doing.
    pub(super) fn supervisor_dies(&mut self, i: usize) {
        let home = &mut self.homes[i];
        (home.machine, home.job, home.awaiting, home.wake) = (None, None, false, 0);
        home.inbox = None;
    }

    fn start_job(&mut self, i: usize, job: Job) {
        let hook = self.scenario.hook;
        let wait = match &job {
            Job::Prepare(_) if self.dice.chance(self.scenario.late) => self.dice.within(30_000, 200_000),
            Job::Prepare(_) => self.dice.within(200, 5_000),
            Job::Backup(_) | Job::Restore(_) => self.dice.within(50, 3_000),
            // No dice: what is done beside a node must not change what becomes of it.
            Job::Ahead { .. } | Job::Tend { .. } => 5_000,
            Job::Hook { .. } => self.dice.within(10, hook * 1000 + 20),
            Job::Rehearse(_) => self.dice.within(1_000, 300_000),
        };
        let home = &mut self.homes[i];
        home.jobs += 1;
        let number = home.jobs;
        home.job = Some((number, job, false));
        self.after(wait, What::JobDone(i, number));
    }

    fn job_done(&mut self, i: usize, number: u32) {
        if self.homes[i].job.as_ref().is_none_or(|(own, ..)| *own != number) {
            return;
        }
        let Some((_, job, cancelled)) = self.homes[i].job.take() else { return };
        let failure = |class| Failure::new(class, "it failed");
        let end = match job {
            Job::Prepare(upgrade) => {
                let target = Target::Upgrade(upgrade.name.clone());
                let fails = &mut self.homes[i].failures[super::home::number(&target)];
                let result = if cancelled {
                    Err(failure(Class::Cancelled))
                } else if *fails > 0 {
                    *fails -= 1;
                    Err(failure(if (*fails).is_multiple_of(2) { Class::Transient } else { Class::Permanent }))
                } else {
                    Ok(Ready { hook: self.scenario.hook > 0, ..Ready::new(version(&target)) })
                };
                JobEnd::Prepared(upgrade.name, result)
            }
            Job::Backup(_) if cancelled => JobEnd::BackedUp(Err(failure(Class::Cancelled))),
            Job::Backup(_) => JobEnd::BackedUp(Ok("backup-1".into())),
            Job::Hook { .. } if cancelled => JobEnd::Hooked(HookEnd::Failed(failure(Class::Cancelled))),
            Job::Hook { .. } => JobEnd::Hooked(HookEnd::Continue),
            Job::Restore(_) => JobEnd::Restored(Ok(())),
            Job::Rehearse(upgrade) => {
                let failed = if cancelled { Class::Cancelled } else { Class::Permanent };
                JobEnd::Rehearsed(upgrade.name, Err(failure(failed)))
            }
            Job::Ahead { name, .. } if cancelled => JobEnd::Ahead(name, Err(failure(Class::Cancelled))),
            Job::Ahead { name, .. } => JobEnd::Ahead(name, Ok(Ahead { rest: Duration::from_secs(1) })),
            Job::Tend { .. } if cancelled => JobEnd::Tended(Err(failure(Class::Cancelled))),
            Job::Tend { .. } => JobEnd::Tended(Ok(Tended::default())),
        };
        self.feed(i, Event::JobDone(end));
    }
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    /// The earliest is the greatest, since the heap gives that first.
    fn cmp(&self, other: &Timed) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
