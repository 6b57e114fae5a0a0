//! Calls to one node over any transport.
//!
//! A connection is opened when it is needed and given up after any fault, so that no remains of a failed call are
//! mistaken for the answer to a later one. The next call connects anew.

use super::endpoint::Endpoint;
use super::fault::{Fault, RpcError};
use super::http::Http;
use super::session::{RpcReply, Session};
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
        self.call_one(method, params, self.options.max_body)
    }

    /// The same for an answer that may be as long as `max_large_body`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_large(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.call_one(method, params, self.options.max_large_body)
    }

    /// Calls `method` with each of `params`, as for [`call_large`](Self::call_large).
    ///
    /// Over IPC up to 16 requests are on the way at a time. The timeout is for each answer.
    ///
    /// # Errors
    /// The first fault.
    pub fn call_many(&mut self, method: &str, params: &[Value]) -> Result<Vec<Value>, RpcError> {
        self.call_all(method, params, self.options.max_large_body)
    }

    fn call_one(&mut self, method: &str, params: Value, limit: usize) -> Result<Value, RpcError> {
        let result = self.call_all(method, &[params], limit)?.pop();
        Ok(result.expect("one request has one result"))
    }

    fn call_all(&mut self, method: &str, params: &[Value], limit: usize) -> Result<Vec<Value>, RpcError> {
        let mut results = Vec::with_capacity(params.len());
        for part in params.chunks(WINDOW) {
            let replies =
                self.exchange(method, part, limit).map_err(|fault| fault.of(&self.endpoint, method))?;
            for reply in replies {
                results.push(reply.map_err(|fault| fault.of(&self.endpoint, method))?);
            }
        }
        Ok(results)
    }

    /// One reply for each of `params`, in their order. The link is made where there is none, and ends with a fault.
    fn exchange(&mut self, method: &str, params: &[Value], limit: usize) -> Result<Vec<RpcReply>, Fault> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.endpoint, &self.options)?,
        };
        let replies = link.exchange(method, params, self.options.timeout, limit)?;
        self.link = Some(link);
        Ok(replies)
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
    fn exchange(
        &mut self,
        method: &str,
        params: &[Value],
        timeout: Duration,
        limit: usize,
    ) -> Result<Vec<RpcReply>, Fault> {
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
