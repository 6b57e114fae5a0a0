//! Judging a plan: every problem at once, each with a JSON pointer (RFC 6901) to the place.
//!
//! The judge reads the JSON itself and not a [`Plan`], since what cannot become a plan is what most
//! needs judging. An error makes a plan unfit for activation; a warning says what it will mean.
//! The work is linear in the number of upgrades, but for looking names up in ordered maps.

use super::fields::{Fields, Json};
use super::plan::{Entry, Plan, read_pinned};
use super::visit;
use crate::machine::gates::room;
use crate::machine::{Ended, Origin, Outcome, Upgrade, merge};
use crate::name::Name;
use crate::printable::printable;
use crate::sorted::{Index, Set};
use crate::url;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Hooks get `info` in their environment, and Linux takes no variable beyond 128 KiB.
const MAX_INFO: usize = 64 * 1024;

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The plan cannot be activated.
    Error,
    /// The plan can be activated, but may not mean what its author thinks.
    Warning,
}

/// Something about a plan that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where, as a JSON pointer: `/upgrades/3/height`; empty for the whole file.
    pub pointer: String,
    /// How bad.
    pub severity: Severity,
    /// What.
    pub what: String,
}

/// Everything found about a plan: in itself, in the order of the file; then against the rest of the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each on its own.
    pub findings: Vec<Finding>,
}

/// The facts outside the plan, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The height of the chain.
    pub head: Option<u64>,
    /// The chain that the node follows (`eth_chainId`).
    pub chain_id: Option<u64>,
    /// The upgrades of all sources. Those of an active version of the same plan are passed over.
    pub planned: &'a [Upgrade],
    /// The upgrades that the operator has cancelled.
    pub cancelled: &'a [(Name, u64)],
    /// The upgrades that have ended.
    pub ended: &'a [Ended],
    /// For a validator: the size of the set, and how bad it is if not all of them can have a turn before a fork.
    pub room: Option<(usize, Severity)>,
}

impl Finding {
    fn error(pointer: &str, what: impl Into<String>) -> Self {
        Finding { pointer: pointer.to_owned(), severity: Severity::Error, what: what.into() }
    }
}

impl Report {
    /// Whether the plan can be activated: nothing was found, or warnings only.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }
}

/// Judges the bytes of a plan's file; the plan itself is returned if they are one.
#[must_use]
pub fn validate_json(bytes: &[u8], context: &Context<'_>) -> (Option<Plan>, Report) {
    let value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(e) => {
            let findings = vec![Finding::error("", format!("not JSON: {e}"))];
            return (None, Report { findings });
        }
    };
    let mut report = judge(&value, context);
    report.findings.splice(0..0, equal_keys(bytes));
    match serde_json::from_slice(bytes) {
        Ok(plan) => (Some(plan), report),
        Err(e) => {
            if report.is_valid() {
                report.findings.push(Finding::error("", e.to_string()));
            }
            (None, report)
        }
    }
}

/// Judges a plan.
#[must_use]
pub fn validate(plan: &Plan, context: &Context<'_>) -> Report {
    match serde_json::to_value(plan) {
        Ok(value) => judge(&value, context),
        // A number in a field that we do not know may be larger than any that can be computed with.
        Err(e) => Report { findings: vec![Finding::error("", format!("not JSON: {e}"))] },
    }
}

/// The keys that stand more than once in an object that we know, of which the value has lost all but the last.
fn equal_keys(bytes: &[u8]) -> Vec<Finding> {
    let Ok(plan) = serde_json::from_slice::<Fields>(bytes) else { return Vec::new() };
    let mut found = Vec::new();
    let mut note = |at: &str, fields: &Fields| {
        let twice = |key| Finding::error(&format!("{at}/{}", token(key)), "it stands there more than once");
        found.extend(fields.equal_keys().into_iter().map(twice));
    };
    note("", &plan);
    let upgrades: Vec<Json> = plan.get("upgrades").and_then(|list| list.read().ok()).unwrap_or_default();
    for (index, upgrade) in visit(upgrades.iter().enumerate()) {
        let at = format!("/upgrades/{index}");
        let Ok(upgrade) = upgrade.read::<Fields>() else { continue };
        note(&at, &upgrade);
        if let Some(binaries) = upgrade.get("binaries").and_then(|b| b.read().ok()) {
            note(&format!("{at}/binaries"), &binaries);
        }
    }
    found
}

