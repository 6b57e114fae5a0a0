//! The client against the recorded answers of a real node, as they are.

use super::*;
use crate::wbft::{Address, Client, Peer, Syncing, show_quantity};
use std::collections::HashMap;

/// A node that answers each call as it was recorded, by transport, node and situation.
fn replay(transport: &str, node: &str, situation: &str) -> (Client, IpcServer) {
    let mut answers = HashMap::new();
    for call in recording("rpc.jsonl") {
        let chosen = call["transport"] == transport
            && call["node"] == node
            && call["method"].is_string()
            && ["situation", "note"]
                .iter()
                .any(|key| call[*key].as_str().is_some_and(|s| s.starts_with(situation)));
        if chosen {
            let asked = (call["method"].clone().to_string(), call["params"].to_string());
            answers.entry(asked).or_insert(call["response"].clone());
        }
    }
    assert!(!answers.is_empty());
    let server = IpcServer::start(vec![move |mut stream: UnixStream| {
        while let Some(line) = read_line(&mut stream) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let asked = (request["method"].to_string(), request["params"].to_string());
            let mut answer =
                answers.get(&asked).unwrap_or_else(|| panic!("{asked:?} was not recorded")).clone();
            answer["id"] = request["id"].clone();
            write(&mut stream, format!("{answer}\n"));
        }
    }]);
    (Client::new(&server.endpoint(), PATIENT), server)
}

#[test]
fn a_healthy_validator_over_ipc() {
    let (mut node, server) = replay("ipc", "n1", "healthy");
    assert_eq!(node.block_number().unwrap(), 80);
    assert_eq!(node.chain_id().unwrap(), 8383);
    assert_eq!(node.peer_count().unwrap(), 3);
    assert_eq!(node.client_version().unwrap(), "Gstable/v1.0.1-stable/linux-amd64/go1.26.6");
    assert_eq!(node.syncing().unwrap(), Syncing::Idle);
    assert!(node.mining().unwrap());
    assert!(node.rpc_modules().unwrap().contains_key("istanbul"));
    let head = node.head().unwrap();
    assert_eq!((head.number, head.timestamp), (80, 0x6b04_e1b4));
    assert_eq!(head.miner.to_string(), "0xfbf542697ecbcb7b6d7999c55c5642ef34559393");
    assert_eq!(node.header(5).unwrap().unwrap().number, 5);
    assert_eq!(node.header(0xff_ffff).unwrap(), None);
    let genesis = "0x27644991bebccdebba8d6eecd103bfd9367db7a548fe5a17c4f36d35000baaf4";
    assert_eq!(node.genesis_hash().unwrap().to_string(), genesis);
    let peers = node.peers().unwrap();
    assert_eq!(peers.len(), 3);
    let n2 = address("0xfbf542697ecbcb7b6d7999c55c5642ef34559393");
    assert!(peers[0].address() == Some(n2) && peers[0].inbound);
    assert!(peers[0].enode.starts_with("enode://"));
    assert_eq!(Peer { id: "é".repeat(30), ..peers[0].clone() }.address(), None);
    assert_eq!(node.node_info().unwrap()["protocols"]["eth"]["config"]["bohoBlock"], 0);
    drop(node);
    server.join();
}

#[test]
fn what_plain_http_does_not_serve_is_told_apart_from_failure() {
    let (mut node, server) = replay("http-default", "n2", "healthy");
    assert_eq!(node.block_number().unwrap(), 0x5c);
    let err = node.peers().unwrap_err();
    assert!(err.is_unknown_method(), "{err}");
    assert!(!node.rpc_modules().unwrap().contains_key("istanbul"));
    drop(node);
    server.join();
}

#[test]
fn a_node_stuck_at_a_fork_says_how_far_the_others_are() {
    let (mut node, server) = replay("ipc", "n4", "stuck");
    let stuck = node.syncing();
    drop(node);
    server.join();
    assert_eq!(stuck.unwrap(), Syncing::Active { current: 44, highest: 63 });
}

#[test]
fn a_node_without_the_short_method_gives_headers_from_blocks() {
    // The second is what anvil says over IPC.
    for code in [-32601, -32602] {
        headers_come_from_blocks(code);
    }
}

