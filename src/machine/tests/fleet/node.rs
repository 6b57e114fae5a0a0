//! The node process: how it starts, answers, stops and is killed, as measured (`wbft/README.md`, sections 5, 7 and 8).

use super::chain::Id;
use super::home::{Home, Process, number};
use super::scenario::Binary;
use super::sim::{Question, Sim, What};
use super::*;

/// The blocks of which a window for surveys is made at least.
const WINDOW: usize = 20;

impl Sim {
    /// Executes a node.
    pub(super) fn execute(&mut self, i: usize, target: &Target, mode: Mode) -> u32 {
        let version = number(target);
        // A binary with a fork exchanges the block of its own that the old one has made there.
        let head = self.homes[i].head;
        if !self.chain.is_decided(head) && self.follows(i, version, self.chain.height(head)) {
            let parent = self.chain.blocks[head].parent;
            (self.homes[i].head, self.homes[i].top) = (parent, parent);
        }
        let (head, top) = (self.homes[i].head, self.homes[i].top);
        if !self.chain.is_decided(top) {
            // The database still has what that block was built on.
            let below = self.chain.blocks[top].parent;
            let has_it = self.chain.is_decided(below) && self.chain.height(below) > self.chain.height(head);
            self.homes[i].top = if has_it { below } else { head };
        }
        self.homes[i].started_at = self.chain.height(self.homes[i].head);
        let home = &mut self.homes[i];
        home.pids += 1;
        let pid = home.pids;
        home.node = Some(Process {
            pid,
            boots: home.boots,
            since: self.now,
            version,
            mode,
            answers: false,
            ending: false,
            engine: false,
            voting_since: u64::MAX,
            open: false,
            shunned: None,
            cut: false,
            drop_due: false,
            sync_due: false,
            greeted: 0,
            unpeered: false,
        });
        let binary = home.binaries[version];
        if binary == Binary::Crashes {
            let at = self.dice.within(20, 200);
            self.after(at, What::Gone(i, pid, Status::Code(2)));
            return pid;
        }
        if binary == Binary::CrashesLater && mode != Mode::Dry {
            let at = self.dice.within(2_000, 30_000);
            self.after(at, What::Killed(i, pid, Status::Code(2)));
        }
        let rpc = self.dice.within(300, 1000);
        self.after(rpc, What::Answers(i, pid));
        if mode == Mode::Full {
            let engine = self.dice.within(100, 300);
            self.after(engine, What::Engine(i, pid));
        }
        if mode != Mode::Dry {
            self.dial(i, pid);
        }
        pid
    }

    /// The node answers over RPC from now on.
    pub(super) fn answers(&mut self, i: usize, pid: u32) {
        if let Some(node) = self.homes[i].process(pid) {
            node.answers = true;
            self.push_head(i);
        }
    }

    /// The node reports its head, where it is heard.
    pub(super) fn push_head(&mut self, i: usize) {
        let home = &self.homes[i];
        if home.machine.is_some()
            && home.serving().is_some_and(|node| node.answers)
            && self.now >= home.foreign_until
        {
            let head = self.header(i, home.head);
            self.feed(i, Event::Head(head));
        }
    }

    /// Seconds since the epoch by the clock of a machine.
    fn clock(&self, i: usize) -> u64 {
        self.unix(self.now.saturating_add_signed(self.homes[i].skew)) / 1000
    }

    /// Milliseconds since the epoch.
    pub(super) fn unix(&self, at: u64) -> u64 {
        1_700_000_000_000 + at
    }

    pub(super) fn header(&self, i: usize, id: Id) -> Head {
        let block = &self.chain.blocks[id];
        Head {
            block: Block { height: block.height, hash: Some(block.hash.clone()) },
            parent: Some(self.chain.blocks[block.parent].hash.clone()),
            timestamp: Some(self.unix(block.time) / 1000),
            proposer: Some(self.homes[block.proposer].address),
            heard_at: self.clock(i),
        }
    }

