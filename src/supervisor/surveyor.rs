//! The thread that asks the node about the network, and has it seal or not.
//!
//! Each order is answered by one fact. It asks over the same addresses as the poller, those first over
//! which a node tells more than over plain HTTP: IPC has every method, HTTP rarely more than `eth`.

use super::poller::Options;
use crate::error::{Error, Kind, Result};
use crate::machine::gates::Sample;
use crate::machine::{Block, Class, Event, Failure, Survey};
use crate::wbft::{self, Client, RpcError, Syncing};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A fact for the machine, and the node process that it is about.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) pid: u32,
    pub(super) event: Event,
}

/// What the thread is asked to do, for a node process that was started at a time.
#[derive(Debug)]
pub(super) enum Order {
    Survey { due: Option<u64>, check: Option<u64> },
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
        thread::Builder::new()
            .name("surveyor".to_owned())
            .spawn(move || run(&receiver, &answers))
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
    for (pid, since, options, order) in orders {
        let event = match order {
            Order::Survey { due, check } => {
                Some(Event::Surveyed(first(&options, since, |client| survey(client, due, check))))
            }
            Order::Sign => Some(Event::Signing(first(&options, since, Client::miner_start))),
            Order::Leave => {
                if let Err(e) = first(&options, since, Client::miner_stop) {
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

/// The first answer that any address gives, or what the last one said.
fn first<T>(
    options: &Options,
    since: Instant,
    ask: impl Fn(&mut Client) -> Result<T, RpcError>,
) -> Result<T, Failure> {
    let mut endpoints = options.candidates(since.elapsed());
    endpoints.sort_by_key(|endpoint| !endpoint.can_subscribe());
    let mut trouble = "the node has no RPC address".to_owned();
    for endpoint in endpoints {
        match ask(&mut Client::new(&endpoint, wbft::Options::default())) {
            Ok(answer) => return Ok(answer),
            Err(e) => trouble = e.to_string(),
        }
    }
    Err(Failure::new(Class::Transient, trouble))
}

/// What the node says of the network.
fn survey(client: &mut Client, due: Option<u64>, check: Option<u64>) -> Result<Survey, RpcError> {
    let _ = due;
    let head = client.head()?;
    let checked = match check {
        Some(height) => {
            let hash = client.header(height)?.map(|header| header.hash.to_string());
            Some(Block { height, hash })
        }
        None => None,
    };
    let network_head = match client.syncing()? {
        Syncing::Active { highest, .. } => Some(highest),
        Syncing::Idle => None,
    };
    let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(head.timestamp));
    Ok(Survey {
        me: None,
        due_set: Vec::new(),
        sample: Sample {
            head: head.number,
            head_age: age.unwrap_or_default(),
            period: Duration::from_secs(1),
            set: Vec::new(),
            blocks: 0,
            first_round: 0,
            proposer: None,
        },
        own_seals: (0, 0),
        own_seal_age: None,
        checked,
        network_head,
        client_version: client.client_version().ok(),
    })
}
