//! The data directory of one node: the lock, its own copy of the chain, its keys.
//!
//! The layout is a geth-like node's: `<datadir>/simnode/LOCK` under `flock`, `<datadir>/simnode/chaindata/`,
//! `<datadir>/simnode/nodekey`, `jwtsecret`, `<datadir>/keystore/`. A node that lags behind in writing its state (`rewind`)
//! has an older head when it is killed and not when it stops: `HEAD` holds it while it is not the last block. The blocks
//! above it stay in the database, where peers can get them. A torn last line is dropped at the next start. The blocks are in
//! one file of lines, or in the layout of Pebble.

use super::chain::Block;
use super::hex;
use super::tables::Tables;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The instance directory inside the data directory.
pub(crate) const INSTANCE: &str = "simnode";

/// Why the data could not be opened.
pub(crate) enum Refusal {
    /// Another process holds the lock.
    Locked,
    /// The data were written by a newer program, of this version.
    Newer(u32),
    Io(std::io::Error),
}

impl From<std::io::Error> for Refusal {
    fn from(err: std::io::Error) -> Refusal {
        Refusal::Io(err)
    }
}

/// The open data directory; the lock is held as long as it lives.
pub(crate) struct Store {
    lock: File,
    log: Box<dyn Log + Send>,
    /// Hashes of the blocks on disk, to notice when the chain was reorganised below the last one.
    last: Vec<String>,
    /// Where the head is written while it is below the last block, and what is written there.
    mark: PathBuf,
    marked: Option<usize>,
}

/// The blocks on disk, a line each, without the genesis block.
pub(super) trait Log {
    fn append(&mut self, line: &[u8]) -> std::io::Result<()>;
    /// Keeps only the first `lines`.
    fn cut(&mut self, lines: usize) -> std::io::Result<()>;
}

/// All lines in one file.
struct Lines {
    file: File,
    /// Byte offset behind each line; entry 0 is the beginning.
    ends: Vec<u64>,
}

/// How the blocks are laid out on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In one file, `blocks.jsonl`.
    Lines,
    /// As Pebble and geth's ancient data have them.
    Pebble,
}

/// The blocks of a data directory.
pub(crate) struct Loaded {
    /// The chain up to the head.
    pub(crate) chain: Vec<Block>,
    /// Blocks above the head: known, but their state is missing.
    pub(crate) known: Vec<Block>,
    /// Whether the data were of an older format.
    pub(crate) was_older: bool,
}

/// Takes the lock of `datadir`, creating what is missing.
pub(crate) fn lock(datadir: &Path) -> Result<File, Refusal> {
    let instance = datadir.join(INSTANCE);
    fs::create_dir_all(instance.join("chaindata"))?;
    let lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(instance.join("LOCK"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Refusal::Locked),
        Err(TryLockError::Error(err)) => Err(Refusal::Io(err)),
    }
}

