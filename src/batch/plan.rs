//! A plan and its upgrades as they stand in `plans/<name>.json`, with the fields that we do not know.
//!
//! The types hold what was read, whether it makes sense or not; [`super::validate`] judges it.

use crate::digest::{BadDigest, Digest};
use crate::machine::{Origin, Upgrade};
use crate::name::Name;
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::SystemTime;

/// Many upgrades, planned at heights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of the format: [`Plan::VERSION`].
    pub version: String,
    /// The plan's name, which is also the name of its file.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// When it was made, RFC 3339. For people.
    #[serde(default)]
    pub created_at: String,
    /// The chain that it is meant for; the node's `eth_chainId` is checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// The upgrades, by strictly rising height.
    pub upgrades: Vec<Entry>,
    /// Fields that we do not know; they survive.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One upgrade of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The upgrade's name, which is also its directory under `upgrades/`.
    pub name: Name,
    /// The height from which it is due.
    pub height: u64,
    /// The first height that needs the new binary, above `height`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_height: Option<u64>,
    /// Past this height a validator no longer waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_height: Option<u64>,
    /// Whether the old binary can open data that the new one has written; if not said, it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_compat: Option<bool>,
    /// The digest of what is downloaded or staged, written as `sha256` or `sha512`.
    #[serde(flatten, with = "pinned")]
    pub digest: Option<Digest>,
    /// Where the binary can be had, by `os/arch` (`linux/amd64`) or `any`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binaries: BTreeMap<String, String>,
    /// Anything, handed to hooks as `UPGRADE_INFO`: a text as it is, all else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Value>,
    /// Fields that we do not know; they survive.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
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
            rest: Map::new(),
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
    pub fn schedule(&self) -> Vec<Upgrade> {
        let origin = Origin::Plan(self.name.clone());
        self.upgrades.iter().map(|entry| entry.upgrade(origin.clone())).collect()
    }

    /// The plan as the text of its file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("every key of a plan is a string");
        text + "\n"
    }
}

impl Entry {
    /// An upgrade of which nothing but name and height is known.
    #[must_use]
    pub fn new(name: Name, height: u64) -> Self {
        Entry {
            name,
            height,
            fork_height: None,
            deadline_height: None,
            data_compat: None,
            digest: None,
            binaries: BTreeMap::new(),
            info: None,
            rest: Map::new(),
        }
    }

    /// The upgrade as everybody else knows it, planned by `origin`.
    #[must_use]
    pub fn upgrade(&self, origin: Origin) -> Upgrade {
        Upgrade {
            fork_height: self.fork_height,
            deadline_height: self.deadline_height,
            data_compat: self.data_compat.unwrap_or(true),
            digest: self.digest,
            binaries: self.binaries.clone(),
            info: self.info_text(),
            ..Upgrade::new(self.name.clone(), self.height, origin)
        }
    }

    fn info_text(&self) -> Option<String> {
        match self.info.as_ref()? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl FromStr for Entry {
    type Err = String;

    /// Reads `NAME:HEIGHT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, height) =
            text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form NAME:HEIGHT"))?;
        let name = name.parse().map_err(|e| format!("{e}"))?;
        let digits = height.bytes().all(|b| b.is_ascii_digit());
        let height = height.parse().ok().filter(|n| digits && *n > 0);
        Ok(Entry::new(name, height.ok_or_else(|| format!("{text:?} has no height: a number above 0"))?))
    }
}

/// A digest as one of two keys, each with the bare digits of its algorithm.
mod pinned {
    use super::{BadDigest, Digest};
    use serde::ser::SerializeMap as _;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[derive(Deserialize)]
    struct Keys {
        #[serde(default)]
        sha256: Option<String>,
        #[serde(default)]
        sha512: Option<String>,
    }

    pub(super) fn serialize<S: Serializer>(digest: &Option<Digest>, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        if let Some(digest) = digest {
            map.serialize_entry(&digest.algorithm().to_string(), &digest.hex())?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
        let keys = Keys::deserialize(from)?;
        let read = |key: &str, hex: Option<String>| -> Result<Option<Digest>, BadDigest> {
            hex.map(|hex| super::read_pinned(key, &hex)).transpose()
        };
        let short = read("sha256", keys.sha256).map_err(D::Error::custom)?;
        let long = read("sha512", keys.sha512).map_err(D::Error::custom)?;
        match (short, long) {
            (Some(_), Some(_)) => Err(D::Error::custom("give sha256 or sha512, not both")),
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// Reads the digest of a key `sha256` or `sha512`; the digits may have the same word before them.
pub(super) fn read_pinned(key: &str, text: &str) -> Result<Digest, BadDigest> {
    let digits = text.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    format!("{key}:{digits}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        assert_eq!(plan.upgrades[0].rest["ticket"], 7);
        assert_eq!(serde_json::from_str::<Value>(&plan.to_json()).unwrap(), file);
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
        assert!(serde_json::from_str::<Entry>(r#"{"name":"v2","height":1,"height":2}"#).is_err());
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
        let info = |entry: &Entry| entry.upgrade(Origin::Schedule).info;
        assert_eq!(info(&entry), None);
        entry.info = Some(json!("plain"));
        assert_eq!(info(&entry).as_deref(), Some("plain"));
        entry.info = Some(json!({"a": 1}));
        assert_eq!(info(&entry).as_deref(), Some(r#"{"a":1}"#));
    }
}
