//! A plan as it stands in `plans/<name>.json`, with the fields that we do not know.
//!
//! The type holds what was read, whether it makes sense or not; [`super::validate`] judges it.

use super::entry::Entry;
use super::json::{Fields, Members, read};
use super::reading::Reading;
use super::report::Report;
use super::visit;
use crate::machine::{Origin, Upgrade};
use crate::name::Name;
use crate::time::rfc3339;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Many upgrades, planned at heights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The version of the format: [`Plan::VERSION`].
    pub version: String,
    /// The plan's name, which is also the name of its file.
    pub name: Name,
    /// For people.
    pub description: String,
    /// When it was made, RFC 3339. For people.
    pub created_at: String,
    /// The chain that it is meant for; the node's `eth_chainId` is checked against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// The upgrades, by strictly rising height.
    pub upgrades: Vec<Entry>,
    /// Fields that we do not know; they survive to the letter.
    #[serde(flatten)]
    pub rest: Fields,
}

impl Plan {
    /// The version of the format that this library reads and writes.
    pub const VERSION: &str = "1.0";

    /// An empty plan, made now.
    #[must_use]
    pub fn new(name: Name, description: impl Into<String>) -> Self {
        Plan {
            version: Plan::VERSION.to_owned(),
            name,
            description: description.into(),
            created_at: rfc3339(SystemTime::now()),
            chain_id: None,
            upgrades: Vec::new(),
            rest: Fields::default(),
        }
    }

    /// Adds an upgrade at its place in the order of heights, behind others of the same height.
    pub fn add(&mut self, entry: Entry) {
        let place = self.upgrades.partition_point(|other| other.height <= entry.height);
        self.upgrades.insert(place, entry);
    }

    /// Takes an upgrade out; `None` if there is none of that name.
    pub fn remove(&mut self, name: &Name) -> Option<Entry> {
        let place = self.upgrades.iter().position(|entry| entry.name == *name)?;
        Some(self.upgrades.remove(place))
    }

    /// The first upgrade above a height.
    #[must_use]
    pub fn next(&self, height: u64) -> Option<&Entry> {
        self.upgrades.iter().filter(|entry| entry.height > height).min_by_key(|entry| entry.height)
    }

    /// The upgrade at exactly this height.
    #[must_use]
    pub fn at(&self, height: u64) -> Option<&Entry> {
        self.upgrades.iter().find(|entry| entry.height == height)
    }

    /// The upgrades in the form in which they are scheduled.
    #[must_use]
    pub fn schedule(self) -> Vec<Arc<Upgrade>> {
        let origin = Origin::Plan(self.name);
        self.upgrades.into_iter().map(|entry| Arc::new(entry.upgrade(origin.clone()))).collect()
    }

    /// The plan as the text of its file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("every key of a plan is a string");
        text + "\n"
    }
}

/// No two keys may be equal, in the plan or in an upgrade: one of them would be lost.
impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(from)?;
        let mut upgrades = Vec::new();
        let mut draft = Draft::read(fields.members(), &mut |_, entry| upgrades.push(entry));
        let report = std::mem::take(&mut draft.report);
        draft.plan(upgrades).ok_or_else(|| D::Error::custom(report.line()))
    }
}

/// The parts of a plan that could be read but its upgrades, and everything that is wrong with the plan in itself.
pub(super) struct Draft {
    pub(super) report: Report,
    pub(super) name: Option<Name>,
    pub(super) chain_id: Option<u64>,
    version: Option<String>,
    description: String,
    created_at: String,
    rest: Fields,
    is_whole: bool,
}

impl Draft {
    /// Hands over each upgrade that could be read, with its place in the plan.
    pub(super) fn read(fields: Members<'_>, each: &mut dyn FnMut(usize, Entry)) -> Draft {
        let mut reading = Reading::new("", fields);
        let version = version(&mut reading);
        let name = reading.name();
        let mut text = |key| reading.read(key, "expected a text").unwrap_or_default();
        let (description, created_at) = (text("description"), text("created_at"));
        let chain_id = reading.number("chain_id", "a whole number above 0");
        upgrades(&mut reading, each);
        let rest = reading.unknown();
        let Reading { report, is_whole, .. } = reading;
        Draft { report, name, chain_id, version, description, created_at, rest, is_whole }
    }

    /// The plan with these upgrades, if all of it could be read.
    pub(super) fn plan(self, upgrades: Vec<Entry>) -> Option<Plan> {
        let (version, name) = self.version.zip(self.name).filter(|_| self.is_whole)?;
        let Draft { description, created_at, chain_id, rest, .. } = self;
        Some(Plan { version, name, description, created_at, chain_id, upgrades, rest })
    }
}

fn version(reading: &mut Reading<'_>) -> Option<String> {
    let Some(json) = reading.take("version") else {
        return reading.unreadable("version", format!("it is missing; write \"{}\"", Plan::VERSION));
    };
    let text = read::<String>(json).ok();
    if text.as_deref() != Some(Plan::VERSION) {
        reading.wrong("version", format!("{} is not \"{}\"", json.get(), Plan::VERSION));
    }
    reading.is_whole &= text.is_some();
    text
}