    /// The answer to a question, by the state of the node now.
    pub(super) fn answer(&mut self, i: usize, pid: u32, question: Question) {
        let errors = self.scenario.errors;
        let fails = errors > 0 && self.dice.chance(errors);
        let home = &self.homes[i];
        let running = home.node.as_ref().is_some_and(|node| node.pid == pid);
        if !running || home.machine.is_none() {
            return;
        }
        let answers = home.serving().is_some_and(|node| node.answers) && !fails;
        let failure = || Failure::new(Class::Transient, "no answer");
        let ok = |answers| if answers { Ok(()) } else { Err(failure()) };
        let foreign = self.now < home.foreign_until;
        let event = match question {
            Question::Confirm => {
                if answers {
                    self.push_head(i);
                }
                return;
            }
            Question::Survey if answers && foreign => Event::Surveyed(Ok(self.foreign_survey(i))),
            Question::Survey if answers => Event::Surveyed(Ok(self.survey(i))),
            Question::Survey => Event::Surveyed(Err(failure())),
            Question::Recall(height) if answers => {
                let hash = self.chain.at(home.head, height).map(|id| self.chain.blocks[id].hash.clone());
                let hash = if foreign { Some("0xf0".to_owned()) } else { hash };
                Event::Recalled(Ok(Recollection {
                    block: Block { height, hash },
                    client_version: None,
                    forks: self.forks(i),
                }))
            }
            Question::Recall(_) => Event::Recalled(Err(failure())),
            Question::Trace(from, to) if answers => {
                let ids = (from..=to).map_while(|h| self.chain.at(home.head, h));
                Event::Traced(Ok(ids.map(|id| self.header(i, id)).collect()))
            }
            Question::Trace(..) => Event::Traced(Err(failure())),
            Question::Identify if answers => {
                let genesis = if foreign { "0xf0" } else { "0x90" };
                Event::Identified(Ok(Chain { id: 1111, genesis: genesis.to_owned() }))
            }
            Question::Identify => Event::Identified(Err(failure())),
            Question::StartSealing => {
                if answers {
                    self.engine_on(i, pid);
                }
                // The answer may be lost where the order was not.
                let lost = errors > 0 && self.dice.chance(20);
                Event::SealingStarted(ok(answers && !lost))
            }
            Question::StopSealing => {
                if answers {
                    self.engine_off(i, pid);
                }
                Event::SealingStopped(ok(answers))
            }
            Question::Greet(turn) => {
                if answers {
                    self.greet(i, turn);
                }
                Event::Greeted(if answers { Ok(None) } else { Err(failure()) })
            }
            Question::Unpeer => {
                if answers {
                    self.unpeer(i, pid);
                }
                Event::Unpeered(if answers { Ok(3) } else { Err(failure()) })
            }
        };
        self.feed(i, event);
    }

    /// The same of another chain, which has validators of its own, and goes on.
    fn foreign_survey(&self, i: usize) -> Survey {
        let mut survey = self.survey(i);
        let other = |n: u8| gates::Seat { validator: [n; 20], sealing: true };
        survey.sample.set = (1..=4).map(other).collect();
        survey.slot_set = survey.sample.set.iter().map(|seat| seat.validator).collect();
        survey.sample.head += 1_000;
        survey.hash = format!("0xf{:x}", survey.sample.head);
        survey.network_head = Some(survey.sample.head + 1);
        survey
    }

    fn survey(&self, i: usize) -> Survey {
        let home = &self.homes[i];
        let node = home.node.as_ref().expect("only a node that runs answers");
        let (chain, head) = (&self.chain, home.head);
        let height = chain.height(head);
        let set = chain.set(height + 1);
        let window = set.len().max(WINDOW);
        let address = |n: &usize| self.homes[*n].address;
        let (mut recent, mut own_seals, mut first_round) = (0, Vec::new(), 0);
        let (mut own_mark, mut oldest) = (None, height);
        let blocks = set.len().max(8);
        for (n, block) in chain.back_from(head).take(window).enumerate() {
            let sealers = chain.blocks[block.parent].voters;
            let sealed = sealers >> i & 1 == 1;
            if n < gates::RECENT as usize {
                recent |= sealers;
            }
            if n < WINDOW {
                own_seals.push(sealed);
            }
            first_round += usize::from(n < blocks && block.round == 0);
            if own_mark.is_none() && (sealed || block.proposer == i) {
                let marked = if block.proposer == i { block } else { &chain.blocks[block.parent] };
                let age = self.now.saturating_add_signed(home.skew).saturating_sub(marked.time);
                let before_head = (chain.blocks[head].time - marked.time) / 1000 * 1000;
                own_mark = Some(OwnMark {
                    height: marked.height,
                    age: Duration::from_millis(age),
                    before_head: Duration::from_millis(before_head),
                });
            }
            oldest = block.height;
        }
        let mut seats: Vec<gates::Seat> = set
            .iter()
            .map(|n| gates::Seat { validator: address(n), sealing: recent >> n & 1 == 1 })
            .collect();
        seats.sort_unstable_by_key(|seat| seat.validator);
        let order = |id: Id| {
            let block = &chain.blocks[id];
            Some(order::Order {
                height: block.height,
                list: chain.set(block.height + 1).iter().map(address).collect(),
                proposer: Some(address(&block.proposer)),
                until: Some(chain.until(block.height + 1)),
                sticky: false,
            })
        };
        let head_block = &chain.blocks[head];
        let connected: Vec<Validator> = (0..self.homes.len())
            .filter(|j| self.is_connected(i, *j))
            .map(|j| self.homes[j].address)
            .collect();
        let frozen = chain.top() > height && !self.follows(i, node.version, height + 1);
        Survey {
            at: self.instant(self.now),
            hash: chain.blocks[head].hash.clone(),
            me: Some(home.address),
            slot_set: chain.set(gates::Slot::first_block(height)).iter().map(address).collect(),
            sample: gates::Sample {
                head: height,
                head_age: Duration::from_millis(
                    self.now.saturating_add_signed(home.skew).saturating_sub(head_block.time),
                ),
                period: Duration::from_secs(1),
                set: seats,
                blocks,
                first_round,
                steady_since: 0,
                order: order(head),
                order_before: order(head_block.parent),
            },
            oldest,
            own_seals,
            own_mark,
            mining: Some(node.engine),
            syncing: false,
            network_head: frozen.then(|| chain.top()),
            peers: Some(connected.len()),
            public_peers: self.scenario.public && !connected.is_empty(),
            connected: Some(connected),
            client_version: None,
            forks: self.forks(i),
            round_timeout: (Duration::from_secs(2), None),
            census: Vec::new(),
        }
    }

