//! A plan and its upgrades as they stand in `plans/<name>.json`, with the fields that we do not know.
//!
//! The types hold what was read, whether it makes sense or not; [`super::validate`] judges it.

use super::fields::{Fields, Json};
use crate::digest::{BadDigest, Digest};
use crate::machine::{Origin, Upgrade};
use crate::name::Name;
use crate::sorted;
use crate::time::rfc3339;
use serde::de::Error;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::str::FromStr;
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

/// One upgrade of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The upgrade's name, which is also its directory under `upgrades/`.
    pub name: Name,
    /// The height from which it is due.
    pub height: u64,
    /// The first height that needs the new binary, above `height`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork_height: Option<u64>,
    /// Past this height a validator no longer waits for its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_height: Option<u64>,
    /// Whether the old binary can open data that the new one has written; if not said, it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_compat: Option<bool>,
    /// The digest of what is downloaded or staged, written as `sha256` or `sha512`.
    #[serde(flatten, serialize_with = "pinned")]
    pub digest: Option<Digest>,
    /// The sources of the binary, by `os/arch` (`linux/amd64`) or `any`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub binaries: BTreeMap<String, String>,
    /// Anything, handed to hooks as `UPGRADE_INFO`: a text as it is, all else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
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
            rest: Fields::default(),
        }
    }

    /// The upgrade as the other modules know it, planned by `origin`.
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
        let info = self.info.as_ref()?;
        Some(info.read().unwrap_or_else(|_| info.compact()))
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

/// No two keys may be equal, in the plan or in an upgrade: one of them would be lost.
impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut fields = Fields::unique(from)?;
        Ok(Plan {
            version: fields.need("version")?,
            name: fields.need("name")?,
            description: fields.take("description")?.unwrap_or_default(),
            created_at: fields.take("created_at")?.unwrap_or_default(),
            chain_id: fields.take("chain_id")?.flatten(),
            upgrades: fields.need("upgrades")?,
            rest: fields,
        })
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut fields = Fields::unique(from)?;
        Ok(Entry {
            name: fields.need("name")?,
            height: fields.need("height")?,
            fork_height: fields.take("fork_height")?.flatten(),
            deadline_height: fields.take("deadline_height")?.flatten(),
            data_compat: fields.take("data_compat")?.flatten(),
            digest: digest(&mut fields)?,
            binaries: fields.take::<Places, _>("binaries")?.unwrap_or_default().0,
            info: fields.take::<Option<Json>, _>("info")?.flatten(),
            rest: fields,
        })
    }
}

/// The sources of a binary, with no platform twice.
#[derive(Default)]
struct Places(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Fields::unique(from)?;
        let read = |(platform, url): (&str, &Json)| {
            url.read().map(|url| (platform.to_owned(), url)).map_err(D::Error::custom)
        };
        let places: Vec<_> = fields.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Places(sorted::gather(places)))
    }
}

/// Takes a digest out, which stands under the key of its algorithm.
fn digest<E: Error>(fields: &mut Fields) -> Result<Option<Digest>, E> {
    let mut read = |key: &str| {
        let hex: Option<Option<String>> = fields.take(key)?;
        hex.flatten().map(|hex| read_pinned(key, &hex)).transpose().map_err(E::custom)
    };
    match (read("sha256")?, read("sha512")?) {
        (Some(_), Some(_)) => Err(E::custom("give sha256 or sha512, not both")),
        (one, other) => Ok(one.or(other)),
    }
}

/// Writes a digest under the key of its algorithm, as bare digits.
fn pinned<S: Serializer>(digest: &Option<Digest>, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    if let Some(digest) = digest {
        map.serialize_entry(&digest.algorithm().to_string(), &digest.hex())?;
    }
    map.end()
}

/// Reads the digest of a key `sha256` or `sha512`; the digits may have the same word before them.
pub(super) fn read_pinned(key: &str, text: &str) -> Result<Digest, BadDigest> {
    let digits = text.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    format!("{key}:{digits}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let info = plan.upgrades[0].upgrade(Origin::Schedule).info.unwrap();
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
        let info = |entry: &Entry| entry.upgrade(Origin::Schedule).info;
        assert_eq!(info(&entry), None);
        entry.info = Some(json!("plain").into());
        assert_eq!(info(&entry).as_deref(), Some("plain"));
        entry.info = Some(json!({"a": 1}).into());
        assert_eq!(info(&entry).as_deref(), Some(r#"{"a":1}"#));
    }
}
