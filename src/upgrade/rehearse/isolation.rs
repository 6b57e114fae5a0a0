//! The command line and the environment of a shadow: those of the running node, changed so that nothing of it reaches the
//! network, the running node's ports, or the running node's files.
//!
//! Flags that open ports, name keys, report elsewhere or write elsewhere are taken out, whatever their value; paths in the
//! data directory become the same paths in the clone; and what isolates is added. A flag that the program does not list in
//! its `--help` is not added, so that a node of another family starts as well. What cannot be isolated is refused.

use crate::error::{Error, Kind, Result};
use crate::flags::flag;
use crate::home::regular;
use crate::sorted::Set;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Families of flags that open ports or write elsewhere: each name itself, and what follows it after a dot.
const FAMILIES: [&str; 8] = ["http", "ws", "graphql", "metrics", "pprof", "authrpc", "discovery", "log"];
/// Other flags that are taken out and take a value.
const VALUES: [&str; 15] = [
    "datadir",
    "nodekey",
    "nodekeyhex",
    "maxpeers",
    "port",
    "nat",
    "bootnodes",
    "ipcpath",
    "ethstats",
    "unlock",
    "password",
    "keystore",
    "verbosity",
    "vmodule",
    "block-time",
];
/// Flags that are taken out and stand alone.
const SWITCHES: [&str; 18] = [
    "mine",
    "ipcdisable",
    "nodiscover",
    "allow-insecure-unlock",
    "discovery.v4",
    "discovery.v5",
    "discv4",
    "discv5",
    "v5disc",
    "log.json",
    "log.rotate",
    "log.compress",
    "http",
    "ws",
    "graphql",
    "metrics",
    "metrics.expensive",
    "pprof",
];
/// The other switches of the families.
const MORE_SWITCHES: [&str; 2] = ["metrics.influxdb", "metrics.influxdbv2"];
/// Flags that lead the node to data elsewhere.
const ELSEWHERE: [&str; 2] = ["datadir.ancient", "datadir.era"];
/// The largest configuration file of a node.
const LARGEST: u64 = 1 << 20;

/// The places of a shadow.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The data directory of the running node, by each of its names.
    pub(super) live: Vec<PathBuf>,
    /// The clone.
    pub(super) data: PathBuf,
    /// The key that is thrown away.
    pub(super) key: PathBuf,
    /// The socket.
    pub(super) socket: PathBuf,
}

/// How a shadow is executed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) args: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
}

/// The launch of a shadow of a node with these arguments and this environment. `known` are the flags that the program
/// lists; `None` if it does not list any, which a geth-like node may.
///
/// # Errors
/// [`Kind::NotMet`] if the node works on data that are not in its data directory.
pub(super) fn launch(
    args: &[OsString],
    environment: &[(OsString, OsString)],
    cwd: &Path,
    places: &Places,
    known: Option<&Set<String>>,
) -> Result<Launch> {
    let mut kept = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some((name, value)) = flag(arg) else {
            kept.push(moved(arg, places));
            continue;
        };
        let takes_value = value.is_none() && !is_switch(name);
        if is_taken_out(name) {
            if takes_value {
                rest.next();
            }
            continue;
        }
        let read = value.or_else(|| rest.as_slice().first().map(OsString::as_os_str));
        refuse_elsewhere(name, read.unwrap_or_default(), cwd, places)?;
        kept.push(match value {
            Some(value) => {
                let mut word = OsStr::from_bytes(&arg.as_bytes()[..arg.len() - value.len()]).to_owned();
                word.push(moved(value, places));
                word
            }
            None => arg.clone(),
        });
    }
    for (name, value) in added(places) {
        if known.map_or(!ONLY_WHERE_LISTED.contains(&name), |known| known.contains(name)) {
            kept.push(format!("--{name}").into());
            kept.extend(value);
        }
    }
    let mut inherited = Vec::new();
    for (name, value) in environment {
        if let Some(flag) = variable_of_elsewhere(name) {
            refuse_elsewhere(flag, value, cwd, places)?;
        }
        if !is_hidden(name) {
            inherited.push((name.clone(), moved(value, places)));
        }
    }
    Ok(Launch { args: kept, environment: inherited })
}

/// Flags that a geth-like node does not have.
const ONLY_WHERE_LISTED: [&str; 1] = ["no-mining"];

