//! Threads without which the supervisor is blind or deaf.
//!
//! One that comes upon a bug of ours ends the whole process, as a bug in the loop does: the node goes on, and whoever
//! started us sees the exit code of a bug, starts us again, and we adopt it. To go on without hearing signals, heads or
//! plans would look well and miss the upgrade.

use crate::exit::Exit;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::thread;

/// Starts a thread that the process does not outlive should it panic.
///
/// # Errors
/// If the operating system refuses.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            exit(Exit::Bug.code().into());
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(guarded).map(drop)
}

#[cfg(test)]
mod tests {
    use crate::exit::Exit;
    use std::process::Command;

    const PANIC: &str = "WEMIXVISOR_TEST_PANIC";

    /// Not a test of its own: what the test below executes.
    #[test]
    fn a_thread_that_panics() {
        if std::env::var_os(PANIC).is_some() {
            super::spawn("deaf", || panic!("a bug")).unwrap();
            loop {
                std::thread::park();
            }
        }
    }

    #[test]
    fn a_bug_in_an_essential_thread_ends_the_process() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "supervisor::essential::tests::a_thread_that_panics"]).env(PANIC, "1");
        let status = command.output().unwrap().status;
        assert_eq!(status.code(), Some(Exit::Bug.code().into()));
    }
}
