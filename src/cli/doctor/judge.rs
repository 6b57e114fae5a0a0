//! The judgement of a home, its node and the machine around them: facts in, findings out. Pure.

use crate::config::{Config, StopTimeoutAction};
use crate::flags::{flag, is_on, value_of};
use crate::machine::Chain;
use crate::machine::gates::room;
use crate::name::Name;
use crate::time::parse_duration;
use crate::wbft::{Address, ConsensusState};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Mark {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    pub(in crate::cli) check: &'static str,
    pub(in crate::cli) result: Mark,
    pub(in crate::cli) text: String,
    /// The next step, where something is wrong.
    pub(in crate::cli) cure: Option<String>,
}

/// Something that is wrong, with its cure.
pub(super) type Fault = (Mark, String, String);

/// The number of faults that a check shows.
const SHOWN: usize = 3;
/// Methods by which the node takes orders, or shows its keys.
const ORDERS: [&str; 5] = ["admin", "debug", "engine", "miner", "personal"];
/// With fewer peers than these a node syncs in cycles of 10 s only.
const FEW_PEERS: u64 = 5;
/// The open files that a node and its databases may need.
const OPEN_FILES: u64 = 16_384;

/// One copy of the code for all kinds of texts.
#[inline(never)]
fn fault(mark: Mark, text: &str, cure: &str) -> Fault {
    (mark, text.to_owned(), cure.to_owned())
}

pub(super) fn warn(text: impl AsRef<str>, cure: impl AsRef<str>) -> Fault {
    fault(Mark::Warn, text.as_ref(), cure.as_ref())
}

pub(super) fn fail(text: impl AsRef<str>, cure: impl AsRef<str>) -> Fault {
    fault(Mark::Fail, text.as_ref(), cure.as_ref())
}

/// The lines of one check: its faults, or `fine`.
pub(super) fn lines(check: &'static str, faults: Vec<Fault>, fine: impl Display) -> Vec<Finding> {
    lines_of(check, faults, &fine)
}

/// The same, with one copy of the code for whatever is shown.
fn lines_of(check: &'static str, mut faults: Vec<Fault>, fine: &dyn Display) -> Vec<Finding> {
    let more = faults.len().saturating_sub(SHOWN);
    faults.truncate(SHOWN);
    if let Some((_, text, _)) = faults.last_mut().filter(|_| more > 0) {
        *text += &format!(" (and {more} more)");
    }
    let cure = |cure: String| Some(cure).filter(|cure| !cure.is_empty());
    let line = |(result, text, next): Fault| Finding { check, result, text, cure: cure(next) };
    let mut lines: Vec<Finding> = faults.into_iter().map(line).collect();
    if lines.is_empty() {
        lines.push(Finding { check, result: Mark::Ok, text: fine.to_string(), cure: None });
    }
    lines
}

/// A file or directory, and who may do what with it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) owner: u32,
    pub(super) mode: u32,
    pub(super) is_link: bool,
    /// Whether other users get through to its directory.
    pub(super) is_reachable: bool,
}

/// Whether other users could change what we read and execute. `user` is the one whose home it is.
pub(super) fn modes(paths: &[Seen], user: u32) -> Vec<Finding> {
    let mut faults = Vec::new();
    for Seen { path, owner, mode, .. } in paths.iter().filter(|seen| !seen.is_link) {
        let path = path.display();
        if *owner != user && *owner != 0 {
            let cure = format!("look who put it there, then chown {user} {path}");
            faults.push(fail(format!("{path} belongs to user {owner}, the home to user {user}"), cure));
        }
        if mode & 0o002 != 0 {
            faults.push(fail(format!("every user may write {path}"), format!("chmod go-w {path}")));
        } else if mode & 0o020 != 0 {
            faults.push(warn(format!("its group may write {path}"), format!("chmod g-w {path}")));
        }
    }
    lines("modes", faults, format!("only user {user} may write the home"))
}

/// Directories of ours that are links: what is behind them belongs to another place.
pub(super) fn links(paths: &[Seen]) -> Vec<Finding> {
    let linked = paths.iter().filter(|seen| seen.is_link);
    let fault = |seen: &Seen| {
        warn(format!("{} is a symbolic link", seen.path.display()), "put the directory itself in its place")
    };
    lines("links", linked.map(fault).collect(), "no directory of ours is a link")
}

