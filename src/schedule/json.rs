//! JSON as it stands in a file: every key in its order, every value to the letter.
//!
//! A [`Value`] would round numbers beyond 64 bits, sort the keys and forget the first of two that are equal.
//! A field that we do not know is not ours to change.

use crate::sorted;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

/// A JSON value, to the letter. It can be read from JSON only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

/// The keys and values of a JSON object, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Json)>);

/// The same where the values still stand in the text that is read: a long plan is not copied.
#[derive(Default)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

/// Reads the meaning of a value.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json.get().as_bytes())
}

impl Json {
    /// The text as it stands in the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The text without the blanks between its parts.
    #[must_use]
    pub fn compact(&self) -> String {
        let (mut in_string, mut escaped) = (false, false);
        let mut is_part = |c: &char| {
            let is_quote = *c == '"' && !escaped;
            in_string ^= is_quote;
            escaped = in_string && *c == '\\' && !escaped;
            in_string || is_quote || !c.is_ascii_whitespace()
        };
        self.as_str().chars().filter(|c| is_part(c)).collect()
    }

    /// A text as it is, all else as compact JSON.
    pub(super) fn text(&self) -> String {
        self.read().unwrap_or_else(|_| self.compact())
    }

    /// Reads what it means.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        read(&self.0)
    }
}

impl From<&RawValue> for Json {
    fn from(value: &RawValue) -> Self {
        Json(value.to_owned())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Json(to_raw_value(&value).expect("every key of a value is a string"))
    }
}

/// Equal to the letter.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl Fields {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The same as they stand here.
    pub(super) fn members(&self) -> Members<'_> {
        Members(self.0.iter().map(|(key, value)| (key.clone(), &*value.0)).collect())
    }

    /// Puts a field in the place of all of its key.
    pub(super) fn put(&mut self, key: String, value: Json) {
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value));
    }

    /// Takes the value of a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        let place = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(place).1)
    }
}

impl<'a> Members<'a> {
    /// The keys that stand there more than once.
    pub(super) fn equal_keys(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let again = self.0.iter().map(|(key, _)| key).filter(|key| !seen.insert(*key));
        sorted::gather(again.cloned())
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
    }

    /// Takes the value of a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a RawValue> {
        let place = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(place).1)
    }
}

impl<'a> IntoIterator for Members<'a> {
    type Item = (String, &'a RawValue);
    type IntoIter = std::vec::IntoIter<(String, &'a RawValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(String, Json)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Json)>>(fields: I) -> Self {
        Fields(fields.into_iter().collect())
    }
}

impl IntoIterator for Fields {
    type Item = (String, Json);
    type IntoIter = std::vec::IntoIter<(String, Json)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.iter())
    }
}

/// Equal keys are all kept.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object(PhantomData)).map(Fields)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object(PhantomData)).map(Members)
    }
}

struct Object<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_read_is_written_to_the_letter() {
        let text = r#"{"z":1.50,"a":{"wei":123456789012345678901234567890,"b":[ 1e400 ]},"z":"\u0041"}"#;
        let fields: Fields = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), text);
        assert_eq!(fields.get("z").unwrap().as_str(), "1.50");
        assert_eq!(fields.members().equal_keys().into_iter().collect::<Vec<_>>(), ["z"]);
        assert!(serde_json::from_str::<Fields>("[1]").is_err());
    }

    #[test]
    fn compact_is_without_blanks_but_for_those_in_strings() {
        let compact = |text: &str| serde_json::from_str::<Json>(text).unwrap().compact();
        assert_eq!(compact("{ \"a b\" :\n\t[ 1, \"\\\" \\\\\" , 2 ] }"), r#"{"a b":[1,"\" \\",2]}"#);
        assert_eq!(Json::from(json!({"a": 1})).as_str(), r#"{"a":1}"#);
    }
}
