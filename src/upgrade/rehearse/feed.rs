//! Feeding: the blocks of the running node, one after the other, into the shadow, which executes them.
//!
//! `debug_getRawBlock` of the running node gives the bytes of a block, a file holds a few of them, and
//! `admin_importChain` of the shadow executes the file. It checks the state root of each, so a shadow that has the running
//! node's hash at a height has executed every block up to it. An import passes over blocks that are in the database
//! already, executed or not: a clone of data in use has such above its head. `debug_setHead` removes them.

use super::{Progress, live};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::upgrade::Cancel;
use crate::wbft::{Client, Endpoint, Fault, Hash, Options, RpcError, parse_data, show_quantity};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of blocks in the first file, and in the largest; in between as many as take this time.
const FIRST: u64 = 16;
const MOST: u64 = 512;
const PACE: Duration = Duration::from_secs(4);
/// A file is not made larger than this.
const LARGE: u64 = 32 << 20;
/// Blocks that are asked for at a time.
const ASKED: u64 = 8;
/// The time for an import, and for a new block to come.
const IMPORT: Duration = Duration::from_secs(600);
const STILL: Duration = Duration::from_secs(180);
/// A shadow that has executed enough and comes no nearer to the head for this time does not get there: it has the lowest
/// priority.
const NEARER: Duration = Duration::from_secs(20);
/// How often the running node is asked for its head.
const LOOK: Duration = Duration::from_millis(200);

/// How feeding ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// All blocks that were wanted have been executed, and the shadow is at the head.
    All,
    /// The same, but the chain rises as fast as the shadow executes: this many blocks were left.
    Behind(u64),
    /// One of the nodes does not serve what it takes.
    NotServed(String),
    /// The binary does not accept the chain.
    Refused(String),
}

/// Why no more blocks can be fed.
enum Halt {
    Fed(Fed),
    Error(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Error(error)
    }
}

/// The result of feeding so far.
#[derive(Debug, Default)]
pub(super) struct Executed {
    /// The blocks that were executed.
    pub(super) blocks: u64,
    /// Its head, which is a block of the running node.
    pub(super) head: Option<(u64, Hash)>,
    /// How long it took to come to the head of the running node, and over how many blocks.
    pub(super) caught_up: Option<(Duration, u64)>,
}

/// The two nodes, and the file between them.
pub(super) struct Feed<'a> {
    live: Client,
    shadow: Client,
    /// The same with the patience that an import takes.
    importer: Client,
    file: &'a Path,
    cancel: &'a Cancel,
    pub(super) executed: Executed,
    chunk: u64,
}

impl<'a> Feed<'a> {
    pub(super) fn new(live: Client, shadow: &Endpoint, file: &'a Path, cancel: &'a Cancel) -> Self {
        let importer = Client::new(shadow, Options { timeout: IMPORT, ..Options::default() });
        let shadow = Client::new(shadow, live::options());
        Feed { live, shadow, importer, file, cancel, executed: Executed::default(), chunk: FIRST }
    }

    /// The clients of the running node and of the shadow.
    pub(super) fn both(&mut self) -> (&mut Client, &mut Client) {
        (&mut self.live, &mut self.shadow)
    }

    /// Compares the head of the shadow with the same block of the running node; a difference in words.
    pub(super) fn compare(&mut self) -> Result<Result<(u64, Hash), String>> {
        let head = self.shadow.head()?;
        let (number, ours) = (head.number, head.hash);
        Ok(match self.live.block_hash(number).map_err(not_met)? {
            Some(hash) if hash == ours => {
                self.executed.head = Some((number, ours));
                Ok((number, ours))
            }
            Some(hash) => Err(format!("block {number} is {ours} and on the running node {hash}")),
            None => Err(format!("block {number} is not on the running node")),
        })
    }

