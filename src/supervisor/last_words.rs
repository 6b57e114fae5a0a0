//! The last lines of a node that ended while it was tried.
//!
//! A node's output never passes through us. The stderr of a short try, as that of a validator without peers, or that of any
//! other new binary that has just ended before it answered, goes to a file instead, which nothing waits for and
//! which outlives us as the node does; when the try has ended it is handed on to our stderr, and its last lines become
//! part of the report. Otherwise a flag that the new binary does not know would be a bare exit code.

use crate::home::{Home, regular};
use crate::printable::printable;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Upper bound on the bytes handed on, from the end.
const KEPT: u64 = 64 * 1024;
/// The number of last lines that are reported, and their total length in characters.
const LINES: usize = 3;
const LONGEST: usize = 300;

/// The file for the stderr of a try, empty.
///
/// # Errors
/// If it cannot be made.
pub(super) fn create(home: &Home) -> io::Result<File> {
    let path = home.last_words();
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    // In append mode lines of several processes stay whole.
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Hands the output of the last try on to our stderr, if there was a try, and returns its last lines.
pub(super) fn take(home: &Home) -> Option<String> {
    let path = home.last_words();
    let (mut file, meta) = regular::open(&path).ok()?;
    let mut written = Vec::new();
    file.seek(SeekFrom::Start(meta.len().saturating_sub(KEPT))).ok()?;
    file.take(KEPT).read_to_end(&mut written).ok()?;
    // Not made durable: a lost log does no harm.
    let _ = fs::remove_file(&path);
    let _ = io::stderr().lock().write_all(&written);
    last_lines(&String::from_utf8_lossy(&written))
}

fn last_lines(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("; ");
    let shown: String = last.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    (!shown.is_empty()).then(|| printable(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        assert_eq!(take(&home), None);
        let mut file = create(&home).unwrap();
        file.write_all(b"one\ntwo\n\nthree\n\x1b[31mflag provided but not defined: -x\n").unwrap();
        let last = "two; three;  [31mflag provided but not defined: -x";
        assert_eq!(take(&home).as_deref(), Some(last));
        assert_eq!(take(&home), None);
        drop((create(&home).unwrap(), create(&home).unwrap()));
        assert_eq!(take(&home), None, "it wrote nothing");
    }

    #[test]
    fn of_much_only_the_end_is_kept() {
        assert!(last_lines(&"x".repeat(10_000)).unwrap().len() == LONGEST);
        assert_eq!(last_lines(" \n\n"), None);
        assert_eq!(
            last_lines("\u{202e}x").as_deref(),
            Some("\\u{202e}x"),
            "it turns the direction of writing"
        );
    }
}
