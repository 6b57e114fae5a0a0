//! Downloads against servers that do everything wrong that a server can do.
//!
//! Every test ends in the right file or a clear failure, and after every fetch nothing is executable
//! that was not verified and staged.

mod cancel;
mod command;
mod cuts;
mod hostile;
mod memory;
mod mirrors;
mod tls;
mod verify;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wemixvisor::Digest;
use wemixvisor::config::{Config, DownloadUrls, HttpUrl, Size, Sources};
use wemixvisor::home::Home;
use wemixvisor::home::Target;
use wemixvisor::inside::Cancel;
use wemixvisor::inside::Staged;
use wemixvisor::inside::download::retry::Policy;
use wemixvisor::inside::download::{Downloader, Fetched, Limits, Order, RetryAfter};
use wemixvisor::inside::mkdir;
use wemixvisor::schedule::{Origin, Upgrade};
use wemixvisor::{Error, Kind, Result};

/// The file to fetch: a program for this machine, of 64 KiB and with every byte different from its neighbours.
pub(crate) fn program() -> Vec<u8> {
    elf(std::env::consts::ARCH, 64 * 1024)
}

/// The header of a program, followed by noise.
pub(crate) fn elf(arch: &str, len: usize) -> Vec<u8> {
    let machine: u16 = match arch {
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        "loongarch64" => 258,
        other => panic!("no ELF machine for {other}"),
    };
    let mut bytes = vec![0; 120];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16] = 2;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    (bytes[24], bytes[32], bytes[54], bytes[56], bytes[64]) = (1, 64, 56, 1, 1);
    bytes[96..104].copy_from_slice(&(len as u64).to_le_bytes());
    let mut noise: u32 = 1;
    bytes.resize_with(len, || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    });
    bytes
}

/// A home, and an upgrade to be fetched for it.
pub(crate) struct Rig {
    _dir: tempfile::TempDir,
    pub(crate) home: Home,
    pub(crate) upgrade: Upgrade,
    pub(crate) urls: DownloadUrls,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) cancel: Cancel,
    pub(crate) retry_after: RetryAfter,
}

impl Rig {
    /// The upgrade `v2`, which may be fetched from these URLs and pins the digest of [`program`].
    pub(crate) fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"), "node").unwrap();
        mkdir(&home.upgrades()).unwrap();
        mkdir(&home.state()).unwrap();
        let mut upgrade = Upgrade::new("v2".parse().unwrap(), 100, Origin::Schedule);
        upgrade.digest = Some(Digest::sha256(&program()));
        let default = urls.into_iter().map(Into::into).collect();
        let urls = DownloadUrls { default, ..DownloadUrls::default() };
        let config = Config { download_max_size: Size(1024 * 1024), ..Config::defaults(home.root()) };
        Rig {
            _dir: dir,
            home,
            upgrade,
            urls,
            config,
            limits: patient(),
            cancel: Cancel::new().unwrap(),
            retry_after: RetryAfter::default(),
        }
    }

    /// Fetches, and checks that nothing is executable afterwards.
    pub(crate) fn fetch(&self) -> Result<Fetched> {
        let order = Order { home: &self.home, upgrade: &self.upgrade, urls: &self.urls };
        let downloader = Downloader::new(&self.config, self.limits, self.retry_after.clone())?;
        let fetched = downloader.fetch(&order, &mut |_| {}, &self.cancel);
        assert_eq!(executables(self.home.root()), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(self.home.upgrades()).unwrap().count(), 0);
        fetched
    }

    /// Fetches and stages, and checks that what is staged is `expected`, executable and alone.
    pub(crate) fn install(&self, expected: &[u8]) -> Staged {
        let fetched = self.fetch().unwrap_or_else(|e| panic!("{e}"));
        let staged = fetched.stage(&self.home, wemixvisor::inside::Force::No).unwrap();
        let binary = self.home.binary(&Target::Upgrade(self.upgrade.name.clone()));
        assert!(fs::read(&binary).unwrap() == expected, "another file is staged");
        assert_eq!(executables(self.home.root()), [binary]);
        let left: Vec<_> = names(&self.home.downloads());
        assert_eq!(left, ["v2.lock"], "what is left of the download");
        staged
    }

    /// Fetches what cannot be fetched.
    pub(crate) fn refuse(&self) -> Error {
        let err = self.fetch().unwrap_err();
        assert_ne!(err.kind(), Kind::Bug);
        err
    }
}

/// A proxy at a URL, as the operator configures it.
pub(crate) fn proxy(url: String) -> Option<HttpUrl> {
    let flags = vec![("--home".to_owned(), "/h".to_owned()), ("--download-proxy".to_owned(), url)];
    Config::load(&Sources { flags, cwd: "/".into(), ..Sources::default() }).unwrap().config.download_proxy
}

/// Limits under which a loaded machine fails no good server.
pub(crate) fn patient() -> Limits {
    Limits {
        connect: Duration::from_secs(20),
        first_byte: Duration::from_secs(20),
        min_rate: 10 * 1024,
        rate_window: Duration::from_secs(20),
        retry: Policy {
            attempts: 4,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(4),
            longest_asked: Duration::from_secs(20),
        },
    }
}

/// Limits for servers that are to be found slow to begin. A good one may be so too, and is tried again.
pub(crate) fn slow_to_begin() -> Limits {
    let retry = Policy { attempts: 40, ..patient().retry };
    Limits { first_byte: Duration::from_millis(250), retry, ..patient() }
}

/// Limits for servers that are to be found slow to go on.
pub(crate) fn slow_to_go_on() -> Limits {
    let retry = Policy { attempts: 40, ..patient().retry };
    Limits { rate_window: Duration::from_millis(250), retry, ..patient() }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every executable file below a directory.
fn executables(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(executables(&path));
        } else if meta.permissions().mode() & 0o111 != 0 {
            found.push(path);
        }
    }
    found
}
