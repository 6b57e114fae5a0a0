//! Every cut at every byte, and every answer that a server may give, without a server.

use super::*;
use crate::digest::Digest;
use crate::upgrade::download::expected::Expected;
use crate::upgrade::download::retry::Fault;
use std::cell::Cell;
use std::io::{self, Cursor, Read};
use std::path::Path;

const LEN: usize = 16 * 1024;

/// A file whose every byte differs from its neighbours.
fn file() -> Vec<u8> {
    (0..LEN as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A body that is cut off with an error.
struct Cut(Cursor<Vec<u8>>);

impl Read for Cut {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

struct Rig {
    dir: tempfile::TempDir,
    source: Source,
    cancel: Cancel,
    expected: Expected,
}

impl Rig {
    fn new() -> Self {
        // In memory if that is possible: durability is no subject here, and there are many files.
        let memory = tempfile::tempdir_in("/dev/shm");
        let dir = memory.unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let source = Source::parse("http://made.up/node").unwrap();
        let expected = Expected::of_digest(Digest::sha256(&file()));
        Rig { dir, source, cancel: Cancel::new().unwrap(), expected }
    }

    fn partial(&self) -> Partial {
        Partial::open(self.dir.path(), &"v2".parse().unwrap()).unwrap()
    }

    /// One attempt with a new process's view of the disk; the digest, if it came to one.
    fn attempt(&self, get: impl Fn(&[(&str, &str)]) -> Response) -> Result<Digest, Failure> {
        let get = |_: &Url, headers: &[(&str, &str)]| Ok(get(headers));
        let transfer = Transfer { get: &get, source: &self.source, max_size: 1 << 20, cancel: &self.cancel };
        let arrived = transfer.complete(&mut self.partial(), || self.expected.check(), &mut |_| {})?;
        Ok(arrived.check.verify(&self.expected).unwrap_or(Digest::Sha256([0; 32])))
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(Path::new(self.dir.path()).join("v2.partial")).unwrap()
    }
}

fn head(len: usize) -> Vec<(&'static str, String)> {
    vec![("content-length", len.to_string()), ("etag", "\"1\"".to_owned())]
}

/// Serves the file, or the rest of it, up to byte `end`.
fn serve(file: &[u8], headers: &[(&str, &str)], end: usize) -> Response {
    let start = headers.iter().find(|(name, _)| *name == "range").map_or(0, |(_, range)| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
    });
    let mut all = head(file.len() - start);
    let body = Box::new(Cut(Cursor::new(file[start..end.max(start)].to_vec())));
    let body: Box<dyn Read> =
        if end < file.len() { body } else { Box::new(Cursor::new(file[start..].to_vec())) };
    if headers.is_empty() {
        return Response::made_up(200, &all, body);
    }
    all.push(("content-range", format!("bytes {start}-{}/{}", file.len() - 1, file.len())));
    Response::made_up(206, &all, body)
}

/// Cuts in each of `cuts`, resumes, and looks at every byte.
fn cut_at(cuts: impl Iterator<Item = usize>) {
    let (rig, file) = (Rig::new(), file());
    let whole = Digest::sha256(&file);
    for cut in cuts {
        let first = rig.attempt(|headers| serve(&file, headers, cut));
        assert!(matches!(first, Err(Failure::Mirror(Fault::Passing { .. }, _))), "{cut}");
        let asked_from = Cell::new(0);
        let second = rig.attempt(|headers| {
            let range = headers.iter().find(|(name, _)| *name == "range");
            asked_from.set(range.map_or(0, |(_, r)| r[6..r.len() - 1].parse().unwrap()));
            serve(&file, headers, LEN)
        });
        assert_eq!(second.unwrap(), whole, "{cut}");
        assert_eq!(asked_from.get(), cut);
        assert!(rig.content() == file, "{cut}");
        rig.partial().empty().unwrap();
    }
}

#[test]
fn cut_at_every_even_byte_and_resumed() {
    cut_at((0..LEN).step_by(2));
}

#[test]
fn cut_at_every_odd_byte_and_resumed() {
    cut_at((1..LEN).step_by(2));
}

#[test]
fn ranges_that_make_sense() {
    assert_eq!(parse_range("bytes 5-9/10"), Some((5, 9, 10)));
    assert_eq!(parse_range(" bytes 0-0/1 "), Some((0, 0, 1)));
    for bad in [
        "",
        "bytes",
        "bytes 5-9",
        "bytes 5-9/*",
        "bytes */10",
        "bytes 9-5/10",
        "bytes 5-10/10",
        "bytes +5-9/10",
        "bytes -5-9/10",
        "bytes 5-99999999999999999999/10",
        "items 5-9/10",
    ] {
        assert_eq!(parse_range(bad), None, "{bad:?}");
    }
}

#[test]
fn only_a_strong_tag_stands_for_the_very_bytes() {
    let tag = |value: &str| {
        let headers = [("etag", value.to_owned())];
        strong_etag(&Response::made_up(200, &headers, Box::new(io::empty())))
    };
    assert_eq!(tag("\"a-1!\"").as_deref(), Some("\"a-1!\""));
    assert_eq!(tag("\"\"").as_deref(), Some("\"\""));
    for bad in [
        "",
        "a",
        "\"",
        "\"a",
        "W/\"a\"",
        "w/\"a\"",
        "\"a\"b\"",
        "\"a b\"",
        &format!("\"{}\"", "x".repeat(300)),
    ] {
        assert_eq!(tag(bad), None, "{bad:?}");
    }
}
