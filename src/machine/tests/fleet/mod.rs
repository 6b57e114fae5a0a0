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

/// The networks are small, and the runs few, where nothing else is asked for.
const LARGEST: u64 = 12;
const RUNS: u64 = 2_000;

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

#[test]
fn a_fleet_of_machines_keeps_the_laws() {
    let first = number("FLEET_SEED").unwrap_or(0);
    let (mut runs, mut helped, mut steps, mut halted, mut unproven) = (0, 0, 0, 0, 0);
    let mut failures = Vec::new();
    let began = std::time::Instant::now();
    let most = number("FLEET_FAILURES").unwrap_or(1) as usize;
    for seed in first..first + number("FLEET_RUNS").unwrap_or(RUNS) {
        match run(seed, false) {
            Ok(sim) => {
                runs += 1;
                helped += u64::from(sim.helped > 0);
                halted += sim.homes.iter().filter(|home| home.is_halted()).count();
                steps += sim.steps;
                unproven += sim.unproven;
            }
            Err(story) => failures.push(story),
        }
        if failures.len() >= most {
            break;
        }
    }
    println!(
        "{runs} runs, {steps} steps in {:.1?}; {helped} needed a person, {halted} nodes halted",
        began.elapsed()
    );
    if let Some(story) = failures.first() {
        for other in &failures[1..] {
            println!("{}", other.lines().next().unwrap_or_default());
        }
        panic!("{story}");
    }
    println!("{unproven} nodes were halted though their binary had signed nothing");
    // Where the proof of that just misses its time a halt is safe; it must stay rare.
    assert!(unproven * 400 <= runs + 400, "{unproven} of {runs} runs halt a binary that has signed nothing");
}
