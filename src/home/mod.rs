//! Every path under the home, the locks, and the durable file primitives.

pub(crate) mod beneath;
pub(crate) mod binary;
pub(crate) mod durable;
pub(crate) mod fit;
pub(crate) mod glob;
pub(crate) mod launch;
mod layout;
pub(crate) mod lock;
mod manifest;
mod process;
pub(crate) mod regular;
pub(crate) mod slots;
pub(crate) mod space;
pub(crate) mod stamp;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod trust;

pub use crate::machine::{Target, Version};
pub use layout::{Current, Home};
pub use manifest::{Manifest, Verified};
