//! The facts outside a plan that decide its status: from the running supervisor, otherwise from the disk.

use crate::cli::home::running_status;
use crate::cli::network;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::force::Force;
use crate::home::Home;
use crate::machine::{self, Activity, BinaryState, Conflict, Origin, Outcome, Phase, Target, View};
use crate::name::Name;
use crate::schedule::{
    Activation, ActivePlan, Agenda, Binary, Context, Entry, Facts, Plan, Planned, Report, Severity, Stage,
    Status, Stored, validate,
};
use crate::sorted::{Index, Set};
use crate::upgrade::download;
use crate::upgrade::install;
use crate::upgrade::journal::Journal;
use crate::wbft::{Client, Outlook};
use std::time::Duration;

/// The facts of the moment.
pub(in crate::cli) struct Situation<'a> {
    config: &'a Config,
    pub(super) agenda: Agenda,
    cancelled: Vec<(Name, u64)>,
    conflicts: Vec<Conflict>,
    pub(super) view: View,
    /// The height of the chain, as far as it is known.
    head: Option<u64>,
    /// Whether a supervisor runs.
    pub(in crate::cli) running: bool,
    staged: Set<Name>,
}

impl<'a> Situation<'a> {
    /// Looks at everything now.
    ///
    /// # Errors
    /// If the supervisor does not answer, or without one the journal cannot be read.
    pub(in crate::cli) fn look(config: &'a Config, home: &Home) -> Result<Self> {
        Situation::look_at_plans(config, home).map(|(situation, _)| situation)
    }

    /// The same with what is planned, of which a long plan makes much.
    fn look_at_plans(config: &'a Config, home: &Home) -> Result<(Self, Planned)> {
        let (view, running) = match running_status(home)? {
            Some(status) => (status.view, true),
            None => {
                let record = Journal::read(home)?.record;
                (machine::Machine::at_rest(config.policy(), record, Vec::new()).view(), false)
            }
        };
        let planned = Planned::read(home);
        let conflicts = planned.schedule(&view.ended).conflicts;
        let situation = Situation {
            head: view.head.as_ref().map(|block| block.height),
            config,
            agenda: Agenda::load(home)?,
            cancelled: planned.cancelled.clone(),
            conflicts,
            view,
            running,
            staged: install::staged(home)?.into_iter().collect(),
        };
        Ok((situation, planned))
    }

    /// The same with the head that the node itself reports, where no supervisor does.
    ///
    /// # Errors
    /// Those of [`Situation::look`].
    pub(super) fn look_at_node(config: &'a Config, home: &Home) -> Result<Self> {
        let mut situation = Situation::look(config, home)?;
        if !situation.running {
            situation.head = network::head_of_node(config, home);
        }
        Ok(situation)
    }

    /// Whether a plan, as it is now, is being followed.
    pub(super) fn activation(&self, stored: &Stored) -> Activation {
        match self.agenda.plan(&stored.plan.name) {
            None => Activation::Inactive,
            Some(ActivePlan { sha256, .. }) if *sha256 != stored.sha256 => Activation::Changed,
            Some(ActivePlan { paused: true, .. }) => Activation::Paused,
            Some(ActivePlan { .. }) => Activation::Active,
        }
    }

    /// How far a plan is.
    pub(in crate::cli) fn status(&self, stored: &Stored) -> Status {
        let head = self.head;
        let under_way = self.view.upgrade.as_ref().map(|p| {
            let proves = p.phase == Phase::Trying && self.view.state == Activity::Probation;
            (&p.name, p.height, if proves { Stage::Probation } else { p.phase.into() })
        });
        let known: Index<&Name, &machine::UpgradeView> =
            self.view.planned.iter().map(|plan| (&plan.name, plan)).collect();
        let applied: Set<&Name> =
            self.view.ended.iter().filter(|e| e.outcome == Outcome::Applied).map(|e| &e.name).collect();
        let binary = |entry: &Entry| {
            let was_used = applied.contains(&entry.name)
                || under_way.is_some_and(|(name, ..)| *name == entry.name)
                || self.view.version.target == Target::Upgrade(entry.name.clone());
            let binary = match self.binary(entry, known.get(&entry.name).copied()) {
                // It was verified when it was used.
                Binary::Staged if was_used => Binary::Verified,
                binary => binary,
            };
            (entry.name.clone(), binary)
        };
        let binaries: Vec<_> = stored.plan.upgrades.iter().map(binary).collect();
        let held = self.view.planned.iter().filter(|p| p.binary != BinaryState::Failed);
        let holds: Vec<_> = held.filter_map(|p| Some((p.name.clone(), p.hold.clone()?))).collect();
        stored.plan.status(&Facts {
            activation: self.activation(stored),
            head,
            period: head.filter(|_| self.running).map(|_| Duration::from_millis(self.view.period_ms)),
            under_way,
            ended: &self.view.ended,
            cancelled: &self.cancelled,
            conflicts: &self.conflicts,
            holds: &holds,
            binaries: &binaries,
        })
    }

