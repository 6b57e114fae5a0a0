//! The control socket: how other processes ask the running supervisor.
//!
//! One request per connection, one line of JSON each way. A connection with a request to stop stays open until the process
//! ends, so that the end of file proves that it did. The socket has mode 0600; every process that may open it may do
//! everything. Nothing is decided here: requests become facts.

use super::metrics::Counters;
use super::threads::{Timed, serve_each, start_thread};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::{Back, Block, Receipt, View};
use crate::name::Name;
use crossbeam_channel::{Sender, bounded};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A request to a running supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The state of the supervisor and its node.
    Status,
    /// The height of the chain.
    Head,
    /// Stop the node, then end.
    Stop,
    /// Stop the node and start it again.
    Restart,
    /// End, and leave the node as it runs.
    Detach,
    /// Execute the program that is at the supervisor's path by now, in its process. Where that succeeds there is no
    /// answer.
    Reexec,
    /// Switch to this upgrade now.
    UpgradeNow {
        /// The upgrade.
        name: Name,
    },
    /// Go back to an earlier version.
    Rollback {
        /// To which, and how.
        order: Back,
    },
    /// Do not go back after all.
    CancelRollback,
    /// Forget this upgrade.
    Cancel {
        /// The upgrade.
        name: Name,
    },
    /// Have a silent validator seal: the operator states that this is the last final block of the network. Without a
    /// block, the answer lists what is missing.
    Sign {
        /// The block.
        at: Option<Block>,
    },
    /// Forget the head record.
    ResetHead,
    /// Plans, or the binary of an upgrade, have changed on disk. Answered when that is in force.
    Refresh {
        /// The upgrade whose binary has changed.
        binary: Option<Name>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "it is made once per request")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Head`].
    Head {
        /// The height of the last reported head, if there was one.
        height: Option<u64>,
        /// The time between two blocks, in milliseconds.
        period_ms: u64,
    },
    /// It is done, or will be.
    Done(String),
    /// It is not done, and why.
    Refused(String),
    /// There is no such upgrade.
    NotFound(String),
}

/// A snapshot of the supervisor and its node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Whether a supervisor runs.
    pub running: bool,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its version.
    pub supervisor_version: Option<String>,
    /// The home.
    pub home: PathBuf,
    /// The machine's part of the state.
    #[serde(flatten)]
    pub view: View,
    /// Why the node reports no head, while it runs and does not.
    pub rpc_trouble: Option<String>,
    /// The problems of the files that plan upgrades.
    pub problems: Vec<String>,
    /// The counters of the supervisor.
    pub counters: Counters,
    /// The receipt of the last upgrade that has ended under this supervisor; not for other processes, which find the file.
    #[serde(skip)]
    pub receipt: Option<Receipt>,
}

/// Read in two passes: `flatten` would keep everything in a buffer first, and bring a second reader of each type that does
/// that into the binary.
impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Beside {
            running: bool,
            pid: Option<u32>,
            #[serde(default)]
            supervisor_version: Option<String>,
            home: PathBuf,
            #[serde(default)]
            rpc_trouble: Option<String>,
            problems: Vec<String>,
            #[serde(default)]
            counters: Counters,
        }
        let text = <&RawValue>::deserialize(from)?.get().as_bytes();
        let view = serde_json::from_slice(text).map_err(D::Error::custom)?;
        let Beside { running, pid, supervisor_version, home, rpc_trouble, problems, counters } =
            serde_json::from_slice(text).map_err(D::Error::custom)?;
        Ok(Status {
            running,
            pid,
            supervisor_version,
            home,
            view,
            rpc_trouble,
            problems,
            counters,
            receipt: None,
        })
    }
}

/// A request, and the sender for its answer.
pub(super) type Call = (Request, Sender<Reply>);

/// Connections served at the same time. Of further ones each takes the place of the one that has been asking for longest, or
/// it is closed at once, and the caller tries again.
const CONNECTIONS: usize = 16;
/// After this time.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a connection may take in all to ask, as long again to take the answer, and the supervisor to give it.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_LINE: u64 = 1024 * 1024;
/// Larger than the status of plans with tens of thousands of upgrades, each with its history.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Makes the socket. The supervisor's lock is held, so an existing socket is a remnant.
pub(super) fn listen(home: &Home) -> Result<UnixListener> {
    let path = home.control();
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove old socket", &path, e));
        }
        Ok(()) | Err(_) => {}
    }
    let failed = |e| Error::io("listen on", &path, e);
    let listener = with_short_path(&path, |short| UnixListener::bind(short)).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Starts serving the socket.
pub(super) fn serve(listener: UnixListener, calls: Sender<Call>) -> Result<()> {
    let asking = Asking::default();
    let (hangs_up, answers) = (asking.clone(), move |stream| {
        let stream = Arc::new(stream);
        asking.begin(&stream);
        answer(&stream, &calls, &asking)
    });
    let body = move || {
        serve_each("control-peer", CONNECTIONS, listener.incoming(), || hangs_up.end_oldest(), answers);
    };
    start_thread("control", body)
}

/// The connections that have not asked yet, oldest first.
#[derive(Clone, Default)]
struct Asking(Arc<Mutex<VecDeque<Arc<UnixStream>>>>);

impl Asking {
    fn begin(&self, stream: &Arc<UnixStream>) {
        self.lock().push_back(Arc::clone(stream));
    }

    fn end(&self, stream: &Arc<UnixStream>) {
        self.lock().retain(|one| !Arc::ptr_eq(one, stream));
    }

    /// Hangs up on the oldest. Returns whether there was one.
    fn end_oldest(&self) -> bool {
        let oldest = self.lock().pop_front();
        // Its thread sees the end of the stream.
        oldest.is_some_and(|stream| stream.shutdown(Shutdown::Both).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<UnixStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(stream: &Arc<UnixStream>, calls: &Sender<Call>, asking: &Asking) -> io::Result<()> {
    let mut line = Vec::new();
    let asked = Timed::new(&**stream, PATIENCE);
    let read = BufReader::new(asked).take(LONGEST_LINE).read_until(b'\n', &mut line);
    asking.end(stream);
    read?;
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(e) => return write_line(stream, &Reply::Refused(format!("no such request: {e}"))),
    };
    let until_the_end = matches!(request, Request::Stop | Request::Detach);
    let (reply_to, reply) = bounded(1);
    if calls.send((request, reply_to)).is_err() {
        return Ok(());
    }
    let reply =
        reply.recv_timeout(PATIENCE).unwrap_or_else(|_| Reply::Refused("the supervisor is busy".to_owned()));
    write_line(stream, &reply)?;
    if until_the_end {
        stream.set_read_timeout(None)?;
        // Ends when the peer hangs up; our own end closes the stream.
        let _ = (&**stream).read(&mut [0])?;
    }
    Ok(())
}

fn write_line(stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut out = BufWriter::new(Timed::new(stream, PATIENCE));
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A connection to the supervisor on which a request was answered.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub reply: Reply,
    stream: UnixStream,
}

impl Answered {
    /// Waits until the supervisor has ended: that is the end of file on its socket.
    pub fn wait_for_end(mut self) {
        // Any outcome but more data means that the other side is gone.
        while matches!(self.stream.read(&mut [0; 64]), Ok(n) if n > 0) {}
    }
}

/// Asks the supervisor of a home. Where more ask at once than it serves, this one waits a while.
///
/// # Errors
/// [`Kind::NoSupervisor`] if none runs; [`Kind::Nonsense`] if the answer is none.
pub fn ask(home: &Home, request: &Request) -> Result<Answered> {
    let begun = Instant::now();
    loop {
        if let Some(answered) = ask_once(home, request)? {
            return Ok(answered);
        }
        if begun.elapsed() >= PATIENCE {
            let path = home.control();
            return Err(Error::new(Kind::Failed, "the supervisor is busy")
                .at(path.display())
                .hint("try again"));
        }
        thread::sleep(AGAIN);
    }
}

/// Asks it once; `None` if the connection was closed before the answer was complete. Then too many are asking,
/// or it has just ended, and the next try finds none.
///
/// # Errors
/// As [`ask`].
pub fn ask_once(home: &Home, request: &Request) -> Result<Option<Answered>> {
    let path = home.control();
    let stream = match with_short_path(&path, |short| UnixStream::connect(short)) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(Error::new(Kind::NoSupervisor, "no supervisor is running")
                .at(home.root().display())
                .hint("start one with `wemixvisor run`"));
        }
        Err(e) => return Err(Error::io("connect to", &path, e)),
    };
    let failed = |e| Error::io("talk to", &path, e);
    stream.set_read_timeout(Some(PATIENCE * 2)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).expect("a request has only string keys");
    line.push(b'\n');
    let mut answer = Vec::new();
    let asked = (&stream).write_all(&line);
    match asked.and_then(|()| BufReader::new(&stream).take(LONGEST_ANSWER).read_until(b'\n', &mut answer)) {
        Ok(_) if !answer.ends_with(b"\n") => return Ok(None),
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        read => read.map_err(failed)?,
    };
    stream.set_read_timeout(None).map_err(failed)?;
    let reply = serde_json::from_slice(&answer)
        .map_err(|e| Error::new(Kind::Nonsense, "understand the supervisor").at(path.display()).because(e))?;
    Ok(Some(Answered { reply, stream }))
}

/// Calls `act` with a path that names the same socket and fits into the 108 bytes of a socket
/// address (unix(7)), however deep the home lies.
fn with_short_path<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd as _;
    const FITS: usize = 100;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return act(path) };
    if path.as_os_str().len() <= FITS {
        return act(path);
    }
    let dir = fs::File::open(dir)?;
    act(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.dir()).unwrap();
        (dir, home)
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        use crate::digest::Digest;
        use crate::machine::{Machine, Origin, Policy, Record, Target, Upgrade, Version};
        let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"one") };
        let upgrade = Upgrade::new("v2".parse().unwrap(), 12_000, Origin::Schedule);
        let status = Status {
            running: true,
            pid: Some(7),
            supervisor_version: Some("1.2.3".to_owned()),
            home: PathBuf::from("/h"),
            view: Machine::at_rest(Policy::default(), Record::new(current), vec![upgrade.into()]).view(),
            rpc_trouble: Some("none \"there\"".to_owned()),
            problems: vec!["one".to_owned()],
            counters: Counters { hook_failures: 1, download_bytes: 2, ..Counters::default() },
            receipt: None,
        };
        let reply = Reply::Status(status);
        let line = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<Reply>(&line).unwrap(), reply);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["status"]["pid"], &value["status"]["state"]), (&7.into(), &"stopped".into()));
        serde_json::from_slice::<Reply>(br#"{"status":{"running":true}}"#).unwrap_err();
    }

    /// Takes a connection and closes it with this part of an answer.
    fn take(listener: &UnixListener, answer: &str) {
        let mut stream = listener.accept().unwrap().0;
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[test]
    fn who_is_not_served_at_once_asks_again() {
        let (_dir, home) = home();
        let listener = UnixListener::bind(home.control()).unwrap();
        let answered = thread::scope(|scope| {
            scope.spawn(|| {
                drop(listener.accept().unwrap());
                take(&listener, "");
                take(&listener, "{\"done\":");
                take(&listener, "{\"done\":\"yes\"}\n");
            });
            ask(&home, &Request::Restart)
        });
        assert_eq!(answered.unwrap().reply, Reply::Done("yes".to_owned()));
    }

    #[test]
    fn every_place_is_given_back() {
        let (_dir, home) = home();
        let (calls, called) = unbounded();
        serve(listen(&home).unwrap(), calls).unwrap();
        let busy: Vec<UnixStream> =
            (0..CONNECTIONS).map(|_| UnixStream::connect(home.control()).unwrap()).collect();
        drop(busy);
        let supervisor = thread::spawn(move || {
            for (_, reply_to) in called.iter().take(3 * CONNECTIONS) {
                reply_to.send(Reply::Done(String::new())).unwrap();
            }
        });
        for _ in 0..3 * CONNECTIONS {
            assert_eq!(ask(&home, &Request::Restart).unwrap().reply, Reply::Done(String::new()));
        }
        supervisor.join().unwrap();
    }

    #[test]
    fn callers_that_do_not_ask_keep_no_other_waiting() {
        let (_dir, home) = home();
        let (calls, called) = unbounded();
        serve(listen(&home).unwrap(), calls).unwrap();
        let slow: Vec<UnixStream> =
            (0..3 * CONNECTIONS).map(|_| UnixStream::connect(home.control()).unwrap()).collect();
        let supervisor = thread::spawn(move || {
            for (_, reply_to) in called.iter().take(CONNECTIONS) {
                reply_to.send(Reply::Done(String::new())).unwrap();
            }
        });
        let begun = Instant::now();
        for _ in 0..CONNECTIONS {
            assert_eq!(ask(&home, &Request::Restart).unwrap().reply, Reply::Done(String::new()));
        }
        assert!(begun.elapsed() < PATIENCE, "they have waited for {:?}", begun.elapsed());
        supervisor.join().unwrap();
        drop(slow);
    }

    #[test]
    fn a_caller_that_asks_or_listens_a_byte_at_a_time_has_its_time_and_no_more() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let drip = thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = (&theirs).write_all(b" ");
                let _ = (&theirs).read(&mut [0; 1]);
            }
        });
        let time = Duration::from_millis(50);
        let mut line = Vec::new();
        let read = BufReader::with_capacity(1, Timed::new(&ours, time)).read_until(b'\n', &mut line);
        assert!(read.is_err() && !line.is_empty());
        let written = Timed::new(&ours, time).write_all(&vec![b'x'; 64 << 20]);
        assert!(written.is_err());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(ours);
        drip.join().unwrap();
    }

    #[test]
    fn one_that_ends_while_it_is_asked_does_not_run() {
        let (_dir, home) = home();
        let listener = UnixListener::bind(home.control()).unwrap();
        let outcome = thread::scope(|scope| {
            scope.spawn(move || take(&listener, ""));
            ask(&home, &Request::Status)
        });
        assert_eq!(outcome.unwrap_err().kind(), Kind::NoSupervisor);
    }
}
