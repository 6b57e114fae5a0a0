//! The hooks of an upgrade: `pre-upgrade` while the node is down, `post-upgrade` when it is done.
//!
//! The exit code of a hook decides what happens next, as for Cosmovisor: 0 go on, 30 keep the old
//! binary, 31 run me again, anything else is a failure. How often it is run again is the machine's business.
//!
//! A pre-upgrade hook and everything that it starts inherit the node's lock, so that no node starts beside them, whatever
//! becomes of us. A post-upgrade hook runs beside a node by design, so the node that crashes meanwhile must not wait for
//! it; it inherits only the lock of hooks, for which the next hook waits.

use super::run::{End, Program, Ran, run};
use super::{Cancel, classify, counters};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::lock::{HookLock, NodeLock, holders};
use crate::home::{Home, trust};
use crate::machine::{Attempt, Class, Failure, HookEnd};
use crate::name::Name;
use crate::printable::foreign;
use log::{info, warn};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ABORT: i32 = 30;
const RETRY: i32 = 31;
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait between two looks at a lock, growing from the first to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
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

impl<'a> From<&'a Attempt> for Occasion<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Occasion { name: &attempt.name, height: attempt.height, info: attempt.info.as_deref() }
    }
}

/// The side of the switch on which a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it, while the node is down.
    Before,
    /// After it, beside the node.
    After,
}

/// The pre-upgrade hook that belongs to an upgrade: its own, otherwise the configured one.
pub fn pre_upgrade(home: &Home, name: &Name, configured: Option<&Path>) -> Option<PathBuf> {
    own_or(home.pre_upgrade(name), configured)
}

/// The post-upgrade hook that belongs to an upgrade, likewise.
pub fn post_upgrade(home: &Home, name: &Name, configured: Option<&Path>) -> Option<PathBuf> {
    own_or(home.post_upgrade(name), configured)
}

fn own_or(own: PathBuf, configured: Option<&Path>) -> Option<PathBuf> {
    // Something that is there but cannot run fails later, instead of being passed over here.
    let is_there = fs::symlink_metadata(&own).is_ok();
    is_there.then_some(own).or_else(|| configured.map(Path::to_owned))
}

/// A hook to run.
#[derive(Debug, Clone, Copy)]
pub struct Hook<'a> {
    /// The program.
    pub path: &'a Path,
    /// The home whose locks it inherits.
    pub home: &'a Home,
    /// The side of the switch.
    pub when: When,
    /// The upgrade.
    pub occasion: Occasion<'a>,
    /// The longest time that it may take.
    pub timeout: Duration,
}

