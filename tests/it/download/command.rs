//! `upgrade fetch` as an operator runs it: what it says where, and how it ends.

use crate::rig::server::{Content, Server};
use crate::rig::sim::until;
use crate::rig::visor::{Rig, send};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use wemixvisor::Digest;

/// A node of version 2 to be fetched, and its digest.
fn node(rig: &Rig) -> (Content, String) {
    let content = Content::new(fs::read(rig.binary("v2", &[])).unwrap());
    let digest = Digest::sha256(&content.body).hex();
    (content, digest)
}

fn stderr(out: &Output) -> String {
    String::from_utf8(out.stderr.clone()).unwrap()
}

#[test]
fn stdout_is_json_alone_and_troubles_are_told_beside_it() {
    let rig = Rig::new();
    let (content, digest) = node(&rig);
    let server = Server::start(move |asked, conn| match asked.path.as_str() {
        "/v2" => content.serve(asked, conn),
        _ => conn.answer("404 Not Found", &[], b""),
    });
    let rig =
        rig.set("DAEMON_DOWNLOAD_URLS", &[server.url("/gone?token=secret"), server.url("/{name}")].join(","));
    let args = ["upgrade", "fetch", "v2", "--sha256", &digest, "--json"];
    for is_new in [true, false] {
        let out = rig.output(&args);
        assert!(out.status.success(), "{out:?}");
        let json: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(json["manifest"]["verified"], "digest");
        let said = stderr(&out);
        let failed =
            format!("event=download_failed url={}?*** next={} wait=", server.url("/gone"), server.url("/v2"));
        assert_eq!(said.contains(&failed), is_new, "{said}");
        assert_eq!(said.contains("(100 %)"), is_new, "{said}");
        assert!(!said.contains('\r') && !said.contains('\x1b') && !said.contains("secret"), "{said:?}");
    }
    assert_eq!(server.count("/v2"), 1);
    let other = Digest::sha256(b"other").hex();
    assert!(
        rig.fails(1, &["upgrade", "fetch", "v2", "--sha256", &other]).contains("another binary is staged")
    );
    assert!(
        rig.fails(66, &["upgrade", "fetch", "v3", "--url", &server.url("/v2"), "--json"]).contains("vouches")
    );
}

#[test]
fn what_nothing_vouches_for_is_installed_only_with_a_warning() {
    let rig = Rig::new().set("UNSAFE_SKIP_CHECKSUM", "true");
    let (content, _) = node(&rig);
    let server = Server::start(move |asked, conn| match asked.path.as_str() {
        "/v2" => content.serve(asked, conn),
        _ => conn.answer("404 Not Found", &[], b""),
    });
    let out = rig.output(&["upgrade", "fetch", "v2", "--url", &server.url("/v2")]);
    let said = stderr(&out);
    assert!(out.status.success() && said.contains("warning: event=download_unverified name=v2"), "{said}");
}

#[test]
fn an_interrupt_ends_it_at_once_and_keeps_what_has_arrived() {
    let rig = Rig::new();
    let (content, digest) = node(&rig);
    let half = content.body.len() / 2;
    let server = Server::start(move |asked, conn| {
        if asked.nth > 0 {
            return content.serve(asked, conn);
        }
        let _ = content.serve_until(asked, conn, half);
        conn.stall()
    });
    let url = server.url("/v2");
    let args = ["upgrade", "fetch", "v2", "--url", &url, "--sha256", &digest];
    let child = rig.command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let partial = rig.of("downloads/v2.partial");
    until("half of it to be there", || {
        fs::metadata(&partial).ok().filter(|meta| meta.len() == half as u64).map(drop)
    });
    send(child.id(), Signal::INT);
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), stderr(&out).contains("interrupted")), (Some(1), true), "{out:?}");
    rig.ok(&args);
    assert_eq!(server.asked()[1].range(), Some(half));
}

#[test]
fn a_staged_binary_that_has_changed_is_put_aside_and_fetched_again() {
    let rig = Rig::new();
    let (content, digest) = node(&rig);
    let server = Server::start(move |asked, conn| content.serve(asked, conn));
    let args = ["upgrade", "fetch", "v2", "--url", &server.url("/v2"), "--sha256", &digest];
    rig.ok(&args);
    let upgrades = rig.of("upgrades");
    let binary = upgrades.join("v2/bin/simnode");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut changed = fs::read(&binary).unwrap();
    changed[5000] ^= 1;
    fs::write(&binary, &changed).unwrap();
    // Not where there is no other.
    let nowhere = ["upgrade", "fetch", "v2", "--sha256", &digest];
    assert!(rig.fails(66, &nowhere).contains("not the one that was staged"));
    let out = rig.output(&args);
    assert!(out.status.success() && stderr(&out).contains("event=quarantined name=v2"), "{out:?}");
    assert_eq!(Digest::sha256(&fs::read(&binary).unwrap()).hex(), digest);
    let aside = fs::read_dir(&upgrades).unwrap().map(|e| e.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| *path != upgrades.join("v2")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(fs::read(&aside[0]).unwrap() == changed);
    assert_eq!(fs::metadata(&aside[0]).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(server.count("/v2"), 2);
}
