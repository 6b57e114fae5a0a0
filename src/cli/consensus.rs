//! `consensus` and `check`: what the node shows of the network, and when it could be stopped.
//!
//! Both ask the node themselves, so that they work whether or not a supervisor runs. The gates are
//! those that the supervisor goes by. A supervisor that runs is asked as well: it knows what is planned, and why the
//! node is down.

mod picture;

use super::args::{Format, Patience};
use super::forecast::{Now, Turn};
use super::{network, output, print, print_json, print_json_line, show as status, terminal, wait};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::machine::gates::{Verdict, Window};
use crate::machine::{UpgradeView, View};
use crate::supervisor::{Reply, Request, ask};
use crate::wbft::{ConsensusState, Forecast, Outlook, RoundMetrics, Step};
use picture::Frame;
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// The interval of `--watch`.
const LOOK: Duration = Duration::from_secs(1);
/// How long the node's metrics may take.
const METRICS: Duration = Duration::from_secs(2);
/// The number of turns that are shown.
const TURNS: usize = 3;

/// Everything that is shown.
struct Seen {
    /// The network, or why the node cannot be asked.
    node: Result<Node, String>,
    /// The supervisor, if one runs.
    view: Option<View>,
}

/// The network as the node shows it.
struct Node {
    state: ConsensusState,
    /// Whether the network could spare the node now, whosever turn it is.
    spare: Verdict,
    /// Whether the node may be stopped now, in its turn.
    in_turn: Verdict,
    now: Now,
    /// Our next turns; none for a node that is no validator.
    turns: Vec<Window>,
    /// The number of other validators that are connected peers, and of all others.
    connected: Option<(usize, usize)>,
    /// The round that runs, where the next block is overdue.
    round: Option<Forecast>,
    /// The upgrade that is next, and our turn for it.
    next: Option<(UpgradeView, Option<Window>)>,
}

impl Node {
    fn new(outlook: &Outlook, next: Option<&UpgradeView>) -> Node {
        let state = outlook.state();
        let others = || state.validators.iter().filter(|v| Some(v.address) != state.address);
        let connected = outlook
            .connected
            .as_ref()
            .map(|peers| (others().filter(|v| peers.contains(&v.address)).count(), others().count()));
        let overdue = state.step == Step::RoundChange;
        Node {
            spare: outlook.spare(),
            in_turn: outlook.in_turn(),
            now: network::now(outlook),
            turns: turns(outlook),
            connected,
            round: overdue.then(|| outlook.timing().forecast(state.head_age)),
            next: next.map(|plan| (plan.clone(), outlook.window(plan.height))),
            state,
        }
    }
}

/// The next turns of a validator.
fn turns(outlook: &Outlook) -> Vec<Window> {
    let next = |last: &Window| outlook.window(last.closes_at.saturating_add(1));
    std::iter::successors(outlook.window(outlook.head()), next).take(TURNS).collect()
}

/// Shows the consensus once.
pub(super) fn show(config: &Config, home: &Home, format: Format) -> Result<u8> {
    let seen = look(config, home)?;
    let frame = Frame { rows: usize::MAX, ..Frame::of_stdout(config) };
    output(format, &value(&seen), || picture::text(&seen, &frame))?;
    Ok(if seen.node.is_ok() { Exit::Ok.code() } else { Kind::Unreachable.code() })
}

/// Shows the consensus until a signal arrives.
pub(super) fn watch(config: &Config, home: &Home, format: Format) -> Result<u8> {
    let signals = terminal::signals()?;
    let screen =
        (io::stdout().is_terminal() && format == Format::Text).then(terminal::Screen::open).transpose();
    let screen = screen.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
    let mut last = None;
    loop {
        // A node that is down is shown as such, and watched on.
        let seen = look(config, home).unwrap_or_else(|e| Seen { node: Err(e.to_string()), view: None });
        let shown = seen.node.as_ref().map(|node| node.state.height).map_err(Clone::clone);
        match &screen {
            Some(screen) => {
                let drawn = screen.draw(&picture::text(&seen, &Frame::of_stdout(config)));
                drawn.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
            }
            None if last.as_ref() == Some(&shown) => {}
            None if format == Format::Json => print_json_line(&value(&seen))?,
            None => print(&picture::text(&seen, &Frame::of_stdout(config)))?,
        }
        last = Some(shown);
        if !terminal::goes_on(&signals, LOOK) {
            return Ok(Exit::Ok.code());
        }
    }
}

/// Reports whether this node could be stopped now, or waits until it can; the reasons against it are an error.
pub(super) fn check(config: &Config, home: &Home, format: Format, patience: Patience) -> Result<()> {
    if patience.when_safe
        && let Err(e) = wait::safe(config, home, patience.timeout, Outlook::spare)
        && e.kind() != Kind::NotMet
    {
        return Err(e);
    }
    let node = ask_node(config, home)?;
    if format == Format::Json {
        print_json(&json!({"head": node.now.head, "can_be_spared": node.spare, "in_turn": node.in_turn}))?;
    }
    match node.spare {
        Verdict::Go(_) if format == Format::Json => Ok(()),
        Verdict::Go(reason) => print(&format!("this node could be stopped now: {reason}\n")),
        Verdict::Hold(gates) => {
            let reasons: Vec<String> = gates.iter().map(|gate| format!("{}: {gate}", gate.name())).collect();
            let what = format!("this node should not be stopped now: {}", reasons.join("; "));
            Err(Error::new(Kind::NotMet, what))
        }
    }
}

