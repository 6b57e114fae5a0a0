//! Crash states: what a power cut may leave at any moment of a flow, read back by the real readers and recoveries.
//!
//! A [`Flow`] is a row of numbered steps, each of which is acknowledged when it returns. It runs once on a real
//! directory, with every effect recorded, and once more for every effect, killed right behind it and begun again.
//! [`disk`] then says what a power cut may leave behind each prefix of such a trace; [`tree`] puts that into the
//! directory, and the flow's law judges what the program reads there: the last acknowledged step or one that had
//! begun, whole; never a part and never an older one.
//!
//! - `CRASH_STATES=1000000` sets the number of states of all flows together; a flow that has fewer different ones ends
//!   earlier. Without it there are 27,000, and `scripts/torture` takes four times as many.
//! - A failure prints `CRASH_SEED` and `CRASH_AT`; set, they show that one state again.
//!
//! The mutation test takes away, or puts off, each sync of the traces, as if the call were missing from the source or
//! stood behind the next effect. Some state must break a law then, or the sync is listed in [`mutation`] with the
//! reason for which it is there all the same.
//!
//! It shows nothing about what a file system or a disk does wrong: what was synced is there.

mod dice;
mod disk;
mod flows;
mod mutation;
mod tear;
mod tree;

use crate::home::Home;
use crate::home::trace::recorder::{self, Op};
use dice::Dice;
use disk::Disk;
use std::collections::HashSet;
use std::env;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;
use tree::{Mirror, Tree};

/// A row of durable steps, and their law.
#[derive(Clone, Copy)]
struct Flow {
    name: &'static str,
    /// Its part of the states: what a cheap one gives up, an expensive one need not.
    share: u64,
    /// Lays out the durable state before the first step.
    setup: fn(&Home),
    /// Performs the steps from this number on, as a process does that has just started. Step 1 is the first one.
    run: fn(&Home, usize),
    /// Reads what a power cut has left, recovers, and says what is wrong.
    law: fn(&Home, Seen) -> Result<(), String>,
}

/// The steps so far. Before the first one, both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The last step that was acknowledged.
    acked: usize,
    /// The last step that has begun.
    begun: usize,
}

impl Seen {
    fn note(&mut self, op: &Op) {
        match op {
            Op::Begin(step) => self.begun = *step,
            Op::Ack(step) => self.acked = *step,
            _ => {}
        }
    }

    /// Whether this may be what is read: `what` names it if not.
    fn check(self, what: &str, step: Option<usize>) -> Result<(), String> {
        match step {
            Some(step) if (self.acked..=self.begun).contains(&step) => Ok(()),
            Some(step) => Err(format!("{what} is that of step {step}")),
            None => Err(format!("{what} is that of no step")),
        }
    }
}

/// One step of a flow.
fn step(number: usize, work: impl FnOnce()) {
    recorder::mark(Op::Begin(number));
    work();
    recorder::mark(Op::Ack(number));
}

/// One run of a flow.
#[derive(Clone)]
struct Trace {
    ops: Vec<Op>,
    /// Where it was killed: the same states were seen before that already. 0 if it was not.
    killed: usize,
}

/// A flow that was recorded, and the place where its states are shown.
struct Lab {
    flow: Flow,
    home: Home,
    mirror: Mirror,
    initial: Tree,
    traces: Vec<Trace>,
    _dir: TempDir,
}

/// A state that breaks the law.
struct Broken {
    at: [u64; 3],
    seen: Seen,
    why: String,
    tree: Tree,
}

impl Lab {
    fn new(flow: Flow) -> Lab {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Home::new(&root, "node").unwrap();
        (flow.setup)(&home);
        let initial = Tree::read(&root);
        let mut lab = Lab { flow, home, mirror: Mirror::new(&root), initial, traces: Vec::new(), _dir: dir };
        let whole = lab.record(None);
        let effects = whole.ops.iter().filter(|op| !matches!(op, Op::Begin(_) | Op::Ack(_))).count();
        lab.traces.push(whole);
        for effect in 1..effects {
            let trace = lab.record(Some(effect));
            lab.traces.push(trace);
        }
        lab
    }

