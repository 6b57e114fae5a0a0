//! The recorded chain served by a node of our own, with and without `istanbul`, up to any height.

mod coordinator;

use super::*;
use crate::machine::gates::{self, Gate, Reason, Verdict};
use crate::wbft::{
    Address, Client, Consensus, ConsensusState, Coordinator, Header, Observation, Observer, Policy, Step,
    Syncing, Timing, Window, show_quantity,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

const N1: &str = "0x54c42592181332091666e677a8ff8b1376dbd49d";
const N4: &str = "0xa133c1852f98218776452a1d56a8b2e7128c7ec8";

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn addresses(value: &Value) -> Vec<Address> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Headers of the recorded chain, and who seals each.
fn chain() -> Vec<(Header, Vec<Address>)> {
    let line = |line: Value| (Header::from_json(&line["block"]).unwrap(), addresses(&line["validators"]));
    recording("blocks.jsonl").into_iter().map(line).collect()
}

/// The window up to `head`, of so many blocks.
fn window(head: usize, blocks: usize) -> Window {
    let chain = chain();
    let from = head.saturating_sub(blocks);
    let mut window = Window::after(&chain[from].0, chain[from].1.clone()).unwrap();
    chain[from + 1..=head].iter().for_each(|(header, _)| window.push(header).unwrap());
    window
}

/// The configuration of the recorded chain.
fn info() -> Value {
    let wbft = json!({ "requestTimeoutSeconds": 2, "blockPeriodSeconds": 1, "epochLength": 10 });
    json!({ "id": "0", "protocols": { "istanbul": { "config": { "anzeon": { "wbft": wbft } } } } })
}

/// A node with the recorded chain up to a height that the test sets; it notes what it is asked.
#[derive(Clone)]
struct Node {
    dir: Arc<TempDir>,
    istanbul: bool,
    chain: Arc<Mutex<Arc<Vec<Value>>>>,
    head: Arc<(Mutex<u64>, Condvar)>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Serves any number of connections until the process ends.
    fn start(head: u64, istanbul: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("node.ipc")).unwrap();
        let node = Node {
            dir: Arc::new(dir),
            istanbul,
            chain: Arc::new(Mutex::new(Arc::new(recording("blocks.jsonl")))),
            head: Arc::new((Mutex::new(head), Condvar::new())),
            asked: Arc::default(),
        };
        let served = node.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let node = served.clone();
                std::thread::spawn(move || node.serve(stream.unwrap()));
            }
        });
        node
    }

    fn client(&self) -> Client {
        Client::new(&Endpoint::Ipc(self.dir.path().join("node.ipc")), PATIENT)
    }

    fn set_head(&self, head: u64) {
        *self.head.0.lock().unwrap() = head;
        self.head.1.notify_all();
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn serve(&self, mut stream: UnixStream) {
        while let Some(line) = read_line(&mut stream) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let (method, params) = (request["method"].as_str().unwrap(), &request["params"]);
            self.asked.lock().unwrap().push(format!("{method} {params}"));
            let reply = match self.answer(method, params) {
                Ok(value) => result(&request["id"], &value),
                Err((code, message)) => {
                    let error = json!({ "code": code, "message": message });
                    json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string()
                }
            };
            write(&mut stream, reply);
            if method == "eth_subscribe" {
                self.tell_heads(stream);
                return;
            }
        }
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, (i64, &'static str)> {
        let head = *self.head.0.lock().unwrap();
        let height = match params[0].as_str() {
            Some("latest") => head,
            Some(hex) => crate::wbft::parse_quantity(hex).unwrap_or(0),
            None => 0,
        };
        let chain = Arc::clone(&self.chain.lock().unwrap());
        let block = chain.get(height as usize).filter(|b| height <= head && !b.is_null());
        match (method, block) {
            ("eth_blockNumber", _) => Ok(json!(show_quantity(head))),
            ("eth_getHeaderByNumber", block) => Ok(block.map_or(Value::Null, |b| b["block"].clone())),
            ("istanbul_getValidators", Some(block)) if self.istanbul => Ok(block["validators"].clone()),
            ("istanbul_getValidators", None) if self.istanbul => Err((-32000, "unknown block")),
            ("istanbul_nodeAddress", _) if self.istanbul => Ok(json!(N1)),
            ("admin_nodeInfo", _) if self.istanbul => Ok(info()),
            ("admin_peers", _) if self.istanbul => {
                let id = |address: &str| format!("{}{}", "7".repeat(24), &address[2..]);
                Ok(json!([{ "id": id(N4), "enode": "enode://a@127.0.0.1:1" }, { "id": "?" }]))
            }
            ("eth_syncing", _) => Ok(json!(false)),
            ("eth_mining", _) => Ok(json!(true)),
            ("net_peerCount", _) => Ok(json!("0x3")),
            ("eth_subscribe", _) => Ok(json!("0x1")),
            _ => Err((-32601, "does not exist/is not available")),
        }
    }

    /// The same node, but with other blocks.
    fn with(self, change: impl FnOnce(&mut Vec<Value>)) -> Self {
        let mut chain = self.chain.lock().unwrap();
        let mut blocks = chain.as_ref().clone();
        change(&mut blocks);
        *chain = Arc::new(blocks);
        drop(chain);
        self
    }

    /// Sends every new head for as long as there is a receiver.
    fn tell_heads(&self, mut stream: UnixStream) {
        let mut told = *self.head.0.lock().unwrap();
        loop {
            let (head, changed) = &*self.head;
            told = *changed.wait_while(head.lock().unwrap(), |head| *head == told).unwrap();
            let params = json!({ "subscription": "0x1", "result": self.chain.lock().unwrap()[told as usize]["block"] });
            let notice = json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params });
            if stream.write_all(notice.to_string().as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn who_seals_a_block_is_known_with_and_without_istanbul() {
    let chain = chain();
    for istanbul in [true, false] {
        let node = Node::start(241, istanbul);
        let mut client = node.client();
        for (header, expected) in &chain {
            let found = client.validators(header.number).unwrap().unwrap();
            assert_eq!(&found, expected, "block {}, istanbul {istanbul}", header.number);
        }
        assert_eq!(client.validators(242).unwrap().as_ref(), Some(&chain[241].1));
        assert_eq!(client.validators(243).unwrap(), None);
        // The last block of an epoch names those that seal the next one.
        node.set_head(20);
        assert_eq!(client.validators(21).unwrap().as_ref(), Some(&chain[21].1));
        assert_ne!(chain[20].1, chain[21].1);
    }
}

#[test]
fn an_epoch_too_far_back_is_an_error_and_not_a_guess() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        // A chain that never ends an epoch.
        let block = recording("blocks.jsonl")[5]["block"].clone();
        while let Some(line) = read_line(&mut stream) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let answer = match request["method"].as_str().unwrap() {
                "eth_getHeaderByNumber" => {
                    let mut block = block.clone();
                    block["number"] = request["params"][0].clone();
                    result(&request["id"], &block)
                }
                _ => {
                    let error = json!({ "code": -32601, "message": "" });
                    json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string()
                }
            };
            write(&mut stream, answer);
        }
    }]);
    let mut client = Client::new(&server.endpoint(), PATIENT);
    assert!(matches!(fault(client.validators(5000)), Fault::Unsupported(_)));
    drop(client);
    server.join();
}

