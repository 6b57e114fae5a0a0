//! Space and memory: enough of both before a rehearsal begins, and an end of it before the running node lacks either.

use crate::error::{Error, Kind, Result};
use crate::home::space::{self, Amount};
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Space that a rehearsal leaves to the running node, and space for what the shadow writes besides.
const SPACE: u64 = 512 * MIB;
const WRITES: u64 = 512 * MIB;
/// The same of files.
const FILES: u64 = 1000;
/// Memory that a rehearsal leaves to everything else, of the whole and at most.
const MEMORY: (u64, u64) = (20, 512 * MIB);

/// The memory of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

/// Refuses a rehearsal whose clone would need more at `place` than there is, of bytes or of files, or more memory: about
/// as much as the running node, `resident`.
///
/// # Errors
/// [`Kind::NotMet`] with the numbers.
pub(super) fn check(place: &Path, (bytes, files): (u64, u64), resident: u64) -> Result<()> {
    let with_reserve =
        Amount { bytes: bytes.saturating_add(SPACE + WRITES), files: files.saturating_add(2 * FILES) };
    if let Some(lacking) = space::lacking(with_reserve, Amount::free(place)?) {
        let hint = "make room, or set daemon_data_backup_dir to the file system of the data, where most files need no copy";
        let what = "too little space for a rehearsal";
        return Err(Error::new(Kind::NotMet, what).at(place.display()).because(lacking).hint(hint));
    }
    let Some(memory) = memory() else { return Ok(()) };
    let need = resident.saturating_add(floor(memory));
    if memory.available < need {
        let numbers =
            format!("it needs {} MiB, {} MiB are available", need.div_ceil(MIB), memory.available / MIB);
        return Err(Error::new(Kind::NotMet, "too little memory for a rehearsal")
            .because(numbers)
            .hint("rehearse on a machine with more memory, or lower the node's --cache"));
    }
    Ok(())
}

/// The resource that has become scarce, in words; None while there is enough.
pub(super) fn scarce(place: &Path) -> Option<String> {
    let left = |left: u64, unit: &str, floor: u64| {
        (left < floor).then(|| format!("{left} {unit} are left, and {floor} are the running node's"))
    };
    let free = Amount::free(place).unwrap_or(Amount { bytes: u64::MAX, files: u64::MAX });
    let space = left(free.bytes / MIB, "MiB of space", SPACE / MIB);
    let files = || left(free.files, "inodes", FILES);
    let memory =
        || memory().and_then(|memory| left(memory.available / MIB, "MiB of memory", floor(memory) / MIB));
    space.or_else(files).or_else(memory)
}

/// A line of `/proc/meminfo` or `/proc/PID/status`, in bytes.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn floor(memory: Memory) -> u64 {
    (memory.total / MEMORY.0).min(MEMORY.1)
}

/// `None` where the kernel does not report it.
fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some(Memory { total: field(&text, "MemTotal:")?, available: field(&text, "MemAvailable:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text =
            "MemTotal:       24684544 kB\nMemFree: 1 kB\nMemAvailable:   18000000 kB\nHugePages_Total:  7\n";
        assert_eq!(field(text, "MemAvailable:"), Some(18_000_000 * 1024));
        assert_eq!((field(text, "HugePages_Total:"), field(text, "Gone:")), (None, None));
        assert!(memory().is_some_and(|memory| memory.available <= memory.total));
    }

    #[test]
    fn what_is_lacking_is_said_in_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |bytes, resident| check(dir.path(), (bytes, 0), resident).unwrap_err();
        let space = refused(1 << 60, 0);
        assert_eq!(space.kind(), Kind::NotMet);
        assert!(space.to_string().starts_with("too little space for a rehearsal: "), "{space}");
        let files = check(dir.path(), (0, 1 << 60), 0).unwrap_err().to_string();
        assert!(files.contains("inodes, ") && files.starts_with("too little space"), "{files}");
        let memory = refused(0, 1 << 50).to_string();
        assert!(memory.starts_with("too little memory for a rehearsal: it needs 1073"), "{memory}");
    }

    #[test]
    fn a_small_machine_gives_up_less() {
        assert_eq!(floor(Memory { total: 1000 * MIB, available: 0 }), 50 * MIB);
        assert_eq!(floor(Memory { total: 1 << 40, available: 0 }), 512 * MIB);
    }
}
