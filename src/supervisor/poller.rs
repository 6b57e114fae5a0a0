//! The threads that learn the head of the chain from the node.
//!
//! Over IPC the node announces every new head, and there is no polling. Over HTTP it is asked, at the machine's pace. Any
//! answer that is not a well-formed head is an error and never a height; a node that does not answer yet is no error.
//! Nothing is decided here but which address to ask.

use super::start_thread;
use crate::config::Config;
use crate::error::Result;
use crate::home::{Home, glob};
use crate::machine::{Block, Head};
use crate::wbft::{self, Client, Endpoint, Heads, RpcError};
use crossbeam_channel::{Receiver, RecvTimeoutError, SendError, Sender, unbounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A head or why there is none, and the node process that was running then.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) pid: u32,
    pub(super) head: Result<Head, String>,
}

/// The addresses of the node, and how to ask there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    addresses: Vec<Endpoint>,
    /// The pattern of the node's IPC socket in its data directory.
    socket: PathBuf,
    enabled: bool,
    /// The address with which the node seals, as configured.
    pub(super) address: Option<wbft::Address>,
}

/// How long to wait before a node that did not answer is asked again: while it starts, and later.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a node may be silent before that is logged, and how often it is logged then: a node that is starting does not
/// answer for a while.
const SILENT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// A node without an IPC socket after this time is asked over HTTP, if no address was configured. Not
/// earlier: the usual port may belong to another node on this machine.
const SOCKET_COMES: Duration = Duration::from_secs(10);
/// How long a subscription may announce no head before the node is asked. The chain may stand still, or the subscription
/// may be dead though neither side has closed it.
const QUIET: Duration = Duration::from_secs(30);

impl Options {
    pub(super) fn new(config: &Config, home: &Home) -> Self {
        Options {
            addresses: config.daemon_rpc_address.clone(),
            socket: home.data().join(&config.daemon_node_ipc),
            enabled: config.daemon_height_source == crate::config::HeightSource::Rpc,
            address: config.validator_address,
        }
    }

    /// The addresses at which to ask and to command the node now, in order: its IPC socket, which serves every method and
    /// announces heads, then the configured addresses, which may serve few. `socketless` is the time that the node has run
    /// if it has never answered at a socket; after a node that did, another node answers at the usual port.
    pub(super) fn candidates(&self, socketless: Option<Duration>) -> Vec<Endpoint> {
        let mut found: Vec<Endpoint> = glob::expand(&self.socket).into_iter().map(Endpoint::Ipc).collect();
        for address in &self.addresses {
            if !found.contains(address) {
                found.push(address.clone());
            }
        }
        if found.is_empty() && socketless.is_some_and(|time| time >= SOCKET_COMES) {
            found.push(Endpoint::Http("http://localhost:8545".to_owned()));
        }
        found
    }
}

/// The addresses at which the node of a home can be reached now, in order: its IPC socket, then those configured.
#[must_use]
pub fn endpoints(config: &Config, home: &Home) -> Vec<Endpoint> {
    Options::new(config, home).candidates(None)
}

/// A message to the thread.
#[derive(Debug)]
pub(super) enum PollerOrder {
    /// This node process has started.
    Follow(u32),
    /// No node process runs.
    Rest,
    /// How often to ask where heads do not come by themselves.
    Pace(Duration),
    /// Ask for the head at once.
    Confirm,
    /// The configuration has changed.
    Reconfigure(Options),
    /// The subscription of this number has announced nothing for long.
    Quiet(u64),
    /// The subscription of this number has ended.
    Lost(u64),
}

/// The handle of the thread. Dropped, the thread ends.
#[derive(Debug)]
pub(super) struct Poller {
    orders: Sender<PollerOrder>,
    pace: Duration,
}

impl Poller {
    /// Starts the thread; it sends every head to `heads`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(options: Options, heads: Sender<Report>) -> Result<Self> {
        let (orders, receiver) = unbounded();
        let reporter = Reporter { heads, past: Arc::default() };
        let asker = Asker {
            options,
            orders: receiver,
            again: orders.clone(),
            reporter,
            pace: Duration::from_secs(1),
            node: None,
            subscriptions: 0,
        };
        start_thread("poller", move || asker.run())?;
        Ok(Poller { orders, pace: Duration::ZERO })
    }

    /// How often to ask where heads do not come by themselves.
    pub(super) fn pace(&mut self, pace: Duration) {
        if pace != self.pace {
            self.pace = pace;
            self.order(PollerOrder::Pace(pace));
        }
    }

    /// Hands an order over.
    pub(super) fn order(&self, order: PollerOrder) {
        // The thread lives as long as this handle.
        let _ = self.orders.send(order);
    }
}

