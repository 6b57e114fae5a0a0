//! Fetching an upgrade's binary: from which place, verified by what, and out of which archive.
//!
//! ```text
//! Order ─▶ source: where it may be ─▶ retry, retry_after: which of these, and when ─▶ expected: its digests and signature
//!       ─▶ transfer: the missing bytes, into a prefix on disk ─▶ archive: the one file ─▶ Fetched
//! ```
//!
//! [`Downloader::fetch`] blocks, on the thread of a job, until the file is there and verified, no source
//! is left, or it is cancelled. What has arrived outlives all of these. Nothing here is executable:
//! [`Fetched::stage`] hands the verified file to [`install`], which gives it its mode and place.
//!
//! Architecture invariant: this module knows nothing of the node and decides nothing about upgrades, and
//! its memory does not grow with what a server sends.

pub mod archive;
mod checksum;
mod client;
mod expected;
mod failure;
mod limits;
mod partial;
pub mod progress;
pub mod retry;
mod retry_after;
mod roots;
mod signature;
mod source;
mod transfer;
mod url;
mod zip;

pub use limits::Limits;
pub use progress::Progress;
pub use retry_after::RetryAfter;
pub use source::{Form, Source, candidates, has_source, platform};
pub use url::Url;

use crate::config::{Config, DownloadUrls};
use crate::digest::Digest;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::force::Force;
use crate::home::{Home, Manifest, binary, durable, trust};
use crate::machine::{Places, Target, Upgrade};
use crate::name::Name;
use crate::time::show_duration;
use crate::upgrade::Cancel;
use crate::upgrade::install::{self, Staged};
use archive::Packed;
use client::Client;
use expected::Expected;
use failure::{Failure, cancelled, refuse};
use partial::{Claim, Partial};
use retry::{Fault, Schedule};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use transfer::Transfer;

/// Removes the remains of downloads that will not be continued.
pub(super) fn sweep(home: &Home) {
    partial::sweep(&home.downloads(), SystemTime::now());
}

/// The largest document that `info` may lead to.
const DOCUMENT: u64 = 256 * 1024;
/// An attempt that got this many bytes further than any before is not counted against its mirror.
const ADVANCE: u64 = 64 * 1024;

/// The binary to fetch, and for which home.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The home, whose `downloads/` is written to.
    pub home: &'a Home,
    /// The upgrade: its name, the digest that it pins, and where its binaries are.
    pub upgrade: &'a Upgrade,
    /// Their other sources.
    pub urls: &'a DownloadUrls,
}

/// A binary that was fetched and verified. It is not executable, and while this value lives no other
/// download of the same upgrade can touch it.
#[derive(Debug)]
pub struct Fetched {
    /// Its path below `downloads/`.
    pub path: PathBuf,
    /// The facts to keep with it when it is staged. Its source is the URL from which the download was completed.
    pub manifest: Manifest,
    name: Name,
    _claim: Claim,
}

/// Fetches binaries.
pub struct Downloader {
    config: Config,
    limits: Limits,
    client: Client,
    retry_after: RetryAfter,
}

impl Downloader {
    /// A downloader with this configuration, which asks no server again before the time for which it was told to wait.
    ///
    /// # Errors
    /// [`Kind::Config`] if they contradict each other, or the proxy is no URL.
    pub fn new(config: &Config, limits: Limits, retry_after: RetryAfter) -> Result<Self> {
        if config.unsafe_skip_checksum && config.validator_mode {
            return Err(Error::new(Kind::Config, "unsafe_skip_checksum is refused for a validator")
                .hint("pin a digest, or put a checksum file beside the binary"));
        }
        let client = Client::new(config, limits)?;
        Ok(Downloader { config: config.clone(), limits, client, retry_after })
    }

