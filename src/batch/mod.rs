//! Plans: many upgrades at heights, in one file each.
//!
//! Architecture invariant: nothing here knows the supervisor. What is scheduled, applied or measured
//! comes in as plain data.

mod plan;

pub use plan::{Entry, Plan};
