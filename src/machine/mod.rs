//! PURE: what to do next. (To be written.)

mod journal;
mod upgrade;

pub use journal::{Block, Ended, NodeMark, Outcome, Phase, Progress, Record, Target, Version};
pub use upgrade::{Origin, Upgrade};
