//! The fleet of whole machines: N real [`Machine`]s, each in a world of its own, over one model of the chain.
//!
//! Time is simulated: events happen in the order of their times and nothing sleeps. The model of the chain ([`chain`],
//! [`rounds`]), of the connections ([`p2p`]) and of the node process ([`node`]) has the numbers of
//! `wbft/README.md`: votes are in memory only, a killed node goes back, a silent validator loses its peers, an
//! address is refused for a while. What operators plan and what goes wrong is decided by the seed ([`scenario`]),
//! done by [`trouble`], and judged by [`laws`]. [`sim`] performs what the machines ask for.
//!
//! Runs are numbered, and the number is the seed: `FLEET_SEED=<n>` begins with that one, `FLEET_RUNS=<k>` makes k of
//! them, `FLEET_LARGEST=<n>` has networks of up to n validators. A run that breaks a law is played again for its story.
//!
//! Deliberately left out: executed transactions, gossip, blocks that arrive out of order, and nodes that lie to each other.

mod chain;
mod dice;
mod home;
mod laws;
mod node;
mod p2p;
mod rounds;
mod scenario;
mod sim;
mod trouble;

use super::*;
use crate::machine::gates::Validator;
use dice::Dice;
use scenario::Scenario;
use sim::Sim;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The networks are small, and the runs few, where nothing else is asked for.
const LARGEST: u64 = 12;
const RUNS: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// One run; the story of what happened if it breaks a law.
fn run(seed: u64, tells: bool) -> Result<Sim, String> {
    let largest = number("FLEET_LARGEST").unwrap_or(LARGEST) as usize;
    let mut dice = Dice::new(seed);
    let scenario = Scenario::random(seed, largest, &mut dice);
    let mut sim = Sim::new(scenario, dice, tells);
    match sim.run() {
        Ok(()) => Ok(sim),
        Err(_) if !tells => run(seed, true),
        Err(law) => {
            let story: Vec<String> = sim.story.into_iter().collect();
            Err(format!("seed {seed}: {law}\n{:#?}\n{}", sim.scenario, story.join("\n")))
        }
    }
}

/// The sum of what the runs showed.
#[derive(Default)]
struct Tally {
    runs: u64,
    steps: u64,
    /// The runs in which a person had to help.
    helped: u64,
    halted: usize,
    unproven: u64,
    /// The runs that broke a law, by their seeds.
    failures: BTreeMap<u64, String>,
}

impl Tally {
    fn add(&mut self, seed: u64, outcome: Result<Sim, String>) {
        match outcome {
            Ok(sim) => {
                self.runs += 1;
                self.steps += sim.steps;
                self.helped += u64::from(sim.helped > 0);
                self.halted += sim.homes.iter().filter(|home| home.is_halted()).count();
                self.unproven += sim.unproven;
            }
            Err(story) => {
                self.failures.insert(seed, story);
            }
        }
    }
}

/// Names the seed of a run that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- seed {}", self.0);
        }
    }
}

/// Makes the runs of these seeds on all processors, until `most` have failed. The seeds are taken in their order, so
/// that the first failure is the same with any number of processors.
fn make(seeds: Range<u64>, most: usize) -> Tally {
    let (next, tally) = (AtomicU64::new(seeds.start), Mutex::new(Tally::default()));
    let work = || {
        while tally.lock().expect("no thread panics while it adds").failures.len() < most {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                break;
            }
            let _named = Named(seed);
            let outcome = run(seed, false);
            tally.lock().expect("no thread panics while it adds").add(seed, outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    tally.into_inner().expect("no thread panics while it adds")
}

#[test]
fn a_fleet_of_machines_keeps_the_laws() {
    let first = number("FLEET_SEED").unwrap_or(0);
    let most = number("FLEET_FAILURES").unwrap_or(1) as usize;
    let began = std::time::Instant::now();
    let tally = make(first..first + number("FLEET_RUNS").unwrap_or(RUNS), most);
    let Tally { runs, steps, helped, halted, unproven, failures } = tally;
    println!(
        "{runs} runs, {steps} steps in {:.1?}; {helped} needed a person, {halted} nodes halted",
        began.elapsed()
    );
    let mut stories = failures.into_values();
    if let Some(story) = stories.next() {
        for other in stories {
            println!("{}", other.lines().next().unwrap_or_default());
        }
        panic!("{story}");
    }
    println!("{unproven} nodes were halted though their binary had signed nothing");
    // Where the proof of that just misses its time a halt is safe; it must stay rare.
    assert!(unproven * 400 <= runs + 400, "{unproven} of {runs} runs halt a binary that has signed nothing");
}
