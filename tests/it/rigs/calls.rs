//! The system calls that change something outside the process: which they are, and what they act on.
//!
//! Only these are points at which a crash can leave another state behind, so only these are counted. A write to a
//! socket or a pipe is none: it leaves nothing behind when both ends are gone.

use nix::libc;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// One system call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its number on this architecture.
    pub(crate) number: i64,
    /// Its name.
    pub(crate) name: &'static str,
    /// The paths that it acts on, as far as they can be known.
    pub(crate) on: Vec<String>,
}

impl Call {
    /// Whether it has this name and acts on a path that ends so.
    pub(crate) fn is(&self, name: &str, on: &str) -> bool {
        self.name == name && self.on.iter().any(|path| path.ends_with(on))
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.on.join(" "))
    }
}

/// The meaning of an argument.
#[derive(Clone, Copy)]
enum Arg {
    /// The address of a path.
    Path(usize),
    /// A descriptor.
    Fd(usize),
}

/// When a call counts.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// The flags of an open in this argument allow a change.
    OpensForWriting(usize),
    /// The descriptor in this argument is a file, not on a socket, a pipe or a terminal.
    OnFile(usize),
    /// The command of a `fcntl` takes or releases a lock.
    Locks,
    /// The request of an `ioctl` shares the content of a file.
    Clones,
    /// The signal in this argument is a signal, and no question whether the process exists.
    Signals(usize),
    /// It makes a process and not a thread, by the flags in the first argument or at its address.
    MakesProcess {
        by_address: bool,
    },
}

use Arg::{Fd, Path};
use When::{Always, Clones, Locks, MakesProcess, OnFile, OpensForWriting, Signals};

type Row = (i64, &'static str, When, &'static [Arg]);

macro_rules! rows {
    ($($number:ident $name:literal $when:expr, [$($arg:expr),*];)*) => {
        &[$((libc::$number, $name, $when, &[$($arg),*])),*]
    };
}

/// The calls that every architecture has.
const EVERYWHERE: &[Row] = rows! {
    SYS_openat "openat" OpensForWriting(2), [Path(1)];
    SYS_write "write" OnFile(0), [Fd(0)];
    SYS_pwrite64 "pwrite64" OnFile(0), [Fd(0)];
    SYS_writev "writev" OnFile(0), [Fd(0)];
    SYS_pwritev "pwritev" OnFile(0), [Fd(0)];
    SYS_pwritev2 "pwritev2" OnFile(0), [Fd(0)];
    SYS_copy_file_range "copy_file_range" OnFile(2), [Fd(2)];
    SYS_sendfile "sendfile" OnFile(0), [Fd(0)];
    SYS_renameat "renameat" Always, [Path(1), Path(3)];
    SYS_renameat2 "renameat2" Always, [Path(1), Path(3)];
    SYS_linkat "linkat" Always, [Path(1), Path(3)];
    SYS_symlinkat "symlinkat" Always, [Path(0), Path(2)];
    SYS_unlinkat "unlinkat" Always, [Path(1)];
    SYS_mkdirat "mkdirat" Always, [Path(1)];
    SYS_mknodat "mknodat" Always, [Path(1)];
    SYS_truncate "truncate" Always, [Path(0)];
    SYS_ftruncate "ftruncate" Always, [Fd(0)];
    SYS_fallocate "fallocate" Always, [Fd(0)];
    SYS_fsync "fsync" Always, [Fd(0)];
    SYS_fdatasync "fdatasync" Always, [Fd(0)];
    SYS_syncfs "syncfs" Always, [Fd(0)];
    SYS_fchmod "fchmod" Always, [Fd(0)];
    SYS_fchmodat "fchmodat" Always, [Path(1)];
    SYS_fchown "fchown" Always, [Fd(0)];
    SYS_fchownat "fchownat" Always, [Path(1)];
    SYS_utimensat "utimensat" Always, [Path(1)];
    SYS_flock "flock" Always, [Fd(0)];
    SYS_fcntl "fcntl" Locks, [Fd(0)];
    SYS_ioctl "ioctl" Clones, [Fd(0)];
    SYS_kill "kill" Signals(1), [];
    SYS_pidfd_send_signal "pidfd_send_signal" Signals(1), [];
    SYS_clone "clone" MakesProcess { by_address: false }, [];
    SYS_clone3 "clone3" MakesProcess { by_address: true }, [];
    SYS_execve "execve" Always, [Path(0)];
    SYS_execveat "execveat" Always, [Path(1)];
};

