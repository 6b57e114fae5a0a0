//! The coordinator of one validator, whose node shows the recorded blocks.

use super::*;

#[test]
fn the_height_is_awaited_head_by_head() {
    let node = Node::start(100, true);
    let mut coordinator = Coordinator::new(node.client());
    let mut heads = Vec::new();
    let reached = coordinator.wait_for_upgrade_height(104, |head| {
        heads.push(head);
        node.set_head(head + 2);
        true
    });
    assert_eq!((reached.unwrap(), heads.as_slice()), (Some(104), [100, 102].as_slice()));
    assert_eq!(coordinator.wait_for_upgrade_height(200, |_| false).unwrap(), None);
    // Late is not an error.
    assert_eq!(coordinator.wait_for_upgrade_height(3, |_| panic!("reached")).unwrap(), Some(104));
}

#[test]
fn the_turn_is_awaited_until_the_network_can_spare_us() {
    // Blocks that are yet to come are fresh. Of four validators ours, the second by address, has slot 1: 24 to 35.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let node = Node::start(20, true).with(|blocks| {
        for (height, block) in blocks.iter_mut().enumerate() {
            block["block"]["timestamp"] = json!(show_quantity(now + height as u64 - 20));
        }
    });
    let mut coordinator = Coordinator::new(node.client());
    let (mut head, mut held) = (20, Vec::new());
    let reason = coordinator.wait_for_turn(|verdict| {
        if let Verdict::Hold(gates) = verdict {
            held.push((head, gates[0].name()));
        }
        head += 1;
        node.set_head(head);
        true
    });
    assert_eq!(reason.unwrap(), Some(Reason::Open));
    assert!((24..36).contains(&head), "{head}");
    assert_eq!(&held[..4], [(20, "turn"), (21, "turn"), (22, "turn"), (23, "turn")]);
    assert!(held[4..].iter().all(|(_, gate)| *gate == "proposal"), "{held:?}");
}

#[test]
fn an_outlook_has_the_verdict_and_the_state_that_it_was_judged_by() {
    let node = Node::start(120, true);
    let outlook = Coordinator::new(node.client()).outlook(None).unwrap();
    assert_eq!((outlook.state().live, outlook.state().quorum), (3, 3));
    match outlook.spare() {
        Verdict::Hold(gates) => {
            assert!(gates.iter().any(|g| matches!(g, Gate::Quorum { without_us: 2, .. })))
        }
        go => panic!("{go:?}"),
    }
    // A node whose address is not known may be needed.
    let node = Node::start(98, false);
    let spare = Coordinator::new(node.client()).outlook(None).unwrap().spare();
    assert!(matches!(spare, Verdict::Hold(gates) if matches!(gates[0], Gate::Unknown { .. })));
}
