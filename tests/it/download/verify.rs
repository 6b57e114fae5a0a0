//! The sources that vouch for a download; no other is believed.

use super::{Rig, program};
use crate::rig::minisign::Key;
use crate::rig::server::{Content, Server};
use std::collections::BTreeMap;
use std::path::Path;
use wemixvisor::Kind;
use wemixvisor::config::{Config, PublicKey, Sources};
use wemixvisor::home::Verified;
use wemixvisor::inside::download::{Downloader, RetryAfter};
use wemixvisor::{Algorithm, Digest};

/// Serves files by path, and nothing else.
fn serve(files: &[(&str, &[u8])]) -> Server {
    let files: BTreeMap<String, Content> =
        files.iter().map(|(path, body)| ((*path).to_owned(), Content::new(*body))).collect();
    Server::start(move |asked, conn| match files.get(&asked.path) {
        Some(file) => file.serve(asked, conn),
        None => conn.answer("404 Not Found", &[], b"<html>"),
    })
}

/// A rig that pins nothing.
fn rig(server: &Server) -> Rig {
    let mut rig = Rig::new([server.url("/node")]);
    rig.upgrade.digest = None;
    rig
}

fn hex() -> String {
    Digest::sha256(&program()).hex()
}

fn hex512() -> String {
    Digest::of_reader(Algorithm::Sha512, &program()[..]).unwrap().hex()
}

fn key(seed: u8) -> (Key, PublicKey) {
    let key = Key::new(seed);
    let sources = Sources {
        cwd: "/".into(),
        flags: vec![
            ("--home".into(), "/h".into()),
            ("--daemon-name".into(), "node".into()),
            ("--download-public-keys".into(), key.public()),
        ],
        ..Sources::default()
    };
    let public = Config::load(&sources).unwrap().config.download_public_keys.remove(0);
    (key, public)
}

#[test]
fn without_a_word_from_anybody_there_is_no_download() {
    let server = serve(&[("/node", &program())]);
    let err = rig(&server).refuse();
    assert_eq!(err.kind(), Kind::Verification);
    assert!(err.to_string().contains("nothing vouches"), "{err}");
    assert_eq!(server.count("/node"), 0, "it is not even asked for");
}

#[test]
fn a_pinned_digest_is_enough_and_asks_for_nothing_else() {
    let server = serve(&[("/node", &program()), ("/node.sha256", b"nonsense")]);
    for digest in [hex(), hex512()] {
        let mut rig = rig(&server);
        rig.upgrade.digest = Some(digest.parse().unwrap());
        assert_eq!(rig.install(&program()).manifest().verified, Verified::Digest);
    }
    assert_eq!(server.count("/node.sha256"), 0);
}

#[test]
fn a_digest_in_the_url_counts_and_is_not_sent() {
    let server = serve(&[("/node?a=b", &program())]);
    for digest in [format!("sha256:{}", hex()), format!("sha512%3A{}", hex512().to_uppercase()), hex()] {
        let mut rig = rig(&server);
        rig.urls.default = vec![server.url(&format!("/node?checksum={digest}&a=b"))];
        assert_eq!(rig.install(&program()).manifest().verified, Verified::Digest);
    }
    let mut rig = rig(&server);
    rig.urls.default = vec![server.url(&format!("/node?checksum=sha256:{}&a=b", Digest::sha256(b"x").hex()))];
    assert_eq!(rig.refuse().kind(), Kind::Verification);
    rig.urls.default = vec![server.url("/node?checksum=md5:d41d8cd98f00b204e9800998ecf8427e")];
    assert_eq!(rig.refuse().kind(), Kind::BadInput);
    // Both are known, so both must hold.
    rig.upgrade.digest = Some(Digest::sha256(b"y"));
    rig.urls.default = vec![server.url(&format!("/node?checksum={}&a=b", hex()))];
    assert_eq!(rig.refuse().kind(), Kind::Verification);
}

