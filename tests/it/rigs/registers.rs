//! The registers of a thread at the entry and the exit of a system call.
//!
//! Only `x86_64` is in use where these tests run; on `aarch64` they follow ptrace(2) and syscall(2), and are not tested.

use nix::errno::Errno;
use nix::sys::ptrace::{getregs, setregs};
use nix::unistd::Pid;

/// The number and the arguments of the call that a thread is about to make. None if it was killed.
#[cfg(target_arch = "x86_64")]
pub(super) fn call(thread: Pid) -> Option<(i64, [u64; 6])> {
    let regs = getregs(thread).ok()?;
    Some((regs.orig_rax.cast_signed(), [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]))
}

/// Makes the kernel skip the call that a thread is about to make.
#[cfg(target_arch = "x86_64")]
pub(super) fn void(thread: Pid) {
    if let Ok(mut regs) = getregs(thread) {
        regs.orig_rax = u64::MAX;
        let _ = setregs(thread, regs);
    }
}

/// Makes the call that a thread has made return an error.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_error(thread: Pid, errno: Errno) {
    if let Ok(mut regs) = getregs(thread) {
        regs.rax = (-i64::from(errno as i32)).cast_unsigned();
        let _ = setregs(thread, regs);
    }
}

/// The number and the arguments of the call that a thread is about to make. None if it was killed.
#[cfg(target_arch = "aarch64")]
pub(super) fn call(thread: Pid) -> Option<(i64, [u64; 6])> {
    let regs = getregs(thread).ok()?.regs;
    Some((regs[8].cast_signed(), [regs[0], regs[1], regs[2], regs[3], regs[4], regs[5]]))
}

/// Makes the kernel refuse the call that a thread is about to make: its number cannot be changed by way of these
/// registers, but no call does anything with arguments that are all −1.
#[cfg(target_arch = "aarch64")]
pub(super) fn void(thread: Pid) {
    if let Ok(mut regs) = getregs(thread) {
        regs.regs[..6].fill(u64::MAX);
        let _ = setregs(thread, regs);
    }
}

/// Makes the call that a thread has made return an error.
#[cfg(target_arch = "aarch64")]
pub(super) fn set_error(thread: Pid, errno: Errno) {
    if let Ok(mut regs) = getregs(thread) {
        regs.regs[0] = (-i64::from(errno as i32)).cast_unsigned();
        let _ = setregs(thread, regs);
    }
}
