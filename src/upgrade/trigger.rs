//! `upgrade-info.json`: written by the node, or for it, into the data directory.
//!
//! The writer is not ours and may be caught in the middle of writing, so everything but a whole
//! and sensible file is an [`Error`] to be reported once and tried again, and nothing here waits or
//! reads without a limit. Only the content counts: its age and how it came there do not.

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::binary::open_regular;
use crate::home::regular;
use crate::machine::{Origin, Upgrade};
use crate::name::Name;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

/// A larger file is refused.
pub const LIMIT: u64 = 1024 * 1024;
/// A longer `info` is refused: hooks get it as `UPGRADE_INFO`, and Linux takes no variable beyond 128 KiB.
pub const INFO_LIMIT: usize = 64 * 1024;

/// Reads the trigger file; `None` if there is none.
///
/// # Errors
/// [`Kind::BadInput`] with file and, where it is known, line, if there is one that makes no sense (yet);
/// else the refusal of the operating system.
pub fn read(path: &Path) -> Result<Option<Upgrade>> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.os().is_some_and(|os| os.kind() == std::io::ErrorKind::NotFound) => return Ok(None),
        Err(e) => return Err(e),
    };
    let bad =
        |why: String| Error::new(Kind::BadInput, "read upgrade-info.json").at(path.display()).because(why);
    let bytes = regular::read_open(&file, LIMIT).map_err(|e| match e.kind() {
        ErrorKind::FileTooLarge => bad(e.to_string()),
        _ => Error::io("read", path, e),
    })?;
    parse(&bytes).map(Some).map_err(bad)
}

/// Reads the content of a trigger file.
///
/// # Errors
/// The problem with it, in words.
pub fn parse(bytes: &[u8]) -> Result<Upgrade, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".to_owned());
    }
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut upgrade = Upgrade::new(file.name, file.height.0, Origin::TriggerFile);
    let mut details = file.details;
    upgrade.info = match file.info {
        Some(Value::String(text)) => {
            if let Ok(Value::Object(object)) = serde_json::from_slice(text.as_bytes()) {
                details.join(details_of(object)?)?;
            }
            Some(text).filter(|t| !t.is_empty())
        }
        None | Some(Value::Null) => text_of(file.unknown),
        Some(Value::Object(object)) => {
            details.join(details_of(object.clone())?)?;
            let mut all = file.unknown;
            all.extend(object);
            text_of(all)
        }
        Some(_) => return Err("info is neither an object nor a string".to_owned()),
    };
    if upgrade.info.as_ref().is_some_and(|info| info.len() > INFO_LIMIT || info.contains('\0')) {
        return Err("info is longer than 64 KiB or contains a zero byte".to_owned());
    }
    upgrade.fork_height = details.fork_height.map(|h| h.0);
    upgrade.deadline_height = details.deadline_height.map(|h| h.0);
    upgrade.data_compat = details.data_compat.unwrap_or(true);
    upgrade.digest = details.sha256;
    upgrade.binaries = details.binaries.unwrap_or_default();
    check_heights(&upgrade)?;
    Ok(upgrade)
}