impl Hook<'_> {
    /// Runs it, logs its output, and returns what it asks for.
    ///
    /// After a pre-upgrade hook that has ended by itself no process of it is left.
    pub fn call(self, cancel: &Cancel) -> HookEnd {
        // An earlier hook that uses up its time, and the grace, is gone by then.
        let wait = Wait { until: Instant::now() + self.timeout + GRACE, cancel };
        let end = check(self.home, self.path)
            .and_then(|()| self.alone(&wait))
            .unwrap_or_else(|err| HookEnd::Failed(classify(&err, Some(cancel))));
        counters::HOOK_FAILURES.add(u64::from(end != HookEnd::Continue));
        end
    }

    /// Runs it with the locks that belong to it, and waits for the end of what it leaves behind.
    fn alone(self, wait: &Wait<'_>) -> Result<HookEnd> {
        let Hook { path, home, when, occasion, timeout } = self;
        let lock = wait.acquire(&home.hook_lock(), || HookLock::try_acquire(home))?;
        let node = match when {
            When::Before => Some(wait.acquire(&home.node_lock(), || NodeLock::try_acquire(home))?),
            When::After => None,
        };
        let retry = when == When::Before && lock.begin(&format!("{} {}", occasion.name, occasion.height))?;
        let height = occasion.height.to_string();
        let env = vec![
            ("DAEMON_HOME", home.root().into()),
            ("DAEMON_NAME", home.daemon().into()),
            ("UPGRADE_NAME", occasion.name.as_str().into()),
            ("UPGRADE_HEIGHT", height.clone().into()),
            ("UPGRADE_INFO", occasion.info.unwrap_or_default().into()),
            ("UPGRADE_RETRY", u8::from(retry).to_string().into()),
        ];
        let fds = [Some(lock.as_fd()), node.as_ref().map(NodeLock::as_fd)].into_iter().flatten().collect();
        // As those of Cosmovisor get them.
        let args = [occasion.name.as_str(), &height];
        let program =
            Program { env, fds, inherit: true, ..Program::bare(path, &args, home.root(), timeout, GRACE) };
        let ran = run(&program, wait.cancel)?;
        // A successful run is repeated only if we die before the journal has it; the repetition must know.
        let is_over = !matches!(ran.end, End::TimedOut | End::Cancelled | End::Exited(0));
        if when == When::Before && is_over {
            // The hook has ended all the same; at worst a later run gets UPGRADE_RETRY=1 without a reason.
            lock.end().unwrap_or_else(|e| warn!("event=hook_end_not_recorded name={} {e}", occasion.name));
        }
        let whose = format!("hook={} name={}", path.file_name().unwrap_or_default().display(), occasion.name);
        show(&ran.output, &whose);
        drop((lock, node));
        if when == When::After {
            warn_of_the_rest(home, occasion.name);
        } else if ran.end != End::Cancelled {
            // Its group was killed this moment, and is not gone at once.
            wait.acquire(&home.node_lock(), || NodeLock::try_acquire(home))?;
        }
        Ok(self.wish(&ran))
    }

    /// The wish of a hook, by how it has ended.
    fn wish(self, ran: &Ran) -> HookEnd {
        let words = ran.last_words();
        let (class, why) = match ran.end {
            End::Exited(0) => return HookEnd::Continue,
            End::Exited(ABORT) => return HookEnd::Abort(words),
            End::Exited(RETRY) => return HookEnd::Retry(words),
            End::Exited(code) => (Class::Permanent, format!("exit code {code}")),
            End::Signalled(signal) => (Class::Permanent, format!("signal {signal}")),
            // It has had its time, with the node down.
            End::TimedOut => (Class::Permanent, format!("took longer than {} s", self.timeout.as_secs())),
            End::Cancelled => (Class::Cancelled, "cancelled".to_owned()),
        };
        HookEnd::Failed(Failure::new(class, format!("{}: {why}: {words}", self.path.display())))
    }
}

/// Names the processes that a post-upgrade hook leaves behind: the next hook will wait for them.
fn warn_of_the_rest(home: &Home, name: &Name) {
    let left = holders(&home.hook_lock());
    if !left.is_empty() {
        warn!("event=hook_left_processes name={name} the next hook waits for them: {}", left.join(", "));
    }
}

/// How long a lock is waited for.
#[derive(Clone, Copy)]
struct Wait<'a> {
    until: Instant,
    cancel: &'a Cancel,
}

impl Wait<'_> {
    /// Takes the lock at `path` as soon as the processes of an earlier hook that hold it are gone.
    fn acquire<T>(&self, path: &Path, mut take: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let mut pause = LOOK.0;
        let mut is_logged = false;
        loop {
            if let Some(lock) = take()? {
                return Ok(lock);
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.cancel.is_cancelled() {
                return Err(Error::new(Kind::Unreachable, "processes that a hook has started are alive")
                    .at(path.display())
                    .because(holders(path).join(", "))
                    .hint("end them"));
            }
            // A process that has just ended is gone in a moment.
            if pause == LOOK.1 && !std::mem::replace(&mut is_logged, true) {
                warn!("event=waiting_for_hook lock={} {}", path.display(), holders(path).join(", "));
            }
            // Whatever ends it early is looked at above.
            self.cancel.wait(pause.min(left));
            pause = (pause * 2).min(LOOK.1);
        }
    }
}

/// Logs the beginning and the end of what a hook has printed.
fn show(output: &str, whose: &str) {
    let lines: Vec<&str> = output.lines().collect();
    let (begin, end) = (SHOWN / 2, lines.len().saturating_sub(SHOWN / 2));
    for (number, line) in lines.iter().enumerate() {
        if number < begin || number >= end {
            info!("event=hook_output {whose} {}", foreign(line.trim_end()));
        } else if number == begin {
            info!("event=hook_output {whose} [{} lines left out]", end - begin);
        }
    }
}

