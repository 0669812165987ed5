//! Record batches inside a message.

use bytes::Bytes;

/// The record batches of a Produce request or a Fetch response.
#[derive(Debug, Clone, PartialEq)]
pub enum Records {
    /// Bytes in memory; decoded records are always a slice of their frame.
    Bytes(Bytes),
    /// `length` bytes that are stored elsewhere (in a segment file): the writer leaves a [`super::Hole`] and the sender fills it.
    Elsewhere {
        /// The number of bytes.
        length: usize,
    },
}

impl Records {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Records::Bytes(bytes) => bytes.len(),
            Records::Elsewhere { length } => *length,
        }
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Records::Bytes(bytes) => Some(bytes),
            Records::Elsewhere { .. } => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Records::Bytes(Bytes::new())
    }
}
