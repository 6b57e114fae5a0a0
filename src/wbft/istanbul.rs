//! The `istanbul` methods of a WBFT node, and the same answers from headers where they are not served.
//!
//! Their quirks end here: parameters must be hexadecimal, addresses come in either case, some keys are
//! capitalised and some numbers are JSON numbers, `latest` is refused by some methods, and over HTTP
//! the whole module is usually missing.

use super::client::{Client, address_of_id};
use super::consensus::Consensus;
use super::extra::Extra;
use super::fault::{Fault, RpcError};
use super::header::Header;
use super::hex::{Address, show_quantity};
use crate::sorted::Set;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Headers to go back at most in search of the end of the last epoch.
const MAX_WALK: u64 = 1024;
/// Headers to ask for at a time.
const STEP: u64 = 16;
impl Client {
    /// The address with which the node seals, if it seals: from `istanbul_nodeAddress`, then from the node's id,
    /// then from `eth_coinbase`. `None` if none of them is served, or none is set.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn node_address(&mut self) -> Result<Option<Address>, RpcError> {
        const METHOD: &str = "istanbul_nodeAddress";
        if let Some(value) = served(self.connection().call(METHOD, json!([])))? {
            return self.read(METHOD, value).map(Some);
        }
        if let Some(info) = served(self.node_info())? {
            let id = info.get("id").and_then(Value::as_str).unwrap_or_default();
            return address_of_id(id)
                .map(Some)
                .ok_or_else(|| self.nonsense("admin_nodeInfo", "no id of a node"));
        }
        self.coinbase()
    }

    /// The validators that seal block `height`, in the order of their seal bits; `height` may be one beyond the
    /// head. `None` if that is still open.
    ///
    /// Where the node does not serve `istanbul`, the last header below `height` with the next validators names them. The
    /// headers are read one by one, because the length of an epoch may change with the height.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`. `Unsupported` if that header is more than 1024 blocks back; `Nonsense` if a header
    /// on the way is absent, or if only block 0 names validators where the configuration has an epoch end later.
    pub fn validators(&mut self, height: u64) -> Result<Option<Vec<Address>>, RpcError> {
        if let Some(set) = self.reported_validators(height)? {
            return Ok(Some(set));
        }
        // Block 0 names the validators that count as its own.
        let before = height.saturating_sub(1);
        let Some(header) = self.header(before)? else { return Ok(None) };
        if self.epoch_of(&header)?.is_none()
            && let Some(set) = self.reported_validators(before)?
        {
            // No epoch ends with it, so the same validators sealed it.
            return Ok(Some(set));
        }
        self.find_epoch(before).map(Some)
    }

    /// The chain's configuration of the consensus. `None` if the node does not report it.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`; `Nonsense` if it has a malformed transition.
    pub fn consensus(&mut self) -> Result<Option<Consensus>, RpcError> {
        let Some(info) = served(self.node_info())? else { return Ok(None) };
        Consensus::from_node_info(&info).map_err(|what| self.nonsense("admin_nodeInfo", &what))
    }

    /// The forks that the running program knows, by the place of their setting in the chain's configuration
    /// (`londonBlock`, `transitions.0.block`), with their heights. An unknown fork is absent. `None` if the
    /// node does not report it.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`.
    pub fn forks(&mut self) -> Result<Option<BTreeMap<String, u64>>, RpcError> {
        let Some(info) = served(self.node_info())? else { return Ok(None) };
        let config = info.get("protocols").and_then(|p| p.get("eth")).and_then(|eth| eth.get("config"));
        Ok(config.filter(|config| config.is_object()).map(forks_in))
    }

    /// The set as `istanbul` reports it; `None` where that is not served, or the block is unknown.
    fn reported_validators(&mut self, height: u64) -> Result<Option<Vec<Address>>, RpcError> {
        const METHOD: &str = "istanbul_getValidators";
        match self.connection().call_large(METHOD, json!([show_quantity(height)])) {
            Err(RpcError { fault: Fault::Refused { .. }, .. }) => Ok(None),
            Err(err) => Err(err),
            Ok(value) => {
                let set: Vec<Address> = self.read(METHOD, value)?;
                if set.is_empty() || set.iter().collect::<Set<_>>().len() < set.len() {
                    return Err(self.nonsense(METHOD, "no validators, or one of them twice"));
                }
                Ok(Some(set))
            }
        }
    }

    /// The set named by the last header at or below `height` that names one.
    pub(super) fn find_epoch(&mut self, height: u64) -> Result<Vec<Address>, RpcError> {
        const METHOD: &str = "istanbul_getValidators";
        let lowest = height.saturating_sub(MAX_WALK);
        let mut to = height;
        loop {
            let from = to.saturating_sub(STEP - 1).max(lowest);
            let headers = self.headers(from..=to)?;
            let mut newest = headers.iter().rev().peekable();
            for expected in (from..=to).rev() {
                let Some(header) = newest.next_if(|header| header.number == expected) else {
                    let what = format!(
                        "the header of block {expected}, with which an epoch may have ended, is absent"
                    );
                    return Err(self.nonsense(METHOD, &what));
                };
                if let Some(set) = self.epoch_of(header)? {
                    return self.checked_epoch(height, expected, set);
                }
            }
            if from == lowest {
                let far = "the last epoch began too long ago to be found by its headers: use IPC, or have the node serve istanbul";
                return Err(Fault::Unsupported(far).of(self.endpoint(), METHOD));
            }
            to = from - 1;
        }
    }

    /// The set that header `found` names, the last at or below `height` to name one. The genesis set is taken only where
    /// no configuration contradicts it: a header that has lost the next validators would silently lead there.
    fn checked_epoch(
        &mut self,
        height: u64,
        found: u64,
        set: Vec<Address>,
    ) -> Result<Vec<Address>, RpcError> {
        if found == 0
            && height > 0
            && let Some(end) = self.consensus()?.and_then(|consensus| consensus.last_epoch_block(height))
            && end > 0
        {
            let what = format!("block {end} ends an epoch by the configuration, but names no validators");
            return Err(self.nonsense("extraData", &what));
        }
        Ok(set)
    }

    /// The set that `header` names, if an epoch ends with it.
    fn epoch_of(&self, header: &Header) -> Result<Option<Vec<Address>>, RpcError> {
        match Extra::decode(&header.extra_data) {
            Ok(extra) => Ok(extra.epoch.map(|epoch| epoch.next_validators())),
            Err(e) => Err(self.nonsense("extraData", &format!("block {}: {e}", header.number))),
        }
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, method: &str, value: Value) -> Result<T, RpcError> {
        serde_json::from_value(value).map_err(|e| self.nonsense(method, &e.to_string()))
    }
}