/// Reads the upgrades. Their names must differ, and their heights rise.
fn upgrades(reading: &mut Reading<'_>, each: &mut dyn FnMut(usize, Entry)) {
    let (mut names, mut highest) = (BTreeMap::new(), None);
    if !reading.has("upgrades") {
        return;
    }
    let Some(list) = reading.read::<Vec<&RawValue>>("upgrades", "expected a list") else { return };
    if list.is_empty() {
        reading.wrong("upgrades", "there is no upgrade in it");
    }
    for (index, upgrade) in visit(list.into_iter().enumerate()) {
        let at = format!("/upgrades/{index}");
        let Ok(fields) = read(upgrade) else {
            reading.is_whole = false;
            reading.report.error(at, "expected an object: an upgrade");
            continue;
        };
        let mut ours = Reading::new(at, fields);
        let name = ours.name();
        if let Some(name) = &name {
            let first = *names.entry(name.clone()).or_insert(index);
            if first != index {
                ours.wrong("name", format!("{name} is planned already in /upgrades/{first}"));
            }
        }
        let height = ours.own_height();
        match (height, highest) {
            (Some(height), Some((above, other))) if height <= above => {
                let what = format!("{height} is not above {above}, the height of /upgrades/{other}");
                ours.wrong("height", what);
            }
            (Some(height), _) => highest = Some((height, index)),
            (None, _) => {}
        }
        let (entry, report) = Entry::read_details(ours, name, height);
        reading.is_whole &= entry.is_some();
        reading.report.findings.extend(report.findings);
        entry.into_iter().for_each(|entry| each(index, entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use serde_json::{Value, json};

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_read_is_what_is_written_with_unknown_fields() {
        let file = json!({
            "version": "1.0", "name": "p", "description": "", "created_at": "2026-01-01T00:00:00Z",
            "owner": {"team": "ops"},
            "upgrades": [
                {"name": "v2", "height": 100, "fork_height": 200, "deadline_height": 150, "data_compat": false,
                 "sha256": HEX, "binaries": {"linux/amd64": "https://x/v2"}, "info": {"a": [1]}, "ticket": 7},
                {"name": "v3", "height": 300, "sha512": HEX.repeat(2)},
            ]
        });
        let plan: Plan = serde_json::from_value(file.clone()).unwrap();
        assert_eq!(plan.upgrades[0].digest, Some(Digest::sha256(b"abc")));
        assert_eq!(plan.upgrades[0].rest.get("ticket").unwrap().as_str(), "7");
        assert_eq!(serde_json::from_str::<Value>(&plan.to_json()).unwrap(), file);
    }

    #[test]
    fn what_is_not_ours_survives_to_the_letter() {
        let unknown = r#""zeta":{"z":1.50,"a":[{"wei":123456789012345678901234567890}]},"alpha":1e2"#;
        let info = r#""info":{"z":{"amount":100000000000000000000001},"a":"x y"}"#;
        let text = format!(
            r#"{{"version":"1.0","name":"p","upgrades":[{{"name":"v2","height":5,{info},{unknown}}}],{unknown}}}"#
        );
        let plan: Plan = serde_json::from_str(&text).unwrap();
        let saved = serde_json::to_string(&plan).unwrap();
        assert_eq!(saved.replace(r#""description":"","created_at":"","#, ""), text);
        assert_eq!(serde_json::from_str::<Plan>(&plan.to_json()).unwrap(), plan);
        let info = plan.upgrades[0].clone().upgrade(Origin::Schedule).info.unwrap();
        assert_eq!(info, r#"{"z":{"amount":100000000000000000000001},"a":"x y"}"#);
    }

    #[test]
    fn a_digest_stands_under_its_own_key_and_only_once() {
        let read = |fields: Value| {
            let mut entry = json!({"name": "v2", "height": 1});
            entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value::<Entry>(entry).map(|e| e.digest)
        };
        assert_eq!(
            read(json!({"sha256": format!("sha256:{}", HEX.to_uppercase())})).unwrap(),
            Some(Digest::sha256(b"abc"))
        );
        assert_eq!(read(json!({"sha256": null})).unwrap(), None);
        for bad in [
            json!({"sha256": "abc"}),
            json!({"sha512": HEX}),
            json!({"sha256": format!("sha512:{}", HEX.repeat(2))}),
            json!({"sha256": HEX, "sha512": HEX.repeat(2)}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn equal_keys_are_refused() {
        for fields in [
            r#""height":1,"height":2"#,
            r#""height":1,"ticket":1,"ticket":2"#,
            r#""height":1,"binaries":{"any":"http://a","any":"http://b"}"#,
        ] {
            assert!(
                serde_json::from_str::<Entry>(&format!(r#"{{"name":"v2",{fields}}}"#)).is_err(),
                "{fields}"
            );
        }
    }

    #[test]
    fn upgrades_stay_in_the_order_of_heights() {
        let mut plan = Plan::new("p".parse().unwrap(), "");
        for text in ["v3:300", "v2:200", "v4:400"] {
            plan.add(text.parse().unwrap());
        }
        let names = |plan: &Plan| plan.upgrades.iter().map(|e| e.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&plan), ["v2", "v3", "v4"]);
        assert_eq!(plan.next(200).unwrap().height, 300);
        assert_eq!(plan.at(200).unwrap().name.as_str(), "v2");
        assert!(plan.next(400).is_none() && plan.at(201).is_none());
        assert!(plan.remove(&"v3".parse().unwrap()).is_some());
        assert!(plan.remove(&"v3".parse().unwrap()).is_none());
        assert_eq!(names(&plan), ["v2", "v4"]);
    }

    #[test]
    fn an_entry_from_the_command_line() {
        for bad in ["v2", "v2:", "v2:0", "v2:+5", "v2:x", ":5", "../x:5", "v2:5:6"] {
            assert!(bad.parse::<Entry>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hooks_get_text_as_it_is_and_objects_as_json() {
        let mut entry: Entry = "v2:5".parse().unwrap();
        let info = |entry: &Entry| entry.clone().upgrade(Origin::Schedule).info;
        assert_eq!(info(&entry), None);
        entry.info = Some(json!("plain").into());
        assert_eq!(info(&entry).as_deref(), Some("plain"));
        entry.info = Some(json!({"a": 1}).into());
        assert_eq!(info(&entry).as_deref(), Some(r#"{"a":1}"#));
    }
}
