//! One integration binary with its own harness.

// A test that cannot go on is to panic, in its helpers as well.
#![allow(clippy::unwrap_used)]

mod archives;
mod backup;
mod chain;
mod completion;
mod control;
mod docs;
mod doctor;
mod download;
mod fleet;
mod homes;
mod hooks;
mod house;
mod metrics;
mod migrate;
mod notify;
mod operator;
mod plans;
mod receipts;
mod recovery;
mod rehearse;
mod restart;
mod rig;
mod rigs;
mod rollback;
mod rpc;
mod scripts;
mod signals;
mod simnode;
mod trigger;
mod upgrade;
mod usage;
