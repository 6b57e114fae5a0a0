//! Reports to a service manager that speaks the protocol of systemd: one datagram for each change, to the socket that
//! `NOTIFY_SOCKET` names (sd_notify(3)). Without that variable nothing of this happens.
//!
//! The loop itself sends the signs of life, so that a loop that hangs is noticed. A datagram that the manager does not take
//! at once is sent again with the next event.

use crate::printable::printable;
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How much time is asked for at once where something takes its time, and how often.
const EXTENSION: Duration = Duration::from_secs(60);
const EXTEND_EVERY: Duration = Duration::from_secs(20);
/// The longest status line, in characters.
const LONGEST: usize = 200;

/// The facts that the manager gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether the node is in service.
    pub(super) is_ready: bool,
    /// Whether we are to end.
    pub(super) is_ending: bool,
    /// Whether a stop, a backup or the like takes its time.
    pub(super) takes_its_time: bool,
    /// One line for people.
    pub(super) line: String,
}

/// The connection to the service manager.
#[derive(Debug)]
pub(super) struct Service {
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    /// The time within which the manager wants a sign of life, if it does.
    watchdog: Option<Duration>,
    /// When the next sign of life is due.
    alive_at: Instant,
    /// When more time was asked for last.
    extended: Option<Instant>,
    ready: bool,
    /// Whether a reload was announced, and its end was not.
    reloads: bool,
    ending: bool,
    line: String,
}

impl Service {
    /// Connects to the manager that the environment names, if it names one.
    pub(super) fn connect() -> Service {
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Service { link: None };
        };
        match connect(&path) {
            Ok(socket) => Service { link: Some(Link::new(socket, watchdog)) },
            Err(e) => {
                log::warn!("event=no_service_manager NOTIFY_SOCKET={} {e}", path.display());
                Service { link: None }
            }
        }
    }

    /// When a sign of life or a request for more time is due, if one is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let alive = link.watchdog.map(|_| link.alive_at);
        let extend = link.extended.map(|at| at + EXTEND_EVERY);
        alive.into_iter().chain(extend).min()
    }

    /// Sends what is new since the last time.
    pub(super) fn tell(&mut self, now: Instant, standing: impl FnOnce() -> Standing) {
        if let Some(link) = &mut self.link {
            link.tell(now, standing());
        }
    }

    /// Announces that the configuration is read again. [`tell`](Self::tell) announces the end of that.
    pub(super) fn reloading(&mut self) {
        let Some(link) = &mut self.link else { return };
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        if link.ready && link.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")) {
            link.reloads = true;
        }
    }
}

impl Link {
    fn new(socket: UnixDatagram, watchdog: Option<Duration>) -> Link {
        let alive_at = Instant::now();
        Link {
            socket,
            watchdog,
            alive_at,
            extended: None,
            ready: false,
            reloads: false,
            ending: false,
            line: String::new(),
        }
    }

    fn tell(&mut self, now: Instant, standing: Standing) {
        let Standing { is_ready, is_ending, takes_its_time, line } = standing;
        // It is announced once, and after each reload, whatever the node does then.
        if self.reloads || is_ready && !self.ready && !is_ending {
            let is_taken = self.send("READY=1");
            (self.ready, self.reloads) = (self.ready || is_taken, self.reloads && !is_taken);
        }
        if is_ending && !self.ending {
            self.ending = self.send("STOPPING=1");
        }
        let line: String = printable(&line).chars().take(LONGEST).collect();
        if line != self.line && self.send(&format!("STATUS={line}")) {
            self.line = line;
        }
        if let Some(every) = self.watchdog.filter(|_| now >= self.alive_at) {
            self.send("WATCHDOG=1");
            self.alive_at = now + every / 2;
        }
        // The manager counts its patience at the start, at the end, and nowhere else.
        let impatient = !self.ready || self.ending;
        if !(impatient && (takes_its_time || !is_ready)) {
            self.extended = None;
        } else if self.extended.is_none_or(|at| now >= at + EXTEND_EVERY) {
            self.send(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
            self.extended = Some(now);
        }
    }

    /// Whether the manager has taken a message.
    fn send(&self, message: &str) -> bool {
        self.socket.send(message.as_bytes()).is_ok()
    }
}

fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that reads what it was sent, in order.
    struct Manager(UnixDatagram);

