//! Every mistake with its pointer, and what the rest of the world makes of a sound plan.

use super::*;
use crate::digest::Digest;
use proptest::prelude::*;
use serde_json::{Value, json};

const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn sound() -> Value {
    json!({
        "version": "1.0", "name": "p", "description": "d", "created_at": "2026-01-01T00:00:00Z",
        "upgrades": [
            {"name": "v2", "height": 200, "fork_height": 300, "deadline_height": 250, "data_compat": true,
             "sha256": HEX, "binaries": {"linux/amd64": "https://x/v2", "any": "http://y/v2"}, "info": "hi"},
            {"name": "v3", "height": 400, "sha512": HEX.repeat(2), "info": {"a": 1}},
        ]
    })
}

fn found(value: &Value, context: &Context<'_>) -> Vec<String> {
    let (plan, report) = validate_json(value.to_string().as_bytes(), context);
    assert!(plan.is_some() || !report.is_valid(), "what is no plan has an error");
    if let Some(plan) = plan {
        assert_eq!(validate(&plan, context).is_valid(), report.is_valid(), "both ways to judge agree");
    }
    report.findings.iter().map(ToString::to_string).collect()
}

/// The findings when the value at `pointer` is replaced, or removed if `null`.
fn changed(pointer: &str, to: Value) -> Vec<String> {
    let mut plan = sound();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = plan.pointer_mut(parent).unwrap();
    match parent {
        Value::Object(map) if to.is_null() => _ = map.remove(key),
        Value::Object(map) => _ = map.insert(key.to_owned(), to),
        _ => *parent.pointer_mut(&format!("/{key}")).unwrap() = to,
    }
    found(&plan, &Context::default())
}

#[test]
fn a_sound_plan_has_no_findings() {
    assert_eq!(found(&sound(), &Context::default()), [""; 0]);
}

#[test]
fn every_mistake_is_found_where_it_is() {
    let null = || Value::Null;
    for (pointer, to, finding) in [
        ("/version", json!("2.0"), "/version: \"2.0\" is not \"1.0\""),
        ("/version", null(), "/version: it is missing; write \"1.0\""),
        ("/version", json!(1.0), "/version: 1.0 is not \"1.0\""),
        ("/name", json!("../p"), "/name: \"../p\" is not a name: 1 to 64 letters"),
        ("/name", null(), "/name: it is missing"),
        ("/description", json!(5), "/description: expected a text"),
        ("/chain_id", json!("x"), "/chain_id: \"x\" is not a whole number above 0"),
        ("/upgrades", null(), "/upgrades: it is missing"),
        ("/upgrades", json!([]), "/upgrades: there is no upgrade in it"),
        ("/upgrades", json!({}), "/upgrades: expected a list"),
        ("/upgrades/1", json!("v3"), "/upgrades/1: expected an object: an upgrade"),
        ("/upgrades/1/name", json!(""), "/upgrades/1/name: \"\" is not a name"),
        ("/upgrades/1/name", json!("v2"), "/upgrades/1/name: v2 is planned already in /upgrades/0"),
        ("/upgrades/1/height", json!(0), "/upgrades/1/height: 0 is not a height: a whole number above 0"),
        ("/upgrades/1/height", json!(-5), "/upgrades/1/height: -5 is not"),
        ("/upgrades/1/height", json!(1.5), "/upgrades/1/height: 1.5 is not"),
        ("/upgrades/1/height", json!("0x400"), "/upgrades/1/height: \"0x400\" is not"),
        ("/upgrades/1/height", null(), "/upgrades/1/height: it is missing"),
        (
            "/upgrades/1/height",
            json!(200),
            "/upgrades/1/height: 200 is not above 200, the height of /upgrades/0",
        ),
        ("/upgrades/0/fork_height", json!(200), "/upgrades/0/fork_height: 200 is not above 200"),
        ("/upgrades/0/deadline_height", json!(199), "/upgrades/0/deadline_height: 199 is not between"),
        ("/upgrades/0/deadline_height", json!(301), "/upgrades/0/deadline_height: 301 is not between"),
        ("/upgrades/0/data_compat", json!("no"), "/upgrades/0/data_compat: expected true or false"),
        ("/upgrades/0/sha256", json!("abc"), "/upgrades/0/sha256: it is not 64 hexadecimal digits"),
        ("/upgrades/0/sha256", json!(5), "/upgrades/0/sha256: expected a text"),
        ("/upgrades/0/sha512", json!(HEX.repeat(2)), "/upgrades/0/sha512: give sha256 or sha512, not both"),
        ("/upgrades/0/binaries", json!([]), "/upgrades/0/binaries: expected an object"),
        ("/upgrades/0/binaries/any", json!(7), "/upgrades/0/binaries/any: expected a URL"),
        ("/upgrades/0/binaries/any", json!("ftp://x"), "/upgrades/0/binaries/any: \"ftp://x\" is not a URL"),
        (
            "/upgrades/0/binaries",
            json!({"linux/x/y": "http://a"}),
            "/upgrades/0/binaries/linux~1x~1y: \"linux/x/y\"",
        ),
        ("/upgrades/0/info", json!("a\0"), "/upgrades/0/info: it is longer than 64 KiB or has a zero byte"),
        ("/upgrades/0/info", json!({"a": "x".repeat(70_000)}), "/upgrades/0/info: it is longer than 64 KiB"),
    ] {
        let found = changed(pointer, to.clone());
        let [one] = &found[..] else { panic!("{pointer} {to}: {found:#?}") };
        assert!(one.starts_with(finding), "{one}\ndoes not begin with\n{finding}");
    }
}

