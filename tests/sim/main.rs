//! `simnode`: a simulated WBFT node, for testing and for showing what a supervisor does with a real one.
//!
//! It has the command line, the files, the RPC answers, the log lines and the exit codes of the node that was recorded,
//! and a chain that several processes form together, faster than life. It shares no code with the library it tests.
//!
//! ```text
//! simnode [--datadir DIR] [--mine] [--http] [--http.addr A] [--http.port N] [--http.api eth,net,…]
//!         [--ipcpath FILE | --ipcdisable] [--verbosity N] [--sim.OPTION VALUE …]
//!         [--maxpeers N] [--nodiscover] [--sync.forcecycle D] [--sync.tdinterval D] [--gcmode archive | --cache.gc 0]
//! simnode version
//! simnode --sim.stamp OUT OPTION=VALUE …     a copy of this program with these options built in
//! ```
//!
//! # Options
//! From the stamp of the binary, then `--sim.OPTION VALUE`, then `sim.json` (an object; read again whenever it changes).
//!
//! | identity | |
//! |---|---|
//! | `name`, `version` | of the program: `Simnode`, `v1.0.0` |
//! | `fork` | heights of the forks it knows, `45,90` |
//! | `db` | the data format it writes; data of a higher one are refused (8) |
//! | `layout` | of the blocks on disk: `lines` in one file, or `pebble`: tables, a write-ahead log and ancient data |
//! | `smoke` | how `simnode version` ends: a code, a signal's name, or `hang` |
//!
//! | chain | |
//! |---|---|
//! | `network` | directory shared by the nodes of one chain; without it the node is alone |
//! | `index`, `validators` | which of how many validators this is (0, 1); a higher index is an end node |
//! | `crowd` | `true`: the validators without a process vote as this one does |
//! | `chain-id`, `epoch`, `fields` | 8383, blocks per epoch (10), fields of `extraData` (10, or 9 as go-wbft) |
//! | `period`, `timeout` | ms between blocks (1000), ms until round 0 is given up (2 periods) |
//! | `slow` | ms by which the proposers' clocks are slow, as block times show it (0) |
//! | `dir` | where `sim.json` and the traces below are (the data directory) |
//! | `transitions` | a JSON list that `admin_nodeInfo` of v1.1 shows, `[{"block":100}]` (`[]`) |
//! | `finality-lag` | blocks by which `finalized` and `safe` lag behind the head (0; 2 for v1.1) |
//!
//! A `version` of v1.1 has that interface: `transitions`, a lag of `finalized`, an `istanbul_status` that knows `latest`,
//! counts 1024 blocks at most and has no `totalRounds`.
//!
//! | peers | |
//! |---|---|
//! | `catchup` | ms until a node that was away has caught up (by the sync flags; 11 periods without them) |
//! | `drop` | ms from a consensus message being under way to the loss of a silent validator's peers (by chance 0.4 to 2.5 periods) |
//! | `redial` | ms from the loss of the peers to the next dial, which brings a silent validator one burst (35 periods) |
//! | `public` | `true`: peers refuse a second connection from this address within `refuse` ms (30 periods) of the last |
//! | `host` | the index of the node whose address this one shares (its own) |
//! | `twin` | `true`: while a later node with the same key is there this one has no peers |
//!
//! The sync flags are Go durations for a chain whose period is a second, and are scaled. The environment has them as
//! `GETH_SYNC_FORCECYCLE`, `GETH_SYNC_TDINTERVAL`, or with `GWEMIX_`. `--maxpeers 0` makes a dry node: it opens its data
//! and answers, and is no member of any network. `--nodekey FILE` with another key than the one in the data directory makes
//! it an end node behind the same address. `--gcmode archive` and `--cache.gc 0` let a SIGKILL rewind nothing.
//!
//! On a public address a clean stop counts as one more connection, unless `admin_removePeer` was called for all peers
//! before. A validator whose engine starts at an old head, one before its turn, proposes within 5 ms what may be final.
//! `engine_forkchoiceUpdated` with a finalized block ends the imports of a node for ever.
//!
//! `debug_getRawBlock` gives a block that `admin_importChain` of another node takes, from a file of any number of them. A
//! copy of the data of a running node starts like one that was killed: at the head that `rewind` leaves, with the blocks
//! above it in the database. As the recorded node does, an import passes over a batch of blocks that are all in the
//! database, whatever the head is; `debug_setHead` removes those above it.
//!
//! A file `sets.json` in the network's directory, `[[20,[0,1,3]]]`, lets only validators 0, 1 and 3 seal after block 20.
//!
//! | misbehaviour | |
//! |---|---|
//! | `end` | ends by itself: `CODE`, `SIGSEGV`, `upgrade:NAME`, at once or `@HEIGHT` or `+MS`; `upgrade` writes `upgrade-info.json` and exits 0 |
//! | `stop`, `stop-code` | ms from SIGTERM to the end, or `never` (10); exit code then (0) |
//! | `term-limit` | this many SIGTERMs after the first are a panic, exit code 2 (10) |
//! | `rpc`, `rpc-delay` | `off hang garbage huge wrong-id wrong-shape close lie normal`; ms until it opens |
//! | `rpc-lie` | `lie@N`: the next N answers about the head give a height far beyond; `chain@N`: another chain; without `@N` always; `none` |
//! | `lacks` | modules that no transport serves: `debug,admin` |
//! | `migrate` | ms that a start takes before it answers when the data are of an older format than `db` (0) |
//! | `rewind` | blocks by which a SIGKILL takes the head back; peers can still get them |
//! | `stop-rewind` | blocks by which a clean stop does (0; 1 was seen) |
//! | `engine-stop` | ms that the engine goes on after `miner_stop` has returned (0) |
//! | `short-sync` | blocks by which the first sync of a process ends below the head (0) |
//! | `backwards` | `BLOCKS@HEIGHT`: the head goes back once |
//! | `freeze` | the head stays at this height |
//! | `own-block` | `true`: without the fork, keeps a block of its own at the fork's height |
//! | `mute` | `true`: the engine is on, follows the chain and sends no consensus message; `until-start`: until `miner_start` |
//! | `flood` | bytes written to stdout and to stderr at the start |
//! | `grandchild`, `grandchild-lock` | ms that a child outlives the node, which may inherit the data's lock |
//! | `port-hang` | `true`: a busy port makes it hang and not exit |
//! | `tether` | `true`: dies when its stdin is closed, as a test's nodes do with the test |
//! | `lifetime` | ms after which it kills itself, so that a test that failed leaves nothing behind for long |
//!
//! # Traces
//! `sim.starts` has one JSON line per start (pid, version, args, ms, us, head, mine), `sim.signals` one per SIGTERM or SIGINT,
//! `sim.overlaps` one per start that found the data locked, `sim.votes` one per vote (kind, height, round, hash, ms, pid).
//! `http.port` holds the port in use. The network's directory has `decided.jsonl`, every block ever decided,
//! and `dials.json`, the last accepted dial of each node on a public address, in ms since 1970.

