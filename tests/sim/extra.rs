//! The header of a WBFT block and its `extraData`, encoded as a real node does.
//!
//! RLP by hand, one direction only: the simulated node writes blocks and never reads them back. A unit test encodes
//! recorded blocks again and compares bytes and hashes, so that a decoder made for the real thing decodes these too.

use super::keccak::keccak256;

/// One aggregated seal: who signed (bit i of byte i/8, least significant first, is entry i of the validator list).
#[derive(Clone)]
pub(crate) struct Seal {
    pub(crate) bitmap: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Seal {
    /// The seal of the list entries `positions` in a list of `len`.
    pub(crate) fn new(positions: &[usize], len: usize, signature: Vec<u8>) -> Seal {
        let mut bitmap = vec![0; len.div_ceil(8)];
        for position in positions {
            bitmap[position / 8] |= 1 << (position % 8);
        }
        Seal { bitmap, signature }
    }

    /// The list entries that signed.
    pub(crate) fn positions(&self) -> Vec<usize> {
        (0..self.bitmap.len() * 8).filter(|i| self.bitmap[i / 8] >> (i % 8) & 1 == 1).collect()
    }
}

/// The next epoch, as the last block of an epoch announces it.
#[derive(Clone)]
pub(crate) struct Epoch {
    /// Every candidate with its diligence.
    pub(crate) candidates: Vec<([u8; 20], u64)>,
    /// The validators in seal order, as indices into `candidates`.
    pub(crate) validators: Vec<usize>,
    /// Their BLS public keys, in the same order.
    pub(crate) bls: Vec<Vec<u8>>,
}

/// The decoded `extraData` of a header.
#[derive(Clone)]
pub(crate) struct Extra {
    pub(crate) vanity: Vec<u8>,
    pub(crate) randao: Vec<u8>,
    pub(crate) prev_round: u64,
    pub(crate) prev_prepared: Option<Seal>,
    pub(crate) prev_committed: Option<Seal>,
    pub(crate) round: u64,
    pub(crate) prepared: Option<Seal>,
    pub(crate) committed: Option<Seal>,
    /// Absent in the nine-field form of go-wbft.
    pub(crate) gas_tip: Option<u128>,
    pub(crate) epoch: Option<Epoch>,
}

impl Extra {
    /// The RLP list, ten fields or (without a gas tip) nine.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = vec![
            bytes(&self.vanity),
            bytes(&self.randao),
            number(self.prev_round),
            seal(&self.prev_prepared),
            seal(&self.prev_committed),
            number(self.round),
            seal(&self.prepared),
            seal(&self.committed),
        ];
        fields.extend(self.gas_tip.map(number));
        fields.push(self.epoch.as_ref().map_or_else(|| list(&[]), |epoch| self.encode_epoch(epoch)));
        list(&fields)
    }

    fn encode_epoch(&self, epoch: &Epoch) -> Vec<u8> {
        let candidate = |(address, diligence): &([u8; 20], u64)| list(&[bytes(address), number(*diligence)]);
        let mut fields = vec![
            list(&epoch.candidates.iter().map(candidate).collect::<Vec<_>>()),
            list(&epoch.validators.iter().map(|index| number(*index as u64)).collect::<Vec<_>>()),
            list(&epoch.bls.iter().map(|key| bytes(key)).collect::<Vec<_>>()),
        ];
        if self.gas_tip.is_none() {
            // go-wbft appends whether the set is still stabilizing.
            fields.push(number(0u64));
        }
        list(&fields)
    }

    /// The part that the block hash covers: round and the block's own seals may differ between nodes, so they are left out.
    fn hashed(&self) -> Extra {
        Extra { round: 0, prepared: None, committed: None, ..self.clone() }
    }
}

/// A block header without what is the same in every block of the simulation.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) parent: [u8; 32],
    pub(crate) miner: [u8; 20],
    pub(crate) state_root: [u8; 32],
    pub(crate) number: u64,
    pub(crate) time: u64,
    pub(crate) extra: Extra,
    pub(crate) mix: [u8; 32],
}

/// Keccak of an empty list: no uncles.
pub(crate) const NO_UNCLES: &str = "1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";
/// The root of an empty trie: no transactions, no receipts.
pub(crate) const EMPTY_ROOT: &str = "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421";
/// Gas limit and base fee as recorded; blocks are empty, so they never move.
pub(crate) const GAS_LIMIT: u64 = 0x0642_2c40;
pub(crate) const BASE_FEE: u64 = 0x1230_9ce5_4000;

impl Header {
    /// The block hash.
    pub(crate) fn hash(&self) -> [u8; 32] {
        keccak256(&self.encode(&self.extra.hashed()))
    }

    /// Bytes of the whole (empty) block, which is what RPC calls its size.
    pub(crate) fn size(&self) -> u64 {
        list(&[self.encode(&self.extra), list(&[]), list(&[])]).len() as u64
    }

    /// The whole block with this one transaction.
    pub(crate) fn block(&self, transaction: &[u8]) -> Vec<u8> {
        list(&[self.encode(&self.extra), list(&[bytes(transaction)]), list(&[])])
    }

    fn encode(&self, extra: &Extra) -> Vec<u8> {
        let fixed = |digits: &str| super::hex::decode(digits).unwrap_or_default();
        list(&[
            bytes(&self.parent),
            bytes(&fixed(NO_UNCLES)),
            bytes(&self.miner),
            bytes(&self.state_root),
            bytes(&fixed(EMPTY_ROOT)),
            bytes(&fixed(EMPTY_ROOT)),
            bytes(&[0; 256]),
            number(1u64),
            number(self.number),
            number(GAS_LIMIT),
            number(0u64),
            number(self.time),
            bytes(&extra.encode()),
            bytes(&self.mix),
            bytes(&[0; 8]),
            number(BASE_FEE),
        ])
    }
}

/// The 32 bytes a node puts first into the blocks it proposes: RLP of version, client, compiler and system.
pub(crate) fn vanity(version: &str) -> Vec<u8> {
    let mut parts =
        version.trim_start_matches('v').split(['.', '-']).map(|part| part.parse().unwrap_or(0u64));
    let packed = (0..3).fold(0, |packed, _| packed << 8 | (parts.next().unwrap_or(0) & 0xff));
    let mut text = list(&[number(packed), bytes(b"geth"), bytes(b"go1.26.6"), bytes(b"linux")]);
    text.resize(32, 0);
    text
}

fn seal(seal: &Option<Seal>) -> Vec<u8> {
    match seal {
        Some(seal) => list(&[bytes(&seal.bitmap), bytes(&seal.signature)]),
        None => list(&[]),
    }
}

fn number(value: impl Into<u128>) -> Vec<u8> {
    let big = value.into().to_be_bytes();
    let leading = big.iter().take_while(|byte| **byte == 0).count();
    bytes(&big[leading..])
}

fn bytes(data: &[u8]) -> Vec<u8> {
    match data {
        [single] if *single < 0x80 => vec![*single],
        _ => [prefix(0x80, data.len()), data.to_vec()].concat(),
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let body = items.concat();
    [prefix(0xc0, body.len()), body].concat()
}

fn prefix(kind: u8, len: usize) -> Vec<u8> {
    if len <= 55 {
        return vec![kind + len as u8];
    }
    let big = len.to_be_bytes();
    let digits = &big[big.iter().take_while(|byte| **byte == 0).count()..];
    [&[kind + 55 + digits.len() as u8], digits].concat()
}

#[cfg(test)]
mod tests;
