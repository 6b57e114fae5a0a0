//! The first contact of a home, which knows no block that a head could be linked to.

use super::*;

#[test]
fn the_first_contact_takes_two_answers_that_are_apart() {
    let mut rig = Rig::new(None, VALIDATOR);
    assert_eq!(rig.hear(&head(0, 50)), Hearing::Nothing);
    rig.vouch();
    assert_eq!(rig.hear(&head(0, 50)), Hearing::Nothing, "two answers in one packet are one");
    assert_eq!(rig.heads.asks_again_at(rig.pace), Some(rig.now + Duration::from_millis(500)));
    rig.now += Duration::from_millis(499);
    assert_eq!(rig.hear(&head(0, 50)), Hearing::Nothing);
    rig.now += Duration::from_millis(1);
    assert_eq!(rig.hear(&head(0, 50)), Hearing::Recall { height: 50 });
    assert_eq!(rig.height(), None);
    assert_eq!(rig.recalled(0, 50), Hearing::Counted);
    assert_eq!((rig.height(), rig.heads.asks_again_at(rig.pace)), (Some(50), None));

    let mut rig = Rig::new(None, VALIDATOR);
    rig.hear(&head(0, 50));
    rig.vouch();
    assert_eq!(rig.next(0, 51), Hearing::Recall { height: 51 }, "a child is a second answer");
    assert_eq!(rig.next(0, 52), Hearing::Nothing, "the question is open");
    assert_eq!(rig.recalled(0, 51), Hearing::Counted);
    assert_eq!(rig.next(0, 53), Hearing::Trace { from: 51, to: 52 });
}

#[test]
fn at_the_first_contact_a_false_latest_block_counts_for_nothing_however_often_it_is_reported() {
    for height in [1_000_000_000, u64::MAX] {
        let mut rig = Rig::new(None, VALIDATOR);
        let none = Block { height, hash: None };
        for _ in 0..20 {
            if let Hearing::Recall { height } = rig.next(7, height) {
                assert_eq!(rig.heads.recalled(&Block { height, ..none.clone() }, rig.pace), Hearing::Nothing);
            }
            rig.vouch();
        }
        assert_eq!(rig.height(), None);
        // An answer that is lost is asked for again.
        rig.next(0, 50);
        rig.vouch();
        assert_eq!(rig.next(0, 50), Hearing::Recall { height: 50 });
        assert_eq!(rig.heads.asks_again_at(rig.pace), Some(rig.now + Duration::from_secs(2)));
        rig.wait(1);
        assert_eq!(rig.next(0, 50), Hearing::Recall { height: 50 });
        assert_eq!(rig.recalled(0, 50), Hearing::Counted);
    }
}

#[test]
fn at_the_first_contact_the_node_names_its_chain_between_two_heads() {
    let mut rig = Rig::new(None, VALIDATOR);
    rig.hear(&head(7, 50));
    assert_eq!(rig.heads.lacks_voucher(), (true, true));
    rig.heads.vouch();
    assert_eq!(rig.next(7, 51), Hearing::Nothing, "the node was asked before it told its first head");
    assert_eq!(rig.next(7, 52), Hearing::Nothing, "another node may answer for a moment");
    rig.vouch();
    let asked = Hearing::Recall { height: 53 };
    assert_eq!((rig.heads.lacks_voucher(), rig.next(7, 53)), ((false, false), asked));

    let mut rig = Rig::new(None, VALIDATOR);
    rig.hear(&head(7, 50));
    rig.vouch();
    rig.heads.distrust();
    assert_eq!(rig.next(7, 51), Hearing::Nothing, "the node has named another chain since");
}

#[test]
fn at_the_first_contact_a_false_head_gives_way() {
    let mut rig = Rig::new(None, VALIDATOR);
    for (branch, height) in [(7, 970), (0, 50), (7, 970), (0, 52)] {
        assert_eq!(rig.next(branch, height), Hearing::Nothing);
        rig.vouch();
    }
    assert_eq!(rig.height(), None, "no answer is linked to the one before");
    assert_eq!(rig.next(0, 53), Hearing::Recall { height: 53 });
    assert_eq!(rig.recalled(0, 53), Hearing::Counted);
    assert_eq!(rig.height(), Some(53));
}