    /// Whether a version can follow the chain at a height.
    pub(super) fn follows(&self, i: usize, version: usize, height: u64) -> bool {
        self.scenario.upgrades.iter().enumerate().all(|(n, planned)| {
            let lacks =
                version < n + 1 || version == n + 1 && self.homes[i].binaries[version] == Binary::Forkless;
            !lacks || planned.fork.filter(|_| planned.is_true).is_none_or(|fork| height < fork)
        })
    }

    /// The forks that the running program names.
    fn forks(&self, i: usize) -> Option<Vec<u64>> {
        let follows =
            |fork: &u64| self.homes[i].node.as_ref().is_some_and(|n| self.follows(i, n.version, *fork));
        let forks = self.scenario.upgrades.iter().filter(|planned| planned.is_true);
        self.scenario.names_forks.then(|| forks.filter_map(|planned| planned.fork).filter(follows).collect())
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self, i: usize) {
        let slow = self.scenario.slow_stops && self.dice.chance(30);
        let time = if slow { self.dice.within(5_000, 120_000) } else { self.dice.within(100, 3_000) };
        let public = self.scenario.public;
        let home = &mut self.homes[i];
        let Some(node) = home.node.as_mut().filter(|node| !node.ending) else { return };
        node.ending = true;
        node.engine = false;
        if public && node.open && !node.unpeered {
            // The dying node redials its peers, which uses up its address there.
            home.burnt = Some(self.now + time);
        }
        let pid = node.pid;
        self.after(time, What::Gone(i, pid, Status::Code(0)));
    }

    /// The process ends by itself, in good order or before it has opened its data.
    pub(super) fn gone(&mut self, i: usize, pid: u32, status: Status) {
        if self.homes[i].node.as_ref().is_none_or(|node| node.pid != pid) {
            return;
        }
        let dry = self.homes[i].node.as_ref().is_some_and(|node| node.mode == Mode::Dry);
        if status == Status::Code(0)
            && !dry
            && self.dice.chance(6)
            && self.chain.height(self.homes[i].head) > self.chain.first()
        {
            let parent = self.chain.blocks[self.homes[i].head].parent;
            (self.homes[i].head, self.homes[i].top) = (parent, parent);
        }
        let boots = self.homes[i].node.take().map(|node| node.boots);
        self.ended(i, boots, status);
    }

    /// The process is killed: its head goes back, and the blocks stay in its database.
    pub(super) fn kill(&mut self, i: usize, status: Status) {
        let Some(node) = self.homes[i].node.take() else { return };
        let (head, layer) = (self.homes[i].head, self.scenario.layer);
        let height = self.chain.height(head);
        let layer = if self.dice.chance(20) { self.dice.within(1, 500) } else { layer };
        let to = (height / layer * layer).max(self.chain.first() + 1).min(height);
        self.homes[i].head = self.chain.at(head, to).expect("the chain goes that far back");
        self.ended(i, Some(node.boots), status);
    }

    fn ended(&mut self, i: usize, boots: Option<u32>, status: Status) {
        self.note(i, || format!("the node ended: {status}"));
        self.survey_peers();
        if self.homes[i].machine.is_some() && boots == Some(self.homes[i].boots) {
            self.feed(i, Event::Exited(Ending { status, environment: None, last_words: None }));
        }
        self.release(i);
    }

    /// The locks are free where no node runs.
    pub(super) fn release(&mut self, i: usize) {
        if self.homes[i].awaiting && self.homes[i].node.is_none() {
            let time = self.dice.within(5, 60);
            let boots = self.homes[i].boots;
            self.after(time, What::Released(i, boots));
        }
    }
}

impl Home {
    /// A lie has a hash that no block has.
    pub(super) fn is_lie(block: &Block) -> bool {
        block.hash.as_ref().is_some_and(|hash| hash.starts_with("0xf"))
    }
}
