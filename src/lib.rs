//! `wemixvisor` runs one blockchain node as its child and replaces the node's binary at block heights,
//! unattended, without losing data and without hurting the network.
//!
//! # How it works
//!
//! ```text
//!  threads that know       the main thread                     threads that do
//!
//!  signals   a signal ─────┐                                ┌─▶ worker       one job at a time
//!  minder    node's end ───┤ facts               Actions    │     rehearsal, download-ask, download-watch
//!  watcher   plans ────────┤  ┌────────────┐ ┌─────────┐    ├─▶ recorder     journal, schedule, history
//!  poller    heads ────────┼─▶│ supervisor │◀│ machine │────┼─▶ head-keeper  the newest block that counts
//!    heads   by IPC        │  │ (loop,     │▶│ (pure)  │    ├─▶ locks        until the old node's are free
//!  surveyor  the network ──┤  │  effects)  │ └─────────┘    ├─▶ post-upgrade the hook behind an upgrade
//!  ports     node's ports ─┤  └────────────┘                ├─▶ sweeper      removes what a crash has left
//!  control   requests ─────┤     child, link                ├─▶ notifier     the operator's program for events
//!    control-peer          │   one for each caller          └─▶ log          writes to stderr
//!  metrics   scrapes ──────┘     metrics-file  writes them
//!    metrics-peer              one for each client
//!
//!  what these have done comes back to the loop as a fact
//! ```
//!
//! Threads send facts, the machine decides, the supervisor performs. Nothing else decides; nothing else
//! performs. So everything worth arguing about (when an upgrade is due, whether a validator may stop,
//! what a failure means, whether there is a way back) is in [`machine`], which has no I/O, no clock and no
//! thread and is tested in milliseconds, and everything that can go wrong in the world comes to it as an event.
//!
//! # A way through the house
//!
//! - [`machine`]: start here. The states of a supervised node and of an upgrade, as one state machine.
//! - [`supervisor`]: the loop that feeds it, and the threads around it.
//! - [`upgrade`]: the jobs an upgrade needs (download, verification, installation, backup, hook), and the
//!   journal that survives a crash.
//! - [`home`]: every path below `$DAEMON_HOME`, the locks, and the primitives that change files durably.
//! - [`schedule`]: what is planned, by whatever source, and plans of many upgrades. [`wbft`]: the node's RPC and what
//!   follows from it about the consensus. [`config`]: the configuration. These three and `home` are the public library,
//!   with the plain data in their signatures: [`Name`], [`Digest`], [`Error`].
//! - [`cli`]: the command line. [`children`] and [`sys`]: processes, and the only unsafe code of the library.
//!   `unwind`, in the program alone, keeps the standard library's unwinder out of the static release.
//! - [`name`], [`digest`], [`time`], [`error`], [`exit`], [`force`]: plain data that all modules use. `url` and `printable`:
//!   what may be shown of a URL, and of any text that others have written. `flags`: the grammar of a node's flags.
//!   `sorted`: sorting and look-ups with one copy of the code for all types.
//!
//! # Where do I put …
//!
//! | new | place |
//! |---|---|
//! | a gate for a validator's stop | `machine::gates`: a variant of `Gate`, judged by `judge`; its numbers in its `Display` |
//! | a reason to wait, retry or give up | `machine`: `setback` while an upgrade is under way, `restart` otherwise |
//! | a fact from the world | a thread of [`supervisor`], a `Turn`, and a variant of `machine::Event` |
//! | an effect | a variant of `machine::Action`, done in `supervisor::perform`; long work is a `Job` of `supervisor::worker` |
//! | a configuration key | one line in `config::keys`: loader, help, template and man page follow |
//! | a source of upgrades | `schedule::sources`, which reads all of them, and a variant of `machine::Origin` |
//! | an attribute of an upgrade | `schedule::entry` (as written), `machine::upgrade` (as planned), `machine::record` (as attempted), `machine::view` (as shown) |
//! | a way to ask the node | `wbft::rpc` for a transport, `wbft::client` for a method |
//! | a decision that the operator can configure | a key, `machine::Policy`, and `config::policy` between the two |
//! | a command | `cli::help` (its usage and options), `cli::args` (its words), a file in `cli` |
//! | an exit code | [`exit`], and the [`Kind`] of that number |
//! | a metric | `supervisor::metrics`, from what `status` shows; a number that only grows, `upgrade::counters`. The man page names it |
//! | a path of the HTTP server | `supervisor::exporter` |
//! | a figure of a receipt | `machine::receipt`, which takes notes of events and decides nothing; the man page says how to check it |
//! | something that needs the operator | `machine::health`: status, exit code, service manager and metrics follow |
//! | a thing that must be right before a node is left alone | `cli::doctor`: a function of `judge`, its facts in the gatherer |
//! | news for a service manager | `supervisor::service` |
//! | an event for the operator's program | the table of `supervisor::notifier`, from a `Notice` |
//!
//! The threat model is in [`security`], the faults of the programs before this one in [`predecessors`].
//!
//! # What is deliberately absent
//!
//! - An async runtime: a handful of threads and channels do, and the binary stays small and auditable.
//! - A shell: hooks and smoke tests are executed directly, with their own arguments.
//! - SIGKILL on the upgrade path, unless configured: a killed WBFT node goes back by minutes to hours of blocks.
//! - Any name of a chain or of its node's files: they are found by pattern and can be configured.
//! - A fallback to the first binary: where `current` leads nowhere, a person has to look.

#![deny(unsafe_code)]
// `print!` and `eprint!` panic where their output is not read; `cli` writes in ways that do not.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]
// The way through the house leads to rooms that the public library does not show.
#![allow(rustdoc::private_intra_doc_links)]

mod children;
mod cli;
pub mod config;
#[cfg(test)]
mod crash;
mod digest;
mod error;
mod exit;
mod flags;
mod force;
pub mod home;
mod machine;
mod name;
#[doc = include_str!("predecessors.md")]
pub mod predecessors {}
mod printable;
pub mod schedule;
#[doc = include_str!("security.md")]
pub mod security {}
mod sorted;
mod supervisor;
mod sys;
mod time;
mod upgrade;
mod url;
pub mod wbft;

#[doc(hidden)]
pub use cli::program;
pub use digest::{Algorithm, BadDigest, Digest};
pub use error::{Error, Kind, Result};
pub use name::{BadName, Name};

/// The inside of the program, for the tests that need more of it than a process shows. It is no part of the library.
#[doc(hidden)]
pub mod inside {
    pub use crate::cli::{COMMANDS, OPTIONS, Opt};
    pub use crate::exit::Exit;
    pub use crate::force::Force;
    pub use crate::home::durable::mkdir;
    pub use crate::machine::{Back, HeadRecord, NodeMark};
    pub use crate::supervisor::{Reply, Request, ask};
    pub use crate::sys::{Birth, at_birth};
    pub use crate::upgrade::install::{Staged, digest_of};
    pub use crate::upgrade::rehearse::Report;
    pub use crate::upgrade::sweep::sweep;
    pub use crate::upgrade::{Cancel, download};

    pub mod backup {
        pub use crate::upgrade::backup::{Content, Method, Options, Work, list, load, verify};
    }

    pub mod head {
        pub use crate::upgrade::head::read;
    }

    pub mod journal {
        pub use crate::upgrade::journal::{Journal, Opened};
    }
}
