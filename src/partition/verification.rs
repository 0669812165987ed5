//! Which producers may begin a transaction in a partition: only if the transaction's coordinator was asked, and no marker was stored since (KIP-890).
//!
//! Without this a late batch could begin a transaction after the marker that ended it, and that transaction would never end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::ProducerId;

/// Verifications whose request to the coordinator is in progress, or whose result was not used yet.
#[derive(Debug, Default)]
pub(super) struct Verifications(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    next: u64,
    /// At most as many entries as there are requests in progress.
    by_producer: BTreeMap<ProducerId, BTreeSet<u64>>,
}

/// Created before the coordinator is asked. It is valid until a marker of the producer is stored, and ends when it is dropped.
#[derive(Debug)]
pub struct Verification {
    of: Arc<Verifications>,
    producer: ProducerId,
    number: u64,
}

impl Verifications {
    pub(super) fn begin(self: &Arc<Self>, producer: ProducerId) -> Verification {
        let mut asked = self.asked();
        let number = asked.next;
        asked.next += 1;
        asked.by_producer.entry(producer).or_default().insert(number);
        Verification { of: self.clone(), producer, number }
    }

    /// Notes a marker of this producer: earlier answers of the coordinator are not valid for later batches.
    pub(super) fn end(&self, producer: ProducerId) {
        self.asked().by_producer.remove(&producer);
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verification {
    /// Whether it allows this producer to begin a transaction.
    pub(super) fn holds_for(&self, producer: ProducerId) -> bool {
        let asked = self.of.asked();
        self.producer == producer && asked.by_producer.get(&producer).is_some_and(|numbers| numbers.contains(&self.number))
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        let mut asked = self.of.asked();
        if let Some(numbers) = asked.by_producer.get_mut(&self.producer) {
            numbers.remove(&self.number);
            if numbers.is_empty() {
                asked.by_producer.remove(&self.producer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_ends_what_was_asked_before_it() {
        let (one, two) = (ProducerId(1), ProducerId(2));
        let all = Arc::<Verifications>::default();
        let (first, second, other) = (all.begin(one), all.begin(one), all.begin(two));
        assert!(first.holds_for(one) && second.holds_for(one) && !first.holds_for(two));
        drop(second);
        assert!(first.holds_for(one));
        all.end(one);
        assert!(!first.holds_for(one) && other.holds_for(two));
        let later = all.begin(one);
        drop(first);
        assert!(later.holds_for(one));
        drop((later, other));
        assert!(all.asked().by_producer.is_empty());
    }
}
