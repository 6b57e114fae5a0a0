//! `upgrade-info.json`: written by the node, or for it, into the data directory.
//!
//! The writer is not ours and may be caught in the middle of writing, so everything but a whole
//! and sensible file is an [`Error`] to be reported once and tried again, and nothing here waits or
//! reads without a limit. Only the content counts: its age and how it came there do not.

use super::entry::Entry;
use super::json::{Fields, Json};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::binary::open_regular;
use crate::home::regular;
use crate::machine::{Origin, Upgrade};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::Path;

/// A larger file is refused.
const LIMIT: u64 = 1024 * 1024;

/// Reads the trigger file; `None` if there is none.
///
/// # Errors
/// [`Kind::BadInput`] with file and, where it is known, line, if there is one that makes no sense (yet);
/// else the refusal of the operating system.
pub(crate) fn read(path: &Path) -> Result<Option<Upgrade>> {
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
/// The problems with it, in words.
fn parse(bytes: &[u8]) -> Result<Upgrade, String> {
    entry(bytes).map(|entry| entry.upgrade(Origin::TriggerFile))
}

/// Reads one upgrade that is written like a trigger file.
///
/// # Errors
/// The problems with it, in words.
pub(crate) fn entry(bytes: &[u8]) -> Result<Entry, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".to_owned());
    }
    let mut fields: Fields = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let info =
        fields.take("info").map_or(Ok(Value::Null), |info| info.read()).map_err(|e| format!("info: {e}"))?;
    let text = match info {
        Value::String(text) => {
            if let Ok(inside) = serde_json::from_slice(text.as_bytes()) {
                join(&mut fields, &inside)?;
            }
            text
        }
        Value::Null => text_of(unknown(&fields)?),
        Value::Object(object) => {
            let mut all = unknown(&fields)?;
            join(
                &mut fields,
                &object.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect(),
            )?;
            all.extend(object);
            text_of(all)
        }
        _ => return Err("info is neither an object nor a string".to_owned()),
    };
    let info = (!text.is_empty()).then(|| ("info".to_owned(), Value::from(text).into()));
    Entry::read(fields.into_iter().chain(info).collect()).map_err(|report| report.line())
}

/// Takes the details over that `info` carries: a chain's governance may be able to write nothing else. A detail that stands
/// in both places must be the same.
fn join(fields: &mut Fields, inside: &Fields) -> Result<(), String> {
    let known = |key: &str| Entry::DETAILS.contains(&key);
    let more = inside.iter().filter(|(key, _)| known(key)).map(|(key, json)| (key.to_owned(), json.clone()));
    for (key, json) in more.chain(checksum(inside)?) {
        match fields.get(&key) {
            Some(same) if same.text() == json.text() => {}
            Some(other) if other.as_str() != "null" => {
                return Err(format!("{key} is given twice and differs"));
            }
            Some(_) | None => fields.put(key, json),
        }
    }
    Ok(())
}

/// The digest that the Go wemixvisor calls a checksum, as a detail of ours.
fn checksum(inside: &Fields) -> Result<Option<(String, Json)>, String> {
    let Some(json) = inside.get("checksum").filter(|json| !["null", "\"\""].contains(&json.as_str())) else {
        return Ok(None);
    };
    let text = json.text();
    let digest: Digest =
        text.trim().parse().map_err(|_| "checksum is neither SHA-256 nor SHA-512".to_owned())?;
    Ok(Some((digest.algorithm().to_string(), Value::from(digest.hex()).into())))
}

/// The fields that hooks get beside those of `info`.
fn unknown(fields: &Fields) -> Result<Map<String, Value>, String> {
    let ours = |key: &str| ["name", "height"].contains(&key) || Entry::DETAILS.contains(&key);
    let others = fields.iter().filter(|(key, _)| !ours(key));
    let read = |(key, json): (&str, &Json)| {
        json.read().map(|value| (key.to_owned(), value)).map_err(|e| format!("{key}: {e}"))
    };
    others.map(read).collect()
}

/// The text that hooks get as `UPGRADE_INFO` when info is not a text of its own.
fn text_of(object: Map<String, Value>) -> String {
    if object.is_empty() { String::new() } else { Value::Object(object).to_string() }
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
            assert_eq!(upgrade.binaries.get("any"), Some("http://x"), "{info}");
        }
        let twice = r#"{"name":"v2","height":100,"fork_height":200,"info":{"fork_height":300}}"#;
        assert!(reason(twice).contains("fork_height is given twice"));
    }

    #[test]
    fn a_checksum_of_the_go_wemixvisor_is_the_digest() {
        let digest = Digest::sha256(b"x");
        let read = |info: &str| parse(format!(r#"{{"name":"v2","height":1,"info":{{{info}}}}}"#).as_bytes());
        for text in [digest.hex(), digest.to_string(), digest.hex().to_uppercase()] {
            let upgrade = read(&format!(r#""checksum":"{text}""#)).unwrap();
            assert_eq!(upgrade.digest, Some(digest), "{text}");
            assert!(upgrade.info.unwrap().contains("checksum"), "hooks get it as well");
        }
        assert_eq!(read(r#""checksum":"""#).unwrap().digest, None);
        assert!(read(r#""checksum":"md5:1234""#).unwrap_err().contains("neither SHA-256 nor SHA-512"));
        let other = Digest::sha256(b"y").hex();
        let both = format!(r#""checksum":"{}","sha256":"{other}""#, digest.hex());
        assert!(read(&both).unwrap_err().contains("sha256 is given twice"));
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
        let whole =
            r#"{"name":"v2","height":100,"info":{"note":"ü","binaries":{"any":"http://x"}}}"#.as_bytes();
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
        assert!(reason(r#"{"name":"v2","height":1,"height":2}"#).contains("more than once"));
        assert!(
            reason(r#"{"name":"v2","height":1,"fork_height":2,"fork_height":3}"#).contains("more than once")
        );
        assert!(reason(r#"{"name":"v2","height":1,"info":7}"#).contains("info"));
        assert!(
            reason(r#"{"name":"v2","height":1,"info":{"sha256":"abc"}}"#).contains("64 hexadecimal digits")
        );
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
        let long = format!(r#"{{"name":"v2","height":1,"info":"{}"}}"#, "x".repeat(64 * 1024 + 1));
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