/// The older calls that newer architectures have no more.
#[cfg(target_arch = "x86_64")]
const OLDER: &[Row] = rows! {
    SYS_open "open" OpensForWriting(1), [Path(0)];
    SYS_creat "creat" Always, [Path(0)];
    SYS_rename "rename" Always, [Path(0), Path(1)];
    SYS_link "link" Always, [Path(0), Path(1)];
    SYS_symlink "symlink" Always, [Path(0), Path(1)];
    SYS_unlink "unlink" Always, [Path(0)];
    SYS_mkdir "mkdir" Always, [Path(0)];
    SYS_rmdir "rmdir" Always, [Path(0)];
    SYS_mknod "mknod" Always, [Path(0)];
    SYS_chmod "chmod" Always, [Path(0)];
    SYS_chown "chown" Always, [Path(0)];
    SYS_lchown "lchown" Always, [Path(0)];
    SYS_fork "fork" Always, [];
    SYS_vfork "vfork" Always, [];
};

#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[Row] = &[];

/// The call that a thread is about to make, if it changes something.
pub(super) fn mutating(thread: Pid, number: i64, args: [u64; 6]) -> Option<Call> {
    let (_, name, when, acts_on) = EVERYWHERE.iter().chain(OLDER).find(|row| row.0 == number)?;
    if !counts(*when, thread, args) {
        return None;
    }
    let on = acts_on.iter().map(|arg| match *arg {
        Path(at) => path_at(thread, args[at]),
        Fd(at) => target_of(thread, args[at]),
    });
    Some(Call { number, name, on: on.collect() })
}

fn counts(when: When, thread: Pid, args: [u64; 6]) -> bool {
    let is_one_of = |value: u64, known: &[i32]| {
        u32::try_from(value).is_ok_and(|value| known.contains(&value.cast_signed()))
    };
    match when {
        Always => true,
        OpensForWriting(at) => {
            let may_change = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
            args[at] & u64::from(may_change.cast_unsigned()) != 0
        }
        OnFile(at) => {
            let target = target_of(thread, args[at]);
            // The homes of the rigs may be in memory.
            let is_device = target.starts_with("/dev/") && !target.starts_with("/dev/shm/");
            target.starts_with("std") || target.starts_with('/') && !is_device
        }
        Locks => is_one_of(args[1], &[libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW]),
        // FICLONE and FICLONERANGE of ioctl_ficlonerange(2).
        Clones => [0x4004_9409, 0x4020_940d].contains(&args[1]),
        Signals(at) => args[at] != 0,
        MakesProcess { by_address } => {
            let flags = if by_address { word_at(thread, args[0]) } else { args[0] };
            flags & u64::from(libc::CLONE_THREAD.cast_unsigned()) == 0
        }
    }
}

/// The target of a descriptor of a thread.
fn target_of(thread: Pid, fd: u64) -> String {
    match fd {
        1 => return "stdout".into(),
        2 => return "stderr".into(),
        _ => {}
    }
    let target = fs::read_link(format!("/proc/{thread}/fd/{fd}"));
    target.map_or_else(|_| "?".into(), |target| target.to_string_lossy().into_owned())
}

/// The text at an address of a thread.
fn path_at(thread: Pid, address: u64) -> String {
    let mut bytes = [0; libc::PATH_MAX as usize];
    // The bytes behind the text may lie on a page that is not there, so fewer bytes than requested are fine.
    let read = memory(thread, &mut bytes, address);
    let text = bytes[..read].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn word_at(thread: Pid, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory(thread, &mut bytes, address);
    u64::from_ne_bytes(bytes)
}

fn memory(thread: Pid, bytes: &mut [u8], address: u64) -> usize {
    File::open(format!("/proc/{thread}/mem")).and_then(|file| file.read_at(bytes, address)).unwrap_or(0)
}
