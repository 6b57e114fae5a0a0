//! The thread that does long work, one job at a time, so that the loop never waits.

use super::threads::Thread;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::{
    Ahead, Attempt, BackupMade, Class, Failure, HookEnd, Job, JobEnd, Ready, Tended, Upgrade,
};
use crate::name::Name;
use crate::upgrade::backup::{Draft, MadeBy, Need, Options, Purpose, State, Work};
use crate::upgrade::hook::{Hook, When};
use crate::upgrade::prepare::Binaries;
use crate::upgrade::rehearse::{self, Report};
use crate::upgrade::{Cancel, backup, classify, hook, prepare, restore};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often the progress of long work is logged.
const REPORT: Duration = Duration::from_secs(5);
/// How long the end of the thread is waited for. What it then has not removed is swept by the next supervisor.
const ENDING: Duration = Duration::from_secs(5);
/// How often a job that waits for space looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// The facts for a job, as they were when it began.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) config: Arc<Config>,
    pub(super) home: Home,
    pub(super) binaries: Binaries,
}

/// The handle of the worker thread. Dropped, the thread ends after its job.
pub(super) struct Worker {
    thread: Thread<(Job, Context, Cancel)>,
    done: Sender<JobEnd>,
    cancel: Option<Cancel>,
}

impl Worker {
    /// Starts the thread; it sends the end of every job to `done`. Jobs that need space may wait until `swept` is closed.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(done: Sender<JobEnd>, swept: Receiver<()>) -> Result<Self> {
        let ends = done.clone();
        let thread = Thread::start("worker", ENDING, move |work| run(work, &ends, &swept))?;
        Ok(Worker { thread, done, cancel: None })
    }

    /// Ends the thread, which removes a backup that was begun and not made.
    pub(super) fn end(self) {
        self.cancel();
    }

    /// Hands a job over.
    pub(super) fn begin(&mut self, job: Job, context: Context) {
        match Cancel::new() {
            Ok(cancel) => {
                self.cancel = Some(cancel.clone());
                self.thread.order((job, context, cancel));
            }
            Err(e) => {
                let why = format!("the job cannot be begun: {e}");
                // The loop waits for an end of every job.
                let _ = self.done.send(failed(&job, Failure::new(Class::Environment, why)));
            }
        }
    }

    /// Asks the job that runs to end.
    pub(super) fn cancel(&self) {
        if let Some(cancel) = &self.cancel {
            cancel.cancel();
        }
    }
}

fn run(work: &Receiver<(Job, Context, Cancel)>, done: &Sender<JobEnd>, swept: &Receiver<()>) {
    let mut begun = Begun::default();
    for (job, context, cancel) in work {
        if copies_aside(&job) {
            await_space(swept, &cancel);
        }
        if done.send(perform(&job, &context, &mut begun, &cancel, swept)).is_err() {
            break;
        }
    }
    begun.keep(None);
}

/// Whether a job copies data, or finds out whether that is possible, beside a node: it can wait. The binary of an upgrade
/// comes first.
fn copies_aside(job: &Job) -> bool {
    match job {
        Job::Ahead { .. } | Job::Rehearse(_) => true,
        Job::Backup(_) | Job::Restore(_) | Job::Prepare(_) | Job::Hook { .. } | Job::Tend { .. } => false,
    }
}

/// Copies data with the node down, which waits for nothing that it does not need: only where that fails while what was left
/// half-made is still being removed, it is done again when there is more space.
fn with_space<T>(
    swept: &Receiver<()>,
    cancel: &Cancel,
    mut copy: impl FnMut() -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    let is_being_swept = swept.try_recv() == Err(TryRecvError::Empty);
    match copy() {
        Err(failure) if failure.class == Class::Environment && is_being_swept => {
            log::info!("event=job_waits for what was left half-made to be removed: {failure}");
            await_space(swept, cancel);
            copy()
        }
        done => done,
    }
}

