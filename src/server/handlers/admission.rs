//! Whether the batches of a transaction may go into their partitions: before its first one does, the transaction's coordinator is asked
//! (KIP-890).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::coordinator::Identity;
use crate::model::TopicPartition;
use crate::partition::{Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{BatchHeader, EpochRule};
use crate::server::services::Services;

/// What a client can be told, by the version of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// Errors of old, of which it takes most for fatal.
    Little,
    /// Errors after which it aborts and goes on.
    Abortable,
    /// That the broker adds partitions to its transaction.
    Adding,
}

impl Knows {
    /// Whether the epoch of such a producer grows with each transaction.
    pub(super) fn rule(self) -> EpochRule {
        if self == Knows::Adding { EpochRule::Grows } else { EpochRule::Stays }
    }

    /// A coordinator's error as such a client understands it: what passes is said so that it tries again.
    pub(super) fn told(self, error: ErrorCode) -> ErrorCode {
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

/// What the coordinator said, by partition. Partitions in which the transaction is open already are not in it.
#[derive(Debug, Default)]
pub(super) struct Admission(BTreeMap<TopicPartition, Result<Verification, ErrorCode>>);

impl Admission {
    /// Asks for the partitions of a request's batches that are transactional.
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
            asked.insert(id, Err(knows.told(code)));
        }
        Admission(asked)
    }

    /// What the coordinator said of a partition; none where it did not have to be asked.
    pub(super) fn of(&self, partition: &TopicPartition) -> Result<Option<&Verification>, ErrorCode> {
        self.0.get(partition).map(|asked| asked.as_ref().map_err(|error| *error)).transpose()
    }
}
