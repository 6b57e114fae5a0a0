//! Metrics and health for monitoring systems: a small HTTP server (`metrics_address`), and a file (`metrics_textfile`).
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the metrics, in Prometheus' text format |
//! | `/healthz` | 200 where nothing needs the operator; 503 and one line for each need |
//! | `/readyz` | 200 where the node is in service as far as its rules let it be; 503 otherwise |
//!
//! The loop is asked as by the control socket, at most once a second however many clients there are, and never waits for one
//! of them. There are few clients at a time, each with a deadline for its whole request and answer. A port that is taken is
//! tried again: it must not keep the node down.
//!
//! Each connection carries one request. There is no TLS and no password; `metrics_address` is a loopback address unless the
//! operator allows another one.

use super::control::{Call, Reply, Request, Status};
use super::metrics;
use super::threads::{Timed, serve_each, start_thread};
use crate::config::Config;
use crate::error::Result;
use crate::printable::printable;
use crossbeam_channel::{Sender, bounded};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Clients served at the same time; further ones are turned away.
const CLIENTS: usize = 8;
/// How long a client may take for request and answer, and the loop for the snapshot.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: u64 = 8 * 1024;
/// A snapshot that is no older is good enough.
const FRESH: Duration = Duration::from_secs(1);
/// How often the file is written, and a port that is taken is tried.
const EVERY: Duration = Duration::from_secs(15);

/// Starts the server and the writer of the file, where they are configured.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start(config: &Config, calls: Sender<Call>) -> Result<()> {
    let source = Arc::new(Source { calls, last: Mutex::new(None) });
    if let Some(path) = config.metrics_textfile.clone() {
        let source = Arc::clone(&source);
        start_thread("metrics-file", move || keep_file(&path, &source))?;
    }
    if let Some(address) = config.metrics_address {
        start_thread("metrics", move || {
            let listener = bind(address);
            let answers = move |stream| answer(&stream, &source);
            serve_each("metrics-peer", CLIENTS, listener.incoming(), || false, answers);
        })?;
    }
    Ok(())
}

fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                log::info!("event=metrics_served address={address}");
                return listener;
            }
            Err(e) => log::error!("event=metrics_not_served address={address} {e}; again in {EVERY:?}"),
        }
        thread::sleep(EVERY);
    }
}

/// Snapshots of the loop.
struct Source {
    calls: Sender<Call>,
    last: Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Source {
    /// A fresh snapshot; none where the loop is busy.
    fn status(&self) -> Option<Arc<Status>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, status)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Some(Arc::clone(status));
        }
        let (reply_to, reply) = bounded(1);
        self.calls.send((Request::Status, reply_to)).ok()?;
        let Ok(Reply::Status(status)) = reply.recv_timeout(PATIENCE / 2) else { return None };
        let status = Arc::new(status);
        *last = Some((Instant::now(), Arc::clone(&status)));
        Some(status)
    }
}

/// Replaces the file again and again. A trouble with it is logged once.
fn keep_file(path: &Path, source: &Source) {
    let mut is_in_trouble = false;
    loop {
        if let Some(status) = source.status() {
            let written = replace(path, &metrics::render(&status));
            if let Some(e) = written.as_ref().err().filter(|_| !is_in_trouble) {
                log::error!("event=metrics_not_written path={} {e}", path.display());
            }
            is_in_trouble = written.is_err();
        }
        thread::sleep(EVERY);
    }
}

/// Atomic for the collector, which is another user. After a power cut the next one is written anyway, so nothing is synced.
fn replace(path: &Path, page: &str) -> io::Result<()> {
    let beside = path.with_extension("prom.new");
    // A remnant, or a link that another user has put there: neither is written through.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    file.write_all(page.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(&beside, path)
}

fn answer(stream: &TcpStream, source: &Source) -> io::Result<()> {
    let mut stream = Timed::new(stream, PATIENCE);
    let request = request(&mut stream)?;
    let (code, body) = respond(&request, || source.status());
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if request.starts_with("HEAD ") { Ok(()) } else { stream.write_all(body.as_bytes()) }
}

/// The first line of a request. It is read to its end, since a connection with unread bytes is reset when it is closed.
fn request(stream: &mut impl Read) -> io::Result<String> {
    let mut lines = BufReader::new(stream.take(LONGEST_REQUEST)).lines();
    let first = lines.next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()))?;
    for line in lines {
        if line?.is_empty() {
            return Ok(first);
        }
    }
    Ok(String::new())
}

