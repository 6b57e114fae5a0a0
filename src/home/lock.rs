//! Four locks: ours, those that the node and a hook inherit from us, and the node's own, which we only look at.
//!
//! The supervisor's lock lasts as long as its process. The node's lock is handed down to the node,
//! so that it lasts until the last process that the node left behind is gone, even when we were
//! killed meanwhile. A hook that runs while the node is down inherits it as well: no node starts beside what it
//! has started. Every hook inherits the hook lock, so that no two of them work at once. The node's own lock is
//! free when its databases are closed. All are flock(2) locks, which belong to the open file and not to the process; the
//! node's own may be an fcntl lock.

use super::process::Stat;
use super::stamp::is_same_file;
use super::{Home, glob, regular};
use crate::error::{Doing as _, Error, Kind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk, test_kill_process};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often the lock of a process that is gone is tried.
const TRIES: u32 = 400;
/// The wait before a lock is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// The supervisor's claim on a home, released when dropped or when the process ends.
#[derive(Debug)]
pub struct SupervisorLock {
    file: File,
}

impl SupervisorLock {
    /// Claims the home and writes our process id into the lock.
    ///
    /// # Errors
    /// [`Kind::Busy`] with the holder's process id if another supervisor has it; nothing is
    /// changed then.
    pub fn acquire(home: &Home) -> Result<Self> {
        SupervisorLock::acquire_between(home, || thread::sleep(AGAIN))
    }

    /// The same with another pause between two tries.
    ///
    /// A supervisor that is killed while it starts a program leaves a child that has not come to its exec
    /// yet, and has the lock open until then. So the lock of a process that is gone is waited for.
    fn acquire_between(home: &Home, mut pause: impl FnMut()) -> Result<Self> {
        let path = home.lock();
        let mut file = open_lock(&path)?;
        let mut tries = TRIES;
        while !try_lock(&file, &path)? {
            let holder = read_pid(&mut file);
            tries -= 1;
            if tries == 0 || holder.is_none_or(is_alive) {
                let holder = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
                return Err(Error::new(Kind::Busy, format!("another supervisor{holder} holds this home"))
                    .at(path.display())
                    .hint("ask it with `wemixvisor status`"));
            }
            pause();
        }
        // For people only; the lock itself is what counts. So it need not be durable, and a full disk is no reason to
        // leave the node down.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(SupervisorLock { file })
    }

    /// Goes on with the claim of the program that ran in this process before us, by its open file.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the file is not the lock of this home, or is not ours.
    pub fn inherited(home: &Home, file: OwnedFd) -> Result<Self> {
        let path = home.lock();
        let file = File::from(file);
        let same = file.metadata().and_then(|ours| Ok(is_same_file(&ours, &fs::metadata(&path)?)));
        if !same.doing("inspect", &path)? || !try_lock(&file, &path)? {
            let what = "what was inherited is not the lock of this home";
            return Err(Error::new(Kind::Busy, what).at(path.display()));
        }
        Ok(SupervisorLock { file })
    }
}

impl AsFd for SupervisorLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The lock that is handed down to a node process and whatever that leaves behind.
#[derive(Debug)]
pub struct NodeLock {
    file: File,
}

impl NodeLock {
    /// Takes the lock if no process of an earlier node is alive; `None` if one is.
    ///
    /// Each call opens the file anew: a lock taken again through the same open file always succeeds.
    ///
    /// # Errors
    /// If the file cannot be opened or locked at all.
    pub fn try_acquire(home: &Home) -> Result<Option<Self>> {
        let path = home.node_lock();
        let file = open_lock(&path)?;
        Ok(try_lock(&file, &path)?.then_some(NodeLock { file }))
    }

    /// Gives the open file up, to be inherited by the node. It is close-on-exec until the child
    /// clears that. The lock is released when every copy of the descriptor is closed.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

impl AsFd for NodeLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The lock that is handed down to a hook and whatever that leaves behind. The file also names the hook whose end
/// was not seen yet, or that has succeeded.
#[derive(Debug)]
pub struct HookLock {
    file: File,
    path: PathBuf,
}

impl HookLock {
    /// Takes the lock if no process of an earlier hook is alive; `None` if one is.
    ///
    /// # Errors
    /// If the file cannot be opened or locked at all.
    pub fn try_acquire(home: &Home) -> Result<Option<Self>> {
        let path = home.hook_lock();
        let file = open_lock(&path)?;
        Ok(try_lock(&file, &path)?.then_some(HookLock { file, path }))
    }

