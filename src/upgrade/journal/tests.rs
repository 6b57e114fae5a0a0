//! The journal against every torn, rotten or half-written slot.

use super::*;
use crate::digest::Digest;
use crate::machine::{Block, Chain, Ended, NodeMark, Outcome, Target, Version};
use crate::name::Name;

const SIZE: usize = FORMAT.size;

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path(), "node").unwrap();
    fs::create_dir_all(home.state()).unwrap();
    (dir, home)
}

/// A record at rest.
fn record(height: u64) -> Record {
    let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"old") };
    Record {
        node: NodeMark::Running,
        chain: Some(Chain { id: height, genesis: "0xABcd".to_owned() }),
        ..Record::new(current)
    }
}

/// A record of an upgrade under way.
fn under_way(height: u64, phase: Phase) -> Record {
    let mut record = record(height);
    let stopped_at = Some(Block { height, hash: None });
    record.upgrade =
        Some(Attempt { height, phase, from: record.current.clone(), stopped_at, ..Attempt::example() });
    record
}

fn read(home: &Home) -> Record {
    let found = Journal::read(home).unwrap();
    assert!(found.warning.is_none(), "{:?}", found.warning);
    found.record
}

fn file(home: &Home) -> Vec<u8> {
    fs::read(home.journal()).unwrap()
}

/// Where a slot begins in the file.
fn at(slot: usize) -> usize {
    slot * SIZE
}

/// The bytes of a slot up to the end of its payload.
fn used(home: &Home, slot: usize) -> usize {
    let bytes = &file(home)[at(slot)..at(slot) + SIZE];
    bytes.trim_ascii_end().len() + 1
}

fn overwrite(home: &Home, offset: usize, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(home.journal()).unwrap();
    file.write_all_at(bytes, offset as u64).unwrap();
}

fn spoil(home: &Home, slot: usize) {
    overwrite(home, at(slot) + 60, b"rot");
}

/// A home at rest with record 1, and its journal.
fn at_rest() -> (tempfile::TempDir, Home, Journal) {
    let (dir, home) = home();
    let journal = Journal::create(&home, &record(1)).unwrap();
    (dir, home, journal)
}

/// The slot that holds the newest record of an upgrade in phase `stopped`; the other one holds `stopping`.
fn in_upgrade() -> (tempfile::TempDir, Home, usize) {
    let (dir, home, mut journal) = at_rest();
    journal.write(&under_way(2, Phase::Stopping)).unwrap();
    journal.write(&under_way(3, Phase::Stopped)).unwrap();
    let newest = journal.newest.0;
    (dir, home, newest)
}

#[test]
fn a_journal_that_may_not_be_seen_may_be_there() {
    let (_dir, home) = home();
    fs::remove_dir_all(home.state()).unwrap();
    fs::write(home.state(), "in the way").unwrap();
    Journal::exists(&home).unwrap_err();
}

#[test]
fn what_was_written_last_is_read() {
    let (_dir, home) = home();
    assert!(!Journal::exists(&home).unwrap());
    let mut journal = Journal::create(&home, &record(1)).unwrap();
    assert!(Journal::exists(&home).unwrap());
    assert_eq!(read(&home), record(1));
    for h in 2..6 {
        journal.write(&record(h)).unwrap();
        assert_eq!(read(&home), record(h));
        journal.write(&under_way(h, Phase::Stopping)).unwrap();
        assert_eq!(read(&home), under_way(h, Phase::Stopping));
    }
    let mut again = Journal::open(&home).unwrap().journal;
    again.write(&record(9)).unwrap();
    assert_eq!(read(&home), record(9));
    Journal::create(&home, &record(1)).unwrap_err();
    assert_eq!(read(&home), record(9));
}

