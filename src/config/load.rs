//! From file, environment and flags to one [`Config`], with every problem of all three.
//!
//! A value that a stronger source overrides is checked all the same: it takes effect on the day when the other is
//! gone. Reading the file is the only I/O; whether what the values name exists is looked at in [`super::check`].

use super::check;
use super::keys::{self, Config, KEYS, Key};
use super::problem::{Problem, Problems};
use super::value::{Data, Raw, Setting as _};
use super::yaml;
use crate::home::regular;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Larger than any configuration; it bounds what a wrong path can make us read.
const MAX_FILE: u64 = 1 << 20;

/// The sources of a configuration, weakest first: file, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config`, which must exist. Otherwise `wemixvisor/config.yaml` in the home, if it does.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// Flags and their values. The names are those that [`keys::flag`] finds.
    pub flags: Vec<(String, String)>,
    /// The directory from which relative paths of `--config` and of flags are taken.
    pub cwd: PathBuf,
}

/// The source of an effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was not set.
    Default,
    /// The configuration file and a line of it.
    File(PathBuf, usize),
    /// This environment variable.
    Env(String),
    /// This flag.
    Flag(String),
}

/// A configuration with the sources of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Warnings: suspicious, but no reason to stop.
    pub warnings: Vec<Problem>,
    origins: Origins,
}

/// The source of each value that is set, by the name of its key.
type Origins = BTreeMap<&'static str, Origin>;

/// The keys and values of one source.
type Layer = Vec<(&'static Key, Origin, Raw)>;

impl Sources {
    /// The environment and working directory of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        // Without a working directory (it was removed) only absolute paths make sense.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Sources { file, env: std::env::vars_os().collect(), flags, cwd }
    }
}

impl Loaded {
    /// The source of the value of a key.
    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }
}

impl Config {
    /// Reads all sources and checks what can be checked without looking at the disk.
    ///
    /// # Errors
    /// Every problem found in any source, each with its place.
    pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
        let mut loader = Loader::default();
        let flags = loader.flags(&sources.flags);
        let env = loader.env(&sources.env);
        let given_home = loader.home(&flags, &sources.cwd).or_else(|| loader.home(&env, Path::new("")));
        let file = match &sources.file {
            Some(path) => Some(sources.cwd.join(path)),
            None => given_home.as_ref().map(|home| home.join("wemixvisor/config.yaml")),
        };
        // One that is not named need not exist.
        let contents = match file.as_deref().map(|path| regular::read(path, MAX_FILE)) {
            Some(Err(e)) if sources.file.is_some() || e.kind() != io::ErrorKind::NotFound => {
                let path = file.as_deref().unwrap_or(Path::new(""));
                loader.problems.add(Problem::unreadable(path, &e));
                None
            }
            read => read.and_then(Result::ok),
        };
        let in_file = contents.as_deref().zip(file.as_deref());
        let in_file = in_file.map(|(bytes, path)| loader.file(path, bytes)).unwrap_or_default();
        let home = given_home.or_else(|| loader.home(&in_file, Path::new("")));
        let is_named =
            [&flags, &env, &in_file].into_iter().flatten().any(|(key, ..)| key.name == "daemon_home");
        if !is_named && loader.problems.0.is_empty() {
            let unset = Problem::new("daemon_home", "it is not set");
            loader.problems.add(unset.hint("give --home DIR or set DAEMON_HOME"));
        }

        let home = home.unwrap_or_else(|| sources.cwd.clone());
        let mut config = Config::defaults(&home);
        let mut origins = Origins::new();
        for (layer, base) in [(in_file, &home), (env, &home), (flags, &sources.cwd)] {
            loader.apply(layer, base, &mut config, &mut origins);
        }
        let mut loaded = Loaded { config, file: contents.and(file), warnings: loader.warnings, origins };
        check::combinations(&mut loaded, &mut loader.problems);
        loader.problems.into_result().map(|()| loaded)
    }
}

#[derive(Default)]
struct Loader {
    problems: Problems,
    warnings: Vec<Problem>,
}

impl Loader {
    fn flags(&mut self, flags: &[(String, String)]) -> Layer {
        let mut layer = Layer::new();
        for (name, text) in flags {
            match keys::flag(name) {
                Some(key) if layer.iter().any(|(k, ..)| k.name == key.name) => {
                    self.problems.add(Problem::new(key.flag(), "it is given twice"));
                }
                Some(key) => layer.push((key, Origin::Flag(key.flag()), Raw::text(text))),
                None => {
                    let unknown = Problem::new(name, "there is no such flag");
                    let near = keys::nearest(name, KEYS.iter().map(Key::flag));
                    self.problems.add(suggest(unknown, near.as_deref()));
                }
            }
        }
        layer
    }

