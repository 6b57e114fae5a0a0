//! Answers that are false and well formed: a height far beyond the real one, or another chain.
//!
//! A lie may be told in a number of answers and never again, which is how a wrong endpoint behind a proxy looks. Only
//! answers that could carry it are counted.

use super::node::Node;
use serde_json::Value;

/// The height that is told.
const HEIGHT: &str = "0x3b9aca00";

/// The result of a call, or the lie in its place.
pub(crate) fn tell(node: &Node, method: &str, params: &Value, mut result: Value) -> Value {
    let by_number = matches!(method, "eth_getBlockByNumber" | "eth_getHeaderByNumber");
    let of = |tags: &[&str]| by_number && params[0].as_str().is_some_and(|tag| tags.contains(&tag));
    if (method == "eth_blockNumber" || of(&["latest"])) && node.lies(false) {
        return if by_number { raise(result) } else { HEIGHT.into() };
    }
    let of_chain =
        matches!(method, "eth_chainId" | "net_version" | "admin_nodeInfo") || of(&["0x0", "earliest"]);
    if !of_chain || !node.lies(true) {
        return result;
    }
    let other = node.params.chain_id + 1;
    match method {
        "eth_chainId" => super::hex::quantity(other).into(),
        "net_version" => other.to_string().into(),
        "admin_nodeInfo" => {
            for protocol in ["eth", "istanbul"] {
                let shown = &mut result["protocols"][protocol];
                (shown["network"], shown["config"]["chainId"]) = (other.into(), other.into());
                shown["genesis"] = hash(node, "genesis");
            }
            result
        }
        _ => {
            result["hash"] = hash(node, "genesis");
            result
        }
    }
}

/// A notification of a new head, or the lie in its place.
pub(crate) fn announce(node: &Node, head: Value) -> Value {
    if node.lies(false) { raise(head) } else { head }
}

fn raise(mut block: Value) -> Value {
    if block.is_object() {
        block["number"] = HEIGHT.into();
    }
    block
}

fn hash(node: &Node, what: &str) -> Value {
    super::hex::data(&node.params.noise(&format!("lie {what}"), 32)).into()
}
