//! The roll of a plan: the validators in the order in which they may stop for each upgrade, and when that is expected.
//!
//! It holds for as long as the set of validators stays, all of them are healthy, and the chain keeps its pace.

use super::situation::World;
use crate::cli::forecast::{Now, Turn, grouped};
use crate::cli::network;
use crate::cli::show::table;
use crate::machine::gates::{Validator, Window, roll};
use crate::schedule::{Entry, Plan};
use crate::wbft::{Address, Outlook};
use serde::Serialize;
use std::fmt::Write as _;

/// The number of upgrades whose rolls are shown to people.
const SHOWN: usize = 20;

/// The roll of one upgrade.
pub(super) struct Roll<'a> {
    entry: &'a Entry,
    now: Now,
    own: Option<Address>,
    turns: Vec<(Validator, Window)>,
}

/// The same for programs.
#[derive(Serialize)]
pub(super) struct Value<'a> {
    upgrade: &'a str,
    height: u64,
    fork_height: Option<u64>,
    turns: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    validator: Address,
    is_this_node: bool,
    #[serde(flatten)]
    turn: Turn,
}

/// The rolls of all upgrades that are to come; none where the set is not known.
pub(super) fn rolls<'a>(plan: &'a Plan, world: &World) -> Vec<Roll<'a>> {
    let Some(network) = world.network() else { return Vec::new() };
    let now = network::now(network);
    let set = network.set();
    let is_open =
        |entry: &&Entry| world.is_to_come(entry) && entry.fork_height.is_none_or(|fork| fork > now.head);
    plan.upgrades.iter().filter(is_open).map(|entry| Roll::new(entry, network, now, &set)).collect()
}

/// The rolls in words.
pub(super) fn text(rolls: &[Roll<'_>]) -> String {
    let mut text: String = rolls.iter().take(SHOWN).map(Roll::text).collect();
    if rolls.len() > SHOWN {
        let _ = writeln!(text, "\nand {} more upgrades, each in the same order", rolls.len() - SHOWN);
    }
    text
}

impl<'a> Roll<'a> {
    fn new(entry: &'a Entry, network: &Outlook, now: Now, set: &[Validator]) -> Self {
        Roll { entry, now, own: network.seen.own, turns: roll(set, entry.height.max(now.head)) }
    }

    fn text(&self) -> String {
        let Entry { name, height, fork_height, .. } = self.entry;
        let fork = fork_height.map(|fork| format!(", fork at {}", grouped(fork))).unwrap_or_default();
        let mut rows = vec![["VALIDATOR", "BLOCKS", "EXPECTED", ""].map(ToOwned::to_owned)];
        for (validator, window) in &self.turns {
            let address = Address(*validator);
            let late = fork_height.is_some_and(|fork| window.opens_at >= fork);
            let notes = [(late, "after the fork"), (self.own == Some(address), "this node")];
            let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
            rows.push([
                address.to_string(),
                format!("{} to {}", grouped(window.opens_at), grouped(window.closes_at)),
                self.now.when(window.opens_at),
                notes.join(", "),
            ]);
        }
        format!("\n{name} at {}{fork}\n{}", grouped(*height), table(rows))
    }

    /// The same for programs.
    pub(super) fn value(&self) -> Value<'_> {
        let member = |(validator, window): &(Validator, Window)| Member {
            validator: Address(*validator),
            is_this_node: self.own == Some(Address(*validator)),
            turn: self.now.turn(*window),
        };
        Value {
            upgrade: self.entry.name.as_str(),
            height: self.entry.height,
            fork_height: self.entry.fork_height,
            turns: self.turns.iter().map(member).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn every_validator_has_its_blocks_and_its_time() {
        let mut entry = Entry::new("v2".parse().unwrap(), 12_000);
        entry.fork_height = Some(12_600);
        let set: Vec<Validator> = (1..=4).map(|n| [n; 20]).collect();
        let now = Now { head: 11_000, period: Duration::from_secs(1), time: UNIX_EPOCH };
        let turns = roll(&set, 12_000);
        let roll = Roll { entry: &entry, now, own: Some(Address([2; 20])), turns };
        let text = roll.text();
        assert!(text.starts_with("\nv2 at 12,000, fork at 12,600\nVALIDATOR "), "{text}");
        // Slot 500 is the first, and the first group's.
        assert!(
            text.contains(&format!("0x{}  12,000 to 12,011  in 16 min 40 s, ", "01".repeat(20))),
            "{text}"
        );
        let ours = text.lines().find(|line| line.ends_with("this node")).unwrap();
        assert!(ours.contains("12,024 to 12,035"), "{text}");
        let value = serde_json::to_value(roll.value()).unwrap();
        assert_eq!((&value["upgrade"], value["turns"].as_array().unwrap().len()), (&"v2".into(), 4));
        assert_eq!(
            (&value["turns"][1]["opens_at"], &value["turns"][1]["is_this_node"]),
            (&12_024.into(), &true.into())
        );
        assert_eq!(value["turns"][0]["opens_at_time"], "1970-01-01T00:16:40.000Z");
    }
}