    /// Records durably that the hook `whose` begins. Returns whether it had begun before and no end was recorded.
    ///
    /// A file of its own rather than a field of the journal: the journal records what the machine decides, and it
    /// decides nothing by this.
    ///
    /// # Errors
    /// If the file cannot be read, written or synced; the hook must not begin then.
    pub fn begin(&self, whose: &str) -> Result<bool> {
        let mark = format!("{whose}\n").into_bytes();
        let mut found = vec![0; mark.len() + 1];
        let len = self.file.read_at(&mut found, 0).doing("read", &self.path)?;
        if found[..len] == mark {
            return Ok(true);
        }
        self.write(&mark).map(|()| false)
    }

    /// Records durably that the hook has ended, and that the next run of it is a first one again.
    ///
    /// # Errors
    /// If writing or syncing fails.
    pub fn end(&self) -> Result<()> {
        self.write(b"")
    }

    fn write(&self, mark: &[u8]) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(mark, 0))
            .and_then(|()| self.file.sync_data())
            .doing("write", &self.path)
    }
}

impl AsFd for HookLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The other processes that have the file at `path` open, in words, as far as proc(5) shows them to us.
///
/// proc_locks(5) would name the process that took the lock, which need not be alive any more: these locks are
/// inherited.
pub fn holders(path: &Path) -> Vec<String> {
    const SHOWN: usize = 5;
    let Ok(file) = fs::metadata(path) else { return Vec::new() };
    let has_it_open = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        // The links lead to the open files themselves, whatever they are called by now; this opens nothing.
        fds.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|meta| is_same_file(&meta, &file))
    };
    let named = |pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("process {pid} ({})", name.trim_end())
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(has_it_open)
        .take(SHOWN)
        .map(named)
        .collect()
}

/// The state of the node's own lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataLock {
    /// There is no such file: the node has no lock, or has never run.
    Absent,
    /// No process holds it.
    Free,
    /// A process holds it.
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process, where the kind of lock names it.
        pid: Option<i32>,
    },
}

/// Looks at the node's own locks, all files that match `pattern` (`<datadir>/*/LOCK`), changing none.
///
/// # Errors
/// If a lock file cannot be opened or examined.
pub fn probe_data_lock(pattern: &Path) -> Result<DataLock> {
    let mut state = DataLock::Absent;
    for path in glob::expand(pattern) {
        let file = match regular::open_no_link(&path) {
            Ok((file, _)) => file,
            // It went away between listing and opening, or is no lock.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => continue,
            Err(e) => return Err(Error::io("open lock", &path, e)),
        };
        let blocking = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
        if let Some(lock) = blocking.doing("examine lock", &path)? {
            return Ok(DataLock::Held { path, pid: lock.pid.map(rustix::process::Pid::as_raw_pid) });
        }
        // Taken for an instant and released with the file: there is no way to only look at an flock.
        if !try_lock(&file, &path)? {
            return Ok(DataLock::Held { path, pid: None });
        }
        state = DataLock::Free;
    }
    Ok(state)
}

fn open_lock(path: &Path) -> Result<File> {
    regular::open_own(path).doing("open lock", path)
}

/// How a directory is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// By one process alone, which changes it.
    Alone,
    /// By any number of processes that only read it.
    Shared,
}

/// Claims a directory that is being worked on, for as long as the file is open; None while another process does.
///
/// # Errors
/// If it cannot be opened or locked at all.
pub fn claim_dir(path: &Path, claim: Claim) -> Result<Option<File>> {
    let dir = File::open(path).doing("open", path)?;
    let how = match claim {
        Claim::Alone => FlockOperation::NonBlockingLockExclusive,
        Claim::Shared => FlockOperation::NonBlockingLockShared,
    };
    let taken = within(NEWBORN, || Ok(flock_as(&dir, path, how)?.then_some(())))?;
    Ok(taken.map(|()| dir))
}

/// A child that another thread has just forked holds our locks as well, until its exec: on a loaded machine that takes its
/// time.
pub(crate) const NEWBORN: Duration = Duration::from_secs(3);

/// The error where another process works on a directory.
pub(crate) fn busy(path: &Path) -> Error {
    Error::new(Kind::Busy, "another process is working on it").at(path.display())
}

