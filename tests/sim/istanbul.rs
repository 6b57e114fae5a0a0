//! The methods of the module istanbul, with their recorded quirks: capitalised keys in one, mixed-case addresses in
//! another, tags that one understands and the next does not.

use super::chain::Block;
use super::eth::known_block;
use super::extra::Seal;
use super::hex;
use super::node::Node;
use super::rpc::{Failure, Outcome, Params};
use serde_json::{Map, Value, json};

/// Blocks that `istanbul_status` of v1.1 counts at most.
const MOST_BLOCKS: i64 = 1024;

/// Calls a method; `None` if there is none of this name.
pub(crate) fn call(node: &Node, method: &str, params: &Params) -> Option<Outcome> {
    Some(match method {
        "istanbul_nodeAddress" => {
            params.at_most(0).map(|()| hex::data(&node.params.address(node.args.options.index)).into())
        }
        "istanbul_isValidator" => is_validator(node, params),
        "istanbul_getValidators" => get_validators(node, params),
        "istanbul_getValidatorsAtHash" => by_hash(node, params).map(|block| validators(node, block.number)),
        "istanbul_getCommitSignersFromBlock" => params
            .at_most(1)
            .and_then(|()| params.block(0))
            .and_then(|at| known_block(node, at))
            .and_then(|block| signers(node, &block)),
        "istanbul_getCommitSignersFromBlockByHash" => {
            by_hash(node, params).and_then(|block| signers(node, &block))
        }
        "istanbul_getWbftExtraInfo" => extra_info(node, params),
        "istanbul_status" => status(node, params),
        _ => return None,
    })
}

fn by_hash(node: &Node, params: &Params) -> Result<Block, Failure> {
    let hash = params.hash(0)?;
    let state = node.state();
    let block = state.chain.iter().rev().find(|block| block.hash == hash);
    block.cloned().ok_or_else(|| Failure::application("unknown block"))
}

/// An unknown block is no error here, just "no".
fn is_validator(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let block = known_block(node, params.block(0)?);
    Ok(block.is_ok_and(|block| node.is_validator_at(block.number)).into())
}

fn get_validators(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let block = known_block(node, params.block(0)?)?;
    Ok(validators(node, block.number))
}

fn validators(node: &Node, number: u64) -> Value {
    let list = node.params.validators_at(number);
    list.into_iter().map(|index| hex::data(&node.params.address(index))).collect()
}

fn signers(node: &Node, block: &Block) -> Outcome {
    let extra = node.params.header(block, node.args.options.index).extra;
    let seal = extra.committed.ok_or_else(|| Failure::application("zero seals"))?;
    let list = node.params.validators_at(block.number);
    let committers: Vec<String> =
        seal.positions().into_iter().map(|at| hex::data(&node.params.address(list[at]))).collect();
    Ok(json!({
        "Number": block.number,
        "Hash": block.hash,
        "Author": hex::data(&node.params.address(block.miner)),
        "Committers": committers,
    }))
}

fn extra_info(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let number = params.required(0).and_then(|_| params.block(0))?.unwrap_or_default();
    let block = usize::try_from(number).ok().and_then(|at| node.state().chain.get(at).cloned());
    let block = block.ok_or_else(|| Failure::application(format!("block {number} not found")))?;
    let extra = node.params.header(&block, node.args.options.index).extra;
    let own = node.params.validators_at(block.number);
    let previous = node.params.validators_at(block.number.saturating_sub(1));
    let show = |seal: &Option<Seal>, list: &[usize]| {
        seal.as_ref().map(|seal| {
            let sealers: Vec<String> =
                seal.positions().into_iter().map(|at| checksummed(node, list[at])).collect();
            json!({"sealers": sealers, "signature": hex::data(&seal.signature)})
        })
    };
    let mut info = json!({
        "vanityData": vanity_text(&block),
        "randaoReveal": hex::data(&extra.randao),
        "prevRound": hex::quantity(extra.prev_round),
        "prevPreparedSeal": show(&extra.prev_prepared, &previous),
        "prevCommittedSeal": show(&extra.prev_committed, &previous),
        "round": hex::quantity(extra.round),
        "preparedSeal": show(&extra.prepared, &own),
        "committedSeal": show(&extra.committed, &own),
        "epochInfo": epoch_info(node, &block),
    });
    if let Some(tip) = extra.gas_tip {
        info["gasTip"] = tip.to_string().into();
    }
    Ok(info)
}

