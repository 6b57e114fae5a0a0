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
    /// This many bytes, which are in the file now, were put there at this offset.
    Filled(&'a Path, u64, u64),
    /// A file got a second name.
    Hardlink(&'a Path, &'a Path),
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
    /// The file system was synced that this directory is on; what is in it counts.
    SyncAll(&'a Path),
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
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt as _;
    use std::panic::{self, AssertUnwindSafe, Location};
    use std::path::{Path, PathBuf};

    /// An effect with everything that it needs later, or a mark of the test.
    #[derive(Debug, Clone)]
    pub(crate) enum Op {
        Create(PathBuf, u32),
        Write(PathBuf, u64, Vec<u8>),
        Hardlink(PathBuf, PathBuf),
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
            let before = recorder.ops.len();
            match effect {
                Effect::Create(path, mode) => recorder.ops.push(Op::Create(own(path), mode)),
                Effect::Write(path, offset, bytes) => {
                    recorder.ops.push(Op::Write(own(path), offset, bytes.to_vec()));
                }
                Effect::Filled(path, offset, len) => {
                    recorder.ops.push(Op::Write(own(path), offset, read(path, offset, len)));
                }
                Effect::Hardlink(from, to) => recorder.ops.push(Op::Hardlink(own(from), own(to))),
                Effect::Mode(path, mode) => recorder.ops.push(Op::Mode(own(path), mode)),
                Effect::Mkdir(path, mode) => recorder.ops.push(Op::Mkdir(own(path), mode)),
                Effect::Symlink(text, path) => recorder.ops.push(Op::Symlink(own(text), own(path))),
                Effect::Rename(from, to) => recorder.ops.push(Op::Rename(own(from), own(to))),
                Effect::Exchange(a, b) => recorder.ops.push(Op::Exchange(own(a), own(b))),
                Effect::Remove(path) => recorder.ops.push(Op::Remove(own(path))),
                Effect::Sync(path) => recorder.ops.push(Op::Sync(own(path), place)),
                Effect::SyncAll(path) => {
                    recorder.ops.extend(all_of(path).into_iter().map(|path| Op::Sync(path, place)));
                }
            }
            let (so_far, more) = (recorder.effects, recorder.ops.len() - before);
            recorder.effects += more;
            recorder.end.is_some_and(|end| (so_far + 1..=so_far + more).contains(&end))
        });
        if killed {
            // Without the hook of panics: nothing is wrong.
            panic::resume_unwind(Box::new(Killed));
        }
    }

    fn read(path: &Path, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    /// Everything in a directory that can be synced, and the directory itself.
    fn all_of(dir: &Path) -> Vec<PathBuf> {
        let mut all = vec![dir.to_owned()];
        let mut at = 0;
        while at < all.len() {
            let entries = fs::read_dir(&all[at]).into_iter().flatten().flatten();
            let found: Vec<_> = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file()))
                .map(|entry| entry.path())
                .collect();
            all.extend(found);
            at += 1;
        }
        all.reverse();
        all
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
