//! The part of TOML that Cosmovisor and the Go wemixvisor write: tables, and values on one line.
//!
//! A whole parser would be 30 KB of code for two files that are read once. A line that is not understood is an error of its
//! own, so that its setting is reported and not lost.

/// A setting, with the number of its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) line: usize,
    /// Its key behind those of its table: `daemon.name`.
    pub(super) key: String,
    /// Its value without quotes, the items of a list with commas between them; `None` where it is not understood.
    pub(super) value: Option<String>,
}

/// Reads every setting, in the order of the file.
pub(super) fn read(text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut table = String::new();
    // The end of a value that goes on over several lines.
    let mut end: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(mark) = end {
            end = Some(mark).filter(|mark| !line.contains(mark));
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split('#').next().unwrap_or_default().trim();
            table = name.trim_matches(['[', ']']).trim().to_owned() + ".";
            continue;
        }
        let (key, written) = line.split_once('=').unwrap_or((line, ""));
        let key = table.clone() + key.trim().trim_matches(['"', '\'']);
        let written = written.trim();
        end = [("\"\"\"", "\"\"\""), ("'''", "'''"), ("[", "]")].into_iter().find_map(|(open, close)| {
            let rest = written.strip_prefix(open)?;
            (!rest.contains(close)).then_some(close)
        });
        let value = value(written).filter(|(_, rest)| is_comment(rest)).map(|(value, _)| value);
        settings.push(Setting { line: index + 1, key, value });
    }
    settings
}

/// A value at the beginning of the text, and the text behind it.
fn value(text: &str) -> Option<(String, &str)> {
    match text.chars().next()? {
        '\'' => {
            let (value, rest) = text[1..].split_once('\'')?;
            Some((value.to_owned(), rest))
        }
        '"' => {
            let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
            let value = values.next()?.ok()?;
            Some((value, &text[values.byte_offset()..]))
        }
        '[' => {
            let (mut items, mut rest) = (Vec::new(), text[1..].trim_start());
            while !rest.starts_with(']') {
                let (item, behind) = value(rest)?;
                items.push(item);
                let behind = behind.trim_start();
                rest = behind
                    .strip_prefix(',')
                    .map(str::trim_start)
                    .or(behind.starts_with(']').then_some(behind))?;
            }
            Some((items.join(","), &rest[1..]))
        }
        _ => {
            let end = text.find(|c: char| c.is_whitespace() || "#,]".contains(c)).unwrap_or(text.len());
            let is_bare = |c: char| c.is_ascii_alphanumeric() || "+-_.:".contains(c);
            let (value, rest) = text.split_at(end);
            (!value.is_empty() && value.chars().all(is_bare)).then(|| (value.replace('_', ""), rest))
        }
    }
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_values_are_read_and_everything_else_is_reported() {
        let text = "
            # comment
            daemon_name = 'a \"b\"' # behind
            n = 300_000_000
            \"quoted\" = \"x\\ty # z\"
            list = [ 'a', \"b\", 3 ]
            none = []
            [daemon] # comment
            home = \"/srv\"
            long = \"\"\"
            home = \"not a setting\"
            \"\"\"
            rows = [
              'home = 1',
            ]
            [[alerting.rules]]
            on = true
            date = 1979-05-27T07:32:00Z
            inline = { a = 1 }
            bad = 'x' y
            nothing
        ";
        let read: Vec<_> = read(text).into_iter().map(|s| (s.line, s.key, s.value)).collect();
        let read: Vec<_> =
            read.iter().map(|(line, key, value)| (*line, key.as_str(), value.as_deref())).collect();
        assert_eq!(
            read,
            [
                (3, "daemon_name", Some("a \"b\"")),
                (4, "n", Some("300000000")),
                (5, "quoted", Some("x\ty # z")),
                (6, "list", Some("a,b,3")),
                (7, "none", Some("")),
                (9, "daemon.home", Some("/srv")),
                (10, "daemon.long", None),
                (13, "daemon.rows", None),
                (17, "alerting.rules.on", Some("true")),
                (18, "alerting.rules.date", Some("1979-05-27T07:32:00Z")),
                (19, "alerting.rules.inline", None),
                (20, "alerting.rules.bad", None),
                (21, "alerting.rules.nothing", None),
            ]
        );
    }
}
