//! The methods of the modules eth, net, web3, miner and txpool, and the one of engine that a node must never be sent.

use super::chain::Block;
use super::extra::{BASE_FEE, EMPTY_ROOT, GAS_LIMIT, Header, NO_UNCLES};
use super::hex;
use super::node::{Node, Standing};
use super::rpc::{Failure, Outcome, Params};
use serde_json::{Map, Value, json};

/// The client string: name, version, system, compiler.
pub(crate) fn client_version(node: &Node) -> String {
    let options = &node.args.options;
    client_string(&options.name, &options.version)
}

/// Calls a method; `None` if there is none of this name.
pub(crate) fn call(node: &Node, method: &str, params: &Params) -> Option<Outcome> {
    let fixed = |value: Value| Some(params.at_most(0).map(|()| value));
    match method {
        "web3_clientVersion" => fixed(client_version(node).into()),
        "net_version" => fixed(node.params.chain_id.to_string().into()),
        "net_listening" => fixed(true.into()),
        "net_peerCount" => fixed(hex::quantity(node.state().peers.len() as u64).into()),
        "eth_chainId" => fixed(hex::quantity(node.params.chain_id).into()),
        "eth_blockNumber" => fixed(hex::quantity(node.state().head().number).into()),
        "eth_coinbase" => fixed(hex::data(&node.params.address(node.args.options.index)).into()),
        "eth_hashrate" => fixed("0x0".into()),
        "eth_gasPrice" => fixed("0x2b4abd176000".into()),
        "eth_mining" => {
            let state = node.state();
            fixed((state.mining && !state.fetching).into())
        }
        "eth_syncing" => fixed(syncing(node)),
        "eth_getBlockByNumber" => Some(by_number(node, params, true)),
        "eth_getHeaderByNumber" => Some(by_number(node, params, false)),
        "eth_getBlockByHash" => Some(by_hash(node, params, true)),
        "eth_getHeaderByHash" => Some(by_hash(node, params, false)),
        "txpool_status" => fixed(json!({"pending": "0x0", "queued": "0x0"})),
        "miner_start" => Some(params.at_most(0).map(|()| switch_engine(node, true))),
        "miner_stop" => Some(params.at_most(0).map(|()| switch_engine(node, false))),
        _ if method.starts_with("engine_forkchoiceUpdated") => Some(choose_fork(node, params)),
        _ => None,
    }
}

/// One call with a finalized block ends every import of this node: it takes a consensus client for its master.
fn choose_fork(node: &Node, params: &Params) -> Outcome {
    let state = params.required(0)?;
    let hash = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let known = node.state().chain.iter().any(|block| block.hash == hash("headBlockHash"));
    let finalized = hash("finalizedBlockHash");
    if finalized.bytes().any(|digit| digit != b'0' && digit != b'x') {
        super::store::halt(&node.args.datadir).map_err(|err| Failure::application(err.to_string()))?;
        node.state().halted = true;
    }
    let (status, valid) =
        if known { ("VALID", hash("headBlockHash").into()) } else { ("SYNCING", Value::Null) };
    Ok(json!({
        "payloadStatus": {"status": status, "latestValidHash": valid, "validationError": null},
        "payloadId": null,
    }))
}

/// The header that a newHeads notification carries.
pub(crate) fn head_notification(node: &Node, block: &Block) -> Value {
    let header = node.params.header(block, node.args.options.index);
    let mut head = fields(block, &header);
    for absent in ["withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot"] {
        head.insert(absent.into(), Value::Null);
    }
    Value::Object(head)
}

pub(crate) fn client_string(name: &str, version: &str) -> String {
    format!("{name}/v{}-stable/linux-amd64/go1.26.6", version.trim_start_matches('v'))
}

fn switch_engine(node: &Node, on: bool) -> Value {
    let (now, delay) = (super::log::now_ms(), node.options().engine_stop);
    let mut state = node.state();
    match (on, delay) {
        (true, _) => (state.mining, state.start_requested, state.engine_ends) = (true, true, None),
        (false, 0) => state.mining = false,
        (false, _) => state.engine_ends = Some(now + delay),
    }
    drop(state);
    super::log::info(if on { "WBFT: start" } else { "WBFT: stopped" }, &[]);
    Value::Null
}

