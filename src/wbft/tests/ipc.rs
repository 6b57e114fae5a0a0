//! Calls and subscriptions over a unix socket.

use super::*;
use crate::wbft::{Client, Heads};
use std::sync::mpsc;

#[test]
fn one_connection_serves_many_calls() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        for n in 0..3 {
            let request = read_request(&mut stream);
            assert_eq!(request["method"], format!("m{n}"));
            write(&mut stream, result(&request["id"], &json!(n)) + "\n");
        }
        assert_eq!(read_line(&mut stream), None);
    }]);
    let mut node = server.connect(&PATIENT);
    for n in 0..3 {
        assert_eq!(node.call(&format!("m{n}"), json!([])).unwrap(), n);
    }
    drop(node);
    server.join();
}

#[test]
fn replies_in_any_order_without_newlines_and_in_pieces_find_their_requests() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        let requests: Vec<Value> = (0..16).map(|_| read_request(&mut stream)).collect();
        for request in requests.iter().rev() {
            let reply = result(&request["id"], &request["params"]);
            let (a, b) = reply.as_bytes().split_at(reply.len() / 2);
            write(&mut stream, a);
            stream.flush().unwrap();
            write(&mut stream, b);
        }
        let last = read_request(&mut stream);
        write(&mut stream, result(&last["id"], &last["params"]) + "\n");
        drain(stream);
    }]);
    let mut node = server.connect(&PATIENT);
    let params: Vec<Value> = (0..17).map(|n| json!([n])).collect();
    assert_eq!(node.call_many("echo", &params).unwrap(), params);
    drop(node);
    server.join();
}

#[test]
fn what_is_no_answer_is_nonsense_and_the_next_call_starts_afresh() {
    type Bad = (&'static str, &'static str);
    let bad: Vec<Bad> = vec![
        (r#"{"jsonrpc":"2.0","id":99,"result":"0x1"}"#, "id 99"),
        (r#"{"jsonrpc":"2.0","id":"1","result":"0x1"}"#, "no id"),
        (r#"{"jsonrpc":"2.0","id":1.0,"result":"0x1"}"#, "no id"),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"invalid character"}}"#, "no id"),
        (r#"{"id":1,"result":"0x1"}"#, "2.0"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "neither"),
        (r#"{"jsonrpc":"2.0","id":1,"result":"0x1","error":{"code":1,"message":""}}"#, "neither"),
        (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, "without a code"),
        (r#"[{"jsonrpc":"2.0","id":1,"result":"0x1"}]"#, "not an object"),
        ("HTTP/1.1 400 Bad Request\r\n", "no JSON object"),
        (r#"{"jsonrpc":"2.0" "id":1}"#, "bad JSON"),
    ];
    let scripts = bad.iter().map(|(answer, _)| {
        let answer = answer.to_string();
        move |mut stream: UnixStream| {
            read_request(&mut stream);
            write(&mut stream, answer + "\n");
            drain(stream);
        }
    });
    let server = IpcServer::start(scripts.collect());
    let mut node = server.connect(&PATIENT);
    for (answer, why) in bad {
        match fault(node.call("eth_blockNumber", json!([]))) {
            Fault::Nonsense(what) => assert!(what.contains(why), "{answer}: {what}"),
            other => panic!("{answer}: {other}"),
        }
    }
    server.join();
}

#[test]
fn an_answer_beyond_the_limit_is_refused_before_it_has_all_come() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        read_request(&mut stream);
        write(&mut stream, r#"{"jsonrpc":"2.0","id":1,"result":""#);
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    }]);
    match fault(server.connect(&PATIENT).call("m", json!([]))) {
        Fault::Nonsense(what) => assert!(what.contains("65536 bytes"), "{what}"),
        other => panic!("{other}"),
    }
    server.join();
}

#[test]
fn a_refusal_keeps_the_connection() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        let request = read_request(&mut stream);
        let error = json!({ "code": -32000, "message": "unknown block\n" });
        write(&mut stream, json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string());
        let request = read_request(&mut stream);
        write(&mut stream, result(&request["id"], &Value::Null));
    }]);
    let mut node = server.connect(&PATIENT);
    let refused = Fault::Refused { code: -32000, message: "unknown block".into() };
    assert_eq!(fault(node.call("m", json!([]))), refused);
    assert_eq!(node.call("m", json!([])).unwrap(), Value::Null);
    server.join();
}

