//! Each recorded request is put to a simulated node, and its answer must have the recorded shape.
//!
//! Errors must be the recorded ones to the letter, results must have the same keys and the same kinds of values.

use crate::rig::sim::{PATIENCE, Sim, SimNode, number};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tempfile::{TempDir, tempdir};

fn recorded() -> impl Iterator<Item = Value> {
    include_str!("../../data/sim/rpc.jsonl").lines().map(|line| serde_json::from_str(line).unwrap())
}

/// A node past block 80, where most of the recording was made, with the given modules over HTTP.
fn node(api: &str) -> (TempDir, SimNode) {
    let dir = tempdir().unwrap();
    let sim = Sim::new(dir.path().join("data")).option("period", 5).arg("--http").arg("--http.port").arg("0");
    let node = sim.arg("--http.api").arg(api).start();
    node.wait_head(81);
    (dir, node)
}

/// A value without its particulars: what a client's parser depends on.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(text) => kind(text).into(),
        // One entry stands for all; an empty list fits any.
        Value::Array(list) => Value::Array(list.iter().map(shape).take(1).collect()),
        Value::Object(object) => {
            let keys = object.keys().map(|key| if kind(key) == "address" { "ADDRESS" } else { key });
            let keys: Vec<&str> =
                keys.map(|key| if key.parse::<u64>().is_ok() { "NUMBER" } else { key }).collect();
            keys.into_iter()
                .zip(object.values().map(shape))
                .map(|(key, value)| (key.to_owned(), value))
                .collect()
        }
    }
}

fn kind(text: &str) -> &'static str {
    let hex = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    match hex {
        Some(digits) if digits.len() == 40 && digits.bytes().any(|digit| digit.is_ascii_uppercase()) => {
            "address"
        }
        Some(digits) => match digits.len() {
            40 => "address",
            64 => "hash",
            16 => "nonce",
            // Quantities, and data of any length.
            _ => "hex",
        },
        None if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) => "decimal",
        None => "text",
    }
}

/// Whether `ours` fits what was recorded, apart from what differs between a validator of four and one alone.
fn fits(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.is_empty() || theirs.is_empty() || fits(&ours[0], &theirs[0])
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys =
                |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            keys(ours) == keys(theirs) && ours.iter().all(|(key, value)| fits(value, &theirs[key]))
        }
        _ => ours == theirs,
    }
}

#[track_caller]
fn assert_fits(what: &str, ours: &Value, theirs: &Value) {
    if theirs.get("error").is_some() {
        assert_eq!(ours, theirs, "{what}");
    } else {
        let (ours, theirs) = (shape(ours), shape(theirs));
        assert!(fits(&ours, &theirs), "{what}\n  ours:   {ours}\n  theirs: {theirs}");
    }
}

/// Block 5 of the recording is meant wherever its hash is asked for.
fn localised(request: &str, node: &SimNode) -> String {
    const FIVE: &str = "0x6d8b49c735770f77faba6d4dc85586866e714b8a48ea115fa7e0bee9eca703fc";
    let ours = node.call("eth_getBlockByNumber", json!(["0x5", false]));
    request.replace(FIVE, ours["hash"].as_str().unwrap())
}

/// Everything that comes back for a raw request, until the server closes or has been quiet for a while.
fn raw_ipc(node: &SimNode, request: &str, expected: usize) -> (Vec<Value>, bool) {
    let mut stream = UnixStream::connect(&node.ipc).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut input = BufReader::new(stream);
    let mut lines = Vec::new();
    while lines.len() < expected {
        let mut line = String::new();
        assert!(input.read_line(&mut line).unwrap() > 0, "{request}: {lines:?}");
        lines.push(serde_json::from_str(&line).unwrap());
    }
    // A last request tells the connection that is still open from the one that was closed.
    let _ = input.get_mut().write_all(br#"{"jsonrpc":"2.0","id":"last","method":"eth_chainId"}"#);
    loop {
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return (lines, true),
            Ok(_) if line.contains("\"last\"") => return (lines, false),
            // More notifications than were recorded.
            Ok(_) => {}
        }
    }
}

