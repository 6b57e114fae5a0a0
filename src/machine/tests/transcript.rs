//! Stories for people: a situation, told as lines of `event → actions`.
//!
//! A story is driven by hand. What needs no decision by the teller (a prompt action that succeeds, locks
//! that are free, a binary that can be prepared) happens by itself in [`Story::then`].

use super::world::{Input, World};
use super::*;
use expect_test::Expect;
use std::fmt::Write as _;

/// The node ends in good order.
pub(super) const CLEAN: Input = Input::Exit(Status::Code(0));

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const fn after(seconds: u64) -> Input {
    Input::Pass(secs(seconds))
}

pub(super) struct Story {
    pub(super) world: World,
    /// Whether binaries can be prepared without the teller.
    pub(super) prepares: bool,
    told: String,
    at: Instant,
}

impl Story {
    /// A supervisor that is about to start.
    pub(super) fn new(policy: Policy, schedule: Vec<Upgrade>) -> Story {
        let world = World::new(policy, schedule);
        let at = world.now;
        Story { world, prepares: true, told: String::new(), at }
    }

    /// A node that runs since a minute, with its upgrades prepared; how it came to this is not told.
    pub(super) fn running(policy: Policy, schedule: Vec<Upgrade>) -> Story {
        let mut story = Story::new(policy, schedule);
        story.then(Input::Boot).then(after(60)).then(Input::Head(H - 1));
        story.forget();
        story
    }

    pub(super) fn told(&self) -> &str {
        &self.told
    }

    /// Drops what was told so far.
    pub(super) fn forget(&mut self) -> &mut Self {
        self.told.clear();
        self
    }

