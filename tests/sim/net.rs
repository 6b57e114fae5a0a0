//! The network of several processes: one directory that they take turns to look into.
//!
//! `lock` is held (flock) during each visit; `world.json` and the chain file it points to are the state; `members/` has
//! one file per process, flocked for its life, so that the kernel says which have died. A process killed half-way through a
//! visit leaves at most an unfinished tail or an unused file, since only the rename of `world.json` makes a change
//! count. A node without a network has one of its own in its data directory: being alone is no special case.

use super::chain::{Block, Params};
use super::world::{Member, World};
use super::{decided, dials};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The content of `world.json`.
#[derive(Serialize, Deserialize, Default)]
struct Mark {
    /// Which chain file is valid; a new one is begun when blocks are taken back.
    generation: u64,
    /// How much of it is.
    bytes: u64,
    round: u64,
    round_began: u64,
    due: u64,
}

/// This process's view of the network.
pub(crate) struct Network {
    dir: PathBuf,
    params: Params,
    world: World,
    mark: Mark,
    /// Byte offset behind each block in the chain file; entry 0 belongs to the genesis block, which is not in it.
    ends: Vec<u64>,
    /// Identity of the `world.json` last read, to see from outside whether it was replaced.
    seen: Option<(u64, i64, i64)>,
    card: Option<File>,
    card_path: PathBuf,
    card_text: String,
}

/// The chain that a node can get from its peers.
pub(crate) struct Offer {
    /// The height up to which they have the network's chain.
    pub(crate) height: u64,
    /// Blocks above the network's chain that still stand in a database.
    pub(crate) beyond: Vec<Block>,
}

impl Offer {
    /// The height of the highest block on offer.
    pub(crate) fn top(&self) -> u64 {
        self.beyond.last().map_or(self.height, |block| block.number)
    }
}

/// A visit: the lock is held until [`Visit::leave`].
pub(crate) struct Visit<'a> {
    network: &'a mut Network,
    lock: File,
    before: (usize, usize, u64, u64, u64),
    /// Blocks decided during this visit.
    decided: Vec<Block>,
    /// The other living processes.
    pub(crate) others: Vec<Member>,
}

