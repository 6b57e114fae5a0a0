//! RPC over WebSocket (RFC 6455), splitting long messages into frames exactly as recorded.
//!
//! A message ends with a newline. Up to 1024 bytes it is one frame; up to 2048 it is split after 1024; a longer one is a
//! frame that is not final, followed by an empty one that is. A quiet client is pinged after 30 seconds.

use super::args::Endpoint;
use super::door::{Door, Server};
use super::http::{Head, read_head};
use super::node::Node;
use super::rpc::{Answer, Failure, Session, failure};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(30);
const MESSAGE_LIMIT: u64 = 32 << 20;
const BUFFER: usize = 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

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
            let (node, modules, door) = (node.clone(), modules.clone(), accepting.clone());
            std::thread::spawn(move || serve(node, modules, &door, stream));
        }
    };
    let server = Server::new(
        format!("ws://{address}"),
        door,
        accept,
        move || drop(TcpStream::connect(address)),
        || {},
    );
    Ok((server, address.port()))
}

fn serve(node: Arc<Node>, modules: Vec<String>, door: &Arc<Door>, stream: TcpStream) {
    let (Ok(cut), Ok(mut out)) = (stream.try_clone(), stream.try_clone()) else { return };
    let Some(_entry) = door.enter(Box::new(move || drop(cut.shutdown(Shutdown::Both)))) else { return };
    let mut input = BufReader::new(stream);
    let Some(head) = read_head(&mut input) else { return };
    if !greet(&mut out, &head) {
        return;
    }
    let out = Arc::new(Mutex::new(out));
    let writer = out.clone();
    let write: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(move |text: &str| {
        let mut out = writer.lock().unwrap_or_else(PoisonError::into_inner);
        send_message(&mut *out, format!("{text}\n").as_bytes()).is_ok()
    });
    let control = |opcode: u8, payload: &[u8]| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        send_frame(&mut *out, true, opcode, payload).is_ok()
    };
    let session = Session::stream(node, modules, write.clone());
    let _ = input.get_ref().set_read_timeout(Some(QUIET));
    let mut message = Vec::new();
    loop {
        let alive = match read_frame(&mut input) {
            Ok(Frame { opcode: PING, payload, .. }) => control(PONG, &payload),
            Ok(Frame { opcode: PONG, .. }) => true,
            Ok(Frame { opcode: TEXT | CONTINUATION, last, payload }) => {
                message.extend(payload);
                !last || answer(&session, &std::mem::take(&mut message), &*write)
            }
            Ok(Frame { opcode: CLOSE, payload, .. }) => {
                control(CLOSE, &payload);
                false
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => control(PING, &[]),
            Ok(_) | Err(_) => false,
        };
        if !alive {
            break;
        }
    }
    session.end();
    let _ = input.get_ref().shutdown(Shutdown::Both);
}

fn answer(session: &Session, message: &[u8], write: &dyn Fn(&str) -> bool) -> bool {
    let Ok(request) = serde_json::from_slice(message) else {
        write(&failure("null", &Failure { code: -32700, message: "parse error".into() }));
        return false;
    };
    match session.answer(&request) {
        Answer::Silence => true,
        Answer::Close => false,
        Answer::Text(text) | Answer::Bare(text) => {
            let sent = write(&text);
            session.start_notifications();
            sent
        }
    }
}

/// The handshake; false if there is to be no conversation.
fn greet(out: &mut TcpStream, head: &Head) -> bool {
    if head.get("origin").is_some() {
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n\
                       Sec-Websocket-Version: 13\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 10\r\n\r\nForbidden\n";
        let _ = out.write_all(refusal.as_bytes());
        return false;
    }
    let Some(key) = head.get("sec-websocket-key") else {
        let _ = out.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return false;
    };
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    out.write_all(reply.as_bytes()).is_ok()
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

/// Reads one frame, which a client must have masked. Silence before it is `WouldBlock`.
fn read_frame(input: &mut impl Read) -> std::io::Result<Frame> {
    let broken = || std::io::Error::from(ErrorKind::InvalidData);
    let mut first = [0];
    input.read_exact(&mut first)?;
    let mut rest = |length: usize| {
        let mut bytes = vec![0; length];
        // Silence in the middle of a frame is no reason to wait any longer.
        input.read_exact(&mut bytes).map_err(|_| broken()).map(|()| bytes)
    };
    let second = rest(1)?[0];
    let length = match second & 0x7f {
        126 => rest(2)?.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte)),
        127 => rest(8)?.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte)),
        short => u64::from(short),
    };
    if second & 0x80 == 0 || length > MESSAGE_LIMIT {
        return Err(broken());
    }
    let mask = rest(4)?;
    let mut payload = rest(length as usize)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(Frame { last: first[0] & 0x80 != 0, opcode: first[0] & 0x0f, payload })
}

fn send_message(out: &mut impl Write, message: &[u8]) -> std::io::Result<()> {
    let split = match message.len() {
        0..=BUFFER => return send_frame(out, true, TEXT, message),
        length if length <= 2 * BUFFER => BUFFER,
        length => length,
    };
    send_frame(out, false, TEXT, &message[..split])?;
    send_frame(out, true, CONTINUATION, &message[split..])
}

fn send_frame(out: &mut impl Write, last: bool, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![u8::from(last) << 7 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    out.write_all(&frame)
}

/// SHA-1, which the handshake wants and nothing else.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).div_ceil(64) * 64 - 8, 0);
    padded.extend((data.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks_exact(64) {
        let mut words: Vec<u32> =
            block.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]])).collect();
        for i in 16..80 {
            words.push((words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.into_iter().enumerate() {
            let (mix, constant) = match i / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next =
                a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in data.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 0x3f) as usize] as char;
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_handshake_is_answered_as_recorded() {
        let key = "Zml4dHVyZS13cy1rZXktMA==258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        assert_eq!(base64(&sha1(key.as_bytes())), "CG4DcB4IWBt64nGjXGCg0tOCiYg=");
    }

    #[test]
    fn messages_are_framed_as_recorded() {
        let framed = |length: usize| {
            let mut out = Vec::new();
            send_message(&mut out, &vec![b'x'; length]).unwrap();
            // What is left without the payload are the headers.
            out.retain(|byte| *byte != b'x');
            out
        };
        assert_eq!(framed(40), [0x81, 40]);
        assert_eq!(framed(216), [0x81, 0x7e, 0, 0xd8]);
        assert_eq!(framed(1410), [0x01, 0x7e, 4, 0, 0x80, 0x7e, 0x01, 0x82]);
        assert_eq!(framed(2960), [0x01, 0x7e, 0x0b, 0x90, 0x80, 0]);
    }

    #[test]
    fn recorded_client_frames_are_read() {
        let ping = [0x89, 0x82, 0x11, 0x22, 0x33, 0x44, 0x79, 0x4b];
        let frame = read_frame(&mut ping.as_slice()).unwrap();
        assert_eq!((frame.opcode, frame.payload.as_slice(), frame.last), (PING, b"hi".as_slice(), true));
        let unmasked = [0x89, 0x02, b'h', b'i'];
        assert!(read_frame(&mut unmasked.as_slice()).is_err());
    }
}