/// Takes the lock of an open file as soon as no other process has it, within some time: such a lock is held for the few
/// milliseconds that a change takes. Returns whether it was taken.
///
/// # Errors
/// If it cannot be locked at all.
pub fn lock_within(patience: Duration, file: &File, path: &Path) -> Result<bool> {
    Ok(within(patience, || Ok(try_lock(file, path)?.then_some(())))?.is_some())
}

/// Tries to take a lock until it is had or the time is over.
pub(crate) fn within<T>(
    patience: Duration,
    mut take: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let until = Instant::now() + patience;
    loop {
        let taken = take()?;
        if taken.is_some() || Instant::now() >= until {
            return Ok(taken);
        }
        thread::sleep(AGAIN);
    }
}

/// Takes the lock of an open file, and returns whether no other process has it. `path` is for the message.
///
/// # Errors
/// If it cannot be locked at all.
pub fn try_lock(file: &File, path: &Path) -> Result<bool> {
    flock_as(file, path, FlockOperation::NonBlockingLockExclusive)
}

fn flock_as(file: &File, path: &Path, how: FlockOperation) -> Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(Error::io("lock", path, e.into())),
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether this process exists and is not about to end. A process that we may not signal exists.
fn is_alive(pid: u32) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    process.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH)) && !is_dying(pid)
}

