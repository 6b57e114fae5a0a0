//! The contents of `extraData` in a WBFT header: round, seals and, at the end of an epoch, the next validators.
//!
//! Recorded from go-stablenet (ten fields) and, by source, the same of go-wbft (nine: no gas tip). Seals name validators
//! by their index in the set that seals the block, or, for the seals of the block before, in the set of that block. So
//! the header that `eth` serves has everything that the `istanbul` methods report, wherever those are not served.

use super::hex::Address;
use super::rlp::{BadRlp, Item, list};
use crate::sorted::Set;
use std::fmt;

/// No set is larger; it bounds what a malformed header can make us do.
const MAX_VALIDATORS: usize = 4096;

/// The decoded `extraData` of a header.
///
/// ```
/// use wemixvisor::wbft::Extra;
/// assert!(Extra::decode(b"not rlp").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// The proposer's vanity text; the genesis block has none.
    pub vanity: Vec<u8>,
    /// The proposer's signature that makes the next block's randomness. Empty in the genesis block.
    pub randao_reveal: Vec<u8>,
    /// The round in which the block before was decided.
    pub prev_round: u64,
    /// The validators that prepared the block before, late votes included.
    pub prev_prepared: Option<Seal>,
    /// The validators that committed the block before, late votes included: the only place where liveness shows.
    pub prev_committed: Option<Seal>,
    /// The round in which this block was decided. Not covered by the hash.
    pub round: u64,
    /// The validators that prepared this block, as this node saw it. Not covered by the hash.
    pub prepared: Option<Seal>,
    /// The first quorum that committed this block, as this node saw it. Not covered by the hash.
    pub committed: Option<Seal>,
    /// The gas tip, in the smallest unit, where the software knows one.
    pub gas_tip: Option<u128>,
    /// In the last block of an epoch: the validators of the next.
    pub epoch: Option<EpochInfo>,
}

/// An aggregated signature and its signers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Bit *i* of byte *i*/8, least significant first, is the validator with index *i*.
    pub bitmap: Vec<u8>,
    /// The aggregated BLS signature.
    pub signature: Vec<u8>,
}

/// The next epoch, as the last block of an epoch announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochInfo {
    /// The candidates, with their diligence in units of 10⁻⁶.
    pub candidates: Vec<(Address, u64)>,
    /// The chosen ones, as indices of candidates, in the order of the seals: at least one, none twice.
    pub validators: Vec<usize>,
    /// Their BLS public keys.
    pub bls_public_keys: Vec<Vec<u8>>,
    /// Whether the network is still in its stabilizing stage, where the software reports that.
    pub stabilizing: Option<bool>,
}

/// Why bytes are not the `extraData` of a WBFT header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExtra {
    field: &'static str,
    why: &'static str,
}

impl Extra {
    /// Decodes `extraData`.
    ///
    /// # Errors
    /// If it is not the `extraData` of a WBFT header.
    pub fn decode(bytes: &[u8]) -> Result<Extra, BadExtra> {
        let items = list(bytes, 10).map_err(at("extraData"))?;
        let (gas_tip, epoch) = match items[..] {
            [.., epoch] if items.len() == 9 => (None, epoch),
            [.., tip, epoch] if items.len() == 10 => (Some(tip.number().map_err(at("gasTip"))?), epoch),
            _ => return Err(BadExtra { field: "extraData", why: "it has neither 9 nor 10 fields" }),
        };
        Ok(Extra {
            vanity: items[0].bytes().map_err(at("vanity"))?.to_vec(),
            randao_reveal: items[1].bytes().map_err(at("randaoReveal"))?.to_vec(),
            prev_round: items[2].small().map_err(at("prevRound"))?,
            prev_prepared: Seal::read(items[3]).map_err(at("prevPreparedSeal"))?,
            prev_committed: Seal::read(items[4]).map_err(at("prevCommittedSeal"))?,
            round: items[5].small().map_err(at("round"))?,
            prepared: Seal::read(items[6]).map_err(at("preparedSeal"))?,
            committed: Seal::read(items[7]).map_err(at("committedSeal"))?,
            gas_tip,
            epoch: EpochInfo::read(epoch).map_err(at("epochInfo"))?,
        })
    }

