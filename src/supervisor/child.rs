//! The node as a process: how it is executed, taken over, signalled and reaped.
//!
//! It gets a session of its own, so that a Ctrl-C on our terminal does not reach it, and the node lock, so that no second
//! node can start while anything of it is alive. Before its exec it names itself in that lock, by which the next supervisor
//! knows it: the node outlives us (I11). It inherits stdout and stderr: its output never passes through us and so never
//! waits for us; that of a short try without peers goes to a file (`last_words`).

use super::last_words;
use super::node_args::Invocation;
use crate::children::{self, Owned, gone_is_fine};
use crate::home::Home;
use crate::home::launch::{self, Process};
use crate::home::lock::NodeLock;
use crate::home::stamp::Stamp;
use crate::machine::{Class, Failure, Status};
use crate::sys::{Birth, at_birth, exit_of};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process_group, pidfd_send_signal};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A node process that is not known to have ended.
#[derive(Debug)]
pub(super) enum Child {
    /// We have executed it.
    Own(Owned),
    /// An earlier supervisor has.
    Adopted {
        process: Process,
        /// When its end was first seen.
        ended: Option<Instant>,
    },
}

/// How long the end of an adopted node waits for its status: its parent may be late to fetch it.
pub(super) const LATE: Duration = Duration::from_secs(1);

impl Child {
    /// Executes `binary` with these arguments, in order, and with our environment but for what is hidden or set anew.
    ///
    /// A process that executes another file than the verified one, by its `stamp`, is killed at once: a program that another
    /// process of our user puts at the path in that moment runs for some microseconds. An exec by descriptor would exclude
    /// that, but would name the process by a number.
    pub(super) fn spawn(
        home: &Home,
        binary: &Path,
        invocation: &Invocation,
        number: u64,
        stamp: Stamp,
    ) -> Result<Self, Failure> {
        let environment = |e: String| Failure::new(Class::Environment, e);
        let lock = NodeLock::try_acquire(home)
            .map_err(|e| environment(e.to_string()))?
            .ok_or_else(|| environment("something of the previous node is still alive".to_owned()))?;
        let note = launch::note(number).map_err(|e| environment(format!("name the boot: {e}")))?;
        let mut command = Command::new(binary);
        command.args(&invocation.args).stdin(Stdio::null()).envs(invocation.set.iter().cloned());
        children::keep_private(&mut command);
        for name in &invocation.hidden {
            command.env_remove(name);
        }
        // Where the file cannot be made, its output goes where that of every node goes.
        if invocation.is_try
            && let Ok(file) = last_words::create(home)
        {
            command.stderr(file);
        }
        let inherit = vec![lock.into_fd()];
        at_birth(&mut command, Birth { session: true, inherit, note: Some(note), ..Birth::default() });
        match children::spawn(&mut command) {
            Ok(process) if executes(&process, stamp) => Ok(Child::Own(process)),
            Ok(mut process) => {
                let why = format!("{}: it was exchanged when it was executed", binary.display());
                end_at_once(&mut process).map_err(|e| environment(format!("{why}; killing it: {e}")))?;
                Err(Failure::new(Class::Integrity, why))
            }
            Err(e) => Err(Failure::new(class(&e), format!("{}: {e}", binary.display()))),
        }
    }

