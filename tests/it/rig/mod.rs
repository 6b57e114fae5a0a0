//! The tools of the integration tests.

pub(crate) mod audit;
pub(crate) mod door;
pub(crate) mod fleet;
pub(crate) mod minisign;
pub(crate) mod server;
pub(crate) mod sim;
pub(crate) mod visor;
