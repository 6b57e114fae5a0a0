//! Tar archives, block by block, also such as no `tar` would write.

use super::{Evil, MAX, evil, gzip};
use wemixvisor::inside::download::Form;

/// A tar archive being written.
#[derive(Clone)]
pub(crate) struct Tape(Vec<u8>);

impl Tape {
    pub(crate) fn new() -> Self {
        Tape(Vec::new())
    }

    /// An entry of any type, with a header that is then changed at will.
    fn entry(mut self, kind: u8, name: &str, data: &[u8], change: impl FnOnce(&mut [u8])) -> Self {
        let mut header = [0; 512];
        header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header[100..108].copy_from_slice(b"0000755\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, data, |_| {})
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, b"", |_| {})
    }

    fn link(self, kind: u8, name: &str, to: &str) -> Self {
        self.entry(kind, name, b"", |header| header[157..157 + to.len()].copy_from_slice(to.as_bytes()))
    }

    /// An extended header of one record.
    fn pax(self, kind: u8, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n");
        let mut len = rest.len();
        while len != rest.len() + len.to_string().len() {
            len = rest.len() + len.to_string().len();
        }
        self.entry(kind, "PaxHeader", format!("{len}{rest}").as_bytes(), |_| {})
    }

    /// The name of the next entry as GNU tar writes long ones.
    pub(crate) fn long(self, name: &str) -> Self {
        self.entry(b'L', "././@LongLink", format!("{name}\0").as_bytes(), |_| {})
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(super) fn good(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let new = Tape::new;
    let long = "a/very/long/name/".repeat(12) + "file";
    let packed = |tape: Tape| gzip(&tape.end());
    vec![
        ("tar: alone", packed(new().file("node", body))),
        ("tar: in bin", packed(new().dir("bin/").file("bin/node", body))),
        ("tar: with dots", packed(new().dir("./").dir("./bin").file("./bin/node", body))),
        (
            "tar: among others",
            packed(new().file("README", b"x").file("lib/node", b"y").file("node", body).file("nodes", b"z")),
        ),
        (
            "tar: in one directory",
            packed(new().dir("node-v2/").file("node-v2/README", b"x").file("node-v2/node", body)),
        ),
        (
            "tar: in bin of one directory",
            packed(new().file("./node/bin/node", body).file("./node/lib/x", b"x")),
        ),
        ("tar: in one directory of its name", packed(new().dir("node/").file("node/node", body))),
        (
            "tar: at the top, behind one of its name",
            packed(new().file("completions/node", b"x").file("doc/node", b"y").file("node", body)),
        ),
        ("tar: the old type", packed(new().entry(0, "node", body, |_| {}))),
        ("tar: a directory of old", packed(new().entry(0, "bin/", b"", |_| {}).file("bin/node", body))),
        ("tar: with a long name", packed(new().long(&long).file("a", b"x").file("node", body))),
        ("tar: with times in pax", packed(new().pax(b'x', "mtime", "1.5").file("node", body))),
        ("tar: with a name in pax", packed(new().pax(b'x', "path", "bin/node").file("x", body))),
        ("tar: with a comment for all", packed(new().pax(b'g', "comment", "0123").file("node", body))),
        (
            "tar: with a split name",
            packed(new().entry(b'0', "node", body, |h| h[345..348].copy_from_slice(b"bin"))),
        ),
        ("tar: padded with zeros", gzip(&[new().file("node", body).end(), vec![0; 9 * 1024]].concat())),
        (
            "tar: in two members",
            [gzip(&new().file("node", body).0[..700]), gzip(&new().file("node", body).end()[700..])].concat(),
        ),
    ]
}

pub(super) fn evils(body: &[u8]) -> Vec<Evil> {
    let new = || Tape::new().file("README", b"x");
    let node = || new().file("node", body);
    let mut all = Vec::new();
    let mut add = |name: &str, tape: Tape, says| {
        all.push(evil(format!("tar: {name}"), Form::TarGzip, gzip(&tape.end()), says));
    };

    add("nothing in it", Tape::new(), "neither");
    add("other files only", new(), "neither");
    for name in ["other/node", "bin/bin/node", "a/bin/node", "NODE", "node ", "node.exe", "bin/node/x"] {
        add(&format!("{name:?} only"), new().file(name, body), "neither");
    }
    for name in [
        "../node",
        "a/../../node",
        "bin/../node",
        "/node",
        "/etc/passwd",
        "..",
        "a\\..\\node",
        "C:\\node",
        "./..",
    ] {
        add(&format!("{name:?}"), new().file(name, body), "dangerous name");
        add(&format!("{name:?} beside ours"), node().file(name, b"x"), "dangerous name");
    }
    add("no name", node().file("", b"x"), "dangerous name");
    add("a directory that leads out", node().dir("../x/"), "dangerous name");
    add(
        "the split name leads out",
        node().entry(b'0', "x", b"", |h| h[345..347].copy_from_slice(b"..")),
        "dangerous",
    );

    add("in one of two directories", Tape::new().file("a/node", body).file("b/x", b"x"), "neither");
    add("in both of two directories", Tape::new().file("a/node", body).file("b/node", body), "neither");
    add(
        "twice in one directory",
        Tape::new().file("a/node", body).file("a/bin/node", body),
        "more than once",
    );
    add("too deep", Tape::new().file("a/b/node", body), "neither");
    add("twice", node().file("node", body), "more than once");
    add("twice, with a dot", node().file("./node", body), "more than once");
    add("at the top and in bin", node().file("bin/node", body), "more than once");
    add("twice, one empty", node().file("bin//node", b""), "more than once");
    add("a directory in its place", new().dir("node"), "directory");
    add("a directory as well", node().dir("bin/node/"), "directory");
    add("a directory with content", node().entry(b'5', "bin/", b"x", |_| {}), "directory");
    add("a directory of old with content", node().entry(b'0', "bin/", b"x", |_| {}), "directory");

    add("a symbolic link in its place", new().link(b'2', "node", "/bin/sh"), "link");
    add("a hard link in its place", new().link(b'1', "node", "/bin/sh"), "link");
    add("a symbolic link beside it", new().link(b'2', "bin", "/tmp").file("bin/node", body), "link");
    add("a hard link beside it", node().link(b'1', "other", "node"), "link");
    for kind in *b"34678ABDKMNSVXZ\xff" {
        add(
            &format!("type {kind:#x} in its place"),
            new().entry(kind, "node", body, |_| {}),
            "special entry",
        );
    }

    add(
        "pax: a name that leads out",
        new().pax(b'x', "path", "../node").file("node", body),
        "dangerous name",
    );
    add("pax: a name with a zero", new().pax(b'x', "path", "node\0x").file("node", body), "dangerous name");
    add("pax: no name", new().pax(b'x', "path", "").file("node", body), "dangerous name");
    add("pax: another name", new().pax(b'x', "path", "other").file("node", body), "neither");
    add("pax: another size", new().pax(b'x', "size", "1").file("node", body), "size of an entry twice");
    add("pax: sparse", new().pax(b'x', "GNU.sparse.major", "1").file("node", body), "sparse");
    add("pax: one name for all", new().pax(b'g', "path", "node").file("x", body), "one name");
    add(
        "pax: two names",
        new().pax(b'x', "path", "a").pax(b'x', "path", "node").file("x", body),
        "two names",
    );
    add("pax: and a long name", new().long("a").pax(b'x', "path", "node").file("x", body), "two names");
    add("pax: at the end", node().pax(b'x', "mtime", "1"), "cut short");
    add(
        "pax: gigantic",
        new().pax(b'x', "comment", &"x".repeat(70_000)).file("node", body),
        "header extension",
    );
    for (name, text) in
        [("no length", "path=node\n"), ("a wrong length", "99 path=node\n"), ("no value", "8 path\n\n")]
    {
        add(&format!("pax: {name}"), new().entry(b'x', "p", text.as_bytes(), |_| {}).file("node", body), "");
    }
    add("a long name that leads out", new().long("../node").file("node", body), "dangerous name");
    add("a long name that is none", new().long("").file("node", body), "dangerous name");
    add("two long names", new().long("a").long("node").file("x", body), "two names");
    add("a long name at the end", node().long("x"), "cut short");
    add("a gigantic long name", new().long(&"x".repeat(70_000)).file("node", body), "header extension");

    let size =
        |text: &'static [u8]| new().entry(b'0', "node", body, move |h| h[124..136].copy_from_slice(text));
    add("more content than there is", size(b"00000007777\0"), "");
    add("the greatest size", size(b"77777777777\0"), "allowed");
    add("the greatest binary size", size(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), "");
    add("a negative size", size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "");
    add("a size that is no number", size(b"many bytes!\0"), "");
    add(
        "another file of the greatest size",
        node().entry(b'0', "x", b"", |h| h[124..136].copy_from_slice(b"77777777777\0")),
        "",
    );
    let many = (0..10_001).fold(Tape::new(), |tape, n| tape.file(&n.to_string(), b""));
    add("too many entries", many.file("node", body), "more than 10000");
    add("a giant beside it", node().file("x", &vec![0; 2 * MAX]), "inflates");
    add("a giant", new().file("node", &vec![1; MAX + 1]), "allowed");

    let mut add = |name: &str, bytes: Vec<u8>, says| {
        all.push(evil(format!("tar: {name}"), Form::TarGzip, bytes, says));
    };
    let whole = node().end();
    add("without an end", gzip(&node().0), "cut short");
    for cut in [100, 512, 600, 1024, 1100, 1537, 1800] {
        add(&format!("cut at {cut} before it was packed"), gzip(&whole[..cut]), "");
    }
    add("something after the end", gzip(&[&whole[..], b"x"].concat()), "after its end");
    add("another one after the end", gzip(&[whole.clone(), node().end()].concat()), "after its end");
    add("another one packed after it", [gzip(&whole), gzip(&whole)].concat(), "after its end");
    add("garbage after it", [&gzip(&whole)[..], b"garbage"].concat(), "");
    add("not packed", whole.clone(), "gzip");
    add("packed twice", gzip(&gzip(&whole)), "");
    add("noise", gzip(&body.repeat(9)), "");
    add("nothing", Vec::new(), "");
    let mut wrong_sum = whole;
    wrong_sum[148] ^= 1;
    add("a wrong sum", gzip(&wrong_sum), "checksum");
    all
}