/// Shows the next turns of this node.
pub(super) fn check_next(config: &Config, home: &Home, format: Format) -> Result<()> {
    let node = ask_node(config, home)?;
    output(format, &turns_value(&node), || picture::turns(&node))?;
    if node.turns.is_empty() { Err(Error::new(Kind::NotMet, no_turns(&node.state))) } else { Ok(()) }
}

/// Why a node has no turns.
fn no_turns(state: &ConsensusState) -> &'static str {
    match (state.address, state.is_validator) {
        (None, _) => "the node's address is not known: serve `istanbul` or `eth`, or set validator_address",
        (Some(_), false) => "this node is no validator: it waits for no turn",
        (Some(_), true) => {
            "this node has joined in mid-slot: its first turn is known when the next slot begins"
        }
    }
}

/// Asks the node, which must answer.
fn ask_node(config: &Config, home: &Home) -> Result<Node> {
    let seen = look(config, home)?;
    seen.node.map_err(|trouble| Error::new(Kind::Unreachable, trouble))
}

/// Asks the node and the supervisor.
///
/// # Errors
/// If neither answers.
fn look(config: &Config, home: &Home) -> Result<Seen> {
    let view = match ask(home, &Request::Status).map(|answered| answered.reply) {
        Ok(Reply::Status(status)) => Some(status.view),
        Ok(_) | Err(_) => None,
    };
    let next = view.as_ref().and_then(|view| view.planned.first());
    let node = match (network::look(config, home), &view) {
        (Ok(outlook), _) => {
            let mut node = Node::new(&outlook, next);
            let metrics = config.daemon_node_metrics_address.as_ref();
            node.state.live_rounds = metrics.and_then(|url| RoundMetrics::fetch(url.as_str(), METRICS).ok());
            Ok(node)
        }
        (Err(e), Some(view)) => Err(why_down(view, &e)),
        (Err(e), None) => return Err(e),
    };
    Ok(Seen { node, view })
}

/// Why the node of a supervisor that runs cannot be asked.
fn why_down(view: &View, error: &Error) -> String {
    if let Some(reason) = &view.halted {
        return format!("halted: {reason}");
    }
    if let Some(attempt) = &view.upgrade {
        let stage = status::stage(attempt);
        return format!("upgrade {} is under way: {stage} ({})", attempt.name, view.state);
    }
    match view.held.as_ref().or(view.trouble.as_ref()) {
        Some(trouble) => format!("the node is {}: {trouble}", view.state),
        None if view.node.is_some() => error.to_string(),
        None => format!("the node is {}", view.state),
    }
}

fn value(seen: &Seen) -> Value {
    let attempt = seen.view.as_ref().and_then(|view| view.upgrade.as_ref());
    let under_way = attempt.map(|attempt| json!({"name": attempt.name, "phase": attempt.phase.to_string()}));
    let symptoms = seen.view.as_ref().map(|view| &view.symptoms);
    let node = match &seen.node {
        Ok(node) => node,
        // A node that cannot be asked has no numbers.
        Err(trouble) => {
            let down = json!({"step": Step::Down});
            return json!({"consensus": down, "trouble": trouble, "under_way": under_way, "symptoms": symptoms});
        }
    };
    let round = node.round.map(|round| {
        let left = round.next.saturating_sub(node.state.head_age);
        json!({"round": round.round, "next_in_ms": u64::try_from(left.as_millis()).unwrap_or(u64::MAX)})
    });
    json!({
        "consensus": node.state,
        "connected_validators": node.connected.map(|(connected, _)| connected),
        "forecast": round,
        "can_be_spared": node.spare,
        "turns": turns_of(node),
        "next_upgrade": next_value(node),
        "under_way": under_way,
        "symptoms": symptoms,
    })
}

fn turns_of(node: &Node) -> Vec<Turn> {
    node.turns.iter().map(|window| node.now.turn(*window)).collect()
}

fn next_value(node: &Node) -> Option<Value> {
    let (plan, window) = node.next.as_ref()?;
    Some(json!({
        "name": plan.name, "height": plan.height, "fork_height": plan.fork_height,
        "deadline_height": plan.deadline_height, "overdue": plan.overdue, "why": plan.why,
        "turn": window.map(|window| node.now.turn(window)), "gates": node.in_turn,
    }))
}

fn turns_value(node: &Node) -> Value {
    let (turns, next) = (turns_of(node), next_value(node));
    json!({"head": node.now.head, "address": node.state.address, "turns": turns, "next_upgrade": next})
}
