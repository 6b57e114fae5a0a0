//! Plans, as an operator uses them: the commands by themselves, and whole runs that follow plans.

mod commands;
mod fetch;
mod room;
mod runs;
mod sync;
mod trouble;
mod waits;

use crate::rig::visor::{Rig, Visor};
use serde_json::Value;

impl Rig {
    /// Makes a plan of `NAME:HEIGHT`s and has it followed.
    #[track_caller]
    fn follow(&self, plan: &str, upgrades: &[&str]) -> String {
        self.ok(&[&["plan", "create", plan], upgrades].concat());
        self.ok(&["plan", "execute", plan])
    }

    /// The output of `plan status --json`, at any exit code.
    #[track_caller]
    fn plan_status(&self, plan: &str) -> Value {
        let out = self.output(&["plan", "status", plan, "--json"]);
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

/// One upgrade of a status.
#[track_caller]
fn upgrade<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut all = status["upgrades"].as_array().unwrap().iter();
    all.find(|u| u["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// The phases of a status, in order.
fn phases(status: &Value) -> Vec<&str> {
    status["upgrades"].as_array().unwrap().iter().map(|u| u["phase"].as_str().unwrap()).collect()
}

/// Waits until an upgrade was applied.
#[track_caller]
fn wait_applied(visor: &mut Visor<'_>, upgrade: &str) -> String {
    visor.wait(&["event=upgrade_ended", &format!("name={upgrade} "), "outcome=applied"])
}

/// The number behind `key=` in a log line.
#[track_caller]
fn number_in(line: &str, key: &str) -> u64 {
    let word = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    word.unwrap_or_else(|| panic!("no {key} in {line}")).parse().unwrap()
}
