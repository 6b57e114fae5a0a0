//! The effects on the file system, as they happen, for the tests of crash states (`crate::crash`).
//!
//! Every place that changes a file or a directory names the effect right behind its system call. Outside of tests
//! that is an empty function. In tests a recorder on the same thread keeps the effects in order, and can end the run
//! behind any one of them, as SIGKILL would.

use std::path::Path;

/// One effect on the file system that has just happened.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the recorder of the tests reads it"))]
pub(crate) enum Effect<'a> {
    /// An empty file with these permission bits was made, unless there was one.
    Create(&'a Path, u32),
    /// These bytes were written to a file at this offset.
    Write(&'a Path, u64, &'a [u8]),
    /// The permission bits were changed.
    Mode(&'a Path, u32),
    /// A directory was made.
    Mkdir(&'a Path, u32),
    /// A symbolic link with this text was made at a path.
    Symlink(&'a Path, &'a Path),
    /// The first path was renamed to the second one.
    Rename(&'a Path, &'a Path),
    /// Two paths were exchanged.
    Exchange(&'a Path, &'a Path),
    /// A file, or a whole tree, was removed.
    Remove(&'a Path),
    /// A file or a directory was synced.
    Sync(&'a Path),
}

/// Names an effect that has happened.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn note(_: Effect<'_>) {}

#[cfg(test)]
pub(crate) use recorder::note;

#[cfg(test)]
pub(crate) mod recorder {
    //! The recorder.

    use super::Effect;
    use std::cell::RefCell;
    use std::panic::{self, AssertUnwindSafe, Location};
    use std::path::{Path, PathBuf};

    /// An effect with everything that it needs later, or a mark of the test.
    #[derive(Debug, Clone)]
    pub(crate) enum Op {
        Create(PathBuf, u32),
        Write(PathBuf, u64, Vec<u8>),
        Mode(PathBuf, u32),
        Mkdir(PathBuf, u32),
        Symlink(PathBuf, PathBuf),
        Rename(PathBuf, PathBuf),
        Exchange(PathBuf, PathBuf),
        Remove(PathBuf),
        /// With the place in the source that syncs.
        Sync(PathBuf, &'static Location<'static>),
        /// The step of this number has begun.
        Begin(usize),
        /// It was acknowledged.
        Ack(usize),
    }

    #[derive(Default)]
    struct Recorder {
        ops: Vec<Op>,
        /// The number of effects behind which the run ends.
        end: Option<usize>,
        effects: usize,
    }

    thread_local! {
        static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
    }

    /// The payload of the unwinding that stands for SIGKILL.
    struct Killed;

    #[track_caller]
    pub(crate) fn note(effect: Effect<'_>) {
        let place = Location::caller();
        let own = Path::to_owned;
        let killed = RECORDER.with_borrow_mut(|recorder| {
            let Some(recorder) = recorder else { return false };
            recorder.ops.push(match effect {
                Effect::Create(path, mode) => Op::Create(own(path), mode),
                Effect::Write(path, offset, bytes) => Op::Write(own(path), offset, bytes.to_vec()),
                Effect::Mode(path, mode) => Op::Mode(own(path), mode),
                Effect::Mkdir(path, mode) => Op::Mkdir(own(path), mode),
                Effect::Symlink(text, path) => Op::Symlink(own(text), own(path)),
                Effect::Rename(from, to) => Op::Rename(own(from), own(to)),
                Effect::Exchange(a, b) => Op::Exchange(own(a), own(b)),
                Effect::Remove(path) => Op::Remove(own(path)),
                Effect::Sync(path) => Op::Sync(own(path), place),
            });
            recorder.effects += 1;
            recorder.end == Some(recorder.effects)
        });
        if killed {
            // Without the hook of panics: nothing is wrong.
            panic::resume_unwind(Box::new(Killed));
        }
    }

    /// Puts a mark among the effects.
    pub(crate) fn mark(op: Op) {
        RECORDER.with_borrow_mut(|recorder| {
            if let Some(recorder) = recorder {
                recorder.ops.push(op);
            }
        });
    }

    /// Runs `work` and returns what happened. With `end` it ends behind that many effects; whether it did is the
    /// second value.
    pub(crate) fn record(end: Option<usize>, work: impl FnOnce()) -> (Vec<Op>, bool) {
        RECORDER.set(Some(Recorder { end, ..Recorder::default() }));
        let ended = panic::catch_unwind(AssertUnwindSafe(work));
        let ops = RECORDER.take().map(|recorder| recorder.ops).unwrap_or_default();
        match ended {
            Ok(()) => (ops, false),
            Err(payload) if payload.is::<Killed>() => (ops, true),
            Err(payload) => panic::resume_unwind(payload),
        }
    }
}
