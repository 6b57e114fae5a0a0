//! Whatever a server sends, memory stays small: measured in a process of its own.

use super::{Rig, elf};
use crate::archives::{self, gzip};
use crate::rig::server::{Content, Server};
use std::fs;
use std::process::Command;
use wemixvisor::Digest;
use wemixvisor::inside::download::{Downloader, Order};

const LIMIT_KIB: u64 = 16 * 1024;
const CHILD: &str = "WEMIXVISOR_TEST_FETCH";

/// The child's part: fetches what its parent serves, one after the other, and tells what it cost.
#[test]
fn child() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    for order in orders.lines() {
        let (url, digest) = order.split_once(' ').unwrap();
        let mut rig = Rig::new([url]);
        rig.config.download_max_size = wemixvisor::config::Size(1 << 30);
        rig.limits.retry.attempts = 2;
        rig.config.download_ca_file =
            Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem").into());
        rig.upgrade.digest = digest.parse().ok();
        let order = Order { home: &rig.home, upgrade: &rig.upgrade, urls: &rig.urls };
        let fetched = Downloader::new(&rig.config, rig.limits, rig.retry_after.clone()).unwrap().fetch(
            &order,
            &mut |_| {},
            &rig.cancel,
        );
        println!(
            "{url}: {}",
            fetched.map_or_else(|e| e.to_string(), |f| format!("{} bytes", f.manifest.size))
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}

#[test]
fn stays_below_16_mib() {
    let body = elf(std::env::consts::ARCH, 48 << 20);
    let tgz = gzip(&archives::Tape::new().file("bin/node", &body).end());
    let long_name = gzip(&archives::Tape::new().long(&"x".repeat(64 << 20)).file("node", b"x").end());
    let digests = [&body, &tgz, &long_name].map(|bytes| Digest::sha256(bytes).to_string());
    let files = [body, tgz, long_name].map(Content::new);
    let script = move |asked: &crate::rig::server::Asked, conn: &mut crate::rig::server::Conn| match asked
        .path
        .as_str()
    {
        "/node" => files[0].serve(asked, conn),
        "/node.tgz" => files[1].serve(asked, conn),
        "/long.tgz" => files[2].serve(asked, conn),
        "/head" => {
            conn.raw("HTTP/1.1 200 OK\r\nX: ")?;
            loop {
                conn.raw([b'x'; 64 * 1024])?;
            }
        }
        "/chunk" => {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            conn.raw(format!("1;{}", "x".repeat(64 << 20)))
        }
        "/lines.sha256" => conn.answer("200 OK", &[], "\n".repeat(1 << 20).as_bytes()),
        "/listed.sha256" => {
            conn.head("200 OK", &[])?;
            loop {
                conn.raw([b'x'; 64 * 1024])?;
            }
        }
        _ => conn.answer("404 Not Found", &[], b""),
    };
    let script = std::sync::Arc::new(script);
    let again = std::sync::Arc::clone(&script);
    let plain = Server::start(move |asked, conn| script(asked, conn));
    let pem = include_bytes!("../../data/tls/good.pem");
    let secure = Server::tls(pem, move |asked, conn| again(asked, conn));
    let mut orders = Vec::new();
    for (path, digest) in [
        ("/node", &digests[0]),
        ("/node.tgz", &digests[1]),
        ("/long.tgz", &digests[2]),
        ("/head", &digests[0]),
        ("/chunk", &digests[0]),
        ("/listed", &"none".to_owned()),
        ("/lines", &"none".to_owned()),
    ] {
        orders.push(format!("{} {digest}", plain.url(path)));
    }
    orders.push(format!("{} {}", secure.url("/node"), digests[0]));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "download::memory::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, orders.join("\n"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    let peak = said
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    assert!(peak.unwrap() <= LIMIT_KIB, "{said}");
    for good in ["/node: ", "/node.tgz: "] {
        assert!(said.contains(&format!("{good}{} bytes", 48 << 20)), "{said}");
    }
    assert!(
        said.contains("header extension") && said.contains("has no end") && said.contains("larger than"),
        "{said}"
    );
}
