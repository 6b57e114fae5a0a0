//! Asks a node repeatedly, at little cost, for the facts by which the consensus can be judged.
//!
//! The first observation fetches as many headers as there are validators, a later one only the new ones. Everything comes
//! from one node: a caller that doubts it must ask another as well.

use super::client::{Client, Peer, Syncing};
use super::consensus::{Consensus, Policy, Timing};
use super::fault::{Fault, RpcError};
use super::header::Header;
use super::hex::Address;
use super::istanbul::served;
use super::window::{Proposal, Window, span};
use crate::sorted;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The least length of a window in blocks: a probation looks at so many.
const LEAST: usize = 20;
/// The time after which round 0 is given up, for a chain that does not report it.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// A node's view of the network at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The last blocks: at least one for each validator, and 20, or all there are.
    pub window: Window,
    /// How long ago the head was proposed, by our clock; zero if that is yet to come.
    pub head_age: Duration,
    /// How far the head was proposed in the future of our clock. More than a period means that our clock is slow, or
    /// the proposer's fast.
    pub clock_skew: Duration,
    /// The address with which the node seals, if it reports one.
    pub own: Option<Address>,
    /// Its report of its synchronisation.
    pub syncing: Syncing,
    /// Whether its engine is on.
    pub mining: Option<bool>,
    /// How many peers it has.
    pub peers: Option<u64>,
    /// The timing of the next block: configured where the node reports that, otherwise measured.
    pub timing: Timing,
    /// The configuration of the consensus by height, where the node reports it.
    pub consensus: Option<Consensus>,
}

impl Observation {
    /// The last proposal of each validator, of the last max(20, N) blocks: the version that each runs.
    #[must_use]
    pub fn census(&self) -> BTreeMap<Address, Proposal> {
        self.window.census(self.window.validators().len().max(LEAST))
    }
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
    own: Constant<Option<Address>>,
    /// The facts that do not change while a node runs, once known.
    consensus: Option<Consensus>,
    pub(super) admin: Option<bool>,
}

impl Observer {
    /// An observer that has not asked yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Observer { client, window: None, own: Constant::default(), consensus: None, admin: None }
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
        let own = self.own.get(|| self.client.node_address())?;
        if own.is_none() {
            self.own = Constant::default();
        }
        if self.consensus.is_none() && self.admin != Some(false) {
            self.ask_configuration()?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next = window.head().number.saturating_add(1);
        Ok(Observation {
            head_age: now.saturating_sub(Duration::from_secs(window.head().timestamp)),
            clock_skew: window.clock_skew(now),
            own,
            syncing: self.client.syncing()?,
            mining: unless_refused(self.client.mining())?,
            peers: unless_refused(self.client.peer_count())?,
            timing: self.consensus.as_ref().map_or_else(|| measured(&window), |consensus| consensus.at(next)),
            consensus: self.consensus.clone(),
            window,
        })
    }

    /// The peers that are connected now. `None` where the node does not serve `admin`.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn peers(&mut self) -> Result<Option<Vec<Peer>>, RpcError> {
        if self.admin == Some(false) {
            return Ok(None);
        }
        let peers = served(self.client.peers())?;
        self.admin = Some(peers.is_some());
        Ok(peers)
    }

    /// The addresses of the peers that are connected now, validators' and others'. `None` where the node does not serve
    /// `admin`.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn connected(&mut self) -> Result<Option<BTreeSet<Address>>, RpcError> {
        Ok(self.peers()?.map(|peers| sorted::gather(peers.iter().filter_map(Peer::address))))
    }

    fn ask_configuration(&mut self) -> Result<(), RpcError> {
        let info = served(self.client.node_info())?;
        self.admin = Some(info.is_some());
        let Some(info) = info else { return Ok(()) };
        let consensus = Consensus::from_node_info(&info);
        self.consensus = consensus.map_err(|what| self.client.nonsense("admin_nodeInfo", &what))?;
        Ok(())
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
        let mut headers = self.client.headers(newest.saturating_add(1)..head.number)?;
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

/// A fact that does not change while a node runs. It is asked for until two answers in a row agree: another node may
/// have answered in between.
#[derive(Debug, Default)]
pub struct Constant<T> {
    last: Option<T>,
    agreed: bool,
}

impl<T: Clone + PartialEq> Constant<T> {
    /// The fact, asked for where it is not known for sure.
    ///
    /// # Errors
    /// As `ask`.
    pub fn get<E>(&mut self, ask: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        match &self.last {
            Some(last) if self.agreed => Ok(last.clone()),
            last => {
                let answer = ask()?;
                self.agreed = last.as_ref() == Some(&answer);
                Ok(self.last.insert(answer).clone())
            }
        }
    }
}

/// The answer, or None where the node refuses it.
fn unless_refused<T>(answer: Result<T, RpcError>) -> Result<Option<T>, RpcError> {
    match answer {
        Err(RpcError { fault: Fault::Refused { .. }, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// The timing of a chain that does not report it, by its blocks.
fn measured(window: &Window) -> Timing {
    let period = window.period().unwrap_or(Duration::from_secs(1));
    Timing {
        period,
        round_timeout: ROUND_TIMEOUT.max(period * 2),
        max_round_timeout: None,
        epoch: None,
        policy: Policy::RoundRobin,
    }
}