fn epoch_info(node: &Node, block: &Block) -> Option<Value> {
    let epoch = node.params.epoch_info(block.number)?;
    let candidates: Vec<Value> = epoch
        .candidates
        .iter()
        .map(|(address, diligence)| json!({"addr": hex::checksummed(address), "diligence": hex::quantity(*diligence)}))
        .collect();
    if node.params.fields == 9 {
        let bls: Vec<String> = epoch.bls.iter().map(|key| hex::data(key)).collect();
        return Some(
            json!({"stakers": candidates, "validators": epoch.validators, "blsPublicKeys": bls, "stabilizing": false}),
        );
    }
    let validators: Vec<Value> = epoch
        .validators
        .iter()
        .zip(&epoch.bls)
        .map(|(index, key)| {
            json!({"addr": checksummed(node, *index), "bls": hex::data(key), "index": hex::quantity(*index as u64)})
        })
        .collect();
    Some(json!({"candidates": candidates, "validators": validators}))
}

fn vanity_text(block: &Block) -> String {
    if block.number == 0 {
        return String::new();
    }
    let version = block.version.trim_start_matches('v');
    format!("[version: v{version}, client: geth, go: go1.26.6, os: linux]")
}

fn checksummed(node: &Node, index: usize) -> String {
    hex::checksummed(&node.params.address(index))
}

/// Counts who sealed and proposed in a range of blocks, the last 64 by default.
fn status(node: &Node, params: &Params) -> Outcome {
    params.at_most(2)?;
    let (start, end) = (params.block(0)?, params.block(1)?);
    let chain = node.state().chain.clone();
    let head = chain.len() as i64 - 1;
    let is_v1_1 = node.options().is_v1_1();
    // Only the later interface knows what the latest block is.
    let resolve = |number: i64| if is_v1_1 && number == -2 { head } else { number };
    let (start, end) = match (start.map(resolve), end.map(resolve)) {
        (None, _) => ((head - 63).max(1), head),
        (Some(_), None) => return Err(Failure::application("pass the end block number")),
        (Some(start), Some(end)) => (start, end),
    };
    if start > end {
        return Err(Failure::application("start block number should be less than end block number"));
    }
    let blocks = end - start + 1;
    if is_v1_1 && blocks > MOST_BLOCKS {
        let message = format!("requested range too large: {blocks} blocks (max {MOST_BLOCKS})");
        return Err(Failure::application(message));
    }
    if end > head || start < 0 {
        return Err(Failure::application(
            "end block number should be less than or equal to current block height",
        ));
    }
    let mut status = count(node, chain.get(start as usize..=end as usize).unwrap_or_default());
    if is_v1_1 && let Some(rounds) = status["roundStats"].as_object_mut() {
        rounds.remove("totalRounds");
    }
    Ok(status)
}

fn count(node: &Node, blocks: &[Block]) -> Value {
    const KINDS: [&str; 4] = ["prepared", "committed", "prevPrepared", "prevCommitted"];
    let zeros = || -> Map<String, Value> {
        (0..node.params.validators).map(|i| (hex::data(&node.params.address(i)), 0.into())).collect()
    };
    let add = |map: &mut Map<String, Value>, key: String| {
        let entry = map.entry(key).or_insert(0.into());
        *entry = (entry.as_u64().unwrap_or(0) + 1).into();
    };
    let mut activity: Map<String, Value> = Map::new();
    activity.insert("total".into(), zeros().into());
    KINDS.iter().for_each(|kind| drop(activity.insert((*kind).into(), zeros().into())));
    let (mut author, mut rounds) = (zeros(), Map::new());
    for block in blocks {
        let extra = node.params.header(block, node.args.options.index).extra;
        let own = node.params.validators_at(block.number);
        let previous = node.params.validators_at(block.number.saturating_sub(1));
        let seals = [
            (&extra.prepared, &own),
            (&extra.committed, &own),
            (&extra.prev_prepared, &previous),
            (&extra.prev_committed, &previous),
        ];
        for (kind, (seal, list)) in KINDS.iter().zip(seals) {
            for at in seal.iter().flat_map(Seal::positions) {
                let address = hex::data(&node.params.address(list[at]));
                for name in [*kind, "total"] {
                    if let Some(Value::Object(map)) = activity.get_mut(name) {
                        add(map, address.clone());
                    }
                }
            }
        }
        add(&mut author, hex::data(&node.params.address(block.miner)));
        add(&mut rounds, block.round.to_string());
    }
    let total: u64 = blocks.iter().map(|block| block.round).sum();
    let (start, end) = (blocks.first().map(|block| block.number), blocks.last().map(|block| block.number));
    json!({
        "sealerActivity": activity,
        "author": author,
        "blockRange": {"startBlock": start, "endBlock": end, "totalBlocks": blocks.len()},
        "roundStats": {"roundDistribution": rounds, "totalRounds": total},
    })
}
