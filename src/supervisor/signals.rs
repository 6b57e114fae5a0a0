//! The thread that turns signals into facts.
//!
//! Every signal that would end a process and can be caught is caught, so that none ends us and leaves the node. The loop
//! decides what follows.

use super::start_thread;
use crate::error::{Error, Kind, Result};
use crate::sys;
use crossbeam_channel::Sender;
use signal_hook::consts::signal;
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;
use std::sync::atomic::{AtomicBool, Ordering};

/// The request that a signal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// A child has ended (SIGCHLD).
    Child,
    /// Stop the node and end (SIGTERM, SIGINT, SIGQUIT).
    Stop,
    /// Read the configuration again (SIGHUP).
    Reload,
    /// Log the state (SIGUSR1).
    Dump,
    /// Execute the program that is at our path by now (SIGUSR2).
    Reexec,
    /// Nothing (all others).
    Ignored(i32),
}

/// Signals that stand for a request.
const MEANT: [(i32, Signal); 7] = [
    (signal::SIGCHLD, Signal::Child),
    (signal::SIGTERM, Signal::Stop),
    (signal::SIGINT, Signal::Stop),
    (signal::SIGQUIT, Signal::Stop),
    (signal::SIGHUP, Signal::Reload),
    (signal::SIGUSR1, Signal::Dump),
    (signal::SIGUSR2, Signal::Reexec),
];

/// Signals that are caught only so that they do not end us.
const IGNORED: [i32; 11] = [
    signal::SIGALRM,
    signal::SIGVTALRM,
    signal::SIGPROF,
    signal::SIGIO,
    signal::SIGXCPU,
    signal::SIGXFSZ,
    signal::SIGTSTP,
    signal::SIGTTIN,
    signal::SIGTTOU,
    SIGSTKFLT,
    SIGPWR,
];

/// Signals without a meaning of their own; the C library keeps those below for itself.
const REALTIME: std::ops::RangeInclusive<i32> = 35..=64;

/// Numbers of Linux that the signal library does not name.
const SIGSTKFLT: i32 = 16;
const SIGPWR: i32 = 30;

static STOP_CAME: AtomicBool = AtomicBool::new(false);

/// Starts catching signals, and sends each to `facts` from a thread of its own. Signals that came while this program
/// took the place of another in this process come first.
///
/// # Errors
/// If the operating system refuses to install a handler or to start a thread.
pub(super) fn watch(facts: Sender<Signal>) -> Result<()> {
    let caught = MEANT.into_iter().map(|(number, _)| number).chain(IGNORED).chain(REALTIME);
    let mut signals = Signals::new(caught).map_err(|e| Error::new(Kind::Io, "catch signals").because(e))?;
    sys::release_signals();
    let body = move || {
        for number in &mut signals {
            if meaning(number) == Signal::Stop {
                STOP_CAME.store(true, Ordering::Relaxed);
            }
            if facts.send(meaning(number)).is_err() {
                return;
            }
        }
    };
    start_thread("signals", body)
}

/// Whether a signal to stop has come, which may still wait for the loop.
pub(super) fn stop_came() -> bool {
    STOP_CAME.load(Ordering::Relaxed)
}

fn meaning(number: i32) -> Signal {
    let meant = MEANT.iter().find(|(meant, _)| *meant == number);
    meant.map_or(Signal::Ignored(number), |(_, signal)| *signal)
}

/// The name of a signal, or its number where it has none.
pub(super) fn name(number: i32) -> String {
    signal_name(number).map_or_else(|| number.to_string(), ToOwned::to_owned)
}