    /// The name of the proposer's program: `geth 1.0.1 go1.26.6 linux`, or the text it wrote.
    #[must_use]
    pub fn client(&self) -> Option<String> {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let text: String = text.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect();
            (!text.is_empty()).then_some(text)
        };
        // Padded with zeros to 32 bytes, so the list ends before the field does.
        let packed = self.vanity.first().filter(|first| (0xc0..=0xf7).contains(*first));
        let end = packed.map(|first| usize::from(first - 0xc0) + 1);
        let parts = end.and_then(|end| list(self.vanity.get(..end)?, 4).ok());
        let Some([version, client, go, os]) = parts.as_deref() else { return text(&self.vanity) };
        let version = version.small().ok()?;
        let version = format!("{}.{}.{}", version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff);
        let [client, go, os] = [client, go, os].map(|part| part.bytes().ok().and_then(text));
        Some(format!("{} {version} {} {}", client?, go?, os?))
    }
}

impl Seal {
    fn read(item: Item<'_>) -> Result<Option<Seal>, BadRlp> {
        match item.list(2)?[..] {
            [] => Ok(None),
            [bitmap, signature] => {
                let seal = Seal { bitmap: bitmap.bytes()?.to_vec(), signature: signature.bytes()?.to_vec() };
                if seal.bitmap.len() > MAX_VALIDATORS / 8 {
                    Err(BadRlp("the bitmap is too long"))
                } else {
                    Ok(Some(seal))
                }
            }
            _ => Err(BadRlp("a seal has a bitmap and a signature")),
        }
    }

    /// The indices of its signers.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        let bits = |(byte, bits): (usize, &u8)| {
            let bits = *bits;
            (0..8).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| byte * 8 + bit)
        };
        self.bitmap.iter().enumerate().flat_map(bits)
    }

    /// Its validators, by the set that its indices mean; `None` if it names an index beyond that set.
    #[must_use]
    pub fn addresses(&self, set: &[Address]) -> Option<Vec<Address>> {
        self.indices().map(|index| set.get(index).copied()).collect()
    }
}

impl EpochInfo {
    fn read(item: Item<'_>) -> Result<Option<EpochInfo>, BadRlp> {
        let parts = item.list(4)?;
        let (candidates, validators, keys, stabilizing) = match parts[..] {
            [] => return Ok(None),
            [candidates, validators, keys] => (candidates, validators, keys, None),
            [candidates, validators, keys, flag] => (candidates, validators, keys, Some(flag.small()? != 0)),
            _ => return Err(BadRlp("it has neither three nor four fields")),
        };
        let candidate = |item: Item<'_>| match item.list(2)?[..] {
            [address, diligence] => {
                let address = address.bytes()?.try_into().map_err(|_| BadRlp("an address has 20 bytes"))?;
                Ok((Address(address), diligence.small()?))
            }
            _ => Err(BadRlp("a candidate has an address and a diligence")),
        };
        let candidates: Vec<_> =
            candidates.list(MAX_VALIDATORS)?.into_iter().map(candidate).collect::<Result<_, _>>()?;
        let index = |item: Item<'_>| match usize::try_from(item.small()?) {
            Ok(index) if index < candidates.len() => Ok(index),
            _ => Err(BadRlp("a validator is no candidate")),
        };
        let validators: Vec<usize> =
            validators.list(MAX_VALIDATORS)?.into_iter().map(index).collect::<Result<_, _>>()?;
        if validators.is_empty() || validators.iter().collect::<Set<_>>().len() < validators.len() {
            return Err(BadRlp("no validators, or one of them twice"));
        }
        let keys = keys.list(MAX_VALIDATORS)?.into_iter().map(|key| Ok(key.bytes()?.to_vec()));
        let bls_public_keys: Vec<_> = keys.collect::<Result<_, BadRlp>>()?;
        if bls_public_keys.len() != validators.len() {
            return Err(BadRlp("validators and keys differ in number"));
        }
        Ok(Some(EpochInfo { candidates, validators, bls_public_keys, stabilizing }))
    }

    /// The validators of the next epoch, in the order of the seals.
    #[must_use]
    pub fn next_validators(&self) -> Vec<Address> {
        self.validators.iter().map(|index| self.candidates[*index].0).collect()
    }
}

