//! `doctor`: one line for each thing that must be right before a node can be left alone, with the cure where it is not.
//!
//! Facts are gathered here and judged in [`judge`]. Checks that `run` and other commands make are theirs, and are only
//! shown here. Nothing is changed, and the node is asked nothing that costs it more than `consensus` does.

mod judge;
mod rivals;

use super::args::Format;
use super::show::{current, folded};
use super::{network, output, terminal};
use crate::config::{Config, Loaded};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::flags::value_of;
use crate::home::{Home, glob, launch};
use crate::machine::{Chain, Target, View};
use crate::supervisor::{Status, endpoints};
use crate::upgrade::backup::{self, is_key};
use crate::upgrade::install;
use crate::upgrade::journal::Journal;
use crate::wbft::{ConsensusState, Endpoint};
use judge::{Fault, Finding, Mark, Node, Seen, Unit, fail, lines, warn};
use rustix::process::geteuid;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Everything below the home whose owner and mode matter, as patterns.
const OURS: [&str; 13] = [
    "",
    "wemixvisor",
    "wemixvisor/config.yaml",
    "wemixvisor/state",
    "wemixvisor/downloads",
    "wemixvisor/plans",
    "wemixvisor/plans/*.json",
    "wemixvisor/genesis",
    "wemixvisor/genesis/bin",
    "wemixvisor/genesis/bin/*",
    "wemixvisor/upgrades",
    "wemixvisor/upgrades/*",
    "wemixvisor/upgrades/*/*",
];
/// The keys of a node in its data directory.
const KEYS: [&str; 4] = ["nodekey", "*/nodekey", "*/jwtsecret", "keystore/*"];
/// Flags of the node that name files with secrets.
const SECRETS: [&str; 3] = ["nodekey", "password", "authrpc.jwtsecret"];

/// Makes every check and shows how they went; for a node with these arguments, or the one that runs.
pub(super) fn doctor(loaded: &Loaded, home: Home, args: Vec<OsString>, format: Format) -> Result<u8> {
    let status = current(&loaded.config, &home);
    let node = status.as_ref().ok().and_then(|status| Some(Process::of(status.view.node.as_ref()?.pid)));
    let args = Some(args).filter(|args| !args.is_empty()).or(node.as_ref().map(|node| node.args()));
    let home = home.with_data(loaded.config.data_dir(args.as_deref().unwrap_or_default()));
    let case = Case {
        loaded,
        config: &loaded.config,
        home: &home,
        args: args.as_deref(),
        node,
        status: status.as_ref().ok(),
    };
    let mut findings = case.laid_out(status.as_ref().err());
    findings.extend(case.at_rest());
    findings.extend(case.binaries());
    findings.extend(case.planned());
    findings.extend(case.running());
    findings.extend(case.service());
    let failed = findings.iter().any(|finding| finding.result == Mark::Fail);
    output(format, &json!({"schema": 1, "healthy": !failed, "checks": findings}), || {
        let width = terminal::of_stdout(case.config).0;
        findings.iter().map(|finding| shown(finding, width)).collect()
    })?;
    Ok(if failed { Exit::NotMet } else { Exit::Ok }.code())
}

/// The faults that `run` does not look for itself, each in one line with its cure.
pub(super) fn before_start(loaded: &Loaded, home: &Home, args: &[OsString]) -> Vec<Finding> {
    let node = launch::last(home).ok().flatten().and_then(|last| last.process);
    let node = node.map(|node| Process::of(node.pid.as_raw_pid().unsigned_abs()));
    let case = Case { loaded, config: &loaded.config, home, args: Some(args), node, status: None };
    let mut findings = case.at_rest();
    findings.retain(|finding| finding.result == Mark::Fail);
    findings
}

/// A finding as text, with its cure.
pub(super) fn shown(finding: &Finding, width: usize) -> String {
    let mark = match finding.result {
        Mark::Ok => "ok",
        Mark::Warn => "WARN",
        Mark::Fail => "FAIL",
    };
    let cure = finding.cure.as_ref().map(|cure| format!("; {cure}")).unwrap_or_default();
    folded(&format!("{mark:<5} {:<12}", finding.check), &format!("{}{cure}", finding.text), width)
}

