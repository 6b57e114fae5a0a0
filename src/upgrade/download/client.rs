//! One HTTP request at a time, with every limit that a hostile server could overstep.
//!
//! Redirects are followed here and not by the library, which reads their bodies without a limit and
//! would go from https to http and on to credentials of another host. Each request has an agent of its
//! own: shutting that down is how a transfer ends at once, when it is cancelled or too slow, also
//! in the middle of a TLS record.

use super::Limits;
use super::failure::{Failure, cancelled, passing, refuse};
use super::retry::{Fault, retry_after};
use super::retry_after::LONGEST;
use super::roots::Roots;
use super::source::Form;
use super::url::Url;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::printable::foreign;
use crate::time::show_duration;
use crate::upgrade::Cancel;
use crate::upgrade::cancel::BLIND;
use crate::upgrade::counters::DOWNLOAD_BYTES;
use crate::url::split_login;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::cell::OnceCell;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderMap, Request, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy, ProxyProtocol};

const REDIRECTS: usize = 5;
const CHUNK: usize = 64 * 1024;
const PROXY_LOGIN: &str = "name user and password in download_proxy: http://USER:PASSWORD@HOST:PORT";

/// An HTTP client with the limits of its options.
pub(super) struct Client {
    limits: Limits,
    require_https: bool,
    ca_file: Option<PathBuf>,
    proxy: Option<Proxy>,
    roots: OnceCell<Roots>,
}

/// An answer whose body is still to be read.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The token that ends the transfer. Only an answer that was made up has none.
    agent: Option<Agent>,
    limits: Limits,
    body: Box<dyn Read>,
    origin: Url,
}

/// Why a request was ended from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Cancelled,
    TooSlow,
}

impl Client {
    pub(super) fn new(config: &Config, limits: Limits) -> Result<Self> {
        let proxy = config.download_proxy.as_ref().map(|url| Proxy::new(url.as_str())).transpose();
        Ok(Client {
            limits,
            require_https: config.daemon_download_require_https,
            ca_file: config.download_ca_file.clone(),
            proxy: proxy.map_err(|e| Error::new(Kind::Config, "read download_proxy").because(e))?,
            roots: OnceCell::new(),
        })
    }