    /// Feeds the shadow until it is at the head of the running node and has executed `wanted` blocks.
    pub(super) fn run(&mut self, wanted: u64, progress: &mut dyn FnMut(Progress)) -> Result<Fed> {
        let began = Instant::now();
        let mut at = match self.compare()? {
            Ok((height, _)) => height,
            Err(why) => return Ok(Fed::Refused(why)),
        };
        let mut last = Instant::now();
        let mut nearest = (u64::MAX, last);
        loop {
            if self.cancel.is_cancelled() {
                return Err(Error::new(Kind::NotMet, "the rehearsal was cancelled"));
            }
            let head = self.live.block_number().map_err(not_met)?;
            let to = head.min(at + self.chunk);
            if to > at {
                match self.step(at, to) {
                    Ok(reached) => at = reached,
                    Err(Halt::Fed(end)) => return Ok(end),
                    Err(Halt::Error(e)) => return Err(e),
                }
                last = Instant::now();
            }
            let behind = head.saturating_sub(at);
            progress(Progress::Feed { blocks: self.executed.blocks, wanted, behind });
            if behind < nearest.0 {
                nearest = (behind, Instant::now());
            }
            if behind > 0 {
                if self.executed.blocks >= wanted && nearest.1.elapsed() > NEARER {
                    return Ok(Fed::Behind(behind));
                }
                continue;
            }
            self.executed.caught_up.get_or_insert((began.elapsed(), self.executed.blocks));
            if self.executed.blocks >= wanted {
                return Ok(Fed::All);
            }
            if last.elapsed() > STILL {
                let what = format!("the chain stands still at block {at}");
                return Err(Error::new(Kind::NotMet, what)
                    .because(format!("{} of {wanted} blocks were executed", self.executed.blocks))
                    .hint("rehearse again when it moves, or with fewer --blocks"));
            }
            self.cancel.wait(LOOK);
        }
    }

    /// Feeds the blocks above `at` up to `to`, or fewer if they are large; the height that was reached.
    fn step(&mut self, at: u64, to: u64) -> Result<u64, Halt> {
        let begun = Instant::now();
        let to = self.write(at, to)?;
        let first = at + 1;
        for again in [false, true] {
            self.importer.connection().call("admin_importChain", json!([self.file])).map_err(
                |e| match e {
                    e if is_unserved(&e) => Halt::Fed(Fed::NotServed(not_served("the new binary", &e))),
                    RpcError { fault: Fault::Refused { message, .. }, .. } => Halt::Fed(Fed::Refused(
                        format!("of blocks {first} to {to} one is refused: {message}"),
                    )),
                    e => Halt::Error(e.into()),
                },
            )?;
            let head = self.shadow.block_number().map_err(Error::from)?;
            if head >= to {
                break;
            }
            if again {
                let why = format!("blocks {first} to {to} were imported, and its head is {head}");
                return Err(Halt::Fed(Fed::Refused(why)));
            }
            let back = self.shadow.connection().call("debug_setHead", json!([show_quantity(at)]));
            back.map_err(Error::from)?;
        }
        self.executed.blocks += to - at;
        let took = begun.elapsed().max(Duration::from_millis(1));
        let pace = u64::try_from(u128::from(to - at) * PACE.as_millis() / took.as_millis()).unwrap_or(MOST);
        self.chunk = pace.clamp(1, MOST);
        self.compare()?.map(|(height, _)| height).map_err(|why| Halt::Fed(Fed::Refused(why)))
    }

    /// Writes the blocks above `at` to the file; the height of the last one.
    fn write(&mut self, at: u64, to: u64) -> Result<u64, Halt> {
        // Not over the last file, which the shadow may have open.
        let _ = fs::remove_file(self.file);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.file);
        let mut file = created.doing("write", self.file)?;
        let (mut written, mut reached) = (0, at);
        while reached < to && written < LARGE {
            let until = to.min(reached + ASKED);
            let params: Vec<_> = (reached + 1..=until).map(|height| json!([show_quantity(height)])).collect();
            let values = self.live.connection().call_many("debug_getRawBlock", &params);
            let values = values.map_err(|e| match is_unserved(&e) {
                true => Halt::Fed(Fed::NotServed(not_served("the running node", &e))),
                false => Halt::Error(not_met(e)),
            })?;
            for value in values {
                let bytes = value.as_str().and_then(|text| parse_data(text).ok()).unwrap_or_default();
                if bytes.is_empty() {
                    let what = "debug_getRawBlock of the running node: no bytes of a block";
                    return Err(Error::new(Kind::Nonsense, what).into());
                }
                file.write_all(&bytes).doing("write", self.file)?;
                written += bytes.len() as u64;
            }
            reached = until;
        }
        Ok(reached)
    }
}

/// Whether a node does not have a method. Some answer that with a bad parameter.
fn is_unserved(e: &RpcError) -> bool {
    matches!(e.fault, Fault::Refused { code: -32601 | -32602, .. })
}

fn not_served(node: &str, e: &RpcError) -> String {
    format!("{node} does not serve {} over {}", e.method, e.endpoint.transport())
}

/// The failure of the running node is not the new binary's.
fn not_met(e: RpcError) -> Error {
    Error::new(Kind::NotMet, "the running node does not answer any more").because(e)
}
