//! Number types that must not be confused with each other.

use std::fmt;

/// Declares a newtype for a number, with its `Display`.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The position of a record in its partition, starting at zero. The log end offset is the position of the next record.
    Offset(i64)
);
number!(
    /// The generation of a partition's leader; increases with each leader and each start. -1 means unknown.
    LeaderEpoch(i32)
);
number!(
    /// The id of a broker in its cluster; never negative.
    NodeId(i32)
);
number!(
    /// The id of an idempotent producer (KIP-98). -1 means none.
    ProducerId(i64)
);
number!(
    /// The generation of a producer id; a higher one fences lower ones. -1 means none.
    ProducerEpoch(i16)
);

impl Offset {
    /// The offset `count` records later; saturates, so that invalid numbers from outside keep their order.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0.saturating_add(count))
    }
}

impl ProducerId {
    /// No producer id: the batch is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}
