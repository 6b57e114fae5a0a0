//! Blocks as they stand in a file: RLP, one after the other.
//!
//! A header does not hold all that the simulation knows of a block, so a block carries one transaction with the rest.

use super::chain::{Block, Params};

/// The bytes of a block.
pub(crate) fn encode(params: &Params, block: &Block, viewer: usize) -> Vec<u8> {
    let rest = serde_json::to_vec(block).unwrap_or_default();
    params.header(block, viewer).block(&rest)
}

/// The blocks in a file, whose hashes must be those of their headers.
pub(crate) fn decode(params: &Params, mut bytes: &[u8]) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let (block, rest) = item(bytes).ok_or_else(|| format!("at block {}: rlp", blocks.len()))?;
        let block = one(params, block).ok_or_else(|| format!("at block {}: no block", blocks.len()))?;
        blocks.push(block);
        bytes = rest;
    }
    Ok(blocks)
}

fn one(params: &Params, content: &[u8]) -> Option<Block> {
    let (_header, rest) = item(content)?;
    let (transactions, _uncles) = item(rest)?;
    let block: Block = serde_json::from_slice(item(transactions)?.0).ok()?;
    let hash = super::hex::data(&params.header(&block, 0).hash());
    (hash == block.hash).then_some(block)
}

/// The content of the first item, and what follows it.
fn item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = match first {
        0..0x80 => return Some(bytes.split_at(1)),
        0x80..0xb8 => (usize::from(first - 0x80), rest),
        0xb8..0xc0 => long(first - 0xb7, rest)?,
        0xc0..0xf8 => (usize::from(first - 0xc0), rest),
        0xf8..=0xff => long(first - 0xf7, rest)?,
    };
    rest.split_at_checked(length)
}

/// A length of `digits` bytes, and what follows it.
fn long(digits: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(digits.into())?;
    Some((digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest))
}
