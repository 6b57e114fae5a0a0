//! The thread that asks the node about the network, and has it seal or not.
//!
//! Each order is answered by one fact. It asks over the same addresses as the poller, those first over
//! which a node tells more than over plain HTTP: IPC has every method, HTTP rarely more than `eth`.

use super::essential;
use super::poller::Options;
use crate::error::{Error, Kind, Result};
use crate::machine::{Block, Class, Event, Failure, OwnSeal, Recollection, Survey};
use crate::wbft::{self, Client, Decided, Endpoint, Observer, RpcError, Syncing};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The last blocks in which our own seal is looked for, as a probation asks for it.
const SEALS: usize = 20;

/// A fact for the machine, and the node process that it is about.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) pid: u32,
    pub(super) event: Event,
}

/// What the thread is asked to do, for a node process that was started at a time.
#[derive(Debug)]
pub(super) enum Order {
    Survey { due: Option<u64> },
    Recall { height: u64 },
    Sign,
    Leave,
}

/// The handle of the thread. Dropped, the thread ends.
#[derive(Debug)]
pub(super) struct Surveyor {
    orders: Sender<(u32, Instant, Options, Order)>,
}

impl Surveyor {
    /// Starts the thread; it sends the answer to every order to `answers`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(answers: Sender<Answer>) -> Result<Self> {
        let (orders, receiver) = unbounded();
        essential::spawn("surveyor", move || run(&receiver, &answers))
            .map_err(|e| Error::new(Kind::Io, "start the surveyor thread").because(e))?;
        Ok(Surveyor { orders })
    }

    /// Hands an order over, for the node `pid` that was started at `since`.
    pub(super) fn order(&self, pid: u32, since: Instant, options: Options, order: Order) {
        // The thread lives as long as this handle.
        let _ = self.orders.send((pid, since, options, order));
    }
}

fn run(orders: &Receiver<(u32, Instant, Options, Order)>, answers: &Sender<Answer>) {
    let mut node = Node { pid: 0, has_socket: false, observer: None };
    for (pid, since, options, order) in orders {
        if node.pid != pid {
            node = Node { pid, has_socket: false, observer: None };
        }
        let endpoints = candidates(&options, (!node.has_socket).then(|| since.elapsed()));
        let event = match order {
            Order::Survey { due } => {
                Some(Event::Surveyed(node.ask(&endpoints, |observer| survey(observer, due))))
            }
            Order::Recall { height } => {
                Some(Event::Recalled(node.ask(&endpoints, |observer| recall(observer, height))))
            }
            Order::Sign => {
                Some(Event::Signing(node.ask(&endpoints, |observer| observer.client().miner_start())))
            }
            Order::Leave => {
                if let Err(e) = node.ask(&endpoints, |observer| observer.client().miner_stop()) {
                    log::warn!("event=not_left the node seals until it is stopped: {e}");
                }
                None
            }
        };
        if let Some(event) = event
            && answers.send(Answer { pid, event }).is_err()
        {
            return;
        }
    }
}

/// Where to ask, those first over which a node tells more.
fn candidates(options: &Options, socketless: Option<Duration>) -> Vec<Endpoint> {
    let mut endpoints = options.candidates(socketless);
    endpoints.sort_by_key(|endpoint| !endpoint.can_subscribe());
    endpoints
}

/// A node process, and the observer that knows its last blocks.
struct Node {
    pid: u32,
    /// Whether it has answered at a socket.
    has_socket: bool,
    observer: Option<Observer>,
}

impl Node {
    /// Asks the observer, or a new one at the first address that answers.
    fn ask<T>(
        &mut self,
        endpoints: &[Endpoint],
        ask: impl Fn(&mut Observer) -> Result<T, RpcError>,
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

/// Who the node is, and its block at a height.
fn recall(observer: &mut Observer, height: u64) -> Result<Recollection, RpcError> {
    let client = observer.client();
    let header = client.header(height)?;
    let block = Block { height, hash: header.map(|header| header.hash.to_string()) };
    Ok(Recollection { block, client_version: client.client_version().ok() })
}

/// What the node says of the network.
fn survey(observer: &mut Observer, due: Option<u64>) -> Result<Survey, RpcError> {
    let seen = observer.observe()?;
    let (window, client) = (&seen.window, observer.client());
    let head = window.head();
    // Beyond the next block nobody knows the set yet; it is asked for again when the time has come.
    let due_set = match due.filter(|height| *height <= head.number) {
        Some(height) => client.validators(height)?,
        None => None,
    };
    let now = SystemTime::now();
    let age = |block: &Decided| {
        let proposed = UNIX_EPOCH.checked_add(Duration::from_secs(block.timestamp));
        proposed.and_then(|at| now.duration_since(at).ok()).unwrap_or_default()
    };
    let looked_at = window.blocks().len().min(SEALS);
    let sealed = seen.own.map_or(0, |own| window.seals_of(&own, SEALS));
    Ok(Survey {
        me: seen.own.map(|own| own.0),
        due_set: due_set.unwrap_or_else(|| window.validators().to_vec()).into_iter().map(|v| v.0).collect(),
        sample: window.sample(seen.head_age, &seen.timing),
        own_seals: (count(sealed), count(looked_at)),
        own_seal: seen
            .own
            .and_then(|own| window.last_seal_of(&own))
            .map(|block| OwnSeal { height: block.number, age: age(block) }),
        mining: seen.mining,
        network_head: match seen.syncing {
            Syncing::Active { highest, .. } => Some(highest),
            Syncing::Idle => None,
        },
        client_version: client.client_version().ok(),
        forks: client.forks()?.map(|forks| forks.into_values().collect()),
    })
}

fn count(blocks: usize) -> u32 {
    u32::try_from(blocks).unwrap_or(u32::MAX)
}