/// Whether other users can read a key. A directory that lets no one through protects what is in it.
pub(super) fn keys(keys: &[Seen]) -> Vec<Finding> {
    let readable = keys.iter().filter(|key| key.is_reachable && key.mode & 0o044 != 0);
    let fault = |key: &Seen| {
        let path = key.path.display();
        fail(format!("other users can read {path}"), format!("chmod 600 {path}, and take it for known"))
    };
    lines("keys", readable.map(fault).collect(), format!("{} found, for their owner alone", keys.len()))
}

/// The command line of a node.
pub(super) struct Node<'a> {
    pub(super) args: &'a [OsString],
    /// Whether the supervisor may have taken `--mine` away, as it does for a start without sealing.
    pub(super) may_lack_mine: bool,
    /// Its environment, in which flags may be as well.
    pub(super) environment: &'a [u8],
    pub(super) peers: Option<u64>,
}

impl Node<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        value_of(self.args, name)?.to_str()
    }

    fn mines(&self) -> bool {
        let mut variables = self.environment.split(|byte| *byte == 0);
        is_on(self.args, "mine") || variables.any(|variable| variable.ends_with(b"_MINE=true"))
    }
}

/// The arguments of the node against the configuration.
pub(super) fn arguments(node: &Node<'_>, config: &Config) -> Vec<Finding> {
    let mut faults = Vec::new();
    let (validator, mines) = (config.validator_mode, node.mines());
    if validator && !mines && !node.may_lack_mine && node.value("config").is_none() {
        let text =
            "the node of a validator runs without --mine: it seals only when the supervisor orders it to";
        faults.push(warn(text, "add --mine to the arguments of `run`"));
    }
    if mines && !validator {
        let text = "--mine without validator_mode: the node is stopped whatever the network can spare";
        faults.push(warn(text, "set validator_mode: true"));
    }
    if let Some(mode) = node.value("syncmode").filter(|mode| validator && *mode != "full") {
        let text = format!("--syncmode {mode}: a validator takes blocks that it has not executed");
        faults.push(warn(text, "--syncmode full"));
    }
    let kills = config.daemon_stop_timeout_action == StopTimeoutAction::Kill;
    if kills && node.value("gcmode") != Some("archive") && node.value("cache.gc") != Some("0") {
        let text = "daemon_stop_timeout_action is kill, which rewinds a node without --gcmode archive by hundreds of blocks";
        faults.push(warn(text, "set it to wait"));
    }
    let cycles = node.args.iter().any(|arg| flag(arg).is_some_and(|(name, _)| name == "sync.forcecycle"));
    if let Some(peers) = node.peers.filter(|peers| *peers < FEW_PEERS && !cycles && !config.daemon_fast_sync)
    {
        let text = format!("with {peers} peers a node that was restarted waits 10 s for its first sync");
        faults.push(warn(text, "set daemon_fast_sync: true, or add --sync.forcecycle 1ms"));
    }
    let file = node.value("config").map(|file| format!(", but for those in {file}"));
    lines("arguments", faults, format!("they fit the configuration{}", file.unwrap_or_default()))
}

/// The interfaces of the node, as its arguments and the modes of its sockets open them.
pub(super) fn interfaces(node: &Node<'_>, sockets: &[Seen]) -> Vec<Finding> {
    let mut faults = Vec::new();
    for (kind, [address, api]) in [("http", ["http.addr", "http.api"]), ("ws", ["ws.addr", "ws.api"])] {
        let names = node.value(api).unwrap_or_default().split(',').map(str::trim);
        let orders: Vec<&str> = names.filter(|name| ORDERS.contains(name)).collect();
        if orders.is_empty() || !is_on(node.args, kind) {
            continue;
        }
        let (orders, cure) =
            (orders.join(","), format!("leave them out of --{api}: the IPC socket has them"));
        match node.value(address).filter(|address| !is_loopback(address)) {
            Some(address) => faults.push(fail(format!("--{api} {orders} is served on {address}"), cure)),
            None => {
                faults.push(warn(format!("--{api} {orders} is open to every user of this machine"), cure))
            }
        }
    }
    if let Some(address) = node.value("authrpc.addr").filter(|address| !is_loopback(address)) {
        let text = format!("--authrpc.addr {address}: one call of engine_forkchoiceUpdated stops the import");
        faults.push(fail(text, "--authrpc.addr localhost"));
    }
    for socket in sockets.iter().filter(|socket| socket.is_reachable && socket.mode & 0o022 != 0) {
        let path = socket.path.display();
        let text = format!("other users can order the node by {path}, which asks for no password");
        faults.push(fail(text, format!("chmod 600 {path}, and leave --ipcpath in the data directory")));
    }
    lines("interfaces", faults, "orders come by the IPC socket alone, from its owner")
}

fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The chain of the node, and how it goes on. `bound` is the one of the home.
pub(super) fn chain(state: &ConsensusState, bound: Option<&Chain>, seen: Option<&Chain>) -> Vec<Finding> {
    let mut faults = Vec::new();
    if let Some((bound, seen)) = bound.zip(seen).filter(|(bound, seen)| bound != seen) {
        let text = format!("the node is on chain {} ({:.10}…)", seen.id, seen.genesis);
        let text = format!("{text}, this home on chain {} ({:.10}…)", bound.id, bound.genesis);
        faults.push(fail(
            text,
            "give the node its data back; where the chain began anew: wemixvisor resolve chain",
        ));
    }
    let age = state.head_age;
    let head = format!("head {}, {} s old", state.height, age.as_secs());
    if state.catching_up {
        faults.push(warn(format!("{head}: the node is behind"), "wait until it has caught up"));
    } else if age > Duration::from_secs(30).max(state.block_period * 10) {
        faults.push(fail(head.clone(), "see which validators are missing: wemixvisor consensus"));
    }
    let id = seen.map(|chain| format!("chain {}, ", chain.id)).unwrap_or_default();
    lines("chain", faults, format!("{id}{head}"))
}

/// The address with which the node seals, and whether the configuration takes it for what it is. `sealing` is that of a
/// validator: whether its engine is on, or is off for a reason.
pub(super) fn address(config: &Config, own: Option<Address>, sealing: Option<bool>) -> Vec<Finding> {
    let is_validator = sealing.is_some();
    let mut faults = Vec::new();
    match (own, config.validator_address, config.validator_mode) {
        (None, None, true) => faults.push(fail(
            "the node does not report its address, and without one there is no turn",
            "set validator_address, or serve `istanbul` or `eth`",
        )),
        (Some(own), Some(configured), _) if own != configured => faults.push(fail(
            format!("the node seals as {own}, validator_address is {configured}"),
            "set validator_address to the node's, or leave it out",
        )),
        (_, _, true) if !is_validator => faults.push(warn(
            "validator_mode is on, and the node is in no validator set",
            "wait until it is elected, or look whether the node has the right key",
        )),
        (_, _, false) if is_validator => faults.push(fail(
            "the node is a validator, and validator_mode is off: upgrades wait for no turn",
            "set validator_mode: true",
        )),
        _ if sealing == Some(false) => faults.push(warn(
            "the node is a validator, and its engine is off",
            "add --mine to the arguments of `run`; a node that syncs turns it on by itself",
        )),
        _ => {}
    }
    let own = own.or(config.validator_address).map_or("not reported".to_owned(), |own| own.to_string());
    lines("address", faults, format!("{own}, {}", if is_validator { "a validator" } else { "no validator" }))
}

/// Whether the network could lose a validator.
pub(super) fn quorum(state: &ConsensusState) -> Vec<Finding> {
    let ConsensusState { live, validator_count: all, quorum, .. } = state;
    let seal = format!("{live} of {all} validators seal, {quorum} must");
    let see = "see which ones are missing: wemixvisor consensus";
    let fault = match live.checked_sub(*quorum) {
        _ if *all == 0 => None,
        None => Some(fail(seal.clone(), see)),
        // Each is needed, so that a stop of any halts the chain.
        Some(0) if live == all && state.is_validator => Some(warn(
            format!("{seal}: every stop of this node halts the chain"),
            "tell the others beforehand",
        )),
        Some(0) if live < all => Some(warn(format!("{seal}: none may fail"), see)),
        Some(_) => None,
    };
    lines("quorum", fault.into_iter().collect(), seal)
}

