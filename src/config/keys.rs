//! The key table: every key once, with its type, default, bounds and meaning.
//!
//! The macro makes the fields of [`Config`] and the rows of [`KEYS`] from the same lines; loader,
//! `config show`, the commented `config.yaml`, help and the test of the man page read the rows. So a key
//! cannot exist in one of them and be missing in another. Rules between keys are checked elsewhere.

use super::download::{DownloadUrls, PublicKey};
use super::http_url::HttpUrl;
use super::value::{
    Argv, BackupMethod, Fault, HeightSource, LogColor, LogFormat, LogLevel, Raw, Read, Rehearse, Setting,
    SignAfterUnclean, Size, StopTimeoutAction,
};
use crate::name::Name;
use crate::wbft::{Address, Endpoint};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its name in `config.yaml`.
    pub name: &'static str,
    /// Its heading in `config.yaml` and the man page.
    pub section: &'static str,
    /// Its type in words.
    pub kind: &'static str,
    /// Its default as an operator would write it; empty if there is none. A relative path is below the home,
    /// and the home itself is `.`, since it is given from outside.
    pub default: &'static str,
    /// The least and the greatest value, for keys that are bounded.
    pub bounds: Option<(&'static str, &'static str)>,
    /// Its purpose, in a sentence or two.
    pub doc: &'static str,
    /// A shorter flag, without its dashes.
    pub short: Option<&'static str>,
    /// Another environment variable, which other supervisors use for the same.
    pub other_env: Option<&'static str>,
    pub(super) set: fn(&mut Config, &Raw, &Path) -> Read<()>,
    pub(super) get: fn(&Config) -> Value,
    pub(super) same: fn(&Config, &Config) -> bool,
}

