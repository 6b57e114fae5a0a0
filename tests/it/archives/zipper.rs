//! Zip archives, field by field, also such as contradict themselves.

use super::{Evil, MAX, evil};
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::Write as _;
use wemixvisor::inside::download::Form;

/// One file, and what is said of it at the two places.
#[derive(Clone)]
pub(super) struct Item {
    local: Said,
    central: Said,
    data: Vec<u8>,
    descriptor: Vec<u8>,
    made_by: u8,
    mode: u32,
    disk: u16,
    comment: &'static str,
    offset: Option<u32>,
}

#[derive(Clone)]
struct Said {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
    extra: Vec<u8>,
}

impl Item {
    pub(super) fn stored(name: &str, body: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(body);
        let size = body.len() as u32;
        let said = Said {
            name: name.into(),
            flags: 0,
            method: 0,
            crc: crc.sum(),
            packed: size,
            size,
            extra: Vec::new(),
        };
        Item {
            local: said.clone(),
            central: said,
            data: body.to_vec(),
            descriptor: Vec::new(),
            made_by: 0,
            mode: 0,
            disk: 0,
            comment: "",
            offset: None,
        }
    }

    pub(super) fn deflated(name: &str, body: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        let data = encoder.finish().unwrap();
        let packed = data.len() as u32;
        Item { data, ..Item::stored(name, body) }.both(|said| (said.method, said.packed) = (8, packed))
    }

    fn both(self, change: impl Fn(&mut Said)) -> Self {
        self.local(&change).central(&change)
    }

    fn local(mut self, change: impl Fn(&mut Said)) -> Self {
        change(&mut self.local);
        self
    }

    fn central(mut self, change: impl Fn(&mut Said)) -> Self {
        change(&mut self.central);
        self
    }

    fn mode(self, mode: u32) -> Self {
        Item { made_by: 3, mode, ..self }
    }

    /// Says the sum and the sizes after the data.
    fn described_after(mut self, signature: &[u8], crc_xor: u32) -> Self {
        self = self.both(|said| said.flags |= 8).local(|said| (said.crc, said.packed, said.size) = (0, 0, 0));
        let Said { crc, packed, size, .. } = self.central;
        self.descriptor = signature.to_vec();
        for field in [crc ^ crc_xor, packed, size] {
            self.descriptor.extend(field.to_le_bytes());
        }
        self
    }
}

impl Said {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0; 4]);
        for field in [self.crc, self.packed, self.size] {
            out.extend(field.to_le_bytes());
        }
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend((self.extra.len() as u16).to_le_bytes());
    }
}

/// A zip archive being written.
#[derive(Clone, Default)]
pub(super) struct Zipper {
    before: Vec<u8>,
    items: Vec<Item>,
    comment: Vec<u8>,
    after: Vec<u8>,
}

/// The record at the end, to be changed at will.
struct End {
    disks: [u16; 2],
    counts: [u16; 2],
    size: u32,
    start: u32,
    comment_len: u16,
}

impl Zipper {
    pub(super) fn new() -> Self {
        Zipper::default()
    }

    pub(super) fn item(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.end_with(|_| {})
    }

    fn end_with(self, change: impl FnOnce(&mut End)) -> Vec<u8> {
        let mut out = self.before;
        let mut directory = Vec::new();
        for item in &self.items {
            let offset = item.offset.unwrap_or(out.len() as u32);
            out.extend(b"PK\x03\x04\x14\0");
            item.local.write(&mut out);
            out.extend(&item.local.name);
            out.extend(&item.local.extra);
            out.extend(&item.data);
            out.extend(&item.descriptor);
            directory.extend([b'P', b'K', 1, 2, 20, item.made_by, 20, 0]);
            item.central.write(&mut directory);
            directory.extend((item.comment.len() as u16).to_le_bytes());
            directory.extend(item.disk.to_le_bytes());
            directory.extend([0; 2]);
            directory.extend((item.mode << 16).to_le_bytes());
            directory.extend(offset.to_le_bytes());
            directory.extend(&item.central.name);
            directory.extend(&item.central.extra);
            directory.extend(item.comment.as_bytes());
        }
        let count = self.items.len() as u16;
        let mut end = End {
            disks: [0; 2],
            counts: [count; 2],
            size: directory.len() as u32,
            start: out.len() as u32,
            comment_len: self.comment.len() as u16,
        };
        change(&mut end);
        out.extend(directory);
        out.extend(b"PK\x05\x06");
        for field in [end.disks[0], end.disks[1], end.counts[0], end.counts[1]] {
            out.extend(field.to_le_bytes());
        }
        out.extend(end.size.to_le_bytes());
        out.extend(end.start.to_le_bytes());
        out.extend(end.comment_len.to_le_bytes());
        out.extend(self.comment);
        out.extend(self.after);
        out
    }
}

