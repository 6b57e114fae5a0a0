//! A small WebSocket client ([RFC 6455]): text messages both ways, and nothing else.
//!
//! Our own because a library for it costs four times as much of the binary. No extensions, no
//! sub-protocols, no `Origin` (nodes refuse a foreign one), and no TLS: a node that is reached over a
//! network is polled over HTTPS.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

use super::fault::{Fault, excerpt};
use super::session::Wire;
use super::sha1::sha1;
use super::socket::{Handle, Socket};
use crate::url::{NO_TLS, split_login};
use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// The largest head of the server's answer to our request to upgrade.
const MAX_HEAD: usize = 8 << 10;
/// The suffix that both sides append to the key before hashing it (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The time to answer a ping or a close: the peer is reading, or it is gone.
const ANSWER: Duration = Duration::from_secs(2);

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    socket: Socket,
    /// The fragments of the message under way.
    message: Option<Vec<u8>>,
}

/// One frame as it came.
struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

impl WebSocket {
    pub(super) fn connect(url: &str, timeout: Duration) -> Result<Self, Fault> {
        let deadline = Instant::now() + timeout;
        let (url, login) = split_login(url);
        let uri: Uri = url.parse().map_err(|e| Fault::Unreachable(format!("{url}: {e}")))?;
        if uri.scheme_str() != Some("ws") {
            return Err(Fault::Unsupported(NO_TLS));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let mut socket = Socket::tcp(host.trim_matches(['[', ']']), port, timeout)?;
        let nonce = [random().to_le_bytes(), random().to_le_bytes()].concat();
        let key = BASE64.encode(nonce);
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let login = login.map_or_else(String::new, |login| format!("Authorization: {login}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{login}\r\n"
        );
        let late = || Fault::Timeout(timeout);
        if !socket.send(request.as_bytes(), deadline)? {
            return Err(late());
        }
        let end = loop {
            if let Some(at) = socket.inbox.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.inbox.len() > MAX_HEAD {
                return Err(Fault::nonsense("an endless answer to the request to upgrade"));
            }
            if !socket.fill(Some(deadline))? {
                return Err(late());
            }
        };
        check_upgrade(&socket.take(end), &key)?;
        Ok(WebSocket { socket, message: None })
    }

    /// The next frame, or `None` if it is not all there at the deadline.
    fn frame(&mut self, deadline: Option<Instant>, limit: usize) -> Result<Option<Frame>, Fault> {
        loop {
            if let Some((header, length)) = frame_size(&self.socket.inbox, limit)?
                && self.socket.inbox.len() >= header + length
            {
                let mut frame = self.socket.take(header + length);
                let payload = frame.split_off(header);
                return Ok(Some(Frame { last: frame[0] & 0x80 != 0, opcode: frame[0] & 0x0f, payload }));
            }
            if !self.socket.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8], deadline: Instant) -> Result<bool, Fault> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            n @ 0..126 => frame.push(0x80 | n as u8),
            n @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        // The mask defends caches on the way against scripts in browsers; nothing here is secret.
        let mask = random().to_le_bytes();
        frame.extend(&mask[..4]);
        frame.extend(payload.iter().zip(mask[..4].iter().cycle()).map(|(b, m)| b ^ m));
        self.socket.send(&frame, deadline)
    }
}

impl Wire for WebSocket {
    fn send(&mut self, message: &[u8], deadline: Instant) -> Result<bool, Fault> {
        self.send_frame(opcode::TEXT, message, deadline)
    }

    fn receive(&mut self, deadline: Option<Instant>, limit: usize) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            let Some(frame) = self.frame(deadline, limit)? else { return Ok(None) };
            match (frame.opcode, self.message.take()) {
                (opcode::TEXT | opcode::BINARY, None) => self.message = Some(frame.payload),
                (opcode::CONTINUATION, Some(mut message)) => {
                    message.extend(frame.payload);
                    self.message = Some(message);
                }
                (opcode::PING, unfinished) => {
                    self.message = unfinished;
                    self.send_frame(opcode::PONG, &frame.payload, Instant::now() + ANSWER)?;
                    continue;
                }
                (opcode::PONG, unfinished) => {
                    self.message = unfinished;
                    continue;
                }
                (opcode::CLOSE, _) => {
                    let _ = self.send_frame(opcode::CLOSE, &frame.payload, Instant::now() + ANSWER);
                    let code = frame.payload.first_chunk().map(|c| u16::from_be_bytes(*c));
                    let code = code.map_or(String::new(), |c| format!(" with code {c}"));
                    return Err(Fault::Unreachable(format!("the node closed the WebSocket{code}")));
                }
                (other, _) => {
                    return Err(Fault::Nonsense(format!("a WebSocket frame out of place, opcode {other}")));
                }
            }
            let size = self.message.as_ref().map_or(0, Vec::len);
            if size > limit {
                return Err(Fault::Nonsense(format!("a message of more than {limit} bytes")));
            }
            if frame.last {
                return Ok(self.message.take());
            }
        }
    }

    fn handle(&self) -> io::Result<Handle> {
        self.socket.handle()
    }
}

/// The sizes of header and payload of the frame that `bytes` begin with, once enough of it is there.
fn frame_size(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, Fault> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Fault::nonsense("a WebSocket frame of an extension"));
    }
    if second & 0x80 != 0 {
        return Err(Fault::nonsense("a masked WebSocket frame from a server"));
    }
    let control = first & 0x08 != 0;
    let (header, length) = match second & 0x7f {
        126 => match rest.first_chunk() {
            Some(n) => (4, u64::from(u16::from_be_bytes(*n))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(n) => (10, u64::from_be_bytes(*n)),
            None => return Ok(None),
        },
        n => (2, u64::from(n)),
    };
    if control && (length > 125 || first & 0x80 == 0) {
        return Err(Fault::nonsense("a WebSocket control frame that is long or in parts"));
    }
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(Some((header, length))),
        _ => Err(Fault::Nonsense(format!("a WebSocket frame of more than {limit} bytes"))),
    }
}

/// Checks that the server agreed to speak WebSocket, and to us.
fn check_upgrade(head: &[u8], key: &str) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(Fault::Nonsense(format!("no WebSocket: {}", excerpt(status.as_bytes()))));
    }
    let wanted = accept(key);
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == wanted);
    if accepted { Ok(()) } else { Err(Fault::nonsense("an answer to another WebSocket request")) }
}

/// The `Sec-WebSocket-Accept` of a server for the client with this key.
pub(super) fn accept(key: &str) -> String {
    BASE64.encode(sha1(format!("{key}{GUID}").as_bytes()))
}

/// Numbers that differ from call to call and from process to process, which is all that is needed here.
fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}