fn added(places: &Places) -> Vec<(&'static str, Option<OsString>)> {
    let text = |text: &str| Some(OsString::from(text));
    let path = |path: &Path| Some(path.as_os_str().to_owned());
    vec![
        ("datadir", path(&places.data)),
        ("nodekey", path(&places.key)),
        ("nodiscover", None),
        ("maxpeers", text("0")),
        ("port", text("0")),
        ("authrpc.port", text("0")),
        // They matter where the configuration file of the node opens these servers.
        ("http.port", text("0")),
        ("ws.port", text("0")),
        ("ipcpath", path(&places.socket)),
        ("verbosity", text("3")),
        ("no-mining", None),
    ]
}

/// The flags that a program lists in its help: those at the beginning of a line, without their descriptions.
pub(super) fn listed(help: &str) -> Option<Set<String>> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.map(|line| line.split_once("  ").map_or(line, |(flags, _)| flags));
    let words = flags.flat_map(|flags| flags.split([' ', ',', '=', '[']));
    let names: Set<String> = words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect();
    (names.len() > 3).then_some(names)
}

fn is_switch(name: &str) -> bool {
    SWITCHES.contains(&name) || MORE_SWITCHES.contains(&name)
}

fn is_taken_out(name: &str) -> bool {
    let of_family = |family: &&str| name.strip_prefix(*family).is_some_and(|rest| rest.starts_with('.'));
    VALUES.contains(&name) || is_switch(name) || FAMILIES.iter().any(of_family)
}

/// Whether a variable is one of a flag that is taken out: `GETH_HTTP_PORT` for `http.port`.
fn is_hidden(name: &OsStr) -> bool {
    let Some((_, rest)) = name.to_str().and_then(|name| name.split_once('_')) else { return false };
    let as_variable = |flag: &str| flag.replace(['.', '-'], "_").to_uppercase();
    let of_family = |family: &&str| rest.starts_with(&format!("{}_", as_variable(family)));
    VALUES.iter().chain(&SWITCHES).any(|flag| as_variable(flag) == rest) || FAMILIES.iter().any(of_family)
}

fn variable_of_elsewhere(name: &OsStr) -> Option<&'static str> {
    let (_, rest) = name.to_str()?.split_once('_')?;
    ELSEWHERE.into_iter().chain(["config"]).find(|flag| flag.replace('.', "_").to_uppercase() == rest)
}

/// A path in the data directory as the same path in the clone.
fn moved(word: &OsStr, places: &Places) -> OsString {
    let below = places.live.iter().find_map(|live| Path::new(word).strip_prefix(live).ok());
    match below {
        Some(below) if below.as_os_str().is_empty() => places.data.clone().into_os_string(),
        Some(below) => places.data.join(below).into_os_string(),
        None => word.to_owned(),
    }
}

/// Refuses data that are not in the data directory: a shadow would work on the running node's.
fn refuse_elsewhere(name: &str, value: &OsStr, cwd: &Path, places: &Places) -> Result<()> {
    let path = Path::new(value);
    let refused = |what: String| {
        Err(Error::new(Kind::NotMet, "this node cannot be rehearsed: its shadow would work on the same data")
            .because(what)
            .hint("keep all data of the node below its data directory"))
    };
    if ELSEWHERE.contains(&name)
        && path.is_absolute()
        && !places.live.iter().any(|live| path.starts_with(live))
    {
        return refused(format!("--{name} is {}, outside of its data directory", path.display()));
    }
    if name == "config" && !value.is_empty() {
        let path = cwd.join(path);
        // A file that cannot be read here cannot be read by the node either, which then ends.
        let text = regular::read(&path, LARGEST).unwrap_or_default();
        if let Some(line) = String::from_utf8_lossy(&text).lines().find(|line| names_ancient_data(line)) {
            return refused(format!("{}: {}", path.display(), line.trim()));
        }
    }
    Ok(())
}

