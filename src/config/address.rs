//! Addresses of the node and of other servers, checked for their form but not contacted.

use super::value::{Raw, Read, Setting};
use crate::url::{check, redact};
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use ureq::http::Uri;

/// An `http://` or `https://` URL with a host; `host:port` is read as `http://host:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

/// Where a node's JSON-RPC can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcAddress {
    /// HTTP or HTTPS.
    Http(HttpUrl),
    /// WebSocket: the `ws://` URL.
    Ws(String),
    /// A unix socket.
    Ipc(PathBuf),
}

impl HttpUrl {
    /// The URL as the HTTP client takes it, with a password if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let shown = redact(text);
        check(&full, &["http", "https"])
            .map_err(|why| format!("{shown:?} is not host:port or an http(s) URL: {why}"))?;
        if !text.contains("://") && !has_port(&full) {
            return Err(format!("{shown:?} has no port: write it as {shown}:8545 or as a URL"));
        }
        Ok(HttpUrl(full))
    }
}

fn has_port(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.port_u16().is_some())
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RpcAddress::Http(url) => write!(f, "{url}"),
            RpcAddress::Ws(url) => f.write_str(&redact(url)),
            RpcAddress::Ipc(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Setting for HttpUrl {
    const KIND: &'static str = "URL";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(HttpUrl::parse)
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }
}

impl Setting for RpcAddress {
    const KIND: &'static str = "address";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| {
            if text.starts_with('/') {
                Ok(RpcAddress::Ipc(PathBuf::from(text)))
            } else if text.starts_with("ws://") || text.starts_with("wss://") {
                check(text, &["ws"]).map_err(|why| format!("{:?}: {why}", redact(text)))?;
                Ok(RpcAddress::Ws(text.to_owned()))
            } else {
                HttpUrl::parse(text)
                    .map(RpcAddress::Http)
                    .map_err(|e| format!("{e}; a socket is /path/to.ipc"))
            }
        })
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(text: &str) -> Result<RpcAddress, String> {
        RpcAddress::read(&Raw::text(text), Path::new("/")).map_err(|f| f[0].what.clone())
    }

    #[test]
    fn every_form_of_an_rpc_address() {
        let http = |url: &str| Ok(RpcAddress::Http(HttpUrl(url.to_owned())));
        assert_eq!(rpc("localhost:8545"), http("http://localhost:8545"));
        assert_eq!(rpc("[::1]:8545"), http("http://[::1]:8545"));
        assert_eq!(rpc("https://rpc.example.org/key"), http("https://rpc.example.org/key"));
        assert_eq!(rpc("ws://x:1"), Ok(RpcAddress::Ws("ws://x:1".to_owned())));
        assert_eq!(rpc("/data/geth.ipc"), Ok(RpcAddress::Ipc("/data/geth.ipc".into())));
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for bad in [
            "",
            "localhost",
            "8545",
            "localhost:",
            "localhost:99999",
            "localhost:x",
            "http://",
            "http:///x",
            "ftp://a:1",
            "http://a b",
            "ws://",
            "wss://x:1",
            "host:1:2",
            "data/geth.ipc",
            "http://[::1",
        ] {
            assert!(rpc(bad).is_err(), "{bad:?} gave {:?}", rpc(bad));
        }
    }

    #[test]
    fn a_password_is_used_but_never_shown() {
        let url = HttpUrl::parse("http://me:secret@proxy:3128").unwrap();
        assert_eq!(url.as_str(), "http://me:secret@proxy:3128");
        assert_eq!(url.to_string(), "http://***@proxy:3128");
        assert!(!format!("{url:?}").contains("secret"));
        for bad in ["http://me:secret@proxy:x", "me:secret@proxy", "ws://me:secret@"] {
            assert!(!rpc(bad).unwrap_err().contains("secret"), "{bad}");
        }
    }
}
