//! Waits until a validator may be stopped: for the height, for its turn, for a network that can spare it.
//!
//! [`gates::judge`], a pure function, decides; this asks the node for the facts, and the calling thread waits in between.
//! It is for commands, and for programs that stop validators for other reasons. The supervisor has its own loop.

use super::client::Client;
use super::consensus::Timing;
use super::fault::RpcError;
use super::heads::Heads;
use super::hex::Address;
use super::observer::{Observation, Observer};
use super::state::ConsensusState;
use crate::machine::gates::{self, Gate, Reason, Slot, Validator, Verdict, Window};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// The longest wait for a head before the caller is asked whether to go on waiting.
const PAUSE: Duration = Duration::from_secs(1);

/// The gate that holds where the node does not report its address.
const NO_ADDRESS: &str = "the node's own address: serve `istanbul` or `eth`, or set validator_address";

/// Everything that the stop of a validator depends on, as its node shows it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The blocks, and the state of the node.
    pub seen: Observation,
    /// The slot of the head.
    pub slot: Slot,
    /// The addresses of the peers that are connected, where the node serves `admin`.
    pub connected: Option<BTreeSet<Address>>,
}

impl Outlook {
    /// Whether the network could spare the node now, whosever turn it is.
    #[must_use]
    pub fn spare(&self) -> Verdict {
        judge(&self.seen, None)
    }

    /// Whether the node may be stopped now, in its turn.
    #[must_use]
    pub fn in_turn(&self) -> Verdict {
        judge(&self.seen, Some(&self.slot))
    }

    /// The consensus.
    #[must_use]
    pub fn state(&self) -> ConsensusState {
        ConsensusState::from(&self.seen)
    }

    /// The height of the head.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.seen.window.head().number
    }

    /// The timing of the next block.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.seen.timing
    }

    /// The validators that seal the next block.
    #[must_use]
    pub fn set(&self) -> Vec<Validator> {
        self.seen.window.validators().iter().map(|validator| validator.0).collect()
    }

    /// Our next window at or after `from`, for as long as the set stays; `None` for a node that has no turns.
    #[must_use]
    pub fn window(&self, from: u64) -> Option<Window> {
        Some(self.slot.window(self.slot.group(&self.seen.own?.0)?, from.max(self.head())))
    }
}

/// Waits for one validator, asking its own node.
///
/// ```no_run
/// use wemixvisor::wbft::{Client, Coordinator, Endpoint, Options};
///
/// let endpoint: Endpoint = "/var/lib/node/node.ipc".parse()?;
/// let mut coordinator = Coordinator::new(Client::new(&endpoint, Options::default()));
/// coordinator.wait_for_upgrade_height(1_000_000, |head| {
///     eprintln!("at block {head}");
///     true
/// })?;
/// coordinator.wait_for_turn(|verdict| {
///     eprintln!("{verdict:?}");
///     true
/// })?;
/// println!("stop the node now");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Coordinator {
    observer: Observer,
    heads: Option<Heads>,
}

impl Coordinator {
    /// A coordinator that has not asked yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Coordinator { observer: Observer::new(client), heads: None }
    }

    /// Waits until the head is at `height` or beyond, and returns it. `goes_on` is asked at every head,
    /// and at least once a second; once it returns false, the result is `None`.
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
    /// [`wait_for_upgrade_height`](Self::wait_for_upgrade_height); once it returns false, the result is `None`.
    ///
    /// # Errors
    /// Any [`Fault`](super::Fault) but `Stopped`; it can be called again.
    pub fn wait_for_turn(
        &mut self,
        mut goes_on: impl FnMut(&Verdict) -> bool,
    ) -> Result<Option<Reason>, RpcError> {
        loop {
            self.listen();
            let seen = self.observer.observe()?;
            let slot = self.slot(seen.window.head().number)?;
            let verdict = judge(&seen, Some(&slot));
            if let Verdict::Go(reason) = verdict {
                return Ok(Some(reason));
            }
            if !goes_on(&verdict) {
                return Ok(None);
            }
            self.pause();
        }
    }

    /// Asks once for everything that stops depend on. `address` is the node's own, where it does not report that.
    ///
    /// # Errors
    /// Any [`Fault`](super::Fault) but `Stopped`.
    pub fn outlook(&mut self, address: Option<Address>) -> Result<Outlook, RpcError> {
        let mut seen = self.observer.observe()?;
        seen.own = seen.own.or(address);
        let slot = self.slot(seen.window.head().number)?;
        Ok(Outlook { seen, slot, connected: self.observer.connected()? })
    }

    /// The slot of a height, with the validators that share it.
    fn slot(&mut self, height: u64) -> Result<Slot, RpcError> {
        let set = self.observer.client().validators(Slot::first_block(height))?;
        Ok(Slot::of(height, set.unwrap_or_default().into_iter().map(|validator| validator.0)))
    }

    /// Subscribes to heads where that can be done; before asking, so that none comes unnoticed in between.
    fn listen(&mut self) {
        if self.heads.is_none() {
            self.heads = self.observer.client().subscribe_heads().ok();
        }
    }

    /// Waits for the next head, or a moment where the transport does not announce it.
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

/// Judges an observation: pure.
fn judge(seen: &Observation, slot: Option<&Slot>) -> Verdict {
    let Some(own) = seen.own else {
        return Verdict::Hold(vec![Gate::Unknown { missing: NO_ADDRESS.to_owned() }]);
    };
    let sample = seen.window.sample(seen.head_age, &seen.timing, seen.consensus.as_ref());
    gates::judge(&own.0, slot, &sample, gates::AfterOwn::Preferred)
}
