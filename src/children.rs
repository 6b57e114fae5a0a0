//! Our child processes and their owners, so that no exit status is lost and no zombie stays.
//!
//! Orphans of the node and of hooks can become our children (when we are process 1 or a subreaper)
//! and must be waited for. Waiting for just any child would steal the exit status of one that
//! other code waits for. So every child of ours is spawned here and belongs to its [`Owned`]
//! value; [`reap_strays`] takes all others.

use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group,
    pidfd_open, pidfd_send_signal, waitid, waitpid,
};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks at a process for which there is no descriptor.
const BLIND: Duration = Duration::from_millis(10);
/// Held locked from before a fork until its child is in.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { owned: BTreeSet::new(), interrupted: false });

struct Registry {
    /// The process ids that belong to an [`Owned`].
    owned: BTreeSet<i32>,
    /// Whether the reaper had to stop at an owned child, behind which there may be strays.
    interrupted: bool,
}

/// A child process that only the holder of this value waits for.
///
/// Dropped before it was waited for, the process goes on, and becomes a stray when it ends.
#[derive(Debug)]
pub struct Owned {
    pid: Pid,
    /// None where pidfd_open(2) failed.
    pidfd: Option<OwnedFd>,
    status: Option<ExitStatus>,
}

/// Names our process, and in it what one program of ours hands over to the next.
pub const HANDOVER: &str = "WEMIXVISOR_HANDOVER";

/// Variables that are meant for us and not for our children: those by which a service manager speaks to us, the one by which a
/// supervisor hands over to the next, and those whose values may hold passwords.
const PRIVATE: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    HANDOVER,
    "DAEMON_DOWNLOAD_PROXY",
    "DAEMON_DOWNLOAD_URLS",
    "DAEMON_NOTIFY_COMMAND",
];

/// Has a child get our environment without what is meant for us alone.
pub fn keep_private(command: &mut Command) {
    for name in PRIVATE {
        command.env_remove(name);
    }
}

/// Spawns a child that belongs to the returned value.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: &mut Command) -> io::Result<Owned> {
    let mut registry = registry();
    // Reserves a descriptor for the process.
    let place = fcntl_dupfd_cloexec(std::io::stderr(), 3);
    let child = spawn_when_closed(command)?;
    let pid = Pid::from_child(&child);
    drop(place);
    registry.owned.insert(pid.as_raw_pid());
    // Without a descriptor the process is waited for by its number; it must not be killed for that.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())
        .inspect_err(|e| log::warn!("event=no_pidfd pid={} {e}", pid.as_raw_pid()))
        .ok();
    Ok(Owned { pid, pidfd, status: None })
}

/// Takes over a child that was spawned by the program which ran in this process before us; `pidfd` stands for it.
#[must_use]
pub fn take_over(pid: Pid, pidfd: OwnedFd) -> Owned {
    registry().owned.insert(pid.as_raw_pid());
    Owned { pid, pidfd: Some(pidfd), status: None }
}

/// Executes `command` in the place of this program, which hands these descriptors down to it. It returns only if that
/// fails, and nothing has changed then.
pub fn exec(command: &mut Command, inherit: &[BorrowedFd<'_>]) -> io::Error {
    // No other child is born meanwhile that would inherit them, too.
    let _registry = registry();
    let set = |flags| inherit.iter().try_for_each(|fd| fcntl_setfd(fd, flags));
    let failed = match set(FdFlags::empty()) {
        Ok(()) => sys::exec(command),
        Err(e) => e.into(),
    };
    // A descriptor that is open has flags, so this does not fail.
    let _ = set(FdFlags::CLOEXEC);
    failed
}

/// A file that was just written can be "busy" for a moment: a child forked meanwhile by another thread has
/// its descriptor until the end of its own exec, which it reports a little earlier.
fn spawn_when_closed(command: &mut Command) -> io::Result<Child> {
    for _ in 0..50 {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(2))
            }
            result => return result,
        }
    }
    command.spawn()
}

/// Waits for every child that has ended and has no owner; returns how many there were.
///
/// An owned child that has ended hides strays from us until its owner has waited for it;
/// [`Owned::try_wait`] then goes on here. In a process that calls this, every child must be spawned by
/// [`spawn`].
pub fn reap_strays() -> usize {
    let mut registry = registry();
    registry.interrupted = false;
    let mut count = 0;
    while let Ok(Some(pid)) = sys::peek_ended_child() {
        if registry.owned.contains(&pid) {
            registry.interrupted = true;
            break;
        }
        match waitpid(Pid::from_raw(pid), WaitOptions::NOHANG) {
            Ok(Some(_)) => count += 1,
            Ok(None) | Err(_) => break,
        }
    }
    count
}