macro_rules! settings {
    ($($section:literal { $(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:literal
            $(, within $least:literal to $most:literal)? $(, short $short:literal)? $(, env $env:literal)?;
    )+ })+) => {
        /// The effective configuration: one field per key.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $($($(#[doc = $doc])+ pub $name: $type,)+)+
        }

        /// Every key, in the order of `config.yaml`.
        pub static KEYS: &[Key] = &[$($(Key {
            name: stringify!($name),
            section: $section,
            kind: <$type as Setting>::KIND,
            default: $default,
            bounds: optional!($(($least, $most))?),
            doc: concat!($($doc),+).trim_ascii(),
            short: optional!($($short)?),
            other_env: optional!($($env)?),
            set: |config, raw, base| {
                config.$name = read_within(raw, base, optional!($(($least, $most))?))?;
                Ok(())
            },
            get: |config| config.$name.show(),
            same: |a, b| a.$name == b.$name,
        },)+)+];

        impl Config {
            /// The defaults for a home; relative ones are taken from it.
            ///
            /// # Panics
            /// Never: a test reads every default of the table.
            pub fn defaults(home: &Path) -> Config {
                fn default<T: Setting>(text: &str, home: &Path) -> T {
                    T::read(&Raw::text(text), home).expect("a test reads every default of the table")
                }
                Config { $($($name: default($default, home),)+)+ }
            }
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

settings! {
    "The node and its home" {
        /// The home: everything that wemixvisor keeps is below it. Required.
        daemon_home: PathBuf = ".", short "home";
        /// The file name of the node's binary.
        daemon_name: Name = "wemixd", short "name";
        /// The node's data directory. Not set: the --datadir among the node's arguments, otherwise data in the home.
        daemon_data_dir: Option<PathBuf> = "";
        /// The node's IPC socket, as a pattern relative to the data directory.
        daemon_node_ipc: String = "*.ipc";
        /// The lock that the node holds while its databases are open, as a pattern relative to the data directory.
        daemon_node_lock: String = "*/LOCK";
        /// More addresses of the node, tried in order: host:port, a URL, or the path of a socket.
        /// The IPC socket in the data directory always comes first. Not set: localhost:8545 where there is no socket.
        daemon_rpc_address: Vec<Endpoint> = "";
        /// The URL at which the node serves its Prometheus metrics, for the rounds of the consensus in progress.
        daemon_node_metrics_address: Option<HttpUrl> = "";
    }
    "Restarts" {
        /// Whether the node is started again when it ends without having been asked to.
        daemon_restart_on_failure: bool = "true";
        /// How many restarts in a row are tried before giving up, which ends `run` with 79; 0 is no limit.
        daemon_max_restarts: u32 = "5";
        /// Whether the new binary is started after an upgrade. Not so: wemixvisor ends when the switch is made.
        daemon_restart_after_upgrade: bool = "true";
        /// How long to wait between the end of the old node and the start of the new one.
        daemon_restart_delay: Duration = "0s", within "0s" to "1h";
        /// How long to wait for the first answer of a node that has been started.
        daemon_start_timeout: Duration = "10m", within "1s" to "24h";
    }
    "When and how to switch" {
        /// The source of the height. With none the node stops by itself and upgrade-info.json is the trigger.
        daemon_height_source: HeightSource = "rpc";
        /// How often the height and the trigger file are looked at while nothing is near; closer to an upgrade,
        /// and where the node or the kernel reports changes by itself, wemixvisor knows sooner. Where the kernel does, the
        /// file is looked at once a minute for safety. The node of a validator is asked four times per block.
        daemon_poll_interval: Duration = "5s", within "100ms" to "5m";
        /// The shortest time between two blocks of the chain. A head that rises faster is not believed.
        block_period: Duration = "1s", within "1ms" to "1h";
        /// How long a node may take to end after its SIGTERM.
        daemon_shutdown_grace: Duration = "10m", within "1s" to "24h";
        /// The action for a node that takes longer. A node that is killed loses minutes to hours of blocks.
        daemon_stop_timeout_action: StopTimeoutAction = "wait";
        /// How many blocks the new binary must follow before the upgrade counts as done.
        daemon_probation_blocks: u64 = "20", within "1" to "100000";
        /// How long the new binary must run, at least, before the upgrade counts as done.
        daemon_probation_time: Duration = "60s", within "0s" to "24h";
    }
    "Backup and hooks" {
        /// The arguments with which a binary reports its version; a staged binary that fails to is not switched to.
        daemon_smoke_args: String = "version";
        /// Whether the binary of an upgrade is rehearsed by itself as soon as it is ready, as rehearse does by hand. An
        /// upgrade whose rehearsal has failed is held until another one passes or rehearse --force lets it happen.
        daemon_rehearse: Rehearse = "off";
        /// The directory for backups, outside the data directory.
        daemon_data_backup_dir: PathBuf = "backups";
        /// How files get into a backup. With auto each is cloned where the file system can, otherwise linked if the node
        /// never writes to it again, otherwise copied.
        daemon_backup_method: BackupMethod = "auto";
        /// Whether a backup is begun while the node still runs, as its upgrade nears.
        daemon_backup_ahead: bool = "true";
        /// Files left out of backups beside the keys nodekey, keystore and jwtsecret: names anywhere in the data, or
        /// paths below it, with * for any characters.
        daemon_backup_exclude: Vec<String> = "";
        /// How many upgrades keep their backup, that of their last try; older ones are removed when a new one is complete.
        daemon_backup_keep: u32 = "2", within "1" to "1000";
        /// The age at which backups of upgrades are removed, looked at every hour; the newest is kept. Not set: no limit.
        daemon_backup_max_age: Option<Duration> = "";
        /// How many bytes a second are copied, or read to be verified, while a node runs.
        daemon_backup_rate: Size = "200MiB", within "1MiB" to "1TiB";
        /// Whether to switch without a backup of the data.
        unsafe_skip_backup: bool = "false", env "UNSAFE_SKIP_BACKUP";
        /// A program to run before the switch, where the upgrade brings no pre-upgrade of its own.
        daemon_preupgrade: Option<PathBuf> = "";
        /// How often a pre-upgrade that ends with code 31 is run again.
        daemon_preupgrade_max_retries: u32 = "0", within "0" to "100";
        /// How long a pre-upgrade may take, with everything that it starts.
        daemon_preupgrade_timeout: Duration = "5m", within "1s" to "24h";
        /// A program to run when an upgrade is applied, where that brings no post-upgrade of its own.
        daemon_postupgrade: Option<PathBuf> = "";
    }
    "Notifications" {
        /// The program that is run for each event, with its arguments: the path first, then one item each. It gets the event
        /// as JSON on its standard input.
        notify_command: Argv = "";
        /// How long it may take. It holds up the end of wemixvisor for 2 s at most; after a halt, for all of this time.
        notify_timeout: Duration = "30s", within "1s" to "10m";
    }
    "Downloads" {
        /// Whether binaries that are not there are fetched.
        daemon_allow_download_binaries: bool = "false";
        /// The sources of binaries, by upgrade name or default: a URL or a list of mirrors, with {name} {version} {os} {arch}.
        download_urls: DownloadUrls = "";
        /// Whether only https is used.
        daemon_download_require_https: bool = "false";
        /// A file of certificates (PEM) to trust instead of the system's.
        download_ca_file: Option<PathBuf> = "";
        /// The largest file that is fetched.
        download_max_size: Size = "1GiB", within "1KiB" to "1TiB";
        /// The minisign public keys, one of which must have signed every download.
        download_public_keys: Vec<PublicKey> = "";
        /// The HTTP proxy for downloads; the usual proxy variables of the environment are not read.
        download_proxy: Option<HttpUrl> = "";
        /// Whether a download that nothing vouches for is installed. Refused for a validator.
        unsafe_skip_checksum: bool = "false", env "UNSAFE_SKIP_CHECKSUM";
    }
    "Validators" {
        /// Whether this node is a validator: then it is stopped only when the network can spare it.
        validator_mode: bool = "false", env "VALIDATOR_MODE";
        /// The address with which this node seals, where neither its RPC nor its key reveals it.
        validator_address: Option<Address> = "";
        /// Whether a validator's node is started with the settings that make it follow the chain again at once.
        daemon_fast_sync: bool = "true";
        /// When to sign again after the node was killed or has crashed. With wait the node must serve its IPC socket, so
        /// that it can be ordered to seal.
        sign_after_unclean: SignAfterUnclean = "wait";
        /// How long to wait until signing is safe again, before it is left to the operator.
        sign_wait_timeout: Duration = "10m", within "1s" to "24h";
    }
    "Metrics" {
        /// The IP address and port at which /metrics, /healthz and /readyz are served over HTTP, such as 127.0.0.1:9464. Not
        /// set: nowhere.
        metrics_address: Option<SocketAddr> = "";
        /// Whether metrics_address may be one that other hosts can reach. It is a statement of its own, so that an address
        /// that was mistyped or copied opens nothing. There are neither passwords nor encryption, and the page shows when
        /// a validator will stop.
        unsafe_metrics_public: bool = "false";
        /// A file that is replaced by the metrics every 15 s, for the textfile collector of the node exporter. Its name
        /// ends in .prom.
        metrics_textfile: Option<PathBuf> = "";
    }
    "Log" {
        /// The least important messages that are logged.
        log_level: LogLevel = "info";
        /// The form of the log on stderr.
        log_format: LogFormat = "text";
        /// Whether output is coloured; auto looks for a terminal and NO_COLOR.
        log_color: LogColor = "auto";
    }
}

impl Key {
    /// Its environment variable.
    pub fn env(&self) -> String {
        let upper = self.name.to_ascii_uppercase();
        if upper.starts_with("DAEMON_") { upper } else { format!("DAEMON_{upper}") }
    }

    /// Its flag, with the dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// Reads a value for the key, and returns it as `config show` shows it; a relative path is taken from the home.
    ///
    /// # Errors
    /// The problems with it, in words.
    pub fn try_value(&self, text: &str, home: &Path) -> Result<Value, String> {
        let mut config = Config::defaults(home);
        let faults = (self.set)(&mut config, &Raw::text(text), home).err().unwrap_or_default();
        let faults: Vec<String> = faults.into_iter().map(|fault| fault.what).collect();
        if faults.is_empty() { Ok((self.get)(&config)) } else { Err(faults.join("; ")) }
    }

    /// Whether the key is true or false, so that its flag may stand without a value.
    pub fn is_switch(&self) -> bool {
        self.kind == bool::KIND
    }
}

/// The key of a name as in `config.yaml`.
pub fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key of a flag, with or without its dashes and in its long or short form.
pub fn flag(flag: &str) -> Option<&'static Key> {
    let bare = flag.strip_prefix("--").unwrap_or(flag);
    KEYS.iter().find(|key| key.short == Some(bare) || key.flag()[2..] == *bare)
}

/// The name among `candidates` that is most likely meant by `word`.
pub fn nearest<T: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    let plain = |text: &str| {
        let text = text.trim_start_matches('-').to_ascii_lowercase().replace('-', "_");
        text.strip_prefix("daemon_").map_or(text.clone(), str::to_owned)
    };
    let word = plain(word);
    let measured = candidates.into_iter().map(|c| (distance(&word, &plain(c.as_ref())), c));
    let (far, found) = measured.min_by_key(|(far, _)| *far)?;
    (far <= (word.len() / 3).max(1)).then_some(found)
}

