//! `wait-height`, `plan wait`, `upgrade wait`, and the waits of other commands: for scripts.
//!
//! The supervisor is asked first, since it knows where the chain is even while its node is down for an
//! upgrade. Without one the node itself is asked, and pushes its heads where it can. Times are
//! kept to about a second.

mod safe;
mod upgrade;

pub(super) use safe::{back, safe};
pub(super) use upgrade::upgrade;

use super::plan::{self, Situation};
use super::{network, print};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::name::Name;
use crate::schedule::Activation;
use crate::supervisor::{Reply, Request, ask, endpoints};
use crate::upgrade::journal::Journal;
use crate::wbft::{Coordinator, Endpoint};
use std::thread;
use std::time::{Duration, Instant};

/// For how long neither a supervisor nor a node may answer: at first, since a script that has just started a
/// supervisor need not wait for it; and later, since a supervisor or a node is started again.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));
/// How often to ask, at least and at most.
const ASK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The interval for plans and upgrades, whose state costs more to read.
const LOOK: Duration = Duration::from_millis(500);

/// When to give up.
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Deadline(timeout.and_then(|t| Instant::now().checked_add(t)))
    }

    fn has_passed(&self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    /// No longer than until the deadline.
    fn limit(&self, pause: Duration) -> Duration {
        self.0.map_or(pause, |at| pause.min(at.saturating_duration_since(Instant::now())))
    }
}

/// When a supervisor or node answered last.
struct Heard {
    last: Instant,
    patience: Duration,
}

impl Heard {
    fn nothing_yet() -> Self {
        Heard { last: Instant::now(), patience: PATIENCE.0 }
    }

    fn now() -> Self {
        Heard { last: Instant::now(), patience: PATIENCE.1 }
    }

    fn is_too_long_ago(&self) -> bool {
        self.last.elapsed() >= self.patience
    }
}

/// Waits until the chain is at a height.
///
/// # Errors
/// [`Kind::NotMet`] when the time is over, [`Kind::Unreachable`] if neither supervisor nor node answers.
pub(super) fn height(config: &Config, home: &Home, height: u64, timeout: Option<Duration>) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut heard = Heard::nothing_yet();
    let mut last = None;
    loop {
        let mut pause = ASK.0;
        match head_of_supervisor(home) {
            Ok(Some((head, period))) => {
                (heard, last) = (Heard::now(), Some(head));
                let blocks = u32::try_from(height.saturating_sub(head)).unwrap_or(u32::MAX);
                pause = (period.saturating_mul(blocks) / 2).clamp(ASK.0, ASK.1);
            }
            // A supervisor that watches no heights has no head: then the node is asked, as without a supervisor.
            nothing => {
                let see = |head| (heard, last) = (Heard::now(), Some(head));
                match heads_of_node(endpoints(config, home), height, &deadline, see) {
                    Ok(()) => {}
                    Err(_) if nothing.is_ok() => heard = Heard::now(),
                    Err(e) if heard.is_too_long_ago() || deadline.has_passed() => return Err(e),
                    Err(_) => {}
                }
            }
        }
        match last {
            Some(head) if head >= height => return print(&format!("head {head}\n")),
            Some(head) if deadline.has_passed() => {
                return Err(Error::new(Kind::NotMet, format!("the head is {head}, not yet {height}")));
            }
            None if deadline.has_passed() => {
                return Err(Error::new(Kind::NotMet, format!("no head was reported, so not yet {height}")));
            }
            Some(_) | None => thread::sleep(deadline.limit(pause)),
        }
    }
}

/// The head and the time between two blocks, as far as the supervisor knows.
fn head_of_supervisor(home: &Home) -> Result<Option<(u64, Duration)>> {
    match ask(home, &Request::Head)?.reply {
        Reply::Head { height, period_ms } => Ok(height.map(|h| (h, Duration::from_millis(period_ms)))),
        other => Err(super::home::unasked(&other)),
    }
}

