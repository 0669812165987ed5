//! Numbers that must not be mixed up.

use std::fmt;

/// Declares a newtype over a number, with its display.
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
    /// The place of a record in its partition, counted from zero. A log end offset is that of the next record.
    Offset(i64)
);
number!(
    /// The generation of a partition's leader; grows with each leader and each start. -1 means unknown.
    LeaderEpoch(i32)
);
number!(
    /// A broker's number in its cluster; never negative.
    NodeId(i32)
);
number!(
    /// The number of an idempotent producer (KIP-98). -1 means none.
    ProducerId(i64)
);
number!(
    /// The generation of a producer id; a higher one fences lower ones. -1 means none.
    ProducerEpoch(i16)
);

impl Offset {
    /// The offset `count` records further on; saturates, so that hostile numbers stay ordered.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0.saturating_add(count))
    }
}

impl ProducerId {
    /// No producer id: the batch is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}
