//! The node that runs, as a rehearsal sees it: its process, its command line and its data, all of which are only read.

use crate::config::Config;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::flags::value_of;
use crate::home::launch::{self, Process};
use crate::home::{Home, glob};
use crate::wbft::{Client, Endpoint, Options};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time for one answer: the machine does more than usual meanwhile.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer: the digits of a full block.
const LARGEST: usize = 64 << 20;

/// The node that runs.
pub(super) struct Live {
    process: Process,
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Its environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub(super) cwd: PathBuf,
    /// Its data directory, as it was named and as it is.
    pub(super) named: PathBuf,
    pub(super) data: PathBuf,
    endpoints: Vec<Endpoint>,
}

impl Live {
    /// The node of a home, if it runs.
    ///
    /// # Errors
    /// [`Kind::NotMet`] if it does not.
    pub(super) fn find(config: &Config, home: &Home) -> Result<Live> {
        let process = launch::last(home)?.and_then(|last| last.process).ok_or_else(|| {
            Error::new(Kind::NotMet, "no node runs here whose blocks a rehearsal could execute")
                .at(home.root().display())
                .hint("start it with `wemixvisor run`")
        })?;
        let proc = PathBuf::from(format!("/proc/{}", process.pid.as_raw_pid()));
        let args = process.args();
        let cwd = proc.join("cwd");
        let cwd = fs::read_link(&cwd).doing("read link", &cwd)?;
        let environment = proc.join("environ");
        let environment = fs::read(&environment).doing("read", &environment)?;
        let named = data_dir(config, &args, &cwd);
        let data = fs::canonicalize(&named).doing("resolve", &named)?;
        let sockets = glob::expand(&data.join(&config.daemon_node_ipc)).into_iter().map(Endpoint::Ipc);
        let endpoints = sockets.chain(config.daemon_rpc_address.iter().cloned()).collect();
        Ok(Live { process, args, environment: variables(&environment), cwd, named, data, endpoints })
    }

    /// The memory that it has in use, in bytes.
    pub(super) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid.as_raw_pid());
        super::limits::field(&fs::read_to_string(path).unwrap_or_default(), "VmRSS:").unwrap_or(0)
    }

    /// Whether it has a socket in its data directory.
    pub(super) fn has_socket(&self) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| matches!(endpoint, Endpoint::Ipc(path) if path.starts_with(&self.data)))
    }

    /// A client of the first address that answers.
    ///
    /// # Errors
    /// [`Kind::NotMet`] if none does.
    pub(super) fn client(&self) -> Result<Client> {
        let mut failed = None;
        for endpoint in &self.endpoints {
            let mut client = Client::new(endpoint, options());
            match client.block_number() {
                Ok(_) => return Ok(client),
                Err(e) => failed = Some(e),
            }
        }
        Err(match failed {
            Some(e) => Error::new(Kind::NotMet, "the running node does not answer").because(e),
            None => Error::new(Kind::NotMet, "the running node has no socket so far")
                .hint("wait until it has started, or set daemon_node_ipc"),
        })
    }
}

/// The limits of a conversation with either node.
pub(super) fn options() -> Options {
    Options { timeout: ANSWER, max_large_body: LARGEST, ..Options::default() }
}

/// A relative path is one below the working directory of the node, not ours.
fn data_dir(config: &Config, args: &[OsString], cwd: &Path) -> PathBuf {
    let named = value_of(args, "datadir").map(Path::new);
    let relative = named.filter(|path| path.is_relative() && !path.starts_with("~"));
    match relative {
        Some(path) if config.daemon_data_dir.is_none() => cwd.join(path),
        _ => config.data_dir(args),
    }
}

fn variables(environ: &[u8]) -> Vec<(OsString, OsString)> {
    let pair = |text: &[u8]| {
        let at = text.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&text[..at]).to_owned(), OsString::from_vec(text[at + 1..].to_vec())))
    };
    environ.split(|byte| *byte == 0).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_data_directory_is_below_the_directory_in_which_the_node_works() {
        let config = Config::defaults(Path::new("/h"));
        let dir = |words: &str, config: &Config| {
            let args: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
            data_dir(config, &args, Path::new("/cwd"))
        };
        for (words, found) in [
            ("", "/h/data"),
            ("--datadir x", "/cwd/x"),
            ("-datadir=/y --mine", "/y"),
            ("--datadir=a --datadir b", "/cwd/b"),
        ] {
            assert_eq!(dir(words, &config), Path::new(found), "{words}");
        }
        let set = Config { daemon_data_dir: Some("/z".into()), ..config };
        assert_eq!(dir("--datadir x", &set), Path::new("/z"));
    }

    #[test]
    fn an_environment_is_read() {
        let found = variables(b"A=1\0B=x=y\0broken\0C=\0");
        let pairs = [("A", "1"), ("B", "x=y"), ("C", "")];
        assert_eq!(found, pairs.map(|(name, value)| (name.into(), value.into())));
    }
}
