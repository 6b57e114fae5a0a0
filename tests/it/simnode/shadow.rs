//! A second node beside the first, on a copy of its data, without peers and fed from a file.

use crate::rig::sim::{Sim, SimNode, number, stamp};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

fn hash_at(node: &SimNode, height: u64) -> Value {
    node.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))["hash"].clone()
}

/// Copies the data of a node that runs, without its lock and its key.
fn copy(from: &Path, to: &Path) {
    let chaindata = Path::new("simnode/chaindata");
    fs::create_dir_all(to.join(chaindata)).unwrap();
    for name in ["VERSION", "HEAD", "blocks.jsonl"] {
        let path = chaindata.join(name);
        fs::copy(from.join(&path), to.join(&path)).unwrap();
    }
}

fn shadow(data: &Path) -> Sim {
    let key = data.join("key");
    fs::write(&key, "01".repeat(32)).unwrap();
    let isolated = Sim::new(data).without("--mine").arg("--nodiscover").arg("--maxpeers").arg("0");
    isolated.arg("--nodekey").arg(key.to_str().unwrap())
}

/// Writes the blocks of a node to a file.
fn export(node: &SimNode, heights: std::ops::RangeInclusive<u64>, file: &Path) {
    let raw = |height: u64| node.call("debug_getRawBlock", json!([format!("{height:#x}")]));
    let bytes = heights.flat_map(|height| {
        let raw = raw(height);
        let digits = raw.as_str().unwrap().strip_prefix("0x").unwrap().as_bytes().to_vec();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect::<Vec<u8>>()
    });
    fs::write(file, bytes.collect::<Vec<u8>>()).unwrap();
}

#[test]
fn a_copy_of_the_data_of_a_running_node_is_rewound_and_fed_to_equal_hashes() {
    let dir = tempdir().unwrap();
    let live = Sim::new(dir.path().join("live")).option("rewind", 6).start();
    live.wait_head(20);
    let clone = dir.path().join("clone");
    copy(&dir.path().join("live"), &clone);
    let mut node = shadow(&clone).start();
    let head = node.head();
    let last =
        fs::read_to_string(clone.join("simnode/chaindata/blocks.jsonl")).unwrap().lines().count() as u64;
    assert!(head < last, "the head of {last} blocks is at {head}");
    assert_eq!(
        (hash_at(&node, head), node.call("eth_mining", json!([]))),
        (hash_at(&live, head), json!(false))
    );

    // Blocks that are all in the database are passed over.
    let file = dir.path().join("blocks.rlp");
    export(&live, head + 1..=last, &file);
    assert_eq!(node.call("admin_importChain", json!([file])), json!(true));
    assert_eq!(node.head(), head);
    node.call("debug_setHead", json!([format!("{head:#x}")]));
    assert_eq!(node.call("admin_importChain", json!([file])), json!(true));
    assert_eq!((node.head(), hash_at(&node, last)), (last, hash_at(&live, last)));

    // Together with a new one they are executed, and what is there already does no harm.
    let more = live.wait_head(last + 5);
    export(&live, head..=more, &file);
    assert_eq!(node.call("admin_importChain", json!([file])), json!(true));
    assert_eq!((node.head(), hash_at(&node, more)), (more, hash_at(&live, more)));
    assert!(node.stop().success());
    assert_eq!(shadow(&clone).start().head(), more);
}

#[test]
fn a_block_that_does_not_fit_is_refused() {
    let dir = tempdir().unwrap();
    let live = Sim::new(dir.path().join("live")).start();
    live.wait_head(12);
    let clone = dir.path().join("clone");
    fs::create_dir(&clone).unwrap();
    let other = stamp(&dir.path().join("other"), &[("fork", "5")]);
    let node = shadow(&clone).program(&other).start();
    let file = dir.path().join("blocks.rlp");
    let refused = |heights| {
        export(&live, heights, &file);
        let request = json!([file]);
        let reply = crate::rig::sim::exchange(&node.ipc, "admin_importChain", &request).unwrap();
        reply["error"]["message"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(refused(3..=4), "batch 0: failed to insert: unknown ancestor");
    assert_eq!(refused(1..=9), "batch 0: failed to insert: invalid merkle root");
    assert_eq!(number(&node.call("eth_blockNumber", json!([]))), 4);
    fs::write(&file, "no blocks").unwrap();
    let reply = crate::rig::sim::exchange(&node.ipc, "admin_importChain", &json!([file])).unwrap();
    assert!(reply["error"]["message"].is_string(), "{reply}");
}

#[test]
fn a_migration_takes_its_time_once_and_modules_may_be_lacking() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("n");
    Sim::new(&data).start().wait_head(3);
    let newer = Sim::new(&data).option("db", 9).option("migrate", 300).option("lacks", "debug,admin");
    let begun = std::time::Instant::now();
    let mut node = newer.start();
    assert!(begun.elapsed().as_millis() >= 300);
    for method in ["debug_getRawBlock", "admin_importChain"] {
        let reply = crate::rig::sim::exchange(&node.ipc, method, &json!(["0x1"])).unwrap();
        assert_eq!(reply["error"]["code"], -32601, "{reply}");
    }
    node.stop();
    assert_eq!(fs::read_to_string(data.join("simnode/chaindata/VERSION")).unwrap().trim(), "9");
}
