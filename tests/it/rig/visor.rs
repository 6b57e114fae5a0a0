//! A home with simulated nodes, and the program under test working on it, as a user would run it.
//!
//! Everything lives in one temporary directory. A supervisor started here is killed when its [`Visor`] is dropped; its
//! node is then asked to stop by its parent-death signal, and killed to be sure.

use super::sim::{PATIENCE, Traces, stamp, until};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A home and the binaries for it.
pub(crate) struct Rig {
    dir: TempDir,
    /// More environment for every command.
    env: Vec<(String, String)>,
}

/// The options of every simulated node here: a block every 20 ms.
const PACE: (&str, &str) = ("period", "20");

impl Rig {
    /// A home laid out with version 1 of the simulated node, and settings that suit its pace.
    pub(crate) fn new() -> Rig {
        Rig::with(&[])
    }

    /// The same, with options built into version 1.
    pub(crate) fn with(options: &[(&str, &str)]) -> Rig {
        let rig = Rig::empty();
        let v1 = rig.binary("v1", options);
        rig.ok(&["init", v1.to_str().unwrap()]);
        rig
    }

    /// A directory with nothing in it yet.
    pub(crate) fn empty() -> Rig {
        let rig = Rig { dir: tempfile::tempdir().unwrap(), env: Vec::new() };
        rig.set("DAEMON_PROBATION_TIME", "100ms").set("DAEMON_PROBATION_BLOCKS", "3")
    }

    /// The same with one more variable in the environment of every command.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Rig {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The directory that everything is in.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `$DAEMON_HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// A path below `$DAEMON_HOME/wemixvisor`.
    pub(crate) fn of(&self, path: &str) -> PathBuf {
        self.home().join("wemixvisor").join(path)
    }

    /// The node's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// What the nodes have left behind.
    pub(crate) fn traces(&self) -> Traces {
        Traces::new(&self.data())
    }

    /// The node's IPC socket.
    pub(crate) fn ipc(&self) -> PathBuf {
        self.data().join("simnode.ipc")
    }

    /// A binary of the simulated node that calls itself `version` and has these options built in.
    pub(crate) fn binary(&self, version: &str, options: &[(&str, &str)]) -> PathBuf {
        let mut all = vec![PACE, ("version", version)];
        all.extend(options);
        stamp(&self.path().join(version), &all)
    }

    /// Stages such a binary as an upgrade.
    pub(crate) fn stage(&self, name: &str, options: &[(&str, &str)]) {
        let binary = self.binary(name, options);
        self.ok(&["upgrade", "add", name, binary.to_str().unwrap()]);
    }

    /// Writes the trigger file.
    pub(crate) fn trigger(&self, text: &str) {
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.data().join("upgrade-info.json"), text).unwrap();
    }

    /// What `current` points at.
    pub(crate) fn current(&self) -> String {
        fs::read_link(self.of("current")).unwrap().to_str().unwrap().to_owned()
    }

    /// The record in the journal.
    pub(crate) fn journal(&self) -> Value {
        let slot: Value = serde_json::from_slice(&fs::read(self.of("state/journal.json")).unwrap()).unwrap();
        slot["record"].clone()
    }

    /// The program under test, with these arguments and a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wemixvisor"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(self.path());
        command.env("DAEMON_HOME", self.home()).env("DAEMON_NAME", "simnode");
        command.envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that has to succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let out = self.output(args);
        assert!(out.status.success(), "{}", show(args, &out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a command that has to end with this code, and returns its stderr.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = self.output(args);
        assert_eq!(out.status.code(), Some(code), "{}", show(args, &out));
        String::from_utf8(out.stderr).unwrap()
    }

    /// Starts the supervisor with a mining node.
    pub(crate) fn run(&self) -> Visor<'_> {
        self.run_with(&[], &["--mine"])
    }

    /// Starts the supervisor with flags of its own and arguments for the node.
    pub(crate) fn run_with(&self, flags: &[&str], node: &[&str]) -> Visor<'_> {
        let data = self.data();
        let mut args = vec!["run"];
        args.extend(flags);
        args.extend(["--", "--datadir", data.to_str().unwrap()]);
        args.extend(node);
        // One file for all runs: it tells the whole story when a test fails.
        let log =
            |name: &str| File::options().create(true).append(true).open(self.path().join(name)).unwrap();
        let begin = fs::metadata(self.log()).map_or(0, |m| usize::try_from(m.len()).unwrap());
        let child = self.command(&args).stdout(log("node.out")).stderr(log("visor.log")).spawn().unwrap();
        Visor { rig: self, child, begin }
    }

    fn log(&self) -> PathBuf {
        self.path().join("visor.log")
    }
}

fn show(args: &[&str], out: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    format!("wemixvisor {}: {}\nstdout: {stdout}\nstderr: {stderr}", args.join(" "), out.status)
}

/// A running supervisor.
pub(crate) struct Visor<'a> {
    rig: &'a Rig,
    child: Child,
    /// Where this run's part of the log begins.
    begin: usize,
}

impl Visor<'_> {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and its nodes have written to stderr so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.rig.log()).unwrap();
        String::from_utf8_lossy(&bytes[self.begin..]).into_owned()
    }

    /// Waits until its log has a line with all of these words, and returns the line.
    #[track_caller]
    pub(crate) fn wait(&mut self, words: &[&str]) -> String {
        let is_it =
            |line: &&str| line.contains(" wemixvisor ") && words.iter().all(|word| line.contains(word));
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().lines().find(is_it) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            // What it wrote last may have come after we looked.
            if let (Some(status), None) = (ended, self.log().lines().find(is_it)) {
                panic!("it ended ({status}) without {words:?}:\n{}", self.log());
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain for {words:?}:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }

    /// How many lines of its log have all of these words.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        let log = self.log();
        log.lines().filter(|l| l.contains(" wemixvisor ") && words.iter().all(|w| l.contains(w))).count()
    }

    /// What `status --json` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.rig.ok(&["status", "--json"])).unwrap()
    }

    /// Waits until `status` says something that `look` likes.
    #[track_caller]
    pub(crate) fn wait_status<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        until(what, || {
            let out = self.rig.output(&["status", "--json"]);
            look(&serde_json::from_slice(&out.stdout).ok()?)
        })
    }

    /// The node's process id.
    #[track_caller]
    pub(crate) fn node(&self) -> u32 {
        let pid = self.wait_status("a running node", |status| status["node"]["pid"].as_u64());
        u32::try_from(pid).unwrap()
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end: its exit code, or 128 plus the signal that killed it.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i32 {
        let status = until("the supervisor's end", || self.child.try_wait().unwrap());
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Sends SIGTERM and waits for its end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.end()
    }

    /// Kills it as nothing but kill -9 can.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Visor<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the supervisor\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for start in self.rig.traces().starts() {
            let pid = start["pid"].as_u64().and_then(|p| u32::try_from(p).ok());
            // Its number may be another's by now: only what works on our directory is ours.
            for pid in pid.into_iter().filter(|pid| works_on(*pid, self.rig.path())) {
                send(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Whether a process was started with a path below `dir` among its words.
fn works_on(pid: u32, dir: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains(dir.to_str().unwrap())
}

/// Whether a process exists and has not ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Sends a signal to a process; one that is gone is fine.
pub(crate) fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}
