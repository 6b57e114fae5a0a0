//! HTTP endpoints of a test's own: one that stays while nodes come and go behind it, and one that answers what it likes.
//!
//! Both listen on a free port of the loopback and end when dropped.

use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A listening address.
pub(crate) struct Door {
    port: u16,
    closed: Arc<AtomicBool>,
}

impl Door {
    /// Passes every connection on to the port that stands in a file at that moment.
    pub(crate) fn to_port_in(file: PathBuf) -> Door {
        Door::open(move |stream| {
            let port = fs::read_to_string(&file)?;
            let node = TcpStream::connect(("127.0.0.1", port.trim().parse().map_err(io::Error::other)?))?;
            let (mut from, mut to) = (stream.try_clone()?, node.try_clone()?);
            let upwards = std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let (mut from, mut to) = (node, stream);
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = upwards.join();
            Ok(())
        })
    }

    /// Answers the n-th question for the head with what `answer` says; every other question with an error.
    pub(crate) fn answering(answer: impl Fn(usize) -> Value + Send + Sync + 'static) -> Door {
        let count = AtomicUsize::new(0);
        Door::open(move |mut stream| {
            let request = read_request(&stream)?;
            let call = request.as_array().map_or(&request, |batch| &batch[0]);
            let is_head = call["params"][0] == "latest";
            let reply = if is_head {
                let result = answer(count.fetch_add(1, Ordering::SeqCst));
                json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
            } else {
                let error = json!({"code": -32601, "message": "not served here"});
                json!({"jsonrpc": "2.0", "id": call["id"], "error": error})
            };
            let reply = if request.is_array() { json!([reply]) } else { reply }.to_string();
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
            stream.write_all(format!("{head} {}\r\n\r\n{reply}", reply.len()).as_bytes())
        })
    }

    fn open(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = Arc::new(AtomicBool::new(false));
        let (serve, is_closed) = (Arc::new(serve), Arc::clone(&closed));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_closed.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                // A peer that has gone is what these tests are about.
                std::thread::spawn(move || serve(stream).ok());
            }
        });
        Door { port, closed }
    }

    /// Its `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A header of this height, as a node gives it.
pub(crate) fn header(height: u64) -> Value {
    json!({
        "number": format!("{height:#x}"),
        "hash": format!("0x{height:064x}"),
        "parentHash": format!("0x{:064x}", height.saturating_sub(1)),
        "timestamp": format!("{:#x}", 1_700_000_000_u64.saturating_add(height)),
        "miner": format!("0x{:040x}", 1),
        "extraData": "0x",
    })
}

fn read_request(stream: &TcpStream) -> io::Result<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}