#[test]
fn mistakes_are_found_all_at_once_and_in_order() {
    let plan = json!({
        "version": "9", "name": "",
        "upgrades": [
            {"name": "v2", "height": "x", "sha256": "y"},
            7,
            {"name": "v2", "height": 5, "fork_height": 4, "deadline_height": 3},
            {"height": 4, "binaries": {"any": "z"}},
        ]
    });
    let (_, report) = validate_json(plan.to_string().as_bytes(), &Context::default());
    let pointers: Vec<_> = report.findings.into_iter().map(|finding| finding.pointer).collect();
    let expected = [
        "/version",
        "/name",
        "/upgrades/0/height",
        "/upgrades/0/sha256",
        "/upgrades/1",
        "/upgrades/2/name",
        "/upgrades/2/fork_height",
        "/upgrades/2/deadline_height",
        "/upgrades/3/name",
        "/upgrades/3/height",
        "/upgrades/3/binaries/any",
    ];
    assert_eq!(pointers, expected);
}

#[test]
fn what_is_not_json_is_an_error_of_the_whole_file() {
    for (bytes, what) in [
        (&b""[..], "plan: not JSON: EOF"),
        (b"{\"version\": \"1.0\",", "plan: not JSON: EOF"),
        (b"\xff\xfe", "plan: not JSON: "),
        (b"[]", "plan: expected an object: a plan"),
    ] {
        let (plan, report) = validate_json(bytes, &Context::default());
        assert!(plan.is_none() && report.to_string().starts_with(what), "{report}");
    }
}

#[test]
fn equal_keys_are_found_where_they_are() {
    let file = r#"{"version": "1.0", "name": "p", "a/b": 1, "a/b": 2, "x": {"y": 1, "y": 2}, "upgrades": [
        {"name": "v2", "height": 5, "height": 6, "height": 7, "z": 1, "z": 2},
        {"name": "v3", "height": 8, "binaries": {"any": "http://a", "any": "http://b"}}
    ]}"#;
    let (plan, report) = validate_json(file.as_bytes(), &Context::default());
    let pointers: Vec<_> = report.findings.iter().map(|f| f.pointer.as_str()).collect();
    assert_eq!(pointers, ["/a~1b", "/upgrades/0/height", "/upgrades/0/z", "/upgrades/1/binaries/any"]);
    assert!(plan.is_none() && !report.is_valid());
}

#[test]
fn a_number_beyond_all_measure_is_an_error() {
    let file = sound().to_string().replacen('{', "{\"x\": 1e999,", 1);
    let plan: Plan = serde_json::from_str(&file).unwrap();
    assert!(!validate(&plan, &Context::default()).is_valid());
    assert!(!validate_json(file.as_bytes(), &Context::default()).1.is_valid());
}

#[test]
fn a_passed_height_is_a_warning_that_says_what_it_means() {
    let context = |head| Context { head: Some(head), ..Context::default() };
    assert_eq!(found(&sound(), &context(199)), [""; 0]);
    let due = "the chain is past it (at 200): it is due as soon as the plan is executed";
    assert_eq!(found(&sound(), &context(200)), [format!("/upgrades/0/height: warning: {due}")]);
    let stuck = found(&sound(), &context(300));
    assert_eq!(stuck.len(), 2);
    assert!(stuck[0].starts_with("/upgrades/0/fork_height: warning: "), "{stuck:?}");
}

#[test]
fn another_chain_is_an_error() {
    let mut plan = sound();
    plan["chain_id"] = json!(1111);
    let context = |id| Context { chain_id: Some(id), ..Context::default() };
    assert_eq!(found(&plan, &context(1111)), [""; 0]);
    assert_eq!(
        found(&plan, &context(1112)),
        ["/chain_id: the plan is for chain 1111, but the node follows 1112"]
    );
}

