//! What a cluster can be told to use, and up to which level (KIP-584).

/// A feature with the levels that this broker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest level; 0 means that it is not used.
    pub min: i16,
    /// The highest level, which a new cluster uses.
    pub max: i16,
}

/// Transactions: 1 stores their state in a format that can grow, 2 lets the epochs of producers grow with each transaction (KIP-890).
pub const TRANSACTION_VERSION: Feature = Feature { name: "transaction.version", min: 0, max: 2 };

/// The format of the metadata and what it may hold, as Kafka numbers it: 7 is 3.3-IV3, 30 is 4.3-IV0. Clients tell Kafka's version by it. Our
/// records are always written in their newest versions, so the level never falls.
pub const METADATA_VERSION: Feature = Feature { name: "metadata.version", min: 7, max: 30 };

/// All of them.
pub const FEATURES: &[Feature] = &[METADATA_VERSION, TRANSACTION_VERSION];

impl Feature {
    /// The feature of a name.
    pub fn named(name: &str) -> Option<&'static Feature> {
        FEATURES.iter().find(|feature| feature.name == name)
    }
}

/// A change of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Kafka's name.
    pub name: String,
    /// The level that it is to have.
    pub level: i16,
    /// Whether it may be lower than before.
    pub downgrade: Downgrade,
}

/// Whether a level may become a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// No.
    Refused,
    /// Yes.
    Allowed,
}
