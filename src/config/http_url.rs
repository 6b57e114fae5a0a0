//! Addresses of HTTP servers, checked for their form but not contacted.

use super::value::{Raw, Read, Setting};
use crate::url::{check, redact};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use ureq::http::Uri;

/// An `http://` or `https://` URL with a host; `host:port` is read as `http://host:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The URL as the HTTP client takes it, with a password if it has one.
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

impl Setting for HttpUrl {
    const KIND: &'static str = "URL";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(HttpUrl::parse)
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port_that_exists() {
        for (text, url) in [
            ("proxy:3128", "http://proxy:3128"),
            ("[::1]:1", "http://[::1]:1"),
            ("https://a/b", "https://a/b"),
        ] {
            assert_eq!(HttpUrl::parse(text), Ok(HttpUrl(url.to_owned())));
        }
        for bad in
            ["", "a", "a:", "a:99999", "http://[]:1", "ftp://a:1", "ws://a:1", "WS://a:1", "/data/geth.ipc"]
        {
            assert!(HttpUrl::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_used_but_never_shown() {
        let url = HttpUrl::parse("http://me:secret@proxy:3128").unwrap();
        assert_eq!(url.as_str(), "http://me:secret@proxy:3128");
        assert_eq!(url.to_string(), "http://***@proxy:3128");
        assert!(!format!("{url:?}").contains("secret"));
        for bad in ["http://me:secret@proxy:x", "me:secret@proxy", "ftp://me:secret@"] {
            assert!(!HttpUrl::parse(bad).unwrap_err().contains("secret"), "{bad}");
        }
    }
}
