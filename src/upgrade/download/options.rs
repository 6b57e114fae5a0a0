//! How to fetch: what the configuration says, and the limits of time that it does not.

use super::retry::Policy;
use crate::config::{Config, PublicKey};
use std::path::PathBuf;
use std::time::Duration;

/// How to fetch, as configured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether http is forbidden.
    pub require_https: bool,
    /// The largest file to fetch, and the largest binary to take out of it, in bytes.
    pub max_size: u64,
    /// The keys, one of which must have signed the file. Empty: signatures are not asked for.
    pub public_keys: Vec<PublicKey>,
    /// The URL of a proxy.
    pub proxy: Option<String>,
    /// Whether a file that nothing vouches for is taken.
    pub skip_checksum: bool,
    /// Whether the node is a validator, for which that is forbidden.
    pub validator_mode: bool,
    /// The limits of time.
    pub limits: Limits,
}

/// How long to wait for a server, and how often to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The longest that finding and connecting to a server may take (each).
    pub connect: Duration,
    /// The longest that a server may take to send the head of its answer.
    pub first_byte: Duration,
    /// The least number of bytes per second.
    pub min_rate: u64,
    /// The time over which that is measured.
    pub rate_window: Duration,
    /// When to try again.
    pub retry: Policy,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            min_rate: 10 * 1024,
            rate_window: Duration::from_secs(30),
            retry: Policy::default(),
        }
    }
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Options {
            ca_file: config.download_ca_file.clone(),
            require_https: config.daemon_download_require_https,
            max_size: config.download_max_size.0,
            public_keys: config.download_public_keys.clone(),
            proxy: config.download_proxy.as_ref().map(|url| url.as_str().to_owned()),
            skip_checksum: config.unsafe_skip_checksum,
            validator_mode: config.validator_mode,
            limits: Limits::default(),
        }
    }
}
