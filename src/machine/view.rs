//! The machine as people see it: a snapshot for `status`, the metrics and the log.

use super::event::Survey;
use super::gates::{Gate, Slot, Window, deadline, list};
use super::health::head_age;
use super::record::{Attempt, Block, Ended, Rehearsal, Target, Version};
use super::sealing::SIGN;
use super::starting::RELEASE;
use super::state::{AfterRecord, Preparation, Rested, State, Why};
use super::{Machine, Origin, Upgrade};
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// The name, among those of gates, of the hold for an upgrade that cannot be backed up.
const BACKUP: &str = "backup";

/// The number of upgrades that the line of a status looks at.
const NEXT: usize = 10;

/// The version of the form of a [`View`] as JSON.
const SCHEMA: u32 = 1;

/// A snapshot of everything worth knowing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The version of the form of this snapshot as JSON. It grows where a field changes its meaning or goes; new fields may
    /// come at any time.
    #[serde(default)]
    pub schema: u32,
    /// One word for where the supervisor is.
    pub state: Activity,
    /// The version that runs, or would.
    pub version: Version,
    /// The node process.
    pub node: Option<NodeView>,
    /// The last reported head, of this or the last node.
    pub head: Option<Block>,
    /// For how long the node has reported no newer head, in milliseconds at the last event.
    #[serde(default)]
    pub head_age_ms: Option<u64>,
    /// The block period in milliseconds, measured.
    pub period_ms: u64,
    /// The network around the node, where it was asked.
    #[serde(default)]
    pub network: Option<NetworkView>,
    /// The rest of the present step, in words.
    #[serde(default)]
    pub remaining: Option<String>,
    /// For how long the supervisor has been in this state, in milliseconds. The machine does not know it; the supervisor
    /// adds it.
    #[serde(default)]
    pub state_age_ms: Option<u64>,
    /// Everything that needs the operator, the worst first. The node is healthy where there is nothing.
    #[serde(default)]
    pub needs: Vec<SymptomView>,
    /// Whether the node is in service as far as its rules let it be.
    #[serde(default)]
    pub ready: bool,
    /// How often the node has been started in this home.
    #[serde(default)]
    pub launches: u64,
    /// Failures in a row.
    pub failures: u32,
    /// The last warning or error, while no node runs.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The upgrade under way.
    pub upgrade: Option<Attempt>,
    /// Whether the node does not seal for now, and what that waits for.
    pub silent: Option<String>,
    /// Why the operator must decide before anything is started again.
    pub halted: Option<String>,
    /// The operator's order to go back, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<BackView>,
    /// Why the node is not started, though nothing has failed.
    #[serde(default)]
    pub held: Option<String>,
    /// The head record: the highest head that counts.
    #[serde(default)]
    pub head_record: Option<Block>,
    /// The faults of the node or its network, in words.
    #[serde(default)]
    pub symptoms: Vec<SymptomView>,
    /// How many of the proposers run the version that the next fork needs, in words.
    #[serde(default)]
    pub census: Option<String>,
    /// The last backup that this supervisor has made, and how.
    #[serde(default)]
    pub backup: Option<String>,
    /// The planned upgrades: first a forced one, the others by height.
    pub planned: Vec<UpgradeView>,
    /// The upgrades that have ended, oldest first.
    pub ended: Vec<Ended>,
}

/// A snapshot of the operator's order to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackView {
    /// The version to go back to.
    pub to: Target,
    /// The conditions that it waits for.
    pub why: String,
}

/// The activity of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// It does not run.
    Stopped,
    /// Something still holds the locks of the last one.
    WaitingForLocks,
    /// It is about to be executed.
    Starting,
    /// It runs.
    Running,
    /// It runs without a supervisor.
    RunningAlone,
    /// The new binary of an upgrade runs, and must prove itself.
    Probation,
    /// It is asked to stop for an upgrade.
    StoppingForUpgrade,
    /// It is asked to stop.
    Stopping,
    /// It is down for an upgrade.
    Upgrading,
    /// A record is being made durable.
    Recording,
    /// It must not be started now.
    Held,
    /// It is started again when some time has passed.
    BackingOff,
    /// The supervisor has ended.
    Ended,
}

/// Whether a binary can be switched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinaryState {
    /// Its turn to be prepared has not come.
    Waiting,
    /// It is being fetched and verified.
    Preparing,
    /// It can be switched to.
    Ready,
    /// It cannot.
    Failed,
}

/// A snapshot of the node process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its process id.
    pub pid: u32,
    /// For how long it has run, in milliseconds, at the last event.
    pub age_ms: u64,
}