impl Owned {
    /// The process id, which stays its own until [`Owned::try_wait`] has returned a status.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that becomes readable when the process has ended (pidfd_open(2)), where one could be had.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Waits until the process has ended, for this time at most. Returns whether it has; it is not reaped.
    #[must_use]
    pub fn ends_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            if self.has_ended().unwrap_or(true) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let fd = self.pidfd().map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
            let waited = fd.map(|fd| poll(&mut [fd], Timespec::try_from(left).ok().as_ref()));
            if !matches!(waited, Some(Ok(_) | Err(Errno::INTR))) {
                thread::sleep(left.min(BLIND));
            }
        }
    }

    /// Whether the process has ended. It is not reaped.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn has_ended(&self) -> io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(self.status.is_some() || waitid(WaitId::Pid(self.pid), look)?.is_some())
    }

    /// How the process ended, if it has; it is then no zombie any more.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none()
            && let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::NOHANG)?
        {
            self.status = Some(ExitStatus::from_raw(status.as_raw()));
            let go_on = {
                let mut registry = registry();
                registry.owned.remove(&self.pid().as_raw_pid());
                registry.interrupted
            };
            if go_on {
                reap_strays();
            }
        }
        Ok(self.status)
    }

    /// Sends a signal to the process. That it has ended already is fine.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => gone_is_fine(pidfd_send_signal(pidfd, signal)),
            // As long as it was not waited for, the number is its own.
            None if self.status.is_none() => gone_is_fine(kill_process(self.pid, signal)),
            None => Ok(()),
        }
    }

    /// Sends a signal to the process group that the process leads. A group without processes is no error; after
    /// [`Owned::try_wait`] has returned a status nothing is sent, since the group's number may be another's.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        gone_is_fine(kill_process_group(self.pid(), signal))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.status.is_none() {
            registry().owned.remove(&self.pid().as_raw_pid());
        }
    }
}

fn registry() -> MutexGuard<'static, Registry> {
    // A panic elsewhere leaves it whole: every change is one call.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The outcome of a signal. That the process has ended already is fine.
pub(crate) fn gone_is_fine(sent: rustix::io::Result<()>) -> io::Result<()> {
    match sent {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(child: &mut Owned) -> ExitStatus {
        poll(&mut [PollFd::from_borrowed_fd(child.pidfd().unwrap(), PollFlags::IN)], None).unwrap();
        child.try_wait().unwrap().unwrap()
    }

    #[test]
    fn the_reaper_never_takes_a_status_from_its_owner() {
        for code in 0..20 {
            let mut child = spawn(Command::new("/bin/sh").args(["-c", &format!("exit {code}")])).unwrap();
            poll(&mut [PollFd::from_borrowed_fd(child.pidfd().unwrap(), PollFlags::IN)], None).unwrap();
            reap_strays();
            assert_eq!(wait(&mut child).code(), Some(code));
            assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(code));
        }
    }

    #[test]
    fn the_end_of_a_child_is_waited_for_with_and_without_a_descriptor() {
        let sleeper = || {
            let mut command = Command::new("sleep");
            command.arg("1000");
            spawn(&mut command).unwrap()
        };
        let mut blind = sleeper();
        blind.pidfd = None;
        for mut child in [sleeper(), blind] {
            assert!(!child.ends_within(Duration::from_millis(1)));
            child.signal(Signal::KILL).unwrap();
            assert!(child.ends_within(Duration::from_secs(60)));
            assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(9));
        }
    }

    #[test]
    fn a_child_that_has_lost_its_owner_is_a_stray() {
        let child = spawn(&mut Command::new("/bin/true")).unwrap();
        let pidfd = child.pidfd().unwrap().try_clone_to_owned().unwrap();
        let pid = child.pid();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        drop(child);
        // Tests in parallel own children that may hide it for a moment, and may reap it as well.
        while waitpid_would_find(pid) {
            reap_strays();
            std::thread::yield_now();
        }
    }

    fn waitpid_would_find(pid: Pid) -> bool {
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[test]
    fn a_process_without_a_descriptor_is_followed_by_its_number() {
        let mut child = spawn(Command::new("/bin/sh").args(["-c", "exec sleep 1000"])).unwrap();
        child.pidfd = None;
        assert!(!child.has_ended().unwrap());
        assert_eq!(child.try_wait().unwrap(), None);
        child.signal(Signal::TERM).unwrap();
        while !child.has_ended().unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(15));
        assert!(child.has_ended().unwrap());
        child.signal(Signal::TERM).unwrap();
    }

    #[test]
    fn a_failed_exec_is_reported_and_leaves_nothing() {
        let err = spawn(&mut Command::new("/does/not/exist")).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_is_busy_for_a_moment_is_executed_when_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("true");
        std::fs::copy("/bin/true", &path).unwrap();
        let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(spawn(&mut Command::new(&path)).unwrap_err().kind(), io::ErrorKind::ExecutableFileBusy);
        drop(writer);
        assert!(wait(&mut spawn(&mut Command::new(&path)).unwrap()).success());
    }

    #[test]
    fn signals_reach_the_process_and_are_harmless_afterwards() {
        let mut child = spawn(Command::new("/bin/sh").args(["-c", "kill -STOP $$"])).unwrap();
        child.signal(Signal::KILL).unwrap();
        assert_eq!(wait(&mut child).signal(), Some(9));
        child.signal(Signal::TERM).unwrap();
        child.signal_group(Signal::TERM).unwrap();
    }
}