/// Whether a line of a TOML file sets an absolute path for the ancient data.
fn names_ancient_data(line: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else { return false };
    let value = value.trim().trim_matches(['"', '\'']);
    matches!(key.trim(), "DatabaseFreezer" | "DatabaseEra") && value.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn places() -> Places {
        Places {
            live: vec!["/h/data".into(), "/link/data".into()],
            data: "/b/r/data".into(),
            key: "/b/r/nodekey".into(),
            socket: "/b/r/data/shadow.ipc".into(),
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn shadow(line: &str, known: Option<&str>) -> Result<String> {
        let known = known.map(|help| listed(help).unwrap());
        let launch = launch(&words(line), &[], Path::new("/"), &places(), known.as_ref())?;
        Ok(launch.args.join(OsStr::new(" ")).into_string().unwrap())
    }

    const ISOLATED: &str = "--datadir /b/r/data --nodekey /b/r/nodekey --nodiscover --maxpeers 0 --port 0 --authrpc.port 0 \
                            --http.port 0 --ws.port 0 --ipcpath /b/r/data/shadow.ipc --verbosity 3";

    #[test]
    fn nothing_of_a_shadow_reaches_the_network_or_the_running_nodes_ports_and_files() {
        let line = "--datadir /h/data --mine --syncmode full --http --http.port 8545 --http.api eth,net --ws=true \
                    -ws.port=1 --port 30303 --nodekey /h/data/geth/nodekey --unlock 0x1 --password p --cache 1024 \
                    --bootnodes enode://x --metrics --metrics.addr 0.0.0.0 --metrics.influxdb --pprof --nat any \
                    --authrpc.jwtsecret /x --log.file /h/log --verbosity=1 --ethstats a:b@c --config /none.toml \
                    --allow-insecure-unlock --state /h/data/state.json --other=/h/data/x";
        let kept = "--syncmode full --cache 1024 --config /none.toml --state /b/r/data/state.json --other=/b/r/data/x ";
        assert_eq!(shadow(line, None).unwrap(), format!("{kept}{ISOLATED}"));
    }

    #[test]
    fn only_flags_that_the_program_lists_are_added() {
        let help = "Usage: x\n  --ipc [<PATH>]\n   [aliases: --ipcpath]\n  -p, --port <NUM>  see --nodekey\n\
                    --no-mining, --no-mine\n  --block-time <S>\n  --host=<IP>";
        let line = "--quiet --block-time 1 --port 8545 --state /h/data/s.json --ipc /h/data/anvil.ipc";
        let expected = "--quiet --state /b/r/data/s.json --ipc /b/r/data/anvil.ipc --port 0 --no-mining";
        assert_eq!(shadow(line, Some(help)).unwrap(), expected);
        assert_eq!(listed("what is that? --help"), None);
    }

    #[test]
    fn data_elsewhere_are_refused() {
        let refused = |line: &str| shadow(line, None).unwrap_err().to_string();
        assert!(refused("--datadir.ancient /mnt/a").contains("--datadir.ancient is /mnt/a, outside"));
        assert!(refused("--datadir.ancient=/mnt/a").contains("outside"));
        assert!(
            shadow("--datadir.ancient /h/data/a", None)
                .unwrap()
                .starts_with("--datadir.ancient /b/r/data/a ")
        );
        assert!(shadow("--datadir.ancient a", None).unwrap().starts_with("--datadir.ancient a "));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c.toml"), "[Eth]\nDatabaseFreezer = \"/mnt/a\"\n").unwrap();
        let config = words("--config c.toml");
        let err = launch(&config, &[], dir.path(), &places(), None).unwrap_err().to_string();
        assert!(err.contains("DatabaseFreezer"), "{err}");
        let variable = [("GETH_DATADIR_ANCIENT".into(), "/mnt/a".into())];
        launch(&[], &variable, Path::new("/"), &places(), None).unwrap_err();
        assert!(!names_ancient_data("DatabaseFreezer = \"\"") && !names_ancient_data("# nothing"));
    }

    #[test]
    fn variables_of_flags_that_are_taken_out_are_hidden() {
        let hidden =
            ["GETH_MINE", "GWEMIX_HTTP", "GETH_HTTP_PORT", "GETH_LOG_FILE", "GETH_DATADIR", "X_WS_ORIGINS"];
        let kept = ["PATH", "HOME", "GETH_CACHE", "GETH_SYNCMODE", "HTTP_PROXY", "GETH_HTTPS", "MINE"];
        let environment: Vec<_> = hidden
            .iter()
            .chain(&kept)
            .map(|name| (OsString::from(name), OsString::from("/h/data/x")))
            .collect();
        let launch = launch(&[], &environment, Path::new("/"), &places(), None).unwrap();
        assert_eq!(launch.environment, kept.map(|name| (name.into(), "/b/r/data/x".into())));
    }
}
