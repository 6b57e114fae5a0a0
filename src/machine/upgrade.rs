//! One upgrade as all its sources agree on it: the version, the height and the limits.
//!
//! The trigger file, `upgrade schedule` and plans each have their own file format; all become this.

use crate::digest::Digest;
use crate::name::Name;
use crate::sorted;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A planned replacement of the node's binary at a block height.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upgrade {
    /// Its name, which is also its directory under `upgrades/`.
    pub name: Name,
    /// The height from which the upgrade is due. At least 1.
    pub height: u64,
    /// The first height that needs the new binary: a deadline above `height`.
    pub fork_height: Option<u64>,
    /// Past this height the gates `turn` and `calm` no longer hold the upgrade back.
    pub deadline_height: Option<u64>,
    /// Whether the old binary can open data that the new one has written (before the fork).
    pub data_compat: bool,
    /// The digest of what is downloaded or staged, where the planner pinned one.
    pub digest: Option<Digest>,
    /// The URLs of the binary, by `os/arch` (`linux/amd64`) or `any`.
    pub binaries: Places,
    /// Free text of the planner, handed to hooks as `UPGRADE_INFO`.
    pub info: Option<String>,
    /// The source of the plan.
    pub origin: Origin,
    /// Whether the operator holds it back for now.
    pub on_hold: bool,
}

/// The URLs of a binary, by platform. They are few in an upgrade, and a plan has thousands of upgrades: no map is as small.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Places(Box<[(Box<str>, Box<str>)]>);

/// The source from which an upgrade was learned. As JSON it is its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Origin {
    /// The node, or an operator, wrote `upgrade-info.json`.
    TriggerFile,
    /// `wemixvisor upgrade schedule`.
    Schedule,
    /// An active plan.
    Plan(Name),
}

/// The texts of the sources; the name of a plan follows the last one.
const TRIGGER_FILE: &str = "upgrade-info.json";
const SCHEDULE: &str = "schedule";
const PLAN: &str = "plan ";

impl Upgrade {
    /// An upgrade of which nothing but name and height is known.
    #[must_use]
    pub fn new(name: Name, height: u64, origin: Origin) -> Self {
        Upgrade {
            name,
            height,
            fork_height: None,
            deadline_height: None,
            data_compat: true,
            digest: None,
            binaries: Places::default(),
            info: None,
            origin,
            on_hold: false,
        }
    }
}

/// Whether a chain at this head comes to the fork with its next block, or has: a binary that lacks the fork cannot follow.
pub(super) fn is_at_fork(head: u64, fork: u64) -> bool {
    head.saturating_add(1) >= fork
}

impl Places {
    /// The URL for a platform.
    #[must_use]
    pub fn get(&self, platform: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == platform).map(|(_, url)| url)
    }

    /// All of them, by platform.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(platform, url)| (&**platform, &**url))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<P: Into<Box<str>>, U: Into<Box<str>>> FromIterator<(P, U)> for Places {
    fn from_iter<I: IntoIterator<Item = (P, U)>>(places: I) -> Self {
        let mut places: Box<[_]> = places.into_iter().map(|(p, u)| (p.into(), u.into())).collect();
        sorted::sort(&mut places);
        Places(places)
    }
}

impl Serialize for Places {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.iter())
    }
}

/// One upgrade from several of the same name.
///
/// # Errors
/// The attribute on which they disagree, in words.
pub(super) fn unite(same: &[Arc<Upgrade>]) -> Result<Arc<Upgrade>, String> {
    let (first, others) = same.split_first().expect("a group has at least one member");
    if others.is_empty() {
        return Ok(Arc::clone(first));
    }
    let mut one = Upgrade::clone(first);
    for other in others {
        if one.height != other.height {
            return Err("they disagree on the height".to_owned());
        }
        one.fork_height = agree(one.fork_height, other.fork_height, "the fork height")?;
        one.digest = agree(one.digest, other.digest, "the digest")?;
        one.deadline_height = match (one.deadline_height, other.deadline_height) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        one.data_compat &= other.data_compat;
        one.info = one.info.or_else(|| other.info.clone());
        if other.origin == Origin::TriggerFile {
            one.origin = Origin::TriggerFile;
        }
    }
    let mut places = BTreeMap::new();
    for (platform, url) in same.iter().flat_map(|upgrade| upgrade.binaries.iter()) {
        let known = *places.entry(platform).or_insert(url);
        // With a digest it does not matter where the binary comes from.
        if known != url && one.digest.is_none() {
            return Err("they disagree on where the binary is, and none pins its digest".to_owned());
        }
    }
    one.binaries = places.into_iter().collect();
    Ok(Arc::new(one))
}

fn agree<T: PartialEq>(a: Option<T>, b: Option<T>, on: &str) -> Result<Option<T>, String> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(format!("they disagree on {on}")),
        (a, b) => Ok(a.or(b)),
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Origin, String> {
        match text.as_str() {
            TRIGGER_FILE => Ok(Origin::TriggerFile),
            SCHEDULE => Ok(Origin::Schedule),
            _ => text
                .strip_prefix(PLAN)
                .and_then(|name| name.parse().ok())
                .map(Origin::Plan)
                .ok_or_else(|| format!("no source of upgrades: {text:?}")),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::TriggerFile => f.write_str(TRIGGER_FILE),
            Origin::Schedule => f.write_str(SCHEDULE),
            Origin::Plan(name) => write!(f, "{PLAN}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_origin_is_read_as_it_is_shown() {
        let plan = Origin::Plan("spring".parse().expect("a name"));
        for origin in [Origin::TriggerFile, Origin::Schedule, plan] {
            assert_eq!(Origin::try_from(origin.to_string()), Ok(origin));
        }
        for none in ["", "plan", "plan ", "plan ../x", "Schedule"] {
            Origin::try_from(none.to_owned()).unwrap_err();
        }
    }
}