/// Whether a process has ended, is ending, or has a SIGKILL before it, as far as proc(5) shows it.
///
/// Its files are closed one after the other then, by threads that may still wait for the disk.
fn is_dying(pid: u32) -> bool {
    /// `PF_EXITING` of the kernel's `sched.h`.
    const EXITING: u64 = 4;
    const KILLED: u64 = 1 << (9 - 1);
    let read = |what| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let stat = Stat::parse(&read("stat"));
    let pending = read("status").lines().any(|line| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & KILLED != 0)
    });
    pending || stat.is_some_and(|stat| matches!(stat.state, 'Z' | 'X') || stat.flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children;
    use crate::sys::{Birth, at_birth};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::Signal;
    use std::fs::OpenOptions;
    use std::io::{BufRead as _, BufReader};
    use std::process::Command;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        (dir, home)
    }

    #[test]
    fn the_second_supervisor_is_told_who_holds_the_home() {
        let (_dir, home) = home();
        fs::write(home.lock(), "a remnant that is longer than a process id").unwrap();
        let first = SupervisorLock::acquire(&home).unwrap();
        let err = SupervisorLock::acquire(&home).unwrap_err();
        assert_eq!(err.kind(), Kind::Busy);
        assert!(err.to_string().contains(&format!("(process {})", std::process::id())), "{err}");
        drop(first);
        when_free(|| SupervisorLock::acquire(&home).ok());
    }

    #[test]
    fn what_a_killed_supervisor_leaves_behind_is_waited_for() {
        let (_dir, home) = home();
        // Beyond the highest process id that Linux can give.
        let gone = i32::MAX;
        let mut left = Some(SupervisorLock::acquire(&home).unwrap());
        fs::write(home.lock(), format!("{gone}\n")).unwrap();
        let release = || {
            drop(left.take());
            // A process that another test is starting may have a copy, until its own exec.
            thread::sleep(AGAIN);
        };
        let ours = SupervisorLock::acquire_between(&home, release).unwrap();
        assert_eq!(fs::read_to_string(home.lock()).unwrap(), format!("{}\n", std::process::id()));
        drop(ours);
        // But not for ever.
        let held = when_free(|| SupervisorLock::acquire(&home).ok());
        fs::write(home.lock(), format!("{gone}\n")).unwrap();
        let mut pauses = 0;
        SupervisorLock::acquire_between(&home, || pauses += 1).unwrap_err();
        assert_eq!(pauses, TRIES - 1);
        drop(held);
    }

    #[test]
    fn a_supervisor_that_was_just_killed_does_not_count_as_one() {
        let (_dir, home) = home();
        let mut dying = children::spawn(Command::new("sleep").arg("1000")).unwrap();
        let pid = dying.pid().as_raw_pid().unsigned_abs();
        let mut left = Some(SupervisorLock::acquire(&home).unwrap());
        fs::write(home.lock(), format!("{pid}\n")).unwrap();
        assert!(is_alive(pid));
        assert_eq!(SupervisorLock::acquire_between(&home, || unreachable!()).unwrap_err().kind(), Kind::Busy);
        // A zombie from now on, or on the way to be one.
        dying.signal(Signal::KILL).unwrap();
        let release = || {
            drop(left.take());
            thread::sleep(AGAIN);
        };
        SupervisorLock::acquire_between(&home, release).unwrap();
        assert!(!is_alive(pid));
        poll(&mut [PollFd::from_borrowed_fd(dying.pidfd().unwrap(), PollFlags::IN)], None).unwrap();
        dying.try_wait().unwrap().unwrap();
    }

    /// Takes a lock as soon as that can be done: a child that another test is starting has copies of all our
    /// descriptors until its exec.
    #[track_caller]
    fn when_free<T>(mut take: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(lock) = take() {
                return lock;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it is still held");
            thread::yield_now();
        }
    }

    #[test]
    fn the_node_lock_lives_as_long_as_any_copy_of_its_descriptor() {
        let (_dir, home) = home();
        let held = NodeLock::try_acquire(&home).unwrap().unwrap().into_fd();
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(NodeLock::try_acquire(&home).unwrap().is_none());
        drop(copy);
        when_free(|| NodeLock::try_acquire(&home).unwrap());
    }

    #[test]
    fn a_process_holds_the_node_lock_that_it_inherits_and_we_do_not() {
        let (_dir, home) = home();
        let lock = NodeLock::try_acquire(&home).unwrap().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 1000"]);
        at_birth(&mut command, Birth { session: true, inherit: vec![lock.into_fd()], ..Birth::default() });
        let mut node = children::spawn(&mut command).unwrap();
        drop(command);
        assert!(NodeLock::try_acquire(&home).unwrap().is_none());
        node.signal(Signal::KILL).unwrap();
        poll(&mut [PollFd::from_borrowed_fd(node.pidfd().unwrap(), PollFlags::IN)], None).unwrap();
        node.try_wait().unwrap().unwrap();
        when_free(|| NodeLock::try_acquire(&home).unwrap());
    }

    const HOLD: &str = "WEMIXVISOR_TEST_HOLD";

    /// Not a test of its own: what the next one runs as another process, since one's own fcntl locks
    /// never stand in one's way.
    #[test]
    fn holder_of_an_fcntl_lock() {
        let Some(path) = std::env::var_os(HOLD) else { return };
        let file = OpenOptions::new().write(true).open(path).unwrap();
        rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
        println!("locked");
        io::stdin().read_to_string(&mut String::new()).unwrap();
    }

    #[test]
    fn an_fcntl_lock_of_the_node_is_seen_with_its_holder() {
        let (dir, _) = home();
        let path = dir.path().join("LOCK");
        fs::write(&path, "").unwrap();
        let (stdin, stdin_end) = io::pipe().unwrap();
        let (stdout_end, stdout) = io::pipe().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "home::lock::tests::holder_of_an_fcntl_lock", "--nocapture"]);
        command.env(HOLD, &path).stdin(stdin).stdout(stdout);
        let holder = children::spawn(&mut command).unwrap();
        drop(command);
        let mut lines = BufReader::new(stdout_end).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("locked")));
        let pid = Some(holder.pid().as_raw_pid());
        assert_eq!(probe_data_lock(&path).unwrap(), DataLock::Held { path: path.clone(), pid });
        drop(stdin_end);
        assert_eq!(lines.filter(|line| line.as_ref().unwrap().contains("1 passed")).count(), 1);
        assert_eq!(probe_data_lock(&path).unwrap(), DataLock::Free);
    }

    #[test]
    fn the_nodes_own_lock_is_seen_and_left_as_it_is() {
        let (dir, _) = home();
        let pattern = dir.path().join("data/*/LOCK");
        assert_eq!(probe_data_lock(&pattern).unwrap(), DataLock::Absent);
        let path = dir.path().join("data/geth/LOCK");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "content").unwrap();
        assert_eq!(probe_data_lock(&pattern).unwrap(), DataLock::Free);
        let holder = File::open(&path).unwrap();
        flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(probe_data_lock(&pattern).unwrap(), DataLock::Held { path: path.clone(), pid: None });
        drop(holder);
        when_free(|| (probe_data_lock(&pattern).unwrap() == DataLock::Free).then_some(()));
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }

    #[test]
    fn a_lock_that_is_not_a_file_does_not_hang_the_probe() {
        let (dir, _) = home();
        let path = dir.path().join("data/geth/LOCK");
        fs::create_dir_all(&path).unwrap();
        assert_eq!(probe_data_lock(&dir.path().join("data/*/LOCK")).unwrap(), DataLock::Absent);
    }
}
