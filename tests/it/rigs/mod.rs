//! Rigs that break the program on purpose: it is killed, or one of its system calls fails, at every call that changes
//! something; afterwards nothing may be lost.
//!
//! `cargo test` breaks a sample. `RIG_FULL=1` breaks every call. A failure prints the variables that repeat it:
//! `RIG_SEED` chooses the sample, `RIG_CASE` one command, `RIG_AT` one call and `RIG_ERRNO` one error; `RIG_RUNS` is the
//! size of the sample.

use nix::errno::Errno;

mod calls;
mod cases;
mod damage;
mod disk;
mod errors;
mod faults;
mod flows;
mod kills;
mod life;
mod power;
mod registers;
mod settings;
mod syncs;
mod trace;
mod tree;
mod upgrade;
mod ways;

/// Without ptrace every rig passes and proves nothing, which must not look like success.
#[test]
fn tracing_is_permitted_or_the_rigs_prove_nothing() {
    let may_skip = std::env::var_os("RIG_MAY_SKIP").is_some();
    assert!(
        trace::is_permitted() || may_skip,
        "ptrace is not permitted here; to do without the rigs set RIG_MAY_SKIP=1"
    );
}

/// The errors of a full, a broken and a read-only disk, and of a machine without resources.
const ERRORS: [Errno; 6] =
    [Errno::ENOSPC, Errno::EIO, Errno::EMFILE, Errno::EAGAIN, Errno::EROFS, Errno::EINTR];

/// Whether an exit code is one of the documented ones (the man page lists them), and none of a bug.
fn is_documented(code: i32) -> bool {
    [0, 1, 2, 3, 4, 5, 65, 66, 69, 74, 75, 76, 77, 78, 79].contains(&code)
}
