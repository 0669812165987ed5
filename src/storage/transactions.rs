//! The entry that an aborted transaction gets in its segment. And transactions during a walk of a log from its front: which batches belong to aborted
//! transactions, and which markers have no remaining records.

use std::collections::HashMap;

use super::index::AbortedEntry;
use super::producers::{Ended, ProducerState};
use super::segment::Segment;
use crate::model::ProducerId;
use crate::records::{BatchHeader, Marker, TransactionResult};

/// Notes in a segment that a transaction has ended: if it was aborted, readers need an entry for it.
pub(super) fn note_ended(segment: &Segment, producers: &ProducerState, ended: &Ended) {
    aborted_entry(producers, ended).into_iter().for_each(|entry| segment.note_aborted(entry));
}

/// The entry that readers need for a transaction that has just ended; none if it was committed.
pub(super) fn aborted_entry(producers: &ProducerState, ended: &Ended) -> Option<AbortedEntry> {
    let after = ended.last_offset.plus(1);
    (ended.result == TransactionResult::Abort).then(|| AbortedEntry {
        producer_id: ended.producer_id.0,
        first_offset: ended.first_offset.0,
        last_offset: ended.last_offset.0,
        // Computed as if its own marker were committed already.
        last_stable: producers.first_open().map_or(after, |first| first.min(after)).0,
    })
}

/// The transactions that are open at the current position of a walk.
#[derive(Debug)]
pub(super) struct Transactions<'a> {
    /// In the order of their first offsets.
    aborted: &'a [AbortedEntry],
    open: HashMap<ProducerId, Open>,
}

/// A transaction that began before the current position of the walk and ends after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    is_aborted: bool,
    /// Whether the walk has found a batch of its data.
    has_data: bool,
}

impl<'a> Transactions<'a> {
    /// The state before the first batch; `aborted` are all aborted transactions of the walked part, in the order of their first offsets.
    pub(super) fn new(aborted: &'a [AbortedEntry]) -> Transactions<'a> {
        Transactions { aborted, open: HashMap::new() }
    }

    /// Whether a batch of data, the next one of the walk, belongs to an aborted transaction.
    pub(super) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.advance(header);
        if !header.is_transactional() {
            return false;
        }
        let open = self.open.entry(header.producer_id).or_insert(Open { is_aborted: false, has_data: false });
        open.has_data = true;
        open.is_aborted
    }

    /// Whether a marker, the next batch of the walk, has no remaining records.
    pub(super) fn is_idle(&mut self, header: &BatchHeader, marker: &Marker) -> bool {
        self.advance(header);
        let ended = self.open.remove(&marker.producer_id);
        !ended.is_some_and(|open| open.has_data && open.is_aborted == (marker.result == TransactionResult::Abort))
    }

    /// Opens the aborted transactions that begin before the end of this batch and end after its beginning.
    fn advance(&mut self, header: &BatchHeader) {
        while let Some((next, rest)) = self.aborted.split_first().filter(|(next, _)| next.first_offset <= header.last_offset().0) {
            self.aborted = rest;
            if next.last_offset >= header.base_offset.0 {
                self.open.insert(ProducerId(next.producer_id), Open { is_aborted: true, has_data: false });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Offset, ProducerEpoch};
    use crate::records::{BatchBuilder, NewRecord};

    fn data(producer: i64, offset: i64) -> BatchHeader {
        let batch = BatchBuilder::new().record(NewRecord::value(b"x")).producer(producer, 0, 0).transactional().build(0);
        BatchHeader { base_offset: Offset(offset), ..BatchHeader::read(&batch).unwrap() }
    }

    fn marker(producer: i64, offset: i64, result: TransactionResult) -> (BatchHeader, Marker) {
        let marker = Marker { producer_id: ProducerId(producer), producer_epoch: ProducerEpoch(0), result, coordinator_epoch: 0 };
        (BatchHeader { base_offset: Offset(offset), ..*marker.to_batch(0).header() }, marker)
    }

    #[test]
    fn batches_of_aborted_transactions_are_told_from_others() {
        use TransactionResult::{Abort, Commit};
        // Producer 1 commits 0 and aborts 3 and 5; producer 2 aborts 1; then 1 commits 8.
        let entry = |producer_id, first_offset, last_offset| AbortedEntry { producer_id, first_offset, last_offset, last_stable: 0 };
        let aborted = [entry(2, 1, 4), entry(1, 3, 6)];
        let mut walk = Transactions::new(&aborted);
        let ends = |walk: &mut Transactions<'_>, producer, offset, result| {
            let (header, marker) = marker(producer, offset, result);
            walk.is_idle(&header, &marker)
        };
        assert!(!walk.is_aborted(&data(1, 0)));
        assert!(walk.is_aborted(&data(2, 1)));
        assert!(!ends(&mut walk, 1, 2, Commit));
        assert!(walk.is_aborted(&data(1, 3)));
        assert!(!ends(&mut walk, 2, 4, Abort));
        assert!(walk.is_aborted(&data(1, 5)));
        assert!(!ends(&mut walk, 1, 6, Abort));
        assert!(ends(&mut walk, 1, 7, Abort), "one without data");
        assert!(!walk.is_aborted(&data(1, 8)));
        assert!(ends(&mut walk, 3, 9, Commit), "its data has been compacted away");
        // A walk that begins in the middle knows the transactions that are open there.
        let mut later = Transactions::new(&aborted);
        assert!(later.is_aborted(&data(1, 5)));
        assert!(!later.is_aborted(&data(2, 7)), "that one ended before");
    }
}
