//! The rule for the proposer of a height: by the list that seals it, the proposer of the block before, and the round.
//!
//! [`Order`](crate::machine::order::Order) is its result at one head, as plain data for decisions.

use super::consensus::Policy;
use super::hex::Address;

/// The proposer of `round` of a height that `list` seals, where `last` proposed the block before; `None` without a list.
///
/// `last` is `None` for height 1 and after a zero coinbase: the first of the list begins. A proposer that is not in
/// the list, as after the end of an epoch, counts as its first.
#[must_use]
pub fn proposer(list: &[Address], last: Option<Address>, round: u64, policy: Policy) -> Option<Address> {
    let length = u64::try_from(list.len()).ok().filter(|length| *length > 0)?;
    let start = last.map_or(0, |last| {
        let at = list.iter().position(|validator| *validator == last).unwrap_or(0);
        at as u64 + u64::from(policy == Policy::RoundRobin)
    });
    let index = (round % length + start) % length;
    list.get(usize::try_from(index).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::order::Order;

    fn list(length: u8) -> Vec<Address> {
        (1..=length).map(|n| Address([n; 20])).collect()
    }

    fn order(length: u8, proposer: Option<u8>, sticky: bool) -> Order {
        let list = list(length).into_iter().map(|v| v.0).collect();
        Order { height: 50, list, proposer: proposer.map(|n| [n; 20]), until: Some(60), sticky }
    }

    #[test]
    fn each_round_moves_on_from_the_start_that_the_policy_gives() {
        let five = list(5);
        let index = |last: Option<u8>, round, policy| {
            let found = proposer(&five, last.map(|n| Address([n; 20])), round, policy).unwrap();
            five.iter().position(|v| *v == found).unwrap()
        };
        for round in [0, 1, 7, u64::MAX] {
            let shift = usize::try_from(round % 5).unwrap();
            for (last, robin, sticky) in
                [(None, 0, 0), (Some(1), 1, 0), (Some(4), 4, 3), (Some(5), 0, 4), (Some(99), 1, 0)]
            {
                assert_eq!(index(last, round, Policy::RoundRobin), (robin + shift) % 5, "{last:?} {round}");
                assert_eq!(index(last, round, Policy::Sticky), (sticky + shift) % 5, "{last:?} {round}");
            }
        }
        assert_eq!(proposer(&[], None, 0, Policy::RoundRobin), None);
        assert_eq!(proposer(&list(1), Some(Address([1; 20])), 9, Policy::Sticky), Some(Address([1; 20])));
    }

    #[test]
    fn the_distance_is_the_first_height_that_the_proposer_rule_gives_us() {
        for length in 1..6 {
            for last in std::iter::once(None).chain((1..=length).map(Some)).chain([Some(99)]) {
                for sticky in [false, true] {
                    let (order, list) = (order(length, last, sticky), list(length));
                    let policy = if sticky { Policy::Sticky } else { Policy::RoundRobin };
                    for me in &list {
                        let mut last = last.map(|n| Address([n; 20]));
                        let found = (1..=u64::from(length)).find(|_| {
                            last = proposer(&list, last, 0, policy);
                            last == Some(*me)
                        });
                        assert_eq!(order.distance(&me.0), found, "{order:?} {me}");
                    }
                    assert_eq!(order.distance(&[77; 20]), None);
                }
            }
        }
    }
}
