//! The order in which validators propose blocks, as far as it is known at a head.
//!
//! A validator that starts again at an old head and is the proposer of the next height proposes there a second
//! time (measured: `wbft/README.md`, section 8). So the distance to the next own proposal decides when a
//! validator may be stopped and whether it may be started with its engine on.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A validator, by its address.
pub type Validator = [u8; 20];

/// The proposers of the heights after a head, in round 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// The height of the head.
    pub height: u64,
    /// The validators that seal the next block, in the order in which they propose.
    pub list: Vec<Validator>,
    /// The proposer of the head; None for block 0 and a zero coinbase.
    pub proposer: Option<Validator>,
    /// The last height to which the list and the policy apply: the next epoch block, or the last one before a change of
    /// the policy. None where that is not known.
    pub until: Option<u64>,
    /// Whether a proposer stays until a round fails, instead of the next one taking over.
    pub sticky: bool,
}

impl Order {
    /// The smallest number *d* of at least 1 such that `me` proposes block head + *d* in round 0. None if it is not
    /// a validator, or never proposes while every round succeeds.
    ///
    /// Beyond [`until`](Self::until) the order is drawn anew, so a distance that reaches further is only a bound.
    #[must_use]
    pub fn distance(&self, me: &Validator) -> Option<u64> {
        let at = |who: &Validator| self.list.iter().position(|v| v == who);
        let (ours, validators) = (at(me)?, self.list.len());
        // A proposer that is not in the list, as after the end of an epoch, counts as its first.
        let start = match &self.proposer {
            Some(last) => at(last).unwrap_or(0) + usize::from(!self.sticky),
            None => 0,
        };
        let away = (ours + validators - start % validators) % validators;
        if self.sticky { (away == 0).then_some(1) } else { Some(away as u64 + 1) }
    }

    /// The order at the next head, if the same list seals the block after it.
    #[must_use]
    pub fn after(&self, height: u64, proposer: Option<Validator>) -> Option<Order> {
        let follows = height == self.height.checked_add(1)? && self.until.is_none_or(|until| height < until);
        follows.then(|| Order { height, proposer, ..self.clone() })
    }

    /// Whether the block after the next is sealed by a list that is not drawn yet.
    #[must_use]
    pub fn ends_with_next(&self) -> bool {
        self.until == self.height.checked_add(1)
    }
}

/// An address as `0x…`.
pub(super) fn show(validator: &Validator) -> String {
    let mut text = "0x".to_owned();
    for byte in validator {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Validators that one line has room for.
const NAMED: usize = 5;

/// Some of them by their addresses, and the number of the others.
pub(super) fn show_some(validators: &[Validator]) -> String {
    let mut words: Vec<String> = validators.iter().take(NAMED).map(show).collect();
    if let Some(more) = validators.len().checked_sub(NAMED).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(height: u64, proposer: u8, sticky: bool) -> Order {
        let list = (1..=4).map(|n| [n; 20]).collect();
        Order { height, list, proposer: Some([proposer; 20]), until: Some(20), sticky }
    }

    #[test]
    fn of_many_validators_a_line_names_some() {
        let text = |n: u8| show_some(&(0..n).map(|n| [n; 20]).collect::<Vec<_>>());
        assert_eq!(text(1), format!("0x{}", "00".repeat(20)));
        assert_eq!(text(5).split(' ').count(), 5);
        assert!(text(7).ends_with(&format!("{} and 2 more", "04".repeat(20))), "{}", text(7));
    }

    #[test]
    fn the_next_in_the_list_is_one_away_and_the_proposer_itself_a_whole_round() {
        let distances =
            |proposer| [1, 2, 3, 4].map(|me| order(10, proposer, false).distance(&[me; 20]).unwrap());
        assert_eq!(distances(1), [4, 1, 2, 3]);
        assert_eq!(distances(4), [1, 2, 3, 4]);
        assert_eq!(distances(9), [4, 1, 2, 3], "a proposer that has left the list counts as its first");
        let first = Order { proposer: None, ..order(0, 1, false) };
        assert_eq!(first.distance(&[1; 20]), Some(1), "the first of the list begins");
        assert_eq!(order(10, 1, false).distance(&[9; 20]), None);
    }

    #[test]
    fn a_sticky_proposer_stays() {
        assert_eq!([1, 2].map(|me| order(10, 1, true).distance(&[me; 20])), [Some(1), None]);
    }

    #[test]
    fn the_list_ends_with_its_epoch() {
        let order = order(18, 1, false);
        let next = order.after(19, Some([2; 20])).unwrap();
        assert_eq!((next.distance(&[3; 20]), next.ends_with_next()), (Some(1), true));
        assert_eq!(next.after(20, Some([3; 20])), None);
        assert_eq!(order.after(20, Some([3; 20])), None, "a head in between was not heard");
    }
}
