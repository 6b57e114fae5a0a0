//! The command line of a geth-like node, as far as the simulation has any use for it.
//!
//! Flags may be written `--flag value`, `--flag=value` or with one dash. Flags that a real command line carries and the
//! simulation has no use for are accepted and ignored; an unknown one is refused as recorded.

use super::options::Options;
use super::store::INSTANCE;
use super::sync::{self, Cycle};
use std::path::{Path, PathBuf};

/// The first word of a command line.
pub(crate) enum Command {
    Run(Box<Args>),
    Version,
    Init(Option<PathBuf>),
    Stamp { out: PathBuf, pairs: Vec<(String, String)> },
    Sleep(u64),
}

/// How to run.
#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) options: Options,
    pub(crate) datadir: PathBuf,
    pub(crate) mine: bool,
    pub(crate) http: Option<Endpoint>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) maxpeers: u64,
    /// When the node looks for a better chain.
    pub(crate) cycle: Cycle,
    /// Whether every state is written at once (`--gcmode archive`, `--cache.gc 0`), so that a kill rewinds nothing.
    pub(crate) archive: bool,
}

impl Args {
    /// Whether `--maxpeers 0` keeps the node out of every network. A chain of one needs no network.
    pub(crate) fn is_dry(&self) -> bool {
        self.maxpeers == 0 && !(self.mine && self.options.validators == 1)
    }
}

/// A TCP endpoint and the modules it serves.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) addr: String,
    pub(crate) port: u16,
    pub(crate) api: Vec<String>,
}

impl Endpoint {
    fn new(port: u16) -> Endpoint {
        Endpoint { addr: "127.0.0.1".into(), port, api: modules("eth,net,web3") }
    }
}

/// Known flags that take no value and do nothing here.
const SWITCHES: &[&str] = &["nodiscover", "metrics", "allow-insecure-unlock", "ipv6", "snapshot", "ws"];
/// Known flags that take a value and do nothing here.
const IGNORED: &[&str] = &[
    "networkid",
    "syncmode",
    "port",
    "authrpc.addr",
    "authrpc.port",
    "authrpc.jwtsecret",
    "bootnodes",
    "nat",
    "cache",
    "unlock",
    "password",
    "http.corsdomain",
    "http.vhosts",
    "ws.addr",
    "ws.port",
    "ws.api",
    "ws.origins",
    "metrics.addr",
    "metrics.port",
    "identity",
    "keystore",
    "miner.etherbase",
    "state.scheme",
    "log.file",
];

/// A node with a throw-away key has an index this far beyond the validators.
const THROW_AWAY: usize = 16;

/// Reads the command line without the program's name; `stamp` are the options of the binary itself.
pub(crate) fn parse(words: &[String], stamp: &[(String, String)]) -> Result<Command, String> {
    let mut options = Options::default();
    stamp.iter().try_for_each(|(name, value)| options.set(name, value))?;
    let mut args = Args {
        options,
        datadir: "simnode-data".into(),
        mine: false,
        http: None,
        ipc: None,
        maxpeers: 50,
        cycle: Cycle::default(),
        archive: false,
    };
    sync::from_environment(&mut args.cycle, |name| std::env::var(name).ok())?;
    let mut http = (false, Endpoint::new(8545));
    let mut ipc = Some(PathBuf::from("simnode.ipc"));
    let mut nodekey = None;
    let mut plain: Vec<&str> = Vec::new();
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix('-').map(|flag| flag.strip_prefix('-').unwrap_or(flag)) else {
            plain.push(word);
            continue;
        };
        let (flag, mut given) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = || {
            given
                .take()
                .or_else(|| rest.next().map(str::to_owned))
                .ok_or(format!("flag needs an argument: -{flag}"))
        };
        match flag {
            "datadir" => args.datadir = value()?.into(),
            "mine" => args.mine = true,
            "nodekey" => nodekey = Some(PathBuf::from(value()?)),
            "maxpeers" => args.maxpeers = whole(flag, &value()?)?,
            "gcmode" => args.archive |= value()? == "archive",
            "cache.gc" => args.archive |= whole::<u64>(flag, &value()?)? == 0,
            "sync.forcecycle" => args.cycle.force = sync::flag(flag, &value()?)?,
            "sync.tdinterval" => args.cycle.interval = sync::flag(flag, &value()?)?,
            "http" => http.0 = true,
            "http.addr" => http.1.addr = value()?,
            "http.port" => http.1.port = port(flag, &value()?)?,
            "http.api" => http.1.api = modules(&value()?),
            "ipcdisable" => ipc = None,
            "ipcpath" => ipc = Some(value()?.into()),
            "verbosity" => super::log::set_verbosity(value()?.parse().unwrap_or(3)),
            "config" => {
                let path = value()?;
                std::fs::read(&path).map_err(|_| format!("Fatal: open {path}: no such file or directory"))?;
            }
            "sim.stamp" => {
                let out = value()?.into();
                return Ok(Command::Stamp { out, pairs: pairs(rest)? });
            }
            _ if SWITCHES.contains(&flag) => {}
            _ if IGNORED.contains(&flag) => drop(value()?),
            _ => match flag.strip_prefix("sim.") {
                Some(name) => args.options.set(name, &value()?)?,
                None => return Err(format!("flag provided but not defined: -{flag}")),
            },
        }
    }
    match plain.as_slice() {
        [] => {
            args.http = http.0.then_some(http.1);
            args.ipc = ipc.map(|path| args.datadir.join(path));
            if let Some(path) = nodekey {
                take_key(&mut args, &path)?;
            }
            Ok(Command::Run(Box::new(args)))
        }
        ["version"] => Ok(Command::Version),
        ["init", ..] => {
            Ok(Command::Init(words.iter().any(|word| word.contains("datadir")).then_some(args.datadir)))
        }
        ["sleeper", ms] => Ok(Command::Sleep(ms.parse().unwrap_or(0))),
        [other, ..] => Err(format!("Fatal: invalid command: {other:?}")),
    }
}

