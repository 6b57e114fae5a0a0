//! The types of the keys about downloads: which mirrors to ask, and whose signatures to believe.

use super::value::{Data, Raw, Read, Setting, read_each};
use crate::name::Name;
use crate::url::{check, redact};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The places of binaries: templates by upgrade name, and for all others.
///
/// A template may hold `{name}`, `{version}` (both the upgrade's name), `{os}` and `{arch}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownloadUrls {
    /// Templates for one upgrade, mirrors in the order in which they are tried.
    pub by_name: BTreeMap<Name, Vec<String>>,
    /// Templates for every upgrade, tried after its own.
    pub default: Vec<String>,
}

/// A minisign public key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    text: String,
    key: minisign_verify::PublicKey,
}

const PLACEHOLDERS: [&str; 4] = ["{name}", "{version}", "{os}", "{arch}"];

impl PublicKey {
    /// The key as minisign writes it, in base64.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key, ready to verify with.
    pub fn key(&self) -> &minisign_verify::PublicKey {
        &self.key
    }
}

/// Checks that a template is a URL whatever its placeholders become.
fn check_template(text: &str) -> Result<String, String> {
    let filled = PLACEHOLDERS.iter().fold(text.to_owned(), |url, hole| url.replace(hole, "x"));
    let shown = redact(text);
    if filled.contains(['{', '}']) {
        return Err(format!("{shown:?} has an unknown placeholder: there are {}", PLACEHOLDERS.join(" ")));
    }
    check(&filled, &["http", "https"]).map_err(|why| format!("{shown:?} is not a URL: {why}"))?;
    Ok(text.to_owned())
}

impl DownloadUrls {
    fn add(&mut self, name: &str, raw: &Raw) -> Read<()> {
        let slot = match (name, name.parse::<Name>()) {
            ("default", _) => &mut self.default,
            (_, Ok(name)) => self.by_name.entry(name).or_default(),
            (_, Err(bad)) => return raw.fault(bad.to_string()),
        };
        slot.extend(read_each(&raw.items()?, |item| item.parse(check_template))?);
        Ok(())
    }
}

impl Setting for DownloadUrls {
    const KIND: &'static str = "map from name to URLs";

    /// Reads a map; or as text `NAME=URL,NAME=URL`, where a URL without a name is a default.
    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        let mut urls = DownloadUrls::default();
        let mut faults = Vec::new();
        let entries: Vec<(String, Raw)> = match &raw.data {
            Data::Unset => Vec::new(),
            Data::Map(entries) => entries.clone(),
            Data::List(_) => return raw.fault("expected a map from upgrade name to URLs, not a list"),
            Data::Text(_) => {
                let named = |item: Raw| {
                    let text = item.as_text().unwrap_or_default();
                    match text.split_once('=').filter(|(name, _)| !name.contains("://")) {
                        Some((name, url)) => (name.to_owned(), Raw { line: raw.line, ..Raw::text(url) }),
                        None => ("default".to_owned(), item),
                    }
                };
                raw.items()?.into_iter().map(named).collect()
            }
        };
        for (name, value) in &entries {
            faults.extend(urls.add(name, value).err().unwrap_or_default());
        }
        if faults.is_empty() { Ok(urls) } else { Err(faults) }
    }

    fn show(&self) -> Value {
        let list = |urls: &[String]| urls.iter().map(|url| Value::String(redact(url))).collect();
        let mut map = Map::new();
        if !self.default.is_empty() {
            map.insert("default".to_owned(), list(&self.default));
        }
        map.extend(self.by_name.iter().map(|(name, urls)| (name.to_string(), list(urls))));
        Value::Object(map)
    }
}

impl Setting for PublicKey {
    const KIND: &'static str = "key";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| {
            let key = minisign_verify::PublicKey::from_base64(text).map_err(|e| {
                format!("{text:?} is not a minisign public key ({e}): give the second line of the .pub file")
            })?;
            Ok::<_, String>(PublicKey { text: text.to_owned(), key })
        })
    }

    fn show(&self) -> Value {
        json!(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DownloadUrls, Vec<String>> {
        DownloadUrls::read(&Raw::text(text), Path::new("/"))
            .map_err(|faults| faults.into_iter().map(|f| f.what).collect())
    }

    #[test]
    fn the_text_form_names_mirrors_in_order() {
        let urls = read("https://a/{name}/{os}-{arch}, v2=http://b/x?y=1,v2=http://c/x").unwrap();
        assert_eq!(urls.default, ["https://a/{name}/{os}-{arch}"]);
        assert_eq!(urls.by_name[&"v2".parse().unwrap()], ["http://b/x?y=1", "http://c/x"]);
    }

    #[test]
    fn every_bad_template_and_name_is_reported() {
        let bad = read("https://a/{nmae},../x=http://b,v2=ftp://c,v3=nonsense").unwrap_err();
        assert_eq!(bad.len(), 4, "{bad:?}");
        assert!(bad[0].contains("unknown placeholder"), "{bad:?}");
        assert!(bad[1].contains("is not a name"), "{bad:?}");
    }

    #[test]
    fn credentials_are_not_shown() {
        let urls = read("https://u:secret@a/{name},v2=https://secret@b/x?sig=secret").unwrap();
        assert_eq!(urls.default, ["https://u:secret@a/{name}"]);
        assert_eq!(urls.show(), json!({"default": ["https://***@a/{name}"], "v2": ["https://***@b/x?***"]}));
        for bad in ["https://u:secret@a/{nmae}", "ftp://u:secret@a", "https://a/{nmae}?sig=secret"] {
            let faults = read(bad).unwrap_err();
            assert!(!faults[0].contains("secret"), "{faults:?}");
        }
    }

    #[test]
    fn a_public_key_is_checked() {
        let good = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let key = PublicKey::read(&Raw::text(good), Path::new("/")).unwrap();
        assert_eq!(key.as_str(), good);
        for bad in ["", "RWQf6LRC", "untrusted comment: minisign public key", &good.replace("RWQ", "AAA")] {
            assert!(PublicKey::read(&Raw::text(bad), Path::new("/")).is_err(), "{bad:?}");
        }
    }
}
