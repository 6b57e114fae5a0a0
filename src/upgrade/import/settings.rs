//! The settings of Cosmovisor and of the Go wemixvisor, and the keys that they become.
//!
//! A setting is taken where one of ours means the same, and where its value is one that ours may have. Every other one is
//! reported with the reason. Values are shown as `config show` shows them, without passwords.

use super::toml;
use crate::config::{KEYS, Key, keys};
use crate::time::show_duration;
use crate::upgrade::init::Line;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The settings that were found.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Those that are taken, by key.
    pub(super) values: Vec<(&'static Key, Value)>,
    /// The program that Cosmovisor runs before an upgrade, relative to its directory.
    pub(super) hook: Option<String>,
    /// Whether Cosmovisor takes the names of upgrades as they are; otherwise it makes them lower-case.
    pub(super) keeps_case: bool,
    /// The keys that a stronger source has decided, be it for the default.
    decided: Vec<&'static str>,
    /// Those that are taken and those that are not, for the operator.
    pub(super) lines: Vec<Line>,
}

/// A setting of another supervisor: its place, its key and its value.
struct Foreign {
    place: String,
    key: String,
    value: String,
}

/// The fate of a setting.
enum Fate {
    /// It is this key of ours.
    Key(&'static str),
    /// It is this key of ours, with these values for its own.
    Choice(&'static str, [(&'static str, &'static str); 2]),
    /// It is the port at which the node answers.
    Port,
    /// It names the program to run before an upgrade.
    Hook,
    /// It says whether names keep their case.
    Case,
    /// It is not taken: why.
    Left(&'static str),
}

const GIVEN: Fate = Fate::Left("it is given by DAEMON_HOME and DAEMON_NAME");
const OF_NODE: Fate = Fate::Left("it belongs to the node: give it behind `run --`");
const INVERSE: [(&str, &str); 2] = [("true", "false"), ("false", "true")];

/// The fates of settings, by the keys that the two programs have for them.
static FATES: &[(&[&str], Fate)] = &[
    (&["daemon_home", "home", "daemon.home", "daemon_name", "name", "daemon.name"], GIVEN),
    (
        &["daemon_allow_download_binaries", "allow_download_binaries", "daemon.allow_download_binaries"],
        Fate::Key("daemon_allow_download_binaries"),
    ),
    (
        &["daemon_restart_after_upgrade", "daemon.restart_after_upgrade"],
        Fate::Key("daemon_restart_after_upgrade"),
    ),
    (&["daemon_restart_delay", "restart_delay"], Fate::Key("daemon_restart_delay")),
    (&["daemon_restart_on_failure"], Fate::Key("daemon_restart_on_failure")),
    (&["daemon_max_restarts", "max_restarts"], Fate::Key("daemon_max_restarts")),
    (&["daemon_shutdown_grace", "shutdown_grace"], Fate::Key("daemon_shutdown_grace")),
    (&["daemon_poll_interval"], Fate::Key("daemon_poll_interval")),
    (&["unsafe_skip_backup", "daemon.unsafe_skip_backup"], Fate::Key("unsafe_skip_backup")),
    (&["auto_backup", "backup.enabled"], Fate::Choice("unsafe_skip_backup", INVERSE)),
    (&["daemon_data_backup_dir", "backup.dir"], Fate::Key("daemon_data_backup_dir")),
    (&["backup.max_backups"], Fate::Key("daemon_backup_keep")),
    (&["daemon_preupgrade_max_retries"], Fate::Key("daemon_preupgrade_max_retries")),
    (&["pre_upgrade_timeout"], Fate::Key("daemon_preupgrade_timeout")),
    (&["daemon.pre_upgrade"], Fate::Key("daemon_preupgrade")),
    (&["cosmovisor_custom_preupgrade"], Fate::Hook),
    (&["cosmovisor_disable_recase"], Fate::Case),
    (&["daemon_rpc_address", "node.rpc_address"], Fate::Key("daemon_rpc_address")),
    (&["daemon_rpc_port", "rpc_port"], Fate::Port),
    (&["rpc_addr"], Fate::Left("the node is asked at localhost and the port")),
    (&["data_dir"], Fate::Key("daemon_data_dir")),
    (&["validator_mode"], Fate::Key("validator_mode")),
    (&["unsafe_skip_checksum"], Fate::Key("unsafe_skip_checksum")),
    (&["log_level", "logging.level"], Fate::Key("log_level")),
    (&["log_format"], Fate::Key("log_format")),
    (&["logging.json"], Fate::Choice("log_format", [("true", "json"), ("false", "text")])),
    (
        &["cosmovisor_color_logs", "logging.color"],
        Fate::Choice("log_color", [("true", "auto"), ("false", "never")]),
    ),
    (&["cosmovisor_disable_logs"], Fate::Choice("log_level", [("true", "error"), ("false", "info")])),
    (&["daemon_debug", "debug"], Fate::Choice("log_level", [("true", "debug"), ("false", "info")])),
    (
        &["cosmovisor_timeformat_logs", "log_time_format"],
        Fate::Left("times in the log are always those of RFC 3339"),
    ),
    (&["daemon_download_must_have_checksum"], Fate::Left("a checksum is always required")),
    (
        &["daemon_grpc_address", "node.grpc_address", "node.api_address"],
        Fate::Left("the node is asked over IPC, and at daemon_rpc_address"),
    ),
    (
        &["network_id", "chain_id", "rpc_apis", "ws_addr", "ws_port", "ws_apis", "p2p_port", "bootnodes"],
        OF_NODE,
    ),
    (&["max_peers", "validator_key", "extra_flags", "daemon_environment", "daemon_network"], OF_NODE),
];

impl Settings {
    /// Reads the settings of a file, shown as `file`, and of the environment, which is the stronger one.
    pub(super) fn read(
        home: &Path,
        file: Option<(&str, &str)>,
        env: &[(OsString, OsString)],
        program: Program,
    ) -> Settings {
        let mut settings = Settings::default();
        let mut urls = Map::new();
        for foreign in env.iter().filter_map(of_env) {
            settings.take(home, &foreign, program);
        }
        for setting in file.iter().flat_map(|(_, text)| toml::read(text)) {
            let (place, _) = file.unwrap_or_default();
            let place = format!("{place}:{}", setting.line);
            let Some(value) = setting.value else {
                settings.left(&place, &setting.key, "this line is not understood");
                continue;
            };
            let foreign = Foreign { place, key: setting.key, value };
            match foreign.key.strip_prefix("download_urls.") {
                Some(name) => settings.url(home, &foreign, name, &mut urls),
                None => settings.take(home, &foreign, program),
            }
        }
        if !urls.is_empty() {
            settings.values.push((key("download_urls"), Value::Object(urls)));
        }
        settings
    }

    fn take(&mut self, home: &Path, foreign: &Foreign, program: Program) {
        let known = FATES.iter().find(|(names, _)| names.contains(&&*foreign.key)).map(|(_, fate)| fate);
        match known {
            Some(Fate::Key(name)) => self.set(home, foreign, name, &foreign.value),
            Some(Fate::Choice(name, values)) => {
                match values.iter().find(|(theirs, _)| foreign.value.eq_ignore_ascii_case(theirs)) {
                    Some((_, ours)) => self.set(home, foreign, name, ours),
                    None => self.left(&foreign.place, &foreign.key, "it is neither true nor false"),
                }
            }
            Some(Fate::Port) => {
                self.set(home, foreign, "daemon_rpc_address", &format!("localhost:{}", foreign.value));
            }
            Some(Fate::Hook) if foreign.value.is_empty() => {
                self.left(&foreign.place, &foreign.key, "it is empty");
            }
            Some(Fate::Hook) if program == Program::Cosmovisor => {
                // The one of the environment was read first.
                self.hook.get_or_insert_with(|| foreign.value.clone());
            }
            Some(Fate::Hook) => self.set(home, foreign, "daemon_preupgrade", &foreign.value),
            Some(Fate::Case) => {
                self.keeps_case |= foreign.value.eq_ignore_ascii_case("true");
                self.left(&foreign.place, &foreign.key, "names of upgrades are always taken to the letter");
            }
            Some(Fate::Left(why)) => self.left(&foreign.place, &foreign.key, why),
            None => match KEYS.iter().find(|key| key.name == foreign.key) {
                Some(key) => self.set(home, foreign, key.name, &foreign.value),
                None => self.left(&foreign.place, &foreign.key, "there is no such setting here"),
            },
        }
    }

    /// Takes a value for a key of ours, unless that has one or cannot have this one.
    fn set(&mut self, home: &Path, foreign: &Foreign, name: &str, value: &str) {
        let (place, key) = (&foreign.place, key(name));
        let value = if key.kind == "duration" { duration(value) } else { value.to_owned() };
        if self.decided.contains(&key.name) {
            return self.left(place, &foreign.key, &format!("{name} has a value already"));
        }
        if is_default_of_cosmovisor(home, name, &value) {
            return self.left(
                place,
                &foreign.key,
                &format!("it is the default there; here it is {}", key.default),
            );
        }
        let read = key.try_value(&value, home);
        if read.is_ok() {
            self.decided.push(key.name);
        }
        match read {
            Ok(shown) if key.try_value(key.default, home).as_ref() == Ok(&shown) => {
                self.left(place, &foreign.key, "it is the default here");
            }
            Ok(shown) => {
                let shown =
                    shown.as_str().map_or_else(|| shown.to_string(), |text| text.escape_debug().to_string());
                self.lines.push(Line::Taken(format!("{place}: {} as {name}: {shown}", foreign.key)));
                self.values.push((key, json!(value)));
            }
            Err(why) => self.left(place, &foreign.key, &format!("{name}: {why}")),
        }
    }

    /// Takes the URL of one upgrade.
    fn url(&mut self, home: &Path, foreign: &Foreign, name: &str, urls: &mut Map<String, Value>) {
        let name = name.trim_matches(['"', '\'']);
        match key("download_urls").try_value(&format!("{name}={}", foreign.value), home) {
            Ok(shown) => {
                self.lines.push(Line::Taken(format!(
                    "{}: {} as download_urls: {shown}",
                    foreign.place, foreign.key
                )));
                urls.insert(name.to_owned(), json!(foreign.value));
            }
            Err(why) => self.left(&foreign.place, &foreign.key, &format!("download_urls: {why}")),
        }
    }

    fn left(&mut self, place: &str, key: &str, why: &str) {
        self.lines.push(Line::Left(format!("{place}: {}: {why}", key.escape_debug())));
    }
}

/// The program that has laid out the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Cosmovisor,
    Go,
}

fn key(name: &str) -> &'static Key {
    keys::named(name).expect("the table names keys of ours")
}

/// The settings of the environment that other supervisors read, and our own, which the next environment may lack.
fn of_env((name, value): &(OsString, OsString)) -> Option<Foreign> {
    let (name, value) = (name.to_str()?, value.to_str()?);
    let is_ours = |key: &&Key| key.env() == name || key.other_env == Some(name);
    let ours = KEYS.iter().find(is_ours).map(|key| key.name.to_owned());
    let is_theirs = ["COSMOVISOR_", "DAEMON_"].iter().any(|prefix| name.starts_with(prefix));
    let key = ours.or_else(|| is_theirs.then(|| name.to_ascii_lowercase()))?;
    let is_given = ["daemon_home", "daemon_name"].contains(&&*key);
    (!is_given && !value.is_empty()).then(|| Foreign { place: name.to_owned(), key, value: value.to_owned() })
}

/// A duration, which the Go programs save as nanoseconds, sometimes with an exponent.
fn duration(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(nanos) if nanos >= 0.0 => show_duration(Duration::from_nanos(nanos as u64)),
        _ => value.to_owned(),
    }
}