#[test]
fn a_header_that_is_absent_or_has_lost_the_next_validators_is_an_error() {
    let expected = chain()[31].1.clone();
    let node = Node::start(241, false);
    assert_eq!(node.client().find_epoch(34).unwrap(), expected);
    assert_eq!(node.client().validators(243).unwrap(), None);
    // Above it stands an answer, which must not be that of an epoch before.
    let node = Node::start(241, false).with(|blocks| blocks[30] = Value::Null);
    assert!(
        matches!(fault(node.client().validators(35)), Fault::Nonsense(what) if what.contains("block 30,"))
    );
    assert!(node.client().validators(41).unwrap().is_some());
    let lost = |istanbul| {
        let node = Node::start(241, istanbul).with(|blocks| {
            let none = blocks[9]["block"]["extraData"].clone();
            blocks[10]["block"]["extraData"] = none;
        });
        node.client().find_epoch(14)
    };
    assert!(matches!(fault(lost(true)), Fault::Nonsense(what) if what.starts_with("block 10 ends an epoch")));
    // Without a configuration nothing contradicts the headers, all of which are there.
    assert_eq!(lost(false).unwrap(), chain()[1].1);
}

#[test]
fn the_order_foresees_every_recorded_proposer() {
    let chain = chain();
    let consensus = Consensus::constant(TIMING);
    let mut window = Window::after(&chain[0].0, chain[0].1.clone()).unwrap();
    assert_eq!(window.order_before(Some(&consensus)), None);
    let mut right = 0;
    for (header, set) in &chain[1..] {
        let before = window.order(Some(&consensus));
        window.push(header).unwrap();
        // The distance by which the block's proposer was foreseen, once the rounds that failed are counted.
        let steps = before.distance(&header.miner.0).unwrap();
        let expected = window.head().round % set.len() as u64 + 1;
        right += usize::from(header.number > 1 && steps == expected);
        assert_eq!(window.order_before(Some(&consensus)).as_ref(), Some(&before), "block {}", header.number);
        let (list, ends) = (before.list.as_slice(), header.number.is_multiple_of(10));
        assert!(
            list.iter().eq(set.iter().map(|v| &v.0))
                && before.until == Some(header.number.next_multiple_of(10))
        );
        let after = before.after(header.number, Some(header.miner.0));
        let order = window.order(Some(&consensus));
        assert_eq!(after, (!ends).then_some(order), "block {}", header.number);
    }
    assert_eq!(right, 240);
}