    /// Fetches and verifies the binary of an upgrade. The caller checks whether downloads are allowed at all.
    ///
    /// `progress` is called for every piece that arrives and every attempt that fails, on this thread.
    ///
    /// # Errors
    /// Names every source that was tried and what was wrong with it: [`Kind::Verification`] if one served
    /// something that nothing vouches for, [`Kind::BadInput`] if a verified file has not the one binary for
    /// this machine in it, [`Kind::Unreachable`] or [`Kind::Nonsense`] otherwise. [`Kind::Busy`] if
    /// another download of this upgrade is under way; [`Kind::Config`] if there is no source;
    /// [`Kind::Io`] if the disk is full or fails; [`Kind::Failed`] if it was cancelled.
    pub fn fetch(
        &self,
        order: &Order<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &Cancel,
    ) -> Result<Fetched> {
        let sources = self.sources(order, cancel)?;
        let dir = order.home.downloads();
        durable::mkdir(&dir)?;
        trust::check_inside(order.home, &dir)?;
        let claim = Claim::take(&dir, &order.upgrade.name)?;
        partial::sweep(&dir, SystemTime::now());
        let partial = Partial::open(&dir, &order.upgrade.name)?;
        let mut known: Vec<Option<Expected>> = sources.iter().map(|_| None).collect();
        let urls: Vec<&Url> = sources.iter().map(|s| &s.url).collect();
        let mut furthest = partial.len();
        let mut fetch = Fetch { with: self, order, partial, progress, cancel };
        let (path, manifest) = self.retrying(&urls, cancel, |index| {
            let source = &sources[index];
            let found = fetch.attempt(source, &mut known[index]);
            let received = fetch.partial.len();
            if let Err(Failure::Mirror(_, e)) = &found {
                let total = fetch.partial.note().and_then(|note| note.total);
                (fetch.progress)(Progress { url: &source.url, received, total, trouble: Some(e) });
            }
            let advanced = received >= furthest + ADVANCE;
            furthest = furthest.max(received);
            (found, advanced)
        })?;
        Ok(Fetched { path, manifest, name: order.upgrade.name.clone(), _claim: claim })
    }

    /// The sources of an upgrade's binary, in the order in which it is tried; the same place is not tried
    /// twice. A document that `info` leads to is fetched first.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is no source at all; [`Kind::BadInput`] if none of them is a URL.
    pub fn sources(&self, order: &Order<'_>, cancel: &Cancel) -> Result<Vec<Source>> {
        let platform = platform();
        let mut places = candidates(order.upgrade, order.urls, platform);
        if let Some(url) = source::document(order.upgrade) {
            match self.document(order, url, cancel) {
                Ok(binaries) => {
                    let upgrade = Upgrade { binaries, ..order.upgrade.clone() };
                    places.splice(0..0, candidates(&upgrade, &DownloadUrls::default(), platform));
                }
                // The URL may lead to a page for people.
                Err(e) if !places.is_empty() && !cancel.is_cancelled() => {
                    log::warn!("event=info_ignored name={} {e}", order.upgrade.name);
                }
                Err(e) => return Err(e),
            }
        }
        let (mut sources, mut faults) = (Vec::new(), Vec::new());
        for place in places {
            match place {
                Ok(source) if sources.contains(&source) => {}
                Ok(source) => sources.push(source),
                Err(e) => faults.push(e),
            }
        }
        if sources.is_empty() {
            let (os, arch) = platform;
            let what = format!("nothing says where the binary of {} for {os}/{arch} is", order.upgrade.name);
            let hint = "give it with --url, in the plan, or in download_urls";
            let none = || Error::new(Kind::Config, what).hint(hint);
            return Err(faults.into_iter().next().unwrap_or_else(none));
        }
        for e in faults {
            log::warn!("event=source_ignored name={} {e}", order.upgrade.name);
        }
        Ok(sources)
    }

