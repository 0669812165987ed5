//! One transactional id: its producer, and the state of its transaction.
//!
//! | from | to | when |
//! |---|---|---|
//! | Empty, CompleteCommit, CompleteAbort | Empty | a producer begins to use the id |
//! | Empty, CompleteCommit, CompleteAbort | Ongoing | a partition is added |
//! | Ongoing | PrepareCommit, PrepareAbort | the producer ends it, it times out, or another producer starts to use the id |
//! | Empty, CompleteCommit, CompleteAbort | PrepareAbort | a producer that bumps its epoch aborts a transaction without partitions (KIP-890) |
//! | PrepareCommit | CompleteCommit | every partition has its marker |
//! | PrepareAbort | CompleteAbort | every partition has its marker |
//!
//! A transition is stored before it takes effect, so Kafka's pending transitions have no counterpart here.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::Now;
use crate::model::{ProducerEpoch, ProducerId, TopicPartition};
use crate::protocol::ErrorCode;
use crate::protocol::generated::transaction_state::{PartitionsSchema, TransactionLogValue};
use crate::records::{EpochRule, Marker, TransactionResult};

/// The last epoch that a producer may use; the epoch above it is used only to fence.
const EPOCH_LAST: i16 = i16::MAX - 1;
/// No producer id, or no epoch.
const NONE: i16 = -1;
/// The level of `transaction.version` from which the epoch grows with each transaction.
const GROWS_FROM: i16 = 2;

/// The states, with their numbers in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TransactionState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl TransactionState {
    /// All of them.
    pub const ALL: [TransactionState; 6] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ];
    /// Kafka's states that are not used here, by name.
    pub const OTHERS: [&str; 2] = ["Dead", "PrepareEpochFence"];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
        }
    }

    fn of_number(number: i8) -> Option<TransactionState> {
        TransactionState::ALL.into_iter().find(|state| *state as i8 == number)
    }
}

/// A producer id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub id: ProducerId,
    /// The epoch.
    pub epoch: ProducerEpoch,
}

impl Identity {
    /// Id and epoch.
    pub fn new(id: i64, epoch: i16) -> Identity {
        Identity { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
    }
}

/// A transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Its producer; epoch -1 before its first use.
    pub(super) producer: Identity,
    /// The previous producer id, if its epochs were exhausted.
    previous_id: ProducerId,
    /// The producer id after this transaction, if the epochs of the current one are exhausted.
    next_id: ProducerId,
    /// The previous epoch, kept in memory only: it identifies a retried request.
    last_epoch: i16,
    pub(super) timeout_ms: i32,
    pub(super) state: TransactionState,
    pub(super) partitions: BTreeSet<TopicPartition>,
    /// Wall-clock time at which the transaction began; -1 if none is open.
    pub(super) start_ms: i64,
    /// Wall-clock time of the last change.
    updated_ms: i64,
    client_version: i16,
    /// Monotonic time of the beginning, and of the last change.
    start_mono_ms: i64,
    updated_mono_ms: i64,
    /// Whether its markers are being written.
    pub(super) is_completing: bool,
}

/// The outcome of a request to end a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has already ended in this way: the identity for the next transaction.
    Done(Identity),
    /// The decision, which has to be stored: the identity for the next transaction.
    Prepared(Box<Transaction>, Identity),
    /// A new producer id is needed first.
    NeedsProducerId,
}

/// The outcome of a request to use a transactional id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Init {
    /// The producer owns the id once this is stored.
    Ready(Box<Transaction>),
    /// The open transaction must be aborted first; this is the decision, which has to be stored.
    Aborts(Box<Transaction>),
    /// A new producer id is needed first.
    NeedsProducerId,
}

