//! `consensus` and `check`: what the node shows of the network, and whether it could be stopped now.
//!
//! Both ask the node themselves, so that they work whether or not a supervisor runs. The gates are
//! those that the supervisor goes by.

mod picture;

use super::{print, print_json, print_json_line, terminal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::machine::gates::Verdict;
use crate::supervisor::{Reply, Request, ask, endpoints};
use crate::wbft::{Client, ConsensusState, Coordinator, Fault, Options, Readiness, RoundMetrics, RpcError};
use picture::Frame;
use serde_json::json;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// How often `--watch` looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long the node's metrics may take.
const METRICS: Duration = Duration::from_secs(2);

/// What there is to show.
struct Seen {
    state: ConsensusState,
    /// Whether the network could spare the node now.
    spare: Verdict,
    /// The upgrade that is next, and whether it may happen now.
    next: Option<(String, u64, Verdict)>,
    /// Why there is nothing to show.
    trouble: Option<String>,
}

/// Shows the consensus, once or until somebody interrupts.
pub(super) fn show(config: &Config, home: &Home, as_json: bool, watch: bool) -> Result<()> {
    if !watch {
        let seen = look(config, home)?;
        let frame = Frame { rows: usize::MAX, ..Frame::of_stdout(config) };
        return if as_json { print_json(&value(&seen)) } else { print(&picture::text(&seen, &frame)) };
    }
    let signals = terminal::signals()?;
    let screen = (io::stdout().is_terminal() && !as_json).then(terminal::Screen::open).transpose();
    let screen = screen.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
    let mut last = None;
    loop {
        // A node that is down for a moment is part of what is watched.
        let seen = look(config, home).unwrap_or_else(|e| Seen {
            state: ConsensusState::down(),
            spare: Verdict::Hold(Vec::new()),
            next: None,
            trouble: Some(e.to_string()),
        });
        match &screen {
            Some(screen) => {
                let drawn = screen.draw(&picture::text(&seen, &Frame::of_stdout(config)));
                drawn.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
            }
            None if last == Some(seen.state.height) => {}
            None if as_json => print_json_line(&value(&seen))?,
            None => print(&picture::text(&seen, &Frame::of_stdout(config)))?,
        }
        last = Some(seen.state.height);
        if !terminal::goes_on(&signals, LOOK) {
            return Ok(());
        }
    }
}

/// Says whether this node could be stopped now; the reasons against it go to stderr.
pub(super) fn check(config: &Config, home: &Home) -> Result<u8> {
    let seen = look(config, home)?;
    match seen.spare {
        Verdict::Go(reason) => print(&format!("this node could be stopped now: {reason}\n"))?,
        Verdict::Hold(gates) => {
            let reasons: Vec<String> = gates.iter().map(|gate| format!("{}: {gate}", gate.name())).collect();
            let what = format!("this node should not be stopped now: {}", reasons.join("; "));
            return Err(Error::new(Kind::NotMet, what));
        }
    }
    Ok(Exit::Ok.code())
}

/// Asks the first address of the node that answers.
fn look(config: &Config, home: &Home) -> Result<Seen> {
    let next = next(home);
    let mut trouble = None;
    for endpoint in endpoints(config, home) {
        let mut node = Coordinator::new(Client::new(&endpoint, Options::default()));
        let answer = node.check_readiness(false).and_then(|readiness| {
            let next = match &next {
                Some((name, height)) => {
                    let verdict = node.check_readiness(true)?.verdict;
                    Some((name.clone(), *height, verdict))
                }
                None => None,
            };
            Ok((readiness, next))
        });
        match answer {
            Ok((Readiness { verdict: spare, mut state }, next)) => {
                let metrics = config.daemon_node_metrics_address.as_ref();
                state.live_rounds = metrics.and_then(|url| RoundMetrics::fetch(url.as_str(), METRICS).ok());
                return Ok(Seen { state, spare, next, trouble: None });
            }
            Err(e) => trouble = Some(e),
        }
    }
    let kind = match &trouble {
        Some(RpcError { fault: Fault::Nonsense(_), .. }) => Kind::Nonsense,
        Some(_) | None => Kind::Unreachable,
    };
    let error = Error::new(kind, "the node cannot be asked");
    Err(match trouble {
        Some(e) => error.because(e.to_string()),
        None => error.hint("start it, or say where it is with daemon_rpc_address"),
    })
}

/// The upgrade that is next, as the supervisor has it.
fn next(home: &Home) -> Option<(String, u64)> {
    let Reply::Status(status) = ask(home, &Request::Status).ok()?.reply else { return None };
    let plan = status.view.planned.first()?;
    Some((plan.name.to_string(), plan.height))
}

fn value(seen: &Seen) -> serde_json::Value {
    if let Some(trouble) = &seen.trouble {
        // No number is told of a node that tells none.
        return json!({"consensus": {"step": seen.state.step}, "trouble": trouble});
    }
    let next = seen.next.as_ref();
    json!({
        "consensus": seen.state,
        "can_be_spared": seen.spare,
        "next_upgrade": next.map(|(name, height, verdict)| json!({"name": name, "height": height, "gates": verdict})),
    })
}