impl Network {
    /// Joins the network in `dir`, which is created if need be, and shows `me` in it.
    pub(crate) fn join(dir: &Path, params: Params, me: &Member) -> std::io::Result<Network> {
        fs::create_dir_all(dir.join("members"))?;
        let mut network = Network::watch(dir, params)?;
        let lock = lock(dir)?;
        network.card_path = dir.join("members").join(format!("{}-{}", me.index, me.pid));
        let card =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&network.card_path)?;
        card.lock()?;
        lock.unlock()?;
        network.card = Some(card);
        Ok(network)
    }

    /// Learns the constants of the network in `dir` without becoming a member.
    pub(crate) fn watch(dir: &Path, mut params: Params) -> std::io::Result<Network> {
        if let Ok(text) = fs::read(dir.join("sets.json")) {
            params.sets = serde_json::from_slice(&text)?;
        }
        let world = World::new(params.genesis());
        Ok(Network {
            dir: dir.into(),
            params,
            world,
            mark: Mark::default(),
            ends: vec![0],
            seen: None,
            card: None,
            card_path: PathBuf::new(),
            card_text: String::new(),
        })
    }

    /// The constants of the chain, with the sets that the network prescribes.
    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    /// Whether this process is a member.
    pub(crate) fn is_joined(&self) -> bool {
        self.card.is_some()
    }

    /// When the last dial of node `index` was accepted.
    pub(crate) fn last_dial(&self, index: usize) -> Option<u64> {
        dials::last(&self.dir, index)
    }

    /// Leaves the network for good. `dial` is the node whose peers are dialled once more while it ends, and when.
    pub(crate) fn quit(self, dial: Option<(usize, u64)>) -> std::io::Result<()> {
        if !self.is_joined() {
            return Ok(());
        }
        let _lock = lock(&self.dir)?;
        let _ = fs::remove_file(&self.card_path);
        dial.map_or(Ok(()), |(index, now)| dials::note(&self.dir, index, now))
    }

    /// When there is next something to do, unless another process acts before.
    pub(crate) fn deadline(&self, now: u64) -> u64 {
        self.world.deadline(&self.params, now)
    }

    /// Whether another process did something since the last visit.
    pub(crate) fn is_stale(&self) -> bool {
        self.identity() != self.seen
    }

    /// Takes the lock and reads what is new.
    pub(crate) fn visit(&mut self) -> std::io::Result<Visit<'_>> {
        let lock = lock(&self.dir)?;
        self.read()?;
        let others = self.living()?;
        let before = self.state();
        Ok(Visit { network: self, lock, before, decided: Vec::new(), others })
    }

    fn identity(&self) -> Option<(u64, i64, i64)> {
        let meta = fs::metadata(self.dir.join("world.json")).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    /// Reads the state. Its identity is no reason not to: two files within one tick of the clock may share an inode.
    fn read(&mut self) -> std::io::Result<()> {
        let identity = self.identity();
        if identity.is_none() {
            return Ok(());
        }
        let mark: Mark = serde_json::from_slice(&fs::read(self.dir.join("world.json"))?)?;
        // After a visit that failed half-way what we have in memory is worth nothing.
        if mark.generation != self.mark.generation || self.ends.len() != self.world.blocks.len() {
            self.world.blocks.truncate(1);
            self.ends.truncate(1);
        }
        let mut end = self.ends[self.ends.len() - 1];
        let mut log = File::open(self.chain_file(mark.generation))?;
        log.seek(SeekFrom::Start(end))?;
        let mut text = Vec::new();
        log.take(mark.bytes - end).read_to_end(&mut text)?;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.world.blocks.push(serde_json::from_slice::<Block>(line)?);
            end += line.len() as u64;
            self.ends.push(end);
        }
        (self.world.round, self.world.round_began, self.world.due) = (mark.round, mark.round_began, mark.due);
        (self.mark, self.seen) = (mark, identity);
        Ok(())
    }

    /// The state that a visit may change.
    fn state(&self) -> (usize, usize, u64, u64, u64) {
        let World { blocks, round, round_began, due } = &self.world;
        (self.ends.len(), blocks.len(), *round, *round_began, *due)
    }

    fn chain_file(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("chain-{generation}.jsonl"))
    }

    fn write(&mut self) -> std::io::Result<()> {
        let old = self.chain_file(self.mark.generation);
        let mut end = self.ends[self.ends.len() - 1];
        let (generation, mut text) = if end < self.mark.bytes {
            let mut kept = Vec::new();
            File::open(&old)?.take(end).read_to_end(&mut kept)?;
            (self.mark.generation + 1, kept)
        } else {
            (self.mark.generation, Vec::new())
        };
        let mut log =
            OpenOptions::new().write(true).create(true).truncate(false).open(self.chain_file(generation))?;
        log.set_len(end - text.len() as u64)?;
        log.seek(SeekFrom::End(0))?;
        for block in &self.world.blocks[self.ends.len()..] {
            let line = serde_json::to_vec(block)?;
            end += line.len() as u64 + 1;
            self.ends.push(end);
            text.extend(line);
            text.push(b'\n');
        }
        log.write_all(&text)?;
        let World { round, round_began, due, .. } = self.world;
        let mark = Mark { generation, bytes: end, round, round_began, due };
        let partial = self.dir.join("world.partial");
        fs::write(&partial, serde_json::to_vec(&mark)?)?;
        fs::rename(partial, self.dir.join("world.json"))?;
        if generation != self.mark.generation {
            let _ = fs::remove_file(old);
        }
        (self.mark, self.seen) = (mark, self.identity());
        Ok(())
    }

    /// The other members; cards whose owner has died are taken away.
    fn living(&self) -> std::io::Result<Vec<Member>> {
        let mut members = Vec::new();
        for entry in fs::read_dir(self.dir.join("members"))? {
            let path = entry?.path();
            if path == self.card_path {
                continue;
            }
            let Ok(card) = File::open(&path) else { continue };
            if card.try_lock().is_ok() {
                fs::remove_file(&path)?;
            } else if let Ok(member) = serde_json::from_slice::<Member>(&fs::read(&path)?)
                && !is_paused(member.pid)
            {
                members.push(member);
            }
        }
        Ok(members)
    }
}

