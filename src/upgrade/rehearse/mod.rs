//! A rehearsal: the staged binary as a *shadow* on a clone of the data, while the old node goes on.
//!
//! It shows on the real data, before the old node stops, that the new binary opens them (and how long a migration takes),
//! executes the live chain to equal hashes, knows the fork, answers, and stops in good order. The shadow is in no network: no
//! peers, a key that is thrown away, ports of its own, no engine (`isolation`). Blocks come from the running node
//! (`feed`). What was shown is written beside the manifest of the binary ([`Report`]).
//!
//! The running node's data and locks are only read. There is one rehearsal of a home at a time, and whatever one leaves
//! behind when it is killed is removed by the next one and by the next supervisor. A rehearsal that cannot be held (too
//! little space, no node, the chain stands still) proves nothing about the binary: it is an error and no report.

mod clone;
mod feed;
mod isolation;
mod limits;
mod live;
mod report;
mod shadow;

pub use report::{Report, Subject};

use super::install;
use super::node_args::Changes;
use super::run::{End, Program, run as run_program};
use super::{Cancel, backup};
use crate::config::Config;
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::durable::Rubbish;
use crate::home::lock::{Claim, lock_within};
use crate::home::stamp::Stamp;
use crate::home::{Home, durable, glob, regular};
use crate::machine::Target;
use crate::name::Name;
use crate::sorted::Set;
use crate::sys;
use crate::time::rfc3339;
use crate::wbft::{Client, Endpoint};
use crossbeam_channel::bounded;
use feed::{Fed, Feed};
use isolation::{Launch, Places};
use live::Live;
use rustix::process::setpriority_process;
use shadow::{Binary, Shadow, describe};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// A backup is cloned rather than the data in use if its head is no further behind: its shadow has less to catch up with
/// then than one whose head was taken back.
const RECENT: u64 = 20_000;
/// The lowest priority (setpriority(2)).
const LOWEST: i32 = 19;
/// The number of blocks that a binary must execute, by default.
pub const BLOCKS: u64 = 100;
/// How often a shadow that starts is asked.
const AGAIN: Duration = Duration::from_millis(50);
/// The longest path of a unix socket (unix(7)).
const LONGEST_SOCKET: usize = 107;
/// The longest first start of a shadow, by the time that a node is given.
const START: (u32, Duration) = (6, Duration::from_secs(3600));
/// How long a shadow that was killed holds its lock.
const DYING: Duration = Duration::from_millis(100);
/// How long the end of a shadow that does not answer any more is waited for.
const ENDING: Duration = Duration::from_secs(2);
/// The time for `--help`.
const HELP: Duration = Duration::from_secs(10);

/// A rehearsal that is wanted.
#[derive(Debug)]
pub struct Order<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The home. Its data directory is found by the running node.
    pub home: &'a Home,
    /// The upgrade whose staged binary is rehearsed.
    pub name: &'a Name,
    /// The number of blocks that the binary must execute.
    pub blocks: u64,
    /// A fork that it must know.
    pub fork: Option<u64>,
    /// Whether the clone is kept.
    pub keep: bool,
}

/// How far a rehearsal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The clone is being made.
    Clone {
        /// The bytes that are there.
        done: u64,
        /// All bytes.
        total: u64,
    },
    /// The new binary is starting, and may be migrating the data.
    Start,
    /// It executes blocks.
    Feed {
        /// The blocks that it has executed.
        blocks: u64,
        /// The blocks that are wanted.
        wanted: u64,
        /// The blocks that it is behind the running node.
        behind: u64,
    },
    /// It is stopping.
    Stop,
}

