//! The states of a file that was written and not synced, after a power cut.
//!
//! Length and bytes are independent of each other. What was written may be there, or be missing, or be there up to a
//! byte or from a byte on; every sector or page of it may be old, new or zero; and a page may hold what some other
//! file has left on the disk. Bytes that were not written to stay as they were.

use super::dice::Dice;
use super::tree::Content;
use std::sync::Arc;

/// The choice for one file.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// Nothing of it is there.
    None,
    /// All of it is there.
    All,
    /// The new length, and none of the bytes.
    Hollow,
    /// Any of them, by the dice.
    Any,
}

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// The content of a file of `old` bytes after these writes.
pub(super) fn torn(old: &Arc<Vec<u8>>, writes: &[(usize, Vec<u8>)], how: How, dice: &mut Dice) -> Content {
    let mut content = Content { base: old.clone(), patches: Vec::new(), len: old.len() };
    let full = writes.iter().map(|(offset, bytes)| offset + bytes.len()).max().unwrap_or(0).max(old.len());
    content.len = match how {
        How::None => old.len(),
        How::All | How::Hollow => full,
        How::Any => match dice.below(4) {
            0 => old.len(),
            1 => old.len() + dice.below(full - old.len() + 1),
            _ => full,
        },
    };
    for (offset, bytes) in writes {
        match how {
            How::None | How::Hollow => {}
            How::All => content.patches.push((*offset, bytes.clone())),
            How::Any => tear(*offset, bytes, &mut content.patches, dice),
        }
    }
    content
}

/// The parts of one write that are there.
fn tear(offset: usize, bytes: &[u8], patches: &mut Vec<(usize, Vec<u8>)>, dice: &mut Dice) {
    let byte = dice.below(bytes.len() + 1);
    match dice.below(8) {
        0 => patches.push((offset, bytes.to_vec())),
        1 => {}
        2 => patches.push((offset, bytes[..byte].to_vec())),
        3 => patches.push((offset + byte, bytes[byte..].to_vec())),
        kind => {
            let unit = if kind < 6 { SECTOR } else { PAGE };
            let mut at = 0;
            while at < bytes.len() {
                // Aligned to the units of the file.
                let end = ((offset + at) / unit * unit + unit - offset).min(bytes.len());
                let part = &bytes[at..end];
                match dice.below(8) {
                    0..4 => patches.push((offset + at, part.to_vec())),
                    4 => patches.push((offset + at, vec![0; part.len()])),
                    5 if kind == 7 => {
                        let left = dice.next() as u8;
                        patches.push((offset + at, part.iter().map(|b| b.wrapping_mul(31) ^ left).collect()));
                    }
                    _ => {}
                }
                at = end;
            }
        }
    }
}