    /// Fetches the document that `info` leads to, and returns the binaries in it.
    fn document(&self, order: &Order<'_>, url: &str, cancel: &Cancel) -> Result<Places> {
        #[derive(serde::Deserialize)]
        struct Document {
            binaries: BTreeMap<String, String>,
        }
        let (os, arch) = platform();
        let Source { url, digest, .. } = Source::parse(&source::fill(url, &order.upgrade.name, os, arch))?;
        let bytes = self.retrying(&[&url], cancel, |_| {
            let bytes = self.client.document(&url, DOCUMENT, cancel);
            let found =
                |bytes: Option<_>| bytes.ok_or_else(|| refuse(Kind::Unreachable, &url, "404 Not Found"));
            (bytes.and_then(found), false)
        })?;
        let found = digest.map(|d| Digest::of_reader(d.algorithm(), &bytes[..]).unwrap_or(d));
        if found != digest {
            return Err(Error::new(Kind::Verification, "the document is not what its URL says").at(&url));
        }
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(Kind::BadInput, "info leads to something without binaries").at(&url).because(e)
        })?;
        Ok(document.binaries.into_iter().collect())
    }

    /// Tries sources in the order of the schedule until one succeeds. An attempt also returns whether it got further than
    /// any before.
    fn retrying<T>(
        &self,
        urls: &[&Url],
        cancel: &Cancel,
        mut attempt: impl FnMut(usize) -> (Result<T, Failure>, bool),
    ) -> Result<T> {
        let start = Instant::now();
        let mut schedule = Schedule::new(urls.len(), self.limits.retry, seed());
        let mut errors: BTreeMap<usize, Error> = BTreeMap::new();
        for (mirror, url) in urls.iter().enumerate() {
            let Some(left) = self.retry_after.left(url, start) else { continue };
            schedule.failed(mirror, Fault::Passing { retry_after: Some(left) }, Duration::ZERO);
            let why = format!("that is over in {}", show_duration(Duration::from_secs(left.as_secs() + 1)));
            let what = "the server has asked to be left alone";
            errors.insert(mirror, Error::new(Kind::Unreachable, what).at(url).because(why));
        }
        loop {
            let Some((mirror, wait)) = schedule.next(start.elapsed()) else { return Err(sum_up(errors)) };
            pause(wait, urls[mirror], cancel)?;
            match attempt(mirror) {
                (Ok(value), _) => return Ok(value),
                (Err(Failure::Fatal(e)), _) => return Err(e),
                (Err(Failure::Mirror(fault, e)), advanced) => {
                    if let Fault::Passing { retry_after: Some(asked) } = fault {
                        self.retry_after.note(urls[mirror], asked, Instant::now());
                    }
                    let now = start.elapsed();
                    if advanced {
                        schedule.forgive(mirror);
                    }
                    schedule.failed(mirror, fault, now);
                    let next = match schedule.next(now) {
                        Some((next, wait)) => format!("next={} wait={:.1}s", urls[next], wait.as_secs_f64()),
                        None => "next=none".to_owned(),
                    };
                    log::warn!("event=download_failed url={} {next} {e}", urls[mirror]);
                    errors.insert(mirror, e);
                }
            }
        }
    }
}

/// The download of one binary, from whichever source.
struct Fetch<'a> {
    with: &'a Downloader,
    order: &'a Order<'a>,
    partial: Partial,
    progress: &'a mut dyn FnMut(Progress<'_>),
    cancel: &'a Cancel,
}

