//! How many validators WBFT needs, and so how many may be missing.
//!
//! Each validator has one vote. A block is decided when ⌈N − (N−1)/3⌉ validators commit to it; what is
//! beyond that is the margin, the number that may be down while the chain goes on.

/// The votes that decide a block among `validators`: ⌈N − (N−1)/3⌉, in whole numbers. An empty set decides nothing: 1.
///
/// ```
/// use wemixvisor::wbft::quorum::quorum;
/// assert_eq!([1, 2, 3, 4, 5, 6, 7].map(quorum), [1, 2, 3, 3, 4, 5, 5]);
/// ```
#[must_use]
pub const fn quorum(validators: usize) -> usize {
    if validators == 0 { 1 } else { validators - margin(validators) }
}

/// How many of `validators` may be down at once: ⌊(N−1)/3⌋. None of fewer than 4.
#[must_use]
pub const fn margin(validators: usize) -> usize {
    // ⌈N − x⌉ = N − ⌊x⌋ for whole N, so the division that rounds down is the whole of it.
    validators.saturating_sub(1) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_node() {
        assert_eq!((1..=7).map(quorum).collect::<Vec<_>>(), [1, 2, 3, 3, 4, 5, 5]);
        assert_eq!((quorum(0), margin(0)), (1, 0));
    }

    #[test]
    fn the_smallest_number_that_is_at_least_the_fraction() {
        for n in 1..=200 {
            // q ≥ n − (n−1)/3, multiplied by 3 so that it is exact.
            let least = (0..=n).find(|q| 3 * q >= 3 * n - (n - 1)).unwrap();
            assert_eq!(quorum(n), least, "{n} validators");
            assert_eq!(quorum(n) as f64, (n as f64 - (n as f64 - 1.0) / 3.0).ceil(), "{n} validators");
            assert_eq!(margin(n), n - least, "{n} validators");
        }
    }

    #[test]
    fn two_quorums_share_an_honest_validator() {
        for n in 1..=200 {
            assert!(2 * quorum(n) - n > margin(n), "{n} validators");
        }
    }
}
