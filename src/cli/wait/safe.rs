//! `--when-safe` and `--wait`: until the gates let a node go, and until it is back.
//!
//! The gates are those by which the supervisor stops a validator, asked of the node itself.

use super::{ASK, Deadline, Heard, unanswered};
use crate::cli::home::running_status;
use crate::cli::{network, print, tell};
use crate::config::{Config, HeightSource};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::gates::{Gate, Verdict};
use crate::wbft::Outlook;
use std::thread;
use std::time::Duration;

/// How often a supervisor is asked whether its node is back.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until no gate holds the node, as `judge` sees it.
///
/// # Errors
/// [`Kind::NotMet`] with the gates when the time is over; [`Kind::Unreachable`] if the node does not answer.
pub(in crate::cli) fn safe(
    config: &Config,
    home: &Home,
    timeout: Option<Duration>,
    judge: fn(&Outlook) -> Verdict,
) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut heard = Heard::nothing_yet();
    let mut told = Vec::new();
    loop {
        let mut pause = ASK.1;
        match network::look(config, home) {
            Ok(outlook) => {
                heard = Heard::now();
                let Verdict::Hold(gates) = judge(&outlook) else { return Ok(()) };
                let names: Vec<&str> = gates.iter().map(Gate::name).collect();
                let held = gates.iter().map(|gate| format!("{}: {gate}", gate.name())).collect::<Vec<_>>();
                let held = held.join("; ");
                if deadline.has_passed() {
                    let what = format!("this node should not be stopped now: {held}");
                    return Err(Error::new(Kind::NotMet, what));
                }
                if told != names {
                    tell(format_args!("waiting: {held}"));
                    told = names;
                }
                // Gates open and close with the blocks.
                pause = (outlook.timing().period / 4).clamp(ASK.0, ASK.1);
            }
            Err(e) if heard.is_too_long_ago() || deadline.has_passed() => return Err(e),
            Err(_) => {}
        }
        thread::sleep(deadline.limit(pause));
    }
}

/// Waits until another node process than `before` reports heads; where none are watched, until it runs.
///
/// # Errors
/// [`Kind::NotMet`] when the time is over, [`Kind::Halted`] or [`Kind::Unreachable`] if it will not come back by itself.
pub(in crate::cli) fn back(
    config: &Config,
    home: &Home,
    before: Option<u32>,
    timeout: Option<Duration>,
) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let is_blind = config.daemon_height_source == HeightSource::None;
    loop {
        let Some(status) = running_status(home)? else { return Err(unanswered(home)) };
        let view = status.view;
        let node = view.node.filter(|node| Some(node.pid) != before);
        match (node, view.head_age_ms, view.head) {
            (Some(node), None, _) if is_blind => return print(&format!("the node runs, pid {}\n", node.pid)),
            (Some(node), Some(_), Some(head)) => {
                return print(&format!("the node is back, pid {}, head {}\n", node.pid, head.height));
            }
            _ if let Some(reason) = view.halted => {
                return Err(Error::new(Kind::Halted, reason));
            }
            _ if deadline.has_passed() => {
                let trouble = view.trouble.map(|why| format!(": {why}")).unwrap_or_default();
                return Err(Error::new(Kind::NotMet, format!("the node is {}{trouble}", view.state)));
            }
            _ => thread::sleep(deadline.limit(LOOK)),
        }
    }
}
