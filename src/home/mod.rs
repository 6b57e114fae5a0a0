//! Every path under the home, the locks, and the durable file primitives.

pub mod durable;
