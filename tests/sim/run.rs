//! One run of the node, from the lock to the exit: start, the loop, and the recorded order of a stop.
//!
//! RPC is closed first; then the node takes its time; then the lock is free; then the process is gone. Until the start is
//! complete signals have their default effect, as recorded.

use super::args::{Args, Endpoint};
use super::behave::{self, Script};
use super::chain::Params;
use super::door::Server;
use super::engine::Engine;
use super::log::{self, fatal, info, now_ms, now_us, warn};
use super::net::Network;
use super::node::{Node, check_forks};
use super::options::{Options, Rpc};
use super::store::{self, Loaded, Refusal, Store};
use super::world::Member;
use super::{eth, http, ipc};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a start failed, in the words of the node.
struct Fatal(String);

impl From<std::io::Error> for Fatal {
    fn from(err: std::io::Error) -> Fatal {
        Fatal(format!("Failed to create the protocol stack: {err}"))
    }
}

/// Runs the node until it is told to stop or told itself to.
pub(crate) fn run(mut args: Args, words: &[String]) -> ExitCode {
    info("Maximum peer count", &[("ETH", &args.maxpeers), ("total", &args.maxpeers)]);
    args.datadir = std::path::absolute(&args.datadir).unwrap_or(args.datadir);
    let dir = args.options.dir.clone().unwrap_or_else(|| args.datadir.clone());
    match start(args, &dir, words) {
        Ok(running) => running.play(),
        Err(Fatal(message)) => {
            fatal(&message);
            ExitCode::FAILURE
        }
    }
}

/// `simnode init`: creates the data directory.
pub(crate) fn init(datadir: Option<PathBuf>) -> ExitCode {
    let Some(datadir) = datadir else {
        fatal("invalid command: want init --datadir DIR");
        return ExitCode::FAILURE;
    };
    match store::lock(&datadir) {
        Ok(_) => {
            info("Successfully wrote genesis state", &[("database", &"chaindata")]);
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            fatal(&explain(refusal, &Options::default()));
            ExitCode::FAILURE
        }
    }
}

/// A node that has started.
struct Running {
    node: Arc<Node>,
    engine: Engine,
    servers: Vec<Server>,
    script: Script,
    dir: PathBuf,
    /// Set by the first signal, which wakes the loop as well.
    is_asked: Arc<AtomicBool>,
    began: u64,
}

fn start(args: Args, dir: &Path, words: &[String]) -> Result<Running, Fatal> {
    std::fs::create_dir_all(dir)?;
    let began_us = now_us();
    let began = began_us / 1000;
    let options = &args.options;
    let params = Params {
        chain_id: options.chain_id,
        validators: options.validators,
        crowd: options.crowd,
        epoch: options.epoch,
        fields: options.fields,
        period: options.period,
        timeout: options.round_timeout(),
        slow: options.slow,
        sets: Vec::new(),
    };
    let mut start = json!({
        "pid": std::process::id(),
        "version": options.version,
        "args": words,
        "ms": began,
        "us": began_us,
        "mine": args.mine,
    });
    let lock = store::lock(&args.datadir).map_err(|refusal| {
        if matches!(refusal, Refusal::Locked) {
            behave::trace(&dir.join("sim.overlaps"), &start);
        }
        Fatal(explain(refusal, options))
    })?;
    let (mut store, Loaded { mut chain, known, was_older }) =
        Store::open(&args.datadir, lock, (options.db, options.layout), params.genesis())
            .map_err(|refusal| Fatal(explain(refusal, options)))?;
    if check_forks(&mut chain, &options.fork) {
        store.forget(chain.len())?;
    }
    if was_older && options.migrate > 0 {
        info("Upgrading the database", &[("to", &options.db)]);
        std::thread::sleep(Duration::from_millis(options.migrate));
    }
    let head = chain.len() - 1;
    start["head"] = head.into();
    behave::trace(&dir.join("sim.starts"), &start);
    info("Initialising Ethereum protocol", &[("network", &options.chain_id), ("dbversion", &options.db)]);
    info("Loaded most recent local block", &[("number", &head), ("hash", &chain[head].hash)]);

    let me = Member {
        index: options.index,
        pid: std::process::id(),
        joined: began,
        version: options.version.clone(),
        forks: options.fork.clone(),
        mining: args.mine,
        following: false,
        connected: false,
        freeze: None,
        removed: Vec::new(),
        top: None,
    };
    let alone = args.datadir.join(store::INSTANCE).join("network");
    let shared = options.network.as_deref().unwrap_or(&alone);
    // A dry node is no member, and touches nothing that the members share.
    let network =
        if args.is_dry() { Network::watch(shared, params)? } else { Network::join(shared, params, &me)? };
    let halted = store.is_halted();
    let node = Arc::new(Node::new(args, network.params().clone(), chain, halted));
    node.state().buried = known.iter().map(|block| block.hash.clone()).collect();
    let mut script = Script::new(dir);
    script.reread(&node);
    let options = node.options();
    behave::limit_life(&options);
    behave::flood(&options);
    behave::spawn_grandchild(&options, &store, dir)?;
    if let Some((how, height)) = behave::is_due(&options, head as u64, 0) {
        behave::end(how, &node.args.datadir, height);
    }
    let mut engine = Engine::new(node.clone(), network, (store, known), me, dir, now_ms());
    engine.tick(now_ms())?;
    let instance = eth::client_version(&node);
    info("Starting peer-to-peer node", &[("instance", &instance)]);
    let mut servers = if options.rpc_delay == 0 { bind_rpc(&node, dir)? } else { Vec::new() };
    let is_asked = watch_signals(node.clone(), dir.join("sim.signals"))?;
    // Whoever gets an answer may also send a SIGTERM, so the signals are watched before.
    servers.iter_mut().for_each(Server::begin);
    if node.args.mine {
        info("WBFT: start", &[]);
    }
    Ok(Running { node, engine, servers, script, dir: dir.into(), is_asked, began })
}

