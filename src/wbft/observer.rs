//! Asks a node for what the consensus can be judged by, again and again at little cost.
//!
//! The first observation fetches as many headers as there are validators, each later one only those
//! that are new. Everything comes from one node: whoever doubts it asks another one, too.

use super::client::{Client, Syncing};
use super::fault::{Fault, RpcError};
use super::header::Header;
use super::hex::Address;
use super::istanbul::Timing;
use super::window::{Window, span};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The blocks by which a window of fewer validators is longer than its span: what a probation asks for.
const LEAST: usize = 20;
/// The time after which round 0 is given up, for a chain that does not tell.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node says at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The last blocks: at least as many as validators, and 20, or all there are.
    pub window: Window,
    /// How long ago the head was proposed, by our clock.
    pub head_age: Duration,
    /// The address with which the node seals, if it tells.
    pub own: Option<Address>,
    /// What it says of its synchronisation.
    pub syncing: Syncing,
    /// Whether its engine is on.
    pub mining: Option<bool>,
    /// How many peers it has.
    pub peers: Option<u64>,
    /// The timing of the chain: configured where the node tells, otherwise measured.
    pub timing: Timing,
}

/// Watches one node.
///
/// ```no_run
/// use wemixvisor::wbft::{Client, ConsensusState, Endpoint, Observer, Options};
///
/// let endpoint: Endpoint = "/var/lib/node/node.ipc".parse()?;
/// let mut observer = Observer::new(Client::new(&endpoint, Options::default()));
/// let state = ConsensusState::from(&observer.observe()?);
/// println!("{} of {} validators live, quorum {}", state.live, state.validator_count, state.quorum);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    client: Client,
    window: Option<Window>,
    /// What does not change while a node runs, once it was told.
    own: Option<Address>,
    timing: Option<Timing>,
}

impl Observer {
    /// An observer that has not asked yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Observer { client, window: None, own: None, timing: None }
    }

    /// The client that asks.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Asks the node.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn observe(&mut self) -> Result<Observation, RpcError> {
        let window = self.window()?;
        if self.own.is_none() {
            self.own = self.client.node_address()?;
        }
        if self.timing.is_none() {
            self.timing = self.client.timing()?;
        }
        let period = window.period().unwrap_or(Duration::from_secs(1));
        let measured = Timing { period, round_timeout: ROUND_TIMEOUT.max(period * 2), epoch: None };
        Ok(Observation {
            head_age: age(window.head().timestamp, SystemTime::now()),
            own: self.own,
            syncing: self.client.syncing()?,
            mining: unless_refused(self.client.mining())?,
            peers: unless_refused(self.client.peer_count())?,
            timing: self.timing.unwrap_or(measured),
            window,
        })
    }

    /// The last blocks, up to the head.
    fn window(&mut self) -> Result<Window, RpcError> {
        let head = self.client.head()?;
        let kept = self.window.take().filter(|w| {
            let newest = w.head().number;
            newest <= head.number && head.number - newest <= w.blocks().len() as u64
        });
        let mut window = match kept {
            Some(window) => match self.extend(window, &head) {
                // The chain has changed under us: what we have seen is not its past.
                Err(RpcError { fault: Fault::Nonsense(_), .. }) => self.fetch(&head)?,
                window => window?,
            },
            None => self.fetch(&head)?,
        };
        window.keep(span(window.validators().len()).max(LEAST));
        self.window = Some(window.clone());
        Ok(window)
    }

    fn fetch(&mut self, head: &Header) -> Result<Window, RpcError> {
        let unknown = || Fault::nonsense("a head whose validators the node does not know");
        let of_head = self.client.validators(head.number)?;
        let of_head = of_head.ok_or_else(|| unknown().of(self.client.endpoint(), "validators"))?;
        let first = head.number.saturating_sub(span(of_head.len()).max(LEAST) as u64);
        let before = if first == head.number { Some(head.clone()) } else { self.client.header(first)? };
        let validators = self.client.validators(first)?;
        let (Some(before), Some(validators)) = (before, validators) else {
            return Err(unknown().of(self.client.endpoint(), "validators"));
        };
        let window =
            Window::after(&before, validators).map_err(|f| f.of(self.client.endpoint(), "extraData"))?;
        self.extend(window, head)
    }

    /// Takes in what has come since, up to `head`.
    fn extend(&mut self, mut window: Window, head: &Header) -> Result<Window, RpcError> {
        let newest = window.head().number;
        let mut headers = self.client.headers(newest + 1..head.number)?;
        if newest < head.number {
            headers.push(head.clone());
        }
        for header in &headers {
            window.push(header).map_err(|f| f.of(self.client.endpoint(), "extraData"))?;
        }
        if window.head().hash != head.hash {
            return Err(self.client.nonsense("eth_getHeaderByNumber", "the head is not where it was"));
        }
        Ok(window)
    }
}

/// The answer, where the node is willing to give one.
fn unless_refused<T>(answer: Result<T, RpcError>) -> Result<Option<T>, RpcError> {
    match answer {
        Err(RpcError { fault: Fault::Refused { .. }, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// How long ago `timestamp` was; nothing if it is yet to come, as clocks differ.
fn age(timestamp: u64, now: SystemTime) -> Duration {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp));
    then.and_then(|then| now.duration_since(then).ok()).unwrap_or_default()
}
