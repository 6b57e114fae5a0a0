//! `wemixvisor` runs one blockchain node and replaces its binary at block heights.

#![deny(unsafe_code)]

pub mod batch;
pub mod children;
pub mod cli;
pub mod config;
pub mod digest;
pub mod error;
pub mod exit;
pub mod home;
pub mod machine;
pub mod name;
pub mod supervisor;
pub mod sys;
pub mod time;
pub mod upgrade;
mod url;
pub mod wbft;
