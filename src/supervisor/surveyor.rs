//! The thread that asks the node about the network, and has it seal or not.
//!
//! Each order is answered by one fact. It asks at the addresses of the poller, first over IPC, which has every method: HTTP
//! rarely has more than `eth`.

use super::poller::{Options, convert};
use super::threads::Thread;
use crate::error::Result;
use crate::machine::gates::Slot;
use crate::machine::{Block, Chain, Class, Event, Failure, OwnMark, Recollection, Survey};
use crate::printable::printable;
use crate::sorted;
use crate::wbft::{
    self, Address, Client, Constant, Decided, Endpoint, Observer, Peer, RpcError, Syncing, Window,
};
use crossbeam_channel::{Receiver, Sender};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The last blocks in which our own seal is looked for, as a probation asks for it.
const SEALS: usize = 20;

/// A fact for the machine, and the node process that it is about.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) pid: u32,
    pub(super) event: Event,
}

/// A question to a node, or an order.
#[derive(Debug)]
pub(super) enum NodeOrder {
    Survey,
    Recall { height: u64 },
    Trace { from: u64, to: u64 },
    Identify,
    StartSealing,
    StopSealing,
    Unpeer,
    Greet { validators: Vec<[u8; 20]>, turn: u32 },
}

/// A process of the node by its id, the time of its start, where to ask it, and the question.
type Question = (u32, Instant, Options, NodeOrder);

/// The handle of the thread.
pub(super) type Surveyor = Thread<Question>;

/// Starts the thread; it sends the answer to every order to `answers`.
///
/// # Errors
/// If no thread can be had.
pub(super) fn start(answers: Sender<Answer>) -> Result<Surveyor> {
    Thread::start("surveyor", Duration::ZERO, move |orders| run(orders, &answers))
}

fn run(orders: &Receiver<Question>, answers: &Sender<Answer>) {
    let mut node = AskedNode::new(0);
    for (pid, since, options, order) in orders {
        if node.pid != pid {
            node = AskedNode::new(pid);
        }
        let endpoints = candidates(&options, (!node.has_socket).then(|| since.elapsed()));
        let event = match order {
            NodeOrder::Survey => {
                let mut known = node.known.take().unwrap_or_default();
                let survey = node.ask(&endpoints, |observer| survey(observer, options.address, &mut known));
                node.known = Some(known);
                Event::Surveyed(survey)
            }
            NodeOrder::Recall { height } => {
                Event::Recalled(node.ask(&endpoints, |observer| recall(observer, height)))
            }
            NodeOrder::Trace { from, to } => {
                let headers = node.ask(&endpoints, |observer| observer.client().headers(from..=to));
                Event::Traced(headers.map(|headers| headers.into_iter().map(convert).collect()))
            }
            NodeOrder::Identify => Event::Identified(node.ask(&endpoints, identify)),
            NodeOrder::StartSealing => {
                Event::SealingStarted(node.ask(&endpoints, |observer| observer.client().miner_start()))
            }
            NodeOrder::StopSealing => {
                Event::SealingStopped(node.ask(&endpoints, |observer| observer.client().miner_stop()))
            }
            NodeOrder::Unpeer => Event::Unpeered(node.ask(&endpoints, unpeer)),
            NodeOrder::Greet { validators, turn } => {
                // Repeated at another endpoint, the order adds the peer that it has removed at the first.
                let mut chosen = None;
                Event::Greeted(node.ask(&endpoints, |observer| {
                    greet(observer.client(), &mut chosen, |peers| dialled(peers, &validators, turn))
                }))
            }
        };
        if answers.send(Answer { pid, event }).is_err() {
            return;
        }
    }
}

/// The addresses to ask, those first over which a node reports more.
fn candidates(options: &Options, socketless: Option<Duration>) -> Vec<Endpoint> {
    let mut endpoints = options.candidates(socketless);
    sorted::by_key(&mut endpoints, |endpoint| !endpoint.can_subscribe());
    endpoints
}

/// A node process, and the observer that knows its last blocks.
struct AskedNode {
    pid: u32,
    /// Whether it has answered at a socket.
    has_socket: bool,
    observer: Option<Observer>,
    known: Option<Constants>,
}