impl Store {
    /// Reads the chain of a locked data directory, whose format must not be newer than `db`.
    pub(crate) fn open(
        datadir: &Path,
        lock: File,
        (db, layout): (u32, Layout),
        genesis: Block,
    ) -> Result<(Store, Loaded), Refusal> {
        let chaindata = datadir.join(INSTANCE).join("chaindata");
        let was_older = check_format(&chaindata.join("VERSION"), db)?;
        keep_keys(datadir, &genesis.hash)?;
        let (log, text) = layout.open(&chaindata)?;
        let mark = chaindata.join("HEAD");
        let marked = fs::read_to_string(&mark).ok().and_then(|text| text.trim().parse().ok());
        let mut store = Store { lock, log, last: vec![genesis.hash.clone()], mark, marked };
        let mut chain = vec![genesis];
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Ok(block) = serde_json::from_slice::<Block>(line) else { break };
            if !line.ends_with(b"\n") || block.parent != chain[chain.len() - 1].hash {
                break;
            }
            store.last.push(block.hash.clone());
            chain.push(block);
        }
        store.cut(chain.len())?;
        let head = store.marked.map_or(chain.len(), |head| chain.len().min(head + 1));
        let known = chain.split_off(head);
        Ok((store, Loaded { chain, known, was_older }))
    }

    /// Writes `chain`, whose newest `lag` blocks are lost as the head if the process is killed.
    pub(crate) fn save(&mut self, chain: &[Block], lag: u64) -> std::io::Result<()> {
        let same = self.last.len().min(chain.len());
        if self.last[same - 1] != chain[same - 1].hash {
            self.cut(self.last.iter().zip(chain).take_while(|(hash, block)| **hash == block.hash).count())?;
        }
        for block in chain.get(self.last.len()..).unwrap_or_default() {
            let mut line = serde_json::to_vec(block)?;
            line.push(b'\n');
            self.log.append(&line)?;
            self.last.push(block.hash.clone());
        }
        self.mark(chain.len().saturating_sub(lag as usize).max(1) - 1)
    }

    /// Forgets every block but the first `blocks`.
    pub(crate) fn forget(&mut self, blocks: usize) -> std::io::Result<()> {
        if blocks < self.last.len() { self.cut(blocks) } else { Ok(()) }
    }

    fn mark(&mut self, head: usize) -> std::io::Result<()> {
        let wanted = (head + 1 < self.last.len()).then_some(head);
        if wanted == self.marked {
            return Ok(());
        }
        match wanted {
            Some(head) => {
                let partial = self.mark.with_extension("partial");
                fs::write(&partial, format!("{head}\n"))?;
                fs::rename(partial, &self.mark)?;
            }
            None => fs::remove_file(&self.mark)?,
        }
        self.marked = wanted;
        Ok(())
    }

    /// Whether the data were told that another program decides what is final.
    pub(crate) fn is_halted(&self) -> bool {
        halt_mark(&self.mark).exists()
    }

    /// The lock's descriptor, for a child that is to keep it.
    pub(crate) fn lock_file(&self) -> &File {
        &self.lock
    }

    fn cut(&mut self, blocks: usize) -> std::io::Result<()> {
        self.last.truncate(blocks);
        self.log.cut(blocks - 1)
    }
}

impl Layout {
    fn open(self, chaindata: &Path) -> std::io::Result<(Box<dyn Log + Send>, Vec<u8>)> {
        Ok(match self {
            Layout::Lines => {
                let (log, text) = Lines::open(&chaindata.join("blocks.jsonl"))?;
                (Box::new(log), text)
            }
            Layout::Pebble => {
                let (log, text) = Tables::open(chaindata)?;
                (Box::new(log), text)
            }
        })
    }
}

impl Lines {
    fn open(path: &Path) -> std::io::Result<(Self, Vec<u8>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let mut ends = vec![0];
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            ends.push(ends[ends.len() - 1] + line.len() as u64);
        }
        Ok((Lines { file, ends }, text))
    }
}

impl Log for Lines {
    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.ends.push(self.ends[self.ends.len() - 1] + line.len() as u64);
        self.file.write_all(line)
    }

    fn cut(&mut self, lines: usize) -> std::io::Result<()> {
        self.ends.truncate(lines + 1);
        let end = self.ends[lines];
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }
}

/// Notes in a data directory that another program decides what is final, which no restart undoes.
pub(crate) fn halt(datadir: &Path) -> std::io::Result<()> {
    fs::write(halt_mark(&datadir.join(INSTANCE).join("chaindata").join("HEAD")), "finalized\n")
}

fn halt_mark(head: &Path) -> PathBuf {
    head.with_file_name("TRANSITION")
}

/// Refuses data of a format newer than `db`. Older ones are upgraded on the spot; returns whether they were.
fn check_format(path: &Path, db: u32) -> Result<bool, Refusal> {
    let written = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    match written {
        Some(written) if written > db => Err(Refusal::Newer(written)),
        Some(written) if written == db => Ok(false),
        _ => Ok(fs::write(path, format!("{db}\n")).map(|()| written.is_some())?),
    }
}

