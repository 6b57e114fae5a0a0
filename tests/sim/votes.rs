//! The votes of a node, recorded so that a test can audit them: `sim.votes`.
//!
//! Blocks are decided on behalf of all that would have voted, so a vote for a decided block is recorded when the node
//! sees that block. The one vote that no block shows is the stale proposal: an engine that starts at the head before
//! the node's own turn proposes at once, also where the network has long decided that height.

use super::chain::{Block, Params, Proposal, rules_at};
use super::log;
use super::options::Options;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// The message that a vote is.
#[derive(Clone, Copy)]
enum Kind {
    PrePrepare,
    Prepare,
    Commit,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::PrePrepare => "PRE-PREPARE",
            Kind::Prepare => "PREPARE",
            Kind::Commit => "COMMIT",
        }
    }
}

/// The recorder of one node's votes.
pub(crate) struct Votes {
    path: PathBuf,
    /// Kept open, as a log is: a watcher of the data directory then hears nothing of a vote.
    file: Option<File>,
    /// Whether the engine was on when last looked at.
    engine: bool,
    /// Since when the node has voted, in milliseconds since 1970.
    since: Option<u64>,
    /// The head at which the engine has started before its turn, and when its proposal leaves.
    proposal: Option<(u64, Block)>,
}

impl Votes {
    /// A recorder that appends to the file at `path`.
    pub(crate) fn new(path: PathBuf) -> Votes {
        Votes { path, file: None, engine: false, since: None, proposal: None }
    }

    /// Notices that the engine was switched. One that starts at `head` proposes 2 to 5 ms later if it is the proposer of
    /// the next height; where `head` is the network's own the proposal is the ordinary one and no vote of its own.
    pub(crate) fn switch(&mut self, on: bool, head: &Block, is_tip: bool, now: u64) {
        if on && !self.engine && !is_tip {
            self.start(head, now);
        }
        if !on {
            self.proposal = None;
        }
        self.engine = on;
    }

    /// A start of the engine at an old head.
    pub(crate) fn start(&mut self, head: &Block, now: u64) {
        self.proposal = Some((now + 2 + now % 4, head.clone()));
    }

    /// When the proposal leaves that waits.
    pub(crate) fn deadline(&self) -> u64 {
        self.proposal.as_ref().map_or(u64::MAX, |(at, _)| *at)
    }

    /// Sends the proposal that is due.
    pub(crate) fn propose(&mut self, params: &Params, options: &Options, now: u64) {
        let Some((_, head)) = self.proposal.take_if(|(at, _)| now >= *at) else { return };
        if params.proposer(&head, 0) != options.index {
            return;
        }
        let proposal = Proposal {
            miner: options.index,
            round: 0,
            votes: Vec::new(),
            rules: rules_at(&options.fork, head.number + 1),
            version: options.version.clone(),
            now_ms: now,
        };
        self.record(Kind::PrePrepare, &params.seal(&head, proposal), now);
    }

    /// Records the node's part in blocks that are new to it and were decided while it was `voting`.
    pub(crate) fn decide(&mut self, fresh: &[Block], index: usize, voting: bool, now: u64) {
        if !voting {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        for block in fresh.iter().filter(|block| block.salt >= since && block.votes.contains(&index)) {
            if block.miner == index {
                self.record(Kind::PrePrepare, block, block.salt);
            }
            self.record(Kind::Prepare, block, block.salt);
            self.record(Kind::Commit, block, block.salt);
        }
    }

    fn record(&mut self, kind: Kind, block: &Block, ms: u64) {
        let Block { number, round, hash, .. } = block;
        log::info(&format!("WBFT: broadcast {}", kind.name()), &[("sequence", number), ("round", round)]);
        let vote = json!({
            "kind": kind.name(),
            "height": number,
            "round": round,
            "hash": hash,
            "ms": ms,
            "pid": std::process::id(),
        });
        if let Err(err) = self.append(&format!("{vote}\n")) {
            log::error("Vote could not be recorded", &[("err", &err)]);
        }
    }

    fn append(&mut self, line: &str) -> std::io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path)?,
        };
        self.file.insert(file).write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params {
            chain_id: 8383,
            validators: 4,
            crowd: false,
            epoch: 10,
            fields: 10,
            period: 1000,
            timeout: 2000,
            slow: 0,
            sets: Vec::new(),
        }
    }

    fn recorded(votes: &Votes) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(&votes.path).unwrap_or_default();
        let votes = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        votes.map(|vote| (vote["kind"].as_str().unwrap().into(), vote["height"].as_u64().unwrap())).collect()
    }

    #[test]
    fn an_engine_that_starts_before_its_turn_proposes_within_5_ms_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let (params, genesis) = (params(), params().genesis());
        for index in 0..4 {
            let mut votes = Votes::new(dir.path().join(index.to_string()));
            let options = Options { index, ..Options::default() };
            votes.switch(true, &genesis, false, 1000);
            assert!((1002..=1005).contains(&votes.deadline()));
            votes.propose(&params, &options, 1001);
            assert!(recorded(&votes).is_empty());
            votes.propose(&params, &options, 1005);
            votes.switch(true, &genesis, false, 1006);
            votes.propose(&params, &options, 2000);
            let is_next = params.proposer(&genesis, 0) == index;
            assert_eq!(recorded(&votes).len(), usize::from(is_next), "{index}");
        }
    }

    #[test]
    fn an_engine_that_starts_at_the_networks_head_or_is_stopped_again_proposes_nothing_stale() {
        let dir = tempfile::tempdir().unwrap();
        let mut votes = Votes::new(dir.path().join("votes"));
        votes.switch(true, &params().genesis(), true, 1000);
        assert_eq!(votes.deadline(), u64::MAX);
        votes.switch(false, &params().genesis(), false, 1001);
        votes.switch(true, &params().genesis(), false, 1002);
        votes.switch(false, &params().genesis(), false, 1003);
        assert_eq!(votes.deadline(), u64::MAX);
    }

    #[test]
    fn only_blocks_decided_while_the_node_votes_are_its_votes() {
        let dir = tempfile::tempdir().unwrap();
        let params = params();
        let decide = |parent: &Block, miner, votes: &[usize], now_ms| {
            let (rules, version) = (Vec::new(), "v1.0.0".into());
            params.seal(parent, Proposal { miner, round: 0, votes: votes.to_vec(), rules, version, now_ms })
        };
        let one = decide(&params.genesis(), 0, &[0, 1, 2, 3], 900);
        let two = decide(&one, 1, &[0, 1, 2], 2000);
        let three = decide(&two, 2, &[0, 1, 2, 3], 3000);
        let mut votes = Votes::new(dir.path().join("votes"));
        votes.decide(std::slice::from_ref(&one), 3, false, 950);
        votes.decide(&[one, two, three.clone()], 3, true, 1000);
        assert_eq!(recorded(&votes), [("PREPARE".into(), 3), ("COMMIT".into(), 3)]);
        let mut votes = Votes::new(dir.path().join("proposer"));
        votes.decide(&[three], 2, true, 2500);
        assert_eq!(recorded(&votes).len(), 3);
    }
}
