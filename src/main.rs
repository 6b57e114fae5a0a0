//! Entry point: parse, dispatch, report once, exit code.

#![deny(clippy::print_stderr, clippy::print_stdout)]

#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

use std::process::ExitCode;
use wemixvisor::{cli, sys};

fn main() -> ExitCode {
    cli::bug::ends_the_process();
    sys::keep_files_private();
    match cli::dispatch(std::env::args_os().skip(1).collect()) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            cli::tell(format_args!("wemixvisor: {e}"));
            ExitCode::from(e.kind().code())
        }
    }
}