#[test]
fn checksum_files_of_every_kind() {
    let (one, two) = (hex(), hex512());
    for (path, text) in [
        ("/node.sha256", one.clone()),
        ("/node.sha256", format!("{one}  node\n")),
        ("/node.sha256", format!("{} *node\r\n", one.to_uppercase())),
        ("/node.sha256", format!("{}  other\n{one}  node\n", Digest::sha256(b"o").hex())),
        ("/node.sha256", format!("SHA256 (node) = {one}\n")),
        ("/node.sha512", format!("{two}  node\n")),
        ("/node.sha512", format!("SHA512 (node) = {two}\n")),
    ] {
        let server = serve(&[("/node", &program()), (path, text.as_bytes())]);
        let staged = rig(&server).install(&program());
        assert_eq!(staged.manifest().verified, Verified::ChecksumFile, "{text}");
    }
}

#[test]
fn a_checksum_file_that_does_not_speak_of_our_file_says_nothing() {
    let one = hex();
    for text in [
        format!("{one}  other\n"),
        format!("{one}  arm64/node\n"),
        format!("SHA256 (node.asc) = {one}\n"),
        "<html>404</html>".to_owned(),
        String::new(),
        hex512(),
    ] {
        let server = serve(&[("/node", &program()), ("/node.sha256", text.as_bytes())]);
        let err = rig(&server).refuse();
        assert_eq!(err.kind(), Kind::Verification, "{text}");
        assert_eq!((server.count("/node"), server.count("/node.sha512")), (0, 1), "{text}");
    }
}

#[test]
fn a_checksum_file_that_says_otherwise_is_final() {
    let other = Digest::sha256(b"other").hex();
    let text = format!("{other}  node\n{}  node\n", hex());
    let server = serve(&[("/node", &program()), ("/node.sha256", text.as_bytes())]);
    assert_eq!(rig(&server).refuse().kind(), Kind::Verification);
    let server = serve(&[("/node", &program()), ("/node.sha256", other.as_bytes())]);
    let mut rig = rig(&server);
    assert_eq!(rig.refuse().kind(), Kind::Verification);
    rig.config.unsafe_skip_checksum = true;
    assert_eq!(rig.refuse().kind(), Kind::Verification, "an explicit mismatch is never skipped");
}

#[test]
fn a_checksum_file_has_limits_too() {
    let server = Server::start(|asked, conn| {
        if asked.path == "/node" {
            return Content::new(program()).serve(asked, conn);
        }
        conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
        loop {
            conn.raw(format!("ffff\r\n{}\r\n", "x".repeat(0xffff)))?;
        }
    });
    let err = rig(&server).refuse();
    assert_eq!(err.kind(), Kind::BadInput);
    assert_eq!(server.count("/node.sha256"), 1);
}

#[test]
fn a_checksum_file_in_trouble_is_asked_for_again_rather_than_done_without() {
    let server = Server::start(|asked, conn| match (asked.path.as_str(), asked.nth) {
        ("/node", _) => Content::new(program()).serve(asked, conn),
        (_, 0) => conn.answer("503 Service Unavailable", &[], b""),
        // Cut short it would be a digest of another kind.
        (_, 1) => conn.head("200 OK", &[("Content-Length", "200")]).and_then(|()| conn.raw(hex())),
        _ => conn.answer("200 OK", &[], hex().as_bytes()),
    });
    let mut rig = rig(&server);
    rig.config.unsafe_skip_checksum = true;
    assert_eq!(rig.install(&program()).manifest().verified, Verified::ChecksumFile);
    assert_eq!(server.count("/node.sha256"), 3);
}

#[test]
fn checks_can_be_switched_off_but_not_for_a_validator() {
    let server = serve(&[("/node", &program())]);
    let mut rig = rig(&server);
    rig.config.unsafe_skip_checksum = true;
    rig.config.validator_mode = true;
    assert_eq!(
        Downloader::new(&rig.config, rig.limits, RetryAfter::default()).err().unwrap().kind(),
        Kind::Config
    );
    rig.config.validator_mode = false;
    assert_eq!(rig.install(&program()).manifest().verified, Verified::Unchecked);
}

