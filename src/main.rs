//! Entry point.

#![deny(clippy::print_stderr, clippy::print_stdout)]

#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wemixvisor::program(std::env::args_os().skip(1).collect()))
}