    impl Manager {
        fn new(watchdog: Option<Duration>) -> (Manager, Service) {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            ours.set_nonblocking(true).unwrap();
            (Manager(theirs), Service { link: Some(Link::new(ours, watchdog)) })
        }

        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 1024];
            let next =
                || self.0.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
            std::iter::from_fn(next).collect()
        }
    }

    fn standing(line: &str) -> Standing {
        Standing { is_ready: true, is_ending: false, takes_its_time: false, line: line.to_owned() }
    }

    #[test]
    fn each_change_is_told_once() {
        let (manager, mut service) = Manager::new(None);
        let now = Instant::now();
        let starting = Standing { is_ready: false, ..standing("starting") };
        service.tell(now, || starting.clone());
        assert_eq!(manager.heard(), ["STATUS=starting", "EXTEND_TIMEOUT_USEC=60000000"]);
        service.tell(now, || starting);
        assert!(manager.heard().is_empty());
        service.tell(now, || standing("running\nhalted"));
        assert_eq!(manager.heard(), ["READY=1", "STATUS=running\\nhalted"]);
        // A node that is down for an upgrade was ready all the same.
        service.tell(now, || Standing {
            is_ready: false,
            takes_its_time: true,
            ..standing("running\nhalted")
        });
        assert!(manager.heard().is_empty());
        assert_eq!(service.deadline(), None);
    }

    #[test]
    fn a_reload_begins_and_ends() {
        let (manager, mut service) = Manager::new(None);
        let now = Instant::now();
        service.reloading();
        assert!(manager.heard().is_empty(), "it is not ready yet");
        service.tell(now, || standing("x"));
        manager.heard();
        service.reloading();
        let heard = manager.heard();
        let usec = heard[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
        service.tell(now, || Standing { is_ready: false, ..standing("x") });
        assert_eq!(manager.heard(), ["READY=1"], "though the node is down for an upgrade");
        service.tell(now, || standing("x"));
        assert!(manager.heard().is_empty());
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_they_are_wanted() {
        let (manager, mut service) = Manager::new(Some(Duration::from_secs(10)));
        let begun = Instant::now();
        let mut lives = 0;
        for ms in (0..20_000).step_by(100) {
            let now = begun + Duration::from_millis(ms);
            if service.deadline().is_none_or(|at| now >= at) {
                service.tell(now, || standing("x"));
            }
            lives += manager.heard().iter().filter(|message| *message == "WATCHDOG=1").count();
        }
        assert_eq!(lives, 4);
    }

    #[test]
    fn more_time_is_asked_for_while_the_end_takes_its_time() {
        let (manager, mut service) = Manager::new(None);
        let begun = Instant::now();
        service.tell(begun, || standing("x"));
        manager.heard();
        let mut asked = 0;
        for second in 0..60 {
            let now = begun + Duration::from_secs(second);
            service.tell(now, || Standing { is_ending: true, takes_its_time: true, ..standing("x") });
            asked += manager.heard().iter().filter(|message| message.starts_with("EXTEND")).count();
        }
        assert_eq!(asked, 3);
    }

    #[test]
    fn what_the_manager_does_not_take_is_sent_again() {
        let (manager, mut service) = Manager::new(None);
        let now = Instant::now();
        let full = |service: &Service| while service.link.as_ref().unwrap().send("x") {};
        full(&service);
        service.tell(now, || standing("x"));
        let heard = manager.heard();
        assert!(heard.iter().all(|message| message == "x"), "{heard:?}");
        service.tell(now, || standing("x"));
        assert_eq!(manager.heard(), ["READY=1", "STATUS=x"]);
    }
}