/// The network as the node shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The number of peers, if the node reports that.
    pub peers: Option<usize>,
    /// The number of other validators among them, if the node reports its peers.
    pub connected: Option<usize>,
    /// The number of validators that seal the next block.
    pub validators: usize,
    /// How many of them have sealed one of the last blocks.
    pub live: usize,
    /// How many must seal.
    pub quorum: usize,
    /// How many of those that seal could still fail.
    pub spare: usize,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymptomView {
    /// A stable name, such as `chain_stands_still`.
    pub name: String,
    /// One line for people.
    pub text: String,
}

/// The next heights at which a validator may begin to stop, by the present set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnView {
    /// The heights.
    #[serde(flatten)]
    pub window: Window,
    /// The time until it opens, in milliseconds, by the measured block period; 0 if it is open.
    pub opens_in_ms: u64,
}

/// A snapshot of one planned upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeView {
    /// Its name.
    pub name: Name,
    /// Its height.
    pub height: u64,
    /// Its fork height.
    pub fork_height: Option<u64>,
    /// The height at which an alarm is due if it has not happened: as given, or some blocks before the fork.
    #[serde(default)]
    pub deadline_height: Option<u64>,
    /// Whether that height has passed.
    #[serde(default)]
    pub overdue: bool,
    /// A validator's next turn for it.
    #[serde(default)]
    pub turn: Option<TurnView>,
    /// Whether the operator holds it back for now.
    #[serde(default)]
    pub on_hold: bool,
    /// Why it has not happened yet, in one line.
    #[serde(default)]
    pub why: String,
    /// The source of the plan.
    pub origin: Origin,
    /// Blocks from the head to its height; 0 if it is due.
    pub blocks_left: Option<u64>,
    /// Time until then, in milliseconds, by the measured block period.
    pub left_ms: Option<u64>,
    /// Whether its binary can be switched to.
    pub binary: BinaryState,
    /// How far the download of its binary is, where there is one. The machine does not know it; the
    /// supervisor adds it.
    pub download: Option<Download>,
    /// The names of the gates that hold it back.
    #[serde(default)]
    pub gates: Vec<String>,
    /// Why it does not happen though it is due, or why its binary is not ready.
    pub hold: Option<String>,
    /// How its rehearsal went, where there is one.
    #[serde(default)]
    pub rehearsal: Option<RehearsalView>,
    /// Why it goes on without the rehearsal that is wanted, as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrehearsed: Option<String>,
}

/// How a rehearsal went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RehearsalView {
    /// It is going on.
    Running,
    /// Nothing speaks against the binary.
    Passed,
    /// Something does.
    Failed,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// In percent, where the size is known.
    pub percent: Option<u8>,
    /// In words.
    pub line: String,
}

impl UpgradeView {
    /// Why it cannot be backed up, if that is known.
    pub(super) fn backup_lack(&self) -> Option<&str> {
        self.hold.as_deref().filter(|_| self.gates.iter().any(|gate| gate == BACKUP))
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::RunningAlone => f.write_str("running without a supervisor"),
            other => other.serialize(f),
        }
    }
}

impl fmt::Display for RehearsalView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RehearsalView::Running => "rehearsing",
            RehearsalView::Passed => "rehearsed",
            RehearsalView::Failed => "rehearsal failed",
        })
    }
}

/// As in JSON.
impl fmt::Display for BinaryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One line of `key=value`, for the log.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state={} version={}", self.state, self.version.target)?;
        if let Some(node) = &self.node {
            write!(f, " node_pid={} node_age={}s", node.pid, node.age_ms / 1000)?;
        }
        if let Some(head) = &self.head {
            write!(f, " head={} period={}ms", head.height, self.period_ms)?;
        }
        write!(f, " failures={}", self.failures)?;
        if let Some(upgrade) = &self.upgrade {
            write!(f, " upgrading={} phase={} attempt={}", upgrade.name, upgrade.phase, upgrade.attempt)?;
        }
        for plan in &self.planned {
            write!(f, " planned={}@{}:{}", plan.name, plan.height, plan.binary)?;
        }
        self.trouble.iter().try_for_each(|what| write!(f, " trouble={what:?}"))?;
        self.silent.iter().try_for_each(|why| write!(f, " silent={why:?}"))?;
        self.symptoms.iter().try_for_each(|symptom| write!(f, " {}={:?}", symptom.name, symptom.text))?;
        self.halted.iter().try_for_each(|why| write!(f, " halted={why:?}"))
    }
}

impl Machine {
    /// A snapshot.
    #[must_use]
    pub fn view(&self) -> View {
        self.view_of(usize::MAX)
    }

    /// The same in one line, cheap enough for every block, whatever is planned.
    #[must_use]
    pub fn line(&self) -> String {
        self.view_of(NEXT).line()
    }

