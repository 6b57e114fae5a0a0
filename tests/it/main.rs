//! One integration binary with its own harness.

// A test that cannot go on is to panic, in its helpers as well.
#![allow(clippy::unwrap_used)]

mod archives;
mod docs;
mod download;
mod fleet;
mod house;
mod plans;
mod rig;
mod rolling;
mod simnode;
mod upgrade;
