//! The thread that notices when the files that plan upgrades change.
//!
//! inotify tells at once; a slow look now and then is the net below it: once a minute where inotify works, and at the
//! configured interval on file systems on which it is blind, on machines that have none left, and while a file cannot be
//! read. What counts is the content of the files, never their times. The thread reads and reports; what the content
//! means is decided elsewhere.

use super::start_thread;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::schedule::{Planned, Reader};
use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::statfs;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the net may take to notice anything while a directory to be watched does not exist yet.
const NET_MISSING: Duration = Duration::from_secs(1);
/// How long it may take where inotify tells of every change.
const NET_TOLD: Duration = Duration::from_secs(60);
/// File systems that other machines or programs write to, which inotify does not see: NFS, SMB, CIFS, FUSE, 9p, Ceph,
/// AFS, Lustre, OCFS2. The numbers are those of linux/magic.h.
const BLIND: [u32; 9] = [
    0x6969,
    0xfe53_4d42,
    0xff53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x0bd0_0bd0,
    0x7461_636f,
];

/// The contents of the files, and the time of the look.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) planned: Arc<Planned>,
    edition: u64,
}

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Rises when everything read before it is outdated.
    edition: AtomicU64,
    /// How long the net may take to notice what inotify does not tell, in milliseconds.
    net: AtomicU64,
    /// Readable when the thread should look at once.
    nudge: OwnedFd,
}

impl Watcher {
    /// Makes everything that was read until now count for nothing.
    pub(super) fn outdate(&self) {
        self.shared.edition.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether what was seen still counts.
    pub(super) fn is_current(&self, seen: &Seen) -> bool {
        seen.edition == self.shared.edition.load(Ordering::Acquire)
    }

    /// Has the thread look this often without being told to; in force after its next look.
    pub(super) fn pace(&self, net: Duration) {
        let millis = u64::try_from(net.as_millis()).unwrap_or(u64::MAX);
        self.shared.net.store(millis, Ordering::Release);
    }

    /// Has the thread look at once, and report even if nothing has changed.
    pub(super) fn look(&self) {
        // It fails only when the counter is full, and then the thread has been told often enough.
        let _ = rustix::io::write(&self.shared.nudge, &1u64.to_ne_bytes());
    }
}

/// Starts the watch; what the files say is sent at the beginning and after every change, of which the
/// thread learns after the time `net` even where inotify is blind.
///
/// # Errors
/// If a thread cannot be had.
pub(super) fn watch(home: &Home, net: Duration, seen: Sender<Seen>) -> Result<Watcher> {
    let failed = |e: std::io::Error| Error::io("watch", home.root(), e);
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).inspect_err(|e| {
        log::warn!("event=no_inotify changes of plans are noticed within {net:?}: {e}");
    });
    let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
    let shared = Arc::new(Shared { edition: AtomicU64::new(0), net: AtomicU64::new(0), nudge });
    let watcher = Watcher { shared: Arc::clone(&shared) };
    watcher.pace(net);
    let watch = Watch { inotify: inotify.ok(), shared, home: home.clone(), seen };
    start_thread("watcher", move || watch.run())?;
    Ok(watcher)
}

struct Watch {
    /// `None` where the machine has none left: many programs want one, and their number is limited.
    inotify: Option<OwnedFd>,
    shared: Arc<Shared>,
    home: Home,
    seen: Sender<Seen>,
}

/// Why the thread looks.
#[derive(PartialEq, Eq)]
enum Wake {
    Nudged,
    Touched,
    Net,
}

impl Watch {
    fn run(&self) {
        let mut reader = Reader::new(&self.home);
        let mut last: Option<Arc<Planned>> = None;
        let mut wake = Wake::Nudged;
        loop {
            // Watched before it is read: what changes after the reading is told.
            let complete = self.add_watches();
            let edition = self.shared.edition.load(Ordering::Acquire);
            let planned = Arc::new(reader.read());
            // A file that cannot be read may just be written to, by a program that does not close it.
            let is_sound = planned.problems.is_empty();
            if wake == Wake::Nudged || last.as_ref() != Some(&planned) {
                last = Some(Arc::clone(&planned));
                if self.seen.send(Seen { planned, edition }).is_err() {
                    return;
                }
            }
            wake = self.wait(self.net(complete, is_sound));
        }
    }

    /// How long the next look may be put off if nothing is told. `complete` says whether all directories exist, `is_sound`
    /// whether every file in them could be read.
    fn net(&self, complete: bool, is_sound: bool) -> Duration {
        let net = Duration::from_millis(self.shared.net.load(Ordering::Acquire));
        match complete {
            true if is_sound && self.is_told() => net.max(NET_TOLD),
            true => net,
            false => net.min(NET_MISSING),
        }
    }