impl Transaction {
    /// A new transactional id, with a producer id that was never used before.
    pub(super) fn new(producer_id: ProducerId, timeout_ms: i32, now: Now) -> Transaction {
        Transaction {
            producer: Identity { id: producer_id, epoch: ProducerEpoch(NONE) },
            previous_id: ProducerId::NONE,
            next_id: ProducerId::NONE,
            last_epoch: NONE,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            updated_ms: now.wall_ms,
            client_version: 0,
            start_mono_ms: now.mono_ms,
            updated_mono_ms: now.mono_ms,
            is_completing: false,
        }
    }

    /// The transaction of a stored value, and what in it had to be repaired; an error if nothing can be made of it. The time that has passed since it
    /// was stored is computed once, here, from the wall clock; it is 0 if the wall clock was set back.
    pub(super) fn restore(value: &TransactionLogValue, now: Now) -> Result<(Transaction, Option<&'static str>), String> {
        use TransactionState::{Empty, Ongoing, PrepareAbort, PrepareCommit};
        let number = value.transaction_status;
        let state = TransactionState::of_number(number).ok_or_else(|| format!("state {number} is unknown"))?;
        let (id, epoch, next_id) = (value.producer_id, value.producer_epoch, ProducerId(value.next_producer_id));
        if id < 0 || epoch < NONE || (epoch == NONE && state != Empty) {
            return Err(format!("it is {state:?} with producer id {id} and epoch {epoch}"));
        }
        if next_id != ProducerId::NONE && (next_id.0 < 0 || next_id.0 == id) {
            return Err(format!("producer id {id} is followed by {next_id}"));
        }
        let ago = |wall_ms: i64| now.mono_ms.saturating_sub(now.wall_ms.saturating_sub(wall_ms).max(0));
        let (mut start_ms, updated_ms) = (value.transaction_start_timestamp_ms, value.transaction_last_update_timestamp_ms);
        let mut repaired = None;
        if state == Ongoing && start_ms < 0 {
            // As in Kafka, it times out at once.
            (start_ms, repaired) = (0, Some("it is open and has no start; it is aborted"));
        }
        let partition = |topic: &PartitionsSchema| {
            let topic_name: std::sync::Arc<str> = topic.topic.as_str().into();
            topic.partition_ids.iter().map(|number| TopicPartition::new(topic_name.clone(), *number)).collect::<Vec<_>>()
        };
        let mut restored = Transaction {
            producer: Identity::new(id, epoch),
            previous_id: ProducerId(value.previous_producer_id),
            next_id,
            last_epoch: NONE,
            timeout_ms: value.transaction_timeout_ms,
            state,
            partitions: value.transaction_partitions.iter().flatten().flat_map(partition).collect(),
            start_ms,
            updated_ms,
            client_version: value.client_transaction_version,
            start_mono_ms: ago(start_ms),
            updated_mono_ms: ago(updated_ms),
            is_completing: false,
        };
        let is_decided = matches!(state, PrepareCommit | PrepareAbort);
        if !is_decided && state != Ongoing && !restored.partitions.is_empty() {
            restored.partitions.clear();
            repaired = Some("it has ended and has partitions; they are ignored");
        }
        if !is_decided && next_id != ProducerId::NONE {
            restored.next_id = ProducerId::NONE;
            repaired = Some("it is not decided and has a next producer id, which is ignored");
        }
        Ok((restored, repaired))
    }

    /// The value to store. As in Kafka, it has no list of partitions in state Empty.
    pub(super) fn value(&self) -> TransactionLogValue {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &self.partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        let topic = |(topic, partition_ids): (&str, Vec<i32>)| PartitionsSchema { topic: topic.to_string(), partition_ids };
        let partitions = topics.into_iter().map(topic).collect();
        TransactionLogValue {
            producer_id: self.producer.id.0,
            previous_producer_id: self.previous_id.0,
            next_producer_id: self.next_id.0,
            producer_epoch: self.producer.epoch.0,
            transaction_timeout_ms: self.timeout_ms,
            transaction_status: self.state as i8,
            transaction_partitions: (self.state != TransactionState::Empty).then_some(partitions),
            transaction_last_update_timestamp_ms: self.updated_ms,
            transaction_start_timestamp_ms: self.start_ms,
            client_transaction_version: self.client_version,
            ..Default::default()
        }
    }

