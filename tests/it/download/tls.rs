//! TLS, proxies and credentials: who is spoken to, and who gets to know what.
//!
//! The certificates in `tests/data/tls` were made once with openssl and are valid from 2020 to 2120: an
//! authority whose key is gone, and what it signed for this machine, for another name, and for a
//! time that has passed, each with its key. They protect nothing.

use super::{Rig, program, slow_to_go_on};
use crate::rig::server::{Content, Server};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wemixvisor::Kind;

const GOOD: &[u8] = include_bytes!("../../data/tls/good.pem");
const EXPIRED: &[u8] = include_bytes!("../../data/tls/expired.pem");
const ELSEWHERE: &[u8] = include_bytes!("../../data/tls/elsewhere.pem");

fn authority() -> Option<PathBuf> {
    Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem")))
}

fn good() -> Server {
    let content = Content::new(program());
    Server::tls(GOOD, move |asked, conn| content.serve(asked, conn))
}

fn rig(url: String) -> Rig {
    let mut rig = Rig::new([url]);
    rig.config.download_ca_file = authority();
    rig.config.daemon_download_require_https = true;
    rig
}

#[test]
fn a_certificate_of_the_configured_authority_is_accepted() {
    let server = good();
    rig(server.url("/node")).install(&program());
    assert_eq!(server.count("/node"), 1);
}

