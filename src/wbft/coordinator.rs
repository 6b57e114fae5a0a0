//! Waits until a validator may be stopped: for the height, for its turn, for a network that can spare it.
//!
//! The decisions are [`gates::judge`]'s, which is a pure function; here a node is asked for what that
//! needs, and the calling thread waits in between. The supervisor does not use this: it asks the same
//! questions from its own loop. It is for programs and scripts that stop validators for other reasons.

use super::client::Client;
use super::fault::RpcError;
use super::heads::Heads;
use super::observer::{Observation, Observer};
use super::state::ConsensusState;
use crate::machine::gates::{self, Due, Gate, Reason, Rules, Verdict};
use std::thread;
use std::time::Duration;

/// The longest wait for a head before somebody asks whether to go on waiting.
const PAUSE: Duration = Duration::from_secs(1);

/// The heights of an upgrade that all validators have agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heights {
    /// From here on, in turn.
    pub upgrade: u64,
    /// The first block that an old program cannot follow.
    pub fork: Option<u64>,
    /// From here on out of turn; by default [`gates::DEADLINE_BEFORE_FORK`] blocks before the fork.
    pub deadline: Option<u64>,
}

/// Whether a node may be stopped now, and what that was judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The answer, with the reasons.
    pub verdict: Verdict,
    /// What the node shows.
    pub state: ConsensusState,
}

/// Waits for one validator, asking its own node.
///
/// ```no_run
/// use wemixvisor::machine::gates::Rules;
/// use wemixvisor::wbft::{Client, Coordinator, Endpoint, Heights, Options};
///
/// let endpoint: Endpoint = "/var/lib/node/node.ipc".parse()?;
/// let rules = Rules { slot_blocks: 60, avoid_own_proposal: false };
/// let mut coordinator = Coordinator::new(Client::new(&endpoint, Options::default()), rules);
/// let heights = Heights { upgrade: 1_000_000, fork: None, deadline: None };
/// coordinator.wait_for_upgrade_height(heights.upgrade, |head| {
///     eprintln!("at block {head}");
///     true
/// })?;
/// coordinator.wait_for_turn(&heights, |verdict| {
///     eprintln!("{verdict:?}");
///     true
/// })?;
/// println!("stop the node now");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Coordinator {
    observer: Observer,
    rules: Rules,
    heads: Option<Heads>,
    /// The validators at the upgrade's height, once they are known.
    due: Option<(Heights, Due)>,
}

impl Coordinator {
    /// A coordinator that has not asked yet.
    #[must_use]
    pub fn new(client: Client, rules: Rules) -> Self {
        Coordinator { observer: Observer::new(client), rules, heads: None, due: None }
    }

    /// Waits until the head is at `height` or beyond, and returns it. `goes_on` is asked at every head,
    /// and at least once a second; when it says no, the answer is `None`.
    ///
    /// # Errors
    /// Any [`Fault`](super::Fault) but `Stopped`; it can be called again.
    pub fn wait_for_upgrade_height(
        &mut self,
        height: u64,
        mut goes_on: impl FnMut(u64) -> bool,
    ) -> Result<Option<u64>, RpcError> {
        loop {
            self.listen();
            let head = self.observer.client().block_number()?;
            if head >= height {
                return Ok(Some(head));
            }
            if !goes_on(head) {
                return Ok(None);
            }
            self.pause();
        }
    }

    /// Waits until no gate holds, and returns why it is right to stop now. `goes_on` is asked as for
    /// [`wait_for_upgrade_height`](Self::wait_for_upgrade_height); when it says no, the answer is `None`.
    ///
    /// # Errors
    /// Any [`Fault`](super::Fault) but `Stopped`; it can be called again.
    pub fn wait_for_turn(
        &mut self,
        heights: &Heights,
        mut goes_on: impl FnMut(&Verdict) -> bool,
    ) -> Result<Option<Reason>, RpcError> {
        loop {
            self.listen();
            let readiness = self.check_readiness(Some(heights))?;
            if let Verdict::Go(reason) = readiness.verdict {
                return Ok(Some(reason));
            }
            if !goes_on(&readiness.verdict) {
                return Ok(None);
            }
            self.pause();
        }
    }

    /// Asks once. Without `heights` the question is only whether the network could spare the node.
    ///
    /// # Errors
    /// Any [`Fault`](super::Fault) but `Stopped`.
    pub fn check_readiness(&mut self, heights: Option<&Heights>) -> Result<Readiness, RpcError> {
        let seen = self.observer.observe()?;
        let due = heights.map(|heights| self.due(heights)).transpose()?;
        Ok(judge(&seen, due.as_ref(), &self.rules))
    }

    fn due(&mut self, heights: &Heights) -> Result<Due, RpcError> {
        if let Some((of, due)) = &self.due
            && of == heights
        {
            return Ok(due.clone());
        }
        let set = self.observer.client().validators(heights.upgrade)?;
        let known = set.is_some();
        let set = set.unwrap_or_default().into_iter().map(|validator| validator.0);
        let due = Due::new(heights.upgrade, heights.fork, heights.deadline, set);
        if known {
            self.due = Some((*heights, due.clone()));
        }
        Ok(due)
    }

    /// Subscribes to heads where that can be done; before asking, so that none comes unnoticed in between.
    fn listen(&mut self) {
        if self.heads.is_none() {
            self.heads = self.observer.client().subscribe_heads().ok();
        }
    }

    /// Waits for the next head, or a moment where the transport cannot tell of it.
    fn pause(&mut self) {
        match self.heads.as_mut().map(|heads| heads.next(Some(PAUSE))) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                self.heads = None;
                thread::sleep(PAUSE / 4);
            }
        }
    }
}

/// Judges what was seen: pure.
fn judge(seen: &Observation, due: Option<&Due>, rules: &Rules) -> Readiness {
    let sample = seen.window.sample(seen.head_age, &seen.timing);
    let verdict = match seen.own {
        Some(own) => gates::judge(&own.0, due, rules, &sample),
        None => Verdict::Hold(vec![Gate::Unknown { missing: "the node's own address".to_owned() }]),
    };
    Readiness { verdict, state: ConsensusState::from(seen) }
}
