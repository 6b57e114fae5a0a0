//! Failures between us and a node, each with transport, method and cause.

use super::endpoint::Endpoint;
use crate::error::{Error, Kind};
use std::fmt;
use std::io;
use std::time::Duration;

/// A call that did not get its answer.
///
/// Shown as one line: `eth_blockNumber over ipc: /data/node.ipc: cannot be reached: connect: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The address of the node.
    pub endpoint: Endpoint,
    /// The method that was called, or another operation: `connect`, `eth_subscription`.
    pub method: String,
    /// The fault.
    pub fault: Fault,
}

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or it ended: nothing listens, no such file, end of file, TLS failed.
    Unreachable(String),
    /// No complete answer within the time allowed.
    Timeout(Duration),
    /// Something came that is no answer: wrong id, shape, size, depth, status or content.
    Nonsense(String),
    /// The node answered with an error of its own.
    Refused {
        /// The code, such as −32601 for a method that does not exist or is not served here.
        code: i64,
        /// The node's own words.
        message: String,
    },
    /// The transport cannot do what was asked, such as a subscription over HTTP.
    Unsupported(&'static str),
    /// The call was ended by a [`Stopper`](super::Stopper).
    Stopped,
}

impl Fault {
    pub(super) fn nonsense(what: impl fmt::Display) -> Self {
        Fault::Nonsense(what.to_string())
    }

    /// A failed operation on the connection; those that ran out of time are not among them.
    pub(super) fn io(what: &str, err: &io::Error) -> Self {
        Fault::Unreachable(format!("{what}: {err}"))
    }

    pub(super) fn of(self, endpoint: &Endpoint, method: &str) -> RpcError {
        RpcError { endpoint: endpoint.clone(), method: method.to_owned(), fault: self }
    }
}

impl RpcError {
    /// Whether the node answers that the method does not exist or is not served on this transport.
    #[must_use]
    pub fn is_unknown_method(&self) -> bool {
        matches!(self.fault, Fault::Refused { code: -32601, .. })
    }

    /// Whether a method that takes these parameters may be missing: some nodes match method and parameters
    /// together and call either a bad parameter (anvil does, over IPC).
    pub(super) fn may_be_unknown_method(&self) -> bool {
        self.is_unknown_method() || matches!(self.fault, Fault::Refused { code: -32602, .. })
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}: {}: {}", self.method, self.endpoint.transport(), self.endpoint, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreachable(why) => write!(f, "cannot be reached: {why}"),
            Fault::Timeout(limit) => {
                write!(f, "no complete answer within {}", crate::time::show_duration(*limit))
            }
            Fault::Nonsense(what) => write!(f, "nonsense: {what}"),
            Fault::Refused { code, message } => write!(f, "the node refused: {message} ({code})"),
            Fault::Unsupported(what) => f.write_str(what),
            Fault::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for RpcError {}

impl std::error::Error for Fault {}

impl From<RpcError> for Error {
    fn from(err: RpcError) -> Error {
        let kind = match err.fault {
            Fault::Unreachable(_) | Fault::Timeout(_) => Kind::Unreachable,
            Fault::Nonsense(_) => Kind::Nonsense,
            Fault::Refused { .. } | Fault::Unsupported(_) | Fault::Stopped => Kind::Failed,
        };
        let what = format!("{} over {}", err.method, err.endpoint.transport());
        Error::new(kind, what).at(&err.endpoint).because(err.fault)
    }
}

/// The beginning of what came, fit for one line of a message.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    format!("{:?}{}", text.trim_end(), if bytes.len() > 120 { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_method_transport_place_and_cause() {
        let endpoint: Endpoint = "localhost:8545".parse().unwrap();
        let err = Fault::Timeout(Duration::from_secs(2)).of(&endpoint, "eth_blockNumber");
        let line = "eth_blockNumber over http: http://localhost:8545: no complete answer within 2s";
        assert_eq!(err.to_string(), line);
        let err: Error = err.into();
        assert_eq!((err.to_string().as_str(), err.kind()), (line, Kind::Unreachable));
        let refused = Fault::Refused { code: -32601, message: "nope".into() }.of(&endpoint, "x");
        assert!(refused.is_unknown_method());
        assert_eq!(Error::from(refused).kind(), Kind::Failed);
        assert_eq!(Error::from(Fault::nonsense("x").of(&endpoint, "x")).kind(), Kind::Nonsense);
    }
}
