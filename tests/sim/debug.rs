//! Blocks out of one node and into another: the methods of the module debug, and the import of admin.
//!
//! An import executes: the rules of a block must be those that this program has for its height. Messages are those of the
//! reference node.

use super::chain::{Block, rules_at};
use super::hex;
use super::log;
use super::node::{Node, State};
use super::raw;
use super::rpc::{Failure, Outcome, Params};
use serde_json::Value;

/// Blocks that are imported in one go.
const BATCH: usize = 2500;

/// Calls a method; `None` if there is none of this name.
pub(crate) fn call(node: &Node, method: &str, params: &Params) -> Option<Outcome> {
    Some(match method {
        "debug_getRawBlock" => get_raw(node, params),
        "debug_setHead" => set_head(node, params),
        _ => return None,
    })
}

fn get_raw(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let number = params.required(0).and_then(|_| params.block(0))?.unwrap_or(-2);
    let state = node.state();
    let block = match number {
        0.. => state.chain.get(number as usize),
        _ => Some(state.head()),
    };
    let block = block.ok_or_else(|| Failure::application(format!("block #{number} not found")))?;
    Ok(hex::data(&raw::encode(&node.params, block, node.args.options.index)).into())
}

/// Blocks above the new head are removed from the database as well.
fn set_head(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let number = params.required(0).and_then(|_| params.block(0))?.unwrap_or_default();
    let mut state = node.state();
    state.chain.truncate(usize::try_from(number).unwrap_or_default() + 1);
    state.buried.clear();
    Ok(Value::Null)
}

/// `admin_importChain`: executes the blocks of a file.
pub(crate) fn import(node: &Node, params: &Params) -> Outcome {
    params.at_most(1)?;
    let path = params.required(0)?.as_str().unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|err| Failure::application(format!("open {path}: {err}")))?;
    let blocks = raw::decode(&node.params, &bytes).map_err(Failure::application)?;
    for (number, batch) in blocks.chunks(BATCH).enumerate() {
        let mut state = node.state();
        if batch.iter().all(|block| has(&state, block)) {
            continue;
        }
        let taken = take(node, &mut state, batch);
        let head = state.head().number;
        drop(state);
        match taken {
            Ok(fresh) => {
                log::info("Imported new chain segment", &[("number", &head), ("blocks", &fresh.len())]);
                fresh.iter().for_each(|block| node.announce(block));
            }
            Err(why) => {
                return Err(Failure::application(format!("batch {number}: failed to insert: {why}")));
            }
        }
    }
    Ok(true.into())
}

fn has(state: &State, block: &Block) -> bool {
    let in_chain = state.chain.get(block.number as usize).is_some_and(|known| known.hash == block.hash);
    in_chain || state.buried.contains(&block.hash)
}

/// Adds what the chain does not have yet; the blocks that were added.
fn take(node: &Node, state: &mut State, batch: &[Block]) -> Result<Vec<Block>, String> {
    let mut fresh = Vec::new();
    for block in batch {
        if state.chain.get(block.number as usize).is_some_and(|known| known.hash == block.hash) {
            continue;
        }
        if block.parent != state.head().hash {
            return Err("unknown ancestor".into());
        }
        if block.rules != rules_at(&node.args.options.fork, block.number) {
            log::error("########## BAD BLOCK #########", &[("block", &block.number)]);
            return Err("invalid merkle root".into());
        }
        state.chain.push(block.clone());
        fresh.push(block.clone());
    }
    Ok(fresh)
}
