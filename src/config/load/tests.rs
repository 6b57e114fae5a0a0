//! Sources against each other, and every kind of mistake with its place.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

struct Case {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new(file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("wemixvisor")).unwrap();
        let case = Case { sources: Sources { cwd: "/cwd".into(), ..Sources::default() }, dir };
        let path = case.path();
        fs::write(&path, file).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let home = case.dir.path().to_str().unwrap().to_owned();
        case.env("DAEMON_HOME", &home)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("wemixvisor/config.yaml")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.sources.flags.push((name.into(), value.into()));
        self
    }

    fn load(&self) -> Loaded {
        Config::load(&self.sources).unwrap()
    }

    /// The problems, with the path of the file cut down to its name.
    fn problems(&self) -> Vec<String> {
        let cut = |p: &Problem| p.to_string().replace(self.path().to_str().unwrap(), "config.yaml");
        Config::load(&self.sources).unwrap_err().0.iter().map(cut).collect()
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = "daemon_name: file\ndaemon_max_restarts: 1\nblock_period: 30ms\n";
    let case =
        Case::new(file).env("DAEMON_NAME", "env").env("DAEMON_MAX_RESTARTS", "2").flag("--name", "flag");
    let loaded = case.load();
    assert_eq!(loaded.config.daemon_name.as_str(), "flag");
    assert_eq!(loaded.config.daemon_max_restarts, 2);
    assert_eq!(loaded.config.block_period, Duration::from_millis(30));
    assert_eq!(loaded.config.daemon_shutdown_grace, Duration::from_secs(600));
    assert_eq!(loaded.file, Some(case.path()));
    let origin = |name| loaded.origin(name).clone();
    assert_eq!(origin("daemon_name"), Origin::Flag("--daemon-name".into()));
    assert_eq!(origin("daemon_max_restarts"), Origin::Env("DAEMON_MAX_RESTARTS".into()));
    assert_eq!(origin("block_period"), Origin::File(case.path(), 3));
    assert_eq!(origin("daemon_shutdown_grace"), Origin::Default);
}

#[test]
fn every_problem_of_every_source_is_reported_with_its_place() {
    let file = "daemon_shutdwon_grace: 10m\n\
                daemon_max_restarts: many\n\
                daemon_poll_interval: 1ms\n\
                daemon_rpc_address:\n  - localhost:8545\n  - nonsense\n  - ftp://x\n\
                validator_mode: [true]\n\
                daemon_name: a\n\
                daemon_name: b\n";
    let case = Case::new(file)
        .env("DAEMON_RESTART_DELAY", "5")
        .env("DAEMON_VALIDATOR_MODE", "maybe")
        .flag("--block-period", "0s")
        .flag("--block-perio", "1s")
        .flag("--name", "a")
        .flag("--daemon-name", "a");
    let problems = case.problems();
    let starts = [
        "--block-perio: there is no such flag; did you mean --block-period?",
        "--daemon-name: it is given twice",
        "config.yaml:10: daemon_name is given twice, first in line 9",
        "config.yaml:1: there is no key daemon_shutdwon_grace; did you mean daemon_shutdown_grace?",
        "config.yaml:2: daemon_max_restarts: \"many\" is not a whole number",
        "config.yaml:3: daemon_poll_interval: 1ms is not between 100ms and 5m",
        "config.yaml:6: daemon_rpc_address: \"nonsense\"",
        "config.yaml:7: daemon_rpc_address: \"ftp://x\"",
        "config.yaml:8: validator_mode: expected one value, not a list",
        "DAEMON_RESTART_DELAY: \"5\" is not a duration",
        "DAEMON_VALIDATOR_MODE: \"maybe\"",
        "--block-period: 0s is not between 1ms and 1h",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for start in starts {
        assert!(problems.iter().any(|p| p.starts_with(start)), "{start}\nis not among {problems:#?}");
    }
}

#[test]
fn a_home_is_required_and_the_message_says_how_to_give_one() {
    let problems = Config::load(&Sources::default()).unwrap_err();
    assert_eq!(problems.to_string(), "daemon_home: it is not set; give --home DIR or set DAEMON_HOME");
}

#[test]
fn a_home_may_be_relative_only_as_a_flag() {
    let mut sources = Sources { cwd: "/cwd".into(), ..Sources::default() };
    sources.env.push(("DAEMON_HOME".into(), "rel".into()));
    assert!(Config::load(&sources).unwrap_err().to_string().contains("not an absolute path"));
    sources.env.clear();
    sources.flags.push(("--home".into(), "rel/".into()));
    assert_eq!(Config::load(&sources).unwrap().config.daemon_home, Path::new("/cwd/rel"));
}

#[test]
fn a_home_may_stand_in_a_file_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    fs::write(&file, "daemon_home: /h\ndaemon_preupgrade: hooks/pre\n").unwrap();
    let loaded = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.daemon_home, Path::new("/h"));
    assert_eq!(loaded.config.daemon_preupgrade.as_deref(), Some(Path::new("/h/hooks/pre")));
    assert_eq!(loaded.config.daemon_data_backup_dir, Path::new("/h/backups"));
}

