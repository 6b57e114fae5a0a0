//! The receipt of an upgrade, and the history of a home.

use super::rig::sim::until;
use super::rig::visor::Rig;
use serde_json::{Value, json};

#[test]
fn an_upgrade_leaves_a_receipt_that_can_be_checked() {
    let rig = Rig::new();
    rig.stage("v2", &[]);
    rig.hook("v2", "pre-upgrade", "exit 0");
    rig.schedule("v2", 6);
    let mut visor = rig.run();
    visor.wait_outcome("v2", "applied");
    let path = rig.of("state/receipts/v2.json");
    let text = until("the receipt", || std::fs::read_to_string(&path).ok());
    let receipt: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&receipt["schema"], &receipt["outcome"], &receipt["starts"]),
        (&1.into(), &"applied".into(), &1.into())
    );
    assert_eq!(receipt["to"]["target"], "upgrades/v2");
    assert_eq!(receipt["hook"], "it has succeeded");
    assert!(receipt["backup"].as_str().unwrap().starts_with("v2-"), "{text}");
    let steps = receipt["steps"].as_array().unwrap();
    let of = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap();
    let mut last = 0;
    for name in [
        "stop_sent",
        "old_ended",
        "backed_up",
        "hook_ended",
        "new_started",
        "first_answer",
        "first_beyond",
        "over",
    ] {
        let after = of(name)["after_ms"].as_u64().unwrap();
        assert!(after >= last && of(name)["time"].as_str().unwrap().ends_with('Z'), "{text}");
        last = after;
    }
    assert_eq!(
        of("first_own_seal"),
        &json!({"step": "first_own_seal", "time": null, "after_ms": null, "block": null})
    );
    let height = |name: &str| of(name)["block"]["height"].as_u64().unwrap();
    assert!(height("stop_sent") >= 6 && height("first_beyond") > height("stop_sent"), "{text}");
    assert!(of("first_beyond")["block"]["hash"].as_str().unwrap().starts_with("0x"));

    let shown = rig.ok(&["upgrade", "show", "v2"]);
    assert!(shown.contains("\nfirst beyond ") && shown.contains(" s after the stop, block "), "{shown}");
    let shown: Value = serde_json::from_str(&rig.ok(&["upgrade", "show", "v2", "--json"])).unwrap();
    assert_eq!(shown["receipt"], receipt);
    assert!(rig.ok(&["status", "--metrics"]).contains("wemixvisor_upgrades_total{outcome=\"applied\"} 1\n"));
    assert_eq!(visor.stop(), 0);

    let history = rig.ok(&["history"]);
    let due = history.find("upgrade_due").unwrap();
    assert!(history[due..].contains("upgrade_ended"), "{history}");
    let events: Value = serde_json::from_str(&rig.ok(&["history", "--json"])).unwrap();
    assert_eq!(events["events"].as_array().unwrap().len(), history.lines().count());
}