    fn env(&mut self, env: &[(OsString, OsString)]) -> Layer {
        let value_of = |name: &str| {
            let (_, value) = env.iter().find(|(n, v)| n == name && !v.is_empty())?;
            Some((name.to_owned(), value.as_os_str()))
        };
        let mut layer = Layer::new();
        for key in KEYS {
            let (own, other) = (value_of(&key.env()), key.other_env.and_then(value_of));
            if let (Some((own, a)), Some((other, b))) = (&own, &other)
                && a != b
            {
                self.problems.add(Problem::new(own, format!("its value differs from that of {other}")));
            }
            let Some((name, value)) = own.or(other) else { continue };
            match value.to_str() {
                Some(text) => layer.push((key, Origin::Env(name), Raw::text(text))),
                None => self.problems.add(Problem::new(name, "its value is not UTF-8 text")),
            }
        }
        self.warnings.extend(env.iter().filter_map(|(name, _)| foreign(name)));
        layer
    }

    fn file(&mut self, path: &Path, bytes: &[u8]) -> Layer {
        let mut layer = Layer::new();
        for (name, raw) in yaml::parse(path, bytes, &mut self.problems) {
            let origin = Origin::File(path.to_owned(), raw.line);
            match keys::named(&name) {
                Some(_) if raw.data == Data::Unset => {}
                Some(key) => layer.push((key, origin, raw)),
                None => {
                    let unknown = Problem::new(origin, format!("there is no key {name}"));
                    let near = keys::nearest(&name, KEYS.iter().map(|key| key.name));
                    self.problems.add(suggest(unknown, near));
                }
            }
        }
        layer
    }

    /// The home that a layer names. Only a flag may name it relative to a `base`: what a service inherits
    /// must not depend on where it is started.
    fn home(&mut self, layer: &Layer, base: &Path) -> Option<PathBuf> {
        let (_, origin, raw) = layer.iter().find(|(key, ..)| key.name == "daemon_home")?;
        // A value that is no path at all is reported where all values are.
        let home = PathBuf::read(raw, base).ok()?;
        if home.is_absolute() {
            return Some(home);
        }
        self.problems.add(Problem::new(origin, format!("daemon_home: {home:?} is not an absolute path")));
        None
    }

    fn apply(&mut self, layer: Layer, base: &Path, config: &mut Config, origins: &mut Origins) {
        for (key, origin, raw) in layer {
            match (key.set)(config, &raw, base) {
                Ok(()) => _ = origins.insert(key.name, origin),
                Err(faults) => faults.into_iter().for_each(|fault| {
                    let what = match &origin {
                        Origin::File(..) => format!("{}: {}", key.name, fault.what),
                        Origin::Default | Origin::Env(_) | Origin::Flag(_) => fault.what,
                    };
                    self.problems.add(Problem::new(origin.in_line(fault.line), what));
                }),
            }
        }
    }
}

impl Origin {
    fn in_line(&self, line: usize) -> Origin {
        match self {
            Origin::File(path, _) if line > 0 => Origin::File(path.clone(), line),
            same => same.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A warning about a variable that looks like one of ours, or is one of another supervisor, and has no effect.
///
/// It is no error, because the node itself may have variables of the same prefix.
fn foreign(name: &OsStr) -> Option<Problem> {
    let name = name.to_str()?;
    let warning = || Problem::new(name, "there is no such variable, so it has no effect");
    let instead = match name {
        "COSMOVISOR_CUSTOM_PREUPGRADE" => "set DAEMON_PREUPGRADE to the path of the program",
        "DAEMON_DEBUG" => "set DAEMON_LOG_LEVEL to debug",
        "DAEMON_DOWNLOAD_MUST_HAVE_CHECKSUM" => "a checksum is always required",
        "DAEMON_GRPC_ADDRESS" => "the node is asked at DAEMON_RPC_ADDRESS",
        "DAEMON_RPC_PORT" => "set DAEMON_RPC_ADDRESS to host:port",
        _ if name.starts_with("COSMOVISOR_") => "it belongs to Cosmovisor; remove it",
        _ if !name.starts_with("DAEMON_") || KEYS.iter().any(|key| key.env() == name) => return None,
        _ => return Some(suggest(warning(), keys::nearest(name, KEYS.iter().map(Key::env)).as_deref())),
    };
    Some(warning().hint(instead))
}

fn suggest(problem: Problem, near: Option<&str>) -> Problem {
    match near {
        Some(name) => problem.hint(format!("did you mean {name}?")),
        None => problem,
    }
}

#[cfg(test)]
mod tests;
