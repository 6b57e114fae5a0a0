//! Long work on many files: several threads, one count of the bytes done, a prompt end when it is cancelled.
//!
//! While a node runs the work is background: it has the idle priority of the disk and a rate. While a node is down for
//! it, nothing holds it back. With one worker the calling thread does it, as the tests of crash states need it.

use super::options::Options;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::sorted;
use crate::sys;
use crate::upgrade::Cancel;
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The interval between reports of progress, and between the checks of a throttled worker whether it must end.
const BEAT: Duration = Duration::from_millis(100);
/// The amount of work that is worth another thread: bytes, or tasks.
const WORTH: (u64, usize) = (8 << 20, 256);
/// The largest number of threads that compete with a running node for the disk.
const IN_BACKGROUND: usize = 2;

/// The circumstances of long work.
pub struct Work<'a> {
    /// The home.
    pub home: &'a Home,
    /// The configuration of backups.
    pub options: &'a Options,
    /// Whether a node runs at the same time, which must not be disturbed.
    pub background: bool,
    /// Ends the work.
    pub cancel: &'a Cancel,
    /// Receives the number of bytes done, and the total.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// The meter of a worker: it counts bytes, throttles the worker, and ends it.
pub(super) trait Gauge {
    /// Counts bytes that are done.
    ///
    /// # Errors
    /// If the work must end.
    fn add(&self, bytes: u64) -> Result<()>;

    /// Whether a node runs at the same time.
    fn is_background(&self) -> bool;
}

impl Work<'_> {
    /// Does `one` with each of `tasks`, whose sizes are `total` together. The results are in the order of the tasks.
    ///
    /// # Errors
    /// The first failure; the other workers then end at once.
    pub(super) fn each<T: Sync, R: Send>(
        &mut self,
        tasks: &[T],
        total: u64,
        one: &(dyn Fn(&T, &dyn Gauge) -> Result<R> + Sync),
    ) -> Result<Vec<R>> {
        let worth =
            usize::try_from(total / WORTH.0).unwrap_or(usize::MAX).saturating_add(tasks.len() / WORTH.1);
        let workers = self.options.workers.min(tasks.len()).min(worth.saturating_add(1));
        if workers > 1 || self.background {
            return self.each_of_many(workers, tasks, total, one);
        }
        let progress = RefCell::new(&mut *self.progress);
        let alone = Alone { cancel: self.cancel, progress, done: Cell::new(0), total };
        tasks.iter().map(|task| alone.add(0).and_then(|()| one(task, &alone))).collect()
    }

    fn each_of_many<T: Sync, R: Send>(
        &mut self,
        workers: usize,
        tasks: &[T],
        total: u64,
        one: &(dyn Fn(&T, &dyn Gauge) -> Result<R> + Sync),
    ) -> Result<Vec<R>> {
        let crowd = Crowd {
            cancel: self.cancel,
            has_failed: AtomicBool::new(false),
            done: AtomicU64::new(0),
            rate: self.background.then_some(self.options.rate),
            begun: Instant::now(),
        };
        let (next, ended) = (AtomicUsize::new(0), Mutex::new((Vec::with_capacity(tasks.len()), None)));
        let background = self.background;
        let body = || {
            if background {
                sys::yield_disk();
            }
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(at) else { return };
                let result = crowd.add(0).and_then(|()| one(task, &crowd));
                let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(result) => ended.0.push((at, result)),
                    Err(e) => {
                        // The others end with an error of their own after this one.
                        crowd.has_failed.store(true, Ordering::Relaxed);
                        ended.1.get_or_insert(e);
                        return;
                    }
                }
            }
        };
        let workers = if background { workers.min(IN_BACKGROUND) } else { workers };
        in_threads(workers, &body, &mut || (self.progress)(crowd.done.load(Ordering::Relaxed), total));
        let (mut results, failure) = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        sorted::by_key(&mut results, |(at, _)| *at);
        failure.map_or_else(|| Ok(results.into_iter().map(|(_, result)| result).collect()), Err)
    }
}

