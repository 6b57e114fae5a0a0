//! A home with simulated nodes, and the program under test working on it, as a user would run it.
//!
//! Everything lives in one temporary directory. A supervisor that still runs when its [`Visor`] is dropped is killed, and
//! whatever holds the node's lock as well, because the node would outlive it. The same is done when the [`Rig`] is dropped.

use super::sim::{PATIENCE, Traces, stamp, until};
use serde_json::Value;
use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use tempfile::TempDir;
use wemixvisor::config::Config;
use wemixvisor::home::Home;
use wemixvisor::inside::Cancel;
use wemixvisor::inside::backup::{self, Options, Work};
use wemixvisor::inside::digest_of;
use wemixvisor::inside::journal::Journal;
use wemixvisor::inside::{Birth, at_birth};
use wemixvisor::inside::{Reply, Request, ask};

/// A home and the binaries for it.
pub(crate) struct Rig {
    dir: TempDir,
    /// `$DAEMON_HOME`.
    home: PathBuf,
    /// The node's data, where they are not in the home.
    data: Option<PathBuf>,
    /// More environment for every command.
    env: Vec<(String, String)>,
    /// The number of supervisors that were killed: the next one asks a node once more to stop, if that was not on record.
    killed: Cell<usize>,
    /// Whether the test has broken the home on purpose.
    broken: Cell<bool>,
    /// Whether a power cut may have torn a line of the history.
    has_lost_power: Cell<bool>,
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
        Rig::empty().laid_out(options)
    }

    /// The same, with the home of this one.
    pub(crate) fn laid_out(self, options: &[(&str, &str)]) -> Rig {
        let v1 = self.binary("v1", options);
        self.ok(&["init", v1.to_str().unwrap()]);
        self
    }

    /// The same with its home below another directory, and the node's data beside it.
    pub(crate) fn on(mut self, dir: &Path) -> Rig {
        self.home = dir.join("home");
        self.data = Some(self.path().join("data"));
        let data = self.data().to_str().unwrap().to_owned();
        self.set("DAEMON_DATA_DIR", &data)
    }

    /// The same with the node's data in the home after all.
    pub(crate) fn with_data_inside(mut self) -> Rig {
        self.data = None;
        let data = self.data().to_str().unwrap().to_owned();
        self.set("DAEMON_DATA_DIR", &data)
    }

    /// A directory with nothing in it yet.
    pub(crate) fn empty() -> Rig {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let rig = Rig {
            home: dir.path().join("home"),
            dir,
            data: None,
            env: Vec::new(),
            killed: Cell::new(0),
            broken: Cell::new(false),
            has_lost_power: Cell::new(false),
        };
        rig.set("DAEMON_BLOCK_PERIOD", "5ms")
            .set("DAEMON_PROBATION_TIME", "100ms")
            .set("DAEMON_PROBATION_BLOCKS", "3")
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
        self.home.clone()
    }

    /// The same home at another path, below the directory that everything is in.
    pub(crate) fn moved_to(mut self, path: &str) -> Rig {
        let home = self.path().join(path);
        fs::create_dir_all(home.parent().unwrap()).unwrap();
        fs::rename(&self.home, &home).unwrap();
        self.home = home;
        self
    }

    /// A path below `$DAEMON_HOME/wemixvisor`.
    pub(crate) fn of(&self, path: &str) -> PathBuf {
        self.home().join("wemixvisor").join(path)
    }

    /// The node's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.home().join("data"))
    }

    /// The traces that the nodes have left.
    pub(crate) fn traces(&self) -> Traces {
        Traces::new(self.data())
    }

    /// The versions of the nodes that were started, in order.
    pub(crate) fn versions(&self) -> Vec<String> {
        let starts = self.traces().starts();
        starts.iter().map(|start| start["version"].as_str().unwrap().to_owned()).collect()
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
    #[track_caller]
    pub(crate) fn stage(&self, name: &str, options: &[(&str, &str)]) {
        let binary = self.binary(name, options);
        self.ok(&["upgrade", "add", name, binary.to_str().unwrap()]);
    }

    /// Plans an upgrade.
    #[track_caller]
    pub(crate) fn schedule(&self, name: &str, height: u64) -> String {
        // A node here makes blocks so fast that the height may have passed.
        self.ok(&["upgrade", "schedule", name, &height.to_string(), "--now"])
    }

    /// Writes a hook of an upgrade: `pre-upgrade` or `post-upgrade`, a shell script.
    pub(crate) fn hook(&self, upgrade: &str, which: &str, script: &str) {
        let path = self.of(&format!("upgrades/{upgrade}/{which}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_script(&path, script);
    }

    /// Writes the trigger file.
    pub(crate) fn trigger(&self, text: &str) {
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.data().join("upgrade-info.json"), text).unwrap();
    }

    /// Makes the running node, and every later one, behave otherwise.
    pub(crate) fn script(&self, options: &Value) {
        fs::create_dir_all(self.data()).unwrap();
        self.traces().script(options);
    }

    /// The target of the link `current`.
    pub(crate) fn current(&self) -> String {
        fs::read_link(self.of("current")).unwrap().to_str().unwrap().to_owned()
    }

    /// The record in the journal.
    pub(crate) fn journal(&self) -> Value {
        serde_json::to_value(Journal::read(&self.as_home()).unwrap().record).unwrap()
    }

    /// The history, oldest first: the event and its detail. A line that a power cut has torn is passed over, as the program
    /// does; any other must be whole.
    pub(crate) fn history(&self) -> Vec<String> {
        let text = fs::read_to_string(self.of("state/history.jsonl")).unwrap_or_default();
        let line = |line: &str| {
            let entry: Value = match serde_json::from_str(line) {
                Err(_) if self.has_lost_power.get() => return None,
                entry => entry.unwrap(),
            };
            Some(format!("{} {}", entry["event"].as_str().unwrap(), entry["detail"].as_str().unwrap()))
        };
        text.lines().filter_map(line).collect()
    }

    /// The names of the backups.
    pub(crate) fn backups(&self) -> Vec<String> {
        let listed = backup::list(&self.as_home()).unwrap();
        listed.into_iter().map(|backup| backup.name).collect()
    }

    /// The home as the library knows it.
    pub(crate) fn as_home(&self) -> Home {
        Home::new(self.home(), "simnode").unwrap().with_data(self.data())
    }

    /// Says that the home is broken on purpose, so that it is not checked at the end.
    pub(crate) fn is_broken_on_purpose(&self) {
        self.broken.set(true);
    }

    /// Checks what has to hold at any time, whatever was done (DESIGN, section 3).
    fn check_invariants(&self) {
        let home = self.as_home();
        if !home.current().exists() || self.broken.get() {
            return;
        }
        // I1: `current` is complete and what the journal says.
        let current = home.read_current().unwrap();
        let record = Journal::read(&home).unwrap().record;
        let versions = record.upgrade.iter().flat_map(|u| [&u.from, &u.to]).chain([&record.current]);
        let known: Vec<_> = versions.filter(|v| v.target == current.target).map(|v| v.sha256).collect();
        assert!(known.contains(&digest_of(&current.binary).unwrap()), "current is {current:?}: {record:?}");
        // I2 and I8.
        assert_eq!(self.traces().overlaps().len(), 0, "two nodes at once: {:?}", self.traces().overlaps());
        let pids: Vec<_> = self.traces().signals().iter().map(|s| s["pid"].clone()).collect();
        let most = pids.iter().map(|pid| pids.iter().filter(|other| *other == pid).count()).max();
        assert!(
            most.unwrap_or(0) <= 1 + self.killed.get(),
            "a node got too many signals: {:?}",
            self.traces().signals()
        );
        // I6.
        for listed in backup::list(&home).unwrap_or_default() {
            let (options, cancel) = (Options::new(&Config::defaults(home.root())), Cancel::new().unwrap());
            let progress = &mut |_, _| {};
            let mut work =
                Work { home: &home, options: &options, background: false, cancel: &cancel, progress };
            backup::verify(&mut work, &listed).unwrap();
        }
    }

    /// The program under test, with these arguments and a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_wemixvisor")), args)
    }

    /// Another program in the same environment.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(self.path());
        command.env("DAEMON_HOME", self.home()).env("DAEMON_NAME", "simnode");
        command.envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        // All others end by themselves, and std starts them without a copy of this process, which has grown large.
        if args.contains(&"run") {
            at_birth(&mut command, dies_with_us());
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (pid, (ended, is_over)) = (child.id(), channel::<()>());
        std::thread::scope(|scope| {
            // One that does not end is a failure, and not the end of all tests.
            scope.spawn(move || {
                if is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    send(pid, rustix::process::Signal::TERM);
                }
            });
            let out = child.wait_with_output().unwrap();
            drop(ended);
            out
        })
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
        self.run_as(self.command(&[]), flags, node)
    }

    fn run_as(&self, mut command: Command, flags: &[&str], node: &[&str]) -> Visor<'_> {
        let data = self.data();
        let mut args = vec!["run"];
        args.extend(flags);
        args.extend(["--", "--datadir", data.to_str().unwrap(), "--verbosity", "2"]);
        args.extend(node);
        // One file for all runs: it tells the whole story when a test fails.
        let log =
            |name: &str| File::options().create(true).append(true).open(self.path().join(name)).unwrap();
        let begin = fs::metadata(self.log()).map_or(0, |m| usize::try_from(m.len()).unwrap());
        command.args(&args).stdout(log("node.out")).stderr(log("visor.log"));
        self.spawn(command, begin)
    }

    /// Starts the supervisor from this file, with a mining node.
    pub(crate) fn run_program(&self, program: &Path) -> Visor<'_> {
        self.run_as(self.command_of(program, &[]), &[], &["--mine"])
    }

    /// Starts the supervisor with a command that was made ready elsewhere.
    pub(crate) fn spawn(&self, mut command: Command, begin: usize) -> Visor<'_> {
        at_birth(&mut command, dies_with_us());
        Visor { rig: self, child: command.spawn().unwrap(), begin }
    }

    fn log(&self) -> PathBuf {
        self.path().join("visor.log")
    }

    /// Says that power was lost, so that the history may have a torn line.
    pub(crate) fn has_lost_power(&self) {
        self.has_lost_power.set(true);
    }

    /// Says that a supervisor was killed, so that its node may get one more SIGTERM.
    pub(crate) fn one_was_killed(&self) {
        self.killed.set(self.killed.get() + 1);
    }

    /// Kills the node, what it has left behind, and what is about to become a node.
    fn end_nodes(&self) {
        // Called while a test fails as well, so it gives up rather than panic.
        let deadline = std::time::Instant::now() + PATIENCE;
        let Ok(lock) = fs::canonicalize(self.of("state/node.lock")) else { return };
        // A process that still has the file open inherited the lock with it. Without a lock there is none to look for.
        if File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok()) {
            return;
        }
        loop {
            let left = holders(&lock);
            if left.is_empty() || std::time::Instant::now() > deadline {
                return;
            }
            left.into_iter().for_each(|pid| send(pid, rustix::process::Signal::KILL));
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }
}

