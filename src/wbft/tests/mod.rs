//! The transports against servers on threads of the test, which replay what real nodes have sent.

mod chain;
mod http;
mod ipc;
mod recorded;

use super::{Connection, Endpoint, Fault, Options, RpcError};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a loaded machine, and never waited for by a test that passes.
const PATIENT: Options =
    Options { timeout: Duration::from_secs(20), max_body: 64 << 10, max_large_body: 512 << 10 };

/// For tests in which the time must run out.
const HASTY: Options =
    Options { timeout: Duration::from_millis(50), max_body: 64 << 10, max_large_body: 512 << 10 };

/// A file of recordings, one JSON value per line.
fn recording(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wbft").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A unix socket in a directory of its own, and the thread that serves it.
struct IpcServer {
    dir: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl IpcServer {
    /// Serves as many connections as there are elements in `scripts`, one after the other.
    fn start<S: FnOnce(UnixStream) + Send + 'static>(scripts: Vec<S>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("node.ipc")).unwrap();
        let thread = std::thread::spawn(move || {
            for script in scripts {
                script(listener.accept().unwrap().0);
            }
        });
        IpcServer { dir, thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("node.ipc")
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Ipc(self.path())
    }

    fn connect(&self, options: &Options) -> Connection {
        Connection::new(&self.endpoint(), options.clone())
    }

    /// Waits for the script to end and passes on its panic.
    fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads one line, byte by byte so that nothing behind it is taken.
fn read_line(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).ok()? == 1 {
        if byte[0] == b'\n' {
            return Some(String::from_utf8(line).unwrap());
        }
        line.push(byte[0]);
    }
    None
}

fn read_request(stream: &mut impl Read) -> Value {
    serde_json::from_str(&read_line(stream).expect("a request")).unwrap()
}

fn result(id: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn fault<T: std::fmt::Debug>(result: Result<T, RpcError>) -> Fault {
    result.unwrap_err().fault
}

/// Whether the node could not be reached or was too slow.
fn is_unreachable(err: &RpcError) -> bool {
    matches!(err.fault, Fault::Unreachable(_) | Fault::Timeout(_))
}

/// Waits until the peer closes its end.
fn drain(mut stream: impl Read) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Writes to a peer that may have hung up on us already.
fn write(stream: &mut impl Write, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref());
}
