//! Getting a binary ready to be switched to: fetched if need be, verified, and able to say its version.
//!
//! Runs while the node runs, as soon as an upgrade is known, and again after every failure. What was
//! verified is remembered by the stamp of the file, so that looking whether it is still the same, with
//! the node about to stop, takes microseconds.

use super::download::progress::Meter;
use super::download::{Downloader, Options, Order, Progress};
use super::install::{self, Stamp};
use super::{Cancel, hook, smoke};
use crate::config::{Config, DownloadUrls};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::{Home, Manifest};
use crate::machine::{Download, Ready, Target, Upgrade, Version};
use crate::name::Name;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a download tells the log how far it is.
const REPORT: Duration = Duration::from_secs(5);

/// Fetches if need be, verifies and smoke-tests the binary of `upgrade`; `downloads` shows how far a
/// download is.
///
/// # Errors
/// What is missing or wrong.
pub fn prepare(
    config: &Config,
    home: &Home,
    verified: &Verified,
    downloads: &Downloads,
    upgrade: &Upgrade,
    cancel: &Cancel,
) -> Result<Ready> {
    let target = Target::Upgrade(upgrade.name.clone());
    let version = match verified.verify(home, &target, upgrade.digest.as_ref()) {
        Ok(version) => version,
        Err(e) if !config.daemon_allow_download_binaries => return Err(e),
        Err(e) => {
            match e.kind() {
                Kind::NotFound => {}
                Kind::Verification | Kind::BadInput => {
                    let aside = install::quarantine(home, &upgrade.name)?;
                    log::warn!("event=quarantined name={} moved to {}: {e}", upgrade.name, aside.display());
                }
                _ => return Err(e),
            }
            let shown = downloads.show(&upgrade.name);
            fetch(config, home, upgrade, &mut |progress| shown.update(&progress), cancel)?;
            verified.verify(home, &target, upgrade.digest.as_ref())?
        }
    };
    let said = smoke::test(&home.binary(&target), &config.daemon_smoke_args, home.root(), cancel)?;
    log::info!("event=smoke_tested name={} said={said:?}", upgrade.name);
    let hook = hook::pre_upgrade(home, &upgrade.name, config.daemon_preupgrade.as_deref()).is_some();
    Ok(Ready { version, hook })
}

/// Fetches, verifies, smoke-tests and stages the binary of `upgrade`.
///
/// # Errors
/// As [`Downloader::fetch`] and [`smoke::test`]; nothing is staged then.
pub fn fetch(
    config: &Config,
    home: &Home,
    upgrade: &Upgrade,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &Cancel,
) -> Result<Manifest> {
    let urls: &DownloadUrls = &config.download_urls;
    let fetched =
        Downloader::new(Options::from(config))?.fetch(&Order { home, upgrade, urls }, progress, cancel)?;
    // Verified, so it may be executed; it is still below downloads/.
    fs::set_permissions(&fetched.path, Permissions::from_mode(0o500))
        .map_err(|e| Error::io("make executable", &fetched.path, e))?;
    smoke::test(&fetched.path, &config.daemon_smoke_args, home.root(), cancel)?;
    let manifest = fetched.stage(home, false)?.manifest().clone();
    log::info!(
        "event=downloaded name={} url={} sha256={}",
        upgrade.name,
        manifest.source,
        manifest.sha256.hex()
    );
    Ok(manifest)
}

/// Which files were verified: one that was written since has another stamp.
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
    /// file has changed in any way.
    ///
    /// # Errors
    /// [`Kind::Verification`] if it is another binary.
    pub fn check(&self, home: &Home, version: &Version) -> Result<()> {
        let path = home.binary(&version.target);
        let now = Stamp::of(&path)?;
        if lock(&self.0).get(&version.target) == Some(&(now, version.sha256)) {
            return Ok(());
        }
        let found = install::digest_of(&path)?;
        if found != version.sha256 {
            return Err(Error::new(Kind::Verification, "the staged binary has changed")
                .at(path.display())
                .because(format!("{found} instead of {}", version.sha256)));
        }
        lock(&self.0).insert(version.target.clone(), (now, found));
        Ok(())
    }
}

/// The downloads that are under way, for whoever wants to see them.
#[derive(Debug, Clone, Default)]
pub struct Downloads(Arc<Mutex<BTreeMap<Name, Download>>>);

/// A download that is shown as long as this value lives.
struct Shown {
    downloads: Downloads,
    name: Name,
    begun: Instant,
    meter: Mutex<Meter>,
}

impl Downloads {
    /// How far the download for this upgrade is, if there is one.
    #[must_use]
    pub fn of(&self, name: &Name) -> Option<Download> {
        lock(&self.0).get(name).cloned()
    }

    fn show(&self, name: &Name) -> Shown {
        Shown { downloads: self.clone(), name: name.clone(), begun: Instant::now(), meter: Mutex::default() }
    }
}

impl Shown {
    fn update(&self, progress: &Progress<'_>) {
        let now = self.begun.elapsed();
        let mut meter = lock(&self.meter);
        meter.update(now, progress);
        let line = meter.line();
        if meter.is_due(now, REPORT) {
            log::info!("event=downloading name={} url={} {line}", self.name, progress.url);
        }
        let percent = progress.total.filter(|total| *total > 0).map(|total| {
            u8::try_from(u128::from(progress.received) * 100 / u128::from(total)).unwrap_or(100).min(100)
        });
        lock(&self.downloads.0).insert(self.name.clone(), Download { percent, line });
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        lock(&self.downloads.0).remove(&self.name);
    }
}

/// Every change under these locks is one call, so a panic elsewhere leaves what they guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
