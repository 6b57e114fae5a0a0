//! The configuration: file, environment and flags become one validated [`Config`].
//!
//! One table ([`KEYS`]) has every key with its type, default, bounds and purpose; everything else follows from it.
//! The file is weaker than the environment, the environment weaker than flags; unknown keys are errors; and every
//! problem is reported at once with its place.
//!
//! Architecture invariant: nothing here knows what the values are used for. Nothing is contacted, and
//! except for the configuration file itself the disk is looked at only by [`Loaded::check_disk`].
//!
//! ```
//! use wemixvisor::config::{Config, Sources};
//!
//! let mut sources = Sources { cwd: "/".into(), ..Sources::default() };
//! sources.flags.push(("--home".into(), "/srv/wemix".into()));
//! sources.env.push(("DAEMON_NAME".into(), "gwemix".into()));
//! let loaded = Config::load(&sources)?;
//! assert_eq!(loaded.config.daemon_name.as_str(), "gwemix");
//! assert_eq!(loaded.origin("daemon_name").to_string(), "DAEMON_NAME");
//! assert_eq!(loaded.config.data_dir(&[]), std::path::Path::new("/srv/wemix/data"));
//!
//! sources.flags.push(("--daemon-shutdwon-grace".into(), "10m".into()));
//! sources.env.push(("DAEMON_MAX_RESTARTS".into(), "many".into()));
//! let problems = Config::load(&sources).unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "--daemon-shutdwon-grace: there is no such flag; did you mean --daemon-shutdown-grace?\n\
//!      DAEMON_MAX_RESTARTS: \"many\" is not a whole number"
//! );
//! # Ok::<(), wemixvisor::config::Problems>(())
//! ```

mod check;
mod download;
mod http_url;
pub mod keys;
mod load;
mod policy;
mod problem;
mod show;
mod value;
mod yaml;

pub use download::{DownloadUrls, PublicKey};
pub use http_url::HttpUrl;
pub use keys::{Config, KEYS, Key};
pub use load::{Loaded, Origin, Sources};
pub use problem::{Problem, Problems};
pub use show::Row;
pub use value::{
    Argv, BackupMethod, HeightSource, LogColor, LogFormat, LogLevel, Rehearse, SignAfterUnclean, Size,
    StopTimeoutAction,
};
