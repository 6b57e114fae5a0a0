//! One server, one file, and everything that can go wrong between them.

mod bad;
mod good;

use super::{Rig, elf, program, slow_to_begin, slow_to_go_on};
use crate::rig::server::{Asked, Conn, Content, Server};
use std::io;
use std::time::Duration;
use wemixvisor::Digest;
use wemixvisor::Kind;
use wemixvisor::inside::download::Limits;

/// How a fetch is to end.
enum End {
    /// With the right file, after so many requests for it.
    Right(usize),
    /// With the right file, after at least one retry: for what depends on time.
    Retried,
    /// With a failure of this kind that says this.
    Fails(Kind, &'static str),
}
use End::{Fails, Retried, Right};
use bad::bad;
use good::good;

struct Behaviour {
    name: &'static str,
    serve: fn(&Asked, &mut Conn, &Content) -> io::Result<()>,
    limits: fn() -> Limits,
    end: End,
}

fn behaviour(
    name: &'static str,
    end: End,
    serve: fn(&Asked, &mut Conn, &Content) -> io::Result<()>,
) -> Behaviour {
    Behaviour { name, serve, limits: super::patient, end }
}

/// For servers that are to be found too slow.
fn slow(
    limits: fn() -> Limits,
    name: &'static str,
    end: End,
    serve: fn(&Asked, &mut Conn, &Content) -> io::Result<()>,
) -> Behaviour {
    Behaviour { name, serve, limits, end }
}

const HALF: usize = 32 * 1024;
const CUT: io::Result<()> = Ok(());

fn length(content: &Content) -> String {
    content.body.len().to_string()
}

fn chunked(conn: &mut Conn, body: &[u8]) -> io::Result<()> {
    for chunk in body.chunks(10_000) {
        conn.raw(format!("{:x}\r\n", chunk.len()))?;
        conn.raw(chunk)?;
        conn.raw("\r\n")?;
    }
    Ok(())
}

/// Answers a request for the rest with a head of its own making and the bytes that follow from it.
fn rest(conn: &mut Conn, range: &str, etag: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len().to_string();
    let headers = [("Content-Range", range), ("Content-Length", &length), ("ETag", etag)];
    conn.head("206 Partial Content", &headers)?;
    conn.raw(body)
}

fn run(behaviours: Vec<Behaviour>) {
    for Behaviour { name, serve, limits, end } in behaviours {
        let content = Content::new(program());
        let server = Server::start(move |asked, conn| serve(asked, conn, &content));
        let mut rig = Rig::new([server.url("/node")]);
        rig.limits = limits();
        if matches!(end, Fails(..)) {
            rig.limits.retry.attempts = 3;
        }
        match end {
            Right(requests) => {
                rig.install(&program());
                assert_eq!(server.count("/node"), requests, "{name}");
            }
            Retried => {
                rig.install(&program());
                assert!(server.count("/node") > 1, "{name}");
            }
            Fails(kind, says) => {
                let err = rig.refuse();
                assert_eq!(err.kind(), kind, "{name}: {err}");
                let text = err.to_string();
                assert!(text.contains(says) && text.contains(&server.addr().to_string()), "{name}: {text}");
                assert!(server.count("/node") <= 6, "{name}: {} requests", server.count("/node"));
            }
        }
    }
}

#[test]
fn there_are_enough_behaviours() {
    assert!(good().len() + bad().len() >= 60);
}

#[test]
fn servers_that_can_be_put_up_with() {
    run(good());
}

#[test]
fn servers_that_cannot() {
    run(bad());
}

#[test]
fn the_rest_is_asked_for_with_the_strong_tag() {
    let content = Content::new(program());
    let etag = content.etag.clone();
    let server = Server::start(move |asked, conn| match asked.nth {
        0 => content.serve_until(asked, conn, HALF),
        _ => content.serve(asked, conn),
    });
    Rig::new([server.url("/node")]).install(&program());
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].range(), asked[0].header("if-range")), (None, None));
    assert_eq!((asked[1].range(), asked[1].header("if-range")), (Some(HALF), Some(etag.as_str())));
    assert!(asked[0].header("user-agent").unwrap().starts_with("wemixvisor/"));
}

#[test]
fn the_wrong_file_that_is_right_by_its_digest_is_refused() {
    let arch = if std::env::consts::ARCH == "aarch64" { "x86_64" } else { "aarch64" };
    let script = b"#!/bin/sh\nexec evil\n".to_vec();
    for (body, says) in [
        (elf(arch, 1000), "is for"),
        (script, "script"),
        (elf(std::env::consts::ARCH, 500)[..200].to_vec(), "cut short"),
    ] {
        let content = Content::new(body.clone());
        let server = Server::start(move |asked, conn| content.serve(asked, conn));
        let mut rig = Rig::new([server.url("/node")]);
        rig.upgrade.digest = Some(Digest::sha256(&body));
        let err = rig.refuse();
        assert_eq!(err.kind(), Kind::BadInput);
        assert!(err.to_string().contains(says), "{err}");
        assert_eq!(server.count("/node"), 1);
    }
}

#[test]
fn no_process_listens() {
    let err = Rig::new([format!("{}/node", Server::unused())]).refuse();
    assert_eq!(err.kind(), Kind::Unreachable);
}
