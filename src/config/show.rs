//! A configuration for people: the effective values with their origins, and the commented `config.yaml`.
//!
//! Both are YAML that [`Config::load`] reads back, so what is shown can be kept.

use super::keys::{Config, KEYS, Key};
use super::load::{Loaded, Origin};
use crate::sorted;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The key.
    pub key: &'static Key,
    /// Its effective value.
    pub value: Value,
    /// Its source.
    pub origin: Origin,
}

impl Loaded {
    /// Every key with its effective value and where that came from, in the order of the table.
    pub fn rows(&self) -> Vec<Row> {
        let value = |key: &Key| (key.get)(&self.config);
        KEYS.iter().map(|key| Row { key, value: value(key), origin: self.origin(key.name).clone() }).collect()
    }

    /// The effective values as lines `key: value  # origin`.
    pub fn show(&self) -> String {
        let rows = self.rows();
        let lines: Vec<_> = rows.iter().map(|row| (line(row.key, &row.value), &row.origin)).collect();
        let width = lines.iter().map(|(text, _)| text.len()).max().unwrap_or_default().min(60);
        lines.iter().map(|(text, origin)| format!("{text:width$}  # {origin}\n")).collect()
    }

    /// The effective values as one JSON object: `{"key": {"value": …, "origin": "…"}}`.
    pub fn show_json(&self) -> Value {
        let entry = |row: Row| json!({"value": row.value, "origin": row.origin.to_string()});
        let entries = self.rows().into_iter().map(|row| (row.key.name.to_owned(), entry(row)));
        Value::Object(sorted::gather(entries))
    }
}

impl Config {
    /// The keys whose values differ between two configurations.
    pub fn differences(&self, other: &Config) -> Vec<&'static Key> {
        KEYS.iter().filter(|key| !(key.same)(self, other)).collect()
    }

    /// The commented `config.yaml` that `init` writes: every key with its meaning and default, commented
    /// out, except for those in `set`, which have the value given there.
    pub fn template(set: &[(&Key, Value)]) -> String {
        let mut text = String::from(
            "# The configuration of wemixvisor. Weaker than the environment (DAEMON_*), which is weaker than flags.\n\
             # Every key is here with its default; take the # away to change one. Relative paths are below the home.\n",
        );
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                let _ = write!(text, "\n# --- {section} ---\n");
            }
            let range = key.bounds.map(|(least, most)| format!(", {least} to {most}")).unwrap_or_default();
            let _ = write!(text, "\n{}# ({}{range})\n", wrap(key.doc, "# ", 100), key.kind);
            let _ = match set.iter().find(|(k, _)| k.name == key.name) {
                Some((_, value)) => writeln!(text, "{}", line(key, value)),
                None => writeln!(text, "#{}", line(key, &key.default_value())),
            };
        }
        text
    }
}

impl Key {
    /// The default as `config show` would show it; null where there is none.
    fn default_value(&self) -> Value {
        let has_one = !self.default.is_empty() && self.name != "daemon_home";
        if has_one { json!(self.default) } else { Value::Null }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.name == other.name
    }
}

/// `key: value` as YAML.
fn line(key: &Key, value: &Value) -> String {
    let is_plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
    };
    match value {
        Value::Null => format!("{}:", key.name),
        Value::String(text) if is_plain(text) => format!("{}: {text}", key.name),
        // JSON is YAML's flow style.
        other => format!("{}: {other}", key.name),
    }
}

/// The text in lines of at most `width`, each with a prefix.
fn wrap(text: &str, prefix: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = prefix.to_owned();
    for word in text.split_whitespace() {
        if line.len() + word.len() > width && line.len() > prefix.len() {
            let _ = writeln!(lines, "{}", line.trim_end());
            prefix.clone_into(&mut line);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(lines, "{}", line.trim_end());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpUrl, Sources, keys};
    use std::fs;
    use std::path::Path;

    fn load(home: &Path, file: &str) -> Loaded {
        let path = home.join("config.yaml");
        fs::write(&path, file).unwrap();
        let flags = vec![("home".to_owned(), home.to_str().unwrap().to_owned())];
        Config::load(&Sources { file: Some(path), flags, ..Sources::default() }).unwrap()
    }

    fn uncommented(template: &str) -> String {
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        template.lines().map(bare).collect()
    }

    #[test]
    fn the_template_changes_nothing_commented_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let template = Config::template(&[]);
        let defaults = Config::defaults(dir.path());
        assert_eq!(load(dir.path(), &template).config, defaults);
        let all = uncommented(&template);
        assert_eq!(all.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).count(), KEYS.len());
        assert_eq!(load(dir.path(), &all).config, defaults);
        assert!(template.lines().all(|line| line.len() <= 110), "{template}");
    }

    #[test]
    fn the_template_can_set_keys() {
        let dir = tempfile::tempdir().unwrap();
        let name = keys::named("daemon_name").unwrap();
        let config = load(dir.path(), &Config::template(&[(name, json!("gwemix"))])).config;
        assert_eq!(config.daemon_name.as_str(), "gwemix");
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = load(
            dir.path(),
            "daemon_node_ipc: 'a b/*: #.ipc'\ndaemon_rpc_address: [/x.ipc, 'localhost:1']\n\
             download_urls: {default: 'https://a/{name}', v2: [https://b, https://c]}\ndaemon_max_restarts: 0\n\
             daemon_preupgrade: hooks/pre\ndownload_max_size: 1500000000\n",
        );
        let shown = loaded.show();
        assert_eq!(load(dir.path(), &shown).config, loaded.config, "{shown}");
        assert!(shown.contains("daemon_max_restarts: 0"), "{shown}");
        assert!(shown.lines().all(|line| line.contains("  # ")), "{shown}");
    }

    #[test]
    fn json_has_value_and_origin_of_every_key() {
        let dir = tempfile::tempdir().unwrap();
        let json = load(dir.path(), "\ndaemon_name: gwemix\n").show_json();
        assert_eq!(json.as_object().unwrap().len(), KEYS.len());
        let origin = format!("{}:2", dir.path().join("config.yaml").display());
        assert_eq!(json["daemon_name"], json!({"value": "gwemix", "origin": origin}));
        assert_eq!(json["validator_mode"], json!({"value": false, "origin": "default"}));
        assert_eq!(json["daemon_home"]["origin"], "--daemon-home");
    }

    #[test]
    fn differences_are_named() {
        let a = Config::defaults(Path::new("/h"));
        let b = Config { daemon_max_restarts: 9, ..a.clone() };
        let names = |a: &Config, b: &Config| a.differences(b).iter().map(|k| k.name).collect::<Vec<_>>();
        assert_eq!(names(&a, &b), ["daemon_max_restarts"]);
        let proxied = |url| Config { download_proxy: Some(HttpUrl::parse(url).unwrap()), ..a.clone() };
        assert_eq!(names(&proxied("http://u:old@x:1"), &proxied("http://u:new@x:1")), ["download_proxy"]);
    }
}
