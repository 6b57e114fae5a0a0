//! Calls and subscriptions over WebSocket, split into frames as recorded.

use super::*;
use crate::wbft::Client;
use std::net::{TcpListener, TcpStream};

/// Accepts one connection, agrees to WebSocket as the recorded node does, and hands over to `script`.
fn serve(script: impl FnOnce(TcpStream) + Send + 'static) -> (Endpoint, JoinHandle<()>) {
    serve_raw(|mut stream| {
        let key = read_handshake(&mut stream);
        // The same computation as the client's, which `the_recorded_handshake` checks on its own.
        let accept = crate::wbft::ws::accept(&key);
        write(
            &mut stream,
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            ),
        );
        script(stream);
    })
}

fn serve_raw(script: impl FnOnce(TcpStream) + Send + 'static) -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    (endpoint, std::thread::spawn(move || script(listener.accept().unwrap().0)))
}

fn read_handshake(stream: &mut TcpStream) -> String {
    let mut key = String::new();
    assert_eq!(read_line(stream).unwrap(), "GET / HTTP/1.1\r");
    loop {
        let line = read_line(stream).unwrap();
        assert!(!line.to_lowercase().starts_with("origin"), "nodes refuse a foreign origin");
        match line.trim_end().split_once(": ") {
            Some(("Sec-WebSocket-Key", value)) => key = value.to_owned(),
            Some(_) => {}
            None => return key,
        }
    }
}

/// Reads one frame of a client: opcode and unmasked payload.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0x80), "whole and masked");
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        127 => panic!("no request is that long"),
        n => usize::from(n),
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).unwrap();
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    (head[0] & 0x0f, payload)
}

fn read_text(stream: &mut TcpStream) -> Value {
    let (opcode, payload) = read_frame(stream);
    assert_eq!(opcode, 1);
    serde_json::from_slice(&payload).unwrap()
}