/// A hook runs with our rights, so no other user may be able to change it.
///
/// # Errors
/// [`Kind::BadInput`] with the fault.
pub fn check(home: &Home, hook: &Path) -> Result<()> {
    let meta = fs::metadata(hook).doing("inspect hook", hook)?;
    let bad = |why: &str, hint: &str| Err(Error::new(Kind::BadInput, why).at(hook.display()).hint(hint));
    if !meta.is_file() {
        return bad("the hook is not a file", "replace it");
    }
    if meta.mode() & 0o111 == 0 {
        return bad("the hook is not executable", "chmod 0700 it, or remove it");
    }
    match trust::fault(&meta, &home.dir()) {
        Some((what, hint)) => bad(&format!("the hook is not safe: {what}"), hint),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const LONG: Duration = Duration::from_secs(600);

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
            fs::create_dir_all(home.state()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Rig { _dir: dir, home, name }
        }

        fn call(&self) -> HookEnd {
            let occasion = Occasion { name: &self.name, height: 100, info: Some("{\"a\": 1}") };
            let hook = pre_upgrade(&self.home, &self.name, None).unwrap();
            let cancel = Cancel::new().unwrap();
            self.hook(&hook, occasion, LONG).call(&cancel)
        }

        fn hook<'a>(&'a self, path: &'a Path, occasion: Occasion<'a>, timeout: Duration) -> Hook<'a> {
            Hook { path, home: &self.home, when: When::Before, occasion, timeout }
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
            r#"echo "$DAEMON_HOME $DAEMON_NAME $UPGRADE_NAME $UPGRADE_HEIGHT $UPGRADE_INFO $(pwd) $*"; exit 30"#,
            0o700,
        );
        let root = rig.home.root().display();
        assert_eq!(rig.call(), HookEnd::Abort(format!("{root} node v2 100 {{\"a\": 1}} {root} v2 100")));
    }

    #[test]
    fn a_hook_is_told_that_an_earlier_run_of_it_was_cut_short() {
        let rig = Rig::new("echo $UPGRADE_RETRY; exit 30", 0o700);
        let told = |retry: &str| HookEnd::Abort(retry.to_owned());
        assert_eq!(rig.call(), told("0"));
        assert_eq!(rig.call(), told("0"), "its end was seen");
        // The supervisor was killed.
        let begin = |whose| {
            // A process that another test is starting may have a copy, until its own exec.
            let lock = std::iter::repeat_with(|| HookLock::try_acquire(&rig.home).unwrap()).flatten().next();
            lock.unwrap().begin(whose).unwrap()
        };
        assert!(!begin("v2 100"));
        assert_eq!(rig.call(), told("1"));
        assert_eq!(rig.call(), told("0"));
        // That of another upgrade was.
        assert!(!begin("v2 1000"));
        assert_eq!(rig.call(), told("0"));
        let hook = pre_upgrade(&rig.home, &rig.name, None).unwrap();
        fs::write(&hook, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let cancel = Cancel::new().unwrap();
        let occasion = Occasion { name: &rig.name, height: 100, info: None };
        let end = std::thread::scope(|scope| {
            let running = scope.spawn(|| rig.hook(&hook, occasion, LONG).call(&cancel));
            while fs::read(rig.home.hook_lock()).unwrap() != b"v2 100\n" {
                std::thread::yield_now();
            }
            cancel.cancel();
            running.join().unwrap()
        });
        assert!(matches!(end, HookEnd::Failed(Failure { class: Class::Cancelled, .. })), "{end:?}");
        fs::write(&hook, "#!/bin/sh\necho $UPGRADE_RETRY; exit 30\n").unwrap();
        assert_eq!(rig.call(), told("1"));
    }

    #[test]
    fn a_hook_is_told_that_an_earlier_run_of_it_has_succeeded() {
        let rig = Rig::new("exit 0", 0o700);
        assert_eq!(rig.call(), HookEnd::Continue);
        // The supervisor was killed before that was in the journal.
        let hook = pre_upgrade(&rig.home, &rig.name, None).unwrap();
        fs::write(&hook, "#!/bin/sh\necho $UPGRADE_RETRY; exit 30\n").unwrap();
        assert_eq!(rig.call(), HookEnd::Abort("1".to_owned()));
        assert_eq!(rig.call(), HookEnd::Abort("0".to_owned()));
    }

    /// A script that leaves a process behind in a session of its own, whose number is in the file `left`.
    fn leaving(seconds: &str) -> String {
        format!(
            "setsid sh -c 'echo $$ > left; exec sleep {seconds}' & until [ -s left ]; do sleep 0.01; done"
        )
    }

    fn left(rig: &Rig) -> rustix::process::Pid {
        let text = fs::read_to_string(rig.home.root().join("left")).unwrap();
        rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    #[test]
    fn no_node_starts_while_anything_that_a_hook_has_started_is_alive() {
        let rig = Rig::new(&leaving("0.3"), 0o700);
        assert_eq!(rig.call(), HookEnd::Continue);
        let status = fs::read_to_string(format!("/proc/{}/stat", left(&rig).as_raw_pid()));
        assert!(status.as_ref().is_ok_and(|s| s.contains(") Z ")) || status.is_err(), "{status:?}");

        // Cancelled it does not wait; the lock is held all the same, and its holder is named.
        fs::remove_file(rig.home.root().join("left")).unwrap();
        let hook = pre_upgrade(&rig.home, &rig.name, None).unwrap();
        fs::write(&hook, format!("#!/bin/sh\n{}\nexec sleep 1000\n", leaving("1000"))).unwrap();
        let cancel = Cancel::new().unwrap();
        let occasion = Occasion { name: &rig.name, height: 100, info: None };
        std::thread::scope(|scope| {
            let running = scope.spawn(|| rig.hook(&hook, occasion, LONG).call(&cancel));
            while !fs::read_to_string(rig.home.root().join("left")).is_ok_and(|s| s.ends_with('\n')) {
                std::thread::yield_now();
            }
            cancel.cancel();
            running.join().unwrap()
        });
        assert!(NodeLock::try_acquire(&rig.home).unwrap().is_none());
        let named = format!("process {} (sleep)", left(&rig).as_raw_pid());
        // Until its exec it has the name of its shell.
        while !holders(&rig.home.node_lock()).contains(&named) {
            std::thread::yield_now();
        }
        rustix::process::kill_process(left(&rig), rustix::process::Signal::KILL).unwrap();
        while NodeLock::try_acquire(&rig.home).unwrap().is_none() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_post_upgrade_hook_leaves_behind_keeps_the_next_hook_and_no_node() {
        let rig = Rig::new(&leaving("1000"), 0o700);
        let hook = pre_upgrade(&rig.home, &rig.name, None).unwrap();
        let occasion = Occasion { name: &rig.name, height: 100, info: None };
        let call = |time| {
            let cancel = Cancel::new().unwrap();
            let hook = Hook { when: When::After, ..rig.hook(&hook, occasion, time) };
            hook.alone(&Wait { until: Instant::now() + time, cancel: &cancel })
        };
        assert_eq!(call(LONG).unwrap(), HookEnd::Continue);
        assert!(NodeLock::try_acquire(&rig.home).unwrap().is_some());
        let err = call(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(err.contains(&format!("process {} (sleep)", left(&rig).as_raw_pid())), "{err}");
        rustix::process::kill_process(left(&rig), rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_hook_that_cannot_or_must_not_run_is_not_passed_over() {
        Rig::new("exit 0", 0o600).fails_with("not executable");
        Rig::new("exit 0", 0o702).fails_with("others than its owner may write it");
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
        assert_eq!(post_upgrade(&rig.home, &rig.name, None), None);
        assert_eq!(post_upgrade(&rig.home, &rig.name, Some(configured)).as_deref(), Some(configured));
    }

    #[test]
    fn a_hook_that_takes_too_long_may_do_better_the_next_time() {
        let rig = Rig::new("exec sleep 1000", 0o700);
        let occasion = Occasion { name: &rig.name, height: 1, info: None };
        let hook = rig.home.pre_upgrade(&rig.name);
        let cancel = Cancel::new().unwrap();
        let end = rig.hook(&hook, occasion, Duration::from_millis(20)).call(&cancel);
        assert!(matches!(end, HookEnd::Failed(Failure { class: Class::Permanent, .. })), "{end:?}");
    }
}
