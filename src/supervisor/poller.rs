//! The threads that learn the head of the chain from the node.
//!
//! Over IPC (and WebSocket) the node tells every new head by itself, and nobody polls. Over HTTP it is
//! asked, as often as the machine says. Any answer that is not a well-formed head is an error and never
//! a height; a node that does not answer yet is no error at all. Nothing is decided here but whom to ask.

use crate::config::{Config, RpcAddress};
use crate::error::{Error, Kind, Result};
use crate::home::{Home, glob};
use crate::machine::{Block, Head};
use crate::wbft::{self, Client, Endpoint, Heads, RpcError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A head, and the node process that was running when it was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) pid: u32,
    pub(super) head: Head,
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub(super) struct Options {
    addresses: Vec<Endpoint>,
    /// Where a socket appears when no address was configured.
    socket: PathBuf,
    enabled: bool,
}

/// How long to wait before a node that did not answer is asked again: while it starts, and later.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Of so many failures in a row, one is reported, the first time after about ten seconds.
const SILENT: u32 = 10;
/// A node without an IPC socket after this time is asked over HTTP, if no address was configured. Not
/// earlier: the usual port may belong to another node on this machine.
const SOCKET_COMES: Duration = Duration::from_secs(10);

impl Options {
    pub(super) fn new(config: &Config, home: &Home) -> Self {
        let endpoint = |address: &RpcAddress| match address {
            RpcAddress::Http(url) => Endpoint::Http(url.as_str().to_owned()),
            RpcAddress::Ws(url) => Endpoint::Ws(url.clone()),
            RpcAddress::Ipc(path) => Endpoint::Ipc(path.clone()),
        };
        Options {
            addresses: config.daemon_rpc_address.iter().map(endpoint).collect(),
            socket: home.data().join(&config.daemon_node_ipc),
            enabled: config.daemon_height_source == crate::config::HeightSource::Rpc,
        }
    }

    /// Whom to ask now, in order.
    pub(super) fn candidates(&self, running: Duration) -> Vec<Endpoint> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        let mut found: Vec<Endpoint> = glob::expand(&self.socket).into_iter().map(Endpoint::Ipc).collect();
        if running >= SOCKET_COMES {
            found.push(Endpoint::Http("http://localhost:8545".to_owned()));
        }
        found
    }
}

/// Where the node of a home may be asked now, by anybody: as configured, else at its IPC socket.
#[must_use]
pub fn endpoints(config: &Config, home: &Home) -> Vec<Endpoint> {
    Options::new(config, home).candidates(Duration::ZERO)
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Follow(u32),
    Rest,
    Pace(Duration),
    Confirm,
    Reconfigure(Options),
    /// The subscription of this process has ended.
    Lost(u32),
}

/// The handle of the thread. Dropped, the thread ends.
#[derive(Debug)]
pub(super) struct Poller {
    orders: Sender<Order>,
    pace: Duration,
}

impl Poller {
    /// Starts the thread; it sends every head to `heads`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(options: Options, heads: Sender<Told>) -> Result<Self> {
        let (orders, receiver) = unbounded();
        let asker = Asker {
            options,
            orders: receiver,
            again: orders.clone(),
            heads,
            pace: Duration::from_secs(1),
            node: None,
        };
        thread::Builder::new()
            .name("poller".to_owned())
            .spawn(move || asker.run())
            .map_err(|e| Error::new(Kind::Io, "start the poller thread").because(e))?;
        Ok(Poller { orders, pace: Duration::ZERO })
    }

    /// A node process has started.
    pub(super) fn follow(&self, pid: u32) {
        self.order(Order::Follow(pid));
    }

    /// No node process runs.
    pub(super) fn rest(&self) {
        self.order(Order::Rest);
    }

    /// How often to ask where heads do not come by themselves.
    pub(super) fn pace(&mut self, pace: Duration) {
        if pace != self.pace {
            self.pace = pace;
            self.order(Order::Pace(pace));
        }
    }

    /// Ask for the head at once.
    pub(super) fn confirm(&self) {
        self.order(Order::Confirm);
    }

    /// The configuration has changed.
    pub(super) fn reconfigure(&self, options: Options) {
        self.order(Order::Reconfigure(options));
    }

    fn order(&self, order: Order) {
        // The thread lives as long as this handle.
        let _ = self.orders.send(order);
    }
}

struct Asker {
    options: Options,
    orders: Receiver<Order>,
    /// For the subscription's own thread.
    again: Sender<Order>,
    heads: Sender<Told>,
    pace: Duration,
    node: Option<Node>,
}

/// The node process that is followed.
struct Node {
    pid: u32,
    since: Instant,
    failures: u32,
    client: Option<(Client, Endpoint)>,
    /// Ends the thread that waits for new heads, when dropped.
    subscription: Option<wbft::Stopper>,
}

