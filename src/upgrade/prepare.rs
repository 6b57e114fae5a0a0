//! Getting a binary ready to be switched to: fetched if need be, verified, and able to report its version.
//!
//! Runs while the node runs, as soon as an upgrade is known, and again after every failure. What was
//! verified is remembered by the stamp of the file, so that looking whether it is still the same, with
//! the node about to stop, takes microseconds.

use super::download::progress::Meter;
use super::download::{Downloader, Limits, Order, Progress, RetryAfter, has_source};
use super::install;
use super::node_args::Changes;
use super::rehearse::{Report, Subject};
use super::{Cancel, hook, smoke};
use crate::config::Config;
use crate::digest::{Algorithm, Digest};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::force::Force;
use crate::home::stamp::Stamp;
use crate::home::{Home, Manifest, binary};
use crate::machine::{Download, Ready, Rehearsal, Target, Upgrade, Version};
use crate::name::Name;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the progress of a download is logged.
const REPORT: Duration = Duration::from_secs(5);
/// A download of which nothing has arrived for this time is shown without a rate.
const QUIET: Duration = Duration::from_secs(5);

/// The knowledge of binaries that outlives the preparation of one.
#[derive(Debug, Clone, Default)]
pub struct Binaries {
    /// Which files were verified.
    pub verified: Verified,
    /// The downloads that are under way.
    pub downloads: Downloads,
}

/// Fetches if need be, verifies and smoke-tests the binary of `upgrade`.
///
/// # Errors
/// If a part is missing or wrong, which one.
pub fn prepare(
    config: &Config,
    home: &Home,
    binaries: &Binaries,
    upgrade: &Upgrade,
    cancel: &Cancel,
) -> Result<Ready> {
    let Binaries { verified, downloads } = binaries;
    let target = Target::Upgrade(upgrade.name.clone());
    let version = match verified.verify(home, &target, upgrade.digest.as_ref()) {
        Ok(version) => version,
        Err(e) if !config.daemon_allow_download_binaries => return Err(e),
        Err(e) => {
            if e.kind() != Kind::NotFound {
                put_aside(config, home, upgrade, e)?;
            }
            let shown = downloads.show(&upgrade.name);
            let retry_after = downloads.retry_after.clone();
            let order = Order { home, upgrade, urls: &config.download_urls };
            fetch(config, &order, retry_after, &mut |progress| shown.update(&progress), cancel)?;
            verified.verify(home, &target, upgrade.digest.as_ref())?
        }
    };
    let said = smoke::test(&home.binary(&target), &config.daemon_smoke_args, home.root(), cancel)?;
    let told = said.told.as_deref().unwrap_or("unknown");
    log::info!("event=smoke_tested name={} said={:?} version={told:?}", upgrade.name, said.line);
    install::describe(home, &target, said.told.as_deref(), Force::No)?;
    let args = Changes::of(home, &target)?;
    let hook = hook::pre_upgrade(home, &upgrade.name, config.daemon_preupgrade.as_deref());
    // Found now, it costs the upgrade nothing.
    hook.iter().try_for_each(|hook| hook::check(home, hook))?;
    let hook = hook.is_some();
    let insisted = Manifest::load(&home.manifest(&target))?.is_some_and(|manifest| manifest.insisted);
    let subject = Subject { sha256: &version.sha256, args: &args, fork: upgrade.fork_height };
    let report = Report::of(home, &upgrade.name, subject);
    let (rehearsal, accepted) = report.map_or((Rehearsal::None, false), |report| report.verdict());
    Ok(Ready { version, promised: said.version, hook, rehearsal, accepted, insisted })
}

/// Moves a staged binary out of the way, so that another can be fetched, if `why` shows that it is not the right one.
///
/// # Errors
/// `why` itself if it shows something else, or there is no source for another binary; as
/// [`install::quarantine`].
pub fn put_aside(config: &Config, home: &Home, upgrade: &Upgrade, why: Error) -> Result<()> {
    let is_bad = matches!(why.kind(), Kind::Verification | Kind::BadInput);
    if !is_bad || !has_source(upgrade, &config.download_urls) {
        return Err(why);
    }
    let aside = install::quarantine(home, &upgrade.name)?;
    log::warn!("event=quarantined name={} moved to {}: {why}", upgrade.name, aside.display());
    Ok(())
}

/// Fetches, verifies, smoke-tests and stages the binary of an upgrade.
///
/// # Errors
/// As [`Downloader::fetch`] and [`smoke::test`]; nothing is staged then.
pub fn fetch(
    config: &Config,
    order: &Order<'_>,
    retry_after: RetryAfter,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &Cancel,
) -> Result<Manifest> {
    let Order { home, upgrade, .. } = order;
    let downloader = Downloader::new(config, Limits::default(), retry_after)?;
    let fetched = downloader.fetch(order, progress, cancel)?;
    // Verified, so it may be executed; it is still below downloads/.
    fs::set_permissions(&fetched.path, Permissions::from_mode(0o500))
        .doing("make executable", &fetched.path)?;
    let said = smoke::test(&fetched.path, &config.daemon_smoke_args, home.root(), cancel)?;
    let manifest = fetched.stage(home, Force::No)?.manifest().clone();
    install::describe(home, &Target::Upgrade(upgrade.name.clone()), said.told.as_deref(), Force::No)?;
    log::info!(
        "event=downloaded name={} url={} sha256={}",
        upgrade.name,
        manifest.source,
        manifest.sha256.hex()
    );
    Ok(manifest)
}

