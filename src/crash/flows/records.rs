//! The records: journal, head, schedule and history.

use super::{nothing_is_left, text};
use crate::crash::{Flow, Seen, step};
use crate::digest::Digest;
use crate::error::Kind;
use crate::home::durable;
use crate::machine::{Attempt, Block, Ended, HeadRecord, Outcome, Phase, Record, Target, Version};
use crate::schedule::Agenda;
use crate::upgrade::head::{self, HeadFile};
use crate::upgrade::history;
use crate::upgrade::journal::Journal;

/// At rest, through two upgrades, and at rest again.
const PHASES: [Option<Phase>; 12] = [
    None,
    None,
    Some(Phase::Stopping),
    Some(Phase::Stopped),
    Some(Phase::BackedUp),
    Some(Phase::Trying),
    None,
    None,
    Some(Phase::Stopping),
    Some(Phase::Trying),
    Some(Phase::Reverting),
    None,
];

/// The record of a step. The later ones are longer than a page, and one is shorter than the one before.
fn record(step: usize) -> Record {
    let current = Version { target: Target::Genesis, sha256: Digest::sha256(b"old") };
    let mut record = Record { launch: step as u64, ..Record::new(current.clone()) };
    let ended = if step < 6 { 0 } else { 60 - step };
    record.ended = (0..ended)
        .map(|n| Ended {
            name: format!("v{n}").parse().unwrap(),
            height: n as u64,
            fork_height: None,
            cannot_follow: false,
            switch: None,
            outcome: Outcome::Failed,
            detail: format!("the reason of {n}, at some length, so that the record has several pages"),
        })
        .collect();
    let stopped_at = Some(Block { height: 200, hash: None });
    record.upgrade = PHASES[step].map(|phase| Attempt {
        height: 200,
        phase,
        from: current,
        stopped_at,
        ..Attempt::example()
    });
    record
}

/// The journal of a home that runs: written and settled as the supervisor does it.
pub(in crate::crash) const JOURNAL: Flow = Flow {
    name: "journal",
    share: 240,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        Journal::create(home, &record(0)).unwrap();
    },
    run: |home, from| {
        let mut journal = Journal::open(home).unwrap();
        // A process that reads a record acts upon it: it counts as acknowledged.
        let found = journal.record.launch as usize;
        for number in from.min(found)..PHASES.len() {
            let write = || journal.journal.write(&record(number)).unwrap();
            if number == found {
                step(number, || {})
            } else {
                step(number, write)
            }
            journal.journal.settle().unwrap();
        }
    },
    law: |home, seen| match Journal::open(home) {
        Ok(opened) => {
            let step = (0..PHASES.len()).find(|step| opened.record == record(*step));
            seen.check("the journal", step)?;
            drop(opened.journal);
            // It is whole again, and is not taken for another one the next time.
            match Journal::open(home).map_err(text)? {
                again if again.record != opened.record => Err("read again, it is another one".to_owned()),
                again => again.warning.map_or(Ok(()), |why| Err(format!("not repaired: {why}"))),
            }
        }
        // A record of an upgrade that was being written: it may have been a later phase.
        Err(e) if e.kind() == Kind::Halted && seen.begun > seen.acked && PHASES[seen.acked].is_some() => {
            Ok(())
        }
        Err(e) => Err(text(e)),
    },
};

/// The journal of a new home.
pub(in crate::crash) const NEW_JOURNAL: Flow = Flow {
    name: "new_journal",
    share: 2,
    setup: |home| durable::mkdir(&home.state()).unwrap(),
    run: |home, _| {
        step(1, || match Journal::exists(home).unwrap() {
            true => drop(Journal::open(home).unwrap()),
            false => drop(Journal::create(home, &record(1)).unwrap()),
        });
    },
    law: |home, seen| {
        let step = match Journal::exists(home).map_err(text)? {
            true if Journal::open(home).map_err(text)?.record == record(1) => Some(1),
            true => None,
            false => Some(0),
        };
        seen.check("the journal", step)?;
        nothing_is_left(home)
    },
};

