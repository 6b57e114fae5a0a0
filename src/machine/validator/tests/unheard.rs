//! The mark of a head record beyond which a node that signs may have gone on unheard.

use super::*;
use crate::machine::heads::Beyond;

/// The head record after `what` has happened to a validator that signs.
fn record_after(what: impl Fn(&mut Rig)) -> HeadRecord {
    let mut rig = running();
    rig.follow(92);
    assert!(!rig.kept.as_ref().unwrap().unheard);
    what(&mut rig);
    rig.kept.clone().unwrap()
}

/// Blocks may be signed while another node answers, or none does: the record on disk says so, until it is the head again.
#[test]
fn the_head_record_is_marked_while_a_node_that_signs_is_not_heard() {
    let foreign = |rig: &mut Rig, height| {
        rig.pass(1);
        let (block, parent) = (Block { height, hash: Some("0xff".to_owned()) }, Some("0xfe".to_owned()));
        rig.feed(Event::Head(Head { block, parent, ..told(height) }));
    };
    let above = record_after(|rig| foreign(rig, 5_000));
    assert!(above.unheard && above.block.height == 92);
    assert!(record_after(|rig| foreign(rig, 10)).unheard);
    // Five periods of a second, or a little more.
    let fails = |rig: &mut Rig| {
        rig.pass(1);
        rig.feed(Event::Surveyed(Err(Failure::new(Class::Transient, "no answer"))));
    };
    assert!(!record_after(|rig| (0..5).for_each(|_| fails(rig))).unheard);
    assert!(record_after(|rig| (0..6).for_each(|_| fails(rig))).unheard);
    // A chain that stands still is heard by its surveys.
    let stands = |rig: &mut Rig| {
        rig.pass(1);
        rig.surveyed(survey(92, &[]));
    };
    assert!(!record_after(|rig| (0..60).for_each(|_| stands(rig))).unheard);
    // An older block does not tell where the node has been.
    let below = record_after(|rig| {
        foreign(rig, 5_000);
        rig.follow(91);
    });
    assert!(below.unheard);
    let again = record_after(|rig| {
        foreign(rig, 5_000);
        rig.follow(93);
    });
    assert!(!again.unheard && again.block.height == 93);
    // A stop has lost the newest block: the node gets it before it signs another one.
    assert!(!record_after(|rig| (0..60).for_each(|_| rig.follow(91))).unheard);
    let alone = record_after(|rig| rig.ask(Request::Detach));
    assert!(alone.unheard, "it goes on with no supervisor");
}

/// A marked record proves nothing: neither that the next own block is far, nor what is final where all stand still.
#[test]
fn by_a_marked_head_record_a_node_signs_only_on_a_chain_that_goes_on() {
    let turns = Some(Turns { at_head: Some(3), before: Some(4), validators: 4 });
    let booted = |node, unheard| {
        let record = Record { node, chain: Some(chain()), ..Record::new(version(Target::Genesis)) };
        let head = HeadRecord { turns, unheard, ..HeadRecord::new(block(200)) };
        Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(head))
    };
    let stands = |mut rig: Rig| {
        rig.head(200);
        for _ in 0..60 {
            rig.pass(1);
            rig.surveyed(connected(200, &[2, 3, 4]));
        }
        rig
    };
    assert!(stands(booted(NodeMark::StoppedUnclean, false)).signs() > 0);
    assert_eq!(booted(NodeMark::StoppedClean, true).modes(), [Mode::Silent]);
    let mut rig = stands(booted(NodeMark::StoppedUnclean, true));
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("were not heard"), "{}", rig.silent());
    // To follow the chain in silence does not tell which blocks were signed before.
    rig.head(201);
    assert!(rig.kept.as_ref().unwrap().unheard);
    rig.ask(Request::Sign(None));
    assert!(rig.answer().is_err_and(|missing| missing.contains("were not heard")), "{:?}", rig.answer());
    for height in 202..206 {
        rig.follow(height);
    }
    assert_eq!(rig.signs(), 1, "{}", rig.silent());
    rig.feed(Event::SealingStarted(Ok(())));
    rig.follow(206);
    assert!(!rig.kept.as_ref().unwrap().unheard);
}

