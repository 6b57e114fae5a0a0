//! JSON messages over a unix socket, as geth-like nodes serve them.
//!
//! Messages go out with a newline and come in with or without one; see [`super::json`].

use super::fault::Fault;
use super::json::Scan;
use super::socket::{Handle, Socket};
use std::io;
use std::path::Path;
use std::time::Instant;

/// A connection to a node's IPC socket.
#[derive(Debug)]
pub(super) struct Ipc {
    socket: Socket,
    scan: Scan,
}

impl Ipc {
    pub(super) fn connect(path: &Path) -> Result<Self, Fault> {
        Ok(Ipc { socket: Socket::connect(path)?, scan: Scan::default() })
    }

    /// Sends one message; `false` if that took beyond the deadline.
    pub(super) fn send(&mut self, message: &[u8], deadline: Instant) -> Result<bool, Fault> {
        self.socket.send(&[message, b"\n"].concat(), deadline)
    }

    /// The next message, or `None` if no whole one came before the deadline.
    pub(super) fn receive(
        &mut self,
        deadline: Option<Instant>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            let end = self.scan.end(&self.socket.inbox)?;
            if end.unwrap_or(self.socket.inbox.len()) > limit {
                return Err(Fault::Nonsense(format!("a message of more than {limit} bytes")));
            }
            if let Some(end) = end {
                self.scan = Scan::default();
                return Ok(Some(self.socket.take(end)));
            }
            if !self.socket.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The handle that ends the connection from another thread.
    pub(super) fn handle(&self) -> io::Result<Handle> {
        self.socket.handle()
    }
}