/// Waits until what was left half-made is removed: too little space would be found where there will be enough.
fn await_space(swept: &Receiver<()>, cancel: &Cancel) {
    while !cancel.is_cancelled() && swept.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {}
}

/// The backup that was begun for an upgrade while the node still ran. A process that dies leaves it to the next sweep.
#[derive(Default)]
struct Begun(Option<(Name, Draft)>);

impl Begun {
    /// Removes a backup that was begun for another upgrade.
    fn keep(&mut self, name: Option<&Name>) {
        if let Some((_, other)) = self.0.take_if(|(own, _)| Some(&*own) != name) {
            other.remove();
        }
    }

    /// Copies the part of the backup for `name` that can be copied while the node runs.
    fn bring(&mut self, name: &Name, work: &mut Work<'_>) -> Result<()> {
        let (_, draft) = match &mut self.0 {
            Some(begun) => begun,
            none => none.insert((name.clone(), Draft::begin(work.home, name)?)),
        };
        draft.go_ahead(work)
    }

    /// Checks whether a backup for `name` is possible. Returns what is left of it.
    fn rest(&self, name: &Name, work: &Work<'_>) -> Result<Ahead> {
        let need = self.check(name, work)?;
        Ok(Ahead { rest: Duration::from_secs(need.to_copy / work.options.rate.max(1)) })
    }

    /// Checks whether a backup for `name` is possible, beyond what was copied already.
    fn check(&self, name: &Name, work: &Work<'_>) -> Result<Need> {
        match &self.0 {
            Some((own, draft)) if own == name => draft.check(work.home, work.options),
            Some(_) | None => backup::check(work.home, work.options),
        }
    }

    fn take(&mut self, name: &Name) -> Option<Draft> {
        self.keep(Some(name));
        self.0.take().map(|(_, draft)| draft)
    }
}

/// Adds digests to the backups that lack them, and removes those beyond the configured number and age.
fn tend(needed: &[String], work: &mut Work<'_>) -> Result<Tended> {
    let mut tended = Tended::default();
    for backup in backup::list(work.home)? {
        if backup.manifest.state() != State::Unverified {
            continue;
        }
        let name = backup.name.clone();
        match backup::complete(work, backup) {
            Ok(_) => tended.verified.push(name),
            Err(e) if e.kind() == Kind::Verification => tended.damaged.push(format!("backup={name} {e}")),
            Err(e) => return Err(e),
        }
    }
    tended.removed = backup::prune(work, needed)?;
    Ok(tended)
}

fn perform(job: &Job, context: &Context, begun: &mut Begun, cancel: &Cancel, swept: &Receiver<()>) -> JobEnd {
    let Context { config, home, .. } = context;
    let failed = |e: Error| classify(&e, Some(cancel));
    let options = Options::new(config);
    let mut progress = report(label(job));
    let background = matches!(job, Job::Ahead { .. } | Job::Tend { .. });
    let mut work = Work { background, home, options: &options, cancel, progress: &mut progress };
    match job {
        Job::Prepare(upgrade) => {
            let ready = prepare(upgrade, context, begun, &work, swept);
            JobEnd::Prepared(upgrade.name.clone(), ready.map_err(failed))
        }
        Job::Backup(progress) => {
            let made = with_space(swept, cancel, || {
                backup::make(&mut work, &purpose(progress), begun.take(&progress.name)).map_err(failed)
            });
            JobEnd::BackedUp(made.map(|backup| BackupMade { how: backup.how(), name: backup.name }))
        }
        Job::Ahead { name, bring } => {
            begun.keep(Some(name));
            let brought = if *bring { begun.bring(name, &mut work) } else { Ok(()) };
            JobEnd::Ahead(name.clone(), brought.and_then(|()| begun.rest(name, &work)).map_err(failed))
        }
        Job::Tend { draft, needed } => {
            begun.keep(draft.as_ref());
            JobEnd::Tended(tend(needed.as_slice(), &mut work).map_err(failed))
        }
        Job::Hook { progress, .. } => JobEnd::Hooked(call_hook(progress, config, home, cancel)),
        Job::Restore(progress) => {
            JobEnd::Restored(with_space(swept, cancel, || restore(progress, &mut work).map_err(failed)))
        }
        Job::Rehearse(upgrade) => {
            let order = rehearse::Order {
                config,
                home,
                name: &upgrade.name,
                blocks: rehearse::BLOCKS,
                fork: upgrade.fork_height,
                keep: false,
            };
            let held = hold_rehearsal(&order, cancel);
            JobEnd::Rehearsed(upgrade.name.clone(), held.map(|report| report.verdict().0).map_err(failed))
        }
    }
}

