//! The records of `__transaction_state`, in Kafka's format.

use bytes::Bytes;

use super::transaction::Transaction;
use crate::coordinator::instances::KeyValue;
use crate::coordinator::record::{typed, versioned};
use crate::protocol::generated::transaction_state::{TransactionLogKey, TransactionLogValue};
use crate::protocol::{Message, decode_whole};
use crate::wire::{self, Frame};

/// The type of a key.
const KEY_TYPE: i16 = 0;

/// Encodes the key and the value; without a transaction the value is a tombstone, which deletes the transactional id. Version 1 of the value is for
/// clusters with feature `transaction.version`.
pub(super) fn encode(id: &str, transaction: Option<&Transaction>) -> KeyValue {
    let key = TransactionLogKey { transactional_id: id.to_string() };
    let version = TransactionLogValue::MAX_VERSION;
    let value = transaction.map(|transaction| typed(version, |writer| transaction.value().encode(writer, version)));
    (typed(KEY_TYPE, |writer| key.encode(writer, 0)), value)
}

/// Decodes a stored record; none for record types of later releases.
pub(super) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Option<(String, Option<TransactionLogValue>)>, wire::Error> {
    let frame = Frame::new(key.clone());
    let (rest, kind) = wire::int16(frame.cursor())?;
    if kind != KEY_TYPE {
        return Ok(None);
    }
    let key: TransactionLogKey = decode_whole(&key.slice(key.len() - rest.len()..), 0)?;
    Ok(Some((key.transactional_id, value.map(versioned).transpose()?)))
}
