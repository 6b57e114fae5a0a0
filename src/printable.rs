//! Text of other programs and people, made safe to show.
//!
//! A plan, a path or an answer of a node may hold characters that move the cursor, end a line or turn the
//! direction of writing. On the operator's terminal they could hide or forge our own output.

use std::io::{self, Write};

/// The longest text of another program that is shown, in characters.
const FOREIGN: usize = 200;

/// The text in one line, with an escape for every character that acts on a terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if acts(c) { c.escape_default().to_string() } else { c.to_string() };
    if text.contains(acts) { text.chars().map(shown).collect() } else { text.to_owned() }
}

/// A text that another program has sent, which may be of any length: its beginning, in one line.
pub(crate) fn foreign(text: &str) -> String {
    let shown = printable(&text.trim().chars().take(FOREIGN + 1).collect::<String>());
    match shown.char_indices().nth(FOREIGN) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// The same for a text of several lines, which stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Where JSON is written, of which whole characters come at once, so that it can be shown.
pub(crate) struct PrintableJson<W>(pub(crate) W);

impl<W: Write> Write for PrintableJson<W> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        let text = printable_json(std::str::from_utf8(json).map_err(io::Error::other)?);
        self.0.write_all(text.as_bytes()).map(|()| json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The same JSON, with such characters in its strings written as escapes. Those below the blank are already.
pub(crate) fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Between strings these are blanks, and within one they cannot be.
            '\r' | '\t' => text.push(' '),
            '\u{7f}'.. if acts(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// Whether a character acts on a terminal: controls, of which some terminals take those of C1 as well (ECMA-48),
/// separators of lines, and those that turn the direction (UAX 9).
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_turns_the_direction() {
        let hostile = "a\u{1b}[2J\u{9b}2J\r\n\u{202e}b\u{2069}\u{2028}\u{7f}\0 é 漢";
        assert_eq!(printable(hostile), r"a\u{1b}[2J\u{9b}2J\r\n\u{202e}b\u{2069}\u{2028}\u{7f}\u{0} é 漢");
        assert_eq!(printable_lines("a\u{1b}\nb\u{9b}\n"), "a\\u{1b}\nb\\u{9b}\n");
    }

    #[test]
    fn a_text_of_another_program_has_an_end() {
        assert_eq!(foreign("a\u{1b}[2J é"), "a\\u{1b}[2J é");
        assert_eq!(foreign(&"é".repeat(FOREIGN)), "é".repeat(FOREIGN));
        for hostile in ["é".repeat(60_000), "\u{1b}".repeat(60_000)] {
            let shown = foreign(&hostile);
            assert!(shown.chars().count() == FOREIGN + 1 && shown.ends_with('…'), "{shown}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({"a\u{9b}": "\u{1b}\u{7f}\u{202e}\né漢"});
        let mut text = Vec::new();
        serde_json::to_writer_pretty(PrintableJson(&mut text), &value).expect("it is JSON");
        let text = String::from_utf8(text).expect("it is text");
        assert!(text.chars().all(|c| c == '\n' || !acts(c)), "{text:?}");
        assert!(text.contains(r#""a\u009b": "\u001b\u007f\u202e\né漢""#), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("it still is"), value);
        assert_eq!(printable_json("{\r\n\t1}"), "{ \n 1}");
    }
}
