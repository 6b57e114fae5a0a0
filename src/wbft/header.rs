//! The part of a block's header that we use.

use super::fault::Fault;
use super::hex::{Address, Hash, parse_data, parse_quantity};
use serde_json::Value;

/// A block's header, as `eth_getHeaderByNumber`, `eth_getBlockByNumber` and `newHeads` give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The height.
    pub number: u64,
    /// The block's hash. It does not cover the round and the block's own seals.
    pub hash: Hash,
    /// The hash of the block before.
    pub parent_hash: Hash,
    /// When it was proposed, in seconds since 1970.
    pub timestamp: u64,
    /// The validator that proposed it.
    pub miner: Address,
    /// The input of [`Extra::decode`](super::Extra::decode).
    pub extra_data: Vec<u8>,
}

impl Header {
    /// Reads a header from the JSON of a node; what is not in this struct is ignored.
    ///
    /// # Errors
    /// [`Fault::Nonsense`] naming the field that is missing or malformed.
    pub fn from_json(value: &Value) -> Result<Header, Fault> {
        fn field<T, E: std::fmt::Display>(
            value: &Value,
            name: &str,
            parse: impl Fn(&str) -> Result<T, E>,
        ) -> Result<T, Fault> {
            let text = value
                .get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| Fault::Nonsense(format!("a header without {name}")))?;
            parse(text).map_err(|e| Fault::Nonsense(format!("a header with bad {name}: {e}")))
        }
        Ok(Header {
            number: field(value, "number", parse_quantity)?,
            hash: field(value, "hash", str::parse)?,
            parent_hash: field(value, "parentHash", str::parse)?,
            timestamp: field(value, "timestamp", parse_quantity)?,
            miner: field(value, "miner", str::parse)?,
            extra_data: field(value, "extraData", parse_data)?,
        })
    }
}
