//! `status --metrics`: the same snapshot in Prometheus' text format, for a textfile collector.
//!
//! There is no server: a timer can write these numbers to a file, and no port must be guarded.

use crate::machine::{BinaryState, NetworkView, UpgradeView};
use crate::supervisor::Status;
use std::fmt::Write as _;

/// All metrics of a snapshot.
pub(super) fn render(status: &Status) -> String {
    let view = &status.view;
    let mut page = Page(String::new());
    page.value("up", "Whether a supervisor runs.", Some(status.running.into()));
    page.value("node_up", "Whether the node's process runs.", Some(view.node.is_some().into()));
    let age = view.node.as_ref().map_or(0, |node| node.age_ms / 1000);
    page.value("node_age_seconds", "For how long the node's process has run.", Some(age));
    page.value(
        "head_height",
        "The head that the node told last.",
        view.head.as_ref().map(|head| head.height),
    );
    let record = view.head_record.as_ref().map(|record| record.height);
    page.value("head_record_height", "The highest head that counts.", record);
    let age = view.head_age_ms.map(|ms| ms / 1000);
    page.value("head_age_seconds", "For how long the node has reported no newer head.", age);
    page.value("block_period_milliseconds", "The time between blocks, measured.", Some(view.period_ms));
    page.value("node_failures", "Failures of the node in a row.", Some(view.failures.into()));
    page.value("halted", "Whether the operator has to decide.", Some(view.halted.is_some().into()));
    page.value("silent", "Whether the node does not sign for now.", Some(view.silent.is_some().into()));
    let needs = view.needs.iter().map(|need| (label("name", &need.name), 1));
    page.labelled("need", "Something that needs the operator.", needs);
    let network = |count: fn(&NetworkView) -> Option<usize>| {
        view.network.as_ref().and_then(count).map(|count| count as u64)
    };
    page.value("peers", "The peers of the node.", network(|network| network.peers));
    page.value(
        "validators",
        "The validators of the next block.",
        network(|network| Some(network.validators)),
    );
    page.value("validators_live", "Those that have sealed lately.", network(|network| Some(network.live)));
    page.value("quorum", "How many of them must seal.", network(|network| Some(network.quorum)));
    let symptoms = view.symptoms.iter().map(|symptom| (label("name", &symptom.name), 1));
    page.labelled("symptom", "Something that is wrong with the node or its network.", symptoms);
    page.value("plan_problems", "Plans that cannot be followed.", Some(status.problems.len() as u64));
    let under_way = view.upgrade.iter().map(|p| (label("name", p.name.as_str()), u64::from(p.attempt)));
    page.labelled("upgrade_attempt", "Executions of the new binary of the upgrade under way.", under_way);
    planned(&mut page, &view.planned);
    let ended = view.ended.iter().map(|ended| {
        let name = label("name", ended.name.as_str());
        (format!("{name},{}", label("outcome", &ended.outcome.to_string())), ended.height)
    });
    page.labelled("ended_height", "The height of an upgrade that has ended.", ended);
    page.0
}

/// The metrics that every planned upgrade has.
fn planned(page: &mut Page, plans: &[UpgradeView]) {
    let named = |plan: &UpgradeView| label("name", plan.name.as_str());
    let mut each = |name, help, value: &dyn Fn(&UpgradeView) -> Option<u64>| {
        page.labelled(name, help, plans.iter().filter_map(|plan| Some((named(plan), value(plan)?))));
    };
    each("planned_height", "The height of a planned upgrade.", &|plan| Some(plan.height));
    let ready = |plan: &UpgradeView| Some((plan.binary == BinaryState::Ready).into());
    each("planned_ready", "Whether the binary of a planned upgrade is ready.", &ready);
    let held = |plan: &UpgradeView| Some(plan.hold.is_some().into());
    each("planned_held", "Whether something holds a planned upgrade back.", &held);
    each("planned_deadline_height", "The height at which an alarm is due.", &|plan| plan.deadline_height);
    let late = |plan: &UpgradeView| plan.deadline_height.map(|_| plan.overdue.into());
    each("planned_deadline_passed", "Whether a planned upgrade has missed its deadline.", &late);
    let turn = |plan: &UpgradeView| Some(plan.turn.as_ref()?.window.opens_at);
    each("planned_turn_height", "The block at which a validator's turn opens.", &turn);
    let percent = |plan: &UpgradeView| Some(plan.download.as_ref()?.percent?.into());
    each("download_percent", "How far the download of a binary is.", &percent);
    let why = plans.iter().filter(|plan| !plan.why.is_empty());
    let why = why.map(|plan| (format!("{},{}", named(plan), label("why", &plan.why)), 1));
    page.labelled("planned_why", "Why a planned upgrade has not happened yet, in words.", why);
    let gates = plans.iter().flat_map(|plan| {
        plan.gates.iter().map(|gate| (format!("{},{}", named(plan), label("gate", gate)), 1))
    });
    page.labelled("planned_gate", "The gates that hold a planned upgrade back.", gates);
}

