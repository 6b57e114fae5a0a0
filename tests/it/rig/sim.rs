//! Simulated nodes as processes: building their command lines, starting them, asking them, and ending them with the test.
//!
//! A node started here is killed when its [`SimNode`] is dropped, and by itself when the whole test process dies. What a
//! node does that was started by another process (a supervisor) is seen through its [`Traces`] and its RPC alike.

pub(crate) use super::audit::contradictions;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine before a test gives up on it. Where all validators stand still the
/// supervisor itself waits for up to 55 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Looks again and again until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same for what takes longer even on an idle machine.
#[track_caller]
pub(crate) fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = began.elapsed();
        assert!(waited < patience, "waited in vain for {what}");
        // To look costs the process that is asked as well: what takes longer is looked for less often.
        std::thread::sleep((waited / 16).clamp(Duration::from_millis(3), Duration::from_millis(15)));
    }
}

/// Whether something comes to be within a time, which is waited for no longer than that.
pub(crate) fn comes_within(time: Duration, mut has_come: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if has_come() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(3)));
    }
}

/// The simulated node's program. `cargo test` builds it; a run of this binary alone builds it here when it is missing or
/// older than its source.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let tests = std::env::current_exe().unwrap();
        let profile = tests.parent().and_then(Path::parent).unwrap();
        let program = profile.join("examples/simnode");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim");
        let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let newest = fs::read_dir(&source)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| modified(&file.path()))
            .max();
        if modified(&program) < newest || !program.exists() {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo.args(["build", "--quiet", "--example", "simnode"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the simulated node does not compile");
        }
        without_symbols(&program)
    })
}

/// A copy of the program without what only a debugger reads: each test copies and hashes several of them.
fn without_symbols(program: &Path) -> PathBuf {
    let dir = program.with_file_name("small");
    let (small, partial) = (dir.join("simnode"), dir.join(std::process::id().to_string()));
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&small) >= modified(program) {
        return small;
    }
    fs::create_dir_all(&dir).unwrap();
    let stripped = Command::new("strip").arg("-o").arg(&partial).arg(program).status();
    if stripped.is_ok_and(|status| status.success()) && fs::rename(&partial, &small).is_ok() {
        return small;
    }
    program.to_owned()
}

/// Writes a copy of the program with these options built in. It lives for five minutes at most, whoever starts it.
#[track_caller]
pub(crate) fn stamp(out: &Path, options: &[(&str, &str)]) -> PathBuf {
    let limit = [("lifetime", "300000")];
    let pairs = limit.iter().chain(options).map(|(name, value)| format!("{name}={value}"));
    let done = Command::new(program()).arg("--sim.stamp").arg(out).args(pairs).output().unwrap();
    assert!(done.status.success(), "stamp: {}", String::from_utf8_lossy(&done.stderr));
    out.to_owned()
}