/// Holds a rehearsal and writes its report. All of it has the lowest priority; the calling thread keeps it.
///
/// # Errors
/// [`Kind::NotFound`] and [`Kind::Verification`] for the binary; [`Kind::Busy`] if another rehearsal is going on;
/// [`Kind::NotMet`] if it cannot be held or was cancelled; as the operating system refuses. There is no report then.
pub fn rehearse(order: &Order<'_>, cancel: &Cancel, progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    sys::yield_disk();
    // A courtesy: without it the work is only less polite.
    let _ = setpriority_process(None, LOWEST);
    let lock = lock(order.home)?;
    remove_leftovers(order.home)?;
    let target = Target::Upgrade(order.name.clone());
    let path = order.home.binary(&target);
    // Taken first: a write during the check then shows as a change after it.
    let stamp = Stamp::of(&path);
    let manifest = install::verify(order.home, &target, None)?;
    let binary = Binary { path, stamp: stamp? };
    let live = Live::find(order.config, order.home)?;
    let kept = order.home.backups().join(format!("rehearsal-{}", order.name));
    if order.keep && fs::symlink_metadata(&kept).is_ok() {
        let there = Error::new(Kind::Failed, "the clone of an earlier rehearsal is there");
        return Err(there.at(kept.display()).hint("remove it first"));
    }
    let dir = order.home.rehearsal_dir();
    durable::mkdir(&dir)?;
    let args = Changes::of(order.home, &target)?;
    let subject = Subject { sha256: &manifest.sha256, args: &args, fork: order.fork };
    let report = Report::new(order.name.clone(), subject, order.blocks, rfc3339(SystemTime::now()));
    let mut stage = Stage { order, live, binary, lock, dir: dir.clone(), report, cancel };
    let held = stage.hold(progress);
    if order.keep && dir.join(DATA).exists() {
        fs::rename(&dir, &kept).doing("rename to", &kept)?;
    }
    remove_leftovers(order.home)?;
    held?;
    let mut report = stage.report;
    report.passed = report.reasons.is_empty();
    if order.keep {
        let place = kept.display();
        report
            .notes
            .push(format!("the clone is kept in {place}, in no list: remove it when it is not needed"));
    }
    report.save(order.home)?;
    Ok(report)
}

/// Removes what a rehearsal has left that did not come to its end.
pub(super) fn sweep(home: &Home, rubbish: &mut Rubbish) {
    let dir = home.rehearsal_dir();
    if fs::symlink_metadata(&dir).is_err() {
        return;
    }
    match lock(home).map(|_lock| rubbish.take(&dir)) {
        Ok(()) => log::info!("event=rehearsal_swept the clone of a rehearsal that did not end is removed"),
        Err(e) if e.kind() == Kind::Busy => {}
        Err(e) => log::warn!("event=rehearsal_not_swept {e}"),
    }
}

/// The lock of a rehearsal, which the shadow inherits. One whose rehearsal was killed dies with it, and is waited for.
fn lock(home: &Home) -> Result<File> {
    let path = home.rehearsal_lock();
    let file = regular::open_own(&path).doing("open lock", &path)?;
    if lock_within(DYING, &file, &path)? {
        return Ok(file);
    }
    Err(Error::new(Kind::Busy, "another rehearsal of this home is going on").at(path.display()))
}

fn remove_leftovers(home: &Home) -> Result<()> {
    let dir = home.rehearsal_dir();
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing("remove", &dir),
    }
}

const DATA: &str = "data";

/// A rehearsal that is going on.
struct Stage<'a> {
    order: &'a Order<'a>,
    live: Live,
    binary: Binary,
    lock: File,
    dir: PathBuf,
    report: Report,
    cancel: &'a Cancel,
}