/// Facts that do not change while a node runs, once they are known.
#[derive(Default)]
struct Constants {
    client_version: Option<String>,
    forks: Constant<Option<Vec<u64>>>,
    /// The first block of a slot, and the validators that seal it.
    slot: (u64, Constant<Vec<[u8; 20]>>),
}

impl AskedNode {
    fn new(pid: u32) -> AskedNode {
        AskedNode { pid, has_socket: false, observer: None, known: None }
    }

    /// Asks the observer, or a new one at the first address that answers.
    fn ask<T>(
        &mut self,
        endpoints: &[Endpoint],
        mut ask: impl FnMut(&mut Observer) -> Result<T, RpcError>,
    ) -> Result<T, Failure> {
        let known = self.observer.take();
        let new =
            endpoints.iter().map(|endpoint| Observer::new(Client::new(endpoint, wbft::Options::default())));
        let mut trouble = "the node has no RPC address".to_owned();
        for mut observer in known.into_iter().chain(new) {
            match ask(&mut observer) {
                Ok(answer) => {
                    self.has_socket |= observer.client().endpoint().can_subscribe();
                    self.observer = Some(observer);
                    return Ok(answer);
                }
                Err(e) => trouble = e.to_string(),
            }
        }
        Err(Failure::new(Class::Transient, trouble))
    }
}

/// The node's name, and its block at a height.
fn recall(observer: &mut Observer, height: u64) -> Result<Recollection, RpcError> {
    let client = observer.client();
    let hash = client.block_hash(height)?;
    let block = Block { height, hash: hash.map(|hash| hash.to_string()) };
    let forks = client.forks().ok().flatten().map(|forks| forks.into_values().collect());
    Ok(Recollection { block, client_version: client.client_version().ok(), forks })
}

/// The chain that the node is on.
fn identify(observer: &mut Observer) -> Result<Chain, RpcError> {
    let client = observer.client();
    Ok(Chain { id: client.chain_id()?, genesis: client.genesis_hash()?.to_string() })
}

/// Removes every peer; how many there were.
fn unpeer(observer: &mut Observer) -> Result<usize, RpcError> {
    let client = observer.client();
    let peers = client.peers()?;
    for peer in &peers {
        client.remove_peer(&peer.enode)?;
    }
    Ok(peers.len())
}

/// Removes the chosen peer and adds it again; returns its network address.
fn greet(
    client: &mut Client,
    chosen: &mut Option<Peer>,
    choose: impl FnOnce(Vec<Peer>) -> Option<Peer>,
) -> Result<Option<String>, RpcError> {
    if chosen.is_none() {
        *chosen = choose(client.peers()?);
        chosen.iter().try_for_each(|peer| client.remove_peer(&peer.enode).map(|_| ()))?;
    }
    let Some(peer) = chosen else { return Ok(None) };
    client.add_peer(&peer.enode)?;
    Ok(Some(printable(&peer.remote)))
}

/// One of the validators to which the node has connected; `turn` counts through them. A peer that has connected to us does
/// not listen at the address from which it did.
fn dialled(mut peers: Vec<Peer>, validators: &[[u8; 20]], turn: u32) -> Option<Peer> {
    let is_member = |peer: &Peer| peer.address().is_some_and(|address| validators.contains(&address.0));
    peers.retain(|peer| !peer.inbound && is_member(peer));
    sorted::by(&mut peers, |a, b| a.id.cmp(&b.id));
    let at = usize::try_from(turn).unwrap_or_default().checked_rem(peers.len())?;
    Some(peers.swap_remove(at))
}

