//! A home with simulated nodes in a directory of its own, and the processes that are measured on it.
//!
//! Nothing panics here: the release profile aborts on a panic, and what was started must be ended. All times are in
//! milliseconds since 1970, as the traces of the nodes and the arrival of log lines give them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Upper bound on any wait.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The programs, and how often each measurement is repeated.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) visor: PathBuf,
    pub(crate) simnode: PathBuf,
    pub(crate) rounds: usize,
    /// The directory of all files.
    pub(crate) dir: PathBuf,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64() * 1e3)
}

/// Runs a program to its end and returns its stdout; any other end than success is an error.
pub(crate) fn run(command: &mut Command) -> Outcome<String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program by its name.
pub(crate) fn sh(program: &str, args: &[&str]) -> Outcome<String> {
    run(Command::new(program).args(args))
}

/// Repeats `look` until it finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Outcome<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("waited in vain for {what}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A command that gets SIGTERM when we end, however we end.
pub(crate) fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Sends a signal; a process that is gone is an error.
pub(crate) fn signal(pid: u32, signal: Signal) -> Outcome<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("not a process id")?;
    Ok(kill_process(pid, signal)?)
}

/// A home, which lives as long as this value.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) data: PathBuf,
    setup: Setup,
    env: Vec<(String, String)>,
}

impl Home {
    /// A home in `dir` with version 1 of the simulated node, which has these options, and settings from the environment.
    pub(crate) fn new(setup: &Setup, dir: &Path, node: &[&str], env: &[(&str, &str)]) -> Outcome<Home> {
        let dir = tempfile::tempdir_in(dir)?;
        let always = [
            // A chain that rises faster is not believed.
            ("DAEMON_BLOCK_PERIOD", "100ms"),
            ("DAEMON_PROBATION_BLOCKS", "1"),
            ("DAEMON_PROBATION_TIME", "0s"),
        ];
        let home = Home {
            data: dir.path().join("home/data"),
            dir,
            setup: setup.clone(),
            env: always.iter().chain(env).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        fs::create_dir_all(&home.data)?;
        home.visor(&["init", &home.node("v1", node)?])?;
        Ok(home)
    }

    /// A binary of the simulated node that calls itself `version`. It lives for an hour at most.
    pub(crate) fn node(&self, version: &str, options: &[&str]) -> Outcome<String> {
        let path = self.dir.path().join(version);
        let version = format!("version={version}");
        let mut stamp = Command::new(&self.setup.simnode);
        stamp.arg("--sim.stamp").arg(&path).args([&version, "lifetime=3600000"]).args(options);
        run(&mut stamp)?;
        Ok(path.display().to_string())
    }

    /// The program that is measured, for this home.
    pub(crate) fn command(&self, before: &[&str], args: &[&str]) -> Command {
        // A program in between may end without what it has started.
        let mut command = tied("env");
        command.args(before).args(["setpriv", "--pdeathsig", "TERM"]).arg(&self.setup.visor).args(args);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(self.dir.path());
        command.env("DAEMON_HOME", self.dir.path().join("home")).env("DAEMON_NAME", "gwemix");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs one of its commands.
    pub(crate) fn visor(&self, args: &[&str]) -> Outcome<String> {
        run(&mut self.command(&[], args))
    }

    /// The arguments of a node on this home's data.
    pub(crate) fn node_args(&self) -> [String; 4] {
        ["--datadir".into(), self.data.display().to_string(), "--verbosity".into(), "1".into()]
    }

    /// Starts the supervisor, below the program `before` if there is one, and waits until its node announces heads.
    pub(crate) fn supervise(&self, before: &[&str]) -> Outcome<Visor> {
        let args = self.node_args();
        let args = args.iter().map(String::as_str).chain(["--mine"]);
        let args: Vec<&str> = ["run", "--"].into_iter().chain(args).collect();
        let mut child = self.command(before, &args).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        let stderr = child.stderr.take().ok_or("no stderr")?;
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send((now(), line));
            }
        });
        let mut visor = Visor { child, lines };
        visor.wait("event=rpc_connected")?;
        Ok(visor)
    }

    /// The traces of one kind that its nodes have left: `sim.starts` or `sim.signals`.
    pub(crate) fn traces(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.data.join(name)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until there are more than `count` traces of a kind, and returns the newest: its process and time.
    pub(crate) fn newest(&self, name: &str, count: usize) -> Outcome<(u32, f64)> {
        until(name, || {
            let traces = self.traces(name);
            let last = traces.get(count..)?.last()?;
            let pid = u32::try_from(last["pid"].as_u64()?).ok()?;
            Some((pid, last["us"].as_f64()? / 1e3))
        })
    }

    /// The blocks that the node announces, as they come, with their times.
    pub(crate) fn heads(&self) -> Outcome<Heads> {
        let mut stream = UnixStream::connect(self.data.join("simnode.ipc"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#)?;
        Ok(Heads(BufReader::new(stream)))
    }
}

/// Kills the nodes that still work on its data.
impl Drop for Home {
    fn drop(&mut self) {
        let data = self.data.display().to_string();
        for pid in self.traces("sim.starts").iter().filter_map(|start| start["pid"].as_u64()) {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(&data) {
                let _ = u32::try_from(pid).map(|pid| signal(pid, Signal::KILL));
            }
        }
    }
}

/// The blocks of a node.
pub(crate) struct Heads(BufReader<UnixStream>);

impl Iterator for Heads {
    type Item = (u64, f64);

    fn next(&mut self) -> Option<(u64, f64)> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok().filter(|length| *length > 0)?;
            let at = now();
            let value: Value = serde_json::from_str(&line).ok()?;
            if let Some(number) = value["params"]["result"]["number"].as_str() {
                return Some((u64::from_str_radix(number.trim_start_matches("0x"), 16).ok()?, at));
            }
        }
    }
}

/// A running supervisor. Dropped, it is asked to stop with its node.
pub(crate) struct Visor {
    pub(crate) child: Child,
    lines: Receiver<(f64, String)>,
}

impl Visor {
    /// Waits for the next line of its log with these words, and returns when it came.
    pub(crate) fn wait(&mut self, words: &str) -> Outcome<f64> {
        let mut last = String::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok((at, line)) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(words) {
                return Ok(at);
            }
            last = line;
        }
        Err(format!("waited in vain for {words:?}; the last line was {last:?}").into())
    }

    /// The process of the supervisor itself, also below another program.
    pub(crate) fn pid(&self) -> u32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id()));
        let is_ours = |pid: u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"run")
        };
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(self.child.id()).chain(pids).find(|pid| is_ours(*pid)).unwrap_or(self.child.id())
    }

    /// Asks it to stop with its node, and waits for both.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        signal(self.pid(), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the supervisor ended with {status}").into()) }
    }
}

impl Drop for Visor {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = signal(self.pid(), Signal::TERM);
            for _ in 0..100 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for the end of a process, and returns when it came.
pub(crate) fn ended(pid: u32) -> Outcome<f64> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("not a process id")?;
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(now()) };
    let limit = Timespec::try_from(PATIENCE)?;
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    Ok(now())
}
