//! Whole chains of simulated validators, each under a supervisor of its own. They wait for most of their time, so they come
//! early among the tests, and the others fill the rest.

mod network;
mod rolling;