    /// A snapshot with so many of the planned upgrades.
    fn view_of(&self, planned: usize) -> View {
        let forced = self.forced.iter().filter(|f| !self.schedule.iter().any(|u| u.name == f.name));
        let mut view = View {
            schema: SCHEMA,
            state: self.activity(),
            version: self.version().clone(),
            node: self.node().map(|node| NodeView {
                pid: node.pid,
                age_ms: self.now.map_or(0, |now| millis(now.saturating_duration_since(node.since))),
            }),
            head: self.head.as_ref().map(|h| &h.block).or(self.heads.block()).cloned(),
            head_age_ms: self.node().zip(self.now).and_then(|(node, now)| head_age(now, node)),
            period_ms: millis(self.period()),
            network: self.network_view(),
            remaining: self.remaining(),
            state_age_ms: None,
            needs: Vec::new(),
            ready: self.is_ready(),
            launches: self.record.launch,
            failures: self.restarts.failures(),
            trouble: self.trouble.clone(),
            upgrade: self.record.upgrade.clone(),
            silent: self.record.silent.then(|| self.silence()),
            halted: self.halted(),
            back: self
                .back
                .as_ref()
                .map(|order| BackView { to: order.to.target.clone(), why: self.why_not_back_yet() }),
            held: matches!(self.state, State::Resting { then: Rested::Held, .. })
                .then(|| self.held())
                .flatten(),
            head_record: self.heads.block().cloned(),
            symptoms: self.symptom_views(),
            census: self
                .survey_of_node()
                .and_then(|survey| self.census(survey))
                .map(|census| census.to_string()),
            backup: self.backups.last.clone(),
            planned: forced.chain(self.open()).take(planned).map(|u| self.upgrade_view(u)).collect(),
            ended: self.record.ended.clone(),
        };
        view.needs = self.needs(&view);
        view
    }

    /// Why nothing goes on without the operator. A supervisor that runs tries a node again that the one before it gave up.
    fn halted(&self) -> Option<String> {
        let tries = self.record.halted.is_none() && !matches!(self.state, State::Born | State::Ended);
        self.record.why_halted().filter(|_| !tries)
    }

    /// The condition that a silent node waits for.
    fn silence(&self) -> String {
        let Some((node, now)) = self.node().zip(self.now) else { return "it is not running".to_owned() };
        let why = self.not_yet_sealing(now, node).unwrap_or_else(|| "it was asked to seal".to_owned());
        if node.network.returning.overdue { format!("{why}; {SIGN}") } else { why }
    }

    fn symptom_views(&self) -> Vec<SymptomView> {
        let Some((node, now)) = self.node().zip(self.now) else { return Vec::new() };
        let unwritten = (self.behind || self.unwritten > 0).then(|| SymptomView {
            name: "journal_not_written".to_owned(),
            text: format!("{} writes have failed; an upgrade waits for the journal", self.unwritten),
        });
        let symptoms = self.symptoms(now, node).into_iter();
        let symptoms = symptoms.map(|s| SymptomView { name: s.name.to_owned(), text: s.text });
        unwritten.into_iter().chain(symptoms).collect()
    }

    pub(super) fn survey_of_node(&self) -> Option<&Survey> {
        self.node()?.network.survey.as_ref()
    }

    fn upgrade_view(&self, upgrade: &Upgrade) -> UpgradeView {
        let head = self.head();
        let blocks_left = head.map(|head| upgrade.height.saturating_sub(head));
        let (binary, trouble) = match self.prepared.get(&upgrade.name) {
            None => (BinaryState::Waiting, None),
            Some(Preparation::Working { .. }) => (BinaryState::Preparing, None),
            Some(Preparation::Ready(ready)) => (BinaryState::Ready, self.unfit(upgrade, ready)),
            Some(Preparation::Failed { detail, .. }) => (BinaryState::Failed, Some(detail.clone())),
        };
        let lack = self.backup_lack(upgrade).map(|lack| format!("no backup can be made: {lack}"));
        let gate = lack.is_some().then(|| BACKUP.to_owned());
        let hold = lack.or_else(|| self.hold(upgrade));
        let gates = self.holding(upgrade).into_iter().flat_map(|(_, gates)| gates);
        let gates = gate.into_iter().chain(gates.map(|gate| gate.name().to_owned())).collect();
        // The usual one may lie before a height that is near the fork.
        let deadline_height = deadline(upgrade.deadline_height, upgrade.fork_height);
        let deadline_height = deadline_height.map(|deadline| deadline.max(upgrade.height));
        UpgradeView {
            name: upgrade.name.clone(),
            height: upgrade.height,
            fork_height: upgrade.fork_height,
            deadline_height,
            overdue: deadline_height.zip(head).is_some_and(|(at, head)| head >= at.max(upgrade.height)),
            turn: self.turn(upgrade),
            on_hold: upgrade.on_hold,
            why: self.why_not_yet(upgrade, binary, trouble.as_deref(), hold.as_deref()),
            origin: upgrade.origin.clone(),
            blocks_left,
            left_ms: blocks_left.map(|n| self.time_for(n)),
            binary,
            download: None,
            gates,
            hold: trouble.or(hold),
            rehearsal: self.rehearsal_view(&upgrade.name),
            unrehearsed: self.why_unrehearsed(upgrade),
        }
    }

