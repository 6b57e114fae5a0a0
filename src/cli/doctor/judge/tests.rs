//! Facts and the marks that they get.

use super::*;
use crate::config::Config;
use std::path::Path;

/// The marks of these lines, and a word of the first cure.
fn marks(findings: &[Finding]) -> Vec<Mark> {
    findings.iter().map(|finding| finding.result).collect()
}

const OK: [Mark; 1] = [Mark::Ok];
const WARN: [Mark; 1] = [Mark::Warn];
const FAIL: [Mark; 1] = [Mark::Fail];

fn config(validator_mode: bool) -> Config {
    Config { validator_mode, ..Config::defaults(Path::new("/h")) }
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn path(mode: u32) -> Seen {
    Seen { path: "/h/x".into(), owner: 7, mode, is_link: false, is_reachable: true }
}

#[test]
fn every_fault_has_a_cure_and_more_than_three_are_counted() {
    let faults = lines("x", (0..5).map(|n| warn(n.to_string(), "do")).collect(), "fine");
    assert_eq!((faults.len(), faults[2].text.as_str()), (3, "2 (and 2 more)"));
    assert!(faults.iter().all(|fault| fault.cure.is_some()));
    let fine = lines("x", Vec::new(), "fine");
    assert_eq!((marks(&fine), fine[0].cure.as_ref()), (OK.to_vec(), None));
}

#[test]
fn who_may_write_the_home_and_read_its_keys() {
    for (mode, owner, expected) in
        [(0o700, 7, OK), (0o555, 0, OK), (0o770, 7, WARN), (0o777, 7, FAIL), (0o700, 8, FAIL)]
    {
        assert_eq!(marks(&modes(&[Seen { owner, ..path(mode) }], 7)), expected, "{mode:o} {owner}");
    }
    for (mode, is_reachable, expected) in
        [(0o600, true, OK), (0o644, true, FAIL), (0o640, true, FAIL), (0o644, false, OK)]
    {
        assert_eq!(marks(&keys(&[Seen { is_reachable, ..path(mode) }])), expected, "{mode:o} {is_reachable}");
    }
    assert_eq!(marks(&links(&[path(0o700)])), OK);
    assert_eq!(marks(&links(&[Seen { is_link: true, ..path(0o777) }])), WARN);
    assert_eq!(marks(&modes(&[Seen { is_link: true, ..path(0o777) }], 7)), OK);
}

#[test]
fn arguments_fit_the_configuration_or_not() {
    for (line, validator, peers, expected) in [
        ("--mine", true, Some(3), OK),
        ("", false, None, OK),
        ("", true, None, WARN),
        ("--mine=false", true, None, WARN),
        ("--mine", false, None, WARN),
        ("--config node.toml", true, None, OK),
        ("--mine --syncmode snap", true, None, WARN),
        ("--mine --syncmode=full", true, None, OK),
        ("--syncmode snap", false, None, OK),
    ] {
        let args = words(line);
        let node = Node { args: &args, may_lack_mine: false, environment: b"", peers };
        assert_eq!(marks(&arguments(&node, &config(validator))), expected, "{line}");
    }
    let silent = Node { args: &[], may_lack_mine: true, environment: b"", peers: None };
    assert_eq!(marks(&arguments(&silent, &config(true))), OK);
    let variable =
        Node { args: &[], may_lack_mine: false, environment: b"A=1\0GETH_MINE=true\0", peers: None };
    assert_eq!(marks(&arguments(&variable, &config(true))), OK);
    // Without the flags of a fast sync a node with few peers waits.
    let slow = Config { daemon_fast_sync: false, ..config(true) };
    for (line, peers, expected) in [
        ("--mine", Some(4), WARN),
        ("--mine", Some(5), OK),
        ("--mine", None, OK),
        ("--mine --sync.forcecycle 1ms", Some(4), OK),
    ] {
        let args = words(line);
        let node = Node { args: &args, may_lack_mine: false, environment: b"", peers };
        assert_eq!(marks(&arguments(&node, &slow)), expected, "{line} {peers:?}");
    }
    let kills = Config { daemon_stop_timeout_action: StopTimeoutAction::Kill, ..config(true) };
    for (line, expected) in [("--mine", WARN), ("--mine --gcmode archive", OK), ("--mine --cache.gc 0", OK)] {
        let args = words(line);
        assert_eq!(
            marks(&arguments(
                &Node { args: &args, may_lack_mine: false, environment: b"", peers: None },
                &kills
            )),
            expected
        );
    }
}

#[test]
fn orders_come_from_the_owner_of_the_node_alone() {
    for (line, mode, expected) in [
        ("", 0o600, OK),
        ("", 0o666, FAIL),
        ("--http --http.api eth,net", 0o600, OK),
        ("--http --http.api eth,admin", 0o600, WARN),
        ("--http --http.addr 127.0.0.1 --http.api eth,admin", 0o600, WARN),
        ("--http --http.addr 0.0.0.0 --http.api eth,net", 0o600, OK),
        ("--http --http.addr 0.0.0.0 --http.api eth,miner", 0o600, FAIL),
        ("--http.addr 0.0.0.0 --http.api eth,miner", 0o600, OK),
        ("--ws --ws.addr :: --ws.api personal", 0o600, FAIL),
        ("--authrpc.addr 0.0.0.0", 0o600, FAIL),
        ("--authrpc.addr ::1", 0o600, OK),
    ] {
        let args = words(line);
        let node = Node { args: &args, may_lack_mine: false, environment: b"", peers: None };
        assert_eq!(marks(&interfaces(&node, &[path(mode)])), expected, "{line} {mode:o}");
    }
}

#[test]
fn the_chain_the_address_and_the_clock_are_what_they_should_be() {
    let seconds = Duration::from_secs;
    let state = |head_age, catching_up| ConsensusState {
        head_age: seconds(head_age),
        catching_up,
        block_period: seconds(1),
        ..ConsensusState::default()
    };
    let of = |id| Chain { id, genesis: "0x00".to_owned() };
    assert_eq!(marks(&chain(&state(2, false), Some(&of(1)), Some(&of(1)))), OK);
    assert_eq!(marks(&chain(&state(2, false), None, Some(&of(1)))), OK);
    assert_eq!(marks(&chain(&state(2, false), Some(&of(1)), Some(&of(2)))), FAIL);
    assert_eq!(marks(&chain(&state(31, false), None, None)), FAIL);
    assert_eq!(marks(&chain(&state(31, true), None, None)), WARN);
    assert_eq!(marks(&clock(&state(0, false), None)), OK);
    assert_eq!(marks(&clock(&state(0, false), Some("it is wrong"))), FAIL);
    assert_eq!(marks(&clock(&ConsensusState { clock_skew: seconds(4), ..state(0, false) }, None)), FAIL);

    let one: Address = "0x0101010101010101010101010101010101010101".parse().unwrap();
    let two: Address = "0x0202020202020202020202020202020202020202".parse().unwrap();
    let (on, off) = (Some(true), Some(false));
    for (own, configured, mode, sealing, expected) in [
        (Some(one), None, true, on, OK),
        (Some(one), None, true, off, WARN),
        (Some(one), None, false, None, OK),
        (Some(one), None, false, on, FAIL),
        (Some(one), None, true, None, WARN),
        (Some(one), Some(two), true, on, FAIL),
        (None, None, true, None, FAIL),
        (None, Some(two), true, on, OK),
    ] {
        let config = Config { validator_address: configured, ..config(mode) };
        assert_eq!(marks(&address(&config, own, sealing)), expected, "{own:?} {configured:?} {mode}");
    }
}

#[test]
fn the_network_can_lose_a_validator_or_not() {
    for (live, all, needed, is_validator, expected) in [
        (4, 4, 3, true, OK),
        (3, 4, 3, true, WARN),
        (2, 4, 3, true, FAIL),
        (3, 3, 3, true, WARN),
        (3, 3, 3, false, OK),
        (0, 0, 0, false, OK),
    ] {
        let state = ConsensusState {
            live,
            validator_count: all,
            quorum: needed,
            is_validator,
            ..ConsensusState::default()
        };
        assert_eq!(marks(&quorum(&state)), expected, "{live} of {all}");
    }
    let state = ConsensusState { validator_count: 7, height: 100, ..ConsensusState::default() };
    let name: Name = "v2".parse().unwrap();
    for (fork, expected) in [(200 + 167, FAIL), (200 + 168, OK), (100, OK)] {
        assert_eq!(marks(&forks(&[(&name, 200, fork)], &state)), expected, "{fork}");
    }
}

#[test]
fn a_unit_lets_the_node_outlive_its_supervisor() {
    let judged = |text: &str| {
        let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let unit = Unit { name: "w.service".to_owned(), settings: text.lines().filter_map(pair).collect() };
        let cures = systemd(Some(&unit), Duration::from_secs(600)).into_iter().filter_map(|f| f.cure);
        cures.map(|cure| cure.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let ours = "Type=notify\nKillMode=process\nSendSIGKILL=no\nTimeoutStopUSec=5min\nOOMPolicy=continue\n\
                Restart=on-failure\nRestartPreventExitStatus=2 64 78 79\n";
    assert_eq!(judged(ours), [""; 0]);
    for (from, to, cure) in [
        ("KillMode=process", "KillMode=control-group", "KillMode"),
        ("SendSIGKILL=no", "SendSIGKILL=yes", "SendSIGKILL"),
        ("Type=notify", "Type=simple", "Type"),
        ("OOMPolicy=continue", "OOMPolicy=stop", "OOMPolicy"),
        ("Restart=on-failure", "Restart=no", "Restart"),
        ("64 78 79", "64 78", "RestartPreventExitStatus"),
    ] {
        assert_eq!(judged(&ours.replace(from, to)), [cure], "{to}");
    }
    let patient = ours.replace("Type=notify", "Type=simple").replace("5min", "1h 30min");
    assert_eq!(judged(&patient), [""; 0]);
    assert_eq!(judged("Type=simple\nRestart=no\n").len(), 3, "only the first ones of a poor unit are shown");
    assert_eq!(marks(&systemd(None, Duration::ZERO)), OK);
    assert_eq!(marks(&limits(Some(1024))), WARN);
    assert_eq!(marks(&limits(Some(524_288))), OK);
    assert_eq!(marks(&limits(None)), OK);
}
