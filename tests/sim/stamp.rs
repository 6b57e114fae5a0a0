//! The stamp: options appended to a copy of this executable, so that "v1" and "v2" are two different files.
//!
//! An ELF program may be followed by anything, so the stamp is a trailer: a JSON object of option names and values, its
//! length as four little-endian bytes, and a magic word. A running node finds its own through `/proc/self/exe`, which
//! is what makes the version a property of the binary and not of the command line that a supervisor repeats.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"SIMNODE1";
const TAIL: u64 = MAGIC.len() as u64 + 4;

/// The stamp of the running program: pairs of option name and value, none if it has no stamp.
pub(crate) fn read() -> std::io::Result<Vec<(String, String)>> {
    Ok(split(&mut File::open("/proc/self/exe")?)?.1)
}

/// Writes a copy of the running program with `pairs` as its stamp, replacing any that it has itself.
pub(crate) fn write(out: &Path, pairs: &[(String, String)]) -> std::io::Result<()> {
    let mut program = File::open("/proc/self/exe")?;
    let (length, _) = split(&mut program)?;
    // The copy appears whole or not at all: a watcher may be waiting for it.
    let partial = out.with_extension(format!("partial-{}", std::process::id()));
    let mut copy =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&partial)?;
    program.seek(SeekFrom::Start(0))?;
    std::io::copy(&mut program.take(length), &mut copy)?;
    let object: serde_json::Map<_, _> =
        pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let text = serde_json::to_vec(&object)?;
    copy.write_all(&text)?;
    copy.write_all(&(text.len() as u32).to_le_bytes())?;
    copy.write_all(MAGIC)?;
    drop(copy);
    fs::rename(partial, out)
}

/// Where the program itself ends, and what is stamped behind it.
fn split(program: &mut File) -> std::io::Result<(u64, Vec<(String, String)>)> {
    let length = program.metadata()?.len();
    let mut tail = [0; TAIL as usize];
    if length < TAIL {
        return Ok((length, Vec::new()));
    }
    program.seek(SeekFrom::Start(length - TAIL))?;
    program.read_exact(&mut tail)?;
    let (size, magic) = tail.split_at(4);
    if magic != MAGIC {
        return Ok((length, Vec::new()));
    }
    let size = u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    let start = length.saturating_sub(TAIL + size);
    program.seek(SeekFrom::Start(start))?;
    let mut text = vec![0; size as usize];
    program.read_exact(&mut text)?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)?;
    let pairs = object.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()));
    Ok((start, pairs.collect()))
}
