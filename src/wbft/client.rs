//! The questions that any Ethereum-like node answers, each with its strict answer.

use super::endpoint::Endpoint;
use super::fault::{Fault, RpcError};
use super::header::Header;
use super::heads::Heads;
use super::hex::{Address, Hash, parse_quantity, show_quantity};
use super::rpc::{Connection, Options};
use crate::printable::foreign;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Asks one node. All calls are bounded in time and size by its [`Options`].
///
/// ```no_run
/// use wemixvisor::wbft::{Client, Endpoint, Options};
///
/// let mut node = Client::new(&"localhost:8545".parse::<Endpoint>()?, Options::default());
/// let head = node.head()?;
/// println!("{} {} by {}", head.number, head.hash, head.miner);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    headers_by: HeaderMethod,
}

/// The method that gives headers. Without the block's transactions an answer is small, but not every
/// node can do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderMethod {
    Header,
    Block,
}

impl HeaderMethod {
    fn name(self) -> &'static str {
        match self {
            HeaderMethod::Header => "eth_getHeaderByNumber",
            HeaderMethod::Block => "eth_getBlockByNumber",
        }
    }

    fn params(self, block: &str) -> Value {
        match self {
            HeaderMethod::Header => json!([block]),
            HeaderMethod::Block => json!([block, false]),
        }
    }
}

/// How a node's synchronisation stands. `Idle` does not mean that the node is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncing {
    /// `eth_syncing` is false.
    Idle,
    /// A sync round is under way.
    Active {
        /// The node's own head.
        current: u64,
        /// The highest head that a peer has announced; both are 0 on a node's first start.
        highest: u64,
    },
}

/// Another node that ours is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// The `enode://` URL by which it can be removed and added; empty if the node reports none.
    pub enode: String,
    /// Its client version.
    pub name: String,
    /// Its address on the network.
    pub remote: String,
    /// Whether it connected to us.
    pub inbound: bool,
}

impl Peer {
    /// The address of its key, with which it seals if it is a validator: the last 40 digits of its id. `None` if the
    /// id is malformed.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        address_of_id(&self.id)
    }
}

impl Client {
    /// A client that connects when it is first asked, and again after each fault.
    #[must_use]
    pub fn new(endpoint: &Endpoint, options: Options) -> Self {
        Client { connection: Connection::new(endpoint, options), headers_by: HeaderMethod::Header }
    }

