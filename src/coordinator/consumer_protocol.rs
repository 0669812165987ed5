//! The part of the consumer protocol that the broker reads: the topics of a member's subscription.

use bytes::Bytes;

use crate::protocol::Message;
use crate::protocol::generated::consumer_protocol::ConsumerProtocolSubscription;
use crate::wire::{self, Frame};

/// The topics that a member subscribes to; none where the bytes are not a valid subscription. A newer version is parsed as the newest known one:
/// versions only add fields at the end.
pub(super) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let frame = Frame::new(metadata.clone());
    let (rest, version) = wire::int16(frame.cursor()).ok()?;
    let version = (version >= 0).then_some(version.min(ConsumerProtocolSubscription::MAX_VERSION))?;
    ConsumerProtocolSubscription::decode(rest, version).ok().map(|(_, subscription)| subscription.topics)
}