impl Stage<'_> {
    fn hold(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let places = self.places()?;
        let known = self.flags()?;
        if known.as_ref().is_some_and(|known| !known.contains("ipcpath")) && !self.live.has_socket() {
            let what = "this node opens no IPC socket, over which a shadow is asked";
            return Err(Error::new(Kind::NotMet, what).hint("run it with one in its data directory"));
        }
        let args = self.args()?;
        let Live { environment, cwd, .. } = &self.live;
        let launch = isolation::launch(&args, environment, cwd, &places, known.as_ref())?;
        let shared = self.clone(&places, progress)?;
        let before = clone::allocated(&places.data);
        let outcome = self.run_shadow(&places, &launch, progress);
        let after = clone::allocated(&places.data);
        self.report.growth =
            i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX);
        shared.check(&self.live.data)?;
        outcome
    }

    /// The arguments of a node of the new version: those of the running one, with the changes of the new version instead of
    /// those of the version that runs.
    fn args(&mut self) -> Result<Vec<OsString>> {
        let home = self.order.home;
        let old = Changes::of(home, &home.read_current_link()?)?;
        let new = &self.report.args;
        if old != *new && !old.drop.is_empty() {
            let dropped = old.drop.join(" ");
            let note = format!("it was not given {dropped}, which the version that runs does not get");
            self.report.notes.push(note);
        }
        Ok(self.report.args.apply(old.without_added(&self.live.args)))
    }

    fn places(&self) -> Result<Places> {
        let data = self.dir.join(DATA);
        let socket = data.join("shadow.ipc");
        if socket.as_os_str().as_bytes().len() > LONGEST_SOCKET {
            return Err(Error::new(Kind::NotMet, "the path of the shadow's socket would be too long")
                .at(socket.display())
                .hint("set daemon_data_backup_dir to a shorter path"));
        }
        let key = self.dir.join("nodekey");
        durable::put(&key, throw_away_key()?.as_bytes(), 0o600)?;
        Ok(Places { live: vec![self.live.data.clone(), self.live.named.clone()], data, key, socket })
    }

    /// Makes the clone; the tables that it shares with the running node.
    fn clone(&mut self, places: &Places, progress: &mut dyn FnMut(Progress)) -> Result<Shared> {
        let begun = Instant::now();
        let backup = self.recent_backup();
        let (from, name) = match &backup {
            Some((backup, _claim)) => (backup.data(self.order.home), backup.name.clone()),
            None => (self.live.data.clone(), "live".to_owned()),
        };
        let made = clone::make(clone::Order {
            from: &from,
            to: &places.data,
            resident: self.live.resident(),
            cancel: self.cancel,
            progress: &mut |done, total| progress(Progress::Clone { done, total }),
        })?;
        let report = &mut self.report;
        (report.from, report.bytes, report.copied) = (name, made.bytes, made.copied);
        report.times.clone_ms = millis(begun.elapsed());
        Ok(Shared::of(&from, made.linked))
    }

    /// The newest backup of these data, claimed, if its head is not far behind and the version that runs has written it.
    fn recent_backup(&self) -> Option<(backup::Backup, File)> {
        let current = self.order.home.read_current_link().ok()?.to_string();
        let newest = backup::list(self.order.home).ok()?.pop()?;
        let manifest = &newest.manifest;
        let of_this = manifest.source == self.live.data && manifest.node.as_ref() == Some(&current);
        let head = self.live.client().ok()?.block_number().ok()?;
        let behind = head.checked_sub(manifest.head.as_ref()?.height)?;
        let good = of_this && manifest.damaged.is_none() && behind <= RECENT;
        let claim = newest.claim(self.order.home, Claim::Shared).ok()?;
        good.then_some((newest, claim))
    }

    /// The flags that the binary lists in its help.
    fn flags(&self) -> Result<Option<Set<String>>> {
        let grace = Duration::from_secs(1);
        let program = Program::bare(&self.binary.path, &["--help"], &self.dir, HELP, grace);
        let ran = run_program(&program, self.cancel)?;
        Ok(if ran.end == End::Exited(0) { isolation::listed(&ran.output) } else { None })
    }

    /// Runs the shadow from its start to its end.
    fn run_shadow(
        &mut self,
        places: &Places,
        launch: &Launch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let inherited =
            self.lock.try_clone().map_err(|e| Error::new(Kind::Io, "duplicate a lock").because(e))?;
        let log = self.dir.join("log");
        let mut shadow = Shadow::spawn(&self.binary, launch, &self.live.cwd, &log, inherited.into())?;
        let (ended, why) = (bounded::<()>(0), Mutex::new(None));
        let outcome = thread::scope(|scope| {
            let (shadow, why, done) = (&shadow, &why, &ended.1);
            let (dir, cancel) = (self.order.home.rehearsal_dir(), self.cancel);
            scope.spawn(move || shadow.watch(&dir, cancel, done, why));
            let outcome = self.examine(shadow, places, progress);
            drop(ended.0);
            outcome
        });
        let has_ended = match outcome {
            Ok(()) => shadow.has_ended(),
            // A connection that has ended may be the first that is seen of a process that ends.
            Err(_) => shadow.ends_within(ENDING),
        };
        if !has_ended {
            shadow.end_at_once();
        }
        let status = shadow.reap();
        (self.report.log, self.report.log_lines) = shadow.warnings();
        if let Some(why) = why.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::new(Kind::NotMet, "the rehearsal was given up").because(why));
        }
        match outcome {
            Ok(()) => {
                // A node whose start is not complete is ended by the signal itself.
                let is_fine = |status: &ExitStatus| status.success() || status.signal() == Some(15);
                if self.report.times.stop_ms.is_some() && !status.as_ref().is_some_and(is_fine) {
                    self.report.reasons.push(format!("it stopped with {}", describe(status)));
                }
                Ok(())
            }
            // An error of the running node, the machine or the operator is no verdict on the binary.
            Err(e) if matches!(e.kind(), Kind::NotMet | Kind::Io | Kind::Permission) => Err(e),
            Err(e) => {
                let ended = || format!("it ended with {}: {}", describe(status), shadow.last_words());
                self.report.reasons.push(if has_ended { ended() } else { e.to_string() });
                Ok(())
            }
        }
    }

    /// All that a shadow is put through. An error ends it; what speaks against the binary goes to the report.
    fn examine(
        &mut self,
        shadow: &Shadow,
        places: &Places,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        progress(Progress::Start);
        let limit = self.order.config.daemon_start_timeout;
        let begun = shadow.begun;
        let endpoint = self.answer(shadow, places, (limit * START.0).max(START.1))?;
        self.report.times.start_ms = Some(millis(begun.elapsed()));
        if begun.elapsed() > limit {
            let took = begun.elapsed().as_secs();
            let allowed = "more than daemon_start_timeout allows: raise that";
            self.report.reasons.push(format!("its first start took {took} s, {allowed}"));
        }
        let file = self.dir.join("blocks.rlp");
        let mut feed = Feed::new(self.live.client()?, &endpoint, &file, self.cancel);
        let fed = match feed.compare()? {
            Err(why) => Err(why),
            Ok((height, hash)) => {
                self.report.began_at = Some(height);
                (self.report.ended_at, self.report.hash) = (Some(height), Some(hash.to_string()));
                ask_identity(&mut self.report, &mut feed, self.order.fork)?;
                match feed.run(self.order.blocks, progress)? {
                    Fed::All => Ok(true),
                    Fed::Behind(blocks) => {
                        let behind = format!("it was {blocks} blocks behind at the end");
                        self.report.notes.push(format!("{behind}: the chain was as fast as it"));
                        Ok(true)
                    }
                    Fed::NotServed(what) => {
                        self.report.notes.push(format!("it could not be fed: {what}"));
                        Ok(false)
                    }
                    Fed::Refused(why) => Err(why),
                }
            }
        };
        self.note_executed(&feed);
        match fed {
            Ok(fed) => self.report.fed = fed,
            Err(why) => self.report.reasons.push(why),
        }
        progress(Progress::Stop);
        let grace = self.order.config.daemon_shutdown_grace;
        match shadow.stop(grace)? {
            Some(time) => self.report.times.stop_ms = Some(millis(time)),
            None => self.report.reasons.push(format!("it did not stop within {} s", grace.as_secs())),
        }
        Ok(())
    }

    fn note_executed(&mut self, feed: &Feed<'_>) {
        let report = &mut self.report;
        report.blocks = feed.executed.blocks;
        if let Some((height, hash)) = &feed.executed.head {
            (report.ended_at, report.hash) = (Some(*height), Some(hash.to_string()));
        }
        if let Some((time, blocks)) = feed.executed.caught_up {
            (report.times.catch_up_ms, report.times.catch_up_blocks) = (Some(millis(time)), blocks);
        }
    }

    /// Waits until the shadow answers; its address.
    fn answer(&self, shadow: &Shadow, places: &Places, limit: Duration) -> Result<Endpoint> {
        let begun = Instant::now();
        let pattern = places.data.join(&self.order.config.daemon_node_ipc);
        while begun.elapsed() < limit {
            let sockets = [places.socket.clone()].into_iter().chain(glob::expand(&pattern));
            for socket in sockets.filter(|socket| socket.exists()) {
                let endpoint = Endpoint::Ipc(socket);
                if Client::new(&endpoint, live::options()).head().is_ok() {
                    return Ok(endpoint);
                }
            }
            if shadow.has_ended() {
                return Err(Error::new(Kind::Failed, "it ended before it answered"));
            }
            self.cancel.wait(AGAIN);
        }
        Err(Error::new(Kind::Failed, format!("it did not answer within {} s", limit.as_secs()))
            .because(shadow.last_words()))
    }
}