#[test]
fn an_unknown_authority_is_refused_and_the_trusted_ones_are_named() {
    let server = good();
    let mut rig = rig(server.url("/node"));
    // Some other certificate.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/elsewhere.pem");
    rig.config.download_ca_file = Some(other.into());
    let err = rig.refuse();
    assert_eq!(err.kind(), Kind::Unreachable);
    let text = err.to_string();
    assert!(text.contains("the trusted authorities were download_ca_file") && text.contains(other), "{text}");
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn expired_and_foreign_certificates_are_refused_at_once() {
    for (pem, says) in [(EXPIRED, "clock"), (ELSEWHERE, "name")] {
        let server = Server::tls(pem, |_, conn| conn.answer("200 OK", &[], &program()));
        let err = rig(server.url("/node")).refuse();
        assert_eq!(err.kind(), Kind::Unreachable);
        assert!(err.to_string().contains(says), "{err}");
        assert_eq!(server.asked().len(), 0);
    }
}

#[test]
fn https_never_becomes_http() {
    let plain = Server::start(|_, conn| conn.answer("200 OK", &[], &program()));
    let target = plain.url("/node");
    let secure = Server::tls(GOOD, move |_, conn| conn.answer("302 Found", &[("Location", &target)], b""));
    let mut rig = rig(secure.url("/node"));
    rig.config.daemon_download_require_https = false;
    let err = rig.refuse();
    assert_eq!(err.kind(), Kind::Nonsense);
    assert!(err.to_string().contains("https"), "{err}");
    // Nor when https was only a stop on the way.
    let stop = secure.url("/node");
    let first = Server::start(move |_, conn| conn.answer("302 Found", &[("Location", &stop)], b""));
    rig.urls.default = vec![first.url("/node")];
    assert_eq!(rig.refuse().kind(), Kind::Nonsense);
    assert_eq!(plain.asked().len(), 0);
}

#[test]
fn http_may_become_https_unless_https_is_required() {
    let secure = good();
    let stop = secure.url("/node");
    let first = Server::start(move |_, conn| conn.answer("302 Found", &[("Location", &stop)], b""));
    let mut rig = rig(first.url("/node"));
    assert_eq!(rig.refuse().kind(), Kind::Config);
    assert_eq!(first.asked().len(), 0);
    rig.config.daemon_download_require_https = false;
    rig.install(&program());
}

#[test]
fn a_server_without_tls_and_one_that_breaks_it_off() {
    let plain = Server::start(|_, conn| conn.answer("200 OK", &[], &program()));
    let err = rig(plain.url("/node").replace("http:", "https:")).refuse();
    assert_eq!(err.kind(), Kind::Unreachable);
    let content = Content::new(program());
    let cutting = Server::tls(GOOD, move |asked, conn| match asked.nth {
        0 => content.serve_until(asked, conn, 30_000),
        _ => content.serve(asked, conn),
    });
    rig(cutting.url("/node")).install(&program());
    assert_eq!(cutting.asked()[1].range(), Some(30_000));
}

#[test]
fn a_server_that_does_not_answer_the_greeting_is_not_waited_for() {
    // It accepts connections by its backlog, and never looks at them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = rig(format!("https://{}/node", listener.local_addr().unwrap()));
    rig.limits.connect = Duration::from_millis(250);
    let err = rig.refuse();
    assert_eq!(err.kind(), Kind::Unreachable);
    assert!(err.to_string().contains("no answer in time"), "{err}");
}

#[test]
fn a_record_that_trickles_in_is_too_slow() {
    // The records of the real server pass through a proxy that slows them down. No read of the client
    // ends within a record, so nothing but the watch over the whole can see how slow it is.
    let content = Content::new(program());
    let server = Server::tls(GOOD, move |asked, conn| content.serve(asked, conn));
    let to = server.addr();
    let slow = Server::start(move |asked, conn| {
        conn.raw("HTTP/1.1 200 OK\r\n\r\n")?;
        if asked.nth > 0 {
            conn.tunnel(to)
        } else {
            conn.tunnel_slowly(to, 8 * 1024, Duration::from_millis(5))
        }
    });
    let mut rig = rig(server.url("/node"));
    rig.limits = slow_to_go_on();
    rig.config.download_proxy = super::proxy(slow.url(""));
    rig.install(&program());
    assert!(slow.asked().len() > 1);
}

#[test]
fn a_proxy_is_used_where_one_is_configured() {
    for server in [good(), Server::start(|asked, conn| Content::new(program()).serve(asked, conn))] {
        let to = server.addr();
        let proxy = Server::start(move |asked, conn| {
            assert_eq!((asked.method.as_str(), asked.path.clone()), ("CONNECT", to.to_string()));
            conn.raw("HTTP/1.1 200 Connected\r\n\r\n")?;
            conn.tunnel(to)
        });
        let mut rig = rig(server.url("/node"));
        rig.config.daemon_download_require_https = false;
        rig.config.download_proxy = super::proxy(proxy.url(""));
        rig.install(&program());
        assert_eq!((proxy.asked().len(), server.count("/node")), (1, 1));
    }
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let server = good();
    let proxy = Server::start(|_, conn| conn.answer("407 Proxy Authentication Required", &[], b""));
    let mut rig = rig(server.url("/node"));
    rig.config.download_proxy = super::proxy(proxy.url(""));
    let err = rig.refuse();
    let text = err.to_string();
    assert!(text.contains("download_proxy wants a password") && text.contains("USER:PASSWORD"), "{text}");
    assert_eq!((proxy.asked().len(), server.asked().len()), (1, 0), "it is not tried again");
    let proxy = Server::start(|_, conn| conn.answer("502 Bad Gateway", &[], b""));
    rig.config.download_proxy = super::proxy(proxy.url(""));
    rig.limits.retry.attempts = 1;
    let text = rig.refuse().to_string();
    assert!(text.contains("CONNECT") && text.contains(&format!("download_proxy {}", proxy.addr())), "{text}");
}

#[test]
fn a_server_that_speaks_only_old_tls_is_named_and_not_asked_again() {
    // Its answer to a client of TLS 1.2 or 1.3: the fatal alert protocol_version (RFC 5246 section 7.2).
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/node", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        client.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).unwrap();
        // Until the client hangs up.
        let _ = client.read_to_end(&mut Vec::new());
        listener
    });
    let text = rig(url).refuse().to_string();
    assert!(text.contains("the server's TLS is too old") && text.contains("TLS 1.2 or newer"), "{text}");
    let listener = served.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn credentials_go_to_their_server_alone() {
    let elsewhere = Arc::new(Server::start(|asked, conn| {
        assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, None));
        Content::new(program()).serve(asked, conn)
    }));
    let target = elsewhere.url("/file");
    let server = Server::start(move |asked, conn| {
        assert_eq!(asked.header("authorization"), Some("Basic dXNlcjpzZWNAcmV0"));
        conn.answer("302 Found", &[("Location", &target), ("Set-Cookie", "a=b")], b"")
    });
    let staged = {
        let mut rig = Rig::new([server.url("/node?token=sec%40ret").replace("//", "//user:sec%40ret@")]);
        rig.limits.retry.attempts = 1;
        rig.install(&program())
    };
    assert_eq!(elsewhere.asked().len(), 1);
    assert!(!staged.manifest().source.contains("ret"), "{}", staged.manifest().source);
    let missing = Server::start(|_, conn| conn.answer("403 Forbidden", &[], b""));
    let err = Rig::new([missing.url("/node").replace("//", "//user:secret@")]).refuse();
    assert!(!err.to_string().contains("secret"), "{err}");
}
