//! The thread against a node that the test plays: when it subscribes again, and whom it asks.

use super::*;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const PATIENCE: Duration = Duration::from_secs(30);

/// A node that answers, and tells nothing by itself.
#[derive(Clone)]
struct Mute {
    head: Arc<AtomicU64>,
    /// Whether it ends every subscription as soon as it has begun.
    ends: bool,
    subscribed: Sender<Instant>,
}

impl Mute {
    fn serve(&self, stream: &UnixStream) -> std::io::Result<()> {
        let zeros = |digits| format!("0x{}", "0".repeat(digits));
        for line in BufReader::new(stream).lines() {
            let call: Value = serde_json::from_str(&line?)?;
            // Before the reply, so that no delay of ours makes what follows it look sooner.
            let asked = Instant::now();
            let subscribes = call["method"] == "eth_subscribe";
            let header = json!({
                "number": format!("{:#x}", self.head.load(Ordering::SeqCst)), "hash": zeros(64),
                "parentHash": zeros(64), "timestamp": "0x1", "miner": zeros(40), "extraData": "0x",
            });
            let result = if subscribes { json!("0x1") } else { header };
            let reply = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
            (&*stream).write_all(format!("{reply}\n").as_bytes())?;
            if subscribes {
                // The test may have seen enough.
                let _ = self.subscribed.send(asked);
                if self.ends {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The socket of such a node at block 5, and a channel with the time of each subscription.
fn node(dir: &std::path::Path, ends: bool) -> (Endpoint, Arc<AtomicU64>, Receiver<Instant>) {
    let socket = dir.join("node.ipc");
    let listener = UnixListener::bind(&socket).unwrap();
    let (subscribed, subscriptions) = unbounded();
    let head = Arc::new(AtomicU64::new(5));
    let node = Mute { head: Arc::clone(&head), ends, subscribed };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let node = node.clone();
            thread::spawn(move || node.serve(&stream).ok());
        }
    });
    (Endpoint::Ipc(socket), head, subscriptions)
}

/// A poller that follows such a node.
fn follow(endpoint: Endpoint) -> (Poller, Receiver<Report>) {
    let (heads, told) = unbounded();
    let options = Options { addresses: vec![endpoint], socket: PathBuf::new(), enabled: true, address: None };
    let poller = Poller::start(options, heads).unwrap();
    poller.order(PollerOrder::Follow(1));
    (poller, told)
}

#[test]
fn a_node_is_silent_since_its_subscription_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, ..) = node(dir.path(), true);
    let stopper = Heads::subscribe(&endpoint, &wbft::Options::default()).unwrap().stopper();
    let long_ago = Instant::now();
    let subscription = Some(Subscription { number: 1, since: long_ago, stopper });
    let silent = (long_ago, Some(long_ago));
    let mut node = FollowedNode {
        pid: 1,
        since: long_ago,
        silent,
        failures: 7,
        has_socket: true,
        client: None,
        subscription,
    };
    node.lose(2);
    assert_eq!((node.subscription.is_some(), node.silent), (true, silent));
    node.lose(1);
    assert!(node.subscription.is_none() && node.silent.0 > long_ago && node.silent.1.is_none());
}

#[test]
fn a_subscription_that_always_ends_soon_is_renewed_ever_less_eagerly() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, _, subscriptions) = node(dir.path(), true);
    let (_poller, told) = follow(endpoint);
    let times: Vec<Instant> = subscriptions.iter().take(4).collect();
    assert_eq!(told.recv().unwrap().head.unwrap().block.height, 5);
    let (first, last) = (times[0], times[3]);
    assert!(last - first >= AGAIN.0 * (2 + 4 + 8), "renewed in {:?}", last - first);
}

#[test]
fn a_subscription_that_tells_nothing_while_the_head_rises_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, head, subscriptions) = node(dir.path(), false);
    let (poller, told) = follow(endpoint);
    let next = || told.recv_timeout(PATIENCE).unwrap().head.unwrap().block.height;
    // The answer to the first question, and to the one after the subscription.
    assert_eq!((next(), next()), (5, 5));
    subscriptions.recv_timeout(PATIENCE).unwrap();
    poller.order(PollerOrder::Quiet(1));
    assert_eq!(next(), 5);
    assert!(subscriptions.is_empty(), "a chain that stands still is no dead subscription");
    head.store(9, Ordering::SeqCst);
    poller.order(PollerOrder::Quiet(1));
    assert_eq!(next(), 9);
    subscriptions.recv_timeout(PATIENCE).unwrap();
    // The same two, then the one that is asked for here.
    poller.order(PollerOrder::Quiet(1));
    poller.order(PollerOrder::Confirm);
    assert_eq!([next(), next(), next()], [9, 9, 9]);
    assert!(subscriptions.is_empty(), "the doubt is about one that is not there any more");
}

#[test]
fn the_usual_port_is_asked_only_where_there_is_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { addresses: Vec::new(), socket: dir.path().join("*.ipc"), enabled: true, address: None };
    assert_eq!(options.candidates(Some(Duration::ZERO)), []);
    assert_eq!(options.candidates(Some(SOCKET_COMES)).len(), 1);
    assert_eq!(options.candidates(None), [], "its own has gone");
    std::fs::write(dir.path().join("node.ipc"), "").unwrap();
    let found = options.candidates(Some(SOCKET_COMES));
    assert_eq!(found, [Endpoint::Ipc(dir.path().join("node.ipc"))], "the port may be another node's");
}

#[test]
fn the_socket_comes_before_every_configured_address() {
    let dir = tempfile::tempdir().unwrap();
    let ipc = |name: &str| Endpoint::Ipc(dir.path().join(name));
    let http: Endpoint = "localhost:1".parse().unwrap();
    let addresses = vec![http.clone(), ipc("b.ipc"), ipc("elsewhere")];
    let options = Options {
        addresses: addresses.clone(),
        socket: dir.path().join("*.ipc"),
        enabled: true,
        address: None,
    };
    assert_eq!(options.candidates(Some(SOCKET_COMES)), addresses, "no socket, and no usual port either");
    std::fs::write(dir.path().join("a.ipc"), "").unwrap();
    std::fs::write(dir.path().join("b.ipc"), "").unwrap();
    assert_eq!(options.candidates(None), [ipc("a.ipc"), ipc("b.ipc"), http, ipc("elsewhere")]);
}