/// The network as the node shows it. `address` is its own, where it does not report that.
fn survey(
    observer: &mut Observer,
    address: Option<Address>,
    known: &mut Constants,
) -> Result<Survey, RpcError> {
    let at = Instant::now();
    let seen = observer.observe()?;
    let peers = observer.peers()?;
    let (window, client) = (&seen.window, observer.client());
    let head = window.head();
    let first = Slot::first_block(head.number);
    if known.slot.0 != first {
        known.slot = (first, Constant::default());
    }
    let sealers = |client: &mut Client| {
        let set = client.validators(first)?.unwrap_or_default();
        Ok(set.into_iter().map(|v| v.0).collect())
    };
    let slot_set = known.slot.1.get(|| sealers(client))?;
    if known.client_version.is_none() {
        known.client_version = client.client_version().ok();
    }
    let forks = known.forks.get(|| Ok(client.forks()?.map(|forks| forks.into_values().collect())))?;
    let own = seen.own.or(address);
    Ok(Survey {
        at,
        me: own.map(|own| own.0),
        slot_set,
        sample: window.sample(seen.head_age, &seen.timing, seen.consensus.as_ref()),
        hash: head.hash.to_string(),
        oldest: window.blocks().first().map_or(head.number, |block| block.number),
        own_seals: own.map(|own| window.seals_of(&own, SEALS)).unwrap_or_default(),
        own_mark: own.and_then(|own| own_mark(window, &own)),
        mining: seen.mining,
        syncing: matches!(seen.syncing, Syncing::Active { .. }),
        network_head: match seen.syncing {
            Syncing::Active { highest, .. } => Some(highest),
            Syncing::Idle => None,
        },
        peers: seen.peers.and_then(|peers| usize::try_from(peers).ok()),
        public_peers: peers.iter().flatten().any(|peer| is_public(&peer.remote)),
        connected: peers.map(|peers| peers.iter().filter_map(|peer| peer.address()).map(|a| a.0).collect()),
        client_version: known.client_version.clone(),
        forks,
        round_timeout: (seen.timing.round_timeout, seen.timing.max_round_timeout),
        census: seen
            .census()
            .into_iter()
            .filter_map(|(address, last)| Some((address.0, last.client?)))
            .collect(),
    })
}

/// Whether geth counts a peer's address as one of the open network: not loopback, RFC 1918, link-local or ULA.
fn is_public(remote: &str) -> bool {
    match remote.parse::<SocketAddr>().map(|at| at.ip().to_canonical()) {
        Ok(IpAddr::V4(ip)) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        Ok(IpAddr::V6(ip)) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
        Err(_) => true,
    }
}

/// The newest block that we have sealed or proposed. The seals of a block are in the next one, whose own time does not show
/// when they were made: a chain may stand still in between.
fn own_mark(window: &Window, own: &Address) -> Option<OwnMark> {
    let blocks = window.blocks();
    let marked = |(at, block): (usize, &Decided)| {
        let sealed = block.sealers.contains(own).then(|| at.checked_sub(1)).flatten();
        if block.proposer == *own { Some(at) } else { sealed }
    };
    let block = &blocks[blocks.iter().enumerate().rev().find_map(marked)?];
    let proposed = UNIX_EPOCH.checked_add(Duration::from_secs(block.timestamp));
    let age = proposed.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
    let before_head = Duration::from_secs(window.head().timestamp.saturating_sub(block.timestamp));
    Some(OwnMark { height: block.number, age, before_head })
}

#[cfg(test)]
mod tests {
    use super::{Peer, dialled, is_public};

    #[test]
    fn addresses_that_geth_does_not_throttle_are_not_public() {
        for private in [
            "127.0.0.1:1",
            "10.1.2.3:30303",
            "192.168.0.1:1",
            "[::1]:1",
            "[fd00::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(!is_public(private), "{private}");
        }
        for public in ["203.0.113.7:30303", "100.64.0.1:1", "[2001:db8::1]:1", "unknown"] {
            assert!(is_public(public), "{public}");
        }
    }

    #[test]
    fn validators_to_which_the_node_has_connected_are_greeted_by_turns() {
        let peer = |n: u8, inbound| Peer {
            id: format!("{}{}", "0".repeat(24), format!("{n:02x}").repeat(20)),
            enode: String::new(),
            name: String::new(),
            remote: String::new(),
            inbound,
        };
        let peers = vec![peer(4, false), peer(1, true), peer(3, false), peer(9, false)];
        let greeted = |turn| dialled(peers.clone(), &[[1; 20], [3; 20], [4; 20]], turn);
        let turns: Vec<_> =
            (0..3).map(|turn| greeted(turn).and_then(|peer| peer.address()).unwrap().0).collect();
        assert_eq!(turns, [[3; 20], [4; 20], [3; 20]]);
        assert_eq!(dialled(peers.clone(), &[[1; 20]], 0), None);
    }
}
