//! Where a node's JSON-RPC can be had, as operators write it.
//!
//! URLs are checked with the parser of the HTTP client, so that what passes here is what it accepts.
//! Nothing is contacted and no name is looked up.

use crate::url::{NO_TLS, redact};
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
/// let all = Endpoint::parse_list("/data/node.ipc, localhost:8545").unwrap();
/// assert_eq!(all.len(), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// HTTP or HTTPS: a full URL.
    Http(String),
    /// WebSocket: a full `ws://` URL. There is no TLS for it: use HTTPS.
    Ws(String),
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
    /// Reads a comma-separated list, to be tried in order. Blanks around commas do not count.
    ///
    /// # Errors
    /// If the list or one of its elements is empty, or an element is no endpoint.
    pub fn parse_list(text: &str) -> Result<Vec<Endpoint>, BadEndpoint> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// The name of the transport: `http`, `https`, `ws` or `ipc`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self {
            Endpoint::Http(url) if url.starts_with("https:") => "https",
            Endpoint::Http(_) => "http",
            Endpoint::Ws(_) => "ws",
            Endpoint::Ipc(_) => "ipc",
        }
    }

    /// Whether the node can send notifications over it, such as new heads.
    #[must_use]
    pub fn can_subscribe(&self) -> bool {
        !matches!(self, Endpoint::Http(_))
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |why: &str| BadEndpoint { text: redact(text), why: why.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.starts_with('/') {
            return Ok(Endpoint::Ipc(text.into()));
        }
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|e| bad(&format!("{e}")))?;
        if uri.host().is_none_or(|host| host.is_empty() || host == "[]") {
            return Err(bad("it has no host"));
        }
        let authority = uri.authority().map_or("", |a| a.as_str());
        let after_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
        match after_host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => {
                return Err(bad("the port is not a number up to 65535"));
            }
            None if !text.contains("://") => return Err(bad("it has no port: write host:8545 or a URL")),
            _ => {}
        }
        match uri.scheme_str() {
            Some("http" | "https") => Ok(Endpoint::Http(url)),
            Some("ws") => Ok(Endpoint::Ws(url)),
            Some("wss") => Err(bad(NO_TLS)),
            _ => Err(bad("the scheme is none of http, https, ws")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Http(url) | Endpoint::Ws(url) => f.write_str(&redact(url)),
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
            "{:?} is not an RPC address: {}; write host:port, http(s)://…, ws://… or /path/to.ipc",
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
            ("ws://x:1/path", "ws://x:1/path", "ws"),
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
            ("wss://a:1", "no TLS"),
            ("http://a b", ""),
            ("node.ipc", "no port"),
            ("data/node.ipc", ""),
            ("host:1:2", ""),
            ("http://[::1", ""),
            ("http://[]:1", "no host"),
        ] {
            let message = bad.parse::<Endpoint>().map(|e| e.to_string()).expect_err(bad).to_string();
            assert!(message.contains(why), "{message}");
        }
        let message = "ftp://me:secret@a:1".parse::<Endpoint>().unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn a_list_keeps_its_order_and_has_no_holes() {
        let list = Endpoint::parse_list("/a.ipc , localhost:1,ws://b").unwrap();
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["/a.ipc", "http://localhost:1", "ws://b"]
        );
        for bad in ["", ",", "/a,", "/a,,/b"] {
            assert!(Endpoint::parse_list(bad).is_err(), "{bad:?}");
        }
    }
}
