//! Features of a cluster and their levels (KIP-584).

/// A feature with the levels that this broker supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest level; 0 means that it is not used.
    pub min: i16,
    /// The highest level, which a new cluster uses.
    pub max: i16,
}

/// Transactions: level 1 stores their state in an extensible format, level 2 increases the producer epoch with each transaction (KIP-890).
pub const TRANSACTION_VERSION: Feature = Feature { name: "transaction.version", min: 0, max: 2 };

/// The format of the metadata, with Kafka's numbers: 7 is 3.3-IV3, 30 is 4.3-IV0. Clients derive Kafka's version from it. Our records are
/// always written in their newest versions, so the level never decreases.
pub const METADATA_VERSION: Feature = Feature { name: "metadata.version", min: 7, max: 30 };

/// All features.
pub const FEATURES: &[Feature] = &[METADATA_VERSION, TRANSACTION_VERSION];

impl Feature {
    /// The feature with this name, if it is known.
    pub fn named(name: &str) -> Option<&'static Feature> {
        FEATURES.iter().find(|feature| feature.name == name)
    }
}

/// A change of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Kafka's name.
    pub name: String,
    /// The new level.
    pub level: i16,
    /// Whether the new level may be lower than the current one.
    pub downgrade: Downgrade,
}

/// Whether a level may be lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// No.
    Refused,
    /// Yes.
    Allowed,
}
