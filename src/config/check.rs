//! Problems that no single value shows: combinations that are unsafe, directories in each other, files missing.
//!
//! Combinations are checked at every load. What is on the disk is looked at only by `run` and
//! `config check`, because `status` must work on a home that is broken.

use super::keys::Config;
use super::load::Loaded;
use super::problem::{Problem, Problems};
use super::value::{BackupMethod, HeightSource, SignAfterUnclean, StopTimeoutAction};
use crate::flags::{is_on, value_of};
use crate::home::{fit, regular, trust};
use crate::url::redact;
use crate::wbft::Endpoint;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The largest file of certificates that is read.
const MAX_PEM: u64 = 4 << 20;

/// Reports combinations of values that are unsafe or make no sense.
pub(super) fn combinations(loaded: &mut Loaded, problems: &mut Problems) {
    let config = &loaded.config;
    let at = |name: &str, what: &str| Problem::new(loaded.origin(name), format!("{name}: {what}"));
    if config.validator_mode && config.unsafe_skip_checksum {
        problems.add(at("unsafe_skip_checksum", "a validator must not run what nothing vouches for"));
    }
    if config.validator_mode && config.daemon_height_source == HeightSource::None {
        let blind = at("daemon_height_source", "validator_mode needs the height");
        problems.add(blind.hint("set it to rpc"));
    }
    let mirrors = config.download_urls.by_name.values().flatten().chain(&config.download_urls.default);
    let is_plain = |url: &&String| url.get(..6).is_none_or(|scheme| !scheme.eq_ignore_ascii_case("https:"));
    for url in mirrors.filter(|url| config.daemon_download_require_https && is_plain(url)) {
        let plain = at("download_urls", &format!("daemon_download_require_https forbids {}", redact(url)));
        problems.add(plain);
    }

    let public = config.metrics_address.filter(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = public.filter(|_| !config.unsafe_metrics_public) {
        let open = at("metrics_address", &format!("other hosts can reach {address}"));
        problems.add(open.hint("use 127.0.0.1, or allow it with unsafe_metrics_public"));
    }
    if config.metrics_textfile.as_ref().is_some_and(|path| path.extension().is_none_or(|end| end != "prom")) {
        problems
            .add(at("metrics_textfile", "only a file whose name ends in .prom is replaced, and collected"));
    }

    let mut warnings = Vec::new();
    if public.is_some() {
        let what = "every host that reaches metrics_address sees when this node will stop";
        warnings.push(at("unsafe_metrics_public", what));
    }
    if config.validator_mode && config.daemon_stop_timeout_action == StopTimeoutAction::Kill {
        let what = "killing a validator rewinds it by minutes to hours of blocks, and it may vote twice";
        warnings.push(at("daemon_stop_timeout_action", what).hint("wait is the safe choice"));
    }
    if config.unsafe_skip_checksum {
        let what = match config.download_public_keys.is_empty() {
            true => "downloads are installed although nothing vouches for them",
            false => "it has no effect: with download_public_keys a signature is always required",
        };
        warnings.push(at("unsafe_skip_checksum", what));
    }
    for (is_set, name) in [
        (config.unsafe_skip_backup, "unsafe_skip_backup"),
        (config.daemon_backup_method == BackupMethod::None, "daemon_backup_method"),
    ] {
        let what = "an upgrade is done without a backup of the data, so nothing leads back to data that only the old \
                    binary can open";
        warnings.extend(is_set.then(|| at(name, what).hint("back the data up yourself before each upgrade")));
    }
    loaded.warnings.extend(warnings);
}

impl Config {
    /// Whether a silent node that runs with these arguments can be ordered to seal. Over its IPC socket it can; over
    /// HTTP the method for it is not served by default.
    pub fn can_be_told_to_seal(&self, node_args: &[OsString]) -> bool {
        !is_on(node_args, "ipcdisable")
            || self.daemon_rpc_address.iter().any(|address| !matches!(address, Endpoint::Http(_)))
    }

    /// The node's data directory: `daemon_data_dir`, otherwise the last `--datadir` among the node's arguments, otherwise
    /// `data` in the home.
    pub fn data_dir(&self, node_args: &[OsString]) -> PathBuf {
        self.daemon_data_dir
            .clone()
            .or_else(|| datadir_of(node_args))
            .unwrap_or_else(|| self.daemon_home.join("data"))
    }

    /// Checks the directories against each other, for `run` with these arguments for the node.
    ///
    /// # Errors
    /// If the node would work on another data directory than wemixvisor, or backups would land in the data.
    pub fn check_dirs(&self, node_args: &[OsString]) -> Result<(), Problems> {
        let mut problems = Problems::default();
        if let (Some(ours), Some(theirs)) = (&self.daemon_data_dir, datadir_of(node_args))
            && *ours != theirs
        {
            let what =
                format!("it is {}, but the node is told --datadir {}", ours.display(), theirs.display());
            problems.add(Problem::new("daemon_data_dir", what).hint("leave one of them out"));
        }
        let data = self.data_dir(node_args);
        if self.daemon_data_backup_dir.starts_with(&data) {
            let what = format!(
                "{} lies in the data directory {}, so every backup would hold the ones before",
                self.daemon_data_backup_dir.display(),
                data.display()
            );
            problems.add(Problem::new("daemon_data_backup_dir", what).hint("move one of them"));
        }
        if data.starts_with(&self.daemon_data_backup_dir) {
            let what = format!("{} lies in the directory for backups", data.display());
            problems.add(Problem::new("daemon_data_dir", what).hint("move one of them"));
        }
        problems.into_result()
    }
}

impl Loaded {
    /// Checks the values against these arguments for the node: problems first, then warnings.
    pub fn check_args(&self, node_args: &[OsString]) -> (Problems, Vec<Problem>) {
        let config = &self.config;
        let (mut problems, mut warnings) = (Problems::default(), Vec::new());
        // Over HTTP the node serves by default neither the orders nor all of the questions.
        if !config.validator_mode || config.can_be_told_to_seal(node_args) {
            return (problems, warnings);
        }
        // A silent node could never be ordered to seal, and one that signs at once may contradict itself: only
        // the operator may take that risk.
        if config.sign_after_unclean == SignAfterUnclean::Wait {
            let what = "sign_after_unclean: it is wait, but the node runs with --ipcdisable and cannot be ordered to seal \
                        over HTTP";
            let hint = "leave --ipcdisable out, or set it to now and accept that the validator may contradict itself \
                        after an unclean stop";
            problems.add(Problem::new(self.origin("sign_after_unclean"), what).hint(hint));
        }
        if config.validator_address.is_none() {
            let what = "validator_address: it is not set, and the node runs with --ipcdisable: over HTTP it reports its \
                        address only where it serves `istanbul` or `eth`, and without the address there is no turn";
            let hint = "set validator_address, or leave --ipcdisable out";
            warnings.push(Problem::new(self.origin("validator_address"), what).hint(hint));
        }
        (problems, warnings)
    }

    /// Refuses a file of configuration that another user could have written, since it decides what is executed. Commands
    /// that execute nothing of it work all the same: a node that runs can be looked at and stopped.
    ///
    /// # Errors
    /// With the owner or the mode.
    pub fn check_trust(&self) -> Result<(), Problems> {
        let fault = |path: &PathBuf| {
            let (what, hint) = trust::fault(&fs::metadata(path).ok()?, path.parent().unwrap_or(path))?;
            Some(Problem::new(path.display(), what).hint(hint))
        };
        let mut problems = Problems::default();
        self.file.iter().filter_map(fault).for_each(|problem| problems.add(problem));
        problems.into_result()
    }

    /// Looks at what the values and these arguments for the node name on the disk: problems first, then warnings.
    pub fn check_disk(&self, node_args: &[OsString]) -> (Problems, Vec<Problem>) {
        let config = &self.config;
        let mut problems = self.check_trust().err().unwrap_or_default();
        let mut warnings = Vec::new();
        let at = |name: &str, what: String| Problem::new(self.origin(name), format!("{name}: {what}"));

        if !config.daemon_home.is_dir() {
            let missing = at("daemon_home", format!("{} is not a directory", config.daemon_home.display()));
            problems.add(missing.hint("lay it out with: wemixvisor init BINARY"));
        } else if !config.daemon_home.join("wemixvisor/current").exists() {
            let what = format!("{} has no wemixvisor/current yet", config.daemon_home.display());
            warnings.push(at("daemon_home", what).hint("lay it out with: wemixvisor init BINARY"));
        }
        for unfit in fit::check(&config.daemon_home, &config.data_dir(node_args)) {
            problems.add(Problem::new(unfit.path.display(), unfit.what).hint(unfit.hint));
        }
        if let Some((path, why)) =
            config.daemon_preupgrade.as_ref().and_then(|p| Some((p, not_executable(p)?)))
        {
            problems.add(at("daemon_preupgrade", format!("{}: {why}", path.display())));
        }
        // Neither is a reason to leave a node down.
        for (name, path) in [
            ("daemon_postupgrade", config.daemon_postupgrade.as_deref()),
            ("notify_command", config.notify_command.program()),
        ] {
            let unfit = |path: &Path| not_executable(path).or_else(|| self.untrusted(path));
            if let Some((path, why)) = path.and_then(|path| Some((path, unfit(path)?))) {
                warnings.push(
                    at(name, format!("{}: {why}", path.display())).hint("it is not run until that is mended"),
                );
            }
        }
        let dir = config.metrics_textfile.as_ref().and_then(|path| path.parent());
        if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
            warnings.push(at("metrics_textfile", format!("{} is not a directory yet", dir.display())));
        }
        if let Some(path) = &config.download_ca_file {
            match regular::read(path, MAX_PEM) {
                Ok(pem) if contains(&pem, b"-----BEGIN CERTIFICATE-----") => {}
                Ok(_) => {
                    problems.add(at("download_ca_file", format!("{} has no PEM certificate", path.display())))
                }
                Err(e) => problems.add(at("download_ca_file", format!("{}: {e}", path.display()))),
            }
        }
        let data = config.data_dir(node_args);
        if !config.unsafe_skip_backup && fit::is_mount_point(&data).unwrap_or(false) {
            let what = format!("{} is a mount point, so no backup can be put in its place", data.display());
            warnings
                .push(at("daemon_data_dir", what).hint("keep the data in a directory below the mount point"));
        }
        if let Some(path) = config.daemon_data_dir.as_ref().filter(|path| !path.is_dir()) {
            warnings.push(at("daemon_data_dir", format!("{} is not a directory yet", path.display())));
        }
        (problems, warnings)
    }

    /// Why a program is not executed though it could be.
    fn untrusted(&self, path: &Path) -> Option<String> {
        trust::fault(&fs::metadata(path).ok()?, &self.config.daemon_home).map(|(what, _)| what)
    }
}