struct Asker {
    options: Options,
    orders: Receiver<PollerOrder>,
    /// For the subscription's own thread.
    again: Sender<PollerOrder>,
    reporter: Reporter,
    pace: Duration,
    node: Option<FollowedNode>,
    /// How many subscriptions there were.
    subscriptions: u64,
}

/// Passes heads on, in their order: an answer that was on its way while a new head was announced is older.
#[derive(Clone)]
struct Reporter {
    heads: Sender<Report>,
    past: Arc<Mutex<Past>>,
}

/// The heads that were passed on so far.
#[derive(Default)]
struct Past {
    /// How many heads were announced.
    announced: u64,
    /// The height of the last head, announced or asked for.
    height: Option<u64>,
}

impl Reporter {
    fn past(&self) -> MutexGuard<'_, Past> {
        // A panic elsewhere leaves numbers whole.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a head that the node has announced.
    fn announce(&self, pid: u32, head: Head) -> Result<(), SendError<Report>> {
        let mut past = self.past();
        past.announced += 1;
        past.height = Some(head.block.height);
        self.heads.send(Report { pid, head: Ok(head) })
    }

    /// Reports the answer to a question that was asked after `before` announcements.
    fn answer(&self, before: u64, pid: u32, head: Result<Head, String>) {
        let mut past = self.past();
        if past.announced == before || head.is_err() {
            past.height = head.as_ref().ok().map(|head| head.block.height).or(past.height);
            // The receiver is gone only when the supervisor is.
            let _ = self.heads.send(Report { pid, head });
        }
    }
}

/// The node process that is followed.
struct FollowedNode {
    pid: u32,
    since: Instant,
    /// Since when it has not answered, and when that was last reported.
    silent: (Instant, Option<Instant>),
    failures: u32,
    /// Whether it has answered at a socket.
    has_socket: bool,
    client: Option<(Client, Endpoint)>,
    subscription: Option<Subscription>,
}

/// The thread that waits for new heads.
struct Subscription {
    number: u64,
    since: Instant,
    stopper: wbft::Stopper,
}