#[test]
fn disagreement_with_what_is_planned_is_an_error_and_agreement_is_not() {
    let other = |name: &str, height, origin| Arc::new(Upgrade::new(name.parse().unwrap(), height, origin));
    let own = Origin::Plan("p".parse().unwrap());
    let planned = [
        other("v2", 200, Origin::TriggerFile),
        other("v3", 401, Origin::Schedule),
        other("v9", 900, Origin::Schedule),
        other("v3", 999, own),
    ];
    let context = Context { planned: &planned, ..Context::default() };
    assert_eq!(
        found(&sound(), &context),
        ["/upgrades/1: v3 at 400 (plan p), v3 at 401 (schedule): they disagree on the height"]
    );
    let mut pinned = other("v2", 200, Origin::TriggerFile);
    Arc::make_mut(&mut pinned).digest = Some(Digest::sha256(b"x"));
    let context = Context { planned: &[pinned], ..Context::default() };
    assert!(found(&sound(), &context)[0].contains("they disagree on the digest"));
    let same_height = [other("x", 400, Origin::Schedule)];
    let context = Context { planned: &same_height, ..Context::default() };
    assert!(found(&sound(), &context)[0].contains("only one upgrade at a height"));
}

#[test]
fn what_has_ended_or_was_cancelled_is_told() {
    let ended = |name: &str, height, outcome| {
        [Ended {
            name: name.parse().unwrap(),
            height,
            fork_height: None,
            cannot_follow: false,
            switch: None,
            outcome,
            detail: String::new(),
        }]
    };
    let before = |ended: &[Ended]| found(&sound(), &Context { ended, head: Some(250), ..Context::default() });
    assert_eq!(
        before(&ended("v2", 200, Outcome::Applied)),
        ["/upgrades/0: warning: it was applied at this height, and is not done again"]
    );
    assert_eq!(
        before(&ended("v3", 100, Outcome::Applied))[1..],
        ["/upgrades/1: v3 at 400 (plan p): it was applied already, for height 100"]
    );
    let cancelled = [("v2".parse().unwrap(), 200)];
    let context = Context { cancelled: &cancelled, head: Some(250), ..Context::default() };
    assert_eq!(found(&sound(), &context), ["/upgrades/0: warning: it was cancelled, and will not happen"]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4u64).prop_map(Value::from),
        "[a-z0-9:/.]{0,8}".prop_map(Value::from),
    ];
    let keys = "version|name|height|fork_height|deadline_height|sha256|sha512|binaries|info|data_compat|x";
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic_and_what_is_valid_is_a_plan(upgrades in any_json(), extra in any_json()) {
        let plan = json!({"version": "1.0", "name": "p", "upgrades": upgrades, "extra": extra});
        let (read, report) = validate_json(plan.to_string().as_bytes(), &Context::default());
        prop_assert!(read.is_some() || !report.is_valid());
        let _ = validate_json(extra.to_string().as_bytes(), &Context::default());
    }
}

#[test]
fn a_fork_must_leave_room_for_the_turns_of_all_validators() {
    let plan = plan_of(&[("v2", 1000, Some(1060)), ("v3", 2000, Some(2168)), ("v4", 3000, None)]);
    let judged = |context: Context<'_>| {
        let lines = validate(&plan, &context).findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        lines.into_iter().filter(|line| line.contains("validators need")).collect::<Vec<_>>()
    };
    let short = "7 validators need 7 × 24 = 168 blocks between height and fork, there are 60";
    assert_eq!(judged(Context::default()), [""; 0]);
    let room = |severity| Context { room: Some((7, severity)), ..Context::default() };
    assert_eq!(judged(room(Severity::Error)), [format!("/upgrades/0/fork_height: {short}")]);
    assert_eq!(judged(room(Severity::Warning)), [format!("/upgrades/0/fork_height: warning: {short}")]);
    // The head has passed the height: fewer blocks are left, unless the upgrade was planned before.
    let late = Context { head: Some(2100), ..room(Severity::Error) };
    let from_head = "7 validators need 7 × 24 = 168 blocks between head and fork, there are 68";
    assert_eq!(judged(late), [format!("/upgrades/1/fork_height: {from_head}")]);
    let planned = plan.clone().schedule();
    assert_eq!(judged(Context { planned: &planned, ..late }), [""; 0]);
}

fn plan_of(upgrades: &[(&str, u64, Option<u64>)]) -> Plan {
    let mut plan = Plan::new("p".parse().unwrap(), "");
    for (name, height, fork) in upgrades {
        let entry = Entry::new(name.parse().unwrap(), *height);
        plan.add(Entry { fork_height: *fork, ..entry });
    }
    plan
}