#[test]
fn a_signature_by_one_of_our_keys_for_this_upgrade() {
    let ((key, public), (_, other)) = (key(1), key(2));
    for comment in ["upgrade:v2", "timestamp:1\tfile:node\tv2"] {
        let signature = key.sign(&program(), comment);
        let server = serve(&[("/node", &program()), ("/node.minisig", signature.as_bytes())]);
        let mut rig = rig(&server);
        rig.config.download_public_keys = vec![other.clone(), public.clone()];
        let staged = rig.install(&program());
        assert_eq!(staged.manifest().verified, Verified::Signature);
        assert_eq!(staged.manifest().key.as_deref(), Some(public.as_str()));
        assert_eq!(server.count("/node.sha256"), 0);
    }
}

#[test]
fn every_other_signature_is_refused() {
    let ((key, public), (stranger, _)) = (key(1), key(2));
    let good = key.sign(&program(), "upgrade:v2");
    let forged_comment = key.sign(&program(), "upgrade:v1").replace("upgrade:v1", "upgrade:v2");
    for (signature, says) in [
        (None, "there is none"),
        (Some(stranger.sign(&program(), "upgrade:v2")), "none of download_public_keys"),
        (Some(key.sign(b"another file", "upgrade:v2")), "does not hold"),
        (Some(key.sign(&program(), "upgrade:v1")), "does not name v2"),
        (Some(key.sign(&program(), "upgrade:v2.1")), "does not name v2"),
        (Some(key.sign(&program(), "file:node-v2")), "does not name v2"),
        (Some(forged_comment), "does not hold"),
        (Some(key.sign_legacy(&program(), "upgrade:v2")), "legacy"),
        (Some(good.replace("trusted comment", "comment")), "not a minisign signature"),
        (Some(good[..good.len() / 2].to_owned()), "not a minisign signature"),
        (Some("<html>".to_owned()), "not a minisign signature"),
    ] {
        let sums = hex();
        let mut files = vec![("/node", program()), ("/node.sha256", sums.into_bytes())];
        files.extend(signature.map(|s| ("/node.minisig", s.into_bytes())));
        let files: Vec<_> = files.iter().map(|(p, b)| (*p, b.as_slice())).collect();
        let server = serve(&files);
        let mut rig = rig(&server);
        rig.config.download_public_keys = vec![public.clone()];
        // Nothing that is weaker stands in for it.
        rig.upgrade.digest = Some(Digest::sha256(&program()));
        rig.config.unsafe_skip_checksum = true;
        let err = rig.refuse();
        assert_eq!(err.kind(), Kind::Verification, "{says}");
        assert!(err.to_string().contains(says), "{says}: {err}");
    }
}

#[test]
fn a_signature_does_not_overrule_a_pinned_digest() {
    let (key, public) = key(1);
    let signature = key.sign(&program(), "v2");
    let server = serve(&[("/node", &program()), ("/node.minisig", signature.as_bytes())]);
    let mut rig = rig(&server);
    rig.config.download_public_keys = vec![public];
    rig.upgrade.digest = Some(Digest::sha256(b"other"));
    assert_eq!(rig.refuse().kind(), Kind::Verification);
}

#[test]
fn a_signature_holds_over_a_file_that_came_in_pieces() {
    let (key, public) = key(1);
    let signature = key.sign(&program(), "v2");
    let content = Content::new(program());
    let server = Server::start(move |asked, conn| match asked.path.as_str() {
        "/node" => content.serve_until(asked, conn, content.body.len() * (asked.nth + 1) / 3),
        "/node.minisig" => conn.answer("200 OK", &[], signature.as_bytes()),
        _ => conn.answer("404 Not Found", &[], b""),
    });
    let mut rig = rig(&server);
    rig.config.download_public_keys = vec![public];
    rig.install(&program());
    assert_eq!((server.count("/node"), server.count("/node.minisig")), (3, 1));
}