impl Asker {
    fn run(mut self) {
        loop {
            let order = match self.patience() {
                Some(limit) => self.orders.recv_timeout(limit),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(PollerOrder::Follow(pid)) => {
                    self.stop();
                    self.node = Some(FollowedNode {
                        pid,
                        since: Instant::now(),
                        silent: (Instant::now(), None),
                        failures: 0,
                        has_socket: false,
                        client: None,
                        subscription: None,
                    });
                }
                Ok(PollerOrder::Rest) => self.stop(),
                Ok(PollerOrder::Pace(pace)) => self.pace = pace,
                Ok(PollerOrder::Confirm) | Err(RecvTimeoutError::Timeout) => self.ask(),
                Ok(PollerOrder::Reconfigure(options)) if options == self.options => {}
                Ok(PollerOrder::Reconfigure(options)) => {
                    self.options = options;
                    if let Some(node) = &mut self.node {
                        node.client = None;
                        node.unsubscribe();
                    }
                }
                Ok(PollerOrder::Quiet(number)) => self.doubt(number),
                Ok(PollerOrder::Lost(number)) => {
                    if let Some(node) = &mut self.node {
                        node.lose(number);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
        }
    }

    /// A subscription that announces nothing while the head rises is dead, though neither side has closed it.
    fn doubt(&mut self, number: u64) {
        let before = self.reporter.past().height;
        self.ask();
        let has_risen = self.reporter.past().height > before;
        if let Some(node) = self.node.as_mut().filter(|node| has_risen && node.is_subscribed(number)) {
            log::warn!("event=rpc_subscription_silent the head has risen unannounced; subscribing again");
            node.unsubscribe();
            node.client = None;
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
        if let Some(mut node) = self.node.take() {
            node.unsubscribe();
        }
    }

    /// Asks for the head, of the first address that answers.
    fn ask(&mut self) {
        let Some(node) = self.node.as_mut().filter(|_| self.options.enabled) else { return };
        if let Some((client, endpoint)) = &mut node.client {
            let before = self.reporter.past().announced;
            match head(client) {
                Ok(head) => {
                    node.silent = (Instant::now(), None);
                    if node.subscription.is_none() {
                        node.failures = 0;
                    }
                    return self.reporter.answer(before, node.pid, Ok(head));
                }
                Err(e) => log::warn!("event=rpc_failed endpoint={endpoint} {e}"),
            }
            node.client = None;
        }
        self.connect();
    }

    fn connect(&mut self) {
        let Some(node) = &mut self.node else { return };
        let mut troubles = Vec::new();
        let socketless = (!node.has_socket).then(|| node.since.elapsed());
        for endpoint in self.options.candidates(socketless) {
            let mut client = Client::new(&endpoint, wbft::Options::default());
            let before = self.reporter.past().announced;
            match head(&mut client) {
                Ok(head) => {
                    log::info!("event=rpc_connected endpoint={endpoint} head={}", head.block.height);
                    node.silent = (Instant::now(), None);
                    self.reporter.answer(before, node.pid, Ok(head));
                    if node.subscription.is_none() {
                        self.subscriptions += 1;
                        let (number, pid) = (self.subscriptions, node.pid);
                        let stopper =
                            subscribe(&endpoint, number, pid, self.reporter.clone(), self.again.clone());
                        node.subscription = stopper.map(|stopper| {
                            let since = Instant::now();
                            Subscription { number, since, stopper }
                        });
                    }
                    node.has_socket |= endpoint.can_subscribe();
                    node.client = Some((client, endpoint));
                    return;
                }
                Err(e) => troubles.push(e.to_string()),
            }
        }
        node.failures = node.failures.saturating_add(1);
        if troubles.is_empty() {
            troubles.push(format!("there is no socket {}", self.options.socket.display()));
        }
        let trouble = troubles.join("; ");
        let (since, reported) = node.silent;
        if since.elapsed() >= SILENT.0 && reported.is_none_or(|at| at.elapsed() >= SILENT.1) {
            node.silent.1 = Some(Instant::now());
            log::warn!("event=rpc_silent for={:.0?} {trouble}", since.elapsed());
        }
        self.reporter.answer(0, node.pid, Err(trouble));
    }
}

impl FollowedNode {
    fn is_subscribed(&self, number: u64) -> bool {
        self.subscription.as_ref().is_some_and(|s| s.number == number)
    }

    fn unsubscribe(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            subscription.stopper.stop();
        }
    }

    /// The subscription of this number has ended. One that always ends soon is renewed ever less eagerly.
    fn lose(&mut self, number: u64) {
        let Some(lost) = self.subscription.take_if(|s| s.number == number) else { return };
        let lasted = lost.since.elapsed() >= AGAIN.1;
        self.failures = if lasted { 0 } else { self.failures.saturating_add(1) };
        self.client = None;
        // It has announced its heads until now.
        self.silent = (Instant::now(), None);
    }
}

fn head(client: &mut Client) -> Result<Head, RpcError> {
    client.head().map(convert)
}

/// A header as the machine takes it, heard now.
pub(super) fn convert(header: wbft::Header) -> Head {
    let block = Block { height: header.number, hash: Some(header.hash.to_string()) };
    let heard_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let proposer = (header.miner != wbft::Address::ZERO).then_some(header.miner.0);
    let parent = Some(header.parent_hash.to_string());
    Head { block, parent, timestamp: Some(header.timestamp), proposer, heard_at }
}

/// Waits for new heads in a thread of its own; `None` where the transport cannot announce them.
fn subscribe(
    endpoint: &Endpoint,
    number: u64,
    pid: u32,
    reporter: Reporter,
    again: Sender<PollerOrder>,
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
    // Blocks may have come between the answer and the subscription, and none may follow. This is sent before
    // the end of the subscription can be: after that it would renew it at once.
    let _ = again.send(PollerOrder::Confirm);
    let endpoint = endpoint.clone();
    let body = move || {
        loop {
            match subscription.next(Some(QUIET)) {
                Ok(Some(header)) => {
                    if reporter.announce(pid, convert(header)).is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let _ = again.send(PollerOrder::Quiet(number));
                }
                Err(e) => {
                    log::debug!("event=rpc_subscription_ended endpoint={endpoint} {e}");
                    let _ = again.send(PollerOrder::Lost(number));
                    return;
                }
            }
        }
    };
    match start_thread("heads", body) {
        Ok(()) => Some(stopper),
        Err(e) => {
            log::warn!("event=no_thread the node is polled instead: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests;