    /// Asks for a URL and follows redirects. Any status but a redirect is an answer.
    pub(super) fn get(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        cancel: &Cancel,
    ) -> Result<Response, Failure> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.ask(&at, headers, cancel)?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let nonsense = |why: String| refuse(Kind::Nonsense, url, format!("redirect refused: {why}"));
            let location =
                response.header("location").ok_or_else(|| nonsense("it leads nowhere".to_owned()))?;
            let next = at.join(location).map_err(nonsense)?;
            if at.is_https() && !next.is_https() {
                return Err(nonsense(format!("it leads from https to {next}")));
            }
            at = next;
        }
        Err(refuse(Kind::Nonsense, url, format!("more than {REDIRECTS} redirects")))
    }

    /// Fetches a small file whole; `None` if the server has none.
    pub(super) fn document(
        &self,
        url: &Url,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut response = self.get(url, &[], cancel)?;
        match response.status {
            200 => {}
            404 | 410 => return Ok(None),
            _ => return Err(response.unexpected(url)),
        }
        response.refuse_encoding(url, Form::Bare)?;
        let mut bytes = Vec::new();
        let large = || refuse(Kind::BadInput, url, format!("larger than {limit} bytes"));
        response.read(cancel, |chunk| {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(large());
            }
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        match response.announced() {
            Some(size) if size != bytes.len() as u64 => {
                Err(passing(Kind::Unreachable, url, format!("cut short at {} of {size} bytes", bytes.len())))
            }
            _ => Ok(Some(bytes)),
        }
    }

    fn ask(&self, url: &Url, headers: &[(&str, &str)], cancel: &Cancel) -> Result<Response, Failure> {
        if self.require_https && !url.is_https() {
            return Err(refuse(Kind::Config, url, "daemon_download_require_https forbids http"));
        }
        let agent = self.agent(url)?;
        let (bare, login) = split_login(url.as_str());
        let mut request = Request::get(bare).header(header::ACCEPT_ENCODING, "identity");
        if let Some(login) = login {
            request = request.header(header::AUTHORIZATION, login);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(|e| refuse(Kind::BadInput, url, e))?;
        let Some(answer) = run(&agent, request, cancel)? else { return Err(cancelled(url).into()) };
        let (parts, body) = answer.map_err(|e| self.explain(url, e))?.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        let body = Box::new(body.into_reader());
        let (agent, limits) = (Some(agent), self.limits);
        Ok(Response { status, headers, agent, limits, body, origin: url.clone() })
    }

    fn agent(&self, url: &Url) -> Result<Agent, Failure> {
        let limits = self.limits;
        let mut config = Agent::config_builder()
            .proxy(self.proxy.clone())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("wemixvisor/", env!("CARGO_PKG_VERSION")))
            // A head that is longer than the buffer never ends. A lower limit would count what follows
            // an interim answer (103 Early Hints) in the same packet as a part of the head.
            .max_response_header_size(CHUNK)
            .input_buffer_size(CHUNK)
            .output_buffer_size(16 * 1024)
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.first_byte))
            .timeout_recv_response(Some(limits.first_byte));
        if url.is_https() || self.proxy.as_ref().is_some_and(|p| p.protocol() == ProxyProtocol::Https) {
            let roots = self.roots().map_err(Failure::Fatal)?;
            config = config.tls_config(TlsConfig::builder().root_certs(roots.certs.clone()).build());
        }
        Ok(config.build().into())
    }

    fn roots(&self) -> Result<&Roots> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots);
        }
        let roots = Roots::load(self.ca_file.as_deref())?;
        Ok(self.roots.get_or_init(|| roots))
    }

    /// The meaning of a failure before the answer, for the mirror and for a person.
    fn explain(&self, url: &Url, err: ureq::Error) -> Failure {
        let text = foreign(&err.to_string());
        let lasting = |what: &str, hint: &str| {
            let error = Error::new(Kind::Unreachable, what).at(url).because(text.clone()).hint(hint);
            Failure::Mirror(Fault::Lasting, error)
        };
        // The TLS library is not a dependency of ours, so its errors are known by their text.
        if text.contains("ProtocolVersion") || text.contains("peer is incompatible") {
            let hint = "have it speak TLS 1.2 or newer, or use another server";
            return lasting("the server's TLS is too old", hint);
        }
        // Nothing but the status of the answer is kept of it.
        if matches!(err, ureq::Error::ConnectProxyFailed(_)) && text.contains("responded 407") {
            return lasting("download_proxy wants a password", PROXY_LOGIN);
        }
        if let Some(certificate) = text.split_once("invalid peer certificate: ").map(|(_, why)| why) {
            let hint = if certificate.contains("UnknownIssuer") {
                let origin = self.roots.get().map_or("none", |r| r.origin.as_str());
                format!("the trusted authorities were {origin}; name another file with download_ca_file")
            } else if certificate.contains("expired") || certificate.contains("not valid yet") {
                "renew it, or set this machine's clock".to_owned()
            } else {
                "use a name that it is valid for, or replace it".to_owned()
            };
            let what = "the server's certificate is not accepted";
            let error =
                Error::new(Kind::Unreachable, what).at(url).because(certificate.to_owned()).hint(hint);
            return Failure::Mirror(Fault::Lasting, error);
        }
        let failure = match err {
            ureq::Error::Timeout(which) => {
                passing(Kind::Unreachable, url, format!("no answer in time ({which})"))
            }
            ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => {
                refuse(Kind::Nonsense, url, text)
            }
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let why = "the server hung up before the end of its answer's head, or that has no end";
                passing(Kind::Unreachable, url, why)
            }
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) => refuse(Kind::BadInput, url, text),
            // The operating system's own keep their number.
            ureq::Error::Io(e) => passing(Kind::Unreachable, url, e),
            _ => passing(Kind::Unreachable, url, text),
        };
        match (failure, &self.proxy) {
            (Failure::Mirror(fault, e), Some(proxy)) => {
                let (host, port) = (proxy.host(), proxy.port());
                let way = format!("it was asked for through download_proxy {host}:{port}");
                Failure::Mirror(fault, e.hint(way))
            }
            (failure, _) => failure,
        }
    }
}

