//! New heads as they come, without polling.
//!
//! A subscription has a connection of its own, so that waiting for a head never delays a call. It
//! does not reconnect: the caller must learn that heads may have been missed.

use super::endpoint::Endpoint;
use super::fault::{Fault, RpcError};
use super::header::Header;
use super::rpc::Options;
use super::session::Session;
use super::socket::Handle;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const METHOD: &str = "eth_subscribe";

/// A subscription to `newHeads`.
///
/// ```no_run
/// use wemixvisor::wbft::{Endpoint, Heads, Options};
///
/// let endpoint: Endpoint = "/var/lib/node/node.ipc".parse()?;
/// let mut heads = Heads::subscribe(&endpoint, &Options::default())?;
/// let stopper = heads.stopper();
/// std::thread::spawn(move || {
///     // … on another thread, when it is time to end:
///     stopper.stop();
/// });
/// while let Some(head) = heads.next(None)? {
///     println!("{} {}", head.number, head.hash);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Heads {
    endpoint: Endpoint,
    session: Session,
    subscription: String,
    limit: usize,
    stop: Arc<Stop>,
}

/// Makes [`Heads::next`] return at once, from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Stop>);

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    connection: Handle,
}

impl Heads {
    /// Connects to `endpoint` and subscribes.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`; `Unsupported` over HTTP.
    pub fn subscribe(endpoint: &Endpoint, options: &Options) -> Result<Heads, RpcError> {
        let limit = options.max_large_body;
        let start = || {
            let late = || Fault::Timeout(options.timeout);
            let Endpoint::Ipc(path) = endpoint else {
                return Err(Fault::Unsupported("HTTP has no subscriptions: use IPC"));
            };
            let mut session = Session::connect(path)?;
            let deadline = Instant::now() + options.timeout;
            let id = session.request(METHOD, &json!(["newHeads"]), deadline)?.ok_or_else(late)?;
            let subscription = match session.reply(id, deadline, limit)?.ok_or_else(late)?? {
                Value::String(subscription) => subscription,
                other => return Err(Fault::Nonsense(format!("the subscription's id is {other}"))),
            };
            let connection = session.handle().map_err(|e| Fault::io("duplicate the connection", &e))?;
            let stop = Arc::new(Stop { asked: AtomicBool::new(false), connection });
            Ok(Heads { endpoint: endpoint.clone(), session, subscription, limit, stop })
        };
        start().map_err(|fault: Fault| fault.of(endpoint, METHOD))
    }

    /// The handle that ends a wait in [`next`](Self::next) from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Waits for the next head, for ever without a timeout. `None`: the time is over.
    ///
    /// Heads come in the order of the node, which is not always up: after a reorganisation, or when a
    /// fork is left, one may be lower than the one before.
    ///
    /// # Errors
    /// `Stopped` after [`Stopper::stop`]; otherwise a fault after which this subscription is over.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Header>, RpcError> {
        // A timeout beyond what the clock can express is none.
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let next = self.next_until(deadline);
        if self.stop.asked.load(Ordering::SeqCst) {
            return Err(Fault::Stopped.of(&self.endpoint, METHOD));
        }
        next.map_err(|fault| fault.of(&self.endpoint, METHOD))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<Header>, Fault> {
        loop {
            let Some(mut notice) = self.session.notice(deadline, self.limit)? else { return Ok(None) };
            let ours = notice["method"] == "eth_subscription"
                && notice["params"]["subscription"] == self.subscription.as_str();
            if ours {
                return Header::from_json(&notice["params"]["result"].take()).map(Some);
            }
        }
    }
}

impl Stopper {
    /// Ends the subscription: the wait under way and all later ones fail with `Stopped` at once.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.connection.shut();
    }
}
