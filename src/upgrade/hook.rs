//! The hooks of an upgrade: `pre-upgrade` while the node is down, `post-upgrade` when it is done.
//!
//! A hook says what is to happen by its exit code, as Cosmovisor's does: 0 go on, 30 keep the old
//! binary, 31 run me again, anything else is a failure. How often it is run again is the machine's business.

use super::run::{End, Program, run};
use super::{Cancel, classify};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::{Class, Failure, HookEnd};
use crate::name::Name;
use log::info;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ABORT: i32 = 30;
const RETRY: i32 = 31;
const GRACE: Duration = Duration::from_secs(10);
/// No more lines of a hook's output than this are logged.
const SHOWN: usize = 100;

/// The upgrade that a hook runs for.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// `UPGRADE_NAME`.
    pub name: &'a Name,
    /// `UPGRADE_HEIGHT`.
    pub height: u64,
    /// `UPGRADE_INFO`, empty if there is none.
    pub info: Option<&'a str>,
}

/// The pre-upgrade hook that belongs to an upgrade: its own, else the configured one.
#[must_use]
pub fn pre_upgrade(home: &Home, name: &Name, configured: Option<&Path>) -> Option<PathBuf> {
    let own = home.pre_upgrade(name);
    // Something that is there but cannot run fails later, instead of being passed over here.
    let is_there = fs::symlink_metadata(&own).is_ok();
    is_there.then_some(own).or_else(|| configured.map(Path::to_owned))
}

/// The post-upgrade hook of an upgrade.
#[must_use]
pub fn post_upgrade(home: &Home, name: &Name) -> Option<PathBuf> {
    Some(home.post_upgrade(name)).filter(|path| fs::symlink_metadata(path).is_ok())
}

/// Runs a hook for at most `timeout`, writes its output to the log, and says what it wants.
pub fn call(hook: &Path, home: &Home, occasion: Occasion<'_>, timeout: Duration, cancel: &Cancel) -> HookEnd {
    let env = vec![
        ("DAEMON_HOME", home.root().into()),
        ("DAEMON_NAME", home.daemon().into()),
        ("UPGRADE_NAME", occasion.name.as_str().into()),
        ("UPGRADE_HEIGHT", occasion.height.to_string().into()),
        ("UPGRADE_INFO", occasion.info.unwrap_or_default().into()),
    ];
    let program =
        Program { path: hook, args: &[], dir: home.root(), inherit: true, env, timeout, grace: GRACE };
    let ran = match check(hook).and_then(|()| run(&program, cancel)) {
        Ok(ran) => ran,
        Err(err) => return HookEnd::Failed(classify(&err, Some(cancel))),
    };
    show(
        &ran.output,
        &format!("hook={} name={}", hook.file_name().unwrap_or_default().display(), occasion.name),
    );
    let words = ran.last_words();
    let failed = |class, why: String| {
        HookEnd::Failed(Failure::new(class, format!("{}: {why}: {words}", hook.display())))
    };
    match ran.end {
        End::Exited(0) => HookEnd::Continue,
        End::Exited(ABORT) => HookEnd::Abort(words),
        End::Exited(RETRY) => HookEnd::Retry(words),
        End::Exited(code) => failed(Class::Permanent, format!("exit code {code}")),
        End::Signalled(signal) => failed(Class::Permanent, format!("signal {signal}")),
        End::TimedOut => failed(Class::Transient, format!("took longer than {} s", timeout.as_secs())),
        End::Cancelled => failed(Class::Cancelled, "cancelled".to_owned()),
    }
}

/// Logs the beginning and the end of what a hook has printed.
fn show(output: &str, whose: &str) {
    let lines: Vec<&str> = output.lines().collect();
    let (begin, end) = (SHOWN / 2, lines.len().saturating_sub(SHOWN / 2));
    for (number, line) in lines.iter().enumerate() {
        if number < begin || number >= end {
            info!("event=hook_output {whose} {}", line.trim_end());
        } else if number == begin {
            info!("event=hook_output {whose} [{} lines left out]", end - begin);
        }
    }
}