pub(super) fn good(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let new = Zipper::new;
    let packed = || Item::deflated("node", body);
    let stamp = |said: &mut Said| said.extra = vec![0x55, 0x54, 1, 0, 0];
    vec![
        ("zip: alone", new().item(packed()).end()),
        ("zip: stored", new().item(Item::stored("node", body)).end()),
        (
            "zip: in bin, among others",
            new()
                .item(Item::stored("bin/", b"").mode(0o40755))
                .item(Item::deflated("README", b"text"))
                .item(Item::deflated("bin/node", body).mode(0o100_755))
                .item(Item::stored("lib/node", b"x").mode(0o100_4755))
                .end(),
        ),
        ("zip: described after", new().item(packed().described_after(b"", 0)).end()),
        (
            "zip: described after, with a signature",
            new().item(packed().described_after(b"PK\x07\x08", 0)).item(Item::stored("x", b"x")).end(),
        ),
        (
            "zip: in one directory",
            Zipper::new()
                .item(Item::stored("node-v2/", b""))
                .item(Item::stored("node-v2/bin/node", body))
                .end(),
        ),
        (
            "zip: at the top, behind one of its name",
            Zipper::new().item(Item::stored("doc/node", b"x")).item(packed()).end(),
        ),
        ("zip: with extra fields", new().item(packed().both(stamp)).item(packed_other()).end()),
        (
            "zip: with comments",
            Zipper { comment: b"PK\x05\x06 is how this begins".to_vec(), ..new() }
                .item(Item { comment: "made by hand", ..packed() })
                .end(),
        ),
    ]
}

fn packed_other() -> Item {
    Item { comment: "other", ..Item::deflated("other", b"other") }
}

