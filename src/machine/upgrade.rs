//! One upgrade as all its sources agree on it: the version, the height and the limits.
//!
//! The trigger file, `upgrade schedule` and plans each have their own file format; all become this.

use crate::digest::Digest;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

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
    pub binaries: BTreeMap<String, String>,
    /// Free text of the planner, handed to hooks as `UPGRADE_INFO`.
    pub info: Option<String>,
    /// The source of the plan.
    pub origin: Origin,
}

/// The source from which an upgrade was learned. As JSON it is its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Origin {
    /// The node, or an operator, wrote `upgrade-info.json`.
    TriggerFile,
    /// `wemixvisor upgrade schedule`.
    Schedule,
    /// An active batch plan.
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
            binaries: BTreeMap::new(),
            info: None,
            origin,
        }
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