/// The answer of a method without parameters that not every transport serves.
pub(super) fn served<T>(answer: Result<T, RpcError>) -> Result<Option<T>, RpcError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(err) if err.may_be_unknown_method() => Ok(None),
        Err(err) => Err(err),
    }
}

/// Every height in a chain's configuration that is called a block, wherever it stands.
fn forks_in(config: &Value) -> BTreeMap<String, u64> {
    let mut forks = BTreeMap::new();
    let mut left = vec![(String::new(), config)];
    while let Some((place, value)) = left.pop() {
        let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
        match value {
            Value::Object(object) => left.extend(object.iter().map(|(name, value)| (below(name), value))),
            Value::Array(array) => {
                left.extend(array.iter().enumerate().map(|(n, value)| (below(&n.to_string()), value)));
            }
            value => {
                let is_block = place.ends_with("Block") || place.ends_with(".block");
                forks.extend(value.as_u64().filter(|_| is_block).map(|height| (place, height)));
            }
        }
    }
    forks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_found_wherever_the_configuration_has_it() {
        let config = json!({
            "chainId": 7, "londonBlock": 0, "bohoBlock": null, "boho": {"wbft": null, "startBlock": 9},
            "transitions": [{"block": 100, "epochLength": 5}, {"block": 200}], "blockPeriodSeconds": 1,
        });
        let heights = [
            ("boho.startBlock", 9),
            ("londonBlock", 0),
            ("transitions.0.block", 100),
            ("transitions.1.block", 200),
        ];
        assert_eq!(forks_in(&config), heights.map(|(place, height)| (place.to_owned(), height)).into());
    }
}
