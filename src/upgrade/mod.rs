//! The jobs an upgrade needs, and what it remembers: each does one thing and decides nothing.

pub mod agenda;
mod cancel;
pub mod history;
pub mod import;
pub mod init;
pub mod install;
pub mod journal;
pub mod trigger;

pub use cancel::Cancel;