    /// The address of the node.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.connection.endpoint()
    }

    /// The connection, for methods that have no function here.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Subscribes to new heads, on a connection of its own.
    ///
    /// # Errors
    /// As [`Heads::subscribe`].
    pub fn subscribe_heads(&self) -> Result<Heads, RpcError> {
        Heads::subscribe(self.connection.endpoint(), self.connection.options())
    }

    /// The height of the head.
    ///
    /// # Errors
    /// Any [`Fault`] but `Stopped`, as every call here.
    pub fn block_number(&mut self) -> Result<u64, RpcError> {
        self.quantity("eth_blockNumber")
    }

    /// The header of the head.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn head(&mut self) -> Result<Header, RpcError> {
        let header = self.ask_headers(&["latest".to_owned()])?.pop().flatten();
        header.ok_or_else(|| self.nonsense(self.headers_by.name(), "there is no latest block"))
    }

    /// The header at `height`; `None` if the node has none.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number); a header of another height is nonsense.
    pub fn header(&mut self, height: u64) -> Result<Option<Header>, RpcError> {
        Ok(self.headers([height])?.pop())
    }

    /// The headers of a range of heights, in order. Those that the node does not have are left out.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn headers(&mut self, heights: impl IntoIterator<Item = u64>) -> Result<Vec<Header>, RpcError> {
        let heights: Vec<u64> = heights.into_iter().collect();
        let blocks: Vec<String> = heights.iter().map(|h| show_quantity(*h)).collect();
        let mut headers = Vec::with_capacity(heights.len());
        for (header, height) in self.ask_headers(&blocks)?.into_iter().zip(heights) {
            match header {
                Some(other) if other.number != height => {
                    let what = format!("asked for block {height}, got block {}", other.number);
                    return Err(self.nonsense(self.headers_by.name(), &what));
                }
                header => headers.extend(header),
            }
        }
        Ok(headers)
    }

    /// The hash of the block at `height`; `None` if the node has none.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn block_hash(&mut self, height: u64) -> Result<Option<Hash>, RpcError> {
        Ok(self.header(height)?.map(|header| header.hash))
    }

    /// The hash of block 0.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn genesis_hash(&mut self) -> Result<Hash, RpcError> {
        let genesis = self.header(0)?;
        let genesis = genesis.ok_or_else(|| self.nonsense(self.headers_by.name(), "there is no block 0"))?;
        Ok(genesis.hash)
    }

    /// The node's report of its synchronisation; see [`Syncing`].
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn syncing(&mut self) -> Result<Syncing, RpcError> {
        const METHOD: &str = "eth_syncing";
        let value = self.connection.call(METHOD, json!([]))?;
        let height =
            |name: &str| value.get(name).and_then(Value::as_str).and_then(|t| parse_quantity(t).ok());
        match (&value, height("currentBlock"), height("highestBlock")) {
            (Value::Bool(false), ..) => Ok(Syncing::Idle),
            (Value::Object(_), Some(current), Some(highest)) => Ok(Syncing::Active { current, highest }),
            _ => Err(self.nonsense(METHOD, "neither false nor an object with two heights")),
        }
    }

    /// The number of peers.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn peer_count(&mut self) -> Result<u64, RpcError> {
        self.quantity("net_peerCount")
    }

    /// The peers. Not every transport serves this.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn peers(&mut self) -> Result<Vec<Peer>, RpcError> {
        const METHOD: &str = "admin_peers";
        let value = self.connection.call_large(METHOD, json!([]))?;
        let peers = value.as_array().and_then(|peers| peers.iter().map(peer).collect());
        peers.ok_or_else(|| self.nonsense(METHOD, "no list of peers"))
    }

    /// Disconnects a peer and takes it out of the static peers, until the node's next start. Not every transport
    /// serves this. The answer is the node's: whether it has accepted the order.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number); `Refused` for a malformed URL.
    pub fn remove_peer(&mut self, enode: &str) -> Result<bool, RpcError> {
        self.flag("admin_removePeer", json!([enode]))
    }

    /// Adds a static peer, to which the node connects again and again. Not every transport serves this. The answer is
    /// the node's: whether it has accepted the order.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number); `Refused` for a malformed URL.
    pub fn add_peer(&mut self, enode: &str) -> Result<bool, RpcError> {
        self.flag("admin_addPeer", json!([enode]))
    }

    /// The chain's id.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn chain_id(&mut self) -> Result<u64, RpcError> {
        self.quantity("eth_chainId")
    }

    /// Name, version, platform and compiler of the node, such as `Gwemix/v1.0.1-stable/linux-amd64/go1.26.6`.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn client_version(&mut self) -> Result<String, RpcError> {
        const METHOD: &str = "web3_clientVersion";
        match self.connection.call(METHOD, json!([]))? {
            Value::String(version) => Ok(foreign(&version)),
            _ => Err(self.nonsense(METHOD, "not a text")),
        }
    }

    /// The modules served on this transport, each with its version.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn rpc_modules(&mut self) -> Result<BTreeMap<String, String>, RpcError> {
        const METHOD: &str = "rpc_modules";
        let value = self.connection.call(METHOD, json!([]))?;
        serde_json::from_value(value).map_err(|_| self.nonsense(METHOD, "no map of modules to versions"))
    }

    /// Whether the node tries to seal blocks. Goes false during a sync round and comes back alone.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn mining(&mut self) -> Result<bool, RpcError> {
        self.flag("eth_mining", json!([]))
    }

    /// The account that is credited with the node's blocks, which is that of its key on a WBFT chain. `None` if it is
    /// zero, not set, or not served.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn coinbase(&mut self) -> Result<Option<Address>, RpcError> {
        const METHOD: &str = "eth_coinbase";
        match self.connection.call(METHOD, json!([])) {
            Err(RpcError { fault: Fault::Refused { .. }, .. }) => Ok(None),
            Err(err) => Err(err),
            Ok(value) => {
                let address: Option<Address> = value.as_str().and_then(|text| text.parse().ok());
                let address = address.ok_or_else(|| self.nonsense(METHOD, "not an address"))?;
                Ok(Some(address).filter(|address| *address != Address::ZERO))
            }
        }
    }

    /// Starts sealing. Where it is served, doing it twice is fine.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn miner_start(&mut self) -> Result<(), RpcError> {
        self.connection.call("miner_start", json!([])).map(drop)
    }

    /// Stops sealing. A validator that does not seal loses its peers within seconds.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn miner_stop(&mut self) -> Result<(), RpcError> {
        self.connection.call("miner_stop", json!([])).map(drop)
    }

    /// `admin_nodeInfo` as the node gives it: an object. Not every transport serves this.
    ///
    /// # Errors
    /// As [`block_number`](Self::block_number).
    pub fn node_info(&mut self) -> Result<Map<String, Value>, RpcError> {
        const METHOD: &str = "admin_nodeInfo";
        match self.connection.call_large(METHOD, json!([]))? {
            Value::Object(info) => Ok(info),
            _ => Err(self.nonsense(METHOD, "not an object")),
        }
    }

    fn flag(&mut self, method: &str, params: Value) -> Result<bool, RpcError> {
        let value = self.connection.call(method, params)?;
        value.as_bool().ok_or_else(|| self.nonsense(method, "neither true nor false"))
    }

    fn quantity(&mut self, method: &str) -> Result<u64, RpcError> {
        let value = self.connection.call(method, json!([]))?;
        let text = value.as_str().ok_or_else(|| self.nonsense(method, "not a text"))?;
        parse_quantity(text).map_err(|e| self.nonsense(method, &e.to_string()))
    }

    /// One answer for each of `blocks`, which are heights or tags; `None` for a block that is not there.
    fn ask_headers(&mut self, blocks: &[String]) -> Result<Vec<Option<Header>>, RpcError> {
        let by = self.headers_by;
        let params: Vec<Value> = blocks.iter().map(|block| by.params(block)).collect();
        let answers = match self.connection.call_many(by.name(), &params) {
            Err(err) if err.may_be_unknown_method() && by == HeaderMethod::Header => {
                self.headers_by = HeaderMethod::Block;
                return self.ask_headers(blocks);
            }
            answers => answers?,
        };
        let read = |value: &Value| match value {
            Value::Null => Ok(None),
            value => Header::from_json(value).map(Some).map_err(|f| f.of(self.endpoint(), by.name())),
        };
        answers.iter().map(read).collect()
    }

    pub(super) fn nonsense(&self, method: &str, what: &str) -> RpcError {
        Fault::nonsense(what).of(self.endpoint(), method)
    }
}

/// The address at the end of a node's id: both are the hash of the same key.
pub(super) fn address_of_id(id: &str) -> Option<Address> {
    let digits = id.len().checked_sub(40).and_then(|from| id.get(from..))?;
    format!("0x{digits}").parse().ok()
}

fn peer(value: &Value) -> Option<Peer> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Peer {
        id: text(&value["id"])?,
        enode: text(&value["enode"]).unwrap_or_default(),
        name: foreign(value["name"].as_str().unwrap_or_default()),
        remote: text(&value["network"]["remoteAddress"]).unwrap_or_default(),
        inbound: value["network"]["inbound"].as_bool().unwrap_or_default(),
    })
}