/// Asks the shadow what an operator would: which chain, which version, which forks, which modules.
fn ask_identity(report: &mut Report, feed: &mut Feed<'_>, fork: Option<u64>) -> Result<()> {
    let (live, shadow) = feed.both();
    let chain = |client: &mut Client| Ok::<_, Error>((client.chain_id()?, client.genesis_hash()?));
    let ours =
        chain(live).map_err(|e| Error::new(Kind::NotMet, "the running node does not answer").because(e))?;
    let theirs = chain(shadow)?;
    if ours != theirs {
        let (theirs, ours) = (format!("{} {}", theirs.0, theirs.1), format!("{} {}", ours.0, ours.1));
        report.reasons.push(format!("it is on another chain: {theirs}, not {ours}"));
    }
    report.client_version = Some(shadow.client_version()?);
    report.forks = shadow.forks().ok().flatten().map(heights);
    match (fork, &report.forks) {
        (Some(fork), Some(forks)) if !forks.contains(&fork) => {
            report.reasons.push(format!("it does not know the fork at {fork}"));
        }
        (Some(fork), None) => {
            report.notes.push(format!("whether it knows the fork at {fork} is not reported"))
        }
        (Some(_) | None, _) => {}
    }
    if let (Ok(before), Ok(after)) = (live.rpc_modules(), shadow.rpc_modules()) {
        let gone: Vec<&str> =
            before.keys().filter(|name| !after.contains_key(*name)).map(String::as_str).collect();
        if !gone.is_empty() {
            report.notes.push(format!("it does not serve the modules {} any more", gone.join(", ")));
        }
    }
    Ok(())
}

