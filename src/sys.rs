//! The only unsafe code of the library, each use with its SAFETY argument.
//!
//! Everything else that the operating system offers comes safely through `rustix` and `std`.

#![allow(unsafe_code)]

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd, pwrite, read};
use rustix::ioctl;
use rustix::process::{
    Signal, getpid, getppid, kill_process, set_parent_process_death_signal, setpriority_process, setsid,
    umask,
};
use std::ffi::{CStr, c_char, c_int, c_long, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;

/// The umask that we were started with.
static INHERITED_UMASK: OnceLock<Mode> = OnceLock::new();

/// Has every file that is made from now on belong to our user alone, and have the mode that it is given,
/// whatever umask we were started with. Children get that one back at birth.
pub fn keep_files_private() {
    let inherited = umask(Mode::RWXG | Mode::RWXO);
    // Only the first call finds what was inherited.
    let _ = INHERITED_UMASK.set(inherited);
}

/// The steps of a child between fork and exec.
#[derive(Debug, Default)]
pub struct Birth {
    /// Whether it becomes the leader of a new session, and so of a new process group.
    pub session: bool,
    /// The signal that it gets when the *thread* that spawned it ends (prctl(2), PR_SET_PDEATHSIG).
    pub parent_death: Option<Signal>,
    /// Descriptors that it inherits. Our copies are closed when the command is dropped.
    pub inherit: Vec<OwnedFd>,
    /// A text that it writes into the first of these files, with its own `/proc/self/stat` after it.
    pub note: Option<Vec<u8>>,
}

/// The length of a note with all that is after it.
const NOTE: usize = 2048;

/// Has every child of `command` do `birth` to itself before it executes its program.
pub fn at_birth(command: &mut Command, birth: Birth) {
    let parent = getpid();
    let inherited = INHERITED_UMASK.get().copied();
    let prepare = move || {
        inherited.map(umask);
        if birth.session {
            setsid()?;
        }
        if birth.parent_death.is_some() {
            set_parent_process_death_signal(birth.parent_death)?;
            // The parent may have died before it was watched; then the signal would never come.
            if getppid() != Some(parent) {
                // An error cannot be reported any more.
                kill_process(getpid(), Signal::KILL)?;
            }
        }
        for fd in &birth.inherit {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        if let (Some(fd), Some(note)) = (birth.inherit.first(), &birth.note) {
            leave_note(fd, note)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed (signal-safety(7)). `prepare`
    // makes plain system calls through rustix, which neither allocate nor lock, reads memory that was
    // moved into it before the fork, and builds errors from bare error numbers.
    unsafe { command.pre_exec(prepare) };
}

/// Replaces the content of a file by `note`, the calling process's line of `/proc/self/stat`, and blanks. Only plain
/// system calls. The file keeps its length, so that only the first note needs space.
fn leave_note(file: &OwnedFd, note: &[u8]) -> rustix::io::Result<()> {
    let mut text = [b' '; NOTE];
    let (front, rest) = text.split_at_mut_checked(note.len()).ok_or(Errno::NAMETOOLONG)?;
    front.copy_from_slice(note);
    let source = open(c"/proc/self/stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read(&source, rest)?;
    if pwrite(file, &text, 0)? == NOTE { Ok(()) } else { Err(Errno::NOSPC) }
}

/// Executes `command` in the place of this program, with the umask that we were started with. Signals wait until that
/// program calls [`release_signals`], since before it catches them they would end it. It returns only if that fails, and
/// nothing has changed then.
pub fn exec(command: &mut Command) -> io::Error {
    let private = INHERITED_UMASK.get().copied().map(umask);
    // SAFETY: there is no fork, so this runs in our process as it is. std has just given SIGPIPE its default effect and
    // taken all signals off the mask, which would outlast an exec that fails.
    unsafe { command.pre_exec(hold_signals) };
    let failed = command.exec();
    release_signals();
    private.map(umask);
    failed
}

/// The signals of the C library: 1024 of them, in glibc and in musl.
#[repr(C)]
struct Signals([u64; 16]);

unsafe extern "C" {
    fn pthread_sigmask(how: c_int, set: *const Signals, old: *mut Signals) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
}

/// Has signals wait, also those to the program that is executed next, and ignores a pipe that is not read.
fn hold_signals() -> io::Result<()> {
    const SIGPIPE: c_int = 13;
    const IGNORE: usize = 1;
    // SAFETY: the declaration is that of signal(2) in the C library that std links anyway; no handler is called.
    unsafe { signal(SIGPIPE, IGNORE) };
    set_mask(u64::MAX)
}

/// Lets signals come that have waited since the program before us in this process was replaced.
pub fn release_signals() {
    // It cannot fail: the arguments are right.
    let _ = set_mask(0);
}

fn set_mask(each: u64) -> io::Result<()> {
    const SET: c_int = 2;
    let set = Signals([each; 16]);
    // SAFETY: the declaration is that of pthread_sigmask(3) in the C library that std links anyway; `set` is as large as
    // its `sigset_t`, and no old mask is asked for. The library keeps its own signals off the mask.
    match unsafe { pthread_sigmask(SET, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A descriptor that the program which ran in this process before us has left open for us. Our children do not inherit it.
///
/// # Errors
/// If there is none of this number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the call only looks at the number, and fails where that is not open.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nothing in this program owns it: it was open before this program began, and is asked for
    // once, by the number that the other program has given.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The process id of a child that has ended and was not yet waited for; it stays that way.
///
/// rustix offers this call without the one field that matters here, the process id.
///
/// # Errors
/// If the operating system refuses. Having no children is not an error.
pub fn peek_ended_child() -> io::Result<Option<i32>> {
    /// `siginfo_t` of 64-bit Linux as waitid(2) fills it: three ints, padding, then the process id.
    #[repr(C, align(8))]
    struct SigInfo {
        signo: c_int,
        errno: c_int,
        code: c_int,
        padding: c_int,
        pid: c_int,
        rest: [c_int; 27],
    }
    const { assert!(size_of::<SigInfo>() == 128 && cfg!(target_pointer_width = "64")) };
    const P_ALL: c_uint = 0;
    const WNOHANG: c_int = 1;
    const WEXITED: c_int = 4;
    const WNOWAIT: c_int = 0x0100_0000;
    unsafe extern "C" {
        fn waitid(idtype: c_uint, id: c_uint, info: *mut SigInfo, options: c_int) -> c_int;
    }
    let mut info = SigInfo { signo: 0, errno: 0, code: 0, padding: 0, pid: 0, rest: [0; 27] };
    // SAFETY: the declaration is that of waitid(2) in the C library that std links anyway; `info` is
    // writable, aligned and as large as the `siginfo_t` of this platform, asserted above.
    let done = unsafe { waitid(P_ALL, 0, &raw mut info, WEXITED | WNOHANG | WNOWAIT) };
    if done == 0 {
        return Ok((info.pid > 0).then_some(info.pid));
    }
    match io::Error::last_os_error() {
        none if none.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => Ok(None),
        err => Err(err),
    }
}

/// How a process has ended that is no child of ours, by its descriptor (pidfd_open(2)): a wait status, once its parent
/// has waited for it. `None` until then, and for ever where the kernel does not keep it (before Linux 6.15).
///
/// The descriptor must have been opened while the process ran.
pub fn exit_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    /// `struct pidfd_info` in its first version (`linux/pidfd.h`): what is asked for, the control group, the process
    /// and user ids, and the exit code.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const { assert!(size_of::<Info>() == 64) };
    const EXIT: u64 = 1 << 3;
    const GET_INFO: ioctl::Opcode = ioctl::opcode::read_write::<Info>(0xff, 11);
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the number is that of PIDFD_GET_INFO for a structure of this size, which the kernel reads and fills, and
    // no more than that; a kernel that does not know it refuses.
    let asked = unsafe { ioctl::ioctl(pidfd, ioctl::Updater::<GET_INFO, Info>::new(&mut info)) };
    (asked.is_ok() && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// The zone of this machine at a time, given in seconds since 1970: its name, and the seconds by which it is ahead of
/// UTC. `None` where the C library cannot convert the time.
pub fn zone_at(time: i64) -> Option<(String, i64)> {
    /// The `struct tm` of Linux on 64-bit platforms (ctime(3)), whose C libraries agree on it.
    #[repr(C)]
    struct Tm {
        fields: [c_int; 9],
        gmtoff: c_long,
        zone: *const c_char,
    }
    const { assert!(size_of::<Tm>() == 56 && cfg!(target_pointer_width = "64")) };
    unsafe extern "C" {
        fn localtime_r(time: *const i64, result: *mut Tm) -> *mut Tm;
    }
    let mut tm = Tm { fields: [0; 9], gmtoff: 0, zone: std::ptr::null() };
    // SAFETY: the declaration is that of localtime_r(3) in the C library that std links anyway, with the 64-bit
    // `time_t` of the platforms asserted above; both pointers are valid for the call.
    let done = unsafe { localtime_r(&raw const time, &raw mut tm) };
    if done.is_null() || tm.zone.is_null() {
        return None;
    }
    // SAFETY: after success `zone` points to a NUL-terminated string that the C library keeps for as long as the
    // process lives, or until the next call changes the zone; it is copied here.
    let zone = unsafe { CStr::from_ptr(tm.zone) };
    Some((zone.to_string_lossy().into_owned(), tm.gmtoff))
}

/// Has the kernel begin to write a range of a file to the disk, and does not wait for that (sync_file_range(2)). It makes
/// nothing durable: it only leaves less to do for the sync that does.
pub fn begin_writing(file: &File, at: u64, length: u64) {
    const WRITE: c_uint = 2;
    unsafe extern "C" {
        fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: c_uint) -> c_int;
    }
    if let (Ok(at), Ok(length @ 1..)) = (i64::try_from(at), i64::try_from(length)) {
        // SAFETY: the descriptor is open as long as `file` is borrowed, and no memory is handed over. The offsets have 64
        // bits in every C library for Linux.
        unsafe { sync_file_range(file.as_raw_fd(), at, length, WRITE) };
    }
}

/// Gives the calling thread, and what it starts from now on, the idle priority for the disk, where the disk's scheduler
/// knows priorities, and a low one for the processor (ioprio_set(2), setpriority(2)).
pub fn yield_disk() {
    /// The number of ioprio_set(2); None on platforms that we do not know.
    const IOPRIO_SET: Option<c_long> = if cfg!(target_arch = "x86_64") {
        Some(251)
    } else if cfg!(any(target_arch = "aarch64", target_arch = "riscv64")) {
        Some(30)
    } else {
        None
    };
    const WHO_PROCESS: c_int = 1;
    const IDLE: c_int = 3 << 13;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    if let Some(number) = IOPRIO_SET {
        let calling_thread: c_int = 0;
        // SAFETY: the number is that of ioprio_set(2) on this platform, which takes three integers and touches no memory.
        unsafe { syscall(number, WHO_PROCESS, calling_thread, IDLE) };
    }
    // Where either fails, the work only competes more with other processes.
    let _ = setpriority_process(None, 10);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd as _;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_child_dies_with_the_thread_that_spawned_it() {
        let spawn = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "exec sleep 1000"]);
            at_birth(&mut command, Birth { parent_death: Some(Signal::USR1), ..Birth::default() });
            children::spawn(&mut command).unwrap()
        };
        let mut child = std::thread::spawn(spawn).join().unwrap();
        poll(&mut [PollFd::from_borrowed_fd(child.pidfd().unwrap(), PollFlags::IN)], None).unwrap();
        assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(Signal::USR1.as_raw()));
    }

    #[test]
    fn the_kernel_keeps_the_end_of_a_process_for_who_has_its_descriptor() {
        let mut child = children::spawn(Command::new("/bin/sh").args(["-c", "exit 7"])).unwrap();
        let pidfd = child.pidfd().unwrap().try_clone_to_owned().unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(exit_of(pidfd.as_fd()), None, "its parent has not waited for it");
        child.try_wait().unwrap().unwrap();
        // Older kernels keep nothing.
        assert!(exit_of(pidfd.as_fd()).is_none_or(|status| status == 7 << 8));
    }

    #[test]
    fn every_time_has_a_zone_less_than_a_day_from_utc() {
        for time in [0, 1_772_323_199, 4_107_542_400] {
            let (name, ahead) = zone_at(time).unwrap();
            assert!(!name.is_empty() && ahead.abs() < 86_400, "{name} {ahead}");
        }
    }

    #[test]
    fn a_child_can_lead_its_own_session() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 1000"]);
        at_birth(&mut command, Birth { session: true, ..Birth::default() });
        let child = children::spawn(&mut command).unwrap();
        assert_eq!(rustix::process::getsid(Some(child.pid())).unwrap(), child.pid());
        child.signal_group(Signal::KILL).unwrap();
    }
}
