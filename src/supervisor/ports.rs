//! The ports on which the node listens, to recognise another process on them: a node that finds its port taken ends, or
//! hangs, whichever binary it is.
//!
//! Its command line does not tell its ports to whom does not know the node, but the kernel does while it
//! runs (proc_pid_net(5)). So they are noted while it is well, and looked for when one has ended: nothing of
//! ours listens then. Where the kernel does not tell, no process is suspected.

use crate::sorted::Set;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The facts about the TCP ports of the node that was well last.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// A node process, and the first head that it told.
    first: Option<(u32, u64)>,
    /// The node process whose ports are noted.
    noted: Option<u32>,
    own: Vec<SocketAddr>,
}

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    at: SocketAddr,
    inode: u64,
}

impl Ports {
    /// The node `pid` has told a head. It has opened all its ports when its chain goes on.
    pub(super) fn hear(&mut self, pid: u32, height: u64) {
        match self.first {
            _ if self.noted == Some(pid) => {}
            Some((known, first)) if known == pid => {
                if height > first {
                    let sockets = sockets_of(pid);
                    let own = listening().into_iter().filter(|l| sockets.contains(&l.inode)).map(|l| l.at);
                    (self.own, self.noted) = (own.collect(), Some(pid));
                }
            }
            _ => self.first = Some((pid, height)),
        }
    }

    /// With no node running: who else listens where the last one did, in words.
    pub(super) fn taken(&self) -> Option<String> {
        let others = if self.own.is_empty() { Vec::new() } else { listening() };
        let at = self.own.iter().find(|own| others.iter().any(|other| collide(**own, other.at)))?;
        Some(format!("another process listens at {at}"))
    }
}

/// Whether no two sockets can listen at these addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Every TCP socket that listens.
fn listening() -> Vec<Listener> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let all = ["/proc/net/tcp", "/proc/net/tcp6"].map(read).concat();
    all.lines().filter_map(listener).collect()
}

/// Reads one line of `/proc/net/tcp`; `None` if it is another socket than a listening one.
fn listener(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, at, _, LISTEN, .., inode] = words.get(..10)? else { return None };
    let (address, port) = at.split_once(':')?;
    // Words of 32 bits, each printed as a number of this machine.
    let word = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let words: Vec<[u8; 4]> = address.as_bytes().chunks(8).map(word).collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [v4] => IpAddr::from(*v4),
        v6 => Ipv6Addr::from(<[u8; 16]>::try_from(v6.concat()).ok()?).to_canonical(),
    };
    let at = SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?);
    Some(Listener { at, inode: inode.parse().ok()? })
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
    fn lines_of_the_kernel_are_read() {
        if cfg!(target_endian = "big") {
            return;
        }
        let v4 = "   0: 0100007F:2161 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 69959 1 0 100 0";
        assert_eq!(listener(v4), Some(Listener { at: "127.0.0.1:8545".parse().unwrap(), inode: 69959 }));
        let v6 = "   0: 00000000000000000000000001000000:2161 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7 1";
        assert_eq!(listener(v6).unwrap().at, "[::1]:8545".parse().unwrap());
        assert_eq!(listener(&v4.replace(" 0A ", " 01 ")), None);
        for bad in [
            "",
            "  sl  local_address rem_address   st",
            "0: x:y 0 0A 0 0 0 0 0 7",
            "0: 0100007F:21610 0 0A 0 0 0 0 0 7",
        ] {
            assert_eq!(listener(bad), None, "{bad}");
        }
    }

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
        assert!(ports.own.contains(&at), "{ports:?}");
        // Whatever other tests have opened meanwhile is not what is asked for.
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
