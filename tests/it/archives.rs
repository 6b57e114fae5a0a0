//! Archives as releases are packed, and archives as only an enemy packs them.
//!
//! Whatever is in an archive: what comes out is the one file, or nothing.

mod tape;
mod zipper;

use crate::download::{Rig, elf, program};
use crate::rig::server::{Content, Server};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
pub(crate) use tape::Tape;
use wemixvisor::Digest;
use wemixvisor::inside::Cancel;
use wemixvisor::inside::download::Form;
use wemixvisor::inside::download::archive::Packed;
use wemixvisor::{Kind, Result};
use zipper::{Item, Zipper};

const MIB: usize = 1024 * 1024;
const MAX: usize = 4 * MIB;

/// An archive that is to be refused: what is wrong with it, how it is packed, its bytes, and a part of
/// the reason.
pub(crate) struct Evil {
    name: String,
    form: Form,
    bytes: Vec<u8>,
    says: &'static str,
}

pub(crate) fn evil(name: impl Into<String>, form: Form, bytes: Vec<u8>, says: &'static str) -> Evil {
    Evil { name: name.into(), form, bytes, says }
}

/// A small program, so that it can be cut at every byte.
pub(crate) fn small() -> Vec<u8> {
    elf(std::env::consts::ARCH, 300)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Takes `node` out, and checks that nothing else changes on disk.
fn take_out(form: Form, bytes: &[u8], max_size: usize) -> Result<Vec<u8>> {
    // In memory if that is possible: durability is no subject here, and there are many files.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, bytes).unwrap();
    let packed = Packed { form, path: &from, daemon: "node" };
    let taken = packed.extract(&to, max_size as u64, &Cancel::new().unwrap());
    let names = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(dir.path()).len(), if taken.is_ok() { 2 } else { 1 });
    taken.map(|(sha256, size)| {
        let content = fs::read(&to).unwrap();
        assert_eq!((sha256, size), (Digest::sha256(&content), content.len() as u64));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o600);
        content
    })
}

fn good() -> Vec<(&'static str, Form, Vec<u8>)> {
    let body = small();
    let halves = [gzip(&body[..100]), gzip(&body[100..])].concat();
    let mut all = vec![
        ("a file alone", Form::Gzip, gzip(&body)),
        ("in two members", Form::Gzip, halves),
        ("not packed", Form::Bare, body.clone()),
    ];
    all.extend(tape::good(&body).into_iter().map(|(name, bytes)| (name, Form::TarGzip, bytes)));
    all.extend(zipper::good(&body).into_iter().map(|(name, bytes)| (name, Form::Zip, bytes)));
    all
}

fn evils() -> Vec<Evil> {
    let body = small();
    let packed = gzip(&body);
    let mut wrong_crc = packed.clone();
    let at = wrong_crc.len() - 8;
    wrong_crc[at] ^= 1;
    let mut wrong_size = packed.clone();
    wrong_size[at + 4] ^= 1;
    let mut all = vec![
        evil("gzip: garbage after it", Form::Gzip, [&packed[..], b"garbage"].concat(), ""),
        evil("gzip: garbage before it", Form::Gzip, [b"x", &packed[..]].concat(), "gzip"),
        evil("gzip: wrong sum", Form::Gzip, wrong_crc, "checksum"),
        evil("gzip: wrong size", Form::Gzip, wrong_size, "checksum"),
        evil("gzip: not packed at all", Form::Gzip, body.clone(), "gzip"),
        evil("gzip: nothing", Form::Gzip, Vec::new(), ""),
        evil("gzip: too large", Form::Gzip, gzip(&vec![1; MAX + 1]), "allowed"),
        evil("bare: too large", Form::Bare, vec![1; MAX + 1], "allowed"),
    ];
    let cuts = (1..packed.len()).step_by(packed.len() / 8);
    all.extend(cuts.map(|cut| evil(format!("gzip: cut at {cut}"), Form::Gzip, packed[..cut].to_vec(), "")));
    all.extend(tape::evils(&body));
    all.extend(zipper::evils(&body));
    all
}

#[test]
fn archives_as_releases_are_packed() {
    for (name, form, bytes) in good() {
        let taken = take_out(form, &bytes, MAX).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(taken == small(), "{name}");
    }
}

#[test]
fn archives_of_an_enemy() {
    let all = evils();
    assert!(all.len() >= 100, "only {} archives", all.len());
    for Evil { name, form, bytes, says } in all {
        match take_out(form, &bytes, MAX) {
            Ok(_) => panic!("{name} was accepted"),
            Err(e) => {
                assert_eq!(e.kind(), Kind::BadInput, "{name}: {e}");
                assert!(e.to_string().contains(says), "{name}: {e}");
            }
        }
    }
}

#[test]
fn a_byte_that_was_changed_is_noticed_or_does_not_matter() {
    for (name, form, bytes) in good().into_iter().filter(|(_, form, _)| *form != Form::Bare) {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            match take_out(form, &changed, MAX) {
                Ok(taken) => assert!(taken == small(), "{name}: byte {at}"),
                Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{name}: byte {at}: {e}"),
            }
        }
    }
}

