//! Calls over HTTP.

use super::*;
use std::net::{TcpListener, TcpStream};

/// Reads a request up to its end and returns its head and body.
fn read_http(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut head = String::new();
    loop {
        let line = read_line(stream)?;
        if line.trim_end().is_empty() {
            break;
        }
        head.push_str(line.trim_end());
        head.push('\n');
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap()))
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server that handles one connection with each of `scripts`.
fn serve<S: FnOnce(TcpStream) + Send + 'static>(scripts: Vec<S>) -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let thread = std::thread::spawn(move || {
        for script in scripts {
            script(listener.accept().unwrap().0);
        }
    });
    (endpoint, thread)
}

/// The outcome of one call that is answered with exactly `answer`, then the end of the connection.
fn answered(answer: String) -> Result<Value, RpcError> {
    let (endpoint, thread) = serve(vec![move |mut stream: TcpStream| {
        read_http(&mut stream);
        write(&mut stream, answer);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        drain(stream);
    }]);
    let mut node = Connection::new(&endpoint, PATIENT);
    let outcome = node.call("eth_blockNumber", json!([]));
    drop(node);
    thread.join().unwrap();
    outcome
}

#[test]
fn a_call_is_one_post_and_the_connection_is_kept() {
    let (endpoint, thread) = serve(vec![|mut stream: TcpStream| {
        for n in 1..=3 {
            let (head, body) = read_http(&mut stream).unwrap();
            assert!(head.starts_with("POST / HTTP/1.1\n"), "{head}");
            let head = head.to_lowercase();
            assert!(head.contains("content-type: application/json\n"), "{head}");
            assert!(head.contains("accept-encoding: identity\n"), "{head}");
            assert!(!head.contains("origin"), "{head}");
            assert_eq!(body, json!({"jsonrpc": "2.0", "id": n, "method": "eth_chainId", "params": []}));
            write(&mut stream, http("200 OK", &result(&body["id"], &json!("0x20bf"))));
        }
        assert!(read_http(&mut stream).is_none());
    }]);
    let mut node = Connection::new(&endpoint, PATIENT);
    for _ in 0..3 {
        assert_eq!(node.call("eth_chainId", json!([])).unwrap(), "0x20bf");
    }
    drop(node);
    thread.join().unwrap();
}

#[test]
fn a_login_in_the_url_goes_into_its_header() {
    let (endpoint, thread) = serve(vec![|mut stream: TcpStream| {
        let (head, body) = read_http(&mut stream).unwrap();
        assert!(head.to_lowercase().contains("authorization: basic dtpwqhnz\n"), "{head}");
        write(&mut stream, http("200 OK", &result(&body["id"], &json!("0x1"))));
    }]);
    let endpoint: Endpoint = endpoint.to_string().replace("//", "//u:p%40ss@").parse().unwrap();
    assert_eq!(Connection::new(&endpoint, PATIENT).call("eth_chainId", json!([])).unwrap(), "0x1");
    thread.join().unwrap();
}

#[test]
fn a_node_that_was_restarted_is_reached_again() {
    let once = |mut stream: TcpStream| {
        let (_, body) = read_http(&mut stream).unwrap();
        write(&mut stream, http("200 OK", &result(&body["id"], &json!(true))));
    };
    let (endpoint, thread) = serve(vec![once, once]);
    let mut node = Connection::new(&endpoint, PATIENT);
    assert_eq!(node.call("m", json!([])).unwrap(), true);
    // The kept connection is dead by now or dies under the call; never does an old answer come.
    while let Err(err) = node.call("m", json!([])) {
        assert!(is_unreachable(&err), "{err}");
    }
    drop(node);
    thread.join().unwrap();
}

#[test]
fn whatever_is_no_answer_is_told_apart() {
    let nonsense = |answer: String, why: &str| match fault(answered(answer)) {
        Fault::Nonsense(what) => assert!(what.contains(why), "{why}: {what}"),
        other => panic!("{why}: {other}"),
    };
    nonsense(http("200 OK", r#"{"jsonrpc":"2.0","id":7,"result":"0x1"}"#), "id 7 instead of 1");
    nonsense(http("200 OK", ""), "empty");
    nonsense(http("200 OK", "<html>"), "no JSON object: \"<html>\"");
    nonsense(http("200 OK", &"[".repeat(1000)), "deeper");
    nonsense(http("403 Forbidden", "invalid host specified\n"), "403 Forbidden: \"invalid host specified\"");
    nonsense(http("415 Unsupported Media Type", ""), "415");
    nonsense(
        "HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n".into(),
        "302",
    );
    nonsense(http("200 OK", &format!("[{}]", "0,".repeat(40_000))), "more than 65536 bytes");
    nonsense("SSH-2.0-OpenSSH_9.6\r\n".into(), "not HTTP");
    // A body that was cut short is no answer either.
    nonsense("HTTP/1.0 200 OK\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"resu".into(), "bad JSON");
    let unreachable = |answer: String| {
        let fault = fault(answered(answer));
        assert!(matches!(fault, Fault::Unreachable(_)), "{fault}");
    };
    unreachable(http("502 Bad Gateway", "<html>"));
    unreachable(http("503 Service Unavailable", ""));
    unreachable(String::new());
}

#[test]
fn a_node_that_hangs_is_a_timeout_at_any_point_of_its_answer() {
    for begun in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
        let (endpoint, thread) = serve(vec![move |mut stream: TcpStream| {
            read_http(&mut stream);
            write(&mut stream, begun);
            drain(stream);
        }]);
        let mut node = Connection::new(&endpoint, HASTY);
        assert_eq!(fault(node.call("m", json!([]))), Fault::Timeout(HASTY.timeout), "{begun:?}");
        drop(node);
        // On a slow machine the time may be over before the connection is made, and the server waits for it.
        drop(TcpStream::connect(endpoint.to_string().trim_start_matches("http://")));
        thread.join().unwrap();
    }
}

#[test]
fn nothing_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    drop(listener);
    let err = Connection::new(&endpoint, PATIENT).call("m", json!([])).unwrap_err();
    assert!(is_unreachable(&err) && err.to_string().contains("refused"), "{err}");
}

#[test]
fn heads_cannot_be_had_over_http() {
    let endpoint: Endpoint = "localhost:1".parse().unwrap();
    assert!(matches!(fault(crate::wbft::Heads::subscribe(&endpoint, &PATIENT)), Fault::Unsupported(_)));
}
