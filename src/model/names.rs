//! Topics and partitions by name.

use std::fmt;
use std::sync::Arc;

/// The maximum length of a topic's name in characters.
pub const TOPIC_NAME_MAX: usize = 249;

/// Whether Kafka allows `name` for a topic: 1 to 249 characters of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub fn is_legal_topic_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=TOPIC_NAME_MAX).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

/// Whether `name` is one of the topics in which a broker stores its own state.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// A partition, identified by its topic's name and its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, starting at zero.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    /// As Kafka names the partition's directory: `topic-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A number of things, for people: "1 partition", "2 partitions". The plural has an s.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_is_legal_as_kafka_says() {
        let long = "x".repeat(TOPIC_NAME_MAX);
        for name in ["a", "A.b_c-9", "...", long.as_str()] {
            assert!(is_legal_topic_name(name), "{name}");
        }
        let longer = "x".repeat(TOPIC_NAME_MAX + 1);
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", longer.as_str()] {
            assert!(!is_legal_topic_name(name), "{name}");
        }
    }
}