pub(super) fn evils(body: &[u8]) -> Vec<Evil> {
    let new = || Zipper::new().item(Item::stored("README", b"x"));
    let packed = || Item::deflated("node", body);
    let mut all = Vec::new();
    let mut add =
        |name: &str, bytes: Vec<u8>, says| all.push(evil(format!("zip: {name}"), Form::Zip, bytes, says));

    add("nothing in it", Zipper::new().end(), "");
    add("other files only", new().end(), "neither");
    for name in ["other/node", "bin/bin/node", "NODE", "node.exe"] {
        add(&format!("{name:?} only"), new().item(Item::stored(name, body)).end(), "neither");
    }
    for name in ["../node", "bin/../node", "/node", "a\\node", "..", "", "node\0"] {
        add(&format!("{name:?}"), new().item(Item::stored(name, body)).end(), "dangerous name");
        add(
            &format!("{name:?} beside ours"),
            new().item(packed()).item(Item::stored(name, b"")).end(),
            "dangerous name",
        );
    }
    let at = |name: &'static str| Item::stored(name, body);
    add("in one of two directories", new().item(at("a/node")).end(), "neither");
    add(
        "twice in one directory",
        Zipper::new().item(at("a/node")).item(at("a/bin/node")).end(),
        "more than once",
    );
    add("twice", new().item(packed()).item(packed()).end(), "more than once");
    add(
        "at the top and in bin",
        new().item(packed()).item(Item::stored("bin/node", body)).end(),
        "more than once",
    );
    add("a directory in its place", new().item(Item::stored("node/", b"")).end(), "directory");
    for (what, mode) in [
        ("link", 0o120_777),
        ("device", 0o020_666),
        ("disk", 0o060_666),
        ("pipe", 0o010_666),
        ("socket", 0o140_666),
        ("directory", 0o040_755),
    ] {
        add(&format!("a {what} in its place"), new().item(packed().mode(mode)).end(), "special entry");
    }
    add(
        "a link beside it",
        new().item(packed()).item(Item::stored("x", b"node").mode(0o120_777)).end(),
        "special entry",
    );

    add(
        "the header has another name",
        new().item(packed().local(|s| s.name = b"evil".to_vec())).end(),
        "contradict",
    );
    add("the header has another method", new().item(packed().local(|s| s.method = 0)).end(), "contradict");
    add("the header has other flags", new().item(packed().local(|s| s.flags = 8)).end(), "contradict");
    add("the header has another sum", new().item(packed().local(|s| s.crc ^= 1)).end(), "contradict");
    add("the header has another size", new().item(packed().local(|s| s.size += 1)).end(), "contradict");
    add(
        "the header has another packed size",
        new().item(packed().local(|s| s.packed -= 1)).end(),
        "contradict",
    );
    add(
        "the header defers without saying so",
        new().item(packed().local(|s| (s.crc, s.packed, s.size) = (0, 0, 0))).end(),
        "contradict",
    );
    add("described after, wrongly", new().item(packed().described_after(b"", 1)).end(), "contradict");
    add(
        "described after, wrongly, with a signature",
        new().item(packed().described_after(b"PK\x07\x08", 1)).end(),
        "contradict",
    );
    let undescribed = Item { descriptor: Vec::new(), ..packed().described_after(b"", 0) };
    add("described after, but is not", new().item(undescribed).end(), "contradict");

    add("a wrong sum", new().item(packed().both(|s| s.crc ^= 1)).end(), "CRC-32");
    add("a size too small", new().item(packed().both(|s| s.size -= 1)).end(), "size");
    add("a size too large", new().item(packed().both(|s| s.size += 1)).end(), "size");
    add("a stored size too small", new().item(Item::stored("node", body).both(|s| s.packed -= 1)).end(), "");
    let long = Item { data: [packed().data, vec![0; 5]].concat(), ..packed() }.both(|s| s.packed += 5);
    add("bytes after the compressed data", new().item(long).end(), "size");
    add("the compressed data is cut", new().item(packed().both(|s| s.packed -= 5)).end(), "");
    add(
        "noise for compressed data",
        new().item(Item { data: vec![0xff; 50], ..packed().both(|s| s.packed = 50) }).end(),
        "",
    );
    add("more data than there is", new().item(packed().both(|s| s.packed += 100_000)).end(), "overlaps");
    for method in [1, 9, 12, 14, 93, 95, 99] {
        add(
            &format!("method {method}"),
            new().item(packed().both(|s| s.method = method)).end(),
            "use deflate",
        );
    }
    for flag in [1, 1 << 5, 1 << 6, 1 << 13] {
        add(
            &format!("encrypted by flag {flag:#x}"),
            new().item(packed().both(|s| s.flags |= flag)).end(),
            "encrypted",
        );
    }
    add(
        "something else is encrypted",
        new().item(packed()).item(Item::stored("x", b"x").both(|s| s.flags = 1)).end(),
        "encrypted",
    );

    let wide = |s: &mut Said| s.extra = vec![1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    add("ZIP64 by an extra field", new().item(packed().central(wide)).end(), "ZIP64");
    add("ZIP64 by its size", new().item(packed().both(|s| s.size = u32::MAX)).end(), "ZIP64");
    add("ZIP64 by its packed size", new().item(packed().both(|s| s.packed = u32::MAX)).end(), "ZIP64");
    add("ZIP64 by its offset", new().item(Item { offset: Some(u32::MAX), ..packed() }).end(), "ZIP64");
    add(
        "ZIP64 by the number of entries",
        new().item(packed()).end_with(|e| e.counts = [u16::MAX; 2]),
        "ZIP64",
    );
    add("ZIP64 by the directory's place", new().item(packed()).end_with(|e| e.start = u32::MAX), "ZIP64");
    add("ZIP64 by the directory's size", new().item(packed()).end_with(|e| e.size = u32::MAX), "ZIP64");
    add("on another disk", new().item(packed()).end_with(|e| e.disks = [1, 1]), "disks");
    add("of several disks", new().item(packed()).end_with(|e| e.counts[0] = 1), "disks");
    add("a file on another disk", new().item(Item { disk: 1, ..packed() }).end(), "disks");

    add("the directory is elsewhere", new().item(packed()).end_with(|e| e.start += 1), "directory");
    add("the directory is larger", new().item(packed()).end_with(|e| e.size += 1), "directory");
    add(
        "the directory is before the beginning",
        new().item(packed()).end_with(|e| (e.start, e.size) = (0, e.start + e.size + 1)),
        "directory",
    );
    add("an entry more than there is", new().item(packed()).end_with(|e| e.counts = [3; 2]), "");
    add(
        "an entry less than there is",
        new().item(packed()).end_with(|e| e.counts = [1; 2]),
        "directory is damaged",
    );
    add(
        "too many entries",
        (0..10_001)
            .fold(Zipper::new(), |z, n| z.item(Item::stored(&n.to_string(), b"")))
            .item(packed())
            .end(),
        "more than 10000",
    );
    add("the comment is longer", new().item(packed()).end_with(|e| e.comment_len = 1), "");
    add("something after it", Zipper { after: b"x".to_vec(), ..new() }.item(packed()).end(), "");
    add("something before it", Zipper { before: b"#!/bin/sh\n".to_vec(), ..new() }.item(packed()).end(), "");
    add("it begins with another file's data", new().item(Item { offset: Some(0), ..packed() }).end(), "");
    add("its header is in the directory", new().item(Item { offset: Some(400), ..packed() }).end(), "");
    add("it starts in another file", new().item(Item { offset: Some(10), ..packed() }).end(), "");
    let overlapping = Zipper::new().item(packed()).item(Item { offset: Some(60), ..Item::stored("x", b"x") });
    add("another file starts in it", overlapping.end(), "overlaps");
    add(
        "two entries for one place",
        Zipper::new().item(packed()).item(Item { offset: Some(0), ..Item::stored("x", b"x") }).end(),
        "overlaps",
    );

    add("a giant", new().item(Item::deflated("node", &vec![0; MAX + 1])).end(), "allowed");
    let liar = Item::deflated("node", &vec![0; 2 * MAX]).both(|s| s.size = 300);
    add("a giant that says it is small", new().item(liar).end(), "allowed");
    let whole = new().item(packed()).end();
    for cut in (1..whole.len()).step_by(whole.len() / 8) {
        add(&format!("cut at {cut}"), whole[..cut].to_vec(), "");
        add(&format!("begun at {cut}"), whole[cut..].to_vec(), "");
    }
    add("an end alone", whole[whole.len() - 22..].to_vec(), "");
    add("nothing", Vec::new(), "");
    add("a program", body.to_vec(), "no zip archive");
    all
}