/// Prepares an upgrade. A backup that is not possible is better known now than when the node is down.
fn prepare(
    upgrade: &Upgrade,
    context: &Context,
    begun: &Begun,
    work: &Work<'_>,
    swept: &Receiver<()>,
) -> Result<Ready> {
    let Context { config, home, binaries } = context;
    let ready = prepare::prepare(config, home, binaries, upgrade, work.cancel)?;
    if config.makes_backups() && home.data().exists() {
        await_space(swept, work.cancel);
        begun.check(&upgrade.name, work)?;
    }
    Ok(ready)
}

fn call_hook(progress: &Attempt, config: &Config, home: &Home, cancel: &Cancel) -> HookEnd {
    let program = hook::pre_upgrade(home, &progress.name, config.daemon_preupgrade.as_deref());
    let timeout = config.daemon_preupgrade_timeout;
    program.map_or(HookEnd::Continue, |path| {
        Hook { path: &path, home, when: When::Before, occasion: progress.into(), timeout }.call(cancel)
    })
}

fn restore(progress: &Attempt, work: &mut Work<'_>) -> Result<()> {
    let backup = backup::load(work.home, progress.backup.as_deref().unwrap_or_default())?;
    let aside = restore::restore(work, &backup)?;
    log::warn!("event=data_replaced the newer data is kept in {}", aside.display());
    Ok(())
}

/// In a thread of its own, which keeps the lowest priority that it gets.
fn hold_rehearsal(order: &rehearse::Order<'_>, cancel: &Cancel) -> Result<rehearse::Report> {
    let body = || rehearse::rehearse(order, cancel, &mut |_| {});
    let report = thread::scope(|scope| {
        let started = thread::Builder::new().name("rehearsal".to_owned()).spawn_scoped(scope, body);
        let started = started.map_err(|e| Error::new(Kind::Io, "start a thread").because(e))?;
        started.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the rehearsal has ended with a panic")))
    })?;
    let Report { upgrade, blocks, times, growth, log_lines, .. } = &report;
    log::info!(
        "event=rehearsed name={upgrade} passed={} blocks={blocks} start_ms={} stop_ms={} growth_mib={} warnings={log_lines}",
        report.passed,
        times.start_ms.unwrap_or(0),
        times.stop_ms.unwrap_or(0),
        growth / (1 << 20)
    );
    Ok(report)
}

/// The description of an upgrade's backup in its manifest.
fn purpose(attempt: &Attempt) -> Purpose {
    Purpose {
        name: attempt.name.clone(),
        made_by: MadeBy::Upgrade,
        head: attempt.stopped_at.clone(),
        node: Some(attempt.from.target.to_string()),
    }
}

/// The name of a job in the log of its progress.
fn label(job: &Job) -> &'static str {
    match job {
        Job::Prepare(_) => "prepare",
        Job::Backup(_) => "backup",
        Job::Ahead { .. } => "backup_ahead",
        Job::Tend { .. } => "verify",
        Job::Hook { .. } => "hook",
        Job::Restore(_) => "restore",
        Job::Rehearse(_) => "rehearse",
    }
}