/// Passes every head of the node on, until it is at `height` or the time is over.
fn heads_of_node(
    endpoints: Vec<Endpoint>,
    height: u64,
    deadline: &Deadline,
    mut see: impl FnMut(u64),
) -> Result<()> {
    let reached = network::first(endpoints, |client| {
        let goes_on = |head| {
            see(head);
            !deadline.has_passed()
        };
        Coordinator::new(client).wait_for_upgrade_height(height, goes_on)
    });
    let what = "no supervisor is running, and the node cannot be asked";
    let reached = reached.map_err(|e| network::unanswered(Error::new(Kind::Unreachable, what), e))?;
    reached.into_iter().for_each(see);
    Ok(())
}

/// Waits until every upgrade of a plan has ended.
///
/// # Errors
/// [`Kind::NotMet`] when the time is over; [`Kind::Failed`] if not everything went well, or it is not
/// followed; [`Kind::Unreachable`] if nothing will happen because no supervisor runs.
pub(super) fn plan(config: &Config, home: &Home, name: &Name, timeout: Option<Duration>) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut heard = Heard::nothing_yet();
    loop {
        let stored = plan::plans(home).load(name)?;
        match Situation::look(config, home) {
            Ok(situation) => {
                let status = situation.status(&stored);
                let (done, all) = (status.completed, status.total_upgrades - status.cancelled);
                match status.activation {
                    _ if status.pending == 0 && done == all => {
                        return print(&format!("plan {name} is done: {}\n", plan::upgrades(done)));
                    }
                    _ if status.pending == 0 => {
                        let what = format!("plan {name} has ended, but {} did not succeed", status.failed);
                        let hint = format!("see how: wemixvisor plan status {name}");
                        return Err(Error::new(Kind::Failed, what).hint(hint));
                    }
                    Activation::Inactive => {
                        let hint = format!("follow it: wemixvisor plan execute {name}");
                        return Err(
                            Error::new(Kind::Failed, format!("plan {name} is not followed")).hint(hint)
                        );
                    }
                    Activation::Changed => return Err(plan::has_changed(name)),
                    // A paused one may be resumed.
                    Activation::Active | Activation::Paused => {}
                }
                if situation.running {
                    heard = Heard::now();
                } else if heard.is_too_long_ago() || deadline.has_passed() {
                    return Err(unanswered(home));
                }
                if deadline.has_passed() {
                    let what = format!("plan {name}: {done} of {all} done, {} to come", status.pending);
                    return Err(Error::new(Kind::NotMet, what));
                }
            }
            Err(e) if heard.is_too_long_ago() || deadline.has_passed() => return Err(e),
            // The supervisor has just begun, or is ending.
            Err(_) => {}
        }
        thread::sleep(deadline.limit(LOOK));
    }
}

/// Why nothing will happen.
fn unanswered(home: &Home) -> Error {
    match Journal::read(home).map(|found| found.record.why_halted()) {
        Ok(Some(reason)) => Error::new(Kind::Halted, reason),
        Ok(None) | Err(_) => {
            Error::new(Kind::Unreachable, "no supervisor is running, so nothing will happen")
                .hint("start one with `wemixvisor run`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    /// A node that is asked once, and is gone then.
    fn answers_once(listener: TcpListener) {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        drop(listener);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
            let given =
                line.to_lowercase().strip_prefix("content-length: ").map(|n| n.trim().parse().unwrap());
            length = given.unwrap_or(length);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let body = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "result": "0x5"}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
    }

    #[test]
    fn what_a_node_told_before_it_was_gone_was_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
        let mut told = Vec::new();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| answers_once(listener));
            heads_of_node(vec![endpoint], 9, &Deadline(None), |head| told.push(head))
        });
        assert_eq!((told, outcome.unwrap_err().kind()), (vec![5], Kind::Unreachable));
    }
}
