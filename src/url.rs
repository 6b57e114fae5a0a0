//! URLs: checks that need no connection, and the part that may be shown.
//!
//! The parser is the one of the HTTP client, so that what passes here is what it will accept.

use crate::printable::foreign;
use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use ureq::http::Uri;

/// Why `ws://` is no address of a node.
const NO_WEBSOCKET: &str = "there is no WebSocket: the node's IPC socket pushes each new head as well, and over http it is asked for";

/// Checks scheme, host and port of a URL.
///
/// # Errors
/// The problem with a URL.
pub(crate) fn check(url: &str, schemes: &[&str]) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    match uri.scheme_str() {
        Some(scheme) if schemes.contains(&scheme) => {}
        Some("ws" | "wss") => return Err(NO_WEBSOCKET.to_owned()),
        Some(scheme) => return Err(format!("the scheme {scheme} is not one of {}", schemes.join(", "))),
        None => return Err("it has no scheme".to_owned()),
    }
    if uri.host().is_none_or(|host| host.is_empty() || host == "[]") {
        return Err("it has no host".to_owned());
    }
    let authority = uri.authority().map_or("", |a| a.as_str());
    let after_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    match after_host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => {
            // It is not shown: without a host behind it, it is a password.
            Err("its port is not a number up to 65535".to_owned())
        }
        _ => Ok(()),
    }
}

/// The URL without user, password and query, short enough for a log and in characters that act on no terminal. A user alone
/// may be a token, and a query may hold one, or the signature of a redirect.
///
/// A text that was mistyped is no URL yet, so everything before an `@` goes, wherever that stands, and everything after a
/// `?`. Of a text with a `?` before an `@` nothing is left: either may belong to a password.
pub(crate) fn redact(url: &str) -> String {
    let is_scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    let scheme = url.find("://").filter(|at| is_scheme(&url[..*at])).map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(scheme);
    let (login, rest) = match (rest.rfind('@'), rest.find('?')) {
        (Some(at), Some(mark)) if mark < at => ("***", ""),
        (Some(at), _) => ("***@", &rest[at + 1..]),
        (None, _) => ("", rest),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) if !query.is_empty() => (path, "?***"),
        _ => (rest, ""),
    };
    // Of a URL whose host is missing: a user, and a password where a port should be.
    let authority = path.split(['/', '#']).next().unwrap_or_default();
    let port =
        authority.rsplit(']').next().and_then(|rest| rest.rsplit_once(':')).map_or("", |(_, port)| port);
    if !scheme.is_empty() && port.bytes().any(|b| !b.is_ascii_digit()) {
        return format!("{scheme}***");
    }
    foreign(&format!("{scheme}{login}{path}{query}"))
}

/// The URL without credentials, and these as the `Authorization` header has them (RFC 7617): what is
/// escaped in a URL, as `@` and `/` in a password must be, is not escaped there.
pub(crate) fn split_login(url: &str) -> (String, Option<String>) {
    let (scheme, authority, tail) = parts(url);
    let Some((login, host)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let login = BASE64.encode(format!("{}:{}", decode(user), decode(password)));
    (format!("{scheme}{host}{tail}"), Some(format!("Basic {login}")))
}

/// The part before the authority, with the slashes; the authority; and the rest.
fn parts(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    (scheme, authority, tail)
}

/// Decodes `%41` and the like; what is not such an escape stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%');
        match escape.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(crate::digest::decode_hex) {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_a_host_and_a_port_that_exists() {
        for good in ["https://a", "https://a:1/x?y=z#f", "http://[::1]:80/", "https://u:p@a/x"] {
            assert_eq!(check(good, &["http", "https"]), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "/x",
            "https://",
            "https://:1",
            "http://[]:1",
            "https://a:",
            "https://a:70000",
            "ftp://a",
            "http://a b",
        ] {
            assert!(check(bad, &["http", "https"]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_cut_out() {
        assert_eq!(redact("https://u:p@a/x"), "https://***@a/x");
        assert_eq!(redact("https://token@a?x=/"), "https://***@a?***");
        assert_eq!(redact("https://a/x?sig=secret"), "https://a/x?***");
        assert_eq!(redact("https://a/x"), "https://a/x");
        assert_eq!(redact("https://a/x?"), "https://a/x?");
        assert_eq!(redact("u:p@a:1"), "***@a:1");
        // As they are mistyped: a mark or a slash in the password, a scheme that is none.
        for secret in [
            "https://me:se/cret@a/x",
            "https://me:se?cret@a/x",
            "https://me:se#cret@a/x",
            "https:/me:se@cret@a/x",
            "https:me:secret@a/x",
            "me:se://cret@a/x",
            "https//me:secret@a/x",
            "http://a/x?sig=se@cret",
            "http://me:secret",
        ] {
            let shown = redact(secret);
            assert!(shown.contains("***") && !shown.contains("se") && !shown.contains("cret"), "{shown}");
        }
        assert_eq!(redact(&format!("http://a/\x1b{}", "x".repeat(60_000))).chars().count(), 201);
    }

    #[test]
    fn credentials_are_unescaped_for_the_header() {
        for (text, bare, login) in [
            ("https://a/x@y", "https://a/x@y", None),
            ("https://user:secret@a:1/x?y", "https://a:1/x?y", Some("Basic dXNlcjpzZWNyZXQ=")),
            ("http://u:p%40ss%2f%3a@[::1]/", "http://[::1]/", Some("Basic dTpwQHNzLzo=")),
            ("http://token@a", "http://a", Some("Basic dG9rZW46")),
        ] {
            assert_eq!(split_login(text), (bare.to_owned(), login.map(ToOwned::to_owned)));
        }
    }
}