#[test]
fn a_document_behind_info_names_the_binaries() {
    let text = |server: &Server| format!(r#"{{"binaries":{{"any":"{}"}}}}"#, server.url("/{name}/node"));
    let binaries = serve(&[("/v2/node", &program())]);
    let document = serve(&[("/v2.json", text(&binaries).as_bytes()), ("/page", b"<html>")]);
    let mut rig = Rig::new(Vec::<String>::new());
    rig.upgrade.info = Some(document.url("/{name}.json"));
    rig.install(&program());

    let digest = Digest::sha256(text(&binaries).as_bytes());
    let mut rig = Rig::new(Vec::<String>::new());
    rig.upgrade.info = Some(document.url(&format!("/v2.json?checksum={digest}")));
    rig.install(&program());

    let mut rig = Rig::new(Vec::<String>::new());
    rig.upgrade.info = Some(document.url(&format!("/v2.json?checksum={}", Digest::sha256(b"x"))));
    assert_eq!(rig.refuse().kind(), Kind::Verification);
    rig.upgrade.info = Some(document.url("/page"));
    assert_eq!(rig.refuse().kind(), Kind::BadInput);
    rig.upgrade.info = Some(document.url("/missing"));
    assert_eq!(rig.refuse().kind(), Kind::Unreachable);

    // A page for people does not stand in the way of what is configured.
    let mut rig = Rig::new([binaries.url("/v2/node")]);
    rig.upgrade.info = Some(document.url("/page"));
    rig.install(&program());
}

#[test]
fn no_source_at_all_is_a_matter_of_configuration() {
    let err = Rig::new(Vec::<String>::new()).refuse();
    assert_eq!(err.kind(), Kind::Config);
    assert!(err.to_string().contains("download_urls"), "{err}");
}

#[test]
fn a_place_that_cannot_be_read_stands_in_the_way_of_no_other() {
    let server = serve(&[("/node", &program())]);
    let bad = server.url("/node?checksum=md5:d41d8cd98f00b204e9800998ecf8427e");
    for (urls, asked) in [
        (vec![bad.clone(), "ftp://127.0.0.1/node".to_owned(), server.url("/node")], 1),
        (vec![server.url("/node"), bad.clone(), server.url("/node")], 2),
    ] {
        Rig::new(urls).install(&program());
        assert_eq!(server.count("/node"), asked);
    }
    assert_eq!(Rig::new([bad]).refuse().kind(), Kind::BadInput);
}

#[test]
fn the_same_place_is_tried_once() {
    let server = serve(&[]);
    let mut rig = Rig::new([server.url("/{name}"), server.url("/{version}"), server.url("/v2")]);
    rig.upgrade.binaries = [("any", server.url("/v2"))].into_iter().collect();
    assert_eq!(rig.refuse().kind(), Kind::Unreachable);
    assert_eq!(server.count("/v2"), 1);
}

#[test]
fn a_second_fetch_of_a_whole_download_asks_for_nothing() {
    let server = serve(&[("/node", &program())]);
    let mut rig = rig(&server);
    rig.upgrade.digest = Some(Digest::sha256(&program()));
    drop(rig.fetch().unwrap());
    let path = rig.fetch().unwrap().path.clone();
    assert_eq!(server.count("/node"), 1);
    // But it is verified again.
    std::fs::write(&path, vec![b'x'; program().len()]).unwrap();
    rig.install(&program());
    assert_eq!(server.count("/node"), 2);
    assert!(path.starts_with(rig.home.downloads()) && !Path::new(&path).exists());
}

#[test]
fn a_finished_download_is_locked_until_it_is_staged() {
    let server = serve(&[("/node", &program())]);
    let mut rig = rig(&server);
    rig.upgrade.digest = Some(Digest::sha256(&program()));
    let fetched = rig.fetch().unwrap();
    assert_eq!(rig.refuse().kind(), Kind::Busy);
    drop(fetched);
    rig.install(&program());
}