/// Files that an operator must never lose, so that backups and restores have something to leave alone.
fn keep_keys(datadir: &Path, seed: &str) -> std::io::Result<()> {
    let secret = hex::plain(&super::keccak::keccak256(format!("{seed} {}", datadir.display()).as_bytes()));
    let instance = datadir.join(INSTANCE);
    fs::create_dir_all(datadir.join("keystore"))?;
    let files: [(PathBuf, String); 3] = [
        (instance.join("nodekey"), secret.clone()),
        (instance.join("jwtsecret"), format!("0x{secret}")),
        (datadir.join("keystore").join("UTC--simnode"), format!("{{\"crypto\":\"{}\"}}\n", &secret[..16])),
    ];
    for (path, text) in files {
        if !path.exists() {
            fs::write(path, text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Params, Proposal};
    use super::*;

    fn params() -> Params {
        Params {
            chain_id: 1,
            validators: 1,
            crowd: false,
            epoch: 10,
            fields: 10,
            period: 1000,
            timeout: 2000,
            slow: 0,
            sets: Vec::new(),
        }
    }

    fn grow(chain: &mut Vec<Block>, blocks: u64, salt: u64) {
        for _ in 0..blocks {
            let (rules, version) = (Vec::new(), "v1.0.0".into());
            let proposal = Proposal { miner: 0, round: 0, votes: vec![0], rules, version, now_ms: salt };
            chain.push(params().seal(&chain[chain.len() - 1], proposal));
        }
    }

    fn open(dir: &Path) -> (Store, Loaded) {
        open_as(dir, Layout::Lines)
    }

    fn open_as(dir: &Path, layout: Layout) -> (Store, Loaded) {
        let opened = lock(dir).and_then(|lock| Store::open(dir, lock, (8, layout), params().genesis()));
        opened.unwrap_or_else(|_| panic!("the store does not open"))
    }

    /// Unlocks explicitly: a child that another test forks just now may hold the descriptor until it executes.
    fn close(store: Store) {
        store.lock.unlock().unwrap();
    }

    #[test]
    fn a_kill_rewinds_the_head_and_keeps_the_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, Loaded { mut chain, .. }) = open(dir.path());
        grow(&mut chain, 9, 1);
        store.save(&chain, 4).unwrap();
        close(store);
        let (mut store, loaded) = open(dir.path());
        assert_eq!((loaded.chain.len(), loaded.known.as_slice()), (6, &chain[6..]));
        // The head may return step by step.
        store.save(&chain[..8], 0).unwrap();
        close(store);
        let (mut store, loaded) = open(dir.path());
        assert_eq!((loaded.chain.len(), loaded.known.len()), (8, 2));
        store.save(&chain, 0).unwrap();
        close(store);
        let (_, loaded) = open(dir.path());
        assert_eq!((loaded.chain, loaded.known.len()), (chain, 0));
    }

    #[test]
    fn another_chain_replaces_known_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, Loaded { mut chain, .. }) = open(dir.path());
        grow(&mut chain, 9, 1);
        store.save(&chain, 4).unwrap();
        chain.truncate(6);
        grow(&mut chain, 1, 2);
        store.save(&chain, 0).unwrap();
        close(store);
        let (_, loaded) = open(dir.path());
        assert_eq!((loaded.chain, loaded.known.len()), (chain, 0));
    }

    #[test]
    fn tables_and_ancient_data_hold_the_chain_and_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, Loaded { mut chain, .. }) = open_as(dir.path(), Layout::Pebble);
        let chaindata = dir.path().join(INSTANCE).join("chaindata");
        for length in 1..50 {
            grow(&mut chain, 1, 1);
            store.save(&chain, 0).unwrap();
            if length % 7 == 0 {
                close(store);
                let (again, loaded) = open_as(dir.path(), Layout::Pebble);
                assert_eq!(loaded.chain, chain);
                store = again;
            }
        }
        for there in ["CURRENT", "MANIFEST-000001", "OPTIONS-000003", "ancient/chain/bodies.0003.cdat"] {
            assert!(chaindata.join(there).exists(), "{there}");
        }
        chain.truncate(30);
        store.forget(30).unwrap();
        grow(&mut chain, 1, 2);
        store.save(&chain, 0).unwrap();
        close(store);
        let (store, loaded) = open_as(dir.path(), Layout::Pebble);
        assert_eq!(loaded.chain, chain);
        close(store);
        // Files that do not belong together are refused.
        fs::write(chaindata.join("ancient/chain/hashes.0000.rdat"), [0; 256]).unwrap();
        assert!(Layout::Pebble.open(&chaindata).is_err());
    }
}
