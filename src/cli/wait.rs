//! `wait-height` and `plan wait`: for scripts that have to know when something has come to pass.
//!
//! The supervisor is asked first, since it knows where the chain is even while its node is down for an
//! upgrade. Without one the node itself is asked, and tells its heads by itself where it can.

use super::plan::{self, Situation};
use super::print;
use crate::batch::Activation;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::name::Name;
use crate::supervisor::{Reply, Request, ask, endpoints};
use crate::upgrade::journal::Journal;
use crate::wbft::{Client, Heads, Options, RpcError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long somebody may be gone who was there before: a supervisor or a node is started again.
const GONE: Duration = Duration::from_secs(15);
/// How often to ask, at least and at most.
const ASK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The same about a plan, for which more has to be looked at.
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

/// Waits until the chain is at a height.
///
/// # Errors
/// [`Kind::NotMet`] when the time is over, [`Kind::Unreachable`] if there is nobody to ask.
pub(super) fn height(config: &Config, home: &Home, height: u64, timeout: Option<Duration>) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut chain = Chain { config, home, node: None };
    let mut heard: Option<Instant> = None;
    let mut last: Option<u64> = None;
    loop {
        let mut pause = ASK.0;
        match chain.ask() {
            Ok(told) => {
                heard = Some(Instant::now());
                if let Some((head, period)) = told {
                    last = Some(head);
                    if head >= height {
                        return print(&format!("head {head}\n"));
                    }
                    let blocks = u32::try_from(height - head).unwrap_or(u32::MAX);
                    pause = period.saturating_mul(blocks).clamp(ASK.0 * 2, ASK.1 * 2) / 2;
                }
            }
            Err(e) if heard.is_none_or(|at| at.elapsed() >= GONE) => return Err(e),
            Err(_) => {}
        }
        if deadline.has_passed() {
            let what = last.map_or_else(
                || format!("no head was told, so not yet {height}"),
                |head| format!("the head is {head}, not yet {height}"),
            );
            return Err(Error::new(Kind::NotMet, what));
        }
        chain.pause(deadline.limit(pause));
    }
}

/// Whoever can tell where the chain is.
struct Chain<'a> {
    config: &'a Config,
    home: &'a Home,
    node: Option<(Client, Option<Heads>)>,
}

impl Chain<'_> {
    /// The head and the time between two blocks. Nothing if there is a supervisor, but it does not know.
    fn ask(&mut self) -> Result<Option<(u64, Duration)>> {
        let told = match ask(self.home, &Request::Head) {
            Ok(answered) => match answered.reply {
                Reply::Head { height: Some(height), period_ms } => {
                    self.node = None;
                    return Ok(Some((height, Duration::from_millis(period_ms))));
                }
                Reply::Head { height: None, .. } => Ok(None),
                other => return Err(super::home::unasked(&other)),
            },
            Err(e) => Err(e),
        };
        // One that runs without watching heights knows none; then, as without one, the node is asked.
        match (self.ask_node(), told) {
            (Ok(head), _) => Ok(Some((head, Duration::from_secs(1)))),
            (Err(_), Ok(told)) => Ok(told),
            (Err(e), Err(_)) => Err(e),
        }
    }

    fn ask_node(&mut self) -> Result<u64> {
        if let Some((client, _)) = &mut self.node {
            match client.block_number() {
                Ok(head) => return Ok(head),
                Err(_) => self.node = None,
            }
        }
        let mut last: Option<RpcError> = None;
        for endpoint in endpoints(self.config, self.home) {
            let mut client = Client::new(&endpoint, Options::default());
            match client.block_number() {
                Ok(head) => {
                    // Where it cannot subscribe, it is asked again and again.
                    let heads = client.subscribe_heads().ok();
                    self.node = Some((client, heads));
                    return Ok(head);
                }
                Err(e) => last = Some(e),
            }
        }
        let error = Error::new(Kind::Unreachable, "no supervisor is running, and the node cannot be asked");
        Err(match last {
            Some(e) => error.because(e.to_string()),
            None => error.hint("start it, or say where it is with daemon_rpc_address"),
        })
    }

    /// Waits for the next head, or for some time.
    fn pause(&mut self, limit: Duration) {
        if let Some((_, heads @ Some(_))) = &mut self.node {
            let ended = heads.as_mut().is_none_or(|heads| heads.next(Some(limit)).is_err());
            if !ended {
                return;
            }
            *heads = None;
        }
        thread::sleep(limit);
    }
}

/// Waits until nothing of a plan is to come.
///
/// # Errors
/// [`Kind::NotMet`] when the time is over; [`Kind::Failed`] if not everything went well, or it is not
/// followed; [`Kind::Unreachable`] if nothing will happen because nobody runs.
pub(super) fn plan(config: &Config, home: &Home, name: &Name, timeout: Option<Duration>) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut heard: Option<Instant> = None;
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
                    heard = Some(Instant::now());
                } else if heard.is_none_or(|at| at.elapsed() >= GONE) {
                    return Err(nobody(home));
                }
                if deadline.has_passed() {
                    let what = format!("plan {name}: {done} of {all} done, {} to come", status.pending);
                    return Err(Error::new(Kind::NotMet, what));
                }
            }
            Err(e) if heard.is_none_or(|at| at.elapsed() >= GONE) || deadline.has_passed() => return Err(e),
            // It has just begun or is about to end.
            Err(_) => {}
        }
        thread::sleep(deadline.limit(LOOK));
    }
}

/// Why nothing will happen.
fn nobody(home: &Home) -> Error {
    match Journal::open(home).map(|opened| opened.record.halted) {
        Ok(Some(reason)) => {
            Error::new(Kind::Halted, reason).hint("decide with `wemixvisor resolve`, then run again")
        }
        Ok(None) | Err(_) => {
            Error::new(Kind::Unreachable, "no supervisor is running, so nothing will happen")
                .hint("start one with `wemixvisor run`")
        }
    }
}