mod admin;
mod args;
mod behave;
mod chain;
mod debug;
mod decided;
mod dials;
mod door;
mod engine;
mod eth;
mod extra;
mod hex;
mod http;
mod ipc;
mod istanbul;
mod keccak;
mod lies;
mod link;
mod log;
mod net;
mod node;
mod options;
mod raw;
mod rpc;
mod run;
mod stamp;
mod store;
mod sync;
mod tables;
mod turn;
mod votes;
mod world;

use args::Command;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let stamp = match stamp::read() {
        Ok(stamp) => stamp,
        Err(err) => return fail(&format!("Fatal: the stamp of this binary cannot be read: {err}")),
    };
    let command = match args::parse(&words, &stamp) {
        Ok(command) => command,
        Err(message) => return fail(&message),
    };
    match command {
        Command::Run(args) => run::run(*args, &words),
        Command::Version => match args::parse(&[], &stamp) {
            Ok(Command::Run(args)) => behave::version(&args.options),
            _ => ExitCode::FAILURE,
        },
        Command::Init(datadir) => run::init(datadir),
        Command::Stamp { out, pairs } => match stamp::write(&out, &pairs) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => fail(&format!("Fatal: stamp {}: {err}", out.display())),
        },
        Command::Sleep(ms) => {
            std::thread::sleep(std::time::Duration::from_millis(ms));
            ExitCode::SUCCESS
        }
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
