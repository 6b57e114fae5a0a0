//! The network as the running node shows it, for commands that plan or judge by it.
//!
//! The node is asked and not the supervisor, so that these commands work whether or not one runs.

use super::forecast::Now;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::supervisor::{Reply, Request, ask, endpoints};
use crate::wbft::{Client, Coordinator, Endpoint, Fault, Options, Outlook, RpcError};
use std::time::SystemTime;

/// Asks the first address of the node that answers.
///
/// # Errors
/// [`Kind::Nonsense`] if the last address answered something else than a node; otherwise [`Kind::Unreachable`].
pub(super) fn look(config: &Config, home: &Home) -> Result<Outlook> {
    let mut trouble = None;
    for endpoint in endpoints(config, home) {
        let mut node = Coordinator::new(Client::new(&endpoint, Options::default()));
        match node.outlook(config.validator_address) {
            Ok(outlook) => return Ok(outlook),
            Err(e) => trouble = Some(e),
        }
    }
    let kind = match &trouble {
        Some(RpcError { fault: Fault::Nonsense(_), .. }) => Kind::Nonsense,
        Some(_) | None => Kind::Unreachable,
    };
    let error = Error::new(kind, "the node cannot be asked");
    Err(match trouble {
        Some(e) => error.because(e.to_string()),
        None => error.hint("start it, or say where it is with daemon_rpc_address"),
    })
}

/// The height of the head: the supervisor's, otherwise the node's.
pub(super) fn head(config: &Config, home: &Home) -> Option<u64> {
    if let Ok(Reply::Status(status)) = ask(home, &Request::Status).map(|answered| answered.reply)
        && let Some(head) = status.view.head
    {
        return Some(head.height);
    }
    head_of_node(config, home)
}

/// The height of the head as the node itself reports it.
pub(super) fn head_of_node(config: &Config, home: &Home) -> Option<u64> {
    answer(config, home, Client::block_number)
}

/// The answer of the first address of the node that gives one.
pub(super) fn answer<T>(
    config: &Config,
    home: &Home,
    question: impl Fn(&mut Client) -> Result<T, RpcError>,
) -> Option<T> {
    let ask = |endpoint: &Endpoint| question(&mut Client::new(endpoint, Options::default())).ok();
    endpoints(config, home).iter().find_map(ask)
}

/// The moment from which blocks to come are reckoned.
pub(super) fn now(outlook: &Outlook) -> Now {
    Now { head: outlook.head(), period: outlook.timing().period, time: SystemTime::now() }
}