/// Makes the node another one, no validator, unless the key is its own. It stays behind the same address.
fn take_key(args: &mut Args, path: &Path) -> Result<(), String> {
    let given = std::fs::read_to_string(path).map_err(|err| format!("Fatal: Option \"nodekey\": {err}"))?;
    let own = std::fs::read_to_string(args.datadir.join(INSTANCE).join("nodekey")).unwrap_or_default();
    if given.trim() != own.trim() {
        let options = &mut args.options;
        options.host = Some(options.address());
        options.index += options.validators + THROW_AWAY;
    }
    Ok(())
}

/// The option pairs of a stamp; each is tried out, so that a typing mistake does not become a strange binary.
fn pairs<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, String> {
    let pairs: Vec<(String, String)> = words
        .map(|word| word.split_once('=').ok_or(format!("want NAME=VALUE, have {word:?}")))
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Result<_, _>>()?;
    pairs.iter().try_for_each(|(name, value)| Options::default().set(name, value))?;
    Ok(pairs)
}

fn port(flag: &str, text: &str) -> Result<u16, String> {
    whole(flag, text)
}

fn whole<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("invalid value {text:?} for flag -{flag}: parse error"))
}

fn modules(text: &str) -> Vec<String> {
    text.split(',').map(|module| module.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_of_a_node_are_read() {
        let line =
            "--datadir /d --mine --http --http.port=0 --http.api eth,istanbul -networkid 5 --sim.period 20";
        let Ok(Command::Run(args)) = parse(&words(line), &[("version".into(), "v9".into())]) else {
            panic!()
        };
        assert_eq!((args.datadir.to_str(), args.mine, args.options.period), (Some("/d"), true, 20));
        assert_eq!(args.options.version, "v9");
        assert_eq!(args.ipc.unwrap().to_str(), Some("/d/simnode.ipc"));
        let http = args.http.unwrap();
        assert_eq!((http.port, http.api), (0, vec!["eth".to_owned(), "istanbul".to_owned()]));
        assert_eq!((args.maxpeers, args.archive), (50, false));
    }

    #[test]
    fn flags_of_the_network_and_the_database_are_read() {
        let line = "--nodiscover --maxpeers 0 --cache.gc 0 --sync.forcecycle 1ms --sync.tdinterval=100ms";
        let Ok(Command::Run(args)) = parse(&words(line), &[]) else { panic!() };
        assert_eq!((args.maxpeers, args.archive), (0, true));
        assert_eq!(args.cycle, Cycle { force: 1, interval: 100 });
        assert!(parse(&words("--sync.forcecycle soon"), &[]).is_err());
    }

    #[test]
    fn a_throw_away_key_makes_another_node_behind_the_same_address() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("simnode/nodekey"), dir.path().join("other"));
        std::fs::create_dir(dir.path().join("simnode")).unwrap();
        std::fs::write(&own, "ab12").unwrap();
        std::fs::write(&other, "cd34\n").unwrap();
        let with = |key: &Path| {
            let line = format!(
                "--datadir {} --sim.index 2 --sim.validators 4 --nodekey {}",
                dir.path().display(),
                key.display()
            );
            let Ok(Command::Run(args)) = parse(&words(&line), &[]) else { panic!() };
            (args.options.index, args.options.address())
        };
        assert_eq!((with(&own), with(&other)), ((2, 2), (22, 2)));
        assert!(parse(&words("--nodekey /nonexistent"), &[]).is_err());
    }

    #[test]
    fn unknown_flags_are_refused_as_recorded() {
        let refused = |line: &str| parse(&words(line), &[]).err().unwrap();
        assert_eq!(refused("--no-such-flag"), "flag provided but not defined: -no-such-flag");
        assert_eq!(refused("--config n5/none.toml"), "Fatal: open n5/none.toml: no such file or directory");
        assert!(refused("--sim.perod 3").contains("there is no such option"));
        assert!(refused("--sim.stamp out version").contains("want NAME=VALUE"));
    }
}
