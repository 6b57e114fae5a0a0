//! The node as a process: how it is executed, signalled and reaped.
//!
//! It gets a session of its own, so that a Ctrl-C on our terminal does not reach it; a parent-death
//! signal, so that it is asked to stop should we be killed; and the node lock, so that no second one
//! can start while anything of it is alive. It inherits stdout and stderr: its output never passes
//! through us and so never waits for us.
//!
//! Architecture invariant: called from the main thread only. The parent-death signal follows the
//! thread that spawned (prctl(2)), and the main thread lives as long as the process. When the whole
//! process is killed, its threads die one by one and the node may get the signal a few times.

use super::node_args::Launch;
use crate::children::{self, Owned};
use crate::home::Home;
use crate::home::lock::NodeLock;
use crate::machine::{Class, Failure, Status};
use crate::sys::{Birth, at_birth};
use rustix::io::Errno;
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A node process that has not been reaped.
#[derive(Debug)]
pub(super) struct Child {
    process: Owned,
}

impl Child {
    /// Executes `binary` with these arguments, in order, and with our environment but for what is hidden or set anew.
    pub(super) fn spawn(home: &Home, binary: &Path, launch: &Launch) -> Result<Self, Failure> {
        let lock = NodeLock::try_acquire(home)
            .map_err(|e| Failure::new(Class::Environment, e.to_string()))?
            .ok_or_else(|| {
                Failure::new(Class::Environment, "something of the previous node is still alive")
            })?;
        let mut command = Command::new(binary);
        command.args(&launch.args).stdin(Stdio::null()).envs(launch.set.iter().cloned());
        for name in &launch.hidden {
            command.env_remove(name);
        }
        let birth = Birth { session: true, parent_death: Some(Signal::TERM), inherit: vec![lock.into_fd()] };
        at_birth(&mut command, birth);
        match children::spawn(&mut command) {
            Ok(process) => Ok(Child { process }),
            Err(e) => Err(Failure::new(class(&e), format!("{}: {e}", binary.display()))),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid().as_raw_pid().unsigned_abs()
    }

    /// Asks the node, and nothing else of its group, to stop.
    pub(super) fn terminate(&self) -> io::Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Kills the node and whatever it has started in its session.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.process.signal_group(Signal::KILL)
    }

    /// How the node ended, if it has; it is reaped then.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<Status>> {
        let status = self.process.try_wait()?;
        Ok(status.map(|s| s.code().map_or_else(|| Status::Signal(s.signal().unwrap_or(0)), Status::Code)))
    }
}

/// Whose fault a failed execution is. What the kernel says of the file itself is the binary's, the rest is
/// the machine's: no more processes, memory or descriptors are to be had.
fn class(err: &io::Error) -> Class {
    use io::ErrorKind::{ExecutableFileBusy, OutOfMemory, ResourceBusy, StorageFull, WouldBlock};
    match (err.kind(), err.raw_os_error().map(Errno::from_raw_os_error)) {
        (ExecutableFileBusy | OutOfMemory | ResourceBusy | StorageFull | WouldBlock, _)
        | (_, Some(Errno::MFILE | Errno::NFILE | Errno::IO)) => Class::Environment,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_not_the_fault_of_a_binary() {
        for lacking in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM, Errno::TXTBSY, Errno::IO] {
            assert_eq!(class(&lacking.into()), Class::Environment, "{lacking}");
        }
        for bad in [Errno::NOEXEC, Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::TOOBIG] {
            assert_eq!(class(&bad.into()), Class::Permanent, "{bad}");
        }
    }
}
