//! Sorting and look-ups that cost little in the binary.
//!
//! The standard library compiles its sort anew for each type of element, which is 4 KiB each time, and `collect()` into a
//! `BTreeMap` or `BTreeSet` sorts as well. Here the algorithm sees positions only, so that one copy serves all types. It
//! costs an allocation of three words for each element, which does not matter for lists that are sorted once.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::mem;
use std::slice;

/// Sorts, and keeps the order of what is equal.
pub(crate) fn sort<T: Ord>(items: &mut [T]) {
    by(items, T::cmp);
}

/// Sorts by a key, and keeps the order of what has the same one.
pub(crate) fn by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    by(items, |a, b| key(a).cmp(&key(b)));
}

/// Sorts by a comparison, and keeps the order of what is equal.
pub(crate) fn by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    for (a, b) in swaps(items.len(), &|a, b| compare(&items[a], &items[b])) {
        items.swap(a, b);
    }
}

/// The swaps, in this order, that sort `len` elements.
fn swaps(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<(usize, usize)> {
    let mut sources: Vec<usize> = (0..len).collect();
    sources.sort_by(|a, b| compare(*a, *b));
    let mut swaps = Vec::new();
    for start in 0..len {
        let mut place = start;
        loop {
            let source = mem::replace(&mut sources[place], place);
            if source == start || source == place {
                break;
            }
            swaps.push((place, source));
            place = source;
        }
    }
    swaps
}

/// Collects one by one into a map or a set, where `collect()` sorts first.
pub(crate) fn gather<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}

/// A set that is made once and then only read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set<K>(Vec<K>);

impl<K: Ord> Set<K> {
    pub(crate) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|k| k.borrow().cmp(key)).is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> slice::Iter<'_, K> {
        self.0.iter()
    }

    /// The elements in their order.
    pub(crate) fn into_vec(self) -> Vec<K> {
        self.0
    }
}

impl<K: Ord> FromIterator<K> for Set<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut keys: Vec<K> = keys.into_iter().collect();
        sort(&mut keys);
        keys.dedup();
        Set(keys)
    }
}

/// A map that is made once and then only read. Of several values for a key it has the last.
#[derive(Debug)]
pub(crate) struct Index<K, V>(Vec<(K, V)>);

impl<K: Ord, V> Index<K, V> {
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.0.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Index<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        // Of two equal keys the later comes first, and stays.
        pairs.reverse();
        by(&mut pairs, |(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(a, _), (b, _)| a == b);
        Index(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn it_sorts_as_the_standard_library_does(items: Vec<(u8, u16)>) {
            let (mut ours, mut theirs) = (items.clone(), items.clone());
            sort(&mut ours);
            theirs.sort();
            prop_assert_eq!(&ours, &theirs);
            let (mut ours, mut theirs) = (items.clone(), items);
            by_key(&mut ours, |(key, _)| *key);
            theirs.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn it_finds_what_the_maps_of_the_standard_library_find(items: Vec<(u8, u16)>) {
            let (ours, theirs): (Index<u8, u16>, BTreeMap<u8, u16>) =
                (items.iter().copied().collect(), items.iter().copied().collect());
            let (keys, known): (Set<u8>, BTreeSet<u8>) =
                (items.iter().map(|(key, _)| *key).collect(), theirs.keys().copied().collect());
            for key in 0..=u8::MAX {
                prop_assert_eq!(ours.get(&key), theirs.get(&key));
                prop_assert_eq!(keys.contains(&key), known.contains(&key));
            }
            prop_assert_eq!(keys.len(), known.len());
            prop_assert_eq!(keys.into_vec(), known.into_iter().collect::<Vec<_>>());
        }
    }
}
