//! The methods of the module admin: the node itself, its peers, and how to part from them.
//!
//! All peers are static ones. One that was removed stays away until it is added again or the process starts anew, since
//! a start reads the configuration again.

use super::eth::{client_string, client_version};
use super::hex;
use super::node::Node;
use super::rpc::{Failure, Outcome, Params};
use serde_json::{Value, json};

/// End nodes of a network whose names are known.
const END_NODES: usize = 64;

/// Calls a method; `None` if there is none of this name.
pub(crate) fn call(node: &Node, method: &str, params: &Params) -> Option<Outcome> {
    let fixed = |value: &dyn Fn(&Node) -> Value| params.at_most(0).map(|()| value(node));
    Some(match method {
        "admin_datadir" => fixed(&|node| node.args.datadir.display().to_string().into()),
        "admin_nodeInfo" => fixed(&node_info),
        "admin_peers" => fixed(&peers),
        "admin_removePeer" => remove(node, params),
        "admin_addPeer" => add(node, params),
        "admin_importChain" => super::debug::import(node, params),
        _ => return None,
    })
}

/// Removing a peer that is none is no error.
fn remove(node: &Node, params: &Params) -> Outcome {
    if let Some(index) = named(node, params)? {
        let mut state = node.state();
        state.peers.retain(|(peer, _)| *peer != index);
        if !state.removed.contains(&index) {
            state.removed.push(index);
        }
    }
    Ok(true.into())
}

/// A peer that is there already stays as it is. Nothing makes a silent node's peers come sooner.
fn add(node: &Node, params: &Params) -> Outcome {
    let index = named(node, params)?;
    node.state().removed.retain(|removed| Some(*removed) != index);
    Ok(true.into())
}

/// The member that an enode URL means.
fn named(node: &Node, params: &Params) -> Result<Option<usize>, Failure> {
    params.at_most(1)?;
    let url = params.required(0)?.as_str().unwrap_or_default();
    let key = url.strip_prefix("enode://").and_then(|rest| rest.split('@').next());
    let key = key.filter(|key| key.len() == 128).ok_or_else(|| {
        Failure::application("invalid enode: missing 'enr:' prefix for base64-encoded record")
    })?;
    Ok((0..node.params.validators + END_NODES).find(|index| public_key(node, *index) == key))
}

fn node_info(node: &Node) -> Value {
    let index = node.args.options.index;
    let state = node.state();
    let head = state.head();
    let port = 30303 + index;
    let protocol = json!({
        "network": node.params.chain_id,
        "difficulty": head.number + 1,
        "genesis": state.chain[0].hash,
        "config": config(node),
        "head": head.hash,
    });
    let mut istanbul = protocol.clone();
    istanbul["config"]["anzeon"] = wbft_config(node);
    if node.options().is_v1_1() {
        let transitions = serde_json::from_str(&node.options().transitions).unwrap_or_default();
        istanbul["config"]["transitions"] = transitions;
    }
    json!({
        "id": hex::plain(&node.params.node_id(index)),
        "name": client_version(node),
        "enode": enode(node, index),
        "enr": "enr:-",
        "ip": "127.0.0.1",
        "ports": {"discovery": 0, "listener": port},
        "listenAddr": format!("[::]:{port}"),
        "protocols": {"eth": protocol, "istanbul": istanbul, "snap": {}},
    })
}

/// The chain configuration: a fork that the program does not know is absent. The first one is recorded as `bohoBlock`;
/// later ones get names of their own.
fn config(node: &Node) -> Value {
    let mut config = json!({"chainId": node.params.chain_id});
    for fork in [
        "homestead",
        "eip150",
        "eip155",
        "eip158",
        "byzantium",
        "constantinople",
        "petersburg",
        "istanbul",
        "muirGlacier",
        "berlin",
        "london",
        "applepie",
    ] {
        config[format!("{fork}Block")] = 0.into();
    }
    for (at, height) in node.args.options.fork.iter().enumerate() {
        let name =
            ["boho", "croissant", "donut"].get(at).map_or_else(|| format!("fork{at}"), |name| (*name).into());
        config[format!("{name}Block")] = (*height).into();
    }
    config
}

fn wbft_config(node: &Node) -> Value {
    let validators: Vec<String> =
        (0..node.params.validators).map(|i| hex::data(&node.params.address(i))).collect();
    let keys: Vec<String> = (0..node.params.validators).map(|i| hex::data(&node.params.bls(i))).collect();
    json!({
        "wbft": {
            "requestTimeoutSeconds": node.params.timeout.div_ceil(1000),
            "blockPeriodSeconds": node.params.period.div_ceil(1000),
            "epochLength": node.params.epoch,
            "proposerPolicy": 0,
            "maxRequestTimeoutSeconds": null,
        },
        "init": {"validators": validators, "blsPublicKeys": keys},
    })
}

fn peers(node: &Node) -> Value {
    let state = node.state();
    let peer = |(index, version): &(usize, String)| {
        json!({
            "enode": enode(node, *index),
            "id": hex::plain(&node.params.node_id(*index)),
            "name": client_string(&node.args.options.name, version),
            "caps": ["eth/68", "istanbul/100", "snap/1"],
            "network": {
                "localAddress": format!("127.0.0.1:{}", 30303 + node.args.options.index),
                "remoteAddress": format!("127.0.0.1:{}", 30303 + index),
                "inbound": true,
                "trusted": false,
                "static": false,
            },
            "protocols": {"eth": {"version": 68}, "istanbul": {"version": 68}, "snap": {"version": 1}},
        })
    };
    state.peers.iter().map(peer).collect()
}

fn enode(node: &Node, index: usize) -> String {
    format!("enode://{}@127.0.0.1:{}?discport=0", public_key(node, index), 30303 + index)
}

fn public_key(node: &Node, index: usize) -> String {
    hex::plain(&node.params.noise(&format!("enode {index}"), 64))
}
