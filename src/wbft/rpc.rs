//! One connection to a node, whatever the transport: calls in, results or faults out.
//!
//! A connection is opened when it is needed and given up after any fault, so that nothing of a call
//! that failed can be mistaken for the answer to a later one. The next call connects anew.

use super::endpoint::Endpoint;
use super::fault::{Fault, RpcError};
use super::http::Http;
use super::session::{Reply, Session};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The requests on the way at a time in [`Connection::call_many`].
const WINDOW: usize = 16;

/// Limits of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The time for one call, from connecting to the last byte of the answer. Default: 2 s.
    pub timeout: Duration,
    /// The largest answer, in bytes. Default: 64 KiB.
    pub max_body: usize,
    /// The largest answer in bytes for what grows with the number of validators and peers: headers,
    /// lists, notifications. Default: 512 KiB, enough for an epoch block of 3,000 validators.
    pub max_large_body: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { timeout: Duration::from_secs(2), max_body: 64 << 10, max_large_body: 512 << 10 }
    }
}

/// A connection to one [`Endpoint`], made when first used and remade after a fault.
///
/// ```no_run
/// use serde_json::json;
/// use wemixvisor::wbft::{Connection, Endpoint, Options};
///
/// let endpoint: Endpoint = "localhost:8545".parse()?;
/// let mut node = Connection::new(&endpoint, Options::default());
/// let version = node.call("web3_clientVersion", json!([]))?;
/// println!("{version}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    pub(super) options: Options,
    link: Option<Link>,
}

#[derive(Debug)]
enum Link {
    Http(Http),
    Stream(Session),
}

impl Connection {
    /// A connection that is not made yet.
    #[must_use]
    pub fn new(endpoint: &Endpoint, options: Options) -> Self {
        Connection { endpoint: endpoint.clone(), options, link: None }
    }

    /// The address of the node.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its limits.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Calls `method` and returns its result; `params` is a JSON array.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.call_limited(method, params, self.options.max_body)
    }

    /// The same for an answer that may be as long as `max_large_body`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_large(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.call_limited(method, params, self.options.max_large_body)
    }

    /// Calls `method` with each of `params`, as for [`call_large`](Self::call_large).
    ///
    /// Over IPC up to 16 requests are on the way at a time. The timeout is for each answer.
    ///
    /// # Errors
    /// The first fault.
    pub fn call_many(&mut self, method: &str, params: &[Value]) -> Result<Vec<Value>, RpcError> {
        let limit = self.options.max_large_body;
        let mut results = Vec::with_capacity(params.len());
        for part in params.chunks(WINDOW) {
            for reply in self.guarded(method, |link, timeout| link.call_all(method, part, timeout, limit))? {
                results.push(reply.map_err(|fault| fault.of(&self.endpoint, method))?);
            }
        }
        Ok(results)
    }

    fn call_limited(&mut self, method: &str, params: Value, limit: usize) -> Result<Value, RpcError> {
        let reply = self.guarded(method, |link, timeout| {
            let mut replies = link.call_all(method, std::slice::from_ref(&params), timeout, limit)?;
            Ok(replies.pop().expect("one request has one reply"))
        })?;
        reply.map_err(|fault| fault.of(&self.endpoint, method))
    }

    /// Does `work` on the link, making one first if there is none; a fault ends the link.
    fn guarded<T>(
        &mut self,
        method: &str,
        work: impl FnOnce(&mut Link, Duration) -> Result<T, Fault>,
    ) -> Result<T, RpcError> {
        let done = || {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => Link::open(&self.endpoint, &self.options)?,
            };
            let result = work(&mut link, self.options.timeout)?;
            self.link = Some(link);
            Ok(result)
        };
        done().map_err(|fault: Fault| fault.of(&self.endpoint, method))
    }
}

impl Link {
    fn open(endpoint: &Endpoint, options: &Options) -> Result<Link, Fault> {
        Ok(match endpoint {
            Endpoint::Http(url) => Link::Http(Http::new(url, options.timeout)),
            Endpoint::Ipc(path) => Link::Stream(Session::connect(path)?),
        })
    }

    /// One reply for each of `params`, in their order.
    fn call_all(
        &mut self,
        method: &str,
        params: &[Value],
        timeout: Duration,
        limit: usize,
    ) -> Result<Vec<Reply>, Fault> {
        match self {
            Link::Http(http) => params.iter().map(|p| http.call(method, p, limit)).collect(),
            Link::Stream(session) => {
                let late = || Fault::Timeout(timeout);
                let deadline = Instant::now() + timeout;
                let mut ids = Vec::with_capacity(params.len());
                for p in params {
                    ids.push(session.request(method, p, deadline)?.ok_or_else(late)?);
                }
                ids.into_iter()
                    .map(|id| session.reply(id, Instant::now() + timeout, limit)?.ok_or_else(late))
                    .collect()
            }
        }
    }
}