#[test]
fn at_rest_both_slots_hold_the_same_record_and_in_an_upgrade_they_take_turns() {
    let (_dir, home, mut journal) = at_rest();
    let slots = || Slots::open(&home.journal(), FORMAT, Access::Read).unwrap().unwrap().read().unwrap();
    let equal = || {
        let [a, b] = slots();
        a == b
    };
    assert!(equal(), "when it is new");
    journal.write(&record(2)).unwrap();
    assert!(!equal(), "acknowledged by one slot");
    journal.settle().unwrap();
    assert!(equal(), "settled");
    for (height, phase) in [(3, Phase::Stopping), (4, Phase::Stopped), (5, Phase::Trying)] {
        let [a, b] = slots();
        journal.write(&under_way(height, phase)).unwrap();
        journal.settle().unwrap();
        let [after_a, after_b] = slots();
        // One changes, and it is the one that was not the newest.
        assert!((a == after_a) ^ (b == after_b), "{phase:?}");
        assert_eq!(read(&home), under_way(height, phase));
    }
    journal.write_settled(&record(6)).unwrap();
    assert!(equal(), "after the upgrade");
    let before = file(&home);
    journal.settle().unwrap();
    assert!(file(&home) == before);
}

#[test]
fn a_crash_before_the_second_copy_is_made_good_at_the_next_start() {
    let (_dir, home, mut journal) = at_rest();
    journal.write(&under_way(2, Phase::Trying)).unwrap();
    journal.write(&record(3)).unwrap();
    drop(journal);
    let opened = Journal::open(&home).unwrap();
    assert_eq!(opened.record, record(3));
    assert!(opened.warning.is_none() && opened.journal.settled);
    let bytes = file(&home);
    assert!(bytes[..SIZE].trim_ascii_end() == bytes[SIZE..].trim_ascii_end());
}

#[test]
fn beside_a_damaged_slot_the_one_at_rest_serves_with_a_warning_and_repairs_it() {
    for slot in [0, 1] {
        let (_dir, home, mut journal) = at_rest();
        journal.write_settled(&record(2)).unwrap();
        let good = file(&home);
        spoil(&home, slot);
        let found = Journal::read(&home).unwrap();
        assert_eq!(found.record, record(2));
        assert!(found.warning.unwrap().to_string().contains(&format!("slot {} is damaged", slot + 1)));
        assert!(file(&home) != good, "a reader repairs nothing");
        let opened = Journal::open(&home).unwrap();
        assert_eq!(opened.record, record(2));
        assert!(opened.warning.unwrap().to_string().contains("checksum is wrong; it is repaired"));
        assert!(file(&home) == good);
        assert!(Journal::open(&home).unwrap().warning.is_none());
    }
}

