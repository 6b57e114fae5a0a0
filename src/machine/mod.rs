//! PURE: what to do next. (To be written.)

mod upgrade;

pub use upgrade::{Origin, Upgrade};