#[test]
fn the_order_ends_where_the_configuration_says_and_only_while_the_blocks_agree() {
    let window = window(95, 20);
    assert_eq!(window.order(None).until, None);
    let wrong = Consensus::constant(Timing { epoch: Some(9), ..TIMING });
    assert_eq!(
        (window.order(Some(&wrong)).until, window.order_before(Some(&wrong)).unwrap().until),
        (None, None)
    );
    let mut info = info();
    info["protocols"]["istanbul"]["config"]["transitions"] = json!([{ "block": 98, "proposerPolicy": 1 }]);
    let consensus = Consensus::from_node_info(info.as_object().unwrap()).unwrap().unwrap();
    let order = window.order(Some(&consensus));
    assert_eq!((order.until, order.sticky), (Some(97), false), "the policy changes before the epoch ends");
    let sticky = Consensus::constant(Timing { policy: Policy::Sticky, ..TIMING });
    let order = window.order(Some(&sticky));
    assert_eq!((order.distance(&window.head().proposer.0), order.until), (Some(1), Some(100)));
    assert_eq!(window.next_proposer(Policy::Sticky), Some(window.head().proposer));
}

#[test]
fn the_sealers_of_every_block_are_those_of_the_independent_decoder() {
    let window = window(241, 241);
    assert_eq!(window.blocks().len(), 241);
    for (block, decoded) in window.blocks().iter().zip(&recording("extra-decoded.jsonl")[1..]) {
        let expected = match &decoded["prevCommitted"] {
            Value::Null => BTreeSet::new(),
            seal => addresses(&seal["addresses"]).into_iter().collect(),
        };
        assert_eq!((block.number, &block.sealers), (decoded["number"].as_u64().unwrap(), &expected));
    }
}

#[test]
fn the_next_proposer_follows_the_last_one_and_each_round_skips_one() {
    let chain = chain();
    let mut window = Window::after(&chain[0].0, chain[0].1.clone()).unwrap();
    window.push(&chain[1].0).unwrap();
    for (header, set) in &chain[2..] {
        assert_eq!(window.validators(), set, "block {}", header.number);
        let expected = window.next_proposer(Policy::RoundRobin).unwrap();
        window.push(header).unwrap();
        let index = |who: Address| set.iter().position(|v| *v == who).unwrap();
        let skipped = window.head().round as usize;
        assert_eq!(index(header.miner), (index(expected) + skipped) % set.len(), "block {}", header.number);
    }
}

