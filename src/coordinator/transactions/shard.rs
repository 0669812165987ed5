//! The transactional ids of one partition of `__transaction_state`: a request returns the state to store, which is applied after it was stored.

use std::collections::BTreeMap;

use super::transaction::{End, Identity, Init, Transaction, TransactionState};
use crate::coordinator::{Contradiction, Now};
use crate::model::{ProducerId, TopicPartition};
use crate::protocol::ErrorCode;
use crate::protocol::generated::transaction_state::TransactionLogValue;
use crate::records::{EpochRule, Marker, TransactionResult};

/// The broker's settings for transactions; names are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// `transaction.max.timeout.ms`.
    pub timeout_max_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_check_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_check_ms: i64,
    /// `transaction.partition.verification.enable`.
    pub verify_partitions: bool,
    /// `transaction.state.log.num.partitions`.
    pub partitions: i32,
}

/// A transactional id as DescribeTransactions shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionView {
    /// The id.
    pub id: String,
    /// Its producer.
    pub producer: Identity,
    /// Its state.
    pub state: TransactionState,
    /// The transaction timeout.
    pub timeout_ms: i32,
    /// Wall-clock time at which the open transaction began, or -1.
    pub start_ms: i64,
    /// Its partitions.
    pub partitions: Vec<TopicPartition>,
}

/// A request to use a transactional id.
#[derive(Debug, Clone)]
pub struct InitRequest {
    /// The id.
    pub transactional_id: String,
    /// The transaction timeout.
    pub timeout_ms: i32,
    /// The producer's identity, if it continues after an error.
    pub expected: Option<Identity>,
}

/// A decided transaction whose markers have to be written.
#[derive(Debug)]
pub(super) struct ToComplete {
    pub(super) marker: Marker,
    /// The rule for the epoch in the marker.
    pub(super) rule: EpochRule,
    pub(super) partitions: Vec<TopicPartition>,
}

/// The state machine of one partition.
#[derive(Debug, Default)]
pub struct TransactionShard {
    transactions: BTreeMap<String, Transaction>,
}

impl TransactionShard {
    /// Applies a record that is stored in the partition.
    pub(super) fn replay(&mut self, id: String, value: Option<&TransactionLogValue>, now: Now) -> Result<(), Contradiction> {
        let Some(value) = value else {
            self.transactions.remove(&id);
            return Ok(());
        };
        let contradiction = |what| Contradiction { of: format!("transactional id {id}"), what };
        let (transaction, repaired) = Transaction::restore(value, now).map_err(|what| contradiction(what + "; the record is skipped"))?;
        let repaired = repaired.map(|what| contradiction(what.to_string()));
        self.transactions.insert(id, transaction);
        repaired.map_or(Ok(()), Err)
    }

    /// Applies a state that was stored.
    pub(super) fn put(&mut self, id: &str, transaction: Transaction) {
        if let Some(before) = self.transactions.get(id) {
            transaction.assert_follows(before, id);
        }
        self.transactions.insert(id.to_string(), transaction);
    }

    /// Removes an id whose tombstone was stored.
    pub(super) fn remove(&mut self, id: &str) {
        self.transactions.remove(id);
    }

    /// A producer starts to use an id.
    pub(super) fn init(&self, request: &InitRequest, fresh: Option<ProducerId>, now: Now) -> Result<Init, ErrorCode> {
        if let Some(known) = self.transactions.get(&request.transactional_id) {
            return known.init(request.timeout_ms, request.expected, fresh, now);
        }
        let Some(fresh) = fresh else { return Ok(Init::NeedsProducerId) };
        Transaction::new(fresh, request.timeout_ms, now).init(request.timeout_ms, request.expected, None, now)
    }

    /// Adds partitions; none if nothing has to be stored.
    pub(super) fn add(
        &self,
        id: &str,
        producer: Identity,
        partitions: &[TopicPartition],
        client_version: i16,
        now: Now,
    ) -> Result<Option<Transaction>, ErrorCode> {
        self.known(id)?.add(producer, partitions, client_version, now)
    }