    /// A producer starts to use the id. `expected` is its identity if it continues after an error (KIP-360).
    pub(super) fn init(&self, timeout_ms: i32, expected: Option<Identity>, fresh: Option<ProducerId>, now: Now) -> Result<Init, ErrorCode> {
        let epoch = self.producer.epoch.0;
        if let Some(expected) = expected {
            let is_rotated = expected.id == self.previous_id && expected.epoch.0 >= EPOCH_LAST;
            if epoch != NONE && expected.id != self.producer.id && !is_rotated {
                return Err(ErrorCode::ProducerFenced);
            }
        }
        match self.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => return Err(ErrorCode::ConcurrentTransactions),
            TransactionState::Ongoing => {
                let is_known = |expected: Identity| expected.epoch.0 == epoch || expected.epoch.0 == self.last_epoch;
                if expected.is_some_and(|expected| !is_known(expected)) {
                    return Err(ErrorCode::ProducerFenced);
                }
                // If the producer continues and retries, its own epoch must still be recognized; if another producer takes over, the old producer's
                // epoch must not be.
                let last_epoch = expected.map_or(NONE, |_| epoch);
                return Ok(Init::Aborts(Box::new(Transaction { last_epoch, ..self.fenced(now) })));
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {}
        }
        let mut next = self.changed(TransactionState::Empty, now);
        (next.partitions, next.start_ms, next.timeout_ms) = (BTreeSet::new(), -1, timeout_ms);
        // The epoch above the last one is used only to fence: a producer with the last epoch that was fenced by a timeout does not get it either.
        let was_fenced = |expected: Identity| epoch > EPOCH_LAST && expected.epoch.0 == self.last_epoch;
        if epoch >= EPOCH_LAST && expected.is_none_or(|expected| expected.epoch.0 == epoch || was_fenced(expected)) {
            let Some(fresh) = fresh else { return Ok(Init::NeedsProducerId) };
            next.last_epoch = expected.map_or(NONE, |expected| expected.epoch.0);
            next.previous_id = self.producer.id;
            next.producer = Identity { id: fresh, epoch: ProducerEpoch(0) };
            return Ok(Init::Ready(Box::new(next)));
        }
        match expected {
            None => (next.producer.epoch.0, next.last_epoch) = (epoch + 1, NONE),
            Some(expected) if epoch == NONE || expected.epoch.0 == epoch => {
                (next.producer.epoch.0, next.last_epoch) = (epoch + 1, epoch);
            }
            // A retry: the response to the same request was lost.
            Some(expected) if expected.epoch.0 == self.last_epoch => {}
            Some(_) => return Err(ErrorCode::ProducerFenced),
        }
        Ok(Init::Ready(Box::new(next)))
    }

