//! An http or https URL: its parts that matter to a download, and how it is shown.
//!
//! The form is checked by the URI parser of the HTTP client. What is here is only what that parser
//! lacks: references relative to a URL (RFC 3986 section 5), parameters, and the file's name. A user and
//! password in a URL, and its query, go to that server alone, never to a log or a redirect.

use crate::url::{check, decode, redact};
use std::fmt;
use std::str::FromStr;

/// A checked, absolute `http://` or `https://` URL without a fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// The index at which the authority ends and the path begins.
    path: usize,
    /// The index at which the path ends and the query begins.
    query: usize,
}

impl Url {
    /// The URL as it is requested, with its credentials.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// The last segment of the path, decoded: what the file is called. May be empty.
    pub fn file_name(&self) -> String {
        let path = &self.text[self.path..self.query];
        decode(path.rsplit('/').next().unwrap_or_default())
    }

    /// The URL of a file beside this one, whose name has `suffix` at its end. The query stays.
    pub fn beside(&self, suffix: &str) -> Self {
        let mut url = self.clone();
        url.text.insert_str(self.query, suffix);
        url.query += suffix.len();
        url
    }

    /// Takes the values of a parameter out of the query, decoded.
    pub fn take_parameter(&self, name: &str) -> (Self, Vec<String>) {
        let mut values = Vec::new();
        let rest: Vec<&str> = self.text[self.query..]
            .trim_start_matches('?')
            .split('&')
            .filter(|pair| match pair.split_once('=') {
                Some((key, value)) if key == name => {
                    values.push(decode(value));
                    false
                }
                _ => !pair.is_empty(),
            })
            .collect();
        if values.is_empty() {
            return (self.clone(), values);
        }
        let mut url = self.clone();
        url.text.truncate(self.query);
        if !rest.is_empty() {
            url.text.push('?');
            url.text.push_str(&rest.join("&"));
        }
        (url, values)
    }

    /// The target of a reference that stands at this URL, as in a redirect.
    ///
    /// # Errors
    /// The problem with the reference.
    pub fn join(&self, reference: &str) -> Result<Self, String> {
        let reference = reference.trim().split('#').next().unwrap_or_default();
        let scheme = if self.is_https() { "https" } else { "http" };
        if has_scheme(reference) {
            return reference.parse();
        }
        if reference.starts_with("//") {
            return format!("{scheme}:{reference}").parse();
        }
        let authority = &self.text[scheme.len() + 3..self.path];
        let host = authority.rsplit('@').next().unwrap_or_default();
        let base = &self.text[self.path..self.query];
        let (path, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
        let path = match path {
            "" => base.to_owned(),
            absolute if absolute.starts_with('/') => remove_dots(absolute),
            relative => {
                let directory = &base[..base.rfind('/').map_or(0, |at| at + 1)];
                remove_dots(&format!("/{}{relative}", directory.trim_start_matches('/')))
            }
        };
        format!("{scheme}://{host}{path}{query}").parse()
    }
}

fn has_scheme(reference: &str) -> bool {
    let scheme = reference.split(':').next().unwrap_or_default();
    scheme.len() < reference.len()
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Resolves `.` and `..` in an absolute path; `..` never leads above the root.
fn remove_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                if last {
                    out.push("");
                }
            }
            other => out.push(other),
        }
    }
    format!("/{}", out.join("/"))
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().split('#').next().unwrap_or_default();
        let bad = |why: String| format!("{:?} is not an http or https URL: {why}", redact(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no scheme".to_owned()))?;
        let mut text = format!("{}://{rest}", scheme.to_ascii_lowercase());
        check(&text, &["http", "https"]).map_err(bad)?;
        let path = scheme.len() + 3 + rest.find(['/', '?']).unwrap_or(rest.len());
        if !text[path..].starts_with('/') {
            // Without a path nothing can stand beside it.
            text.insert(path, '/');
        }
        let query = text[path..].find('?').map_or(text.len(), |at| path + at);
        Ok(Url { text, path, query })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.text))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_http_with_a_host_is_a_url() {
        for bad in [
            "",
            "x",
            "ftp://a/x",
            "http://",
            "http:///x",
            "https://:80/",
            "http://a:x/",
            "http://a b/",
            "file:///x",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
        assert_eq!(url(" HTTPS://a/x#part ").as_str(), "https://a/x");
        assert_eq!(url("http://a").as_str(), "http://a/");
        assert_eq!(url("http://a?q=1").as_str(), "http://a/?q=1");
        assert_eq!(url("http://[::1]:80/x").file_name(), "x");
    }

    #[test]
    fn the_file_is_named_by_the_last_segment() {
        assert_eq!(url("https://a/v1/gwemix.tar.gz?sig=a/b").file_name(), "gwemix.tar.gz");
        assert_eq!(url("https://a/my%20node%2").file_name(), "my node%2");
        assert_eq!(url("https://a/").file_name(), "");
        assert_eq!(url("https://a/x?y=1").beside(".sha256").as_str(), "https://a/x.sha256?y=1");
        assert_eq!(url("https://a/x?y=1").beside(".sha256").file_name(), "x.sha256");
    }

    #[test]
    fn a_parameter_is_taken_and_the_others_stay() {
        let take = |text: &str| {
            let (rest, values) = url(text).take_parameter("checksum");
            (rest.as_str().to_owned(), values)
        };
        assert_eq!(take("http://a/x?checksum=1"), ("http://a/x".into(), vec!["1".into()]));
        assert_eq!(
            take("http://a/x?b=2&checksum=sha256%3Aff&c&checksum="),
            ("http://a/x?b=2&c".into(), vec!["sha256:ff".into(), String::new()])
        );
        assert_eq!(take("http://a/x?&b"), ("http://a/x?&b".into(), vec![]));
    }

    #[test]
    fn references_as_in_the_specification() {
        let base = url("http://u:p@a:1/b/c/d;p?q");
        for (reference, want) in [
            ("g", "http://a:1/b/c/g"),
            ("./g", "http://a:1/b/c/g"),
            ("g/", "http://a:1/b/c/g/"),
            ("/g", "http://a:1/g"),
            ("//g", "http://g/"),
            ("?y", "http://a:1/b/c/d;p?y"),
            ("g?y#s", "http://a:1/b/c/g?y"),
            ("", "http://a:1/b/c/d;p"),
            (".", "http://a:1/b/c/"),
            ("..", "http://a:1/b/"),
            ("../g", "http://a:1/b/g"),
            ("../../../g", "http://a:1/g"),
            ("/./g", "http://a:1/g"),
            ("./g:h", "http://a:1/b/c/g:h"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().as_str(), want, "{reference:?}");
        }
        for bad in ["ftp://a/x", "javascript:1", "http://", "//", "http://a\r\nb/"] {
            assert!(base.join(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(url("https://user:secret@a/x").to_string(), "https://***@a/x");
        assert_eq!(url("https://a/x?sig=secret").to_string(), "https://a/x?***");
        assert_eq!(format!("{:?}", url("https://secret@a")), "\"https://***@a/\"");
        assert!(!"https://user:secret@:x/".parse::<Url>().unwrap_err().contains("secret"));
    }
}