    /// Records one run, which is killed behind an effect and begun again.
    fn record(&mut self, kill: Option<usize>) -> Trace {
        let root = self.home.root().to_owned();
        self.mirror = Mirror::new(&root);
        self.mirror.show(&self.initial);
        let (mut ops, was_killed) = recorder::record(kill, || (self.flow.run)(&self.home, 1));
        let killed = if was_killed { ops.len() } else { 0 };
        if was_killed {
            let begun = ops.iter().rev().find_map(|op| if let Op::Begin(n) = op { Some(*n) } else { None });
            ops.extend(recorder::record(None, || (self.flow.run)(&self.home, begun.unwrap_or(1))).0);
        }
        let mut disk = Disk::new(&root, &self.initial);
        ops.iter().for_each(|op| disk.apply(op));
        let recorded = disk.live().lines();
        // The model names the temporary files of this process as those of a dead one.
        let mut real = Tree::read(&root).lines();
        let ours = format!(".{}-", std::process::id());
        real.iter_mut().for_each(|line| *line = line.replace(&ours, &format!(".{}-", i32::MAX)));
        assert_eq!(recorded, real, "{}: an effect was not recorded, killed at {kill:?}", self.flow.name);
        self.mirror = Mirror::new(&root);
        Trace { ops, killed }
    }

    /// Shows one state and has the law judge it.
    fn judge(&mut self, tree: &Tree, seen: Seen) -> Result<(), String> {
        self.mirror.show(tree);
        let mut verdict = Ok(());
        let (changed, _) = recorder::record(None, || verdict = (self.flow.law)(&self.home, seen));
        self.mirror.changed(&changed);
        verdict
    }

    /// Judges different states of every cut of a trace, up to its quota. Returns how many there were.
    fn search(&mut self, number: usize, trace: &Trace, quotas: &[u64]) -> Result<u64, Box<Broken>> {
        let mut states = 0;
        let mut quotas = quotas.iter();
        self.walk::<Box<Broken>>(trace, |lab, at, disk, seen| {
            let (quota, draws) = (*quotas.next().unwrap_or(&0), disk.space().draws());
            let mut known = HashSet::new();
            // Samples repeat each other where there are few states.
            for draw in 0..draws.min(4 * quota) {
                if known.len() as u64 == quota {
                    break;
                }
                let at = [number as u64, at as u64, draw];
                let tree = disk.state(draw, &mut dice(at));
                if known.insert(tree.digest()) {
                    lab.judge(&tree, seen).map_err(|why| Box::new(Broken { at, seen, why, tree }))?;
                }
            }
            states += known.len() as u64;
            Ok(())
        })?;
        Ok(states)
    }

    /// Calls `look` wherever a power cut may leave what it may not leave earlier: before every sync, and at the end.
    fn walk<E>(
        &mut self,
        trace: &Trace,
        mut look: impl FnMut(&mut Lab, usize, &Disk, Seen) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut disk = Disk::new(self.home.root(), &self.initial);
        let mut seen = Seen { acked: 0, begun: 0 };
        let mut enough = usize::MAX;
        for (at, op) in trace.ops.iter().enumerate() {
            if at == trace.killed && at > 0 {
                // Data that a killed process left unsynced stays unsynced; the end shows it.
                enough = seen.acked + 2;
            }
            if at >= trace.killed && seen.acked <= enough && matches!(op, Op::Sync(..)) {
                look(self, at, &disk, seen)?;
            }
            seen.note(op);
            disk.apply(op);
        }
        look(self, trace.ops.len(), &disk, seen)
    }

    /// The number of states to be seen at each cut of these traces: `total` in all, as even as their spaces allow.
    fn quotas(&mut self, traces: &[Trace], total: u64) -> Vec<Vec<u64>> {
        let spaces: Vec<Vec<u64>> = traces
            .iter()
            .map(|trace| {
                let mut spaces = Vec::new();
                let look = |_: &mut Lab, _, disk: &Disk, _| {
                    spaces.push(disk.space().draws());
                    Ok::<(), ()>(())
                };
                self.walk(trace, look).expect("it only looks");
                spaces
            })
            .collect();
        let sum = |level: u64| spaces.iter().flatten().map(|space| *space.min(&level)).sum::<u64>();
        let (mut low, mut high) = (0, total);
        while low < high {
            let level = low.midpoint(high);
            if sum(level) >= total { high = level } else { low = level + 1 }
        }
        spaces.into_iter().map(|spaces| spaces.into_iter().map(|space| space.min(low)).collect()).collect()
    }

