//! The TCP sockets that listen, as the kernel lists them (sock_diag(7)).
//!
//! `/proc/net/tcp` has every connection too, which is megabytes on a busy machine. A kernel that does not answer shows no
//! socket; a node needs netlink as well, to list its interfaces.

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::Timeout;
use rustix::net::sockopt::set_socket_timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) at: SocketAddr,
    pub(super) inode: u64,
}

/// Lengths of a message's header (netlink(7)) and of an `inet_diag_msg`.
const HEADER: usize = 16;
const SOCKET: usize = 72;
/// Kinds of messages.
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const V4: u8 = 2;
const V6: u8 = 10;
/// Upper bound on the time that the kernel may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every TCP socket that listens in our network namespace.
pub(super) fn listeners() -> Vec<Listener> {
    let mut found = Vec::new();
    for family in [V4, V6] {
        if let Err(e) = ask(family, &mut found) {
            log::debug!("event=no_sock_diag family={family} {e}");
        }
    }
    found
}

fn ask(family: u8, found: &mut Vec<Listener>) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    sendto(&socket, &request(family), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 || take(&buffer[..length], found)? {
            return Ok(());
        }
    }
}

/// The request for all sockets of a family that listen: a header and an `inet_diag_req_v2`.
fn request(family: u8) -> [u8; SOCKET] {
    const REQUEST_DUMP: u16 = 0x301;
    const TCP: u8 = 6;
    const LISTEN: u32 = 1 << 10;
    let mut bytes = [0; SOCKET];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &u32::try_from(SOCKET).unwrap_or(0).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST_DUMP.to_ne_bytes());
    put(HEADER, &[family, TCP]);
    put(HEADER + 4, &LISTEN.to_ne_bytes());
    bytes
}

/// Takes the sockets out of a datagram; returns whether it was the last one.
fn take(mut datagram: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    while let Some((length, kind)) = header(datagram) {
        match kind {
            DONE => return Ok(true),
            BY_FAMILY => found.extend(datagram.get(HEADER..length).and_then(listener)),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        // Messages begin at multiples of four bytes.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The length and the kind of the first message.
fn header(datagram: &[u8]) -> Option<(usize, u16)> {
    let length = usize::try_from(u32::from_ne_bytes(field(datagram, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(field(datagram, 4)?);
    (length >= HEADER && length <= datagram.len()).then_some((length, kind))
}

/// Reads an `inet_diag_msg`.
fn listener(message: &[u8]) -> Option<Listener> {
    let port = u16::from_be_bytes(field(message, 4)?);
    let ip = match message.first()? {
        &V4 => IpAddr::from(field::<4>(message, 8)?),
        _ => Ipv6Addr::from(field::<16>(message, 8)?).to_canonical(),
    };
    let inode = u32::from_ne_bytes(field(message, SOCKET - 4)?);
    Some(Listener { at: SocketAddr::new(ip, port), inode: inode.into() })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn the_kernel_lists_what_listens_and_no_connection() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(ours) = TcpListener::bind(at) else { continue };
            let at = ours.local_addr().unwrap();
            let connection = std::net::TcpStream::connect(at).unwrap();
            let fd = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&ours));
            let inode = std::fs::metadata(fd).unwrap().ino();
            let found = listeners();
            assert!(found.contains(&Listener { at, inode }), "{at}: {found:?}");
            let other = connection.local_addr().unwrap();
            assert!(found.iter().all(|listener| listener.at != other), "{found:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_passed_over_and_an_error_ends_it() {
        let message =
            |kind: u16, length: u32| [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        let mut found = Vec::new();
        assert!(take(&message(DONE, 16), &mut found).unwrap());
        assert!(!take(&[], &mut found).unwrap());
        for length in [0, 15, 17, u32::MAX] {
            assert!(!take(&message(BY_FAMILY, length), &mut found).unwrap());
        }
        assert!(!take(&message(BY_FAMILY, 16), &mut found).unwrap());
        assert!(take(&message(2, 16), &mut found).is_err());
        assert_eq!(found, []);
    }
}