impl Fetch<'_> {
    /// Completes, verifies and unpacks the file of one source.
    fn attempt(
        &mut self,
        source: &Source,
        known: &mut Option<Expected>,
    ) -> Result<(PathBuf, Manifest), Failure> {
        let (client, config, cancel) = (&self.with.client, &self.with.config, self.cancel);
        let expected = match known {
            Some(expected) => expected,
            None => known.insert(Expected::find(client, source, self.order, config, cancel)?),
        };
        let get = |url: &Url, headers: &[(&str, &str)]| client.get(url, headers, cancel);
        let transfer = Transfer { get: &get, source, max_size: config.download_max_size.0, cancel };
        let mut fresh = false;
        loop {
            let arrived = transfer.complete(&mut self.partial, || expected.check(), self.progress)?;
            match arrived.check.verify(expected) {
                Ok(sha256) => return self.unpack(source, expected, sha256),
                // One of several answers may have been of another file, or the only one was cut short.
                Err(why) if arrived.uncertain && !fresh => {
                    log::warn!("event=download_restarted url={} {why}", source.url);
                    self.partial.empty()?;
                    fresh = true;
                }
                Err(why) => {
                    self.partial.empty()?;
                    return Err(refuse(Kind::Verification, &source.url, why));
                }
            }
        }
    }

    /// Takes the binary out of a verified file with this SHA-256.
    fn unpack(
        &mut self,
        source: &Source,
        expected: &Expected,
        sha256: Digest,
    ) -> Result<(PathBuf, Manifest), Failure> {
        let (path, unpacked) = match source.form {
            Form::Bare => (self.partial.path().to_owned(), Ok((sha256, self.partial.len()))),
            form => {
                let to = self.order.home.downloads().join(format!("{}.binary", self.order.upgrade.name));
                let packed = Packed { form, path: self.partial.path(), daemon: self.order.home.daemon() };
                let unpacked = packed.extract(&to, self.with.config.download_max_size.0, self.cancel);
                (to, unpacked)
            }
        };
        let checked = unpacked.and_then(|unpacked| {
            let file = File::open(&path).doing("open", &path)?;
            binary::check_elf(&file, &path).map(|()| unpacked)
        });
        match checked {
            Ok((sha256, size)) => {
                let manifest = Manifest::new(sha256, size, source.url.to_string(), expected.method());
                let key = expected.key().map(|key| key.as_str().to_owned());
                Ok((path, Manifest { key, pinned: self.order.upgrade.digest, ..manifest }))
            }
            Err(e) if e.kind() == Kind::BadInput => {
                self.partial.empty()?;
                let error = Error::new(Kind::BadInput, "what was downloaded is not the node's binary")
                    .at(&source.url)
                    .because(e);
                // With a pinned digest every other source has the same file.
                Err(match self.order.upgrade.digest {
                    Some(_) => error.hint("correct the digest that the upgrade pins, or the file").into(),
                    None => Failure::Mirror(Fault::Lasting, error),
                })
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Fetched {
    /// Stages the binary, and removes what is left of the download.
    ///
    /// # Errors
    /// As [`install::place`]; the download is kept then, and need not be fetched again.
    pub fn stage(self, home: &Home, force: Force) -> Result<Staged> {
        let target = Target::Upgrade(self.name.clone());
        let staged = install::place(home, &target, &self.path, &self.manifest, force)?;
        durable::remove(&self.path)?;
        Partial::remove(&home.downloads(), &self.name)?;
        Ok(staged)
    }
}

/// One error for all sources, of the kind that is most in need of a person.
fn sum_up(errors: BTreeMap<usize, Error>) -> Error {
    const GRAVEST_FIRST: [Kind; 4] = [Kind::Verification, Kind::BadInput, Kind::Config, Kind::Nonsense];
    let mut errors: Vec<Error> = errors.into_values().collect();
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let has = |kind: &Kind| errors.iter().any(|e| e.kind() == *kind);
    let kind = GRAVEST_FIRST.into_iter().find(has).unwrap_or(Kind::Unreachable);
    let all: Vec<String> = errors.iter().map(Error::to_string).collect();
    Error::new(kind, "no source has the binary").because(all.join(" | "))
}

/// Waits, unless cancelled.
fn pause(wait: Duration, url: &Url, cancel: &Cancel) -> Result<()> {
    let end = Instant::now() + wait;
    while !cancel.is_cancelled() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        cancel.wait(left);
    }
    Err(cancelled(url))
}

/// A number that differs in every process, so that a fleet does not retry in step.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) << 32 ^ since.as_secs() ^ u64::from(std::process::id())
}
