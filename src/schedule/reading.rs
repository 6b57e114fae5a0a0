//! Reading an object field by field, with everything that is wrong with it and where.
//!
//! Two things can be wrong with a field: it cannot be read, and then there is no value of the object; or it can, but makes
//! no sense, and then the value exists and can be corrected.

use super::json::{Fields, Members, read};
use super::report::{Report, token};
use crate::name::Name;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// More of a value is not shown.
const SHOWN: usize = 40;

/// The fields of an object that are still to be read, and what was wrong with the others.
pub(super) struct Reading<'a> {
    /// The JSON pointer of the object.
    at: String,
    fields: Members<'a>,
    pub(super) report: Report,
    /// Whether every field so far could be read.
    pub(super) is_whole: bool,
}

impl<'a> Reading<'a> {
    /// Of two equal keys one would be lost, so an object with such keys is not read.
    pub(super) fn new(at: impl Into<String>, fields: Members<'a>) -> Self {
        let equal = fields.equal_keys();
        let mut reading = Reading { at: at.into(), fields, report: Report::default(), is_whole: true };
        for key in equal {
            reading.unreadable::<()>(&key, "it stands there more than once");
        }
        reading
    }

    /// Notes that a field makes no sense.
    pub(super) fn wrong(&mut self, key: &str, what: impl Into<String>) {
        self.report.error(format!("{}/{}", self.at, token(key)), what);
    }

    /// Notes that a field cannot be read.
    pub(super) fn unreadable<T>(&mut self, key: &str, what: impl Into<String>) -> Option<T> {
        self.is_whole = false;
        self.wrong(key, what);
        None
    }

    /// Takes a field out; `null` is none.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a RawValue> {
        self.fields.take(key).filter(|json| json.get() != "null")
    }

    /// Takes a field out and reads it; `expected` is the complaint if that fails.
    pub(super) fn read<T: Deserialize<'a>>(&mut self, key: &str, expected: &str) -> Option<T> {
        let value = read(self.take(key)?);
        value.ok().or_else(|| self.unreadable(key, expected))
    }

    /// Whether a field that must be there is there.
    pub(super) fn has(&mut self, key: &str) -> bool {
        let there = self.fields.get(key).is_some_and(|json| json.get() != "null");
        if !there {
            self.unreadable::<()>(key, "it is missing");
        }
        there
    }

    /// The name of the object, which it must have.
    pub(super) fn name(&mut self) -> Option<Name> {
        let text: String = self.has("name").then(|| self.read("name", "expected a text")).flatten()?;
        match text.parse::<Name>() {
            Ok(name) => Some(name),
            Err(e) => self.unreadable("name", e.to_string()),
        }
    }

    /// A number above 0, in JSON or as a decimal string, as different chains write it.
    pub(super) fn number(&mut self, key: &str, noun: &str) -> Option<u64> {
        let json = self.take(key)?;
        let text = read::<String>(json).unwrap_or_else(|_| json.get().to_owned());
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|number| *number > 0).or_else(|| {
            let shown: String = json.get().chars().take(SHOWN).collect();
            self.unreadable(key, format!("{shown} is not {noun}"))
        })
    }

    /// The height of the object, which it must have.
    pub(super) fn own_height(&mut self) -> Option<u64> {
        self.has("height").then(|| self.height("height")).flatten()
    }

    pub(super) fn height(&mut self, key: &str) -> Option<u64> {
        self.number(key, "a height: a whole number above 0")
    }

    /// The object in a field, to be read as well and [returned](Reading::absorb).
    pub(super) fn below(&mut self, key: &str, expected: &str) -> Option<Reading<'a>> {
        let fields = self.read(key, expected)?;
        Some(Reading::new(format!("{}/{}", self.at, token(key)), fields))
    }

    /// Takes note of what was wrong with an object below.
    pub(super) fn absorb(&mut self, below: Reading<'_>) {
        self.is_whole &= below.is_whole;
        self.report.findings.extend(below.report.findings);
    }

    /// All fields that are left.
    pub(super) fn rest(&mut self) -> Members<'a> {
        std::mem::take(&mut self.fields)
    }

    /// The fields that are not known here, which must be JSON that other programs can read.
    pub(super) fn unknown(&mut self) -> Fields {
        let fields = self.rest();
        let check = |(key, json): (String, &RawValue)| {
            if let Err(e) = read::<Value>(json) {
                self.wrong(&key, format!("not JSON: {e}"));
            }
            (key, json.into())
        };
        fields.into_iter().map(check).collect()
    }
}
