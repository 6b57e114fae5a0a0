//! A WBFT node's JSON-RPC: transports, typed answers, and the state of the consensus that follows from them.
//!
//! Public and independent of the supervisor: nothing here knows of processes, upgrades or the home.
//!
//! - [`Endpoint`]: where a node is, as an operator writes it.
//! - [`Connection`]: calls over HTTP, HTTPS or IPC, bounded in time, size and depth.
//! - [`Client`]: typed answers; [`Heads`]: new heads as they come.
//! - [`Extra`]: what a header carries; [`Window`]: the last blocks decoded, from headers of any source.
//! - [`Consensus`]: the chain's settings by height, and when which round runs; [`Order`]: the proposer of each height.
//! - [`Observer`]: asks a node repeatedly; [`ConsensusState`]: the state that follows, for people and JSON.
//! - [`Coordinator`]: waits for the height, and for the turn of a validator; [`quorum`]: the arithmetic.
//! - [`RoundMetrics`]: what happens between blocks, where a node exposes its metrics.
//!
//! The rules by which a validator may be stopped are [`gates`]: they are decisions, and pure.
//!
//! Everything strict is strict for one reason: a height or a set of validators that was misread takes
//! a validator down at the wrong moment. The answers of a node are checked for their form, never repaired.

mod client;
mod consensus;
mod coordinator;
mod endpoint;
mod extra;
mod fault;
mod header;
mod heads;
mod hex;
mod http;
mod istanbul;
mod json;
mod metrics;
mod observer;
mod order;
mod rlp;
mod rpc;
mod session;
mod socket;
mod state;
mod window;

#[cfg(test)]
mod tests;

pub use crate::machine::order::Order;
pub use crate::machine::{gates, quorum};
pub use client::{Client, Peer, Syncing};
pub use consensus::{Consensus, Forecast, Policy, Timing};
pub use coordinator::{Coordinator, Outlook};
pub use endpoint::{BadEndpoint, Endpoint};
pub use extra::{BadExtra, EpochInfo, Extra, Seal};
pub use fault::{Fault, RpcError};
pub use header::Header;
pub use heads::{Heads, Stopper};
pub use hex::{Address, BadHex, Hash, parse_data, parse_quantity, show_quantity};
pub use metrics::RoundMetrics;
pub use observer::{Constant, Observation, Observer};
pub use order::proposer;
pub use rpc::{Connection, Options};
pub use state::{ConsensusState, Member, Step};
pub use window::{Decided, Proposal, Window};