    /// Takes a node over that runs.
    pub(super) fn adopt(process: Process) -> Child {
        if process.is_child {
            Child::Own(children::take_over(process.pid, process.pidfd))
        } else {
            Child::Adopted { process, ended: None }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        let pid = match self {
            Child::Own(process) => process.pid(),
            Child::Adopted { process, .. } => process.pid,
        };
        pid.as_raw_pid().unsigned_abs()
    }

    /// A descriptor that becomes readable when the process has ended, where one could be had.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Child::Own(process) => process.pidfd(),
            Child::Adopted { process, .. } => Some(process.pidfd.as_fd()),
        }
    }

    /// Sends SIGTERM to the node alone, not to its group. A node that has ended already is no error.
    pub(super) fn terminate(&self) -> io::Result<()> {
        match self {
            Child::Own(process) => process.signal(Signal::TERM),
            Child::Adopted { process, .. } => gone_is_fine(pidfd_send_signal(&process.pidfd, Signal::TERM)),
        }
    }

    /// Kills the node and everything that it has started in its session.
    pub(super) fn kill(&self) -> io::Result<()> {
        match self {
            Child::Own(process) => process.signal_group(Signal::KILL),
            // While it runs the number of its group is its own.
            Child::Adopted { process, .. } if !has_ended(process.pidfd.as_fd())? => {
                gone_is_fine(kill_process_group(process.pid, Signal::KILL))
            }
            Child::Adopted { .. } => Ok(()),
        }
    }

    /// How the node ended, if it has; it is reaped then.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<Status>> {
        let status = match self {
            Child::Own(process) => process.try_wait()?,
            Child::Adopted { process, .. } if !has_ended(process.pidfd.as_fd())? => return Ok(None),
            // Its parent, which the system gave it, gets the status, and the kernel may keep it.
            Child::Adopted { process, ended } => match exit_of(process.pidfd.as_fd()) {
                Some(status) => Some(ExitStatus::from_raw(status)),
                None if ended.get_or_insert_with(Instant::now).elapsed() < LATE => return Ok(None),
                None => return Ok(Some(Status::Unknown)),
            },
        };
        Ok(status.map(|s| s.code().map_or_else(|| Status::Signal(s.signal().unwrap_or(0)), Status::Code)))
    }
}

/// Whether a process executes this file. A process that has ended already executes none, which is fine.
fn executes(process: &Owned, stamp: Stamp) -> bool {
    let exe = format!("/proc/{}/exe", process.pid().as_raw_pid());
    fs::metadata(exe).map_or(true, |meta| Stamp::from(&meta) == stamp)
}

fn end_at_once(process: &mut Owned) -> io::Result<()> {
    process.signal_group(Signal::KILL)?;
    // A process that is killed ends within milliseconds.
    while process.try_wait()?.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn has_ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&Timespec::default()))? > 0)
}

/// The class of a failed execution. An error about the file itself is the binary's fault, any other is the machine's: no
/// process, memory or descriptor is left, or the process cannot name itself in its lock.
fn class(err: &io::Error) -> Class {
    use io::ErrorKind::{
        ExecutableFileBusy, Interrupted, OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, ResourceBusy,
        StorageFull, WouldBlock,
    };
    match (err.kind(), err.raw_os_error().map(Errno::from_raw_os_error)) {
        (ExecutableFileBusy | Interrupted | OutOfMemory | ResourceBusy | WouldBlock, _)
        | (QuotaExceeded | ReadOnlyFilesystem | StorageFull, _)
        | (_, Some(Errno::MFILE | Errno::NFILE | Errno::IO)) => Class::Environment,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_put_in_the_place_of_the_verified_one_is_ended_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        let launch = Invocation { args: vec!["1000".into()], ..Invocation::default() };
        let sleep = fs::canonicalize("/bin/sleep").unwrap();
        let spawn = |stamp| Child::spawn(&home, &sleep, &launch, 1, stamp);
        let child = spawn(Stamp::of(&sleep).unwrap()).unwrap();
        child.kill().unwrap();
        drop(child);
        let other = Stamp::of(&fs::canonicalize("/bin/true").unwrap()).unwrap();
        let failure = loop {
            // The first one may still hold the lock.
            let failure = spawn(other).unwrap_err();
            if failure.class != Class::Environment {
                break failure;
            }
        };
        assert_eq!(failure.class, Class::Integrity, "{failure}");
        assert!(NodeLock::try_acquire(&home).unwrap().is_some(), "it is gone");
    }

    #[test]
    fn what_the_machine_lacks_is_not_the_fault_of_a_binary() {
        let of_the_machine =
            [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::INTR, Errno::NOMEM, Errno::TXTBSY];
        let of_the_disk = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
        for lacking in of_the_machine.into_iter().chain(of_the_disk) {
            assert_eq!(class(&lacking.into()), Class::Environment, "{lacking}");
        }
        for bad in [Errno::NOEXEC, Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::TOOBIG] {
            assert_eq!(class(&bad.into()), Class::Permanent, "{bad}");
        }
    }
}