    fn rehearsal_view(&self, name: &Name) -> Option<RehearsalView> {
        if self.rehearsing.as_ref() == Some(name) {
            return Some(RehearsalView::Running);
        }
        match self.ready(name)?.rehearsal {
            Rehearsal::None => None,
            Rehearsal::Passed => Some(RehearsalView::Passed),
            Rehearsal::Failed(_) => Some(RehearsalView::Failed),
        }
    }

    fn time_for(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(millis(self.period()))
    }

    /// The gates that hold an upgrade, and since when, if it is due.
    fn holding(&self, upgrade: &Upgrade) -> Option<&(Instant, Vec<Gate>)> {
        let is_due = self.due().is_some_and(|(due, _)| due.name == upgrade.name);
        self.node().and_then(|node| node.network.holds.as_ref()).filter(|_| is_due)
    }

    /// The same in one line, with their numbers.
    fn hold(&self, upgrade: &Upgrade) -> Option<String> {
        let (since, gates) = self.holding(upgrade)?;
        let since = self.now.map_or(0, |now| now.saturating_duration_since(*since).as_secs());
        Some(format!("{} (for {since} s)", list(gates)))
    }

    /// Our next turn at or after the height of an upgrade.
    fn turn(&self, upgrade: &Upgrade) -> Option<TurnView> {
        let survey = self.survey_of_node().filter(|_| self.policy.validator)?;
        let head = survey.sample.head;
        let slot = Slot::of(head, survey.slot_set.iter().copied());
        let window = slot.window(slot.group(survey.me.as_ref()?)?, head.max(upgrade.height));
        Some(TurnView { window, opens_in_ms: self.time_for(window.opens_at.saturating_sub(head)) })
    }

    /// Why an upgrade that is planned has not happened yet: the first thing that it waits for.
    fn why_not_yet(
        &self,
        upgrade: &Upgrade,
        binary: BinaryState,
        trouble: Option<&str>,
        hold: Option<&str>,
    ) -> String {
        if upgrade.on_hold {
            return format!("it is on hold: {RELEASE} {}", upgrade.name);
        }
        if let Some(trouble) = trouble {
            if binary == BinaryState::Ready {
                return trouble.to_owned();
            }
            if self.is_put_off(&upgrade.name) {
                return format!("it is put off for a while: {trouble}");
            }
            return format!("its binary is not ready: {trouble}");
        }
        let head = self.heads.height();
        match (head, hold) {
            _ if !self.policy.watch_height => "it waits for upgrade-info.json to name it".to_owned(),
            (None, _) => "no head is known yet".to_owned(),
            (Some(head), _) if head < upgrade.height => {
                format!("its height is {} blocks away", upgrade.height - head)
            }
            _ if binary != BinaryState::Ready => "its binary is being prepared".to_owned(),
            (_, Some(hold)) => hold.to_owned(),
            _ => match &self.record.upgrade {
                Some(attempt) => format!("upgrade {} is under way", attempt.name),
                None if self.node().is_none() => "no node is running".to_owned(),
                None => match self.due() {
                    Some((due, _)) if due.name != upgrade.name => format!("upgrade {} comes first", due.name),
                    Some(_) | None => "the network is being asked".to_owned(),
                },
            },
        }
    }

    /// One word for the state, as `status` shows it.
    #[must_use]
    pub fn activity(&self) -> Activity {
        match &self.state {
            State::Born => Activity::Stopped,
            State::Clearing { .. } => Activity::WaitingForLocks,
            State::Spawning { .. } | State::Recording { then: AfterRecord::Spawn, .. } => Activity::Starting,
            State::Running(_) | State::Inspecting { .. } if self.record.upgrade.is_some() => {
                Activity::Probation
            }
            State::Running(_) | State::Inspecting { .. } => Activity::Running,
            State::Leaving { why: Why::Upgrade, .. } | State::Stopping { why: Why::Upgrade, .. } => {
                Activity::StoppingForUpgrade
            }
            State::Leaving { .. } | State::Stopping { .. } => Activity::Stopping,
            State::Working { .. } | State::Linking { .. } => Activity::Upgrading,
            State::Recording { .. } => Activity::Recording,
            State::Resting { then: Rested::Held, .. } => Activity::Held,
            State::Resting { .. } => Activity::BackingOff,
            State::Ended => Activity::Ended,
        }
    }
}

pub(super) fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