/// A frame of a server, with the shortest form of its length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(n as u8),
        n @ 126..=0xffff => {
            frame.push(126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A message split into frames as the recorded node does it, depending on its size.
fn frames(message: &str) -> Vec<u8> {
    let bytes = message.as_bytes();
    match bytes.len() {
        0..=1024 => frame(0x81, bytes),
        1025..=2048 => [frame(0x01, &bytes[..1024]), frame(0x80, &bytes[1024..])].concat(),
        _ => [frame(0x01, bytes), frame(0x80, b"")].concat(),
    }
}

#[test]
fn the_recorded_handshake() {
    assert_eq!(crate::wbft::ws::accept("Zml4dHVyZS13cy1rZXktMA=="), "CG4DcB4IWBt64nGjXGCg0tOCiYg=");
}

#[test]
fn a_login_in_the_url_goes_into_its_header() {
    let (endpoint, thread) = serve_raw(|mut stream| {
        let lines = std::iter::from_fn(|| read_line(&mut stream)).take_while(|line| line != "\r");
        let lines: Vec<String> = lines.collect();
        assert!(lines.contains(&"Authorization: Basic dTpwQHNz\r".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("u:p")), "{lines:?}");
    });
    let endpoint: Endpoint = endpoint.to_string().replace("//", "//u:p%40ss@").parse().unwrap();
    Connection::new(&endpoint, PATIENT).call("eth_chainId", json!([])).unwrap_err();
    thread.join().unwrap();
}

#[test]
fn answers_of_every_size_come_whole_however_they_are_split() {
    const SIZES: [usize; 6] = [1, 60, 900, 1500, 3000, 70_000];
    let (endpoint, thread) = serve(|mut stream| {
        for size in SIZES {
            let request = read_text(&mut stream);
            let reply = result(&request["id"], &json!("x".repeat(size))) + "\n";
            // A ping may come anywhere, also between the fragments of a message.
            write(&mut stream, frame(0x89, b"hi"));
            for byte in frames(&reply).chunks(700) {
                write(&mut stream, byte);
            }
            assert_eq!(read_frame(&mut stream), (10, b"hi".to_vec()));
        }
        drain(stream);
    });
    let mut node = Connection::new(&endpoint, PATIENT);
    for size in SIZES {
        let params = json!([size.to_string().repeat(60)]);
        assert_eq!(node.call_large("m", params).unwrap(), "x".repeat(size));
    }
    drop(node);
    thread.join().unwrap();
}

#[test]
fn a_ping_between_fragments_is_answered_and_the_message_goes_on() {
    let (endpoint, thread) = serve(|mut stream| {
        let request = read_text(&mut stream);
        let reply = result(&request["id"], &json!(1));
        let (a, b) = reply.as_bytes().split_at(9);
        write(&mut stream, [frame(0x01, a), frame(0x89, b""), frame(0x8a, b""), frame(0x80, b)].concat());
        assert_eq!(read_frame(&mut stream), (10, Vec::new()));
        drain(stream);
    });
    let mut node = Connection::new(&endpoint, PATIENT);
    assert_eq!(node.call("m", json!([])).unwrap(), 1);
    drop(node);
    thread.join().unwrap();
}

#[test]
fn frames_that_break_the_protocol_are_nonsense() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (frame(0x80, b"{}"), "out of place"),
        ([frame(0x01, b"{"), frame(0x81, b"}")].concat(), "out of place"),
        (frame(0x83, b""), "out of place"),
        (frame(0xc1, b"{}"), "extension"),
        (vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}'], "masked"),
        (frame(0x89, &[0; 126]), "control frame"),
        (frame(0x09, b""), "control frame"),
        ([vec![0x81, 127], u64::MAX.to_be_bytes().to_vec()].concat(), "more than 65536"),
        ([frame(0x01, &[b' '; 40_000]), frame(0x00, &[b' '; 40_000])].concat(), "more than 65536"),
        (frame(0x81, b"hello"), "no JSON object"),
    ];
    for (bytes, why) in cases {
        let (endpoint, thread) = serve(move |mut stream| {
            read_text(&mut stream);
            write(&mut stream, bytes);
            drain(stream);
        });
        match fault(Connection::new(&endpoint, PATIENT).call("m", json!([]))) {
            Fault::Nonsense(what) => assert!(what.contains(why), "{why}: {what}"),
            other => panic!("{why}: {other}"),
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_close_is_answered_and_means_unreachable() {
    let (endpoint, thread) = serve(|mut stream| {
        read_text(&mut stream);
        write(&mut stream, frame(0x88, &1001u16.to_be_bytes()));
        assert_eq!(read_frame(&mut stream), (8, 1001u16.to_be_bytes().to_vec()));
    });
    match fault(Connection::new(&endpoint, PATIENT).call("m", json!([]))) {
        Fault::Unreachable(why) => assert!(why.contains("code 1001"), "{why}"),
        other => panic!("{other}"),
    }
    thread.join().unwrap();
}

#[test]
fn who_does_not_agree_to_websocket_is_told() {
    for (answer, why) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nForbidden\n".to_owned(), "403 Forbidden"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n".to_owned(),
            "another WebSocket request",
        ),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), "another WebSocket request"),
        ("x".repeat(20_000), "endless"),
    ] {
        let (endpoint, thread) = serve_raw(move |mut stream| {
            read_handshake(&mut stream);
            write(&mut stream, answer);
            drain(stream);
        });
        match fault(Connection::new(&endpoint, PATIENT).call("m", json!([]))) {
            Fault::Nonsense(what) => assert!(what.contains(why), "{why}: {what}"),
            other => panic!("{why}: {other}"),
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_server_that_says_nothing_is_a_timeout() {
    let (endpoint, thread) = serve_raw(drain);
    assert_eq!(fault(Connection::new(&endpoint, HASTY).call("m", json!([]))), Fault::Timeout(HASTY.timeout));
    // On a slow machine the time may be over before the connection is made, and the server waits for it.
    drop(TcpStream::connect(endpoint.to_string().trim_start_matches("ws://")));
    thread.join().unwrap();
}

#[test]
fn heads_come_over_websocket_too_and_the_wait_can_be_ended() {
    let (endpoint, thread) = serve(|mut stream| {
        let request = read_text(&mut stream);
        assert_eq!(request["params"], json!(["newHeads"]));
        for line in recording("newheads-ipc.jsonl") {
            if line["dir"] == "recv" {
                write(&mut stream, frames(&format!("{}\n", line["line"].as_str().unwrap())));
            }
        }
        drain(stream);
    });
    let mut heads = Client::new(&endpoint, PATIENT).subscribe_heads().unwrap();
    for number in 4..8 {
        assert_eq!(heads.next(None).unwrap().unwrap().number, number);
    }
    let stopper = heads.stopper();
    let waiting = std::thread::spawn(move || heads.next(None));
    stopper.stop();
    assert_eq!(fault(waiting.join().unwrap()), Fault::Stopped);
    thread.join().unwrap();
}