    /// Adds partitions; none if all of them are already in the transaction.
    pub(super) fn add(
        &self,
        producer: Identity,
        partitions: &[TopicPartition],
        client_version: i16,
        now: Now,
    ) -> Result<Option<Transaction>, ErrorCode> {
        self.check(producer)?;
        match self.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => return Err(ErrorCode::ConcurrentTransactions),
            TransactionState::Ongoing if partitions.iter().all(|p| self.partitions.contains(p)) => return Ok(None),
            _ => {}
        }
        let mut next = self.changed(TransactionState::Ongoing, now);
        if self.state != TransactionState::Ongoing {
            (next.start_ms, next.start_mono_ms) = (now.wall_ms, now.mono_ms);
            next.partitions.clear();
        }
        next.client_version = client_version;
        next.partitions.extend(partitions.iter().cloned());
        Ok(Some(next))
    }

    /// Whether each of the partitions is part of the open transaction.
    pub(super) fn verify(&self, producer: Identity, partitions: &[TopicPartition]) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.check(producer)?;
        if matches!(self.state, TransactionState::PrepareCommit | TransactionState::PrepareAbort) {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let is_in = |p: &TopicPartition| self.state == TransactionState::Ongoing && self.partitions.contains(p);
        Ok(partitions.iter().map(|p| if is_in(p) { ErrorCode::None } else { ErrorCode::TransactionAbortable }).collect())
    }

    fn check(&self, producer: Identity) -> Result<(), ErrorCode> {
        match producer {
            Identity { id, .. } if id != self.producer.id => Err(ErrorCode::InvalidProducerIdMapping),
            Identity { epoch, .. } if epoch != self.producer.epoch => Err(ErrorCode::ProducerFenced),
            _ => Ok(()),
        }
    }

    /// The producer ends its transaction.
    pub(super) fn end(
        &self,
        producer: Identity,
        result: TransactionResult,
        rule: EpochRule,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<End, ErrorCode> {
        match rule {
            EpochRule::Stays => self.end_staying(producer, result, now),
            EpochRule::Grows => self.end_growing(producer, result, fresh, now),
        }
    }

    fn end_staying(&self, producer: Identity, result: TransactionResult, now: Now) -> Result<End, ErrorCode> {
        self.check(producer)?;
        match self.is_ended(result)? {
            Some(()) => Ok(End::Done(self.producer)),
            None if self.state == TransactionState::Ongoing => {
                Ok(End::Prepared(Box::new(self.changed(prepared(result), now)), self.producer))
            }
            None => Err(ErrorCode::InvalidTxnState),
        }
    }

    fn end_growing(&self, producer: Identity, result: TransactionResult, fresh: Option<ProducerId>, now: Now) -> Result<End, ErrorCode> {
        let current = self.producer;
        let is_overflown = producer.id == self.previous_id && producer.epoch.0 == EPOCH_LAST && current.epoch.0 == 0;
        // A retry: the response to the same request was lost.
        let is_again = is_overflown || (producer.id == current.id && producer.epoch.0.checked_add(1) == Some(current.epoch.0));
        if !is_again {
            self.check(producer)?;
        }
        let ended = self.is_ended(result);
        match (self.state, ended) {
            (TransactionState::Ongoing, _) if is_again => Err(ErrorCode::ProducerFenced),
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, ended) => {
                Err(ended.err().unwrap_or(ErrorCode::UnknownServerError))
            }
            (TransactionState::CompleteCommit | TransactionState::CompleteAbort, Ok(Some(()))) if is_again => self.answer_again(fresh, now),
            (TransactionState::Ongoing, _) => self.prepare_growing(result, fresh, now),
            // No partition was added since the last transaction: the aborted transaction has no partitions.
            (_, _) if result == TransactionResult::Abort && !is_again => self.prepare_growing(result, fresh, now),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    fn prepare_growing(&self, result: TransactionResult, fresh: Option<ProducerId>, now: Now) -> Result<End, ErrorCode> {
        let mut next = self.changed(prepared(result), now);
        if self.state != TransactionState::Ongoing {
            next.partitions.clear();
            (next.start_ms, next.start_mono_ms) = (now.wall_ms, now.mono_ms);
        }
        next.client_version = GROWS_FROM;
        let epoch = self.producer.epoch.0;
        (next.producer.epoch.0, next.last_epoch) = (epoch.saturating_add(1), epoch);
        if epoch < EPOCH_LAST {
            let identity = next.producer;
            return Ok(End::Prepared(Box::new(next), identity));
        }
        let Some(fresh) = fresh else { return Ok(End::NeedsProducerId) };
        next.next_id = fresh;
        Ok(End::Prepared(Box::new(next), Identity { id: fresh, epoch: ProducerEpoch(0) }))
    }

    /// The response to a retried request. The epoch above the last one is used only to fence, so the producer gets a new id instead.
    fn answer_again(&self, fresh: Option<ProducerId>, now: Now) -> Result<End, ErrorCode> {
        if self.producer.epoch.0 <= EPOCH_LAST {
            return Ok(End::Done(self.producer));
        }
        let Some(fresh) = fresh else { return Ok(End::NeedsProducerId) };
        let mut next = self.changed(self.state, now);
        next.previous_id = self.producer.id;
        next.producer = Identity { id: fresh, epoch: ProducerEpoch(0) };
        let identity = next.producer;
        Ok(End::Prepared(Box::new(next), identity))
    }

    /// Whether it has ended with this result; an error if it is still ending, or has ended with the other result.
    fn is_ended(&self, result: TransactionResult) -> Result<Option<()>, ErrorCode> {
        use TransactionResult::{Abort, Commit};
        match (self.state, result) {
            (TransactionState::CompleteCommit, Commit) | (TransactionState::CompleteAbort, Abort) => Ok(Some(())),
            (TransactionState::PrepareCommit, Commit) | (TransactionState::PrepareAbort, Abort) => Err(ErrorCode::ConcurrentTransactions),
            (TransactionState::Empty | TransactionState::Ongoing, _) => Ok(None),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// The open transaction is aborted because it timed out, with an epoch that its producer does not have. Its producer may continue: a request with
    /// the previous epoch gets the new one, as if the response to the same request had been lost. Kafka does the same.
    pub(super) fn timed_out(&self, now: Now) -> Transaction {
        Transaction { last_epoch: self.producer.epoch.0, ..self.fenced(now) }
    }

    /// The open transaction is aborted by the coordinator, with an epoch that its producer does not have.
    fn fenced(&self, now: Now) -> Transaction {
        let mut next = self.changed(TransactionState::PrepareAbort, now);
        (next.producer.epoch.0, next.last_epoch) = (self.producer.epoch.0.saturating_add(1), NONE);
        next
    }

    /// The state after every partition has its marker.
    pub(super) fn completed(&self, now: Now) -> Option<Transaction> {
        let state = match self.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            TransactionState::PrepareAbort => TransactionState::CompleteAbort,
            _ => return None,
        };
        let mut next = self.changed(state, now);
        next.partitions.clear();
        if self.next_id != ProducerId::NONE {
            next.previous_id = self.producer.id;
            next.producer = Identity { id: self.next_id, epoch: ProducerEpoch(0) };
            next.next_id = ProducerId::NONE;
        }
        Some(next)
    }

    /// Asserts the invariants of every change: the epoch of a producer id never falls, a decision is never reverted, and an ended transaction has no
    /// partitions.
    pub(super) fn assert_follows(&self, before: &Transaction, id: &str) {
        let (was, is) = (before.producer, self.producer);
        assert!(was.id != is.id || was.epoch <= is.epoch, "the epoch of {id} fell from {was:?} to {is:?}");
        assert!(was.id == is.id || is.epoch.0 == 0, "{id} begins with {is:?} after {was:?}");
        let state = (before.state, self.state);
        let keeps_decision = match before.state {
            TransactionState::PrepareCommit => self.state == TransactionState::CompleteCommit,
            TransactionState::PrepareAbort => self.state == TransactionState::CompleteAbort,
            _ => true,
        };
        assert!(keeps_decision, "{id} was decided and goes from {state:?}");
        let has_ended = !matches!(self.state, TransactionState::Ongoing) && self.marker(0).is_none();
        assert!(!has_ended || self.partitions.is_empty(), "{id} is {state:?} and has {} partitions", self.partitions.len());
        assert!(self.state != TransactionState::Ongoing || self.start_ms >= 0, "{id} is open and has begun at {}", self.start_ms);
    }

    /// The marker for its partitions, and the rule for the epoch in it; none if the transaction is not decided.
    pub(super) fn marker(&self, coordinator_epoch: i32) -> Option<(Marker, EpochRule)> {
        let result = match self.state {
            TransactionState::PrepareCommit => TransactionResult::Commit,
            TransactionState::PrepareAbort => TransactionResult::Abort,
            _ => return None,
        };
        let Identity { id: producer_id, epoch: producer_epoch } = self.producer;
        let rule = if self.client_version >= GROWS_FROM { EpochRule::Grows } else { EpochRule::Stays };
        Some((Marker { producer_id, producer_epoch, result, coordinator_epoch }, rule))
    }

    /// The monotonic time at which it times out; none if it is not open.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        (self.state == TransactionState::Ongoing).then_some(self.start_mono_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// Whether it was unused for longer than `expiration_ms`.
    pub(super) fn is_expired(&self, expiration_ms: i64, now: Now) -> bool {
        let rests = matches!(self.state, TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort);
        rests && now.mono_ms.saturating_sub(self.updated_mono_ms) >= expiration_ms
    }

    fn changed(&self, state: TransactionState, now: Now) -> Transaction {
        Transaction { state, updated_ms: now.wall_ms, updated_mono_ms: now.mono_ms, is_completing: false, ..self.clone() }
    }
}

fn prepared(result: TransactionResult) -> TransactionState {
    match result {
        TransactionResult::Commit => TransactionState::PrepareCommit,
        TransactionResult::Abort => TransactionState::PrepareAbort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: i64 = 7;
    const FRESH: i64 = 8;
    const NOW: Now = Now { mono_ms: 1000, wall_ms: 1000 };

    /// An id whose producer has an epoch.
    fn at(epoch: i16) -> Transaction {
        Transaction { producer: Identity::new(PID, epoch), ..Transaction::new(ProducerId(PID), 60_000, NOW) }
    }

    fn ongoing(epoch: i16, client_version: i16) -> Transaction {
        let before = at(epoch);
        before.add(before.producer, &[TopicPartition::new("t", 0)], client_version, NOW).unwrap().unwrap()
    }

    /// Applies the next state; it would be stored, so it has to satisfy the assertions.
    fn follow(before: &Transaction, next: Transaction) -> Transaction {
        next.assert_follows(before, "id");
        next
    }

    fn late(epoch: i16, client_version: i16) -> Transaction {
        let open = ongoing(epoch, client_version);
        let fenced = follow(&open, open.timed_out(NOW));
        follow(&fenced, fenced.completed(NOW).unwrap())
    }

    /// The producer ends its transaction like a client of KIP-890.
    fn ended(epoch: i16, result: TransactionResult) -> Transaction {
        let open = ongoing(epoch, GROWS_FROM);
        let End::Prepared(next, _) = open.end(open.producer, result, EpochRule::Grows, Some(ProducerId(FRESH)), NOW).unwrap() else {
            panic!()
        };
        let next = follow(&open, *next);
        follow(&next, next.completed(NOW).unwrap())
    }

    /// Runs InitProducerId until it is answered, as the service does.
    fn init(id: &mut Transaction, expected: Option<(i64, i16)>) -> Result<(i64, i16), ErrorCode> {
        let expected = expected.map(|(id, epoch)| Identity::new(id, epoch));
        let mut fresh = None;
        loop {
            match id.init(60_000, expected, fresh, NOW)? {
                Init::NeedsProducerId => fresh = Some(ProducerId(FRESH)),
                Init::Ready(next) => {
                    *id = follow(id, *next);
                    return Ok((id.producer.id.0, id.producer.epoch.0));
                }
                Init::Aborts(next) => {
                    *id = follow(id, *next);
                    *id = follow(id, id.completed(NOW).unwrap());
                }
            }
        }
    }

    /// Recorded from Apache Kafka 4.3.1 with raw requests, each state and request under its own transactional id; where our answer differs, a comment
    /// on the line states it. The second answer is the one to the same request sent again.
    #[test]
    fn init_producer_id_answers_as_kafka_does() {
        use ErrorCode::ProducerFenced;
        use TransactionResult::{Abort, Commit};
        const LAST: i16 = EPOCH_LAST;
        let fenced = Err(ProducerFenced);
        let cases = [
            ("empty, nobody", at(0), None, Ok((PID, 1)), Ok((PID, 2))),
            ("empty, itself", at(0), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("empty, an epoch before", at(1), Some((PID, 0)), fenced, fenced),
            ("empty, an epoch to come", at(0), Some((PID, 1)), fenced, fenced),
            ("empty, another id", at(0), Some((99, 0)), fenced, fenced),
            ("open, nobody", ongoing(0, 0), None, Ok((PID, 2)), Ok((PID, 3))),
            ("open, itself", ongoing(0, 0), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("open, itself, growing", ongoing(0, 2), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            // Kafka aborts the open transaction and then returns an error; here a fenced producer aborts nothing.
            ("open, an epoch before", ongoing(2, 0), Some((PID, 1)), fenced, fenced),
            // Kafka accepts it after the abort, because its own epoch has reached the requested one by then.
            ("open, an epoch to come", ongoing(0, 0), Some((PID, 1)), fenced, fenced),
            ("open, another id", ongoing(0, 0), Some((99, 0)), fenced, fenced),
            ("ended, nobody", ended(0, Commit), None, Ok((PID, 2)), Ok((PID, 3))),
            ("ended, itself", ended(0, Commit), Some((PID, 1)), Ok((PID, 2)), Ok((PID, 2))),
            ("ended, whose answer was lost", ended(0, Commit), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("aborted, whose answer was lost", ended(0, Abort), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("took too long, itself", late(0, 0), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("took too long, itself, growing", late(0, 2), Some((PID, 0)), Ok((PID, 1)), Ok((PID, 1))),
            ("took too long, with the new epoch", late(0, 0), Some((PID, 1)), Ok((PID, 2)), Ok((PID, 2))),
            ("took too long, an epoch before", late(1, 0), Some((PID, 0)), fenced, fenced),
            ("took too long, nobody", late(0, 0), None, Ok((PID, 2)), Ok((PID, 3))),
            ("used up, nobody", at(LAST), None, Ok((FRESH, 0)), Ok((FRESH, 1))),
            ("used up, itself", at(LAST), Some((PID, LAST)), Ok((FRESH, 0)), Ok((FRESH, 0))),
            // Kafka rejects the second request: it forgets the previous epoch when the abort changes the producer id.
            ("used up and open, itself", ongoing(LAST, 0), Some((PID, LAST)), Ok((FRESH, 0)), Ok((FRESH, 0))),
            // Kafka skips an epoch: the abort changes the producer id, and the epoch is then bumped once more.
            ("used up and open, nobody", ongoing(LAST, 0), None, Ok((FRESH, 0)), Ok((FRESH, 1))),
            ("used up, took too long, itself", late(LAST, 0), Some((PID, LAST)), Ok((FRESH, 0)), Ok((FRESH, 0))),
            ("used up by an end, the old one", ended(LAST, Commit), Some((PID, LAST)), Ok((FRESH, 0)), Ok((FRESH, 0))),
            ("used up by an end, the new one", ended(LAST, Commit), Some((FRESH, 0)), Ok((FRESH, 1)), Ok((FRESH, 1))),
        ];
        for (what, mut id, expected, first, second) in cases {
            assert_eq!(init(&mut id, expected), first, "{what}");
            assert_eq!(init(&mut id, expected), second, "{what}, again");
        }
    }

    #[test]
    fn what_is_stored_contradicts_no_assertion() {
        // A restored transaction was believed, and an assertion about its next state stopped the broker.
        let sound = ongoing(3, 0).value();
        let restore = |change: &dyn Fn(&mut TransactionLogValue)| {
            let mut value = sound.clone();
            change(&mut value);
            Transaction::restore(&value, NOW)
        };
        assert!(matches!(restore(&|_| ()), Ok((_, None))));
        let skipped: [&dyn Fn(&mut TransactionLogValue); 7] = [
            &|value| value.transaction_status = 9,
            &|value| value.producer_epoch = -1,
            &|value| (value.producer_epoch, value.transaction_status) = (-2, 0),
            &|value| value.producer_id = -1,
            &|value| value.producer_id = i64::MIN,
            &|value| value.next_producer_id = -2,
            &|value| value.next_producer_id = PID,
        ];
        for (at, change) in skipped.iter().enumerate() {
            assert!(restore(*change).is_err(), "case {at}");
        }
        let later = Now { mono_ms: i64::MAX, wall_ms: i64::MAX };
        for state in TransactionState::ALL {
            for (start_ms, next_id) in [(-1, -1), (i64::MIN, FRESH), (i64::MAX, FRESH), (5, -1)] {
                let restored = restore(&|value| {
                    value.transaction_status = state as i8;
                    value.transaction_start_timestamp_ms = start_ms;
                    value.transaction_last_update_timestamp_ms = start_ms;
                    value.next_producer_id = next_id;
                });
                let (restored, repaired) = restored.unwrap();
                let is_sound = restored.marker(0).is_some() || (state == TransactionState::Ongoing && start_ms >= 0 && next_id == -1);
                assert_eq!(repaired.is_none(), is_sound, "{state:?} {start_ms} {next_id}");
                let mut id = restored.completed(NOW).map_or(restored.clone(), |next| follow(&restored, next));
                let _ = (id.is_expired(1, later), id.deadline_ms(), id.value());
                if let Ok(Some(next)) = id.add(id.producer, &[TopicPartition::new("t", 7)], 0, NOW) {
                    let open = follow(&id, next);
                    follow(&open, open.timed_out(NOW));
                }
                init(&mut id, None).unwrap();
            }
        }
    }

    #[test]
    fn what_is_decided_is_not_touched_until_it_is_done() {
        for result in [TransactionResult::Commit, TransactionResult::Abort] {
            let open = ongoing(3, 0);
            let End::Prepared(mut decided, _) = open.end(open.producer, result, EpochRule::Stays, None, NOW).unwrap() else { panic!() };
            for expected in [None, Some((PID, 3)), Some((PID, 2))] {
                assert_eq!(init(&mut decided, expected), Err(ErrorCode::ConcurrentTransactions), "{expected:?}");
            }
            assert_eq!(init(&mut decided, Some((99, 3))), Err(ErrorCode::ProducerFenced));
        }
    }

    #[test]
    fn the_epoch_that_only_fences_is_never_given_out() {
        // A KIP-890 producer whose last epoch was fenced by a timeout, and whose EndTxn arrives late.
        let mut id = late(EPOCH_LAST, GROWS_FROM);
        let last = Identity::new(PID, EPOCH_LAST);
        let end = |id: &Transaction, fresh| id.end(last, TransactionResult::Abort, EpochRule::Grows, fresh, NOW);
        assert_eq!(end(&id, None), Ok(End::NeedsProducerId));
        let Ok(End::Prepared(next, identity)) = end(&id, Some(ProducerId(FRESH))) else { panic!() };
        id = follow(&id, *next);
        assert_eq!(identity, Identity::new(FRESH, 0));
        assert_eq!(end(&id, None), Ok(End::Done(identity)), "again");
    }

    #[test]
    #[should_panic(expected = "fell")]
    fn an_epoch_that_falls_stops_the_broker() {
        at(3).assert_follows(&at(4), "id");
    }

    #[test]
    #[should_panic(expected = "was decided")]
    fn a_decision_that_is_taken_back_stops_the_broker() {
        let open = ongoing(3, 0);
        let decided = open.timed_out(NOW);
        Transaction { producer: decided.producer, ..open }.assert_follows(&decided, "id");
    }
}
