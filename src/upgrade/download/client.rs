//! One HTTP request at a time, with every limit that a hostile server could overstep.
//!
//! Redirects are followed here and not by the library, which reads their bodies without a limit and
//! would go from https to http and on to credentials of another host. Each request has an agent of its
//! own: shutting that down is how a transfer ends at once, when it is cancelled or too slow, also
//! in the middle of a TLS record. A name lookup or TCP connect under way is not interrupted, but has
//! its own time limit.

use super::failure::{Failure, cancelled, passing, refuse};
use super::retry::{Fault, retry_after};
use super::roots::Roots;
use super::url::Url;
use super::{Limits, Options};
use crate::error::{Error, Kind, Result};
use crate::upgrade::Cancel;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::cell::OnceCell;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderMap, Request, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy, ProxyProtocol};

const REDIRECTS: usize = 5;
const CHUNK: usize = 64 * 1024;

/// Speaks HTTP with the limits of its options.
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
    /// What can end the transfer. Only an answer that was made up has none.
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
    pub(super) fn new(options: &Options) -> Result<Self> {
        let proxy = options.proxy.as_deref().map(|url| {
            Proxy::new(url).map_err(|e| Error::new(Kind::Config, "read download_proxy").because(e))
        });
        Ok(Client {
            limits: options.limits,
            require_https: options.require_https,
            ca_file: options.ca_file.clone(),
            proxy: proxy.transpose()?,
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
        response.refuse_encoding(url, false)?;
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
        let mut request = Request::get(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(|e| refuse(Kind::BadInput, url, e))?;
        let (answer, ended) = watched(&agent, cancel, None, || agent.run(request))?;
        match (answer, ended) {
            (_, Some(Ended::Cancelled)) => Err(cancelled(url).into()),
            (Err(e), _) => Err(self.explain(url, e)),
            (Ok(response), _) => {
                let (parts, body) = response.into_parts();
                let (status, headers) = (parts.status.as_u16(), parts.headers);
                let body = Box::new(body.into_reader());
                let (agent, limits) = (Some(agent), self.limits);
                Ok(Response { status, headers, agent, limits, body, origin: url.clone() })
            }
        }
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

    /// What a failure before the answer means for the mirror and for a person.
    fn explain(&self, url: &Url, err: ureq::Error) -> Failure {
        let text = err.to_string();
        // The TLS library is not a dependency of ours, so its errors are known by their text.
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
        match err {
            ureq::Error::Timeout(which) => {
                passing(Kind::Unreachable, url, format!("no answer in time ({which})"))
            }
            ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => {
                refuse(Kind::Nonsense, url, err)
            }
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let why = "the server hung up before the end of its answer's head, or that has no end";
                passing(Kind::Unreachable, url, why)
            }
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) => refuse(Kind::BadInput, url, err),
            other => passing(Kind::Unreachable, url, other),
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

    /// The size that the body will have, where the server says so.
    pub(super) fn announced(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Refuses a body that was encoded although we accept none. `gzip` is let pass where the file is a
    /// gzip file itself: some servers label those so, and verification has the last word.
    pub(super) fn refuse_encoding(&self, url: &Url, is_gzip: bool) -> Result<(), Failure> {
        match self.header("content-encoding").map(|e| e.trim().to_ascii_lowercase()) {
            None => Ok(()),
            Some(e) if e.is_empty() || e == "identity" => Ok(()),
            Some(e) if is_gzip && (e == "gzip" || e == "x-gzip") => Ok(()),
            Some(e) => Err(refuse(
                Kind::Nonsense,
                url,
                format!("sent encoded as {e:?} although we accept no encoding"),
            )),
        }
    }

    /// The failure that a status stands for which is not a success.
    pub(super) fn unexpected(&self, url: &Url) -> Failure {
        let status = ureq::http::StatusCode::from_u16(self.status).map(|s| s.to_string()).unwrap_or_default();
        let error = Error::new(Kind::Unreachable, "the server refuses the file").at(url).because(status);
        match self.status {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => {
                let retry_after = self.header("retry-after").and_then(|v| retry_after(v, SystemTime::now()));
                Failure::Mirror(Fault::Passing { retry_after }, error)
            }
            401 | 403 => Failure::Mirror(Fault::Lasting, error.hint("check the credentials in the URL")),
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
        let (outcome, ended) = watched(agent, cancel, Some((&received, limits)), work)?;
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

/// Does blocking work of an agent while a second thread ends it if it is cancelled or, where a
/// count of received bytes is given, too slow.
fn watched<T>(
    agent: &Agent,
    cancel: &Cancel,
    pace: Option<(&AtomicU64, Limits)>,
    work: impl FnOnce() -> T,
) -> Result<(T, Option<Ended>), Failure> {
    let no_thread = |e: io::Error| {
        Failure::Fatal(Error::new(Kind::Io, "start the thread that watches a download").because(e))
    };
    let done = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| no_thread(e.into()))?;
    thread::scope(|scope| {
        let watcher = thread::Builder::new()
            .name("download-watch".to_owned())
            .spawn_scoped(scope, || watch(agent, cancel, &done, pace))
            .map_err(no_thread)?;
        let result = {
            let _signal = Signal(&done);
            work()
        };
        let ended = watcher.join().expect("watching cannot panic");
        Ok((result, ended))
    })
}

/// Tells the watcher that the work is over, also when that panics.
struct Signal<'a>(&'a OwnedFd);

impl Drop for Signal<'_> {
    fn drop(&mut self) {
        // It fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}

fn watch(
    agent: &Agent,
    cancel: &Cancel,
    done: &OwnedFd,
    pace: Option<(&AtomicU64, Limits)>,
) -> Option<Ended> {
    let mut seen = 0;
    loop {
        let mut fds = [PollFd::new(done, PollFlags::IN), PollFd::new(cancel, PollFlags::IN)];
        let window = pace.map(|(_, limits)| timespec(limits.rate_window));
        let ready = poll(&mut fds, window.as_ref());
        if !fds[0].revents().is_empty() {
            return None;
        }
        let ended = match (ready, pace) {
            (Err(rustix::io::Errno::INTR), _) => continue,
            (Ok(0), Some((received, limits))) => {
                let now = received.load(Ordering::Relaxed);
                let least = limits.min_rate as f64 * limits.rate_window.as_secs_f64();
                if (now - seen) as f64 >= least {
                    seen = now;
                    continue;
                }
                Ended::TooSlow
            }
            _ => Ended::Cancelled,
        };
        agent.clone().shutdown();
        return Some(ended);
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