    /// Judges this number of states, or the one that is asked for.
    fn explore(mut self, total: u64) {
        if let Some(at) = asked(self.flow.name) {
            return self.again(at);
        }
        let started = Instant::now();
        let traces = std::mem::take(&mut self.traces);
        let mut states = 0;
        // Half of them without a kill.
        let (whole, killed) = traces.split_at(1);
        for (traces, first) in [(whole, 0), (killed, 1)] {
            let quotas = self.quotas(traces, total / 2);
            for (number, (trace, quotas)) in traces.iter().zip(&quotas).enumerate() {
                match self.search(first + number, trace, quotas) {
                    Ok(more) => states += more,
                    Err(broken) => panic!("{}", broken.report(self.flow.name, trace)),
                }
            }
        }
        println!(
            "{}: {states} crash states of {} traces in {:?}",
            self.flow.name,
            traces.len(),
            started.elapsed()
        );
    }

    fn again(mut self, at: [u64; 3]) {
        let traces = std::mem::take(&mut self.traces);
        let trace = &traces[at[0] as usize];
        let verdict = self.walk(trace, |lab, place, disk, seen| {
            if place as u64 != at[1] {
                return Ok(());
            }
            let tree = disk.state(at[2], &mut dice(at));
            println!("{seen:?}\n{}", tree.lines().join("\n"));
            lab.judge(&tree, seen).map_err(|why| Broken { at, seen, why, tree })
        });
        if let Err(broken) = verdict {
            panic!("{}", broken.report(self.flow.name, trace));
        }
    }
}

impl Broken {
    fn report(&self, flow: &str, trace: &Trace) -> String {
        let [number, at, draw] = self.at;
        let short = |op: &Op| match op {
            Op::Write(path, offset, bytes) => {
                format!("Write({}, {offset}, {} bytes)", path.display(), bytes.len())
            }
            Op::Sync(path, place) => format!("Sync({}) at {place}", path.display()),
            other => format!("{other:?}"),
        };
        let last = &trace.ops[(at as usize).saturating_sub(30)..at as usize];
        let effects: Vec<_> = last.iter().map(short).collect();
        format!(
            "{}, with {:?}\nafter these effects (killed at {}):\n  {}\na power cut leaves:\n  {}\n\
             again: CRASH_SEED={} CRASH_AT={flow}/{number}/{at}/{draw} cargo test --lib crash::{flow}",
            self.why,
            self.seen,
            trace.killed,
            effects.join("\n  "),
            self.tree.lines().join("\n  "),
            seed(),
        )
    }
}

fn seed() -> u64 {
    env::var("CRASH_SEED").map_or(1, |text| text.parse().expect("CRASH_SEED is a number"))
}

fn asked_states() -> Option<u64> {
    env::var("CRASH_STATES").ok().map(|text| text.parse().expect("CRASH_STATES is a number"))
}

/// The dice of one state.
fn dice([number, at, draw]: [u64; 3]) -> Dice {
    Dice::of(&[seed(), number, at, draw])
}

/// The state to be seen again, if it is one of this flow.
fn asked(flow: &str) -> Option<[u64; 3]> {
    let text = env::var("CRASH_AT").ok()?;
    let mut parts = text.split('/');
    let of_this = parts.next() == Some(flow);
    let numbers: Vec<u64> =
        parts.map(|part| part.parse().expect("CRASH_AT is flow/trace/cut/draw")).collect();
    of_this.then(|| numbers.try_into().expect("CRASH_AT is flow/trace/cut/draw"))
}

fn explore(flow: Flow) {
    let all = asked_states().unwrap_or(27_000);
    let shares: u64 = flows::ALL.iter().map(|flow| flow.share).sum();
    Lab::new(flow).explore(all * flow.share / shares);
}

/// One test for each flow, so that they run side by side.
macro_rules! tests {
    ($($name:ident: $flow:expr;)*) => {
        $(#[test]
        fn $name() {
            explore($flow);
        })*

        #[test]
        fn every_flow_has_its_test() {
            assert_eq!(flows::ALL.map(|flow| flow.name), [$(stringify!($name)),*]);
        }
    };
}

tests! {
    put: flows::primitives::PUT;
    mkdir: flows::primitives::MKDIR;
    link: flows::primitives::LINK;
    remove: flows::primitives::REMOVE;
    promote: flows::primitives::PROMOTE;
    exchange: flows::primitives::EXCHANGE;
    journal: flows::records::JOURNAL;
    new_journal: flows::records::NEW_JOURNAL;
    head: flows::records::HEAD;
    schedule: flows::records::SCHEDULE;
    history: flows::records::HISTORY;
    stage: flows::binaries::STAGE;
    switch: flows::binaries::SWITCH;
    backup: flows::data::BACKUP;
    keep: flows::data::KEEP;
    restore: flows::data::RESTORE;
}
