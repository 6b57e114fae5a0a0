//! A disk of our own whose power can be cut: an ext4 file system in a loop device.
//!
//! `EXT4_IOC_SHUTDOWN` lets nothing more reach the disk. What the program has not synced is lost, unless the kernel has
//! written it before; the journal is replayed by the next mount. That the device itself loses what it was not told to
//! flush cannot be shown in this way.
//!
//! It needs root, and mounts. `scripts/torture` finds out whether it may, and gives the mounts a namespace of their own.

use crate::rig::sim::until;
use nix::libc;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// `_IOR('X', 125, __u32)`.
const SHUTDOWN: u32 = 0x8004_587d;
/// The journal is written before the end, and the data that is not in it is lost.
const LOGFLUSH: u32 = 1;
/// Nothing is written.
const NOLOGFLUSH: u32 = 2;
/// Bytes; no more than what is written takes room.
const SIZE: u64 = 256 << 20;

/// A disk, unmounted when it is dropped.
pub(super) struct Disk {
    dir: TempDir,
}

/// The power switch of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Plug {
    mount: PathBuf,
    /// Whether the journal is written before.
    is_late: bool,
}

impl Disk {
    /// Whether disks may be made, as `scripts/torture` says.
    pub(super) fn is_permitted() -> bool {
        let permitted = std::env::var_os("RIG_MAY_MOUNT").is_some();
        if !permitted {
            eprintln!("SKIPPED: no power is cut without RIG_MAY_MOUNT, which scripts/torture sets");
        }
        permitted
    }

    pub(super) fn new() -> Disk {
        let disk = Disk { dir: tempfile::tempdir().unwrap() };
        File::create(disk.image()).unwrap().set_len(SIZE).unwrap();
        fs::create_dir(disk.mount()).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()));
        disk.insert();
        disk
    }

    /// Where it is mounted.
    pub(super) fn mount(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Without `noauto_da_alloc` the kernel would flush for programs that do not sync what they rename.
    fn insert(&self) {
        let mut mount = Command::new("mount");
        run(mount.args(["-o", "loop,noauto_da_alloc"]).arg(self.image()).arg(self.mount()));
    }

    /// Has everything reach the disk.
    pub(super) fn sync(&self) {
        rustix::fs::syncfs(File::open(self.mount()).unwrap()).unwrap();
    }

    /// Its power switch: one half of the calls has the journal written before.
    pub(super) fn plug(&self, at: usize) -> Plug {
        Plug { mount: self.mount(), is_late: at.is_multiple_of(2) }
    }

    /// The machine starts again.
    pub(super) fn restart(&self) {
        self.eject();
        self.insert();
    }

    fn eject(&self) {
        // A child of another test may have inherited a descriptor until it executes, and a dying process takes its time.
        until("the end of all that uses the disk", || {
            Command::new("umount").arg(self.mount()).output().unwrap().status.success().then_some(())
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("umount").arg("--lazy").arg(self.mount()).status();
        } else {
            self.eject();
        }
    }
}

impl Plug {
    /// Cuts the power.
    #[expect(unsafe_code, reason = "no crate that we have knows this request")]
    pub(super) fn pull(&self) {
        let mount = File::open(&self.mount).unwrap();
        let flags = if self.is_late { LOGFLUSH } else { NOLOGFLUSH };
        // SAFETY: the request reads 32 bits at an address that is valid during the call.
        let result = unsafe { libc::ioctl(mount.as_raw_fd(), SHUTDOWN as _, &raw const flags) };
        assert_eq!(result, 0, "shut down {}: {}", self.mount.display(), std::io::Error::last_os_error());
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