impl Visit<'_> {
    /// The network's chain and round.
    pub(crate) fn world(&self) -> &World {
        &self.network.world
    }

    /// Makes `chain` the network's, because no one else holds a better one.
    pub(crate) fn publish(&mut self, chain: &[Block]) {
        let kept = self.network.world.adopt(chain);
        self.network.ends.truncate(kept);
    }

    /// Starts the round anew.
    pub(crate) fn wake(&mut self, now: u64) {
        self.network.world.wake(&self.network.params, now);
    }

    /// Lets everything happen that is due, with `me` as one of the members.
    pub(crate) fn advance(&mut self, me: &Member, now: u64) {
        let mut members = self.others.clone();
        members.push(me.clone());
        if self.network.params.crowd {
            let is_absent = |index: &usize| members.iter().all(|member| member.index != *index);
            let absent: Vec<usize> = (0..self.network.params.validators).filter(is_absent).collect();
            members.extend(absent.into_iter().map(|index| Member { index, ..me.clone() }));
        }
        let before = self.network.world.blocks.len();
        self.network.world.advance(&self.network.params, &members, now);
        self.decided.extend_from_slice(&self.network.world.blocks[before..]);
    }

    /// Notes that the peers have accepted a dial of node `index`.
    pub(crate) fn note_dial(&self, index: usize, now: u64) -> std::io::Result<()> {
        dials::note(&self.network.dir, index, now)
    }

    /// The best chain that `peers` have in their databases.
    pub(crate) fn offer(&self, peers: &[Member]) -> Offer {
        let World { blocks, .. } = &self.network.world;
        let tip = self.network.world.tip();
        let mut offer = Offer { height: 0, beyond: Vec::new() };
        for peer in peers {
            match &peer.top {
                None if peer.following => offer.height = tip.number,
                None => {}
                Some((number, hash)) => match blocks.get(*number as usize) {
                    Some(block) if block.hash == *hash => offer.height = offer.height.max(*number),
                    Some(_) => {}
                    None if *number > offer.top() => {
                        let branch = decided::branch(&self.network.dir, tip, hash);
                        if !branch.is_empty() {
                            offer.beyond = branch;
                        }
                    }
                    None => {}
                },
            }
        }
        if !offer.beyond.is_empty() {
            offer.height = tip.number;
        }
        offer
    }

    /// Writes what changed, shows `me` to the others, and lets go of the lock.
    pub(crate) fn leave(self, me: &Member) -> std::io::Result<()> {
        let network = self.network;
        let card = format!("{}\n", serde_json::to_string(me)?);
        let shown = card != network.card_text;
        if shown && let Some(file) = &network.card {
            file.set_len(card.len() as u64)?;
            file.write_all_at(card.as_bytes(), 0)?;
            network.card_text = card;
        }
        // The first to come writes even if nothing has happened: others then find a state.
        if shown || network.seen.is_none() || network.state() != self.before {
            network.write()?;
            decided::append(&network.dir, &self.decided)?;
        }
        self.lock.unlock()
    }
}

fn lock(dir: &Path) -> std::io::Result<File> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Whether a process is stopped by a signal: it lives, but does not vote.
fn is_paused(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't', 'Z']))
}