    /// Whether each of the partitions is part of the open transaction.
    pub(super) fn verify(&self, id: &str, producer: Identity, partitions: &[TopicPartition]) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.known(id)?.verify(producer, partitions)
    }

    /// A producer ends its transaction.
    pub(super) fn end(
        &self,
        id: &str,
        producer: Identity,
        result: TransactionResult,
        rule: EpochRule,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<End, ErrorCode> {
        self.known(id)?.end(producer, result, rule, fresh, now)
    }

    fn known(&self, id: &str) -> Result<&Transaction, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        self.transactions.get(id).ok_or(ErrorCode::InvalidProducerIdMapping)
    }

    /// Begins to write the markers of a decided transaction; none if no markers have to be written, or they are being written already.
    pub(super) fn begin_completing(&mut self, id: &str, coordinator_epoch: i32) -> Option<ToComplete> {
        let transaction = self.transactions.get_mut(id).filter(|transaction| !transaction.is_completing)?;
        let (marker, rule) = transaction.marker(coordinator_epoch)?;
        transaction.is_completing = true;
        Some(ToComplete { marker, rule, partitions: transaction.partitions.iter().cloned().collect() })
    }

    /// Not every marker could be written: the transaction must be completed by a later attempt.
    pub(super) fn stop_completing(&mut self, id: &str) {
        if let Some(transaction) = self.transactions.get_mut(id) {
            transaction.is_completing = false;
        }
    }

    /// The state of the transaction after all markers of `work` are written.
    pub(super) fn completed(&self, id: &str, work: &ToComplete, now: Now) -> Transaction {
        let decided = self.transactions.get(id).and_then(|transaction| transaction.completed(now).zip(transaction.marker(0)));
        let Some((next, (marker, _))) = decided else { panic!("{id} was removed while its markers were written: {:?}", work.marker) };
        let facts = |marker: &Marker| (marker.producer_id, marker.producer_epoch, marker.result);
        assert_eq!(facts(&marker), facts(&work.marker), "the decision about {id} changed while its markers were written");
        next
    }

    /// Open transactions that have timed out, in their next state.
    pub(super) fn timed_out(&self, now: Now) -> Vec<(String, Transaction)> {
        let is_late = |t: &Transaction| t.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now.mono_ms);
        self.transactions.iter().filter(|(_, t)| is_late(t)).map(|(id, t)| (id.clone(), t.timed_out(now))).collect()
    }

    /// Ids that were unused for too long.
    pub(super) fn expired(&self, expiration_ms: i64, now: Now) -> Vec<String> {
        self.transactions.iter().filter(|(_, t)| t.is_expired(expiration_ms, now)).map(|(id, _)| id.clone()).collect()
    }

    /// Decided transactions whose markers are not being written.
    pub(super) fn to_complete(&self) -> Vec<String> {
        let waits = |t: &Transaction| t.marker(0).is_some() && !t.is_completing;
        self.transactions.iter().filter(|(_, t)| waits(t)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether a producer's transaction in a partition is known here, so that this coordinator will end it.
    pub(super) fn has(&self, producer: ProducerId, partition: &TopicPartition) -> bool {
        let undecided = |t: &Transaction| t.state == TransactionState::Ongoing || t.marker(0).is_some();
        self.transactions.values().any(|t| t.producer.id == producer && undecided(t) && t.partitions.contains(partition))
    }

    /// One transactional id.
    pub fn describe(&self, id: &str) -> Option<TransactionView> {
        self.transactions.get(id).map(|transaction| view(id, transaction))
    }

    /// All transactional ids.
    pub fn list(&self) -> impl Iterator<Item = TransactionView> {
        self.transactions.iter().map(|(id, transaction)| view(id, transaction))
    }
}

fn view(id: &str, transaction: &Transaction) -> TransactionView {
    let Transaction { producer, state, timeout_ms, start_ms, partitions, .. } = transaction;
    TransactionView {
        id: id.to_string(),
        producer: *producer,
        state: *state,
        timeout_ms: *timeout_ms,
        start_ms: *start_ms,
        partitions: partitions.iter().cloned().collect(),
    }
}