fn not_executable(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Some("it is not a regular file".to_owned()),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Some("it is not executable".to_owned()),
        Ok(_) => None,
        Err(e) => Some(e.to_string()),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The data directory that the node's own arguments name. `~/` is the home of the user even where no shell has replaced it.
fn datadir_of(node_args: &[OsString]) -> Option<PathBuf> {
    let path = Path::new(value_of(node_args, "datadir").filter(|value| !value.is_empty())?);
    let path = match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    };
    // The node is started in our working directory.
    Some(std::path::absolute(&path).unwrap_or(path).components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn load(home: &Path, flags: &[(&str, &str)]) -> Result<Loaded, Problems> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let mut flags: Vec<_> = flags.iter().map(own).collect();
        flags.push(("--home".to_owned(), home.to_str().unwrap().to_owned()));
        Config::load(&Sources { flags, cwd: "/".into(), ..Sources::default() })
    }

    fn args(words: &str) -> Vec<OsString> {
        words.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_data_directory_is_the_one_the_node_will_use() {
        let config = Config::defaults(Path::new("/h"));
        for (words, dir) in [
            ("", "/h/data"),
            ("--datadir /x/ --mine", "/x"),
            ("--mine --datadir=/x", "/x"),
            ("-datadir /x", "/x"),
            ("-datadir=/x", "/x"),
            ("--datadir /x --datadir=/y", "/y"),
            ("-- --datadir /x", "/h/data"),
            ("--datadir", "/h/data"),
            ("--datadir=", "/h/data"),
            ("--datadir.ancient /x", "/h/data"),
            ("datadir /x", "/h/data"),
        ] {
            assert_eq!(config.data_dir(&args(words)), Path::new(dir), "{words:?}");
        }
        let set = Config { daemon_data_dir: Some("/z".into()), ..config };
        assert_eq!(set.data_dir(&args("--datadir /x")), Path::new("/z"));
        assert!(set.data_dir(&[]).is_absolute());
    }

    #[test]
    fn directories_that_would_swallow_each_other_are_refused() {
        let config = Config::defaults(Path::new("/h"));
        config.check_dirs(&args("--datadir /h/data")).unwrap();
        let inside = config.check_dirs(&args("--datadir /h")).unwrap_err().to_string();
        assert!(
            inside.starts_with("daemon_data_backup_dir: /h/backups lies in the data directory"),
            "{inside}"
        );
        config.check_dirs(&args("--datadir /h/backups/data")).unwrap_err();
        let set = Config { daemon_data_dir: Some("/z".into()), ..config };
        let apart = set.check_dirs(&args("--datadir /x")).unwrap_err().to_string();
        assert_eq!(
            apart,
            "daemon_data_dir: it is /z, but the node is told --datadir /x; leave one of them out"
        );
    }

    #[test]
    fn a_validator_takes_no_risks() {
        let home = Path::new("/h");
        let validator = ("--validator-mode", "true");
        let refused = load(home, &[validator, ("--unsafe-skip-checksum", "true")]).unwrap_err();
        assert!(refused.to_string().starts_with("--unsafe-skip-checksum: "), "{refused}");
        load(home, &[validator, ("--daemon-height-source", "none")]).unwrap_err();
        let killer = load(home, &[validator, ("--daemon-stop-timeout-action", "kill")]).unwrap();
        assert_eq!(killer.warnings.len(), 1);
        assert!(load(home, &[validator]).unwrap().warnings.is_empty());
        assert_eq!(load(home, &[("--unsafe-skip-checksum", "true")]).unwrap().warnings.len(), 1);
    }

    #[test]
    fn metrics_are_for_this_host_and_for_files_of_metrics() {
        let outcome =
            |flags: &[(&str, &str)]| load(Path::new("/h"), flags).map(|loaded| loaded.warnings.len());
        for address in ["127.0.0.1:9464", "127.8.8.8:1", "[::1]:9464", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(outcome(&[("--metrics-address", address)]), Ok(0), "{address}");
        }
        for address in ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[::ffff:10.0.0.1]:1"] {
            let refused = outcome(&[("--metrics-address", address)]).unwrap_err().to_string();
            assert!(refused.contains("or allow it with unsafe_metrics_public"), "{refused}");
            let allowed = [("--metrics-address", address), ("--unsafe-metrics-public", "true")];
            assert_eq!(outcome(&allowed), Ok(1));
        }
        for nonsense in ["localhost:9464", "127.0.0.1", ":9464", "127.0.0.1:99999"] {
            outcome(&[("--metrics-address", nonsense)]).unwrap_err();
        }
        assert_eq!(outcome(&[("--metrics-textfile", "/x/a.prom")]), Ok(0));
        for other in ["/x/config.yaml", "/x/a", "/x/.prom"] {
            outcome(&[("--metrics-textfile", other)]).unwrap_err();
        }
    }

    #[test]
    fn to_do_without_backups_is_warned_of_however_it_is_said() {
        for (flag, value) in [("--unsafe-skip-backup", "true"), ("--daemon-backup-method", "none")] {
            let warnings = load(Path::new("/h"), &[(flag, value)]).unwrap().warnings;
            assert!(
                warnings.len() == 1 && warnings[0].to_string().contains("without a backup"),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn a_validator_that_cannot_be_ordered_to_seal_is_refused_unless_the_operator_takes_the_risk() {
        let home = Path::new("/h");
        let validator = ("--validator-mode", "true");
        let count = |flags: &[(&str, &str)], words| {
            let loaded = load(home, flags).unwrap();
            assert!(loaded.warnings.is_empty());
            let (problems, warnings) = loaded.check_args(&args(words));
            (problems.0.len(), warnings.len())
        };
        // The socket is used whatever the addresses are, unless the node opens none.
        let http = ("--daemon-rpc-address", "localhost:8545");
        for (words, found) in [
            ("--mine", (0, 0)),
            ("--ipcdisable", (1, 1)),
            ("-ipcdisable=true", (1, 1)),
            ("--ipcdisable=false", (0, 0)),
            ("--ipcdisable --ipcdisable=0", (0, 0)),
            ("--ipcdisabled", (0, 0)),
            ("-- --ipcdisable", (0, 0)),
        ] {
            assert_eq!(count(&[validator, http], words), found, "{words}");
            let socket = ("--daemon-rpc-address", "localhost:8545,/x/node.ipc");
            assert_eq!(count(&[validator, socket], words), (0, 0), "{words}");
        }
        let accepted = ("--sign-after-unclean", "now");
        let known = ("--validator-address", "0x0101010101010101010101010101010101010101");
        assert_eq!(count(&[validator, accepted], "--ipcdisable"), (0, 1));
        assert_eq!(count(&[validator, known], "--ipcdisable"), (1, 0));
        assert_eq!(count(&[validator, accepted, known], "--ipcdisable"), (0, 0));
        assert_eq!(count(&[http], "--ipcdisable"), (0, 0), "no validator");
        let waits = [validator, ("--sign-after-unclean", "wait")];
        let (refused, _) = load(home, &waits).unwrap().check_args(&args("--ipcdisable"));
        let text = refused.to_string();
        assert!(
            text.starts_with("--sign-after-unclean: ") && text.contains("leave --ipcdisable out"),
            "{text}"
        );
    }

    #[test]
    fn https_only_means_every_mirror() {
        let flags = [
            ("--daemon-download-require-https", "true"),
            ("--download-urls", "http://u:secret@a/x,HTTPS://b/x,v2=http://c/x"),
        ];
        let problems = load(Path::new("/h"), &flags).unwrap_err();
        assert_eq!(problems.0.len(), 2);
        assert!(!problems.to_string().contains("secret"), "{problems}");
    }

    #[test]
    fn what_is_missing_on_the_disk_is_reported_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "no program, no certificate").unwrap();
        let plain = plain.to_str().unwrap();
        let flags = [
            ("--daemon-preupgrade", plain),
            ("--download-ca-file", plain),
            ("--daemon-data-dir", "/nowhere"),
        ];
        let (problems, warnings) = load(dir.path(), &flags).unwrap().check_disk(&[]);
        assert_eq!((problems.0.len(), warnings.len()), (2, 2), "{problems} {warnings:?}");
        // A node does not stay down for these.
        let lost = [
            ("--daemon-postupgrade", plain),
            ("--notify-command", "/nowhere/notify"),
            ("--metrics-textfile", "/nowhere/a.prom"),
        ];
        let (problems, warnings) = load(dir.path(), &lost).unwrap().check_disk(&[]);
        assert_eq!((problems.0.len(), warnings.len()), (0, 4), "{problems} {warnings:?}");
        let open = dir.path().join("open");
        fs::write(&open, "#!/bin/sh\n").unwrap();
        for (mode, count) in [(0o755, 1), (0o775, 2)] {
            fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
            let loaded = load(dir.path(), &[("--notify-command", open.to_str().unwrap())]).unwrap();
            assert_eq!(loaded.check_disk(&[]).1.len(), count, "{mode:o}");
        }
        let (problems, _) = load(Path::new("/nowhere"), &[]).unwrap().check_disk(&[]);
        assert!(problems.to_string().ends_with("wemixvisor init BINARY"), "{problems}");
    }
}