#[test]
fn a_block_that_does_not_follow_or_has_foreign_seals_is_refused() {
    let chain = chain();
    let mut window = window(50, 10);
    let before = window.clone();
    for wrong in
        [&chain[50].0, &chain[52].0, &Header { parent_hash: chain[49].0.hash, ..chain[51].0.clone() }]
    {
        assert!(matches!(window.push(wrong), Err(Fault::Nonsense(what)) if what.contains("does not follow")));
    }
    let short = Window::after(&chain[50].0, chain[50].1[..2].to_vec());
    assert!(
        matches!(short.unwrap().push(&chain[51].0), Err(Fault::Nonsense(what)) if what.contains("beyond"))
    );
    assert!(window.push(&Header { extra_data: vec![1], ..chain[51].0.clone() }).is_err());
    // Block 1 carries no seals; any other must show that the one before was decided.
    let bare = Header { extra_data: chain[1].0.extra_data.clone(), ..chain[51].0.clone() };
    assert!(
        matches!(window.push(&bare), Err(Fault::Nonsense(what)) if what.contains("0 seals") && what.contains("3 of 4"))
    );
    assert_eq!(window, before);
}

/// The timing of the recorded chain.
const TIMING: Timing = Timing {
    period: Duration::from_secs(1),
    round_timeout: Duration::from_secs(2),
    max_round_timeout: None,
    epoch: Some(10),
    policy: Policy::RoundRobin,
};

/// The view at a head of the recorded chain by a healthy node, a second after it.
fn seen(head: usize) -> Observation {
    Observation {
        window: window(head, 20),
        head_age: Duration::from_secs(1),
        own: Some(address(N1)),
        syncing: Syncing::Idle,
        mining: Some(true),
        peers: Some(3),
        clock_skew: Duration::ZERO,
        timing: TIMING,
        consensus: Some(Consensus::constant(TIMING)),
    }
}

/// Whether the network could spare us at a head of the recorded chain.
fn spared(head: usize) -> Verdict {
    let sample = seen(head).window.sample(Duration::from_secs(1), &TIMING, None);
    gates::judge(&address(N1).0, None, &sample, gates::AfterOwn::Preferred)
}

#[test]
fn a_stop_shows_in_the_recorded_seals_with_the_second_block() {
    let live = |head| ConsensusState::from(&seen(head)).live;
    let sealing = |head: usize| {
        let sample = seen(head).window.sample(Duration::ZERO, &TIMING, None);
        sample.set.iter().filter(|seat| seat.sealing).count()
    };
    // n4 is stopped after block 98 and is there again from block 142.
    for (head, seals) in [(98, 4), (102, 4), (103, 3), (141, 3), (142, 4)] {
        assert_eq!((live(head), sealing(head)), (seals, seals), "one window for display and gate");
    }
    // n1 proposes block 98, after which it is best to wait for one more.
    assert!(matches!(spared(96), Verdict::Go(_)));
    assert!(
        matches!(spared(98), Verdict::Hold(gates) if matches!(gates[..], [Gate::Proposal { after: 99, .. }]))
    );
    match spared(110) {
        Verdict::Hold(gates) => {
            assert_eq!(gates[0].to_string(), "3 of 4 live, need 3 without us, have 2");
            assert!(matches!(gates[0], Gate::Quorum { .. }));
        }
        go => panic!("{go:?}"),
    }
}

