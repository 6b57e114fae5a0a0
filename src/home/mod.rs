//! Every path under the home, the locks, and the durable file primitives.

pub mod beneath;
pub mod binary;
pub mod durable;
pub mod fit;
pub mod glob;
pub mod launch;
mod layout;
pub mod lock;
mod manifest;
mod process;
pub mod regular;
pub mod slots;
pub(crate) mod trace;
pub mod tree;

pub use layout::{Current, Home};
pub use manifest::{Manifest, Verified};