fn head_record(height: usize) -> HeadRecord {
    let block = |height: usize| Block { height: height as u64, hash: Some(format!("0x{height:064x}")) };
    // Longer than a page.
    let recent = (1..=40).map(|back| block(1000 + height - back)).collect();
    HeadRecord { timestamp: Some(7), recent, ..HeadRecord::new(block(1000 + height)) }
}

/// The head record, from the first one on.
pub(in crate::crash) const HEAD: Flow = Flow {
    name: "head",
    share: 150,
    setup: |home| durable::mkdir(&home.state()).unwrap(),
    run: |home, from| {
        let mut file = HeadFile::open(home).unwrap();
        for number in from..=8 {
            step(number, || file.write(&head_record(number)).unwrap());
        }
    },
    law: |home, seen| {
        match head::read(home) {
            Ok(None) => seen.check("the head", Some(0))?,
            Ok(Some(found)) => {
                let step = (0..=8).find(|number| found == head_record(*number));
                seen.check("the head", step)?;
            }
            // Only the very first one has none beside it that counts.
            Err(e) if e.kind() == Kind::Halted && seen == (Seen { acked: 0, begun: 1 }) => return Ok(()),
            Err(e) => return Err(text(e)),
        }
        // The next one is written and read.
        HeadFile::open(home).and_then(|mut file| file.write(&head_record(9))).map_err(text)?;
        match head::read(home).map_err(text)? {
            Some(found) if found == head_record(9) => nothing_is_left(home),
            found => Err(format!("written anew, it is {found:?}")),
        }
    },
};

fn agenda(step: usize) -> Agenda {
    let mut agenda = Agenda::default();
    (1..=step).for_each(|number| change(&mut agenda, number));
    agenda
}

fn change(agenda: &mut Agenda, number: usize) {
    match number {
        3 => agenda.cancel(&"v2".parse().unwrap(), &[200]).unwrap(),
        _ => agenda.schedule(format!("v{number}:{number}00").parse().unwrap()).unwrap(),
    }
}

/// The operator's schedule, from the first entry on.
pub(in crate::crash) const SCHEDULE: Flow = Flow {
    name: "schedule",
    share: 90,
    setup: |home| durable::mkdir(&home.dir()).unwrap(),
    run: |home, from| {
        for number in from..=6 {
            // A command that was killed behind its rename and is repeated finds it done.
            step(number, || {
                if Agenda::load(home).unwrap() == agenda(number) {
                    Agenda::edit(home, |_| Ok(())).unwrap();
                } else {
                    Agenda::edit(home, |agenda| {
                        change(agenda, number);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    },
    law: |home, seen| {
        let found = Agenda::load(home).map_err(text)?;
        seen.check("the schedule", (0..=6).find(|step| found == agenda(*step)))?;
        nothing_is_left(home)
    },
};

fn entry(step: usize) -> history::Entry {
    history::Entry {
        time: "2026-01-01T00:00:00Z".to_owned(),
        event: "applied".to_owned(),
        upgrade: None,
        height: Some(step as u64),
        detail: "x".repeat(step * 700),
    }
}

/// The history: lines that were added stay.
pub(in crate::crash) const HISTORY: Flow = Flow {
    name: "history",
    share: 100,
    setup: |home| durable::mkdir(&home.state()).unwrap(),
    run: |home, from| {
        for number in from..=6 {
            step(number, || history::append(home, &entry(number)).unwrap());
        }
    },
    law: |home, seen| {
        let found = history::read(home, 100).map_err(text)?;
        for number in 1..=6 {
            let is_there = found.contains(&entry(number));
            if is_there != (number <= seen.acked) && (is_there != (number <= seen.begun)) {
                return Err(format!("line {number}: {is_there}"));
            }
        }
        history::append(home, &entry(7)).map_err(text)?;
        match history::read(home, 1).map_err(text)? {
            last if last == [entry(7)] => Ok(()),
            last => Err(format!("the next line is {last:?}")),
        }
    },
};
