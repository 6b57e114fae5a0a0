//! Other programs that supervise the same home, or run a node on its data: they hold none of our locks.

use super::judge::{Finding, fail, lines};
use crate::flags::value_of;
use crate::home::Home;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Supervisors of such homes.
const SUPERVISORS: [&str; 2] = ["cosmovisor", "wemixvisor"];

/// Looks for them among the processes that we may see, but for these of our own.
pub(super) fn find(home: &Home, ours: &[Option<u32>]) -> Vec<Finding> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| *pid != std::process::id() && !ours.contains(&Some(*pid)));
    let faults = others.filter_map(|pid| {
        let words = words(&fs::read(format!("/proc/{pid}/cmdline")).ok()?);
        let what = rival(&words, home, || fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())?;
        Some(fail(format!("process {pid} {what}"), format!("stop it, and its unit: systemctl status {pid}")))
    });
    lines("supervisor", faults.collect(), "no other program works on this home")
}

/// The role of a process with this command line and environment, if it works on the home as well.
fn rival(words: &[OsString], home: &Home, environment: impl Fn() -> Vec<u8>) -> Option<String> {
    let (program, args) = words.split_first()?;
    let name = Path::new(program).file_name()?.to_str()?;
    if SUPERVISORS.contains(&name) {
        let is_home = |value: &OsStr| Path::new(value) == home.root();
        let named = value_of(args, "home").is_some_and(is_home);
        let variable = || {
            environment().split(|byte| *byte == 0).any(|variable| {
                variable.strip_prefix(b"DAEMON_HOME=").is_some_and(|value| is_home(OsStr::from_bytes(value)))
            })
        };
        let runs = args.iter().any(|arg| arg == "run" || arg == "start");
        return (runs && (named || variable())).then(|| format!("({name}) supervises this home as well"));
    }
    let datadir = value_of(args, "datadir").filter(|dir| Path::new(dir) == home.data());
    datadir.map(|_| format!("({name}) is a node on this data directory that is not ours"))
}

/// The words of a command line, each of which ends with a zero byte.
pub(super) fn words(line: &[u8]) -> Vec<OsString> {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    line.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_rival_where_it_works_on_this_home_or_its_data() {
        let home = Home::new("/srv/node", "gwemix").unwrap();
        let role = |line: &str, environment: &'static [u8]| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            rival(&words, &home, || environment.to_vec())
                .map(|what| what.split(' ').nth(1).unwrap().to_owned())
        };
        let here = b"PATH=/bin\0DAEMON_HOME=/srv/node\0";
        for (line, environment, is) in [
            ("/usr/bin/cosmovisor run start", &here[..], Some("supervises")),
            ("cosmovisor run start", b"DAEMON_HOME=/srv/other\0", None),
            ("wemixvisor --home /srv/node run", b"", Some("supervises")),
            ("wemixvisor --home /srv/node status --watch", b"", None),
            ("/opt/gwemix --datadir /srv/node/data --mine", b"", Some("is")),
            ("/opt/gwemix --datadir=/srv/node/data2", b"", None),
            ("vi /srv/node/data", b"", None),
            ("", b"", None),
        ] {
            assert_eq!(role(line, environment).as_deref(), is, "{line}");
        }
    }
}