/// Logs the progress of long work, now and then.
fn report(what: &'static str) -> impl FnMut(u64, u64) {
    let mut last = Instant::now();
    move |done, total| {
        if last.elapsed() >= REPORT {
            last = Instant::now();
            log::info!("event=progress job={what} done_mib={} total_mib={}", done >> 20, total >> 20);
        }
    }
}

/// The end of a job that failed without an end of its own.
fn failed(job: &Job, failure: Failure) -> JobEnd {
    match job {
        Job::Prepare(upgrade) => JobEnd::Prepared(upgrade.name.clone(), Err(failure)),
        Job::Backup(_) => JobEnd::BackedUp(Err(failure)),
        Job::Hook { .. } => JobEnd::Hooked(HookEnd::Failed(failure)),
        Job::Restore(_) => JobEnd::Restored(Err(failure)),
        Job::Rehearse(upgrade) => JobEnd::Rehearsed(upgrade.name.clone(), Err(failure)),
        Job::Ahead { name, .. } => JobEnd::Ahead(name.clone(), Err(failure)),
        Job::Tend { .. } => JobEnd::Tended(Err(failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackupMethod;
    use crossbeam_channel::bounded;

    #[test]
    fn with_the_node_down_only_a_lack_of_space_waits_for_the_sweep() {
        let cancel = Cancel::new().unwrap();
        let (sweeping, swept) = bounded::<()>(0);
        assert_eq!(with_space(&swept, &cancel, || Ok(1)), Ok(1));
        let lack = |class| Failure::new(class, "too little space");
        let permanent = with_space(&swept, &cancel, || Err::<(), _>(lack(Class::Permanent)));
        assert_eq!(permanent, Err(lack(Class::Permanent)));
        let mut sweeping = Some(sweeping);
        // It is found while the sweep goes on, which ends then.
        let copy = || sweeping.take().map_or(Ok(2), |_ends| Err(lack(Class::Environment)));
        assert_eq!(with_space(&swept, &cancel, copy), Ok(2));
        let mut tries = 0;
        let again = with_space(&swept, &cancel, || {
            tries += 1;
            Err::<(), _>(lack(Class::Environment))
        });
        assert_eq!(
            (again, tries),
            (Err(lack(Class::Environment)), 1),
            "no space will come of a sweep that is over"
        );
    }

    #[test]
    fn a_backup_that_is_partly_copied_needs_space_for_the_rest_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let tables = home.data().join("gwemix/chaindata");
        std::fs::create_dir_all(&tables).unwrap();
        std::fs::write(tables.join("MANIFEST-000002"), "").unwrap();
        std::fs::write(tables.join("000001.sst"), vec![7; 5 << 20]).unwrap();
        let bodies = tables.join("ancient/chain/bodies.0000.cdat");
        std::fs::create_dir_all(bodies.parent().unwrap()).unwrap();
        std::fs::write(bodies.with_file_name("bodies.cidx"), "").unwrap();
        std::fs::write(&bodies, vec![7; 1 << 20]).unwrap();
        let cancel = Cancel::new().unwrap();
        let options = Options { method: BackupMethod::Copy, ..Options::plain() };
        let mut work = Work {
            background: true,
            home: &home,
            options: &options,
            cancel: &cancel,
            progress: &mut |_, _| {},
        };
        let v2: Name = "v2".parse().unwrap();
        let mut begun = Begun::default();
        assert_eq!(begun.check(&v2, &work).unwrap().to_copy, 6 << 20);
        begun.bring(&v2, &mut work).unwrap();
        // When its binary is prepared anew, as after a change of its plan, too little space must not be found.
        assert_eq!(begun.check(&v2, &work).unwrap().to_copy, 0);
        let mut grown = std::fs::File::options().append(true).open(&bodies).unwrap();
        std::io::Write::write_all(&mut grown, &[7; 4096]).unwrap();
        assert_eq!(begun.check(&v2, &work).unwrap().to_copy, 4096, "what a file has grown by");
    }
}