/// A hook runs with our rights, so no other user may be able to change it.
fn check(hook: &Path) -> Result<()> {
    let meta = fs::metadata(hook).map_err(|e| Error::io("inspect hook", hook, e))?;
    let bad = |why: &str, hint: &str| Err(Error::new(Kind::BadInput, why).at(hook.display()).hint(hint));
    match meta.mode() {
        _ if !meta.is_file() => bad("the hook is not a file", "replace it"),
        mode if mode & 0o111 == 0 => bad("the hook is not executable", "chmod 0700 it, or remove it"),
        mode if mode & 0o002 != 0 => bad("everybody can change the hook", "chmod o-w it"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Rig {
        _dir: tempfile::TempDir,
        home: Home,
        name: Name,
    }

    impl Rig {
        fn new(script: &str, mode: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::new(dir.path(), "node").unwrap();
            let name: Name = "v2".parse().unwrap();
            let path = home.pre_upgrade(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Rig { _dir: dir, home, name }
        }

        fn call(&self) -> HookEnd {
            let occasion = Occasion { name: &self.name, height: 100, info: Some("{\"a\": 1}") };
            let hook = pre_upgrade(&self.home, &self.name, None).unwrap();
            call(&hook, &self.home, occasion, Duration::from_secs(600), &Cancel::new().unwrap())
        }

        fn fails_with(&self, part: &str) {
            let HookEnd::Failed(failure) = self.call() else { panic!("{:?}", self.call()) };
            assert!(failure.detail.contains(part), "{failure}");
        }
    }

    #[test]
    fn the_exit_code_says_what_is_to_happen() {
        let call = |script| Rig::new(script, 0o700).call();
        assert_eq!(call("exit 0"), HookEnd::Continue);
        assert_eq!(call("echo not today; exit 30"), HookEnd::Abort("not today".to_owned()));
        assert_eq!(call("echo again; exit 31"), HookEnd::Retry("again".to_owned()));
        Rig::new("echo oh; exit 1", 0o700).fails_with("pre-upgrade: exit code 1: oh");
        Rig::new("kill -9 $$", 0o700).fails_with("signal 9");
    }

    #[test]
    fn the_hook_is_told_what_happens() {
        let rig = Rig::new(
            r#"echo "$DAEMON_HOME $DAEMON_NAME $UPGRADE_NAME $UPGRADE_HEIGHT $UPGRADE_INFO $(pwd) $#"; exit 30"#,
            0o700,
        );
        let root = rig.home.root().display();
        assert_eq!(rig.call(), HookEnd::Abort(format!("{root} node v2 100 {{\"a\": 1}} {root} 0")));
    }

    #[test]
    fn a_hook_that_cannot_or_must_not_run_is_not_passed_over() {
        Rig::new("exit 0", 0o600).fails_with("not executable");
        Rig::new("exit 0", 0o702).fails_with("everybody can change");
        let rig = Rig::new("", 0o700);
        fs::remove_file(rig.home.pre_upgrade(&rig.name)).unwrap();
        std::os::unix::fs::symlink("gone", rig.home.pre_upgrade(&rig.name)).unwrap();
        rig.fails_with("inspect hook");
    }

    #[test]
    fn the_hook_of_the_upgrade_goes_before_the_configured_one() {
        let rig = Rig::new("", 0o700);
        let configured = Path::new("/etc/hook");
        assert_eq!(
            pre_upgrade(&rig.home, &rig.name, Some(configured)),
            Some(rig.home.pre_upgrade(&rig.name))
        );
        let other = "v3".parse().unwrap();
        assert_eq!(pre_upgrade(&rig.home, &other, Some(configured)).as_deref(), Some(configured));
        assert_eq!(pre_upgrade(&rig.home, &other, None), None);
        assert_eq!(post_upgrade(&rig.home, &rig.name), None);
    }

    #[test]
    fn a_hook_that_takes_too_long_may_do_better_the_next_time() {
        let rig = Rig::new("exec sleep 1000", 0o700);
        let occasion = Occasion { name: &rig.name, height: 1, info: None };
        let hook = rig.home.pre_upgrade(&rig.name);
        let end = call(&hook, &rig.home, occasion, Duration::from_millis(20), &Cancel::new().unwrap());
        assert!(matches!(end, HookEnd::Failed(Failure { class: Class::Transient, .. })), "{end:?}");
    }
}
