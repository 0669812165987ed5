//! Checks whether the batches of a transaction may be appended to their partitions: before the first batch is appended, the transaction's coordinator
//! is asked (KIP-890).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::coordinator::Identity;
use crate::model::TopicPartition;
use crate::partition::{Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{BatchHeader, EpochRule};
use crate::server::services::Services;

/// The error codes and features that a client supports, by the version of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// Only the original errors, most of which are fatal for the client.
    Little,
    /// Also the errors after which it aborts its transaction and continues.
    Abortable,
    /// Also that the broker adds partitions to its transaction.
    Adding,
}

impl Knows {
    /// Whether the epoch of such a producer grows with each transaction.
    pub(super) fn rule(self) -> EpochRule {
        if self == Knows::Adding { EpochRule::Grows } else { EpochRule::Stays }
    }

    /// A coordinator's error as this client supports it: a temporary error is mapped to a code after which the client retries.
    pub(super) fn error(self, error: ErrorCode) -> ErrorCode {
        match (error, self) {
            (ErrorCode::ProducerFenced, _) => ErrorCode::InvalidProducerEpoch,
            (ErrorCode::TransactionAbortable, Knows::Little) => ErrorCode::InvalidTxnState,
            (ErrorCode::ConcurrentTransactions, Knows::Adding) => ErrorCode::ConcurrentTransactions,
            (
                ErrorCode::ConcurrentTransactions
                | ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable,
                _,
            ) => ErrorCode::NotEnoughReplicas,
            (error, _) => error,
        }
    }
}

/// The coordinator's answers by partition. Partitions in which the transaction is already open are not included.
#[derive(Debug, Default)]
pub(super) struct Admission(BTreeMap<TopicPartition, Result<Verification, ErrorCode>>);

impl Admission {
    /// Asks the coordinator about the partitions of a request's transactional batches.
    pub(super) async fn ask(
        services: &Services,
        transactional_id: &str,
        batches: Vec<(Arc<Replica>, BatchHeader)>,
        knows: Knows,
    ) -> Admission {
        let mut asked = BTreeMap::new();
        let mut producer = None;
        for (replica, header) in batches.into_iter().filter(|(_, header)| header.is_transactional()) {
            let identity = Identity { id: header.producer_id, epoch: header.producer_epoch };
            let is_same = *producer.get_or_insert(identity) == identity;
            let Some(verification) = replica.begin_verification(header.producer_id) else { continue };
            asked.insert(replica.id().clone(), if is_same { Ok(verification) } else { Err(ErrorCode::InvalidProducerIdMapping) });
        }
        let partitions: Vec<TopicPartition> = asked.iter().filter(|(_, asked)| asked.is_ok()).map(|(id, _)| id.clone()).collect();
        let Some(producer) = producer.filter(|_| !partitions.is_empty()) else { return Admission(asked) };
        let admitted = services.transactions.admit(transactional_id, producer, &partitions, knows.rule()).await;
        let codes = admitted.unwrap_or_else(|error| vec![error; partitions.len()]);
        for (id, code) in partitions.into_iter().zip(codes).filter(|(_, code)| *code != ErrorCode::None) {
            asked.insert(id, Err(knows.error(code)));
        }
        Admission(asked)
    }

    /// The coordinator's answer for a partition; none if it did not have to be asked.
    pub(super) fn of(&self, partition: &TopicPartition) -> Result<Option<&Verification>, ErrorCode> {
        self.0.get(partition).map(|asked| asked.as_ref().map_err(|error| *error)).transpose()
    }
}
