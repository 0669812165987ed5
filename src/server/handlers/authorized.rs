//! The operations that a client is authorized for, as a bit field (KIP-430): bit n is the operation with Kafka's number n.
//!
//! There is no authorizer, so a client may perform every operation that the resource type supports.

/// The value in a response if the client did not request the operations.
pub(super) const NOT_ASKED: i32 = i32::MIN;

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// The operations on a topic.
pub(super) const ON_TOPIC: i32 = READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
/// The operations on the cluster.
pub(super) const ON_CLUSTER: i32 = CREATE | ALTER | DESCRIBE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE;
/// The operations on a group.
pub(super) const ON_GROUP: i32 = READ | DELETE | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

/// The operations, if the client requested them.
pub(super) fn if_asked(is_asked: bool, operations: i32) -> i32 {
    if is_asked { operations } else { NOT_ASKED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_apache_kafka_without_an_authorizer() {
        assert_eq!((ON_TOPIC, ON_CLUSTER, ON_GROUP), (3576, 8096, 3400));
        assert_eq!((if_asked(true, ON_TOPIC), if_asked(false, ON_TOPIC)), (3576, -2147483648));
    }
}
