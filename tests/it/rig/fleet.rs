//! Validators of one chain, each with a home and a supervisor of its own.
//!
//! The chain makes a block every 50 ms, so that a supervisor on a loaded machine still finds its slot.

use super::sim::{Sim, contradictions, head, until_within, wait_head};
use super::visor::{Rig, Visor, send};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// The height of the upgrade to v2, unless a test plans its own.
pub(crate) const H: u64 = 40;

/// For how long validators that all stand still may have to wait. They sign 15 s after the last change of what they see,
/// the one whose turn is next after 55 s; these times do not follow the period of the chain.
const ALL_STILL: Duration = Duration::from_secs(90);

/// The homes of the validators of one chain.
pub(crate) struct Fleet {
    pub(crate) network: TempDir,
    pub(crate) homes: Vec<Rig>,
    _room: Room,
}

/// The validators that run at the same time: with more than six for each core, none keeps up with blocks of 50 ms.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Room for a number of validators, given back when dropped.
struct Room(usize);

impl Room {
    fn take(size: usize) -> Room {
        let most = 12 * std::thread::available_parallelism().map_or(1, usize::from);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running > 0 && *running + size > most;
        *ENDED.wait_while(running, full).unwrap_or_else(PoisonError::into_inner) += size;
        Room(size)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        ENDED.notify_all();
    }
}

impl Fleet {
    /// With an upgrade to v2 at [`H`], which has a fork or none.
    pub(crate) fn new(size: usize, fork: Option<u64>) -> Fleet {
        Fleet::with_deadline(size, fork, None)
    }

    /// The same with a deadline.
    pub(crate) fn with_deadline(size: usize, fork: Option<u64>, deadline: Option<u64>) -> Fleet {
        Fleet::with(size, &[], |_, rig| plan(rig, "v2", H, fork, deadline))
    }

    /// With options built into version 1, and what `plan` does in the home of each validator.
    pub(crate) fn with(size: usize, options: &[(&str, &str)], plan: impl Fn(usize, &Rig)) -> Fleet {
        Fleet::each(size, |_| options, plan)
    }

    /// With options built into the version 1 of each validator.
    pub(crate) fn each<'o>(
        size: usize,
        options: impl Fn(usize) -> &'o [(&'o str, &'o str)],
        plan: impl Fn(usize, &Rig),
    ) -> Fleet {
        let home = |index| {
            let options: Vec<_> = PACE.iter().chain(options(index)).copied().collect();
            let rig = Rig::with(&options);
            plan(index, &rig);
            rig.set("DAEMON_VALIDATOR_MODE", "true")
        };
        let room = Room::take(size);
        Fleet { network: tempfile::tempdir().unwrap(), homes: (0..size).map(home).collect(), _room: room }
    }

    /// The same with one more variable in the environment of every command.
    pub(crate) fn set(self, name: &str, value: &str) -> Fleet {
        Fleet { homes: self.homes.into_iter().map(|home| home.set(name, value)).collect(), ..self }
    }

    /// Starts the supervisor of validator `index`.
    pub(crate) fn run(&self, index: usize) -> Visor<'_> {
        let (index_text, size) = (index.to_string(), self.homes.len().to_string());
        let network = self.network.path().to_str().unwrap();
        let chain = ["--sim.network", network, "--sim.index", &index_text, "--sim.validators", &size];
        let mut args = vec!["--mine"];
        args.extend(chain);
        self.homes[index].run_with(&[], &args)
    }

    /// The node of validator `index` on the data of its home, to be started without a supervisor.
    pub(crate) fn by_hand(&self, index: usize) -> Sim {
        let home = &self.homes[index];
        let sim = Sim::new(home.data()).program(&home.path().join("v1")).option("period", PACE[0].1);
        let sim = sim.option("network", self.network.path().display());
        sim.option("index", index).option("validators", self.homes.len())
    }

    /// Starts all supervisors.
    pub(crate) fn run_all(&self) -> Vec<Visor<'_>> {
        (0..self.homes.len()).map(|index| self.run(index)).collect()
    }

    pub(crate) fn ipc(&self, index: usize) -> PathBuf {
        self.homes[index].ipc()
    }

    /// No validator has voted against a final block, and no height was decided twice.
    #[track_caller]
    pub(crate) fn audit(&self) {
        let nodes: Vec<PathBuf> = self.homes.iter().map(Rig::data).collect();
        let nodes: Vec<&Path> = nodes.iter().map(PathBuf::as_path).collect();
        let found = contradictions(self.network.path(), &nodes);
        assert!(found.is_empty(), "{found:#?}");
    }

    /// The chain goes on beyond its present head at every node, and the audit finds nothing.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let goal = head(&self.ipc(0)) + 8;
        for home in &self.homes {
            wait_head(&home.ipc(), goal);
        }
        self.audit();
    }

    /// When each validator was down for its upgrade: from its SIGTERM to its next start, in order.
    ///
    /// Most of them seal from that start on. On a loaded machine one may end a block later than it meant to, and its next
    /// proposal is too near.
    pub(crate) fn absences(&self, there: usize) -> Vec<(u64, u64, usize)> {
        let mut sealing = 0;
        for home in &self.homes[..there] {
            let (signals, starts) = (home.traces().signals(), home.traces().starts());
            // The new binary is tried without peers first, and asked to stop again.
            assert_eq!((signals.len(), starts.len()), (2, 3), "{starts:?}");
            assert_eq!(starts[1]["mine"], false);
            sealing += usize::from(starts[2]["mine"] == true);
        }
        assert!(sealing * 2 > there, "{sealing} of {there} were started with their engine on");
        let mut absences = self.outages();
        absences.retain(|(_, _, index)| *index < there);
        absences
    }

    /// When a validator was asked to stop, and when it was started with peers again: all such times, in order.
    pub(crate) fn outages(&self) -> Vec<(u64, u64, usize)> {
        let ms = |value: &serde_json::Value| value["ms"].as_u64().unwrap();
        let is_dry = |start: &serde_json::Value| start["args"].to_string().contains("--maxpeers");
        let mut outages = Vec::new();
        for (index, home) in self.homes.iter().enumerate() {
            let signals: Vec<u64> = home.traces().signals().iter().map(ms).collect();
            let starts = home.traces().starts();
            let starts: Vec<u64> = starts.iter().filter(|start| !is_dry(start)).map(ms).collect();
            for pair in starts.windows(2) {
                let asked =
                    signals.iter().find(|at| (pair[0]..pair[1]).contains(*at)).expect("a stop in order");
                outages.push((*asked, pair[1], index));
            }
        }
        outages.sort_unstable();
        outages
    }

    /// Every validator was down `times` times, and never two at one moment.
    #[track_caller]
    pub(crate) fn never_two_down(&self, times: usize) {
        let outages = self.outages();
        assert_eq!(outages.len(), times * self.homes.len(), "{outages:?}");
        let apart = outages.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(apart, "two are down at the same time: {outages:?}");
    }
}

