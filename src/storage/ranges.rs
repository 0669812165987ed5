//! A set of byte ranges.

use std::collections::BTreeMap;

/// Ranges that neither overlap nor touch: ranges that touch are merged.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Maps the begin of a range to its end.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `begin..end`.
    pub(super) fn add(&mut self, mut begin: u64, mut end: u64) {
        if begin >= end {
            return;
        }
        while let Some((&other, &other_end)) = self.ends.range(..=end).next_back().filter(|(_, other_end)| **other_end >= begin) {
            (begin, end) = (begin.min(other), end.max(other_end));
            self.ends.remove(&other);
        }
        self.ends.insert(begin, end);
    }

    /// Whether the set contains all of `begin..end`.
    pub(super) fn contain(&self, begin: u64, end: u64) -> bool {
        begin >= end || self.ends.range(..=begin).next_back().is_some_and(|(_, known)| *known >= end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_bytes_holds(added in proptest::collection::vec((0_u64..60, 0_u64..20), 0..12), begin in 0_u64..80, length in 0_u64..20) {
            let mut ranges = Ranges::default();
            let mut bytes = std::collections::BTreeSet::new();
            for (begin, length) in added {
                ranges.add(begin, begin + length);
                bytes.extend(begin..begin + length);
            }
            prop_assert_eq!(ranges.contain(begin, begin + length), (begin..begin + length).all(|byte| bytes.contains(&byte)));
            let ends: Vec<_> = ranges.ends.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
