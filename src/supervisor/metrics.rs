//! The snapshot of `status` in Prometheus' text format, for `status --metrics`, the page of `metrics_address` and the file of
//! `metrics_textfile`.
//!
//! Names follow Prometheus' conventions: base units, `_total` on counters alone. No label has text that changes from one
//! scrape to the next, since each text would be a time series of its own.

use super::Status;
use crate::machine::{BinaryState, NetworkView, Outcome, Receipt, UpgradeView};
use crate::upgrade::counters::{
    Counter, DOWNLOAD_BYTES, HOOK_FAILURES, NOTIFY_DROPPED, NOTIFY_FAILURES, UPGRADES,
};
use serde::{Deserialize, Serialize};
use std::fmt::{Display, Write as _};

/// The counters of a supervisor, from 0 at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Upgrades that have ended, by outcome.
    pub applied: u64,
    pub failed: u64,
    pub rolled_back: u64,
    pub aborted: u64,
    /// Hooks that did not end with 0.
    pub hook_failures: u64,
    /// Bytes that downloads have received.
    pub download_bytes: u64,
    /// Events that were too many to be told.
    #[serde(default)]
    pub notify_dropped: u64,
    /// Events for which the operator's program has failed.
    #[serde(default)]
    pub notify_failures: u64,
}

impl Counters {
    /// Those of this process.
    pub(super) fn now() -> Counters {
        let [applied, failed, rolled_back, aborted] = UPGRADES.each_ref().map(Counter::get);
        Counters {
            applied,
            failed,
            rolled_back,
            aborted,
            hook_failures: HOOK_FAILURES.get(),
            download_bytes: DOWNLOAD_BYTES.get(),
            notify_dropped: NOTIFY_DROPPED.get(),
            notify_failures: NOTIFY_FAILURES.get(),
        }
    }
}

/// All metrics of a snapshot.
pub fn render(status: &Status) -> String {
    let view = &status.view;
    let mut page = Page(String::new());
    page.value("up", "Whether a supervisor runs.", Some(u64::from(status.running)));
    let version = status.supervisor_version.iter().map(|version| (label("version", version), 1));
    page.labelled("build_info", "The supervisor.", version);
    let version = format!(
        "{},{}",
        label("version", &view.version.target.to_string()),
        label("sha256", &view.version.sha256.hex())
    );
    page.labelled("node_info", "The version that runs, or would.", std::iter::once((version, 1)));
    page.value(
        "ready",
        "Whether the node is in service as far as its rules let it be.",
        Some(u64::from(view.ready)),
    );
    page.value("node_up", "Whether the node's process runs.", Some(u64::from(view.node.is_some())));
    let age = view.node.as_ref().map(|node| seconds(node.age_ms));
    page.value("node_age_seconds", "For how long the node's process has run.", age);
    page.counter("node_starts_total", "Starts of the node in this home.", Some(view.launches));
    page.value(
        "head_height",
        "The head that the node told last.",
        view.head.as_ref().map(|head| head.height),
    );
    let record = view.head_record.as_ref().map(|record| record.height);
    page.value("head_record_height", "The highest head that counts.", record);
    let age = view.head_age_ms.map(seconds);
    page.value("head_age_seconds", "For how long the node has reported no newer head.", age);
    page.value("block_period_seconds", "The time between blocks, measured.", Some(seconds(view.period_ms)));
    page.value("node_failures", "Failures of the node in a row.", Some(view.failures));
    page.value("halted", "Whether the operator has to decide.", Some(u64::from(view.halted.is_some())));
    let upgrading = view.upgrade.is_some() && view.halted.is_none();
    page.value("upgrading", "Whether an upgrade is under way.", Some(u64::from(upgrading)));
    page.value("silent", "Whether the node does not sign for now.", Some(u64::from(view.silent.is_some())));
    let needs = view.needs.iter().map(|need| (label("name", &need.name), 1));
    page.labelled("need", "Something that needs the operator.", needs);
    network(&mut page, view.network.as_ref());
    let symptoms = view.symptoms.iter().map(|symptom| (label("name", &symptom.name), 1));
    page.labelled("symptom", "Something that is wrong with the node or its network.", symptoms);
    page.value("plan_problems", "Plans that cannot be followed.", Some(status.problems.len()));
    let under_way = view.upgrade.iter().map(|p| (label("name", p.name.as_str()), p.attempt));
    page.labelled("upgrade_attempt", "Executions of the new binary of the upgrade under way.", under_way);
    planned(&mut page, &view.planned);
    let ended = view.ended.iter().map(|ended| {
        let name = label("name", ended.name.as_str());
        (format!("{name},{}", label("outcome", &ended.outcome.to_string())), ended.height)
    });
    page.labelled("ended_height", "The height of an upgrade that has ended.", ended);
    status.receipt.iter().for_each(|receipt| steps(&mut page, receipt));
    if status.running {
        let Counters { applied, failed, rolled_back, aborted, .. } = status.counters;
        let Counters { hook_failures, download_bytes, notify_dropped, notify_failures, .. } = status.counters;
        let mut upgrades = Outcome::ALL
            .into_iter()
            .zip([applied, failed, rolled_back, aborted])
            .map(|(outcome, count)| (label("outcome", &outcome.to_string()), count.to_string()));
        page.metric("upgrades_total", "counter", "Upgrades that have ended.", &mut upgrades);
        page.counter("hook_failures_total", "Hooks that did not end with 0.", Some(hook_failures));
        page.counter("download_bytes_total", "Bytes that downloads have received.", Some(download_bytes));
        page.counter("notify_dropped_total", "Events that were too many to be told.", Some(notify_dropped));
        let help = "Events of which notify_command failed.";
        page.counter("notify_failures_total", help, Some(notify_failures));
    }
    page.0
}