/// The things that are examined.
struct Case<'a> {
    loaded: &'a Loaded,
    config: &'a Config,
    home: &'a Home,
    /// The node's arguments, where they are known.
    args: Option<&'a [OsString]>,
    /// The node that runs.
    node: Option<Process>,
    status: Option<&'a Status>,
}

/// The process of the node, as proc(5) shows it.
struct Process {
    pid: u32,
    line: Vec<u8>,
    environment: Vec<u8>,
}

impl Process {
    fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        Process { pid, line: read("cmdline"), environment: read("environ") }
    }

    /// The digest of its program, where that may be read.
    fn sha256(&self) -> Option<Digest> {
        let program = File::open(format!("/proc/{}/exe", self.pid)).ok()?;
        Digest::of_reader(Algorithm::Sha256, program).ok()
    }

    fn args(&self) -> Vec<OsString> {
        rivals::words(&self.line).into_iter().skip(1).collect()
    }
}

impl Case<'_> {
    fn view(&self) -> Option<&View> {
        self.status.map(|status| &status.view)
    }

    fn args(&self) -> &[OsString] {
        self.args.unwrap_or_default()
    }

    /// The home as `config check` judges it, and its records.
    fn laid_out(&self, unread: Option<&Error>) -> Vec<Finding> {
        let (problems, doubts) = self.loaded.check_disk(self.args());
        let problems = problems.0.iter().map(|problem| told(Mark::Fail, problem));
        let mut faults: Vec<Fault> = problems.collect();
        if faults.is_empty() {
            let link = self.home.read_current().err();
            faults.extend(link.iter().chain(unread).take(1).map(|e| told(Mark::Fail, e)));
            faults.extend(doubts.iter().map(|doubt| told(Mark::Warn, doubt)));
        }
        let mut findings = lines("home", faults, self.home.root().display());
        let (unfit, doubts) = self.loaded.check_args(self.args());
        let dirs = self.config.check_dirs(self.args()).err();
        let problems = unfit.0.iter().chain(dirs.iter().flat_map(|dirs| &dirs.0));
        let mut faults: Vec<Fault> = problems.map(|problem| told(Mark::Fail, problem)).collect();
        let doubts = doubts.iter().chain(&self.loaded.warnings);
        faults.extend(doubts.map(|doubt| told(Mark::Warn, doubt)));
        let file = self.loaded.file.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
        findings.extend(lines("config", faults, file));
        findings
    }

    /// Everything that can be judged without a node that runs, and in milliseconds.
    fn at_rest(&self) -> Vec<Finding> {
        let expand = |dir: &Path, patterns: &[&str]| -> Vec<PathBuf> {
            patterns.iter().flat_map(|pattern| glob::expand(&dir.join(pattern))).collect()
        };
        let mut paths = expand(self.home.root(), &OURS);
        paths.extend([self.home.data(), self.home.backups()].map(Path::to_owned));
        paths.extend(self.loaded.file.clone());
        paths.extend(self.config.daemon_preupgrade.clone());
        let paths = seen(paths);
        let user = paths.first().map_or(geteuid().as_raw(), |root| root.owner);
        let mut keys = expand(self.home.data(), &KEYS);
        keys.retain(|path| is_key(path));
        keys.extend(SECRETS.iter().filter_map(|flag| value_of(self.args(), flag)).map(PathBuf::from));
        let keys = seen(keys);
        let dirs: Vec<Seen> = paths.iter().skip(1).filter(|seen| seen.path.is_dir()).cloned().collect();
        let mut findings = judge::modes(&paths, user);
        findings.extend(judge::links(&dirs));
        findings.extend(judge::keys(&keys));
        if self.args.is_some() {
            let mut sockets = Vec::new();
            for endpoint in endpoints(self.config, self.home) {
                if let Endpoint::Ipc(path) = endpoint {
                    sockets.push(path);
                }
            }
            let node = self.node();
            findings.extend(judge::arguments(&node, self.config));
            findings.extend(judge::interfaces(&node, &seen(sockets)));
        } else {
            let text = "not checked: no node runs";
            findings.extend(lines("arguments", vec![warn(text, "name them: wemixvisor doctor -- ARGS")], ""));
        }
        let pids = [self.status.and_then(|status| status.pid), self.node.as_ref().map(|node| node.pid)];
        findings.extend(rivals::find(self.home, &pids));
        findings
    }

    fn node(&self) -> Node<'_> {
        let peers = self.view().and_then(|view| view.network.as_ref()?.peers);
        Node {
            args: self.args(),
            may_lack_mine: self.node.is_some(),
            environment: self.node.as_ref().map(|node| &*node.environment).unwrap_or_default(),
            peers: peers.and_then(|peers| u64::try_from(peers).ok()),
        }
    }

    /// Whether the supervisor keeps the node from sealing for now.
    fn is_silent(&self) -> bool {
        self.view().is_some_and(|view| view.silent.is_some())
    }

    /// The binaries that are in use, planned or staged, and the room for the backup before the next one.
    fn binaries(&self) -> Vec<Finding> {
        let mut faults = Vec::new();
        let mut versions = Vec::new();
        let view = self.view();
        let current = view.map(|view| view.version.target.clone()).into_iter();
        let staged = install::staged(self.home).unwrap_or_default().into_iter().map(Target::Upgrade);
        let staged = staged.filter(|target| view.is_none_or(|view| view.version.target != *target));
        for target in current.chain(staged) {
            match install::verify(self.home, &target, None) {
                Ok(manifest) => {
                    let version = manifest.told.map(|told| format!(" ({told})")).unwrap_or_default();
                    versions.push(format!("{target}{version}"));
                }
                Err(e) => faults.push(told(Mark::Fail, &e)),
            }
        }
        if let Some((node, view)) = self.node.as_ref().zip(view)
            && node.sha256().is_some_and(|sha256| sha256 != view.version.sha256)
        {
            let text = format!("process {} does not execute {}", node.pid, view.version.target);
            faults.push(fail(text, "stop it, and let wemixvisor start the node"));
        }
        let mut findings = lines("binaries", faults, versions.join(", "));
        let backup = match backup::check(self.home, &backup::Options::new(self.config)) {
            _ if self.config.unsafe_skip_backup => lines("backup", Vec::new(), "none is made"),
            Ok(need) => {
                let copied = need.to_copy >> 20;
                lines(
                    "backup",
                    Vec::new(),
                    format!("there is room for the next one, which copies {copied} MiB"),
                )
            }
            // Before its first start a node has no data.
            Err(e) if !self.home.data().is_dir() => lines("backup", Vec::new(), format!("not checked: {e}")),
            Err(e) => lines("backup", vec![told(Mark::Fail, &e)], ""),
        };
        findings.extend(backup);
        findings
    }

    /// Everything that is planned, and what needs the operator.
    fn planned(&self) -> Vec<Finding> {
        let Some(status) = self.status else { return Vec::new() };
        let staged = install::staged(self.home).unwrap_or_default();
        let view = &status.view;
        let mut faults: Vec<Fault> =
            status.problems.iter().map(|problem| fail(problem, "see `wemixvisor upgrade list`")).collect();
        for plan in &view.planned {
            if !staged.contains(&plan.name) && !self.config.daemon_allow_download_binaries {
                let cure = format!("stage it: wemixvisor upgrade add {} BINARY", plan.name);
                faults.push(warn(format!("the binary of {} is not here", plan.name), cure));
            }
        }
        let next = view.planned.first().map(|plan| format!(", next {} at {}", plan.name, plan.height));
        let count = view.planned.len();
        let mut findings = lines("plan", faults, format!("{count} planned{}", next.unwrap_or_default()));
        let needs = view.needs.iter().map(|need| fail(&need.text, "see `wemixvisor status`"));
        let mut needs: Vec<Fault> = needs.collect();
        if !status.running && self.node.is_some() {
            let text = "the node runs without a supervisor: nothing upgrades it, or starts it again";
            needs.push(fail(text, "start one: wemixvisor run"));
        }
        findings.extend(lines("health", needs, view.state));
        findings
    }

    /// Everything that only a node that runs can answer.
    fn running(&self) -> Vec<Finding> {
        let outlook = match network::look(self.config, self.home) {
            Ok(outlook) => outlook,
            Err(e) if self.node.is_some() => return lines("rpc", vec![told(Mark::Fail, &e)], ""),
            Err(_) => {
                let text = "no node runs, so chain, address, quorum, clock and forks were not checked";
                return lines("rpc", vec![warn(text, "start it: wemixvisor run")], "");
            }
        };
        let state = outlook.state();
        let mut findings = self.rpc(outlook.connected.is_some());
        let seen = network::answer(self.config, self.home, |client| {
            Ok(Chain { id: client.chain_id()?, genesis: client.genesis_hash()?.to_string() })
        });
        let bound = Journal::read(self.home).ok().and_then(|found| found.record.chain);
        findings.extend(judge::chain(&state, bound.as_ref(), seen.as_ref()));
        let is_off = state.mining == Some(false) && !self.is_silent();
        findings.extend(judge::address(self.config, state.address, state.is_validator.then_some(!is_off)));
        findings.extend(judge::quorum(&state));
        let mut symptoms = self.view().into_iter().flat_map(|view| &view.symptoms);
        let skew = symptoms.find(|symptom| symptom.name == "clock_skew");
        findings.extend(judge::clock(&state, skew.map(|symptom| &*symptom.text)));
        findings.extend(self.forks(&state));
        findings
    }

    fn rpc(&self, shows_peers: bool) -> Vec<Finding> {
        let first = endpoints(self.config, self.home).into_iter().next();
        let fine = first.map_or(String::new(), |endpoint| format!("{endpoint}"));
        let text =
            "the node does not serve `admin`: it cannot leave its peers before a stop, which costs 35 s";
        let blind = !shows_peers && self.config.validator_mode;
        lines("rpc", blind.then(|| warn(text, "leave --ipcdisable out")).into_iter().collect(), fine)
    }

    fn forks(&self, state: &ConsensusState) -> Vec<Finding> {
        let planned = self.view().into_iter().flat_map(|view| &view.planned);
        let before = planned.filter_map(|plan| Some((&plan.name, plan.height, plan.fork_height?)));
        let before: Vec<_> = before.filter(|_| self.config.validator_mode).collect();
        judge::forks(&before, state)
    }

    /// The unit that runs the supervisor, and the limits of the node or of this command.
    fn service(&self) -> Vec<Finding> {
        let pid = self.status.and_then(|status| status.pid);
        let unit = pid.and_then(|pid| unit_of(&format!("/proc/{pid}/cgroup")));
        let mut findings = judge::systemd(unit.as_ref(), self.config.daemon_shutdown_grace);
        let whose =
            self.node.as_ref().map(|node| node.pid).or(pid).map_or("self".to_owned(), |pid| pid.to_string());
        let limits = fs::read_to_string(format!("/proc/{whose}/limits")).unwrap_or_default();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let most = files.and_then(|line| match line.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        findings.extend(judge::limits(most));
        findings
    }
}