#[test]
fn the_state_names_all_validators_and_their_versions() {
    let state = ConsensusState::from(&seen(120));
    assert_eq!((state.height, state.round, state.step), (120, 1, Step::Commit));
    assert_eq!((state.validator_count, state.total_power, state.validator_power), (4, 4, 1));
    assert_eq!((state.live, state.quorum, state.margin), (3, 3, 1));
    assert_eq!(state.validator_index.map(|i| state.validators[i].address), Some(address(N1)));
    assert_eq!(state.rounds, [(0, 5), (1, 3)].into());
    let n4 = state.validators.iter().find(|v| v.address == address(N4)).unwrap();
    assert!(!n4.live && n4.last_commit.is_none() && n4.client.is_none());
    let others = state.validators.iter().filter(|v| v.address != address(N4));
    for other in others {
        assert!(other.live && other.last_commit == Some(119));
        assert_eq!(other.client.as_deref(), Some("geth 1.0.1 go1.26.6 linux"));
    }
    assert_eq!(state.validators.iter().filter(|v| v.live && Some(v.address) != state.address).count(), 2);
}

#[test]
fn json_has_the_names_that_scripts_rely_on() {
    let json = serde_json::to_value(ConsensusState::from(&seen(120))).unwrap();
    for name in [
        "height",
        "round",
        "step",
        "is_validator",
        "validator_index",
        "validator_count",
        "validator_power",
        "total_power",
        "is_syncing",
        "catching_up",
        "validators",
        "live",
        "quorum",
        "margin",
        "rounds",
        "peers",
    ] {
        assert!(!json[name].is_null(), "{name}");
    }
    assert_eq!((&json["step"], &json["head_age_ms"]), (&json!("commit"), &json!(1000)));
    assert_eq!(json["rounds"], json!({ "0": 5, "1": 3 }));
    assert_eq!(json["validators"][0]["live"], true);
    assert_eq!(serde_json::to_value(ConsensusState::default()).unwrap()["step"], "down");
}

#[test]
fn a_step_is_what_can_be_told_and_no_more() {
    let step = |change: &dyn Fn(&mut Observation)| {
        let mut seen = seen(90);
        change(&mut seen);
        ConsensusState::from(&seen).step
    };
    assert_eq!(step(&|_| {}), Step::Commit);
    assert_eq!(step(&|seen| seen.head_age = Duration::from_secs(3)), Step::Commit);
    assert_eq!(step(&|seen| seen.head_age = Duration::from_millis(3001)), Step::RoundChange);
    assert_eq!(step(&|seen| seen.mining = Some(false)), Step::Silent);
    assert_eq!(step(&|seen| (seen.mining, seen.own) = (Some(false), None)), Step::Commit);
    let active = Syncing::Active { current: 90, highest: 95 };
    assert_eq!(step(&|seen| (seen.syncing, seen.mining) = (active, Some(false))), Step::Syncing);
    let state = ConsensusState::from(&Observation { syncing: active, ..seen(90) });
    assert!(state.is_syncing && state.catching_up);
    // Recorded at a first start: both heights are 0.
    let state = ConsensusState::from(&Observation {
        syncing: Syncing::Active { current: 0, highest: 0 },
        ..seen(90)
    });
    assert!(state.is_syncing && !state.catching_up);
}

#[test]
fn the_first_blocks_have_no_seals_and_prove_no_validator_live() {
    for head in [0, 1] {
        let state = ConsensusState::from(&seen(head));
        assert_eq!((state.validator_count, state.live, state.height), (4, 0, head as u64));
        let hold = spared(head);
        assert!(matches!(hold, Verdict::Hold(_)), "{hold:?}");
    }
    assert_eq!(ConsensusState::from(&seen(2)).live, 4);
}

#[test]
fn only_new_headers_are_asked_for() {
    let node = Node::start(100, true);
    let mut observer = Observer::new(node.client());
    let headers =
        |node: &Node| node.asked().iter().filter(|call| call.starts_with("eth_getHeaderByNumber")).count();
    let first = observer.observe().unwrap();
    assert!(first.window == window(100, 20));
    assert_eq!((first.own, first.peers, first.mining), (Some(address(N1)), Some(3), Some(true)));
    assert_eq!(headers(&node), 21);
    node.set_head(103);
    assert!(observer.observe().unwrap().window == window(103, 20));
    assert_eq!(headers(&node), 3);
    assert!(observer.observe().unwrap().window == window(103, 20));
    assert_eq!(headers(&node), 1);
    // A node that was killed comes back with an older head.
    node.set_head(90);
    assert!(observer.observe().unwrap().window == window(90, 20));
    node.set_head(241);
    assert!(observer.observe().unwrap().window == window(241, 20));
}