fn network(page: &mut Page, network: Option<&NetworkView>) {
    page.value("peers", "The peers of the node.", network.and_then(|network| network.peers));
    let mut value = |name, help, count: fn(&NetworkView) -> usize| page.value(name, help, network.map(count));
    value("validators", "The validators of the next block.", |network| network.validators);
    value("validators_live", "Those that have sealed lately.", |network| network.live);
    value("quorum", "How many of them must seal.", |network| network.quorum);
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
    let loads = plans.iter().filter_map(|plan| {
        let percent = plan.download.as_ref()?.percent?;
        Some((named(plan), format!("{}.{:02}", percent / 100, percent % 100)))
    });
    page.labelled("download_ratio", "How far the download of a binary is.", loads);
    let gates = plans.iter().flat_map(|plan| {
        plan.gates.iter().map(|gate| (format!("{},{}", named(plan), label("gate", gate)), 1))
    });
    page.labelled("planned_gate", "The gates that hold a planned upgrade back.", gates);
}

/// The steps of the last upgrade that has ended, as far as they were seen.
fn steps(page: &mut Page, receipt: &Receipt) {
    let named = |step: &str| format!("{},{}", label("name", receipt.name.as_str()), label("step", step));
    let times = receipt.steps.iter().filter_map(|step| Some((named(step.step), seconds(step.after_ms?))));
    page.labelled("upgrade_step_seconds", "When a step of the last upgrade was seen, since the stop.", times);
    let blocks =
        receipt.steps.iter().filter_map(|step| Some((named(step.step), step.block.as_ref()?.height)));
    let last = receipt.last_own_seal.map(|height| (named("last_own_seal"), height));
    page.labelled("upgrade_step_height", "The block of a step of the last upgrade.", blocks.chain(last));
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// A label, with the escapes of the format.
fn label(key: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{key}=\"{value}\"")
}

struct Page(String);

impl Page {
    /// A value without labels, if it is known.
    fn value(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        self.labelled(name, help, value.into_iter().map(|value| (String::new(), value)));
    }

