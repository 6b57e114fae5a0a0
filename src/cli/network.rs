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
/// [`Kind::Nonsense`] if the last address answered nonsense; otherwise [`Kind::Unreachable`].
pub(super) fn look(config: &Config, home: &Home) -> Result<Outlook> {
    let outlook = |client| Coordinator::new(client).outlook(config.validator_address);
    first(endpoints(config, home), outlook).map_err(|trouble| {
        let kind = match &trouble {
            Some(RpcError { fault: Fault::Nonsense(_), .. }) => Kind::Nonsense,
            Some(_) | None => Kind::Unreachable,
        };
        unanswered(Error::new(kind, "the node cannot be asked"), trouble)
    })
}

/// The first answer of these addresses; otherwise the failure of the last one.
pub(super) fn first<T>(
    endpoints: Vec<Endpoint>,
    mut question: impl FnMut(Client) -> Result<T, RpcError>,
) -> Result<T, Option<RpcError>> {
    let mut trouble = None;
    for endpoint in endpoints {
        match question(Client::new(&endpoint, Options::default())) {
            Ok(answer) => return Ok(answer),
            Err(e) => trouble = Some(e),
        }
    }
    Err(trouble)
}

/// An error about a node that has not answered, with the failure of its last address, if it has one.
pub(super) fn unanswered(error: Error, trouble: Option<RpcError>) -> Error {
    match trouble {
        Some(e) => error.because(e.to_string()),
        None => error.hint("start it, or set daemon_rpc_address to its address"),
    }
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
    first(endpoints(config, home), |mut client| question(&mut client)).ok()
}

/// The moment from which blocks to come are reckoned.
pub(super) fn now(outlook: &Outlook) -> Now {
    Now { head: outlook.head(), period: outlook.timing().period, time: SystemTime::now() }
}
