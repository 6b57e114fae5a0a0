//! Whether a file can be the node's binary on this machine, judged by its ELF header.
//!
//! The operating system would only say "exec format error", and only when the old node is down
//! already. Scripts are refused: what they run can change without their digest changing. The
//! layout is that of elf(5); a file that was cut short is noticed by its segments.

use super::regular;
use crate::error::{Doing as _, Error, Kind, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// `e_machine` of the machines that have a name here.
const MACHINES: [(u16, &str); 6] =
    [(3, "x86"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64"), (258, "loongarch64")];

/// How packed files begin.
const PACKED: [(&[u8], &str); 5] = [
    (b"\xfd7zX", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
];

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// Opens a file that may be the node's binary, having checked that it is a regular, non-empty,
/// executable ELF file for this machine. The last component must not be a link.
///
/// # Errors
/// [`Kind::BadInput`] with what is wrong, or the refusal of the operating system.
pub fn open(path: &Path) -> Result<File> {
    let file = open_regular(path)?;
    let mode = file.metadata().doing("inspect", path)?.mode();
    if mode & 0o111 == 0 {
        return Err(bad(path, "is not executable").hint("chmod 0755 it if it is the right file"));
    }
    check_elf(&file, path)?;
    Ok(file)
}

/// Opens a regular file for reading, without following a link and without waiting for anything.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    match regular::open_no_link(path) {
        Ok((file, _)) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(bad(path, "is not a regular file")),
        Err(e) => Err(match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::LOOP) => bad(path, "is a symbolic link").hint("name the file itself"),
            _ => Error::io("open", path, e),
        }),
    }
}

/// Checks that an open file is a whole ELF program for this machine; its mode does not matter.
///
/// # Errors
/// As [`open`].
pub fn check_elf(file: &File, path: &Path) -> Result<()> {
    let read = |buf: &mut [u8], at| file.read_exact_at(buf, at);
    let len = file.metadata().doing("inspect", path)?.len();
    if len == 0 {
        return Err(bad(path, "is empty"));
    }
    let cut = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => bad(path, "is cut short"),
        _ => Error::io("read", path, e),
    };
    let mut magic = [0; 4];
    let readable = usize::try_from(len).unwrap_or(usize::MAX).min(magic.len());
    read(&mut magic[..readable], 0).map_err(cut)?;
    if magic.starts_with(b"#!") {
        return Err(bad(path, "is a script, not a program")
            .hint("scripts cannot be verified as a node's binary; name the program"));
    }
    if let Some(packed) = PACKED.iter().find(|(start, _)| magic.starts_with(start)).map(|(_, name)| name) {
        return Err(bad(path, &format!("is packed by {packed}, not a program"))
            .hint("unpack it; a download may be packed as .gz, .tar.gz or .zip, by the name in its URL"));
    }
    if magic != *b"\x7fELF" {
        return Err(bad(path, "is not a Linux program (no ELF header)"));
    }
    let mut header = [0; HEADER];
    read(&mut header, 0).map_err(cut)?;
    let wide = cfg!(target_pointer_width = "64") && cfg!(target_endian = "little");
    if (header[4], header[5]) != (2, 1) || !wide {
        return Err(bad(path, "is not a 64-bit little-endian program"));
    }
    let machine = u16_at(&header, 18);
    let name = MACHINES.iter().find(|(m, _)| *m == machine).map_or("an unknown machine", |(_, n)| n);
    if name != std::env::consts::ARCH {
        return Err(bad(path, &format!("is for {name}, this machine is {}", std::env::consts::ARCH)));
    }
    // ET_EXEC or ET_DYN (position-independent); a program has an entry point, a plug-in has none.
    if !matches!(u16_at(&header, 16), 2 | 3) || u64_at(&header, 24) == 0 {
        return Err(bad(path, "is an ELF file but not a program"));
    }
    let (start, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != PROGRAM_HEADER || count == 0 {
        return Err(bad(path, "is an ELF file without segments"));
    }
    let table = u64::from(count) * PROGRAM_HEADER as u64;
    if start.checked_add(table).is_none_or(|end| end > len) {
        return Err(bad(path, "is cut short"));
    }
    for index in 0..u64::from(count) {
        let mut segment = [0; PROGRAM_HEADER];
        read(&mut segment, start + index * PROGRAM_HEADER as u64).map_err(cut)?;
        let end = u64_at(&segment, 8).checked_add(u64_at(&segment, 32));
        if end.is_none_or(|end| end > len) {
            return Err(bad(path, "is cut short"));
        }
    }
    Ok(())
}

fn bad(path: &Path, what: &str) -> Error {
    Error::new(Kind::BadInput, format!("the file {what}")).at(path.display())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// The bytes of a file that looks like a program for this machine and ends with `payload`.
    pub(crate) fn elf(payload: &[u8]) -> Vec<u8> {
        let machine = MACHINES.iter().find(|(_, n)| *n == std::env::consts::ARCH).unwrap().0;
        let len = (HEADER + PROGRAM_HEADER + payload.len()) as u64;
        let mut bytes = vec![0; HEADER + PROGRAM_HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 2;
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[24] = 1;
        bytes[32] = HEADER as u8;
        bytes[54] = PROGRAM_HEADER as u8;
        bytes[56] = 1;
        bytes[HEADER] = 1;
        bytes[HEADER + 32..HEADER + 40].copy_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Writes such a file, executable.
    pub(crate) fn write_elf(path: &Path, payload: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, elf(payload)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn refused(bytes: &[u8], mode: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let err = open(&path).unwrap_err();
        assert_eq!(err.kind(), Kind::BadInput);
        err.to_string()
    }

    #[test]
    fn real_programs_of_this_machine_are_accepted() {
        open(&std::env::current_exe().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_elf(&dir.path().join("x"), b"payload");
        open(&dir.path().join("x")).unwrap();
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let patched = |at: usize, byte: u8| {
            let mut bytes = elf(b"");
            bytes[at] = byte;
            bytes
        };
        assert!(refused(b"", 0o755).contains("empty"));
        assert!(refused(b"#!/bin/sh\n", 0o755).contains("script"));
        assert!(refused(b"MZ\0\0", 0o755).contains("not a Linux program"));
        assert!(refused(b"\xfd7zXZ\0\0", 0o755).contains("is packed by xz, not a program"));
        assert!(refused(b"\x28\xb5\x2f\xfd\x24", 0o755).contains("is packed by zstd"));
        assert!(refused(b"\x7f", 0o755).contains("not a Linux program"));
        assert!(refused(&elf(b""), 0o644).contains("not executable"));
        assert!(refused(&elf(b"")[..40], 0o755).contains("cut short"));
        assert!(refused(&elf(b"payload")[..120], 0o755).contains("cut short"));
        assert!(refused(&patched(4, 1), 0o755).contains("64-bit"));
        assert!(refused(&patched(5, 2), 0o755).contains("64-bit"));
        assert!(refused(&patched(16, 1), 0o755).contains("not a program"));
        assert!(refused(&patched(24, 0), 0o755).contains("not a program"));
        assert!(refused(&patched(18, 40), 0o755).contains("is for arm, this machine is"));
        assert!(refused(&patched(18, 99), 0o755).contains("unknown machine"));
        assert!(refused(&patched(39, 0xff), 0o755).contains("cut short"));
    }

    #[test]
    fn directories_links_and_pipes_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("not a regular file"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &link).unwrap();
        assert!(open(&link).unwrap_err().to_string().contains("symbolic link"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert!(open(&pipe).unwrap_err().to_string().contains("not a regular file"));
    }
}