#[test]
fn an_archive_that_is_cut_at_any_byte_is_refused() {
    for (name, form, bytes) in good().into_iter().filter(|(_, form, _)| *form != Form::Bare) {
        for cut in 0..bytes.len() {
            match take_out(form, &bytes[..cut], MAX) {
                // Between the members of a gzip file no reader can tell.
                Ok(taken) => assert!(name == "in two members" && taken == small()[..100], "{name}: {cut}"),
                Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{name}: {cut}: {e}"),
            }
        }
    }
}

#[test]
fn bombs_go_off_early() {
    // 64 MiB of zeros in some 64 KiB, where a GiB would be allowed.
    let zeros = vec![0; 64 * MIB];
    let tar = |name: &str| gzip(&Tape::new().file(name, &zeros).file("bin/node", &small()).end());
    let zip = Zipper::new().item(Item::deflated("node", &zeros)).end();
    for (form, bytes) in [
        (Form::Gzip, gzip(&zeros)),
        (Form::TarGzip, tar("node")),
        (Form::TarGzip, tar("README")),
        (Form::Zip, zip),
    ] {
        assert!(bytes.len() < 512 * 1024);
        let err = take_out(form, &bytes, 1 << 30).unwrap_err();
        assert_eq!(err.kind(), Kind::BadInput);
        assert!(err.to_string().contains("allowed") || err.to_string().contains("inflates"), "{err}");
    }
}

#[test]
fn a_cancelled_extraction_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, gzip(&small())).unwrap();
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let packed = Packed { form: Form::Gzip, path: &from, daemon: "node" };
    let err = packed.extract(&to, MAX as u64, &cancel).unwrap_err();
    assert_eq!(err.kind(), Kind::Failed);
    assert!(!to.exists());
}

#[test]
fn what_stands_in_the_way_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, precious) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("precious"));
    fs::write(&from, gzip(&small())).unwrap();
    fs::write(&precious, "x").unwrap();
    std::os::unix::fs::symlink(&precious, &to).unwrap();
    let packed = Packed { form: Form::Gzip, path: &from, daemon: "node" };
    packed.extract(&to, MAX as u64, &Cancel::new().unwrap()).unwrap_err();
    assert_eq!(fs::read(&precious).unwrap(), b"x");
}

#[test]
fn packed_downloads_are_verified_as_they_were_downloaded() {
    let body = program();
    let tar = gzip(&Tape::new().dir("bin/").file("bin/node", &body).file("LICENSE", b"text").end());
    let zip = Zipper::new().item(Item::deflated("node", &body)).end();
    for (path, bytes) in
        [("/node.gz", gzip(&body)), ("/x.tar.gz", tar.clone()), ("/x.TGZ", tar), ("/x.zip", zip)]
    {
        let content = Content::new(bytes.clone());
        let server = Server::start(move |asked, conn| content.serve(asked, conn));
        let mut rig = Rig::new([server.url(path)]);
        rig.upgrade.digest = Some(Digest::sha256(&bytes));
        let manifest = rig.install(&body).manifest().clone();
        assert_eq!((manifest.sha256, manifest.size), (Digest::sha256(&body), body.len() as u64));
        // The digest of what is inside does not vouch for the archive.
        let mut rig = Rig::new([server.url(path)]);
        rig.upgrade.digest = Some(Digest::sha256(&body));
        assert_eq!(rig.refuse().kind(), Kind::Verification);
    }
}

#[test]
fn a_verified_archive_without_the_binary_is_refused() {
    let arch = if std::env::consts::ARCH == "aarch64" { "x86_64" } else { "aarch64" };
    let missing = Tape::new().file("other", &program()).end();
    let foreign = Tape::new().file("node", &elf(arch, 1000)).end();
    for (tar, says) in [(missing, "neither node nor bin/node"), (foreign, "is for")] {
        let bytes = gzip(&tar);
        let content = Content::new(bytes.clone());
        let server = Server::start(move |asked, conn| content.serve(asked, conn));
        let mut rig = Rig::new([server.url("/x.tgz")]);
        rig.upgrade.digest = Some(Digest::sha256(&bytes));
        let err = rig.refuse();
        assert_eq!(err.kind(), Kind::BadInput);
        assert!(err.to_string().contains(says), "{err}");
    }
}

#[test]
fn a_gzip_file_that_is_labelled_as_encoded_is_taken_as_it_is() {
    let bytes = gzip(&program());
    let content = Content::new(bytes.clone());
    let server =
        Server::start(move |_, conn| conn.answer("200 OK", &[("Content-Encoding", "x-gzip")], &content.body));
    let mut rig = Rig::new([server.url("/node.gz")]);
    rig.upgrade.digest = Some(Digest::sha256(&bytes));
    rig.install(&program());
}