impl Response {
    /// An answer that no server has given.
    #[cfg(test)]
    pub(super) fn made_up(status: u16, headers: &[(&'static str, String)], body: Box<dyn Read>) -> Self {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let origin = "http://made.up/".parse().unwrap();
        Response { status, headers, agent: None, limits: Limits::default(), body, origin }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The size of the body, where the server announces it.
    pub(super) fn announced(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Refuses a body that was encoded although we accept none. `gzip` passes where the file itself is a gzip file: some
    /// servers label those so, and the verification decides.
    pub(super) fn refuse_encoding(&self, url: &Url, form: Form) -> Result<(), Failure> {
        let encoding = self.header("content-encoding").unwrap_or_default().trim().to_ascii_lowercase();
        match (encoding.as_str(), form) {
            ("" | "identity", _) | ("gzip" | "x-gzip", Form::Gzip | Form::TarGzip) => Ok(()),
            (other, _) => {
                let why = format!("sent encoded as {:?} although we accept no encoding", foreign(other));
                Err(refuse(Kind::Nonsense, url, why))
            }
        }
    }

    /// The failure that a status stands for which is not a success.
    pub(super) fn unexpected(&self, url: &Url) -> Failure {
        let status = ureq::http::StatusCode::from_u16(self.status).map(|s| s.to_string()).unwrap_or_default();
        let error = Error::new(Kind::Unreachable, "the server refuses the file").at(url).because(status);
        match self.status {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => {
                let retry_after = self.header("retry-after").and_then(|v| retry_after(v, SystemTime::now()));
                let error = match retry_after.filter(|asked| *asked > self.limits.retry.longest_asked) {
                    Some(asked) if asked > LONGEST => error.hint("it asks to wait for more than a day"),
                    Some(asked) => error.hint(format!("it asks to wait for {}", show_duration(asked))),
                    None => error,
                };
                Failure::Mirror(Fault::Passing { retry_after }, error)
            }
            401 | 403 => Failure::Mirror(Fault::Lasting, error.hint("check the credentials in the URL")),
            407 => Failure::Mirror(Fault::Lasting, error.hint(PROXY_LOGIN)),
            _ => Failure::Mirror(Fault::Lasting, error.hint("check the URL")),
        }
    }

    /// Reads the body to its end and hands it on in pieces. It ends early if it is cancelled or falls
    /// below the minimum rate.
    pub(super) fn read(
        &mut self,
        cancel: &Cancel,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (limits, origin) = (self.limits, &self.origin);
        let received = AtomicU64::new(0);
        let reader = &mut self.body;
        let mut chunk = vec![0; CHUNK];
        let mut work = || loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    received.fetch_add(n as u64, Ordering::Relaxed);
                    DOWNLOAD_BYTES.add(n as u64);
                    take(&chunk[..n])?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let why = format!("cut short after {} bytes: {e}", received.load(Ordering::Relaxed));
                    return Err(passing(Kind::Unreachable, origin, why));
                }
            }
        };
        let Some(agent) = &self.agent else { return work() };
        let (outcome, ended) = watched(agent, cancel, &received, limits, work)?;
        // A connection that we shut down may look like one that has come to its end.
        match ended {
            Some(Ended::Cancelled) => Err(cancelled(origin).into()),
            Some(Ended::TooSlow) => {
                let why = format!("slower than {} bytes per second", limits.min_rate);
                Err(passing(Kind::Unreachable, origin, why))
            }
            None => outcome,
        }
    }
}

/// The server's answer, or `None` if that is not waited for any longer because of `cancel`.
///
/// The request is made by a thread of its own. A name lookup or TCP connect cannot be interrupted; one that
/// is under way then ends by its own time limit, and its result is dropped.
fn run(agent: &Agent, request: Request<()>, cancel: &Cancel) -> Result<Option<Answer>, Failure> {
    let done = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| no_thread(e.into()))?);
    let (sender, receiver) = mpsc::sync_channel(1);
    let (asking, signal) = (agent.clone(), Arc::clone(&done));
    let ask = move || {
        let _signal = Signal(&signal);
        // After a cancellation there is no receiver.
        let _ = sender.send(asking.run(request));
    };
    thread::Builder::new().name("download-ask".to_owned()).spawn(ask).map_err(no_thread)?;
    match watch(agent, cancel, &done, None) {
        Some(_) => Ok(None),
        None => Ok(Some(receiver.recv().expect("it signals after it has sent"))),
    }
}

type Answer = Result<ureq::http::Response<Body>, ureq::Error>;

fn no_thread(e: io::Error) -> Failure {
    Failure::Fatal(Error::new(Kind::Io, "start a thread of a download").because(e))
}

/// Does blocking work of an agent while a second thread ends it if it is cancelled or too slow, by the
/// count of received bytes.
fn watched<T>(
    agent: &Agent,
    cancel: &Cancel,
    received: &AtomicU64,
    limits: Limits,
    work: impl FnOnce() -> T,
) -> Result<(T, Option<Ended>), Failure> {
    let done = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| no_thread(e.into()))?;
    thread::scope(|scope| {
        let watcher = thread::Builder::new()
            .name("download-watch".to_owned())
            .spawn_scoped(scope, || watch(agent, cancel, &done, Some(Pace::new(received, limits))))
            .map_err(no_thread)?;
        let result = {
            let _signal = Signal(&done);
            work()
        };
        let ended = watcher.join().expect("watching cannot panic");
        Ok((result, ended))
    })
}

/// Signals the watcher that the work is over, also when that panics.
struct Signal<'a>(&'a OwnedFd);

