//! JSON messages over a unix socket, as geth-like nodes serve them. Every operation has a deadline, and another thread
//! can end the connection.
//!
//! Messages go out with a newline and come in with or without one; see [`super::json`]. Deadlines are the socket's own
//! receive and send timeouts, so a blocked read costs no wakeup.

use super::fault::Fault;
use super::json::Scan;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to a node's IPC socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
    /// The bytes read that belong to no message returned yet.
    inbox: Vec<u8>,
    scan: Scan,
}

impl Socket {
    /// Connects without waiting: a node whose queue of connections is full is unreachable.
    pub(super) fn connect(path: &Path) -> Result<Self, Fault> {
        let open = || -> io::Result<UnixStream> {
            // A blocking connect would wait without limit for a node that hangs and accepts nothing.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&fd, &SocketAddrUnix::new(path)?)?;
            let stream = UnixStream::from(fd);
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        match open() {
            Ok(stream) => Ok(Socket { stream, inbox: Vec::new(), scan: Scan::default() }),
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                Err(Fault::Unreachable("connect: the node accepts no connections".to_owned()))
            }
            Err(err) => Err(Fault::io("connect", &err)),
        }
    }

    /// A second handle on the same connection.
    pub(super) fn handle(&self) -> io::Result<Handle> {
        self.stream.try_clone().map(Handle)
    }

    /// The next message, or `None` if no whole one came before the deadline.
    pub(super) fn receive(
        &mut self,
        deadline: Option<Instant>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            let end = self.scan.end(&self.inbox)?;
            if end.unwrap_or(self.inbox.len()) > limit {
                return Err(Fault::Nonsense(format!("a message of more than {limit} bytes")));
            }
            if let Some(end) = end {
                self.scan = Scan::default();
                let rest = self.inbox.split_off(end);
                return Ok(Some(std::mem::replace(&mut self.inbox, rest)));
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Appends the bytes that come to the inbox; `false` if none come before the deadline.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, Fault> {
        let mut buf = [0; 8192];
        loop {
            let Some(left) = left(deadline) else { return Ok(false) };
            match self.stream.set_read_timeout(left).and_then(|()| self.stream.read(&mut buf)) {
                Ok(0) => return Err(Fault::Unreachable("the node closed the connection".to_owned())),
                Ok(n) => {
                    self.inbox.extend_from_slice(&buf[..n]);
                    return Ok(true);
                }
                Err(e) if is_retry(&e) => {}
                Err(e) => return Err(Fault::io("read", &e)),
            }
        }
    }

    /// Sends one message; `false` if that took beyond the deadline.
    pub(super) fn send(&mut self, message: &str, deadline: Instant) -> Result<bool, Fault> {
        let line = format!("{message}\n");
        let mut bytes = line.as_bytes();
        while !bytes.is_empty() {
            let Some(left) = left(Some(deadline)) else { return Ok(false) };
            match self.stream.set_write_timeout(left).and_then(|()| self.stream.write(bytes)) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if is_retry(&e) => {}
                Err(e) => return Err(Fault::io("write", &e)),
            }
        }
        Ok(true)
    }
}

/// The time until the deadline; `None` if it has passed. Without a deadline, no limit.
fn left(deadline: Option<Instant>) -> Option<Option<Duration>> {
    match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
        Some(Duration::ZERO) => None,
        other => Some(other),
    }
}

/// Whether the loop around the operation decides: a timeout of the socket, or a signal.
fn is_retry(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Ends a connection from another thread.
#[derive(Debug)]
pub(super) struct Handle(UnixStream);

impl Handle {
    /// Makes a blocked read return at once, and every later operation fail.
    pub(super) fn shut(&self) {
        // Fails only where the peer has closed it first, which has the same effect.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