/// The answer to a request: status code and body.
fn respond(request: &str, status: impl FnOnce() -> Option<Arc<Status>>) -> (&'static str, String) {
    const OK: &str = "200 OK";
    const UNAVAILABLE: &str = "503 Service Unavailable";
    let (method, path) = match request.split(' ').collect::<Vec<_>>()[..] {
        [method, path, version] if version.starts_with("HTTP/1.") => (method, path),
        _ => return ("400 Bad Request", "this is no request\n".to_owned()),
    };
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed", "there is only GET\n".to_owned());
    }
    let path = path.split('?').next().unwrap_or_default();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return ("404 Not Found", "there are /metrics, /healthz and /readyz\n".to_owned());
    }
    let Some(status) = status() else { return (UNAVAILABLE, "the supervisor is busy\n".to_owned()) };
    let line = || printable(&status.view.line()) + "\n";
    match path {
        "/metrics" => (OK, metrics::render(&status)),
        "/readyz" => (if status.view.ready { OK } else { UNAVAILABLE }, line()),
        _ => {
            let needs = status.view.needs.iter().map(|need| format!("{}: {}", need.name, need.text));
            let problems = status.problems.iter().map(|problem| format!("plan_problem: {problem}"));
            let needs: String = needs.chain(problems).map(|need| printable(&need) + "\n").collect();
            if needs.is_empty() { (OK, line()) } else { (UNAVAILABLE, needs) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::machine::{Machine, Policy, Record, SymptomView, Target, Version};
    use crossbeam_channel::{Receiver, unbounded};

    fn status() -> Status {
        let record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        Status {
            running: true,
            pid: None,
            supervisor_version: None,
            home: "/h".into(),
            view: Machine::at_rest(Policy::default(), record, Vec::new()).view(),
            rpc_trouble: None,
            problems: Vec::new(),
            counters: metrics::Counters::default(),
            receipt: None,
        }
    }

    fn source() -> (Source, Receiver<Call>) {
        let (calls, called) = unbounded();
        (Source { calls, last: Mutex::new(None) }, called)
    }

    #[test]
    fn each_path_has_its_answer() {
        let ask = |request: &str, status: Option<Status>| respond(request, || status.map(Arc::new));
        let code = |request: &str| ask(request, Some(status())).0;
        assert_eq!(code("GET /metrics HTTP/1.1"), "200 OK");
        assert_eq!(code("HEAD /metrics?x=1 HTTP/1.0"), "200 OK");
        assert_eq!(code("POST /metrics HTTP/1.1"), "405 Method Not Allowed");
        assert_eq!(code("GET / HTTP/1.1"), "404 Not Found");
        assert_eq!(request(&mut [b'x'; 9000].as_slice()).unwrap(), "");
        for nonsense in ["", "GET", "GET /metrics", "GET  /metrics HTTP/1.1", "GET /metrics SMTP"] {
            assert_eq!(code(nonsense), "400 Bad Request", "{nonsense:?}");
        }
        assert_eq!(
            ask("GET /metrics HTTP/1.1", None),
            ("503 Service Unavailable", "the supervisor is busy\n".into())
        );
        assert_eq!(code("GET /readyz HTTP/1.1"), "503 Service Unavailable");
        assert_eq!(ask("GET /healthz HTTP/1.1", Some(status())), ("200 OK", "stopped, genesis\n".into()));
        let mut ill = status();
        ill.view.needs = vec![SymptomView { name: "halted".into(), text: "a\nb".into() }];
        ill.problems = vec!["p is no plan".into()];
        let told = ("503 Service Unavailable", "halted: a\\nb\nplan_problem: p is no plan\n".into());
        assert_eq!(ask("GET /healthz HTTP/1.1", Some(ill)), told);
    }

    #[test]
    fn clients_are_served_and_the_loop_is_asked_once_a_second() {
        let (source, called) = source();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let source = Arc::new(source);
        let get = |request: &[u8]| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        thread::scope(|scope| {
            scope.spawn(|| listener.incoming().take(2).for_each(|s| answer(&s.unwrap(), &source).unwrap()));
            scope.spawn(|| called.recv().unwrap().1.send(Reply::Status(status())).unwrap());
            let page = get(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{page}");
            assert!(
                page.contains("\r\n\r\n# HELP wemixvisor_up ") && page.contains("\nwemixvisor_up 1\n"),
                "{page}"
            );
            let (_, length) = page.split_once("Content-Length: ").unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            assert_eq!(page.split_once("\r\n\r\n").unwrap().1.len(), length);
            // Within the second the same snapshot does: none waits to be answered.
            let head = get(b"HEAD /metrics HTTP/1.1\n\n");
            assert!(
                head.contains(&format!("Content-Length: {length}\r\n")) && head.ends_with("\r\n\r\n"),
                "{head}"
            );
        });
        assert!(called.is_empty());
    }

    #[test]
    fn a_client_has_a_deadline_however_slowly_it_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        client.write_all(b"G").unwrap();
        let mut timed = Timed::new(&stream, Duration::from_millis(20));
        let end = request(&mut timed).unwrap_err().kind();
        assert!(matches!(end, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{end}");
        client.write_all(b"G").unwrap();
        assert_eq!(timed.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(timed.write(b"x").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_file_is_replaced_whole_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.prom"), dir.path().join("other"));
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("a.prom.new")).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        replace(&path, "1\n").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(&other).unwrap()),
            ("1\n".into(), "other".into())
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
