//! Handling of our own bugs: a panic is reported, and the process ends with the exit code of a bug.
//!
//! A running node goes on, and the next supervisor takes it over. So no bug must be survived in place, and no supervisor
//! goes on without one of its threads.

use super::{logger, tell};
use crate::exit::Exit;
use std::panic::{self, PanicHookInfo};
use std::process::exit;
use std::thread;

/// Has every panic, in any thread, end the process.
pub fn ends_the_process() {
    panic::set_hook(Box::new(|info| {
        let text = describe(info);
        if logger::has_started() {
            log::error!("event=bug {text}; the node goes on");
            logger::flush();
        } else {
            tell(format_args!("wemixvisor: a bug: {text}"));
        }
        exit(Exit::Bug.code().into());
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let at = info.location().map_or_else(String::new, ToString::to_string);
    let current = thread::current();
    let name = current.name().unwrap_or("?");
    format!("at={at} thread={name} {}", info.payload_as_str().unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const PANIC: &str = "WEMIXVISOR_TEST_PANIC";

    /// Not a test of its own: what the test below executes.
    #[test]
    fn a_thread_that_panics() {
        if std::env::var_os(PANIC).is_some() {
            ends_the_process();
            thread::Builder::new().name("deaf".to_owned()).spawn(|| panic!("too\nmuch")).unwrap();
            loop {
                thread::park();
            }
        }
    }

    #[test]
    fn a_bug_in_any_thread_is_named_and_ends_the_process() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cli::bug::tests::a_thread_that_panics"]).env(PANIC, "1");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(Exit::Bug.code().into()));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("wemixvisor: a bug: at=src/cli/bug.rs:"), "{said}");
        assert!(said.contains("thread=deaf too"), "{said}");
    }
}
