//! The last accepted dial of each node, as its peers remember it: `dials.json` in the network's directory.
//!
//! Only nodes on public addresses keep it. Whoever calls holds the lock of the network.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FILE: &str = "dials.json";

/// When the last dial of node `index` was accepted, in milliseconds since 1970.
pub(crate) fn last(network: &Path, index: usize) -> Option<u64> {
    read(network).remove(&index)
}

/// Notes an accepted dial.
pub(crate) fn note(network: &Path, index: usize, now: u64) -> std::io::Result<()> {
    let mut dials = read(network);
    dials.insert(index, now);
    let partial = network.join("dials.partial");
    fs::write(&partial, serde_json::to_vec(&dials)?)?;
    fs::rename(partial, network.join(FILE))
}

fn read(network: &Path) -> BTreeMap<usize, u64> {
    let text = fs::read(network.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dials_are_kept_by_node() {
        let dir = tempfile::tempdir().unwrap();
        super::note(dir.path(), 3, 7).unwrap();
        super::note(dir.path(), 1, 8).unwrap();
        super::note(dir.path(), 3, 9).unwrap();
        let last = [1, 2, 3].map(|index| super::last(dir.path(), index));
        assert_eq!(last, [Some(8), None, Some(9)]);
    }
}