#[test]
fn the_first_record_of_an_upgrade_may_be_lost_and_no_later_one() {
    let (_dir, home, mut journal) = at_rest();
    journal.write(&under_way(2, Phase::Stopping)).unwrap();
    spoil(&home, journal.newest.0);
    assert_eq!(Journal::open(&home).unwrap().record, record(1));
    let (_dir, home, newest) = in_upgrade();
    spoil(&home, newest);
    for result in [Journal::read(&home).map(|f| f.record), Journal::open(&home).map(|o| o.record)] {
        let halt = result.unwrap_err();
        assert_eq!(halt.kind(), Kind::Halted);
        let text = halt.to_string();
        let file = home.journal().display().to_string();
        let (damaged, other) = (format!("slot {} is damaged", newest + 1), format!("slot {},", 2 - newest));
        for part in [&*file, &damaged, &other, "upgrade v2", "phase stopping", "init --import"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // The older one damaged proves as little: which of two is older is known of whole ones only.
    let (_dir, home, newest) = in_upgrade();
    spoil(&home, 1 - newest);
    let text = Journal::open(&home).unwrap_err().to_string();
    assert!(text.contains("phase stopped"), "{text}");
}

/// Every flipped bit: `judge` gets what could be read, and what the file held before.
fn flip_every_bit(home: &Home, judge: impl Fn(usize, Result<Found>)) {
    let slots = Slots::open(&home.journal(), FORMAT, Access::Read).unwrap().unwrap();
    let whole = file(home);
    for slot in [0, 1] {
        for bit in 0..used(home, slot) * 8 {
            let offset = at(slot) + bit / 8;
            overwrite(home, offset, &[whole[offset] ^ (1 << (bit % 8))]);
            let read = slots.read().and_then(|slots| super::judge(home, slots));
            let read = read.map(|judged| Found {
                record: judged.record,
                warning: judged.damage.map(|why| bad_slot(home, &why)),
            });
            judge(slot, read);
            overwrite(home, offset, &[whole[offset]]);
        }
    }
}

#[test]
fn every_flipped_bit_is_detected_and_never_leads_to_an_older_truth_in_an_upgrade() {
    let (_dir, home, _newest) = in_upgrade();
    flip_every_bit(&home, |slot, read| {
        let halt = read.expect_err("damage in an upgrade");
        assert_eq!(halt.kind(), Kind::Halted);
        assert!(halt.to_string().contains(&format!("slot {} is damaged", slot + 1)), "{halt}");
    });
    let (_dir, home, mut journal) = at_rest();
    journal.write_settled(&record(2)).unwrap();
    flip_every_bit(&home, |slot, read| {
        let found = read.unwrap();
        assert_eq!(found.record, record(2));
        assert!(found.warning.unwrap().to_string().contains(&format!("slot {}", slot + 1)));
    });
}

#[test]
fn every_truncation_is_detected_or_harmless() {
    for upgrade in [false, true] {
        let (_dir, home) = if upgrade {
            let (dir, home, _) = in_upgrade();
            (dir, home)
        } else {
            let (dir, home, _) = at_rest();
            (dir, home)
        };
        let expected = Journal::read(&home).unwrap().record;
        let ends = [used(&home, 0), at(1) + used(&home, 1)];
        let slots = Slots::open(&home.journal(), FORMAT, Access::Read).unwrap().unwrap();
        let file = fs::OpenOptions::new().write(true).open(home.journal()).unwrap();
        // In the blanks behind a payload only the page matters.
        let lengths = (0..2 * SIZE).rev();
        let lengths =
            lengths.filter(|len| len % 4096 < 2 || ends[0] + 2 > *len || (at(1)..ends[1] + 2).contains(len));
        for length in lengths {
            file.set_len(length as u64).unwrap();
            let read = slots.read().and_then(|slots| judge(&home, slots));
            match read {
                Ok(judged) if length >= ends[1] => {
                    assert!(judged.record == expected && judged.damage.is_none(), "{length}");
                }
                Ok(judged) => {
                    assert!(!upgrade && length >= ends[0] && judged.damage.is_some(), "{length}");
                    assert_eq!(judged.record, expected);
                }
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Halted);
                    assert!(length < ends[0] || upgrade && length < ends[1], "{length}: {e}");
                }
            }
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_whole_again_after_the_next_start() {
    let (_dir, home, _) = at_rest();
    let whole = file(&home);
    for length in [at(1) + 10_000, at(1), at(1) - 5000] {
        fs::OpenOptions::new().write(true).open(home.journal()).unwrap().set_len(length as u64).unwrap();
        let opened = Journal::open(&home).unwrap();
        assert_eq!((opened.record, opened.warning.is_some()), (record(1), length < at(1) + 10_000));
        assert!(file(&home) == whole, "{length}");
    }
}

#[test]
fn a_write_after_damage_never_loses_the_good_slot() {
    let (_dir, home, _) = at_rest();
    spoil(&home, 0);
    let mut journal = Journal::open(&home).unwrap().journal;
    journal.write(&under_way(4, Phase::Stopping)).unwrap();
    assert_eq!(read(&home), under_way(4, Phase::Stopping));
    spoil(&home, journal.newest.0);
    assert_eq!(Journal::open(&home).unwrap().record, record(1));
}

#[test]
fn the_newer_slot_counts_wherever_it_is_and_survives_the_next_write() {
    let (_dir, home, _) = in_upgrade();
    let bytes = file(&home);
    fs::write(home.journal(), [&bytes[SIZE..], &bytes[..SIZE]].concat()).unwrap();
    let mut opened = Journal::open(&home).unwrap();
    assert_eq!(opened.record, under_way(3, Phase::Stopped));
    let newest = opened.journal.newest.0;
    opened.journal.write(&under_way(4, Phase::BackedUp)).unwrap();
    assert_eq!(read(&home), under_way(4, Phase::BackedUp));
    assert_eq!(opened.journal.newest.0, 1 - newest);
}

#[test]
fn a_write_that_is_cut_anywhere_leaves_the_old_or_the_new_record_or_halts() {
    let (_dir, home, newest) = in_upgrade();
    let before = file(&home);
    let mut journal = Journal::open(&home).unwrap().journal;
    journal.write(&under_way(4, Phase::BackedUp)).unwrap();
    let after = file(&home)[at(1 - newest)..][..8192].to_vec();
    fs::write(home.journal(), &before).unwrap();
    let length = after.trim_ascii_end().len() + 1;
    for torn in 0..=length {
        overwrite(&home, at(1 - newest), &after[..torn]);
        let slots = Slots::open(&home.journal(), FORMAT, Access::Read).unwrap().unwrap().read().unwrap();
        match judge(&home, slots) {
            Ok(judged) if torn == length => assert_eq!(judged.record, under_way(4, Phase::BackedUp)),
            Ok(judged) => assert_eq!(judged.record, under_way(3, Phase::Stopped), "{torn}"),
            Err(e) => assert_eq!(e.kind(), Kind::Halted),
        }
    }
}

#[test]
fn a_record_that_could_not_be_written_is_put_back_by_the_next_settling() {
    let (_dir, home, mut journal) = at_rest();
    let writable = std::mem::replace(
        &mut journal.slots,
        Slots::open(&home.journal(), FORMAT, Access::Read).unwrap().unwrap(),
    );
    assert_eq!(journal.write(&under_way(2, Phase::Stopping)).unwrap_err().kind(), Kind::Io);
    journal.settle().unwrap_err();
    // It reached the disk all the same.
    writable.write(1, 2, &json_line(&under_way(2, Phase::Stopping))).unwrap();
    journal.slots = writable;
    journal.settle().unwrap();
    assert_eq!(read(&home), record(1));
    journal.write(&under_way(3, Phase::Stopping)).unwrap();
    assert_eq!(read(&home), under_way(3, Phase::Stopping));
}

#[test]
fn nothing_readable_halts_and_says_what_to_do() {
    let (_dir, home, _) = at_rest();
    let halts = |home: &Home| {
        let err = Journal::open(home).unwrap_err();
        assert_eq!((err.kind(), Journal::read(home).unwrap_err().kind()), (Kind::Halted, Kind::Halted));
        let text = err.to_string();
        assert!(text.contains("no journal can be read") && text.contains("init --import"), "{text}");
    };
    for content in [&b""[..], b"rot", &[b' '; 2 * SIZE]] {
        fs::write(home.journal(), content).unwrap();
        halts(&home);
    }
    fs::remove_file(home.journal()).unwrap();
    halts(&home);
    fs::create_dir(home.journal()).unwrap();
    halts(&home);
}

#[test]
fn two_different_records_of_one_number_prove_nothing() {
    let (_dir, home, journal) = at_rest();
    journal.slots.write(1, 1, &json_line(&record(2))).unwrap();
    let err = Journal::open(&home).unwrap_err();
    assert!(err.kind() == Kind::Halted && err.to_string().contains("sequence number 1"), "{err}");
}

#[test]
fn a_failure_of_the_operating_system_is_an_error_and_never_damage() {
    let (_dir, home, _) = at_rest();
    // ENOTDIR.
    let moved = home.dir().join("moved");
    fs::rename(home.state(), &moved).unwrap();
    fs::write(home.state(), "in the way").unwrap();
    for err in [Journal::open(&home).unwrap_err(), Journal::read(&home).unwrap_err()] {
        assert_eq!(err.kind(), Kind::Io, "{err}");
        assert!(err.os().is_some() && err.to_string().starts_with("open: "), "{err}");
    }
}

#[test]
fn a_newer_format_halts_instead_of_being_passed_over() {
    let newer = Format { version: 2, ..FORMAT };
    for spoiled in [false, true] {
        let (_dir, home, journal) = at_rest();
        let slots = Slots::open(&home.journal(), newer, Access::Write).unwrap().unwrap();
        slots.write(1, 9, b"{\"of another\": \"shape\"}").unwrap();
        if spoiled {
            spoil(&home, 0);
        }
        drop(journal);
        let err = Journal::open(&home).unwrap_err();
        assert_eq!(err.kind(), Kind::Halted);
        assert!(err.to_string().contains("another version"), "{err}");
    }
}

#[test]
fn a_write_takes_no_block_of_the_disk() {
    use std::os::unix::fs::MetadataExt as _;
    let (_dir, home, mut journal) = at_rest();
    let place = || fs::metadata(home.journal()).map(|m| (m.blocks(), m.len(), m.ino())).unwrap();
    let before = place();
    assert!(before.0 * 512 >= before.1 && before.1 == 2 * SIZE as u64, "{before:?}");
    for height in 2..10 {
        journal.write_settled(&crowded(height)).unwrap();
        journal.write(&under_way(height, Phase::Stopping)).unwrap();
        journal.write(&under_way(height, Phase::Trying)).unwrap();
        assert_eq!(place(), before);
    }
    let mut names: Vec<_> = fs::read_dir(home.state()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["journal", "upgrading"]);
    assert_eq!(fs::metadata(home.upgrading()).unwrap().blocks(), 0);
}

#[test]
fn the_file_for_other_programs_is_there_exactly_while_an_upgrade_is_under_way() {
    let (_dir, home, mut journal) = at_rest();
    let is_there = || home.upgrading().exists();
    assert!(!is_there());
    journal.write(&under_way(2, Phase::Stopping)).unwrap();
    assert!(is_there());
    // A power cut may take it, or leave it behind.
    drop(journal);
    fs::remove_file(home.upgrading()).unwrap();
    let mut journal = Journal::open(&home).unwrap().journal;
    assert!(is_there());
    let halted = Record { halted: Some("a decision".to_owned()), ..under_way(3, Phase::Trying) };
    journal.write(&halted).unwrap();
    assert!(!is_there(), "alarms are due");
    journal.write(&under_way(4, Phase::Trying)).unwrap();
    assert!(is_there());
    journal.write_settled(&record(5)).unwrap();
    assert!(!is_there());
    fs::write(home.upgrading(), "").unwrap();
    journal = Journal::open(&home).unwrap().journal;
    assert!(!is_there());
    // An upgrade that cannot be recorded does not begin.
    journal.write(&Record { upgrade: under_way(6, Phase::Stopping).upgrade, ..crowded(9000) }).unwrap_err();
    assert!(!is_there());
}

/// A record with this many upgrades that ended, with the longest names, heights and reasons.
fn crowded(count: u64) -> Record {
    let mut record = record(1);
    record.ended = (0..count)
        .map(|n| Ended {
            name: format!("{n:x<64}").parse::<Name>().unwrap(),
            height: u64::MAX,
            fork_height: Some(u64::MAX),
            cannot_follow: true,
            switch: None,
            outcome: Outcome::RolledBack,
            detail: "x".repeat(500),
        })
        .collect();
    record
}

#[test]
fn a_slot_has_room_for_many_upgrades_and_what_does_not_fit_is_refused_before_anything_is_written() {
    let (_dir, home, mut journal) = at_rest();
    journal.write_settled(&crowded(1350)).unwrap();
    assert_eq!(read(&home), crowded(1350));
    let before = file(&home);
    let refusal = journal.write(&crowded(1550)).unwrap_err().to_string();
    assert!(refusal.contains("no room") && refusal.contains("1550 upgrades"), "{refusal}");
    assert!(file(&home) == before && journal.settled);
    // An upgrade without room for the record of its end does not begin.
    let mut full = crowded(1450);
    journal.write(&full).unwrap();
    full.upgrade = under_way(2, Phase::Stopping).upgrade;
    let refusal = journal.write(&full).unwrap_err().to_string();
    assert!(refusal.contains("no room"), "{refusal}");
    full.upgrade = under_way(2, Phase::Trying).upgrade;
    journal.write(&full).unwrap();
    assert_eq!(read(&home), full);
}

#[test]
fn a_slot_that_is_being_written_is_looked_at_again() {
    let good = |seq| Slot::Good(Entry { version: 1, seq, payload: Vec::new() });
    let torn = || Slot::Bad("its checksum is wrong".to_owned());
    let mut looks = vec![[good(7), good(8)], [torn(), good(6)], [good(5), torn()]];
    assert_eq!(look(|| Ok(looks.pop().unwrap())).unwrap(), [good(7), good(8)]);
    // A journal that stays damaged is damaged.
    let mut count = 0;
    let stays = look(|| {
        count += 1;
        Ok([good(7), torn()])
    });
    assert_eq!((stays.unwrap(), count), ([good(7), torn()], LOOKS));
}

#[test]
fn a_reader_beside_the_writer_always_finds_a_record() {
    let (_dir, home, mut journal) = at_rest();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let height = read(&home).chain.unwrap().id;
                assert!(height >= last);
                last = height;
            }
        });
        for height in 2..300 {
            journal.write(&under_way(height, Phase::Trying)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
}
