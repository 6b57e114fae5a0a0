//! The part of YAML that a configuration needs: keys, texts, lists and maps, with their lines.
//!
//! A full YAML loader would accept far more than an operator means: anchors, tags, several documents,
//! and the silent victory of the last of two equal keys. All of these are problems here. What the keys
//! and texts mean is not decided here.

use super::problem::{Problem, Problems};
use super::value::{Data, Raw};
use saphyr_parser::{Event, Parser, ScanError, Span, StrInput};
use std::path::Path;

/// Deeper than any key needs; it bounds the recursion.
const MAX_DEPTH: usize = 8;

/// The top-level keys of a document in order, each with its line and value, as far as it could be read.
pub(super) fn parse(path: &Path, bytes: &[u8], problems: &mut Problems) -> Vec<(String, Raw)> {
    let mut reader = Reader { path, problems, parser: None };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            reader.complain(line, "this line is not UTF-8 text");
            return Vec::new();
        }
    };
    reader.parser = Some(Parser::new_from_str(text));
    reader.document()
}

/// Reading cannot go on; the reason is among the problems already.
struct Stop;

struct Reader<'a> {
    path: &'a Path,
    problems: &'a mut Problems,
    parser: Option<Parser<'a, StrInput<'a>>>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Vec<(String, Raw)> {
        let mut entries = Vec::new();
        let mut documents = 0;
        // A document that breaks off still yields the keys before the break.
        while let Ok(Some((event, span))) = self.next() {
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        self.complain(line(span), "a second document begins here; one is enough");
                        break;
                    }
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_extras(span, anchor, &tag);
                    if self.mapping(1, &mut entries).is_err() {
                        break;
                    }
                }
                Event::Scalar(text, style, ..) if is_null(&text, style) => {}
                Event::Scalar(..) | Event::SequenceStart(..) | Event::Alias(_) => {
                    self.complain(line(span), "expected `key: value` lines");
                    break;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
                Event::DocumentEnd | Event::SequenceEnd | Event::MappingEnd => {}
            }
        }
        entries
    }

    /// Reads up to the end of a mapping whose start has been read.
    fn mapping(&mut self, depth: usize, entries: &mut Vec<(String, Raw)>) -> Result<(), Stop> {
        let mut seen = std::collections::BTreeMap::new();
        loop {
            let (event, span) = self.need()?;
            let at = line(span);
            let key = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(text, _, anchor, tag) => {
                    self.refuse_extras(span, anchor, &tag);
                    text.into_owned()
                }
                other => {
                    self.complain(at, "a key must be a plain word");
                    self.value(other, span, depth)?;
                    String::new()
                }
            };
            let (event, span) = self.need()?;
            let mut raw = self.value(event, span, depth)?;
            if key.is_empty() {
                continue;
            }
            if let Some(first) = seen.insert(key.clone(), at) {
                self.complain(at, format!("{key} is given twice, first in line {first}"));
                continue;
            }
            raw.line = at;
            entries.push((key, raw));
        }
    }

    /// Reads the value that begins with `event`.
    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Raw, Stop> {
        if depth > MAX_DEPTH {
            self.complain(line(span), format!("nested more than {MAX_DEPTH} deep"));
            return Err(Stop);
        }
        let data = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(span, anchor, &tag);
                if is_null(&text, style) { Data::Unset } else { Data::Text(text.into_owned()) }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(span, anchor, &tag);
                let mut items = Vec::new();
                loop {
                    match self.need()? {
                        (Event::SequenceEnd, _) => break Data::List(items),
                        (event, span) => items.push(self.value(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(span, anchor, &tag);
                let mut entries = Vec::new();
                self.mapping(depth + 1, &mut entries)?;
                Data::Map(entries)
            }
            Event::Alias(_) => {
                self.complain(line(span), "aliases are not supported: write the value out");
                Data::Unset
            }
            // The parser has one of the above for each key.
            _ => {
                self.complain(line(span), "expected a value");
                return Err(Stop);
            }
        };
        Ok(Raw { line: line(span), data })
    }

    fn refuse_extras<T>(&mut self, span: Span, anchor: usize, tag: &Option<T>) {
        if anchor != 0 {
            self.complain(line(span), "anchors are not supported: write the value out");
        }
        if tag.is_some() {
            self.complain(line(span), "tags are not supported: leave the `!` word out");
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        let result = self.parser.as_mut().and_then(Iterator::next);
        result.transpose().map_err(|e: ScanError| {
            self.complain(e.marker().line(), format!("not YAML: {}", e.info()));
            Stop
        })
    }

    fn need(&mut self) -> Result<(Event<'a>, Span), Stop> {
        self.next()?.ok_or(Stop)
    }

    fn complain(&mut self, line: usize, what: impl Into<String>) {
        self.problems.add(Problem::new(format!("{}:{line}", self.path.display()), what));
    }
}

fn line(span: Span) -> usize {
    span.start.line()
}

/// A key with nothing after it, as in `daemon_preupgrade:`, is a key that is not set.
fn is_null(text: &str, style: saphyr_parser::ScalarStyle) -> bool {
    style == saphyr_parser::ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Vec<(String, Raw)>, Vec<String>) {
        let mut problems = Problems::default();
        let entries = parse(Path::new("c"), text.as_bytes(), &mut problems);
        (entries, problems.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_texts_lists_and_maps_with_their_lines() {
        let (entries, problems) = read("# hi\na: 1\nb: [x, 'y']\nc:\n  d:\n    - e\nf:\n");
        assert_eq!(problems, [""; 0]);
        let lines: Vec<_> = entries.iter().map(|(k, v)| (k.as_str(), v.line)).collect();
        assert_eq!(lines, [("a", 2), ("b", 3), ("c", 4), ("f", 7)]);
        assert!(matches!(&entries[1].1.data, Data::List(items) if items.len() == 2));
        assert!(matches!(&entries[2].1.data, Data::Map(map) if map[0].0 == "d" && map[0].1.line == 5));
        assert_eq!(entries[3].1.data, Data::Unset);
    }

    #[test]
    fn nothing_at_all_is_an_empty_configuration() {
        for text in ["", "\n", "# only this\n", "---\n", "---\n...\n", "{}"] {
            assert_eq!(read(text), (vec![], vec![]), "{text:?}");
        }
    }

    #[test]
    fn what_an_operator_cannot_mean_is_a_problem_with_its_line() {
        for (text, problem) in [
            ("a: 1\nb: 2\na: 3\n", "c:3: a is given twice, first in line 1"),
            ("m:\n  x: 1\n  x: 2\n", "c:3: x is given twice, first in line 2"),
            ("a: &x 1\n", "c:1: anchors are not supported: write the value out"),
            ("a: !!str 1\n", "c:1: tags are not supported: leave the `!` word out"),
            ("a: 1\n---\nb: 2\n", "c:2: a second document begins here; one is enough"),
            ("- a\n- b\n", "c:1: expected `key: value` lines"),
            ("just words\n", "c:1: expected `key: value` lines"),
            ("[x]: 1\n", "c:1: a key must be a plain word"),
            ("a: [[[[[[[[[1]]]]]]]]]\n", "c:1: nested more than 8 deep"),
        ] {
            assert_eq!(read(text).1, [problem], "{text:?}");
        }
        assert!(read("a: 1\nb: [\n").1[0].starts_with("c:3: not YAML: "), "{:?}", read("a: 1\nb: [\n").1);
    }

    #[test]
    fn of_equal_keys_the_first_is_kept() {
        let (entries, _) = read("a: 1\na: 2\n");
        assert_eq!(entries, [("a".to_owned(), Raw { line: 1, ..Raw::text("1") })]);
    }

    #[test]
    fn an_alias_to_an_anchor_is_two_problems() {
        assert_eq!(read("a: &x 1\nb: *x\n").1.len(), 2);
    }

    #[test]
    fn what_came_before_a_break_is_kept() {
        let (entries, problems) = read("a: 1\nb: \"x\n");
        assert_eq!(entries.len(), 1);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_a_problem_with_its_line() {
        let mut problems = Problems::default();
        assert_eq!(parse(Path::new("c"), b"a: 1\nb: \xff\n", &mut problems), []);
        assert_eq!(problems.to_string(), "c:2: this line is not UTF-8 text");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(Path::new("c"), &bytes, &mut Problems::default());
        }

        #[test]
        fn no_yaml_like_text_makes_it_panic(text in "[a-c:,\\-\\[\\]{}&*!|>'\"#%@?~ \n\t]{0,80}") {
            parse(Path::new("c"), text.as_bytes(), &mut Problems::default());
        }
    }
}