/// An order to forget the record says nothing of what was signed, and the record of the same chain is marked again.
#[test]
fn the_mark_of_a_head_record_outlives_the_record() {
    let record = Record {
        node: NodeMark::StoppedUnclean,
        chain: Some(chain()),
        ..Record::new(version(Target::Genesis))
    };
    let head = HeadRecord { unheard: true, ..HeadRecord::new(block(200)) };
    let mut rig = Rig::boot(Policy { validator: true, ..Policy::default() }, record, Some(head));
    rig.head(200);
    rig.ask(Request::ResetHead);
    for _ in 0..60 {
        rig.head(200);
        rig.surveyed(connected(200, &[2, 3, 4]));
    }
    assert_eq!(rig.machine.heads.height(), Some(200));
    assert_eq!(rig.signs(), 0);
    assert!(rig.silent().contains("were not heard"), "{}", rig.silent());
}

/// The answer to the order to seal may be lost, or its record may wait for the disk, while the node signs.
#[test]
fn a_node_that_was_told_to_seal_counts_as_one_that_signs() {
    let told = || {
        let mut rig = after_a_kill();
        for height in 200..205 {
            rig.follow(height);
        }
        assert_eq!((rig.signs(), rig.record.silent), (1, true), "{}", rig.silent());
        rig
    };
    let mut rig = told();
    rig.pass(1);
    rig.feed(Event::Head(Head { parent: Some("0xfe".to_owned()), ..told_as(5_000) }));
    assert!(rig.kept.as_ref().unwrap().unheard);
    let mut rig = told();
    rig.ask(Request::Detach);
    assert!(rig.kept.as_ref().unwrap().unheard);
}

fn told_as(height: u64) -> Head {
    Head { block: Block { height, hash: Some("0xff".to_owned()) }, ..told(height) }
}

/// The link of the last head may come when the node is ending; the next one need not be silent for it.
#[test]
fn the_mark_ends_with_the_link_of_the_head_while_the_node_ends() {
    let mut rig = running();
    rig.follow(92);
    rig.ask(Request::Stop);
    assert_eq!(rig.stops(), 1);
    let keep = |rig: &mut Rig, beyond| {
        rig.machine.heads.note_beyond(beyond);
        rig.kept = rig.machine.heads.record().cloned();
    };
    keep(&mut rig, Beyond::Unheard);
    rig.head(94);
    assert!(!rig.kept.as_ref().unwrap().unheard && rig.kept.as_ref().unwrap().block.height == 94);
    // That it reports nothing any more is its end.
    rig.tick(60);
    assert!(!rig.kept.as_ref().unwrap().unheard);
    keep(&mut rig, Beyond::Unheard);
    rig.tick(60);
    assert!(rig.kept.as_ref().unwrap().unheard);
}

/// A slow disk may hold us up, and the node is stopped at its fork before it is heard again.
#[test]
fn a_head_record_is_not_marked_for_a_time_in_which_we_did_not_listen() {
    let mut rig = running();
    rig.follow(92);
    rig.tick(30);
    assert!(!rig.kept.as_ref().unwrap().unheard);
    // Now it could have been heard.
    for _ in 0..6 {
        rig.tick(1);
    }
    assert!(rig.kept.as_ref().unwrap().unheard);
    rig.tick(30);
    assert!(rig.kept.as_ref().unwrap().unheard, "nor is a mark taken away");
    // The binary is looked at just before the stop.
    let mut rig = running();
    rig.follow(92);
    let waits = State::Inspecting { name: name("v2"), node: rig.machine.take_running() };
    rig.machine.state = waits;
    rig.pass(30);
    rig.feed(Event::Inspected);
    assert!(!rig.kept.as_ref().unwrap().unheard);
}
