//! `consensus` and `check`: what the node shows of the network, and whether it could be stopped now.
//!
//! Both ask the node themselves, so that they work whether or not a supervisor runs. The gates are
//! those that the supervisor goes by.

use super::{print, print_json, print_json_line, terminal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::home::Home;
use crate::machine::gates::{Reason, Rules, Verdict};
use crate::printable::printable;
use crate::supervisor::{Reply, Request, ask, endpoints};
use crate::wbft::{Client, ConsensusState, Coordinator, Heights, Options, Readiness, RoundMetrics};
use serde_json::json;
use std::fmt::Write as _;
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
}

/// Shows the consensus, once or until somebody interrupts.
pub(super) fn show(config: &Config, home: &Home, as_json: bool, watch: bool) -> Result<()> {
    if !watch {
        let seen = look(config, home)?;
        return if as_json { print_json(&value(&seen)) } else { print(&text(&seen, colour(config))) };
    }
    let signals = terminal::signals()?;
    let screen = (io::stdout().is_terminal() && !as_json).then(terminal::Screen::open).transpose();
    let screen = screen.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
    let mut last = None;
    loop {
        // A node that is down for a moment is part of what is watched.
        let seen = look(config, home).unwrap_or_else(|e| {
            log::debug!("{e}");
            Seen { state: ConsensusState::down(), spare: Verdict::Hold(Vec::new()), next: None }
        });
        match &screen {
            Some(screen) => {
                let drawn = screen.draw(&text(&seen, colour(config)));
                drawn.map_err(|e| Error::new(Kind::Io, "write to stdout").because(e))?;
            }
            None if last == Some(seen.state.height) => {}
            None if as_json => print_json_line(&value(&seen))?,
            None => print(&text(&seen, false))?,
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
    let rules = Rules { slot_blocks: config.slot_blocks, avoid_own_proposal: config.avoid_own_proposal };
    let next = next(home);
    let mut trouble = None;
    for endpoint in endpoints(config, home) {
        let mut node = Coordinator::new(Client::new(&endpoint, Options::default()), rules);
        let answer = node.check_readiness(None).and_then(|readiness| {
            let next = match &next {
                Some((name, heights)) => {
                    let verdict = node.check_readiness(Some(heights))?.verdict;
                    Some((name.clone(), heights.upgrade, verdict))
                }
                None => None,
            };
            Ok((readiness, next))
        });
        match answer {
            Ok((Readiness { verdict: spare, mut state }, next)) => {
                let metrics = config.daemon_node_metrics_address.as_ref();
                state.live_rounds = metrics.and_then(|url| RoundMetrics::fetch(url.as_str(), METRICS).ok());
                return Ok(Seen { state, spare, next });
            }
            Err(e) => trouble = Some(e),
        }
    }
    let error = Error::new(Kind::Unreachable, "the node cannot be asked");
    Err(match trouble {
        Some(e) => error.because(e.to_string()),
        None => error.hint("start it, or say where it is with daemon_rpc_address"),
    })
}

/// The upgrade that is next, as the supervisor has it.
fn next(home: &Home) -> Option<(String, Heights)> {
    let Reply::Status(status) = ask(home, &Request::Status).ok()?.reply else { return None };
    let plan = status.view.planned.first()?;
    Some((plan.name.to_string(), Heights { upgrade: plan.height, fork: plan.fork_height, deadline: None }))
}

fn value(seen: &Seen) -> serde_json::Value {
    let next = seen.next.as_ref();
    json!({
        "consensus": seen.state,
        "can_be_spared": seen.spare,
        "next_upgrade": next.map(|(name, height, verdict)| json!({"name": name, "height": height, "gates": verdict})),
    })
}

fn colour(config: &Config) -> bool {
    terminal::of_stdout(config).1
}

/// The picture for people.
fn text(seen: &Seen, colour: bool) -> String {
    let s = &seen.state;
    let paint = |code: &str, text: String| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text };
    let mut out = String::new();
    let step =
        serde_json::to_value(s.step).ok().and_then(|v| v.as_str().map(ToOwned::to_owned)).unwrap_or_default();
    let _ = writeln!(
        out,
        "head        {} decided in round {}, {:.1} s ago, a block every {:.1} s: {step}",
        s.height,
        s.round,
        s.head_age.as_secs_f64(),
        s.block_period.as_secs_f64()
    );
    let enough = if s.live >= s.quorum { "32" } else { "31" };
    let live = paint(enough, format!("{} of {} live", s.live, s.validator_count));
    let _ = writeln!(out, "validators  {live}, quorum {}, margin {}", s.quorum, s.margin);
    let rounds: Vec<String> =
        s.rounds.iter().map(|(round, blocks)| format!("{blocks} in round {round}")).collect();
    let _ = writeln!(out, "rounds      of the last blocks: {}", rounds.join(", "));
    let peers = s.peers.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let role = match (s.address, s.validator_index) {
        (Some(address), Some(index)) => format!("{address}, validator {index}"),
        (Some(address), None) => format!("{address}, no validator"),
        (None, _) => "its address is not told".to_owned(),
    };
    let _ = writeln!(out, "this node   {role}, peers {peers}");
    let _ = writeln!(out, "stop now    {}", words(&seen.spare));
    if let Some((name, height, verdict)) = &seen.next {
        let _ = writeln!(out, "upgrade     {name} at {height}: {}", words(verdict));
    }
    out.push('\n');
    for member in &s.validators {
        let mark = if member.live { paint("32", "live".to_owned()) } else { paint("31", "gone".to_owned()) };
        let us = if s.address == Some(member.address) { " (this node)" } else { "" };
        let seal = member.last_commit.map_or_else(|| "-".to_owned(), |height| height.to_string());
        let client = printable(member.client.as_deref().unwrap_or("-"));
        let _ = writeln!(out, "  {}  {mark}  sealed {seal:<10}  {client}{us}", member.address);
    }
    out
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Go(reason @ (Reason::Open | Reason::NotInSet)) => format!("yes: {reason}"),
        Verdict::Go(reason) => format!("yes, but: {reason}"),
        Verdict::Hold(gates) if gates.is_empty() => "not known".to_owned(),
        Verdict::Hold(gates) => {
            let gates: Vec<String> =
                gates.iter().map(|g| format!("{}: {g} (waits for {})", g.name(), g.waits_for())).collect();
            format!("no; {}", gates.join("; "))
        }
    }
}
