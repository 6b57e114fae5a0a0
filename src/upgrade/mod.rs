//! The jobs an upgrade needs, and what it remembers: each does one thing and decides nothing.

pub mod history;
pub mod journal;
