//! RPC over a unix socket: requests one after the other without any need of a separator, each reply on a line.
//!
//! Replies come in any order: when several requests arrive together the last is answered first, so that a client that
//! relies on order fails at once and not once a month. Malformed JSON is answered and ends the connection.

use super::door::{Door, Server};
use super::node::Node;
use super::rpc::{Answer, Failure, Session, failure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Binds the socket at `path`, replacing one that a killed node left behind.
pub(crate) fn open(node: &Arc<Node>, path: &Path) -> std::io::Result<Server> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    let door = Arc::<Door>::default();
    let (accepting, node) = (door.clone(), node.clone());
    let accept = move || {
        while let Ok((stream, _)) = listener.accept() {
            if accepting.is_closing() {
                return;
            }
            let (node, door) = (node.clone(), accepting.clone());
            std::thread::spawn(move || serve(node, &door, stream));
        }
    };
    let (wake, gone) = (path.to_owned(), path.to_owned());
    let endpoint = path.display().to_string();
    let wake = move || drop(UnixStream::connect(&wake));
    Ok(Server::new(endpoint, door, accept, wake, move || drop(std::fs::remove_file(gone))))
}

fn serve(node: Arc<Node>, door: &Arc<Door>, mut stream: UnixStream) {
    let (Ok(cut), Ok(out)) = (stream.try_clone(), stream.try_clone()) else { return };
    let Some(_entry) = door.enter(Box::new(move || drop(cut.shutdown(Shutdown::Both)))) else { return };
    let out = Mutex::new(out);
    let write: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(move |text: &str| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(format!("{text}\n").as_bytes()).is_ok()
    });
    let session = Session::stream(node, Vec::new(), write.clone());
    let mut buffer = Vec::new();
    let mut chunk = [0; 16 << 10];
    'connection: while let Ok(length @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..length]);
        let (requests, malformed) = take(&mut buffer);
        for request in requests.iter().rev() {
            match session.answer(request) {
                Answer::Silence => {}
                Answer::Close => break 'connection,
                Answer::Text(text) | Answer::Bare(text) => {
                    if !write(&text) {
                        break 'connection;
                    }
                    session.start_notifications();
                }
            }
        }
        if let Some(message) = malformed {
            write(&failure("null", &Failure { code: -32700, message }));
            break;
        }
    }
    session.end();
    let _ = stream.shutdown(Shutdown::Both);
}

/// Takes every complete JSON value out of `buffer`, and says what is wrong with the rest if it can never become one.
fn take(buffer: &mut Vec<u8>) -> (Vec<Value>, Option<String>) {
    let mut values = Vec::new();
    let mut stream = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let mut malformed = None;
    let mut used = 0;
    for value in &mut stream {
        match value {
            Ok(value) => values.push(value),
            Err(err) if err.is_eof() => break,
            Err(err) => {
                let line =
                    buffer[used..].split(|byte| *byte == b'\n').nth(err.line() - 1).unwrap_or_default();
                let wrong = line.get(err.column() - 1).copied().unwrap_or(b'?') as char;
                malformed = Some(format!("invalid character '{wrong}' looking for beginning of value"));
                break;
            }
        }
    }
    used += stream.byte_offset();
    buffer.drain(..used);
    (values, malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (usize, Option<String>, String) {
        let mut buffer = text.as_bytes().to_vec();
        let (values, malformed) = take(&mut buffer);
        (values.len(), malformed, String::from_utf8(buffer).unwrap())
    }

    #[test]
    fn requests_need_no_separator_and_may_come_in_pieces() {
        assert_eq!(taken(r#"{"a":1}{"b":2}"#), (2, None, String::new()));
        assert_eq!(taken(r#"{"a":1} {"b":"#), (1, None, r#"{"b":"#.into()));
        assert_eq!(taken("\n"), (0, None, String::new()));
    }

    #[test]
    fn malformed_json_is_named_as_recorded() {
        let (_, malformed, _) = taken("hello\n");
        assert_eq!(malformed.unwrap(), "invalid character 'h' looking for beginning of value");
        let (_, malformed, _) = taken(r#"{"params":[}"#);
        assert_eq!(malformed.unwrap(), "invalid character '}' looking for beginning of value");
    }
}