/// A fault that another check has found, with its next step behind a semicolon.
fn told(mark: Mark, fault: &dyn ToString) -> Fault {
    let text = fault.to_string();
    let (what, cure) = text.rsplit_once("; ").unwrap_or((&text, ""));
    (mark, what.to_owned(), cure.to_owned())
}

/// The files and directories as they are; what is missing is left out.
fn seen(paths: Vec<PathBuf>) -> Vec<Seen> {
    let stat = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).ok()?;
        let is_open = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o011 != 0);
        let is_reachable = path.ancestors().skip(1).all(is_open);
        Some(Seen { owner: meta.uid(), mode: meta.mode(), is_link: meta.is_symlink(), is_reachable, path })
    };
    paths.into_iter().filter_map(stat).collect()
}

/// The unit in whose control group a process is, as its manager describes it.
fn unit_of(cgroup: &str) -> Option<Unit> {
    let text = fs::read_to_string(cgroup).ok()?;
    let is_unit = |part: &&str| part.ends_with(".service");
    let name = text.lines().find_map(|line| line.rsplit('/').find(is_unit))?.to_owned();
    // The manager of a user has units of its own.
    let manager = if text.contains("/user@") { "--user" } else { "--system" };
    let mut command = Command::new("systemctl");
    command
        .args([manager, "show", &name, "--property", Unit::SETTINGS])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let out = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Unit { name, settings: text.lines().filter_map(pair).collect() })
}