/// Runs the program to its end.
pub(crate) fn output(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A node to be started.
#[derive(Clone)]
pub(crate) struct Sim {
    program: PathBuf,
    datadir: PathBuf,
    args: Vec<String>,
}

impl Sim {
    /// A mining node on its own chain, with a block every 20 ms.
    pub(crate) fn new(datadir: impl Into<PathBuf>) -> Sim {
        let sim = Sim { program: program().into(), datadir: datadir.into(), args: Vec::new() };
        sim.arg("--mine").option("period", 20).arg("--verbosity").arg("2")
    }

    /// Validator `index` of the `count` that share the chain in `root`; each has its data in `root/n<index>`.
    pub(crate) fn validator(root: &Path, index: usize, count: usize) -> Sim {
        Sim::new(root.join(format!("n{index}")))
            .option("network", root.join("net").display())
            .option("index", index)
            .option("validators", count)
    }

    /// Another program, as made by [`stamp`].
    pub(crate) fn program(mut self, program: &Path) -> Sim {
        self.program = program.to_owned();
        self
    }

    /// Another data directory.
    pub(crate) fn datadir(mut self, datadir: impl Into<PathBuf>) -> Sim {
        self.datadir = datadir.into();
        self
    }

    /// One more word of the command line.
    pub(crate) fn arg(mut self, word: &str) -> Sim {
        self.args.push(word.into());
        self
    }

    /// One more option of the simulation.
    pub(crate) fn option(self, name: &str, value: impl std::fmt::Display) -> Sim {
        self.arg(&format!("--sim.{name}")).arg(&value.to_string())
    }

    /// Takes a word out again, such as `--mine`.
    pub(crate) fn without(mut self, word: &str) -> Sim {
        self.args.retain(|arg| arg != word);
        self
    }

    /// Starts it; its stderr goes to `<datadir>.log`.
    #[track_caller]
    pub(crate) fn spawn(&self) -> SimNode {
        fs::create_dir_all(&self.datadir).unwrap();
        let log = self.datadir.with_extension("log");
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new(&self.program)
            .arg("--datadir")
            .arg(&self.datadir)
            .args(&self.args)
            // The node ends when this pipe is closed, which is what the death of this process does.
            .args(["--sim.tether", "true"])
            .stdin(Stdio::piped())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        SimNode { child, log, traces: Traces::new(&self.datadir), ipc: self.datadir.join("simnode.ipc") }
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&self) -> SimNode {
        let mut node = self.spawn();
        node.wait_rpc();
        node
    }
}

/// A running node, killed on drop.
pub(crate) struct SimNode {
    child: Child,
    log: PathBuf,
    /// The traces in its data directory.
    pub(crate) traces: Traces,
    /// Its IPC socket.
    pub(crate) ipc: PathBuf,
}

impl SimNode {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until RPC answers.
    #[track_caller]
    pub(crate) fn wait_rpc(&mut self) {
        until("the node's RPC", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            try_call(&self.ipc, "eth_blockNumber", &json!([]))
        });
    }

    /// The result of a call over IPC.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        call(&self.ipc, method, &params)
    }

    /// Its head.
    #[track_caller]
    pub(crate) fn head(&self) -> u64 {
        head(&self.ipc)
    }

    /// Waits until its head is at least `height`.
    #[track_caller]
    pub(crate) fn wait_head(&self, height: u64) -> u64 {
        wait_head(&self.ipc, height)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Sends SIGKILL and waits for the end.
    #[track_caller]
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Closes the pipe that ties it to this process.
    pub(crate) fn untie(&mut self) {
        self.child.stdin.take();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the node's end", || self.child.try_wait().unwrap())
    }

    /// Its output.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The traces that nodes leave in a directory.
pub(crate) struct Traces(PathBuf);

impl Traces {
    /// The traces in `dir`: the data directory, or what `--sim.dir` said.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Traces {
        Traces(dir.into())
    }

    /// Every start: pid, version, args, ms, head, mine.
    pub(crate) fn starts(&self) -> Vec<Value> {
        self.lines("sim.starts")
    }

    /// Every SIGTERM and SIGINT: pid, signal, ms.
    pub(crate) fn signals(&self) -> Vec<Value> {
        self.lines("sim.signals")
    }

    /// Every start that found the data locked by another process. Should be empty.
    pub(crate) fn overlaps(&self) -> Vec<Value> {
        self.lines("sim.overlaps")
    }

    /// Every vote: kind, height, round, hash, ms, pid.
    pub(crate) fn votes(&self) -> Vec<Value> {
        self.lines("sim.votes")
    }

    /// Makes a running node behave otherwise, and every later one.
    pub(crate) fn script(&self, options: &Value) {
        // Beside the data, which a backup may just be reading: a file in it must not be gone again.
        let partial = self.0.with_extension("script.partial");
        fs::write(&partial, options.to_string()).unwrap();
        fs::rename(partial, self.0.join("sim.json")).unwrap();
    }

    /// The port that the node's HTTP server got.
    #[track_caller]
    pub(crate) fn http_port(&self) -> u16 {
        until("the node's HTTP port", || {
            fs::read_to_string(self.0.join("http.port")).ok()?.trim().parse().ok()
        })
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The result of a call over IPC; the test fails on an error.
#[track_caller]
pub(crate) fn call(ipc: &Path, method: &str, params: &Value) -> Value {
    let reply = exchange(ipc, method, params).unwrap_or_else(|| panic!("{method}: no reply"));
    reply.get("result").unwrap_or_else(|| panic!("{method}: {reply}")).clone()
}

/// The result of a call over IPC, if there is one.
pub(crate) fn try_call(ipc: &Path, method: &str, params: &Value) -> Option<Value> {
    exchange(ipc, method, params)?.get("result").cloned()
}

/// The head of a node.
#[track_caller]
pub(crate) fn head(ipc: &Path) -> u64 {
    number(&call(ipc, "eth_blockNumber", &json!([])))
}

/// Waits until the head of a node is at least `height`; it may be down in the meantime.
#[track_caller]
pub(crate) fn wait_head(ipc: &Path, height: u64) -> u64 {
    until(&format!("height {height} at {}", ipc.display()), || {
        let head = number(&try_call(ipc, "eth_blockNumber", &json!([]))?);
        (head >= height).then_some(head)
    })
}

/// The heights that a node announces over IPC, as they come. Ends with the connection.
pub(crate) struct Heads(BufReader<UnixStream>);

impl Heads {
    /// Subscribes to newHeads.
    #[track_caller]
    pub(crate) fn subscribe(ipc: &Path) -> Heads {
        let mut stream = UnixStream::connect(ipc).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]});
        stream.write_all(request.to_string().as_bytes()).unwrap();
        let mut heads = Heads(BufReader::new(stream));
        let reply = heads.line().unwrap();
        assert!(reply["result"].is_string(), "{reply}");
        heads
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|length| *length > 0)?;
        serde_json::from_str(&line).ok()
    }
}

impl Iterator for Heads {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.line().map(|line| number(&line["params"]["result"]["number"]))
    }
}

/// The number in a hex quantity.
#[track_caller]
pub(crate) fn number(quantity: &Value) -> u64 {
    let text = quantity.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(text.unwrap_or_default(), 16).unwrap_or_else(|_| panic!("{quantity} is no quantity"))
}

/// The reply to a call over IPC, if there is one.
pub(crate) fn exchange(ipc: &Path, method: &str, params: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(ipc).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(request.to_string().as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
