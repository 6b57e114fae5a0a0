//! Finds the end of a JSON value in a stream, and refuses a value that nests too deeply.
//!
//! Most nodes end a message on a unix socket with a newline, some do not, and we must not wait for a newline that never
//! comes. Counting brackets finds the end in any case, in one pass over the bytes as they arrive, and bounds the depth
//! before the parser recurses.

use super::fault::{Fault, excerpt};
use serde_json::Value;

/// The deepest nesting accepted. The deepest that a node was seen to answer, a chain's configuration, is 9.
pub(super) const MAX_DEPTH: usize = 32;

/// The position in a value at which the bytes seen so far end.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Looks at what is new in `bytes`, which begins with what was there before.
    ///
    /// `Some(n)` if a whole object or array ends before byte `n`.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        for (at, &byte) in bytes.iter().enumerate().skip(self.seen) {
            self.seen = at + 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ if self.depth == 0 => {
                    return Err(Fault::Nonsense(format!("no JSON object: {}", excerpt(bytes))));
                }
                b'"' => self.in_string = true,
                _ => {}
            }
            if self.depth > MAX_DEPTH {
                return Err(Fault::Nonsense(format!("JSON nested deeper than {MAX_DEPTH}")));
            }
            if self.depth == 0 {
                return Ok(Some(self.seen));
            }
        }
        Ok(None)
    }
}

/// Parses one message that is exactly one object or array.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    if bytes.trim_ascii().is_empty() {
        return Err(Fault::nonsense("an empty answer"));
    }
    Scan::default().end(bytes)?;
    serde_json::from_slice(bytes).map_err(|e| Fault::Nonsense(format!("bad JSON: {e}: {}", excerpt(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(text: &str) -> Option<usize> {
        Scan::default().end(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_value_ends_where_its_last_bracket_closes() {
        assert_eq!(ends(r#" {"a":[1,{}]} {"b":2}"#), Some(13));
        assert_eq!(ends(r#"{"a":"}\"}"}{"#), Some(12));
        assert_eq!(ends(r#"{"a":"\\"}"#), Some(10));
        assert_eq!(ends(r#"{"a":1"#), None);
        assert_eq!(ends("\n"), None);
        assert_eq!(ends("[]"), Some(2));
        for bad in ["hello", "1", "\"{}\"", "  null"] {
            assert!(Scan::default().end(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        let nested = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn the_end_does_not_depend_on_how_the_bytes_arrive(text in r#"[\[\]{}"\\a, \n]{0,60}"#, cut in 0usize..60) {
            let whole = Scan::default().end(text.as_bytes());
            let mut scan = Scan::default();
            let cut = cut.min(text.len());
            let parts = match scan.end(&text.as_bytes()[..cut]) {
                Ok(None) => scan.end(text.as_bytes()),
                done => done,
            };
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            prop_assert_eq!(whole.ok(), parts.ok());
        }
    }
}