#[test]
fn calls_over_ipc_are_answered_as_recorded() {
    let (_dir, node) = node("eth");
    let mut seen = 0;
    for line in recorded().filter(|line| line["transport"] == "ipc" && line["method"].is_string()) {
        let (method, params) = (&line["method"], &line["params"]);
        let what = format!("{method} {params}");
        // No node to be a peer of, none with which the successor of block 0 could have been prepared.
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let (lines, _) = raw_ipc(&node, &localised(&request, &node), 1);
        let mut expected = line["response"].clone();
        if method == "admin_nodeInfo" {
            // The governance contracts and the details of the fork are not simulated.
            for protocol in ["eth", "istanbul"] {
                let config = expected["result"]["protocols"][protocol]["config"].as_object_mut().unwrap();
                config.remove("boho");
                config.remove("bohoBlock");
            }
            let wbft =
                expected["result"]["protocols"]["istanbul"]["config"]["anzeon"].as_object_mut().unwrap();
            wbft.remove("systemContracts");
        }
        assert_fits(&what, &lines[0], &expected);
        seen += 1;
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn raw_ipc_is_answered_as_recorded() {
    let (_dir, node) = node("eth");
    for line in recorded().filter(|line| line["request_raw"].is_string()) {
        let request = line["request_raw"].as_str().unwrap();
        let theirs: Vec<Value> = line["response_lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap())
            .collect();
        let (mut ours, closed) = raw_ipc(&node, request, theirs.len());
        assert_eq!(closed, line["server_closed"] == true, "{request}");
        // Any order is as good as the recorded one.
        let mut theirs = theirs;
        for replies in [&mut ours, &mut theirs] {
            replies.sort_by_key(|reply| reply["id"].to_string());
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_fits(request, ours, theirs);
        }
    }
}

#[test]
fn replies_to_requests_that_come_together_are_not_in_their_order() {
    let (_dir, node) = node("eth");
    let request = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_chainId"}}"#);
    let (lines, _) = raw_ipc(&node, &(request(1) + &request(2)), 2);
    assert_eq!((&lines[0]["id"], &lines[1]["id"]), (&json!(2), &json!(1)));
}

/// One HTTP exchange on a connection of its own: status, headers without those that vary, body.
fn raw_http(port: u16, request: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut next = || {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = next().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let line = next();
        let Some((key, value)) = line.split_once(": ") else { break };
        headers.push((key.to_owned(), value.to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if header("Transfer-Encoding").as_deref() == Some("chunked") {
        stream.shutdown(Shutdown::Write).unwrap();
        input.read_to_end(&mut body).unwrap();
    } else if !request.starts_with("HEAD") {
        body = vec![0; header("Content-Length").unwrap().parse().unwrap()];
        input.read_exact(&mut body).unwrap();
    }
    headers.sort();
    (status, headers, body)
}

#[test]
fn http_refuses_and_answers_as_recorded() {
    let (_dir, node) = node("eth,net,web3,admin,istanbul,debug,txpool");
    let port = node.traces.http_port();
    let mut seen = 0;
    for line in recorded().filter(|line| line["http"].is_object()) {
        let http = &line["http"];
        let (method, path) =
            (http["request"]["method"].as_str().unwrap(), http["request"]["path"].as_str().unwrap());
        let body = http["request"]["body"].as_str().unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (key, value) in http["request"]["headers"].as_object().unwrap() {
            request += &format!("{key}: {}\r\n", value.as_str().unwrap());
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let (status, headers, ours) = raw_http(port, &format!("{request}\r\n{body}"));
        assert_eq!(status, http["status"].as_u64().unwrap() as u16, "{request}");
        let varies = |key: &str| ["Date", "Content-Length"].contains(&key);
        let ours_without: Vec<_> =
            headers.iter().filter(|(key, _)| !varies(key) && key != "Connection").collect();
        let mut theirs: Vec<(String, String)> = serde_json::from_value(http["headers"].clone()).unwrap();
        theirs.sort();
        let theirs: Vec<_> = theirs.iter().filter(|(key, _)| !varies(key) && key != "Connection").collect();
        assert_eq!(ours_without, theirs, "{request}");
        match http["body"].as_str() {
            Some(text) if line["response"].is_null() => {
                assert_eq!(String::from_utf8_lossy(&ours), text, "{request}")
            }
            Some(text) => {
                assert_eq!(text.ends_with('\n'), ours.ends_with(b"\n"), "{request}");
                assert_fits(&request, &serde_json::from_slice(&ours).unwrap(), &line["response"]);
            }
            None => assert!(ours.starts_with(&[0x1f, 0x8b]), "not gzip: {request}"),
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn the_default_modules_of_http_are_few() {
    let (_dir, node) = node("eth,net,web3");
    let port = node.traces.http_port();
    for line in recorded().filter(|line| line["transport"] == "http-default") {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": line["method"], "params": line["params"]})
            .to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let (status, headers, ours) = raw_http(port, &request);
        assert_eq!(status, 200);
        // Long replies come in chunks, as recorded.
        let chunked = headers.iter().any(|(key, _)| key == "Transfer-Encoding");
        assert_eq!(chunked, line["response"]["result"]["extraData"].is_string(), "{body}");
        if chunked {
            assert!(ours.ends_with(b"\r\n0\r\n\r\n"));
            continue;
        }
        assert_fits(&body, &serde_json::from_slice(&ours).unwrap(), &line["response"]);
    }
}

#[test]
fn new_heads_come_one_by_one_with_the_recorded_fields() {
    let (_dir, node) = node("eth");
    let line = recorded().find(|line| line["request_raw"].to_string().contains("newHeads")).unwrap();
    let theirs: Value = serde_json::from_str(line["response_lines"][1].as_str().unwrap()).unwrap();
    let (lines, _) = raw_ipc(&node, line["request_raw"].as_str().unwrap(), 12);
    let mut last = None;
    for ours in &lines[1..] {
        assert_fits("newHeads", ours, &theirs);
        assert_eq!(ours["params"]["subscription"], lines[0]["result"]);
        let head = &ours["params"]["result"];
        if let Some((height, hash)) = last {
            assert_eq!((number(&head["number"]), &head["parentHash"]), (height + 1, hash));
        }
        last = Some((number(&head["number"]), &head["hash"]));
    }
}

#[test]
fn rpc_can_misbehave() {
    let dir = tempdir().unwrap();
    let node = Sim::new(dir.path().join("data")).start();
    let ask = || {
        let mut stream = UnixStream::connect(&node.ipc).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream.write_all(br#"{"jsonrpc":"2.0","id":7,"method":"eth_blockNumber"}"#).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map(|_| line)
    };
    let become_bad = |rpc: &str, is_bad: &dyn Fn(&std::io::Result<String>) -> bool| {
        node.traces.script(&json!({"rpc": rpc}));
        crate::rig::sim::until(rpc, || is_bad(&ask()).then_some(()));
    };
    become_bad("wrong-id", &|line| line.as_ref().is_ok_and(|line| line.contains("\"id\":4711")));
    become_bad("wrong-shape", &|line| line.as_ref().is_ok_and(|line| line.contains("unexpected")));
    become_bad("garbage", &|line| line.as_ref().is_ok_and(|line| line.starts_with("<html>")));
    become_bad("lie", &|line| line.as_ref().is_ok_and(|line| line.contains("0x3b9aca00")));
    become_bad("huge", &|line| line.as_ref().is_ok_and(|line| line.len() > 16 << 20));
    become_bad("close", &|line| line.as_ref().is_ok_and(String::is_empty));
    become_bad("hang", &|line| line.is_err());
    become_bad("normal", &|line| line.as_ref().is_ok_and(|line| line.contains("\"result\":\"0x")));
}