/// Cosmovisor writes all its settings into its file: no operator has chosen these values.
fn is_default_of_cosmovisor(home: &Path, name: &str, value: &str) -> bool {
    match name {
        "daemon_poll_interval" => value == "300ms",
        "daemon_shutdown_grace" => value == "0s",
        "daemon_data_backup_dir" => Path::new(value) == home,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn read(file: &str, env: &[(&str, &str)], program: Program) -> Settings {
        let env: Vec<_> = env.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect();
        Settings::read(Path::new("/srv"), Some(("config.toml", file)), &env, program)
    }

    fn shown(settings: &Settings) -> String {
        let lines = settings.lines.iter().map(|line| format!("{line}\n"));
        let values = settings.values.iter().map(|(key, value)| format!("{}: {value}\n", key.name));
        lines.chain(values).collect()
    }

    #[test]
    fn every_setting_of_cosmovisor_is_taken_or_reported() {
        let file = "daemon_home = '/srv'\ndaemon_name = 'node'\ndaemon_allow_download_binaries = true\n\
            daemon_download_must_have_checksum = false\ndaemon_restart_after_upgrade = false\ndaemon_restart_delay = 0\n\
            daemon_shutdown_grace = 45000000000\ndaemon_poll_interval = 300000000\nunsafe_skip_backup = true\n\
            daemon_data_backup_dir = '/srv'\ndaemon_preupgrade_max_retries = 3\ndaemon_grpc_address = 'localhost:9090'\n\
            cosmovisor_disable_logs = false\ncosmovisor_color_logs = false\ncosmovisor_timeformat_logs = 'kitchen'\n\
            cosmovisor_custom_preupgrade = 'preupgrade.sh'\ncosmovisor_disable_recase = true\nwrong = { }\n";
        let env = [
            ("DAEMON_HOME", "/srv"),
            ("DAEMON_PREUPGRADE_MAX_RETRIES", "7"),
            ("DAEMON_LOG_BUFFER_SIZE", "512"),
            ("COSMOVISOR_COLOR_LOGS", "true"),
            ("DAEMON_DOWNLOAD_PROXY", "http://u:secret@127.0.0.1:9"),
            ("PATH", "/bin"),
        ];
        let settings = read(file, &env, Program::Cosmovisor);
        assert_eq!((settings.hook.as_deref(), settings.keeps_case), (Some("preupgrade.sh"), true));
        expect![[r#"
            taken DAEMON_PREUPGRADE_MAX_RETRIES: daemon_preupgrade_max_retries as daemon_preupgrade_max_retries: 7
            left  DAEMON_LOG_BUFFER_SIZE: daemon_log_buffer_size: there is no such setting here
            left  COSMOVISOR_COLOR_LOGS: cosmovisor_color_logs: it is the default here
            taken DAEMON_DOWNLOAD_PROXY: download_proxy as download_proxy: http://***@127.0.0.1:9
            left  config.toml:1: daemon_home: it is given by DAEMON_HOME and DAEMON_NAME
            left  config.toml:2: daemon_name: it is given by DAEMON_HOME and DAEMON_NAME
            taken config.toml:3: daemon_allow_download_binaries as daemon_allow_download_binaries: true
            left  config.toml:4: daemon_download_must_have_checksum: a checksum is always required
            taken config.toml:5: daemon_restart_after_upgrade as daemon_restart_after_upgrade: false
            left  config.toml:6: daemon_restart_delay: it is the default here
            taken config.toml:7: daemon_shutdown_grace as daemon_shutdown_grace: 45s
            left  config.toml:8: daemon_poll_interval: it is the default there; here it is 5s
            taken config.toml:9: unsafe_skip_backup as unsafe_skip_backup: true
            left  config.toml:10: daemon_data_backup_dir: it is the default there; here it is backups
            left  config.toml:11: daemon_preupgrade_max_retries: daemon_preupgrade_max_retries has a value already
            left  config.toml:12: daemon_grpc_address: the node is asked over IPC, and at daemon_rpc_address
            left  config.toml:13: cosmovisor_disable_logs: it is the default here
            left  config.toml:14: cosmovisor_color_logs: log_color has a value already
            left  config.toml:15: cosmovisor_timeformat_logs: times in the log are always those of RFC 3339
            left  config.toml:17: cosmovisor_disable_recase: names of upgrades are always taken to the letter
            left  config.toml:18: wrong: this line is not understood
            daemon_preupgrade_max_retries: "7"
            download_proxy: "http://u:secret@127.0.0.1:9"
            daemon_allow_download_binaries: "true"
            daemon_restart_after_upgrade: "false"
            daemon_shutdown_grace: "45s"
            unsafe_skip_backup: "true"
        "#]].assert_eq(&shown(&settings));
    }

    #[test]
    fn every_setting_of_the_go_wemixvisor_is_taken_or_reported() {
        let file = "home = '/srv'\nmax_restarts = 10.0\nmax_restarts = 10\nrestart_delay = 2e+09\nauto_backup = true\n\
            log_level = 'warn'\nrpc_port = 8588\nrpc_addr = '127.0.0.1'\nvalidator_mode = true\nchain_id = '1111'\n\
            bootnodes = [\n 'enode://x'\n]\n[daemon]\nname = 'node'\n[download_urls]\ndefault = 'https://u:secret@x/{name}'\n\
            'v2.1' = 'ftp://x'\n[backup]\nenabled = false\n[monitoring]\nenable_api = true\n";
        expect![[r#"
            left  config.toml:1: home: it is given by DAEMON_HOME and DAEMON_NAME
            left  config.toml:2: max_restarts: daemon_max_restarts: "10.0" is not a whole number
            taken config.toml:3: max_restarts as daemon_max_restarts: 10
            taken config.toml:4: restart_delay as daemon_restart_delay: 2s
            left  config.toml:5: auto_backup: it is the default here
            taken config.toml:6: log_level as log_level: warn
            taken config.toml:7: rpc_port as daemon_rpc_address: ["http://localhost:8588"]
            left  config.toml:8: rpc_addr: the node is asked at localhost and the port
            taken config.toml:9: validator_mode as validator_mode: true
            left  config.toml:10: chain_id: it belongs to the node: give it behind `run --`
            left  config.toml:11: bootnodes: this line is not understood
            left  config.toml:15: daemon.name: it is given by DAEMON_HOME and DAEMON_NAME
            taken config.toml:17: download_urls.default as download_urls: {"default":["https://***@x/{name}"]}
            left  config.toml:18: download_urls.v2.1: download_urls: "ftp://x" is not a URL: the scheme ftp is not one of http, https
            left  config.toml:20: backup.enabled: unsafe_skip_backup has a value already
            left  config.toml:22: monitoring.enable_api: there is no such setting here
            daemon_max_restarts: "10"
            daemon_restart_delay: "2s"
            log_level: "warn"
            daemon_rpc_address: "localhost:8588"
            validator_mode: "true"
            download_urls: {"default":"https://u:secret@x/{name}"}
        "#]].assert_eq(&shown(&read(file, &[], Program::Go)));
    }
}