/// The files that were verified: a file that was written since has another stamp.
#[derive(Debug, Clone, Default)]
pub struct Verified(Arc<Mutex<BTreeMap<Target, (Stamp, Digest)>>>);

impl Verified {
    /// Verifies a staged binary against its manifest and remembers the file.
    ///
    /// # Errors
    /// As [`install::verify`].
    pub fn verify(&self, home: &Home, target: &Target, pinned: Option<&Digest>) -> Result<Version> {
        // Taken first: a write during the check then shows as a change after it.
        let stamp = Stamp::of(&home.binary(target));
        let manifest = install::verify(home, target, pinned)?;
        if let Ok(stamp) = stamp {
            lock(&self.0).insert(target.clone(), (stamp, manifest.sha256));
        }
        Ok(Version { target: target.clone(), sha256: manifest.sha256 })
    }

    /// Looks whether a version is still what it was when it was verified; reads it again only if the
    /// file has changed in any way. The stamp of the file that was looked at.
    ///
    /// # Errors
    /// [`Kind::Verification`] if it is another binary.
    pub fn check(&self, home: &Home, version: &Version) -> Result<Stamp> {
        let path = home.binary(&version.target);
        // One open file is examined and read, whatever is put at its path meanwhile.
        let file = binary::open_regular(&path)?;
        let now = Stamp::from(&file.metadata().doing("inspect", &path)?);
        if lock(&self.0).get(&version.target) == Some(&(now, version.sha256)) {
            return Ok(now);
        }
        let found = Digest::of_reader(Algorithm::Sha256, file).doing("read", &path)?;
        if found != version.sha256 {
            return Err(Error::new(Kind::Verification, "the staged binary has changed")
                .at(path.display())
                .because(format!("{found} instead of {}", version.sha256)));
        }
        lock(&self.0).insert(version.target.clone(), (now, found));
        Ok(now)
    }
}

/// The downloads that are under way, to be shown, and what outlives them.
#[derive(Debug, Clone, Default)]
pub struct Downloads {
    seen: Arc<Mutex<BTreeMap<Name, Seen>>>,
    retry_after: RetryAfter,
}

/// How far a download was when something arrived last.
#[derive(Debug)]
struct Seen {
    meter: Meter,
    percent: Option<u8>,
    trouble: Option<String>,
    at: Instant,
}

/// A download that is shown as long as this value lives.
struct Shown {
    downloads: Downloads,
    name: Name,
    begun: Instant,
}

impl Downloads {
    /// How far the download for this upgrade is, if there is one.
    pub fn of(&self, name: &Name) -> Option<Download> {
        self.at(name, Instant::now())
    }

    fn at(&self, name: &Name, now: Instant) -> Option<Download> {
        let downloads = lock(&self.seen);
        let seen = downloads.get(name)?;
        let quiet = now.saturating_duration_since(seen.at);
        let line = match &seen.trouble {
            Some(trouble) => seen.meter.line_in_trouble(trouble),
            None if quiet >= QUIET => seen.meter.line_when_quiet(quiet),
            None => seen.meter.line(),
        };
        Some(Download { percent: seen.percent, line })
    }

    fn show(&self, name: &Name) -> Shown {
        Shown { downloads: self.clone(), name: name.clone(), begun: Instant::now() }
    }
}

impl Shown {
    fn update(&self, progress: &Progress<'_>) {
        let at = Instant::now();
        let now = at.duration_since(self.begun);
        let percent = progress.total.filter(|total| *total > 0).map(|total| {
            u8::try_from(u128::from(progress.received) * 100 / u128::from(total)).unwrap_or(100).min(100)
        });
        let mut downloads = lock(&self.downloads.seen);
        let begin = || Seen { meter: Meter::default(), percent, trouble: None, at };
        let seen = downloads.entry(self.name.clone()).or_insert_with(begin);
        (seen.percent, seen.trouble, seen.at) = (percent, progress.trouble.map(Error::to_string), at);
        seen.meter.update(now, progress);
        if seen.trouble.is_none() && seen.meter.is_due(now, REPORT) {
            log::info!("event=downloading name={} url={} {}", self.name, progress.url, seen.meter.line());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        lock(&self.downloads.seen).remove(&self.name);
    }
}

/// Every change under these locks is one call, so a panic elsewhere leaves what they guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_gets_nowhere_says_so() {
        let (downloads, name) = (Downloads::default(), "v2".parse::<Name>().unwrap());
        let shown = downloads.show(&name);
        assert_eq!(downloads.of(&name), None);
        let url = "http://a/x".parse().unwrap();
        let arrives = Progress { url: &url, received: 512, total: Some(1024), trouble: None };
        shown.update(&arrives);
        let line = |after| downloads.at(&name, Instant::now() + after).unwrap().line;
        assert_eq!(line(Duration::ZERO), "512 B of 1.0 KiB (50 %)");
        assert!(line(Duration::from_secs(60)).starts_with("512 B of 1.0 KiB (50 %), nothing for 1m"));
        let trouble = Error::new(Kind::Unreachable, "the server refuses the file").at(&url);
        shown.update(&Progress { trouble: Some(&trouble), ..arrives });
        let refused = "512 B of 1.0 KiB (50 %), to be tried again: the server refuses the file: http://a/x";
        assert_eq!(line(Duration::from_secs(60)), refused);
        shown.update(&arrives);
        assert_eq!(line(Duration::ZERO), "512 B of 1.0 KiB (50 %)");
        drop(shown);
        assert_eq!(downloads.of(&name), None);
    }
}
