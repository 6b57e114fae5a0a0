//! The audit of a simulated network: does any recorded vote contradict a final block?
//!
//! A network directory holds every block that was ever decided there, and each node records its votes. The block that was
//! decided first at a height is the final one, whatever the chain holds today: a chain that was cut back and decided
//! anew is exactly what the audit must find.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A block that was decided.
struct Decided {
    hash: String,
    ms: u64,
}

/// Every contradiction in the network at `network` among the votes that were recorded in the directories `nodes`.
///
/// - `decided twice: …` names two different blocks decided at one height;
/// - `contradiction: COMMIT …` a vote that was given against a block already final;
/// - `stale: PRE-PREPARE …` and `stale: PREPARE …` the votes that come before a COMMIT, which alone decide nothing. Those
///   for the first block are left out: validators of a new network do not begin at one moment.
pub(crate) fn contradictions(network: &Path, nodes: &[&Path]) -> Vec<String> {
    let decided = decided(network);
    let mut found = Vec::new();
    for (height, blocks) in &decided {
        for again in &blocks[1..] {
            let Decided { hash, ms } = &blocks[0];
            let (other, later) = (&again.hash, again.ms);
            found.push(format!("decided twice: height {height}: {hash} at {ms}, {other} at {later}"));
        }
    }
    for node in nodes {
        for vote in lines(&node.join("sim.votes")) {
            found.extend(judge(node, &vote, &decided));
        }
    }
    found.sort_by_key(|line| line.starts_with("stale"));
    found
}

fn judge(node: &Path, vote: &Value, decided: &BTreeMap<u64, Vec<Decided>>) -> Option<String> {
    let number = |key: &str| vote[key].as_u64().unwrap();
    let text = |key: &str| vote[key].as_str().unwrap();
    let last = &decided.get(&number("height"))?[0];
    if text("hash") == last.hash || number("ms") <= last.ms {
        return None;
    }
    let kind = text("kind");
    let class = if kind == "COMMIT" { "contradiction" } else { "stale" };
    if class == "stale" && number("height") == 1 {
        return None;
    }
    Some(format!(
        "{class}: {kind} height={} round={} hash={} ms={} node={}, final {} since {}",
        number("height"),
        number("round"),
        text("hash"),
        number("ms"),
        node.display(),
        last.hash,
        last.ms,
    ))
}

/// The blocks of each height, the first decided one first.
fn decided(network: &Path) -> BTreeMap<u64, Vec<Decided>> {
    let mut heights: BTreeMap<u64, Vec<Decided>> = BTreeMap::new();
    for block in lines(&network.join("decided.jsonl")).into_iter().chain(chain(network)) {
        let (hash, ms) = (block["hash"].as_str().unwrap().to_owned(), block["salt"].as_u64().unwrap());
        let blocks = heights.entry(block["number"].as_u64().unwrap()).or_default();
        if blocks.iter().all(|known| known.hash != hash) {
            blocks.push(Decided { hash, ms });
        }
    }
    heights.values_mut().for_each(|blocks| blocks.sort_by_key(|block| block.ms));
    heights
}

/// The chain as the network has it now.
fn chain(network: &Path) -> Vec<Value> {
    let mark = fs::read(network.join("world.json")).unwrap_or_default();
    let mark: Value = serde_json::from_slice(&mark).unwrap_or_default();
    lines(&network.join(format!("chain-{}.jsonl", mark["generation"])))
}

/// The complete lines of a file that may still be written to.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tempfile::tempdir;

    fn write(path: &Path, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn vote(kind: &str, hash: &str, ms: u64) -> Value {
        json!({"kind": kind, "height": 5, "round": 0, "hash": hash, "ms": ms, "pid": 1})
    }

    #[test]
    fn only_votes_against_a_block_already_final_are_found() {
        let dir = tempdir().unwrap();
        let (network, node) = (dir.path().join("net"), dir.path().join("n0"));
        write(&network.join("decided.jsonl"), &[json!({"number": 5, "hash": "0xa", "salt": 100})]);
        let good = [vote("COMMIT", "0xa", 100), vote("COMMIT", "0xa", 200), vote("PRE-PREPARE", "0xb", 100)];
        write(&node.join("sim.votes"), &good);
        assert_eq!(contradictions(&network, &[&node]), Vec::<String>::new());
        write(&node.join("sim.votes"), &[vote("PREPARE", "0xb", 101), vote("COMMIT", "0xb", 102)]);
        let found = contradictions(&network, &[&node]);
        assert!(found[0].starts_with("contradiction: COMMIT height=5 round=0 hash=0xb ms=102"), "{found:?}");
        assert!(found[1].starts_with("stale: PREPARE height=5"), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_validator_that_begins_after_the_others_may_still_propose_the_first_block() {
        let dir = tempdir().unwrap();
        write(&dir.path().join("decided.jsonl"), &[json!({"number": 1, "hash": "0xa", "salt": 100})]);
        let vote = |kind| json!({"kind": kind, "height": 1, "round": 0, "hash": "0xb", "ms": 117});
        write(&dir.path().join("sim.votes"), &[vote("PRE-PREPARE"), vote("COMMIT")]);
        let found = contradictions(dir.path(), &[dir.path()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("contradiction: COMMIT height=1"), "{found:?}");
    }

    #[test]
    fn a_height_decided_twice_is_found_though_the_chain_holds_one_block() {
        let dir = tempdir().unwrap();
        let (first, second) = (
            json!({"number": 5, "hash": "0xa", "salt": 100}),
            json!({"number": 5, "hash": "0xb", "salt": 300}),
        );
        write(&dir.path().join("decided.jsonl"), &[first, second.clone()]);
        write(&dir.path().join("world.json"), &[json!({"generation": 1})]);
        write(&dir.path().join("chain-1.jsonl"), &[second]);
        let found = contradictions(dir.path(), &[]);
        assert_eq!(found, ["decided twice: height 5: 0xa at 100, 0xb at 300"]);
    }
}