/// The number of letters to add, remove or replace to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

fn read_within<T: Setting>(raw: &Raw, base: &Path, bounds: Option<(&str, &str)>) -> Read<T> {
    let value = T::read(raw, base)?;
    if let Some((least, most)) = bounds {
        let rank = |text: &str| T::read(&Raw::text(text), base).ok().and_then(|v| v.rank());
        if value.rank() < rank(least) || value.rank() > rank(most) {
            let what = format!("{} is not between {least} and {most}", raw.as_text().unwrap_or_default());
            return Err(vec![Fault { line: raw.line, what }]);
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mistyped_url_of_any_key_shows_its_password() {
        for name in [
            "daemon_rpc_address",
            "daemon_node_metrics_address",
            "download_urls",
            "download_proxy",
            "notify_command",
        ] {
            let key = named(name).unwrap();
            for text in [
                "http://me:Se/cret@a:1",
                "http://me:Se?cret@a:1/x",
                "http://me:Secret",
                "htp://me:Secret@a:1",
                "http://me:Secret@a:x",
                "http://me:Se#cret@a:1",
                "http://a:1/x?token=Secret",
                "http://me:Secret@[::1",
            ] {
                // The first of these is the path of a program.
                let list = format!("{}{text}", if name == "notify_command" { "/x," } else { "" });
                let shown = match key.try_value(&list, Path::new("/h")) {
                    Ok(value) => value.to_string(),
                    Err(why) => why,
                };
                assert!(!shown.contains("Se") && !shown.contains("cret"), "{name}: {text}: {shown}");
            }
        }
    }

    #[test]
    fn every_default_is_read_and_shown_as_it_is_written() {
        let config = Config::defaults(Path::new("/h"));
        for key in KEYS {
            let mut again = config.clone();
            let default = Raw::text(key.default);
            if key.name != "daemon_home" {
                (key.set)(&mut again, &default, Path::new("/h"))
                    .unwrap_or_else(|e| panic!("{}: {e:?}", key.name));
            }
            assert_eq!(again, config, "{}", key.name);
        }
        assert_eq!(config.daemon_home, Path::new("/h"));
        assert_eq!(config.daemon_data_backup_dir, Path::new("/h/backups"));
        assert_eq!(config.daemon_shutdown_grace, Duration::from_secs(600));
    }

    #[test]
    fn every_bounded_key_can_be_compared_and_refuses_what_is_outside() {
        for key in KEYS {
            let Some((least, most)) = key.bounds else { continue };
            let mut config = Config::defaults(Path::new("/h"));
            for edge in [least, most, key.default] {
                (key.set)(&mut config, &Raw::text(edge), Path::new("/")).unwrap();
            }
            let beyond = match key.kind {
                "duration" => "100h",
                "size" => "2TiB",
                _ => "100001",
            };
            (key.set)(&mut config, &Raw::text(beyond), Path::new("/")).unwrap_err();
        }
    }

    #[test]
    fn every_row_is_documented_and_no_two_share_a_name_flag_or_variable() {
        let mut seen = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(key.doc.ends_with('.') && !key.doc.contains("  "), "{}: {:?}", key.name, key.doc);
            let names = [Some(key.flag()), key.short.map(|s| format!("--{s}")), Some(key.env())];
            for name in names.into_iter().flatten().chain(key.other_env.map(str::to_owned)) {
                assert!(seen.insert(name.clone()), "{name}");
            }
        }
    }

    #[test]
    fn flags_in_all_their_forms() {
        for text in ["--daemon-home", "daemon-home", "--home", "home"] {
            assert_eq!(flag(text).unwrap().name, "daemon_home");
        }
        assert_eq!(flag("--validator-mode").unwrap().env(), "DAEMON_VALIDATOR_MODE");
        assert!(flag("--hom").is_none());
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_key() {
        let names = || KEYS.iter().map(|key| key.name);
        for (word, key) in [
            ("daemon_shutdwon_grace", "daemon_shutdown_grace"),
            ("shutdown_grace", "daemon_shutdown_grace"),
            ("daemon-name", "daemon_name"),
            ("DAEMON_MAX_RESTART", "daemon_max_restarts"),
            ("daemon_validator_mode", "validator_mode"),
        ] {
            assert_eq!(nearest(word, names()), Some(key), "{word}");
        }
        assert_eq!(nearest("colour_of_the_sky", names()), None);
    }
}