/// The pace of every node. What a look at the network costs does not shrink with the period, so that a silent
/// validator gets as many looks at its peers while it has them as in a network whose blocks take a second.
pub(crate) const PACE: [(&str, &str); 3] = [("period", "50"), ("drop", "500"), ("redial", "1750")];

/// Stages an upgrade in a home and plans it.
#[track_caller]
pub(crate) fn plan(rig: &Rig, name: &str, height: u64, fork: Option<u64>, deadline: Option<u64>) {
    let [fork, deadline] = [fork, deadline].map(|height| height.map(|height| height.to_string()));
    let knows = fork.as_deref().map(|fork| ("fork", fork));
    let options: Vec<(&str, &str)> = PACE.into_iter().chain(knows).collect();
    rig.stage(name, &options);
    let height = height.to_string();
    let mut args = vec!["upgrade", "schedule", name, &height];
    let more = [("--fork-height", &fork), ("--deadline-height", &deadline)];
    args.extend(more.iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten());
    rig.ok(&args);
}

/// Waits until all have been upgraded to v2.
#[track_caller]
pub(crate) fn wait_all(visors: &mut [Visor<'_>]) {
    for visor in visors {
        visor.wait(&["event=upgrade_ended", "name=v2", "outcome=applied"]);
    }
}

/// Waits until validators that came back silent on a chain that stands still seal again.
#[track_caller]
pub(crate) fn wait_sealing(visors: &[Visor<'_>]) {
    for visor in visors {
        let seals = || (visor.count(&["event=sealing"]) > 0).then_some(());
        until_within(ALL_STILL, "a validator that seals again", seals);
    }
}

/// Cuts the power of machines: supervisor and node end at once, and neither sees the end of the other.
pub(crate) fn cut_power(visors: &mut [Visor<'_>]) {
    let nodes: Vec<u32> = visors.iter().map(Visor::node).collect();
    visors.iter().for_each(|visor| visor.signal(Signal::STOP));
    nodes.into_iter().for_each(|node| send(node, Signal::KILL));
    visors.iter_mut().for_each(Visor::kill);
}
