//! RPC over HTTP/1.1, with the recorded status codes: what is refused before anything is parsed, and how replies look.
//!
//! Keep-alive, `Content-Length` requests, chunked replies when they are long (as Go's server does), gzip when asked for.

use super::args::Endpoint;
use super::door::{Door, Server};
use super::node::Node;
use super::options::Rpc;
use super::rpc::{Answer, Failure, Session, failure};
use flate2::{Compression, write::GzEncoder};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

const BODY_LIMIT: usize = 5 << 20;
/// Replies up to this size carry their length, longer ones are chunked.
const UNCHUNKED: usize = 2048;
const JSON: &str = "application/json";

/// Binds the endpoint; the second value is the port it got.
pub(crate) fn open(node: &Arc<Node>, at: &Endpoint) -> std::io::Result<(Server, u16)> {
    let listener = TcpListener::bind((at.addr.as_str(), at.port))?;
    let address = listener.local_addr()?;
    let door = Arc::<Door>::default();
    let (accepting, node, modules) = (door.clone(), node.clone(), at.api.clone());
    let accept = move || {
        while let Ok((stream, _)) = listener.accept() {
            if accepting.is_closing() {
                return;
            }
            let session = Session::http(node.clone(), modules.clone());
            let door = accepting.clone();
            std::thread::spawn(move || serve(&session, &door, stream));
        }
    };
    let server =
        Server::new(address.to_string(), door, accept, move || drop(TcpStream::connect(address)), || {});
    Ok((server, address.port()))
}

/// A request without its body.
pub(crate) struct Head {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value, whatever the case of its name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A reply without the headers that each one has.
struct Reply {
    status: &'static str,
    kind: Option<&'static str>,
    body: Vec<u8>,
}

impl Reply {
    fn json(body: impl Into<Vec<u8>>) -> Reply {
        Reply { status: "200 OK", kind: Some(JSON), body: body.into() }
    }

    fn refusal(status: &'static str, text: &str) -> Reply {
        Reply { status, kind: Some("text/plain; charset=utf-8"), body: format!("{text}\n").into_bytes() }
    }
}

fn serve(session: &Session, door: &Arc<Door>, stream: TcpStream) {
    let (Ok(cut), Ok(mut out)) = (stream.try_clone(), stream.try_clone()) else { return };
    let Some(_entry) = door.enter(Box::new(move || drop(cut.shutdown(Shutdown::Both)))) else { return };
    let _ = out.set_nodelay(true);
    let mut input = BufReader::new(stream);
    while let Some(head) = read_head(&mut input) {
        let length = head.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (reply, ends) = match refuse(&head, length) {
            // The body of a refused request is not read, so the connection cannot go on.
            Some(reply) => (reply, length > 0),
            None => {
                let mut body = vec![0; length];
                if input.read_exact(&mut body).is_err() {
                    break;
                }
                match answer(session, &body) {
                    Some(reply) => (reply, false),
                    None if session.node.options().rpc == Rpc::Hang => {
                        // Nothing comes, and the connection stays until the other side or the node gives up.
                        let _ = input.read(&mut [0]);
                        break;
                    }
                    None => break,
                }
            }
        };
        let ends = ends || head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if send(&mut out, &head, reply, ends).is_err() || ends {
            break;
        }
    }
    let _ = out.shutdown(Shutdown::Both);
}

/// Whatever is refused by its headers, in the order in which the real node looks at them.
fn refuse(head: &Head, length: usize) -> Option<Reply> {
    let (path, query) = head.path.split_once('?').map_or((head.path.as_str(), None), |(p, q)| (p, Some(q)));
    if path != "/" {
        return Some(Reply { status: "404 Not Found", kind: None, body: Vec::new() });
    }
    let host = head.get("host").unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if !name.is_empty() && name != "localhost" && name.parse::<IpAddr>().is_err() {
        return Some(Reply::refusal("403 Forbidden", "invalid host specified"));
    }
    if head.method == "PUT" || head.method == "DELETE" {
        return Some(Reply::refusal("405 Method Not Allowed", "method not allowed"));
    }
    if head.method == "GET" && length == 0 && query.is_none() {
        return Some(Reply { status: "200 OK", kind: None, body: Vec::new() });
    }
    if length > BODY_LIMIT {
        let text = format!("content length too large ({length}>{BODY_LIMIT})");
        return Some(Reply::refusal("413 Request Entity Too Large", &text));
    }
    if head.method == "OPTIONS" {
        return Some(Reply::json(""));
    }
    let kind = head.get("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if ![JSON, "application/json-rpc", "application/jsonrequest"].contains(&kind) {
        let text = "invalid content type, only application/json is supported";
        return Some(Reply::refusal("415 Unsupported Media Type", text));
    }
    None
}

/// The reply to a body; `None` if the node will not say anything.
fn answer(session: &Session, body: &[u8]) -> Option<Reply> {
    if body.is_empty() {
        return Some(Reply::json(""));
    }
    let Ok(request) = serde_json::from_slice(body) else {
        // Recorded without the newline that other replies end with.
        return Some(Reply::json(failure("null", &Failure { code: -32700, message: "parse error".into() })));
    };
    match session.answer(&request) {
        Answer::Bare(text) => Some(Reply::json(text)),
        Answer::Text(text) => Some(Reply::json(format!("{text}\n"))),
        Answer::Silence if session.node.options().rpc == Rpc::Hang => None,
        Answer::Silence => Some(Reply::json("")),
        Answer::Close => None,
    }
}

/// Reads request line and headers; `None` at the end of the connection or when it makes no sense.
pub(crate) fn read_head(input: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        let read = input.by_ref().take(64 << 10).read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let request = next()?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = next()?;
        if line.is_empty() {
            return Some(Head { method, path, headers });
        }
        let (key, value) = line.split_once(':')?;
        headers.push((key.trim().to_owned(), value.trim().to_owned()));
    }
}

fn send(out: &mut TcpStream, head: &Head, reply: Reply, ends: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {}\r\n", reply.status);
    if let Some(kind) = reply.kind {
        text += &format!("Content-Type: {kind}\r\n");
        if kind != JSON {
            text += "X-Content-Type-Options: nosniff\r\n";
        }
    }
    if ends {
        text += "Connection: close\r\n";
    }
    let zipped =
        reply.kind == Some(JSON) && head.get("accept-encoding").is_some_and(|list| list.contains("gzip"));
    let body = if zipped && !reply.body.is_empty() {
        text += "Content-Encoding: gzip\r\n";
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&reply.body)?;
        gzip.finish()?
    } else {
        reply.body
    };
    if head.method == "HEAD" || body.len() <= UNCHUNKED {
        text += &format!("Content-Length: {}\r\n\r\n", body.len());
        let shown: &[u8] = if head.method == "HEAD" { &[] } else { &body };
        return out.write_all(&[text.as_bytes(), shown].concat());
    }
    text += "Transfer-Encoding: chunked\r\n\r\n";
    out.write_all(text.as_bytes())?;
    for chunk in body.chunks(32 << 10) {
        out.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())?;
    }
    out.write_all(b"0\r\n\r\n")
}