/// The processes that have a file open.
fn holders(file: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.map(|fd| fd.path()).any(|fd| fs::read_link(fd).is_ok_and(|path| path == file))
    };
    pids.filter(holds).collect()
}

/// Should this process be killed, nothing stays behind.
fn dies_with_us() -> Birth {
    Birth { parent_death: Some(rustix::process::Signal::TERM), ..Birth::default() }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end_nodes();
        if !std::thread::panicking() {
            self.check_invariants();
        }
    }
}

/// Writes a shell script that can be executed.
pub(crate) fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Where homes are laid out: in memory where that is possible, because a sync of a disk that others write to
/// takes as long as they like. What a test means by `TMPDIR` comes first.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let usable = rustix::fs::statvfs(memory).is_ok_and(|fs| {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            free >= 2 << 30 && !fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC)
        });
        if usable && std::env::var_os("TMPDIR").is_none() { memory.to_owned() } else { std::env::temp_dir() }
    })
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

    /// The stderr of it and its nodes so far.
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
        let mut read = self.begin;
        loop {
            let ended = self.child.try_wait().unwrap();
            let log = fs::File::open(self.rig.log()).unwrap();
            let mut more = vec![0; usize::try_from(log.metadata().unwrap().len()).unwrap() - read];
            log.read_exact_at(&mut more, read as u64).unwrap();
            // The rest of the last line is still to come.
            more.truncate(more.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            if let Some(line) = String::from_utf8_lossy(&more).lines().find(is_it) {
                return line.to_owned();
            }
            read += more.len();
            if let Some(status) = ended {
                panic!("it ended ({status}) without {words:?}");
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain for {words:?}");
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }

    /// How many lines of its log have all of these words.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        let log = self.log();
        log.lines().filter(|l| l.contains(" wemixvisor ") && words.iter().all(|w| l.contains(w))).count()
    }

    /// The output of `status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.wait_status("a status", |status| Some(status.clone()))
    }

    /// Waits until `status` says something that `look` likes.
    #[track_caller]
    pub(crate) fn wait_status<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let home = self.rig.as_home();
        // Asked without a process in between: it is done many times.
        until(what, || {
            let Reply::Status(status) = ask(&home, &Request::Status).ok()?.reply else { return None };
            look(&serde_json::to_value(status).unwrap())
        })
    }

    /// Waits until its log has this many lines with all of these words.
    #[track_caller]
    pub(crate) fn wait_count(&mut self, count: usize, words: &[&str]) {
        self.wait(words);
        until(&format!("{count} lines with {words:?}"), || (self.count(words) >= count).then_some(()));
    }

    /// Waits until its node follows the chain.
    #[track_caller]
    pub(crate) fn wait_node(&mut self) -> u64 {
        self.wait(&["event=rpc_connected"]);
        self.wait_status("a head", |status| status["head"]["height"].as_u64())
    }

    /// Waits until the head is at least `height`, as it sees it.
    #[track_caller]
    pub(crate) fn wait_head(&self, height: u64) -> u64 {
        let reached = |status: &Value| status["head"]["height"].as_u64().filter(|head| *head >= height);
        self.wait_status(&format!("height {height}"), reached)
    }

    /// Waits until an upgrade has ended, and asserts how.
    #[track_caller]
    pub(crate) fn wait_outcome(&mut self, name: &str, outcome: &str) -> String {
        let line = self.wait(&["event=upgrade_ended", &format!("name={name} ")]);
        assert!(line.contains(&format!(" outcome={outcome} ")), "{line}");
        line
    }

    /// The processes that are children of the supervisor, with their states; its threads are not.
    pub(crate) fn children(&self) -> Vec<(u32, char)> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of_ours = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit(')').next()?.split_whitespace();
            let state = fields.next()?.chars().next()?;
            (fields.next()?.parse() == Ok(self.pid())).then_some((pid, state))
        };
        pids.filter_map(of_ours).collect()
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
        let code = self.end_beside();
        let nodes = self.rig.traces().starts().into_iter().filter_map(|s| s["pid"].as_u64());
        let alive = |pid: &u32| is_alive(*pid) && works_on(*pid, self.rig.path());
        let left: Vec<u32> = nodes.filter_map(|pid| u32::try_from(pid).ok()).filter(alive).collect();
        assert_eq!(left, [0; 0], "it has left its node behind");
        code
    }

    /// Its exit code, if it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// The same where another supervisor may run.
    #[track_caller]
    pub(crate) fn end_beside(&mut self) -> i32 {
        until("the supervisor's end", || self.has_ended())
    }

    /// Sends SIGTERM and waits for its end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.end()
    }

    /// Kills it as nothing but kill -9 can. Its node goes on.
    pub(crate) fn kill(&mut self) {
        self.rig.one_was_killed();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Visor<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| line.len() < 1000).collect();
            eprintln!("--- log of the supervisor\n{}", lines.join("\n"));
        }
        // The node of one that was killed is the next one's, or ends with the rig.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.rig.one_was_killed();
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.rig.end_nodes();
        }
    }
}

/// Whether a process was started with a path below `dir` among its words.
fn works_on(pid: u32, dir: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains(dir.to_str().unwrap())
}

/// Every process that was started with a path below `dir` among its words.
pub(crate) fn working_on(dir: &Path) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| works_on(*pid, dir)).collect()
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