fn at(field: &'static str) -> impl Fn(BadRlp) -> BadExtra {
    move |BadRlp(why)| BadExtra { field, why }
}

impl fmt::Display for BadExtra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for BadExtra {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbft::hex::parse_data;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    fn recording(name: &str) -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wbft/");
        let text = std::fs::read_to_string(format!("{path}{name}")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn seal(seal: Option<&Seal>) -> Value {
        seal.map_or(Value::Null, |s| {
            json!([hex(&s.bitmap), s.indices().collect::<Vec<_>>(), s.signature.len()])
        })
    }

    /// The output of our decoder, in the form of the independent one.
    fn told(extra: &Extra) -> Value {
        json!({
            "vanity": hex(&extra.vanity),
            "randao": extra.randao_reveal.len(),
            "rounds": [extra.prev_round, extra.round],
            "seals": ([&extra.prev_prepared, &extra.prev_committed, &extra.prepared, &extra.committed]
                .map(|s| seal(s.as_ref()))),
            "tip": extra.gas_tip.map(|tip| tip.to_string()),
            "epoch": extra.epoch.as_ref().map(|e| json!([
                e.candidates.iter().map(|(a, d)| json!([a.to_string(), d])).collect::<Vec<_>>(),
                e.validators,
                e.bls_public_keys.iter().map(|key| hex(key)).collect::<Vec<_>>(),
            ])),
        })
    }

    fn expected(line: &Value) -> Value {
        let seal = |name: &str| match &line[name] {
            Value::Null => Value::Null,
            s => json!([s["bitmap"], s["indices"], s["signature_len"]]),
        };
        let epoch = line["epochInfo"].as_object().map(|e| {
            let candidates = e["candidates"].as_array().unwrap();
            let pairs: Vec<Value> = candidates.iter().map(|c| json!([c["addr"], c["diligence"]])).collect();
            json!([pairs, e["validators"], e["blsPublicKeys"]])
        });
        json!({
            "vanity": line["vanity"]["raw"],
            "randao": line["randaoReveal_len"],
            "rounds": [line["prevRound"], line["round"]],
            "seals": (["prevPrepared", "prevCommitted", "prepared", "committed"].map(seal)),
            "tip": line["gasTip"],
            "epoch": epoch,
        })
    }

    #[test]
    fn every_recorded_block_is_decoded_as_by_an_independent_decoder() {
        let (blocks, decoded) = (recording("blocks.jsonl"), recording("extra-decoded.jsonl"));
        assert_eq!(blocks.len(), 242);
        for (block, line) in blocks.iter().zip(&decoded) {
            let bytes = parse_data(block["block"]["extraData"].as_str().unwrap()).unwrap();
            let extra = Extra::decode(&bytes).unwrap_or_else(|e| panic!("block {}: {e}", line["number"]));
            assert_eq!(told(&extra), expected(line), "block {}", line["number"]);
            let client =
                if line["number"] == 0 { None } else { Some("geth 1.0.1 go1.26.6 linux".to_owned()) };
            assert_eq!(extra.client(), client);
        }
    }

    #[test]
    fn the_sets_of_all_blocks_follow_from_the_epochs_alone() {
        let mut set: Vec<Address> = Vec::new();
        for block in recording("blocks.jsonl") {
            let told: Vec<Address> = serde_json::from_value(block["validators"].clone()).unwrap();
            let number = block["block"]["number"].clone();
            if number != "0x0" {
                assert_eq!(told, set, "block {number}");
            }
            let bytes = parse_data(block["block"]["extraData"].as_str().unwrap()).unwrap();
            if let Some(epoch) = Extra::decode(&bytes).unwrap().epoch {
                set = epoch.next_validators();
            }
        }
    }

    /// A list of items that are encoded already.
    fn rlp(items: &[&[u8]]) -> Vec<u8> {
        let body = items.concat();
        match u8::try_from(body.len()).unwrap() {
            n @ 0..56 => [&[0xc0 + n], body.as_slice()].concat(),
            n => [&[0xf8, n], body.as_slice()].concat(),
        }
    }

    /// Extra data of nine fields.
    fn nine(epoch: &[u8]) -> Vec<u8> {
        rlp(&[b"A", b"\x80", b"\x80", b"\xc0", b"\xc0", b"\x01", b"\xc0", b"\xc2\x01\x33", epoch])
    }

    #[test]
    fn nine_fields_are_those_without_a_gas_tip() {
        let extra = Extra::decode(&nine(b"\xc0")).unwrap();
        assert_eq!((extra.gas_tip, extra.round, extra.epoch), (None, 1, None));
        assert_eq!(extra.committed.unwrap().indices().collect::<Vec<_>>(), [0]);
        assert_eq!(extra.vanity, b"A");
    }

    #[test]
    fn an_epoch_has_three_fields_or_four_and_a_set_that_makes_sense() {
        let candidate = |n: u8| rlp(&[&[&[0x94], [n; 20].as_slice()].concat(), b"\x05"]);
        let candidates = rlp(&[&candidate(1), &candidate(2)]);
        let epoch = |rest: &[&[u8]]| {
            let parts: Vec<&[u8]> = [candidates.as_slice()].iter().chain(rest).copied().collect();
            Extra::decode(&nine(&rlp(&parts))).map(|extra| extra.epoch.unwrap())
        };
        let (order, keys) = (b"\xc2\x01\x80".as_slice(), b"\xc2\x0a\x0b".as_slice());
        let three = epoch(&[order, keys]).unwrap();
        assert_eq!(three.next_validators(), [Address([2; 20]), Address([1; 20])]);
        assert_eq!(three.stabilizing, None);
        assert_eq!(epoch(&[order, keys, b"\x01"]).unwrap().stabilizing, Some(true));
        assert_eq!(epoch(&[order, keys, b"\x80"]).unwrap().stabilizing, Some(false));
        let bad = |rest: &[&[u8]]| epoch(rest).unwrap_err().to_string();
        assert!(bad(&[b"\xc1\x02", b"\xc1\x0a"]).contains("no candidate"));
        assert!(bad(&[b"\xc2\x01\x01", keys]).contains("twice"));
        assert!(bad(&[b"\xc0", b"\xc0"]).contains("no validators"));
        assert!(bad(&[order, b"\xc1\x0a"]).contains("differ in number"));
        assert!(bad(&[order, keys, b"\x01", b"\x01"]).contains("too long"));
        assert!(bad(&[order]).contains("neither three nor four"));
    }

    #[test]
    fn a_seal_of_an_index_beyond_the_set_names_no_validator() {
        let seal = Seal { bitmap: vec![0b0000_0101, 1], signature: vec![] };
        assert_eq!(seal.indices().collect::<Vec<_>>(), [0, 2, 8]);
        assert_eq!(seal.addresses(&[Address([0; 20]); 8]), None);
        assert_eq!(seal.addresses(&[Address([0; 20]); 9]).unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Extra::decode(&bytes).map(|extra| extra.client());
        }

        #[test]
        fn no_damage_to_a_real_header_makes_it_panic(at in 0usize..900, to in any::<u8>(), cut in 0usize..900) {
            static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let block = &recording("blocks.jsonl")[10]["block"]["extraData"];
                parse_data(block.as_str().unwrap()).unwrap()
            });
            let mut bytes = REAL.clone();
            let len = bytes.len();
            bytes[at % len] = to;
            let _ = Extra::decode(&bytes).map(|extra| extra.client());
            let _ = Extra::decode(&bytes[..cut % len]);
        }
    }
}
