//! A connected stream socket whose every operation has a deadline, and which another thread can end.
//!
//! Deadlines are the socket's own receive and send timeouts, so a blocked read costs no wakeup.

use super::fault::Fault;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The socket and what has been read from it but not taken.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    pub(super) inbox: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects to a unix socket. Never waits: one whose queue of connections is full is unreachable.
    pub(super) fn unix(path: &Path) -> Result<Self, Fault> {
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
            Ok(stream) => Ok(Socket { stream: Stream::Unix(stream), inbox: Vec::new() }),
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                Err(Fault::Unreachable("connect: the node accepts no connections".to_owned()))
            }
            Err(err) => Err(Fault::io("connect", &err)),
        }
    }

    /// Connects to the first address of `host` that takes the connection. Looking up a name is left to the
    /// system, with the system's own limit of time.
    pub(super) fn tcp(host: &str, port: u16, timeout: Duration) -> Result<Self, Fault> {
        let mut last = Fault::Unreachable(format!("{host} has no address"));
        let deadline = Instant::now() + timeout;
        for address in (host, port).to_socket_addrs().map_err(|e| Fault::io("resolve", &e))? {
            let Some(Some(left)) = left(Some(deadline)) else { return Err(Fault::Timeout(timeout)) };
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    // Requests are small and each is written whole: waiting to fill a segment gains nothing.
                    stream.set_nodelay(true).map_err(|e| Fault::io("connect", &e))?;
                    return Ok(Socket { stream: Stream::Tcp(stream), inbox: Vec::new() });
                }
                Err(err) if err.kind() == ErrorKind::TimedOut => last = Fault::Timeout(timeout),
                Err(err) => last = Fault::io(&format!("connect {address}"), &err),
            }
        }
        Err(last)
    }

    /// A second handle on the same connection.
    pub(super) fn handle(&self) -> io::Result<Handle> {
        match &self.stream {
            Stream::Unix(stream) => stream.try_clone().map(Handle::Unix),
            Stream::Tcp(stream) => stream.try_clone().map(Handle::Tcp),
        }
    }

    /// Appends what comes to the inbox; `false` if nothing does before the deadline.
    pub(super) fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, Fault> {
        let mut buf = [0; 8192];
        loop {
            let Some(left) = left(deadline) else { return Ok(false) };
            let read = match &mut self.stream {
                Stream::Unix(s) => s.set_read_timeout(left).and_then(|()| s.read(&mut buf)),
                Stream::Tcp(s) => s.set_read_timeout(left).and_then(|()| s.read(&mut buf)),
            };
            match read {
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

    /// Takes the first `n` bytes of the inbox.
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.inbox.split_off(n);
        std::mem::replace(&mut self.inbox, rest)
    }

    /// Writes everything before the deadline; `false` if that could not be done.
    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<bool, Fault> {
        while !bytes.is_empty() {
            let Some(left) = left(Some(deadline)) else { return Ok(false) };
            let written = match &mut self.stream {
                Stream::Unix(s) => s.set_write_timeout(left).and_then(|()| s.write(bytes)),
                Stream::Tcp(s) => s.set_write_timeout(left).and_then(|()| s.write(bytes)),
            };
            match written {
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
pub(super) enum Handle {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Handle {
    /// Makes a blocked read return at once, and every later operation fail.
    pub(super) fn shut(&self) {
        // Fails only where the peer has closed it first, which has the same effect.
        let _ = match self {
            Handle::Unix(stream) => stream.shutdown(Shutdown::Both),
            Handle::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}