#[test]
fn silence_is_a_timeout_and_the_late_answer_is_not_taken_for_the_next() {
    let (timed_out, wait) = mpsc::channel::<()>();
    let first = move |mut stream: UnixStream| {
        // On a slow machine the time may be over before the request is sent.
        let Some(request) = read_line(&mut stream) else { return };
        let request: Value = serde_json::from_str(&request).unwrap();
        wait.recv().unwrap();
        write(&mut stream, result(&request["id"], &json!("late")));
    };
    let second = |mut stream: UnixStream| {
        let request = read_request(&mut stream);
        write(&mut stream, result(&request["id"], &json!("fresh")));
    };
    let server =
        IpcServer::start(vec![Box::new(first) as Box<dyn FnOnce(UnixStream) + Send>, Box::new(second)]);
    let mut node = server.connect(&HASTY);
    assert_eq!(fault(node.call("m", json!([]))), Fault::Timeout(HASTY.timeout));
    let _ = timed_out.send(());
    node.options = PATIENT;
    assert_eq!(node.call("m", json!([])).unwrap(), "fresh");
    server.join();
}

#[test]
fn a_node_that_is_not_there_is_unreachable_in_each_recorded_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.ipc");
    let mut node = Connection::new(&Endpoint::Ipc(path.clone()), PATIENT);
    let unreachable = |node: &mut Connection, why: &str| {
        let err = node.call("eth_blockNumber", json!([])).unwrap_err();
        assert!(is_unreachable(&err) && err.to_string().contains(why), "{err}");
    };
    unreachable(&mut node, "No such file");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept().unwrap()));
        // Depending on who is faster, the write fails or the read finds the end.
        unreachable(&mut node, "");
    });
    drop(listener);
    // A child that another test has just forked has it until its exec.
    loop {
        let err = node.call("eth_blockNumber", json!([])).unwrap_err();
        assert!(is_unreachable(&err), "{err}");
        if err.to_string().contains("refused") {
            break;
        }
    }
}

#[test]
fn a_node_that_hangs_and_accepts_nothing_does_not_hang_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.ipc");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match super::super::socket::Socket::connect(&path) {
            Ok(socket) => waiting.push(socket),
            Err(fault) => break fault,
        }
        assert!(waiting.len() < 100_000, "the queue of connections has no end");
    };
    assert!(matches!(full, Fault::Unreachable(why) if why.contains("accepts no")));
}

/// The recorded subscription, line by line.
fn replay_heads(mut stream: UnixStream, after: impl FnOnce(UnixStream)) {
    let request = read_request(&mut stream);
    for line in recording("newheads-ipc.jsonl") {
        let text = line["line"].as_str().unwrap();
        if line["dir"] == "send" {
            assert_eq!(request, serde_json::from_str::<Value>(text).unwrap());
        } else {
            write(&mut stream, format!("{text}\n"));
        }
    }
    after(stream);
}

#[test]
fn recorded_heads_arrive_in_order() {
    let server = IpcServer::start(vec![|stream| replay_heads(stream, drop)]);
    let mut heads = Client::new(&server.endpoint(), PATIENT).subscribe_heads().unwrap();
    for number in 4..8 {
        assert_eq!(heads.next(None).unwrap().unwrap().number, number);
    }
    assert!(matches!(fault(heads.next(None)), Fault::Unreachable(_)));
    server.join();
}

#[test]
fn foreign_notifications_pass_and_a_malformed_head_is_an_error() {
    let server = IpcServer::start(vec![|mut stream: UnixStream| {
        let request = read_request(&mut stream);
        let notice = |subscription: &str| {
            let params = json!({ "subscription": subscription, "result": { "number": "0x05" } });
            json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params }).to_string()
        };
        write(&mut stream, notice("0xother") + &result(&request["id"], &json!("0xours")));
        write(&mut stream, notice("0xother") + &notice("0xours"));
        drain(stream);
    }]);
    let mut heads = Heads::subscribe(&server.endpoint(), &PATIENT).unwrap();
    match fault(heads.next(None)) {
        Fault::Nonsense(what) => assert!(what.contains("leading zeros"), "{what}"),
        other => panic!("{other}"),
    }
    drop(heads);
    server.join();
}

#[test]
fn a_blocked_wait_for_a_head_ends_when_told() {
    let server = IpcServer::start(vec![|stream| replay_heads(stream, drain)]);
    let mut heads = Heads::subscribe(&server.endpoint(), &PATIENT).unwrap();
    for _ in 4..8 {
        heads.next(None).unwrap();
    }
    assert_eq!(heads.next(Some(Duration::from_millis(1))).unwrap(), None);
    let stopper = heads.stopper();
    let waiting = std::thread::spawn(move || (heads.next(None), heads.next(None)));
    stopper.clone().stop();
    let (first, second) = waiting.join().unwrap();
    assert_eq!((fault(first), fault(second)), (Fault::Stopped, Fault::Stopped));
    server.join();
}