impl Asker {
    fn run(mut self) {
        loop {
            let order = match self.patience() {
                Some(limit) => self.orders.recv_timeout(limit),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Follow(pid)) => {
                    self.stop();
                    self.node = Some(Node {
                        pid,
                        since: Instant::now(),
                        failures: 0,
                        client: None,
                        subscription: None,
                    });
                }
                Ok(Order::Rest) => self.stop(),
                Ok(Order::Pace(pace)) => self.pace = pace,
                Ok(Order::Confirm) | Err(RecvTimeoutError::Timeout) => self.ask(),
                Ok(Order::Reconfigure(options)) => {
                    self.options = options;
                    if let Some(node) = self.node.take() {
                        self.stop();
                        self.node = Some(Node { client: None, subscription: None, ..node });
                    }
                }
                Ok(Order::Lost(pid)) => {
                    if let Some(node) = self.node.as_mut().filter(|n| n.pid == pid) {
                        node.subscription = None;
                        node.client = None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
        }
    }

    /// How long to wait for orders before asking; without end while heads come by themselves.
    fn patience(&self) -> Option<Duration> {
        let node = self.node.as_ref().filter(|_| self.options.enabled)?;
        match (&node.client, &node.subscription) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => Some(self.pace),
            (None, _) => Some((AGAIN.0 * 2u32.saturating_pow(node.failures.min(10))).min(AGAIN.1)),
        }
    }

    fn stop(&mut self) {
        if let Some(stopper) = self.node.take().and_then(|n| n.subscription) {
            stopper.stop();
        }
    }

    /// Asks for the head, of the first address that answers.
    fn ask(&mut self) {
        let Some(node) = self.node.as_mut().filter(|_| self.options.enabled) else { return };
        if let Some((client, endpoint)) = &mut node.client {
            match head(client) {
                Ok(head) => return self.tell(head),
                Err(e) => log::warn!("event=rpc_failed endpoint={endpoint} {e}"),
            }
            node.client = None;
        }
        self.connect();
    }

    fn connect(&mut self) {
        let Some(node) = &mut self.node else { return };
        let mut trouble = None;
        for endpoint in self.options.candidates(node.since.elapsed()) {
            let mut client = Client::new(&endpoint, wbft::Options::default());
            match head(&mut client) {
                Ok(head) => {
                    log::info!("event=rpc_connected endpoint={endpoint} head={}", head.block.height);
                    node.failures = 0;
                    if node.subscription.is_none() {
                        node.subscription = subscribe(&endpoint, node.pid, &self.heads, &self.again);
                    }
                    node.client = Some((client, endpoint));
                    return self.tell(head);
                }
                Err(e) => trouble = Some((endpoint, e)),
            }
        }
        node.failures = node.failures.saturating_add(1);
        // A node that is starting does not answer for a while; nobody wants to read that each time.
        if let Some((endpoint, e)) = trouble.filter(|_| node.failures % 60 == SILENT) {
            log::warn!("event=rpc_silent endpoint={endpoint} failures={} {e}", node.failures);
        }
    }

    fn tell(&self, head: Head) {
        if let Some(node) = &self.node {
            // The receiver is gone only when the supervisor is.
            let _ = self.heads.send(Told { pid: node.pid, head });
        }
    }
}

fn head(client: &mut Client) -> Result<Head, RpcError> {
    client.head().map(convert)
}

fn convert(header: wbft::Header) -> Head {
    let block = Block { height: header.number, hash: Some(header.hash.to_string()) };
    Head { block, timestamp: Some(header.timestamp) }
}

/// Waits for new heads in a thread of its own, where the transport can tell them; `None` where it cannot.
fn subscribe(
    endpoint: &Endpoint,
    pid: u32,
    heads: &Sender<Told>,
    again: &Sender<Order>,
) -> Option<wbft::Stopper> {
    if !endpoint.can_subscribe() {
        return None;
    }
    let mut subscription = match Heads::subscribe(endpoint, &wbft::Options::default()) {
        Ok(subscription) => subscription,
        Err(e) => {
            log::warn!("event=rpc_not_subscribed endpoint={endpoint} it is polled instead: {e}");
            return None;
        }
    };
    let stopper = subscription.stopper();
    let (heads, again, endpoint) = (heads.clone(), again.clone(), endpoint.clone());
    let body = move || {
        loop {
            match subscription.next(None) {
                Ok(Some(header)) => {
                    if heads.send(Told { pid, head: convert(header) }).is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(e) => {
                    log::debug!("event=rpc_subscription_ended endpoint={endpoint} {e}");
                    let _ = again.send(Order::Lost(pid));
                    return;
                }
            }
        }
    };
    match thread::Builder::new().name("heads".to_owned()).spawn(body) {
        Ok(_) => Some(stopper),
        Err(e) => {
            log::warn!("event=no_thread the node is polled instead: {e}");
            None
        }
    }
}
