//! Misbehaviour on purpose: the ways in which a node fails its supervisor, and the traces that tests look for.

use super::log;
use super::node::Node;
use super::options::{End, Options, When};
use super::store::Store;
use rustix::process::{Signal, getpid, kill_process};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::{Duration, SystemTime};

/// `simnode version`, which is also the smoke test of a supervisor.
pub(crate) fn version(options: &Options) -> ExitCode {
    if options.smoke_hang {
        loop {
            std::thread::park();
        }
    }
    let version = options.version.trim_start_matches('v');
    let text = format!(
        "{}\nVersion: {version}-stable\nArchitecture: amd64\nGo Version: go1.26.6\nOperating System: linux\nGOPATH=\nGOROOT=\n",
        options.name
    );
    let _ = std::io::stdout().write_all(text.as_bytes());
    match &options.smoke {
        Some(how) => end(how, Path::new("."), 0),
        None => ExitCode::SUCCESS,
    }
}

/// Ends the process the given way.
pub(crate) fn end(how: &End, datadir: &Path, height: u64) -> ! {
    match how {
        End::Code(code) => exit(*code),
        End::Signal(number) => {
            if let Some(signal) = Signal::from_named_raw(*number) {
                // The first SIGSEGV only takes away the handler that Rust has for stack overflows.
                let _ = kill_process(getpid(), signal);
                let _ = kill_process(getpid(), signal);
            }
            exit(128 + number)
        }
        End::Upgrade(name) => {
            let text = format!("{{\"name\":\"{name}\",\"height\":{height},\"info\":\"\"}}\n");
            if let Err(err) = std::fs::write(datadir.join("upgrade-info.json"), text) {
                log::error("Upgrade could not be announced", &[("err", &err)]);
            }
            log::error("UPGRADE NEEDED", &[("name", name), ("height", &height)]);
            exit(0)
        }
    }
}

/// Whether the node is to end by itself now.
pub(crate) fn is_due(options: &Options, head: u64, since_start: u64) -> Option<(&End, u64)> {
    let (how, when) = options.end.as_ref()?;
    match when {
        When::Start => Some((how, head)),
        When::Height(height) => (head >= *height).then_some((how, *height)),
        When::After(ms) => (since_start >= *ms).then_some((how, head)),
    }
}

/// Writes `options.flood` bytes to stdout and to stderr from threads of their own.
pub(crate) fn flood(options: &Options) {
    let (bytes, line) = (options.flood, [b'.'; 1023]);
    let pour = move |mut out: Box<dyn Write>| {
        for _ in 0..bytes / 1024 {
            if out.write_all(&line).and_then(|()| out.write_all(b"\n")).is_err() {
                return;
            }
        }
    };
    if bytes > 0 {
        std::thread::spawn(move || pour(Box::new(std::io::stdout())));
        std::thread::spawn(move || pour(Box::new(std::io::stderr())));
    }
}

/// Sees to it that no node outlives its test: one dies with the other end of its stdin, or after its time.
pub(crate) fn limit_life(options: &Options) {
    let die = || {
        let _ = kill_process(getpid(), Signal::KILL);
    };
    if options.tether {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            die();
        });
    }
    if let Some(ms) = options.lifetime {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            die();
        });
    }
}

/// Starts the child that outlives the node; it inherits what the node itself inherited.
pub(crate) fn spawn_grandchild(options: &Options, store: &Store, dir: &Path) -> std::io::Result<()> {
    let Some(ms) = options.grandchild else { return Ok(()) };
    if options.grandchild_lock {
        rustix::io::fcntl_setfd(store.lock_file(), rustix::io::FdFlags::empty())?;
    }
    let mut command = std::process::Command::new("/proc/self/exe");
    let child = command.args(["sleeper", &ms.to_string()]).spawn()?;
    std::fs::write(dir.join("sim.grandchild"), format!("{}\n", child.id()))
}

/// Appends one line to a trace file, whole or not at all.
pub(crate) fn trace(path: &Path, value: &serde_json::Value) {
    let line = format!("{value}\n");
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(err) = file.and_then(|mut file: File| file.write_all(line.as_bytes())) {
        log::error("Trace could not be written", &[("err", &err)]);
    }
}

/// `sim.json`, looked at again and again.
pub(crate) struct Script {
    path: PathBuf,
    /// Inode and time of what was read last: times alone are too coarse.
    seen: Option<(u64, SystemTime)>,
}

impl Script {
    /// The script in `dir`.
    pub(crate) fn new(dir: &Path) -> Script {
        Script { path: dir.join("sim.json"), seen: None }
    }

    /// Puts the script in force if it has changed. A mistake in it is logged and the old options stay.
    pub(crate) fn reread(&mut self, node: &Node) {
        let meta = std::fs::metadata(&self.path);
        let changed = meta.and_then(|meta| Ok((meta.ino(), meta.modified()?))).ok();
        if changed == self.seen {
            return;
        }
        self.seen = changed;
        let mut options = node.args.options.clone();
        let text = std::fs::read_to_string(&self.path).unwrap_or_else(|_| "{}".into());
        match options.set_json(&text) {
            Ok(()) => node.set_options(options),
            Err(err) => log::error("sim.json is not understood", &[("err", &err)]),
        }
    }
}

/// Waits without end for a signal to kill the process, as a node does that hangs.
pub(crate) fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