#[test]
fn headers_alone_tell_all_but_who_we_are() {
    let node = Node::start(107, false);
    let mut observer = Observer::new(node.client());
    let seen = observer.observe().unwrap();
    assert_eq!((seen.own, &seen.window), (None, &window(107, 20)));
    assert_eq!(seen.timing.period, Duration::from_secs(1));
    let state = ConsensusState::from(&seen);
    assert_eq!((state.live, state.is_validator, state.step), (3, false, Step::RoundChange));
}

#[test]
fn the_peers_and_the_configuration_come_with_admin() {
    let node = Node::start(107, true);
    let mut observer = Observer::new(node.client());
    assert_eq!(observer.admin, None);
    let seen = observer.observe().unwrap();
    assert_eq!((observer.admin, seen.timing.epoch), (Some(true), Some(10)));
    assert_eq!(seen.consensus.map(|c| c.at(108)), Some(seen.timing));
    assert_eq!(observer.connected().unwrap(), Some([address(N4)].into()));
    let node = Node::start(107, false);
    let mut observer = Observer::new(node.client());
    assert_eq!(observer.connected().unwrap(), None);
    node.asked();
    assert_eq!(observer.observe().unwrap().consensus, None);
    assert_eq!((observer.admin, observer.connected().unwrap()), (Some(false), None));
    let asked = node.asked().iter().filter(|call| call.starts_with("admin_")).count();
    assert_eq!(asked, 1, "for the node's own address, and not for what is not served");
}

#[test]
fn versions_are_those_of_the_last_proposals() {
    let census = seen(120).census();
    // n4 was stopped after block 98, 22 blocks ago.
    assert_eq!(census.len(), 3);
    let newest = census[&window(120, 1).head().proposer].clone();
    assert_eq!((newest.height, newest.client.as_deref()), (120, Some("geth 1.0.1 go1.26.6 linux")));
    assert_eq!(seen(100).census().len(), 4);
}

#[test]
fn a_head_of_the_future_is_a_clock_that_is_wrong_and_not_one_that_is_fresh() {
    let window = window(90, 20);
    let proposed = Duration::from_secs(window.head().timestamp);
    assert_eq!(window.clock_skew(proposed), Duration::ZERO);
    assert_eq!(window.clock_skew(proposed - Duration::from_millis(4500)), Duration::from_millis(4500));
    let node = Node::start(90, false)
        .with(|blocks| blocks[90]["block"]["timestamp"] = json!(show_quantity(1 << 40)));
    let seen = Observer::new(node.client()).observe().unwrap();
    assert!(seen.clock_skew > Duration::from_secs(1 << 39) && seen.head_age.is_zero());
    assert_eq!(ConsensusState::from(&seen).clock_skew, seen.clock_skew);
}

#[test]
fn the_period_is_that_of_undisturbed_blocks() {
    assert_eq!(window(130, 30).period(), Some(Duration::from_secs(1)));
    assert_eq!(window(1, 1).period(), None);
}

#[test]
fn the_own_address_is_believed_when_two_answers_agree() {
    let node = Node::start(100, true);
    let mut observer = Observer::new(node.client());
    let asked =
        |node: &Node| node.asked().iter().filter(|call| call.starts_with("istanbul_nodeAddress")).count();
    for (head, times) in [(100, 1), (103, 1), (104, 0)] {
        node.set_head(head);
        node.asked();
        assert_eq!(observer.observe().unwrap().own, Some(address(N1)));
        assert_eq!(asked(&node), times, "at {head}");
    }
}
