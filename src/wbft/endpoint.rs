//! The address of a node's JSON-RPC, as operators write it.
//!
//! URLs are checked with the parser of the HTTP client, which therefore accepts every one that passes here. Nothing is
//! contacted and no name is looked up.

use crate::url::{check, redact};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use ureq::http::Uri;

/// One place to reach a node at, and by which transport.
///
/// ```
/// use wemixvisor::wbft::Endpoint;
/// assert_eq!("localhost:8545".parse::<Endpoint>().unwrap(), Endpoint::Http("http://localhost:8545".into()));
/// assert_eq!("/data/node.ipc".parse::<Endpoint>().unwrap(), Endpoint::Ipc("/data/node.ipc".into()));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// HTTP or HTTPS: a full URL.
    Http(String),
    /// A unix socket that speaks newline-delimited JSON.
    Ipc(PathBuf),
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEndpoint {
    text: String,
    why: String,
}

impl Endpoint {
    /// The name of the transport: `http`, `https` or `ipc`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self {
            Endpoint::Http(url) if url.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:")) => "https",
            Endpoint::Http(_) => "http",
            Endpoint::Ipc(_) => "ipc",
        }
    }

    /// Whether the node can send notifications over it, such as new heads.
    #[must_use]
    pub fn can_subscribe(&self) -> bool {
        matches!(self, Endpoint::Ipc(_))
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |why: &str| BadEndpoint { text: redact(text), why: why.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.contains('\0') {
            return Err(bad("a NUL byte cannot be part of it"));
        }
        if text.starts_with('/') {
            return Ok(Endpoint::Ipc(text.into()));
        }
        let is_url = text.contains("://");
        let url = if is_url { text.to_owned() } else { format!("http://{text}") };
        check(&url, &["http", "https"]).map_err(|why| bad(&why))?;
        let uri: Uri = url.parse().map_err(|e| bad(&format!("{e}")))?;
        if !is_url && uri.port_u16().is_none() {
            return Err(bad("it has no port"));
        }
        Ok(Endpoint::Http(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Http(url) => f.write_str(&redact(url)),
            Endpoint::Ipc(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an RPC address: {}; write host:port, http(s)://… or /path/to.ipc",
            self.text, self.why
        )
    }
}

impl std::error::Error for BadEndpoint {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_and_its_transport() {
        for (text, shown, transport) in [
            ("localhost:8545", "http://localhost:8545", "http"),
            ("127.0.0.1:1", "http://127.0.0.1:1", "http"),
            ("[::1]:8545", "http://[::1]:8545", "http"),
            ("http://node.example", "http://node.example", "http"),
            ("https://rpc.example.org/key", "https://rpc.example.org/key", "https"),
            ("HTTPS://a", "HTTPS://a", "https"),
            ("/data/a b.ipc", "/data/a b.ipc", "ipc"),
            ("http://me:secret@x:1/p", "http://***@x:1/p", "http"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.transport()), (shown, transport));
            assert_eq!(endpoint.can_subscribe(), !transport.starts_with("http"));
            assert!(!format!("{endpoint:?}").contains("secret"));
        }
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "empty"),
            ("localhost", "no port"),
            ("localhost:", "not a number"),
            ("localhost:99999", "not a number"),
            ("localhost:x", ""),
            ("http://", ""),
            ("http:///x", ""),
            ("ftp://a:1", "scheme"),
            ("tcp://a:1", "scheme"),
            ("ws://a:1", "no WebSocket"),
            ("wss://a:1", "no WebSocket"),
            ("/data/a\0.ipc", "NUL"),
            ("8545", "no port"),
            ("http://a b", ""),
            ("node.ipc", "no port"),
            ("data/node.ipc", ""),
            ("host:1:2", ""),
            ("http://[::1", ""),
            ("http://[]:1", "no host"),
            ("[]:1", "no host"),
            ("ws://", ""),
        ] {
            let message = bad.parse::<Endpoint>().map(|e| e.to_string()).expect_err(bad).to_string();
            assert!(message.contains(why), "{message}");
        }
        for bad in ["ftp://me:secret@a:1", "http://me:secret@proxy:x", "me:secret@proxy", "ws://me:secret@"] {
            let message = bad.parse::<Endpoint>().unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
