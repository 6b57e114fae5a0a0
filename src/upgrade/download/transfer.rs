//! One attempt to complete a prefix from one URL.
//!
//! The meaning of an answer for the prefix is decided by [`judge`], which is pure: a server may answer a
//! request for the rest with the rest, with the whole, or with nonsense, and only the first may be
//! appended. The tag that `If-Range` carries makes the server decide whether the file is still the same
//! one; that also holds when the prefix is from another mirror.

use super::Progress;
use super::client::Response;
use super::expected::Check;
use super::failure::{Failure, passing, refuse};
use super::partial::{Note, Partial};
use super::source::Source;
use super::url::Url;
use crate::error::Kind;
use crate::upgrade::Cancel;

/// The use of a body.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// It continues the prefix; the whole has this size.
    Rest { total: u64 },
    /// It is the whole, of this size if that is known.
    Whole { total: Option<u64> },
    /// There is none: the server does not know the prefix.
    Useless,
}

/// A file that is whole, by what the server announced.
pub(super) struct Arrived<'a> {
    /// The hashes and the signature check over all of it.
    pub(super) check: Check<'a>,
    /// Whether it is put together from several answers, or its size had not been announced.
    pub(super) uncertain: bool,
}

/// Asks a server for a URL with these headers; in tests it is the server.
pub(super) type Get<'a> = dyn Fn(&Url, &[(&str, &str)]) -> Result<Response, Failure> + 'a;

/// One attempt at one source.
pub(super) struct Transfer<'a> {
    pub(super) get: &'a Get<'a>,
    pub(super) source: &'a Source,
    pub(super) max_size: u64,
    pub(super) cancel: &'a Cancel,
}

impl Transfer<'_> {
    /// Fetches what is missing from the prefix. Each `check` sees one body from its first byte.
    ///
    /// # Errors
    /// Why it is not whole; what has arrived is kept and durable.
    pub(super) fn complete<'w>(
        &self,
        partial: &mut Partial,
        check: impl Fn() -> Check<'w>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Arrived<'w>, Failure> {
        let url = &self.source.url;
        if !partial.can_go_on() || partial.len() > self.max_size {
            partial.empty()?;
        }
        let mut seen = check();
        partial.replay(|chunk| seen.update(chunk))?;
        if partial.is_whole() {
            return Ok(Arrived { check: seen, uncertain: true });
        }
        let (mut response, resumed, total) = self.answer(partial)?;
        if !resumed {
            partial.begin(Note::new(url.to_string(), strong_etag(&response), total))?;
            seen = check();
        }
        partial.require_space(total.unwrap_or_default().saturating_sub(partial.len()))?;
        progress(Progress { url, received: partial.len(), total, trouble: None });
        let limit = total.unwrap_or(self.max_size);
        let received = response.read(self.cancel, |chunk| {
            if partial.len() + chunk.len() as u64 > limit {
                return Err(refuse(Kind::BadInput, url, format!("more than {limit} bytes")));
            }
            partial.append(chunk)?;
            seen.update(chunk);
            progress(Progress { url, received: partial.len(), total, trouble: None });
            Ok(())
        });
        partial.sync()?;
        received?;
        match total {
            Some(total) if partial.len() < total => {
                let why = format!("cut short at {} of {total} bytes", partial.len());
                Err(passing(Kind::Unreachable, url, why))
            }
            _ => {
                partial.complete()?;
                Ok(Arrived { check: seen, uncertain: resumed || total.is_none() })
            }
        }
    }

    /// The answer to the question for what is missing: whether it goes on where the prefix ends, and the size of the whole
    /// file.
    fn answer(&self, partial: &mut Partial) -> Result<(Response, bool, Option<u64>), Failure> {
        let (mut response, mut body) = self.ask(partial)?;
        if body == Body::Useless {
            partial.empty()?;
            (response, body) = self.ask(partial)?;
        }
        let (url, max_size) = (&self.source.url, self.max_size);
        let (resumed, total) = match body {
            Body::Rest { total } => (true, Some(total)),
            Body::Whole { total } => (false, total),
            Body::Useless => {
                return Err(refuse(Kind::Nonsense, url, "no such range, but none was asked for"));
            }
        };
        match total {
            Some(total) if total > max_size => {
                let why = format!("{total} bytes are more than download_max_size {max_size}");
                Err(refuse(Kind::BadInput, url, why))
            }
            total => Ok((response, resumed, total)),
        }
    }

    /// Asks for what is missing.
    fn ask(&self, partial: &Partial) -> Result<(Response, Body), Failure> {
        let url = &self.source.url;
        let prefix = partial.note().and_then(|note| {
            Some(Prefix { len: partial.len(), etag: note.etag.as_deref()?, total: note.total })
        });
        let response = match &prefix {
            Some(Prefix { len, etag, .. }) => {
                (self.get)(url, &[("range", &format!("bytes={len}-")), ("if-range", etag)])?
            }
            None => (self.get)(url, &[])?,
        };
        let body = judge(&response, prefix.as_ref(), url)?;
        if body != Body::Useless {
            response.refuse_encoding(url, self.source.form)?;
        }
        Ok((response, body))
    }
}

/// The prefix that a request was made to continue.
struct Prefix<'a> {
    len: u64,
    etag: &'a str,
    total: Option<u64>,
}

fn judge(response: &Response, prefix: Option<&Prefix<'_>>, url: &Url) -> Result<Body, Failure> {
    match (response.status, prefix) {
        (200, _) => Ok(Body::Whole { total: response.announced() }),
        (206, Some(prefix)) => {
            let range = response.header("content-range").and_then(parse_range);
            let Some((first, last, total)) = range else { return Ok(Body::Useless) };
            let length = last - first + 1;
            let is_rest = first == prefix.len && last + 1 == total;
            let is_same = prefix.total.is_none_or(|known| known == total)
                && strong_etag(response).is_none_or(|etag| etag == prefix.etag)
                && response.announced().is_none_or(|announced| announced == length);
            Ok(if is_rest && is_same { Body::Rest { total } } else { Body::Useless })
        }
        (206, None) => Err(refuse(Kind::Nonsense, url, "only a part of the file was sent")),
        (416, Some(_)) => Ok(Body::Useless),
        _ => Err(response.unexpected(url)),
    }
}

/// The parts of `bytes FIRST-LAST/TOTAL`.
fn parse_range(value: &str) -> Option<(u64, u64, u64)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((first, last, total))
}

/// The entity tag of an answer, if it is a strong one, which stands for the very bytes.
fn strong_etag(response: &Response) -> Option<String> {
    let etag = response.header("etag")?.trim();
    let inner = etag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = inner.len() <= 256 && inner.bytes().all(|b| b == 0x21 || (0x23..=0x7e).contains(&b));
    plain.then(|| etag.to_owned())
}

#[cfg(test)]
mod tests;