impl Drop for Signal<'_> {
    fn drop(&mut self) {
        // It fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}

fn watch(agent: &Agent, cancel: &Cancel, done: &OwnedFd, mut pace: Option<Pace<'_>>) -> Option<Ended> {
    loop {
        let mut fds = [PollFd::new(done, PollFlags::IN), PollFd::new(cancel, PollFlags::IN)];
        let wait = pace.as_ref().and_then(|pace| Timespec::try_from(pace.step()).ok());
        let ready = poll(&mut fds, wait.as_ref());
        if !fds[0].revents().is_empty() {
            return None;
        }
        let ended = match (ready, &mut pace) {
            (Err(rustix::io::Errno::INTR), _) => continue,
            // The machine has no memory for it.
            (Err(_), _) => {
                thread::sleep(BLIND);
                continue;
            }
            (Ok(0), Some(pace)) => match pace.keeps_up() {
                true => continue,
                false => Ended::TooSlow,
            },
            _ => Ended::Cancelled,
        };
        agent.clone().shutdown();
        return Some(ended);
    }
}

/// Whether enough arrives, over every stretch of the window's length: it is measured in steps, so that a
/// transfer that stalls is not found out an almost whole window later.
struct Pace<'a> {
    received: &'a AtomicU64,
    limits: Limits,
    /// How much had arrived at the end of each of the last steps; the oldest is at `next`.
    counts: [u64; Pace::STEPS as usize],
    next: usize,
    is_full: bool,
}

impl<'a> Pace<'a> {
    const STEPS: u32 = 6;

    fn new(received: &'a AtomicU64, limits: Limits) -> Self {
        let counts = [received.load(Ordering::Relaxed); Pace::STEPS as usize];
        Pace { received, limits, counts, next: 0, is_full: false }
    }

    /// The length of a step.
    fn step(&self) -> Duration {
        self.limits.rate_window / Pace::STEPS
    }

    /// Looks at the end of a step whether enough has arrived.
    fn keeps_up(&mut self) -> bool {
        let now = self.received.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut self.counts[self.next], now);
        self.next = (self.next + 1) % self.counts.len();
        // The count from before the first step is that of a whole window ago for the first time now.
        self.is_full |= self.next == 0;
        let least = self.limits.min_rate as f64 * self.limits.rate_window.as_secs_f64();
        !self.is_full || (now - before) as f64 >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use ureq::config::Config;
    use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
    use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

    /// A name lookup that reports that it has begun, and takes until the other end is dropped.
    #[derive(Debug)]
    struct Endless(Sender<()>, Mutex<Receiver<()>>);

    impl Resolver for Endless {
        fn resolve(
            &self,
            _: &ureq::http::Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            self.0.send(()).unwrap();
            let _ = self.1.lock().unwrap().recv();
            Err(ureq::Error::HostNotFound)
        }
    }

    #[test]
    fn a_lookup_that_does_not_end_is_not_waited_for() {
        let (begun, has_begun) = channel();
        let (end, ends) = channel();
        let resolver = Endless(begun, Mutex::new(ends));
        let agent = Agent::with_parts(Config::default(), DefaultConnector::default(), resolver);
        let cancel = Cancel::new().unwrap();
        let token = cancel.clone();
        let canceller = thread::spawn(move || {
            has_begun.recv().unwrap();
            token.cancel();
        });
        let request = Request::get("http://made.up/").body(()).unwrap();
        assert!(run(&agent, request, &cancel).unwrap().is_none());
        canceller.join().unwrap();
        drop(end);
    }

    #[test]
    fn too_little_is_found_out_within_a_window_of_the_last_bytes() {
        let limits = Limits { min_rate: 10, rate_window: Duration::from_secs(30), ..Limits::default() };
        let received = AtomicU64::new(0);
        // So many bytes in each step of 5 seconds; 300 in six of them are just enough.
        let slow_at = |arrives: &[u64]| {
            received.store(0, Ordering::Relaxed);
            let mut pace = Pace::new(&received, limits);
            arrives.iter().position(|bytes| {
                received.fetch_add(*bytes, Ordering::Relaxed);
                !pace.keeps_up()
            })
        };
        assert_eq!(slow_at(&[50; 100]), None);
        assert_eq!(slow_at(&[0; 100]), Some(5));
        assert_eq!(slow_at(&[0, 0, 0, 0, 0, 300, 0, 0, 0, 0, 0, 299]), Some(11));
        assert_eq!(slow_at(&[&[1_000_000; 20][..], &[0; 20]].concat()), Some(25));
        assert_eq!(slow_at(&[&[50; 7][..], &[49; 20]].concat()), Some(7));
    }
}
