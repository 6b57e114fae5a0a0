//! Entry point: parse, dispatch, report once, exit code.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use wemixvisor::{cli, exit::Exit, sys};

fn main() -> ExitCode {
    sys::keep_files_private();
    let argv = std::env::args_os().skip(1).collect();
    // A bug of ours ends us in good order: the node then gets its parent-death signal and stops.
    match catch_unwind(AssertUnwindSafe(|| cli::dispatch(argv))) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(e)) => {
            cli::tell(format_args!("wemixvisor: {e}"));
            ExitCode::from(e.kind().exit().code())
        }
        Err(_) => ExitCode::from(Exit::Bug.code()),
    }
}