/// Runs `body` in a number of threads. Calls `beat` regularly until all of them have ended, and once after that.
fn in_threads(number: usize, body: &(dyn Fn() + Sync), beat: &mut dyn FnMut()) {
    thread::scope(|scope| {
        let (working, finished) = bounded::<()>(0);
        for _ in 0..number {
            let working = working.clone();
            scope.spawn(move || {
                let _until_the_end = working;
                body();
            });
        }
        drop(working);
        while finished.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            beat();
        }
    });
    beat();
}

/// The calling thread is the only worker.
struct Alone<'a> {
    cancel: &'a Cancel,
    progress: RefCell<&'a mut dyn FnMut(u64, u64)>,
    done: Cell<u64>,
    total: u64,
}

impl Gauge for Alone<'_> {
    fn add(&self, bytes: u64) -> Result<()> {
        if bytes > 0 {
            self.done.set(self.done.get() + bytes);
            (self.progress.borrow_mut())(self.done.get(), self.total);
        }
        if self.cancel.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    fn is_background(&self) -> bool {
        false
    }
}

/// One of several workers.
struct Crowd<'a> {
    cancel: &'a Cancel,
    has_failed: AtomicBool,
    done: AtomicU64,
    /// The limit in bytes a second.
    rate: Option<u64>,
    begun: Instant,
}

impl Gauge for Crowd<'_> {
    fn add(&self, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        while let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(done as f64 / rate.max(1) as f64);
            let early = due.saturating_sub(self.begun.elapsed());
            if early.is_zero() || self.must_end() {
                break;
            }
            self.cancel.wait(early.min(BEAT));
        }
        if self.must_end() { Err(cancelled()) } else { Ok(()) }
    }

    fn is_background(&self) -> bool {
        self.rate.is_some()
    }
}

impl Crowd<'_> {
    fn must_end(&self) -> bool {
        self.cancel.is_cancelled() || self.has_failed.load(Ordering::Relaxed)
    }
}

fn cancelled() -> Error {
    Error::new(Kind::Failed, "cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<R: Send>(
        workers: usize,
        background: bool,
        one: &(dyn Fn(&u64, &dyn Gauge) -> Result<R> + Sync),
    ) -> (Result<Vec<R>>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let options = Options { workers, rate: 1 << 20, ..Options::plain() };
        let tasks: Vec<u64> = (0..50).collect();
        let mut last = 0;
        let mut progress = |done, _| last = done;
        let cancel = Cancel::new().unwrap();
        let mut work =
            Work { home: &home, options: &options, background, cancel: &cancel, progress: &mut progress };
        let result = work.each(&tasks, 1 << 30, one);
        (result, last)
    }

    #[test]
    fn results_are_in_order_and_all_is_counted_however_many_work() {
        for (workers, background) in [(1, false), (4, false), (4, true), (1, true)] {
            let (result, done) = run(workers, background, &|task, gauge| gauge.add(1).map(|()| task * 2));
            assert_eq!(result.unwrap(), (0..50).map(|n| n * 2).collect::<Vec<_>>());
            assert_eq!(done, 50);
        }
    }

    #[test]
    fn the_first_failure_ends_all_and_is_the_one_that_is_reported() {
        for workers in [1, 4] {
            let (result, _) = run(workers, false, &|task, gauge| match task {
                3 => Err(Error::new(Kind::Io, "the disk is broken")),
                _ => gauge.add(1),
            });
            assert!(result.unwrap_err().to_string().contains("broken"), "{workers}");
        }
    }

    #[test]
    fn what_is_held_back_by_its_rate_ends_when_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let options = Options { workers: 2, rate: 1, ..Options::plain() };
        let cancel = Cancel::new().unwrap();
        let token = cancel.clone();
        let begun = Instant::now();
        let mut progress = move |done, _| {
            if done > 0 {
                token.cancel();
            }
        };
        let mut work = Work {
            home: &home,
            options: &options,
            background: true,
            cancel: &cancel,
            progress: &mut progress,
        };
        // At one byte a second this would take an hour.
        let result = work.each(&[1800, 1800], 1 << 30, &|bytes, gauge| gauge.add(*bytes));
        assert!(result.unwrap_err().to_string().contains("cancelled"));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
