//! Whether a node has peers: when it loses them, and when it dials again.
//!
//! A validator with its engine off drops every peer whose consensus message it receives, and dials again only after the
//! redial interval. On a public address the peers refuse a second connection that comes too soon after the last one.
//! All peers are one here: either the node has those that are there, or it has none.

use super::options::Options;

/// The connection of one node to all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Connected; a silent node is dropped at `drop`, once a consensus message is under way.
    Up { drop: Option<u64> },
    /// Without peers until `dial` (milliseconds since 1970).
    Down { dial: u64 },
}

/// The change that a moment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Dropped,
    Dialled,
}

impl Link {
    /// The link of a node that starts now and whose last accepted dial was at `last`.
    pub(crate) fn open(now: u64, last: Option<u64>, options: &Options) -> Link {
        match last {
            Some(last) if options.public && now < last + options.refusal() => {
                Link::Down { dial: last + options.redial_interval() }
            }
            _ => Link::Up { drop: None },
        }
    }

    /// Whether the node has those peers that are there.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Link::Up { .. })
    }

    /// Lets time pass for a node that is `silent` or not, while consensus messages of others reach it (`noisy`) or not.
    pub(crate) fn pass(&mut self, now: u64, silent: bool, noisy: bool, options: &Options) -> Change {
        match *self {
            Link::Up { drop: Some(drop) } if silent && noisy && now >= drop => {
                *self = Link::Down { dial: now + options.redial_interval() };
                Change::Dropped
            }
            Link::Up { drop: None } if silent && noisy => {
                *self = Link::Up { drop: Some(now + options.drop_delay(now)) };
                Change::None
            }
            Link::Up { .. } => {
                if !(silent && noisy) {
                    *self = Link::Up { drop: None };
                }
                Change::None
            }
            Link::Down { dial } if now >= dial => {
                *self = Link::Up { drop: None };
                Change::Dialled
            }
            Link::Down { .. } => Change::None,
        }
    }

    /// When time next changes it.
    pub(crate) fn deadline(self) -> u64 {
        match self {
            Link::Up { drop } => drop.unwrap_or(u64::MAX),
            Link::Down { dial } => dial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public() -> Options {
        Options { public: true, drop: Some(1000), ..Options::default() }
    }

    #[test]
    fn a_silent_node_is_dropped_at_the_first_message_and_dials_after_the_redial_interval() {
        let options = public();
        let mut link = Link::open(0, None, &options);
        assert_eq!(link.pass(10, true, false, &options), Change::None);
        assert_eq!(link.pass(20, true, true, &options), Change::None);
        assert_eq!(link.deadline(), 1020);
        assert_eq!(link.pass(1020, true, true, &options), Change::Dropped);
        assert!(!link.is_up());
        assert_eq!(link.pass(36_019, true, true, &options), Change::None);
        assert_eq!(link.pass(36_020, true, true, &options), Change::Dialled);
        assert!(link.is_up());
    }

    #[test]
    fn a_node_whose_engine_is_on_keeps_its_peers() {
        let options = public();
        let mut link = Link::open(0, None, &options);
        link.pass(20, true, true, &options);
        link.pass(900, false, true, &options);
        assert_eq!(link.pass(5000, false, true, &options), Change::None);
        assert_eq!(link, Link::Up { drop: None });
    }

    #[test]
    fn a_second_dial_is_refused_on_public_addresses_only() {
        let mut options = public();
        assert_eq!(Link::open(29_999, Some(0), &options), Link::Down { dial: 35_000 });
        assert!(Link::open(30_000, Some(0), &options).is_up());
        options.public = false;
        assert!(Link::open(1, Some(0), &options).is_up());
    }
}