    /// Whether inotify tells of every change.
    fn is_told(&self) -> bool {
        let sees = |dir: &PathBuf| statfs(dir).is_ok_and(|fs| !BLIND.contains(&(fs.f_type as u32)));
        self.inotify.is_some() && self.directories().iter().all(sees)
    }

    /// Watches every directory, or where it does not exist its parent for its coming; says whether all exist.
    /// Adding one again changes nothing.
    fn add_watches(&self) -> bool {
        let Some(inotify) = &self.inotify else { return true };
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::CREATE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let watched = |dir: &Path| inotify::add_watch(inotify, dir, flags).is_ok();
        let missing = |dir: &&PathBuf| {
            let missing = !watched(dir);
            if missing && dir.parent().is_some_and(watched) {
                // It may have come just before its parent was watched.
                return !watched(dir);
            }
            missing
        };
        self.directories().iter().filter(missing).count() == 0
    }

    fn directories(&self) -> [PathBuf; 3] {
        [self.home.data().to_owned(), self.home.state(), self.home.plans()]
    }

    /// Returns when a file of interest was touched, a look is requested, or the net's time is up.
    fn wait(&self, net: Duration) -> Wake {
        // Notifications about other files, of which a busy directory has many, do not put the next look off.
        let end = Instant::now() + net;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).expect("the configuration limits it to minutes");
            let mut fds = vec![PollFd::new(&self.shared.nudge, PollFlags::IN)];
            fds.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
            match poll(&mut fds, Some(&limit)) {
                Ok(0) => return Wake::Net,
                Ok(_) if rustix::io::read(&self.shared.nudge, &mut [0; 8]).is_ok() => return Wake::Nudged,
                Ok(_) if self.drain() => return Wake::Touched,
                Ok(_) | Err(Errno::INTR) => {}
                // The machine has no memory for it: the net remains.
                Err(_) => {
                    thread::sleep(left.min(NET_MISSING));
                    return Wake::Net;
                }
            }
        }
    }

    /// Takes all notifications; says whether any concerns a file of interest.
    fn drain(&self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify.as_fd(), &mut buffer);
        let mut relevant = false;
        while let Ok(event) = reader.next() {
            // An event without a name is about a directory itself: it may have been replaced.
            let name = event.file_name().map(|n| n.to_bytes().to_owned());
            relevant |= name.is_none_or(|n| self.is_relevant(&n))
                || event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        }
        relevant
    }

    fn is_relevant(&self, name: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        let name = OsStr::from_bytes(name);
        let files = [self.home.trigger(), self.home.schedule()];
        let one_of_ours = files.iter().chain(&self.directories()).any(|p| p.file_name() == Some(name));
        let plan = name.as_bytes().ends_with(b".json") && !name.as_bytes().starts_with(b".");
        one_of_ours || plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::fs;

    fn shared(net: u64) -> Arc<Shared> {
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Arc::new(Shared { edition: AtomicU64::new(0), net: AtomicU64::new(net), nudge })
    }

    #[test]
    fn where_inotify_works_a_look_a_minute_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        for dir in [home.data().to_owned(), home.state(), home.plans()] {
            fs::create_dir_all(dir).unwrap();
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC).ok();
        let mut watch = Watch { inotify, shared: shared(5000), home, seen: unbounded().0 };
        assert!(watch.add_watches());
        let net = |watch: &Watch| {
            [(true, true), (true, false), (false, true)].map(|(a, b)| watch.net(a, b).as_secs())
        };
        assert_eq!(net(&watch), [60, 5, 1]);
        watch.inotify = None;
        assert_eq!(net(&watch), [5, 5, 1]);
    }

    #[test]
    fn without_inotify_the_net_notices() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.data()).unwrap();
        let shared = shared(5);
        let (sender, seen) = unbounded();
        let watcher = Watcher { shared: Arc::clone(&shared) };
        let watch = Watch { inotify: None, shared, home: home.clone(), seen: sender };
        let thread = std::thread::spawn(move || watch.run());
        assert_eq!(*seen.recv().unwrap().planned, Planned::default());
        fs::write(home.trigger(), "{\"name\":\"v2\",\"height\":5}").unwrap();
        // It may be looked at while it is being written.
        while seen.recv().unwrap().planned.upgrades.is_empty() {}
        drop(seen);
        watcher.look();
        thread.join().unwrap();
    }
}