/// A key as a part of a JSON pointer.
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn judge(value: &Value, context: &Context<'_>) -> Report {
    let mut judge = Judge::new(context);
    match value.as_object() {
        Some(plan) => judge.plan(plan),
        None => judge.error("", "expected an object: a plan"),
    }
    judge.report
}

struct Judge<'a> {
    context: &'a Context<'a>,
    report: Report,
    names: BTreeMap<Name, usize>,
    highest: Option<(u64, usize)>,
    readable: Vec<Entry>,
}

impl<'a> Judge<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        let report = Report::default();
        Judge { context, report, names: BTreeMap::new(), highest: None, readable: Vec::new() }
    }

    fn error(&mut self, pointer: &str, what: impl Into<String>) {
        self.report.findings.push(Finding::error(pointer, what));
    }

    fn warn(&mut self, pointer: &str, what: impl Into<String>) {
        let warning = Finding { severity: Severity::Warning, ..Finding::error(pointer, what) };
        self.report.findings.push(warning);
    }

    fn plan(&mut self, plan: &Map<String, Value>) {
        match plan.get("version") {
            Some(Value::String(version)) if version == Plan::VERSION => {}
            Some(other) => self.error("/version", format!("{other} is not \"{}\"", Plan::VERSION)),
            None => self.error("/version", format!("it is missing; write \"{}\"", Plan::VERSION)),
        }
        let name = self.name(plan, "");
        for key in ["description", "created_at"] {
            if plan.get(key).is_some_and(|value| !value.is_string()) {
                self.error(&format!("/{key}"), "expected a text");
            }
        }
        let chain = self.number(plan, "", "chain_id");
        if let (Some(meant), Some(ours)) = (chain, self.context.chain_id)
            && meant != ours
        {
            self.error("/chain_id", format!("the plan is for chain {meant}, but the node follows {ours}"));
        }
        match plan.get("upgrades") {
            Some(Value::Array(upgrades)) if upgrades.is_empty() => {
                self.error("/upgrades", "there is no upgrade in it");
            }
            Some(Value::Array(upgrades)) => {
                for (index, upgrade) in visit(upgrades.iter().enumerate()) {
                    self.upgrade(index, upgrade);
                }
            }
            Some(_) => self.error("/upgrades", "expected a list"),
            None => self.error("/upgrades", "it is missing"),
        }
        self.conflicts(name);
    }

    fn upgrade(&mut self, index: usize, value: &Value) {
        let at = format!("/upgrades/{index}");
        let Some(upgrade) = value.as_object() else {
            return self.error(&at, "expected an object: an upgrade");
        };
        if let Some(name) = self.name(upgrade, &at) {
            match self.names.get(&name) {
                Some(first) => {
                    let what = format!("{name} is planned already in /upgrades/{first}");
                    self.error(&format!("{at}/name"), what);
                }
                None => _ = self.names.insert(name, index),
            }
        }
        self.heights(upgrade, &at, index);
        self.digest(upgrade, &at);
        self.binaries(upgrade, &at);
        if upgrade.get("data_compat").is_some_and(|value| !value.is_boolean() && !value.is_null()) {
            self.error(&format!("{at}/data_compat"), "expected true or false");
        }
        let text =
            upgrade.get("info").map(|info| info.as_str().map_or_else(|| info.to_string(), str::to_owned));
        if text.is_some_and(|text| text.len() > MAX_INFO || text.contains('\0')) {
            self.error(&format!("{at}/info"), "it is longer than 64 KiB or has a zero byte in it");
        }
        self.readable.extend(serde_json::from_value::<Entry>(value.clone()));
    }

    fn heights(&mut self, upgrade: &Map<String, Value>, at: &str, index: usize) {
        let height = self.number(upgrade, at, "height");
        let fork = self.number(upgrade, at, "fork_height");
        let deadline = self.number(upgrade, at, "deadline_height");
        if upgrade.get("height").is_none_or(Value::is_null) {
            self.error(&format!("{at}/height"), "it is missing");
        }
        let Some(height) = height else { return };
        match self.highest {
            Some((highest, other)) if height <= highest => {
                let what = format!("{height} is not above {highest}, the height of /upgrades/{other}");
                self.error(&format!("{at}/height"), what);
            }
            Some(_) | None => self.highest = Some((height, index)),
        }
        if let Some(fork) = fork.filter(|fork| *fork <= height) {
            let what = format!("{fork} is not above {height}, the height of the upgrade");
            self.error(&format!("{at}/fork_height"), what);
        }
        let latest = fork.filter(|fork| *fork > height).unwrap_or(u64::MAX);
        if let Some(deadline) = deadline.filter(|deadline| *deadline < height || *deadline > latest) {
            let what = format!("{deadline} is not between height and fork_height");
            self.error(&format!("{at}/deadline_height"), what);
        }
    }

    fn digest(&mut self, upgrade: &Map<String, Value>, at: &str) {
        let mut given = 0;
        for key in ["sha256", "sha512"] {
            let pointer = format!("{at}/{key}");
            match upgrade.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => {
                    given += 1;
                    if read_pinned(key, text).is_err() {
                        let digits = if key == "sha256" { 64 } else { 128 };
                        self.error(&pointer, format!("it is not {digits} hexadecimal digits"));
                    }
                }
                Some(_) => self.error(&pointer, "expected a text of hexadecimal digits"),
            }
        }
        if given == 2 {
            self.error(&format!("{at}/sha512"), "give sha256 or sha512, not both");
        }
    }

    fn binaries(&mut self, upgrade: &Map<String, Value>, at: &str) {
        let at = format!("{at}/binaries");
        let binaries = match upgrade.get("binaries") {
            None => return,
            Some(Value::Object(binaries)) => binaries,
            Some(_) => return self.error(&at, "expected an object from os/arch to URL"),
        };
        for (platform, place) in binaries {
            let pointer = format!("{at}/{}", token(platform));
            let parts: Vec<&str> = platform.split('/').collect();
            if platform != "any" && (parts.len() != 2 || parts.contains(&"")) {
                self.error(&pointer, format!("{platform:?} is neither os/arch, as linux/amd64, nor any"));
            }
            match place.as_str() {
                None => self.error(&pointer, "expected a URL"),
                Some(place) => {
                    if let Err(why) = url::check(place, &["http", "https"]) {
                        self.error(&pointer, format!("{:?} is not a URL: {why}", url::redact(place)));
                    }
                }
            }
        }
    }

    /// Findings about the upgrades from the facts outside the plan.
    fn conflicts(&mut self, plan: Option<Name>) {
        let entries = std::mem::take(&mut self.readable);
        // A plan without a name has no other version that could be active.
        let own = Origin::Plan(plan.unwrap_or_else(|| "unnamed".parse().expect("it is a name")));
        let cancelled: Set<_> = self.context.cancelled.iter().map(|(n, h)| (n, *h)).collect();
        let ended: Index<_, _> = self.context.ended.iter().map(|e| ((&e.name, e.height), e)).collect();
        for entry in visit(&entries) {
            let key = (&entry.name, entry.height);
            let Some(index) = self.names.get(&entry.name).copied() else { continue };
            if let Some(ended) = ended.get(&key) {
                let how = match ended.outcome {
                    Outcome::Applied => "was applied",
                    Outcome::Failed => "has failed",
                    Outcome::RolledBack => "was rolled back",
                    Outcome::Aborted => "was aborted by its hook",
                };
                let what = format!("it {how} at this height, and is not done again");
                self.warn(&format!("/upgrades/{index}"), what);
            } else if cancelled.contains(&key) {
                self.warn(&format!("/upgrades/{index}"), "it was cancelled, and will not happen");
            } else {
                self.passed(entry, index);
                self.room(entry, index);
            }
        }

        let ours = entries.iter().map(|entry| entry.upgrade(own.clone()));
        let theirs = self.context.planned.iter().filter(|upgrade| upgrade.origin != own).cloned();
        let merged = merge(ours.chain(theirs), self.context.cancelled, self.context.ended);
        for conflict in merged.conflicts {
            // Two of ours that collide with each other have been reported already.
            let foreign = conflict.refused.len() == 1 || conflict.refused.iter().any(|c| c.origin != own);
            for claim in conflict.refused.iter().filter(|claim| claim.origin == own && foreign) {
                if let Some(index) = self.names.get(&claim.name).copied() {
                    self.error(&format!("/upgrades/{index}"), conflict.to_string());
                }
            }
        }
    }

    /// Whether all validators can have their turn before the fork. Of an upgrade that is planned already some may have
    /// had it, so the blocks that have passed count as well.
    fn room(&mut self, entry: &Entry, index: usize) {
        let (Some((validators, severity)), Some(fork)) = (self.context.room, entry.fork_height) else {
            return;
        };
        let head = self.context.head.unwrap_or(0);
        if fork <= head || fork <= entry.height {
            return;
        }
        let is_known = |known: &Upgrade| known.name == entry.name && known.height == entry.height;
        let head = (!self.context.planned.iter().any(is_known)).then_some(head);
        if let Err(short) = room(validators, entry.height, head, fork) {
            let pointer = format!("/upgrades/{index}/fork_height");
            let finding = Finding { severity, ..Finding::error(&pointer, short.to_string()) };
            self.report.findings.push(finding);
        }
    }

    fn passed(&mut self, entry: &Entry, index: usize) {
        let Some(head) = self.context.head else { return };
        if entry.fork_height.is_some_and(|fork| fork <= head) {
            let what = format!("the chain is past it (at {head}): a node without this upgrade stands still");
            self.warn(&format!("/upgrades/{index}/fork_height"), what);
        }
        if entry.height <= head {
            let what = format!("the chain is past it (at {head}): it is due as soon as the plan is executed");
            self.warn(&format!("/upgrades/{index}/height"), what);
        }
    }

    fn name(&mut self, object: &Map<String, Value>, at: &str) -> Option<Name> {
        let pointer = format!("{at}/name");
        match object.get("name") {
            Some(Value::String(text)) => match text.parse() {
                Ok(name) => return Some(name),
                Err(e) => self.error(&pointer, format!("{e}")),
            },
            Some(_) => self.error(&pointer, "expected a text"),
            None => self.error(&pointer, "it is missing"),
        }
        None
    }

    /// A number above 0, if there is one.
    fn number(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<u64> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|n| *n > 0);
        if number.is_none() {
            self.error(&format!("{at}/{key}"), format!("{value} is not a whole number above 0"));
        }
        number
    }
}

/// One line. The pointer is shown without characters that act on a terminal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "plan" } else { &self.pointer };
        let (place, what) = (printable(place), printable(&self.what));
        match self.severity {
            Severity::Error => write!(f, "{place}: {what}"),
            Severity::Warning => write!(f, "{place}: warning: {what}"),
        }
    }
}

impl fmt::Display for Report {
    /// One finding as it is; several as their number and an indented line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.findings.as_slice() {
            [] => f.write_str("nothing found"),
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} findings:", many.len())?;
                many.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
            }
        }
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests;