/// A label, with the escapes of the format.
fn label(key: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{key}=\"{value}\"")
}

struct Page(String);

impl Page {
    /// A value without labels, if it is known.
    fn value(&mut self, name: &str, help: &str, value: Option<u64>) {
        self.labelled(name, help, value.into_iter().map(|value| (String::new(), value)));
    }

    /// Values with their labels; a metric without values is left out.
    fn labelled(&mut self, name: &str, help: &str, values: impl Iterator<Item = (String, u64)>) {
        let mut values = values.peekable();
        if values.peek().is_some() {
            let _ = writeln!(self.0, "# HELP wemixvisor_{name} {help}\n# TYPE wemixvisor_{name} gauge");
        }
        for (labels, value) in values {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "wemixvisor_{name}{labels} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::machine::gates::Window;
    use crate::machine::{
        Block, Download, Machine, Origin, Policy, Record, SymptomView, Target, TurnView, Upgrade, Version,
    };
    use expect_test::expect;

    #[test]
    fn a_validator_that_is_late() {
        let record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        let upgrade =
            Upgrade { fork_height: Some(200), ..Upgrade::new("v2".parse().unwrap(), 100, Origin::Schedule) };
        let mut view = Machine::at_rest(Policy::default(), record, vec![upgrade.into()]).view();
        view.head_record = Some(Block { height: 150, hash: None });
        view.symptoms =
            vec![SymptomView { name: "chain_stands_still".to_owned(), text: "not \"shown\"".to_owned() }];
        view.head_age_ms = Some(70_400);
        view.needs = view.symptoms.clone();
        view.network = Some(NetworkView {
            peers: Some(6),
            connected: None,
            validators: 7,
            live: 6,
            quorum: 5,
            spare: 1,
        });
        view.planned[0].overdue = true;
        view.planned[0].deadline_height = Some(140);
        view.planned[0].gates = vec!["turn".to_owned()];
        view.planned[0].why = "a \"b\"".to_owned();
        let window = Window { opens_at: 168, closes_at: 179 };
        view.planned[0].turn = Some(TurnView { window, opens_in_ms: 18_000 });
        let problems = Vec::new();
        let status = Status {
            running: true,
            pid: None,
            supervisor_version: None,
            home: "/h".into(),
            view,
            rpc_trouble: None,
            problems,
        };
        let page = render(&status);
        for line in [
            "wemixvisor_head_record_height 150\n",
            "wemixvisor_head_age_seconds 70\n",
            "wemixvisor_need{name=\"chain_stands_still\"} 1\n",
            "wemixvisor_validators_live 6\n",
            "wemixvisor_symptom{name=\"chain_stands_still\"} 1\n",
            "wemixvisor_planned_deadline_passed{name=\"v2\"} 1\n",
            "wemixvisor_planned_deadline_height{name=\"v2\"} 140\n",
            "wemixvisor_planned_gate{name=\"v2\",gate=\"turn\"} 1\n",
            "wemixvisor_planned_turn_height{name=\"v2\"} 168\n",
            "wemixvisor_planned_why{name=\"v2\",why=\"a \\\"b\\\"\"} 1\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
    }

    #[test]
    fn a_planned_upgrade_that_is_being_fetched() {
        let record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        let upgrade = Upgrade::new("v2".parse().unwrap(), 100, Origin::Schedule);
        let mut view = Machine::at_rest(Policy::default(), record, vec![upgrade.into()]).view();
        view.planned[0].download = Some(Download { percent: Some(42), line: String::new() });
        let status = Status {
            running: false,
            pid: None,
            supervisor_version: None,
            home: "/h".into(),
            view,
            rpc_trouble: None,
            problems: vec!["x".into()],
        };
        let page = render(&status);
        let values: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            wemixvisor_up 0
            wemixvisor_node_up 0
            wemixvisor_node_age_seconds 0
            wemixvisor_block_period_milliseconds 1000
            wemixvisor_node_failures 0
            wemixvisor_halted 0
            wemixvisor_silent 0
            wemixvisor_plan_problems 1
            wemixvisor_planned_height{name="v2"} 100
            wemixvisor_planned_ready{name="v2"} 0
            wemixvisor_planned_held{name="v2"} 0
            wemixvisor_download_percent{name="v2"} 42
            wemixvisor_planned_why{name="v2",why="no head is known yet"} 1"#]]
        .assert_eq(&values.join("\n"));
        assert_eq!(page.matches("# TYPE").count(), values.len());
    }
}