/// The heights at which something changes, in order.
fn heights(forks: BTreeMap<String, u64>) -> Vec<u64> {
    let heights: Set<u64> = forks.into_values().filter(|height| *height > 0).collect();
    heights.into_vec()
}

/// The tables that a clone shares, as they were.
struct Shared(Vec<(PathBuf, Option<(u64, SystemTime)>)>);

impl Shared {
    fn of(from: &Path, tables: Vec<PathBuf>) -> Self {
        Shared(tables.into_iter().map(|path| (from.join(&path), written(&from.join(&path)))).collect())
    }

    /// Whether the shadow has written to none of them, as it never does. A damaged one is not a matter of the rehearsal
    /// alone.
    fn check(&self, data: &Path) -> Result<()> {
        let is_changed = |(path, was): &&(PathBuf, _)| written(path).is_some_and(|now| Some(now) != *was);
        let Some((path, _)) = self.0.iter().find(is_changed) else { return Ok(()) };
        Err(Error::new(Kind::Bug, "a file that a rehearsal shared was written to")
            .at(path.display())
            .hint(format!("the data in {} may be damaged: restore a backup", data.display())))
    }
}

/// Length and time of the content of a file.
fn written(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// A key of secp256k1: any number below the order of the group, which begins with many ones.
fn throw_away_key() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut key = [0; 32];
    File::open(path).and_then(|mut file| file.read_exact(&mut key)).doing("read", path)?;
    key[0] = key[0] & 0x7f | 1;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        (dir, home)
    }

    #[test]
    fn a_rehearsal_that_goes_on_is_left_in_peace_and_one_that_was_killed_is_swept() {
        let (_dir, home) = home();
        let clone = home.rehearsal_dir().join(DATA);
        fs::create_dir_all(&clone).unwrap();
        let held = lock(&home).unwrap();
        assert_eq!(lock(&home).unwrap_err().kind(), Kind::Busy);
        let mut rubbish = Rubbish::default();
        sweep(&home, &mut rubbish);
        assert!(clone.exists() && rubbish.is_empty());
        flock(&held, FlockOperation::Unlock).unwrap();
        sweep(&home, &mut rubbish);
        assert!(!home.rehearsal_dir().exists());
    }

    #[test]
    fn a_throw_away_key_is_a_number_below_the_order_of_the_group() {
        let (a, b) = (throw_away_key().unwrap(), throw_away_key().unwrap());
        assert!(a.len() == 64 && *a < *"80" && a != b, "{a} {b}");
    }

    #[test]
    fn a_shared_table_that_was_written_to_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sst");
        fs::write(&path, "table").unwrap();
        let shared = Shared::of(dir.path(), vec!["1.sst".into(), "2.sst".into()]);
        shared.check(dir.path()).unwrap();
        fs::write(&path, "other table").unwrap();
        assert_eq!(shared.check(dir.path()).unwrap_err().kind(), Kind::Bug);
        // The node itself removes tables.
        fs::remove_file(&path).unwrap();
        shared.check(dir.path()).unwrap();
    }
}