fn headers_come_from_blocks(code: i32) {
    let server = IpcServer::start(vec![move |mut stream: UnixStream| {
        let blocks = recording("blocks.jsonl");
        while let Some(line) = read_line(&mut stream) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let answer = match request["method"].as_str().unwrap() {
                "eth_getBlockByNumber" => {
                    assert_eq!(request["params"][1], false);
                    let number = request["params"][0].as_str().unwrap();
                    let block = blocks.iter().find(|b| b["block"]["number"] == number);
                    result(&request["id"], block.map_or(&Value::Null, |b| &b["block"]))
                }
                other => {
                    let error =
                        json!({ "code": code, "message": format!("the method {other} does not exist") });
                    json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string()
                }
            };
            write(&mut stream, answer);
        }
    }]);
    let mut node = Client::new(&server.endpoint(), PATIENT);
    let headers = node.headers(230..250).unwrap();
    assert_eq!(headers.iter().map(|h| h.number).collect::<Vec<_>>(), (230..242).collect::<Vec<_>>());
    drop(node);
    server.join();
}

#[test]
fn a_header_of_another_height_is_nonsense() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        let request = read_request(&mut stream);
        assert_eq!(request["params"], json!([show_quantity(5)]));
        let block = &recording("blocks.jsonl")[6]["block"];
        write(&mut stream, result(&request["id"], block));
    }]);
    let mut node = Client::new(&server.endpoint(), PATIENT);
    match fault(node.header(5)) {
        Fault::Nonsense(what) => assert_eq!(what, "asked for block 5, got block 6"),
        other => panic!("{other}"),
    }
    server.join();
}

#[test]
fn orders_to_admin_are_spelled_as_the_node_wants_them() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        while let Some(line) = read_line(&mut stream) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let answer = match request["method"].as_str().unwrap() {
                "admin_removePeer" => json!(request["params"] == json!(["enode://a@203.0.113.1:30303"])),
                "admin_addPeer" => json!("yes"),
                "eth_coinbase" => json!(format!("0x{}", "0".repeat(40))),
                other => panic!("{other}"),
            };
            write(&mut stream, result(&request["id"], &answer));
        }
    }]);
    let mut node = Client::new(&server.endpoint(), PATIENT);
    assert!(node.remove_peer("enode://a@203.0.113.1:30303").unwrap());
    assert!(matches!(fault(node.add_peer("enode://a@203.0.113.1:30303")), Fault::Nonsense(_)));
    assert_eq!(node.coinbase().unwrap(), None);
    drop(node);
    server.join();
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn istanbul_answers_with_all_their_quirks() {
    let (mut node, server) = replay("ipc", "n1", "healthy");
    let [n1, n2, n3, n4] = [
        "0x54c42592181332091666e677a8ff8b1376dbd49d",
        "0xfbf542697ecbcb7b6d7999c55c5642ef34559393",
        "0x05e85200434a6b4e5d4218089f6ce222935f803e",
        "0xa133c1852f98218776452a1d56a8b2e7128c7ec8",
    ]
    .map(address);
    assert_eq!(node.node_address().unwrap(), Some(n1));
    assert_eq!(node.validators(1).unwrap(), Some(vec![n1, n2, n3, n4]));
    let timing = node.consensus().unwrap().unwrap().at(80);
    assert_eq!((timing.period.as_secs(), timing.round_timeout.as_secs(), timing.epoch), (1, 2, Some(10)));
    drop(node);
    server.join();
}

#[test]
fn a_program_tells_which_forks_it_knows() {
    for (name, height) in [("n1", Some(45)), ("n4", None)] {
        let (mut node, server) = replay("ipc", name, "before fork");
        let forks = node.forks().unwrap().unwrap();
        assert_eq!((forks.get("bohoBlock").copied(), forks["londonBlock"]), (height, 0), "{name}");
        drop(node);
        server.join();
    }
}

#[test]
fn over_plain_http_the_coinbase_is_the_address_of_the_node() {
    let (mut node, server) = replay("http-default", "n2", "healthy");
    assert_eq!(node.consensus().unwrap(), None);
    let own = address("0xfbf542697ecbcb7b6d7999c55c5642ef34559393");
    assert_eq!(node.node_address().unwrap(), Some(own), "by its coinbase");
    drop(node);
    server.join();
}
