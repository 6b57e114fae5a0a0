//! What one node keeps in its data directory: the lock, its own copy of the chain, its keys.
//!
//! The layout is a geth-like node's: `<datadir>/simnode/LOCK` under `flock`, `<datadir>/simnode/chaindata/`,
//! `<datadir>/simnode/nodekey`, `jwtsecret`, `<datadir>/keystore/`. A node that lags behind in writing (`rewind`) loses
//! those blocks when it is killed and none when it stops; a torn last line is dropped at the next start.

use super::chain::Block;
use super::hex;
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
    log: File,
    /// Byte offset behind each block that is on disk; entry 0 is block 1's beginning.
    ends: Vec<u64>,
    /// Hash of the last block on disk, to notice when the chain was reorganised below it.
    last: Vec<String>,
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
        db: u32,
        genesis: Block,
    ) -> Result<(Store, Vec<Block>), Refusal> {
        let chaindata = datadir.join(INSTANCE).join("chaindata");
        check_format(&chaindata.join("VERSION"), db)?;
        keep_keys(datadir, &genesis.hash)?;
        let path = chaindata.join("blocks.jsonl");
        let mut log = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        let mut store = Store { lock, log, ends: vec![0], last: vec![genesis.hash.clone()] };
        let mut chain = vec![genesis];
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Ok(block) = serde_json::from_slice::<Block>(line) else { break };
            if !line.ends_with(b"\n") || block.parent != chain[chain.len() - 1].hash {
                break;
            }
            store.ends.push(store.ends[store.ends.len() - 1] + line.len() as u64);
            store.last.push(block.hash.clone());
            chain.push(block);
        }
        store.cut(chain.len())?;
        Ok((store, chain))
    }

    /// Writes `chain` except its newest `lag` blocks.
    pub(crate) fn save(&mut self, chain: &[Block], lag: u64) -> std::io::Result<()> {
        let length = chain.len().saturating_sub(lag as usize).max(1);
        let same = self.last.len().min(length);
        if self.last[same - 1] != chain[same - 1].hash || self.last.len() > chain.len() {
            let common = self.last.iter().zip(chain).take_while(|(hash, block)| **hash == block.hash).count();
            self.cut(common)?;
        }
        for block in chain.get(self.last.len()..length).unwrap_or_default() {
            let mut line = serde_json::to_vec(block)?;
            line.push(b'\n');
            self.log.write_all(&line)?;
            self.ends.push(self.ends[self.ends.len() - 1] + line.len() as u64);
            self.last.push(block.hash.clone());
        }
        Ok(())
    }

    /// The lock's descriptor, for a child that is to keep it.
    pub(crate) fn lock_file(&self) -> &File {
        &self.lock
    }

    fn cut(&mut self, blocks: usize) -> std::io::Result<()> {
        self.ends.truncate(blocks);
        self.last.truncate(blocks);
        let end = self.ends[blocks - 1];
        self.log.set_len(end)?;
        self.log.seek(SeekFrom::Start(end)).map(drop)
    }
}

/// Whether `datadir` says it was written in a format newer than `db`; older formats are upgraded on the spot.
fn check_format(path: &Path, db: u32) -> Result<(), Refusal> {
    let written = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    match written {
        Some(written) if written > db => Err(Refusal::Newer(written)),
        Some(written) if written == db => Ok(()),
        _ => Ok(fs::write(path, format!("{db}\n"))?),
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