#[test]
fn a_relative_path_is_below_the_home_unless_it_is_a_flag() {
    let case = Case::new("daemon_data_dir: d\n").flag("--daemon-preupgrade", "p");
    let config = case.load().config;
    assert_eq!(config.daemon_data_dir, Some(case.dir.path().join("d")));
    assert_eq!(config.daemon_preupgrade.as_deref(), Some(Path::new("/cwd/p")));
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let case = Case::new("");
    fs::remove_file(case.path()).unwrap();
    assert_eq!(case.load().file, None);
    let mut named = case;
    named.sources.file = Some("/nowhere/c.yaml".into());
    assert!(named.problems()[0].starts_with("/nowhere/c.yaml: cannot be read: "));
}

#[test]
fn a_file_that_is_too_large_or_no_file_is_a_problem() {
    let case = Case::new(&"#".repeat((1 << 20) + 1));
    assert_eq!(case.problems(), ["config.yaml: it is larger than 1 MiB"]);
    fs::remove_file(case.path()).unwrap();
    fs::create_dir(case.path()).unwrap();
    assert_eq!(case.problems(), ["config.yaml: cannot be read: it is not a regular file"]);
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let case = Case::new("");
    assert_eq!(case.load().warnings, []);
    case.load().check_trust().unwrap();
    fs::set_permissions(case.path(), fs::Permissions::from_mode(0o620)).unwrap();
    let said = "config.yaml: others than its owner may write it (mode 620); look at it, then chmod go-w it";
    let refused = case.load().check_trust().unwrap_err().to_string();
    assert!(refused.ends_with(said), "{refused}");
    assert!(case.load().check_disk(&[]).0.to_string().contains(said));
}

#[test]
fn variables_of_other_supervisors_work_or_are_explained() {
    let case = Case::new("")
        .env("UNSAFE_SKIP_BACKUP", "true")
        .env("DAEMON_GRPC_ADDRESS", "localhost:9090")
        .env("COSMOVISOR_CUSTOM_PREUPGRADE", "hook.sh")
        .env("DAEMON_SHUTDOWN_GARCE", "1m")
        .env("DAEMON_MAX_RESTARTS", "")
        .env("PATH", "/bin");
    let loaded = case.load();
    assert!(loaded.config.unsafe_skip_backup);
    assert_eq!(loaded.config.daemon_max_restarts, 5);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "DAEMON_GRPC_ADDRESS: there is no such variable, so it has no effect; the node is asked at DAEMON_RPC_ADDRESS",
            "COSMOVISOR_CUSTOM_PREUPGRADE: there is no such variable, so it has no effect; set DAEMON_PREUPGRADE to the path of the program",
            "DAEMON_SHUTDOWN_GARCE: there is no such variable, so it has no effect; did you mean DAEMON_SHUTDOWN_GRACE?",
            "UNSAFE_SKIP_BACKUP: unsafe_skip_backup: an upgrade is done without a backup of the data, so nothing leads back to data that only the old binary can open; back the data up yourself before each upgrade",
        ]
    );
    let both = case.env("DAEMON_UNSAFE_SKIP_BACKUP", "false");
    assert_eq!(
        both.problems(),
        ["DAEMON_UNSAFE_SKIP_BACKUP: its value differs from that of UNSAFE_SKIP_BACKUP"]
    );
}

#[test]
fn a_key_without_a_value_has_its_default() {
    let loaded = Case::new("daemon_name:\ndaemon_preupgrade: ~\n").load();
    assert_eq!(loaded.config.daemon_name.as_str(), "wemixd");
    assert_eq!(*loaded.origin("daemon_name"), Origin::Default);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_makes_it_panic(
        lines in proptest::collection::vec((0..KEYS.len(), "[-\\[\\]{}:,'\"a-z0-9 /\n&*!|>#]{0,20}"), 0..6)
    ) {
        let text: String = lines.iter().map(|(i, rest)| format!("{}: {rest}\n", KEYS[*i].name)).collect();
        let mut loader = Loader::default();
        let layer = loader.file(Path::new("c"), text.as_bytes());
        loader.apply(layer, Path::new("/"), &mut Config::defaults(Path::new("/")), &mut BTreeMap::new());
    }

    #[test]
    fn no_value_of_any_key_makes_it_panic(index in 0..KEYS.len(), text in "\\PC{0,40}") {
        let key = &KEYS[index];
        let layer = vec![(key, Origin::Flag(key.flag()), Raw::text(text))];
        Loader::default().apply(layer, Path::new("/"), &mut Config::defaults(Path::new("/")), &mut BTreeMap::new());
    }
}