/// The clock against the chain's. `symptom` is what the supervisor has noticed, which hears each head as it comes.
pub(super) fn clock(state: &ConsensusState, symptom: Option<&str>) -> Vec<Finding> {
    let cure = "have chrony or systemd-timesyncd set it";
    let limit = Duration::from_secs(3).max(state.block_period * 3);
    let fault = match symptom {
        Some(text) => Some(fail(text, cure)),
        None if state.clock_skew > limit => {
            Some(fail(format!("it is {:.0?} behind the chain's", state.clock_skew), cure))
        }
        None => None,
    };
    lines("clock", fault.into_iter().collect(), "it agrees with the chain's")
}

/// An upgrade before a fork: its name, its height and the fork's.
pub(super) type Before<'a> = (&'a Name, u64, u64);

/// Whether all validators can have their turns between the height of an upgrade and the fork.
pub(super) fn forks(plans: &[Before<'_>], state: &ConsensusState) -> Vec<Finding> {
    let to_come = plans.iter().filter(|(_, _, fork)| *fork > state.height);
    let short = |(name, height, fork): &Before<'_>| {
        let short = room(state.validator_count, *height, Some(state.height), *fork).err()?;
        Some(fail(format!("{name}: {short}"), format!("upgrade earlier: wemixvisor upgrade now {name}")))
    };
    let number = to_come.clone().count();
    lines("forks", to_come.filter_map(short).collect(), format!("{number} to come, with room for all turns"))
}

/// The settings of the unit that runs the supervisor, by their names in systemd.
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) settings: Vec<(String, String)>,
}

impl Unit {
    /// The settings that [`systemd`] judges.
    pub(super) const SETTINGS: &str =
        "Type,KillMode,SendSIGKILL,TimeoutStopUSec,OOMPolicy,Restart,RestartPreventExitStatus";

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The unit against the stops of the node, which take their time.
pub(super) fn systemd(unit: Option<&Unit>, grace: Duration) -> Vec<Finding> {
    let Some(unit) = unit else { return lines("systemd", Vec::new(), "it does not run the supervisor") };
    let mut faults = Vec::new();
    if !unit.is("KillMode", "process") {
        let text = "a stop or crash of the supervisor ends the node as well, after a while by SIGKILL";
        faults.push(fail(text, format!("KillMode=process in {}", unit.name)));
    }
    if unit.is("SendSIGKILL", "yes") {
        let text = "a stop that takes long ends with SIGKILL";
        faults.push(warn(text, format!("SendSIGKILL=no in {}", unit.name)));
    }
    let limit = unit.get("TimeoutStopUSec").and_then(span);
    let asks_for_time = unit.get("Type").is_some_and(|kind| kind.starts_with("notify"));
    if let Some(limit) = limit.filter(|limit| *limit < grace && !asks_for_time) {
        let text = format!("it waits {limit:.0?} for a stop, daemon_shutdown_grace is {grace:.0?}");
        faults.push(warn(text, format!("Type=notify in {}, by which more time is asked for", unit.name)));
    }
    if !unit.is("OOMPolicy", "continue") {
        let text = "where the kernel kills one process for want of memory, systemd stops all";
        faults.push(warn(text, format!("OOMPolicy=continue in {}", unit.name)));
    }
    if unit.is("Restart", "no") {
        let text = "a supervisor that has crashed is not started again";
        faults.push(warn(text, format!("Restart=on-failure in {}", unit.name)));
    }
    let prevented = unit.get("RestartPreventExitStatus").unwrap_or_default();
    if !unit.is("Restart", "no") && !prevented.split([' ', '[', ']']).any(|code| code == "79") {
        let text = "a halted supervisor is started again and again";
        faults.push(warn(text, format!("RestartPreventExitStatus=79 78 64 2 in {}", unit.name)));
    }
    lines("systemd", faults, format!("{} lets the node outlive its supervisor", unit.name))
}

/// A time span of systemd: `1min 30s`.
fn span(text: &str) -> Option<Duration> {
    parse_duration(&text.replace("min", "m").replace(' ', "")).ok()
}

/// The limit of open files, to which a node raises its own.
pub(super) fn limits(open_files: Option<u64>) -> Vec<Finding> {
    let few = open_files.filter(|limit| *limit < OPEN_FILES);
    let fault = few.map(|limit| {
        warn(format!("the node may open {limit} files"), "LimitNOFILE=1048576, or ulimit -n 1048576")
    });
    let fine = open_files.map_or("not known".to_owned(), |limit| format!("{limit} open files"));
    lines("limits", fault.into_iter().collect(), fine)
}

#[cfg(test)]
mod tests;