    /// The state of a binary; `known` is the supervisor's view of its upgrade.
    fn binary(&self, entry: &Entry, known: Option<&machine::UpgradeView>) -> Binary {
        let is_staged = self.staged.contains(&entry.name);
        match known {
            Some(machine::UpgradeView { download: Some(download), .. }) => {
                Binary::Downloading { percent: download.percent }
            }
            Some(plan) if plan.binary == BinaryState::Ready => Binary::Verified,
            Some(plan) if plan.binary == BinaryState::Failed && (is_staged || self.can_be_fetched(entry)) => {
                Binary::Failed { detail: plan.hold.clone().unwrap_or_default() }
            }
            Some(_) | None if is_staged => Binary::Staged,
            Some(_) | None => Binary::Missing,
        }
    }

    fn can_be_fetched(&self, entry: &Entry) -> bool {
        self.config.daemon_allow_download_binaries
            && download::has_source(&entry.clone().upgrade(Origin::Schedule), &self.config.download_urls)
    }
}

/// The facts that a plan is checked against. Each may be unknown.
pub(super) struct World {
    head: Option<u64>,
    chain_id: Option<u64>,
    planned: Planned,
    ended: Vec<machine::Ended>,
    /// The network as the validator's node shows it; `None` for a node that is no validator.
    network: Option<Result<Outlook>>,
    /// Why it is not known what is planned and what has ended.
    trouble: Option<Error>,
}

impl World {
    /// Looks around.
    pub(super) fn look(config: &Config, home: &Home) -> World {
        let (planned, ended, told, trouble) = match Situation::look_at_plans(config, home) {
            Ok((seen, planned)) => (planned, seen.view.ended, seen.head.filter(|_| seen.running), None),
            Err(e) => (Planned::default(), Vec::new(), None, Some(e)),
        };
        let head = told.or_else(|| network::head_of_node(config, home));
        let chain_id = network::answer(config, home, Client::chain_id);
        let network = config.validator_mode.then(|| network::look(config, home));
        World { head, chain_id, planned, ended, network, trouble }
    }

    /// The network, where it is a validator's and its node answers.
    pub(super) fn network(&self) -> Option<&Outlook> {
        self.network.as_ref()?.as_ref().ok()
    }

    /// The first upgrade of a plan that would begin at once: it is not planned yet, and its height has come.
    pub(super) fn begins_at_once<'p>(&self, plan: &'p Plan) -> Option<&'p Entry> {
        let head = self.head?;
        let is_planned = |entry: &Entry| {
            self.planned.upgrades.iter().any(|u| (&u.name, u.height) == (&entry.name, entry.height))
        };
        plan.upgrades
            .iter()
            .find(|entry| entry.height <= head && self.is_to_come(entry) && !is_planned(entry))
    }

    /// Whether an upgrade can still happen, as far as is known.
    pub(super) fn is_to_come(&self, entry: &Entry) -> bool {
        let key = (&entry.name, entry.height);
        let has_ended = self.ended.iter().any(|ended| (&ended.name, ended.height) == key);
        let is_cancelled = self.planned.cancelled.iter().any(|(name, height)| (name, *height) == key);
        !has_ended && !is_cancelled
    }

    /// The same as the context of a validation. With `force` too little room before a fork is a warning.
    pub(super) fn context(&self, force: Force) -> Context<'_> {
        let severity = if force.is_given() { Severity::Warning } else { Severity::Error };
        Context {
            head: self.head,
            chain_id: self.chain_id,
            planned: &self.planned.upgrades,
            cancelled: &self.planned.cancelled,
            ended: &self.ended,
            room: self.network().map(|network| (network.set().len(), severity)),
        }
    }

    /// The forks of a plan before which there is too little room: the errors that `force` makes warnings.
    pub(super) fn short_of_room(&self, plan: &Plan) -> Report {
        let forced = validate(plan, &self.context(Force::Yes));
        let mut report = validate(plan, &self.context(Force::No));
        report.findings.retain(|f| f.severity == Severity::Error && !forced.findings.contains(f));
        report
    }

    /// The checks that could not be made, and why.
    pub(super) fn unchecked(&self, plan: &Plan) -> Option<String> {
        let chain = plan.chain_id.filter(|_| self.chain_id.is_none());
        let chain = chain.map(|id| format!("that it follows chain {id}"));
        let head = self.head.is_none().then(|| "the heights against its head".to_owned());
        let has_fork = plan.upgrades.iter().any(|entry| entry.fork_height.is_some());
        let room = matches!(self.network, Some(Err(_))) && has_fork;
        let room = room.then(|| "the room for the turns of all validators before the fork".to_owned());
        let all: Vec<String> = chain.into_iter().chain(head).chain(room).collect();
        let node = (!all.is_empty()).then(|| format!("no node answers, so not checked: {}", all.join(", ")));
        let rest = self.trouble.as_ref().map(|e| format!("not checked against what else is planned: {e}"));
        let all: Vec<String> = node.into_iter().chain(rest).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