/// Checks that the heights of an upgrade are in order.
///
/// # Errors
/// The problem with them, in words.
pub fn check_heights(upgrade: &Upgrade) -> Result<(), String> {
    let Upgrade { height, fork_height, deadline_height, .. } = *upgrade;
    if height == 0 {
        return Err("height is 0; the first block that can be upgraded at is 1".to_owned());
    }
    if let Some(fork) = fork_height.filter(|fork| *fork <= height) {
        return Err(format!("fork_height {fork} is not above height {height}"));
    }
    let latest = fork_height.unwrap_or(u64::MAX);
    match deadline_height.filter(|deadline| *deadline < height || *deadline > latest) {
        Some(deadline) => Err(format!("deadline_height {deadline} is not between height and fork_height")),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object with name and height")]
struct File {
    name: Name,
    height: Height,
    #[serde(default)]
    info: Option<Value>,
    #[serde(flatten)]
    details: Details,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The fields that may stand beside name and height, or in `info`: a chain's governance can only carry the latter.
#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    fork_height: Option<Height>,
    #[serde(default)]
    deadline_height: Option<Height>,
    #[serde(default)]
    data_compat: Option<bool>,
    #[serde(default)]
    sha256: Option<Digest>,
    #[serde(default)]
    binaries: Option<BTreeMap<String, String>>,
}

impl Details {
    /// Takes over what `other` says, unless that contradicts.
    fn join(&mut self, other: Details) -> Result<(), String> {
        fn one<T: PartialEq>(name: &str, into: &mut Option<T>, from: Option<T>) -> Result<(), String> {
            if into.is_some() && from.is_some() && *into != from {
                return Err(format!("{name} is given twice and differs"));
            }
            *into = into.take().or(from);
            Ok(())
        }
        one("fork_height", &mut self.fork_height, other.fork_height)?;
        one("deadline_height", &mut self.deadline_height, other.deadline_height)?;
        one("data_compat", &mut self.data_compat, other.data_compat)?;
        one("sha256", &mut self.sha256, other.sha256)?;
        one("binaries", &mut self.binaries, other.binaries)
    }
}

fn details_of(info: Map<String, Value>) -> Result<Details, String> {
    serde_json::from_value(Value::Object(info)).map_err(|e| format!("in info: {e}"))
}

/// The text that hooks get as `UPGRADE_INFO` when info is not a text of its own.
fn text_of(object: Map<String, Value>) -> Option<String> {
    (!object.is_empty()).then(|| Value::Object(object).to_string())
}

/// A height as a JSON number or a decimal string, as different chains write it.
#[derive(PartialEq)]
struct Height(u64);

impl<'de> Deserialize<'de> for Height {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Height;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a height: a whole number, or one as a decimal string")
            }

            fn visit_u64<E: de::Error>(self, height: u64) -> Result<Height, E> {
                Ok(Height(height))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Height, E> {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let height = digits.then(|| text.parse().ok()).flatten();
                height.map(Height).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn reason(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_least_that_a_node_writes() {
        let upgrade = parse(br#"{"name":"v2","height":100}"#).unwrap();
        assert_eq!(upgrade, Upgrade::new("v2".parse().unwrap(), 100, Origin::TriggerFile));
        assert_eq!(parse(br#" {"name":"v2","height":"100","info":"","time":null} "#).unwrap().height, 100);
    }

    #[test]
    fn details_count_beside_info_inside_it_and_in_its_text() {
        let sha = Digest::sha256(b"x").hex();
        let details = format!(
            r#""fork_height":"200","deadline_height":150,"data_compat":false,"sha256":"{sha}","binaries":{{"any":"http://x"}}"#
        );
        let text = Value::from(format!("{{{details}}}")).to_string();
        for info in [details.clone(), format!(r#""info":{{{details}}}"#), format!(r#""info":{text}"#)] {
            let upgrade = parse(format!(r#"{{"name":"v2","height":100,{info}}}"#).as_bytes()).unwrap();
            assert_eq!((upgrade.fork_height, upgrade.deadline_height), (Some(200), Some(150)), "{info}");
            assert_eq!((upgrade.data_compat, upgrade.digest), (false, Some(Digest::sha256(b"x"))), "{info}");
            assert_eq!(upgrade.binaries.get("any").map(String::as_str), Some("http://x"), "{info}");
        }
        let twice = r#"{"name":"v2","height":100,"fork_height":200,"info":{"fork_height":300}}"#;
        assert!(reason(twice).contains("fork_height is given twice"));
    }

    #[test]
    fn unknown_fields_reach_the_hooks() {
        let info = |text: &str| parse(text.as_bytes()).unwrap().info.unwrap();
        assert_eq!(
            info(r#"{"name":"v2","height":1,"note":"a","info":{"b":[1]}}"#),
            r#"{"b":[1],"note":"a"}"#
        );
        assert_eq!(info(r#"{"name":"v2","height":1,"note":"a"}"#), r#"{"note":"a"}"#);
        assert_eq!(info(r#"{"name":"v2","height":1,"info":"see https://x"}"#), "see https://x");
        assert_eq!(info(r#"{"name":"v2","height":1,"info":"{\"b\": 1}"}"#), r#"{"b": 1}"#);
    }

    #[test]
    fn every_part_of_a_file_is_refused_without_a_panic() {
        let whole = r#"{"name":"v2","height":100,"info":{"binaries":{"any":"http://ü"}}}"#.as_bytes();
        for len in 0..whole.len() {
            parse(&whole[..len]).unwrap_err();
        }
        parse(whole).unwrap();
    }

    #[test]
    fn nonsense_is_named() {
        assert!(reason(" \n").contains("empty"));
        assert!(reason(r#"{"name":"../../x","height":1}"#).contains("is not a name"));
        assert!(reason(r#"{"name":"v2"}"#).contains("height"));
        assert!(reason(r#"{"height":2}"#).contains("name"));
        assert!(reason(r#"{"name":"v2","height":1,"height":2}"#).contains("duplicate"));
        assert!(reason(r#"{"name":"v2","height":1,"fork_height":2,"fork_height":3}"#).contains("duplicate"));
        assert!(reason(r#"{"name":"v2","height":1,"info":7}"#).contains("info"));
        assert!(reason(r#"{"name":"v2","height":1,"info":{"sha256":"abc"}}"#).contains("digest"));
        assert!(reason(r#"{"name":"v2","height":1,"info":"\u0000"}"#).contains("zero byte"));
        assert!(reason(r#"{"name":"v2","height":9,"fork_height":9}"#).contains("not above"));
        assert!(reason(r#"{"name":"v2","height":9,"deadline_height":8}"#).contains("deadline_height"));
        for height in [
            "0",
            "-1",
            "1.5",
            "1e3",
            "null",
            "true",
            "[]",
            "\"\"",
            "\"0x5\"",
            "\"+5\"",
            "\" 5\"",
            "18446744073709551616",
        ] {
            let text = format!(r#"{{"name":"v2","height":{height}}}"#);
            assert!(reason(&text).contains("height"), "{text}");
        }
        for text in ["[]", "null", "7", "\"x\"", "{\"name\":\"v2\",\"height\":1} x", &"[".repeat(100_000)] {
            parse(text.as_bytes()).unwrap_err();
        }
        let long = format!(r#"{{"name":"v2","height":1,"info":"{}"}}"#, "x".repeat(INFO_LIMIT + 1));
        assert!(reason(&long).contains("64 KiB"));
    }

    #[test]
    fn what_is_not_a_plain_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upgrade-info.json");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, vec![b' '; LIMIT as usize + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("1 MiB"));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), Kind::BadInput);
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("real"), r#"{"name":"v2","height":1}"#).unwrap();
        symlink("real", &path).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::rename(dir.path().join("real"), &path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().height, 1);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), Kind::BadInput);
    }
}