    /// Takes what was told so far, to be looked through.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.told)
    }

    /// Lets one thing happen, and nothing else.
    pub(super) fn only(&mut self, input: Input) -> &mut Self {
        let event = self.name(&input);
        let result = self.world.step(&input);
        let since = self.world.now.duration_since(self.at);
        let event = if since.is_zero() { event } else { format!("(+{since:.1?}) {event}") };
        if !self.world.done.iter().all(is_routine) {
            self.at = self.world.now;
        }
        let mut lines = self.world.done.iter().filter(|action| !is_routine(action)).map(show);
        writeln!(self.told, "{event:<28} → {}", lines.next().unwrap_or_default()).unwrap();
        for line in lines {
            writeln!(self.told, "{:<28} → {line}", "").unwrap();
        }
        if let Err(law) = result {
            panic!("broken law: {law}\n{}", self.told);
        }
        self
    }

    /// Lets one thing happen, and then whatever happens by itself.
    pub(super) fn then(&mut self, input: Input) -> &mut Self {
        self.only(input);
        loop {
            let w = &self.world;
            let preparing = matches!(w.job, Some((Job::Prepare(_), false)));
            if w.pending.is_some() {
                self.only(Input::Ok);
            } else if w.awaiting && w.process.is_none() {
                self.only(Input::Release);
            } else if preparing && self.prepares {
                self.only(Input::Done);
            } else {
                return self;
            }
        }
    }

    /// No record is written, and all else goes well, until a node runs.
    pub(super) fn all_fail(&mut self) -> &mut Self {
        let runs = self.world.runs_without_records();
        assert_eq!(runs, Ok(true), "{}", self.told);
        self
    }

    pub(super) fn all(&mut self, inputs: impl IntoIterator<Item = Input>) -> &mut Self {
        for input in inputs {
            self.then(input);
        }
        self
    }

    /// The heads `from..=to`, one per second.
    pub(super) fn blocks(&mut self, from: u64, to: u64) -> &mut Self {
        for height in from..=to {
            self.then(after(1)).then(Input::Head(height));
        }
        self
    }

    /// Compares what was told, without the lines on which nothing was done.
    pub(super) fn check(&mut self, expected: &Expect) -> &mut Self {
        let mut told = String::new();
        for line in self.told.lines().map(str::trim_end).filter(|line| !line.ends_with('→')) {
            writeln!(told, "{line}").unwrap();
        }
        expected.assert_eq(&told);
        self.forget()
    }

    fn name(&self, input: &Input) -> String {
        match input {
            Input::Ok => match &self.world.pending {
                Some(Action::Record(_)) => "recorded".to_owned(),
                Some(Action::Link(_)) => "linked".to_owned(),
                Some(Action::Inspect(_)) => "inspected".to_owned(),
                _ => "spawned".to_owned(),
            },
            Input::FailLate(class) => format!("failed late ({class:?})"),
            Input::Fail(class) => match &self.world.pending {
                Some(Action::Record(_)) => format!("record failed ({class:?})"),
                Some(Action::Link(_)) => format!("link failed ({class:?})"),
                Some(Action::Inspect(_)) => format!("inspect failed ({class:?})"),
                _ => format!("spawn failed ({class:?})"),
            },
            Input::Tick => {
                let (_, why) = self.world.machine.as_ref().and_then(Machine::deadline).unwrap();
                format!("tick: {why}")
            }
            Input::Ask(Request::Rollback(order)) => format!("ask rollback to {}", order.to.target),
            Input::Ask(request) => format!("ask {request:?}").to_lowercase(),
            Input::Exit(status) => format!("exited, {status}"),
            Input::Head(height) => format!("head {height}"),
            Input::Plan(upgrades) => {
                let names: Vec<_> = upgrades.iter().map(|u| format!("{}@{}", u.name, u.height)).collect();
                format!("schedule {}", names.join(" "))
            }
            Input::Configure(_) => "configure".to_owned(),
            Input::Pass(_) => "pass".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// Whether an action is done at any time while a node runs, and would drown a story.
pub(super) fn is_routine(action: &Action) -> bool {
    match action {
        Action::Identify
        | Action::Survey
        | Action::Trace { .. }
        | Action::Recall { .. }
        | Action::Receipt(_)
        | Action::KeepHead(_) => true,
        Action::Tell(notice) => notice.event == "chain_stands_still",
        _ => false,
    }
}

pub(super) fn show(action: &Action) -> String {
    match action {
        Action::Record(record) => format!("record {}", show_record(record)),
        Action::Link(target) => format!("link {target}"),
        Action::Inspect(version) => format!("inspect {}", version.target),
        Action::Spawn { version, mode: Mode::Full, .. } => format!("spawn {}", version.target),
        Action::Spawn { version, mode, .. } => format!("spawn {} {mode:?}", version.target).to_lowercase(),
        Action::Adopt => "adopt".to_owned(),
        Action::Reexec { .. } => "reexec".to_owned(),
        Action::AwaitRelease => "await release".to_owned(),
        Action::Terminate => "SIGTERM".to_owned(),
        Action::Kill => "SIGKILL".to_owned(),
        Action::Start(Job::Prepare(upgrade)) => format!("prepare {}", upgrade.name),
        Action::Start(Job::Backup(_)) => "back up".to_owned(),
        Action::Start(Job::Hook { retries, .. }) => format!("run hook, retries={retries}"),
        Action::Start(Job::Restore(_)) => "restore".to_owned(),
        Action::Start(Job::Rehearse(upgrade)) => format!("rehearse {}", upgrade.name),
        Action::Start(Job::Ahead { name, bring: false }) => format!("look at the backup for {name}"),
        Action::Start(Job::Ahead { name, bring: true }) => format!("begin the backup for {name}"),
        Action::Start(Job::Tend { .. }) => "tend backups".to_owned(),
        Action::AfterUpgrade(progress) => format!("after the upgrade to {}", progress.name),
        Action::Receipt(receipt) => format!("receipt {} {}", receipt.name, receipt.outcome),
        Action::CancelJob => "cancel job".to_owned(),
        Action::Confirm => "confirm".to_owned(),
        Action::Survey => "survey".to_owned(),
        Action::Trace { from, to } => format!("trace {from} to {to}"),
        Action::Identify => "identify".to_owned(),
        Action::KeepHead(record) => format!("keep head {}", record.block.height),
        Action::ForgetHead => "forget head".to_owned(),
        Action::ReadPlans => "read plans".to_owned(),
        Action::Unpeer => "remove peers".to_owned(),
        Action::Greet { turn, .. } => format!("greet peer {turn}"),
        Action::Recall { height } => format!("recall {height}"),
        Action::StartSealing => "start sealing".to_owned(),
        Action::StopSealing => "stop sealing".to_owned(),
        Action::Strike { name, .. } => format!("strike {name}"),
        Action::Answer { reply: Ok(text), .. } => format!("answer: {text}"),
        Action::Answer { reply: Err(text), .. } => format!("refuse: {text}"),
        Action::Tell(notice) => {
            let history = if notice.history { " (history)" } else { "" };
            format!("{:?} {}{history}: {}", notice.level, notice.event, notice.text).to_lowercase()
        }
        Action::Exit { exit, node, reason } => {
            let node = node.map(|status| format!(", node {status}")).unwrap_or_default();
            format!("exit {exit:?}{node}: {reason}")
        }
    }
}

fn show_record(record: &Record) -> String {
    let mut text = format!("[{} {:?}", record.current.target, record.node);
    if let Some(p) = &record.upgrade {
        write!(text, " | {} {:?} attempt={}", p.name, p.phase, p.attempt).unwrap();
        let flags =
            [(p.asked, "asked"), (p.forgiven > 0, "forgiven"), (p.unclean, "unclean"), (p.signed, "signed")];
        for (_, flag) in flags.iter().filter(|(set, _)| *set) {
            write!(text, " {flag}").unwrap();
        }
        if let Some(backup) = &p.backup {
            write!(text, " backup={backup}").unwrap();
        }
    }
    for ended in &record.ended {
        write!(text, " | {} {}", ended.name, ended.outcome).unwrap();
    }
    if record.halted.is_some() {
        text.push_str(" | halted");
    }
    if let Some(order) = &record.back {
        write!(text, " | back to {}", order.to.target).unwrap();
    }
    text + "]"
}
