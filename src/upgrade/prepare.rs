//! Getting a binary ready to be switched to: there, verified, and able to say its version.
//!
//! Runs while the node runs, as soon as an upgrade is known, and again after every failure. What was
//! verified is remembered by the identity of the file, so that looking whether it is still the same,
//! with the node about to stop, takes microseconds.

use super::{Cancel, hook, install, smoke};
use crate::config::Config;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::{Ready, Target, Upgrade, Version};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Fetches if need be, verifies and smoke-tests the binary of `upgrade`.
///
/// # Errors
/// What is missing or wrong, with the class that decides when it is tried again.
pub fn prepare(
    config: &Config,
    home: &Home,
    verified: &Verified,
    upgrade: &Upgrade,
    cancel: &Cancel,
) -> Result<Ready> {
    let target = Target::Upgrade(upgrade.name.clone());
    let binary = home.binary(&target);
    if !binary.exists() {
        fetch(config, home, upgrade, cancel)?;
    }
    let version = verified.verify(home, &target, upgrade.digest.as_ref())?;
    let said = smoke::test(&binary, &config.daemon_smoke_args, home.root(), cancel)?;
    log::info!("event=smoke_tested name={} said={said:?}", upgrade.name);
    let hook = hook::pre_upgrade(home, &upgrade.name, config.daemon_preupgrade.as_deref()).is_some();
    Ok(Ready { version, hook })
}

fn fetch(config: &Config, home: &Home, upgrade: &Upgrade, _cancel: &Cancel) -> Result<()> {
    let name = &upgrade.name;
    let missing = Error::new(Kind::NotFound, format!("the binary of upgrade {name} is missing"))
        .at(home.binary(&Target::Upgrade(name.clone())).display());
    if !config.daemon_allow_download_binaries {
        return Err(missing.hint(format!("stage it with `wemixvisor upgrade add {name} BINARY`")));
    }
    Err(missing)
}

/// Which files were verified, by identity: a file that was written since has another change time.
#[derive(Debug, Clone, Default)]
pub struct Verified(Arc<Mutex<BTreeMap<Target, (Identity, Digest)>>>);

/// What changes when a file is replaced or written (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Verified {
    /// Verifies a staged binary against its manifest and remembers the file.
    ///
    /// # Errors
    /// As [`install::verify`].
    pub fn verify(&self, home: &Home, target: &Target, pinned: Option<&Digest>) -> Result<Version> {
        // Taken first: a write during the check then shows as a change after it.
        let identity = identity(&home.binary(target));
        let manifest = install::verify(home, target, pinned)?;
        if let Ok(identity) = identity {
            self.map().insert(target.clone(), (identity, manifest.sha256));
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
        let now = identity(&path)?;
        if self.map().get(&version.target) == Some(&(now, version.sha256)) {
            return Ok(());
        }
        let found = install::digest_of(&path)?;
        if found != version.sha256 {
            return Err(Error::new(Kind::Verification, "the staged binary has changed")
                .at(path.display())
                .because(format!("{found} instead of {}", version.sha256)));
        }
        self.map().insert(version.target.clone(), (now, found));
        Ok(())
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<Target, (Identity, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(path: &Path) -> Result<Identity> {
    let meta = fs::symlink_metadata(path).map_err(|e| Error::io("inspect", path, e))?;
    Ok(Identity {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}
