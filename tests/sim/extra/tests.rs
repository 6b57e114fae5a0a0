//! The encoder against recorded blocks: bytes, hash and size must come out the same.

use super::super::hex;
use super::*;
use serde_json::Value;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn quantity(value: &Value, key: &str) -> u64 {
    u64::from_str_radix(text(value, key).trim_start_matches("0x"), 16).unwrap()
}

fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    hex::decode(text(value, key)).unwrap().try_into().unwrap()
}

/// The parts of a recorded block, as the node's own decoder and an independent one told them.
fn recorded(line: &Value) -> Header {
    let (block, info) = (&line["block"], &line["extraInfo"]);
    let seal = |rpc: &str, decoded: &str| {
        let bitmap = line["bitmaps"][decoded].as_str()?;
        let signature = hex::decode(text(&info[rpc], "signature")).unwrap();
        Some(Seal { bitmap: hex::decode(bitmap).unwrap(), signature })
    };
    let epoch = info["epochInfo"].as_object().map(|epoch| {
        let list = |key: &str| epoch[key].as_array().unwrap().clone();
        Epoch {
            candidates: list("candidates")
                .iter()
                .map(|one| (array(one, "addr"), quantity(one, "diligence")))
                .collect(),
            validators: list("validators").iter().map(|one| quantity(one, "index") as usize).collect(),
            bls: list("validators").iter().map(|one| hex::decode(text(one, "bls")).unwrap()).collect(),
        }
    });
    Header {
        parent: array(block, "parentHash"),
        miner: array(block, "miner"),
        state_root: array(block, "stateRoot"),
        number: quantity(block, "number"),
        time: quantity(block, "timestamp"),
        mix: array(block, "mixHash"),
        extra: Extra {
            vanity: hex::decode(text(line, "vanity")).unwrap(),
            randao: hex::decode(text(info, "randaoReveal")).unwrap(),
            prev_round: quantity(info, "prevRound"),
            prev_prepared: seal("prevPreparedSeal", "prevPrepared"),
            prev_committed: seal("prevCommittedSeal", "prevCommitted"),
            round: quantity(info, "round"),
            prepared: seal("preparedSeal", "prepared"),
            committed: seal("committedSeal", "committed"),
            gas_tip: Some(text(info, "gasTip").parse().unwrap()),
            epoch,
        },
    }
}

#[test]
fn recorded_blocks_are_encoded_byte_for_byte() {
    let lines = include_str!("../../data/sim/blocks.jsonl");
    let mut seen = 0;
    for line in lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let header = recorded(&line);
        let block = &line["block"];
        assert_eq!(hex::data(&header.extra.encode()), text(block, "extraData"), "block {}", header.number);
        assert_eq!(hex::data(&header.hash()), text(block, "hash"), "block {}", header.number);
        assert_eq!(header.size(), quantity(block, "size"), "block {}", header.number);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn the_recorded_vanity_is_that_of_its_version() {
    let recorded = "d883010001846765746888676f312e32362e36856c696e757800000000000000";
    assert_eq!(hex::plain(&vanity("v1.0.1")), recorded);
    assert_eq!(hex::plain(&vanity("2.3.4-rc1")[..5]), "d883020304");
}

#[test]
fn bitmaps_count_from_the_least_significant_bit() {
    let seal = Seal::new(&[0, 3, 8], 9, vec![0; 96]);
    assert_eq!(seal.bitmap, [0b1001, 1]);
    assert_eq!(seal.positions(), [0, 3, 8]);
}

#[test]
fn without_a_gas_tip_there_are_nine_fields_and_a_longer_epoch() {
    let line = include_str!("../../data/sim/blocks.jsonl").lines().next().unwrap();
    let mut extra = recorded(&serde_json::from_str(line).unwrap()).extra;
    let ten = extra.encode();
    extra.gas_tip = None;
    let nine = extra.encode();
    // Seven bytes of tip less, one byte of "stabilizing" more.
    assert_eq!(nine.len(), ten.len() - 7 + 1);
    assert_eq!(nine.last(), Some(&0x80));
}
