//! Randomness.

use crate::model::Uuid;

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The kernel's random source.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }
}

impl dyn Entropy + '_ {
    /// A new version 4 UUID.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        Uuid::from_random(bytes)
    }

    /// A new number above zero.
    pub fn positive(&self) -> i32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        (i32::from_be_bytes(bytes) & i32::MAX).max(1)
    }
}
