//! The documented exit codes: the one enum that scripts rely on, and its mapping from error kinds.
//!
//! Numbers follow `sysexits.h` where it has a fitting one. The table in the man page lists the same
//! codes; a test keeps the two from drifting apart.

/// How a command ended, as seen by a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `run`: asked to stop, and the node has stopped.
    Ok = 0,
    /// Failed, see the message.
    Failed = 1,
    /// Wrong usage of the command line.
    Usage = 2,
    /// No supervisor is running on this home.
    NoSupervisor = 3,
    /// No such upgrade, plan or backup.
    NotFound = 4,
    /// A condition is not met (`wait-height`, `check`, `doctor`).
    NotMet = 5,
    /// An input file is bad (plan, `upgrade-info.json`, manifest).
    BadInput = 65,
    /// A verification failed (checksum, signature).
    Verification = 66,
    /// An RPC or download server cannot be reached.
    Unreachable = 69,
    /// A bug in wemixvisor.
    Bug = 70,
    /// An input or output operation failed.
    Io = 74,
    /// Another supervisor holds this home.
    Busy = 75,
    /// A peer answered nonsense.
    Nonsense = 76,
    /// Permission denied.
    Permission = 77,
    /// The configuration is bad.
    Config = 78,
    /// Halted: the operator must decide.
    Halted = 79,
}

impl Exit {
    /// Every code with its meaning, in numeric order; help and man page are checked against it.
    pub const ALL: [(Exit, &'static str); 16] = [
        (Exit::Ok, "done; run: asked to stop, node stopped"),
        (Exit::Failed, "failed, see message"),
        (Exit::Usage, "wrong usage"),
        (Exit::NoSupervisor, "no supervisor is running"),
        (Exit::NotFound, "no such upgrade, plan or backup"),
        (Exit::NotMet, "condition not met"),
        (Exit::BadInput, "bad input file"),
        (Exit::Verification, "verification failed"),
        (Exit::Unreachable, "RPC or server cannot be reached"),
        (Exit::Bug, "bug in wemixvisor"),
        (Exit::Io, "I/O error"),
        (Exit::Busy, "another supervisor holds this home"),
        (Exit::Nonsense, "a peer answered nonsense"),
        (Exit::Permission, "permission denied"),
        (Exit::Config, "bad configuration"),
        (Exit::Halted, "halted: needs the operator"),
    ];

    /// The number a shell sees in `$?`.
    pub fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_are_unique() {
        assert!(Exit::ALL.windows(2).all(|w| w[0].0.code() < w[1].0.code()));
    }
}
