//! Every block that was ever decided in a network: `decided.jsonl`, which only grows.
//!
//! The chain of a network may be cut back when all its nodes come back with older heads. This log is not, so that a test
//! can see a height decided twice, and a node can be served a block that still stands in the database of a peer.

use super::chain::Block;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

const FILE: &str = "decided.jsonl";

/// Appends blocks in one write.
pub(crate) fn append(network: &Path, blocks: &[Block]) -> std::io::Result<()> {
    let mut text = Vec::new();
    for block in blocks {
        serde_json::to_writer(&mut text, block)?;
        text.push(b'\n');
    }
    if text.is_empty() {
        return Ok(());
    }
    OpenOptions::new().create(true).append(true).open(network.join(FILE))?.write_all(&text)
}

/// The blocks above `root` up to the one with the hash `top`, oldest first; none if `top` is no descendant of `root`.
pub(crate) fn branch(network: &Path, root: &Block, top: &str) -> Vec<Block> {
    let text = fs::read_to_string(network.join(FILE)).unwrap_or_default();
    let blocks = text.lines().filter_map(|line| serde_json::from_str::<Block>(line).ok());
    let mut blocks: HashMap<String, Block> = blocks.map(|block| (block.hash.clone(), block)).collect();
    let (mut branch, mut hash) = (Vec::new(), top.to_owned());
    while hash != root.hash {
        let Some(block) = blocks.remove(&hash).filter(|block| block.number > root.number) else {
            return Vec::new();
        };
        hash.clone_from(&block.parent);
        branch.push(block);
    }
    branch.reverse();
    branch
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Params, Proposal};
    use super::*;

    #[test]
    fn a_branch_is_found_by_its_top_and_only_above_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let params = Params {
            chain_id: 1,
            validators: 1,
            crowd: false,
            epoch: 10,
            fields: 10,
            period: 1000,
            timeout: 2000,
            slow: 0,
            sets: Vec::new(),
        };
        let next = |parent: &Block, now_ms| {
            let proposal = Proposal {
                miner: 0,
                round: 0,
                votes: vec![0],
                rules: Vec::new(),
                version: "v1.0.0".into(),
                now_ms,
            };
            params.seal(parent, proposal)
        };
        let genesis = params.genesis();
        let (one, other) = (next(&genesis, 1), next(&genesis, 2));
        let two = next(&one, 3);
        append(dir.path(), &[one.clone(), other.clone()]).unwrap();
        append(dir.path(), std::slice::from_ref(&two)).unwrap();
        assert_eq!(branch(dir.path(), &genesis, &two.hash), [one.clone(), two.clone()]);
        assert_eq!(branch(dir.path(), &one, &two.hash), std::slice::from_ref(&two));
        assert!(branch(dir.path(), &other, &two.hash).is_empty());
        assert!(branch(dir.path(), &genesis, "0x00").is_empty());
    }
}
