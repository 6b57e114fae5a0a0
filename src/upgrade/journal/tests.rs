//! The journal against every torn, rotten or half-written slot.

use super::*;
use crate::digest::Digest;
use crate::machine::{Chain, NodeMark, Target, Version};

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path(), "node").unwrap();
    fs::create_dir_all(home.state()).unwrap();
    (dir, home)
}

fn record(height: u64) -> Record {
    let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"old") };
    Record {
        node: NodeMark::Running,
        chain: Some(Chain { id: height, genesis: "0xABcd".to_owned() }),
        ..Record::new(current)
    }
}

fn height(home: &Home) -> u64 {
    Journal::open(home).unwrap().record.chain.unwrap().id
}

/// Both slots filled: heights 2 (older) and 3 (newer).
fn filled() -> (tempfile::TempDir, Home) {
    let (dir, home) = home();
    let mut journal = Journal::create(&home, &record(1)).unwrap();
    journal.write(&record(2)).unwrap();
    journal.write(&record(3)).unwrap();
    (dir, home)
}

#[test]
fn a_journal_that_may_not_be_seen_may_be_there() {
    let (_dir, home) = home();
    std::fs::remove_dir_all(home.state()).unwrap();
    std::fs::write(home.state(), "in the way").unwrap();
    Journal::exists(&home).unwrap_err();
}

#[test]
fn what_was_written_last_is_read() {
    let (_dir, home) = home();
    assert!(!Journal::exists(&home).unwrap());
    let mut journal = Journal::create(&home, &record(1)).unwrap();
    assert_eq!(Journal::open(&home).unwrap().record, record(1));
    for h in 2..6 {
        journal.write(&record(h)).unwrap();
        assert_eq!(height(&home), h);
    }
    let mut again = Journal::open(&home).unwrap().journal;
    again.write(&record(9)).unwrap();
    assert_eq!(height(&home), 9);
    Journal::create(&home, &record(1)).unwrap_err();
    assert_eq!(height(&home), 9);
}

#[test]
fn a_slot_is_plain_json() {
    let (_dir, home) = filled();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(home.journal()).unwrap()).unwrap();
    assert_eq!((&json["seq"], &json["record"]["chain"]["id"]), (&3.into(), &3.into()));
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_slot_is_noticed() {
    let good = encode(7, &record(3));
    assert_eq!(decode(&good).unwrap().seq, 7);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(decode(&good[..len]).is_err(), "length {len}");
    }
    assert!(decode(&[&good[..], b"\n"].concat()).is_err());
}

#[test]
fn when_one_slot_is_bad_the_other_counts() {
    let (_dir, home) = filled();
    for (path, other) in [(home.journal(), 2), (home.journal_prev(), 3)] {
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], b"rot", &good[..good.len() / 2], &good[1..]] {
            fs::write(&path, bad).unwrap();
            let opened = Journal::open(&home).unwrap();
            assert_eq!(opened.record, record(other));
            assert!(opened.warning.unwrap().to_string().contains("checksum"));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(height(&home), other);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_write_after_damage_never_loses_the_good_slot() {
    let (_dir, home) = filled();
    fs::write(home.journal(), "rot").unwrap();
    let mut opened = Journal::open(&home).unwrap();
    let good = fs::read(home.journal_prev()).unwrap();
    opened.journal.write(&record(4)).unwrap();
    assert_eq!((height(&home), fs::read(home.journal_prev()).unwrap()), (4, good));
    opened.journal.write(&record(5)).unwrap();
    fs::write(home.journal(), "rot").unwrap();
    assert_eq!(height(&home), 4);
}

#[test]
fn the_newer_slot_counts_wherever_it_is_and_survives_the_next_write() {
    let (_dir, home) = filled();
    durable::exchange(&home.journal(), &home.journal_prev()).unwrap();
    let mut opened = Journal::open(&home).unwrap();
    assert_eq!(opened.record, record(3));
    opened.journal.write(&record(4)).unwrap();
    assert_eq!(height(&home), 4);
    fs::remove_file(home.journal()).unwrap();
    assert_eq!(height(&home), 3);
}

#[test]
fn a_crash_between_any_two_steps_of_a_write_leaves_the_old_or_the_new_record() {
    let (_dir, home) = filled();
    let temp = durable::temp_beside(&home.journal());
    let next = encode(4, &record(4));
    for len in [0, next.len() / 2, next.len()] {
        fs::write(&temp, &next[..len]).unwrap();
        assert_eq!(height(&home), 3);
    }
    fs::rename(home.journal(), home.journal_prev()).unwrap();
    assert_eq!(height(&home), 3);
    // Recovery begins here and is itself cut short after its first step.
    let mut recovered = Journal::open(&home).unwrap().journal;
    recovered.write(&record(7)).unwrap();
    assert_eq!(height(&home), 7);
    fs::rename(&temp, home.journal()).unwrap();
    assert_eq!(height(&home), 4);
}

#[test]
fn nothing_readable_halts_and_says_what_to_do() {
    let (_dir, home) = filled();
    for content in [None, Some("rot")] {
        for path in [home.journal(), home.journal_prev()] {
            fs::remove_file(&path).unwrap();
            content.into_iter().for_each(|c| fs::write(&path, c).unwrap());
        }
        let err = Journal::open(&home).unwrap_err();
        assert_eq!(err.kind(), Kind::Halted);
        assert!(err.to_string().contains("init --import"), "{err}");
        for path in [home.journal(), home.journal_prev()] {
            fs::write(&path, "").unwrap();
        }
    }
}

#[test]
fn a_newer_format_halts_instead_of_being_passed_over() {
    let (_dir, home) = filled();
    let body = "\",\"version\":2,\"seq\":9,\"record\":{}}\n";
    fs::write(home.journal(), format!("{HEAD}{}{body}", crc32(body.as_bytes()))).unwrap();
    let err = Journal::open(&home).unwrap_err();
    assert_eq!(err.kind(), Kind::Halted);
    assert!(err.to_string().contains("another version"), "{err}");
}
