//! Replacing the program of a supervisor that runs: the process stays, and with it the lock, the control socket and the
//! node, which remains its child.
//!
//! First the program at our path is asked whether it can go on from here. Then it is executed in our place, with two
//! descriptors open, which an environment variable names. If that fails, nothing has changed.

use super::{control, signals};
use crate::children::{self, HANDOVER};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::home::lock::SupervisorLock;
use crate::sys;
use crate::upgrade::Cancel;
use crate::upgrade::journal;
use crate::upgrade::run::{self, End, Program};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::time::Duration;

/// The option by which a program is asked whether it could go on with a journal of a version.
pub const CAN_RESUME: &str = "--can-resume";
/// How long the new program may take to report whether it can go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The claim on a home, and the socket at which it is asked.
#[derive(Debug)]
pub(super) struct Seat {
    lock: SupervisorLock,
    socket: UnixListener,
}

impl Seat {
    /// Claims the home, or goes on with the claim of the program before us in this process.
    ///
    /// # Errors
    /// If the home is taken ([`Kind::Busy`]), or the socket cannot be had.
    pub(super) fn take(home: &Home) -> Result<Seat> {
        match inherited() {
            Some([lock, socket]) => {
                let fd =
                    |number| sys::inherited(number).map_err(|e| Error::new(Kind::Io, "go on").because(e));
                let lock = SupervisorLock::inherited(home, fd(lock)?)?;
                Ok(Seat { lock, socket: fd(socket)?.into() })
            }
            None => {
                let lock = SupervisorLock::acquire(home)?;
                Ok(Seat { lock, socket: control::listen(home)? })
            }
        }
    }

    /// The socket, to be served.
    ///
    /// # Errors
    /// If no descriptor can be had.
    pub(super) fn socket(&self) -> Result<UnixListener> {
        self.socket.try_clone().map_err(|e| Error::new(Kind::Io, "serve the control socket").because(e))
    }

    /// Executes the program that is now at our path. It returns only if that cannot be done, and why.
    pub(super) fn hand_over(&self) -> Error {
        let mut argv = env::args_os();
        let name = argv.next().unwrap_or_default();
        let rest: Vec<OsString> = argv.collect();
        let path = our_path(&name);
        log::info!("event=reexec path={}", path.display());
        let why = match can_resume(&path, &rest) {
            // It waits for the loop, and would be lost.
            Ok(()) if signals::stop_came() => "a signal to stop came meanwhile".to_owned(),
            Ok(()) => self.execute(&path, &name, &rest).to_string(),
            Err(why) => why,
        };
        Error::new(Kind::Failed, "the program at our path cannot go on from here; nothing has changed")
            .at(path.display())
            .because(why)
    }

    fn execute(&self, path: &Path, name: &OsStr, args: &[OsString]) -> io::Error {
        let (lock, socket) = (self.lock.as_fd(), self.socket.as_fd());
        let mut command = Command::new(path);
        command.arg0(name).args(args);
        command.env(HANDOVER, format!("{} {} {}", id(), lock.as_raw_fd(), socket.as_raw_fd()));
        children::exec(&mut command, &[lock, socket])
    }
}

/// The descriptors that were handed over to this process, if any were. Our children have other process ids.
fn inherited() -> Option<[i32; 2]> {
    let value = env::var(HANDOVER).ok()?;
    let mut numbers = value.split(' ').map(str::parse);
    let mut next = || numbers.next().and_then(std::result::Result::ok);
    let process: i32 = next()?;
    let found = [next()?, next()?];
    (process.unsigned_abs() == id()).then_some(found)
}

/// The path from which we were executed: a link there may lead to another file by now. A bare name was found in `PATH`.
fn our_path(name: &OsStr) -> PathBuf {
    let is_bare = Path::new(name).components().count() == 1;
    let dirs = env::var("PATH").unwrap_or_default();
    let mut files = env::split_paths(&dirs).map(|dir| dir.join(name)).filter(|file| file.is_file());
    files.next().filter(|_| is_bare).unwrap_or_else(|| name.into())
}

/// Asks a program whether it could go on from the state on disk, with our arguments.
fn can_resume(path: &Path, args: &[OsString]) -> std::result::Result<(), String> {
    let version = journal::VERSION.to_string();
    let ours: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let asked = [CAN_RESUME, &version].into_iter().chain(ours.iter().map(AsRef::as_ref)).collect::<Vec<_>>();
    let bare = Program::bare(path, &asked, Path::new("."), PATIENCE, Duration::from_secs(1));
    let program = Program { inherit: true, ..bare };
    let cancel = Cancel::new().map_err(|e| e.to_string())?;
    let ran = run::run(&program, &cancel).map_err(|e| e.to_string())?;
    if ran.end == End::Exited(0) { Ok(()) } else { Err(ran.last_words()) }
}
