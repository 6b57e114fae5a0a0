//! What integration tests are built with.

pub(crate) mod sim;
pub(crate) mod visor;