fn syncing(node: &Node) -> Value {
    let state = node.state();
    let stuck = matches!(state.standing, Standing::Frozen { .. }) && state.highest > state.head().number;
    if !stuck && !state.fetching {
        return false.into();
    }
    let current = state.head().number;
    let mut object = json!({
        "startingBlock": hex::quantity(current.saturating_sub(1)),
        "currentBlock": hex::quantity(current),
        "highestBlock": hex::quantity(state.highest),
        "txIndexFinishedBlocks": hex::quantity(current + 1),
    });
    for zero in [
        "healedBytecodeBytes",
        "healedBytecodes",
        "healedTrienodeBytes",
        "healedTrienodes",
        "healingBytecode",
        "healingTrienodes",
        "syncedAccountBytes",
        "syncedAccounts",
        "syncedBytecodeBytes",
        "syncedBytecodes",
        "syncedStorage",
        "syncedStorageBytes",
        "txIndexRemainingBlocks",
    ] {
        object[zero] = "0x0".into();
    }
    object
}

fn by_number(node: &Node, params: &Params, whole: bool) -> Outcome {
    let number = params.required(0).and_then(|_| params.block(0))?.unwrap_or_default();
    if whole {
        params.required(1)?;
    }
    params.at_most(if whole { 2 } else { 1 })?;
    let state = node.state();
    let head = state.head();
    let block = match number {
        -1 => return Ok(pending(node, head, whole)),
        0.. => state.chain.get(number as usize),
        -3 | -4 => state.chain.get(head.number.saturating_sub(node.options().finality_lag()) as usize),
        _ => Some(head),
    };
    Ok(block.map_or(Value::Null, |block| show(node, block, whole)))
}

fn by_hash(node: &Node, params: &Params, whole: bool) -> Outcome {
    let hash = params.hash(0)?;
    if whole {
        params.required(1)?;
    }
    let state = node.state();
    let block = state.chain.iter().rev().find(|block| block.hash == hash);
    Ok(block.map_or(Value::Null, |block| show(node, block, whole)))
}

fn show(node: &Node, block: &Block, whole: bool) -> Value {
    let header = node.params.header(block, node.args.options.index);
    let mut object = fields(block, &header);
    object.insert("totalDifficulty".into(), hex::quantity(block.number + 1).into());
    if whole {
        object.insert("size".into(), hex::quantity(header.size()).into());
        object.insert("transactions".into(), json!([]));
        object.insert("uncles".into(), json!([]));
    }
    Value::Object(object)
}

/// The block that would come next: it has no proposer, hash or own seals yet.
fn pending(node: &Node, head: &Block, whole: bool) -> Value {
    let next = Block {
        number: head.number + 1,
        parent: head.hash.clone(),
        prev_round: head.round,
        prev_votes: head.votes.clone(),
        votes: Vec::new(),
        ..head.clone()
    };
    let mut object = show(node, &next, whole);
    for unknown in ["hash", "miner", "nonce", "totalDifficulty"] {
        object[unknown] = Value::Null;
    }
    object["stateRoot"] = hex::data(&[0; 32]).into();
    object
}

fn fields(block: &Block, header: &Header) -> Map<String, Value> {
    let pairs: [(&str, String); 18] = [
        ("parentHash", block.parent.clone()),
        ("sha3Uncles", format!("0x{NO_UNCLES}")),
        ("miner", hex::data(&header.miner)),
        ("stateRoot", hex::data(&header.state_root)),
        ("transactionsRoot", format!("0x{EMPTY_ROOT}")),
        ("receiptsRoot", format!("0x{EMPTY_ROOT}")),
        ("logsBloom", hex::data(&[0; 256])),
        ("difficulty", "0x1".into()),
        ("number", hex::quantity(header.number)),
        ("gasLimit", hex::quantity(GAS_LIMIT)),
        ("gasUsed", "0x0".into()),
        ("timestamp", hex::quantity(header.time)),
        ("extraData", hex::data(&header.extra.encode())),
        ("mixHash", hex::data(&header.mix)),
        ("nonce", hex::data(&[0; 8])),
        ("baseFeePerGas", hex::quantity(BASE_FEE)),
        ("hash", block.hash.clone()),
        ("number", hex::quantity(block.number)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// A block by number or tag, for methods that know no tags but `latest` and `earliest`.
pub(crate) fn known_block(node: &Node, number: Option<i64>) -> Result<Block, Failure> {
    let state = node.state();
    let block = match number {
        None | Some(-2) => Some(state.head()),
        Some(number) => usize::try_from(number).ok().and_then(|number| state.chain.get(number)),
    };
    block.cloned().ok_or_else(|| Failure::application("unknown block"))
}