fn explain(refusal: Refusal, options: &Options) -> String {
    match refusal {
        Refusal::Locked => {
            "Failed to create the protocol stack: datadir already used by another process".into()
        }
        Refusal::Newer(written) => format!(
            "Failed to register the Ethereum service: database version is v{written}, {} v{} only supports v{}",
            options.name,
            options.version.trim_start_matches('v'),
            options.db
        ),
        Refusal::Io(err) => format!("Failed to create the protocol stack: {err}"),
    }
}

/// Binds every server of the command line. If one cannot be bound the others are closed again, as recorded.
fn bind_rpc(node: &Arc<Node>, dir: &Path) -> Result<Vec<Server>, Fatal> {
    let mut servers = Vec::new();
    let port_file = dir.join("http.port");
    let _ = std::fs::remove_file(&port_file);
    if node.options().rpc == Rpc::Off {
        return Ok(servers);
    }
    if let Some(path) = &node.args.ipc {
        servers.push(ipc::open(node, path)?);
        info("IPC endpoint opened", &[("url", &path.display())]);
    }
    if let Some(endpoint) = &node.args.http {
        let (server, port) = match http::open(node, endpoint) {
            Ok(bound) => bound,
            Err(err) => return Err(refuse_port(node, endpoint, &err, servers)),
        };
        publish(&port_file, port)?;
        info("HTTP server started", &[("endpoint", &server.endpoint), ("auth", &false)]);
        servers.push(server);
    }
    Ok(servers)
}

/// Writes a port to a file that appears whole.
fn publish(file: &Path, port: u16) -> std::io::Result<()> {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, format!("{port}\n"))?;
    std::fs::rename(partial, file)
}

/// The end of a start that found a port taken. Recorded were both: an exit, and a process that hangs.
fn refuse_port(node: &Node, endpoint: &Endpoint, err: &std::io::Error, opened: Vec<Server>) -> Fatal {
    close_rpc(opened);
    if node.options().port_hang {
        behave::hang();
    }
    let reason = match err.kind() {
        std::io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
        _ => err.to_string(),
    };
    let Endpoint { addr, port, .. } = endpoint;
    Fatal(format!("Error starting protocol stack: listen tcp {addr}:{port}: {reason}"))
}

fn close_rpc(servers: Vec<Server>) {
    for server in servers {
        let endpoint = server.endpoint.clone();
        server.close();
        let ipc = endpoint.starts_with('/');
        info(if ipc { "IPC endpoint closed" } else { "HTTP server stopped" }, &[("url", &endpoint)]);
    }
}

/// Counts SIGTERM and SIGINT on a thread of its own. The first is passed on to this thread; too many more are a panic.
fn watch_signals(node: Arc<Node>, path: PathBuf) -> Result<Arc<AtomicBool>, Fatal> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let is_asked = Arc::<AtomicBool>::default();
    let (asked, waiting) = (is_asked.clone(), std::thread::current());
    std::thread::spawn(move || {
        let mut extra = 0;
        for (count, signal) in signals.forever().enumerate() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            let us = now_us();
            let trace = json!({"pid": std::process::id(), "signal": name, "ms": us / 1000, "us": us});
            behave::trace(&path, &trace);
            if count == 0 {
                info("Got interrupt, shutting down...", &[]);
                asked.store(true, Ordering::SeqCst);
                waiting.unpark();
                continue;
            }
            extra += 1;
            let limit = node.options().term_limit;
            if extra >= limit {
                log::error("panic: boom", &[]);
                std::process::exit(2);
            }
            warn("Already shutting down, interrupt more to panic.", &[("times", &(limit - extra))]);
        }
    });
    Ok(is_asked)
}

impl Running {
    fn play(mut self) -> ExitCode {
        let mut delayed = self.node.options().rpc_delay > 0;
        loop {
            let now = now_ms();
            self.script.reread(&self.node);
            let options = self.node.options();
            if delayed && now >= self.began + options.rpc_delay {
                delayed = false;
                match bind_rpc(&self.node, &self.dir) {
                    Ok(mut servers) => {
                        servers.iter_mut().for_each(Server::begin);
                        self.servers = servers;
                    }
                    Err(Fatal(message)) => {
                        fatal(&message);
                        return ExitCode::FAILURE;
                    }
                }
            }
            if let Err(err) = self.engine.tick(now) {
                log::error("Visit to the network failed", &[("err", &err)]);
            }
            let head = self.node.state().head().number;
            if let Some((how, height)) = behave::is_due(&options, head, now - self.began) {
                behave::end(how, &self.node.args.datadir, height);
            }
            let pause = Duration::from_millis(self.engine.pause(now_ms()));
            std::thread::park_timeout(pause);
            if self.is_asked.swap(false, Ordering::SeqCst) && options.stop.is_some() {
                return self.stop();
            }
        }
    }

    fn stop(self) -> ExitCode {
        close_rpc(self.servers);
        let options = self.node.options();
        let head = self.node.state().head().number;
        let stopped = self.engine.stop(now_ms());
        std::thread::sleep(Duration::from_millis(options.stop.unwrap_or_default()));
        info("Writing cached state to disk", &[("block", &head)]);
        info("Blockchain stopped", &[]);
        // The lock goes last. Closing does not unlock it for a child that has inherited it.
        match stopped {
            Ok(store) => drop(store),
            Err(err) => log::error("Chain could not be written", &[("err", &err)]),
        }
        ExitCode::from(options.stop_code as u8)
    }
}
