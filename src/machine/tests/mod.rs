//! Tests of the machine: what it does in each situation, and what it never does in any.
//!
//! Nothing here waits, runs a process or touches a disk. [`world`] performs the machine's actions on a toy
//! world of a disk, a node and a worker; [`laws`] says what must hold after each step. What happens next
//! is chosen by hand ([`transcript`]), is all that can ([`explore`]), or is left to dice ([`random`]).

mod explore;
mod fingerprint;
mod fleet;
mod laws;
mod transcript;
mod world;

mod backups;
mod crashes;
mod failures;
mod health;
mod operator;
mod plans;
mod random;
mod receipts;
mod recording;
mod rehearsals;
mod restarts;
mod upgrades;
mod ways;

use super::*;
use crate::digest::Digest;
use world::Fate;

/// The height of the upgrade `v2`.
const H: u64 = 100;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Every binary has its place as content.
fn version(target: &Target) -> Version {
    Version { target: target.clone(), sha256: Digest::sha256(target.to_string().as_bytes()) }
}

fn upgrade(text: &str, height: u64) -> Upgrade {
    Upgrade::new(name(text), height, Origin::Schedule)
}

fn v2() -> Upgrade {
    upgrade("v2", H)
}

/// The defaults of the configuration, without a backup.
fn policy() -> Policy {
    Policy { backup: false, backup_ahead: false, hook_retries: 2, ..Policy::default() }
}
