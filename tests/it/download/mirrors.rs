//! Several mirrors, of which some fail.

use super::{Rig, program};
use crate::rig::server::{Content, Server};
use std::sync::Arc;
use wemixvisor::Digest;
use wemixvisor::Kind;
use wemixvisor::inside::download::RetryAfter;

fn good(content: &Content) -> Server {
    let content = content.clone();
    Server::start(move |asked, conn| content.serve(asked, conn))
}

/// Cuts every transfer at this byte.
fn cutting(content: &Content, at: usize) -> Server {
    let content = content.clone();
    Server::start(move |asked, conn| content.serve_until(asked, conn, at))
}

#[test]
fn the_next_mirror_goes_on_where_the_last_one_stopped() {
    let content = Content::new(program());
    let (dying, fine) = (cutting(&content, 40_000), good(&content));
    Rig::new([dying.url("/node"), fine.url("/node")]).install(&program());
    assert_eq!((dying.count("/node"), fine.count("/node")), (1, 1));
    assert_eq!(fine.asked()[0].range(), Some(40_000));
}

#[test]
fn a_mirror_with_another_tag_begins_again() {
    let content = Content::new(program());
    let other = Content { etag: "\"other\"".to_owned(), ..content.clone() };
    let (dying, fine) = (cutting(&content, 40_000), good(&other));
    Rig::new([dying.url("/node"), fine.url("/node")]).install(&program());
    assert_eq!(fine.asked()[0].header("if-range"), Some(content.etag.as_str()));
    assert_eq!(fine.count("/node"), 1);
}

#[test]
fn a_wrong_prefix_of_one_mirror_does_not_spoil_another() {
    let content = Content::new(program());
    let evil = Content { body: vec![b'x'; content.body.len()], ..content.clone() };
    let (dying, fine) = (cutting(&evil, 40_000), good(&content));
    Rig::new([dying.url("/node"), fine.url("/node")]).install(&program());
    let ranges: Vec<_> = fine.asked().iter().map(|a| a.range()).collect();
    assert_eq!(ranges, [Some(40_000), None]);
}

#[test]
fn mirrors_are_tried_in_order_and_a_lasting_fault_puts_one_out() {
    let content = Content::new(program());
    let wrong = good(&Content::new(vec![b'x'; 100]));
    let missing = Server::start(|_, conn| conn.answer("404 Not Found", &[], b""));
    let busy = Server::start(|_, conn| conn.answer("503 Service Unavailable", &[], b""));
    let fine = good(&content);
    let urls = [
        wrong.url("/node"),
        missing.url("/node"),
        format!("{}/node", Server::unused()),
        busy.url("/node"),
        fine.url("/node"),
    ];
    Rig::new(urls.clone()).install(&program());
    assert_eq!((wrong.count("/node"), missing.count("/node")), (1, 1));
    let last = urls.len() - 1;
    let err = Rig::new(urls[..last].to_vec()).refuse();
    assert_eq!(err.kind(), Kind::Verification);
    for url in &urls[..last] {
        assert!(err.to_string().contains(url.as_str()), "{url} is not in {err}");
    }
    assert_eq!((wrong.count("/node"), missing.count("/node")), (2, 2));
    assert!(busy.count("/node") >= 4);
}

#[test]
fn mirrors_that_all_die_midway_complete_each_other() {
    let content = Content::new(program());
    let len = content.body.len();
    let servers: Vec<_> = (1..=8).map(|n| cutting(&content, len * n / 8)).collect();
    let rig = Rig::new(servers.iter().map(|s| s.url("/node")));
    rig.install(&program());
    for (index, server) in servers.iter().enumerate().skip(1) {
        assert_eq!(server.asked()[0].range(), Some(len * index / 8));
    }
}

#[test]
fn a_server_that_asks_for_a_long_wait_is_left_alone_by_the_next_fetch_too() {
    let content = Content::new(program());
    let busy = Server::start(move |asked, conn| match asked.nth {
        0 => conn.answer("503 Service Unavailable", &[("Retry-After", "3600")], b""),
        _ => content.serve(asked, conn),
    });
    let gone = Server::start(|_, conn| conn.answer("404 Not Found", &[], b""));
    let mut rig = Rig::new([busy.url("/node"), gone.url("/node")]);
    assert!(rig.refuse().to_string().contains("wait for 1h"));
    let text = rig.refuse().to_string();
    assert!(text.contains("left alone") && text.contains("over in "), "{text}");
    assert_eq!((busy.count("/node"), gone.count("/node")), (1, 2));
    // Another process knows nothing of it.
    rig.retry_after = RetryAfter::default();
    rig.install(&program());
}

#[test]
fn every_mirror_brings_its_own_checksum_file() {
    let wrong = vec![b'x'; 3000];
    let lying = Arc::new(format!("{}  node\n", Digest::sha256(b"neither").hex()));
    let evil = Server::start(move |asked, conn| match asked.path.as_str() {
        "/node" => Content::new(wrong.clone()).serve(asked, conn),
        _ => conn.answer("200 OK", &[], lying.as_bytes()),
    });
    let fine = Server::start(|asked, conn| match asked.path.as_str() {
        "/node" => Content::new(program()).serve(asked, conn),
        _ => conn.answer("200 OK", &[], Digest::sha256(&program()).hex().as_bytes()),
    });
    let mut rig = Rig::new([evil.url("/node"), fine.url("/node")]);
    rig.upgrade.digest = None;
    rig.install(&program());
    assert_eq!(evil.count("/node"), 1);
}

#[test]
fn what_has_arrived_outlives_a_process() {
    let content = Content::new(program());
    let dying = cutting(&content, 50_000);
    let mut rig = Rig::new([dying.url("/node")]);
    rig.limits.retry.attempts = 1;
    assert_eq!(rig.refuse().kind(), Kind::Unreachable);
    let fine = good(&content);
    rig.urls.default = vec![fine.url("/node")];
    rig.install(&program());
    assert_eq!(fine.asked()[0].range(), Some(50_000));
}

#[test]
fn a_part_of_a_download_that_was_changed_is_not_trusted() {
    let content = Content::new(program());
    let dying = cutting(&content, 50_000);
    let mut rig = Rig::new([dying.url("/node")]);
    rig.limits.retry.attempts = 1;
    rig.refuse();
    let path = rig.home.downloads().join("v2.partial");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let fine = good(&content);
    rig.urls.default = vec![fine.url("/node")];
    rig.install(&program());
    assert_eq!(fine.count("/node"), 2);
}

#[test]
fn a_file_that_is_larger_than_the_disk_is_not_begun() {
    let server = Server::start(|_, conn| {
        conn.head("200 OK", &[("Content-Length", &(1u64 << 60).to_string())])?;
        conn.stall()
    });
    let mut rig = Rig::new([server.url("/node"), server.url("/again")]);
    rig.config.download_max_size = wemixvisor::config::Size(u64::MAX);
    let err = rig.refuse();
    assert_eq!(err.os().unwrap().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(server.asked().len(), 1, "no other mirror makes room on the disk");
}
