//! The ports on which the node listens, to recognise another process on them: a node that finds its port taken ends, or
//! hangs, whichever binary it is.
//!
//! Ports cannot be derived from the command line of an unknown node, but the kernel lists them while it runs
//! (sock_diag(7)). So they are noted while it is well, and looked for when it has ended, when no process of ours listens
//! there. Where the kernel does not answer, no process is suspected.

use super::listeners::listeners;
use super::start_thread;
use crate::sorted::Set;
use crossbeam_channel::{Receiver, bounded};
use std::fs;
use std::net::SocketAddr;

/// The facts about the TCP ports of the node that was well last.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// A node process, and the first head that it reported.
    first: Option<(u32, u64)>,
    /// The node process whose ports are noted.
    noted: Option<u32>,
    /// The thread that looks for them, until it has answered: a node has thousands of files open.
    looked: Option<Receiver<Vec<SocketAddr>>>,
    own: Vec<SocketAddr>,
}

impl Ports {
    /// The node `pid` has reported a head. It has opened all its ports when its chain goes on.
    pub(super) fn hear(&mut self, pid: u32, height: u64) {
        match self.first {
            _ if self.noted == Some(pid) => {}
            Some((known, first)) if known == pid => {
                if height > first {
                    let (send, looked) = bounded(1);
                    // Without a thread no process is suspected.
                    let _ = start_thread("ports", move || drop(send.send(ports_of(pid))));
                    (self.looked, self.noted) = (Some(looked), Some(pid));
                }
            }
            _ => self.first = Some((pid, height)),
        }
    }

    /// With no node running: the report of another process that listens where the last node did.
    pub(super) fn taken(&mut self) -> Option<String> {
        if let Some(own) = self.looked.as_ref().and_then(|looked| looked.try_recv().ok()) {
            (self.own, self.looked) = (own, None);
        }
        let others = if self.own.is_empty() { Vec::new() } else { listeners() };
        let at = self.own.iter().find(|own| others.iter().any(|other| collide(**own, other.at)))?;
        Some(format!("another process listens at {at}"))
    }
}

/// Whether no two sockets can listen at these addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// The addresses at which a process listens.
fn ports_of(pid: u32) -> Vec<SocketAddr> {
    let sockets = sockets_of(pid);
    listeners().into_iter().filter(|listener| sockets.contains(&listener.inode)).map(|l| l.at).collect()
}

/// The inodes of the sockets that a process has open.
fn sockets_of(pid: u32) -> Set<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_collide_with_themselves_and_with_all() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:1", "127.0.0.1:1") && collide("[::]:1", "127.0.0.1:1"));
        assert!(collide("127.0.0.1:1", "0.0.0.0:1"));
        assert!(!collide("127.0.0.1:1", "127.0.0.2:1") && !collide("0.0.0.0:1", "0.0.0.0:2"));
    }

    #[test]
    fn ports_are_noted_when_the_chain_goes_on_and_known_again() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = ours.local_addr().unwrap();
        let mut ports = Ports::default();
        let pid = std::process::id();
        ports.hear(pid, 5);
        ports.hear(pid, 5);
        assert_eq!(ports.own, []);
        ports.hear(pid, 6);
        ports.own = ports.looked.take().unwrap().recv().unwrap();
        assert!(ports.own.contains(&at), "{ports:?}");
        // Other tests may have opened ports meanwhile.
        ports.own.retain(|own| *own == at);
        assert_eq!(ports.taken(), Some(format!("another process listens at {at}")));
        drop(ours);
        // A child that another test is starting has a copy until its exec.
        let begun = std::time::Instant::now();
        while ports.taken().is_some() {
            assert!(begun.elapsed().as_secs() < 30, "it is still open");
            std::thread::yield_now();
        }
    }
}