    /// Values with their labels; a metric without values is left out.
    fn labelled<V: Display>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (String, V)>) {
        self.metric(name, "gauge", help, &mut values.map(|(labels, value)| (labels, value.to_string())));
    }

    /// A number that only grows.
    fn counter(&mut self, name: &str, help: &str, value: Option<u64>) {
        let mut values = value.into_iter().map(|value| (String::new(), value.to_string()));
        self.metric(name, "counter", help, &mut values);
    }

    fn metric(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: &mut dyn Iterator<Item = (String, String)>,
    ) {
        let mut values = values.peekable();
        if values.peek().is_some() {
            let _ = writeln!(self.0, "# HELP wemixvisor_{name} {help}\n# TYPE wemixvisor_{name} {kind}");
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
        Attempt, Block, Download, Machine, NodeView, Origin, Phase, Policy, Record, Step, SymptomView,
        Target, TurnView, Upgrade, Version,
    };
    use expect_test::expect;

    /// A status in which every metric has a value.
    fn full() -> Status {
        let mut record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        let upgrade = |name: &str, height| Upgrade {
            fork_height: Some(200),
            ..Upgrade::new(name.parse().unwrap(), height, Origin::Schedule)
        };
        let attempt = |name, height| {
            Attempt::new(
                &upgrade(name, height),
                record.current.clone(),
                record.current.clone(),
                Phase::Trying,
            )
        };
        let (ended, under_way) = (attempt("v1", 40), attempt("v2", 60));
        record.upgrade = Some(ended);
        record.end(Outcome::Applied, String::new());
        record.upgrade = Some(under_way);
        record.launch = 7;
        let mut view = Machine::at_rest(Policy::default(), record, vec![upgrade("v3", 100).into()]).view();
        view.node = Some(NodeView { pid: 1, age_ms: 1_500 });
        view.head = Some(Block { height: 151, hash: None });
        view.head_record = Some(Block { height: 150, hash: None });
        view.symptoms =
            vec![SymptomView { name: "chain_stands_still".to_owned(), text: "not \"shown\"".to_owned() }];
        view.head_age_ms = Some(70_004);
        view.needs = view.symptoms.clone();
        view.network = Some(NetworkView {
            peers: Some(6),
            connected: None,
            validators: 7,
            live: 6,
            quorum: 5,
            spare: 1,
        });
        let window = Window { opens_at: 168, closes_at: 179 };
        let plan = &mut view.planned[0];
        (plan.overdue, plan.deadline_height) = (true, Some(140));
        plan.gates = vec!["a \"b\"\n\\".to_owned()];
        plan.turn = Some(TurnView { window, opens_in_ms: 18_000 });
        plan.download = Some(Download { percent: Some(7), line: String::new() });
        let step = |step: &'static str, after_ms: Option<u64>, block: Option<u64>| Step {
            step,
            time: None,
            after_ms,
            block: block.map(|height| Block { height, hash: None }),
            ago: None,
        };
        let receipt = Some(Receipt {
            schema: 1,
            name: "v1".parse().unwrap(),
            height: 40,
            fork_height: None,
            outcome: Outcome::Applied,
            detail: String::new(),
            from: None,
            to: None,
            client_before: None,
            client_after: None,
            starts: 1,
            backup: None,
            hook: None,
            own: None,
            last_own_seal: Some(39),
            steps: vec![
                step("stop_sent", Some(0), Some(40)),
                step("backed_up", None, None),
                step("over", Some(61_002), None),
            ],
        });
        Status {
            running: true,
            pid: None,
            supervisor_version: Some("1.2.3".to_owned()),
            home: "/h".into(),
            view,
            rpc_trouble: None,
            problems: Vec::new(),
            receipt,
            counters: Counters {
                applied: 1,
                failed: 0,
                rolled_back: 3,
                aborted: 0,
                hook_failures: 2,
                download_bytes: 4096,
                notify_dropped: 3,
                notify_failures: 1,
            },
        }
    }

    #[test]
    fn a_validator_that_is_late() {
        expect![[r#"
            wemixvisor_up 1
            wemixvisor_build_info{version="1.2.3"} 1
            wemixvisor_node_info{version="genesis",sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"} 1
            wemixvisor_ready 0
            wemixvisor_node_up 1
            wemixvisor_node_age_seconds 1.500
            wemixvisor_node_starts_total 7
            wemixvisor_head_height 151
            wemixvisor_head_record_height 150
            wemixvisor_head_age_seconds 70.004
            wemixvisor_block_period_seconds 1.000
            wemixvisor_node_failures 0
            wemixvisor_halted 0
            wemixvisor_upgrading 1
            wemixvisor_silent 0
            wemixvisor_need{name="chain_stands_still"} 1
            wemixvisor_peers 6
            wemixvisor_validators 7
            wemixvisor_validators_live 6
            wemixvisor_quorum 5
            wemixvisor_symptom{name="chain_stands_still"} 1
            wemixvisor_plan_problems 0
            wemixvisor_upgrade_attempt{name="v2"} 0
            wemixvisor_planned_height{name="v3"} 100
            wemixvisor_planned_ready{name="v3"} 0
            wemixvisor_planned_held{name="v3"} 0
            wemixvisor_planned_deadline_height{name="v3"} 140
            wemixvisor_planned_deadline_passed{name="v3"} 1
            wemixvisor_planned_turn_height{name="v3"} 168
            wemixvisor_download_ratio{name="v3"} 0.07
            wemixvisor_planned_gate{name="v3",gate="a \"b\"\n\\"} 1
            wemixvisor_ended_height{name="v1",outcome="applied"} 40
            wemixvisor_upgrade_step_seconds{name="v1",step="stop_sent"} 0.000
            wemixvisor_upgrade_step_seconds{name="v1",step="over"} 61.002
            wemixvisor_upgrade_step_height{name="v1",step="stop_sent"} 40
            wemixvisor_upgrade_step_height{name="v1",step="last_own_seal"} 39
            wemixvisor_upgrades_total{outcome="applied"} 1
            wemixvisor_upgrades_total{outcome="failed"} 0
            wemixvisor_upgrades_total{outcome="rolled-back"} 3
            wemixvisor_upgrades_total{outcome="aborted"} 0
            wemixvisor_hook_failures_total 2
            wemixvisor_download_bytes_total 4096
            wemixvisor_notify_dropped_total 3
            wemixvisor_notify_failures_total 1"#]].assert_eq(&values(&render(&full())));
    }

    #[test]
    fn the_disk_knows_less() {
        let record = Record::new(Version { target: Target::Genesis, sha256: Digest::sha256(b"") });
        let view = Machine::at_rest(Policy::default(), record, Vec::new()).view();
        let status =
            Status { running: false, supervisor_version: None, problems: vec!["x".into()], view, ..full() };
        expect![[r#"
            wemixvisor_up 0
            wemixvisor_node_info{version="genesis",sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"} 1
            wemixvisor_ready 0
            wemixvisor_node_up 0
            wemixvisor_node_starts_total 0
            wemixvisor_block_period_seconds 1.000
            wemixvisor_node_failures 0
            wemixvisor_halted 0
            wemixvisor_upgrading 0
            wemixvisor_silent 0
            wemixvisor_plan_problems 1
            wemixvisor_upgrade_step_seconds{name="v1",step="stop_sent"} 0.000
            wemixvisor_upgrade_step_seconds{name="v1",step="over"} 61.002
            wemixvisor_upgrade_step_height{name="v1",step="stop_sent"} 40
            wemixvisor_upgrade_step_height{name="v1",step="last_own_seal"} 39"#]].assert_eq(&values(&render(&status)));
    }

    #[test]
    fn every_metric_is_in_the_man_page() {
        let page = include_str!("../../man/wemixvisor.1");
        let (_, metrics) = page.split_once(".Sh METRICS").unwrap();
        let metrics = metrics.split(".Sh ").next().unwrap();
        let words: Vec<&str> = metrics.split_whitespace().collect();
        for name in render(&full()).lines().filter_map(|line| line.strip_prefix("# TYPE wemixvisor_")) {
            assert!(words.contains(&name.split(' ').next().unwrap()), "{name}");
        }
    }

    #[test]
    fn every_metric_of_the_dashboard_and_the_alerts_exists() {
        let page = render(&full());
        let metrics: Vec<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let (dashboard, alerts) =
            (include_str!("../../scripts/grafana.json"), include_str!("../../scripts/alerts.yml"));
        let tests = include_str!("../../tests/data/alerts_test.yml");
        let mut named = 0;
        for text in [dashboard, alerts, tests] {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("wemixvisor_")) {
                assert!(metrics.contains(&word), "there is no metric {word}");
                named += 1;
            }
        }
        assert!(named > 50, "the queries have moved");
        for alert in alerts.split("- alert: ").skip(1) {
            let name = alert.lines().next().unwrap();
            assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
        }
    }

    /// The lines with values, each of a metric that was described.
    fn values(page: &str) -> String {
        let described: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let values: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        assert!(values.iter().all(|line| described.contains(&name(line).as_str())), "{page}");
        values.join("\n")
    }
}
